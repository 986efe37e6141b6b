//! Arguments of `alitok cache`

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::args::{DataArgs, ModelArgs, ReplaceArgs, ShardArgs};

/// Make and read token caches, on which generators train
#[derive(Debug, Subcommand)]
pub(crate) enum CacheVerb {
    Build(CacheBuildArgs),
    /// Describe a token cache
    Info {
        /// The cache.
        cache: PathBuf,
    },
    /// Read every record of a token cache and say which shards are damaged
    Verify {
        /// The cache.
        cache: PathBuf,
    },
    /// Write a token cache for other programs
    #[command(after_help = "Examples:
  alitok cache export C --out codes.npz
  alitok cache export C --out tokens.jsonl
  alitok cache export C --out folder/")]
    Export {
        /// The cache.
        cache: PathBuf,
        /// An .npz file for NumPy (`codes [N, views, L]`, `labels [N]`, `names [N]`), a .jsonl as
        /// 1d-tokenizer has it (a line a view), or a new folder as AliTok has it (an .npz a
        /// picture).
        #[arg(long)]
        out: PathBuf,
        #[command(flatten)]
        replace: ReplaceArgs,
    },
    Import(CacheImportArgs),
}

/// Encode a data set once
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  alitok cache build --data bundled --model runs/stage-2/model --out runs/cache
  alitok cache build --data 'shards/*.tar' --model M --ten-crop --out C --shard 3/16")]
pub(crate) struct CacheBuildArgs {
    #[command(flatten)]
    pub(crate) data: DataArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Ten views a picture: the corners and the centre at 1.1 times the size, and their mirror
    /// images.
    #[arg(long)]
    pub(crate) ten_crop: bool,
    /// Two views a picture: the centre and its mirror image.
    #[arg(long, conflicts_with = "ten_crop")]
    pub(crate) mirrored: bool,
    /// Folder of the cache. One that an earlier call of the same began is gone on with.
    #[arg(long)]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) replace: ReplaceArgs,
    #[command(flatten)]
    pub(crate) shard: ShardArgs,
    /// End at the first picture that cannot be read, and for samples without picture or class, instead
    /// of leaving them out and listing them.
    #[arg(long)]
    pub(crate) strict: bool,
    /// Say what would be cached and how long it would take, from a few pictures; write nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Make a token cache of tokens that another program cached
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  alitok cache import cache_alitok/ --model models/alitok-b --out C
  alitok cache import tokens.jsonl --views 10 --model M --out C")]
pub(crate) struct CacheImportArgs {
    /// A folder as AliTok's pretokenization writes it (an .npz a picture, in a folder a class),
    /// or a .jsonl as 1d-tokenizer's does (a line a view).
    pub(crate) source: PathBuf,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Lines that belong to one picture (.jsonl only).
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) views: u16,
    /// Folder of the cache. One that an earlier call of the same began is gone on with.
    #[arg(long)]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) replace: ReplaceArgs,
    #[command(flatten)]
    pub(crate) shard: ShardArgs,
}
