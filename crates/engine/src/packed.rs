//! Packed models: the weights of a model folder as the kernels of one kind of machine read them.
//! Nothing is converted at start-up: the file is mapped into memory, and its weights are copied
//! into large pages, since steps that stream them from the small pages of a file take longer.
//!
//! A file begins with [`MAGIC`]. Then come the bytes of the weights, each from a multiple of
//! [`ALIGNMENT`] on; then the [`Index`] as JSON; and at the end where it begins (8 bytes, little
//! endian) and its CRC-32C (4 bytes).

use std::{
    collections::BTreeMap,
    io::{self, Write},
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use crc32c::crc32c;
use generator::GeneratorConfig;
use memmap2::Mmap;
use serde::{Deserialize, Serialize};
use tokenizer::{DecoderKind, TokenizerConfig};

use crate::{
    generator::{self as engine_generator, Generator},
    kernels::Kernels,
    matrix::{LAYOUT, Matrix, Precision},
    memory::Arena,
    parallel::Pool,
    tensors::{LoadError, Source, TensorFile, map, release},
    tokenizer::{Decoder, ENCODER, Encoder, with_tensors},
};

/// Name and version of the format.
const MAGIC: &[u8; 16] = b"alitok packed 1\n";

/// Bytes of a cache line, and more than any number needs.
const ALIGNMENT: u64 = 64;

const FOOTER: usize = 12;

/// Where the weights of a model are, and what they are of.
#[derive(Debug, Clone, Copy)]
pub struct ModelFiles<'a> {
    /// `tokenizer.safetensors` and its architecture.
    pub tokenizer: (&'a Path, &'a TokenizerConfig),
    /// `generator.safetensors` and its architecture, if there is one.
    pub generator: Option<(&'a Path, &'a GeneratorConfig)>,
}

/// All that a file says of itself.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Index {
    layout: u32,
    machine: String,
    precision: Precision,
    tokenizer: TokenizerConfig,
    generator: Option<GeneratorConfig>,
    sources: Vec<Fingerprint>,
    weights: BTreeMap<String, Entry>,
}

/// What tells one file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fingerprint {
    bytes: u64,
    crc32c: u32,
}

impl Fingerprint {
    fn of(path: &Path) -> Result<Self, LoadError> {
        let file = map(path)?;
        Ok(Self { bytes: file.len() as u64, crc32c: crc32c(&file) })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Blob {
    start: u64,
    bytes: u64,
    crc32c: u32,
}

/// One weight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    shape: Vec<usize>,
    /// How many matrices of this shape are packed together, and in which format; nothing for plain
    /// numbers in f32.
    packed: Option<(usize, Precision)>,
    blobs: Vec<Blob>,
}

/// The kind of machine that weights are packed for.
fn machine() -> String {
    let kernels = Kernels::detect();
    let order = if cfg!(target_endian = "little") { "little" } else { "big" };
    format!("{}, panels of {}, {order} endian", kernels.name, kernels.width)
}

fn sources(model: &ModelFiles<'_>) -> Result<Vec<Fingerprint>, LoadError> {
    let generator = model.generator.map(|(path, _)| path);
    std::iter::once(model.tokenizer.0).chain(generator).map(Fingerprint::of).collect()
}

/// A packed model, mapped into memory.
pub struct PackedModel {
    path: PathBuf,
    file: Mmap,
    index: Index,
}

impl std::fmt::Debug for PackedModel {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "PackedModel {{ {}, {:?} }}", self.path.display(), self.index.precision)
    }
}

