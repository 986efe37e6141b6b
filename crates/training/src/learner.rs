//! A module in training: parameters, moments, and the moving average of the parameters.

use std::ops::Range;

use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param},
    optim::GradientsParams,
    tensor::{Device, FloatDType, Tensor},
};
use files::TensorMap;
use operations::{
    parameters::{collect, load},
    tape::Tape,
};

use crate::{
    TrainingError,
    checkpoint::{Checkpoint, join, put},
    measures::Measures,
    optimizer::{AdamW, AdamWConfig},
    parallel::Split,
    schedule::{ComputePrecision, Schedule},
};

/// A module with everything that an optimizer step changes.
pub struct Learner<M> {
    /// Before the names of its tensors and numbers in a checkpoint.
    prefix: &'static str,
    /// Taken out only while it is changed: nobody else then holds its parameters, and they change
    /// where they lie instead of being copied.
    module: Option<M>,
    optimizer: AdamW,
    average: Option<Average<M>>,
    precision: ComputePrecision,
    activation_checkpointing: bool,
}

const PRESENT: &str = "a module is only absent while a method changes it";

impl<M: Module> Learner<M> {
    /// A module that has made no step yet. `prefix` tells learners of one training apart.
    ///
    /// # Errors
    /// If the module's device does not compute in the schedule's precision.
    pub(crate) fn new(
        prefix: &'static str,
        module: M,
        optimizer: AdamWConfig,
        schedule: &Schedule,
    ) -> Result<Self, TrainingError> {
        Self::with_groups(prefix, module, optimizer, schedule, &[""])
    }

    /// As [`new`](Self::new), with parameters in groups that have learning rates of their own, see
    /// [`AdamW::with_groups`].
    pub(crate) fn with_groups(
        prefix: &'static str,
        module: M,
        optimizer: AdamWConfig,
        schedule: &Schedule,
        groups: &[&str],
    ) -> Result<Self, TrainingError> {
        let computes = |device: &Device| device.supports_dtype(FloatDType::BF16);
        if schedule.precision == ComputePrecision::Bf16 && !module.devices().iter().all(computes) {
            return Err(TrainingError::Precision("bf16"));
        }
        Ok(Self {
            prefix,
            optimizer: AdamW::with_groups(optimizer, &module, groups),
            average: schedule.ema_decay.map(|decay| Average { decay, module: module.valid() }),
            precision: schedule.precision,
            activation_checkpointing: schedule.activation_checkpointing,
            module: Some(module),
        })
    }

    /// Begins with other parameters, by name: all of them and no others.
    pub(crate) fn begin_with(&mut self, tensors: TensorMap) -> Result<(), TrainingError> {
        let problem = |errors: Vec<_>| TrainingError::Initial(join(&errors));
        let module = load(self.module().clone(), tensors).map_err(problem)?;
        if let Some(average) = &mut self.average {
            average.module = module.valid();
        }
        self.module = Some(module);
        Ok(())
    }

    /// The module, with single-precision parameters that require gradients.
    pub(crate) fn module(&self) -> &M {
        self.module.as_ref().expect(PRESENT)
    }

    /// The module as it computes one micro-batch: in the recipe's precision. Gradients reach the
    /// parameters of [`module`](Self::module).
    pub(crate) fn computing(&self) -> M {
        self.computing_part(|module| module)
    }

    /// As [`computing`](Self::computing), with what `part` leaves of the gradients.
    fn computing_part(&self, part: impl FnOnce(M) -> M) -> M {
        // First: only parameters themselves can be frozen.
        let module = part(self.module().clone());
        match self.precision {
            ComputePrecision::F32 => module,
            ComputePrecision::Bf16 => operations::precision::in_bf16(module),
        }
    }

