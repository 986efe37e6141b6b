//! The engine for GPUs behind the pipeline's traits.

use std::sync::{Mutex, PoisonError};

use engine::Drafts;
use engine_gpu::{DecoderWorkspace, EncoderWorkspace, GpuError};
use pixels::Picture;
use tokenizer::{DecoderKind, TokenizerConfig};
use tokens::{CodebookIndex, TokenLayout};

use crate::{
    Batch, Decode, DeviceError, Draw, Encode, PipelineError, Precision, decode::check_tokens,
    encode::check_size, scheduled::ScheduledBatch,
};

impl From<GpuError> for PipelineError {
    fn from(error: GpuError) -> Self {
        DeviceError::Gpu(error).into()
    }
}

impl From<engine_gpu::LoadError> for PipelineError {
    fn from(error: engine_gpu::LoadError) -> Self {
        match error {
            engine_gpu::LoadError::Weights(error) => error.into(),
            engine_gpu::LoadError::Gpu(error) => error.into(),
        }
    }
}

impl From<engine_gpu::DecoderError> for PipelineError {
    fn from(error: engine_gpu::DecoderError) -> Self {
        match error {
            engine_gpu::DecoderError::Config(error) => error.into(),
            engine_gpu::DecoderError::Load(error) => error.into(),
        }
    }
}

/// The number format in which the shaders read weights, if they know it.
pub(crate) fn precision(precision: Precision) -> Option<engine_gpu::Precision> {
    match precision {
        Precision::F32 => Some(engine_gpu::Precision::F32),
        Precision::Bf16 => Some(engine_gpu::Precision::Bf16),
        Precision::Int8 => Some(engine_gpu::Precision::Int8),
        Precision::Int4 => None,
    }
}

pub(crate) struct GpuEncoder {
    encoder: engine_gpu::Encoder,
    work: Mutex<EncoderWorkspace>,
}

impl GpuEncoder {
    pub(crate) fn new(encoder: engine_gpu::Encoder) -> Result<Self, PipelineError> {
        Ok(Self { work: Mutex::new(encoder.workspace()?), encoder })
    }
}

impl Encode for GpuEncoder {
    fn config(&self) -> &TokenizerConfig {
        self.encoder.config()
    }

    fn encode(&self, picture: &Picture) -> Result<Vec<CodebookIndex>, PipelineError> {
        check_size(picture, self.config())?;
        let mut work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(self.encoder.encode(&picture.to_unit_planes(), &mut work)?)
    }
}

pub(crate) struct GpuDecoder {
    decoder: engine_gpu::Decoder,
    work: Mutex<DecoderWorkspace>,
}

impl GpuDecoder {
    pub(crate) fn new(decoder: engine_gpu::Decoder) -> Result<Self, PipelineError> {
        Ok(Self { work: Mutex::new(decoder.workspace()?), decoder })
    }
}

impl Decode for GpuDecoder {
    fn config(&self) -> &TokenizerConfig {
        self.decoder.config()
    }

    fn kind(&self) -> DecoderKind {
        self.decoder.kind()
    }

    fn decode(&self, tokens: &[CodebookIndex]) -> Result<Picture, PipelineError> {
        let config = self.config();
        let rows = check_tokens(tokens, config, self.decodes_rows())?;
        let mut work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        let planes = self.decoder.decode(tokens, &mut work)?;
        Ok(Picture::from_unit_planes(config.image.width, rows * config.patch, &planes)?)
    }

    fn decodes_rows(&self) -> bool {
        self.kind() == DecoderKind::Causal
    }
}

impl Draw for engine_gpu::Generator {
    fn layout(&self) -> TokenLayout {
        self.config().layout
    }

    fn batch(
        &self,
        pictures: usize,
        condition: usize,
    ) -> Result<Box<dyn Batch + Send + '_>, PipelineError> {
        // A guided picture is two sequences; a shader sees all sequences of a layer at once.
        let pictures = pictures.min(self.most_slots(condition) / 2);
        ScheduledBatch::open(self, Drafts::None, pictures, condition, self.position_bytes())
    }
}
