use metaforge_kernels::*;
use std::hint::black_box;
use std::time::Instant;
fn t(name: &str, n: usize, mut f: impl FnMut()) {
    let s = Instant::now();
    f();
    let one = s.elapsed().as_nanos().max(20) as f64;
    let iters = ((20_000.0 / one) as usize).clamp(1, 1000);
    let mut best = f64::MAX;
    let s0 = Instant::now();
    while s0.elapsed().as_millis() < 120 {
        let s = Instant::now();
        for _ in 0..iters {
            f();
        }
        best = best.min(s.elapsed().as_nanos() as f64 / iters as f64);
    }
    println!("{name:45} {best:12.1} ns {:8.2} Gelem/s", n as f64 / best);
}
fn v(n: usize) -> Vec<f32> {
    let mut x = vec![0.0; n];
    uniform([1, 2], &mut x);
    x
}
fn main() {
    let n = 1 << 14;
    let (x, y) = (v(1 << 21), v(1 << 21));
    let mut o = vec![0f32; 1 << 21];
    let p = Par::Seq;
    let only = std::env::args().nth(1).unwrap_or_default();
    let go = |s: &str| only.is_empty() || s.contains(&only);
    if go("unary") {
        use Unary::*;
        for op in [
            Neg,
            Relu,
            LeakyRelu(0.2),
            Affine { scale: 2.0, shift: 1.0 },
            Sqrt,
            Rsqrt,
            Recip,
            Exp,
            Log,
            Tanh,
            Sigmoid,
            Softplus,
            Sin,
            Powf(1.7),
        ] {
            for n in [n, 125, 64, 5] {
                t(&format!("{op:?} {n}"), n, || unary(p, op, black_box(&x[..n]), &mut o[..n]));
            }
        }
        t("relu assign", n, || unary_assign(p, Relu, black_box(&mut o[..n])));
        t("exp assign", n, || unary_assign(p, Tanh, black_box(&mut o[..n])));
    }
    if go("binary") {
        use Binary::*;
        for n in [n, 64, 5] {
            t(&format!("add {n}"), n, || binary(p, Add, black_box(&x[..n]), &[1], &y[..n], &[1], &[n], &mut o[..n]));
            t(&format!("mul scalar {n}"), n, || {
                binary(p, Mul, black_box(&x[..n]), &[1], &y[..n], &[0], &[n], &mut o[..n])
            });
        }
        t("max", n, || binary(p, Max, black_box(&x[..n]), &[1], &y[..n], &[1], &[n], &mut o[..n]));
        t("gate", n, || binary(p, Gate(0.0), black_box(&x[..n]), &[1], &y[..n], &[1], &[n], &mut o[..n]));
        for (r, c) in [(25, 5), (3000, 5), (512, 32), (256, 64), (64, 256), (25, 64)] {
            let n = r * c;
            t(&format!("[{r},{c}] op [{c}]"), n, || {
                binary(p, Mul, black_box(&x[..n]), &[c, 1], &y, &[0, 1], &[r, c], &mut o[..n])
            });
            t(&format!("[{r},{c}] op [{r},1]"), n, || {
                binary(p, Mul, black_box(&x[..n]), &[c, 1], &y, &[1, 0], &[r, c], &mut o[..n])
            });
        }
        t("select", n, || select(p, black_box(&x[..n]), &[1], &x, &[1], &y, &[1], &[n], &mut o[..n]));
    }
    if go("sum") {
        for (s, r) in [
            (&[1usize << 14][..], &[true][..]),
            (&[100], &[true]),
            (&[5], &[true]),
            (&[25], &[true]),
            (&[1 << 20], &[true]),
            (&[256, 64], &[true, false]),
            (&[19600, 64], &[true, false]),
            (&[3000, 5], &[true, false]),
            (&[25, 5], &[true, false]),
            (&[25, 64], &[true, false]),
            (&[75, 1600], &[true, false]),
            (&[256, 64], &[false, true]),
            (&[3000, 5], &[false, true]),
            (&[25, 5], &[false, true]),
            (&[16, 1024], &[false, true]),
            (&[32, 16, 32], &[false, true, false]),
            (&[5, 5, 64], &[false, true, false]),
        ] {
            let n = s.iter().product();
            t(&format!("sum {s:?} {r:?}"), n, || {
                sum_axes(
                    p,
                    black_box(&x[..n]),
                    s,
                    r,
                    &mut o[..s.iter().zip(r).map(|(n, r)| if *r { 1 } else { *n }).product()],
                )
            });
        }
    }
    if go("norm") {
        for (a, r, c) in [
            (1, 980, 64),
            (1, 245, 64),
            (1, 19600, 64),
            (1, 3675, 32),
            (64, 256, 1),
            (16, 64, 1),
            (1, 25, 64),
            (25, 49, 32),
            (1, 3000, 3),
        ] {
            let n = a * r * c;
            t(&format!("rstd [{a},{r},{c}]"), n, || rstd(p, black_box(&x[..n]), a, r, c, 1e-5, &mut o[..a * c]));
            t(&format!("normalize [{a},{r},{c}]"), n, || normalize(p, black_box(&x[..n]), a, r, c, 1e-5, &mut o[..n]));
            t(&format!("normalize_grad [{a},{r},{c}]"), n, || {
                normalize_grad(p, black_box(&x[..n]), &y[..a * c], &y[..n], a, r, c, &mut o[..n])
            });
        }
    }
    if go("moves") {
        t("copy", n, || copy_strided(p, black_box(&x), 0, &[1], &[n], &mut o, 0, &[1]));
        t("copy 64", 64, || copy_strided(p, black_box(&x), 0, &[1], &[64], &mut o, 0, &[1]));
        for (r, c) in [(256isize, 64isize), (128, 128), (3000, 5), (25, 5), (2048, 1024)] {
            t(&format!("transpose {r} {c}"), (r * c) as usize, || {
                copy_strided(p, black_box(&x), 0, &[1, c], &[c as usize, r as usize], &mut o, 0, &[r, 1])
            });
        }
        t("nhwc->nchw 8 14x14 64", 8 * 196 * 64, || {
            copy_strided(p, black_box(&x), 0, &[196 * 64, 1, 64], &[8, 64, 196], &mut o, 0, &[196 * 64, 196, 1])
        });
        t("bcast row", n, || copy_strided(p, black_box(&x), 0, &[0, 1], &[256, 64], &mut o, 0, &[64, 1]));
        t("bcast col", n, || copy_strided(p, black_box(&x), 0, &[1, 0], &[256, 64], &mut o, 0, &[64, 1]));
        t("slice cols", n / 2, || copy_strided(p, black_box(&x), 16, &[64, 1], &[256, 32], &mut o, 0, &[32, 1]));
        t("pad 28x28x1 by 1", 16 * 784, || {
            copy_strided(p, black_box(&x), 0, &[784, 28, 1], &[16, 28, 28], &mut o, 31, &[900, 30, 1])
        });
        let idx: Vec<u32> = (0..n as u32).map(|i| i.wrapping_mul(2_654_435_761) % n as u32).collect();
        t("gather 1", n, || gather(p, black_box(&x[..n]), &idx, 1, n, n, 1, &mut o[..n]));
        t("scatter 1", n, || scatter_add(p, black_box(&x[..n]), &idx, 1, n, n, 1, &mut o[..n]));
        let idx: Vec<u32> = idx[..256].iter().map(|i| i % 256).collect();
        t("gather 64", n, || gather(p, black_box(&x[..n]), &idx, 1, 256, 256, 64, &mut o[..n]));
        t("scatter 64", n, || scatter_add(p, black_box(&x[..n]), &idx, 1, 256, 256, 64, &mut o[..n]));
        t("gather [25,5] take", 25, || {
            gather(
                p,
                black_box(&x[..125]),
                &idx.iter().map(|i| i % 5).collect::<Vec<_>>()[..25],
                25,
                5,
                1,
                1,
                &mut o[..25],
            )
        });
    }
    if go("rows") {
        let mut u = vec![0u32; 1 << 14];
        for (r, c) in [(25, 5), (3000, 5), (75, 20), (16, 1000), (5, 5)] {
            t(&format!("log_softmax {r} {c}"), r * c, || {
                log_softmax_rows(p, black_box(&x[..r * c]), r, c, &mut o[..r * c])
            });
            t(&format!("argmax {r} {c}"), r * c, || argmax_rows(p, black_box(&x[..r * c]), r, c, &mut u[..r]));
        }
        t("uniform", n, || uniform(black_box([1, 2]), &mut o[..n]));
    }
}
