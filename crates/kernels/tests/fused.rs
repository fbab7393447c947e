//! Fused passes against the kernels of their steps, bit for bit, on every instruction set and for any number of threads.

mod common;

use common::alone;
use metaforge_kernels::fused::{Factor, Fusion, In, Out, Place, Pooling, Step, StepOp, Sum};
use metaforge_kernels::simd::{Isa, force_isa};
use metaforge_kernels::{Binary, Par, Real, Unary, Window, fused, fused_beside};
use proptest::prelude::*;

/// Whether infinities and NaNs are among the numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Numbers {
    Finite,
    Any,
}

fn noise<T: Real>(len: usize, seed: u64, numbers: Numbers) -> Vec<T> {
    let number = |i: u64| match (i * 7919 + seed * 104_729) % 1021 {
        k @ 0..6 if numbers == Numbers::Any => {
            [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, f64::MAX, f64::MIN_POSITIVE][k as usize]
        }
        // Steps of an eighth, so that windows hold equal numbers and signed zeros.
        k => (k as f64 / 16.0 - 32.0).round() / 8.0,
    };
    (0..len as u64).map(|i| T::from_f64(number(i))).collect()
}

fn step(op: StepOp, args: &[Place], out: Place, pooled: bool) -> Step {
    Step { op, args: args.to_vec(), out, pooled }
}

/// The bits of the same numbers in f64. Which NaN it is is left open: neither the processor nor the compiler promises one.
fn bits<T: Real>(x: &[T]) -> Vec<u64> {
    x.iter().map(|x| if x.is_nan() { f64::NAN } else { x.to_f64() }.to_bits()).collect()
}

/// The sums over all rows, by the kernel for it.
fn sum<T: Real>(x: &[T], c: usize) -> Vec<T> {
    let mut out = vec![T::ZERO; c];
    metaforge_kernels::sum_axes(Par::Seq, x, &[x.len() / c, c], &[true, false], &mut out);
    out
}

