//! Compiled programs: a function traced once into a flat list of instructions over one arena, and run many times.
//!
//! An eager tape and a program call the same kernels in the same order, so their numbers are the same to the bit.

mod beside;
mod feed;
mod finish;
mod flops;
mod follow;
mod fuse;
mod fused;
mod graph;
mod merge;
mod on_demand;
mod optimise;
mod plan;
mod pool;
mod print;
mod role;
mod run;
mod statistics;
#[cfg(test)]
mod testing;

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use metaforge_kernels::{Arena, Par, Span, attended};
use smallvec::SmallVec;

use crate::aval::Aval;
use crate::tape::{Tape, Var};
use crate::tensor::Tensor;
use crate::view::{Slice, View};
use graph::{Graph, OnDemand, Op};

pub use pool::Pool;

/// A function from tensors to tensors, of fixed shapes, ready to run without allocating.
///
/// ```
/// use metaforge_autodiff::{Aval, DType, Program, Tensor, grad};
/// // The second derivative of x^3 is 6x.
/// let program = Program::trace(&[Aval::new([3], DType::F32)], |_, x| {
///     let first = grad((x[0] * x[0] * x[0]).sum(), &[x[0]])[0];
///     grad(first.sum(), &[x[0]])
/// });
/// let y = program.call(&[&Tensor::new([3], vec![1.0, 2.0, 3.0])]);
/// assert_eq!(y[0].f32s(), &[6.0, 12.0, 18.0]);
/// ```
#[derive(Debug)]
pub struct Program {
    inputs: Vec<Aval>,
    consts: Vec<Tensor>,
    values: Vec<Value>,
    on_demand: Vec<OnDemand<Operand>>,
    instrs: Vec<Instr>,
    /// The values that are results, and the shapes that they have as such.
    outputs: Vec<(usize, Aval)>,
    /// Size of the arena in cache lines.
    lines: usize,
    /// Whether its products and convolutions are long enough for other threads to watch for work meanwhile.
    is_large: bool,
}

/// Operations from which on a program is large: about a fourth of a millisecond on one core.
const LARGE: u64 = 1 << 26;

/// From which size on something is worth it.
struct Sizes {
    /// Bytes of a convolution's result that is computed where it is read.
    on_demand: usize,
    /// Elements of the results of passes beside one another.
    beside: usize,
}

/// A value that an instruction computes.
#[derive(Clone, Copy, Debug)]
struct Value {
    aval: Aval,
    span: Span,
    /// The result that it is, if it is nothing else: no instruction reads it, and it is no other result.
    result: Option<usize>,
    /// Whether it is a result that the pass which computes it can watch for numbers that are not finite.
    is_watched: bool,
}

/// One equation with the places of its operands and of its results.
#[derive(Debug)]
struct Instr {
    op: Op,
    ins: SmallVec<[Operand; 3]>,
    outs: SmallVec<[usize; 1]>,
    /// The convolution that one of its operands is.
    on_demand: Option<usize>,
    /// Where the results go.
    spans: SmallVec<[Span; 1]>,
    /// The first operand dies here and its memory becomes the result's.
    in_place: bool,
}

/// Where an operand is read, and as what.
#[derive(Clone, Copy, Debug)]
struct Operand {
    place: Place,
    aval: Aval,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Input(usize),
    Const(usize),
    Value(usize),
    OnDemand(usize),
}

/// Where the first results go, if not into the workspace: each is taken by the instruction that computes it.
type Places<'a> = SmallVec<[Option<&'a mut [u8]>; 32]>;

/// The memory that a program's values live in; made by [`Program::workspace`], one for each thread that runs it.
pub struct Workspace {
    arena: Arena,
    /// Results of the last run that went elsewhere.
    placed: usize,
}

impl Instr {
    /// What it reads from memory.
    fn reads<'a>(&'a self, on_demand: &'a [OnDemand<Operand>]) -> impl Iterator<Item = &'a Operand> {
        let of = self.on_demand.map(|i| &on_demand[i]);
        self.ins.iter().chain(of.into_iter().flat_map(|conv| [&conv.image, &conv.weights]))
    }
}

