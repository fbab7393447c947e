//! Every algorithm against naive loops, whatever the rule says of it; the error against f64; threads.

use super::Points;
use crate::conv::tests::{check_giving, check_telling, dims, naive, noise};
use crate::conv::{ConvDims, Then, forward, input_grad, weight_grad};
use crate::microkernel::{kernels, kernels_of};
use crate::simd::Isa;
use crate::{Par, Real};
use proptest::prelude::*;

fn run<T: Real>(isa: Isa, par: Par, points: Points, d: &ConvDims, [x, w, g]: [&[f64]; 3]) -> [Vec<T>; 3] {
    let kernels = kernels_of::<T>(isa);
    let to = |v: &[f64]| v.iter().map(|&v| T::from_f64(v)).collect::<Vec<T>>();
    let (x, w, g) = (to(x), to(w), to(g));
    let junk = T::from_f64(f64::NAN);
    let [mut y, mut dx, mut dw] = [g.len(), x.len(), w.len()].map(|len| vec![junk; len]);
    let out = d.out_hw().unwrap();
    let telling = check_telling(&mut y, d.co, |y, listener| {
        forward::by_winograd(kernels, par, d, out, points, &x, &w, y, Then::Tell(listener));
    });
    assert!(telling, "{d:?}");
    check_giving(&y, d.n, |taker| {
        forward::by_winograd(kernels, par, d, out, points, &x, &w, &mut [], Then::Give(taker))
    });
    input_grad::by_winograd(kernels, par, d, out, points, &g, &w, &mut dx);
    weight_grad::by_winograd(kernels, par, d, out, points, &x, &g, &mut dw);
    [y, dx, dw]
}

fn check(d: &ConvDims) {
    let [oh, ow] = d.out_hw().unwrap();
    let x = noise(d.n * d.hw[0] * d.hw[1] * d.ci, 1);
    let w = noise(d.taps() * d.ci * d.co, 2);
    let g = noise(d.n * oh * ow * d.co, 3);
    let expected = naive(d, &x, &w, &g);
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        for points in Points::ALL {
            check_as::<f32>(isa, points, d, [&x, &w, &g], &expected);
            check_as::<f64>(isa, points, d, [&x, &w, &g], &expected);
        }
    }
}

fn check_as<T: Real>(isa: Isa, points: Points, d: &ConvDims, operands: [&[f64]; 3], expected: &[Vec<f64>; 3]) {
    let of = |par| run::<T>(isa, par, points, d, operands);
    compare(d, of(Par::Seq), of(Par::Rayon), expected, &format!("{isa:?} {points:?}"));
}

/// Of y, dx and dw those of one thread and of several have the same bits, and are as expected but for rounding.
pub(super) fn compare<T: Real>(
    d: &ConvDims,
    seq: [Vec<T>; 3],
    rayon: [Vec<T>; 3],
    expected: &[Vec<f64>; 3],
    how: &str,
) {
    for (what, ((seq, rayon), expected)) in ["y", "dx", "dw"].iter().zip(seq.iter().zip(&rayon).zip(expected)) {
        assert!(
            bytemuck::cast_slice::<T, u8>(seq) == bytemuck::cast_slice::<T, u8>(rayon),
            "{what} depends on threads for {how} {d:?}"
        );
        let terms = (d.n * d.hw[0] * d.hw[1]).max(d.taps() * d.ci.max(d.co)) as f64;
        let tolerance = 100.0 * T::EPSILON.to_f64() * (1.0 + terms.sqrt());
        for (i, (&got, &want)) in seq.iter().zip(expected).enumerate() {
            let error = (got.to_f64() - want).abs();
            assert!(error <= tolerance, "{what}[{i}] = {got}, not {want}, for {how} {d:?}");
        }
    }
}

