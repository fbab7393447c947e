//! How an elementwise kernel reads operands with broadcast strides: as few and as long runs as the shape allows.
//!
//! After collapsing, a dense or scalar operand is one run. Long rows are a run each. Short rows are put together: what a broadcast operand
//! repeats is written out into a tile, so that the arithmetic sees runs of some hundred elements whatever the row
//! length. This walk is compiled once for a type; only the arithmetic on a run is compiled for each operation and instruction set.

use crate::layout::{Layout, Walk};
use crate::moves::repeat;
use crate::par::{self, Par};
use crate::real::Real;
use crate::scratch::{self, Slot};

/// Rows of at least this many elements are runs by themselves: the few nanoseconds to begin a run are then below a tenth.
const LONG: usize = 256;

/// Elements of a tile.
const TILE: usize = 512;

/// Elements written at a time when one value fills a row of a tile; the last store may run over the row, into the next one's place.
const SPLAT: usize = 16;

/// Room for a tile with what the last store runs over.
const ROOM: usize = TILE + SPLAT;

/// `K` inputs with their layout.
pub(crate) struct Operands<'a, T, const K: usize> {
    inputs: [&'a [T]; K],
    layout: Layout<K>,
    /// Whether a run is several rows.
    is_tiled: bool,
    sources: [Source; K],
}

