//! What clients ask for, and what becomes of it.

use std::time::Duration;

use generator::{Condition, Request, SamplingConfig};
use language::Prompts;
use pipeline::{PROMPT_ROOM, SamplingChanges, sampling};
use serde::{Deserialize, Serialize};
use tokens::CodebookIndex;
use utoipa::ToSchema;

use crate::{
    error::ApiError,
    models::{Entry, Models},
    picture::Format,
};

/// Most pictures of a request, as in OpenAI's API.
const MAX_PICTURES: u64 = 10;
/// Most previews that OpenAI's API sends.
const MAX_PARTIAL_IMAGES: u64 = 3;

/// A class, by its name in any case or by its number.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum ClassField {
    /// Its number, from 0.
    Number(u64),
    /// Its name.
    Name(String),
}

/// Pictures to draw: the fields of OpenAI's API, and ours beside them.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct PictureRequest {
    /// The model's id; the first model if none is given.
    pub(crate) model: Option<String>,
    /// What to draw, in words. A model of classes takes a class's name. Needed unless `class` is given.
    pub(crate) prompt: Option<String>,
    /// What to draw, by the class's name or number; it counts before `prompt`, which OpenAI's clients
    /// always send.
    #[schema(value_type = Option<ClassField>)]
    pub(crate) class: Option<ClassField>,
    /// How many pictures.
    #[schema(minimum = 1, maximum = 10, default = 1)]
    pub(crate) n: Option<u64>,
    /// `auto` or the one size that the model has, such as `64x64`.
    pub(crate) size: Option<String>,
    /// `b64_json`; nothing is stored here that a `url` could point to.
    pub(crate) response_format: Option<String>,
    /// How pictures are encoded.
    pub(crate) output_format: Option<Format>,
    /// Quality of a JPEG, in percent.
    #[schema(minimum = 0, maximum = 100, default = 95)]
    pub(crate) output_compression: Option<u64>,
    /// Whether to answer with events. Default: no in OpenAI's API, yes in ours.
    pub(crate) stream: Option<bool>,
    /// Pictures of the rows so far that OpenAI's stream sends of each picture.
    #[schema(minimum = 0, maximum = 3, default = 0)]
    pub(crate) partial_images: Option<u64>,
    /// Accepted for OpenAI's clients; not used.
    pub(crate) user: Option<String>,
    /// `auto` or `standard`: there is one quality.
    pub(crate) quality: Option<String>,
    /// `auto` or `opaque`: pictures are opaque.
    pub(crate) background: Option<String>,
    /// `auto`: nothing is moderated.
    pub(crate) moderation: Option<String>,
    /// The same seed draws the same pictures. One is drawn, and returned, if none is given.
    #[schema(minimum = 0)]
    pub(crate) seed: Option<u64>,
    /// Which of the seed's pictures is the first, from 0; those after it follow.
    #[schema(minimum = 0, default = 0)]
    pub(crate) index: Option<u64>,
    /// Strength of classifier-free guidance; 1 (or 0) is none. Default: the model's.
    pub(crate) guidance: Option<f64>,
    /// Power of the guidance's cosine schedule. Default: the model's.
    pub(crate) guidance_power: Option<f64>,
    /// Divides the logits; 0 always takes the likeliest token. Default: the model's.
    pub(crate) temperature: Option<f64>,
    /// Keep only so many of the likeliest tokens; 0 keeps all. Default: the model's.
    #[schema(minimum = 0)]
    pub(crate) top_k: Option<u64>,
    /// Keep only the likeliest tokens that sum to this probability; 1 keeps all. Default: the model's.
    pub(crate) top_p: Option<f64>,
    /// Adds a picture of the rows so far to every so-manieth row; 0 to none.
    #[schema(minimum = 0, default = 0)]
    pub(crate) previews: Option<u64>,
    /// Tokens of a picture to keep the beginning of, and to draw the rest anew.
    pub(crate) tokens: Option<Vec<i64>>,
    /// How many rows to keep of `tokens` or of the picture that was sent. Default: all of `tokens`.
    #[schema(minimum = 0)]
    pub(crate) rows: Option<u64>,
    /// Seconds after which the request is given up. Default, and most: the server's.
    #[schema(exclusive_minimum = 0)]
    pub(crate) deadline: Option<f64>,
}

/// A request that was checked: what is drawn, and how it is answered.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) condition: Condition,
    pub(crate) seed: u64,
    pub(crate) index: u64,
    pub(crate) count: usize,
    pub(crate) sampling: SamplingConfig,
    pub(crate) forced: Vec<CodebookIndex>,
    pub(crate) format: Format,
    pub(crate) quality: u8,
    /// The numbers of rows after which there is a preview.
    pub(crate) previews: Vec<usize>,
    /// Whether previews have the size of a whole picture.
    pub(crate) whole_previews: bool,
    pub(crate) deadline: Duration,
    pub(crate) stream: bool,
}