impl Program {
    /// Traces `f` on inputs of the given shapes and types, and compiles it.
    ///
    /// # Panics
    /// Where `f` does; a traced function cannot look at values.
    #[track_caller]
    pub fn trace<F>(inputs: &[Aval], f: F) -> Program
    where
        F: for<'t> FnOnce(&'t Tape, &[Var<'t>]) -> Vec<Var<'t>>,
    {
        Program::trace_from(inputs, f, Sizes { on_demand: on_demand::LARGE, beside: beside::SHARED })
    }

    /// [`Program::trace`] as if all values were large enough for what is done with large ones alone: for tests.
    #[doc(hidden)]
    #[track_caller]
    pub fn trace_as_if_large<F>(inputs: &[Aval], f: F) -> Program
    where
        F: for<'t> FnOnce(&'t Tape, &[Var<'t>]) -> Vec<Var<'t>>,
    {
        Program::trace_from(inputs, f, Sizes { on_demand: 0, beside: 0 })
    }

    #[track_caller]
    fn trace_from<F>(inputs: &[Aval], f: F, sizes: Sizes) -> Program
    where
        F: for<'t> FnOnce(&'t Tape, &[Var<'t>]) -> Vec<Var<'t>>,
    {
        let tape = Tape::tracing();
        let outputs: Vec<_> = {
            let vars: Vec<Var<'_>> = inputs.iter().enumerate().map(|(i, &aval)| tape.input(i, aval)).collect();
            f(&tape, &vars).iter().map(|y| y.id).collect()
        };
        let (nodes, outputs) = optimise::optimise(tape.into_nodes(), outputs);
        let graph = fuse::fuse(Graph::new(nodes, outputs)).without_barriers();
        let graph = follow::follow(on_demand::on_demand(feed::feed(graph), sizes.on_demand));
        let graph = finish::finish(statistics::with_convolutions(graph));
        let graph = beside::beside(graph, sizes.beside);
        plan::plan(inputs.to_vec(), graph)
    }

    /// Shapes and types of the inputs.
    pub fn inputs(&self) -> &[Aval] {
        &self.inputs
    }

    /// Shapes and types of the results.
    pub fn outputs(&self) -> Vec<Aval> {
        self.outputs.iter().map(|&(_, aval)| aval).collect()
    }

    /// Number of instructions.
    pub fn len(&self) -> usize {
        self.instrs.len()
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.instrs.is_empty()
    }

    /// Bytes of a workspace.
    pub fn workspace_bytes(&self) -> usize {
        self.lines * metaforge_kernels::LINE
    }

    /// Memory to run in.
    pub fn workspace(&self) -> Workspace {
        Workspace { arena: Arena::new(self.lines), placed: 0 }
    }

    /// Runs the program; the results are then read by [`Program::output`]. Allocates nothing once the kernels' scratch memory has
    /// grown to its size (a large matrix product packs into memory of its own, passes beside one another list their operands, and to call other
    /// threads takes a few bytes).
    ///
    /// # Panics
    /// If the inputs are not of the traced shapes and types, or the workspace is another program's.
    #[track_caller]
    pub fn run(&self, workspace: &mut Workspace, inputs: &[&Tensor], par: Par) {
        self.run_into(workspace, inputs, &mut [], par);
    }

    /// Runs the program like [`Program::run`] and leaves its first results in these tensors, without a copy where nobody shares their memory and
    /// the result is nothing but a result. Only those that follow are then read by [`Program::output`].
    ///
    /// # Panics
    /// As [`Program::run`]; and if there are fewer results, or of other shapes or types.
    #[track_caller]
    pub fn run_into(&self, workspace: &mut Workspace, inputs: &[&Tensor], results: &mut [&mut Tensor], par: Par) {
        self.run_watched(workspace, inputs, results, None, par);
    }

    /// Runs the program like [`Program::run_into`], and tells whether all numbers in these tensors are finite. Those that come from a pass are looked at
    /// while they lie in the cache.
    ///
    /// # Panics
    /// As [`Program::run_into`].
    #[track_caller]
    pub fn run_into_finite(
        &self,
        workspace: &mut Workspace,
        inputs: &[&Tensor],
        results: &mut [&mut Tensor],
        par: Par,
    ) -> bool {
        let spoilt = AtomicBool::new(false);
        self.run_watched(workspace, inputs, results, Some(&spoilt), par);
        let mut others = results.iter().zip(&self.outputs).filter(|(_, (value, _))| !self.values[*value].is_watched);
        !spoilt.into_inner() && others.all(|(tensor, _)| tensor.is_finite_by(par))
    }

    /// [`Program::run_into`]; what is to be told of numbers that are not finite in results that [`Value::is_watched`] says.
    #[track_caller]
    fn run_watched(
        &self,
        workspace: &mut Workspace,
        inputs: &[&Tensor],
        results: &mut [&mut Tensor],
        spoilt: Option<&AtomicBool>,
        par: Par,
    ) {
        self.check(workspace, inputs);
        assert!(results.len() <= self.outputs.len(), "{} results of {}", results.len(), self.outputs.len());
        for (i, (tensor, (_, aval))) in results.iter().zip(&self.outputs).enumerate() {
            assert!(tensor.aval() == *aval, "result {i} is {aval}, not {}", tensor.aval());
        }
        let is_alone = |(i, (value, _)): (usize, &(usize, Aval))| self.values[*value].result == Some(i);
        let alone: SmallVec<[bool; 32]> = self.outputs.iter().enumerate().map(is_alone).take(results.len()).collect();
        let mut places: Places<'_> = results
            .iter_mut()
            .zip(&alone)
            .map(|(tensor, &alone)| if alone { tensor.own_bytes() } else { None })
            .collect();
        let is_placed: SmallVec<[bool; 32]> = places.iter().map(Option::is_some).collect();
        let step = |instr| self.step(instr, workspace, inputs, &mut places, spoilt, par);
        let all = || self.instrs.iter().for_each(step);
        if self.is_large {
            attended(par, all)
        } else {
            all()
        }
        drop(places);
        for (i, tensor) in results.iter_mut().enumerate().filter(|(i, _)| !is_placed[*i]) {
            tensor.assign_by(par, self.view(workspace, i));
        }
        workspace.placed = results.len();
    }

    /// Runs the program like [`Program::run`] and tells how long each instruction took, in order.
    #[track_caller]
    pub fn run_timed(&self, workspace: &mut Workspace, inputs: &[&Tensor], par: Par) -> Vec<(String, Duration)> {
        self.check(workspace, inputs);
        workspace.placed = 0;
        let mut timed = |instr: &Instr| {
            let start = Instant::now();
            self.step(instr, workspace, inputs, &mut [], None, par);
            let took = start.elapsed();
            let outs: Vec<String> = instr.outs.iter().map(|&i| self.values[i].aval.to_string()).collect();
            (format!("{} {}", instr.op, outs.join(" ")), took)
        };
        let mut all = || self.instrs.iter().map(&mut timed).collect();
        if self.is_large { attended(par, all) } else { all() }
    }

    /// Result number `index` of the last run in this workspace.
    ///
    /// # Panics
    /// If there are fewer, or it went into a tensor by [`Program::run_into`].
    #[track_caller]
    pub fn output<'w>(&self, workspace: &'w Workspace, index: usize) -> View<'w> {
        assert!(index >= workspace.placed, "result {index} went into a tensor (`run_into`)");
        self.view(workspace, index)
    }

    fn view<'w>(&self, workspace: &'w Workspace, index: usize) -> View<'w> {
        let (value, aval) = self.outputs[index];
        View { aval, data: Slice::of(aval.dtype, workspace.arena.read(self.values[value].span)) }
    }

    /// Runs the program in a new workspace, on one thread, and copies the results out.
    #[track_caller]
    pub fn call(&self, inputs: &[&Tensor]) -> Vec<Tensor> {
        let mut workspace = self.workspace();
        self.run(&mut workspace, inputs, Par::Seq);
        (0..self.outputs.len()).map(|i| self.output(&workspace, i).to_tensor()).collect()
    }

    #[track_caller]
    fn check(&self, workspace: &Workspace, inputs: &[&Tensor]) {
        assert_eq!(inputs.len(), self.inputs.len(), "number of inputs of the program");
        for (i, (given, traced)) in inputs.iter().zip(&self.inputs).enumerate() {
            assert!(given.aval() == *traced, "input {i} is {}, the program was traced with {traced}", given.aval());
        }
        assert_eq!(workspace.arena.bytes(), self.workspace_bytes(), "the workspace is another program's");
    }
}
