//! Derivatives of layers and losses, in their inputs and their parameters, against finite differences in `f64`, twice over.

use metaforge_autodiff::{DType, Key, Tensor, Var, check_grads};
use metaforge_nn::*;

/// Checks a layer's derivatives of the first and second order in every mode.
fn check(name: &str, layer: impl Layer + 'static, shape: &[usize]) {
    let key = Key::new(23);
    let model = Model::new(layer, shape);
    let draw = |t: &Tensor, i: u64, low: f32| key.fold(i).uniform(t.shape(), low, 1.5).to_dtype(DType::F64);
    // Neither parameters nor running statistics are where they start.
    let params = model.init(key);
    let params = params.tensors().iter().zip(100..).map(|(p, i)| draw(p, i, -0.5));
    let state: Vec<Tensor> = model.state_specs().iter().zip(200..).map(|(s, i)| draw(&s.start, i, 0.5)).collect();
    let x = key.fold(1).normal(shape, 0.0, 1.0).to_dtype(DType::F64);
    let inputs: Vec<Tensor> = [x].into_iter().chain(params).collect();
    for mode in [Mode::Train, Mode::Batch, Mode::Measure, Mode::Eval] {
        check_grads(|ins| output(&model, &state, ins, mode), &inputs, 2, 1e-6, key.fold(2))
            .unwrap_or_else(|e| panic!("{name}, {mode:?}: {e}"));
    }
}

/// The model's output for the input `ins[0]` and the parameters behind it.
fn output<'t>(model: &Model, state: &[Tensor], ins: &[Var<'t>], mode: Mode) -> Vec<Var<'t>> {
    let tape = ins[0].tape();
    let state: Vec<Var<'t>> = state.iter().map(|s| tape.constant(s)).collect();
    let key = tape.constant(&Key::new(29).tensor());
    vec![model.apply(&ins[1..], &state, ins[0], mode, Some(key)).0]
}

#[test]
fn of_layers() {
    check("linear", Linear::new(4), &[3, 5]);
    check("conv", Conv2d::new(4, 3).stride(2).pad(1).groups(2), &[2, 5, 4, 2]);
    check("dilated conv", Conv2d::new(3, 2).dilation(2).same(), &[2, 4, 5, 2]);
    check("transposed conv", ConvTranspose2d::new(4, 3).stride(2).pad(1).output_padding(1).groups(2), &[2, 3, 2, 2]);
    check("sequence conv", Conv1d::new(3, 3).causal(), &[2, 6, 2]);
    check("batch norm", BatchNorm::new(), &[3, 2, 2, 2]);
    check("batch norm of rows", BatchNorm::new(), &[5, 3]);
    check("layer norm", LayerNorm::new(), &[3, 5]);
    check("layer norm of images", LayerNorm::over(3), &[2, 3, 2, 2]);
    check("instance norm", InstanceNorm::affine(), &[2, 3, 2, 2]);
    check("dropout", Dropout::new(0.4), &[4, 5]);
    check("flatten", Flatten, &[2, 3, 2, 3]);
    check("max pool", MaxPool2d::new(2).pad(1), &[2, 4, 5, 2]);
    check("average pool", AvgPool2d::new(3).stride(2).pad(1), &[2, 5, 4, 2]);
    check("global pool", GlobalAvgPool, &[2, 3, 3, 2]);
    check("upsampling", UpsampleNearest::new(2), &[2, 2, 3, 2]);
}

#[test]
fn of_activations() {
    let shape = &[4, 6];
    check("relu", Relu, shape);
    check("leaky relu", LeakyRelu::new(0.2), shape);
    check("prelu", PRelu, shape);
    check("elu", Elu::new(1.3), shape);
    check("gelu", Gelu, shape);
    check("silu", Silu, shape);
    check("softplus", Softplus, shape);
    check("tanh", Tanh, shape);
    check("sigmoid", Sigmoid, shape);
}

#[test]
fn of_networks() {
    let block = Sequential::new().then(Conv2d::new(3, 3).pad(1)).then(BatchNorm::new()).then(Softplus);
    let net = Sequential::new()
        .then(Residual::new(block).project(Conv2d::new(3, 1)))
        .then(AvgPool2d::new(2))
        .then(Dropout::new(0.2))
        .then(Flatten)
        .then(LayerNorm::new())
        .then(Linear::new(2));
    check("a network", net, &[2, 4, 4, 2]);
}

type Loss = for<'t> fn(Var<'t>, Var<'t>) -> Var<'t>;

#[test]
fn of_losses() {
    let key = Key::new(31);
    let double = |t: Tensor| t.to_dtype(DType::F64);
    let x = double(key.fold(0).normal([4, 3], 0.0, 2.0));
    let y = double(key.fold(1).uniform([4, 3], 0.0, 1.0));
    let dense: [(&str, Loss); 5] = [
        ("mse", |x, y| losses::mse(x, y)),
        ("l1", |x, y| losses::l1(x, y)),
        ("huber", |x, y| losses::huber(x, y, 0.7)),
        ("bce", |x, y| losses::bce_with_logits(x, y)),
        ("soft cross-entropy", |x, y| losses::cross_entropy_soft(x, y)),
    ];
    for (name, loss) in dense {
        check_grads(|v| vec![loss(v[0], v[1])], &[x.clone(), y.clone()], 2, 1e-6, key)
            .unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    let labels = Tensor::from_u32([4], vec![2, 0, 1, 1]);
    let classes: [(&str, Loss); 2] = [
        ("cross-entropy", |x, l| losses::cross_entropy(x, l)),
        ("smoothed", |x, l| losses::cross_entropy_smoothed(x, l, 0.1)),
    ];
    for (name, loss) in classes {
        check_grads(|v| vec![loss(v[0], v[1])], &[x.clone(), labels.clone()], 2, 1e-6, key)
            .unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

#[test]
fn of_clipping() {
    let key = Key::new(37);
    let gradients = [
        key.fold(0).normal([3], 0.0, 1.0).to_dtype(DType::F64),
        key.fold(1).normal([2, 2], 0.0, 1.0).to_dtype(DType::F64),
    ];
    for max in [0.5, 50.0] {
        check_grads(|g| clip::clip_by_global_norm(g, max), &gradients, 2, 1e-6, key).unwrap();
        check_grads(|g| clip::clip_by_value(g, max), &gradients, 2, 1e-6, key).unwrap();
    }
}
