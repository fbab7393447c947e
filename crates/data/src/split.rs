//! Which part of the classes or samples a run may see.

use metaforge_autodiff::Key;
use rand::seq::SliceRandom;

/// Training, validation or test part of a source.
///
/// Train, validation and test never share a class (class-wise sources: glyphs, Omniglot, folders) or a sample
/// (sample-wise sources: digits, MNIST, functions).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// What is learned from.
    Train,
    /// What choices are made by.
    Val,
    /// The two together, for the final fit.
    TrainVal,
    /// What is reported.
    Test,
}

impl Split {
    /// `train`, `val`, `trainval` or `test`.
    pub fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Val => "val",
            Split::TrainVal => "trainval",
            Split::Test => "test",
        }
    }

    /// The disjoint parts that it is made of, numbered train 0, validation 1, test 2.
    pub(crate) fn parts(self) -> &'static [usize] {
        match self {
            Split::Train => &[0],
            Split::Val => &[1],
            Split::TrainVal => &[0, 1],
            Split::Test => &[2],
        }
    }

    /// The `i`-th number of this split when the natural numbers are dealt to train, validation and test in turn.
    pub(crate) fn deal(self, i: usize) -> usize {
        let parts = self.parts();
        i / parts.len() * 3 + parts[i % parts.len()]
    }

    /// This split's share of `n` classes, ascending: shuffled by `seed`, `train` and `val` of them (fractions), the rest for test.
    ///
    /// For sources without a fixed split: `set.keep(&Split::Train.choose(n, 0.64, 0.16, seed))`.
    pub fn choose(self, n: usize, train: f64, val: f64, seed: u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        order.shuffle(&mut Key::new(seed).rng());
        let end = |fraction: f64| ((n as f64 * fraction).round() as usize).min(n);
        let (a, b) = (end(train), end(train + val).max(end(train)));
        let range = match self {
            Split::Train => 0..a,
            Split::Val => a..b,
            Split::TrainVal => 0..b,
            Split::Test => b..n,
        };
        let mut chosen = order[range].to_vec();
        chosen.sort_unstable();
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_parts_are_disjoint_and_complete() {
        let part = |s: Split| s.choose(103, 0.64, 0.16, 5);
        let mut all = [part(Split::Train), part(Split::Val), part(Split::Test)].concat();
        assert_eq!(part(Split::Train).len(), 66);
        all.sort_unstable();
        assert_eq!(all, (0..103).collect::<Vec<_>>());
        let mut both = [part(Split::Train), part(Split::Val)].concat();
        both.sort_unstable();
        assert_eq!(both, part(Split::TrainVal));
    }

    #[test]
    fn numbers_are_dealt_once() {
        let dealt = |s: Split| (0..60).map(move |i| s.deal(i));
        for i in dealt(Split::Train) {
            assert!(dealt(Split::Val).all(|j| j != i) && dealt(Split::Test).all(|j| j != i));
            assert!(i / 3 >= 30 || dealt(Split::TrainVal).any(|j| j == i));
        }
    }
}
