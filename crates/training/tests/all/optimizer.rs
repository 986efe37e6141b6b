//! AdamW against PyTorch's, through the released generator's three steps
//! (tests/fixtures/generator.*), and its laws.

use burn::{
    optim::GradientsParams,
    tensor::{Device, Int, Tensor, TensorData},
};
use files::HostTensor;
use fixtures::{Tensors, fixture};
use generator::reference::{Generator, loss::cross_entropy};
use operations::parameters::{collect, load};
use tokens::TokenLayout;
use training::optimizer::{AdamW, AdamWConfig, Decay};
use weights::{
    Checkpoint,
    released::{export_generator, import_generator},
};

/// As the fixture was made: everything decays.
const CONFIG: AdamWConfig = AdamWConfig {
    beta_1: 0.9,
    beta_2: 0.96,
    epsilon: 1e-8,
    weight_decay: 0.03,
    decay: Decay::All,
    clip: Some(1.0),
};

struct Case {
    expected: Tensors,
    model: Generator,
    device: Device,
}

impl Case {
    fn open() -> Self {
        let device = Device::flex().autodiff();
        let checkpoint = Checkpoint::read(fixture("generator.pth")).unwrap();
        let (config, tensors) = import_generator(checkpoint, TokenLayout::new(17, 16, 16)).unwrap();
        let model = load(config.build(&device).unwrap(), tensors).unwrap();
        Self { expected: Tensors::open("generator.safetensors"), model, device }
    }

    fn integers<const D: usize>(&self, name: &str) -> Tensor<D, Int> {
        let (values, shape) = (self.expected.integers(name), self.expected.shape(name));
        Tensor::from_data(TensorData::new(values, shape), &self.device)
    }

    fn loss(&self, model: &Generator) -> Tensor<1> {
        let tokens: Tensor<2, Int> = self.integers("tokens");
        let [batch, length] = tokens.dims();
        let known = tokens.clone().slice([0..batch, 0..length - 1]);
        let logits = model.forward(self.integers("condition_ids"), known, None);
        cross_entropy(logits, tokens)
    }
}

fn scalar(tensor: Tensor<1>) -> f32 {
    operations::parameters::host_tensor(tensor).values[0]
}

#[test]
fn should_make_the_steps_that_pytorch_makes() {
    let case = Case::open();
    let mut model = case.model.clone();
    let mut optimizer = AdamW::new(CONFIG, &model);
    for step in 0..3 {
        let loss = case.loss(&model);
        let expected = case.expected.floats(&format!("adamw_loss_{step}")).values[0];
        let got = scalar(loss.clone());
        assert!((got - expected).abs() < 2e-5, "loss {step} is {got}, expected {expected}");
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        (model, _) = optimizer.step(4e-4, model, gradients);
    }
    let after = export_generator(model.config(), collect(&model)).unwrap();
    for name in
        ["blocks.0.attn.qkv.weight", "blocks.1.mlp.w2.weight", "embeddings.weight", "norm.weight"]
    {
        let expected = case.expected.floats(&format!("after3.{name}"));
        for (got, expected) in after[name].values.iter().zip(&expected.values) {
            assert!((got - expected).abs() < 1e-5, "{name}: {got}, expected {expected}");
        }
    }
}

#[test]
fn should_scale_all_gradients_by_one_norm() {
    let case = Case::open();
    let gradients = || GradientsParams::from_grads(case.loss(&case.model).backward(), &case.model);
    let norm = AdamW::gradient_norm(&case.model, &gradients());
    assert!(norm > 0.0);
    // Plain moments make the clipping visible: after one update the mean is 0.1 of the gradient.
    let mean_of = |clip| {
        let mut optimizer = AdamW::new(AdamWConfig { clip, ..CONFIG }, &case.model);
        let (_, told) = optimizer.step(1e-3, case.model.clone(), gradients());
        assert_eq!(told, norm);
        optimizer.state()
    };
    let (free, clipped) = (mean_of(None), mean_of(Some(norm / 4.0)));
    let square_norm: f64 = clipped
        .iter()
        .filter(|(name, _)| name.starts_with("mean."))
        .flat_map(|(_, tensor)| &tensor.values)
        .map(|&value| (f64::from(value) * 10.0).powi(2))
        .sum();
    assert!((square_norm.sqrt() - norm / 4.0).abs() < 1e-3 * norm);
    for (name, free) in free.iter().filter(|(name, _)| name.starts_with("mean.")) {
        for (free, clipped) in free.values.iter().zip(&clipped[name].values) {
            assert!((clipped - free / 4.0).abs() <= 1e-4 * free.abs() + 1e-9, "{name}");
        }
    }
}

