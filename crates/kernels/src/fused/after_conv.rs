//! A pass over a convolution's result that nobody else reads: some images at a time are computed, lie in the second-level cache while the pass runs over
//! them, and are never written to memory.

use super::{Fusion, In, Job, Kind, Memory, Operands, Out, conv};
use crate::ConvDims;
use crate::conv::{comes_by_images, conv_by_images};
use crate::par::{Par, SendPtr};
use crate::real::Real;

impl Fusion {
    /// Whether [`crate::fused_conv`] can take such a convolution as input `at` of the pass: it is the whole domain, no sum is taken, and the convolution
    /// is one that comes by images.
    pub fn follows_conv<T: Real>(&self, at: usize, dims: &ConvDims) -> bool {
        self.fits_conv(at, dims) && comes_by_images::<T>(dims)
    }

    fn fits_conv(&self, at: usize, dims: &ConvDims) -> bool {
        let Some([oh, ow]) = dims.out_hw() else { return false };
        let image = oh * ow * dims.co;
        self.sums.is_empty()
            && self.inputs.get(at) == Some(&Kind::Pixels)
            && self.elements == dims.n * image
            && image.is_multiple_of(self.unit(Kind::Pixels))
    }
}

/// What [`super::fused`] computes of the convolution of x with w, as input `at`, and of the other inputs.
///
/// # Panics
/// If a length or a type does not fit, or the two do not go together (see [`Fusion::follows_conv`]).
#[track_caller]
#[expect(clippy::too_many_arguments, reason = "the arguments are those of the two operations")]
pub(crate) fn fused_conv<T: Real>(
    par: Par,
    fusion: &Fusion,
    at: usize,
    ins: &[In<'_, T>],
    params: &[&[T]],
    dims: &ConvDims,
    x: &[T],
    w: &[T],
    outs: &mut [Out<'_, T>],
) {
    assert!(fusion.fits_conv(at, dims), "fused_conv: {dims:?} before another pass");
    let mut operands = Operands::NONE;
    operands.read(fusion, Some(at), ins, params);
    operands.write(fusion, outs);
    let unit = fusion.unit(Kind::Pixels);
    let per_image = fusion.elements / dims.n / unit;
    let stride = unit * size_of::<T>();
    let on_demand = conv(ins).map(|(i, conv)| (i + usize::from(i >= at), conv));
    conv_by_images(par, dims, x, w, &|[first, last], y| {
        let [start, end] = [first, last].map(|image| image * per_image);
        assert_eq!(y.len(), (end - start) * unit, "fused_conv: a piece");
        // Where unit 0 would lie: of the units from `start` to `end`, which alone are read, each lies within y.
        let base = y.as_mut_ptr().cast::<u8>().wrapping_sub(start * stride);
        let mut operands = operands.clone();
        operands.inputs[at] = Memory { pointer: SendPtr::from_raw(base), stride };
        Job { fusion, params, operands: &operands, conv: on_demand, is_kept: true }.piece([start, end], start, None);
    });
}
