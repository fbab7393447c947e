//! Two-dimensional convolutions and their two adjoints: images NHWC, weights HWIO, so that the SIMD lanes run over channels.
//!
//! No column matrix is written out. The forward pass and the input gradient are one driver ([`correlate`]), because the input gradient of
//! a convolution of stride s is s x s correlations of stride 1, one for each class of input pixels with the same remainder; the weight
//! gradient ([`weight_grad`]) is a product with the pixels as the summed axis. A result with few channels has a way of its own ([`thin`]), and
//! so do 3 x 3 taps at stride 1 and 2 and 4 x 4 at stride 2 ([`winograd`]). Where many taps fall on padding, the images of a batch are taken
//! position by position ([`positions`], [`weight_positions`]). A result of few terms a pixel may be computed where it is read
//! ([`on_demand`]). All end in [`crate::microkernel`].

mod correlate;
mod forward;
mod input_grad;
mod on_demand;
mod positions;
#[cfg(test)]
mod tests;
mod thin;
mod weight_grad;
mod weight_positions;
mod window;
mod winograd;

pub(crate) use forward::{comes_by_images, conv, conv_by_images, conv_telling, tells};
pub(crate) use input_grad::conv_input_grad;
pub use on_demand::OnDemand;
pub(crate) use on_demand::Reader;
pub(crate) use weight_grad::{conv_weight_grad, conv_weight_grad_of, goes_by_images};

use crate::par::SendPtr;

/// The shape of a convolution: x `[n, h, w, ci]`, weights `[kh, kw, ci / groups, co]`, y `[n, oh, ow, co]`.
///
/// Group i reads the i-th `ci / groups` input channels and writes the i-th `co / groups` output channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConvDims {
    /// Images.
    pub n: usize,
    /// Height and width of x.
    pub hw: [usize; 2],
    /// Channels of x.
    pub ci: usize,
    /// Channels of y.
    pub co: usize,
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
    /// Vertical and horizontal stride.
    pub stride: [usize; 2],
    /// Zero padding: `[[top, bottom], [left, right]]`.
    pub pad: [[usize; 2]; 2],
    /// Vertical and horizontal distance between kernel taps.
    pub dilation: [usize; 2],
    /// Groups; divides `ci` and `co`.
    pub groups: usize,
}

impl ConvDims {
    /// Height and width of y; `None` if a kernel, stride or dilation is 0 or the dilated kernel is larger than the padded image.
    pub fn out_hw(&self) -> Option<[usize; 2]> {
        let axis = |i: usize| {
            let reach = self.kernel[i].checked_sub(1)?.checked_mul(self.dilation[i].checked_sub(1)? + 1)?;
            let room = (self.hw[i] + self.pad[i][0] + self.pad[i][1]).checked_sub(reach + 1)?;
            Some(room.checked_div(self.stride[i])? + 1)
        };
        Some([axis(0)?, axis(1)?])
    }

    /// Whether there is no image, weight or result.
    fn is_empty(&self) -> bool {
        [self.n, self.ci, self.co, self.hw[0], self.hw[1], self.taps(), self.groups].contains(&0)
    }

    /// Input channels of a group.
    fn group_ci(&self) -> usize {
        self.ci / self.groups
    }

    /// Output channels of a group.
    fn group_co(&self) -> usize {
        self.co / self.groups
    }

    /// Kernel positions.
    fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Checks the three lengths and gives the size of y.
    ///
    /// # Panics
    /// If the geometry is impossible or a slice has another length.
    #[track_caller]
    fn check(&self, op: &str, x: usize, w: usize, y: usize) -> [usize; 2] {
        let Some([oh, ow]) = self.out_hw() else {
            panic!("{op}: no output for {self:?}");
        };
        assert!(
            self.groups > 0 && self.ci.is_multiple_of(self.groups) && self.co.is_multiple_of(self.groups),
            "{op}: groups must divide the channels of {self:?}"
        );
        assert_eq!(x, self.n * self.hw[0] * self.hw[1] * self.ci, "{op}: length of x for {self:?}");
        assert_eq!(w, self.taps() * self.group_ci() * self.co, "{op}: length of the weights for {self:?}");
        assert_eq!(y, self.n * oh * ow * self.co, "{op}: length of y for {self:?}");
        [oh, ow]
    }

    /// Multiply-adds of a pass.
    fn work(&self, out: [usize; 2]) -> usize {
        self.n * out[0] * out[1] * self.taps() * self.group_ci() * self.co
    }
}

/// Hears which pixels of a result, over all images, are written, `[first, last)`, on whatever thread wrote them; and where the result begins, which
/// whoever writes it has borrowed. It may read these pixels, which nobody writes to any more, from then on.
type Listener<'a, T> = &'a (dyn Fn(SendPtr<T>, [usize; 2]) + Sync);

/// Is given some images of a result, which of them, `[first, last)`, and all their elements, on whatever thread computed them.
type Taker<'a, T> = &'a (dyn Fn([usize; 2], &mut [T]) + Sync);

/// What becomes of a result, each of whose pixels is heard of, or given, once.
#[derive(Clone, Copy)]
enum Then<'a, T> {
    /// It stays where it is written.
    Stay,
    /// It stays there, and somebody hears of its pixels.
    Tell(Listener<'a, T>),
    /// It is given away some images at a time, each in memory of the thread's own, and written nowhere else.
    Give(Taker<'a, T>),
}

/// Multiply-adds below which a pass stays on one thread: about 30 us of arithmetic, a few times what it costs to wake the pool.
const PAR_WORK: usize = 1 << 20;
