//! Our files of tensors: `.safetensors`, read strictly and written to the same bytes every time.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

#[cfg(not(target_family = "wasm"))]
use memmap2::Mmap;
use safetensors::{Dtype, tensor::Metadata};

use crate::{
    FileError, HostTensor, TensorMap,
    floats::{ByteOrder, Encoding, decode, decode_into, encode_bf16, encode_f32},
    kind,
};

/// Longest header the format allows.
const MAX_HEADER: u64 = 100_000_000;

/// How weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StorageFormat {
    /// As they are.
    #[default]
    F32,
    /// Rounded to the nearest bf16, ties to even: half the size.
    Bf16,
}

impl StorageFormat {
    fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::Bf16 => "BF16",
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }
}

/// String metadata of a file, in the order of its keys.
pub type StringMetadata = BTreeMap<String, String>;

/// Whether a file with these first bytes is a safetensors file: a header length, then JSON.
pub fn begins(start: &[u8]) -> bool {
    let Some((length, rest)) = start.split_first_chunk::<8>() else { return false };
    u64::from_le_bytes(*length) <= MAX_HEADER && rest.first() == Some(&b'{')
}

struct OpenFile<R> {
    reader: R,
    metadata: Metadata,
}

/// Reads the header of a file of `total` bytes.
fn open<R: Read>(path: &Path, mut reader: R, total: u64) -> Result<OpenFile<R>, FileError> {
    let damaged = |what: String| FileError::Damaged { path: path.to_owned(), what };
    if total == 0 {
        return Err(FileError::Empty { path: path.to_owned() });
    }
    let mut start = [0; 8];
    let cut = |length: &str| {
        let at = total.saturating_sub(8);
        damaged(format!("its header{length} is cut at byte {at}"))
    };
    let mut read = reader.by_ref().take(8);
    let mut beginning = Vec::with_capacity(8);
    read.read_to_end(&mut beginning)
        .map_err(|source| FileError::Read { path: path.to_owned(), source })?;
    let other = |found: String| FileError::NotSafetensors { path: path.to_owned(), found };
    if beginning.len() < 8 {
        let known = kind::describe_start(&beginning).map(str::to_owned);
        return Err(known.map_or_else(|| cut(""), other));
    }
    start.copy_from_slice(&beginning);
    let length = u64::from_le_bytes(start);
    if length > MAX_HEADER {
        let mut more = beginning;
        let _ = reader.by_ref().take(kind::START as u64).read_to_end(&mut more);
        let known = kind::describe_start(&more).map(str::to_owned);
        let hex = || start.map(|byte| format!("{byte:02x}")).join(" ");
        return Err(other(known.unwrap_or_else(|| {
            format!("begins with the bytes {}, which are no safetensors header", hex())
        })));
    }
    if length > total - 8 {
        return Err(cut(&format!(" of {length} bytes")));
    }
    let mut header = vec![0; length as usize];
    reader.read_exact(&mut header).map_err(|_| cut(&format!(" of {length} bytes")))?;
    if header.iter().all(|&byte| byte == 0) {
        return Err(damaged("its header is nothing but zeros".to_owned()));
    }
    let metadata: Metadata =
        serde_json::from_slice(&header).map_err(|error| damaged(format!("its header: {error}")))?;
    let expected = metadata.data_len() as u64 + 8 + length;
    if expected != total {
        return Err(damaged(match total < expected {
            true => format!("it is cut at byte {total} of {expected}"),
            false => format!("it has {total} bytes, its header says {expected}"),
        }));
    }
    Ok(OpenFile { reader, metadata })
}

fn open_file(path: &Path, file: File) -> Result<OpenFile<BufReader<File>>, FileError> {
    let read = |source| FileError::Read { path: path.to_owned(), source };
    let total = file.metadata().map_err(read)?.len();
    open(path, BufReader::with_capacity(1 << 16, file), total)
}

/// A file of tensors that is mapped into memory, or that somebody holds there.
///
/// Cloning is cheap.
#[derive(Debug, Clone)]
pub struct TensorFile {
    path: PathBuf,
    bytes: Bytes,
}

#[derive(Debug, Clone)]
enum Bytes {
    #[cfg(not(target_family = "wasm"))]
    Mapped(Arc<Mmap>),
    Held(Arc<[u8]>),
}

