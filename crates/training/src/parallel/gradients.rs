//! The gradients of one step: sums over the micro-batches of a rank, and their means over those of
//! all ranks.
//!
//! Ranks exchange gradients in buckets, while the backward pass of the last micro-batch goes on:
//! as soon as a block's gradients are there they are copied from the device, and a thread of its
//! own sums full buckets over ranks (as PyTorch's `DistributedDataParallel` does; Li et al. 2020).

use std::{
    collections::HashMap,
    sync::{Arc, mpsc},
};

use burn::{
    module::{Module, ModuleVisitor, Param, ParamId},
    optim::GradientsParams,
    tensor::{Tensor, TensorData},
};
use operations::tape::Tape;

use crate::communicator::{Communicator, ParallelError};

/// Values of a bucket at least: 16 MiB of gradients, enough to be limited by the network's
/// bandwidth and not by its latency.
const BUCKET: usize = 1 << 22;

/// Collects the gradients of one step. [`Split::gradients`](super::Split::gradients) begins one.
///
/// From the last micro-batch on until [`mean`](Self::mean) returns, ranks exchange gradients, and
/// nothing else may be asked of the communicator.
pub struct StepGradients {
    communicator: Arc<dyn Communicator>,
    /// Micro-batches of this rank that are still to come.
    left: usize,
    /// Of sums, to make them means.
    scale: f32,
    /// Values of a bucket at least.
    bucket: usize,
    sums: GradientsParams,
    exchange: Option<Exchange>,
}

impl StepGradients {
    /// Of `own` micro-batches of this rank, which are as many on every other.
    pub(super) fn new(communicator: Arc<dyn Communicator>, own: usize) -> Self {
        let scale = 1.0 / (own * communicator.ranks()) as f32;
        let sums = GradientsParams::new();
        Self { communicator, left: own, scale, bucket: BUCKET, sums, exchange: None }
    }

    /// Adds the gradients of a micro-batch's loss. With a tape, those of blocks are exchanged
    /// while the backward pass goes on.
    ///
    /// # Panics
    /// If there are more micro-batches than there should be, or if a parameter of a block on the
    /// tape is also used elsewhere.
    pub fn add<M: Module>(&mut self, module: &M, loss: Tensor<1>, tape: Option<Tape<'_>>) {
        self.left = self.left.checked_sub(1).expect("a step has one loss for each micro-batch");
        if self.left == 0 && self.communicator.ranks() > 1 {
            self.exchange = Some(Exchange::start(Arc::clone(&self.communicator), self.bucket));
        }
        let Some(tape) = tape else {
            return self.take(module, GradientsParams::from_grads(loss.backward(), module));
        };
        tape.backward(loss, |part, complete| {
            self.take(module, GradientsParams::from_grads(part, module));
            if let Some(exchange) = &mut self.exchange {
                exchange.send(module, &mut self.sums, Some(complete));
            }
        });
    }

    fn take<M: Module>(&mut self, module: &M, part: GradientsParams) {
        struct Add<'a> {
            sums: &'a mut GradientsParams,
            part: GradientsParams,
            exchange: Option<&'a Exchange>,
        }
        impl ModuleVisitor for Add<'_> {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                let Some(mut gradient) = self.part.remove::<D>(param.id) else { return };
                let sent = self.exchange.is_some_and(|exchange| exchange.has_sent(param.id));
                assert!(!sent, "a parameter of a block has a gradient from outside of its stack");
                if let Some(sum) = self.sums.remove::<D>(param.id) {
                    gradient = sum + gradient;
                }
                self.sums.register(param.id, gradient);
            }
        }
        if self.sums.is_empty() && self.exchange.is_none() {
            self.sums = part;
            return;
        }
        module.visit(&mut Add { sums: &mut self.sums, part, exchange: self.exchange.as_ref() });
    }

    /// Gradients of the mean loss over all micro-batches of all ranks.
    ///
    /// # Errors
    /// If the other ranks cannot be reached.
    pub fn mean<M: Module>(mut self, module: &M) -> Result<GradientsParams, ParallelError> {
        struct Scale {
            gradients: GradientsParams,
            scale: f32,
        }
        impl ModuleVisitor for Scale {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                if let Some(gradient) = self.gradients.remove::<D>(param.id) {
                    self.gradients.register(param.id, gradient.mul_scalar(self.scale));
                }
            }
        }
        debug_assert_eq!(self.left, 0, "micro-batches are missing");
        if let Some(mut exchange) = self.exchange {
            exchange.send(module, &mut self.sums, None);
            return exchange.finish(module, self.scale);
        }
        if self.scale == 1.0 {
            return Ok(self.sums);
        }
        let mut scaled = Scale { gradients: self.sums, scale: self.scale };
        module.visit(&mut scaled);
        Ok(scaled.gradients)
    }
}

