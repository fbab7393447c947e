//! Lets a pass compute the operand of a weight gradient where that reads it, if nothing else does.
//!
//! It is the gradient of a network's first layer: as large as the largest map, and all that would be done with it in memory is to write it and to read
//! it once.

use std::collections::HashMap;

use metaforge_kernels::ConvDims;
use metaforge_kernels::fused::Fusion;

use super::graph::{Graph, Op, Origin, Val};
use crate::aval::DType;
use crate::prim::Prim;
use crate::shape::conv_dims;

/// The graph in which such passes are part of the weight gradient that they feed.
pub(super) fn feed(mut graph: Graph) -> Graph {
    let uses = uses(&graph);
    let mut gone = vec![false; graph.eqns.len()];
    for at in 0..graph.eqns.len() {
        let Some((pass, dims)) = fed_by(&graph, at, &uses) else { continue };
        let image = graph.eqns[at].ins[0];
        let Some((fusion, inputs)) = one_pass(&graph.eqns[pass].op) else { unreachable!("a pass") };
        let op = Op::FusedWeightGrad { fusion: Box::new(fusion.clone()), inputs, dims: Box::new(dims) };
        let ins = graph.eqns[pass].ins.iter().copied().chain([image]).collect();
        (graph.eqns[at].op, graph.eqns[at].ins) = (op, ins);
        gone[pass] = true;
    }
    graph.without(gone)
}

/// How often each value is read, or a result.
pub(super) fn uses(graph: &Graph) -> HashMap<Val, usize> {
    let mut uses: HashMap<Val, usize> = HashMap::new();
    let on_demand = graph.on_demand.iter().flat_map(|conv| [&conv.image, &conv.weights]);
    for x in graph.eqns.iter().flat_map(|eqn| &eqn.ins).chain(&graph.outputs).chain(on_demand) {
        *uses.entry(x.val).or_default() += 1;
    }
    uses
}

/// A pass that is alone, and how many inputs it has.
pub(super) fn one_pass(op: &Op) -> Option<(&Fusion, usize)> {
    match op {
        Op::Fused { passes, inputs } => match &passes[..] {
            [fusion] => Some((fusion, *inputs)),
            _ => None,
        },
        _ => None,
    }
}

/// The pass that can feed equation `at`, and the shape of the convolution.
fn fed_by(graph: &Graph, at: usize, uses: &HashMap<Val, usize>) -> Option<(usize, ConvDims)> {
    let eqn = &graph.eqns[at];
    let Op::Prim(Prim::ConvWeightGrad { conv, kernel }) = &eqn.op else { return None };
    let [x, g] = eqn.ins[..] else { return None };
    let Origin::Eqn(pass) = graph.values[g.val].1 else { return None };
    let (fusion, _) = one_pass(&graph.eqns[pass].op)?;
    let &[n, h, w, c] = &x.aval.shape[..] else { return None };
    let dims = conv_dims(conv, [n, h, w, c], *kernel, g.aval.shape[3]).ok()?;
    let fits = match g.aval.dtype {
        DType::F32 => fusion.feeds_weight_grad::<f32>(&dims),
        DType::F64 => fusion.feeds_weight_grad::<f64>(&dims),
        DType::U32 => false,
    };
    (fits && uses.get(&g.val) == Some(&1)).then_some((pass, dims))
}
