//! Derivatives whose values are known in closed form, and laws that hold for any function.

use metaforge_autodiff::{DType, Key, Tape, Tensor, Var, grad, grad_detached, hvp, jvp};

fn f64s(shape: &[usize], key: u64) -> Tensor {
    Key::new(key).uniform(shape, -1.0, 1.0).to_dtype(DType::F64)
}

fn near(a: &Tensor, b: &[f64], tolerance: f64) {
    for (x, y) in a.f64s().iter().zip(b) {
        assert!((x - y).abs() <= tolerance * (1.0 + y.abs()), "{a:?} is not {b:?}");
    }
    assert_eq!(a.len(), b.len());
}

/// y = x^3 + x + x^2 at 42: y'' = 6x + 2, y''' = 6, y'''' = 0.
#[test]
fn a_cubic_to_the_fourth_order() {
    let tape = Tape::eager();
    let x = tape.var(&Tensor::from_f64([], vec![42.0]));
    let mut y = x * x * x + x + x * x;
    let mut derivatives = Vec::new();
    for _ in 0..4 {
        y = grad(y, &[x])[0];
        derivatives.push(y.value().item());
    }
    assert_eq!(derivatives, [3.0 * 42.0 * 42.0 + 1.0 + 84.0, 254.0, 6.0, 0.0]);
}

/// Whole powers are polynomials: their derivatives at 0 are 0 or a factorial, at every order.
#[test]
fn powers_at_zero_to_the_fourth_order() {
    let tape = Tape::eager();
    let x = tape.var(&Tensor::from_f64([], vec![0.0]));
    for (p, expected) in [(1.0, [1.0, 0.0, 0.0, 0.0]), (2.0, [0.0, 2.0, 0.0, 0.0]), (3.0, [0.0, 0.0, 6.0, 0.0])] {
        let mut y = x.powf(p);
        for wanted in expected {
            y = grad(y, &[x])[0];
            assert_eq!(y.value().item(), wanted, "power {p}");
        }
    }
}

/// One and several gradient steps on f(t) = (t - c)' A (t - c) / 2 from theta, then f itself: with M = I - lr A the adapted error
/// is M^k (theta - c), so the meta-gradient is M^k A M^k (theta - c). First order leaves the outer M^k out.
#[test]
fn the_meta_gradient_of_a_quadratic() {
    let (n, lr) = (4, 0.3);
    let tape = Tape::eager();
    let root = tape.constant(&f64s(&[n, n], 1));
    let a = root.matmul_t(root, true, false);
    let (theta, c) = (tape.var(&f64s(&[n, 1], 2)), tape.constant(&f64s(&[n, 1], 3)));
    fn loss<'t>(t: Var<'t>, a: Var<'t>, c: Var<'t>) -> Var<'t> {
        let e = t - c;
        e.matmul_t(a.matmul(e), true, false).sum() * 0.5
    }
    let eye = tape.constant(&Tensor::from_f64([n, n], (0..n * n).map(|i| f64::from(i % (n + 1) == 0)).collect()));
    let m = eye - a * lr;
    for steps in [0, 1, 2, 5] {
        let adapt = |detached: bool| {
            (0..steps).fold(theta, |t, _| {
                let y = loss(t, a, c);
                t - if detached { grad_detached(y, &[t])[0] } else { grad(y, &[t])[0] } * lr
            })
        };
        let power = (0..steps).fold(eye, |p, _| p.matmul(m));
        let error = power.matmul(theta - c);
        let second = grad(loss(adapt(false), a, c), &[theta])[0];
        near(&second.value(), power.matmul(a).matmul(error).value().f64s(), 1e-12);
        let first = grad(loss(adapt(true), a, c), &[theta])[0];
        near(&first.value(), a.matmul(error).value().f64s(), 1e-12);
    }
}

