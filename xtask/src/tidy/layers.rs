//! Dependencies point downward: reads a crate's manifest and compares the layers.

use super::Finding;

/// The layers from the bottom up. Crates in one layer do not know each other.
const LAYERS: [&[&str]; 6] =
    [&["kernels"], &["autodiff"], &["nn", "data"], &["meta", "gan"], &["fusion"], &["metaforge"]];

fn layer(name: &str) -> Option<usize> {
    LAYERS.iter().position(|l| l.contains(&name))
}

/// `path` is `crates/NAME/Cargo.toml`. Dependencies for tests alone (`[dev-dependencies]`) may point anywhere.
pub(super) fn check(path: &str, manifest: &str) -> Vec<Finding> {
    let name = path.split('/').nth(1).unwrap_or_default();
    let Some(here) = layer(name) else {
        return vec![Finding::new(
            path,
            0,
            "a crate in no layer: give it one in the tidy command and in docs/ARCHITECTURE.md",
        )];
    };
    let mut found = Vec::new();
    let mut section = String::new();
    for (n, line) in (1..).zip(manifest.lines()) {
        let line = line.trim();
        if line.starts_with('[') {
            section = line.split('#').next().unwrap_or(line).trim().trim_matches(['[', ']']).to_string();
        }
        let Some(there) = dependency(&section, line) else {
            continue;
        };
        match layer(there) {
            None => found.push(Finding::new(path, n, format!("depends on {there}, which is in no layer"))),
            Some(at) if at >= here => {
                found.push(Finding::new(
                    path,
                    n,
                    format!("{name} depends on {there}: dependencies point downward only"),
                ));
            }
            Some(_) => {}
        }
    }
    found
}

/// The crate of this project that the line makes a dependency, by the name of its folder: `metaforge-nn = ...` or
/// `metaforge-nn.workspace = ...` in a section of dependencies, or the head of a section `[dependencies.metaforge-nn]`.
fn dependency<'a>(section: &'a str, line: &'a str) -> Option<&'a str> {
    // `[target.'cfg(unix)'.dependencies]` counts as well.
    let (before, after) = section.split_once("dependencies")?;
    if !(before.is_empty() || before.ends_with('.') || before == "build-") {
        return None;
    }
    let package = match after.strip_prefix('.') {
        Some(package) => line.starts_with('[').then_some(package)?,
        None if line.starts_with('[') => return None,
        None => line.split(['=', '.', ' ']).next()?,
    };
    match package.trim_matches('"').strip_prefix("metaforge")? {
        "" => Some("metaforge"),
        rest => rest.strip_prefix('-'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(name: &str, manifest: &str) -> Vec<String> {
        check(&format!("crates/{name}/Cargo.toml"), manifest)
            .into_iter()
            .map(|f| format!("{}: {}", f.line, f.what))
            .collect()
    }

    #[test]
    fn downward_is_fine() {
        let all = "[package]\nname = \"metaforge-fusion\"\n[dependencies]\nmetaforge-kernels = { workspace = true }\nmetaforge-meta.workspace = true\nserde = \"1\"\n";
        assert_eq!(says("fusion", all), Vec::<String>::new());
    }

    #[test]
    fn upward_and_sideways_are_not() {
        for (from, to) in [
            ("kernels", "autodiff"),
            ("meta", "gan"),
            ("gan", "meta"),
            ("data", "nn"),
            ("nn", "data"),
            ("gan", "fusion"),
        ] {
            let said = says(from, &format!("[dependencies]\nmetaforge-{to} = {{ workspace = true }}\n"));
            assert_eq!(said, [format!("2: {from} depends on {to}: dependencies point downward only")]);
        }
        assert_eq!(says("fusion", "[dependencies]\nmetaforge = \"0.1\"\n").len(), 1);
    }

    #[test]
    fn every_way_to_write_it() {
        for text in [
            "[dependencies.metaforge-fusion]\nworkspace = true\n",
            "[build-dependencies]\nmetaforge-fusion = \"1\"\n",
            "[target.'cfg(unix)'.dependencies]\nmetaforge-fusion.workspace = true\n",
        ] {
            assert_eq!(says("nn", text).len(), 1, "{text}");
        }
    }

    #[test]
    fn tests_may_look_up() {
        assert_eq!(says("nn", "[dev-dependencies]\nmetaforge-meta = { workspace = true }\n"), Vec::<String>::new());
    }

    #[test]
    fn a_new_crate_needs_a_layer() {
        assert_eq!(says("attic", "").len(), 1);
        assert_eq!(
            says("nn", "[dependencies]\nmetaforge-attic = \"1\"\n"),
            ["2: depends on attic, which is in no layer"]
        );
    }
}