impl PackedModel {
    /// Packs all parts of a model for this machine. The file appears whole or not at all.
    ///
    /// # Errors
    /// If the model cannot be loaded, or the file cannot be written.
    pub fn write(
        path: impl AsRef<Path>,
        model: &ModelFiles<'_>,
        precision: Precision,
    ) -> Result<(), LoadError> {
        let path = path.as_ref();
        let sources = sources(model)?;
        let mut failed = None;
        let written = files::write_file(path, |out| {
            let mut writer = Writer { out, at: 0, weights: BTreeMap::new(), error: None };
            writer.put(MAGIC)?;
            if let Err(error) = write_parts(&mut writer, model, precision) {
                failed = Some(error);
                return Err(io::ErrorKind::InvalidInput.into());
            }
            if let Some(error) = writer.error {
                return Err(error);
            }
            let index = Index {
                layout: LAYOUT,
                machine: machine(),
                precision,
                tokenizer: model.tokenizer.1.clone(),
                generator: model.generator.map(|(_, config)| config.clone()),
                sources,
                weights: std::mem::take(&mut writer.weights),
            };
            let start = writer.at;
            let index = serde_json::to_vec(&index)?;
            writer.put(&index)?;
            writer.put(&start.to_le_bytes())?;
            writer.put(&crc32c(&index).to_le_bytes())
        });
        match (failed, written) {
            (Some(error), _) => Err(error),
            (None, written) => {
                written.map_err(|source| LoadError::Write { path: path.to_owned(), source })
            }
        }
    }

    /// Opens a packed model for this machine. Whether it is the right model's,
    /// [`check`](Self::check) says.
    ///
    /// # Errors
    /// If it is for another kind of machine or version, or cannot be read or is damaged.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, LoadError> {
        let path = path.as_ref();
        let damaged = |what: &str| LoadError::Damaged { path: path.to_owned(), what: what.into() };
        let other = |what: String| LoadError::Packed { path: path.to_owned(), what };
        let file = map(path)?;
        let Some((body, footer)) = file.split_last_chunk::<FOOTER>() else {
            return Err(damaged("it is too short"));
        };
        if !body.starts_with(MAGIC) {
            return Err(other("is no packed model of this version".to_owned()));
        }
        let [start @ .., c0, c1, c2, c3] = *footer;
        let start = usize::try_from(u64::from_le_bytes(start)).unwrap_or(usize::MAX);
        let index = body.get(start..).ok_or_else(|| damaged("its index is missing"))?;
        if crc32c(index) != u32::from_le_bytes([c0, c1, c2, c3]) {
            return Err(damaged("the checksum of its index is wrong"));
        }
        // What another version wrote may have another index, too.
        #[derive(Deserialize)]
        struct Version {
            layout: u32,
        }
        let version: Version =
            serde_json::from_slice(index).map_err(|error| damaged(&error.to_string()))?;
        if version.layout != LAYOUT {
            return Err(other("was packed by another version of alitok".to_owned()));
        }
        let index: Index =
            serde_json::from_slice(index).map_err(|error| damaged(&error.to_string()))?;
        if index.machine != machine() {
            let (for_machine, here) = (&index.machine, machine());
            return Err(other(format!("was packed for {for_machine}; this machine has {here}")));
        }
        Ok(Self { path: path.to_owned(), file, index })
    }

    /// Checks that these files are what it was made of.
    ///
    /// # Errors
    /// If they are not, or cannot be read.
    pub fn check(&self, model: &ModelFiles<'_>) -> Result<(), LoadError> {
        let other = |what: &str| LoadError::Packed { path: self.path.clone(), what: what.into() };
        let generator = model.generator.map(|(_, config)| config);
        if &self.index.tokenizer != model.tokenizer.1 || self.index.generator.as_ref() != generator
        {
            return Err(other("belongs to a model of another architecture"));
        }
        if self.index.sources != sources(model)? {
            return Err(other("was packed from other weights than the model's"));
        }
        Ok(())
    }

    /// The number format of the weights.
    pub fn precision(&self) -> Precision {
        self.index.precision
    }

    /// Builds a part of the model.
    ///
    /// # Errors
    /// If weights are missing, superfluous, of another shape or damaged.
    pub(crate) fn build<T>(
        &self,
        part: &str,
        build: impl FnOnce(&mut dyn Source) -> T,
    ) -> Result<T, LoadError> {
        let prefix = format!("{part}/");
        let unused = self.index.weights.keys().filter(|name| name.starts_with(&prefix)).count();
        let mut tensors =
            PackedTensors { model: self, prefix, unused, problem: None, arena: Arena::default() };
        let built = build(&mut tensors);
        let what = match tensors.problem {
            None if tensors.unused == 0 => return Ok(built),
            None => format!("it has {} weights too many", tensors.unused),
            Some(problem) => problem,
        };
        Err(LoadError::Damaged { path: self.path.clone(), what })
    }

    /// Where sound bytes lie.
    fn range(&self, blob: &Blob) -> Option<Range<usize>> {
        let start = usize::try_from(blob.start).ok()?;
        let range = start..start.checked_add(usize::try_from(blob.bytes).ok()?)?;
        let bytes = self.file.get(range.clone())?;
        (crc32c(bytes) == blob.crc32c).then_some(range)
    }
}

