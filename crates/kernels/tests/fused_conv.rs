//! A pass over a convolution whose images come some at a time, against the convolution and the pass one after the other, bit for bit.

mod common;

use common::{alone, bits, noise, step};
use metaforge_kernels::fused::{Fusion, In, Out, Place, Pooling, StepOp};
use metaforge_kernels::simd::{Isa, force_isa};
use metaforge_kernels::{Binary, ConvDims, OnDemand, Par, Real, Unary, conv, fused, fused_conv};
use std::sync::atomic::{AtomicBool, Ordering};

fn dims(n: usize, hw: [usize; 2], [ci, co]: [usize; 2], stride: usize) -> ConvDims {
    ConvDims { n, hw, ci, co, kernel: [3, 3], stride: [stride; 2], pad: [[1, 1], [1, 1]], dilation: [1, 1], groups: 1 }
}

/// Bias and activation; and a product with another image of that size, which comes before it.
fn compare<T: Real>(dims: &ConvDims, par: Par) {
    use Place::{Input, Output, Param, Temp};
    let [h, w] = dims.out_hw().unwrap();
    let len = dims.n * h * w * dims.co;
    let taps = dims.kernel[0] * dims.kernel[1];
    let [x, weights] =
        [dims.n * dims.hw[0] * dims.hw[1] * dims.ci, taps * dims.ci / dims.groups * dims.co].map(|n| noise::<T>(n, 5));
    let (other, bias) = (noise::<T>(len, 1), noise::<T>(dims.co, 2));
    let steps = vec![
        step(StepOp::Binary(Binary::Add), &[Input(1), Param(0)], Temp(0)),
        step(StepOp::Unary(Unary::LeakyRelu(0.2)), &[Temp(0)], Output(0)),
        step(StepOp::Binary(Binary::Mul), &[Input(0), Output(0)], Output(1)),
    ];
    let pass = Fusion::new(steps, vec![], dims.co, len, None);
    assert!(pass.follows_conv::<T>(1, dims), "{dims:?}");
    let mut y = vec![T::ZERO; len];
    conv(Par::Seq, dims, &x, &weights, &mut y);
    let room = || (vec![T::ZERO; len], vec![T::ONE; len]);
    let (mut a, mut b) = room();
    let ins = [In::Float(&other[..]), In::Float(&y)];
    fused(Par::Seq, &pass, &ins, &[&bias], &mut [Out::Float(&mut a), Out::Float(&mut b)]);
    let (mut c, mut d) = room();
    let outs = &mut [Out::Float(&mut c), Out::Float(&mut d)];
    fused_conv(par, &pass, 1, &ins[..1], &[&bias], dims, &x, &weights, outs);
    assert!(bits(&a) == bits(&c) && bits(&b) == bits(&d), "{dims:?}");
    assert!(a.iter().any(|&a| a > T::ZERO));
}

/// The largest of each window, and where it is.
fn pooled<T: Real>(dims: &ConvDims, par: Par) {
    use Place::{Input, Output};
    let [h, w] = dims.out_hw().unwrap();
    let (len, windows) = (dims.n * h * w * dims.co, dims.n * (h / 2) * (w / 2) * dims.co);
    let pooling = Pooling { hw: [h, w], channels: dims.co, kernel: [2, 2] };
    let (x, weights) =
        (noise::<T>(dims.n * dims.hw[0] * dims.hw[1] * dims.ci, 3), noise::<T>(9 * dims.ci * dims.co, 4));
    let steps = vec![
        step(StepOp::PoolIndices, &[Input(0)], Output(0)),
        step(StepOp::PoolGather, &[Input(0), Output(0)], Output(1)),
    ];
    let pass = Fusion::new(steps, vec![], dims.co, len, Some(pooling));
    assert!(pass.follows_conv::<T>(0, dims), "{dims:?}");
    let mut y = vec![T::ZERO; len];
    conv(Par::Seq, dims, &x, &weights, &mut y);
    let room = || (vec![0; windows], vec![T::ZERO; windows]);
    let (mut i, mut a) = room();
    fused(Par::Seq, &pass, &[In::Float(&y)], &[], &mut [Out::Index(&mut i), Out::Float(&mut a)]);
    let (mut j, mut b) = room();
    fused_conv(par, &pass, 0, &[], &[], dims, &x, &weights, &mut [Out::Index(&mut j), Out::Float(&mut b)]);
    assert!(i == j && bits(&a) == bits(&b), "{dims:?}");
}

