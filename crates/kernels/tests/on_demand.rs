//! A convolution that is computed where it is read, against the same convolution in memory, bit for bit.

mod common;

use common::{alone, bits, noise, step};
use metaforge_kernels::fused::{Factor, Fusion, In, Out, Place, Pooling, StepOp, Sum};
use metaforge_kernels::simd::{Isa, force_isa};
use metaforge_kernels::{
    Binary, ConvDims, OnDemand, Par, Real, conv, fused, fused_weight_grad, statistics, statistics_of,
};
use proptest::prelude::*;

/// What passes, statistics and a weight gradient make of the result in memory, and of the same on demand.
fn compare<T: Real>(dims: &ConvDims, par: Par) {
    use Place::{Input, Output, Param, Temp};
    let [h, w] = dims.out_hw().unwrap();
    let (co, pixels) = (dims.co, dims.n * h * w);
    let x = noise::<T>(dims.n * dims.hw[0] * dims.hw[1] * dims.ci, 1);
    let weights = noise::<T>(dims.kernel[0] * dims.kernel[1] * dims.ci * co, 2);
    let scale = noise::<T>(co, 3);
    let mut y = vec![T::ZERO; pixels * co];
    conv(Par::Seq, dims, &x, &weights, &mut y);
    let on_demand = OnDemand::new(dims, &x, &weights);

    // A row of pixels is a row of the pass; the sum reads the result itself.
    let scaled = step(StepOp::Binary(Binary::Mul), &[Input(0), Param(0)], Output(0));
    let sums = if co > 1 && pixels > 1 {
        vec![Sum { of: Input(0), times: Factor::One, into: 1, pooled: false }]
    } else {
        vec![]
    };
    let pass = Fusion::new(vec![scaled], sums.clone(), co, pixels * co, None);
    let run = |image: In<'_, T>| {
        let (mut out, mut sum) = (vec![T::ZERO; pixels * co], vec![T::ZERO; co]);
        let mut outs = vec![Out::Float(&mut out)];
        outs.extend((!sums.is_empty()).then_some(Out::Float(&mut sum)));
        fused(par, &pass, &[image], &[&scale], &mut outs);
        [bits(&out), bits(&sum)]
    };
    assert_eq!(run(In::Float(&y)), run(In::Conv(&on_demand)), "{dims:?}");

    let [mut mean, mut rstd, mut mean_of, mut rstd_of] = [(); 4].map(|()| vec![T::ZERO; co]);
    statistics(par, &y, 1, pixels, co, 1e-5, &mut mean, &mut rstd);
    statistics_of(par, &on_demand, 1e-5, &mut mean_of, &mut rstd_of);
    assert_eq!([bits(&mean), bits(&rstd)], [bits(&mean_of), bits(&rstd_of)], "{dims:?}");

    if h < 2 || w < 2 {
        return;
    }
    let pooling = Pooling { hw: [h, w], channels: co, kernel: [2, 2] };
    let steps = vec![
        step(StepOp::Binary(Binary::Mul), &[Input(0), Param(0)], Temp(0)),
        step(StepOp::PoolIndices, &[Temp(0)], Output(0)),
        step(StepOp::PoolGather, &[Temp(0), Output(0)], Output(1)),
    ];
    let pass = Fusion::new(steps, vec![], co, pixels * co, Some(pooling));
    let run = |image: In<'_, T>| {
        let windows = dims.n * (h / 2) * (w / 2) * co;
        let (mut indices, mut out) = (vec![0; windows], vec![T::ZERO; windows]);
        fused(par, &pass, &[image], &[&scale], &mut [Out::Index(&mut indices), Out::Float(&mut out)]);
        (indices, bits(&out))
    };
    assert_eq!(run(In::Float(&y)), run(In::Conv(&on_demand)), "{dims:?}");

    let squared = step(StepOp::Binary(Binary::Mul), &[Input(0), Input(1)], Output(0));
    let pass = Fusion::new(vec![squared], vec![], co, pixels * co, None);
    if !pass.feeds_weight_grad::<T>(dims) {
        return;
    }
    let g = noise::<T>(pixels * co, 4);
    let run = |image: In<'_, T>| {
        let mut dw = vec![T::ZERO; weights.len()];
        fused_weight_grad(par, &pass, &[In::Float(&g), image], &[], dims, &x, &mut dw);
        bits(&dw)
    };
    assert_eq!(run(In::Float(&y)), run(In::Conv(&on_demand)), "{dims:?}");
}

