//! Throughput of the fused passes of a network's block (batch norm, scale and shift, pooling, rectifier), forward and backward, against a copy that
//! moves as many bytes: at the sizes of few-shot networks, with operands that lie in memory and, for few images, in the cache.

#[path = "roofline/mod.rs"]
mod roofline;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use metaforge_kernels::arena::{Arena, Span};
use metaforge_kernels::fused::{Factor, Fusion, In, Out, Place, Pooling, Step, StepOp, Sum};
use metaforge_kernels::{Binary, ConvDims, Par, Unary, conv, fused, fused_conv};

/// Places in memory of x, the pooled indices, the pooled values, their cotangent and the cotangent of x.
const OPERANDS: usize = 5;
/// Sets of operands that a benchmark goes through, so that each finds its own out of the cache if they are large.
const SETS: usize = 3;

fn steps(list: &[(StepOp, &[Place], Place, bool)]) -> Vec<Step> {
    list.iter().map(|&(op, args, out, pooled)| Step { op, args: args.to_vec(), out, pooled }).collect()
}

/// The three passes: forward, the sums of the gradient, the gradient.
fn passes(full: usize, pooling: Pooling) -> [Fusion; 3] {
    use Place::{Input, Output, Param, Temp};
    let new = |steps, sums| Fusion::new(steps, sums, pooling.channels, full, Some(pooling));
    let norm = &[Input(0), Param(0), Param(1), Param(2), Param(3)];
    let forward = steps(&[
        (StepOp::NormalizeMulAdd, norm, Temp(0), false),
        (StepOp::PoolMax { indices: Output(0) }, &[Temp(0)], Temp(1), false),
        (StepOp::Unary(Unary::Relu), &[Temp(1)], Output(1), true),
    ]);
    let scattered: [(StepOp, &[Place], Place, bool); 2] = [
        (StepOp::Binary(Binary::Gate(0.0)), &[Input(1), Input(2)], Temp(0), true),
        (StepOp::PoolScatter, &[Temp(0), Input(3)], Temp(1), false),
    ];
    let sum = |times, into| Sum { of: Temp(1), times, into, pooled: false };
    let sums = vec![sum(Factor::One, 0), sum(Factor::Normalized([Input(0), Param(0), Param(1)]), 1)];
    let grad = &[Input(0), Temp(1), Param(0), Param(1), Param(1), Param(2), Param(3)];
    let gradient = [&scattered[..], &[(StepOp::NormalizeThenGrad, grad, Output(0), false)]].concat();
    [new(forward, vec![]), new(steps(&scattered), sums), new(steps(&gradient), vec![])]
}

