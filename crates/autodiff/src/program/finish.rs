//! Lets a product finish its own sums, if nothing else reads them: bias and activation of a layer, or a step of gradient descent.
//!
//! A small product is in the first-level cache when it is whole, and a pass of its own takes longer to begin than to run.

use metaforge_kernels::MatMulDims;
use metaforge_kernels::fused::{Place, Step, StepOp};
use smallvec::SmallVec;

use super::feed::{one_pass, uses};
use super::graph::{Base, Ending, Eqn, Graph, Op, Origin, Use};
use crate::prim::{Binary, Prim, Unary};
use crate::shape::matmul_dims;

/// The graph in which products do what alone reads them, as far as they can.
pub(super) fn finish(mut graph: Graph) -> Graph {
    let uses = uses(&graph);
    let mut gone = vec![false; graph.eqns.len()];
    for at in 0..graph.eqns.len() {
        let is_alone = |x: &Use| uses.get(&x.val) == Some(&1);
        let alone: SmallVec<[usize; 4]> =
            (0..graph.eqns[at].ins.len()).filter(|&i| is_alone(&graph.eqns[at].ins[i])).collect();
        let Some((product, eqn)) = alone.into_iter().find_map(|i| finished(&graph, at, i)) else { continue };
        // Where the product is, whose operands are alive there, if what it is added to is there by then.
        let is_there = |x: &Use| !matches!(graph.values[x.val].1, Origin::Eqn(of) if of >= product);
        let (here, other) = if eqn.ins.iter().all(is_there) { (product, at) } else { (at, product) };
        eqn.outs.iter().for_each(|&out| graph.values[out].1 = Origin::Eqn(here));
        graph.eqns[here] = eqn;
        gone[other] = true;
    }
    graph.without(gone)
}

/// The product that operand `i` of the equation at `at` is, and the equation that both are, if they can be one.
fn finished(graph: &Graph, at: usize, i: usize) -> Option<(usize, Eqn)> {
    let eqn = &graph.eqns[at];
    let Origin::Eqn(product) = graph.values[eqn.ins[i].val].1 else { return None };
    let (dims, mut ending, mut ins) = product_of(graph, &graph.eqns[product])?;
    let is_whole = eqn.ins[i].aval.shape.elements() == graph.values[eqn.outs[0]].0.shape.elements();
    let mut now = is_whole.then_some(Place::Input(i))?;
    for step in &steps(eqn)? {
        match (step.op, &step.args[..]) {
            (StepOp::Unary(Unary::Affine { scale, shift }), &[x]) if x == now && ending.is_nothing() => {
                ending.affine = Some([scale, shift]);
            }
            (StepOp::Unary(Unary::Relu), &[x]) if x == now && !ending.relu => ending.relu = true,
            (StepOp::Binary(op @ (Binary::Add | Binary::Sub)), &[a, b]) if ending.base.is_none() && !ending.relu => {
                let other = match op {
                    Binary::Add if a == now => b,
                    _ if b == now => a,
                    _ => return None,
                };
                // The bare product is never there.
                let (other, [row, batch]) = base(graph, eqn, other, &dims).filter(|_| other != Place::Input(i))?;
                ending.base = Some(Base { minus: op == Binary::Sub, row, batch });
                ins.push(other);
            }
            _ => return None,
        }
        now = step.out;
    }
    let op = Op::Product { dims: Box::new(dims), ending };
    (now == Place::Output(0)).then(|| (product, Eqn { op, ins, outs: eqn.outs.clone() }))
}

/// The product that an equation is, what it does at its end, and its operands.
fn product_of(graph: &Graph, eqn: &Eqn) -> Option<(MatMulDims, Ending, SmallVec<[Use; 3]>)> {
    let dims = match &eqn.op {
        Op::Product { dims, ending } => return Some((**dims, *ending, eqn.ins.clone())),
        Op::Prim(Prim::MatMul { ta, tb, interleaved }) => {
            let shape = |i: usize| &eqn.ins[i].aval.shape;
            matmul_dims([*ta, *tb], *interleaved, shape(0), shape(1), &graph.values[eqn.outs[0]].0.shape)
        }
        _ => return None,
    };
    Some((dims, Ending::default(), eqn.ins.clone()))
}

/// What an equation with one result does element by element, as the steps of a pass.
fn steps(eqn: &Eqn) -> Option<Vec<Step>> {
    let op = match &eqn.op {
        Op::Prim(Prim::Unary(op)) => StepOp::Unary(*op),
        Op::Prim(Prim::Binary(op)) => StepOp::Binary(*op),
        other => {
            let (fusion, _) = one_pass(other)?;
            return (fusion.sums().is_empty() && eqn.outs.len() == 1).then(|| fusion.steps().to_vec());
        }
    };
    let args = (0..eqn.ins.len()).map(Place::Input).collect();
    Some(vec![Step { op, args, out: Place::Output(0), pooled: false }])
}

