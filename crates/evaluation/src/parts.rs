//! Long work on numbered pictures, cut into parts that are files. A part's number alone decides which
//! pictures it holds, so the files are the same however the work is divided into shards and wherever
//! it was interrupted. A part is there whole or not at all.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions, TryLockError},
    io::Write,
    ops::Range,
    path::{Path, PathBuf},
};

use metrics::FeatureMatrix;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::Value;
use token_cache::Shard;

use crate::EvaluationError;

type Result<T> = std::result::Result<T, EvaluationError>;

/// Pictures in a part. A kill loses at most that many.
pub const PART: usize = 64;

/// Numbers of several pictures, a row each.
#[derive(Debug, Clone, PartialEq)]
enum Values {
    F32(Vec<f32>),
    F64(Vec<f64>),
    I64(Vec<i64>),
}

/// What is known of the pictures of a part, by name; a row a picture.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Arrays(BTreeMap<String, (usize, Values)>);

impl Arrays {
    fn rows(length: usize, width: usize) -> Vec<usize> {
        if width == 1 { vec![length] } else { vec![length / width, width] }
    }

    /// Adds features.
    pub fn add_features(&mut self, name: &str, features: &FeatureMatrix) {
        let values = Values::F32(features.values().to_vec());
        self.0.insert(name.to_owned(), (features.width(), values));
    }

    /// Adds numbers, `width` of each picture.
    pub fn add_numbers(&mut self, name: &str, width: usize, values: Vec<f64>) {
        self.0.insert(name.to_owned(), (width, Values::F64(values)));
    }

    /// Adds whole numbers, `width` of each picture.
    pub fn add_integers(&mut self, name: &str, width: usize, values: Vec<i64>) {
        self.0.insert(name.to_owned(), (width, Values::I64(values)));
    }

    /// Features, if there are some of this name.
    ///
    /// # Errors
    /// If the name is that of other numbers.
    pub fn features(&self, name: &str) -> Result<Option<FeatureMatrix>> {
        match self.0.get(name) {
            Some((width, Values::F32(values))) => {
                Ok(Some(FeatureMatrix::new(*width, values.clone())?))
            }
            Some(_) => Err(EvaluationError::Impossible(format!("`{name}` holds no features"))),
            None => Ok(None),
        }
    }

    /// Features.
    ///
    /// # Errors
    /// If there are none of this name.
    pub fn required_features(&self, name: &str) -> Result<FeatureMatrix> {
        let problem = || EvaluationError::Impossible(format!("it has no features `{name}`"));
        self.features(name)?.ok_or_else(problem)
    }

    /// Numbers.
    ///
    /// # Errors
    /// If there are none of this name.
    pub fn numbers(&self, name: &str) -> Result<&[f64]> {
        match self.0.get(name) {
            Some((_, Values::F64(values))) => Ok(values),
            _ => Err(EvaluationError::Impossible(format!("it has no numbers `{name}`"))),
        }
    }

    /// Whole numbers.
    ///
    /// # Errors
    /// If there are none of this name.
    pub fn integers(&self, name: &str) -> Result<&[i64]> {
        match self.0.get(name) {
            Some((_, Values::I64(values))) => Ok(values),
            _ => Err(EvaluationError::Impossible(format!("it has no whole numbers `{name}`"))),
        }
    }

    fn write(&self, path: &Path) -> Result<()> {
        let bytes: Vec<(&String, Dtype, Vec<usize>, Vec<u8>)> = self
            .0
            .iter()
            .map(|(name, (width, values))| match values {
                Values::F32(values) => {
                    let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                    (name, Dtype::F32, Self::rows(values.len(), *width), bytes)
                }
                Values::F64(values) => {
                    let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                    (name, Dtype::F64, Self::rows(values.len(), *width), bytes)
                }
                Values::I64(values) => {
                    let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                    (name, Dtype::I64, Self::rows(values.len(), *width), bytes)
                }
            })
            .collect();
        let views = bytes
            .iter()
            .map(|(name, kind, shape, bytes)| {
                Ok((name.as_str(), TensorView::new(*kind, shape.clone(), bytes)?))
            })
            .collect::<std::result::Result<Vec<_>, safetensors::SafeTensorError>>();
        let content = views
            .and_then(|views| safetensors::serialize(views, None))
            .map_err(|error| EvaluationError::content(path, error))?;
        files::write_file(path, |file| file.write_all(&content))
            .map_err(EvaluationError::file("write", path))
    }

