//! Where parameters start: the usual distributions, by the numbers of inputs and outputs of a weight.

use metaforge_autodiff::{DType, Key, Shape, Tensor};
use ndarray_rand::rand::Rng;
use ndarray_rand::rand_distr::{Distribution, StandardNormal};
use serde::{Deserialize, Serialize};

/// How to draw a parameter. A weight is `[.., in, out]`; its fan-in is the number of inputs of one output (`KH * KW * in` for a
/// kernel), its fan-out the other way round.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Init {
    /// 0.
    Zeros,
    /// 1.
    Ones,
    /// A number.
    Constant(f64),
    /// Uniform in `[-bound, bound)`.
    Uniform {
        /// Half the width.
        bound: f64,
    },
    /// Normal around 0.
    Normal {
        /// Standard deviation.
        std: f64,
    },
    /// Normal around 0, drawn again until within two standard deviations; what comes out has 0.88 times the deviation given.
    TruncatedNormal {
        /// Standard deviation before the cut.
        std: f64,
    },
    /// Uniform with variance `2 / (fan_in + fan_out)` (Glorot and Bengio 2010).
    XavierUniform,
    /// Normal with variance `2 / (fan_in + fan_out)`.
    XavierNormal,
    /// Uniform with variance `2 / fan_in`, for rectifiers (He et al. 2015).
    KaimingUniform,
    /// Normal with variance `2 / fan_in`.
    KaimingNormal,
    /// PyTorch's default for linear layers and convolutions: uniform in `±1 / sqrt(fan_in)`.
    Torch,
    /// `gain` times a matrix `[.. * in, out]` with orthonormal columns, or rows if it is wide (Saxe et al. 2014).
    Orthogonal {
        /// Length of each column or row.
        gain: f64,
    },
}

impl Init {
    /// DCGAN's normal with standard deviation 0.02 (Radford et al. 2016).
    pub const DCGAN: Init = Init::Normal { std: 0.02 };

    /// An `f32` tensor of this shape.
    ///
    /// # Panics
    /// If a bound or deviation is not a positive number, or the rule needs a fan and the shape has less than two axes.
    #[track_caller]
    pub fn sample(&self, shape: impl Into<Shape>, key: Key) -> Tensor {
        let shape = shape.into();
        let uniform = |bound: f64| key.uniform(shape, -bound as f32, bound as f32);
        let normal = |std: f64| key.normal(shape, 0.0, std as f32);
        match *self {
            Init::Zeros => Tensor::zeros(shape, DType::F32),
            Init::Ones => Tensor::full(shape, 1.0, DType::F32),
            Init::Constant(value) => Tensor::full(shape, value, DType::F32),
            Init::Uniform { bound } => uniform(bound),
            Init::Normal { std } => normal(std),
            Init::TruncatedNormal { std } => key.sample(shape, Truncated { std }),
            Init::XavierUniform => uniform((6.0 / total(fans(&shape))).sqrt()),
            Init::XavierNormal => normal((2.0 / total(fans(&shape))).sqrt()),
            Init::KaimingUniform => uniform((6.0 / fans(&shape)[0]).sqrt()),
            Init::KaimingNormal => normal((2.0 / fans(&shape)[0]).sqrt()),
            Init::Torch => uniform((1.0 / fans(&shape)[0]).sqrt()),
            Init::Orthogonal { gain } => orthogonal(shape, gain, key),
        }
    }

    /// What PyTorch draws the bias of a weight of this shape from, if the weight's rule is PyTorch's; else zeros.
    pub(crate) fn bias(&self, weight: &[usize]) -> Init {
        match self {
            Init::Torch => Init::Uniform { bound: (1.0 / fans(weight)[0]).sqrt() },
            _ => Init::Zeros,
        }
    }
}

/// Fan-in and fan-out, at least 1 each.
#[track_caller]
fn fans(shape: &[usize]) -> [f64; 2] {
    let [window @ .., ins, outs] = shape else { panic!("a shape of {shape:?} has no fan-in") };
    let window: usize = window.iter().product();
    [ins, outs].map(|&n| (window * n).max(1) as f64)
}

fn total([fan_in, fan_out]: [f64; 2]) -> f64 {
    fan_in + fan_out
}

/// The normal distribution without what is beyond two deviations.
struct Truncated {
    std: f64,
}

impl Distribution<f32> for Truncated {
    fn sample<R: Rng + ?Sized>(&self, rng: &mut R) -> f32 {
        loop {
            let z: f64 = rng.sample(StandardNormal);
            if z.abs() <= 2.0 {
                return (z * self.std) as f32;
            }
        }
    }
}

