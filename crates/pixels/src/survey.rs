//! What a data set holds: every picture is read once.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::loader::{BadSample, Loader, LoaderOptions, OnBad};
use crate::{DataSet, Picture, PixelsError, crop::center_crop};

/// Pictures on a contact sheet, at most.
const SHEET_PICTURES: usize = 96;
/// Pictures in a row of a contact sheet.
pub const SHEET_COLUMNS: usize = 12;
/// Side of a picture on a contact sheet, in pixels.
const SHEET_SIZE: usize = 96;
/// Most unreadable pictures that are listed; more are counted.
const MOST_LISTED: usize = 10_000;

/// The lengths of one side over all pictures, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lengths {
    /// The smallest.
    pub smallest: usize,
    /// The median; of an even number of pictures, the lower of the two in the middle.
    pub median: usize,
    /// The largest.
    pub largest: usize,
}

/// What [`survey`] found.
#[derive(Debug)]
pub struct Survey {
    /// Samples of each class, readable or not, by label.
    pub counts: Vec<usize>,
    /// Pictures that could be read.
    pub readable: usize,
    /// Their widths; nothing if there are no readable pictures.
    pub widths: Option<Lengths>,
    /// Their heights.
    pub heights: Option<Lengths>,
    /// Pictures that could not be read.
    pub unreadable: usize,
    /// The first 10,000 of them, and why.
    pub listed: Vec<BadSample>,
    /// Numbers and centre crops of up to 96 pictures, evenly spread over the data set.
    pub shown: Vec<(usize, Picture)>,
}

/// Reads every picture of `data` on as many threads as said. Its memory does not grow with the
/// number of pictures. `progress` is called with the number of pictures read, now and then.
///
/// # Errors
/// None for single pictures, which are listed; that of the last one if a thousand in a row cannot
/// be read, or of the first if `strict`.
pub fn survey(
    data: Arc<dyn DataSet>,
    threads: usize,
    strict: bool,
    mut progress: impl FnMut(usize),
) -> Result<Survey, PixelsError> {
    let total = data.len();
    let mut counts = vec![0; data.classes().len()];
    (0..total).for_each(|index| counts[data.label(index)] += 1);

    let on_sheets = total.min(SHEET_PICTURES);
    let on_sheet = move |index: usize| {
        let place = (index * on_sheets).div_ceil(total);
        place < on_sheets && place * total / on_sheets == index
    };
    let options = LoaderOptions { threads, ahead: 2 * threads.max(1) };
    let on_bad = if strict { OnBad::Stop } else { OnBad::LeaveOut };
    let mut loader = Loader::start(data, 0..total, options, on_bad, move |data, index| {
        let picture = data.picture(index)?;
        let small = on_sheet(index).then(|| center_crop(&picture, SHEET_SIZE)).transpose()?;
        Ok((picture.width(), picture.height(), small))
    });

    let mut lengths: [BTreeMap<usize, usize>; 2] = Default::default();
    let (mut readable, mut shown, mut listed) = (0, Vec::new(), Vec::new());
    let mut list = |loader: &mut Loader<_, _>| {
        let room = MOST_LISTED - listed.len();
        listed.extend(loader.take_bad().into_iter().take(room));
    };
    while let Some(result) = loader.next() {
        let (index, (width, height, small)) = result?;
        list(&mut loader);
        readable += 1;
        *lengths[0].entry(width).or_default() += 1;
        *lengths[1].entry(height).or_default() += 1;
        shown.extend(small.map(|small| (index, small)));
        progress(index + 1);
    }
    let [widths, heights] = lengths.map(|lengths| spread(&lengths, readable));
    list(&mut loader);
    let unreadable = loader.bad_count() as usize;
    Ok(Survey { counts, readable, widths, heights, unreadable, listed, shown })
}

fn spread(lengths: &BTreeMap<usize, usize>, count: usize) -> Option<Lengths> {
    let mut seen = 0;
    let median = lengths.iter().find_map(|(&length, &pictures)| {
        seen += pictures;
        (2 * seen >= count).then_some(length)
    })?;
    let (&smallest, _) = lengths.first_key_value()?;
    let (&largest, _) = lengths.last_key_value()?;
    Some(Lengths { smallest, median, largest })
}
