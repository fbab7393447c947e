//! The closed set of primitives. Each concern is one exhaustive table over it: `shape.rs` (what comes out), `eval.rs` (which
//! kernel), `vjp.rs` (the gradient, in primitives), `vmap.rs` (many entries at once, in primitives). A new primitive does not compile until each table has its row.

use std::fmt;
use std::sync::Arc;

use crate::aval::{Aval, DType, Shape};
use crate::tape::Var;
use crate::view::{SliceMut, View};

pub use metaforge_kernels::{Binary, Unary, Window};

/// How a two-dimensional convolution moves over its image. Images are `[N, H, W, C]`, weights `[KH, KW, C_in / groups, C_out]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv {
    /// Rows and columns between neighbouring outputs.
    pub stride: [usize; 2],
    /// Rows of zeros above and below, columns of zeros left and right.
    pub pad: [[usize; 2]; 2],
    /// Rows and columns between neighbouring taps of the kernel.
    pub dilation: [usize; 2],
    /// Channel groups that do not see each other.
    pub groups: usize,
}

impl Conv {
    /// Stride 1, no padding, no dilation, one group.
    pub fn new() -> Conv {
        Conv { stride: [1; 2], pad: [[0; 2]; 2], dilation: [1; 2], groups: 1 }
    }

    /// The same stride along both axes.
    pub fn stride(self, stride: usize) -> Conv {
        Conv { stride: [stride; 2], ..self }
    }

    /// The same padding on all four sides.
    pub fn pad(self, pad: usize) -> Conv {
        Conv { pad: [[pad; 2]; 2], ..self }
    }

    /// The same dilation along both axes.
    pub fn dilation(self, dilation: usize) -> Conv {
        Conv { dilation: [dilation; 2], ..self }
    }

    /// A number of channel groups.
    pub fn groups(self, groups: usize) -> Conv {
        Conv { groups, ..self }
    }

    /// TensorFlow's 'same' padding: the output has `ceil(size / stride)` rows and columns, an odd row of zeros goes below.
    pub fn same(mut self, hw: [usize; 2], kernel: [usize; 2]) -> Conv {
        for axis in 0..2 {
            let out = hw[axis].div_ceil(self.stride[axis]);
            let reach = (kernel[axis] - 1) * self.dilation[axis] + 1;
            let total = ((out - 1) * self.stride[axis] + reach).saturating_sub(hw[axis]);
            self.pad[axis] = [total / 2, total - total / 2];
        }
        self
    }
}

impl Default for Conv {
    fn default() -> Conv {
        Conv::new()
    }
}

