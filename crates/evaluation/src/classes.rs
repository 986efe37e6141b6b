//! Classes of data under a model's numbers.

use model::ClassNames;

use crate::{EvaluationError, Observer};

/// The model's label for each class of the data: that of the class of the same name. Data of which no
/// class has a name that the model knows are taken by number, which is told, if there are as many.
///
/// # Errors
/// If the model does not know a class of the data.
pub(crate) fn labels_of(
    known: &ClassNames,
    classes: &[String],
    observer: &mut dyn Observer,
) -> Result<Vec<usize>, EvaluationError> {
    const SHOWN: usize = 3;
    let matching = known.matching(classes);
    if let Some(labels) = matching.iter().copied().collect::<Option<Vec<usize>>>() {
        if labels.iter().enumerate().any(|(here, &there)| here != there) {
            observer.note(&format!(
                "the classes of the data are matched with the model's {} by name",
                known.len()
            ));
        }
        return Ok(labels);
    }
    if matching.iter().all(Option::is_none) && classes.len() == known.len() {
        observer.note(
            "no class of the data is called as one of the model's: they are matched by number",
        );
        return Ok((0..classes.len()).collect());
    }
    let missing: Vec<&str> = classes
        .iter()
        .zip(&matching)
        .filter(|(_, label)| label.is_none())
        .map(|(name, _)| name.as_str())
        .collect();
    let shown = missing.iter().take(SHOWN).map(|name| format!("`{name}`")).collect::<Vec<_>>();
    let more = match missing.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Err(EvaluationError::Impossible(format!(
        "{} of {} classes of the data are not the model's: {}{more}; give data of its classes \
         (`alitok inspect MODEL` lists them), or, where the command has it, --unconditional",
        missing.len(),
        classes.len(),
        shown.join(", ")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Notes(Vec<String>);

    impl Observer for Notes {
        fn progress(&mut self, _: &'static str, _: u64, _: u64) {}
        fn departure(&mut self, _: &str) {}
        fn note(&mut self, text: &str) {
            self.0.push(text.to_owned());
        }
    }

    #[test]
    fn should_match_by_name_and_by_number_only_where_no_name_fits() {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let known = ClassNames::new(owned(&["cat", "dog", "owl"]));
        let labels = |names: &[&str]| {
            let mut notes = Notes::default();
            (labels_of(&known, &owned(names), &mut notes), notes.0.len())
        };
        let (found, notes) = labels(&["cat", "dog", "owl"]);
        assert_eq!((found.unwrap(), notes), (vec![0, 1, 2], 0));
        let (found, notes) = labels(&["owl", "cat"]);
        assert_eq!((found.unwrap(), notes), (vec![2, 0], 1));
        let (found, notes) = labels(&["a", "b", "c"]);
        assert_eq!((found.unwrap(), notes), (vec![0, 1, 2], 1));
        let error = labels(&["owl", "elk"]).0.unwrap_err().to_string();
        assert!(error.contains("1 of 2") && error.contains("`elk`"), "{error}");
        assert!(labels(&["a", "b"]).0.is_err());
    }
}
