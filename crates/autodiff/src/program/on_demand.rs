//! Lets passes compute a convolution of few terms where they read its result, if that is large and nobody else reads it.
//!
//! It is the first layer of a network: as large as the largest map, read by the passes of normalisation and pooling, forward and backward, and by their
//! derivatives. To compute it again from its image takes less time than to fetch it from memory, let alone to write it there.

use std::collections::{HashMap, HashSet};

use metaforge_kernels::fused::Fusion;
use metaforge_kernels::{ConvDims, OnDemand as Kernel};

use super::graph::{Eqn, Graph, OnDemand, Op, Origin, Val};
use crate::aval::DType;

/// Bytes of a result from which on it is not kept: less stays in the third-level cache, which gives it faster than it can be computed.
pub(super) const LARGE: usize = 1 << 25;

/// The graph in which such convolutions with results of at least so many bytes are no equations.
pub(super) fn on_demand(mut graph: Graph, large: usize) -> Graph {
    let mut readers: HashMap<Val, Vec<usize>> = HashMap::new();
    for (at, eqn) in graph.eqns.iter().enumerate() {
        eqn.ins.iter().for_each(|x| readers.entry(x.val).or_default().push(at));
    }
    let results: HashSet<Val> = graph.outputs.iter().map(|x| x.val).collect();
    // A pass computes one convolution at most.
    let mut taken: HashSet<usize> = HashSet::new();
    let mut gone = vec![false; graph.eqns.len()];
    for at in 0..graph.eqns.len() {
        let Some(dims) = of_few_terms(&graph, &graph.eqns[at], large) else { continue };
        let y = graph.eqns[at].outs[0];
        let readers = readers.get(&y).map(Vec::as_slice).unwrap_or_default();
        let can_read = |&r: &usize| !taken.contains(&r) && reads_on_demand(&graph.eqns[r], y, &dims);
        if readers.is_empty() || results.contains(&y) || !readers.iter().all(can_read) {
            continue;
        }
        taken.extend(readers);
        let [image, weights] = graph.eqns[at].ins[..] else { unreachable!("a convolution of two") };
        graph.values[y].1 = Origin::OnDemand(graph.on_demand.len());
        graph.on_demand.push(OnDemand { image, weights, dims });
        gone[at] = true;
    }
    graph.without(gone)
}

/// The shape of a convolution that can be computed on demand, and is large enough.
fn of_few_terms(graph: &Graph, eqn: &Eqn, large: usize) -> Option<ConvDims> {
    let dims = eqn.conv()?;
    let y = graph.values[eqn.outs[0]].0;
    let fits = match y.dtype {
        DType::F32 => Kernel::<f32>::fits(&dims),
        DType::F64 => Kernel::<f64>::fits(&dims),
        DType::U32 => false,
    };
    (fits && y.bytes() >= large).then_some(dims)
}

/// Whether an equation can compute the result `y` of such a convolution where it reads it.
fn reads_on_demand(eqn: &Eqn, y: Val, dims: &ConvDims) -> bool {
    let Some([h, w]) = dims.out_hw() else { return false };
    let pixels = dims.n * h * w;
    let reads = |fusion: &Fusion, inputs: usize| {
        let at: Vec<usize> = (0..eqn.ins.len()).filter(|&i| eqn.ins[i].val == y).collect();
        matches!(at[..], [i] if i < inputs && fusion.takes_conv(i, pixels, dims.co))
    };
    match &eqn.op {
        Op::Statistics { .. } => eqn.ins[0].aval.shape[..] == [1, pixels, dims.co],
        Op::Fused { passes, inputs } => matches!(&passes[..], [fusion] if reads(fusion, *inputs)),
        Op::FusedWeightGrad { fusion, inputs, .. } => reads(fusion, *inputs),
        Op::Prim(_) | Op::Coefficients { .. } | Op::Step(_) => false,
        Op::ConvStatistics { .. } => unreachable!("convolutions take statistics once this is settled"),
        Op::Product { .. } => unreachable!("products are finished once this is settled"),
        Op::FusedConv { .. } => unreachable!("passes follow convolutions once this is settled"),
    }
}

#[cfg(test)]
mod tests {
    use crate::program::testing::assert_same_as_eager;
    use crate::{Aval, Conv, DType, Key, Program, Tensor, Var, Window, grad};

