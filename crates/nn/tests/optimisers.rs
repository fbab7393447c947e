//! Optimisers against PyTorch's numbers, and what can be said of their derivatives.

use metaforge_autodiff::{Aval, DType, Key, Tape, Tensor, Var, check_grads, grad};
use metaforge_nn::{Adam, AdamW, Optimizer, Params, RmsProp, Sgd, ema, file};

/// The settings of `fixtures/make_fixtures.py`.
fn kinds() -> Vec<(&'static str, Box<dyn Optimizer>)> {
    let rms = RmsProp { alpha: 0.9, ..RmsProp::default() };
    vec![
        ("sgd", Box::new(Sgd::new())),
        ("sgd_momentum", Box::new(Sgd::momentum(0.9))),
        ("sgd_nesterov", Box::new(Sgd::nesterov(0.9))),
        ("sgd_momentum_decay", Box::new(Sgd { weight_decay: 0.05, ..Sgd::momentum(0.9) })),
        ("rmsprop", Box::new(RmsProp::default())),
        ("rmsprop_momentum", Box::new(RmsProp { momentum: 0.9, ..rms })),
        ("rmsprop_centered", Box::new(RmsProp { centered: true, ..rms })),
        ("adam", Box::new(Adam::default())),
        ("adam_gan", Box::new(Adam::betas(0.5, 0.9))),
        ("adam_decay", Box::new(Adam { weight_decay: 0.05, ..Adam::default() })),
        ("adam_amsgrad", Box::new(Adam { amsgrad: true, ..Adam::betas(0.9, 0.99) })),
        ("adamw", Box::new(AdamW { weight_decay: 0.05, ..AdamW::default() })),
    ]
}

fn fixture() -> Params {
    file::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/optimisers.safetensors")).unwrap()
}

/// The largest relative difference to PyTorch's parameters over ten steps.
fn difference(name: &str, optimiser: &dyn Optimizer, dtype: DType) -> f64 {
    let fixture = fixture();
    let of = |name: &str| fixture.get(name).unwrap_or_else(|| panic!("the fixture has no {name}"));
    let mut params: Params =
        ["a", "b"].iter().map(|k| (k.to_string(), of(&format!("param.{k}")).to_dtype(dtype))).collect();
    let mut state = optimiser.init(&params.avals());
    let lr = of(&format!("{name}.lr")).item();
    let mut worst: f64 = 0.0;
    for t in 0..10 {
        let tape = Tape::eager();
        let row = |name: String| {
            let row = of(&name).rows(t, 1);
            row.reshape(&row.shape()[1..])
        };
        let grads: Vec<_> =
            ["a", "b"].iter().map(|k| tape.constant(&row(format!("grad.{k}")).to_dtype(dtype))).collect();
        let (moved, new) = optimiser.update(&params.bind(&tape), &grads, &state.bind(&tape), tape.scalar(lr, dtype));
        params = params.with_tensors(moved.iter().map(|v| v.value()).collect());
        state = state.with_tensors(new.iter().map(|v| v.value()).collect());
        for (k, ours) in params.iter() {
            let theirs = row(format!("{name}.{k}")).to_f64_vec();
            for (ours, theirs) in ours.to_f64_vec().into_iter().zip(theirs) {
                worst = worst.max((ours - theirs).abs() / (1.0 + theirs.abs()));
            }
        }
    }
    worst
}

#[test]
fn ten_steps_are_pytorchs() {
    for (name, optimiser) in kinds() {
        let (double, single) = (difference(name, &*optimiser, DType::F64), difference(name, &*optimiser, DType::F32));
        assert!(double < 1e-12, "{name} in f64 differs by {double}");
        assert!(single < 1e-6, "{name} in f32 differs by {single}");
    }
}

