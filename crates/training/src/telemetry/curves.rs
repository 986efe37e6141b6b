//! A run's log, read again.

use std::{collections::BTreeMap, path::Path};

use serde_json::Value;

use crate::TrainingError;

/// What a run has measured, as curves over its steps.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Curves {
    /// Step and value of each measure, by name.
    pub by_name: BTreeMap<String, Vec<(u64, f64)>>,
}

impl Curves {
    /// Reads a run's `log.jsonl`. Lines that tell of a roll-back and a line that is not written to
    /// its end are left out.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn read(path: &Path) -> Result<Self, TrainingError> {
        let text = std::fs::read(path).map_err(TrainingError::file(path))?;
        let mut curves = Self::default();
        for line in String::from_utf8_lossy(&text).lines() {
            let Ok(Value::Object(line)) = serde_json::from_str(line) else { continue };
            if line.contains_key(super::WENT_BACK) {
                continue;
            }
            let Some(step) = line.get("step").and_then(Value::as_u64) else { continue };
            for (name, value) in line {
                if let Some(value) = value.as_f64().filter(|_| name != "step") {
                    curves.by_name.entry(name).or_default().push((step, value));
                }
            }
        }
        Ok(curves)
    }
}

/// Means of each value and up to `count − 1` before it.
pub fn smoothed(curve: &[(u64, f64)], count: usize) -> Vec<(u64, f64)> {
    (0..curve.len())
        .map(|last| {
            let window = &curve[(last + 1).saturating_sub(count.max(1))..=last];
            let sum: f64 = window.iter().map(|(_, value)| value).sum();
            (curve[last].0, sum / window.len() as f64)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn should_read_measures_and_leave_out_what_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        let log = concat!(
            "{\"step\":1,\"loss\":2.0,\"alarms\":[\"usage\"]}\n",
            "{\"step\":7,\"went_back_to\":1,\"because\":\"loss is NaN\"}\n",
            "{\"step\":2,\"loss\":1.0,\"accuracy\":0.5}\n{\"step\":3,\"lo"
        );
        std::fs::write(&path, log).unwrap();
        let curves = Curves::read(&path).unwrap().by_name;
        assert_eq!(curves.keys().collect::<Vec<_>>(), ["accuracy", "loss"]);
        assert_eq!(curves["loss"], [(1, 2.0), (2, 1.0)]);
    }

    #[test]
    fn should_smooth_over_the_values_before() {
        let curve = [(1, 4.0), (2, 0.0), (3, 2.0)];
        assert_eq!(smoothed(&curve, 2), [(1, 4.0), (2, 2.0), (3, 1.0)]);
        assert_eq!(smoothed(&curve, 1), curve);
        assert_eq!(smoothed(&curve, 0), curve);
    }
}
