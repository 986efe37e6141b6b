//! `alitok weights`

use std::path::Path;

use anyhow::{Context, Result, ensure};
use weights::public::{self, Origin, PUBLIC_WEIGHTS, PublicWeights};

use crate::{
    commands::weights::WeightsVerb,
    progress::{self, Progress},
};

pub(crate) fn run(verb: &WeightsVerb) -> Result<()> {
    match verb {
        WeightsVerb::Fetch { names, from, url } => fetch(names, from.as_deref(), url.as_deref()),
        WeightsVerb::List => list(),
    }
}

fn folder() -> Result<std::path::PathBuf> {
    public::cache_folder().context("there is no home folder for weights; set ALITOK_HOME")
}

fn fetch(names: &[String], from: Option<&Path>, url: Option<&str>) -> Result<()> {
    ensure!(
        names.len() == 1 || (from.is_none() && url.is_none()),
        "--from and --url belong to one name; fetch the others in another call"
    );
    let folder = folder()?;
    // Misspelt names first, before anything long.
    let all = names.iter().map(|name| PublicWeights::find(name)).collect::<Result<Vec<_>, _>>()?;
    for weights in all {
        let origin = match (from, url) {
            (Some(file), _) => Origin::File(file),
            (None, Some(url)) => Origin::Url(url),
            (None, None) => Origin::Publisher,
        };
        let mut shown: Option<Progress> = None;
        let path = weights.fetch(&folder, origin, &mut |done, total| {
            shown
                .get_or_insert_with(|| Progress::new(weights.name, total.unwrap_or_default()))
                .set(done);
        });
        if let Some(shown) = shown {
            shown.finish();
        }
        progress::result(&path?.display().to_string())?;
    }
    progress::wrote(names.len(), "file", &folder);
    Ok(())
}

fn list() -> Result<()> {
    let folder = folder()?;
    for weights in PUBLIC_WEIGHTS {
        let state = if weights.path(&folder).is_file() { "here" } else { "not here" };
        progress::result(&format!(
            "{} ({state}): {}; {}\n  {}",
            weights.name, weights.what, weights.licence, weights.url
        ))?;
    }
    Ok(())
}
