//! Patterns of paths: `*`, `?`, `[…]` and the braces of a shell.

use std::path::{Path, PathBuf};

use super::{left_out::Ledger, rules, walk::HIDDEN};
use crate::PixelsError;

/// Most paths that the braces of a pattern may stand for.
const MAX_PATTERNS: usize = 1 << 20;

/// The files that a pattern stands for: its braces in their order, each one's matches sorted.
/// Everything that braces stand for has to be there; hidden files that `*` matches are noted.
pub(crate) fn matching(pattern: &str, ledger: &mut Ledger) -> Result<Vec<PathBuf>, PixelsError> {
    let problem = |problem: String| PixelsError::data_set(pattern, problem);
    let mut paths = Vec::new();
    for part in expand(pattern).map_err(problem)? {
        let before = paths.len();
        if Path::new(&part).exists() {
            paths.push(PathBuf::from(&part));
        } else {
            let found = glob::glob(&part).map_err(|error| problem(error.to_string()))?;
            for path in found {
                let path = path.map_err(|error| problem(error.to_string()))?;
                match path.file_name().and_then(|name| name.to_str()) {
                    Some(name) if rules::is_litter(name) => ledger.pass_over(name, HIDDEN),
                    _ => paths.push(path),
                }
            }
        }
        if paths.len() == before {
            return Err(problem(if part == pattern {
                "there is no such file or folder; give `bundled`, a folder with one sub-folder for \
                 each class, or the path or pattern of tar shards"
                    .to_owned()
            } else {
                format!("there is no {part}, which it stands for")
            }));
        }
    }
    Ok(paths)
}

/// The patterns that a pattern with braces stands for, as a shell expands them: `{a,b}` each part,
/// `{08..12}` each number, with the zeros of the first.
fn expand(pattern: &str) -> Result<Vec<String>, String> {
    let mut expanded = vec![String::new()];
    let mut rest = pattern;
    while let Some(open) = rest.find('{') {
        let close = rest[open..].find('}').map(|close| open + close);
        let close = close.ok_or_else(|| format!("the brace at `{}` has no end", &rest[open..]))?;
        let content = &rest[open + 1..close];
        if content.contains('{') {
            return Err("braces inside of braces are not understood".to_owned());
        }
        let parts: Vec<String> = match content.split_once("..") {
            Some((first, last)) => {
                let number = |text: &str| {
                    text.parse::<usize>()
                        .map_err(|_| format!("`{text}` in {{{content}}} is no number"))
                };
                let (from, to) = (number(first)?, number(last)?);
                if from > to {
                    return Err(format!("{{{content}}} ends before it begins"));
                }
                if to - from >= MAX_PATTERNS {
                    return Err(format!("{{{content}}} stands for too many files"));
                }
                let width = if first.starts_with('0') { first.len() } else { 0 };
                (from..=to).map(|number| format!("{number:0width$}")).collect()
            }
            None => content.split(',').map(str::to_owned).collect(),
        };
        if expanded.len().saturating_mul(parts.len()) > MAX_PATTERNS {
            return Err("its braces stand for too many files".to_owned());
        }
        let before = &rest[..open];
        expanded = expanded
            .iter()
            .flat_map(|start| parts.iter().map(move |part| format!("{start}{before}{part}")))
            .collect();
        rest = &rest[close + 1..];
    }
    expanded.iter_mut().for_each(|start| start.push_str(rest));
    Ok(expanded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_expand_braces_as_a_shell_does() {
        let cases: [(&str, &[&str]); 5] = [
            ("a.tar", &["a.tar"]),
            ("s-{008..011}.tar", &["s-008.tar", "s-009.tar", "s-010.tar", "s-011.tar"]),
            ("{9..11}", &["9", "10", "11"]),
            ("{train,val}/{0..1}.tar", &["train/0.tar", "train/1.tar", "val/0.tar", "val/1.tar"]),
            ("x{a}*", &["xa*"]),
        ];
        for (pattern, expected) in cases {
            assert_eq!(expand(pattern).unwrap(), expected, "{pattern}");
        }
        for wrong in
            ["{1..", "{3..1}", "{a..b}", "{0..99999999999}", "{a,{b,c}}", "{0..9999}{0..9999}"]
        {
            assert!(expand(wrong).is_err(), "{wrong}");
        }
    }
}