/// Gradients on their way between ranks.
struct Exchange {
    /// Values of a bucket at least.
    size: usize,
    bucket: Vec<f32>,
    /// Whose gradients have been sent, in order, and how many values each has.
    members: Vec<(ParamId, usize)>,
    to_sum: mpsc::Sender<Vec<f32>>,
    sums: mpsc::Receiver<Result<Vec<f32>, ParallelError>>,
}

impl Exchange {
    fn start(communicator: Arc<dyn Communicator>, size: usize) -> Self {
        let (to_sum, buckets) = mpsc::channel::<Vec<f32>>();
        let (summed, sums) = mpsc::channel();
        std::thread::spawn(move || {
            for mut bucket in buckets {
                let result = communicator.sum(&mut bucket).map(|()| bucket);
                let failed = result.is_err();
                if summed.send(result).is_err() || failed {
                    return;
                }
            }
        });
        Self { size, bucket: Vec::new(), members: Vec::new(), to_sum, sums }
    }

    fn has_sent(&self, parameter: ParamId) -> bool {
        self.members.iter().any(|&(sent, _)| sent == parameter)
    }

    /// Sends gradients in the order of the module's parameters, which all ranks share: those of
    /// some parameters, or all that are left.
    fn send<M: Module>(
        &mut self,
        module: &M,
        gradients: &mut GradientsParams,
        only: Option<&[ParamId]>,
    ) {
        struct Send<'a> {
            exchange: &'a mut Exchange,
            gradients: &'a mut GradientsParams,
            only: Option<&'a [ParamId]>,
        }
        impl ModuleVisitor for Send<'_> {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                if self.only.is_some_and(|only| !only.contains(&param.id)) {
                    return;
                }
                let Some(gradient) = self.gradients.remove::<D>(param.id) else { return };
                let values = operations::parameters::host_tensor(gradient).values;
                let exchange = &mut *self.exchange;
                exchange.members.push((param.id, values.len()));
                exchange.bucket.extend(values);
                if exchange.bucket.len() >= exchange.size {
                    exchange.flush();
                }
            }
        }
        module.visit(&mut Send { exchange: self, gradients, only });
    }

    fn flush(&mut self) {
        if !self.bucket.is_empty() {
            // Nobody listens after a failure, which `finish` will meet.
            let _ = self.to_sum.send(std::mem::take(&mut self.bucket));
        }
    }

    /// Waits for the sums of all that was sent, and scales them.
    fn finish<M: Module>(
        mut self,
        module: &M,
        scale: f32,
    ) -> Result<GradientsParams, ParallelError> {
        struct Rebuild {
            values: HashMap<ParamId, Vec<f32>>,
            gradients: GradientsParams,
        }
        impl ModuleVisitor for Rebuild {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                let Some(values) = self.values.remove(&param.id) else { return };
                let value = param.val();
                let data = TensorData::new(values, value.shape());
                let gradient = Tensor::<D>::from_data(data, &value.device().without_autodiff());
                self.gradients.register(param.id, gradient);
            }
        }
        self.flush();
        drop(self.to_sum);
        let mut values = HashMap::with_capacity(self.members.len());
        let mut bucket = Vec::new().into_iter();
        for (parameter, count) in self.members {
            // Buckets end where gradients end.
            if count > 0 && bucket.len() == 0 {
                bucket = self.sums.recv().map_err(|_| ParallelError::Gone)??.into_iter();
            }
            let sums = bucket.by_ref().take(count);
            values.insert(parameter, sums.map(|sum| sum * scale).collect());
        }
        let mut rebuild = Rebuild { values, gradients: GradientsParams::new() };
        module.visit(&mut rebuild);
        Ok(rebuild.gradients)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test that cannot go on has failed
mod tests {
    use std::{
        sync::{
            Mutex,
            atomic::{AtomicUsize, Ordering},
        },
        time::{Duration, Instant},
    };

    use burn::{
        nn::{Linear, LinearConfig},
        tensor::Device,
    };
    use operations::tape::{Keep, stack};

    use super::*;
    use crate::communicator::Threads;

    const WIDTH: usize = 4;

