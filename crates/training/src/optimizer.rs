//! AdamW with decay groups and a global gradient norm, its state kept by parameter name.

use std::collections::{HashMap, HashSet};

use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId},
    optim::GradientsParams,
    tensor::{Tensor, TensorData},
};
use files::TensorMap;
use operations::{
    fused::square_sum,
    parameters::{Identity, identities},
};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Settings of AdamW (Loshchilov and Hutter 2019), as PyTorch's `torch.optim.AdamW` means them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdamWConfig {
    /// How slowly the mean of the gradients follows.
    pub beta_1: f64,
    /// How slowly the mean of their squares follows.
    pub beta_2: f64,
    /// Added to the root of the mean square.
    pub epsilon: f64,
    /// Decay of weights a step, times the learning rate.
    pub weight_decay: f64,
    /// Which parameters decay.
    pub decay: Decay,
    /// Largest Euclidean norm of all gradients together; larger ones are scaled down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip: Option<f64>,
}

/// Which parameters decay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// Every parameter, as the released tokenizer training does.
    All,
    /// Neither tensors of fewer than two dimensions nor the embedding of a generator or language
    /// model, as the released generator training does.
    Matrices,
}

impl Decay {
    fn applies(self, identity: &Identity) -> bool {
        match self {
            Self::All => true,
            Self::Matrices => {
                let mut path = identity.name.rsplit('.');
                let is_embedding =
                    path.next() == Some("weight") && path.next() == Some("embedding");
                identity.shape.len() >= 2 && !is_embedding
            }
        }
    }
}

struct Moments {
    name: String,
    /// Place of its group.
    group: usize,
    decays: bool,
    transposed: bool,
    shape: Vec<usize>,
    mean: Tensor<1>,
    square: Tensor<1>,
}

/// Parameters that are updated at one learning rate, or not at all.
struct Group {
    /// Their names begin with it.
    name: String,
    /// Updates that they have had: those of a step in which they have no gradient do not count.
    updates: u64,
}

/// The optimizer of one module. It finds parameters by identity and keeps its state by name.
pub struct AdamW {
    config: AdamWConfig,
    updates: u64,
    groups: Vec<Group>,
    moments: HashMap<ParamId, Moments>,
}

impl AdamW {
    /// An optimizer that has seen nothing yet.
    pub fn new<M: Module>(config: AdamWConfig, module: &M) -> Self {
        Self::with_groups(config, module, &[""])
    }

    /// One whose parameters are in groups, each with a learning rate of its own. A parameter belongs to
    /// the first group that its name begins with.
    ///
    /// # Panics
    /// If a parameter belongs to none.
    pub fn with_groups<M: Module>(config: AdamWConfig, module: &M, groups: &[&str]) -> Self {
        let group_of = |name: &str| {
            let place = groups.iter().position(|group| name.starts_with(group));
            place.unwrap_or_else(|| panic!("{name} belongs to one of {groups:?}"))
        };
        let groups = groups.iter().map(|&name| Group { name: name.to_owned(), updates: 0 });
        let groups = groups.collect();
        let device = module.devices().into_iter().next().unwrap_or_default().inner();
        let moments = identities(module)
            .into_iter()
            .map(|identity| {
                let count = identity.shape.iter().product::<usize>();
                let moments = Moments {
                    decays: config.decay.applies(&identity),
                    group: group_of(&identity.name),
                    name: identity.name,
                    transposed: identity.transposed,
                    shape: identity.shape,
                    mean: Tensor::zeros([count], &device),
                    square: Tensor::zeros([count], &device),
                };
                (identity.id, moments)
            })
            .collect();
        Self { config, updates: 0, groups, moments }
    }

