//! `cargo xtask bench`: the criterion benchmarks of the kernels, then those of whole workloads.

use crate::{Outcome, args::Args, run};

const PACKAGES: [&str; 2] = ["metaforge-kernels", "metaforge-benches"];

pub(crate) fn run(args: &[String]) -> Outcome {
    let args = Args::parse(args, &["filter", "threads"])?;
    if let Some(word) = args.words.first() {
        return Err(format!("`{word}`? A part of a benchmark's name goes after --filter"));
    }
    for package in PACKAGES {
        let mut command = run::cargo(&["bench", "-p", package]);
        if let Some(filter) = args.get("filter") {
            command.args(["--", filter]);
        }
        if let Some(threads) = args.threads()? {
            command.env("RAYON_NUM_THREADS", threads.to_string());
        }
        run::show(&mut command)?;
    }
    Ok(())
}
