//! Both discriminators against the numbers of PyTorch.
//!
//! `tests/fixtures/discriminator.*` come from the authors' code (hidden 32, 3 stages; gradients
//! of the negative mean logit). `patch_gan.safetensors` holds a PatchGAN of 4 channels and 3
//! layers built of PyTorch's `Conv2d`, `BatchNorm2d` in training mode and `LeakyReLU`, every
//! parameter perturbed: parameters (`model.*`, under the names used here), pictures, logits, and
//! gradients (`grad.*`) of Σ logits · `weights`.

use burn::{
    module::Module,
    optim::GradientsParams,
    tensor::{Device, Tensor, TensorData},
};
use files::{HostTensor, TensorMap};
use fixtures::{Tensors, assert_close, fixture, largest};
use operations::parameters::{collect, gradients, load};
use training::{
    discriminator::{Discriminator, DiscriminatorConfig},
    losses::adversarial,
};
use weights::Checkpoint;

const BLUR_DOWN: DiscriminatorConfig = DiscriminatorConfig::BlurDown { hidden: 32, stages: 3 };
const PATCH_GAN: DiscriminatorConfig = DiscriminatorConfig::PatchGan { channels: 4, layers: 3 };

/// The name here of a parameter in the authors' code; the blur's filter is none.
fn from_released(name: &str) -> Option<String> {
    let parts: Vec<&str> = name.split('.').collect();
    match parts[..] {
        ["block_in", "0", last] => Some(format!("input.{last}")),
        ["blocks", stage, "0", last] => Some(format!("stages.{stage}.convolution.{last}")),
        ["blocks", stage, "2", last] => Some(format!("stages.{stage}.norm.{last}")),
        ["to_logits", "0", last] => Some(format!("hidden.{last}")),
        ["to_logits", "2", last] => Some(format!("output.{last}")),
        ["blocks", _, "1", "kernel"] => None,
        _ => panic!("no parameter is called {name}"),
    }
}

fn renamed(tensors: TensorMap) -> TensorMap {
    let named = |(name, tensor): (String, _)| Some((from_released(&name)?, tensor));
    tensors.into_iter().filter_map(named).collect()
}

fn check(
    config: DiscriminatorConfig,
    parameters: TensorMap,
    fixture: &Tensors,
    expected: TensorMap,
    loss: impl Fn(Tensor<4>) -> Tensor<1>,
) {
    let device = Device::flex().autodiff();
    let discriminator = load(config.initialize(0, &device), parameters).unwrap();
    let images = fixture.floats("images");
    let images: Tensor<4> =
        Tensor::from_data(TensorData::new(images.values, images.shape), &device).require_grad();
    let logits = discriminator.forward(images.clone());
    let found = operations::parameters::host_tensor(logits.clone());
    assert_close("logits", &found, &fixture.floats("logits"), 1e-5);

    let mut found = loss(logits).backward();
    let for_images = operations::parameters::host_tensor(images.grad(&found).unwrap());
    let parameters = GradientsParams::from_module(&mut found, &discriminator);
    let mut found = gradients(&discriminator, &parameters);
    found.insert("images".into(), for_images);
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, expected) in &expected {
        assert_close(name, &found[name], expected, 1e-4 * largest(expected));
    }
}

#[test]
fn should_agree_with_the_released_discriminator() {
    let checkpoint = Checkpoint::read(fixture("discriminator.pth")).unwrap();
    let fixture = Tensors::open("discriminator.safetensors");
    let mut expected = fixture.floats_below("grad.");
    let for_images = expected.remove("images").unwrap();
    let mut expected = renamed(expected);
    expected.insert("images".into(), for_images);
    let parameters = renamed(checkpoint.tensors);
    check(BLUR_DOWN, parameters, &fixture, expected, adversarial::generator);
}

#[test]
fn should_agree_with_a_patch_gan_of_pytorch() {
    let fixture = Tensors::open("patch_gan.safetensors");
    let expected = fixture.floats_below("grad.");
    let weights = fixture.floats("weights");
    let loss = |logits: Tensor<4>| {
        let data = TensorData::new(weights.values.clone(), weights.shape.clone());
        (logits.clone() * Tensor::from_data(data, &logits.device())).sum()
    };
    check(PATCH_GAN, fixture.floats_below("model."), &fixture, expected, loss);
}

fn judge(discriminator: &Discriminator, images: Tensor<4>) -> Tensor<4> {
    discriminator.forward(images)
}

#[test]
fn should_judge_pictures_of_many_sizes() {
    let device = Device::flex();
    for (config, sizes) in [
        (BLUR_DOWN, [([64, 64], [16, 16]), ([136, 8], [16, 16]), ([17, 300], [16, 16])]),
        (PATCH_GAN, [([64, 64], [6, 6]), ([24, 24], [1, 1]), ([50, 33], [4, 2])]),
    ] {
        let discriminator = config.initialize(1, &device);
        for ([height, width], [rows, columns]) in sizes {
            assert!(height.min(width) >= config.smallest_side());
            let images = Tensor::ones([2, 3, height, width], &device);
            let logits = judge(&discriminator, images);
            assert_eq!(logits.dims(), [2, 1, rows, columns], "{height} × {width}");
        }
    }
}

#[test]
fn should_begin_as_a_function_of_seed_and_name() {
    let device = Device::flex();
    let begin = |config: DiscriminatorConfig, seed| collect(&config.initialize(seed, &device));
    for config in [BLUR_DOWN, PATCH_GAN] {
        assert_eq!(begin(config, 3), begin(config, 3));
        assert_ne!(begin(config, 3), begin(config, 4));
    }
    let spread = |tensor: &HostTensor| {
        let sum: f32 = tensor.values.iter().map(|value| value * value).sum();
        (sum / tensor.values.len() as f32).sqrt()
    };
    let patch_gan = begin(PATCH_GAN, 3);
    assert!((spread(&patch_gan["stages.2.convolution.weight"]) - 0.02).abs() < 1e-3);
    assert!((spread(&patch_gan["stages.2.norm.weight"]) - 1.0).abs() < 0.05);
    assert!(!patch_gan.contains_key("stages.2.convolution.bias"));
    // Uniform within ± 288^−½, whose deviation is that by √3.
    let blur_down = begin(BLUR_DOWN, 3);
    let bound = 288_f32.powf(-0.5);
    let weight = &blur_down["stages.0.convolution.weight"];
    assert!((spread(weight) - bound / 3_f32.sqrt()).abs() < 1e-3);
    assert!(weight.values.iter().all(|value| value.abs() <= bound));
    assert!(blur_down["stages.0.norm.weight"].values.iter().all(|&value| value == 1.0));
}

#[test]
fn should_pass_gradients_to_pictures_but_learn_nothing_when_told_not_to() {
    let device = Device::flex().autodiff();
    let discriminator = PATCH_GAN.initialize(1, &device).no_grad();
    let images = Tensor::<4>::ones([2, 3, 24, 24], &device).require_grad();
    let mut found = adversarial::generator(judge(&discriminator, images.clone())).backward();
    assert!(images.grad(&found).is_some());
    let parameters = GradientsParams::from_module(&mut found, &discriminator);
    assert!(gradients(&discriminator, &parameters).is_empty());
}
