//! All three passes against naive loops, whatever the rule says of a shape; the error against f64; threads.

use super::{Pass, Plan, weight_grad};
use crate::conv::tests::{check_giving, check_telling, dims, naive, noise};
use crate::conv::weight_grad::weight_grad as conv_weight_grad;
use crate::conv::window::Images;
use crate::conv::winograd::tests::{compare, largest_errors, normal_operands};
use crate::conv::{ConvDims, Then, forward, input_grad};
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
    let forward = |y: &mut [T], then: Then<'_, T>| forward::by_strided(kernels, par, d, out, plan, &x, &w, y, then);
    forward(&mut y, Then::Stay);
    let mut told = vec![junk; g.len()];
    assert!(check_telling(&mut told, d.co, |y, listener| forward(y, Then::Tell(listener))), "{d:?}");
    assert!(bytemuck::cast_slice::<T, u8>(&told) == bytemuck::cast_slice::<T, u8>(&y), "{d:?}");
    check_giving(&y, d.n, |taker| forward(&mut [], Then::Give(taker)));
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
    let of = |par| run::<T>(isa, par, d, operands);
    compare(d, of(Par::Seq), of(Par::Rayon), expected, &format!("{isa:?}"));
}

#[test]
fn all_passes_agree_with_the_definition() {
    for d in [
        dims(3, 7, 20, 70, 3, 2, 1),
        fourteen(3, 20, 70),
        dims(2, 28, 5, 17, 3, 2, 1),
        dims(5, 3, 3, 1, 3, 2, 0),
        // Pixels of x that no tap meets.
        dims(2, 6, 16, 32, 3, 2, 0),
        dims(2, 8, 130, 3, 3, 2, 0),
        // Between paddings, and tiles of 3 alone, along one axis.
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
    // With tiles of both sizes, and several panels.
    check(&dims(60, 13, 40, 70, 3, 2, 1));
}

#[test]
fn threads_change_no_bit() {
    for d in [dims(40, 7, 70, 150, 3, 2, 1), dims(40, 15, 33, 20, 3, 2, 1)] {
        let operands = operands(&d);
        let bits = |v: Vec<f32>| v.into_iter().map(f32::to_bits).collect::<Vec<u32>>();
        let of = |par| run::<f32>(crate::simd::isa(), par, &d, operands.each_ref().map(Vec::as_slice)).map(bits);
        let alone = of(Par::Seq);
        for threads in [1, 2, 3, 4, 5, 8, 16] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert!(alone == pool.install(|| of(Par::Rayon)), "{threads} threads, {d:?}");
        }
    }
}

#[test]
fn the_error_in_f32_is_bounded() {
    for channels in [64, 128, 256] {
        for d in [fourteen(8, channels, channels), dims(8, 7, channels, channels, 3, 2, 1)] {
            let operands = normal_operands(&d);
            let operands = operands.each_ref().map(Vec::as_slice);
            let isa = crate::simd::isa();
            // In f64 this way is exact enough, as the tests above say.
            let want = run::<f64>(isa, Par::Rayon, &d, operands);
            let errors = largest_errors(&run::<f32>(isa, Par::Rayon, &d, operands), &want);
            let bounds = [2e-5, 2e-5, 6e-6];
            assert!(errors.iter().zip(bounds).all(|(&error, bound)| error < bound), "{d:?}: {errors:?}");
        }
    }
}

/// From 14 x 14 to 7 x 7 pixels.
fn fourteen(n: usize, ci: usize, co: usize) -> ConvDims {
    ConvDims { pad: [[0, 1]; 2], ..dims(n, 14, ci, co, 3, 2, 0) }
}

#[test]
fn the_rule_takes_what_measured_faster() {
    let worth = |d: ConvDims| {
        let of = |pass| Plan::if_worth(&d, d.out_hw().unwrap(), pass, 16).is_some();
        [Pass::Forward, Pass::InputGrad, Pass::WeightGrad].map(of)
    };
    for n in [16, 32, 50, 64] {
        assert!(worth(fourteen(n, 64, 128))[0], "{n}");
    }
    assert_eq!(worth(fourteen(64, 64, 128)), [true; 3]);
    assert_eq!(worth(dims(64, 7, 128, 256, 3, 2, 1)), [true; 3]);
    // Weights that each of many blocks makes anew.
    assert!(!worth(dims(64, 7, 512, 4096, 3, 2, 1))[0]);
    // Few images that share the weights, too few images to share, images too large to keep, a first layer, another stride.
    assert_eq!(worth(dims(8, 7, 128, 256, 3, 2, 1)), [false; 3]);
    assert_eq!(worth(fourteen(15, 64, 128)), [false; 3]);
    assert_eq!(worth(dims(16, 512, 128, 256, 3, 2, 1)), [false; 3]);
    assert_eq!(worth(dims(64, 28, 1, 64, 3, 2, 1)), [false; 3]);
    assert_eq!(worth(dims(64, 7, 128, 256, 3, 1, 1)), [false; 3]);
}

#[test]
fn what_the_rule_takes_is_what_runs() {
    let d = dims(64, 7, 128, 256, 3, 2, 1);
    let (isa, out) = (crate::simd::isa(), d.out_hw().unwrap());
    let kernels = kernels_of::<f32>(isa);
    let [x, w, g] = operands(&d);
    let chosen = |pass| Plan::if_worth(&d, out, pass, kernels.lanes).is_some();
    let by_strided = run::<f32>(isa, Par::Seq, &d, [&x, &w, &g]);
    let [x, w, g] = [x, w, g].map(|v| v.into_iter().map(|v| v as f32).collect::<Vec<f32>>());
    let [mut y, mut dx, mut dw] = [g.len(), x.len(), w.len()].map(|len| vec![0.0; len]);
    forward::forward(kernels, Par::Seq, &d, out, &x, &w, &mut y, Then::Stay);
    input_grad::input_grad(kernels, Par::Seq, &d, out, &g, &w, &mut dx);
    conv_weight_grad(kernels, Par::Seq, &d, out, &x, &g, &mut dw);
    assert_eq!(y == by_strided[0], chosen(Pass::Forward));
    assert_eq!(dx == by_strided[1], chosen(Pass::InputGrad));
    assert_eq!(dw == by_strided[2], chosen(Pass::WeightGrad));
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
