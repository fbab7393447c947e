//! A run of elementwise steps as one pass over memory: tile by tile, what a step leaves is still in the first-level cache when
//! the next one reads it.
//!
//! A [`Fusion`] is a list of [`Step`]s over a domain of `units * unit` elements, row-major with rows of `period` columns. A step
//! reads an operand ([`Place::Input`]: memory, or a convolution that is computed for it), what an earlier step left ([`Place::Temp`], [`Place::Output`]) or one number for each
//! column ([`Place::Param`]). Pooling joins in: a unit is then a band of whole windows of an image, a tile some windows of it, and a value
//! has an element for each pixel or for each window. Values can be summed over the rows on the way ([`Sum`]).
//!
//! Every element gets the bits that the kernels of the single steps give it, and every sum those of [`crate::sum_axes`]: how
//! steps are put together never shows in a result, nor does the number of threads.

mod after_conv;
mod ahead;
mod beside;
mod columns;
mod operands;
mod patch;
mod pooling;
mod quad;
mod steps;
mod sums;
mod weight_grad;

use std::sync::atomic::Ordering;

use crate::arena::LINE;
use crate::conv::{OnDemand, Reader};
use crate::fold::fold;
use crate::moves::repeat;
use crate::par::{Par, SendPtr, for_each_range};
use crate::real::Real;
use crate::scratch::{self, Slot};
use crate::simd::{Kernel, Simd, dispatch};
use crate::term::Plain;
use crate::{Binary, Unary};

pub(crate) use after_conv::fused_conv;
use ahead::Ahead;
pub(crate) use beside::fused_beside;
pub use operands::{In, Out};
use operands::{Memory, Operands, conv};
pub use patch::MAX_ROWS;
use patch::Patch;
use pooling::Bands;
pub use pooling::Pooling;
use sums::{ColumnSums, Partition, Summed, Times};
pub(crate) use weight_grad::fused_weight_grad;

/// Elements of a tile, about: the values that live at once fit the first-level cache beside what streams through it, and the nanoseconds to
/// begin a step are few beside those of the step.
const TILE: usize = 2048;
/// Elements that lie between a tile and the one whose operands are asked for meanwhile.
const AHEAD: usize = 4 * TILE;
/// Elements of a run of fixed length: rows are put side by side, or cut, to this length where they fit.
const BLOCK: usize = 64;
/// Elements of a long one; it takes a fourth of the beginnings.
const LONG: usize = 4 * BLOCK;
/// Elements that a parameter is repeated to where they do not fit.
const SPREAD: usize = 256;
/// Elements of a unit, at most, that an input is computed for.
const MADE: usize = 8 * TILE;
/// Elements of the domain that a thread takes at a time, at least.
const GRAIN: usize = 1 << 16;
/// The most inputs, outputs, and parameters: of each.
pub const MAX_OPERANDS: usize = 32;
/// The longest rows that are summed.
pub const MAX_PERIOD: usize = 2048;
/// The most operands of a step.
pub const MAX_ARGS: usize = 7;

/// Where a step finds a value or leaves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// An operand of the domain's size, or of its pooled size.
    Input(usize),
    /// A result in memory; steps after the one that writes it may read it.
    Output(usize),
    /// A result that only later steps see.
    Temp(usize),
    /// One number for each column.
    Param(usize),
}

/// What a step computes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum StepOp {
    /// `op(x)`.
    Unary(Unary),
    /// `op(a, b)`.
    Binary(Binary),
    /// `cond != 0 ? a : b`.
    Select,
    /// `a * b + c` of a, b, c, rounded twice as by two steps.
    MulAdd,
    /// `(x - mean) * rstd` of x, mean, rstd.
    Normalize,
    /// `(x - mean) * rstd * scale + shift` of x, mean, rstd, scale, shift, rounded as by the three steps.
    NormalizeMulAdd,
    /// `rstd * g + (slope * xhat + shift)` of xhat, g, rstd, slope, shift, fused multiply-adds as in [`crate::normalize_grad`].
    NormalizeGrad,
    /// [`StepOp::NormalizeGrad`] of `(x - mean) * rstd`: of x, g, mean, rstd, and of its own rstd, slope, shift.
    NormalizeThenGrad,
    /// The index of the first maximum of each window within its image: pixels to windows.
    PoolIndices,
    /// The first maximum of each window, and where its index within its image goes: pixels to windows.
    PoolMax {
        /// A temporary or an output, as the result is.
        indices: Place,
    },
    /// The element that each index names: pixels and indices to windows.
    PoolGather,
    /// Zeros, but for the windows' elements added where their index says: windows and indices to pixels.
    PoolScatter,
}