/// A block of a network, forward and backward: batch norm, scale, shift, pooling, rectifier.
fn block<T: Real>(n: usize, hw: [usize; 2], c: usize, kernel: [usize; 2], par: Par, numbers: Numbers) {
    use Place::{Input, Output, Param, Temp};
    let pooling = Pooling { hw, channels: c, kernel };
    let [h, w] = [hw[0] / kernel[0], hw[1] / kernel[1]];
    let (full, windows) = (n * hw[0] * hw[1] * c, n * h * w * c);
    let (x, g) = (noise::<T>(full, 1, numbers), noise::<T>(windows, 2, numbers));
    let [mean, rstd, scale, shift] = [3, 4, 5, 6].map(|seed| noise::<T>(c, seed, numbers));

    // Forward, step by step.
    let column = |op: Binary, a: &[T], p: &[T]| {
        let mut out = vec![T::ZERO; full];
        metaforge_kernels::binary(Par::Seq, op, a, &[c, 1], p, &[0, 1], &[full / c, c], &mut out);
        out
    };
    let xhat = column(Binary::Mul, &column(Binary::Sub, &x, &mean), &rstd);
    let y = column(Binary::Add, &column(Binary::Mul, &xhat, &scale), &shift);
    let window = Window { kernel, stride: kernel, pad: [[0; 2]; 2] };
    let mut indices = vec![0u32; windows];
    metaforge_kernels::max_pool_indices(Par::Seq, &y, n, hw, c, &window, &mut indices);
    let per_image = [hw[0] * hw[1] * c, h * w * c];
    let mut picked = vec![T::ZERO; windows];
    metaforge_kernels::gather(Par::Seq, &y, &indices, n, per_image[0], per_image[1], 1, &mut picked);
    metaforge_kernels::unary_assign(Par::Seq, Unary::Relu, &mut picked);

    // Step by step, and with the product and the sum in one step with what they follow.
    let single = vec![
        step(StepOp::Normalize, &[Input(0), Param(0), Param(1)], Temp(0), false),
        step(StepOp::Binary(Binary::Mul), &[Temp(0), Param(2)], Temp(1), false),
        step(StepOp::Binary(Binary::Add), &[Temp(1), Param(3)], Temp(0), false),
    ];
    let scaled = vec![single[0].clone(), step(StepOp::MulAdd, &[Temp(0), Param(2), Param(3)], Temp(1), false)];
    let args = &[Input(0), Param(0), Param(1), Param(2), Param(3)];
    let joined = vec![step(StepOp::NormalizeMulAdd, args, Temp(0), false)];
    for (first, max) in [single, scaled, joined].into_iter().flat_map(|first| [(first.clone(), false), (first, true)]) {
        let Some(y) = first.last().map(|step| step.out) else { unreachable!("there are steps") };
        let pool = if max {
            vec![step(StepOp::PoolMax { indices: Output(0) }, &[y], Temp(2), false)]
        } else {
            vec![
                step(StepOp::PoolIndices, &[y], Output(0), false),
                step(StepOp::PoolGather, &[y, Output(0)], Temp(2), false),
            ]
        };
        let rest = [step(StepOp::Unary(Unary::Relu), &[Temp(2)], Output(1), true)];
        let forward = Fusion::new([&first[..], &pool, &rest].concat(), vec![], c, full, Some(pooling));
        let (mut found, mut values) = (vec![0u32; windows], vec![T::ZERO; windows]);
        let outs = &mut [Out::Index(&mut found), Out::Float(&mut values)];
        fused(par, &forward, &[In::Float(&x)], &[&mean, &rstd, &scale, &shift], outs);
        assert_eq!(found, indices);
        assert_eq!(bits(&values), bits(&picked));
    }

    // Backward: the gradient goes where the maximum was; sums of it, and of its product with xhat.
    let mut gated = vec![T::ZERO; windows];
    metaforge_kernels::binary(Par::Seq, Binary::Gate(0.0), &g, &[1], &picked, &[1], &[windows], &mut gated);
    let mut placed = vec![T::ZERO; full];
    metaforge_kernels::scatter_add(Par::Seq, &gated, &indices, n, per_image[1], per_image[0], 1, &mut placed);
    let product: Vec<T> = placed.iter().zip(&xhat).map(|(&a, &b)| a * b).collect();
    // The product as a step, as a factor, and as a factor that is normalised meanwhile.
    let gate = [
        step(StepOp::Binary(Binary::Gate(0.0)), &[Input(0), Input(1)], Temp(0), true),
        step(StepOp::PoolScatter, &[Temp(0), Input(2)], Output(0), false),
    ];
    let normalize = step(StepOp::Normalize, &[Input(3), Param(0), Param(1)], Temp(1), false);
    let multiply = step(StepOp::Binary(Binary::Mul), &[Output(0), Temp(1)], Temp(2), false);
    for (steps, of, times) in [
        (vec![normalize.clone(), multiply], Temp(2), Factor::One),
        (vec![normalize], Temp(1), Factor::Value(Output(0))),
        (vec![], Output(0), Factor::Normalized([Input(3), Param(0), Param(1)])),
    ] {
        let steps = [&gate[..], &steps].concat();
        let plain = Sum { of: Output(0), times: Factor::One, into: 1, pooled: false };
        let product_of = Sum { of, times, into: 2, pooled: false };
        let backward = Fusion::new(steps, vec![plain, product_of], c, full, Some(pooling));
        let (mut out, mut sums) = (vec![T::ONE; full], [vec![T::ZERO; c], vec![T::ZERO; c]]);
        let [first, second] = &mut sums;
        let outs = &mut [Out::Float(&mut out), Out::Float(first), Out::Float(second)];
        let ins = &[In::Float(&g), In::Float(&picked), In::Index(&indices), In::Float(&x)];
        fused(par, &backward, ins, &[&mean, &rstd], outs);
        assert_eq!(bits(&out), bits(&placed));
        assert_eq!(bits(&sums[0]), bits(&sum(&placed, c)));
        assert_eq!(bits(&sums[1]), bits(&sum(&product, c)));
    }

    // The gradient of the normalisation: of what is normalised before, and of what is meanwhile.
    let mut wanted = vec![T::ZERO; full];
    metaforge_kernels::normalize_grad(par, &xhat, &rstd, &placed, 1, full / c, c, &mut wanted);
    let [mut slope, mut shift] = [vec![T::ZERO; c], vec![T::ZERO; c]];
    let totals = [sum(&placed, c), sum(&product, c)];
    metaforge_kernels::grad_coefficients(&totals[0], &totals[1], &rstd, full / c, &mut slope, &mut shift);
    let last = [Param(2), Param(3), Param(4)];
    let first = step(StepOp::Normalize, &[Input(0), Param(0), Param(1)], Temp(0), false);
    let second = step(StepOp::NormalizeGrad, &[&[Temp(0), Input(1)], &last[..]].concat(), Output(0), false);
    let args = [&[Input(0), Input(1), Param(0), Param(1)], &last[..]].concat();
    let both = step(StepOp::NormalizeThenGrad, &args, Output(0), false);
    let run = |steps: &[Step], factor: &[T]| {
        let fusion = Fusion::new(steps.to_vec(), vec![], c, full, None);
        let mut out = vec![T::ONE; full];
        let ins = &[In::Float(&x[..]), In::Float(&placed)];
        fused(par, &fusion, ins, &[&mean, &rstd, factor, &slope, &shift], &mut [Out::Float(&mut out)]);
        bits(&out)
    };
    for factor in [&rstd, &scale] {
        let by_steps = run(&[first.clone(), second.clone()], factor);
        assert_eq!(run(std::slice::from_ref(&both), factor), by_steps);
        assert!(!std::ptr::eq(factor, &rstd) || by_steps == bits(&wanted));
    }
}

