//! Pictures' tokens, from requests.

use std::{
    panic::resume_unwind,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use burn::tensor::{DType, Int, Tensor};
use tokens::{
    CodebookIndex,
    noise::{Noise, Purpose},
};

use crate::reference::model::Generator;
use crate::{
    guidance,
    request::{GenerateError, Request},
    sampler::{SamplingConfig, choose},
};

/// Sequences that are decoded together, always this many.
///
/// Matrix products on the CPU sum in an order that depends on how many rows they have. A fixed
/// number of rows, filled up where requests are fewer, is what makes a picture's tokens
/// independent of the other pictures in the batch. A guided picture takes two rows.
///
/// Measured on two cores of Zen 4, a step at 2, 4, 8 and 16 rows takes 0.7, 1.0, 1.7 and 3.0 ms
/// in `mini` and 33, 40, 51 and 65 ms in AliTok-B: 8 costs a lone picture little, and many
/// pictures hardly more than 16.
pub const ROWS: usize = 8;

/// The tokens of one picture, in the order of the layout.
type Picture = Vec<CodebookIndex>;

/// How far [`generate`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Tokens decided so far, over all pictures, forced ones included.
    pub done: usize,
    /// Tokens of all pictures.
    pub total: usize,
}

/// Generates the tokens of each request, in order. The model should be on a device without
/// gradients (`model.valid()`).
///
/// `progress` is called after every step of every batch.
///
/// # Errors
/// If an option, a class or a forced token is out of range, before anything is computed; or if
/// the model's logits are not numbers.
pub fn generate(
    model: &Generator,
    requests: &[Request],
    sampling: &SamplingConfig,
    progress: impl FnMut(Progress) + Send,
) -> Result<Vec<Picture>, GenerateError> {
    sampling.validate()?;
    let length = model.config().layout.len();
    for request in requests {
        request.validate(model.config(), sampling)?;
    }

    // Sequences of a batch go on in step, so their conditions must be of one length.
    let batches: Vec<&[Request]> = requests
        .chunk_by(|one, next| one.condition.length() == next.condition.length())
        .flat_map(|alike| alike.chunks(pictures_per_batch(sampling)))
        .collect();
    let total = requests.len() * length;
    let progress = Mutex::new((0, progress));
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<(usize, Vec<Picture>)>, GenerateError> {
        let mut finished = Vec::new();
        while let Some((index, batch)) = take(&batches, &next) {
            let pictures = decode(model, batch, sampling, |_| {
                // Only a panic of the callback itself could have poisoned the lock.
                let mut progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
                progress.0 += batch.len();
                let done = progress.0;
                (progress.1)(Progress { done, total });
            });
            if pictures.is_err() {
                next.store(batches.len(), Ordering::Relaxed);
            }
            finished.push((index, pictures?));
        }
        Ok(finished)
    };
    let workers = workers(model).min(batches.len());
    let mut finished = thread::scope(|scope| {
        let others: Vec<_> = (1..workers).map(|_| scope.spawn(work)).collect();
        let mut finished = work()?;
        for other in others {
            finished.extend(other.join().unwrap_or_else(|panic| resume_unwind(panic))?);
        }
        Ok::<_, GenerateError>(finished)
    })?;
    finished.sort_unstable_by_key(|&(index, _)| index);
    Ok(finished.into_iter().flat_map(|(_, pictures)| pictures).collect())
}

/// The next batch that nobody works on yet.
fn take<'a>(batches: &[&'a [Request]], next: &AtomicUsize) -> Option<(usize, &'a [Request])> {
    let index = next.fetch_add(1, Ordering::Relaxed);
    batches.get(index).map(|&batch| (index, batch))
}

/// Number of batches that are decoded at the same time: one for each thread if the model is so
/// small that Burn's CPU backend computes each matrix product on a single one, else one.
fn workers(model: &Generator) -> usize {
    /// Products of fewer multiplications run on one thread (`burn-flex`, `PARALLEL_THRESHOLD`).
    const PARALLEL_PRODUCT: usize = 192 * 192 * 192;
    let config = model.config();
    let product = ROWS * config.width * config.hidden().max(3 * config.width);
    let on_cpu = operations::fused::is_fusible(&model.embedding.weight.val());
    if on_cpu && product < PARALLEL_PRODUCT { rayon::current_num_threads() } else { 1 }
}

/// Number of pictures that are decoded together.
fn pictures_per_batch(sampling: &SamplingConfig) -> usize {
    if guidance::is_guided(sampling.guidance) { ROWS / 2 } else { ROWS }
}

