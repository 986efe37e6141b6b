//! `alitok evaluate`

mod generation;
mod precision;
mod reconstruction;
mod run;
mod sweep;
mod text;

use anyhow::Result;
use burn::tensor::Device as BurnDevice;
use evaluation::{
    EvaluationError, Extractor,
    comparison::{Measured, Measures},
    networks::LpipsMeasure,
    reconstruction::PerceptualMeasure,
};
use pipeline::Device;

use crate::{commands::evaluate::EvaluateVerb, models, reference::device};

pub(crate) fn run(verb: &EvaluateVerb, device: Option<Device>) -> Result<()> {
    match verb {
        EvaluateVerb::Generation(args) => generation::run(args, &device::networks(device)?),
        EvaluateVerb::Statistics(args) => {
            generation::make_statistics(args, &device::networks(device)?)
        }
        EvaluateVerb::Reconstruction(args) => reconstruction::run(args, device),
        EvaluateVerb::Run(args) => run::run(args, device),
        EvaluateVerb::Precision(args) => precision::run(args),
        EvaluateVerb::Sweep(args) => sweep::run(args, device),
        EvaluateVerb::Text(args) => text::run(args, device),
    }
}

/// The network that `--extractor` names.
fn open_extractor(name: &str, device: &BurnDevice) -> Result<Extractor, EvaluationError> {
    Extractor::open(name, models::home(), device)
}

/// The measure that `--lpips` names.
fn open_lpips(
    name: &str,
    device: &BurnDevice,
) -> Result<Box<dyn PerceptualMeasure>, EvaluationError> {
    Ok(Box::new(LpipsMeasure::open(name, device)?))
}

/// A number that is shown with so many decimals, 0 where it would be shown as a negative zero.
fn without_negative_zero(value: f64, decimals: i32) -> f64 {
    if value < 0.0 && value > -0.5 * 10f64.powi(-decimals) { 0.0 } else { value + 0.0 }
}

/// A line a number, the measured beside the published.
fn table(measures: &Measures) -> String {
    let mut text = String::new();
    if measures.measured.iter().any(|measured| measured.published.is_some()) {
        text.push_str(&format!("\n{:<34}{:>12}{:>12}", "", "measured", "published"));
    }
    for Measured { title, value, published, .. } in &measures.measured {
        text.push_str(&format!("\n{title:<34}{:>12.4}", without_negative_zero(*value, 4)));
        if let Some(published) = published {
            text.push_str(&format!("{published:>12}"));
        }
    }
    text
}

/// What a reconstruction has beside its measures, of a codebook of so many codes.
fn reconstruction_details(
    codes: usize,
    usage: f64,
    entropy_bits: f64,
    row_errors: &[f64],
) -> String {
    let first = row_errors.first().copied().unwrap_or_default();
    let others = row_errors.iter().skip(1).sum::<f64>() / (row_errors.len().max(2) - 1) as f64;
    format!(
        "\n{:<34}{:>12.1} %\n{:<34}{:>12.2} of {:.2} bits\n{:<34}{first:>12.5} (mean of the \
         others {others:.5})",
        "codebook usage",
        100.0 * usage,
        "codebook entropy",
        entropy_bits,
        (codes as f64).log2(),
        "error of the first row",
    )
}

#[cfg(test)]
mod tests {
    use super::without_negative_zero;

    #[test]
    fn should_never_show_a_negative_zero() {
        for value in [-0.0, -1e-17, -0.000_049, 0.0, 0.000_049] {
            assert_eq!(format!("{:.4}", without_negative_zero(value, 4)), "0.0000");
        }
        for (value, shown) in [(-0.000_051, "-0.0001"), (1.5, "1.5000")] {
            assert_eq!(format!("{:.4}", without_negative_zero(value, 4)), shown);
        }
        assert!(without_negative_zero(f64::NAN, 4).is_nan());
    }
}
