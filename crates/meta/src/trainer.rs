//! Training across tasks: a meta-batch spread over the cores, its gradients added in a fixed order, one outer step.

use std::sync::Arc;
use std::time::Duration;

use metaforge_autodiff::{DType, Key, Par, Program, Tensor, attended};
use metaforge_nn::{Optimizer, Params, Schedule};
use rayon::prelude::*;

use crate::group::{GroupResult, Groups, stacked};
use crate::update::Update;
use crate::{EpisodeLearner, Error, Evaluation, Statistics, Task, TaskShape, Tasks, evaluate};

/// How the mean gradient of a meta-batch is held in bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Clip {
    /// Scaled so that the norm of all of it is at most this.
    Norm(f64),
    /// Every number between minus this and this.
    Value(f64),
}

/// Settings of a training.
#[derive(Clone, Debug)]
pub struct TrainConfig {
    /// Tasks of a step; their gradients are averaged.
    pub meta_batch: usize,
    /// The outer learning rate.
    pub schedule: Schedule,
    /// Bounds on the mean gradient.
    pub clip: Option<Clip>,
    /// Seed of the initial parameters and of what is random within a play.
    pub seed: u64,
}

impl TrainConfig {
    /// A constant rate, no clipping, seed 0.
    pub fn new(meta_batch: usize, lr: f64) -> TrainConfig {
        TrainConfig { meta_batch, schedule: Schedule::Constant(lr), clip: None, seed: 0 }
    }
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// Which step it was, counted from 1.
    pub step: u64,
    /// Mean query loss of the meta-batch, before the step.
    pub loss: f64,
    /// Mean metric of the meta-batch, before the step.
    pub metric: f64,
    /// Norm of the mean gradient, before clipping.
    pub grad_norm: f64,
    /// The outer learning rate.
    pub lr: f64,
}

/// Trains an [`EpisodeLearner`]. The result depends on learner, tasks, optimiser and configuration alone: not on the number of
/// threads, nor on whether training was interrupted ([`MetaTrainer::state`], [`MetaTrainer::restore`]).
pub struct MetaTrainer {
    learner: Arc<dyn EpisodeLearner>,
    tasks: Arc<dyn Tasks>,
    config: TrainConfig,
    params: Params,
    state: Params,
    step: u64,
    shape: TaskShape,
    groups: Groups,
    update: Update,
    results: Vec<GroupResult>,
    /// The tasks of the next step, drawn while this one was computed, and the number of the first.
    next: Option<(u64, Vec<Task>)>,
    /// Empty: room for those of the step after.
    spare: Vec<Task>,
}

/// The stream of a seed that plays draw from, far from those of the initial parameters.
const PLAY: u64 = 1 << 32;

impl MetaTrainer {
    /// Compiles the programs; the shape of all tasks is that of the first.
    ///
    /// # Errors
    /// If the meta-batch is empty, a parameter or state is not of `f32`, or the learner does not fit the tasks.
    pub fn new(
        learner: Arc<dyn EpisodeLearner>,
        tasks: Arc<dyn Tasks>,
        optimizer: Box<dyn Optimizer>,
        config: TrainConfig,
    ) -> Result<MetaTrainer, Error> {
        if config.meta_batch == 0 {
            return Err(Error::Setting("a meta-batch has at least one task".into()));
        }
        let (params, state) = (learner.init(Key::new(config.seed)), learner.init_state());
        if let Some(other) = params.avals().iter().chain(&state.avals()).find(|a| a.dtype != DType::F32) {
            return Err(Error::Setting(format!("training works in f32, but a parameter is {other}")));
        }
        let shape = tasks.task(0).shape();
        learner.accepts(&shape).map_err(Error::Setting)?;
        let groups = Groups::new(learner.as_ref(), &params, &state, &shape, config.meta_batch);
        let avals = [&params.avals()[..], &state.avals()];
        let update = Update::new(optimizer.as_ref(), avals, groups.ranges().len(), config.meta_batch, config.clip);
        let results =
            groups.ranges().iter().map(|range| GroupResult::new(groups.pool(range.len()).program())).collect();
        Ok(MetaTrainer {
            learner,
            tasks,
            config,
            params,
            state,
            step: 0,
            shape,
            groups,
            update,
            results,
            next: None,
            spare: Vec::new(),
        })
    }

