//! The engine against its reference, the models on Burn, with the bundled weights.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use std::sync::{Arc, LazyLock};

use burn::tensor::{Device, Int, Tensor};
use engine::{Pool, Precision, generator::Step};
use generator::{Request, SamplingConfig};
use layers::parameters::HostTensor;
use tokenizer::DecoderKind;
use tokens::CodebookIndex;
use weights::ModelFolder;

static MODEL: LazyLock<ModelFolder> =
    LazyLock::new(|| ModelFolder::read(pixels::bundled_path("models/mini").unwrap()).unwrap());

fn pool() -> Arc<Pool> {
    static POOL: LazyLock<Arc<Pool>> = LazyLock::new(|| Arc::new(Pool::new(2)));
    Arc::clone(&POOL)
}

fn generator(precision: Precision) -> engine::Generator {
    let path = MODEL.generator_path();
    engine::Generator::open(path, MODEL.generator_config().unwrap(), precision, pool()).unwrap()
}

fn requests(count: u64) -> Vec<Request> {
    let request = |index| Request { class: index as usize % 9, seed: 3, index, forced: Vec::new() };
    (0..count).map(request).collect()
}

/// Logits of teacher-forced sequences, `[sequence][position][code]`.
fn logits(model: &engine::Generator, sequences: &[Vec<usize>]) -> Vec<Vec<Vec<f32>>> {
    let mut session = model.session(sequences.len());
    let mut logits = vec![Vec::new(); sequences.len()];
    for position in 0..sequences[0].len() {
        let steps: Vec<Step<'_>> = sequences
            .iter()
            .enumerate()
            .map(|(slot, ids)| Step {
                slot,
                start: position,
                ids: &ids[position..=position],
                logits: 1,
            })
            .collect();
        model.step(&mut session, &steps);
        for (index, logits) in logits.iter_mut().enumerate() {
            let mut row = vec![0.0; model.config().codes];
            session.logits(index, &mut row);
            logits.push(row);
        }
    }
    logits
}

#[test]
fn should_give_the_references_logits_in_f32() {
    let reference = MODEL.generator(&Device::flex()).unwrap();
    let config = reference.config();
    let drawn =
        generator::generate(&reference, &requests(3), &SamplingConfig::default(), |_| ()).unwrap();
    let sequences: Vec<Vec<usize>> = drawn
        .iter()
        .zip([0, 4, 9])
        .map(|(tokens, class)| {
            let class = config.vocabulary().codes() + 1 + class;
            let tokens = tokens[..tokens.len() - 1].iter().map(|&token| token.into());
            std::iter::once(class).chain(tokens).collect()
        })
        .collect();
    let got = logits(&generator(Precision::F32), &sequences);
    for (ids, got) in sequences.iter().zip(got) {
        let ids: Vec<i64> = ids.iter().map(|&id| id as i64).collect();
        let (class, tokens) = (&ids[..1], &ids[1..]);
        let device = Device::flex();
        let tokens = Tensor::<1, Int>::from_data(tokens, &device).unsqueeze();
        let expected = reference.forward(Tensor::from_data(class, &device), tokens, None);
        let expected = HostTensor::from_tensor(expected).values;
        let got = got.concat();
        assert_eq!(got.len(), expected.len());
        let worst = got.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-4, "{worst}");
    }
}

#[test]
fn should_draw_the_references_tokens_from_the_same_seed() {
    let reference = MODEL.generator(&Device::flex()).unwrap();
    let engine = generator(Precision::F32);
    let mut requests = requests(3);
    // A completion, whose first tokens come in one step.
    requests[1].forced = vec![5; 41];
    for sampling in [
        SamplingConfig { guidance: 1.0, ..MODEL.config.sampling },
        SamplingConfig {
            guidance: 4.0,
            guidance_power: 2.5,
            top_k: 100,
            top_p: 0.9,
            temperature: 1.1,
        },
    ] {
        let expected = generator::generate(&reference, &requests, &sampling, |_| ()).unwrap();
        for pictures in [1, 3] {
            let got = engine::generate(&engine, &requests, &sampling, pictures, |_| ()).unwrap();
            assert_eq!(got, expected, "{pictures} at a time, {sampling:?}");
        }
    }
}

fn logarithms(logits: &[f32]) -> Vec<f64> {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let shifted: Vec<f64> = logits.iter().map(|&logit| f64::from(logit - highest)).collect();
    let total = shifted.iter().map(|logit| logit.exp()).sum::<f64>().ln();
    shifted.into_iter().map(|logit| logit - total).collect()
}

