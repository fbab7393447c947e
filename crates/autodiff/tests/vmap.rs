//! A mapped function gives each entry what it gives the entry alone: every primitive, gradients through it, programs.

mod common;

use common::{Case, cases};
use metaforge_autodiff::{Arg, Aval, DType, Key, Mapped, Prim, Program, Tape, Tensor, Var, concat, grad, stack, vmap};
use proptest::prelude::*;

const ENTRIES: usize = 3;

/// The operands of each of so many entries: like the case's own, in another order of the numbers, or the same for all.
fn operands(case: &Case, entries: usize, is_shared: &[bool], key: Key) -> Vec<Vec<Tensor>> {
    let of = |i: usize, x: &Tensor, entry: usize| {
        if is_shared[i] {
            return x.clone();
        }
        let tape = Tape::eager();
        let by = entry + key.fold(i as u64).tensor().u32s()[0] as usize;
        // Rolled, so that indices stay below their bound and positive numbers positive.
        let flat = tape.constant(x).reshape([x.len()]);
        let at = if x.is_empty() { 0 } else { by % x.len() };
        let rolled = concat(&[flat.slice(0, at, x.len() - at), flat.slice(0, 0, at)], 0).reshape(x.shape());
        // A little more for each, so that single numbers differ too.
        if x.dtype().is_float() { (rolled * (1.0 + 0.01 * entry as f64)).value() } else { rolled.value() }
    };
    let entry = |entry: usize| case.ins.iter().enumerate().map(|(i, x)| of(i, x, entry)).collect();
    (0..entries).map(entry).collect()
}

fn args<'t>(tape: &'t Tape, entries: &[Vec<Tensor>], is_shared: &[bool]) -> Vec<Arg<'t>> {
    let one = |i: usize| {
        let all: Vec<Var<'t>> = entries.iter().map(|ins| tape.constant(&ins[i])).collect();
        if is_shared[i] { Arg::Shared(all[0]) } else { Arg::Each(stack(&all, 0)) }
    };
    (0..is_shared.len()).map(one).collect()
}

fn near(got: &Tensor, want: &[Tensor], what: &str) {
    let numbers = |t: &Tensor| -> Vec<f64> {
        match t.dtype() {
            DType::U32 => t.u32s().iter().map(|&x| f64::from(x)).collect(),
            _ => t.to_dtype(DType::F64).f64s().to_vec(),
        }
    };
    let want_shape = [&[want.len()], want[0].shape()].concat();
    assert_eq!(got.shape(), want_shape, "{what}");
    let all: Vec<f64> = want.iter().flat_map(numbers).collect();
    for (i, (got, want)) in numbers(got).iter().zip(&all).enumerate() {
        assert!((got - want).abs() <= 1e-12 * (1.0 + want.abs()), "{what}: number {i} is {got}, not {want}");
    }
}

/// The primitive's value, and the gradient of a function of it in every operand.
fn with_gradient<'t>(case: &Case, xs: &[Var<'t>]) -> Vec<Var<'t>> {
    let y = Var::record(case.prim.clone(), xs);
    if !y.dtype().is_float() {
        return vec![y];
    }
    let floats: Vec<Var<'t>> = xs.iter().copied().filter(|x| x.dtype().is_float()).collect();
    [vec![y], grad(y.sin().sum(), &floats)].concat()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_primitive_sees_one_entry_at_a_time(seed in any::<u64>()) {
        for (at, case) in cases(seed).iter().enumerate() {
            let key = Key::new(seed).fold(at as u64);
            let count = case.ins.len();
            for choice in 0..(1usize << count) - 1 {
                let is_shared: Vec<bool> = (0..count).map(|i| choice >> i & 1 == 1).collect();
                let entries = operands(case, 1 + (seed as usize + at) % ENTRIES, &is_shared, key);
                let what = format!("{} {:?} shared {is_shared:?}", case.prim, case.ins.iter().map(Tensor::shape).collect::<Vec<_>>());
                let alone: Vec<Vec<Tensor>> = entries.iter().map(|ins| {
                    let tape = Tape::eager();
                    let xs: Vec<Var<'_>> = ins.iter().map(|x| tape.constant(x)).collect();
                    with_gradient(case, &xs).iter().map(|y| y.value()).collect()
                }).collect();
                let tape = Tape::eager();
                let results = vmap(&args(&tape, &entries, &is_shared), |_, xs| with_gradient(case, xs));
                prop_assert_eq!(results.len(), alone[0].len());
                for (n, y) in results.iter().enumerate() {
                    let want: Vec<Tensor> = alone.iter().map(|ys| ys[n].clone()).collect();
                    near(&y.stacked().value(), &want, &what);
                }
                through(case, &entries, &is_shared, &what);
            }
        }
    }
}