impl TensorFile {
    /// Maps a file into memory. Its content is not looked at yet.
    ///
    /// # Errors
    /// If it cannot be read.
    #[cfg(not(target_family = "wasm"))]
    pub fn open(path: impl AsRef<Path>) -> Result<Self, FileError> {
        let path = path.as_ref();
        let read = |source| FileError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(read)?;
        // SAFETY: files appear whole and are replaced, never changed in place; a program that does so
        // while a model is being loaded gets damaged weights, as with any reader.
        #[allow(unsafe_code)]
        let map = unsafe { Mmap::map(&file) }.map_err(read)?;
        Ok(Self { path: path.to_owned(), bytes: Bytes::Mapped(Arc::new(map)) })
    }

    /// Maps a file into memory. Its content is not looked at yet.
    ///
    /// # Errors
    /// Always: WebAssembly has no files.
    #[cfg(target_family = "wasm")]
    pub fn open(path: impl AsRef<Path>) -> Result<Self, FileError> {
        let what = "there are no files here; download it and use `TensorFile::from_bytes`";
        let source = std::io::Error::new(std::io::ErrorKind::Unsupported, what);
        Err(FileError::Read { path: path.as_ref().to_owned(), source })
    }

    /// A file that is in memory already, such as one that a browser has downloaded. Errors call it
    /// `name`.
    pub fn from_bytes(name: impl Into<PathBuf>, bytes: impl Into<Arc<[u8]>>) -> Self {
        Self { path: name.into(), bytes: Bytes::Held(bytes.into()) }
    }

    /// Where the file is, or what it is called.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The whole file.
    pub fn bytes(&self) -> &[u8] {
        match &self.bytes {
            #[cfg(not(target_family = "wasm"))]
            Bytes::Mapped(map) => map,
            Bytes::Held(bytes) => bytes,
        }
    }

    /// The tensors as they are stored, by name.
    ///
    /// # Errors
    /// If the file is damaged.
    pub fn views(&self) -> Result<BTreeMap<String, TensorView<'_>>, FileError> {
        let bytes = self.bytes();
        let OpenFile { reader: data, metadata } = open(&self.path, bytes, bytes.len() as u64)?;
        let view = |name: String| {
            let info = metadata.info(&name)?;
            let (start, end) = info.data_offsets;
            let view = TensorView {
                shape: info.shape.clone(),
                dtype: info.dtype,
                bytes: data.get(start..end)?,
            };
            Some((name, view))
        };
        Ok(metadata.offset_keys().into_iter().filter_map(view).collect())
    }

    /// Gives the memory of a tensor that has been read back to the operating system, if the file is
    /// mapped. It is read again where it is needed again.
    pub fn release(&self, view: &TensorView<'_>) {
        #[cfg(unix)]
        if let Bytes::Mapped(map) = &self.bytes {
            let start = view.bytes.as_ptr().addr().wrapping_sub(map.as_ptr().addr());
            if start < map.len() && view.bytes.len() <= map.len() - start {
                let unused = memmap2::UncheckedAdvice::DontNeed;
                // SAFETY: the pages belong to a file that nobody writes to, so they have the same
                // bytes when they are read again.
                #[allow(unsafe_code)]
                let released =
                    unsafe { map.unchecked_advise_range(unused, start, view.bytes.len()) };
                // Best effort: what is kept costs nothing but memory.
                let _ = released;
            }
        }
        #[cfg(not(unix))]
        let _ = view;
    }

    /// Every tensor as f32.
    ///
    /// # Errors
    /// If the file is damaged, or holds a tensor that is not f64, f32, f16 or bf16.
    pub fn tensors(&self) -> Result<TensorMap, FileError> {
        let bytes = self.bytes();
        only_floats(
            &self.path,
            floats_of(&self.path, open(&self.path, bytes, bytes.len() as u64)?)?,
        )
    }
}

/// One tensor of a file, as it is stored.
#[derive(Debug, Clone)]
pub struct TensorView<'a> {
    shape: Vec<usize>,
    dtype: Dtype,
    bytes: &'a [u8],
}

