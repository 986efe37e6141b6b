//! Reading what clients send, within limits.

use std::time::Duration;

use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, Multipart, Request},
    http::{HeaderMap, StatusCode, header},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::ApiError;

/// Most bytes of a request without a picture.
pub(crate) const MAX_JSON: usize = 1 << 20;
/// Longest time that a body takes to arrive.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the rest of a refused body is read, so that its sender hears of the refusal.
const COURTESY: Duration = Duration::from_secs(5);

/// The type of a body, without its parameters.
fn content_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let value = value.unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn unsupported(expected: &str, got: &str) -> ApiError {
    let got = if got.is_empty() { "none".to_owned() } else { format!("`{got}`") };
    let message = format!("the body's content type is {got}; send {expected}");
    ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_content_type", message)
}

fn too_large(limit: usize) -> ApiError {
    ApiError::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "body_too_large",
        format!("the body has more than {limit} bytes; send less, or have the limit raised"),
    )
}

/// The bytes of a body, at most so many.
async fn bytes(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, ApiError> {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let declared = length.and_then(|length| length.parse::<u64>().ok());
    let mut data = body.into_data_stream();
    if declared.is_some_and(|declared| declared > limit as u64) {
        tokio::spawn(discard(data));
        return Err(too_large(limit));
    }
    let mut bytes = Vec::with_capacity(declared.unwrap_or(0) as usize);
    let read = async {
        while let Some(piece) = data.next().await {
            let broken = |error: axum::Error| {
                let message = format!("the body ended early: {error}");
                ApiError::new(StatusCode::BAD_REQUEST, "broken_body", message)
            };
            let piece = piece.map_err(broken)?;
            if bytes.len() + piece.len() > limit {
                return Err(too_large(limit));
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(())
    };
    match tokio::time::timeout(PATIENCE, read).await {
        Ok(Ok(())) => Ok(bytes.into()),
        Ok(Err(error)) => {
            tokio::spawn(discard(data));
            Err(error)
        }
        Err(_) => {
            let message = format!("the body did not arrive within {} s", PATIENCE.as_secs());
            Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "slow_body", message))
        }
    }
}

/// Reads on for a while. A connection that is closed while its client still sends is reset, and the
/// client never sees the answer.
async fn discard(mut data: axum::body::BodyDataStream) {
    let rest = async { while let Some(Ok(_)) = data.next().await {} };
    let _ = tokio::time::timeout(COURTESY, rest).await;
}

/// What a JSON text says, or which of its fields is wrong.
pub(crate) fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, ApiError> {
    // A list would be taken for the fields in their order.
    if text.trim_ascii_start().first() != Some(&b'{') {
        let message = "the body is no JSON object";
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "invalid_json", message));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(wrong_field)?;
    deserializer.end().map_err(|error| {
        let message = format!("something follows the JSON object: {error}");
        ApiError::new(StatusCode::BAD_REQUEST, "invalid_json", message)
    })?;
    Ok(value)
}

/// Which field is wrong, in the words of the reader.
fn wrong_field(error: serde_path_to_error::Error<serde_json::Error>) -> ApiError {
    let path = error.path().to_string();
    let inner = error.inner();
    if inner.is_syntax() || inner.is_eof() {
        let message = format!("the body is no JSON: {inner}");
        return ApiError::new(StatusCode::BAD_REQUEST, "invalid_json", message);
    }
    match path.as_str() {
        "." | "" => {
            let message = format!("the body is not what is expected: {inner}");
            ApiError::new(StatusCode::BAD_REQUEST, "invalid_value", message)
        }
        path => ApiError::param(path, format!("`{path}`: {inner}")),
    }
}

/// A body in JSON.
pub(crate) async fn json<T: DeserializeOwned>(request: Request) -> Result<T, ApiError> {
    let (parts, body) = request.into_parts();
    let got = content_type(&parts.headers);
    if got != "application/json" {
        return Err(unsupported("application/json", &got));
    }
    parse(&bytes(&parts.headers, body, MAX_JSON).await?)
}

/// A body in JSON or another type, as bytes.
pub(crate) async fn json_or(
    request: Request,
    others: &[&str],
    limit: usize,
) -> Result<(String, Bytes), ApiError> {
    let (parts, body) = request.into_parts();
    let got = content_type(&parts.headers);
    if got != "application/json" && !others.contains(&got.as_str()) {
        let expected = format!("application/json or {}", others.join(" or "));
        return Err(unsupported(&expected, &got));
    }
    Ok((got, bytes(&parts.headers, body, limit).await?))
}

/// Fields of forms that are numbers or truth values.
const NUMBERS: [&str; 14] = [
    "n",
    "rows",
    "seed",
    "index",
    "guidance",
    "guidance_power",
    "temperature",
    "top_k",
    "top_p",
    "previews",
    "partial_images",
    "output_compression",
    "deadline",
    "stream",
];

