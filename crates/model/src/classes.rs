//! Names of the classes that a generator knows.

use std::ops::Deref;

use serde::{Deserialize, Serialize};

/// Names of classes; a class's label is its place in the list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClassNames {
    names: Vec<String>,
}

/// A class that the model does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnknownClass {
    /// No class has this name.
    #[error(
        "no class is called `{name}`{}; give a name or a number from 0 to {}",
        suggestion.as_ref().map_or(String::new(), |nearest| format!(", did you mean `{nearest}`?")),
        classes.saturating_sub(1)
    )]
    Name {
        /// What was asked for.
        name: String,
        /// The name that is most like it.
        suggestion: Option<String>,
        /// Number of classes.
        classes: usize,
    },
    /// The number is too large.
    #[error("there is no class {label}: the model knows {classes}, numbered from 0")]
    Label {
        /// What was asked for.
        label: usize,
        /// Number of classes.
        classes: usize,
    },
}

impl ClassNames {
    /// Classes of these names.
    pub fn new(names: Vec<String>) -> Self {
        Self { names }
    }

    /// The 1000 classes of ImageNet-1k (ILSVRC 2012) in their usual order, under the titles of
    /// torchvision ([`tokens::imagenet`]).
    pub fn imagenet() -> Self {
        Self::new(tokens::imagenet::titles())
    }

    /// `count` classes without names: "class 0", "class 1", …; those of ImageNet if there are 1000.
    pub fn of_count(count: usize) -> Self {
        match count {
            1000 => Self::imagenet(),
            _ => Self::new((0..count).map(|label| format!("class {label}")).collect()),
        }
    }

    /// The label of a class, given by its name in any case, or by its number.
    ///
    /// # Errors
    /// If there is no such class; the error suggests the nearest name.
    pub fn resolve(&self, name: &str) -> Result<usize, UnknownClass> {
        let classes = self.names.len();
        let wanted = name.trim().to_lowercase();
        if let Some(label) = self.names.iter().position(|name| name.to_lowercase() == wanted) {
            return Ok(label);
        }
        match wanted.parse::<usize>() {
            Ok(label) if label < classes => Ok(label),
            Ok(label) => Err(UnknownClass::Label { label, classes }),
            Err(_) => Err(UnknownClass::Name {
                name: name.to_owned(),
                suggestion: self.nearest(&wanted).map(str::to_owned),
                classes,
            }),
        }
    }

    /// The shortest name that contains the wanted one, or else the one with the fewest edits.
    fn nearest(&self, wanted: &str) -> Option<&str> {
        let names = || self.names.iter().map(|name| (name.as_str(), name.to_lowercase()));
        let containing = names()
            .filter(|(_, lower)| !wanted.is_empty() && lower.contains(wanted))
            .min_by_key(|(name, _)| name.len());
        let similarity = |name: &str| strsim::normalized_damerau_levenshtein(wanted, name);
        containing
            .or_else(|| names().max_by(|a, b| similarity(&a.1).total_cmp(&similarity(&b.1))))
            .map(|(name, _)| name)
    }
}

impl Deref for ClassNames {
    type Target = [String];

    fn deref(&self) -> &[String] {
        &self.names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_find_classes_by_name_in_any_case_and_by_number() {
        let names = ClassNames::imagenet();
        assert_eq!(names.len(), 1000);
        assert_eq!(names.resolve("Golden Retriever"), Ok(207));
        assert_eq!(names.resolve(" 207 "), Ok(207));
        assert_eq!((names[0].as_str(), names[999].as_str()), ("tench", "toilet tissue"));
    }

    #[test]
    fn should_suggest_the_nearest_name() {
        let names = ClassNames::imagenet();
        let suggestion = |name: &str| match names.resolve(name) {
            Err(UnknownClass::Name { suggestion, .. }) => suggestion.unwrap(),
            other => panic!("{other:?}"),
        };
        assert_eq!(suggestion("goldn retreiver"), "golden retriever");
        assert_eq!(suggestion("volcanoe"), "volcano");
        assert_eq!(suggestion("retriever"), "golden retriever");
        let label = names.resolve("1000").unwrap_err();
        assert_eq!(label, UnknownClass::Label { label: 1000, classes: 1000 });
    }

    #[test]
    fn should_prefer_a_name_that_looks_like_a_number() {
        let names = ClassNames::new(vec!["one".into(), "0".into()]);
        assert_eq!(names.resolve("0"), Ok(1));
        assert_eq!(names.resolve("1"), Ok(1));
    }

    #[test]
    fn should_name_other_counts_by_number() {
        assert_eq!(ClassNames::of_count(2).to_vec(), ["class 0", "class 1"]);
    }
}
