//! Curves and points over two axes.

use plotters::prelude::DrawingBackend;

use crate::{
    ChartError,
    axis::{Axis, Placed},
    canvas::{Align, CAPITAL, Canvas, LABEL, Rect, TEXT},
    color::{self, Color, FRAME, GRID, INK},
};

/// Curves and points over two axes, with a legend.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Chart {
    /// May be empty.
    pub title: String,
    /// To the right.
    pub x: Axis,
    /// Upwards.
    pub y: Axis,
    /// Drawn in this order, later ones over earlier ones.
    pub series: Vec<Series>,
    /// Whether a number is equally long on both axes, as on a map. Takes linear axes.
    pub is_map: bool,
}

/// Points that belong together.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Its name in the legend; without one it has no entry there.
    pub name: String,
    /// In the order in which a line goes through them. One that is not finite leaves a gap.
    pub points: Vec<Point>,
    /// How it is drawn.
    pub mark: Mark,
    /// Which colour of the palette it has. Default: the place of the series in its chart.
    pub color: Option<usize>,
}

/// A point of a series.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Point {
    /// To the right.
    pub x: f64,
    /// Upwards.
    pub y: f64,
    /// How far a bar reaches to either side: a standard deviation, or what the text says.
    pub x_error: Option<f64>,
    /// How far a bar reaches up and down.
    pub y_error: Option<f64>,
    /// Text beside it. May be empty.
    pub label: String,
}

impl From<(f64, f64)> for Point {
    fn from((x, y): (f64, f64)) -> Self {
        Self { x, y, ..Self::default() }
    }
}

/// How a series is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// A line.
    Line,
    /// A line of dashes.
    Dashes,
    /// A disc at each point.
    Dots,
    /// A line with a disc at each point.
    LineAndDots,
}

impl Series {
    /// A line.
    pub fn line<P: Into<Point>>(
        name: impl Into<String>,
        points: impl IntoIterator<Item = P>,
    ) -> Self {
        let points = points.into_iter().map(Into::into).collect();
        Self { name: name.into(), points, mark: Mark::Line, color: None }
    }

    /// Discs.
    pub fn dots<P: Into<Point>>(
        name: impl Into<String>,
        points: impl IntoIterator<Item = P>,
    ) -> Self {
        Self { mark: Mark::Dots, ..Self::line(name, points) }
    }

    /// The same series, drawn in another way.
    #[must_use]
    pub fn with_mark(mut self, mark: Mark) -> Self {
        self.mark = mark;
        self
    }

    /// The same series in a colour of the palette, for example that of another series.
    #[must_use]
    pub fn with_color(mut self, color: usize) -> Self {
        self.color = Some(color);
        self
    }
}

/// Space around a panel and between its parts.
const GAP: f64 = 8.0;
/// Width of a curve.
const LINE: f64 = 1.6;
/// Room for the ticks of a map's upright axis, before their text is known.
const WIDEST_TICK: f64 = 36.0;
/// Points from which on discs become smaller, so that they do not hide each other.
const MANY: usize = 300;
/// Radius of the smallest disc.
const SMALLEST_DISC: f64 = 1.2;
/// Length of a dash and of the space behind it.
const DASH: f64 = 5.0;
/// Radius of a disc.
const DISC: f64 = 3.0;
/// Length of the sample of a series in the legend.
const SAMPLE: f64 = 20.0;
/// Height of a line of the legend.
const LEGEND_LINE: f64 = 17.0;

