//! Matrix products against naive loops in f64, threads, instruction sets.

use super::*;
use crate::arena::Buffer;
use crate::finish::Base;
use crate::microkernel::kernels_of;
use crate::par::pool;
use crate::simd::Isa;
use proptest::prelude::*;

fn noise(len: usize, seed: usize) -> Vec<f64> {
    // Multiples of 1/512 are exact in f32.
    (0..len).map(|i| ((i * 7919 + seed * 104_729) % 1021) as f64 / 512.0 - 1.0).collect()
}

fn naive(d: &MatMulDims, a: &[f64], b: &[f64]) -> Vec<f64> {
    // Element (row, col) of matrix `i` of an operand.
    let at = |i: usize, shared: bool, [rows, cols]: [usize; 2], row: usize, col: usize| match (shared, d.interleaved) {
        (true, _) => row * cols + col,
        (false, false) => (i * rows + row) * cols + col,
        (false, true) => (row * d.batch + i) * cols + col,
    };
    let mut out = vec![0.0; d.batch * d.m * d.n];
    for batch in 0..d.batch {
        for i in 0..d.m {
            for j in 0..d.n {
                let term = |p: usize| {
                    let a_at = if d.ta {
                        at(batch, d.a_shared, [d.k, d.m], p, i)
                    } else {
                        at(batch, d.a_shared, [d.m, d.k], i, p)
                    };
                    let b_at = if d.tb {
                        at(batch, d.b_shared, [d.n, d.k], j, p)
                    } else {
                        at(batch, d.b_shared, [d.k, d.n], p, j)
                    };
                    a[a_at] * b[b_at]
                };
                out[at(batch, false, [d.m, d.n], i, j)] = (0..d.k).map(term).sum();
            }
        }
    }
    out
}

fn compare<T: Real>(d: &MatMulDims) {
    let a = noise(if d.a_shared { 1 } else { d.batch } * d.m * d.k, 1);
    let b = noise(if d.b_shared { 1 } else { d.batch } * d.n * d.k, 2);
    let expected = naive(d, &a, &b);
    let to = |v: &[f64]| v.iter().map(|&v| T::from_f64(v)).collect::<Vec<T>>();
    let (a, b) = (to(&a), to(&b));
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        let run = |par| {
            let mut out = vec![T::from_f64(f64::NAN); expected.len()];
            product(kernels_of::<T>(isa), par, d, &a, &b, None, &mut out);
            out
        };
        let seq = run(Par::Seq);
        for threads in [3, 16] {
            let rayon = pool(threads).install(|| run(Par::Rayon));
            assert!(
                bytemuck::cast_slice::<T, u8>(&seq) == bytemuck::cast_slice::<T, u8>(&rayon),
                "{threads} threads matter for {isa:?} {d:?}"
            );
        }
        let tolerance = T::EPSILON.to_f64() * (4.0 + (d.k as f64).powf(1.5));
        for (i, (got, want)) in seq.iter().zip(&expected).enumerate() {
            assert!((got.to_f64() - want).abs() <= tolerance, "out[{i}] = {got}, not {want}, for {isa:?} {d:?}");
        }
    }
}

fn check(d: &MatMulDims) {
    compare::<f32>(d);
    compare::<f64>(d);
}

#[test]
fn the_rows_of_one_column_lie_side_by_side_or_apart() {
    for interleaved in [false, true] {
        check(&MatMulDims { batch: 7, interleaved, ta: true, ..MatMulDims::new(40, 1, 10) });
        check(&MatMulDims { batch: 3, interleaved, ta: true, ..MatMulDims::new(70, 1, 1) });
        check(&MatMulDims { batch: 3, interleaved, ta: true, ..MatMulDims::new(40, 1, 130) });
    }
}

