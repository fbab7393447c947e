//! Layers against their definitions, written out in plain loops.

use metaforge_autodiff::{DType, Key, Shape, Tape, Tensor};
use metaforge_nn::*;

/// The output of a layer in a mode, its new state, and its parameters (drawn, as `f64`).
fn play(layer: impl Layer + 'static, x: &Tensor, mode: Mode) -> (Tensor, Params, Params) {
    let model = Model::new(layer, x.shape());
    let mut params = model.init(Key::new(17)).to_dtype(x.dtype());
    if !x.dtype().is_float() {
        params = model.init(Key::new(17));
    }
    let state = model.init_state().to_dtype(x.dtype());
    let tape = Tape::eager();
    let key = tape.constant(&Key::new(18).tensor());
    let (y, new) = model.apply(&params.bind(&tape), &state.bind(&tape), tape.constant(x), mode, Some(key));
    assert_eq!(y.shape(), model.output(), "{model:?} announces another shape than it gives");
    (y.value(), state.with_tensors(new.iter().map(|v| v.value()).collect()), params)
}

fn out(layer: impl Layer + 'static, x: &Tensor) -> Vec<f64> {
    play(layer, x, Mode::Batch).0.to_f64_vec()
}

fn image(shape: impl Into<Shape>) -> Tensor {
    Key::new(19).normal(shape, 0.3, 1.0).to_dtype(DType::F64)
}

fn row(numbers: &[f64]) -> Tensor {
    Tensor::from_f64([1, numbers.len()], numbers.to_vec())
}

#[track_caller]
fn assert_close(a: &[f64], b: &[f64]) {
    assert_eq!(a.len(), b.len());
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert!((a - b).abs() < 1e-10 * (1.0 + b.abs()), "number {i}: {a} is not {b}");
    }
}

/// Sum over all taps of a convolution, from its definition; `at(kh, kw, ci, co)` reads the weight.
fn correlate(x: &Tensor, w: &Tensor, layer: &Conv2d, before: [usize; 2], out: [usize; 2]) -> Vec<f64> {
    let [n, h, wd, c] = x.shape().try_into().unwrap();
    let (xs, ws) = (x.to_f64_vec(), w.to_f64_vec());
    let ([kh, kw], per_group) = (layer.kernel, c / layer.groups);
    let mut y = Vec::new();
    for image in 0..n {
        for (oy, ox) in (0..out[0]).flat_map(|oy| (0..out[1]).map(move |ox| (oy, ox))) {
            for o in 0..layer.out {
                let group = o / (layer.out / layer.groups);
                let mut sum = 0.0;
                for (ky, kx, i) in
                    (0..kh).flat_map(|a| (0..kw).flat_map(move |b| (0..per_group).map(move |i| (a, b, i))))
                {
                    let iy = (oy * layer.stride[0] + ky * layer.dilation[0]).wrapping_sub(before[0]);
                    let ix = (ox * layer.stride[1] + kx * layer.dilation[1]).wrapping_sub(before[1]);
                    if iy < h && ix < wd {
                        let pixel = xs[((image * h + iy) * wd + ix) * c + group * per_group + i];
                        sum += pixel * ws[((ky * kw + kx) * per_group + i) * layer.out + o];
                    }
                }
                y.push(sum);
            }
        }
    }
    y
}

#[test]
fn convolutions_follow_their_definition() {
    let x = image([2, 7, 6, 4]);
    // Each with the zeros above and left, and the size of the output.
    for (layer, before, size) in [
        (Conv2d::new(3, 3), [0, 0], [5, 4]),
        (Conv2d::new(3, 3).pad(1), [1, 1], [7, 6]),
        (Conv2d::new(6, 3).stride(2).pad(1).groups(2), [1, 1], [4, 3]),
        (Conv2d::new(5, 2).dilation(3).pad(2), [2, 2], [8, 7]),
        // Same at stride 2: of 7 rows come 4, one row of zeros above and below; of 6 columns 3, one column right.
        (Conv2d::new(3, 3).stride(2).same(), [1, 0], [4, 3]),
        // Same at stride 1 with an even kernel: the odd column goes right.
        (Conv2d::new(3, 4).same(), [1, 1], [7, 6]),
        (Conv2d { padding: Padding::Explicit([[2, 0], [0, 3]]), ..Conv2d::new(2, 3) }, [2, 0], [7, 7]),
        (Conv2d { kernel: [1, 5], stride: [2, 1], ..Conv2d::new(8, 1).groups(4) }, [0, 0], [4, 2]),
    ] {
        let (y, _, params) = play(layer.no_bias(), &x, Mode::Batch);
        assert_eq!(y.shape(), [2, size[0], size[1], layer.out]);
        assert_close(&y.to_f64_vec(), &correlate(&x, &params.tensors()[0], &layer, before, size));
        let (biased, _, params) = play(layer, &x, Mode::Batch);
        let bias = params.get("bias").unwrap().to_f64_vec();
        let expected: Vec<f64> = y.to_f64_vec().iter().enumerate().map(|(i, y)| y + bias[i % layer.out]).collect();
        assert_close(&biased.to_f64_vec(), &expected);
    }
}