/// The gradient from outside of a function of all values, in each operand: for a shared one it is the sum over the entries.
fn through(case: &Case, entries: &[Vec<Tensor>], is_shared: &[bool], what: &str) {
    let tape = Tape::eager();
    let args = args(&tape, entries, is_shared);
    let y = vmap(&args, |_, xs| vec![Var::record(case.prim.clone(), xs)])[0].stacked();
    let outer: Vec<Var<'_>> = args.iter().map(|&(Arg::Shared(x) | Arg::Each(x))| x).collect();
    let floats: Vec<usize> = (0..outer.len()).filter(|&i| outer[i].dtype().is_float()).collect();
    if !y.dtype().is_float() || floats.is_empty() {
        return;
    }
    let got = grad(y.sin().sum(), &floats.iter().map(|&i| outer[i]).collect::<Vec<_>>());
    let tape = Tape::eager();
    let alone: Vec<Vec<Var<'_>>> = entries
        .iter()
        .map(|ins| with_gradient(case, &ins.iter().map(|x| tape.constant(x)).collect::<Vec<_>>())[1..].to_vec())
        .collect();
    for (n, (got, &i)) in got.iter().zip(&floats).enumerate() {
        let of_entries: Vec<Var<'_>> = alone.iter().map(|ys| ys[n]).collect();
        let want = stack(&of_entries, 0);
        let want = if is_shared[i] { want.sum_axes(&[0], false) } else { want }.value();
        near(&got.value().reshape([&[1], want.shape()].concat()), &[want], &format!("from outside, {what}"));
    }
}

/// Two steps of gradient descent of a small network on its own points, and the loss on others: what a second-order meta-learner maps.
fn play<'t>(w: &[Var<'t>], x: Var<'t>, y: Var<'t>) -> Var<'t> {
    let loss = |w: &[Var<'t>]| ((x.matmul(w[0]) + w[1]).tanh().matmul(w[2]) - y).square().mean();
    let mut w = w.to_vec();
    for _ in 0..2 {
        let g = grad(loss(&w), &w);
        w = w.iter().zip(g).map(|(&w, g)| w - 0.1 * g).collect();
    }
    loss(&w)
}

fn network(key: Key) -> Vec<Tensor> {
    let shapes: [&[usize]; 5] = [&[2, 5], &[5], &[5, 1], &[ENTRIES, 4, 2], &[ENTRIES, 4, 1]];
    shapes.iter().enumerate().map(|(i, s)| key.fold(i as u64).normal(*s, 0.0, 1.0).to_dtype(DType::F64)).collect()
}

