//! Files of `torch.save`: the zip format (PyTorch 1.6 and later) and the legacy format before it.
//!
//! Both hold one pickle that describes an object and, beside it, the storages that its tensors
//! view. The object is read first; then only those storages that the wanted tensors need. Layouts
//! are those of `torch/serialization.py`.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, Read, Seek},
    path::Path,
};

use files::{
    FileError, HostTensor, TensorMap,
    floats::{ByteOrder, Encoding, decode},
};
use zip::{CompressionMethod, ZipArchive, result::ZipError};

use crate::{
    checkpoint::{Checkpoint, check_choice},
    error::CheckpointError,
    pickle::{Node, NodeId, Pickle, PickleError, Storage, TensorView},
    wrappers::{RAW, WeightsChoice, is_ema, note_of_choice, unwrap},
};

/// The number with which a file of the legacy format begins, itself a pickle.
const LEGACY_MAGIC: i128 = 0x1950_a86a_20f9_469c_fc6c;
/// The only version of the legacy format.
const LEGACY_VERSION: i128 = 1001;
/// Values that the tensors of a file may have together, per byte of the file. Half precision has
/// 0.5; expanded views of small storages have more. Beyond this, a file wants to fill the memory.
const VALUES_PER_BYTE: u64 = 4;
/// Most bytes that a deflated byte can become, and a few for the end of the stream.
const MOST_DEFLATED: u64 = 1032 + 64;
/// How deep a checkpoint nests its weights; a cycle would nest them forever.
const MAX_NESTING: usize = 4;

fn read_error(path: &Path, source: std::io::Error) -> CheckpointError {
    if source.kind() == std::io::ErrorKind::UnexpectedEof {
        return damaged(path, "it ends too early");
    }
    FileError::Read { path: path.to_owned(), source }.into()
}

fn damaged(path: &Path, what: impl Into<String>) -> CheckpointError {
    FileError::Damaged { path: path.to_owned(), what: what.into() }.into()
}

fn pickle_error(path: &Path, error: PickleError) -> CheckpointError {
    match error {
        PickleError::Io(source) => read_error(path, source),
        PickleError::Code { what, .. } => CheckpointError::Code { path: path.to_owned(), what },
        other => damaged(path, other.to_string()),
    }
}

/// Tensors of one state dict that are still without values, by the key of their storage.
struct Wanted {
    tensors: BTreeMap<String, Vec<(String, TensorView)>>,
    others: BTreeMap<String, String>,
    state_dict: Option<String>,
    notes: Vec<String>,
}

impl Wanted {
    fn find(
        path: &Path,
        pickle: &Pickle,
        file_bytes: u64,
        choice: Option<WeightsChoice>,
    ) -> Result<Self, CheckpointError> {
        let StateDict { name: state_dict, entries, choice: mut found, mut notes } =
            find_state_dict(path, pickle, choice)?;
        let mut named = BTreeMap::new();
        let mut others = BTreeMap::new();
        for &(key, value) in entries {
            let name = match pickle.get(key) {
                Node::Text(name) => name.clone(),
                key => {
                    return Err(CheckpointError::NoStateDict {
                        path: path.to_owned(),
                        found: format!("one of its keys is {}, not a string", key.kind()),
                    });
                }
            };
            match pickle.get(value) {
                Node::Tensor(tensor) if tensor.element.encoding != Encoding::Other => {
                    others.remove(&name);
                    named.insert(name, (**tensor).clone());
                }
                other => {
                    named.remove(&name);
                    others.insert(
                        name,
                        match other {
                            Node::Tensor(t) => {
                                format!("a tensor of {} of shape {:?}", t.element.name, t.shape)
                            }
                            other => other.kind().to_owned(),
                        },
                    );
                }
            }
        }
        let all = named.keys().chain(others.keys()).cloned().collect();
        let selection = unwrap(&all, choice);
        notes.extend(selection.notes);
        found = selection.choice.or(found);
        check_choice(path, choice, found)?;
        let names = selection.names;
        let rename = |own: String| names.get(&own).cloned();
        let named: BTreeMap<String, TensorView> =
            named.into_iter().filter_map(|(own, tensor)| Some((rename(own)?, tensor))).collect();
        let others =
            others.into_iter().filter_map(|(own, kind)| Some((rename(own)?, kind))).collect();
        let mut values = 0u64;
        let mut tensors: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for (name, tensor) in named {
            values = tensor
                .shape
                .iter()
                .try_fold(1u64, |product, &extent| product.checked_mul(extent))
                .and_then(|count| values.checked_add(count))
                .filter(|&count| count / VALUES_PER_BYTE <= file_bytes)
                .ok_or_else(|| FileError::Tensor {
                    path: path.to_owned(),
                    name: name.clone(),
                    what: format!("of shape {:?} is larger than its file", tensor.shape),
                })?;
            tensors.entry(tensor.storage.key.clone()).or_default().push((name, tensor));
        }
        Ok(Self { tensors, others, state_dict, notes })
    }

