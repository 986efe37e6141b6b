//! What is written where: folders that hold something, links, names, pipes, full disks, kills.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    process::Stdio,
};

use crate::common::{Scratch, fixture};

/// Draws two pictures of the bundled model.
fn generate<'a>(out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["generate", "--class", "Flags", "--count", "2", "--out", out][..], more].concat()
}

/// What a command that works says on standard error.
fn told(scratch: &Scratch, arguments: &[&str]) -> String {
    let output = scratch.run(arguments);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{arguments:?}: {told}");
    told
}

fn last_line(told: &str) -> &str {
    told.lines().last().unwrap_or_default()
}

#[test]
fn should_mix_nothing_into_a_folder_that_holds_something() {
    let scratch = Scratch::new();
    let photo = fixture("photo_0.png").display().to_string();
    scratch.ok(&["encode", &photo, "--out", "t.safetensors"]);
    let said = told(&scratch, &generate("out", &["--count", "5"][..0]));
    assert!(last_line(&said).starts_with("2 pictures in "), "{said}");
    assert!(last_line(&said).ends_with(" s → out/"), "{said}");
    let verbs: [Vec<&str>; 3] = [
        generate("out", &[]),
        vec!["decode", "t.safetensors", "--out", "out"],
        vec!["reconstruct", &photo, "--out", "out"],
    ];
    for verb in &verbs {
        let refused = scratch.refused(verb);
        assert!(refused.contains("`0000.png`, `0001.png`"), "{refused}");
        assert!(refused.contains("--replace"), "{refused}");
    }
    for verb in &verbs {
        let said = told(&scratch, &[&verb[..], &["--replace"]].concat());
        assert!(last_line(&said).contains(" → out/"), "{said}");
        let count = fs::read_dir(scratch.path("out")).unwrap().count();
        assert_eq!(count, if verb[0] == "generate" { 2 } else { 1 });
    }
    // Names are kept, and what somebody else put there is never deleted.
    assert!(scratch.path("out/photo_0.png").exists());
    fs::create_dir(scratch.path("out/.git")).unwrap();
    fs::write(scratch.path("out/.git/config"), "mine").unwrap();
    fs::write(scratch.path("out/thesis.docx"), "mine").unwrap();
    for verb in &verbs {
        let refused = scratch.refused(&[&verb[..], &["--replace"]].concat());
        assert!(refused.contains("`.git/config`, `thesis.docx`"), "{refused}");
    }
    let inside = scratch.refused(&["reconstruct", "out/photo_0.png", "--out", "out", "--replace"]);
    assert!(inside.contains("is read by this command"), "{inside}");
    let previews = scratch.refused(&generate("new", &["--previews", "new/previews"]));
    assert!(previews.contains("holds pictures alone"), "{previews}");
    let bare = scratch.refused(&generate(".png", &[]));
    assert!(bare.contains("write NAME.png"), "{bare}");
}

#[test]
fn should_mix_no_crops_into_a_folder_that_holds_something() {
    let scratch = Scratch::new();
    let photo = fixture("photo_0.png").display().to_string();
    let crops = ["data", "crops", &photo, "--size", "16", "--out", "out"];
    let said = told(&scratch, &[&crops[..], &["--ten-crop"]].concat());
    assert!(last_line(&said).starts_with("10 pictures in ") && said.contains("→ out/"), "{said}");
    assert!(scratch.refused(&crops).contains("--replace"));
    let replace = [&crops[..], &["--replace"]].concat();
    let said = told(&scratch, &replace);
    assert!(last_line(&said).starts_with("1 picture in "), "{said}");
    assert_eq!(fs::read_dir(scratch.path("out")).unwrap().count(), 1);
    fs::write(scratch.path("out/thesis.docx"), "mine").unwrap();
    assert!(scratch.refused(&replace).contains("`thesis.docx`"));
    for size in ["0", "100000", "18446744073709551615"] {
        let said = scratch.refused(&["data", "crops", &photo, "--size", size, "--out", "large"]);
        assert!(said.contains(size) && said.contains("8192"), "{said}");
    }
}

