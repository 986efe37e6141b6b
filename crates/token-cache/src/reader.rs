//! Reading a finished cache.

use std::{
    fs::{self, File},
    ops::Range,
    path::{Path, PathBuf},
};

use memmap2::Mmap;

use tokens::CodebookIndex;

use crate::{
    CacheError, CacheHeader, FRAME, Footer, LeftOut, Preamble, Shard, Stored,
    VERSION_WITH_CAPTIONS, array,
    captions::{self, Summary, append_captions},
    file_error, order_checksum,
};

/// One view of one picture, in the mapped file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its class, a position in [`CacheHeader::classes`].
    pub label: usize,
    /// Two bytes each.
    pub(super) tokens: &'a [u8],
}

impl<'a> Record<'a> {
    /// The tokens, in the order of the layout.
    pub fn tokens(&self) -> impl ExactSizeIterator<Item = CodebookIndex> + use<'a> {
        self.tokens
            .chunks_exact(size_of::<CodebookIndex>())
            .map(|token| CodebookIndex::from_le_bytes(array(token)))
    }
}

#[derive(Debug)]
struct MappedShard {
    /// The pictures it holds.
    range: Range<usize>,
    footer: Footer,
    path: PathBuf,
    names_path: PathBuf,
    /// Where the first record begins.
    records: usize,
    bytes: Mmap,
    captions: Option<MappedCaptions>,
}

#[derive(Debug)]
struct MappedCaptions {
    path: PathBuf,
    summary: Summary,
    bytes: Mmap,
}

/// A finished cache, mapped into memory: any record can be read at any time, by many threads.
#[derive(Debug)]
pub struct TokenCache {
    dir: PathBuf,
    header: CacheHeader,
    shards: Vec<MappedShard>,
}