/// Decodes at most [`pictures_per_batch`] requests side by side. `observe` is given the logits
/// `[ROWS, codes]` of every step, guided where guidance is on.
fn decode(
    model: &Generator,
    requests: &[Request],
    sampling: &SamplingConfig,
    mut observe: impl FnMut(&[f32]),
) -> Result<Vec<Picture>, GenerateError> {
    let config = model.config();
    let (vocabulary, length) = (config.vocabulary(), config.layout.len());
    let device = model.embedding.weight.device();
    let guided = guidance::is_guided(sampling.guidance);
    let slots = pictures_per_batch(sampling);
    let padded = |slot: usize| slot.min(requests.len() - 1);

    // Conditional rows first, then, under guidance, the unconditional ones.
    let mut conditions = Vec::with_capacity(ROWS);
    for row in 0..ROWS {
        let condition = &requests[padded(row % slots)].condition;
        conditions.push(match row < slots {
            true => condition.ids(vocabulary)?,
            false => condition.unconditional_ids(vocabulary),
        });
    }
    let count = requests[0].condition.length();
    let mut cache = model.cache_after(count, ROWS);
    let mut ids = vec![0; ROWS];
    for position in 0..count {
        if position > 0 {
            model.step(Tensor::<1, Int>::from_data(ids.as_slice(), &device), &mut cache);
        }
        for (id, condition) in ids.iter_mut().zip(&conditions) {
            *id = condition[position] as i64;
        }
    }

    let mut pictures = vec![Vec::with_capacity(length); requests.len()];
    for token in 0..length {
        let logits = model.step(Tensor::<1, Int>::from_data(ids.as_slice(), &device), &mut cache);
        let mut logits = logits
            .into_data()
            .convert_dtype(DType::F32)
            .try_into_vec::<f32>()
            .expect("the data was just converted to f32");
        if guided {
            let (conditional, unconditional) = logits.split_at_mut(slots * config.codes);
            let (strength, power) = (sampling.guidance, sampling.guidance_power);
            let scale = guidance::scale(strength, power, token, length);
            guidance::guide(conditional, unconditional, scale);
        }
        for ((request, picture), logits) in
            requests.iter().zip(&mut pictures).zip(logits.chunks(config.codes))
        {
            let next = match request.forced.get(token) {
                Some(&forced) => forced,
                None => {
                    let step = token as u64;
                    let mut noise =
                        Noise::new(request.seed, Purpose::Sampling, step, request.index);
                    choose(logits, sampling, &mut noise)
                        .ok_or(GenerateError::NotANumber { token })?
                }
            };
            picture.push(next);
        }
        for (row, id) in ids.iter_mut().enumerate() {
            *id = i64::from(pictures[padded(row % slots)][token]);
        }
        observe(&logits);
    }
    Ok(pictures)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use files::HostTensor;
    use operations::parameters::replace;
    use tokens::{TokenLayout, VocabularyError};

    use super::*;
    use crate::{config::GeneratorConfig, request::Condition, sampler::SamplingError};

    fn model() -> Generator {
        let layout = TokenLayout::new(3, 3, 4);
        // So wide that a product with one row takes another kernel, with other last bits.
        let (codes, classes, width, layers, heads) = (48, 5, 256, 2, 4);
        let config =
            GeneratorConfig { layout, codes, classes, width, layers, heads, key_value_heads: None };
        // Weights so large that every token and the class matter for the next token.
        replace(config.build(&Device::flex()).unwrap(), |name, shape| {
            let mut noise = Noise::new(name.len() as u64, Purpose::Initialization, 0, 0);
            let values = (0..shape.iter().product()).map(|_| 0.1 * noise.normal() as f32);
            (!name.ends_with("norm.weight")).then(|| HostTensor::new(shape, values.collect()))
        })
    }

    fn request(index: usize) -> Request {
        Request {
            condition: Condition::Class(index * 2 % 5),
            seed: 7,
            index: index as u64,
            forced: Vec::new(),
        }
    }

    const SAMPLING: SamplingConfig = SamplingConfig {
        guidance: 3.0,
        guidance_power: 1.0,
        temperature: 1.0,
        top_k: 40,
        top_p: 0.98,
    };

    /// A picture's tokens, and the bits of its logits at every step.
    fn traced(
        model: &Generator,
        batch: &[Request],
        sampling: &SamplingConfig,
    ) -> Vec<(Vec<CodebookIndex>, Vec<u32>)> {
        let codes = model.config().codes;
        let mut bits = vec![Vec::new(); batch.len()];
        let pictures = decode(model, batch, sampling, |logits| {
            for (bits, logits) in bits.iter_mut().zip(logits.chunks(codes)) {
                bits.extend(logits.iter().map(|logit| logit.to_bits()));
            }
        });
        pictures.unwrap().into_iter().zip(bits).collect()
    }

    #[test]
    fn should_give_a_picture_the_same_logits_to_the_bit_in_any_batch_and_place() {
        let model = model();
        for sampling in [SAMPLING, SamplingConfig { guidance: 1.0, ..SAMPLING }] {
            let slots = pictures_per_batch(&sampling);
            let alone = traced(&model, &[request(0)], &sampling).remove(0);
            for size in 1..=slots {
                for place in 0..size {
                    let mut batch: Vec<Request> = (1..=size).map(request).collect();
                    batch[place] = request(0);
                    let traced = traced(&model, &batch, &sampling);
                    assert!(traced[place] == alone, "place {place} of {size}");
                }
            }
        }
    }

    #[test]
    fn should_give_a_picture_the_same_tokens_in_any_number_of_requests() {
        let model = model();
        let run = |requests: &[Request]| generate(&model, requests, &SAMPLING, |_| ()).unwrap();
        let requests: Vec<Request> = (0..2 * ROWS + 1).map(request).collect();
        let together = run(&requests);
        for (request, picture) in requests.iter().zip(&together) {
            assert_eq!(run(std::slice::from_ref(request)).concat(), *picture);
        }
        assert_ne!(together[0], together[5], "pictures of one class differ by their noise");
        assert!(run(&[]).is_empty());
    }

    #[test]
    fn should_draw_each_token_from_noise_of_its_own() {
        // Before training all logits are equal, and the noise alone decides.
        let model = model().config().initialize(1, &Device::flex()).unwrap();
        let sampling = SamplingConfig::default();
        let picture = generate(&model, &[request(4)], &sampling, |_| ()).unwrap().remove(0);
        for (token, chosen) in picture.into_iter().enumerate() {
            let mut noise = Noise::new(7, Purpose::Sampling, token as u64, 4);
            let logits = vec![0.0; model.config().codes];
            assert_eq!(choose(&logits, &sampling, &mut noise), Some(chosen));
        }
    }

    #[test]
    fn should_take_guidance_one_and_its_alias_as_the_conditional_logits() {
        let model = model();
        let unguided = |guidance| {
            let sampling = SamplingConfig { guidance, ..SAMPLING };
            traced(&model, &[request(3)], &sampling).remove(0)
        };
        let (tokens, bits) = unguided(1.0);
        assert!(unguided(0.0) == (tokens.clone(), bits.clone()));
        assert!(unguided(2.0).1 != bits);

        let config = model.config();
        let class = config.vocabulary().class(6 % 5).unwrap() as i64;
        let mut cache = model.cache(ROWS);
        let mut id = class;
        for (token, bits) in tokens.iter().zip(bits.chunks(config.codes)) {
            let ids = Tensor::<1, Int>::from_data([id; ROWS], &Device::flex());
            let logits = model.step(ids, &mut cache).into_data().try_into_vec::<f32>().unwrap();
            assert!(logits.iter().map(|logit| logit.to_bits()).take(bits.len()).eq(bits.to_vec()));
            id = i64::from(*token);
        }
    }

    #[test]
    fn should_keep_forced_tokens_and_generate_the_rest_as_if_it_had_chosen_them() {
        let model = model();
        let run =
            |request: Request| generate(&model, &[request], &SAMPLING, |_| ()).unwrap().remove(0);
        let free = run(request(0));
        let kept = model.config().layout.len_of_rows(1);
        assert_eq!(run(Request { forced: free[..kept].to_vec(), ..request(0) }), free);
        let mut other = free[..kept].to_vec();
        other[1] = (other[1] + 1) % 48;
        let completed = run(Request { forced: other.clone(), ..request(0) });
        assert_eq!(completed[..kept], other);
        assert_ne!(completed[kept..], free[kept..]);
        assert_eq!(run(Request { forced: free.clone(), ..request(0) }), free);
    }

    #[test]
    fn should_report_progress_up_to_the_total() {
        let model = model();
        let requests: Vec<Request> = (0..5).map(request).collect();
        let mut seen = Vec::new();
        generate(&model, &requests, &SAMPLING, |progress| seen.push(progress)).unwrap();
        let total = 5 * model.config().layout.len();
        assert_eq!(seen.last(), Some(&Progress { done: total, total }));
        assert!(seen.windows(2).all(|pair| pair[0].done < pair[1].done));
    }

    #[test]
    fn should_refuse_requests_out_of_range() {
        let model = model();
        let run = |request: Request, sampling: SamplingConfig| {
            generate(&model, &[request], &sampling, |_| ()).unwrap_err()
        };
        let class = Request { condition: Condition::Class(5), ..request(0) };
        let class_error = VocabularyError::Class { label: 5, classes: 5 };
        assert_eq!(run(class, SAMPLING), GenerateError::Vocabulary(class_error));
        let token = Request { forced: vec![48], ..request(0) };
        let token_error = VocabularyError::Token { token: 48, codes: 48 };
        assert_eq!(run(token, SAMPLING), GenerateError::Vocabulary(token_error));
        let many = Request { forced: vec![0; 16], ..request(0) };
        let many_error = GenerateError::TooManyForced { forced: 16, length: 15 };
        assert_eq!(run(many, SAMPLING), many_error);
        let sampling = SamplingConfig { temperature: -1.0, ..SAMPLING };
        let sampling_error = GenerateError::Sampling(SamplingError::Temperature(-1.0));
        assert_eq!(run(request(0), sampling), sampling_error);
    }

    #[test]
    fn should_report_logits_that_are_no_numbers() {
        let model = replace(model(), |name, shape| {
            (name == "norm.weight").then(|| HostTensor::new(shape, vec![f32::NAN; shape[0]]))
        });
        let error = generate(&model, &[request(0)], &SAMPLING, |_| ()).unwrap_err();
        assert_eq!(error, GenerateError::NotANumber { token: 0 });
    }
}
