//! Whole training steps: a small network learns, and a compiled step is the eager one to the bit.

use metaforge_autodiff::{Key, Par, Program, Tape, Tensor, Var, grad};
use metaforge_nn::{
    Adam, BatchNorm, Conv2d, Dropout, Flatten, LeakyRelu, Linear, MaxPool2d, Mode, Model, Optimizer, Params,
    Sequential, Tanh, clip, ema, losses, zoo,
};

#[test]
fn a_small_network_learns_xor() {
    let model = Model::new(zoo::mlp(&[8], 1, Tanh), [4, 2]);
    let adam = Adam::default();
    let x = Tensor::new([4, 2], vec![0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0]);
    let y = Tensor::new([4, 1], vec![0.0, 1.0, 1.0, 0.0]);
    let mut params = model.init(Key::new(3));
    let mut state = adam.init(&params.avals());
    let n = params.len();
    let avals = [params.avals(), state.avals()].concat();
    let step = Program::trace(&avals, |tape, ins| {
        let (weights, moments) = ins.split_at(n);
        let logits = model.forward(weights, tape.constant(&x));
        let loss = losses::bce_with_logits(logits, tape.constant(&y));
        let lr = tape.scalar(0.05, loss.dtype());
        let (weights, moments) = adam.update(weights, &grad(loss, weights), moments, lr);
        [weights, moments, vec![loss]].concat()
    });
    let mut workspace = step.workspace();
    let mut loss = f64::NAN;
    for _ in 0..300 {
        let inputs: Vec<&Tensor> = params.tensors().iter().chain(state.tensors()).collect();
        step.run(&mut workspace, &inputs, Par::Seq);
        params.update_from(&step, &workspace, 0);
        state.update_from(&step, &workspace, n);
        loss = step.output(&workspace, n + state.len()).item();
    }
    assert!(loss < 0.02, "the loss is still {loss}");
    let tape = Tape::eager();
    let logits = model.forward(&params.bind(&tape), tape.constant(&x)).value();
    let right = logits.f32s().iter().zip(y.f32s()).all(|(&l, &y)| (l > 0.0) == (y == 1.0));
    assert!(right, "{logits:?}");
}

fn net() -> Model {
    let net = Sequential::new()
        .then(Conv2d::new(5, 3).pad(1))
        .then(BatchNorm::new())
        .then(LeakyRelu::new(0.2))
        .then(MaxPool2d::new(2))
        .then(Dropout::new(0.3))
        .then(Conv2d::new(4, 3).stride(2).same().no_bias())
        .then(BatchNorm::plain())
        .then(Flatten)
        .then(Dropout::new(0.1))
        .then(Linear::new(3));
    Model::new(net, [6, 8, 7, 2])
}

/// One step of training with everything in it: new parameters, optimiser state, running statistics, averages, and the loss.
fn step<'t>(model: &Model, adam: &Adam, counts: [usize; 3], ins: &[Var<'t>]) -> Vec<Var<'t>> {
    let (params, rest) = ins.split_at(counts[0]);
    let (moments, rest) = rest.split_at(counts[1]);
    let (running, rest) = rest.split_at(counts[2]);
    let (averages, rest) = rest.split_at(counts[0]);
    let [x, labels, key, lr] = rest[..] else { panic!("{} inputs too many", rest.len()) };
    let (logits, running) = model.apply(params, running, x, Mode::Train, Some(key));
    let loss = losses::cross_entropy_smoothed(logits, labels, 0.1);
    let gradients = clip::clip_by_global_norm(&grad(loss, params), 0.5);
    let (params, moments) = adam.update(params, &gradients, moments, lr);
    let averages = ema(averages, &params, 0.99);
    [params, moments, running, averages, vec![loss, losses::accuracy(logits, labels)]].concat()
}

#[test]
fn a_compiled_step_is_the_eager_one_to_the_bit() {
    let (model, adam) = (net(), Adam { weight_decay: 1e-3, ..Adam::default() });
    let params = model.init(Key::new(5));
    let moments = adam.init(&params.avals());
    let running = model.init_state();
    let counts = [params.len(), moments.len(), running.len()];
    let x = Key::new(6).normal([6, 8, 7, 2], 0.0, 1.0);
    let given = [x, Tensor::from_u32([6], vec![0, 1, 2, 0, 1, 2]), Key::new(7).tensor(), Tensor::scalar(0.01)];
    let lists: [&Params; 4] = [&params, &moments, &running, &params];
    let mut inputs: Vec<Tensor> = lists.iter().flat_map(|p| p.tensors().to_vec()).chain(given).collect();
    let avals: Vec<_> = inputs.iter().map(Tensor::aval).collect();
    let program = Program::trace(&avals, |_, ins| step(&model, &adam, counts, ins));
    let mut workspace = program.workspace();
    for round in 0..3 {
        let tape = Tape::eager();
        let vars: Vec<Var<'_>> = inputs.iter().map(|t| tape.var(t)).collect();
        let eager: Vec<Tensor> = step(&model, &adam, counts, &vars).iter().map(|v| v.value()).collect();
        for par in [Par::Seq, Par::Rayon] {
            program.run(&mut workspace, &inputs.iter().collect::<Vec<_>>(), par);
            for (i, value) in eager.iter().enumerate() {
                let compiled = program.output(&workspace, i).to_tensor();
                assert_eq!(compiled.aval(), value.aval());
                assert!(
                    compiled.bytes() == value.bytes(),
                    "round {round}, {par:?}, output {i}: {compiled:?}, not {value:?}"
                );
            }
        }
        let fed_back = eager.len() - 2;
        inputs.splice(..fed_back, eager[..fed_back].to_vec());
    }
}

#[test]
fn dropout_draws_by_key_alone() {
    let (model, tape) = (net(), Tape::eager());
    let (params, state) = (model.init(Key::new(5)).bind(&tape), model.init_state().bind(&tape));
    let x = tape.constant(&Key::new(6).normal([6, 8, 7, 2], 0.0, 1.0));
    let run = |mode: Mode, key: u64| {
        model.apply(&params, &state, x, mode, Some(tape.constant(&Key::new(key).tensor()))).0.value()
    };
    assert_eq!(run(Mode::Train, 1), run(Mode::Train, 1));
    assert_ne!(run(Mode::Train, 1), run(Mode::Train, 2));
    assert_eq!(run(Mode::Batch, 1), run(Mode::Batch, 2));
    assert_eq!(run(Mode::Eval, 1), run(Mode::Eval, 2));
}
