//! Images `[N, H, W, C]`: convolutions, pooling, upsampling.

use crate::prim::{Conv, Prim, Window};
use crate::tape::Var;

impl<'t> Var<'t> {
    /// Convolution with weights `[KH, KW, C_in / groups, C_out]`: `[N, OH, OW, C_out]`.
    #[track_caller]
    pub fn conv2d(self, weights: Var<'t>, conv: Conv) -> Var<'t> {
        Var::record(Prim::Conv(conv), &[self, weights])
    }

    /// Transposed convolution of `[N, OH, OW, C_out]` to `[N, H, W, C_in]`: the adjoint of the convolution with these weights
    /// `[KH, KW, C_in / groups, C_out]`, which takes an image of `hw` rows and columns to this one's size.
    #[track_caller]
    pub fn conv_transpose2d(self, weights: Var<'t>, conv: Conv, hw: [usize; 2]) -> Var<'t> {
        self.conv_input_grad(weights, conv, hw)
    }

    #[track_caller]
    pub(crate) fn conv_input_grad(self, weights: Var<'t>, conv: Conv, hw: [usize; 2]) -> Var<'t> {
        Var::record(Prim::ConvInputGrad { conv, hw }, &[self, weights])
    }

    #[track_caller]
    pub(crate) fn conv_weight_grad(self, g: Var<'t>, conv: Conv, kernel: [usize; 2]) -> Var<'t> {
        Var::record(Prim::ConvWeightGrad { conv, kernel }, &[self, g])
    }

    /// The largest value of each window: its index, then a gather, so that the gradient goes to the first maximum at any order.
    #[track_caller]
    pub fn max_pool2d(self, window: Window) -> Var<'t> {
        let x = self.shape();
        let indices = Var::record(Prim::MaxPoolIndices(window), &[self]);
        let out = indices.shape();
        let picked = Var::record(
            Prim::Gather,
            &[self.reshape([x[0], x[1] * x[2] * x[3], 1]), indices.reshape([out[0], out[1] * out[2] * out[3]])],
        );
        picked.reshape(out)
    }

    /// The sum of each window; padding counts as zero.
    #[track_caller]
    pub fn sum_pool2d(self, window: Window) -> Var<'t> {
        Var::record(Prim::SumPool(window), &[self])
    }

    /// The mean of each window; padding counts as zero.
    #[track_caller]
    pub fn avg_pool2d(self, window: Window) -> Var<'t> {
        let area = window.kernel[0] * window.kernel[1];
        self.sum_pool2d(window).affine(1.0 / area as f64, 0.0)
    }

    #[track_caller]
    pub(crate) fn sum_unpool2d(self, window: Window, hw: [usize; 2]) -> Var<'t> {
        Var::record(Prim::SumUnpool { window, hw }, &[self])
    }

    /// Every pixel repeated `factor` times along rows and columns.
    #[track_caller]
    pub fn upsample_nearest(self, factor: usize) -> Var<'t> {
        let s = self.shape();
        assert!(s.len() == 4, "upsample_nearest of {}", self.aval());
        // The adjoint of summing windows that do not overlap is repetition.
        let window = Window { kernel: [factor; 2], stride: [factor; 2], pad: [[0; 2]; 2] };
        self.sum_unpool2d(window, [s[1] * factor, s[2] * factor])
    }

    /// Rows and columns of an image.
    pub(crate) fn hw(self) -> [usize; 2] {
        let s = self.shape();
        [s[1], s[2]]
    }

    /// Rows and columns of a kernel.
    pub(crate) fn kernel(self) -> [usize; 2] {
        let s = self.shape();
        [s[0], s[1]]
    }
}
