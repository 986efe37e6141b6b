//! The engine for the CPU behind the pipeline's traits.

use std::sync::{Mutex, PoisonError};

use engine::{Drafts, Workspace};
use pixels::Picture;
use tokenizer::{DecoderKind, TokenizerConfig};
use tokens::{CodebookIndex, TokenLayout};

use crate::{
    Batch, Decode, Draw, Encode, PipelineError, decode::check_tokens, encode::check_size,
    scheduled::ScheduledBatch,
};

pub(crate) struct CpuEncoder {
    encoder: engine::Encoder,
    work: Mutex<Workspace>,
}

impl CpuEncoder {
    pub(crate) fn new(encoder: engine::Encoder) -> Self {
        Self { work: Mutex::new(encoder.workspace()), encoder }
    }
}

impl Encode for CpuEncoder {
    fn config(&self) -> &TokenizerConfig {
        self.encoder.config()
    }

    fn encode(&self, picture: &Picture) -> Result<Vec<CodebookIndex>, PipelineError> {
        check_size(picture, self.config())?;
        let mut work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(self.encoder.encode(&picture.to_unit_planes(), &mut work))
    }
}

pub(crate) struct CpuDecoder {
    decoder: engine::Decoder,
    work: Mutex<Workspace>,
}

impl CpuDecoder {
    pub(crate) fn new(decoder: engine::Decoder) -> Self {
        Self { work: Mutex::new(decoder.workspace()), decoder }
    }
}

impl Decode for CpuDecoder {
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
        let planes = self.decoder.decode(tokens, &mut work);
        Ok(Picture::from_unit_planes(config.image.width, rows * config.patch, &planes)?)
    }

    fn decodes_rows(&self) -> bool {
        self.kind() == DecoderKind::Causal
    }
}

/// A generator, and what tries tokens ahead of their turn.
pub(crate) struct CpuDrawer {
    pub(crate) generator: engine::Generator,
    pub(crate) drafts: Drafts<Box<engine::Generator>>,
}

impl Draw for CpuDrawer {
    fn layout(&self) -> TokenLayout {
        self.generator.config().layout
    }

    fn batch(
        &self,
        pictures: usize,
        condition: usize,
    ) -> Result<Box<dyn Batch + Send + '_>, PipelineError> {
        let drafts = match &self.drafts {
            Drafts::None => Drafts::None,
            Drafts::Own => Drafts::Own,
            Drafts::Of(drafter) => Drafts::Of(&**drafter),
        };
        let position = self.generator.position_bytes();
        ScheduledBatch::open(&self.generator, drafts, pictures, condition, position)
    }
}

impl Draw for engine::Generator {
    fn layout(&self) -> TokenLayout {
        self.config().layout
    }

    fn batch(
        &self,
        pictures: usize,
        condition: usize,
    ) -> Result<Box<dyn Batch + Send + '_>, PipelineError> {
        ScheduledBatch::open(self, Drafts::None, pictures, condition, self.position_bytes())
    }
}

/// Ids of a prompt that a batch has room for where prompts are not known before.
pub const PROMPT_ROOM: usize = 512;

impl Draw for engine::LanguageModel {
    fn layout(&self) -> TokenLayout {
        self.config().layout
    }

    fn condition_room(&self) -> usize {
        self.config().most_prompt_ids().min(PROMPT_ROOM)
    }

    fn batch(
        &self,
        pictures: usize,
        condition: usize,
    ) -> Result<Box<dyn Batch + Send + '_>, PipelineError> {
        ScheduledBatch::open(self, Drafts::None, pictures, condition, self.position_bytes())
    }
}
