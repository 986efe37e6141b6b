//! Both halves of the tokenizer: pictures to tokens, and tokens to pictures.

use std::{io, sync::Arc};

use tokenizer::{ConfigError, DecoderConfig, DecoderKind, EncoderInput, TokenizerConfig};
use tokens::CodebookIndex;

use crate::{
    kernels::Kernels,
    matrix::{Finish, Matrix, Precision, grow},
    parallel::Pool,
    tensors::{LoadError, Tensors, Weights},
    transformer::{Linear, Transformer, Workspace},
};

/// Learned vectors, `[rows, width]`.
struct Vectors {
    values: Vec<f32>,
    width: usize,
}

impl Vectors {
    fn build(tensors: &mut Tensors<'_>, name: &str, rows: usize, width: usize) -> Self {
        Self { values: tensors.tensor(name, &[rows, width]), width }
    }

    fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.width..][..self.width]
    }
}

/// Pictures to tokens: encoder, latents and codebook (`tokenizer::FrozenEncoder` is its
/// reference).
pub struct Encoder {
    config: TokenizerConfig,
    pool: Arc<Pool>,
    patch_embedding: Linear,
    positions: Vectors,
    latents: Option<[Vectors; 2]>,
    transformer: Transformer,
    to_code: Linear,
    codebook: Matrix,
    /// Squared length of each code.
    code_norms: Vec<f32>,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Encoder {{ {:?} }}", self.config)
    }
}

/// What the names of the parameters begin with that a tokenizer has beside the encoder (`None`) or
/// one of its decoders. Any other name must be that part's own, or the quantizer's, which all use.
fn of_other_parts(
    config: &TokenizerConfig,
    part: Option<DecoderKind>,
) -> impl Iterator<Item = String> {
    let decoders = [DecoderKind::Causal, DecoderKind::Bidirectional].into_iter();
    let others = decoders.filter(move |&kind| Some(kind) != part && config.decoder(kind).is_ok());
    let encoder = part.is_some().then(|| "encoder.".to_owned());
    others.map(|kind| format!("{}.", kind.section())).chain(encoder)
}

/// Whether a tensor of this name belongs to the encoder (`None`) or one of the decoders, rather than
/// to another part.
pub fn belongs(config: &TokenizerConfig, part: Option<DecoderKind>) -> impl Fn(&str) -> bool {
    let others: Vec<String> = of_other_parts(config, part).collect();
    move |name| !others.iter().any(|part| name.starts_with(part))
}

impl Encoder {
    /// Packs what the weights of a tokenizer of this valid architecture hold of the encoder.
    ///
    /// # Errors
    /// If the file is damaged, a tensor is missing, superfluous or mis-shaped, or there is no memory.
    pub fn load(
        weights: impl Into<Weights>,
        config: &TokenizerConfig,
        precision: Precision,
        pool: Arc<Pool>,
    ) -> Result<Self, LoadError> {
        let precision = precision.at_least_int8();
        let packing = Arc::clone(&pool);
        weights.into().build(&packing, belongs(config, None), |tensors| {
            Self::build(tensors, config, precision, pool)
        })
    }

    fn build(
        tensors: &mut Tensors<'_>,
        config: &TokenizerConfig,
        precision: Precision,
        pool: Arc<Pool>,
    ) -> io::Result<Self> {
        let (width, layout) = (config.encoder.width, config.layout());
        let mut vectors = |name: &str, rows| Vectors::build(tensors, name, rows, width);
        let latents = match config.encoder_input {
            EncoderInput::CausalPatches => None,
            EncoderInput::PatchesAndLatents => Some(
                ["encoder.latents.tokens", "encoder.latents.positions"]
                    .map(|name| vectors(name, layout.len())),
            ),
        };
        let positions = vectors("encoder.positions", layout.grid());
        let codebook = tensors.tensor("quantizer.codebook", &[config.codes, config.token_size]);
        let norm = |code: &[f32]| code.iter().map(|value| value * value).sum();
        Ok(Self {
            patch_embedding: Linear::build(
                tensors,
                "encoder.patch_embedding",
                config.patch_values(),
                width,
                precision.at_least_bf16(),
            )?,
            positions,
            transformer: Transformer::build(
                tensors,
                "encoder",
                config.encoder,
                precision,
                latents.is_none(),
            )?,
            latents,
            // It is small, and so are the differences that decide between two codes.
            to_code: Linear::build(
                tensors,
                "encoder.to_code",
                width,
                config.token_size,
                Precision::F32,
            )?,
            code_norms: codebook.chunks(config.token_size).map(norm).collect(),
            codebook: Matrix::pack(tensors.kernels, Precision::F32, &codebook, config.token_size)?,
            config: config.clone(),
            pool,
        })
    }

