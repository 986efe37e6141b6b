//! The released generator: `modeling/ar.py` of the authors' repository.

use files::TensorMap;
use generator::GeneratorConfig;
use tokens::TokenLayout;

use crate::{
    checkpoint::Checkpoint,
    released::{NameTable, ReleasedError, check_kind, count_layers, shape_of},
};

const KIND: &str = "generator";

/// The architecture that the shapes of released tensors imply, all but the order of the tokens.
fn infer(tensors: &TensorMap, layout: TokenLayout) -> Result<GeneratorConfig, ReleasedError> {
    let embedding = "embeddings.weight";
    let [identifiers, width] = shape_of(KIND, tensors, embedding, "identifiers, width")?;
    let [codes, _] = shape_of(KIND, tensors, "output.weight", "codes, width")?;
    let norm = "blocks.0.attn.q_norm.weight";
    let [head] = shape_of(KIND, tensors, norm, "width of a head")?;
    let classes = identifiers
        .checked_sub(codes.saturating_add(2))
        .filter(|&classes| classes > 0)
        .ok_or_else(|| ReleasedError::Architecture {
        name: embedding,
        shape: vec![identifiers, width],
        what: format!(
            "leaves no class: it should have a row for each of {codes} codes, each class, \
                     and two more"
        ),
    })?;
    if head == 0 || !width.is_multiple_of(head) {
        return Err(ReleasedError::Architecture {
            name: norm,
            shape: vec![head],
            what: format!("does not divide the width {width} into heads"),
        });
    }
    let layers = count_layers(tensors, "blocks.");
    let config = GeneratorConfig {
        layout,
        codes,
        classes,
        width,
        layers,
        heads: width / head,
        key_value_heads: None,
    };
    config.validate().map_err(|error| ReleasedError::Impossible(error.to_string()))?;
    Ok(config)
}

/// All tensors of a released generator.
fn table(config: &GeneratorConfig) -> NameTable {
    let mut table = NameTable { kind: KIND, entries: Vec::new() };
    let (width, hidden) = (config.width, config.hidden());
    table.same("embeddings.weight", "embedding.weight", &[config.vocabulary().len(), width]);
    for layer in 0..config.layers {
        let name = |name: &str| format!("blocks.{layer}.{name}");
        let (from, to) = (name("attn.qkv"), name("attention.query_key_value"));
        table.linear(&from, &to, width, 3 * width);
        let (from, to) = (name("attn.proj"), name("attention.projection"));
        table.linear(&from, &to, width, width);
        for (from, to, shape) in [
            ("norm1.weight", "attention_norm.weight", vec![width]),
            ("attn.q_norm.weight", "attention.query_norm.weight", vec![config.head()]),
            ("attn.k_norm.weight", "attention.key_norm.weight", vec![config.head()]),
            ("norm2.weight", "feed_forward_norm.weight", vec![width]),
            ("mlp.w1.weight", "feed_forward.gate.weight", vec![hidden, width]),
            ("mlp.w3.weight", "feed_forward.up.weight", vec![hidden, width]),
            ("mlp.w2.weight", "feed_forward.down.weight", vec![width, hidden]),
        ] {
            table.same(name(from), name(to), &shape);
        }
    }
    table.same("norm.weight", "norm.weight", &[width]);
    table.linear("output", "output", width, config.codes);
    table
}

/// Reads a released generator; its architecture is inferred from the shapes, except for the
/// layout of the tokens, which is its tokenizer's.
///
/// # Errors
/// If any tensor is missing, unknown or of a shape that does not fit the others.
pub fn import_generator(
    checkpoint: Checkpoint,
    layout: TokenLayout,
) -> Result<(GeneratorConfig, TensorMap), ReleasedError> {
    check_kind(&checkpoint, KIND)?;
    let config = infer(&checkpoint.tensors, layout)?;
    let table = table(&config);
    table.check_others(&checkpoint)?;
    let tensors = table.import(checkpoint.tensors)?;
    Ok((config, tensors))
}

/// The tensors of a generator under the released names, as [`import_generator`] would read them.
///
/// # Errors
/// If tensors do not fit the architecture.
pub fn export_generator(
    config: &GeneratorConfig,
    tensors: TensorMap,
) -> Result<TensorMap, ReleasedError> {
    table(config).export(tensors)
}
