//! Prototypes and distances against their definitions, gradients against finite differences.

use metaforge_autodiff::{Tape, Tensor, check_grads, grad};
use metaforge_nn::{BatchNorm, Linear, Sequential, Tanh, zoo};

use super::*;

fn f64s(key: u64, shape: &[usize]) -> Tensor {
    Key::new(key).normal(shape, 0.0, 1.0).to_dtype(DType::F64)
}

/// Labels that are not sorted, as many of each class as come out.
const SUPPORT_LABELS: [u32; 7] = [2, 0, 1, 1, 2, 0, 2];
const QUERY_LABELS: [u32; 4] = [1, 1, 0, 2];

fn task<'t>(tape: &'t Tape, support_labels: [u32; 7], query_labels: [u32; 4]) -> TaskVars<'t> {
    TaskVars {
        support_x: tape.constant(&f64s(1, &[7, 3])),
        support_y: tape.constant(&Tensor::from_u32([7], support_labels.to_vec())),
        query_x: tape.constant(&f64s(2, &[4, 3])),
        query_y: tape.constant(&Tensor::from_u32([4], query_labels.to_vec())),
        ways: 3,
        key: tape.constant(&Key::new(0).tensor()),
    }
}

#[test]
fn prototypes_are_class_means() {
    let tape = Tape::eager();
    let z = f64s(1, &[7, 2]);
    let p = prototypes(tape.var(&z), tape.constant(&Tensor::from_u32([7], SUPPORT_LABELS.to_vec())), 4).value();
    for class in 0..4 {
        let rows: Vec<usize> = (0..7).filter(|&i| SUPPORT_LABELS[i] == class).collect();
        for d in 0..2 {
            let mean = rows.iter().map(|&i| z.f64s()[2 * i + d]).sum::<f64>() / rows.len().max(1) as f64;
            assert!((p.f64s()[2 * class as usize + d] - mean).abs() < 1e-12);
        }
    }
}

#[test]
fn distances_are_squared_and_euclidean() {
    let tape = Tape::eager();
    let (a, b) = (f64s(3, &[4, 5]), f64s(4, &[3, 5]));
    let d = squared_distances(tape.var(&a), tape.var(&b)).value();
    for i in 0..4 {
        for j in 0..3 {
            let naive: f64 = (0..5).map(|k| (a.f64s()[5 * i + k] - b.f64s()[5 * j + k]).powi(2)).sum();
            assert!((d.f64s()[3 * i + j] - naive).abs() < 1e-12);
        }
    }
}

/// An embedding without batch norm.
fn plain() -> ProtoNet {
    ProtoNet::new(Model::new(zoo::mlp(&[5], 4, Tanh), [11, 3]))
}

fn weights(proto: &ProtoNet) -> Vec<Tensor> {
    proto.init(Key::new(5)).to_dtype(DType::F64).tensors().to_vec()
}

#[test]
fn the_loss_is_equation_2_of_the_paper() {
    let proto = plain();
    let tape = Tape::eager();
    let meta: Vec<_> = weights(&proto).iter().map(|w| tape.var(w)).collect();
    let task = task(&tape, SUPPORT_LABELS, QUERY_LABELS);
    let played = proto.play(&meta, &[], &task);
    let z = |x| proto.model.forward(&meta, x).value().f64s().chunks(4).map(<[f64]>::to_vec).collect::<Vec<_>>();
    let (support, query) = (z(task.support_x), z(task.query_x));
    let (mut loss, mut right) = (0.0, 0);
    for (q, &label) in query.iter().zip(&QUERY_LABELS) {
        let distances: Vec<f64> = (0..3)
            .map(|class| {
                let members: Vec<_> = (0..7).filter(|&i| SUPPORT_LABELS[i] == class).map(|i| &support[i]).collect();
                let mean = |d: usize| members.iter().map(|m| m[d]).sum::<f64>() / members.len() as f64;
                (0..4).map(|d| (q[d] - mean(d)).powi(2)).sum()
            })
            .collect();
        let total: f64 = distances.iter().map(|d| (-d).exp()).sum();
        loss -= ((-distances[label as usize]).exp() / total).ln() / 4.0;
        right += usize::from(distances.iter().all(|&d| d >= distances[label as usize]));
    }
    assert!((played.loss.value().item() - loss).abs() < 1e-12);
    assert_eq!(played.metric.value().item(), right as f64 / 4.0);
}

#[test]
fn gradients_agree_with_finite_differences() {
    let layers = Sequential::new().then(Linear::new(5)).then(BatchNorm::new()).then(Tanh).then(Linear::new(4));
    let proto = ProtoNet::new(Model::new(layers, [11, 3]));
    fn loss<'t>(proto: &ProtoNet, meta: &[Var<'t>]) -> Var<'t> {
        let tape = meta[0].tape();
        let state = proto.init_state().to_dtype(DType::F64).bind(tape);
        proto.play(meta, &state, &task(tape, SUPPORT_LABELS, QUERY_LABELS)).loss
    }
    check_grads(|meta| vec![loss(&proto, meta)], &weights(&proto), 2, 1e-7, Key::new(6)).unwrap();
}

#[test]
fn renaming_the_classes_changes_nothing() {
    let proto = plain();
    let tape = Tape::eager();
    let meta: Vec<_> = weights(&proto).iter().map(|w| tape.var(w)).collect();
    let renamed = |labels: u32| [1, 2, 0][labels as usize];
    let a = proto.play(&meta, &[], &task(&tape, SUPPORT_LABELS, QUERY_LABELS));
    let b = proto.play(&meta, &[], &task(&tape, SUPPORT_LABELS.map(renamed), QUERY_LABELS.map(renamed)));
    assert_eq!(a.metric.value(), b.metric.value());
    assert!((a.loss.value().item() - b.loss.value().item()).abs() < 1e-12);
    for (a, b) in grad(a.loss, &meta).iter().zip(grad(b.loss, &meta)) {
        let pairs = a.value().f64s().iter().zip(b.value().f64s()).all(|(a, b)| (a - b).abs() < 1e-12);
        assert!(pairs);
    }
}
