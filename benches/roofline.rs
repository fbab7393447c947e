//! How near large matrix products and the convolutions come to what the processor can multiply and add: each layer of the networks that are timed,
//! each pass.

use std::time::{Duration, Instant};

use metaforge_kernels::{ConvDims, MatMulDims, Par, conv, conv_input_grad, conv_weight_grad, matmul};

use crate::limits;

/// A layer: its name, images, rows and columns, channels in and out, stride. Kernels are 3x3, padded as TensorFlow's "same".
type Layer = (&'static str, usize, usize, usize, usize, usize);

/// Conv4-64 on 28x28 images, for the queries of a 5-way episode and for a 60-way one; the seed discriminator on a batch.
fn layers() -> Vec<Layer> {
    let conv4 = [(28, 1), (14, 64), (7, 64), (3, 64)];
    let few_shot = [75, 600].into_iter().flat_map(|n| conv4.map(|(size, ci)| ("Conv4", n, size, ci, 64, 1)));
    let seed = [(28, 1, 64), (14, 64, 128), (7, 128, 256)].map(|(size, ci, co)| ("seed D", 32, size, ci, co, 2));
    few_shot.chain(seed).collect()
}

/// GFLOP/s in f32 of the threads of the current pool together, multiply-adds counted as two: one trial of a few milliseconds at least, and of `least`.
fn trial(least: Duration) -> f64 {
    let (start, mut work) = (Instant::now(), 0.0);
    while work == 0.0 || start.elapsed() < least {
        work += rayon::broadcast(|_| limits::multiply_adds()).iter().sum::<f64>();
    }
    work / start.elapsed().as_secs_f64() / 1e9
}

/// The best of twenty trials.
fn peak() -> f64 {
    (0..20).map(|_| trial(Duration::ZERO)).fold(0.0, f64::max)
}

/// Prints how a square product does in turns with multiply-adds alone, each for about as long, so that what else the machine does takes from both.
fn print_product(size: usize) {
    let dims = MatMulDims::new(size, size, size);
    let (a, b) = (limits::noise(size * size), limits::noise(size * size));
    let mut out = a.clone();
    // Several times what the shortest trial of multiply-adds takes.
    let repeats = (820 / size).pow(3).max(1);
    let mut rates: [Vec<f64>; 2] = Default::default();
    for _ in 0..TURNS {
        let start = Instant::now();
        (0..repeats).for_each(|_| matmul(Par::Rayon, &dims, &a, &b, &mut out));
        let time = start.elapsed();
        rates[0].push(trial(time));
        rates[1].push((2 * size.pow(3) * repeats) as f64 / time.as_secs_f64() / 1e9);
    }
    rates.iter_mut().for_each(|rates| rates.sort_by(f64::total_cmp));
    let [alone, product] = rates.map(|rates| [rates[TURNS / 2], rates[TURNS - 1]]);
    let shown = |i: usize| format!("{:.0} ({:.0} %)", product[i], 100.0 * product[i] / alone[i]);
    println!("{:<28} {:>16} {:>16}", format!("product {size}x{size}x{size}"), shown(0), shown(1));
}

/// Turns of a product and of multiply-adds alone.
const TURNS: usize = 101;

/// Prints a table: GFLOP/s and the share of the limit that each pass reaches, by its fastest run. Multiply-adds are counted densely, those on
/// the padding included, so that a kernel that saves multiplications may come out above 100 %.
pub fn print() {
    let peak = peak();
    println!("multiply-adds alone: {peak:.0} GFLOP/s on {} threads", rayon::current_num_threads());
    println!("GFLOP/s (share of that), counted densely\n");
    println!("{:<28} {:>16} {:>16}", "in turns with that", "median", "fastest");
    [256, 1024].into_iter().for_each(print_product);
    println!("\n{:<28} {:>16} {:>16} {:>16}", "layer", "forward", "input gradient", "weight gradient");
    for (net, n, size, ci, co, stride) in layers() {
        let dims = same(n, size, ci, co, stride);
        let Some([oh, ow]) = dims.out_hw() else { continue };
        let (x, w, g) =
            (limits::noise(n * size * size * ci), limits::noise(9 * ci * co), limits::noise(n * oh * ow * co));
        let (mut y, mut dx, mut dw) = (g.clone(), x.clone(), w.clone());
        let work = (2 * g.len() * 9 * ci) as f64;
        let shown = |f: &mut dyn FnMut()| {
            let rate = work / fastest(f).as_secs_f64() / 1e9;
            format!("{rate:.0} ({:.0} %)", 100.0 * rate / peak)
        };
        let name = format!("{net} {n} x {size}x{size} {ci}-{co}{}", if stride > 1 { " s2" } else { "" });
        let forward = shown(&mut || conv(Par::Rayon, &dims, &x, &w, &mut y));
        let input = shown(&mut || conv_input_grad(Par::Rayon, &dims, &g, &w, &mut dx));
        let weight = shown(&mut || conv_weight_grad(Par::Rayon, &dims, &x, &g, &mut dw));
        println!("{name:<28} {forward:>16} {input:>16} {weight:>16}");
    }
}

/// A 3x3 convolution with `ceil(size / stride)` outputs along an axis; an odd row of padding goes below.
fn same(n: usize, size: usize, ci: usize, co: usize, stride: usize) -> ConvDims {
    let total = ((size.div_ceil(stride) - 1) * stride + 3).saturating_sub(size);
    let pad = [total / 2, total - total / 2];
    ConvDims {
        n,
        hw: [size; 2],
        ci,
        co,
        kernel: [3; 2],
        stride: [stride; 2],
        pad: [pad; 2],
        dilation: [1; 2],
        groups: 1,
    }
}

/// The fastest of at least five runs and as many as a quarter of a second has room for.
fn fastest(f: &mut dyn FnMut()) -> Duration {
    let (start, mut best, mut runs) = (Instant::now(), Duration::MAX, 0);
    while runs < 5 || start.elapsed() < Duration::from_millis(250) {
        let before = Instant::now();
        f();
        best = best.min(before.elapsed());
        runs += 1;
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_that_of_the_networks() {
        assert_eq!((same(1, 28, 1, 8, 1).pad, same(1, 28, 1, 8, 1).out_hw()), ([[1, 1]; 2], Some([28; 2])));
        assert_eq!((same(1, 28, 1, 8, 2).pad, same(1, 28, 1, 8, 2).out_hw()), ([[0, 1]; 2], Some([14; 2])));
        assert_eq!((same(1, 7, 1, 8, 2).pad, same(1, 7, 1, 8, 2).out_hw()), ([[1, 1]; 2], Some([4; 2])));
    }

    #[test]
    fn both_networks_are_there() {
        assert_eq!(layers().len(), 11);
        assert!(layers().contains(&("seed D", 32, 7, 128, 256, 2)));
    }
}