/// What has a side of one is computed for all of a batch at once, if the rows of its products lie side by side.
#[test]
fn a_product_is_the_same_alone_and_in_a_thin_batch() {
    fn check<T: Real>(isa: Isa, d: &MatMulDims, scale: f64) {
        let to = |v: &[f64]| v.iter().map(|&v| T::from_f64(v * scale)).collect::<Vec<T>>();
        let MatMulDims { batch, m, n, k, .. } = *d;
        let (a, b) = (to(&noise(batch * m * k, 1)), to(&noise(batch * k * n, 2)));
        let mut all = vec![T::from_f64(f64::NAN); batch * m * n];
        product(kernels_of::<T>(isa), Par::Seq, d, &a, &b, None, &mut all);
        let mut alone = vec![T::from_f64(f64::NAN); batch * m * n];
        let out = SendPtr::new(&mut alone);
        // SAFETY: `alone` has the batch's results, and nobody else uses it meanwhile.
        (0..batch).for_each(|i| unsafe { single(kernels_of::<T>(isa), Par::Seq, d, i, [&a, &b], out) });
        assert!(bytemuck::cast_slice::<T, u8>(&all) == bytemuck::cast_slice::<T, u8>(&alone), "{d:?} on {isa:?}");
    }
    let sizes =
        [[10, 40, 1], [10, 1, 40], [1, 40, 10], [1, 21, 128], [17, 5, 1], [17, 1, 1], [1, 9, 1], [1, 1, 19], [1; 3]];
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        for (ta, tb) in [(false, false), (true, false), (false, true), (true, true)] {
            for [m, n, k] in sizes {
                for batch in [2, 7] {
                    let d = MatMulDims { batch, ta, tb, interleaved: true, ..MatMulDims::new(m, n, k) };
                    assert_eq!(thin::is_thin(&d), k == 1 || n == 1 || !tb, "{d:?}");
                    check::<f32>(isa, &d, 1.0 / 3.0);
                    check::<f64>(isa, &d, 1.0 / 3.0);
                    // Terms that vanish, some of them below zero.
                    check::<f32>(isa, &d, 1e-25);
                    check::<f64>(isa, &d, 1e-170);
                }
            }
        }
    }
    for [m, n, k] in [[3, 1, 129], [4097, 1, 1], [2, 2, 2]] {
        assert!(!thin::is_thin(&MatMulDims { batch: 7, interleaved: true, ..MatMulDims::new(m, n, k) }));
    }
}

/// A column may fall into a whole register, a part of one, or a half, and into a flat tile.
#[test]
fn how_many_columns_there_are_changes_no_bit() {
    fn check<T: Real>(isa: Isa, [m, k]: [usize; 2], numbers: impl Iterator<Item = usize>) {
        let all = 80;
        let to = |v: &[f64]| v.iter().map(|&v| T::from_f64(v / 3.0)).collect::<Vec<T>>();
        let (a, b) = (to(&noise(m * k, 1)), to(&noise(k * all, 2)));
        let of = |n: usize| {
            let b: Vec<T> = b.chunks(all).flat_map(|row| &row[..n]).copied().collect();
            let mut out = vec![T::from_f64(f64::NAN); m * n];
            product(kernels_of::<T>(isa), Par::Seq, &MatMulDims::new(m, n, k), &a, &b, None, &mut out);
            out
        };
        let want = of(all);
        for n in numbers {
            for (row, want) in of(n).chunks(n).zip(want.chunks(all)) {
                let [row, want] = [row, &want[..n]].map(bytemuck::cast_slice::<T, u8>);
                assert!(row == want, "{m} rows, {n} columns, {isa:?}");
            }
        }
    }
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        // A single column is another kernel's, with the lanes along k.
        check::<f32>(isa, [17, 21], 2..80);
        check::<f64>(isa, [17, 21], 2..80);
        // In two sweeps, the second of which adds to what is there.
        check::<f32>(isa, [60, 2100], [68, 72, 76].into_iter());
        check::<f64>(isa, [60, 2100], [68, 72, 76].into_iter());
    }
}

