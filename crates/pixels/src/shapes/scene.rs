//! Pictures of what prompts ask for.

use tokens::noise::{Noise, Purpose};

use super::prompt::{Colour, Held, Prompt, Relation, Shape};
use crate::{Picture, PixelsError};

/// Rays that cross a pixel, along each side, where it is asked how much of it a shape covers.
const SUBPIXELS: usize = 4;
/// The bars of a cross, as a share of its width.
const BAR: f64 = 0.34;
/// The hole of a ring, as a share of its width.
const HOLE: f64 = 0.5;
/// Room between objects, as a share of the picture's side.
const GAP: f64 = 0.06;
/// Room between an object and the picture's edge.
const MARGIN: f64 = 0.04;
/// Half the width of one or two objects, and of more, as shares of the picture's side.
const HALF_WIDTHS: [std::ops::Range<f64>; 2] = [0.15..0.22, 0.11..0.15];
/// Half-widths count this much when it is asked where an object is, as in GenEval.
const POSITION_THRESHOLD: f64 = 0.1;
/// How far off an axis an object may be, as the cosine to it, as in GenEval.
const POSITION_COSINE: f64 = 0.5;
/// How often objects are placed anew before they are made smaller.
const PLACEMENTS: usize = 50;

impl Shape {
    /// Whether a point is in the shape that fills the square from -1 to 1; y points down.
    fn contains(self, x: f64, y: f64) -> bool {
        let radius = x.hypot(y);
        match self {
            Self::Circle => radius <= 1.0,
            Self::Square => x.abs().max(y.abs()) <= 1.0,
            Self::Triangle => y <= 1.0 && x.abs() <= (y + 1.0) / 2.0,
            Self::Diamond => x.abs() + y.abs() <= 1.0,
            Self::Cross => x.abs().max(y.abs()) <= 1.0 && x.abs().min(y.abs()) <= BAR,
            Self::Ring => (HOLE..=1.0).contains(&radius),
        }
    }

    /// How much of each pixel the shape covers that fills the box from (`left`, `top`) to (`right`,
    /// `bottom`), for a picture of `width` × `height` pixels, by rows.
    pub fn coverage(self, width: usize, height: usize, bounds: [f64; 4]) -> Vec<f32> {
        let [left, top, right, bottom] = bounds;
        let (half_width, half_height) = ((right - left) / 2.0, (bottom - top) / 2.0);
        let (centre_x, centre_y) = (left + half_width, top + half_height);
        let step = 1.0 / SUBPIXELS as f64;
        let mut coverage = vec![0.0; width * height];
        let clamp = |value: f64, limit: usize| (value.max(0.0) as usize).min(limit);
        for row in clamp(top.floor(), height)..clamp(bottom.ceil(), height) {
            for column in clamp(left.floor(), width)..clamp(right.ceil(), width) {
                let mut inside = 0;
                for ray in 0..SUBPIXELS * SUBPIXELS {
                    let (i, j) = (ray % SUBPIXELS, ray / SUBPIXELS);
                    let x = column as f64 + (i as f64 + 0.5) * step;
                    let y = row as f64 + (j as f64 + 0.5) * step;
                    let (x, y) = ((x - centre_x) / half_width, (y - centre_y) / half_height);
                    inside += usize::from(self.contains(x, y));
                }
                coverage[row * width + column] = inside as f32 / (SUBPIXELS * SUBPIXELS) as f32;
            }
        }
        coverage
    }
}

impl Relation {
    /// The relations in which an object at `first` stands to one at `second`: points (x, y) and
    /// widths, after GenEval. Objects whose centres nearly coincide stand in none.
    pub fn between(first: ([f64; 2], f64), second: ([f64; 2], f64)) -> Vec<Self> {
        let ((a, a_width), (b, b_width)) = (first, second);
        let shorten = |offset: f64| {
            let threshold = POSITION_THRESHOLD * (a_width + b_width);
            (offset.abs() - threshold).max(0.0).copysign(offset)
        };
        let [x, y] = [0, 1].map(|axis| shorten(a[axis] - b[axis]));
        let length = x.hypot(y);
        if length == 0.0 {
            return Vec::new();
        }
        let (x, y) = (x / length, y / length);
        let stands = [(Self::LeftOf, -x), (Self::RightOf, x), (Self::Above, -y), (Self::Below, y)];
        let stands = stands.into_iter().filter(|&(_, cosine)| cosine > POSITION_COSINE);
        stands.map(|(relation, _)| relation).collect()
    }
}

/// An object in a picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Placed {
    /// Its shape.
    pub shape: Shape,
    /// Its colour.
    pub colour: Colour,
    /// Its centre, x and y, as shares of the picture's side.
    pub centre: [f64; 2],
    /// Half its width and height, as a share of the picture's side.
    pub half_width: f64,
}

/// Objects on white.
#[derive(Debug, Clone, PartialEq)]
pub struct Scene {
    /// The objects, in the order of the prompt.
    pub objects: Vec<Placed>,
}

