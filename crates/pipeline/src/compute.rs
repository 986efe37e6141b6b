//! What computes.

use std::sync::Arc;

use engine::{Drafts, LanguageModel, Pool, Precision, language_model::LanguageWeights};
use files::safetensors::TensorFile;
use language::LanguageConfig;
use model::Model;
use tokenizer::{DecoderKind, TokenizerConfig};

use crate::{
    Decode, Device, DeviceError, Draw, Encode, PipelineError,
    cpu::{CpuDecoder, CpuDrawer, CpuEncoder},
};

/// A device, and how it computes. It opens the parts of models; the parts share its threads.
#[derive(Debug, Clone, Default)]
pub struct Compute {
    device: Device,
    precision: Precision,
    pool: Arc<Pool>,
    /// The opened GPU, if it is the device.
    #[cfg(feature = "gpu")]
    gpu: Option<engine_gpu::Device>,
}

impl Compute {
    /// Computes on a device, in f32 unless another precision is asked for, with all of the machine's
    /// threads unless fewer are asked for.
    ///
    /// # Errors
    /// If this program was built without the device, it does not have the precision, or it cannot be
    /// opened.
    pub fn new(
        device: Device,
        precision: Option<Precision>,
        threads: Option<usize>,
    ) -> Result<Self, DeviceError> {
        Self::on_gpu(device, None, precision, threads)
    }

    /// [`new`](Self::new), where the device may be the GPU of this number or (part of a) name.
    ///
    /// # Errors
    /// Those of [`new`](Self::new), and if there is no such GPU, or one is named for another device.
    pub fn on_gpu(
        device: Device,
        gpu: Option<&str>,
        precision: Option<Precision>,
        threads: Option<usize>,
    ) -> Result<Self, DeviceError> {
        if let (Some(wanted), true) = (gpu, device != Device::Gpu) {
            return Err(DeviceError::NoGpu { wanted: wanted.to_owned(), device });
        }
        device.check()?;
        let precision = precision.unwrap_or_default();
        let knows = match device {
            Device::Cpu => true,
            Device::Gpu => precision != Precision::Int4,
            _ => precision == Precision::F32,
        };
        if !knows {
            return Err(DeviceError::Precision { device });
        }
        let pool = threads.map_or_else(Arc::default, |threads| Arc::new(Pool::new(threads)));
        Ok(Self {
            device,
            precision,
            pool,
            #[cfg(feature = "gpu")]
            gpu: (device == Device::Gpu).then(|| open_gpu(gpu)).transpose()?,
        })
    }

    /// Computes on a GPU that is open already, with no other thread of the processor than the calling one.
    /// This is for browsers, where a GPU can only be opened by [`engine_gpu::Device::open_later`]. The
    /// generator runs on it there, and the tokenizer on the CPU.
    ///
    /// # Errors
    /// If the shaders do not have the precision.
    #[cfg(feature = "gpu")]
    pub fn with_gpu(
        gpu: engine_gpu::Device,
        precision: Option<Precision>,
    ) -> Result<Self, DeviceError> {
        let (device, precision) = (Device::Gpu, precision.unwrap_or_default());
        if crate::gpu::precision(precision).is_none() {
            return Err(DeviceError::Precision { device });
        }
        Ok(Self { device, precision, pool: Arc::new(Pool::new(1)), gpu: Some(gpu) })
    }

    /// The opened GPU, and the precision of its weights, if it is the device.
    #[cfg(feature = "gpu")]
    fn gpu(&self) -> Option<(&engine_gpu::Device, engine_gpu::Precision)> {
        Some((self.gpu.as_ref()?, crate::gpu::precision(self.precision)?))
    }

    /// The device.
    pub fn device(&self) -> Device {
        self.device
    }

    /// The precision of weights and products.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// What a result's bits depend on, beside the model and the request.
    pub fn name(&self) -> String {
        match self.device {
            Device::Reference { .. } => "burn".to_owned(),
            #[cfg(feature = "gpu")]
            Device::Gpu => {
                let name = self.gpu.as_ref().map_or("", |gpu| &gpu.info().name);
                format!("gpu {} {name}", self.precision.name())
            }
            _ => format!("packed {}", self.precision.name()),
        }
    }

