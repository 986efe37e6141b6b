//! The language model as a whole, with what joins it to the codes of pictures.

use std::sync::Arc;

use burn::{
    module::{Initializer, Module},
    nn::{Embedding, EmbeddingConfig, Linear, RmsNorm},
    tensor::{Device, Int, Tensor, TensorData},
};
use files::{HostTensor, ParameterError, TensorMap};
use operations::{
    fused::{self, gelu},
    layers::{linear, normalize},
    parameters, project,
    tape::{Tape, stack},
};
use tokens::CodebookIndex;

use crate::{
    ConfigError, LanguageConfig, Rotary,
    reference::{
        block::{Block, rms_norm},
        initialization::initialize,
        rotation::Rotation,
    },
};

/// A prompt and what is there of a picture.
#[derive(Debug, Clone, Copy)]
pub struct Sequence<'a> {
    /// The prompt's ids, as [`Prompts`](crate::Prompts) writes them.
    pub prompt: &'a [usize],
    /// Codes of the picture, from the first on.
    pub codes: &'a [CodebookIndex],
}

impl Sequence<'_> {
    fn len(&self) -> usize {
        self.prompt.len() + self.codes.len()
    }
}

/// A Qwen2.
#[derive(Module, Debug)]
pub struct Language {
    /// Vectors of the text tokenizer's ids.
    pub embedding: Embedding,
    /// The transformer.
    pub blocks: Vec<Block>,
    /// Norm after the last block.
    pub norm: RmsNorm,
    /// To one logit an id; without it, the embedding is used.
    pub output: Option<Linear>,
}

/// Linear → GELU → linear.
#[derive(Module, Debug)]
pub struct Perceptron {
    /// To the hidden width.
    pub input: Linear,
    /// From the hidden width.
    pub output: Linear,
}

impl Perceptron {
    fn new([inputs, hidden, outputs]: [usize; 3], device: &Device) -> Self {
        Self {
            input: linear(inputs, hidden, true, device),
            output: linear(hidden, outputs, true, device),
        }
    }

    /// # Shapes
    /// `[.., inputs]` → `[.., outputs]`.
    fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        project(&self.output, gelu(project(&self.input, x)))
    }
}

/// How codes enter the language model and leave it, as in Janus.
#[derive(Module, Debug)]
pub struct ImageLayers {
    /// From a code's vector to the width.
    pub adaptor: Perceptron,
    /// From the width to one logit a code.
    pub head: Perceptron,
}

/// A language model that writes pictures.
#[derive(Module, Debug)]
pub struct LanguageModel {
    /// The language model; its parameters are those of `language.safetensors`.
    pub language: Language,
    /// Adaptor and head; their parameters are those of `image_side.safetensors`.
    pub image_side: ImageLayers,
    #[module(skip)]
    config: LanguageConfig,
    #[module(skip)]
    rotary: Rotary,
    /// The tokenizer's codebook, which is not trained.
    #[module(skip)]
    codebook: Arc<HostTensor>,
}

impl LanguageConfig {
    /// A model whose parameters are zeros (and ones in norms), ready to be loaded. `codebook` is the
    /// tokenizer's, `[codes, code_size]`.
    ///
    /// # Errors
    /// If the architecture cannot be built.
    ///
    /// # Panics
    /// If the codebook has another shape.
    pub fn build(
        &self,
        codebook: HostTensor,
        device: &Device,
    ) -> Result<LanguageModel, ConfigError> {
        self.validate()?;
        assert_eq!(codebook.shape, [self.codes, self.code_size], "shape of the codebook");
        let embedding = EmbeddingConfig::new(self.vocabulary, self.width)
            .with_initializer(Initializer::Zeros)
            .init(device);
        let output = (!self.tied).then(|| linear(self.width, self.vocabulary, false, device));
        Ok(LanguageModel {
            language: Language {
                embedding,
                blocks: (0..self.layers).map(|_| Block::new(self, device)).collect(),
                norm: rms_norm(self, device),
                output,
            },
            image_side: ImageLayers {
                adaptor: Perceptron::new([self.code_size, self.adaptor_hidden, self.width], device),
                head: Perceptron::new([self.width, self.head_hidden, self.codes], device),
            },
            rotary: Rotary::new(self),
            config: self.clone(),
            codebook: Arc::new(codebook),
        })
    }

    /// A model that has learned nothing yet: normal weights of deviation 0.02 and zero biases, each
    /// a pure function of `seed` and the parameter's name.
    ///
    /// # Errors
    /// If the architecture cannot be built.
    ///
    /// # Panics
    /// As [`build`](Self::build).
    pub fn initialize(
        &self,
        codebook: HostTensor,
        seed: u64,
        device: &Device,
    ) -> Result<LanguageModel, ConfigError> {
        Ok(initialize(self.build(codebook, device)?, seed))
    }
}

impl LanguageModel {
    /// The architecture.
    pub fn config(&self) -> &LanguageConfig {
        &self.config
    }

    /// Replaces the parameters by those of the files `language.safetensors` and
    /// `image_side.safetensors`.
    ///
    /// # Errors
    /// All that does not fit: missing, unused and mis-shaped tensors, each by name.
    pub fn load(
        self,
        language: TensorMap,
        image_side: TensorMap,
    ) -> Result<Self, Vec<ParameterError>> {
        let Self { language: empty, image_side: empty_side, config, rotary, codebook } = self;
        let loaded = parameters::load(empty, language);
        let loaded_side = parameters::load(empty_side, image_side);
        match (loaded, loaded_side) {
            (Ok(language), Ok(image_side)) => {
                Ok(Self { language, image_side, config, rotary, codebook })
            }
            (language, image_side) => {
                let problems = [language.err(), image_side.err()];
                Err(problems.into_iter().flatten().flatten().collect())
            }
        }
    }

