//! A part of a data set, and the choice of pictures that are not learned from.

use std::sync::Arc;

use tokens::noise::{Noise, Purpose, seed_of};

use super::{DataSet, LeftOut};
use crate::{Picture, PixelsError};

/// Some samples of a data set, in its order and with its classes.
pub struct Part {
    pub(super) whole: Arc<dyn DataSet>,
    pub(super) indices: Vec<usize>,
    pub(super) read_as: String,
    pub(super) left_out: Vec<LeftOut>,
}

impl Part {
    /// These samples; what the whole data set leaves out is left out of the part.
    pub(super) fn of(whole: Arc<dyn DataSet>, indices: Vec<usize>) -> Self {
        let (part, all) = (indices.len(), whole.len());
        Self {
            read_as: format!("{part} of {all} pictures of: {}", whole.read_as()),
            left_out: whole.left_out().to_vec(),
            indices,
            whole,
        }
    }
}

/// Whether a picture of this name is among the `share` that is held out, from 0 to 1. Only the name
/// decides, so the same pictures are held out of a data set and of its token cache, and adding pictures
/// moves none from one side to the other.
pub fn is_held_out(name: &str, share: f64) -> bool {
    Noise::new(seed_of(name), Purpose::HeldOut, 0, 0).uniform() < share
}

/// The pictures to learn from, and those that are held out: about the given share of them.
///
/// # Errors
/// If the share is not between 0 and 1, or one side would be empty.
pub fn hold_out(data: Arc<dyn DataSet>, share: f64) -> Result<(Part, Part), PixelsError> {
    let (held_out, kept): (Vec<usize>, Vec<usize>) =
        (0..data.len()).partition(|&index| is_held_out(data.name(index), share));
    if !(share > 0.0 && share < 1.0) || held_out.is_empty() || kept.is_empty() {
        return Err(PixelsError::data_set(
            format!("{} pictures", data.len()),
            format!(
                "a share of {share} holds none or all of them out; give one between 0 and 1, such as 0.05"
            ),
        ));
    }
    Ok((Part::of(Arc::clone(&data), kept), Part::of(data, held_out)))
}

impl DataSet for Part {
    fn len(&self) -> usize {
        self.indices.len()
    }

    fn classes(&self) -> &[String] {
        self.whole.classes()
    }

    fn label(&self, index: usize) -> usize {
        self.whole.label(self.indices[index])
    }

    fn name(&self, index: usize) -> &str {
        self.whole.name(self.indices[index])
    }

    fn captions(&self, index: usize) -> &[String] {
        self.whole.captions(self.indices[index])
    }

    fn read_as(&self) -> String {
        self.read_as.clone()
    }

    fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }

    fn picture(&self, index: usize) -> Result<Picture, PixelsError> {
        self.whole.picture(self.indices[index])
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test that cannot go on has failed

    use super::*;

    /// Pictures of no content with these names.
    struct Named(Vec<String>, Vec<String>);

    impl DataSet for Named {
        fn len(&self) -> usize {
            self.0.len()
        }
        fn classes(&self) -> &[String] {
            &self.1
        }
        fn label(&self, index: usize) -> usize {
            index % 2
        }
        fn name(&self, index: usize) -> &str {
            &self.0[index]
        }
        fn picture(&self, _: usize) -> Result<Picture, PixelsError> {
            Picture::new(1, 1, vec![0; 3])
        }
    }

    fn named(numbers: impl Iterator<Item = usize>) -> Arc<dyn DataSet> {
        let names = numbers.map(|number| format!("folder/{number}.jpg")).collect();
        Arc::new(Named(names, vec!["a".into(), "b".into()]))
    }

    fn names(part: &Part) -> Vec<String> {
        (0..part.len()).map(|index| part.name(index).to_owned()).collect()
    }

    #[test]
    fn should_hold_out_about_the_share_and_each_picture_on_one_side() {
        let (kept, held_out) = hold_out(named(0..2000), 0.05).unwrap();
        assert!((60..140).contains(&held_out.len()), "{}", held_out.len());
        let mut all = [names(&kept), names(&held_out)].concat();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 2000);
        let at =
            |name: &str| name["folder/".len()..].strip_suffix(".jpg").unwrap().parse::<usize>();
        for (index, name) in names(&held_out).iter().enumerate() {
            assert_eq!(held_out.label(index), at(name).unwrap() % 2);
        }
    }

    #[test]
    fn should_move_no_picture_when_others_come_or_the_order_changes() {
        let (_, few) = hold_out(named(0..500), 0.1).unwrap();
        let (_, more) = hold_out(named((0..1000).rev()), 0.1).unwrap();
        let more = names(&more);
        assert!(names(&few).iter().all(|name| more.contains(name)));
        // A larger share holds out more, and the same ones.
        let (_, larger) = hold_out(named(0..500), 0.3).unwrap();
        let larger = names(&larger);
        assert!(names(&few).iter().all(|name| larger.contains(name)));
    }

    #[test]
    fn should_refuse_shares_that_leave_a_side_empty() {
        for share in [0.0, 1.0, -0.5, 2.0, f64::NAN] {
            assert!(hold_out(named(0..100), share).is_err(), "{share}");
        }
        assert!(hold_out(named(0..1), 0.5).is_err());
    }
}
