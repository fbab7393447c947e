//! Convolutions against naive loops in f64, adjoint identities, threads, instruction sets.

use super::forward::forward;
use super::input_grad::input_grad;
use super::weight_grad::weight_grad;
use super::*;
use crate::microkernel::kernels_of;
use crate::par::pool;
use crate::simd::Isa;
use crate::{Par, Real};
use proptest::prelude::*;
use std::sync::Mutex;

/// y, dx and dw by their definition, in f64.
pub(super) fn naive(d: &ConvDims, x: &[f64], w: &[f64], g: &[f64]) -> [Vec<f64>; 3] {
    let [oh, ow] = d.out_hw().unwrap();
    let (ci, co) = (d.ci / d.groups, d.co / d.groups);
    let mut y = vec![0.0; g.len()];
    let mut dx = vec![0.0; x.len()];
    let mut dw = vec![0.0; w.len()];
    for n in 0..d.n {
        for (i, j) in (0..oh).flat_map(|i| (0..ow).map(move |j| (i, j))) {
            for (a, b) in (0..d.kernel[0]).flat_map(|a| (0..d.kernel[1]).map(move |b| (a, b))) {
                let Some(row) = (i * d.stride[0] + a * d.dilation[0]).checked_sub(d.pad[0][0]) else { continue };
                let Some(col) = (j * d.stride[1] + b * d.dilation[1]).checked_sub(d.pad[1][0]) else { continue };
                if row >= d.hw[0] || col >= d.hw[1] {
                    continue;
                }
                for o in 0..d.co {
                    let at_y = ((n * oh + i) * ow + j) * d.co + o;
                    for c in 0..ci {
                        let at_x = ((n * d.hw[0] + row) * d.hw[1] + col) * d.ci + o / co * ci + c;
                        let at_w = ((a * d.kernel[1] + b) * ci + c) * d.co + o;
                        y[at_y] += x[at_x] * w[at_w];
                        dx[at_x] += g[at_y] * w[at_w];
                        dw[at_w] += x[at_x] * g[at_y];
                    }
                }
            }
        }
    }
    [y, dx, dw]
}

/// Numbers in [-1, 1) that look random.
pub(super) fn noise(len: usize, seed: usize) -> Vec<f64> {
    (0..len)
        .map(|i| {
            let mut z = (i as u64 ^ (seed as u64) << 40).wrapping_add(0x9e37_79b9_7f4a_7c15);
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            // Multiples of 1/1024 are exact in f32.
            ((z >> 32) % 2048) as f64 / 1024.0 - 1.0
        })
        .collect()
}

/// Calls `write` with y, of `c` channels, and a listener. If that hears of any pixels, it hears of all, each once, and finds what is there in the end.
pub(super) fn check_telling<T: Real>(y: &mut [T], c: usize, write: impl FnOnce(&mut [T], Listener<T>)) -> bool {
    let heard = Mutex::new(Vec::new());
    write(y, &|y, [first, last]| {
        // SAFETY: a listener may read what it hears of.
        let pixels = unsafe { std::slice::from_raw_parts(y.get().add(first * c), (last - first) * c) };
        heard.lock().unwrap().push((first * c, pixels.to_vec()));
    });
    let mut heard = heard.into_inner().unwrap();
    heard.sort_by_key(|&(first, _)| first);
    let mut next = 0;
    for (first, pixels) in &heard {
        assert_eq!(*first, next, "pixels out of turn");
        next += pixels.len();
        let bytes = |x: &[T]| bytemuck::cast_slice::<T, u8>(x).to_vec();
        assert!(bytes(pixels) == bytes(&y[*first..next]), "pixels that were written to after they were told");
    }
    assert!(next == 0 || next == y.len(), "pixels without a word");
    next > 0
}

