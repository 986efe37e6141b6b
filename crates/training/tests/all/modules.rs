//! The modules of the crate in their order: none uses one that comes later.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The levels of modules that the crate's documentation lists, lowest first.
fn levels() -> Vec<Vec<String>> {
    let text = fs::read_to_string(source().join("lib.rs")).unwrap();
    let (_, list) = text.split_once("# Order of modules").unwrap();
    let lines = list.lines().filter_map(|line| line.strip_prefix("//! - "));
    let names = |line: &str| -> Vec<String> {
        line.split(", ").map(|name| name.trim_matches('`').to_owned()).collect()
    };
    lines.map(names).collect()
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The modules at the root that a file uses, its tests aside.
fn used(text: &str) -> BTreeSet<String> {
    let code = text.split("#[cfg(test)]").next().unwrap();
    let mut used = BTreeSet::new();
    let name = |text: &str| -> String {
        text.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect()
    };
    for (place, prefix) in code.match_indices("crate::") {
        let rest = &code[place + prefix.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            used.insert(name(rest));
            continue;
        };
        // The first names of a group's members, whatever is nested in these.
        let (mut depth, mut member) = (0, String::new());
        for letter in group.chars() {
            match letter {
                '}' if depth == 0 => break,
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    used.insert(name(&std::mem::take(&mut member)));
                }
                letter if depth == 0 && !letter.is_whitespace() => member.push(letter),
                _ => {}
            }
        }
        used.insert(name(&member));
    }
    // What follows a group's last comma.
    used.remove("");
    used
}

/// What each module at the root uses, the files in its folder included.
fn uses() -> BTreeMap<String, BTreeSet<String>> {
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut folders = vec![source()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let inside = path.strip_prefix(source()).unwrap().with_extension("");
            let module = inside.iter().next().unwrap().to_str().unwrap().to_owned();
            all.entry(module).or_default().extend(used(&fs::read_to_string(&path).unwrap()));
        }
    }
    all.remove("lib");
    all
}

#[test]
fn should_use_only_modules_that_come_before() {
    let levels = levels();
    let level = |module: &str| levels.iter().position(|level| level.iter().any(|m| m == module));
    let uses = uses();
    assert_eq!(levels.iter().flatten().count(), uses.len(), "a module is missing in the list");
    for (module, used) in &uses {
        let own = level(module).unwrap_or_else(|| panic!("{module} is missing in the list"));
        for other in used.iter().filter(|other| *other != module) {
            // Two types stand at the root.
            let other = match other.as_str() {
                "TrainingError" => "error",
                "Checkpoint" => "checkpoint",
                other => other,
            };
            assert!(level(other).is_some_and(|level| level < own), "{module} uses {other}");
        }
    }
    assert!(uses["trainers"].contains("losses") && uses["error"].contains("guard"));
}
