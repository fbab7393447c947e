//! Learning rates over time.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

/// A rate for every step, counted from 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// Always the same.
    Constant(f64),
    /// `rate * factor^(step / every)`, in whole steps: halving with a factor of 0.5.
    Step {
        /// Rate at first.
        rate: f64,
        /// Steps between changes, at least 1.
        every: u64,
        /// What the rate is multiplied by at each.
        factor: f64,
    },
    /// `rate * factor^step`.
    Exponential {
        /// Rate at first.
        rate: f64,
        /// What the rate is multiplied by at each step.
        factor: f64,
    },
    /// Half a wave of the cosine from `from` to `to` over `steps`, then `to` (Loshchilov and Hutter 2017, without restarts).
    Cosine {
        /// Rate at step 0.
        from: f64,
        /// Rate from step `steps` on.
        to: f64,
        /// Length.
        steps: u64,
    },
    /// A straight line from `from` to `to` over `steps`, then `to`.
    Linear {
        /// Rate at step 0.
        from: f64,
        /// Rate from step `steps` on.
        to: f64,
        /// Length.
        steps: u64,
    },
    /// A rise over `steps` to the first rate of `then` (step `s` has `(s + 1) / steps` of it), and `then` from its start.
    Warmup {
        /// Length of the rise.
        steps: u64,
        /// What follows.
        then: Box<Schedule>,
    },
}

impl Schedule {
    /// The rate at `step`.
    pub fn at(&self, step: u64) -> f64 {
        match *self {
            Schedule::Constant(rate) => rate,
            Schedule::Step { rate, every, factor } => rate * factor.powf((step / every.max(1)) as f64),
            Schedule::Exponential { rate, factor } => rate * factor.powf(step as f64),
            Schedule::Cosine { from, to, steps } => to + (from - to) * 0.5 * (1.0 + (PI * share(step, steps)).cos()),
            Schedule::Linear { from, to, steps } => from + (to - from) * share(step, steps),
            Schedule::Warmup { steps, ref then } if step < steps => then.at(0) * (step + 1) as f64 / steps as f64,
            Schedule::Warmup { steps, ref then } => then.at(step - steps),
        }
    }
}

/// How much of `steps` is over, at most 1.
fn share(step: u64, steps: u64) -> f64 {
    if step >= steps { 1.0 } else { step as f64 / steps as f64 }
}

impl From<f64> for Schedule {
    fn from(rate: f64) -> Schedule {
        Schedule::Constant(rate)
    }
}

impl Default for Schedule {
    fn default() -> Schedule {
        Schedule::Constant(1e-3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_at_their_landmarks() {
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-15, "{a} {b}");
        close(Schedule::Constant(0.3).at(1 << 40), 0.3);
        let halving = Schedule::Step { rate: 1.0, every: 10, factor: 0.5 };
        close(halving.at(9), 1.0);
        close(halving.at(10), 0.5);
        close(halving.at(35), 0.125);
        close(Schedule::Exponential { rate: 2.0, factor: 0.9 }.at(2), 1.62);
        let cosine = Schedule::Cosine { from: 1.0, to: 0.2, steps: 100 };
        close(cosine.at(0), 1.0);
        close(cosine.at(50), 0.6);
        close(cosine.at(100), 0.2);
        close(cosine.at(1000), 0.2);
        let line = Schedule::Linear { from: 1.0, to: 0.0, steps: 4 };
        close(line.at(1), 0.75);
        close(line.at(9), 0.0);
        let warm = Schedule::Warmup { steps: 4, then: Box::new(line) };
        close(warm.at(0), 0.25);
        close(warm.at(3), 1.0);
        close(warm.at(4), 1.0);
        close(warm.at(5), 0.75);
    }
}
