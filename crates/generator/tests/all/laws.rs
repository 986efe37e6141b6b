//! What must hold of any generator, whatever its weights.

use burn::{
    module::Module,
    optim::GradientsParams,
    tensor::{Device, Int, Tensor},
};
use files::HostTensor;
use generator::{
    GeneratorConfig,
    reference::{Dropout, Generator, Predictability, loss},
};
use operations::parameters::{collect, gradients, replace};
use tokens::{
    TokenLayout,
    noise::{Noise, Purpose},
};

const CONFIG: GeneratorConfig = GeneratorConfig {
    layout: TokenLayout::new(3, 2, 4),
    codes: 16,
    classes: 4,
    width: 24,
    layers: 2,
    heads: 2,
    key_value_heads: None,
};

/// A model all of whose parameters are noise.
fn noisy(device: &Device) -> Generator {
    noisy_of(&CONFIG, device)
}

fn noisy_of(config: &GeneratorConfig, device: &Device) -> Generator {
    replace(config.build(device).unwrap(), |name, shape| {
        let mut noise = Noise::new(name.len() as u64, Purpose::Initialization, 0, 0);
        let values = (0..shape.iter().product()).map(|_| 0.3 * noise.normal() as f32);
        Some(HostTensor::new(shape, values.collect()))
    })
}

fn random_tokens(device: &Device) -> Tensor<2, Int> {
    let mut noise = Noise::new(5, Purpose::Order, 0, 0);
    let length = CONFIG.layout.len();
    let tokens: Vec<i64> = (0..2 * length).map(|_| noise.below(CONFIG.codes) as i64).collect();
    Tensor::<1, Int>::from_data(tokens.as_slice(), device).reshape([2, length])
}

fn classes(device: &Device) -> Tensor<1, Int> {
    let ids = [2, 0].map(|label| CONFIG.vocabulary().class(label).unwrap() as i64);
    Tensor::from_data(ids, device)
}

fn logits(model: &Generator, classes: Tensor<1, Int>, tokens: Tensor<2, Int>) -> HostTensor {
    operations::parameters::host_tensor(model.forward(classes, tokens, None))
}

/// Largest difference of two tensors at each position of `[batch, positions, codes]`.
fn differences(a: &HostTensor, b: &HostTensor) -> Vec<f32> {
    assert_eq!(a.shape, b.shape);
    let [_, positions, codes] = a.shape[..] else { panic!("{:?}", a.shape) };
    let mut worst = vec![0.0f32; positions];
    for (index, (a, b)) in a.values.iter().zip(&b.values).enumerate() {
        let position = index / codes % positions;
        worst[position] = worst[position].max((a - b).abs());
    }
    worst
}

#[test]
fn should_see_no_later_token() {
    let device = Device::flex();
    let model = noisy(&device);
    let tokens = random_tokens(&device);
    let before = logits(&model, classes(&device), tokens.clone());
    let length = CONFIG.layout.len();
    for token in 0..length {
        let column = [0..2, token..token + 1];
        let other = (tokens.clone().slice(column.clone()) + 1).remainder_scalar(16);
        let changed = tokens.clone().slice_assign(column, other);
        let differences = differences(&before, &logits(&model, classes(&device), changed));
        // Position i has seen the class and the tokens before i.
        assert!(differences[..=token].iter().all(|&difference| difference == 0.0));
        assert!(differences[token + 1..].iter().all(|&difference| difference > 1e-4));
    }
}

#[test]
fn should_see_its_class_everywhere() {
    let device = Device::flex();
    let model = noisy(&device);
    let before = logits(&model, classes(&device), random_tokens(&device));
    let after = logits(&model, classes(&device).flip([0]), random_tokens(&device));
    assert!(differences(&before, &after).iter().all(|&difference| difference > 1e-4));
}

#[test]
fn should_decode_with_the_cache_what_it_predicts_without() {
    let device = Device::flex();
    let model = noisy(&device);
    let tokens = random_tokens(&device);
    let length = CONFIG.layout.len();
    let mut cache = model.cache(2);
    assert!(cache.is_empty());
    let mut ids = classes(&device);
    let mut steps: Vec<Tensor<3>> = Vec::new();
    for token in 0..length {
        steps.push(model.step(ids, &mut cache).unsqueeze_dim(1));
        assert_eq!(cache.len(), token + 1);
        ids = tokens.clone().slice([0..2, token..token + 1]).reshape([2]);
    }
    let cached = operations::parameters::host_tensor(Tensor::cat(steps, 1));
    let inputs = tokens.slice([0..2, 0..length - 1]);
    let uncached = logits(&model, classes(&device), inputs);
    let worst = differences(&cached, &uncached).into_iter().fold(0.0, f32::max);
    assert!(worst < 1e-5, "{worst}");
}

