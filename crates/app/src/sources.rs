//! Opening data sets, and saying once what of them is left out.

use std::sync::Arc;

use anyhow::Result;
use pixels::{
    DataSet,
    data::{LeftOut, refuse_losses},
};

use crate::{models, progress};

/// Opens a data set. Samples that are lost, for example because they have no picture, are an error
/// if `strict`, and are told of otherwise.
pub(crate) fn open(source: &str, strict: bool) -> Result<Arc<dyn DataSet>> {
    let data: Arc<dyn DataSet> = pixels::data::open(source, models::home())?.into();
    if strict {
        refuse_losses(source, data.as_ref())?;
    }
    let lost = || data.left_out().iter().filter(|group| group.is_sample);
    let count: usize = lost().map(|group| group.count).sum();
    if count > 0 {
        let reasons: Vec<String> =
            lost().map(|LeftOut { reason, count, .. }| format!("{count} for: {reason}")).collect();
        progress::note(&format!(
            "{count} samples of {source} are left out ({}); `alitok data inspect '{source}'` names \
             them",
            reasons.join("; ")
        ));
    }
    Ok(data)
}
