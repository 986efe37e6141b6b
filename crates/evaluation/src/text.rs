//! How well a model of prompts knows what belongs to a caption: the likelihood of held-out pictures, and
//! drawings of shapes that are right or wrong.

use engine::{LanguageModel, SequenceModel, sequence::Step};
use generator::SamplingConfig;
use language::Prompts;
use pipeline::{Decode, Drawing, Encode, Event, prompt_requests};
use pixels::{
    DataSet, Picture,
    crop::Crop,
    shapes::{TestPrompt, example},
};
use serde::Serialize;
use token_cache::{CacheError, TokenCache};
use tokens::CodebookIndex;

use crate::{
    EvaluationError, Observer,
    shapes::{Scores, score},
};

/// Positions of all sequences of a pass: as many pictures are looked at side by side as have so many.
const POSITIONS: usize = 2048;

/// Captioned pictures as tokens.
#[allow(missing_debug_implementations)] // what encodes has nothing to show
pub enum Captioned<'a> {
    /// Those of a token cache, in their first view.
    Cache(&'a TokenCache),
    /// Those of a data set, cropped to the tokenizer's size.
    Data {
        /// The pictures.
        data: &'a dyn DataSet,
        /// Makes tokens.
        encoder: &'a dyn Encode,
    },
}

impl Captioned<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Cache(cache) => cache.len(),
            Self::Data { data, .. } => data.len(),
        }
    }

    fn classes(&self) -> &[String] {
        match self {
            Self::Cache(cache) => &cache.header().classes,
            Self::Data { data, .. } => data.classes(),
        }
    }

    fn label(&self, index: usize) -> Result<usize, EvaluationError> {
        Ok(match self {
            Self::Cache(cache) => cache.label(index)?,
            Self::Data { data, .. } => data.label(index),
        })
    }

    /// The first caption that says something.
    fn caption(&self, index: usize) -> Result<Option<String>, EvaluationError> {
        let says = |caption: &&str| !caption.trim().is_empty();
        Ok(match self {
            Self::Cache(cache) => cache.captions(index)?.into_iter().find(says).map(str::to_owned),
            Self::Data { data, .. } => {
                data.captions(index).iter().map(String::as_str).find(says).map(str::to_owned)
            }
        })
    }

    /// A picture's tokens, or why there are none.
    fn tokens(&self, index: usize) -> Result<Result<Vec<CodebookIndex>, String>, EvaluationError> {
        match self {
            Self::Cache(cache) => match cache.record(index, 0) {
                Ok(record) => Ok(Ok(record.tokens().collect())),
                Err(error @ CacheError::LeftOut { .. }) => Ok(Err(error.to_string())),
                Err(error) => Err(error.into()),
            },
            Self::Data { data, encoder } => {
                let image = encoder.config().image;
                let picture = data.picture(index).and_then(|picture| {
                    Crop::Center.fit(picture, image.width, image.height, data.name(index))
                });
                match picture {
                    Ok(picture) => Ok(Ok(encoder.encode(&picture)?)),
                    Err(error) if !error.is_of_the_system() => Ok(Err(error.to_string())),
                    Err(error) => Err(error.into()),
                }
            }
        }
    }
}

/// How likely a model takes pictures to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Likelihood {
    /// Mean of −log p of a whole picture, in nats.
    pub nats_a_picture: f64,
    /// Mean of −log p of a token, in nats: what `heldout_loss` of a training is.
    pub nats_a_token: f64,
    /// Share of tokens whose logit is the largest.
    pub accuracy: f64,
}

/// How a model takes the pictures of a class, or all.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Likelihoods {
    /// Pictures.
    pub pictures: usize,
    /// Each after its caption.
    pub conditional: Likelihood,
    /// Each after the unconditional half of guidance.
    pub unconditional: Likelihood,
    /// By how many nats a picture its caption makes it more likely, on average.
    pub nats_from_words: f64,
    /// Standard error of that mean.
    pub nats_from_words_error: f64,
    /// Share of the pictures that are more likely after their captions.
    pub helped: f64,
}

/// The held-out likelihood of captioned pictures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CaptionResult {
    /// Of all pictures.
    #[serde(flatten)]
    pub all: Likelihoods,
    /// Tokens of a picture.
    pub tokens: usize,
    /// Mean cross-entropy of the captions' ids in nats an id, form of the prompt included; of captions each
    /// counts the same. What `text_loss` of a training is.
    pub text_loss: f64,
    /// Captions that were longer than the model reads; they lost their end.
    pub cut: usize,
    /// Pictures without caption, which are left out.
    pub without_caption: usize,
    /// Pictures that cannot be read, which are left out.
    pub unreadable: usize,
    /// Of the pictures of each class, where there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<ClassLikelihoods>,
}

