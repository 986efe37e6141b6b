//! Reads the pickles that `torch.save` writes, without ever executing one.
//!
//! A pickle is a program for a small stack machine that may call any Python function. This parser
//! knows the opcodes of protocols 2 to 5 and a closed list of names ([`Global`]); it turns them
//! into plain data ([`Node`]) and refuses everything else by name. The opcodes are those of
//! CPython's `pickletools`; what PyTorch puts into them is defined by `torch/serialization.py` and
//! `torch/_utils.py`.
//!
//! Nodes live in one arena and refer to each other by number, so neither deep nesting nor shared or
//! cyclic references cost more memory than the file has bytes, and nothing here recurses.

use files::floats::Encoding;
use std::{
    collections::HashMap,
    io::{self, Read},
};

/// Most bytes that one pickle may have. A state dict needs about 150 bytes a tensor.
const MAX_BYTES: u64 = 64 << 20;
/// Most values that one pickle may create or hold on its stack.
const MAX_NODES: usize = 4 << 20;
/// Most dimensions of a tensor, PyTorch's own limit.
const MAX_DIMENSIONS: usize = 64;
/// Longest name of a storage; PyTorch counts them or takes their address.
const MAX_KEY: usize = 64;

/// Why a pickle was not read.
#[derive(Debug, thiserror::Error)]
pub enum PickleError {
    /// The file could not be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The pickle ends before its end mark.
    #[error("the pickle ends after {position} bytes, before its end mark")]
    Truncated {
        /// Bytes that were there.
        position: u64,
    },
    /// The pickle names a class or function that a state dict does not need, or uses an opcode
    /// that would run code.
    #[error("byte {position} of the pickle asks for {what}")]
    Code {
        /// The class, function or opcode.
        what: String,
        /// Where, in bytes from the start of the pickle.
        position: u64,
    },
    /// The bytes are no pickle, or use an opcode in a way that Python would refuse.
    #[error("byte {position} of the pickle: {what}")]
    Malformed {
        /// What is wrong.
        what: String,
        /// Where, in bytes from the start of the pickle.
        position: u64,
    },
    /// The pickle is larger than any state dict.
    #[error("the pickle holds more than {MAX_BYTES} bytes or {MAX_NODES} values")]
    TooLarge,
}

/// An element type of PyTorch.
#[derive(Debug, PartialEq, Eq)]
pub struct ElementType {
    /// Name of the `torch.dtype`.
    pub name: &'static str,
    /// Name of the storage class, empty where PyTorch stores it untyped.
    storage: &'static str,
    /// Size of one element in bytes.
    pub bytes: usize,
    /// How to read one.
    pub encoding: Encoding,
}

const fn element(
    name: &'static str,
    storage: &'static str,
    bytes: usize,
    encoding: Encoding,
) -> ElementType {
    ElementType { name, storage, bytes, encoding }
}

static BYTE: ElementType = element("uint8", "ByteStorage", 1, Encoding::Other);

static ELEMENT_TYPES: [ElementType; 19] = [
    element("float64", "DoubleStorage", 8, Encoding::F64),
    element("float32", "FloatStorage", 4, Encoding::F32),
    element("float16", "HalfStorage", 2, Encoding::F16),
    element("bfloat16", "BFloat16Storage", 2, Encoding::Bf16),
    element("int64", "LongStorage", 8, Encoding::Other),
    element("int32", "IntStorage", 4, Encoding::Other),
    element("int16", "ShortStorage", 2, Encoding::Other),
    element("int8", "CharStorage", 1, Encoding::Other),
    element("uint8", "ByteStorage", 1, Encoding::Other),
    element("bool", "BoolStorage", 1, Encoding::Other),
    element("complex64", "ComplexFloatStorage", 8, Encoding::Other),
    element("complex128", "ComplexDoubleStorage", 16, Encoding::Other),
    element("uint16", "", 2, Encoding::Other),
    element("uint32", "", 4, Encoding::Other),
    element("uint64", "", 8, Encoding::Other),
    element("float8_e4m3fn", "", 1, Encoding::Other),
    element("float8_e5m2", "", 1, Encoding::Other),
    element("float8_e4m3fnuz", "", 1, Encoding::Other),
    element("float8_e5m2fnuz", "", 1, Encoding::Other),
];