/// One step of a [`Fusion`].
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// What it computes.
    pub op: StepOp,
    /// Its operands.
    pub args: Vec<Place>,
    /// Where the result goes: a temporary or an output, and none of the operands.
    pub out: Place,
    /// Whether an elementwise step runs over windows instead of pixels.
    pub pooled: bool,
}

/// A value summed over all rows: `[.., C]` to `[C]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sum {
    /// What is summed.
    pub of: Place,
    /// What its elements are multiplied by.
    pub times: Factor,
    /// The output `[C]`.
    pub into: usize,
    /// Whether it has an element for each window instead of each pixel.
    pub pooled: bool,
}

/// What the elements of a summed value are multiplied by: a product that only a sum reads need not be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Factor {
    /// Nothing.
    One,
    /// The elements of another value of the same kind.
    Value(Place),
    /// `(x - mean) * rstd` of x, mean, rstd: a value of the same kind, and two parameters.
    Normalized([Place; 3]),
}

/// What a place holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// An element for each pixel (or simply each element of the domain).
    Pixels,
    /// An element for each window.
    Windows,
    /// An index for each window.
    Indices,
    /// One number for each column.
    Columns,
}

/// Steps that run as one pass; see the module.
#[derive(Clone, Debug, PartialEq)]
pub struct Fusion {
    steps: Vec<Step>,
    sums: Vec<Sum>,
    /// What the summed values have an element for.
    summed: Kind,
    period: usize,
    elements: usize,
    bands: Option<Bands>,
    /// Elements of a unit for each pixel, and for each window: the smallest piece that a tile holds.
    unit: [usize; 2],
    inputs: Vec<Kind>,
    outputs: Vec<Kind>,
    params: usize,
    /// Steps beside which operands are asked for: those over pixels, or all if there are none.
    long_steps: usize,
    /// For each temporary, whether it is kept for a whole unit, because it is summed; otherwise it lives for a tile.
    temps: Vec<bool>,
}

