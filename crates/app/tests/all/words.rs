//! Pictures from words through the command line, against what `transformers` draws
//! (tests/fixtures/text_tiny), with the tokenizer of the authors' files (released_tiny).

use crate::common::{Scratch, fixture, integers};

fn text_tiny(file: &str) -> String {
    fixture("text_tiny").join(file).display().to_string()
}

/// A folder with the model `words` and its tokenizer alone, `tok`.
fn made() -> Scratch {
    let scratch = Scratch::new();
    let tokenizer = fixture("released_tiny/tokenizer.pth").display().to_string();
    scratch.ok(&["import", &tokenizer, "--out", "tok"]);
    let side = text_tiny("image_side.safetensors");
    let import = ["import", "--language", &text_tiny(""), "--tokenizer", "tok"];
    let told = scratch.ok(&[&import[..], &["--image-side", &side, "--out", "words"]].concat());
    assert!(
        told.contains("language    width 48, 3 layers, 4 heads, 2 of keys and values"),
        "{told}"
    );
    assert!(told.contains("guidance 5, power 0, temperature 1"), "{told}");
    scratch
}

fn prompts() -> Vec<String> {
    let text = std::fs::read_to_string(text_tiny("prompts.json")).unwrap();
    let file: serde_json::Value = serde_json::from_str(&text).unwrap();
    let texts = file["prompts"].as_array().unwrap().iter();
    texts.map(|text| text.as_str().unwrap().to_owned()).collect()
}

#[test]
fn should_draw_the_greedy_tokens_of_every_prompt() {
    let made = made();
    let prompts = prompts();
    let expected = std::fs::read(text_tiny("expected.safetensors")).unwrap();
    made.write("prompts.txt", format!("\u{feff}{}\n\n", prompts.join("\r\n\n")));
    let given: Vec<&str> = prompts.iter().map(String::as_str).collect();
    for guidance in ["1", "4"] {
        let out = format!("greedy-{guidance}.safetensors");
        let generate = ["generate", "--model", "words", "--top-k", "1", "--guidance", guidance];
        let arguments = [&generate[..], &["--out", &out, "--prompt"], &given].concat();
        made.ok(&arguments);
        let drawn = made.read(&out);
        let tokens: Vec<i64> = (0..prompts.len())
            .flat_map(|index| integers(&expected, &format!("greedy.{index}.{guidance}")))
            .collect();
        assert!(integers(&drawn, "tokens") == tokens, "guidance {guidance}");
        assert_eq!(integers(&drawn, "labels"), (0..prompts.len() as i64).collect::<Vec<_>>());
        // From a file, one at a time, and twice each.
        let again = ["--batch", "1", "--count", "2", "--prompt-file", "prompts.txt"];
        let file = format!("file-{guidance}.safetensors");
        made.ok(&[&generate[..], &again, &["--out", &file]].concat());
        let drawn = made.read(&file);
        assert!(integers(&drawn, "tokens") == [&tokens[..], &tokens].concat());
        let twice: Vec<i64> = (0..2).flat_map(|_| 0..prompts.len() as i64).collect();
        assert_eq!(integers(&drawn, "labels"), twice);
    }
}

#[test]
fn should_complete_a_picture_with_a_prompt_and_without() {
    let made = made();
    let image = fixture("released_tiny/image_0.png").display().to_string();
    let known = std::fs::read(fixture("released_tiny/expected.safetensors")).unwrap();
    let known = integers(&known, "tokens");
    let complete = ["complete", &image, "--rows", "12", "--model", "words", "--temperature", "0"];
    let with = ["--prompt", "a red apple", "--out", "with.safetensors"];
    made.ok(&[&complete[..], &with].concat());
    made.ok(&[&complete[..], &["--out", "without.safetensors"]].concat());
    let kept = 17 + 12 * 16;
    let tokens = |file: &str| integers(&made.read(file), "tokens");
    for file in ["with.safetensors", "without.safetensors"] {
        assert_eq!(tokens(file)[..kept], known[..kept]);
    }
    assert_ne!(tokens("with.safetensors"), tokens("without.safetensors"));
}

