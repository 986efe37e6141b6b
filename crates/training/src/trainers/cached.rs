//! The cached tokens that a generator or a language model learns from.

use std::{path::Path, sync::Arc};

use burn::tensor::Device;
use charts::Sheet;
use generator::{Request, SamplingConfig};
use model::{Model, tokenizer_digest};
use pipeline::{Draw, Drawing};
use pixels::{Picture, data::is_held_out};
use token_cache::{CacheError, CacheHeader, Record, TokenCache};
use tokenizer::{DecoderKind, ImageSize};
use tokens::{
    CodebookIndex,
    noise::{Noise, Purpose},
};

use crate::{
    TrainingError,
    loader::Order,
    plan::Scope,
    samples::{COLUMNS, sheet},
    schedule::Schedule,
    telemetry::BadPicture,
};

/// A token cache in training: which of its pictures are learned from, in which order, and what is
/// evaluated on.
pub struct CachedPictures {
    cache: Arc<TokenCache>,
    made_by: Model,
    seed: u64,
    batch: u64,
    order: Order,
    /// The records that are learned from, by their place in the cache.
    learned: Vec<usize>,
    heldout: Option<Heldout>,
    strict: bool,
    bad: Vec<BadPicture>,
}

/// Cached tokens to evaluate on.
struct Heldout {
    cache: Arc<TokenCache>,
    /// The records, by their place in the cache.
    records: Vec<usize>,
    /// What they are, for the record of a run.
    description: String,
}

impl CachedPictures {
    /// Opens the token cache in a folder.
    ///
    /// # Errors
    /// If the cache cannot be read or is empty.
    pub fn open(cache: &Path, schedule: &Schedule) -> Result<Self, TrainingError> {
        let tokenizer = cache.join(pipeline::cache::TOKENIZER);
        let cache = Arc::new(TokenCache::open(cache)?);
        let made_by = Model::read(&tokenizer)?;
        let tensors = made_by.tokenizer_tensors()?;
        cache.check_tokenizer(&tokenizer_digest(&tensors))?;
        if cache.is_empty() {
            return Err(TrainingError::Data("the token cache holds no pictures".into()));
        }
        Ok(Self {
            order: Order::new(schedule.seed, cache.len()),
            learned: (0..cache.len()).collect(),
            cache,
            made_by,
            seed: schedule.seed,
            batch: schedule.batch as u64,
            heldout: None,
            strict: false,
            bad: Vec::new(),
        })
    }

    /// If `strict`, training ends at the first picture that was left out of the cache because it could
    /// not be read; otherwise another picture takes its place.
    #[must_use]
    pub fn strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    /// Evaluates on the token cache in this folder, in the first view of each picture.
    ///
    /// # Errors
    /// If the cache cannot be read, or was made by another tokenizer.
    pub fn with_heldout(mut self, cache: &Path) -> Result<Self, TrainingError> {
        let cache = Arc::new(TokenCache::open(cache)?);
        cache.check_tokenizer(&self.header().tokenizer)?;
        let records = (0..cache.len()).collect();
        self.heldout = Some(Heldout { description: describe(&cache), cache, records });
        Ok(self)
    }

    /// Holds out a share of the pictures to evaluate on: those that
    /// [`hold_out`](pixels::data::hold_out) holds out of their data set.
    ///
    /// # Errors
    /// If that leaves nothing to learn from or to evaluate on, or names cannot be read.
    pub fn hold_out(mut self, share: f64) -> Result<Self, TrainingError> {
        let names = self.cache.names()?;
        let (records, learned): (Vec<usize>, Vec<usize>) =
            self.learned.iter().partition(|&&record| is_held_out(&names[record], share));
        if records.is_empty() || learned.is_empty() {
            return Err(TrainingError::Data(format!(
                "a share of {share} holds none or all of {} pictures out; give one between 0 and 1, such \
                 as 0.05",
                names.len()
            )));
        }
        self.learn_from(learned);
        let description = format!("{} of them", records.len());
        self.heldout = Some(Heldout { cache: Arc::clone(&self.cache), records, description });
        Ok(self)
    }

