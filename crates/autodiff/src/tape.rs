//! The tape: an arena of equations in the order in which they were recorded, and the handles to its values.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;

use metaforge_kernels::{Buffer, Par};
use smallvec::SmallVec;

use crate::aval::{Aval, DType, Shape};
use crate::eval::eval;
use crate::prim::Prim;
use crate::shape::shape;
use crate::tensor::Tensor;
use crate::view::{SliceMut, View};

/// Position of a value on its tape; inputs of an equation stand before it.
pub(crate) type Id = u32;

/// Where a value comes from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// Given from outside when a program runs.
    Input(usize),
    /// Known now.
    Const(Tensor),
    /// Computed from earlier values.
    Eqn { prim: Prim, ins: SmallVec<[Id; 3]> },
}

/// One value of a tape.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) source: Source,
    pub(crate) aval: Aval,
    /// The numbers, on an eager tape.
    pub(crate) value: Option<Tensor>,
}

/// A record of equations. An eager tape computes each as it is recorded; a tracing tape notes shapes only.
///
/// Values live as long as their tape: drop it, and everything is freed at once.
pub struct Tape {
    nodes: RefCell<Vec<Node>>,
    /// Equations that a reverse sweep records again, in the order of their ends and the inner before the outer; see
    /// [`Tape::checkpoint`].
    pub(crate) checkpoints: RefCell<Vec<Range<Id>>>,
    eager: bool,
    par: Par,
}

impl Tape {
    /// A tape that computes each equation as it is recorded, on one thread.
    pub fn eager() -> Tape {
        Tape { nodes: RefCell::default(), checkpoints: RefCell::default(), eager: true, par: Par::Seq }
    }

    /// A tape that notes shapes only; what [`crate::Program::trace`] uses.
    pub fn tracing() -> Tape {
        Tape { eager: false, ..Tape::eager() }
    }

    /// The tape with its kernels run sequentially or split over threads; the numbers are the same.
    pub fn with_par(self, par: Par) -> Tape {
        Tape { par, ..self }
    }

    /// Number of values recorded.
    pub fn len(&self) -> usize {
        self.nodes.borrow().len()
    }

