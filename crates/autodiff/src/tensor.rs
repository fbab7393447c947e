//! Tensors: immutable, reference-counted, contiguous in row-major order.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use metaforge_kernels::par::{for_each_chunk, for_each_range};
use metaforge_kernels::{Buffer, Par};

use crate::aval::{Aval, DType, Shape};
use crate::view::{Slice, View};

/// Numbers that are looked at before a search may end.
const BLOCK: usize = 1024;
/// Numbers above which another thread takes a part.
const MANY: usize = 1 << 16;

/// Numbers of one type in a shape. Cloning shares the numbers.
#[derive(Clone)]
pub struct Tensor {
    aval: Aval,
    data: Arc<Buffer>,
}

impl Tensor {
    /// An `f32` tensor.
    ///
    /// # Panics
    /// If the number of values is not the product of the sizes.
    #[track_caller]
    pub fn new(shape: impl Into<Shape>, data: Vec<f32>) -> Tensor {
        Tensor::copy_of(Aval::new(shape, DType::F32), &data)
    }

    /// An `f64` tensor; panics like [`Tensor::new`].
    #[track_caller]
    pub fn from_f64(shape: impl Into<Shape>, data: Vec<f64>) -> Tensor {
        Tensor::copy_of(Aval::new(shape, DType::F64), &data)
    }

    /// A `u32` tensor; panics like [`Tensor::new`].
    #[track_caller]
    pub fn from_u32(shape: impl Into<Shape>, data: Vec<u32>) -> Tensor {
        Tensor::copy_of(Aval::new(shape, DType::U32), &data)
    }

    /// An `f32` tensor whose element `i`, in row-major order, is `f(i)`.
    #[track_caller]
    pub fn from_fn(shape: impl Into<Shape>, f: impl FnMut(usize) -> f32) -> Tensor {
        let aval = Aval::new(shape, DType::F32);
        let mut buffer = Buffer::zeroed(aval.bytes());
        buffer.as_mut_slice::<f32>().iter_mut().zip((0..).map(f)).for_each(|(x, y)| *x = y);
        Tensor::from_buffer(aval, buffer)
    }

    #[track_caller]
    fn copy_of<T: bytemuck::Pod>(aval: Aval, data: &[T]) -> Tensor {
        assert_eq!(
            data.len(),
            aval.shape.elements(),
            "{} values do not fill a tensor of shape {}",
            data.len(),
            aval.shape
        );
        Tensor { aval, data: Arc::new(Buffer::copy_of(data)) }
    }

    /// Wraps a buffer that holds exactly the bytes of `aval`.
    pub(crate) fn from_buffer(aval: Aval, buffer: Buffer) -> Tensor {
        Tensor { aval, data: Arc::new(buffer) }
    }

    /// An `f32` tensor of shape `[]`.
    pub fn scalar(value: f32) -> Tensor {
        Tensor::new([], vec![value])
    }

    /// All zeros.
    #[track_caller]
    pub fn zeros(shape: impl Into<Shape>, dtype: DType) -> Tensor {
        let aval = Aval::new(shape, dtype);
        Tensor::from_buffer(aval, Buffer::zeroed(aval.bytes()))
    }

    /// Every element `value` (rounded to the type).
    #[track_caller]
    pub fn full(shape: impl Into<Shape>, value: f64, dtype: DType) -> Tensor {
        let aval = Aval::new(shape, dtype);
        let mut buffer = Buffer::zeroed(aval.bytes());
        match dtype {
            DType::F32 => buffer.as_mut_slice::<f32>().fill(value as f32),
            DType::F64 => buffer.as_mut_slice::<f64>().fill(value),
            DType::U32 => buffer.as_mut_slice::<u32>().fill(value as u32),
        }
        Tensor::from_buffer(aval, buffer)
    }

