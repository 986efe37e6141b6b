//! What goes wrong, as OpenAI's API says it.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use pipeline::PipelineError;
use pixels::PixelsError;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Why the server cannot start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}; choose another --listen")]
    Listen {
        /// The address.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// The system gives no threads or no signals.
    #[error("the system refuses what a server needs: {0}")]
    System(#[from] std::io::Error),
    /// No model was given, or two of the same name.
    #[error("{0}")]
    Models(String),
    /// The first model cannot be opened.
    #[error("{model}: {source}")]
    Load {
        /// The model.
        model: String,
        /// Why.
        source: PipelineError,
    },
    /// A web page's origin is not one.
    #[error("`{0}` is no origin; write one such as https://example.org")]
    Origin(String),
}

/// Why a request is refused.
#[derive(Debug, Clone)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
    /// The field that is wrong.
    pub(crate) param: Option<String>,
    /// What programs may act on.
    pub(crate) code: &'static str,
    /// Seconds after which another try makes sense.
    pub(crate) retry_after: Option<u64>,
}

/// The body of every refusal.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct ErrorBody {
    error: ErrorDetail,
}

/// What is wrong.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct ErrorDetail {
    /// For people: what, where, and what to do.
    message: String,
    /// The kind of error.
    #[serde(rename = "type")]
    kind: String,
    /// The field that is wrong.
    param: Option<String>,
    /// What programs may act on.
    code: Option<String>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None, code, retry_after: None }
    }

    /// A field has a value that cannot be.
    pub(crate) fn param(param: &str, message: impl Into<String>) -> Self {
        Self {
            param: Some(param.to_owned()),
            ..Self::new(StatusCode::BAD_REQUEST, "invalid_value", message)
        }
    }

    /// Well-formed, but its content is nothing to work on.
    pub(crate) fn content(param: &str, message: impl Into<String>) -> Self {
        Self {
            param: Some(param.to_owned()),
            ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "unusable_content", message)
        }
    }

    /// Too many pictures are asked for at a time.
    pub(crate) fn busy(code: &'static str, message: impl Into<String>, seconds: u64) -> Self {
        Self {
            retry_after: Some(seconds.max(1)),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, code, message)
        }
    }

    /// Not now.
    pub(crate) fn unavailable(
        code: &'static str,
        message: impl Into<String>,
        seconds: u64,
    ) -> Self {
        Self {
            retry_after: Some(seconds.max(1)),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message)
        }
    }

    /// The server's own fault.
    pub(crate) fn internal(message: impl std::fmt::Display) -> Self {
        tracing::error!(error = %message, "internal error");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", message.to_string())
    }

    pub(crate) fn no_model(id: &str, known: &[&str]) -> Self {
        Self {
            param: Some("model".to_owned()),
            ..Self::new(
                StatusCode::NOT_FOUND,
                "model_not_found",
                format!("there is no model `{id}` here; there are: {}", known.join(", ")),
            )
        }
    }

    /// What a picture that was sent is.
    pub(crate) fn of_picture(param: &str, error: &PixelsError) -> Self {
        match error {
            PixelsError::TooLarge { .. } => Self {
                param: Some(param.to_owned()),
                ..Self::new(StatusCode::PAYLOAD_TOO_LARGE, "picture_too_large", error.to_string())
            },
            error => Self::content(param, error.to_string()),
        }
    }

    /// The body as JSON, also for the events of a stream.
    pub(crate) fn body(&self) -> ErrorBody {
        let kind = match self.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        ErrorBody {
            error: ErrorDetail {
                message: self.message.clone(),
                kind: kind.to_owned(),
                param: self.param.clone(),
                code: Some(self.code.to_owned()),
            },
        }
    }
}

impl From<PipelineError> for ApiError {
    fn from(error: PipelineError) -> Self {
        match &error {
            PipelineError::Sampling(_) => {
                Self::new(StatusCode::BAD_REQUEST, "invalid_value", error.to_string())
            }
            PipelineError::NoPreviews { .. } => Self::param("previews", error.to_string()),
            PipelineError::TokenCount { .. } | PipelineError::NoCode { .. } => {
                Self::content("tokens", error.to_string())
            }
            PipelineError::PictureSize { .. } => Self::content("image", error.to_string()),
            PipelineError::Pixels(pixels) => Self::of_picture("image", pixels),
            _ => Self::internal(error),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = json(self.status, &self.body());
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response.extensions_mut().insert(Refused(self.code));
        response
    }
}

/// The code of a refusal, for the log and the metrics.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refused(pub(crate) &'static str);

/// An answer in JSON.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    let json = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    match serde_json::to_vec(value) {
        Ok(bytes) => (status, json, bytes).into_response(),
        // Maps with keys that are no text, which our types do not have.
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
