//! Laws of drawing: a picture depends only on its own request, whatever joins, leaves or is shown.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use std::{path::Path, sync::LazyLock};

use files::Home;
use generator::{Request, SamplingConfig};
use model::Model;
use pipeline::{
    Compute, Draw, Drawing, Event, PipelineError, PreviewWriter, SampleError, SampleWriter,
    SamplingChanges, class_requests, prompt_requests, requests_without_class,
    requests_without_prompt, sampling, token_file,
};
use tokenizer::DecoderKind;
use tokens::{CodebookIndex, Vocabulary};

static MODEL: LazyLock<Model> = LazyLock::new(|| {
    Model::named("mini", &Home::at(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))).unwrap()
});

fn defaults() -> SamplingConfig {
    sampling(&MODEL, &SamplingChanges::default()).unwrap()
}

fn finished(drawing: &mut Drawing<'_>) -> Vec<(usize, Vec<CodebookIndex>)> {
    let mut pictures: Vec<_> = drawing
        .filter_map(|event| match event {
            Event::Finished { picture, tokens } => Some((picture, tokens)),
            Event::Failed { error, .. } => panic!("{error}"),
            _ => None,
        })
        .collect();
    pictures.sort();
    pictures
}

fn alone(drawer: &dyn Draw, request: &Request) -> Vec<CodebookIndex> {
    let requests = std::slice::from_ref(request);
    let mut drawing = Drawing::of(drawer, requests, &defaults(), 1).unwrap();
    finished(&mut drawing).remove(0).1
}

/// Advances a drawing until this picture's row is told.
fn until_row(drawing: &mut Drawing<'_>, wanted: usize) {
    drawing
        .find(|event| matches!(event, Event::Row { picture, .. } if *picture == wanted))
        .expect("the picture has rows");
}

#[test]
fn should_draw_the_same_picture_whoever_joins_and_leaves() {
    let drawer = Compute::default().drawer(&MODEL).unwrap();
    let requests = class_requests(&[1, 4, 7], 1, 5);
    let expected: Vec<_> = requests.iter().map(|request| alone(&*drawer, request)).collect();

    let mut drawing = Drawing::new(&*drawer, 2).unwrap();
    assert!(drawing.is_idle() && drawing.next().is_none());
    assert_eq!(drawing.submit(&requests[0], &defaults()).unwrap(), 0);
    until_row(&mut drawing, 0);
    assert_eq!(drawing.submit(&requests[1], &defaults()).unwrap(), 1);
    until_row(&mut drawing, 1);
    assert_eq!(drawing.submit(&requests[2], &defaults()).unwrap(), 2);
    assert!(drawing.cancel(1));
    assert!(!drawing.cancel(1), "it is no longer known");
    let pictures = finished(&mut drawing);
    assert_eq!(pictures, [(0, expected[0].clone()), (2, expected[2].clone())]);

    // A drawing that has ended goes on.
    assert_eq!(drawing.submit(&requests[1], &defaults()).unwrap(), 3);
    assert_eq!(finished(&mut drawing), [(3, expected[1].clone())]);
    assert!(!drawing.cancel(3), "it has ended");
}

#[test]
fn should_let_requests_join_and_leave_between_two_tokens() {
    let drawer = Compute::default().drawer(&MODEL).unwrap();
    let requests = class_requests(&[1, 4], 1, 5);
    let expected: Vec<_> = requests.iter().map(|request| alone(&*drawer, request)).collect();
    let mut drawing = Drawing::new(&*drawer, 1).unwrap();
    assert_eq!(drawing.room(), 1);
    assert_eq!(drawing.poll(), None, "there is nothing to draw");
    drawing.submit(&requests[0], &defaults()).unwrap();
    for token in 1..4 {
        assert_eq!(drawing.poll(), None, "no row is whole yet");
        assert_eq!(drawing.decided(), token);
    }
    // Cancelled within a row, it makes room for the next picture at once.
    drawing.submit(&requests[1], &defaults()).unwrap();
    assert!(drawing.cancel(0));
    assert_eq!(drawing.poll(), None);
    assert_eq!(drawing.decided(), 1);
    assert_eq!(finished(&mut drawing), [(1, expected[1].clone())]);
}