/// An operand that a product of these sizes can be added to, and where it has the numbers for the next row and for the next product of the batch.
fn base(graph: &Graph, eqn: &Eqn, place: Place, dims: &MatMulDims) -> Option<(Use, [usize; 2])> {
    let &MatMulDims { batch, m, n, interleaved, .. } = dims;
    let all = batch * m * n;
    let x = match (&eqn.op, place) {
        (Op::Fused { inputs, .. }, Place::Param(i)) => eqn.ins[inputs + i],
        (_, Place::Input(i)) => eqn.ins[i],
        _ => return None,
    };
    if let Origin::OnDemand(_) = graph.values[x.val].1 {
        // It is nowhere in memory.
        return None;
    }
    let len = x.aval.shape.elements();
    let [row, next] = match &eqn.op {
        _ if len == all && interleaved => [batch * n, n],
        _ if len == all => [n, m * n],
        // So many numbers again and again.
        Op::Fused { .. } if len == n => [0, 0],
        Op::Fused { .. } if interleaved && len == batch * n => [0, n],
        Op::Fused { .. } if !interleaved && len == m * n => [n, 0],
        Op::Prim(_) => {
            let out = graph.values[eqn.outs[0]].0.shape;
            let strides = x.aval.shape.broadcast_strides(&out);
            match (&out[..], &strides[..out.len()]) {
                (&[a, b, c], &[row, next, 1]) if interleaved && [a, b, c] == [m, batch, n] => [row, next],
                (&[a, b, c], &[next, row, 1]) if !interleaved && [a, b, c] == [batch, m, n] => [row, next],
                (&[.., last], &[.., 1]) if batch == 1 && last == n => [evenly(&out, &strides)?, 0],
                _ => return None,
            }
        }
        _ => return None,
    };
    Some((x, [row, next]))
}

/// The distance between rows that follow each other, if it is the same for all.
fn evenly(shape: &[usize], strides: &[usize]) -> Option<usize> {
    let (mut row, mut rows) = (0, 1);
    for axis in (0..shape.len() - 1).rev().filter(|&axis| shape[axis] > 1) {
        if rows == 1 {
            row = strides[axis];
        } else if strides[axis] != rows * row {
            return None;
        }
        rows *= shape[axis];
    }
    Some(row)
}

#[cfg(test)]
mod tests {
    use crate::program::testing::assert_same_as_eager;
    use crate::{Arg, Aval, DType, Key, Program, Tensor, Var, grad, vmap};

