//! Matrix transposition in blocks, for the operands whose rows must become columns before a product.

/// Side of a block: eight rows of eight f32 are eight half cache lines on either side.
const SIDE: usize = 8;

/// `out[j, i] = x[i, j]` for x `[rows, cols]`.
pub(crate) fn transpose<T: Copy>(x: &[T], rows: usize, cols: usize, out: &mut [T]) {
    transpose_strided(x, cols, rows, cols, out, rows);
}

/// `out[j * out_stride + i] = x[i * x_stride + j]` for i < rows, j < cols.
///
/// # Panics
/// If an index lies outside its slice.
pub(crate) fn transpose_strided<T: Copy>(
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
    let (whole_rows, whole_cols) = (rows / SIDE * SIDE, cols / SIDE * SIDE);
    for i in (0..whole_rows).step_by(SIDE) {
        for j in (0..whole_cols).step_by(SIDE) {
            let block: [[T; SIDE]; SIDE] = std::array::from_fn(|di| {
                let at = (i + di) * x_stride + j;
                std::array::from_fn(|dj| x[at + dj])
            });
            for (at, dj) in (0..SIDE).map(|dj| ((j + dj) * out_stride + i, dj)) {
                let row: [T; SIDE] = std::array::from_fn(|di| block[di][dj]);
                out[at..at + SIDE].copy_from_slice(&row);
            }
        }
    }
    for i in 0..rows {
        let from = if i < whole_rows { whole_cols } else { 0 };
        for j in from..cols {
            out[j * out_stride + i] = x[i * x_stride + j];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_lands_in_its_place() {
        for (rows, cols) in [(0, 3), (1, 1), (3, 20), (8, 8), (17, 9), (40, 40)] {
            let x: Vec<usize> = (0..rows * cols).collect();
            let mut out = vec![0; rows * cols];
            transpose(&x, rows, cols, &mut out);
            for i in 0..rows {
                for j in 0..cols {
                    assert_eq!(out[j * rows + i], x[i * cols + j]);
                }
            }
        }
    }
}
