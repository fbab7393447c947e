//! Gradient checks: derivatives against finite differences in f64, along random directions.

use rand::Rng;

use crate::aval::DType;
use crate::grad::vjp;
use crate::random::Key;
use crate::tape::{Tape, Var};
use crate::tensor::Tensor;

/// Checks the derivatives of `f` at `inputs` up to `order` (1 to 3) against central differences.
///
/// Each order is checked along one random direction: with a random cotangent, the derivative of `<c, f(x)>` along `v` must equal
/// `<vjp(c), v>`. The gradient that one order gives is the function that the next one checks. Inputs that are not floating point
/// are held fixed; floating-point ones must be `f64`.
///
/// # Errors
/// What differs: the order, the two numbers and the tolerance.
///
/// # Panics
/// If an input is `f32`, where finite differences say little.
pub fn check_grads<F>(f: F, inputs: &[Tensor], order: usize, tolerance: f64, key: Key) -> Result<(), String>
where
    F: for<'t> Fn(&[Var<'t>]) -> Vec<Var<'t>>,
{
    assert!(inputs.iter().all(|x| x.dtype() != DType::F32), "gradients are checked in f64");
    check(&f, inputs, 1, order, tolerance, key)
}

type Function<'f> = dyn for<'t> Fn(&[Var<'t>]) -> Vec<Var<'t>> + 'f;

fn check(f: &Function<'_>, inputs: &[Tensor], at: usize, order: usize, tolerance: f64, key: Key) -> Result<(), String> {
    let values = run(f, inputs);
    let cotangents: Vec<Tensor> = values.iter().enumerate().map(|(i, y)| random_like(y, key.fold(i as u64))).collect();
    let moving: Vec<usize> = (0..inputs.len()).filter(|&i| inputs[i].dtype().is_float()).collect();

    let directions: Vec<Tensor> = moving.iter().map(|&i| random_like(&inputs[i], key.fold(1000 + i as u64))).collect();
    let tape = Tape::eager();
    let xs: Vec<Var<'_>> = inputs.iter().map(|x| tape.var(x)).collect();
    let gradients = pull(f, &xs, &cotangents, &moving);
    let analytic: f64 = gradients.iter().zip(&directions).map(|(g, v)| dot(&g.value(), v)).sum();

    let along = |step: f64| -> f64 {
        let mut moved = inputs.to_vec();
        for (&i, v) in moving.iter().zip(&directions) {
            let sum = inputs[i].f64s().iter().zip(v.f64s()).map(|(x, v)| x + step * v).collect();
            moved[i] = Tensor::from_f64(inputs[i].shape(), sum);
        }
        run(f, &moved).iter().zip(&cotangents).map(|(y, c)| dot(y, c)).sum()
    };
    // Richardson's extrapolation of two central differences: the error falls with the fourth power of the step.
    let central = |h: f64| (along(h) - along(-h)) / (2.0 * h);
    let h = 1e-3;
    let numeric = (4.0 * central(h / 2.0) - central(h)) / 3.0;
    let scale = 1.0 + analytic.abs().max(numeric.abs());
    let differs = (analytic - numeric).abs() > tolerance * scale;
    if differs || !analytic.is_finite() {
        return Err(format!(
            "order {at}: the gradient gives {analytic}, differences give {numeric} (tolerance {tolerance})"
        ));
    }
    if at == order {
        return Ok(());
    }
    // The gradient, as a function of the same inputs, is what the next order checks.
    check(&|xs| pull(f, xs, &cotangents, &moving), inputs, at + 1, order, tolerance, key.fold(7777))
}

fn pull<'t>(f: &Function<'_>, xs: &[Var<'t>], cotangents: &[Tensor], moving: &[usize]) -> Vec<Var<'t>> {
    let ys = f(xs);
    let tape = xs[0].tape();
    let cs: Vec<Var<'t>> = cotangents.iter().map(|c| tape.constant(c)).collect();
    let targets: Vec<Var<'t>> = moving.iter().map(|&i| xs[i]).collect();
    vjp(&ys, &cs, &targets)
}

fn run(f: &Function<'_>, inputs: &[Tensor]) -> Vec<Tensor> {
    let tape = Tape::eager();
    let xs: Vec<Var<'_>> = inputs.iter().map(|x| tape.var(x)).collect();
    f(&xs).iter().map(|y| y.value()).collect()
}

/// Numbers uniform in [-1, 1] in the shape of `like`.
fn random_like(like: &Tensor, key: Key) -> Tensor {
    let mut rng = key.rng();
    Tensor::from_f64(like.shape(), (0..like.len()).map(|_| rng.random_range(-1.0..1.0)).collect())
}

fn dot(a: &Tensor, b: &Tensor) -> f64 {
    a.f64s().iter().zip(b.f64s()).map(|(a, b)| a * b).sum()
}
