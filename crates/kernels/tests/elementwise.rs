//! Elementwise functions of two and three operands with any broadcast, against index arithmetic; sequential and parallel give the same bits.

mod common;

use common::bits;
use metaforge_kernels::{Binary, Par, Real, Unary, binary, select, unary, unary_assign};
use proptest::prelude::*;

const OPS: [Binary; 11] = [
    Binary::Add,
    Binary::Sub,
    Binary::Mul,
    Binary::Div,
    Binary::Max,
    Binary::Min,
    Binary::Greater,
    Binary::GreaterEqual,
    Binary::Equal,
    Binary::Gate(0.0),
    Binary::Gate(0.5),
];

fn reference(op: Binary, a: f64, b: f64) -> f64 {
    let truth = |x: bool| f64::from(u8::from(x));
    match op {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
        Binary::Div => a / b,
        Binary::Max => a.max(b),
        Binary::Min => a.min(b),
        Binary::Greater => truth(a > b),
        Binary::GreaterEqual => truth(a >= b),
        Binary::Equal => truth(a == b),
        Binary::Gate(slope) => {
            if b > 0.0 {
                a
            } else {
                slope * a
            }
        }
    }
}

/// Small integers, so that there are ties and every operation but division is exact.
fn fill<T: Real>(n: usize, salt: usize) -> Vec<T> {
    (0..n).map(|i| T::from_f64((i * 7 + salt * 3 + i / 5) as f64 % 11.0 - 5.0)).collect()
}

/// The strides of an operand of `shape` that is broadcast over the axes with `broadcast`, and how many elements it has.
fn strides(shape: &[usize], broadcast: &[bool]) -> (Vec<usize>, usize) {
    let mut len = 1;
    let mut strides = vec![0; shape.len()];
    for axis in (0..shape.len()).rev() {
        if !broadcast[axis] {
            strides[axis] = len;
            len *= shape[axis];
        }
    }
    (strides, len)
}

fn offset(mut i: usize, shape: &[usize], strides: &[usize]) -> usize {
    let mut at = 0;
    for (&n, &s) in shape.iter().zip(strides).rev() {
        at += i % n * s;
        i /= n;
    }
    at
}

fn check<T: Real>(op: Binary, shape: &[usize], a: &[bool], b: &[bool], c: &[bool]) {
    let n: usize = shape.iter().product();
    let ((sa, na), (sb, nb), (sc, nc)) = (strides(shape, a), strides(shape, b), strides(shape, c));
    let (a, b, c) = (fill::<T>(na, 1), fill::<T>(nb, 2), fill::<T>(nc, 3));
    let mut out = vec![T::from_f64(99.0); n];
    binary(Par::Seq, op, &a, &sa, &b, &sb, shape, &mut out);
    for (i, &got) in out.iter().enumerate() {
        let (x, y) = (a[offset(i, shape, &sa)], b[offset(i, shape, &sb)]);
        let expected = T::from_f64(reference(op, x.to_f64(), y.to_f64()));
        assert!(
            got == expected || expected.is_nan() && got.is_nan(),
            "{op:?}({x}, {y}) is {got} at {i} of {shape:?} {sa:?} {sb:?}"
        );
    }
    let mut again = vec![T::ZERO; n];
    binary(Par::Rayon, op, &a, &sa, &b, &sb, shape, &mut again);
    assert_eq!(bits(&out), bits(&again));

    select(Par::Seq, &c, &sc, &a, &sa, &b, &sb, shape, &mut out);
    select(Par::Rayon, &c, &sc, &a, &sa, &b, &sb, shape, &mut again);
    for (i, &got) in out.iter().enumerate() {
        let chosen =
            if c[offset(i, shape, &sc)] == T::ZERO { b[offset(i, shape, &sb)] } else { a[offset(i, shape, &sa)] };
        assert_eq!(got, chosen, "select at {i} of {shape:?} {sc:?} {sa:?} {sb:?}");
    }
    assert_eq!(bits(&out), bits(&again));
}

