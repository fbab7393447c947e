//! What is the same on every instruction set, to the bit: moves, sums, moments, random numbers and functions without a fused multiply-add.
//!
//! One test function, because it switches the instruction set of the process.

use metaforge_kernels::simd::{Isa, force_isa};
use metaforge_kernels::{
    Binary, Par, Real, Unary, argmax_rows, binary, copy_strided, log_softmax_rows, normalize, normalize_grad, rstd,
    select, sum_axes, unary, uniform,
};

fn run<T: Real>() -> (Vec<T>, Vec<T>) {
    let n = 20_011;
    let mut x = vec![T::ZERO; 13 * n];
    uniform([5, 6], &mut x);
    let mut exact = x.clone();
    let mut out = vec![T::ZERO; x.len()];
    for (shape, reduced) in [
        (&[13 * n][..], &[true][..]),
        (&[n, 13], &[true, false]),
        (&[n, 13], &[false, true]),
        (&[13, n], &[false, true]),
        (&[13, n], &[true, false]),
        (&[13, 11, 1819], &[false, true, false]),
        (&[83, 241, 13], &[true, false, true]),
        (&[17, 13 * 1177], &[false, true]),
    ] {
        let kept: usize = shape.iter().zip(reduced).map(|(&n, &r)| if r { 1 } else { n }).product();
        sum_axes(Par::Seq, &x[..shape.iter().product()], shape, reduced, &mut out[..kept]);
        exact.extend_from_slice(&out[..kept]);
    }
    let mut close = Vec::new();
    for (outer, r, c) in [(1, n, 13), (13, n, 1), (n, 13, 1), (13, 19, 1053), (1, 333, 64)] {
        let n = outer * r * c;
        let mut inverse = vec![T::ZERO; outer * c];
        rstd(Par::Seq, &x[..n], outer, r, c, 1e-5, &mut inverse);
        normalize(Par::Seq, &x[..n], outer, r, c, 1e-5, &mut out[..n]);
        exact.extend_from_slice(&inverse);
        exact.extend_from_slice(&out[..n]);
        let hat = out[..n].to_vec();
        normalize_grad(Par::Seq, &hat, &inverse, &x[..n], outer, r, c, &mut out[..n]);
        close.extend_from_slice(&out[..n]);
    }
    let mut index = vec![0; n];
    argmax_rows(Par::Seq, &x, n, 13, &mut index);
    exact.extend(index.into_iter().map(|i| T::from_f64(i.into())));
    for op in [Binary::Add, Binary::Div, Binary::Max, Binary::Gate(0.1)] {
        binary(Par::Seq, op, &x, &[13, 1], &x, &[0, 1], &[n, 13], &mut out);
        exact.extend_from_slice(&out);
    }
    select(Par::Seq, &x, &[13, 1], &x, &[0, 1], &x, &[1, 0], &[n, 13], &mut out);
    exact.extend_from_slice(&out);
    copy_strided(Par::Seq, &x, 0, &[1, 13], &[13, n], &mut out, 0, &[n as isize, 1]);
    exact.extend_from_slice(&out);
    for op in [Unary::Relu, Unary::Sqrt, Unary::Rsqrt, Unary::Recip, Unary::Powf(2.5)] {
        unary(Par::Seq, op, &x, &mut out);
        exact.extend_from_slice(&out);
    }
    log_softmax_rows(Par::Seq, &x, n, 13, &mut out);
    close.extend_from_slice(&out);
    (exact, close)
}

fn compare<T: Real>() {
    let _ = force_isa(Some(Isa::Portable));
    let (exact, close) = run::<T>();
    for isa in Isa::ALL {
        if !force_isa(Some(isa)) {
            continue;
        }
        let (other_exact, other_close) = run::<T>();
        let differs = exact.iter().zip(&other_exact).position(|(a, b)| a.to_f64().to_bits() != b.to_f64().to_bits());
        assert_eq!(differs, None, "{isa:?} differs from the portable path");
        let tolerance = 64.0 * T::EPSILON.to_f64();
        for (i, (a, b)) in close.iter().zip(&other_close).enumerate() {
            let (a, b) = (a.to_f64(), b.to_f64());
            assert!((a - b).abs() <= tolerance * (1.0 + a.abs()), "{isa:?}: {a} and {b} at {i}");
        }
    }
    force_isa(None);
}

#[test]
fn instruction_sets_agree() {
    compare::<f32>();
    compare::<f64>();
}