/// A name that the parser understands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Global {
    /// `collections.OrderedDict`, `builtins.dict` and `argparse.Namespace`, read as a dictionary.
    Dictionary,
    /// `builtins.set`, read as a list.
    Set,
    /// `_codecs.encode`, which protocol 2 uses for byte strings; read as its text.
    EncodeText,
    /// `torch.Size`, read as its argument.
    Size,
    /// `torch.device`, read as the text of its first argument.
    Device,
    /// A `torch.dtype`.
    ElementType(&'static ElementType),
    /// A `torch.…Storage` class; the untyped one counts bytes.
    StorageType(&'static ElementType),
    /// `torch._utils._rebuild_tensor` and its successors of version 2 and 3.
    RebuildTensor {
        /// Whether the element type is an own argument (version 3).
        typed: bool,
    },
    /// `torch._utils._rebuild_parameter`, with or without Python attributes.
    RebuildParameter,
}

impl Global {
    fn named(module: &str, name: &str) -> Option<Self> {
        let by_dtype = |t: &&ElementType| t.name == name;
        let by_storage = |t: &&ElementType| !t.storage.is_empty() && t.storage == name;
        match (module, name) {
            // Of arguments that a trainer saves beside its weights nothing is kept.
            ("collections", "OrderedDict")
            | ("builtins" | "__builtin__", "dict")
            | ("argparse", "Namespace") => Some(Self::Dictionary),
            ("builtins" | "__builtin__", "set") => Some(Self::Set),
            ("_codecs", "encode") => Some(Self::EncodeText),
            ("torch", "Size") => Some(Self::Size),
            ("torch", "device") => Some(Self::Device),
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => {
                Some(Self::RebuildTensor { typed: false })
            }
            ("torch._utils", "_rebuild_tensor_v3") => Some(Self::RebuildTensor { typed: true }),
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => {
                Some(Self::RebuildParameter)
            }
            ("torch.storage", "UntypedStorage") => Some(Self::StorageType(&BYTE)),
            ("torch" | "torch.cuda", _) => ELEMENT_TYPES
                .iter()
                .find(by_storage)
                .map(Self::StorageType)
                .or_else(|| ELEMENT_TYPES.iter().find(by_dtype).map(Self::ElementType)),
            _ => None,
        }
    }
}

/// A storage: a row of elements that stands outside of the pickle and that tensors view.
#[derive(Debug, Clone, PartialEq)]
pub struct Storage {
    /// Name of the storage inside the file.
    pub key: String,
    /// Type of its elements.
    pub element: &'static ElementType,
    /// Number of its elements.
    pub elements: u64,
    /// Where a view into a shared storage begins, in elements (old legacy files only).
    pub view_offset: u64,
}

/// A view into a storage.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorView {
    /// What it looks into.
    pub storage: Storage,
    /// Type of its elements.
    pub element: &'static ElementType,
    /// First element, counted in elements from the start of the storage.
    pub offset: u64,
    /// Extent of each dimension.
    pub shape: Vec<u64>,
    /// Distance between neighbours in each dimension, in elements.
    pub strides: Vec<u64>,
}

/// The number of a value inside its pickle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeId(u32);

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// A whole number of at most 128 bits.
    Integer(i128),
    /// A whole number of more bits, not kept.
    LargeInteger,
    /// A floating-point number.
    Float(f64),
    /// A string.
    Text(String),
    /// A byte string.
    Bytes(Vec<u8>),
    /// A list or a set.
    List(Vec<NodeId>),
    /// A tuple.
    Tuple(Vec<NodeId>),
    /// A dictionary, in the order of insertion; a key may stand in it twice, the last one counts.
    Dictionary(Vec<(NodeId, NodeId)>),
    /// A class or function.
    Global(Global),
    /// A storage.
    Storage(Box<Storage>),
    /// A tensor or parameter.
    Tensor(Box<TensorView>),
}

impl Node {
    /// What kind of value this is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Bool(_) => "a boolean",
            Self::Integer(_) | Self::LargeInteger | Self::Float(_) => "a number",
            Self::Text(_) => "a string",
            Self::Bytes(_) => "a byte string",
            Self::List(_) => "a list",
            Self::Tuple(_) => "a tuple",
            Self::Dictionary(_) => "a dictionary",
            Self::Global(_) => "a type",
            Self::Storage(_) => "a storage",
            Self::Tensor(_) => "a tensor",
        }
    }
}