#[test]
fn should_count_the_parameters_it_has() {
    for config in [CONFIG, GeneratorConfig { key_value_heads: Some(1), ..CONFIG }] {
        let values = collect(&config.build(&Device::flex()).unwrap());
        let count: usize = values.values().map(|tensor| tensor.values.len()).sum();
        assert_eq!(count, config.parameter_count());
    }
}

/// Condition ids `[2, count]`.
fn condition(count: usize, device: &Device) -> Tensor<2, Int> {
    let ids: Vec<i64> = (0..2 * count as i64).map(|at| at * 5 % 22).collect();
    Tensor::<1, Int>::from_data(ids.as_slice(), device).reshape([2, count])
}

#[test]
fn should_share_keys_and_values_between_heads() {
    let device = Device::flex();
    // Heads of their own with equal parameters compute what a shared head computes.
    let shared = GeneratorConfig { key_value_heads: Some(1), ..CONFIG };
    let grouped = noisy_of(&shared, &device);
    let parameters = collect(&grouped);
    let (width, head) = (CONFIG.width, CONFIG.head());
    let repeated = replace(CONFIG.build(&device).unwrap(), |name, shape| {
        let tensor = &parameters[name];
        if !name.contains("query_key_value") {
            return Some(tensor.clone());
        }
        let row = tensor.values.len() / (width + 2 * head);
        let (queries, others) = tensor.values.split_at(width * row);
        let (keys, values) = others.split_at(head * row);
        Some(HostTensor::new(shape, [queries, keys, keys, values, values].concat()))
    });
    let tokens = random_tokens(&device);
    let want = logits(&repeated, classes(&device), tokens.clone());
    assert_eq!(logits(&grouped, classes(&device), tokens.clone()), want);

    // As many shared heads as heads are what there was before.
    let all = noisy_of(&GeneratorConfig { key_value_heads: Some(2), ..CONFIG }, &device);
    let plain = logits(&noisy(&device), classes(&device), tokens.clone());
    assert_eq!(logits(&all, classes(&device), tokens), plain);
}

#[test]
fn should_learn_shared_keys_and_values_in_every_parameter() {
    let device = Device::flex().autodiff();
    let model = noisy_of(&GeneratorConfig { key_value_heads: Some(1), ..CONFIG }, &device);
    let tokens = random_tokens(&device);
    let inputs = tokens.clone().slice([0..2, 0..CONFIG.layout.len() - 1]);
    let loss = loss::cross_entropy(model.forward(classes(&device), inputs, None), tokens);
    let gradients = gradients(&model, &GradientsParams::from_grads(loss.backward(), &model));
    for (name, gradient) in gradients {
        assert!(gradient.values.iter().any(|&value| value != 0.0), "{name}");
    }
}

#[test]
fn should_see_no_later_id_after_a_condition_of_any_length() {
    let device = Device::flex();
    let model = noisy_of(&GeneratorConfig { key_value_heads: Some(1), ..CONFIG }, &device);
    let (count, tokens) = (3, random_tokens(&device));
    let run = |condition, tokens| {
        let logits = model.forward_after(condition, tokens, None, None);
        operations::parameters::host_tensor(logits)
    };
    let before = run(condition(count, &device), tokens.clone());
    let change = |ids: &Tensor<2, Int>, place: usize, limit: i64| {
        let column = [0..2, place..place + 1];
        let other = (ids.clone().slice(column.clone()) + 1).remainder_scalar(limit);
        ids.clone().slice_assign(column, other)
    };
    for place in 0..count + CONFIG.layout.len() {
        let after = match place.checked_sub(count) {
            None => run(change(&condition(count, &device), place, 22), tokens.clone()),
            Some(token) => run(condition(count, &device), change(&tokens, token, 16)),
        };
        let differences = differences(&before, &after);
        assert!(differences[..place].iter().all(|&difference| difference == 0.0), "{place}");
        assert!(differences[place..].iter().all(|&difference| difference > 1e-4), "{place}");
    }
}