    /// Plays the next meta-batch and takes one outer step; the tasks of the one after it are drawn meanwhile.
    ///
    /// # Errors
    /// If a task has another shape than the first, or a loss, the gradient, or a number of the new parameters, of the learner's state
    /// or of the optimiser's is not finite. All of these are then as before.
    pub fn step(&mut self) -> Result<StepReport, Error> {
        let number = self.step + 1;
        let batch = self.config.meta_batch as u64;
        let first = self.step * batch;
        let (mut next, mut results) = (std::mem::take(&mut self.spare), std::mem::take(&mut self.results));
        let mut current = match self.next.take() {
            Some((at, drawn)) if at == first => drawn,
            _ => draw(self.tasks.as_ref(), first, batch),
        };
        let this = &*self;
        // Games and update are short if tasks are small, and a thread that falls asleep in one is missed in the other.
        let (played, ()) = attended(Par::Rayon, || {
            rayon::join(
                || this.play(first, &current, &mut results),
                || draw_into(&mut next, this.tasks.as_ref(), first + batch, batch),
            )
        });
        self.results = results;
        current.clear();
        (self.next, self.spare) = (Some((first + batch, next)), current);
        played?;
        self.check_losses(number, first)?;

        let lr = self.config.schedule.at(self.step);
        let step = attended(Par::Rayon, || self.update.step(&mut self.params, &mut self.state, &self.results, lr));
        let grad_norm = step.map_err(|(what, value)| Error::Diverged { step: number, what, value })?;
        self.step = number;
        let mean = |f: fn(&GroupResult) -> &[f32]| {
            self.results.iter().flat_map(f).map(|&x| f64::from(x)).sum::<f64>() / batch as f64
        };
        Ok(StepReport {
            step: number,
            loss: mean(GroupResult::losses),
            metric: mean(GroupResult::metrics),
            grad_norm,
            lr,
        })
    }

    /// A group of tasks a worker; what they give goes into `results`, each at its place.
    fn play(&self, first: u64, tasks: &[Task], results: &mut [GroupResult]) -> Result<(), Error> {
        let par = par(results.len());
        let jobs = results.par_iter_mut().zip(self.groups.ranges()).with_max_len(1);
        jobs.try_for_each(|(result, range)| {
            for (task, number) in tasks[range.clone()].iter().zip(first + range.start as u64..) {
                if task.shape() != self.shape {
                    let (found, expected) = (Box::new(task.shape()), Box::new(self.shape.clone()));
                    return Err(Error::TaskShape { task: number, found, expected });
                }
            }
            self.with_inputs(first + range.start as u64, &tasks[range.clone()], |inputs| {
                self.groups.pool(range.len()).with(|program, workspace| result.play(program, workspace, inputs, par));
            });
            Ok(())
        })
    }

    /// Calls `f` with the inputs of the program that plays these tasks, of which the first has this number.
    fn with_inputs<R>(&self, first: u64, tasks: &[Task], f: impl FnOnce(&[&Tensor]) -> R) -> R {
        let fixed = self.params.tensors().iter().chain(self.state.tensors());
        match tasks {
            [task] => f(&fixed.chain(task.tensors()).chain([&self.key(first).tensor()]).collect::<Vec<_>>()),
            _ => {
                let keys = (first..).take(tasks.len()).map(|number| self.key(number));
                f(&fixed.chain(&stacked(tasks, keys)).collect::<Vec<_>>())
            }
        }
    }

    fn key(&self, task: u64) -> Key {
        Key::new(self.config.seed).fold(PLAY).fold(task)
    }

    fn check_losses(&self, step: u64, first: u64) -> Result<(), Error> {
        match self.results.iter().flat_map(GroupResult::losses).enumerate().find(|(_, loss)| !loss.is_finite()) {
            None => Ok(()),
            Some((i, &loss)) => {
                let what = format!("the loss of task {}", first + i as u64);
                Err(Error::Diverged { step, what, value: loss.into() })
            }
        }
    }

    /// The learner.
    pub fn learner(&self) -> &dyn EpisodeLearner {
        self.learner.as_ref()
    }

