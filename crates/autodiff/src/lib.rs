//! Tensors, a closed set of primitives, gradients to any order, and compiled programs.
//!
//! ```
//! use metaforge_autodiff::{Tape, Tensor, grad};
//! let tape = Tape::eager();
//! let x = tape.var(&Tensor::new([2], vec![1.0, 2.0]));
//! let y = (x * x * x).sum();
//! let first = grad(y, &[x])[0]; // 3 x^2
//! let second = grad(first.sum(), &[x])[0]; // 6 x
//! assert_eq!(second.value().f32s(), &[6.0, 12.0]);
//! ```
#![forbid(unsafe_code)]

mod aval;
mod check;
mod checkpoint;
mod convert;
mod eval;
mod grad;
mod ops;
mod prim;
mod program;
mod random;
mod regroup;
mod shape;
mod tape;
mod tensor;
mod view;
mod vjp;
mod vmap;

pub use aval::{Aval, DType, MAX_RANK, Shape};
pub use check::check_grads;
pub use grad::{grad, grad_detached, hvp, jvp, vjp};
pub use metaforge_kernels::{Par, attended};
pub use ops::{concat, stack};
pub use prim::{Binary, Conv, Custom, CustomPrim, Prim, Unary, Window};
pub use program::{Pool, Program, Workspace};
pub use random::Key;
pub use shape::shape;
pub use tape::{Tape, Var};
pub use tensor::Tensor;
pub use view::{Slice, SliceMut, View};
pub use vmap::{Arg, Mapped, vmap};
