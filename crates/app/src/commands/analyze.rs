//! `alitok analyze`

mod attention;
mod codes;
mod predictability;
mod reconstructions;

use anyhow::Result;
use burn::tensor::{Device, Tensor, TensorData};
use charts::Format;
use clap::Subcommand;
use pixels::{DataSet, Picture, crop::Crop};
use tokenizer::ImageSize;
use tokens::TokenLayout;

use crate::{
    commands::analyze::{
        attention::AnalyzeAttentionArgs, codes::AnalyzeCodesArgs,
        predictability::AnalyzePredictabilityArgs, reconstructions::AnalyzeReconstructionsArgs,
    },
    reference,
};

/// Look into a model: figures, as PNG or SVG
#[derive(Debug, Subcommand)]
pub(crate) enum AnalyzeVerb {
    Attention(AnalyzeAttentionArgs),
    Codes(AnalyzeCodesArgs),
    Predictability(AnalyzePredictabilityArgs),
    Reconstructions(AnalyzeReconstructionsArgs),
}

pub(crate) fn run(verb: &AnalyzeVerb, name: Option<pipeline::Device>) -> Result<()> {
    // Before any work.
    Format::of(match verb {
        AnalyzeVerb::Attention(args) => &args.out,
        AnalyzeVerb::Codes(args) => &args.out,
        AnalyzeVerb::Predictability(args) => &args.out,
        AnalyzeVerb::Reconstructions(args) => &args.out,
    })?;
    match verb {
        AnalyzeVerb::Attention(args) => {
            attention::run(args, &reference::device(name, "analyze attention")?)
        }
        AnalyzeVerb::Codes(args) => codes::run(args, name),
        AnalyzeVerb::Predictability(args) => {
            predictability::run(args, &reference::device(name, "analyze predictability")?)
        }
        AnalyzeVerb::Reconstructions(args) => reconstructions::run(args, name),
    }
}

/// A picture of a data set at a tokenizer's size.
fn picture(data: &dyn DataSet, index: usize, image: ImageSize) -> Result<Picture> {
    let picture = data.picture(index)?;
    Ok(Crop::Center.fit(picture, image.width, image.height, data.name(index))?)
}

/// # Shapes
/// `[1, 3, height, width]` in [0, 1].
fn tensor(picture: &Picture, device: &Device) -> Tensor<4> {
    let shape = [1, 3, picture.height(), picture.width()];
    Tensor::from_data(TensorData::new(picture.to_unit_planes(), shape), device)
}

/// Of a value a token, those of the grid, row by row.
fn rows(layout: TokenLayout, values: &[f64]) -> Vec<Vec<f64>> {
    values[layout.grid_range()].chunks(layout.columns()).map(<[f64]>::to_vec).collect()
}
