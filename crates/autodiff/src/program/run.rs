//! One instruction: its operands where they lie, its results where they go, and the kernel for it.

use metaforge_kernels::fused::{Fusion, In, Out};
use metaforge_kernels::{self as kernels, Par, Real};
use smallvec::SmallVec;

use super::graph::Op;
use super::{Instr, Place, Program, Workspace};
use crate::aval::DType;
use crate::eval::{Tagged, eval, eval_in_place};
use crate::tensor::Tensor;
use crate::view::{Slice, SliceMut, View};

/// Operands that an instruction has room for without allocating.
const ROOM: usize = 32;

type Views<'a> = SmallVec<[View<'a>; ROOM]>;
type Outs<'a> = SmallVec<[SliceMut<'a>; ROOM]>;

impl Program {
    pub(super) fn step(&self, instr: &Instr, workspace: &mut Workspace, inputs: &[&Tensor], par: Par) {
        let (bytes, rest) = workspace.arena.split(&instr.spans);
        let mut outs = bytes.zip(&instr.outs).map(|(bytes, &i)| SliceMut::of(self.values[i].aval.dtype, bytes));
        let view = |operand: &super::Operand| {
            let bytes = match operand.place {
                Place::Input(i) => inputs[i].bytes(),
                Place::Const(i) => self.consts[i].bytes(),
                Place::Value(i) => rest.read(self.values[i].span),
            };
            View { aval: operand.aval, data: Slice::of(operand.aval.dtype, bytes) }
        };
        match &instr.op {
            Op::Prim(prim) => {
                let Some(out) = outs.next() else { unreachable!("a primitive has a result") };
                if instr.in_place {
                    return eval_in_place(prim, out, par);
                }
                let views: SmallVec<[View<'_>; 8]> = instr.ins.iter().map(view).collect();
                eval(prim, &views, &self.values[instr.outs[0]].aval, out, par);
            }
            other => {
                let views: Views<'_> = instr.ins.iter().map(view).collect();
                let outs: Outs<'_> = outs.collect();
                match views[0].aval.dtype {
                    DType::F64 => lowered::<f64>(other, &views, outs, par),
                    _ => lowered::<f32>(other, &views, outs, par),
                }
            }
        }
    }
}

/// An operation that is no primitive.
fn lowered<T: Tagged>(op: &Op, views: &[View<'_>], mut outs: Outs<'_>, par: Par) {
    let x = |i: usize| T::of(&views[i]);
    match op {
        Op::Statistics { eps } => {
            let s = views[0].aval.shape;
            let [mean, rstd] = &mut outs[..] else { unreachable!("two results") };
            kernels::statistics(par, x(0), s[0], s[1], s[2], *eps, T::of_mut(mean), T::of_mut(rstd));
        }
        Op::Coefficients { rows } => {
            let [slope, shift] = &mut outs[..] else { unreachable!("two results") };
            kernels::grad_coefficients(x(0), x(1), x(2), *rows, T::of_mut(slope), T::of_mut(shift));
        }
        Op::Fused { fusion, inputs } => {
            let (ins, params) = views.split_at(*inputs);
            fused::<T>(fusion, ins, params, outs, par);
        }
        Op::Prim(_) | Op::Step(_) => unreachable!("{op} is evaluated elsewhere or part of a pass"),
    }
}

fn fused<T: Tagged + Real>(fusion: &Fusion, ins: &[View<'_>], params: &[View<'_>], outs: Outs<'_>, par: Par) {
    let ins: SmallVec<[In<'_, T>; ROOM]> = ins
        .iter()
        .map(|view| match view.data {
            Slice::U32(x) => In::Index(x),
            _ => In::Float(T::of(view)),
        })
        .collect();
    let params: SmallVec<[&[T]; ROOM]> = params.iter().map(T::of).collect();
    let mut outs: SmallVec<[Out<'_, T>; ROOM]> = outs
        .into_iter()
        .map(|out| match out {
            SliceMut::U32(x) => Out::Index(x),
            other => Out::Float(T::into_mut(other)),
        })
        .collect();
    kernels::fused(par, fusion, &ins, &params, &mut outs);
}
