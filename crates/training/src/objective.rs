//! The perceptual and the adversarial part of a tokenizer's loss, which both stages share.

use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use files::Home;
use tokenizer::ImageSize;

use crate::{
    TrainingError,
    checkpoint::Checkpoint,
    discriminator::Discriminator,
    learner::Learner,
    losses::adversarial::{self, LeCam},
    measures::{Measures, scalar},
    optimizer::AdamWConfig,
    parallel::Split,
    perceptual::{Loaded, PerceptualNetwork},
    phases::{self, DiscriminatorRecipe, PerceptualTerm, Phase, Turn},
    schedule::{ComputePrecision, Schedule},
};

/// What reconstructions are held to beside the mean squared error, phase by phase.
pub(crate) struct Objective {
    phases: Vec<Phase>,
    /// The networks of all phases, each once.
    networks: Vec<(PerceptualTerm, Loaded)>,
    adversary: Option<Adversary>,
}

/// The discriminator and all that changes with it.
struct Adversary {
    recipe: DiscriminatorRecipe,
    learner: Learner<Discriminator>,
    lecam: LeCam,
}

/// A micro-batch of pictures and their reconstructions, without gradients.
///
/// # Shapes
/// Both `[batch, 3, height, width]` in [0, 1].
pub(crate) struct Rebuilt {
    pub(crate) images: Tensor<4>,
    pub(crate) reconstructions: Tensor<4>,
}

impl Objective {
    /// Reads the networks and begins the discriminator. `device` is differentiable.
    pub(crate) fn new(
        phases: &[Phase],
        discriminator: Option<DiscriminatorRecipe>,
        schedule: &Schedule,
        optimizer: AdamWConfig,
        image: ImageSize,
        home: &Home,
        device: &Device,
    ) -> Result<Self, TrainingError> {
        let mut networks: Vec<(PerceptualTerm, Loaded)> = Vec::new();
        for term in phases.iter().flat_map(|phase| &phase.perceptual) {
            if term.weight > 0.0 && !networks.iter().any(|(known, _)| same(known, term)) {
                let plain = device.clone().inner();
                let loaded = term.network.load(term.weights.as_deref(), home, &plain)?;
                networks.push((term.clone(), loaded));
            }
        }
        let adversary = discriminator.map(|recipe| {
            let side = image.height.min(image.width);
            let smallest = recipe.architecture.smallest_side();
            if side < smallest {
                return Err(TrainingError::Data(format!(
                    "the discriminator needs pictures of at least {smallest} pixels a side, not \
                     {side}; give it fewer `layers`"
                )));
            }
            // It is judged by what it teaches: no average of it is kept.
            let schedule = Schedule {
                ema_decay: None,
                precision: ComputePrecision::F32,
                activation_checkpointing: false,
                ..*schedule
            };
            let module = recipe.architecture.initialize(schedule.seed, device);
            let learner = Learner::new("discriminator.", module, optimizer, &schedule)?;
            Ok(Adversary { recipe, learner, lecam: LeCam::default() })
        });
        let adversary = adversary.transpose()?;
        Ok(Self { phases: phases.to_vec(), networks, adversary })
    }

    /// What it is made from besides the recipe, for a run's inputs.
    pub(crate) fn input(&self) -> (&'static str, String) {
        let of = |(term, loaded): &(PerceptualTerm, Loaded)| {
            format!("{} {:08x}", term.network.name(), loaded.checksum)
        };
        let all: Vec<String> = self.networks.iter().map(of).collect();
        ("perceptual networks", all.join(", "))
    }

    /// Who learns in a step.
    pub(crate) fn turn(&self, step: u64) -> Turn {
        match &self.adversary {
            None => Turn { tokenizer: true, discriminator: false },
            Some(adversary) => adversary.recipe.turn(step),
        }
    }

    /// The weighted perceptual loss of a step's pictures, if its phase has one.
    ///
    /// # Shapes
    /// Both `[batch, 3, height, width]` in [0, 1].
    pub(crate) fn perceptual(
        &self,
        step: u64,
        prediction: &Tensor<4>,
        target: &Tensor<4>,
    ) -> Option<Tensor<1>> {
        let terms = &phases::at(&self.phases, step)?.perceptual;
        terms
            .iter()
            .filter_map(|term| {
                let (_, loaded) = self.networks.iter().find(|(known, _)| same(known, term))?;
                let distance = loaded.distance.distance(prediction.clone(), target.clone());
                Some(distance.mean().mul_scalar(term.weight))
            })
            .reduce(|sum, term| sum + term)
    }

