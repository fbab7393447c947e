//! Compiled programs: the eager run's bits, nothing allocated, nothing superfluous.

mod common;

use common::cases;
use metaforge_autodiff::{Aval, Conv, DType, Key, Par, Program, Tape, Tensor, Var, Window, grad};
use proptest::prelude::*;

fn bits(t: &Tensor) -> (Aval, Vec<u8>) {
    (t.aval(), t.bytes().to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    /// Every primitive with its first and second derivatives, in f64 and f32.
    #[test]
    fn a_program_gives_the_eager_bits(seed in any::<u64>()) {
        for case in cases(seed) {
            for dtype in [DType::F64, DType::F32] {
                let ins: Vec<Tensor> = case.ins.iter().map(|x| if x.dtype().is_float() { x.to_dtype(dtype) } else { x.clone() }).collect();
                let f = Both(&case);
                let tape = Tape::eager();
                let xs: Vec<Var<'_>> = ins.iter().map(|x| tape.var(x)).collect();
                let eager: Vec<Tensor> = f.run(&xs).iter().map(|y| y.value()).collect();
                let avals: Vec<Aval> = ins.iter().map(Tensor::aval).collect();
                let program = Program::trace(&avals, |_, xs| f.run(xs));
                let replayed = program.call(&ins.iter().collect::<Vec<_>>());
                for (a, b) in eager.iter().zip(&replayed) {
                    prop_assert_eq!(bits(a), bits(b), "{}\n{}", case.prim, program);
                }
            }
        }
    }
}

struct Both<'a>(&'a common::Case);

impl Both<'_> {
    fn run<'t>(&self, xs: &[Var<'t>]) -> Vec<Var<'t>> {
        let y = self.0.apply(xs);
        let moving: Vec<Var<'t>> = xs.iter().copied().filter(|x| x.dtype().is_float()).collect();
        let first = grad(y.sin().sum(), &moving);
        let sum = first.iter().map(|g| g.sin().sum()).reduce(|a, b| a + b);
        let second = sum.map_or(vec![], |s| if s.dtype().is_float() { grad(s, &moving) } else { vec![] });
        [vec![y], first, second].concat()
    }
}

/// A second-order meta-gradient through a small convolutional network.
fn maml<'t>(x: &[Var<'t>]) -> Vec<Var<'t>> {
    fn loss<'t>(w: &[Var<'t>], x: Var<'t>, labels: Var<'t>) -> Var<'t> {
        let h = x.conv2d(w[0], Conv::new().pad(1)).normalize(0, 1, 1e-5) * w[1];
        let h = h.relu().max_pool2d(Window { kernel: [2; 2], stride: [2; 2], pad: [[0; 2]; 2] });
        let logits = h.reshape([x.shape()[0], w[2].shape()[0]]).matmul(w[2]);
        -logits.log_softmax().take_last(labels).mean()
    }
    let (w, x) = x.split_at(3);
    let inner = grad(loss(w, x[0], x[1]), w);
    let fast: Vec<Var<'t>> = w.iter().zip(inner).map(|(&w, g)| w - g * 0.4).collect();
    let outer = loss(&fast, x[2], x[3]);
    [vec![outer], grad(outer, w)].concat()
}

fn maml_inputs() -> Vec<Tensor> {
    let key = Key::new(5);
    vec![
        key.fold(0).normal([3, 3, 2, 8], 0.0, 0.3),
        key.fold(1).normal([8], 1.0, 0.1),
        key.fold(2).normal([4 * 4 * 8, 5], 0.0, 0.1),
        key.fold(3).normal([5, 8, 8, 2], 0.0, 1.0),
        Tensor::from_u32([5], vec![0, 1, 2, 3, 4]),
        key.fold(4).normal([10, 8, 8, 2], 0.0, 1.0),
        Tensor::from_u32([10], (0..10).map(|i| i % 5).collect()),
    ]
}

fn trace(inputs: &[Tensor]) -> Program {
    Program::trace(&inputs.iter().map(Tensor::aval).collect::<Vec<_>>(), |_, x| maml(x))
}