impl Fusion {
    /// A pass over `elements` elements in rows of `period`.
    ///
    /// # Panics
    /// If a step writes one of its operands or an input, a place holds two kinds of things or none, or the sizes do not fit: a sum
    /// is over at least two rows, of at least two columns.
    #[track_caller]
    pub fn new(steps: Vec<Step>, sums: Vec<Sum>, period: usize, elements: usize, pooling: Option<Pooling>) -> Fusion {
        assert!(
            period > 0 && elements > 0 && elements.is_multiple_of(period),
            "{elements} elements in rows of {period}"
        );
        if let Some(p) = &pooling {
            let fits = |i: usize| (1..=p.hw[i]).contains(&p.kernel[i]);
            assert!(fits(0) && fits(1) && p.kernel[0] <= MAX_ROWS, "windows of {p:?}");
            let pixels = p.hw[0].checked_mul(p.hw[1]).and_then(|n| n.checked_mul(p.channels));
            assert!(pixels.is_some_and(|n| u32::try_from(n).is_ok()), "an image too large for its indices: {p:?}");
            assert!(p.channels == period && elements.is_multiple_of(p.pixels()), "{elements} elements of {p:?}");
        }
        let mut kinds: Vec<(Place, Kind)> = Vec::new();
        let mut temps = 0;
        // What steps have written so far, and as what.
        let mut written: Vec<(Place, Kind)> = Vec::new();
        // A temporary may hold one thing after the other; everything else is one thing.
        let mut hold = |place: Place, kind: Kind| match (place, kinds.iter().find(|(p, _)| *p == place)) {
            (Place::Temp(i), _) => {
                assert!(i < MAX_OPERANDS, "at most {MAX_OPERANDS} temporaries, not {place:?}");
                temps = temps.max(i + 1);
            }
            (_, Some((_, known))) => assert_eq!(*known, kind, "{place:?} is two things at once"),
            (_, None) => kinds.push((place, kind)),
        };
        for step in &steps {
            for (place, _) in step.results() {
                assert!(!step.args.contains(&place), "{step:?} writes what it reads");
                assert!(place.is_written(), "{step:?} writes an operand");
            }
            assert!(step.op != StepOp::PoolMax { indices: step.out }, "{step:?} writes two things to one place");
            let (args, out) = step.kinds();
            assert_eq!(step.args.len(), args.len(), "operands of {step:?}");
            assert!(
                pooling.is_some() || out == Kind::Pixels && !args.contains(&Kind::Windows),
                "{step:?} without windows"
            );
            for (&arg, &kind) in step.args.iter().zip(args) {
                let is_column = matches!(arg, Place::Param(_));
                assert!(!is_column || step.op.takes_columns(), "{step:?} of columns");
                assert!(!arg.is_written() || written.contains(&(arg, kind)), "{step:?} reads what no step wrote");
                hold(arg, if is_column { Kind::Columns } else { kind });
            }
            for (place, kind) in step.results() {
                hold(place, kind);
                written.retain(|(known, _)| *known != place);
                written.push((place, kind));
            }
        }
        for sum in &sums {
            assert!(pooling.is_some() || !sum.pooled, "{sum:?} without windows");
            for value in sum.values() {
                assert!(!matches!(value, Place::Param(_)), "{sum:?} of columns");
                assert!(!value.is_written() || written.contains(&(value, sum.kind())), "{sum:?} of what no step wrote");
                hold(value, sum.kind());
            }
            if let Factor::Normalized([_, mean, rstd]) = sum.times {
                for column in [mean, rstd] {
                    assert!(matches!(column, Place::Param(_)), "{sum:?} by what is no column");
                    hold(column, Kind::Columns);
                }
            }
            hold(Place::Output(sum.into), Kind::Columns);
        }
        assert!(period <= MAX_PERIOD || sums.is_empty(), "rows of {period} are summed in another order");
        assert!(period > 1 || sums.is_empty(), "a column by itself is a line, which is summed in another order");
        let summed = sums.first().map_or(Kind::Pixels, Sum::kind);
        assert!(sums.iter().all(|s| s.kind() == summed), "sums of pixels and of windows");
        let table = |of: fn(usize) -> Place| -> Vec<Kind> {
            let kind = |i| kinds.iter().find(|(p, _)| *p == of(i)).map(|(_, kind)| *kind);
            (0..).map_while(kind).collect()
        };
        let [inputs, outputs, params] = [Place::Input, Place::Output, Place::Param].map(table);
        let counts = [inputs.len(), outputs.len(), params.len()];
        assert!(counts.iter().sum::<usize>() == kinds.len(), "operands are numbered in a row: {kinds:?}");
        assert!(counts.iter().all(|&n| n <= MAX_OPERANDS), "at most {MAX_OPERANDS} operands of a kind, not {counts:?}");
        let is_summed = |i| sums.iter().flat_map(Sum::values).any(|value| value == Place::Temp(i));
        let temps: Vec<bool> = (0..temps).map(is_summed).collect();
        // It keeps what tile after tile leaves there until the unit is summed.
        let writes = |i| steps.iter().flat_map(Step::results).filter(|(place, _)| *place == Place::Temp(i)).count();
        assert!((0..temps.len()).all(|i| !temps[i] || writes(i) == 1), "a summed temporary that is written twice");
        let bands = pooling.map(|p| p.bands());
        let unit = bands.map_or([period, 0], |b| b.unit);
        let params = params.len();
        let long_steps = match steps.iter().filter(|step| step.is_over_pixels()).count() {
            0 => steps.len(),
            some => some,
        };
        let fusion =
            Fusion { long_steps, steps, sums, summed, period, elements, bands, unit, inputs, outputs, params, temps };
        let is_single = fusion.len(summed) == period;
        assert!(!is_single || fusion.sums.is_empty(), "a single row is copied, with the signs of its zeros");
        fusion
    }

