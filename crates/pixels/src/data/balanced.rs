//! As many pictures of each class.

use tokens::noise::{Noise, Purpose};

use crate::{DataSet, Picture, PixelsError};

/// The same number of pictures of each class of a data set, chosen at random by a seed, going
/// round the classes: picture i has class i mod C.
pub struct Balanced {
    data: Box<dyn DataSet>,
    chosen: Vec<usize>,
}

impl Balanced {
    /// Chooses `per_class` pictures of each class. The same seed chooses the same ones.
    ///
    /// # Errors
    /// [`PixelsError::DataSet`] if a class, called by its name, has fewer.
    pub fn choose(
        source: &str,
        data: Box<dyn DataSet>,
        per_class: usize,
        seed: u64,
    ) -> Result<Self, PixelsError> {
        let mut members = vec![Vec::new(); data.classes().len()];
        for index in 0..data.len() {
            members[data.label(index)].push(index);
        }
        let mut rows = Vec::with_capacity(members.len());
        for (class, members) in members.iter().enumerate() {
            if members.len() < per_class {
                let reason = format!(
                    "the class `{}` has {} pictures, {per_class} were asked for",
                    data.classes()[class],
                    members.len()
                );
                return Err(PixelsError::data_set(source, reason));
            }
            let mut noise = Noise::new(seed, Purpose::Selection, 0, class as u64);
            let order = noise.permutation(members.len());
            rows.push(order[..per_class].iter().map(|&at| members[at]).collect::<Vec<_>>());
        }
        let chosen = (0..per_class).flat_map(|at| rows.iter().map(move |row| row[at])).collect();
        Ok(Self { data, chosen })
    }
}

impl DataSet for Balanced {
    fn len(&self) -> usize {
        self.chosen.len()
    }

    fn classes(&self) -> &[String] {
        self.data.classes()
    }

    fn label(&self, index: usize) -> usize {
        self.data.label(self.chosen[index])
    }

    fn name(&self, index: usize) -> &str {
        self.data.name(self.chosen[index])
    }

    fn captions(&self, index: usize) -> &[String] {
        self.data.captions(self.chosen[index])
    }

    fn read_as(&self) -> String {
        format!(
            "{}, {} of each class",
            self.data.read_as(),
            self.chosen.len() / self.classes().len().max(1)
        )
    }

    fn left_out(&self) -> &[super::LeftOut] {
        self.data.left_out()
    }

    fn picture(&self, index: usize) -> Result<Picture, PixelsError> {
        self.data.picture(self.chosen[index])
    }
}
