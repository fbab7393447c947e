//! A program with its workspaces, lent to whichever thread runs it: for batches whose members run side by side.

use std::sync::{Mutex, PoisonError};

use crate::program::{Program, Workspace};

/// A program that any number of threads may run at once, each in memory of its own. Which of them a run falls to changes nothing.
pub struct Pool {
    program: Program,
    free: Mutex<Vec<Workspace>>,
}

impl Pool {
    /// A pool without workspaces; they are made as they are needed.
    pub fn new(program: Program) -> Pool {
        Pool { program, free: Mutex::default() }
    }

    /// The program.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Lends the program and a workspace to `f`, usually to run the one in the other and to read the results. Makes a
    /// workspace only if all are lent out.
    pub fn with<R>(&self, f: impl FnOnce(&Program, &mut Workspace) -> R) -> R {
        // A thread that panicked has not put its workspace back, so those that are here are whole.
        let free = || self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let lent = free().pop();
        let mut workspace = lent.unwrap_or_else(|| self.program.workspace());
        let result = f(&self.program, &mut workspace);
        free().push(workspace);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Aval, DType, Par, Tensor};

    #[test]
    fn a_workspace_is_lent_to_one_at_a_time_and_used_again() {
        let pool = Pool::new(Program::trace(&[Aval::new([2], DType::F32)], |_, x| vec![x[0] * 3.0]));
        let triple = |v: f32| {
            let x = Tensor::new([2], vec![v; 2]);
            pool.with(|program, workspace| {
                program.run(workspace, &[&x], Par::Seq);
                // Another run in between does not touch the results of this one.
                if v > 1.0 {
                    pool.with(|program, other| program.run(other, &[&Tensor::new([2], vec![9.0; 2])], Par::Seq));
                }
                program.output(workspace, 0).f32s()[0]
            })
        };
        assert_eq!(triple(1.0), 3.0);
        assert_eq!(pool.free.lock().unwrap().len(), 1);
        assert_eq!(triple(2.0), 6.0);
        assert_eq!(pool.free.lock().unwrap().len(), 2);
        assert_eq!(triple(3.0), 9.0);
        assert_eq!(pool.free.lock().unwrap().len(), 2);
    }
}
