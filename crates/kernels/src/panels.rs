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
            let (width, from) = ((cols - col).min(wide), &from[col..]);
            match (width, wide) {
                (8, 8) => copy_rows::<T, 8>(from, row, panel),
                (16, 16) => copy_rows::<T, 16>(from, row, panel),
                _ => panel
                    .chunks_exact_mut(wide)
                    .enumerate()
                    .for_each(|(i, to)| to[..width].copy_from_slice(&from[i * row..][..width])),
            }
        }
    });
}

/// The first `W` columns; so short a row is copied in less time than it takes to call what copies any length.
fn copy_rows<T: Real, const W: usize>(from: &[T], row: usize, out: &mut [T]) {
    for (i, to) in out.as_chunks_mut::<W>().0.iter_mut().enumerate() {
        to.copy_from_slice(&from[i * row..][..W]);
    }
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

    #[test]
    fn whole_panels_of_every_width_are_copied_whole() {
        let (rows, row) = (5, 70);
        let matrix: Vec<f64> = (0..rows * row).map(|x| x as f64).collect();
        for wide in [4, 8, 16, 32] {
            let cols = 2 * wide + 3;
            let mut out = vec![-1.0; panels_len(rows, cols, wide)];
            pack(Par::Seq, &matrix, row, cols, wide, &mut out);
            for (i, &x) in out.iter().enumerate() {
                let (k, col) = (i / wide % rows, i / (wide * rows) * wide + i % wide);
                assert_eq!(x, if col < cols { matrix[k * row + col] } else { -1.0 }, "{wide}: row {k}, column {col}");
            }
        }
    }
}
