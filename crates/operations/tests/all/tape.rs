//! A backward pass in parts: the same gradients, handed out block by block.

use std::collections::HashMap;

use burn::{
    module::{Module, ParamId, list_param_ids},
    nn::{Linear, LinearConfig},
    optim::GradientsParams,
    tensor::{Device, Distribution, Gradients, Tensor},
};
use operations::tape::{Keep, Tape, stack};

const WIDTH: usize = 6;

#[derive(Module, Debug)]
struct Net {
    first: Linear,
    blocks: Vec<Linear>,
    unused: Vec<Linear>,
    last: Linear,
}

impl Net {
    fn new(device: &Device) -> Self {
        device.seed(3);
        let layer = || LinearConfig::new(WIDTH, WIDTH).init(device);
        let layers = || (0..3).map(|_| layer()).collect();
        let net = Self { first: layer(), blocks: layers(), unused: layers(), last: layer() };
        // Parameters are made when they are first looked at.
        make_parameters(&net);
        net
    }

    /// Goes through the blocks twice; what comes out of a stack beside that leads to no loss.
    fn loss<'a>(&'a self, x: Tensor<3>, mut tape: Option<&mut Tape<'a>>) -> Tensor<1> {
        let run = |block: &Linear, number: usize, x: Tensor<3>| {
            (block.forward(x.clone()).tanh() + x).mul_scalar(1.0 + number as f32)
        };
        let x = self.first.forward(x);
        let x = stack(tape.as_deref_mut(), &self.blocks, x, run);
        let x = stack(tape.as_deref_mut(), &self.blocks[1..], x, run);
        let _ = stack(tape, &self.unused, x.clone(), run);
        self.last.forward(x).square().sum()
    }
}

fn make_parameters(net: &Net) {
    struct Values;
    impl burn::module::ModuleVisitor for Values {
        fn visit_float<const D: usize>(&mut self, param: &burn::module::Param<Tensor<D>>) {
            param.val();
        }
    }
    net.visit(&mut Values);
}

/// The gradients of a part, by parameter.
fn values(net: &Net, part: Gradients) -> HashMap<ParamId, Vec<f32>> {
    struct Read(GradientsParams, HashMap<ParamId, Vec<f32>>);
    impl burn::module::ModuleVisitor for Read {
        fn visit_float<const D: usize>(&mut self, param: &burn::module::Param<Tensor<D>>) {
            if let Some(gradient) = self.0.remove::<D>(param.id) {
                self.1.insert(param.id, operations::parameters::host_tensor(gradient).values);
            }
        }
    }
    let mut read = Read(GradientsParams::from_grads(part, net), HashMap::new());
    net.visit(&mut read);
    read.1
}

#[test]
fn should_give_the_gradients_of_the_whole_graph_and_say_when_a_block_has_all_of_its_own() {
    let device = Device::flex().autodiff();
    let net = Net::new(&device);
    let x = Tensor::<3>::random([2, 4, WIDTH], Distribution::Default, &device);
    let whole = values(&net, net.loss(x.clone(), None).backward());
    let ids = |layers: &[Linear]| layers.iter().flat_map(list_param_ids).collect::<Vec<_>>();
    for keep in [Keep::Inputs, Keep::Activations] {
        let mut tape = Tape::new(keep);
        let loss = net.loss(x.clone(), Some(&mut tape));
        let mut sums = HashMap::<ParamId, Vec<f32>>::new();
        let mut order = Vec::new();
        tape.backward(loss, |part, complete| {
            for (parameter, part) in values(&net, part) {
                assert!(!order.contains(&parameter), "{keep:?}: more came for a complete one");
                match sums.get_mut(&parameter) {
                    Some(sum) => sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part),
                    None => drop(sums.insert(parameter, part)),
                }
            }
            order.extend_from_slice(complete);
        });
        // The first block is used once, the others twice; the backward pass comes to it last.
        let mut expected = ids(&net.blocks[2..]);
        expected.extend(ids(&net.blocks[1..2]));
        expected.extend(ids(&net.blocks[..1]));
        assert_eq!(order, expected, "{keep:?}");
        assert_eq!(sums.len(), whole.len(), "{keep:?}");
        for (parameter, whole) in &whole {
            for (got, expected) in sums[parameter].iter().zip(whole) {
                assert!((got - expected).abs() <= 1e-6 * expected.abs().max(1.0), "{keep:?}");
            }
        }
    }
}
