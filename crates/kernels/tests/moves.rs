//! Strided copies, gather and scatter against index arithmetic; counter-based numbers against their definition and their statistics.

use metaforge_kernels::{Par, copy_strided, gather, scatter_add, uniform};
use proptest::prelude::*;

fn contiguous(shape: &[usize]) -> Vec<isize> {
    let mut strides = vec![1; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i] * shape[i] as isize;
    }
    strides
}

fn address(mut i: usize, shape: &[usize], offset: usize, strides: &[isize]) -> usize {
    let mut at = offset as isize;
    for (&n, &s) in shape.iter().zip(strides).rev() {
        at += (i % n) as isize * s;
        i /= n;
    }
    at as usize
}

/// Copies on either schedule and compares with the definition, also that nothing else was written.
fn check(src_len: usize, from: (usize, &[isize]), shape: &[usize], dst_len: usize, to: (usize, &[isize])) {
    let n: usize = shape.iter().product();
    let src: Vec<u32> = (0..src_len as u32).collect();
    let mut expected = vec![u32::MAX; dst_len];
    for i in 0..n {
        expected[address(i, shape, to.0, to.1)] = src[address(i, shape, from.0, from.1)];
    }
    for par in [Par::Seq, Par::Rayon] {
        let mut dst = vec![u32::MAX; dst_len];
        copy_strided(par, &src, from.0, from.1, shape, &mut dst, to.0, to.1);
        assert!(dst == expected, "{from:?} to {to:?} over {shape:?}");
    }
    let src: Vec<f64> = src.into_iter().map(f64::from).collect();
    let mut dst = vec![f64::from(u32::MAX); dst_len];
    copy_strided(Par::Seq, &src, from.0, from.1, shape, &mut dst, to.0, to.1);
    assert!(dst.iter().zip(&expected).all(|(&a, &b)| a == f64::from(b)), "{from:?} to {to:?} over {shape:?}");
}

/// A permutation of a contiguous array of `shape`: result axis i is source axis `axes[i]`.
fn check_permutation(shape: &[usize], axes: &[usize]) {
    let n = shape.iter().product();
    let strides = contiguous(shape);
    let to: Vec<usize> = axes.iter().map(|&a| shape[a]).collect();
    let from: Vec<isize> = axes.iter().map(|&a| strides[a]).collect();
    check(n, (0, &from), &to, n, (0, &contiguous(&to)));
}

#[test]
fn permutations_of_chosen_shapes() {
    check_permutation(&[], &[]);
    check_permutation(&[300, 301], &[1, 0]);
    check_permutation(&[100_000, 3], &[1, 0]);
    check_permutation(&[3, 100_000], &[1, 0]);
    check_permutation(&[20, 33, 65], &[2, 1, 0]);
    check_permutation(&[20, 33, 65], &[1, 0, 2]);
    check_permutation(&[8, 30, 31, 64], &[0, 3, 1, 2]);
    check_permutation(&[8, 64, 30, 31], &[0, 2, 3, 1]);
    check_permutation(&[2, 3, 4, 5, 6, 7], &[3, 5, 1, 0, 4, 2]);
}

#[test]
fn broadcasts_slices_flips_pads_and_concatenations() {
    // A row and a column to [700, 500].
    check(500, (0, &[0, 1]), &[700, 500], 350_000, (0, &[500, 1]));
    check(700, (0, &[1, 0]), &[700, 500], 350_000, (0, &[500, 1]));
    // Columns 3..8 of [10, 20] between columns 1..6 of [10, 7].
    check(200, (3, &[20, 1]), &[10, 5], 70, (1, &[7, 1]));
    // Flip both axes of [30, 40].
    check(1200, (1199, &[-40, -1]), &[30, 40], 1200, (0, &[40, 1]));
    // A flipped destination.
    check(1200, (0, &[40, 1]), &[30, 40], 1200, (1199, &[-40, -1]));
    // A transposed one, into every second row.
    check(1200, (0, &[1, 40]), &[40, 30], 2400, (30, &[60, 1]));
    check(1, (0, &[]), &[], 1, (0, &[]));
    check(0, (0, &[5, 1]), &[0, 5], 0, (0, &[5, 1]));
}

#[test]
#[should_panic(expected = "reach -1..=4")]
fn addresses_before_the_source_are_refused() {
    copy_strided(Par::Seq, &[0u32; 5], 4, &[-1], &[6], &mut [0; 6], 0, &[1]);
}

#[test]
#[should_panic(expected = "overlap")]
fn destinations_that_overlap_are_refused() {
    copy_strided(Par::Seq, &[0u32; 6], 0, &[3, 1], &[2, 3], &mut [0; 6], 0, &[1, 1]);
}

fn check_gather(b: usize, r: usize, i: usize, w: usize) {
    let x: Vec<f32> = (0..b * r * w).map(|v| v as f32 * 0.25).collect();
    let idx: Vec<u32> = (0..b * i).map(|v| (v * 7919 % r.max(1)) as u32).collect();
    if r == 0 && b * i > 0 {
        return;
    }
    let (mut out, mut back, mut again) = (vec![-1.0; b * i * w], vec![-1.0f32; b * r * w], vec![-1.0f32; b * r * w]);
    gather(Par::Rayon, &x, &idx, b, r, i, w, &mut out);
    let mut expected = vec![0.0f32; b * r * w];
    for batch in 0..b {
        for at in 0..i {
            for c in 0..w {
                let from = (batch * r + idx[batch * i + at] as usize) * w + c;
                let value = out[(batch * i + at) * w + c];
                assert_eq!(value, x[from]);
                expected[from] += value;
            }
        }
    }
    scatter_add(Par::Seq, &out, &idx, b, i, r, w, &mut back);
    scatter_add(Par::Rayon, &out, &idx, b, i, r, w, &mut again);
    assert_eq!(back, expected, "in the same order, so the same bits");
    assert_eq!(again, expected);
}

