//! A weight gradient that takes its operand from a pass, image by image, against the pass and the weight gradient one after the other, bit for bit.

mod common;

use common::{noise, step};
use metaforge_kernels::fused::{Fusion, In, Out, Place, Pooling, StepOp};
use metaforge_kernels::simd::{Isa, force_isa};
use metaforge_kernels::{Binary, ConvDims, Par, Real, conv_weight_grad, fused, fused_weight_grad};

fn dims(n: usize, hw: [usize; 2], ci: usize, co: usize, stride: usize) -> ConvDims {
    ConvDims { n, hw, ci, co, kernel: [3, 3], stride: [stride; 2], pad: [[1, 1], [1, 1]], dilation: [1, 1], groups: 1 }
}

/// A gradient that is scattered from windows, scaled column by column.
fn pooled<T: Real>(dims: &ConvDims, par: Par) {
    use Place::{Input, Output, Param, Temp};
    let [h, w] = dims.out_hw().unwrap();
    let c = dims.co;
    let (full, windows) = (dims.n * h * w * c, dims.n * (h / 2) * (w / 2) * c);
    let pooling = Pooling { hw: [h, w], channels: c, kernel: [2, 2] };
    let (y, g, scale) = (noise::<T>(full, 1), noise::<T>(windows, 2), noise::<T>(c, 3));
    let mut indices = vec![0; windows];
    let find = Fusion::new(vec![step(StepOp::PoolIndices, &[Input(0)], Output(0))], vec![], c, full, Some(pooling));
    fused(par, &find, &[In::Float(&y)], &[], &mut [Out::Index(&mut indices)]);
    let steps = vec![
        step(StepOp::PoolScatter, &[Input(0), Input(1)], Temp(0)),
        step(StepOp::Binary(Binary::Mul), &[Temp(0), Param(0)], Output(0)),
    ];
    let pass = Fusion::new(steps, vec![], c, full, Some(pooling));
    compare(&pass, &[In::Float(&g), In::Index(&indices)], &[&scale], dims, par);
}

/// A gradient element by element.
fn plain<T: Real>(dims: &ConvDims, par: Par) {
    use Place::{Input, Output, Param};
    let [h, w] = dims.out_hw().unwrap();
    let (x, g) = (noise::<T>(dims.n * h * w * dims.co, 1), noise::<T>(dims.co, 2));
    let steps = vec![step(StepOp::Binary(Binary::Mul), &[Input(0), Param(0)], Output(0))];
    compare(&Fusion::new(steps, vec![], dims.co, x.len(), None), &[In::Float(&x)], &[&g], dims, par);
}

fn compare<T: Real>(pass: &Fusion, ins: &[In<'_, T>], params: &[&[T]], dims: &ConvDims, par: Par) {
    assert!(pass.feeds_weight_grad::<T>(dims), "{dims:?}");
    let [h, w] = dims.out_hw().unwrap();
    let x = noise::<T>(dims.n * dims.hw[0] * dims.hw[1] * dims.ci, 5);
    let mut g = vec![T::ZERO; dims.n * h * w * dims.co];
    fused(Par::Seq, pass, ins, params, &mut [Out::Float(&mut g)]);
    let [mut wanted, mut found] = [0.0, 1.0].map(|old| vec![T::from_f64(old); 9 * dims.ci * dims.co]);
    conv_weight_grad(Par::Seq, dims, &x, &g, &mut wanted);
    fused_weight_grad(par, pass, ins, params, dims, &x, &mut found);
    assert!(wanted.iter().any(|&w| w != T::ZERO));
    let bits = |x: &[T]| x.iter().map(|x| x.to_f64().to_bits()).collect::<Vec<u64>>();
    assert_eq!(bits(&wanted), bits(&found), "{dims:?}");
}

#[test]
fn the_bits_are_those_of_the_pass_and_the_weight_gradient() {
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            for isa in Isa::ALL {
                if !force_isa(Some(isa)) {
                    continue;
                }
                // One image and several in a block, windows that leave a row over, a stride, more parts than images.
                for (n, hw, ci, co) in
                    [(19, [28, 28], 1, 64), (50, [10, 14], 1, 32), (9, [15, 13], 2, 17), (3, [28, 28], 1, 64)]
                {
                    for par in [Par::Seq, Par::Rayon] {
                        pooled::<f32>(&dims(n, hw, ci, co, 1), par);
                        plain::<f32>(&dims(n, hw, ci, co, 1), par);
                        plain::<f32>(&dims(n, hw, ci, co, 2), par);
                        pooled::<f64>(&dims(n, hw, ci, co, 1), par);
                    }
                }
            }
            force_isa(None);
        });
    }
}

#[test]
fn a_pass_feeds_only_what_takes_images_in_order() {
    let of = |dims: &ConvDims, elements: usize, outputs: usize| {
        let steps = (0..outputs)
            .map(|i| step(StepOp::Binary(Binary::Add), &[Place::Input(0), Place::Param(0)], Place::Output(i)))
            .collect();
        Fusion::new(steps, vec![], dims.co, elements, None).feeds_weight_grad::<f32>(dims)
    };
    let shape = dims(16, [28, 28], 1, 64, 1);
    let elements = 16 * 28 * 28 * 64;
    assert!(of(&shape, elements, 1));
    assert!(!of(&shape, elements, 2), "the other result would be lost");
    assert!(!of(&shape, elements / 2, 1), "images would be missing");
    // Many channels go by Winograd's algorithm or are cut by rows; one image is one part.
    assert!(!of(&dims(16, [28, 28], 64, 64, 1), elements, 1));
    assert!(!of(&dims(1, [28, 28], 1, 64, 1), elements / 16, 1));
}