#[test]
fn second_order_gradients_flow_inside_and_through() {
    let inputs = network(Key::new(1));
    let avals: Vec<Aval> = inputs.iter().map(Tensor::aval).collect();
    // Each entry by itself, its gradients added up.
    let single = Program::trace(&avals, |_, v| {
        let losses: Vec<Var<'_>> = (0..ENTRIES)
            .map(|i| {
                let [x, y] = [v[3], v[4]].map(|all| all.slice(0, i, 1).reshape(&all.shape()[1..]));
                play(&v[..3], x, y)
            })
            .collect();
        let total = losses.iter().skip(1).fold(losses[0], |sum, &loss| sum + loss);
        [vec![total], grad(total, &v[..3])].concat()
    });
    fn bound<'t>(v: &[Var<'t>]) -> Vec<Arg<'t>> {
        v.iter().enumerate().map(|(i, &x)| if i < 3 { Arg::Shared(x) } else { Arg::Each(x) }).collect()
    }
    // Gradients taken for each entry, inside.
    let inside = Program::trace(&avals, |_, v| {
        let results = vmap(&bound(v), |_, v| {
            let loss = play(&v[..3], v[3], v[4]);
            [vec![loss], grad(loss, &v[..3])].concat()
        });
        results.iter().map(Mapped::sum).collect()
    });
    // One gradient of the sum, from outside.
    let through = Program::trace(&avals, |_, v| {
        let total = vmap(&bound(v), |_, v| vec![play(&v[..3], v[3], v[4])])[0].sum();
        [vec![total], grad(total, &v[..3])].concat()
    });
    // The same with steps that are computed again in the sweep.
    let again = Program::trace(&avals, |_, v| {
        let total = vmap(&bound(v), |inner, v| vec![inner.checkpoint(|| play(&v[..3], v[3], v[4]))])[0].sum();
        [vec![total], grad(total, &v[..3])].concat()
    });
    // Otherwise nothing is computed again.
    assert!(again.flops() > through.flops(), "{} operations, {} without", again.flops(), through.flops());
    let inputs: Vec<&Tensor> = inputs.iter().collect();
    let want = single.call(&inputs);
    for (program, what) in [(&inside, "inside"), (&through, "through"), (&again, "again")] {
        for (got, want) in program.call(&inputs).iter().zip(&want) {
            let stacked = got.reshape([&[1], got.shape()].concat());
            near(&stacked, std::slice::from_ref(want), what);
        }
    }
    assert!(inside.len() < single.len(), "{} instructions for all, {} one by one", inside.len(), single.len());
}

#[test]
fn a_result_that_is_shared_is_there_for_every_entry() {
    let tape = Tape::eager();
    let (w, x) = (tape.var(&Tensor::new([2], vec![1.0, 2.0])), tape.var(&Tensor::new([3], vec![0.0, 1.0, 2.0])));
    let y = vmap(&[Arg::Shared(w), Arg::Each(x)], |_, v| vec![v[0] * 2.0, v[0] * v[1]]);
    assert_eq!(y[0].stacked().value().f32s(), &[2.0, 4.0, 2.0, 4.0, 2.0, 4.0]);
    assert_eq!(y[0].sum().value().f32s(), &[6.0, 12.0]);
    assert_eq!(y[1].stacked().value().f32s(), &[0.0, 0.0, 1.0, 2.0, 2.0, 4.0]);
    assert_eq!(y[1].sum().value().f32s(), &[3.0, 6.0]);
}

#[test]
fn a_sum_of_products_is_one_product() {
    // The gradient in weights that the entries share, and the gradient of a function of it.
    fn gradients<'t>(v: &[Var<'t>]) -> Vec<Var<'t>> {
        let [w, x] = v[..] else { unreachable!("as given") };
        let first = grad(x.matmul(w).square().sum() + x.sin().matmul(w).exp().sum(), &[w])[0];
        vec![first, grad(first.square().sum(), &[w])[0]]
    }
    let (w, x) = (Aval::new([4, 5], DType::F64), Aval::new([ENTRIES, 6, 4], DType::F64));
    let sums = |some: std::ops::Range<usize>| {
        Program::trace(&[w, x], |_, v| {
            let results = vmap(&[Arg::Shared(v[0]), Arg::Each(v[1])], |_, v| gradients(v)[some].to_vec());
            results.iter().map(Mapped::sum).collect()
        })
    };
    let numbers = [Key::new(1).normal(w.shape, 0.0, 0.3), Key::new(2).normal(x.shape, 0.0, 1.0)];
    let numbers = numbers.map(|t| t.to_dtype(DType::F64));
    let tape = Tape::eager();
    let [weights, points] = numbers.each_ref().map(|t| tape.var(t));
    let each: Vec<_> = (0..ENTRIES).map(|i| gradients(&[weights, points.slice(0, i, 1).reshape([6, 4])])).collect();
    let want = [0, 1].map(|i| each.iter().map(|entry| entry[i]).reduce(|a, b| a + b).expect("entries").value());
    // Of the first nobody else reads a term, nor of the second; but the second reads the first.
    for (some, is_summed) in [(0..1, false), (1..2, false), (0..2, true)] {
        let program = sums(some.clone());
        assert_eq!(program.to_string().contains("SumTo"), is_summed, "{program}");
        for (got, want) in program.call(&numbers.each_ref()).iter().zip(&want[some]) {
            near(&tape.constant(got).reshape([1, 4, 5]).value(), std::slice::from_ref(want), "a sum of gradients");
        }
    }
}