    /// The adversarial loss of this rank's reconstructions and its weight, if a step's phase has
    /// one.
    ///
    /// # Shapes
    /// `[batch, 3, height, width]` in [0, 1].
    pub(crate) fn adversarial(
        &self,
        step: u64,
        reconstructions: &Tensor<4>,
        split: &Split,
    ) -> Result<Option<(Tensor<1>, f64)>, TrainingError> {
        let weight = phases::at(&self.phases, step).map_or(0.0, |phase| phase.adversarial);
        let Some(adversary) = self.adversary.as_ref().filter(|_| weight > 0.0) else {
            return Ok(None);
        };
        let discriminator = adversary.learner.module().clone().no_grad();
        let ranks = split.communicator().ranks();
        if ranks == 1 || !adversary.recipe.architecture.joins_pictures() {
            let loss = adversarial::generator(discriminator.forward(reconstructions.clone()));
            return Ok(Some((loss, weight)));
        }
        // Statistics are those of the whole batch: every rank judges all of it, and has gradients
        // for its own part.
        let all = split.join(vec![reconstructions.clone().inner()])?;
        let [share, ..] = reconstructions.dims();
        let [batch, ..] = all.dims();
        let first = split.communicator().rank() * share;
        let others = |from, to| Tensor::from_inner(all.clone().slice_dim(0, from..to));
        let mut parts = vec![reconstructions.clone()];
        if first > 0 {
            parts.insert(0, others(0, first));
        }
        if first + share < batch {
            parts.push(others(first + share, batch));
        }
        let loss = adversarial::generator(discriminator.forward(Tensor::cat(parts, 0)));
        // Ranks average their gradients, but each has another summand of this one.
        let value = loss.clone().detach();
        let loss = value.clone() + (loss - value).mul_scalar(ranks as f64);
        Ok(Some((loss, weight)))
    }

    /// Trains the discriminator on this rank's part of a step. Returns what was measured over all.
    pub(crate) fn learn(
        &mut self,
        rebuilt: Vec<Rebuilt>,
        split: &Split,
    ) -> Result<Measures, TrainingError> {
        let Some(Adversary { recipe, learner, lecam }) = &mut self.adversary else {
            return Ok(Measures::new());
        };
        let mut gradients = split.gradients();
        let mut parts = Vec::new();
        for mut part in rebuilt {
            if recipe.architecture.joins_pictures() {
                part.images = split.join(vec![part.images])?;
                part.reconstructions = split.join(vec![part.reconstructions])?;
            }
            let discriminator = learner.module();
            let real = discriminator.forward(Tensor::from_inner(part.images));
            let fake = discriminator.forward(Tensor::from_inner(part.reconstructions));
            let mut loss = adversarial::hinge(real.clone(), fake.clone());
            let mut measures = vec![("discriminator", scalar(&loss))];
            if recipe.lecam > 0.0 {
                let penalty = lecam.penalty(real.clone(), fake.clone());
                measures.push(("lecam", scalar(&penalty)));
                loss = loss + penalty.mul_scalar(recipe.lecam);
            }
            measures.push(("real_logit", scalar(&real.mean())));
            measures.push(("fake_logit", scalar(&fake.mean())));
            parts.push(measures);
            gradients.add(learner.module(), loss, None);
        }
        let gradients = gradients.mean(learner.module())?;
        let mut measures = split.mean_measures(parts)?;
        if let [.., (_, real), (_, fake)] = measures[..] {
            lecam.follow(real, fake);
        }
        let norm = learner.step(recipe.learning_rate, gradients);
        measures.push(("discriminator_gradient_norm", norm));
        Ok(measures)
    }

    /// Adds the discriminator, its moments and averages to a checkpoint.
    pub(crate) fn save(&self, checkpoint: &mut Checkpoint) {
        if let Some(Adversary { learner, lecam, .. }) = &self.adversary {
            learner.save(checkpoint);
            checkpoint.numbers.insert(REAL.into(), lecam.real);
            checkpoint.numbers.insert(FAKE.into(), lecam.fake);
        }
    }

    /// Takes them from a checkpoint.
    pub(crate) fn restore(&mut self, checkpoint: &mut Checkpoint) -> Result<(), TrainingError> {
        if let Some(Adversary { learner, lecam, .. }) = &mut self.adversary {
            learner.restore(checkpoint)?;
            *lecam = LeCam { real: checkpoint.number(REAL)?, fake: checkpoint.number(FAKE)? };
        }
        Ok(())
    }
}

/// The numbers of LeCAM in a checkpoint.
const REAL: &str = "lecam.real";
const FAKE: &str = "lecam.fake";

/// Whether two terms are of one network.
fn same(one: &PerceptualTerm, other: &PerceptualTerm) -> bool {
    let of = |term: &PerceptualTerm| -> (PerceptualNetwork, Option<std::path::PathBuf>) {
        (term.network, term.weights.clone())
    };
    of(one) == of(other)
}