    /// Tensors of one shape and type side by side along a new first axis.
    ///
    /// # Panics
    /// Without tensors, or if they differ in shape or type.
    #[track_caller]
    pub fn stack(tensors: &[&Tensor]) -> Tensor {
        let Aval { shape, dtype } = tensors.first().expect("at least one tensor").aval;
        let aval = Aval::new([&[tensors.len()], &shape[..]].concat(), dtype);
        let mut buffer = Buffer::zeroed(aval.bytes());
        let mut rest = buffer.as_mut_slice::<u8>();
        for t in tensors {
            assert_eq!(t.aval, tensors[0].aval, "tensors side by side");
            let (row, others) = rest.split_at_mut(t.bytes().len());
            row.copy_from_slice(t.bytes());
            rest = others;
        }
        Tensor::from_buffer(aval, buffer)
    }

    /// Sizes of the axes.
    pub fn shape(&self) -> &[usize] {
        &self.aval.shape
    }

    /// Type of the elements.
    pub fn dtype(&self) -> DType {
        self.aval.dtype
    }

    /// Shape and type.
    pub fn aval(&self) -> Aval {
        self.aval
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.aval.shape.elements()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The numbers of an `f32` tensor.
    ///
    /// # Panics
    /// If the tensor is of another type.
    #[track_caller]
    pub fn f32s(&self) -> &[f32] {
        assert_eq!(self.aval.dtype, DType::F32, "f32s() of a tensor of {}", self.aval.dtype);
        self.data.as_slice()
    }

    /// The numbers of an `f64` tensor; panics like [`Tensor::f32s`].
    #[track_caller]
    pub fn f64s(&self) -> &[f64] {
        assert_eq!(self.aval.dtype, DType::F64, "f64s() of a tensor of {}", self.aval.dtype);
        self.data.as_slice()
    }

    /// The numbers of a `u32` tensor; panics like [`Tensor::f32s`].
    #[track_caller]
    pub fn u32s(&self) -> &[u32] {
        assert_eq!(self.aval.dtype, DType::U32, "u32s() of a tensor of {}", self.aval.dtype);
        self.data.as_slice()
    }

    /// The raw bytes, in the machine's order.
    pub fn bytes(&self) -> &[u8] {
        self.data.as_slice()
    }

    /// The one number of a tensor with one element.
    ///
    /// # Panics
    /// With any other number of elements.
    #[track_caller]
    pub fn item(&self) -> f64 {
        assert_eq!(self.len(), 1, "item() of a tensor of shape {}", self.aval.shape);
        match self.view().data {
            Slice::F32(x) => x[0].into(),
            Slice::F64(x) => x[0],
            Slice::U32(x) => x[0].into(),
        }
    }

    /// The numbers as `f64`, whatever the type.
    pub fn to_f64_vec(&self) -> Vec<f64> {
        match self.view().data {
            Slice::F32(x) => x.iter().map(|&v| v.into()).collect(),
            Slice::F64(x) => x.to_vec(),
            Slice::U32(x) => x.iter().map(|&v| v.into()).collect(),
        }
    }

    /// The same numbers in another type, rounded; shared when the type is the same.
    pub fn to_dtype(&self, dtype: DType) -> Tensor {
        if dtype == self.dtype() {
            return self.clone();
        }
        let mut out = Buffer::zeroed(Aval { dtype, ..self.aval }.bytes());
        crate::view::cast(self.view().data, crate::view::SliceMut::of(dtype, out.as_mut_slice()));
        Tensor::from_buffer(Aval { dtype, ..self.aval }, out)
    }

    /// The same numbers in another shape, shared.
    ///
    /// # Panics
    /// If the number of elements differs.
    #[track_caller]
    pub fn reshape(&self, shape: impl Into<Shape>) -> Tensor {
        let shape = shape.into();
        assert_eq!(shape.elements(), self.len(), "reshape of {} to {shape}", self.aval.shape);
        Tensor { aval: Aval { shape, dtype: self.aval.dtype }, data: self.data.clone() }
    }

    /// Rows `start..start + len` along the first axis, copied.
    ///
    /// # Panics
    /// If the rows are not there.
    #[track_caller]
    pub fn rows(&self, start: usize, len: usize) -> Tensor {
        assert!(
            self.shape().first().is_some_and(|&r| start + len <= r),
            "rows {start}..{} of {}",
            start + len,
            self.aval
        );
        let row = self.aval.bytes() / self.shape()[0].max(1);
        let buffer = Buffer::copy_of(&self.bytes()[start * row..(start + len) * row]);
        Tensor::from_buffer(Aval { shape: self.aval.shape.with(0, len), dtype: self.dtype() }, buffer)
    }

    /// Whether every number is finite; true for integers. Many numbers are looked at on all threads of the current rayon pool.
    pub fn is_finite(&self) -> bool {
        self.is_finite_by(Par::Rayon)
    }

    /// [`Tensor::is_finite`] on these threads.
    pub(crate) fn is_finite_by(&self, par: Par) -> bool {
        match self.view().data {
            Slice::F32(x) => all(par, x, |v| v.is_finite()),
            Slice::F64(x) => all(par, x, |v| v.is_finite()),
            Slice::U32(_) => true,
        }
    }

    /// Takes over the numbers of a view, on all threads of the current rayon pool if there are many. Where nobody shares this tensor's memory and it has
    /// the view's shape and type, the memory is used again.
    pub fn assign(&mut self, view: View<'_>) {
        self.assign_by(Par::Rayon, view);
    }

    /// [`Tensor::assign`] on these threads.
    pub(crate) fn assign_by(&mut self, par: Par, view: View<'_>) {
        match Arc::get_mut(&mut self.data) {
            Some(buffer) if self.aval == view.aval => match view.data {
                Slice::F32(x) => copy(par, x, buffer.as_mut_slice()),
                Slice::F64(x) => copy(par, x, buffer.as_mut_slice()),
                Slice::U32(x) => copy(par, x, buffer.as_mut_slice()),
            },
            _ => *self = view.to_tensor(),
        }
    }

    /// Its bytes to write, if nobody shares them.
    pub(crate) fn own_bytes(&mut self) -> Option<&mut [u8]> {
        Arc::get_mut(&mut self.data).map(Buffer::as_mut_slice)
    }

    /// The tensor as a borrowed view.
    pub fn view(&self) -> View<'_> {
        View { aval: self.aval, data: Slice::of(self.aval.dtype, self.bytes()) }
    }
}

