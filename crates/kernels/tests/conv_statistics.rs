//! Statistics taken while a convolution is computed, against the convolution and the statistics one after the other, bit for bit.

mod common;

use common::{alone, bits, noise};
use metaforge_kernels::simd::{Isa, force_isa};
use metaforge_kernels::{ConvDims, Par, Real, conv, conv_statistics, statistics};
use proptest::prelude::*;

fn dims(n: usize, hw: [usize; 2], [ci, co]: [usize; 2], k: usize, stride: usize) -> ConvDims {
    ConvDims {
        n,
        hw,
        ci,
        co,
        kernel: [k; 2],
        stride: [stride; 2],
        pad: [[(k - 1) / 2, k / 2]; 2],
        dilation: [1; 2],
        groups: 1,
    }
}

fn compare<T: Real>(dims: &ConvDims, par: Par) {
    assert!(dims.comes_with_statistics::<T>(), "{dims:?}");
    let [h, w] = dims.out_hw().unwrap();
    let (c, pixels) = (dims.co, dims.n * h * w);
    let x = noise::<T>(dims.n * dims.hw[0] * dims.hw[1] * dims.ci, 1);
    let weights = noise::<T>(dims.kernel[0] * dims.kernel[1] * dims.ci / dims.groups * c, 2);
    let eps = 1e-5;
    let (mut y, [mut mean, mut rstd]) = (vec![T::ZERO; pixels * c], [(); 2].map(|()| vec![T::ZERO; c]));
    conv(Par::Seq, dims, &x, &weights, &mut y);
    statistics(Par::Seq, &y, 1, pixels, c, eps, &mut mean, &mut rstd);
    let (mut z, [mut mean_of, mut rstd_of]) = (vec![T::ONE; pixels * c], [(); 2].map(|()| vec![T::ONE; c]));
    conv_statistics(par, dims, &x, &weights, eps, &mut z, &mut mean_of, &mut rstd_of);
    assert!(bits(&y) == bits(&z), "{dims:?}");
    assert_eq!([bits(&mean), bits(&rstd)], [bits(&mean_of), bits(&rstd_of)], "{dims:?}");
}

#[test]
fn the_bits_are_those_of_one_after_the_other() {
    let _alone = alone();
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            for isa in Isa::ALL {
                if !force_isa(Some(isa)) {
                    continue;
                }
                for d in [
                    // Directly: few terms; several rows of an image a block, several images a block; groups.
                    dims(19, [28, 28], [1, 64], 3, 1),
                    dims(2, [200, 200], [3, 17], 3, 1),
                    dims(40, [24, 20], [8, 48], 5, 2),
                    ConvDims { groups: 2, ..dims(40, [14, 14], [6, 36], 3, 1) },
                    // By Winograd's algorithm: tiles that end within an image, or a row of tiles; weights of several panels, phases, large weights.
                    dims(17, [14, 14], [64, 64], 3, 1),
                    dims(3, [29, 31], [32, 80], 3, 1),
                    dims(24, [14, 14], [16, 96], 4, 2),
                    dims(7, [14, 14], [160, 192], 3, 1),
                    dims(40, [14, 14], [64, 128], 3, 2),
                ] {
                    compare::<f32>(&d, Par::Rayon);
                    compare::<f64>(&d, Par::Seq);
                }
            }
            force_isa(None);
        });
    }
}

#[test]
fn what_is_small_or_goes_another_way_comes_without() {
    let layer = dims(80, [14, 14], [64, 64], 3, 1);
    assert!(layer.comes_with_statistics::<f32>() && layer.comes_with_statistics::<f64>());
    assert!(dims(64, [14, 14], [64, 128], 3, 2).comes_with_statistics::<f32>());
    for other in [
        // One block, one of many columns, one column, no image.
        ConvDims { n: 2, ..layer },
        ConvDims { n: 1, hw: [7, 7], co: 2048, ..layer },
        ConvDims { n: 2000, co: 1, ..layer },
        ConvDims { n: 0, ..layer },
        // By position, thin, by Winograd's algorithm at stride 2 with more transformed weights than pixels.
        ConvDims { n: 400, hw: [2, 2], ci: 3, ..layer },
        ConvDims { n: 400, co: 2, ..layer },
        dims(64, [7, 7], [128, 256], 3, 2),
    ] {
        assert!(!other.comes_with_statistics::<f32>(), "{other:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_shape_gives_the_same_bits(
        (n, hw) in (20..60usize, [6..24usize, 6..24usize]),
        channels in [1..40usize, 20..100usize],
        (k, stride) in prop_oneof![Just((3, 1)), Just((3, 1)), Just((4, 2)), Just((5, 2)), Just((1, 1))],
    ) {
        let d = dims(n, hw, channels, k, stride);
        let _alone = alone();
        prop_assume!(d.comes_with_statistics::<f32>() && d.comes_with_statistics::<f64>());
        compare::<f32>(&d, Par::Seq);
        compare::<f64>(&d, Par::Rayon);
    }
}
