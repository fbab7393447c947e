//! Figures of training steps: what a step reports, their means between two lines of the log, and the log itself.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Named figures of one step. Names read `chart/curve`: figures that share the part before the slash share a chart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics(Vec<(String, f64)>);

impl Metrics {
    /// No figures yet.
    pub fn new() -> Metrics {
        Metrics::default()
    }

    /// Adds a figure. The first one is what a narrow terminal shows.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: f64) -> Metrics {
        self.0.push((name.into(), value));
        self
    }

    /// Names and values in the order they were added.
    pub fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0.iter().map(|(name, value)| (name.as_str(), *value))
    }

    /// The first figure that is not a number, if any.
    pub fn not_finite(&self) -> Option<(&str, f64)> {
        self.iter().find(|(_, value)| !value.is_finite())
    }
}

/// Sums, and the number of steps in them, since the last line of the log. Part of a checkpoint, so that a resumed run
/// writes the same lines.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Window(BTreeMap<String, [f64; 2]>);

impl Window {
    /// Adds the figures of a step.
    pub fn add(&mut self, metrics: &Metrics) {
        for (name, value) in metrics.iter() {
            let [sum, count] = self.0.entry(name.to_owned()).or_default();
            *sum += value;
            *count += 1.0;
        }
    }

    /// The mean of every figure over the steps that reported it; starts a new window.
    pub fn take_means(&mut self) -> BTreeMap<String, f64> {
        std::mem::take(&mut self.0).into_iter().map(|(name, [sum, count])| (name, sum / count)).collect()
    }

    /// Sum and count of every figure.
    pub fn iter(&self) -> impl Iterator<Item = (&str, [f64; 2])> {
        self.0.iter().map(|(name, sums)| (name.as_str(), *sums))
    }
}

impl FromIterator<(String, [f64; 2])> for Window {
    fn from_iter<I: IntoIterator<Item = (String, [f64; 2])>>(sums: I) -> Window {
        Window(sums.into_iter().collect())
    }
}

/// One line of `metrics.jsonl`: the means since the line before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// The last step that the means cover; steps count from 1.
    pub step: u64,
    /// Training time so far in seconds, over all sittings.
    pub seconds: f64,
    /// Means by name.
    #[serde(flatten)]
    pub values: BTreeMap<String, f64>,
}

/// Reads a log, up to and with step `last`. A last line cut off by a kill is left out.
///
/// # Errors
/// If the file cannot be read or another line is not of the format.
pub fn read(path: &Path, last: u64) -> Result<Vec<Line>> {
    let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
    let mut lines = Vec::new();
    for (number, line) in text.split_inclusive('\n').enumerate() {
        match serde_json::from_str::<Line>(line) {
            _ if !line.ends_with('\n') => break,
            Ok(line) if line.step <= last => lines.push(line),
            Ok(_) => break,
            Err(e) => return Err(Error::Damaged { path: path.into(), what: format!("line {}: {e}", number + 1) }),
        }
    }
    Ok(lines)
}

/// A figure in four significant digits, for people.
pub fn short(value: f64) -> String {
    let size = value.abs();
    if size == 0.0 {
        "0".into()
    } else if !(1e-3..1e6).contains(&size) {
        format!("{value:.2e}")
    } else {
        let digits = (3.0 - size.log10().floor()).clamp(0.0, 6.0) as usize;
        format!("{value:.digits$}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_holds_the_mean_of_the_steps_that_reported() {
        let mut window = Window::default();
        window.add(&Metrics::new().with("loss", 1.0));
        window.add(&Metrics::new().with("loss", 3.0).with("accuracy", 0.5));
        assert_eq!(window.take_means(), BTreeMap::from([("accuracy".into(), 0.5), ("loss".into(), 2.0)]));
        assert_eq!(window, Window::default());
    }

    #[test]
    fn only_a_cut_off_last_line_is_forgiven() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let whole = "{\"step\":10,\"seconds\":1.5,\"loss\":0.25}\n{\"step\":20,\"seconds\":3.0,\"loss\":0.125}\n";
        fs::write(&path, format!("{whole}{{\"step\":30,\"sec")).unwrap();
        let lines = read(&path, u64::MAX).unwrap();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[1].values["loss"], 0.125);
        assert_eq!(read(&path, 10).unwrap().len(), 1);
        fs::write(&path, format!("nonsense\n{whole}")).unwrap();
        assert!(read(&path, u64::MAX).unwrap_err().to_string().contains("line 1"));
    }

    #[test]
    fn figures_are_shown_in_four_digits() {
        let shown = [0.0, 1.0, 0.123456, 98.7654, 12345.6, -0.00012345, 1e9].map(short);
        assert_eq!(shown, ["0", "1.000", "0.1235", "98.77", "12346", "-1.23e-4", "1.00e9"]);
    }
}
