//! What must hold of the engine whatever the weights: a picture is its own request's, to the bit.

use std::{collections::BTreeMap, sync::Arc};

use engine::{
    Decoder, Drafts, Encoder, Event, Generator, JobId, Pool, Precision, Scheduler, Weights,
    sequence::{POSITIONS, Step},
};
use generator::{Condition, GenerateError, GeneratorConfig, Request, SamplingConfig};
use tokenizer::{
    DecoderConfig, DecoderKind, EncoderInput, ImageSize, TokenizerConfig, TransformerConfig,
};
use tokens::{
    CodebookIndex, TokenLayout,
    noise::{Noise, Purpose},
};

const PRECISIONS: [Precision; 4] = Precision::ALL;

fn model(precision: Precision, threads: usize) -> Generator {
    model_of(2, precision, threads)
}

fn config(layers: usize) -> GeneratorConfig {
    let layout = TokenLayout::new(5, 6, 7);
    // Heads that fill no block of 16, a hidden width of several panels.
    let (codes, classes, width, heads) = (70, 4, 48, 4);
    GeneratorConfig { layout, codes, classes, width, layers, heads, key_value_heads: None }
}

fn load(config: &GeneratorConfig, precision: Precision, threads: usize) -> Generator {
    Generator::load(Weights::Random, config, precision, Arc::new(Pool::new(threads))).unwrap()
}

fn model_of(layers: usize, precision: Precision, threads: usize) -> Generator {
    load(&config(layers), precision, threads)
}

/// A model whose query heads share two heads of keys and values.
fn grouped(precision: Precision, threads: usize) -> Generator {
    load(&GeneratorConfig { key_value_heads: Some(2), ..config(2) }, precision, threads)
}

fn request(index: u64, forced: usize) -> Request {
    let forced = (0..forced).map(|token| (token * 5 % 70) as CodebookIndex).collect();
    Request { condition: Condition::Class(index as usize % 4), seed: 11, index, forced }
}

fn sampling(index: u64) -> SamplingConfig {
    let guidance = [1.0, 3.0, 0.0, 7.5][index as usize % 4];
    let guidance_power = [1.0, 12.0][index as usize / 4 % 2];
    // So cold that the model has a say beside the noise, or so that it alone decides.
    let temperature = [1.0, 0.1, 0.02, 0.0][index as usize / 2 % 4];
    let (top_k, top_p) = [(0, 1.0), (20, 0.9)][index as usize / 3 % 2];
    SamplingConfig { guidance, guidance_power, temperature, top_k, top_p }
}

/// Draws the tokens of each request, in order, so many pictures at a time.
fn generate(
    model: &Generator,
    requests: &[Request],
    sampling: &SamplingConfig,
    pictures: usize,
) -> Vec<Vec<CodebookIndex>> {
    let mut scheduler = Scheduler::new(model, pictures).unwrap();
    let submit = |request: &Request| scheduler.submit(request.clone(), *sampling).unwrap();
    let jobs: Vec<JobId> = requests.iter().map(submit).collect();
    let (mut drawn, mut events) = (BTreeMap::new(), Vec::new());
    while !scheduler.is_idle() {
        scheduler.step(&mut events);
        for event in events.drain(..) {
            match event {
                Event::Row { .. } => {}
                Event::Finished { job, tokens } => drop(drawn.insert(job, tokens)),
                Event::Failed { error, .. } => panic!("{error}"),
            }
        }
    }
    jobs.iter().map(|job| drawn.remove(job).unwrap()).collect()
}

fn alone(model: &Generator, request: &Request, sampling: &SamplingConfig) -> Vec<CodebookIndex> {
    generate(model, std::slice::from_ref(request), sampling, 1).remove(0)
}