/// A classifier of blocks of a convolution, batch norm with scale and shift, pooling and a rectifier: the loss and its gradient.
fn blocks<'t>(x: &[Var<'t>], pool: usize) -> Vec<Var<'t>> {
    let (w, data) = x.split_at(x.len() - 2);
    let window = Window { kernel: [pool; 2], stride: [pool; 2], pad: [[0; 2]; 2] };
    let mut h = data[0];
    for block in w[..w.len() - 1].chunks_exact(3) {
        let normal = h.conv2d(block[0], Conv::new().pad(1)).normalize(0, 1, 1e-5) * block[1] + block[2];
        h = normal.max_pool2d(window).relu();
    }
    let head = w[w.len() - 1];
    let logits = h.reshape([h.shape()[0], head.shape()[0]]).matmul(head);
    let loss = -logits.log_softmax().take_last(data[1]).mean();
    let first = grad(loss, w);
    let turned = first.iter().map(|g| (*g * *g).sum()).reduce(|a, b| a + b).expect("there are weights");
    [vec![loss], first, grad(turned, w)].concat()
}

#[test]
fn networks_give_the_eager_bits_to_the_second_order() {
    // Maps of odd and even sizes, channels that fill registers and that do not, sums of more rows than a block has.
    for (n, size, channels, pool) in [(3, 13, 5, 2), (2, 12, 17, 3), (7, 14, 64, 2), (40, 14, 32, 2)] {
        let key = Key::new(n as u64);
        let left = size / pool / pool;
        let mut inputs = Vec::new();
        for (i, from) in [2, channels].into_iter().enumerate() {
            let key = key.fold(i as u64);
            inputs.push(key.fold(0).normal([3, 3, from, channels], 0.0, 0.3));
            inputs.push(key.fold(1).normal([channels], 1.0, 0.3));
            inputs.push(key.fold(2).normal([channels], 0.0, 0.3));
        }
        inputs.push(key.fold(3).normal([left * left * channels, 4], 0.0, 0.2));
        inputs.push(key.fold(4).normal([n, size, size, 2], 0.0, 1.0));
        inputs.push(Tensor::from_u32([n], (0..n as u32).map(|i| i % 4).collect()));
        let tape = Tape::eager();
        let xs: Vec<Var<'_>> = inputs.iter().map(|x| tape.var(x)).collect();
        let eager: Vec<_> = blocks(&xs, pool).iter().map(|y| bits(&y.value())).collect();
        let avals: Vec<Aval> = inputs.iter().map(Tensor::aval).collect();
        let program = |outputs| Program::trace(&avals, |_, x| blocks(x, pool)[..outputs].to_vec());
        let (first, second) = (program(1 + inputs.len() - 2), program(eager.len()));
        assert!(second.to_string().contains("PoolScatter"), "the gradient of a pooling is part of a pass\n{second}");
        for step in ["ConvWeightGrad of Fused", "PoolMax", "NormalizeThenGrad", "* Normalize("] {
            assert!(
                first.to_string().contains(step),
                "nothing else reads the first map, an index, a normalised value\n{first}"
            );
        }
        let inputs: Vec<&Tensor> = inputs.iter().collect();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        for (program, par) in [(&first, Par::Seq), (&first, Par::Rayon), (&second, Par::Seq), (&second, Par::Rayon)] {
            let mut workspace = program.workspace();
            pool.install(|| program.run(&mut workspace, &inputs, par));
            for (i, eager) in eager.iter().take(program.outputs().len()).enumerate() {
                let replayed = bits(&program.output(&workspace, i).to_tensor());
                assert!(*eager == replayed, "output {i} of {n} images of {size}, {channels} channels, {par:?}");
            }
        }
    }
}