fn dims(n: usize, hw: [usize; 2], [ci, co]: [usize; 2], kernel: [usize; 2], stride: [usize; 2]) -> ConvDims {
    let pad = kernel.map(|k| [(k - 1) / 2, k / 2]);
    ConvDims { n, hw, ci, co, kernel, stride, pad, dilation: [1; 2], groups: 1 }
}

#[test]
fn the_bits_are_those_of_the_convolution_in_memory() {
    let _alone = alone();
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            for isa in Isa::ALL {
                if !force_isa(Some(isa)) {
                    continue;
                }
                // Blocks of statistics that end within an image, more columns than a tile has, images smaller than a tile.
                for d in [
                    dims(19, [28, 28], [1, 64], [3, 3], [1, 1]),
                    dims(5, [17, 15], [1, 130], [3, 3], [2, 2]),
                    dims(50, [17, 19], [3, 48], [2, 2], [1, 1]),
                    dims(4, [19, 21], [1, 40], [3, 3], [1, 1]),
                    dims(3, [20, 20], [1, 64], [3, 4], [1, 2]),
                ] {
                    compare::<f32>(&d, Par::Rayon);
                    compare::<f64>(&d, Par::Seq);
                }
            }
            force_isa(None);
        });
    }
}

#[test]
fn what_goes_another_way_is_not_on_demand() {
    let _alone = alone();
    let layer = dims(16, [28, 28], [1, 64], [3, 3], [1, 1]);
    assert!(OnDemand::<f32>::fits(&layer) && OnDemand::<f64>::fits(&layer));
    for other in [
        ConvDims { ci: 64, ..layer },
        // Idle lanes, an image as large as the result, an image too large to be copied for each piece, no image.
        ConvDims { co: 17, ..layer },
        ConvDims { ci: 12, co: 16, kernel: [1, 1], pad: [[0; 2]; 2], hw: [28, 28], stride: [2, 2], ..layer },
        ConvDims { hw: [100, 100], ..layer },
        ConvDims { hw: [0, 28], ..layer },
        ConvDims { ci: 2, groups: 2, ..layer },
        ConvDims { dilation: [2, 2], ..layer },
        ConvDims { n: 0, ..layer },
        ConvDims { hw: [1, 1], pad: [[0; 2]; 2], ..layer },
        // Of the taps of 2 x 2 positions most lie on padding, which has a way of its own.
        ConvDims { hw: [2, 2], ..layer },
    ] {
        assert!(!OnDemand::<f32>::fits(&other), "{other:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_shape_that_fits_gives_the_same_bits(
        n in 1..4usize,
        hw in [1..12usize, 1..12usize],
        ci in 1..4usize,
        co in prop_oneof![Just(16usize), Just(48), Just(64), 20..80usize],
        kernel in [1..4usize, 1..4usize],
        stride in [1..4usize, 1..4usize],
        pad in [[0..3usize, 0..3usize], [0..3usize, 0..3usize]],
    ) {
        let d = ConvDims { pad, ..dims(n, hw, [ci, co], kernel, stride) };
        let _alone = alone();
        prop_assume!(OnDemand::<f32>::fits(&d) && OnDemand::<f64>::fits(&d));
        for par in [Par::Seq, Par::Rayon] {
            compare::<f32>(&d, par);
            compare::<f64>(&d, par);
        }
    }
}