#[test]
fn should_draw_a_picture_as_if_it_were_alone_while_others_come_and_go() {
    for precision in PRECISIONS {
        let model = model(precision, 2);
        let expected: Vec<Vec<CodebookIndex>> = (0..14)
            .map(|index| alone(&model, &request(index, index as usize * 4 % 48), &sampling(index)))
            .collect();
        for round in 0..3 {
            come_and_go(&model, &expected, Drafts::None, 0, round);
        }
    }
}

#[test]
fn should_draw_the_same_whatever_is_tried_beside() {
    let other = model_of(1, Precision::F32, 2);
    for precision in [Precision::F32, Precision::Bf16] {
        let (model, rounded) = (model(precision, 2), model(Precision::Int8, 2));
        let expected: Vec<Vec<CodebookIndex>> = (0..14)
            .map(|index| alone(&model, &request(index, index as usize * 4 % 48), &sampling(index)))
            .collect();
        for drafts in [Drafts::Own, Drafts::Of(&other), Drafts::Of(&rounded)] {
            for (round, window) in [1, 3, 9, 40].into_iter().enumerate() {
                come_and_go(&model, &expected, drafts, window, round as u64);
            }
        }
    }
}

/// Requests that arrive and are cancelled at random, and what is told of them.
fn come_and_go(
    model: &Generator,
    expected: &[Vec<CodebookIndex>],
    drafts: Drafts<&Generator>,
    window: usize,
    round: u64,
) {
    let mut noise = Noise::new(round, Purpose::Order, 0, 0);
    let mut scheduler =
        Scheduler::new(model, 1 + noise.below(4)).unwrap().with_drafts(drafts, window).unwrap();
    let mut jobs: BTreeMap<JobId, usize> = BTreeMap::new();
    let mut cancelled = Vec::new();
    let (mut finished, mut events, mut next) = (Vec::new(), Vec::new(), 0);
    while next < 14 || !scheduler.is_idle() {
        while next < 14 && noise.below(3) == 0 {
            let request = request(next, next as usize * 4 % 48);
            jobs.insert(scheduler.submit(request, sampling(next)).unwrap(), next as usize);
            next += 1;
        }
        if noise.below(25) == 0 && !jobs.is_empty() {
            let job = *jobs.keys().nth(noise.below(jobs.len())).unwrap();
            if scheduler.cancel(job) {
                cancelled.push(job);
            }
            assert!(!scheduler.cancel(job));
        }
        scheduler.step(&mut events);
        for event in events.drain(..) {
            match event {
                Event::Row { job, tokens } => {
                    assert!(!cancelled.contains(&job));
                    assert_eq!(tokens, expected[jobs[&job]][..tokens.len()]);
                }
                Event::Finished { job, tokens } => {
                    assert!(!cancelled.contains(&job));
                    assert_eq!(tokens, expected[jobs[&job]], "{drafts:?} {window}");
                    finished.push(job);
                }
                Event::Failed { error, .. } => panic!("{error}"),
            }
        }
    }
    assert_eq!(finished.len() + cancelled.len(), 14);
}

#[test]
fn should_save_steps_as_far_as_drafts_are_right() {
    let (model, other) = (model(Precision::F32, 1), model_of(1, Precision::F32, 1));
    let length = model.config().layout.len();
    let steps = |drafts, temperature, rows: &mut usize| {
        let mut scheduler = Scheduler::new(&model, 1).unwrap().with_drafts(drafts, 3).unwrap();
        let sampling = SamplingConfig { guidance: 3.0, temperature, ..SamplingConfig::default() };
        scheduler.submit(request(1, 0), sampling).unwrap();
        let (mut steps, mut events) = (0, Vec::new());
        while !scheduler.is_idle() {
            scheduler.step(&mut events);
            steps += 1;
        }
        *rows = events.len() - 1;
        steps
    };
    let mut rows = 0;
    assert_eq!(steps(Drafts::None, 0.02, &mut rows), length);
    // The first token is chosen without guidance, hence alone.
    assert_eq!(steps(Drafts::Of(&model), 0.02, &mut rows), 1 + (length - 1).div_ceil(4));
    assert_eq!(rows, model.config().layout.rows() + 1);
    let wrong = steps(Drafts::Of(&other), 0.0, &mut rows);
    assert!(wrong > length / 2 && wrong <= length, "{wrong}");
    // Without a say of the model, the noise tells all at once.
    let own = steps(Drafts::Own, 50.0, &mut rows);
    assert!(own < length / 3, "{own}");
}

