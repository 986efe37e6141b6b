//! A language model's folder, as Hugging Face's `transformers` saves them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use files::{
    FileError, HostTensor, ParameterError, TensorMap,
    safetensors::{TensorFile, TensorView, check_finite, not_a_float},
};
use serde::Deserialize;
use tokens::TokenLayout;

use crate::{
    ControlTokens, ImageSide, LanguageConfig, LanguageError, PicturePositions, TextTokenizer,
    names::{self, Part, Place},
};

const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Most bytes of a configuration or an index.
const MOST_BYTES: u64 = 1 << 26;

/// What `config.json` says of a Qwen2.
#[derive(Debug, Clone, PartialEq)]
pub struct Qwen2Config {
    /// `vocab_size`.
    pub vocabulary: usize,
    /// `hidden_size`.
    pub width: usize,
    /// `num_hidden_layers`.
    pub layers: usize,
    /// `num_attention_heads`.
    pub heads: usize,
    /// `num_key_value_heads`.
    pub key_value_heads: usize,
    /// `intermediate_size`.
    pub hidden: usize,
    /// `tie_word_embeddings`.
    pub tied: bool,
    /// `rms_norm_eps`.
    pub norm_epsilon: f64,
    /// `rope_theta`, or in version 5 `rope_parameters.rope_theta`.
    pub rotary_base: f64,
    /// `max_position_embeddings`.
    pub positions: usize,
}

/// A folder whose configuration and text tokenizer have been read. Weights are read on demand.
#[derive(Debug)]
pub struct HuggingFaceFolder {
    path: PathBuf,
    /// The architecture.
    pub config: Qwen2Config,
    /// The text tokenizer.
    pub tokenizer: TextTokenizer,
    /// The content of `tokenizer.json`.
    pub tokenizer_json: String,
    shards: Vec<TensorFile>,
    left_out: Vec<String>,
}

