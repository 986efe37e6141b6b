//! Arguments of `alitok evaluate run`

use std::path::PathBuf;

use clap::Args;

use super::{LpipsArgs, OWN};
use crate::args::{BatchArgs, ComputeArgs, ModelArgs, ShardArgs};

/// Measure a model as a published number was measured, and put both side by side
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  alitok evaluate run --model runs/generator --reference photos/ --out evaluation/own
  alitok evaluate run --model runs/stage-2 --data photos/ --out evaluation/own-tokenizer
  alitok evaluate run --model mini --protocol mini mini-stage-2 mini-limit --out evaluation/mini
  alitok evaluate run --model models/alitok-b --protocol paper --reference VIRTUAL_imagenet256_labeled.npz --extractor inception --out evaluation/b
  alitok evaluate run --model models/alitok-b --protocol paper --set count=5000 --set sampling.guidance=16 --reference R --out evaluation/b-16

A protocol is a file: one of the folder `protocols`, by name, or another by path. `paper` is the paper's
guided generation with a model of this architecture. Work is kept in parts of 64 pictures: after an
interruption give the command again; on several machines that share --out, give each its --shard.
Whatever departs from the protocol is refused, unless --set changes the protocol.")]
pub(crate) struct EvaluateRunArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Protocols; with several, each has a folder of its own in --out. `own` fits any model: what it
    /// draws with its own settings against --reference, or, of a tokenizer, how well it rebuilds --data.
    #[arg(long, default_value = OWN, num_args = 1..)]
    pub(crate) protocol: Vec<String>,
    /// Change settings of the protocol, as key=value; then it is another one.
    #[arg(long = "set", num_args = 1.., value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<String>,
    /// What is compared with, where the protocol does not say where that is.
    #[arg(long)]
    pub(crate) reference: Option<String>,
    /// What is reconstructed, where the protocol does not say where that is.
    #[arg(long)]
    pub(crate) data: Option<String>,
    /// The protocol's network: `lite`, `inception` after `alitok weights fetch inception`, or
    /// `inception=FILE`.
    #[arg(long)]
    pub(crate) extractor: Option<String>,
    #[command(flatten)]
    pub(crate) lpips: LpipsArgs,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    #[command(flatten)]
    pub(crate) batch: BatchArgs,
    #[command(flatten)]
    pub(crate) shard: ShardArgs,
    /// Folder for finished parts and the result.
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
    /// Say what would be measured, after all checks; measure and write nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}