#[test]
fn transposed_convolutions_spread_each_pixel_as_pytorch_does() {
    let x = image([2, 3, 4, 4]);
    let (xs, c) = (x.to_f64_vec(), 4);
    for (layer, [oh, ow]) in [
        (ConvTranspose2d::new(3, 4).stride(2).pad(1), [6, 8]),
        (ConvTranspose2d::new(2, 3).stride(2).pad(1).output_padding(1), [6, 8]),
        (ConvTranspose2d::new(6, 3).groups(2), [5, 6]),
        (ConvTranspose2d::new(2, 2).stride(3).dilation(2), [9, 12]),
    ] {
        let (y, _, params) = play(layer, &x, Mode::Batch);
        assert_eq!(y.shape(), [2, oh, ow, layer.out]);
        let (w, bias) = (params.tensors()[0].to_f64_vec(), params.tensors()[1].to_f64_vec());
        let ([kh, kw], per_group) = (layer.kernel, layer.out / layer.groups);
        let mut expected: Vec<f64> = (0..y.len()).map(|i| bias[i % layer.out]).collect();
        for (at, pixel) in xs.iter().enumerate() {
            let (image, iy, ix, i) = (at / (12 * c), at / (4 * c) % 3, at / c % 4, at % c);
            let group = i / (c / layer.groups);
            for (ky, kx) in (0..kh).flat_map(|a| (0..kw).map(move |b| (a, b))) {
                let oy = (iy * layer.stride[0] + ky * layer.dilation[0]).wrapping_sub(layer.pad[0]);
                let ox = (ix * layer.stride[1] + kx * layer.dilation[1]).wrapping_sub(layer.pad[1]);
                if oy < oh && ox < ow {
                    for o in 0..per_group {
                        let to = ((image * oh + oy) * ow + ox) * layer.out + group * per_group + o;
                        expected[to] += pixel * w[((ky * kw + kx) * per_group + o) * c + i];
                    }
                }
            }
        }
        assert_close(&y.to_f64_vec(), &expected);
    }
}

#[test]
fn sequences_are_images_of_one_row() {
    let x = image([2, 9, 4]);
    let (y, _, params) = play(Conv1d::new(6, 3).stride(2).pad(2).dilation(2).groups(2).no_bias(), &x, Mode::Batch);
    let wide = Conv2d { kernel: [1, 3], stride: [1, 2], dilation: [1, 2], ..Conv2d::new(6, 1).groups(2) };
    let weight = params.tensors()[0].reshape([1, 3, 2, 6]);
    assert_eq!(y.shape(), [2, 5, 6]);
    assert_close(&y.to_f64_vec(), &correlate(&x.reshape([2, 1, 9, 4]), &weight, &wide, [0, 2], [1, 5]));
}

#[test]
fn a_causal_convolution_sees_no_future() {
    let x = image([1, 8, 2]);
    let mut later = x.f64s().to_vec();
    later[5 * 2..].fill(9.0);
    let layer = Conv1d::new(3, 2).dilation(2).causal();
    let (now, then) = (out(layer, &x), out(layer, &Tensor::from_f64([1, 8, 2], later)));
    assert_eq!(now.len(), 8 * 3);
    assert_eq!(now[..5 * 3], then[..5 * 3]);
    assert_ne!(now[5 * 3..], then[5 * 3..]);
}

#[test]
fn a_linear_layer_is_a_product_along_the_last_axis() {
    let x = image([2, 3, 4]);
    let (y, _, params) = play(Linear::new(5), &x, Mode::Batch);
    let (w, b, xs) = (params.tensors()[0].to_f64_vec(), params.tensors()[1].to_f64_vec(), x.to_f64_vec());
    let expected: Vec<f64> =
        (0..30).map(|at| b[at % 5] + (0..4).map(|i| xs[at / 5 * 4 + i] * w[i * 5 + at % 5]).sum::<f64>()).collect();
    assert_close(&y.to_f64_vec(), &expected);
}

