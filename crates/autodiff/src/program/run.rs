//! One instruction: its operands where they lie, its results where they go, and the kernel for it.

use std::sync::atomic::AtomicBool;

use metaforge_kernels::fused::{In, MAX_OPERANDS, Out};
use metaforge_kernels::{self as kernels, Par};
use smallvec::SmallVec;

use super::graph::{Base, OnDemand, Op};
use super::{Instr, Operand, Place, Program, Workspace};
use crate::aval::DType;
use crate::eval::{Tagged, eval, eval_in_place};
use crate::tensor::Tensor;
use crate::view::{Slice, SliceMut, View};

impl Program {
    /// The convolution that one of its operands is.
    fn conv_of(&self, instr: &Instr) -> Option<&OnDemand<Operand>> {
        instr.on_demand.map(|i| &self.on_demand[i])
    }

    /// Whether a value is one of the first results, and watched.
    fn is_watched(&self, value: usize, results: usize) -> bool {
        let value = &self.values[value];
        value.is_watched && value.result.is_some_and(|result| result < results)
    }

    pub(super) fn step(
        &self,
        instr: &Instr,
        workspace: &mut Workspace,
        inputs: &[&Tensor],
        places: &mut [Option<&mut [u8]>],
        spoilt: Option<&AtomicBool>,
        par: Par,
    ) {
        let results = places.len();
        let watch = |out: usize| spoilt.filter(|_| self.is_watched(instr.outs[out], results));
        let (bytes, rest) = workspace.arena.split(&instr.spans);
        let mut outs = bytes.zip(&instr.outs).map(|(bytes, &i)| {
            let place = self.values[i].result.and_then(|result| places.get_mut(result)?.take());
            SliceMut::of(self.values[i].aval.dtype, place.unwrap_or(bytes))
        });
        let view = |operand: &Operand| {
            let bytes = match operand.place {
                Place::Input(i) => inputs[i].bytes(),
                Place::Const(i) => self.consts[i].bytes(),
                Place::Value(i) => rest.read(self.values[i].span),
                Place::OnDemand(i) => unreachable!("convolution {i} is not in memory"),
            };
            View { aval: operand.aval, data: Slice::of(operand.aval.dtype, bytes) }
        };
        match &instr.op {
            Op::Prim(prim) => {
                let Some(out) = outs.next() else { unreachable!("a primitive has a result") };
                if instr.in_place {
                    return eval_in_place(prim, out, par);
                }
                // Filled in place: a collected vector would be moved, and costs a small product more than its arithmetic.
                let mut views: SmallVec<[View<'_>; 8]> = SmallVec::new();
                instr.ins.iter().for_each(|operand| views.push(view(operand)));
                eval(prim, &views, &self.values[instr.outs[0]].aval, out, par);
            }
            // The first operands may be indices.
            other => match instr.ins.iter().map(|x| x.aval.dtype).find(|dtype| dtype.is_float()) {
                Some(DType::F64) => lowered::<f64>(other, instr, self.conv_of(instr), view, outs, watch, par),
                Some(DType::F32) => lowered::<f32>(other, instr, self.conv_of(instr), view, outs, watch, par),
                Some(DType::U32) | None => unreachable!("{other} works on floating-point numbers"),
            },
        }
    }
}

/// An operation that is no primitive, with the convolution that one of its operands is.
#[inline(always)]
fn lowered<'a, T: Tagged>(
    op: &Op,
    instr: &Instr,
    conv: Option<&'a OnDemand<Operand>>,
    view: impl Fn(&Operand) -> View<'a>,
    mut outs: impl Iterator<Item = SliceMut<'a>>,
    watch: impl Fn(usize) -> Option<&'a AtomicBool>,
    par: Par,
) {
    let conv = conv.map(|c| kernels::OnDemand::new(&c.dims, T::of(&view(&c.image)), T::of(&view(&c.weights))));
    let conv = conv.as_ref();
    let x = |i: usize| T::of(&view(&instr.ins[i]));
    let (mut ins, mut params, mut written) = (List::new(), List::new(), List::new());
    let mut two = || match (outs.next(), outs.next()) {
        (Some(a), Some(b)) => (T::of_mut(a), T::of_mut(b)),
        _ => unreachable!("{op} has two results"),
    };
    match op {
        Op::Statistics { eps } => {
            let s = instr.ins[0].aval.shape;
            let (mean, rstd) = two();
            if let Some(conv) = conv {
                return kernels::statistics_of(par, conv, *eps, mean, rstd);
            }
            kernels::statistics(par, x(0), s[0], s[1], s[2], *eps, mean, rstd);
        }
        Op::ConvStatistics { eps, dims } => {
            let (Some(y), Some(mean), Some(rstd)) = (outs.next(), outs.next(), outs.next()) else {
                unreachable!("{op} has three results")
            };
            let [y, mean, rstd] = [y, mean, rstd].map(T::of_mut);
            kernels::conv_statistics(par, dims, x(0), x(1), *eps, y, mean, rstd);
        }
        Op::Coefficients { rows } => {
            let (slope, shift) = two();
            kernels::grad_coefficients(x(0), x(1), x(2), *rows, slope, shift);
        }
        Op::Product { dims, ending } => {
            let base = |base: Base| kernels::Base { data: x(2), minus: base.minus, row: base.row, batch: base.batch };
            let finish = kernels::Finish {
                affine: ending.affine.map(|affine| affine.map(T::from_f64)),
                base: ending.base.map(base),
                relu: ending.relu,
            };
            let Some(y) = outs.next() else { unreachable!("{op} has a result") };
            kernels::matmul_finished(par, dims, x(0), x(1), &finish, T::of_mut(y));
        }
        Op::Fused { passes, inputs } => {
            operands(&instr.ins, *inputs, conv, &view, &mut ins, &mut params);
            results(outs, watch, &mut written);
            kernels::fused_beside(par, passes, &ins, &params, &mut written);
        }
        Op::FusedConv { fusion, inputs, at, dims } => {
            let Some((of_pass, [image, weights])) = instr.ins.split_last_chunk() else { unreachable!("{op} has both") };
            operands(of_pass, *inputs, conv, &view, &mut ins, &mut params);
            results(outs, watch, &mut written);
            let [image, weights] = [image, weights].map(|operand| T::of(&view(operand)));
            kernels::fused_conv(par, fusion, *at, &ins, &params, dims, image, weights, &mut written);
        }
        Op::FusedWeightGrad { fusion, inputs, dims } => {
            let Some((image, of_pass)) = instr.ins.split_last() else { unreachable!("{op} has an image") };
            operands(of_pass, *inputs, conv, &view, &mut ins, &mut params);
            let Some(dw) = outs.next() else { unreachable!("{op} has a result") };
            kernels::fused_weight_grad(par, fusion, &ins, &params, dims, T::of(&view(image)), T::of_mut(dw));
        }
        Op::Prim(_) | Op::Step(_) => unreachable!("{op} is evaluated elsewhere or part of a pass"),
    }
}

