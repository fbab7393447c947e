//! Throughput of elementwise functions, reductions, normalisation and moves, at a size that fits the second-level cache and at the sizes of
//! few-shot networks, each against a copy that moves as many bytes. Costly functions are bound by arithmetic, and scattered reads by latency:
//! there the percentage says how far from the limit of memory they are, not how much could be gained.

#[path = "roofline/mod.rs"]
mod roofline;

use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use metaforge_kernels::{
    Binary, Par, Unary, argmax_rows, binary, copy_strided, gather, log_softmax_rows, normalize, normalize_grad, rstd,
    scatter_add, select, sum_axes, unary, unary_assign, uniform,
};

fn values(n: usize) -> Vec<f32> {
    let mut x = vec![0.0f32; n];
    uniform([1, n as u32], &mut x);
    x.iter_mut().for_each(|x| *x = *x * 8.0 - 4.0);
    x
}

fn group<'a>(c: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = c.benchmark_group(name);
    group.sample_size(20).warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_millis(300));
    group
}

/// A benchmark of `f`, which does `elements` and reads or writes `numbers` of four bytes.
fn run(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, elements: usize, numbers: usize, f: impl FnMut()) {
    group.throughput(Throughput::Elements(elements as u64));
    roofline::bench_bytes(group, name, 4 * numbers, f);
}

fn unaries(c: &mut Criterion) {
    let mut g = group(c, "unary");
    let n = 1 << 15;
    let x: Vec<f32> = values(n).iter().map(|x| x.abs() + 0.1).collect();
    let mut out = vec![0.0f32; n];
    for op in [
        Unary::Neg,
        Unary::Relu,
        Unary::LeakyRelu(0.2),
        Unary::Affine { scale: 0.9, shift: 0.1 },
        Unary::Powf(2.0),
        Unary::Powf(1.7),
        Unary::Sqrt,
        Unary::Rsqrt,
        Unary::Recip,
        Unary::Exp,
        Unary::Log,
        Unary::Tanh,
        Unary::Sigmoid,
        Unary::Softplus,
        Unary::Sin,
    ] {
        run(&mut g, &format!("{op:?}"), n, 2 * n, || unary(Par::Seq, op, black_box(&x), &mut out));
    }
    run(&mut g, "Relu in place", n, 2 * n, || unary_assign(Par::Seq, Unary::Relu, black_box(&mut out)));
    run(&mut g, "Relu of 64", 64, 128, || unary(Par::Seq, Unary::Relu, black_box(&x[..64]), &mut out[..64]));
}

fn binaries(c: &mut Criterion) {
    let mut g = group(c, "binary");
    let n = 1 << 15;
    let (x, y) = (values(n), values(n));
    let mut out = vec![0.0f32; n];
    for op in [Binary::Add, Binary::Div, Binary::Max, Binary::Greater] {
        run(&mut g, &format!("{op:?}"), n, 3 * n, || {
            binary(Par::Seq, op, black_box(&x), &[1], &y, &[1], &[n], &mut out)
        });
    }
    let op = Binary::Mul;
    run(&mut g, "by a scalar", n, 2 * n, || binary(Par::Seq, op, black_box(&x), &[1], &y, &[0], &[n], &mut out));
    for cols in [5, 32, 64, 256] {
        let rows = n / cols;
        let shape = [rows, cols];
        let size = rows * cols;
        run(&mut g, &format!("[{rows}, {cols}] by [{cols}]"), size, 2 * size + cols, || {
            binary(Par::Seq, op, black_box(&x), &[cols, 1], &y, &[0, 1], &shape, &mut out[..size]);
        });
        run(&mut g, &format!("[{rows}, {cols}] by [{rows}, 1]"), size, 2 * size + rows, || {
            binary(Par::Seq, op, black_box(&x), &[cols, 1], &y, &[1, 0], &shape, &mut out[..size]);
        });
    }
    run(&mut g, "of 64", 64, 192, || binary(Par::Seq, op, black_box(&x), &[1], &y, &[1], &[64], &mut out[..64]));
    run(&mut g, "select", n, 3 * n, || select(Par::Seq, black_box(&x), &[1], &x, &[1], &y, &[1], &[n], &mut out));
}

fn sums(c: &mut Criterion) {
    let mut g = group(c, "sum");
    for (shape, reduced) in [
        (&[1 << 15][..], &[true][..]),
        (&[100], &[true]),
        (&[1 << 20], &[true]),
        (&[512, 64], &[true, false]),
        (&[25 * 28 * 28, 64], &[true, false]),
        (&[6553, 5], &[true, false]),
        (&[25, 5], &[true, false]),
        (&[75, 1600], &[true, false]),
        (&[512, 64], &[false, true]),
        (&[6553, 5], &[false, true]),
        (&[32, 1024], &[false, true]),
        (&[32, 16, 64], &[false, true, false]),
    ] {
        let n: usize = shape.iter().product();
        let kept: usize = shape.iter().zip(reduced).map(|(&n, &r)| if r { 1 } else { n }).product();
        let (x, mut out) = (values(n), vec![0.0f32; kept]);
        run(&mut g, &format!("{shape:?} over {reduced:?}"), n, n + kept, || {
            sum_axes(Par::Seq, black_box(&x), shape, reduced, &mut out);
        });
    }
}

