//! What must hold for any tokenizer.

use burn::tensor::{Device, Tensor, TensorData};
use operations::parameters::{collect, shapes};
use tokenizer::{
    DecoderConfig, DecoderKind, EncoderInput, ImageSize, TokenizerConfig, TransformerConfig,
    presets,
    reference::{Initialization, Positions, Tokenizer, Weights},
};
use tokens::noise::{Noise, Purpose};

const WIDTHS: TransformerConfig = TransformerConfig { width: 16, layers: 2, heads: 2 };

/// A small tokenizer of pictures that are no squares.
fn small() -> TokenizerConfig {
    TokenizerConfig {
        image: ImageSize { height: 12, width: 16 },
        patch: 4,
        prefix: 4,
        codes: 32,
        token_size: 6,
        encoder_input: EncoderInput::PatchesAndLatents,
        encoder: WIDTHS,
        causal_decoder: Some(DecoderConfig { transformer: WIDTHS, leading: 1, prefix_head: true }),
        bidirectional_decoder: Some(DecoderConfig {
            transformer: WIDTHS,
            leading: 3,
            prefix_head: false,
        }),
    }
}

fn initialized(config: &TokenizerConfig) -> Tokenizer {
    let initialization =
        Initialization { seed: 1, positions: Positions::Random, weights: Weights::Small };
    config.initialize(&initialization, &Device::flex()).unwrap()
}

fn random<const D: usize>(shape: [usize; D], seed: u64) -> Tensor<D> {
    let mut noise = Noise::new(seed, Purpose::Sampling, 0, 0);
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| noise.uniform() as f32).collect();
    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
}

/// Which rows of `[1, rows, values]` differ.
fn changed_rows(before: &Tensor<3>, after: &Tensor<3>) -> Vec<usize> {
    let [_, rows, values] = before.dims();
    let host = |tensor: &Tensor<3>| operations::parameters::host_tensor(tensor.clone()).values;
    let (before, after) = (host(before), host(after));
    (0..rows)
        .filter(|row| {
            let range = row * values..(row + 1) * values;
            before[range.clone()] != after[range]
        })
        .collect()
}

#[test]
fn should_rebuild_a_patch_from_its_own_and_earlier_tokens_only() {
    let config = small();
    let layout = config.layout();
    let decoder = initialized(&config).causal_decoder.unwrap();
    let codes = random([1, layout.len(), config.token_size], 1);
    let before = decoder.forward(codes.clone());
    for changed in [0, layout.prefix(), layout.prefix() + 5, layout.len() - 1] {
        let other = random([1, 1, config.token_size], 2);
        let place = [0..1, changed..changed + 1, 0..config.token_size];
        let after = decoder.forward(codes.clone().slice_assign(place, other));
        let first = changed.saturating_sub(layout.prefix());
        let expected: Vec<usize> = (first..layout.grid()).collect();
        assert_eq!(changed_rows(&before.patches, &after.patches), expected);
        let prefix = changed_rows(&before.prefix.clone().unwrap(), &after.prefix.unwrap());
        assert_eq!(prefix, (changed..layout.prefix().max(changed)).collect::<Vec<_>>());
    }
}

#[test]
fn should_rebuild_every_patch_from_all_tokens_in_the_second_stage() {
    let config = small();
    let decoder = initialized(&config).bidirectional_decoder.unwrap();
    let codes = random([1, config.layout().len(), config.token_size], 1);
    let last = config.layout().len() - 1;
    let other = random([1, 1, config.token_size], 2);
    let changed = codes.clone().slice_assign([0..1, last..last + 1, 0..config.token_size], other);
    let (before, after) = (decoder.forward(codes), decoder.forward(changed));
    assert_eq!(changed_rows(&before.patches, &after.patches).len(), config.layout().grid());
    assert!(before.prefix.is_none());
}

#[test]
fn should_encode_a_patch_from_its_own_and_earlier_patches_with_a_causal_encoder() {
    let config = presets::with_causal_encoder(small());
    let model = initialized(&config);
    assert_eq!(config.layout().prefix(), 0);
    assert_eq!(config.decoder(DecoderKind::Bidirectional).unwrap().leading, 12);
    let images = random([1, 3, 12, 16], 1);
    let before = model.encoder.forward(images.clone());
    // The patch at row 1, column 2 of a grid of 3 × 4.
    let patch = random([1, 3, 4, 4], 2);
    let after = model.encoder.forward(images.slice_assign([0..1, 0..3, 4..8, 8..12], patch));
    assert_eq!(changed_rows(&before, &after), (6..12).collect::<Vec<_>>());
}