#[test]
fn one_value_normalised_in_several_ways_and_single_rows() {
    let x = Key::new(1).normal([4, 4, 6], 0.0, 1.0);
    let row = Key::new(2).normal([1, 200], 0.0, 1.0);
    let zeros = Tensor::new([200], vec![-0.0; 200]);
    fn run<'t>(x: &[Var<'t>]) -> Vec<Var<'t>> {
        let both = [x[0].normalize(0, 1, 1e-5), x[0].normalize(0, 2, 1e-5), x[0].normalize(1, 1, 1e-5)];
        let one = (x[1].normalize(0, 1, 1e-5) * x[2]).sum();
        [both.to_vec(), grad(one, &x[1..]), grad((both[0] * both[1]).sum(), &x[..1])].concat()
    }
    let inputs = [x, row, zeros];
    let tape = Tape::eager();
    let xs: Vec<Var<'_>> = inputs.iter().map(|x| tape.var(x)).collect();
    let eager: Vec<_> = run(&xs).iter().map(|y| bits(&y.value())).collect();
    let program = Program::trace(&inputs.iter().map(Tensor::aval).collect::<Vec<_>>(), |_, x| run(x));
    let replayed: Vec<_> = program.call(&inputs.iter().collect::<Vec<_>>()).iter().map(bits).collect();
    assert!(eager == replayed, "{program}");
}

#[test]
fn a_pass_reads_what_it_can_compute_again() {
    // Forward and backward through one block: the normalised image is in no instruction's results.
    let avals = [[3usize, 3, 1, 64].as_slice(), &[64], &[64], &[75, 28, 28, 1]].map(|s| Aval::new(s, DType::F32));
    let program = Program::trace(&avals, |_, x| {
        let normal = x[3].conv2d(x[0], Conv::new().pad(1)).normalize(0, 1, 1e-5) * x[1] + x[2];
        let y = normal.max_pool2d(Window { kernel: [2; 2], stride: [2; 2], pad: [[0; 2]; 2] }).relu();
        grad((y * y).sum(), &x[..3])
    });
    let image = 75 * 28 * 28 * 64 * 4;
    // The convolution's result, its gradient, and values of a quarter of their size.
    assert!(program.workspace_bytes() < 13 * image / 4, "{} bytes\n{program}", program.workspace_bytes());
}

#[test]
fn replay_allocates_nothing() {
    let inputs = maml_inputs();
    let inputs: Vec<&Tensor> = inputs.iter().collect();
    let program = trace(&maml_inputs());
    let mut workspace = program.workspace();
    program.run(&mut workspace, &inputs, Par::Seq);
    let counted = allocation_counter::measure(|| program.run(&mut workspace, &inputs, Par::Seq));
    assert_eq!(counted.count_total, 0, "{counted:?}");
}

#[test]
fn updates_of_all_parameters_are_one_instruction() {
    // Momentum and a step by it, for parameters of all sizes.
    let shapes: [&[usize]; 4] = [&[3, 3, 64, 64], &[64], &[64, 100], &[]];
    let key = Key::new(9);
    let tensors: Vec<Tensor> =
        (0..12).map(|i| key.fold(i).normal(shapes[i as usize % 4], 0.0, 1.0)).chain([Tensor::scalar(0.1)]).collect();
    fn step_all<'t>(x: &[Var<'t>]) -> Vec<Var<'t>> {
        let step = |i: usize| {
            let m = x[4 + i] * 0.9 + x[8 + i] * 0.1;
            [x[i] - m / (m.square() + 1e-8).sqrt() * x[12], m]
        };
        (0..4).flat_map(step).collect()
    }
    let program = Program::trace(&tensors.iter().map(Tensor::aval).collect::<Vec<_>>(), |_, x| step_all(x));
    assert_eq!(program.len(), 1, "{program}");
    let tape = Tape::eager();
    let vars: Vec<Var<'_>> = tensors.iter().map(|x| tape.var(x)).collect();
    let eager: Vec<_> = step_all(&vars).iter().map(|y| bits(&y.value())).collect();
    let inputs: Vec<&Tensor> = tensors.iter().collect();
    for threads in [1, 2, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let mut workspace = program.workspace();
        pool.install(|| program.run(&mut workspace, &inputs, Par::Rayon));
        let run: Vec<_> = (0..eager.len()).map(|i| bits(&program.output(&workspace, i).to_tensor())).collect();
        assert!(run == eager, "{threads} threads");
    }
}

