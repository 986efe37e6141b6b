//! Networks and distances against PyTorch's, on reduced widths and random weights.
//!
//! Each fixture in `tests/fixtures/perceptual` holds pictures, what the original computes from
//! them, the gradient of Σ wᵢ·distanceᵢ (w from 1 to 2 in even steps) with respect to the
//! prediction, and under `weights.` the weights by their public names. `README.md` there says what
//! made them.

#![allow(clippy::unwrap_used)] // helpers of tests may panic as tests do

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor, TensorData};
use files::{HostTensor, ParameterError, TensorMap};
use fixtures::Tensors;
use metrics::{
    networks::{
        ChainConfig, ConvNextConfig, EfficientNetLiteConfig, Inception, InceptionConfig, LiteStage,
    },
    perceptual::{LiteDistance, LogitDistance, Lpips, PerceptualDistance},
};

struct Fixture {
    tensors: TensorMap,
}

impl Fixture {
    fn read(name: &str) -> Self {
        Self { tensors: Tensors::open(&format!("perceptual/{name}.safetensors")).all_floats() }
    }

    fn tensor<const D: usize>(&self, name: &str) -> Tensor<D> {
        let tensor = self.tensors[name].clone();
        Tensor::from_data(TensorData::new(tensor.values, tensor.shape), &Device::flex())
    }

    fn weights(&self, prefix: &str) -> TensorMap {
        let named = self.tensors.iter().filter_map(|(name, tensor)| {
            name.strip_prefix(prefix).map(|name| (name.to_owned(), tensor.clone()))
        });
        named.collect::<BTreeMap<_, _>>()
    }
}

/// The network that comes with the program.
fn bundled() -> TensorMap {
    let file = "models/efficientnet-lite0/efficientnet-lite0.safetensors";
    files::safetensors::read(fixtures::home().path(file).unwrap()).unwrap()
}

/// Differences relative to the expected tensor's largest entry.
#[track_caller]
fn assert_close<const D: usize>(got: Tensor<D>, expected: Tensor<D>, tolerance: f32) {
    assert_eq!(got.dims(), expected.dims());
    let largest = expected.clone().abs().max().into_scalar::<f32>();
    let difference = (got - expected).abs().max().into_scalar::<f32>() / largest;
    assert!(difference <= tolerance, "relative difference {difference:e}");
}

/// Value, gradient, and the laws of a distance.
#[track_caller]
fn assert_distance(distance: &dyn PerceptualDistance, fixture: &Fixture, tolerance: f32) {
    let (prediction, target) = (fixture.tensor::<4>("prediction"), fixture.tensor::<4>("target"));
    let value = distance.distance(prediction.clone(), target.clone());
    assert_close(value.clone(), fixture.tensor("distance"), tolerance);

    let tracked = Tensor::from_inner(prediction.clone()).require_grad();
    let also = Tensor::from_inner(target.clone()).require_grad();
    let values = distance.distance(tracked.clone(), also.clone());
    assert_close(values.clone().inner(), value.clone(), 1e-6);
    let [batch] = values.dims();
    let weights = (0..batch).map(|i| 1.0 + i as f32 / (batch - 1).max(1) as f32);
    let weights = TensorData::new(weights.collect::<Vec<_>>(), [batch]);
    let loss = values * Tensor::from_data(weights, &tracked.device());
    let gradients = loss.sum().backward();
    assert_close(tracked.grad(&gradients).unwrap(), fixture.tensor("gradient"), 10.0 * tolerance);
    assert!(also.grad(&gradients).is_none(), "a gradient reaches the target");

    // Equal pictures have distance zero, and a gradient of numbers.
    let tracked = Tensor::from_inner(target.clone()).require_grad();
    let zero = distance.distance(tracked.clone(), Tensor::from_inner(target.clone()));
    assert_eq!(zero.clone().abs().max().into_scalar::<f32>(), 0.0);
    let gradient = tracked.grad(&zero.sum().backward()).unwrap();
    assert!(gradient.abs().max().into_scalar::<f32>().is_finite());

    // A sample's distance is its own.
    let last = batch - 1;
    let alone = distance.distance(prediction.narrow(0, last, 1), target.narrow(0, last, 1));
    assert_close(alone, value.narrow(0, last, 1), 1e-5);
}