    /// Refuses weights that memory does not hold, before they are read. A GPU with memory of its own
    /// says so itself.
    fn check_memory(&self, what: &'static str, parameters: usize) -> Result<(), PipelineError> {
        #[cfg(feature = "gpu")]
        if self.gpu.as_ref().is_some_and(|gpu| !gpu.info().software) {
            return Ok(());
        }
        let bytes = match self.precision {
            Precision::F32 => 4,
            Precision::Bf16 => 2,
            _ => 1,
        };
        let needed = (parameters as u64).saturating_mul(bytes);
        match machine::available_memory() {
            Some(available) if needed > available => {
                Err(PipelineError::Memory { what, needed, available })
            }
            _ => Ok(()),
        }
    }

    /// The half of a model's tokenizer that makes tokens.
    ///
    /// # Errors
    /// If its weights cannot be read, or do not fit the architecture.
    pub fn encoder(&self, model: &Model) -> Result<Box<dyn Encode>, PipelineError> {
        let config = &model.config.tokenizer;
        let parameters = config.encoder_parameters() + config.codebook_parameters();
        self.check_memory("encoder", parameters)?;
        #[cfg(feature = "reference")]
        if let Device::Reference { backend, index } = self.device {
            let device = crate::reference::device(backend, index);
            return Ok(Box::new(model.tokenizer(&device)?.frozen_encoder()));
        }
        let file = model.tokenizer_file()?;
        #[cfg(feature = "gpu")]
        if let Some((device, precision)) = self.gpu() {
            let encoder = engine_gpu::Encoder::load(&file, config, precision, device)?;
            return Ok(Box::new(crate::gpu::GpuEncoder::new(encoder)?));
        }
        let pool = Arc::clone(&self.pool);
        Ok(Box::new(CpuEncoder::new(engine::Encoder::load(file, config, self.precision, pool)?)))
    }

    /// One of a model's decoders; the best one unless another is asked for.
    ///
    /// # Errors
    /// If the model does not have it, its weights cannot be read, or do not fit the architecture.
    pub fn decoder(
        &self,
        model: &Model,
        kind: Option<DecoderKind>,
    ) -> Result<Box<dyn Decode>, PipelineError> {
        let config = &model.config.tokenizer;
        let kind = decoder_kind(config, kind)?;
        self.check_memory("decoder", config.decoder_parameters(config.decoder(kind)?))?;
        #[cfg(feature = "reference")]
        if let Device::Reference { backend, index } = self.device {
            let tokenizer = model.tokenizer(&crate::reference::device(backend, index))?;
            let config = config.clone();
            return Ok(Box::new(crate::reference::ReferenceDecoder { tokenizer, config, kind }));
        }
        let file = model.tokenizer_file()?;
        #[cfg(feature = "gpu")]
        if let Some((device, precision)) = self.gpu() {
            let decoder = engine_gpu::Decoder::load(&file, config, kind, precision, device)?;
            return Ok(Box::new(crate::gpu::GpuDecoder::new(decoder)?));
        }
        let pool = Arc::clone(&self.pool);
        let decoder = engine::Decoder::load(file, config, kind, self.precision, pool)?;
        Ok(Box::new(CpuDecoder::new(decoder)))
    }

    /// A model's generator or language model.
    ///
    /// # Errors
    /// If the model has neither, its weights cannot be read, or do not fit the architecture.
    pub fn drawer(&self, model: &Model) -> Result<Box<dyn Draw>, PipelineError> {
        self.drawer_with_drafts(model, DraftSource::None)
    }