#[test]
fn gather_and_scatter_of_chosen_shapes() {
    for (b, r, i, w) in
        [(1, 1, 1, 1), (3, 0, 0, 2), (2, 5, 0, 3), (1, 70_000, 90_000, 1), (64, 2000, 500, 1), (3, 100, 700, 64)]
    {
        check_gather(b, r, i, w);
    }
}

#[test]
#[should_panic(expected = "index 5 into 5 rows")]
fn indices_out_of_range_are_refused() {
    gather(Par::Seq, &[0.0f32; 5], &[0, 5], 1, 5, 2, 1, &mut [0.0; 2]);
}

#[test]
fn uniform_numbers_are_those_of_philox() {
    // The known answer of philox2x32-10 for zeros (Random123, kat_vectors): ff1dae59 6cd10df2.
    let mut out = [0.0f32];
    uniform([0, 0], &mut out);
    assert_eq!(out[0], (0xff1d_ae59_u32 >> 8) as f32 / 16_777_216.0);
    let mut out = [0.0f64];
    uniform([0, 0], &mut out);
    assert_eq!(out[0], (0xff1d_ae59_6cd1_0df2_u64 >> 11) as f64 / 9_007_199_254_740_992.0);
}

#[test]
fn uniform_numbers_depend_on_key_and_index_alone() {
    let mut long = vec![0.0f32; 1000];
    uniform([3, 4], &mut long);
    for n in [0, 1, 63, 64, 65, 999] {
        let mut short = vec![0.0f32; n];
        uniform([3, 4], &mut short);
        assert_eq!(short, long[..n]);
    }
    let mut other = vec![0.0f32; 1000];
    uniform([3, 5], &mut other);
    assert!(long.iter().zip(&other).filter(|(a, b)| a == b).count() < 3);
}

#[test]
fn uniform_numbers_are_uniform() {
    let n = 1 << 20;
    let mut x = vec![0.0f64; n];
    uniform([7, 9], &mut x);
    let mean = x.iter().sum::<f64>() / n as f64;
    let var = x.iter().map(|x| (x - 0.5).powi(2)).sum::<f64>() / n as f64;
    let lag = x.windows(2).map(|w| (w[0] - 0.5) * (w[1] - 0.5)).sum::<f64>() / n as f64;
    // Four standard errors.
    assert!((mean - 0.5).abs() < 4.0 * (1.0 / 12.0f64).sqrt() / 1024.0, "{mean}");
    assert!((var - 1.0 / 12.0).abs() < 4.0 * 0.0745 / 1024.0, "{var}");
    assert!(lag.abs() < 4.0 / 12.0 / 1024.0, "{lag}");
    let mut counts = [0u32; 64];
    x.iter().for_each(|x| counts[(x * 64.0) as usize] += 1);
    let expected = n as f64 / 64.0;
    let chi: f64 = counts.iter().map(|&c| (f64::from(c) - expected).powi(2) / expected).sum();
    assert!(chi < 110.0, "chi-squared of 63 degrees: {chi}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_permutation(shape in prop::collection::vec(0usize..12, 0..6), seed in any::<u64>()) {
        let mut axes: Vec<usize> = (0..shape.len()).collect();
        let mut seed = seed;
        for i in (1..axes.len()).rev() {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            axes.swap(i, (seed >> 33) as usize % (i + 1));
        }
        check_permutation(&shape, &axes);
    }

    #[test]
    fn any_window_with_any_step_and_sign(
        axes in prop::collection::vec((1usize..7, 1usize..4, 0usize..3, any::<bool>(), 0usize..3, any::<bool>()), 1..5),
    ) {
        // Each axis: size, step in the source, margin, flip; margin and flip in the destination.
        let shape: Vec<usize> = axes.iter().map(|a| a.0).collect();
        let src_shape: Vec<usize> = axes.iter().map(|a| a.0 * a.1 + a.2).collect();
        let dst_shape: Vec<usize> = axes.iter().map(|a| a.0 + a.4).collect();
        let (src_steps, dst_steps) = (contiguous(&src_shape), contiguous(&dst_shape));
        let (mut from, mut to) = (0, 0);
        let (mut src_strides, mut dst_strides) = (vec![], vec![]);
        for (k, &(n, step, margin, flip, dst_margin, dst_flip)) in axes.iter().enumerate() {
            let last = (n - 1) * step;
            from += src_steps[k] as usize * (margin + if flip { last } else { 0 });
            src_strides.push(src_steps[k] * step as isize * if flip { -1 } else { 1 });
            to += dst_steps[k] as usize * (dst_margin + if dst_flip { n - 1 } else { 0 });
            dst_strides.push(dst_steps[k] * if dst_flip { -1 } else { 1 });
        }
        check(src_shape.iter().product(), (from, &src_strides), &shape, dst_shape.iter().product(), (to, &dst_strides));
    }

    #[test]
    fn any_gather(b in 0usize..4, r in 0usize..20, i in 0usize..30, w in 0usize..20) {
        check_gather(b, r, i, w);
    }
}
