//! A matrix cut into panels of columns as wide as a tile, each stored row after row: a tile then reads one stream of memory, which the processor
//! foresees, where the rows of the matrix itself lie far apart.

use crate::Real;
use crate::par::{Par, for_each_chunk};

/// Elements that a thread copies at a time, at least: some 5 us.
const GRAIN: usize = 1 << 15;

/// Elements that the panels of a matrix of `rows` rows and `cols` columns take.
pub(crate) fn panels_len(rows: usize, cols: usize, wide: usize) -> usize {
    cols.div_ceil(wide) * wide * rows
}

/// Copies the matrix whose row i begins at `from[i * row]`, `cols` elements each, to panels `[cols / wide, rows, wide]`. What lies beyond its last column
/// is left as it is.
///
/// # Panics
/// If `out` is not as long as [`panels_len`] says, or a row lies outside `from`.
pub(crate) fn pack<T: Real>(par: Par, from: &[T], row: usize, cols: usize, wide: usize, out: &mut [T]) {
    let rows = out.len() / (cols.div_ceil(wide) * wide).max(1);
    assert_eq!(out.len(), panels_len(rows, cols, wide), "whole panels");
    let panel = wide * rows;
    if panel == 0 {
        return;
    }
    for_each_chunk(par, out, GRAIN.div_ceil(panel) * panel, |start, some| {
        for (i, panel) in some.chunks_exact_mut(panel).enumerate() {
            let col = start / rows + i * wide;
            let width = (cols - col).min(wide);
            for (i, to) in panel.chunks_exact_mut(wide).enumerate() {
                to[..width].copy_from_slice(&from[i * row + col..][..width]);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_panel_has_all_rows_of_its_columns() {
        let matrix: Vec<f32> = (0..3 * 7).map(|x| x as f32).collect();
        let mut out = vec![-1.0; panels_len(3, 5, 2)];
        pack(Par::Rayon, &matrix, 7, 5, 2, &mut out);
        assert_eq!(out[..12], [0.0, 1.0, 7.0, 8.0, 14.0, 15.0, 2.0, 3.0, 9.0, 10.0, 16.0, 17.0]);
        assert_eq!(out[12..], [4.0, -1.0, 11.0, -1.0, 18.0, -1.0]);
        pack(Par::Seq, &[0.0f64; 0], 3, 3, 4, &mut []);
    }
}
