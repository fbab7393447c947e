//! The networks of the literature that the rest of the project uses.

use crate::layer::Layer;
use crate::layers::{BatchNorm, Conv2d, Flatten, GlobalAvgPool, Linear, MaxPool2d, Relu, Sequential};

/// A multilayer perceptron on `[.., in]`: a linear layer and the activation for each of `hidden`, then a linear layer to `out`
/// numbers. MAML's for sinusoids is `mlp(&[40, 40], 1, Relu)`.
pub fn mlp(hidden: &[usize], out: usize, activation: impl Layer + Clone + 'static) -> Sequential {
    let body =
        hidden.iter().fold(Sequential::new(), |net, &width| net.then(Linear::new(width)).then(activation.clone()));
    body.then(Linear::new(out))
}

/// Conv4 (Vinyals et al. 2016; Snell et al. 2017): four blocks of a 3x3 convolution, batch normalisation, a rectifier and 2x2
/// max-pooling, with `channels` channels (64 there); then the features of an image, flattened, or with `ways` a linear
/// classifier of them. Images are at least 16x16.
///
/// The convolutions have no bias, which the normalisation would take away again; and the rectifier stands behind the pooling,
/// which gives the same numbers for a quarter of the work, since both are monotone.
pub fn conv4(channels: usize, ways: Option<usize>) -> Sequential {
    let block = || {
        Sequential::new()
            .then(Conv2d::new(channels, 3).pad(1).no_bias())
            .then(BatchNorm::new())
            .then(MaxPool2d::new(2))
            .then(Relu)
    };
    with_head((0..4).fold(Sequential::new(), |net, _| net.then(block())).then(Flatten), ways)
}

/// The Conv4 of MAML on Omniglot (Finn et al. 2017): strides of 2 in place of the pooling, and the mean over what is left of the
/// image in place of flattening. Otherwise as [`conv4`].
pub fn conv4_strided(channels: usize, ways: Option<usize>) -> Sequential {
    let block = || {
        Sequential::new().then(Conv2d::new(channels, 3).stride(2).same().no_bias()).then(BatchNorm::new()).then(Relu)
    };
    with_head((0..4).fold(Sequential::new(), |net, _| net.then(block())).then(GlobalAvgPool), ways)
}

/// The features of [`lenet`]: images `[N, 28, 28, C]` or a little larger to `[N, 84]`.
pub fn lenet_features() -> Sequential {
    Sequential::new()
        .then(Conv2d::new(6, 5).pad(2))
        .then(Relu)
        .then(MaxPool2d::new(2))
        .then(Conv2d::new(16, 5))
        .then(Relu)
        .then(MaxPool2d::new(2))
        .then(Flatten)
        .then(Linear::new(120))
        .then(Relu)
        .then(Linear::new(84))
        .then(Relu)
}

/// LeNet-5 (LeCun et al. 1998) with rectifiers and max-pooling: [`lenet_features`] and a linear classifier behind them, so that
/// all of its parameters but the last two are the features'.
pub fn lenet(classes: usize) -> Sequential {
    lenet_features().then(Linear::new(classes))
}

fn with_head(body: Sequential, ways: Option<usize>) -> Sequential {
    match ways {
        Some(ways) => body.then(Linear::new(ways)),
        None => body,
    }
}
