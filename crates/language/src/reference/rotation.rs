//! Rotary positions as tensors.

use burn::tensor::{Device, Tensor, TensorData};

use crate::Rotary;

/// What [`Rotary`] holds of the positions of some sequences, on a device.
#[derive(Debug, Clone)]
pub(crate) struct Rotation {
    /// `[sequences or 1, positions, 1, head]`.
    cosines: Tensor<4>,
    sines: Tensor<4>,
    exchange: Tensor<4>,
}

impl Rotation {
    /// The rotations of the first `positions` positions of sequences that begin with so many ids of
    /// a prompt. A sequence's last positions may be padding.
    pub(crate) fn new(
        rotary: &Rotary,
        conditions: &[usize],
        positions: usize,
        head: usize,
        device: &Device,
    ) -> Self {
        let size = positions * head;
        // Most often all prompts are placed alike, and one table is that of all.
        let rows = if rotary.depends_on_condition() { conditions } else { &conditions[..1] };
        let mut cosines = vec![0.0; rows.len() * size];
        let mut sines = cosines.clone();
        for (row, &condition) in rows.iter().enumerate() {
            for position in 0..positions {
                let place = row * size + position * head..row * size + (position + 1) * head;
                let (cosines, sines) = (&mut cosines[place.clone()], &mut sines[place]);
                rotary.write(condition, position, cosines, sines);
            }
        }
        let table = |values: Vec<f32>| {
            Tensor::from_data(TensorData::new(values, [rows.len(), positions, 1, head]), device)
        };
        let mut exchange = vec![0.0f32; head * head];
        for number in 0..head {
            exchange[(number ^ 1) * head + number] = 1.0;
        }
        Self {
            cosines: table(cosines),
            sines: table(sines),
            exchange: Tensor::from_data(TensorData::new(exchange, [1, 1, head, head]), device),
        }
    }

    /// Rotates queries or keys.
    ///
    /// # Shapes
    /// `[batch, positions, heads, head]`, kept.
    pub(crate) fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        // A product with a permutation exchanges the numbers of each pair exactly, and is the one way
        // to do so that is fast on every device, forward and backward.
        let exchanged = x.clone().matmul(self.exchange.clone());
        x * self.cosines.clone() + exchanged * self.sines.clone()
    }
}
