//! The third table: the gradient of each primitive, in primitives, so that every derivative can be differentiated again.
//! A rule gives a cotangent for each input and never accumulates; `None` is zero.

use smallvec::{SmallVec, smallvec};

use crate::prim::{Binary, Prim, Unary};
use crate::tape::{Id, Source, Var};

/// Cotangents of the inputs of one equation.
pub(crate) type Cotangents<'t> = SmallVec<[Option<Var<'t>>; 3]>;

/// Cotangents of `xs` from the cotangent `g` of `y = prim(xs)`; `need[i]` tells whether input `i`'s is wanted. Only behind a value that `is_private`
/// may a rule look at what it was computed from: a gradient in any other would be lost.
pub(crate) fn vjp<'t>(
    prim: &Prim,
    xs: &[Var<'t>],
    y: Var<'t>,
    g: Var<'t>,
    need: &[bool],
    is_private: &dyn Fn(Id) -> bool,
) -> Cotangents<'t> {
    let want = |i: usize, rule: &dyn Fn() -> Var<'t>| need[i].then(rule);
    // For broadcasting primitives: a cotangent of the output's shape, summed to that of input `i`.
    let fit = |i: usize, rule: &dyn Fn() -> Var<'t>| need[i].then(|| rule().sum_to(xs[i].shape()));
    match prim {
        Prim::Unary(op) => smallvec![unary(*op, xs[0], y, g)],
        Prim::Binary(op) => {
            let (a, b) = (xs[0], xs[1]);
            match op {
                Binary::Add => smallvec![fit(0, &|| g), fit(1, &|| g)],
                Binary::Sub => smallvec![fit(0, &|| g), fit(1, &|| -g)],
                Binary::Mul => smallvec![fit(0, &|| g * b), fit(1, &|| g * a)],
                Binary::Div => smallvec![fit(0, &|| g / b), fit(1, &|| -(g * y / b))],
                // Ties go to the first operand.
                Binary::Max => smallvec![fit(0, &|| g * a.greater_equal(b)), fit(1, &|| g * b.greater(a))],
                Binary::Min => smallvec![fit(0, &|| g * b.greater_equal(a)), fit(1, &|| g * a.greater(b))],
                Binary::Greater | Binary::GreaterEqual | Binary::Equal => smallvec![None, None],
                // a where b > 0, else slope * a: linear in a.
                Binary::Gate(slope) => smallvec![fit(0, &|| g.gate(b, *slope)), None],
            }
        }
        Prim::Select => {
            let zero = || g.tape().scalar(0.0, g.dtype());
            smallvec![None, fit(1, &|| xs[0].select(g, zero())), fit(2, &|| xs[0].select(zero(), g))]
        }
        Prim::Cast(dtype) => smallvec![dtype.is_float().then(|| g.cast(xs[0].dtype()))],
        Prim::StopGradient | Prim::Argmax | Prim::MaxPoolIndices(_) | Prim::Uniform(_) => smallvec![None],
        Prim::Barrier => {
            let mut cotangents: Cotangents<'t> = smallvec![None; xs.len()];
            cotangents[0] = Some(g);
            cotangents
        }
        Prim::Reshape(_) => smallvec![Some(g.reshape(xs[0].shape()))],
        Prim::Permute(axes) => {
            let mut inverse = vec![0; axes.len()];
            for (i, &axis) in axes.iter().enumerate() {
                inverse[axis] = i;
            }
            smallvec![Some(g.permute(&inverse))]
        }
        Prim::Broadcast(_) => smallvec![Some(g.sum_to(xs[0].shape()))],
        Prim::SumTo(_) => smallvec![Some(g.broadcast_to(xs[0].shape()))],
        &Prim::Slice { axis, start, len } => {
            smallvec![Some(g.pad(axis, start, xs[0].shape()[axis] - start - len))]
        }
        &Prim::Pad { axis, before, .. } => smallvec![Some(g.slice(axis, before, xs[0].shape()[axis]))],
        &Prim::Flip { axis } => smallvec![Some(g.flip(axis))],
        &Prim::Concat { axis } => {
            let mut start = 0;
            let mut cotangents = Cotangents::new();
            for (x, &needed) in xs.iter().zip(need) {
                let len = x.shape()[axis];
                cotangents.push(needed.then(|| g.slice(axis, start, len)));
                start += len;
            }
            cotangents
        }
        Prim::Gather => {
            let rows = xs[0].shape()[1];
            smallvec![Some(Var::record(Prim::ScatterAdd { rows }, &[g, xs[1]])), None]
        }
        Prim::ScatterAdd { .. } => smallvec![Some(Var::record(Prim::Gather, &[g, xs[1]])), None],
        &Prim::MatMul { ta, tb, interleaved } => {
            let (a, b) = (xs[0], xs[1]);
            let product = |a: Var<'t>, b: Var<'t>, ta, tb| match interleaved {
                true => a.matmul_interleaved(b, ta, tb),
                false => a.matmul_t(b, ta, tb),
            };
            let da = || if ta { product(b, g, tb, true) } else { product(g, b, false, !tb) };
            let db = || if tb { product(g, a, true, ta) } else { product(a, g, !ta, false) };
            // A shared operand's cotangent is the sum over the batch.
            let fit = |i: usize, rule: &dyn Fn() -> Var<'t>| match interleaved && xs[i].shape().len() == 2 {
                true => want(i, &|| rule().sum_axes(&[1], false)),
                false => fit(i, rule),
            };
            smallvec![fit(0, &da), fit(1, &db)]
        }
        Prim::Conv(conv) => {
            let (x, w) = (xs[0], xs[1]);
            smallvec![
                want(0, &|| g.conv_input_grad(w, *conv, x.hw())),
                want(1, &|| x.conv_weight_grad(g, *conv, w.kernel()))
            ]
        }
        Prim::ConvInputGrad { conv, .. } => {
            let (h, w) = (xs[0], xs[1]);
            smallvec![want(0, &|| g.conv2d(w, *conv)), want(1, &|| g.conv_weight_grad(h, *conv, w.kernel()))]
        }
        Prim::ConvWeightGrad { conv, .. } => {
            let (x, h) = (xs[0], xs[1]);
            smallvec![want(0, &|| h.conv_input_grad(g, *conv, x.hw())), want(1, &|| x.conv2d(g, *conv))]
        }
        Prim::SumPool(window) => smallvec![Some(g.sum_unpool2d(*window, xs[0].hw()))],
        Prim::SumUnpool { window, .. } => smallvec![Some(g.sum_pool2d(*window))],
        Prim::LogSoftmax => {
            let last = xs[0].shape().len() - 1;
            smallvec![Some(g - y.exp() * g.sum_axes(&[last], true))]
        }
        Prim::Normalize { eps } => {
            let rstd = Var::record(Prim::Rstd { eps: *eps }, &[xs[0]]);
            // The gradient is linear in each column of g, so a column's factor, as of a batch norm, is left to the statistics.
            let (rstd, g) = match scaled_columns(g, is_private) {
                Some((h, scale)) => (rstd * scale, h),
                None => (rstd, g),
            };
            smallvec![Some(Var::record(Prim::NormalizeGrad, &[y, rstd, g]))]
        }
        Prim::Rstd { eps } => {
            // d rstd / dx_i = -rstd^2 * xhat_i / R
            let xhat = Var::record(Prim::Normalize { eps: *eps }, &[xs[0]]);
            let factor = (g * y * y).affine(-1.0 / xs[0].shape()[1].max(1) as f64, 0.0);
            smallvec![Some(xhat * middle(factor))]
        }
        Prim::NormalizeGrad => {
            // y = rstd * (h - mean(h) - xhat * mean(h * xhat)): self-adjoint in h.
            let (xhat, rstd, h) = (xs[0], xs[1], xs[2]);
            let per_row = -1.0 / xhat.shape()[1].max(1) as f64;
            let scale = || rstd.affine(per_row, 0.0);
            let sum = |a: Var<'t>| a.sum_axes(&[1], false);
            let dot = |a: Var<'t>, b: Var<'t>| sum(a * b);
            smallvec![
                want(0, &|| g * middle(dot(h, xhat) * scale()) + h * middle(dot(g, xhat) * scale())),
                // Not by y / rstd, which may be 0 / 0: a batch norm's scale is part of rstd.
                want(1, &|| dot(g, h) + (sum(g) * sum(h) + dot(g, xhat) * dot(h, xhat)).affine(per_row, 0.0)),
                want(2, &|| Var::record(Prim::NormalizeGrad, &[xhat, rstd, g])),
            ]
        }
        Prim::Custom(custom) => {
            let cotangents = custom.0.vjp(xs, y, g);
            assert_eq!(
                cotangents.len(),
                xs.len(),
                "{} gave {} cotangents for {} inputs",
                custom.0.name(),
                cotangents.len(),
                xs.len()
            );
            cotangents.into()
        }
    }
}

