//! What trainers wrap around the names of a model's tensors, and which of several sets of weights a
//! file holds.
//!
//! PyTorch's `DistributedDataParallel` puts `module.` before every name of what it wraps,
//! `torch.compile` `_orig_mod.`, FSDP `_fsdp_wrapped_module.`, activation checkpointing
//! `_checkpoint_wrapped_module.` and Lightning's Fabric `_forward_module.`. Each may wrap the whole
//! model or a part of it, in any order, so they stand anywhere in a name. `model.` and the like are
//! names that a trainer gives to the model; they stand at the beginning.

use std::collections::{BTreeMap, BTreeSet};

/// Which weights to take of a file that holds two sets of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightsChoice {
    /// The moving average of the weights over training (EMA).
    Ema,
    /// The weights as they were trained.
    Raw,
}

impl WeightsChoice {
    /// How the command line calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ema => "ema",
            Self::Raw => "raw",
        }
    }
}

/// Wrappers that stand anywhere in a name.
const INNER: [&str; 5] = [
    "module",
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
    "_forward_module",
];

/// Names that trainers give to the model, or to its weights in a checkpoint, in the order of
/// preference.
pub(crate) const RAW: [&str; 16] = [
    "model_state",
    "model_state_dict",
    "state_dict",
    "model",
    "module",
    "generator",
    "tokenizer",
    "net",
    "network",
    "net_g",
    "params",
    "weights",
    "model_weights",
    "student",
    "_orig_mod",
    "base_model",
];

/// Names of the parts that only a training has, where a trainer keeps them beside the model.
const OF_TRAINING: [&str; 8] = [
    "loss",
    "criterion",
    "discriminator",
    "perceptual_loss",
    "lpips",
    "optimizer",
    "logit_laplace",
    "net_d",
];

/// Whether a trainer calls the moving average of its weights so: `ema`, `model_ema`, `params_ema`, ….
pub(crate) fn is_ema(name: &str) -> bool {
    name.split(['_', '-']).any(|word| matches!(word, "ema" | "averaged" | "shadow"))
}

/// The tensors to take of a state dict.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Selection {
    /// Names in the file, and the names without wrappers.
    pub(crate) names: BTreeMap<String, String>,
    /// What a person should know about the choice.
    pub(crate) notes: Vec<String>,
    /// Which weights these are, where the names say it.
    pub(crate) choice: Option<WeightsChoice>,
}

/// What was chosen between two sets of weights.
pub(crate) fn note_of_choice(took: WeightsChoice, given: bool, raw: &str, ema: &str) -> String {
    let (took, other) = match took {
        WeightsChoice::Raw => ("the weights as trained", WeightsChoice::Ema),
        WeightsChoice::Ema => ("their moving average", WeightsChoice::Raw),
    };
    let other = other.name();
    let advice =
        if given { String::new() } else { format!("; `--weights {other}` takes the other") };
    format!(
        "it holds the weights as trained (`{raw}`) and their moving average (`{ema}`): took \
         {took}{advice}"
    )
}

/// One tensor: its name in the file, and its name without the wrappers that were removed so far.
type Named = (String, String);

/// Removes the wrappers of a state dict's names. `choice` says which weights to take where there are two
/// sets; without one those are taken that were trained.
pub(crate) fn unwrap(names: &BTreeSet<String>, choice: Option<WeightsChoice>) -> Selection {
    unwrap_nested(names, choice, 0)
}

/// Most averages that stand within one another; a hostile file has any number of them.
const MAX_AVERAGES: usize = 3;

fn unwrap_nested(
    names: &BTreeSet<String>,
    choice: Option<WeightsChoice>,
    depth: usize,
) -> Selection {
    let mut selection = Selection::default();
    let mut named: Vec<Named> = names.iter().map(|name| (name.clone(), name.clone())).collect();
    // Each turn removes something, so it ends.
    loop {
        let without = remove_inner(&named);
        if let Some(without) = without {
            named = without;
        }
        let groups = group(&named);
        if let [(first, _)] = &groups[..] {
            let is_ema = is_ema(first);
            if !(is_ema || RAW.contains(first)) {
                break;
            }
            if is_ema {
                selection.choice = Some(WeightsChoice::Ema);
            }
            let first = first.to_string();
            named = strip(&named, &first);
        } else if let Some((raw, ema)) = two_sets(&groups, &named, depth) {
            let took = choice.unwrap_or(WeightsChoice::Raw);
            let label = |set: &Set| set.label.clone().unwrap_or_else(|| "beside it".to_owned());
            selection.notes.push(note_of_choice(
                took,
                choice.is_some(),
                &label(&raw),
                &label(&ema),
            ));
            selection.choice = Some(took);
            named = match took {
                WeightsChoice::Raw => raw.named,
                WeightsChoice::Ema => ema.named,
            };
        } else if let Some((model, left)) = model_among_training(&groups) {
            selection.notes.push(format!("left out what only a training needs: `{left}`"));
            let model = model.to_owned();
            named.retain(|(_, name)| name.split_once('.').is_some_and(|(first, _)| first == model));
        } else {
            break;
        }
    }
    selection.names = named.into_iter().collect();
    selection
}

