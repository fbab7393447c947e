//! The first table: shape and type of what each primitive gives, or why it gives nothing.

use metaforge_kernels::{ConvDims, MatMulDims};

use crate::aval::{Aval, DType, Shape};
use crate::prim::{Conv, Prim};

/// Shape and type of `prim` applied to `ins`.
///
/// # Errors
/// A sentence on what does not fit.
pub fn shape(prim: &Prim, ins: &[Aval]) -> Result<Aval, String> {
    let arity = |n: usize| if ins.len() == n { Ok(()) } else { Err(format!("{} inputs, not {n}", ins.len())) };
    let float = |i: usize| if ins[i].dtype.is_float() { Ok(()) } else { Err(format!("input {i} is {}", ins[i])) };
    let index =
        |i: usize| if ins[i].dtype == DType::U32 { Ok(()) } else { Err(format!("input {i} is {}, not u32", ins[i])) };
    let rank = |i: usize, r: usize| {
        if ins[i].shape.len() == r { Ok(()) } else { Err(format!("input {i} is {}, not of rank {r}", ins[i])) }
    };
    let same_type =
        || if ins.iter().all(|x| x.dtype == ins[0].dtype) { Ok(()) } else { Err("the types differ".to_string()) };
    let ok = |shape: Shape, dtype: DType| Ok(Aval { shape, dtype });
    match prim {
        Prim::Unary(_) => {
            arity(1)?;
            float(0)?;
            Ok(ins[0])
        }
        Prim::Binary(_) => {
            arity(2)?;
            float(0)?;
            same_type()?;
            ok(ins[0].shape.broadcast(&ins[1].shape).ok_or("the shapes do not broadcast")?, ins[0].dtype)
        }
        Prim::Select => {
            arity(3)?;
            float(0)?;
            same_type()?;
            let all = ins[0].shape.broadcast(&ins[1].shape).and_then(|s| s.broadcast(&ins[2].shape));
            ok(all.ok_or("the shapes do not broadcast")?, ins[0].dtype)
        }
        Prim::Cast(dtype) => {
            arity(1)?;
            ok(ins[0].shape, *dtype)
        }
        Prim::StopGradient => {
            arity(1)?;
            Ok(ins[0])
        }
        Prim::Barrier => ins.first().copied().ok_or_else(|| "nothing to pass on".into()),
        Prim::Reshape(shape) => {
            arity(1)?;
            if shape.elements() != ins[0].shape.elements() {
                return Err(format!("{} elements do not fill {shape}", ins[0].shape.elements()));
            }
            ok(*shape, ins[0].dtype)
        }
        Prim::Permute(axes) => {
            arity(1)?;
            rank(0, axes.len())?;
            let mut seen = [false; crate::MAX_RANK];
            let mut out = ins[0].shape;
            for (i, &axis) in axes.iter().enumerate() {
                if axis >= axes.len() || std::mem::replace(&mut seen[axis], true) {
                    return Err(format!("{axes} is not a permutation"));
                }
                out = out.with(i, ins[0].shape[axis]);
            }
            ok(out, ins[0].dtype)
        }
        Prim::Broadcast(shape) => {
            arity(1)?;
            if ins[0].shape.broadcast(shape) != Some(*shape) {
                return Err(format!("it does not stretch to {shape}"));
            }
            ok(*shape, ins[0].dtype)
        }
        Prim::SumTo(shape) => {
            arity(1)?;
            float(0)?;
            if shape.broadcast(&ins[0].shape) != Some(ins[0].shape) {
                return Err(format!("it does not sum to {shape}"));
            }
            ok(*shape, ins[0].dtype)
        }
        &Prim::Slice { axis, start, len } => {
            arity(1)?;
            let size = *ins[0].shape.get(axis).ok_or(format!("there is no axis {axis}"))?;
            if start + len > size {
                return Err(format!("{start}..{} is not within axis {axis}", start + len));
            }
            ok(ins[0].shape.with(axis, len), ins[0].dtype)
        }
        &Prim::Pad { axis, before, after } => {
            arity(1)?;
            float(0)?;
            let size = *ins[0].shape.get(axis).ok_or(format!("there is no axis {axis}"))?;
            ok(ins[0].shape.with(axis, before + size + after), ins[0].dtype)
        }
        &Prim::Flip { axis } => {
            arity(1)?;
            ins[0].shape.get(axis).ok_or(format!("there is no axis {axis}"))?;
            Ok(ins[0])
        }
        &Prim::Concat { axis } => {
            let first = ins.first().ok_or("nothing to concatenate")?;
            same_type()?;
            let mut total = 0;
            for x in ins {
                total += *x.shape.get(axis).ok_or(format!("there is no axis {axis}"))?;
                if x.shape.with(axis, 0) != first.shape.with(axis, 0) {
                    return Err(format!("the shapes differ beside axis {axis}"));
                }
            }
            ok(first.shape.with(axis, total), first.dtype)
        }
        Prim::Argmax => {
            arity(1)?;
            float(0)?;
            match ins[0].shape.split_last() {
                None | Some((0, _)) => Err("there is no last axis to search".into()),
                Some((_, lead)) => ok(lead.into(), DType::U32),
            }
        }
        Prim::Gather => {
            arity(2)?;
            rank(0, 3)?;
            rank(1, 2)?;
            index(1)?;
            if ins[0].shape[0] != ins[1].shape[0] {
                return Err("the batches differ".into());
            }
            ok(ins[0].shape.with(1, ins[1].shape[1]), ins[0].dtype)
        }
        &Prim::ScatterAdd { rows } => {
            arity(2)?;
            float(0)?;
            rank(0, 3)?;
            rank(1, 2)?;
            index(1)?;
            if ins[0].shape[..2] != ins[1].shape[..] {
                return Err("an index is not given for each row".into());
            }
            ok(ins[0].shape.with(1, rows), ins[0].dtype)
        }
        &Prim::MatMul { ta, tb, interleaved } => {
            arity(2)?;
            float(0)?;
            same_type()?;
            matmul(&ins[0].shape, &ins[1].shape, [ta, tb], interleaved).map(|shape| Aval { shape, dtype: ins[0].dtype })
        }
        Prim::Conv(conv) => {
            arity(2)?;
            float(0)?;
            same_type()?;
            rank(0, 4)?;
            rank(1, 4)?;
            let (x, w) = (ins[0].shape, ins[1].shape);
            let dims = conv_dims(conv, [x[0], x[1], x[2], x[3]], [w[0], w[1]], w[3])?;
            if w[2] * conv.groups != x[3] {
                return Err(format!("weights for {} channels, image with {}", w[2] * conv.groups, x[3]));
            }
            let [oh, ow] = dims.out_hw().ok_or("the kernel is larger than the padded image")?;
            ok([x[0], oh, ow, w[3]].into(), ins[0].dtype)
        }
        Prim::ConvInputGrad { conv, hw } => {
            arity(2)?;
            float(0)?;
            same_type()?;
            rank(0, 4)?;
            rank(1, 4)?;
            let (g, w) = (ins[0].shape, ins[1].shape);
            let ci = w[2] * conv.groups;
            let dims = conv_dims(conv, [g[0], hw[0], hw[1], ci], [w[0], w[1]], w[3])?;
            if dims.out_hw() != Some([g[1], g[2]]) || g[3] != w[3] {
                return Err(format!("an image of {hw:?} convolved with these weights is not {}", ins[0]));
            }
            ok([g[0], hw[0], hw[1], ci].into(), ins[0].dtype)
        }
        Prim::ConvWeightGrad { conv, kernel } => {
            arity(2)?;
            float(0)?;
            same_type()?;
            rank(0, 4)?;
            rank(1, 4)?;
            let (x, g) = (ins[0].shape, ins[1].shape);
            let dims = conv_dims(conv, [x[0], x[1], x[2], x[3]], *kernel, g[3])?;
            if dims.out_hw() != Some([g[1], g[2]]) || g[0] != x[0] {
                return Err(format!("a kernel of {kernel:?} over the first input does not give the second"));
            }
            ok([kernel[0], kernel[1], x[3] / conv.groups, g[3]].into(), ins[0].dtype)
        }
        Prim::MaxPoolIndices(window) => {
            arity(1)?;
            float(0)?;
            rank(0, 4)?;
            let x = ins[0].shape;
            let [oh, ow] = window.out_size([x[1], x[2]]).ok_or("the window is larger than the padded image")?;
            ok([x[0], oh, ow, x[3]].into(), DType::U32)
        }
        Prim::SumPool(window) => {
            arity(1)?;
            float(0)?;
            rank(0, 4)?;
            let x = ins[0].shape;
            let [oh, ow] = window.out_size([x[1], x[2]]).ok_or("the window is larger than the padded image")?;
            ok([x[0], oh, ow, x[3]].into(), ins[0].dtype)
        }
        Prim::SumUnpool { window, hw } => {
            arity(1)?;
            float(0)?;
            rank(0, 4)?;
            let g = ins[0].shape;
            if window.out_size(*hw) != Some([g[1], g[2]]) {
                return Err(format!("pooling an image of {hw:?} does not give {}", ins[0]));
            }
            ok([g[0], hw[0], hw[1], g[3]].into(), ins[0].dtype)
        }
        Prim::LogSoftmax => {
            arity(1)?;
            float(0)?;
            if ins[0].shape.is_empty() {
                return Err("there is no last axis".into());
            }
            Ok(ins[0])
        }
        Prim::Normalize { .. } => {
            arity(1)?;
            float(0)?;
            rank(0, 3)?;
            Ok(ins[0])
        }
        Prim::Rstd { .. } => {
            arity(1)?;
            float(0)?;
            rank(0, 3)?;
            ok([ins[0].shape[0], ins[0].shape[2]].into(), ins[0].dtype)
        }
        Prim::NormalizeGrad => {
            arity(3)?;
            float(0)?;
            same_type()?;
            rank(0, 3)?;
            let x = ins[0].shape;
            if ins[2].shape != x || ins[1].shape[..] != [x[0], x[2]] {
                return Err("the statistics or the cotangent do not fit the image".into());
            }
            Ok(ins[0])
        }
        Prim::Uniform(aval) => {
            arity(1)?;
            index(0)?;
            if ins[0].shape[..] != [2] || !aval.dtype.is_float() {
                return Err("a key is u32[2], the numbers are floating point".into());
            }
            Ok(*aval)
        }
        Prim::Custom(custom) => custom.0.shape(ins),
    }
}

