//! How well each token of a sequence is predicted from its class and the tokens before it.

use burn::tensor::{Int, Tensor};
use tokens::TokenLayout;

use crate::reference::{
    loss::{token_hits, token_log_likelihoods},
    model::Generator,
};

/// Loss and accuracy of a generator, position by position, over sequences that it did not draw.
/// Training reports their means (paper, Fig. 6 and Table 3).
#[derive(Debug, Clone)]
pub struct Predictability {
    layout: TokenLayout,
    sequences: u64,
    /// Sums over sequences, `[length]` each.
    losses: Vec<f64>,
    hits: Vec<f64>,
}

impl Predictability {
    /// Of no sequences.
    pub fn new(layout: TokenLayout) -> Self {
        let zeros = vec![0.0; layout.len()];
        Self { layout, sequences: 0, losses: zeros.clone(), hits: zeros }
    }

    /// Takes in sequences.
    ///
    /// # Shapes
    /// `class_ids [batch]` (see [`tokens::Vocabulary`]), `tokens [batch, length]`.
    ///
    /// # Panics
    /// If the model's sequences are of another layout.
    pub fn add(&mut self, model: &Generator, class_ids: Tensor<1, Int>, tokens: Tensor<2, Int>) {
        assert_eq!(self.layout, model.config().layout, "layout of the generator");
        let [batch, length] = tokens.dims();
        // The last token predicts nothing.
        let known = tokens.clone().slice([0..batch, 0..length - 1]);
        let logits = model.forward(class_ids, known, None);
        let likelihoods = token_log_likelihoods(logits.clone(), tokens.clone());
        let add = |sums: &mut [f64], values: Tensor<2>, sign: f64| {
            for sequence in operations::parameters::host_tensor(values).values.chunks_exact(length)
            {
                for (sum, &value) in sums.iter_mut().zip(sequence) {
                    *sum += sign * f64::from(value);
                }
            }
        };
        add(&mut self.losses, likelihoods, -1.0);
        add(&mut self.hits, token_hits(logits, tokens), 1.0);
        self.sequences += batch as u64;
    }

    /// How the tokens lie.
    pub fn layout(&self) -> TokenLayout {
        self.layout
    }

    /// Number of sequences taken in.
    pub fn sequences(&self) -> u64 {
        self.sequences
    }

    /// Mean cross-entropy at each position, in nats. Not numbers before the first sequence.
    pub fn losses(&self) -> Vec<f64> {
        self.losses.iter().map(|sum| sum / self.sequences as f64).collect()
    }

    /// Fraction of sequences whose likeliest token at a position is the right one, for each.
    /// Not numbers before the first sequence.
    pub fn accuracies(&self) -> Vec<f64> {
        self.hits.iter().map(|sum| sum / self.sequences as f64).collect()
    }
}