#[test]
fn should_encode_all_tokens_from_all_patches_otherwise() {
    let model = initialized(&small());
    let images = random([1, 3, 12, 16], 1);
    let before = model.encoder.forward(images.clone());
    let patch = random([1, 3, 4, 4], 2);
    let after = model.encoder.forward(images.slice_assign([0..1, 0..3, 8..12, 12..16], patch));
    assert_eq!(changed_rows(&before, &after).len(), model.config().layout().len());
}

#[test]
fn should_build_every_variant_and_count_its_parameters() {
    for config in [
        small(),
        presets::mini(),
        presets::without_alignment(small()),
        presets::without_prefix(small()),
        presets::without_auxiliary_loss(small()),
        presets::with_causal_encoder(small()),
    ] {
        let model = config.build(&Device::flex()).unwrap();
        let built: usize =
            shapes(&model).values().map(|shape| shape.iter().product::<usize>()).sum();
        let decoders = [&config.causal_decoder, &config.bidirectional_decoder];
        let counted: usize = decoders
            .into_iter()
            .flatten()
            .map(|decoder| {
                let prefix_head = usize::from(decoder.prefix_head);
                config.decoder_parameters(decoder) + prefix_head * config.head_parameters(decoder)
            })
            .sum();
        let counted = counted + config.encoder_parameters() + config.codebook_parameters();
        assert_eq!(built, counted, "{config:?}");
    }
}

#[test]
fn should_make_pictures_of_its_size_with_values_in_range() {
    let config = small();
    let model = initialized(&config);
    let images = random([2, 3, 12, 16], 1);
    let tokens = model.encode(images);
    assert_eq!(tokens.dims(), [2, config.layout().len()]);
    for kind in [DecoderKind::Causal, DecoderKind::Bidirectional] {
        let pictures = model.decode(tokens.clone(), kind).unwrap();
        assert_eq!(pictures.dims(), [2, 3, 12, 16]);
        let values = operations::parameters::host_tensor(pictures).values;
        assert!(values.iter().all(|value| (0.0..=1.0).contains(value)));
    }
}

#[test]
fn should_encode_and_decode_a_picture_alone_as_in_a_batch() {
    let config = small();
    let model = initialized(&config);
    let images = random([3, 3, 12, 16], 1);
    let batch: Vec<i64> = model.encode(images.clone()).into_data().iter::<i64>().collect();
    let planes = operations::parameters::host_tensor(images).values;
    let encoder = model.frozen_encoder();
    let length = config.layout().len();
    for (planes, expected) in planes.chunks(3 * 12 * 16).zip(batch.chunks(length)) {
        let tokens = encoder.encode_picture(planes.to_vec());
        let tokens: Vec<i64> = tokens.into_iter().map(i64::from).collect();
        assert_eq!(tokens, expected);
    }
}

#[test]
fn should_begin_alike_with_the_same_seed_and_differently_with_another() {
    let at = |seed| {
        let initialization =
            Initialization { seed, positions: Positions::Random, weights: Weights::Small };
        collect(&small().initialize(&initialization, &Device::flex()).unwrap())
    };
    assert_eq!(at(1), at(1));
    let (one, two) = (at(1), at(2));
    for (name, tensor) in &one {
        let constant = name.contains("norm.") || name.ends_with("bias");
        assert_eq!(tensor == &two[name], constant, "{name}");
    }
    let weight = &one["encoder.patch_embedding.weight"].values;
    let variance = weight.iter().map(|v| v * v).sum::<f32>() / weight.len() as f32;
    assert!((variance.sqrt() - 0.02).abs() < 0.003);
}

