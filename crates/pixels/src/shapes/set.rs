//! A data set of shapes on disk.

use std::{
    fs::File,
    io::{BufRead, BufReader, BufWriter, Write},
    path::Path,
};

use serde::{Deserialize, Serialize};

use super::{Held, Prompt, Scene, Task, scene};
use crate::{Picture, PixelsError};

/// Pictures to learn from, if nothing else is said.
pub const DEFAULT_TRAIN: usize = 30_000;
/// Held-out pictures of a task and side, if nothing else is said.
pub const DEFAULT_HELD_OUT: usize = 100;
/// The files of a set.
const FILES: [&str; 4] = ["train.tar", "heldout.tar", "prompts.jsonl", "heldout.txt"];
/// Longest line of a file of prompts that is read.
const MAX_LINE: u64 = 1 << 16;
/// Parts of a set, each with noise of its own: two of pictures, the choice of prompts in both, and what is in
/// no set.
const TRAIN: u64 = 0;
const HELD_OUT: u64 = 1;
const CHOICE: u64 = 2;
const EXAMPLE: u64 = 4;

/// What set of shapes to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Pictures to learn from.
    pub train: usize,
    /// Pictures a task to measure on: as many of combinations that are learned from and of those that
    /// are held out.
    pub held_out: usize,
    /// Width and height of a picture, in pixels.
    pub size: usize,
    /// What places, sizes and prompts come from.
    pub seed: u64,
}

impl Options {
    /// How many pictures the set has.
    pub fn pictures(&self) -> usize {
        let has_side =
            |task: Task, unseen: bool| Prompt::all(task).iter().any(|p| p.is_unseen() == unseen);
        let sides = Task::ALL.iter().flat_map(|&task| [false, true].map(|unseen| (task, unseen)));
        let sides = sides.filter(|&(task, unseen)| has_side(task, unseen)).count();
        self.train.saturating_add(self.held_out.saturating_mul(sides))
    }
}

/// A prompt to draw, and what a picture of it has to show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestPrompt {
    /// The prompt in words.
    pub caption: String,
    /// Whether it asks for a combination that no picture to learn from shows.
    pub unseen: bool,
    /// What it means.
    pub prompt: Prompt,
}

impl From<Prompt> for TestPrompt {
    fn from(prompt: Prompt) -> Self {
        Self { caption: prompt.caption(), unseen: prompt.is_unseen(), prompt }
    }
}

/// The `.json` member of a picture.
#[derive(Serialize)]
struct Description<'a> {
    class: &'static str,
    caption: String,
    unseen: bool,
    prompt: &'a Prompt,
}

/// For each task the prompts of combinations that are learned from, and those of others.
fn sides() -> Vec<[Vec<Prompt>; 2]> {
    let of_task = |&task: &Task| {
        let (unseen, seen) = Prompt::all(task).into_iter().partition(Prompt::is_unseen);
        [seen, unseen]
    };
    Task::ALL.iter().map(of_task).collect()
}

fn choose(seed: u64, prompts: &[Prompt], part: u64, index: u64) -> Prompt {
    let mut noise = scene::noise(seed, CHOICE + part, index);
    prompts[noise.below(prompts.len())].clone()
}

/// So many prompts of each task and side, each with the part and the number of its picture.
fn held_out_prompts(
    sides: &[[Vec<Prompt>; 2]],
    count: usize,
    seed: u64,
) -> impl Iterator<Item = (Prompt, u64, u64)> {
    let sides = sides.iter().flatten().enumerate().filter(|(_, prompts)| !prompts.is_empty());
    sides.flat_map(move |(side, prompts)| {
        (0..count).map(move |number| {
            let index = (side * count + number) as u64;
            (choose(seed, prompts, HELD_OUT, index), HELD_OUT, index)
        })
    })
}

/// The prompts of the held-out pictures that [`write()`] makes: so many of each task and side.
pub fn test_prompts(held_out: usize, seed: u64) -> Vec<TestPrompt> {
    held_out_prompts(&sides(), held_out, seed).map(|(prompt, ..)| prompt.into()).collect()
}

/// A picture of a prompt that is in no set: what a perfect model might draw.
///
/// # Errors
/// If a picture of this size cannot be.
pub fn example(prompt: &Prompt, size: usize, number: u64) -> Result<Picture, PixelsError> {
    Scene::draw(prompt, &mut scene::noise(0, EXAMPLE, number)).picture(size)
}

