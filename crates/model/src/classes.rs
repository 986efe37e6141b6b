//! Names of the classes that a generator knows.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    ops::Deref,
};

use serde::{Deserialize, Serialize};
use unicode_normalization::{UnicodeNormalization, is_nfc};

/// Names of classes; a class's label is its place in the list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClassNames {
    names: Vec<String>,
}

/// A class that the model does not know, or a name that fits several.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnknownClass {
    /// No class has this name.
    #[error(
        "no class is called `{name}`{} a name or a number from 0 to {}",
        suggest(suggestions, few),
        classes.saturating_sub(1)
    )]
    Name {
        /// What was asked for.
        name: String,
        /// Names that are like it, the nearest first.
        suggestions: Vec<String>,
        /// All names with their numbers, where they are few.
        few: Vec<(usize, String)>,
        /// Number of classes.
        classes: usize,
    },
    /// Several classes fit the name.
    #[error(
        "`{name}` fits several classes: {}; give one of them as it stands here, or its number",
        list(fitting)
    )]
    Ambiguous {
        /// What was asked for.
        name: String,
        /// Labels and names of the classes that fit.
        fitting: Vec<(usize, String)>,
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

/// Most classes that an error lists.
const LISTED: usize = 20;

/// The class that a person named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// Its label.
    pub label: usize,
    /// What the person should know about how the name was understood.
    pub note: Option<String>,
}

fn list(classes: &[(usize, String)]) -> String {
    let shown: Vec<String> =
        classes.iter().take(LISTED).map(|(label, name)| format!("`{name}` ({label})")).collect();
    match classes.len() - shown.len() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

fn suggest(suggestions: &[String], few: &[(usize, String)]) -> String {
    let near = suggestions.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" or ");
    match (suggestions.is_empty(), few.is_empty()) {
        (false, _) => format!(", did you mean {near}? Give"),
        (true, false) => format!("; the classes are {}; give", list(few)),
        (true, true) => "; the model's classes.json lists them; give".to_owned(),
    }
}

/// The name in Unicode's composed form (NFC), in which names that look alike are the same bytes: file
/// systems and keyboards differ in how they write an `é`.
pub fn composed(name: &str) -> Cow<'_, str> {
    if is_nfc(name) { Cow::Borrowed(name) } else { Cow::Owned(name.nfc().collect()) }
}

