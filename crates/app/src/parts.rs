//! Long work on numbered pictures, cut into parts that are files. Which picture a part holds hangs
//! on its number alone, so that any division into shards, and any interruption, gives the same files;
//! a part is there whole or not at all.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions, TryLockError},
    io::Write,
    ops::Range,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use metrics::FeatureMatrix;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::Value;
use token_cache::Shard;

/// Pictures of a part: what a kill costs at most.
pub(crate) const PART: usize = 64;

/// Numbers of several pictures, a row each.
#[derive(Debug, Clone, PartialEq)]
enum Values {
    F32(Vec<f32>),
    F64(Vec<f64>),
    I64(Vec<i64>),
}

/// What is known of the pictures of a part, by name; a row a picture.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Arrays(BTreeMap<String, (usize, Values)>);

impl Arrays {
    fn rows(length: usize, width: usize) -> Vec<usize> {
        if width == 1 { vec![length] } else { vec![length / width, width] }
    }

    /// Adds features.
    pub(crate) fn add_features(&mut self, name: &str, features: &FeatureMatrix) {
        let values = Values::F32(features.values().to_vec());
        self.0.insert(name.to_owned(), (features.width(), values));
    }

    /// Adds numbers, `width` of each picture.
    pub(crate) fn add_numbers(&mut self, name: &str, width: usize, values: Vec<f64>) {
        self.0.insert(name.to_owned(), (width, Values::F64(values)));
    }

    /// Adds whole numbers, `width` of each picture.
    pub(crate) fn add_integers(&mut self, name: &str, width: usize, values: Vec<i64>) {
        self.0.insert(name.to_owned(), (width, Values::I64(values)));
    }

    /// Features, if there are some of this name.
    pub(crate) fn features(&self, name: &str) -> Result<Option<FeatureMatrix>> {
        match self.0.get(name) {
            Some((width, Values::F32(values))) => {
                Ok(Some(FeatureMatrix::new(*width, values.clone())?))
            }
            Some(_) => bail!("`{name}` holds no features"),
            None => Ok(None),
        }
    }

    /// Numbers, if there are some of this name.
    pub(crate) fn numbers(&self, name: &str) -> Option<&[f64]> {
        match self.0.get(name) {
            Some((_, Values::F64(values))) => Some(values),
            _ => None,
        }
    }

    /// Whole numbers.
    pub(crate) fn integers(&self, name: &str) -> Result<&[i64]> {
        match self.0.get(name) {
            Some((_, Values::I64(values))) => Ok(values),
            _ => bail!("it has no whole numbers `{name}`"),
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
            .collect::<Result<Vec<_>>>()?;
        let content = safetensors::serialize(views, None)?;
        files::write_file(path, |file| file.write_all(&content))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Reads a part of `count` pictures.
    fn read(path: &Path, count: usize) -> Result<Self> {
        let name = path.display();
        let damaged = |what: String| {
            anyhow!("{name} is damaged ({what}); remove it and give the command again")
        };
        let content = std::fs::read(path).with_context(|| format!("cannot read {name}"))?;
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
pub(crate) struct Parts {
    folder: PathBuf,
    count: usize,
}

impl Parts {
    /// Begins in a folder, or goes on in one that was begun in the same way: `identity` says all
    /// that the numbers hang on.
    pub(crate) fn open(folder: &Path, identity: &Value, count: usize) -> Result<Self> {
        let path = folder.join("run.json");
        let name = folder.display();
        if path.exists() {
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            let before: Value = serde_json::from_str(&text)
                .with_context(|| format!("{} is no JSON", path.display()))?;
            if let Some((key, before, now)) = difference("", &before, identity) {
                bail!(
                    "{name} was begun with {key} {before}, now it is {now}; go on as it was begun, \
                     or name another folder with --out"
                );
            }
        } else {
            if let Ok(mut entries) = std::fs::read_dir(folder) {
                ensure!(
                    entries.all(|entry| entry.is_ok_and(|entry| entry.file_name() == "parts")),
                    "{name} holds something else; name a new folder with --out"
                );
            }
            std::fs::create_dir_all(folder.join("parts"))
                .with_context(|| format!("cannot make the folder {name}"))?;
            let text = serde_json::to_string_pretty(identity)? + "\n";
            files::write_file(&path, |file| file.write_all(text.as_bytes()))
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(Self { folder: folder.to_owned(), count })
    }

    /// Number of parts.
    pub(crate) fn len(&self) -> usize {
        self.count.div_ceil(PART)
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
    pub(crate) fn missing(&self) -> Vec<usize> {
        (0..self.len()).filter(|&part| !self.path(part).exists()).collect()
    }

    /// Makes the missing parts of a shard. `make` is told which pictures, and tells how many of
    /// them are done.
    pub(crate) fn work(
        &self,
        shard: Shard,
        mut make: impl FnMut(Range<usize>, &mut (dyn FnMut(usize) + Send)) -> Result<Arrays>,
        mut progress: impl FnMut(usize) + Send,
    ) -> Result<()> {
        let parts = shard.range(self.len());
        let _lock = self.lock(shard)?;
        files::remove_incomplete_of(&self.folder.join("parts"), |name| {
            parts.clone().any(|part| name.starts_with(&Self::name(part)))
        })
        .with_context(|| format!("cannot clear {}", self.folder.display()))?;
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
    pub(crate) fn pictures_of(&self, shard: Shard) -> usize {
        shard.range(self.len()).map(|part| self.range(part).len()).sum()
    }

    /// All parts in order, one in memory at a time.
    pub(crate) fn each(
        &self,
        mut take: impl FnMut(Range<usize>, Arrays) -> Result<()>,
    ) -> Result<()> {
        for part in 0..self.len() {
            let (path, range) = (self.path(part), self.range(part));
            take(range.clone(), Arrays::read(&path, range.len())?)
                .with_context(|| format!("cannot use {}", path.display()))?;
        }
        Ok(())
    }

    /// One process a shard. The system drops the lock with the process, however that ends.
    fn lock(&self, shard: Shard) -> Result<File> {
        let name = format!(".lock-{}-of-{}", shard.index(), shard.count());
        let path = self.folder.join("parts").join(name);
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => {
                bail!(
                    "another process works on shard {shard} of {}; wait for it, or take another \
                     shard",
                    self.folder.display()
                )
            }
            // Some network file systems have no locks; a run is better than none.
            Err(TryLockError::Error(error)) if error.kind() == std::io::ErrorKind::Unsupported => {
                Ok(file)
            }
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("cannot lock {}", path.display()))
            }
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
                if made.len() == 2 { bail!("stopped") } else { Ok(numbers(&range)) }
            },
            |_| {},
        );
        assert!(stopped.is_err());
        std::fs::write(path.join("parts/part-00001.safetensorsXYZ.incomplete"), "half").unwrap();
        assert_eq!(parts.missing(), [1, 2]);
        let again = |range: Range<usize>, _: &mut (dyn FnMut(usize) + Send)| {
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