#[test]
fn one_thread_and_several_give_the_same_bits() {
    // Large enough that every kind of kernel splits its work.
    let key = Key::new(6);
    let inputs = [
        key.fold(0).normal([3, 3, 2, 32], 0.0, 0.3),
        key.fold(1).normal([32], 1.0, 0.1),
        key.fold(2).normal([14 * 14 * 32, 5], 0.0, 0.1),
        key.fold(3).normal([10, 28, 28, 2], 0.0, 1.0),
        Tensor::from_u32([10], (0..10).map(|i| i % 5).collect()),
        key.fold(4).normal([40, 28, 28, 2], 0.0, 1.0),
        Tensor::from_u32([40], (0..40).map(|i| i % 5).collect()),
    ];
    let program = trace(&inputs);
    let inputs: Vec<&Tensor> = inputs.iter().collect();
    let run = |par: Par| {
        let mut workspace = program.workspace();
        program.run(&mut workspace, &inputs, par);
        (0..program.outputs().len()).map(|i| bits(&program.output(&workspace, i).to_tensor())).collect::<Vec<_>>()
    };
    let alone = run(Par::Seq);
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        assert!(alone == pool.install(|| run(Par::Rayon)), "{threads} threads");
    }
}

#[test]
fn the_arena_is_smaller_than_all_values_together() {
    let program = trace(&maml_inputs());
    let tape = Tape::eager();
    let inputs: Vec<Tensor> = maml_inputs();
    let xs: Vec<Var<'_>> = inputs.iter().map(|x| tape.var(x)).collect();
    maml(&xs);
    assert!(program.len() < tape.len(), "{} instructions from {} values", program.len(), tape.len());
    let text = program.to_string();
    assert!(text.contains("ConvWeightGrad") && text.contains("arena:"), "{text}");
}

#[test]
fn what_is_not_asked_for_is_not_computed() {
    let aval = Aval::new([4], DType::F32);
    let program = Program::trace(&[aval], |_, x| {
        let twice = x[0].exp() * x[0].exp();
        let _unused = x[0].tanh();
        vec![twice, x[0].exp() * x[0].exp()]
    });
    // One exponential and one product, in one pass: the rest is dead or known.
    assert_eq!(program.len(), 1, "{program}");
    let text = program.to_string();
    assert!(text.matches("Exp").count() == 1 && !text.contains("Tanh") && text.contains("return %0, %0"), "{text}");
}

#[test]
fn a_factor_takes_the_sign_of_what_it_multiplies() {
    fn f<'t>(x: Var<'t>) -> Vec<Var<'t>> {
        // Of these only the last keeps the sign of a zero.
        [(0.3, -0.7), (0.3, 0.0), (0.3, -0.0)].map(|(scale, shift)| (-x).affine(scale, shift)).to_vec()
    }
    let numbers = Tensor::new([6], vec![0.0, -0.0, 1.5, -7.0 / 3.0, 1e-40, f32::INFINITY]);
    for x in [numbers.clone(), numbers.to_dtype(DType::F64)] {
        let program = Program::trace(&[x.aval()], |_, x| f(x[0]));
        assert!(!program.to_string().contains("Neg"), "{program}");
        for (replayed, eager) in program.call(&[&x]).iter().zip(f(Tape::eager().var(&x))) {
            assert_eq!(bits(replayed), bits(&eager.value()), "{program}");
        }
    }
}

#[test]
fn a_number_in_every_element_is_read_as_one_whatever_its_shape() {
    let program = Program::trace(&[Aval::new([3, 2, 4], DType::F32)], |tape, x| {
        vec![tape.full([3], 0.1, DType::F32).reshape([3, 1, 1]) * x[0]]
    });
    assert_eq!(program.len(), 1, "{program}");
}

#[test]
fn an_output_in_another_shape_is_no_copy() {
    let program = Program::trace(&[Aval::new([4], DType::F32)], |_, x| {
        let y = x[0].exp();
        vec![y, y.reshape([2, 2])]
    });
    assert_eq!(program.len(), 1, "{program}");
    let y = program.call(&[&Tensor::new([4], vec![0.0; 4])]);
    assert_eq!([y[0].shape(), y[1].shape()], [&[4][..], &[2, 2]]);
    assert_eq!(y[0].f32s(), y[1].f32s());
}

