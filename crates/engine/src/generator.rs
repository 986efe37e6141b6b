//! The generator: one step of cached decoding for many sequences.

use std::{io, sync::Arc};

use generator::{
    Condition, GenerateError, GeneratorConfig, NORM_EPSILON, Request, Rotary, SamplingConfig,
};
use tokens::TokenLayout;

pub use crate::causal::Session;
use crate::{
    causal::{Entry, Shape, Table, Transformer},
    kernels::Kernels,
    matrix::{Finish, Matrix, Precision},
    parallel::Pool,
    sequence::{POSITIONS, SequenceModel, Step},
    tensors::{LoadError, Tensors, Weights},
};

/// The AliTok generator with packed weights (`generator::reference::Generator` is its reference).
///
/// It is immutable; what it has seen of some sequences is in a [`Session`].
pub struct Generator {
    config: GeneratorConfig,
    precision: Precision,
    kernels: &'static Kernels,
    pool: Arc<Pool>,
    embedding: Table,
    transformer: Transformer,
    output: Matrix,
    output_bias: Vec<f32>,
    rotary: Rotary,
}

impl std::fmt::Debug for Generator {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { config, precision, kernels, .. } = self;
        write!(formatter, "Generator {{ {config:?}, {precision:?}, {kernels:?} }}")
    }
}

impl Generator {
    /// Packs the weights of a generator of this valid architecture.
    ///
    /// # Errors
    /// If the file is damaged, a tensor is missing, superfluous or mis-shaped, or there is no memory.
    pub fn load(
        weights: impl Into<Weights>,
        config: &GeneratorConfig,
        precision: Precision,
        pool: Arc<Pool>,
    ) -> Result<Self, LoadError> {
        let packing = Arc::clone(&pool);
        weights.into().build(
            &packing,
            |_| true,
            |tensors| Self::build(tensors, config, precision, pool),
        )
    }

    fn build(
        tensors: &mut Tensors<'_>,
        config: &GeneratorConfig,
        precision: Precision,
        pool: Arc<Pool>,
    ) -> io::Result<Self> {
        let width = config.width;
        let shape = Shape {
            width,
            layers: config.layers,
            heads: config.heads,
            key_value_heads: config.key_value_heads(),
            hidden: config.hidden(),
            norm_epsilon: NORM_EPSILON as f32,
            query_key_norms: true,
            projection_bias: true,
        };
        let transformer = Transformer::build(tensors, shape, precision)?;
        let softer = precision.at_least_bf16();
        let of_output = if precision == Precision::Int4 { Precision::Int8 } else { softer };
        let output = tensors.matrix(&["output.weight"], [config.codes, width], of_output)?;
        Ok(Self {
            embedding: Table::new(
                tensors.tensor("embedding.weight", &[config.vocabulary().len(), width]),
                softer,
            ),
            transformer,
            output,
            output_bias: tensors.tensor("output.bias", &[config.codes]),
            rotary: Rotary::new(&config.layout, config.head()),
            config: config.clone(),
            precision,
            kernels: tensors.kernels,
            pool,
        })
    }

    /// The architecture.
    pub fn config(&self) -> &GeneratorConfig {
        &self.config
    }

    /// The number format of the weights.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The instruction set that was found.
    pub fn instruction_set(&self) -> &'static str {
        self.kernels.name
    }

    /// The threads that it computes on.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    fn matrices(&self) -> impl Iterator<Item = &Matrix> {
        self.transformer.matrices().chain([&self.output])
    }

    /// Bytes of all weights that a step reads, without the embedding, of which it reads a row.
    pub fn streamed_bytes(&self) -> usize {
        self.matrices().map(Matrix::bytes).sum()
    }

    /// Bytes of all weights.
    pub fn weight_bytes(&self) -> usize {
        self.streamed_bytes() + self.embedding.bytes()
    }

    /// Multiplications of one row with all weights.
    pub fn multiplications(&self) -> usize {
        self.matrices().map(Matrix::multiplications).sum()
    }

    /// Bytes of keys and values of one position of one sequence.
    pub fn position_bytes(&self) -> usize {
        self.transformer.position_bytes()
    }

    /// Room for this many sequences side by side, with conditions of one id: classes.
    ///
    /// # Errors
    /// If the operating system has no memory for that.
    pub fn session(&self, slots: usize) -> Result<Session, GenerateError> {
        self.session_after(1, slots)
    }

    /// Room for this many sequences side by side, with conditions of up to `condition` ids.
    ///
    /// # Errors
    /// If the operating system has no memory for that.
    pub fn session_after(&self, condition: usize, slots: usize) -> Result<Session, GenerateError> {
        // The condition and all tokens but the last, which predicts nothing.
        let positions = condition + self.config.layout.len() - 1;
        self.transformer.session(&self.pool, positions, slots)
    }

    /// Decodes the next positions of some sequences, all of them in one pass over the weights.
    /// Logits of those that want them are then in the session, in the order of `steps`.
    ///
    /// A sequence's logits are the same to the bit whatever other sequences there are, and
    /// whether its positions come one by one or several at a time.
    ///
    /// # Panics
    /// If a slot or an identifier is out of range, a slot stands in two steps, a step has no
    /// position or more than [`POSITIONS`], or reaches beyond a whole sequence.
    pub fn step(&self, session: &mut Session, steps: &[Step<'_>]) {
        self.transformer.enter(session, steps, POSITIONS, |step, entry| {
            let Entry { id, position, x, cosines, sines } = entry;
            let tokens = (position + 1).saturating_sub(step.condition);
            assert!(tokens < self.config.layout.len(), "a sequence has an end");
            self.embedding.copy(id, x);
            let row = Rotary::row(step.condition, position);
            cosines.copy_from_slice(self.rotary.cosines(row));
            sines.copy_from_slice(self.rotary.sines(row));
        });
        self.transformer.run(&self.pool, session);
        self.transformer.finish(&self.pool, session, &self.output);
        let Session { activations, logits, .. } = session;
        self.output.product(&self.pool, activations, Finish::Bias(&self.output_bias), logits);
    }
}

impl SequenceModel for Generator {
    type Session = Session;

    fn layout(&self) -> TokenLayout {
        self.config.layout
    }

    fn codes(&self) -> usize {
        self.config.codes
    }

    fn condition_ids(&self, condition: &Condition) -> Result<[Vec<usize>; 2], GenerateError> {
        condition.halves(self.config.vocabulary())
    }

    fn validate(&self, request: &Request, sampling: &SamplingConfig) -> Result<(), GenerateError> {
        request.validate(&self.config, sampling)
    }

    fn session(&self, condition: usize, slots: usize) -> Result<Session, GenerateError> {
        self.session_after(condition, slots)
    }

    fn step(&self, session: &mut Session, steps: &[Step<'_>]) -> Result<(), GenerateError> {
        Generator::step(self, session, steps);
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

    fn pool(&self) -> &Pool {
        &self.pool
    }
}
