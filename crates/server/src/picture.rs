//! Pictures on their way out.

use base64::{Engine, prelude::BASE64_STANDARD};
use pixels::Picture;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::ApiError;

/// How pictures are encoded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    /// Lossless; the bytes that `alitok generate` writes.
    #[default]
    Png,
    /// Small, with a loss.
    Jpeg,
    /// Lossless, smaller than PNG.
    Webp,
}

impl Format {
    /// A picture in base64.
    pub(crate) fn encode(self, picture: &Picture, quality: u8) -> Result<String, ApiError> {
        let bytes = match self {
            Self::Png => Ok(picture.encode_png()),
            Self::Jpeg => picture.encode_jpeg(quality),
            Self::Webp => picture.encode_webp(),
        };
        Ok(BASE64_STANDARD.encode(bytes.map_err(ApiError::internal)?))
    }
}
