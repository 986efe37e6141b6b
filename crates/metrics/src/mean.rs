//! The mean of a metric over many pictures.

/// A running mean.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Mean {
    sum: f64,
    count: usize,
}

impl Mean {
    /// Takes in the value of one picture.
    pub fn add(&mut self, value: f64) {
        self.sum += value;
        self.count += 1;
    }

    /// How many values were taken in.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The mean; nothing before the first value, and infinite once a value was.
    pub fn value(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }
}

impl Extend<f64> for Mean {
    fn extend<I: IntoIterator<Item = f64>>(&mut self, values: I) {
        values.into_iter().for_each(|value| self.add(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_be_the_mean_of_what_it_took_in() {
        let mut mean = Mean::default();
        assert_eq!(mean.value(), None);
        mean.extend([1.0, 2.0, 6.0]);
        assert_eq!((mean.value(), mean.count()), (Some(3.0), 3));
        mean.add(f64::INFINITY);
        assert_eq!(mean.value(), Some(f64::INFINITY));
    }
}
