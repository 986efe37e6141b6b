//! Fused operations against Burn's own, at the shapes of the bundled model (batch 32; encoder:
//! 136 tokens, width 192, 3 heads of 64, hidden width 768; causal decoder: 73 tokens).
//!
//! Only ratios inside of one run count: `cargo bench -p alitok-layers`.

use burn::tensor::{Device, Distribution, Tensor};
use divan::Bencher;
use operations::fused::{self, Geometry, composed};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    divan::main();
}

fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), &Device::flex())
}

/// A parameter on the device of `x`.
fn parameter<const D: usize>(x: &Tensor<D>) -> Tensor<1> {
    let ones = Tensor::ones([x.dims()[D - 1]], &x.device());
    if x.device().is_autodiff() { ones.require_grad() } else { ones }
}

/// Forward on the plain device, on a fresh input that may be overwritten.
fn forward<const D: usize>(
    bencher: Bencher<'_, '_>,
    shape: [usize; D],
    f: impl Fn(Tensor<D>) -> Tensor<D> + Sync,
) {
    let x = random(shape);
    bencher.with_inputs(|| x.clone() * 1.0).bench_local_values(&f);
}

/// Forward and backward, from a gradient like the one a following operation leaves.
fn training<const D: usize>(
    bencher: Bencher<'_, '_>,
    shape: [usize; D],
    f: impl Fn(Tensor<D>) -> Tensor<D> + Sync,
) {
    let x = random(shape);
    bencher
        .with_inputs(|| Tensor::from_inner(x.clone()).require_grad())
        .bench_local_values(|x| f(x).backward());
}

macro_rules! compare {
    ($name:ident, $shape:expr, $fused:expr, $composed:expr) => {
        mod $name {
            use super::*;

            #[divan::bench]
            fn forward_fused(bencher: Bencher<'_, '_>) {
                forward(bencher, $shape, $fused);
            }

            #[divan::bench]
            fn forward_composed(bencher: Bencher<'_, '_>) {
                forward(bencher, $shape, $composed);
            }

            #[divan::bench]
            fn training_fused(bencher: Bencher<'_, '_>) {
                training(bencher, $shape, $fused);
            }

            #[divan::bench]
            fn training_composed(bencher: Bencher<'_, '_>) {
                training(bencher, $shape, $composed);
            }
        }
    };
}

/// A weight or bias for the device of `x`, tracked where that is.
fn weight<const D: usize, const W: usize>(x: &Tensor<D>, shape: [usize; W]) -> Tensor<W> {
    let weight = Tensor::ones(shape, &x.device()) * 0.05;
    if x.device().is_autodiff() { weight.require_grad() } else { weight }
}

/// A frozen weight on the device of `x`.
fn constant<const D: usize, const W: usize>(x: &Tensor<D>, shape: [usize; W]) -> Tensor<W> {
    Tensor::ones(shape, &x.device()) * 0.05
}

compare!(
    linear,
    [32, 136, 192],
    |x| fused::linear(x.clone(), weight(&x, [192, 768]), Some(weight(&x, [768]))),
    |x| composed::linear(x.clone(), weight(&x, [192, 768]), Some(weight(&x, [768])))
);
compare!(self_attention, [32, 136, 576], |x| fused::self_attention(x, 3, false, None), |x| {
    composed::self_attention(x, 3, false, None)
});
compare!(
    self_attention_causal,
    [4, 529, 2304],
    |x| fused::self_attention(x, 12, true, None),
    |x| { composed::self_attention(x, 12, true, None) }
);
compare!(gelu, [32, 136, 768], fused::gelu, composed::gelu);
compare!(
    softmax_bidirectional,
    [32, 3, 136, 136],
    |x| fused::scaled_softmax(x, 0.125, false),
    |x| composed::scaled_softmax(x, 0.125, false)
);
compare!(softmax_causal, [32, 3, 73, 73], |x| fused::scaled_softmax(x, 0.125, true), |x| {
    composed::scaled_softmax(x, 0.125, true)
});
compare!(silu_gate, [32, 73, 512], |x| fused::silu_gate(x.clone(), x), |x| composed::silu_gate(
    x.clone(),
    x
));
compare!(
    layer_norm,
    [32, 136, 192],
    |x| fused::layer_norm(x.clone(), parameter(&x), parameter(&x), 1e-5),
    |x| composed::layer_norm(x.clone(), parameter(&x), parameter(&x), 1e-5)
);
// What EfficientNet-Lite0 does at 64 pixels (batch 16): a filter a channel, and a product over the
// channels, which Burn would compute as a convolution.
compare!(
    depthwise_convolution,
    [16, 32, 32, 144],
    |x| fused::depthwise_convolution(
        x.clone(),
        constant(&x, [5, 5, 144]),
        constant(&x, [144]),
        Geometry::same(5)
    ),
    |x| composed::depthwise_convolution(
        x.clone(),
        constant(&x, [5, 5, 144]),
        constant(&x, [144]),
        Geometry::same(5)
    )
);
compare!(
    pointwise_convolution,
    [16, 16, 16, 144],
    |x| fused::linear(x.clone(), constant(&x, [144, 40]), None),
    |x| composed::matrix_convolution(x.clone(), constant(&x, [144, 40]), Geometry::same(1))
);
compare!(
    dense_convolution,
    [4, 64, 64, 64],
    |x| fused::matrix_convolution(x.clone(), constant(&x, [9 * 64, 64]), Geometry::same(3)),
    |x| composed::matrix_convolution(x.clone(), constant(&x, [9 * 64, 64]), Geometry::same(3))
);
compare!(rms_norm, [32, 73, 192], |x| fused::rms_norm(x.clone(), parameter(&x), 1e-5), |x| {
    composed::rms_norm(x.clone(), parameter(&x), 1e-5)
});

