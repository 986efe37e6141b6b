//! Pictures in rows with words around them, pixel by pixel.

use plotters::prelude::BitMapBackend;

use crate::{
    ChartError, Picture, SAMPLES, average,
    canvas::{Align, CAPITAL, Canvas, TEXT},
    color::INK,
    encode,
};

/// Pictures in rows on white with words around them. Unlike in a [`Figure`](crate::Figure), each pixel
/// of a picture is exactly one pixel, or a square of them, of the sheet.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sheet {
    /// Above all. May be empty.
    pub title: String,
    /// What each row is, on its left; or none.
    pub row_names: Vec<String>,
    /// What each column is, above it; or none.
    pub column_names: Vec<String>,
    /// Row by row. Their titles stand below them.
    pub pictures: Vec<Picture>,
    /// Pictures a row.
    pub columns: usize,
    /// How many pixels a pixel is wide and high: 0 counts as 1.
    pub scale: usize,
}

/// The most pixels of a sheet.
const MOST_PIXELS: usize = 1 << 29;
/// Height of a line of text, in sizes of the text.
const LINE: f64 = 1.25;
/// The most lines of a caption.
const MOST_LINES: usize = 3;
/// How wide the names of rows may be, in sizes of the text.
const ROW_NAME: f64 = 8.0;

/// Pixels of three values each.
struct Pixels {
    width: usize,
    height: usize,
    rgb: Vec<u8>,
}

impl Pixels {
    fn white(width: usize, height: usize) -> Self {
        Self { width, height, rgb: vec![255; 3 * width * height] }
    }

    /// Puts a part at a place; what reaches over is cut off.
    fn put(&mut self, part: &Self, left: usize, top: usize) {
        let width = part.width.min(self.width.saturating_sub(left));
        let rows = part.rgb.chunks_exact(3 * part.width.max(1));
        for (row, pixels) in rows.take(self.height.saturating_sub(top)).enumerate() {
            let start = 3 * ((top + row) * self.width + left);
            self.rgb[start..start + 3 * width].copy_from_slice(&pixels[..3 * width]);
        }
    }
}

/// Text of one size in a column of one width.
struct Text {
    size: f64,
    width: usize,
}

impl Text {
    fn line(&self) -> usize {
        (LINE * self.size).ceil() as usize
    }

    /// The lines of a text: broken at blanks, the last one shortened where there are too many.
    fn lines(&self, text: &str, most: usize) -> Result<Vec<String>, ChartError> {
        let mut pixel = [0; 3];
        let canvas = Canvas::<BitMapBackend<'_>>::bitmap(&mut pixel, (1, 1), 1)?;
        let room = self.width as f64;
        let mut lines: Vec<String> = Vec::new();
        for word in text.split_whitespace() {
            match lines.last_mut() {
                Some(line) => {
                    let longer = format!("{line} {word}");
                    if lines.len() == most || canvas.text_width(&longer, self.size)? <= room {
                        lines.pop();
                        lines.push(longer);
                    } else {
                        lines.push(word.to_owned());
                    }
                }
                None => lines.push(word.to_owned()),
            }
        }
        lines.into_iter().map(|line| canvas.fitted(&line, self.size, room)).collect()
    }

    /// Lines below each other.
    fn draw(&self, lines: &[String], align: Align) -> Result<Pixels, ChartError> {
        let (width, height) = (self.width.max(1), (lines.len() * self.line()).max(1));
        let samples = SAMPLES as usize;
        let mut large = vec![255; 3 * width * samples * height * samples];
        let size = ((width * samples) as u32, (height * samples) as u32);
        let canvas = Canvas::<BitMapBackend<'_>>::bitmap(&mut large, size, SAMPLES)?;
        let x = match align {
            Align::Start => 0.0,
            Align::Middle => width as f64 / 2.0,
            Align::End => width as f64,
        };
        for (number, line) in lines.iter().enumerate() {
            let middle = (number as f64 + 0.5) * self.line() as f64;
            let baseline = middle + self.size * CAPITAL / 2.0;
            canvas.text(line, (x, baseline), self.size, align, INK)?;
        }
        canvas.finish()?;
        drop(canvas);
        Ok(Pixels { width, height, rgb: average(&large, width, height) })
    }
}

impl Sheet {
    /// Whether pictures of one size would make a sheet that is not too large, before they are made.
    /// Words are not counted.
    ///
    /// # Errors
    /// If it would be too large.
    pub fn check_size(
        count: usize,
        columns: usize,
        (width, height): (usize, usize),
        scale: usize,
    ) -> Result<(), ChartError> {
        let columns = columns.clamp(1, count.max(1));
        let width = width.saturating_mul(scale.max(1)).saturating_mul(columns);
        let height = height.saturating_mul(scale.max(1)).saturating_mul(count.div_ceil(columns));
        match width.saturating_mul(height) {
            0..=MOST_PIXELS => Ok(()),
            _ => Err(ChartError::Sheet(width as u64, height as u64)),
        }
    }

