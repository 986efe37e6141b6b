//! What the page asks for, as the server takes it, and what it is told.

use base64::{Engine, prelude::BASE64_STANDARD};
use pixels::Picture;
use serde::{Deserialize, Serialize};
use tokens::CodebookIndex;

/// The body of `POST /v1/pictures`, as far as the page sends it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PictureRequest {
    /// The number of the class.
    pub(crate) class: usize,
    pub(crate) n: Option<usize>,
    pub(crate) seed: u64,
    pub(crate) index: u64,
    pub(crate) guidance: Option<f64>,
    pub(crate) guidance_power: Option<f64>,
    pub(crate) temperature: Option<f64>,
    pub(crate) top_k: Option<usize>,
    pub(crate) top_p: Option<f64>,
    /// Adds a picture of the rows so far to every so-manieth row; 0 to none.
    pub(crate) previews: usize,
    /// Tokens of a picture to keep the beginning of.
    pub(crate) tokens: Vec<CodebookIndex>,
    /// How many rows to keep of `tokens`, or of a picture.
    pub(crate) rows: Option<usize>,
}

/// A model, as `GET /v1/models` tells of it.
#[derive(Debug, Serialize)]
pub(crate) struct ModelData<'a> {
    pub(crate) id: &'a str,
    pub(crate) classes: &'a [String],
    pub(crate) reads_prompts: bool,
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) tokens: usize,
    pub(crate) prefix: usize,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) codes: usize,
    pub(crate) defaults: Defaults,
    pub(crate) previews: bool,
    pub(crate) loaded: bool,
}

/// Sampling options.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Defaults {
    pub(crate) guidance: f64,
    pub(crate) guidance_power: f64,
    pub(crate) temperature: f64,
    pub(crate) top_k: usize,
    pub(crate) top_p: f64,
}

impl From<generator::SamplingConfig> for Defaults {
    fn from(sampling: generator::SamplingConfig) -> Self {
        let generator::SamplingConfig { guidance, guidance_power, temperature, top_k, top_p } =
            sampling;
        Self { guidance, guidance_power, temperature, top_k, top_p }
    }
}

/// What a request became: the first event.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Queued {
    pub(crate) model: String,
    pub(crate) class: usize,
    pub(crate) class_name: String,
    pub(crate) seed: u64,
    pub(crate) index: u64,
    pub(crate) n: usize,
    pub(crate) position: usize,
    pub(crate) rows: usize,
    #[serde(flatten)]
    pub(crate) sampling: Defaults,
}

/// What happened to a picture.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(crate) enum News {
    /// The prefix is decided.
    Prefix { index: u64 },
    /// A row is.
    Row { index: u64, row: usize, rows: usize, preview: Option<PreviewData> },
    /// All is, and decoded.
    Finished { index: u64, tokens: Vec<CodebookIndex>, b64_json: String },
    /// It cannot be drawn.
    Failed { index: u64, error: Refusal },
}

/// The first rows of a picture.
#[derive(Debug, Serialize)]
pub(crate) struct PreviewData {
    pub(crate) b64_json: String,
    pub(crate) width: usize,
    pub(crate) height: usize,
}

/// Why something is not done: the `error` of the server's answers.
#[derive(Debug, Serialize)]
pub(crate) struct Refusal {
    pub(crate) message: String,
    /// The field that is wrong.
    pub(crate) param: Option<&'static str>,
    /// `cancelled`, or none.
    pub(crate) code: Option<&'static str>,
}

impl Refusal {
    pub(crate) fn new(message: impl ToString) -> Self {
        Self { message: message.to_string(), param: None, code: None }
    }

    pub(crate) fn of(param: &'static str, message: impl ToString) -> Self {
        Self { param: Some(param), ..Self::new(message) }
    }

    pub(crate) fn cancelled() -> Self {
        Self { code: Some("cancelled"), ..Self::new("the request was cancelled") }
    }
}

/// A picture as PNG in base64.
pub(crate) fn png(picture: &Picture) -> String {
    BASE64_STANDARD.encode(picture.encode_png())
}