    /// The architecture that it is part of.
    pub fn config(&self) -> &TokenizerConfig {
        &self.config
    }

    /// Bytes of the blocks' weights.
    pub fn weight_bytes(&self) -> usize {
        self.transformer.bytes()
    }

    /// Multiplications of a picture in the blocks.
    pub fn multiplications(&self) -> usize {
        let latents = if self.latents.is_some() { self.config.layout().len() } else { 0 };
        self.transformer.multiplications(self.config.layout().grid() + latents)
    }

    /// Memory for [`encode`](Self::encode).
    pub fn workspace(&self) -> Workspace {
        Workspace::new(&self.pool)
    }

    /// The tokens of one picture.
    ///
    /// # Shapes
    /// `planes [3, height, width]` row-major in [0, 1] → `[length]`.
    ///
    /// # Panics
    /// If the picture has another size than the tokenizer's.
    pub fn encode(&self, planes: &[f32], work: &mut Workspace) -> Vec<CodebookIndex> {
        let Self { config, pool, .. } = self;
        let (image, patch, layout) = (config.image, config.patch, config.layout());
        assert_eq!(planes.len(), 3 * image.height * image.width, "values of a picture");
        let (width, grid) = (config.encoder.width, layout.grid());
        work.activations.set(pool, self.patch_embedding.matrix(), grid, |cell, out| {
            let (row, column) = (cell / layout.columns(), cell % layout.columns());
            for (pixel, out) in out.chunks_exact_mut(3).enumerate() {
                let (y, x) = (row * patch + pixel / patch, column * patch + pixel % patch);
                for (channel, out) in out.iter_mut().enumerate() {
                    *out = planes[(channel * image.height + y) * image.width + x];
                }
            }
        });
        self.patch_embedding.product(pool, &work.activations, &mut work.out);
        let rows = if self.latents.is_some() { grid + layout.len() } else { grid };
        grow(&mut work.x, rows * width, 0.0);
        for (row, x) in work.x.chunks_exact_mut(width).take(rows).enumerate() {
            match (&self.latents, row.checked_sub(grid)) {
                (Some([tokens, positions]), Some(latent)) => {
                    let sum = tokens.row(latent).iter().zip(positions.row(latent));
                    x.iter_mut().zip(sum).for_each(|(x, (token, position))| *x = token + position);
                }
                _ => {
                    x.copy_from_slice(self.positions.row(row));
                    work.out.add_to(row, x);
                }
            }
        }
        self.transformer.run(pool, rows, work);
        let (first, length) = (rows - layout.len().min(rows), layout.len().min(rows));
        let Workspace { x, activations, out, .. } = work;
        activations.set(pool, self.to_code.matrix(), length, |row, out| {
            self.transformer.output(&x[(first + row) * width..][..width], out);
        });
        self.to_code.product(pool, activations, out);
        let mut features = vec![0.0; length * config.token_size];
        for (row, feature) in features.chunks_exact_mut(config.token_size).enumerate() {
            out.copy(row, 0, feature);
        }
        self.nearest(&features, work)
    }