/// How a model takes the pictures of a class.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassLikelihoods {
    /// Its name.
    pub class: String,
    /// Of its pictures.
    #[serde(flatten)]
    pub of: Likelihoods,
}

/// What a model says of one picture: −log p in nats, and how many tokens' logits are the largest.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Said {
    nats: f64,
    right: usize,
}

/// −log p of `target`, and whether its logit is the largest.
fn said_of(logits: &[f32], target: usize) -> (f64, bool) {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&logit| f64::from(logit - most).exp()).sum();
    let best = logits.iter().position(|&logit| logit == most);
    (sum.ln() - f64::from(logits[target] - most), best == Some(target))
}

/// What a model says of whole pictures, each after the ids of its condition.
fn pictures_after<M: SequenceModel>(
    model: &M,
    session: &mut M::Session,
    sequences: &[(&[usize], &[CodebookIndex])],
) -> Result<Vec<Said>, EvaluationError> {
    let mut said = vec![Said { nats: 0.0, right: 0 }; sequences.len()];
    let length = model.layout().len();
    // The last token predicts nothing.
    let ids: Vec<Vec<usize>> = sequences
        .iter()
        .map(|(condition, codes)| {
            let codes = codes[..length - 1].iter().map(|&code| usize::from(code));
            condition.iter().copied().chain(codes).collect()
        })
        .collect();
    let most = model.most_positions();
    let rounds = ids.iter().map(|ids| ids.len().div_ceil(most)).max().unwrap_or(0);
    let mut logits = vec![0.0; model.codes()];
    for round in 0..rounds {
        let start = round * most;
        let mut steps = Vec::new();
        for (slot, (ids, (condition, _))) in ids.iter().zip(sequences).enumerate() {
            let Some(rest) = ids.get(start..).filter(|rest| !rest.is_empty()) else { continue };
            let ids = &rest[..rest.len().min(most)];
            let first = (condition.len() - 1).max(start);
            let logits = (start + ids.len()).saturating_sub(first);
            steps.push(Step { slot, condition: condition.len(), start, ids, logits });
        }
        model.step(session, &steps)?;
        let mut index = 0;
        for step in &steps {
            let end = step.start + step.ids.len();
            for position in end - step.logits..end {
                model.logits(session, index, &mut logits);
                index += 1;
                let code = sequences[step.slot].1[position + 1 - step.condition];
                let (nats, is_right) = said_of(&logits, code.into());
                let said = &mut said[step.slot];
                said.nats += nats;
                said.right += usize::from(is_right);
            }
        }
    }
    Ok(said)
}

/// Sums over pictures.
#[derive(Debug, Clone, Default)]
struct Sums {
    conditional: Vec<Said>,
    unconditional: Vec<Said>,
}

impl Sums {
    fn add(&mut self, [conditional, unconditional]: [Said; 2]) {
        self.conditional.push(conditional);
        self.unconditional.push(unconditional);
    }

    fn result(&self, length: usize) -> Likelihoods {
        let count = self.conditional.len() as f64;
        let likelihood = |said: &[Said]| {
            let nats = said.iter().map(|said| said.nats).sum::<f64>() / count;
            let right: usize = said.iter().map(|said| said.right).sum();
            Likelihood {
                nats_a_picture: nats,
                nats_a_token: nats / length as f64,
                accuracy: right as f64 / (count * length as f64),
            }
        };
        let pairs = self.conditional.iter().zip(&self.unconditional);
        let gains: Vec<f64> = pairs.map(|(with, without)| without.nats - with.nats).collect();
        let mean = gains.iter().sum::<f64>() / count;
        let squares: f64 = gains.iter().map(|gain| (gain - mean).powi(2)).sum();
        // Of a single picture nothing is known.
        let error = if count > 1.0 { (squares / (count - 1.0) / count).sqrt() } else { 0.0 };
        Likelihoods {
            pictures: self.conditional.len(),
            conditional: likelihood(&self.conditional),
            unconditional: likelihood(&self.unconditional),
            nats_from_words: mean,
            nats_from_words_error: error,
            helped: gains.iter().filter(|&&gain| gain > 0.0).count() as f64 / count,
        }
    }
}

