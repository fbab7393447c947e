//! Meta-gradients against closed forms and finite differences, and the choices that reproductions get wrong.

use metaforge_autodiff::{DType, Tape, Tensor, check_grads};
use metaforge_nn::{BatchNorm, Linear, Relu, Sequential, Tanh, zoo};

use super::*;

/// The loss ½ (θ - c)ᵀ A (θ - c).
struct Quadratic {
    a: [[f64; 3]; 3],
    c: [f64; 3],
}

impl Quadratic {
    fn loss<'t>(&self, theta: &[Var<'t>]) -> Var<'t> {
        let tape = theta[0].tape();
        let a = tape.constant(&Tensor::from_f64([3, 3], self.a.concat()));
        let d = theta[0] - tape.constant(&Tensor::from_f64([3, 1], self.c.to_vec()));
        (d * a.matmul(d)).sum() * 0.5
    }

    /// A (θ - c).
    fn gradient(&self, theta: [f64; 3]) -> [f64; 3] {
        times(self.a, std::array::from_fn(|i| theta[i] - self.c[i]))
    }

    /// (I - α A) v.
    fn contract(&self, lr: f64, v: [f64; 3]) -> [f64; 3] {
        let av = times(self.a, v);
        std::array::from_fn(|i| v[i] - lr * av[i])
    }
}

fn times(a: [[f64; 3]; 3], v: [f64; 3]) -> [f64; 3] {
    a.map(|row| row.iter().zip(v).map(|(x, y)| x * y).sum())
}

const SUPPORT: Quadratic = Quadratic { a: [[2.0, 0.3, -0.5], [0.3, 1.5, 0.2], [-0.5, 0.2, 1.0]], c: [0.7, -1.1, 0.4] };
const QUERY: Quadratic = Quadratic { a: [[1.2, -0.4, 0.1], [-0.4, 2.2, 0.6], [0.1, 0.6, 0.9]], c: [-0.3, 0.5, 1.6] };
const START: [f64; 3] = [0.9, 0.2, -1.3];
const LR: f64 = 0.3;

fn quadratic_meta_gradient(steps: usize, order: Order) -> [f64; 3] {
    let tape = Tape::eager();
    let theta = [tape.var(&Tensor::from_f64([3, 1], START.to_vec()))];
    let adapted = adapt(|w| SUPPORT.loss(w), &theta, LR, steps, order);
    let gradient = grad(QUERY.loss(&adapted), &theta)[0].value();
    gradient.f64s().try_into().unwrap()
}

/// θ_S by its closed form, c + (I - α A)^S (θ - c).
fn adapted(steps: usize) -> [f64; 3] {
    let mut d: [f64; 3] = std::array::from_fn(|i| START[i] - SUPPORT.c[i]);
    for _ in 0..steps {
        d = SUPPORT.contract(LR, d);
    }
    std::array::from_fn(|i| SUPPORT.c[i] + d[i])
}

fn assert_close(a: [f64; 3], b: [f64; 3]) {
    assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12), "{a:?} is not {b:?}");
}

#[test]
fn the_meta_gradient_of_a_quadratic_is_its_closed_form() {
    for steps in 0..=5 {
        // ∇ = (I - α A)^S A_q (θ_S - c_q); A is symmetric.
        let first = QUERY.gradient(adapted(steps));
        let second = (0..steps).fold(first, |g, _| SUPPORT.contract(LR, g));
        assert_close(quadratic_meta_gradient(steps, Order::Second), second);
        assert_close(quadratic_meta_gradient(steps, Order::First), first);
    }
}

#[test]
fn first_order_leaves_out_exactly_the_hessian_term() {
    let [second, first] = [Order::Second, Order::First].map(|o| quadratic_meta_gradient(1, o));
    let hessian_term = times(SUPPORT.a, QUERY.gradient(adapted(1))).map(|x| LR * x);
    assert_close(std::array::from_fn(|i| first[i] - second[i]), hessian_term);
    assert!(hessian_term.iter().any(|x| x.abs() > 0.1));
}

