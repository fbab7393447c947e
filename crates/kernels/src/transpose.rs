//! Matrix transposition, for the operands whose rows must become columns before a product. Blocks of 8 x 8 f32 are turned in registers
//! where there is AVX: small products spend as long here as in the product itself.

use crate::Real;

/// Side of a block.
const SIDE: usize = 8;

/// `out[j, i] = x[i, j]` for x `[rows, cols]`.
///
/// # Panics
/// If a slice is shorter than that.
pub(crate) fn transpose<T: Real>(x: &[T], rows: usize, cols: usize, out: &mut [T]) {
    transpose_strided(x, cols, rows, cols, out, rows);
}

/// `out[j * out_stride + i] = x[i * x_stride + j]` for i < rows, j < cols.
///
/// # Panics
/// If an index lies outside its slice.
pub(crate) fn transpose_strided<T: Real>(
    x: &[T],
    x_stride: usize,
    rows: usize,
    cols: usize,
    out: &mut [T],
    out_stride: usize,
) {
    if rows == 0 || cols == 0 {
        return;
    }
    assert!((rows - 1) * x_stride + cols <= x.len() && (cols - 1) * out_stride + rows <= out.len());
    // SAFETY: all indices were checked, and the slices do not overlap.
    unsafe { transpose_raw(x.as_ptr(), x_stride, rows, cols, out.as_mut_ptr(), out_stride) }
}

/// As [`transpose_strided`], for a destination whose rows have others' elements between them.
///
/// # Safety
/// `x[i * x_stride + j]` is readable and `out[j * out_stride + i]` writable for i < rows, j < cols, and none is both.
pub(crate) unsafe fn transpose_raw<T: Real>(
    x: *const T,
    x_stride: usize,
    rows: usize,
    cols: usize,
    out: *mut T,
    out_stride: usize,
) {
    #[cfg(target_arch = "x86_64")]
    if T::IS_F32 && rows >= SIDE && cols >= SIDE && crate::simd::isa() != crate::simd::Isa::Portable {
        // SAFETY: T is f32, AVX is part of every other instruction set, and the caller vouches for the elements.
        unsafe { avx::transpose(x.cast(), x_stride, rows, cols, out.cast(), out_stride) }
        return;
    }
    for left in (0..cols).step_by(SIDE) {
        for i in 0..rows {
            for j in left..(left + SIDE).min(cols) {
                // SAFETY: the caller vouches for the elements.
                unsafe { *out.add(j * out_stride + i) = *x.add(i * x_stride + j) }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx {
    use super::SIDE;
    use std::arch::x86_64::*;

    /// # Safety
    /// AVX is available, `rows` and `cols` are at least [`SIDE`], and all their elements lie in the two arrays.
    #[target_feature(enable = "avx")]
    pub(super) unsafe fn transpose(
        x: *const f32,
        x_stride: usize,
        rows: usize,
        cols: usize,
        out: *mut f32,
        out_stride: usize,
    ) {
        // Along the rows of the result, so that its lines are filled one after the other. Where a side is not a multiple of eight the last
        // block begins earlier and writes some elements a second time.
        for j in (0..cols).step_by(SIDE) {
            let j = j.min(cols - SIDE);
            for i in (0..rows).step_by(SIDE) {
                let i = i.min(rows - SIDE);
                // SAFETY: the block lies in both arrays.
                unsafe { block(x.add(i * x_stride + j), x_stride, out.add(j * out_stride + i), out_stride) }
            }
        }
    }

    /// One block: the 128-bit quarters trade places as they are loaded, then each is turned in two steps.
    ///
    /// # Safety
    /// AVX is available, and eight rows of eight elements are readable and writable.
    #[inline]
    #[target_feature(enable = "avx")]
    unsafe fn block(x: *const f32, x_stride: usize, out: *mut f32, out_stride: usize) {
        // SAFETY: rows 0..8 at columns 0..8.
        let quarters = |row: usize, col: usize| unsafe {
            let low = _mm_loadu_ps(x.add(row * x_stride + col));
            let high = _mm_loadu_ps(x.add((row + 4) * x_stride + col));
            _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(low), high)
        };
        for col in [0, 4] {
            let [a, b, c, d] = [quarters(0, col), quarters(1, col), quarters(2, col), quarters(3, col)];
            let (ab_low, ab_high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
            let (cd_low, cd_high) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
            let turned = [
                _mm256_shuffle_ps::<0x44>(ab_low, cd_low),
                _mm256_shuffle_ps::<0xee>(ab_low, cd_low),
                _mm256_shuffle_ps::<0x44>(ab_high, cd_high),
                _mm256_shuffle_ps::<0xee>(ab_high, cd_high),
            ];
            for (i, row) in turned.into_iter().enumerate() {
                // SAFETY: row col + i of the block, eight elements.
                unsafe { _mm256_storeu_ps(out.add((col + i) * out_stride), row) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_lands_in_its_place() {
        for (rows, cols) in [(0, 3), (1, 1), (3, 20), (8, 8), (8, 3), (17, 9), (40, 43)] {
            let x: Vec<f32> = (0..rows * cols).map(|i| i as f32).collect();
            let mut out = vec![0.0; rows * cols];
            transpose(&x, rows, cols, &mut out);
            let wide: Vec<f64> = x.iter().map(|&v| v.into()).collect();
            let mut wide_out = vec![0.0; rows * cols];
            transpose(&wide, rows, cols, &mut wide_out);
            for i in 0..rows {
                for j in 0..cols {
                    assert_eq!(out[j * rows + i], x[i * cols + j]);
                    assert_eq!(wide_out[j * rows + i], wide[i * cols + j]);
                }
            }
        }
    }
}
