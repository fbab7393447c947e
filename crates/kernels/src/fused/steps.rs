//! One step over one tile: the arithmetic of the single kernels on slices that lie in the cache.

use super::columns;
use super::patch::{MAX_ROWS, Patch};
use super::{At, BLOCK, Kind, LONG, MAX_ARGS, Place, Step, StepOp, Tiles};
use crate::elementwise::{Pairs, apply_unary, with_function};
use crate::real::Real;
use crate::simd::Simd;

/// The operands of an elementwise step: each as long as the tile, or a parameter that is repeated.
struct Operands<'a, T> {
    args: [&'a [T]; MAX_ARGS],
    repeats: [bool; MAX_ARGS],
    /// Elements that are worked on at once.
    chunk: usize,
    /// Whether they may as well be fewer, [`BLOCK`].
    is_short: bool,
    out: &'a mut [T],
}

impl<T: Real> Tiles<'_, T> {
    /// Runs a step over a tile, and every now and then `beside`, which is told of how many pixels the work is that comes next.
    #[inline(always)]
    pub(super) fn step<S: Simd>(&self, simd: S, step: &Step, at: &At, patch: &Patch, beside: &mut impl FnMut(usize)) {
        let f = self.job.fusion;
        let (kinds, out_kind) = step.kinds();
        let is_pooling =
            matches!(step.op, StepOp::PoolIndices | StepOp::PoolMax { .. } | StepOp::PoolGather | StepOp::PoolScatter);
        let patch = &if is_pooling { *patch } else { patch.flat() };
        // SAFETY (of all slices below): `fused` checked that operands in memory have `unit` elements for each unit, and a tile lies within its unit
        // (`Patch`); a wide temporary has room for the units taken at once, any other for the largest tile, a spare output for one unit, which is then all that is
        // taken. `Fusion::new` checked that a place holds one kind of thing and that the result is none of the operands; another thread writes other units.
        macro_rules! row {
            ($place:expr, $kind:expr, $row:expr, $t:ty) => {{
                let (place, row) = ($place, $row);
                let is_wide = self.is_wide(place);
                let (start, len) = match ($kind, place) {
                    (_, Place::Param(_)) => (0, self.spread),
                    (Kind::Pixels, _) if is_wide => (patch.start + row * patch.pitch, patch.len),
                    (Kind::Pixels, _) => (row * patch.len, patch.len),
                    (_, _) if is_wide => (patch.windows_start, patch.windows),
                    (_, _) => (0, patch.windows),
                };
                (self.pointer(place, at).cast::<$t>().wrapping_add(start), len)
            }};
        }
        macro_rules! arg {
            ($i:expr, $row:expr, $t:ty) => {{
                let (pointer, len) = row!(step.args[$i], kinds[$i], $row, $t);
                // SAFETY: see above.
                unsafe { std::slice::from_raw_parts(pointer.cast_const(), len) }
            }};
        }
        macro_rules! result {
            ($row:expr, $t:ty) => {
                result!($row, $t, step.out, out_kind)
            };
            ($row:expr, $t:ty, $place:expr, $kind:expr) => {{
                let (pointer, len) = row!($place, $kind, $row, $t);
                // SAFETY: see above.
                unsafe { std::slice::from_raw_parts_mut(pointer, len) }
            }};
        }
        if let Some(bands) = &f.bands {
            // A tile without windows has nothing to compute for them.
            if out_kind != Kind::Pixels && patch.windows == 0 {
                beside(patch.rows * patch.len);
                return;
            }
            match step.op {
                StepOp::PoolIndices | StepOp::PoolMax { .. } | StepOp::PoolGather => {
                    let mut x: [&[T]; MAX_ROWS] = [&[]; MAX_ROWS];
                    for row in 0..patch.rows {
                        x[row] = arg!(0, row, T);
                    }
                    match step.op {
                        StepOp::PoolIndices => bands.max(simd, patch, &x, result!(0, u32), &mut [], beside),
                        StepOp::PoolMax { indices } => {
                            let indices = result!(0, u32, indices, Kind::Indices);
                            bands.max(simd, patch, &x, indices, result!(0, T), beside);
                        }
                        _ => {
                            beside(patch.rows * patch.len);
                            bands.gather(simd, patch, &x, arg!(1, 0, u32), result!(0, T));
                        }
                    }
                    return;
                }
                StepOp::PoolScatter => {
                    if let (Some(quad), 2) = (bands.quad(), patch.rows) {
                        let rows = [result!(0, T), result!(1, T)];
                        bands.scatter_quads(simd, patch, &quad, arg!(0, 0, T), arg!(1, 0, u32), rows, beside);
                        return;
                    }
                    for row in 0..patch.rows {
                        beside(patch.len);
                        bands.scatter(patch, row, arg!(0, 0, T), arg!(1, 0, u32), result!(row, T));
                    }
                    return;
                }
                _ => {}
            }
        }
        let rows = if out_kind == Kind::Pixels { patch.rows } else { 1 };
        for row in 0..rows {
            let out = result!(row, T);
            let (chunk, is_short) = (out.len(), BLOCK.is_multiple_of(f.period));
            let mut operands = Operands { args: [&[]; MAX_ARGS], repeats: [false; MAX_ARGS], chunk, is_short, out };
            for i in 0..step.args.len() {
                operands.args[i] = arg!(i, row, T);
                operands.repeats[i] = matches!(step.args[i], Place::Param(_));
                if operands.repeats[i] {
                    operands.chunk = self.spread;
                }
            }
            // A step over windows is told of as the pixels that they hold.
            let (elements, pixels) = (operands.out.len(), patch.rows * patch.len / rows);
            let mut tell = |done: usize| beside(if elements == pixels { done } else { done * pixels / elements });
            if !operands.by_columns(simd, step.op, f.period, &mut tell) {
                tell(elements);
                operands.apply::<S>(step.op);
            }
        }
    }
}