/// By every way that a product is computed.
#[test]
fn finished_products_have_the_bits_of_the_steps() {
    #[cfg(target_arch = "x86_64")]
    type Fused = pulp::x86::V3;
    #[cfg(not(target_arch = "x86_64"))]
    type Fused = pulp::Scalar128b;
    fn check<T: Real>(isa: Isa, d: &MatMulDims) {
        let to = |v: Vec<f64>| v.iter().map(|&v| T::from_f64(v / 3.0)).collect::<Vec<T>>();
        let MatMulDims { batch, m, n, k, .. } = *d;
        let a = to(noise(if d.a_shared { 1 } else { batch } * m * k, 1));
        let b = to(noise(if d.b_shared { 1 } else { batch } * k * n, 2));
        let mut data = to(noise(batch * m * n, 3));
        let odd = [f64::NAN, -0.0, f64::INFINITY, f64::NEG_INFINITY].map(T::from_f64);
        data.iter_mut().step_by(3).zip(odd).for_each(|(x, odd)| *x = odd);
        let run = |par, finish: Option<&Finish<'_, T>>| {
            let mut out = vec![T::from_f64(f64::NAN); batch * m * n];
            product(kernels_of::<T>(isa), par, d, &a, &b, finish, &mut out);
            out
        };
        let bare = run(Par::Seq, None);
        let [scale, shift] = [-0.01, 0.3].map(T::from_f64);
        let affine = |x: T| match isa {
            Isa::Portable => scale.fma::<pulp::Scalar128b>(x, shift),
            Isa::Avx2 | Isa::Avx512 => scale.fma::<Fused>(x, shift),
        };
        // Nothing, a bias, one of each product's own, a matrix that they share, and numbers of each element's own.
        let own = if d.interleaved { [batch * n, n] } else { [n, m * n] };
        let strides = [None, Some([0, 0]), Some([0, n]), Some([n, 0]), Some(own)];
        let endings = (0..8).map(|i| [i & 1, i & 2, i & 4].map(|flag| flag > 0));
        for (stride, [is_affine, minus, relu]) in strides.iter().flat_map(|s| endings.clone().map(move |e| (s, e))) {
            let base = stride.map(|[row, batch]| Base { data: &data, minus, row, batch });
            let finish = Finish { affine: is_affine.then_some([scale, shift]), base, relu };
            let want = |(at, &x): (usize, &T)| {
                let (line, col) = (at / n, at % n);
                let (i, r) = if d.interleaved { (line % batch, line / batch) } else { (line / m, line % m) };
                let x = if is_affine { affine(x) } else { x };
                let x = match base.map(|base| base.data[i * base.batch + r * base.row + col]) {
                    Some(base) if minus => base - x,
                    Some(base) => base + x,
                    None => x,
                };
                if relu && x <= T::ZERO { T::ZERO } else { x }
            };
            let want: Vec<T> = bare.iter().enumerate().map(want).collect();
            let bytes = |x: &[T]| bytemuck::cast_slice::<T, u8>(x).to_vec();
            assert!(bytes(&run(Par::Seq, Some(&finish))) == bytes(&want), "{d:?}, {finish:?}, {isa:?}");
            if want.len() > 1 << 16 {
                let shared = pool(3).install(|| run(Par::Rayon, Some(&finish)));
                assert!(bytes(&shared) == bytes(&want), "{d:?}, {finish:?}, {isa:?} on three threads");
            }
        }
    }
    let mut all = Vec::new();
    let sizes = [[10, 40, 40], [7, 37, 9], [10, 40, 1], [10, 1, 40], [1, 40, 10], [3, 5, 8], [13, 24, 3]];
    for [m, n, k] in sizes.into_iter().chain([[2, 9, 0], [2, 0, 9], [0, 2, 9]]) {
        for (ta, tb) in [(false, false), (true, false), (false, true)] {
            for interleaved in [false, true] {
                let d = MatMulDims { batch: 3, ta, tb, interleaved, ..MatMulDims::new(m, n, k) };
                all.extend([d, MatMulDims { b_shared: true, ..d }, MatMulDims { a_shared: true, ..d }]);
            }
        }
    }
    all.push(MatMulDims { batch: 2, a_shared: true, b_shared: true, ..MatMulDims::new(5, 6, 7) });
    all.push(MatMulDims { batch: 0, ..MatMulDims::new(5, 6, 7) });
    // From panels, in two sweeps, and of more elements than a thread takes.
    all.push(MatMulDims::new(200, 195, 300));
    all.push(MatMulDims::new(60, 72, 2100));
    all.push(MatMulDims::new(700, 130, 3));
    all.push(MatMulDims { batch: 1, ta: true, ..MatMulDims::new(700, 130, 3) });
    all.push(MatMulDims { batch: 2, interleaved: true, ta: true, ..MatMulDims::new(700, 130, 3) });
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        for d in &all {
            check::<f32>(isa, d);
            check::<f64>(isa, d);
        }
    }
}