    /// Leaves the pictures away of which `keep` says so, those to evaluate on too. It is given a cache
    /// and a place in it. Returns how many are left away.
    pub(crate) fn retain(
        &mut self,
        mut keep: impl FnMut(&TokenCache, usize) -> Result<bool, TrainingError>,
    ) -> Result<usize, TrainingError> {
        let mut filter = |cache: &TokenCache, records: &[usize]| {
            let kept = records.iter().map(|&record| Ok(keep(cache, record)?.then_some(record)));
            let kept: Vec<Option<usize>> = kept.collect::<Result<_, TrainingError>>()?;
            Ok::<Vec<usize>, TrainingError>(kept.into_iter().flatten().collect())
        };
        let learned = filter(&self.cache, &self.learned)?;
        let mut lost = self.learned.len() - learned.len();
        if let Some(heldout) = &mut self.heldout {
            let kept = filter(&heldout.cache, &heldout.records)?;
            lost += heldout.records.len() - kept.len();
            heldout.records = kept;
        }
        self.learn_from(learned);
        Ok(lost)
    }

    fn learn_from(&mut self, learned: Vec<usize>) {
        self.order = Order::new(self.seed, learned.len());
        self.learned = learned;
    }

    /// What the cache holds.
    pub(crate) fn header(&self) -> &CacheHeader {
        self.cache.header()
    }

    pub(crate) fn cache(&self) -> &TokenCache {
        &self.cache
    }

    /// The records that are learned from, by their place in the cache.
    pub(crate) fn learned(&self) -> &[usize] {
        &self.learned
    }

    /// The model that made the tokens.
    pub(crate) fn made_by(&self) -> &Model {
        &self.made_by
    }

    /// The place in the cache of a sample of a step, and the view of it that the step sees.
    pub(crate) fn sample(
        &mut self,
        address: u64,
        sample: usize,
    ) -> Result<(usize, usize), TrainingError> {
        let views = self.header().views;
        let view = self.noise(Purpose::Augmentation, address, sample).below(views);
        Ok((self.index(address * self.batch + sample as u64, view), view))
    }

    /// The noise of a sample of a step.
    pub(crate) fn noise(&self, purpose: Purpose, address: u64, sample: usize) -> Noise {
        Noise::new(self.seed, purpose, address, sample as u64)
    }

    /// The picture at a position of the order, or the one that takes its place.
    fn index(&mut self, position: u64, view: usize) -> usize {
        const MOST_TRIES: u64 = 1000;
        let mut index = self.learned[self.order.at(position)];
        for tries in 0..MOST_TRIES {
            match self.cache.record(index, view) {
                Err(error @ CacheError::LeftOut { .. }) if !self.strict => {
                    let name = format!("number {index} of the token cache");
                    self.bad.push(BadPicture { name, reason: error.to_string() });
                    index = self.learned[self.order.instead(position, tries)];
                }
                _ => break,
            }
        }
        index
    }