    /// Reads a part of `count` pictures.
    fn read(path: &Path, count: usize) -> Result<Self> {
        let damaged = |what: String| {
            let problem = format!("is damaged ({what}); remove it and give the command again");
            EvaluationError::content(path, problem)
        };
        let content = std::fs::read(path).map_err(EvaluationError::file("read", path))?;
        let file =
            SafeTensors::deserialize(&content).map_err(|error| damaged(error.to_string()))?;
        let mut arrays = Self::default();
        for (name, view) in file.iter() {
            let shape = view.shape();
            if shape.first() != Some(&count) || shape.len() > 2 {
                return Err(damaged(format!("`{name}` has shape {shape:?}, not of {count} rows")));
            }
            let width = shape.get(1).copied().unwrap_or(1);
            let (quads, octets) = (view.data().as_chunks::<4>().0, view.data().as_chunks::<8>().0);
            let values = match view.dtype() {
                Dtype::F32 => Values::F32(quads.iter().map(|&b| f32::from_le_bytes(b)).collect()),
                Dtype::F64 => Values::F64(octets.iter().map(|&b| f64::from_le_bytes(b)).collect()),
                Dtype::I64 => Values::I64(octets.iter().map(|&b| i64::from_le_bytes(b)).collect()),
                other => return Err(damaged(format!("`{name}` has type {other:?}"))),
            };
            arrays.0.insert(name.to_owned(), (width, values));
        }
        Ok(arrays)
    }
}

/// Work on `count` pictures whose finished parts lie in a folder.
#[derive(Debug)]
pub struct Parts {
    folder: PathBuf,
    count: usize,
}

impl Parts {
    /// Begins in a folder, or goes on in one that was begun in the same way: `identity` says
    /// everything that the numbers depend on.
    ///
    /// # Errors
    /// If the folder was begun in another way, holds something else, or cannot be used.
    pub fn open(folder: &Path, identity: &Value, count: usize) -> Result<Self> {
        let path = folder.join("run.json");
        if path.exists() {
            let text =
                std::fs::read_to_string(&path).map_err(EvaluationError::file("read", &path))?;
            let before: Value = serde_json::from_str(&text).map_err(|error| {
                EvaluationError::content(&path, format!("is not JSON: {error}; remove the folder"))
            })?;
            if let Some((key, before, now)) = difference("", &before, identity) {
                let problem = format!(
                    "was begun with {key} {before}, now it is {now}; go on as it was begun, or \
                     name another folder with --out"
                );
                return Err(EvaluationError::content(folder, problem));
            }
        } else {
            if let Ok(mut entries) = std::fs::read_dir(folder)
                && !entries.all(|entry| entry.is_ok_and(|entry| entry.file_name() == "parts"))
            {
                let problem = "holds something else; name a new folder with --out";
                return Err(EvaluationError::content(folder, problem));
            }
            std::fs::create_dir_all(folder.join("parts"))
                .map_err(EvaluationError::file("make the folder", folder))?;
            let text = format!("{identity:#}\n");
            files::write_file(&path, |file| file.write_all(text.as_bytes()))
                .map_err(EvaluationError::file("write", &path))?;
        }
        Ok(Self { folder: folder.to_owned(), count })
    }

    /// Number of parts.
    pub fn len(&self) -> usize {
        self.count.div_ceil(PART)
    }

    /// Whether there are no pictures, and so no parts.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The pictures of a part.
    fn range(&self, part: usize) -> Range<usize> {
        part * PART..self.count.min((part + 1) * PART)
    }