#[test]
fn should_enlarge_a_grid_and_write_classes_into_it_only_when_told() {
    let scratch = Scratch::new();
    let draw = |out: &str, more: &[&str]| {
        let arguments = ["generate", "--class", "Flags", "Objects", "--count", "1", "--out", out];
        scratch.ok(&[&arguments[..], more].concat());
        pixels::Picture::read(scratch.path(out)).unwrap()
    };
    let plain = draw("plain.png", &[]);
    assert_eq!((plain.width(), plain.height()), (2 * 66 + 2, 66 + 2));
    let large = draw("large.png", &["--scale", "3"]);
    assert_eq!((large.width(), large.height()), (3 * plain.width(), 3 * plain.height()));
    for (place, pixel) in large.rgb().chunks_exact(3).enumerate() {
        let (x, y) = (place % large.width() / 3, place / large.width() / 3);
        let source = 3 * (y * plain.width() + x);
        assert_eq!(pixel, &plain.rgb()[source..source + 3], "{x} {y}");
    }
    let captions = draw("captions.png", &["--scale", "3", "--captions"]);
    assert_eq!(captions.width(), large.width());
    let above = 3 * captions.width() * (captions.height() - large.height());
    assert!(captions.rgb()[..above].iter().any(|&value| value < 100), "no words");
    assert!(captions.rgb().ends_with(&large.rgb()[3 * 6 * large.width()..]), "other pictures");

    let folder = scratch.refused(&generate("folder", &["--captions"]));
    assert!(folder.contains("name a .png"), "{folder}");
    let many =
        ["generate", "--class", "Flags", "--count", "90000", "--scale", "64", "--out", "x.png"];
    assert!(scratch.refused(&many).contains("too large"));
}

#[test]
fn should_end_what_measures_with_how_many_and_how_long() {
    let scratch = Scratch::new();
    let data = ["--data", "bundled:heldout"];
    let rebuild = [&["evaluate", "reconstruction", "--per-class", "1"][..], &data].concat();
    for more in [&[][..], &["--json"]] {
        let said = told(&scratch, &[&rebuild[..], more].concat());
        assert!(last_line(&said).starts_with("measured 9 pictures in "), "{said}");
    }
    let said = told(&scratch, &["data", "inspect", "bundled:heldout"]);
    assert!(last_line(&said).starts_with("read 263 pictures in "), "{said}");
    let sheet = ["data", "inspect", "bundled:heldout", "--sheet", "sheet.png"];
    let said = told(&scratch, &sheet);
    assert!(last_line(&said).starts_with("96 pictures in "), "{said}");
    let height = || pixels::Picture::read(scratch.path("sheet.png")).unwrap().height();
    let plain = height();
    told(&scratch, &[&sheet[..], &["--captions"]].concat());
    assert!(height() > plain + 8 * 10);
    told(&scratch, &[&sheet[..], &["--scale", "2"]].concat());
    // Eight rows of pictures of 100 pixels at most, each twice as high; what lies between them stays.
    assert!((plain + 8 * 64..=2 * plain).contains(&height()), "{} of {plain}", height());
    assert!(
        scratch
            .refused(&["data", "inspect", "bundled:heldout", "--scale", "2"])
            .contains("--sheet")
    );
}

#[test]
fn should_replace_a_model_or_a_cache_whole_and_only_when_told() {
    let scratch = Scratch::new();
    let tokenizer = fixture("released_tiny/tokenizer.pth").display().to_string();
    let generator = fixture("released_tiny/generator.bin").display().to_string();
    let both = ["import", &tokenizer, &generator, "--out", "model"];
    let said = told(&scratch, &both);
    assert!(last_line(&said).ends_with("→ model/"), "{said}");
    assert!(scratch.refused(&both).contains("--replace"));
    let export = ["export", "mini", "--folder", "model"];
    assert!(scratch.refused(&export).contains("--replace"));
    told(&scratch, &["import", &tokenizer, "--out", "model", "--replace"]);
    assert!(!scratch.path("model/generator.safetensors").exists());
    fs::write(scratch.path("model/notes.txt"), "mine").unwrap();
    assert!(scratch.refused(&[&export[..], &["--replace"]].concat()).contains("`notes.txt`"));

    let build = ["cache", "build", "--data", "bundled:heldout", "--out", "cache"];
    let said = told(&scratch, &build);
    assert!(last_line(&said).starts_with("263 pictures in "), "{said}");
    let tokens = scratch.read("cache/tokens-00000-of-00001.bin");
    // The same again is done already; another one is refused, or takes its place.
    told(&scratch, &build);
    let mirrored = [&build[..], &["--mirrored"]].concat();
    scratch.refused(&mirrored);
    told(&scratch, &[&mirrored[..], &["--replace"]].concat());
    assert_ne!(scratch.read("cache/tokens-00000-of-00001.bin"), tokens);
    fs::create_dir(scratch.path("photos")).unwrap();
    fs::write(scratch.path("photos/cat.jpg"), "mine").unwrap();
    let photos = ["cache", "build", "--data", "bundled:heldout", "--out", "photos"];
    assert!(scratch.refused(&photos).contains("`cat.jpg`"));
    assert!(scratch.refused(&[&photos[..], &["--replace"]].concat()).contains("`cat.jpg`"));
    scratch.ok(&["cache", "export", "cache", "--out", "folder"]);
    assert!(
        scratch.refused(&["cache", "export", "cache", "--out", "folder"]).contains("--replace")
    );
    scratch.ok(&["cache", "export", "cache", "--out", "folder", "--replace"]);
}