#[test]
fn the_gradients_of_a_batch_norm_share_their_sums() {
    // Those of its scale and shift are also what the gradient of its image needs: two sums, not four.
    let avals = [Aval::new([8, 5, 5, 4], DType::F32), Aval::new([4], DType::F32), Aval::new([4], DType::F32)];
    let program = Program::trace(&avals, |_, x| {
        let y = x[0].normalize(0, 1, 1e-5) * x[1] + x[2];
        grad(y.sin().sum(), x)
    });
    let text = program.to_string();
    assert_eq!(text.matches("sum of").count() + text.matches("SumTo([").count(), 2, "{text}");
}

#[test]
fn results_go_into_tensors_of_the_callers() {
    // Alone in a pass, read by another, in place of its operand, an input, one twice, and one that is left in the workspace.
    let aval = Aval::new([6], DType::F32);
    let program = Program::trace(&[aval, aval], |_, x| {
        let alone = x[0] * x[1] + 1.0;
        let read = x[0] - x[1];
        let matrix = read.reshape([2, 3]).matmul(x[1].reshape([3, 2])).exp();
        let twice = x[1].sin();
        vec![alone, read, matrix, x[0], twice, twice, (alone * read).sum()]
    });
    let (a, b) = (Key::new(1).normal([6], 0.0, 1.0), Key::new(2).normal([6], 0.0, 1.0));
    let wanted = program.call(&[&a, &b]);
    let junk = |aval: &Aval| Tensor::full(aval.shape, f64::NAN, aval.dtype);
    let mut found: Vec<Tensor> = program.outputs()[..6].iter().map(junk).collect();
    let kept = found[0].clone();
    for _ in 0..2 {
        // The first time its memory is shared with `kept`, which stays what it was.
        let mut workspace = program.workspace();
        let mut results: Vec<&mut Tensor> = found.iter_mut().collect();
        program.run_into(&mut workspace, &[&a, &b], &mut results, Par::Seq);
        for (found, wanted) in found.iter().zip(&wanted) {
            assert_eq!(bits(found), bits(wanted), "{program}");
        }
        assert_eq!(bits(&program.output(&workspace, 6).to_tensor()), bits(&wanted[6]));
    }
    assert!(kept.f32s().iter().all(|x| x.is_nan()));
}