fn tiny_lite() -> EfficientNetLiteConfig {
    let stage = |kernel, stride, expansion, channels, blocks| LiteStage {
        kernel,
        stride,
        expansion,
        channels,
        blocks,
    };
    EfficientNetLiteConfig {
        stem: 6,
        stages: vec![
            stage(3, 1, 1, 4, 1),
            stage(3, 2, 3, 7, 2),
            stage(5, 2, 2, 18, 2),
            stage(5, 1, 2, 5, 1),
            stage(5, 2, 6, 9, 1),
        ],
    }
}

#[test]
fn should_compute_what_efficientnet_lite_computes() {
    let fixture = Fixture::read("efficientnet_lite");
    let network = tiny_lite().load(fixture.weights("weights."), &Device::flex()).unwrap();
    let target = fixture.tensor::<4>("target");
    let levels = network.levels(target.clone(), usize::MAX);
    assert_eq!(levels.len(), 4);
    for (index, level) in levels.into_iter().enumerate() {
        assert_close(level, fixture.tensor(&format!("level.{index}")), 1e-5);
    }
    assert_eq!(network.levels(target.clone(), 2).len(), 2);
    assert_close(network.pooled(target), fixture.tensor("pooled"), 1e-5);
    assert_distance(&LiteDistance::new(network), &fixture, 1e-5);
}

#[test]
fn should_see_with_the_bundled_network_what_the_published_one_sees() {
    let fixture = Fixture::read("efficientnet_lite0");
    let bundled = bundled();
    assert_eq!(EfficientNetLiteConfig::lite0().select(bundled.clone()), bundled);
    let network = EfficientNetLiteConfig::lite0().load(bundled, &Device::flex()).unwrap();
    assert_close(network.pooled(fixture.tensor("target")), fixture.tensor("pooled"), 1e-5);
    assert_distance(&LiteDistance::new(network), &fixture, 1e-5);
}

#[test]
fn should_compute_what_convnext_computes() {
    let fixture = Fixture::read("convnext");
    let stages = vec![(6, 2), (8, 1), (12, 2), (20, 1)];
    let config = ConvNextConfig { stages, classes: 10, side: 64 };
    let network = config.load(fixture.weights("weights."), &Device::flex()).unwrap();
    assert_close(network.logits(fixture.tensor("target")), fixture.tensor("logits"), 1e-5);
    assert_distance(&LogitDistance::new(network), &fixture, 1e-5);
}

#[test]
fn should_compute_what_lpips_computes() {
    let widths = [4, 5, 6, 7, 8];
    for (name, config) in [
        ("lpips_vgg", ChainConfig::vgg16_of(widths)),
        ("lpips_alex", ChainConfig::alexnet_of(widths)),
    ] {
        let fixture = Fixture::read(name);
        let mut weights = fixture.weights("weights.");
        // The public file has the classifier too.
        weights.insert("classifier.6.bias".to_owned(), HostTensor::new([2], vec![0.0; 2]));
        let heads = fixture.weights("heads.");
        let lpips = Lpips::load(&config, weights, heads.clone(), &Device::flex()).unwrap();
        assert_distance(&lpips, &fixture, 1e-5);

        let mut heads = heads;
        heads.insert("lin5.model.1.weight".to_owned(), HostTensor::new([1], vec![0.0]));
        heads.remove("lin0.model.1.weight");
        let error = Lpips::load(&config, fixture.weights("weights."), heads, &Device::flex());
        assert_eq!(error.unwrap_err().problems.len(), 2);
    }
}

#[test]
fn should_have_the_published_sizes() {
    // Names, shapes and order of nothing but what the public files have, counted: parameters of
    // torchvision's convnext_small, of the convolutions of its vgg16 and alexnet, and of Inception
    // with 1008 classes, each batch norm with four vectors.
    let count = |problems: Vec<ParameterError>| -> usize {
        let sizes = problems.iter().map(|problem| match problem {
            ParameterError::Missing { expected, .. } => expected.iter().product::<usize>(),
            other => panic!("{other}"),
        });
        sizes.sum()
    };
    let (device, none) = (Device::flex(), TensorMap::new);
    let convnext = ConvNextConfig::small().load(none(), &device).unwrap_err();
    assert_eq!(count(convnext.problems), 50_223_688);
    let vgg = ChainConfig::vgg16().load(none(), &device).unwrap_err();
    assert_eq!(count(vgg.problems), 14_714_688);
    let alexnet = ChainConfig::alexnet().load(none(), &device).unwrap_err();
    assert_eq!(count(alexnet.problems), 2_469_696);
    let inception = InceptionConfig::published().load(none(), &device).unwrap_err();
    assert_eq!(count(inception.problems), 23_885_392);
}