    /// The steps in order.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// What is summed.
    pub fn sums(&self) -> &[Sum] {
        &self.sums
    }

    /// Whether input `i` may be a convolution on demand of so many pixels and channels: it has an element for each pixel, and a unit is some whole
    /// pixels, few enough to stay in the cache.
    pub fn takes_conv(&self, i: usize, pixels: usize, channels: usize) -> bool {
        self.inputs.get(i) == Some(&Kind::Pixels)
            && self.elements == pixels * channels
            && self.unit(Kind::Pixels).is_multiple_of(channels)
            && self.unit(Kind::Pixels) <= MADE
    }

    /// Elements of a unit of a kind.
    #[inline(always)]
    fn unit(&self, kind: Kind) -> usize {
        match kind {
            Kind::Pixels => self.unit[0],
            Kind::Windows | Kind::Indices => self.unit[1],
            Kind::Columns => 0,
        }
    }

    /// Elements of a value.
    fn len(&self, kind: Kind) -> usize {
        match kind {
            Kind::Columns => self.period,
            Kind::Pixels => self.elements,
            Kind::Windows | Kind::Indices => self.elements / self.unit(Kind::Pixels) * self.unit(kind),
        }
    }
}

impl Sum {
    /// The values that it reads: one, or two.
    pub fn values(&self) -> impl Iterator<Item = Place> + use<> {
        let by = match self.times {
            Factor::One => None,
            Factor::Value(x) | Factor::Normalized([x, ..]) => Some(x),
        };
        [self.of].into_iter().chain(by)
    }

    fn kind(&self) -> Kind {
        if self.pooled { Kind::Windows } else { Kind::Pixels }
    }
}

impl Place {
    /// Whether it is there only once a step has written it.
    fn is_written(self) -> bool {
        matches!(self, Place::Temp(_) | Place::Output(_))
    }
}

impl StepOp {
    /// Whether an operand may be one number a column.
    fn takes_columns(self) -> bool {
        match self {
            StepOp::Unary(_) => false,
            StepOp::PoolIndices | StepOp::PoolMax { .. } | StepOp::PoolGather | StepOp::PoolScatter => false,
            StepOp::Binary(_) | StepOp::Select | StepOp::MulAdd => true,
            StepOp::Normalize | StepOp::NormalizeMulAdd => true,
            StepOp::NormalizeGrad | StepOp::NormalizeThenGrad => true,
        }
    }
}

impl Step {
    /// Whether it touches every pixel: steps over windows are a fourth as long, or less.
    #[inline(always)]
    fn is_over_pixels(&self) -> bool {
        let (args, out) = self.kinds();
        out == Kind::Pixels || args.contains(&Kind::Pixels) && self.op != StepOp::PoolGather
    }

    /// Where its results go, and what they are.
    fn results(&self) -> impl Iterator<Item = (Place, Kind)> + use<> {
        let indices = match self.op {
            StepOp::PoolMax { indices } => Some((indices, Kind::Indices)),
            _ => None,
        };
        indices.into_iter().chain([(self.out, self.kinds().1)])
    }

    /// What its operands are (a column's number may stand for any), and its result.
    #[inline(always)]
    fn kinds(&self) -> (&'static [Kind], Kind) {
        use Kind::{Indices, Pixels, Windows};
        match self.op {
            StepOp::PoolIndices => (&[Pixels], Indices),
            StepOp::PoolMax { .. } => (&[Pixels], Windows),
            StepOp::PoolGather => (&[Pixels, Indices], Windows),
            StepOp::PoolScatter => (&[Windows, Indices], Pixels),
            _ => {
                let (of, kinds): (usize, [&'static [Kind]; 2]) = (
                    match self.op {
                        StepOp::Unary(_) => 1,
                        StepOp::Binary(_) => 2,
                        StepOp::NormalizeMulAdd | StepOp::NormalizeGrad => 5,
                        StepOp::NormalizeThenGrad => 7,
                        _ => 3,
                    },
                    [&[Pixels; MAX_ARGS], &[Windows; MAX_ARGS]],
                );
                (&kinds[usize::from(self.pooled)][..of], if self.pooled { Windows } else { Pixels })
            }
        }
    }
}

/// Runs `fusion`: `ins` are its inputs, `params` its parameters (`period` numbers, or one for all columns), `outs` its outputs in order.
///
/// # Panics
/// If a length or a type does not fit.
#[track_caller]
pub(crate) fn fused<T: Real>(par: Par, fusion: &Fusion, ins: &[In<'_, T>], params: &[&[T]], outs: &mut [Out<'_, T>]) {
    let mut operands = Operands::NONE;
    operands.read(fusion, None, ins, params);
    operands.write(fusion, outs);
    Job { fusion, params, operands: &operands, conv: conv(ins), is_kept: true }.run(par);
}

/// A pass with its operands.
struct Job<'a, T> {
    fusion: &'a Fusion,
    params: &'a [&'a [T]],
    operands: &'a Operands<'a>,
    /// Which input is no memory but a convolution.
    conv: Option<(usize, &'a OnDemand<'a, T>)>,
    /// Whether the results stay in memory; otherwise they are read at once, and units that are not touched here are wanted soon.
    is_kept: bool,
}