#[test]
#[should_panic(expected = "9 numbers to add to")]
fn too_few_numbers_to_add_to_are_refused() {
    let base = Base { data: &[0.0; 9], minus: false, row: 5, batch: 0 };
    let finish = Finish { affine: None, base: Some(base), relu: false };
    matmul_finished(Par::Seq, &MatMulDims::new(2, 5, 3), &[0.0_f32; 6], &[0.0; 15], &finish, &mut [0.0; 10]);
}

#[test]
#[should_panic(expected = "40 numbers to add to")]
fn a_distance_that_wraps_is_refused() {
    let base = Base { data: &[0.0; 40], minus: false, row: 1 << 60, batch: 0 };
    let finish = Finish { affine: None, base: Some(base), relu: false };
    matmul_finished(Par::Seq, &MatMulDims::new(17, 5, 1), &[0.0_f32; 17], &[0.0; 5], &finish, &mut [0.0; 85]);
}

#[test]
fn large_products_are_packed_and_split() {
    for (ta, tb) in [(false, false), (true, false), (false, true), (true, true)] {
        check(&MatMulDims { ta, tb, ..MatMulDims::new(200, 195, 300) });
        // More terms than a sweep has.
        check(&MatMulDims { ta, tb, ..MatMulDims::new(60, 70, 2100) });
    }
    for interleaved in [false, true] {
        check(&MatMulDims { batch: 9, interleaved, ..MatMulDims::new(64, 64, 64) });
        check(&MatMulDims { batch: 2, interleaved, ta: true, ..MatMulDims::new(200, 195, 200) });
    }
    check(&MatMulDims::new(3, 900, 500));
    check(&MatMulDims { tb: true, ..MatMulDims::new(3, 900, 500) });
    check(&MatMulDims { tb: true, ..MatMulDims::new(2000, 1, 700) });
}

#[test]
fn where_an_operand_lies_changes_no_bit() {
    for k in [256, 1100] {
        let d = MatMulDims::new(200, 192, k);
        let mut numbers = Buffer::copy_of(&noise(d.k * d.n + 1, 2).iter().map(|&x| x as f32).collect::<Vec<_>>());
        let a: Vec<f32> = noise(d.m * d.k, 1).iter().map(|&x| x as f32).collect();
        let run = |b: &[f32]| {
            let mut out = vec![f32::NAN; d.m * d.n];
            matmul(Par::Seq, &d, &a, b, &mut out);
            out
        };
        let on_lines = run(&numbers.as_slice::<f32>()[..d.k * d.n]);
        numbers.as_mut_slice::<f32>().copy_within(..d.k * d.n, 1);
        let between = run(&numbers.as_slice::<f32>()[1..]);
        assert!(on_lines.iter().zip(&between).all(|(x, y)| x.to_bits() == y.to_bits()), "{k} terms");
    }
}

#[test]
fn panels_change_no_bit_of_one_sweep() {
    let [m, n, k] = [100, 90, PANEL_K];
    let [a, b] =
        [(m * k, 1), (k * n, 2)].map(|(len, seed)| noise(len, seed).iter().map(|&x| x as f32).collect::<Vec<_>>());
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        let run = |is_packed: bool| {
            let mut sums = vec![f32::NAN; m * n];
            let (kernels, out) = (kernels_of(isa), SendPtr::new(&mut sums));
            let job = Job { kernels, m, n, k, a: &a, a_row: k, a_step: 1, b: &b, b_row: n, out, out_row: n };
            if is_packed {
                job.packed(Par::Seq)
            } else {
                job.direct([0, m], [0, n])
            }
            sums
        };
        assert!(run(true).iter().zip(&run(false)).all(|(x, y)| x.to_bits() == y.to_bits()), "{isa:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_the_definition(
        batch in 0..4usize,
        m in 0..30usize,
        n in 0..80usize,
        k in 0..40usize,
        flags in any::<[bool; 5]>(),
        ones in any::<[bool; 3]>(),
    ) {
        let [ta, tb, a_shared, b_shared, interleaved] = flags;
        let or_one = |size: usize, one: bool| if one { 1 } else { size };
        let [m, n, k] = [or_one(m, ones[0] && ones[1]), or_one(n, ones[1] && ones[2]), or_one(k, ones[2] && ones[0])];
        check(&MatMulDims { batch, ta, tb, a_shared, b_shared, interleaved, ..MatMulDims::new(m, n, k) });
    }
}