impl TensorView<'_> {
    /// Extent of each dimension.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Whether its numbers can be read as f32.
    pub fn is_float(&self) -> bool {
        encoding_of(self.dtype) != Encoding::Other
    }

    /// Whether its numbers are bf16.
    pub fn is_bf16(&self) -> bool {
        self.dtype == Dtype::BF16
    }

    /// What it is, for people.
    pub fn kind(&self) -> String {
        format!("a tensor of {:?} of shape {:?}", self.dtype, self.shape)
    }

    /// Reads the numbers from the `start`-th on in row-major order, as many as `values` has room for.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn read(&self, start: usize, values: &mut [f32]) {
        let encoding = encoding_of(self.dtype);
        let range = start * encoding.bytes()..(start + values.len()) * encoding.bytes();
        decode_into(&self.bytes[range], encoding, ByteOrder::Little, values);
    }
}

/// How numbers of a safetensors type are encoded.
fn encoding_of(dtype: Dtype) -> Encoding {
    match dtype {
        Dtype::F64 => Encoding::F64,
        Dtype::F32 => Encoding::F32,
        Dtype::F16 => Encoding::F16,
        Dtype::BF16 => Encoding::Bf16,
        _ => Encoding::Other,
    }
}

/// The error of a tensor that is no float.
pub fn not_a_float(path: &Path, name: &str, kind: &str) -> FileError {
    FileError::Tensor {
        path: path.to_owned(),
        name: name.to_owned(),
        what: format!("is {kind}; weights are F32, BF16, F16 or F64"),
    }
}

/// Refuses weights that are no finite numbers: what is computed with them is none either.
///
/// # Errors
/// If there is one.
pub fn check_finite(path: &Path, name: &str, values: &[f32]) -> Result<(), FileError> {
    // Without a branch a value, so that checking costs nothing beside reading.
    let all = |values: &[f32]| values.iter().fold(true, |all, value| all & value.is_finite());
    if values.chunks(1 << 12).all(all) {
        return Ok(());
    }
    let value = values.iter().find(|value| !value.is_finite()).copied().unwrap_or(f32::NAN);
    Err(FileError::Tensor {
        path: path.to_owned(),
        name: name.to_owned(),
        what: format!(
            "holds {value}, which is no finite number: its training diverged, or the file is \
             damaged; take an older checkpoint, or get the file again"
        ),
    })
}

/// All float tensors of an open file, and the names and kinds of the others.
pub fn read_floats(
    path: &Path,
    file: File,
) -> Result<(TensorMap, BTreeMap<String, String>), FileError> {
    floats_of(path, open_file(path, file)?)
}

fn floats_of(
    path: &Path,
    file: OpenFile<impl Read>,
) -> Result<(TensorMap, BTreeMap<String, String>), FileError> {
    let OpenFile { mut reader, metadata } = file;
    let mut tensors = TensorMap::new();
    let mut others = BTreeMap::new();
    // In the order of their data: one pass over the file.
    for name in metadata.offset_keys() {
        let Some(info) = metadata.info(&name) else { continue };
        let (start, end) = info.data_offsets;
        let mut bytes = vec![0; end - start];
        reader
            .read_exact(&mut bytes)
            .map_err(|source| FileError::Read { path: path.to_owned(), source })?;
        match decode(&bytes, encoding_of(info.dtype), ByteOrder::Little) {
            Some(values) => {
                tensors.insert(name, HostTensor::new(info.shape.clone(), values));
            }
            None => {
                let kind = format!("a tensor of {:?} of shape {:?}", info.dtype, info.shape);
                others.insert(name, kind);
            }
        }
    }
    Ok((tensors, others))
}

fn only_floats(
    path: &Path,
    (tensors, others): (TensorMap, BTreeMap<String, String>),
) -> Result<TensorMap, FileError> {
    match others.into_iter().next() {
        None => Ok(tensors),
        Some((name, kind)) => Err(not_a_float(path, &name, &kind)),
    }
}

/// Reads every tensor of a file as f32.
///
/// # Errors
/// If the file is missing, damaged, or holds a tensor that is not f64, f32, f16 or bf16.
pub fn read(path: impl AsRef<Path>) -> Result<TensorMap, FileError> {
    let path = path.as_ref();
    let file =
        File::open(path).map_err(|source| FileError::Read { path: path.to_owned(), source })?;
    only_floats(path, read_floats(path, file)?)
}

