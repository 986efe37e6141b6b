//! Scaled dot-product attention.

use burn::{
    backend::ops::AttentionModuleOptions,
    tensor::{Tensor, module},
};

use crate::fused::{is_fusible, scaled_softmax};

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
    let [_, _, queries, head] = query.dims();
    // Burn's own operation is the faster one for a single query on a cache, and only there; it
    // has no gradient. The only query sees all keys.
    if queries == 1 && is_fusible(&query) && !query.device().is_autodiff() {
        let options = AttentionModuleOptions::default();
        return module::attention(query, key, value, None, None, options);
    }
    let scores = query.matmul(key.swap_dims(2, 3));
    let causal = visibility == Visibility::Causal;
    scaled_softmax(scores, (head as f64).powf(-0.5), causal).matmul(value)
}
