//! The released code's numbers at reduced width (tests/fixtures/generator.*), every parameter
//! perturbed: forward, loss and gradients, guidance with and without the cache.

use burn::{
    optim::GradientsParams,
    tensor::{Device, Int, Tensor, TensorData},
};
use files::TensorMap;
use fixtures::{Tensors, assert_close, fixture, largest};
use generator::{
    Condition, GeneratorConfig, Request, SamplingConfig, guidance,
    reference::{Generator, Sequences, loss},
};
use operations::parameters::{collect, gradients, load};
use tokens::TokenLayout;
use weights::Checkpoint;

/// Sizes of the fixture: the released layout at 256 pixels, narrow and shallow.
const CONFIG: GeneratorConfig = GeneratorConfig {
    layout: TokenLayout::new(17, 16, 16),
    codes: 64,
    classes: 10,
    width: 64,
    layers: 2,
    heads: 4,
    key_value_heads: None,
};

/// A parameter's name in the released files.
fn released_name(name: &str) -> String {
    [
        ("embedding.", "embeddings."),
        (".attention_norm.", ".norm1."),
        (".feed_forward_norm.", ".norm2."),
        (".attention.", ".attn."),
        (".query_key_value.", ".qkv."),
        (".query_norm.", ".q_norm."),
        (".key_norm.", ".k_norm."),
        (".projection.", ".proj."),
        (".feed_forward.", ".mlp."),
        (".gate.", ".w1."),
        (".up.", ".w3."),
        (".down.", ".w2."),
    ]
    .into_iter()
    .fold(name.to_owned(), |name, (ours, theirs)| name.replace(ours, theirs))
}

fn released_model(file: &str, device: &Device) -> Generator {
    let mut released = Checkpoint::read(fixture(file)).unwrap().tensors;
    let model = CONFIG.build(device).unwrap();
    let tensors: TensorMap = collect(&model)
        .into_keys()
        .map(|name| {
            let tensor = released.remove(&released_name(&name)).unwrap();
            (name, tensor)
        })
        .collect();
    assert!(released.is_empty(), "every released tensor has its parameter: {released:?}");
    load(model, tensors).unwrap()
}

/// Integers of a fixture, on a device.
fn integers<const D: usize>(expected: &Tensors, name: &str, device: &Device) -> Tensor<D, Int> {
    Tensor::from_data(TensorData::new(expected.integers(name), expected.shape(name)), device)
}

/// Compares guided logits over the temperature. Guidance adds s parts of the conditional and
/// s − 1 parts of the unconditional logits, and their errors with them: each may be 1e-5 off.
fn assert_guided(conditional: Tensor<3>, unconditional: Tensor<3>, expected: &Tensors) {
    let [strength, power, temperature] = expected.doubles("guidance")[..] else { panic!() };
    let length = CONFIG.layout.len();
    let want = expected.floats("guided_logits");
    let conditional = operations::parameters::host_tensor(conditional);
    let unconditional = operations::parameters::host_tensor(unconditional);
    assert_eq!(conditional.shape, want.shape);
    let rows = conditional.values.chunks(CONFIG.codes);
    let rows = rows.zip(unconditional.values.chunks(CONFIG.codes));
    for (index, ((conditional, unconditional), want)) in
        rows.zip(want.values.chunks(CONFIG.codes)).enumerate()
    {
        let scale = guidance::scale(strength, power, index % length, length);
        let allowed = 1e-5 * (2.0 * scale - 1.0) / temperature;
        let mut guided = conditional.to_vec();
        guidance::guide(&mut guided, unconditional, scale);
        for (got, &want) in guided.into_iter().zip(want) {
            let difference = (f64::from(got) / temperature - f64::from(want)).abs();
            assert!(difference <= allowed, "row {index} differs by {difference} > {allowed}");
        }
    }
}

#[test]
fn should_give_the_released_logits() {
    let expected = Tensors::open("generator.safetensors");
    let device = Device::flex();
    let model = released_model("generator.pth", &device);
    let classes = integers(&expected, "condition_ids", &device);
    let logits = model.forward(classes, integers(&expected, "tokens", &device), None);
    let want = expected.floats("logits");
    assert_close("logits", &operations::parameters::host_tensor(logits), &want, 1e-5);
}

#[test]
fn should_name_classes_as_the_released_code_does() {
    let expected = Tensors::open("generator.safetensors");
    let device = Device::flex();
    let labels = integers::<1>(&expected, "labels", &device).into_data();
    let ids = integers::<1>(&expected, "condition_ids", &device).into_data();
    for (label, id) in labels.iter::<i64>().zip(ids.iter::<i64>()) {
        assert_eq!(CONFIG.vocabulary().class(label as usize), Ok(id as usize));
    }
}