#[test]
fn should_end_quietly_where_nobody_reads_on() {
    let scratch = Scratch::new();
    for arguments in [
        &["inspect", "mini", "--tensors"][..],
        &["completions", "bash"],
        &["weights", "list"],
        &["data", "inspect", "bundled:heldout"],
        &["devices"],
    ] {
        let mut command = scratch.command(arguments);
        // Where no desktop runs, drivers of GPUs tell stderr that it has no such folder.
        command.env("XDG_RUNTIME_DIR", scratch.path("."));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // At once, so that the first line finds the pipe closed.
        drop(child.stdout.take());
        let mut told = String::new();
        child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
        assert!(child.wait().unwrap().success(), "{arguments:?}: {told}");
        assert_eq!(told, "", "{arguments:?}");
    }
}

#[test]
fn should_encode_folders_and_keep_names() {
    let scratch = Scratch::new();
    fs::create_dir_all(scratch.path("in/cats")).unwrap();
    let data = pixels::data::open("bundled:heldout", &crate::common::home()).unwrap();
    let names = ["in/a.png", "in/cats/b.v2.png", "in/cats/c.png"];
    for (index, name) in names.iter().enumerate() {
        data.picture(index).unwrap().write_png(scratch.path(name)).unwrap();
    }
    fs::copy(scratch.path("in/a.png"), scratch.path("in/a.jpg")).unwrap();
    fs::write(scratch.path("in/notes.txt"), "mine").unwrap();
    let said = told(&scratch, &["encode", "in", "--out", "t.safetensors"]);
    assert!(said.contains("1 file is no picture"), "{said}");
    assert!(last_line(&said).starts_with("4 pictures in "), "{said}");
    scratch.ok(&["decode", "t.safetensors", "--out", "decoded"]);
    let said = told(&scratch, &["reconstruct", "in", "--out", "rebuilt"]);
    assert!(last_line(&said).contains("mean PSNR "), "{said}");
    for name in ["a.png.png", "a.jpg.png", "cats/b.v2.png", "cats/c.png"] {
        assert_eq!(
            scratch.read(format!("decoded/{name}")),
            scratch.read(format!("rebuilt/{name}"))
        );
    }
    fs::create_dir(scratch.path("empty")).unwrap();
    let refused = scratch.refused(&["encode", "empty", "--out", "e.safetensors"]);
    assert!(refused.contains("holds no pictures"), "{refused}");
    // Without a class the rows decide.
    let complete = ["complete", "in/a.png", "--rows", "4", "--out", "rest.png"];
    assert!(told(&scratch, &complete).contains("drawn without one"));
}

#[test]
fn should_say_which_class_it_took() {
    let scratch = Scratch::new();
    let said = told(&scratch, &["generate", "--class", "food", "--out", "a.png"]);
    assert!(said.contains("taken for class") && said.contains("Food & Drink"), "{said}");
    let refused = scratch.refused(&["generate", "--class", "hat", "--out", "b.png"]);
    assert!(!refused.contains("did you mean") && refused.contains("`Flags`"), "{refused}");
    let refused = scratch.refused(&["inspect", "minni"]);
    assert!(refused.contains("did you mean `mini`?"), "{refused}");
}

