//! Lets a pass run over the images of a convolution some at a time as they are computed, if nothing else reads them: bias and activation of a layer, normalisation
//! and pooling of a network in use.
//!
//! What would be done with the convolution's result in memory is to write it and to read it once.

use metaforge_kernels::ConvDims;
use metaforge_kernels::fused::Fusion;

use super::feed::{one_pass, uses};
use super::graph::{Graph, Op, Origin};
use crate::aval::DType;

/// The graph in which such convolutions are part of the pass that follows them.
pub(super) fn follow(mut graph: Graph) -> Graph {
    let uses = uses(&graph);
    let mut gone = vec![false; graph.eqns.len()];
    for at in 0..graph.eqns.len() {
        let Some((fusion, inputs)) = one_pass(&graph.eqns[at].op) else { continue };
        let is_alone = |i: &usize| uses.get(&graph.eqns[at].ins[*i].val) == Some(&1);
        let Some((input, conv, dims)) = (0..inputs)
            .filter(is_alone)
            .find_map(|i| before(&graph, at, fusion, i).map(|(conv, dims)| (i, conv, dims)))
        else {
            continue;
        };
        let op =
            Op::FusedConv { fusion: Box::new(fusion.clone()), inputs: inputs - 1, at: input, dims: Box::new(dims) };
        let image = graph.eqns[conv].ins.clone();
        let eqn = &mut graph.eqns[at];
        eqn.op = op;
        eqn.ins.remove(input);
        eqn.ins.extend(image);
        gone[conv] = true;
    }
    graph.without(gone)
}

/// The convolution that input `i` of the pass at `at` is, if it can be computed image by image before it.
fn before(graph: &Graph, at: usize, fusion: &Fusion, i: usize) -> Option<(usize, ConvDims)> {
    let Origin::Eqn(conv) = graph.values[graph.eqns[at].ins[i].val].1 else { return None };
    let dims = graph.eqns[conv].conv()?;
    let fits = match graph.eqns[at].ins[i].aval.dtype {
        DType::F32 => fusion.follows_conv::<f32>(i, &dims),
        DType::F64 => fusion.follows_conv::<f64>(i, &dims),
        DType::U32 => false,
    };
    fits.then_some((conv, dims))
}