/// The values of one pickle.
#[derive(Debug)]
pub struct Pickle {
    nodes: Vec<Node>,
    root: NodeId,
}

impl Pickle {
    /// Reads one pickle, up to and including its end mark.
    ///
    /// # Errors
    /// If it is cut off, malformed, or asks for anything but plain data.
    pub fn read(reader: impl Read) -> Result<Self, PickleError> {
        Parser {
            reader,
            position: 0,
            opcode_position: 0,
            nodes: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            copied: 0,
        }
        .run()
    }

    /// The value that was pickled.
    pub fn root(&self) -> &Node {
        self.get(self.root)
    }

    /// The value with this number.
    pub fn get(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    /// Every storage that the pickle mentions.
    pub fn storages(&self) -> impl Iterator<Item = &Storage> {
        self.nodes.iter().filter_map(|node| match node {
            Node::Storage(storage) => Some(&**storage),
            _ => None,
        })
    }
}

struct Parser<R> {
    reader: R,
    position: u64,
    opcode_position: u64,
    nodes: Vec<Node>,
    stack: Vec<NodeId>,
    /// Heights of the stack at the open marks.
    marks: Vec<usize>,
    memo: HashMap<u32, NodeId>,
    /// How many entries calls have copied.
    copied: usize,
}

type Result<T, E = PickleError> = std::result::Result<T, E>;

impl<R: Read> Parser<R> {
    fn malformed(&self, what: impl Into<String>) -> PickleError {
        PickleError::Malformed { what: what.into(), position: self.opcode_position }
    }

    fn code(&self, what: impl Into<String>) -> PickleError {
        PickleError::Code { what: what.into(), position: self.opcode_position }
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.reader.read_exact(&mut bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => PickleError::Truncated { position: self.position },
            _ => PickleError::Io(error),
        })?;
        self.position += N as u64;
        if self.position > MAX_BYTES {
            return Err(PickleError::TooLarge);
        }
        Ok(bytes)
    }

    fn byte(&mut self) -> Result<u8> {
        self.bytes::<1>().map(|[byte]| byte)
    }

    /// `length` bytes; allocates no more than there are.
    fn blob(&mut self, length: u64) -> Result<Vec<u8>> {
        if length > MAX_BYTES - self.position {
            return Err(PickleError::TooLarge);
        }
        let mut bytes = Vec::new();
        self.reader.by_ref().take(length).read_to_end(&mut bytes)?;
        self.position += bytes.len() as u64;
        if (bytes.len() as u64) < length {
            return Err(PickleError::Truncated { position: self.position });
        }
        Ok(bytes)
    }

    fn text(&mut self, length: u64) -> Result<String> {
        let bytes = self.blob(length)?;
        String::from_utf8(bytes).map_err(|_| self.malformed("a string that is not UTF-8"))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = Vec::new();
        loop {
            match self.byte()? {
                b'\n' => break,
                byte => line.push(byte),
            }
        }
        String::from_utf8(line).map_err(|_| self.malformed("a name that is not UTF-8"))
    }

    fn add(&mut self, node: Node) -> Result<NodeId> {
        if self.nodes.len() >= MAX_NODES {
            return Err(PickleError::TooLarge);
        }
        self.nodes.push(node);
        Ok(NodeId((self.nodes.len() - 1) as u32))
    }

    fn push(&mut self, node: Node) -> Result<()> {
        let id = self.add(node)?;
        self.push_id(id)
    }

    fn push_id(&mut self, id: NodeId) -> Result<()> {
        if self.stack.len() >= MAX_NODES {
            return Err(PickleError::TooLarge);
        }
        self.stack.push(id);
        Ok(())
    }

    fn get(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    /// Takes the top of the stack, never below the last mark.
    fn pop(&mut self) -> Result<NodeId> {
        if self.stack.len() <= self.marks.last().copied().unwrap_or(0) {
            return Err(self.malformed("a value is missing on the stack"));
        }
        self.stack.pop().ok_or_else(|| self.malformed("a value is missing on the stack"))
    }

    fn peek(&self) -> Result<NodeId> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.last() {
            Some(&id) if self.stack.len() > floor => Ok(id),
            _ => Err(self.malformed("a value is missing on the stack")),
        }
    }

