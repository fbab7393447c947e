//! `cargo xtask gradcheck`: every gradient rule, and the rules' own gradients, against finite differences in f64.

use crate::{Outcome, args::Args, run};

pub(crate) fn run(args: &[String]) -> Outcome {
    let args = Args::parse(args, &[])?;
    let filter = args.words.first().map_or("gradcheck", String::as_str);
    run::show(&mut run::cargo(&["test", "--release", "-p", "metaforge-autodiff", filter, "--", "--nocapture"]))
}