impl TokenCache {
    /// Opens a cache and checks that its shards are complete and belong together. Records are
    /// checked when they are read; [`verify`](Self::verify) reads them all.
    ///
    /// # Errors
    /// * [`CacheError::Incomplete`] names a shard that is missing or not finished,
    /// * [`CacheError::Division`] if there are shards of several divisions, or none,
    /// * [`CacheError::HeaderMismatch`] or [`CacheError::Tokenizer`] if a shard belongs to another
    ///   cache,
    /// * [`CacheError::Damaged`] if a file was cut or changed,
    /// * [`CacheError::Header`] or [`CacheError::Version`] if a header cannot be understood,
    /// * [`CacheError::File`] if the operating system fails.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, CacheError> {
        let dir = dir.into();
        let count = match Shard::divisions(&dir)?[..] {
            [count] => count,
            ref counts => return Err(CacheError::Division { dir, counts: counts.to_vec() }),
        };
        let (first, header) = MappedShard::open(&dir, Shard::new(0, count)?, None)?;
        let mut shards = vec![first];
        for index in 1..count {
            let known = Some((&shards[0], &header));
            let (shard, _) = MappedShard::open(&dir, Shard::new(index, count)?, known)?;
            shards.push(shard);
        }
        Ok(Self { dir, header, shards })
    }

    /// What all records have in common.
    pub fn header(&self) -> &CacheHeader {
        &self.header
    }

    /// Number of pictures in all shards.
    pub fn len(&self) -> usize {
        self.header.pictures
    }

    /// Whether there are no pictures.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of pictures in each shard.
    pub fn shard_lens(&self) -> Vec<usize> {
        self.shards.iter().map(|shard| shard.range.len()).collect()
    }

    /// Checks that the tokens come from the tokenizer with this digest.
    ///
    /// # Errors
    /// [`CacheError::Tokenizer`] if they do not.
    pub fn check_tokenizer(&self, digest: &str) -> Result<(), CacheError> {
        self.header.check_tokenizer(&self.dir, digest)
    }

    /// A view of a picture, both counted from 0. Costs no allocation.
    ///
    /// # Errors
    /// [`CacheError::Damaged`] if its bytes were changed; [`CacheError::LeftOut`] if the picture
    /// could not be read when the cache was built; [`CacheError::OutOfRange`] if there is no such
    /// record.
    pub fn record(&self, picture: usize, view: usize) -> Result<Record<'_>, CacheError> {
        match self.stored(picture, view)? {
            Stored::Tokens(record) => Ok(record),
            Stored::LeftOut { reason, .. } => {
                let (dir, reason) = (self.dir.clone(), reason.to_owned());
                Err(CacheError::LeftOut { dir, picture, reason })
            }
        }
    }

    /// The class of a picture, also of one that was left out.
    ///
    /// # Errors
    /// [`CacheError::Damaged`] or [`CacheError::OutOfRange`].
    pub fn label(&self, picture: usize) -> Result<usize, CacheError> {
        Ok(self.stored(picture, 0)?.label())
    }

    /// The pictures that could not be read when the cache was built. Reads a record of each
    /// picture.
    ///
    /// # Errors
    /// [`CacheError::Damaged`].
    pub fn left_out(&self) -> Result<Vec<LeftOut>, CacheError> {
        let mut left_out = Vec::new();
        for picture in 0..self.len() {
            if let Stored::LeftOut { reason, .. } = self.stored(picture, 0)? {
                left_out.push(LeftOut { picture, reason: reason.to_owned() });
            }
        }
        Ok(left_out)
    }

    fn stored(&self, picture: usize, view: usize) -> Result<Stored<'_>, CacheError> {
        let CacheHeader { pictures, views, .. } = self.header;
        if picture >= pictures || view >= views {
            let dir = self.dir.clone();
            return Err(CacheError::OutOfRange { dir, picture, view, pictures, views });
        }
        let shard = self.shards.partition_point(|shard| shard.range.end <= picture);
        self.shards[shard].stored(&self.header, picture, view)
    }

    /// The names of all pictures.
    ///
    /// # Errors
    /// [`CacheError::Damaged`] if a names file was changed; [`CacheError::File`] if it cannot be
    /// read.
    pub fn names(&self) -> Result<Vec<String>, CacheError> {
        let mut names = Vec::with_capacity(self.len());
        for shard in &self.shards {
            names.extend(shard.names()?.lines().map(str::to_owned));
        }
        Ok(names)
    }

    /// The captions of a picture; none in a cache without captions.
    ///
    /// # Errors
    /// [`CacheError::Damaged`] if they are not what was written; [`CacheError::OutOfRange`] if there
    /// is no such picture.
    pub fn captions(&self, picture: usize) -> Result<Vec<&str>, CacheError> {
        let CacheHeader { pictures, views, .. } = self.header;
        if picture >= pictures {
            let dir = self.dir.clone();
            return Err(CacheError::OutOfRange { dir, picture, view: 0, pictures, views });
        }
        let shard = self.shards.partition_point(|shard| shard.range.end <= picture);
        self.shards[shard].captions(picture)
    }

    /// Reads everything once. Returns the first damage of each shard: nothing if all is well.
    pub fn verify(&self) -> Vec<CacheError> {
        let damages = self.shards.iter().map(|shard| shard.verify(&self.header));
        let mut damages: Vec<_> = damages.filter_map(Result::err).collect();
        if damages.is_empty() {
            // All parts are sound; are they parts of the data set that the header tells of?
            damages.extend(self.check_order().err());
        }
        damages
    }

    fn check_order(&self) -> Result<(), CacheError> {
        let names = self.names()?;
        let mut labels = Vec::with_capacity(self.len());
        for picture in 0..self.len() {
            labels.push(self.label(picture)?);
        }
        let other = |what: &str| {
            let reason = format!("its {what} are not those of the data set it was made for");
            Err(CacheError::Damaged { path: self.dir.clone(), reason })
        };
        if names.len() != labels.len()
            || order_checksum(labels.into_iter().zip(names)) != self.header.order
        {
            return other("labels and names");
        }
        if let Some(expected) = self.header.captions {
            let mut checksum = 0;
            for picture in 0..self.len() {
                checksum = append_captions(checksum, &self.captions(picture)?);
            }
            if checksum != expected {
                return other("captions");
            }
        }
        Ok(())
    }
}

impl MappedShard {
    /// Maps a finished shard; `known` is another shard of the cache, and the cache's header.
    fn open(
        dir: &Path,
        shard: Shard,
        known: Option<(&Self, &CacheHeader)>,
    ) -> Result<(Self, CacheHeader), CacheError> {
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
        let preamble = match bytes.first_chunk() {
            Some(preamble) => Preamble::read(&path, preamble)?,
            None => return Err(damaged("it was cut")),
        };
        let preamble = preamble.ok_or_else(|| damaged("its first bytes are no preamble"))?;
        if preamble.shard != shard {
            let reason = format!("it is shard {}, not what its name says", preamble.shard);
            return Err(damaged(&reason));
        }
        let records = FRAME + preamble.header_size;
        let json = bytes.get(FRAME..records).ok_or_else(|| damaged("it was cut"))?;
        let header = match known {
            Some((other, header)) if other.bytes[FRAME..other.records] == *json => header.clone(),
            _ if crc32c::crc32c(json) != preamble.header_checksum => {
                return Err(damaged("its header was changed"));
            }
            _ => CacheHeader::from_json(json)
                .map_err(|reason| CacheError::Header { path: path.clone(), reason })?,
        };
        if let Some((_, other)) = known {
            header.check_same(&path, other)?;
        }
        let captioned = header.captions.is_some();
        if captioned != (preamble.version >= VERSION_WITH_CAPTIONS) {
            let reason = format!("version {} and captions do not go together", preamble.version);
            return Err(CacheError::Header { path, reason });
        }

        let range = shard.range(header.pictures);
        let number = (range.len() * header.views) as u64;
        let frames = if captioned { 2 * FRAME } else { FRAME };
        let size = u128::from(number) * header.record_size() as u128 + (records + frames) as u128;
        if bytes.len() as u128 != size {
            return Err(damaged(
                "it was cut, or holds another number of records than its header says",
            ));
        }
        let footer = bytes.last_chunk().and_then(Footer::from_bytes);
        let footer = footer
            .filter(|footer| footer.records == number)
            .ok_or_else(|| damaged("its end was changed"))?;
        let captions = if captioned {
            let summary = bytes[..bytes.len() - FRAME].last_chunk().and_then(Summary::from_bytes);
            let summary = summary.filter(|summary| captions::fits(summary, range.len()));
            let summary = summary.ok_or_else(|| damaged("its end was changed"))?;
            Some(MappedCaptions::open(shard.captions_file(dir), &path, summary)?)
        } else {
            None
        };
        let names_path = shard.names_file(dir);
        let shard = Self { range, footer, path, names_path, records, bytes, captions };
        let names_size = fs::metadata(&shard.names_path).map_err(file_error(&shard.names_path))?;
        if names_size.len() != shard.footer.names_size {
            return Err(shard.damaged_names());
        }
        Ok((shard, header))
    }