#[test]
fn terms_of_a_sum_are_summed_alike_however_they_come() {
    // In each function the gradient in w has products as terms: beside others, twice the same, and one that waits while a layer is computed again.
    type Loss = for<'t> fn(&'t Tape, Var<'t>, Var<'t>, bool) -> Var<'t>;
    let losses: [Loss; 3] = [
        |_, w, x, _| x.matmul(w).square().sum() + w.square().sum() * x.sum(),
        |_, w, x, _| (x.matmul(w).square() * 2.0).sum() + (x.matmul(w).square() * 2.0).sum(),
        |tape, w, x, again| {
            let layer = || x.matmul(w).tanh();
            let h = if again { tape.checkpoint(layer) } else { layer() };
            h.matmul(w).square().sum()
        },
    ];
    // The sum of the entries' gradients, and the gradient of a function of it.
    fn sums<'t>(loss: Loss, w: Var<'t>, x: Var<'t>, again: bool) -> Vec<Var<'t>> {
        let args = [Arg::Shared(w), Arg::Each(x)];
        let sum = vmap(&args, |tape, v| grad(loss(tape, v[0], v[1], again), &v[..1]))[0].sum();
        vec![sum, grad(sum.square().sum(), &[w])[0]]
    }
    let numbers = [Key::new(1).normal([4, 4], 0.0, 0.3), Key::new(2).normal([ENTRIES, 6, 4], 0.0, 1.0)];
    let numbers = numbers.map(|t| t.to_dtype(DType::F64));
    for (which, &loss) in losses.iter().enumerate() {
        let tape = Tape::eager();
        let [w, x] = numbers.each_ref().map(|t| tape.var(t));
        let of = |i: usize| grad(loss(&tape, w, x.slice(0, i, 1).reshape([6, 4]), false), &[w])[0];
        let sum = (0..ENTRIES).map(of).reduce(|a, b| a + b).expect("entries");
        let got: Vec<Tensor> = sums(loss, w, x, false).iter().map(|y| y.value()).collect();
        for (got, want) in got.iter().zip([sum, grad(sum.square().sum(), &[w])[0]]) {
            near(&tape.constant(got).reshape([1, 4, 4]).value(), &[want.value()], &format!("loss {which}"));
        }
        let again: Vec<Tensor> = sums(loss, w, x, true).iter().map(|y| y.value()).collect();
        // A gradient through what was computed again finds its terms in another order.
        assert_eq!(again[0], got[0], "loss {which}, a layer computed again");
        for (is_again, want) in [(false, &got), (true, &again)] {
            let program = Program::trace(&[w.aval(), x.aval()], |_, v| sums(loss, v[0], v[1], is_again));
            let what = format!("loss {which} as a program, a layer computed again: {is_again}");
            assert_eq!(&program.call(&numbers.each_ref()), want, "{what}");
        }
    }
}

/// What a checkpoint holds of an adaptation.
#[derive(Clone, Copy, Debug)]
enum Again {
    Nothing,
    EachStep,
    AllSteps,
    Everything,
}