#[test]
fn a_program_tells_whether_its_results_are_finite() {
    // From a pass, from a pass that has a sum, a product, a sum, an input, one twice, of a convolution and its pass, indices and what they pick, and
    // one that is not asked for.
    fn results<'t>(x: &[Var<'t>]) -> Vec<Var<'t>> {
        let [a, b, image, kernel] = x[..] else { unreachable!("four inputs") };
        let pass = a * 2.0 + b;
        let twice = b.sin();
        let sum = (a.square() + b).sum_to([3]);
        let matrix = a.matmul(b.reshape([3, 4]));
        let layer = image.conv2d(kernel, Conv::new().pad(1)).leaky_relu(0.2);
        let pooled = (layer * 1.5).max_pool2d(Window { kernel: [2; 2], stride: [2; 2], pad: [[0; 2]; 2] });
        vec![pass, matrix, sum, a, twice, twice, layer, pooled, b.exp() * a]
    }
    let whole = 9;
    for (dtype, is_large, par) in
        [(DType::F32, false, Par::Seq), (DType::F32, true, Par::Rayon), (DType::F64, true, Par::Seq)]
    {
        let shapes: [&[usize]; 4] = [&[4, 3], &[4, 3], &[16, 20, 20, 1], &[3, 3, 1, 16]];
        let avals: Vec<Aval> = shapes.iter().map(|&shape| Aval::new(shape, dtype)).collect();
        let program = match is_large {
            true => Program::trace_as_if_large(&avals, |_, x| results(x)),
            false => Program::trace(&avals, |_, x| results(x)),
        };
        let sound: Vec<Tensor> = avals.iter().map(|aval| Tensor::full(aval.shape, 0.5, aval.dtype)).collect();
        let with = |input: usize, number: f64| {
            let mut x = sound.clone();
            let mut numbers = x[input].to_f64_vec();
            *numbers.last_mut().unwrap() = number;
            x[input] = Tensor::new(x[input].shape(), numbers.iter().map(|&x| x as f32).collect()).to_dtype(dtype);
            x
        };
        let mut noticed = vec![false; whole];
        let mut run = |inputs: &[Tensor], count: usize, is_shared: bool| {
            let junk = |aval: &Aval| Tensor::full(aval.shape, f64::NAN, aval.dtype);
            let mut found: Vec<Tensor> = program.outputs()[..count].iter().map(junk).collect();
            let kept = if is_shared { found.clone() } else { vec![] };
            let mut places: Vec<&mut Tensor> = found.iter_mut().collect();
            let inputs: Vec<&Tensor> = inputs.iter().collect();
            let told = program.run_into_finite(&mut program.workspace(), &inputs, &mut places, par);
            assert_eq!(told, found.iter().all(Tensor::is_finite), "{count} results of\n{program}");
            let spoilt: Vec<usize> = (0..count).filter(|&i| !found[i].is_finite()).collect();
            if let [alone] = spoilt[..] {
                noticed[alone] = true;
            }
            drop(kept);
            told
        };
        assert!(run(&sound, 0, false) && run(&sound, whole, false) && run(&sound, whole, true));
        for input in 0..4 {
            for number in [f64::NAN, f64::INFINITY, 3e38, 1e25, 100.0, 1e3] {
                for count in 1..=whole {
                    run(&with(input, number), count, count % 2 == 0);
                }
            }
        }
        if dtype == DType::F32 {
            // The last must be asked for.
            assert!(run(&with(1, 100.0), whole - 1, false) && !run(&with(1, 100.0), whole, false));
            // Each of these was once the only one that was spoilt.
            assert!([0, 2, 8].iter().all(|&i| noticed[i]), "{noticed:?}");
        }
    }
}

#[test]
fn bias_and_activation_follow_a_convolution_by_images() {
    let inputs: Vec<Tensor> = [&[3, 3, 1, 32][..], &[32], &[20, 28, 28, 1]]
        .into_iter()
        .zip(0..)
        .map(|(shape, i)| Key::new(4).fold(i).normal(shape, 0.0, 1.0))
        .collect();
    fn layer<'t>(x: &[Var<'t>]) -> (Var<'t>, Var<'t>) {
        let y = x[2].conv2d(x[0], Conv::new().pad(1).stride(2));
        (y, (y + x[1]).leaky_relu(0.2))
    }
    // Alone, with gradients, to the second order; with a sum in the pass, as a result itself, or read twice it stays in memory.
    type Net = for<'t> fn(&[Var<'t>]) -> Vec<Var<'t>>;
    let nets: [(Net, bool); 6] = [
        (|x| vec![layer(x).1], true),
        (|x| grad(layer(x).1.square().sum(), &[x[0], x[2]]), true),
        (|x| grad(layer(x).1.square().sum(), x), false),
        (|x| grad(grad(layer(x).1.square().sum(), &x[..1])[0].square().sum(), &[x[0], x[2]]), true),
        (|x| vec![layer(x).1, layer(x).0], false),
        (
            |x| vec![layer(x).1, layer(x).0.conv2d(x[0].sum_to([3, 3, 1, 1]).broadcast_to([3, 3, 32, 1]), Conv::new())],
            false,
        ),
    ];
    for (net, follows) in nets {
        let program = Program::trace(&inputs.iter().map(Tensor::aval).collect::<Vec<_>>(), |_, x| net(x));
        assert_eq!(program.to_string().contains("Conv, as in"), follows, "{program}");
        let tape = Tape::eager();
        let vars: Vec<Var<'_>> = inputs.iter().map(|x| tape.var(x)).collect();
        let eager: Vec<_> = net(&vars).iter().map(|y| bits(&y.value())).collect();
        for threads in [1, 2, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let mut workspace = program.workspace();
            pool.install(|| program.run(&mut workspace, &inputs.iter().collect::<Vec<_>>(), Par::Rayon));
            let run: Vec<_> = (0..eager.len()).map(|i| bits(&program.output(&workspace, i).to_tensor())).collect();
            assert!(run == eager, "{threads} threads\n{program}");
        }
    }
}

