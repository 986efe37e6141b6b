//! Experiments: trainings that differ in one thing each, described together in one file, the plan.
//!
//! [`read`] reads a plan, an [`Ablation`]. A [`Laboratory`] trains and measures its rows in a folder, and
//! a [`Report`] compares what is finished.

mod error;
mod measures;
mod report;
mod runner;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use pipeline::cache::Views;
use settings::SettingsError;
use training::{
    recipe::{self, GeneratorRecipe, RecipeError, StageOneRecipe, StageTwoRecipe},
    schedule::Schedule,
};

pub use error::RunError;
pub use measures::{Measures, Predicted, Rebuilt};
pub use report::Report;
pub use runner::{Equipment, Laboratory, Observer};

/// Plans that the program carries: name and text.
const BUNDLED: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/plans.rs"));

/// A plan that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ExperimentError {
    /// It cannot be read, or has other settings than a plan.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// Rows that make no sense together.
    #[error("plan {name}: {problem}")]
    Rows {
        /// Name or path.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// A recipe of a row cannot be used.
    #[error("row {row}: {source}")]
    Row {
        /// Name of the row.
        row: String,
        /// What is wrong with the recipe.
        source: RecipeError,
    },
}

/// An ablation of the tokenizer: each row trains one, caches its tokens and trains a generator on
/// them, all on equal budgets (paper, Table 3 and Fig. 2).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ablation {
    /// The data set that is trained on. A plan that is for any data leaves it out.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub data: String,
    /// Pictures of the same classes that no training sees.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub heldout: String,
    /// The views of a picture that generators train on.
    pub views: Views,
    /// Settings that all rows change in the recipe of their tokenizer.
    pub tokenizer: Shared,
    /// The second stage of rows that have one.
    pub second_stage: Based,
    /// The generator of all rows.
    pub generator: Based,
    /// What is measured in the end.
    pub evaluation: Evaluation,
    /// What is compared.
    pub rows: Vec<Row>,
}

/// Changes to recipes that each row names for itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shared {
    /// Assignments, as for `--set`.
    pub set: Vec<String>,
}

/// A recipe with changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Based {
    /// Name of a bundled recipe, or a file.
    pub recipe: String,
    /// Assignments, as for `--set`.
    #[serde(default)]
    pub set: Vec<String>,
}

/// What is measured of a row whose trainings are done.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluation {
    /// Pictures that are drawn, of all classes in turn, without guidance at temperature 1.
    pub samples: usize,
    /// Seed of their noise.
    pub seed: u64,
}

/// One line of the comparison. It has a tokenizer of its own, or a second stage for that of another
/// row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// A short name, which its folder has, too.
    pub name: String,
    /// What it is, in a few words.
    pub title: String,
    /// Recipe of its first stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<String>,
    /// Changes that only this row makes, as for `--set`.
    #[serde(default)]
    pub set: Vec<String>,
    /// The row above whose tokens and generator this one shares; it only trains another decoder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second_stage_of: Option<String>,
    /// Whether its codebook may have another size than the other rows': what it asks then is what
    /// that does (paper, Table 6).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub another_codebook: bool,
    /// Seeds, the most important first.
    pub seeds: Vec<u64>,
}

/// One row with one seed: what is trained and measured as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unit<'a> {
    /// The row.
    pub row: &'a Row,
    /// The seed of all its trainings.
    pub seed: u64,
}

/// Where the parts of a unit lie below the folder of an experiment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitFolder(PathBuf);

impl Unit<'_> {
    /// Its folder.
    pub fn folder(&self, experiment: &Path) -> UnitFolder {
        UnitFolder(experiment.join(&self.row.name).join(format!("seed-{}", self.seed)))
    }
}

impl std::fmt::Display for Unit<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, seed {}", self.row.name, self.seed)
    }
}

impl UnitFolder {
    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The run of the first stage.
    pub fn stage_one(&self) -> PathBuf {
        self.0.join("stage-1")
    }

    /// The run of the second stage.
    pub fn stage_two(&self) -> PathBuf {
        self.0.join("stage-2")
    }

    /// The tokens that the generator trains on.
    pub fn cache(&self) -> PathBuf {
        self.0.join("cache")
    }

    /// The tokens of held-out pictures.
    pub fn heldout_cache(&self) -> PathBuf {
        self.0.join("heldout-cache")
    }

    /// The run of the generator.
    pub fn generator(&self) -> PathBuf {
        self.0.join("generator")
    }

    /// What was measured in the end.
    pub fn measures(&self) -> PathBuf {
        self.0.join("measures.json")
    }
}

/// Reads a plan, a bundled one by name or a file.
///
/// # Errors
/// If there is no such plan, a recipe in it cannot be used, or its rows cannot be compared.
pub fn read(name: &str) -> Result<Ablation, ExperimentError> {
    let plan: Ablation = settings::read("plan", name, BUNDLED, &[])?;
    let problem = |problem| ExperimentError::Rows { name: name.to_owned(), problem };
    plan.check_rows().map_err(problem)?;
    plan.check_budgets().and_then(|difference| match difference {
        None => Ok(plan),
        Some(difference) => Err(problem(difference)),
    })
}

