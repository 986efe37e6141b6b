//! The classes of ImageNet-1k (ILSVRC 2012): data sets name them by WordNet identifiers, people by
//! titles, models by labels.

/// Identifier, a blank and title, a line each, in the order of the labels; `#` begins a remark.
const CLASSES: &str = include_str!("../assets/imagenet_classes.txt");

/// Identifier (such as `n01440764`) and title (`tench`) of the 1000 classes, in the order of their
/// labels, which is that of the identifiers.
pub fn classes() -> impl Iterator<Item = (&'static str, &'static str)> {
    CLASSES.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(' '))
}

/// The titles, in the order of the labels.
pub fn titles() -> Vec<String> {
    classes().map(|(_, title)| title.to_owned()).collect()
}

/// The label of a WordNet identifier, if it is one of the 1000.
pub fn label(identifier: &str) -> Option<usize> {
    classes().position(|(known, _)| known == identifier)
}

/// The title of a WordNet identifier, if it is one of the 1000.
pub fn title(identifier: &str) -> Option<&'static str> {
    classes().find(|(known, _)| *known == identifier).map(|(_, title)| title)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_know_the_thousand_classes_in_order() {
        let all: Vec<_> = classes().collect();
        assert_eq!(all.len(), 1000);
        assert!(all.is_sorted_by_key(|(identifier, _)| identifier));
        for (label_expected, identifier, expected) in [
            (0, "n01440764", "tench"),
            (207, "n02099601", "golden retriever"),
            (980, "n09472597", "volcano"),
            (999, "n15075141", "toilet tissue"),
        ] {
            assert_eq!(label(identifier), Some(label_expected));
            assert_eq!(title(identifier), Some(expected));
        }
        assert_eq!((label("n00000000"), title("tench")), (None, None));
        let mut titles = titles();
        titles.sort_unstable();
        titles.dedup();
        assert_eq!(titles.len(), 1000, "no two classes have the same title");
    }
}