    /// What is asked of the network below.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Case {
        /// A loss and its gradient.
        Once,
        /// The gradient of the gradient's squares.
        Twice,
        /// As `Once`, but image and weights of the first layer are themselves computed, and the image is a result.
        Computed,
    }

    /// Two layers of a network, the mean of the squares of what comes out, and gradients.
    fn net<'t>(x: &[Var<'t>], case: Case) -> Vec<Var<'t>> {
        let [w, scale, shift, v, image] = x[..] else { unreachable!("five inputs") };
        let (image, kernel) = if case == Case::Computed { (image.tanh() * 2.0, w * 0.5) } else { (image, w) };
        let pool = Window { kernel: [2; 2], stride: [2; 2], pad: [[0; 2]; 2] };
        let first = image.conv2d(kernel, Conv::new().pad(1)).normalize(0, 1, 1e-5) * scale + shift;
        let second = first.max_pool2d(pool).relu().conv2d(v, Conv::new().pad(1)).tanh();
        let loss = second.square().mean();
        let gradient = grad(loss, &x[..4]);
        match case {
            Case::Once => [vec![loss], gradient].concat(),
            Case::Computed => [vec![image, loss], gradient].concat(),
            Case::Twice => {
                let norm = gradient.iter().map(|g| g.square().sum()).reduce(|a, b| a + b).expect("gradients");
                grad(loss + norm, &x[..4])
            }
        }
    }

    fn inputs(images: usize, side: usize, dtype: DType) -> Vec<Tensor> {
        let key = Key::new(3);
        let shapes: [&[usize]; 5] = [&[3, 3, 1, 64], &[64], &[64], &[3, 3, 64, 5], &[images, side, side, 1]];
        (0..5).map(|i| key.fold(i).normal(shapes[i as usize], 0.0, 0.5).to_dtype(dtype)).collect()
    }

    #[test]
    fn a_first_layer_that_is_never_kept_gives_the_same_bits() {
        for (images, side, case, dtype) in [
            (7, 28, Case::Once, DType::F32),
            (3, 15, Case::Once, DType::F64),
            (5, 12, Case::Twice, DType::F32),
            (9, 28, Case::Computed, DType::F32),
            (3, 15, Case::Computed, DType::F32),
        ] {
            let tensors = inputs(images, side, dtype);
            let avals: Vec<Aval> = tensors.iter().map(Tensor::aval).collect();
            let program = Program::trace_as_if_large(&avals, |_, x| net(x, case));
            let text = program.to_string();
            assert!(text.contains("on demand"), "{text}");
            let kept = Program::trace(&avals, |_, x| net(x, case));
            assert!(!kept.to_string().contains("on demand") && kept.flops() == program.flops());
            let image = images * side * side * 64 * dtype.size();
            assert!(program.workspace_bytes() + image / 2 <= kept.workspace_bytes(), "{text}");
            // What is read on demand must not have gone into a tensor either.
            assert_same_as_eager(&program, &tensors, |x| net(x, case));
        }
    }

    #[test]
    fn a_first_layer_that_is_a_result_or_read_otherwise_is_kept() {
        let avals: Vec<Aval> = inputs(4, 8, DType::F32).iter().map(Tensor::aval).collect();
        let result = Program::trace_as_if_large(&avals, |_, x| {
            let y = x[4].conv2d(x[0], Conv::new().pad(1));
            vec![y, y.normalize(0, 1, 1e-5).relu()]
        });
        let by_another = Program::trace_as_if_large(&avals, |_, x| {
            let y = x[4].conv2d(x[0], Conv::new().pad(1));
            vec![y.normalize(0, 1, 1e-5).relu(), y.conv2d(x[3], Conv::new())]
        });
        // Both are read by one pass, which computes one of them.
        let two = Program::trace_as_if_large(&avals, |_, x| {
            let [a, b] = [1.0, 2.0].map(|by| x[4].conv2d(x[0] * by, Conv::new().pad(1)));
            vec![a * x[1] + b * x[2]]
        });
        assert_eq!(two.to_string().matches("on demand").count(), 1, "{two}");
        for program in [result, by_another] {
            assert!(!program.to_string().contains("on demand"), "{program}");
        }
    }
}