    /// Width, height, and red, green and blue of each pixel, row by row.
    ///
    /// # Errors
    /// If there are no pictures, one has no pixels, or the sheet would be too large.
    pub fn to_rgb(&self) -> Result<(usize, usize, Vec<u8>), ChartError> {
        let columns = self.columns.min(self.pictures.len());
        if columns == 0 {
            return Err(ChartError::NoPanel);
        }
        for Picture { title, width, height, rgb, .. } in &self.pictures {
            if rgb.is_empty() || rgb.len() != 3 * width * height {
                return Err(ChartError::Pixels { title: title.clone() });
            }
        }
        let scale = self.scale.max(1);
        let largest = |side: fn(&Picture) -> usize| self.pictures.iter().map(side).max();
        let widest = largest(|picture| picture.width).unwrap_or(0);
        let highest = largest(|picture| picture.height).unwrap_or(0);
        Self::check_size(self.pictures.len(), columns, (widest, highest), scale)?;
        let (cell_width, cell_height) = (widest * scale, highest * scale);
        let rows = self.pictures.len().div_ceil(columns);
        let size = (cell_width as f64 / 14.0).clamp(TEXT, 2.0 * TEXT);
        let caption = Text { size, width: cell_width };
        // As wide as a grid without words has it, but no word may touch its neighbour.
        let words = !self.column_names.is_empty()
            || self.pictures.iter().any(|picture| !picture.title.is_empty());
        let gap = (cell_width / 32).max(if words { 4 } else { 0 });

        let lines_of =
            |texts: &mut dyn Iterator<Item = &String>| -> Result<Vec<Vec<String>>, ChartError> {
                texts.map(|text| caption.lines(text, MOST_LINES)).collect()
            };
        let most = |lines: &[Vec<String>]| lines.iter().map(Vec::len).max().unwrap_or(0);
        let above = lines_of(&mut self.column_names.iter().take(columns))?;
        let below = lines_of(&mut self.pictures.iter().map(|picture| &picture.title))?;
        let above_height = most(&above) * caption.line();
        let below_heights: Vec<usize> =
            below.chunks(columns).map(|lines| most(lines) * caption.line()).collect();

        let row_name = Text { size, width: (ROW_NAME * size) as usize };
        let row_lines = (cell_height / row_name.line()).max(1);
        let row_names = self.row_names.iter().take(rows);
        let row_names: Vec<Vec<String>> =
            row_names.map(|name| row_name.lines(name, row_lines)).collect::<Result<_, _>>()?;
        let left = if most(&row_names) > 0 { row_name.width + gap.max(6) } else { 0 };

        let width = left + columns * (cell_width + gap) + gap;
        let title = Text { size: 1.15 * size, width: width - 2 * gap.min(width / 4) };
        let title_lines = title.lines(&self.title, MOST_LINES)?;
        let title_height = title_lines.len() * title.line();
        let top = title_height + above_height;
        let height = top + gap + rows * (cell_height + gap) + below_heights.iter().sum::<usize>();
        let mut sheet = Pixels::white(width, height);
        sheet.put(&title.draw(&title_lines, Align::Middle)?, (width - title.width) / 2, gap / 2);
        let column_left = |column: usize| left + gap + column * (cell_width + gap);
        for (column, lines) in above.iter().enumerate() {
            // At the bottom, next to the pictures.
            let lower = title_height + gap / 2 + above_height - lines.len() * caption.line();
            sheet.put(&caption.draw(lines, Align::Middle)?, column_left(column), lower);
        }
        let mut row_top = top + gap;
        for (row, pictures) in self.pictures.chunks(columns).enumerate() {
            if let Some(lines) = row_names.get(row) {
                let part = row_name.draw(lines, Align::End)?;
                let middle = row_top + cell_height.saturating_sub(part.height) / 2;
                sheet.put(&part, gap.min(left), middle);
            }
            for (column, picture) in pictures.iter().enumerate() {
                sheet.put(&enlarged(picture, scale), column_left(column), row_top);
                let lines = &below[row * columns + column];
                if !lines.is_empty() {
                    let part = caption.draw(lines, Align::Middle)?;
                    sheet.put(&part, column_left(column), row_top + cell_height);
                }
            }
            row_top += cell_height + below_heights[row] + gap;
        }
        Ok((sheet.width, sheet.height, sheet.rgb))
    }

    /// The sheet as PNG.
    ///
    /// # Errors
    /// As [`to_rgb`](Self::to_rgb).
    pub fn to_png(&self) -> Result<Vec<u8>, ChartError> {
        let (width, height, rgb) = self.to_rgb()?;
        encode(width as u32, height as u32, &rgb)
    }
}

/// A picture whose pixels are squares.
fn enlarged(picture: &Picture, scale: usize) -> Pixels {
    let mut rgb = Vec::with_capacity(picture.rgb.len() * scale * scale);
    for row in picture.rgb.chunks_exact(3 * picture.width) {
        let start = rgb.len();
        for pixel in row.chunks_exact(3) {
            for _ in 0..scale {
                rgb.extend_from_slice(pixel);
            }
        }
        let end = rgb.len();
        for _ in 1..scale {
            rgb.extend_from_within(start..end);
        }
    }
    Pixels { width: picture.width * scale, height: picture.height * scale, rgb }
}
