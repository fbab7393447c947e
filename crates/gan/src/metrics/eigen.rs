//! Eigenvalues of symmetric matrices by Jacobi's rotations: slow beyond a few hundred rows, simple and accurate.

/// Eigenvalues of the symmetric `a` `[n, n]`, and the matrix `[n, n]` whose row `i` is the eigenvector of value `i`.
pub(super) fn symmetric(mut a: Vec<f64>, n: usize) -> (Vec<f64>, Vec<f64>) {
    let mut vectors = vec![0.0; n * n];
    (0..n).for_each(|i| vectors[i * n + i] = 1.0);
    let total: f64 = a.iter().map(|v| v * v).sum();
    // Convergence is quadratic once the matrix is nearly diagonal; a dozen sweeps do for any matrix seen in practice.
    for _ in 0..64 {
        let off: f64 = (0..n).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| a[i * n + j].powi(2)).sum();
        if off <= 1e-30 * total {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                rotate(&mut a, &mut vectors, n, p, q);
            }
        }
    }
    ((0..n).map(|i| a[i * n + i]).collect(), vectors)
}

/// Makes entry `(p, q)` zero by a rotation in its plane.
fn rotate(a: &mut [f64], vectors: &mut [f64], n: usize, p: usize, q: usize) {
    let apq = a[p * n + q];
    if apq == 0.0 {
        return;
    }
    let theta = (a[q * n + q] - a[p * n + p]) / (2.0 * apq);
    let t = theta.signum() / (theta.abs() + theta.hypot(1.0));
    let c = 1.0 / t.hypot(1.0);
    let s = t * c;
    for k in 0..n {
        let (x, y) = (a[k * n + p], a[k * n + q]);
        a[k * n + p] = c * x - s * y;
        a[k * n + q] = s * x + c * y;
    }
    for m in [a, vectors] {
        let (head, tail) = m.split_at_mut(q * n);
        for (x, y) in head[p * n..][..n].iter_mut().zip(&mut tail[..n]) {
            (*x, *y) = (c * *x - s * *y, s * *x + c * *y);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use metaforge_autodiff::Key;

    #[test]
    fn the_parts_make_the_whole() {
        let n = 23;
        let z = Key::new(5).normal([n, n], 0.0, 1.0).to_f64_vec();
        let a: Vec<f64> = (0..n * n).map(|i| z[i] + z[i % n * n + i / n]).collect();
        let (values, vectors) = symmetric(a.clone(), n);
        for i in 0..n {
            for j in 0..n {
                let back: f64 = (0..n).map(|k| vectors[k * n + i] * values[k] * vectors[k * n + j]).sum();
                assert!((back - a[i * n + j]).abs() < 1e-11);
                let unit: f64 = (0..n).map(|k| vectors[i * n + k] * vectors[j * n + k]).sum();
                assert!((unit - f64::from(i == j)).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn diagonal_and_rank_deficient_matrices() {
        assert_eq!(symmetric(vec![3.0, 0.0, 0.0, -1.0], 2).0, [3.0, -1.0]);
        let (mut values, _) = symmetric(vec![1.0; 9], 3);
        values.sort_by(f64::total_cmp);
        assert!(values[0].abs() < 1e-15 && values[1].abs() < 1e-15 && (values[2] - 3.0).abs() < 1e-14);
        assert_eq!(symmetric(vec![0.0; 4], 2).0, [0.0, 0.0]);
    }
}
