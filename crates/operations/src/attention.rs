//! Scaled dot-product attention.

use burn::{
    backend::ops::AttentionModuleOptions,
    tensor::{Tensor, module},
};

use crate::fused::{composed::split_heads, is_fusible, scaled_softmax};

/// Which keys a query may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Visibility {
    /// All of them.
    Bidirectional,
    /// Those up to its own position; with fewer queries than keys, the queries are the last ones.
    Causal,
}

/// softmax(q·kᵀ / √head) · v.
///
/// On the CPU backend a sample's result does not depend, not even in the last bit, on how many
/// others are in the batch.
///
/// # Shapes
/// `query [batch, heads, queries, head]`, `key` and `value [batch, heads, keys, head]` →
/// `[batch, heads, queries, head]`.
///
/// # Panics
/// If `visibility` is causal and there are more queries than keys.
pub fn attention(
    query: Tensor<4>,
    key: Tensor<4>,
    value: Tensor<4>,
    visibility: Visibility,
) -> Tensor<4> {
    let [_, _, queries, _] = query.dims();
    // Burn's own operation is the faster one for a single query on a cache, and only there; it
    // has no gradient. The only query sees all keys.
    if queries == 1 && is_fusible(&query) && !query.device().is_autodiff() {
        let options = AttentionModuleOptions::default();
        return module::attention(query, key, value, None, None, options);
    }
    weights(query, key, visibility).matmul(value)
}

/// softmax(q·kᵀ / √head): what each query takes of each key's value.
fn weights(query: Tensor<4>, key: Tensor<4>, visibility: Visibility) -> Tensor<4> {
    let [_, _, _, head] = query.dims();
    let scores = query.matmul(key.swap_dims(2, 3));
    scaled_softmax(scores, (head as f64).powf(-0.5), visibility == Visibility::Causal)
}

/// The weights by which [`self_attention`](crate::fused::self_attention) mixes values, which
/// itself never holds them as a whole: to look at, not to compute with.
///
/// # Shapes
/// `query_key_value [batch, length, 3·width]`, as there → `[batch, heads, queries, keys]`, both
/// `length`; each query's weights add up to 1.
///
/// # Panics
/// If the width is no multiple of `3·heads`.
pub fn self_attention_weights(
    query_key_value: Tensor<3>,
    heads: usize,
    visibility: Visibility,
) -> Tensor<4> {
    let [_, _, packed] = query_key_value.dims();
    assert!(packed.is_multiple_of(3 * heads), "{packed} numbers a token for {heads} heads");
    let [query, key, _] = split_heads(query_key_value, heads);
    weights(query, key, visibility)
}