#[test]
fn all_algorithms_agree_with_the_definition() {
    for d in [
        dims(2, 14, 64, 64, 3, 1, 1),
        dims(5, 7, 17, 70, 3, 1, 1),
        dims(7, 3, 64, 64, 3, 1, 1),
        dims(3, 1, 3, 1, 3, 1, 1),
        dims(2, 5, 1, 17, 3, 1, 0),
        dims(2, 6, 3, 130, 3, 1, 2),
        dims(1, 4, 130, 3, 3, 1, 2),
        ConvDims { hw: [2, 11], pad: [[1, 2], [0, 1]], ..dims(3, 0, 16, 32, 3, 1, 0) },
        dims(2, 28, 16, 32, 4, 2, 1),
        dims(5, 14, 17, 70, 4, 2, 1),
        dims(3, 9, 130, 3, 4, 2, 2),
        dims(3, 1, 3, 5, 4, 2, 2),
        dims(2, 4, 1, 17, 4, 2, 0),
        ConvDims { hw: [7, 2], pad: [[1, 2], [3, 0]], ..dims(3, 0, 16, 32, 4, 2, 0) },
    ] {
        check(&d);
    }
}

#[test]
fn blocks_of_tiles_are_added_up() {
    // 100 images of 3 x 3 tiles, more than a block has.
    check(&dims(100, 11, 20, 9, 3, 1, 1));
    check(&dims(100, 16, 12, 9, 4, 2, 1));
}

#[test]
fn large_weights_are_transformed_by_every_block() {
    // Several chunks of channels, the last one smaller, several blocks, columns that leave a part of a panel; whole tiles and short ones.
    let tall = |channels: usize| ConvDims { hw: [7, 5], ..dims(20, 0, channels, channels, 3, 1, 1) };
    for (d, points) in [
        (tall(150), Points::Six),
        (tall(180), Points::Five),
        (tall(230), Points::Four),
        (dims(10, 14, 130, 180, 4, 2, 1), Points::Five),
        (dims(10, 18, 180, 130, 4, 2, 1), Points::Six),
    ] {
        // Of the input gradient, whose sums run over one phase at a time, the last two are large with six points.
        assert!((points as usize).pow(2) * d.ci * d.co * d.stride[0].pow(2) > super::LARGE);
        let out = d.out_hw().unwrap();
        let operands =
            [(d.n * d.hw[0] * d.hw[1] * d.ci, 1), (d.taps() * d.ci * d.co, 2), (d.n * out[0] * out[1] * d.co, 3)]
                .map(|(len, seed)| noise(len, seed));
        let [x, w, g] = operands.each_ref().map(Vec::as_slice);
        let expected = naive(&d, x, w, g);
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            check_as::<f32>(isa, points, &d, [x, w, g], &expected);
        }
        check_as::<f64>(crate::simd::isa(), points, &d, [x, w, g], &expected);
        if d.stride == [2, 2] {
            assert!(36 * d.ci * d.co > super::LARGE);
            check_as::<f32>(crate::simd::isa(), Points::Six, &d, [x, w, g], &expected);
        }
    }
}

#[test]
fn threads_change_no_bit() {
    for d in [
        dims(40, 10, 70, 20, 3, 1, 1),
        dims(40, 14, 33, 9, 4, 2, 1),
        dims(6, 18, 96, 140, 4, 2, 1),
        dims(9, 7, 150, 150, 3, 1, 1),
    ] {
        let [oh, ow] = d.out_hw().unwrap();
        let operands = [(d.n * d.hw[0] * d.hw[1] * d.ci, 1), (d.taps() * d.ci * d.co, 2), (d.n * oh * ow * d.co, 3)]
            .map(|(len, seed)| noise(len, seed));
        let operands = operands.each_ref().map(Vec::as_slice);
        for points in Points::ALL {
            let of = |par| run::<f32>(crate::simd::isa(), par, points, &d, operands);
            let alone = of(Par::Seq);
            for threads in [1, 2, 3, 4, 5, 8, 16] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                assert!(alone == pool.install(|| of(Par::Rayon)), "{threads} threads, {points:?}, {d:?}");
            }
        }
    }
}

/// Images that are normal with variance 1, weights as He et al. (2015) draw them, and a gradient like the images; in f32.
pub(super) fn normal_operands(d: &ConvDims) -> [Vec<f64>; 3] {
    let normal = |len: usize, seed: usize, scale: f64| {
        let sum = |i: usize| (0..12).map(|k| noise(1, seed * 1_000_003 + 12 * i + k)[0]).sum::<f64>() / 2.0;
        (0..len).map(|i| f64::from((f64::from(sum(i) as f32) * scale) as f32)).collect::<Vec<f64>>()
    };
    let out = d.out_hw().unwrap();
    let weights = normal(d.taps() * d.ci * d.co, 2, (2.0 / (d.taps() * d.ci) as f64).sqrt());
    [normal(d.n * d.hw[0] * d.hw[1] * d.ci, 1, 1.0), weights, normal(d.n * out[0] * out[1] * d.co, 3, 1.0)]
}

