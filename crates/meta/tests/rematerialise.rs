//! Inner steps that are computed again in the reverse pass: the same meta-gradient, in memory that hardly depends on their number.

use std::sync::Arc;

use metaforge_autodiff::{Key, Par, Tape, Tensor};
use metaforge_data::{EpisodeConfig, EpisodeSampler, Glyphs, Rotations, Split};
use metaforge_meta::{EpisodeLearner, Maml, MetaTrainer, Objective, Order, Task, TaskVars, Tasks, TrainConfig};
use metaforge_nn::{Adam, Model, zoo};

/// 5-way episodes of glyphs of a size.
fn glyphs(size: usize, shots: usize, queries: usize) -> Arc<EpisodeSampler> {
    let config = EpisodeConfig { ways: 5, shots, queries, rotations: Rotations::None };
    Arc::new(EpisodeSampler::new(Arc::new(Glyphs::new(1, Split::Train).size(size)), config, 7).unwrap())
}

/// MAML with blocks of convolution, batch norm, rectifier and pooling.
fn maml(channels: usize, size: usize, steps: usize, rematerialise: bool) -> Maml {
    let model = Model::new(zoo::conv4(channels, Some(5)), [1, size, size, 1]);
    Maml { steps, rematerialise, ..Maml::new(model, Objective::CrossEntropy) }
}

fn trainer(maml: Maml, tasks: Arc<dyn Tasks>) -> MetaTrainer {
    MetaTrainer::new(Arc::new(maml), tasks, Box::new(Adam::default()), TrainConfig::new(1, 1e-3)).unwrap()
}

/// Loss, metric and meta-gradient on an eager tape.
fn eager(maml: &Maml, weights: &[Tensor], task: &Task) -> Vec<Tensor> {
    let tape = Tape::eager();
    let [support_x, support_y, query_x, query_y] = task.tensors().map(|t| tape.constant(t));
    let vars = TaskVars { support_x, support_y, query_x, query_y, ways: 5, key: tape.constant(&Key::new(0).tensor()) };
    let meta: Vec<_> = weights.iter().map(|w| tape.var(w)).collect();
    let (played, gradient) = maml.meta_gradient(&meta, &[], &vars);
    [played.loss, played.metric].into_iter().chain(gradient).map(|y| y.value()).collect()
}

/// The same by a compiled program.
fn replayed(maml: Maml, weights: &[Tensor], tasks: Arc<EpisodeSampler>, threads: usize) -> Vec<Tensor> {
    let task = tasks.task(0);
    let trainer = trainer(maml, tasks);
    let (program, key) = (trainer.program(), Key::new(0).tensor());
    let inputs: Vec<&Tensor> = weights.iter().chain(task.tensors()).chain([&key]).collect();
    let mut workspace = program.workspace();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| program.run(&mut workspace, &inputs, Par::Rayon));
    (0..program.outputs().len()).map(|i| program.output(&workspace, i).to_tensor()).collect()
}

#[test]
fn the_meta_gradient_has_the_plain_bits_eagerly_and_as_a_program_on_any_number_of_threads() {
    let tasks = glyphs(16, 2, 2);
    let weights = maml(8, 16, 1, false).init(Key::new(2)).tensors().to_vec();
    let head = |maml: Maml| {
        let parameters = maml.adapted.len();
        Maml { adapted: (0..parameters).map(|i| i + 2 >= parameters).collect(), ..maml }
    };
    for (steps, order, head_alone) in [
        (1, Order::Second, false),
        (3, Order::Second, false),
        (5, Order::Second, false),
        (3, Order::First, false),
        // The body's weights come into a step from outside.
        (3, Order::Second, true),
    ] {
        let make = |rematerialise| {
            let maml = Maml { order, ..maml(8, 16, steps, rematerialise) };
            if head_alone { head(maml) } else { maml }
        };
        let plain = eager(&make(false), &weights, &tasks.task(0));
        assert!(plain[2..].iter().all(|g| g.f32s().iter().all(|x| x.is_finite())));
        assert_eq!(eager(&make(true), &weights, &tasks.task(0)), plain, "{steps} steps, {order:?}");
        for threads in [1, 2] {
            let found = replayed(make(true), &weights, tasks.clone(), threads);
            assert_eq!(found, plain, "{steps} steps, {order:?}, {threads} threads");
        }
    }
}

#[test]
fn memory_grows_by_the_adapted_weights_a_step_and_not_by_the_activations() {
    // Conv4-64 on 28x28 images, 15 queries a class; `--nocapture` shows the table of docs/BENCHMARKS.md.
    let bytes = |shots, steps, rematerialise| {
        let trainer = trainer(maml(64, 28, steps, rematerialise), glyphs(28, shots, 15));
        let adapted: usize = trainer.params().tensors().iter().map(|w| w.bytes().len()).sum();
        (trainer.program().workspace_bytes(), adapted)
    };
    for shots in [1, 5] {
        for steps in [1, 2, 5, 10] {
            let [plain, again] = [false, true].map(|rematerialise| bytes(shots, steps, rematerialise).0);
            println!("5-way {shots}-shot, {steps} steps: {plain} bytes of workspace, {again} rematerialised");
        }
    }
    for (few, many) in [(2, 5), (5, 10), (2, 10)] {
        let a_step = |rematerialise| {
            let [(few_bytes, adapted), (many_bytes, _)] = [few, many].map(|steps| bytes(5, steps, rematerialise));
            (many_bytes.saturating_sub(few_bytes) / (many - few)) as f64 / adapted as f64
        };
        let (plain, again) = (a_step(false), a_step(true));
        assert!(again <= 4.0, "{again} copies of the adapted weights a step");
        assert!(plain >= 30.0, "{plain} copies of the adapted weights a step without");
    }
}

#[test]
fn in_first_order_it_changes_nothing() {
    let program = |rematerialise| {
        let maml = Maml { order: Order::First, ..maml(8, 16, 3, rematerialise) };
        trainer(maml, glyphs(16, 1, 2)).program().to_string()
    };
    assert_eq!(program(true), program(false));
}
