//! The adjoint of the convolution in its input, which is the transposed convolution.
//!
//! An input row i receives from output row o through tap a where `o s + a d = i + p`. Input rows with one remainder of `(i + p) mod s` share
//! their taps, and along them o grows by one: a correlation of stride 1 over the output gradient for each class of pixels.
//! Each input pixel gathers, so nothing is added by two threads.

use super::correlate::{Correlation, Tap, Weights};
use super::thin::{Pass, Thin, is_thin};
use super::window::Images;
use super::winograd::strided::{self, Plan};
use super::winograd::{self, Phase, Points};
use super::{ConvDims, PAR_WORK, Then};
use crate::Real;
use crate::microkernel::{Kernels, kernels};
use crate::panels::panels_len;
use crate::par::{Par, SendPtr, for_each_chunk};
use crate::scratch::{self, Slot};
use crate::transpose::transpose_strided;

/// Weights that a thread turns at a time: some 10 us.
const TURN_GRAIN: usize = 1 << 15;

/// dx, the adjoint of [`super::conv`] in x: `<conv(x, w), g> = <x, dx>`. With `g` as input it is the transposed convolution to an
/// image of size `dims.hw`.
///
/// # Panics
/// If a length does not fit `dims` or the output would be empty (see [`ConvDims::out_hw`]).
#[track_caller]
pub(crate) fn conv_input_grad<T: Real>(par: Par, dims: &ConvDims, g: &[T], w: &[T], dx: &mut [T]) {
    let out = dims.check("conv_input_grad", dx.len(), w.len(), g.len());
    let par = if dims.work(out) < PAR_WORK { Par::Seq } else { par };
    input_grad(kernels(), par, dims, out, g, w, dx);
}

pub(super) fn input_grad<T: Real>(
    kernels: &'static Kernels<T>,
    par: Par,
    dims: &ConvDims,
    out: [usize; 2],
    g: &[T],
    w: &[T],
    dx: &mut [T],
) {
    if g.is_empty() || w.is_empty() || dx.is_empty() {
        dx.fill(T::ZERO);
        return;
    }
    if is_thin(Pass::InputGrad, dims, out, kernels.lanes) {
        let job = Thin { kernels, pass: Pass::InputGrad, dims, out, source: g, result: SendPtr::new(dx) };
        // SAFETY: the lengths were checked by the caller, and dx is ours alone.
        return unsafe { job.run(par, w) };
    }
    let pixels = [0, 1].map(|i| dims.hw[i].div_ceil(dims.stride[i]));
    if let Some(points) = winograd::points(dims, pixels, [dims.co, dims.ci], kernels.lanes) {
        return by_winograd(kernels, par, dims, out, points, g, w, dx);
    }
    if let Some(plan) = Plan::if_worth(dims, out, strided::Pass::InputGrad, kernels.lanes) {
        return by_strided(kernels, par, dims, out, plan, g, w, dx);
    }
    let dx = SendPtr::new(dx);
    let (rows, cols) = (dims.taps() * dims.group_co(), dims.group_ci());
    let wide = cols.min(kernels.wide);
    scratch::with::<T, _>(Slot::Weights, dims.groups * panels_len(rows, cols, wide), |turned| {
        turn(par, dims, w, wide, turned);
        let turned = Weights::packed(turned, [rows, cols], wide);
        for top in 0..dims.stride[0].min(dims.hw[0]) {
            for left in 0..dims.stride[1].min(dims.hw[1]) {
                class(kernels, par, dims, out, g, turned, dx, [top, left]);
            }
        }
    });
}

/// [`input_grad`] by these points.
#[expect(clippy::too_many_arguments, reason = "the arguments are those of the operation")]
pub(super) fn by_winograd<T: Real>(
    kernels: &'static Kernels<T>,
    par: Par,
    dims: &ConvDims,
    out: [usize; 2],
    points: Points,
    g: &[T],
    w: &[T],
    dx: &mut [T],
) {
    let stride = dims.stride[0];
    let dx = SendPtr::new(dx);
    scratch::with::<T, _>(Slot::Weights, w.len(), |turned| {
        turn(par, dims, w, dims.ci, turned);
        for first in (0..stride * stride).map(|i| [i / stride, i % stride]) {
            if first[0] >= dims.hw[0] || first[1] >= dims.hw[1] {
                continue;
            }
            let job = winograd::Correlation {
                kernels,
                n: dims.n,
                x: Images { data: g, hw: out, c: dims.co },
                x_stride: 1,
                phases: &[Phase::of_class(dims, first)],
                w: turned,
                stride,
                first,
                y_stride: stride,
                out: dims.hw,
                cols: dims.ci,
                y: dx,
                then: Then::Stay,
            };
            // SAFETY: dx has exactly n x h x w x ci elements (checked by the caller), and is ours alone; classes run one after the other.
            unsafe { job.run(winograd::taps(dims), points, par) }
        }
    });
}

