//! `cargo xtask reproduce`: trains the headline recipes with the release program, evaluates each run, and prints the figures as a
//! table of markdown that can stand in `docs/RESULTS.md`.
//!
//! A run folder that holds a `summary.json` is finished: it is evaluated and not trained again. Remove it to train anew.

use crate::{Outcome, args::Args, circumstances::circumstances, run};
use serde_json::Value;
use std::path::PathBuf;
use std::time::Instant;

/// The recipes behind the figures that the project states.
const HEADLINES: [&str; 5] =
    ["omniglot-proto-5w1s", "omniglot-maml-5w1s", "sinusoid-maml", "mnist-seed-gan", "omniglot-fewshot-gan"];

pub(crate) fn run(args: &[String]) -> Outcome {
    let args = Args::parse(args, &["data", "out", "threads", "seed", "set"])?;
    let recipes: Vec<&str> =
        if args.words.is_empty() { HEADLINES.to_vec() } else { args.words.iter().map(String::as_str).collect() };
    let data = args.get("data").map(String::from).or_else(|| std::env::var("METAFORGE_DATA").ok());
    // The program runs in the root of the project; the folders are meant from where the user stands.
    let data = data.map(|data| std::fs::canonicalize(&data).map_err(|e| format!("{data}: {e}"))).transpose()?;
    let out = std::path::absolute(args.get("out").unwrap_or("runs")).map_err(|e| e.to_string())?;
    let threads = args.threads()?;

    run::show(&mut run::cargo(&["build", "--release", "-p", "metaforge"]))?;
    let program = program()?;
    if data.is_none() {
        // Before the first training, which may take long.
        for recipe in &recipes {
            let text = run::read(&mut run::command(&program, &["recipes", recipe]))?;
            if let Some(source) = data_source(&text, args.all("set")) {
                return Err(format!("{recipe} reads its data ({source}) from a folder: --data DIR, or METAFORGE_DATA"));
            }
        }
    }
    let mut rows = Vec::new();
    for recipe in recipes {
        let folder = out.join(recipe);
        let mut seconds = None;
        if !folder.join("summary.json").exists() {
            eprintln!("training {recipe}");
            let start = Instant::now();
            let mut train = run::command(&program, &["train", recipe]);
            data.iter().for_each(|data| _ = train.arg("--data").arg(data));
            train.arg("--out").arg(&folder);
            for name in ["seed", "set"] {
                args.all(name).for_each(|value| _ = train.arg(format!("--{name}")).arg(value));
            }
            if let Some(n) = threads {
                train.args(["--threads", &n.to_string()]);
            }
            run::show(&mut train)?;
            seconds = Some(start.elapsed().as_secs());
        }
        eprintln!("evaluating {recipe}");
        let mut eval = run::command(&program, &["eval"]);
        data.iter().for_each(|data| _ = eval.arg("--data").arg(data));
        let told = run::read(eval.arg(&folder).arg("--json"))?;
        let told = serde_json::from_str(&told).map_err(|e| format!("what eval says of {recipe} is no JSON: {e}"))?;
        rows.push(row(recipe, &told, seconds));
    }
    let threads = threads.or_else(|| std::thread::available_parallelism().map(usize::from).ok());
    println!("{}\n", circumstances(threads)?);
    println!("| recipe | figures | training |\n|---|---|---|");
    rows.iter().for_each(|row| println!("{row}"));
    Ok(())
}

/// Where a recipe finds its data, if that is in a folder that the user has to name: the sources that the program carries, and
/// functions, are in none.
fn data_source<'a>(recipe: &'a str, set: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let value = |line: &'a str, key: &str| Some(line.trim().strip_prefix(key)?.trim_start().strip_prefix('=')?.trim());
    let stated = recipe.lines().filter_map(|line| value(line, "source"));
    let source = stated.chain(set.filter_map(|line| value(line, "data.source"))).last()?.trim_matches('"');
    (!["glyphs", "digits"].contains(&source)).then_some(source)
}

/// Where cargo puts the release program, whatever target folder is configured.
fn program() -> Result<String, String> {
    let metadata = run::read(&mut run::cargo(&["metadata", "--format-version", "1", "--no-deps"]))?;
    let metadata: Value = serde_json::from_str(&metadata).map_err(|e| e.to_string())?;
    let target = metadata["target_directory"].as_str().ok_or("cargo metadata names no target folder")?;
    let path = PathBuf::from(target).join("release").join(format!("metaforge{}", std::env::consts::EXE_SUFFIX));
    Ok(path.to_string_lossy().into_owned())
}

/// One line of the table. `seconds` is the time of the training, where this command did it.
fn row(recipe: &str, told: &Value, seconds: Option<u64>) -> String {
    let mut figures = Vec::new();
    leaves("", told, &mut figures);
    let figures = figures.iter().map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join(", ");
    let training = seconds.map_or("earlier".into(), |s| format!("{} min {:02} s", s / 60, s % 60));
    format!("| `{recipe}` | {figures} | {training} |")
}

/// The numbers and words of a JSON value under dotted names; numbers with four significant digits, whole ones as they are.
fn leaves(name: &str, value: &Value, out: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                let name = if name.is_empty() { field.clone() } else { format!("{name}.{field}") };
                leaves(&name, value, out);
            }
        }
        Value::Number(n) => out.push((name.into(), n.as_i64().map_or_else(|| figure(n.as_f64()), |i| i.to_string()))),
        Value::String(s) => out.push((name.into(), s.clone())),
        Value::Bool(b) => out.push((name.into(), b.to_string())),
        // A list is a curve or a histogram, and belongs to a figure.
        Value::Array(_) | Value::Null => {}
    }
}

fn figure(x: Option<f64>) -> String {
    let x = x.unwrap_or(f64::NAN);
    let digits = if x == 0.0 { 0 } else { (3 - x.abs().log10().floor() as i32).clamp(0, 12) as usize };
    format!("{x:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_row_names_each_figure() {
        let told = json!({"test": {"accuracy": 0.987654, "episodes": 600, "curve": [1, 2]}, "metric": "accuracy"});
        let row = row("r", &told, Some(125));
        assert!(row.starts_with("| `r` | "), "{row}");
        for part in ["test.accuracy 0.9877", "test.episodes 600", "metric accuracy", "| 2 min 05 s |"] {
            assert!(row.contains(part), "{row}");
        }
        assert!(!row.contains("curve"), "{row}");
    }

    #[test]
    fn only_sources_outside_the_program_want_a_folder() {
        let none = || std::iter::empty();
        assert_eq!(data_source("[data]\nsource = \"mnist\"\n", none()), Some("mnist"));
        assert_eq!(data_source("[data]\nsource = \"digits\"\n", none()), None);
        assert_eq!(data_source("[task]\nshots = 10\n", none()), None);
        let set = ["seed=2", "data.source=folder"].into_iter();
        assert_eq!(data_source("[data]\nsource = \"digits\"\n", set), Some("folder"));
        assert_eq!(data_source("[data]\nsource = \"mnist\"\n", ["data.source = digits"].into_iter()), None);
    }

    #[test]
    fn figures_have_four_digits() {
        for (x, text) in
            [(12.34567, "12.35"), (0.00123456, "0.001235"), (0.0, "0"), (98765.4, "98765"), (-0.5, "-0.5000")]
        {
            assert_eq!(figure(Some(x)), text);
        }
    }
}