    /// That the program has these instructions, and the bits of the equations.
    #[track_caller]
    fn check(shapes: &[&[usize]], ops: &[&str], f: impl for<'t> Fn(&[Var<'t>]) -> Vec<Var<'t>>) {
        for dtype in [DType::F32, DType::F64] {
            let avals: Vec<Aval> = shapes.iter().map(|&shape| Aval::new(shape, dtype)).collect();
            let program = Program::trace(&avals, |_, x| f(x));
            let found: Vec<String> = program.instrs.iter().map(|instr| instr.op.to_string()).collect();
            assert_eq!(found, ops, "{program}");
            let numbers: Vec<Tensor> =
                shapes.iter().zip(1..).map(|(&s, i)| Key::new(i).normal(s, 0.0, 1.0).to_dtype(dtype)).collect();
            assert_same_as_eager(&program, &numbers, &f);
        }
    }

    const PLAIN: &str = "MatMul { ta: false, tb: false }";

    #[test]
    fn bias_and_activation_of_a_layer() {
        let shapes: [&[usize]; 3] = [&[10, 7], &[7, 40], &[40]];
        check(&shapes, &[&format!("{PLAIN}, Add, Relu")], |x| vec![(x[0].matmul(x[1]) + x[2]).relu()]);
        check(&shapes, &[&format!("{PLAIN}, Add")], |x| vec![x[2] + x[0].matmul(x[1])]);
        check(&shapes, &[&format!("{PLAIN}, Relu")], |x| vec![x[0].matmul(x[1]).relu()]);
        check(&shapes, &[&format!("{PLAIN}, Affine, Sub")], |x| vec![x[2] - x[0].matmul(x[1]) * 0.1]);
        // A sum of products is one that begins with the other.
        check(&shapes[..2], &["Sin", PLAIN, &format!("{PLAIN}, Add, Relu")], |x| {
            vec![(x[0].matmul(x[1]) + x[0].sin().matmul(x[1])).relu()]
        });
    }

    #[test]
    fn what_a_batch_is_added_to_may_be_shared() {
        let subtracted = format!("{PLAIN}, Sub");
        // Weights that the batch shares are those of one product, whose rows are to be evenly spaced in what they are subtracted from.
        let bases: [(&[usize], bool); 6] = [
            (&[40], true),
            (&[10, 40], false),
            (&[3, 1, 40], false),
            (&[1, 10, 40], false),
            (&[3, 10, 40], true),
            (&[1, 1, 40], true),
        ];
        for (base, is_even) in bases {
            fn f<'t>(x: &[Var<'t>]) -> Vec<Var<'t>> {
                vec![x[2] - x[0].matmul(x[1])]
            }
            check(&[&[3, 10, 7], &[3, 7, 40], base], &[&subtracted], f);
            let of_one: &[&str] = if is_even { &[&subtracted] } else { &[PLAIN, "Sub"] };
            check(&[&[3, 10, 7], &[7, 40], base], of_one, f);
        }
    }

    #[test]
    fn other_steps_stay_a_pass() {
        let shapes: [&[usize]; 3] = [&[10, 7], &[7, 40], &[40]];
        // The product is a result too; it is the smaller operand; it is subtracted from; the steps come in another order.
        check(&shapes, &[PLAIN, "Relu"], |x| {
            let y = x[0].matmul(x[1]);
            vec![y, y.relu()]
        });
        check(&[&[1, 7], &[7, 40], &[10, 40]], &[PLAIN, "Add"], |x| vec![x[0].matmul(x[1]) + x[2]]);
        check(&shapes, &[PLAIN, "Sub"], |x| vec![x[0].matmul(x[1]) - x[2]]);
        check(&shapes, &[PLAIN, "Fused[2]"], |x| vec![x[0].matmul(x[1]).relu() + x[2]]);
        // It is added to what is made of it.
        check(&shapes, &[PLAIN, "Add"], |x| {
            let y = x[0].matmul(x[1]);
            vec![y + y]
        });
        check(&shapes, &[PLAIN, "Fused[2]"], |x| {
            let y = x[0].matmul(x[1]);
            vec![y * 0.5 + y]
        });
        check(&shapes, &[PLAIN, "Fused[2]"], |x| vec![(x[0].matmul(x[1]) + x[2]) * 0.5]);
        // One number for all.
        check(&[&[10, 7], &[7, 40], &[1]], &[PLAIN, "Add"], |x| vec![x[0].matmul(x[1]) + x[2]]);
    }

    #[test]
    fn a_product_of_nothing_is_what_it_is_added_to() {
        for shapes in [[&[0, 7][..], &[7, 40], &[40]], [&[10, 0], &[0, 40], &[40]], [&[10, 7], &[7, 0], &[0]]] {
            check(&shapes, &[&format!("{PLAIN}, Affine, Sub")], |x| vec![x[2] - x[0].matmul(x[1]) * 0.1]);
        }
    }

    #[test]
    fn a_step_is_taken_where_its_gradient_is() {
        // The layers' weight gradients come one after the other, the steps after all of them.
        let avals = [&[10, 20][..], &[20, 20], &[20, 20], &[20, 20]].map(|shape| Aval::new(shape, DType::F32));
        let program = Program::trace(&avals, |_, x| {
            let y = x[1..].iter().fold(x[0], |y, &w| y.matmul(w).sin());
            x[1..].iter().zip(grad(y.square().sum(), &x[1..])).map(|(&w, g)| w - 0.1 * g).collect()
        });
        let at = |what: &str| {
            let is_it = |op: String| op.starts_with(what);
            program
                .instrs
                .iter()
                .map(|instr| instr.op.to_string())
                .enumerate()
                .filter(|(_, op)| is_it(op.clone()))
                .map(|(i, _)| i)
                .collect::<Vec<_>>()
        };
        let (steps, cotangents) =
            (at("MatMul { ta: true, tb: false }, Affine, Sub"), at("MatMul { ta: false, tb: true }"));
        assert_eq!([steps.len(), cotangents.len()], [3, 2], "{program}");
        assert!(steps[0] < cotangents[1], "{program}");
    }

    #[test]
    fn a_step_of_gradient_descent_of_each_task() {
        fn adapted<'t>(x: &[Var<'t>]) -> Vec<Var<'t>> {
            let tasks = [Arg::Shared(x[0]), Arg::Shared(x[1]), Arg::Each(x[2])];
            let adapted = vmap(&tasks, |_, v| {
                let loss = v[2].matmul(v[0]).relu().matmul(v[1]).square().sum();
                v[..2].iter().zip(grad(loss, &v[..2])).map(|(&w, g)| w - 0.1 * g).collect()
            });
            adapted.iter().map(|w| w.stacked()).collect()
        }
        let shapes: [&[usize]; 3] = [&[5, 9], &[9, 3], &[4, 10, 5]];
        let avals = shapes.map(|shape| Aval::new(shape, DType::F32));
        let program = Program::trace(&avals, |_, x| adapted(x));
        let steps =
            program.instrs.iter().filter(|instr| instr.op.to_string().ends_with("interleaved: true }, Affine, Sub"));
        assert_eq!(steps.count(), 2, "{program}");
        let numbers: Vec<Tensor> = shapes.iter().zip(1..).map(|(&s, i)| Key::new(i).normal(s, 0.0, 1.0)).collect();
        assert_same_as_eager(&program, &numbers, adapted);
    }
}