    /// A model's generator that tries tokens ahead of their turn while few pictures are drawn. That
    /// changes its speed, not what it draws.
    ///
    /// # Errors
    /// Those of [`drawer`](Self::drawer), and if the device or the precision has no use for such drafts.
    pub fn drawer_with_drafts(
        &self,
        model: &Model,
        source: DraftSource,
    ) -> Result<Box<dyn Draw>, PipelineError> {
        if model.config.language.is_some() {
            return match source {
                DraftSource::None => Ok(Box::new(self.language_model(model, false)?)),
                _ => Err(PipelineError::PromptDrafts),
            };
        }
        let config = model.generator_config()?;
        self.check_memory("generator", config.parameter_count())?;
        if source != DraftSource::None && self.device != Device::Cpu {
            return Err(DeviceError::Drafts { device: self.device }.into());
        }
        #[cfg(feature = "reference")]
        if let Device::Reference { backend, index } = self.device {
            return Ok(Box::new(model.generator(&crate::reference::device(backend, index))?));
        }
        let file = model.generator_file()?;
        #[cfg(feature = "gpu")]
        if let Some((device, precision)) = self.gpu() {
            let pool = Arc::clone(&self.pool);
            let generator = engine_gpu::Generator::load(&file, config, precision, device, pool)?;
            return Ok(Box::new(generator));
        }
        let load = |precision| {
            engine::Generator::load(file.clone(), config, precision, Arc::clone(&self.pool))
        };
        let drafts = match source {
            DraftSource::None => Drafts::None,
            DraftSource::Own => Drafts::Own,
            DraftSource::Int8 if self.precision == Precision::Int8 => {
                return Err(PipelineError::Drafts);
            }
            DraftSource::Int8 => Drafts::Of(Box::new(load(Precision::Int8)?)),
        };
        Ok(Box::new(CpuDrawer { generator: load(self.precision)?, drafts }))
    }
}

#[cfg(all(feature = "gpu", not(target_family = "wasm")))]
fn open_gpu(gpu: Option<&str>) -> Result<engine_gpu::Device, engine_gpu::GpuError> {
    engine_gpu::Device::open(gpu)
}

/// In a browser a GPU is opened before, see [`Compute::with_gpu`].
#[cfg(all(feature = "gpu", target_family = "wasm"))]
fn open_gpu(_: Option<&str>) -> Result<engine_gpu::Device, engine_gpu::GpuError> {
    Err(engine_gpu::GpuError::Waiting)
}

impl Compute {
    /// A model's language model, with its head for text where that is wanted.
    ///
    /// # Errors
    /// If the model has none, its weights cannot be read or do not fit the architecture, or the device
    /// does not compute it.
    pub fn language_model(
        &self,
        model: &Model,
        with_text: bool,
    ) -> Result<LanguageModel, PipelineError> {
        let files = [model.language_file()?, model.image_side_file()?];
        self.language_model_of(model.language_config()?, files, model, with_text)
    }

    /// A language model whose weights are in these files, those of `language.safetensors` and of
    /// `image_side.safetensors`, for the tokenizer of a model.
    ///
    /// # Errors
    /// As [`language_model`](Self::language_model).
    pub fn language_model_of(
        &self,
        config: &LanguageConfig,
        [language, image_side]: [TensorFile; 2],
        tokenizer: &Model,
        with_text: bool,
    ) -> Result<LanguageModel, PipelineError> {
        if self.device != Device::Cpu {
            return Err(DeviceError::Prompts { device: self.device }.into());
        }
        let parameters = config.language_parameters() + config.image_side_parameters();
        self.check_memory("language model", parameters)?;
        let weights = LanguageWeights {
            language: language.into(),
            image_side: image_side.into(),
            tokenizer: tokenizer.tokenizer_file()?.into(),
        };
        let load = if with_text { LanguageModel::load_with_text } else { LanguageModel::load };
        Ok(load(&weights, config, self.precision, Arc::clone(&self.pool))?)
    }
}

/// Where tokens come from that are tried ahead of their turn (speculative decoding).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DraftSource {
    /// Nothing is tried.
    #[default]
    None,
    /// What the step before chose for them, after tokens that turned out wrong (Jacobi decoding).
    Own,
    /// The same model in 8-bit integers.
    Int8,
}

/// The decoder that was asked for, or the model's best.
///
/// # Errors
/// If the model does not have it.
pub fn decoder_kind(
    config: &TokenizerConfig,
    kind: Option<DecoderKind>,
) -> Result<DecoderKind, PipelineError> {
    let kind = kind.or_else(|| config.best_decoder()).ok_or(PipelineError::NoDecoder)?;
    config.decoder(kind)?;
    Ok(kind)
}