    /// The tokens of a picture in a view.
    pub(crate) fn record(&self, index: usize, view: usize) -> Result<Record<'_>, TrainingError> {
        Ok(self.cache.record(index, view)?)
    }

    /// The pictures that could not be read since this was asked last.
    pub(crate) fn take_bad(&mut self) -> Vec<BadPicture> {
        std::mem::take(&mut self.bad)
    }

    /// The cache to evaluate on.
    pub(crate) fn heldout_cache(&self) -> Option<&TokenCache> {
        self.heldout.as_ref().map(|heldout| &*heldout.cache)
    }

    /// Number of pictures to evaluate on, if there are any.
    pub(crate) fn heldout_count(&self) -> Option<usize> {
        self.heldout.as_ref().map(|heldout| heldout.records.len())
    }

    /// The place of the `number`th picture to evaluate on, and its tokens; none if it could not be read.
    pub(crate) fn heldout(
        &self,
        number: usize,
    ) -> Result<Option<(usize, Record<'_>)>, TrainingError> {
        let heldout = self.heldout.as_ref().ok_or(TrainingError::NoHeldout)?;
        let index = heldout.records[number];
        match heldout.cache.record(index, 0) {
            Err(CacheError::LeftOut { .. }) if !self.strict => Ok(None),
            record => Ok(Some((index, record?))),
        }
    }

    /// What they are, for the record of a run.
    pub(crate) fn inputs(&self) -> Vec<(&'static str, String)> {
        let heldout = self.heldout.as_ref();
        let heldout = heldout.map(|heldout| ("held-out token cache", heldout.description.clone()));
        [("token cache", describe(&self.cache))].into_iter().chain(heldout).collect()
    }

    /// What a training of so many parameters works with, which leaves so many activations a sample.
    pub(crate) fn scope(&self, trains: &str, parameters: usize, activations: usize) -> Scope {
        let header = self.header();
        let side = |extent: usize| extent * self.made_by.config.tokenizer.patch;
        Scope {
            trains: trains.to_owned(),
            pictures: self.cache.len(),
            learned: self.learned.len(),
            classes: header.classes.len(),
            heldout: self.heldout_count(),
            image: (side(header.layout.columns()), side(header.layout.rows())),
            tokens: header.layout.len(),
            parameters,
            activations,
            warnings: Vec::new(),
        }
    }

    /// Two rows of samples, always from the same noise, one column for each condition up to
    /// [`COLUMNS`]; `conditions` are the columns' names and what is asked for.
    pub(crate) fn samples(
        &self,
        draw: &dyn Draw,
        conditions: Vec<(String, generator::Condition)>,
        sampling: &SamplingConfig,
        device: &Device,
    ) -> Result<Picture, TrainingError> {
        let columns = COLUMNS.min(conditions.len());
        let requests: Vec<Request> = (0..2 * columns)
            .map(|place| Request {
                condition: conditions[place % columns].1.clone(),
                seed: self.seed,
                index: place as u64,
                forced: Vec::new(),
            })
            .collect();
        let failed = |error: &dyn std::fmt::Display| TrainingError::Data(error.to_string());
        let drawing = Drawing::of(draw, &requests, sampling, requests.len());
        let sampled = drawing.map_err(|error| failed(&error))?.tokens();
        let sampled = sampled.map_err(|error| failed(&error))?;
        // Read each time: pictures are rare, and the decoder would take memory all the time.
        let tokenizer = self.made_by.tokenizer(device)?;
        let kind = match tokenizer.config().bidirectional_decoder {
            Some(_) => DecoderKind::Bidirectional,
            None => DecoderKind::Causal,
        };
        let ImageSize { height, width } = tokenizer.config().image;
        let picture = |tokens: Vec<CodebookIndex>| {
            let planes = tokenizer.decode_picture(&tokens, kind)?;
            Ok::<_, TrainingError>(Picture::from_unit_planes(width, height, &planes)?)
        };
        let pictures: Vec<Picture> = sampled.into_iter().map(picture).collect::<Result<_, _>>()?;
        let column_names = conditions.into_iter().take(columns).map(|(name, _)| name).collect();
        let row_names = vec!["first sample".to_owned(), "second sample".to_owned()];
        sheet(&pictures, Sheet { columns, column_names, row_names, ..Sheet::default() })
    }
}

/// What a token cache is, for the record of a run.
fn describe(cache: &TokenCache) -> String {
    let header = cache.header();
    let captions =
        header.captions.map_or_else(String::new, |sum| format!(", captions of checksum {sum:08x}"));
    format!("{} pictures of tokenizer {}{captions}", cache.len(), header.tokenizer)
}
