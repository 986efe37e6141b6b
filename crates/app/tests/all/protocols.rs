//! Evaluation by protocols: in shards, killed, and misused.

use std::{collections::BTreeMap, process::Stdio};

use crate::common::Scratch;
use pixels::Picture;
use serde_json::Value;

/// A tiny model in `model`, and pictures that it may be compared with in `reference`: a folder a
/// class.
fn scratch() -> Scratch {
    let scratch = Scratch::new();
    let small = "={width=16,layers=1,heads=2}";
    let train = ["train", "tokenizer", "--stage", "1", "--recipe", "mini", "--out", "tokenizer"];
    let [encoder, decoder, generator] =
        ["encoder", "causal_decoder.transformer", "width=16,layers=1,heads=2"].map(|name| {
            if name.contains('=') {
                format!("architecture={{{name}}}")
            } else {
                format!("architecture.{name}{small}")
            }
        });
    let settings = [
        "--data",
        "bundled:heldout",
        "--set",
        "steps=2",
        "batch=2",
        "warmup_steps=1",
        // A step that is felt, after one of rate 0: a fresh decoder makes the same grey of all tokens.
        "learning_rate=0.1",
        "architecture.codes=16",
        "architecture.token_size=4",
        &encoder,
        &decoder,
    ];
    scratch.ok(&[&train[..], &settings].concat());
    let cache = ["cache", "build", "--data", "bundled:heldout", "--model", "tokenizer"];
    scratch.ok(&[&cache[..], &["--out", "cache"]].concat());
    let train = ["train", "generator", "--cache", "cache", "--recipe", "mini", "--out", "model"];
    let settings = ["--set", "steps=1", "batch=2", "warmup_steps=1", &generator];
    scratch.ok(&[&train[..], &settings].concat());

    for (class, shade) in [("a", 0), ("b", 90)] {
        std::fs::create_dir_all(scratch.path(format!("reference/{class}"))).unwrap();
        for index in 0..5 {
            let value = |at: usize| ((at / 3 % 64) * (index + 1) + (at / 192) * 2 + shade) as u8;
            let picture = Picture::new(64, 64, (0..64 * 64 * 3).map(value).collect()).unwrap();
            picture.write_png(scratch.path(format!("reference/{class}/{index}.png"))).unwrap();
        }
    }
    std::fs::write(scratch.path("drawn.toml"), DRAWN).unwrap();
    std::fs::write(scratch.path("rebuilt.toml"), REBUILT).unwrap();
    scratch
}

const DRAWN: &str = r#"
kind = "generation"
count = 144
seed = 5
extractor = "lite"
reference = { purpose = "generation", what = "stripes", source = "reference" }
model = { codes = 16, size = 64, classes = 9 }
sampling = { guidance = 2.0 }
"#;

const REBUILT: &str = r#"
kind = "reconstruction"
count = 10
seed = 0
extractor = "lite"
data = { what = "stripes", source = "reference" }
reference = { purpose = "reconstruction", what = "the same" }
model = { codes = 16, size = 64 }
published = { psnr = 20.66 }
"#;

fn evaluate<'a>(protocol: &'a str, out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let run = ["evaluate", "run", "--model", "model", "--protocol", protocol, "--out", out];
    [&run[..], more].concat()
}

/// The parts and the result of an evaluation.
fn files(scratch: &Scratch, out: &str) -> BTreeMap<String, Vec<u8>> {
    let parts = std::fs::read_dir(scratch.path(format!("{out}/parts"))).unwrap();
    let names = parts.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut files: BTreeMap<_, _> = names
        .filter(|name| !name.starts_with(".lock"))
        .map(|name| (name.clone(), scratch.read(format!("{out}/parts/{name}"))))
        .collect();
    files.insert("result".into(), scratch.read(format!("{out}/result.json")));
    files
}

