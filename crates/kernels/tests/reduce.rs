//! Reductions, normalisation and softmax against plain `f64` loops, for both types, any shape, sequential and parallel.

mod common;

use common::bits;
use metaforge_kernels::{Par, Real, argmax_rows, log_softmax_rows, normalize, normalize_grad, rstd, sum_axes};
use proptest::prelude::*;

/// A deterministic value for index `i`: spread over [-1, 1) with a few large ones.
fn value(i: usize, salt: u64) -> f64 {
    let mut z = (i as u64).wrapping_add(salt).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let unit = ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 52) as f64 - 1.0;
    if i.is_multiple_of(17) { 8.0 * unit } else { unit }
}

fn fill<T: Real>(n: usize, salt: u64) -> Vec<T> {
    (0..n).map(|i| T::from_f64(value(i, salt))).collect()
}

#[track_caller]
fn close<T: Real>(got: &[T], expected: &[f64], scale: &[f64], factor: f64, what: &str) {
    assert_eq!(got.len(), expected.len());
    for (i, ((&g, &e), &s)) in got.iter().zip(expected).zip(scale).enumerate() {
        let tolerance = factor * T::EPSILON.to_f64() * (s + e.abs());
        assert!(
            (g.to_f64() - e).abs() <= tolerance,
            "{what}: element {i} is {g}, expected {e}, tolerance {tolerance:e}"
        );
    }
}

/// The sums and the sums of magnitudes, by a plain loop.
fn naive_sum<T: Real>(x: &[T], shape: &[usize], reduced: &[bool]) -> (Vec<f64>, Vec<f64>) {
    let kept: usize = shape.iter().zip(reduced).map(|(&n, &r)| if r { 1 } else { n }).product();
    let (mut sums, mut sizes) = (vec![0.0; kept], vec![0.0; kept]);
    for (i, &x) in x.iter().enumerate() {
        let (mut rest, mut at, mut step) = (i, 0, 1);
        for (&n, &r) in shape.iter().zip(reduced).rev() {
            if !r {
                at += rest % n * step;
                step *= n;
            }
            rest /= n;
        }
        sums[at] += x.to_f64();
        sizes[at] += x.to_f64().abs();
    }
    (sums, sizes)
}

fn check_sum<T: Real>(shape: &[usize], reduced: &[bool]) {
    let x = fill::<T>(shape.iter().product(), 1);
    let (sums, sizes) = naive_sum(&x, shape, reduced);
    let mut out = vec![T::from_f64(7.0); sums.len()];
    sum_axes(Par::Seq, &x, shape, reduced, &mut out);
    close(&out, &sums, &sizes, 16.0, &format!("sum of {shape:?} over {reduced:?}"));
    let mut again = vec![T::ZERO; sums.len()];
    sum_axes(Par::Rayon, &x, shape, reduced, &mut again);
    assert_eq!(bits(&out), bits(&again), "{shape:?} {reduced:?}");
}

#[test]
fn sums_of_chosen_shapes() {
    let shapes: [&[usize]; 16] = [
        &[],
        &[0],
        &[1],
        &[63],
        &[1000],
        &[200_000],
        &[5, 5],
        &[3, 0],
        &[1000, 5],
        &[70_000, 3],
        &[5000, 64],
        &[300, 100],
        &[9, 70_000],
        &[100, 3000],
        &[7, 9, 65],
        &[3, 40, 2, 33],
    ];
    for shape in shapes {
        for mask in 0..1u32 << shape.len() {
            let reduced: Vec<bool> = (0..shape.len()).map(|i| mask >> i & 1 == 1).collect();
            check_sum::<f32>(shape, &reduced);
            check_sum::<f64>(shape, &reduced);
        }
    }
}

