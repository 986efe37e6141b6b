//! Whether pictures of shapes show what their prompts ask for ([`pixels::shapes`]).
//!
//! As GenEval does it (Ghosh et al. 2023, arXiv:2310.11513), with connected components in place of a
//! detector: a picture is right or wrong, a task's score is the share of right pictures, and the whole
//! score is the mean over tasks. It is stricter than GenEval in that there may be no other objects.

use std::{collections::BTreeMap, fmt, sync::LazyLock};

use pixels::{
    Picture,
    shapes::{Colour, Prompt, Relation, Shape, Task},
};
use serde::Serialize;

/// A pixel belongs to an object if a channel is so far from white. Half of the palest colour's
/// contrast, so that blurred edges stay where they were.
const CONTRAST: u8 = 64;
/// Smallest object, as a share of the picture. A quarter of the smallest that is drawn; what is smaller
/// is a speck, as tokenizers leave them.
const SMALLEST: f64 = 0.004;
/// Least agreement of an object with a shape, as the overlap over the union. Objects as they are drawn
/// at 64 pixels have 0.96 and more; after means over 3 × 3 pixels and noise of 8 levels 0.76 and more.
const AGREEMENT: f64 = 0.7;
/// Less of a pixel than this is noise.
const LEAST_COVERED: f64 = 0.15;
/// Pixels of so much of an object's full contrast say its colour.
const FULL: f64 = 0.9;
/// Largest distance of an object's colour from the one that it is called, in levels. Colours are 75
/// and more apart.
const COLOUR_DISTANCE: f64 = 70.0;

/// An object that was found in a picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// Its shape, if it has one.
    pub shape: Option<Shape>,
    /// How well it agrees with the shape that it is most like, from 0 to 1.
    pub agreement: f64,
    /// Its colour, if it has one.
    pub colour: Option<Colour>,
    /// Its centre, x and y, as shares of the picture's sides.
    pub centre: [f64; 2],
    /// Its width, as a share of the picture's.
    pub width: f64,
}

/// Why a picture is wrong: the first of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mistake {
    /// Another number of objects.
    Number,
    /// Another shape, or none.
    Shape,
    /// A shape in another colour, or in none.
    Colour,
    /// The objects stand in another way.
    Position,
}

impl Mistake {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Number => "number",
            Self::Shape => "shape",
            Self::Colour => "colour",
            Self::Position => "position",
        }
    }
}

/// The objects in a picture: connected pixels that are not white.
pub fn look(picture: &Picture) -> Vec<Seen> {
    let (width, height) = (picture.width(), picture.height());
    let pixels: Vec<[u8; 3]> =
        picture.rgb().chunks_exact(3).map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect();
    let smallest = (SMALLEST * (width * height) as f64).ceil() as usize;
    let objects = components(&pixels, width).into_iter();
    let large = objects.filter(|object| object.len() >= smallest);
    large.map(|object| recognize(&object, &pixels, width, height)).collect()
}

fn is_foreground(pixel: [u8; 3]) -> bool {
    pixel.into_iter().any(|value| 255 - value >= CONTRAST)
}

/// Places of connected pixels that are no background; corners connect, too.
fn components(pixels: &[[u8; 3]], width: usize) -> Vec<Vec<usize>> {
    let mut is_left: Vec<bool> = pixels.iter().map(|&pixel| is_foreground(pixel)).collect();
    let height = pixels.len() / width;
    let mut found = Vec::new();
    for start in 0..pixels.len() {
        if !std::mem::take(&mut is_left[start]) {
            continue;
        }
        let mut object = vec![start];
        let mut next = 0;
        while let Some(&place) = object.get(next) {
            next += 1;
            let (row, column) = (place / width, place % width);
            for row in row.saturating_sub(1)..(row + 2).min(height) {
                for column in column.saturating_sub(1)..(column + 2).min(width) {
                    let neighbour = row * width + column;
                    if std::mem::take(&mut is_left[neighbour]) {
                        object.push(neighbour);
                    }
                }
            }
        }
        found.push(object);
    }
    found
}

