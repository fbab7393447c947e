//! `cargo xtask tidy`: the invariants of `docs/ARCHITECTURE.md` as code. Reads the files of the project that git knows or would
//! take, and says where a rule does not hold.

mod docs;
mod layers;
mod source;

use crate::{Outcome, args::Args, run};
use std::path::Path;

/// A place where a rule does not hold: the file, the line (0: the file as a whole), and what is wrong.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: String,
    line: usize,
    what: String,
}

impl Finding {
    fn new(path: &str, line: usize, what: impl Into<String>) -> Finding {
        Finding { path: path.into(), line, what: what.into() }
    }
}

pub(crate) fn run(args: &[String]) -> Outcome {
    Args::parse(args, &[])?;
    let root = run::root();
    let files = run::read(&mut run::command("git", &["ls-files", "--cached", "--others", "--exclude-standard"]))?;
    // A file that is deleted and not yet committed is listed too.
    let files: Vec<&str> = files.lines().filter(|f| root.join(f).is_file()).collect();

    let mut found = Vec::new();
    for path in &files {
        if path.ends_with(".rs") {
            found.extend(source::check(path, &read(&root, path)?));
        } else if path.starts_with("crates/") && path.matches('/').count() == 2 && path.ends_with("/Cargo.toml") {
            found.extend(layers::check(path, &read(&root, path)?));
        }
    }
    let mut crates: Vec<&str> = files.iter().filter_map(|f| f.strip_prefix("crates/")?.split('/').next()).collect();
    crates.dedup();
    match read(&root, "docs/ARCHITECTURE.md") {
        Ok(text) => found.extend(docs::architecture("docs/ARCHITECTURE.md", &text, &crates, |p| root.join(p).exists())),
        Err(_) => found.push(Finding::new("docs/ARCHITECTURE.md", 0, "missing")),
    }
    let commands: Vec<&str> = crate::COMMANDS.iter().map(|c| c.name).collect();
    match read(&root, "README.md") {
        Ok(text) => found.extend(docs::commands("README.md", &text, &commands)),
        Err(_) => found.push(Finding::new("README.md", 0, "missing")),
    }

    found.sort();
    for f in &found {
        if f.line == 0 {
            println!("{}: {}", f.path, f.what);
        } else {
            println!("{}:{}: {}", f.path, f.line, f.what);
        }
    }
    match found.len() {
        0 => {
            println!("{} files, no invariant is broken", files.len());
            Ok(())
        }
        n => Err(format!("{n} places where an invariant does not hold")),
    }
}

fn read(root: &Path, path: &str) -> Result<String, String> {
    std::fs::read_to_string(root.join(path)).map_err(|e| format!("{path}: {e}"))
}
