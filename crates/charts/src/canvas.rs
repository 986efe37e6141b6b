//! Lines, areas and text in pixels of an SVG, on any of the library's media.

use std::{cell::RefCell, sync::LazyLock};

use base64::{Engine, engine::general_purpose::STANDARD};
use plotters::{
    coord::Shift,
    element::BitMapElement,
    prelude::{
        BitMapBackend, Circle, Color as _, DrawingArea, DrawingBackend, FontStyle, FontTransform,
        IntoDrawingArea, PathElement, RGBColor, Rectangle, SVGBackend, ShapeStyle, Text,
    },
    style::{
        FontFamily, TextStyle, register_font,
        text_anchor::{HPos, Pos, VPos},
    },
};

use crate::{
    ChartError, Picture,
    color::{Color, INK, WHITE},
    drawing, encode,
};

/// A font family as viewers of SVG look for it; the library finds our own under the same name.
const FAMILY: &str = "Roboto, Arial, sans-serif";

/// Roboto, cut down to Latin, Greek and signs; see `font/README.md`.
static FONT: LazyLock<bool> = LazyLock::new(|| {
    register_font(FAMILY, FontStyle::Normal, include_bytes!("../font/Roboto.ttf")).is_ok()
});

/// Size of the text at ticks and in legends, in pixels an em.
pub(crate) const TEXT: f64 = 11.5;
/// Size of axis labels.
pub(crate) const LABEL: f64 = 12.5;
/// Size of titles.
pub(crate) const TITLE: f64 = 14.0;

/// Height of a digit or capital of this font, in ems.
pub(crate) const CAPITAL: f64 = 0.711;

/// A place on the canvas, in pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rect {
    pub(crate) left: f64,
    pub(crate) top: f64,
    pub(crate) width: f64,
    pub(crate) height: f64,
}

impl Rect {
    pub(crate) fn right(&self) -> f64 {
        self.left + self.width
    }

    pub(crate) fn bottom(&self) -> f64 {
        self.top + self.height
    }

    /// Cuts margins off.
    pub(crate) fn shrink(self, left: f64, top: f64, right: f64, bottom: f64) -> Self {
        Self {
            left: self.left + left,
            top: self.top + top,
            width: (self.width - left - right).max(1.0),
            height: (self.height - top - bottom).max(1.0),
        }
    }
}

/// Which end of a text lies at its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    Start,
    Middle,
    End,
}

/// Something to draw on.
pub(crate) struct Canvas<B: DrawingBackend> {
    area: DrawingArea<B, Shift>,
    /// The medium's units a pixel.
    units: f64,
    /// What the library calls a font's size, in ems.
    size_of_em: f64,
    /// From where the library puts a text down to its baseline, in the library's sizes.
    baseline: f64,
    /// The tags of pictures in an SVG. In bitmaps they are drawn as the rest is.
    images: Option<RefCell<String>>,
}

impl<'a> Canvas<SVGBackend<'a>> {
    pub(crate) fn svg(
        text: &'a mut String,
        size: (u32, u32),
        units: u32,
    ) -> Result<Self, ChartError> {
        // The library's constants for text in SVG: 1.24 and 0.76 em.
        let canvas = Self::new(SVGBackend::with_string(text, size), units, 1.24, 0.76 / 1.24)?;
        Ok(Self { images: Some(RefCell::default()), ..canvas })
    }

    /// The tags of the pictures, a line each.
    pub(crate) fn into_images(self) -> String {
        self.images.map_or_else(String::new, RefCell::into_inner)
    }
}

impl<'a> Canvas<BitMapBackend<'a>> {
    pub(crate) fn bitmap(
        pixels: &'a mut [u8],
        size: (u32, u32),
        units: u32,
    ) -> Result<Self, ChartError> {
        // In bitmaps its size is from the font's ascent to its descent, and it puts the baseline
        // into the middle.
        Self::new(BitMapBackend::with_buffer(pixels, size), units, 2400.0 / 2048.0, 0.5)
    }
}