/// Mean over positions of Σ p (ln p − ln q).
fn divergence(exact: &[Vec<Vec<f32>>], rounded: &[Vec<Vec<f32>>]) -> f64 {
    let (mut sum, mut count) = (0.0, 0);
    for (exact, rounded) in exact.iter().flatten().zip(rounded.iter().flatten()) {
        let (p, q) = (logarithms(exact), logarithms(rounded));
        sum += p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>();
        count += 1;
    }
    sum / f64::from(count)
}

fn encoder() -> engine::Encoder {
    let config = &MODEL.config.tokenizer;
    engine::Encoder::open(MODEL.tokenizer_path(), config, Precision::F32, pool()).unwrap()
}

/// Classes and tokens of some held-out pictures.
fn held_out(count: usize) -> Vec<(usize, Vec<CodebookIndex>)> {
    let data = pixels::data::open("bundled:heldout").unwrap();
    let encoder = encoder();
    let mut work = encoder.workspace();
    (0..count)
        .map(|index| {
            let index = index * data.len() / count;
            let planes = data.picture(index).unwrap().to_unit_planes();
            (data.label(index), encoder.encode(&planes, &mut work))
        })
        .collect()
}

/// −ln p of the tokens that follow, on average.
fn loss(logits: &[Vec<Vec<f32>>], pictures: &[(usize, Vec<CodebookIndex>)]) -> f64 {
    let (mut sum, mut count) = (0.0, 0);
    for (logits, (_, tokens)) in logits.iter().zip(pictures) {
        for (logits, &token) in logits.iter().zip(tokens) {
            sum -= logarithms(logits)[usize::from(token)];
            count += 1;
        }
    }
    sum / f64::from(count)
}

#[test]
fn should_predict_held_out_tokens_as_well_in_less_precision() {
    let exact = generator(Precision::F32);
    let pictures = held_out(48);
    let sequences: Vec<Vec<usize>> = pictures
        .iter()
        .map(|(class, tokens)| {
            let class = exact.config().vocabulary().class(*class).unwrap();
            let tokens = tokens[..tokens.len() - 1].iter().map(|&token| token.into());
            std::iter::once(class).chain(tokens).collect()
        })
        .collect();
    let expected = logits(&exact, &sequences);
    for (precision, limit) in [(Precision::Bf16, 1e-3), (Precision::Int8, 1e-2)] {
        let got = logits(&generator(precision), &sequences);
        let divergence = divergence(&expected, &got);
        let change = loss(&got, &pictures) / loss(&expected, &pictures) - 1.0;
        println!("{precision:?}: divergence {divergence:.2e}, loss {:+.3} %", 100.0 * change);
        assert!(divergence > 0.0 && divergence < limit, "{precision:?}: {divergence}");
        assert!(change.abs() < 0.005, "{precision:?}: {change}");
    }
}

#[test]
fn should_encode_and_decode_as_the_reference_and_nearly_so_in_less_precision() {
    let reference = MODEL.tokenizer(&Device::flex()).unwrap();
    let config = &MODEL.config.tokenizer;
    let frozen = reference.frozen_encoder();
    let data = pixels::data::open("bundled:heldout").unwrap();
    let open = |kind, precision| {
        engine::Decoder::open(MODEL.tokenizer_path(), config, kind, precision, pool()).unwrap()
    };
    for (index, (_, tokens)) in held_out(6).into_iter().enumerate() {
        let planes = data.picture(index * data.len() / 6).unwrap().to_unit_planes();
        assert_eq!(frozen.encode_picture(planes), tokens);
        for kind in [DecoderKind::Causal, DecoderKind::Bidirectional] {
            let expected = reference.decode_picture(&tokens, kind).unwrap();
            for (precision, least) in
                [(Precision::F32, 90.0), (Precision::Bf16, 45.0), (Precision::Int8, 35.0)]
            {
                let decoder = open(kind, precision);
                let got = decoder.decode(&tokens, &mut decoder.workspace());
                let squares = got.iter().zip(&expected).map(|(a, b)| f64::from(a - b).powi(2));
                let psnr = -10.0 * (squares.sum::<f64>() / got.len() as f64).log10();
                println!("{kind} {precision:?} {psnr:.1} dB");
                assert!(psnr >= least, "{kind} {precision:?}: {psnr}");
            }
        }
    }
}
