//! Axes: which range they show, and where their ticks are.

use crate::ChartError;

/// How an axis spaces numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scale {
    /// Equal differences are equally long.
    #[default]
    Linear,
    /// Equal ratios are equally long; shows positive numbers only.
    Logarithmic,
}

/// One of a chart's two axes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Axis {
    /// What it shows, with its unit. May be empty.
    pub label: String,
    /// How it spaces numbers.
    pub scale: Scale,
    /// The smallest and the largest number; what reaches over is cut off. Default: those of the
    /// points, and a little more.
    pub range: Option<(f64, f64)>,
}

impl Axis {
    /// A linear axis that shows all.
    pub fn new(label: impl Into<String>) -> Self {
        Self { label: label.into(), ..Self::default() }
    }

    /// The same axis on a logarithmic scale.
    #[must_use]
    pub fn logarithmic(mut self) -> Self {
        self.scale = Scale::Logarithmic;
        self
    }

    /// The same axis from one number to another.
    #[must_use]
    pub fn with_range(mut self, from: f64, to: f64) -> Self {
        self.range = Some((from, to));
        self
    }

    /// Whether a number has a place on it.
    pub(crate) fn shows(&self, value: f64) -> bool {
        value.is_finite() && (self.scale == Scale::Linear || value > 0.0)
    }

    /// Places it on pixels `from` to `to`. None of `values` may be shown.
    pub(crate) fn place(
        &self,
        values: impl Iterator<Item = f64>,
        from: f64,
        to: f64,
    ) -> Result<Option<Placed>, ChartError> {
        let (low, high) = match self.range {
            Some((low, high)) => {
                if !self.shows(low) || !self.shows(high) || low >= high {
                    let label = self.label.clone();
                    return Err(ChartError::Range { label, from: low, to: high });
                }
                (self.scale.forwards(low), self.scale.forwards(high))
            }
            None => {
                let (low, high) = values
                    .filter(|&value| self.shows(value))
                    .map(|value| self.scale.forwards(value))
                    .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
                        (low.min(value), high.max(value))
                    });
                if low > high {
                    return Ok(None);
                }
                let width = high - low;
                let margin = if width > 1e-12 * low.abs().max(high.abs()) && width > 0.0 {
                    0.04 * width
                } else {
                    (0.05 * low.abs()).max(1e-6)
                };
                (low - margin, high + margin)
            }
        };
        Ok(Some(Placed { scale: self.scale, low, high, from, to }))
    }
}

impl Scale {
    fn forwards(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Logarithmic => value.log10(),
        }
    }

    fn backwards(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Logarithmic => 10_f64.powf(value),
        }
    }
}

/// An axis on pixels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placed {
    scale: Scale,
    /// The range, as the scale has it.
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Placed {
    /// Where a number is, in pixels.
    pub(crate) fn at(&self, value: f64) -> f64 {
        let part = (self.scale.forwards(value) - self.low) / (self.high - self.low);
        self.from + (self.to - self.from) * part
    }

    /// How much a pixel stands for.
    fn a_pixel(&self) -> f64 {
        (self.high - self.low) / (self.to - self.from).abs()
    }

    /// Widens the range to both sides until a pixel stands for as much as on the other axis, if it
    /// stands for less.
    pub(crate) fn at_most_as_long(self, other: &Self) -> Self {
        if self.a_pixel() < other.a_pixel() { self.as_long_as(other) } else { self }
    }

    /// Changes the range around its middle, so that a pixel stands for as much as on the other axis.
    pub(crate) fn as_long_as(self, other: &Self) -> Self {
        let middle = f64::midpoint(self.low, self.high);
        let half = other.a_pixel() * (self.to - self.from).abs() / 2.0;
        Self { low: middle - half, high: middle + half, ..self }
    }

    /// The same axis on other pixels.
    pub(crate) fn moved(self, from: f64, to: f64) -> Self {
        Self { from, to, ..self }
    }

    /// About as many round numbers as asked for, with their text.
    pub(crate) fn ticks(&self, about: usize) -> Vec<(f64, String)> {
        let (low, high) = (self.scale.backwards(self.low), self.scale.backwards(self.high));
        let decades = self.high - self.low;
        if self.scale == Scale::Linear || decades < 1.0 {
            return linear_ticks(low, high, about);
        }
        let mantissas: &[f64] = if decades < 2.5 && about >= 4 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let exponents = self.low.floor() as i32..=self.high.ceil() as i32;
        let every = (decades / about.max(2) as f64).ceil().max(1.0) as i32;
        let mut ticks = Vec::new();
        for exponent in exponents.filter(|exponent| exponent.rem_euclid(every) == 0) {
            for mantissa in mantissas {
                let value = mantissa * 10_f64.powi(exponent);
                if value >= low * (1.0 - 1e-9) && value <= high * (1.0 + 1e-9) {
                    ticks.push((value, text(value, value)));
                }
            }
        }
        ticks
    }
}

