//! What every Rust file keeps to: a subject and a size, `unsafe` in one crate, nothing printed or unfinished in a library, no
//! test switched off, and no wildcard in the tables of primitives.

use super::Finding;
use crate::rust::{before_tests, code, has_word, matches};

/// The longest file, in lines. Over about 500 a file wants to be two.
const LONGEST: usize = 700;

/// The tables of primitives: a new primitive must not compile until each has its row.
const TABLES: [&str; 3] = ["shape", "eval", "vjp"];

/// The closed sets that the tables run over.
const SETS: [&str; 3] = ["Prim::", "Unary::", "Binary::"];

pub(super) fn check(path: &str, text: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut say = |line: usize, what: &str| found.push(Finding::new(path, line, what));
    let code = code(text);
    let parts: Vec<&str> = path.split('/').collect();
    let (in_crates, package) = (parts[0] == "crates", if parts[0] == "crates" { parts[1] } else { parts[0] });
    let in_src = in_crates && parts.get(2) == Some(&"src");

    let lines = text.lines().count();
    if lines > LONGEST {
        say(0, &format!("{lines} lines; a file has one subject and at most {LONGEST}"));
    }
    if in_src && !text.trim_start().starts_with("//!") {
        say(1, "no //! line says what the file is about");
    }
    if package == "kernels" {
        undocumented_unsafe(text, &code)
            .for_each(|n| say(n, "unsafe without a `SAFETY:` comment (`# Safety` for a function)"));
    } else {
        numbered(&code)
            .filter(|(_, l)| has_word(l, "unsafe"))
            .for_each(|(n, _)| say(n, "unsafe outside crates/kernels"));
        if is_crate_root(&parts) && !code.contains("#![forbid(unsafe_code)]") {
            say(0, "a crate without `#![forbid(unsafe_code)]`");
        }
    }
    // The program may print; a library returns its values, or traces.
    if in_src && package != "metaforge" {
        for (n, line) in numbered(before_tests(&code)) {
            for name in ["print!", "println!", "eprint!", "eprintln!", "dbg!"] {
                if has_macro(line, name) {
                    say(n, &format!("{name} in a library; return the value, or use tracing"));
                }
            }
        }
    }
    if in_crates {
        for (n, line) in numbered(&code) {
            for name in ["todo!", "unimplemented!"] {
                if has_macro(line, name) {
                    say(n, &format!("{name}: unfinished code"));
                }
            }
        }
    }
    for (n, _) in numbered(&code).filter(|(_, l)| l.trim_start().starts_with("#[") && has_word(l, "ignore")) {
        say(n, "a test that is switched off");
    }
    if is_table(&parts) {
        for arms in matches(before_tests(&code)) {
            // A match over types or ranks may end as it likes.
            if !arms.iter().any(|a| SETS.iter().any(|set| a.pattern.contains(set))) {
                continue;
            }
            for arm in arms.iter().filter(|a| takes_all(a.pattern)) {
                let what = "in a table of primitives: name every case, so that a new one does not compile until it has its row";
                say(arm.line, &format!("`{} =>` {what}", arm.pattern));
            }
        }
    }
    found
}

/// Lines with their numbers, from 1.
fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(text.lines())
}

/// Whether the line calls this macro (and not one whose name ends in it).
fn has_macro(line: &str, name: &str) -> bool {
    has_word(line, name.trim_end_matches('!'))
        && line.match_indices(name).any(|(i, _)| !line[..i].ends_with(char::is_alphanumeric))
}

/// `crates/X/src/lib.rs`, `crates/X/src/main.rs`, `crates/X/src/bin/*.rs`, the same in `xtask`, and `benches/main.rs`.
fn is_crate_root(parts: &[&str]) -> bool {
    let inside = if parts[0] == "crates" { &parts[2..] } else { &parts[1..] };
    matches!(inside, ["src", "lib.rs" | "main.rs"] | ["src", "bin", _]) || parts == ["benches", "main.rs"]
}

/// Whether a pattern matches whatever is left: `_` or a plain name, without a guard.
fn takes_all(pattern: &str) -> bool {
    pattern.starts_with(|c: char| c.is_lowercase() || c == '_')
        && pattern.chars().all(|c| c.is_alphanumeric() || c == '_')
}

/// `crates/autodiff/src/vjp.rs`, or a file in the folder `crates/autodiff/src/vjp/`.
fn is_table(parts: &[&str]) -> bool {
    let ["crates", "autodiff", "src", name, ..] = parts else {
        return false;
    };
    TABLES.contains(&name.trim_end_matches(".rs"))
}