#[test]
fn a_pass_that_begins_with_indices_follows_a_convolution() {
    // The gradient penalty of a critic with pooling: what the convolution's adjoint gives is picked by the indices of the forward pass.
    let shapes: [&[usize]; 3] = [&[4, 28, 28, 1], &[3, 3, 1, 16], &[3, 3, 16, 4]];
    let inputs: Vec<Tensor> =
        shapes.iter().zip(0..).map(|(shape, i)| Key::new(8).fold(i).normal(*shape, 0.0, 0.5)).collect();
    fn penalty<'t>(x: &[Var<'t>]) -> Vec<Var<'t>> {
        let pool = Window { kernel: [2; 2], stride: [2; 2], pad: [[0; 2]; 2] };
        let h = x[0].conv2d(x[1], Conv::new().pad(1)).max_pool2d(pool).leaky_relu(0.2);
        let y = h.conv2d(x[2], Conv::new().pad(1)).square().sum();
        grad(grad(y, &x[..1])[0].square().sum(), &x[1..])
    }
    for batch in [4, 20] {
        let mut inputs = inputs.clone();
        inputs[0] = Key::new(9).normal([batch, 28, 28, 1], 0.0, 1.0);
        let program = Program::trace(&inputs.iter().map(Tensor::aval).collect::<Vec<_>>(), |_, x| penalty(x));
        // Few images have fewer pieces than there are threads.
        assert_eq!(program.to_string().contains("Conv, as in"), batch == 20, "{program}");
        let tape = Tape::eager();
        let vars: Vec<Var<'_>> = inputs.iter().map(|x| tape.var(x)).collect();
        let eager: Vec<_> = penalty(&vars).iter().map(|y| bits(&y.value())).collect();
        let run: Vec<_> = program.call(&inputs.iter().collect::<Vec<_>>()).iter().map(bits).collect();
        assert!(run == eager, "{program}");
    }
}

#[test]
fn an_image_of_a_convolution_on_demand_stays_in_memory() {
    let inputs: Vec<Tensor> = [&[20, 18, 18, 4][..], &[1, 1, 4, 2], &[1, 1, 2, 64], &[64]]
        .into_iter()
        .zip(0..)
        .map(|(shape, i)| Key::new(5).fold(i).normal(shape, 0.0, 1.0))
        .collect();
    fn net<'t>(x: &[Var<'t>]) -> Vec<Var<'t>> {
        let y = x[0].conv2d(x[1], Conv::new());
        let z = y.conv2d(x[2], Conv::new());
        vec![(z + x[3]).relu(), (y * 2.0).tanh()]
    }
    let program = Program::trace_as_if_large(&inputs.iter().map(Tensor::aval).collect::<Vec<_>>(), |_, x| net(x));
    assert!(program.to_string().contains("on demand"), "{program}");
    let tape = Tape::eager();
    let vars: Vec<Var<'_>> = inputs.iter().map(|x| tape.var(x)).collect();
    let run = program.call(&inputs.iter().collect::<Vec<_>>());
    for (run, eager) in run.iter().zip(net(&vars)) {
        assert!(bits(run) == bits(&eager.value()), "{program}");
    }
}

