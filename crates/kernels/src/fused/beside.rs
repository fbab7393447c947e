//! Passes that wait for none of each other, as one piece of work. An optimiser has one for each parameter: most are too small to be cut for threads, all
//! of them together are not.

use super::{Fusion, In, Job, Kind, Operands, Out, conv, fused};
use crate::conv::OnDemand;
use crate::par::{Par, for_each_range};
use crate::real::Real;

/// Elements that a thread takes at a time, at least.
const GRAIN: usize = 1 << 14;

/// Runs `passes`, none of which has a sum: `ins`, `params` and `outs` are those of the first, followed by those of the next. The bits are those of
/// [`super::fused`].
///
/// # Panics
/// As [`super::fused`], and if there are several passes and one has a sum.
#[track_caller]
pub(crate) fn fused_beside<T: Real>(
    par: Par,
    passes: &[Fusion],
    mut ins: &[In<'_, T>],
    mut params: &[&[T]],
    mut outs: &mut [Out<'_, T>],
) {
    if let [pass] = passes {
        return fused(par, pass, ins, params, outs);
    }
    let mut parts = Vec::with_capacity(if par == Par::Seq { 0 } else { passes.len() });
    for fusion in passes {
        assert!(fusion.sums.is_empty(), "fused_beside: a pass with sums");
        let (own_ins, other_ins) = ins.split_at(fusion.inputs.len());
        let (own_params, other_params) = params.split_at(fusion.params);
        let (own_outs, other_outs) = outs.split_at_mut(fusion.outputs.len());
        if par == Par::Seq {
            fused(par, fusion, own_ins, own_params, own_outs);
            (ins, params, outs) = (other_ins, other_params, other_outs);
            continue;
        }
        parts.push(Part { fusion, params: own_params, operands: Operands::NONE, conv: conv(own_ins) });
        if let Some(Part { operands, .. }) = parts.last_mut() {
            operands.read(fusion, None, own_ins, own_params);
            operands.write(fusion, own_outs);
        }
        (ins, params, outs) = (other_ins, other_params, other_outs);
    }
    assert!(ins.is_empty() && params.is_empty() && outs.is_empty(), "fused_beside: operands");
    let total = passes.iter().map(|fusion| fusion.elements).sum();
    for_each_range(par, total, GRAIN, |first, last| {
        let mut begin = 0;
        for part in &parts {
            let Part { fusion, params, operands, conv } = part;
            // The units of this pass that begin in the range.
            let at =
                |place: usize| place.saturating_sub(begin).min(fusion.elements).div_ceil(fusion.unit(Kind::Pixels));
            let [start, end] = [at(first), at(last)];
            if start < end {
                Job { fusion, params, operands, conv: *conv, is_kept: true }.piece([start, end], start, None);
            }
            begin += fusion.elements;
        }
    });
}

/// A pass with its operands.
struct Part<'a, 'w, T> {
    fusion: &'a Fusion,
    params: &'a [&'a [T]],
    operands: Operands<'w>,
    conv: Option<(usize, &'a OnDemand<'a, T>)>,
}
