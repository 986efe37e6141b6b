//! Figures: curves, scatters, heat maps and pictures, written as SVG or PNG.
//!
//! A [`Figure`] is panels side by side; a panel is a [`Chart`], a [`HeatMap`] or a [`Picture`]. A
//! [`Sheet`] is pictures in rows, pixel by pixel, with words around them. All are plain data:
//!
//! ```
//! use charts::{Axis, Chart, Figure, Series};
//!
//! let curve = Series::line("causal", (1..100).map(|step| (f64::from(step), 1.0 / f64::from(step))));
//! let chart = Chart {
//!     title: "Loss".into(),
//!     x: Axis::new("step"),
//!     y: Axis::new("loss").logarithmic(),
//!     series: vec![curve],
//!     ..Chart::default()
//! };
//! let svg = Figure::new([chart]).to_svg()?;
//! assert!(svg.contains("causal"));
//! # Ok::<(), charts::ChartError>(())
//! ```
//!
//! Lines, marks and text are drawn by `plotters`; what goes where is decided here, so that both
//! formats show the same. PNGs are drawn larger and averaged down, which smooths all edges. Text is
//! in a font of this crate: a figure looks the same on any machine, and needs none installed.

mod axis;
mod canvas;
mod chart;
mod color;
mod heat_map;
mod picture;
mod sheet;

use std::path::{Path, PathBuf};

pub use axis::{Axis, Scale};
pub use chart::{Chart, Mark, Point, Series};
pub use heat_map::HeatMap;
pub use picture::Picture;
pub use sheet::Sheet;

use canvas::{Canvas, Rect};

/// Why a figure cannot be drawn.
#[derive(Debug, thiserror::Error)]
pub enum ChartError {
    /// There is nothing in it.
    #[error("the figure has no panel")]
    NoPanel,
    /// No point of a chart can be shown.
    #[error(
        "the chart \"{title}\" has no point to show; a logarithmic axis shows positive numbers only"
    )]
    NoPoint {
        /// The chart's title.
        title: String,
    },
    /// A range that contains nothing.
    #[error(
        "the axis \"{label}\" cannot reach from {from} to {to}: give a range of finite numbers, the smaller first, positive ones if it is logarithmic"
    )]
    Range {
        /// The axis's label.
        label: String,
        /// Its beginning.
        from: f64,
        /// Its end.
        to: f64,
    },
    /// Rows of different lengths, or none.
    #[error(
        "the heat map \"{title}\" needs rows of one length that is not 0, and a label for each row and column or none at all"
    )]
    Ragged {
        /// The heat map's title.
        title: String,
    },
    /// A picture whose values do not fill it, or of no pixels.
    #[error("the picture \"{title}\" needs three values a pixel, and a pixel at least")]
    Pixels {
        /// The picture's title.
        title: String,
    },
    /// A file name that says no format.
    #[error("{} says no format: end it in .svg or .png", .0.display())]
    Format(PathBuf),
    /// A figure too large or too small to draw.
    #[error(
        "a figure of {0} x {1} pixels cannot be drawn: panels take 64 to 4096 a side, figures at most 16384"
    )]
    Size(u64, u64),
    /// A sheet of pictures too large to make.
    #[error("a sheet of {0} x {1} pixels is too large: take fewer pictures or a smaller scale")]
    Sheet(u64, u64),
    /// The drawing library failed.
    #[error("the figure cannot be drawn: {0}")]
    Drawing(String),
    /// The file cannot be written.
    #[error("cannot write {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// What a figure is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Lines and text.
    Svg,
    /// Pixels.
    Png,
}

impl Format {
    /// The format that a file's name says; to be asked before long work.
    ///
    /// # Errors
    /// [`ChartError::Format`] if the name ends in neither `.svg` nor `.png`.
    pub fn of(path: &Path) -> Result<Self, ChartError> {
        let extension = path.extension().and_then(|extension| extension.to_str());
        match extension.map(str::to_ascii_lowercase).as_deref() {
            Some("svg") => Ok(Self::Svg),
            Some("png") => Ok(Self::Png),
            _ => Err(ChartError::Format(path.to_owned())),
        }
    }
}

/// One of the parts of a figure.
#[derive(Debug, Clone, PartialEq)]
pub enum Panel {
    /// Curves and points.
    Chart(Chart),
    /// A matrix as colours.
    HeatMap(HeatMap),
    /// A picture.
    Picture(Picture),
}

impl From<Chart> for Panel {
    fn from(chart: Chart) -> Self {
        Self::Chart(chart)
    }
}

impl From<HeatMap> for Panel {
    fn from(map: HeatMap) -> Self {
        Self::HeatMap(map)
    }
}

impl From<Picture> for Panel {
    fn from(picture: Picture) -> Self {
        Self::Picture(picture)
    }
}

/// Panels of one size, row by row.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// The panels.
    pub panels: Vec<Panel>,
    /// Panels a row, at least 1.
    pub columns: usize,
    /// Width and height of a panel in pixels of an SVG; a PNG has [`PIXELS`] times as many.
    pub panel_size: (u32, u32),
}

/// Pixels of a PNG, in each direction, for one of an SVG.
pub const PIXELS: u32 = 2;

/// Samples of a pixel in each direction.
const SAMPLES: u32 = 3;

/// Units of an SVG's coordinates for a pixel: the library rounds to whole units.
const UNITS: u32 = 10;