/// Computes `$value` for each element of the result, from the elements of the operands named. A macro, because a closure in several loops is
/// compiled apart, for the baseline.
///
/// Where operands repeat, runs have one fixed length if that can be: a loop of unknown length costs as much to begin and end as some hundred
/// elements.
macro_rules! each {
    // As many runs of `$len` elements as there are from `$done` on.
    (@runs $len:ident, $args:ident, $repeats:ident, $out:ident, $done:ident, [$($arg:ident = $k:tt),+], $value:expr) => {
        let first = $done;
        $( let $arg = (if $repeats[$k] { &$args[$k][..] } else { &$args[$k][first..] }.as_chunks::<$len>().0, $repeats[$k]); )+
        for (i, out) in $out[first..].as_chunks_mut::<$len>().0.iter_mut().enumerate() {
            $( let Some($arg) = $arg.0.get(if $arg.1 { 0 } else { i }) else { return }; )+
            for j in 0..$len {
                $( let $arg = $arg[j]; )+
                out[j] = $value;
            }
            $done += $len;
        }
    };
    ($operands:expr, [$($arg:ident = $k:tt),+], $value:expr) => {{
        let Operands { args, repeats, chunk, is_short, out } = $operands;
        if !repeats.contains(&true) {
            $( let mut $arg = args[$k].iter(); )+
            for out in out.iter_mut() {
                $( let Some(&$arg) = $arg.next() else { return }; )+
                *out = $value;
            }
        } else {
            let mut done = 0;
            if chunk == LONG {
                each!(@runs LONG, args, repeats, out, done, [$($arg = $k),+], $value);
            }
            if is_short {
                each!(@runs BLOCK, args, repeats, out, done, [$($arg = $k),+], $value);
            }
            for (i, out) in out[done..].chunks_mut(chunk).enumerate() {
                let first = done + i * chunk;
                $( let $arg = if repeats[$k] { &args[$k][..out.len()] } else { &args[$k][first..][..out.len()] }; )+
                for j in 0..out.len() {
                    $( let $arg = $arg[j]; )+
                    out[j] = $value;
                }
            }
        }
    }};
}

/// A binary function's loops.
impl<T: Real> Pairs<T> for Operands<'_, T> {
    #[inline(always)]
    fn map(self, f: impl Fn(T, T) -> T) {
        each!(self, [a = 0, b = 1], f(a, b));
    }
}

impl<T: Real> Operands<'_, T> {
    /// Runs a step of a normalisation some columns at a time, if all of its parameters are columns and these can be.
    #[inline(always)]
    fn by_columns<S: Simd>(&mut self, simd: S, op: StepOp, columns: usize, beside: &mut impl FnMut(usize)) -> bool {
        if !columns::are_whole::<S, T>(columns) {
            return false;
        }
        let ([a, b, c, d, e, f, g], out) = (self.args, &mut *self.out);
        match (op, self.repeats) {
            (StepOp::Normalize, [false, true, true, ..]) => {
                columns::map::<S, T, columns::Normalize, 1, 2>(simd, columns, [a], [b, c], out, beside);
            }
            (StepOp::NormalizeMulAdd, [false, true, true, true, true, ..]) => {
                columns::map::<S, T, columns::NormalizeMulAdd, 1, 4>(simd, columns, [a], [b, c, d, e], out, beside);
            }
            (StepOp::NormalizeGrad, [false, false, true, true, true, ..]) => {
                columns::map::<S, T, columns::NormalizeGrad, 2, 3>(simd, columns, [a, b], [c, d, e], out, beside);
            }
            (StepOp::NormalizeThenGrad, [false, false, true, true, true, true, true]) => {
                columns::map::<S, T, columns::NormalizeThenGrad, 2, 5>(
                    simd,
                    columns,
                    [a, b],
                    [c, d, e, f, g],
                    out,
                    beside,
                );
            }
            _ => return false,
        }
        true
    }

    #[inline(always)]
    fn apply<S: Simd>(self, op: StepOp) {
        match op {
            StepOp::Unary(op) => apply_unary::<S, T>(op, self.args[0], self.out),
            StepOp::Binary(op) => with_function(op, self),
            StepOp::Select => each!(self, [cond = 0, a = 1, b = 2], if cond != T::ZERO { a } else { b }),
            StepOp::MulAdd => each!(self, [a = 0, b = 1, c = 2], a * b + c),
            StepOp::NormalizeMulAdd => {
                each!(self, [x = 0, mean = 1, rstd = 2, scale = 3, shift = 4], (x - mean) * rstd * scale + shift)
            }
            StepOp::Normalize => each!(self, [x = 0, mean = 1, rstd = 2], (x - mean) * rstd),
            StepOp::NormalizeGrad => each!(
                self,
                [xhat = 0, g = 1, rstd = 2, slope = 3, shift = 4],
                rstd.fma::<S>(g, slope.fma::<S>(xhat, shift))
            ),
            StepOp::NormalizeThenGrad => each!(
                self,
                [x = 0, g = 1, mean = 2, rstd = 3, factor = 4, slope = 5, shift = 6],
                factor.fma::<S>(g, slope.fma::<S>((x - mean) * rstd, shift))
            ),
            StepOp::PoolIndices | StepOp::PoolMax { .. } | StepOp::PoolGather | StepOp::PoolScatter => {}
        }
    }
}
