//! Borrowed numbers with their type as a run-time tag: what the evaluation table hands to the kernels.

use crate::aval::{Aval, DType};

/// Borrowed numbers of one type.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Slice<'a> {
    F32(&'a [f32]),
    F64(&'a [f64]),
    U32(&'a [u32]),
}

impl<'a> Slice<'a> {
    pub(crate) fn of(dtype: DType, bytes: &'a [u8]) -> Slice<'a> {
        match dtype {
            DType::F32 => Slice::F32(bytemuck::cast_slice(bytes)),
            DType::F64 => Slice::F64(bytemuck::cast_slice(bytes)),
            DType::U32 => Slice::U32(bytemuck::cast_slice(bytes)),
        }
    }
}

/// Numbers to be written, of one type.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum SliceMut<'a> {
    F32(&'a mut [f32]),
    F64(&'a mut [f64]),
    U32(&'a mut [u32]),
}

impl<'a> SliceMut<'a> {
    pub(crate) fn of(dtype: DType, bytes: &'a mut [u8]) -> SliceMut<'a> {
        match dtype {
            DType::F32 => SliceMut::F32(bytemuck::cast_slice_mut(bytes)),
            DType::F64 => SliceMut::F64(bytemuck::cast_slice_mut(bytes)),
            DType::U32 => SliceMut::U32(bytemuck::cast_slice_mut(bytes)),
        }
    }
}

/// A borrowed tensor.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Shape and type.
    pub aval: Aval,
    /// The numbers, in row-major order.
    pub data: Slice<'a>,
}

impl<'a> View<'a> {
    /// The numbers of an `f32` view.
    ///
    /// # Panics
    /// If the view is of another type.
    #[track_caller]
    pub fn f32s(&self) -> &'a [f32] {
        match self.data {
            Slice::F32(x) => x,
            _ => panic!("f32s() of a view of {}", self.aval),
        }
    }

    /// The numbers of a `u32` view; panics like [`View::f32s`].
    #[track_caller]
    pub fn u32s(&self) -> &'a [u32] {
        match self.data {
            Slice::U32(x) => x,
            _ => panic!("u32s() of a view of {}", self.aval),
        }
    }

    /// The one number of a view with one element; panics with any other number.
    #[track_caller]
    pub fn item(&self) -> f64 {
        assert_eq!(self.aval.shape.elements(), 1, "item() of {}", self.aval);
        match self.data {
            Slice::F32(x) => x[0].into(),
            Slice::F64(x) => x[0],
            Slice::U32(x) => x[0].into(),
        }
    }

    /// A tensor with a copy of the numbers.
    pub fn to_tensor(&self) -> crate::Tensor {
        let buffer = match self.data {
            Slice::F32(x) => metaforge_kernels::Buffer::copy_of(x),
            Slice::F64(x) => metaforge_kernels::Buffer::copy_of(x),
            Slice::U32(x) => metaforge_kernels::Buffer::copy_of(x),
        };
        crate::Tensor::from_buffer(self.aval, buffer)
    }
}

/// Converts every number to the type of `out`, rounding.
pub(crate) fn cast(x: Slice<'_>, out: SliceMut<'_>) {
    macro_rules! each {
        ($x:ident, $out:ident, $t:ty) => {
            for (o, &v) in $out.iter_mut().zip($x) {
                *o = v as $t;
            }
        };
    }
    match (x, out) {
        (Slice::F32(x), SliceMut::F32(out)) => out.copy_from_slice(x),
        (Slice::F64(x), SliceMut::F64(out)) => out.copy_from_slice(x),
        (Slice::U32(x), SliceMut::U32(out)) => out.copy_from_slice(x),
        (Slice::F32(x), SliceMut::F64(out)) => each!(x, out, f64),
        (Slice::F32(x), SliceMut::U32(out)) => each!(x, out, u32),
        (Slice::F64(x), SliceMut::F32(out)) => each!(x, out, f32),
        (Slice::F64(x), SliceMut::U32(out)) => each!(x, out, u32),
        (Slice::U32(x), SliceMut::F32(out)) => each!(x, out, f32),
        (Slice::U32(x), SliceMut::F64(out)) => each!(x, out, f64),
    }
}

impl<'a> From<&'a mut [f32]> for SliceMut<'a> {
    fn from(x: &'a mut [f32]) -> SliceMut<'a> {
        SliceMut::F32(x)
    }
}

impl<'a> From<&'a mut [f64]> for SliceMut<'a> {
    fn from(x: &'a mut [f64]) -> SliceMut<'a> {
        SliceMut::F64(x)
    }
}
