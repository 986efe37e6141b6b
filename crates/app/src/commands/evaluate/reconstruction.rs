//! `alitok evaluate reconstruction`

use anyhow::Result;
use burn::tensor::Device;
use clap::Args;
use metrics::{FeatureExtractor, frechet_distance};
use pixels::{DataSet, data::Balanced};
use serde_json::{Map, Value};

use super::comparison::{self, Reference, Report, STAND_IN, SeenReference, names_validation};
use crate::{
    args::{ComputeArgs, DataArgs, DecoderArgs, ModelArgs},
    commands::evaluate::{ExtractorArgs, LpipsArgs},
    compute::Compute,
    extractor::{self, Extractor},
    models, progress,
    protocol::Published,
    reconstruction::{self, PerceptualMeasure, Rebuilder, ReconstructionSums},
};

/// Reconstruct a data set: PSNR, SSIM, distance to the originals, codebook, error of each row
#[derive(Debug, Args)]
#[command(after_help = "Example:
  alitok evaluate reconstruction --data bundled:heldout --model mini

PSNR and SSIM are means over pictures of 8-bit values. SSIM is of 11 x 11 Gaussian windows (sigma 1.5)
that lie inside, a channel at a time, range 255. LPIPS is version 0.1 at the pictures' own size. rFID
compares with the very same pictures. JSON has no infinite numbers: there the PSNR of identical pictures
is the text Infinity. Pictures of another size are centre-cropped as ADM does.
Reconstructions of training pictures against a reference for generation (--per-class 50 --reference R)
are the limit that a tokenizer sets to gFID (paper, A.1).")]
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
    #[command(flatten)]
    pub(crate) lpips: LpipsArgs,
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

/// Pictures that the literature's rFID is of: ImageNet's validation side.
const PICTURES: usize = 50_000;

/// Opens a data set, or as many pictures of each of its classes.
pub(super) fn open_data(
    source: &str,
    per_class: Option<usize>,
    seed: u64,
) -> Result<Box<dyn DataSet>> {
    let data = pixels::data::open(source, models::home())?;
    Ok(match per_class {
        Some(per_class) => Box::new(Balanced::choose(source, data, per_class, seed)?),
        None => data,
    })
}

/// Opens the perceptual distances that were asked for.
pub(super) fn perceptual(names: &[String], device: &Device) -> Result<Vec<PerceptualMeasure>> {
    names.iter().map(|name| PerceptualMeasure::open(name, device)).collect()
}

/// All measures of a reconstruction, as an object and in words; against a reference of generation,
/// too, where there is one.
pub(super) fn report(
    sums: &ReconstructionSums,
    model: &model::Model,
    extractor: &Extractor,
    reference: Option<&SeenReference>,
    published: Published,
) -> Result<(Map<String, Value>, String)> {
    let config = &model.config.tokenizer;
    let found = sums.finish(config.image.width, config.patch)?;
    let mut report = Report::new(extractor, published);
    report.add_plain("psnr", "PSNR, dB", found.psnr);
    report.add_plain("ssim", "SSIM", found.ssim);
    for (key, value) in &found.perceptual {
        let network = if key == "lpips_vgg" { "VGG" } else { "Alex" };
        report.add_plain(key, &format!("LPIPS ({network})"), *value);
    }
    if let Some(distance) = found.distance {
        let other = ("lite_frechet_distance", "distance (Lite0, no FID)");
        match reference {
            // Against the very pictures, too, unless rFID is the number that is asked for.
            Some(_) => {
                let title = "rFID (of these pictures)";
                let other = ("lite_own_distance", "  to the originals");
                report.add("own_rfid", title, other, distance);
            }
            None => report.add("rfid", "rFID", other, distance),
        }
    }
    if let Some(reference) = reference {
        let theirs = &reference.statistics.pool;
        let other = ("lite_frechet_distance", "distance to the reference (Lite0)");
        let title = "gFID of the reconstructions";
        report.add("fid", title, other, frechet_distance(&sums.rebuilds()?, theirs)?);
        let other = ("lite_originals_distance", "  of the originals");
        let originals = frechet_distance(&sums.originals()?, theirs)?;
        report.add("originals_fid", "gFID of the originals", other, originals);
    }
    let mut object = report.object();
    object.insert("images".into(), found.count.into());
    object.extend(found.details().map(|(key, value)| (key.to_owned(), value)));
    object.insert("extractor".into(), extractor.name().into());
    let text = report.table() + &found.details_text(config.codes);
    Ok((object, text))
}

pub(super) fn run(
    args: &EvaluateReconstructionArgs,
    device: Option<pipeline::Device>,
) -> Result<()> {
    let source = &args.data.data;
    let data = open_data(source, args.per_class, args.seed)?;
    let model = models::open(&args.model.model)?;
    let burn_device = crate::reference::networks(device)?;
    let extractor = extractor::open(&args.extractor.extractor, &burn_device)?;
    let perceptual = perceptual(&args.lpips.networks, &burn_device)?;
    let reference = args.reference.as_deref().map(|name| Reference::open(name, &extractor));
    let reference = reference.transpose()?;
    let mut departures = Vec::new();
    if let Some(reference) = &reference {
        departures.extend(reference.unfit_for_generation());
    } else if extractor.is_inception() {
        if data.len() != PICTURES {
            departures.push(format!(
                "the literature's rFID is of ImageNet's {PICTURES} validation pictures; these are \
                 {}, and fewer make it larger",
                data.len()
            ));
        }
        if !names_validation(source) {
            departures.push(format!(
                "{source} is no validation side by its name; rFID is measured on pictures that \
                 the tokenizer was not trained on"
            ));
        }
    }
    if !extractor.is_inception() {
        departures.push(STAND_IN.to_owned());
    }
    comparison::note(&departures);
    let compute = Compute::new(&args.compute, device)?;
    let decoding = compute.decoding(&model, &args.decoder)?;
    let encoding = compute.encoding(&model)?;
    let image = model.config.tokenizer.image;
    let reference =
        reference.map(|reference| reference.see(&extractor, (image.width, image.height)));
    let reference = reference.transpose()?;
    let rebuilder = Rebuilder {
        data: data.as_ref(),
        encoding: &encoding,
        decoding: &decoding,
        extractor: &extractor,
        perceptual: &perceptual,
    };
    let sums = reconstruction::measure(&rebuilder)?;
    let (mut object, text) =
        report(&sums, &model, &extractor, reference.as_ref(), Published::default())?;
    if args.json {
        object.insert("decoder".into(), decoding.kind.name().into());
        object.insert("departures".into(), departures.into());
        return progress::result(&Value::Object(object).to_string());
    }
    progress::result(&format!("{} pictures, {} decoder{text}", data.len(), decoding.kind))
}