/// Gram and Schmidt's process on a normal matrix, in f64 and twice, which makes it exact to rounding; the result is uniform over
/// the orthogonal matrices since the normal distribution has no direction.
#[track_caller]
fn orthogonal(shape: Shape, gain: f64, key: Key) -> Tensor {
    let Some((&cols, lead)) = shape.split_last() else { panic!("an orthogonal matrix of shape {shape}") };
    let rows: usize = lead.iter().product();
    // `count` vectors of `size` numbers, to be orthonormal.
    let (count, size) = (rows.min(cols), rows.max(cols));
    let drawn = key.normal([count, size], 0.0, 1.0).to_f64_vec();
    let mut basis: Vec<Vec<f64>> = Vec::with_capacity(count);
    for vector in drawn.chunks_exact(size.max(1)) {
        let mut vector = vector.to_vec();
        for _ in 0..2 {
            for earlier in &basis {
                let along = dot(&vector, earlier);
                vector.iter_mut().zip(earlier).for_each(|(v, e)| *v -= along * e);
            }
        }
        let length = dot(&vector, &vector).sqrt();
        vector.iter_mut().for_each(|v| *v /= length);
        basis.push(vector);
    }
    let at = |row: usize, col: usize| if rows >= cols { basis[col][row] } else { basis[row][col] };
    let numbers = (0..rows * cols).map(|i| (gain * at(i / cols, i % cols)) as f32).collect();
    Tensor::new(shape, numbers)
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mean, standard deviation and largest size of what is drawn for a kernel `[3, 3, 40, 50]`: fan-in 360, fan-out 450.
    fn moments(init: Init) -> [f64; 3] {
        let x = init.sample([3, 3, 40, 50], Key::new(11)).to_f64_vec();
        let n = x.len() as f64;
        let mean = x.iter().sum::<f64>() / n;
        let var = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
        [mean, var.sqrt(), x.iter().fold(0.0, |m, v| v.abs().max(m))]
    }

    #[test]
    fn moments_are_those_of_the_distribution() {
        let (fan_in, fan_out) = (360.0, 450.0);
        let xavier = (2.0f64 / (fan_in + fan_out)).sqrt();
        let kaiming = (2.0f64 / fan_in).sqrt();
        let uniform = 3f64.sqrt();
        for (init, std, bound) in [
            (Init::Uniform { bound: 0.5 }, 0.5 / uniform, 0.5),
            (Init::DCGAN, 0.02, f64::INFINITY),
            // Variance of the normal within two deviations: 1 - 4 phi(2) / (Phi(2) - Phi(-2)).
            (Init::TruncatedNormal { std: 0.1 }, 0.1 * 0.773_741_301f64.sqrt(), 0.2),
            (Init::XavierUniform, xavier, xavier * uniform),
            (Init::XavierNormal, xavier, f64::INFINITY),
            (Init::KaimingUniform, kaiming, kaiming * uniform),
            (Init::KaimingNormal, kaiming, f64::INFINITY),
            (Init::Torch, 1.0 / (3.0 * fan_in).sqrt(), 1.0 / fan_in.sqrt()),
        ] {
            let [mean, deviation, largest] = moments(init);
            let error = 5.0 / (18_000f64).sqrt();
            assert!(mean.abs() < error * std, "{init:?}: mean {mean}");
            assert!((deviation / std - 1.0).abs() < error, "{init:?}: deviation {deviation}, not {std}");
            assert!(largest <= bound * (1.0 + 1e-6), "{init:?}: {largest} is beyond {bound}");
        }
    }

    #[test]
    fn orthogonal_matrices_are() {
        for shape in [[3, 2, 5, 7], [1, 2, 3, 8]] {
            let tensor = Init::Orthogonal { gain: 2.0 }.sample(shape, Key::new(3));
            let (rows, cols) = (shape[0] * shape[1] * shape[2], shape[3]);
            let x = tensor.to_f64_vec();
            let wide = cols > rows;
            let at = |v: usize, i: usize| if wide { x[v * cols + i] } else { x[i * cols + v] };
            for a in 0..rows.min(cols) {
                for b in 0..rows.min(cols) {
                    let product: f64 = (0..rows.max(cols)).map(|i| at(a, i) * at(b, i)).sum();
                    let expected = if a == b { 4.0 } else { 0.0 };
                    assert!((product - expected).abs() < 1e-5, "{shape:?}: <{a}, {b}> = {product}");
                }
            }
        }
    }

    #[test]
    fn one_key_gives_one_tensor() {
        let init = Init::KaimingNormal;
        assert_eq!(init.sample([4, 5], Key::new(1)), init.sample([4, 5], Key::new(1)));
        assert_ne!(init.sample([4, 5], Key::new(1)), init.sample([4, 5], Key::new(2)));
    }
}