impl Chart {
    pub(crate) fn draw<B: DrawingBackend>(
        &self,
        canvas: &Canvas<B>,
        panel: Rect,
    ) -> Result<(), ChartError> {
        let place = panel.shrink(GAP, GAP, GAP + 6.0, GAP);
        let place = self.draw_legend(canvas, canvas.title(&self.title, place, GAP)?)?;
        let below = TEXT + 8.0 + if self.x.label.is_empty() { 0.0 } else { LABEL + 6.0 };
        let plot = place.shrink(0.0, 4.0, 0.0, below);
        let label_width = if self.y.label.is_empty() { 0.0 } else { LABEL + 6.0 };

        let no_point = || ChartError::NoPoint { title: self.title.clone() };
        let y = self.y.place(self.ends(false), plot.bottom(), plot.top)?.ok_or_else(no_point)?;
        // Both axes of a map depend on each other's length, and so does the room for the ticks.
        let y = match self.is_map {
            true => {
                let width = plot.width - label_width - WIDEST_TICK;
                let x = self.x.place(self.ends(true), 0.0, width)?.ok_or_else(no_point)?;
                y.at_most_as_long(&x)
            }
            false => y,
        };
        let y_ticks = y.ticks((plot.height / 45.0).max(2.0) as usize);
        let mut tick_width = 0_f64;
        for (_, text) in &y_ticks {
            tick_width = tick_width.max(canvas.text_width(text, TEXT)?);
        }
        let plot = plot.shrink(label_width + tick_width + 7.0, 0.0, 0.0, 0.0);
        let x = self.x.place(self.ends(true), plot.left, plot.right())?.ok_or_else(no_point)?;
        let x = if self.is_map { x.as_long_as(&y) } else { x };
        if self.series.iter().flat_map(|series| &series.points).all(|point| !self.shows(point)) {
            return Err(no_point());
        }

        for (value, text) in x.ticks((plot.width / 75.0).max(2.0) as usize) {
            let at = x.at(value);
            canvas.path(&[(at, plot.top), (at, plot.bottom())], GRID, 1.0)?;
            let baseline = plot.bottom() + 5.0 + TEXT * CAPITAL + 1.0;
            canvas.text(&text, (at, baseline), TEXT, Align::Middle, INK)?;
        }
        for (value, text) in &y_ticks {
            let at = y.at(*value);
            canvas.path(&[(plot.left, at), (plot.right(), at)], GRID, 1.0)?;
            let place = (plot.left - 6.0, at + TEXT * CAPITAL / 2.0);
            canvas.text(text, place, TEXT, Align::End, INK)?;
        }
        canvas.frame(plot, FRAME, 1.0)?;
        let middle = plot.left + plot.width / 2.0;
        canvas.text(&self.x.label, (middle, place.bottom() - 2.0), LABEL, Align::Middle, INK)?;
        let middle = plot.top + plot.height / 2.0;
        let baseline = place.left + LABEL * CAPITAL + 1.0;
        canvas.text_upwards(&self.y.label, (baseline, middle), LABEL, INK)?;
        for (index, series) in self.series.iter().enumerate() {
            self.draw_series(canvas, series, self.color(index), plot, &x, &y)?;
        }
        Ok(())
    }

    fn color(&self, index: usize) -> Color {
        color::of_series(self.series[index].color.unwrap_or(index))
    }

    fn shows(&self, point: &Point) -> bool {
        self.x.shows(point.x) && self.y.shows(point.y)
    }

    /// What an axis has to show: points, and the ends of their bars.
    fn ends(&self, across: bool) -> impl Iterator<Item = f64> {
        let shown = self.series.iter().flat_map(|series| &series.points);
        shown.filter(|point| self.shows(point)).flat_map(move |point| {
            let (value, error) =
                if across { (point.x, point.x_error) } else { (point.y, point.y_error) };
            let error = error.unwrap_or(0.0);
            [value - error, value, value + error]
        })
    }

