//! To and from `ndarray`, the vocabulary at the edge.

use ndarray::{ArrayD, ArrayViewD, IxDyn};

use crate::Tensor;

impl Tensor {
    /// An `f32` tensor with the array's numbers, in row-major order whatever the array's layout.
    pub fn from_ndarray(array: &ArrayViewD<'_, f32>) -> Tensor {
        let data = match array.as_slice() {
            Some(slice) => slice.to_vec(),
            None => array.iter().copied().collect(),
        };
        Tensor::new(array.shape(), data)
    }

    /// A view of an `f32` tensor as an array, without copying.
    ///
    /// # Panics
    /// If the tensor is of another type.
    #[track_caller]
    pub fn as_ndarray(&self) -> ArrayViewD<'_, f32> {
        ArrayViewD::from_shape(IxDyn(self.shape()), self.f32s()).expect("a tensor is contiguous")
    }

    /// An array with a copy of an `f32` tensor's numbers; panics like [`Tensor::as_ndarray`].
    #[track_caller]
    pub fn to_ndarray(&self) -> ArrayD<f32> {
        self.as_ndarray().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn a_transposed_array_arrives_in_row_major_order() {
        let a = array![[1f32, 2., 3.], [4., 5., 6.]].into_dyn();
        let t = Tensor::from_ndarray(&a.t());
        assert_eq!(t.shape(), &[3, 2]);
        assert_eq!(t.f32s(), &[1., 4., 2., 5., 3., 6.]);
        assert_eq!(t.to_ndarray(), a.t());
    }
}
