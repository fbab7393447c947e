//! A pass with fewer steps: what only one other step, or one sum, reads is computed there, where it stays in a register and is neither stored nor loaded.
//!
//! Until then each value has a place of its own; afterwards temporaries share them.

use std::collections::HashMap;

use metaforge_kernels::fused::{Factor, Place, Step, StepOp, Sum};

use crate::prim::Binary;

/// Puts steps into others, and into sums, as far as there are kernels for it. No bit changes.
pub(super) fn merge(steps: &mut Vec<Step>, sums: &mut [Sum]) {
    while (0..steps.len()).any(|at| pool(steps, at) || join(steps, sums, at)) {}
    for at in 0..sums.len() {
        while multiply(steps, sums, at) {}
    }
}

/// The maximum together with its index, if step `at` picks it.
fn pool(steps: &mut Vec<Step>, at: usize) -> bool {
    let (StepOp::PoolGather, [x, indices]) = (steps[at].op, &steps[at].args[..]) else { return false };
    let is_first = |step: &Step| step.op == StepOp::PoolIndices && step.out == *indices && step.args == [*x];
    let Some(first) = steps.iter().position(is_first) else { return false };
    let gather = steps.remove(at);
    let indices = steps[first].out;
    steps[first] = Step { op: StepOp::PoolMax { indices }, out: gather.out, ..steps[first].clone() };
    true
}

/// Step `at` and one whose result it alone reads as one step, if there is one for both.
fn join(steps: &mut Vec<Step>, sums: &[Sum], at: usize) -> bool {
    let step = &steps[at];
    for (i, &arg) in step.args.iter().enumerate() {
        let Some(first) = read_once(steps, sums, arg).filter(|&first| can_wait(steps, first, at)) else { continue };
        let inner = &steps[first];
        let others: Vec<Place> = step.args.iter().enumerate().filter(|&(k, _)| k != i).map(|(_, &arg)| arg).collect();
        let (op, args) = match (step.op, inner.op, i) {
            (StepOp::Binary(Binary::Add), StepOp::Binary(Binary::Mul), _) => {
                (StepOp::MulAdd, [&inner.args[..], &others].concat())
            }
            (StepOp::MulAdd, StepOp::Normalize, 0 | 1) => {
                (StepOp::NormalizeMulAdd, [&inner.args[..], &others].concat())
            }
            (StepOp::NormalizeGrad, StepOp::Normalize, 0) => {
                let (x, g) = (inner.args[0], others[0]);
                (StepOp::NormalizeThenGrad, [&[x, g], &inner.args[1..], &others[1..]].concat())
            }
            _ => continue,
        };
        if inner.pooled == step.pooled {
            steps[at] = Step { op, args, ..step.clone() };
            steps.remove(first);
            return true;
        }
    }
    false
}

/// What sum `at` alone reads as a factor of it, if it is a product, or a normalised value.
fn multiply(steps: &mut Vec<Step>, sums: &mut [Sum], at: usize) -> bool {
    let is_value = |place: Place| !matches!(place, Place::Param(_));
    let sum = sums[at];
    let by_first = match sum.times {
        Factor::One => read_once(steps, sums, sum.of).map(|step| (step, sum.of)),
        Factor::Value(x) => [x, sum.of].into_iter().find_map(|of| {
            let step = read_once(steps, sums, of)?;
            (steps[step].op == StepOp::Normalize).then_some((step, of))
        }),
        Factor::Normalized(_) => None,
    };
    let Some((first, read)) = by_first else { return false };
    let (of, times) = match (steps[first].op, &steps[first].args[..], sum.times) {
        (StepOp::Binary(Binary::Mul), &[a, b], Factor::One) if is_value(a) && is_value(b) => (a, Factor::Value(b)),
        (StepOp::Normalize, &[x, mean, rstd], Factor::Value(other))
            if is_value(x) && !is_value(mean) && !is_value(rstd) =>
        {
            (if read == other { sum.of } else { other }, Factor::Normalized([x, mean, rstd]))
        }
        _ => return false,
    };
    steps.remove(first);
    sums[at] = Sum { of, times, ..sum };
    true
}

/// The step that writes a temporary which is read just once.
fn read_once(steps: &[Step], sums: &[Sum], place: Place) -> Option<usize> {
    let by_steps = steps.iter().flat_map(|step| &step.args).filter(|&&arg| arg == place).count();
    let by_sums = sums.iter().flat_map(Sum::values).filter(|&value| value == place).count();
    let is_temporary = matches!(place, Place::Temp(_));
    (is_temporary && by_steps + by_sums == 1).then(|| steps.iter().position(|step| step.out == place))?
}

/// Whether step `first` may as well be computed at step `at`, with no temporary that lives longer for it.
fn can_wait(steps: &[Step], first: usize, at: usize) -> bool {
    first + 1 == at || !steps[first].args.iter().any(|arg| matches!(arg, Place::Temp(_)))
}