    /// Euclidean norm of all gradients together.
    pub fn gradient_norm<M: Module>(module: &M, gradients: &GradientsParams) -> f64 {
        struct Squares<'a> {
            gradients: &'a GradientsParams,
            sums: Vec<Tensor<1>>,
        }
        impl ModuleVisitor for Squares<'_> {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                if let Some(gradient) = self.gradients.get::<D>(param.id) {
                    self.sums.push(square_sum(gradient));
                }
            }
        }
        let mut squares = Squares { gradients, sums: Vec::new() };
        module.visit(&mut squares);
        if squares.sums.is_empty() {
            return 0.0;
        }
        // One read from the device, whatever the number of parameters; summed in double
        // precision on the host.
        let sums = operations::parameters::host_tensor(Tensor::cat(squares.sums, 0));
        sums.values.iter().map(|&sum| f64::from(sum)).sum::<f64>().sqrt()
    }

    /// Makes one update, of all groups at one learning rate. Parameters without a gradient stay as
    /// they are.
    ///
    /// Returns the module and the norm of its gradients before clipping.
    pub fn step<M: Module>(
        &mut self,
        rate: f64,
        module: M,
        gradients: GradientsParams,
    ) -> (M, f64) {
        let rates = vec![rate; self.groups.len()];
        self.step_groups(&rates, module, gradients)
    }

    /// As [`step`](Self::step), with a learning rate for each group.
    ///
    /// # Panics
    /// If there are not as many rates as groups.
    pub fn step_groups<M: Module>(
        &mut self,
        rates: &[f64],
        module: M,
        gradients: GradientsParams,
    ) -> (M, f64) {
        assert_eq!(rates.len(), self.groups.len(), "a rate for each group");
        let mut updated =
            Updated { optimizer: self, gradients: &gradients, groups: HashSet::new() };
        module.visit(&mut updated);
        for group in updated.groups {
            self.groups[group].updates += 1;
        }
        let norm = Self::gradient_norm(&module, &gradients);
        // As `torch.nn.utils.clip_grad_norm_`, its 1e-6 included.
        let scale = self.config.clip.map_or(1.0, |clip| (clip / (norm + 1e-6)).min(1.0));
        self.updates += 1;
        let mut update = Update { optimizer: self, rates, scale, gradients };
        (module.map(&mut update), norm)
    }

    /// The state by parameter name: `mean.*` and `square.*`.
    pub fn state(&self) -> TensorMap {
        let outside = |moments: &Moments, tensor: &Tensor<1>| {
            let mut host = operations::parameters::host_tensor(tensor.clone());
            host.shape.clone_from(&moments.shape);
            if moments.transposed {
                host.shape.reverse();
                host.transposed()
            } else {
                host
            }
        };
        self.moments
            .values()
            .flat_map(|moments| {
                [
                    (format!("mean.{}", moments.name), outside(moments, &moments.mean)),
                    (format!("square.{}", moments.name), outside(moments, &moments.square)),
                ]
            })
            .collect()
    }

    /// Number of updates made so far.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// The groups, and how many updates each has had.
    pub fn group_updates(&self) -> impl Iterator<Item = (&str, u64)> {
        self.groups.iter().map(|group| (group.name.as_str(), group.updates))
    }

    /// Takes up how many updates a group has had, which [`restore`](Self::restore) takes to be all.
    pub fn restore_group(&mut self, name: &str, updates: u64) {
        if let Some(group) = self.groups.iter_mut().find(|group| group.name == name) {
            group.updates = updates;
        }
    }

    /// Takes up a recorded state.
    ///
    /// # Errors
    /// What is missing, too much or of another shape.
    pub fn restore(&mut self, updates: u64, mut state: TensorMap) -> Result<(), String> {
        self.updates = updates;
        self.groups.iter_mut().for_each(|group| group.updates = updates);
        for moments in self.moments.values_mut() {
            let mut inside = |prefix: &str, device: &burn::tensor::Device| {
                let name = format!("{prefix}.{}", moments.name);
                let tensor = state.remove(&name).ok_or_else(|| format!("`{name}` is missing"))?;
                if tensor.shape != moments.shape {
                    let (got, expected) = (tensor.shape, &moments.shape);
                    return Err(format!("`{name}` has shape {got:?}, expected {expected:?}"));
                }
                let tensor = if moments.transposed { tensor.transposed() } else { tensor };
                let count = tensor.values.len();
                Ok(Tensor::<1>::from_data(TensorData::new(tensor.values, [count]), device))
            };
            let device = moments.mean.device();
            let mean = inside("mean", &device)?;
            let square = inside("square", &device)?;
            moments.mean = mean;
            moments.square = square;
        }
        match state.keys().next() {
            None => Ok(()),
            Some(name) => Err(format!("`{name}` belongs to no parameter")),
        }
    }
}

/// Finds the groups of which a parameter has a gradient.
struct Updated<'a> {
    optimizer: &'a AdamW,
    gradients: &'a GradientsParams,
    groups: HashSet<usize>,
}

impl ModuleVisitor for Updated<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.gradients.get::<D>(param.id).is_some()
            && let Some(moments) = self.optimizer.moments.get(&param.id)
        {
            self.groups.insert(moments.group);
        }
    }
}

struct Update<'a> {
    optimizer: &'a mut AdamW,
    rates: &'a [f64],
    scale: f64,
    gradients: GradientsParams,
}

