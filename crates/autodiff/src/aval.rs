//! What is known of a value before it is computed: its shape and its element type.

use std::fmt;
use std::ops::Deref;

/// The largest number of axes of a tensor.
pub const MAX_RANK: usize = 8;

/// Sizes of the axes, outermost first; at most [`MAX_RANK`] of them. Reads like a slice.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    dims: [usize; MAX_RANK],
    rank: usize,
}

impl Shape {
    /// A shape from its sizes.
    ///
    /// # Panics
    /// With more than [`MAX_RANK`] axes.
    #[track_caller]
    pub fn new(sizes: &[usize]) -> Shape {
        assert!(sizes.len() <= MAX_RANK, "a tensor has at most {MAX_RANK} axes, not {}", sizes.len());
        let mut dims = [0; MAX_RANK];
        dims[..sizes.len()].copy_from_slice(sizes);
        Shape { dims, rank: sizes.len() }
    }

    /// Number of elements: the product of the sizes, 1 for a scalar.
    pub fn elements(&self) -> usize {
        self.iter().product()
    }

    /// Distance in elements between neighbours along each axis, in row-major order.
    pub fn strides(&self) -> Shape {
        let mut strides = *self;
        let mut step = 1;
        for axis in (0..self.rank).rev() {
            strides.dims[axis] = step;
            step *= self.dims[axis];
        }
        strides
    }

    /// The shape with `size` in place of the size of `axis`.
    #[track_caller]
    pub fn with(mut self, axis: usize, size: usize) -> Shape {
        assert!(axis < self.rank, "axis {axis} of {self}");
        self.dims[axis] = size;
        self
    }

    /// The shape both broadcast to by numpy's rule (aligned at the last axis, a size of 1 stretches), or `None`.
    pub fn broadcast(&self, other: &Shape) -> Option<Shape> {
        let rank = self.rank.max(other.rank);
        let mut out = Shape { dims: [0; MAX_RANK], rank };
        for back in 1..=rank {
            let a = if back <= self.rank { self.dims[self.rank - back] } else { 1 };
            let b = if back <= other.rank { other.dims[other.rank - back] } else { 1 };
            out.dims[rank - back] = match (a, b) {
                (1, b) => b,
                (a, 1) => a,
                (a, b) if a == b => a,
                _ => return None,
            };
        }
        Some(out)
    }

    /// Strides that read a tensor of this shape as one of shape `to`: 0 along every axis that it stretches over.
    pub fn broadcast_strides(&self, to: &Shape) -> Shape {
        let own = self.strides();
        let mut out = Shape { dims: [0; MAX_RANK], rank: to.rank };
        let lead = to.rank - self.rank;
        for axis in lead..to.rank {
            out.dims[axis] = if self.dims[axis - lead] == 1 { 0 } else { own.dims[axis - lead] };
        }
        out
    }
}

impl Deref for Shape {
    type Target = [usize];
    fn deref(&self) -> &[usize] {
        &self.dims[..self.rank]
    }
}

impl From<&[usize]> for Shape {
    #[track_caller]
    fn from(sizes: &[usize]) -> Shape {
        Shape::new(sizes)
    }
}

impl From<&Vec<usize>> for Shape {
    #[track_caller]
    fn from(sizes: &Vec<usize>) -> Shape {
        Shape::new(sizes)
    }
}

impl From<Vec<usize>> for Shape {
    #[track_caller]
    fn from(sizes: Vec<usize>) -> Shape {
        Shape::new(&sizes)
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    #[track_caller]
    fn from(sizes: [usize; N]) -> Shape {
        Shape::new(&sizes)
    }
}

impl From<&Shape> for Shape {
    fn from(shape: &Shape) -> Shape {
        *shape
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Type of the elements: `f32` for work, `f64` for gradient checks, `u32` for labels and indices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// 32-bit floating point.
    F32,
    /// 64-bit floating point.
    F64,
    /// 32-bit unsigned integers.
    U32,
}

impl DType {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            DType::F32 | DType::U32 => 4,
            DType::F64 => 8,
        }
    }

    /// Whether gradients flow through values of this type.
    pub fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F64)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DType::F32 => "f32",
            DType::F64 => "f64",
            DType::U32 => "u32",
        })
    }
}

/// Abstract value: everything about a tensor but its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Aval {
    /// Sizes of the axes.
    pub shape: Shape,
    /// Type of the elements.
    pub dtype: DType,
}

impl Aval {
    /// An abstract value.
    #[track_caller]
    pub fn new(shape: impl Into<Shape>, dtype: DType) -> Aval {
        Aval { shape: shape.into(), dtype }
    }

    /// Bytes that the numbers take.
    pub fn bytes(&self) -> usize {
        self.shape.elements() * self.dtype.size()
    }
}

impl fmt::Display for Aval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.dtype, self.shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcasting_follows_numpy() {
        let b = |x: &[usize], y: &[usize]| Shape::new(x).broadcast(&Shape::new(y)).map(|s| s.to_vec());
        assert_eq!(b(&[2, 1, 3], &[4, 1]), Some(vec![2, 4, 3]));
        assert_eq!(b(&[], &[5]), Some(vec![5]));
        assert_eq!(b(&[0], &[1]), Some(vec![0]));
        assert_eq!(b(&[2], &[3]), None);
        assert_eq!(&*Shape::new(&[3, 1]).broadcast_strides(&Shape::new(&[2, 3, 4])), &[0, 1, 0]);
    }
}
