//! Drawing many pictures of all classes, and what a network sees in them.

use std::ops::Range;

use anyhow::{Context, Result, ensure};
use generator::{Condition, Request, SamplingConfig};
use metrics::Features;
use model::Model;

use crate::{
    args::DecoderArgs,
    compute::{Compute, Decoding, Drawing},
    extractor::{self, Extractor, Seen},
    parts::{Arrays, Parts},
};

/// Draws pictures in class-cycling order: picture i has class i mod C, so that consecutive parts
/// of the set, which the Inception Score is of, have all classes.
pub(super) struct Sampler {
    drawing: Drawing,
    decoding: Decoding,
    classes: usize,
    batch: usize,
}

impl Sampler {
    /// Opens both models. `batch` pictures are drawn side by side.
    pub(super) fn open(
        compute: &Compute,
        model: &Model,
        decoder: &DecoderArgs,
        batch: u32,
    ) -> Result<Self> {
        Ok(Self {
            drawing: compute.drawing(model)?,
            decoding: compute.decoding(model, decoder)?,
            classes: model.generator_config()?.classes,
            batch: batch as usize,
        })
    }

    /// Pictures of these numbers: their `tokens` and `labels`, and what the network sees in them:
    /// `pool`, and where it has them `spatial` and `logits`. A picture hangs on its number and the
    /// seed alone.
    pub(super) fn part(
        &self,
        extractor: &Extractor,
        sampling: &SamplingConfig,
        seed: u64,
        range: Range<usize>,
        progress: &mut (dyn FnMut(usize) + Send),
    ) -> Result<Arrays> {
        let requests: Vec<Request> = range
            .map(|index| Request {
                condition: Condition::Class(index % self.classes),
                seed,
                index: index as u64,
                forced: Vec::new(),
            })
            .collect();
        let length = self.drawing.config().layout.len();
        let mut tokens = Vec::with_capacity(requests.len() * length);
        let mut pictures = Vec::with_capacity(requests.len());
        self.drawing.draw(
            &requests,
            sampling,
            self.batch,
            |decided| progress(decided / length),
            |_, picture| {
                pictures.push(self.decoding.picture(&picture)?);
                tokens.extend(picture.into_iter().map(i64::from));
                Ok(())
            },
        )?;
        let Features { pool, spatial, logits } = extractor.see(&extractor::images(&pictures))?;
        let mut arrays = Arrays::default();
        arrays.add_integers("tokens", length, tokens);
        let labels = requests.iter().filter_map(|request| request.condition.label());
        let labels = labels.map(|label| label as i64).collect();
        arrays.add_integers("labels", 1, labels);
        for (name, features) in [("pool", Some(pool)), ("spatial", spatial), ("logits", logits)] {
            if let Some(features) = features {
                arrays.add_features(name, &features);
            }
        }
        Ok(arrays)
    }
}

/// All that the network saw in the pictures of all parts.
pub(super) fn seen(parts: &Parts, classes: usize) -> Result<Seen> {
    let mut seen = Seen::default();
    parts.each(|range, arrays| {
        let labels = arrays.integers("labels")?;
        ensure!(
            labels.iter().zip(range).all(|(&label, index)| label == (index % classes) as i64),
            "its pictures have other classes than their numbers say"
        );
        let pool = arrays.features("pool")?.context("it has no features `pool`")?;
        let (spatial, logits) = (arrays.features("spatial")?, arrays.features("logits")?);
        seen.add(&Features { pool, spatial, logits })
    })?;
    Ok(seen)
}
