//! Arguments of `alitok recipe`

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::args::DataArgs;

/// Make recipes for one's own pictures
#[derive(Debug, Subcommand)]
pub(crate) enum RecipeVerb {
    New(RecipeNewArgs),
}

/// Look at pictures and machine and write the three recipes that fit both
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  alitok recipe new --data photos/ --size 128 --hours 8 --out my/
  alitok recipe new --data bundled:emoji --words --size 64 --hours 4 --out my/
  alitok train tokenizer --stage 1 --recipe my/ --data photos/ --out my/stage-1")]
pub(crate) struct RecipeNewArgs {
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// Side of the square pictures in pixels.
    #[arg(long)]
    pub(crate) size: usize,
    /// What will train: this machine's processor, on which some steps are timed, or a GPU, which is
    /// not asked.
    #[arg(long = "for", value_enum, default_value_t = MachineName::Cpu)]
    pub(crate) machine: MachineName,
    /// Hours for all three trainings and the token cache together.
    #[arg(long, default_value_t = 2.0, allow_negative_numbers = true)]
    pub(crate) hours: f64,
    /// Draw from words instead of classes: the third recipe is `text.toml`, of a language model. Pictures with
    /// captions and without classes are for words in any case.
    #[arg(long)]
    pub(crate) words: bool,
    /// Folder for `tokenizer_stage_1.toml`, `tokenizer_stage_2.toml` and `generator.toml` or `text.toml`.
    #[arg(long)]
    pub(crate) out: PathBuf,
}

/// What trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum MachineName {
    /// This machine's processor.
    Cpu,
    /// A GPU.
    Gpu,
}
