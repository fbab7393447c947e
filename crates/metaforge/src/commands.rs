//! What the commands do. Results go to stdout, progress and trouble to stderr.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use metaforge::experiment::{Evaluation, Experiment, Figure};
use metaforge::progress::Tasks;
use metaforge::recipe::{Draft, Kind, Recipe, carried};
use metaforge::train::{Job, Outcome, train};
use metaforge::{Error, Result, experiments, interrupt, quickstart, report, run};

use crate::cli::{Cli, Command, Eval, Generate, How, Quickstart, Recipes, Threads, Train};

/// What a shell expects of a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// Does what the command line asks for.
pub fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        None => quickstart(&cli.quickstart),
        Some(Command::Quickstart(args)) => quickstart(&args),
        Some(Command::Train(args)) => train_recipe(&args),
        Some(Command::Eval(args)) => eval(&args),
        Some(Command::Generate(args)) => generate(&args),
        Some(Command::Recipes(args)) => recipes(&args),
    }
}

/// A line on stdout. A reader who has gone (`| head`) is no reason to fail.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn start(threads: Threads) -> Result<()> {
    let Some(n) = threads.number else { return Ok(()) };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(n.into()).build_global();
    pool.map_err(|e| Error::Refused(format!("--threads {n}: {e}")))
}

/// The recipe with what the command line changes of it.
fn changed(Train { recipe, how, set, .. }: &Train) -> Result<Recipe> {
    one_seed(how, set)?;
    let mut draft = Draft::open(recipe)?;
    for assignment in set {
        draft.set(assignment)?;
    }
    if let Some(seed) = how.seed {
        draft.set(&format!("seed={seed}"))?;
    }
    draft.finish()
}

fn train_recipe(args: &Train) -> Result<ExitCode> {
    let recipe = changed(args)?;
    start(args.how.threads)?;
    let folder = args.out.clone().unwrap_or_else(|| PathBuf::from("runs").join(&recipe.name));
    let data = args.data.dir.as_deref();
    let job = Job {
        label: &recipe.name,
        folder: &folder,
        config: &recipe.to_toml(),
        schedule: recipe.schedule(),
        force: args.how.force,
        quiet: false,
        stop: interrupt::watch()?,
    };
    match train(&job, || experiments::build(&recipe, data))? {
        Outcome::Finished(summary) => {
            say(&table(&summary.figures));
            say(&format!("report: {}", report::of_run(&folder)?.display()));
            Ok(ExitCode::SUCCESS)
        }
        Outcome::WasFinished => Err(Error::Folder {
            folder: folder.clone(),
            what: "holds the finished run of this recipe; look at its report.html, name another folder with --out, or train it anew with --force".into(),
        }),
        Outcome::Stopped(step) => {
            let data = args.data.dir.as_ref().map_or(String::new(), |dir| format!(" --data {}", dir.display()));
            let config = folder.join(run::CONFIG);
            let again = format!("metaforge train {} --out {}{data}", config.display(), folder.display());
            stopped(&format!("stopped after step {step}; resume with: {again}"))
        }
    }
}

fn stopped(text: &str) -> Result<ExitCode> {
    let _ = writeln!(std::io::stderr(), "metaforge: {text}");
    Ok(ExitCode::from(INTERRUPTED))
}

/// Refuses two seeds.
fn one_seed(how: &How, set: &[String]) -> Result<()> {
    let sets = |assignment: &String| assignment.split('=').next().is_some_and(|key| key.trim() == "seed");
    match how.seed {
        Some(_) if set.iter().any(sets) => {
            Err(Error::Refused("the seed is given twice, by --seed and by --set seed; keep one of them".into()))
        }
        _ => Ok(()),
    }
}

fn quickstart(args: &Quickstart) -> Result<ExitCode> {
    one_seed(&args.how, &args.set)?;
    start(args.how.threads)?;
    let plan = quickstart::Plan { out: &args.out, seed: args.how.seed, set: &args.set, force: args.how.force };
    match quickstart::run(&plan, interrupt::watch()?)? {
        quickstart::Outcome::Finished { figures, report } => {
            say(&table(&figures));
            say(&format!("report: {}", report.display()));
            Ok(ExitCode::SUCCESS)
        }
        quickstart::Outcome::Stopped => stopped("stopped; the same command resumes"),
    }
}

/// What a recipe's evaluation counts: images for a GAN on one data set, tasks for whatever learns from tasks.
fn counted(recipe: &Recipe) -> &'static str {
    if matches!(recipe.kind, Kind::SeedGan(_)) { "images" } else { "tasks" }
}