/// The keys of `config.json` that matter. `transformers` leaves out what has its default.
#[derive(Deserialize)]
struct Keys {
    model_type: Option<String>,
    text_config: Option<Box<Keys>>,
    vocab_size: Option<usize>,
    hidden_size: Option<usize>,
    intermediate_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    hidden_act: Option<String>,
    max_position_embeddings: Option<usize>,
    rms_norm_eps: Option<f64>,
    tie_word_embeddings: Option<bool>,
    rope_theta: Option<f64>,
    rope_scaling: Option<Rope>,
    rope_parameters: Option<Rope>,
    use_sliding_window: Option<bool>,
    quantization_config: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Rope {
    rope_theta: Option<f64>,
    rope_type: Option<String>,
    /// An older name of it.
    #[serde(rename = "type")]
    kind: Option<String>,
}

impl Qwen2Config {
    /// Reads the content of `config.json`, of a Qwen2 or of a LLaVA that is built on one, in the
    /// spelling of `transformers` 4 or 5.
    ///
    /// # Errors
    /// What is wrong, if it is of another kind or lacks a key.
    pub fn parse(text: &str) -> Result<Self, String> {
        let outer: Keys = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let kind = outer.model_type.clone().unwrap_or_default();
        const KINDS: [&str; 5] =
            ["qwen2", "llava", "llava_qwen", "llava_onevision", "llava_onevision_text"];
        if !KINDS.contains(&kind.as_str()) {
            return Err(format!(
                "its `model_type` is `{kind}`; language models are read that are a Qwen2 (`qwen2`) or \
                 the LLaVA-OneVision on one (`llava`, `llava_qwen`, `llava_onevision`)"
            ));
        }
        let of_outer = outer.tie_word_embeddings;
        if outer.quantization_config.is_some() {
            return Err("its weights are quantized; take the folder of the original".to_owned());
        }
        let keys = match outer.text_config {
            Some(keys) => *keys,
            None => outer,
        };
        if let Some(kind) = keys.model_type.as_deref().filter(|kind| !KINDS.contains(kind)) {
            return Err(format!("its text model is a `{kind}`, not a `qwen2`"));
        }
        let required = |name: &str, value: Option<usize>| {
            value.ok_or_else(|| format!("the key `{name}` is missing"))
        };
        let rope = keys.rope_parameters.as_ref();
        for rope in [rope, keys.rope_scaling.as_ref()].into_iter().flatten() {
            let kind = rope.rope_type.as_deref().or(rope.kind.as_deref()).unwrap_or("default");
            if kind != "default" {
                return Err(format!("rotary positions of the type `{kind}` are not supported"));
            }
        }
        if keys.use_sliding_window == Some(true) {
            return Err("attention in a sliding window is not supported".to_owned());
        }
        if let Some(act) = keys.hidden_act.as_deref().filter(|&act| act != "silu") {
            return Err(format!("its `hidden_act` is `{act}`, not `silu`"));
        }
        let width = required("hidden_size", keys.hidden_size)?;
        let heads = required("num_attention_heads", keys.num_attention_heads)?;
        if let Some(head) = keys.head_dim.filter(|&head| head.checked_mul(heads) != Some(width)) {
            return Err(format!(
                "its `head_dim` is {head}, not `hidden_size` / `num_attention_heads`"
            ));
        }
        Ok(Self {
            vocabulary: required("vocab_size", keys.vocab_size)?,
            width,
            layers: required("num_hidden_layers", keys.num_hidden_layers)?,
            heads,
            key_value_heads: keys.num_key_value_heads.unwrap_or(heads),
            hidden: required("intermediate_size", keys.intermediate_size)?,
            tied: keys.tie_word_embeddings.or(of_outer).unwrap_or(false),
            // The defaults of `Qwen2Config` in `transformers`.
            norm_epsilon: keys.rms_norm_eps.unwrap_or(1e-6),
            rotary_base: rope.and_then(|rope| rope.rope_theta).or(keys.rope_theta).unwrap_or(1e4),
            positions: keys.max_position_embeddings.unwrap_or(32_768),
        })
    }
}

impl HuggingFaceFolder {
    /// Reads configuration and text tokenizer and finds the weights.
    ///
    /// # Errors
    /// If a file is missing or damaged, a shard of the index is not there, or the model is of another
    /// kind.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, LanguageError> {
        let path = path.as_ref();
        let missing = |missing: &str, hint| LanguageError::Missing {
            path: path.to_owned(),
            missing: missing.to_owned(),
            hint,
        };
        let wrong = |file: &str, what| LanguageError::Json { path: path.join(file), what };
        let text = read(&path.join(CONFIG))?.ok_or_else(|| missing(CONFIG, ""))?;
        let config = Qwen2Config::parse(&text).map_err(|what| wrong(CONFIG, what))?;
        let Some(tokenizer_json) = read(&path.join(TOKENIZER))? else {
            let hint = match path.join("vocab.json").is_file() {
                true => {
                    "; it has a vocab.json, from which `AutoTokenizer.from_pretrained(FOLDER)\
                     .save_pretrained(FOLDER)` in Python makes a tokenizer.json"
                }
                false => "",
            };
            return Err(missing(TOKENIZER, hint));
        };
        let tokenizer = TextTokenizer::parse(&path.join(TOKENIZER), &tokenizer_json)?;
        let (shards, index) = match path.join(WEIGHTS).is_file() {
            true => (BTreeSet::from([WEIGHTS.to_owned()]), BTreeMap::new()),
            false => {
                let Some(text) = read(&path.join(INDEX))? else {
                    let hint = match path.join("pytorch_model.bin").is_file() {
                        true => {
                            "; its weights are a pytorch_model.bin, which `from_pretrained(FOLDER)\
                             .save_pretrained(FOLDER)` in Python saves as .safetensors"
                        }
                        false => "",
                    };
                    return Err(missing(WEIGHTS, hint));
                };
                #[derive(Deserialize)]
                struct Index {
                    weight_map: BTreeMap<String, String>,
                }
                let index: Index =
                    serde_json::from_str(&text).map_err(|error| wrong(INDEX, error.to_string()))?;
                (index.weight_map.values().cloned().collect(), index.weight_map)
            }
        };
        let mut files = BTreeMap::new();
        for shard in shards {
            // An index names files beside it, not any file of the machine.
            if Path::new(&shard).file_name() != Some(shard.as_ref()) {
                return Err(wrong(INDEX, format!("`{shard}` is no file of this folder")));
            }
            if !path.join(&shard).is_file() {
                let hint = "; its index names this shard, so download it again";
                return Err(missing(&shard, hint));
            }
            let file = TensorFile::open(path.join(&shard))?;
            files.insert(shard, file);
        }
        for (shard, file) in &files {
            let views = file.views()?;
            let lost = index.iter().find(|(name, of)| *of == shard && !views.contains_key(*name));
            if let Some((name, _)) = lost {
                return Err(wrong(INDEX, format!("`{shard}` does not hold the tensor `{name}`")));
            }
        }
        let shards = files.into_values().collect();
        let path = path.to_owned();
        Ok(Self { path, config, tokenizer, tokenizer_json, shards, left_out: Vec::new() })
    }

