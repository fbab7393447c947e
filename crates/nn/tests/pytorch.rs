//! A state dict that PyTorch wrote, and what its model gives for an input.

use metaforge_autodiff::{DType, Tape, Tensor};
use metaforge_nn::{BatchNorm, Conv2d, Flatten, Linear, Mode, Model, Params, Relu, Sequential, file};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");

fn model() -> Model {
    let net = Sequential::new()
        .then(Conv2d::new(4, 3).pad(1))
        .then(BatchNorm::new())
        .then(Relu)
        .then(Flatten)
        .then(Linear::new(3));
    Model::new(net, [2, 6, 5, 2])
}

fn loaded() -> (Params, Params) {
    file::load_pytorch(format!("{FIXTURES}/sequential.safetensors"), &model()).unwrap()
}

fn io(name: &str) -> Tensor {
    file::read(format!("{FIXTURES}/sequential_io.safetensors")).unwrap().get(name).unwrap().clone()
}

fn assert_close(ours: &Tensor, theirs: &Tensor, what: &str) {
    assert_eq!(ours.shape(), theirs.shape(), "{what}");
    for (a, b) in ours.to_f64_vec().into_iter().zip(theirs.to_f64_vec()) {
        assert!((a - b).abs() < 2e-6 * (1.0 + b.abs()), "{what}: {a} is not {b}");
    }
}

#[test]
fn the_model_gives_what_pytorch_gives() {
    let (model, (params, state)) = (model(), loaded());
    let nchw = io("input");
    for dtype in [DType::F32, DType::F64] {
        let tape = Tape::eager();
        let x = tape.constant(&nchw.to_dtype(dtype)).permute(&[0, 2, 3, 1]);
        let (weights, running) = (params.to_dtype(dtype).bind(&tape), state.to_dtype(dtype).bind(&tape));
        let (eval, same) = model.apply(&weights, &running, x, Mode::Eval, None);
        assert_close(&eval.value(), &io("output_eval"), "eval");
        assert_eq!(same[0].value(), running[0].value());
        let (train, moved) = model.apply(&weights, &running, x, Mode::Train, None);
        assert_close(&train.value(), &io("output_train"), "train");
        assert_close(&moved[0].value(), &io("running_mean_after"), "running mean");
        assert_close(&moved[1].value(), &io("running_var_after"), "running variance");
        let (batch, still) = model.apply(&weights, &running, x, Mode::Batch, None);
        assert_eq!(batch.value(), train.value());
        assert_eq!(still[1].value(), running[1].value());
        assert_eq!(model.forward(&weights, x).value(), batch.value());
    }
}

#[test]
fn writing_what_was_read_gives_the_same_tensors() {
    let (params, state) = loaded();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("again.safetensors");
    file::save_pytorch(&path, &model(), &params, &state).unwrap();
    assert_eq!(file::load_pytorch(&path, &model()).unwrap(), (params, state));
}