impl<T: Real> Job<'_, T> {
    fn run(&self, par: Par) {
        let f = self.fusion;
        let full = f.unit(Kind::Pixels);
        let units = f.elements / full;
        if f.sums.is_empty() {
            return for_each_range(par, units, GRAIN.div_ceil(full), |first, last| {
                self.piece([first, last], first, None);
            });
        }
        // The rows of a sum come in blocks that are summed apart; a thread takes whole blocks.
        let per_unit = f.unit(f.summed) / f.period;
        let rows = units * per_unit;
        let partition = Partition::new::<T>(rows, f.period);
        let piece = |into: &(dyn Fn(usize) -> SendPtr<T> + Sync)| {
            let grain = (GRAIN / f.period).div_ceil(partition.rows).max(1);
            for_each_range(par, partition.blocks, grain, |first, last| {
                let [start, end] = [first * partition.rows, (last * partition.rows).min(rows)];
                // A unit that lies across the border belongs to the piece that it begins in; both sum their rows of it.
                let touched = [start / per_unit, end.div_ceil(per_unit)];
                self.piece(touched, start.div_ceil(per_unit), Some((&partition, [start, end], into)));
            });
        };
        let sum = |n: usize| -> SendPtr<T> { self.operands.outputs[f.sums[n].into].pointer.cast() };
        if partition.blocks == 1 {
            return piece(&sum);
        }
        let partial = partition.blocks * f.period;
        scratch::with::<T, _>(Slot::Partial, f.sums.len() * partial, |scratch| {
            let base = SendPtr::new(scratch);
            piece(&|n| base.add(n * partial));
            for (n, part) in scratch.chunks_exact(partial).enumerate() {
                // SAFETY: `fused` checked that the output has `period` elements, and it is written here alone.
                let out = unsafe { std::slice::from_raw_parts_mut(sum(n).get(), f.period) };
                fold(par, Plain(part), [1, partition.blocks, f.period], [out]);
            }
        });
    }

    /// Runs the steps over the units `touched`; what belongs to units before `owned` is not written. Sums a range of the rows.
    fn piece(&self, touched: [usize; 2], owned: usize, rows: Option<Rows<'_, T>>) {
        let f = self.fusion;
        let full = f.unit(Kind::Pixels);
        let units = match f.bands {
            Some(_) => 1,
            None => {
                let (fit, all) = (TILE / full, (touched[1] - touched[0]).max(1));
                let line = LINE / size_of::<T>();
                // So many units are whole cache lines: if the first tile begins on one, so do all.
                let lines = line >> full.trailing_zeros().min(line.trailing_zeros());
                if fit < all && fit >= 4 * lines { fit - fit % lines } else { fit.clamp(1, all) }
            }
        };
        let room = [f.bands.map_or(units * full, |b| b.largest_patch()), units * full];
        let spread = if BLOCK.is_multiple_of(f.period) { LONG } else { f.period * (SPREAD / f.period).max(1) };
        let lanes = rows.as_ref().map_or(0, |(p, ..)| p.lanes);
        // No longer than what it stands beside: a small pass would spend its time on repeating it.
        let spread = spread.min(room[0].next_multiple_of(f.period)).max(lanes);
        let spare = if touched[0] < owned { f.outputs.len() * full } else { 0 };
        let temps = f.temps.iter().map(|&is_wide| room[usize::from(is_wide)]).sum();
        let (made, window) = self.conv.map_or((0, 0), |(_, conv)| (units * full, conv.room()));
        let sizes = [temps, f.params * spread, f.sums.len() * 2 * lanes, spare, made, window];
        scratch::with::<T, _>(Slot::Fused, sizes.iter().sum(), |scratch| {
            let (temps, rest) = scratch.split_at_mut(sizes[0]);
            let (params, rest) = rest.split_at_mut(sizes[1]);
            let (lanes, rest) = rest.split_at_mut(sizes[2]);
            let (spares, rest) = rest.split_at_mut(sizes[3]);
            let (made, window) = rest.split_at_mut(sizes[4]);
            for (to, x) in params.chunks_exact_mut(spread).zip(self.params) {
                match x {
                    [x] => to.fill(*x),
                    x => repeat(x, to),
                }
            }
            let mut temp = [SendPtr::NULL; MAX_OPERANDS];
            let mut rest = temps;
            for (pointer, &is_wide) in temp.iter_mut().zip(&f.temps) {
                let (own, others) = rest.split_at_mut(room[usize::from(is_wide)]);
                (*pointer, rest) = (SendPtr::new(own).cast(), others);
            }
            let columns = rows.map(|(partition, range, into)| ColumnSums::new(partition, range, lanes, into));
            let (params, spares) = (SendPtr::new(params), SendPtr::new(spares));
            let conv = self.conv.map(|(_, conv)| (conv.reader(window), made));
            // By reference: to move it takes as long as a small pass.
            dispatch(&mut Tiles {
                job: self,
                touched,
                owned,
                units,
                spread,
                temp: &temp,
                params,
                spares,
                columns,
                conv,
            });
        });
    }
}

