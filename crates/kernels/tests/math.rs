//! The elementary functions against the system's `f64` functions, on each instruction set: error bounds over the whole range of `f32`, special values, and
//! independence of place.
//!
//! One test function, because it switches the instruction set of the process.

use metaforge_kernels::simd::{Isa, force_isa};
use metaforge_kernels::{Par, Unary, unary, unary_assign};

/// A function, its reference, its bound in units of the last place.
type Case = (Unary, fn(f64) -> f64, f64);

const CASES: [Case; 12] = [
    (Unary::Exp, f64::exp, 1.5),
    (Unary::Log, f64::ln, 1.5),
    (Unary::Tanh, f64::tanh, 3.0),
    (Unary::Sigmoid, |x| if x < 0.0 { x.exp() / (1.0 + x.exp()) } else { 1.0 / (1.0 + (-x).exp()) }, 3.0),
    (Unary::Softplus, |x| x.max(0.0) + (-x.abs()).exp().ln_1p(), 3.0),
    (Unary::Sin, f64::sin, 2.0),
    (Unary::Cos, f64::cos, 2.0),
    (Unary::Sqrt, f64::sqrt, 0.5),
    (Unary::Rsqrt, |x| 1.0 / x.sqrt(), 1.5),
    (Unary::Recip, |x| 1.0 / x, 0.5),
    (Unary::Powf(3.0), |x| x * x * x, 1.5),
    (Unary::Powf(2.5), |x| x.powf(2.5), 1.0),
];

/// The distance of neighbouring `f32` at `x`.
fn ulp(x: f64) -> f64 {
    let exponent = (x.abs().to_bits() >> 52) as i32 - 1023;
    2f64.powi(exponent.clamp(-126, 127) - 23)
}

/// Every 1009th `f32` of all, and a dense walk through [-32, 32].
fn samples() -> Vec<f32> {
    let all = (0..=u32::MAX).step_by(1009).map(f32::from_bits);
    let near = (-(1 << 19)..1 << 19).map(|i| i as f32 / f32::from(1u16 << 14));
    all.chain(near).collect()
}

fn check_bounds(isa: Isa, x: &[f32], out: &mut [f32]) {
    for (op, reference, bound) in CASES {
        unary(Par::Seq, op, x, out);
        let (mut worst, mut at) = (0.0, 0.0);
        for (&x, &got) in x.iter().zip(&*out) {
            let exact = reference(f64::from(x));
            if exact.is_nan() {
                assert!(got.is_nan(), "{op:?}({x}) on {isa:?} is {got}, not NaN");
            } else if (exact as f32).is_infinite() {
                assert_eq!(got, exact as f32, "{op:?}({x}) on {isa:?}");
            } else {
                let error = (f64::from(got) - exact).abs() / ulp(exact);
                // Not `>`: a NaN must count.
                if error > worst || error.is_nan() {
                    (worst, at) = (error, x);
                }
            }
        }
        println!("{isa:?} {op:?}: {worst:.3} ulp at {at:e}");
        assert!(worst <= bound, "{op:?} on {isa:?}: {worst} ulp at {at:e}, bound {bound}");
    }
}

fn one(op: Unary, x: f32) -> f32 {
    let mut out = [0.0];
    unary(Par::Seq, op, &[x], &mut out);
    out[0]
}