/// The names without the wrappers that stand anywhere, if there are some and no two names become one.
fn remove_inner(named: &[Named]) -> Option<Vec<Named>> {
    let bare = |name: &str| {
        let Some((path, last)) = name.rsplit_once('.') else { return name.to_owned() };
        let kept = path.split('.').filter(|part| !INNER.contains(part));
        kept.chain([last]).collect::<Vec<_>>().join(".")
    };
    let removed: Vec<Named> = named.iter().map(|(own, name)| (own.clone(), bare(name))).collect();
    let different: BTreeSet<&String> = removed.iter().map(|(_, name)| name).collect();
    (different.len() == named.len() && removed != named).then_some(removed)
}

/// The first parts of the names, and how many have each; a name of one part is a group of its own.
fn group(named: &[Named]) -> Vec<(&str, usize)> {
    let mut groups: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, name) in named {
        *groups.entry(name.split_once('.').map_or("", |(first, _)| first)).or_default() += 1;
    }
    groups.into_iter().collect()
}

fn strip(named: &[Named], first: &str) -> Vec<Named> {
    let rest = |name: &str| name.strip_prefix(first)?.strip_prefix('.').map(str::to_owned);
    named.iter().filter_map(|(own, name)| Some((own.clone(), rest(name)?))).collect()
}

/// One of two sets of weights.
struct Set {
    /// The wrapper that it stands under.
    label: Option<String>,
    named: Vec<Named>,
}

/// The weights as trained and their average, if the names are those of both.
fn two_sets(groups: &[(&str, usize)], named: &[Named], depth: usize) -> Option<(Set, Set)> {
    if depth == MAX_AVERAGES {
        return None;
    }
    let ema = groups.iter().map(|(first, _)| *first).find(|first| is_ema(first))?;
    let averaged = strip(named, ema);
    let model = RAW.iter().find(|first| groups.iter().any(|(group, _)| group == *first));
    let (label, raw) = match model {
        Some(first) => (Some((*first).to_owned()), strip(named, first)),
        None => {
            let others = named
                .iter()
                .filter(|(_, name)| name.split_once('.').is_none_or(|(first, _)| first != ema));
            (None, others.cloned().collect())
        }
    };
    let bare = |named: &[Named]| -> BTreeSet<String> {
        let names = named.iter().map(|(_, name)| name.clone()).collect();
        unwrap_nested(&names, None, depth + 1).names.into_values().collect()
    };
    let (of_raw, of_averaged) = (bare(&raw), bare(&averaged));
    // An average leaves out buffers, or has a count of its own beside; it has most of the names.
    let shared = of_raw.intersection(&of_averaged).count();
    if 2 * shared > of_raw.len() {
        let averaged = Set { label: Some(ema.to_owned()), named: averaged };
        return Some((Set { label, named: raw }, averaged));
    }
    // `LitEma` of CompVis leaves the dots out of the names.
    let by_dotless: BTreeMap<String, &String> =
        raw.iter().map(|(_, name)| (name.replace('.', ""), name)).collect();
    let renamed: Vec<Named> = averaged
        .iter()
        .filter_map(|(own, name)| Some((own.clone(), (*by_dotless.get(name)?).clone())))
        .collect();
    (2 * renamed.len() > raw.len())
        .then(|| (Set { label, named: raw }, Set { label: Some(ema.to_owned()), named: renamed }))
}

/// The name of the model, and those of the rest, where everything else belongs to a training.
fn model_among_training<'a>(groups: &[(&'a str, usize)]) -> Option<(&'a str, String)> {
    let model = RAW.iter().find_map(|name| groups.iter().find(|(first, _)| first == name))?.0;
    let others: Vec<&str> =
        groups.iter().map(|(first, _)| *first).filter(|first| *first != model).collect();
    let all = others.iter().all(|first| OF_TRAINING.contains(first));
    (all && !others.is_empty()).then(|| (model, others.join("`, `")))
}