/// Steps of gradient descent of a network with a layer of 16 by 16, computed again in a sweep or not, and the loss on other points: the
/// layer's adapted weights, the loss, and its gradient.
fn adapted<'t>(tape: &'t Tape, v: &[Var<'t>], support: usize, steps: usize, again: Again) -> Vec<Var<'t>> {
    let w = &v[..3];
    let loss = |w: &[Var<'t>], start: usize, count: usize| {
        let [x, y] = [v[3], v[4]].map(|all| all.slice(0, start, count));
        (x.matmul(w[0]).tanh().matmul(w[1]).tanh().matmul(w[2]) - y).square().mean()
    };
    let step = |w: Vec<Var<'t>>| -> Vec<Var<'t>> {
        let next = || {
            let g = grad(loss(&w, 0, support), &w);
            w.iter().zip(g).map(|(&w, g)| w - 0.1 * g).collect()
        };
        if let Again::EachStep = again { tape.checkpoint(next) } else { next() }
    };
    let all = || (0..steps).fold(w.to_vec(), |w, _| step(w));
    let both = || {
        let fast = if let Again::AllSteps = again { tape.checkpoint(all) } else { all() };
        [fast[1], loss(&fast, support, v[3].shape()[0] - support)]
    };
    let [fast, loss] = if let Again::Everything = again { tape.checkpoint(both) } else { both() };
    [vec![fast, loss], grad(loss, w)].concat()
}

#[test]
fn a_step_on_few_points_is_never_there_as_a_matrix() {
    // Support and query points, steps, and whether the layer's weights of each entry are there.
    let cases =
        [(2, 3, 1, false), (3, 2, 1, false), (4, 4, 1, false), (20, 3, 1, false), (3, 20, 1, true), (3, 3, 2, true)];
    for (support, query, steps, is_there) in cases {
        let points = support + query;
        let shapes: [&[usize]; 5] = [&[2, 16], &[16, 16], &[16, 1], &[ENTRIES, points, 2], &[ENTRIES, points, 1]];
        let key = Key::new(points as u64);
        let numbers: Vec<Tensor> =
            (0..5).map(|i| key.fold(i as u64).normal(shapes[i], 0.0, 0.5).to_dtype(DType::F64)).collect();
        let (inputs, avals): (Vec<&Tensor>, Vec<Aval>) = numbers.iter().map(|t| (t, t.aval())).unzip();
        fn bound<'t>(v: &[Var<'t>]) -> Vec<Arg<'t>> {
            v.iter().enumerate().map(|(i, &x)| if i < 3 { Arg::Shared(x) } else { Arg::Each(x) }).collect()
        }
        let of_all = |first: usize, again: Again| {
            Program::trace(&avals, |_, v| {
                let results = vmap(&bound(v), |tape, v| adapted(tape, v, support, steps, again)[first..].to_vec());
                results.iter().map(Mapped::sum).collect()
            })
        };
        let tape = Tape::eager();
        let v: Vec<Var<'_>> = numbers.iter().map(|t| tape.var(t)).collect();
        let alone = (0..ENTRIES).map(|i| {
            let own = [v[3], v[4]].map(|all| all.slice(0, i, 1).reshape(&all.shape()[1..]));
            adapted(&tape, &[&v[..3], &own].concat(), support, steps, Again::Nothing)
        });
        let want = alone.reduce(|a, b| a.iter().zip(&b).map(|(&a, &b)| a + b).collect()).expect("entries");
        let what = format!("{support} and {query} points, {steps} steps");
        // With the weights among the results, and without.
        for first in [0, 1] {
            let program = of_all(first, Again::Nothing);
            let got = program.call(&inputs);
            for (got, want) in got.iter().zip(&want[first..]) {
                near(&got.reshape([&[1], got.shape()].concat()), &[want.value()], &what);
            }
            assert_eq!(program.to_string().contains("f64[16, 3, 16]"), first == 0 || is_there, "{what}: {program}");
            for again in [Again::EachStep, Again::AllSteps, Again::Everything] {
                assert_eq!(of_all(first, again).call(&inputs), got, "{what}, {again:?} computed again");
            }
        }
        // A gradient from outside, through a region that was moved or none.
        let through = |region: bool| {
            Program::trace(&avals, |_, v| {
                let results = vmap(&bound(v), |tape, v| {
                    let loss = || adapted(tape, v, support, steps, Again::Nothing)[1];
                    vec![if region { tape.checkpoint(loss) } else { loss() }]
                });
                let total = results[0].sum();
                [vec![total], grad(total, &v[..3])].concat()
            })
        };
        let [plain, region] = [false, true].map(through);
        assert!(region.flops() > plain.flops(), "{what}: {} operations, {}", region.flops(), plain.flops());
        for got in [plain.call(&inputs), region.call(&inputs)] {
            for (got, want) in got.iter().zip(&want[1..]) {
                near(&got.reshape([&[1], got.shape()].concat()), &[want.value()], &format!("{what}, from outside"));
            }
        }
    }
}