fn object(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn should_draw_the_same_in_any_shards_and_after_kills() {
    let scratch = scratch();
    let told = scratch.ok(&evaluate("drawn.toml", "whole", &["--json"]));
    let result = object(&told);
    assert_eq!((&result["samples"], &result["reference"]), (&144.into(), &10.into()));
    assert!(result["lite_frechet_distance"].as_f64().unwrap() > 0.0, "{told}");
    assert!(result.get("fid").is_none(), "{told}");
    let whole = files(&scratch, "whole");
    assert_eq!(whole.len(), 3 + 1, "{:?}", whole.keys());

    // Another batch, shards in another order; only the last one measures.
    let shard = |shard: &'static str, more: &[&'static str]| {
        let arguments = [&["--json", "--shard", shard][..], more].concat();
        scratch.ok(&evaluate("drawn.toml", "shards", &arguments))
    };
    assert_eq!(shard("1/2", &["--batch", "3"]), "");
    assert_eq!(shard("0/2", &[]), told);
    assert_eq!(files(&scratch, "shards"), whole);

    // Killed whenever another part is there.
    let arguments = evaluate("drawn.toml", "killed", &[]);
    for parts in 1..3 {
        let mut command = scratch.command(&arguments);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let path = scratch.path(format!("killed/parts/part-{:05}.safetensors", parts - 1));
        while !path.exists() && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    scratch.ok(&arguments);
    assert_eq!(files(&scratch, "killed"), whole);

    // The pictures are those of `generate`: classes go round, and pictures count on.
    let classes: Vec<String> = (0..9).map(|class| class.to_string()).collect();
    let mut generate = vec!["generate", "--model", "model", "--seed", "5", "--guidance", "2"];
    generate.extend(["--count", "8", "--out", "tokens.safetensors", "--class"]);
    generate.extend(classes.iter().map(String::as_str));
    scratch.ok(&generate);
    let part = &whole["part-00000.safetensors"];
    let drawn = scratch.read("tokens.safetensors");
    for name in ["tokens", "labels"] {
        let all = crate::common::integers(&drawn, name);
        let part = crate::common::integers(part, name);
        assert_eq!(part, all[..part.len()], "{name}");
    }

    // Another experiment does not mix with this one.
    let other = evaluate("drawn.toml", "whole", &["--set", "seed=6"]);
    assert!(scratch.refused(&other).contains("seed 5, now it is 6"));
    // A damaged part is named.
    let path = scratch.path("whole/parts/part-00001.safetensors");
    std::fs::write(&path, &scratch.read("whole/parts/part-00001.safetensors")[..999]).unwrap();
    let told = scratch.refused(&evaluate("drawn.toml", "whole", &[]));
    assert!(told.contains("part-00001") && told.contains("remove it"), "{told}");
    std::fs::remove_file(path).unwrap();
    scratch.ok(&evaluate("drawn.toml", "whole", &[]));
    assert_eq!(files(&scratch, "whole"), whole);
}

#[test]
fn should_refuse_what_is_not_the_protocol() {
    let scratch = scratch();
    let refused = |protocol: &'static str, more: &[&'static str]| {
        scratch.refused(&evaluate(protocol, "out", more))
    };
    // The protocol itself.
    assert!(refused("papre", &[]).contains("paper-b"));
    let told = refused("drawn.toml", &["--set", "sampling.guidence=3"]);
    assert!(told.contains("did you mean") && told.contains("guidance"), "{told}");
    assert!(refused("drawn.toml", &["--set", "seed"]).contains("key=value"));
    // The model.
    let told = refused("mini", &[]);
    assert!(told.contains("codebook is 16, not 4096") && told.contains("width is 16"), "{told}");
    assert!(refused("paper", &[]).contains("no model of the paper"));
    // The network.
    let told = refused("drawn.toml", &["--extractor", "inception=none.pth"]);
    assert!(told.contains("compares by lite"), "{told}");
    let told = refused("drawn.toml", &["--set", "extractor=inception", "--extractor", "lite"]);
    assert!(told.contains("compares by inception, not by lite"), "{told}");
    // The reference: a validation side, statistics of one, and one of another size.
    assert!(refused("drawn.toml", &["--reference", "bundled:heldout"]).contains("rFID"));
    let statistics = ["evaluate", "statistics", "--data", "reference", "--out", "own.safetensors"];
    scratch.ok(&[&statistics[..], &["--purpose", "reconstruction"]].concat());
    assert!(refused("drawn.toml", &["--reference", "own.safetensors"]).contains("rFID"));
    assert!(refused("rebuilt.toml", &["--reference", "reference"]).contains("leave out"));
    let told = refused("drawn.toml", &["--set", "reference.per_class=6"]);
    assert!(told.contains("has 5 pictures, 6 were asked for"), "{told}");
    // The count.
    let told = refused("rebuilt.toml", &["--data", "bundled:heldout"]);
    assert!(told.contains("of 10 pictures") && told.contains("263"), "{told}");
    assert!(refused("drawn.toml", &["--data", "reference"]).contains("reconstructs nothing"));
    assert!(refused("drawn.toml", &["--shard", "2/2"]).contains("2/2"));
    assert!(refused("drawn.toml", &["--lpips", "alex"]).contains("--lpips"));
    assert!(refused("rebuilt.toml", &["--lpips", "resnet"]).contains("`vgg` and `alex`"));

    // What was changed on purpose is told, and which classes come short.
    std::fs::create_dir(scratch.path("other")).unwrap();
    std::fs::write(scratch.path("other/notes.txt"), "mine").unwrap();
    assert!(scratch.refused(&evaluate("drawn.toml", "other", &[])).contains("something else"));
    let changed = evaluate("drawn.toml", "changed", &["--set", "count=20", "--json"]);
    let output = scratch.run(&changed);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{told}");
    assert!(told.contains("count is 20, not 144"), "{told}");
    assert!(told.contains("as many of each of 9 classes"), "{told}");
    assert!(told.contains("no FID"), "{told}");
    let departures = &object(&String::from_utf8(output.stdout).unwrap())["departures"];
    assert_eq!(departures.as_array().unwrap().len(), 3, "{departures}");
}