/// The largest error of y, dx and dw, each relative to the root of the mean square of the result: the loss of accuracy that a user sees.
pub(super) fn largest_errors<T: Real>(got: &[Vec<T>; 3], want: &[Vec<f64>; 3]) -> [f64; 3] {
    [0, 1, 2].map(|i| {
        let rms = (want[i].iter().map(|v| v * v).sum::<f64>() / want[i].len() as f64).sqrt();
        got[i].iter().zip(&want[i]).map(|(&a, b)| (a.to_f64() - b).abs()).fold(0.0, f64::max) / rms
    })
}

/// Those of f32 for each algorithm.
fn errors(d: &ConvDims) -> [[f64; 3]; 3] {
    let [x, w, g] = normal_operands(d);
    let out = d.out_hw().unwrap();
    // In f64 the plain passes are exact enough whichever way they take, as another test says.
    let mut want = [vec![0.0; g.len()], vec![0.0; x.len()], vec![0.0; w.len()]];
    forward::forward(kernels(), Par::Rayon, d, out, &x, &w, &mut want[0], Then::Stay);
    input_grad::input_grad(kernels(), Par::Rayon, d, out, &g, &w, &mut want[1]);
    weight_grad::weight_grad(kernels(), Par::Rayon, d, out, &x, &g, &mut want[2]);
    let isa = crate::simd::isa();
    Points::ALL.map(|points| largest_errors(&run::<f32>(isa, Par::Rayon, points, d, [&x, &w, &g]), &want))
}

#[test]
fn the_error_in_f32_is_bounded() {
    for channels in [64, 128, 256] {
        for (kernel, size, bounds) in [(3, 14, [5e-6, 2.5e-5, 2.5e-5]), (4, 28, [1e-5, 6e-5, 6e-5])] {
            let d = dims(8, size, channels, channels, kernel, kernel - 2, 1);
            for ((points, found), bound) in Points::ALL.into_iter().zip(errors(&d)).zip(bounds) {
                assert!(found.into_iter().all(|error| error < bound), "{points:?} with {channels} channels: {found:?}");
            }
        }
    }
}

#[test]
fn in_f64_nothing_that_matters_is_lost() {
    for d in [dims(2, 9, 64, 64, 3, 1, 1), dims(2, 18, 32, 64, 4, 2, 1)] {
        let operands =
            [(2 * d.hw[0] * d.hw[1] * d.ci, 1), (d.taps() * d.ci * d.co, 2), (2 * 81 * d.co, 3)].map(|(len, seed)| {
                // By themselves these numbers are so short that F(2, 3) is exact.
                noise(len, seed).iter().map(|x| x * 0.7123).collect::<Vec<f64>>()
            });
        let [x, w, g] = operands.each_ref().map(Vec::as_slice);
        let want = naive(&d, x, w, g);
        for (points, bound) in Points::ALL.into_iter().zip([1e-14, 1e-13, 1e-13]) {
            let errors = largest_errors(&run::<f64>(crate::simd::isa(), Par::Seq, points, &d, [x, w, g]), &want);
            assert!(errors.into_iter().all(|error| error < bound), "{points:?}: {errors:?}");
        }
    }
}

prop_compose! {
    fn any_dims()(
        n in 1..4usize,
        hw in [1..12usize, 1..12usize],
        ci in 1..20usize,
        co in 1..20usize,
        (kernel, stride) in prop_oneof![Just((3, 1)), Just((4, 2))],
        pad in [[0..4usize, 0..4usize], [0..4usize, 0..4usize]],
    ) -> ConvDims {
        ConvDims { hw, pad, ..dims(n, 0, ci, co, kernel, stride, 0) }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_shape_agrees_with_the_definition(d in any_dims()) {
        prop_assume!(d.out_hw().is_some());
        check(&d);
    }
}
