//! A program against the tape that it was traced from, bit for bit: for the tests of the stages.

use super::Program;
use crate::{Par, Tape, Tensor, Var};

/// Asserts that the program of `f` gives what `f` gives eagerly, on any number of threads and into tensors.
#[track_caller]
pub(super) fn assert_same_as_eager(
    program: &Program,
    inputs: &[Tensor],
    f: impl for<'t> Fn(&[Var<'t>]) -> Vec<Var<'t>>,
) {
    let tape = Tape::eager();
    let vars: Vec<Var<'_>> = inputs.iter().map(|x| tape.var(x)).collect();
    let eager: Vec<Tensor> = f(&vars).iter().map(|y| y.value()).collect();
    let inputs: Vec<&Tensor> = inputs.iter().collect();
    for threads in [1, 2, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let mut workspace = program.workspace();
        pool.install(|| program.run(&mut workspace, &inputs, Par::Rayon));
        for (i, eager) in eager.iter().enumerate() {
            let run = program.output(&workspace, i).to_tensor();
            assert!(run.bytes() == eager.bytes(), "result {i} on {threads} threads\n{program}");
        }
    }
    let mut into: Vec<Tensor> = eager.iter().map(|y| Tensor::zeros(y.shape(), y.aval().dtype)).collect();
    let mut workspace = program.workspace();
    program.run_into(&mut workspace, &inputs, &mut into.iter_mut().collect::<Vec<_>>(), Par::Seq);
    assert!(into.iter().zip(&eager).all(|(a, b)| a.bytes() == b.bytes()), "into tensors\n{program}");
}