#[test]
fn batch_norm_moves_its_statistics_as_pytorch_does() {
    for shape in [vec![6, 3], vec![2, 3, 4, 3]] {
        let x = image(shape);
        let (y, state, _) = play(BatchNorm::new(), &x, Mode::Train);
        let (xs, rows) = (x.to_f64_vec(), x.len() / 3);
        for c in 0..3 {
            let column: Vec<f64> = (0..rows).map(|r| xs[r * 3 + c]).collect();
            let mean = column.iter().sum::<f64>() / rows as f64;
            let squares = column.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
            let rstd = 1.0 / (squares / rows as f64 + 1e-5).sqrt();
            let ours: Vec<f64> = y.to_f64_vec()[c..].iter().step_by(3).copied().collect();
            assert_close(&ours, &column.iter().map(|v| (v - mean) * rstd).collect::<Vec<_>>());
            assert_close(&[state.tensors()[0].f64s()[c]], &[0.1 * mean]);
            assert_close(&[state.tensors()[1].f64s()[c]], &[0.9 + 0.1 * squares / (rows - 1) as f64]);
        }
        let (same, measured, _) = play(BatchNorm::new(), &x, Mode::Measure);
        assert_eq!(same, y);
        for (measured, (moved, start)) in measured.tensors().iter().zip(state.tensors().iter().zip([0.0, 1.0])) {
            let full: Vec<f64> = moved.f64s().iter().map(|v| start + (v - start) / 0.1).collect();
            assert_close(measured.f64s(), &full);
        }
        let (same, still, _) = play(BatchNorm::new(), &x, Mode::Batch);
        assert_eq!(same, y);
        assert_eq!(still.tensors()[1], Tensor::full([3], 1.0, DType::F64));
        // Statistics of zero and one leave x as it is, but for eps.
        let eval = play(BatchNorm::plain(), &x, Mode::Eval).0.to_f64_vec();
        assert_close(&eval, &xs.iter().map(|v| v / (1.0f64 + 1e-5).sqrt()).collect::<Vec<_>>());
    }
}

#[test]
fn a_constant_channel_has_no_variance() {
    let (y, state, _) = play(BatchNorm::new(), &Tensor::full([4, 2], 3.0, DType::F32), Mode::Train);
    assert_eq!(y.f32s(), [0.0; 8]);
    assert!(state.tensors()[1].f32s().iter().all(|v| (0.9..0.9 + 1e-6).contains(v)), "{state:?}");
}

#[test]
fn layer_and_instance_norm_follow_their_definition() {
    // `group` tells which numbers share a mean and a variance.
    let check = |layer: Box<dyn Layer>, x: &Tensor, group: &dyn Fn(usize) -> usize| {
        let (xs, y) = (x.to_f64_vec(), out(layer, x));
        for g in 0..=group(xs.len() - 1) {
            let members: Vec<usize> = (0..xs.len()).filter(|&at| group(at) == g).collect();
            let mean_of =
                |f: &dyn Fn(f64) -> f64| members.iter().map(|&at| f(xs[at])).sum::<f64>() / members.len() as f64;
            let mean = mean_of(&|v| v);
            let rstd = 1.0 / (mean_of(&|v| (v - mean).powi(2)) + 1e-5).sqrt();
            for &at in &members {
                assert_close(&[y[at]], &[(xs[at] - mean) * rstd]);
            }
        }
    };
    let x = image([2, 5, 4, 3]);
    check(Box::new(LayerNorm::new()), &x, &|at| at / 3);
    check(Box::new(LayerNorm::over(3)), &x, &|at| at / 60);
    check(Box::new(InstanceNorm::affine()), &x, &|at| at / 60 * 3 + at % 3);
    check(Box::new(InstanceNorm::new()), &image([4, 15, 2]), &|at| at / 30 * 2 + at % 2);
}

