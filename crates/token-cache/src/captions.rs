//! The captions of a shard: their texts, and tables of where they are.
//!
//! A file holds all texts one after the other, then for each caption where it ends (8 bytes), then
//! for each picture how many captions there are up to its last, and a checksum (12 bytes).

use std::ops::Range;

use crate::{CAPTIONS_MAGIC, FRAME, array, frame};

/// Bytes of a caption's entry in its table.
const CAPTION: usize = size_of::<u64>();
/// Bytes of a picture's entry in its table.
const PICTURE: usize = size_of::<u64>() + size_of::<u32>();

/// CRC-32C over the captions of all pictures of a data set in order: of each picture their number
/// (`u32`, little-endian), then of each caption its length in bytes (`u32`, little-endian) and its
/// text.
pub fn caption_checksum<C, S>(pictures: impl IntoIterator<Item = C>) -> u32
where
    C: AsRef<[S]>,
    S: AsRef<str>,
{
    pictures.into_iter().fold(0, |checksum, captions| append_captions(checksum, captions.as_ref()))
}

pub(crate) fn append_captions<S: AsRef<str>>(checksum: u32, captions: &[S]) -> u32 {
    let checksum = crc32c::crc32c_append(checksum, &(captions.len() as u32).to_le_bytes());
    captions.iter().fold(checksum, |checksum, caption| {
        let caption = caption.as_ref();
        let checksum = crc32c::crc32c_append(checksum, &(caption.len() as u32).to_le_bytes());
        crc32c::crc32c_append(checksum, caption.as_bytes())
    })
}

/// The checksum in a picture's entry: over its number in the data set and its captions.
fn picture_checksum<S: AsRef<str>>(picture: usize, captions: &[S]) -> u32 {
    append_captions(crc32c::crc32c(&(picture as u32).to_le_bytes()), captions)
}

/// What the end of a shard says of its captions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Summary {
    /// How many captions there are.
    pub(crate) captions: u64,
    /// Bytes of the file.
    pub(crate) size: u64,
    /// CRC-32C of the file.
    pub(crate) checksum: u32,
}

impl Summary {
    pub(crate) fn to_bytes(self) -> [u8; FRAME] {
        let Self { captions, size, checksum } = self;
        let mut fields = [captions, size].map(u64::to_le_bytes).concat();
        fields.extend(checksum.to_le_bytes());
        frame(CAPTIONS_MAGIC, &fields)
    }

    pub(crate) fn from_bytes(bytes: &[u8; FRAME]) -> Option<Self> {
        let long = |at: usize| u64::from_le_bytes(array(&bytes[at..]));
        let checksum = u32::from_le_bytes(array(&bytes[24..]));
        let summary = Self { captions: long(8), size: long(16), checksum };
        (summary.to_bytes() == *bytes).then_some(summary)
    }

    /// Where the two tables begin, if a file of this size has room for both.
    fn tables(&self, pictures: usize) -> Option<(usize, usize)> {
        let size = usize::try_from(self.size).ok()?;
        let pictures_table = size.checked_sub(pictures.checked_mul(PICTURE)?)?;
        let captions = usize::try_from(self.captions).ok()?.checked_mul(CAPTION)?;
        Some((pictures_table.checked_sub(captions)?, pictures_table))
    }
}

/// The tables of a shard that is being written.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    /// Where each caption ends in the texts.
    ends: Vec<u64>,
    /// Captions up to the last of each picture, and its checksum.
    pictures: Vec<(u64, u32)>,
}

impl Tables {
    /// Adds the captions of a picture, whose texts follow those before.
    pub(crate) fn add<S: AsRef<str>>(&mut self, picture: usize, captions: &[S]) {
        let mut end = self.ends.last().copied().unwrap_or(0);
        for caption in captions {
            end += caption.as_ref().len() as u64;
            self.ends.push(end);
        }
        self.pictures.push((self.ends.len() as u64, picture_checksum(picture, captions)));
    }

    /// How many pictures there are.
    pub(crate) fn len(&self) -> usize {
        self.pictures.len()
    }

    /// How many captions there are.
    pub(crate) fn captions(&self) -> u64 {
        self.ends.len() as u64
    }

    /// What stands behind the texts.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes =
            Vec::with_capacity(self.ends.len() * CAPTION + self.pictures.len() * PICTURE);
        self.ends.iter().for_each(|end| bytes.extend(end.to_le_bytes()));
        for (captions, checksum) in &self.pictures {
            bytes.extend(captions.to_le_bytes());
            bytes.extend(checksum.to_le_bytes());
        }
        bytes
    }
}

/// The captions of the picture in place `place` of a shard, which is number `picture` of the data
/// set; `None` if they are not what was written. `bytes` is the whole file.
pub(crate) fn captions<'a>(
    bytes: &'a [u8],
    summary: &Summary,
    pictures: Range<usize>,
    picture: usize,
) -> Option<Vec<&'a str>> {
    let (captions_table, pictures_table) = summary.tables(pictures.len())?;
    let texts = bytes.get(..captions_table)?;
    let long = |at: usize| -> Option<usize> {
        usize::try_from(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?)).ok()
    };
    let place = picture.checked_sub(pictures.start)?;
    let entry = pictures_table + place.checked_mul(PICTURE)?;
    let end = long(entry)?;
    let start = if place == 0 { 0 } else { long(entry - PICTURE)? };
    if start > end || end as u64 > summary.captions {
        return None;
    }
    let text_end = |caption: usize| long(captions_table + caption * CAPTION);
    let mut at = if start == 0 { 0 } else { text_end(start - 1)? };
    let mut found = Vec::with_capacity(end - start);
    for caption in start..end {
        let text_end = text_end(caption)?;
        found.push(std::str::from_utf8(texts.get(at..text_end)?).ok()?);
        at = text_end;
    }
    let checksum = u32::from_le_bytes(*bytes.get(entry + CAPTION..)?.first_chunk()?);
    (checksum == picture_checksum(picture, &found)).then_some(found)
}

/// Whether a shard of so many pictures can have a file like this.
pub(crate) fn fits(summary: &Summary, pictures: usize) -> bool {
    summary.tables(pictures).is_some()
}