#[test]
fn should_write_what_the_language_model_says_of_a_text() {
    let made = made();
    let expected = fixtures::Tensors::open("text_tiny/expected.safetensors");
    for (index, text) in prompts().iter().enumerate() {
        let out = format!("text-{index}.safetensors");
        made.ok(&["analyze", "language", "--model", "words", "--text", text, "--out", &out]);
        let file = made.read(&out);
        assert_eq!(integers(&file, "ids"), expected.integers(&format!("ids.{index}")));
        let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
        let logits = tensors.tensor("logits").unwrap();
        let of = expected.floats(&format!("logits.{index}"));
        assert_eq!(logits.shape(), of.shape);
        let numbers =
            logits.data().as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes));
        let worst = numbers.zip(&of.values).map(|(got, of)| (got - of).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-4, "{text}: {worst}");
    }
    let refused = made.refused(&[
        "analyze",
        "language",
        "--model",
        "mini",
        "--text",
        "a",
        "--out",
        "x.safetensors",
    ]);
    assert!(refused.contains("reads no prompts"), "{refused}");
}

#[test]
fn should_refuse_prompts_that_cannot_be_drawn() {
    let made = made();
    let long = "a ".repeat(50_000);
    std::fs::write(made.path("latin1.txt"), b"good\nm\xfcde\n").unwrap();
    made.write("none.txt", "\n \n");
    let generate = ["generate", "--model", "words", "--out", "never.png"];
    for (arguments, part) in [
        (&["--prompt", " "][..], "the prompt is empty"),
        (&["--prompt", &long], "reads at most 240"),
        (&["--prompt-file", "latin1.txt"], "line 2 is not UTF-8"),
        (&["--prompt-file", "none.txt"], "has no prompts"),
        (&["--prompt-file", "nowhere.txt"], "cannot read nowhere.txt"),
        (&["--class", "0"], "give it a prompt"),
    ] {
        let refused = made.refused(&[&generate[..], arguments].concat());
        assert!(refused.contains(part) && refused.len() < 1000, "{part}: {refused}");
    }
    let refused = made.refused(&["generate", "--prompt", "a", "--out", "never.png"]);
    assert!(refused.contains("reads no prompts; ask for one of its classes"), "{refused}");
    for device in ["reference", "gpu"] {
        let on = ["--device", device, "--prompt", "a"];
        let refused = made.refused(&[&generate[..], &on].concat());
        assert!(refused.contains("cpu") || refused.contains("shaders"), "{refused}");
    }
    assert!(!made.path("never.png").exists());
    // Neither, or both, are wrong arguments.
    for arguments in [&[][..], &["--class", "0", "--prompt", "a"]] {
        let output = made.run(&[&generate[..], arguments].concat());
        assert_eq!(output.status.code(), Some(2));
    }
}

#[test]
fn should_refuse_folders_that_make_no_model() {
    let made = made();
    let side = text_tiny("image_side.safetensors");
    let refused = |arguments: &[&str]| {
        let refused = made.refused(&[&["import", "--out", "broken"][..], arguments].concat());
        assert!(!made.path("broken").exists());
        refused
    };
    let other =
        refused(&["--language", &text_tiny(""), "--tokenizer", "mini", "--image-side", &side]);
    assert!(other.contains("belongs to another tokenizer"), "{other}");
    let none = refused(&["--language", "words", "--tokenizer", "tok"]);
    assert!(none.contains("`model_type`"), "{none}");
    let nothing = refused(&["--language", "tok/nothing", "--tokenizer", "tok"]);
    assert!(nothing.contains("no `config.json`"), "{nothing}");
    let alone = made.run(&["import", "--language", &text_tiny(""), "--out", "broken"]);
    assert_eq!(alone.status.code(), Some(2));
    let fresh = ["import", "--language", &text_tiny(""), "--tokenizer", "tok", "--out", "fresh"];
    made.ok(&[&fresh[..], &["--precision", "bf16"]].concat());
    made.ok(&["generate", "--model", "fresh", "--prompt", "a", "--out", "fresh.png"]);
}

