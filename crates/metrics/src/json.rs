//! Measures as JSON, which has no infinite numbers.
//!
//! The PSNR of identical pictures is infinite. It is written as the text `"Infinity"`, as Protocol
//! Buffers do in JSON: JavaScript's `Number`, Python's `float` and Rust's `parse` all read it.
//! As a field of a serialized type: `#[serde(with = "metrics::json")]`.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use serde_json::Value;

const INFINITY: &str = "Infinity";

/// A measure as a JSON value: a number, `"Infinity"`, or null where it is not a number.
pub fn number(value: f64) -> Value {
    if value == f64::INFINITY { INFINITY.into() } else { value.into() }
}

/// Writes a measure, for serde.
///
/// # Errors
/// As the serializer does.
pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    number(*value).serialize(serializer)
}

/// Reads a measure, for serde.
///
/// # Errors
/// If it is neither a number nor `"Infinity"`.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::String(text) if text == INFINITY => Ok(f64::INFINITY),
        value => value
            .as_f64()
            .ok_or_else(|| D::Error::custom(format!("{value} is not a number or \"{INFINITY}\""))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::psnr;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Rebuilt {
        #[serde(with = "super")]
        psnr: f64,
    }

    #[test]
    fn should_write_and_read_the_psnr_of_identical_and_of_other_pictures() {
        for (picture, text) in [([1, 2], r#"{"psnr":"Infinity"}"#), ([254, 253], "{\"psnr\":0.")] {
            let rebuilt = Rebuilt { psnr: psnr(&[1, 2], &picture).unwrap() };
            let written = serde_json::to_string(&rebuilt).unwrap();
            assert!(written.starts_with(text), "{written}");
            assert_eq!(serde_json::from_str::<Rebuilt>(&written).unwrap(), rebuilt);
        }
    }

    #[test]
    fn should_refuse_what_is_no_measure() {
        for text in [r#"{"psnr":null}"#, r#"{"psnr":"-Infinity"}"#, r#"{"psnr":[1.0]}"#] {
            assert!(serde_json::from_str::<Rebuilt>(text).is_err(), "{text}");
        }
        assert_eq!(number(f64::NAN), Value::Null);
    }
}
