//! The forward pass.

use super::correlate::{Correlation, Tap, Weights, are_many};
use super::thin::{Pass, Thin, is_thin};
use super::window::Images;
use super::winograd::strided::{self, Plan};
use super::winograd::{self, Phase, Points};
use super::{ConvDims, Listener, PAR_WORK, Taker, Then};
use crate::Real;
use crate::microkernel::{Kernels, kernels};
use crate::panels::{pack, panels_len};
use crate::par::{Par, SendPtr};
use crate::scratch::{self, Slot};

/// y = x * w (cross-correlation): `y[n, i, j, o] = sum x[n, i s - p + a d, j s - p + b d, c] w[a, b, c, o]`.
///
/// # Panics
/// If a length does not fit `dims` or the output would be empty (see [`ConvDims::out_hw`]).
#[track_caller]
pub(crate) fn conv<T: Real>(par: Par, dims: &ConvDims, x: &[T], w: &[T], y: &mut [T]) {
    let out = dims.check("conv", x.len(), w.len(), y.len());
    let par = if dims.work(out) < PAR_WORK { Par::Seq } else { par };
    forward(kernels(), par, dims, out, x, w, y, Then::Stay);
}

/// [`conv`], of whose pixels a listener hears, of each once.
///
/// # Panics
/// If a length does not fit, or the shape is one that goes another way (see [`tells`]).
#[track_caller]
pub(crate) fn conv_telling<T: Real>(par: Par, dims: &ConvDims, x: &[T], w: &[T], y: &mut [T], listener: Listener<T>) {
    assert!(tells::<T>(dims), "conv_telling: {dims:?}");
    let out = dims.check("conv_telling", x.len(), w.len(), y.len());
    // Who listens works too.
    let is_small = dims.work(out) < PAR_WORK && y.len() < TAKEN;
    forward(kernels(), if is_small { Par::Seq } else { par }, dims, out, x, w, y, Then::Tell(listener));
}

/// Whether [`conv_telling`] computes such a convolution: pixels are done once and for all, some after the other, and it costs nothing that they are.
pub(crate) fn tells<T: Real>(dims: &ConvDims) -> bool {
    let Some(out) = dims.out_hw().filter(|_| !dims.is_empty()) else { return false };
    match way::<T>(kernels(), dims, out) {
        Way::Winograd(_) => true,
        Way::Direct => !is_by_position::<T>(dims, out),
        Way::Strided(plan) => plan.is_worth_by_images(dims),
        Way::Thin => false,
    }
}

/// The forward pass; not every way tells of its pixels, or gives them away, for which y is empty.
#[expect(clippy::too_many_arguments, reason = "the arguments are those of the operation")]
pub(super) fn forward<T: Real>(
    kernels: &'static Kernels<T>,
    par: Par,
    dims: &ConvDims,
    out: [usize; 2],
    x: &[T],
    w: &[T],
    y: &mut [T],
    then: Then<T>,
) {
    if dims.is_empty() {
        y.fill(T::ZERO);
        return;
    }
    match way(kernels, dims, out) {
        Way::Thin if matches!(then, Then::Give(_)) => unreachable!("{dims:?}: thin results are not given away"),
        Way::Thin => {
            let job = Thin { kernels, pass: Pass::Forward, dims, out, source: x, result: SendPtr::new(y) };
            // SAFETY: the lengths were checked by the caller, and y is ours alone.
            unsafe { job.run(par, w) }
        }
        Way::Winograd(points) => by_winograd(kernels, par, dims, out, points, x, w, y, then),
        Way::Strided(plan) => by_strided(kernels, par, dims, out, plan, x, w, y, then),
        Way::Direct => directly(kernels, par, dims, out, x, w, SendPtr::new(y), |job| {
            // SAFETY: the lengths were checked by the caller, and y is ours alone.
            unsafe { Correlation { then, ..job }.run(par) }
        }),
    }
}

/// Whether [`conv_by_images`] can compute such a convolution.
pub(crate) fn comes_by_images<T: Real>(dims: &ConvDims) -> bool {
    let Some(out) = dims.out_hw().filter(|_| !dims.is_empty()) else { return false };
    are_many(dims.n, out[0] * out[1] * dims.co) && tells::<T>(dims)
}

/// Elements of y from which on what takes them is worth several threads.
const TAKEN: usize = 1 << 16;

/// The bits of [`conv`], some images at a time, which `take` is given.
///
/// # Panics
/// If a length does not fit, or the shape is one that goes another way (see [`comes_by_images`]).
#[track_caller]
pub(crate) fn conv_by_images<T: Real>(par: Par, dims: &ConvDims, x: &[T], w: &[T], take: Taker<T>) {
    assert!(comes_by_images::<T>(dims), "conv_by_images: {dims:?}");
    let Some(out) = dims.out_hw() else { unreachable!("a shape that comes by images has an output") };
    dims.check("conv_by_images", x.len(), w.len(), dims.n * out[0] * out[1] * dims.co);
    // Who takes the images works too.
    let is_small = dims.work(out) < PAR_WORK && dims.n * out[0] * out[1] * dims.co < TAKEN;
    let par = if is_small { Par::Seq } else { par };
    forward(kernels(), par, dims, out, x, w, &mut [], Then::Give(take));
}

