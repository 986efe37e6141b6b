//! The names that others give to the parameters of a Qwen2, and what of their files is left out.

use std::borrow::Cow;

/// Where a tensor of another's file belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// It is a parameter of ours, whole.
    Whole(String),
    /// It is a part of the queries, keys and values of a block: the kind of part, and our name.
    Part(Part, String),
    /// It belongs to something that sees pictures, or is no parameter.
    LeftOut,
}

/// What the rows of a part of `query_key_value` make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Queries.
    Query,
    /// Keys.
    Key,
    /// Values.
    Value,
}

/// The place of a tensor of this name, or `None` if nobody knows it. Known are the names of
///
/// - Qwen2 in `transformers`: `model.layers.…`, `lm_head.weight`;
/// - LLaVA-OneVision as its authors save it: the same, beside `model.vision_tower.…`,
///   `model.mm_projector.…` and `model.image_newline`;
/// - the same in `transformers`: `language_model.model.…`, `language_model.lm_head.weight`, beside
///   `vision_tower.…`, `multi_modal_projector.…` and `image_newline`; since version 4.52
///   `model.language_model.…`, `lm_head.weight`, beside `model.vision_tower.…` and so on.
pub fn place(name: &str) -> Option<Place> {
    const LEFT_OUT: [&str; 4] =
        ["vision_tower.", "mm_projector.", "multi_modal_projector.", "image_newline"];
    let plain = name.strip_prefix("model.").unwrap_or(name);
    if LEFT_OUT.iter().any(|start| plain.starts_with(start))
        || name.ends_with(".rotary_emb.inv_freq")
    {
        return Some(Place::LeftOut);
    }
    let whole = |name: &str| Some(Place::Whole(name.to_owned()));
    if matches!(name, "lm_head.weight" | "language_model.lm_head.weight") {
        return whole("output.weight");
    }
    let name = ["language_model.model.", "model.language_model.", "model."]
        .into_iter()
        .find_map(|start| name.strip_prefix(start))?;
    match name {
        "embed_tokens.weight" => return whole("embedding.weight"),
        "norm.weight" => return whole("norm.weight"),
        _ => {}
    }
    let (block, part) = name.strip_prefix("layers.")?.split_once('.')?;
    block.parse::<usize>().ok()?;
    let ours = |part: &str| format!("blocks.{block}.{part}");
    let mixed = |kind, what: &str| {
        Some(Place::Part(kind, ours(&format!("attention.query_key_value.{what}"))))
    };
    match part {
        "self_attn.q_proj.weight" => mixed(Part::Query, "weight"),
        "self_attn.q_proj.bias" => mixed(Part::Query, "bias"),
        "self_attn.k_proj.weight" => mixed(Part::Key, "weight"),
        "self_attn.k_proj.bias" => mixed(Part::Key, "bias"),
        "self_attn.v_proj.weight" => mixed(Part::Value, "weight"),
        "self_attn.v_proj.bias" => mixed(Part::Value, "bias"),
        "input_layernorm.weight" => whole(&ours("attention_norm.weight")),
        "self_attn.o_proj.weight" => whole(&ours("attention.projection.weight")),
        "post_attention_layernorm.weight" => whole(&ours("feed_forward_norm.weight")),
        "mlp.gate_proj.weight" => whole(&ours("feed_forward.gate.weight")),
        "mlp.up_proj.weight" => whole(&ours("feed_forward.up.weight")),
        "mlp.down_proj.weight" => whole(&ours("feed_forward.down.weight")),
        _ => None,
    }
}

/// The row of a head of queries or keys, in the order of others, that is row `row` of ours: Qwen2
/// rotates row i of a head with row i + head / 2, and we rotate neighbours.
pub const fn other_row(row: usize, head: usize) -> usize {
    row / 2 + row % 2 * (head / 2)
}

/// The name of a tensor without the numbers of its layers, to tell of many at once.
pub fn family(name: &str) -> Cow<'_, str> {
    let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    match name.split('.').any(is_number) {
        false => Cow::Borrowed(name),
        true => {
            let parts = name.split('.').map(|part| if is_number(part) { "*" } else { part });
            Cow::Owned(parts.collect::<Vec<_>>().join("."))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_know_the_names_of_qwen2_and_llava() {
        let norm = Some(Place::Whole("blocks.3.attention_norm.weight".to_owned()));
        for start in ["model.", "language_model.model.", "model.language_model."] {
            assert_eq!(place(&format!("{start}layers.3.input_layernorm.weight")), norm);
            let key = place(&format!("{start}layers.3.self_attn.k_proj.bias"));
            let name = "blocks.3.attention.query_key_value.bias".to_owned();
            assert_eq!(key, Some(Place::Part(Part::Key, name)));
        }
        for name in [
            "model.vision_tower.vision_tower.vision_model.embeddings.position_embedding.weight",
            "model.mm_projector.0.bias",
            "model.image_newline",
            "vision_tower.vision_model.encoder.layers.0.mlp.fc1.bias",
            "multi_modal_projector.linear_1.weight",
            "image_newline",
            "model.layers.0.self_attn.rotary_emb.inv_freq",
        ] {
            assert_eq!(place(name), Some(Place::LeftOut), "{name}");
        }
        for name in ["transformer.h.0.ln_1.weight", "model.layers.x.input_layernorm.weight", "w"] {
            assert_eq!(place(name), None, "{name}");
        }
    }

    #[test]
    fn should_make_neighbours_of_what_is_rotated_together() {
        let rows: Vec<usize> = (0..8).map(|row| other_row(row, 8)).collect();
        assert_eq!(rows, [0, 4, 1, 5, 2, 6, 3, 7]);
    }
}