    /// Draws the legend on top of a place and returns what is left of it.
    fn draw_legend<B: DrawingBackend>(
        &self,
        canvas: &Canvas<B>,
        place: Rect,
    ) -> Result<Rect, ChartError> {
        let (mut x, mut lines) = (place.left, 0_u32);
        for (index, series) in self.series.iter().enumerate() {
            if series.name.is_empty() {
                continue;
            }
            let width = SAMPLE + 6.0 + canvas.text_width(&series.name, TEXT)? + 16.0;
            if lines == 0 {
                lines = 1;
            } else if x + width - 16.0 > place.right() {
                (x, lines) = (place.left, lines + 1);
            }
            let baseline = place.top + LEGEND_LINE * f64::from(lines) - 5.0;
            let middle = baseline - TEXT * CAPITAL / 2.0;
            let sample = [(x, middle), (x + SAMPLE, middle)];
            let color = self.color(index);
            match series.mark {
                Mark::Line | Mark::LineAndDots => canvas.path(&sample, color, LINE + 0.4)?,
                Mark::Dashes => dashes(canvas, &sample, color)?,
                Mark::Dots => {}
            }
            if matches!(series.mark, Mark::Dots | Mark::LineAndDots) {
                canvas.disc((x + SAMPLE / 2.0, middle), DISC, color, 1.0)?;
            }
            canvas.text(&series.name, (x + SAMPLE + 6.0, baseline), TEXT, Align::Start, INK)?;
            x += width;
        }
        let height = LEGEND_LINE * f64::from(lines);
        Ok(place.shrink(0.0, if lines > 0 { height + 2.0 } else { 0.0 }, 0.0, 0.0))
    }

    fn draw_series<B: DrawingBackend>(
        &self,
        canvas: &Canvas<B>,
        series: &Series,
        color: Color,
        plot: Rect,
        x: &Placed,
        y: &Placed,
    ) -> Result<(), ChartError> {
        let at = |point: &Point| (x.at(point.x), y.at(point.y));
        if series.mark != Mark::Dots {
            for part in series.points.split(|point| !self.shows(point)) {
                let places: Vec<_> = part.iter().map(at).collect();
                for path in clip(&places, plot) {
                    match series.mark {
                        Mark::Dashes => dashes(canvas, &path, color)?,
                        _ => canvas.path(&path, color, LINE)?,
                    }
                }
            }
        }
        // Discs that many points of all series share the plot with: the same area of ink, half
        // transparent where they still meet.
        let points: usize = self.series.iter().map(|series| series.points.len()).sum();
        let (radius, opacity) = match points {
            0..=MANY => (DISC, 0.9),
            _ => (DISC * (MANY as f64 / points as f64).sqrt(), 0.6),
        };
        let radius = radius.max(SMALLEST_DISC);
        for point in series.points.iter().filter(|point| self.shows(point)) {
            let place = at(point);
            if !inside(place, plot) {
                continue;
            }
            if let Some(error) = point.y_error {
                let ends = [point.y - error, point.y + error].map(|end| {
                    if self.y.shows(end) {
                        y.at(end).clamp(plot.top, plot.bottom())
                    } else {
                        plot.bottom()
                    }
                });
                self::bar(canvas, ends.map(|end| (place.0, end)), (3.0, 0.0), color)?;
            }
            if let Some(error) = point.x_error {
                let ends = [point.x - error, point.x + error].map(|end| {
                    if self.x.shows(end) {
                        x.at(end).clamp(plot.left, plot.right())
                    } else {
                        plot.left
                    }
                });
                self::bar(canvas, ends.map(|end| (end, place.1)), (0.0, 3.0), color)?;
            }
            if matches!(series.mark, Mark::Dots | Mark::LineAndDots) {
                canvas.disc(place, radius, color, opacity)?;
            }
            if !point.label.is_empty() {
                let beside = canvas.text_width(&point.label, TEXT)? + 6.0;
                let (x, align) = if place.0 + beside > plot.right() {
                    (place.0 - 6.0, Align::End)
                } else {
                    (place.0 + 6.0, Align::Start)
                };
                canvas.text(&point.label, (x, place.1 - 4.0), TEXT, align, INK)?;
            }
        }
        Ok(())
    }
}

/// An error bar with caps that reach so far to both sides.
fn bar<B: DrawingBackend>(
    canvas: &Canvas<B>,
    ends: [(f64, f64); 2],
    (dx, dy): (f64, f64),
    color: Color,
) -> Result<(), ChartError> {
    canvas.path(&ends, color, 1.0)?;
    for (x, y) in ends {
        canvas.path(&[(x - dx, y - dy), (x + dx, y + dy)], color, 1.0)?;
    }
    Ok(())
}

