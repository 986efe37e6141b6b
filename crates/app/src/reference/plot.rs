//! `alitok plot`

use std::{
    collections::BTreeSet,
    path::{Component, Path, PathBuf},
};

use anyhow::{Result, bail, ensure};
use charts::{Axis, Chart, Figure, Format, Mark, Scale, Series};
use training::telemetry::{Curves, smoothed};

use crate::{commands::plot::PlotArgs, progress};

/// A run's log, and what it measured.
type Run = (PathBuf, Curves);

/// The name of logs in the folders of runs.
const LOG: &str = "log.jsonl";
/// Colours that curves have before one comes again.
const COLORS: usize = 8;

pub(crate) fn run(args: &PlotArgs) -> Result<()> {
    // Before any work.
    Format::of(&args.out)?;
    let mut runs: Vec<Run> = Vec::new();
    for run in &args.runs {
        let (log, curves) = read(run)?;
        if runs.iter().any(|(known, _)| *known == log) {
            progress::note(&format!("{} is named twice and drawn once", run.display()));
            continue;
        }
        ensure!(
            !curves.by_name.is_empty(),
            "the log of {} has no line yet ({}): a run writes one every `log_every` steps",
            run.display(),
            log.display()
        );
        runs.push((log, curves));
    }
    let names = short_names(&runs.iter().map(|(log, _)| log.as_path()).collect::<Vec<_>>());
    let panels = args.measure.iter().map(|measure| panel(measure, args, &names, &runs));
    let panels: Vec<Chart> = panels.collect::<Result<_>>()?;
    let columns = if panels.len() > 3 { 2 } else { 1 };
    Figure::new(panels).with_columns(columns).with_panel_size(720, 400).write(&args.out)?;
    progress::wrote(runs.len(), "run", &args.out);
    Ok(())
}

fn read(run: &Path) -> Result<Run> {
    let log = if run.is_dir() { run.join(LOG) } else { run.to_owned() };
    ensure!(
        log.is_file(),
        "{} is no run: there is no {}; name folders that `alitok train` has written",
        run.display(),
        log.display()
    );
    // The folder itself may be the current one, which has no name.
    let whole = log.canonicalize().unwrap_or_else(|_| log.clone());
    Ok((whole, Curves::read(&log)?))
}

/// As many last parts of each log's path as it takes to tell them apart, without the name that all
/// logs have.
fn short_names(logs: &[&Path]) -> Vec<String> {
    let usual = logs.iter().all(|log| log.ends_with(LOG));
    let paths: Vec<Vec<String>> = logs
        .iter()
        .map(|log| {
            let path = if usual { log.parent().unwrap_or(log) } else { log };
            let parts = path.components().filter(|part| matches!(part, Component::Normal(_)));
            parts.map(|part| part.as_os_str().to_string_lossy().into_owned()).collect()
        })
        .collect();
    let last =
        |path: &Vec<String>, parts: usize| path[path.len().saturating_sub(parts)..].join("/");
    let longest = paths.iter().map(Vec::len).max().unwrap_or(1);
    let parts = (1..longest)
        .find(|parts| {
            let names: BTreeSet<String> = paths.iter().map(|path| last(path, *parts)).collect();
            names.len() == paths.len()
        })
        .unwrap_or(longest);
    paths.iter().map(|path| last(path, parts)).collect()
}

fn panel(measure: &str, args: &PlotArgs, names: &[String], runs: &[Run]) -> Result<Chart> {
    let mut series = Vec::new();
    for (index, ((_, curves), name)) in runs.iter().zip(names).enumerate() {
        if let Some(curve) = curves.by_name.get(measure) {
            let points = smoothed(curve, args.smooth as usize);
            let alone = points.len() == 1;
            let points = points.into_iter().map(|(step, value)| (step as f64, value));
            let mark = match index / COLORS % 2 {
                // A line needs two points.
                _ if alone => Mark::Dots,
                0 => Mark::Line,
                _ => Mark::Dashes,
            };
            series.push(Series::line(name, points).with_mark(mark).with_color(index));
        }
    }
    if series.is_empty() {
        let known: BTreeSet<&String> =
            runs.iter().flat_map(|(_, run)| run.by_name.keys()).collect();
        let known: Vec<&str> = known.into_iter().map(String::as_str).collect();
        bail!("no run has measured `{measure}`; the logs have {}", known.join(", "));
    }
    let scale = if args.log { Scale::Logarithmic } else { Scale::Linear };
    let measure = measure.replace('_', " ");
    let of = if names.len() > 3 { format!("{} runs", names.len()) } else { names.join(", ") };
    Ok(Chart {
        title: format!("{measure} of {of}"),
        x: Axis::new("step"),
        y: Axis { scale, ..Axis::new(measure) },
        series,
        ..Chart::default()
    })
}

#[cfg(test)]
mod tests {
    use super::short_names;

    #[test]
    fn should_name_runs_by_as_little_as_tells_them_apart() {
        let names =
            |logs: &[&str]| short_names(&logs.iter().map(std::path::Path::new).collect::<Vec<_>>());
        assert_eq!(names(&["/x/runs/a/log.jsonl", "/x/runs/b/log.jsonl"]), ["a", "b"]);
        let alike = ["/x/1/a/log.jsonl", "/x/2/a/log.jsonl", "/x/2/b/log.jsonl"];
        assert_eq!(names(&alike), ["1/a", "2/a", "2/b"]);
        // Copies of logs beside each other.
        assert_eq!(names(&["/x/a/log.jsonl", "/x/a/old.jsonl"]), ["log.jsonl", "old.jsonl"]);
        assert_eq!(names(&["/x/a/log.jsonl"]), ["a"]);
    }
}