/// Copies all numbers.
fn copy<T: Copy + Send + Sync>(par: Par, from: &[T], to: &mut [T]) {
    for_each_chunk(par, to, MANY, |start, to| to.copy_from_slice(&from[start..start + to.len()]));
}

/// Whether something holds for all numbers.
fn all<T: Sync>(par: Par, x: &[T], holds: impl Fn(&T) -> bool + Sync) -> bool {
    // Block by block: a search that may end at every number would look at them one by one.
    let so_far = AtomicBool::new(true);
    for_each_range(par, x.len(), MANY, |start, end| {
        if !x[start..end].chunks(BLOCK).all(|x| x.iter().fold(true, |all, v| all & holds(v))) {
            so_far.store(false, Ordering::Relaxed);
        }
    });
    so_far.into_inner()
}

impl PartialEq for Tensor {
    /// Equal shape, type and numbers (as numbers: NaN differs from itself).
    fn eq(&self, other: &Tensor) -> bool {
        self.aval == other.aval && self.view().data == other.view().data
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 16;
        let dots = if self.len() > SHOWN { " …" } else { "" };
        let n = self.len().min(SHOWN);
        write!(f, "{} ", self.aval)?;
        match self.view().data {
            Slice::F32(x) => write!(f, "{:?}{dots}", &x[..n]),
            Slice::F64(x) => write!(f, "{:?}{dots}", &x[..n]),
            Slice::U32(x) => write!(f, "{:?}{dots}", &x[..n]),
        }
    }
}
