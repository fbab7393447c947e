//! Exponential moving average of parameters.

use metaforge_autodiff::Var;

/// The averages moved towards the parameters: `average + (1 - decay) * (param - average)`, one by one.
///
/// # Panics
/// If the lists differ in length or shapes.
#[track_caller]
pub fn ema<'t>(averages: &[Var<'t>], params: &[Var<'t>], decay: f64) -> Vec<Var<'t>> {
    assert_eq!(averages.len(), params.len(), "an average for each parameter");
    averages.iter().zip(params).map(|(&a, &p)| a + (p - a) * (1.0 - decay)).collect()
}