#[test]
fn the_error_of_a_long_sum_stays_small() {
    // A million equal terms: a plain f32 loop is off by about 1e-2, and all roundings here have one sign.
    let x = vec![0.1f32; 1_000_000];
    let exact = f64::from(0.1f32) * 1e6;
    let mut out = [0.0f32];
    sum_axes(Par::Seq, &x, &[1_000_000], &[true], &mut out);
    assert!((f64::from(out[0]) / exact - 1.0).abs() < 1e-6, "{}", out[0]);
    let mut out = [0.0f32; 2];
    sum_axes(Par::Seq, &x, &[500_000, 2], &[true, false], &mut out);
    for o in out {
        assert!((f64::from(o) * 2.0 / exact - 1.0).abs() < 1e-6, "{o}");
    }
}

fn check_norm<T: Real>(outer: usize, r: usize, c: usize, shift: f64) {
    let n = outer * r * c;
    let x: Vec<T> = (0..n).map(|i| T::from_f64(value(i, 5) + shift)).collect();
    let g = fill::<T>(n, 9);
    let eps = 1e-5;
    let (mut hat, mut inv, mut grad) = (vec![0.0; n], vec![0.0; outer * c], vec![0.0; n]);
    for a in 0..outer {
        for k in 0..c {
            let at = |i: usize| (a * r + i) * c + k;
            let mean = (0..r).map(|i| x[at(i)].to_f64()).sum::<f64>() / r.max(1) as f64;
            let var = (0..r).map(|i| (x[at(i)].to_f64() - mean).powi(2)).sum::<f64>() / r.max(1) as f64;
            let s = 1.0 / (var + eps).sqrt();
            inv[a * c + k] = s;
            for i in 0..r {
                hat[at(i)] = (x[at(i)].to_f64() - mean) * s;
            }
            let g_mean = (0..r).map(|i| g[at(i)].to_f64()).sum::<f64>() / r as f64;
            let product = (0..r).map(|i| g[at(i)].to_f64() * hat[at(i)]).sum::<f64>() / r as f64;
            for i in 0..r {
                grad[at(i)] = s * (g[at(i)].to_f64() - g_mean - hat[at(i)] * product);
            }
        }
    }
    let what = format!("[{outer}, {r}, {c}]");
    let widest = inv.iter().copied().fold(1.0, f64::max);
    let mut results = Vec::new();
    for par in [Par::Seq, Par::Rayon] {
        let (mut a, mut b, mut d) = (vec![T::ONE; outer * c], vec![T::ONE; n], vec![T::ONE; n]);
        rstd(par, &x, outer, r, c, eps, &mut a);
        normalize(par, &x, outer, r, c, eps, &mut b);
        normalize_grad(par, &b, &a, &g, outer, r, c, &mut d);
        results.push((bits(&a), bits(&b), bits(&d)));
        let slack = 1.0 + shift.abs();
        close(&a, &inv, &vec![widest * slack; inv.len()], 16.0, &format!("rstd of {what}"));
        close(&b, &hat, &vec![widest * slack; n], 32.0, &format!("normalize of {what}"));
        close(&d, &grad, &vec![widest * 8.0 * slack; n], 64.0, &format!("gradient of {what}"));
    }
    assert_eq!(results[0], results[1], "{what}");
}

#[test]
fn normalisation_of_chosen_shapes() {
    for (outer, r, c) in [
        (1, 1, 1),
        (0, 3, 2),
        (2, 3, 0),
        (1, 5, 64),
        (1, 4900, 64),
        (1, 30_000, 5),
        (64, 100, 1),
        (300, 513, 1),
        (4, 49, 32),
        (3, 10, 70),
        (1, 2000, 130),
    ] {
        check_norm::<f32>(outer, r, c, 0.0);
        check_norm::<f64>(outer, r, c, 0.0);
        check_norm::<f32>(outer, r, c, 100.0);
    }
}

#[test]
fn a_large_mean_does_not_spoil_the_variance() {
    // Mean 4096, variance 1: the square of the mean leaves nothing of the variance in f32.
    let x: Vec<f32> = (0..1000).map(|i| 4096.0 + if i % 2 == 0 { 1.0 } else { -1.0 }).collect();
    let mut out = [0.0];
    rstd(Par::Seq, &x, 1, 1000, 1, 0.0, &mut out);
    assert_eq!(out[0], 1.0);
}

