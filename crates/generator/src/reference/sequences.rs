//! Sequences that are decoded in step, from requests.

use burn::tensor::{DType, Int, Tensor};
use tokens::{
    CodebookIndex,
    noise::{Noise, Purpose},
};

use crate::reference::{cache::KeyValueCache, model::Generator};
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

/// Pictures that are decoded side by side, a token at a time. The model should be on a device
/// without gradients (`model.valid()`).
pub struct Sequences<'a> {
    model: &'a Generator,
    requests: Vec<Request>,
    sampling: SamplingConfig,
    cache: KeyValueCache,
    /// What the model reads next in each of the [`ROWS`].
    ids: Vec<i64>,
    /// The tokens of each request that are decided.
    pictures: Vec<Vec<CodebookIndex>>,
    /// `[ROWS, codes]` of the last step, guided where guidance is on.
    logits: Vec<f32>,
}

impl<'a> Sequences<'a> {
    /// How many pictures are decoded side by side at most: a guided one takes two [`ROWS`].
    pub fn capacity(sampling: &SamplingConfig) -> usize {
        if guidance::is_guided(sampling.guidance) { ROWS / 2 } else { ROWS }
    }

    /// How many sequences should be decoded at the same time, each on a thread of its own: one for
    /// each thread if the model is so small that Burn's CPU backend computes each matrix product on
    /// a single one, else one.
    pub fn at_the_same_time(model: &Generator) -> usize {
        /// Products of fewer multiplications run on one thread (`burn-flex`, `PARALLEL_THRESHOLD`).
        const PARALLEL_PRODUCT: usize = 192 * 192 * 192;
        let config = model.config();
        let product = ROWS * config.width * config.hidden().max(3 * config.width);
        let on_cpu = operations::fused::is_fusible(&model.embedding.weight.val());
        if on_cpu && product < PARALLEL_PRODUCT { rayon::current_num_threads() } else { 1 }
    }

    /// Reads the conditions of `requests`. No token is decided yet.
    ///
    /// # Errors
    /// If an option, a class or a forced token is out of range, before anything is computed.
    ///
    /// # Panics
    /// Without requests, with more than [`capacity`](Self::capacity), or if their conditions are of
    /// several lengths, because sequences go on in step.
    pub fn new(
        model: &'a Generator,
        requests: Vec<Request>,
        sampling: &SamplingConfig,
    ) -> Result<Self, GenerateError> {
        sampling.validate()?;
        for request in &requests {
            request.validate(model.config(), sampling)?;
        }
        let slots = Self::capacity(sampling);
        assert!((1..=slots).contains(&requests.len()), "{} requests", requests.len());
        let count = requests[0].condition.length();
        let alike = requests.iter().all(|request| request.condition.length() == count);
        assert!(alike, "the conditions are of several lengths");

        // Conditional rows first, then, under guidance, the unconditional ones.
        let vocabulary = model.config().vocabulary();
        let mut conditions = Vec::with_capacity(ROWS);
        for row in 0..ROWS {
            let condition = &requests[(row % slots).min(requests.len() - 1)].condition;
            conditions.push(match row < slots {
                true => condition.ids(vocabulary)?,
                false => condition.unconditional_ids(vocabulary),
            });
        }
        let pictures = vec![Vec::with_capacity(model.config().layout.len()); requests.len()];
        let mut sequences = Self {
            model,
            requests,
            sampling: *sampling,
            cache: model.cache_after(count, ROWS),
            ids: vec![0; ROWS],
            pictures,
            logits: Vec::new(),
        };
        for position in 0..count {
            if position > 0 {
                sequences.read();
            }
            for (id, condition) in sequences.ids.iter_mut().zip(&conditions) {
                *id = condition[position] as i64;
            }
        }
        Ok(sequences)
    }

    /// The model's logits after the next ids, `[ROWS, codes]`.
    fn read(&mut self) -> Tensor<2> {
        let device = self.model.embedding.weight.device();
        let ids = Tensor::<1, Int>::from_data(self.ids.as_slice(), &device);
        self.model.step(ids, &mut self.cache)
    }