/// The experiment of a run folder at its last checkpoint, and the step of that. Without a checkpoint the weights alone do, and
/// the step is that of the run's end, if it has one.
///
/// `tasks` replaces the recipe's number of test tasks, or of images for a GAN on one data set.
fn reopened(
    folder: &Path,
    data: Option<&Path>,
    tasks: Option<usize>,
) -> Result<(Recipe, Box<dyn Experiment>, Option<u64>)> {
    let config = folder.join(run::CONFIG);
    let mut draft = Draft::parse(&config.display().to_string(), &run::read_config(folder)?)?;
    let mut recipe = draft.clone().finish()?;
    let key = format!("eval.{}", counted(&recipe));
    // The run's own number is in order, so what is said of it is said of the option.
    let named = |e: Error| if tasks.is_some() { of_option(e, &key, "--tasks") } else { e };
    if let Some(n) = tasks {
        draft.set(&format!("{key}={n}")).map_err(named)?;
        recipe = draft.finish().map_err(named)?;
    }
    let alone = !folder.join(run::STATE).exists() && folder.join(run::WEIGHTS).exists();
    let (file, step, tensors) = if alone {
        let step = run::read_summary(folder)?.map(|summary| summary.steps);
        (run::WEIGHTS, step, run::read_weights(folder)?)
    } else {
        let (position, state) = run::read_checkpoint(folder)?;
        (run::STATE, Some(position.step), state)
    };
    let mut experiment = experiments::build(&recipe, data).map_err(named)?;
    let taken = if alone { experiment.restore_weights(&tensors) } else { experiment.restore(&tensors) };
    taken.map_err(|e| Error::Damaged {
        path: folder.join(file),
        what: format!("it is not of the model in the run's {}: {e}", run::CONFIG),
    })?;
    Ok((recipe, experiment, step))
}

/// What is wrong with a key, said of the option that set it.
fn of_option(e: Error, key: &str, option: &str) -> Error {
    let quoted = format!("`{key}`");
    match e {
        Error::Recipe { what, .. } | Error::Refused(what) if what.contains(&quoted) => {
            let counts = if key.ends_with("images") { " (images, for this run)" } else { "" };
            Error::Refused(what.replace(&quoted, &format!("{option}{counts}")))
        }
        other => other,
    }
}

fn eval(args: &Eval) -> Result<ExitCode> {
    start(args.threads)?;
    let (recipe, experiment, step) = reopened(&args.run, args.data.dir.as_deref(), args.tasks)?;
    let progress = Tasks::new(&recipe.name, false);
    let evaluation = experiment.evaluate(&|done, count| progress.update(done, count));
    progress.finish();
    let Evaluation { protocol, tasks: count, figures, .. } = evaluation?;
    if args.json {
        let mut object = serde_json::Map::new();
        let mut put = |key: String, value: serde_json::Value| object.insert(key, value);
        put("recipe".into(), recipe.name.as_str().into());
        put("step".into(), step.into());
        put(counted(&recipe).into(), count.into());
        // The interval of the headline is `ci95`; those of other figures bear their names.
        for (i, f) in figures.iter().enumerate() {
            put(f.name.clone(), f.value.into());
            if let Some(half) = f.ci95 {
                put(if i == 0 { "ci95".into() } else { format!("{}_ci95", f.name) }, half.into());
            }
        }
        put("protocol".into(), protocol.into());
        say(&serde_json::Value::Object(object).to_string());
    } else {
        say(&table(&figures));
        let when = match step {
            Some(step) => format!("After step {step} of {}.", recipe.steps),
            None => format!("By {} alone, which does not say after how many steps of {}.", run::WEIGHTS, recipe.steps),
        };
        say(&format!("{when} {protocol}"));
    }
    Ok(ExitCode::SUCCESS)
}

fn generate(args: &Generate) -> Result<ExitCode> {
    start(args.threads)?;
    let (_, experiment, _) = reopened(&args.run, args.data.dir.as_deref(), None)?;
    let path = args.out.clone().unwrap_or_else(|| args.run.join("generated.png"));
    experiment.generate(args.n.into(), args.seed)?.save(&path)?;
    say(&path.display().to_string());
    Ok(ExitCode::SUCCESS)
}

fn recipes(args: &Recipes) -> Result<ExitCode> {
    if let Some(name) = &args.name {
        Draft::open(name)?;
        let text = carried().iter().find(|(n, _)| n == name).map(|(_, text)| text.trim_end());
        say(text.ok_or_else(|| Error::Refused(format!("{name} is a file, not a carried recipe")))?);
        return Ok(ExitCode::SUCCESS);
    }
    let width = carried().iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, _) in carried() {
        let recipe = Draft::open(name)?.finish()?;
        say(&format!("{name:width$}  {}", recipe.about));
    }
    Ok(ExitCode::SUCCESS)
}

/// Figures under each other.
fn table(figures: &[Figure]) -> String {
    let width = figures.iter().map(|f| f.label.chars().count()).max().unwrap_or(0);
    let row = |f: &Figure| {
        let note = if f.note.is_empty() { String::new() } else { format!("  ({})", f.note) };
        format!("{:width$}  {}{note}", f.label, f.shown())
    };
    figures.iter().map(row).collect::<Vec<_>>().join("\n")
}
