//! The modules on Burn against `transformers` in PyTorch (`tests/fixtures/text_tiny`), and their laws.

#![allow(clippy::unwrap_used)] // a test panics

use std::fs;

use burn::{
    optim::GradientsParams,
    tensor::{Device, Tensor},
};
use files::{HostTensor, TensorMap, safetensors};
use fixtures::{Tensors, fixture};
use generator::Condition;
use language::{
    HuggingFaceFolder, ImageSide, LanguageConfig, PicturePositions, Prompts, presets,
    reference::{LanguageModel, Sequence, loss::losses},
};
use operations::{
    parameters,
    tape::{Keep, Tape},
};
use tokens::{
    CodebookIndex, TokenLayout,
    noise::{Noise, Purpose},
};

const LAYOUT: TokenLayout = TokenLayout::new(17, 16, 16);
const CODES: usize = 64;

fn prompts() -> Vec<String> {
    #[derive(serde::Deserialize)]
    struct File {
        prompts: Vec<String>,
    }
    let text = fs::read_to_string(fixture("text_tiny/prompts.json")).unwrap();
    serde_json::from_str::<File>(&text).unwrap().prompts
}

/// The fixture's model and how its prompts are written.
fn tiny(device: &Device) -> (LanguageModel, Prompts) {
    let mut folder = HuggingFaceFolder::open(fixture("text_tiny")).unwrap();
    let path = fixture("text_tiny/image_side.safetensors");
    let side = ImageSide::open(&path).unwrap();
    let config = folder.language_config(LAYOUT, [CODES, 8], Some(&side)).unwrap();
    let codebook = safetensors::read(&path).unwrap().remove("gen_embed.weight").unwrap();
    let (language, image_side) =
        (folder.tensors(&config).unwrap(), side.tensors(&config, &codebook).unwrap());
    let model = config.build(codebook, device).unwrap().load(language, image_side).unwrap();
    (model, Prompts::new(folder.tokenizer.into(), &config))
}

fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    parameters::host_tensor(x).values
}

fn largest_difference(got: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(got.len(), expected.len());
    got.iter().zip(expected).map(|(got, expected)| (got - expected).abs()).fold(0.0, f32::max)
}

/// Both halves of guidance of a prompt.
fn halves(condition: &Condition) -> [Vec<usize>; 2] {
    match condition {
        Condition::Prompt(prompt) => [prompt.ids.clone(), prompt.unconditional.clone()],
        _ => panic!("a prompt has ids"),
    }
}

#[test]
fn should_give_the_logits_of_text_that_transformers_gives() {
    let expected = Tensors::open("text_tiny/expected.safetensors");
    let (model, prompts_of) = tiny(&Device::flex());
    for (index, prompt) in prompts().iter().enumerate() {
        let ids = prompts_of.tokenizer().encode(prompt);
        let hidden = model.hidden(&[Sequence { prompt: &ids, codes: &[] }], None);
        let places: Vec<usize> = (0..ids.len()).collect();
        let logits = values(model.text_logits_at(hidden, &places));
        let expected = expected.floats(&format!("logits.{index}")).values;
        let difference = largest_difference(&logits, &expected);
        assert!(difference < 1e-4, "{prompt}: {difference}");
    }
}

#[test]
fn should_give_the_first_image_logits_that_transformers_gives_with_padding_behind_them() {
    let expected = Tensors::open("text_tiny/expected.safetensors");
    let (model, prompts_of) = tiny(&Device::flex());
    let texts = prompts();
    let all: Vec<[Vec<usize>; 2]> =
        texts.iter().map(|text| halves(&prompts_of.condition(text).unwrap())).collect();
    // Prompts of all lengths side by side, both halves of each.
    let sequences: Vec<Sequence<'_>> =
        all.iter().flatten().map(|prompt| Sequence { prompt, codes: &[] }).collect();
    let longest = sequences.iter().map(|sequence| sequence.prompt.len()).max().unwrap();
    let ends = sequences.iter().enumerate();
    let ends: Vec<usize> = ends.map(|(row, one)| row * longest + one.prompt.len() - 1).collect();
    let logits = values(model.code_logits(model.hidden(&sequences, None), &ends));
    for (index, pair) in logits.chunks_exact(2 * CODES).enumerate() {
        let (conditional, unconditional) = pair.split_at(CODES);
        let name = |guidance: usize| format!("first_image_logits.{index}.{guidance}");
        let difference = largest_difference(conditional, &expected.floats(&name(1)).values);
        assert!(difference < 1e-4, "{}: {difference}", name(1));
        let guided: Vec<f32> =
            conditional.iter().zip(unconditional).map(|(c, u)| u + 4.0 * (c - u)).collect();
        let difference = largest_difference(&guided, &expected.floats(&name(4)).values);
        // Either half within 1e-4: u + 4 (c - u) has four times the rounding of one and three times
        // that of the other, in both programs.
        assert!(difference < (4.0 + 3.0) * 1e-4, "{}: {difference}", name(4));
    }
}

