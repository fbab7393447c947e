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
