//! What training minimizes.

use burn::tensor::{Int, Tensor, TensorData};
use operations::{fused::log_softmax, tape::Tape};

use crate::reference::model::{LanguageModel, Sequence};

/// Mean cross-entropies of some sequences, in nats a token.
#[derive(Debug, Clone)]
pub struct Losses {
    /// Of the pictures' tokens, `[1]`.
    pub picture: Tensor<1>,
    /// Of the prompts' ids behind the first, `[1]`; 0 where there is none.
    pub text: Tensor<1>,
}

impl Losses {
    /// What is minimized: that of the pictures, and `text_weight` times that of the text.
    ///
    /// # Shapes
    /// → `[1]`.
    pub fn weighted(self, text_weight: f64) -> Tensor<1> {
        match text_weight {
            // Text that does not count must not bring its rounding, or a gradient of zeros.
            0.0 => self.picture,
            weight => self.picture + self.text.mul_scalar(weight),
        }
    }
}

/// The losses of prompts and the pictures that follow them. Each id and each code is predicted from
/// those before it; the first id of a sequence is not predicted.
///
/// # Panics
/// As [`LanguageModel::hidden`], or if a sequence has no prompt or no code.
pub fn losses<'a>(
    model: &'a LanguageModel,
    sequences: &[Sequence<'_>],
    tape: Option<&mut Tape<'a>>,
) -> Losses {
    let hidden = model.hidden(sequences, tape);
    let [_, positions, _] = hidden.dims();
    let device = hidden.device();
    let places = |of: &dyn Fn(&Sequence<'_>) -> Vec<(usize, usize)>| -> (Vec<usize>, Vec<i64>) {
        let rows = sequences.iter().enumerate().flat_map(|(row, sequence)| {
            let places = of(sequence);
            places.into_iter().map(move |(at, target)| (row * positions + at, target as i64))
        });
        rows.unzip()
    };
    let loss = |logits: Tensor<2>, targets: Vec<i64>| {
        let count = targets.len();
        let targets = Tensor::<2, Int>::from_data(TensorData::new(targets, [count, 1]), &device);
        log_softmax(logits).gather(1, targets).mean().neg()
    };
    let (at, targets) = places(&|sequence| {
        assert!(!sequence.prompt.is_empty() && !sequence.codes.is_empty(), "prompt and picture");
        let first = sequence.prompt.len() - 1;
        let codes = sequence.codes.iter().enumerate();
        codes.map(|(number, &code)| (first + number, usize::from(code))).collect()
    });
    let picture = loss(model.code_logits(hidden.clone(), &at), targets);
    let (at, targets) = places(&|sequence| {
        sequence.prompt.iter().skip(1).enumerate().map(|(at, &id)| (at, id)).collect()
    });
    let text = match at.is_empty() {
        true => Tensor::zeros([1], &device),
        false => loss(model.text_logits_at(hidden, &at), targets),
    };
    Losses { picture, text }
}
