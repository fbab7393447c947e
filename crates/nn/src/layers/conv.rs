//! Convolutions of images `[N, H, W, C]` and sequences `[N, L, C]`, and the transposed convolution.

use metaforge_autodiff::{Conv, Shape, Var};

use crate::init::Init;
use crate::layer::{Builder, Layer, Layout, Pass};

/// Zeros around an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// None.
    Valid,
    /// As many as give `ceil(size / stride)` rows and columns; an odd one goes below and to the right (TensorFlow's rule; PyTorch's
    /// `'same'` where that is defined, at stride 1).
    Same,
    /// Rows above and below, columns left and right.
    Explicit([[usize; 2]; 2]),
}

/// Convolution: `[N, H, W, in]` to `[N, OH, OW, out]`. Parameters: `weight [KH, KW, in / groups, out]`, `bias [out]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conv2d {
    /// Output channels.
    pub out: usize,
    /// Rows and columns of the kernel.
    pub kernel: [usize; 2],
    /// Rows and columns between neighbouring outputs.
    pub stride: [usize; 2],
    /// Zeros around the image.
    pub padding: Padding,
    /// Rows and columns between neighbouring taps.
    pub dilation: [usize; 2],
    /// Groups of channels that do not see each other.
    pub groups: usize,
    /// Whether there is a bias.
    pub bias: bool,
    /// Where the weight starts. The bias starts at zero, except with [`Init::Torch`], which draws it as PyTorch does.
    pub init: Init,
}

impl Conv2d {
    /// A square kernel, stride 1, no padding, one group, a bias, PyTorch's initialisation.
    pub fn new(out: usize, kernel: usize) -> Conv2d {
        Conv2d {
            out,
            kernel: [kernel; 2],
            stride: [1; 2],
            padding: Padding::Valid,
            dilation: [1; 2],
            groups: 1,
            bias: true,
            init: Init::Torch,
        }
    }

    /// The same stride along both axes.
    pub fn stride(self, stride: usize) -> Conv2d {
        Conv2d { stride: [stride; 2], ..self }
    }

    /// The same padding on all sides.
    pub fn pad(self, pad: usize) -> Conv2d {
        Conv2d { padding: Padding::Explicit([[pad; 2]; 2]), ..self }
    }

    /// Padding that keeps the size (divided by the stride).
    pub fn same(self) -> Conv2d {
        Conv2d { padding: Padding::Same, ..self }
    }

    /// The same dilation along both axes.
    pub fn dilation(self, dilation: usize) -> Conv2d {
        Conv2d { dilation: [dilation; 2], ..self }
    }

    /// A number of groups.
    pub fn groups(self, groups: usize) -> Conv2d {
        Conv2d { groups, ..self }
    }

    /// Without a bias.
    pub fn no_bias(self) -> Conv2d {
        Conv2d { bias: false, ..self }
    }

    /// With another initialisation of the weight.
    pub fn init(self, init: Init) -> Conv2d {
        Conv2d { init, ..self }
    }

    fn conv(&self, hw: [usize; 2]) -> Conv {
        let conv = Conv { stride: self.stride, pad: [[0; 2]; 2], dilation: self.dilation, groups: self.groups };
        match self.padding {
            Padding::Valid => conv,
            Padding::Same => conv.same(hw, self.kernel),
            Padding::Explicit(pad) => Conv { pad, ..conv },
        }
    }
}

impl Layer for Conv2d {
    fn build(&self, b: &mut Builder, input: Shape) -> Shape {
        let [n, h, w, c] = input[..] else { panic!("a convolution of an input of shape {input}, not [N, H, W, C]") };
        check_groups(c, self.out, self.groups);
        let weight = [self.kernel[0], self.kernel[1], c / self.groups, self.out];
        declare(b, &weight, self.init, self.bias.then_some(self.out));
        let conv = self.conv([h, w]);
        let size = |axis: usize, size: usize| {
            let padded = size + conv.pad[axis][0] + conv.pad[axis][1];
            let reach = (self.kernel[axis] - 1) * self.dilation[axis] + 1;
            assert!(
                reach <= padded,
                "a kernel that reaches over {reach} on an input of shape {input}, padded {padded}"
            );
            (padded - reach) / self.stride[axis] + 1
        };
        [n, size(0, h), size(1, w), self.out].into()
    }