#[test]
fn a_root_with_a_floor_that_nobody_differentiates_is_a_root() {
    fn floored(x: Var<'_>) -> Var<'_> {
        x.maximum(x.tape().scalar(1e-24, DType::F32)).sqrt().minimum(x.stop_gradient().sqrt())
    }
    let numbers = vec![0.0, -0.0, 1e-45, 1e-30, 1e-24, 2e-24, 4.0, f32::INFINITY, -1.0, f32::NAN];
    let x = Tensor::new([10], numbers);
    let program = Program::trace(&[x.aval()], |_, x| vec![floored(x[0])]);
    assert!(!program.to_string().contains("Min") && program.len() == 1, "{program}");
    let tape = Tape::eager();
    let eager = floored(tape.var(&x)).value();
    for (a, b) in program.call(&[&x])[0].f32s().iter().zip(eager.f32s()) {
        assert!(a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan(), "{a} {b}");
    }
    // Where it is differentiated the floor stays, and so do the smaller of others.
    let program = Program::trace(&[x.aval()], |_, x| grad(floored(x[0]).sum(), x));
    assert!(program.to_string().contains("Max"), "{program}");
    // Zeros keep their signs whatever the floor.
    for floor in [0.0, -0.0, -2.0] {
        let root = |x: Var<'_>| x.maximum(x.tape().scalar(floor, DType::F32)).sqrt().minimum(x.sqrt()).value();
        let program = Program::trace(&[x.aval()], |tape, x| {
            vec![x[0].maximum(tape.scalar(floor, DType::F32)).sqrt().minimum(x[0].sqrt())]
        });
        for (a, b) in program.call(&[&x])[0].f32s().iter().zip(root(tape.var(&x)).f32s()) {
            assert!(a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan(), "{floor}: {a} {b}");
        }
    }
    let others: [for<'t> fn(&'t Tape, Var<'t>) -> Var<'t>; 2] = [
        |tape, x| x.maximum(tape.scalar(f64::NAN, DType::F32)).sqrt().minimum(x.sqrt()),
        |_, x| x.maximum(x.exp()).sqrt().minimum(x.sqrt()),
    ];
    for other in others {
        let program = Program::trace(&[x.aval()], |tape, x| vec![other(tape, x[0])]);
        assert!(program.to_string().contains("Min"), "{program}");
    }
}

#[test]
#[should_panic(expected = "result 0 went into a tensor")]
fn a_result_is_not_read_where_it_is_not() {
    let program = Program::trace(&[Aval::new([2], DType::F32)], |_, x| vec![x[0].exp(), x[0].sin()]);
    let (x, mut y) = (Tensor::new([2], vec![0.0; 2]), Tensor::new([2], vec![0.0; 2]));
    let mut workspace = program.workspace();
    program.run_into(&mut workspace, &[&x], &mut [&mut y], Par::Seq);
    assert_eq!(program.output(&workspace, 1).f32s(), [0.0; 2]);
    program.output(&workspace, 0);
}

#[test]
#[should_panic(expected = "result 0 is f32[2], not f32[3]")]
fn a_result_of_another_shape_is_refused() {
    let program = Program::trace(&[Aval::new([2], DType::F32)], |_, x| vec![x[0].exp()]);
    let (x, mut y) = (Tensor::new([2], vec![0.0; 2]), Tensor::new([3], vec![0.0; 3]));
    program.run_into(&mut program.workspace(), &[&x], &mut [&mut y], Par::Seq);
}

#[test]
fn an_output_may_be_an_input_a_constant_or_named_twice() {
    let aval = Aval::new([2], DType::F32);
    let program = Program::trace(&[aval], |tape, x| {
        let y = x[0] + 1.0;
        vec![x[0], tape.constant(&Tensor::new([2], vec![5.0, 6.0])), y, y, y.reshape([2, 1])]
    });
    let out = program.call(&[&Tensor::new([2], vec![1.0, 2.0])]);
    let numbers: Vec<&[f32]> = out.iter().map(Tensor::f32s).collect();
    assert_eq!(numbers, [&[1.0, 2.0], &[5.0, 6.0], &[2.0, 3.0], &[2.0, 3.0], &[2.0f32, 3.0]]);
    assert_eq!(out[4].shape(), [2, 1]);
}

#[test]
#[should_panic(expected = "input 0 is f32[3], the program was traced with f32[2]")]
fn an_input_of_another_shape_is_refused() {
    let program = Program::trace(&[Aval::new([2], DType::F32)], |_, x| vec![x[0].exp()]);
    program.call(&[&Tensor::zeros([3], DType::F32)]);
}