#[test]
fn should_own_its_model_on_another_thread() {
    let model = Arc::new(model(Precision::F32, 1));
    let expected = alone(&model, &request(2, 0), &sampling(1));
    let mut scheduler = Scheduler::new(model, 2).unwrap();
    let drawn = std::thread::spawn(move || {
        scheduler.submit(request(2, 0), sampling(1)).unwrap();
        let mut events = Vec::new();
        while !scheduler.is_idle() {
            scheduler.step(&mut events);
        }
        events.pop()
    });
    let Some(Event::Finished { tokens, .. }) = drawn.join().unwrap() else { panic!("no picture") };
    assert_eq!(tokens, expected);
}

#[test]
fn should_refuse_more_pictures_than_there_is_memory_for() {
    let model = model(Precision::F32, 1);
    let error = Scheduler::new(&model, 1 << 40).map(drop).unwrap_err();
    assert_eq!(error, GenerateError::Memory { sequences: 1 << 41 });
}

#[test]
fn should_tell_of_every_row_once() {
    let model = model(Precision::F32, 1);
    let layout = model.config().layout;
    let mut scheduler = Scheduler::new(&model, 1).unwrap();
    let job = scheduler.submit(request(1, layout.len_of_rows(2)), sampling(1)).unwrap();
    let mut events = Vec::new();
    while !scheduler.is_idle() {
        scheduler.step(&mut events);
    }
    let mut lengths = Vec::new();
    for event in &events {
        if let Event::Row { job: of, tokens } = event {
            assert_eq!(*of, job);
            lengths.push(tokens.len());
        }
    }
    assert_eq!(lengths, (3..=6).map(|row| layout.len_of_rows(row)).collect::<Vec<_>>());
    assert!(matches!(events.last(), Some(Event::Finished { .. })));
}

#[test]
fn should_draw_the_same_on_any_number_of_threads() {
    let requests: Vec<Request> = (0..5).map(|index| request(index, 0)).collect();
    for precision in PRECISIONS {
        let one = generate(&model(precision, 1), &requests, &sampling(1), 3);
        let three = generate(&model(precision, 3), &requests, &sampling(1), 5);
        assert_eq!(one, three, "{precision:?}");
    }
}

/// Logits at every position of a sequence that begins with `condition` condition ids, decoded in
/// pieces of these lengths.
fn logits(model: &Generator, ids: &[usize], condition: usize, pieces: &[usize]) -> Vec<Vec<f32>> {
    let mut session = model.session_after(condition, 2).unwrap();
    let (mut start, mut found) = (0, Vec::new());
    for &piece in pieces.iter().cycle() {
        let piece = piece.min(ids.len() - start);
        if piece == 0 {
            return found;
        }
        let ids = &ids[start..start + piece];
        let step = Step { slot: 1, condition, start, ids, logits: piece };
        model.step(&mut session, &[step]);
        for index in 0..piece {
            let mut row = vec![0.0; model.config().codes];
            session.logits(index, &mut row);
            found.push(row);
        }
        start += piece;
    }
    found
}

/// Ids of a sequence up to the last token but one.
fn ids(model: &Generator, condition: usize) -> Vec<usize> {
    (0..condition + model.config().layout.len() - 1).map(|at| at * 13 % 70).collect()
}

#[test]
fn should_give_a_position_the_same_bits_alone_and_among_others_of_its_sequence() {
    for precision in PRECISIONS {
        for (model, condition) in [(model(precision, 2), 1), (grouped(precision, 2), 9)] {
            let ids = ids(&model, condition);
            let one_by_one = logits(&model, &ids, condition, &[1]);
            assert_eq!(one_by_one.len(), ids.len());
            for pieces in [&[POSITIONS][..], &[2, 7, 1, 16]] {
                let several = logits(&model, &ids, condition, pieces);
                assert!(several == one_by_one, "{precision:?} {pieces:?}");
            }
        }
    }
}

