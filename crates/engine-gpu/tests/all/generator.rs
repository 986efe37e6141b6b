//! The generator on a GPU, or a software driver, beside the engine of the CPU.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use engine::{
    Event, JobId, Pool, Scheduler, SequenceModel,
    sequence::{Chooser, Choosing, Step},
};
use engine_gpu::{Device, Generator, LoadError, Precision, StepCost};
use generator::{
    Condition, DeviceFailure, GenerateError, GeneratorConfig, Request, SamplingConfig, presets,
};
use tokens::{CodebookIndex, TokenLayout};

use crate::common::{device, mini};

fn gpu(device: &Device, precision: Precision) -> Generator {
    let (file, config) = mini::<GeneratorConfig>("generator");
    Generator::load(&file, &config, precision, device, Arc::new(Pool::new(1))).unwrap()
}

fn cpu() -> engine::Generator {
    let (file, config) = mini::<GeneratorConfig>("generator");
    let pool = Arc::new(Pool::new(1));
    engine::Generator::load(file, &config, engine::Precision::F32, pool).unwrap()
}

fn draw<M: SequenceModel>(
    model: M,
    requests: &[(Request, SamplingConfig)],
    pictures: usize,
) -> Vec<Vec<CodebookIndex>> {
    let mut scheduler = Scheduler::new(model, pictures).unwrap();
    let jobs: Vec<JobId> = requests
        .iter()
        .map(|(request, sampling)| scheduler.submit(request.clone(), *sampling).unwrap())
        .collect();
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

/// Eight pictures: guided and not, one of them completed from its first rows.
fn requests() -> Vec<(Request, SamplingConfig)> {
    (0..8)
        .map(|index| {
            let condition = Condition::Class(index as usize);
            let forced = if index == 5 { (0..24).map(|token| token * 7).collect() } else { vec![] };
            let guidance = if index % 2 == 0 { 3.0 } else { 1.0 };
            let sampling = SamplingConfig { guidance, temperature: 0.8, ..Default::default() };
            (Request { condition, seed: 3, index, forced }, sampling)
        })
        .collect()
}

/// Logits after each of these ids, read `at_once` at a time.
fn logits<M: SequenceModel>(model: &M, ids: &[usize], at_once: usize) -> Vec<f32> {
    let mut session = model.session(1, 3).unwrap();
    let (codes, mut all) = (model.codes(), Vec::new());
    for (part, ids) in ids.chunks(at_once).enumerate() {
        let start = part * at_once;
        let step = Step { slot: 2, condition: 1, start, ids, logits: ids.len() };
        model.step(&mut session, &[step]).unwrap();
        for index in 0..ids.len() {
            let mut out = vec![0.0; codes];
            model.logits(&session, index, &mut out);
            all.extend(out);
        }
    }
    all
}

fn ids(model: &impl SequenceModel) -> Vec<usize> {
    let [condition, _] = model.condition_ids(&Condition::Class(2)).unwrap();
    condition.into_iter().chain((0..71).map(|token| token * 53 % 4096)).collect()
}

fn difference(got: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(got.len(), expected.len());
    got.iter().zip(expected).map(|(got, expected)| (got - expected).abs()).fold(0.0, f32::max)
}

#[test]
fn should_give_the_logits_of_the_cpu() {
    let Some(device) = device() else { return };
    let (cpu, gpu) = (cpu(), gpu(&device, Precision::F32));
    let ids = ids(&cpu);
    let difference = difference(&logits(&gpu, &ids, 1), &logits(&cpu, &ids, 1));
    assert!(difference < 1e-4, "{difference}");
}

#[test]
fn should_draw_the_tokens_of_the_cpu() {
    let Some(device) = device() else { return };
    let requests = requests();
    let drawn = draw(gpu(&device, Precision::F32), &requests, 8);
    assert_eq!(drawn, draw(cpu(), &requests, 8));
}

#[test]
fn should_give_the_same_bits_one_by_one_and_many_at_a_time() {
    let Some(device) = device() else { return };
    for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
        let gpu = gpu(&device, precision);
        let ids = ids(&gpu);
        let alone = logits(&gpu, &ids, 1);
        for at_once in [5, 32, 72] {
            assert!(logits(&gpu, &ids, at_once) == alone, "{precision:?}, {at_once} at once");
        }
    }
}

#[test]
fn should_draw_a_picture_alone_as_in_company() {
    let Some(device) = device() else { return };
    let gpu = gpu(&device, Precision::Bf16);
    let requests = &requests()[..3];
    let together = draw(&gpu, requests, 3);
    let alone: Vec<_> =
        requests.iter().flat_map(|request| draw(&gpu, std::slice::from_ref(request), 1)).collect();
    assert_eq!(together, alone);
}