    /// Takes everything above the last mark.
    fn pop_mark(&mut self) -> Result<Vec<NodeId>> {
        let mark = self.marks.pop().ok_or_else(|| self.malformed("no open mark"))?;
        Ok(self.stack.split_off(mark))
    }

    fn tuple(&mut self, length: usize) -> Result<()> {
        let mut items = Vec::with_capacity(length);
        for _ in 0..length {
            items.push(self.pop()?);
        }
        items.reverse();
        self.push(Node::Tuple(items))
    }

    fn append(&mut self, items: Vec<NodeId>) -> Result<()> {
        let list = self.peek()?;
        match &mut self.nodes[list.0 as usize] {
            Node::List(values) => {
                values.extend(items);
                Ok(())
            }
            other => {
                let kind = other.kind();
                Err(self.malformed(format!("appends to {kind}")))
            }
        }
    }

    fn set_items(&mut self, items: Vec<NodeId>) -> Result<()> {
        let pairs = self.pairs(items)?;
        let dictionary = self.peek()?;
        match &mut self.nodes[dictionary.0 as usize] {
            Node::Dictionary(entries) => {
                entries.extend(pairs);
                Ok(())
            }
            other => {
                let kind = other.kind();
                Err(self.malformed(format!("sets an item of {kind}")))
            }
        }
    }

