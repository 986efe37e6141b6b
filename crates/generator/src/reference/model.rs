//! The generator as a whole.

use burn::{
    module::{Initializer, Module},
    nn::{Embedding, EmbeddingConfig, Linear, RmsNorm},
    tensor::{Device, Int, Tensor},
};
use operations::{
    layers::{linear, normalize},
    project,
    tape::{Tape, stack},
};

use crate::reference::{
    block::{Block, Context, rms_norm},
    cache::KeyValueCache,
    dropout::{Dropout, Place},
    initialization::initialize,
    rotation::Rotation,
};
use crate::{
    config::{ConfigError, GeneratorConfig},
    rotary::Rotary,
};

/// A decoder-only transformer over [class, tokens…] (paper, section 3.3; LlamaGen's design with
/// QK-norm and two kinds of rotary positions).
#[derive(Module, Debug)]
pub struct Generator {
    /// Vectors of the codes and classes, in the order of [`tokens::Vocabulary`].
    pub embedding: Embedding,
    /// The transformer.
    pub blocks: Vec<Block>,
    /// Norm after the last block.
    pub norm: RmsNorm,
    /// To one logit per code.
    pub output: Linear,
    #[module(skip)]
    config: GeneratorConfig,
    #[module(skip)]
    rotary: Rotary,
}

impl GeneratorConfig {
    /// A generator whose parameters are zeros (and ones in norms), ready to be loaded.
    ///
    /// # Errors
    /// If the architecture cannot be built.
    pub fn build(&self, device: &Device) -> Result<Generator, ConfigError> {
        self.validate()?;
        Ok(Generator {
            embedding: EmbeddingConfig::new(self.vocabulary().len(), self.width)
                .with_initializer(Initializer::Zeros)
                .init(device),
            blocks: (0..self.layers).map(|_| Block::new(self, device)).collect(),
            norm: rms_norm(self.width, device),
            output: linear(self.width, self.codes, true, device),
            rotary: Rotary::new(&self.layout, self.head()),
            config: self.clone(),
        })
    }

    /// A generator that has learned nothing yet: normal weights of deviation 0.02, zero biases,
    /// and a zero output layer, each a pure function of `seed` and the parameter's name.
    ///
    /// # Errors
    /// If the architecture cannot be built.
    pub fn initialize(&self, seed: u64, device: &Device) -> Result<Generator, ConfigError> {
        Ok(initialize(self.build(device)?, seed))
    }
}

impl Generator {
    /// The architecture.
    pub fn config(&self) -> &GeneratorConfig {
        &self.config
    }

    /// An empty cache for `rows` sequences that begin with a class, on the model's device.
    pub fn cache(&self, rows: usize) -> KeyValueCache {
        self.cache_after(1, rows)
    }

    /// An empty cache for `rows` sequences that begin with `condition` condition ids, at least one.
    ///
    /// # Panics
    /// If there is no condition id.
    pub fn cache_after(&self, condition: usize, rows: usize) -> KeyValueCache {
        assert!(condition > 0, "a sequence begins with a condition");
        KeyValueCache::new(&self.config, rows, condition, &self.embedding.weight.device())
    }

    /// Logits at the class and after each token: position i predicts token i. Training needs no
    /// more than all tokens but the last.
    ///
    /// # Shapes
    /// `class_ids [batch]` (see [`tokens::Vocabulary`]), `tokens [batch, length]` with at most a
    /// whole sequence → `[batch, length + 1, codes]`.
    ///
    /// # Panics
    /// If there are more tokens than the layout has.
    pub fn forward(
        &self,
        class_ids: Tensor<1, Int>,
        tokens: Tensor<2, Int>,
        dropout: Option<&Dropout>,
    ) -> Tensor<3> {
        self.forward_on(class_ids, tokens, dropout, None)
    }

    /// [`forward`](Self::forward), on a tape if there is one.
    ///
    /// # Panics
    /// As there.
    pub fn forward_on<'a>(
        &'a self,
        class_ids: Tensor<1, Int>,
        tokens: Tensor<2, Int>,
        dropout: Option<&Dropout>,
        tape: Option<&mut Tape<'a>>,
    ) -> Tensor<3> {
        self.forward_after(class_ids.unsqueeze_dim(1), tokens, dropout, tape)
    }

    /// [`forward_on`](Self::forward_on), after a condition of any length: also logits after each
    /// condition id.
    ///
    /// # Shapes
    /// `condition [batch, count]`, `tokens [batch, length]` → `[batch, count + length, codes]`.
    ///
    /// # Panics
    /// As there.
    pub fn forward_after<'a>(
        &'a self,
        condition: Tensor<2, Int>,
        tokens: Tensor<2, Int>,
        dropout: Option<&Dropout>,
        tape: Option<&mut Tape<'a>>,
    ) -> Tensor<3> {
        let ([_, condition_length], [_, length]) = (condition.dims(), tokens.dims());
        assert!(length <= self.config.layout.len(), "{length} tokens in one sequence");
        let ids = if length == 0 { condition } else { Tensor::cat(vec![condition, tokens], 1) };
        let x = self.embedding.forward(ids);
        let x = match dropout {
            Some(dropout) => dropout.apply(x, Place::Embedding),
            None => x,
        };
        let device = x.device();
        let rotation = |device: &Device| {
            Rotation::new(&self.rotary, condition_length, 0..condition_length + length, device)
        };
        // Blocks on a tape run without gradients first.
        let plain = tape.is_some().then(|| rotation(&device.clone().without_autodiff()));
        let rotation = rotation(&device);
        let dropout = dropout.copied();
        let x = stack(tape, &self.blocks, x, move |block, layer, x| {
            let rotation = plain.as_ref().filter(|_| !x.is_autodiff()).unwrap_or(&rotation);
            let context = Context { rotation, layer, dropout: dropout.as_ref(), memory: None };
            block.forward(x, context)
        });
        project(&self.output, normalize(&self.norm, x))
    }

    /// Decodes one more position of each sequence: the condition first, then its tokens one by one.
    ///
    /// # Shapes
    /// `ids [rows]` → logits of the token that follows, `[rows, codes]`.
    ///
    /// # Panics
    /// If the cache is full, or made for another number of rows.
    pub fn step(&self, ids: Tensor<1, Int>, cache: &mut KeyValueCache) -> Tensor<2> {
        let [rows] = ids.dims();
        assert_eq!(rows, cache.rows(), "rows of the cache");
        let position = cache.len();
        assert!(position < cache.capacity(), "the cache is full: {position} positions");
        let mut x = self.embedding.forward(ids.reshape([rows, 1]));
        let rotation =
            Rotation::new(&self.rotary, cache.condition(), position..position + 1, &x.device());
        for ((layer, block), memory) in self.blocks.iter().enumerate().zip(&mut cache.layers) {
            let memory = Some((memory, position));
            let context = Context { rotation: &rotation, layer, dropout: None, memory };
            x = block.forward(x, context);
        }
        cache.advance();
        project(&self.output, normalize(&self.norm, x)).squeeze_dim(1)
    }
}