#[test]
fn should_share_what_a_slot_has_seen() {
    let Some(device) = device() else { return };
    let gpu = gpu(&device, Precision::F32);
    let ids = ids(&gpu);
    let (mut session, mut out) = (gpu.session(1, 2).unwrap(), [vec![0.0; 4096], vec![0.0; 4096]]);
    let step = |slot, start, ids| Step { slot, condition: 1, start, ids, logits: 1 };
    gpu.step(&mut session, &[step(0, 0, &ids[..10])]).unwrap();
    session.share(0, 1).unwrap();
    let next = &ids[10..11];
    gpu.step(&mut session, &[step(0, 10, next), step(1, 10, next)]).unwrap();
    for (index, out) in out.iter_mut().enumerate() {
        gpu.logits(&session, index, out);
    }
    assert!(out[0] == out[1]);
    assert!(out[0].iter().any(|logit| *logit != 0.0));
}

#[test]
fn should_dispatch_six_times_a_layer() {
    let Some(device) = device() else { return };
    let gpu = gpu(&device, Precision::Bf16);
    let ids = ids(&gpu);
    let mut session = gpu.session(1, 1).unwrap();
    gpu.step(&mut session, &[Step { slot: 0, condition: 1, start: 0, ids: &ids[..1], logits: 1 }])
        .unwrap();
    // Beside the layers: the embedding, the last norm and the output.
    assert_eq!(session.dispatches(), 6 * gpu.config().layers + 3);
    // Two norms a layer stand alone where rows are many.
    gpu.step(&mut session, &[Step { slot: 0, condition: 1, start: 0, ids: &ids, logits: 1 }])
        .unwrap();
    assert_eq!(session.dispatches(), 8 * gpu.config().layers + 3);
}

#[test]
fn should_refuse_weights_of_another_architecture() {
    let Some(device) = device() else { return };
    let (file, config) = mini::<GeneratorConfig>("generator");
    let other = GeneratorConfig { layers: 5, ..config };
    let error = Generator::load(&file, &other, Precision::F32, &device, Arc::new(Pool::new(1)))
        .unwrap_err();
    assert!(matches!(error, LoadError::Weights(_)), "{error}");
    assert!(error.to_string().contains("blocks.5."), "{error}");
}

#[test]
fn should_fail_pictures_where_the_gpu_is_lost() {
    let Some(device) = device() else { return };
    let mut scheduler = Scheduler::new(gpu(&device, Precision::F32), 2).unwrap();
    let mut ends = Vec::new();
    let submit_all = |scheduler: &mut Scheduler<Generator>| {
        for (request, sampling) in &requests()[..3] {
            scheduler.submit(request.clone(), *sampling).unwrap();
        }
    };
    submit_all(&mut scheduler);
    // Two submissions decide a part of the pictures.
    for _ in 0..2 {
        scheduler.step(&mut ends);
    }
    device.destroy();
    ends.clear();
    // Those that wait fail as well, and those that come after.
    for _ in 0..2 {
        while !scheduler.is_idle() {
            scheduler.step(&mut ends);
        }
        assert_eq!(ends.len(), 3);
        for event in ends.drain(..) {
            let Event::Failed { error, .. } = event else { panic!("{event:?}") };
            let GenerateError::Device { failure, reason } = error else { panic!("{error}") };
            assert_eq!(failure, DeviceFailure::Lost);
            assert!(reason.contains("the GPU was lost"), "{reason}");
        }
        submit_all(&mut scheduler);
    }
    let error = SequenceModel::session(scheduler.model(), 1, 1).unwrap_err();
    assert!(matches!(error, GenerateError::Device { failure: DeviceFailure::Lost, .. }), "{error}");
}

#[test]
fn should_say_what_is_larger_than_a_shader_can_see() {
    let Some(device) = device() else { return };
    let gpu = gpu(&device, Precision::F32);
    let error = SequenceModel::session(&gpu, 1, 1 << 24).unwrap_err();
    let GenerateError::Device { failure: DeviceFailure::Memory, reason } = error else {
        panic!("{error}")
    };
    assert!(reason.contains("keys of") && reason.contains("fewer pictures"), "{reason}");
}

/// Another door to a generator: its caller chooses, from logits that are read back, or is told of its
/// choices later.
struct Other {
    generator: Generator,
    later: Option<AtomicUsize>,
}

impl Other {
    fn asked(generator: Generator) -> Self {
        Self { generator, later: None }
    }

    fn later(generator: Generator) -> Self {
        Self { generator, later: Some(AtomicUsize::new(0)) }
    }
}