#[test]
fn should_see_no_later_id_and_the_condition_everywhere() {
    for (model, condition) in [
        (model(Precision::F32, 1), 1),
        (model(Precision::F32, 1), 5),
        (grouped(Precision::F32, 1), 3),
    ] {
        let ids = ids(&model, condition);
        let before = logits(&model, &ids, condition, &[POSITIONS]);
        for changed in 0..ids.len() {
            let mut other = ids.clone();
            other[changed] = (other[changed] + 1) % 70;
            let after = logits(&model, &other, condition, &[POSITIONS]);
            for position in 0..ids.len() {
                assert_eq!(before[position] == after[position], position < changed);
            }
        }
    }
}

#[test]
fn should_compute_the_same_bits_with_as_many_shared_heads_as_heads() {
    for precision in PRECISIONS {
        let all = GeneratorConfig { key_value_heads: Some(4), ..config(2) };
        let (all, plain) = (load(&all, precision, 2), model(precision, 2));
        assert_eq!(all.position_bytes(), plain.position_bytes());
        assert!(grouped(precision, 2).position_bytes() < plain.position_bytes());
        let ids = ids(&plain, 1);
        assert!(logits(&all, &ids, 1, &[7]) == logits(&plain, &ids, 1, &[7]), "{precision:?}");
    }
}

#[test]
fn should_draw_after_conditions_of_any_length_side_by_side() {
    let model = grouped(Precision::Bf16, 2);
    let vocabulary = model.config().vocabulary();
    let of = |conditional: Vec<usize>, index| {
        let unconditional = vec![vocabulary.unconditional(); conditional.len()];
        Request { condition: Condition::Ids { conditional, unconditional }, ..request(index, 3) }
    };
    let class = of(vec![vocabulary.class(1).unwrap()], 1);
    let long: Vec<usize> = (0..2 * POSITIONS).map(|at| (at * 7) % vocabulary.len()).collect();
    let requests = [class, request(1, 3), of(long.clone(), 2), of(long[..5].to_vec(), 3)];
    let draw = |requests: &[Request], pictures: usize| {
        let sampling = sampling(1);
        let mut scheduler = Scheduler::with_conditions(&model, pictures, long.len()).unwrap();
        let jobs: Vec<JobId> =
            requests.iter().map(|of| scheduler.submit(of.clone(), sampling).unwrap()).collect();
        let (mut drawn, mut events) = (vec![Vec::new(); jobs.len()], Vec::new());
        while !scheduler.is_idle() {
            scheduler.step(&mut events);
            for event in events.drain(..) {
                if let Event::Finished { job, tokens } = event {
                    drawn[jobs.iter().position(|&of| of == job).unwrap()] = tokens;
                }
            }
        }
        drawn
    };
    let together = draw(&requests, 4);
    assert_eq!(together[0], together[1], "the ids of a class are the class");
    for (request, tokens) in requests.iter().zip(&together) {
        assert_eq!(draw(std::slice::from_ref(request), 1), std::slice::from_ref(tokens));
    }
    assert_ne!(together[2], together[3]);

    let mut scheduler = Scheduler::new(&model, 1).unwrap();
    let error = scheduler.submit(requests[3].clone(), sampling(0)).unwrap_err();
    assert_eq!(error, GenerateError::ConditionRoom { ids: 5, room: 1 });
    for (ids, others) in [(vec![], vec![]), (vec![1], vec![1, 2]), (vec![1], vec![76])] {
        let condition = Condition::Ids { conditional: ids, unconditional: others };
        assert!(scheduler.submit(Request { condition, ..request(0, 0) }, sampling(0)).is_err());
    }
}