/// How the rows of a sum are cut, which of them to sum, and where the blocks' sums go.
type Rows<'a, T> = (&'a Partition, [usize; 2], &'a dyn Fn(usize) -> SendPtr<T>);

/// The tiles of a piece.
struct Tiles<'a, T: 'static> {
    job: &'a Job<'a, T>,
    touched: [usize; 2],
    owned: usize,
    /// Units that are taken at once.
    units: usize,
    /// Elements of a repeated parameter.
    spread: usize,
    temp: &'a [SendPtr<u8>; MAX_OPERANDS],
    params: SendPtr<T>,
    /// Where outputs of a unit go that is not to be written.
    spares: SendPtr<T>,
    columns: Option<ColumnSums<'a, T>>,
    /// What computes an input, and where it leaves that of the units taken at once.
    conv: Option<(Reader<'a, T>, &'a mut [T])>,
}

impl<T: Real> Kernel for &mut Tiles<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let f = self.job.fusion;
        let until = if self.job.is_kept { self.touched[1] } else { f.elements / f.unit(Kind::Pixels) };
        let mut columns = self.columns.take();
        let Operands { inputs, outputs, .. } = self.job.operands;
        let outputs = if self.job.is_kept { &outputs[..f.outputs.len()] } else { &[] };
        let mut beside = Ahead::new([&inputs[..f.inputs.len()], outputs]);
        let mut unit = self.touched[0];
        while unit < self.touched[1] {
            let is_owned = unit >= self.owned;
            let end = if is_owned { self.touched[1] } else { self.owned.min(self.touched[1]) };
            let count = (end - unit).min(self.units);
            let full = f.unit(Kind::Pixels);
            let at = At { unit, is_owned };
            let ahead = count * (AHEAD / (count * full)).max(1);
            let goes_on = unit + ahead < until;
            if let (Some((reader, made)), Some((_, conv))) = (&mut self.conv, self.job.conv) {
                let pixels = [unit, unit + count].map(|unit| unit * (full / conv.channels()));
                reader.read(pixels, &mut made[..count * full]);
            }
            match goes_on {
                true => {
                    let work = f.long_steps * full + f.sums.len() * f.unit(f.summed);
                    beside.aim([unit + ahead, count], count * work);
                }
                false => beside.stop(),
            }
            let mut patch = Patch::first(f, unit, count);
            loop {
                for step in &f.steps {
                    let is_long = step.is_over_pixels() || f.long_steps == f.steps.len();
                    self.step(simd, step, &at, &patch, &mut |pixels| {
                        if is_long {
                            beside.ask(pixels);
                        }
                    });
                }
                if !patch.next(f) {
                    break;
                }
            }
            for ((i, kind), spoilt) in f.outputs.iter().enumerate().zip(&self.job.operands.watch) {
                let Some(spoilt) = spoilt else { continue };
                let x = self.pointer(Place::Output(i), &at).cast::<T>();
                // SAFETY: the place holds numbers of `count` units (`Operands::write` checked that it has no indices and is no sum), which have been written.
                if !is_finite(unsafe { std::slice::from_raw_parts(x, count * f.unit(*kind)) }) {
                    spoilt.store(true, Ordering::Relaxed);
                }
            }
            let per_unit = f.unit(f.summed);
            for (n, sum) in f.sums.iter().enumerate() {
                let value = |place| {
                    let x = self.pointer(place, &at).cast::<T>().cast_const();
                    // SAFETY: the place holds numbers of `count` units (`Fusion::new` checked the kind of all sums, and that such temporaries are wide).
                    unsafe { std::slice::from_raw_parts(x, count * per_unit) }
                };
                let column = |place| {
                    let x = self.pointer(place, &at).cast::<T>().cast_const();
                    // SAFETY: a parameter is repeated to `spread` elements.
                    unsafe { std::slice::from_raw_parts(x, self.spread) }
                };
                let times = match sum.times {
                    Factor::One => Times::One,
                    Factor::Value(x) => Times::Value(value(x)),
                    Factor::Normalized([x, mean, rstd]) => {
                        Times::Normalized { x: value(x), mean: column(mean), rstd: column(rstd) }
                    }
                };
                if let Some(columns) = &mut columns {
                    let summed = Summed { of: value(sum.of), times };
                    columns.add(simd, n, unit * per_unit / f.period, summed, &mut |terms| beside.ask(terms));
                }
            }
            unit += count;
        }
    }
}