    /// The nearest code of every feature; of equally near ones, the first.
    fn nearest(&self, features: &[f32], work: &mut Workspace) -> Vec<CodebookIndex> {
        let size = self.config.token_size;
        let Workspace { activations, out, .. } = work;
        let length = features.len() / size;
        activations.set(&self.pool, &self.codebook, length, |row, out| {
            out.copy_from_slice(&features[row * size..][..size]);
        });
        self.codebook.product(&self.pool, activations, Finish::Plain, out);
        let mut products = vec![0.0; self.config.codes];
        features
            .chunks_exact(size)
            .enumerate()
            .map(|(row, feature)| {
                out.copy(row, 0, &mut products);
                let norm: f32 = feature.iter().map(|value| value * value).sum();
                let distances = products
                    .iter()
                    .zip(&self.code_norms)
                    .map(|(dot, code)| norm + code - 2.0 * dot);
                let nearest = distances
                    .enumerate()
                    .reduce(|best, next| if next.1 < best.1 { next } else { best });
                let (index, _) = nearest.expect("a codebook has codes");
                CodebookIndex::try_from(index).expect("codes fit, the config was checked")
            })
            .collect()
    }
}

/// Tokens to pictures: codebook and one decoder (`tokenizer::Tokenizer` is its reference).
pub struct Decoder {
    config: TokenizerConfig,
    kind: DecoderKind,
    kernels: &'static Kernels,
    pool: Arc<Pool>,
    codebook: Vectors,
    embedding: Linear,
    leading: Vectors,
    positions: Vectors,
    transformer: Transformer,
    patch: Linear,
    /// A linear layer over the three channels of each pixel, `[out, in]`.
    color: Vec<f32>,
    color_bias: Vec<f32>,
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Decoder {{ {:?}, {:?} }}", self.config, self.kind)
    }
}

/// Why a decoder cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum DecoderError {
    /// The model does not have it.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Its weights could not be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
}

impl Decoder {
    /// Packs what the weights of a tokenizer of this valid architecture hold of a decoder.
    ///
    /// # Errors
    /// If the model has no such decoder, the file is damaged, a tensor is missing, superfluous or
    /// mis-shaped, or there is no memory.
    pub fn load(
        weights: impl Into<Weights>,
        config: &TokenizerConfig,
        kind: DecoderKind,
        precision: Precision,
        pool: Arc<Pool>,
    ) -> Result<Self, DecoderError> {
        let decoder = *config.decoder(kind)?;
        let precision = precision.at_least_int8();
        let packing = Arc::clone(&pool);
        let built = weights.into().build(&packing, belongs(config, Some(kind)), |tensors| {
            Self::build(tensors, config, (kind, decoder), precision, pool)
        })?;
        Ok(built)
    }

    fn build(
        tensors: &mut Tensors<'_>,
        config: &TokenizerConfig,
        (kind, decoder): (DecoderKind, DecoderConfig),
        precision: Precision,
        pool: Arc<Pool>,
    ) -> io::Result<Self> {
        let (width, layout) = (decoder.transformer.width, config.layout());
        let name = |part: &str| format!("{}.{part}", kind.section());
        let values = config.patch_values();
        if decoder.prefix_head {
            // Of use in training only.
            tensors.tensor(&name("prefix_head.patch.weight"), &[values, width]);
            tensors.tensor(&name("prefix_head.patch.bias"), &[values]);
            tensors.tensor(&name("prefix_head.color.weight"), &[3, 3]);
            tensors.tensor(&name("prefix_head.color.bias"), &[3]);
        }
        Ok(Self {
            codebook: Vectors::build(
                tensors,
                "quantizer.codebook",
                config.codes,
                config.token_size,
            ),
            embedding: Linear::build(
                tensors,
                &name("embedding"),
                config.token_size,
                width,
                Precision::F32,
            )?,
            leading: Vectors::build(tensors, &name("leading"), decoder.leading, width),
            positions: Vectors::build(
                tensors,
                &name("positions"),
                decoder.leading + layout.len(),
                width,
            ),
            transformer: Transformer::build(
                tensors,
                kind.section(),
                decoder.transformer,
                precision,
                kind == DecoderKind::Causal,
            )?,
            patch: Linear::build(
                tensors,
                &name("head.patch"),
                width,
                values,
                precision.at_least_bf16(),
            )?,
            color: tensors.tensor(&name("head.color.weight"), &[3, 3]),
            color_bias: tensors.tensor(&name("head.color.bias"), &[3]),
            config: config.clone(),
            kind,
            kernels: tensors.kernels,
            pool,
        })
    }

