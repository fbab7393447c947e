//! The command line: what can be asked of the program, and its help.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

const ABOUT: &str = "Meta-learning and generative adversarial networks on a plain CPU.

Without a command it runs `quickstart`: three small trainings in a few minutes, nothing to download, and a report to look at.";

const AFTER: &str = "Examples:
  metaforge                                          the quickstart
  metaforge recipes                                  what can be trained
  metaforge train glyphs-proto-5w1s                  train one; it writes runs/glyphs-proto-5w1s/report.html
  metaforge train omniglot-maml-5w1s --data DIR      the same for a recipe that needs data
  metaforge train sinusoid-maml --set optimizer.lr=0.003 --set steps=5000 --out runs/faster
  metaforge eval runs/glyphs-proto-5w1s --tasks 1000

A run can be stopped with Ctrl-C, or killed, at any moment; the same command resumes it to the same result.";

/// metaforge: meta-learning and generative adversarial networks on a plain CPU.
#[derive(Debug, Parser)]
#[command(name = "metaforge", version, about = ABOUT, after_help = AFTER, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do; the quickstart if nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// For the quickstart, when no command is named.
    #[command(flatten)]
    pub quickstart: Quickstart,
}

/// What can be asked of the program.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train three small models in a few minutes, without data, and write a report
    Quickstart(Quickstart),
    /// Train a recipe in a run folder; resume it if the folder holds its unfinished run
    Train(Train),
    /// Measure the weights of a run
    Eval(Eval),
    /// Draw images with the generator of a run
    Generate(Generate),
    /// List the carried recipes, or show one
    Recipes(Recipes),
}

/// Arguments of `metaforge quickstart`.
#[derive(Debug, Args)]
pub struct Quickstart {
    /// Folder for the runs and the report
    #[arg(long, value_name = "DIR", default_value = "runs/quickstart")]
    pub out: PathBuf,
    #[command(flatten)]
    pub how: How,
    /// Change a key that all three recipes have, or one of a part, such as classifier.eval.tasks=100, gan.steps=500, generator.steps=50; can be
    /// repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// Arguments of `metaforge train`.
#[derive(Debug, Args)]
pub struct Train {
    /// Name of a carried recipe, or path of a TOML file (a run's config.toml is one)
    pub recipe: String,
    #[command(flatten)]
    pub data: Data,
    /// Run folder [default: runs/NAME of the recipe]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub how: How,
    /// Change a key of the recipe, such as optimizer.lr=0.01; can be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// Arguments of `metaforge eval`.
#[derive(Debug, Args)]
pub struct Eval {
    /// Run folder
    pub run: PathBuf,
    /// Number of test tasks, or of images for a GAN [default: that of the recipe]
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    pub tasks: Option<usize>,
    #[command(flatten)]
    pub data: Data,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub threads: Threads,
}

/// Arguments of `metaforge generate`.
#[derive(Debug, Args)]
pub struct Generate {
    /// Run folder
    pub run: PathBuf,
    /// Images to draw; for a few-shot generator, classes (a row each)
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4096), allow_negative_numbers = true)]
    pub n: u16,
    /// Seed of the noise; for a few-shot generator, of the choice of classes too
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = seed, allow_negative_numbers = true)]
    pub seed: u64,
    /// Picture to write [default: generated.png in the run folder]
    #[arg(long, value_name = "FILE.png", value_parser = png)]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub data: Data,
    #[command(flatten)]
    pub threads: Threads,
}

/// Arguments of `metaforge recipes`.
#[derive(Debug, Args)]
pub struct Recipes {
    /// Show the text of this recipe: all its keys, to be changed by --set or in a file of your own
    pub name: Option<String>,
}

/// How to train.
#[derive(Debug, Args)]
pub struct How {
    /// Seed of all random numbers [default: that of the recipe]
    #[arg(long, value_name = "N", value_parser = seed, allow_negative_numbers = true)]
    pub seed: Option<u64>,
    #[command(flatten)]
    pub threads: Threads,
    /// Replace the run that is in the folder
    #[arg(long)]
    pub force: bool,
}

/// Where data is.
#[derive(Debug, Args)]
pub struct Data {
    /// Folder with mnist/ and omniglot/ in it, or one of class folders, for the recipes that need data
    #[arg(id = "data", long = "data", value_name = "DIR", env = "METAFORGE_DATA")]
    pub dir: Option<PathBuf>,
}

/// How many threads work.
#[derive(Clone, Copy, Debug, Args)]
pub struct Threads {
    /// Worker threads; the results are the same for any number [default: one a core]
    #[arg(id = "threads", long = "threads", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024), allow_negative_numbers = true)]
    pub number: Option<u16>,
}

/// A seed; a recipe, being TOML, holds no larger one.
fn seed(text: &str) -> Result<u64, String> {
    let seed = text.parse().ok().filter(|&seed| i64::try_from(seed).is_ok());
    seed.ok_or_else(|| format!("it must be a whole number of at least 0 and at most {}", i64::MAX))
}

/// A number of tasks or images.
fn count(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|&count| u32::try_from(count).is_ok());
    count.ok_or_else(|| format!("it must be a whole number of at least 0 and at most {}", u32::MAX))
}

/// The path of a picture.
fn png(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match path.extension() {
        Some(end) if end.eq_ignore_ascii_case("png") => Ok(path),
        _ => Err("pictures are written as PNG; name a file that ends in .png".into()),
    }
}