/// Sums of windows: of them times one number, of their products with others, and of those with others that are normalised.
fn pooled_sum<T: Real>(n: usize, c: usize, numbers: Numbers) {
    use Place::{Input, Param, Temp};
    let pooling = Pooling { hw: [4, 6], channels: c, kernel: [2, 3] };
    let (full, windows) = (n * 24 * c, n * 4 * c);
    let [x, y] = [1, 2].map(|seed| noise::<T>(windows, seed, numbers));
    let [mean, rstd] = [3, 4].map(|seed| noise::<T>(c, seed, numbers));
    let third = T::from_f64(0.3);
    let sums = [Factor::One, Factor::Value(Input(1)), Factor::Normalized([Input(1), Param(1), Param(2)])];
    let sums = sums.into_iter().enumerate().map(|(into, times)| Sum { of: Temp(0), times, into, pooled: true });
    let scaled = step(StepOp::Binary(Binary::Mul), &[Input(0), Param(0)], Temp(0), true);
    let fusion = Fusion::new(vec![scaled], sums.collect(), c, full, Some(pooling));
    let mut out: [Vec<T>; 3] = std::array::from_fn(|_| vec![T::ZERO; c]);
    let ins = &[In::Float(&x[..]), In::Float(&y)];
    fused(Par::Rayon, &fusion, ins, &[&[third], &mean, &rstd], &mut out.each_mut().map(|x| Out::Float(x)));
    let product: Vec<T> = x.iter().map(|&x| x * third).collect();
    let by = |f: &dyn Fn(usize) -> T| -> Vec<T> { (0..windows).map(|i| product[i] * f(i)).collect() };
    assert_eq!(bits(&out[0]), bits(&sum(&product, c)));
    assert_eq!(bits(&out[1]), bits(&sum(&by(&|i| y[i]), c)));
    assert_eq!(bits(&out[2]), bits(&sum(&by(&|i| (y[i] - mean[i % c]) * rstd[i % c]), c)));
}