#[cfg(test)]
mod tests {
    use tokens::noise::{Noise, Purpose};

    use super::*;

    const NAMES: [&str; 5] =
        ["encoder.blocks.0.weight", "encoder.blocks.0.bias", "decoder.w", "latents", "module_x.y"];

    fn set<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
        names.into_iter().map(str::to_owned).collect()
    }

    fn bare(names: &BTreeSet<String>, choice: Option<WeightsChoice>) -> BTreeSet<String> {
        unwrap(names, choice).names.into_values().collect()
    }

    /// Names in which wrappers stand at random: any number of each in front of all of them, and within
    /// those of one part.
    fn wrap(noise: &mut Noise, names: &[&str]) -> BTreeSet<String> {
        let inner: Vec<String> =
            (0..noise.below(3)).map(|_| INNER[noise.below(5)].into()).collect();
        let mut outer: Vec<String> =
            (0..noise.below(4)).map(|_| INNER[noise.below(5)].into()).collect();
        for _ in 0..noise.below(3) {
            outer.insert(noise.below(outer.len() + 1), RAW[noise.below(RAW.len())].to_owned());
        }
        let wrapped = names.iter().map(|name| {
            let name =
                name.replacen("blocks", &[&inner[..], &["blocks".into()]].concat().join("."), 1);
            [&outer[..], &[name]].concat().join(".")
        });
        wrapped.collect()
    }

    #[test]
    fn should_give_the_same_names_under_any_nesting() {
        let plain = set(NAMES);
        assert_eq!(bare(&plain, None), plain);
        for sample in 0..2000 {
            let wrapped = wrap(&mut Noise::new(1, Purpose::Sampling, 0, sample), &NAMES);
            assert_eq!(bare(&wrapped, None), plain, "{wrapped:?}");
        }
    }

    #[test]
    fn should_take_either_of_two_sets_under_any_nesting() {
        for sample in 0..1000 {
            let mut noise = Noise::new(2, Purpose::Sampling, 0, sample);
            let raw = wrap(&mut noise, &NAMES);
            let ema = wrap(&mut noise, &NAMES);
            let name = ["ema", "model_ema", "ema_model", "params_ema"][noise.below(4)];
            let both: BTreeSet<String> = match noise.below(2) {
                0 => raw.iter().map(|name| format!("model.{name}")).collect(),
                _ => raw.clone(),
            };
            let averaged = ema.iter().map(|tensor| format!("{name}.{tensor}"));
            let both: BTreeSet<String> = both.into_iter().chain(averaged).collect();
            for (choice, is_average) in
                [(None, false), (Some(WeightsChoice::Raw), false), (Some(WeightsChoice::Ema), true)]
            {
                let selection = unwrap(&both, choice);
                assert_eq!(selection.notes.len(), 1, "{both:?}");
                let all = selection.names.keys().all(|own| own.starts_with(name) == is_average);
                assert!(all, "{:?}", selection.names);
                let names: BTreeSet<String> = selection.names.into_values().collect();
                assert_eq!(names, set(NAMES), "{both:?}");
            }
        }
    }

    #[test]
    fn should_know_an_average_alone_one_without_dots_and_parts_of_a_training() {
        let alone = set(["ema.w", "ema.b"]);
        let selection = unwrap(&alone, None);
        assert_eq!(selection.choice, Some(WeightsChoice::Ema));
        assert_eq!(selection.names.into_values().collect::<Vec<_>>(), ["b", "w"]);
        let dotless =
            set(["model.a.w", "model.a.b", "model_ema.aw", "model_ema.ab", "model_ema.decay"]);
        let selection = unwrap(&dotless, Some(WeightsChoice::Ema));
        let names: Vec<_> =
            selection.names.iter().map(|(own, name)| (&own[..], &name[..])).collect();
        assert_eq!(names, [("model_ema.ab", "a.b"), ("model_ema.aw", "a.w")]);
        let training = set(["model.w", "loss.lpips.w", "discriminator.x"]);
        assert_eq!(bare(&training, None), set(["w"]));
        assert!(unwrap(&training, None).notes[0].contains("`discriminator`, `loss`"));
        // Two names must not become one, and a part that only looks like a wrapper stays.
        let clash = set(["a.module.w", "a.w"]);
        assert_eq!(bare(&clash, None), clash);
        let own = set(["generator.w", "tokenizer.w"]);
        assert_eq!(bare(&own, None), own);
    }
}