    /// The wanted tensors of one storage.
    fn take(
        &mut self,
        path: &Path,
        key: &str,
        bytes: &[u8],
        order: ByteOrder,
        into: &mut TensorMap,
    ) -> Result<(), CheckpointError> {
        for (name, tensor) in self.tensors.remove(key).unwrap_or_default() {
            let host = gather(&tensor, bytes, order).map_err(|what| FileError::Tensor {
                path: path.to_owned(),
                name: name.clone(),
                what: what.to_owned(),
            })?;
            into.insert(name, host);
        }
        Ok(())
    }

    fn finish(self, path: &Path, tensors: TensorMap) -> Result<Checkpoint, CheckpointError> {
        if let Some((key, missing)) = self.tensors.first_key_value() {
            return Err(damaged(
                path,
                format!("storage `{key}` of tensor `{}` is missing", missing[0].0),
            ));
        }
        let Self { others, state_dict, notes, .. } = self;
        Ok(Checkpoint { tensors, others, state_dict, notes })
    }
}

type Entries = [(NodeId, NodeId)];

fn dictionary(pickle: &Pickle, id: NodeId) -> Option<&Entries> {
    match pickle.get(id) {
        Node::Dictionary(entries) => Some(entries),
        _ => None,
    }
}

/// Where a file keeps its weights.
struct StateDict<'p> {
    /// The keys that lead to it; `None` for the file's object itself.
    name: Option<String>,
    entries: &'p Entries,
    choice: Option<WeightsChoice>,
    notes: Vec<String>,
}

/// The entries of a dictionary whose keys are texts, the last of each key, by key.
fn named<'p>(pickle: &'p Pickle, entries: &'p Entries) -> BTreeMap<&'p str, NodeId> {
    let named = entries.iter().filter_map(|&(key, value)| match pickle.get(key) {
        Node::Text(key) => Some((key.as_str(), value)),
        _ => None,
    });
    named.collect()
}

/// Whether a dictionary holds tensors, or known dictionaries that do.
fn holds_tensors(pickle: &Pickle, entries: &Entries, depth: usize) -> bool {
    let direct = entries.iter().any(|&(_, value)| matches!(pickle.get(value), Node::Tensor(_)));
    direct
        || depth < MAX_NESTING
            && named(pickle, entries).into_iter().any(|(key, value)| {
                (RAW.contains(&key) || is_ema(key))
                    && dictionary(pickle, value)
                        .is_some_and(|inner| holds_tensors(pickle, inner, depth + 1))
            })
}

