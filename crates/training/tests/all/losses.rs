//! The first stage's loss against the released training's (tests/fixtures/tokenizer_stage1).

use burn::tensor::{Device, Tensor, TensorData};
use fixtures::{Tensors, fixture};
use operations::parameters::load;
use tokenizer::{
    DecoderKind,
    reference::{Reconstruction, patch::patchify},
};
use training::losses::{StageOneLoss, picture_of_prefix};
use weights::{Checkpoint, released::import_tokenizer};

#[test]
fn should_weigh_the_terms_as_the_released_training_does() {
    let device = Device::flex();
    let checkpoint = Checkpoint::read(fixture("tokenizer_stage1.pth")).unwrap();
    let released = import_tokenizer(checkpoint).unwrap();
    let config = released.config;
    let model = load(config.build(&device).unwrap(), released.tensors).unwrap();
    let expected = Tensors::open("tokenizer_stage1.safetensors");
    let images = expected.floats("images");
    let images: Tensor<4> =
        Tensor::from_data(TensorData::new(images.values, images.shape), &device);

    let target = patchify(images.clone(), config.patch);
    let quantized = model.quantizer.forward(model.encoder.forward(images));
    let decoder = model.decoder(DecoderKind::Causal).unwrap();
    let reconstruction = decoder.forward(quantized.codes.clone());
    // The released weight of the auxiliary loss, for 5 prefix tokens and 16 patches.
    let auxiliary = 10.0 * 5.0 / 16.0;
    let loss = StageOneLoss { reconstruction: 1.0, quantizer: 1.0, auxiliary };
    let terms = loss.forward(&config, reconstruction, &quantized, target);

    let scalar = |tensor: Tensor<1>| operations::parameters::host_tensor(tensor).values[0];
    let expected = expected.floats("train_loss").values[0];
    let total = scalar(terms.total);
    assert!((total - expected).abs() < 1e-5, "{total}, expected {expected}");
    let parts = scalar(terms.reconstruction)
        + scalar(terms.quantizer)
        + auxiliary as f32 * scalar(terms.auxiliary.unwrap());
    assert!((parts - total).abs() < 1e-5, "{parts} in parts, {total} in all");
}

/// The released layout, in which the first patch comes twice, and the paper's.
#[test]
fn should_teach_the_prefix_alone_with_a_whole_picture() {
    let device = Device::flex().autodiff();
    for prefix in [5, 4] {
        let mut config = tokenizer::presets::mini();
        config.image = tokenizer::ImageSize::square(32);
        config.prefix = prefix;
        let values = config.patch_values();
        let of = |count: usize, value: f32| {
            Tensor::<3>::full([2, count, values], value, &device).require_grad()
        };
        let (patches, row) = (of(16, 0.25), of(prefix, 0.75));
        let reconstruction = Reconstruction { patches: patches.clone(), prefix: Some(row.clone()) };
        let picture = picture_of_prefix(&config, &reconstruction).unwrap();
        assert_eq!(picture.dims(), [2, 3, 32, 32]);
        let mean = |from, to| {
            let part = picture.clone().slice_dim(2, from..to).mean();
            operations::parameters::host_tensor(part).values[0]
        };
        assert_eq!([mean(0, 8), mean(8, 32)], [0.75, 0.25]);
        let gradients = picture.square().sum().backward();
        assert!(patches.grad(&gradients).is_none(), "a gradient reaches the other rows");
        let taught = operations::parameters::host_tensor(row.grad(&gradients).unwrap()).values;
        // What rebuilds the first patch a second time is not in the picture.
        let apart = (prefix - 4) * values;
        for sample in taught.chunks(prefix * values) {
            assert!(sample[..apart].iter().all(|&slope| slope == 0.0));
            assert!(sample[apart..].iter().all(|&slope| slope == 1.5));
        }
    }
}