/// What names have in common that a person takes for the same: case, and blanks for underscores and
/// hyphens.
fn folded(name: &str) -> String {
    // Over capitals, so that an ß is two s.
    let name = composed(name).to_uppercase().to_lowercase();
    let words = name.split(|letter: char| letter.is_whitespace() || matches!(letter, '_' | '-'));
    words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
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

    /// The label of a class; see [`resolve_noted`](Self::resolve_noted).
    ///
    /// # Errors
    /// As there.
    pub fn resolve(&self, name: &str) -> Result<usize, UnknownClass> {
        self.resolve_noted(name).map(|resolved| resolved.label)
    }

    /// The class that a person names. The first of these that fits counts:
    ///
    /// 1. the name as it is, case included, but for how its letters are composed in Unicode;
    /// 2. a number;
    /// 3. the name in any case, with `_` or `-` for blanks;
    /// 4. one of several names between commas, as in `cougar, puma`;
    /// 5. a WordNet identifier, or an ImageNet title for one;
    /// 6. the first words of the name.
    ///
    /// # Errors
    /// If no class fits, or several do equally well.
    pub fn resolve_noted(&self, name: &str) -> Result<Resolved, UnknownClass> {
        let classes = self.names.len();
        let of = |fits: &dyn Fn(&str) -> bool| -> Vec<usize> {
            (0..classes).filter(|&label| fits(&self.names[label])).collect()
        };
        let one = |fitting: Vec<usize>| match fitting[..] {
            [] => Ok(None),
            [label] => Ok(Some(label)),
            _ => Err(UnknownClass::Ambiguous {
                name: name.to_owned(),
                fitting: fitting.iter().map(|&at| (at, self.names[at].clone())).collect(),
            }),
        };
        let number = name.trim().parse::<usize>().ok();
        for exact in [name, name.trim()] {
            let exact = composed(exact);
            if let Some(label) = one(of(&|known| composed(known) == exact))? {
                let other = number.filter(|&number| number != label && number < classes);
                let note = other.map(|number| {
                    format!(
                        "`{exact}` is taken for the name of class {label}, not for class {number}, \
                         `{}`",
                        self.names[number]
                    )
                });
                return Ok(Resolved { label, note });
            }
        }
        match number {
            Some(label) if label < classes => return Ok(Resolved { label, note: None }),
            Some(label) => return Err(UnknownClass::Label { label, classes }),
            None => {}
        }
        let wanted = folded(name);
        let found = |label: usize| {
            let note =
                Some(format!("`{name}` is taken for class {label}, `{}`", self.names[label]));
            Ok(Resolved { label, note })
        };
        if !wanted.is_empty() {
            if let Some(label) = one(of(&|known| folded(known) == wanted))? {
                return Ok(Resolved { label, note: None });
            }
            let among = |known: &str| {
                known.contains(',') && known.split(',').any(|part| folded(part) == wanted)
            };
            if let Some(label) = one(of(&among))? {
                return found(label);
            }
            let canonical = canonical(name);
            if let Some(label) = one(of(&|known| self::canonical(known) == canonical))? {
                return found(label);
            }
            let begins = |known: &str| {
                folded(known)
                    .strip_prefix(&wanted)
                    .is_some_and(|rest| !rest.starts_with(char::is_alphanumeric))
            };
            if let Some(label) = one(of(&begins))? {
                return found(label);
            }
        }
        let few = match classes <= LISTED {
            true => self.names.iter().cloned().enumerate().collect(),
            false => Vec::new(),
        };
        let suggestions = self.near(&wanted);
        Err(UnknownClass::Name { name: name.to_owned(), suggestions, few, classes })
    }

    /// The names that hold the wanted one as whole words, or are spelled much like it, the nearest first.
    fn near(&self, wanted: &str) -> Vec<String> {
        const MOST: usize = 3;
        if wanted.is_empty() {
            return Vec::new();
        }
        // A slip of the finger in a short word, a few in a long one.
        let allowed = 1 + wanted.chars().count() / 5;
        let distance = |name: &str| {
            let lower = folded(name);
            let words = format!(" {lower} ").contains(&format!(" {wanted} "));
            let spelled = strsim::damerau_levenshtein(wanted, &lower);
            match words {
                true => Some((0, lower.len())),
                false => (spelled <= allowed).then_some((spelled, 0)),
            }
        };
        let mut near: Vec<_> =
            self.names.iter().filter_map(|name| Some((distance(name)?, name))).collect();
        near.sort();
        near.dedup();
        // Names that hold the word and names that are nearly it are different answers.
        let only_words = near.first().is_some_and(|((edits, _), _)| *edits == 0);
        let near = near.into_iter().filter(|((edits, _), _)| !only_words || *edits == 0);
        near.take(MOST).map(|(_, name)| name.clone()).collect()
    }

    /// The first name that two classes have, and their labels. A model with such classes cannot be
    /// asked for either of them by name.
    pub fn duplicate(&self) -> Option<(&str, [usize; 2])> {
        let mut seen = BTreeMap::new();
        self.names.iter().enumerate().find_map(|(label, name)| {
            let first = seen.insert(composed(name), label)?;
            Some((name.as_str(), [first, label]))
        })
    }

    /// The label of the class of the same name, for each of other names: those of a data set, or of
    /// another model. A WordNet identifier and its ImageNet title are the same name. Where the names
    /// are nothing but the numbers of all classes, each is the class of its number.
    pub fn matching(&self, names: &[String]) -> Vec<Option<usize>> {
        let mut labels: BTreeMap<String, usize> = BTreeMap::new();
        for (label, name) in self.names.iter().enumerate() {
            labels.entry(canonical(name)).or_insert(label);
        }
        let matched: Vec<_> =
            names.iter().map(|name| labels.get(&canonical(name)).copied()).collect();
        if matched.iter().any(Option::is_some) {
            return matched;
        }
        let numbers: Vec<Option<usize>> = names
            .iter()
            .map(|name| name.parse().ok().filter(|&label| label < self.len()))
            .collect();
        let all: BTreeSet<usize> = numbers.iter().flatten().copied().collect();
        if all.len() == self.len() && names.len() == self.len() { numbers } else { matched }
    }
}