/// A picture that was sent with some fields: as a form with the file `image`, or in JSON with `image` in
/// base64.
pub(crate) async fn upload<T: DeserializeOwned>(
    request: Request,
    limit: usize,
) -> Result<(T, Bytes), ApiError> {
    let (parts, body) = request.into_parts();
    let (mut fields, image) = match content_type(&parts.headers).as_str() {
        "application/json" => {
            // Base64 takes four characters for three bytes.
            let text = bytes(&parts.headers, body, limit / 3 * 4 + MAX_JSON).await?;
            let mut fields: Map<String, Value> = parse(&text)?;
            let image = match fields.remove("image") {
                Some(Value::String(text)) => {
                    // A data URL, as a page has it, is taken too.
                    let base64 = text.rsplit_once("base64,").map_or(text.as_str(), |(_, it)| it);
                    let decoded = BASE64_STANDARD.decode(base64).map_err(|error| {
                        ApiError::param("image", format!("`image` is no base64: {error}"))
                    })?;
                    Some(decoded.into())
                }
                Some(_) => return Err(ApiError::param("image", "`image` should be base64")),
                None => None,
            };
            (fields, image)
        }
        "multipart/form-data" => {
            let text = bytes(&parts.headers, body, limit + MAX_JSON).await?;
            form(Request::from_parts(parts, Body::from(text))).await?
        }
        other => return Err(unsupported("multipart/form-data or application/json", other)),
    };
    let image = image.ok_or_else(|| {
        ApiError::param("image", "`image` is missing: the picture, as a file or in base64")
    })?;
    if image.len() > limit {
        return Err(too_large(limit));
    }
    fields.retain(|_, value| !value.is_null());
    let fields = serde_path_to_error::deserialize(Value::Object(fields)).map_err(wrong_field)?;
    Ok((fields, image))
}

/// The fields and the file `image` of a form.
async fn form(request: Request) -> Result<(Map<String, Value>, Option<Bytes>), ApiError> {
    let wrong = |error: &dyn std::fmt::Display| {
        let message = format!("the form cannot be read: {error}");
        ApiError::new(StatusCode::BAD_REQUEST, "invalid_form", message)
    };
    let mut form = Multipart::from_request(request, &()).await.map_err(|error| wrong(&error))?;
    let (mut fields, mut image) = (Map::new(), None);
    while let Some(field) = form.next_field().await.map_err(|error| wrong(&error))? {
        let name = field.name().unwrap_or_default().to_owned();
        if name == "image" {
            image = Some(field.bytes().await.map_err(|error| wrong(&error))?);
            continue;
        }
        let text = field.text().await.map_err(|error| wrong(&error))?;
        let value = match NUMBERS.contains(&name.as_str()).then(|| serde_json::from_str(&text)) {
            Some(Ok(value @ (Value::Number(_) | Value::Bool(_)))) => value,
            _ => Value::String(text),
        };
        if fields.insert(name.clone(), value).is_some() {
            return Err(ApiError::param(&name, format!("`{name}` is given twice")));
        }
    }
    Ok((fields, image))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test that cannot go on has failed

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Fields {
        n: Option<u64>,
        guidance: Option<f64>,
    }

    #[test]
    fn should_name_the_field_that_is_wrong() {
        let param = |text: &[u8]| parse::<Fields>(text).unwrap_err();
        assert_eq!(param(br#"{"n": -1}"#).param.as_deref(), Some("n"));
        assert_eq!(param(br#"{"n": "2"}"#).param.as_deref(), Some("n"));
        assert_eq!(param(br#"{"n": 1e30}"#).param.as_deref(), Some("n"));
        assert_eq!(param(br#"{"guidance": null, "other": 1}"#).param.as_deref(), Some("other"));
        for text in [
            &br#"{"guidance": NaN}"#[..],
            b"{\"n\": 1} {\"n\": 2}",
            b"\xff\xfe",
            b"",
            br#"{"guidance": 1e999}"#,
            b"{\"n\": 1",
        ] {
            let error = param(text);
            assert_eq!(error.status, StatusCode::BAD_REQUEST, "{error:?}");
        }
        assert_eq!(parse::<Fields>(b"[[[[").unwrap_err().status, StatusCode::BAD_REQUEST);
        let deep = "[".repeat(100_000);
        assert_eq!(parse::<Value>(deep.as_bytes()).unwrap_err().code, "invalid_json");
        let good: Fields = parse(br#"{"n": 3, "guidance": 2}"#).unwrap();
        assert_eq!((good.n, good.guidance), (Some(3), Some(2.0)));
    }
}