/// A maximum and its index that only steps of the same pass read: placed where it was.
fn placed_maxima<T: Real>(n: usize, hw: [usize; 2], c: usize, numbers: Numbers) {
    use Place::{Input, Output, Temp};
    let pooling = Pooling { hw, channels: c, kernel: [2, 2] };
    let (full, windows) = (n * hw[0] * hw[1] * c, n * (hw[0] / 2) * (hw[1] / 2) * c);
    let x = noise::<T>(full, 1, numbers);
    let place = step(StepOp::PoolScatter, &[Output(0), Temp(0)], Output(1), false);
    let run = |first: &[Step]| {
        let fusion = Fusion::new([first, std::slice::from_ref(&place)].concat(), vec![], c, full, Some(pooling));
        let (mut maxima, mut placed) = (vec![T::ONE; windows], vec![T::ONE; full]);
        fused(Par::Seq, &fusion, &[In::Float(&x)], &[], &mut [Out::Float(&mut maxima), Out::Float(&mut placed)]);
        (bits(&maxima), bits(&placed))
    };
    let apart = run(&[
        step(StepOp::PoolIndices, &[Input(0)], Temp(0), false),
        step(StepOp::PoolGather, &[Input(0), Temp(0)], Output(0), false),
    ]);
    assert!(run(&[step(StepOp::PoolMax { indices: Temp(0) }, &[Input(0)], Output(0), false)]) == apart);
}

/// What a pass reads: inputs and parameters.
type Operands<'a, T> = (&'a [In<'a, T>], &'a [&'a [T]]);

/// Passes of several sizes beside one another, one of them over windows: the bits of each by itself.
fn beside<T: Real>(par: Par, numbers: Numbers) {
    use Place::{Input, Output, Param, Temp};
    let scaled = |n: usize, period: usize| {
        let steps = vec![
            step(StepOp::Binary(Binary::Mul), &[Input(0), Param(0)], Temp(0), false),
            step(StepOp::Binary(Binary::Add), &[Temp(0), Input(1)], Output(0), false),
        ];
        Fusion::new(steps, Vec::new(), period, n, None)
    };
    let pooling = Pooling { hw: [4, 6], channels: 3, kernel: [2, 2] };
    let pooled = vec![
        step(StepOp::PoolIndices, &[Input(0)], Output(0), false),
        step(StepOp::PoolGather, &[Input(0), Output(0)], Output(1), false),
    ];
    let windows = Fusion::new(pooled, Vec::new(), 3, 72 * 500, Some(pooling));
    let passes = [scaled(1, 1), scaled(35_007, 7), windows, scaled(40_000, 1), scaled(64, 64)];
    let (x, y) = (noise::<T>(40_000, 1, numbers), noise::<T>(40_000, 2, numbers));
    let operands: [Operands<'_, T>; 5] = [
        (&[In::Float(&x[..1]), In::Float(&y[..1])], &[&y[..1]]),
        (&[In::Float(&x[..35_007]), In::Float(&y[..35_007])], &[&y[..7]]),
        (&[In::Float(&x[..36_000])], &[]),
        (&[In::Float(&x), In::Float(&y)], &[&y[..1]]),
        (&[In::Float(&x[..64]), In::Float(&y[..64])], &[&y[..64]]),
    ];
    let results = |run: &dyn Fn(&mut [Out<'_, T>])| {
        let mut indices = vec![0; 9000];
        let mut floats = [1, 35_007, 9000, 40_000, 64].map(|n| vec![T::ZERO; n]);
        let [a, b, c, d, e] = &mut floats;
        let [a, b, c, d, e] = [a, b, c, d, e].map(|x| Out::Float(x));
        run(&mut [a, b, Out::Index(&mut indices), c, d, e]);
        (indices, floats.map(|x| bits(&x)))
    };
    let single = results(&|mut outs| {
        for (pass, (ins, params)) in passes.iter().zip(operands) {
            let (own, rest) = outs.split_at_mut(if params.is_empty() { 2 } else { 1 });
            fused(Par::Seq, pass, ins, params, own);
            outs = rest;
        }
    });
    let (ins, params) = (operands.map(|o| o.0).concat(), operands.map(|o| o.1).concat());
    let together = results(&|outs| fused_beside(par, &passes, &ins, &params, outs));
    assert!(single == together);
}

#[test]
fn passes_beside_one_another_give_the_bits_of_each() {
    let _alone = alone();
    beside::<f32>(Par::Seq, Numbers::Any);
    for threads in [1, 2, 3, 8] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            beside::<f32>(Par::Rayon, Numbers::Any);
            beside::<f64>(Par::Rayon, Numbers::Finite);
        });
    }
}