impl ModuleMapper for Update<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(gradient) = self.gradients.remove::<D>(param.id) else {
            return param;
        };
        let config = self.optimizer.config;
        let moments = self
            .optimizer
            .moments
            .get_mut(&param.id)
            .expect("the optimizer was made for this module");
        let updates = self.optimizer.groups[moments.group].updates as f64;
        let rate = self.rates[moments.group];
        let count = gradient.shape().num_elements();
        let coefficients = Coefficients {
            scale: self.scale,
            beta_1: config.beta_1,
            beta_2: config.beta_2,
            epsilon: config.epsilon,
            rate: rate / (1.0 - config.beta_1.powf(updates)),
            root: (1.0 - config.beta_2.powf(updates)).sqrt(),
            keep: 1.0 - if moments.decays { rate * config.weight_decay } else { 0.0 },
        };
        param.map(|tensor| {
            let requires_gradient = tensor.is_require_grad();
            let shape = tensor.shape();
            let value = tensor.inner().reshape([count]);
            let value = coefficients.apply(value, gradient.reshape([count]), moments);
            Tensor::from_inner(value.reshape(shape)).set_require_grad(requires_gradient)
        })
    }
}

/// The numbers of one update.
struct Coefficients {
    /// Of the gradient, from clipping.
    scale: f64,
    beta_1: f64,
    beta_2: f64,
    epsilon: f64,
    /// Learning rate, corrected for the mean's start at zero.
    rate: f64,
    /// Divides the root mean square, to correct it for its start at zero.
    root: f64,
    /// What decay leaves of a weight.
    keep: f64,
}

impl Coefficients {
    /// # Shapes
    /// All `[count]`.
    fn apply(&self, value: Tensor<1>, gradient: Tensor<1>, moments: &mut Moments) -> Tensor<1> {
        if operations::fused::is_fusible(&value) && operations::fused::is_fusible(&gradient) {
            self.apply_fused(value, gradient, moments)
        } else {
            self.apply_composed(value, gradient, moments)
        }
    }

    /// On any device, one operation after another.
    fn apply_composed(
        &self,
        value: Tensor<1>,
        gradient: Tensor<1>,
        moments: &mut Moments,
    ) -> Tensor<1> {
        let gradient = gradient.mul_scalar(self.scale);
        let follow = |old: &Tensor<1>, new: Tensor<1>, beta: f64| {
            old.clone().mul_scalar(beta) + new.mul_scalar(1.0 - beta)
        };
        moments.mean = follow(&moments.mean, gradient.clone(), self.beta_1);
        moments.square = follow(&moments.square, gradient.square(), self.beta_2);
        let root = moments.square.clone().sqrt().div_scalar(self.root).add_scalar(self.epsilon);
        value.mul_scalar(self.keep) - (moments.mean.clone() / root).mul_scalar(self.rate)
    }

    /// On the CPU, in one pass over memory: a third of a small model's step would otherwise go
    /// into the optimizer.
    fn apply_fused(
        &self,
        value: Tensor<1>,
        gradient: Tensor<1>,
        moments: &mut Moments,
    ) -> Tensor<1> {
        const CHUNK: usize = 1 << 14;
        let device = value.device();
        let empty = || Tensor::empty([0], &device);
        let host = |tensor: Tensor<1>| operations::parameters::host_tensor(tensor).values;
        let mut value = host(value);
        let gradient = host(gradient);
        let mut mean = host(std::mem::replace(&mut moments.mean, empty()));
        let mut square = host(std::mem::replace(&mut moments.square, empty()));
        let [scale, beta_1, beta_2, epsilon, rate, root, keep] =
            [self.scale, self.beta_1, self.beta_2, self.epsilon, self.rate, self.root, self.keep]
                .map(|coefficient| coefficient as f32);
        let (new_1, new_2) = ((1.0 - self.beta_1) as f32, (1.0 - self.beta_2) as f32);
        value
            .par_chunks_mut(CHUNK)
            .zip(gradient.par_chunks(CHUNK))
            .zip(mean.par_chunks_mut(CHUNK).zip(square.par_chunks_mut(CHUNK)))
            .for_each(|((value, gradient), (mean, square))| {
                let moments = mean.iter_mut().zip(square);
                for ((value, gradient), (mean, square)) in
                    value.iter_mut().zip(gradient).zip(moments)
                {
                    let gradient = gradient * scale;
                    *mean = *mean * beta_1 + gradient * new_1;
                    *square = *square * beta_2 + gradient * gradient * new_2;
                    let root = square.sqrt() / root + epsilon;
                    *value = *value * keep - *mean / root * rate;
                }
            });
        let device_tensor = |values: Vec<f32>| {
            let count = values.len();
            Tensor::from_data(TensorData::new(values, [count]), &device)
        };
        moments.mean = device_tensor(mean);
        moments.square = device_tensor(square);
        device_tensor(value)
    }
}