/// The dictionary that holds tensors directly: the object itself, or one under a known key.
fn find_state_dict<'p>(
    path: &Path,
    pickle: &'p Pickle,
    choice: Option<WeightsChoice>,
) -> Result<StateDict<'p>, CheckpointError> {
    let none = |found: String| CheckpointError::NoStateDict { path: path.to_owned(), found };
    let Node::Dictionary(root) = pickle.root() else {
        return Err(none(format!("the file is {}", pickle.root().kind())));
    };
    let mut entries: &Entries = root;
    let mut names: Vec<&str> = Vec::new();
    let (mut found, mut notes) = (None, Vec::new());
    for _ in 0..MAX_NESTING {
        let by_name = named(pickle, entries);
        let inner = |key: &str| {
            let inner = dictionary(pickle, *by_name.get(key)?)?;
            holds_tensors(pickle, inner, names.len()).then_some(inner)
        };
        let raw = RAW.iter().find_map(|&key| Some((key, inner(key)?)));
        let mut averages = by_name.keys().copied().filter(|key| is_ema(key));
        let ema = averages.find_map(|key| Some((key, inner(key)?)));
        let direct = entries.iter().any(|&(_, value)| match pickle.get(value) {
            // Numbers beside the weights, such as a decay, may be tensors too.
            Node::Tensor(tensor) => (raw.is_none() && ema.is_none()) || !tensor.shape.is_empty(),
            _ => false,
        });
        let (name, nested) = match (raw, ema) {
            (None, Some(ema)) if direct => {
                // The weights themselves with their average in one dictionary beside them.
                let took = choice.unwrap_or(WeightsChoice::Raw);
                notes.push(note_of_choice(took, choice.is_some(), "beside it", ema.0));
                found = Some(took);
                match took {
                    WeightsChoice::Ema => ema,
                    WeightsChoice::Raw => break,
                }
            }
            _ if direct => break,
            (Some(raw), Some(ema)) => {
                let took = choice.unwrap_or(WeightsChoice::Raw);
                notes.push(note_of_choice(took, choice.is_some(), raw.0, ema.0));
                found = Some(took);
                match took {
                    WeightsChoice::Ema => ema,
                    WeightsChoice::Raw => raw,
                }
            }
            (Some(raw), None) => raw,
            (None, Some(ema)) => {
                found = Some(WeightsChoice::Ema);
                ema
            }
            (None, None) => break,
        };
        names.push(name);
        entries = nested;
    }
    if entries.iter().any(|&(_, value)| matches!(pickle.get(value), Node::Tensor(_))) {
        let name = (!names.is_empty()).then(|| names.join("."));
        return Ok(StateDict { name, entries, choice: found, notes });
    }
    let keys: Vec<&str> = root
        .iter()
        .filter_map(|(key, _)| match pickle.get(*key) {
            Node::Text(key) => Some(key.as_str()),
            _ => None,
        })
        .take(8)
        .collect();
    Err(none(if keys.is_empty() {
        "its dictionary has no named entries".to_owned()
    } else {
        format!("its keys are `{}`", keys.join("`, `"))
    }))
}

/// Copies a view, contiguous or not, out of its storage.
fn gather(tensor: &TensorView, bytes: &[u8], order: ByteOrder) -> Result<HostTensor, &'static str> {
    const OUTSIDE: &str = "reaches beyond the end of its storage";
    let size = tensor.element.bytes;
    let view = (tensor.storage.view_offset as usize)
        .checked_mul(tensor.storage.element.bytes)
        .and_then(|start| bytes.get(start..))
        .ok_or(OUTSIDE)?;
    let shape: Vec<usize> = tensor.shape.iter().map(|&extent| extent as usize).collect();
    // `Wanted::find` has checked that this product is small.
    let count: usize = shape.iter().product();
    if count == 0 {
        return Ok(HostTensor::new(shape, Vec::new()));
    }
    let last = tensor
        .shape
        .iter()
        .zip(&tensor.strides)
        .try_fold(tensor.offset, |sum, (&extent, &stride)| {
            sum.checked_add((extent - 1).checked_mul(stride)?)
        })
        .ok_or(OUTSIDE)?;
    if last >= (view.len() / size) as u64 {
        return Err(OUTSIDE);
    }
    let (offset, last) = (tensor.offset as usize, last as usize);
    let reached = &view[offset * size..(last + 1) * size];
    let mut expected = 1u64;
    let contiguous = tensor.shape.iter().zip(&tensor.strides).rev().all(|(&extent, &stride)| {
        let fits = extent == 1 || stride == expected;
        expected *= extent;
        fits
    });
    let values = if contiguous {
        decode(reached, tensor.element.encoding, order)
    } else {
        let mut gathered = Vec::with_capacity(count * size);
        let mut index = vec![0usize; shape.len()];
        let mut position = 0;
        for _ in 0..count {
            gathered.extend_from_slice(&reached[position * size..(position + 1) * size]);
            // The next index in row-major order, like a mileage counter.
            for axis in (0..shape.len()).rev() {
                let stride = tensor.strides[axis] as usize;
                index[axis] += 1;
                if index[axis] < shape[axis] {
                    position += stride;
                    break;
                }
                position -= (shape[axis] - 1) * stride;
                index[axis] = 0;
            }
        }
        decode(&gathered, tensor.element.encoding, order)
    };
    Ok(HostTensor::new(shape, values.ok_or("holds no floats")?))
}