/// [`input_grad`] by this plan.
#[expect(clippy::too_many_arguments, reason = "the arguments are those of the operation")]
pub(super) fn by_strided<T: Real>(
    kernels: &'static Kernels<T>,
    par: Par,
    dims: &ConvDims,
    out: [usize; 2],
    plan: Plan,
    g: &[T],
    w: &[T],
    dx: &mut [T],
) {
    let dx = SendPtr::new(dx);
    scratch::with::<T, _>(Slot::Weights, w.len(), |turned| {
        turn(par, dims, w, dims.ci, turned);
        let job = strided::Correlation {
            kernels,
            pass: strided::Pass::InputGrad,
            plan,
            n: dims.n,
            source: Images { data: g, hw: out, c: dims.co },
            w: turned,
            out: dims.hw,
            cols: dims.ci,
            result: dx,
            then: Then::Stay,
        };
        // SAFETY: dx has exactly n x h x w x ci elements (checked by the caller), and is ours alone.
        unsafe { job.run(par) }
    });
}

/// `[tap, ci, group, co]` to `[group, ci / wide, tap, co, wide]`, the taps backwards: in that order they also follow each other in the source. What lies
/// beyond the last of the ci is left as it is.
fn turn<T: Real>(par: Par, dims: &ConvDims, w: &[T], wide: usize, turned: &mut [T]) {
    let (ci, co) = (dims.group_ci(), dims.group_co());
    let cell = wide * co;
    let panels = ci.div_ceil(wide);
    let together = TURN_GRAIN.div_ceil(cell);
    for_each_chunk(par, turned, together * cell, |start, cells| {
        for (i, to) in cells.chunks_exact_mut(cell).enumerate() {
            let (panel, tap) = ((start / cell + i) / dims.taps(), (start / cell + i) % dims.taps());
            let (group, first) = (panel / panels, panel % panels * wide);
            let from = ((dims.taps() - 1 - tap) * ci + first) * dims.co + group * co;
            transpose_strided(&w[from..], dims.co, (ci - first).min(wide), co, to, wide);
        }
    });
}

/// The input pixels `(top + i s, left + j s)`, from the turned weights.
#[expect(clippy::too_many_arguments, reason = "one call site, and the arguments are those of the operation")]
fn class<T: Real>(
    kernels: &'static Kernels<T>,
    par: Par,
    dims: &ConvDims,
    out: [usize; 2],
    g: &[T],
    turned: Weights<T>,
    dx: SendPtr<T>,
    first: [usize; 2],
) {
    let (ci, co) = (dims.group_ci(), dims.group_co());
    let [kh, kw] = dims.kernel;
    // Where tap `index` of an axis reads, if it meets this class.
    let at = |axis: usize, index: usize| {
        let offset = (first[axis] + dims.pad[axis][0]) as isize - (index * dims.dilation[axis]) as isize;
        let stride = dims.stride[axis] as isize;
        (offset.rem_euclid(stride) == 0).then_some(offset.div_euclid(stride))
    };
    scratch::with::<Tap, _>(Slot::Taps, dims.taps(), |taps| {
        let mut count = 0;
        for tap in (0..dims.taps()).rev() {
            if let (Some(row), Some(col)) = (at(0, tap / kw), at(1, tap % kw)) {
                taps[count] = Tap { at: [row, col], row: ((kh * kw - 1 - tap) * co) as isize };
                count += 1;
            }
        }
        let job = Correlation {
            kernels,
            images: Images { data: g, hw: out, c: dims.co },
            n: dims.n,
            cells: [0, 1].map(|i| (dims.hw[i] - first[i]).div_ceil(dims.stride[i])),
            step: [1, 1],
            taps: &taps[..count],
            depth: co,
            groups: dims.groups,
            weights: turned,
            cols: ci,
            out: dx,
            out_origin: (first[0] * dims.hw[1] + first[1]) * dims.ci,
            out_image: dims.hw[0] * dims.hw[1] * dims.ci,
            out_step: [dims.stride[0] * dims.hw[1] * dims.ci, dims.stride[1] * dims.ci],
            then: Then::Stay,
        };
        // SAFETY: dx has exactly n x h x w x ci elements, and the weights those of every tap (both checked by the caller); classes run
        // one after the other and share no pixel.
        unsafe { job.run(par) }
    });
}
