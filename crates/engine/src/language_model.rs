//! A language model that reads a prompt and writes a picture's tokens: one step of cached decoding for
//! many sequences.

use std::{io, sync::Arc};

use generator::{Condition, GenerateError, Request, SamplingConfig};
use language::{LanguageConfig, Rotary};
use tokens::{TokenLayout, Vocabulary};

pub use crate::causal::Session;
use crate::{
    causal::{Entry, Shape, Table, Transformer},
    matrix::{Activations, Finish, Matrix, Outputs, Precision},
    parallel::Pool,
    sequence::{SequenceModel, Step},
    tensors::{LoadError, Tensors, Weights},
    transformer::Linear,
};

/// Most positions that one sequence decodes in one step: nearly every prompt is read in one.
const POSITIONS: usize = 256;

/// Name of the codebook among the tokenizer's parameters.
const CODEBOOK: &str = "quantizer.codebook";

/// A Qwen2 with an image side, with packed weights.
///
/// It is immutable; what it has seen of some sequences is in a [`Session`]. The ids of a step are those
/// of text up to the end of its condition, and codes from there on.
pub struct LanguageModel {
    config: LanguageConfig,
    precision: Precision,
    pool: Arc<Pool>,
    instruction_set: &'static str,
    embedding: Table,
    /// What the adaptor makes of each code.
    codes: Table,
    transformer: Transformer,
    head: [Linear; 2],
    /// The head for text, where it is wanted.
    text_head: Option<Matrix>,
    rotary: Rotary,
}

impl std::fmt::Debug for LanguageModel {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { config, precision, instruction_set, .. } = self;
        write!(formatter, "LanguageModel {{ {config:?}, {precision:?}, {instruction_set} }}")
    }
}

/// Where the parts of a [`LanguageModel`] are.
#[derive(Debug, Clone)]
pub struct LanguageWeights {
    /// The language model.
    pub language: Weights,
    /// Adaptor and head.
    pub image_side: Weights,
    /// The tokenizer, whose codebook the adaptor reads.
    pub tokenizer: Weights,
}

impl LanguageWeights {
    /// Random numbers, to measure speed without a model.
    pub fn random() -> Self {
        let random = || Weights::Random;
        Self { language: random(), image_side: random(), tokenizer: random() }
    }
}

impl LanguageModel {
    /// Packs the weights of a model of this valid architecture.
    ///
    /// # Errors
    /// If a file is damaged, a tensor is missing, superfluous or mis-shaped, or there is no memory.
    pub fn load(
        weights: &LanguageWeights,
        config: &LanguageConfig,
        precision: Precision,
        pool: Arc<Pool>,
    ) -> Result<Self, LoadError> {
        Self::load_with(weights, config, precision, pool, false)
    }

