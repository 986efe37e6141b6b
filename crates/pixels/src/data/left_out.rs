//! What a source of pictures holds that is no sample, counted and named by reason.

use std::borrow::Cow;

/// Names that are kept of each reason; more are counted.
const MOST_NAMED: usize = 20;

/// What a source holds that is no sample, for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Why, for example `no picture`.
    pub reason: Cow<'static, str>,
    /// Whether it was meant to be a sample, which is lost, and not litter or a file of another kind.
    pub is_sample: bool,
    /// How many there are.
    pub count: usize,
    /// Names of the first 20 of them.
    pub names: Vec<String>,
}

/// What is left out while a source is listed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger {
    groups: Vec<LeftOut>,
    /// What belongs to the source without being a sample: its label file.
    ignored: Option<String>,
    /// Text files beside pictures of the same name, which hold their captions.
    texts: Vec<String>,
}

impl Ledger {
    /// One in which nothing of this name is noted.
    pub(crate) fn ignoring(name: String) -> Self {
        Self { ignored: Some(name), ..Self::default() }
    }

    /// One in which this is noted already.
    pub(crate) fn of(groups: &[LeftOut]) -> Self {
        Self { groups: groups.to_vec(), ..Self::default() }
    }

    /// Notes text files beside pictures of the same name.
    pub(crate) fn add_texts(&mut self, texts: impl IntoIterator<Item = String>) {
        self.texts.extend(texts);
    }

    /// The text files beside pictures that were met since this was asked last.
    pub(crate) fn take_texts(&mut self) -> Vec<String> {
        std::mem::take(&mut self.texts)
    }

    /// Notes a sample that is lost.
    pub(crate) fn lose(&mut self, name: &str, reason: impl Into<Cow<'static, str>>) {
        self.add(name, reason.into(), true);
    }

    /// Notes what was never a sample.
    pub(crate) fn pass_over(&mut self, name: &str, reason: impl Into<Cow<'static, str>>) {
        self.add(name, reason.into(), false);
    }

    fn add(&mut self, name: &str, reason: Cow<'static, str>, is_sample: bool) {
        if self.ignored.as_deref() == Some(name) {
            return;
        }
        let of_reason =
            |group: &&mut LeftOut| group.reason == reason && group.is_sample == is_sample;
        match self.groups.iter_mut().find(of_reason) {
            Some(group) => {
                group.count += 1;
                if group.names.len() < MOST_NAMED {
                    group.names.push(name.to_owned());
                }
            }
            None => {
                let names = vec![name.to_owned()];
                self.groups.push(LeftOut { reason, is_sample, count: 1, names });
            }
        }
    }

    /// Adds what was noted elsewhere, behind what is here.
    pub(crate) fn append(&mut self, other: Self) {
        self.texts.extend(other.texts);
        for group in other.groups {
            let of_reason = |known: &&mut LeftOut| {
                known.reason == group.reason && known.is_sample == group.is_sample
            };
            match self.groups.iter_mut().find(of_reason) {
                Some(known) => {
                    known.count += group.count;
                    let room = MOST_NAMED - known.names.len();
                    known.names.extend(group.names.into_iter().take(room));
                }
                None => self.groups.push(group),
            }
        }
    }

    /// Everything, lost samples first.
    pub(crate) fn finish(mut self) -> Vec<LeftOut> {
        self.groups
            .sort_by(|a, b| b.is_sample.cmp(&a.is_sample).then_with(|| a.reason.cmp(&b.reason)));
        self.groups
    }

    /// What is lost in one sentence, for an error where nothing is left.
    pub(crate) fn losses(&self) -> String {
        losses(&self.groups)
    }
}

/// The lost samples in one sentence; empty if there are none.
pub(crate) fn losses(groups: &[LeftOut]) -> String {
    let groups = groups.iter().filter(|group| group.is_sample);
    let told: Vec<String> = groups
        .map(|LeftOut { reason, count, names, .. }| {
            let shown = names.iter().take(3).map(String::as_str).collect::<Vec<_>>().join(", ");
            match count - names.len().min(3) {
                0 => format!("{shown}: {reason}"),
                more => format!("{shown} and {more} more: {reason}"),
            }
        })
        .collect();
    told.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_count_all_and_name_the_first_twenty_of_a_reason() {
        let (mut first, mut second) = (Ledger::default(), Ledger::default());
        for number in 0..15 {
            first.lose(&format!("a{number}"), "no picture");
            second.lose(&format!("b{number}"), "no picture");
        }
        second.pass_over("notes.txt", "another kind of file");
        second.lose("c", "no class");
        first.append(second);
        let told = "c: no class; a0, a1, a2 and 27 more: no picture";
        let groups = first.finish();
        assert_eq!(losses(&groups), told);
        assert_eq!(groups.iter().map(|group| group.count).collect::<Vec<_>>(), [1, 30, 1]);
        assert_eq!((groups[1].names.len(), groups[1].names[19].as_str()), (20, "b4"));
        assert!(!groups[2].is_sample);
    }
}