    /// The architecture of the model that draws pictures of this layout with the language model of
    /// this folder; without an image side, adaptor and head are as wide as the model.
    ///
    /// The ids of control tokens are those of the text tokenizer. Where it has no `<|vision_start|>`
    /// or `<|vision_end|>`, as Qwen2's own, they take rows of the embedding that are free: those that
    /// Qwen2.5 gives them, or the first ones.
    ///
    /// # Errors
    /// If the architecture cannot be built, the embedding has no row for some of the tokenizer's ids, or
    /// a control token has no id.
    pub fn language_config(
        &self,
        layout: TokenLayout,
        [codes, code_size]: [usize; 2],
        image_side: Option<&ImageSide>,
    ) -> Result<LanguageConfig, LanguageError> {
        let Qwen2Config { vocabulary, width, .. } = self.config;
        let largest = self.tokenizer.largest_id();
        if largest >= vocabulary {
            let path = self.path.clone();
            return Err(LanguageError::Embedding { path, largest, rows: vocabulary });
        }
        const OF_QWEN2_5: [usize; 2] = [151_652, 151_653];
        let free = |id: usize| id > largest && id < vocabulary;
        let [start, end] = match OF_QWEN2_5.into_iter().all(free) {
            true => OF_QWEN2_5,
            false => [largest + 1, largest + 2],
        };
        let token = |token: &'static str, otherwise: Option<usize>| {
            let known = self.tokenizer.added_token(token);
            let id = known.or(otherwise.filter(|&id| free(id)));
            id.ok_or_else(|| LanguageError::NoToken { path: self.path.clone(), token })
        };
        let control = ControlTokens {
            message_start: token("<|im_start|>", None)?,
            message_end: token("<|im_end|>", None)?,
            picture_start: token("<|vision_start|>", Some(start))?,
            picture_end: token("<|vision_end|>", Some(end))?,
            padding: token("<|endoftext|>", None)?,
        };
        let [adaptor_hidden, head_hidden] =
            image_side.map_or([width; 2], |side| [side.adaptor_hidden, side.head_hidden]);
        let of = &self.config;
        let config = LanguageConfig {
            layout,
            codes,
            code_size,
            vocabulary,
            width,
            layers: of.layers,
            heads: of.heads,
            key_value_heads: of.key_value_heads,
            hidden: of.hidden,
            tied: of.tied,
            norm_epsilon: of.norm_epsilon,
            rotary_base: of.rotary_base,
            positions: of.positions,
            picture_positions: PicturePositions::default(),
            adaptor_hidden,
            head_hidden,
            control,
        };
        let wrong = |source| LanguageError::Config { path: self.path.join(CONFIG), source };
        config.validate().map_err(wrong)?;
        Ok(config)
    }

    /// Whether every weight is stored in bf16, which loses nothing where they are kept so.
    ///
    /// # Errors
    /// If a file is damaged.
    pub fn is_bf16(&self) -> Result<bool, LanguageError> {
        for file in &self.shards {
            if !file.views()?.values().all(TensorView::is_bf16) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The parameters of the language model, under our names.
    ///
    /// # Errors
    /// If a tensor is missing, unknown, mis-shaped, in two shards, no float or not finite.
    pub fn tensors(&mut self, config: &LanguageConfig) -> Result<TensorMap, LanguageError> {
        let shapes: BTreeMap<String, Vec<usize>> = config.language_shapes().into_iter().collect();
        let (head, key_value_width) = (config.head(), config.key_value_width());
        let mut tensors = TensorMap::new();
        let mut seen = BTreeSet::new();
        let mut problems = Vec::new();
        let mut left_out: BTreeMap<String, usize> = BTreeMap::new();
        for file in &self.shards {
            for (name, view) in file.views()? {
                let (ours, part) = match names::place(&name) {
                    Some(Place::Whole(ours)) => (ours, None),
                    Some(Place::Part(part, ours)) => (ours, Some(part)),
                    Some(Place::LeftOut) => {
                        *left_out.entry(names::family(&name).into_owned()).or_default() += 1;
                        continue;
                    }
                    None => {
                        let shape = view.shape().to_vec();
                        problems.push(ParameterError::Unused { name, shape });
                        continue;
                    }
                };
                // `transformers` takes the embedding for the head of a tied model whatever is stored.
                if config.tied && ours == "output.weight" {
                    *left_out.entry(name).or_default() += 1;
                    continue;
                }
                let Some(shape) = shapes.get(&ours).filter(|_| seen.insert((ours.clone(), part)))
                else {
                    let shape = view.shape().to_vec();
                    problems.push(ParameterError::Unused { name, shape });
                    continue;
                };
                // The rows of the whole that this tensor is.
                let (start, rows) = match part {
                    None => (0, shape[0]),
                    Some(Part::Query) => (0, config.width),
                    Some(Part::Key) => (config.width, key_value_width),
                    Some(Part::Value) => (config.width + key_value_width, key_value_width),
                };
                let expected: Vec<usize> =
                    std::iter::once(rows).chain(shape[1..].iter().copied()).collect();
                if view.shape() != expected {
                    let got = view.shape().to_vec();
                    problems.push(ParameterError::Shape { name, expected, got });
                    continue;
                }
                if !view.is_float() {
                    return Err(not_a_float(file.path(), &name, &view.kind()).into());
                }
                let columns: usize = shape[1..].iter().product();
                let whole = tensors.entry(ours).or_insert_with(|| {
                    HostTensor::new(shape.clone(), vec![0.0; shape.iter().product()])
                });
                let values = &mut whole.values[start * columns..(start + rows) * columns];
                match part {
                    Some(Part::Query | Part::Key) => {
                        for (row, values) in values.chunks_exact_mut(columns).enumerate() {
                            let other = row / head * head + names::other_row(row % head, head);
                            view.read(other * columns, values);
                        }
                    }
                    _ => view.read(0, values),
                }
                check_finite(file.path(), &name, values)?;
                file.release(&view);
            }
        }
        for (ours, shape) in shapes {
            let parts: &[Option<Part>] = match ours.contains(".query_key_value.") {
                true => &[Some(Part::Query), Some(Part::Key), Some(Part::Value)],
                false => &[None],
            };
            let missing = parts.iter().any(|&part| !seen.contains(&(ours.clone(), part)));
            if missing {
                problems.push(ParameterError::Missing { name: ours, expected: shape });
            }
        }
        if !problems.is_empty() {
            return Err(LanguageError::Tensors { path: self.path.clone(), problems });
        }
        self.left_out = left_out
            .into_iter()
            .map(|(family, count)| match count {
                1 => family,
                _ => format!("{family} ({count})"),
            })
            .collect();
        Ok(tensors)
    }

    /// The tensors that were left out when the [`tensors`](Self::tensors) were read: those of a vision
    /// tower, a projector, and a head that is the embedding. Layers are counted, not listed.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }
}

/// The content of a small file of text; `None` if there is none.
fn read(path: &Path) -> Result<Option<String>, LanguageError> {
    let failed = |source| FileError::Read { path: path.to_owned(), source };
    match fs::metadata(path) {
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(failed(error).into()),
        Ok(metadata) if metadata.len() > MOST_BYTES => {
            let what =
                format!("has {} bytes; such files have at most {MOST_BYTES}", metadata.len());
            return Err(LanguageError::Json { path: path.to_owned(), what });
        }
        Ok(_) => {}
    }
    Ok(Some(fs::read_to_string(path).map_err(failed)?))
}