/// Reads a file of the zip format.
pub(crate) fn read_zip(
    path: &Path,
    file: File,
    choice: Option<WeightsChoice>,
) -> Result<Checkpoint, CheckpointError> {
    let file_bytes = file.metadata().map_err(|source| read_error(path, source))?.len();
    let zip_error = |error: ZipError| match error {
        ZipError::Io(source) => read_error(path, source),
        other => damaged(path, format!("no complete zip archive ({other})")),
    };
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(zip_error)?;
    let mut stored = file_bytes;
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index).map_err(zip_error)?;
        let most = entry.compressed_size().saturating_mul(MOST_DEFLATED);
        stored = stored.saturating_add(entry.size().min(most));
    }
    let names: Vec<String> =
        archive.file_names().filter_map(|name| name.ok().map(|name| name.into_owned())).collect();
    let not_torch = |found: &str| CheckpointError::NotACheckpoint {
        path: path.to_owned(),
        found: found.to_owned(),
    };
    if names.iter().any(|name| name.ends_with("/constants.pkl")) {
        return Err(not_torch("is a TorchScript program; save its state_dict() instead"));
    }
    let root = names
        .iter()
        .find_map(|name| {
            name.strip_suffix("data.pkl").filter(|root| root.matches('/').count() <= 1)
        })
        .ok_or_else(|| {
            not_torch(match names.iter().any(|name| name.ends_with(".npy")) {
                true => "is an archive of NumPy arrays (.npz); save a state dict with torch.save",
                false => {
                    "is a zip archive without a `data.pkl`; unpack it if the checkpoint is in it"
                }
            })
        })?
        .to_owned();

    let mut entry = |name: &str, expected: Option<u64>| -> Result<Vec<u8>, CheckpointError> {
        let entry = archive.by_name(name).map_err(|error| match error {
            ZipError::FileNotFound => damaged(path, format!("entry `{name}` is missing")),
            other => zip_error(other),
        })?;
        let size = entry.size();
        if !matches!(entry.compression(), CompressionMethod::Stored | CompressionMethod::Deflated) {
            let method = entry.compression();
            return Err(damaged(path, format!("entry `{name}` is compressed by {method}")));
        }
        // More no deflated bytes can become.
        if size > entry.compressed_size().saturating_mul(MOST_DEFLATED) {
            return Err(damaged(
                path,
                format!("entry `{name}` claims to be larger than it can be"),
            ));
        }
        if expected.is_some_and(|expected| size < expected) {
            return Err(damaged(path, format!("entry `{name}` is shorter than its tensors")));
        }
        let mut bytes = Vec::new();
        let no_memory = |_| FileError::Tensor {
            path: path.to_owned(),
            name: name.to_owned(),
            what: format!("takes {size} bytes, for which there is no memory"),
        };
        bytes.try_reserve_exact(size as usize).map_err(no_memory)?;
        BufReader::new(entry)
            .take(size)
            .read_to_end(&mut bytes)
            .map_err(|source| damaged(path, format!("entry `{name}`: {source}")))?;
        Ok(bytes)
    };

    let order = match names.iter().any(|name| *name == format!("{root}byteorder")) {
        true => match &entry(&format!("{root}byteorder"), None)?[..] {
            b"little" => ByteOrder::Little,
            b"big" => ByteOrder::Big,
            _ => return Err(damaged(path, "unknown byte order")),
        },
        // PyTorch before 2.1 wrote none, on little-endian machines for all we know.
        false => ByteOrder::Little,
    };
    let pickle = Pickle::read(&entry(&format!("{root}data.pkl"), None)?[..])
        .map_err(|error| pickle_error(path, error))?;
    let mut wanted = Wanted::find(path, &pickle, stored, choice)?;
    let mut tensors = TensorMap::new();
    let storages: Vec<String> = wanted.tensors.keys().cloned().collect();
    for key in storages {
        let expected =
            wanted.tensors[&key].iter().map(|(_, view)| storage_bytes(&view.storage)).max();
        let bytes = entry(&format!("{root}data/{key}"), expected)?;
        wanted.take(path, &key, &bytes, order, &mut tensors)?;
    }
    wanted.finish(path, tensors)
}

