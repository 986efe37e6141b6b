//! Which implementation of the models computes: the engine, or the reference on Burn. Verbs do not
//! know.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Result, ensure};
use burn::tensor::Device as BurnDevice;
use engine::{Drafts, Event, Pool, Precision, Scheduler, Workspace};
use generator::{GeneratorConfig, Request, SamplingConfig, reference::Generator};
use model::Model;
use pipeline::{Device, DeviceError};
use pixels::Picture;
use tokenizer::{
    DecoderKind, ImageSize, TokenizerConfig,
    reference::{FrozenEncoder, Tokenizer},
};
use tokens::CodebookIndex;

use crate::{
    args::{ComputeArgs, DecoderArgs, DraftsName, PrecisionName},
    models, reference, tuning,
};

impl From<PrecisionName> for Precision {
    fn from(name: PrecisionName) -> Self {
        match name {
            PrecisionName::F32 => Self::F32,
            PrecisionName::Bf16 => Self::Bf16,
            PrecisionName::Int8 => Self::Int8,
        }
    }
}

/// What was asked to compute.
pub(crate) enum Compute {
    Engine { precision: Precision, pool: Arc<Pool> },
    Burn { device: BurnDevice },
}

impl ComputeArgs {
    /// What computes, as the libraries take it.
    pub(crate) fn pipeline(&self, device: Option<Device>) -> Result<pipeline::Compute> {
        let precision = self.precision.map(Precision::from);
        let threads = Some(tuning::threads());
        Ok(pipeline::Compute::new(device.unwrap_or_default(), precision, threads)?)
    }
}

/// What there is to tell of pictures that are drawn.
pub(crate) enum Drawn {
    /// A row of a picture is decided: the tokens up to its end.
    Row { index: usize, tokens: Vec<CodebookIndex> },
    /// A picture has all of its tokens. Pictures come in the order of their requests.
    Picture { index: usize, tokens: Vec<CodebookIndex> },
}

impl Compute {
    pub(crate) fn new(args: &ComputeArgs, device: Option<Device>) -> Result<Self> {
        let device = device.unwrap_or_default();
        device.check()?;
        if device == Device::Cpu {
            let precision = args.precision.map_or(Precision::F32, Precision::from);
            return Ok(Self::Engine { precision, pool: tuning::pool() });
        }
        if !matches!(args.precision, None | Some(PrecisionName::F32)) {
            return Err(DeviceError::Precision { device }.into());
        }
        Ok(Self::Burn { device: reference::device(Some(device), "this")? })
    }

    /// The half of a model's tokenizer that makes tokens.
    pub(crate) fn encoding(&self, model: &Model) -> Result<Encoding> {
        Ok(match self {
            Self::Engine { precision, pool } => {
                let (config, file) = (&model.config.tokenizer, model.tokenizer_file()?);
                let encoder = engine::Encoder::load(file, config, *precision, Arc::clone(pool))?;
                let work = Box::new(Mutex::new(encoder.workspace()));
                Encoding::Engine { encoder: Box::new(encoder), work }
            }
            Self::Burn { device } => {
                Encoding::Burn(Box::new(model.tokenizer(device)?.frozen_encoder()))
            }
        })
    }

    /// The half of a model's tokenizer that makes pictures.
    pub(crate) fn decoding(&self, model: &Model, decoder: &DecoderArgs) -> Result<Decoding> {
        let config = &model.config.tokenizer;
        let kind = models::decoder_kind(config, decoder)?;
        let half = match self {
            Self::Engine { precision, pool } => {
                let (file, pool) = (model.tokenizer_file()?, Arc::clone(pool));
                let decoder = engine::Decoder::load(file, config, kind, *precision, pool)?;
                let work = Box::new(Mutex::new(decoder.workspace()));
                DecodingHalf::Engine { decoder: Box::new(decoder), work }
            }
            Self::Burn { device } => DecodingHalf::Burn(Box::new(model.tokenizer(device)?)),
        };
        Ok(Decoding { kind, image: config.image, half })
    }

    /// A model's generator, and what drafts for it.
    pub(crate) fn drafting(&self, model: &Model, drafts: DraftsName) -> Result<Drawing> {
        let config = model.generator_config()?;
        Ok(match self {
            Self::Engine { precision, pool } => {
                let file = model.generator_file()?;
                let open = |precision| {
                    engine::Generator::load(file.clone(), config, precision, Arc::clone(pool))
                };
                let generator = open(*precision)?;
                let drafting = match drafts {
                    DraftsName::None => Drafting::None,
                    DraftsName::Own => Drafting::Own,
                    DraftsName::Int8 => {
                        ensure!(
                            *precision != Precision::Int8,
                            "--drafts int8 helps f32 and bf16 only; leave it out with int8"
                        );
                        Drafting::Of(Box::new(open(Precision::Int8)?))
                    }
                };
                Drawing::Engine { generator: Box::new(generator), drafting }
            }
            Self::Burn { device } => {
                ensure!(
                    drafts == DraftsName::None,
                    "--drafts needs the device `cpu`; leave out --device"
                );
                Drawing::Burn(Box::new(model.generator(device)?))
            }
        })
    }
}