#[test]
fn should_compute_as_the_engine_with_shared_heads_and_conditions_of_any_length() {
    let device = Device::flex();
    let tokens = random_tokens(&device);
    let length = CONFIG.layout.len();
    for (key_value_heads, count) in [(None, 1), (None, 4), (Some(1), 1), (Some(1), 37)] {
        let config = GeneratorConfig { key_value_heads, ..CONFIG };
        let model = noisy_of(&config, &device);
        let mut file = Vec::new();
        files::safetensors::write_to(
            &mut file,
            &collect(&model),
            files::safetensors::StorageFormat::F32,
            &Default::default(),
        )
        .unwrap();
        let file = files::safetensors::TensorFile::from_bytes("noisy", file);
        let pool = std::sync::Arc::new(engine::Pool::new(2));
        let engine = engine::Generator::load(file, &config, engine::Precision::F32, pool).unwrap();

        let known = tokens.clone().slice([0..2, 0..length - 1]);
        let condition = condition(count, &device);
        let want = model.forward_after(condition.clone(), known.clone(), None, None);
        let want = operations::parameters::host_tensor(want);

        // Likewise with the cache, which both sequences fill side by side.
        let all = Tensor::cat(vec![condition, known], 1);
        let mut cache = model.cache_after(count, 2);
        let mut steps: Vec<Tensor<3>> = Vec::new();
        for position in 0..cache.capacity() {
            let ids = all.clone().slice([0..2, position..position + 1]).reshape([2]);
            steps.push(model.step(ids, &mut cache).unsqueeze_dim(1));
        }
        let cached = operations::parameters::host_tensor(Tensor::cat(steps, 1));
        let worst = differences(&cached, &want).into_iter().fold(0.0, f32::max);
        assert!(worst < 1e-5, "{worst} from the cache");

        let ids: Vec<i64> = all.into_data().convert::<i64>().try_into_vec().unwrap();
        let ids: Vec<usize> = ids.into_iter().map(|id| id as usize).collect();
        let mut session = engine.session_after(count, 2).unwrap();
        let mut got = vec![Vec::new(); 2];
        let positions = count + length - 1;
        for start in (0..positions).step_by(5) {
            let end = (start + 5).min(positions);
            let step = |slot: usize| engine::sequence::Step {
                slot,
                condition: count,
                start,
                ids: &ids[slot * positions..][start..end],
                logits: end - start,
            };
            engine.step(&mut session, &[step(0), step(1)]);
            let mut row = vec![0.0; CONFIG.codes];
            for (slot, got) in got.iter_mut().enumerate() {
                for place in 0..end - start {
                    session.logits(slot * (end - start) + place, &mut row);
                    got.extend(&row);
                }
            }
        }
        let got = HostTensor::new(want.shape.clone(), got.concat());
        let worst = differences(&got, &want).into_iter().fold(0.0, f32::max);
        assert!(worst < 1e-5, "{worst} from the engine, {key_value_heads:?} {count}");
    }
}

#[test]
fn should_begin_as_a_pure_function_of_the_seed() {
    let device = Device::flex();
    let begin = |seed| collect(&CONFIG.initialize(seed, &device).unwrap());
    let values = begin(1);
    assert_eq!(values, begin(1));
    let other = begin(2);
    for (name, tensor) in &values {
        let kind = name.rsplit_once('.').unwrap();
        let constant = match kind {
            (parent, _) if parent.ends_with("norm") => Some(1.0),
            (_, "bias") | ("output", _) => Some(0.0),
            _ => None,
        };
        if let Some(constant) = constant {
            assert!(tensor.values.iter().all(|&value| value == constant), "{name}");
            continue;
        }
        assert_ne!(tensor, &other[name], "{name}");
        let count = tensor.values.len() as f32;
        let variance = tensor.values.iter().map(|value| value * value).sum::<f32>() / count;
        assert!((variance.sqrt() - 0.02).abs() < 0.003, "{name}: {variance}");
    }
    assert_ne!(
        values["blocks.0.attention.query_key_value.weight"].values,
        values["blocks.1.attention.query_key_value.weight"].values
    );
}

#[test]
fn should_find_all_codes_equally_likely_before_training() {
    let device = Device::flex();
    let model = CONFIG.initialize(1, &device).unwrap();
    let tokens = random_tokens(&device);
    let inputs = tokens.clone().slice([0..2, 0..CONFIG.layout.len() - 1]);
    let loss = loss::cross_entropy(model.forward(classes(&device), inputs, None), tokens);
    assert!((loss.into_scalar::<f32>() - (CONFIG.codes as f32).ln()).abs() < 1e-6);
}