fn regression() -> Maml {
    let model = Model::new(zoo::mlp(&[6, 5], 1, Tanh), [4, 2]);
    Maml { steps: 2, lr: 0.2, ..Maml::new(model, Objective::MeanSquare) }
}

fn f64s(key: Key, shape: &[usize]) -> Tensor {
    key.normal(shape, 0.0, 1.0).to_dtype(DType::F64)
}

/// A task of 4 support and 3 query points in two dimensions.
fn points() -> [Tensor; 4] {
    let key = Key::new(11);
    [f64s(key.fold(0), &[4, 2]), f64s(key.fold(1), &[4, 1]), f64s(key.fold(2), &[3, 2]), f64s(key.fold(3), &[3, 1])]
}

fn on_tape<'t>(tape: &'t Tape, tensors: &[Tensor; 4], ways: usize) -> TaskVars<'t> {
    let [support_x, support_y, query_x, query_y] = [0, 1, 2, 3].map(|i| tape.constant(&tensors[i]));
    TaskVars { support_x, support_y, query_x, query_y, ways, key: tape.constant(&Key::new(0).tensor()) }
}

fn weights(maml: &Maml) -> Vec<Tensor> {
    maml.init(Key::new(5)).to_dtype(DType::F64).tensors().to_vec()
}

fn meta_gradient(maml: &Maml, task: &[Tensor; 4]) -> Vec<Tensor> {
    let tape = Tape::eager();
    let meta: Vec<_> = weights(maml).iter().map(|w| tape.var(w)).collect();
    let (_, gradient) = maml.meta_gradient(&meta, &[], &on_tape(&tape, task, 0));
    gradient.iter().map(|g| g.value()).collect()
}

fn check_meta_gradient(maml: &Maml, task: &[Tensor; 4], order: usize) {
    fn meta_loss<'t>(maml: &Maml, meta: &[Var<'t>], task: &[Tensor; 4]) -> Var<'t> {
        maml.play(meta, &[], &on_tape(meta[0].tape(), task, 0)).loss
    }
    check_grads(|meta| vec![meta_loss(maml, meta, task)], &weights(maml), order, 1e-7, Key::new(3)).unwrap();
}

#[test]
fn the_meta_gradient_of_a_network_agrees_with_finite_differences() {
    let maml = regression();
    let task = points();
    check_meta_gradient(&maml, &task, 2);
    check_meta_gradient(&Maml { rematerialise: true, ..maml }, &task, 3);
}

#[test]
fn first_order_is_the_gradient_at_the_adapted_weights_and_differs_from_second_order() {
    let task = points();
    let first = meta_gradient(&Maml { order: Order::First, ..regression() }, &task);
    let maml = regression();
    let tape = Tape::eager();
    let meta: Vec<_> = weights(&maml).iter().map(|w| tape.var(w)).collect();
    let vars = on_tape(&tape, &task, 0);
    let fast = (0..maml.steps).fold(meta.clone(), |w, _| maml.inner_step(&w, &vars, Order::Second));
    // The adapted weights as fresh leaves.
    let fast: Vec<_> = fast.iter().map(|w| tape.var(&w.value())).collect();
    let query = maml.objective.loss(maml.model.forward(&fast, vars.query_x), vars.query_y);
    for (a, b) in first.iter().zip(grad(query, &fast)) {
        assert_eq!(a, &b.value());
        assert!(a.f64s().iter().any(|x| *x != 0.0));
    }
    let second = meta_gradient(&maml, &task);
    let far = |(a, b): (&Tensor, &Tensor)| a.f64s().iter().zip(b.f64s()).any(|(a, b)| (a - b).abs() > 1e-3);
    assert!(first.iter().zip(&second).any(far));
}

#[test]
fn without_inner_steps_or_without_adapted_parameters_it_is_plain_training() {
    let task = points();
    let maml = regression();
    let tape = Tape::eager();
    let meta: Vec<_> = weights(&maml).iter().map(|w| tape.var(w)).collect();
    let vars = on_tape(&tape, &task, 0);
    let loss = maml.objective.loss(maml.model.forward(&meta, vars.query_x), vars.query_y);
    let plain: Vec<Tensor> = grad(loss, &meta).iter().map(|g| g.value()).collect();
    assert_eq!(meta_gradient(&Maml { steps: 0, ..regression() }, &task), plain);
    assert_eq!(meta_gradient(&regression().adapt_only(|_| false), &task), plain);
}

