//! Where pictures come from, and what is known of a set of them after a network saw it.

use files::Home;
use metrics::{FeatureMatrix, Features, Gaussian, Images, Moments, NumpyBatch};
use pixels::{DataSet, Picture, crop::Crop, data::Balanced};

use crate::{
    EvaluationError, Observer,
    extractor::{BATCH, Description, Extractor, FeatureKind},
};

/// A set of pictures.
pub enum Pictures {
    /// `arr_0` of an `.npz` file.
    Batch(Box<NumpyBatch>),
    /// A data set.
    Data(Box<dyn DataSet>),
}

impl std::fmt::Debug for Pictures {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} pictures", self.count())
    }
}

impl Pictures {
    /// Opens an `.npz` file with `arr_0`, or a data set; a bundled one is below `home`.
    ///
    /// # Errors
    /// If there is no such thing, or there are no pictures in it.
    pub fn open(source: &str, home: &Home) -> Result<Self, EvaluationError> {
        if !source.to_lowercase().ends_with(".npz") {
            return Ok(Self::Data(pixels::data::open(source, home)?));
        }
        let batch = NumpyBatch::open(source)?;
        if batch.images().is_none_or(|[count, ..]| count == 0) {
            let problem = format!("{source} holds no pictures (`arr_0`)");
            return Err(EvaluationError::Impossible(problem));
        }
        Ok(Self::Batch(Box::new(batch)))
    }

    /// Number of pictures.
    pub fn count(&self) -> usize {
        match self {
            Self::Batch(batch) => batch.images().map_or(0, |[count, ..]| count),
            Self::Data(data) => data.len(),
        }
    }

    /// Keeps `per_class` pictures of each class, chosen by the seed; all of them without a number.
    ///
    /// # Errors
    /// If a class has fewer, or the classes are not known.
    pub fn balanced(
        self,
        source: &str,
        per_class: Option<usize>,
        seed: u64,
    ) -> Result<Self, EvaluationError> {
        match (per_class, self) {
            (None, pictures) => Ok(pictures),
            (Some(per_class), Self::Data(data)) => {
                Ok(Self::Data(Box::new(Balanced::choose(source, data, per_class, seed)?)))
            }
            (Some(_), Self::Batch(_)) => Err(EvaluationError::Impossible(format!(
                "{source} does not say the classes of its pictures"
            ))),
        }
    }

    /// Width and height of the pictures in pixels; of a data set, of its first one.
    ///
    /// # Errors
    /// If there are no pictures, or the first one cannot be read.
    pub fn size(&self) -> Result<(usize, usize), EvaluationError> {
        match self {
            Self::Batch(batch) => {
                let size = batch.images().ok_or_else(no_pictures)?;
                let [_, height, width] = size;
                Ok((width, height))
            }
            Self::Data(data) => {
                let first = data.picture(0)?;
                Ok((first.width(), first.height()))
            }
        }
    }

    fn for_each_batch(
        &self,
        (width, height): (usize, usize),
        crop: Crop,
        mut take: impl FnMut(Images) -> Result<(), EvaluationError>,
    ) -> Result<(), EvaluationError> {
        let data = match self {
            Self::Batch(batch) => return batch.for_each_batch(BATCH, take),
            Self::Data(data) => data,
        };
        for first in (0..data.len()).step_by(BATCH) {
            let pictures = (first..data.len().min(first + BATCH))
                .map(|index| Ok(crop.fit(data.picture(index)?, width, height, data.name(index))?))
                .collect::<Result<Vec<Picture>, EvaluationError>>()?;
            take(images(&pictures))?;
        }
        Ok(())
    }
}

/// Opens a data set, or the same number of pictures from each of its classes.
///
/// # Errors
/// If there is no such data set, or a class has fewer.
pub fn open_data(
    source: &str,
    per_class: Option<usize>,
    seed: u64,
    home: &Home,
) -> Result<Box<dyn DataSet>, EvaluationError> {
    let data = pixels::data::open(source, home)?;
    Ok(match per_class {
        Some(per_class) => Box::new(Balanced::choose(source, data, per_class, seed)?),
        None => data,
    })
}

/// Pictures of one size as a network takes them.
pub fn images(pictures: &[Picture]) -> Images {
    let (width, height) = pictures.first().map_or((0, 0), |first| (first.width(), first.height()));
    let values = pictures.iter().flat_map(|picture| picture.rgb()).copied().collect();
    Images { values, height, width }
}

fn no_pictures() -> EvaluationError {
    EvaluationError::impossible("there are no pictures")
}

/// What is known of a set of pictures after a network saw them: moments of the features whose moments
/// a measure of the network needs, and all rows of those whose rows one needs. Memory is that of the
/// rows, where they are kept.
#[derive(Debug)]
pub struct Seen {
    count: usize,
    kinds: [OfKind; FeatureKind::ALL.len()],
}

