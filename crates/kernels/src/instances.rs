//! The kernels' public functions, compiled in this crate for `f32` and `f64`.
//!
//! A generic function is compiled where it is called. These go through a trait whose methods are not generic, so that every
//! caller's build is short and the code is optimised here, once, by this crate's settings.

use crate::fused::{Fusion, In, Out};
use crate::par::Par;
use crate::real::Real;
use crate::{Binary, ConvDims, Finish, MatMulDims, OnDemand, Unary, Window};

macro_rules! instances {
    ($(
        $(#[$attribute:meta])*
        $module:ident :: $name:ident ( $($arg:ident : $type:ty),* $(,)? );
    )*) => {
        /// The kernels for one element type.
        pub trait Instances<T> {
            $( #[doc(hidden)] #[allow(clippy::too_many_arguments)] fn $name($($arg: $type),*); )*
        }

        const _: () = {
            type T = f32;
            impl Instances<T> for T {
                $( #[track_caller] fn $name($($arg: $type),*) { crate::$module::$name::<T>($($arg),*) } )*
            }
        };

        const _: () = {
            type T = f64;
            impl Instances<T> for T {
                $( #[track_caller] fn $name($($arg: $type),*) { crate::$module::$name::<T>($($arg),*) } )*
            }
        };

        $(
            $(#[$attribute])*
            #[allow(clippy::too_many_arguments)]
            #[track_caller]
            #[inline]
            pub fn $name<T: Real>($($arg: $type),*) {
                <T as Instances<T>>::$name($($arg),*)
            }
        )*
    };
}

instances! {
    /// `out[i] = op(x[i])`. Panics if the lengths differ.
    elementwise::unary(par: Par, op: Unary, x: &[T], out: &mut [T]);

    /// `x[i] = op(x[i])`, the same bits as [`unary`].
    elementwise::unary_assign(par: Par, op: Unary, x: &mut [T]);

    /// `out = op(a, b)` with broadcasting.
    ///
    /// `out` is contiguous with `shape`; `a` and `b` are read with the given strides in elements, one an axis, 0 where they are
    /// broadcast. Panics if a length or a rank does not fit.
    elementwise::binary(
        par: Par,
        op: Binary,
        a: &[T],
        a_strides: &[usize],
        b: &[T],
        b_strides: &[usize],
        shape: &[usize],
        out: &mut [T],
    );

    /// `out = cond != 0 ? a : b` with broadcasting, as [`binary`].
    elementwise::select(
        par: Par,
        cond: &[T],
        cond_strides: &[usize],
        a: &[T],
        a_strides: &[usize],
        b: &[T],
        b_strides: &[usize],
        shape: &[usize],
        out: &mut [T],
    );

    /// Sums `x` of `shape` over the axes with `reduced[i]` into `out`, the other axes in order. The error grows with the logarithm
    /// of the number of summands. Panics if a length does not fit.
    reduce::sum_axes(par: Par, x: &[T], shape: &[usize], reduced: &[bool], out: &mut [T]);

    /// Index of the first maximum of each of `rows` rows of `cols`; NaN counts as a maximum. Panics if a length does not fit.
    reduce::argmax_rows(par: Par, x: &[T], rows: usize, cols: usize, out: &mut [u32]);

    /// Zero-fills `out [B, R, W]`, then adds row `i` of `g [B, I, W]` to row `idx[b, i]`, in order of `i`. Panics if an index is
    /// `r` or more.
    gather::scatter_add(par: Par, g: &[T], idx: &[u32], b: usize, i: usize, r: usize, w: usize, out: &mut [T]);

    /// `x - log(sum(exp(x)))` of each of `rows` rows of `cols`.
    softmax::log_softmax_rows(par: Par, x: &[T], rows: usize, cols: usize, out: &mut [T]);

    /// `1 / sqrt(var + eps)` of `x [outer, R, C]` over `R` (biased variance), into `out [outer, C]`.
    norm::rstd(par: Par, x: &[T], outer: usize, r: usize, c: usize, eps: f64, out: &mut [T]);

    /// `(x - mean) / sqrt(var + eps)` of `x [outer, R, C]` over `R`, into `out [outer, R, C]`.
    norm::normalize(par: Par, x: &[T], outer: usize, r: usize, c: usize, eps: f64, out: &mut [T]);

    /// `rstd * (g - mean(g) - xhat * mean(g * xhat))`, means over `R`; `xhat` and `g` are `[outer, R, C]`, `rstd` is `[outer, C]`.
    norm::normalize_grad(par: Par, xhat: &[T], rstd: &[T], g: &[T], outer: usize, r: usize, c: usize, out: &mut [T]);

    /// For each window of `x [N, H, W, C]` the index of its first maximum within its image's `H * W * C` numbers, into
    /// `out [N, OH, OW, C]`; padding never wins.
    pool::max_pool_indices(par: Par, x: &[T], n: usize, hw: [usize; 2], c: usize, window: &Window, out: &mut [u32]);

    /// Sum over each window of `x [N, H, W, C]`, into `out [N, OH, OW, C]`; padding counts as zero.
    pool::sum_pool(par: Par, x: &[T], n: usize, hw: [usize; 2], c: usize, window: &Window, out: &mut [T]);

    /// The adjoint of [`sum_pool`]: `g [N, OH, OW, C]` into `out [N, H, W, C]`, where `hw` is `[H, W]`.
    pool::sum_unpool(par: Par, g: &[T], n: usize, hw: [usize; 2], c: usize, window: &Window, out: &mut [T]);

    /// `out [batch, m, n] = op(a) op(b)`; see [`MatMulDims`]. Panics if a length does not fit.
    matmul::matmul(par: Par, dims: &MatMulDims, a: &[T], b: &[T], out: &mut [T]);

    /// [`matmul`], and what [`Finish`] says of each element of the result. Panics if a length does not fit.
    matmul::matmul_finished(par: Par, dims: &MatMulDims, a: &[T], b: &[T], finish: &Finish<'_, T>, out: &mut [T]);

    /// `y [N, OH, OW, C_out]`: the convolution of `x [N, H, W, C_in]` with `w [KH, KW, C_in / groups, C_out]`.
    conv::conv(par: Par, dims: &ConvDims, x: &[T], w: &[T], y: &mut [T]);

    /// `dx [N, H, W, C_in]`: the adjoint of [`conv`] in the image, which is the transposed convolution of `g [N, OH, OW, C_out]`.
    conv::conv_input_grad(par: Par, dims: &ConvDims, g: &[T], w: &[T], dx: &mut [T]);

    /// `dw [KH, KW, C_in / groups, C_out]`: the adjoint of [`conv`] in the weights.
    conv::conv_weight_grad(par: Par, dims: &ConvDims, x: &[T], g: &[T], dw: &mut [T]);

    /// Runs a fused pass; see [`mod@crate::fused`]. Panics if an operand has not the length or type that the pass was made for.
    fused::fused(par: Par, fusion: &Fusion, ins: &[In<'_, T>], params: &[&[T]], outs: &mut [Out<'_, T>]);

    /// Runs fused passes without sums, none of which waits for another; the operands are those of the first, followed by those of the next.
    /// Panics as [`fused`], and if there are several and one has a sum.
    fused::fused_beside(par: Par, passes: &[Fusion], ins: &[In<'_, T>], params: &[&[T]], outs: &mut [Out<'_, T>]);

    /// `dw [KH, KW, C_in / groups, C_out]`: [`conv_weight_grad`] by what [`fused`] computes, which is never in memory as a whole. Panics unless
    /// [`Fusion::feeds_weight_grad`].
    fused::fused_weight_grad(
        par: Par,
        fusion: &Fusion,
        ins: &[In<'_, T>],
        params: &[&[T]],
        dims: &ConvDims,
        x: &[T],
        dw: &mut [T],
    );

    /// What [`fused`] computes of a convolution, as input `at` of the pass, and of the other inputs; the convolution is never in memory as a whole. Panics
    /// unless [`Fusion::follows_conv`].
    fused::fused_conv(
        par: Par,
        fusion: &Fusion,
        at: usize,
        ins: &[In<'_, T>],
        params: &[&[T]],
        dims: &ConvDims,
        x: &[T],
        w: &[T],
        outs: &mut [Out<'_, T>],
    );

    /// Means and `1 / sqrt(var + eps)` of `x [outer, R, C]` over `R`, both `[outer, C]`: what [`normalize`] uses.
    norm::statistics(par: Par, x: &[T], outer: usize, r: usize, c: usize, eps: f64, mean: &mut [T], rstd: &mut [T]);

    /// [`statistics`] over all pixels of a convolution that is not in memory, both `[C_out]`.
    norm::statistics_of(par: Par, x: &OnDemand<'_, T>, eps: f64, mean: &mut [T], rstd: &mut [T]);

    /// `y [N, OH, OW, C_out]`, as [`conv`] computes it, and its [`statistics`] over all pixels, both `[C_out]`. Panics if a length does
    /// not fit, or unless [`ConvDims::comes_with_statistics`].
    norm::conv_statistics(
        par: Par,
        dims: &ConvDims,
        x: &[T],
        w: &[T],
        eps: f64,
        y: &mut [T],
        mean: &mut [T],
        rstd: &mut [T],
    );

    /// From sums over `R` of `g` and of `g * xhat`, and `rstd`, all `[C]`: the `[slope, shift]` with which
    /// [`normalize_grad`] is `rstd * g + (slope * xhat + shift)`.
    norm::grad_coefficients(sum: &[T], product: &[T], rstd: &[T], r: usize, slope: &mut [T], shift: &mut [T]);

    /// Numbers uniform in [0, 1): element `i` depends on `key` and `i` alone.
    random::uniform(key: [u32; 2], out: &mut [T]);
}
