//! One step over one tile: the arithmetic of the single kernels on slices that lie in the cache.

use super::{MAX_ARGS, Place, Step, StepOp, Tiles};
use crate::elementwise::{apply_binary, apply_unary};
use crate::real::Real;
use crate::simd::Simd;

/// The operands of an elementwise step: each as long as the tile, or a parameter that is repeated.
struct Operands<'a, T> {
    args: [&'a [T]; MAX_ARGS],
    repeats: [bool; MAX_ARGS],
    /// Elements that are worked on at once.
    chunk: usize,
    out: &'a mut [T],
}

impl<T: Real> Tiles<'_, T> {
    /// Runs a step over `count` units from `unit` on.
    #[inline(always)]
    pub(super) fn step<S: Simd>(&mut self, step: &Step, unit: usize, count: usize, is_owned: bool) {
        let f = self.job.fusion;
        let (kinds, out_kind) = step.kinds();
        let out = self.pointer(step.out, unit, is_owned);
        let out_len = count * f.unit(out_kind);
        // SAFETY (of all slices below): `fused` checked that operands in memory have `unit` elements for each unit, a temporary has room for a
        // tile's units of the larger kind, spare outputs for one unit, which is then all of the tile. `Fusion::new` checked that a place holds one kind
        // of thing and that the result is none of the operands, and another thread writes other units.
        macro_rules! slice {
            ($i:expr, $t:ty) => {{
                let pointer = self.pointer(step.args[$i], unit, is_owned).cast::<$t>();
                let len = if matches!(step.args[$i], Place::Param(_)) { self.spread } else { count * f.unit(kinds[$i]) };
                // SAFETY: see above.
                unsafe { std::slice::from_raw_parts(pointer.cast_const(), len) }
            }};
        }
        macro_rules! result {
            ($t:ty) => {
                // SAFETY: see above.
                unsafe { std::slice::from_raw_parts_mut(out.cast::<$t>(), out_len) }
            };
        }
        match (step.op, &f.pooling) {
            (StepOp::PoolIndices, Some(p)) => return p.indices::<T>(unit, slice!(0, T), result!(u32)),
            (StepOp::PoolGather, Some(p)) => return p.gather::<T>(unit, slice!(0, T), slice!(1, u32), result!(T)),
            (StepOp::PoolScatter, Some(p)) => return p.scatter::<T>(unit, slice!(0, T), slice!(1, u32), result!(T)),
            _ => {}
        }
        let mut operands = Operands { args: [&[]; MAX_ARGS], repeats: [false; MAX_ARGS], chunk: out_len, out: result!(T) };
        for i in 0..step.args.len() {
            operands.args[i] = slice!(i, T);
            operands.repeats[i] = matches!(step.args[i], Place::Param(_));
            if operands.repeats[i] {
                operands.chunk = self.spread;
            }
        }
        operands.apply::<S>(step.op);
    }
}

impl<T: Real> Operands<'_, T> {
    #[inline(always)]
    fn apply<S: Simd>(self, op: StepOp) {
        match op {
            StepOp::Unary(op) => self.for_each_run(|[x, ..], out| apply_unary::<S, T>(op, x, out)),
            StepOp::Binary(op) => self.for_each_run(|[a, b, ..], out| apply_binary::<S, T>(op, a, b, out)),
            StepOp::Select => self.for_each_run(|[cond, a, b, ..], out| {
                for (((o, &cond), &a), &b) in out.iter_mut().zip(cond).zip(a).zip(b) {
                    *o = if cond != T::ZERO { a } else { b };
                }
            }),
            StepOp::Normalize => self.for_each_run(|[x, mean, rstd, ..], out| {
                for (((o, &x), &mean), &rstd) in out.iter_mut().zip(x).zip(mean).zip(rstd) {
                    *o = (x - mean) * rstd;
                }
            }),
            StepOp::NormalizeGrad => self.for_each_run(|[xhat, g, rstd, slope, shift], out| {
                let params = rstd.iter().zip(slope).zip(shift);
                for (((o, &xhat), &g), ((&rstd, &slope), &shift)) in out.iter_mut().zip(xhat).zip(g).zip(params) {
                    *o = rstd.fma::<S>(g, slope.fma::<S>(xhat, shift));
                }
            }),
            StepOp::PoolIndices | StepOp::PoolGather | StepOp::PoolScatter => {}
        }
    }

    /// Calls `f` for each run of operands that are as long as each other.
    #[inline(always)]
    fn for_each_run(self, mut f: impl FnMut([&[T]; MAX_ARGS], &mut [T])) {
        let Self { args, repeats, chunk, out } = self;
        for (i, out) in out.chunks_mut(chunk).enumerate() {
            let run = std::array::from_fn(|k| match (args[k].is_empty(), repeats[k]) {
                (true, _) => args[k],
                (_, true) => &args[k][..out.len()],
                (_, false) => &args[k][i * chunk..][..out.len()],
            });
            f(run, out);
        }
    }
}
