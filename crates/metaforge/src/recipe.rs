//! Recipes: what to train, on what, for how long. A recipe is a TOML file in which every key of its kind stands, so that
//! a run folder's `config.toml` says all there is to say; `--set` changes single keys.

mod carried;
mod kinds;
mod tables;

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

pub use carried::carried;
pub use kinds::*;
pub use tables::*;

use crate::error::{Error, Result};
use crate::run;
use crate::train::Schedule;

/// A complete, checked recipe.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Recipe {
    /// Its name, and that of its run folder.
    pub name: String,
    /// What it does, in a line.
    pub about: String,
    /// Decides every random number of the run.
    pub seed: u64,
    /// (Meta-)steps of the run.
    pub steps: u64,
    /// A line of the log every so many steps; more often in a run that would have fewer than [`LINES`] then.
    pub log_every: u64,
    /// Pictures every so many steps.
    pub sample_every: u64,
    /// A checkpoint every so many steps.
    pub checkpoint_every: u64,
    /// What is trained.
    #[serde(flatten)]
    pub kind: Kind,
}

/// Lines that a log has at least, if there are as many steps: fewer make no curve.
pub const LINES: u64 = 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    name: String,
    about: String,
    seed: u64,
    steps: u64,
    log_every: u64,
    sample_every: u64,
    checkpoint_every: u64,
}

const HEAD: [&str; 7] = ["name", "about", "seed", "steps", "log_every", "sample_every", "checkpoint_every"];

impl Recipe {
    /// How long to train and how often to do what.
    pub fn schedule(&self) -> Schedule {
        let Recipe { steps, log_every, sample_every, checkpoint_every, .. } = *self;
        let log_every = log_every.min((steps / LINES).max(1));
        Schedule { steps, log_every, sample_every, checkpoint_every }
    }

    /// The recipe as the text of a TOML file, which [`Draft::parse`] reads back.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a recipe is TOML")
    }
}

/// A recipe in the making: keys and values that are not checked yet.
#[derive(Clone, Debug)]
pub struct Draft {
    origin: String,
    table: Table,
}

