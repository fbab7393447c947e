//! Pooling and upsampling of images `[N, H, W, C]`.

use metaforge_autodiff::{Shape, Var, Window};

use crate::layer::{Builder, Layer, Pass};

/// The largest number of each window, for each channel. Padding never wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxPool2d {
    /// Rows and columns of a window.
    pub kernel: [usize; 2],
    /// Rows and columns between neighbouring windows.
    pub stride: [usize; 2],
    /// Rows and columns around the image.
    pub pad: [usize; 2],
}

impl MaxPool2d {
    /// Square windows side by side. What does not fill a window at the end is left out.
    pub fn new(kernel: usize) -> MaxPool2d {
        MaxPool2d { kernel: [kernel; 2], stride: [kernel; 2], pad: [0; 2] }
    }

    /// The same stride along both axes.
    pub fn stride(self, stride: usize) -> MaxPool2d {
        MaxPool2d { stride: [stride; 2], ..self }
    }

    /// The same padding along both axes.
    pub fn pad(self, pad: usize) -> MaxPool2d {
        MaxPool2d { pad: [pad; 2], ..self }
    }
}

impl Layer for MaxPool2d {
    fn build(&self, _: &mut Builder, input: Shape) -> Shape {
        pooled(&input, &window(self.kernel, self.stride, self.pad))
    }

    fn apply<'t>(&self, _: &mut Pass<'_, 't>, x: Var<'t>) -> Var<'t> {
        x.max_pool2d(window(self.kernel, self.stride, self.pad))
    }
}

/// The mean of each window, for each channel. Padding counts as zeros, as in PyTorch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AvgPool2d {
    /// Rows and columns of a window.
    pub kernel: [usize; 2],
    /// Rows and columns between neighbouring windows.
    pub stride: [usize; 2],
    /// Rows and columns of zeros around the image.
    pub pad: [usize; 2],
}

impl AvgPool2d {
    /// Square windows side by side. What does not fill a window at the end is left out.
    pub fn new(kernel: usize) -> AvgPool2d {
        AvgPool2d { kernel: [kernel; 2], stride: [kernel; 2], pad: [0; 2] }
    }

    /// The same stride along both axes.
    pub fn stride(self, stride: usize) -> AvgPool2d {
        AvgPool2d { stride: [stride; 2], ..self }
    }

    /// The same padding along both axes.
    pub fn pad(self, pad: usize) -> AvgPool2d {
        AvgPool2d { pad: [pad; 2], ..self }
    }
}

impl Layer for AvgPool2d {
    fn build(&self, _: &mut Builder, input: Shape) -> Shape {
        pooled(&input, &window(self.kernel, self.stride, self.pad))
    }

    fn apply<'t>(&self, _: &mut Pass<'_, 't>, x: Var<'t>) -> Var<'t> {
        x.avg_pool2d(window(self.kernel, self.stride, self.pad))
    }
}

/// The mean of each channel over the whole image: `[N, H, W, C]` to `[N, C]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GlobalAvgPool;

impl Layer for GlobalAvgPool {
    fn build(&self, _: &mut Builder, input: Shape) -> Shape {
        let [n, _, _, c] = input[..] else { panic!("global pooling of an input of shape {input}, not [N, H, W, C]") };
        [n, c].into()
    }

    fn apply<'t>(&self, _: &mut Pass<'_, 't>, x: Var<'t>) -> Var<'t> {
        x.mean_axes(&[1, 2], false)
    }
}

/// Every pixel repeated this many times along rows and columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpsampleNearest(pub usize);

impl UpsampleNearest {
    /// This many times, at least 1.
    pub fn new(factor: usize) -> UpsampleNearest {
        UpsampleNearest(factor)
    }
}

impl Layer for UpsampleNearest {
    fn build(&self, _: &mut Builder, input: Shape) -> Shape {
        let [n, h, w, c] = input[..] else { panic!("upsampling of an input of shape {input}, not [N, H, W, C]") };
        [n, h * self.0, w * self.0, c].into()
    }

    fn apply<'t>(&self, _: &mut Pass<'_, 't>, x: Var<'t>) -> Var<'t> {
        x.upsample_nearest(self.0)
    }
}

fn window(kernel: [usize; 2], stride: [usize; 2], pad: [usize; 2]) -> Window {
    Window { kernel, stride, pad: pad.map(|p| [p, p]) }
}

#[track_caller]
fn pooled(input: &Shape, window: &Window) -> Shape {
    let [n, h, w, c] = input[..] else { panic!("pooling of an input of shape {input}, not [N, H, W, C]") };
    match window.out_size([h, w]) {
        Some([oh, ow]) => [n, oh, ow, c].into(),
        None => panic!("a window of {:?} is larger than an input of shape {input}", window.kernel),
    }
}