#[test]
fn should_begin_with_features_of_content_where_weights_are_even() {
    let sizes = TransformerConfig { width: 64, layers: 2, heads: 2 };
    let config = TokenizerConfig {
        image: ImageSize::square(32),
        patch: 4,
        prefix: 8,
        encoder: sizes,
        causal_decoder: Some(DecoderConfig { transformer: sizes, leading: 1, prefix_head: true }),
        bidirectional_decoder: None,
        ..small()
    };
    // Each patch has a colour of its own.
    let colors = random([8, 3, 8, 1, 8, 1], 5).expand([8, 3, 8, 4, 8, 4]);
    let images = colors.reshape([8, 3, 32, 32]);
    let share_of_content = |weights| {
        let initialization = Initialization { seed: 1, positions: Positions::Sinusoid, weights };
        let tokenizer = config.initialize(&initialization, &Device::flex()).unwrap();
        let grid = tokenizer.encoder.forward(images.clone()).slice([0..8, 8..72]);
        let of_place = grid.clone().mean_dim(0);
        let varied = |x: Tensor<3>| f64::from(x.square().mean().into_scalar::<f32>());
        let content = varied(grid.clone() - of_place);
        content / varied(grid.clone() - grid.mean_dim(0).mean_dim(1))
    };
    let (small, even) = (share_of_content(Weights::Small), share_of_content(Weights::Even));
    assert!(small < 1e-3, "{small}");
    assert!(even > 0.1, "{even}");
}

#[test]
fn should_refuse_what_cannot_be_built() {
    let refused = |change: fn(&mut TokenizerConfig)| {
        let mut config = small();
        change(&mut config);
        config.build(&Device::flex()).unwrap_err().to_string()
    };
    assert!(refused(|c| c.patch = 5).contains("does not divide into patches of 5"));
    assert!(refused(|c| c.codes = 0).contains("`codes`"));
    assert!(refused(|c| c.codes = 70_000).contains("70000"));
    assert!(refused(|c| c.prefix = 2).contains("prefix head"));
    assert!(refused(|c| c.encoder.heads = 3).contains("3 attention heads"));
    let mut config = small();
    config.encoder_input = EncoderInput::CausalPatches;
    assert!(config.build(&Device::flex()).is_err());
}

#[test]
fn should_see_no_later_token_in_the_attention_of_the_causal_decoder() {
    let config = small();
    let layout = config.layout();
    let model = initialized(&config);
    let attention = model.attention(random([2, 3, 12, 16], 1), DecoderKind::Causal).unwrap();
    assert_eq!(attention.layers(), WIDTHS.layers);
    for layer in 0..attention.layers() {
        for patch in 0..layout.grid() {
            let (row, column) = (patch / layout.columns(), patch % layout.columns());
            let map = attention.map(row, column, layer..layer + 1);
            let (seen, later) = map.split_at(layout.prefix() + patch + 1);
            assert!(seen.iter().all(|&weight| weight > 0.0), "patch {patch}: {map:?}");
            assert!(later.iter().all(|&weight| weight == 0.0), "patch {patch}: {map:?}");
            assert!(seen.iter().sum::<f64>() < 1.0, "the leading token has its part");
        }
    }
    let pattern = attention.local_pattern(0..attention.layers());
    assert_eq!(pattern.preceding_share(), Some(1.0));
}

#[test]
fn should_look_everywhere_alike_as_long_as_queries_and_keys_are_zero() {
    let config = small();
    let model = config.build(&Device::flex()).unwrap();
    let images = random([1, 3, 12, 16], 1);
    let attention = model.attention(images, DecoderKind::Bidirectional).unwrap();
    let leading = config.decoder(DecoderKind::Bidirectional).unwrap().leading;
    let expected = 1.0 / (leading + config.layout().len()) as f64;
    let pattern = attention.local_pattern(0..attention.layers());
    for weight in pattern.weights.into_iter().flatten() {
        assert!((weight - expected).abs() < 1e-7, "{weight} is not {expected}");
    }
    assert!((pattern.preceding_share().unwrap() - 0.5).abs() < 1e-7);
}

#[test]
fn should_add_up_the_attention_of_pictures_alone_as_that_of_a_batch() {
    let model = initialized(&small());
    let kind = DecoderKind::Bidirectional;
    let images = random([2, 3, 12, 16], 1);
    let batch = model.attention(images.clone(), kind).unwrap();
    let mut alone = model.attention(images.clone().narrow(0, 0, 1), kind).unwrap();
    alone.merge(&model.attention(images.narrow(0, 1, 1), kind).unwrap());
    for (one, other) in batch.map(1, 1, 0..2).into_iter().zip(alone.map(1, 1, 0..2)) {
        assert!((one - other).abs() < 1e-6, "{one} and {other}");
    }
}