/// Whether all of them are finite: a number times zero is zero, but for infinities and what is none.
#[inline(always)]
fn is_finite<T: Real>(x: &[T]) -> bool {
    let mut sums = [T::ZERO; BLOCK];
    let (blocks, rest) = x.as_chunks::<BLOCK>();
    for block in blocks {
        sums.iter_mut().zip(block).for_each(|(sum, &x)| *sum += x * T::ZERO);
    }
    sums.iter_mut().zip(rest).for_each(|(sum, &x)| *sum += x * T::ZERO);
    sums.iter().all(|&sum| sum == T::ZERO)
}

/// The unit that a tile lies in, and whether its outputs are to be written.
struct At {
    unit: usize,
    is_owned: bool,
}

impl<T: Real> Tiles<'_, T> {
    /// Where the values of a unit begin; of a narrow temporary and of a parameter, those of the tile.
    #[inline(always)]
    fn pointer(&self, place: Place, at: &At) -> *mut u8 {
        let memory = |m: &Memory| m.pointer.get().wrapping_add(at.unit * m.stride);
        match place {
            Place::Input(i) => match &self.conv {
                Some((_, made)) if self.job.conv.is_some_and(|(conv, _)| conv == i) => made.as_ptr().cast_mut().cast(),
                _ => memory(&self.job.operands.inputs[i]),
            },
            Place::Output(i) if at.is_owned => memory(&self.job.operands.outputs[i]),
            Place::Output(i) => self.spares.add(i * self.job.fusion.unit(Kind::Pixels)).get().cast(),
            Place::Temp(i) => self.temp[i].get(),
            Place::Param(i) => self.params.add(i * self.spread).get().cast(),
        }
    }

    /// Whether a place is laid out as the unit; otherwise it holds the tile alone, without gaps.
    #[inline(always)]
    fn is_wide(&self, place: Place) -> bool {
        match place {
            Place::Temp(i) => self.job.fusion.temps[i],
            _ => true,
        }
    }
}