    /// What is learned across tasks.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The learner's state, such as running statistics.
    pub fn learner_state(&self) -> &Params {
        &self.state
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// Bytes that training takes, about: what the programs work in on as many threads as there are now, the parameters and the optimiser's numbers
    /// before and after a step, and the gradients of the meta-batch.
    pub fn memory_bytes(&self) -> usize {
        let ranges = self.groups.ranges();
        let largest = ranges.iter().map(|range| self.groups.pool(range.len()).program().workspace_bytes()).max();
        let programs =
            largest.unwrap_or(0) * ranges.len().min(rayon::current_num_threads()) + self.update.workspace_bytes();
        // The sums of each group; everything that a step changes twice.
        let numbers = self.params.count() + self.state.count();
        programs + size_of::<f32>() * (numbers * ranges.len() + 2 * (numbers + self.update.state.count()))
    }

    /// The program of one task. Inputs: parameters, state, the four tensors of a task, a key `u32[2]`; outputs: loss, metric, a
    /// gradient for every parameter, the new state. Small tasks are not trained on by it but several at once, by programs of their own
    /// (see [`vmap`](metaforge_autodiff::vmap)).
    pub fn program(&self) -> &Program {
        self.groups.pool(1).program()
    }

    /// Runs the program of the tasks that are played together, the first of a step, once: how many tasks these are, and what each instruction
    /// took, on as many threads as a step gives them.
    pub fn profile(&self) -> (usize, Vec<(String, Duration)>) {
        let range = self.groups.ranges()[0].clone();
        let first = self.step * self.config.meta_batch as u64;
        let tasks = draw(self.tasks.as_ref(), first, range.len() as u64);
        let told = self.with_inputs(first, &tasks, |inputs| {
            self.groups.pool(range.len()).with(|program, workspace| {
                let par = par(self.groups.ranges().len());
                program.run(workspace, inputs, par);
                program.run_timed(workspace, inputs, par)
            })
        });
        (range.len(), told)
    }

    /// Evaluates the present parameters on the first `count` tasks of a source, which may have another shape than those trained on.
    ///
    /// # Errors
    /// As [`crate::Evaluator::run`].
    pub fn evaluate(&self, tasks: &dyn Tasks, count: u64, statistics: Statistics) -> Result<Evaluation, Error> {
        evaluate(self.learner(), &self.params, &self.state, tasks, 0..count, statistics)
    }

    /// Everything that the training needs to go on to the same bits: `params.*`, `learner.*`, `optimizer.*` and `step`.
    pub fn state(&self) -> Params {
        let mut all = self.params.prefixed("params");
        all.extend(self.state.prefixed("learner"));
        all.extend(self.update.state.prefixed("optimizer"));
        all.push("step", Tensor::from_u32([2], vec![self.step as u32, (self.step >> 32) as u32]));
        all
    }

    /// What evaluation needs of that: the parameters and the learner's state, by their own names.
    pub fn weights(&self) -> Params {
        let mut all = self.params.clone();
        all.extend(self.state.clone());
        all
    }

    /// Takes what [`MetaTrainer::weights`] gave, in any order. The optimiser and the count of steps stay as they are: this is for
    /// evaluation, not to go on from.
    ///
    /// # Errors
    /// Like [`MetaTrainer::restore`].
    pub fn restore_weights(&mut self, saved: &Params) -> Result<(), Error> {
        let named = saved.prefixed("weights");
        let part = |like| named.part("weights", like).map_err(|e| Error::State(e.to_string()));
        let (params, state) = (part(&self.params)?, part(&self.state)?);
        let expected = params.len() + state.len();
        if saved.len() != expected {
            return Err(Error::State(format!("there are {} tensors, not {expected}", saved.len())));
        }
        (self.params, self.state) = (params, state);
        self.next = None;
        Ok(())
    }

    /// Takes what [`MetaTrainer::state`] gave, in any order.
    ///
    /// # Errors
    /// If a tensor is missing, of another shape, or one too many. Nothing is changed then.
    pub fn restore(&mut self, saved: &Params) -> Result<(), Error> {
        let part = |prefix, like| saved.part(prefix, like).map_err(|e| Error::State(e.to_string()));
        let params = part("params", &self.params)?;
        let state = part("learner", &self.state)?;
        let optimizer = part("optimizer", &self.update.state)?;
        let expected = params.len() + state.len() + optimizer.len() + 1;
        if saved.len() != expected {
            return Err(Error::State(format!("it has {} tensors, not {expected}", saved.len())));
        }
        let step = match saved.get("step") {
            Some(t) if t.dtype() == DType::U32 && t.len() == 2 => t.u32s(),
            _ => return Err(Error::State("`step` is not two u32 numbers".into())),
        };
        self.step = u64::from(step[0]) | u64::from(step[1]) << 32;
        (self.params, self.state, self.update.state) = (params, state, optimizer);
        self.next = None;
        Ok(())
    }
}

fn draw(tasks: &dyn Tasks, first: u64, count: u64) -> Vec<Task> {
    let mut drawn = Vec::new();
    draw_into(&mut drawn, tasks, first, count);
    drawn
}

fn draw_into(drawn: &mut Vec<Task>, tasks: &dyn Tasks, first: u64, count: u64) {
    (0..count as usize).into_par_iter().map(|i| tasks.task(first + i as u64)).collect_into_vec(drawn);
}

/// How kernels run when so many `tasks`, or groups of them, run side by side: sequentially, unless threads are left over. The bits are the same.
pub(crate) fn par(tasks: usize) -> Par {
    if tasks < rayon::current_num_threads() { Par::Rayon } else { Par::Seq }
}