/// What an object is.
fn recognize(object: &[usize], pixels: &[[u8; 3]], width: usize, height: usize) -> Seen {
    let colour = colour_within(object, pixels);
    let contrast = colour.map(|value| 255.0 - value);
    let power: f64 = contrast.iter().map(|value| value * value).sum();

    let [mut left, mut top, mut right, mut bottom] = [width, height, 0, 0];
    for &place in object {
        (left, right) = (left.min(place % width), right.max(place % width + 1));
        (top, bottom) = (top.min(place / width), bottom.max(place / width + 1));
    }
    // How much of a pixel is the object's, told by how far it is on the way from white to its colour.
    // Pixels around it may be, too.
    let [x0, y0] = [left.saturating_sub(1), top.saturating_sub(1)];
    let [x1, y1] = [(right + 1).min(width), (bottom + 1).min(height)];
    let (columns, rows) = (x1 - x0, y1 - y0);
    let mut coverage = vec![0.0; columns * rows];
    for row in 0..rows {
        for column in 0..columns {
            let pixel = pixels[(y0 + row) * width + x0 + column];
            let along: f64 = (0..3).map(|i| (255.0 - f64::from(pixel[i])) * contrast[i]).sum();
            let covered = (along / power).clamp(0.0, 1.0);
            if covered >= LEAST_COVERED {
                coverage[row * columns + column] = covered;
            }
        }
    }
    let sum: f64 = coverage.iter().sum();
    let mean = |coordinate: &dyn Fn(usize) -> usize| {
        let weighted = coverage.iter().enumerate();
        let total: f64 =
            weighted.map(|(place, covered)| covered * (coordinate(place) as f64 + 0.5)).sum();
        total / sum
    };
    let centroid = [mean(&|place| place % columns), mean(&|place| place / columns)];
    let blurred = blur(&coverage, columns, rows);
    let fit = |shape: Shape| {
        // Area and centre of mass say where the shape would be; blurred edges leave both as they are.
        let Moments { area, centre } = MOMENTS[shape as usize];
        let side = (sum / area).sqrt();
        let [left, top] = [0, 1].map(|axis| centroid[axis] - centre[axis] * side);
        let bounds = [left, top, left + side, top + side];
        let template = shape.coverage(columns, rows, bounds);
        let template: Vec<f64> = template.into_iter().map(f64::from).collect();
        let template = blur(&template, columns, rows);
        let pairs = || blurred.iter().zip(&template);
        let overlap: f64 = pairs().map(|(a, b)| a.min(*b)).sum();
        let union: f64 = pairs().map(|(a, b)| a.max(*b)).sum();
        (shape, overlap / union, bounds)
    };
    let fits = Shape::ALL.iter().map(|&shape| fit(shape)).max_by(|a, b| a.1.total_cmp(&b.1));
    let (shape, agreement, bounds) = fits.expect("there are shapes");
    Seen {
        shape: (agreement >= AGREEMENT).then_some(shape),
        agreement,
        colour: called(colour),
        centre: [
            (x0 as f64 + (bounds[0] + bounds[2]) / 2.0) / width as f64,
            (y0 as f64 + (bounds[1] + bounds[3]) / 2.0) / height as f64,
        ],
        width: (bounds[2] - bounds[0]) / width as f64,
    }
}

/// How much of the square around a shape it covers, and its centre of mass there, from 0 to 1.
struct Moments {
    area: f64,
    centre: [f64; 2],
}

/// Those of each shape, in the order of [`Shape::ALL`].
static MOMENTS: LazyLock<Vec<Moments>> = LazyLock::new(|| {
    const SIDE: usize = 64;
    let moments = |shape: &Shape| {
        let side = SIDE as f64;
        let coverage = shape.coverage(SIDE, SIDE, [0.0, 0.0, side, side]);
        let sum: f64 = coverage.iter().copied().map(f64::from).sum();
        let mean = |coordinate: fn(usize) -> usize| {
            let weighted = coverage.iter().enumerate();
            let total: f64 = weighted
                .map(|(place, &covered)| f64::from(covered) * (coordinate(place) as f64 + 0.5))
                .sum();
            total / sum / side
        };
        let centre = [mean(|place| place % SIDE), mean(|place| place / SIDE)];
        Moments { area: sum / (side * side), centre }
    };
    Shape::ALL.iter().map(moments).collect()
});

/// Means over 3 × 3 pixels, where nothing is around.
fn blur(values: &[f64], columns: usize, rows: usize) -> Vec<f64> {
    let mut blurred = vec![0.0; values.len()];
    for row in 0..rows {
        for column in 0..columns {
            let mut sum = 0.0;
            for near in row.saturating_sub(1)..(row + 2).min(rows) {
                let start = near * columns + column.saturating_sub(1);
                let end = near * columns + (column + 2).min(columns);
                sum += values[start..end].iter().sum::<f64>();
            }
            blurred[row * columns + column] = sum / 9.0;
        }
    }
    blurred
}