fn matmul(a: &Shape, b: &Shape, [ta, tb]: [bool; 2], interleaved: bool) -> Result<Shape, String> {
    if !matches!((a.len(), b.len()), (2 | 3, 2 | 3)) {
        return Err("the operands are not of rank 2 or 3".into());
    }
    let last = |s: &Shape, t: bool| {
        let [r, c] = [s[if interleaved { 0 } else { s.len() - 2 }], s[s.len() - 1]];
        if t { [c, r] } else { [r, c] }
    };
    let ([m, k], [k2, n]) = (last(a, ta), last(b, tb));
    if k != k2 {
        return Err(format!("the inner sizes {k} and {k2} differ"));
    }
    let axis = usize::from(interleaved);
    let batch = match (a.len(), b.len()) {
        (2, 2) if interleaved => return Err("no operand has a batch".into()),
        (2, 2) => return Ok([m, n].into()),
        (3, 3) if a[axis] != b[axis] => return Err("the batches differ".into()),
        (3, _) => a[axis],
        _ => b[axis],
    };
    Ok(if interleaved { [m, batch, n].into() } else { [batch, m, n].into() })
}

/// The kernels' account of a product of a and b, which are transposed if `[ta, tb]` say so, with the result y.
pub(crate) fn matmul_dims([ta, tb]: [bool; 2], interleaved: bool, a: &Shape, b: &Shape, y: &Shape) -> MatMulDims {
    let rows = |s: &Shape| if interleaved { s[0] } else { s[s.len() - 2] };
    MatMulDims {
        batch: if y.len() == 3 { y[usize::from(interleaved)] } else { 1 },
        m: rows(y),
        n: y[y.len() - 1],
        k: if ta { rows(a) } else { a[a.len() - 1] },
        ta,
        tb,
        a_shared: a.len() == 2,
        b_shared: b.len() == 2,
        interleaved,
    }
}

/// The kernels' account of a convolution; `x` is `[N, H, W, C_in]`.
pub(crate) fn conv_dims(conv: &Conv, x: [usize; 4], kernel: [usize; 2], co: usize) -> Result<ConvDims, String> {
    let groups = conv.groups;
    if groups == 0 || !x[3].is_multiple_of(groups) || !co.is_multiple_of(groups) {
        return Err(format!("{} and {co} channels do not split into {groups} groups", x[3]));
    }
    if conv.stride.contains(&0) || conv.dilation.contains(&0) || kernel.contains(&0) {
        return Err("a stride, dilation or kernel of 0".into());
    }
    Ok(ConvDims {
        n: x[0],
        hw: [x[1], x[2]],
        ci: x[3],
        co,
        kernel,
        stride: conv.stride,
        pad: conv.pad,
        dilation: conv.dilation,
        groups,
    })
}
