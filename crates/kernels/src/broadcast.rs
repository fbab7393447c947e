//! How an elementwise kernel reads operands with broadcast strides: as few and as long runs as the shape allows.
//!
//! After collapsing, a dense or scalar operand is one run. Long rows are a run each. Short rows are put together: what a broadcast operand repeats is written out
//! into a tile on the stack, so that the arithmetic sees runs of some hundred elements whatever the row length.

use crate::layout::{Layout, Walk};
use crate::par::{self, Par};
use crate::real::Real;

/// Rows of at least this many elements are runs by themselves: the few nanoseconds to begin a run are then below a tenth.
const LONG: usize = 256;

/// Elements of a tile of short rows.
const TILE: usize = 256;

/// Elements written at a time when one value fills a row of a tile; the last store may run over the row, into the next one's place.
const SPLAT: usize = 16;

/// Room for a tile with what the last store runs over.
type Tile<T> = [T; TILE + LONG];

/// `K` inputs with their layout.
pub(crate) struct Operands<'a, T, const K: usize> {
    inputs: [&'a [T]; K],
    layout: Layout<K>,
}

/// A piece of the work: rows `start..` of the collapsed shape, or, if that has one axis only, elements `start..` of its single row.
pub(crate) struct Rows<'a, T, const K: usize> {
    operands: &'a Operands<'a, T, K>,
    start: usize,
    out: &'a mut [T],
}

fn is_dense(strides: &[usize], shape: &[usize]) -> bool {
    let mut expected = 1;
    shape.iter().zip(strides).rev().all(|(&size, &stride)| {
        let fits = size == 1 || stride == expected;
        expected *= size;
        fits
    })
}

fn is_scalar(strides: &[usize], shape: &[usize]) -> bool {
    shape.iter().zip(strides).all(|(&size, &stride)| size == 1 || stride == 0)
}