    /// Decides the next token of every picture. Does nothing if they have all of theirs.
    ///
    /// # Errors
    /// [`GenerateError::NotANumber`] if the model's logits are not numbers.
    pub fn step(&mut self) -> Result<(), GenerateError> {
        if self.is_finished() {
            return Ok(());
        }
        let (codes, length) = (self.model.config().codes, self.model.config().layout.len());
        let slots = Self::capacity(&self.sampling);
        let token = self.pictures[0].len();
        let mut logits = self
            .read()
            .into_data()
            .convert_dtype(DType::F32)
            .try_into_vec::<f32>()
            .expect("the data was just converted to f32");
        if guidance::is_guided(self.sampling.guidance) {
            let (conditional, unconditional) = logits.split_at_mut(slots * codes);
            let (strength, power) = (self.sampling.guidance, self.sampling.guidance_power);
            let scale = guidance::scale(strength, power, token, length);
            guidance::guide(conditional, unconditional, scale);
        }
        for ((request, picture), logits) in
            self.requests.iter().zip(&mut self.pictures).zip(logits.chunks(codes))
        {
            let next = match request.forced.get(token) {
                Some(&forced) => forced,
                None => {
                    let step = token as u64;
                    let mut noise =
                        Noise::new(request.seed, Purpose::Sampling, step, request.index);
                    choose(logits, &self.sampling, &mut noise)
                        .ok_or(GenerateError::NotANumber { token })?
                }
            };
            picture.push(next);
        }
        for (row, id) in self.ids.iter_mut().enumerate() {
            *id = i64::from(self.pictures[(row % slots).min(self.requests.len() - 1)][token]);
        }
        self.logits = logits;
        Ok(())
    }

    /// The tokens of the `index`-th request that are decided.
    pub fn tokens(&self, index: usize) -> &[CodebookIndex] {
        &self.pictures[index]
    }

    /// Whether every picture has all of its tokens.
    pub fn is_finished(&self) -> bool {
        self.pictures[0].len() == self.model.config().layout.len()
    }
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
        let mut sequences = Sequences::new(model, batch.to_vec(), sampling).unwrap();
        while !sequences.is_finished() {
            sequences.step().unwrap();
            for (bits, logits) in bits.iter_mut().zip(sequences.logits.chunks(codes)) {
                bits.extend(logits.iter().map(|logit| logit.to_bits()));
            }
        }
        sequences.pictures.into_iter().zip(bits).collect()
    }

    /// A picture's tokens.
    fn generate(
        model: &Generator,
        request: Request,
        sampling: &SamplingConfig,
    ) -> Result<Vec<CodebookIndex>, GenerateError> {
        let mut sequences = Sequences::new(model, vec![request], sampling)?;
        while !sequences.is_finished() {
            sequences.step()?;
        }
        Ok(sequences.tokens(0).to_vec())
    }

    #[test]
    fn should_give_a_picture_the_same_logits_to_the_bit_in_any_batch_and_place() {
        let model = model();
        for sampling in [SAMPLING, SamplingConfig { guidance: 1.0, ..SAMPLING }] {
            let slots = Sequences::capacity(&sampling);
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
    fn should_draw_two_pictures_of_one_class_otherwise() {
        let model = model();
        let drawn = [0, 5].map(|index| generate(&model, request(index), &SAMPLING).unwrap());
        assert_eq!(request(0).condition, request(5).condition);
        assert_ne!(drawn[0], drawn[1], "pictures of one class differ by their noise");
    }

    #[test]
    fn should_draw_each_token_from_noise_of_its_own() {
        // Before training all logits are equal, and the noise alone decides.
        let model = model().config().initialize(1, &Device::flex()).unwrap();
        let sampling = SamplingConfig::default();
        let picture = generate(&model, request(4), &sampling).unwrap();
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
        let run = |request: Request| generate(&model, request, &SAMPLING).unwrap();
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
    fn should_refuse_requests_out_of_range() {
        let model = model();
        let run = |request: Request, sampling: SamplingConfig| {
            generate(&model, request, &sampling).unwrap_err()
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
        let error = generate(&model, request(0), &SAMPLING).unwrap_err();
        assert_eq!(error, GenerateError::NotANumber { token: 0 });
    }
}
