//! The trainer: reproducible to the bit, on any number of threads and across restarts; what fails says where.

use std::sync::Arc;

use metaforge_autodiff::{Aval, Key, Tape, Tensor, Var};
use metaforge_data::{EpisodeConfig, EpisodeSampler, Glyphs, Rotations, Sinusoids, Split};
use metaforge_meta::{
    Clip, EpisodeLearner, Error, Evaluator, Maml, MetaTrainer, Objective, ProtoNet, Statistics, StepReport, Task,
    TaskVars, Tasks, TrainConfig, evaluate,
};
use metaforge_nn::{Adam, BatchNorm, Dropout, Flatten, Linear, Model, Optimizer, Params, Relu, Sequential, Sgd, zoo};

fn glyphs(ways: usize, shots: usize, queries: usize, split: Split) -> Arc<EpisodeSampler> {
    let config = EpisodeConfig { ways, shots, queries, rotations: Rotations::None };
    Arc::new(EpisodeSampler::new(Arc::new(Glyphs::new(1, split).size(16)), config, 7).unwrap())
}

fn maml(ways: usize) -> Maml {
    let model = Model::new(zoo::conv4(8, Some(ways)), [ways, 16, 16, 1]);
    Maml { lr: 0.5, steps: 2, ..Maml::new(model, Objective::CrossEntropy) }
}

fn proto() -> ProtoNet {
    ProtoNet::new(Model::new(zoo::conv4(8, None), [5, 16, 16, 1]))
}

fn waves() -> Maml {
    let model = Model::new(zoo::mlp(&[40, 40], 1, Relu), [10, 1]);
    Maml { lr: 0.01, eval_steps: 10, ..Maml::new(model, Objective::MeanSquare) }
}

fn trainer(learner: impl EpisodeLearner + 'static, tasks: Arc<dyn Tasks>, config: TrainConfig) -> MetaTrainer {
    MetaTrainer::new(Arc::new(learner), tasks, Box::new(Adam::default()), config).unwrap()
}

fn threads(n: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap()
}

fn steps(trainer: &mut MetaTrainer, n: usize) -> Vec<StepReport> {
    (0..n).map(|_| trainer.step().unwrap()).collect()
}

fn bits(params: &Params) -> Vec<(String, Vec<u8>)> {
    params.iter().map(|(name, t)| (name.to_owned(), t.bytes().to_vec())).collect()
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let run = |n: usize| {
        threads(n).install(|| {
            let mut maml = trainer(maml(3), glyphs(3, 1, 2, Split::Train), TrainConfig::new(5, 1e-3));
            let mut proto = trainer(proto(), glyphs(5, 2, 2, Split::Train), TrainConfig::new(1, 1e-3));
            // Played several at once.
            let mut waves =
                trainer(waves(), Arc::new(Sinusoids::new(10, 10, 0, Split::Train)), TrainConfig::new(25, 1e-3));
            let reports = (steps(&mut maml, 3), steps(&mut proto, 3), steps(&mut waves, 3));
            let test = glyphs(3, 1, 2, Split::Test);
            let evaluation = maml.evaluate(test.as_ref(), 7, Statistics::Transductive).unwrap();
            (reports, bits(&maml.state()), bits(&proto.state()), bits(&waves.state()), evaluation)
        })
    };
    let one = run(1);
    assert_eq!(one, run(2));
    assert_eq!(one, run(3));
}

#[test]
fn any_number_of_threads_gives_the_same_bits_where_kernels_split() {
    // The test before this one is too small for any kernel to split. Here one task is played by kernels that share the pool: 80 images
    // of 16x16 pixels in 32 channels are 2.6 MB a layer, ten times what an elementwise kernel wants a thread to have (256 KB), and
    // the convolutions have 6 and 47 million products, of which one million is worth splitting.
    let run = |n: usize| {
        threads(n).install(|| {
            let proto = ProtoNet::new(Model::new(zoo::conv4(32, None), [10, 16, 16, 1]));
            let mut proto = trainer(proto, glyphs(10, 4, 4, Split::Train), TrainConfig::new(1, 1e-3));
            (steps(&mut proto, 2), bits(&proto.state()))
        })
    };
    let one = run(1);
    assert_eq!(one, run(2));
    assert_eq!(one, run(3));
}

