//! The outer step: mean over the tasks, clipping and the optimiser, compiled as one program.

use metaforge_autodiff::{Aval, DType, Par, Program, Tensor, Var, Workspace};
use metaforge_nn::clip::{clip_by_global_norm, clip_by_value, global_norm};
use metaforge_nn::{Optimizer, Params};

use crate::Clip;

/// The optimiser's program and its state.
pub(crate) struct Update {
    program: Program,
    workspace: Workspace,
    pub(crate) state: Params,
    /// Memory for the parameters and the state after the next step: those of the step before the last.
    next: Option<[Params; 2]>,
}

impl Update {
    /// For parameters of these shapes and the sum of the gradients of `tasks` tasks.
    pub(crate) fn new(optimizer: &dyn Optimizer, params: &[Aval], tasks: usize, clip: Option<Clip>) -> Update {
        let state = optimizer.init(params);
        let scalar = Aval::new([], DType::F32);
        let inputs: Vec<Aval> = params.iter().chain(params).copied().chain(state.avals()).chain([scalar]).collect();
        let n = params.len();
        let program = Program::trace(&inputs, |_, x| {
            let (weights, rest) = x.split_at(n);
            let (sums, rest) = rest.split_at(n);
            let (state, lr) = rest.split_at(rest.len() - 1);
            let mean: Vec<Var<'_>> = sums.iter().map(|&g| g / tasks as f64).collect();
            let gradient = match clip {
                None => mean.clone(),
                Some(Clip::Norm(max)) => clip_by_global_norm(&mean, max),
                Some(Clip::Value(max)) => clip_by_value(&mean, max),
            };
            let (weights, state) = optimizer.update(weights, &gradient, state, lr[0]);
            let norm = global_norm(&mean);
            weights.into_iter().chain(state).chain([norm]).collect()
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
    /// If that norm, a new parameter or a number of the optimiser is not finite: what it is, and its value. Nothing is changed
    /// then.
    pub(crate) fn step(&mut self, params: &mut Params, sums: &[Tensor], lr: f64) -> Result<f64, (String, f64)> {
        let lr = Tensor::scalar(lr as f32);
        let inputs: Vec<&Tensor> =
            params.tensors().iter().chain(sums).chain(self.state.tensors()).chain([&lr]).collect();
        let [mut new, mut state] = self.next.take().unwrap_or_else(|| [params.clone(), self.state.clone()]);
        let mut results: Vec<&mut Tensor> = new.tensors_mut().chain(state.tensors_mut()).collect();
        self.program.run_into(&mut self.workspace, &inputs, &mut results, Par::Rayon);
        let norm = self.program.output(&self.workspace, params.len() + self.state.len()).item();
        if !norm.is_finite() {
            return Err(("the norm of the gradient".into(), norm));
        }
        for (whose, part) in [("parameter", &new), ("the optimiser's", &state)] {
            if let Some((name, value)) = part.not_finite() {
                return Err((format!("a number of {whose} `{name}`"), value));
            }
        }
        self.next = Some([std::mem::replace(params, new), std::mem::replace(&mut self.state, state)]);
        Ok(norm)
    }
}