#[test]
fn should_choose_the_greedy_tokens_that_transformers_chooses() {
    let expected = Tensors::open("text_tiny/expected.safetensors");
    let (model, prompts_of) = tiny(&Device::flex());
    for (index, text) in prompts().iter().enumerate() {
        let halves = halves(&prompts_of.condition(text).unwrap());
        for guidance in [1usize, 4] {
            let tokens = expected.integers(&format!("greedy.{index}.{guidance}"));
            let tokens: Vec<CodebookIndex> = tokens.iter().map(|&token| token as u16).collect();
            let codes = &tokens[..tokens.len() - 1];
            let sequences = halves.each_ref().map(|prompt| Sequence { prompt, codes });
            let (first, length) = (halves[0].len() - 1, halves[0].len() + codes.len());
            let hidden = model.hidden(&sequences, None);
            let logits = |row: usize| {
                let places: Vec<usize> =
                    (0..tokens.len()).map(|token| row * length + first + token).collect();
                values(model.code_logits(hidden.clone(), &places))
            };
            let (conditional, unconditional) = (logits(0), logits(1));
            let guided: Vec<f32> = conditional
                .iter()
                .zip(&unconditional)
                .map(|(c, u)| if guidance == 1 { *c } else { u + guidance as f32 * (c - u) })
                .collect();
            for (token, logits) in guided.chunks_exact(CODES).enumerate() {
                let largest = (0..CODES).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
                assert_eq!(largest, Some(usize::from(tokens[token])), "{text}, token {token}");
            }
        }
    }
}

/// A small architecture of either kind of head and of positions.
fn small(tied: bool, picture_positions: PicturePositions) -> LanguageConfig {
    LanguageConfig {
        vocabulary: 24,
        width: 16,
        layers: 2,
        heads: 4,
        key_value_heads: 2,
        hidden: 24,
        tied,
        positions: 64,
        picture_positions,
        adaptor_hidden: 12,
        head_hidden: 20,
        control: language::ControlTokens {
            message_start: 19,
            message_end: 20,
            picture_start: 21,
            picture_end: 22,
            padding: 23,
        },
        ..presets::qwen2_half_billion(TokenLayout::new(2, 2, 2), 8, 4)
    }
}

/// A model of noise that is large enough for every layer to matter.
fn noisy(config: &LanguageConfig, device: &Device) -> LanguageModel {
    let mut noise = Noise::new(5, Purpose::Initialization, 0, 0);
    let mut normal =
        |count: usize| -> Vec<f32> { (0..count).map(|_| 0.3 * noise.normal() as f32).collect() };
    let codebook = HostTensor::new([8, 4], normal(32));
    parameters::replace(config.build(codebook, device).unwrap(), |_, shape| {
        Some(HostTensor::new(shape, normal(shape.iter().product())))
    })
}

const FIRST: Sequence<'static> =
    Sequence { prompt: &[19, 3, 1, 20, 21], codes: &[1, 7, 0, 3, 5, 2] };
const SECOND: Sequence<'static> = Sequence { prompt: &[19, 21], codes: &[4, 4, 6, 1, 0, 0] };

#[test]
fn should_have_the_names_and_shapes_of_the_files() {
    for tied in [false, true] {
        let config = small(tied, PicturePositions::Sequence);
        let model = noisy(&config, &Device::flex());
        let shapes = |expected: Vec<(String, Vec<usize>)>| expected.into_iter().collect();
        assert_eq!(parameters::shapes(&model.language), shapes(config.language_shapes()));
        assert_eq!(parameters::shapes(&model.image_side), shapes(config.image_side_shapes()));
    }
}