/// Writes a set into the folder `out`, which is there: `train.tar` and `heldout.tar`, shards with the
/// task as class; `prompts.jsonl`, the prompts of the pictures in `heldout.tar`, a [`TestPrompt`] a
/// line; and `heldout.txt`, the combinations that no picture in `train.tar` shows. Equal options give
/// equal bytes. `progress` is called with the number of pictures drawn, now and then.
///
/// # Errors
/// [`PixelsError::Write`], and if a picture of this size cannot be.
pub fn write(
    out: &Path,
    options: Options,
    mut progress: impl FnMut(usize),
) -> Result<(), PixelsError> {
    let Options { train, held_out, size, seed } = options;
    let tasks = Task::ALL.len();
    let sides = sides();
    let learned = (0..train as u64)
        .map(|index| (choose(seed, &sides[index as usize % tasks][0], TRAIN, index), TRAIN, index));
    let tests: Vec<_> = held_out_prompts(&sides, held_out, seed).collect();
    let prompts: Vec<TestPrompt> =
        tests.iter().map(|(prompt, ..)| TestPrompt::from(prompt.clone())).collect();

    let mut drawn = 0;
    let mut shard = |name: &str, samples: &mut dyn Iterator<Item = (Prompt, u64, u64)>| {
        let path = out.join(name);
        let file = File::create(&path).map_err(PixelsError::write(&path))?;
        let mut archive = tar::Builder::new(BufWriter::new(file));
        for (number, (prompt, part, index)) in samples.enumerate() {
            let scene = Scene::draw(&prompt, &mut scene::noise(seed, part, index));
            let description = Description {
                class: prompt.task.word(),
                caption: prompt.caption(),
                unseen: prompt.is_unseen(),
                prompt: &prompt,
            };
            let json = serde_json::to_vec(&description).expect("plain text always serializes");
            let png = scene.picture(size)?.encode_png();
            for (ending, bytes) in [("png", png), ("json", json)] {
                let mut header = tar::Header::new_ustar();
                header.set_size(bytes.len() as u64);
                header.set_mode(0o644);
                header.set_mtime(0);
                let name = format!("{number:07}.{ending}");
                archive
                    .append_data(&mut header, name, &*bytes)
                    .map_err(PixelsError::write(&path))?;
            }
            drawn += 1;
            progress(drawn);
        }
        let written = archive.into_inner().and_then(|file| Ok(file.into_inner()?));
        let written = written.and_then(|file| file.sync_all());
        written.map_err(PixelsError::write(&path))
    };
    shard(FILES[0], &mut { learned })?;
    shard(FILES[1], &mut tests.into_iter())?;

    let text = |name: &str, lines: Vec<String>| {
        let path = out.join(name);
        let lines = lines.into_iter().map(|line| line + "\n").collect::<String>();
        files::write_file(&path, |file| file.write_all(lines.as_bytes()))
            .map_err(PixelsError::write(&path))
    };
    let line = |prompt| serde_json::to_string(prompt).expect("plain text always serializes");
    text(FILES[2], prompts.iter().map(line).collect())?;
    text(FILES[3], Held::all().iter().map(Held::to_string).collect())
}

/// Whether [`write()`] gives a file this name.
pub fn is_of_a_set(name: &Path) -> bool {
    FILES.iter().any(|file| name == Path::new(file))
}

/// Reads a file of prompts, as [`write()`] makes it.
///
/// # Errors
/// [`PixelsError::Read`], and [`PixelsError::DataSet`] naming the line that is no prompt, or whose
/// caption says something else than its meaning.
pub fn read_prompts(path: &Path) -> Result<Vec<TestPrompt>, PixelsError> {
    use std::io::Read;

    let file = File::open(path).map_err(PixelsError::read(path))?;
    let mut reader = BufReader::new(file);
    let mut prompts = Vec::new();
    for number in 1.. {
        let problem = |problem: String| {
            PixelsError::data_set(path.display(), format!("line {number}: {problem}"))
        };
        let mut line = String::new();
        let length = (&mut reader).take(MAX_LINE).read_line(&mut line);
        if length.map_err(PixelsError::read(path))? == 0 {
            break;
        }
        if line.trim().is_empty() {
            continue;
        }
        let test: TestPrompt = serde_json::from_str(&line).map_err(|error| {
            problem(format!("no prompt as `alitok data shapes` writes it ({error})"))
        })?;
        if test != TestPrompt::from(test.prompt.clone()) {
            let means = test.prompt.caption();
            return Err(problem(format!("{:?} does not mean {means:?}", test.caption)));
        }
        prompts.push(test);
    }
    if prompts.is_empty() {
        return Err(PixelsError::data_set(path.display(), "it has no prompts"));
    }
    Ok(prompts)
}