#[test]
fn a_resumed_training_gives_the_same_bits() {
    fn check(make: impl Fn() -> MetaTrainer) {
        let mut whole = make();
        steps(&mut whole, 3);
        let saved = whole.state();
        let rest = steps(&mut whole, 3);
        let mut resumed = make();
        // Not from the start: nothing of what it was may be left.
        steps(&mut resumed, 1);
        resumed.restore(&saved).unwrap();
        assert_eq!(resumed.steps(), 3);
        assert_eq!(steps(&mut resumed, 3), rest);
        assert_eq!(bits(&resumed.state()), bits(&whole.state()));
    }
    check(|| trainer(maml(3), glyphs(3, 1, 2, Split::Train), TrainConfig::new(2, 1e-3)));
    // With running statistics.
    check(|| trainer(proto(), glyphs(5, 2, 2, Split::Train), TrainConfig::new(2, 1e-3)));
    check(|| trainer(waves(), Arc::new(Sinusoids::new(10, 10, 0, Split::Train)), TrainConfig::new(25, 1e-3)));
}

#[test]
fn a_state_of_something_else_is_refused_and_nothing_changes() {
    let make = || trainer(waves(), Arc::new(Sinusoids::new(10, 10, 0, Split::Train)), TrainConfig::new(4, 1e-3));
    let mut trainer = make();
    steps(&mut trainer, 2);
    let (before, good) = (bits(&trainer.state()), trainer.state());
    let mut more = good.clone();
    more.push("params.other", Tensor::scalar(1.0));
    let without = |name: &str| {
        good.iter().filter(|(n, _)| *n != name).map(|(n, t)| (n.to_owned(), t.clone())).collect::<Params>()
    };
    let mut reshaped = without("params.0.bias");
    reshaped.push("params.0.bias", Tensor::new([2], vec![0.0; 2]));
    for bad in [Params::new(), more, without("step"), without("optimizer.m.0"), reshaped] {
        assert!(matches!(trainer.restore(&bad), Err(Error::State(_))));
        assert_eq!(bits(&trainer.state()), before);
    }
}

#[test]
fn the_gradient_of_a_meta_batch_is_the_mean() {
    // The same task ten times over is that task once.
    let source = Sinusoids::new(5, 5, 3, Split::Train);
    let norm = |meta_batch: usize| {
        let source = source.clone();
        let tasks: Arc<dyn Tasks> = Arc::new(move |_: u64| source.task(0));
        let sgd: Box<dyn Optimizer> = Box::new(Sgd::default());
        let mut t = MetaTrainer::new(Arc::new(waves()), tasks, sgd, TrainConfig::new(meta_batch, 0.1)).unwrap();
        let report = t.step().unwrap();
        (report, t.params().clone())
    };
    let ((one, a), (ten, b)) = (norm(1), norm(10));
    assert!((one.loss - ten.loss).abs() < 1e-6 && (one.grad_norm - ten.grad_norm).abs() < 1e-5 * one.grad_norm);
    for (a, b) in a.tensors().iter().zip(b.tensors()) {
        assert!(a.f32s().iter().zip(b.f32s()).all(|(a, b)| (a - b).abs() < 1e-6));
    }
}

#[test]
fn a_learner_that_does_not_fit_the_tasks_is_refused() {
    let new = || {
        MetaTrainer::new(
            Arc::new(maml(3)),
            glyphs(5, 1, 2, Split::Train),
            Box::new(Adam::default()),
            TrainConfig::new(2, 1e-3),
        )
    };
    let e = new().err().map(|e| e.to_string()).unwrap_or_default();
    assert_eq!(e, "the network has 3 outputs, the tasks have 5 classes");
    let params = maml(3).init(Key::new(0));
    let tasks = glyphs(5, 1, 2, Split::Test);
    let found = evaluate(&maml(3), &params, &Params::new(), tasks.as_ref(), 0..4, Statistics::Transductive);
    assert!(matches!(found, Err(Error::Setting(_))), "{found:?}");
}

