//! Linear layers in bfloat16 on parameters in single precision.

use burn::{
    module::Module,
    nn::{Linear, LinearConfig, RmsNorm, RmsNormConfig},
    optim::GradientsParams,
    tensor::{DType, Device, FloatDType, Tensor, TensorData},
};
use files::HostTensor;
use operations::{
    fused::{self, composed},
    parameters::{collect, gradients, replace},
    precision::in_bf16,
    project,
};
use tokens::noise::{Noise, Purpose};

#[derive(Module, Debug)]
struct Net {
    first: Linear,
    norm: RmsNorm,
    second: Linear,
}

fn numbers(count: usize, sample: u64) -> Vec<f32> {
    let mut noise = Noise::new(3, Purpose::Initialization, 0, sample);
    (0..count).map(|_| noise.normal() as f32).collect()
}

fn tensor<const D: usize>(shape: [usize; D], sample: u64, device: &Device) -> Tensor<D> {
    let values = numbers(shape.iter().product(), sample);
    Tensor::from_data(TensorData::new(values, shape), device)
}

fn net(device: &Device) -> Net {
    let net = Net {
        first: LinearConfig::new(24, 40).init(device),
        norm: RmsNormConfig::new(40).init(device),
        second: LinearConfig::new(40, 8).with_bias(false).init(device),
    };
    let mut sample = 0;
    replace(net, |_, shape| {
        sample += 1;
        Some(HostTensor::new(shape, numbers(shape.iter().product(), sample)))
    })
}

fn forward(net: &Net, x: Tensor<2>) -> Tensor<2> {
    let [batch, width] = x.dims();
    let hidden = project(&net.first, x.reshape([1, batch, width]));
    let hidden = net.norm.forward(hidden);
    project(&net.second, hidden).reshape([batch, 8])
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    operations::parameters::host_tensor(tensor).values
}

#[test]
fn should_round_what_goes_into_and_comes_out_of_a_product() {
    let device = Device::flex();
    let (x, weight) = (tensor([5, 24], 1, &device), tensor([24, 7], 2, &device));
    let bias = tensor([7], 3, &device);
    let round = |x: Tensor<2>| x.cast(FloatDType::BF16).cast(FloatDType::F32);
    let half = weight.clone().cast(FloatDType::BF16);
    let got = fused::linear(x.clone(), half.clone(), Some(bias.clone()));
    assert_eq!(got.dtype(), DType::F32);
    let exact = composed::linear(round(x.clone()), round(weight), Some(bias.clone()));
    let (got, exact) = (values(got), values(exact));
    for (got, exact) in got.iter().zip(&exact) {
        // A result has eight bits, one more than half a step off where sums differ in their last.
        assert!((got - exact).abs() <= exact.abs() / 250.0 + 1e-6, "{got} is not near {exact}");
        assert_eq!(got.to_bits() & 0xffff, 0, "{got} is no bfloat16");
    }
    // As Burn multiplies in bfloat16, which other devices do.
    let burn = composed::linear(x.cast(FloatDType::BF16), half, Some(bias.cast(FloatDType::BF16)));
    for (got, burn) in got.iter().zip(values(burn)) {
        assert!((got - burn).abs() <= 0.03 * (1.0 + burn.abs()), "{got} is not near {burn}");
    }
}

#[test]
fn should_lower_linear_weights_alone_and_lead_gradients_to_the_parameters() {
    let device = Device::flex().autodiff();
    let net = net(&device);
    let x: Tensor<2> = Tensor::from_inner(tensor([6, 24], 9, &Device::flex()));
    let direction: Tensor<2> = Tensor::from_inner(tensor([6, 8], 10, &Device::flex()));
    let lowered = in_bf16(net.clone());
    assert_eq!(lowered.first.weight.val().dtype(), DType::BF16);
    assert_eq!(lowered.second.weight.val().dtype(), DType::BF16);
    assert_eq!(lowered.norm.gamma.val().dtype(), DType::F32);
    assert_eq!(lowered.first.bias.as_ref().unwrap().val().dtype(), DType::F32);
    assert_eq!(net.first.weight.val().dtype(), DType::F32);

    let of = |computing: &Net| {
        let loss = (forward(computing, x.clone()) * direction.clone()).sum();
        let found = GradientsParams::from_grads(loss.backward(), &net);
        gradients(&net, &found)
    };
    let (half, single) = (of(&lowered), of(&net));
    assert_eq!(half.len(), collect(&net).len());
    assert_ne!(half, single);
    for (name, single) in &single {
        let largest = single.values.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
        for (half, single) in half[name].values.iter().zip(&single.values) {
            assert!((half - single).abs() < 0.03 * largest, "{name}: {half} not {single}");
        }
    }
}