#[test]
fn chosen_broadcasts() {
    let shapes: [&[usize]; 10] =
        [&[], &[0], &[1], &[100_000], &[7, 5], &[20_011, 5], &[1000, 64], &[300, 257], &[2, 70_000], &[6, 35, 35, 17]];
    for shape in shapes {
        for mask in 0..1u32 << (2 * shape.len()) {
            let flags = |from: usize| -> Vec<bool> { (0..shape.len()).map(|i| mask >> (from + i) & 1 == 1).collect() };
            let (a, b) = (flags(0), flags(shape.len()));
            let c: Vec<bool> = a.iter().zip(&b).map(|(a, b)| a ^ b).collect();
            check::<f32>(OPS[mask as usize % OPS.len()], shape, &a, &b, &c);
        }
    }
}

#[test]
fn strides_need_not_be_a_broadcast() {
    // A transposed operand: [3, 300] read from [300, 3].
    let x = fill::<f32>(900, 1);
    let mut out = vec![0.0; 900];
    binary(Par::Seq, Binary::Add, &x, &[1, 3], &x, &[300, 1], &[3, 300], &mut out);
    let mut other = vec![0.0; 900];
    binary(Par::Seq, Binary::Add, &x, &[300, 1], &x, &[1, 3], &[3, 300], &mut other);
    for i in 0..900 {
        let expected = x[i % 300 * 3 + i / 300] + x[i];
        assert_eq!((out[i], other[i]), (expected, expected));
    }
}

#[test]
fn extrema_keep_nan_and_the_first_of_equals() {
    let nan = f32::NAN;
    let (a, b) = ([nan, 1.0, 0.0, -0.0, 2.0], [1.0, nan, -0.0, 0.0, 3.0]);
    let mut out = [0.0; 5];
    binary(Par::Seq, Binary::Max, &a, &[1], &b, &[1], &[5], &mut out);
    assert!(out[0].is_nan() && out[1].is_nan());
    assert_eq!((out[2].to_bits(), out[3].to_bits(), out[4]), (0.0f32.to_bits(), (-0.0f32).to_bits(), 3.0));
    binary(Par::Seq, Binary::Min, &a, &[1], &b, &[1], &[5], &mut out);
    assert!(out[0].is_nan() && out[1].is_nan());
    assert_eq!((out[2].to_bits(), out[3].to_bits(), out[4]), (0.0f32.to_bits(), (-0.0f32).to_bits(), 2.0));
}

#[test]
#[should_panic(expected = "operand 1 has 5 elements")]
fn short_operands_are_refused() {
    binary(Par::Seq, Binary::Add, &[0.0f32; 6], &[3, 1], &[0.0; 5], &[3, 1], &[2, 3], &mut [0.0; 6]);
}

#[test]
fn long_inputs_are_split_without_a_trace() {
    let x = fill::<f32>(300_001, 4);
    for op in [Unary::Exp, Unary::Relu, Unary::Sin, Unary::Powf(1.5)] {
        let (mut a, mut b, mut c) = (vec![0.0; x.len()], vec![0.0; x.len()], x.clone());
        unary(Par::Seq, op, &x, &mut a);
        unary(Par::Rayon, op, &x, &mut b);
        unary_assign(Par::Rayon, op, &mut c);
        assert_eq!(bits(&a), bits(&b), "{op:?}");
        assert_eq!(bits(&a), bits(&c), "{op:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_broadcast(
        axes in prop::collection::vec((0usize..9, any::<bool>(), any::<bool>(), any::<bool>()), 0..6),
        op in 0usize..11,
    ) {
        let shape: Vec<usize> = axes.iter().map(|x| x.0).collect();
        let flags = |f: fn(&(usize, bool, bool, bool)) -> bool| axes.iter().map(f).collect::<Vec<bool>>();
        let (a, b, c) = (flags(|x| x.1), flags(|x| x.2), flags(|x| x.3));
        check::<f32>(OPS[op], &shape, &a, &b, &c);
        check::<f64>(OPS[op], &shape, &a, &b, &c);
    }

    #[test]
    fn any_matrix(rows in 0usize..60, cols in 0usize..300, mask in 0u32..64) {
        let flags = |from: u32| [mask >> from & 1 == 1, mask >> (from + 1) & 1 == 1];
        check::<f32>(Binary::Mul, &[rows, cols], &flags(0), &flags(2), &flags(4));
    }
}
