//! Convolutions of the networks in use, all three passes: the four-layer network of few-shot classification, a DCGAN's critic and generator.

#[path = "roofline/mod.rs"]
mod roofline;

use criterion::{Criterion, criterion_group, criterion_main};
use metaforge_kernels::{ConvDims, Par, conv, conv_input_grad, conv_weight_grad};
use roofline::limits::noise;

/// `[n, size, ci, co, kernel, stride, pad before, pad after]`.
type Layer = [usize; 8];

fn few_shot() -> Vec<Layer> {
    let sizes = [[28, 1], [28, 64], [14, 64], [7, 64], [3, 64]];
    let layer = |n| move |[size, ci]: [usize; 2]| [n, size, ci, 64, 3, 1, 1, 1];
    [5, 75, 600].into_iter().flat_map(|n| sizes.map(layer(n))).collect()
}

const CRITIC: [Layer; 3] = [[32, 28, 1, 64, 4, 2, 1, 1], [32, 14, 64, 128, 4, 2, 1, 1], [32, 7, 128, 256, 4, 2, 1, 2]];

/// The input gradients of these are the generator's transposed convolutions; the last is its output layer.
const GENERATOR: [Layer; 4] = [
    [64, 14, 128, 256, 4, 2, 1, 1],
    [64, 28, 64, 128, 4, 2, 1, 1],
    [64, 28, 1, 64, 4, 2, 1, 1],
    [64, 28, 64, 1, 3, 1, 1, 1],
];

fn layers(c: &mut Criterion) {
    let kinds = [("few-shot", few_shot()), ("critic", CRITIC.to_vec()), ("generator", GENERATOR.to_vec())];
    for (kind, layers) in kinds {
        let mut group = c.benchmark_group(kind);
        group.sample_size(10);
        for [n, size, ci, co, kernel, stride, before, after] in layers {
            let dims = ConvDims {
                n,
                hw: [size, size],
                ci,
                co,
                kernel: [kernel, kernel],
                stride: [stride, stride],
                pad: [[before, after], [before, after]],
                dilation: [1, 1],
                groups: 1,
            };
            let Some([oh, ow]) = dims.out_hw() else { continue };
            let (x, w, g) = (noise(n * size * size * ci), noise(kernel * kernel * ci * co), noise(n * oh * ow * co));
            let (mut y, mut dx, mut dw) = (g.clone(), x.clone(), w.clone());
            let work = 2.0 * (g.len() * kernel * kernel * ci) as f64;
            for par in [Par::Seq, Par::Rayon] {
                let mut run = |pass: &str, f: &mut dyn FnMut()| {
                    let cores = if par == Par::Rayon { ", all cores" } else { "" };
                    let name = format!("{n} x {size}x{size} {ci}-{co} k{kernel} s{stride} {pass}{cores}");
                    roofline::bench(&mut group, &name, work, f);
                };
                run("forward", &mut || conv(par, &dims, &x, &w, &mut y));
                run("input gradient", &mut || conv_input_grad(par, &dims, &g, &w, &mut dx));
                run("weight gradient", &mut || conv_weight_grad(par, &dims, &x, &g, &mut dw));
            }
        }
        group.finish();
    }
}

criterion_group!(benches, layers);
criterion_main!(benches);