    fn pairs(&self, items: Vec<NodeId>) -> Result<Vec<(NodeId, NodeId)>> {
        if !items.len().is_multiple_of(2) {
            return Err(self.malformed("a key without a value"));
        }
        Ok(items.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
    }

    fn memoize(&mut self, slot: u32) -> Result<()> {
        let id = self.peek()?;
        self.memo.insert(slot, id);
        Ok(())
    }

    fn recall(&mut self, slot: u32) -> Result<()> {
        match self.memo.get(&slot) {
            Some(&id) => self.push_id(id),
            None => Err(self.malformed(format!("memo {slot} was never written"))),
        }
    }

    fn global(&self, module: &str, name: &str) -> Result<Node> {
        Global::named(module, name).map(Node::Global).ok_or_else(|| {
            // A damaged file names anything; keep the message printable and short.
            let path = format!("{module:.100}.{name:.100}").escape_debug().to_string();
            self.code(format!("`{path}`"))
        })
    }

    fn long(&mut self, length: u64) -> Result<()> {
        let bytes = self.blob(length)?;
        if bytes.len() > 16 {
            return self.push(Node::LargeInteger);
        }
        let sign = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut extended = [if sign { 0xff } else { 0 }; 16];
        extended[..bytes.len()].copy_from_slice(&bytes);
        self.push(Node::Integer(i128::from_le_bytes(extended)))
    }

    fn run(mut self) -> Result<Pickle> {
        loop {
            self.opcode_position = self.position;
            match self.byte()? {
                0x80 => {
                    let protocol = self.byte()?;
                    if protocol > 5 {
                        return Err(self.malformed(format!("pickle protocol {protocol}")));
                    }
                }
                0x95 => drop(self.bytes::<8>()?), // frame
                b'.' => {
                    let root = self.pop()?;
                    return Ok(Pickle { nodes: self.nodes, root });
                }

                b'(' => {
                    if self.marks.len() >= MAX_NODES {
                        return Err(PickleError::TooLarge);
                    }
                    self.marks.push(self.stack.len());
                }
                b'0' => {
                    // Python's POP takes a mark where there is nothing above it.
                    if self.marks.last() == Some(&self.stack.len()) {
                        self.marks.pop();
                    } else {
                        self.pop()?;
                    }
                }
                b'1' => drop(self.pop_mark()?),
                b'2' => {
                    let top = self.peek()?;
                    self.push_id(top)?;
                }

                b'N' => self.push(Node::None)?,
                0x88 => self.push(Node::Bool(true))?,
                0x89 => self.push(Node::Bool(false))?,
                b'J' => {
                    let value = i32::from_le_bytes(self.bytes()?);
                    self.push(Node::Integer(value.into()))?;
                }
                b'K' => {
                    let value = self.byte()?;
                    self.push(Node::Integer(value.into()))?;
                }
                b'M' => {
                    let value = u16::from_le_bytes(self.bytes()?);
                    self.push(Node::Integer(value.into()))?;
                }
                0x8a => {
                    let length = self.byte()?;
                    self.long(length.into())?;
                }
                0x8b => {
                    let length = u32::from_le_bytes(self.bytes()?);
                    self.long(length.into())?;
                }
                b'G' => {
                    let value = f64::from_be_bytes(self.bytes()?);
                    self.push(Node::Float(value))?;
                }

                b'X' | b'T' => {
                    let length = u32::from_le_bytes(self.bytes()?);
                    let text = self.text(length.into())?;
                    self.push(Node::Text(text))?;
                }
                0x8c | b'U' => {
                    let length = self.byte()?;
                    let text = self.text(length.into())?;
                    self.push(Node::Text(text))?;
                }
                0x8d => {
                    let length = u64::from_le_bytes(self.bytes()?);
                    let text = self.text(length)?;
                    self.push(Node::Text(text))?;
                }
                b'C' => {
                    let length = self.byte()?;
                    let bytes = self.blob(length.into())?;
                    self.push(Node::Bytes(bytes))?;
                }
                b'B' => {
                    let length = u32::from_le_bytes(self.bytes()?);
                    let bytes = self.blob(length.into())?;
                    self.push(Node::Bytes(bytes))?;
                }
                0x8e | 0x96 => {
                    let length = u64::from_le_bytes(self.bytes()?);
                    let bytes = self.blob(length)?;
                    self.push(Node::Bytes(bytes))?;
                }

                b']' | 0x8f => self.push(Node::List(Vec::new()))?,
                b'l' | 0x91 => {
                    let items = self.pop_mark()?;
                    self.push(Node::List(items))?;
                }
                b'a' => {
                    let item = self.pop()?;
                    self.append(vec![item])?;
                }
                b'e' | 0x90 => {
                    let items = self.pop_mark()?;
                    self.append(items)?;
                }
                b')' => self.push(Node::Tuple(Vec::new()))?,
                0x85 => self.tuple(1)?,
                0x86 => self.tuple(2)?,
                0x87 => self.tuple(3)?,
                b't' => {
                    let items = self.pop_mark()?;
                    self.push(Node::Tuple(items))?;
                }
                b'}' => self.push(Node::Dictionary(Vec::new()))?,
                b'd' => {
                    let items = self.pop_mark()?;
                    let pairs = self.pairs(items)?;
                    self.push(Node::Dictionary(pairs))?;
                }
                b's' => {
                    let value = self.pop()?;
                    let key = self.pop()?;
                    self.set_items(vec![key, value])?;
                }
                b'u' => {
                    let items = self.pop_mark()?;
                    self.set_items(items)?;
                }

                b'q' => {
                    let slot = self.byte()?;
                    self.memoize(slot.into())?;
                }
                b'r' => {
                    let slot = u32::from_le_bytes(self.bytes()?);
                    self.memoize(slot)?;
                }
                0x94 => self.memoize(self.memo.len() as u32)?,
                b'h' => {
                    let slot = self.byte()?;
                    self.recall(slot.into())?;
                }
                b'j' => {
                    let slot = u32::from_le_bytes(self.bytes()?);
                    self.recall(slot)?;
                }

                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    let global = self.global(&module, &name)?;
                    self.push(global)?;
                }
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    let global = match (self.get(module), self.get(name)) {
                        (Node::Text(module), Node::Text(name)) => self.global(module, name)?,
                        _ => return Err(self.malformed("a class whose name is no text")),
                    };
                    self.push(global)?;
                }
                b'Q' => {
                    let id = self.pop()?;
                    let storage = self.storage(id)?;
                    self.push(Node::Storage(Box::new(storage)))?;
                }
                b'R' | 0x81 => {
                    let (arguments, function) = (self.pop()?, self.pop()?);
                    self.call(function, arguments)?;
                }
                b'b' => {
                    // PyTorch sets attributes of an OrderedDict (`_metadata`); they hold no weights.
                    self.pop()?;
                    let object = self.peek()?;
                    if !matches!(self.get(object), Node::Dictionary(_)) {
                        let kind = self.get(object).kind();
                        return Err(self.code(format!("the state of {kind} (opcode BUILD)")));
                    }
                }

                opcode => {
                    return Err(match forbidden(opcode) {
                        Some(name) => self.code(format!("opcode {name}")),
                        None => self.malformed(format!("{opcode:#04x} is no opcode of a pickle")),
                    });
                }
            }
        }
    }

    /// The storage of a persistent id: ('storage', type, key, location, elements) and, in legacy
    /// files, None or (key of the view, offset, size).
    fn storage(&self, id: NodeId) -> Result<Storage> {
        let error = || self.malformed("a persistent id that is no storage");
        let Node::Tuple(items) = self.get(id) else { return Err(error()) };
        let [tag, class, key, _location, elements, view @ ..] = &items[..] else {
            return Err(error());
        };
        let (Node::Text(tag), Node::Global(Global::StorageType(element)), Node::Text(key)) =
            (self.get(*tag), self.get(*class), self.get(*key))
        else {
            return Err(error());
        };
        if tag != "storage" || key.len() > MAX_KEY {
            return Err(error());
        }
        let view_offset = match view {
            [] => 0,
            [view, ..] => match self.get(*view) {
                Node::None => 0,
                Node::Tuple(view) if view.len() == 3 => self.whole(view[1])?,
                _ => return Err(error()),
            },
        };
        Ok(Storage { key: key.clone(), element, elements: self.whole(*elements)?, view_offset })
    }

    fn whole(&self, id: NodeId) -> Result<u64> {
        match self.get(id) {
            Node::Integer(value) => u64::try_from(*value).ok(),
            _ => None,
        }
        .ok_or_else(|| self.malformed("a size, stride or offset that is no whole number"))
    }

    fn wholes(&self, id: NodeId) -> Result<Vec<u64>> {
        match self.get(id) {
            Node::Tuple(items) | Node::List(items) if items.len() <= MAX_DIMENSIONS => {
                items.iter().map(|&item| self.whole(item)).collect()
            }
            other => Err(self.malformed(format!("a shape that is {}", other.kind()))),
        }
    }

    fn call(&mut self, function: NodeId, arguments: NodeId) -> Result<()> {
        let wrong = || self.malformed("a call with wrong arguments");
        let Node::Tuple(arguments) = self.get(arguments) else { return Err(wrong()) };
        let Node::Global(global) = *self.get(function) else {
            let kind = self.get(function).kind();
            return Err(self.malformed(format!("calls {kind}")));
        };
        // What a conversion returns is its argument itself wherever possible: copies could add up.
        let Some(&first) = arguments.first() else {
            return self.push(match global {
                Global::Dictionary => Node::Dictionary(Vec::new()),
                Global::Set => Node::List(Vec::new()),
                Global::Size => Node::Tuple(Vec::new()),
                _ => return Err(wrong()),
            });
        };
        match (global, self.get(first)) {
            (Global::Dictionary, Node::Dictionary(_))
            | (Global::Set | Global::Size, Node::List(_) | Node::Tuple(_))
            | (Global::Device | Global::EncodeText, Node::Text(_))
            | (Global::RebuildParameter, Node::Tensor(_)) => self.push_id(first),
            (Global::Dictionary, Node::List(items)) => {
                let pair = |&item| match self.get(item) {
                    Node::List(pair) | Node::Tuple(pair) if pair.len() == 2 => {
                        Ok((pair[0], pair[1]))
                    }
                    _ => Err(wrong()),
                };
                let pairs: Vec<_> = items.iter().map(pair).collect::<Result<_>>()?;
                self.copied += pairs.len();
                if self.copied > MAX_NODES {
                    return Err(PickleError::TooLarge);
                }
                self.push(Node::Dictionary(pairs))
            }
            (Global::RebuildTensor { typed }, Node::Storage(storage)) => {
                let [_, offset, shape, strides, rest @ ..] = &arguments[..] else {
                    return Err(wrong());
                };
                let element = match (typed, rest) {
                    (false, _) => storage.element,
                    (true, [_gradient, _hooks, element, ..]) => match self.get(*element) {
                        Node::Global(Global::ElementType(element)) => element,
                        _ => return Err(wrong()),
                    },
                    (true, _) => return Err(wrong()),
                };
                let tensor = TensorView {
                    storage: (**storage).clone(),
                    element,
                    offset: self.whole(*offset)?,
                    shape: self.wholes(*shape)?,
                    strides: self.wholes(*strides)?,
                };
                if tensor.shape.len() != tensor.strides.len() {
                    return Err(self.malformed("a tensor with more or fewer strides than sizes"));
                }
                self.push(Node::Tensor(Box::new(tensor)))
            }
            _ => Err(wrong()),
        }
    }
}

