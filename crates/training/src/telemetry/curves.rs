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

    /// Step and value of a measure, in the order of steps; nothing if it was never logged.
    pub fn curve(&self, name: &str) -> &[(u64, f64)] {
        self.by_name.get(name).map_or(&[], Vec::as_slice)
    }

    /// The value of a measure in the line of a step, if it is there.
    pub fn at(&self, name: &str, step: u64) -> Option<f64> {
        let curve = self.curve(name);
        let place = curve.binary_search_by_key(&step, |(step, _)| *step).ok()?;
        Some(curve[place].1)
    }

    /// The mean of a measure over all lines after `step`, if there are any.
    pub fn mean_after(&self, name: &str, step: u64) -> Option<f64> {
        let late = self.curve(name).iter().filter(|(logged, _)| *logged > step);
        let (sum, count) = late.fold((0.0, 0), |(sum, count), (_, value)| (sum + value, count + 1));
        (count > 0).then(|| sum / f64::from(count))
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
        let curves = Curves::read(&path).unwrap();
        assert_eq!(curves.by_name.keys().collect::<Vec<_>>(), ["accuracy", "loss"]);
        assert_eq!(curves.curve("loss"), [(1, 2.0), (2, 1.0)]);
        assert_eq!(curves.curve("usage"), []);
        assert_eq!(curves.at("loss", 2), Some(1.0));
        assert_eq!((curves.at("accuracy", 1), curves.at("usage", 1)), (None, None));
    }

    #[test]
    fn should_take_the_mean_of_later_lines() {
        let loss = vec![(10, 8.0), (20, 3.0), (30, 1.0)];
        let curves = Curves { by_name: BTreeMap::from([("loss".to_owned(), loss)]) };
        assert_eq!(curves.mean_after("loss", 10), Some(2.0));
        assert_eq!(curves.mean_after("loss", 0), Some(4.0));
        assert_eq!(curves.mean_after("loss", 30), None);
        assert_eq!(curves.mean_after("accuracy", 0), None);
    }

    #[test]
    fn should_smooth_over_the_values_before() {
        let curve = [(1, 4.0), (2, 0.0), (3, 2.0)];
        assert_eq!(smoothed(&curve, 2), [(1, 4.0), (2, 2.0), (3, 1.0)]);
        assert_eq!(smoothed(&curve, 1), curve);
        assert_eq!(smoothed(&curve, 0), curve);
    }
}