#[test]
fn products_of_products_are_regrouped_to_the_same_numbers() {
    // Each way to put a product of two short factors and a shared matrix together, with its sides turned or not.
    type Matrix = for<'t> fn(Var<'t>, Var<'t>) -> Var<'t>;
    let ways: [Matrix; 6] =
        [|s, p| s + p, |s, p| p + s, |s, p| s - p, |s, p| p - s, |_, p| -p, |s, p| (s - p * 0.5) * 3.0];
    let rows = |turned: bool, rows: usize, cols: usize| if turned { [cols, rows] } else { [rows, cols] };
    for (way, matrix) in ways.iter().enumerate() {
        for turned in 0..16 {
            let [tx, tw, ta, tb] = [0, 1, 2, 3].map(|i| turned >> i & 1 == 1);
            // x is [3, 20] or [20, 3], the matrix [20, 24] or [24, 20], its factors have 2 terms.
            let [m, n] = rows(tw, 20, 24);
            let shapes = [rows(tx, 3, 20), rows(ta, m, 2), rows(tb, 2, n), [m, n]];
            let value = |i: usize, entry: usize| {
                Key::new(i as u64).fold(entry as u64).normal(shapes[i], 0.0, 1.0).to_dtype(DType::F64)
            };
            let tape = Tape::eager();
            let shared = tape.constant(&value(3, 0));
            let entries: Vec<Vec<Var<'_>>> =
                (0..ENTRIES).map(|entry| (0..3).map(|i| tape.constant(&value(i, entry))).collect()).collect();
            let alone: Vec<Tensor> = entries
                .iter()
                .map(|v| {
                    let p = v[1].matmul_t(v[2], ta, tb);
                    v[0].matmul_t(matrix(shared, p), tx, tw).value()
                })
                .collect();
            let mut args: Vec<Arg<'_>> =
                (0..3).map(|i| Arg::Each(stack(&entries.iter().map(|v| v[i]).collect::<Vec<_>>(), 0))).collect();
            args.push(Arg::Shared(shared));
            let y = vmap(&args, |_, v| vec![v[0].matmul_t(matrix(v[3], v[1].matmul_t(v[2], ta, tb)), tx, tw)]);
            near(&y[0].stacked().value(), &alone, &format!("way {way}, turned {:?}", [tx, tw, ta, tb]));
        }
    }
}

#[test]
fn maps_nest() {
    // Every x times every y.
    let tape = Tape::eager();
    let x = tape.var(&Tensor::new([2, 1, 2], vec![1.0, 2.0, 3.0, 4.0]));
    let y = tape.var(&Tensor::new([3, 2, 1], vec![1.0, 1.0, 0.0, 1.0, 1.0, 0.0]));
    let table = vmap(&[Arg::Each(x), Arg::Shared(y)], |_, v| {
        vec![vmap(&[Arg::Shared(v[0]), Arg::Each(v[1])], |_, v| vec![v[0].matmul(v[1])])[0].stacked()]
    });
    assert_eq!(table[0].stacked().value().shape(), &[2, 3, 1, 1]);
    assert_eq!(table[0].stacked().value().f32s(), &[3.0, 2.0, 1.0, 7.0, 4.0, 3.0]);
}