#[test]
fn should_train_words_from_pictures_or_a_cache_and_draw_them() {
    let scratch = Scratch::new();
    let train = ["train", "text", "--recipe", "mini-text", "--data"];
    let with = |more: &[&'static str]| [&train[..], more, &TWO_STEPS].concat();
    // Nothing may be written, and nothing is cached yet.
    let pictures = ["bundled:heldout", "--model", "mini", "--out", "run"];
    let refused = scratch.refused(&with(&[&pictures[..], &["--dry-run"]].concat()));
    assert!(refused.contains("alitok cache build --data bundled:heldout"), "{refused}");
    assert!(!scratch.path("run").exists());
    let refused = scratch.refused(&with(&["bundled:heldout", "--out", "run"]));
    assert!(refused.contains("--model is needed"), "{refused}");

    scratch.ok(&with(&pictures));
    let generate = ["generate", "--model", "run", "--prompt", "a red apple", "--seed", "1"];
    scratch.ok(&[&generate[..], &["--out", "one.safetensors"]].concat());
    // A run that is there is not begun again, and its cache is as good as its pictures.
    let refused = scratch.refused(&with(&pictures));
    assert!(refused.contains("--resume"), "{refused}");
    let cached = ["run/cache", "--heldout-share", "0.1", "--out", "again"];
    let told = scratch.ok(&with(&[&cached[..], &["--dry-run"]].concat()));
    assert!(told.contains("a language model on cached tokens and their captions"), "{told}");
    scratch.ok(&with(&["run/cache", "--out", "same"]));
    let same = ["generate", "--model", "same", "--prompt", "a red apple", "--seed", "1"];
    scratch.ok(&[&same[..], &["--out", "same.safetensors"]].concat());
    assert_eq!(scratch.read("one.safetensors"), scratch.read("same.safetensors"));
    // It goes on from a model of words, whose size then counts.
    let on = ["train", "text", "--recipe", "mini-text", "--data", "run/cache", "--model", "run"];
    scratch.ok(&[&on[..], &["--out", "on"], &TWO_STEPS[..8]].concat());
    let refused = scratch.refused(&[&on[..], &["--out", "other"], &TWO_STEPS].concat());
    assert!(refused.contains("leave one of them away"), "{refused}");
}

/// Settings of a training of two steps.
const TWO_STEPS: [&str; 9] = [
    "--set",
    "steps=2",
    "batch=4",
    "log_every=1",
    "checkpoint_every=1",
    "warmup_steps=1",
    "samples_every=2",
    "precision=f32",
    "architecture={vocabulary=300,width=16,layers=1,heads=2,key_value_heads=1,hidden=24}",
];

#[test]
fn should_measure_captioned_pictures_as_training_does_and_score_shapes() {
    let scratch = Scratch::new();
    scratch.ok(&["data", "shapes", "--out", "shapes", "--count", "12", "--heldout", "2"]);
    let build = ["cache", "build", "--model", "mini", "--data"];
    scratch.ok(&[&build[..], &["shapes/train.tar", "--out", "train"]].concat());
    scratch.ok(&[&build[..], &["shapes/heldout.tar", "--out", "heldout"]].concat());
    let train =
        ["train", "text", "--recipe", "mini-text", "--data", "train", "--heldout", "heldout"];
    scratch.ok(&[&train[..], &["--out", "run"], &TWO_STEPS, &["evaluate_every=1"]].concat());

    let evaluate = ["evaluate", "text", "--model", "run", "--json"];
    let measure = |more: &[&str]| -> serde_json::Value {
        serde_json::from_str(&scratch.ok(&[&evaluate[..], more].concat())).unwrap()
    };
    let found = measure(&["--data", "heldout"]);
    let captions = &found["captions"];
    assert_eq!((&captions["pictures"], &captions["tokens"]), (&22.into(), &72.into()));
    let log = String::from_utf8(scratch.read("run/log.jsonl")).unwrap();
    let last: serde_json::Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    let nats = captions["conditional"]["nats_a_token"].as_f64().unwrap();
    let heldout_loss = last["heldout_loss"].as_f64().unwrap();
    assert!((nats - heldout_loss).abs() < 1e-4, "{nats} here, {heldout_loss} in training");
    let classes = captions["classes"].as_array().unwrap();
    assert_eq!(classes.len(), 6);
    // The pictures say the same as their tokens, and fewer are evenly chosen.
    assert_eq!(measure(&["--data", "shapes/heldout.tar"]), found);
    let few = measure(&["--data", "heldout", "--count", "11"]);
    assert_eq!(few["captions"]["pictures"], 11);
    assert_eq!(few["captions"]["classes"].as_array().unwrap().len(), 6);

    let prompts = ["--shapes", "shapes/prompts.jsonl", "--per-prompt", "2"];
    let found = measure(&prompts);
    assert!(found.get("captions").is_none());
    let shapes = &found["shapes"];
    assert_eq!(shapes["pictures"], 44);
    let count = |scores: &serde_json::Value, side: &str| -> u64 {
        let tasks = scores["tasks"].as_array().unwrap().iter();
        tasks.map(|task| task[side]["of"].as_u64().unwrap()).sum()
    };
    assert_eq!((count(&shapes["drawn"], "seen"), count(&shapes["drawn"], "unseen")), (24, 20));
    assert_eq!((count(&shapes["rebuilt"], "seen"), count(&shapes["rebuilt"], "unseen")), (12, 10));
    // A model of two steps draws nothing, and the tokenizer of emoji keeps most shapes.
    assert_eq!(shapes["drawn"]["seen"], 0.0);
    assert!(shapes["rebuilt"]["seen"].as_f64().unwrap() > 0.5, "{shapes}");
    // The batch changes nothing.
    assert_eq!(measure(&[&prompts[..], &["--batch", "3"]].concat()), found);

    let propose =
        ["recipe", "new", "--data", "shapes/train.tar", "--size", "16", "--hours", "0.01"];
    let told = scratch.ok(&[&propose[..], &["--words", "--out", "my"]].concat());
    assert!(told.contains("my/text.toml: "), "{told}");
    let text = String::from_utf8(scratch.read("my/text.toml")).unwrap();
    assert!(
        text.contains("alitok train text --data my/cache --recipe my --out my/words"),
        "{text}"
    );
    // Its tasks are classes.
    scratch.ok(&[&propose[..], &["--out", "classes"]].concat());
    assert!(scratch.path("classes/generator.toml").exists());
    let picture = std::fs::read(fixture("photo_0.png")).unwrap();
    for file in ["mute/a/0.png", "mute/b/0.png"] {
        scratch.write(file, &picture);
    }
    let mute = ["recipe", "new", "--data", "mute", "--words", "--size", "64", "--out", "never"];
    assert!(scratch.refused(&mute).contains("have captions"));

    let table =
        scratch.ok(&["evaluate", "text", "--model", "run", "--data", "heldout", "--shapes"]);
    for part in ["22 pictures of 72 tokens", "nats a picture from the words", "| mean |"] {
        assert!(table.contains(part), "{part}: {table}");
    }
    let refused = scratch.refused(&["evaluate", "text", "--model", "mini", "--shapes"]);
    assert!(refused.contains("reads no prompts"), "{refused}");
    let other = fixture("released_tiny/tokenizer.pth").display().to_string();
    scratch.ok(&["import", &other, "--out", "tok"]);
    let build = ["cache", "build", "--data", "shapes/heldout.tar", "--model", "tok"];
    scratch.ok(&[&build[..], &["--out", "other"]].concat());
    let refused = scratch.refused(&[&evaluate[..], &["--data", "other"]].concat());
    assert!(refused.contains("tokenizer"), "{refused}");
    assert_eq!(scratch.run(&evaluate).status.code(), Some(2));
}