/// The median colour of an object's pixels, without those at its edges, which are paler.
fn colour_within(object: &[usize], pixels: &[[u8; 3]]) -> [f64; 3] {
    let strength = |place: usize| pixels[place].iter().map(|&value| 255 - u16::from(value)).sum();
    let mut strengths: Vec<u16> = object.iter().map(|&place| strength(place)).collect();
    strengths.sort_unstable();
    let full = f64::from(strengths[strengths.len() * 9 / 10]);
    let is_within = |&place: &usize| f64::from(strength(place)) >= FULL * full;
    let within: Vec<usize> = object.iter().copied().filter(is_within).collect();
    [0, 1, 2].map(|channel| {
        let mut values: Vec<u8> = within.iter().map(|&place| pixels[place][channel]).collect();
        values.sort_unstable();
        f64::from(values[values.len() / 2])
    })
}

/// The colour that is nearest, if one is near.
fn called(colour: [f64; 3]) -> Option<Colour> {
    let distance = |known: Colour| {
        let squares = known.rgb().into_iter().zip(colour).map(|(a, b)| (f64::from(a) - b).powi(2));
        squares.sum::<f64>().sqrt()
    };
    let nearest = Colour::ALL
        .iter()
        .map(|&known| (known, distance(known)))
        .min_by(|a, b| a.1.total_cmp(&b.1));
    nearest.filter(|(_, distance)| *distance <= COLOUR_DISTANCE).map(|(known, _)| known)
}

/// Whether a picture shows what the prompt asks for, and nothing else.
///
/// # Errors
/// What is wrong in it.
pub fn check(picture: &Picture, prompt: &Prompt) -> Result<(), Mistake> {
    let seen = look(picture);
    if seen.len() != prompt.things.iter().map(|thing| thing.count).sum::<usize>() {
        return Err(Mistake::Number);
    }
    // The shapes of a prompt's things differ, so a shape says which thing an object is.
    let of_shape =
        |shape| seen.iter().filter(move |seen| seen.shape == Some(shape)).collect::<Vec<_>>();
    let found: Vec<Vec<&Seen>> = prompt.things.iter().map(|thing| of_shape(thing.shape)).collect();
    if found.iter().zip(&prompt.things).any(|(found, thing)| found.len() != thing.count) {
        return Err(Mistake::Shape);
    }
    for (found, thing) in found.iter().zip(&prompt.things) {
        let is_wrong = |seen: &&Seen| match thing.colour {
            Some(_) => seen.colour != thing.colour,
            None => seen.colour.is_none(),
        };
        if found.iter().any(is_wrong) {
            return Err(Mistake::Colour);
        }
    }
    let place = |seen: &Seen| (seen.centre, seen.width);
    match (prompt.relation, &found[..]) {
        (Some(relation), [first, second]) => {
            let stands = Relation::between(place(first[0]), place(second[0]));
            if stands.contains(&relation) { Ok(()) } else { Err(Mistake::Position) }
        }
        _ => Ok(()),
    }
}

/// How many pictures are right.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Share {
    /// Right pictures.
    pub right: usize,
    /// All pictures.
    pub of: usize,
}

impl Share {
    /// The share of right pictures, from 0 to 1; nothing if there are no pictures.
    pub fn value(self) -> Option<f64> {
        (self.of > 0).then(|| self.right as f64 / self.of as f64)
    }

    fn count(&mut self, is_right: bool) {
        self.right += usize::from(is_right);
        self.of += 1;
    }
}

/// The score of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TaskScore {
    /// The task.
    pub task: Task,
    /// Pictures of combinations that were learned from.
    pub seen: Share,
    /// Pictures of combinations that no picture to learn from shows.
    pub unseen: Share,
    /// What is wrong, by how many pictures.
    pub mistakes: BTreeMap<Mistake, usize>,
}

/// The scores of a model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Scores {
    /// Each task's.
    pub tasks: Vec<TaskScore>,
    /// Mean over tasks, of combinations that were learned from.
    pub seen: Option<f64>,
    /// Mean over tasks, of combinations that no picture to learn from shows.
    pub unseen: Option<f64>,
}

