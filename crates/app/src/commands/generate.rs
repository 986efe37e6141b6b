//! `alitok generate`

use anyhow::{Context, Result, ensure};
use charts::Sheet;
use clap::{ArgGroup, Args};
use generator::{Condition, Request};
use model::Model;
use pipeline::{Device, Drawing, PreviewWriter, SampleWriter, class_requests, prompt_requests};
use tokenizer::DecoderKind;

use crate::{
    args::{ComputeArgs, DecoderArgs, DraftsName, ModelArgs, OutputArgs, PromptArgs, SamplingArgs},
    models,
    progress::{self, Progress},
    sheet,
};

/// Draw pictures of classes, or of what prompts say
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).args(["class", "prompt", "prompt_file"]))]
#[command(after_help = "Examples:
  alitok generate --class 'Food & Drink' --count 16 --seed 1 --out food.png
  alitok generate --model models/alitok-b --class 207 --class 'red fox' --count 4 --out samples/
  alitok generate --class Flags Objects --count 4 --scale 4 --captions --out grid.png
  alitok generate --class 0 1 2 --count 100 --out samples.npz
  alitok generate --model models/words --prompt 'a red apple' --count 4 --out apples/")]
pub(crate) struct GenerateArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    /// Classes, by name or number, or `all`; `alitok inspect MODEL` lists them.
    #[arg(long, num_args = 1.., value_name = "NAME_OR_ID")]
    pub(crate) class: Vec<String>,
    #[command(flatten)]
    pub(crate) prompts: PromptArgs,
    /// Pictures of each class or prompt; picture i has class i mod C.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) count: u32,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    #[command(flatten)]
    pub(crate) decoder: DecoderArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// What becomes of pictures that are drawn.
pub(crate) struct Outputs<'a> {
    pub(crate) model: &'a Model,
    pub(crate) compute: ComputeArgs,
    pub(crate) sampling: &'a SamplingArgs,
    pub(crate) decoder: &'a DecoderArgs,
    pub(crate) output: &'a OutputArgs,
    /// Columns of a grid.
    pub(crate) columns: usize,
    /// How many prompts the requests go round, if they are of prompts: the label of a picture is its
    /// prompt's number.
    pub(crate) prompts: Option<usize>,
}

impl Outputs<'_> {
    /// Draws requests and writes them. Whatever can be refused is refused before anything is drawn.
    pub(crate) fn draw(&self, requests: &[Request], device: Option<Device>) -> Result<()> {
        let Self { model, compute, sampling: args, decoder, output, columns, prompts } = self;
        let sampling = pipeline::sampling(model, &args.changes())?;
        let labels = match prompts {
            Some(prompts) => Some((0..requests.len()).map(|index| index % prompts).collect()),
            None => requests.iter().map(|request| request.condition.label()).collect(),
        };
        let (count, replace) = (requests.len(), output.replace.replace);
        let samples = SampleWriter::new(&output.out, count, labels, *columns, replace)?;
        let samples = self.with_sheet(samples, requests)?;
        if let Some(previews) = &output.previews {
            samples.check_previews(previews)?;
        }
        let compute = compute.compute(device)?;
        let drawer = match args.drafts {
            DraftsName::None => compute.drawer(model)?,
            drafts => compute.drawer_with_drafts(model, drafts.into()).context("--drafts")?,
        };
        let decoder =
            samples.needs_pictures().then(|| compute.decoder(model, decoder.kind())).transpose()?;
        let causal =
            output.previews.as_ref().map(|_| compute.decoder(model, Some(DecoderKind::Causal)));
        let causal = causal.transpose()?;
        let previews = match (&output.previews, &causal) {
            (Some(folder), Some(causal)) => {
                Some(PreviewWriter::new(folder, &**causal, replace).context("--previews")?)
            }
            _ => None,
        };
        let batch = args.batch.batch as usize;
        let mut drawing = Drawing::of(&*drawer, requests, &sampling, batch)?.in_order();
        let length = drawer.layout().len();
        let mut progress = Progress::new("tokens", (requests.len() * length) as u64);
        let drawn = std::iter::from_fn(|| {
            let event = drawing.next();
            progress.set(drawing.decided() as u64);
            event
        });
        samples.write(decoder.as_deref(), previews.as_ref(), drawn)?;
        progress.finish();
        progress::wrote(count, "picture", &output.out);
        Ok(())
    }
}

