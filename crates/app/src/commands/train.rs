//! Arguments of `alitok train`

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::args::DataArgs;

/// Train a tokenizer, a generator, or a model of words
#[derive(Debug, Subcommand)]
pub(crate) enum TrainVerb {
    Tokenizer(TrainTokenizerArgs),
    Generator(TrainGeneratorArgs),
    Text(TrainTextArgs),
}

/// Train a tokenizer: its encoder and first decoder, or its second decoder
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  alitok train tokenizer --stage 1 --recipe mini --data bundled --out runs/stage-1
  alitok train tokenizer --stage 2 --from runs/stage-1 --recipe mini --data bundled --out runs/stage-2")]
pub(crate) struct TrainTokenizerArgs {
    /// 1: encoder, codebook and first decoder. 2: bidirectional decoder.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=2))]
    pub(crate) stage: u8,
    /// `mini`, or a run or model folder. Stage 1 goes on from its parameters, fitted to the size of
    /// the recipe's pictures, instead of beginning at random; the architecture is the model's, unless
    /// --set changes it. Stage 2 needs the first stage's.
    #[arg(long, value_name = "MODEL", required_if_eq("stage", "2"))]
    pub(crate) from: Option<String>,
    /// Stage 2: begin with this model's bidirectional decoder, fitted to the size of the first
    /// stage's pictures, instead of at random.
    #[arg(long, value_name = "MODEL")]
    pub(crate) decoder_from: Option<String>,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// Train a generator on a token cache
#[derive(Debug, Args)]
#[command(after_help = "Example:
  alitok train generator --cache runs/cache --recipe mini --out runs/generator")]
pub(crate) struct TrainGeneratorArgs {
    /// The token cache.
    #[arg(long)]
    pub(crate) cache: PathBuf,
    /// `mini`, or a run or model folder whose generator to go on from, instead of beginning at random;
    /// its classes, which are matched by name, and the size of its pictures may differ. The
    /// architecture is the model's, unless --set changes it.
    #[arg(long, value_name = "MODEL")]
    pub(crate) from: Option<String>,
    /// The data set that was cached, to check that it has the cache's classes and pictures.
    #[arg(long)]
    pub(crate) data: Option<String>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// Train a language model that draws what a caption says
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  alitok train text --data photos/ --model mini --recipe mini-text --out runs/words
  alitok import --language Qwen2-0.5B --tokenizer models/alitok-512 --out models/words
  alitok train text --data runs/cache --model models/words --recipe paper-text --out runs/words")]
pub(crate) struct TrainTextArgs {
    /// Pictures with captions (docs/data.md says how they are given), or a token cache of them. The
    /// tokens of pictures are cached in the run's folder first.
    #[arg(long)]
    pub(crate) data: String,
    /// `mini`, or a run or model folder. One with a language model goes on from it; of any other the
    /// tokenizer is taken, and a language model of the recipe's size begins at random. A token cache
    /// has a tokenizer of its own.
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<String>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// A bundled recipe (`mini`, `quick`, or one of the paper's such as `paper` and `paper-b`; the
    /// folder `recipes` has them all), or a .toml file.
    #[arg(long)]
    pub(crate) recipe: String,
    /// Folder of the run.
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// Continue from the newest checkpoint, or start if there is none.
    #[arg(long)]
    pub(crate) resume: bool,
    /// Continue as with --resume, and let the run have another number of steps than it had.
    #[arg(long)]
    pub(crate) extend: bool,
    /// Say what the run would do and how long it would take, from a few steps; train and write
    /// nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Data that are not trained on, as `--data` or, for a generator or a text model, a token cache; the
    /// recipe's `evaluate_every` says when the loss on them is measured.
    #[arg(long, value_name = "DATA")]
    pub(crate) heldout: Option<String>,
    /// Hold a share of the pictures out, such as 0.05, and measure the loss on them. Their names decide,
    /// so that a tokenizer and a generator hold the same ones out.
    #[arg(long, value_name = "X", conflicts_with = "heldout", allow_negative_numbers = true)]
    pub(crate) heldout_share: Option<f64>,
    /// End at the first picture that cannot be read, instead of listing it and learning from
    /// another in its place, and for samples without picture or class, instead of leaving them out.
    #[arg(long)]
    pub(crate) strict: bool,
    /// Change settings of the recipe.
    #[arg(long = "set", value_name = "KEY=VALUE", num_args = 1..)]
    pub(crate) overrides: Vec<String>,
}