impl<'a, T: Real, const K: usize> Operands<'a, T, K> {
    /// Checks that `strides` address elements of `inputs` only, for an output of `len` elements of `shape`.
    #[inline]
    #[track_caller]
    pub(crate) fn new(inputs: [&'a [T]; K], strides: [&[usize]; K], shape: &[usize], len: usize) -> Self {
        assert!(strides.iter().all(|s| s.len() == shape.len()), "strides {strides:?} do not fit shape {shape:?}");
        assert_eq!(shape.iter().product::<usize>(), len, "an output of {len} elements for shape {shape:?}");
        let mut line = [None; K];
        for k in 0..K {
            if is_dense(strides[k], shape) {
                line[k] = Some(1);
            } else if is_scalar(strides[k], shape) {
                line[k] = Some(0);
            }
        }
        let layout = if line.iter().all(Option::is_some) {
            Layout::line(len, line.map(Option::unwrap_or_default))
        } else {
            Layout::new(shape, |k, axis| strides[k][axis] as isize)
        };
        for (k, input) in inputs.iter().enumerate() {
            if let Some(reach) = layout.reach(k) {
                assert!(
                    reach < input.len(),
                    "operand {k} has {} elements, but strides {:?} over shape {shape:?} reach {reach}",
                    input.len(),
                    strides[k]
                );
            }
        }
        Self { inputs, layout }
    }

    /// Cuts the output into pieces of whole rows and runs `f` on each.
    #[inline]
    pub(crate) fn run(&self, par: Par, out: &mut [T], f: impl Fn(Rows<'_, T, K>) + Sync + Send) {
        let grain = par::CHEAP_GRAIN_BYTES / size_of::<T>();
        if out.is_empty() {
            return;
        }
        if par == Par::Seq || out.len() <= grain {
            return f(Rows { operands: self, start: 0, out });
        }
        let cols = if self.layout.rank() > 1 { self.layout.size(0) } else { 1 };
        par::for_each_chunk(par, out, grain.div_ceil(cols) * cols, |start, out| {
            f(Rows { operands: self, start: start / cols, out });
        });
    }
}

impl<T: Real, const K: usize> Rows<'_, T, K> {
    /// Whether rows are put together in tiles.
    #[inline(always)]
    fn is_tiled(&self) -> bool {
        self.operands.layout.rank() > 1 && self.operands.layout.size(0) < LONG
    }

    /// The strides of the operands within a run of [`Rows::for_each`].
    #[inline(always)]
    pub(crate) fn steps(&self) -> [usize; K] {
        std::array::from_fn(|k| if self.is_tiled() { 1 } else { self.operands.layout.stride(k, 0) as usize })
    }

    /// Calls `f` for each run with its operands, which move by [`Rows::steps`], and its output.
    #[inline(always)]
    pub(crate) fn for_each(self, mut f: impl FnMut([&[T]; K], &mut [T])) {
        let Operands { inputs, layout } = self.operands;
        let piece = |k: usize, offset: isize, cols: usize| {
            let stride = layout.stride(k, 0) as usize;
            &inputs[k][offset as usize..][..(cols - 1) * stride + 1]
        };
        if self.is_tiled() {
            self.for_each_tile(f);
        } else if layout.rank() > 1 {
            let cols = layout.size(0);
            let mut rows = self.out.chunks_exact_mut(cols);
            let end = self.start + rows.len();
            layout.for_rows(self.start, end, |offsets| {
                if let Some(out) = rows.next() {
                    f(std::array::from_fn(|k| piece(k, offsets[k], cols)), out);
                }
            });
        } else {
            let offset = |k| self.start as isize * layout.stride(k, 0);
            f(std::array::from_fn(|k| piece(k, offset(k), self.out.len())), self.out);
        }
    }

    /// Some rows at a time, each operand contiguous: where it stands, or written out.
    #[inline(always)]
    fn for_each_tile(self, mut f: impl FnMut([&[T]; K], &mut [T])) {
        let Operands { inputs, layout } = self.operands;
        let (height, cols) = (layout.size(1), layout.size(0));
        let at_most = (TILE / cols).max(1);
        let mut tiles: [Tile<T>; K] = [[T::ZERO; TILE + LONG]; K];
        let (mut row, mut done) = (self.start, 0);
        while done < self.out.len() {
            // A plane of the last two axes, from `row` on.
            let offsets = Walk::at(layout, row).offsets();
            let left = (height - row % height).min((self.out.len() - done) / cols);
            for k in 0..K {
                if Source::of(layout, k) == Source::RowRepeats {
                    let from = &inputs[k][offsets[k] as usize..][..cols];
                    tiles[k][..left.min(at_most) * cols].chunks_exact_mut(cols).for_each(|to| to.copy_from_slice(from));
                }
            }
            let mut first = 0;
            while first < left {
                let count = (left - first).min(at_most);
                let len = count * cols;
                let runs: [usize; K] = std::array::from_fn(|k| offsets[k] as usize + first * layout.stride(k, 1) as usize);
                for k in 0..K {
                    write_out(layout, k, &inputs[k][runs[k]..], count, &mut tiles[k]);
                }
                let operands = std::array::from_fn(|k| match Source::of(layout, k) {
                    Source::InPlace => &inputs[k][runs[k]..][..len],
                    _ => &tiles[k][..len],
                });
                f(operands, &mut self.out[done..done + len]);
                done += len;
                first += count;
            }
            row += left;
        }
    }
}

/// Where the rows of a tile come from.
#[derive(Clone, Copy, PartialEq)]
enum Source {
    /// They follow each other in the operand.
    InPlace,
    /// One row serves all.
    RowRepeats,
    /// Each row repeats one element.
    ElementRepeats,
    /// Anything else.
    Strided,
}

impl Source {
    #[inline(always)]
    fn of<const K: usize>(layout: &Layout<K>, k: usize) -> Self {
        match (layout.stride(k, 1), layout.stride(k, 0)) {
            (rows, 1) if rows == layout.size(0) as isize => Source::InPlace,
            (0, 1) => Source::RowRepeats,
            (_, 0) => Source::ElementRepeats,
            _ => Source::Strided,
        }
    }
}

/// Writes `count` rows of operand `k`, which begins at `x`, into its tile, unless they stand elsewhere already.
#[inline(always)]
fn write_out<T: Real, const K: usize>(layout: &Layout<K>, k: usize, x: &[T], count: usize, tile: &mut Tile<T>) {
    let cols = layout.size(0);
    let (down, along) = (layout.stride(k, 1) as usize, layout.stride(k, 0) as usize);
    match Source::of(layout, k) {
        Source::InPlace | Source::RowRepeats => {}
        Source::ElementRepeats => {
            for row in 0..count {
                let value = [x[row * down]; SPLAT];
                for j in (0..cols).step_by(SPLAT) {
                    tile[row * cols + j..][..SPLAT].copy_from_slice(&value);
                }
            }
        }
        Source::Strided => {
            for row in 0..count {
                for j in 0..cols {
                    tile[row * cols + j] = x[row * down + j * along];
                }
            }
        }
    }
}
