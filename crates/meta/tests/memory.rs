//! Memory: a thousand second-order steps leave as much of it behind as none.

use std::sync::Arc;

use allocation_counter::measure;
use metaforge_data::{Sinusoids, Split};
use metaforge_meta::{Maml, MetaTrainer, Objective, TrainConfig};
use metaforge_nn::{Adam, Model, Relu, zoo};

#[test]
fn memory_does_not_grow() {
    let model = Model::new(zoo::mlp(&[40, 40], 1, Relu), [10, 1]);
    let maml = Maml { lr: 0.01, steps: 2, ..Maml::new(model, Objective::MeanSquare) };
    let tasks = Arc::new(Sinusoids::new(10, 10, 0, Split::Train));
    let mut trainer =
        MetaTrainer::new(Arc::new(maml), tasks, Box::new(Adam::default()), TrainConfig::new(4, 1e-3)).unwrap();
    let mut steps = |n: usize| (0..n).for_each(|_| assert!(trainer.step().is_ok()));
    // The counter is that of its own thread, so all of the work has to be there.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    pool.install(|| {
        steps(10);
        let left = measure(|| steps(1000));
        assert_eq!((left.bytes_current, left.count_current), (0, 0));
    });
}
