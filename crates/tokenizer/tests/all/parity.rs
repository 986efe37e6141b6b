//! The released code's numbers at reduced width (tests/fixtures/tokenizer_stage*), every
//! parameter perturbed: forward, losses, gradients, and the codebook's update.

use burn::{
    optim::GradientsParams,
    tensor::{Device, Tensor, TensorData},
};
use files::HostTensor;
use fixtures::{Tensors, assert_close, fixture, largest};
use operations::parameters::{gradients, load};
use tokenizer::{
    DecoderKind, TokenizerConfig,
    reference::{
        Anchor, Clustering, ClusteringConfig, Reconstruction, Tokenizer,
        patch::{patchify, unpatchify},
    },
};
use tokens::noise::{Noise, Purpose};
use weights::{
    Checkpoint,
    released::{export_tokenizer, import_tokenizer},
};

/// Agreement of forward values, absolute.
const FORWARD: f32 = 1e-5;
/// Agreement of gradients, relative to the tensor's largest entry.
const GRADIENT: f32 = 1e-4;

fn device_tensor<const D: usize>(host: HostTensor, device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(host.values, host.shape), device)
}

struct Case {
    config: TokenizerConfig,
    model: Tokenizer,
    fixture: Tensors,
    device: Device,
}

fn case(stage: &str) -> Case {
    let device = Device::flex().autodiff();
    let checkpoint = Checkpoint::read(fixture(&format!("{stage}.pth"))).unwrap();
    let released = import_tokenizer(checkpoint).unwrap();
    let model = load(released.config.build(&device).unwrap(), released.tensors).unwrap();
    let fixture = Tensors::open(&format!("{stage}.safetensors"));
    Case { config: released.config, model, fixture, device }
}

/// Forward through `kind`, compared step by step. Returns reconstruction and quantizer loss.
fn check_forward(case: &Case, kind: DecoderKind) -> (Reconstruction, Tensor<1>, Tensor<3>) {
    let images: Tensor<4> = device_tensor(case.fixture.floats("images"), &case.device);
    let features = case.model.encoder.forward(images);
    let check = |name: &str, got: Tensor<3>| {
        assert_close(
            name,
            &operations::parameters::host_tensor(got),
            &case.fixture.floats(name),
            FORWARD,
        );
    };
    check("latents", features.clone());
    let quantized = case.model.quantizer.forward(features.clone());
    check("quantized", quantized.codes.clone());
    let indices: Vec<i64> = quantized.indices.to_data().iter::<i64>().collect();
    assert_eq!(indices, case.fixture.integers("indices"));
    let loss = operations::parameters::host_tensor(quantized.loss.clone());
    assert_close("quantizer_loss", &loss, &case.fixture.floats("quantizer_loss"), FORWARD);

    let decoder = case.model.decoder(kind).unwrap();
    let reconstruction = decoder.forward(quantized.codes.clone());
    let columns = case.config.layout().columns();
    let pixels = unpatchify(reconstruction.patches.clone(), case.config.patch, columns);
    let pixels = operations::parameters::host_tensor(pixels);
    assert_close("recon", &pixels, &case.fixture.floats("recon"), FORWARD);
    (reconstruction, quantized.loss, features)
}

fn check_gradients(case: &Case, kind: DecoderKind, loss: Tensor<1>) {
    let expected = case.fixture.floats("train_loss");
    assert_close(
        "train_loss",
        &operations::parameters::host_tensor(loss.clone()),
        &expected,
        FORWARD,
    );
    let found = GradientsParams::from_grads(loss.backward(), &case.model);
    let found = gradients(&case.model, &found);
    let found = export_tokenizer(&case.config, kind, found).unwrap();
    let expected = case.fixture.floats_below("grad.");
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, expected) in &expected {
        assert_close(name, &found[name], expected, GRADIENT * largest(expected));
    }
}

#[test]
fn should_agree_with_the_released_first_stage() {
    let mut case = case("tokenizer_stage1");
    assert_eq!(case.config.prefix, 5);
    let (reconstruction, quantizer_loss, features) = check_forward(&case, DecoderKind::Causal);

    let images: Tensor<4> = device_tensor(case.fixture.floats("images"), &case.device);
    let target = patchify(images, case.config.patch);
    let [batch, _, values] = target.dims();
    let row: Vec<Tensor<3>> = case
        .config
        .prefix_columns()
        .into_iter()
        .map(|column| target.clone().slice([0..batch, column..column + 1, 0..values]))
        .collect();
    let row = Tensor::cat(row, 1);
    let pixels = |patches: Tensor<3>| {
        operations::parameters::host_tensor(unpatchify(
            patches,
            case.config.patch,
            case.config.prefix,
        ))
    };
    let prefix = reconstruction.prefix.unwrap();
    let aux_target = case.fixture.floats("aux_target");
    assert_close("aux_target", &pixels(row.clone()), &aux_target, FORWARD);
    let recon_aux = case.fixture.floats("recon_aux");
    assert_close("recon_aux", &pixels(prefix.clone()), &recon_aux, FORWARD);

    let mean_square = |a: Tensor<3>, b: Tensor<3>| (a - b).square().mean();
    let auxiliary = mean_square(prefix, row).mul_scalar(10.0 * 5.0 / 16.0);
    let loss = mean_square(reconstruction.patches, target) + auxiliary + quantizer_loss;
    check_gradients(&case, DecoderKind::Causal, loss);

    // The codebook's update that the same forward makes.
    let plain = case.device.clone().inner();
    let released = ClusteringConfig { anchor: Anchor::Nearest, decay: 0.99 };
    let mut clustering = Clustering::new(released, case.config.codes, &plain);
    let indices = case.model.quantizer.nearest(features.clone());
    let mut noise = Noise::new(0, Purpose::Clustering, 0, 0);
    case.model.quantizer = clustering.update(case.model.quantizer, features, indices, &mut noise);
    let codebook = operations::parameters::host_tensor(case.model.quantizer.codebook());
    assert_close("codebook_after", &codebook, &case.fixture.floats("codebook_after"), FORWARD);
    let usage = operations::parameters::host_tensor(clustering.usage());
    assert_close("usage_after", &usage, &case.fixture.floats("usage_after"), 1e-7);
    assert!(case.model.quantizer.codebook().is_require_grad(), "the codebook trains on");
}

#[test]
fn should_agree_with_the_released_second_stage() {
    let case = case("tokenizer_stage2");
    let (reconstruction, quantizer_loss, _) = check_forward(&case, DecoderKind::Bidirectional);
    let images: Tensor<4> = device_tensor(case.fixture.floats("images"), &case.device);
    let target = patchify(images, case.config.patch);
    let loss = (reconstruction.patches - target).square().mean() + quantizer_loss;
    check_gradients(&case, DecoderKind::Bidirectional, loss);
}
