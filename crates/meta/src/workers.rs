//! A program with its workspaces, lent to whichever thread runs it: one thread for each task of a batch.

use std::sync::{Mutex, PoisonError};

use metaforge_autodiff::{Par, Program, Tensor, Workspace};

/// A program that many threads run at once. Which of them a task falls to changes nothing.
pub(crate) struct Workers {
    pub(crate) program: Program,
    free: Mutex<Vec<Workspace>>,
}

impl Workers {
    pub(crate) fn new(program: Program) -> Workers {
        Workers { program, free: Mutex::default() }
    }

    /// Runs the program and reads its results. Makes a workspace only if all are lent out.
    pub(crate) fn run<R>(&self, inputs: &[&Tensor], par: Par, read: impl FnOnce(&Program, &Workspace) -> R) -> R {
        let free = || self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let lent = free().pop();
        let mut workspace = lent.unwrap_or_else(|| self.program.workspace());
        self.program.run(&mut workspace, inputs, par);
        let result = read(&self.program, &workspace);
        free().push(workspace);
        result
    }
}

/// How kernels run when `tasks` run side by side: sequentially, unless threads are left over. The bits are the same.
pub(crate) fn par(tasks: usize) -> Par {
    if tasks < rayon::current_num_threads() { Par::Rayon } else { Par::Seq }
}
