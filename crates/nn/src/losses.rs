//! Losses: means over everything given unless said otherwise, of shape `[]`.

use metaforge_autodiff::{DType, Var};

/// Mean squared difference of two values that broadcast together.
#[track_caller]
pub fn mse<'t>(predicted: Var<'t>, target: Var<'t>) -> Var<'t> {
    (predicted - target).square().mean()
}

/// Mean absolute difference of two values that broadcast together.
#[track_caller]
pub fn l1<'t>(predicted: Var<'t>, target: Var<'t>) -> Var<'t> {
    (predicted - target).abs().mean()
}

/// Huber's loss: `d^2 / 2` where the difference `d` is at most `delta`, else `delta * (|d| - delta / 2)`.
#[track_caller]
pub fn huber<'t>(predicted: Var<'t>, target: Var<'t>, delta: f64) -> Var<'t> {
    let d = (predicted - target).abs();
    // With c = min(|d|, delta), both branches are c * (|d| - c / 2).
    let c = d.minimum(d.tape().scalar(delta, d.dtype()));
    (c * (d - c * 0.5)).mean()
}

/// Cross-entropy of `logits [.., C]` and the right classes `labels [..]` (`u32`).
///
/// # Panics
/// If the shapes do not fit; when it runs, if a label is `C` or more.
#[track_caller]
pub fn cross_entropy<'t>(logits: Var<'t>, labels: Var<'t>) -> Var<'t> {
    -logits.log_softmax().take_last(labels).mean()
}

/// Cross-entropy with a share `smoothing` of the target spread evenly over all classes (Szegedy et al. 2016), as PyTorch's
/// `label_smoothing`.
#[track_caller]
pub fn cross_entropy_smoothed<'t>(logits: Var<'t>, labels: Var<'t>, smoothing: f64) -> Var<'t> {
    let log = logits.log_softmax();
    log.take_last(labels).mean() * (smoothing - 1.0) - log.mean() * smoothing
}

/// Cross-entropy of `logits [.., C]` and a distribution `targets [.., C]` for each row.
#[track_caller]
pub fn cross_entropy_soft<'t>(logits: Var<'t>, targets: Var<'t>) -> Var<'t> {
    let rows = logits.shape().split_last().map_or(1, |(_, rows)| rows.iter().product::<usize>());
    (logits.log_softmax() * targets).sum() * (-1.0 / rows.max(1) as f64)
}

/// Binary cross-entropy of logits and targets in [0, 1]: `softplus(x) - x * y`, which never takes the logarithm of zero.
#[track_caller]
pub fn bce_with_logits<'t>(logits: Var<'t>, targets: Var<'t>) -> Var<'t> {
    (logits.softplus() - logits * targets).mean()
}

/// Share of the rows of `logits [.., C]` whose first maximum is at `labels [..]`; in the type of the logits, no gradient.
#[track_caller]
pub fn accuracy<'t>(logits: Var<'t>, labels: Var<'t>) -> Var<'t> {
    let guess = logits.argmax();
    assert!(guess.aval() == labels.aval(), "accuracy of {} against labels {}", logits.aval(), labels.aval());
    // Classes are compared as f64, which holds every u32.
    guess.cast(DType::F64).equal(labels.cast(DType::F64)).mean().cast(logits.dtype())
}

#[cfg(test)]
mod tests {
    use super::*;
    use metaforge_autodiff::{Tape, Tensor, grad};

    fn values(loss: impl for<'t> Fn(Var<'t>, Var<'t>) -> Var<'t>, x: &Tensor, y: &Tensor) -> f64 {
        let tape = Tape::eager();
        let loss = loss(tape.var(x), tape.constant(y));
        assert!(loss.shape().is_empty());
        loss.value().item()
    }

    #[track_caller]
    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-12 * (1.0 + b.abs()), "{a} is not {b}");
    }

    #[test]
    fn distances_by_hand() {
        let x = Tensor::from_f64([2, 2], vec![1.0, -2.0, 0.5, 4.0]);
        let y = Tensor::from_f64([2, 2], vec![1.5, 1.0, 0.5, 2.0]);
        close(values(mse, &x, &y), (0.25 + 9.0 + 0.0 + 4.0) / 4.0);
        close(values(l1, &x, &y), (0.5 + 3.0 + 0.0 + 2.0) / 4.0);
        close(values(|x, y| huber(x, y, 1.0), &x, &y), (0.125 + 2.5 + 0.0 + 1.5) / 4.0);
    }

    #[test]
    fn cross_entropies_by_hand() {
        let x = Tensor::from_f64([2, 3], vec![1.0, 2.0, 3.0, 0.0, 0.0, 0.0]);
        let labels = Tensor::from_u32([2], vec![1, 2]);
        let total = (1f64.exp() + 2f64.exp() + 3f64.exp()).ln();
        let plain = ((total - 2.0) + 3f64.ln()) / 2.0;
        close(values(cross_entropy, &x, &labels), plain);
        // All classes alike: the mean of -log p over every class and row.
        let even = (total - 2.0 + 3f64.ln()) / 2.0;
        close(values(|x, l| cross_entropy_smoothed(x, l, 0.3), &x, &labels), 0.7 * plain + 0.3 * even);
        let hot = Tensor::from_f64([2, 3], vec![0.0, 1.0, 0.0, 0.0, 0.0, 1.0]);
        close(values(cross_entropy_soft, &x, &hot), plain);
        let guess = Tensor::from_u32([2], vec![2, 1]);
        // The first row's maximum is at 2; of the second row's three the first counts.
        close(values(accuracy, &x, &guess), 0.5);
    }

    #[test]
    fn binary_cross_entropy_never_leaves_the_numbers() {
        let x = Tensor::from_f64([3], vec![0.4, 1000.0, -1000.0]);
        let y = Tensor::from_f64([3], vec![0.3, 0.0, 1.0]);
        let p = 1.0 / (1.0 + (-0.4f64).exp());
        let mixed = -(0.3 * p.ln() + 0.7 * (1.0 - p).ln());
        close(values(bce_with_logits, &x, &y), (mixed + 2000.0) / 3.0);
        let tape = Tape::eager();
        let logits = tape.var(&x);
        let slope = grad(bce_with_logits(logits, tape.constant(&y)), &[logits])[0].value();
        for (ours, exact) in slope.f64s().iter().zip([p - 0.3, 1.0, -1.0]) {
            close(*ours, exact / 3.0);
        }
    }
}
