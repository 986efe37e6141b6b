//! A matrix as colours.

use plotters::prelude::DrawingBackend;

use crate::{
    ChartError,
    axis::Axis,
    canvas::{Align, CAPITAL, Canvas, LABEL, Rect, TEXT},
    color::{self, BOX, Color, FRAME, INK, MISSING},
};

/// A matrix as colours, dark for small values and light for large ones, in square cells.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HeatMap {
    /// May be empty.
    pub title: String,
    /// Rows from top to bottom, of one length. A value that is not finite stays grey.
    pub values: Vec<Vec<f64>>,
    /// The values of the darkest and the lightest colour. Default: the smallest and the largest.
    pub range: Option<(f64, f64)>,
    /// Digits behind the point of the numbers that are written into the cells, if they are.
    pub digits: Option<usize>,
    /// What columns are, below. May be empty.
    pub x_label: String,
    /// What rows are, on the left. May be empty.
    pub y_label: String,
    /// A name for each column, or none.
    pub column_names: Vec<String>,
    /// A name for each row, or none.
    pub row_names: Vec<String>,
    /// What it means that a value is not finite, for the legend. May be empty.
    pub missing: String,
    /// Cells to put a red frame around, by row and column.
    pub frames: Vec<(usize, usize)>,
    /// Whether the bar that explains the colours is left out, where that of another map with the
    /// same range serves both.
    pub without_bar: bool,
}

const GAP: f64 = 8.0;
/// Width of the bar that explains the colours, and the space before it.
const BAR: f64 = 12.0;
/// How far cells lie under their neighbours.
const OVERLAP: f64 = 0.5;

impl HeatMap {
    /// A heat map without names.
    pub fn new(title: impl Into<String>, values: Vec<Vec<f64>>) -> Self {
        Self { title: title.into(), values, ..Self::default() }
    }