/// Reads the string metadata of a file.
///
/// # Errors
/// If the file is missing or damaged.
pub fn read_metadata(path: impl AsRef<Path>) -> Result<StringMetadata, FileError> {
    let path = path.as_ref();
    let file =
        File::open(path).map_err(|source| FileError::Read { path: path.to_owned(), source })?;
    let metadata = open_file(path, file)?.metadata;
    Ok(metadata.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect())
}

/// Writes tensors in the order of their names. Equal input makes equal bytes; the file appears
/// whole or not at all.
///
/// # Errors
/// If the operating system refuses; then nothing is left behind and an older file stays.
#[cfg(feature = "write")]
pub fn write(
    path: impl AsRef<Path>,
    tensors: &TensorMap,
    format: StorageFormat,
    metadata: &StringMetadata,
) -> Result<(), FileError> {
    let path = path.as_ref();
    crate::write_file(path, |file| write_to(file, tensors, format, metadata))
        .map_err(|source| FileError::Write { path: path.to_owned(), source })
}

/// Writes the bytes of a file.
///
/// # Errors
/// If `file` fails.
pub fn write_to(
    file: &mut dyn Write,
    tensors: &TensorMap,
    format: StorageFormat,
    metadata: &StringMetadata,
) -> std::io::Result<()> {
    let entries = tensors.iter().map(|(name, tensor)| {
        (name.as_str(), format.name(), &tensor.shape[..], tensor.values.len() * format.bytes())
    });
    file.write_all(&header(entries, metadata)?)?;
    for tensor in tensors.values() {
        // In pieces, so that no second copy of a large tensor is needed.
        for values in tensor.values.chunks(1 << 16) {
            let bytes = match format {
                StorageFormat::F32 => encode_f32(values),
                StorageFormat::Bf16 => encode_bf16(values),
            };
            file.write_all(&bytes)?;
        }
    }
    Ok(())
}

/// A file's first bytes: the length of its header, and the header. Of each tensor name, type, shape
/// and number of bytes are given, in the order of their data.
fn header<'a>(
    tensors: impl IntoIterator<Item = (&'a str, &'static str, &'a [usize], usize)>,
    metadata: &StringMetadata,
) -> std::io::Result<Vec<u8>> {
    #[derive(serde::Serialize)]
    struct Entry<'a> {
        dtype: &'static str,
        shape: &'a [usize],
        data_offsets: [usize; 2],
    }
    // Written by hand, since the header that the safetensors crate writes has its metadata in
    // random order.
    let mut header = String::from("{");
    if !metadata.is_empty() {
        header += &format!("\"__metadata__\":{},", serde_json::to_string(metadata)?);
    }
    let mut end = 0;
    for (name, dtype, shape, bytes) in tensors {
        let start = end;
        end += bytes;
        let entry = Entry { dtype, shape, data_offsets: [start, end] };
        header += &format!("{}:{},", serde_json::to_string(name)?, serde_json::to_string(&entry)?);
    }
    if header.ends_with(',') {
        header.pop();
    }
    header.push('}');
    while !header.len().is_multiple_of(8) {
        header.push(' ');
    }
    Ok([&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat())
}

/// Values of one type, in row-major order.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// Integers, such as tokens and labels.
    I64(Vec<i64>),
    /// Numbers in double precision, such as statistics.
    F64(Vec<f64>),
    /// Numbers in single precision.
    F32(Vec<f32>),
}

impl Values {
    fn len(&self) -> usize {
        match self {
            Self::I64(values) => values.len(),
            Self::F64(values) => values.len(),
            Self::F32(values) => values.len(),
        }
    }

    /// Name and bytes of the type, and its place in a file: as the safetensors crate orders types,
    /// so that every tensor is aligned.
    fn kind(&self) -> (&'static str, usize, u8) {
        match self {
            Self::I64(_) => ("I64", 8, 0),
            Self::F64(_) => ("F64", 8, 1),
            Self::F32(_) => ("F32", 4, 2),
        }
    }

    fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::I64(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::F64(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::F32(values) => encode_f32(values),
        }
    }
}