fn norms(c: &mut Criterion) {
    let mut g = group(c, "norm");
    for (outer, r, ch) in [(1, 5 * 14 * 14, 64), (1, 25 * 28 * 28, 64), (1, 75 * 49, 32), (64, 256, 1)] {
        let n = outer * r * ch;
        let (x, y, s) = (values(n), values(n), values(outer * ch));
        let (mut out, mut small) = (vec![0.0f32; n], vec![0.0f32; outer * ch]);
        let dims = format!("[{outer}, {r}, {ch}]");
        run(&mut g, &format!("rstd {dims}"), n, n + outer * ch, || {
            rstd(Par::Seq, black_box(&x), outer, r, ch, 1e-5, &mut small);
        });
        run(&mut g, &format!("normalize {dims}"), n, 2 * n, || {
            normalize(Par::Seq, black_box(&x), outer, r, ch, 1e-5, &mut out);
        });
        run(&mut g, &format!("normalize_grad {dims}"), n, 3 * n + outer * ch, || {
            normalize_grad(Par::Seq, black_box(&x), &s, &y, outer, r, ch, &mut out);
        });
    }
}

fn moves(c: &mut Criterion) {
    let mut g = group(c, "moves");
    let n = 1 << 15;
    let x = values(n);
    let mut out = vec![0.0f32; n];
    run(&mut g, "copy", n, 2 * n, || copy_strided(Par::Seq, black_box(&x), 0, &[1], &[n], &mut out, 0, &[1]));
    for (rows, cols) in [(512isize, 64isize), (128, 256), (6553, 5)] {
        let shape = [cols as usize, rows as usize];
        run(&mut g, &format!("transpose [{rows}, {cols}]"), shape[0] * shape[1], 2 * shape[0] * shape[1], || {
            copy_strided(Par::Seq, black_box(&x), 0, &[1, cols], &shape, &mut out, 0, &[rows, 1]);
        });
    }
    run(&mut g, "broadcast [64] to [512, 64]", n, n + 64, || {
        copy_strided(Par::Seq, black_box(&x), 0, &[0, 1], &[512, 64], &mut out, 0, &[64, 1]);
    });
    run(&mut g, "columns 16..48 of [512, 64]", n / 2, n, || {
        copy_strided(Par::Seq, black_box(&x), 16, &[64, 1], &[512, 32], &mut out, 0, &[32, 1]);
    });
    run(&mut g, "nhwc to nchw [8, 64, 64]", n, 2 * n, || {
        copy_strided(Par::Seq, black_box(&x), 0, &[4096, 1, 64], &[8, 64, 64], &mut out, 0, &[4096, 64, 1]);
    });
    let index: Vec<u32> = (0..n as u32).map(|i| i.wrapping_mul(2_654_435_761) % n as u32).collect();
    run(&mut g, "gather of elements", n, 3 * n, || gather(Par::Seq, black_box(&x), &index, 1, n, n, 1, &mut out));
    run(&mut g, "scatter of elements", n, 3 * n, || scatter_add(Par::Seq, black_box(&x), &index, 1, n, n, 1, &mut out));
    let index: Vec<u32> = index[..512].iter().map(|i| i % 512).collect();
    run(&mut g, "gather of rows of 64", n, 2 * n + index.len(), || {
        gather(Par::Seq, black_box(&x), &index, 1, 512, 512, 64, &mut out)
    });
    run(&mut g, "scatter of rows of 64", n, 2 * n + index.len(), || {
        scatter_add(Par::Seq, black_box(&x), &index, 1, 512, 512, 64, &mut out)
    });
}

fn rows(c: &mut Criterion) {
    let mut g = group(c, "rows");
    for (rows, cols) in [(25, 5), (6553, 5), (75, 20), (32, 1000)] {
        let n = rows * cols;
        let x = values(n);
        let (mut out, mut index) = (vec![0.0f32; n], vec![0u32; rows]);
        run(&mut g, &format!("log_softmax [{rows}, {cols}]"), n, 2 * n, || {
            log_softmax_rows(Par::Seq, black_box(&x), rows, cols, &mut out);
        });
        run(&mut g, &format!("argmax [{rows}, {cols}]"), n, n + rows, || {
            argmax_rows(Par::Seq, black_box(&x), rows, cols, &mut index);
        });
    }
    let mut out = vec![0.0f32; 1 << 15];
    run(&mut g, "uniform", 1 << 15, 1 << 15, || uniform(black_box([1, 2]), &mut out));
}

criterion_group!(benches, unaries, binaries, sums, norms, moves, rows);
criterion_main!(benches);