/// The lines of `unsafe` blocks and impls that no `SAFETY:` comment explains, and of public `unsafe fn`s without a `# Safety`
/// section.
/// The comment stands on the line itself, or above it with only attributes, the head of the same statement or further comment between.
fn undocumented_unsafe<'a>(text: &'a str, code: &'a str) -> impl Iterator<Item = usize> + 'a {
    let lines: Vec<&str> = text.lines().collect();
    numbered(code).filter(|(_, line)| has_word(line, "unsafe")).filter_map(move |(n, line)| {
        let after = line[line.find("unsafe").unwrap_or(0) + "unsafe".len()..].trim_start();
        // Private functions and those of a trait's impl have their contract elsewhere. An attribute such as
        // `#[unsafe(no_mangle)]` and the type `unsafe fn(usize)` promise nothing.
        let wanted = match after {
            a if a.starts_with("fn ") && has_word(line, "pub") => "# Safety",
            a if a.starts_with('{') || a.starts_with("impl") || a.is_empty() => "SAFETY:",
            _ => return None,
        };
        // How far above it may stand: a paragraph of comment and a few lines of the statement's head.
        let above = lines[..n].iter().rev().take(25).take_while(|l| !l.trim().is_empty());
        let documented =
            above.into_iter().any(|l| l.contains(wanted) || (wanted == "# Safety" && l.contains("SAFETY:")));
        (!documented).then_some(n)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `check` says of a file at `path`, without the places.
    fn says(path: &str, text: &str) -> Vec<String> {
        check(path, text).into_iter().map(|f| f.what).collect()
    }

    fn one(path: &str, text: &str, part: &str) {
        let said = says(path, text);
        assert!(said.len() == 1 && said[0].contains(part), "{said:?}");
    }

    fn none(path: &str, text: &str) {
        assert_eq!(says(path, text), Vec::<String>::new());
    }

    #[test]
    fn a_file_says_what_it_is_about() {
        none("crates/nn/src/x.rs", "//! Layers.\nfn f() {}\n");
        one("crates/nn/src/x.rs", "fn f() {}\n", "//!");
        none("crates/nn/tests/x.rs", "fn f() {}\n");
    }

    #[test]
    fn a_file_has_an_end() {
        none("xtask/src/x.rs", &"\n".repeat(700));
        one("xtask/src/x.rs", &"\n".repeat(701), "701 lines");
    }

    #[test]
    fn unsafe_stays_in_kernels() {
        one("crates/nn/src/x.rs", "//! X.\nfn f() { unsafe { g() } }\n", "outside");
        one("crates/nn/tests/x.rs", "unsafe impl Send for X {}\n", "outside");
        none("crates/nn/src/x.rs", "//! X.\n// unsafe { }\nlet a = \"unsafe {\";\n");
    }

    #[test]
    fn every_other_crate_forbids_unsafe() {
        none("crates/nn/src/lib.rs", "//! X.\n#![forbid(unsafe_code)]\n");
        one("crates/nn/src/lib.rs", "//! X.\n", "forbid");
        one("crates/nn/src/lib.rs", "//! X.\n//! #![forbid(unsafe_code)]\n", "forbid");
        one("xtask/src/main.rs", "fn main() {}\n", "forbid");
        one("benches/main.rs", "//! X.\nfn main() {}\n", "forbid");
        none("crates/kernels/src/lib.rs", "//! X.\n");
        none("crates/nn/src/layer.rs", "//! X.\n");
    }

    #[test]
    fn unsafe_says_why_it_is_sound() {
        let path = "crates/kernels/src/x.rs";
        none(path, "//! X.\n// SAFETY: in bounds.\nunsafe { g() }\n");
        none(path, "//! X.\n// SAFETY: in bounds,\n// always.\nlet y =\n    unsafe { g() };\n");
        none(path, "//! X.\nunsafe { g() } // SAFETY: in bounds.\n");
        none(path, "//! X.\n/// # Safety\n/// In bounds.\n#[inline]\npub(crate) unsafe fn g() {}\n");
        none(path, "//! X.\ntype F = unsafe fn(usize);\n");
        one(path, "//! X.\n// SAFETY: of another.\n\nunsafe { g() }\n", "SAFETY");
        one(path, "//! X.\nunsafe impl Send for X {}\n", "SAFETY");
        one(path, "//! X.\n/// Fast.\npub(crate) unsafe fn g() {}\n", "Safety");
    }

    #[test]
    fn a_library_is_silent() {
        one("crates/nn/src/x.rs", "//! X.\nfn f() { println!(\"a\") }\n", "println!");
        one("crates/nn/src/x.rs", "//! X.\nfn f() { dbg!(1); }\n", "dbg!");
        none("crates/nn/src/x.rs", "//! println!()\n#[cfg(test)]\nmod tests {\n    fn f() { println!() }\n}\n");
        none("crates/nn/src/x.rs", "//! X.\nfn f() { pretty_print!() }\n");
        none("crates/metaforge/src/x.rs", "//! X.\nfn f() { println!() }\n");
        none("xtask/src/x.rs", "fn f() { println!() }\n");
    }

    #[test]
    fn nothing_unfinished_and_no_test_switched_off() {
        one("crates/nn/src/x.rs", "//! X.\nfn f() { todo!() }\n", "unfinished");
        one("crates/nn/tests/x.rs", "#[test]\n#[cfg_attr(miri, ignore)]\nfn f() {}\n", "switched off");
    }

    #[test]
    fn the_tables_name_every_case() {
        let table = "//! X.\nmatch p {\n    Prim::Add => 1,\n    _ => 2,\n}\n";
        for name in TABLES {
            one(&format!("crates/autodiff/src/{name}.rs"), table, "`_ =>`");
            one(&format!("crates/autodiff/src/{name}/conv.rs"), table, "`_ =>`");
        }
        one("crates/autodiff/src/vjp.rs", &table.replace("_ =>", "other =>"), "`other =>`");
        none("crates/autodiff/src/vjp.rs", &table.replace("_ =>", "_ if x =>"));
        none("crates/autodiff/src/vjp.rs", &table.replace("Prim::Add", "DType::F32"));
        none("crates/autodiff/src/program.rs", table);
    }
}
