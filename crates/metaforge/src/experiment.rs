//! The seam between the program and what it trains: an experiment steps, shows samples, gives and takes its tensors and
//! is evaluated; everything else (loop, log, checkpoints, report) is the same for all of them.

use metaforge_nn::Params;
use serde::{Deserialize, Serialize};

use crate::chart::Plot;
use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::picture::Picture;

/// Something that can be trained, evaluated and, if it is generative, asked for pictures.
///
/// All randomness of step `n` must follow from the recipe's seed and `n` alone, so that a resumed run gives the same bits
/// as one that was never stopped.
pub trait Experiment {
    /// Takes training step `n`, counted from 1, and gives its figures.
    ///
    /// # Errors
    /// If the data fails; a figure that is not finite is for the caller to notice.
    fn step(&mut self, n: u64) -> Result<Metrics>;

    /// Memory that training takes, about, in bytes; 0 where the ranges of a recipe's numbers keep it small.
    fn memory_bytes(&self) -> usize {
        0
    }

    /// Pictures of the present state, each with a name that stays the same from step to step.
    ///
    /// # Errors
    /// If the data fails.
    fn samples(&self) -> Result<Vec<(String, Picture)>> {
        Ok(Vec::new())
    }

    /// All that training needs to go on to the same bits, and all that evaluation needs: weights, running statistics, moments.
    fn state(&self) -> Params;

    /// Takes what [`Experiment::state`] gave; the tensors may come in another order.
    ///
    /// # Errors
    /// If the tensors are of another model.
    fn restore(&mut self, state: &Params) -> Result<()>;

    /// The weights alone, for other programs: all that evaluation needs, and too little to go on from.
    fn weights(&self) -> Params;

    /// Takes what [`Experiment::weights`] gave, to evaluate and draw, not to train; the tensors may come in another order.
    ///
    /// # Errors
    /// If the tensors are of another model.
    fn restore_weights(&mut self, weights: &Params) -> Result<()>;

    /// Measures the present weights by the recipe's `[eval]` table; always the same tasks and noise for a recipe. An experiment
    /// that is measured on many tasks tells `watch` how far it is.
    ///
    /// # Errors
    /// If the data fails.
    fn evaluate(&self, watch: Watch<'_>) -> Result<Evaluation>;

    /// `n` generated images in one picture (for a few-shot generator: `n` classes, a row each, beside their support); another `seed`, others.
    ///
    /// # Errors
    /// If the experiment is not generative, or the data fails.
    fn generate(&self, _n: usize, _seed: u64) -> Result<Picture> {
        Err(Error::Refused(
            "a run of this kind has nothing to generate; a run of a GAN recipe has (see `metaforge recipes`)".into(),
        ))
    }
}

/// Is told, from any thread, how many of how many tasks of an evaluation are done.
pub type Watch<'a> = &'a (dyn Fn(usize, usize) + Sync);

/// What an experiment measured, and how.
#[derive(Clone, Debug, Default)]
pub struct Evaluation {
    /// The protocol in a sentence or two: which tasks, how many, which statistics.
    pub protocol: String,
    /// Number of tasks, classes or images that were measured.
    pub tasks: usize,
    /// What was measured, the headline first.
    pub figures: Vec<Figure>,
    /// Curves to draw in the report.
    pub plots: Vec<Plot>,
    /// Pictures to show in the report, by name.
    pub pictures: Vec<(String, Picture)>,
}

/// One measured number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// Short name for programs, such as `accuracy`.
    pub name: String,
    /// Name for people, such as `5-way 1-shot test accuracy`.
    pub label: String,
    /// The number, to the six significant digits that a mean of `f32` values has.
    pub value: f64,
    /// Half the width of its 95 % confidence interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ci95: Option<f64>,
    /// How to show it.
    pub unit: Unit,
    /// What to compare it with, such as `chance is 20 %`; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// How a number is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// A part of 1, shown in percent.
    Fraction,
    /// A number as it is.
    Number,
}

impl Figure {
    /// A figure without an interval or a note.
    pub fn new(name: impl Into<String>, label: impl Into<String>, value: f64, unit: Unit) -> Figure {
        Figure { name: name.into(), label: label.into(), value: six(value), ci95: None, unit, note: String::new() }
    }

    /// With half the width of the 95 % interval.
    #[must_use]
    pub fn with_ci95(mut self, half: f64) -> Figure {
        self.ci95 = Some(six(half));
        self
    }

    /// With something to compare it with.
    #[must_use]
    pub fn with_note(mut self, note: impl Into<String>) -> Figure {
        self.note = note.into();
        self
    }

    /// The number with its interval, for people: `98.31 ± 0.24 %`.
    pub fn shown(&self) -> String {
        match (self.unit, self.ci95) {
            (Unit::Fraction, None) => format!("{:.2} %", 100.0 * self.value),
            (Unit::Fraction, Some(half)) => format!("{:.2} ± {:.2} %", 100.0 * self.value, 100.0 * half),
            (Unit::Number, None) if self.value.fract() == 0.0 && self.value.abs() < 1e9 => format!("{}", self.value),
            (Unit::Number, None) => crate::metrics::short(self.value),
            (Unit::Number, Some(half)) => {
                // The interval decides how many digits mean something: two of its own.
                let digits = if half > 0.0 { (1.0 - half.log10().floor()).clamp(0.0, 8.0) as usize } else { 4 };
                format!("{:.digits$} ± {half:.digits$}", self.value)
            }
        }
    }
}

/// Nearest number of six significant decimal digits.
fn six(value: f64) -> f64 {
    format!("{value:.5e}").parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_has_six_digits() {
        let found = [0.976_599_991_3, 1.0 / 3.0, -12.345_678_9, 1.234_567_8e-9, 0.0, 1.0, 0.999_999_4].map(six);
        assert_eq!(found, [0.9766, 0.333333, -12.3457, 1.23457e-9, 0.0, 1.0, 0.999999]);
        let f = Figure::new("x", "x", f64::from(0.92f32), Unit::Number).with_ci95(f64::from(0.013f32));
        assert_eq!((f.value, f.ci95), (0.92, Some(0.013)));
        assert!(six(f64::NAN).is_nan() && six(f64::INFINITY) == f64::INFINITY);
    }

    #[test]
    fn figures_read_well() {
        let f = |value, unit| Figure::new("x", "x", value, unit);
        assert_eq!(f(0.98312, Unit::Fraction).with_ci95(0.0024).shown(), "98.31 ± 0.24 %");
        assert_eq!(f(0.2, Unit::Fraction).shown(), "20.00 %");
        assert_eq!(f(0.38211, Unit::Number).with_ci95(0.0213).shown(), "0.382 ± 0.021");
        assert_eq!(f(1234.5, Unit::Number).with_ci95(17.0).shown(), "1234 ± 17");
        assert_eq!(f(10.0, Unit::Number).shown(), "10");
    }
}
