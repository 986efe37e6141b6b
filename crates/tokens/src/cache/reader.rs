//! Reading a finished cache.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use memmap2::Mmap;

use super::{CacheError, CacheHeader, FRAME, Footer, Shard, array, file_error, record_checksum};
use crate::CodebookIndex;

/// One sample of a cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its class, a position in [`CacheHeader::classes`].
    pub label: usize,
    /// The tokens of each view, in the order of the layout.
    pub views: Vec<Vec<CodebookIndex>>,
}

#[derive(Debug)]
struct MappedShard {
    /// Number of its first record in the cache.
    start: usize,
    footer: Footer,
    path: PathBuf,
    names_path: PathBuf,
    bytes: Mmap,
}

/// A finished cache, mapped into memory: any record can be read at any time, by many threads.
#[derive(Debug)]
pub struct TokenCache {
    dir: PathBuf,
    header: CacheHeader,
    shards: Vec<MappedShard>,
    len: usize,
}

impl TokenCache {
    /// Opens a cache and checks that its shards are complete and belong together. Records are
    /// checked when they are read; [`verify`](Self::verify) reads them all.
    ///
    /// # Errors
    /// * [`CacheError::Incomplete`] names a shard that is missing or not finished,
    /// * [`CacheError::Division`] if there are shards of several divisions, or none,
    /// * [`CacheError::Damaged`] if a file was cut or belongs to another cache,
    /// * [`CacheError::Header`] or [`CacheError::Version`] if `cache.json` cannot be read,
    /// * [`CacheError::File`] if the operating system fails.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, CacheError> {
        let dir = dir.into();
        let header = CacheHeader::read(&dir)?;
        let count = match Shard::divisions(&dir)?[..] {
            [count] => count,
            ref counts => return Err(CacheError::Division { dir, counts: counts.to_vec() }),
        };
        let mut len = 0;
        let mut shards = Vec::with_capacity(count);
        for index in 0..count {
            let shard = MappedShard::open(&dir, &header, Shard::new(index, count)?, len)?;
            len += shard.len();
            shards.push(shard);
        }
        Ok(Self { dir, header, shards, len })
    }

    /// What all records have in common.
    pub fn header(&self) -> &CacheHeader {
        &self.header
    }

    /// Number of records in all shards.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no records.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of records of each shard.
    pub fn shard_lens(&self) -> Vec<usize> {
        self.shards.iter().map(MappedShard::len).collect()
    }

    /// Checks that the tokens come from the tokenizer with this digest.
    ///
    /// # Errors
    /// [`CacheError::Tokenizer`] if they do not.
    pub fn check_tokenizer(&self, digest: &str) -> Result<(), CacheError> {
        self.header.check_tokenizer(&self.dir, digest)
    }

    /// Record `index` of the data set.
    ///
    /// # Errors
    /// [`CacheError::Damaged`] if its bytes were changed; [`CacheError::OutOfRange`] if there is
    /// no such record.
    pub fn record(&self, index: usize) -> Result<Record, CacheError> {
        if index >= self.len {
            return Err(CacheError::OutOfRange { dir: self.dir.clone(), index, len: self.len });
        }
        let shard = &self.shards[self.shards.partition_point(|shard| shard.start <= index) - 1];
        shard.record(&self.header, index - shard.start)
    }

    /// The names of all samples.
    ///
    /// # Errors
    /// [`CacheError::Damaged`] if a names file was changed; [`CacheError::File`] if it cannot be
    /// read.
    pub fn names(&self) -> Result<Vec<String>, CacheError> {
        let mut names = Vec::with_capacity(self.len);
        for shard in &self.shards {
            names.extend(shard.names()?.lines().map(str::to_owned));
        }
        Ok(names)
    }

    /// Reads everything once.
    ///
    /// # Errors
    /// [`CacheError::Damaged`] for the first record or names file that was changed.
    pub fn verify(&self) -> Result<(), CacheError> {
        for shard in &self.shards {
            (0..shard.len()).try_for_each(|index| shard.content(&self.header, index).map(drop))?;
            shard.names()?;
        }
        Ok(())
    }
}

