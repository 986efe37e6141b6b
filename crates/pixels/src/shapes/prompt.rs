//! What prompts mean.

use serde::{Deserialize, Serialize};

macro_rules! words {
    ($(#[$attribute:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident => $word:literal,)+ }) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name {
            $($(#[$doc])* $variant,)+
        }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word for it.
            pub fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }
    };
}

words! {
    /// The form of an object.
    Shape {
        /// A disc.
        Circle => "circle",
        /// As wide as high.
        Square => "square",
        /// Standing on a side.
        Triangle => "triangle",
        /// A square on its tip.
        Diamond => "diamond",
        /// Two bars, like a plus sign.
        Cross => "cross",
        /// A disc with a hole.
        Ring => "ring",
    }
}

words! {
    /// The colour of an object.
    Colour {
        /// Red.
        Red => "red",
        /// Orange.
        Orange => "orange",
        /// Yellow.
        Yellow => "yellow",
        /// Green.
        Green => "green",
        /// Blue.
        Blue => "blue",
        /// Purple.
        Purple => "purple",
        /// Pink.
        Pink => "pink",
        /// Black.
        Black => "black",
    }
}

words! {
    /// Where the first object is, seen from the second.
    Relation {
        /// Left of it.
        LeftOf => "left of",
        /// Right of it.
        RightOf => "right of",
        /// Above it.
        Above => "above",
        /// Below it.
        Below => "below",
    }
}

words! {
    /// What a prompt asks for, as GenEval names it.
    Task {
        /// One object: "a circle".
        OneObject => "one object",
        /// Two objects: "a circle and a square".
        TwoObjects => "two objects",
        /// Several objects of one shape: "three circles".
        Counting => "counting",
        /// An object of a colour: "a red circle".
        Colours => "colours",
        /// One object beside another: "a circle left of a square".
        Position => "position",
        /// Two objects, each of its colour: "a red circle and a blue square".
        AttributeBinding => "attribute binding",
    }
}

impl Colour {
    /// Its red, green and blue.
    pub fn rgb(self) -> [u8; 3] {
        match self {
            Self::Red => [220, 40, 40],
            Self::Orange => [245, 130, 30],
            Self::Yellow => [245, 205, 30],
            Self::Green => [50, 165, 70],
            Self::Blue => [40, 90, 220],
            Self::Purple => [140, 60, 185],
            Self::Pink => [250, 125, 190],
            Self::Black => [30, 30, 30],
        }
    }
}

impl Relation {
    /// The relation as the other object sees it.
    pub fn mirrored(self) -> Self {
        match self {
            Self::LeftOf => Self::RightOf,
            Self::RightOf => Self::LeftOf,
            Self::Above => Self::Below,
            Self::Below => Self::Above,
        }
    }
}

/// Objects of one kind that a prompt asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Thing {
    /// How many.
    pub count: usize,
    /// Their shape.
    pub shape: Shape,
    /// Their colour; any where the prompt says none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub colour: Option<Colour>,
}

/// What a prompt asks for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prompt {
    /// The task.
    pub task: Task,
    /// The objects, and there are no others; their shapes differ.
    pub things: Vec<Thing>,
    /// Where the first is, seen from the second; anywhere where the prompt does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relation: Option<Relation>,
}

/// A combination that no picture to learn from shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Held {
    /// A shape in a colour.
    Colour(Colour, Shape),
    /// Two shapes in one picture.
    Pair(Shape, Shape),
    /// So many of a shape.
    Count(usize, Shape),
    /// A shape beside another.
    Position(Shape, Relation, Shape),
}

/// The smallest and the largest number that is counted to.
pub(super) const COUNTS: std::ops::RangeInclusive<usize> = 2..=5;