/// Calls `write` with a taker, which gets each image of y once, as it stands there.
pub(super) fn check_giving<T: Real>(y: &[T], n: usize, write: impl FnOnce(Taker<T>)) {
    let given = Mutex::new(vec![0; n]);
    let image = y.len() / n;
    write(&|[first, last], images| {
        let bytes = |x: &[T]| bytemuck::cast_slice::<T, u8>(x).to_vec();
        assert!(bytes(images) == bytes(&y[first * image..last * image]), "images {first} to {last} are others");
        given.lock().unwrap()[first..last].iter_mut().for_each(|times| *times += 1);
    });
    let given = given.into_inner().unwrap();
    assert!(given.iter().all(|&times| times == 1), "given: {given:?}");
}

fn run<T: Real>(isa: Isa, par: Par, d: &ConvDims, x: &[f64], w: &[f64], g: &[f64]) -> [Vec<T>; 3] {
    let kernels = kernels_of::<T>(isa);
    let to = |v: &[f64]| v.iter().map(|&v| T::from_f64(v)).collect::<Vec<T>>();
    let (x, w, g) = (to(x), to(w), to(g));
    let junk = T::from_f64(f64::NAN);
    let [mut y, mut dx, mut dw] = [g.len(), x.len(), w.len()].map(|len| vec![junk; len]);
    let out = d.check("test", x.len(), w.len(), g.len());
    if check_telling(&mut y, d.co, |y, listener| forward(kernels, par, d, out, &x, &w, y, Then::Tell(listener))) {
        check_giving(&y, d.n, |taker| forward(kernels, par, d, out, &x, &w, &mut [], Then::Give(taker)));
    }
    input_grad(kernels, par, d, out, &g, &w, &mut dx);
    weight_grad(kernels, par, d, out, &x, &g, &mut dw);
    [y, dx, dw]
}

/// [`run`] on a pool of so many threads.
fn on<T: Real>(threads: usize, isa: Isa, d: &ConvDims, x: &[f64], w: &[f64], g: &[f64]) -> [Vec<T>; 3] {
    pool(threads).install(|| run(isa, Par::Rayon, d, x, w, g))
}

/// Every element type and instruction set against the definition, and one thread against several.
fn check(d: &ConvDims) {
    let [oh, ow] = d.out_hw().unwrap();
    let x = noise(d.n * d.hw[0] * d.hw[1] * d.ci, 1);
    let w = noise(d.taps() * d.group_ci() * d.co, 2);
    let g = noise(d.n * oh * ow * d.co, 3);
    let expected = naive(d, &x, &w, &g);
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        // Rows are cut by the number of threads.
        for threads in [3, 16] {
            compare::<f32>(&run(isa, Par::Seq, d, &x, &w, &g), &on(threads, isa, d, &x, &w, &g), &expected, d, isa);
            compare::<f64>(&run(isa, Par::Seq, d, &x, &w, &g), &on(threads, isa, d, &x, &w, &g), &expected, d, isa);
        }
    }
}

fn compare<T: Real>(seq: &[Vec<T>; 3], rayon: &[Vec<T>; 3], expected: &[Vec<f64>; 3], d: &ConvDims, isa: Isa) {
    for (what, ((seq, rayon), expected)) in ["y", "dx", "dw"].iter().zip(seq.iter().zip(rayon).zip(expected)) {
        assert!(
            bytemuck::cast_slice::<T, u8>(seq) == bytemuck::cast_slice::<T, u8>(rayon),
            "{what} depends on threads for {isa:?} {d:?}"
        );
        // Sums of up to `terms` products of magnitude below 1.
        let terms = (d.n * d.hw[0] * d.hw[1]).max(d.taps() * d.ci.max(d.co)) as f64;
        let tolerance = T::EPSILON.to_f64() * (8.0 + terms.powf(1.5));
        for (i, (&got, &want)) in seq.iter().zip(expected).enumerate() {
            assert!((got.to_f64() - want).abs() <= tolerance, "{what}[{i}] = {got}, not {want}, for {isa:?} {d:?}");
        }
    }
}

