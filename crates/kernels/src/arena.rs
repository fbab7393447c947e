//! Aligned memory: one block of cache lines, and spans of it handed out as a mutable output beside shared inputs.

use bytemuck::{Pod, Zeroable};

/// Bytes of a cache line; every buffer and every span starts on one.
pub const LINE: usize = 64;

#[derive(Clone, Copy, Zeroable, Pod)]
#[repr(C, align(64))]
struct Line([u8; LINE]);

/// The most that an allocator aligns to without taking another, slower way.
#[derive(Clone, Copy, Zeroable, Pod)]
#[repr(C, align(16))]
struct Chunk([u8; CHUNK]);

const CHUNK: usize = 16;

/// A block of memory that starts on a cache line, as a slice of any plain type.
pub struct Buffer {
    /// The block, and some chunks before it up to the border of a line.
    memory: Vec<Chunk>,
    start: usize,
    bytes: usize,
}

impl Buffer {
    /// A block of `bytes` bytes, all zero.
    pub fn zeroed(bytes: usize) -> Buffer {
        let memory: Vec<Chunk> = bytemuck::zeroed_vec(bytes.div_ceil(LINE) * (LINE / CHUNK) + LINE / CHUNK - 1);
        let start = (memory.as_ptr() as usize).wrapping_neg() % LINE;
        Buffer { memory, start, bytes }
    }

    /// A block holding a copy of `data`.
    pub fn copy_of<T: Pod>(data: &[T]) -> Buffer {
        let mut buffer = Buffer::zeroed(size_of_val(data));
        buffer.as_mut_slice::<T>().copy_from_slice(data);
        buffer
    }

    /// The block as a slice; a remainder shorter than one `T` is left out.
    pub fn as_slice<T: Pod>(&self) -> &[T] {
        bytemuck::cast_slice(&bytemuck::cast_slice::<Chunk, u8>(&self.memory)[self.start..][..self.whole::<T>()])
    }

    /// The block as a mutable slice; a remainder shorter than one `T` is left out.
    pub fn as_mut_slice<T: Pod>(&mut self) -> &mut [T] {
        let range = self.start..self.start + self.whole::<T>();
        bytemuck::cast_slice_mut(&mut bytemuck::cast_slice_mut::<Chunk, u8>(&mut self.memory)[range])
    }

    fn whole<T>(&self) -> usize {
        self.bytes / size_of::<T>() * size_of::<T>()
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Buffer {
        Buffer::copy_of(self.as_slice::<u8>())
    }
}

/// A piece of an [`Arena`]: `lines` cache lines from line `start` on, of which the first `bytes` bytes are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First cache line.
    pub start: usize,
    /// Bytes in use.
    pub bytes: usize,
}

impl Span {
    /// Cache lines that the span covers.
    pub fn lines(&self) -> usize {
        self.bytes.div_ceil(LINE)
    }

    /// Line after the last one.
    pub fn end(&self) -> usize {
        self.start + self.lines()
    }

    fn overlaps(&self, other: &Span) -> bool {
        self.start < other.end() && other.start < self.end()
    }
}

/// One block of cache lines that a compiled program packs all of its values into.
pub struct Arena {
    /// The block, and lines before it up to the border of a page.
    memory: Vec<Line>,
    start: usize,
    len: usize,
}

/// Bytes of a huge page. A large arena on whole ones spares most of the walks through the page table, which a pass over many megabytes
/// otherwise waits for at every 4 KiB.
const HUGE: usize = 1 << 21;

impl Arena {
    /// An arena of `lines` cache lines, all zero.
    pub fn new(lines: usize) -> Arena {
        let extra = if lines * LINE >= 2 * HUGE { HUGE / LINE } else { 0 };
        let mut memory: Vec<Line> = Vec::with_capacity(lines + extra);
        let start = if extra > 0 { (memory.as_ptr() as usize).wrapping_neg() % HUGE / LINE } else { 0 };
        if extra > 0 {
            advise_huge(&mut memory.spare_capacity_mut()[start..]);
        }
        memory.resize(lines + extra, Line([0; LINE]));
        Arena { memory, start, len: lines }
    }

    fn lines(&self) -> &[Line] {
        &self.memory[self.start..][..self.len]
    }

    /// Bytes that the arena holds.
    pub fn bytes(&self) -> usize {
        self.len * LINE
    }

    /// The bytes of one span.
    ///
    /// # Panics
    /// If the span ends behind the arena.
    pub fn read(&self, span: Span) -> &[u8] {
        &bytemuck::cast_slice(&self.lines()[span.start..span.end()])[..span.bytes]
    }

