//! Arguments that several verbs share.

use std::{convert::Infallible, path::PathBuf};

use anyhow::Result;
use clap::{Args, ValueEnum};
use pipeline::{Compute, Device, DraftSource, Precision, SamplingChanges};
use serde::{Deserialize, Serialize};
use token_cache::Shard;
use tokenizer::DecoderKind;

use crate::{processes, tuning};

/// What holds for every verb.
#[derive(Debug, Args)]
pub(crate) struct GlobalArgs {
    /// What computes: `cpu`, `gpu`, or `reference[:NAME[:INDEX]]` for the models on Burn; `alitok
    /// devices` lists all. Default: `reference` for verbs that train, `cpu` for all others.
    #[arg(long, global = true)]
    pub(crate) device: Option<Device>,
    /// Which GPU `--device gpu` is: its number, or a part of its name, as `alitok devices` lists them.
    /// Default: the first that is no program on the processor.
    #[arg(long, global = true, value_name = "NAME_OR_NUMBER")]
    pub(crate) gpu: Option<String>,
    /// Threads to compute on. Default: all that the machine, or the container's quota, allows.
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) threads: Option<u16>,
    /// `--device` took its place.
    #[arg(long, global = true, hide = true, value_parser = engine_is_a_device)]
    engine: Option<Infallible>,
    /// Weights are packed at start.
    #[arg(long, global = true, hide = true, value_parser = packed_is_gone)]
    packed: Option<Infallible>,
}

fn packed_is_gone(_: &str) -> Result<Infallible, String> {
    Err("leave --packed out and give --precision: weights are packed on all threads at start"
        .into())
}

fn engine_is_a_device(engine: &str) -> Result<Infallible, String> {
    Err(match engine {
        "packed" => {
            "write `--device cpu`, or nothing: the packed engine is the device `cpu`".to_owned()
        }
        "burn" => "write `--device reference`: the models on Burn are a device".to_owned(),
        _ => "write `--device`; `alitok devices` lists what it takes".to_owned(),
    })
}

#[derive(Debug, Args)]
pub(crate) struct ModelArgs {
    /// `mini` (bundled), or a model folder, or a run.
    #[arg(long, default_value = "mini")]
    pub(crate) model: String,
}

/// Which decoder turns tokens into pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DecoderName {
    /// Each patch from its own and earlier tokens (first stage).
    Causal,
    /// Each patch from all tokens (second stage).
    Bidirectional,
}

#[derive(Debug, Args)]
pub(crate) struct DecoderArgs {
    /// Decoder; the bidirectional one if the model has it.
    #[arg(long, value_enum)]
    pub(crate) decoder: Option<DecoderName>,
}

impl From<DecoderName> for DecoderKind {
    fn from(name: DecoderName) -> Self {
        match name {
            DecoderName::Causal => Self::Causal,
            DecoderName::Bidirectional => Self::Bidirectional,
        }
    }
}

impl DecoderArgs {
    /// The decoder that was asked for.
    pub(crate) fn kind(&self) -> Option<DecoderKind> {
        self.decoder.map(DecoderKind::from)
    }
}

#[derive(Debug, Args)]
pub(crate) struct CropArgs {
    /// Refuse pictures of another size instead of cropping them to the centre.
    #[arg(long)]
    pub(crate) no_crop: bool,
}

/// Number format of the computation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PrecisionName {
    /// 32-bit floating point.
    F32,
    /// 16-bit brain floating point: half the memory, about the same pictures.
    Bf16,
    /// 8-bit integers: a quarter of the memory, similar pictures.
    Int8,
    /// 4-bit integers, most of the weights: a sixth of the memory, somewhat other pictures.
    Int4,
}

#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct ComputeArgs {
    /// Number format of the computation. Each draws the same pictures from the same seed, every
    /// time; from one format to another they differ. Default: `f32`.
    #[arg(long, value_enum)]
    pub(crate) precision: Option<PrecisionName>,
}

impl From<PrecisionName> for Precision {
    fn from(name: PrecisionName) -> Self {
        match name {
            PrecisionName::F32 => Self::F32,
            PrecisionName::Bf16 => Self::Bf16,
            PrecisionName::Int8 => Self::Int8,
            PrecisionName::Int4 => Self::Int4,
        }
    }
}

impl ComputeArgs {
    /// What was asked to compute.
    pub(crate) fn compute(&self, device: Option<Device>) -> Result<Compute> {
        let precision = self.precision.map(Precision::from);
        let device = match device.unwrap_or_default() {
            // Processes of one machine share its GPUs out by their local ranks.
            Device::Reference { backend, index: None } => {
                Device::Reference { backend, index: processes::local_rank() }
            }
            device => device,
        };
        Ok(Compute::on_gpu(device, tuning::gpu(), precision, Some(tuning::threads()))?)
    }
}