/// Whose API a request is of: it decides what is the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Api {
    OpenAi,
    Native,
}

impl PictureRequest {
    /// The model that is asked for.
    pub(crate) fn entry<'a>(
        &self,
        models: &'a Models,
    ) -> Result<&'a std::sync::Arc<Entry>, ApiError> {
        models.entry(self.model.as_deref())
    }

    /// Checks everything that can be checked before drawing. `longest` is the server's deadline.
    pub(crate) fn plan(
        &self,
        entry: &Entry,
        api: Api,
        longest: Duration,
    ) -> Result<Plan, ApiError> {
        let layout = entry.layout();
        self.check_openai(entry)?;
        let count = match self.n.unwrap_or(1) {
            n @ 1..=MAX_PICTURES => n as usize,
            n => {
                let message = format!("`n` is {n}; ask for 1 to {MAX_PICTURES} pictures at a time");
                return Err(ApiError::param("n", message));
            }
        };
        let condition = match &entry.prompts {
            Some(prompts) => self.prompt(prompts)?,
            None => Condition::Class(self.label(entry)?),
        };
        let top_k = self.top_k.map(|k| usize::try_from(k).unwrap_or(usize::MAX));
        let changes = SamplingChanges {
            guidance: self.guidance,
            guidance_power: self.guidance_power,
            temperature: self.temperature,
            top_k,
            top_p: self.top_p,
        };
        let sampling = sampling(&entry.model, &changes)
            .map_err(|error| ApiError { param: self.wrong_option(entry), ..error.into() })?;
        let seed = match self.seed {
            Some(seed) => seed,
            // Few digits, which people can write down and JavaScript can hold.
            None => u64::from(getrandom::u32().map_err(ApiError::internal)?),
        };
        let index = self.index.unwrap_or(0);
        if index.checked_add(MAX_PICTURES).is_none() {
            return Err(ApiError::param("index", format!("`index` {index} is too large")));
        }
        let forced = self.forced(entry)?;
        let rows = layout.rows();
        let previews = match api {
            Api::Native => match usize::try_from(self.previews.unwrap_or(0)) {
                Ok(0) | Err(_) => Vec::new(),
                Ok(every) => (1..rows).filter(|row| row.is_multiple_of(every)).collect(),
            },
            Api::OpenAi => {
                let wanted = self.partial_images.unwrap_or(0);
                if wanted > MAX_PARTIAL_IMAGES {
                    let message = format!(
                        "`partial_images` is {wanted}; ask for 0 to {MAX_PARTIAL_IMAGES}, or use \
                         `previews` of /v1/pictures"
                    );
                    return Err(ApiError::param("partial_images", message));
                }
                let wanted = wanted as usize;
                let mut previews: Vec<usize> =
                    (1..=wanted).map(|part| (rows * part / (wanted + 1)).max(1)).collect();
                previews.dedup();
                previews
            }
        };
        if !previews.is_empty() && entry.model.config.tokenizer.causal_decoder.is_none() {
            let param = if api == Api::Native { "previews" } else { "partial_images" };
            let message = "this model has no causal decoder, which pictures of the first rows need";
            return Err(ApiError::param(param, message));
        }
        let deadline = match self.deadline {
            None => longest,
            Some(seconds) if seconds > 0.0 && seconds.is_finite() => {
                longest.min(Duration::try_from_secs_f64(seconds).unwrap_or(longest))
            }
            Some(seconds) => {
                let message = format!("`deadline` is {seconds}; give seconds above 0");
                return Err(ApiError::param("deadline", message));
            }
        };
        let quality = match self.output_compression.unwrap_or(95) {
            quality @ 0..=100 => quality.max(1) as u8,
            other => {
                let message = format!("`output_compression` is {other}; give 0 to 100");
                return Err(ApiError::param("output_compression", message));
            }
        };
        Ok(Plan {
            condition,
            seed,
            index,
            count,
            sampling,
            forced,
            format: self.output_format.unwrap_or_default(),
            quality,
            previews,
            whole_previews: api == Api::OpenAi,
            deadline,
            stream: self.stream.unwrap_or(api == Api::Native),
        })
    }

    /// Refuses values of OpenAI's fields that mean something which is not there.
    fn check_openai(&self, entry: &Entry) -> Result<(), ApiError> {
        let image = entry.model.config.tokenizer.image;
        let size = format!("{}x{}", image.width, image.height);
        let only = |param: &str, value: &Option<String>, allowed: &[&str]| match value {
            Some(value) if !allowed.contains(&value.as_str()) => Err(ApiError::param(
                param,
                format!("`{param}` is `{value}`; this model knows {}", allowed.join(" and ")),
            )),
            _ => Ok(()),
        };
        only("size", &self.size, &["auto", &size])?;
        only("quality", &self.quality, &["auto", "standard"])?;
        only("background", &self.background, &["auto", "opaque"])?;
        only("moderation", &self.moderation, &["auto"])?;
        match self.response_format.as_deref() {
            None | Some("b64_json") => Ok(()),
            Some("url") => {
                let message = "`url` is not offered: nothing is stored; use `b64_json`";
                Err(ApiError::param("response_format", message))
            }
            Some(other) => {
                let message = format!("`response_format` is `{other}`; use `b64_json`");
                Err(ApiError::param("response_format", message))
            }
        }
    }

    /// What a model that reads words is asked for.
    fn prompt(&self, prompts: &Prompts) -> Result<Condition, ApiError> {
        if self.class.is_some() {
            let message = "this model has no classes; say what to draw in words as `prompt`";
            return Err(ApiError::param("class", message));
        }
        let text = self.prompt.as_deref().unwrap_or_default();
        let condition = prompts
            .condition(text)
            .map_err(|error| ApiError::param("prompt", error.to_string()))?;
        match condition.length() {
            length if length > PROMPT_ROOM => {
                let message = format!(
                    "`prompt` has {length} tokens; this server reads at most {PROMPT_ROOM}"
                );
                Err(ApiError::param("prompt", message))
            }
            _ => Ok(condition),
        }
    }

    /// The label of the class.
    fn label(&self, entry: &Entry) -> Result<usize, ApiError> {
        let (param, name) = match (&self.class, &self.prompt) {
            (Some(ClassField::Number(label)), _) => ("class", label.to_string()),
            (Some(ClassField::Name(name)), _) => ("class", name.clone()),
            (None, Some(prompt)) if !prompt.trim().is_empty() => ("prompt", prompt.clone()),
            (None, _) => {
                let message = "say what to draw: a class's name as `prompt`, or `class`; \
                               GET /v1/models lists the classes";
                return Err(ApiError::param("prompt", message));
            }
        };
        // A name of a megabyte is not compared with those of a thousand classes, nor repeated.
        if name.len() > 1000 {
            return Err(ApiError::param(param, format!("`{param}` is longer than 1000 bytes")));
        }
        let found = match self.class {
            Some(ClassField::Number(label)) => {
                let label = usize::try_from(label).ok();
                let classes = entry.model.classes.len();
                if let Some(label) = label.filter(|&label| label < classes) {
                    return Ok(label);
                }
                entry.model.classes.resolve(&name)
            }
            _ => entry.model.classes.resolve(&name),
        };
        found.map_err(|error| ApiError::param(param, error.to_string()))
    }

    /// The sampling option that is out of range by itself.
    fn wrong_option(&self, entry: &Entry) -> Option<String> {
        let alone = [
            ("guidance", SamplingChanges { guidance: self.guidance, ..Default::default() }),
            (
                "guidance_power",
                SamplingChanges { guidance_power: self.guidance_power, ..Default::default() },
            ),
            (
                "temperature",
                SamplingChanges { temperature: self.temperature, ..Default::default() },
            ),
            ("top_p", SamplingChanges { top_p: self.top_p, ..Default::default() }),
        ];
        let wrong = |(_, changes): &&(&str, _)| sampling(&entry.model, changes).is_err();
        alone.iter().find(wrong).map(|(name, _)| (*name).to_owned())
    }

    /// Tokens that are kept.
    fn forced(&self, entry: &Entry) -> Result<Vec<CodebookIndex>, ApiError> {
        let (layout, vocabulary) = (entry.layout(), entry.vocabulary());
        let Some(tokens) = &self.tokens else { return Ok(Vec::new()) };
        if tokens.len() > layout.len() {
            let (got, most) = (tokens.len(), layout.len());
            let message = format!("{got} tokens are given; this model's pictures have {most}");
            return Err(ApiError::content("tokens", message));
        }
        let mut forced = tokens
            .iter()
            .map(|&token| vocabulary.token(token))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| ApiError::content("tokens", error.to_string()))?;
        if let Some(rows) = self.rows {
            let keep = usize::try_from(rows).ok().filter(|&rows| rows <= layout.rows());
            let length = keep.map(|rows| if rows == 0 { 0 } else { layout.len_of_rows(rows) });
            let Some(length) = length.filter(|&length| length <= forced.len()) else {
                let message = format!(
                    "`rows` is {rows}; the {} tokens that are given have fewer rows",
                    forced.len()
                );
                return Err(ApiError::param("rows", message));
            };
            forced.truncate(length);
        }
        Ok(forced)
    }
}

impl Plan {
    /// The requests to the generator, one a picture, numbered as the command line numbers them.
    pub(crate) fn requests(&self) -> Vec<Request> {
        (0..self.count as u64)
            .map(|index| Request {
                condition: self.condition.clone(),
                seed: self.seed,
                index: self.index + index,
                forced: self.forced.clone(),
            })
            .collect()
    }
}
