//! Checkpointed equations: the numbers of the plain ones, in less memory.

use metaforge_autodiff::{Aval, DType, Key, Par, Program, Tape, Tensor, Var, check_grads, grad, grad_detached};

/// Takes equations as they come, or checkpointed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum How {
    Plain,
    Checkpointed,
    /// Steps within a checkpointed part are checkpointed themselves.
    Nested,
}

impl How {
    fn outer<R>(self, tape: &Tape, f: impl FnOnce() -> R) -> R {
        if self == How::Plain { f() } else { tape.checkpoint(f) }
    }

    fn inner<R>(self, tape: &Tape, f: impl FnOnce() -> R) -> R {
        if self == How::Nested { tape.checkpoint(f) } else { f() }
    }
}

const ALL: [How; 3] = [How::Plain, How::Checkpointed, How::Nested];

/// Weights, a matrix that no part computes, and images.
fn inputs() -> Vec<Tensor> {
    let key = Key::new(3);
    let draw = |i, shape: &[usize], std: f32| key.fold(i).normal(shape, 0.0, std).to_dtype(DType::F64);
    vec![draw(0, &[4, 4], 0.5), draw(1, &[4], 0.3), draw(2, &[4, 4], 0.5), draw(3, &[3, 4], 1.0)]
}

/// Three steps down the slope of a loss, then another loss: gradients within what is differentiated.
fn descent<'t>(x: &[Var<'t>], how: How) -> Var<'t> {
    let tape = x[0].tape();
    let [a, b, fixed, images] = x[..] else { panic!("four inputs") };
    // Of a and b as arguments, of `fixed` and `images` as captured values; `between` is used in the step and after it.
    let step = |w: [Var<'t>; 2]| {
        how.outer(tape, || {
            let h = how.inner(tape, || (images.matmul(w[0]) + w[1]).tanh());
            let between = how.inner(tape, || h.matmul(fixed).sin() + h);
            let slopes = grad((between * between).normalize(0, 1, 0.5).sin().mean(), &w);
            ([w[0] - 0.2 * slopes[0], w[1] - 0.2 * slopes[1]], between)
        })
    };
    let mut w = [a, b];
    let mut rest = Vec::new();
    for _ in 0..3 {
        let (next, between) = step(w);
        w = next;
        rest.push((between * between).mean());
    }
    let last = (images.matmul(w[0]).matmul(fixed) + w[1]).sigmoid();
    rest.into_iter().fold(last.sum(), |sum, r| sum + r)
}

/// The value and its derivatives to an order, of which each is the gradient of a sum over the one before.
fn derivatives<'t>(x: &[Var<'t>], how: How, order: usize) -> Vec<Var<'t>> {
    let mut y = descent(x, how);
    let mut all = vec![y];
    for _ in 0..order {
        let gradients = grad(y, x);
        y = gradients.iter().map(|g| g.sin().sum()).reduce(|a, b| a + b).expect("there are inputs");
        all.extend(gradients);
    }
    all
}

fn eager(how: How, order: usize) -> Vec<Tensor> {
    let tape = Tape::eager();
    let x: Vec<Var<'_>> = inputs().iter().map(|x| tape.var(x)).collect();
    derivatives(&x, how, order).iter().map(|y| y.value()).collect()
}

#[test]
fn derivatives_of_orders_1_to_3_agree_with_finite_differences() {
    for how in ALL {
        check_grads(|x| vec![descent(x, how)], &inputs(), 3, 1e-6, Key::new(4)).unwrap();
    }
}

#[test]
fn a_gradient_has_the_plain_bits_and_higher_derivatives_its_numbers() {
    let plain = eager(How::Plain, 3);
    for how in [How::Checkpointed, How::Nested] {
        let found = eager(how, 3);
        // The value and the first gradient. (Nested, that is a derivative of a gradient through a checkpointed part.)
        if how == How::Checkpointed {
            assert_eq!(found[..5], plain[..5]);
        }
        for (a, b) in found.iter().zip(&plain) {
            let scale = b.f64s().iter().fold(1.0f64, |m, x| m.max(x.abs()));
            assert!(a.f64s().iter().zip(b.f64s()).all(|(a, b)| (a - b).abs() < 1e-12 * scale), "{how:?}: {a:?} {b:?}");
        }
    }
}

