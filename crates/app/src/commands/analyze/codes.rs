//! `alitok analyze codes`

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use charts::{Axis, Chart, Figure, Series};
use clap::Args;
use metrics::{FeatureMatrix, Tsne};
use pipeline::Device;

use super::picture;
use crate::{
    args::{ComputeArgs, DataArgs},
    compute::Compute,
    models,
    progress::{self, Progress},
};

/// The used vectors of a codebook on a plane, by t-SNE (paper, Fig. 12)
#[derive(Debug, Args)]
#[command(after_help = "Example:
  alitok analyze codes --data bundled --class 'Smileys & Emotion' --out codes.png")]
pub(crate) struct AnalyzeCodesArgs {
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// `mini` (bundled), or a model folder, or a run. Given again, the figure has a panel for each.
    #[arg(long = "model", value_name = "MODEL", default_value = "mini")]
    pub(crate) models: Vec<String>,
    /// Pictures of one class only, by its name or number in the data set.
    #[arg(long, value_name = "NAME_OR_ID")]
    pub(crate) class: Option<String>,
    /// Pictures whose codes are drawn; the paper has 200.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) count: u32,
    /// How many neighbours a code has, about.
    #[arg(long, default_value_t = 30.0, value_parser = perplexity)]
    pub(crate) perplexity: f64,
    /// Seed of where the points begin.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// The figure, .png or .svg.
    #[arg(long)]
    pub(crate) out: PathBuf,
}

fn perplexity(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if (1.0..=1000.0).contains(&number) => Ok(number),
        _ => Err("write a number from 1 to 1000".to_owned()),
    }
}

pub(crate) fn run(args: &AnalyzeCodesArgs, device: Option<Device>) -> Result<()> {
    let data = pixels::data::open(&args.data.data, models::home())?;
    let chosen: Vec<usize> = match &args.class {
        None => (0..data.len()).collect(),
        Some(class) => {
            let classes = data.classes();
            let label = classes.iter().position(|name| name == class);
            let label = label.or_else(|| class.parse().ok().filter(|&label| label < classes.len()));
            let label = label.with_context(|| {
                format!("--class {class}: the data set has {}", classes.join(", "))
            })?;
            (0..data.len()).filter(|&index| data.label(index) == label).collect()
        }
    };
    let count = chosen.len().min(args.count as usize);
    ensure!(count > 0, "there are no pictures of that class");
    let mut panels = Vec::new();
    for name in &args.models {
        let folder = models::open(name)?;
        let compute = ComputeArgs::default();
        let encoding = Compute::new(&compute, device)?.encoding(&folder)?;
        let mut used = vec![0_u64; encoding.config().codes];
        let mut progress = Progress::new("encoding", count as u64);
        for number in 0..count {
            let index = chosen[number * chosen.len() / count];
            let picture = picture(data.as_ref(), index, encoding.config().image)?;
            for token in encoding.tokens(&picture) {
                used[usize::from(token)] += 1;
            }
            progress.set(number as u64 + 1);
        }
        progress.finish();
        let codebook = folder.tokenizer(&crate::reference::networks(device)?)?.quantizer.codebook();
        let codebook = operations::parameters::host_tensor(codebook);
        let width = codebook.shape[1];
        let of_used = codebook.values.chunks_exact(width).zip(&used).filter(|&(_, &used)| used > 0);
        let vectors: Vec<f32> = of_used.flat_map(|(code, _)| code).copied().collect();
        let vectors = FeatureMatrix::new(width, vectors)?;
        // A method for many points; of few, a third are neighbours.
        let perplexity = args.perplexity.min((vectors.rows() as f64 - 1.0) / 3.0);
        let tsne = Tsne { perplexity, seed: args.seed, ..Tsne::default() };
        let places = tsne.project(&vectors).with_context(|| format!("codes of {name}"))?;
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
        panels.push(Chart {
            title: format!("{name}: {} of {} codes", vectors.rows(), used.len()),
            x: Axis::default(),
            y: Axis::default(),
            series: vec![series(&rare, false), series(&often, true)],
        });
        progress::result(&format!(
            "{name}: {count} pictures use {} of {} codes",
            vectors.rows(),
            used.len()
        ))?;
    }
    Figure::new(panels).with_panel_size(480, 480).write(&args.out)?;
    progress::result(&format!("figure in {}", args.out.display()))
}