/// Whether each operand of so many elements is dense (1) or the same element everywhere (0), not all the latter.
#[inline]
pub(crate) fn line_steps<const K: usize>(strides: [&[usize]; K], shape: &[usize]) -> Option<[usize; K]> {
    let mut steps = [1; K];
    for k in 0..K {
        if !is_dense(strides[k], shape) {
            if !is_scalar(strides[k], shape) {
                return None;
            }
            steps[k] = 0;
        }
    }
    steps.contains(&1).then_some(steps)
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
    ///
    /// With `scalars`, one operand may be the same element in all runs; without, it is written out.
    #[track_caller]
    pub(crate) fn new(
        inputs: [&'a [T]; K],
        strides: [&[usize]; K],
        shape: &[usize],
        len: usize,
        scalars: bool,
    ) -> Self {
        assert!(strides.iter().all(|s| s.len() == shape.len()), "strides {strides:?} do not fit shape {shape:?}");
        assert_eq!(shape.iter().product::<usize>(), len, "an output of {len} elements for shape {shape:?}");
        let mut line = [0; K];
        let mut is_line = true;
        for k in 0..K {
            if is_dense(strides[k], shape) {
                line[k] = 1;
            } else {
                is_line &= is_scalar(strides[k], shape);
            }
        }
        let layout =
            if is_line { Layout::line(len, line) } else { Layout::new(shape, |k, axis| strides[k][axis] as isize) };
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
        let cols = layout.size(0);
        let is_tiled = layout.rank() > 1 && cols < LONG;
        let mut sources = [Source::InPlace; K];
        let mut scalars = scalars;
        for (k, source) in sources.iter_mut().enumerate().rev() {
            *source = match (layout.stride(k, 1), layout.stride(k, 0)) {
                (_, 1) if !is_tiled => Source::InPlace,
                (_, 0) if !is_tiled && scalars => {
                    scalars = false;
                    Source::Scalar
                }
                (rows, 1) if rows == cols as isize => Source::InPlace,
                (0, 1) => Source::RowRepeats,
                (_, 0) if is_tiled => Source::ElementRepeats,
                _ => Source::Strided,
            };
        }
        Self { inputs, layout, is_tiled, sources }
    }

    /// Cuts the output into pieces of whole rows and runs `f` on each.
    #[inline]
    pub(crate) fn run(&self, par: Par, out: &mut [T], f: impl Fn(&mut Runs<'_, T, K>) + Sync + Send) {
        if out.is_empty() {
            return;
        }
        let grain = par::CHEAP_GRAIN_BYTES / size_of::<T>();
        if par == Par::Seq || out.len() <= grain {
            return self.run_piece(0, out, &f);
        }
        let cols = if self.layout.rank() > 1 { self.layout.size(0) } else { 1 };
        par::for_each_chunk(par, out, grain.div_ceil(cols) * cols, |start, out| self.run_piece(start, out, &f));
    }

    /// Runs `f` on the output from element `start` on, which begins a row if there are several.
    #[inline]
    fn run_piece(&self, start: usize, out: &mut [T], f: impl Fn(&mut Runs<'_, T, K>)) {
        let is_direct = self.sources.iter().all(|s| matches!(s, Source::InPlace | Source::Scalar));
        if is_direct {
            f(&mut Runs::new(self, start, out, &mut []));
        } else {
            scratch::with(Slot::Spare, K * ROOM, |tiles| f(&mut Runs::new(self, start, out, tiles)));
        }
    }
}

/// Where the elements of an operand come from in a run.
#[derive(Clone, Copy, PartialEq)]
enum Source {
    /// They follow each other in the operand.
    InPlace,
    /// One element serves all.
    Scalar,
    /// One row serves all; it is written out for each plane.
    RowRepeats,
    /// Each row repeats one element; written out for each run.
    ElementRepeats,
    /// Anything else; written out for each run.
    Strided,
}

/// The operands and the output of a run: an operand has the output's length, or one element if it is scalar.
pub(crate) type Run<'a, T, const K: usize> = ([&'a [T]; K], &'a mut [T]);

/// The runs of a piece of the work, one after the other.
pub(crate) struct Runs<'a, T, const K: usize> {
    operands: &'a Operands<'a, T, K>,
    out: &'a mut [T],
    /// Elements of the output that are done.
    done: usize,
    /// The next row, and the column in it where a run within a row begins.
    row: usize,
    column: usize,
    /// Rows that are left of the plane (the last two axes), or of the row, when runs lie within one.
    left: usize,
    /// The operands' offsets at `row`.
    offsets: [isize; K],
    cols: usize,
    /// [`ROOM`] elements for each operand, or none if all stand in place.
    tiles: &'a mut [T],
}

impl<'a, T: Real, const K: usize> Runs<'a, T, K> {
    #[inline]
    fn new(operands: &'a Operands<'a, T, K>, start: usize, out: &'a mut [T], tiles: &'a mut [T]) -> Self {
        let several = operands.layout.rank() > 1;
        let cols = if several { operands.layout.size(0) } else { start + out.len() };
        let (row, column) = if several { (start / cols, 0) } else { (0, start) };
        Self { operands, out, done: 0, row, column, left: 0, offsets: [0; K], cols, tiles }
    }

    /// Whether operand `k` is one element in all runs; no more than one is.
    #[inline(always)]
    pub(crate) fn is_scalar(&self, k: usize) -> bool {
        self.operands.sources[k] == Source::Scalar
    }

    /// The next run.
    #[inline(never)]
    pub(crate) fn next(&mut self) -> Option<Run<'_, T, K>> {
        if self.done == self.out.len() {
            return None;
        }
        let Operands { inputs, layout, .. } = self.operands;
        if self.left == 0 {
            self.begin();
        }
        let (count, len) = if self.operands.is_tiled {
            let count = self.left.min((TILE / self.cols).max(1));
            (count, count * self.cols)
        } else if self.operands.sources.contains(&Source::Strided) {
            (1, self.left.min(TILE))
        } else {
            (1, self.left)
        };
        for k in 0..K {
            let (down, along) = (layout.stride(k, 1) as usize, layout.stride(k, 0) as usize);
            let first = self.offsets[k] as usize + self.column * along;
            let x = &inputs[k][first..];
            match self.operands.sources[k] {
                Source::ElementRepeats => {
                    let tile = &mut self.tiles[k * ROOM..][..ROOM];
                    if self.cols <= SPLAT / 2 {
                        for row in 0..count {
                            let value = [x[row * down]; SPLAT / 2];
                            tile[row * self.cols..][..SPLAT / 2].copy_from_slice(&value);
                        }
                    } else {
                        for row in 0..count {
                            let value = [x[row * down]; SPLAT];
                            for j in (0..self.cols).step_by(SPLAT) {
                                tile[row * self.cols + j..][..SPLAT].copy_from_slice(&value);
                            }
                        }
                    }
                }
                Source::Strided => {
                    let tile = &mut self.tiles[k * ROOM..][..ROOM];
                    let cols = len / count;
                    for row in 0..count {
                        for j in 0..cols {
                            tile[row * cols + j] = x[row * down + j * along];
                        }
                    }
                }
                _ => {}
            }
        }
        let operands = std::array::from_fn(|k| {
            let first = self.offsets[k] as usize + self.column * layout.stride(k, 0) as usize;
            match self.operands.sources[k] {
                Source::InPlace => &inputs[k][first..first + len],
                Source::Scalar => &inputs[k][first..=first],
                _ => &self.tiles[k * ROOM..][..len],
            }
        });
        let out = &mut self.out[self.done..self.done + len];
        self.done += len;
        if self.operands.is_tiled {
            self.left -= count;
            self.row += count;
            for k in 0..K {
                self.offsets[k] += count as isize * layout.stride(k, 1);
            }
        } else {
            self.left -= len;
            self.column += len;
            if self.left == 0 {
                self.row += 1;
                self.column = 0;
            }
        }
        Some((operands, out))
    }

    /// Begins a plane, or a row when runs lie within one.
    fn begin(&mut self) {
        let Operands { inputs, layout, .. } = self.operands;
        if layout.rank() > 1 {
            self.offsets = Walk::at(layout, self.row).offsets();
        }
        if !self.operands.is_tiled {
            self.left = (self.cols - self.column).min(self.out.len() - self.done);
            return;
        }
        let height = layout.size(1);
        self.left = (height - self.row % height).min((self.out.len() - self.done) / self.cols);
        for k in 0..K {
            if self.operands.sources[k] == Source::RowRepeats {
                let from = &inputs[k][self.offsets[k] as usize..][..self.cols];
                let len = self.left.min((TILE / self.cols).max(1)) * self.cols;
                repeat(from, &mut self.tiles[k * ROOM..][..len]);
            }
        }
    }
}