/// Scores pictures, each by what its prompt asks for. Displayed, the result is a table.
pub fn score<'a>(pictures: impl IntoIterator<Item = (&'a Picture, &'a Prompt)>) -> Scores {
    let new = |&task: &Task| TaskScore {
        task,
        seen: Share::default(),
        unseen: Share::default(),
        mistakes: BTreeMap::new(),
    };
    let mut tasks: Vec<TaskScore> = Task::ALL.iter().map(new).collect();
    for (picture, prompt) in pictures {
        let score = &mut tasks[prompt.task as usize];
        let checked = check(picture, prompt);
        if let Err(mistake) = checked {
            *score.mistakes.entry(mistake).or_default() += 1;
        }
        let share = if prompt.is_unseen() { &mut score.unseen } else { &mut score.seen };
        share.count(checked.is_ok());
    }
    let mean = |share: fn(&TaskScore) -> Share| {
        let values: Vec<f64> = tasks.iter().filter_map(|task| share(task).value()).collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    };
    let (seen, unseen) = (mean(|task| task.seen), mean(|task| task.unseen));
    Scores { tasks, seen, unseen }
}

impl fmt::Display for Scores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |value: Option<f64>| {
            value.map_or_else(|| "–".to_owned(), |value| format!("{:.1} %", 100.0 * value))
        };
        let share = |share: Share| match share.of {
            0 => "–".to_owned(),
            of => format!("{} ({} of {of})", percent(share.value()), share.right),
        };
        writeln!(f, "| task | seen | unseen | what is wrong |")?;
        writeln!(f, "| --- | ---: | ---: | --- |")?;
        for TaskScore { task, seen, unseen, mistakes } in &self.tasks {
            let wrong: Vec<String> = mistakes
                .iter()
                .map(|(mistake, count)| format!("{} {count}", mistake.word()))
                .collect();
            let (seen, unseen) = (share(*seen), share(*unseen));
            writeln!(f, "| {} | {seen} | {unseen} | {} |", task.word(), wrong.join(", "))?;
        }
        write!(f, "| mean | {} | {} | |", percent(self.seen), percent(self.unseen))
    }
}

#[cfg(test)]
mod tests {
    use pixels::shapes::{Placed, Scene};
    use tokens::noise::{Noise, Purpose};

    use super::*;

    /// So many prompts of each task, seen and unseen, and a picture of each.
    fn drawn(size: usize, each: u64) -> Vec<(Prompt, Scene, Picture)> {
        let mut drawn = Vec::new();
        for &task in Task::ALL {
            let (unseen, seen): (Vec<Prompt>, Vec<Prompt>) =
                Prompt::all(task).into_iter().partition(Prompt::is_unseen);
            for (side, prompts) in [seen, unseen].into_iter().enumerate() {
                if prompts.is_empty() {
                    continue;
                }
                for number in 0..each {
                    let mut noise =
                        Noise::new(7, Purpose::Shapes, task as u64 * 2 + side as u64, number);
                    let prompt = prompts[noise.below(prompts.len())].clone();
                    let scene = Scene::draw(&prompt, &mut noise);
                    let picture = scene.picture(size).unwrap();
                    drawn.push((prompt, scene, picture));
                }
            }
        }
        drawn
    }

    fn scores(drawn: &[(Prompt, Scene, Picture)]) -> Scores {
        score(drawn.iter().map(|(prompt, _, picture)| (picture, prompt)))
    }

    /// Means over 3 × 3 pixels, and noise of so many levels around them.
    fn disturb(picture: &Picture, levels: f64, seed: u64) -> Picture {
        let (width, height) = (picture.width() as isize, picture.height() as isize);
        let rgb = picture.rgb();
        let mut noise = Noise::new(seed, Purpose::Shapes, 99, 0);
        let mut disturbed = Vec::with_capacity(rgb.len());
        for row in 0..height {
            for column in 0..width {
                for channel in 0..3 {
                    let near = (-1..=1).flat_map(|y| (-1..=1).map(move |x| (y, x)));
                    let sum: f64 = near
                        .map(|(y, x)| {
                            let row = (row + y).clamp(0, height - 1);
                            let column = (column + x).clamp(0, width - 1);
                            f64::from(rgb[((row * width + column) * 3 + channel) as usize])
                        })
                        .sum();
                    let value = sum / 9.0 + levels * noise.normal();
                    disturbed.push(value.round().clamp(0.0, 255.0) as u8);
                }
            }
        }
        Picture::new(picture.width(), picture.height(), disturbed).unwrap()
    }