impl Figure {
    /// A figure of panels of 560 × 360 pixels in one row.
    pub fn new<P: Into<Panel>>(panels: impl IntoIterator<Item = P>) -> Self {
        let panels: Vec<Panel> = panels.into_iter().map(Into::into).collect();
        Self { columns: panels.len().max(1), panels, panel_size: (560, 360) }
    }

    /// The same figure with so many panels a row.
    #[must_use]
    pub fn with_columns(mut self, columns: usize) -> Self {
        self.columns = columns.max(1);
        self
    }

    /// The same figure with panels of this width and height in pixels.
    #[must_use]
    pub fn with_panel_size(mut self, width: u32, height: u32) -> Self {
        self.panel_size = (width, height);
        self
    }

    /// Writes it in the format that the file's name says, whole or not at all.
    ///
    /// # Errors
    /// If the name ends in neither `.svg` nor `.png`, if there is nothing to draw, or if the file
    /// cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), ChartError> {
        let bytes = match Format::of(path)? {
            Format::Svg => self.to_svg()?.into_bytes(),
            Format::Png => self.to_png()?,
        };
        files::write_file(path, |file| std::io::Write::write_all(file, &bytes))
            .map_err(|source| ChartError::File { path: path.to_owned(), source })
    }

    /// The figure as SVG.
    ///
    /// # Errors
    /// If there is nothing to draw.
    pub fn to_svg(&self) -> Result<String, ChartError> {
        let (width, height) = self.size()?;
        let size = (width * UNITS, height * UNITS);
        let mut text = String::new();
        let canvas = Canvas::svg(&mut text, size, UNITS)?;
        self.draw(&canvas)?;
        let images = canvas.into_images();
        // The library writes the units as the size; the view box stays in units.
        let header = |width: u32, height: u32| format!("width=\"{width}\" height=\"{height}\"");
        let mut text = text.replacen(&header(size.0, size.1), &header(width, height), 1);
        // Behind the background, which comes first, and below all else.
        const END: &str = "/>\n";
        let place = text.find(END).map_or(text.len(), |place| place + END.len());
        text.insert_str(place, &images);
        Ok(text)
    }

    /// The figure as PNG.
    ///
    /// # Errors
    /// If there is nothing to draw.
    pub fn to_png(&self) -> Result<Vec<u8>, ChartError> {
        let (width, height) = self.size()?;
        let (width, height) = (width * PIXELS, height * PIXELS);
        let large = (width * SAMPLES, height * SAMPLES);
        let mut samples = vec![255; large.0 as usize * large.1 as usize * 3];
        self.draw(&Canvas::bitmap(&mut samples, large, PIXELS * SAMPLES)?)?;
        encode(width, height, &average(&samples, width as usize, height as usize))
    }

    /// Width and height in pixels of an SVG.
    fn size(&self) -> Result<(u32, u32), ChartError> {
        if self.panels.is_empty() {
            return Err(ChartError::NoPanel);
        }
        let columns = self.columns.max(1).min(self.panels.len()) as u64;
        let rows = (self.panels.len() as u64).div_ceil(columns);
        let (width, height) = self.panel_size;
        let (all_width, all_height) = (columns * u64::from(width), rows * u64::from(height));
        let panel_fits = [width, height].iter().all(|side| (64..=4096).contains(side));
        if !panel_fits || all_width.max(all_height) > 16_384 {
            return Err(ChartError::Size(all_width, all_height));
        }
        Ok((all_width as u32, all_height as u32))
    }

    fn draw<B: plotters::prelude::DrawingBackend>(
        &self,
        canvas: &Canvas<B>,
    ) -> Result<(), ChartError> {
        let (width, height) = self.panel_size;
        let columns = self.columns.max(1);
        for (index, panel) in self.panels.iter().enumerate() {
            let place = Rect {
                left: ((index % columns) as u32 * width).into(),
                top: ((index / columns) as u32 * height).into(),
                width: width.into(),
                height: height.into(),
            };
            match panel {
                Panel::Chart(chart) => chart.draw(canvas, place)?,
                Panel::HeatMap(map) => map.draw(canvas, place)?,
                Panel::Picture(picture) => picture.draw(canvas, place)?,
            }
        }
        canvas.finish()
    }
}

fn drawing(error: impl std::fmt::Display) -> ChartError {
    ChartError::Drawing(error.to_string())
}

/// Pixels as PNG.
fn encode(width: u32, height: u32, rgb: &[u8]) -> Result<Vec<u8>, ChartError> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().map_err(drawing)?;
    writer.write_image_data(rgb).map_err(drawing)?;
    writer.finish().map_err(drawing)?;
    Ok(bytes)
}

/// Means of squares of samples.
fn average(samples: &[u8], width: usize, height: usize) -> Vec<u8> {
    let side = SAMPLES as usize;
    let mut pixels = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        for x in 0..width {
            for channel in 0..3 {
                let row = |dy: usize| ((y * side + dy) * width + x) * side * 3 + channel;
                let sum: u32 = (0..side)
                    .flat_map(|dy| (0..side).map(move |dx| row(dy) + dx * 3))
                    .map(|at| u32::from(samples[at]))
                    .sum();
                let count = SAMPLES * SAMPLES;
                pixels.push(((sum + count / 2) / count) as u8);
            }
        }
    }
    pixels
}
