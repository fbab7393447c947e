//! The recipes that the program carries.

use toml::Table;

macro_rules! recipes {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../recipes/", $name, ".toml")))),*]
    };
}

/// Names and texts of the carried recipes.
pub fn carried() -> &'static [(&'static str, &'static str)] {
    recipes![
        "glyphs-proto-5w1s",
        "glyphs-maml-5w1s",
        "omniglot-proto-5w1s",
        "omniglot-maml-5w1s",
        "sinusoid-maml",
        "digits-seed-gan",
        "mnist-seed-gan",
        "glyphs-fewshot-gan",
        "omniglot-fewshot-gan",
    ]
}

/// A carried recipe of a kind: the model of what keys the kind has and of what types they are.
pub(crate) fn of_kind(kind: &str) -> Table {
    let parsed = carried().iter().map(|(name, text)| text.parse::<Table>().unwrap_or_else(|e| panic!("{name}: {e}")));
    parsed
        .into_iter()
        .find(|table| table.get("kind").and_then(|k| k.as_str()) == Some(kind))
        .unwrap_or_else(|| panic!("no carried recipe is of kind `{kind}`"))
}