fn storage_bytes(storage: &Storage) -> u64 {
    storage.elements.saturating_mul(storage.element.bytes as u64)
}

/// Reads a file of the legacy format.
pub(crate) fn read_legacy(
    path: &Path,
    file: File,
    choice: Option<WeightsChoice>,
) -> Result<Checkpoint, CheckpointError> {
    let file_bytes = file.metadata().map_err(|source| read_error(path, source))?.len();
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let pickle = |reader: &mut BufReader<File>| {
        Pickle::read(reader).map_err(|error| pickle_error(path, error))
    };
    if pickle(&mut reader)?.root() != &Node::Integer(LEGACY_MAGIC) {
        return Err(CheckpointError::NotACheckpoint {
            path: path.to_owned(),
            found: "is a pickle that torch.save did not write".to_owned(),
        });
    }
    if pickle(&mut reader)?.root() != &Node::Integer(LEGACY_VERSION) {
        return Err(damaged(path, "unknown version of the legacy format"));
    }
    let system = pickle(&mut reader)?;
    let big = match system.root() {
        Node::Dictionary(entries) => entries.iter().any(|&(key, value)| {
            matches!(system.get(key), Node::Text(key) if key == "little_endian")
                && system.get(value) == &Node::Bool(false)
        }),
        _ => return Err(damaged(path, "the description of its machine is missing")),
    };
    let order = if big { ByteOrder::Big } else { ByteOrder::Little };
    let object = pickle(&mut reader)?;
    let mut wanted = Wanted::find(path, &object, file_bytes, choice)?;
    let elements = element_sizes(&object);

    let keys = pickle(&mut reader)?;
    let keys: Vec<&str> = match keys.root() {
        Node::List(ids) => ids
            .iter()
            .map(|&id| match keys.get(id) {
                Node::Text(key) => Ok(key.as_str()),
                _ => Err(damaged(path, "the list of its storages holds no names")),
            })
            .collect::<Result<_, _>>()?,
        _ => return Err(damaged(path, "the list of its storages is missing")),
    };
    let mut tensors = TensorMap::new();
    for key in keys {
        let io = |source| read_error(path, source);
        let mut count = [0; 8];
        reader.read_exact(&mut count).map_err(io)?;
        let position = reader.stream_position().map_err(io)?;
        let size = elements
            .get(key)
            .copied()
            .ok_or_else(|| damaged(path, format!("storage `{key}` belongs to no tensor")))?;
        let length = u64::from_le_bytes(count)
            .checked_mul(size as u64)
            .filter(|&length| length <= file_bytes - position.min(file_bytes))
            .ok_or_else(|| damaged(path, format!("storage `{key}` is longer than the file")))?;
        if !wanted.tensors.contains_key(key) {
            reader.seek_relative(length as i64).map_err(io)?;
            continue;
        }
        let mut bytes = vec![0; length as usize];
        reader.read_exact(&mut bytes).map_err(io)?;
        wanted.take(path, key, &bytes, order, &mut tensors)?;
    }
    wanted.finish(path, tensors)
}

/// Bytes of one element of each storage that the object mentions.
fn element_sizes(pickle: &Pickle) -> BTreeMap<&str, usize> {
    pickle.storages().map(|storage| (storage.key.as_str(), storage.element.bytes)).collect()
}