fn blocks(criterion: &mut Criterion) {
    for (n, side, c) in [(80, 28, 64), (80, 14, 64), (80, 7, 64), (4, 28, 64)] {
        let mut group = criterion.benchmark_group(format!("fused/{n}x{side}x{side}x{c}"));
        group.sample_size(20).warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_millis(300));
        let pooling = Pooling { hw: [side; 2], channels: c, kernel: [2, 2] };
        let (full, windows) = (n * side * side * c, n * (side / 2) * (side / 2) * c);
        let [forward, summing, gradient] = passes(full, pooling);
        let mut at = 0;
        let mut span = |elements: usize| {
            let span = Span { start: at, bytes: 4 * elements };
            at = span.end();
            span
        };
        let sets: [[Span; OPERANDS]; SETS] =
            std::array::from_fn(|_| [full, windows, windows, windows, full].map(&mut span));
        let mut arena = Arena::new(at);
        for set in &sets {
            let outs = [set[0], set[3]];
            for bytes in arena.split(&outs).0 {
                let values: &mut [f32] = bytemuck::cast_slice_mut(bytes);
                values.iter_mut().enumerate().for_each(|(i, x)| *x = (i * 7919 % 1021) as f32 / 100.0 - 5.0);
            }
        }
        let params: [Vec<f32>; 4] = std::array::from_fn(|k| (0..c).map(|i| 0.5 + (i + k) as f32 / 100.0).collect());
        let params = params.each_ref().map(|p| &p[..]);
        let mut turn = 0;
        let mut next = || {
            turn += 1;
            sets[turn % SETS]
        };
        roofline::bench_bytes(&mut group, "forward", 4 * (full + 2 * windows), || {
            let [x, indices, y, ..] = next();
            let outs = [indices, y];
            let (mut outs, rest) = arena.split(&outs);
            let (Some(indices), Some(y)) = (outs.next(), outs.next()) else { unreachable!("two spans") };
            let mut outs = [Out::Index(bytemuck::cast_slice_mut(indices)), Out::Float(bytemuck::cast_slice_mut(y))];
            fused(Par::Seq, &forward, &[float(rest.read(x))], &params, &mut outs);
        });
        roofline::bench_bytes(&mut group, "sums", 4 * (full + 3 * windows), || {
            let [x, indices, y, g, _] = next();
            let mut sums: [Vec<f32>; 2] = std::array::from_fn(|_| vec![0.0; c]);
            let mut outs = sums.each_mut().map(|sum| Out::Float(sum));
            let indices = In::Index(bytemuck::cast_slice(arena.read(indices)));
            let ins = [float(arena.read(x)), float(arena.read(g)), float(arena.read(y)), indices];
            fused(Par::Seq, &summing, &ins, &params[..2], &mut outs);
        });
        roofline::bench_bytes(&mut group, "gradient", 4 * (2 * full + 3 * windows), || {
            let [x, indices, y, g, dx] = next();
            let outs = [dx];
            let (mut outs, rest) = arena.split(&outs);
            let Some(dx) = outs.next() else { unreachable!("a span") };
            let indices = In::Index(bytemuck::cast_slice(rest.read(indices)));
            let ins = [float(rest.read(x)), float(rest.read(g)), float(rest.read(y)), indices];
            fused(Par::Seq, &gradient, &ins, &params, &mut [Out::Float(bytemuck::cast_slice_mut(dx))]);
        });
        group.finish();
    }
}

fn float(bytes: &[u8]) -> In<'_, f32> {
    In::Float(bytemuck::cast_slice(bytes))
}

/// Bias and activation: of a small product, and of a first layer, one after the other and as it is computed.
fn layers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fused/layer");
    let pass = |len: usize, c: usize| {
        use Place::{Input, Output, Param, Temp};
        let steps = steps(&[
            (StepOp::Binary(Binary::Add), &[Input(0), Param(0)], Temp(0), false),
            (StepOp::Unary(Unary::LeakyRelu(0.2)), &[Temp(0)], Output(0), false),
        ]);
        Fusion::new(steps, vec![], c, len, None)
    };
    let noise = |len: usize| -> Vec<f32> { (0..len).map(|i| (i * 7919 % 1021) as f32 / 100.0 - 5.0).collect() };
    let (small, x, bias, mut y) = (pass(280, 40), noise(280), noise(40), noise(280));
    roofline::bench_bytes(&mut group, "7x40", 8 * 280, || {
        fused(Par::Seq, &small, &[In::Float(&x)], &[&bias], &mut [Out::Float(&mut y)]);
    });
    let dims = ConvDims {
        n: 64,
        hw: [28; 2],
        ci: 1,
        co: 64,
        kernel: [3; 2],
        stride: [2; 2],
        pad: [[0, 1]; 2],
        dilation: [1; 2],
        groups: 1,
    };
    let len = 64 * 14 * 14 * 64;
    let (large, x, w, bias) = (pass(len, 64), noise(64 * 28 * 28), noise(9 * 64), noise(64));
    let (mut y, mut out) = (noise(len), noise(len));
    roofline::bench_bytes(&mut group, "convolution, then pass", 4 * len, || {
        conv(Par::Seq, &dims, &x, &w, &mut y);
        fused(Par::Seq, &large, &[In::Float(&y)], &[&bias], &mut [Out::Float(&mut out)]);
    });
    roofline::bench_bytes(&mut group, "pass follows convolution", 4 * len, || {
        fused_conv(Par::Seq, &large, 0, &[], &[&bias], &dims, &x, &w, &mut [Out::Float(&mut out)]);
    });
    group.finish();
}

criterion_group!(benches, blocks, layers);
criterion_main!(benches);