impl Held {
    /// All that are held out: each shape's in one of eight colours and one of four numbers, three of
    /// fifteen pairs, and of each other pair some positions.
    pub fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for &shape in Shape::ALL {
            all.extend(Colour::ALL.iter().map(|&colour| Self::Colour(colour, shape)));
            all.extend(COUNTS.map(|count| Self::Count(count, shape)));
            for &other in Shape::ALL.iter().filter(|&&other| other != shape) {
                if shape < other {
                    all.push(Self::Pair(shape, other));
                }
                all.extend([Relation::LeftOf, Relation::Above].map(|relation| {
                    // "b right of a" is the same as "a left of b".
                    Self::Position(shape, relation, other)
                }));
            }
        }
        all.retain(|combination| combination.is_held_out());
        all
    }

    /// Whether it is held out. Written as a rule, so that it is the same for every seed.
    pub fn is_held_out(self) -> bool {
        let shapes = Shape::ALL.len();
        match self {
            // A different colour for each shape.
            Self::Colour(colour, shape) => {
                (colour as usize + 3 * shape as usize).is_multiple_of(Colour::ALL.len())
            }
            // Every shape stands in one such pair.
            Self::Pair(one, other) => (one as usize).abs_diff(other as usize) == shapes / 2,
            Self::Count(count, shape) => {
                COUNTS.contains(&count) && (count + shape as usize).is_multiple_of(4)
            }
            Self::Position(one, relation, other) => {
                let ahead =
                    |from: Shape, to: Shape| (to as usize + shapes - from as usize) % shapes;
                match relation {
                    Relation::LeftOf => ahead(one, other) == 1,
                    Relation::Above => ahead(one, other) == 2,
                    mirrored => Self::Position(other, mirrored.mirrored(), one).is_held_out(),
                }
            }
        }
    }
}

impl std::fmt::Display for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self::Colour(colour, shape) => write!(f, "{} {}", colour.word(), shape.word()),
            Self::Pair(one, other) => write!(f, "{} and {}", one.word(), other.word()),
            Self::Count(count, shape) => write!(f, "{} {}", number(count), plural(shape)),
            Self::Position(one, relation, other) => {
                write!(f, "{} {} {}", one.word(), relation.word(), other.word())
            }
        }
    }
}

impl Prompt {
    /// All prompts of a task, in a fixed order.
    pub fn all(task: Task) -> Vec<Self> {
        let one = |shape| Thing { count: 1, shape, colour: None };
        let of = |things, relation| Self { task, things, relation };
        let shapes = Shape::ALL.iter().copied();
        let colours = || Colour::ALL.iter().copied();
        let pairs = shapes.clone().flat_map(|first| {
            let others = Shape::ALL.iter().copied().filter(move |&other| other != first);
            others.map(move |second| (first, second))
        });
        match task {
            Task::OneObject => shapes.map(|shape| of(vec![one(shape)], None)).collect(),
            Task::TwoObjects => {
                pairs.map(|(first, second)| of(vec![one(first), one(second)], None)).collect()
            }
            Task::Counting => shapes
                .flat_map(|shape| COUNTS.map(move |count| Thing { count, shape, colour: None }))
                .map(|thing| of(vec![thing], None))
                .collect(),
            Task::Colours => shapes
                .flat_map(|shape| {
                    colours().map(move |colour| Thing { colour: Some(colour), ..one(shape) })
                })
                .map(|thing| of(vec![thing], None))
                .collect(),
            Task::Position => pairs
                .flat_map(|(first, second)| {
                    let relations = Relation::ALL.iter().copied();
                    relations.map(move |relation| (first, relation, second))
                })
                .map(|(first, relation, second)| of(vec![one(first), one(second)], Some(relation)))
                .collect(),
            Task::AttributeBinding => pairs
                .flat_map(|(first, second)| {
                    let both = colours().flat_map(move |one| colours().map(move |two| (one, two)));
                    both.filter(|(one, two)| one != two)
                        .map(move |(one, two)| [(first, one), (second, two)])
                })
                .map(|things| {
                    let thing = |(shape, colour)| Thing { colour: Some(colour), ..one(shape) };
                    of(things.map(thing).into(), None)
                })
                .collect(),
        }
    }

    /// The prompt that a caption of this set stands for.
    pub fn of_caption(caption: &str) -> Option<Self> {
        let tasks = Task::ALL.iter().copied();
        tasks.flat_map(Self::all).find(|prompt| prompt.caption() == caption.trim())
    }