/// A step of descent against the definition: eager losses, gradients and states of each task by itself, added up in order, and their means.
/// Gives how many tasks were played at once.
fn check_step(learner: Arc<dyn EpisodeLearner>, source: Arc<dyn Tasks>, meta_batch: usize) -> usize {
    let sgd: Box<dyn Optimizer> = Box::new(Sgd::default());
    let mut t = MetaTrainer::new(learner.clone(), source.clone(), sgd, TrainConfig::new(meta_batch, 0.25)).unwrap();
    let (before, state) = (t.params().clone(), t.learner_state().clone());
    let report = t.step().unwrap();
    let (mut losses, mut metrics, mut sums) = (0.0, 0.0, Vec::new());
    for i in 0..meta_batch as u64 {
        let (task, tape) = (source.task(i), Tape::eager());
        let (meta, state) = (before.bind(&tape), state.bind(&tape));
        let [support_x, support_y, query_x, query_y] = task.tensors().map(|x| tape.constant(x));
        let key = tape.constant(&Key::new(i).tensor());
        let vars = TaskVars { support_x, support_y, query_x, query_y, ways: task.ways, key };
        let (played, gradient) = learner.meta_gradient(&meta, &state, &vars);
        losses += played.loss.value().item();
        metrics += played.metric.value().item();
        let new: Vec<f32> = gradient.iter().chain(&played.state).flat_map(|g| g.value().f32s().to_vec()).collect();
        sums = if i == 0 { new } else { sums.iter().zip(new).map(|(a, b)| a + b).collect() };
    }
    let tasks = meta_batch as f32;
    let at_once = t.profile().0;
    // A task by itself is the same to the bit, several at once are added up in another order.
    let tolerance = if at_once == 1 { 0.0 } else { 1e-6 * report.loss };
    assert!((report.loss - losses / f64::from(tasks)).abs() <= tolerance, "{} {losses}", report.loss);
    assert!((report.metric - metrics / f64::from(tasks)).abs() <= 1e-6, "{} {metrics}", report.metric);
    let flat = |p: &Params| p.tensors().iter().flat_map(|t| t.f32s().to_vec()).collect::<Vec<f32>>();
    let (old, new) = (flat(&before), [flat(t.params()), flat(t.learner_state())].concat());
    assert_eq!(new.len(), sums.len());
    let largest = sums[..old.len()].iter().fold(0.0, |most: f32, sum| most.max((sum / tasks).abs()));
    for (i, (new, sum)) in new.iter().zip(sums).enumerate() {
        let expected = sum / tasks;
        // What the step tells of the gradient, but for the rounding of the parameter that it is added to.
        let (found, error) = match old.get(i) {
            Some(old) => ((old - new) / 0.25, 1e-5 * largest + f32::EPSILON * old.abs() / 0.25),
            None => (*new, 1e-5 * (1.0 + expected.abs())),
        };
        assert!((found - expected).abs() <= error, "number {i}: {found} {expected}, of at most {largest}");
    }
    at_once
}

#[test]
fn a_step_is_what_the_definition_says() {
    let tasks = glyphs(3, 1, 2, Split::Train);
    assert_eq!(check_step(Arc::new(maml(3)), tasks, 3), 1, "convolutions are played one by one");
}

#[test]
fn small_tasks_are_played_at_once_and_each_by_itself() {
    let sines = Arc::new(Sinusoids::new(10, 10, 0, Split::Train));
    for (meta_batch, at_once) in [(25, 13), (40, 10), (16, 8), (3, 2), (2, 1), (1, 1)] {
        assert_eq!(check_step(Arc::new(waves()), sines.clone(), meta_batch), at_once);
    }
    // Running statistics, classes and images.
    let net = Sequential::new().then(Flatten).then(Linear::new(12)).then(BatchNorm::new()).then(Relu);
    let proto = ProtoNet::new(Model::new(net, [5, 16, 16, 1]));
    assert_eq!(check_step(Arc::new(proto), glyphs(5, 1, 2, Split::Train), 6), 3);
}

#[test]
fn groups_are_halved_until_they_fit_the_cache() {
    let sines = Arc::new(Sinusoids::new(10, 10, 0, Split::Train));
    let at_once = |steps| trainer(Maml { steps, ..waves() }, sines.clone(), TrainConfig::new(25, 1e-3)).profile().0;
    assert_eq!([1, 20].map(at_once), [13, 7]);
}

