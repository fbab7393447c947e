//! The adjoint of the convolution in its input, which is the transposed convolution.
//!
//! An input row i receives from output row o through tap a where `o s + a d = i + p`. Input rows with one remainder of `(i + p) mod s` share
//! their taps, and along them o grows by one: a correlation of stride 1 over the output gradient for each class of pixels.
//! Each input pixel gathers, so nothing is added by two threads.

use super::correlate::{Correlation, Tap, Weights};
use super::window::Images;
use super::{ConvDims, PAR_WORK};
use crate::Real;
use crate::microkernel::{DOT, Kernels, kernels};
use crate::par::{Par, SendPtr};
use crate::scratch::{self, Slot};
use crate::transpose::transpose_strided;

/// dx, the adjoint of [`super::conv`] in x: `<conv(x, w), g> = <x, dx>`. With `g` as input it is the transposed convolution to an
/// image of size `dims.hw`.
///
/// # Panics
/// If a length does not fit `dims` or the output would be empty (see [`ConvDims::out_hw`]).
#[track_caller]
pub fn conv_input_grad<T: Real>(par: Par, dims: &ConvDims, g: &[T], w: &[T], dx: &mut [T]) {
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
    if w.is_empty() {
        dx.fill(T::ZERO);
        return;
    }
    let (ci, co) = (dims.group_ci(), dims.group_co());
    // Few input channels: let the lanes run over the output channels, along which the weights lie already.
    let columns = ci <= DOT && co >= 2 * ci && co >= kernels.lanes / 2;
    let dx = SendPtr::new(dx);
    let classes = |w: &[T]| {
        for top in 0..dims.stride[0].min(dims.hw[0]) {
            for left in 0..dims.stride[1].min(dims.hw[1]) {
                class(kernels, par, dims, out, g, w, dx, [top, left], columns);
            }
        }
    };
    if columns {
        classes(w);
    } else {
        // [tap, ci, group, co] to [group, tap, co, ci], the taps backwards: in that order they also follow each other in the source.
        scratch::with::<T, _>(Slot::Weights, w.len(), |turned| {
            let per_group = dims.taps() * ci * co;
            for group in 0..dims.groups {
                for tap in 0..dims.taps() {
                    let from = &w[tap * ci * dims.co + group * co..];
                    let to = group * per_group + (dims.taps() - 1 - tap) * ci * co;
                    transpose_strided(from, dims.co, ci, co, &mut turned[to..to + ci * co], ci);
                }
            }
            classes(turned);
        });
    }
}

/// The input pixels `(top + i s, left + j s)`.
#[expect(clippy::too_many_arguments, reason = "one call site, and the arguments are those of the operation")]
fn class<T: Real>(
    kernels: &'static Kernels<T>,
    par: Par,
    dims: &ConvDims,
    out: [usize; 2],
    g: &[T],
    w: &[T],
    dx: SendPtr<T>,
    first: [usize; 2],
    columns: bool,
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
        for a in (0..kh).rev() {
            for b in (0..kw).rev() {
                if let (Some(row), Some(col)) = (at(0, a), at(1, b)) {
                    let tap = a * kw + b;
                    let weights = if columns { tap * ci * dims.co } else { (dims.taps() - 1 - tap) * ci * co };
                    taps[count] = Tap { at: [row, col], weights: weights as isize };
                    count += 1;
                }
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
            weights: w,
            layout: if columns { Weights::Columns(dims.co) } else { Weights::Rows(ci) },
            weights_group: if columns { co } else { dims.taps() * ci * co },
            cols: ci,
            out: dx,
            out_origin: (first[0] * dims.hw[1] + first[1]) * dims.ci,
            out_image: dims.hw[0] * dims.hw[1] * dims.ci,
            out_step: [dims.stride[0] * dims.hw[1] * dims.ci, dims.stride[1] * dims.ci],
        };
        // SAFETY: dx has exactly n x h x w x ci elements, and the weights those of every tap (both checked by the caller); classes run
        // one after the other and share no pixel.
        unsafe { job.run(par) }
    });
}
