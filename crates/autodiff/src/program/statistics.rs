//! Lets a convolution take the statistics of its own result, which lies in the cache then, if a normalisation asks for them.

use super::graph::{Graph, Op, Origin};
use crate::aval::DType;

/// The graph in which such statistics are part of the convolution.
pub(super) fn with_convolutions(mut graph: Graph) -> Graph {
    let mut gone = vec![false; graph.eqns.len()];
    for at in 0..graph.eqns.len() {
        let Op::Statistics { eps } = graph.eqns[at].op else { continue };
        let x = graph.eqns[at].ins[0];
        let Origin::Eqn(conv) = graph.values[x.val].1 else { continue };
        let Some(dims) = graph.eqns[conv].conv() else { continue };
        let Some([h, w]) = dims.out_hw() else { continue };
        let fits = match x.aval.dtype {
            DType::F32 => dims.comes_with_statistics::<f32>(),
            DType::F64 => dims.comes_with_statistics::<f64>(),
            DType::U32 => false,
        };
        if !fits || x.aval.shape[..] != [1, dims.n * h * w, dims.co] {
            continue;
        }
        let outs = graph.eqns[at].outs.clone();
        let eqn = &mut graph.eqns[conv];
        eqn.op = Op::ConvStatistics { eps, dims: Box::new(dims) };
        eqn.outs.extend(outs);
        gone[at] = true;
    }
    graph.without(gone)
}

#[cfg(test)]
mod tests {
    use crate::program::testing::assert_same_as_eager;
    use crate::{Aval, Conv, DType, Key, Program, Tensor, Var, grad};

    /// Two layers with batch norm, and the gradient of the squares of the gradient, so that statistics are read at every order.
    fn net<'t>(x: &[Var<'t>]) -> Vec<Var<'t>> {
        let [image, v, w] = x[..] else { unreachable!("three inputs") };
        let conv = Conv::new().pad(1);
        let first = image.conv2d(v, conv).normalize(0, 1, 1e-5).relu();
        let second = first.conv2d(w, conv);
        let loss = (second.normalize(0, 1, 1e-5).tanh() * second).mean();
        let gradient = grad(loss, &[v, w]);
        let squares = gradient.iter().map(|g| g.square().sum()).reduce(|a, b| a + b).expect("gradients");
        [vec![loss], gradient, grad(squares, &[v, w])].concat()
    }

    /// The convolution is a result as well, its statistics are taken with two eps, and its image is a view of another shape.
    fn shared<'t>(x: &[Var<'t>]) -> Vec<Var<'t>> {
        let [image, v, _] = x[..] else { unreachable!("three inputs") };
        let y = image.reshape([18, 28, 14, 1]).conv2d(v, Conv::new().pad(1));
        vec![y, y.normalize(0, 1, 1e-5), y.normalize(0, 1, 1e-3)]
    }

    type Function = for<'t> fn(&[Var<'t>]) -> Vec<Var<'t>>;

    #[test]
    fn the_bits_are_those_of_the_tape() {
        for (f, convolutions) in [(net as Function, 2), (shared, 1)] {
            for dtype in [DType::F32, DType::F64] {
                check(f, dtype, convolutions);
            }
        }
    }

    fn check(f: Function, dtype: DType, convolutions: usize) {
        let key = Key::new(5);
        let shapes: [&[usize]; 3] = [&[9, 28, 28, 1], &[3, 3, 1, 64], &[3, 3, 64, 64]];
        let inputs: [Tensor; 3] =
            std::array::from_fn(|i| key.fold(i as u64).normal(shapes[i], 0.0, 0.5).to_dtype(dtype));
        let avals = inputs.each_ref().map(Tensor::aval);
        let program = Program::trace(&avals, |_, x| f(x));
        let text = program.to_string();
        assert_eq!(text.matches("with statistics").count(), convolutions, "{text}");
        assert_same_as_eager(&program, &inputs, f);
    }

    #[test]
    fn only_statistics_of_the_result_itself_are_taken_so() {
        let avals = [Aval::new([40, 14, 14, 3], DType::F32), Aval::new([3, 3, 3, 64], DType::F32)];
        // Of an activation; of each image.
        let count = |f: for<'t> fn(Var<'t>) -> Vec<Var<'t>>| {
            let program = Program::trace(&avals, |_, x| f(x[0].conv2d(x[1], Conv::new().pad(1))));
            program.to_string().matches("with statistics").count()
        };
        assert_eq!(count(|y| vec![y.tanh().normalize(0, 1, 1e-5)]), 0);
        assert_eq!(count(|y| vec![y.reshape([40, 14 * 14, 64]).normalize(1, 1, 1e-5)]), 0);
        assert_eq!(count(|y| vec![y.normalize(0, 1, 1e-5)]), 1);
    }
}