#[test]
fn should_not_see_later_tokens_nor_other_sequences_nor_padding() {
    for positions in [PicturePositions::Sequence, PicturePositions::Grid] {
        let model = noisy(&small(true, positions), &Device::flex());
        let width = model.config().width;
        let alone = values(model.hidden(&[SECOND], None));
        let beside = values(model.hidden(&[FIRST, SECOND], None));
        let rows = &beside[(FIRST.prompt.len() + FIRST.codes.len()) * width..];
        assert!(largest_difference(&rows[..alone.len()], &alone) < 1e-6, "{positions:?}");

        let changed = Sequence { codes: &[4, 4, 6, 2, 0, 0], ..SECOND };
        let changed = values(model.hidden(&[changed], None));
        let (seen, place) = (5 * width, 6 * width);
        assert_eq!(changed[..seen], alone[..seen]);
        assert!(largest_difference(&changed[seen..place], &alone[seen..place]) > 1e-3);
    }
}

#[test]
fn should_place_pictures_by_rows_and_columns_where_the_config_says_so() {
    let hidden = |positions| {
        let model = noisy(&small(true, positions), &Device::flex());
        values(model.hidden(&[FIRST], None))
    };
    let (sequence, grid) = (hidden(PicturePositions::Sequence), hidden(PicturePositions::Grid));
    let prefix = (FIRST.prompt.len() + 2) * 16;
    assert_eq!(sequence[..prefix], grid[..prefix]);
    assert!(largest_difference(&sequence[prefix..], &grid[prefix..]) > 1e-3);
}

#[test]
fn should_have_the_gradients_that_the_losses_change_by() {
    let device = Device::flex().autodiff();
    for tied in [false, true] {
        let config = small(tied, PicturePositions::Grid);
        let model = noisy(&config, &device);
        let loss = |model: &LanguageModel| {
            losses(model, &[FIRST, SECOND], Some(&[0.7, 0.3]), None).weighted(0.5)
        };
        let gradients = GradientsParams::from_grads(loss(&model).backward(), &model);
        let gradients = parameters::gradients(&model, &gradients);
        assert_eq!(gradients.len(), parameters::shapes(&model).len(), "every parameter has one");
        for (name, gradient) in &gradients {
            let norm = gradient.values.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
            // Along the gradient of one parameter the loss changes by the gradient's length.
            let step = 4e-3;
            let moved = |sign: f64| {
                let moved = parameters::replace(model.clone(), |other, shape| {
                    let old = parameters::collect(&model).remove(other).unwrap();
                    (other == name).then(|| {
                        let pairs = old.values.iter().zip(&gradient.values);
                        let along = |(old, g): (&f32, &f32)| {
                            (f64::from(*old) + sign * step * f64::from(*g) / norm) as f32
                        };
                        HostTensor::new(shape, pairs.map(along).collect::<Vec<_>>())
                    })
                });
                f64::from(values(loss(&moved))[0])
            };
            let slope = (moved(1.0) - moved(-1.0)) / (2.0 * step);
            assert!((slope - norm).abs() < 0.02 * norm + 1e-3, "{name}: {slope} {norm}");
        }
    }
}

/// `tests/fixtures/text_tiny_gradients.py` says what was recorded.
#[test]
fn should_have_the_gradients_that_pytorch_has() {
    let recorded = Tensors::open("text_tiny_gradients.safetensors");
    let expected = Tensors::open("text_tiny/expected.safetensors");
    let (model, prompts_of) = tiny(&Device::flex().autodiff());
    let texts = prompts();
    let examples: Vec<(Vec<usize>, Vec<CodebookIndex>)> = (0..2)
        .map(|index| {
            let [ids, _] = halves(&prompts_of.condition(&texts[index]).unwrap());
            let tokens = expected.integers(&format!("greedy.{index}.1"));
            (ids, tokens.iter().map(|&token| token as u16).collect())
        })
        .collect();
    let sequences: Vec<Sequence<'_>> =
        examples.iter().map(|(prompt, codes)| Sequence { prompt, codes }).collect();
    assert_ne!(examples[0].0.len(), examples[1].0.len(), "one is followed by padding");
    let losses = losses(&model, &sequences, Some(&[0.7, 0.3]), None);
    for (name, loss) in [("picture", &losses.picture), ("text", losses.text.as_ref().unwrap())] {
        let (got, of) = (values(loss.clone())[0], recorded.floats(name).values[0]);
        assert!((got - of).abs() < 1e-5 * of, "{name}: {got}, expected {of}");
    }
    let gradients = GradientsParams::from_grads(losses.weighted(0.5).backward(), &model);
    let gradients = parameters::gradients(&model, &gradients);
    let names = recorded.names();
    assert_eq!(names.len(), 2 + 2 * gradients.len(), "of every parameter a norm and some values");
    for (name, gradient) in &gradients {
        let norm = recorded.floats(&format!("{name}.norm")).values[0];
        let got = gradient.values.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt() as f32;
        assert!((got - norm).abs() < 2e-5 * norm, "{name}: norm {got}, expected {norm}");
        let every = names.iter().find_map(|all| all.strip_prefix(&format!("{name}.every.")));
        let every = every.unwrap();
        let expected = recorded.floats(&format!("{name}.every.{every}")).values;
        let got: Vec<f32> =
            gradient.values.iter().step_by(every.parse().unwrap()).copied().collect();
        let difference = largest_difference(&got, &expected);
        assert!(difference < 2e-5 * norm, "{name}: {difference} of {norm}");
    }
}