impl Outputs<'_> {
    /// The writer with the grid that was asked for.
    fn with_sheet(&self, samples: SampleWriter, requests: &[Request]) -> Result<SampleWriter> {
        let (scale, captions) = (usize::from(self.output.scale), self.output.captions);
        if scale == 1 && !captions {
            return Ok(samples);
        }
        ensure!(
            samples.is_grid(),
            "--scale and --captions are for a grid; name a .png with --out, or leave them out"
        );
        let (columns, image) = (self.columns, self.model.config.tokenizer.image);
        Sheet::check_size(requests.len(), columns, (image.width, image.height), scale)?;
        let name = |request: &Request| match &request.condition {
            Condition::Class(label) => {
                self.model.classes.get(*label).cloned().unwrap_or_else(|| label.to_string())
            }
            Condition::Prompt(prompt) => prompt.text.clone(),
            _ if self.model.config.language.is_some() => "without a prompt".to_owned(),
            _ => "without a class".to_owned(),
        };
        let names = if captions { requests.iter().map(name).collect() } else { Vec::new() };
        let sheet = captioned(&names, columns, scale);
        Ok(samples.with_grid(Box::new(move |pictures| {
            let pictures = pictures.iter().enumerate().map(|(place, picture)| {
                let caption = sheet.pictures.get(place).map_or("", |caption| &caption.title[..]);
                sheet::tile(caption, picture)
            });
            let sheet = Sheet { pictures: pictures.collect(), ..sheet.clone() };
            sheet::picture(&sheet).map_err(|error| error.to_string())
        })))
    }
}

/// A sheet without pixels yet that says each name once where it can: above all, above its column, or
/// else below each picture.
fn captioned(names: &[String], columns: usize, scale: usize) -> Sheet {
    let mut sheet = Sheet { columns, scale, ..Sheet::default() };
    let by_column = names.iter().enumerate().all(|(place, name)| *name == names[place % columns]);
    if let Some(first) = names.first().filter(|first| names.iter().all(|name| name == *first)) {
        sheet.title.clone_from(first);
    } else if by_column {
        sheet.column_names = names[..columns.min(names.len())].to_vec();
    } else {
        let caption = |name: &String| charts::Picture { title: name.clone(), ..Default::default() };
        sheet.pictures = names.iter().map(caption).collect();
    }
    sheet
}

/// The classes of these names or numbers; `all` stands for every one, unless a class is called so.
fn classes(model: &Model, names: &[String]) -> Result<Vec<usize>> {
    let all =
        names.len() == 1 && names[0] == "all" && !model.classes.iter().any(|name| name == "all");
    if all {
        return Ok((0..model.generator_config()?.classes).collect());
    }
    names.iter().map(|class| models::class(model, class)).collect()
}

pub(crate) fn run(args: &GenerateArgs, device: Option<Device>) -> Result<()> {
    let model = models::open(&args.model.model)?;
    let texts = models::prompts(&args.prompts)?;
    let (count, seed) = (args.count as usize, args.sampling.seed);
    let (different, requests) = if texts.is_empty() {
        model.generator_config()?;
        let classes = classes(&model, &args.class)?;
        pipeline::check_count(classes.len(), count)?;
        (classes.len(), class_requests(&classes, count, seed))
    } else {
        let prompts = model.prompts()?;
        pipeline::check_count(texts.len(), count)?;
        (texts.len(), prompt_requests(&prompts, &texts, count, seed)?)
    };
    // One column a class or prompt, or a square of a single one.
    let columns = match different {
        1 => (requests.len() as f64).sqrt().ceil() as usize,
        several => several,
    };
    let outputs = Outputs {
        model: &model,
        compute: args.compute,
        sampling: &args.sampling,
        decoder: &args.decoder,
        output: &args.output,
        columns,
        prompts: (!texts.is_empty()).then_some(texts.len()),
    };
    outputs.draw(&requests, device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_say_each_class_as_seldom_as_it_can() {
        let names =
            |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let one = captioned(&names(&["a", "a", "a"]), 2, 3);
        assert_eq!((&one.title[..], one.scale, one.pictures.len()), ("a", 3, 0));
        let columns = captioned(&names(&["a", "b", "a", "b"]), 2, 1);
        assert_eq!((&columns.title[..], columns.column_names), ("", names(&["a", "b"])));
        let mixed = captioned(&names(&["a", "b", "b"]), 2, 1);
        let titles: Vec<&str> = mixed.pictures.iter().map(|picture| &picture.title[..]).collect();
        assert_eq!((titles, mixed.column_names.len()), (vec!["a", "b", "b"], 0));
        assert_eq!(captioned(&[], 2, 4), Sheet { columns: 2, scale: 4, ..Sheet::default() });
    }
}