fn check_softmax<T: Real>(rows: usize, cols: usize) {
    let x: Vec<T> = (0..rows * cols).map(|i| T::from_f64(20.0 * value(i, 3))).collect();
    let mut expected = vec![0.0; rows * cols];
    for r in 0..rows {
        let row = &x[r * cols..][..cols];
        let max = row.iter().map(|x| x.to_f64()).fold(f64::NEG_INFINITY, f64::max);
        let log_sum = row.iter().map(|x| (x.to_f64() - max).exp()).sum::<f64>().ln();
        for c in 0..cols {
            expected[r * cols + c] = row[c].to_f64() - max - log_sum;
        }
    }
    let (mut a, mut b) = (vec![T::ONE; rows * cols], vec![T::ONE; rows * cols]);
    log_softmax_rows(Par::Seq, &x, rows, cols, &mut a);
    log_softmax_rows(Par::Rayon, &x, rows, cols, &mut b);
    close(&a, &expected, &vec![4.0; a.len()], 4.0, &format!("log-softmax of [{rows}, {cols}]"));
    assert_eq!(bits(&a), bits(&b));
}

#[test]
fn log_softmax_of_chosen_shapes() {
    for (rows, cols) in [(0, 3), (3, 0), (1, 1), (25, 5), (75, 20), (10_001, 5), (3, 1000), (129, 65)] {
        check_softmax::<f32>(rows, cols);
        check_softmax::<f64>(rows, cols);
    }
}

#[test]
fn log_softmax_does_not_overflow() {
    let x = [1e4f32, 1e4 - 1.0, -1e4, f32::NEG_INFINITY];
    let mut out = [0.0; 4];
    log_softmax_rows(Par::Seq, &x, 1, 4, &mut out);
    assert!((out[0] + 0.313_261_7).abs() < 1e-6 && (out[1] + 1.313_261_7).abs() < 1e-6, "{out:?}");
    assert_eq!(out[3], f32::NEG_INFINITY);
    log_softmax_rows(Par::Seq, &[0.0, f32::NAN, 1.0], 1, 3, &mut out[..3]);
    assert!(out[..3].iter().all(|x| x.is_nan()));
}

#[test]
fn argmax_takes_the_first_and_lets_nan_win() {
    let x = [1.0f32, 3.0, 3.0, f32::NAN, 5.0, f32::NAN, -1.0, -1.0, f32::NEG_INFINITY];
    let mut out = [9; 3];
    argmax_rows(Par::Seq, &x, 3, 3, &mut out);
    assert_eq!(out, [1, 0, 0]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sums_of_any_shape(dims in prop::collection::vec((0usize..13, any::<bool>()), 0..6)) {
        let (shape, reduced): (Vec<_>, Vec<_>) = dims.into_iter().unzip();
        check_sum::<f32>(&shape, &reduced);
        check_sum::<f64>(&shape, &reduced);
    }

    #[test]
    fn sums_of_any_matrix(r in 0usize..300, k in 0usize..300) {
        for reduced in [[true, false], [false, true], [true, true]] {
            check_sum::<f32>(&[r, k], &reduced);
        }
    }

    #[test]
    fn normalisation_of_any_shape(outer in 0usize..5, r in 1usize..80, c in 0usize..80) {
        check_norm::<f32>(outer, r, c, 1.0);
        check_norm::<f64>(outer, r, c, 1.0);
    }

    #[test]
    fn softmax_of_any_shape(rows in 0usize..20, cols in 0usize..80) {
        check_softmax::<f32>(rows, cols);
        check_softmax::<f64>(rows, cols);
    }

    #[test]
    fn argmax_of_any_rows(rows in 0usize..20, cols in 1usize..70, few in 1u32..9) {
        // Few distinct values, so that there are ties.
        let x: Vec<f32> = (0..rows * cols).map(|i| (value(i, 2) * f64::from(few)).round() as f32).collect();
        let mut out = vec![0; rows];
        argmax_rows(Par::Rayon, &x, rows, cols, &mut out);
        for (row, &at) in x.chunks_exact(cols).zip(&out) {
            let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            prop_assert_eq!(row.iter().position(|&x| x == max), Some(at as usize));
        }
    }
}