/// A copy of the bundled model, whose file was changed.
fn changed(scratch: &Scratch, name: &str, file: &str, change: impl FnOnce(Vec<u8>) -> Vec<u8>) {
    let mini = crate::common::home().path("models/mini").unwrap();
    fs::create_dir(scratch.path(name)).unwrap();
    for entry in fs::read_dir(mini).unwrap() {
        let entry = entry.unwrap();
        let to = scratch.path(format!("{name}/{}", entry.file_name().to_string_lossy()));
        fs::copy(entry.path(), to).unwrap();
    }
    let path = scratch.path(format!("{name}/{file}"));
    fs::write(&path, change(fs::read(&path).unwrap())).unwrap();
}

#[test]
fn should_refuse_cut_files_and_weights_that_are_no_numbers() {
    let scratch = Scratch::new();
    changed(&scratch, "cut", "generator.safetensors", |bytes| bytes[..bytes.len() / 2].to_vec());
    let refused = scratch.refused(&["inspect", "cut"]);
    assert!(
        refused.contains("generator.safetensors") && refused.contains("cut at byte"),
        "{refused}"
    );
    // Not a number, in the type of each file: all bits of its last value are one.
    for (file, name) in [("tokenizer.safetensors", "nan-t"), ("generator.safetensors", "nan-g")] {
        changed(&scratch, name, file, |mut bytes| {
            let end = bytes.len();
            bytes[end - 4..].fill(0xff);
            bytes
        });
    }
    let photo = fixture("photo_0.png").display().to_string();
    scratch.ok(&["encode", &photo, "--out", "t.safetensors"]);
    for arguments in [
        &["generate", "--class", "0", "--out", "x.png", "--model", "nan-g"][..],
        &[
            "generate",
            "--class",
            "0",
            "--out",
            "x.png",
            "--model",
            "nan-g",
            "--device",
            "reference",
        ],
        &["export", "nan-t", "--tokenizer", "t.pth"],
    ] {
        let refused = scratch.refused(arguments);
        assert!(refused.contains("no finite number"), "{arguments:?}: {refused}");
    }
}

#[test]
fn should_fail_with_one_error_on_a_full_disk_and_leave_nothing() {
    let scratch = Scratch::new();
    for (out, blocks) in [("x.npz", 4), ("x.safetensors", 0), ("x.png", 1), ("folder", 1)] {
        let mut limited = std::process::Command::new("bash");
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\"");
        limited.args(["-c", &script, "bash", env!("CARGO_BIN_EXE_alitok")]);
        limited.args(generate(out, &["--count", "8"][..0])).current_dir(scratch.path(""));
        let output = limited.output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{out}");
        assert!(told.starts_with("error: ") && told.lines().count() == 1, "{told}");
        assert!(told.contains("too large"), "{told}");
        assert_eq!(scratch.files().len(), 0, "{out}: {:?}", scratch.files());
    }
}

#[cfg(unix)]
#[test]
fn should_write_through_links_and_sweep_what_a_killed_process_left() {
    use std::os::unix::fs::symlink;
    let scratch = Scratch::new();
    fs::create_dir(scratch.path("disk")).unwrap();
    symlink("disk/pictures", scratch.path("link")).unwrap();
    symlink("disk/x.png", scratch.path("x.png")).unwrap();
    for out in ["link", "x.png"] {
        scratch.ok(&generate(out, &[]));
        assert!(scratch.path(out).is_symlink());
    }
    assert!(scratch.path("disk/pictures/0001.png").exists() && scratch.path("disk/x.png").exists());
    assert!(scratch.refused(&generate("link", &[])).contains("--replace"));

    let more = ["--count", "2000", "--previews", "previews"];
    let arguments = [&["generate", "--class", "1", "--out", "many"][..], &more].concat();
    let mut child = scratch.command(&arguments).stderr(Stdio::piped()).spawn().unwrap();
    // Once there are previews, pictures are being written.
    while fs::read_dir(scratch.path(""))
        .unwrap()
        .flatten()
        .all(|entry| !entry.file_name().to_string_lossy().ends_with(".incomplete"))
    {
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let _ = BufReader::new(child.stderr.take().unwrap()).lines().count();
    let left = |scratch: &Scratch| {
        let entries = fs::read_dir(scratch.path("")).unwrap().flatten();
        entries.filter(|e| e.file_name().to_string_lossy().ends_with(".incomplete")).count()
    };
    assert_eq!(left(&scratch), 1);
    scratch.ok(&generate("next.png", &[]));
    assert_eq!(left(&scratch), 0);
}
