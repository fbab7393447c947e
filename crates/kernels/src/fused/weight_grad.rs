//! A pass whose one result only a weight gradient reads: it is computed image by image, lies in the second-level cache while it is summed, and is never
//! written to memory.

use super::{Fusion, In, Job, Kind, Memory, Operands};
use crate::ConvDims;
use crate::conv;
use crate::par::{Par, SendPtr};
use crate::real::Real;

impl Fusion {
    /// Whether [`crate::fused_weight_grad`] can take what the pass computes as the gradient of y: it has one result, of the size of y, and the weight
    /// gradient of such a shape goes image by image.
    pub fn feeds_weight_grad<T: Real>(&self, dims: &ConvDims) -> bool {
        let Some([oh, ow]) = dims.out_hw() else { return false };
        let image = oh * ow * dims.co;
        self.sums.is_empty()
            && self.outputs == [Kind::Pixels]
            && self.elements == dims.n * image
            && image.is_multiple_of(self.unit(Kind::Pixels))
            && conv::goes_by_images::<T>(dims)
    }
}

/// `dw [KH, KW, C_in / groups, C_out]`: the bits of a weight gradient by what [`super::fused`] computes.
///
/// # Panics
/// If a length or a type does not fit, or the two do not go together (see [`Fusion::feeds_weight_grad`]).
#[track_caller]
pub(crate) fn fused_weight_grad<T: Real>(
    par: Par,
    fusion: &Fusion,
    ins: &[In<'_, T>],
    params: &[&[T]],
    dims: &ConvDims,
    x: &[T],
    dw: &mut [T],
) {
    assert!(fusion.feeds_weight_grad::<T>(dims), "fused_weight_grad: {dims:?} by another pass");
    let mut operands = Operands::NONE;
    operands.read(fusion, None, ins, params);
    let conv = super::conv(ins);
    let unit = fusion.unit(Kind::Pixels);
    let per_image = fusion.elements / dims.n / unit;
    let stride = unit * size_of::<T>();
    let g_of = |[first, last]: [usize; 2], g: &mut [T]| {
        let [start, end] = [first, last].map(|image| image * per_image);
        assert_eq!(g.len(), (end - start) * unit, "fused_weight_grad: a piece");
        // Where unit 0 would lie: of the units from `start` to `end`, which alone are written, each lies within g.
        let base = g.as_mut_ptr().cast::<u8>().wrapping_sub(start * stride);
        let mut operands = operands.clone();
        operands.outputs[0] = Memory { pointer: SendPtr::from_raw(base), stride };
        Job { fusion, params, operands: &operands, conv, is_kept: false }.piece([start, end], start, None);
    };
    conv::conv_weight_grad_of(par, dims, x, &g_of, dw);
}