#[test]
#[should_panic(expected = "vmap: mapped arguments of [2, 3] entries")]
fn entries_differ() {
    let tape = Tape::eager();
    let [a, b] = [2, 3].map(|n| tape.zeros([n], DType::F32));
    vmap(&[Arg::Each(a), Arg::Each(b)], |_, v| vec![v[0] + v[1]]);
}

#[test]
fn random_numbers_are_of_each_entry() {
    let tape = Tape::eager();
    let keys = [Key::new(1).tensor(), Key::new(2).tensor()];
    let both = stack(&[tape.constant(&keys[0]), tape.constant(&keys[1])], 0);
    let aval = Aval::new([4], DType::F64);
    let y = vmap(&[Arg::Each(both)], |_, v| vec![Var::record(Prim::Uniform(aval), v)]);
    let alone = keys.map(|key| Var::record(Prim::Uniform(aval), &[tape.constant(&key)]).value());
    near(&y[0].stacked().value(), &alone, "uniform");
}

#[test]
#[should_panic(expected = "vmap: no argument is mapped")]
fn nothing_is_mapped() {
    let tape = Tape::eager();
    vmap(&[Arg::Shared(tape.zeros([2], DType::F32))], |_, v| v.to_vec());
}

#[test]
#[should_panic(expected = "vmap: a mapped argument f32[] has no axis of entries")]
fn a_scalar_is_mapped() {
    let tape = Tape::eager();
    vmap(&[Arg::Each(tape.zeros([], DType::F32))], |_, v| v.to_vec());
}

#[test]
#[should_panic(expected = "vmap: arguments of several tapes")]
fn arguments_of_two_tapes() {
    let tapes = [Tape::eager(), Tape::eager()];
    let [a, b] = [0, 1].map(|i| tapes[i].zeros([2], DType::F32));
    vmap(&[Arg::Each(a), Arg::Each(b)], |_, v| v.to_vec());
}

#[test]
#[should_panic(
    expected = "vmap: Reshape([3, 1, 1, 1, 1, 1, 1, 1]) gives f32[3, 1, 1, 1, 1, 1, 1, 1], which leaves no axis for the entries"
)]
fn no_axis_is_left() {
    let tape = Tape::eager();
    vmap(&[Arg::Each(tape.zeros([2, 3], DType::F32))], |_, v| vec![v[0].reshape([3, 1, 1, 1, 1, 1, 1, 1])]);
}

#[test]
fn scalars_of_each_entry() {
    let tape = Tape::eager();
    let x = tape.var(&Tensor::new([3], vec![1.0, -2.0, 3.0]));
    let w = tape.var(&Tensor::new([2], vec![10.0, 20.0]));
    let y = vmap(&[Arg::Each(x), Arg::Shared(w)], |inner, v| {
        let kept = inner.checkpoint(|| v[0].square());
        let chosen = v[0].step().select(kept, v[1].sum());
        vec![chosen, v[0].reshape([1, 1]).permute(&[1, 0]) * v[1], grad(kept, &v[..1])[0]]
    });
    assert_eq!(y[0].stacked().value().f32s(), [1.0, 30.0, 9.0]);
    assert_eq!(y[1].stacked().value().shape(), [3, 1, 2]);
    assert_eq!(y[1].stacked().value().f32s(), [10.0, 20.0, -20.0, -40.0, 30.0, 60.0]);
    assert_eq!(y[2].stacked().value().f32s(), [2.0, -4.0, 6.0]);
}

#[test]
fn normalisation_of_all_entries_moves_them_only_once() {
    let inputs = [Aval::new([ENTRIES, 1, 50, 4], DType::F32)];
    let program = Program::trace(&inputs, |_, v| {
        let each = vmap(&[Arg::Each(v[0])], |_, v| {
            // From rows to images and back, as between layers.
            let x = v[0].permute(&[0, 2, 1]).permute(&[0, 2, 1]);
            vec![x.normalize(1, 1, 1e-5).square()]
        });
        vec![each[0].sum()]
    });
    let text = program.to_string();
    assert_eq!(text.matches("Permute").count(), 1, "{text}");
}