    fn damaged_names(&self) -> CacheError {
        let reason = format!("it is not the one that {} was written with", self.path.display());
        CacheError::Damaged { path: self.names_path.clone(), reason }
    }

    fn stored(
        &self,
        header: &CacheHeader,
        picture: usize,
        view: usize,
    ) -> Result<Stored<'_>, CacheError> {
        let size = header.record_size();
        let number = (picture - self.range.start) * header.views + view;
        let bytes = &self.bytes[self.records + number * size..][..size];
        header.parse(bytes, picture, view).ok_or_else(|| {
            let reason = format!("view {view} of picture {picture} is not what was written");
            CacheError::Damaged { path: self.path.clone(), reason }
        })
    }

    fn captions(&self, picture: usize) -> Result<Vec<&str>, CacheError> {
        let Some(MappedCaptions { path, summary, bytes }) = &self.captions else {
            return Ok(Vec::new());
        };
        captions::captions(bytes, summary, self.range.clone(), picture).ok_or_else(|| {
            let reason = format!("the captions of picture {picture} are not what was written");
            CacheError::Damaged { path: path.clone(), reason }
        })
    }

    /// The names, a line each.
    fn names(&self) -> Result<String, CacheError> {
        let bytes = fs::read(&self.names_path).map_err(file_error(&self.names_path))?;
        let unchanged = crc32c::crc32c(&bytes) == self.footer.names_checksum;
        match String::from_utf8(bytes) {
            Ok(names) if unchanged => Ok(names),
            _ => Err(self.damaged_names()),
        }
    }

    fn verify(&self, header: &CacheHeader) -> Result<(), CacheError> {
        for picture in self.range.clone() {
            let mut tokens = 0;
            for view in 0..header.views {
                let stored = self.stored(header, picture, view)?;
                tokens += usize::from(matches!(stored, Stored::Tokens(_)));
            }
            if tokens != 0 && tokens != header.views {
                let reason = format!("some views of picture {picture} were left out, some not");
                return Err(CacheError::Damaged { path: self.path.clone(), reason });
            }
        }
        if self.names()?.lines().count() != self.range.len() {
            return Err(self.damaged_names());
        }
        if let Some(captions) = &self.captions {
            if crc32c::crc32c(&captions.bytes) != captions.summary.checksum {
                return Err(damaged_captions(&captions.path, &self.path));
            }
            self.range.clone().try_for_each(|picture| self.captions(picture).map(drop))?;
        }
        Ok(())
    }
}

impl MappedCaptions {
    /// Maps the captions of the shard at `shard_path`.
    fn open(path: PathBuf, shard_path: &Path, summary: Summary) -> Result<Self, CacheError> {
        let file = File::open(&path).map_err(file_error(&path))?;
        let size = file.metadata().map_err(file_error(&path))?.len();
        if size != summary.size {
            return Err(damaged_captions(&path, shard_path));
        }
        #[allow(unsafe_code)] // the only way to map a file
        // SAFETY: as for the records: captions of a finished shard are never written to.
        let bytes = unsafe { Mmap::map(&file) }.map_err(file_error(&path))?;
        Ok(Self { path, summary, bytes })
    }
}

fn damaged_captions(path: &Path, shard: &Path) -> CacheError {
    let reason = format!("it is not the one that {} was written with", shard.display());
    CacheError::Damaged { path: path.to_owned(), reason }
}