/// Features of one kind.
#[derive(Debug, Default)]
struct OfKind {
    keeps_moments: bool,
    keeps_rows: bool,
    moments: Option<Moments>,
    rows: Option<FeatureMatrix>,
}

impl Seen {
    /// Of no pictures; keeps what the network's measures need.
    pub fn new(description: &Description) -> Self {
        let kinds = FeatureKind::ALL.map(|kind| {
            let measures = || {
                let of_kind =
                    description.measures.iter().filter(move |(_, serves)| *serves == kind);
                of_kind.map(|(measure, _)| measure)
            };
            OfKind {
                keeps_moments: measures().any(|measure| !measure.needs_rows()),
                keeps_rows: measures().any(|measure| measure.needs_rows()),
                ..OfKind::default()
            }
        });
        Self { count: 0, kinds }
    }

    /// Of no pictures; keeps moments only.
    pub fn moments_only(description: &Description) -> Self {
        let mut seen = Self::new(description);
        seen.kinds.iter_mut().for_each(|kind| kind.keeps_rows = false);
        seen
    }

    fn kind(&self, kind: FeatureKind) -> &OfKind {
        &self.kinds[kind as usize]
    }

    /// Number of pictures.
    pub fn count(&self) -> usize {
        self.count
    }

    /// All rows of these features, where the network has them and they are kept.
    pub fn rows(&self, kind: FeatureKind) -> Option<&FeatureMatrix> {
        self.kind(kind).rows.as_ref()
    }

    /// Mean and covariance of these features, where the network has them.
    ///
    /// # Errors
    /// If there are too few pictures.
    pub fn gaussian(&self, kind: FeatureKind) -> Result<Option<Gaussian>, EvaluationError> {
        Ok(self.kind(kind).moments.as_ref().map(Moments::gaussian).transpose()?)
    }

    /// Mean and covariance of the pooled features.
    ///
    /// # Errors
    /// If there are too few pictures.
    pub fn pool_gaussian(&self) -> Result<Gaussian, EvaluationError> {
        self.gaussian(FeatureKind::Pool)?.ok_or_else(no_pictures)
    }

    /// Adds a network's features of the next pictures.
    ///
    /// # Errors
    /// If they are of another width than those before.
    pub fn add(&mut self, found: &Features) -> Result<(), EvaluationError> {
        let first = self.count as u64;
        for (kind, kept) in FeatureKind::ALL.into_iter().zip(&mut self.kinds) {
            let Some(rows) = kind.of(found) else { continue };
            if kept.keeps_moments {
                let moments = kept.moments.get_or_insert_with(|| Moments::new(rows.width()));
                moments.add(first, rows)?;
            }
            if kept.keeps_rows {
                kept.rows.get_or_insert_with(|| FeatureMatrix::empty(rows.width())).append(rows)?;
            }
        }
        self.count += found.pool.rows();
        Ok(())
    }
}

/// Shows all pictures of a set to a network.
///
/// # Errors
/// If a picture cannot be read, or has another size and is not to be cropped.
pub fn see(
    extractor: &Extractor,
    pictures: &Pictures,
    size: (usize, usize),
    crop: Crop,
    what: &'static str,
    observer: &mut dyn Observer,
) -> Result<Seen, EvaluationError> {
    // A batch as bytes, as numbers of four bytes, and as what the network takes of them.
    let values = (size.0 as u64).saturating_mul(size.1 as u64).saturating_mul(3 * BATCH as u64);
    let needed = values.saturating_mul(9);
    if let Some(available) = machine::available_memory().filter(|available| *available < needed) {
        return Err(EvaluationError::Impossible(format!(
            "{BATCH} pictures of {} x {} pixels at a time need {}, and {} are available; take a \
             smaller size",
            size.0,
            size.1,
            machine::bytes(needed),
            machine::bytes(available)
        )));
    }
    let mut seen = Seen::new(extractor.description());
    let total = pictures.count() as u64;
    observer.progress(what, 0, total);
    pictures.for_each_batch(size, crop, |images| {
        seen.add(&extractor.features(&images)?)?;
        observer.progress(what, seen.count() as u64, total);
        Ok(())
    })?;
    Ok(seen)
}

/// The moments of a network's features of pictures that are made one by one.
///
/// # Errors
/// What `picture` returns, and if there are too few.
pub fn moments(
    extractor: &Extractor,
    count: usize,
    picture: impl Fn(usize) -> Result<Picture, EvaluationError>,
    observer: &mut dyn Observer,
) -> Result<Gaussian, EvaluationError> {
    let mut all = Seen::moments_only(extractor.description());
    observer.progress("looking", 0, count as u64);
    for first in (0..count).step_by(BATCH) {
        let batch = first..count.min(first + BATCH);
        let pictures = batch.map(&picture).collect::<Result<Vec<_>, _>>()?;
        all.add(&extractor.features(&images(&pictures))?)?;
        observer.progress("looking", (first + pictures.len()) as u64, count as u64);
    }
    all.pool_gaussian()
}