#[test]
fn should_rebuild_by_a_protocol_as_without() {
    let scratch = scratch();
    let plain = ["evaluate", "reconstruction", "--model", "model", "--data", "reference", "--json"];
    let plain = object(&scratch.ok(&plain));
    let run = object(&scratch.ok(&evaluate("rebuilt.toml", "rebuilt", &["--json"])));
    for key in ["psnr", "ssim", "lite_frechet_distance", "row_errors", "codebook_entropy_bits"] {
        assert_eq!(plain[key], run[key], "{key}");
    }
    assert_eq!(run["published"]["psnr"], 20.66);
    // Measured beside published, of what was published only.
    let told = scratch.ok(&evaluate("rebuilt.toml", "rebuilt", &[]));
    let line = |title: &str| told.lines().find(|line| line.starts_with(title)).unwrap();
    assert!(line("PSNR").ends_with("20.66") && !line("SSIM").ends_with("20.66"), "{told}");

    // The limit of appendix A.1: pictures of the training side against a reference for generation.
    let limit = ["--set", "reference={purpose='generation',what='s',source='reference'}"];
    let limit = [&limit[..], &["data.per_class=3", "count=6", "--json"]].concat();
    let limit = object(&scratch.ok(&evaluate("rebuilt.toml", "limit", &limit)));
    assert_eq!(limit["images"], 6);
    let number = |key: &str| limit[key].as_f64().unwrap_or_else(|| panic!("{key} in {limit}"));
    // The originals are a part of the reference, and nearer to it than what became of them.
    assert!(number("lite_originals_distance") < number("lite_frechet_distance"), "{limit}");
    assert!(number("lite_own_distance") > 0.0, "{limit}");
}

#[test]
fn should_evaluate_the_bundled_model_by_its_protocols() {
    let scratch = Scratch::new();
    let run = ["evaluate", "run", "--protocol", "mini", "mini-limit", "--out", "out", "--json"];
    let settings = ["--set", "count=9", "reference.per_class=2"];
    let output = scratch.run(&[&run[..], &settings].concat());
    // The limit has no nine pictures.
    assert!(String::from_utf8(output.stderr).unwrap().contains("of 9 pictures"));
    assert_eq!(scratch.files(), Vec::<std::path::PathBuf>::new());
    let run = ["evaluate", "run", "--protocol", "mini", "--out", "out", "--json"];
    let result = object(&scratch.ok(&[&run[..], &settings].concat()));
    assert_eq!((&result["samples"], &result["reference"]), (&9.into(), &18.into()));
    assert!(result["lite_precision"].as_f64().is_some(), "{result}");
    // Its pictures can be made again from their tokens.
    let part = "out/parts/part-00000.safetensors";
    scratch.ok(&["decode", part, "--out", "pictures"]);
    assert_eq!(std::fs::read_dir(scratch.path("pictures")).unwrap().count(), 9);
}