    fn apply<'t>(&self, pass: &mut Pass<'_, 't>, x: Var<'t>) -> Var<'t> {
        let s = x.shape();
        let y = x.conv2d(pass.param(), self.conv([s[1], s[2]]));
        if self.bias { y + pass.param() } else { y }
    }
}

/// Transposed convolution with PyTorch's meaning of its numbers: `[N, H, W, in]` to `[N, OH, OW, out]` with
/// `OH = (H - 1) * stride - 2 * pad + dilation * (kernel - 1) + output_padding + 1`. Parameters:
/// `weight [KH, KW, out / groups, in]`, `bias [out]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConvTranspose2d {
    /// Output channels.
    pub out: usize,
    /// Rows and columns of the kernel.
    pub kernel: [usize; 2],
    /// Rows and columns of the output between neighbouring inputs.
    pub stride: [usize; 2],
    /// Rows and columns taken away on each side of the output.
    pub pad: [usize; 2],
    /// Rows and columns added below and to the right; less than the stride.
    pub output_padding: [usize; 2],
    /// Rows and columns between neighbouring taps.
    pub dilation: [usize; 2],
    /// Groups of channels that do not see each other.
    pub groups: usize,
    /// Whether there is a bias.
    pub bias: bool,
    /// Where the weight starts. The bias starts at zero, except with [`Init::Torch`], which draws it as PyTorch does.
    pub init: Init,
}

impl ConvTranspose2d {
    /// A square kernel, stride 1, no padding, one group, a bias, PyTorch's initialisation.
    pub fn new(out: usize, kernel: usize) -> ConvTranspose2d {
        ConvTranspose2d {
            out,
            kernel: [kernel; 2],
            stride: [1; 2],
            pad: [0; 2],
            output_padding: [0; 2],
            dilation: [1; 2],
            groups: 1,
            bias: true,
            init: Init::Torch,
        }
    }

    /// The same stride along both axes.
    pub fn stride(self, stride: usize) -> ConvTranspose2d {
        ConvTranspose2d { stride: [stride; 2], ..self }
    }

    /// The same padding along both axes.
    pub fn pad(self, pad: usize) -> ConvTranspose2d {
        ConvTranspose2d { pad: [pad; 2], ..self }
    }

    /// The same output padding along both axes.
    pub fn output_padding(self, output_padding: usize) -> ConvTranspose2d {
        ConvTranspose2d { output_padding: [output_padding; 2], ..self }
    }

    /// The same dilation along both axes.
    pub fn dilation(self, dilation: usize) -> ConvTranspose2d {
        ConvTranspose2d { dilation: [dilation; 2], ..self }
    }

    /// A number of groups.
    pub fn groups(self, groups: usize) -> ConvTranspose2d {
        ConvTranspose2d { groups, ..self }
    }

    /// Without a bias.
    pub fn no_bias(self) -> ConvTranspose2d {
        ConvTranspose2d { bias: false, ..self }
    }

    /// With another initialisation of the weight.
    pub fn init(self, init: Init) -> ConvTranspose2d {
        ConvTranspose2d { init, ..self }
    }

    #[track_caller]
    fn out_hw(&self, input: &Shape) -> [usize; 2] {
        [0, 1].map(|axis| {
            let size = input[axis + 1];
            let reach = self.dilation[axis] * (self.kernel[axis] - 1) + 1;
            let full = size.saturating_sub(1) * self.stride[axis] + reach + self.output_padding[axis];
            assert!(size > 0 && full > 2 * self.pad[axis], "a transposed convolution of {input} leaves nothing");
            full - 2 * self.pad[axis]
        })
    }
}

impl Layer for ConvTranspose2d {
    fn build(&self, b: &mut Builder, input: Shape) -> Shape {
        let [n, _, _, c] = input[..] else { panic!("a transposed convolution of {input}, not [N, H, W, C]") };
        check_groups(c, self.out, self.groups);
        for axis in 0..2 {
            let (extra, stride) = (self.output_padding[axis], self.stride[axis]);
            assert!(extra < stride, "an output padding of {extra} is not less than the stride {stride}");
        }
        let weight = [self.kernel[0], self.kernel[1], self.out / self.groups, c];
        declare(b, &weight, self.init, self.bias.then_some(self.out));
        let [oh, ow] = self.out_hw(&input);
        [n, oh, ow, self.out].into()
    }