    fn name(part: usize) -> String {
        format!("part-{part:05}.safetensors")
    }

    fn path(&self, part: usize) -> PathBuf {
        self.folder.join("parts").join(Self::name(part))
    }

    /// Parts that are not there yet.
    pub fn missing(&self) -> Vec<usize> {
        (0..self.len()).filter(|&part| !self.path(part).exists()).collect()
    }

    /// Makes the missing parts of a shard. `make` gets the numbers of the pictures, and reports how
    /// many of them are done; `progress` gets the number of pictures done in the whole shard.
    ///
    /// # Errors
    /// What `make` returns, and if another process works on the shard or a part cannot be written.
    pub fn work(
        &self,
        shard: Shard,
        mut make: impl FnMut(Range<usize>, &mut dyn FnMut(usize)) -> Result<Arrays>,
        mut progress: impl FnMut(usize),
    ) -> Result<()> {
        let parts = shard.range(self.len());
        let _lock = self.lock(shard)?;
        files::remove_incomplete_of(&self.folder.join("parts"), |name| {
            parts.clone().any(|part| name.starts_with(&Self::name(part)))
        })
        .map_err(EvaluationError::file("clear", &self.folder))?;
        let mut done = 0;
        for part in parts {
            let range = self.range(part);
            if !self.path(part).exists() {
                let arrays = make(range.clone(), &mut |of_part| progress(done + of_part))?;
                arrays.write(&self.path(part))?;
            }
            done += range.len();
            progress(done);
        }
        Ok(())
    }

    /// Pictures of a shard.
    pub fn pictures_of(&self, shard: Shard) -> usize {
        shard.range(self.len()).map(|part| self.range(part).len()).sum()
    }

    /// Calls `take` with all parts in order. One part is in memory at a time.
    ///
    /// # Errors
    /// If a part is missing or damaged, or `take` fails.
    pub fn each(&self, mut take: impl FnMut(Range<usize>, Arrays) -> Result<()>) -> Result<()> {
        for part in 0..self.len() {
            let (path, range) = (self.path(part), self.range(part));
            take(range.clone(), Arrays::read(&path, range.len())?)
                .map_err(|source| EvaluationError::Part { path, source: source.into() })?;
        }
        Ok(())
    }

