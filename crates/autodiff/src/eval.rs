//! The second table: the kernel that computes each primitive.

use bytemuck::Pod;
use metaforge_kernels::{self as kernels, Par, Real};

use crate::aval::{Aval, DType, MAX_RANK, Shape};
use crate::prim::{Conv, Prim};
use crate::shape::{conv_dims, matmul_dims};
use crate::view::{Slice, SliceMut, View, cast};

/// A floating-point type as seen through the run-time tag.
pub(crate) trait Tagged: Real {
    fn of<'a>(view: &View<'a>) -> &'a [Self];
    fn of_mut(out: SliceMut<'_>) -> &mut [Self];
}

macro_rules! tagged {
    ($type:ty, $variant:ident) => {
        impl Tagged for $type {
            fn of<'a>(view: &View<'a>) -> &'a [$type] {
                match view.data {
                    Slice::$variant(x) => x,
                    _ => unreachable!("the shape rule admits one type"),
                }
            }
            fn of_mut(out: SliceMut<'_>) -> &mut [$type] {
                match out {
                    SliceMut::$variant(x) => x,
                    _ => unreachable!("the shape rule admits one type"),
                }
            }
        }
    };
}

tagged!(f32, F32);
tagged!(f64, F64);

/// Computes `prim` of `ins` into `out`, whose shape and type `aval` the shape rule gave. Every element of `out` is written.
pub(crate) fn eval(prim: &Prim, ins: &[View<'_>], aval: &Aval, out: SliceMut<'_>, par: Par) {
    match out {
        SliceMut::F32(out) => floats::<f32>(prim, ins, aval, out, par),
        SliceMut::F64(out) => floats::<f64>(prim, ins, aval, out, par),
        SliceMut::U32(out) => integers(prim, ins, aval, out, par),
    }
}

/// Computes a primitive whose one operand's memory is its result's; `out` holds the operand.
pub(crate) fn eval_in_place(prim: &Prim, out: SliceMut<'_>, par: Par) {
    let Prim::Unary(op) = prim else { unreachable!("{prim} is never planned in place") };
    match out {
        SliceMut::F32(x) => kernels::unary_assign(par, *op, x),
        SliceMut::F64(x) => kernels::unary_assign(par, *op, x),
        SliceMut::U32(_) => unreachable!("the shape rule admits floating point"),
    }
}

fn floats<T: Tagged>(prim: &Prim, ins: &[View<'_>], aval: &Aval, out: &mut [T], par: Par)
where
    for<'a> SliceMut<'a>: From<&'a mut [T]>,
{
    let x = |i: usize| T::of(&ins[i]);
    let s = |i: usize| ins[i].aval.shape;
    let strides = |i: usize| ins[i].aval.shape.broadcast_strides(&aval.shape);
    match prim {
        Prim::Unary(op) => kernels::unary(par, *op, x(0), out),
        Prim::Binary(op) => kernels::binary(par, *op, x(0), &strides(0), x(1), &strides(1), &aval.shape, out),
        Prim::Select => {
            let st = [strides(0), strides(1), strides(2)];
            kernels::select(par, x(0), &st[0], x(1), &st[1], x(2), &st[2], &aval.shape, out);
        }
        Prim::Cast(_) => cast(ins[0].data, out.into()),
        Prim::SumTo(to) => {
            let from = s(0);
            let mut reduced = [false; MAX_RANK];
            let lead = from.len() - to.len();
            for axis in 0..from.len() {
                reduced[axis] = axis < lead || (to[axis - lead] == 1 && from[axis] != 1);
            }
            kernels::sum_axes(par, x(0), &from, &reduced[..from.len()], out);
        }
        &Prim::Pad { axis, before, .. } => {
            out.fill(T::ZERO);
            place(x(0), &s(0), out, &aval.shape, axis, before, par);
        }
        Prim::ScatterAdd { rows } => {
            let g = s(0);
            kernels::scatter_add(par, x(0), indices(&ins[1]), g[0], g[1], *rows, g[2], out);
        }
        &Prim::MatMul { ta, tb, interleaved } => {
            let dims = matmul_dims([ta, tb], interleaved, &s(0), &s(1), &aval.shape);
            kernels::matmul(par, &dims, x(0), x(1), out);
        }
        Prim::Conv(conv) => {
            let w = s(1);
            kernels::conv(par, &dims(conv, s(0), [w[0], w[1]], w[3]), x(0), x(1), out);
        }
        Prim::ConvInputGrad { conv, .. } => {
            let w = s(1);
            kernels::conv_input_grad(par, &dims(conv, aval.shape, [w[0], w[1]], w[3]), x(0), x(1), out);
        }
        Prim::ConvWeightGrad { conv, kernel } => {
            kernels::conv_weight_grad(par, &dims(conv, s(0), *kernel, s(1)[3]), x(0), x(1), out);
        }
        Prim::SumPool(window) => {
            let x_ = s(0);
            kernels::sum_pool(par, x(0), x_[0], [x_[1], x_[2]], x_[3], window, out);
        }
        Prim::SumUnpool { window, hw } => kernels::sum_unpool(par, x(0), s(0)[0], *hw, s(0)[3], window, out),
        Prim::LogSoftmax => {
            let cols = aval.shape[aval.shape.len() - 1];
            kernels::log_softmax_rows(par, x(0), x(0).len() / cols.max(1), cols, out);
        }
        Prim::Normalize { eps } => kernels::normalize(par, x(0), s(0)[0], s(0)[1], s(0)[2], *eps, out),
        Prim::Rstd { eps } => kernels::rstd(par, x(0), s(0)[0], s(0)[1], s(0)[2], *eps, out),
        Prim::NormalizeGrad => kernels::normalize_grad(par, x(0), x(1), x(2), s(0)[0], s(0)[1], s(0)[2], out),
        Prim::Uniform(_) => {
            let key = indices(&ins[0]);
            kernels::uniform([key[0], key[1]], out);
        }
        Prim::StopGradient
        | Prim::Barrier
        | Prim::Reshape(_)
        | Prim::Permute(_)
        | Prim::Broadcast(_)
        | Prim::Slice { .. }
        | Prim::Flip { .. }
        | Prim::Concat { .. }
        | Prim::Gather => moves(prim, ins, T::of, aval, out, par),
        Prim::Custom(custom) => custom.0.eval(ins, out.into()),
        Prim::Argmax | Prim::MaxPoolIndices(_) => unreachable!("{prim} gives integers"),
    }
}

fn integers(prim: &Prim, ins: &[View<'_>], aval: &Aval, out: &mut [u32], par: Par) {
    match prim {
        Prim::Cast(_) => cast(ins[0].data, SliceMut::U32(out)),
        Prim::Argmax => {
            let cols = ins[0].aval.shape[aval.shape.len()];
            match ins[0].data {
                Slice::F32(x) => kernels::argmax_rows(par, x, out.len(), cols, out),
                Slice::F64(x) => kernels::argmax_rows(par, x, out.len(), cols, out),
                Slice::U32(_) => unreachable!("the shape rule admits floating point"),
            }
        }
        Prim::MaxPoolIndices(window) => {
            let s = ins[0].aval.shape;
            match ins[0].data {
                Slice::F32(x) => kernels::max_pool_indices(par, x, s[0], [s[1], s[2]], s[3], window, out),
                Slice::F64(x) => kernels::max_pool_indices(par, x, s[0], [s[1], s[2]], s[3], window, out),
                Slice::U32(_) => unreachable!("the shape rule admits floating point"),
            }
        }
        Prim::StopGradient
        | Prim::Barrier
        | Prim::Reshape(_)
        | Prim::Permute(_)
        | Prim::Broadcast(_)
        | Prim::Slice { .. }
        | Prim::Flip { .. }
        | Prim::Concat { .. }
        | Prim::Gather => moves(prim, ins, indices, aval, out, par),
        Prim::Custom(custom) => custom.0.eval(ins, SliceMut::U32(out)),
        Prim::Unary(_)
        | Prim::Binary(_)
        | Prim::Select
        | Prim::SumTo(_)
        | Prim::Pad { .. }
        | Prim::ScatterAdd { .. }
        | Prim::MatMul { .. }
        | Prim::Conv(_)
        | Prim::ConvInputGrad { .. }
        | Prim::ConvWeightGrad { .. }
        | Prim::SumPool(_)
        | Prim::SumUnpool { .. }
        | Prim::LogSoftmax
        | Prim::Normalize { .. }
        | Prim::Rstd { .. }
        | Prim::NormalizeGrad
        | Prim::Uniform(_) => unreachable!("{prim} gives floating-point numbers"),
    }
}

/// The primitives that move numbers of any type without looking at them.
fn moves<'a, T: Pod + Send + Sync>(
    prim: &Prim,
    ins: &[View<'a>],
    of: impl Fn(&View<'a>) -> &'a [T],
    aval: &Aval,
    out: &mut [T],
    par: Par,
) {
    let x = of(&ins[0]);
    let from = ins[0].aval.shape;
    let signed = |s: &Shape| {
        let mut strides = [0isize; MAX_RANK];
        for (to, &from) in strides.iter_mut().zip(s.iter()) {
            *to = from as isize;
        }
        strides
    };
    let rank = aval.shape.len();
    let to = signed(&aval.shape.strides());
    let mut read = |offset: usize, strides: [isize; MAX_RANK]| {
        kernels::copy_strided(par, x, offset, &strides[..rank], &aval.shape, out, 0, &to[..rank]);
    };
    if let Prim::Permute(axes) = prim {
        let own = from.strides();
        let mut strides = [0isize; MAX_RANK];
        for (to, &axis) in strides.iter_mut().zip(axes.iter()) {
            *to = own[axis] as isize;
        }
        read(0, strides);
    } else if let Prim::Broadcast(shape) = prim {
        read(0, signed(&from.broadcast_strides(shape)));
    } else if let &Prim::Slice { axis, start, .. } = prim {
        read(start * from.strides()[axis], signed(&from.strides()));
    } else if let &Prim::Flip { axis } = prim {
        let own = from.strides();
        let mut strides = signed(&own);
        strides[axis] = -strides[axis];
        read(from[axis].saturating_sub(1) * own[axis], strides);
    } else if let &Prim::Concat { axis } = prim {
        let mut start = 0;
        for view in ins {
            place(of(view), &view.aval.shape, out, &aval.shape, axis, start, par);
            start += view.aval.shape[axis];
        }
    } else if let Prim::Gather = prim {
        kernels::gather(par, x, indices(&ins[1]), from[0], from[1], aval.shape[1], from[2], out);
    } else {
        // Another view of the same numbers.
        out.copy_from_slice(x);
    }
}

/// Writes `x` into `out` from entry `start` of `axis` on.
fn place<T: Pod + Send + Sync>(x: &[T], from: &Shape, out: &mut [T], to: &Shape, axis: usize, start: usize, par: Par) {
    let (mut src, mut dst) = ([0isize; MAX_RANK], [0isize; MAX_RANK]);
    let (own, theirs) = (from.strides(), to.strides());
    for i in 0..from.len() {
        src[i] = own[i] as isize;
        dst[i] = theirs[i] as isize;
    }
    let rank = from.len();
    kernels::copy_strided(par, x, 0, &src[..rank], from, out, start * theirs[axis], &dst[..rank]);
}

fn indices<'a>(view: &View<'a>) -> &'a [u32] {
    match view.data {
        Slice::U32(x) => x,
        _ => unreachable!("the shape rule asks for {}", DType::U32),
    }
}

fn dims(conv: &Conv, x: Shape, kernel: [usize; 2], co: usize) -> kernels::ConvDims {
    conv_dims(conv, [x[0], x[1], x[2], x[3]], kernel, co).expect("the shape rule checked it")
}