fn check_special_values() {
    let inf = f32::INFINITY;
    let table = [
        (Unary::Exp, -inf, 0.0),
        (Unary::Exp, inf, inf),
        (Unary::Exp, 0.0, 1.0),
        (Unary::Log, 0.0, -inf),
        (Unary::Log, -0.0, -inf),
        (Unary::Log, 1.0, 0.0),
        (Unary::Log, inf, inf),
        (Unary::Tanh, inf, 1.0),
        (Unary::Tanh, -inf, -1.0),
        (Unary::Sigmoid, inf, 1.0),
        (Unary::Sigmoid, -inf, 0.0),
        (Unary::Sigmoid, 0.0, 0.5),
        (Unary::Softplus, -inf, 0.0),
        (Unary::Softplus, inf, inf),
        (Unary::Cos, 0.0, 1.0),
        (Unary::Relu, -inf, 0.0),
        (Unary::Relu, 2.0, 2.0),
        (Unary::LeakyRelu(0.25), -4.0, -1.0),
        (Unary::Step, 0.0, 0.0),
        (Unary::Step, 1e-45, 1.0),
        (Unary::Sign, -3.0, -1.0),
        (Unary::Sign, 0.0, 0.0),
        (Unary::Affine { scale: 2.0, shift: 1.0 }, 3.0, 7.0),
    ];
    for (op, x, expected) in table {
        assert_eq!(one(op, x), expected, "{op:?}({x})");
    }
    for (op, x) in [(Unary::Log, -1.0), (Unary::Sin, inf), (Unary::Cos, -inf), (Unary::Sqrt, -1.0)] {
        assert!(one(op, x).is_nan(), "{op:?}({x})");
    }
    for op in
        CASES.map(|c| c.0).into_iter().chain([Unary::Relu, Unary::LeakyRelu(0.1), Unary::Sign, Unary::Neg, Unary::Abs])
    {
        assert!(one(op, f32::NAN).is_nan(), "{op:?} must not hide a NaN");
    }
    assert_eq!(one(Unary::Tanh, -0.0).to_bits(), (-0.0f32).to_bits());
}

/// The bits of an element are the same wherever it stands: in full vectors, in tails, alone, in place.
fn check_places(isa: Isa) {
    let x: Vec<f32> = (0..200).map(|i| (i as f32 - 100.0) * 0.173).chain([1e7, -3e8, 1e-40]).collect();
    let ops = CASES.map(|c| c.0).into_iter().chain([
        Unary::Affine { scale: 1.1, shift: 0.3 },
        Unary::Relu,
        Unary::LeakyRelu(0.1),
        Unary::Sign,
        Unary::Step,
        Unary::Neg,
        Unary::Abs,
    ]);
    for op in ops {
        let alone: Vec<u32> = x.iter().map(|&x| one(op, x).to_bits()).collect();
        for start in 0..18 {
            for end in [x.len(), x.len() - 1, start + 17, start + 5] {
                let piece = &x[start..end];
                let mut out = vec![0.0; piece.len()];
                unary(Par::Seq, op, piece, &mut out);
                let mut place = piece.to_vec();
                unary_assign(Par::Seq, op, &mut place);
                for (i, &bits) in alone[start..end].iter().enumerate() {
                    let nan = f32::from_bits(bits).is_nan() && out[i].is_nan() && place[i].is_nan();
                    assert!(
                        nan || (out[i].to_bits(), place[i].to_bits()) == (bits, bits),
                        "{op:?} on {isa:?} of {} depends on its place",
                        piece[i]
                    );
                }
            }
        }
    }
}

/// `f64` keeps what gradient checks need.
fn check_f64(isa: Isa) {
    let x: Vec<f64> = (-4000..4000).map(|i| f64::from(i) * 0.01).collect();
    let mut out = vec![0.0; x.len()];
    for (op, reference, _) in CASES {
        unary(Par::Seq, op, &x, &mut out);
        for (&x, &got) in x.iter().zip(&out) {
            let exact = reference(x);
            let near = (got - exact).abs() <= 4e-16 * exact.abs();
            assert!(near || exact.is_nan() || got == exact, "{op:?}({x}) on {isa:?}: {got}, {exact}");
        }
    }
}

#[test]
fn elementary_functions_keep_their_bounds_on_each_instruction_set() {
    let x = samples();
    let mut out = vec![0.0; x.len()];
    for isa in Isa::ALL {
        if force_isa(Some(isa)) {
            check_bounds(isa, &x, &mut out);
            check_special_values();
            check_places(isa);
            check_f64(isa);
        }
    }
    force_isa(None);
}