#[test]
fn should_sweep_settings_and_checkpoints_and_keep_finished_points() {
    let scratch = scratch();
    let sweep = |out: &'static str, more: &[&'static str]| -> Value {
        let fixed = ["evaluate", "sweep", "--protocol", "drawn.toml", "--count", "27"];
        let fixed = [&fixed[..], &["--resamples", "9", "--json", "--out", out], more].concat();
        object(&scratch.ok(&fixed))
    };
    let lines = |out: &str| -> Vec<Value> {
        let text = String::from_utf8(scratch.read(format!("{out}/points.jsonl"))).unwrap();
        text.lines().map(object).collect()
    };
    let grid = ["--model", "model", "--guidance", "1,3", "--temperature", "0.5,1"];
    let first = sweep("grid", &grid);
    assert_eq!(first["points"].as_array().unwrap().len(), 4);
    let finished = lines("grid");
    assert_eq!(finished.len(), 4);
    for point in &finished {
        let distance = &point["distance"];
        assert!(distance["value"].as_f64().unwrap() > 0.0, "{point}");
        assert!(distance["deviation"].as_f64().unwrap() > 0.0, "{point}");
        assert!(point["quality"]["value"].as_f64().is_some(), "{point}");
    }
    for name in ["sweep.svg", "sweep.png"] {
        assert!(!scratch.read(format!("grid/{name}")).is_empty());
    }
    // A point is what `run` measures.
    let run = ["--set", "count=27", "sampling.guidance=3", "sampling.temperature=0.5", "--json"];
    let run = object(&scratch.ok(&evaluate("drawn.toml", "point", &run)));
    let setting = |point: &&Value| {
        point["setting"]["guidance"] == 3.0 && point["setting"]["temperature"] == 0.5
    };
    let point = finished.iter().find(setting).unwrap();
    assert_eq!(point["distance"]["value"], run["lite_frechet_distance"]);
    // Finished points are taken as they are: here one that was changed by hand, after a line that
    // is missing.
    let mut changed = finished.clone();
    changed.remove(1);
    changed[0]["distance"]["value"] = 0.125.into();
    let text: String = changed.iter().map(|line| format!("{line}\n")).collect();
    std::fs::write(scratch.path("grid/points.jsonl"), text).unwrap();
    let again = sweep("grid", &grid);
    assert_eq!(again["least"], finished[0]["setting"]);
    let after = lines("grid");
    assert_eq!((after.len(), &after[3]), (4, &finished[1]));
    assert!(
        scratch.files().iter().all(|path| !path.ends_with("part-00000.safetensors")
            || path.starts_with(scratch.path("point")))
    );

    let golden = ["--model", "model", "--golden", "guidance=1:4", "--evaluations", "4"];
    assert_eq!(sweep("golden", &golden)["points"].as_array().unwrap().len(), 4);
    let refused = |more: &[&str]| {
        let fixed = ["evaluate", "sweep", "--model", "model", "--out", "none", "--protocol"];
        scratch.refused(&[&fixed[..], more].concat())
    };
    assert!(refused(&["rebuilt.toml"]).contains("draws nothing"));
    assert!(refused(&["drawn.toml", "--golden", "top_k=1:2"]).contains("guidance_power"));
    assert!(refused(&["drawn.toml", "--temperature=-1"]).contains("temperature"));
    assert!(refused(&["drawn.toml", "--reference", "bundled:heldout"]).contains("rFID"));

    // The checkpoint of a run is the model that the run exported then.
    let of_run = sweep("steps", &["--run", "model", "--guidance", "3"]);
    let of_model = sweep("model-3", &["--model", "model", "--guidance", "3"]);
    let points = of_run["points"].as_array().unwrap();
    let steps: Vec<_> = points.iter().map(|point| point["setting"]["step"].as_u64()).collect();
    assert_eq!(steps, [Some(0), Some(1)]);
    assert_eq!(points[1]["distance"], of_model["points"][0]["distance"]);
}
