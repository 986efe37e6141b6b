//! Arguments of `alitok evaluate text`

use std::path::PathBuf;

use clap::{ArgGroup, Args};

use crate::args::{ComputeArgs, DecoderArgs, SamplingArgs};

/// Measure a model of prompts: how likely it takes captioned pictures to be, and whether it draws shapes as
/// they are asked for
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).multiple(true).args(["data", "shapes"]))]
#[command(after_help = "Examples:
  alitok evaluate text --model runs/words --data bundled:emoji:heldout
  alitok evaluate text --model runs/shapes-text --data runs/shapes-heldout-cache --shapes
  alitok evaluate text --model runs/shapes-text --shapes runs/shapes/prompts.jsonl --guidance 5 --json

Of captioned pictures: the mean of -log p of a whole picture after its first caption, and after the
unconditional half of guidance. The difference is what the words tell. Pictures without captions are
left out. Of shapes: a picture is right if it shows exactly what its prompt asks for (docs/data.md);
the score of a task is the share of right ones, apart for combinations that no picture to learn from
shows. Beside it stands the score of faultless pictures that went through the tokenizer.")]
pub(crate) struct EvaluateTextArgs {
    /// A model of prompts: a model folder, or a run.
    #[arg(long)]
    pub(crate) model: String,
    /// Captioned pictures that were not learned from, as for `alitok train text`, or a token cache of them.
    #[arg(long)]
    pub(crate) data: Option<String>,
    /// Look at so many of the pictures, evenly over the set. Default: all that have captions.
    #[arg(long, requires = "data", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    pub(crate) count: Option<usize>,
    /// Draw shapes, of the prompts in a file that `alitok data shapes` wrote; without one of those that it
    /// writes by itself.
    #[arg(long, value_name = "PROMPTS", num_args = 0..=1)]
    pub(crate) shapes: Option<Option<PathBuf>>,
    /// Pictures of each prompt of shapes.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) per_prompt: u32,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    #[command(flatten)]
    pub(crate) decoder: DecoderArgs,
    /// Print one JSON object instead of tables.
    #[arg(long)]
    pub(crate) json: bool,
}