#[test]
fn each_task_of_a_group_has_a_key_of_its_own() {
    let sines = Arc::new(Sinusoids::new(10, 10, 0, Split::Train));
    let at_rest = |meta_batch: usize| {
        let net = Sequential::new().then(Linear::new(20)).then(Relu).then(Dropout::new(0.5)).then(Linear::new(1));
        let learner = Maml { lr: 0.01, ..Maml::new(Model::new(net, [10, 1]), Objective::MeanSquare) };
        MetaTrainer::new(Arc::new(learner), sines.clone(), Box::new(Sgd::default()), TrainConfig::new(meta_batch, 0.0))
    };
    let (mut alone, mut at_once) = (at_rest(1).unwrap(), at_rest(6).unwrap());
    assert_eq!((alone.profile().0, at_once.profile().0), (1, 3));
    let losses: Vec<f64> = (0..6).map(|_| alone.step().unwrap().loss).collect();
    let (mean, loss) = (losses.iter().sum::<f64>() / 6.0, at_once.step().unwrap().loss);
    assert!((loss - mean).abs() < 1e-6 * mean, "{loss} {losses:?}");
}

#[test]
fn clipping_bounds_the_step_and_reports_the_unclipped_norm() {
    let moved = |clip: Option<Clip>| {
        let config = TrainConfig { clip, ..TrainConfig::new(4, 1.0) };
        let sgd: Box<dyn Optimizer> = Box::new(Sgd::default());
        let mut t =
            MetaTrainer::new(Arc::new(waves()), Arc::new(Sinusoids::new(5, 5, 3, Split::Train)), sgd, config).unwrap();
        let before = t.params().clone();
        let report = t.step().unwrap();
        let pairs = before.tensors().iter().zip(t.params().tensors());
        let squares: f32 = pairs
            .flat_map(|(a, b)| a.f32s().iter().zip(b.f32s()).map(|(a, b)| (a - b).powi(2)).collect::<Vec<_>>())
            .sum();
        (report.grad_norm, f64::from(squares.sqrt()))
    };
    let (norm, step) = moved(None);
    assert!((norm - step).abs() < 1e-3 * norm);
    let (same_norm, step) = moved(Some(Clip::Norm(norm / 4.0)));
    assert_eq!(norm, same_norm);
    assert!((step - norm / 4.0).abs() < 1e-3 * norm);
    assert!(moved(Some(Clip::Value(1e-3))).1 < 1e-3 * (1761f64).sqrt() + 1e-6);
}

#[test]
fn divergence_names_the_step_and_keeps_the_last_good_parameters() {
    let source = Sinusoids::new(5, 5, 3, Split::Train);
    let tasks: Arc<dyn Tasks> = Arc::new(move |i: u64| {
        let mut task = source.task(i);
        if i == 9 {
            task.query_y = Tensor::new([5, 1], vec![f32::NAN; 5]);
        }
        task
    });
    let mut t = trainer(waves(), tasks, TrainConfig::new(4, 1e-3));
    steps(&mut t, 2);
    let before = bits(&t.state());
    let error = t.step().unwrap_err();
    assert!(matches!(&error, Error::Diverged { step: 3, .. }), "{error}");
    assert!(error.to_string().starts_with("step 3: the loss of task 9 is NaN"), "{error}");
    assert_eq!(bits(&t.state()), before);
    // It stays where it is, rather than to go on from somewhere else.
    assert!(t.step().is_err());
}

#[test]
fn an_exploding_gradient_is_found() {
    let source = Sinusoids::new(5, 5, 3, Split::Train);
    let tasks: Arc<dyn Tasks> = Arc::new(move |i: u64| {
        let mut task = source.task(i);
        task.query_y = Tensor::new([5, 1], vec![8e18; 5]);
        task
    });
    // The loss is about 6e37 and finite; the square of the gradient is not.
    let error = trainer(waves(), tasks, TrainConfig::new(1, 1e-3)).step().unwrap_err();
    assert!(error.to_string().starts_with("step 1: the norm of the gradient is inf"), "{error}");
}

/// Moves nothing, and has a number that overflows at once.
struct Hoarder;

impl Optimizer for Hoarder {
    fn init(&self, _: &[Aval]) -> Params {
        [("hoard".to_owned(), Tensor::scalar(f32::MAX))].into_iter().collect()
    }