#[test]
fn should_drop_the_same_of_a_sample_in_any_batch() {
    let device = Device::flex();
    let model = noisy(&device);
    let tokens = random_tokens(&device);
    let dropped = |classes, tokens, first_sample| {
        let dropout = Dropout { rate: 0.1, seed: 1, step: 2, first_sample };
        operations::parameters::host_tensor(model.forward(classes, tokens, Some(&dropout)))
    };
    let together = dropped(classes(&device), tokens.clone(), 0);
    let length = CONFIG.layout.len();
    let second_class = classes(&device).narrow(0, 1, 1);
    let second = dropped(second_class.clone(), tokens.clone().slice([1..2, 0..length]), 1);
    let half = together.values.len() / 2;
    let worst = together.values[half..]
        .iter()
        .zip(&second.values)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max);
    assert!(worst < 1e-5, "{worst}");
    let undropped = logits(&model, classes(&device), tokens.clone());
    assert!(differences(&together, &undropped).iter().all(|&difference| difference > 1e-3));
    assert_ne!(dropped(classes(&device), tokens, 2), together);
}

#[test]
fn should_drop_embedded_tokens_too() {
    let device = Device::flex();
    let model = noisy(&device);
    let dropout = Dropout { rate: 1.0 - 2f64.powi(-40), seed: 1, step: 2, first_sample: 0 };
    let logits = model.forward(classes(&device), random_tokens(&device), Some(&dropout));
    // Nothing is left but the bias of the output layer.
    let bias = model.output.bias.as_ref().unwrap().val().unsqueeze::<3>().expand(logits.dims());
    assert_eq!(
        operations::parameters::host_tensor(logits),
        operations::parameters::host_tensor(bias)
    );
}

#[test]
fn should_learn_through_dropout_in_every_parameter() {
    let device = Device::flex().autodiff();
    let model = noisy(&device);
    let tokens = random_tokens(&device);
    let inputs = tokens.clone().slice([0..2, 0..CONFIG.layout.len() - 1]);
    let dropout = Dropout { rate: 0.1, seed: 1, step: 2, first_sample: 0 };
    let loss = loss::cross_entropy(model.forward(classes(&device), inputs, Some(&dropout)), tokens);
    let gradients = gradients(&model, &GradientsParams::from_grads(loss.backward(), &model));
    assert_eq!(gradients.len(), collect(&model).len());
    for (name, gradient) in gradients {
        assert!(gradient.values.iter().any(|&value| value != 0.0), "{name}");
    }
}

#[test]
fn should_survive_a_move_off_the_autodiff_device() {
    let device = Device::flex();
    let trained = noisy(&device.clone().autodiff());
    let tokens = random_tokens(&device);
    let want = logits(&noisy(&device), classes(&device), tokens.clone());
    assert_eq!(logits(&trained.valid(), classes(&device), tokens), want);
}

#[test]
fn should_judge_each_position_as_training_judges_all() {
    let device = Device::flex();
    let model = noisy(&device);
    let tokens = random_tokens(&device);
    let length = CONFIG.layout.len();
    let mut whole = Predictability::new(CONFIG.layout);
    whole.add(&model, classes(&device), tokens.clone());
    let known = tokens.clone().slice([0..2, 0..length - 1]);
    let logits = model.forward(classes(&device), known, None);
    let mean = |values: Vec<f64>| values.iter().sum::<f64>() / length as f64;
    let loss = loss::cross_entropy(logits.clone(), tokens.clone()).into_scalar::<f32>();
    assert!((mean(whole.losses()) - f64::from(loss)).abs() < 1e-5);
    let accuracy = loss::accuracy(logits.clone(), tokens.clone()).into_scalar::<f32>();
    assert!((mean(whole.accuracies()) - f64::from(accuracy)).abs() < 1e-6);

    // Each position has its own: here of position 3 alone.
    let place = [0..2, 3..4];
    let own = loss::cross_entropy(
        logits.slice([0..2, 3..4, 0..CONFIG.codes]),
        tokens.clone().slice(place),
    );
    assert!((whole.losses()[3] - f64::from(own.into_scalar::<f32>())).abs() < 1e-5);

    // Sequences one by one are the same.
    let mut parts = Predictability::new(CONFIG.layout);
    for row in 0..2 {
        let class = classes(&device).narrow(0, row, 1);
        parts.add(&model, class, tokens.clone().narrow(0, row, 1));
    }
    assert_eq!(parts.sequences(), 2);
    for (one, other) in parts.losses().iter().zip(whole.losses()) {
        assert!((one - other).abs() < 1e-5);
    }
}