/// Measures how likely a model takes pictures to be, with and without what is said of them, and the
/// captions. `model` must have been opened with its head for text. At most `most` pictures are looked at,
/// evenly over the set; all without a number. The first caption of each counts.
///
/// # Errors
/// If no picture has a caption, tokens or captions cannot be read, or there is no memory.
pub fn captions(
    model: &LanguageModel,
    prompts: &Prompts,
    pictures: &Captioned<'_>,
    most: Option<usize>,
    observer: &mut dyn Observer,
) -> Result<CaptionResult, EvaluationError> {
    let length = model.config().layout.len();
    let (mut without_caption, mut unreadable, mut cut) = (0, 0, 0);
    let mut captioned = Vec::new();
    for index in 0..pictures.len() {
        match pictures.caption(index)? {
            Some(caption) => captioned.push((index, caption)),
            None => without_caption += 1,
        }
    }
    let count = most.unwrap_or(captioned.len()).min(captioned.len());
    if count == 0 {
        return Err(EvaluationError::impossible(
            "no picture has a caption; docs/data.md says how they are given",
        ));
    }
    // Evenly, so that all classes of a sorted set are there.
    let chosen = (0..count).map(|place| &captioned[place * captioned.len() / count]);
    let mut asked = Vec::with_capacity(count);
    for (index, caption) in chosen {
        let prompt = prompts.caption(caption, prompts.most_ids()).map_err(|error| {
            EvaluationError::impossible(format!("picture number {index}: {error}"))
        })?;
        cut += usize::from(prompts.condition(caption).is_err());
        asked.push((*index, prompt));
    }
    let longest = asked.iter().map(|(_, prompt)| prompt.ids.len()).max().unwrap_or(1);
    let together = (POSITIONS / (longest + length)).clamp(1, 32);
    let mut session = SequenceModel::session(model, longest, 2 * together)?;

    let mut of_class = vec![Sums::default(); pictures.classes().len()];
    let mut all = Sums::default();
    let mut text = 0.0;
    observer.progress("reading", 0, count as u64);
    for (batch, asked) in asked.chunks(together).enumerate() {
        let mut known = Vec::with_capacity(asked.len());
        for (index, prompt) in asked {
            match pictures.tokens(*index)? {
                Ok(tokens) => known.push((*index, prompt, tokens)),
                Err(reason) => {
                    unreadable += 1;
                    observer.note(&format!("left out: {reason}"));
                }
            }
        }
        let both = known.iter().flat_map(|(_, prompt, tokens)| {
            [&prompt.ids, &prompt.unconditional].map(|ids| (&ids[..], &tokens[..]))
        });
        let said = pictures_after(model, &mut session, &both.collect::<Vec<_>>())?;
        for ((index, prompt, _), said) in known.iter().zip(said.as_chunks::<2>().0) {
            all.add(*said);
            if let Some(sums) = of_class.get_mut(pictures.label(*index)?) {
                sums.add(*said);
            }
            text += text_loss(model, &prompt.ids)?;
        }
        observer.progress("reading", (batch * together + asked.len()) as u64, count as u64);
    }
    let count = all.conditional.len();
    if count == 0 {
        return Err(EvaluationError::impossible("no picture with a caption can be read"));
    }
    let several = of_class.iter().filter(|sums| !sums.conditional.is_empty()).count() > 1;
    let classes = pictures.classes().iter().zip(&of_class);
    let classes = classes.filter(|(_, sums)| several && !sums.conditional.is_empty());
    Ok(CaptionResult {
        all: all.result(length),
        tokens: length,
        text_loss: text / count as f64,
        cut,
        without_caption,
        unreadable,
        classes: classes
            .map(|(class, sums)| ClassLikelihoods { class: class.clone(), of: sums.result(length) })
            .collect(),
    })
}

/// Mean of −log p of each id after those before it, all but the first.
fn text_loss(model: &LanguageModel, ids: &[usize]) -> Result<f64, EvaluationError> {
    let logits = model.text_logits(ids)?;
    let rows = logits.chunks_exact(model.config().vocabulary).zip(&ids[1..]);
    let nats: f64 = rows.map(|(row, &id)| said_of(row, id).0).sum();
    Ok(nats / (ids.len() - 1) as f64)
}

