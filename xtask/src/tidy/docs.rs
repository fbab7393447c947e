//! What the documents say of the project is so: the map names every crate and no file that is gone, and the commands that the
//! README shows exist.

use super::Finding;

/// Checks the map: every crate's folder is named, and every path in backticks that starts in the project `exists`.
pub(super) fn architecture(path: &str, text: &str, crates: &[&str], exists: impl Fn(&str) -> bool) -> Vec<Finding> {
    let mut found = Vec::new();
    for name in crates {
        if !text.contains(&format!("crates/{name}")) {
            found.push(Finding::new(path, 0, format!("does not name crates/{name}")));
        }
    }
    for (n, line) in (1..).zip(text.lines()) {
        for quoted in line.split('`').skip(1).step_by(2) {
            let in_project =
                ["crates/", "xtask/", "benches/", "docs/", ".ci/", ".cargo/"].iter().any(|p| quoted.starts_with(p));
            if in_project && !quoted.contains(['*', ' ', '{', '<']) && !exists(quoted) {
                found.push(Finding::new(path, n, format!("{quoted} does not exist")));
            }
        }
    }
    found
}

/// Checks that each `cargo xtask NAME` in a fenced block is one of `known`.
pub(super) fn commands(path: &str, text: &str, known: &[&str]) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (n, line) in (1..).zip(text.lines()) {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            continue;
        }
        for (at, before) in line.match_indices("cargo xtask ").filter(|_| fenced) {
            let name = line[at + before.len()..].split_whitespace().next().unwrap_or_default();
            if !known.contains(&name) && !name.starts_with(['#', '-']) {
                found.push(Finding::new(path, n, format!("`cargo xtask {name}` does not exist")));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_names_every_crate_and_only_what_is_there() {
        let text = "`crates/nn`: layers.\n`crates/nn/src/gone.rs` and `crates/nn/src/{a,b}.rs`, `Prim`.\n";
        let found = architecture("A.md", text, &["nn", "gan"], |p| p == "crates/nn");
        assert_eq!(
            found,
            [
                Finding::new("A.md", 0, "does not name crates/gan"),
                Finding::new("A.md", 2, "crates/nn/src/gone.rs does not exist")
            ]
        );
    }

    #[test]
    fn commands_in_fences_exist() {
        let text = "cargo xtask prose\n```sh\ncargo xtask tidy\ncargo xtask tdiy # all\ncargo xtask # help\n```\ncargo xtask prose\n";
        assert_eq!(commands("R.md", text, &["tidy"]), [Finding::new("R.md", 4, "`cargo xtask tdiy` does not exist")]);
    }
}