#[test]
fn should_have_the_same_gradients_on_a_tape() {
    let device = Device::flex().autodiff();
    let model = noisy(&small(false, PicturePositions::Grid), &device);
    let plain = losses(&model, &[FIRST, SECOND], Some(&[0.7, 0.3]), None).weighted(0.5).backward();
    let plain = parameters::gradients(&model, &GradientsParams::from_grads(plain, &model));
    for keep in [Keep::Inputs, Keep::Activations] {
        let mut tape = Tape::new(keep);
        let loss =
            losses(&model, &[FIRST, SECOND], Some(&[0.7, 0.3]), Some(&mut tape)).weighted(0.5);
        let mut sums = TensorMap::new();
        tape.backward(loss, |part, _| {
            let part = GradientsParams::from_grads(part, &model);
            for (name, part) in parameters::gradients(&model, &part) {
                match sums.get_mut(&name) {
                    Some(sum) => {
                        sum.values.iter_mut().zip(part.values).for_each(|(sum, part)| *sum += part);
                    }
                    None => drop(sums.insert(name, part)),
                }
            }
        });
        assert_eq!(sums.len(), plain.len(), "{keep:?}");
        for (name, plain) in &plain {
            let difference = largest_difference(&sums[name].values, &plain.values);
            assert!(difference < 1e-5, "{keep:?}, {name}: {difference}");
        }
    }
}

#[test]
fn should_take_the_means_of_sequences_whatever_is_beside_them() {
    let model = noisy(&small(true, PicturePositions::Sequence), &Device::flex());
    let of = |sequences: &[Sequence<'_>], weights: &[f64]| {
        let losses = losses(&model, sequences, Some(weights), None);
        [losses.picture, losses.accuracy, losses.text.unwrap()].map(|loss| values(loss)[0])
    };
    let both = of(&[FIRST, SECOND], &[0.7, 0.3]);
    let (first, second) = (of(&[FIRST], &[1.0]), of(&[SECOND], &[1.0]));
    for (measure, shares) in [[0.5, 0.5], [0.5, 0.5], [0.7, 0.3]].into_iter().enumerate() {
        let mean = shares[0] * first[measure] + shares[1] * second[measure];
        assert!((both[measure] - mean).abs() < 1e-5, "{measure}: {both:?} {mean}");
    }
    // A prompt that does not count changes nothing, and is looked at only where no other is.
    assert_eq!(of(&[FIRST, SECOND], &[0.0, 0.0])[2], 0.0);
    assert!((of(&[FIRST, SECOND], &[0.0, 1.0])[2] - second[2]).abs() < 1e-5);
    let without = losses(&model, &[FIRST], None, None);
    assert!(without.text.is_none());
}

#[test]
fn should_leave_the_gradients_of_a_half_that_is_frozen_away() {
    let device = Device::flex().autodiff();
    let model = noisy(&small(false, PicturePositions::Sequence), &device);
    let gradients = |frozen: &LanguageModel| {
        let loss = losses(frozen, &[FIRST, SECOND], None, None).weighted(0.0).backward();
        parameters::gradients(&model, &GradientsParams::from_grads(loss, &model))
    };
    let all = gradients(&model);
    for (trains, section) in
        [([false, true], "image_side."), ([true, false], "language."), ([true, true], "")]
    {
        let some = gradients(&model.clone().training(trains[0], trains[1]));
        let expected: Vec<_> = all.iter().filter(|(name, _)| name.starts_with(section)).collect();
        assert_eq!(some.iter().collect::<Vec<_>>(), expected, "{section}");
    }
}