/// How a model draws shapes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShapesResult {
    /// Pictures that were drawn.
    pub pictures: usize,
    /// How they were sampled.
    pub sampling: SamplingConfig,
    /// What they score.
    pub drawn: Scores,
    /// What pictures of the same prompts score that are made without error and go through the tokenizer: a
    /// model scores no more.
    pub rebuilt: Scores,
}

/// How shapes are drawn.
#[derive(Debug, Clone, Copy)]
pub struct ShapesOptions {
    /// Pictures of each prompt.
    pub each: usize,
    /// Of their noise.
    pub seed: u64,
    /// How they are sampled.
    pub sampling: SamplingConfig,
    /// Pictures side by side.
    pub batch: usize,
}

/// Draws what prompts of shapes ask for and scores it.
///
/// # Errors
/// If a prompt cannot be read by the model, the tokenizer's pictures are not square, or one cannot be drawn.
pub fn shapes(
    model: &LanguageModel,
    prompts: &Prompts,
    tests: &[TestPrompt],
    (encoder, decoder): (&dyn Encode, &dyn Decode),
    options: ShapesOptions,
    observer: &mut dyn Observer,
) -> Result<ShapesResult, EvaluationError> {
    let image = decoder.config().image;
    if image.width != image.height {
        return Err(EvaluationError::impossible(format!(
            "shapes are drawn on squares, and this model's pictures have {} x {} pixels",
            image.width, image.height
        )));
    }
    let ShapesOptions { each, seed, sampling, batch } = options;
    let texts: Vec<String> = tests.iter().map(|test| test.caption.clone()).collect();
    pipeline::check_count(texts.len(), each)?;
    let requests = prompt_requests(prompts, &texts, each, seed)
        .map_err(|error| EvaluationError::impossible(error.to_string()))?;
    let total = requests.len() as u64;
    let mut pictures: Vec<Picture> = Vec::new();
    observer.progress("drawing", 0, total);
    for event in Drawing::of(model, &requests, &sampling, batch)?.in_order() {
        match event {
            Event::Finished { tokens, .. } => pictures.push(decoder.decode(&tokens)?),
            Event::Failed { error, .. } => return Err(error.into()),
            Event::Row { .. } | Event::Preview { .. } => continue,
        }
        observer.progress("drawing", pictures.len() as u64, total);
    }
    let asked = || tests.iter().map(|test| &test.prompt);
    let drawn = score(pictures.iter().zip(asked().cycle()));

    let total = tests.len() as u64;
    let mut rebuilt: Vec<Picture> = Vec::new();
    observer.progress("rebuilding", 0, total);
    for (number, prompt) in asked().enumerate() {
        let tokens = encoder.encode(&example(prompt, image.width, number as u64)?)?;
        rebuilt.push(decoder.decode(&tokens)?);
        observer.progress("rebuilding", number as u64 + 1, total);
    }
    let rebuilt = score(rebuilt.iter().zip(asked()));
    Ok(ShapesResult { pictures: pictures.len(), sampling, drawn, rebuilt })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_count_nats_and_right_tokens_from_logits() {
        let (nats, is_right) = said_of(&[0.0, 0.0, 2f32.ln()], 2);
        assert!((nats - 2f64.ln()).abs() < 1e-6 && is_right);
        let (nats, is_right) = said_of(&[0.0, 0.0, 2f32.ln()], 0);
        assert!((nats - 4f64.ln()).abs() < 1e-6 && !is_right);
        // Of equal logits one alone is the largest.
        assert!(said_of(&[1.0, 1.0], 0).1 && !said_of(&[1.0, 1.0], 1).1);
        // Large ones do not overflow.
        assert!(said_of(&[1000.0, 0.0], 0).0.abs() < 1e-12);
    }

    #[test]
    fn should_say_by_how_much_words_help_and_how_surely() {
        let said = |nats, right| Said { nats, right };
        let mut sums = Sums::default();
        sums.add([said(10.0, 2), said(14.0, 1)]);
        sums.add([said(12.0, 0), said(10.0, 0)]);
        let result = sums.result(4);
        assert_eq!(result.conditional.nats_a_picture, 11.0);
        assert_eq!(result.conditional.nats_a_token, 2.75);
        assert_eq!(result.conditional.accuracy, 0.25);
        assert_eq!((result.nats_from_words, result.helped), (1.0, 0.5));
        // Of 4 and -2: a deviation of 3 √2, over √2.
        assert!((result.nats_from_words_error - 3.0).abs() < 1e-12);
    }
}