    /// The bytes of each of `outs` to write, in order, beside a reader of every span that overlaps none of them.
    ///
    /// # Panics
    /// If one of `outs` ends behind the arena or two of them overlap.
    pub fn split<'a>(&'a mut self, outs: &'a [Span]) -> (impl Iterator<Item = &'a mut [u8]>, Rest<'a>) {
        for (i, out) in outs.iter().enumerate() {
            assert!(out.end() <= self.len, "span {out:?} ends behind the arena");
            assert!(outs[..i].iter().all(|other| !other.overlaps(out)), "span {out:?} overlaps another output");
        }
        let base = self.memory[self.start..].as_mut_ptr();
        let bytes = outs.iter().map(move |out| {
            // SAFETY: the span lies within the allocation, the spans do not overlap each other (both asserted) and each is handed out once;
            // `u8` has no invalid values, and the only other access for the lifetime of the borrow is through `Rest`, which refuses spans that
            // overlap one of `outs`.
            unsafe { std::slice::from_raw_parts_mut(base.add(out.start).cast::<u8>(), out.bytes) }
        });
        (bytes, Rest { base, lines: self.len, outs, arena: std::marker::PhantomData })
    }
}

/// Asks the system for huge pages under all the whole ones of `lines`, before they are touched. Whether it gives them changes nothing but speed.
fn advise_huge(lines: &mut [std::mem::MaybeUninit<Line>]) {
    let bytes = size_of_val(lines) / HUGE * HUGE;
    #[cfg(target_os = "linux")]
    if bytes > 0 {
        unsafe extern "C" {
            fn madvise(address: *mut std::ffi::c_void, length: usize, advice: std::ffi::c_int) -> std::ffi::c_int;
        }
        const MADV_HUGEPAGE: std::ffi::c_int = 14;
        // SAFETY: the range lies within memory that is ours, and the advice changes neither its contents nor whether it may be accessed.
        let _ = unsafe { madvise(lines.as_mut_ptr().cast(), bytes, MADV_HUGEPAGE) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = bytes;
}

/// Read access to an arena while spans of it are being written; see [`Arena::split`].
#[derive(Clone, Copy)]
pub struct Rest<'a> {
    base: *const Line,
    lines: usize,
    outs: &'a [Span],
    arena: std::marker::PhantomData<&'a Arena>,
}

impl<'a> Rest<'a> {
    /// The bytes of a span other than those being written.
    ///
    /// # Panics
    /// If the span overlaps one being written, or ends behind the arena.
    pub fn read(&self, span: Span) -> &'a [u8] {
        assert!(span.end() <= self.lines, "span {span:?} ends behind the arena");
        assert!(self.outs.iter().all(|out| !span.overlaps(out)), "span {span:?} overlaps an output of {:?}", self.outs);
        // SAFETY: the span lies within the allocation and is disjoint from the mutable slices (both asserted); the arena is
        // borrowed mutably for 'a, so nothing else writes to it.
        unsafe { std::slice::from_raw_parts(self.base.add(span.start).cast::<u8>(), span.bytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_hold_what_was_put_in() {
        for n in [0usize, 1, 15, 16, 17, 1000] {
            let data: Vec<f32> = (0..n).map(|i| i as f32).collect();
            let buffer = Buffer::copy_of(&data);
            assert_eq!(buffer.as_slice::<f32>(), &data[..]);
            assert_eq!(buffer.as_slice::<f32>().as_ptr() as usize % LINE, 0);
            let copy = buffer.clone();
            assert_eq!(copy.as_slice::<f32>(), &data[..]);
            assert_eq!(copy.as_slice::<f32>().as_ptr() as usize % LINE, 0);
        }
    }

    #[test]
    fn an_output_is_written_beside_its_inputs() {
        let mut arena = Arena::new(4);
        let (a, b) = (Span { start: 0, bytes: 100 }, Span { start: 2, bytes: 128 });
        arena.split(&[a]).0.for_each(|out| out.fill(7));
        let (mut outs, rest) = arena.split(std::slice::from_ref(&b));
        outs.next().unwrap()[..100].copy_from_slice(rest.read(a));
        drop(outs);
        assert_eq!(arena.read(b)[99], 7);
        assert_eq!(arena.read(b)[100], 0);
    }

    #[test]
    #[should_panic(expected = "overlaps")]
    fn an_overlapping_read_is_refused() {
        let mut arena = Arena::new(4);
        let outs = [Span { start: 3, bytes: 1 }, Span { start: 0, bytes: 65 }];
        let (_, rest) = arena.split(&outs);
        rest.read(Span { start: 1, bytes: 4 });
    }

    #[test]
    #[should_panic(expected = "overlaps another output")]
    fn overlapping_outputs_are_refused() {
        let outs = [Span { start: 0, bytes: 65 }, Span { start: 1, bytes: 1 }];
        let _ = Arena::new(4).split(&outs);
    }
}