/// As many as one pass has at most; those of several may be more. Filled in place: to move it takes as long as a part of a small pass.
type List<T> = SmallVec<[T; MAX_OPERANDS]>;

/// What a pass writes, and what is told of numbers there that are not finite.
#[inline(always)]
fn results<'a, T: Tagged>(
    outs: impl Iterator<Item = SliceMut<'a>>,
    watch: impl Fn(usize) -> Option<&'a AtomicBool>,
    written: &mut List<Out<'a, T>>,
) {
    for (i, out) in outs.enumerate() {
        written.push(match (out, watch(i)) {
            (SliceMut::U32(x), _) => Out::Index(x),
            (other, None) => Out::Float(T::of_mut(other)),
            (other, Some(spoilt)) => Out::Watched(T::of_mut(other), spoilt),
        });
    }
}

/// The inputs and the parameters of a pass.
#[inline(always)]
fn operands<'a, 'c, T: Tagged>(
    operands: &[Operand],
    inputs: usize,
    conv: Option<&'c kernels::OnDemand<'a, T>>,
    view: impl Fn(&Operand) -> View<'a>,
    ins: &mut List<In<'c, T>>,
    params: &mut List<&'c [T]>,
) where
    'a: 'c,
{
    for operand in &operands[..inputs] {
        if let (Place::OnDemand(_), Some(conv)) = (operand.place, conv) {
            ins.push(In::Conv(conv));
            continue;
        }
        let view = view(operand);
        ins.push(match view.data {
            Slice::U32(x) => In::Index(x),
            Slice::F32(_) | Slice::F64(_) => In::Float(T::of(&view)),
        });
    }
    operands[inputs..].iter().for_each(|operand| params.push(T::of(&view(operand))));
}