/// The cotangent of `y = op(x)`.
fn unary<'t>(op: Unary, x: Var<'t>, y: Var<'t>, g: Var<'t>) -> Option<Var<'t>> {
    Some(match op {
        Unary::Neg => -g,
        Unary::Abs => g * x.sign(),
        Unary::Sign | Unary::Step => return None,
        Unary::Exp => g * y,
        Unary::Log => g / x,
        Unary::Sqrt => g / y.affine(2.0, 0.0),
        Unary::Rsqrt => g * (y * y * y).affine(-0.5, 0.0),
        Unary::Recip => -(g * y * y),
        Unary::Tanh => g * (y * y).affine(-1.0, 1.0),
        Unary::Sigmoid => g * (y * y.affine(-1.0, 1.0)),
        Unary::Softplus => g * x.sigmoid(),
        Unary::Sin => g * x.cos(),
        Unary::Cos => -(g * x.sin()),
        // The output has the sign of the input, and is at hand anyway.
        Unary::Relu => g.gate(y, 0.0),
        Unary::LeakyRelu(slope) => g.gate(if slope >= 0.0 { y } else { x }, slope),
        // A constant: without this row the next one would multiply 0 by the infinity of 1 / 0.
        Unary::Powf(0.0) => return None,
        Unary::Powf(p) => g * x.powf(p - 1.0).affine(p, 0.0),
        Unary::Affine { scale, .. } => g.affine(scale, 0.0),
    })
}