    /// The prompt in words.
    pub fn caption(&self) -> String {
        let things: Vec<String> = self.things.iter().map(Thing::words).collect();
        match self.relation {
            Some(relation) => things.join(&format!(" {} ", relation.word())),
            None => things.join(" and "),
        }
    }

    /// The combinations that the prompt asks for.
    pub fn combinations(&self) -> Vec<Held> {
        let mut combinations = Vec::new();
        for &Thing { count, shape, colour } in &self.things {
            combinations.extend(colour.map(|colour| Held::Colour(colour, shape)));
            if count > 1 {
                combinations.push(Held::Count(count, shape));
            }
        }
        if let [first, second] = self.things[..] {
            combinations.push(Held::Pair(first.shape, second.shape));
            let position = |relation| Held::Position(first.shape, relation, second.shape);
            combinations.extend(self.relation.map(position));
        }
        combinations
    }

    /// Whether it asks for a combination that no picture to learn from shows.
    pub fn is_unseen(&self) -> bool {
        self.combinations().into_iter().any(Held::is_held_out)
    }
}

impl Thing {
    fn words(&self) -> String {
        let colour = self.colour.map(|colour| format!("{} ", colour.word())).unwrap_or_default();
        match self.count {
            1 => {
                let what = format!("{colour}{}", self.shape.word());
                let article = if what.starts_with("orange") { "an" } else { "a" };
                format!("{article} {what}")
            }
            count => format!("{} {colour}{}", number(count), plural(self.shape)),
        }
    }
}

fn plural(shape: Shape) -> String {
    match shape {
        Shape::Cross => "crosses".to_owned(),
        shape => format!("{}s", shape.word()),
    }
}

fn number(count: usize) -> String {
    match count {
        2 => "two".to_owned(),
        3 => "three".to_owned(),
        4 => "four".to_owned(),
        5 => "five".to_owned(),
        count => count.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn should_find_every_prompt_by_its_caption() {
        let all: Vec<Prompt> = Task::ALL.iter().copied().flat_map(Prompt::all).collect();
        let captions: BTreeSet<String> = all.iter().map(Prompt::caption).collect();
        assert_eq!(captions.len(), all.len());
        for prompt in all.iter().step_by(37) {
            assert_eq!(Prompt::of_caption(&prompt.caption()).as_ref(), Some(prompt));
        }
        for caption in [
            "a circle",
            "a cross and a ring",
            "three crosses",
            "an orange square",
            "a ring left of a diamond",
            "a red circle and a black square",
        ] {
            assert!(captions.contains(caption), "{caption}");
        }
        assert_eq!(Prompt::of_caption("a purple cow"), None);
    }

    #[test]
    fn should_hold_out_combinations_of_every_kind_but_no_word() {
        let all = Held::all();
        let count = |is: fn(&Held) -> bool| all.iter().filter(|held| is(held)).count();
        assert_eq!(count(|held| matches!(held, Held::Colour(..))), 6);
        assert_eq!(count(|held| matches!(held, Held::Pair(..))), 3);
        assert_eq!(count(|held| matches!(held, Held::Count(..))), 6);
        assert_eq!(count(|held| matches!(held, Held::Position(..))), 12);
        for &task in Task::ALL {
            let (unseen, seen): (Vec<_>, Vec<_>) =
                Prompt::all(task).into_iter().partition(Prompt::is_unseen);
            assert_eq!(unseen.is_empty(), task == Task::OneObject, "{task:?}");
            let words = |prompts: &[Prompt]| -> BTreeSet<String> {
                let captions = prompts.iter().map(|prompt| prompt.caption());
                captions
                    .flat_map(|said| said.split(' ').map(str::to_owned).collect::<Vec<_>>())
                    .collect()
            };
            assert!(words(&unseen).is_subset(&words(&seen)), "{task:?}");
        }
        let left = Held::Position(Shape::Circle, Relation::LeftOf, Shape::Square);
        let right = Held::Position(Shape::Square, Relation::RightOf, Shape::Circle);
        assert!(left.is_held_out() && right.is_held_out());
    }
}
