//! PyTorch's numbers for derivatives of derivatives; `fixtures/make_fixtures.py` made them and says what they are.

use std::collections::HashMap;

use metaforge_autodiff::{Conv, DType, Tape, Tensor, Var, Window, grad, grad_detached, vjp};
use safetensors::{Dtype, SafeTensors};

struct Fixture(HashMap<String, Tensor>);

impl Fixture {
    fn read(name: &str) -> Fixture {
        let path = format!("{}/tests/fixtures/{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let read = |(name, t): (String, safetensors::tensor::TensorView<'_>)| {
            let words = t.data().chunks_exact(t.dtype().bitsize() / 8);
            let tensor = match t.dtype() {
                Dtype::F64 => {
                    Tensor::from_f64(t.shape(), words.map(|w| f64::from_le_bytes(w.try_into().unwrap())).collect())
                }
                Dtype::U32 => {
                    Tensor::from_u32(t.shape(), words.map(|w| u32::from_le_bytes(w.try_into().unwrap())).collect())
                }
                other => panic!("{name} is {other:?}"),
            };
            (name, tensor)
        };
        Fixture(tensors.tensors().into_iter().map(read).collect())
    }

    fn get(&self, name: &str) -> &Tensor {
        self.0.get(name).unwrap_or_else(|| panic!("no {name} among {:?}", self.0.keys()))
    }

    /// Agreement to 1e-9 of the largest number.
    fn agrees(&self, name: &str, ours: Var<'_>) {
        let (theirs, ours) = (self.get(name), ours.value());
        assert_eq!(theirs.len(), ours.len(), "{name}");
        let scale = theirs.f64s().iter().fold(1e-12f64, |m, v| m.max(v.abs()));
        for (a, b) in theirs.f64s().iter().zip(ours.f64s()) {
            assert!((a - b).abs() <= 1e-9 * scale, "{name}: {a} and {b} at scale {scale}");
        }
    }
}

const POOL: Window = Window { kernel: [2; 2], stride: [2; 2], pad: [[0; 2]; 2] };

fn cross_entropy<'t>(logits: Var<'t>, labels: Var<'t>) -> Var<'t> {
    -logits.log_softmax().take_last(labels).mean()
}

#[test]
fn second_order_maml_of_a_conv4() {
    let fixture = Fixture::read("maml_conv4");
    let mut names: Vec<String> = Vec::new();
    for i in 1..=4 {
        names.extend([format!("conv{i}.weight"), format!("norm{i}.gamma"), format!("norm{i}.beta")]);
    }
    names.extend(["linear.weight".into(), "linear.bias".into()]);
    let eps = fixture.get("bn_eps").item();
    let lr = fixture.get("inner_lr").item();
    fn net<'t>(p: &[Var<'t>], x: Var<'t>, eps: f64) -> Var<'t> {
        let features = (0..4).fold(x, |h, i| {
            let h = h.conv2d(p[3 * i], Conv::new().pad(1)).normalize(0, 1, eps) * p[3 * i + 1] + p[3 * i + 2];
            h.relu().max_pool2d(POOL)
        });
        features.reshape([x.shape()[0], p[12].shape()[0]]).matmul(p[12]) + p[13]
    }
    for (steps, first_order) in [(1, false), (5, false), (1, true)] {
        let tape = Tape::eager();
        let at = |name: &str| tape.constant(fixture.get(name));
        let theta: Vec<Var<'_>> = names.iter().map(|n| tape.var(fixture.get(&format!("param.{n}")))).collect();
        let mut fast = theta.clone();
        for step in 0..steps {
            let loss = cross_entropy(net(&fast, at("support.x"), eps), at("support.y"));
            let g = if first_order { grad_detached(loss, &fast) } else { grad(loss, &fast) };
            if step == 0 {
                fixture.agrees("support_loss", loss);
                names.iter().zip(&g).for_each(|(n, &g)| fixture.agrees(&format!("support_grad.{n}"), g));
            }
            fast = fast.iter().zip(g).map(|(&w, g)| w - g * lr).collect();
        }
        let logits = net(&fast, at("query.x"), eps);
        let loss = cross_entropy(logits, at("query.y"));
        let prefix = if first_order { "steps1.first_order".to_string() } else { format!("steps{steps}.grad") };
        fixture.agrees(&format!("steps{steps}.query_loss"), loss);
        fixture.agrees(&format!("steps{steps}.query_logits"), logits);
        for (name, g) in names.iter().zip(grad(loss, &theta)) {
            fixture.agrees(&format!("{prefix}.{name}"), g);
        }
    }
}