#[test]
fn dropout_keeps_the_expectation_and_masks_of_two_layers_differ() {
    let x = Tensor::full([200, 500], 1.0, DType::F32);
    let rate = 0.3;
    let once = play(Dropout::new(rate), &x, Mode::Train).0;
    let kept = (1.0 / (1.0 - rate)) as f32;
    assert!(once.f32s().iter().all(|&v| v == 0.0 || v == kept));
    let mean = |t: &Tensor| t.f32s().iter().map(|&v| f64::from(v)).sum::<f64>() / t.len() as f64;
    // Five standard errors of a share.
    let error = 5.0 * (rate / (1.0 - rate) / x.len() as f64).sqrt();
    assert!((mean(&once) - 1.0).abs() < error, "mean {}", mean(&once));
    let twice = play(Sequential::new().then(Dropout::new(rate)).then(Dropout::new(rate)), &x, Mode::Train).0;
    let both = twice.f32s().iter().filter(|&&v| v != 0.0).count() as f64 / x.len() as f64;
    assert!((both - (1.0 - rate).powi(2)).abs() < error, "both keep a share of {both}");
    for mode in [Mode::Batch, Mode::Measure, Mode::Eval] {
        assert_eq!(play(Dropout::new(rate), &x, mode).0, x);
    }
    // The same numbers are dropped in f64.
    let double = play(Dropout::new(rate), &x.to_dtype(DType::F64), Mode::Train).0;
    assert!(double.f64s().iter().zip(once.f32s()).all(|(&a, &b)| (a == 0.0) == (b == 0.0)));
}

#[test]
#[should_panic(expected = "give Model::apply a key")]
fn dropout_without_a_key_is_refused() {
    let model = Model::new(Dropout::new(0.5), [1, 2]);
    let tape = Tape::eager();
    model.apply(&[], &[], tape.zeros([1, 2], DType::F32), Mode::Train, None);
}

#[test]
fn flattening_gives_pytorchs_order() {
    // Number 100 n + 10 c + (2 h + w), in NHWC.
    let number = |at: usize| (100 * (at / 12) + 10 * (at % 3) + at % 12 / 3) as f64;
    let x = Tensor::from_f64([2, 2, 2, 3], (0..24).map(number).collect());
    let (y, _, _) = play(Flatten, &x, Mode::Batch);
    assert_eq!(y.shape(), [2, 12]);
    assert_eq!(y.f64s()[..12], [0.0, 1.0, 2.0, 3.0, 10.0, 11.0, 12.0, 13.0, 20.0, 21.0, 22.0, 23.0]);
    assert_eq!(y.f64s()[12], 100.0);
    let thin = image([2, 1, 1, 5]);
    assert_eq!(out(Flatten, &thin), thin.to_f64_vec());
    let gray = image([2, 3, 4, 1]);
    assert_eq!(out(Flatten, &gray), gray.to_f64_vec());
    let sequence = Tensor::from_f64([1, 2, 2], vec![1.0, 2.0, 3.0, 4.0]);
    assert_eq!(out(Flatten, &sequence), [1.0, 3.0, 2.0, 4.0]);
    assert_eq!(play(Reshape::new([3, 4, 1]), &image([2, 12]), Mode::Batch).0.shape(), [2, 3, 4, 1]);
}

#[test]
fn pooling_and_upsampling() {
    let x = Tensor::from_f64([1, 3, 4, 1], (1..=12).map(f64::from).collect());
    assert_eq!(out(MaxPool2d::new(2), &x), [6.0, 8.0]);
    assert_eq!(out(MaxPool2d::new(2).stride(1), &x), [6.0, 7.0, 8.0, 10.0, 11.0, 12.0]);
    assert_eq!(out(AvgPool2d::new(2), &x), [3.5, 5.5]);
    // Padding counts as zero for the mean, and never wins a maximum.
    assert_eq!(out(AvgPool2d::new(2).pad(1), &x)[0], 0.25);
    let negative = Tensor::full([1, 2, 2, 1], -1.0, DType::F64);
    assert_eq!(out(MaxPool2d::new(3).stride(1).pad(1), &negative), [-1.0; 4]);
    assert_eq!(out(GlobalAvgPool, &x), [6.5]);
    let twice = out(UpsampleNearest::new(2), &Tensor::from_f64([1, 1, 2, 1], vec![1.0, 2.0]));
    assert_eq!(twice, [1.0, 1.0, 2.0, 2.0, 1.0, 1.0, 2.0, 2.0]);
}

