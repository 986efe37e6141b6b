//! The released tokenizer: `train_tokenizer/model/vae_stage1.py`, `vae_stage2.py` and
//! `modeling/alitok.py` of the authors' repository.

use files::{ParameterError, TensorMap};
use tokenizer::{
    DecoderConfig, DecoderKind, EncoderInput, ImageSize, TokenizerConfig, TransformerConfig,
};

use crate::{
    checkpoint::Checkpoint,
    released::{Form, NameTable, ReleasedError, check_kind, count_layers, shape_of},
};

const KIND: &str = "tokenizer";
/// Width of an attention head in both released transformers.
const HEAD: usize = 64;
/// Running usage of the codes: training state, absent from the released weights.
const USAGE: &str = "quantize.embed_prob";

/// A released tokenizer in our terms.
#[derive(Debug, Clone, PartialEq)]
pub struct ReleasedTokenizer {
    /// Its architecture.
    pub config: TokenizerConfig,
    /// Its parameters under our names.
    pub tensors: TensorMap,
    /// The running usage of the codes, where the file is a training checkpoint.
    pub usage: Option<Vec<f32>>,
}

/// Which of our decoders the released one is: the first stage's has a prefix head or one leading
/// token.
fn decoder_kind(decoder: &DecoderConfig) -> DecoderKind {
    if decoder.prefix_head || decoder.leading == 1 {
        DecoderKind::Causal
    } else {
        DecoderKind::Bidirectional
    }
}

fn transformer(
    name: &'static str,
    width: usize,
    layers: usize,
) -> Result<TransformerConfig, ReleasedError> {
    if width == 0 || !width.is_multiple_of(HEAD) {
        return Err(ReleasedError::Architecture {
            name,
            shape: vec![width],
            what: format!("has a width that is no multiple of its heads' {HEAD}"),
        });
    }
    Ok(TransformerConfig { width, layers, heads: width / HEAD })
}

/// The architecture that the shapes of released tensors imply.
fn infer(tensors: &TensorMap) -> Result<TokenizerConfig, ReleasedError> {
    let patch_name = "encoder.patch_embed.weight";
    let [width, _, patch, _] = shape_of(KIND, tensors, patch_name, "width, 3, patch, patch")?;
    let grid_name = "encoder.positional_embedding";
    let [grid, _] = shape_of(KIND, tensors, grid_name, "patches, width")?;
    let [length, _] = shape_of(KIND, tensors, "latent_tokens", "tokens, width")?;
    let [codes, token_size] =
        shape_of(KIND, tensors, "quantize.embedding.weight", "codes, token size")?;
    let leading_name = "decoder.class_embedding";
    let [leading, decoder_width] = shape_of(KIND, tensors, leading_name, "leading tokens, width")?;

    let side = grid.isqrt();
    if side * side != grid {
        return Err(ReleasedError::Architecture {
            name: grid_name,
            shape: vec![grid, width],
            what: "has no square number of patches, so the picture's sides are unknown".to_owned(),
        });
    }
    let prefix = length.checked_sub(grid).ok_or_else(|| ReleasedError::Architecture {
        name: "latent_tokens",
        shape: vec![length, width],
        what: format!("has fewer tokens than there are patches ({grid})"),
    })?;
    let decoder = DecoderConfig {
        transformer: transformer(
            leading_name,
            decoder_width,
            count_layers(tensors, "decoder.transformer."),
        )?,
        leading,
        prefix_head: tensors.keys().any(|name| {
            name.starts_with("decoder.ffn_aux.") || name.starts_with("decoder.conv_out_aux.")
        }),
    };
    let encoder = transformer(patch_name, width, count_layers(tensors, "encoder.transformer."))?;
    let (causal_decoder, bidirectional_decoder) = match decoder_kind(&decoder) {
        DecoderKind::Causal => (Some(decoder), None),
        DecoderKind::Bidirectional => (None, Some(decoder)),
    };
    let config = TokenizerConfig {
        image: ImageSize::square(side * patch),
        patch,
        prefix,
        codes,
        token_size,
        encoder_input: EncoderInput::PatchesAndLatents,
        encoder,
        causal_decoder,
        bidirectional_decoder,
    };
    config.validate().map_err(|error| ReleasedError::Impossible(error.to_string()))?;
    Ok(config)
}

fn block(table: &mut NameTable, released: &str, ours: &str, transformer: &TransformerConfig) {
    let (width, hidden) = (transformer.width, transformer.hidden());
    for layer in 0..transformer.layers {
        let (released, ours) = (format!("{released}.{layer}"), format!("{ours}.{layer}"));
        let names = |from: &str, to: &str| (format!("{released}.{from}"), format!("{ours}.{to}"));
        let (from, to) = names("ln_1", "attention_norm");
        table.layer_norm(&from, &to, width);
        let (from, to) = names("attn.in_proj", "attention.query_key_value");
        table.linear(&from, &to, width, 3 * width);
        let (from, to) = names("attn.out_proj", "attention.projection");
        table.linear(&from, &to, width, width);
        let (from, to) = names("ln_2", "feed_forward_norm");
        table.layer_norm(&from, &to, width);
        let (from, to) = names("mlp.c_fc", "feed_forward.up");
        table.linear(&from, &to, width, hidden);
        let (from, to) = names("mlp.c_proj", "feed_forward.down");
        table.linear(&from, &to, hidden, width);
    }
}