fn thin_inception(fixture: &Fixture) -> Inception {
    let config = InceptionConfig { thinner: 16, classes: 20 };
    config.load(fixture.weights("weights."), &Device::flex()).unwrap()
}

#[test]
fn should_compute_what_inception_computes_stage_by_stage() {
    let fixture = Fixture::read("inception");
    let network = thin_inception(&fixture);
    for (pictures, expected_stages) in [("small", 17), ("wide", 1)] {
        let images = fixture.tensor::<4>(&format!("{pictures}.images"));
        let mut compared = 0;
        network.walk(images.clone(), &mut |stage, x| {
            let name = format!("{pictures}.stage.{stage}");
            if !fixture.tensors.contains_key(&name) {
                return;
            }
            // Every so many pixels, so that nine remain at most.
            let [batch, height, width, channels] = x.dims();
            let every = height.div_ceil(9);
            let kept: Vec<Tensor<4>> = (0..height)
                .step_by(every)
                .flat_map(|row| (0..width).step_by(every).map(move |column| (row, column)))
                .map(|(row, column)| x.clone().narrow(1, row, 1).narrow(2, column, 1))
                .collect();
            let side = height.div_ceil(every);
            let kept = Tensor::cat(kept, 1).reshape([batch, side, side, channels]);
            assert_close(kept, fixture.tensor(&name), 1e-5);
            compared += 1;
        });
        assert_eq!(compared, expected_stages);
        let features = network.features(images);
        let expected = |name: &str| fixture.tensor::<2>(&format!("{pictures}.{name}"));
        assert_close(features.pool, expected("pool"), 1e-5);
        assert_close(features.spatial, expected("spatial"), 1e-5);
        assert_close(features.logits_without_bias, expected("logits_without_bias"), 1e-5);
        assert_close(features.logits, expected("logits"), 1e-5);
    }
}

#[test]
fn should_give_a_picture_the_same_inception_features_in_any_batch() {
    let fixture = Fixture::read("inception");
    let network = thin_inception(&fixture);
    let images = fixture.tensor::<4>("small.images");
    let both = network.features(images.clone());
    let last = network.features(images.narrow(0, 1, 1));
    assert_close(last.pool, both.pool.narrow(0, 1, 1), 1e-6);
    assert_close(last.spatial, both.spatial.narrow(0, 1, 1), 1e-6);
}

#[test]
fn should_name_every_tensor_that_does_not_fit() {
    let mut weights = Fixture::read("efficientnet_lite").weights("weights.");
    weights.remove("_bn0.running_var").unwrap();
    let shape = weights.get_mut("_blocks.1._expand_conv.weight").unwrap();
    *shape = HostTensor::new([12, 4], vec![0.0; 48]);
    weights.insert("_fc.bias".to_owned(), HostTensor::new([2], vec![0.0; 2]));
    let error = tiny_lite().load(weights, &Device::flex()).unwrap_err();
    let [missing, shape, unused] = &error.problems[..] else { panic!("{error}") };
    assert!(matches!(missing, ParameterError::Missing { name, .. } if name == "_bn0.running_var"));
    assert!(matches!(shape, ParameterError::Shape { expected, .. } if *expected == [12, 4, 1, 1]));
    assert!(matches!(unused, ParameterError::Unused { name, .. } if name == "_fc.bias"));
    let told = error.to_string();
    assert!(told.contains("EfficientNet-Lite0") && told.contains("_fc.bias"), "{told}");
}

#[test]
fn should_give_numbers_where_a_picture_is_black_everywhere() {
    let bundled = bundled();
    let network = EfficientNetLiteConfig::lite0().load(bundled, &Device::flex()).unwrap();
    let distance = LiteDistance::new(network);
    let black = Tensor::<4>::zeros([1, 3, 32, 32], &Device::flex());
    let tracked = Tensor::from_inner(black.clone()).require_grad();
    let value = distance.distance(tracked.clone(), Tensor::from_inner(black + 0.5));
    assert!(value.clone().into_scalar::<f32>() > 0.0);
    let gradient = tracked.grad(&value.backward()).unwrap();
    assert!(gradient.abs().sum().into_scalar::<f32>().is_finite());
}