    /// The architecture that it is part of.
    pub fn config(&self) -> &TokenizerConfig {
        &self.config
    }

    /// Which decoder it is.
    pub fn kind(&self) -> DecoderKind {
        self.kind
    }

    /// Bytes of the blocks' weights.
    pub fn weight_bytes(&self) -> usize {
        self.transformer.bytes()
    }

    /// Multiplications of a picture in the blocks.
    pub fn multiplications(&self) -> usize {
        let leading = self.leading.values.len() / self.leading.width;
        self.transformer.multiplications(leading + self.config.layout().len())
    }

    /// Memory for [`decode`](Self::decode).
    pub fn workspace(&self) -> Workspace {
        Workspace::new(&self.pool)
    }

    /// The picture of one sequence of tokens. A causal decoder also takes the beginning of one,
    /// up to the end of a row, and returns the rows of the picture that it decides.
    ///
    /// # Shapes
    /// `tokens [length]` → `[3, height, width]` row-major in [0, 1].
    ///
    /// # Panics
    /// If there are too few or too many tokens, or one is no code.
    pub fn decode(&self, tokens: &[CodebookIndex], work: &mut Workspace) -> Vec<f32> {
        let Self { config, pool, kernels, .. } = self;
        let (patch, layout) = (config.patch, config.layout());
        let picture_rows = match self.kind {
            DecoderKind::Bidirectional => layout.rows(),
            DecoderKind::Causal => tokens.len().saturating_sub(layout.prefix()) / layout.columns(),
        };
        assert!(picture_rows <= layout.rows(), "tokens of a picture");
        assert_eq!(tokens.len(), layout.len_of_rows(picture_rows), "tokens of whole rows");
        assert!(tokens.iter().all(|&token| usize::from(token) < config.codes), "tokens are codes");
        let width = self.leading.width;
        let leading = self.leading.values.len() / width;
        let rows = leading + tokens.len();
        work.activations.set(pool, self.embedding.matrix(), tokens.len(), |row, out| {
            out.copy_from_slice(self.codebook.row(tokens[row].into()));
        });
        self.embedding.product(pool, &work.activations, &mut work.out);
        grow(&mut work.x, rows * width, 0.0);
        for (row, x) in work.x.chunks_exact_mut(width).take(rows).enumerate() {
            x.copy_from_slice(self.positions.row(row));
            match row.checked_sub(leading) {
                Some(token) => work.out.add_to(token, x),
                None => {
                    x.iter_mut().zip(self.leading.row(row)).for_each(|(x, value)| *x += value);
                }
            }
        }
        self.transformer.run(pool, rows, work);
        let Workspace { x, activations, out, .. } = work;
        let first = leading + layout.prefix();
        let cells = picture_rows * layout.columns();
        activations.set(pool, self.patch.matrix(), cells, |cell, out| {
            self.transformer.output(&x[(first + cell) * width..][..width], out);
        });
        self.patch.product(pool, activations, out);
        let (height, image_width) = (picture_rows * patch, config.image.width);
        let mut planes = vec![0.0; 3 * height * image_width];
        let mut values = vec![0.0; config.patch_values()];
        for cell in 0..cells {
            out.copy(cell, 0, &mut values);
            for pixel in values.chunks_exact_mut(3) {
                let [red, green, blue] = [pixel[0], pixel[1], pixel[2]];
                for (channel, value) in pixel.iter_mut().enumerate() {
                    let weight = &self.color[3 * channel..][..3];
                    *value = weight[0] * red
                        + weight[1] * green
                        + weight[2] * blue
                        + self.color_bias[channel];
                }
            }
            (kernels.rows.sigmoid)(&mut values);
            let (row, column) = (cell / layout.columns(), cell % layout.columns());
            for (index, value) in values.iter().enumerate() {
                let (pixel, channel) = (index / 3, index % 3);
                let (y, x) = (row * patch + pixel / patch, column * patch + pixel % patch);
                planes[(channel * height + y) * image_width + x] = *value;
            }
        }
        planes
    }
}