#[test]
fn the_gradient_of_a_gradient_penalty() {
    let fixture = Fixture::read("gradient_penalty");
    let tape = Tape::eager();
    let at = |name: &str| tape.constant(fixture.get(name));
    let names = ["conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias", "linear.weight", "linear.bias"];
    let p: Vec<Var<'_>> = names.iter().map(|n| tape.var(fixture.get(&format!("param.{n}")))).collect();
    let slope = fixture.get("slope").item();
    let conv = Conv::new().stride(2).pad(1);
    fn critic_of<'t>(p: &[Var<'t>], x: Var<'t>, conv: Conv, slope: f64) -> Var<'t> {
        let h = (x.conv2d(p[0], conv) + p[1]).leaky_relu(slope);
        let h = (h.conv2d(p[2], conv) + p[3]).leaky_relu(slope);
        h.reshape([x.shape()[0], p[4].shape()[0]]).matmul(p[4]) + p[5]
    }
    let (real, fake, eps) = (at("real"), at("fake"), at("eps"));
    let mixed = eps * real + (1.0 - eps) * fake;
    fixture.agrees("interpolated", mixed);
    let score = critic_of(&p, mixed, conv, slope);
    let g = grad(score.sum(), &[mixed])[0];
    let norm = g.square().sum_axes(&[1, 2, 3], false).sqrt();
    let penalty = (norm - 1.0).square().mean() * fixture.get("lambda").item();
    fixture.agrees("score", score);
    fixture.agrees("input_grad", g);
    fixture.agrees("norm", norm);
    fixture.agrees("penalty", penalty);
    names.iter().zip(grad(penalty, &p)).for_each(|(n, g)| fixture.agrees(&format!("penalty_grad.{n}"), g));
    let loss = critic_of(&p, fake, conv, slope).mean() - critic_of(&p, real, conv, slope).mean() + penalty;
    fixture.agrees("loss", loss);
    names.iter().zip(grad(loss, &p)).for_each(|(n, g)| fixture.agrees(&format!("loss_grad.{n}"), g));
}

/// `first.I = (dy/dI)' v`, and `second.J` is the gradient of the sum of `<u.I, first.I>`.
fn double_backward<F>(fixture: &Fixture, op: &str, inputs: &[&str], f: F)
where
    F: for<'t> Fn(&[Var<'t>]) -> Var<'t>,
{
    let tape = Tape::eager();
    let xs: Vec<Var<'_>> = inputs.iter().map(|i| tape.var(fixture.get(&format!("{op}.in.{i}")))).collect();
    let y = f(&xs);
    fixture.agrees(&format!("{op}.y"), y);
    let v = tape.var(fixture.get(&format!("{op}.v"))).reshape(y.shape());
    let first = vjp(&[y], &[v], &xs);
    let mut dot = tape.scalar(0.0, DType::F64);
    for (i, &g) in inputs.iter().zip(&first) {
        fixture.agrees(&format!("{op}.first.{i}"), g);
        dot = dot + (g * tape.constant(fixture.get(&format!("{op}.u.{i}")))).sum();
    }
    let targets: Vec<Var<'_>> = xs.iter().copied().chain([v]).collect();
    for (j, g) in inputs.iter().chain(&["v"]).zip(grad(dot, &targets)) {
        fixture.agrees(&format!("{op}.second.{j}"), g);
    }
}

#[test]
fn double_backward_of_the_layers() {
    let fixture = Fixture::read("double_backward");
    let check =
        |op: &str, inputs: &[&str], f: &dyn for<'t> Fn(&[Var<'t>]) -> Var<'t>| double_backward(&fixture, op, inputs, f);
    let eps = fixture.get("batch_norm.eps").item();
    check("batch_norm", &["x", "gamma", "beta"], &|x| x[0].normalize(0, 1, eps) * x[1] + x[2]);
    check("max_pool", &["x"], &|x| x[0].max_pool2d(POOL));
    check("max_pool_overlap", &["x"], &|x| {
        x[0].max_pool2d(Window { kernel: [3; 2], stride: [2; 2], pad: [[1; 2]; 2] })
    });
    check("avg_pool", &["x"], &|x| x[0].avg_pool2d(POOL));
    check("conv", &["x", "w", "b"], &|x| x[0].conv2d(x[1], Conv::new().pad(1)) + x[2]);
    let general = Conv { stride: [2, 1], pad: [[2; 2], [1; 2]], dilation: [2, 1], groups: 2 };
    check("conv_general", &["x", "w"], &|x| x[0].conv2d(x[1], general));
    let up = Conv::new().stride(2).pad(1);
    check("conv_transpose_4x4", &["x", "w", "b"], &|x| x[0].conv_transpose2d(x[1], up, [6, 8]) + x[2]);
    check("conv_transpose_3x3", &["x", "w", "b"], &|x| x[0].conv_transpose2d(x[1], up, [6, 8]) + x[2]);
    check("log_softmax", &["x"], &|x| x[0].log_softmax());
    let labels = fixture.get("cross_entropy.labels").clone();
    check("cross_entropy", &["x"], &|x| cross_entropy(x[0], x[0].tape().constant(&labels)).reshape([1]));
    check("linear_tanh", &["x", "w", "b"], &|x| (x[0].matmul(x[1]) + x[2]).tanh());
}