/// A primitive operation: inputs in, one value out.
#[derive(Clone, Debug, PartialEq)]
pub enum Prim {
    /// `op(x)`, element by element.
    Unary(Unary),
    /// `op(a, b)`, element by element, with numpy broadcasting.
    Binary(Binary),
    /// `cond != 0 ? a : b`, with numpy broadcasting.
    Select,
    /// The same numbers in another type.
    Cast(DType),
    /// The value, of which no gradient flows back.
    StopGradient,
    /// The first operand, not before all others are there. A program computes what comes after it anew, even if it has the same
    /// numbers already: see [`crate::Tape::checkpoint`].
    Barrier,
    /// The same numbers in another shape.
    Reshape(Shape),
    /// Axis `i` of the output is axis `axes[i]` of the input.
    Permute(Shape),
    /// Stretched to a shape by numpy's rule.
    Broadcast(Shape),
    /// Summed to a shape that broadcasts to the input's: the adjoint of [`Prim::Broadcast`].
    SumTo(Shape),
    /// `len` entries from `start` on along one axis.
    Slice {
        /// The axis that is cut.
        axis: usize,
        /// First entry kept.
        start: usize,
        /// Entries kept.
        len: usize,
    },
    /// Zeros before and after along one axis: the adjoint of [`Prim::Slice`].
    Pad {
        /// The axis that grows.
        axis: usize,
        /// Zeros before.
        before: usize,
        /// Zeros after.
        after: usize,
    },
    /// Reversed along one axis.
    Flip {
        /// The axis that is reversed.
        axis: usize,
    },
    /// The inputs one behind the other along one axis.
    Concat {
        /// The axis that grows.
        axis: usize,
    },
    /// Index of the first maximum along the last axis.
    Argmax,
    /// Rows `[B, I, W]` of `x [B, R, W]` that `indices [B, I]` name.
    Gather,
    /// `g [B, I, W]` added into zeros `[B, rows, W]` at the rows that `indices [B, I]` name: the adjoint of [`Prim::Gather`].
    ScatterAdd {
        /// Rows of the output.
        rows: usize,
    },
    /// Matrix product of the last two axes; rank 2, or rank 3 with a batch (a rank-2 operand serves the whole batch).
    MatMul {
        /// The first operand is transposed.
        ta: bool,
        /// The second operand is transposed.
        tb: bool,
        /// The batch is the second of three axes instead of the first, in the operands and in the result; one operand at least has it.
        interleaved: bool,
    },
    /// `x [N, H, W, C_in]`, `w` → `[N, OH, OW, C_out]`.
    Conv(Conv),
    /// `g [N, OH, OW, C_out]`, `w` → `[N, H, W, C_in]`: the adjoint in the image, which is the transposed convolution.
    ConvInputGrad {
        /// The convolution of which this is the adjoint.
        conv: Conv,
        /// Rows and columns of the output.
        hw: [usize; 2],
    },
    /// `x`, `g` → `[KH, KW, C_in / groups, C_out]`: the adjoint in the weights.
    ConvWeightGrad {
        /// The convolution of which this is the adjoint.
        conv: Conv,
        /// Rows and columns of the kernel.
        kernel: [usize; 2],
    },
    /// Index of the first maximum of each window, within its image's `H * W * C` numbers.
    MaxPoolIndices(Window),
    /// Sum over each window; padding counts as zero.
    SumPool(Window),
    /// The adjoint of [`Prim::SumPool`].
    SumUnpool {
        /// The windows.
        window: Window,
        /// Rows and columns of the output.
        hw: [usize; 2],
    },
    /// `x - log(sum(exp(x)))` along the last axis.
    LogSoftmax,
    /// `(x - mean) / sqrt(var + eps)` over the middle axis of `[outer, R, C]`, biased variance.
    Normalize {
        /// Added to the variance.
        eps: f64,
    },
    /// `1 / sqrt(var + eps)` over the middle axis of `[outer, R, C]` → `[outer, C]`.
    Rstd {
        /// Added to the variance.
        eps: f64,
    },
    /// `rstd * (g - mean(g) - xhat * mean(g * xhat))` of `xhat`, `rstd`, `g`: the gradient of [`Prim::Normalize`].
    NormalizeGrad,
    /// Numbers uniform in [0, 1) from a key `u32[2]`; element `i` depends on the key and `i` alone.
    Uniform(Aval),
    /// A user's own operation.
    Custom(CustomPrim),
}

/// A user's own operation, with its own shape rule, kernel and gradient rule.
pub trait Custom: fmt::Debug + Send + Sync {
    /// Name in error messages and printed programs.
    fn name(&self) -> &str;
    /// Shape and type of the output, or why there is none.
    fn shape(&self, inputs: &[Aval]) -> Result<Aval, String>;
    /// Writes every element of `out`.
    fn eval(&self, inputs: &[View<'_>], out: SliceMut<'_>);
    /// A cotangent for each input from the output's cotangent `g`, in operations on `Var`s; `None` is zero.
    fn vjp<'t>(&self, inputs: &[Var<'t>], out: Var<'t>, g: Var<'t>) -> Vec<Option<Var<'t>>>;
}

/// A shared [`Custom`]; two are equal if they are the same object.
#[derive(Clone, Debug)]
pub struct CustomPrim(pub Arc<dyn Custom>);

impl PartialEq for CustomPrim {
    fn eq(&self, other: &CustomPrim) -> bool {
        std::ptr::addr_eq(Arc::as_ptr(&self.0), Arc::as_ptr(&other.0))
    }
}

impl fmt::Display for Prim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Prim::Unary(op) => write!(f, "{op:?}"),
            Prim::Binary(op) => write!(f, "{op:?}"),
            Prim::MatMul { ta, tb, interleaved: false } => write!(f, "MatMul {{ ta: {ta}, tb: {tb} }}"),
            Prim::Custom(custom) => f.write_str(custom.0.name()),
            other => write!(f, "{other:?}"),
        }
    }
}