#[test]
fn a_program_gives_the_eager_bits() {
    let inputs = inputs();
    let avals: Vec<Aval> = inputs.iter().map(Tensor::aval).collect();
    for how in ALL {
        for order in 1..=3 {
            let program = Program::trace(&avals, |_, x| derivatives(x, how, order));
            assert_eq!(program.call(&inputs.iter().collect::<Vec<_>>()), eager(how, order), "{how:?}, order {order}");
            assert!(!program.to_string().contains("Barrier"), "a barrier is no instruction");
        }
    }
}

#[test]
fn a_gradient_may_begin_inside_and_pass_by_first_order() {
    let tape = Tape::eager();
    let x = tape.var(&Tensor::from_f64([2], vec![0.4, -1.1]));
    let run = |how: How| {
        // An eager tape forgets the equations of a detached gradient, within what is being marked.
        let (square, detached) = how.outer(&tape, || {
            let square = x * x;
            let slope = grad_detached((square * x).sum(), &[x])[0];
            (square, square * slope)
        });
        // From a value in the middle, whose equations after it count nothing, and from the end.
        [grad(square.sum(), &[x])[0].value(), grad(detached.sum(), &[x])[0].value()]
    };
    let [inside, end] = run(How::Checkpointed);
    assert_eq!([inside.clone(), end.clone()], run(How::Plain));
    for (i, x) in [0.4, -1.1].into_iter().enumerate() {
        assert!((inside.f64s()[i] - 2.0 * x).abs() < 1e-15);
        assert!((end.f64s()[i] - 2.0 * x * 3.0 * x * x).abs() < 1e-14);
    }
}

/// A chain of blocks of `depth` layers on `[64, 64]`, and its gradient.
fn chain(blocks: usize, depth: usize, how: How) -> Program {
    Program::trace(&[Aval::new([64, 64], DType::F32)], |tape, x| {
        let layers = |h| (0..depth).fold(h, |h: Var<'_>, _| x[0].matmul(h).tanh());
        let y = (0..blocks).fold(x[0], |h, _| how.outer(tape, || layers(h)));
        grad(y.sum(), x)
    })
}

#[test]
fn a_program_keeps_a_value_a_block_and_one_block_s_values() {
    let layer = 64 * 64 * 4;
    for (blocks, depth) in [(4, 4), (8, 4), (4, 12), (16, 16)] {
        let (plain, less) = (chain(blocks, depth, How::Plain), chain(blocks, depth, How::Checkpointed));
        let [plain, less] = [plain, less].map(|program| program.workspace_bytes() / layer);
        assert!(plain >= blocks * depth, "{plain} values of {blocks} blocks of {depth} layers");
        // What is left over: the cotangents, and the gradient's sum.
        assert!(less <= blocks + depth + 6, "{less} values of {blocks} blocks of {depth} layers");
    }
}

#[test]
fn an_unused_derivative_is_not_computed_again() {
    let aval = Aval::new([8, 8], DType::F32);
    let forward = |checkpointed: bool| {
        let how = if checkpointed { How::Checkpointed } else { How::Plain };
        Program::trace(&[aval], |tape, x| {
            let y = (0..3).fold(x[0], |h, _| how.outer(tape, || h - grad_detached(h.matmul(h).exp().sum(), &[h])[0]));
            // Linear in each step's start as long as the slopes are constants.
            grad(y.sum(), x).into_iter().chain([y]).collect()
        })
    };
    assert_eq!(forward(true).len(), forward(false).len());
}

#[test]
fn a_derivative_that_nobody_reads_is_not_computed_for_the_sake_of_the_order() {
    let aval = Aval::new([8, 8], DType::F32);
    let of = |wanted: usize| {
        Program::trace(&[aval; 2], |tape, x| {
            let y = (0..2).fold(x[0], |h, _| tape.checkpoint(|| h.matmul(x[1]).exp()));
            vec![grad(y.sum(), &x[..wanted])[0]]
        })
    };
    assert_eq!(of(2).flops(), of(1).flops());
}

#[test]
fn the_same_bits_with_several_threads() {
    let program = chain(4, 4, How::Checkpointed);
    let x = Key::new(1).normal([64, 64], 0.0, 0.1);
    let run = |par| {
        let mut workspace = program.workspace();
        program.run(&mut workspace, &[&x], par);
        program.output(&workspace, 0).to_tensor()
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    assert_eq!(run(Par::Seq), pool.install(|| run(Par::Rayon)));
    assert_eq!(run(Par::Seq), chain(4, 4, How::Plain).call(&[&x])[0]);
}