impl Draft {
    /// The carried recipe of that name, or else the file of that path.
    ///
    /// # Errors
    /// If there is neither, or the file cannot be read or is not TOML.
    pub fn open(recipe: &str) -> Result<Draft> {
        if let Some((_, text)) = carried().iter().find(|(name, _)| *name == recipe) {
            return Draft::parse(recipe, text);
        }
        let path = Path::new(recipe);
        if !path.exists() {
            let names = carried().iter().map(|(name, _)| *name);
            let near = nearest(recipe, names).map_or(String::new(), |name| format!("; did you mean `{name}`?"));
            let what =
                format!("there is no recipe or file of that name{near} (`metaforge recipes` lists what there is)");
            return Err(Error::Recipe { origin: recipe.into(), what });
        }
        if path.is_dir() {
            let what = match path.join(run::CONFIG).is_file() {
                true => format!("is a run folder; its recipe is {}", path.join(run::CONFIG).display()),
                false => "is a folder; a recipe is a TOML file".into(),
            };
            return Err(Error::Recipe { origin: recipe.into(), what });
        }
        let text = fs::read_to_string(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::InvalidData => {
                Error::Recipe { origin: recipe.into(), what: "is not a text file".into() }
            }
            _ => Error::io("read", path)(e),
        })?;
        Draft::parse(recipe, &text)
    }

    /// A recipe from a TOML text; `origin` is what messages call it.
    ///
    /// # Errors
    /// If the text is not TOML.
    pub fn parse(origin: &str, text: &str) -> Result<Draft> {
        let wrong = |e: toml::de::Error| {
            let place = e.span().map_or(String::new(), |span| {
                let before = text.get(..span.start).unwrap_or(text);
                format!(
                    ":{}:{}",
                    before.matches('\n').count() + 1,
                    before.len() - before.rfind('\n').map_or(0, |at| at + 1) + 1
                )
            });
            Error::Recipe { origin: format!("{origin}{place}"), what: e.message().replace('\n', " ") }
        };
        let table = text.parse().map_err(wrong)?;
        Ok(Draft { origin: origin.into(), table })
    }

    /// Changes the key of `key=value`, such as `optimizer.lr=0.01`; the value is read as the type that the key has.
    ///
    /// # Errors
    /// If there is no such key or the value is of another type.
    pub fn set(&mut self, assignment: &str) -> Result<()> {
        let wrong = |what: String| Error::Recipe { origin: format!("--set {assignment}"), what };
        let (key, text) = assignment.split_once('=').ok_or_else(|| wrong("write it as key=value".into()))?;
        let (key, text) = (key.trim(), text.trim());
        if key == "kind" {
            return Err(wrong("the kind of a recipe cannot be changed; take a recipe of that kind".into()));
        }
        let known = leaves(&self.table, "");
        let slot = match find(&mut self.table, key) {
            Some(Value::Table(inner)) => {
                let keys = leaves(inner, &format!("{key}.")).join(", ");
                return Err(wrong(format!("`{key}` is a table; set one of its keys: {keys}")));
            }
            Some(slot) => slot,
            None => return Err(wrong(unknown(key, &known))),
        };
        *slot = typed(slot, text).ok_or_else(|| wrong(format!("`{key}` takes {}, not `{text}`", describe(slot))))?;
        Ok(())
    }

    /// Checks everything.
    ///
    /// # Errors
    /// If a key is unknown, missing, of the wrong type or out of range; the message names it.
    pub fn finish(mut self) -> Result<Recipe> {
        let origin = self.origin.clone();
        let wrong = |what: String| Error::Recipe { origin: origin.clone(), what };
        let kinds = || KINDS.join(", ");
        let kind = match self.table.get("kind") {
            Some(Value::String(kind)) if KINDS.contains(&kind.as_str()) => kind.clone(),
            Some(other) => return Err(wrong(format!("`kind` is {other}; it is one of: {}", kinds()))),
            None => return Err(wrong(format!("`kind` is missing; it is one of: {}", kinds()))),
        };
        let model = carried::of_kind(&kind);
        compare(&mut self.table, &model, "", &leaves(&model, "")).map_err(wrong)?;

        let serde = |e: toml::de::Error| wrong(one_line(e));
        let head: Table = HEAD.iter().filter_map(|&key| Some((key.to_owned(), self.table.remove(key)?))).collect();
        self.table.remove("kind");
        let Head { name, about, seed, steps, log_every, sample_every, checkpoint_every } =
            head.try_into().map_err(serde)?;
        let kind = Kind::read(&kind, self.table).map_err(serde)?;
        let recipe = Recipe { name, about, seed, steps, log_every, sample_every, checkpoint_every, kind };
        recipe.check().map_err(wrong)?;
        Ok(recipe)
    }
}

impl Recipe {
    fn check(&self) -> std::result::Result<(), String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if self.name.is_empty() || self.name.starts_with('.') || !self.name.chars().all(plain) {
            return Err(format!(
                "`name` is `{}`; it names a folder, so it is made of letters, digits, `-`, `_` and `.`",
                self.name
            ));
        }
        if i64::try_from(self.seed).is_err() {
            return Err(format!("`seed` is {}; it is at most {}", self.seed, i64::MAX));
        }
        for (key, count) in [
            ("steps", self.steps),
            ("log_every", self.log_every),
            ("sample_every", self.sample_every),
            ("checkpoint_every", self.checkpoint_every),
        ] {
            at_least(key, count, 1)?;
        }
        self.kind.check()
    }
}

/// Dotted names of all keys of a table that are no tables themselves.
fn leaves(table: &Table, above: &str) -> Vec<String> {
    let below = |(key, value): (&String, &Value)| match value {
        Value::Table(inner) => leaves(inner, &format!("{above}{key}.")),
        _ => vec![format!("{above}{key}")],
    };
    table.iter().flat_map(below).collect()
}

