//! How a kernel moves over a picture.

use burn::tensor::{Tensor, ops::PadMode};

/// Size of a kernel, how far it moves, and the zeros around the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
    /// Pixels from one window to the next, down and across.
    pub stride: usize,
    /// Zeros above, below, left and right.
    pub padding: [usize; 4],
}

impl Geometry {
    /// A square kernel that moves by one pixel and keeps the size of the picture; with an even
    /// side, the zero more goes below and to the right.
    pub const fn same(side: usize) -> Self {
        let (before, after) = ((side - 1) / 2, side / 2);
        Self { kernel: [side; 2], stride: 1, padding: [before, after, before, after] }
    }

    /// A square kernel with as many zeros as give ⌈extent / stride⌉ windows, as TensorFlow's
    /// "SAME" padding has them: the odd zero goes below and to the right.
    pub fn covering(side: usize, stride: usize, [height, width]: [usize; 2]) -> Self {
        let padding = |extent: usize| {
            let windows = extent.div_ceil(stride).max(1);
            let zeros = ((windows - 1) * stride + side).saturating_sub(extent);
            (zeros / 2, zeros - zeros / 2)
        };
        let ((above, below), (left, right)) = (padding(height), padding(width));
        Self { kernel: [side; 2], stride, padding: [above, below, left, right] }
    }

    /// Height and width of the result.
    ///
    /// # Panics
    /// If the kernel is larger than the picture with its zeros.
    pub fn output(&self, height: usize, width: usize) -> [usize; 2] {
        let [above, below, left, right] = self.padding;
        let extent = |padded: usize, kernel: usize| {
            assert!(padded >= kernel, "a kernel of {kernel} on {padded} pixels");
            (padded - kernel) / self.stride + 1
        };
        [
            extent(height + above + below, self.kernel[0]),
            extent(width + left + right, self.kernel[1]),
        ]
    }
}

/// A picture whose channels come last, with its zeros around it and the channels first.
pub(super) fn padded(x: Tensor<4>, geometry: Geometry) -> Tensor<4> {
    let [above, below, left, right] = geometry.padding;
    x.permute([0, 3, 1, 2]).pad([(above, below), (left, right)], PadMode::Constant(0.0))
}