/// The name under which classes are matched.
fn canonical(name: &str) -> String {
    let name = composed(name.trim());
    tokens::imagenet::title(&name).map_or_else(|| name.into_owned(), str::to_owned)
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

    fn names(names: &[&str]) -> ClassNames {
        ClassNames::new(names.iter().map(|&name| name.to_owned()).collect())
    }

    #[test]
    fn should_find_classes_by_name_in_any_case_and_by_number() {
        let names = ClassNames::imagenet();
        assert_eq!(names.len(), 1000);
        assert_eq!(names.resolve("Golden Retriever"), Ok(207));
        assert_eq!(names.resolve("golden_retriever"), Ok(207));
        assert_eq!(names.resolve(" 207 "), Ok(207));
        assert_eq!(names.resolve("n02099601"), Ok(207));
        assert_eq!((names[0].as_str(), names[999].as_str()), ("tench", "toilet tissue"));
    }

    #[test]
    fn should_take_the_exact_name_before_one_in_another_case() {
        let imagenet = ClassNames::imagenet();
        let (dog, jacket) = (imagenet.resolve("Cardigan"), imagenet.resolve("cardigan"));
        assert_ne!(dog, jacket);
        assert_eq!(
            (&imagenet[dog.unwrap()][..], &imagenet[jacket.unwrap()][..]),
            ("Cardigan", "cardigan")
        );
        let error = imagenet.resolve("CARDIGAN").unwrap_err();
        let UnknownClass::Ambiguous { fitting, .. } = &error else { panic!("{error}") };
        assert_eq!(fitting.len(), 2);
        assert!(error.to_string().contains("`Cardigan` (264), `cardigan` (474)"), "{error}");
        // Every class is found by its own name and number.
        for (label, name) in imagenet.iter().enumerate() {
            assert_eq!(imagenet.resolve(name), Ok(label));
            assert_eq!(imagenet.resolve(&label.to_string()), Ok(label));
        }
    }

    #[test]
    fn should_not_see_how_letters_are_composed() {
        let composed = "caf\u{e9}";
        let apart = "cafe\u{301}";
        assert_eq!(names(&["tea", composed]).resolve(apart), Ok(1));
        assert_eq!(names(&["tea", apart]).resolve(composed), Ok(1));
        assert_eq!(names(&[composed, apart]).duplicate(), Some((apart, [0, 1])));
        assert_eq!(names(&["Cardigan", "cardigan"]).duplicate(), None);
        assert_eq!(names(&["stra\u{df}e"]).resolve("STRASSE"), Ok(0));
        assert!(matches!(
            names(&[composed, apart]).resolve(composed),
            Err(UnknownClass::Ambiguous { .. })
        ));
    }

    #[test]
    fn should_find_one_of_several_names_and_first_words_only_if_no_other_fits() {
        let cats = names(&["cougar, puma", "sports car", "Food & Drink", "food stall", "hatchet"]);
        assert_eq!(cats.resolve("puma"), Ok(0));
        assert_eq!(cats.resolve("Sports"), Ok(1));
        assert!(matches!(cats.resolve("food"), Err(UnknownClass::Ambiguous { .. })));
        assert!(matches!(cats.resolve("hat"), Err(UnknownClass::Name { .. })));
        let noted = cats.resolve_noted("puma").unwrap();
        assert_eq!(noted.note.unwrap(), "`puma` is taken for class 0, `cougar, puma`");
        assert_eq!(cats.resolve_noted("SPORTS CAR").unwrap().note, None);
    }

    #[test]
    fn should_suggest_only_what_is_near_and_list_classes_where_they_are_few() {
        let imagenet = ClassNames::imagenet();
        let suggestions = |names: &ClassNames, name: &str| match names.resolve(name) {
            Err(UnknownClass::Name { suggestions, .. }) => suggestions,
            other => panic!("{other:?}"),
        };
        assert_eq!(suggestions(&imagenet, "goldn retreiver")[0], "golden retriever");
        assert_eq!(suggestions(&imagenet, "volcanoe"), ["volcano"]);
        assert!(suggestions(&imagenet, "retriever").contains(&"golden retriever".to_owned()));
        assert_eq!(suggestions(&imagenet, "xylophones of doom"), [""; 0]);
        let label = imagenet.resolve("1000").unwrap_err();
        assert_eq!(label, UnknownClass::Label { label: 1000, classes: 1000 });
        let few = names(&["Activities", "Flags"]);
        assert_eq!(suggestions(&few, "hat"), [""; 0]);
        assert_eq!(
            few.resolve("hat").unwrap_err().to_string(),
            "no class is called `hat`; the classes are `Activities` (0), `Flags` (1); give a name \
             or a number from 0 to 1"
        );
        assert!(few.resolve("flgas").unwrap_err().to_string().contains("did you mean `Flags`?"));
        assert!(few.resolve("").is_err() && few.resolve(" ").is_err());
    }

    #[test]
    fn should_prefer_a_name_that_looks_like_a_number_and_say_so() {
        let names = names(&["one", "0"]);
        assert_eq!((names.resolve("0"), names.resolve("1")), (Ok(1), Ok(1)));
        let note = names.resolve_noted("0").unwrap().note.unwrap();
        assert_eq!(note, "`0` is taken for the name of class 1, not for class 0, `one`");
        assert_eq!(names.resolve_noted("1").unwrap().note, None);
    }

    #[test]
    fn should_match_classes_by_name_and_not_by_place() {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let model = names(&["cat", "dog", "caf\u{e9}"]);
        let other = owned(&["cafe\u{301}", "bird", "cat"]);
        assert_eq!(model.matching(&other), [Some(2), None, Some(0)]);
        assert_eq!(model.matching(&owned(&["0", "1"])), [None, None]);
        // Numbers of all classes, sorted as text.
        let imagenet = ClassNames::imagenet();
        let mut numbers: Vec<String> = (0..1000).map(|label| label.to_string()).collect();
        numbers.sort();
        let matched = imagenet.matching(&numbers);
        assert!(numbers.iter().zip(matched).all(|(name, label)| name.parse().ok() == label));
        assert_eq!(imagenet.matching(&owned(&["n02099601", "tench"])), [Some(207), Some(0)]);
    }

    #[test]
    fn should_name_other_counts_by_number() {
        assert_eq!(ClassNames::of_count(2).to_vec(), ["class 0", "class 1"]);
    }
}
