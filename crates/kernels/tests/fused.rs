//! Fused passes against the kernels of their steps, bit for bit, on every instruction set and for any number of threads.

use std::sync::{Mutex, MutexGuard, PoisonError};

use metaforge_kernels::fused::{Fusion, In, Out, Place, Pooling, Step, StepOp, Sum};
use metaforge_kernels::simd::{Isa, force_isa};
use metaforge_kernels::{Binary, Par, Unary, Window, fused};
use proptest::prelude::*;

/// Held by a test while it forces an instruction set or compares bits.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn noise(len: usize, seed: u64) -> Vec<f32> {
    // Steps of an eighth, so that windows hold equal numbers and signed zeros.
    (0..len as u64).map(|i| (((i * 7919 + seed * 104_729) % 1021) as f32 / 16.0 - 32.0).round() / 8.0).collect()
}

fn step(op: StepOp, args: &[Place], out: Place, pooled: bool) -> Step {
    Step { op, args: args.to_vec(), out, pooled }
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// The sums over all rows, by the kernel for it.
fn sum(x: &[f32], c: usize) -> Vec<f32> {
    let mut out = vec![0.0; c];
    metaforge_kernels::sum_axes(Par::Seq, x, &[x.len() / c, c], &[true, false], &mut out);
    out
}

/// A block of a network, forward and backward: batch norm, scale, shift, pooling, rectifier.
fn block(n: usize, hw: [usize; 2], c: usize, kernel: [usize; 2], par: Par) {
    use Place::{Input, Output, Param, Temp};
    let pooling = Pooling { hw, channels: c, kernel };
    let [h, w] = [hw[0] / kernel[0], hw[1] / kernel[1]];
    let (full, windows) = (n * hw[0] * hw[1] * c, n * h * w * c);
    let (x, g) = (noise(full, 1), noise(windows, 2));
    let [mean, rstd, scale, shift] = [3, 4, 5, 6].map(|seed| noise(c, seed));

    // Forward, step by step.
    let column = |op: Binary, a: &[f32], p: &[f32]| {
        let mut out = vec![0.0; full];
        metaforge_kernels::binary(Par::Seq, op, a, &[c, 1], p, &[0, 1], &[full / c, c], &mut out);
        out
    };
    let xhat = column(Binary::Mul, &column(Binary::Sub, &x, &mean), &rstd);
    let y = column(Binary::Add, &column(Binary::Mul, &xhat, &scale), &shift);
    let window = Window { kernel, stride: kernel, pad: [[0; 2]; 2] };
    let mut indices = vec![0u32; windows];
    metaforge_kernels::max_pool_indices(Par::Seq, &y, n, hw, c, &window, &mut indices);
    let per_image = [hw[0] * hw[1] * c, h * w * c];
    let mut picked = vec![0.0; windows];
    metaforge_kernels::gather(Par::Seq, &y, &indices, n, per_image[0], per_image[1], 1, &mut picked);
    metaforge_kernels::unary_assign(Par::Seq, Unary::Relu, &mut picked);

    let forward = Fusion::new(
        vec![
            step(StepOp::Normalize, &[Input(0), Param(0), Param(1)], Temp(0), false),
            step(StepOp::Binary(Binary::Mul), &[Temp(0), Param(2)], Temp(1), false),
            step(StepOp::Binary(Binary::Add), &[Temp(1), Param(3)], Temp(0), false),
            step(StepOp::PoolIndices, &[Temp(0)], Output(0), false),
            step(StepOp::PoolGather, &[Temp(0), Output(0)], Temp(1), false),
            step(StepOp::Unary(Unary::Relu), &[Temp(1)], Output(1), true),
        ],
        vec![],
        c,
        full,
        Some(pooling),
    );
    let (mut found, mut values) = (vec![0u32; windows], vec![0.0; windows]);
    let outs = &mut [Out::Index(&mut found), Out::Float(&mut values)];
    fused(par, &forward, &[In::Float(&x)], &[&mean, &rstd, &scale, &shift], outs);
    assert_eq!(found, indices);
    assert_eq!(bits(&values), bits(&picked));

    // Backward: the gradient goes where the maximum was; sums of it, and of its product with xhat.
    let mut gated = vec![0.0; windows];
    metaforge_kernels::binary(Par::Seq, Binary::Gate(0.0), &g, &[1], &picked, &[1], &[windows], &mut gated);
    let mut placed = vec![0.0; full];
    metaforge_kernels::scatter_add(Par::Seq, &gated, &indices, n, per_image[1], per_image[0], 1, &mut placed);
    let product: Vec<f32> = placed.iter().zip(&xhat).map(|(a, b)| a * b).collect();
    let backward = Fusion::new(
        vec![
            step(StepOp::Binary(Binary::Gate(0.0)), &[Input(0), Input(1)], Temp(0), true),
            step(StepOp::PoolScatter, &[Temp(0), Input(2)], Output(0), false),
            step(StepOp::Normalize, &[Input(3), Param(0), Param(1)], Temp(1), false),
            step(StepOp::Binary(Binary::Mul), &[Output(0), Temp(1)], Temp(2), false),
        ],
        vec![Sum { of: Output(0), into: 1, pooled: false }, Sum { of: Temp(2), into: 2, pooled: false }],
        c,
        full,
        Some(pooling),
    );
    let (mut out, mut sums) = (vec![9.0; full], [vec![0.0; c], vec![0.0; c]]);
    let [first, second] = &mut sums;
    let outs = &mut [Out::Float(&mut out), Out::Float(first), Out::Float(second)];
    let ins = &[In::Float(&g), In::Float(&picked), In::Index(&indices), In::Float(&x)];
    fused(par, &backward, ins, &[&mean, &rstd], outs);
    assert_eq!(bits(&out), bits(&placed));
    assert_eq!(bits(&sums[0]), bits(&sum(&placed, c)));
    assert_eq!(bits(&sums[1]), bits(&sum(&product, c)));
}

/// A sum of windows, and one number for all columns.
fn pooled_sum(n: usize, c: usize) {
    use Place::{Input, Param, Temp};
    let pooling = Pooling { hw: [4, 6], channels: c, kernel: [2, 3] };
    let (full, windows) = (n * 24 * c, n * 4 * c);
    let x = noise(windows, 1);
    let fusion = Fusion::new(
        vec![step(StepOp::Binary(Binary::Mul), &[Input(0), Param(0)], Temp(0), true)],
        vec![Sum { of: Temp(0), into: 0, pooled: true }],
        c,
        full,
        Some(pooling),
    );
    let mut out = vec![0.0; c];
    fused(Par::Rayon, &fusion, &[In::Float(&x)], &[&[0.3]], &mut [Out::Float(&mut out)]);
    let product: Vec<f32> = x.iter().map(|x| x * 0.3).collect();
    assert_eq!(bits(&out), bits(&sum(&product, c)));
}

fn on_every_set(f: impl Fn()) {
    let _alone = alone();
    for isa in Isa::ALL {
        if force_isa(Some(isa)) {
            f();
        }
    }
    force_isa(None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_pass_gives_the_bits_of_its_steps(
        n in 1usize..5,
        h in 1usize..9,
        w in 1usize..9,
        c in prop::sample::select(vec![2, 3, 5, 16, 17, 32, 64, 65, 128]),
        kernel in prop::sample::select(vec![[2, 2], [1, 2], [3, 2], [3, 3]]),
    ) {
        let hw = [h.max(kernel[0]), w.max(kernel[1])];
        on_every_set(|| {
            block(n, hw, c, kernel, Par::Seq);
            pooled_sum(n, c);
        });
    }
}

#[test]
fn large_passes_are_cut_into_blocks_and_split_over_threads() {
    let _alone = alone();
    // More rows than a block of a sum, bands and whole images, units that lie across the blocks' borders.
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            block(9, [28, 28], 64, [2, 2], Par::Rayon);
            block(40, [7, 7], 64, [2, 2], Par::Rayon);
            block(12, [14, 14], 48, [2, 2], Par::Rayon);
            block(30, [13, 9], 24, [3, 2], Par::Rayon);
            pooled_sum(300, 64);
        });
    }
}

#[test]
#[should_panic(expected = "writes what it reads")]
fn a_step_in_place_is_refused() {
    let steps = vec![step(StepOp::Unary(Unary::Neg), &[Place::Temp(0)], Place::Temp(0), false)];
    Fusion::new(steps, vec![], 1, 8, None);
}

#[test]
#[should_panic(expected = "fused: 7 elements")]
fn an_operand_of_another_length_is_refused() {
    let steps = vec![step(StepOp::Unary(Unary::Neg), &[Place::Input(0)], Place::Output(0), false)];
    let fusion = Fusion::new(steps, vec![], 1, 8, None);
    fused(Par::Seq, &fusion, &[In::Float(&[0f32; 7])], &[], &mut [Out::Float(&mut [0.0; 8])]);
}