    /// One process a shard. The system drops the lock with the process, however that ends.
    fn lock(&self, shard: Shard) -> Result<File> {
        let name = format!(".lock-{}-of-{}", shard.index(), shard.count());
        let path = self.folder.join("parts").join(name);
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(EvaluationError::file("write", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(EvaluationError::Impossible(format!(
                "another process works on shard {shard} of {}; wait for it, or take another shard",
                self.folder.display()
            ))),
            // Some network file systems have no locks; a run is better than none.
            Err(TryLockError::Error(error)) if error.kind() == std::io::ErrorKind::Unsupported => {
                Ok(file)
            }
            Err(TryLockError::Error(error)) => Err(EvaluationError::file("lock", &path)(error)),
        }
    }
}

/// The first place where two values differ, and both of what is there.
fn difference(path: &str, before: &Value, now: &Value) -> Option<(String, String, String)> {
    if let (Value::Object(one), Value::Object(other)) = (before, now) {
        let keys = one.keys().chain(other.keys().filter(|key| !one.contains_key(*key)));
        let null = Value::Null;
        return keys.into_iter().find_map(|key| {
            let inner = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let of = |map: &serde_json::Map<String, Value>| map.get(key).cloned();
            difference(
                &inner,
                of(one).as_ref().unwrap_or(&null),
                of(other).as_ref().unwrap_or(&null),
            )
        });
    }
    (before != now).then(|| (path.to_owned(), before.to_string(), now.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(range: &Range<usize>) -> Arrays {
        let mut arrays = Arrays::default();
        let squares = range.clone().map(|index| (index * index) as f64).collect();
        arrays.add_numbers("squares", 1, squares);
        arrays.add_integers("pairs", 2, range.clone().flat_map(|i| [i as i64, -1]).collect());
        let rows = range.clone().flat_map(|index| [index as f32, 0.5, 0.25]).collect();
        arrays.add_features("pool", &FeatureMatrix::new(3, rows).unwrap());
        arrays
    }

    fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
        let entries = std::fs::read_dir(folder.join("parts")).unwrap().map(|entry| entry.unwrap());
        entries
            .map(|entry| {
                let name = entry.file_name().into_string().unwrap();
                (name, std::fs::read(entry.path()).unwrap())
            })
            .filter(|(name, _)| name.starts_with("part-"))
            .collect()
    }

    #[test]
    fn should_have_the_same_files_however_the_work_is_divided() {
        let count = 3 * PART + 5;
        let identity = serde_json::json!({ "seed": 1 });
        let work = |folder: &Path, shards: &[&str]| {
            for shard in shards {
                let parts = Parts::open(folder, &identity, count).unwrap();
                parts.work(shard.parse().unwrap(), |range, _| Ok(numbers(&range)), |_| {}).unwrap();
            }
            files(folder)
        };
        let folder = tempfile::tempdir().unwrap();
        let whole = work(&folder.path().join("whole"), &["0/1"]);
        assert_eq!(whole.len(), 4);
        assert_eq!(work(&folder.path().join("three"), &["2/3", "0/3", "1/3"]), whole);
        assert_eq!(work(&folder.path().join("mixed"), &["1/3", "0/1"]), whole);
        let parts = Parts::open(&folder.path().join("three"), &identity, count).unwrap();
        let mut seen = Arrays::default();
        let mut next = 0;
        parts
            .each(|range, arrays| {
                assert_eq!(range.start, next);
                assert_eq!(arrays, numbers(&range));
                next = range.end;
                seen = arrays;
                Ok(())
            })
            .unwrap();
        assert_eq!(next, count);
        assert_eq!(seen.features("pool").unwrap().unwrap().rows(), 5);
        assert!(seen.features("squares").is_err() && seen.features("none").unwrap().is_none());
    }

    #[test]
    fn should_make_no_part_twice_and_clear_what_a_kill_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        let identity = serde_json::json!({ "seed": 1 });
        let parts = Parts::open(&path, &identity, 3 * PART).unwrap();
        let mut made = Vec::new();
        let stopped = parts.work(
            Shard::WHOLE,
            |range, _| {
                made.push(range.start / PART);
                match made.len() {
                    2 => Err(EvaluationError::Impossible("stopped".into())),
                    _ => Ok(numbers(&range)),
                }
            },
            |_| {},
        );
        assert!(stopped.is_err());
        std::fs::write(path.join("parts/part-00001.safetensorsXYZ.incomplete"), "half").unwrap();
        assert_eq!(parts.missing(), [1, 2]);
        let again = |range: Range<usize>, _: &mut dyn FnMut(usize)| {
            made.push(range.start / PART);
            Ok(numbers(&range))
        };
        parts.work(Shard::WHOLE, again, |_| {}).unwrap();
        assert_eq!(made, [0, 1, 1, 2]);
        assert!(!path.join("parts/part-00001.safetensorsXYZ.incomplete").exists());

        let other = serde_json::json!({ "seed": 2 });
        let told = Parts::open(&path, &other, 3 * PART).err().unwrap().to_string();
        assert!(told.contains("seed 1, now it is 2"), "{told}");
        let foreign = folder.path().join("foreign");
        std::fs::create_dir(&foreign).unwrap();
        std::fs::write(foreign.join("notes.txt"), "mine").unwrap();
        assert!(Parts::open(&foreign, &identity, 1).is_err());

        let part = path.join("parts/part-00002.safetensors");
        let bytes = std::fs::read(&part).unwrap();
        std::fs::write(&part, &bytes[..bytes.len() - 1]).unwrap();
        let told = parts.each(|_, _| Ok(())).unwrap_err().to_string();
        assert!(told.contains("part-00002") && told.contains("remove it"), "{told}");
    }
}
