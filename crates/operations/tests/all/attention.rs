//! Attention: what is seen, gradients or not, one query or many.

use std::cell::Cell;

use burn::tensor::{Device, Tensor, TensorData};
use operations::{
    attention::{Visibility, attention, self_attention_weights},
    fused::self_attention,
};
use tokens::noise::{Noise, Purpose};

thread_local! {
    /// Each test runs on its own thread, so each draws the same numbers every time.
    static DRAWS: Cell<u64> = const { Cell::new(0) };
}

fn random(shape: [usize; 4]) -> Tensor<4> {
    let draw = DRAWS.replace(DRAWS.get() + 1);
    let mut noise = Noise::new(0, Purpose::Initialization, 0, draw);
    let values = (0..shape.iter().product()).map(|_| noise.normal() as f32).collect();
    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
}

fn numbers(tensor: Tensor<4>) -> Vec<f32> {
    tensor.into_data().try_into_vec().unwrap()
}

fn assert_close(a: Tensor<4>, b: Tensor<4>) {
    assert_eq!(a.dims(), b.dims());
    let largest = (a - b).abs().max().into_scalar::<f32>();
    assert!(largest <= 2e-6, "difference {largest:e}");
}

/// By the definition, with an explicit mask.
fn reference(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, visibility: Visibility) -> Tensor<4> {
    let scale = (q.dims()[3] as f64).powf(-0.5);
    let scores = q.matmul(k.swap_dims(2, 3));
    let causal = visibility == Visibility::Causal;
    operations::fused::composed::scaled_softmax(scores, scale, causal).matmul(v)
}

#[test]
fn should_equal_its_definition_with_and_without_gradients() {
    for visibility in [Visibility::Bidirectional, Visibility::Causal] {
        for (queries, keys) in [(1, 1), (1, 73), (5, 73), (73, 73)] {
            let q = random([2, 3, queries, 64]);
            let (k, v) = (random([2, 3, keys, 64]), random([2, 3, keys, 64]));
            let expected = reference(q.clone(), k.clone(), v.clone(), visibility);
            assert_close(attention(q.clone(), k.clone(), v.clone(), visibility), expected.clone());
            let [q, k, v] = [q, k, v].map(|x| Tensor::from_inner(x).require_grad());
            assert_close(attention(q, k, v, visibility).inner(), expected);
        }
    }
}

#[test]
fn should_not_let_later_keys_change_earlier_queries() {
    let (q, k, v) = (random([1, 2, 9, 16]), random([1, 2, 9, 16]), random([1, 2, 9, 16]));
    let before = attention(q.clone(), k.clone(), v.clone(), Visibility::Causal);
    let changed =
        |x: Tensor<4>| Tensor::cat(vec![x.clone().narrow(2, 0, 6), x.narrow(2, 6, 3) + 1.0], 2);
    let after = attention(q, changed(k), changed(v), Visibility::Causal);
    assert_eq!(numbers(before.clone().narrow(2, 0, 6)), numbers(after.clone().narrow(2, 0, 6)));
    assert_ne!(numbers(before.narrow(2, 6, 1)), numbers(after.narrow(2, 6, 1)));
}

#[test]
fn should_give_a_sample_the_same_bits_in_any_batch() {
    for (queries, keys) in [(1, 73), (2, 73), (73, 73), (136, 136)] {
        let q = random([8, 3, queries, 64]);
        let (k, v) = (random([8, 3, keys, 64]), random([8, 3, keys, 64]));
        let all = attention(q.clone(), k.clone(), v.clone(), Visibility::Causal);
        for batch in [1, 2, 3, 5] {
            let [q, k, v] = [&q, &k, &v].map(|x| x.clone().narrow(0, 0, batch));
            let some = attention(q, k, v, Visibility::Causal);
            assert_eq!(numbers(some), numbers(all.clone().narrow(0, 0, batch)));
        }
    }
}

#[test]
fn should_show_the_weights_that_self_attention_mixes_by() {
    let [batch, heads, length, head] = [2, 3, 11, 8];
    let parts = [(); 3].map(|()| random([batch, heads, length, head]));
    let packed = parts.clone().map(|x| x.swap_dims(1, 2).reshape([batch, length, heads * head]));
    let packed = Tensor::cat(packed.to_vec(), 2);
    for visibility in [Visibility::Bidirectional, Visibility::Causal] {
        let causal = visibility == Visibility::Causal;
        let weights = self_attention_weights(packed.clone(), heads, visibility);
        let [_, _, values] = parts.clone();
        let mixed = weights.matmul(values).swap_dims(1, 2).reshape([batch, length, heads * head]);
        let expected = self_attention(packed.clone(), heads, causal, None);
        assert_close(mixed.unsqueeze(), expected.unsqueeze());
    }
}
