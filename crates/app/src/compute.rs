//! Which implementation of the models computes: the engine, or the reference on Burn. Verbs do not
//! know.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Result, ensure};
use burn::tensor::Device;
use engine::{Event, Pool, Precision, Scheduler, Workspace};
use generator::{Generator, GeneratorConfig, Request, SamplingConfig};
use pixels::Picture;
use tokenizer::{DecoderKind, FrozenEncoder, ImageSize, Tokenizer, TokenizerConfig};
use tokens::CodebookIndex;
use weights::ModelFolder;

use crate::{
    args::{ComputeArgs, DecoderArgs, EngineName, PrecisionName},
    device::DeviceName,
    model,
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
    Burn { device: Device },
}

impl Compute {
    pub(crate) fn new(args: &ComputeArgs, device: DeviceName) -> Result<Self> {
        let on_cpu = device == DeviceName::Flex;
        let default = if on_cpu { EngineName::Packed } else { EngineName::Burn };
        match args.engine.unwrap_or(default) {
            EngineName::Packed => {
                ensure!(on_cpu, "--engine packed computes on the CPU only; leave out --device");
                Ok(Self::Engine { precision: args.precision.into(), pool: Arc::default() })
            }
            EngineName::Burn => {
                ensure!(
                    args.precision == PrecisionName::F32,
                    "--engine burn computes in f32 only; leave out --precision or --engine"
                );
                Ok(Self::Burn { device: device.device() })
            }
        }
    }

    /// What the bits of a result hang on beside the model.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Engine { precision, .. } => format!("packed {}", precision.name()),
            Self::Burn { .. } => "burn".to_owned(),
        }
    }

    /// The half of a model's tokenizer that makes tokens.
    pub(crate) fn encoding(&self, model: &ModelFolder) -> Result<Encoding> {
        Ok(match self {
            Self::Engine { precision, pool } => {
                let config = &model.config.tokenizer;
                let path = model.tokenizer_path();
                let encoder = engine::Encoder::open(path, config, *precision, Arc::clone(pool))?;
                let work = Box::new(Mutex::new(encoder.workspace()));
                Encoding::Engine { encoder: Box::new(encoder), work }
            }
            Self::Burn { device } => {
                Encoding::Burn(Box::new(model.tokenizer(device)?.frozen_encoder()))
            }
        })
    }

    /// The half of a model's tokenizer that makes pictures.
    pub(crate) fn decoding(&self, model: &ModelFolder, decoder: &DecoderArgs) -> Result<Decoding> {
        let config = &model.config.tokenizer;
        let kind = model::decoder_kind(config, decoder)?;
        let half = match self {
            Self::Engine { precision, pool } => {
                let path = model.tokenizer_path();
                let decoder =
                    engine::Decoder::open(path, config, kind, *precision, Arc::clone(pool))?;
                let work = Box::new(Mutex::new(decoder.workspace()));
                DecodingHalf::Engine { decoder: Box::new(decoder), work }
            }
            Self::Burn { device } => DecodingHalf::Burn(Box::new(model.tokenizer(device)?)),
        };
        Ok(Decoding { kind, image: config.image, half })
    }

    /// A model's generator.
    pub(crate) fn drawing(&self, model: &ModelFolder) -> Result<Drawing> {
        let config = model.generator_config()?;
        Ok(match self {
            Self::Engine { precision, pool } => Drawing::Engine(Box::new(engine::Generator::open(
                model.generator_path(),
                config,
                *precision,
                Arc::clone(pool),
            )?)),
            Self::Burn { device } => Drawing::Burn(Box::new(model.generator(device)?)),
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
    /// The picture of tokens.
    pub(crate) fn picture(&self, tokens: &[CodebookIndex]) -> Result<Picture> {
        let ImageSize { height, width } = self.image;
        let planes = match &self.half {
            DecodingHalf::Engine { decoder, work } => {
                decoder.decode(tokens, &mut work.lock().unwrap_or_else(PoisonError::into_inner))
            }
            DecodingHalf::Burn(tokenizer) => tokenizer.decode_picture(tokens, self.kind)?,
        };
        Ok(Picture::from_unit_planes(width, height, &planes)?)
    }
}

/// Classes to tokens.
pub(crate) enum Drawing {
    Engine(Box<engine::Generator>),
    Burn(Box<Generator>),
}

impl Drawing {
    pub(crate) fn config(&self) -> &GeneratorConfig {
        match self {
            Self::Engine(generator) => generator.config(),
            Self::Burn(generator) => generator.config(),
        }
    }

    /// Draws requests, `batch` at a time, and hands the tokens of each on, in order. `progress`
    /// is told how many tokens there are.
    pub(crate) fn draw(
        &self,
        requests: &[Request],
        sampling: &SamplingConfig,
        batch: usize,
        mut progress: impl FnMut(usize) + Send,
        mut finished: impl FnMut(&Request, Vec<CodebookIndex>) -> Result<()>,
    ) -> Result<()> {
        match self {
            Self::Engine(generator) => {
                let length = generator.config().layout.len();
                let mut scheduler = Scheduler::new(generator, batch.min(requests.len()));
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
                            Event::Row { .. } => {}
                            Event::Finished { job, tokens } => {
                                early.insert(places[&job], tokens);
                                ended += 1;
                            }
                            Event::Failed { error, .. } => return Err(error.into()),
                        }
                    }
                    while let Some(tokens) = early.remove(&next) {
                        finished(&requests[next], tokens)?;
                        next += 1;
                    }
                    progress(ended * length + scheduler.decided());
                }
                Ok(())
            }
            Self::Burn(generator) => {
                let length = generator.config().layout.len();
                let mut before = 0;
                for requests in requests.chunks(batch) {
                    let tokens = generator::generate(generator, requests, sampling, |step| {
                        progress(before + step.done);
                    })?;
                    before += requests.len() * length;
                    for (request, tokens) in requests.iter().zip(tokens) {
                        finished(request, tokens)?;
                    }
                }
                Ok(())
            }
        }
    }
}