/// All tensors of a released tokenizer with this decoder.
fn table(config: &TokenizerConfig, decoder: &DecoderConfig, kind: DecoderKind) -> NameTable {
    let mut table = NameTable { kind: KIND, entries: Vec::new() };
    let layout = config.layout();

    let width = config.encoder.width;
    table.add(
        "encoder.patch_embed.weight".to_owned(),
        "encoder.patch_embedding.weight".to_owned(),
        &[width, 3, config.patch, config.patch],
        Form::PatchConvolution,
    );
    table.same("encoder.patch_embed.bias", "encoder.patch_embedding.bias", &[width]);
    table.same("encoder.positional_embedding", "encoder.positions", &[layout.grid(), width]);
    table.same("latent_tokens", "encoder.latents.tokens", &[layout.len(), width]);
    table.same(
        "encoder.latent_token_positional_embedding",
        "encoder.latents.positions",
        &[layout.len(), width],
    );
    table.layer_norm("encoder.ln_pre", "encoder.input_norm", width);
    block(&mut table, "encoder.transformer", "encoder.blocks", &config.encoder);
    table.layer_norm("encoder.ln_post", "encoder.output_norm", width);
    table.point_convolution("encoder.conv_out", "encoder.to_code", width, config.token_size);

    table.same(
        "quantize.embedding.weight",
        "quantizer.codebook",
        &[config.codes, config.token_size],
    );

    let width = decoder.transformer.width;
    let ours = |name: &str| format!("{}_decoder.{name}", kind.name());
    table.linear("decoder.decoder_embed", &ours("embedding"), config.token_size, width);
    table.same("decoder.class_embedding", ours("leading"), &[decoder.leading, width]);
    table.same(
        "decoder.latent_token_positional_embedding",
        ours("positions"),
        &[decoder.leading + layout.len(), width],
    );
    table.layer_norm("decoder.ln_pre", &ours("input_norm"), width);
    block(&mut table, "decoder.transformer", &ours("blocks"), &decoder.transformer);
    table.layer_norm("decoder.ln_post", &ours("output_norm"), width);
    table.point_convolution("decoder.ffn.0", &ours("head.patch"), width, config.patch_values());
    table.point_convolution("decoder.conv_out", &ours("head.color"), 3, 3);
    if decoder.prefix_head {
        let values = config.patch_values();
        table.point_convolution("decoder.ffn_aux.0", &ours("prefix_head.patch"), width, values);
        table.point_convolution("decoder.conv_out_aux", &ours("prefix_head.color"), 3, 3);
    }
    table
}

/// Reads a released tokenizer of either stage; its architecture is inferred from the shapes.
///
/// # Errors
/// If any tensor is missing, unknown or of a shape that does not fit the others.
pub fn import_tokenizer(checkpoint: Checkpoint) -> Result<ReleasedTokenizer, ReleasedError> {
    check_kind(&checkpoint, KIND)?;
    let config = infer(&checkpoint.tensors)?;
    let kind = config.best_decoder().expect("inferred with one decoder");
    let decoder = config.decoder(kind).expect("the config has the decoder that it names");
    let table = table(&config, decoder, kind);
    table.check_others(&checkpoint)?;
    let mut tensors = checkpoint.tensors;
    let usage = tensors.remove(USAGE);
    if let Some(usage) = usage.as_ref().filter(|usage| usage.shape != [config.codes]) {
        return Err(ReleasedError::Tensors {
            kind: KIND,
            problems: vec![ParameterError::Shape {
                name: USAGE.to_owned(),
                expected: vec![config.codes],
                got: usage.shape.clone(),
            }],
        });
    }
    let tensors = table.import(tensors)?;
    Ok(ReleasedTokenizer { config, tensors, usage: usage.map(|usage| usage.values) })
}

/// The tensors of a tokenizer with one of its decoders under the released names, as
/// [`import_tokenizer`] would read them.
///
/// # Errors
/// If the model lacks that decoder or differs from what the released code can express, or tensors
/// do not fit the architecture.
pub fn export_tokenizer(
    config: &TokenizerConfig,
    kind: DecoderKind,
    mut tensors: TensorMap,
) -> Result<TensorMap, ReleasedError> {
    let decoder = config.decoder(kind).map_err(|_| ReleasedError::NoDecoder(kind))?;
    if config.encoder_input != EncoderInput::PatchesAndLatents {
        return Err(ReleasedError::NotReleased("it has a causal encoder without latents"));
    }
    if config.image.height != config.image.width {
        return Err(ReleasedError::NotReleased("its pictures are not square"));
    }
    let released_heads = |t: &TransformerConfig| t.heads * HEAD == t.width;
    if !released_heads(&config.encoder) || !released_heads(&decoder.transformer) {
        return Err(ReleasedError::NotReleased("its attention heads are not 64 wide"));
    }
    if decoder_kind(decoder) != kind {
        return Err(ReleasedError::NotReleased(match kind {
            DecoderKind::Causal => {
                "its causal decoder has several leading tokens and no prefix head"
            }
            DecoderKind::Bidirectional => {
                "its bidirectional decoder has one leading token or a prefix head"
            }
        }));
    }
    // The other decoder stays here.
    let other = match kind {
        DecoderKind::Causal => DecoderKind::Bidirectional,
        DecoderKind::Bidirectional => DecoderKind::Causal,
    };
    if config.decoder(other).is_ok() {
        let prefix = format!("{}_decoder.", other.name());
        tensors.retain(|name, _| !name.starts_with(&prefix));
    }
    table(config, decoder, kind).export(tensors)
}
