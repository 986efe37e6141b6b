//! The models on Burn behind the pipeline's traits.

use std::collections::VecDeque;

use generator::{
    GenerateError, GeneratorConfig, Request, SamplingConfig,
    reference::{Generator, generate},
};
use pixels::Picture;
use tokenizer::{
    DecoderKind, TokenizerConfig,
    reference::{FrozenEncoder, Tokenizer},
};
use tokens::CodebookIndex;

use crate::{
    Batch, Decode, Draw, Encode, Event, PipelineError, ReferenceBackend, decode::check_tokens,
    encode::check_size,
};

impl Encode for FrozenEncoder {
    fn config(&self) -> &TokenizerConfig {
        self.config()
    }

    fn encode(&self, picture: &Picture) -> Result<Vec<CodebookIndex>, PipelineError> {
        check_size(picture, self.config())?;
        Ok(self.encode_picture(picture.to_unit_planes()))
    }
}

pub(crate) struct ReferenceDecoder {
    pub(crate) tokenizer: Tokenizer,
    pub(crate) config: TokenizerConfig,
    pub(crate) kind: DecoderKind,
}

impl Decode for ReferenceDecoder {
    fn config(&self) -> &TokenizerConfig {
        &self.config
    }

    fn kind(&self) -> DecoderKind {
        self.kind
    }

    fn decode(&self, tokens: &[CodebookIndex]) -> Result<Picture, PipelineError> {
        check_tokens(tokens, &self.config, self.decodes_rows())?;
        let planes = self.tokenizer.decode_picture(tokens, self.kind)?;
        let image = self.config.image;
        Ok(Picture::from_unit_planes(image.width, image.height, &planes)?)
    }

    fn decodes_rows(&self) -> bool {
        false
    }
}

impl Draw for Generator {
    fn config(&self) -> &GeneratorConfig {
        self.config()
    }

    fn batch(&self, pictures: usize) -> Result<Box<dyn Batch + Send + '_>, PipelineError> {
        let pictures = pictures.max(1);
        Ok(Box::new(ReferenceBatch {
            generator: self,
            pictures,
            waiting: VecDeque::new(),
            next: 0,
        }))
    }
}

/// Requests that the reference draws, so many at a time. Pictures join only when those before have
/// ended: all sequences of the reference's cache are equally long.
struct ReferenceBatch<'a> {
    generator: &'a Generator,
    pictures: usize,
    waiting: VecDeque<(usize, Request, SamplingConfig)>,
    next: usize,
}

impl Batch for ReferenceBatch<'_> {
    fn submit(
        &mut self,
        request: &Request,
        sampling: &SamplingConfig,
    ) -> Result<usize, GenerateError> {
        request.validate(self.generator.config(), sampling)?;
        let picture = self.next;
        self.next += 1;
        self.waiting.push_back((picture, request.clone(), *sampling));
        Ok(picture)
    }

    fn cancel(&mut self, picture: usize) -> bool {
        let place = self.waiting.iter().position(|(waiting, ..)| *waiting == picture);
        place.and_then(|place| self.waiting.remove(place)).is_some()
    }

    /// Draws the next pictures whole: those that are sampled alike.
    fn step(&mut self, events: &mut Vec<Event>) {
        let Some(&(_, _, sampling)) = self.waiting.front() else { return };
        let alike = self.waiting.iter().take_while(|(_, _, other)| *other == sampling).count();
        let taken: Vec<_> = self.waiting.drain(..alike.min(self.pictures)).collect();
        let requests: Vec<Request> = taken.iter().map(|(_, request, _)| request.clone()).collect();
        let layout = self.generator.config().layout;
        match generate(self.generator, &requests, &sampling, |_| {}) {
            Err(error) => events.extend(
                taken
                    .into_iter()
                    .map(|(picture, ..)| Event::Failed { picture, error: error.clone() }),
            ),
            Ok(drawn) => {
                for ((picture, request, _), tokens) in taken.into_iter().zip(drawn) {
                    let ends = (0..=layout.rows()).map(|rows| layout.len_of_rows(rows));
                    for end in ends.filter(|&end| end > request.forced.len()) {
                        events.push(Event::Row { picture, tokens: tokens[..end].to_vec() });
                    }
                    events.push(Event::Finished { picture, tokens });
                }
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }

    fn decided(&self) -> usize {
        0
    }
}

/// The device on Burn. [`Device::check`](crate::Device::check) has refused what is not compiled in.
pub fn device(backend: ReferenceBackend, index: Option<usize>) -> burn::tensor::Device {
    #[cfg(any(
        feature = "reference-metal",
        feature = "reference-vulkan",
        feature = "reference-wgpu"
    ))]
    let kind = index
        .map_or(burn::tensor::DeviceKind::DefaultDevice, burn::tensor::DeviceKind::DiscreteGpu);
    match backend {
        #[cfg(feature = "reference-cuda")]
        ReferenceBackend::Cuda => burn::tensor::Device::cuda(index.unwrap_or(0)),
        #[cfg(feature = "reference-metal")]
        ReferenceBackend::Metal => burn::tensor::Device::metal(kind),
        #[cfg(feature = "reference-rocm")]
        ReferenceBackend::Rocm => burn::tensor::Device::rocm(index.unwrap_or(0)),
        #[cfg(feature = "reference-vulkan")]
        ReferenceBackend::Vulkan => burn::tensor::Device::vulkan(kind),
        #[cfg(feature = "reference-wgpu")]
        ReferenceBackend::Wgpu => burn::tensor::Device::wgpu(kind),
        _ => {
            let _ = index; // the CPU is one device
            burn::tensor::Device::flex()
        }
    }
}