impl Chooser<engine_gpu::Session> for Other {
    fn most_choices(
        &self,
        session: &engine_gpu::Session,
        positions: usize,
        pictures: usize,
    ) -> usize {
        self.generator.most_choices(session, positions, pictures)
    }

    fn choose(
        &self,
        session: &mut engine_gpu::Session,
        steps: &[Step<'_>],
        pictures: &[Choosing<'_>],
        choices: usize,
    ) -> Result<Option<Vec<Option<CodebookIndex>>>, GenerateError> {
        let calls = self.later.as_ref().expect("it chooses by itself");
        // As in a browser: nothing is there when it is asked for first.
        if calls.fetch_add(1, Ordering::Relaxed) % 3 < 2 {
            return Ok(None);
        }
        self.generator.choose(session, steps, pictures, choices)
    }
}

impl SequenceModel for Other {
    type Session = engine_gpu::Session;

    fn layout(&self) -> TokenLayout {
        self.generator.layout()
    }

    fn codes(&self) -> usize {
        self.generator.codes()
    }

    fn condition_ids(&self, condition: &Condition) -> Result<[Vec<usize>; 2], GenerateError> {
        self.generator.condition_ids(condition)
    }

    fn validate(&self, request: &Request, sampling: &SamplingConfig) -> Result<(), GenerateError> {
        self.generator.validate(request, sampling)
    }

    fn session(&self, condition: usize, slots: usize) -> Result<Self::Session, GenerateError> {
        SequenceModel::session(&self.generator, condition, slots)
    }

    fn step(&self, session: &mut Self::Session, steps: &[Step<'_>]) -> Result<(), GenerateError> {
        SequenceModel::step(&self.generator, session, steps)
    }

    fn logits(&self, session: &Self::Session, index: usize, out: &mut [f32]) {
        self.generator.logits(session, index, out);
    }

    fn share(
        &self,
        session: &mut Self::Session,
        from: usize,
        to: usize,
        positions: usize,
    ) -> Result<(), GenerateError> {
        self.generator.share(session, from, to, positions)
    }

    fn pool(&self) -> &Pool {
        self.generator.pool()
    }

    fn chooser(&self) -> Option<&dyn Chooser<engine_gpu::Session>> {
        self.later.is_some().then_some(self)
    }
}

#[test]
fn should_choose_on_the_gpu_as_on_the_cpu() {
    let Some(device) = device() else { return };
    let options = [
        (1.0, 0, 1.0),
        (0.9, 40, 1.0),
        (1.1, 0, 0.8),
        (0.7, 200, 0.95),
        (0.0, 7, 0.5),
        // More than there are codes, and a single one.
        (1.0, 5000, 1e-6),
        (1.0, 1, 1.0),
    ];
    let requests: Vec<_> = options
        .into_iter()
        .enumerate()
        .map(|(index, (temperature, top_k, top_p))| {
            let guidance = [1.0, 4.0][index % 2];
            let sampling =
                SamplingConfig { guidance, temperature, top_k, top_p, ..Default::default() };
            let condition = Condition::Class(index);
            (Request { condition, seed: 8, index: index as u64, forced: vec![] }, sampling)
        })
        .collect();
    let chosen = draw(gpu(&device, Precision::F32), &requests, 7);
    let asked = draw(Other::asked(gpu(&device, Precision::F32)), &requests, 7);
    assert_eq!(chosen, asked);
}

#[test]
fn should_draw_the_same_where_choices_come_later() {
    let Some(device) = device() else { return };
    let sampling = SamplingConfig { guidance: 3.0, ..Default::default() };
    let requests: Vec<_> = (0..5)
        .map(|index| {
            let condition = Condition::Class(index);
            (Request { condition, seed: 4, index: index as u64, forced: vec![] }, sampling)
        })
        .collect();
    let at_once = draw(gpu(&device, Precision::F32), &requests, 3);
    assert_eq!(draw(Other::later(gpu(&device, Precision::F32)), &requests, 3), at_once);

    // One that is cancelled between question and answer is told of no more; the others go on.
    let mut scheduler = Scheduler::new(Other::later(gpu(&device, Precision::F32)), 3).unwrap();
    let jobs: Vec<_> = requests
        .iter()
        .map(|(request, sampling)| scheduler.submit(request.clone(), *sampling).unwrap())
        .collect();
    let mut events = Vec::new();
    scheduler.step(&mut events);
    assert!(events.is_empty() && scheduler.running() == 3);
    assert!(scheduler.cancel(jobs[1]) && !scheduler.cancel(jobs[1]));
    while !scheduler.is_idle() {
        scheduler.step(&mut events);
    }
    let mut finished = Vec::new();
    for event in events {
        match event {
            Event::Row { job, .. } => assert_ne!(job, jobs[1]),
            Event::Finished { job, tokens } => finished.push((job, tokens)),
            Event::Failed { error, .. } => panic!("{error}"),
        }
    }
    finished.sort();
    let others = [0, 2, 3, 4].map(|place| (jobs[place], at_once[place].clone()));
    assert_eq!(finished, others);
}

#[test]
fn should_choose_many_tokens_without_a_word_to_the_cpu() {
    let Some(device) = device() else { return };
    let gpu = gpu(&device, Precision::Bf16);
    let chooser = gpu.chooser().unwrap();
    let mut session = SequenceModel::session(&gpu, 1, 2).unwrap();
    let count = chooser.most_choices(&session, 2, 1);
    assert_eq!(count, 16);
    assert_eq!(chooser.most_choices(&session, 1000, 1), 0);
    let sampling = SamplingConfig { guidance: 3.0, ..Default::default() };
    let request = Request { condition: Condition::Class(1), seed: 0, index: 0, forced: vec![] };
    let [ids, others] = gpu.condition_ids(&request.condition).unwrap();
    let step = |slot, ids| Step { slot, condition: 1, start: 0, ids, logits: 1 };
    let picture = Choosing {
        conditional: 0,
        unconditional: Some(1),
        token: 0,
        request: &request,
        sampling: &sampling,
    };
    let steps = [step(0, &ids), step(1, &others)];
    let tokens = chooser.choose(&mut session, &steps, &[picture], count).unwrap().unwrap();
    assert!(tokens.len() == count && tokens.iter().all(Option::is_some));
    // One submission: six dispatches a layer, the embedding, the last norm, the output, the choice.
    assert_eq!(session.dispatches(), count * (6 * gpu.config().layers + 4));
}

#[test]
fn should_read_hardly_more_than_it_must() {
    // Two sequences in the middle of a picture.
    let cost = |config: &GeneratorConfig, precision| {
        let cost = StepCost::new(config, precision, 2, config.layout.len() / 2);
        (cost.dispatches, cost.bytes as f64 / cost.least_bytes as f64)
    };
    let layout = TokenLayout::new(16, 16, 16);
    for preset in [presets::b, presets::l, presets::xl] {
        let config = preset(layout, 4096, 1000);
        let layers = config.layers;
        let (dispatches, ratio) = cost(&config, Precision::F32);
        assert_eq!((dispatches, ratio), (6 * layers + 4, 1.0));
        // Keys and values stay in f32.
        let (dispatches, ratio) = cost(&config, Precision::Bf16);
        assert!(dispatches == 6 * layers + 4 && ratio < 1.06, "{dispatches}, {ratio}");
    }
    let Some(device) = device() else { return };
    let gpu = gpu(&device, Precision::Bf16);
    let cost = StepCost::new(gpu.config(), Precision::Bf16, 1, 0);
    assert_eq!(cost.bytes, gpu.streamed_bytes());
}

/// Mean divergence (Kullback and Leibler) of the distributions of some logits from those expected.
fn divergence(got: &[f32], expected: &[f32], codes: usize) -> f64 {
    let log_softmax = |logits: &[f32]| -> Vec<f64> {
        let peak = logits.iter().fold(f64::MIN, |most, &logit| most.max(logit.into()));
        let sum: f64 = logits.iter().map(|&logit| (f64::from(logit) - peak).exp()).sum();
        logits.iter().map(|&logit| f64::from(logit) - peak - sum.ln()).collect()
    };
    let rows = expected.len() / codes;
    let of = |(got, expected): (&[f32], &[f32])| -> f64 {
        let pairs = log_softmax(expected).into_iter().zip(log_softmax(got));
        pairs.map(|(expected, got)| expected.exp() * (expected - got)).sum()
    };
    got.chunks(codes).zip(expected.chunks(codes)).map(of).sum::<f64>() / rows as f64
}

#[test]
fn should_stay_near_f32_in_fewer_bits() {
    let Some(device) = device() else { return };
    let cpu = cpu();
    let ids = ids(&cpu);
    let expected = logits(&cpu, &ids, 32);
    // The bounds of the engine for the CPU.
    for (precision, most) in [(Precision::Bf16, 1e-3), (Precision::Int8, 1e-2)] {
        let got = logits(&gpu(&device, precision), &ids, 32);
        let divergence = divergence(&got, &expected, 4096);
        assert!(divergence < most, "{precision:?}: {divergence}");
    }
}