#[test]
fn should_give_the_released_guidance_scales() {
    let expected = Tensors::open("generator.safetensors");
    let [strength, power, _] = expected.doubles("guidance")[..] else { panic!() };
    let length = CONFIG.layout.len();
    let scales = expected.doubles("guidance_scales");
    assert_eq!(scales.len(), length);
    for (index, want) in scales.into_iter().enumerate() {
        // The released code computes them in f32.
        let got = guidance::scale(strength, power, index, length);
        assert!((got - want).abs() < 1e-6, "{index}: {got} {want}");
    }
}

#[test]
fn should_give_the_released_guided_logits_without_the_cache() {
    let expected = Tensors::open("generator.safetensors");
    let device = Device::flex();
    let model = released_model("generator.pth", &device);
    let classes = integers::<1>(&expected, "condition_ids", &device);
    let nobody = Tensor::full([2], CONFIG.vocabulary().unconditional() as i64, &device);
    let length = CONFIG.layout.len();
    let [conditional, unconditional] = [classes, nobody].map(|classes| {
        let tokens = integers::<2>(&expected, "tokens", &device).slice([0..2, 0..length - 1]);
        model.forward(classes, tokens, None)
    });
    assert_guided(conditional, unconditional, &expected);
}

#[test]
fn should_give_the_released_guided_logits_with_the_cache() {
    let expected = Tensors::open("generator.safetensors");
    let device = Device::flex();
    let model = released_model("generator.pth", &device);
    let classes = integers::<1>(&expected, "condition_ids", &device);
    let nobody = Tensor::full([2], CONFIG.vocabulary().unconditional() as i64, &device);
    let tokens = integers::<2>(&expected, "tokens", &device);
    let mut ids = Tensor::cat(vec![classes, nobody], 0);
    let mut cache = model.cache(4);
    let mut steps: Vec<Tensor<3>> = Vec::new();
    for index in 0..CONFIG.layout.len() {
        steps.push(model.step(ids, &mut cache).unsqueeze_dim(1));
        let column = tokens.clone().slice([0..2, index..index + 1]).reshape([2]);
        ids = column.repeat_dim(0, 2);
    }
    assert_eq!(cache.len(), cache.capacity());
    let [conditional, unconditional] = Tensor::cat(steps, 1).split(2, 0).try_into().unwrap();
    assert_guided(conditional, unconditional, &expected);
}

#[test]
fn should_give_the_released_loss_accuracy_and_gradients() {
    let expected = Tensors::open("generator.safetensors");
    let device = Device::flex().autodiff();
    let model = released_model("generator.pth", &device);
    let classes = integers(&expected, "condition_ids", &device);
    let tokens = integers::<2>(&expected, "tokens", &device);
    let length = CONFIG.layout.len();
    let inputs = tokens.clone().slice([0..2, 0..length - 1]);
    let logits = model.forward(classes, inputs, None);
    let accuracy = loss::accuracy(logits.clone(), tokens.clone());
    let loss = loss::cross_entropy(logits, tokens);
    let of = |tensor: Tensor<1>| operations::parameters::host_tensor(tensor);
    assert_close("accuracy", &of(accuracy), &expected.floats("accuracy"), 1e-7);
    assert_close("loss", &of(loss.clone()), &expected.floats("loss"), 1e-5);

    let gradients = gradients(&model, &GradientsParams::from_grads(loss.backward(), &model));
    assert_eq!(gradients.len(), collect(&model).len(), "every parameter has a gradient");
    for (name, got) in gradients {
        let want = expected.floats(&format!("grad.{}", released_name(&name)));
        assert_close(&name, &got, &want, 1e-4 * largest(&want));
    }
}

#[test]
fn should_choose_the_released_tokens_of_a_whole_small_model() {
    let expected = Tensors::open("released_tiny/expected.safetensors");
    let device = Device::flex();
    let model = released_model("released_tiny/generator.bin", &device);
    let labels = integers::<1>(&expected, "greedy_labels", &device).into_data();
    let requests: Vec<Request> = labels
        .iter::<i64>()
        .map(|label| Request {
            condition: Condition::Class(label as usize),
            seed: 0,
            index: 0,
            forced: Vec::new(),
        })
        .collect();
    let greedy = SamplingConfig {
        guidance: 4.0,
        guidance_power: 1.3,
        temperature: 0.0,
        ..SamplingConfig::default()
    };
    let mut drawn = Vec::new();
    for requests in requests.chunks(Sequences::capacity(&greedy)) {
        let mut sequences = Sequences::new(&model, requests.to_vec(), &greedy).unwrap();
        while !sequences.is_finished() {
            sequences.step().unwrap();
        }
        drawn.extend((0..requests.len()).flat_map(|index| sequences.tokens(index).to_vec()));
    }
    let want = integers::<2>(&expected, "greedy_tokens", &device).into_data();
    assert!(drawn.into_iter().map(i64::from).eq(want.iter::<i64>()));
}