    fn blocks() -> Vec<Linear> {
        let device = Device::flex().autodiff();
        let values = |seed: usize| {
            let value = |index: usize| ((index * 7 + seed * 3) % 11) as f32 / 11.0 - 0.4;
            Tensor::from_data(
                TensorData::new((0..WIDTH * WIDTH).map(value).collect(), [WIDTH, WIDTH]),
                &device,
            )
        };
        let block = |seed| {
            let mut layer = LinearConfig::new(WIDTH, WIDTH).with_bias(false).init(&device);
            layer.weight = Param::from_tensor(values(seed));
            layer
        };
        (0..3).map(block).collect()
    }

    /// A rank's two micro-batches: losses of other inputs on every rank.
    fn input(rank: usize, part: usize) -> Tensor<3> {
        let values = (0..2 * WIDTH).map(|index| ((index + 2 * rank + part) % 5) as f32).collect();
        Tensor::from_data(TensorData::new(values, [1, 2, WIDTH]), &Device::flex().autodiff())
            .require_grad()
    }

    fn read(blocks: &[Linear], gradients: &GradientsParams) -> Vec<f32> {
        let values = |block: &Linear| {
            operations::parameters::host_tensor(gradients.get::<2>(block.weight.id).unwrap()).values
        };
        blocks.iter().flat_map(values).collect()
    }

    /// Counts sums.
    struct Counted {
        inner: Threads,
        begun: AtomicUsize,
        sizes: Mutex<Vec<usize>>,
    }

    impl Communicator for Counted {
        fn rank(&self) -> usize {
            self.inner.rank()
        }
        fn ranks(&self) -> usize {
            self.inner.ranks()
        }
        fn sum(&self, values: &mut [f32]) -> Result<(), ParallelError> {
            self.begun.fetch_add(1, Ordering::SeqCst);
            self.sizes.lock().unwrap().push(values.len());
            self.inner.sum(values)
        }
        fn gather(&self, values: &[f32]) -> Result<Vec<f32>, ParallelError> {
            self.inner.gather(values)
        }
        fn broadcast(&self, root: usize, values: &mut [f32]) -> Result<(), ParallelError> {
            self.inner.broadcast(root, values)
        }
        fn barrier(&self) -> Result<(), ParallelError> {
            self.inner.barrier()
        }
        fn abort(&self) {
            self.inner.abort();
        }
    }

    #[test]
    fn should_exchange_the_gradients_of_later_blocks_before_those_of_earlier_ones_are_there() {
        let rank = |inner: Threads| {
            let rank = inner.rank();
            let counted =
                Arc::new(Counted { inner, begun: AtomicUsize::new(0), sizes: Mutex::default() });
            let blocks = blocks();
            let communicator: Arc<dyn Communicator> = Arc::clone(&counted) as _;
            let mut gradients = StepGradients::new(communicator, 2);
            gradients.bucket = WIDTH * WIDTH;
            let begun = &counted.begun;
            for part in 0..2 {
                let mut tape = Tape::new(Keep::Inputs);
                let run = move |block: &Linear, number: usize, x: Tensor<3>| {
                    // The backward pass runs the first block again when it comes to it. By then the
                    // last micro-batch has sent the others: wait until their sums have begun.
                    let again = x.is_autodiff() && number == 0;
                    let expected = if again && part == 1 { 2 } else { 0 };
                    let late = Instant::now() + Duration::from_secs(60);
                    while begun.load(Ordering::SeqCst) < expected && Instant::now() < late {
                        std::thread::yield_now();
                    }
                    assert!(begun.load(Ordering::SeqCst) >= expected, "no sum beside the pass");
                    assert!(part == 1 || begun.load(Ordering::SeqCst) == 0, "sums came too early");
                    block.forward(x)
                };
                let x = stack(Some(&mut tape), &blocks, input(rank, part), run);
                gradients.add(&blocks, x.square().sum(), Some(tape));
            }
            let mean = read(&blocks, &gradients.mean(&blocks).unwrap());
            assert_eq!(*counted.sizes.lock().unwrap(), [WIDTH * WIDTH; 3]);
            mean
        };
        let got: Vec<_> = std::thread::scope(|scope| {
            let rank = &rank;
            let group = Threads::group(2).into_iter();
            let threads: Vec<_> = group.map(|own| scope.spawn(move || rank(own))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let blocks = blocks();
        let loss = |rank, part| {
            let x = blocks.iter().fold(input(rank, part), |x, block| block.forward(x));
            x.square().sum()
        };
        let total = (loss(0, 0) + loss(0, 1) + loss(1, 0) + loss(1, 1)).div_scalar(4.0);
        let expected = read(&blocks, &GradientsParams::from_grads(total.backward(), &blocks));
        for mean in got {
            for (got, expected) in mean.iter().zip(&expected) {
                assert!((got - expected).abs() <= 1e-5 * expected.abs(), "{got} not {expected}");
            }
        }
    }
}