fn dashes<B: DrawingBackend>(
    canvas: &Canvas<B>,
    path: &[(f64, f64)],
    color: Color,
) -> Result<(), ChartError> {
    for dash in cut(path) {
        canvas.path(&dash, color, LINE)?;
    }
    Ok(())
}

/// The dashes of a path.
fn cut(path: &[(f64, f64)]) -> Vec<Vec<(f64, f64)>> {
    let (mut dashes, mut dash) = (Vec::new(), Vec::new());
    let (mut drawing, mut left) = (true, DASH);
    dash.extend(path.first());
    for pair in path.windows(2) {
        let (from, to) = (pair[0], pair[1]);
        let length = (to.0 - from.0).hypot(to.1 - from.1);
        let mut done = 0.0;
        while length - done > left {
            done += left;
            let part = done / length;
            let place = (from.0 + (to.0 - from.0) * part, from.1 + (to.1 - from.1) * part);
            dash.push(place);
            if drawing {
                dashes.push(std::mem::take(&mut dash));
            }
            dash = vec![place];
            (drawing, left) = (!drawing, DASH);
        }
        left -= length - done;
        dash.push(to);
    }
    if drawing {
        dashes.push(dash);
    }
    dashes
}

fn inside((x, y): (f64, f64), plot: Rect) -> bool {
    let slack = 1e-6;
    (plot.left - slack..=plot.right() + slack).contains(&x)
        && (plot.top - slack..=plot.bottom() + slack).contains(&y)
}

/// The parts of a path that lie within a rectangle (Liang and Barsky 1984, segment by segment).
fn clip(path: &[(f64, f64)], plot: Rect) -> Vec<Vec<(f64, f64)>> {
    let mut parts: Vec<Vec<(f64, f64)>> = Vec::new();
    for pair in path.windows(2) {
        let (from, to) = (pair[0], pair[1]);
        let (dx, dy) = (to.0 - from.0, to.1 - from.1);
        let (mut enters, mut leaves) = (0.0_f64, 1.0_f64);
        for (step, room) in [
            (-dx, from.0 - plot.left),
            (dx, plot.right() - from.0),
            (-dy, from.1 - plot.top),
            (dy, plot.bottom() - from.1),
        ] {
            if step < 0.0 {
                enters = enters.max(room / step);
            } else if step > 0.0 {
                leaves = leaves.min(room / step);
            } else if room < 0.0 {
                leaves = -1.0;
            }
        }
        if enters > leaves {
            continue;
        }
        let at = |part: f64| (from.0 + dx * part, from.1 + dy * part);
        match parts.last_mut() {
            Some(part) if enters == 0.0 && part.last() == Some(&from) => part.push(at(leaves)),
            _ => parts.push(vec![at(enters), at(leaves)]),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLOT: Rect = Rect { left: 0.0, top: 0.0, width: 10.0, height: 10.0 };

    #[test]
    fn should_keep_of_a_path_what_is_inside() {
        let path = [(-5.0, 5.0), (5.0, 5.0), (5.0, 20.0), (8.0, 20.0), (8.0, 2.0)];
        let parts = clip(&path, PLOT);
        assert_eq!(
            parts,
            [vec![(0.0, 5.0), (5.0, 5.0), (5.0, 10.0)], vec![(8.0, 10.0), (8.0, 2.0)]]
        );
        assert!(clip(&[(-1.0, -1.0), (-1.0, 20.0)], PLOT).is_empty());
    }

    #[test]
    fn should_cut_a_path_into_dashes_around_its_corners() {
        let dashes = cut(&[(0.0, 0.0), (3.0, 0.0), (3.0, 12.0)]);
        assert_eq!(
            dashes,
            [vec![(0.0, 0.0), (3.0, 0.0), (3.0, 2.0)], vec![(3.0, 7.0), (3.0, 12.0)]]
        );
    }
}
