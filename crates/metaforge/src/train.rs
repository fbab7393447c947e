//! The training loop, the same for every experiment: steps, log, samples, checkpoints, a stop on request and the
//! evaluation at the end.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::experiment::{Evaluation, Experiment};
use crate::interrupt;
use crate::memory;
use crate::metrics::{Line, Metrics};
use crate::progress::{Progress, Tasks};
use crate::run::{Position, Run, Start, Summary};

/// A checkpoint is saved at least this often, whatever the recipe says.
const UNSAVED: Duration = Duration::from_secs(60);

/// How long to train and how often to do what; all counts are of steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Steps of the whole run.
    pub steps: u64,
    /// A line of the log every so many steps.
    pub log_every: u64,
    /// Pictures every so many steps.
    pub sample_every: u64,
    /// A checkpoint every so many steps, and every minute.
    pub checkpoint_every: u64,
}

/// How a call of [`train`] ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The run is finished and evaluated.
    Finished(Summary),
    /// The run had been finished before; nothing was done.
    WasFinished,
    /// A stop was asked for; the checkpoint of this step is saved.
    Stopped(u64),
}

/// What [`train`] needs to know besides the experiment.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// What to call it on the terminal.
    pub label: &'a str,
    /// The run folder.
    pub folder: &'a Path,
    /// The effective configuration, a TOML text; a folder is resumed only if it was made by the same.
    pub config: &'a str,
    /// How long and how often.
    pub schedule: Schedule,
    /// Whether to replace the run that is in the folder.
    pub force: bool,
    /// Whether nothing is to be shown.
    pub quiet: bool,
    /// Set by another thread to end training after the present step.
    pub stop: &'a AtomicBool,
}

/// Trains the experiment that `build` makes in a run folder: a new one, or from the checkpoint that is there.
///
/// The run gives the same bits however often it was stopped or killed and resumed.
///
/// # Errors
/// If the folder cannot serve, the experiment cannot be built, a file cannot be written, or a figure or weight is no
/// longer a number.
pub fn train(job: &Job<'_>, build: impl FnOnce() -> Result<Box<dyn Experiment>>) -> Result<Outcome> {
    // The data is opened first, so that a missing one leaves no folder behind.
    let mut experiment = build()?;
    let experiment = experiment.as_mut();
    memory::fits(experiment.memory_bytes(), "make the tasks smaller, or the network")?;
    let mut again = false;
    let (mut run, position) = match Run::open(job.folder, job.config, job.force)? {
        Start::Finished => return Ok(Outcome::WasFinished),
        Start::Fresh(run) => (run, Position::default()),
        Start::Again(run) => {
            again = true;
            (run, Position::default())
        }
        Start::Resumed(run, position, state) => {
            experiment.restore(&state)?;
            (run, position)
        }
    };
    let mut progress =
        if job.quiet { Progress::silent() } else { Progress::new(job.label, position.step, job.schedule.steps) };
    if position.step > 0 {
        progress.note(&format!("resuming at step {} of {}", position.step, job.schedule.steps));
    }
    if again {
        progress.note("the run in this folder ended before its first checkpoint: it begins again at step 1");
    }
    interrupt::training(true);
    let ended = steps(job, experiment, &mut run, position, &mut progress);
    interrupt::training(false);
    let (position, stopped) = match ended {
        Ok(ended) => ended,
        Err(e) => {
            progress.finish();
            return Err(e);
        }
    };
    if stopped {
        progress.finish();
        return Ok(Outcome::Stopped(position.step));
    }
    progress.note("evaluating");
    progress.finish();
    let began = Instant::now();
    let tasks = Tasks::new(job.label, job.quiet);
    let evaluation = experiment.evaluate(&|done, count| tasks.update(done, count));
    tasks.finish();
    let evaluation = checked(evaluation?)?;
    let summary = Summary {
        version: env!("CARGO_PKG_VERSION").into(),
        steps: position.step,
        parameters: experiment.weights().count(),
        train_seconds: position.seconds,
        eval_seconds: began.elapsed().as_secs_f64(),
        protocol: evaluation.protocol,
        figures: evaluation.figures,
        plots: evaluation.plots,
    };
    for (name, picture) in &evaluation.pictures {
        run.sample(name, position.step, picture)?;
    }
    run.finish(&summary)?;
    Ok(Outcome::Finished(summary))
}

/// The loop. Returns where it ended and whether it was stopped before the end.
fn steps(
    job: &Job<'_>,
    experiment: &mut dyn Experiment,
    run: &mut Run,
    mut position: Position,
    progress: &mut Progress,
) -> Result<(Position, bool)> {
    let Schedule { steps, log_every, sample_every, checkpoint_every } = job.schedule;
    let (began, before) = (Instant::now(), position.seconds);
    let mut saved = Instant::now();
    while position.step < steps {
        let step = position.step + 1;
        let metrics = experiment.step(step)?;
        check(&metrics, step, run)?;
        position.step = step;
        position.seconds = before + began.elapsed().as_secs_f64();
        position.window.add(&metrics);
        let due = |every: u64| step.is_multiple_of(every) || step == steps;
        if due(log_every) {
            run.log(&Line { step, seconds: position.seconds, values: position.window.take_means() })?;
        }
        if due(sample_every) {
            for (name, picture) in experiment.samples()? {
                run.sample(&name, step, &picture)?;
            }
        }
        progress.update(step, &metrics);
        let stop = job.stop.load(Ordering::Relaxed);
        if due(checkpoint_every) || stop || saved.elapsed() >= UNSAVED {
            save(experiment, run, &position)?;
            saved = Instant::now();
        }
        if stop {
            return Ok((position, true));
        }
    }
    Ok((position, false))
}

fn check(metrics: &Metrics, step: u64, run: &Run) -> Result<()> {
    match metrics.not_finite() {
        None => Ok(()),
        Some((name, value)) => {
            Err(Error::Diverged { step, name: name.into(), value, checkpoint: run.last_checkpoint() })
        }
    }
}

/// Saves a checkpoint, unless it would replace a good one by one that is spoilt.
fn save(experiment: &dyn Experiment, run: &mut Run, position: &Position) -> Result<()> {
    let state = experiment.state();
    if let Some((name, _)) = state.iter().find(|(_, tensor)| !tensor.is_finite()) {
        let (name, checkpoint) = (format!("a number in `{name}`"), run.last_checkpoint());
        return Err(Error::Diverged { step: position.step, name, value: f64::NAN, checkpoint });
    }
    run.checkpoint(position, &state, &experiment.weights())
}

fn checked(evaluation: Evaluation) -> Result<Evaluation> {
    let spoilt = |half: f64| !half.is_finite();
    match evaluation.figures.iter().find(|f| spoilt(f.value) || f.ci95.is_some_and(spoilt)) {
        None => Ok(evaluation),
        Some(f) => {
            Err(Error::Refused(format!("the evaluation gave {} for {}, which is not a number", f.shown(), f.label)))
        }
    }
}