    /// Whether nothing was recorded.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A value that gradients can be taken with respect to. (So can they of any other; the name marks intent.)
    pub fn var(&self, value: &Tensor) -> Var<'_> {
        self.constant(value)
    }

    /// A known value.
    pub fn constant(&self, value: &Tensor) -> Var<'_> {
        self.push(Node {
            source: Source::Const(value.clone()),
            aval: value.aval(),
            value: self.eager.then(|| value.clone()),
        })
    }

    /// A known number of shape `[]`.
    pub fn scalar(&self, value: f64, dtype: DType) -> Var<'_> {
        self.constant(&Tensor::full([], value, dtype))
    }

    /// One number in every element.
    #[track_caller]
    pub fn full(&self, shape: impl Into<Shape>, value: f64, dtype: DType) -> Var<'_> {
        self.scalar(value, dtype).broadcast_to(shape)
    }

    /// Zeros.
    #[track_caller]
    pub fn zeros(&self, shape: impl Into<Shape>, dtype: DType) -> Var<'_> {
        self.full(shape, 0.0, dtype)
    }

    /// The input numbered `index` of a program that is being traced.
    pub(crate) fn input(&self, index: usize, aval: Aval) -> Var<'_> {
        self.push(Node { source: Source::Input(index), aval, value: None })
    }

    pub(crate) fn push(&self, node: Node) -> Var<'_> {
        let id = self.next();
        self.nodes.borrow_mut().push(node);
        Var { id, tape: self }
    }

    /// Position of the value that is recorded next.
    pub(crate) fn next(&self) -> Id {
        Id::try_from(self.len()).expect("a tape of less than 2^32 values")
    }

    pub(crate) fn var_at(&self, id: Id) -> Var<'_> {
        Var { id, tape: self }
    }

    pub(crate) fn with_node<R>(&self, id: Id, f: impl FnOnce(&Node) -> R) -> R {
        f(&self.nodes.borrow()[id as usize])
    }

    /// For each value how often the equations so far read it, but for barriers, which need none of their operands: whether values are computed again must
    /// not show.
    pub(crate) fn reads(&self) -> Vec<u32> {
        let nodes = self.nodes.borrow();
        let mut reads = vec![0; nodes.len()];
        for node in nodes.iter() {
            match &node.source {
                Source::Eqn { prim: Prim::Barrier, .. } | Source::Input(_) | Source::Const(_) => {}
                Source::Eqn { ins, .. } => ins.iter().for_each(|&x| reads[x as usize] += 1),
            }
        }
        reads
    }

    pub(crate) fn is_eager(&self) -> bool {
        self.eager
    }

    /// Forgets every value from position `len` on. No handle to them may be used again.
    pub(crate) fn truncate(&self, len: usize) {
        self.nodes.borrow_mut().truncate(len);
        self.checkpoints.borrow_mut().retain(|region| region.end as usize <= len);
    }

    pub(crate) fn into_nodes(self) -> Vec<Node> {
        self.nodes.into_inner()
    }

    /// Records `prim(ins)`; panics if the operands do not fit.
    #[track_caller]
    fn record(&self, prim: Prim, ins: &[Var<'_>]) -> Var<'_> {
        let avals: SmallVec<[Aval; 3]> = ins
            .iter()
            .map(|x| {
                assert!(std::ptr::eq(x.tape, self), "{prim} of values on two different tapes");
                x.aval()
            })
            .collect();
        let aval = match shape(&prim, &avals) {
            Ok(aval) => aval,
            Err(reason) => {
                let operands = avals.iter().map(Aval::to_string).collect::<Vec<_>>().join(", ");
                panic!("{prim}({operands}): {reason}")
            }
        };
        let value = self.eager.then(|| self.compute(&prim, ins, aval));
        self.push(Node { source: Source::Eqn { prim, ins: ins.iter().map(|x| x.id).collect() }, aval, value })
    }

    fn compute(&self, prim: &Prim, ins: &[Var<'_>], aval: Aval) -> Tensor {
        let nodes = self.nodes.borrow();
        let tensors: SmallVec<[&Tensor; 3]> =
            ins.iter().map(|x| nodes[x.id as usize].value.as_ref().expect("an eager tape holds every value")).collect();
        if matches!(prim, Prim::Reshape(_) | Prim::StopGradient | Prim::Barrier) {
            return tensors[0].reshape(aval.shape);
        }
        let views: SmallVec<[View<'_>; 3]> = tensors.iter().map(|t| t.view()).collect();
        let mut buffer = Buffer::zeroed(aval.bytes());
        eval(prim, &views, &aval, SliceMut::of(aval.dtype, buffer.as_mut_slice()), self.par);
        Tensor::from_buffer(aval, buffer)
    }
}

/// A handle to a value on a tape. It is `Copy`: `a * b + c` needs no reference and no clone.
#[derive(Clone, Copy)]
pub struct Var<'t> {
    pub(crate) id: Id,
    pub(crate) tape: &'t Tape,
}

impl<'t> Var<'t> {
    /// Records a primitive on the operands' tape.
    ///
    /// # Panics
    /// If the operands do not fit; the message names the primitive, the operands and the reason.
    #[track_caller]
    pub fn record(prim: Prim, ins: &[Var<'t>]) -> Var<'t> {
        let tape = ins.first().expect("a primitive has at least one operand").tape;
        tape.record(prim, ins)
    }

    /// The tape that the value is on.
    pub fn tape(self) -> &'t Tape {
        self.tape
    }

    /// Shape and type.
    pub fn aval(self) -> Aval {
        self.tape.with_node(self.id, |n| n.aval)
    }

    /// Sizes of the axes.
    pub fn shape(self) -> Shape {
        self.aval().shape
    }

    /// Type of the elements.
    pub fn dtype(self) -> DType {
        self.aval().dtype
    }

    /// The numbers.
    ///
    /// # Panics
    /// On a tracing tape, where nothing is computed.
    #[track_caller]
    pub fn value(self) -> Tensor {
        match self.tape.with_node(self.id, |n| n.value.clone()) {
            Some(value) => value,
            None => panic!("value() on a tracing tape: only shapes are known while a program is traced"),
        }
    }
}

impl fmt::Debug for Var<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tape.with_node(self.id, |n| match &n.value {
            Some(value) => write!(f, "%{}: {value:?}", self.id),
            None => write!(f, "%{}: {}", self.id, n.aval),
        })
    }
}