/// Opcodes that exist but have no place in a state dict.
fn forbidden(opcode: u8) -> Option<&'static str> {
    Some(match opcode {
        b'i' => "INST",
        b'o' => "OBJ",
        0x92 => "NEWOBJ_EX",
        0x82 => "EXT1",
        0x83 => "EXT2",
        0x84 => "EXT4",
        0x97 => "NEXT_BUFFER",
        0x98 => "READONLY_BUFFER",
        b'P' => "PERSID",
        b'I' => "INT (protocol 0)",
        b'L' => "LONG (protocol 0)",
        b'F' => "FLOAT (protocol 0)",
        b'S' => "STRING (protocol 0)",
        b'V' => "UNICODE (protocol 0)",
        b'p' => "PUT (protocol 0)",
        b'g' => "GET (protocol 0)",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(bytes: &[u8]) -> String {
        match Pickle::read(bytes) {
            Err(PickleError::Code { what, .. }) => what,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn should_read_plain_values_of_each_protocol() {
        // pickle.dumps({"a": [1, -2, 300, 70000], "b": (None, True, 0.5)}, protocol=2)
        let two = b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01]q\x02(K\x01J\xfe\xff\xff\xffM,\x01Jp\x11\x01\x00e\
            X\x01\x00\x00\x00bq\x03N\x88G?\xe0\x00\x00\x00\x00\x00\x00\x87q\x04u.";
        let pickle = Pickle::read(&two[..]).unwrap();
        let Node::Dictionary(entries) = pickle.root() else { panic!() };
        assert_eq!(pickle.get(entries[1].0), &Node::Text("b".into()));
        let Node::List(list) = pickle.get(entries[0].1) else { panic!() };
        let integers: Vec<_> = list.iter().map(|&id| pickle.get(id).clone()).collect();
        assert_eq!(integers, [1, -2, 300, 70000].map(Node::Integer));
        let Node::Tuple(tuple) = pickle.get(entries[1].1) else { panic!() };
        let values: Vec<_> = tuple.iter().map(|&id| pickle.get(id).clone()).collect();
        assert_eq!(values, [Node::None, Node::Bool(true), Node::Float(0.5)]);
        // pickle.dumps(["x"], protocol=4)
        let four = b"\x80\x04\x95\x08\x00\x00\x00\x00\x00\x00\x00]\x94\x8c\x01x\x94a.";
        assert!(
            matches!(Pickle::read(&four[..]).unwrap().root(), Node::List(items) if items.len() == 1)
        );
        // The magic number of the legacy format has ten bytes.
        let magic = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";
        assert_eq!(
            Pickle::read(&magic[..]).unwrap().root(),
            &Node::Integer(0x1950_a86a_20f9_469c_fc6c)
        );
    }

    #[test]
    fn should_refuse_to_name_call_or_build_foreign_things() {
        assert_eq!(code(b"cos\nsystem\nX\x02\x00\x00\x00ls\x85R."), "`os.system`");
        assert_eq!(code(b"\x8c\x05posix\x8c\x06system\x93."), "`posix.system`");
        assert_eq!(code(b"(ios\nsystem\n."), "opcode INST");
        assert_eq!(code(b"\x82\x01."), "opcode EXT1");
        assert_eq!(code(b"]}b."), "the state of a list (opcode BUILD)");
        assert_eq!(
            code(b"ctorch.nn.modules.linear\nLinear\n."),
            "`torch.nn.modules.linear.Linear`"
        );
    }

    #[test]
    fn should_not_need_more_memory_than_the_file_has_bytes() {
        // A list that holds itself twice, a thousand nested tuples, a length that lies.
        assert!(Pickle::read(&b"]q\x00(h\x00h\x00e."[..]).is_ok());
        let nested = [&b")"[..], &[0x85; 1_000_000], b"."].concat();
        assert!(Pickle::read(&nested[..]).is_ok());
        let lie = b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7fabc.";
        assert!(matches!(Pickle::read(&lie[..]), Err(PickleError::TooLarge)));
        let short = b"B\xff\xff\xff\x02abc.";
        assert!(matches!(Pickle::read(&short[..]), Err(PickleError::Truncated { .. })));
    }
}