/// What guesses tokens before it is their turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DraftsName {
    /// Nothing.
    None,
    /// The step before, by what it chose for them after wrong tokens (Jacobi decoding).
    Own,
    /// The same model in 8-bit integers, with f32 and bf16.
    Int8,
}

impl From<DraftsName> for DraftSource {
    fn from(name: DraftsName) -> Self {
        match name {
            DraftsName::None => Self::None,
            DraftsName::Own => Self::Own,
            DraftsName::Int8 => Self::Int8,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct SamplingArgs {
    /// Seed; the same seed draws the same pictures.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Strength of classifier-free guidance; 1 (or 0) is none. Default: the model's.
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) guidance: Option<f64>,
    /// Power of the guidance's cosine schedule. Default: the model's.
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) guidance_power: Option<f64>,
    /// Divides the logits; 0 always takes the likeliest token. Default: the model's.
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) temperature: Option<f64>,
    /// Keep only the K likeliest tokens; 0 keeps all.
    #[arg(long, value_name = "K")]
    pub(crate) top_k: Option<usize>,
    /// Keep only the likeliest tokens that sum to probability P; 1 keeps all.
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub(crate) top_p: Option<f64>,
    #[command(flatten)]
    pub(crate) batch: BatchArgs,
    /// Later tokens that are tried beside the next one while few pictures are drawn; changes speed,
    /// not results. `alitok bench speculation` says what it brings.
    #[arg(long, value_enum, default_value_t = DraftsName::None)]
    pub(crate) drafts: DraftsName,
}

impl SamplingArgs {
    /// What was asked to sample otherwise than the model does by itself.
    pub(crate) fn changes(&self) -> SamplingChanges {
        let Self { guidance, guidance_power, temperature, top_k, top_p, .. } = *self;
        SamplingChanges { guidance, guidance_power, temperature, top_k, top_p }
    }
}

#[derive(Debug, Args)]
pub(crate) struct PromptArgs {
    /// What pictures show, in words, of a model that reads prompts. Given several times, or with several
    /// texts, picture i has prompt i mod P.
    #[arg(long, num_args = 1.., value_name = "TEXT")]
    pub(crate) prompt: Vec<String>,
    /// A file with a prompt a line, in UTF-8; empty lines are passed over.
    #[arg(long, value_name = "FILE")]
    pub(crate) prompt_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct BatchArgs {
    /// Pictures that are drawn side by side; changes memory and speed, not results.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) batch: u32,
}

#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct ReplaceArgs {
    /// Put what is made in the place of a folder that holds results already. It changes as a whole, once
    /// all is made, and only if nothing else is in it.
    #[arg(long)]
    pub(crate) replace: bool,
}

#[derive(Debug, Args)]
pub(crate) struct OutputArgs {
    /// Folder for pictures of the rows so far, decoded causally while they are drawn:
    /// `PICTURE-ROWS.png`. Not within a folder that `--out` names.
    #[arg(long, value_name = "DIR")]
    pub(crate) previews: Option<PathBuf>,
    /// What to write: a .png (one grid), a folder (a PNG each), an .npz (`arr_0`, uint8 NHWC) or
    /// a .safetensors (`tokens`, `labels`).
    #[arg(long)]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) replace: ReplaceArgs,
    /// Draw each pixel of a grid as a square of N x N pixels.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) scale: u16,
    /// Write the classes or prompts into a grid.
    #[arg(long)]
    pub(crate) captions: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ShardArgs {
    /// Which part of the work to do: i of n, i counted from 0.
    #[arg(long, value_name = "I/N", default_value_t = Shard::WHOLE)]
    pub(crate) shard: Shard,
}

#[derive(Debug, Args)]
pub(crate) struct DataArgs {
    /// `bundled` or, with captions, `bundled:emoji` (their other sides: `bundled:heldout`,
    /// `bundled:emoji:heldout`), a folder with a sub-folder a class, `FOLDER@LABELS`, or (a pattern of)
    /// tar shards or Parquet files; docs/data.md has the rules.
    #[arg(long)]
    pub(crate) data: String,
}

/// Which weights to take of a file that holds two sets of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WeightsName {
    /// Their moving average over training.
    Ema,
    /// As they were trained.
    Raw,
}

impl From<WeightsName> for weights::WeightsChoice {
    fn from(name: WeightsName) -> Self {
        match name {
            WeightsName::Ema => Self::Ema,
            WeightsName::Raw => Self::Raw,
        }
    }
}

/// How weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StorageName {
    /// 32-bit floating point, as trained.
    F32,
    /// 16-bit brain floating point, half the size.
    Bf16,
}

/// A generator's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum GeneratorPreset {
    /// The bundled model's.
    Mini,
    /// AliTok-B.
    B,
    /// AliTok-L.
    L,
    /// AliTok-XL.
    Xl,
}