    /// Gives gradients to these halves alone, so that frozen parameters cost no work.
    #[must_use]
    pub fn training(self, language: bool, image_side: bool) -> Self {
        let Self { language: of_text, image_side: of_pictures, config, rotary, codebook } = self;
        Self {
            language: if language { of_text } else { of_text.no_grad() },
            image_side: if image_side { of_pictures } else { of_pictures.no_grad() },
            config,
            rotary,
            codebook,
        }
    }

    /// The last hidden vectors, behind the last norm. Position i of a sequence predicts what stands at
    /// i + 1. Sequences that are shorter than the longest are followed by padding, which no position
    /// of theirs sees.
    ///
    /// # Shapes
    /// → `[sequences, longest, width]`.
    ///
    /// # Panics
    /// If there is no sequence, one is empty or longer than the model's longest, or has an id or code
    /// out of range.
    pub fn hidden<'a>(
        &'a self,
        sequences: &[Sequence<'_>],
        tape: Option<&mut Tape<'a>>,
    ) -> Tensor<3> {
        let config = &self.config;
        let longest = sequences.iter().map(Sequence::len).max().unwrap_or(0);
        assert!(longest > 0, "a sequence has an id or a code");
        let most = config.most_prompt_ids() + config.layout.len();
        assert!(longest <= most, "{longest} positions of at most {most}");
        let x = self.inputs(sequences, longest);
        let device = x.device();
        let conditions: Vec<usize> = sequences.iter().map(|one| one.prompt.len()).collect();
        let rotation = |device: &Device| {
            Rotation::new(&self.rotary, &conditions, longest, config.head(), device)
        };
        // Blocks on a tape run without gradients first.
        let plain = tape.is_some().then(|| rotation(&device.clone().without_autodiff()));
        let rotation = rotation(&device);
        let x = stack(tape, &self.language.blocks, x, move |block, _, x| {
            let rotation = plain.as_ref().filter(|_| !x.is_autodiff()).unwrap_or(&rotation);
            block.forward(x, rotation)
        });
        normalize(&self.language.norm, x)
    }

    /// What enters the first block.
    ///
    /// # Shapes
    /// → `[sequences, longest, width]`.
    fn inputs(&self, sequences: &[Sequence<'_>], longest: usize) -> Tensor<3> {
        let (config, count) = (&self.config, sequences.len());
        let mut ids = vec![config.control.padding as i64; count * longest];
        let mut vectors = vec![0.0f32; count * longest * config.code_size];
        let mut is_code = vec![0.0f32; count * longest];
        for (row, Sequence { prompt, codes }) in sequences.iter().enumerate() {
            for (at, &id) in prompt.iter().enumerate() {
                assert!(id < config.vocabulary, "id {id} of {}", config.vocabulary);
                ids[row * longest + at] = id as i64;
            }
            for (number, &code) in codes.iter().enumerate() {
                let at = row * longest + prompt.len() + number;
                let size = config.code_size;
                let vector = &self.codebook.values[usize::from(code) * size..][..size];
                vectors[at * size..][..size].copy_from_slice(vector);
                is_code[at] = 1.0;
            }
        }
        let has_codes = is_code.contains(&1.0);
        let device = self.language.embedding.weight.device();
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [count, longest]), &device);
        let text = self.language.embedding.forward(ids);
        if !has_codes {
            return text;
        }
        let vectors = TensorData::new(vectors, [count, longest, config.code_size]);
        let vectors = self.image_side.adaptor.forward(Tensor::<3>::from_data(vectors, &device));
        let is_code = TensorData::new(is_code, [count, longest, 1]);
        let is_code = Tensor::<3>::from_data(is_code, &device);
        let is_text = is_code.clone().neg().add_scalar(1.0);
        text * is_text + vectors * is_code
    }

    /// Logits of the codes behind some places of [`hidden`](Self::hidden), which are counted through all
    /// sequences.
    ///
    /// # Shapes
    /// `hidden [sequences, longest, width]` → `[places, codes]`.
    pub fn code_logits(&self, hidden: Tensor<3>, places: &[usize]) -> Tensor<2> {
        self.image_side.head.forward(at(hidden, places))
    }

    /// Logits of the ids behind some places, as [`code_logits`](Self::code_logits).
    ///
    /// # Shapes
    /// `hidden [sequences, longest, width]` → `[places, vocabulary]`.
    pub fn text_logits_at(&self, hidden: Tensor<3>, places: &[usize]) -> Tensor<2> {
        let hidden = at(hidden, places);
        match &self.language.output {
            Some(output) => project(output, hidden),
            None => fused::linear(hidden, self.language.embedding.weight.val().transpose(), None),
        }
    }
}

/// The vectors at some places, counted through all sequences.
///
/// # Shapes
/// `[sequences, longest, width]` → `[places, width]`.
fn at(hidden: Tensor<3>, places: &[usize]) -> Tensor<2> {
    let [sequences, longest, width] = hidden.dims();
    let places: Vec<i64> = places.iter().map(|&place| place as i64).collect();
    let count = places.len();
    let places = Tensor::from_data(TensorData::new(places, [count]), &hidden.device());
    hidden.reshape([sequences * longest, width]).select(0, places)
}
