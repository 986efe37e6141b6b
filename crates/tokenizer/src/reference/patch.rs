//! Pictures as rows of patches. Within a patch, values run by row, column and channel.

use burn::tensor::Tensor;

/// Cuts pictures into square patches in raster order.
///
/// # Shapes
/// `[batch, channels, rows·patch, columns·patch]` →
/// `[batch, rows·columns, patch·patch·channels]`.
///
/// # Panics
/// If the picture does not divide into patches.
pub fn patchify(images: Tensor<4>, patch: usize) -> Tensor<3> {
    let [batch, channels, height, width] = images.dims();
    assert!(
        height % patch == 0 && width % patch == 0,
        "a picture of {height} × {width} pixels does not divide into patches of {patch}"
    );
    let (rows, columns) = (height / patch, width / patch);
    images
        .reshape([batch, channels, rows, patch, columns, patch])
        .permute([0, 2, 4, 3, 5, 1])
        .reshape([batch, rows * columns, patch * patch * channels])
}

/// Puts patches together again, the inverse of [`patchify`].
///
/// # Shapes
/// `[batch, rows·columns, patch·patch·channels]` →
/// `[batch, channels, rows·patch, columns·patch]`.
///
/// # Panics
/// If the number of patches is not a multiple of `columns`, or a patch has another size.
pub fn unpatchify(patches: Tensor<3>, patch: usize, columns: usize) -> Tensor<4> {
    let [batch, count, values] = patches.dims();
    let (rows, channels) = (count / columns, values / (patch * patch));
    assert_eq!((rows * columns, channels * patch * patch), (count, values), "patches do not fit");
    patches
        .reshape([batch, rows, columns, patch, patch, channels])
        .permute([0, 5, 1, 3, 2, 4])
        .reshape([batch, channels, rows * patch, columns * patch])
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Int};

    use super::*;

    fn numbered<const D: usize>(shape: [usize; D]) -> Tensor<D> {
        let count = shape.iter().product::<usize>() as i64;
        Tensor::<1, Int>::arange(0..count, &Device::flex()).float().reshape(shape)
    }

    #[test]
    fn should_return_the_picture_it_cut() {
        for (shape, patch) in
            [([2, 3, 8, 8], 4), ([1, 3, 6, 15], 3), ([3, 1, 5, 5], 5), ([1, 3, 4, 7], 1)]
        {
            let images = numbered(shape);
            let patches = patchify(images.clone(), patch);
            let columns = shape[3] / patch;
            assert_eq!(patches.dims()[1], (shape[2] / patch) * columns);
            let back = unpatchify(patches, patch, columns);
            assert_eq!(back.to_data(), images.to_data());
        }
    }

    #[test]
    fn should_order_patches_by_row_and_values_by_row_column_channel() {
        // One picture of 2 × 4 pixels in two channels; the value tells channel, row and column.
        let patches = patchify(numbered([1, 2, 2, 4]), 2);
        let values = patches.into_data().try_into_vec::<f32>().unwrap();
        assert_eq!(values[..8], [0.0, 8.0, 1.0, 9.0, 4.0, 12.0, 5.0, 13.0]);
        assert_eq!(values[8..], [2.0, 10.0, 3.0, 11.0, 6.0, 14.0, 7.0, 15.0]);
    }
}