    /// [`load`](Self::load) with the head for text, which drawing does not need.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_with_text(
        weights: &LanguageWeights,
        config: &LanguageConfig,
        precision: Precision,
        pool: Arc<Pool>,
    ) -> Result<Self, LoadError> {
        Self::load_with(weights, config, precision, pool, true)
    }

    fn load_with(
        weights: &LanguageWeights,
        config: &LanguageConfig,
        precision: Precision,
        pool: Arc<Pool>,
        with_text: bool,
    ) -> Result<Self, LoadError> {
        let LanguageWeights { language, image_side, tokenizer } = weights;
        let codebook = tokenizer.build(
            &pool,
            |name| name == CODEBOOK,
            |tensors| Ok(tensors.tensor(CODEBOOK, &[config.codes, config.code_size])),
        )?;
        let (codes, head) = image_side.build(
            &pool,
            |_| true,
            |tensors| {
                let codes = adapt(tensors, config, &codebook, &pool)?;
                let codes = Table::new(codes, precision.at_least_bf16());
                // They are small, and what they make is what is chosen from.
                let precision = precision.at_least_bf16();
                let (width, hidden) = (config.width, config.head_hidden);
                let input = Linear::build(tensors, "head.input", width, hidden, precision)?;
                let output =
                    Linear::build(tensors, "head.output", hidden, config.codes, precision)?;
                Ok((codes, [input, output]))
            },
        )?;
        let of_language = |tensors: &mut Tensors<'_>| {
            let shape = Shape {
                width: config.width,
                layers: config.layers,
                heads: config.heads,
                key_value_heads: config.key_value_heads,
                hidden: config.hidden,
                norm_epsilon: config.norm_epsilon as f32,
                query_key_norms: false,
                projection_bias: false,
            };
            let softer = precision.at_least_bf16();
            let text = [config.vocabulary, config.width];
            let embedding = Table::new(tensors.tensor("embedding.weight", &text), softer);
            let transformer = Transformer::build(tensors, shape, precision)?;
            let name = if config.tied { "embedding.weight" } else { "output.weight" };
            let text_head = match with_text {
                true => Some(tensors.matrix(&[name], text, softer)?),
                false => {
                    tensors.leave(name);
                    None
                }
            };
            Ok((embedding, transformer, text_head, tensors.kernels.name))
        };
        let (embedding, transformer, text_head, instruction_set) =
            language.build(&pool, |_| true, of_language)?;
        Ok(Self {
            rotary: Rotary::new(config),
            config: config.clone(),
            precision,
            pool,
            instruction_set,
            embedding,
            codes,
            transformer,
            head,
            text_head,
        })
    }

    /// The architecture.
    pub fn config(&self) -> &LanguageConfig {
        &self.config
    }

    /// The number format of the weights.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The instruction set that was found.
    pub fn instruction_set(&self) -> &'static str {
        self.instruction_set
    }

    /// The threads that it computes on.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// Bytes of all weights that a step reads, without the vectors of text and codes, of which it
    /// reads a row.
    pub fn streamed_bytes(&self) -> usize {
        let head = self.head.iter().map(Linear::matrix);
        self.transformer.matrices().chain(head).map(Matrix::bytes).sum()
    }

    /// Bytes of all weights.
    pub fn weight_bytes(&self) -> usize {
        let text_head = self.text_head.as_ref().map_or(0, Matrix::bytes);
        self.streamed_bytes() + self.embedding.bytes() + self.codes.bytes() + text_head
    }

    /// Multiplications of one position with all weights but the head's.
    pub fn multiplications(&self) -> usize {
        self.transformer.matrices().map(Matrix::multiplications).sum()
    }

    /// Bytes of keys and values of one position of one sequence.
    pub fn position_bytes(&self) -> usize {
        self.transformer.position_bytes()
    }

    /// Room for this many sequences side by side, with prompts of up to `condition` ids.
    ///
    /// # Errors
    /// If the operating system has no memory for that.
    pub fn session(&self, condition: usize, slots: usize) -> Result<Session, GenerateError> {
        // The prompt and all tokens but the last, which predicts nothing.
        let positions = condition + self.config.layout.len() - 1;
        self.transformer.session(&self.pool, positions, slots)
    }

    /// Takes the positions of some sequences through all blocks.
    fn run(&self, session: &mut Session, steps: &[Step<'_>]) {
        self.transformer.enter(session, steps, POSITIONS, |step, entry| {
            let Entry { id, position, x, cosines, sines } = entry;
            let table = if position < step.condition { &self.embedding } else { &self.codes };
            table.copy(id, x);
            self.rotary.write(step.condition, position, cosines, sines);
        });
        self.transformer.run(&self.pool, session);
    }

    /// The logits of the next id of text after each of these, one a row of the embedding. The model
    /// must have been loaded [with its head for text](Self::load_with_text).
    ///
    /// # Errors
    /// If the model has no head for text, an id is out of range, there are more than the longest prompt may
    /// have, or there is no memory.
    pub fn text_logits(&self, ids: &[usize]) -> Result<Vec<f32>, GenerateError> {
        let head = self.text_head.as_ref().ok_or(GenerateError::NoTextHead)?;
        let (limit, room) = (self.config.vocabulary, self.config.most_prompt_ids());
        if let Some(&id) = ids.iter().find(|&&id| id >= limit) {
            return Err(GenerateError::ConditionId { id, limit });
        }
        if ids.len() > room {
            return Err(GenerateError::ConditionRoom { ids: ids.len(), room });
        }
        let mut logits = vec![0.0; ids.len() * limit];
        let mut rows = logits.chunks_exact_mut(limit);
        let mut session = self.session(ids.len(), 1)?;
        let mut out = Outputs::default();
        for (piece, ids_of_piece) in ids.chunks(POSITIONS).enumerate() {
            self.run(
                &mut session,
                &[Step {
                    slot: 0,
                    condition: ids.len(),
                    start: piece * POSITIONS,
                    ids: ids_of_piece,
                    logits: ids_of_piece.len(),
                }],
            );
            self.transformer.finish(&self.pool, &mut session, head);
            head.product(&self.pool, &session.activations, Finish::Plain, &mut out);
            for (row, logits) in rows.by_ref().take(ids_of_piece.len()).enumerate() {
                out.copy(row, 0, logits);
            }
        }
        Ok(logits)
    }
}

