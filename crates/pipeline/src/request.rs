//! What is asked for, with the same defaults for every door.

use generator::{Condition, GeneratorConfig, Request, SamplingConfig};
use language::{PromptError, Prompts};
use model::Model;

use crate::PipelineError;

/// Sampling options that a person gave; `None` leaves the model's default.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct SamplingChanges {
    /// See [`SamplingConfig::guidance`].
    pub guidance: Option<f64>,
    /// See [`SamplingConfig::guidance_power`].
    pub guidance_power: Option<f64>,
    /// See [`SamplingConfig::temperature`].
    pub temperature: Option<f64>,
    /// See [`SamplingConfig::top_k`].
    pub top_k: Option<usize>,
    /// See [`SamplingConfig::top_p`].
    pub top_p: Option<f64>,
}

/// The model's sampling defaults with these changes.
///
/// # Errors
/// If an option is out of range.
pub fn sampling(model: &Model, changes: &SamplingChanges) -> Result<SamplingConfig, PipelineError> {
    let defaults = model.config.sampling;
    let sampling = SamplingConfig {
        guidance: changes.guidance.unwrap_or(defaults.guidance),
        guidance_power: changes.guidance_power.unwrap_or(defaults.guidance_power),
        temperature: changes.temperature.unwrap_or(defaults.temperature),
        top_k: changes.top_k.unwrap_or(defaults.top_k),
        top_p: changes.top_p.unwrap_or(defaults.top_p),
    };
    sampling.validate()?;
    Ok(sampling)
}

/// Refuses more pictures of each of so many classes or prompts than memory can keep track of.
///
/// # Errors
/// [`PipelineError::Count`].
pub fn check_count(classes: usize, count: usize) -> Result<(), PipelineError> {
    /// Bytes that a request, its place in the queue and its result take, without their tokens.
    const BYTES: u128 = 512;
    /// More are not numbered.
    const MOST: u128 = 1 << 40;
    let count = classes as u128 * count as u128;
    let available = machine::available_memory().map_or(u128::MAX, u128::from);
    match count > MOST || count * BYTES > available {
        true => Err(PipelineError::Count { count }),
        false => Ok(()),
    }
}

/// `count` pictures of each condition, in turn: picture i has condition i mod C and index i of the seed's noise.
fn requests(conditions: &[Condition], count: usize, seed: u64) -> Vec<Request> {
    (0..count * conditions.len())
        .map(|index| Request {
            condition: conditions[index % conditions.len()].clone(),
            seed,
            index: index as u64,
            forced: Vec::new(),
        })
        .collect()
}

/// `count` pictures of each class, in turn: picture i is of class i mod C and has index i of the seed's
/// noise.
pub fn class_requests(classes: &[usize], count: usize, seed: u64) -> Vec<Request> {
    let conditions: Vec<Condition> = classes.iter().map(|&class| Condition::Class(class)).collect();
    requests(&conditions, count, seed)
}

/// `count` pictures of each prompt, in turn: picture i is of prompt i mod P and has index i of the seed's
/// noise.
///
/// # Errors
/// If a prompt is empty or too long.
pub fn prompt_requests(
    prompts: &Prompts,
    texts: &[String],
    count: usize,
    seed: u64,
) -> Result<Vec<Request>, PromptError> {
    let conditions: Vec<Condition> =
        texts.iter().map(|text| prompts.condition(text)).collect::<Result<_, _>>()?;
    Ok(requests(&conditions, count, seed))
}

/// `count` pictures of no prompt, as training draws where it leaves the caption out.
pub fn requests_without_prompt(prompts: &Prompts, count: usize, seed: u64) -> Vec<Request> {
    requests(&[prompts.no_condition()], count, seed)
}

/// `count` pictures of no class: the generator is told what it was told where training left the class
/// out, which it has learned as it has any class. Guidance changes nothing then.
pub fn requests_without_class(
    generator: &GeneratorConfig,
    count: usize,
    seed: u64,
) -> Vec<Request> {
    let none = vec![generator.vocabulary().unconditional()];
    let condition = Condition::Ids { conditional: none.clone(), unconditional: none };
    requests(&[condition], count, seed)
}