#[test]
fn should_tell_every_row_once_and_in_order() {
    let drawer = Compute::default().drawer(&MODEL).unwrap();
    let layout = drawer.layout();
    let mut requests = class_requests(&[2, 3], 1, 9);
    let whole = alone(&*drawer, &requests[1]);
    let given = layout.len_of_rows(5);
    requests[1].forced = whole[..given].to_vec();
    let mut rows = [Vec::new(), Vec::new()];
    let mut ends = [Vec::new(), Vec::new()];
    let mut drawing = Drawing::of(&*drawer, &requests, &defaults(), 2).unwrap();
    let mut decided = 0;
    while let Some(event) = drawing.next() {
        assert!(drawing.decided() >= decided);
        decided = drawing.decided();
        match event {
            Event::Row { picture, tokens } => rows[picture].push(tokens),
            Event::Finished { picture, tokens } => ends[picture] = tokens,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(decided, 2 * layout.len());
    assert_eq!(ends[1], whole, "given rows are kept, and the others follow from them");
    for (picture, first) in [(0, 0), (1, 6)] {
        let expected: Vec<_> = (first..=layout.rows())
            .map(|row| ends[picture][..layout.len_of_rows(row)].to_vec())
            .collect();
        assert_eq!(rows[picture], expected);
    }
}

#[test]
fn should_hold_pictures_back_until_earlier_ones_have_ended() {
    let drawer = Compute::default().drawer(&MODEL).unwrap();
    let mut requests = class_requests(&[0], 4, 3);
    let whole = alone(&*drawer, &requests[2]);
    // Picture 2 has nothing left to draw, so it ends first.
    requests[2].forced = whole;
    let order = |drawing: Drawing<'_>| -> Vec<usize> {
        drawing.filter(Event::is_end).map(|event| event.picture()).collect()
    };
    let drawing = || Drawing::of(&*drawer, &requests, &defaults(), 4).unwrap();
    assert_eq!(order(drawing())[0], 2);
    assert_eq!(order(drawing().in_order()), [0, 1, 2, 3]);
    // A cancelled one must not hold back those behind it, nor must one that is itself held back.
    for cancelled in [0, 1] {
        let mut ordered = drawing().in_order();
        until_row(&mut ordered, 0);
        assert!(ordered.cancel(cancelled));
        assert!(ordered.cancel(2));
        let rest: Vec<usize> = [0, 1, 3].into_iter().filter(|&it| it != cancelled).collect();
        assert_eq!(order(ordered), rest);
    }
}

#[test]
fn should_show_the_rows_so_far_as_the_causal_decoder_sees_them() {
    let compute = Compute::default();
    let drawer = compute.drawer(&MODEL).unwrap();
    let causal = compute.decoder(&MODEL, Some(DecoderKind::Causal)).unwrap();
    let requests = class_requests(&[5], 1, 1);
    let drawing = Drawing::of(&*drawer, &requests, &defaults(), 1).unwrap();
    let (mut previews, mut last_row) = (0, Vec::new());
    for event in drawing.with_previews(&*causal, 3).unwrap() {
        match event {
            Event::Row { tokens, .. } => last_row = tokens,
            Event::Preview { image, .. } => {
                previews += 1;
                assert_eq!(image, causal.decode(&last_row).unwrap());
                assert_eq!(image.height(), 3 * previews * causal.config().patch);
            }
            _ => {}
        }
    }
    assert_eq!(previews, (causal.config().layout().rows() - 1) / 3);

    let bidirectional = compute.decoder(&MODEL, None).unwrap();
    let drawing = Drawing::new(&*drawer, 1).unwrap();
    let refused = drawing.with_previews(&*bidirectional, 1).unwrap_err();
    assert!(matches!(refused, PipelineError::NoPreviews { .. }));
}

#[test]
fn should_refuse_what_is_no_picture_of_the_model() {
    let compute = Compute::default();
    let decoder = compute.decoder(&MODEL, None).unwrap();
    let layout = decoder.config().layout();
    let short = decoder.decode(&vec![0; layout.len_of_rows(3)]).unwrap_err();
    assert!(matches!(short, PipelineError::TokenCount { .. }), "{short}");
    let mut tokens = vec![0; layout.len()];
    tokens[7] = CodebookIndex::try_from(decoder.config().codes).unwrap();
    assert!(matches!(decoder.decode(&tokens).unwrap_err(), PipelineError::NoCode { .. }));

    let encoder = compute.encoder(&MODEL).unwrap();
    let picture = pixels::Picture::new(32, 64, vec![0; 3 * 32 * 64]).unwrap();
    let refused = encoder.encode(&picture).unwrap_err().to_string();
    assert!(refused.contains("32 × 64") && refused.contains("64 × 64"), "{refused}");

    let drawer = compute.drawer(&MODEL).unwrap();
    let unknown = class_requests(&[MODEL.generator_config().unwrap().classes], 1, 1);
    assert!(Drawing::of(&*drawer, &unknown, &defaults(), 1).is_err());
    let changes = SamplingChanges { top_p: Some(0.0), ..SamplingChanges::default() };
    assert!(sampling(&MODEL, &changes).is_err());
}

#[test]
fn should_write_samples_by_the_ending_of_the_name() {
    let compute = Compute::default();
    let drawer = compute.drawer(&MODEL).unwrap();
    let decoder = compute.decoder(&MODEL, None).unwrap();
    let causal = compute.decoder(&MODEL, Some(DecoderKind::Causal)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let requests = class_requests(&[1, 2], 1, 4);
    let labels = vec![1, 2];
    let drawing = || Drawing::of(&*drawer, &requests, &defaults(), 2).unwrap().in_order();
    let write = |name: &str| {
        let path = folder.path().join(name);
        let writer = SampleWriter::new(&path, 2, Some(labels.clone()), 2, false).unwrap();
        let decoder = writer.needs_pictures().then_some(&*decoder);
        writer.write(decoder, None, drawing()).unwrap();
        path
    };
    let vocabulary = Vocabulary::new(decoder.config().codes, 0);
    let length = decoder.config().layout().len();
    let tokens = token_file::read(&write("tokens.safetensors"), length, vocabulary).unwrap();
    let expected: Vec<_> = requests.iter().map(|request| alone(&*drawer, request)).collect();
    assert_eq!(tokens, expected);
    let pictures = write("pictures");
    for (index, tokens) in tokens.iter().enumerate() {
        let picture = pixels::Picture::read(pictures.join(format!("000{index}.png"))).unwrap();
        assert_eq!(picture, decoder.decode(tokens).unwrap());
    }
    let grid = pixels::Picture::read(write("grid.png")).unwrap();
    assert_eq!([grid.width(), grid.height()], [2 + 64 + 2 + 64 + 2, 2 + 64 + 2]);
    let mut arrays = files::npz::ArchiveReader::open(&write("arrays.npz")).unwrap();
    assert_eq!(arrays.integers("arr_0", 1 << 20).unwrap().0, [2, 64, 64, 3]);

    // Fewer pictures than labels, and a drawing that fails, leave no file behind.
    let path = folder.path().join("short.png");
    let writer = SampleWriter::new(&path, 3, Some(vec![0; 3]), 2, false).unwrap();
    let short = writer.write(Some(&*decoder), None, drawing()).unwrap_err();
    assert!(matches!(short, SampleError::TooFew) && !path.exists());
    let refused =
        SampleWriter::new(&folder.path().join("x.bmp"), 2, Some(labels.clone()), 1, false)
            .unwrap_err();
    assert!(matches!(refused, SampleError::Ending { .. }));

    let previews = folder.path().join("previews");
    let writer =
        SampleWriter::new(&folder.path().join("t.safetensors"), 2, Some(labels), 2, false).unwrap();
    let shown = PreviewWriter::new(&previews, &*causal, false).unwrap();
    writer.write(None, Some(&shown), drawing()).unwrap();
    let shown = std::fs::read_dir(&previews).unwrap().count();
    assert_eq!(shown, 2 * decoder.config().layout().rows());

    // Pictures of another drawing never stay among those of this one.
    let again = |path: &Path, replace| SampleWriter::new(path, 2, None, 2, replace);
    let refused = again(&pictures, false).unwrap_err().to_string();
    assert!(
        refused.contains("`0000.png`, `0001.png`") && refused.contains("--replace"),
        "{refused}"
    );
    std::fs::write(
        pictures.join("more.png"),
        std::fs::read(folder.path().join("grid.png")).unwrap(),
    )
    .unwrap();
    again(&pictures, true).unwrap().write(Some(&*decoder), None, drawing()).unwrap();
    assert_eq!(std::fs::read_dir(&pictures).unwrap().count(), 2);
    std::fs::write(pictures.join("notes.txt"), "mine").unwrap();
    assert!(again(&pictures, true).unwrap_err().to_string().contains("`notes.txt`"));
    assert!(PreviewWriter::new(&previews, &*causal, false).is_err());
    // Previews among the pictures would be taken for pictures.
    let writer = again(&folder.path().join("new"), false).unwrap();
    assert!(writer.check_previews(&folder.path().join("new/previews")).is_err());
    assert!(writer.check_previews(&folder.path().join("new-previews")).is_ok());
    assert!(matches!(again(&folder.path().join(".png"), false), Err(SampleError::NoName { .. })));
}

#[test]
fn should_draw_without_a_class_what_the_unconditional_half_draws() {
    let compute = Compute::default();
    let drawer = compute.drawer(&MODEL).unwrap();
    let requests = requests_without_class(MODEL.generator_config().unwrap(), 2, 4);
    let guidance = |guidance| {
        let changes = SamplingChanges { guidance: Some(guidance), ..SamplingChanges::default() };
        let sampling = sampling(&MODEL, &changes).unwrap();
        finished(&mut Drawing::of(&*drawer, &requests, &sampling, 2).unwrap())
    };
    assert_eq!(guidance(1.0), guidance(4.0));
    assert!(requests.iter().all(|request| request.condition.label().is_none()));
}

/// The bundled model's tokenizer with a language model that has learned nothing.
fn model_of_prompts(folder: &Path) -> Model {
    use files::{HostTensor, safetensors::StorageFormat};
    let tokenizer = MODEL.config.tokenizer.clone();
    let (codes, size) = (tokenizer.codes, tokenizer.token_size);
    let preset = language::presets::qwen2_half_billion(tokenizer.layout(), codes, size);
    let control = language::ControlTokens {
        message_start: 1,
        message_end: 2,
        picture_start: 3,
        picture_end: 4,
        padding: 0,
    };
    let config = language::LanguageConfig {
        vocabulary: 352,
        width: 32,
        layers: 2,
        heads: 4,
        key_value_heads: 2,
        hidden: 40,
        adaptor_hidden: 32,
        head_hidden: 32,
        control,
        ..preset
    };
    let noise = |(name, shape): (String, Vec<usize>)| {
        let mut noise = tokens::noise::Noise::of_parameter(1, &name, 0);
        let values = (0..shape.iter().product()).map(|_| noise.normal() as f32 / 2.0).collect();
        (name, HostTensor::new(shape, values))
    };
    let text = std::fs::read_to_string(fixtures::fixture("text_tiny/tokenizer.json")).unwrap();
    model::TextModelContents {
        tokenizer: (&MODEL.tokenizer_tensors().unwrap(), StorageFormat::F32),
        language: (&config.language_shapes().into_iter().map(noise).collect(), StorageFormat::F32),
        image_side: &config.image_side_shapes().into_iter().map(noise).collect(),
        text_tokenizer: &text,
        config: &model::ModelConfig::of_prompts(tokenizer, config),
        readme: None,
    }
    .write(folder)
    .unwrap()
}

#[test]
fn should_draw_a_prompt_as_if_it_were_alone_whoever_joins() {
    let scratch = fixtures::Scratch::new();
    let model = model_of_prompts(&scratch.path("model"));
    let drawer = Compute::default().drawer(&model).unwrap();
    let prompts = model.prompts().unwrap();
    let texts = ["a red apple", "two blue circles and one yellow square", "x"].map(str::to_owned);
    let requests = prompt_requests(&prompts, &texts, 2, 3).unwrap();
    assert_eq!(requests.len(), 6);
    assert_eq!(requests[4].condition, requests[1].condition, "picture i has prompt i mod P");
    let sampling = sampling(&model, &SamplingChanges::default()).unwrap();
    assert_eq!((sampling.guidance, sampling.guidance_power, sampling.temperature), (5.0, 0.0, 1.0));
    let alone: Vec<_> = requests
        .iter()
        .map(|request| {
            let one = std::slice::from_ref(request);
            finished(&mut Drawing::of(&*drawer, one, &sampling, 1).unwrap()).remove(0).1
        })
        .collect();
    assert_ne!(alone[0], alone[3], "another number, another picture");
    assert_ne!(alone[0], alone[1]);
    // Without being told how long prompts will be, and one after the other.
    let mut drawing = Drawing::new(&*drawer, 2).unwrap();
    let mut events = Vec::new();
    for request in &requests {
        drawing.submit(request, &sampling).unwrap();
        (0..5).for_each(|_| events.extend(drawing.poll()));
    }
    events.extend(drawing);
    let mut drawn: Vec<_> = events
        .into_iter()
        .filter_map(|event| match event {
            Event::Finished { picture, tokens } => Some((picture, tokens)),
            _ => None,
        })
        .collect();
    drawn.sort();
    assert!(drawn.into_iter().map(|(_, tokens)| tokens).eq(alone));

    // No prompt: the two halves are one, so guidance changes nothing.
    let none = requests_without_prompt(&prompts, 1, 3);
    let of = |guidance| {
        let sampling = SamplingConfig { guidance, ..sampling };
        finished(&mut Drawing::of(&*drawer, &none, &sampling, 1).unwrap())
    };
    assert_eq!(of(1.0), of(6.0));
}

#[test]
fn should_refuse_a_prompt_for_classes_and_a_class_for_prompts() {
    let scratch = fixtures::Scratch::new();
    let model = model_of_prompts(&scratch.path("model"));
    let text = Compute::default().drawer(&model).unwrap();
    let classes = Compute::default().drawer(&MODEL).unwrap();
    let of_class = class_requests(&[0], 1, 1);
    let of_prompt = prompt_requests(&model.prompts().unwrap(), &["a".to_owned()], 1, 1).unwrap();
    let error = |drawer: &dyn Draw, requests: &[Request]| {
        Drawing::of(drawer, requests, &defaults(), 1).unwrap_err().to_string()
    };
    assert!(error(&*text, &of_class).contains("give a prompt"));
    assert!(error(&*classes, &of_prompt).contains("ask for a class"));
    let drafts = Compute::default().drawer_with_drafts(&model, pipeline::DraftSource::Own);
    assert!(matches!(drafts.map(drop), Err(PipelineError::PromptDrafts)));
    let empty = prompt_requests(&model.prompts().unwrap(), &[" ".to_owned()], 1, 1);
    assert!(empty.is_err());
}

#[cfg(feature = "reference")]
#[test]
fn should_draw_the_same_tokens_on_the_reference() {
    let requests = class_requests(&[0, 8], 1, 2);
    let compute = Compute::new(pipeline::Device::REFERENCE, None, None).unwrap();
    let on_burn = compute.drawer(&MODEL).unwrap();
    let drawing = Drawing::of(&*on_burn, &requests, &defaults(), 2).unwrap();
    let events: Vec<_> = drawing.collect();
    let drawer = Compute::default().drawer(&MODEL).unwrap();
    let mut drawing = Drawing::of(&*drawer, &requests, &defaults(), 2).unwrap();
    let expected = finished(&mut drawing);
    let ends: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Finished { picture, tokens } => Some((*picture, tokens.clone())),
            _ => None,
        })
        .collect();
    assert_eq!(ends, expected);
    let rows = events.iter().filter(|event| matches!(event, Event::Row { .. })).count();
    assert_eq!(rows, 2 * (on_burn.layout().rows() + 1));
}
