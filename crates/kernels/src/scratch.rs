//! Thread-local buffers that grow and are kept: kernels need room for padded inputs, transposed weights and packed panels, and must not
//! allocate once they have seen their largest shape.

use bytemuck::{Pod, Zeroable};
use std::cell::RefCell;

/// What a buffer is for. One purpose, one size: buffers settle at the largest of their kind.
#[derive(Clone, Copy)]
pub(crate) enum Slot {
    /// Part of an image with its padding written out.
    Window,
    /// Transposed weights, transposed factors.
    Weights,
    /// Packed panels.
    Panels,
    /// Taps of a convolution.
    Taps,
    /// Lists of segments, and counters.
    Index,
    /// Results before they are added up.
    Spare,
    /// Temporaries of a fused pass.
    Fused,
    /// Sums of blocks of a fused pass.
    Partial,
    /// Images that are computed where they are needed.
    Images,
}

const SLOTS: usize = 9;

/// One cache line.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

thread_local! {
    static FREE: RefCell<[Vec<Vec<Line>>; SLOTS]> = const { RefCell::new([const { Vec::new() }; SLOTS]) };
}

/// Calls `f` with `len` elements of scratch, aligned to a cache line. Their contents are whatever the last user left.
///
/// The buffer is taken out of its cell while `f` runs: a thread that waits in `f` may be given another job by rayon, which then finds
/// the next buffer of the slot, or makes one.
pub(crate) fn with<T: Pod, R>(slot: Slot, len: usize, f: impl FnOnce(&mut [T]) -> R) -> R {
    let lines = (len * size_of::<T>()).div_ceil(size_of::<Line>());
    let mut buffer = FREE.with_borrow_mut(|free| free[slot as usize].pop()).unwrap_or_default();
    if buffer.len() < lines {
        buffer.resize(lines, Line([0; 64]));
    }
    let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut buffer);
    let result = f(bytemuck::cast_slice_mut(&mut bytes[..len * size_of::<T>()]));
    FREE.with_borrow_mut(|free| free[slot as usize].push(buffer));
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_kept_and_nested_uses_do_not_meet() {
        let first = with::<f32, _>(Slot::Window, 100, |a| {
            a.fill(1.0);
            with::<f32, _>(Slot::Window, 100, |b| b.fill(2.0));
            assert!(a.iter().all(|&x| x == 1.0));
            a.as_ptr() as usize
        });
        assert_eq!(first % 64, 0);
        let again = with::<u8, _>(Slot::Window, 400, |a| a.as_ptr() as usize);
        assert_eq!(first, again);
        with::<f64, _>(Slot::Index, 0, |a| assert!(a.is_empty()));
        // An element whose size does not divide a line.
        with::<[u64; 3], _>(Slot::Index, 7, |a| assert_eq!(a.len(), 7));
    }
}