/// Packs one part after the other.
fn write_parts(
    writer: &mut Writer<'_>,
    model: &ModelFiles<'_>,
    precision: Precision,
) -> Result<(), LoadError> {
    let pool = Arc::new(Pool::new(1));
    let (path, config) = model.tokenizer;
    let built = with_tensors(path, config, None, |tensors| {
        let mut recorder = Recorder { tensors, part: ENCODER, writer };
        Encoder::build(&mut recorder, config, precision, Arc::clone(&pool))
    })?;
    built.map_err(LoadError::Memory)?;
    for kind in [DecoderKind::Causal, DecoderKind::Bidirectional] {
        if config.decoder(kind).is_err() {
            continue;
        }
        let built = with_tensors(path, config, Some(kind), |tensors| {
            let mut recorder = Recorder { tensors, part: kind.name(), writer };
            Decoder::build(&mut recorder, config, kind, precision, Arc::clone(&pool))
        })?;
        if let Ok(built) = built {
            built.map_err(LoadError::Memory)?;
        }
    }
    if let Some((path, config)) = model.generator {
        let built = TensorFile::open(path)?.build(
            |_| true,
            |tensors| {
                let mut recorder = Recorder { tensors, part: engine_generator::PART, writer };
                Generator::build(&mut recorder, config, precision, pool)
            },
        )?;
        built.map_err(LoadError::Memory)?;
    }
    Ok(())
}

struct Writer<'a> {
    out: &'a mut dyn Write,
    at: u64,
    weights: BTreeMap<String, Entry>,
    /// Why nothing more is written.
    error: Option<io::Error>,
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.at += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    fn blob(&mut self, bytes: &[u8]) -> io::Result<Blob> {
        let gap = self.at.next_multiple_of(ALIGNMENT) - self.at;
        self.put(&[0; ALIGNMENT as usize][..gap as usize])?;
        let start = self.at;
        self.put(bytes)?;
        Ok(Blob { start, bytes: bytes.len() as u64, crc32c: crc32c(bytes) })
    }

    fn add(
        &mut self,
        name: String,
        shape: &[usize],
        packed: Option<(usize, Precision)>,
        blobs: &[&[u8]],
    ) {
        if self.error.is_some() {
            return;
        }
        let blobs: io::Result<Vec<Blob>> = blobs.iter().map(|bytes| self.blob(bytes)).collect();
        match blobs {
            Ok(blobs) => {
                let entry = Entry { shape: shape.to_vec(), packed, blobs };
                self.weights.insert(name, entry);
            }
            Err(error) => self.error = Some(error),
        }
    }
}

/// Name of a weight, or of two that are packed together.
fn name_of(part: &str, names: &[&str]) -> String {
    format!("{part}/{}", names.join(" + "))
}

/// Writes down what a part is built from.
struct Recorder<'a, 'b> {
    tensors: &'a mut dyn Source,
    part: &'a str,
    writer: &'a mut Writer<'b>,
}

impl Source for Recorder<'_, '_> {
    fn arena(&mut self) -> &mut Arena {
        self.tensors.arena()
    }

