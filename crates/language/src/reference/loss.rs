//! What training minimizes, and what it reports.

use burn::tensor::{Int, Tensor, TensorData};
use generator::reference::loss::{accuracy, cross_entropy};
use operations::{fused::log_softmax, tape::Tape};

use crate::reference::model::{LanguageModel, Sequence};

/// What some sequences cost, in nats a token.
#[derive(Debug, Clone)]
pub struct Losses {
    /// Mean cross-entropy of the pictures' tokens, `[1]`.
    pub picture: Tensor<1>,
    /// Fraction of the pictures' tokens whose largest logit is theirs, `[1]`.
    pub accuracy: Tensor<1>,
    /// The weighted sum of the prompts' mean cross-entropies, `[1]`, where it was asked for.
    pub text: Option<Tensor<1>>,
}

impl Losses {
    /// What is minimized: the pictures' cross-entropy, and `text_weight` times that of the text.
    ///
    /// # Shapes
    /// → `[1]`.
    pub fn weighted(self, text_weight: f64) -> Tensor<1> {
        match self.text {
            Some(text) => self.picture + text.mul_scalar(text_weight),
            None => self.picture,
        }
    }
}

/// The losses of prompts and the whole pictures that follow them. Each id and each code is predicted
/// from those before it; the first id of a sequence is not predicted.
///
/// `text` has a weight for each sequence, which the mean cross-entropy of its ids counts with: 0 where
/// its prompt is nothing to learn from. Weights instead of a mean over all ids, because a step is cut
/// into micro-batches, whose texts have different lengths.
///
/// # Panics
/// As [`LanguageModel::hidden`], or if a sequence has no prompt of two ids, pictures have different
/// numbers of codes or none, or there are not as many weights as sequences.
pub fn losses<'a>(
    model: &'a LanguageModel,
    sequences: &[Sequence<'_>],
    text: Option<&[f64]>,
    tape: Option<&mut Tape<'a>>,
) -> Losses {
    let length = sequences.first().map_or(0, |sequence| sequence.codes.len());
    assert!(
        length > 0 && sequences.iter().all(|one| one.prompt.len() > 1 && one.codes.len() == length),
        "prompts, and whole pictures"
    );
    // The last code predicts nothing.
    let seen: Vec<Sequence<'_>> = sequences
        .iter()
        .map(|one| Sequence { prompt: one.prompt, codes: &one.codes[..length - 1] })
        .collect();
    let hidden = model.hidden(&seen, tape);
    let [count, positions, _] = hidden.dims();
    let device = hidden.device();
    let (mut places, mut targets) = (Vec::new(), Vec::new());
    for (row, Sequence { prompt, codes }) in sequences.iter().enumerate() {
        let first = row * positions + prompt.len() - 1;
        places.extend(first..first + length);
        targets.extend(codes.iter().map(|&code| i64::from(code)));
    }
    let logits = model.code_logits(hidden.clone(), &places);
    let [_, codes] = logits.dims();
    let logits = logits.reshape([count, length, codes]);
    let targets = Tensor::<2, Int>::from_data(TensorData::new(targets, [count, length]), &device);
    Losses {
        picture: cross_entropy(logits.clone(), targets.clone()),
        accuracy: accuracy(logits, targets),
        text: text.map(|weights| text_loss(model, sequences, weights, hidden)),
    }
}

/// The weighted sum of the mean cross-entropies of each prompt's ids.
///
/// # Shapes
/// `hidden [sequences, longest, width]` → `[1]`.
fn text_loss(
    model: &LanguageModel,
    sequences: &[Sequence<'_>],
    weights: &[f64],
    hidden: Tensor<3>,
) -> Tensor<1> {
    assert_eq!(weights.len(), sequences.len(), "a weight for each sequence");
    let [_, positions, _] = hidden.dims();
    let device = hidden.device();
    let (mut places, mut targets, mut shares) = (Vec::new(), Vec::new(), Vec::new());
    let counts = weights.iter().any(|&weight| weight != 0.0);
    for (row, (sequence, &weight)) in sequences.iter().zip(weights).enumerate() {
        // Where none counts, one is predicted all the same: every parameter then has a gradient on
        // every process, or they would exchange different ones.
        if weight == 0.0 && (counts || row > 0) {
            continue;
        }
        let ids = &sequence.prompt[1..];
        places.extend((0..ids.len()).map(|at| row * positions + at));
        targets.extend(ids.iter().map(|&id| id as i64));
        shares.extend(vec![(weight / ids.len() as f64) as f32; ids.len()]);
    }
    let count = targets.len();
    let targets = Tensor::<2, Int>::from_data(TensorData::new(targets, [count, 1]), &device);
    let shares = Tensor::<2>::from_data(TensorData::new(shares, [count, 1]), &device);
    let likelihoods = log_softmax(model.text_logits_at(hidden, &places)).gather(1, targets);
    (likelihoods * shares).sum().neg()
}