fn find<'a>(table: &'a mut Table, key: &str) -> Option<&'a mut Value> {
    match key.split_once('.') {
        None => table.get_mut(key),
        Some((first, rest)) => find(table.get_mut(first)?.as_table_mut()?, rest),
    }
}

/// `text` as a value of the type of `like`.
fn typed(like: &Value, text: &str) -> Option<Value> {
    Some(match like {
        Value::String(_) => Value::String(text.trim_matches('"').to_owned()),
        Value::Integer(_) => Value::Integer(text.replace('_', "").parse().ok()?),
        Value::Float(_) => Value::Float(text.parse().ok()?),
        Value::Boolean(_) => Value::Boolean(text.parse().ok()?),
        Value::Array(_) => format!("value = {text}").parse::<Table>().ok()?.remove("value").filter(Value::is_array)?,
        Value::Datetime(_) | Value::Table(_) => return None,
    })
}

fn describe(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a text",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Array(_) => "a list such as [40, 40]",
        Value::Datetime(_) => "a date",
        Value::Table(_) => "a table",
    }
}

/// Holds a table against a complete one of the same kind: the same keys, of the same types. Whole numbers become
/// floating-point ones where those are wanted.
fn compare(table: &mut Table, model: &Table, above: &str, known: &[String]) -> std::result::Result<(), String> {
    if let Some(key) = table.keys().find(|key| !model.contains_key(*key)) {
        return Err(unknown(&format!("{above}{key}"), known));
    }
    for (key, like) in model {
        let full = format!("{above}{key}");
        match (table.get_mut(key), like) {
            (None, Value::Table(_) | Value::Array(_)) => {
                return Err(format!("`{full}` is missing; it takes {}", describe(like)));
            }
            (None, _) => {
                return Err(format!("`{full}` is missing; it takes {}, such as {}", describe(like), one_line(like)));
            }
            (Some(Value::Table(inner)), Value::Table(like)) => compare(inner, like, &format!("{full}."), known)?,
            (Some(slot @ Value::Integer(_)), Value::Float(_)) => {
                *slot = Value::Float(slot.as_integer().unwrap_or(0) as f64)
            }
            (Some(value), like) if value.same_type(like) => {}
            (Some(value), like) => return Err(format!("`{full}` takes {}, not {}", describe(like), one_line(value))),
        }
    }
    Ok(())
}

fn unknown(key: &str, known: &[String]) -> String {
    match nearest(key, known.iter().map(String::as_str)) {
        Some(near) => format!("there is no key `{key}`; did you mean `{near}`?"),
        None => format!("there is no key `{key}`. Known keys: {}", known.join(", ")),
    }
}

/// The name that `word` was most likely meant to be: nearest in spelling, or the same after the last dot.
fn nearest<'a>(word: &str, names: impl Iterator<Item = &'a str> + Clone) -> Option<&'a str> {
    let last = |name: &'a str| name.rsplit('.').next().unwrap_or(name);
    let score = |name: &str| strsim::jaro_winkler(word, name);
    let same = names.clone().find(|name| last(name) == word);
    let near = names.filter(|name| score(name) > 0.75).max_by(|a, b| score(a).total_cmp(&score(b)));
    same.or(near)
}