#[test]
fn should_decay_matrices_but_neither_embeddings_nor_vectors_if_told_so() {
    let case = Case::open();
    let config = AdamWConfig { decay: Decay::Matrices, weight_decay: 0.5, ..CONFIG };
    let step = |config| {
        let gradients = GradientsParams::from_grads(case.loss(&case.model).backward(), &case.model);
        let mut optimizer = AdamW::new(config, &case.model);
        collect(&optimizer.step(1e-2, case.model.clone(), gradients).0)
    };
    let (with, without) = (step(config), step(AdamWConfig { weight_decay: 0.0, ..config }));
    for (name, with) in &with {
        let decays = with.shape.len() >= 2 && name != "embedding.weight";
        assert_eq!(with != &without[name], decays, "{name}");
    }
}

#[test]
fn should_go_on_from_a_recorded_state_to_the_same_bits() {
    let case = Case::open();
    let step = |optimizer: &mut AdamW, model: Generator| {
        let gradients = GradientsParams::from_grads(case.loss(&model).backward(), &model);
        optimizer.step(4e-4, model, gradients).0
    };
    let mut optimizer = AdamW::new(CONFIG, &case.model);
    let halfway = step(&mut optimizer, case.model.clone());
    let (updates, state) = (optimizer.updates(), optimizer.state());
    let expected = collect(&step(&mut optimizer, halfway.clone()));

    let mut resumed = AdamW::new(CONFIG, &halfway);
    resumed.restore(updates, state.clone()).unwrap();
    assert_eq!(collect(&step(&mut resumed, halfway.clone())), expected);
    // Without its moments it would go elsewhere.
    let mut forgetful = AdamW::new(CONFIG, &halfway);
    assert_ne!(collect(&step(&mut forgetful, halfway.clone())), expected);

    let mut incomplete = state.clone();
    incomplete.remove("mean.norm.weight");
    assert!(AdamW::new(CONFIG, &halfway).restore(1, incomplete).is_err());
    let mut extended = state;
    extended.insert("mean.nobody".into(), HostTensor::new([1], vec![0.0]));
    assert!(AdamW::new(CONFIG, &halfway).restore(1, extended).is_err());
}

#[test]
fn should_begin_a_group_that_was_frozen_as_if_it_were_new() {
    let case = Case::open();
    let all = || GradientsParams::from_grads(case.loss(&case.model).backward(), &case.model);
    // The first updates leave the blocks as they are.
    let without_blocks = || {
        let frozen = operations::parameters::identities(&case.model);
        let mut gradients = all();
        for identity in frozen.iter().filter(|identity| identity.name.starts_with("blocks.")) {
            match identity.shape.len() {
                1 => drop(gradients.remove::<1>(identity.id)),
                _ => drop(gradients.remove::<2>(identity.id)),
            }
        }
        gradients
    };
    let groups = ["blocks.", ""];
    let mut optimizer = AdamW::with_groups(CONFIG, &case.model, &groups);
    for _ in 0..5 {
        optimizer.step_groups(&[0.0, 1e-3], case.model.clone(), without_blocks());
    }
    assert_eq!(optimizer.group_updates().collect::<Vec<_>>(), [("blocks.", 0), ("", 5)]);
    let (late, _) = optimizer.step_groups(&[1e-3, 1e-3], case.model.clone(), all());
    let mut fresh = AdamW::new(CONFIG, &case.model);
    let (new, _) = fresh.step(1e-3, case.model.clone(), all());
    let (late, new) = (collect(&late), collect(&new));
    for (name, late) in late.iter().filter(|(name, _)| name.starts_with("blocks.")) {
        assert_eq!(late, &new[name], "{name}");
    }
    assert_ne!(late["norm.weight"], new["norm.weight"]);
}