/// Gives a temporary that is read no more to the next value; those that are summed stay until all steps are done.
pub(super) fn share_temporaries(steps: &mut [Step], sums: &mut [Sum]) {
    let is_summed = |place: Place| sums.iter().flat_map(Sum::values).any(|value| value == place);
    let mut last_read: HashMap<Place, usize> = HashMap::new();
    for (i, step) in steps.iter().enumerate() {
        last_read.extend(step.args.iter().map(|&arg| (arg, i)));
    }
    let (mut places, mut free, mut len): (HashMap<Place, Place>, Vec<Place>, usize) = (HashMap::new(), vec![], 0);
    for (i, step) in steps.iter_mut().enumerate() {
        let read: Vec<Place> = step.args.clone();
        for arg in &mut step.args {
            *arg = places.get(arg).copied().unwrap_or(*arg);
        }
        let mut own = |place: &mut Place| {
            if matches!(place, Place::Temp(_)) {
                let reused = if is_summed(*place) { None } else { free.pop() };
                let new = reused.unwrap_or_else(|| {
                    len += 1;
                    Place::Temp(len - 1)
                });
                places.insert(*place, new);
                *place = new;
            }
        };
        // Indices that nobody reads are given back as soon as they are written.
        let mut unread = None;
        if let StepOp::PoolMax { indices } = &mut step.op {
            unread = (!last_read.contains_key(indices)).then_some(*indices);
            own(indices);
        }
        own(&mut step.out);
        free.extend(unread.and_then(|place| places.remove(&place)));
        for place in read {
            if last_read[&place] == i && !is_summed(place) {
                free.extend(places.remove(&place));
            }
        }
    }
    let own = |place: &mut Place| *place = places.get(place).copied().unwrap_or(*place);
    for sum in sums {
        own(&mut sum.of);
        match &mut sum.times {
            Factor::One => {}
            Factor::Value(x) | Factor::Normalized([x, ..]) => own(x),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Place::{Input, Output, Param, Temp};

    const MUL: StepOp = StepOp::Binary(Binary::Mul);
    const ADD: StepOp = StepOp::Binary(Binary::Add);

    fn step(op: StepOp, args: &[Place], out: Place) -> Step {
        Step { op, args: args.to_vec(), out, pooled: false }
    }

    fn sum(of: Place, into: usize) -> Sum {
        Sum { of, times: Factor::One, into, pooled: false }
    }

    /// What becomes of the steps and the sums: names of steps, and the sums.
    fn merged(mut steps: Vec<Step>, mut sums: Vec<Sum>) -> (Vec<StepOp>, Vec<Sum>) {
        merge(&mut steps, &mut sums);
        share_temporaries(&mut steps, &mut sums);
        (steps.into_iter().map(|step| step.op).collect(), sums)
    }

    #[test]
    fn a_product_goes_into_the_sum_that_alone_reads_it() {
        let normalize = step(StepOp::Normalize, &[Input(0), Param(0), Param(1)], Temp(0));
        let multiply = |out| step(MUL, &[Temp(0), Input(1)], out);
        let (steps, sums) = merged(vec![normalize.clone(), multiply(Temp(1))], vec![sum(Temp(1), 0)]);
        let times = Factor::Normalized([Input(0), Param(0), Param(1)]);
        assert_eq!((steps, sums), (vec![], vec![Sum { of: Input(1), times, ..sum(Input(1), 0) }]));
        // Not if it is a result too, or if the normalised value is read elsewhere.
        let (steps, _) = merged(vec![normalize.clone(), multiply(Output(1))], vec![sum(Output(1), 0)]);
        assert_eq!(steps, [StepOp::Normalize, MUL]);
        let (steps, sums) = merged(vec![normalize, multiply(Temp(1))], vec![sum(Temp(1), 0), sum(Temp(0), 1)]);
        assert_eq!(steps, [StepOp::Normalize]);
        assert_eq!(sums[0].times, Factor::Value(Input(1)));
        // A square is a product of a value with itself; a product with a column is none of two values.
        let square = vec![step(ADD, &[Input(0), Input(1)], Temp(0)), step(MUL, &[Temp(0), Temp(0)], Temp(1))];
        let (steps, sums) = merged(square, vec![sum(Temp(1), 0)]);
        assert_eq!((steps, sums[0].times), (vec![ADD], Factor::Value(sums[0].of)));
        let (steps, _) = merged(vec![step(MUL, &[Input(0), Param(0)], Temp(0))], vec![sum(Temp(0), 0)]);
        assert_eq!(steps, [MUL]);
    }

    #[test]
    fn a_step_waits_only_if_no_temporary_lives_longer_for_it() {
        let first = step(ADD, &[Input(0), Input(1)], Temp(0));
        let between = step(ADD, &[Input(0), Param(0)], Output(0));
        let last = step(ADD, &[Temp(1), Input(1)], Output(1));
        let product = |a| step(MUL, &[a, Param(0)], Temp(1));
        let (steps, _) = merged(vec![product(Input(0)), between.clone(), last.clone()], vec![]);
        assert_eq!(steps, [ADD, StepOp::MulAdd]);
        let (steps, _) = merged(vec![first.clone(), product(Temp(0)), between, last.clone()], vec![]);
        assert_eq!(steps, [ADD, MUL, ADD, ADD]);
        let (steps, _) = merged(vec![first, product(Temp(0)), last], vec![]);
        assert_eq!(steps, [ADD, StepOp::MulAdd]);
        // Twice the same product is no product and a sum.
        let (steps, _) = merged(vec![product(Input(0)), step(ADD, &[Temp(1), Temp(1)], Output(0))], vec![]);
        assert_eq!(steps, [MUL, ADD]);
    }

    #[test]
    fn a_maximum_comes_with_its_index() {
        let indices = step(StepOp::PoolIndices, &[Input(0)], Temp(0));
        let gather = |x, out| step(StepOp::PoolGather, &[x, Temp(0)], out);
        let (steps, _) =
            merged(vec![indices.clone(), gather(Input(1), Output(0)), gather(Input(0), Output(1))], vec![]);
        assert_eq!(steps, [StepOp::PoolMax { indices: Temp(0) }, StepOp::PoolGather]);
        let (steps, _) = merged(vec![indices, gather(Input(1), Output(0))], vec![]);
        assert_eq!(steps, [StepOp::PoolIndices, StepOp::PoolGather]);
    }
}