/// Sums of so few rows that they are taken without accumulators, or with some that are not filled.
fn sums_of_rows<T: Real>(rows: usize, c: usize, numbers: Numbers) {
    use Place::{Input, Param, Temp};
    let (x, weights) = (noise::<T>(rows * c, 1, numbers), noise::<T>(c, 2, numbers));
    let fusion = Fusion::new(
        vec![step(StepOp::Binary(Binary::Mul), &[Input(0), Param(0)], Temp(0), false)],
        vec![
            Sum { of: Temp(0), times: Factor::One, into: 0, pooled: false },
            Sum { of: Input(0), times: Factor::One, into: 1, pooled: false },
        ],
        c,
        rows * c,
        None,
    );
    let mut out = [vec![T::ONE; c], vec![T::ONE; c]];
    let [first, second] = &mut out;
    fused(Par::Seq, &fusion, &[In::Float(&x)], &[&weights], &mut [Out::Float(first), Out::Float(second)]);
    let weighed: Vec<T> = x.iter().enumerate().map(|(i, &x)| x * weights[i % c]).collect();
    assert_eq!(bits(&out[0]), bits(&sum(&weighed, c)), "{rows} rows of {c}, weighed");
    assert_eq!(bits(&out[1]), bits(&sum(&x, c)), "{rows} rows of {c}");
}

/// A choice between two values, each operand of the three in memory, a column's or one number; over pixels, then over windows.
fn choice<T: Real>(n: usize, c: usize, numbers: Numbers) {
    use Place::{Input, Output, Param, Temp};
    let pooling = Pooling { hw: [5, 6], channels: c, kernel: [2, 3] };
    let lens = [n * 30 * c, n * 4 * c];
    for (pooled, len) in [(false, lens[0]), (true, lens[1])] {
        for kinds in 0..27 {
            let kinds = [kinds % 3, kinds / 3 % 3, kinds / 9];
            if !kinds.contains(&0) {
                continue;
            }
            let operands: [Vec<T>; 3] =
                [0, 1, 2].map(|i| noise(if kinds[i] == 0 { len } else { [c, 1][kinds[i] - 1] }, i as u64, numbers));
            // Half of the conditions are 0.
            let half = |x: &T| if x.to_f64() < 0.0 { T::ZERO } else { *x };
            let operands = [operands[0].iter().map(half).collect(), operands[1].clone(), operands[2].clone()];
            let strides = kinds.map(|kind| [[c, 1], [0, 1], [0, 0]][kind]);
            let mut wanted = vec![T::ZERO; len];
            let [cond, a, b] = &operands;
            let shape = [len / c, c];
            metaforge_kernels::select(Par::Seq, cond, &strides[0], a, &strides[1], b, &strides[2], &shape, &mut wanted);
            metaforge_kernels::unary_assign(Par::Seq, Unary::Neg, &mut wanted);

            let (mut ins, mut params, mut args) = (Vec::new(), Vec::new(), Vec::new());
            for (kind, operand) in kinds.iter().zip(&operands) {
                if *kind == 0 {
                    args.push(Input(ins.len()));
                    ins.push(In::Float(&operand[..]));
                } else {
                    args.push(Param(params.len()));
                    params.push(&operand[..]);
                }
            }
            let steps = vec![
                step(StepOp::Select, &args, Temp(0), pooled),
                step(StepOp::Unary(Unary::Neg), &[Temp(0)], Output(0), pooled),
            ];
            let fusion = Fusion::new(steps, vec![], c, lens[0], pooled.then_some(pooling));
            let mut out = vec![T::ONE; len];
            fused(Par::Rayon, &fusion, &ins, &params, &mut [Out::Float(&mut out)]);
            assert_eq!(bits(&out), bits(&wanted), "{n} images of {c}: operands {kinds:?}, pooled {pooled}");
        }
    }
}