/// Pictures to tokens.
pub(crate) enum Encoding {
    Engine { encoder: Box<engine::Encoder>, work: Box<Mutex<Workspace>> },
    Burn(Box<FrozenEncoder>),
}

impl Encoding {
    pub(crate) fn config(&self) -> &TokenizerConfig {
        match self {
            Self::Engine { encoder, .. } => encoder.config(),
            Self::Burn(encoder) => encoder.config(),
        }
    }

    /// The tokens of a picture at the tokenizer's size.
    pub(crate) fn tokens(&self, picture: &Picture) -> Vec<CodebookIndex> {
        let planes = picture.to_unit_planes();
        match self {
            Self::Engine { encoder, work } => {
                encoder.encode(&planes, &mut work.lock().unwrap_or_else(PoisonError::into_inner))
            }
            Self::Burn(encoder) => encoder.encode_picture(planes),
        }
    }
}

/// Tokens to pictures.
pub(crate) struct Decoding {
    pub(crate) kind: DecoderKind,
    image: ImageSize,
    half: DecodingHalf,
}

enum DecodingHalf {
    Engine { decoder: Box<engine::Decoder>, work: Box<Mutex<Workspace>> },
    Burn(Box<Tokenizer>),
}

impl Decoding {
    /// Size of its pictures.
    pub(crate) fn image(&self) -> ImageSize {
        self.image
    }

    /// The picture of tokens; of the first rows' tokens, where the engine decodes causally, the first
    /// rows.
    pub(crate) fn picture(&self, tokens: &[CodebookIndex]) -> Result<Picture> {
        let width = self.image.width;
        let planes = match &self.half {
            DecodingHalf::Engine { decoder, work } => {
                decoder.decode(tokens, &mut work.lock().unwrap_or_else(PoisonError::into_inner))
            }
            DecodingHalf::Burn(tokenizer) => tokenizer.decode_picture(tokens, self.kind)?,
        };
        Ok(Picture::from_unit_planes(width, planes.len() / (3 * width), &planes)?)
    }
}

/// Classes to tokens.
pub(crate) enum Drawing {
    Engine { generator: Box<engine::Generator>, drafting: Drafting },
    Burn(Box<Generator>),
}

/// What tries tokens beside the next one.
pub(crate) enum Drafting {
    None,
    Own,
    Of(Box<engine::Generator>),
}

/// Tokens that are tried at a time.
const WINDOW: usize = 3;

/// Most bytes of keys and values that pictures have side by side: more pictures at a time would
/// not be drawn faster.
const CACHE_BYTES: usize = 4 << 30;

impl Drawing {
    pub(crate) fn config(&self) -> &GeneratorConfig {
        match self {
            Self::Engine { generator, .. } => generator.config(),
            Self::Burn(generator) => generator.config(),
        }
    }

    /// The same, and tells of rows, too (the engine alone).
    pub(crate) fn draw_and_tell(
        &self,
        requests: &[Request],
        sampling: &SamplingConfig,
        batch: usize,
        mut progress: impl FnMut(usize) + Send,
        mut tell: impl FnMut(Drawn) -> Result<()>,
    ) -> Result<()> {
        match self {
            Self::Engine { generator, drafting } => {
                let length = generator.config().layout.len();
                let picture_bytes = 2 * length * generator.position_bytes();
                let pictures = batch.min(requests.len()).min(CACHE_BYTES / picture_bytes);
                let drafts = match drafting {
                    Drafting::None => Drafts::None,
                    Drafting::Own => Drafts::Own,
                    Drafting::Of(drafter) => Drafts::Of(&**drafter),
                };
                let mut scheduler =
                    Scheduler::new(&**generator, pictures)?.with_drafts(drafts, WINDOW)?;
                let mut places = BTreeMap::new();
                for (place, request) in requests.iter().enumerate() {
                    places.insert(scheduler.submit(request.clone(), *sampling)?, place);
                }
                // Pictures of one batch may end in another order than they began.
                let mut early = BTreeMap::new();
                let (mut next, mut ended) = (0, 0);
                let mut events = Vec::new();
                while !scheduler.is_idle() {
                    scheduler.step(&mut events);
                    for event in events.drain(..) {
                        match event {
                            Event::Row { job, tokens } => {
                                tell(Drawn::Row { index: places[&job], tokens })?;
                            }
                            Event::Finished { job, tokens } => {
                                early.insert(places[&job], tokens);
                                ended += 1;
                            }
                            Event::Failed { error, .. } => return Err(error.into()),
                        }
                    }
                    while let Some(tokens) = early.remove(&next) {
                        tell(Drawn::Picture { index: next, tokens })?;
                        next += 1;
                    }
                    progress(ended * length + scheduler.decided());
                }
                Ok(())
            }
            Self::Burn(generator) => {
                let length = generator.config().layout.len();
                let (mut before, mut index) = (0, 0);
                for requests in requests.chunks(batch) {
                    let tokens =
                        generator::reference::generate(generator, requests, sampling, |step| {
                            progress(before + step.done);
                        })?;
                    before += requests.len() * length;
                    for tokens in tokens {
                        tell(Drawn::Picture { index, tokens })?;
                        index += 1;
                    }
                }
                Ok(())
            }
        }
    }
}
