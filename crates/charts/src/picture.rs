//! A picture among charts.

use plotters::prelude::DrawingBackend;

use crate::{
    ChartError,
    canvas::{Align, CAPITAL, Canvas, Rect, TEXT},
    color::{BOX, WHITE},
};

/// A picture, as large as its panel allows, with squares drawn around parts of it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Picture {
    /// May be empty.
    pub title: String,
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// `[height, width, 3]`, row-major, red, green and blue from 0 to 255.
    pub rgb: Vec<u8>,
    /// Red frames: left, top, width and height in pixels.
    pub boxes: Vec<[usize; 4]>,
    /// Whether frames have numbers, from 1.
    pub numbered: bool,
}

const GAP: f64 = 6.0;

impl Picture {
    /// A picture without boxes.
    pub fn new(title: impl Into<String>, width: usize, height: usize, rgb: &[u8]) -> Self {
        Self { title: title.into(), width, height, rgb: rgb.to_vec(), ..Self::default() }
    }

    pub(crate) fn draw<B: DrawingBackend>(
        &self,
        canvas: &Canvas<B>,
        panel: Rect,
    ) -> Result<(), ChartError> {
        if self.rgb.is_empty() || self.rgb.len() != 3 * self.width * self.height {
            return Err(ChartError::Pixels { title: self.title.clone() });
        }
        let place = canvas.title(&self.title, panel.shrink(GAP, GAP, GAP, GAP), 4.0)?;
        let (width, height) = (self.width as f64, self.height as f64);
        let scale = (place.width / width).min(place.height / height);
        let rect = Rect {
            left: place.left + (place.width - scale * width) / 2.0,
            top: place.top + (place.height - scale * height) / 2.0,
            width: scale * width,
            height: scale * height,
        };
        canvas.picture(rect, self)?;
        for (index, &pixels) in self.boxes.iter().enumerate() {
            let [left, top, width, height] = pixels.map(|pixels| scale * pixels as f64);
            let frame = Rect { left: rect.left + left, top: rect.top + top, width, height };
            canvas.frame(frame, BOX, 2.0)?;
            if self.numbered {
                let number = (index + 1).to_string();
                // On a label in the frame's corner, which can be read on any picture.
                let width = canvas.text_width(&number, TEXT)? + 4.0;
                let label = Rect { width, height: TEXT * CAPITAL + 5.0, ..frame };
                canvas.fill(label, BOX)?;
                let at = (label.left + width / 2.0, label.bottom() - 2.5);
                canvas.text(&number, at, TEXT, Align::Middle, WHITE)?;
            }
        }
        Ok(())
    }
}