/// Attention on the plain device: three ways.
mod attention {
    use super::*;
    use burn::{backend::ops::AttentionModuleOptions, tensor::module};

    const SHAPES: [(&str, [usize; 4], usize, bool); 4] = [
        ("encoder", [32, 3, 136, 64], 136, false),
        ("causal decoder", [32, 3, 73, 64], 73, true),
        ("cached query", [2, 4, 1, 64], 73, true),
        ("64 cached queries", [64, 4, 1, 64], 73, true),
    ];

    fn attend(
        bencher: Bencher<'_, '_>,
        shape: &str,
        f: impl Fn(Tensor<4>, Tensor<4>, Tensor<4>, bool) -> Tensor<4>,
    ) {
        let &(_, query, keys, causal) =
            SHAPES.iter().find(|candidate| candidate.0 == shape).expect("a name of the list");
        let [batch, heads, _, head] = query;
        let q = random(query);
        let (k, v) = (random([batch, heads, keys, head]), random([batch, heads, keys, head]));
        bencher.bench_local(|| f(q.clone(), k.clone(), v.clone(), causal));
    }

    #[divan::bench(args = SHAPES.map(|shape| shape.0))]
    fn burn(bencher: Bencher<'_, '_>, shape: &str) {
        attend(bencher, shape, |q, k, v, is_causal| {
            let options = AttentionModuleOptions { is_causal, ..Default::default() };
            module::attention(q, k, v, None, None, options)
        });
    }

    #[divan::bench(args = SHAPES.map(|shape| shape.0))]
    fn with_fused_softmax(bencher: Bencher<'_, '_>, shape: &str) {
        attend(bencher, shape, |q, k, v, causal| {
            fused::scaled_softmax(q.matmul(k.swap_dims(2, 3)), 0.125, causal).matmul(v)
        });
    }

    #[divan::bench(args = SHAPES.map(|shape| shape.0))]
    fn with_composed_softmax(bencher: Bencher<'_, '_>, shape: &str) {
        attend(bencher, shape, |q, k, v, causal| {
            composed::scaled_softmax(q.matmul(k.swap_dims(2, 3)), 0.125, causal).matmul(v)
        });
    }
}

/// A linear layer and its gradients, for a batch of a small language model.
mod products {
    use super::*;
    use burn::tensor::FloatDType;

    #[divan::bench(args = ["f32", "bf16"])]
    fn training(bencher: Bencher<'_, '_>, precision: &str) {
        let (x, weight) = (random([32, 96, 256]), random([256, 704]));
        bencher.bench_local(|| {
            let x = Tensor::<3>::from_inner(x.clone()).require_grad();
            let weight = Tensor::<2>::from_inner(weight.clone()).require_grad();
            let weight = if precision == "bf16" { weight.cast(FloatDType::BF16) } else { weight };
            fused::linear(x, weight, None).sum().backward()
        });
    }
}

/// Forward and backward of one block of the bundled model's encoder, all weights tracked.
mod block {
    use super::*;
    use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig};

    const HEADS: usize = 3;

    struct Block {
        norms: [LayerNorm; 2],
        linears: [Linear; 4],
    }

    impl Block {
        fn new() -> Self {
            let device = Device::flex().autodiff();
            let linear = |from, to| LinearConfig::new(from, to).init(&device);
            Self {
                norms: [0, 1].map(|_| LayerNormConfig::new(192).init(&device)),
                linears: [linear(192, 576), linear(192, 192), linear(192, 768), linear(768, 192)],
            }
        }

        fn forward(&self, x: Tensor<3>, fused: bool) -> Tensor<3> {
            let norm = |norm: &LayerNorm, x: Tensor<3>| {
                let (scale, shift) =
                    (norm.gamma.val(), norm.beta.as_ref().expect("it has one").val());
                if fused {
                    fused::layer_norm(x, scale, shift, 1e-5)
                } else {
                    composed::layer_norm(x, scale, shift, 1e-5)
                }
            };
            let linear = |layer: &Linear, x: Tensor<3>| {
                if fused { operations::project(layer, x) } else { layer.forward(x) }
            };
            let packed = linear(&self.linears[0], norm(&self.norms[0], x.clone()));
            let attended = if fused {
                fused::self_attention(packed, HEADS, false, None)
            } else {
                composed::self_attention(packed, HEADS, false, None)
            };
            let x = x + linear(&self.linears[1], attended);
            let hidden = linear(&self.linears[2], norm(&self.norms[1], x.clone()));
            let hidden = if fused { fused::gelu(hidden) } else { composed::gelu(hidden) };
            x + linear(&self.linears[3], hidden)
        }
    }

    #[divan::bench(args = [false, true])]
    fn training(bencher: Bencher<'_, '_>, fused: bool) {
        let (block, x) = (Block::new(), random([32, 136, 192]));
        bencher.bench_local(|| {
            let x = Tensor::from_inner(x.clone()).require_grad();
            block.forward(x, fused).sum().backward()
        });
    }
}
