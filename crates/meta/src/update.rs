//! The outer step, compiled as one program: sums over the groups, means over the tasks, clipping and the optimiser.

use metaforge_autodiff::{Aval, DType, Par, Program, Tensor, Var, Workspace};
use metaforge_nn::clip::{clip_by_global_norm, clip_by_value, global_norm};
use metaforge_nn::{Optimizer, Params};

use crate::Clip;
use crate::group::GroupResult;

/// The optimiser's program and its state.
pub(crate) struct Update {
    program: Program,
    workspace: Workspace,
    pub(crate) state: Params,
    /// Memory for the parameters, the learner's state and the optimiser's after the next step: those of the step before the last.
    next: Option<[Params; 3]>,
}

impl Update {
    /// For parameters and a learner's state of these shapes, and `tasks` tasks in so many groups.
    pub(crate) fn new(
        optimizer: &dyn Optimizer,
        [params, learner]: [&[Aval]; 2],
        groups: usize,
        tasks: usize,
        clip: Option<Clip>,
    ) -> Update {
        let state = optimizer.init(params);
        let scalar = Aval::new([], DType::F32);
        let sums: Vec<Aval> = params.iter().chain(learner).copied().collect();
        let every_group = (0..groups).flat_map(|_| &sums).copied();
        let inputs: Vec<Aval> =
            params.iter().copied().chain(every_group).chain(state.avals()).chain([scalar]).collect();
        let program = Program::trace(&inputs, |tape, x| {
            let (weights, rest) = x.split_at(params.len());
            let (results, rest) = rest.split_at(groups * sums.len());
            let (state, lr) = rest.split_at(rest.len() - 1);
            // The groups in their order, all sums of one before those of the next.
            let (mut sums, rest) = (results[..sums.len()].to_vec(), &results[sums.len()..]);
            for group in rest.chunks_exact(sums.len()) {
                sums.iter_mut().zip(group).for_each(|(sum, &more)| *sum = *sum + more);
            }
            let (sums, learner) = sums.split_at(params.len());
            let mean: Vec<Var<'_>> = sums.iter().map(|&g| g / tasks as f64).collect();
            let count = tape.scalar(tasks as f64, DType::F32);
            let learner = learner.iter().map(|&s| s / count);
            let gradient = match clip {
                None => mean.clone(),
                Some(Clip::Norm(max)) => clip_by_global_norm(&mean, max),
                Some(Clip::Value(max)) => clip_by_value(&mean, max),
            };
            let (weights, state) = optimizer.update(weights, &gradient, state, lr[0]);
            let norm = global_norm(&mean);
            weights.into_iter().chain(learner).chain(state).chain([norm]).collect()
        });
        let workspace = program.workspace();
        Update { program, workspace, state, next: None }
    }

    /// Bytes of its workspace.
    pub(crate) fn workspace_bytes(&self) -> usize {
        self.program.workspace_bytes()
    }

    /// Takes a step and gives the norm of the mean gradient, before clipping.
    ///
    /// # Errors
    /// If a number of the learner's new state, that norm, a new parameter or a number of the optimiser is not finite: what it is, and its
    /// value. Nothing is changed then.
    pub(crate) fn step(
        &mut self,
        params: &mut Params,
        learner: &mut Params,
        results: &[GroupResult],
        lr: f64,
    ) -> Result<f64, (String, f64)> {
        let lr = Tensor::scalar(lr as f32);
        let sums = results.iter().flat_map(GroupResult::sums);
        let inputs: Vec<&Tensor> =
            params.tensors().iter().chain(sums).chain(self.state.tensors()).chain([&lr]).collect();
        let mut next = self.next.take().unwrap_or_else(|| [&*params, &*learner, &self.state].map(Params::clone));
        let mut places: Vec<&mut Tensor> = next.iter_mut().flat_map(Params::tensors_mut).collect();
        let is_finite = self.program.run_into_finite(&mut self.workspace, &inputs, &mut places, Par::Rayon);
        let norm = self.program.output(&self.workspace, places.len()).item();
        let [new, new_learner, new_state] = next;
        if !(is_finite && norm.is_finite()) {
            let spoilt = not_finite([&new, &new_learner, &new_state], norm);
            return Err(spoilt.expect("a number that is not finite was seen"));
        }
        self.next = Some([
            std::mem::replace(params, new),
            std::mem::replace(learner, new_learner),
            std::mem::replace(&mut self.state, new_state),
        ]);
        Ok(norm)
    }
}

/// What is not finite, and its value.
fn not_finite([params, learner, optimizer]: [&Params; 3], norm: f64) -> Option<(String, f64)> {
    let of = |whose: &str, part: &Params| {
        part.not_finite().map(|(name, value)| (format!("a number of {whose} `{name}`"), value))
    };
    of("the learner's", learner)
        .or_else(|| (!norm.is_finite()).then(|| ("the norm of the gradient".into(), norm)))
        .or_else(|| of("parameter", params))
        .or_else(|| of("the optimiser's", optimizer))
}
