//! The vectors of a codebook that pictures use, on a plane (paper, Fig. 12).

use charts::{Axis, Chart, Figure, Series};
use metrics::{FeatureMatrix, Tsne};
use model::Model;
use pipeline::Compute;
use pixels::DataSet;

use super::picture;
use crate::{EvaluationError, Observer};

/// The name of the codebook among a tokenizer's parameters.
const CODEBOOK: &str = "quantizer.codebook";

/// Which codes are laid out, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct CodesOptions {
    /// Pictures of one class only, by its name or number in the data set.
    pub class: Option<String>,
    /// Pictures whose codes are drawn.
    pub count: usize,
    /// About how many neighbours a code has; at least 1.
    pub perplexity: f64,
    /// Seed of where the points begin.
    pub seed: u64,
}

/// Which codes pictures use.
#[derive(Debug, Clone, PartialEq)]
pub struct UsedCodes {
    /// The model, as it was named.
    pub model: String,
    /// Number of pictures.
    pub pictures: usize,
    /// Number of different codes that they use.
    pub used: usize,
    /// Number of codes that there are.
    pub codes: usize,
    /// The codes on a plane.
    pub chart: Chart,
}

/// The figure of several models, a panel each.
pub fn figure(models: impl IntoIterator<Item = UsedCodes>) -> Figure {
    Figure::new(models.into_iter().map(|found| found.chart)).with_panel_size(480, 480)
}

/// The numbers of the pictures of one class, by its name or number, or of all.
///
/// # Errors
/// If there is no such class, or it has no pictures.
fn chosen(data: &dyn DataSet, class: Option<&str>) -> Result<Vec<usize>, EvaluationError> {
    let Some(class) = class else { return Ok((0..data.len()).collect()) };
    let classes = data.classes();
    let label = classes.iter().position(|name| name == class);
    let label = label.or_else(|| class.parse().ok().filter(|&label| label < classes.len()));
    let label = label.ok_or_else(|| {
        let problem = format!("the data set has {}", classes.join(", "));
        EvaluationError::option(format!("--class {class}"), problem)
    })?;
    Ok((0..data.len()).filter(|&index| data.label(index) == label).collect())
}

/// Lays the codes out on a plane that a model's tokens of pictures use.
///
/// # Errors
/// If there is no such class, or a picture cannot be read.
pub fn measure(
    name: &str,
    model: &Model,
    data: &dyn DataSet,
    options: &CodesOptions,
    compute: &Compute,
    observer: &mut dyn Observer,
) -> Result<UsedCodes, EvaluationError> {
    let chosen = chosen(data, options.class.as_deref())?;
    let count = chosen.len().min(options.count);
    if count == 0 {
        return Err(EvaluationError::impossible("there are no pictures of that class"));
    }
    let encoder = compute.encoder(model)?;
    let config = encoder.config();
    let mut used = vec![0_u64; config.codes];
    observer.progress("encoding", 0, count as u64);
    for number in 0..count {
        let index = chosen[number * chosen.len() / count];
        for token in encoder.encode(&picture(data, index, config.image)?)? {
            used[usize::from(token)] += 1;
        }
        observer.progress("encoding", number as u64 + 1, count as u64);
    }
    let tensors = model.tokenizer_tensors()?;
    let codebook = tensors.get(CODEBOOK).ok_or_else(|| {
        EvaluationError::content(model.path(), format!("has no tensor `{CODEBOOK}`"))
    })?;
    let width = config.token_size;
    let of_used = codebook.values.chunks_exact(width).zip(&used).filter(|&(_, &used)| used > 0);
    let vectors: Vec<f32> = of_used.flat_map(|(code, _)| code).copied().collect();
    let vectors = FeatureMatrix::new(width, vectors)?;
    // A method for many points; of few, a third are neighbours.
    let perplexity = options.perplexity.min((vectors.rows() as f64 - 1.0) / 3.0);
    let tsne = Tsne { perplexity, seed: options.seed, ..Tsne::default() };
    let places = tsne.project(&vectors).map_err(EvaluationError::at(format!("codes of {name}")))?;
    // Codes that are used more than most in a colour of their own.
    let mut counts: Vec<u64> = used.iter().copied().filter(|&count| count > 0).collect();
    let places: Vec<_> = places.iter().zip(counts.clone()).collect();
    counts.sort_unstable();
    let median = counts[counts.len() / 2];
    let series = |title: &str, often: bool| {
        let of = places.iter().filter(|&&(_, count)| (count > median) == often);
        Series::dots(title, of.map(|([x, y], _)| (f64::from(*x), f64::from(*y))))
    };
    let rare = format!("used up to {median} times");
    let often = format!("used more than {median} times");
    let chart = Chart {
        title: format!("{name}: {} of {} codes", vectors.rows(), used.len()),
        x: Axis::default(),
        y: Axis::default(),
        series: vec![series(&rare, false), series(&often, true)],
        is_map: true,
    };
    Ok(UsedCodes {
        model: name.to_owned(),
        pictures: count,
        used: vectors.rows(),
        codes: used.len(),
        chart,
    })
}