#[test]
fn the_bits_are_those_of_the_convolution_and_the_pass() {
    let _alone = alone();
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            for isa in Isa::ALL {
                if !force_isa(Some(isa)) {
                    continue;
                }
                // Several images at a time and one, cut and in one piece, a stride, packed weights, groups.
                for par in [Par::Seq, Par::Rayon] {
                    compare::<f32>(&dims(19, [28, 28], [1, 64], 2), par);
                    compare::<f32>(&dims(33, [15, 13], [3, 17], 1), par);
                    compare::<f32>(&dims(17, [90, 80], [2, 16], 1), par);
                    compare::<f32>(&dims(32, [20, 20], [5, 130], 2), par);
                    compare::<f32>(&ConvDims { groups: 2, ..dims(16, [12, 12], [2, 6], 1) }, par);
                    compare::<f64>(&dims(19, [16, 16], [2, 9], 1), par);
                    // By Winograd's algorithm: tiles of several images in a block, images of several blocks, weights made by each block.
                    compare::<f32>(&dims(33, [7, 7], [64, 64], 1), par);
                    compare::<f32>(&dims(16, [28, 28], [64, 64], 1), par);
                    compare::<f32>(&dims(17, [9, 9], [160, 160], 1), par);
                    compare::<f32>(&ConvDims { kernel: [4, 4], ..dims(18, [14, 14], [64, 96], 2) }, par);
                    compare::<f32>(&dims(16, [28, 28], [160, 160], 1), par);
                    compare::<f64>(&dims(17, [14, 14], [64, 64], 1), par);
                    compare::<f32>(&dims(40, [14, 14], [64, 128], 2), par);
                    pooled::<f32>(&dims(21, [14, 14], [64, 64], 1), par);
                    pooled::<f32>(&dims(21, [15, 14], [1, 32], 1), par);
                    pooled::<f64>(&dims(16, [28, 28], [1, 16], 1), par);
                }
            }
            force_isa(None);
        });
    }
}

/// Beside a convolution on demand and indices, before and behind which it stands, and watched.
fn among_others(at: usize, par: Par) {
    use Place::{Input, Output, Temp};
    let d = dims(20, [28, 28], [1, 64], 1);
    let (len, windows) = (20 * 28 * 28 * 64, 20 * 14 * 14 * 64);
    let pooling = Pooling { hw: [28, 28], channels: 64, kernel: [2, 2] };
    let [x, w, image, kernel] =
        [(20 * 784, 1), (9 * 64, 2), (20 * 784, 3), (9 * 64, 4)].map(|(n, seed)| noise::<f32>(n, seed));
    let indices: Vec<u32> = (0..windows as u32).map(|i| (i / 64 % 14) * 128 + (i / 896 % 14) * 3584 + i % 64).collect();
    let others: Vec<usize> = (0..3).filter(|&i| i != at).collect();
    let steps = vec![
        step(StepOp::Binary(Binary::Add), &[Input(at), Input(others[0])], Temp(0)),
        step(StepOp::PoolGather, &[Temp(0), Input(others[1])], Output(0)),
    ];
    let pass = Fusion::new(steps, vec![], 64, len, Some(pooling));
    let mut y = vec![0.0; len];
    conv(Par::Seq, &d, &x, &w, &mut y);
    let on_demand = OnDemand::new(&d, &image, &kernel);
    let [conv_first, index] = [In::Conv(&on_demand), In::Index(&indices)];
    let mut all = vec![conv_first, index];
    all.insert(at, In::Float(&y));
    let (mut a, mut b) = (vec![0.0; windows], vec![1.0; windows]);
    fused(Par::Seq, &pass, &all, &[], &mut [Out::Float(&mut a)]);
    let spoilt = AtomicBool::new(false);
    let outs = &mut [Out::Watched(&mut b, &spoilt)];
    fused_conv(par, &pass, at, &[conv_first, index], &[], &d, &x, &w, outs);
    assert!(bits(&a) == bits(&b) && !spoilt.load(Ordering::Relaxed));
    let mut x = x;
    x[19 * 784 + 400] = f32::INFINITY;
    let outs = &mut [Out::Watched(&mut b, &spoilt)];
    fused_conv(par, &pass, at, &[conv_first, index], &[], &d, &x, &w, outs);
    assert!(spoilt.load(Ordering::Relaxed) && b.iter().any(|b| !b.is_finite()));
}

#[test]
fn it_stands_among_other_inputs() {
    let _alone = alone();
    for at in 0..3 {
        among_others(at, Par::Seq);
        among_others(at, Par::Rayon);
    }
}

#[test]
fn a_pass_follows_only_what_comes_by_images() {
    let _alone = alone();
    let of = |dims: &ConvDims, elements: usize| {
        let steps = vec![step(StepOp::Binary(Binary::Add), &[Place::Input(0), Place::Param(0)], Place::Output(0))];
        Fusion::new(steps, vec![], dims.co, elements, None)
    };
    let shape = dims(16, [28, 28], [1, 64], 1);
    let elements = 16 * 28 * 28 * 64;
    assert!(of(&shape, elements).follows_conv::<f32>(0, &shape));
    assert!(!of(&shape, elements).follows_conv::<f32>(1, &shape), "there is no such input");
    assert!(!of(&shape, elements / 2).follows_conv::<f32>(0, &shape), "images would be missing");
    // Small maps go position by position, one channel another way.
    // Few images would have few pieces, and large ones are not in the cache when the pass comes.
    for other in [dims(15, [28, 28], [1, 64], 1), dims(16, [120, 120], [1, 64], 1)] {
        let [h, w] = other.out_hw().unwrap();
        assert!(!of(&other, other.n * h * w * other.co).follows_conv::<f32>(0, &other), "{other:?}");
    }
    // Nor do images whose transformed weights are more than they are.
    for other in [dims(64, [4, 4], [8, 64], 2), dims(16, [28, 28], [64, 1], 1), dims(64, [7, 7], [128, 256], 2)] {
        let [h, w] = other.out_hw().unwrap();
        assert!(!of(&other, other.n * h * w * other.co).follows_conv::<f32>(0, &other), "{other:?}");
    }
}