impl<B: DrawingBackend> Canvas<B> {
    fn new(backend: B, units: u32, size_of_em: f64, baseline: f64) -> Result<Self, ChartError> {
        if !*FONT {
            return Err(drawing("the font is damaged"));
        }
        let area = backend.into_drawing_area();
        area.fill(&rgb(WHITE)).map_err(drawing)?;
        Ok(Self { area, units: units.into(), size_of_em, baseline, images: None })
    }

    pub(crate) fn finish(&self) -> Result<(), ChartError> {
        self.area.present().map_err(drawing)
    }

    fn at(&self, (x, y): (f64, f64)) -> (i32, i32) {
        ((x * self.units).round() as i32, (y * self.units).round() as i32)
    }

    fn width(&self, pixels: f64) -> u32 {
        (pixels * self.units).round().max(1.0) as u32
    }

    /// A line through points.
    pub(crate) fn path(
        &self,
        points: &[(f64, f64)],
        color: Color,
        width: f64,
    ) -> Result<(), ChartError> {
        let mut places: Vec<_> = points.iter().map(|&point| self.at(point)).collect();
        places.dedup();
        if places.len() < 2 {
            return Ok(());
        }
        let style = rgb(color).stroke_width(self.width(width));
        self.area.draw(&PathElement::new(places, style)).map_err(drawing)
    }

    /// An area within a rectangle.
    pub(crate) fn fill(&self, rect: Rect, color: Color) -> Result<(), ChartError> {
        let corners = [self.at((rect.left, rect.top)), self.at((rect.right(), rect.bottom()))];
        self.area.draw(&Rectangle::new(corners, rgb(color).filled())).map_err(drawing)
    }

    /// A picture whose values fill it, below all else that is drawn at its place in an SVG.
    pub(crate) fn picture(&self, rect: Rect, picture: &Picture) -> Result<(), ChartError> {
        let (left, top) = self.at((rect.left, rect.top));
        let (width, height) = (self.width(rect.width), self.width(rect.height));
        if let Some(images) = &self.images {
            let png = encode(picture.width as u32, picture.height as u32, &picture.rgb)?;
            images.borrow_mut().push_str(&format!(
                "<image x=\"{left}\" y=\"{top}\" width=\"{width}\" height=\"{height}\" \
                 preserveAspectRatio=\"none\" style=\"image-rendering: pixelated\" \
                 href=\"data:image/png;base64,{}\"/>\n",
                STANDARD.encode(png)
            ));
            return Ok(());
        }
        let mut pixels = Vec::with_capacity(3 * width as usize * height as usize);
        for row in 0..height as usize {
            let row = row * picture.height / height as usize;
            for column in 0..width as usize {
                let column = column * picture.width / width as usize;
                pixels.extend_from_slice(&picture.rgb[3 * (row * picture.width + column)..][..3]);
            }
        }
        let image: Option<BitMapElement<'_, _>> =
            BitMapElement::with_owned_buffer((left, top), (width, height), pixels);
        let image = image.ok_or_else(|| drawing("a picture does not fill its pixels"))?;
        self.area.draw(&image).map_err(drawing)
    }

    /// A rectangle's outline.
    pub(crate) fn frame(&self, rect: Rect, color: Color, width: f64) -> Result<(), ChartError> {
        // Edge by edge: where the library's wide lines overlap themselves in bitmaps, they vanish.
        let half = width / 2.0;
        let (left, top) = (rect.left - half, rect.top - half);
        let across = Rect { left, top, width: rect.width + width, height: width };
        let down = Rect { left, top, width, height: rect.height + width };
        self.fill(across, color)?;
        self.fill(Rect { top: rect.bottom() - half, ..across }, color)?;
        self.fill(down, color)?;
        self.fill(Rect { left: rect.right() - half, ..down }, color)
    }