/// Calls `run` with the direct way, whose weights are packed if that is worth it.
#[expect(clippy::too_many_arguments, reason = "the arguments are those of the operation")]
fn directly<T: Real>(
    kernels: &'static Kernels<T>,
    par: Par,
    dims: &ConvDims,
    out: [usize; 2],
    x: &[T],
    w: &[T],
    y: SendPtr<T>,
    run: impl FnOnce(Correlation<T>),
) {
    direct(kernels, dims, out, x, w, y, |job| {
        let (rows, co, wide) = (dims.taps() * dims.group_ci(), dims.group_co(), kernels.wide);
        if dims.groups == 1 && Weights::<T>::worth_packing(dims.n * out[0] * out[1], co, wide) {
            scratch::with::<T, _>(Slot::Panels, panels_len(rows, co, wide), |packed| {
                pack(par, w, co, co, wide, packed);
                run(Correlation { weights: Weights::packed(packed, [rows, co], wide), ..job });
            });
        } else {
            run(job);
        }
    });
}

/// How a forward pass is computed.
enum Way {
    Thin,
    Winograd(Points),
    Strided(Plan),
    Direct,
}

fn way<T: Real>(kernels: &Kernels<T>, dims: &ConvDims, out: [usize; 2]) -> Way {
    if is_thin(Pass::Forward, dims, out, kernels.lanes) {
        return Way::Thin;
    }
    if let Some(plan) = Plan::if_worth(dims, out, strided::Pass::Forward, kernels.lanes) {
        return Way::Strided(plan);
    }
    let phases = dims.stride[0] * dims.stride[1];
    let points = winograd::points(dims, out, [phases * dims.ci, dims.co], kernels.lanes);
    points.map_or(Way::Direct, Way::Winograd)
}

/// Whether each number of such a result is one sum over all taps, those on padding included, in order.
pub(super) fn is_plain<T: Real>(dims: &ConvDims, out: [usize; 2]) -> bool {
    matches!(way::<T>(kernels(), dims, out), Way::Direct) && !is_by_position::<T>(dims, out)
}

/// Whether the direct way takes the images position by position.
fn is_by_position<T: Real>(dims: &ConvDims, out: [usize; 2]) -> bool {
    direct::<T, _>(kernels(), dims, out, &[], &[], SendPtr::NULL, |job| job.is_by_position())
}

/// Calls `f` with the direct way.
fn direct<T: Real, R>(
    kernels: &'static Kernels<T>,
    dims: &ConvDims,
    out: [usize; 2],
    x: &[T],
    w: &[T],
    y: SendPtr<T>,
    f: impl FnOnce(Correlation<T>) -> R,
) -> R {
    let (ci, co) = (dims.group_ci(), dims.group_co());
    scratch::with::<Tap, _>(Slot::Taps, dims.taps(), |taps| {
        for (i, tap) in taps.iter_mut().enumerate() {
            let at = |axis: usize, index: usize| (index * dims.dilation[axis]) as isize - dims.pad[axis][0] as isize;
            *tap = Tap { at: [at(0, i / dims.kernel[1]), at(1, i % dims.kernel[1])], row: (i * ci) as isize };
        }
        f(Correlation {
            kernels,
            images: Images { data: x, hw: dims.hw, c: dims.ci },
            n: dims.n,
            cells: out,
            step: dims.stride,
            taps,
            depth: ci,
            groups: dims.groups,
            weights: Weights { data: w, group: co, row: dims.co, panel: kernels.wide },
            cols: co,
            out: y,
            out_origin: 0,
            out_image: out[0] * out[1] * dims.co,
            out_step: [out[1] * dims.co, dims.co],
            then: Then::Stay,
        })
    })
}

/// [`forward`] by these points.
#[expect(clippy::too_many_arguments, reason = "the arguments are those of the operation")]
pub(super) fn by_winograd<T: Real>(
    kernels: &'static Kernels<T>,
    par: Par,
    dims: &ConvDims,
    out: [usize; 2],
    points: Points,
    x: &[T],
    w: &[T],
    y: &mut [T],
    then: Then<T>,
) {
    let stride = dims.stride[0];
    let job = winograd::Correlation {
        kernels,
        n: dims.n,
        x: Images { data: x, hw: dims.hw, c: dims.ci },
        x_stride: stride,
        phases: &Phase::all(dims)[..stride * stride],
        w,
        stride,
        first: [0, 0],
        y_stride: 1,
        out,
        cols: dims.co,
        y: SendPtr::new(y),
        then,
    };
    // SAFETY: y has exactly n x oh x ow x co elements (checked by the caller), and is ours alone.
    unsafe { job.run(winograd::taps(dims), points, par) }
}

/// [`forward`] by this plan.
#[expect(clippy::too_many_arguments, reason = "the arguments are those of the operation")]
pub(super) fn by_strided<T: Real>(
    kernels: &'static Kernels<T>,
    par: Par,
    dims: &ConvDims,
    out: [usize; 2],
    plan: Plan,
    x: &[T],
    w: &[T],
    y: &mut [T],
    then: Then<T>,
) {
    let job = strided::Correlation {
        kernels,
        pass: strided::Pass::Forward,
        plan,
        n: dims.n,
        source: Images { data: x, hw: dims.hw, c: dims.ci },
        w,
        out,
        cols: dims.co,
        result: SendPtr::new(y),
        then,
    };
    // SAFETY: y has exactly n x oh x ow x co elements (checked by the caller), and is ours alone.
    unsafe { job.run(par) }
}
