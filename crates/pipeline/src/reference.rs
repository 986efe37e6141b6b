//! The models on Burn behind the pipeline's traits.

use std::collections::VecDeque;

use generator::{
    GenerateError, GeneratorConfig, Request, SamplingConfig,
    reference::{Generator, Sequences},
};
use pixels::Picture;
use rayon::prelude::*;
use tokenizer::{
    DecoderKind, TokenizerConfig,
    reference::{FrozenEncoder, Tokenizer},
};
use tokens::{CodebookIndex, TokenLayout};

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
    fn layout(&self) -> TokenLayout {
        self.config().layout
    }

    fn batch(
        &self,
        pictures: usize,
        _: usize,
    ) -> Result<Box<dyn Batch + Send + '_>, PipelineError> {
        let pictures = pictures.max(1);
        Ok(Box::new(ReferenceBatch {
            generator: self,
            pictures,
            waiting: VecDeque::new(),
            running: Vec::new(),
            next: 0,
        }))
    }
}

/// Requests that the reference draws, so many at a time. Pictures join in groups, because all
/// sequences of the reference's cache are equally long.
struct ReferenceBatch<'a> {
    generator: &'a Generator,
    pictures: usize,
    waiting: VecDeque<Waiting>,
    running: Vec<Group<'a>>,
    next: usize,
}

struct Waiting {
    picture: usize,
    request: Request,
    sampling: SamplingConfig,
}

/// Pictures that are drawn in step.
struct Group<'a> {
    members: Vec<Member>,
    /// Or why no more of it is drawn.
    sequences: Result<Sequences<'a>, GenerateError>,
}

struct Member {
    picture: usize,
    /// Tokens that the request gives.
    forced: usize,
    cancelled: bool,
}

impl<'a> ReferenceBatch<'a> {
    /// Starts groups of requests that can go on in step, as long as there is room.
    fn start(&mut self) {
        while self.running.len() < Sequences::at_the_same_time(self.generator) {
            let drawn: usize = self.running.iter().map(|group| group.members.len()).sum();
            let Some(first) = self.waiting.front() else { return };
            let (sampling, length) = (first.sampling, first.request.condition.length());
            let room = Sequences::capacity(&sampling).min(self.pictures.saturating_sub(drawn));
            let is_alike = |other: &&Waiting| {
                other.sampling == sampling && other.request.condition.length() == length
            };
            let alike = self.waiting.iter().take(room).take_while(is_alike).count();
            if alike == 0 {
                return;
            }
            let (members, requests) = self
                .waiting
                .drain(..alike)
                .map(|Waiting { picture, request, .. }| {
                    let forced = request.forced.len();
                    (Member { picture, forced, cancelled: false }, request)
                })
                .unzip();
            let sequences = Sequences::new(self.generator, requests, &sampling);
            self.running.push(Group { members, sequences });
        }
    }
}

impl Group<'_> {
    /// Decides a token of each picture.
    fn step(&mut self) {
        let stepped = self.sequences.as_mut().map_or(Ok(()), Sequences::step);
        if let Err(error) = stepped {
            self.sequences = Err(error);
        }
    }

    /// Tells what the last step brought. Returns whether the group goes on.
    fn tell(&self, config: &GeneratorConfig, events: &mut Vec<Event>) -> bool {
        let members = self.members.iter().enumerate().filter(|(_, member)| !member.cancelled);
        let sequences = match &self.sequences {
            Ok(sequences) => sequences,
            Err(error) => {
                events.extend(members.map(|(_, member)| Event::Failed {
                    picture: member.picture,
                    error: error.clone(),
                }));
                return false;
            }
        };
        let layout = config.layout;
        for (index, member) in members {
            let (picture, tokens) = (member.picture, sequences.tokens(index));
            let ends = (0..=layout.rows()).any(|rows| layout.len_of_rows(rows) == tokens.len());
            if ends && tokens.len() > member.forced {
                events.push(Event::Row { picture, tokens: tokens.to_vec() });
            }
            if tokens.len() == layout.len() {
                events.push(Event::Finished { picture, tokens: tokens.to_vec() });
            }
        }
        !sequences.is_finished()
    }
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
        self.waiting.push_back(Waiting { picture, request: request.clone(), sampling: *sampling });
        Ok(picture)
    }

    fn cancel(&mut self, picture: usize) -> bool {
        if let Some(place) = self.waiting.iter().position(|waiting| waiting.picture == picture) {
            self.waiting.remove(place);
            return true;
        }
        let members = self.running.iter_mut().flat_map(|group| &mut group.members);
        let found = members.filter(|member| !member.cancelled).find(|m| m.picture == picture);
        let was_drawn = found.map(|member| member.cancelled = true).is_some();
        // Rows are computed for all members or none.
        self.running.retain(|group| group.members.iter().any(|member| !member.cancelled));
        was_drawn
    }

    fn step(&mut self, events: &mut Vec<Event>) {
        self.start();
        match &mut self.running[..] {
            [group] => group.step(),
            groups => groups.par_iter_mut().for_each(Group::step),
        }
        let config = self.generator.config();
        self.running.retain(|group| group.tell(config, events));
    }

    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    fn room(&self) -> usize {
        self.pictures
    }

    fn decided(&self) -> usize {
        let of_group = |group: &Group<'_>| {
            let decided = group.sequences.as_ref().map_or(0, |sequences| sequences.tokens(0).len());
            decided * group.members.iter().filter(|member| !member.cancelled).count()
        };
        self.running.iter().map(of_group).sum()
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
