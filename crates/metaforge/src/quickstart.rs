//! The quickstart: three small trainings that need no data, one after the other, and one report of all of them.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::experiment::Figure;
use crate::experiments;
use crate::recipe::{Draft, Recipe};
use crate::report;
use crate::run::{self, Summary};
use crate::store::write_whole;
use crate::train::{self, Job, train};

/// One part: its folder and the prefix of its keys in `--set`, its title, the recipe and what is changed of it.
struct Part {
    name: &'static str,
    title: &'static str,
    recipe: &'static str,
    set: &'static [&'static str],
}

/// The parts and how far each is taken; all together take two to three minutes on two cores with AVX-512, four and a half with AVX2.
const PARTS: [Part; 3] = [
    Part {
        name: "classifier",
        title: "Telling five new characters apart after one drawing of each",
        recipe: "glyphs-proto-5w1s",
        set: &["steps=300", "log_every=5", "checkpoint_every=100"],
    },
    Part {
        name: "gan",
        title: "Two networks at odds: drawing digits",
        recipe: "digits-seed-gan",
        set: &[
            "steps=5000",
            "log_every=20",
            "sample_every=1250",
            "checkpoint_every=250",
            "eval.images=2000",
            "eval.classifier_epochs=1",
        ],
    },
    Part {
        name: "generator",
        title: "Drawing a new character after a few drawings of it",
        recipe: "glyphs-fewshot-gan",
        set: &["steps=250", "log_every=5", "sample_every=125", "checkpoint_every=125", "eval.embedding_steps=150"],
    },
];

const TITLE: &str = "metaforge quickstart";
const LEAD: &str = "A few-shot classifier, a generative adversarial network, and a generator that learns new classes from a few \
                    examples: trained on this machine just now, on worlds of drawings that the program makes itself.";

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// Folder for the three runs, `summary.json` and `report.html`.
    pub out: &'a Path,
    /// Seed of all three, or those of the recipes.
    pub seed: Option<u64>,
    /// `key=value` for all three parts, or `classifier.key=value`, `gan.key=value`, `generator.key=value` for one.
    pub set: &'a [String],
    /// Whether to replace what is there.
    pub force: bool,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// All parts are finished.
    Finished {
        /// The headline figure of every part.
        figures: Vec<Figure>,
        /// The page to look at.
        report: PathBuf,
    },
    /// A stop was asked for.
    Stopped,
}

#[derive(Serialize)]
struct Whole<'a> {
    seconds: f64,
    parts: Vec<Finished<'a>>,
}

#[derive(Serialize)]
struct Finished<'a> {
    name: &'a str,
    recipe: String,
    #[serde(flatten)]
    summary: Summary,
}

/// Trains the parts that are not finished yet and writes the report.
///
/// # Errors
/// As [`train()`]; also if a `--set` names no key.
pub fn run(plan: &Plan<'_>, stop: &AtomicBool) -> Result<Outcome> {
    let began = Instant::now();
    let recipes = PARTS.iter().map(|part| recipe(part, plan)).collect::<Result<Vec<_>>>()?;
    let mut parts = Vec::new();
    for (part, recipe) in PARTS.iter().zip(&recipes) {
        let folder = plan.out.join(part.name);
        let job = Job {
            label: part.name,
            folder: &folder,
            config: &recipe.to_toml(),
            schedule: recipe.schedule(),
            force: plan.force,
            quiet: false,
            stop,
        };
        let summary = match train(&job, || experiments::build(recipe, None))? {
            train::Outcome::Finished(summary) => summary,
            train::Outcome::Stopped(_) => return Ok(Outcome::Stopped),
            train::Outcome::WasFinished => run::read_summary(&folder)?.ok_or_else(|| Error::Folder {
                folder: folder.clone(),
                what: "lost its summary.json while the quickstart ran".into(),
            })?,
        };
        parts.push(Finished { name: part.name, recipe: recipe.name.clone(), summary });
    }
    let figures = parts.iter().filter_map(|part| part.summary.figures.first().cloned()).collect();
    let runs: Vec<_> = PARTS.iter().map(|part| (part.title, plan.out.join(part.name))).collect();
    let report = report::of_runs(plan.out, TITLE, LEAD, &runs)?;
    let whole = Whole { seconds: began.elapsed().as_secs_f64(), parts };
    let text = serde_json::to_string_pretty(&whole).expect("figures are finite");
    write_whole(&plan.out.join(run::SUMMARY), text.as_bytes())?;
    Ok(Outcome::Finished { figures, report })
}

fn recipe(part: &Part, plan: &Plan<'_>) -> Result<Recipe> {
    let mut draft = Draft::open(part.recipe)?;
    for assignment in part.set {
        draft.set(assignment)?;
    }
    for assignment in plan.set {
        match PARTS.iter().find_map(|p| Some((p.name, assignment.strip_prefix(p.name)?.strip_prefix('.')?))) {
            None => draft.set(assignment).map_err(|e| of_part(e, assignment, part))?,
            Some((name, own)) if name == part.name => draft.set(own)?,
            Some(_) => {}
        }
    }
    if let Some(seed) = plan.seed {
        draft.set(&format!("seed={seed}"))?;
    }
    draft.finish()
}

/// What is wrong with a key that was set for all parts, said of the one that has it not.
fn of_part(e: Error, assignment: &str, part: &Part) -> Error {
    let Error::Recipe { origin, what } = e else { return e };
    let first = assignment.split(['.', '=']).next().unwrap_or_default();
    // Tables of recipes have names that are a little alike, too: `game` and `gan`.
    let is_near = |name: &str| name != first && strsim::jaro_winkler(first, name) > 0.9;
    let what = match PARTS.iter().find(|other| is_near(other.name)) {
        Some(near) => format!("there is no part `{first}`; did you mean `{}`?", near.name),
        None => format!(
            "in the recipe of `{}`, {}, {what} (write {0}.KEY, or another part's name, to change one part)",
            part.name, part.recipe
        ),
    };
    Error::Recipe { origin, what }
}