    pub(crate) fn draw<B: DrawingBackend>(
        &self,
        canvas: &Canvas<B>,
        panel: Rect,
    ) -> Result<(), ChartError> {
        let (rows, columns) = self.size()?;
        let place = canvas.title(&self.title, panel.shrink(GAP, GAP, GAP, GAP), GAP)?;
        let widest = |names: &[String]| {
            names.iter().try_fold(0_f64, |widest, name| {
                Ok::<_, ChartError>(widest.max(canvas.text_width(name, TEXT)?))
            })
        };
        let label = |text: &str| if text.is_empty() { 0.0 } else { LABEL + 6.0 };
        let name_height = if self.column_names.is_empty() { 0.0 } else { TEXT + 6.0 };
        let scale = Axis { range: self.range, ..Axis::new(&*self.title) };
        let values = self.values.iter().flatten().copied();
        let values = values.filter(|value| value.is_finite());
        let (low, high) = match self.range {
            Some(range) => range,
            None => values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
                (low.min(value), high.max(value))
            }),
        };
        let no_point = || ChartError::NoPoint { title: self.title.clone() };
        if self.range.is_none() && low > high {
            return Err(no_point());
        }
        // For the bar's ticks, without the margin of an axis.
        let end = if high > low { high } else { low + low.abs().max(1e-6) };
        let scale = Axis { range: Some(self.range.unwrap_or((low, end))), ..scale };
        let scale = scale.place(std::iter::empty(), 0.0, 1.0)?.ok_or_else(no_point)?;
        let ticks = scale.ticks(4);
        let mut tick_width = 0_f64;
        for (_, text) in &ticks {
            tick_width = tick_width.max(canvas.text_width(text, TEXT)?);
        }
        let row_width = widest(&self.row_names)?;
        let left = label(&self.y_label) + if row_width > 0.0 { row_width + 6.0 } else { 0.0 };
        let right = if self.without_bar { 0.0 } else { GAP + BAR + 4.0 + tick_width };
        let below = name_height + label(&self.x_label) + label(&self.missing);
        let room = place.shrink(left, 0.0, right, below);

        let side = (room.width / columns as f64).min(room.height / rows as f64);
        let grid = Rect {
            left: room.left + (room.width - side * columns as f64) / 2.0,
            top: room.top + (room.height - side * rows as f64) / 2.0,
            width: side * columns as f64,
            height: side * rows as f64,
        };
        let color_of = |value: f64| -> Color {
            if value.is_finite() { color::of_value(scale.at(value)) } else { MISSING }
        };
        for (row, values) in self.values.iter().enumerate() {
            let mut column = 0;
            while column < columns {
                // Neighbours of one colour are one rectangle.
                let color = color_of(values[column]);
                let same = values[column..].iter().take_while(|next| color_of(**next) == color);
                let count = same.count();
                let cell = Rect {
                    left: grid.left + side * column as f64,
                    top: grid.top + side * row as f64,
                    width: side * count as f64,
                    height: side,
                };
                // Under the next ones a little, so that no seam shows the page.
                let right = OVERLAP.min(grid.right() - cell.right()).max(0.0);
                let below = OVERLAP.min(grid.bottom() - cell.bottom()).max(0.0);
                canvas.fill(cell.shrink(0.0, 0.0, -right, -below), color)?;
                column += count;
            }
            for (column, value) in values.iter().enumerate() {
                let Some(digits) = self.digits.filter(|_| value.is_finite()) else { continue };
                let size = TEXT.min(side * 0.3);
                let x = grid.left + side * (column as f64 + 0.5);
                let baseline = grid.top + side * (row as f64 + 0.5) + size * CAPITAL / 2.0;
                let text = format!("{value:.digits$}").replace('-', "\u{2212}");
                let ink = color::on(color_of(*value));
                canvas.text(&text, (x, baseline), size, Align::Middle, ink)?;
            }
        }
        canvas.frame(grid, FRAME, 1.0)?;
        for &(row, column) in &self.frames {
            let cell = Rect {
                left: grid.left + side * column as f64,
                top: grid.top + side * row as f64,
                width: side,
                height: side,
            };
            canvas.frame(cell, BOX, 2.0)?;
        }
        for (row, name) in self.row_names.iter().enumerate() {
            let baseline = grid.top + side * (row as f64 + 0.5) + TEXT * CAPITAL / 2.0;
            canvas.text(name, (grid.left - 6.0, baseline), TEXT, Align::End, INK)?;
        }
        for (column, name) in self.column_names.iter().enumerate() {
            let x = grid.left + side * (column as f64 + 0.5);
            let baseline = grid.bottom() + 5.0 + TEXT * CAPITAL;
            canvas.text(name, (x, baseline), TEXT, Align::Middle, INK)?;
        }
        let x = grid.left + grid.width / 2.0;
        let baseline = grid.bottom() + name_height + LABEL + 3.0;
        canvas.text(&self.x_label, (x, baseline), LABEL, Align::Middle, INK)?;
        let beside = grid.left - left + LABEL * CAPITAL + 1.0;
        let y = grid.top + grid.height / 2.0;
        canvas.text_upwards(&self.y_label, (beside, y), LABEL, INK)?;
        if !self.missing.is_empty() {
            let top = place.bottom() - LABEL;
            let sample = Rect { left: grid.left, top, width: LABEL, height: LABEL };
            canvas.fill(sample, MISSING)?;
            canvas.frame(sample, FRAME, 1.0)?;
            let at = (sample.right() + 6.0, top + (LABEL + TEXT * CAPITAL) / 2.0);
            canvas.text(&self.missing, at, TEXT, Align::Start, INK)?;
        }
        if self.without_bar {
            return Ok(());
        }
        self.draw_bar(canvas, grid, scale.moved(grid.bottom(), grid.top), &ticks)
    }

    /// The bar that explains the colours.
    fn draw_bar<B: DrawingBackend>(
        &self,
        canvas: &Canvas<B>,
        grid: Rect,
        scale: crate::axis::Placed,
        ticks: &[(f64, String)],
    ) -> Result<(), ChartError> {
        const STRIPES: usize = 64;
        let bar = Rect { left: grid.right() + GAP, width: BAR, ..grid };
        for stripe in (0..STRIPES).rev() {
            let height = bar.height / STRIPES as f64;
            let top = bar.bottom() - height * (stripe + 1) as f64;
            let color = color::of_value((stripe as f64 + 0.5) / STRIPES as f64);
            let below = if stripe == 0 { 0.0 } else { OVERLAP };
            canvas.fill(Rect { top, height: height + below, ..bar }, color)?;
        }
        canvas.frame(bar, FRAME, 1.0)?;
        for (value, text) in ticks {
            let y = scale.at(*value);
            canvas.path(&[(bar.right(), y), (bar.right() + 3.0, y)], FRAME, 1.0)?;
            let place = (bar.right() + 5.0, y + TEXT * CAPITAL / 2.0);
            canvas.text(text, place, TEXT, Align::Start, INK)?;
        }
        Ok(())
    }

    /// Rows and columns.
    fn size(&self) -> Result<(usize, usize), ChartError> {
        let rows = self.values.len();
        let columns = self.values.first().map_or(0, Vec::len);
        let named = |names: &[String], count| names.is_empty() || names.len() == count;
        let fits = columns > 0
            && self.frames.iter().all(|&(row, column)| row < rows && column < columns)
            && self.values.iter().all(|row| row.len() == columns)
            && named(&self.row_names, rows)
            && named(&self.column_names, columns);
        if fits {
            Ok((rows, columns))
        } else {
            Err(ChartError::Ragged { title: self.title.clone() })
        }
    }
}