/// A message that its crate spreads over lines, on one.
pub(crate) fn one_line(message: impl std::fmt::Display) -> String {
    message.to_string().lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use metaforge_meta::Order;

    const CARRIED: &str = "glyphs-maml-5w1s";

    fn text() -> String {
        carried().iter().find(|(name, _)| *name == CARRIED).unwrap().1.to_owned()
    }

    fn failure(text: &str) -> String {
        Draft::parse("my.toml", text).and_then(Draft::finish).unwrap_err().to_string()
    }

    #[test]
    fn every_carried_recipe_is_whole_and_survives_its_own_text() {
        for (name, text) in carried() {
            let recipe = Draft::open(name).unwrap().finish().unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(&recipe.name, name);
            assert!(text.contains("about"));
            let again = Draft::parse(name, &recipe.to_toml()).unwrap().finish().unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(again, recipe);
        }
    }

    #[test]
    fn every_kind_is_carried_by_the_name_that_it_writes() {
        let kinds: std::collections::BTreeSet<_> = carried()
            .iter()
            .map(|(name, _)| {
                Draft::open(name).unwrap().finish().unwrap().to_toml().parse::<Table>().unwrap()["kind"].to_string()
            })
            .collect();
        assert_eq!(kinds, KINDS.iter().map(|kind| format!("\"{kind}\"")).collect());
    }

    #[test]
    fn an_unknown_key_is_named_with_the_one_that_was_meant() {
        let e = failure(&text().replace("eval_steps", "evalsteps"));
        assert!(e.starts_with("my.toml: there is no key `inner.evalsteps`; did you mean `inner.eval_steps`?"), "{e}");
        assert!(!e.contains("optimizer.lr"), "{e}");
        let e = failure(&(text() + "\n[zzz]\nq = 1.0\n"));
        assert!(e.contains("`zzz`") && e.contains("optimizer.lr"), "the known keys are listed: {e}");
        let e = failure(&(text() + "\n[optimiser]\nlr = 1.0\n"));
        assert!(e.contains("`optimiser`; did you mean `optimizer"), "{e}");
    }

    #[test]
    fn missing_and_wrong_values_are_named() {
        for (from, to, wanted) in [
            ("eval_steps = 3\n", "", "`inner.eval_steps` is missing; it takes a whole number, such as "),
            ("lr = 2.0", "lr = \"fast\"", "`inner.lr` takes a number, not \"fast\""),
            ("steps = 1\n", "steps = 0\n", "`inner.steps` is 0; it is at least 1"),
            ("steps = 1\n", "steps = -4\n", "inner.steps"),
            ("lr = 2.0", "lr = -2.0", "`inner.lr` is -2; it is a number above 0"),
            ("lr = 2.0", "lr = nan", "`inner.lr` is NaN"),
            ("\nways = 5", "\nways = 1", "`task.ways` is 1; it is at least 2"),
            ("\"second\"", "\"third\"", "inner.order"),
            ("\"maml\"", "\"mammal\"", "`kind` is \"mammal\"; it is one of: proto, maml"),
            ("name = \"glyphs-maml-5w1s\"", "name = \"../x\"", "`name` is `../x`"),
        ] {
            let changed = text().replacen(from, to, 1);
            assert_ne!(changed, text(), "{from}");
            let e = failure(&changed);
            assert!(e.contains(wanted) && !e.contains('\n'), "{from}: {e}");
        }
    }

    #[test]
    fn a_syntax_error_names_line_and_column() {
        let e = failure("name = \"x\"\nsteps == 3\n");
        assert!(e.starts_with("my.toml:2:"), "{e}");
        assert!(!e.contains('\n'), "{e}");
    }

    #[test]
    fn single_keys_are_set_by_their_type() {
        let mut draft = Draft::open("sinusoid-maml").unwrap();
        for assignment in
            ["optimizer.lr=1", "steps = 1_000", "inner.order=first", "model.hidden=[8, 8, 8]", "name=\"mine\""]
        {
            draft.set(assignment).unwrap();
        }
        let recipe = draft.finish().unwrap();
        let Kind::SinusoidMaml(tables) = &recipe.kind else { panic!("{recipe:?}") };
        assert_eq!((recipe.steps, recipe.name.as_str()), (1000, "mine"));
        assert_eq!((tables.optimizer.lr, tables.inner.order), (1.0, Order::First));
        assert_eq!(tables.model.hidden, [8, 8, 8]);
    }

    #[test]
    fn a_short_run_is_logged_often_enough_for_a_curve() {
        let every = |steps: u64, log_every: u64| {
            let mut draft = Draft::open(CARRIED).unwrap();
            draft.set(&format!("steps={steps}")).unwrap();
            draft.set(&format!("log_every={log_every}")).unwrap();
            draft.finish().unwrap().schedule().log_every
        };
        let found =
            [(1, 50), (19, 50), (100, 50), (999, 50), (1000, 50), (100_000, 50), (100, 2)].map(|(s, l)| every(s, l));
        assert_eq!(found, [1, 1, 5, 49, 50, 50, 2]);
    }

    #[test]
    fn a_wrong_assignment_says_what_would_be_right() {
        for (assignment, wanted) in [
            ("optimizer.rl=1", "did you mean `optimizer.lr`?"),
            ("ways=5", "did you mean `task.ways`?"),
            ("steps=many", "`steps` takes a whole number, not `many`"),
            ("optimizer=adam", "set one of its keys: optimizer.beta1"),
            ("steps", "key=value"),
            ("kind=proto", "cannot be changed"),
        ] {
            let e = Draft::open(CARRIED).unwrap().set(assignment).unwrap_err().to_string();
            assert!(e.contains(wanted), "{assignment}: {e}");
        }
    }

    #[test]
    fn a_game_has_one_penalty_and_a_wasserstein_game_needs_one() {
        let game = |assignments: &[&str]| {
            let mut draft = Draft::open("digits-seed-gan").unwrap();
            assignments.iter().for_each(|a| draft.set(a).unwrap());
            draft.finish().map_err(|e| e.to_string())
        };
        for (assignments, wanted) in [
            (&["game.loss=wasserstein", "game.r1=0"][..], "set `game.gradient_penalty` (published: 10), `game.r1`"),
            (
                &["game.r1=1", "game.gradient_penalty=10"],
                "`game.r1` is 1 and `game.gradient_penalty` is 10; there is one",
            ),
            (&["game.r1=1", "game.r1_r2=2"], "`game.r1` is 1 and `game.r1_r2` is 2; there is one"),
            (&["game.r1=-1"], "`game.r1` is -1; it is a number of at least 0"),
            (&["game.gradient_penalty=inf"], "`game.gradient_penalty` is inf"),
            (&["game.penalty_every=0"], "`game.penalty_every` is 0; it is at least 1"),
            (&["game.best=33"], "`game.best` is 33; it is at most `game.batch`, 32"),
            (&["sampling.keep=0"], "`sampling.keep` is 0; it is at least 0.01 and at most 1"),
            (&["sampling.keep=nan"], "`sampling.keep` is NaN"),
        ] {
            let e = game(assignments).unwrap_err();
            assert!(e.contains(wanted) && !e.contains('\n'), "{assignments:?}: {e}");
        }
        for assignments in [
            &["game.loss=wasserstein", "game.r1=0", "game.gradient_penalty=10"][..],
            &["game.loss=wasserstein", "game.r1=1"],
            &["game.loss=relativistic", "game.r1=0", "game.r1_r2=1"],
            &["game.r1=0"],
            &["game.best=32", "sampling.keep=0.5"],
        ] {
            game(assignments).unwrap();
        }
    }

    #[test]
    fn a_regressor_is_measured_on_waves_that_it_did_not_learn_from() {
        for (split, is_right) in [("val", true), ("test", true), ("train", false), ("trainval", false)] {
            let mut draft = Draft::open("sinusoid-maml").unwrap();
            draft.set(&format!("eval.split={split}")).unwrap();
            let found = draft.finish().map_err(|e| e.to_string());
            assert_eq!(found.is_ok(), is_right, "{split}");
            if let Err(e) = found {
                assert!(e.contains(&format!("`eval.split` is {split};")) && e.contains("`val` or `test`"), "{e}");
            }
        }
    }

    #[test]
    fn an_unknown_recipe_suggests_one_that_is_there() {
        let e = Draft::open("omniglot-protonet").unwrap_err().to_string();
        assert!(e.contains("did you mean `omniglot-proto-5w1s`?"), "{e}");
    }
}
