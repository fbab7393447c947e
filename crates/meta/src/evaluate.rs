//! Evaluation over many tasks, with its 95 % interval.

use std::ops::Range;

use metaforge_autodiff::{Key, Pool, Program, Tensor};
use metaforge_nn::Params;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::trainer::par;
use crate::{EpisodeLearner, Error, Statistics, TaskShape, TaskVars, Tasks};

/// A mean over tasks and half the width of its 95 % confidence interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The mean.
    pub mean: f64,
    /// `1.96 * s / sqrt(n)`, with the sample standard deviation `s`; NaN for fewer than two values.
    pub ci95: f64,
}

impl Interval {
    /// Of independent values.
    pub fn of(values: &[f64]) -> Interval {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
        Interval { mean, ci95: 1.96 * (variance / n).sqrt() }
    }
}

/// Results after one number of adaptation steps.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Loss on the query sets.
    pub loss: Interval,
    /// Metric on the query sets: the learner's [`EpisodeLearner::metric`].
    pub metric: Interval,
}

/// What an evaluation found, and over what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Number of tasks.
    pub tasks: usize,
    /// Whose statistics normalised the query sets.
    pub statistics: Statistics,
    /// After 0, 1, 2, ... steps of adaptation; one score for a learner that does not adapt in steps. Before any step a classifier
    /// must be at chance: anything else is a leak.
    pub scores: Vec<Score>,
}

impl Evaluation {
    /// After all steps.
    pub fn last(&self) -> &Score {
        self.scores.last().expect("a learner gives a score")
    }
}

/// A learner compiled for evaluation on tasks of one shape; to be used again as training goes on.
pub struct Evaluator {
    pool: Pool,
    shape: TaskShape,
    statistics: Statistics,
}

impl Evaluator {
    /// Compiles `learner` for tasks of this shape.
    pub fn new(learner: &dyn EpisodeLearner, shape: TaskShape, statistics: Statistics) -> Evaluator {
        let (params, state) = (learner.init(Key::new(0)), learner.init_state());
        let inputs: Vec<_> = params.avals().into_iter().chain(state.avals()).chain(shape.inputs()).collect();
        let program = Program::trace(&inputs, |_, x| {
            let (meta, rest) = x.split_at(params.len());
            let (state, task) = rest.split_at(state.len());
            learner.judge(meta, state, &TaskVars::from_inputs(task, shape.ways), statistics).concat()
        });
        Evaluator { pool: Pool::new(program), shape, statistics }
    }

    /// The program of one task: its outputs are the loss and the metric after each number of steps.
    pub fn program(&self) -> &Program {
        self.pool.program()
    }

    /// Plays the tasks `numbers` of a source, in parallel; the same bits for any number of threads.
    ///
    /// # Errors
    /// If a task has another shape, or its result is not a number.
    ///
    /// # Panics
    /// If `params` and `state` are not of the learner.
    pub fn run(
        &self,
        params: &Params,
        state: &Params,
        tasks: &dyn Tasks,
        numbers: Range<u64>,
    ) -> Result<Evaluation, Error> {
        let count = numbers.end.saturating_sub(numbers.start) as usize;
        if count == 0 {
            return Err(Error::Setting("an evaluation needs at least one task".into()));
        }
        let par = par(count);
        let results: Vec<Vec<f64>> = numbers
            .into_par_iter()
            .map(|number| {
                let task = tasks.task(number);
                if task.shape() != self.shape {
                    let (found, expected) = (Box::new(task.shape()), Box::new(self.shape.clone()));
                    return Err(Error::TaskShape { task: number, found, expected });
                }
                let key = Key::new(number).tensor();
                let inputs: Vec<&Tensor> =
                    params.tensors().iter().chain(state.tensors()).chain(task.tensors()).chain([&key]).collect();
                let result: Vec<f64> = self.pool.with(|program, workspace| {
                    program.run(workspace, &inputs, par);
                    (0..program.outputs().len()).map(|i| program.output(workspace, i).item()).collect()
                });
                match result.iter().position(|v| !v.is_finite()) {
                    None => Ok(result),
                    Some(at) => {
                        let what = format!("the {} after step {}", if at % 2 == 0 { "loss" } else { "metric" }, at / 2);
                        Err(Error::NotFinite { task: number, what, value: result[at] })
                    }
                }
            })
            .collect::<Result<_, Error>>()?;
        let column = |at: usize| Interval::of(&results.iter().map(|r| r[at]).collect::<Vec<f64>>());
        let scores =
            (0..results[0].len() / 2).map(|s| Score { loss: column(2 * s), metric: column(2 * s + 1) }).collect();
        Ok(Evaluation { tasks: count, statistics: self.statistics, scores })
    }
}

/// Compiles `learner` for the tasks `numbers` of a source and plays them; see [`Evaluator::run`].
///
/// # Errors
/// As [`Evaluator::run`]; and if the learner does not fit the tasks.
pub fn evaluate(
    learner: &dyn EpisodeLearner,
    params: &Params,
    state: &Params,
    tasks: &dyn Tasks,
    numbers: Range<u64>,
    statistics: Statistics,
) -> Result<Evaluation, Error> {
    let shape = tasks.task(numbers.start).shape();
    learner.accepts(&shape).map_err(Error::Setting)?;
    Evaluator::new(learner, shape, statistics).run(params, state, tasks, numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_that_of_the_textbook() {
        // Mean 5, sample variance 32/7.
        let i = Interval::of(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]);
        assert_eq!(i.mean, 5.0);
        assert!((i.ci95 - 1.96 * (32.0_f64 / 7.0 / 8.0).sqrt()).abs() < 1e-12);
        assert!(Interval::of(&[1.0]).ci95.is_nan());
    }
}