fn network<'t>(x: Var<'t>, w: &[Var<'t>]) -> Var<'t> {
    (x.matmul(w[0]).tanh().matmul(w[1]).softplus() * x.sum_axes(&[1], true).sigmoid()).log().square().mean()
}

#[test]
fn hessian_vector_products_are_symmetric_and_match_differences() {
    let tape = Tape::eager();
    let x = tape.constant(&f64s(&[5, 3], 1));
    let weights = [f64s(&[3, 4], 2), f64s(&[4, 1], 3)];
    let w: Vec<Var<'_>> = weights.iter().map(|w| tape.var(w)).collect();
    let y = network(x, &w);
    let pick = |k: u64| [tape.constant(&f64s(&[3, 4], k)), tape.constant(&f64s(&[4, 1], k + 1))];
    let (u, v) = (pick(10), pick(20));
    let dot = |a: &[Var<'_>], b: &[Var<'_>]| a.iter().zip(b).map(|(&a, &b)| (a * b).sum().value().item()).sum::<f64>();
    let (uhv, vhu) = (dot(&u, &hvp(y, &w, &v)), dot(&v, &hvp(y, &w, &u)));
    assert!((uhv - vhu).abs() < 1e-14, "{uhv} and {vhu}");
    let slope = |h: f64| {
        let moved: Vec<Var<'_>> = w.iter().zip(&v).map(|(&w, &v)| w + v * h).collect();
        dot(&u, &grad(network(x, &moved), &moved))
    };
    let numeric = (slope(1e-5) - slope(-1e-5)) / 2e-5;
    assert!((uhv - numeric).abs() < 1e-8, "{uhv} and {numeric}");
}

#[test]
fn jacobian_vector_products_match_differences() {
    let tape = Tape::eager();
    let (x, v) = (tape.var(&f64s(&[3, 4], 1)), tape.constant(&f64s(&[3, 4], 2)));
    let y = (x.sin().matmul_t(x, false, true)).exp();
    let analytic = jvp(&[y], &[x], &[v])[0];
    let at = |h: f64| {
        let x = x + v * h;
        (x.sin().matmul_t(x, false, true)).exp()
    };
    let numeric = (at(1e-5) - at(-1e-5)) / 2e-5;
    near(&analytic.value(), numeric.value().f64s(), 1e-8);
}

#[test]
fn what_does_not_depend_has_zero_gradient() {
    let tape = Tape::eager();
    let (x, z) = (tape.var(&f64s(&[3], 1)), tape.var(&f64s(&[2, 2], 2)));
    let y = (x * x.stop_gradient()).sum() + z.step().sum();
    let g = grad(y, &[x, z]);
    near(&g[0].value(), x.value().f64s(), 0.0);
    near(&g[1].value(), &[0.0; 4], 0.0);
    // A value is its own gradient's unit, also when asked for beside what it depends on.
    let g = grad(y, &[y, x]);
    assert_eq!(g[0].value().item(), 1.0);
    near(&g[1].value(), x.value().f64s(), 0.0);
}

#[test]
fn the_penalty_of_a_linear_critic_is_known() {
    // D(x) = w.x with |w| = a: the penalty is (a - 1)^2 and its gradient 2 (a - 1) w / a.
    let tape = Tape::eager();
    let (x, w) = (tape.var(&f64s(&[3, 5], 1)), tape.var(&f64s(&[5, 1], 2)));
    let g = grad(x.matmul(w).sum(), &[x])[0];
    let norm = g.square().sum_axes(&[1], false).sqrt();
    let penalty = (norm - 1.0).square().mean();
    let a = w.square().sum().sqrt();
    near(&penalty.value(), (a - 1.0).square().value().f64s(), 1e-14);
    near(&grad(penalty, &[w])[0].value(), ((a - 1.0) * 2.0 * w / a).value().f64s(), 1e-13);
}

#[test]
#[should_panic(expected = "MatMul { ta: false, tb: false }(f32[2, 3], f32[4, 5]): the inner sizes 3 and 4 differ")]
fn a_mismatch_names_the_operation_and_the_shapes() {
    let tape = Tape::eager();
    tape.zeros([2, 3], DType::F32).matmul(tape.zeros([4, 5], DType::F32));
}

#[test]
fn memory_does_not_grow_over_a_thousand_second_order_steps() {
    let step = |weights: &mut Tensor| {
        let tape = Tape::eager();
        let w = tape.var(weights);
        let inner = (w.tanh() * w).sum();
        let fast = w - grad(inner, &[w])[0] * 0.1;
        let outer = (fast.square() + fast).sum();
        *weights = (w - grad_detached(outer, &[w])[0] * 0.01).value();
    };
    let mut weights = f64s(&[16], 1);
    (0..10).for_each(|_| step(&mut weights));
    let after = allocation_counter::measure(|| (0..1000).for_each(|_| step(&mut weights)));
    assert!(after.bytes_current <= 0, "{} bytes more are held after 1,000 steps", after.bytes_current);
}

#[test]
fn a_leaky_rectifier_lets_its_slope_through_whatever_its_sign() {
    let numbers = vec![-2.0, -0.0, 0.0, 3.0, f64::NEG_INFINITY, f64::INFINITY, f64::NAN];
    for slope in [0.0, 0.2, 2.0, -0.5] {
        let tape = Tape::eager();
        let x = tape.var(&Tensor::from_f64([7], numbers.clone()));
        let first = grad(x.leaky_relu(slope).sum(), &[x])[0];
        // Linear in what comes back, and constant in x.
        let twice = grad((first * x.stop_gradient()).sum(), &[x])[0];
        assert_eq!(first.value().f64s(), [slope, slope, slope, 1.0, slope, 1.0, slope]);
        assert_eq!(twice.value().f64s(), [0.0; 7]);
    }
}
