//! `cargo xtask ci`: what a change must pass. The steps stand in `.ci/run` alone, so that both say the same.

use crate::{Outcome, args::Args, run};

pub(crate) fn run(args: &[String]) -> Outcome {
    Args::parse(args, &[])?;
    run::show(&mut run::command("bash", &[".ci/run"]))
}