#[test]
fn what_is_not_adapted_is_meta_learned_all_the_same() {
    let anil = regression().adapt_only(|name| name.starts_with("4."));
    assert_eq!(anil.adapted, [false, false, false, false, true, true]);
    let task = points();
    let gradient = meta_gradient(&anil, &task);
    assert!(gradient.iter().all(|g| g.f64s().iter().any(|x| *x != 0.0)));
    check_meta_gradient(&anil, &task, 1);
}

#[test]
fn a_parameter_that_the_loss_does_not_depend_on_gets_zeros() {
    let tape = Tape::eager();
    let theta = [1.0, 2.0].map(|v| tape.var(&Tensor::from_f64([1], vec![v])));
    let adapted = adapt(|w| (w[0] * w[0]).sum(), &theta, 0.1, 2, Order::Second);
    assert_eq!(adapted[1].value().f64s(), &[2.0]);
    let gradient = grad(adapted[0].sum() + adapted[1].sum(), &theta);
    assert!((gradient[0].value().item() - 0.64).abs() < 1e-12);
    assert_eq!(gradient[1].value().item(), 1.0);
}

#[test]
fn finns_inner_rate_is_n_times_ours() {
    // His cross-entropy is a vector of n = N K losses, each divided by K; differentiating a vector sums it.
    let (ways, shots, alpha) = (5, 2, 0.4);
    let tape = Tape::eager();
    let weights = [tape.var(&f64s(Key::new(1), &[3, ways]))];
    let x = tape.constant(&f64s(Key::new(2), &[ways * shots, 3]));
    let y = tape.constant(&Tensor::from_u32([ways * shots], (0..ways * shots).map(|i| (i / shots) as u32).collect()));
    let his =
        adapt(|w| -x.matmul(w[0]).log_softmax().take_last(y).sum() / shots as f64, &weights, alpha, 1, Order::First);
    let ours =
        adapt(|w| Objective::CrossEntropy.loss(x.matmul(w[0]), y), &weights, alpha * ways as f64, 1, Order::First);
    let (a, b) = (his[0].value(), ours[0].value());
    assert!(a.f64s().iter().zip(b.f64s()).all(|(a, b)| (a - b).abs() < 1e-12));
}

fn classifier() -> Maml {
    let layers = Sequential::new().then(Linear::new(7)).then(BatchNorm::new()).then(Relu).then(Linear::new(3));
    Maml { lr: 0.5, eval_steps: 2, ..Maml::new(Model::new(layers, [6, 4]), Objective::CrossEntropy) }
}

fn pictures(queries: Tensor) -> [Tensor; 4] {
    let n = queries.shape()[0];
    let labels = |n: usize| Tensor::from_u32([n], (0..n).map(|i| (i % 3) as u32).collect());
    [f64s(Key::new(8), &[6, 4]), labels(6), queries, labels(n)]
}

/// The outputs for the first three queries, after an inner step.
fn outputs(queries: Tensor, statistics: Statistics) -> Vec<f64> {
    let maml = classifier();
    let tape = Tape::eager();
    let meta: Vec<_> = weights(&maml).iter().map(|w| tape.var(w)).collect();
    let task = on_tape(&tape, &pictures(queries), 3);
    let fast = maml.inner_step(&meta, &task, Order::Second);
    maml.answer(&fast, &task, statistics).value().f64s()[..9].to_vec()
}

#[test]
fn an_inductive_answer_depends_on_its_query_alone_and_a_transductive_one_does_not() {
    let queries = f64s(Key::new(9), &[9, 4]);
    let few = queries.rows(0, 3);
    let close = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-9);
    assert!(close(&outputs(queries.clone(), Statistics::Inductive), &outputs(few.clone(), Statistics::Inductive)));
    assert!(!close(&outputs(queries, Statistics::Transductive), &outputs(few, Statistics::Transductive)));
}