    fn apply<'t>(&self, pass: &mut Pass<'_, 't>, x: Var<'t>) -> Var<'t> {
        let pad = self.pad.map(|p| [p, p]);
        let conv = Conv { stride: self.stride, pad, dilation: self.dilation, groups: self.groups };
        let y = x.conv_transpose2d(pass.param(), conv, self.out_hw(&x.shape()));
        if self.bias { y + pass.param() } else { y }
    }
}

/// Convolution of sequences: `[N, L, in]` to `[N, OL, out]`. Parameters: `weight [K, in / groups, out]`, `bias [out]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conv1d {
    /// Output channels.
    pub out: usize,
    /// Taps of the kernel.
    pub kernel: usize,
    /// Distance of neighbouring outputs.
    pub stride: usize,
    /// Zeros before and after.
    pub pad: [usize; 2],
    /// Distance of neighbouring taps.
    pub dilation: usize,
    /// Groups of channels that do not see each other.
    pub groups: usize,
    /// Whether there is a bias.
    pub bias: bool,
    /// Where the weight starts. The bias starts at zero, except with [`Init::Torch`], which draws it as PyTorch does.
    pub init: Init,
}

impl Conv1d {
    /// Stride 1, no padding, one group, a bias, PyTorch's initialisation.
    pub fn new(out: usize, kernel: usize) -> Conv1d {
        Conv1d { out, kernel, stride: 1, pad: [0; 2], dilation: 1, groups: 1, bias: true, init: Init::Torch }
    }

    /// A distance between outputs.
    pub fn stride(self, stride: usize) -> Conv1d {
        Conv1d { stride, ..self }
    }

    /// The same padding before and after.
    pub fn pad(self, pad: usize) -> Conv1d {
        Conv1d { pad: [pad; 2], ..self }
    }

    /// Padding before alone, so that no output sees what comes after it, and the length stays (at stride 1).
    pub fn causal(self) -> Conv1d {
        Conv1d { pad: [(self.kernel - 1) * self.dilation, 0], ..self }
    }

    /// A distance between taps.
    pub fn dilation(self, dilation: usize) -> Conv1d {
        Conv1d { dilation, ..self }
    }

    /// A number of groups.
    pub fn groups(self, groups: usize) -> Conv1d {
        Conv1d { groups, ..self }
    }

    /// Without a bias.
    pub fn no_bias(self) -> Conv1d {
        Conv1d { bias: false, ..self }
    }

    /// With another initialisation of the weight.
    pub fn init(self, init: Init) -> Conv1d {
        Conv1d { init, ..self }
    }
}

impl Layer for Conv1d {
    fn build(&self, b: &mut Builder, input: Shape) -> Shape {
        let [n, l, c] = input[..] else { panic!("a convolution of an input of shape {input}, not [N, L, C]") };
        check_groups(c, self.out, self.groups);
        let weight = [self.kernel, c / self.groups, self.out];
        declare(b, &weight, self.init, self.bias.then_some(self.out));
        let (padded, reach) = (l + self.pad[0] + self.pad[1], (self.kernel - 1) * self.dilation + 1);
        assert!(reach <= padded, "a kernel that reaches over {reach} on an input of shape {input}, padded {padded}");
        [n, (padded - reach) / self.stride + 1, self.out].into()
    }

    fn apply<'t>(&self, pass: &mut Pass<'_, 't>, x: Var<'t>) -> Var<'t> {
        let (s, weight) = (x.shape(), pass.param());
        let w = weight.shape();
        let conv = Conv {
            stride: [1, self.stride],
            pad: [[0; 2], self.pad],
            dilation: [1, self.dilation],
            groups: self.groups,
        };
        // An image of one row.
        let y = x.reshape([s[0], 1, s[1], s[2]]).conv2d(weight.reshape([1, w[0], w[1], w[2]]), conv);
        let out = y.shape();
        let y = y.reshape([out[0], out[2], out[3]]);
        if self.bias { y + pass.param() } else { y }
    }
}

#[track_caller]
fn check_groups(ins: usize, outs: usize, groups: usize) {
    let split = groups > 0 && ins.is_multiple_of(groups) && outs.is_multiple_of(groups);
    assert!(split, "{ins} to {outs} channels in {groups} groups");
}

/// Declares a kernel and, if there is one, the bias of as many channels.
fn declare(b: &mut Builder, weight: &[usize], init: Init, bias: Option<usize>) {
    b.param("weight", weight, init, Layout::Weights);
    if let Some(channels) = bias {
        b.param("bias", [channels], init.bias(weight), Layout::Plain);
    }
}