pub(super) fn dims(n: usize, hw: usize, ci: usize, co: usize, kernel: usize, stride: usize, pad: usize) -> ConvDims {
    ConvDims {
        n,
        hw: [hw, hw],
        ci,
        co,
        kernel: [kernel, kernel],
        stride: [stride, stride],
        pad: [[pad, pad], [pad, pad]],
        dilation: [1, 1],
        groups: 1,
    }
}

#[test]
fn layers_of_the_networks_in_use() {
    for d in [
        dims(3, 28, 1, 64, 3, 1, 1),
        dims(2, 14, 64, 64, 3, 1, 1),
        dims(5, 7, 64, 64, 3, 1, 1),
        dims(7, 3, 64, 64, 3, 1, 1),
        dims(2, 28, 64, 1, 3, 1, 1),
        dims(2, 14, 32, 48, 4, 2, 1),
        dims(3, 7, 64, 128, 3, 2, 1),
        dims(2, 9, 3, 64, 5, 2, 2),
        dims(2, 6, 64, 70, 1, 1, 0),
        dims(1, 1, 65, 3, 1, 1, 0),
        ConvDims { groups: 16, ..dims(2, 8, 16, 32, 3, 1, 1) },
        ConvDims { pad: [[1, 2], [1, 2]], ..dims(2, 8, 8, 16, 4, 1, 0) },
        ConvDims { pad: [[0, 1], [0, 1]], ..dims(2, 14, 64, 16, 3, 2, 0) },
    ] {
        check(&d);
    }
}

#[test]
fn small_maps_of_many_images() {
    for d in [
        dims(13, 7, 17, 33, 3, 2, 1),
        dims(9, 3, 5, 20, 5, 1, 2),
        dims(14, 2, 20, 64, 3, 3, 2),
        dims(16, 1, 3, 17, 3, 2, 1),
        dims(12, 14, 3, 16, 4, 2, 1),
        ConvDims { groups: 2, pad: [[0, 1], [1, 0]], ..dims(8, 4, 12, 34, 3, 2, 0) },
        ConvDims { dilation: [2, 1], hw: [4, 6], ..dims(20, 0, 18, 16, 3, 1, 2) },
    ] {
        check(&d);
    }
}

#[test]
fn panels_of_the_weights_are_added_up() {
    // 9 x 300 x 64 weights exceed one panel.
    check(&dims(1, 5, 300, 64, 3, 1, 1));
}

#[test]
fn threads_change_no_bit_where_blocks_are_copied_and_others_not() {
    // A column of cells, whose copied pixels are as wide as the taps and whose others are not, and weights of several panels.
    let d = ConvDims { hw: [400, 6], pad: [[2, 2], [0, 0]], stride: [1, 2], ..dims(1, 0, 64, 64, 5, 1, 0) };
    check(&d);
}

#[test]
fn more_channels_than_a_tile_is_wide() {
    for d in [
        // Enough cells to pack the weights; rows of pixels so short that they are gathered; the last panel in part.
        dims(11, 14, 9, 70, 5, 2, 2),
        dims(4, 27, 8, 130, 3, 2, 0),
        ConvDims { hw: [101, 27], ..dims(2, 0, 8, 66, 3, 2, 0) },
        ConvDims { dilation: [2, 1], ..dims(6, 24, 7, 65, 3, 2, 1) },
        // Turned weights in panels, also those of groups.
        dims(2, 9, 70, 8, 3, 2, 1),
        ConvDims { groups: 2, ..dims(12, 13, 140, 140, 3, 2, 1) },
    ] {
        check(&d);
    }
}