#[test]
fn activations_at_known_points() {
    let x = row(&[-2.0, 0.0, 1.0, 800.0, -800.0]);
    let at = |layer: Box<dyn Layer>| out(layer, &x);
    let e = std::f64::consts::E;
    assert_close(&at(Box::new(Relu)), &[0.0, 0.0, 1.0, 800.0, 0.0]);
    assert_close(&at(Box::new(LeakyRelu(0.1))), &[-0.2, 0.0, 1.0, 800.0, -80.0]);
    assert_close(&at(Box::new(PRelu)), &[-0.5, 0.0, 1.0, 800.0, -200.0]);
    assert_close(&at(Box::new(Elu::new(2.0))), &[2.0 / (e * e) - 2.0, 0.0, 1.0, 800.0, -2.0]);
    assert_close(&at(Box::new(Sigmoid)), &[1.0 / (1.0 + e * e), 0.5, e / (1.0 + e), 1.0, 0.0]);
    assert_close(&at(Box::new(Tanh)), &[-(2f64.tanh()), 0.0, 1f64.tanh(), 1.0, -1.0]);
    assert_close(&at(Box::new(Softplus)), &[(1.0 + 1.0 / (e * e)).ln(), 2f64.ln(), (1.0 + e).ln(), 800.0, 0.0]);
    assert_close(&at(Box::new(Silu)), &[-2.0 / (1.0 + e * e), 0.0, e / (1.0 + e), 800.0, 0.0]);
    // The tanh form is within 5e-4 of x * Phi(x); Phi(1) = 0.841345, Phi(-2) = 0.022750.
    let gelu = at(Box::new(Gelu));
    for (ours, exact) in gelu.iter().zip([-0.045500, 0.0, 0.841345, 800.0, 0.0]) {
        assert!((ours - exact).abs() < 5e-4, "{ours}, not {exact}");
    }
}

#[test]
fn an_embedding_picks_rows() {
    let x = Tensor::from_u32([2, 2], vec![3, 0, 0, 2]);
    let (y, _, params) = play(Embedding::new(4, 3), &x, Mode::Batch);
    let table = params.tensors()[0].f32s();
    assert_eq!(y.shape(), [2, 2, 3]);
    assert_eq!(y.f32s()[..3], table[9..]);
    assert_eq!(y.f32s()[3..6], table[..3]);
}

#[test]
fn names_are_those_of_the_nest() {
    let block =
        Residual::new(Sequential::new().then(Linear::new(3)).then(BatchNorm::new())).project(Linear::new(3).no_bias());
    let model = Model::new(Sequential::new().then(Relu).then(block), [2, 5]);
    let names: Vec<&str> = model.specs().iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["1.body.0.weight", "1.body.0.bias", "1.body.1.weight", "1.body.1.bias", "1.skip.weight"]);
    assert_eq!(model.init_state().names().collect::<Vec<_>>(), ["1.body.1.running_mean", "1.body.1.running_var"]);
    let x = image([4, 3]);
    let doubled: Vec<f64> = x.to_f64_vec().iter().map(|v| 2.0 * v).collect();
    assert_eq!(out(Residual::new(Sequential::new()), &x), doubled);
}

#[test]
fn the_zoo_has_the_sizes_of_the_papers() {
    let sinusoid = Model::new(zoo::mlp(&[40, 40], 1, Relu), [10, 1]);
    assert_eq!(sinusoid.init(Key::new(1)).count(), 1761);
    // 28x28 gives 1x1, 84x84 gives 5x5; the papers' counts less the biases that normalisation makes idle.
    let omniglot = Model::new(zoo::conv4(64, Some(5)), [1, 28, 28, 1]);
    assert_eq!(omniglot.init(Key::new(1)).count(), 9 * 64 + 3 * 9 * 64 * 64 + 4 * 128 + 64 * 5 + 5);
    assert_eq!(Model::new(zoo::conv4(64, None), [1, 84, 84, 3]).output()[..], [1, 1600]);
    assert_eq!(Model::new(zoo::conv4_strided(64, None), [1, 28, 28, 1]).output()[..], [1, 64]);
    let lenet = Model::new(zoo::lenet(10), [1, 28, 28, 1]);
    assert_eq!(lenet.init(Key::new(1)).count(), 61_706);
    let features = Model::new(zoo::lenet_features(), [1, 28, 28, 1]);
    assert_eq!(features.specs(), &lenet.specs()[..lenet.specs().len() - 2]);
}

#[test]
fn a_rectifier_behind_the_pooling_gives_the_numbers_of_one_before() {
    let x = image([3, 6, 6, 5]);
    assert_eq!(
        out(Sequential::new().then(Relu).then(MaxPool2d::new(2)), &x),
        out(Sequential::new().then(MaxPool2d::new(2)).then(Relu), &x)
    );
}
