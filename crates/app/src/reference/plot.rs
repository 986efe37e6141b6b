//! `alitok plot`

use std::{collections::BTreeSet, path::Path};

use anyhow::{Result, bail, ensure};
use charts::{Axis, Chart, Figure, Scale, Series};
use training::telemetry::{Curves, smoothed};

use crate::{commands::plot::PlotArgs, progress};

/// A run's name in the legend, and what it measured.
type Run = (String, Curves);

pub(crate) fn run(args: &PlotArgs) -> Result<()> {
    let runs: Vec<Run> = args.runs.iter().map(|run| read(run)).collect::<Result<_>>()?;
    for (run, (name, curves)) in args.runs.iter().zip(&runs) {
        ensure!(
            !curves.by_name.is_empty(),
            "the log of {} has no line yet ({name}): a run writes one every `log_every` steps",
            run.display()
        );
    }
    let names = short_names(runs.iter().map(|(name, _)| name.as_str()).collect());
    let panels = args.measure.iter().map(|measure| panel(measure, args, &names, &runs));
    let panels: Vec<Chart> = panels.collect::<Result<_>>()?;
    let columns = if panels.len() > 3 { 2 } else { 1 };
    Figure::new(panels).with_columns(columns).with_panel_size(720, 400).write(&args.out)?;
    progress::wrote(runs.len(), "run", &args.out);
    Ok(())
}

fn read(run: &Path) -> Result<Run> {
    let log = if run.is_dir() { run.join("log.jsonl") } else { run.to_owned() };
    ensure!(
        log.is_file(),
        "{} is no run: there is no {}; name folders that `alitok train` has written",
        run.display(),
        log.display()
    );
    let folder = log.parent().unwrap_or(Path::new(""));
    // The folder itself may be the current one, which has no name.
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    Ok((folder.display().to_string(), Curves::read(&log)?))
}

/// As many last parts of each path as it takes to tell them apart.
fn short_names(paths: Vec<&str>) -> Vec<String> {
    let last = |path: &str, parts: usize| {
        let all: Vec<&str> = path.split(['/', '\\']).filter(|part| !part.is_empty()).collect();
        all[all.len().saturating_sub(parts)..].join("/")
    };
    let longest = paths.iter().map(|path| path.split(['/', '\\']).count()).max().unwrap_or(1);
    let parts = (1..longest)
        .find(|parts| {
            let names: BTreeSet<String> = paths.iter().map(|path| last(path, *parts)).collect();
            names.len() == paths.len()
        })
        .unwrap_or(longest);
    paths.into_iter().map(|path| last(path, parts)).collect()
}

fn panel(measure: &str, args: &PlotArgs, names: &[String], runs: &[Run]) -> Result<Chart> {
    let mut series = Vec::new();
    for (index, ((_, curves), name)) in runs.iter().zip(names).enumerate() {
        if let Some(curve) = curves.by_name.get(measure) {
            let points = smoothed(curve, args.smooth as usize);
            let alone = points.len() == 1;
            let points = points.into_iter().map(|(step, value)| (step as f64, value));
            // A line needs two points.
            let drawn = if alone { Series::dots(name, points) } else { Series::line(name, points) };
            series.push(drawn.with_color(index));
        }
    }
    if series.is_empty() {
        let known: BTreeSet<&String> =
            runs.iter().flat_map(|(_, run)| run.by_name.keys()).collect();
        let known: Vec<&str> = known.into_iter().map(String::as_str).collect();
        bail!("no run has measured `{measure}`; the logs have {}", known.join(", "));
    }
    let scale = if args.log { Scale::Logarithmic } else { Scale::Linear };
    Ok(Chart {
        title: names.join(", "),
        x: Axis::new("step"),
        y: Axis { scale, ..Axis::new(measure.replace('_', " ")) },
        series,
    })
}

#[cfg(test)]
mod tests {
    use super::short_names;

    #[test]
    fn should_name_runs_by_as_little_as_tells_them_apart() {
        assert_eq!(short_names(vec!["/x/runs/a", "/x/runs/b"]), ["a", "b"]);
        assert_eq!(short_names(vec!["/x/1/a", "/x/2/a", "/x/2/b"]), ["1/a", "2/a", "2/b"]);
        assert_eq!(short_names(vec!["/x/a", "/x/a"]), ["x/a", "x/a"]);
    }
}