/// Statistics `[outer, C]` as `[outer, 1, C]`, to stand beside `[outer, R, C]`.
fn middle(statistics: Var<'_>) -> Var<'_> {
    let s = statistics.shape();
    statistics.reshape([s[0], 1, s[1]])
}

/// h and s, `[1, C]`, if `g`, `[outer, R, C]`, was recorded as `h * s` with one factor for each column, and is private.
fn scaled_columns<'t>(g: Var<'t>, is_private: &dyn Fn(Id) -> bool) -> Option<(Var<'t>, Var<'t>)> {
    let (tape, shape) = (g.tape, g.shape());
    let c = shape[2];
    // Reshapes may lie between, from images to rows.
    let mut id = g.id;
    let product = loop {
        is_private(id).then_some(())?;
        let step = tape.with_node(id, |node| match &node.source {
            Source::Eqn { prim: Prim::Reshape(_), ins } => Some((ins[0], None)),
            Source::Eqn { prim: Prim::Binary(Binary::Mul), ins } => Some((id, Some([ins[0], ins[1]]))),
            Source::Eqn { .. } | Source::Input(_) | Source::Const(_) => None,
        })?;
        match step {
            (of, None) => id = of,
            (_, Some(ins)) => break ins.map(|id| Var { id, tape }),
        }
    };
    let whole = Var { id, tape }.shape();
    let [a, b] = product;
    let fits = |h: Var<'_>, s: Var<'_>| {
        h.shape() == whole && whole.last() == Some(&c) && s.shape().last() == Some(&c) && s.shape().elements() == c
    };
    let (h, s) = [(a, b), (b, a)].into_iter().find(|&(h, s)| fits(h, s))?;
    Some((h.reshape(shape), s.reshape([1, c])))
}