/// Indices that no step reads, beside sums whose blocks end within a unit: what a piece computes of a unit that is not its own goes
/// nowhere, indices too.
fn unread_indices<T: Real>(n: usize, hw: [usize; 2], c: usize, numbers: Numbers) {
    use Place::{Input, Output, Temp};
    let kernel = [2, 2];
    let pooling = Pooling { hw, channels: c, kernel };
    let (full, windows) = (n * hw[0] * hw[1] * c, n * (hw[0] / 2) * (hw[1] / 2) * c);
    let x = noise::<T>(full, 1, numbers);
    let steps = vec![
        step(StepOp::Unary(Unary::Neg), &[Input(0)], Temp(0), false),
        step(StepOp::PoolIndices, &[Temp(0)], Output(0), false),
        step(StepOp::PoolIndices, &[Input(0)], Output(1), false),
    ];
    let sums = vec![Sum { of: Input(0), times: Factor::One, into: 2, pooled: false }];
    let fusion = Fusion::new(steps, sums, c, full, Some(pooling));
    let (mut found, mut total) = ([vec![u32::MAX; windows], vec![u32::MAX; windows]], vec![T::ZERO; c]);
    let [least, most] = &mut found;
    let outs = &mut [Out::Index(least), Out::Index(most), Out::Float(&mut total)];
    fused(Par::Rayon, &fusion, &[In::Float(&x)], &[], outs);
    let turned: Vec<T> = x.iter().map(|&x| -x).collect();
    for (found, of) in found.iter().zip([&turned, &x]) {
        let mut wanted = vec![0; windows];
        let window = Window { kernel, stride: kernel, pad: [[0; 2]; 2] };
        metaforge_kernels::max_pool_indices(Par::Seq, of, n, hw, c, &window, &mut wanted);
        assert!(*found == wanted, "{n} images of {hw:?}, {c} channels");
    }
    assert_eq!(bits(&total), bits(&sum(&x, c)));
}

fn in_both_types(f: impl Fn(Numbers), g: impl Fn(Numbers)) {
    for numbers in [Numbers::Finite, Numbers::Any] {
        f(numbers);
        g(numbers);
    }
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
        kernel in prop::sample::select(vec![[2, 2], [1, 2], [3, 2], [3, 3], [4, 1], [4, 2]]),
    ) {
        let hw = [h.max(kernel[0]), w.max(kernel[1])];
        on_every_set(|| in_both_types(
            |numbers| {
                block::<f32>(n, hw, c, kernel, Par::Seq, numbers);
                pooled_sum::<f32>(n, c, numbers);
            },
            |numbers| {
                block::<f64>(n, hw, c, kernel, Par::Seq, numbers);
                pooled_sum::<f64>(n, c, numbers);
            },
        ));
    }
}

#[test]
fn large_passes_are_cut_into_blocks_and_split_over_threads() {
    let _alone = alone();
    // More rows than a block of a sum, bands and whole images, units that lie across the blocks' borders.
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            in_both_types(
                |numbers| {
                    block::<f32>(9, [28, 28], 64, [2, 2], Par::Rayon, numbers);
                    block::<f32>(40, [7, 7], 64, [2, 2], Par::Rayon, numbers);
                    block::<f32>(12, [14, 14], 48, [2, 2], Par::Rayon, numbers);
                    block::<f32>(30, [13, 9], 24, [3, 2], Par::Rayon, numbers);
                    block::<f32>(25, [16, 5], 40, [4, 2], Par::Rayon, numbers);
                    pooled_sum::<f32>(300, 64, numbers);
                },
                |numbers| {
                    block::<f64>(12, [14, 14], 48, [2, 2], Par::Rayon, numbers);
                    block::<f64>(30, [13, 9], 24, [3, 2], Par::Rayon, numbers);
                    pooled_sum::<f64>(300, 64, numbers);
                },
            );
        });
    }
}

#[test]
fn few_rows_are_summed_as_by_the_kernel_for_it() {
    on_every_set(|| {
        for c in [2, 3, 4, 8, 16, 17, 32, 33, 64, 128, 2048] {
            for rows in [2, 3, 4, 5, 7, 8, 63, 64, 65, 130] {
                in_both_types(|n| sums_of_rows::<f32>(rows, c, n), |n| sums_of_rows::<f64>(rows, c, n));
            }
        }
    });
}