/// What the adaptor makes of each code, `[codes, width]`, in f32: it is computed once.
fn adapt(
    tensors: &mut Tensors<'_>,
    config: &LanguageConfig,
    codebook: &[f32],
    pool: &Pool,
) -> io::Result<Vec<f32>> {
    let (size, hidden, width) = (config.code_size, config.adaptor_hidden, config.width);
    let input = Linear::build(tensors, "adaptor.input", size, hidden, Precision::F32)?;
    let output = Linear::build(tensors, "adaptor.output", hidden, width, Precision::F32)?;
    let mut activations = Activations::new(pool);
    let (mut middle, mut out) = (Outputs::default(), Outputs::default());
    activations.set(pool, input.matrix(), config.codes, |code, row| {
        row.copy_from_slice(&codebook[code * size..][..size]);
    });
    input.product_gelu(pool, &activations, &mut middle);
    activations.set_pieces(pool, output.matrix(), config.codes, |code, put| middle.each(code, put));
    output.product(pool, &activations, &mut out);
    let mut values = vec![0.0; config.codes * width];
    for (code, row) in values.chunks_exact_mut(width).enumerate() {
        out.copy(code, 0, row);
    }
    Ok(values)
}

impl SequenceModel for LanguageModel {
    type Session = Session;

    fn layout(&self) -> TokenLayout {
        self.config.layout
    }

    fn codes(&self) -> usize {
        self.config.codes
    }

    fn condition_ids(&self, condition: &Condition) -> Result<[Vec<usize>; 2], GenerateError> {
        Ok(condition.text_ids(self.config.vocabulary)?.map(<[usize]>::to_vec))
    }

    fn validate(&self, request: &Request, sampling: &SamplingConfig) -> Result<(), GenerateError> {
        sampling.validate()?;
        let [ids, _] = request.condition.text_ids(self.config.vocabulary)?;
        let room = self.config.most_prompt_ids();
        if ids.len() > room {
            return Err(GenerateError::ConditionRoom { ids: ids.len(), room });
        }
        request.validate_tokens(Vocabulary::new(self.config.codes, 0), self.config.layout.len())
    }

    fn session(&self, condition: usize, slots: usize) -> Result<Session, GenerateError> {
        LanguageModel::session(self, condition, slots)
    }

    fn step(&self, session: &mut Session, steps: &[Step<'_>]) -> Result<(), GenerateError> {
        self.run(session, steps);
        let [input, output] = &self.head;
        self.transformer.finish(&self.pool, session, input.matrix());
        let Session { wanted, activations, hidden, logits, .. } = session;
        input.product_gelu(&self.pool, activations, hidden);
        let rows = wanted.len();
        activations.set_pieces(&self.pool, output.matrix(), rows, |row, put| hidden.each(row, put));
        output.product(&self.pool, activations, logits);
        Ok(())
    }

    fn logits(&self, session: &Session, index: usize, out: &mut [f32]) {
        session.logits(index, out);
    }

    fn share(
        &self,
        session: &mut Session,
        from: usize,
        to: usize,
        positions: usize,
    ) -> Result<(), GenerateError> {
        session.share(from, to, positions);
        Ok(())
    }

    fn most_positions(&self) -> usize {
        POSITIONS
    }

    fn pool(&self) -> &Pool {
        &self.pool
    }
}
