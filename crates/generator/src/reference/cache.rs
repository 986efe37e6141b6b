//! Keys and values of the positions already decoded.

use burn::tensor::{Device, Tensor};

use crate::config::GeneratorConfig;

/// What a [`Generator`](crate::reference::Generator) has seen of some sequences, one per row. The caller
/// owns it and hands it to every [`step`](crate::reference::Generator::step).
///
/// It holds room for whole sequences from the start, so that a step writes one position in place
/// and reads the others where they stand.
#[derive(Debug)]
pub struct KeyValueCache {
    pub(crate) layers: Vec<LayerCache>,
    rows: usize,
    condition: usize,
    length: usize,
    capacity: usize,
}

/// Keys and values of one layer, each `[rows, heads, capacity, head]`.
#[derive(Debug)]
pub(crate) struct LayerCache {
    // `None` only while a step holds the tensor: as its sole owner it writes without a copy.
    key: Option<Tensor<4>>,
    value: Option<Tensor<4>>,
}

impl KeyValueCache {
    /// An empty cache for `rows` sequences of a model, which begin with `condition` condition ids.
    pub(crate) fn new(
        config: &GeneratorConfig,
        rows: usize,
        condition: usize,
        device: &Device,
    ) -> Self {
        let capacity = condition + config.layout.len() - 1;
        let zeros = || Some(Tensor::zeros([rows, config.heads, capacity, config.head()], device));
        let layers =
            (0..config.layers).map(|_| LayerCache { key: zeros(), value: zeros() }).collect();
        Self { layers, rows, condition, length: 0, capacity }
    }

    /// Number of sequences.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of condition ids that the sequences begin with.
    pub fn condition(&self) -> usize {
        self.condition
    }

    /// Number of positions seen, the condition included.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether nothing was seen yet, not even the condition.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Number of positions there is room for: the condition and all tokens but the last, which
    /// predicts nothing.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Counts a position that every layer has written.
    pub(crate) fn advance(&mut self) {
        self.length += 1;
    }
}

impl LayerCache {
    /// Writes the key and value of `position`, and gives those of all positions up to it.
    ///
    /// # Shapes
    /// `key` and `value [rows, heads, 1, head]` → each `[rows, heads, position + 1, head]`.
    pub(crate) fn extend(
        &mut self,
        position: usize,
        key: Tensor<4>,
        value: Tensor<4>,
    ) -> (Tensor<4>, Tensor<4>) {
        (write(&mut self.key, position, key), write(&mut self.value, position, value))
    }
}

fn write(stored: &mut Option<Tensor<4>>, position: usize, new: Tensor<4>) -> Tensor<4> {
    let [rows, heads, _, head] = new.dims();
    let owned = stored.take().expect("the tensor was put back by the step before");
    let written = owned.slice_assign([0..rows, 0..heads, position..position + 1, 0..head], new);
    let seen = written.clone().slice([0..rows, 0..heads, 0..position + 1, 0..head]);
    *stored = Some(written);
    seen
}
