//! Pictures side by side, with words between them.

use charts::Sheet;
use pixels::Picture;

/// A picture of a sheet, with words below it.
pub(crate) fn tile(caption: &str, picture: &Picture) -> charts::Picture {
    charts::Picture::new(caption, picture.width(), picture.height(), picture.rgb())
}

/// The whole sheet as one picture.
///
/// # Errors
/// If it has no pictures, or would be too large.
pub(crate) fn picture(sheet: &Sheet) -> anyhow::Result<Picture> {
    let (width, height, rgb) = sheet.to_rgb()?;
    Ok(Picture::new(width, height, rgb)?)
}