impl Scene {
    /// What `prompt` asks for, with the rest left to chance: places, sizes, and colours that it does
    /// not say, one for all of a kind. Unless the prompt itself asks for a combination that is held
    /// out, nothing in the picture shows one.
    pub fn draw(prompt: &Prompt, noise: &mut Noise) -> Self {
        let may_show_all = prompt.is_unseen();
        let mut shrink = 1.0;
        loop {
            for _ in 0..PLACEMENTS {
                let placed = Self::try_draw(prompt, shrink, noise);
                if let Some(scene) = placed
                    && (may_show_all || !scene.combinations().into_iter().any(Held::is_held_out))
                {
                    return scene;
                }
            }
            shrink *= 0.97;
        }
    }

    fn try_draw(prompt: &Prompt, shrink: f64, noise: &mut Noise) -> Option<Self> {
        let count: usize = prompt.things.iter().map(|thing| thing.count).sum();
        let sizes = &HALF_WIDTHS[usize::from(count > 2)];
        let mut objects: Vec<Placed> = Vec::with_capacity(count);
        for thing in &prompt.things {
            let any = Colour::ALL[noise.below(Colour::ALL.len())];
            let colour = thing.colour.unwrap_or(any);
            for _ in 0..thing.count {
                let half_width =
                    shrink * (sizes.start + noise.uniform() * (sizes.end - sizes.start));
                let room = 1.0 - 2.0 * (MARGIN + half_width);
                let centre = [(); 2].map(|()| MARGIN + half_width + noise.uniform() * room);
                let is_apart = |other: &Placed| {
                    let apart = half_width + other.half_width + GAP;
                    (0..2).any(|axis| (centre[axis] - other.centre[axis]).abs() >= apart)
                };
                if !objects.iter().all(is_apart) {
                    return None;
                }
                objects.push(Placed { shape: thing.shape, colour, centre, half_width });
            }
        }
        let scene = Self { objects };
        let stands = prompt.relation.is_none_or(|relation| scene.relations() == [relation]);
        stands.then_some(scene)
    }

    /// How the first of two objects stands to the second.
    fn relations(&self) -> Vec<Relation> {
        let place = |object: &Placed| (object.centre, 2.0 * object.half_width);
        match &self.objects[..] {
            [first, second] => Relation::between(place(first), place(second)),
            _ => Vec::new(),
        }
    }

    /// The combinations that the picture shows.
    pub fn combinations(&self) -> Vec<Held> {
        let mut shown: Vec<Held> =
            self.objects.iter().map(|object| Held::Colour(object.colour, object.shape)).collect();
        match &self.objects[..] {
            [first, second] if first.shape != second.shape => {
                shown.push(Held::Pair(first.shape, second.shape));
                let position = |relation| Held::Position(first.shape, relation, second.shape);
                shown.extend(self.relations().into_iter().map(position));
            }
            [first, ..] => shown.push(Held::Count(self.objects.len(), first.shape)),
            [] => {}
        }
        shown
    }

    /// The picture, of `size` × `size` pixels.
    ///
    /// # Errors
    /// If a picture of this size cannot be.
    pub fn picture(&self, size: usize) -> Result<Picture, PixelsError> {
        let mut rgb = vec![255_u8; size * size * 3];
        for object in &self.objects {
            let [x, y] = object.centre;
            let half = object.half_width;
            let bounds = [x - half, y - half, x + half, y + half].map(|side| side * size as f64);
            let coverage = object.shape.coverage(size, size, bounds);
            for (pixel, covered) in rgb.chunks_exact_mut(3).zip(coverage) {
                for (value, colour) in pixel.iter_mut().zip(object.colour.rgb()) {
                    let mixed = f32::from(*value) * (1.0 - covered) + f32::from(colour) * covered;
                    *value = mixed.round() as u8;
                }
            }
        }
        Picture::new(size, size, rgb)
    }
}

/// The noise of the picture number `index` of a part of a set.
pub(super) fn noise(seed: u64, part: u64, index: u64) -> Noise {
    Noise::new(seed, Purpose::Shapes, part, index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shapes::Task;

    #[test]
    fn should_show_what_is_asked_and_nothing_that_is_held_out() {
        for (task, prompt) in Task::ALL
            .iter()
            .flat_map(|&task| Prompt::all(task).into_iter().map(move |p| (task, p)))
            .step_by(7)
        {
            let scene = Scene::draw(&prompt, &mut noise(1, 0, 5));
            let shown = scene.combinations();
            let asked = prompt.combinations();
            assert!(asked.iter().all(|asked| shown.contains(asked) || task == Task::Counting));
            let shows_held = shown.into_iter().any(Held::is_held_out);
            assert!(prompt.is_unseen() || !shows_held, "{}", prompt.caption());
            assert_eq!(scene, Scene::draw(&prompt, &mut noise(1, 0, 5)));
            assert_ne!(scene, Scene::draw(&prompt, &mut noise(1, 0, 6)));
        }
    }

    #[test]
    fn should_say_where_objects_are() {
        let at = |x, y| ([x, y], 0.2);
        assert_eq!(Relation::between(at(0.2, 0.5), at(0.8, 0.5)), [Relation::LeftOf]);
        assert_eq!(Relation::between(at(0.5, 0.9), at(0.5, 0.1)), [Relation::Below]);
        let corner = Relation::between(at(0.2, 0.2), at(0.8, 0.8));
        assert_eq!(corner, [Relation::LeftOf, Relation::Above]);
        assert_eq!(Relation::between(at(0.5, 0.5), at(0.51, 0.5)), []);
    }
}
