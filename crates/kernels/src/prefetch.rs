//! Asking for memory ahead of its use. Where a kernel walks through images in patches, the processor does not foresee where it goes next, and waits
//! for every line that is not in its cache.

use crate::arena::LINE;

/// Asks for one of several equal parts, `[part, parts]`, of a range of elements from `base` on, so that it can be spread over the arithmetic before
/// their use. The memory is not accessed: any address will do.
#[inline]
pub(crate) fn prefetch<T>(base: *const T, [first, last]: [usize; 2], [part, parts]: [usize; 2]) {
    let lines = ((last - first) * size_of::<T>()).div_ceil(LINE);
    let start = base.wrapping_add(first).cast::<u8>();
    for line in lines * part / parts..lines * (part + 1) / parts {
        one(start.wrapping_add(line * LINE));
    }
}

/// Asks for the line at an address.
#[inline(always)]
pub(crate) fn one(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a hint; it neither reads nor faults.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
