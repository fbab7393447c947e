//! `cargo xtask bench`: times whole workloads with the runner in `benches`, which reads the options; with `--kernels` the criterion benchmarks
//! of the kernels instead.

use crate::{Outcome, args::Args, circumstances::circumstances, run};

pub(crate) fn run(args: &[String]) -> Outcome {
    let (kernels, rest): (Vec<String>, Vec<String>) = args.iter().cloned().partition(|arg| arg == "--kernels");
    if kernels.is_empty() { workloads(&rest) } else { benchmarks(&rest) }
}

/// Builds and starts the runner. It stands where the user stands, so that `--json` names a file from there.
fn workloads(args: &[String]) -> Outcome {
    let here = std::env::current_dir().map_err(|e| e.to_string())?;
    let package = ["--release", "--package", "metaforge-benches"];
    run::show(run::cargo(&["build", "--quiet"]).args(package))?;
    println!("{}", circumstances(None)?);
    run::show(run::cargo(&["run", "--quiet"]).args(package).arg("--").args(args).current_dir(here))
}

fn benchmarks(args: &[String]) -> Outcome {
    let args = Args::parse(args, &["filter", "threads"])?;
    if let Some(word) = args.words.first() {
        return Err(format!("`{word}`? A part of a benchmark's name goes after --filter"));
    }
    let mut command = run::cargo(&["bench", "--package", "metaforge-kernels"]);
    if let Some(filter) = args.get("filter") {
        command.args(["--", filter]);
    }
    if let Some(threads) = args.threads()? {
        command.env("RAYON_NUM_THREADS", threads.to_string());
    }
    run::show(&mut command)
}