    /// Makes an optimizer step on the mean loss over all micro-batches of all ranks, at a learning rate
    /// for each group. `part` freezes what has no gradients in this step. `loss` is given the module as
    /// it computes, a tape if the forward pass is cut, and the samples of a micro-batch; it returns
    /// what is minimized, and what is measured. Returns the mean measures and the norm of the
    /// gradients before clipping.
    pub(crate) fn learn(
        &mut self,
        split: &Split,
        rates: &[f64],
        part: impl Fn(M) -> M,
        mut loss: impl for<'a> FnMut(
            &'a M,
            Option<&mut Tape<'a>>,
            Range<usize>,
        ) -> Result<(Tensor<1>, Measures), TrainingError>,
    ) -> Result<Measures, TrainingError> {
        let mut gradients = split.gradients();
        let mut measured = Vec::new();
        for samples in split.micro_batches() {
            let model = self.computing_part(&part);
            let mut tape = split.tape(self.activation_checkpointing);
            let (loss, measures) = loss(&model, tape.as_mut(), samples)?;
            measured.push(measures);
            gradients.add(self.module(), loss, tape);
        }
        let gradients = gradients.mean(self.module())?;
        let mut measures = split.mean_measures(measured)?;
        measures.push(("gradient_norm", self.step_groups(rates, gradients)));
        Ok(measures)
    }

    /// Where a micro-batch's forward pass is cut, if it is.
    pub(crate) fn tape<'a>(&self, split: &Split) -> Option<Tape<'a>> {
        split.tape(self.activation_checkpointing)
    }

    /// What is evaluated and exported: the average where there is one. Without gradients.
    pub(crate) fn result(&self) -> M {
        match &self.average {
            Some(average) => average.module.clone(),
            None => self.module().valid(),
        }
    }

    /// Changes parameters by other means than gradients.
    pub(crate) fn change(&mut self, change: impl FnOnce(M) -> M) {
        self.module = self.module.take().map(change);
    }

    /// Makes an optimizer step. Returns the norm of the gradients before clipping.
    pub(crate) fn step(&mut self, rate: f64, gradients: GradientsParams) -> f64 {
        self.step_groups(&[rate], gradients)
    }

    /// As [`step`](Self::step), with a learning rate for each group.
    fn step_groups(&mut self, rates: &[f64], gradients: GradientsParams) -> f64 {
        let module = self.module.take().expect(PRESENT);
        let (module, norm) = self.optimizer.step_groups(rates, module, gradients);
        if let Some(average) = &mut self.average {
            average.follow(&module, self.optimizer.updates());
        }
        self.module = Some(module);
        norm
    }

    fn name(&self, section: &str) -> String {
        format!("{}{section}", self.prefix)
    }

    /// Adds parameters, moments and average to a checkpoint.
    pub(crate) fn save(&self, checkpoint: &mut Checkpoint) {
        let tensors = &mut checkpoint.tensors;
        put(tensors, &self.name("model"), collect(self.module()));
        put(tensors, &self.name("optimizer"), self.optimizer.state());
        if let Some(average) = &self.average {
            put(tensors, &self.name("average"), collect(&average.module));
        }
        checkpoint.numbers.insert(self.name("updates"), self.optimizer.updates() as f64);
        for (group, updates) in
            self.optimizer.group_updates().filter(|(group, _)| !group.is_empty())
        {
            checkpoint.numbers.insert(self.name(&format!("updates.{group}")), updates as f64);
        }
    }

    /// Goes on from a checkpoint that holds nothing else, or begins as it is.
    pub(crate) fn start(&mut self, checkpoint: Option<Checkpoint>) -> Result<(), TrainingError> {
        let Some(mut checkpoint) = checkpoint else { return Ok(()) };
        self.restore(&mut checkpoint)?;
        checkpoint.finish()
    }

    /// Takes them from a checkpoint.
    pub(crate) fn restore(&mut self, checkpoint: &mut Checkpoint) -> Result<(), TrainingError> {
        let step = checkpoint.step;
        let problem = |problem| TrainingError::Checkpoint { step, problem };
        let loaded = |module: M, tensors: TensorMap| {
            load(module, tensors).map_err(|errors| problem(join(&errors)))
        };
        self.module = Some(loaded(self.module().clone(), checkpoint.take(&self.name("model")))?);
        let updates = checkpoint.number(&self.name("updates"))? as u64;
        let state = checkpoint.take(&self.name("optimizer"));
        self.optimizer.restore(updates, state).map_err(problem)?;
        let groups: Vec<String> =
            self.optimizer.group_updates().map(|(group, _)| group.to_owned()).collect();
        for group in groups.iter().filter(|group| !group.is_empty()) {
            let updates = checkpoint.number(&self.name(&format!("updates.{group}")))?;
            self.optimizer.restore_group(group, updates as u64);
        }
        if let Some(average) = &mut self.average {
            let tensors = checkpoint.take(&format!("{}average", self.prefix));
            average.module = loaded(average.module.clone(), tensors)?;
        }
        Ok(())
    }
}

/// The exponential moving average of a module's parameters over optimizer steps.
struct Average<M> {
    decay: f64,
    module: M,
}

impl<M: Module> Average<M> {
    /// Follows the parameters after their `updates`th update. The first updates weigh more, so
    /// that initial values are soon forgotten: γ = min(decay, (1 + updates) / (10 + updates)), as
    /// in TensorFlow's `ExponentialMovingAverage`.
    fn follow(&mut self, module: &M, updates: u64) {
        let updates = updates as f64;
        let decay = self.decay.min((1.0 + updates) / (10.0 + updates));
        let mut values = Values::default();
        module.visit(&mut values);
        self.module = self.module.clone().map(&mut Follow { values, weight: 1.0 - decay });
    }
}

/// The values of all parameters, by identity.
#[derive(Default)]
struct Values(GradientsParams);

impl ModuleVisitor for Values {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.val();
        let value = if value.is_autodiff() { value.inner() } else { value };
        self.0.register(param.id, value);
    }
}

struct Follow {
    values: Values,
    weight: f64,
}

impl ModuleMapper for Follow {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let value = self.values.0.remove::<D>(param.id).expect("the average is of this module");
        param.map(|average| average.clone() + (value - average).mul_scalar(self.weight))
    }
}