    fn tensor(&mut self, name: &str, shape: &[usize]) -> Vec<f32> {
        let values = self.tensors.tensor(name, shape);
        let bytes = bytemuck::cast_slice(&values);
        self.writer.add(name_of(self.part, &[name]), shape, None, &[bytes]);
        values
    }

    fn matrix(
        &mut self,
        names: &[&str],
        shape: [usize; 2],
        precision: Precision,
    ) -> io::Result<Matrix> {
        let matrix = self.tensors.matrix(names, shape, precision)?;
        let packed = Some((names.len(), precision));
        self.writer.add(name_of(self.part, names), &shape, packed, &matrix.blobs());
        Ok(matrix)
    }
}

/// Gives a part what was written down.
struct PackedTensors<'a> {
    model: &'a PackedModel,
    prefix: String,
    unused: usize,
    /// The first of all.
    problem: Option<String>,
    arena: Arena,
}

impl PackedTensors<'_> {
    /// Where the sound bytes of a weight lie.
    fn find<const N: usize>(
        &mut self,
        names: &[&str],
        shape: &[usize],
        packed: Option<(usize, Precision)>,
    ) -> Option<[Range<usize>; N]> {
        let name = name_of(self.prefix.trim_end_matches('/'), names);
        let found = self.model.index.weights.get(&name);
        let wanted = |entry: &&Entry| entry.shape == shape && entry.packed == packed;
        let ranges = found.filter(wanted).and_then(|entry| {
            let ranges: Option<Vec<_>> =
                entry.blobs.iter().map(|blob| self.model.range(blob)).collect();
            ranges?.try_into().ok()
        });
        self.unused = self.unused.saturating_sub(usize::from(found.is_some()));
        if ranges.is_none() && self.problem.is_none() {
            let what = if found.is_some() { "damaged" } else { "missing" };
            self.problem = Some(format!("the weight `{name}` is {what}"));
        }
        ranges
    }
}