    /// A disc.
    pub(crate) fn disc(
        &self,
        center: (f64, f64),
        radius: f64,
        color: Color,
        opacity: f64,
    ) -> Result<(), ChartError> {
        let style = ShapeStyle { color: rgb(color).mix(opacity), filled: true, stroke_width: 0 };
        self.area
            .draw(&Circle::new(self.at(center), self.width(radius) as i32, style))
            .map_err(drawing)
    }

    /// A line of text whose baseline is at a place.
    pub(crate) fn text(
        &self,
        text: &str,
        (x, baseline): (f64, f64),
        size: f64,
        align: Align,
        color: Color,
    ) -> Result<(), ChartError> {
        let style = self.style(size, align, color);
        let place = (x, baseline - self.baseline * self.size_of_em * size);
        self.area.draw(&Text::new(text.to_owned(), self.at(place), style)).map_err(drawing)
    }

    /// A line of text that reads upwards, its middle at a height and its baseline on the right.
    pub(crate) fn text_upwards(
        &self,
        text: &str,
        (baseline, y): (f64, f64),
        size: f64,
        color: Color,
    ) -> Result<(), ChartError> {
        let style = self.style(size, Align::Middle, color).transform(FontTransform::Rotate270);
        let place = (baseline - self.baseline * self.size_of_em * size, y);
        self.area.draw(&Text::new(text.to_owned(), self.at(place), style)).map_err(drawing)
    }

    /// A text's width in pixels.
    pub(crate) fn text_width(&self, text: &str, size: f64) -> Result<f64, ChartError> {
        // Measured large, since the library rounds.
        let large = 100.0;
        let style = TextStyle::from((FontFamily::Name(FAMILY), large * 2400.0 / 2048.0));
        let (width, _) = self.area.estimate_text_size(text, &style).map_err(drawing)?;
        Ok(f64::from(width) * size / large)
    }

    /// A text, or as much of its beginning as there is room for, with an ellipsis.
    pub(crate) fn fitted(&self, text: &str, size: f64, room: f64) -> Result<String, ChartError> {
        if self.text_width(text, size)? <= room {
            return Ok(text.to_owned());
        }
        let letters: Vec<char> = text.chars().collect();
        let shortened = |count: usize| -> String {
            let kept: String = letters[..count].iter().collect();
            format!("{}\u{2026}", kept.trim_end())
        };
        let (mut fits, mut beyond) = (0, letters.len());
        while beyond - fits > 1 {
            let middle = usize::midpoint(fits, beyond);
            if self.text_width(&shortened(middle), size)? <= room {
                fits = middle;
            } else {
                beyond = middle;
            }
        }
        Ok(shortened(fits))
    }

    /// A panel's title at the top of a place, smaller or shortened where it would be too wide, and
    /// what is left of the place.
    pub(crate) fn title(&self, text: &str, place: Rect, gap: f64) -> Result<Rect, ChartError> {
        if text.is_empty() {
            return Ok(place);
        }
        let size =
            (TITLE * place.width / self.text_width(text, TITLE)?.max(1.0)).clamp(TEXT, TITLE);
        let text = self.fitted(text, size, place.width)?;
        let at = (place.left + place.width / 2.0, place.top + TITLE * CAPITAL + 2.0);
        self.text(&text, at, size, Align::Middle, INK)?;
        Ok(place.shrink(0.0, TITLE + gap, 0.0, 0.0))
    }

    fn style(&self, size: f64, align: Align, color: Color) -> TextStyle<'static> {
        let across = match align {
            Align::Start => HPos::Left,
            Align::Middle => HPos::Center,
            Align::End => HPos::Right,
        };
        let size = size * self.size_of_em * self.units;
        let mut style = TextStyle::from((FontFamily::Name(FAMILY), size));
        style.color = rgb(color).to_backend_color();
        style.pos(Pos::new(across, VPos::Top))
    }
}

fn rgb((red, green, blue): Color) -> RGBColor {
    RGBColor(red, green, blue)
}
