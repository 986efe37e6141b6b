//! A picture among charts.

use plotters::prelude::DrawingBackend;

use crate::{
    ChartError,
    canvas::{Align, CAPITAL, Canvas, Rect, TITLE},
    color::{BOX, INK},
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
}

const GAP: f64 = 6.0;

impl Picture {
    /// A picture without boxes.
    pub fn new(title: impl Into<String>, width: usize, height: usize, rgb: &[u8]) -> Self {
        Self { title: title.into(), width, height, rgb: rgb.to_vec(), boxes: Vec::new() }
    }

    pub(crate) fn draw<B: DrawingBackend>(
        &self,
        canvas: &Canvas<B>,
        panel: Rect,
    ) -> Result<(), ChartError> {
        if self.rgb.is_empty() || self.rgb.len() != 3 * self.width * self.height {
            return Err(ChartError::Pixels { title: self.title.clone() });
        }
        let mut place = panel.shrink(GAP, GAP, GAP, GAP);
        if !self.title.is_empty() {
            let at = (panel.left + panel.width / 2.0, place.top + TITLE * CAPITAL);
            canvas.text(&self.title, at, TITLE, Align::Middle, INK)?;
            place = place.shrink(0.0, TITLE + 2.0, 0.0, 0.0);
        }
        let (width, height) = (self.width as f64, self.height as f64);
        let scale = (place.width / width).min(place.height / height);
        let rect = Rect {
            left: place.left + (place.width - scale * width) / 2.0,
            top: place.top + (place.height - scale * height) / 2.0,
            width: scale * width,
            height: scale * height,
        };
        canvas.picture(rect, self)?;
        for &pixels in &self.boxes {
            let [left, top, width, height] = pixels.map(|pixels| scale * pixels as f64);
            let frame = Rect { left: rect.left + left, top: rect.top + top, width, height };
            canvas.frame(frame, BOX, 2.0)?;
        }
        Ok(())
    }
}
