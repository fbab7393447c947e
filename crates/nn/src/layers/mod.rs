//! The layers, one family a file.

mod activation;
mod conv;
mod dropout;
mod embedding;
mod linear;
mod norm;
mod pool;
mod sequential;
mod shape;

pub use activation::{Elu, Gelu, LeakyRelu, PRelu, Relu, Sigmoid, Silu, Softplus, Tanh};
pub use conv::{Conv1d, Conv2d, ConvTranspose2d, Padding};
pub use dropout::Dropout;
pub use embedding::Embedding;
pub use linear::Linear;
pub use norm::{BatchNorm, InstanceNorm, LayerNorm};
pub use pool::{AvgPool2d, GlobalAvgPool, MaxPool2d, UpsampleNearest};
pub use sequential::{Residual, Sequential};
pub use shape::{Flatten, Reshape};