/// A tensor of any of the types in [`Values`].
#[derive(Debug, Clone, PartialEq)]
pub struct TypedTensor {
    shape: Vec<usize>,
    values: Values,
}

impl TypedTensor {
    /// A tensor of this shape.
    ///
    /// # Panics
    /// If the number of values is not the product of the shape.
    pub fn new(shape: impl Into<Vec<usize>>, values: Values) -> Self {
        let shape = shape.into();
        assert_eq!(shape.iter().product::<usize>(), values.len(), "shape {shape:?}");
        Self { shape, values }
    }
}

/// Tensors of several types, by name.
pub type TypedTensorMap = BTreeMap<String, TypedTensor>;

/// The bytes of a file of tensors of several types, which are the same every time: ordered by type,
/// then by name.
///
/// ```
/// use files::safetensors::{TypedTensor, TypedTensorMap, Values, pack};
///
/// let tokens = TypedTensor::new([2, 3], Values::I64(vec![7, 1, 4, 0, 2, 9]));
/// let labels = TypedTensor::new([2], Values::I64(vec![0, 1]));
/// let tensors = TypedTensorMap::from([("tokens".into(), tokens), ("labels".into(), labels)]);
/// let bytes = pack(&tensors, &Default::default());
/// assert!(files::safetensors::begins(&bytes));
/// ```
pub fn pack(tensors: &TypedTensorMap, metadata: &StringMetadata) -> Vec<u8> {
    let mut ordered: Vec<(&String, &TypedTensor)> = tensors.iter().collect();
    ordered.sort_by_key(|(_, tensor)| tensor.values.kind().2);
    let entries = ordered.iter().map(|(name, tensor)| {
        let (dtype, bytes, _) = tensor.values.kind();
        (name.as_str(), dtype, &tensor.shape[..], tensor.values.len() * bytes)
    });
    let mut file = header(entries, metadata).expect("text and numbers can be written as JSON");
    for (_, tensor) in ordered {
        file.extend(tensor.values.to_bytes());
    }
    file
}

/// Writes tensors of several types; the file appears whole or not at all. See [`pack`].
///
/// # Errors
/// If the operating system refuses; then nothing is left behind and an older file stays.
#[cfg(feature = "write")]
pub fn write_typed(
    path: impl AsRef<Path>,
    tensors: &TypedTensorMap,
    metadata: &StringMetadata,
) -> Result<(), FileError> {
    let path = path.as_ref();
    crate::write_file(path, |file| file.write_all(&pack(tensors, metadata)))
        .map_err(|source| FileError::Write { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use safetensors::{SafeTensors, tensor::TensorView};

    use super::*;

    #[test]
    fn should_pack_typed_tensors_as_the_safetensors_crate_does() {
        let tensors = TypedTensorMap::from([
            ("b".to_owned(), TypedTensor::new([2, 2], Values::I64(vec![1, -2, i64::MAX, 4]))),
            ("a".to_owned(), TypedTensor::new([3], Values::F32(vec![0.5, -1.0, 3.0]))),
            ("c".to_owned(), TypedTensor::new([1], Values::F64(vec![1e300]))),
            ("d".to_owned(), TypedTensor::new([0, 3], Values::I64(vec![]))),
        ]);
        let packed = pack(&tensors, &StringMetadata::new());
        let parts: Vec<_> = tensors
            .iter()
            .map(|(name, tensor)| {
                let dtype = match tensor.values {
                    Values::I64(_) => Dtype::I64,
                    Values::F64(_) => Dtype::F64,
                    Values::F32(_) => Dtype::F32,
                };
                (name, dtype, tensor.shape.clone(), tensor.values.to_bytes())
            })
            .collect();
        let views = parts.iter().map(|(name, dtype, shape, bytes)| {
            (name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).unwrap())
        });
        assert_eq!(packed, safetensors::serialize(views, None).unwrap());

        let metadata = StringMetadata::from([("x".to_owned(), "y".to_owned())]);
        let packed = pack(&tensors, &metadata);
        let read = SafeTensors::deserialize(&packed).unwrap();
        assert_eq!(read.tensor("b").unwrap().shape(), [2, 2]);
        let (_, header) = SafeTensors::read_metadata(&packed).unwrap();
        assert_eq!(header.metadata().as_ref().unwrap()["x"], "y");
    }
}