#[test]
fn inductive_answers_use_the_statistics_of_the_support_set() {
    // For the support set itself the two are the same, up to the unbiased variance of running statistics.
    let support = f64s(Key::new(8), &[6, 4]);
    let [a, b] = [Statistics::Inductive, Statistics::Transductive].map(|s| outputs(support.clone(), s));
    assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 0.25 * (1.0 + b.abs())), "{a:?} {b:?}");
}

#[test]
fn the_statistics_of_the_support_set_are_exact_in_single_precision_however_large() {
    // Means of 1e3 and variances of 1e6 and more: nothing may be recovered from a difference.
    let model = Model::new(BatchNorm::plain(), [6, 4]);
    let maml = Maml::new(model, Objective::CrossEntropy);
    let tape = Tape::eager();
    for scale in [1e-2f32, 1.0, 3e3, 1e6] {
        let x = Key::new(8).normal([6, 4], scale, scale);
        let labels = Tensor::from_u32([6], vec![0, 1, 2, 3, 0, 1]);
        let task = on_tape(&tape, &[x.clone(), labels.clone(), x.clone(), labels], 4);
        let [mean, variance] = maml.support_statistics(&[], &task)[..] else { panic!("a mean and a variance") };
        for c in 0..4 {
            let column: Vec<f64> = x.f32s()[c..].iter().step_by(4).map(|&v| v.into()).collect();
            let middle = column.iter().sum::<f64>() / 6.0;
            let spread = column.iter().map(|v| (v - middle).powi(2)).sum::<f64>() / 5.0;
            let close = |found: Var<'_>, wanted: f64| (f64::from(found.value().f32s()[c]) / wanted - 1.0).abs() < 1e-2;
            assert!(close(mean, middle) && close(variance, spread), "{scale}: {middle} {spread}");
        }
    }
}

#[test]
fn renaming_the_classes_and_the_outputs_changes_nothing() {
    let maml = Maml { steps: 2, ..classifier() };
    let tape = Tape::eager();
    let renamed = |label: u32| [1, 2, 0][label as usize];
    let play = |weights: &[Tensor], task: &[Tensor; 4]| {
        let meta: Vec<_> = weights.iter().map(|w| tape.var(w)).collect();
        maml.play(&meta, &[], &on_tape(&tape, task, 3)).loss.value().item()
    };
    let (weights, task) = (weights(&maml), pictures(f64s(Key::new(9), &[9, 4])));
    // Column c of the last layer becomes column renamed(c): columns 2, 0, 1 of the old one in order.
    let columns = |t: &Tensor| {
        let numbers = t.f64s().chunks(3).flat_map(|row| [row[2], row[0], row[1]]).collect();
        Tensor::from_f64(t.shape(), numbers)
    };
    let (head, body) = (weights[4..].iter().map(columns), weights[..4].iter().cloned());
    let other: Vec<Tensor> = body.chain(head).collect();
    let labels = |t: &Tensor| Tensor::from_u32(t.shape(), t.u32s().iter().map(|&y| renamed(y)).collect());
    let [support_x, support_y, query_x, query_y] = &task;
    let same = [support_x.clone(), labels(support_y), query_x.clone(), labels(query_y)];
    assert!((play(&weights, &task) - play(&other, &same)).abs() < 1e-12);
    assert!((play(&weights, &task) - play(&weights, &same)).abs() > 1e-3);
}

#[test]
fn evaluation_gives_a_result_for_every_number_of_steps() {
    let maml = Maml { eval_steps: 4, ..regression() };
    let tape = Tape::eager();
    let meta: Vec<_> = weights(&maml).iter().map(|w| tape.var(w)).collect();
    let task = on_tape(&tape, &points(), 0);
    let judged = maml.judge(&meta, &[], &task, Statistics::Transductive);
    assert_eq!(judged.len(), 5);
    for (steps, [loss, _]) in judged.iter().enumerate() {
        let trained = Maml { steps, ..regression() }.play(&meta, &[], &task).loss;
        assert!((loss.value().item() - trained.value().item()).abs() < 1e-12);
    }
}