/// Multiples of 1, 2 or 5 times a power of ten.
fn linear_ticks(low: f64, high: f64, about: usize) -> Vec<(f64, String)> {
    let rough = (high - low) / about.max(1) as f64;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|mantissa| mantissa * power)
        .find(|step| *step >= rough * (1.0 - 1e-9))
        .unwrap_or(10.0 * power);
    let (first, last) = ((low / step - 1e-9).ceil(), (high / step + 1e-9).floor());
    let count = (last - first) as usize + 1;
    (0..count)
        .map(|index| {
            let value = (first + index as f64) * step;
            (value, text(value, step))
        })
        .collect()
}

/// A number with as many digits as a step needs.
pub(crate) fn text(value: f64, step: f64) -> String {
    if value == 0.0 {
        return "0".into();
    }
    let size = value.abs().max(step);
    let (divisor, unit) = match size {
        _ if size >= 1e15 || step < 0.9999e-4 => return exponential(value),
        _ if size >= 1e9 => (1e9, "G"),
        _ if size >= 1e6 => (1e6, "M"),
        _ if size >= 1e4 => (1e3, "k"),
        _ => (1.0, ""),
    };
    let digits = (-(step / divisor).log10() - 1e-9).ceil().clamp(0.0, 12.0) as usize;
    format!("{:.digits$}{unit}", value / divisor).replace('-', "\u{2212}")
}

/// `2e-5`, without digits that say nothing.
fn exponential(value: f64) -> String {
    let text = format!("{value:.6e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let mantissa = mantissa.trim_end_matches('0').trim_end_matches('.');
    format!("{mantissa}e{exponent}").replace('-', "\u{2212}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(axis: Axis, values: [f64; 2], about: usize) -> Vec<String> {
        let placed = axis.place(values.into_iter(), 0.0, 100.0).expect("a range");
        placed.expect("values").ticks(about).into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn should_place_round_numbers_and_no_more_digits_than_they_need() {
        assert_eq!(texts(Axis::new(""), [0.0, 1.0], 6), ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(texts(Axis::new(""), [-3.0, 3.0], 4), ["\u{2212}2", "0", "2"]);
        assert_eq!(texts(Axis::new(""), [0.0, 600_000.0], 4), ["0", "200k", "400k", "600k"]);
        assert_eq!(texts(Axis::new(""), [7.0, 7.0], 2), ["7.0", "7.5"][..1]);
        let logarithmic = || Axis::new("").logarithmic();
        assert_eq!(texts(logarithmic(), [0.001, 10.0], 5), ["0.001", "0.01", "0.1", "1", "10"]);
        assert_eq!(
            texts(logarithmic(), [1e-5, 1e-4], 5),
            ["1e\u{2212}5", "2e\u{2212}5", "5e\u{2212}5", "0.0001"]
        );
        // Less than a decade.
        assert_eq!(texts(logarithmic(), [4.0, 6.0], 3), ["4", "5", "6"]);
    }

    #[test]
    fn should_put_equal_ratios_equally_far_apart_on_a_logarithmic_axis() {
        let axis = Axis::new("").logarithmic().with_range(1.0, 100.0);
        let placed = axis.place(std::iter::empty(), 0.0, 200.0).expect("a range").expect("placed");
        assert!((placed.at(10.0) - 100.0).abs() < 1e-9);
        assert!((placed.at(1.0)).abs() < 1e-9);
        assert!(!axis.shows(0.0) && !axis.shows(f64::NAN));
    }

    #[test]
    fn should_refuse_a_range_that_is_none() {
        for axis in [
            Axis::new("a").with_range(1.0, 1.0),
            Axis::new("a").with_range(f64::NAN, 1.0),
            Axis::new("a").logarithmic().with_range(0.0, 1.0),
        ] {
            let refused = axis.place([1.0].into_iter(), 0.0, 1.0);
            assert!(matches!(refused, Err(ChartError::Range { .. })));
        }
    }
}