    #[test]
    fn should_find_every_drawn_picture_right() {
        for (size, each) in [(64, 60), (256, 6)] {
            let scores = scores(&drawn(size, each));
            assert_eq!((scores.seen, scores.unseen), (Some(1.0), Some(1.0)), "{scores}");
        }
    }

    #[test]
    fn should_find_disturbed_pictures_right() {
        let mut drawn = drawn(64, 60);
        for (number, (.., picture)) in drawn.iter_mut().enumerate() {
            *picture = disturb(picture, 8.0, number as u64);
        }
        let scores = scores(&drawn);
        let least = scores.seen.unwrap().min(scores.unseen.unwrap());
        assert!(least >= 0.99, "{scores}");
    }

    /// A picture of objects after `change`, and what the prompt makes of it.
    fn checked(
        prompt: &Prompt,
        scene: &Scene,
        change: impl FnOnce(&mut Vec<Placed>),
    ) -> Result<(), Mistake> {
        let mut scene = scene.clone();
        change(&mut scene.objects);
        check(&scene.picture(64).unwrap(), prompt)
    }

    #[test]
    fn should_find_every_wrong_picture_wrong() {
        for (prompt, scene, _) in drawn(64, 20) {
            let said = prompt.caption();
            let fewer = checked(&prompt, &scene, |objects| {
                objects.pop();
            });
            assert_eq!(fewer, Err(Mistake::Number), "{said}");
            for &shape in Shape::ALL {
                if prompt.things.iter().all(|thing| thing.shape != shape) {
                    let other = checked(&prompt, &scene, |objects| objects[0].shape = shape);
                    assert_eq!(other, Err(Mistake::Shape), "{said}: {shape:?}");
                }
            }
            for &colour in Colour::ALL {
                let other = checked(&prompt, &scene, |objects| objects[0].colour = colour);
                let is_asked = prompt.things[0].colour.is_none_or(|asked| asked == colour);
                let expected = if is_asked { Ok(()) } else { Err(Mistake::Colour) };
                assert_eq!(other, expected, "{said}: {colour:?}");
            }
            if let [first, second] = scene.objects[..] {
                let swapped = checked(&prompt, &scene, |objects| {
                    (objects[0].colour, objects[1].colour) = (second.colour, first.colour);
                });
                let is_bound = prompt.task == Task::AttributeBinding;
                assert_eq!(swapped, if is_bound { Err(Mistake::Colour) } else { Ok(()) }, "{said}");
                let swapped = checked(&prompt, &scene, |objects| {
                    objects[0] = Placed { shape: first.shape, colour: first.colour, ..second };
                    objects[1] = Placed { shape: second.shape, colour: second.colour, ..first };
                });
                if prompt.task == Task::Position {
                    assert_eq!(swapped, Err(Mistake::Position), "{said}");
                }
            }
        }
    }

    #[test]
    fn should_leave_specks_aside_but_no_other_object() {
        let prompt = Prompt::of_caption("a red circle").unwrap();
        let circle = Placed {
            shape: Shape::Circle,
            colour: Colour::Red,
            centre: [0.3, 0.3],
            half_width: 0.15,
        };
        let with = |half_width: f64| {
            let other = Placed { centre: [0.8, 0.8], half_width, ..circle };
            check(&Scene { objects: vec![circle, other] }.picture(64).unwrap(), &prompt)
        };
        assert_eq!(with(0.02), Ok(()));
        assert_eq!(with(0.08), Err(Mistake::Number));
        // Nothing, and everything.
        for value in [255, 0] {
            let plain = Picture::new(64, 64, vec![value; 64 * 64 * 3]).unwrap();
            assert!(check(&plain, &prompt).is_err());
        }
    }

    #[test]
    fn should_show_scores_as_a_table() {
        let prompt = Prompt::of_caption("a red circle").unwrap();
        assert!(prompt.is_unseen());
        let white = Picture::new(64, 64, vec![255; 64 * 64 * 3]).unwrap();
        let scores = score([(&white, &prompt)]);
        assert_eq!((scores.seen, scores.unseen), (None, Some(0.0)));
        let table = scores.to_string();
        assert!(table.contains("| colours | – | 0.0 % (0 of 1) | number 1 |"), "{table}");
        assert!(table.ends_with("| mean | – | 0.0 % | |"), "{table}");
    }
}