#[test]
fn a_choice_takes_its_operands_from_anywhere() {
    on_every_set(|| {
        for (n, c) in [(1, 2), (2, 3), (3, 17), (2, 64), (150, 16)] {
            in_both_types(|numbers| choice::<f32>(n, c, numbers), |numbers| choice::<f64>(n, c, numbers));
        }
    });
}

#[test]
fn indices_that_nobody_reads_are_written_once() {
    let _alone = alone();
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            // Bands and whole images; rows of a block that are no multiple of those of a unit.
            for (n, hw, c) in
                [(3, [6, 4], 2), (9, [28, 28], 24), (40, [7, 7], 64), (61, [10, 6], 48), (11, [13, 29], 17)]
            {
                in_both_types(
                    |numbers| unread_indices::<f32>(n, hw, c, numbers),
                    |numbers| unread_indices::<f64>(n, hw, c, numbers),
                );
            }
        });
    }
}

#[test]
fn maxima_are_placed_where_they_were() {
    // Tiles of whole rows and of parts of them, rows and columns outside of windows, channels that fill registers and that do not.
    for (n, hw, c) in [(3, [6, 4], 2), (2, [28, 28], 64), (2, [9, 31], 48), (5, [7, 7], 17)] {
        on_every_set(|| {
            in_both_types(
                |numbers| {
                    placed_maxima::<f32>(n, hw, c, numbers);
                    block::<f32>(n, hw, c, [2, 2], Par::Seq, numbers);
                },
                |numbers| placed_maxima::<f64>(n, hw, c, numbers),
            );
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
#[should_panic(expected = "a single row is copied")]
fn a_sum_of_one_row_is_refused() {
    Fusion::new(vec![], vec![Sum { of: Place::Input(0), times: Factor::One, into: 0, pooled: false }], 8, 8, None);
}

#[test]
#[should_panic(expected = "fused: 7 elements")]
fn an_operand_of_another_length_is_refused() {
    let steps = vec![step(StepOp::Unary(Unary::Neg), &[Place::Input(0)], Place::Output(0), false)];
    let fusion = Fusion::new(steps, vec![], 1, 8, None);
    fused(Par::Seq, &fusion, &[In::Float(&[0f32; 7])], &[], &mut [Out::Float(&mut [0.0; 8])]);
}

#[test]
fn watched_results_tell_of_numbers_that_are_not_finite() {
    use std::sync::atomic::{AtomicBool, Ordering};

    use Place::{Input, Output, Param};
    // Several tiles and a rest, a large number that overflows in the pass, and one that overflows in the other result alone.
    let (rows, c) = (333, 50);
    let steps = vec![
        step(StepOp::Binary(Binary::Mul), &[Input(0), Input(0)], Output(0), false),
        step(StepOp::Binary(Binary::Add), &[Input(0), Param(0)], Output(1), false),
    ];
    let pass = Fusion::new(steps, vec![], c, rows * c, None);
    let watch = |at: usize, number: f32, par: Par| {
        let mut x = vec![1e-30; rows * c];
        x[at] = number;
        let spoilt = [AtomicBool::new(false), AtomicBool::new(false)];
        let (mut a, mut b) = (vec![f32::NAN; x.len()], vec![f32::INFINITY; x.len()]);
        let outs = &mut [Out::Watched(&mut a, &spoilt[0]), Out::Watched(&mut b, &spoilt[1])];
        metaforge_kernels::fused(par, &pass, &[In::Float(&x)], &[&[0.5]], outs);
        (a.iter().all(|x| x.is_finite()), b.iter().all(|x| x.is_finite()), spoilt.map(|s| s.load(Ordering::Relaxed)))
    };
    for par in [Par::Seq, Par::Rayon] {
        for at in [0, 63, 64, 2049, rows * c - 1] {
            assert_eq!(watch(at, 1.0, par), (true, true, [false, false]));
            assert_eq!(watch(at, 1e30, par), (false, true, [true, false]));
            assert_eq!(watch(at, f32::NAN, par), (false, false, [true, true]));
            assert_eq!(watch(at, f32::NEG_INFINITY, par), (false, false, [true, true]));
        }
    }
}
