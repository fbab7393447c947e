//! Tasks of a meta-batch that are played together, by one program: each by itself, unless they are so small that a program spends
//! more time between its instructions than in them; then several are mapped over at once.

use std::ops::Range;

use metaforge_autodiff::{Arg, Aval, Key, Mapped, Par, Pool, Program, Tensor, Var, Workspace, vmap};
use metaforge_nn::Params;

use crate::{EpisodeLearner, Task, TaskShape, TaskVars};

/// Arithmetic operations of an instruction, those of products and convolutions, below which tasks are grouped, on average. A core does them in the
/// time, some 200 ns, that an instruction takes beside its arithmetic.
const SMALL: u64 = 1 << 16;
/// Tasks of a group, at most. An instruction begins once for all of them; but there are to be groups for some threads.
const LARGEST: usize = 16;
/// Bytes of a group's workspace, at most: values are to stay in the second-level cache, or not far from it.
const CACHE: usize = 2 << 20;

/// How the tasks of a meta-batch are grouped. It depends on the tasks alone, never on the number of threads, which would show in the last
/// bits of their sum; where there are more threads than groups, the kernels of a group may use them.
pub(crate) struct Groups {
    ranges: Vec<Range<usize>>,
    /// A program for a task alone, and one for each size of a group.
    pools: Vec<(usize, Pool)>,
}

/// What the tasks of a group gave, the results of its program.
#[derive(Debug)]
pub(crate) struct GroupResult {
    values: Vec<Tensor>,
}

impl Groups {
    pub(crate) fn new(
        learner: &dyn EpisodeLearner,
        params: &Params,
        state: &Params,
        shape: &TaskShape,
        meta_batch: usize,
    ) -> Groups {
        let of = |tasks: usize| Pool::new(program(learner, params, state, shape, tasks));
        let single = of(1);
        let (alone, flops) = (single.program().len(), single.program().flops());
        let mut pools = vec![(1, single)];
        // A power of two of groups of nearly one size, two at least, for the threads.
        let mut count = meta_batch.div_ceil(LARGEST).next_power_of_two().max(2);
        let is_small = flops < SMALL * alone as u64;
        while count < meta_batch && is_small {
            let ranges = split(meta_batch, count);
            let several = of(ranges[0].len());
            let program = several.program();
            if program.len() > 2 * alone {
                // What cannot be mapped over is recorded for each task, and nothing is saved.
                break;
            }
            if program.workspace_bytes() <= CACHE {
                pools.push((ranges[0].len(), several));
                let last = ranges[count - 1].len();
                if pools.iter().all(|(size, _)| *size != last) {
                    pools.push((last, of(last)));
                }
                return Groups { ranges, pools };
            }
            count *= 2;
        }
        Groups { ranges: split(meta_batch, meta_batch), pools }
    }

    /// The tasks of each group, by their place in the meta-batch.
    pub(crate) fn ranges(&self) -> &[Range<usize>] {
        &self.ranges
    }

    /// The program that plays so many tasks.
    pub(crate) fn pool(&self, tasks: usize) -> &Pool {
        let pool = self.pools.iter().find(|(size, _)| *size == tasks);
        &pool.expect("a program for each size of a group").1
    }
}

/// `0..n` in `count` ranges whose lengths differ by one at most, the longer ones first.
fn split(n: usize, count: usize) -> Vec<Range<usize>> {
    let at = |i: usize| i * (n / count) + i.min(n % count);
    (0..count).map(|i| at(i)..at(i + 1)).collect()
}

/// A program for `tasks` tasks. Inputs: parameters, state, the four tensors of a task, a key `u32[2]`; with several tasks the last five have a
/// first axis more. Outputs: loss and metric (of each task), a gradient for every parameter, the new state (of all tasks their sum).
fn program(learner: &dyn EpisodeLearner, params: &Params, state: &Params, shape: &TaskShape, tasks: usize) -> Program {
    let fixed = params.len() + state.len();
    let several = |aval: Aval| match tasks {
        1 => aval,
        _ => Aval { shape: [&[tasks], &aval.shape[..]].concat().into(), ..aval },
    };
    let inputs: Vec<_> =
        params.avals().into_iter().chain(state.avals()).chain(shape.inputs().into_iter().map(several)).collect();
    Program::trace(&inputs, |_, x| {
        if tasks == 1 {
            return play(learner, x, params.len(), state.len(), shape.ways);
        }
        let (shared, each) = x.split_at(fixed);
        let args: Vec<Arg<'_>> =
            shared.iter().map(|&x| Arg::Shared(x)).chain(each.iter().map(|&x| Arg::Each(x))).collect();
        let results = vmap(&args, |_, x| play(learner, x, params.len(), state.len(), shape.ways));
        let (each, all) = results.split_at(2);
        each.iter().map(Mapped::stacked).chain(all.iter().map(Mapped::sum)).collect()
    })
}

fn play<'t>(learner: &dyn EpisodeLearner, x: &[Var<'t>], params: usize, state: usize, ways: usize) -> Vec<Var<'t>> {
    let (meta, rest) = x.split_at(params);
    let (state, task) = rest.split_at(state);
    let (played, gradient) = learner.meta_gradient(meta, state, &TaskVars::from_inputs(task, ways));
    [played.loss, played.metric].into_iter().chain(gradient).chain(played.state).collect()
}

/// The inputs of several tasks: their tensors side by side, and so their keys.
pub(crate) fn stacked(tasks: &[Task], keys: impl Iterator<Item = Key>) -> Vec<Tensor> {
    let field = |i: usize| -> Vec<&Tensor> { tasks.iter().map(|task| task.tensors()[i]).collect() };
    let keys = Tensor::from_u32([tasks.len(), 2], keys.flat_map(Key::words).collect());
    (0..4).map(|i| Tensor::stack(&field(i))).chain([keys]).collect()
}

impl GroupResult {
    /// Room for the results of this program.
    pub(crate) fn new(program: &Program) -> GroupResult {
        GroupResult {
            values: program.outputs().into_iter().map(|aval| Tensor::zeros(aval.shape, aval.dtype)).collect(),
        }
    }

    /// Plays the tasks.
    pub(crate) fn play(&mut self, program: &Program, workspace: &mut Workspace, inputs: &[&Tensor], par: Par) {
        let mut results: Vec<&mut Tensor> = self.values.iter_mut().collect();
        program.run_into(workspace, inputs, &mut results, par);
    }

    /// The loss of each task.
    pub(crate) fn losses(&self) -> &[f32] {
        self.values[0].f32s()
    }

    /// The metric of each task.
    pub(crate) fn metrics(&self) -> &[f32] {
        self.values[1].f32s()
    }

    /// Sums over the tasks: the gradient of every parameter, then the new state.
    pub(crate) fn sums(&self) -> &[Tensor] {
        &self.values[2..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meta_batch_falls_into_nearly_equal_groups() {
        assert_eq!(split(25, 4), [0..7, 7..13, 13..19, 19..25]);
        assert_eq!(split(3, 3), [0..1, 1..2, 2..3]);
        assert_eq!(split(16, 2), [0..8, 8..16]);
    }
}