#[test]
fn the_state_is_named_and_shaped_as_the_update_returns_it() {
    let avals = [Aval::new([3, 2], DType::F32), Aval::new([4], DType::F32)];
    for (name, optimiser) in kinds() {
        let state = optimiser.init(&avals);
        let tape = Tape::eager();
        let params: Vec<_> = avals.iter().map(|a| tape.full(a.shape, 0.5, a.dtype)).collect();
        let (_, new) = optimiser.update(&params, &params, &state.bind(&tape), tape.scalar(0.1, DType::F32));
        let new: Vec<Aval> = new.iter().map(|v| v.aval()).collect();
        assert_eq!(new, state.avals(), "{name}");
    }
    let names = Adam::default().init(&avals);
    assert_eq!(names.names().collect::<Vec<_>>(), ["m.0", "m.1", "v.0", "v.1", "t"]);
}

/// The parameter after two steps on a quartic, as a function of where it starts and of the rate.
fn two_steps<'t>(optimiser: &dyn Optimizer, state: &Params, start: Var<'t>, lr: Var<'t>) -> Vec<Var<'t>> {
    let (mut p, mut s) = (vec![start], state.bind(lr.tape()));
    for _ in 0..2 {
        let loss = (p[0].square().square() + p[0] * 0.3).sum();
        let g = grad(loss, &p);
        (p, s) = optimiser.update(&p, &g, &s, lr);
    }
    p
}

#[test]
fn two_steps_can_be_differentiated_twice() {
    for (name, optimiser) in kinds() {
        let state = optimiser.init(&[Aval::new([3], DType::F64)]);
        let start = Tensor::from_f64([3], vec![0.9, -0.6, 1.4]);
        let rate = Tensor::from_f64([], vec![0.02]);
        check_grads(|x| two_steps(&*optimiser, &state, x[0], x[1]), &[start, rate], 2, 1e-6, Key::new(4))
            .unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

#[test]
fn derivatives_are_finite_at_a_zero_gradient() {
    let adaptive: [(&str, Box<dyn Optimizer>); 5] = [
        ("rmsprop", Box::new(RmsProp::default())),
        ("rmsprop_centered", Box::new(RmsProp { centered: true, ..RmsProp::default() })),
        ("adam", Box::new(Adam::default())),
        ("adam_amsgrad", Box::new(Adam { amsgrad: true, ..Adam::default() })),
        ("adamw", Box::new(AdamW::default())),
    ];
    for (name, optimiser) in adaptive {
        for dtype in [DType::F32, DType::F64] {
            // From zero, through the smallest numbers, to the ordinary.
            let sizes = [0.0, 1e-40, 1e-30, 1e-20, 1e-14, 1e-12, 3e-11, 1e-10, 1e-8, 1e-4, 1.0];
            for size in sizes {
                let tape = Tape::eager();
                let g = tape.var(&Tensor::full([1], size, dtype));
                let p = tape.constant(&Tensor::full([1], 0.5, dtype));
                let state = optimiser.init(&[p.aval()]).bind(&tape);
                let (moved, _) = optimiser.update(&[p], &[g], &state, tape.scalar(1e-3, dtype));
                let first = grad(moved[0].sum(), &[g])[0];
                let second = grad(first.sum(), &[g])[0];
                for (order, value) in [moved[0], first, second].into_iter().enumerate() {
                    assert!(
                        value.value().is_finite(),
                        "{name} in {dtype}, gradient {size}: order {order} is {value:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn an_average_follows_its_parameter() {
    let tape = Tape::eager();
    let target = tape.constant(&Tensor::new([2], vec![1.0, -2.0]));
    let mut average = vec![tape.zeros([2], DType::F32)];
    for _ in 0..7 {
        average = ema(&average, &[target], 0.9);
    }
    // 1 - 0.9^7 of the way.
    let share = 1.0 - 0.9f32.powi(7);
    for (a, t) in average[0].value().f32s().iter().zip([1.0, -2.0]) {
        assert!((a - share * t).abs() < 1e-6, "{a}");
    }
}
