//! Matrix products: from those of a regression network on ten points to the largest that the networks here have, beside `matrixmultiply`.

#[path = "roofline/mod.rs"]
mod roofline;

use criterion::{Criterion, criterion_group, criterion_main};
use metaforge_kernels::{MatMulDims, Par, matmul};
use roofline::limits::noise;
use std::hint::black_box;

const SIZES: [[usize; 3]; 12] = [
    [10, 40, 1],
    [10, 40, 40],
    [10, 1, 40],
    [25, 64, 64],
    [75, 5, 64],
    [75, 64, 64],
    [64, 64, 64],
    [128, 128, 128],
    [32, 1024, 128],
    [100, 784, 256],
    [512, 512, 512],
    [1024, 1024, 1024],
];

fn products(c: &mut Criterion) {
    let mut group = c.benchmark_group("matmul");
    for [m, n, k] in SIZES {
        let (a, b) = (noise(m * k), noise(k * n));
        let mut out = noise(m * n);
        let work = 2.0 * (m * n * k) as f64;
        for (ta, tb) in [(false, false), (true, false), (false, true)] {
            let dims = MatMulDims { ta, tb, ..MatMulDims::new(m, n, k) };
            let name = format!("{m}x{n}x{k}{}{}", if ta { " ta" } else { "" }, if tb { " tb" } else { "" });
            roofline::bench(&mut group, &name, work, || matmul(Par::Seq, black_box(&dims), &a, &b, &mut out));
        }
        if m * n * k >= 1 << 20 {
            let dims = MatMulDims::new(m, n, k);
            let name = format!("{m}x{n}x{k} all cores");
            roofline::bench(&mut group, &name, work, || matmul(Par::Rayon, black_box(&dims), &a, &b, &mut out));
        }
        roofline::bench(&mut group, &format!("{m}x{n}x{k} matrixmultiply"), work, || {
            let (rows, cols) = (k as isize, n as isize);
            // SAFETY: the three matrices are row-major and have the sizes given.
            unsafe {
                matrixmultiply::sgemm(
                    m,
                    k,
                    n,
                    1.0,
                    a.as_ptr(),
                    rows,
                    1,
                    b.as_ptr(),
                    cols,
                    1,
                    0.0,
                    out.as_mut_ptr(),
                    cols,
                    1,
                );
            }
        });
    }
    group.finish();
}

criterion_group!(benches, products);
criterion_main!(benches);
