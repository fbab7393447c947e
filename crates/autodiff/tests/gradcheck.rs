//! Every primitive's derivatives of orders 1, 2 and 3 against finite differences; adjoint identities of the linear ones.

mod common;

use common::{CUSTOM, Case, KINDS, cases, kind};
use metaforge_autodiff::{DType, Key, Prim, Tape, Tensor, Unary, Var, check_grads, grad, jvp, vjp};
use proptest::prelude::*;

#[test]
fn gradcheck_every_kind_has_a_case() {
    let mut seen = [false; KINDS];
    seen[CUSTOM] = true;
    cases(0).iter().for_each(|case| seen[kind(&case.prim)] = true);
    let missing: Vec<usize> = (0..KINDS).filter(|&k| !seen[k]).collect();
    assert!(missing.is_empty(), "kinds without a case: {missing:?}");
}

/// The scale of a batch or instance norm is left to the statistics of its gradient, also where it is 0; a layer norm's stands along the normalised axis.
#[test]
fn gradcheck_of_scaled_normalisations() {
    let key = Key::new(3);
    let x = key.fold(0).normal([2, 3, 4], 0.0, 1.0).to_dtype(DType::F64);
    let scale = Tensor::from_f64([4], vec![1.5, 0.0, -0.7, 0.2]);
    for (outer, inner) in [(0, 1), (1, 1), (2, 0)] {
        let ins = [x.clone(), scale.clone()];
        let checked = check_grads(|v| vec![(v[0].normalize(outer, inner, 0.1) * v[1]).sin()], &ins, 3, 1e-6, key);
        assert!(checked.is_ok(), "{outer} {inner}: {}", checked.unwrap_err());
    }
}

/// A rule that looks at how a cotangent was computed must not lose it where it is a variable itself: given by the caller, a result of the sweep, or one
/// that becomes a result later.
#[test]
fn a_cotangent_that_is_a_product_is_a_variable_too() {
    let tape = Tape::eager();
    let noise = |i| tape.var(&Key::new(7).fold(i).normal([1, 6, 3], 0.0, 1.0).to_dtype(DType::F64));
    let [x, u0, w, t] = [0, 1, 2, 3].map(noise);
    let scale = tape.var(&Tensor::from_f64([3], vec![1.5, -0.5, 2.0]));
    let close = |a: Var<'_>, b: Var<'_>, what: &str| {
        let (a, b) = (a.value(), b.value());
        assert!(b.f64s().iter().any(|b| b.abs() > 0.1), "{what}");
        for (a, b) in a.f64s().iter().zip(b.f64s()) {
            assert!((a - b).abs() < 1e-12, "{what}: {a}, not {b}");
        }
    };
    // The pullback is linear in its cotangent, and its transpose is the pushforward.
    let xhat = x.normalize(1, 1, 1e-5);
    let forward = jvp(&[xhat], &[x], &[t])[0];
    let given = u0 * scale;
    let pulled = vjp(&[xhat], &[given], &[x]);
    close(vjp(&pulled, &[t], &[given])[0], forward, "a cotangent that was given");
    let found = grad(((xhat * scale).sin() * w).sum(), &[x, xhat]);
    close(vjp(&found[..1], &[t], &found[1..])[0], forward, "a cotangent that is a result");
    // The sum hands one cotangent to both: the image's is pulled back first.
    let other = w * 1.0;
    let xhat = x.normalize(1, 1, 1e-5);
    let found = grad((((xhat + other) * scale).sin() * u0).sum(), &[x, other]);
    close(vjp(&found[..1], &[t], &found[1..])[0], forward, "a cotangent that becomes a result");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    /// The sine behind each primitive makes its cotangent depend on its operands, so that the rules of its rules are reached.
    #[test]
    fn gradcheck_orders_1_to_3(seed in any::<u64>()) {
        for (i, case) in cases(seed).iter().enumerate() {
            // No gradient flows through these two, by definition.
            if matches!(case.prim, Prim::StopGradient | Prim::Uniform(_)) {
                continue;
            }
            let key = Key::new(seed).fold(i as u64);
            let checked = check_grads(|xs| vec![case.apply(xs).sin()], &case.ins, 3, 1e-6, key);
            prop_assert!(checked.is_ok(), "{} of {:?}: {}", case.prim, avals(case), checked.unwrap_err());
        }
    }

    /// <A x, y> = <x, A'y> for every primitive that is linear in an operand, exact to rounding.
    #[test]
    fn gradcheck_adjoint_identities(seed in any::<u64>()) {
        for case in cases(seed) {
            for slot in linear_in(&case.prim) {
                let tape = Tape::eager();
                let xs: Vec<Var<'_>> = case.ins.iter().map(|x| tape.var(x)).collect();
                let out = Var::record(case.prim.clone(), &xs);
                let y = tape.constant(&uniform(&out.shape(), Key::new(seed)));
                let back = vjp(&[out], &[y], &[xs[slot]])[0];
                let (left, right) = ((out * y).sum().value().item(), (back * xs[slot]).sum().value().item());
                let scale = (out.abs() * y.abs()).sum().value().item() + (back.abs() * xs[slot].abs()).sum().value().item();
                prop_assert!((left - right).abs() <= 1e-13 * (1.0 + scale), "{} in operand {slot}: {left} and {right}", case.prim);
            }
        }
    }
}

/// The operands in which a primitive is linear.
fn linear_in(prim: &Prim) -> Vec<usize> {
    match prim {
        Prim::Unary(Unary::Neg) | Prim::Reshape(_) | Prim::Permute(_) | Prim::Broadcast(_) | Prim::SumTo(_) => vec![0],
        Prim::Slice { .. } | Prim::Pad { .. } | Prim::Flip { .. } | Prim::Gather | Prim::ScatterAdd { .. } => vec![0],
        Prim::SumPool(_) | Prim::SumUnpool { .. } => vec![0],
        Prim::MatMul { .. } | Prim::Conv(_) | Prim::ConvInputGrad { .. } | Prim::ConvWeightGrad { .. } => vec![0, 1],
        Prim::NormalizeGrad => vec![2],
        Prim::Binary(metaforge_autodiff::Binary::Gate(_)) => vec![0],
        _ => vec![],
    }
}

fn avals(case: &Case) -> Vec<String> {
    case.ins.iter().map(|x| x.aval().to_string()).collect()
}

fn uniform(shape: &[usize], key: Key) -> Tensor {
    key.uniform(shape, -1.0, 1.0).to_dtype(DType::F64)
}