impl MappedShard {
    fn open(
        dir: &Path,
        header: &CacheHeader,
        shard: Shard,
        start: usize,
    ) -> Result<Self, CacheError> {
        let path = shard.tokens_file(dir);
        if !path.exists() {
            let started = shard.partial_file(dir).exists();
            return Err(CacheError::Incomplete { path, shard, started });
        }
        let file = File::open(&path).map_err(file_error(&path))?;
        #[allow(unsafe_code)] // the only way to map a file
        // SAFETY: the bytes must not change while they are mapped. Finished shards are never
        // written to: writers work on a file of another name and rename it once.
        let bytes = unsafe { Mmap::map(&file) }.map_err(file_error(&path))?;
        let damaged =
            |reason: &str| CacheError::Damaged { path: path.clone(), reason: reason.to_owned() };
        if bytes.len() < 2 * FRAME {
            return Err(damaged("it was cut"));
        }
        if bytes[..FRAME] != header.preamble(shard) {
            return Err(damaged("its beginning does not fit cache.json and the file's name"));
        }
        let footer = Footer::from_bytes(&array(&bytes[bytes.len() - FRAME..]))
            .ok_or_else(|| damaged("it was cut, or its end was changed"))?;
        let records = (bytes.len() - 2 * FRAME) as u64;
        if footer.records.checked_mul(header.record_size() as u64) != Some(records) {
            return Err(damaged("it holds another number of records than it says"));
        }
        let names_path = shard.names_file(dir);
        let shard = Self { start, footer, path, names_path, bytes };
        let names_size = fs::metadata(&shard.names_path).map_err(file_error(&shard.names_path))?;
        if names_size.len() != shard.footer.names_size {
            return Err(shard.damaged_names());
        }
        Ok(shard)
    }

    fn len(&self) -> usize {
        // As many records are mapped, so their number fits.
        self.footer.records as usize
    }

    fn damaged_names(&self) -> CacheError {
        let reason = format!("it is not the one that {} was written with", self.path.display());
        CacheError::Damaged { path: self.names_path.clone(), reason }
    }

    /// Label and tokens of a record, as bytes.
    fn content(&self, header: &CacheHeader, index: usize) -> Result<&[u8], CacheError> {
        let size = header.record_size();
        let record = &self.bytes[FRAME + index * size..][..size];
        let (content, checksum) = record.split_at(size - size_of::<u32>());
        if record_checksum(index as u64, content) == u32::from_le_bytes(array(checksum)) {
            Ok(content)
        } else {
            let reason = format!("the checksum of record {index} does not hold");
            Err(CacheError::Damaged { path: self.path.clone(), reason })
        }
    }

    fn record(&self, header: &CacheHeader, index: usize) -> Result<Record, CacheError> {
        let (label, tokens) = self.content(header, index)?.split_at(size_of::<u32>());
        let label = u32::from_le_bytes(array(label)) as usize;
        let tokens = tokens.chunks_exact(size_of::<CodebookIndex>());
        let tokens: Vec<_> =
            tokens.map(|token| CodebookIndex::from_le_bytes(array(token))).collect();
        let known = label < header.classes.len()
            && tokens.iter().all(|&token| usize::from(token) < header.codes);
        if !known {
            let reason = format!("record {index} has a label or token out of range");
            return Err(CacheError::Damaged { path: self.path.clone(), reason });
        }
        let views = tokens.chunks_exact(header.layout.len()).map(<[_]>::to_vec).collect();
        Ok(Record { label, views })
    }

    fn names(&self) -> Result<String, CacheError> {
        let bytes = fs::read(&self.names_path).map_err(file_error(&self.names_path))?;
        let unchanged = crc32c::crc32c(&bytes) == self.footer.names_checksum;
        match String::from_utf8(bytes) {
            Ok(names) if unchanged => Ok(names),
            _ => Err(self.damaged_names()),
        }
    }
}