#[test]
fn should_forget_what_a_slot_held_before() {
    let model = model(Precision::Bf16, 1);
    let mut scheduler = Scheduler::new(&model, 1).unwrap();
    let mut drawn = Vec::new();
    let mut events = Vec::new();
    for index in [1, 5, 1] {
        scheduler.submit(request(index, 0), sampling(1)).unwrap();
        while !scheduler.is_idle() {
            scheduler.step(&mut events);
        }
        let Some(Event::Finished { tokens, .. }) = events.pop() else { panic!("{events:?}") };
        drawn.push(tokens);
    }
    assert_eq!(drawn[0], drawn[2]);
    assert_ne!(drawn[0], drawn[1]);
}

#[test]
fn should_refuse_what_cannot_be_drawn_and_return_what_is_whole() {
    let model = model(Precision::F32, 1);
    let mut scheduler = Scheduler::new(&model, 1).unwrap();
    let class = Request { condition: Condition::Class(4), ..request(0, 0) };
    assert!(matches!(scheduler.submit(class, sampling(0)), Err(GenerateError::Vocabulary(_))));
    let whole = request(0, 47);
    assert_eq!(alone(&model, &whole, &sampling(1)), whole.forced);
    assert!(generate(&model, &[], &sampling(0), 4).is_empty());
}

fn tokenizer() -> TokenizerConfig {
    let transformer = TransformerConfig { width: 60, layers: 2, heads: 3 };
    let decoder = DecoderConfig { transformer, leading: 3, prefix_head: false };
    TokenizerConfig {
        image: ImageSize { height: 24, width: 40 },
        patch: 8,
        prefix: 5,
        codes: 50,
        token_size: 6,
        encoder_input: EncoderInput::PatchesAndLatents,
        encoder: transformer,
        causal_decoder: Some(decoder),
        bidirectional_decoder: Some(decoder),
    }
}

#[test]
fn should_decode_rows_causally_as_they_come() {
    let config = tokenizer();
    let layout = config.layout();
    let tokens: Vec<CodebookIndex> = (0..layout.len()).map(|at| (at * 7 % 50) as _).collect();
    for precision in PRECISIONS {
        let decoder = Decoder::load(
            Weights::Random,
            &config,
            DecoderKind::Causal,
            precision,
            Arc::new(Pool::new(2)),
        )
        .unwrap();
        let mut work = decoder.workspace();
        let whole = decoder.decode(&tokens, &mut work);
        assert!(whole.iter().all(|value| (0.0..=1.0).contains(value)));
        for rows in 0..layout.rows() {
            let part = decoder.decode(&tokens[..layout.len_of_rows(rows)], &mut work);
            let pixels = rows * config.patch * config.image.width;
            assert_eq!(part.len(), 3 * pixels);
            let plane = config.image.height * config.image.width;
            for channel in 0..3 {
                assert!(
                    part[channel * pixels..][..pixels] == whole[channel * plane..][..pixels],
                    "{precision:?}, {rows} rows"
                );
            }
        }
    }
}

#[test]
fn should_encode_and_decode_the_same_bits_on_any_number_of_threads() {
    let config = tokenizer();
    let mut noise = Noise::new(3, Purpose::Initialization, 0, 0);
    let planes: Vec<f32> = (0..3 * 24 * 40).map(|_| noise.uniform() as f32).collect();
    for precision in PRECISIONS {
        let run = |threads: usize| {
            let pool = Arc::new(Pool::new(threads));
            let encoder =
                Encoder::load(Weights::Random, &config, precision, Arc::clone(&pool)).unwrap();
            let kind = DecoderKind::Bidirectional;
            let decoder = Decoder::load(Weights::Random, &config, kind, precision, pool).unwrap();
            let tokens = encoder.encode(&planes, &mut encoder.workspace());
            let picture = decoder.decode(&tokens, &mut decoder.workspace());
            (tokens, picture)
        };
        assert!(run(1) == run(3), "{precision:?}");
    }
}