impl Source for PackedTensors<'_> {
    fn arena(&mut self) -> &mut Arena {
        &mut self.arena
    }

    fn tensor(&mut self, name: &str, shape: &[usize]) -> Vec<f32> {
        let count = shape.iter().product();
        let found = self.find::<1>(&[name], shape, None);
        let values: Vec<f32> = found.map_or(Vec::new(), |[range]| {
            let numbers = self.model.file[range].as_chunks::<4>().0.iter();
            numbers.map(|&bytes| f32::from_ne_bytes(bytes)).collect()
        });
        if values.len() == count {
            return values;
        }
        self.problem.get_or_insert_with(|| format!("the weight `{name}` has another size"));
        vec![0.0; count]
    }

    fn matrix(
        &mut self,
        names: &[&str],
        shape: [usize; 2],
        precision: Precision,
    ) -> io::Result<Matrix> {
        let (kernels, file, parts) = (Kernels::detect(), &self.model.file, names.len());
        let found = self.find::<3>(names, &shape, Some((parts, precision)));
        let matrix = found.map(|ranges| {
            let blobs = ranges.each_ref().map(|range| &file[range.clone()]);
            let arena = &mut self.arena;
            let matrix = Matrix::from_blobs(kernels, precision, parts, shape, blobs, arena);
            ranges.iter().for_each(|range| release(file, range));
            matrix
        });
        matrix.transpose()?.flatten().ok_or_else(|| {
            let what = || format!("the weight `{}` has another size", names.join(" + "));
            io::Error::other(self.problem.get_or_insert_with(what).clone())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// The bundled model.
    struct Model {
        folder: PathBuf,
        tokenizer: TokenizerConfig,
        generator: GeneratorConfig,
    }

    impl Model {
        fn new() -> Self {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/mini");
            let text = fs::read_to_string(folder.join("config.json")).unwrap();
            let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
            let tokenizer = serde_json::from_value(config["tokenizer"].take()).unwrap();
            let generator = serde_json::from_value(config["generator"].take()).unwrap();
            Self { folder, tokenizer, generator }
        }

        fn with<T>(&self, work: impl FnOnce(&ModelFiles<'_>) -> T) -> T {
            let path = |name: &str| self.folder.join(name);
            work(&ModelFiles {
                tokenizer: (&path("tokenizer.safetensors"), &self.tokenizer),
                generator: Some((&path("generator.safetensors"), &self.generator)),
            })
        }
    }

    fn generator(file: &PackedModel, model: &Model) -> Result<Generator, LoadError> {
        Generator::from_packed(file, &model.generator, Arc::new(Pool::new(1)))
    }

    #[test]
    fn should_refuse_what_is_damaged_or_belongs_elsewhere() {
        let model = Model::new();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("packed");
        model.with(|files| PackedModel::write(&path, files, Precision::Int8)).unwrap();
        let bytes = fs::read(&path).unwrap();
        let file = PackedModel::open(&path).unwrap();
        model.with(|files| file.check(files)).unwrap();
        generator(&file, &model).unwrap();
        // Weights begin on cache lines, as the format says.
        for entry in file.index.weights.values() {
            assert!(entry.blobs.iter().all(|blob| blob.start % ALIGNMENT == 0));
        }
        drop(file);

        let replace = |bytes: &[u8]| {
            fs::remove_file(&path).unwrap();
            fs::write(&path, bytes).unwrap();
            PackedModel::open(&path)
        };
        for length in [0, 11, 100, bytes.len() - 1] {
            assert!(replace(&bytes[..length]).is_err(), "{length} bytes");
        }
        // A bit of a weight; then one of the index.
        let mut flipped = bytes.clone();
        let middle = bytes.len() / 2;
        flipped[middle] ^= 1;
        let file = replace(&flipped).unwrap();
        let parts = [
            generator(&file, &model).map(drop),
            Encoder::from_packed(&file, &model.tokenizer, Arc::new(Pool::new(1))).map(drop),
        ];
        let decoders = [DecoderKind::Causal, DecoderKind::Bidirectional].map(|kind| {
            Decoder::from_packed(&file, &model.tokenizer, kind, Arc::new(Pool::new(1))).map(drop)
        });
        let failed = parts.iter().filter(|part| part.is_err()).count()
            + decoders.iter().filter(|part| part.is_err()).count();
        assert_eq!(failed, 1, "the damage is in one part");
        let mut flipped = bytes.clone();
        flipped[bytes.len() - 100] ^= 1;
        assert!(matches!(replace(&flipped), Err(LoadError::Damaged { .. })));

        // The same file, had it been packed on another machine or by another version.
        let (body, footer) = bytes.split_last_chunk::<FOOTER>().unwrap();
        let start = u64::from_le_bytes(footer[..8].try_into().unwrap()) as usize;
        for (key, value) in [("machine", "abacus".into()), ("layout", 0.into())] {
            let mut index: serde_json::Value = serde_json::from_slice(&body[start..]).unwrap();
            index[key] = value;
            let index = serde_json::to_vec(&index).unwrap();
            let checksum = crc32c(&index).to_le_bytes();
            let other = [&body[..start], &index, &footer[..8], &checksum].concat();
            let error = replace(&other).unwrap_err();
            assert!(matches!(error, LoadError::Packed { .. }), "{key}: {error}");
        }

        // Another model.
        let file = replace(&bytes).unwrap();
        let mut deeper = Model::new();
        deeper.generator.layers += 1;
        let weights = folder.path().join("model");
        fs::create_dir(&weights).unwrap();
        for name in ["tokenizer.safetensors", "generator.safetensors"] {
            let mut bytes = fs::read(model.folder.join(name)).unwrap();
            let last = bytes.len() - 1;
            bytes[last] ^= u8::from(name.starts_with("gen"));
            fs::write(weights.join(name), bytes).unwrap();
        }
        let retrained = Model { folder: weights, ..Model::new() };
        for other in [deeper, retrained] {
            let error = other.with(|files| file.check(files)).unwrap_err();
            assert!(matches!(error, LoadError::Packed { .. }), "{error}");
        }
    }
}