#[test]
fn an_empty_batch_gives_empty_images_and_zero_weights() {
    check(&dims(0, 5, 4, 4, 3, 1, 1));
    check(&dims(2, 5, 0, 4, 3, 1, 1));
    check(&dims(2, 5, 4, 0, 3, 1, 1));
    // An image of no pixels has an output all the same, of its padding alone.
    for (ci, co) in [(2, 2), (4, 64), (64, 4), (64, 64)] {
        check(&dims(2, 0, ci, co, 3, 1, 2));
        check(&ConvDims { hw: [0, 9], ..dims(2, 9, ci, co, 3, 1, 2) });
        check(&ConvDims { hw: [9, 0], stride: [2, 2], ..dims(2, 9, ci, co, 3, 1, 2) });
    }
}

#[test]
fn impossible_shapes_have_no_output() {
    assert_eq!(dims(1, 2, 1, 1, 3, 1, 0).out_hw(), None);
    assert_eq!(dims(1, 2, 1, 1, 0, 1, 0).out_hw(), None);
    assert_eq!(dims(1, 2, 1, 1, 1, 0, 0).out_hw(), None);
    assert_eq!(ConvDims { dilation: [0, 1], ..dims(1, 2, 1, 1, 1, 1, 0) }.out_hw(), None);
    assert_eq!(dims(1, 28, 1, 1, 4, 2, 1).out_hw(), Some([14, 14]));
}

fn check_adjoint(d: &ConvDims) {
    let [oh, ow] = d.out_hw().unwrap();
    let x = noise(d.n * d.hw[0] * d.hw[1] * d.ci, 4);
    let w = noise(d.taps() * d.group_ci() * d.co, 5);
    let g = noise(d.n * oh * ow * d.co, 6);
    let [mut y, mut dx, mut dw] = [g.len(), x.len(), w.len()].map(|len| vec![f64::NAN; len]);
    conv(Par::Seq, d, &x, &w, &mut y);
    conv_input_grad(Par::Seq, d, &g, &w, &mut dx);
    conv_weight_grad(Par::Seq, d, &x, &g, &mut dw);
    let inner = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let value = inner(&y, &g);
    let scale = 1e-13 * (1.0 + y.iter().map(|v| v.abs()).sum::<f64>());
    assert!((inner(&x, &dx) - value).abs() <= scale, "{d:?}");
    assert!((inner(&w, &dw) - value).abs() <= scale, "{d:?}");
}

#[test]
fn whichever_way_is_taken_the_passes_are_adjoint() {
    for d in [
        // By tiles of each size.
        dims(6, 6, 64, 48, 3, 1, 1),
        dims(9, 3, 48, 64, 3, 1, 1),
        dims(4, 14, 33, 65, 3, 1, 2),
        dims(6, 14, 32, 48, 4, 2, 1),
        ConvDims { pad: [[1, 2], [1, 2]], ..dims(8, 7, 64, 80, 4, 2, 0) },
        // By position.
        dims(16, 7, 24, 40, 3, 2, 1),
        // Few channels on either side.
        dims(3, 14, 1, 32, 3, 1, 1),
        dims(3, 14, 32, 1, 3, 1, 1),
    ] {
        check_adjoint(&d);
    }
}

prop_compose! {
    fn any_dims()(
        n in prop_oneof![0..4usize, 6..15usize],
        hw in [1..9usize, 1..9usize],
        channels in (0..20usize, 0..20usize, 1..3usize),
        kernel in [1..5usize, 1..5usize],
        stride in [1..4usize, 1..4usize],
        pad in [[0..4usize, 0..4usize], [0..4usize, 0..4usize]],
        dilation in [1..4usize, 1..4usize],
    ) -> ConvDims {
        let (ci, co, groups) = channels;
        ConvDims { n, hw, ci: ci * groups, co: co * groups, kernel, stride, pad, dilation, groups }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_the_definition(d in any_dims()) {
        prop_assume!(d.out_hw().is_some());
        check(&d);
    }

    #[test]
    fn the_three_passes_are_adjoint(d in any_dims()) {
        prop_assume!(d.out_hw().is_some());
        check_adjoint(&d);
    }
}