impl Ablation {
    /// All units in the order of work: the first seed of each row, then the second of each.
    pub fn units(&self) -> Vec<Unit<'_>> {
        let most = self.rows.iter().map(|row| row.seeds.len()).max().unwrap_or(0);
        let round = |place: usize| {
            self.rows
                .iter()
                .filter_map(move |row| row.seeds.get(place).map(|&seed| Unit { row, seed }))
        };
        (0..most).flat_map(round).collect()
    }

    /// The unit whose tokens and generator this one shares, if it only has a second stage.
    pub fn first_stage_of(&self, unit: Unit<'_>) -> Option<Unit<'_>> {
        let of = unit.row.second_stage_of.as_ref()?;
        self.rows.iter().find(|row| row.name == *of).map(|row| Unit { row, seed: unit.seed })
    }

    /// The recipe of a unit's first stage; none for a row that has only a second one.
    ///
    /// # Errors
    /// If there is no such recipe, or a change makes no sense.
    pub fn stage_one(&self, unit: Unit<'_>) -> Result<Option<StageOneRecipe>, ExperimentError> {
        let Some(name) = &unit.row.recipe else { return Ok(None) };
        resolve(unit, name, &[&self.tokenizer.set, &unit.row.set]).map(Some)
    }

    /// The recipe of a unit's second stage; none for a row that has none.
    ///
    /// # Errors
    /// If there is no such recipe, or a change makes no sense.
    pub fn stage_two(&self, unit: Unit<'_>) -> Result<Option<StageTwoRecipe>, ExperimentError> {
        if unit.row.second_stage_of.is_none() {
            return Ok(None);
        }
        let Based { recipe, set } = &self.second_stage;
        resolve(unit, recipe, &[set, &unit.row.set]).map(Some)
    }

    /// The recipe of a unit's generator.
    ///
    /// # Errors
    /// If there is no such recipe, or a change makes no sense.
    pub fn generator(&self, unit: Unit<'_>) -> Result<GeneratorRecipe, ExperimentError> {
        let Based { recipe, set } = &self.generator;
        resolve(unit, recipe, &[set])
    }

    fn check_rows(&self) -> Result<(), String> {
        if self.rows.is_empty() {
            return Err("it has no [[rows]]".into());
        }
        for (place, row) in self.rows.iter().enumerate() {
            let Row { name, recipe, second_stage_of, seeds, .. } = row;
            let letters = |letter: char| letter.is_ascii_alphanumeric() || "-_".contains(letter);
            if name.is_empty() || !name.chars().all(letters) {
                return Err(format!("row `{name}`: a name has letters, digits, - and _ only"));
            }
            if self.rows[..place].iter().any(|other| other.name.eq_ignore_ascii_case(name)) {
                return Err(format!("two rows are called {name}"));
            }
            if seeds.is_empty() || seeds.iter().collect::<BTreeSet<_>>().len() != seeds.len() {
                return Err(format!("row {name}: `seeds` must be different, and at least one"));
            }
            let of = match (recipe, second_stage_of) {
                (Some(_), None) => continue,
                (None, Some(of)) => of,
                _ => {
                    return Err(format!(
                        "row {name}: give it a `recipe`, or make it the `second_stage_of` another"
                    ));
                }
            };
            let above = self.rows[..place].iter().find(|other| other.name == *of);
            let Some(above) = above.filter(|above| above.recipe.is_some()) else {
                return Err(format!("row {name}: no row above it has the first stage {of}"));
            };
            // Seeds at the same place, or an earlier one, are trained before.
            let trained = |(place, seed): (usize, &u64)| {
                above.seeds[..].iter().take(place + 1).any(|other| other == seed)
            };
            if !seeds.iter().enumerate().all(trained) {
                return Err(format!("row {name}: {of} must have its seeds, and no later in order"));
            }
        }
        Ok(())
    }

    /// What keeps rows from being compared, if anything does. Nothing but the thing in question may
    /// differ: not the steps, not the batch, not the size of the codebook or of the grid.
    fn check_budgets(&self) -> Result<Option<String>, ExperimentError> {
        let mut first: Option<(&str, Schedule, [usize; 3])> = None;
        for unit in self.units() {
            self.generator(unit)?;
            self.stage_two(unit)?;
            let Some(recipe) = self.stage_one(unit)? else { continue };
            let schedule = Schedule { seed: 0, ..recipe.schedule };
            let layout = recipe.architecture.layout();
            let mut sizes = [recipe.architecture.codes, layout.rows(), layout.columns()];
            let (other, known, their_sizes) =
                *first.get_or_insert((&unit.row.name, schedule, sizes));
            if unit.row.another_codebook {
                sizes[0] = their_sizes[0];
            }
            if known != schedule || their_sizes != sizes {
                let name = &unit.row.name;
                return Ok(Some(format!(
                    "rows {other} and {name} differ in schedule, codebook or grid, and would not \
                     compare"
                )));
            }
        }
        Ok(None)
    }
}

fn resolve<R: recipe::Recipe>(
    unit: Unit<'_>,
    name: &str,
    changes: &[&Vec<String>],
) -> Result<R, ExperimentError> {
    let mut all: Vec<String> = changes.iter().flat_map(|set| set.iter().cloned()).collect();
    all.push(format!("seed={}", unit.seed));
    recipe::read(name, &all)
        .map_err(|source| ExperimentError::Row { row: unit.row.name.clone(), source })
}
