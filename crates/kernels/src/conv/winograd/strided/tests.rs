//! All three passes against naive loops, whatever the rule says of a shape; the error against f64; threads.

use super::{Plan, weight_grad};
use crate::conv::tests::{dims, naive, noise};
use crate::conv::window::Images;
use crate::conv::{ConvDims, forward, input_grad};
use crate::microkernel::kernels_of;
use crate::simd::Isa;
use crate::{Par, Real};
use proptest::prelude::*;

fn run<T: Real>(isa: Isa, par: Par, d: &ConvDims, [x, w, g]: [&[f64]; 3]) -> [Vec<T>; 3] {
    let kernels = kernels_of::<T>(isa);
    let to = |v: &[f64]| v.iter().map(|&v| T::from_f64(v)).collect::<Vec<T>>();
    let (x, w, g) = (to(x), to(w), to(g));
    let junk = T::from_f64(f64::NAN);
    let [mut y, mut dx, mut dw] = [g.len(), x.len(), w.len()].map(|len| vec![junk; len]);
    let out = d.out_hw().unwrap();
    let plan = Plan::new(d, out).unwrap();
    forward::by_strided(kernels, par, d, out, plan, &x, &w, &mut y);
    input_grad::by_strided(kernels, par, d, out, plan, &g, &w, &mut dx);
    let (x, g) = (Images { data: &x, hw: d.hw, c: d.ci }, Images { data: &g, hw: out, c: d.co });
    weight_grad(kernels, par, plan, x, g, &mut dw);
    [y, dx, dw]
}

fn operands(d: &ConvDims) -> [Vec<f64>; 3] {
    let [oh, ow] = d.out_hw().unwrap();
    let lengths = [d.n * d.hw[0] * d.hw[1] * d.ci, d.taps() * d.ci * d.co, d.n * oh * ow * d.co];
    [0, 1, 2].map(|i| noise(lengths[i], i + 1))
}

fn check(d: &ConvDims) {
    let operands = operands(d);
    let [x, w, g] = operands.each_ref().map(Vec::as_slice);
    let expected = naive(d, x, w, g);
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        check_as::<f32>(isa, d, [x, w, g], &expected);
        check_as::<f64>(isa, d, [x, w, g], &expected);
    }
}

fn check_as<T: Real>(isa: Isa, d: &ConvDims, operands: [&[f64]; 3], expected: &[Vec<f64>; 3]) {
    let seq = run::<T>(isa, Par::Seq, d, operands);
    let rayon = run::<T>(isa, Par::Rayon, d, operands);
    for (what, ((seq, rayon), expected)) in ["y", "dx", "dw"].iter().zip(seq.iter().zip(&rayon).zip(expected)) {
        assert!(
            bytemuck::cast_slice::<T, u8>(seq) == bytemuck::cast_slice::<T, u8>(rayon),
            "{what} depends on threads for {isa:?} {d:?}"
        );
        let terms = (d.n * d.hw[0] * d.hw[1]).max(d.taps() * d.ci.max(d.co)) as f64;
        let tolerance = 100.0 * T::EPSILON.to_f64() * (1.0 + terms.sqrt());
        for (i, (&got, &want)) in seq.iter().zip(expected).enumerate() {
            let error = (got.to_f64() - want).abs();
            assert!(error <= tolerance, "{what}[{i}] = {got}, not {want}, for {isa:?} {d:?}");
        }
    }
}

#[test]
fn all_passes_agree_with_the_definition() {
    let one_sided = |d: ConvDims| ConvDims { pad: [[0, 1], [0, 1]], ..d };
    for d in [
        dims(3, 7, 20, 70, 3, 2, 1),
        one_sided(dims(3, 14, 20, 70, 3, 2, 0)),
        dims(2, 28, 5, 17, 3, 2, 1),
        dims(5, 3, 3, 1, 3, 2, 0),
        // Pixels of x that no tap meets.
        dims(2, 6, 16, 32, 3, 2, 0),
        dims(2, 8, 130, 3, 3, 2, 0),
        // Tiles of 3 alone along one axis.
        ConvDims { hw: [7, 14], ..dims(2, 0, 17, 9, 3, 2, 1) },
        ConvDims { hw: [19, 6], ..dims(2, 0, 17, 9, 3, 2, 1) },
        ConvDims { hw: [2, 19], pad: [[1, 2], [3, 0]], ..dims(3, 0, 16, 32, 3, 2, 0) },
        ConvDims { hw: [1, 6], pad: [[3, 4], [2, 1]], ..dims(3, 0, 4, 8, 3, 2, 0) },
    ] {
        check(&d);
    }
}

#[test]
fn blocks_of_images_are_added_up() {
    check(&dims(100, 7, 40, 36, 3, 2, 1));
    check(&dims(60, 11, 40, 36, 3, 2, 1));
}

#[test]
fn threads_change_no_bit() {
    for d in [dims(40, 7, 70, 150, 3, 2, 1), dims(40, 15, 33, 20, 3, 2, 1)] {
        let operands = operands(&d);
        let of = |par| run::<f32>(crate::simd::isa(), par, &d, operands.each_ref().map(Vec::as_slice));
        let alone = of(Par::Seq);
        for threads in [1, 2, 3, 4, 5, 8, 16] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert!(alone == pool.install(|| of(Par::Rayon)), "{threads} threads, {d:?}");
        }
    }
}

/// Images are normal with variance 1, weights as He et al. (2015) draw them; the errors are relative to the root of the mean square of the result.
#[test]
fn the_error_in_f32_is_bounded() {
    let normal = |len: usize, seed: usize| {
        let sum = |i: usize| (0..12).map(|k| noise(1, seed * 1_000_003 + 12 * i + k)[0]).sum::<f64>() / 2.0;
        (0..len).map(|i| f64::from(sum(i) as f32)).collect::<Vec<f64>>()
    };
    for channels in [64, 128, 256] {
        for (size, pad) in [(14, [0, 1]), (7, [1, 1])] {
            let d = ConvDims { pad: [pad; 2], ..dims(8, size, channels, channels, 3, 2, 0) };
            let [oh, ow] = d.out_hw().unwrap();
            let scale = (2.0 / (9 * channels) as f64).sqrt();
            let x = normal(8 * size * size * channels, 1);
            let w =
                normal(9 * channels * channels, 2).iter().map(|w| f64::from((w * scale) as f32)).collect::<Vec<_>>();
            let g = normal(8 * oh * ow * channels, 3);
            // In f64 this way is exact enough, as the tests above say.
            let want = run::<f64>(crate::simd::isa(), Par::Rayon, &d, [&x, &w, &g]);
            let got = run::<f32>(crate::simd::isa(), Par::Rayon, &d, [&x, &w, &g]);
            let errors = [0, 1, 2].map(|i| {
                let rms = (want[i].iter().map(|v| v * v).sum::<f64>() / want[i].len() as f64).sqrt();
                got[i].iter().zip(&want[i]).map(|(&a, b)| (f64::from(a) - b).abs()).fold(0.0, f64::max) / rms
            });
            assert!(errors.into_iter().all(|error| error < 6e-5), "{size} x {size}, {channels} channels: {errors:?}");
        }
    }
}

prop_compose! {
    fn any_dims()(
        n in 1..4usize,
        hw in [1..20usize, 1..20usize],
        ci in 1..20usize,
        co in 1..20usize,
        pad in [[0..4usize, 0..4usize], [0..4usize, 0..4usize]],
    ) -> ConvDims {
        ConvDims { hw, pad, ..dims(n, 0, ci, co, 3, 2, 0) }
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