    fn update<'t>(
        &self,
        params: &[Var<'t>],
        _: &[Var<'t>],
        state: &[Var<'t>],
        _: Var<'t>,
    ) -> (Vec<Var<'t>>, Vec<Var<'t>>) {
        (params.to_vec(), vec![state[0] * 2.0])
    }
}

#[test]
fn a_spoilt_parameter_or_state_is_found_and_costs_nothing() {
    let check = |mut t: MetaTrainer, wanted: &str| {
        let before = bits(&t.state());
        let error = t.step().unwrap_err();
        assert!(matches!(&error, Error::Diverged { step: 1, .. }), "{error}");
        assert!(error.to_string().contains(wanted), "{error}");
        assert_eq!(bits(&t.state()), before);
    };
    // A gradient of a usual size times a rate near the largest number: the parameters overflow.
    let sgd: Box<dyn Optimizer> = Box::new(Sgd::default());
    let tasks = || Arc::new(Sinusoids::new(5, 5, 3, Split::Train));
    check(
        MetaTrainer::new(Arc::new(waves()), tasks(), sgd, TrainConfig::new(2, 3e38)).unwrap(),
        "a number of parameter",
    );
    let hoarder = MetaTrainer::new(Arc::new(waves()), tasks(), Box::new(Hoarder), TrainConfig::new(2, 1e-3));
    check(hoarder.unwrap(), "a number of the optimiser's `hoard` is inf");
    // Pictures so bright that the running variance overflows, while batch norm keeps the loss finite.
    let source = glyphs(5, 2, 2, Split::Train);
    let bright = move |i: u64| {
        let mut task = source.task(i);
        for x in [&mut task.support_x, &mut task.query_x] {
            *x = Tensor::new(x.shape(), x.f32s().iter().map(|v| v * 1e20).collect());
        }
        task
    };
    check(trainer(proto(), Arc::new(bright), TrainConfig::new(1, 1e-3)), "the learner's");
}

#[test]
fn a_task_of_another_shape_is_an_error() {
    let odd = |i: u64| Sinusoids::new(if i == 5 { 6 } else { 5 }, 5, 3, Split::Train).task(i);
    let mut t = trainer(waves(), Arc::new(odd), TrainConfig::new(4, 1e-3));
    t.step().unwrap();
    assert!(matches!(t.step(), Err(Error::TaskShape { task: 5, .. })));
    let result = evaluate(&waves(), t.params(), t.learner_state(), &odd, 0..8, Statistics::Transductive);
    assert!(matches!(result, Err(Error::TaskShape { task: 5, .. })));
}

#[test]
fn settings_that_make_no_sense_are_errors() {
    let tasks = || Arc::new(Sinusoids::new(5, 5, 3, Split::Train));
    let none = MetaTrainer::new(Arc::new(waves()), tasks(), Box::new(Adam::default()), TrainConfig::new(0, 1e-3));
    assert!(matches!(none, Err(Error::Setting(_))));
    let t = trainer(waves(), tasks(), TrainConfig::new(1, 1e-3));
    assert!(matches!(t.evaluate(tasks().as_ref(), 0, Statistics::Inductive), Err(Error::Setting(_))));
}

#[test]
fn evaluation_leaves_the_state_alone_and_can_be_repeated() {
    let mut t = trainer(proto(), glyphs(5, 2, 2, Split::Train), TrainConfig::new(1, 1e-3));
    steps(&mut t, 3);
    let before = bits(&t.state());
    // Fewer ways than in training, by both kinds of statistics.
    let test = glyphs(3, 1, 4, Split::Test);
    for statistics in [Statistics::Inductive, Statistics::Transductive] {
        let a = t.evaluate(test.as_ref(), 20, statistics).unwrap();
        assert_eq!(a, t.evaluate(test.as_ref(), 20, statistics).unwrap());
        assert_eq!((a.tasks, a.statistics, a.scores.len()), (20, statistics, 1));
    }
    assert_eq!(bits(&t.state()), before);
    let inductive = t.evaluate(test.as_ref(), 20, Statistics::Inductive).unwrap();
    assert_ne!(inductive.scores, t.evaluate(test.as_ref(), 20, Statistics::Transductive).unwrap().scores);
}

#[test]
fn running_statistics_are_averaged_over_the_tasks() {
    // Over a meta-batch of one and the same task they move as by that task alone.
    let source = glyphs(5, 2, 2, Split::Train);
    let state = |meta_batch: usize| {
        let source = source.clone();
        let mut t = trainer(proto(), Arc::new(move |_: u64| source.task(0)), TrainConfig::new(meta_batch, 1e-3));
        let before = t.learner_state().clone();
        t.step().unwrap();
        assert_ne!(&before, t.learner_state());
        t.learner_state().clone()
    };
    for (a, b) in state(1).tensors().iter().zip(state(4).tensors()) {
        assert!(a.f32s().iter().zip(b.f32s()).all(|(a, b)| (a - b).abs() < 1e-6));
    }
}

#[test]
fn before_any_step_a_classifier_is_at_chance() {
    let learner = Maml { eval_steps: 2, ..maml(5) };
    let params = learner.init(Key::new(3));
    let test = glyphs(5, 1, 5, Split::Test);
    for statistics in [Statistics::Transductive, Statistics::Inductive] {
        let found = evaluate(&learner, &params, &Params::new(), test.as_ref(), 0..300, statistics).unwrap();
        let zero = found.scores[0].metric;
        // Four standard errors.
        assert!((zero.mean - 0.2).abs() < 2.1 * zero.ci95, "{zero:?}");
        // One step from random weights already sees something.
        assert!(found.last().metric.mean > 0.25, "{:?}", found.last());
    }
}

#[test]
fn the_order_of_the_support_set_changes_nothing() {
    let source = glyphs(3, 2, 2, Split::Train);
    let shuffled = |i: u64| {
        let task = source.task(i);
        let order = [4, 0, 5, 2, 1, 3];
        let size = task.support_x.len() / 6;
        let x = order.iter().flat_map(|&r| task.support_x.f32s()[r * size..][..size].to_vec()).collect();
        let y = order.iter().map(|&r| task.support_y.u32s()[r]).collect();
        Task { support_x: Tensor::new(task.support_x.shape(), x), support_y: Tensor::from_u32([6], y), ..task }
    };
    let learners: [Box<dyn EpisodeLearner>; 2] = [Box::new(maml(3)), Box::new(proto())];
    for learner in learners {
        let (params, state) = (learner.init(Key::new(3)), learner.init_state());
        let judge = |tasks: &dyn Tasks| {
            let found = evaluate(learner.as_ref(), &params, &state, tasks, 0..4, Statistics::Transductive).unwrap();
            found.last().loss.mean
        };
        let (a, b) = (judge(source.as_ref()), judge(&shuffled));
        assert!((a - b).abs() < 1e-4 * a, "{a} {b}");
    }
}

#[test]
fn an_evaluation_builds_no_second_derivatives() {
    let size = |order| {
        let learner = Maml { order, ..maml(3) };
        Evaluator::new(&learner, glyphs(3, 1, 2, Split::Test).task(0).shape(), Statistics::Transductive).program().len()
    };
    assert_eq!(size(metaforge_meta::Order::Second), size(metaforge_meta::Order::First));
}

#[test]
fn maml_learns_to_learn_sine_waves() {
    let mut t = trainer(waves(), Arc::new(Sinusoids::new(10, 10, 0, Split::Train)), TrainConfig::new(25, 1e-3));
    let test = Sinusoids::new(10, 10, 0, Split::Test);
    let before = t.evaluate(&test, 200, Statistics::Transductive).unwrap();
    steps(&mut t, 600);
    let after = t.evaluate(&test, 200, Statistics::Transductive).unwrap();
    let mean = |e: &metaforge_meta::Evaluation, s: usize| e.scores[s].loss.mean;
    assert!(mean(&after, 1) < 0.75 * mean(&before, 1), "{:?} {:?}", before.scores[1], after.scores[1]);
    // A step helps, and so do more than it was trained with.
    assert!(mean(&after, 1) < 0.9 * mean(&after, 0));
    assert!(mean(&after, 10) < mean(&after, 1));
}

#[test]
fn a_prototypical_network_learns_glyphs() {
    let mut t = trainer(proto(), glyphs(10, 1, 3, Split::Train), TrainConfig::new(1, 3e-3));
    let test = glyphs(5, 1, 5, Split::Test);
    let before = t.evaluate(test.as_ref(), 100, Statistics::Transductive).unwrap().last().metric;
    steps(&mut t, 150);
    let after = t.evaluate(test.as_ref(), 100, Statistics::Inductive).unwrap().last().metric;
    assert!(after.mean - after.ci95 > before.mean + before.ci95, "{before:?} {after:?}");
}
