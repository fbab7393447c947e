//! Normalisations: batch (Ioffe and Szegedy 2015), layer (Ba et al. 2016), instance (Ulyanov et al. 2016).

use metaforge_autodiff::{Prim, Shape, Var};

use crate::init::Init;
use crate::layer::{Builder, Layer, Layout, Mode, Pass};

/// Batch normalisation over all axes but the last: `[N, C]`, `[N, L, C]` or `[N, H, W, C]`. Parameters: `weight [C]`, `bias [C]`.
/// State: `running_mean [C]`, `running_var [C]`.
///
/// All modes but [`Mode::Eval`] normalise by the batch's mean and biased variance. [`Mode::Train`] also moves the running
/// statistics, towards the mean and the unbiased variance, as PyTorch does; [`Mode::Measure`] makes those the running ones. No gradient
/// flows into them. [`Mode::Eval`] normalises by the running statistics.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchNorm {
    /// Share of the new statistics in the running ones.
    pub momentum: f64,
    /// Added to the variance.
    pub eps: f64,
    /// Whether the result is scaled by a parameter.
    pub scale: bool,
    /// Whether a parameter is added to the result.
    pub shift: bool,
}

impl BatchNorm {
    /// PyTorch's numbers: momentum 0.1, eps 1e-5, scale and shift.
    pub fn new() -> BatchNorm {
        BatchNorm { momentum: 0.1, eps: 1e-5, scale: true, shift: true }
    }

    /// Without scale and shift.
    pub fn plain() -> BatchNorm {
        BatchNorm { scale: false, shift: false, ..BatchNorm::new() }
    }
}

impl Default for BatchNorm {
    fn default() -> BatchNorm {
        BatchNorm::new()
    }
}

impl Layer for BatchNorm {
    fn build(&self, b: &mut Builder, input: Shape) -> Shape {
        assert!(input.len() >= 2, "batch normalisation of an input of shape {input}");
        let channels = [input[input.len() - 1]];
        affine(b, self.scale, self.shift, &channels);
        b.state("running_mean", channels, 0.0);
        b.state("running_var", channels, 1.0);
        input
    }

    fn apply<'t>(&self, pass: &mut Pass<'_, 't>, x: Var<'t>) -> Var<'t> {
        let scale = self.scale.then(|| pass.param());
        let shift = self.shift.then(|| pass.param());
        match pass.mode() {
            Mode::Batch => pass.skip_state(2),
            Mode::Train | Mode::Measure => self.move_statistics(pass, x),
            Mode::Eval => {
                let (mean, var) = (pass.state(), pass.state());
                // (x - mean) / sqrt(var + eps) * scale + shift as one product and one sum over x.
                let rstd = (var + self.eps).rsqrt();
                let factor = scale.map_or(rstd, |scale| rstd * scale);
                let offset = shift.map_or_else(|| -(mean * factor), |shift| shift - mean * factor);
                return x * factor + offset;
            }
        }
        scaled(x.normalize(0, 1, self.eps), scale, shift)
    }
}

impl BatchNorm {
    fn move_statistics<'t>(&self, pass: &mut Pass<'_, 't>, x: Var<'t>) {
        let x = x.stop_gradient();
        let shape = x.shape();
        let channels = shape[shape.len() - 1];
        let rows = shape.elements() / channels.max(1);
        let flat = x.reshape([1, rows, channels]);
        // The gradient of the normalisation needs this rstd too, so the variance comes for free: 1 / rstd^2 - eps, within rounding.
        let rstd = Var::record(Prim::Rstd { eps: self.eps }, &[flat]).reshape([channels]);
        let var = (rstd.square().recip() - self.eps).relu() * (rows as f64 / rows.saturating_sub(1).max(1) as f64);
        let mean = flat.mean_axes(&[0, 1], false);
        for new in [mean, var] {
            let old = pass.state();
            pass.set_state(if pass.mode() == Mode::Measure { new } else { old + (new - old) * self.momentum });
        }
    }
}

/// Layer normalisation over the last `axes` axes. Parameters: `weight` and `bias` of the shape of those axes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerNorm {
    /// How many of the last axes share a mean and a variance, at least 1.
    pub axes: usize,
    /// Added to the variance.
    pub eps: f64,
    /// Whether the result is scaled and shifted by parameters.
    pub affine: bool,
}

impl LayerNorm {
    /// Over the last axis, with eps 1e-5, scale and shift.
    pub fn new() -> LayerNorm {
        LayerNorm::over(1)
    }

    /// Over the last `axes` axes: 3 for a whole image.
    pub fn over(axes: usize) -> LayerNorm {
        LayerNorm { axes, eps: 1e-5, affine: true }
    }

    /// Without scale and shift.
    pub fn plain(self) -> LayerNorm {
        LayerNorm { affine: false, ..self }
    }
}

impl Default for LayerNorm {
    fn default() -> LayerNorm {
        LayerNorm::new()
    }
}

impl Layer for LayerNorm {
    fn build(&self, b: &mut Builder, input: Shape) -> Shape {
        assert!(
            (1..=input.len()).contains(&self.axes),
            "layer normalisation over {} axes of an input of shape {input}",
            self.axes
        );
        affine(b, self.affine, self.affine, &input[input.len() - self.axes..]);
        input
    }

    fn apply<'t>(&self, pass: &mut Pass<'_, 't>, x: Var<'t>) -> Var<'t> {
        let scale = self.affine.then(|| pass.param());
        let shift = self.affine.then(|| pass.param());
        scaled(x.normalize(x.shape().len() - self.axes, 0, self.eps), scale, shift)
    }
}

/// Instance normalisation: each channel of each image `[N, H, W, C]` (or sequence `[N, L, C]`) by its own mean and variance, in
/// every mode. Parameters, if affine: `weight [C]`, `bias [C]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InstanceNorm {
    /// Added to the variance.
    pub eps: f64,
    /// Whether the result is scaled and shifted by parameters.
    pub affine: bool,
}

impl InstanceNorm {
    /// PyTorch's numbers: eps 1e-5, no parameters.
    pub fn new() -> InstanceNorm {
        InstanceNorm { eps: 1e-5, affine: false }
    }

    /// With scale and shift.
    pub fn affine() -> InstanceNorm {
        InstanceNorm { affine: true, ..InstanceNorm::new() }
    }
}

impl Default for InstanceNorm {
    fn default() -> InstanceNorm {
        InstanceNorm::new()
    }
}

impl Layer for InstanceNorm {
    fn build(&self, b: &mut Builder, input: Shape) -> Shape {
        assert!(input.len() >= 3, "instance normalisation of an input of shape {input}");
        affine(b, self.affine, self.affine, &input[input.len() - 1..]);
        input
    }

    fn apply<'t>(&self, pass: &mut Pass<'_, 't>, x: Var<'t>) -> Var<'t> {
        let scale = self.affine.then(|| pass.param());
        let shift = self.affine.then(|| pass.param());
        scaled(x.normalize(1, 1, self.eps), scale, shift)
    }
}

fn affine(b: &mut Builder, scale: bool, shift: bool, shape: &[usize]) {
    let layout = if shape.len() == 3 { Layout::Image } else { Layout::Plain };
    if scale {
        b.param("weight", shape, Init::Ones, layout);
    }
    if shift {
        b.param("bias", shape, Init::Zeros, layout);
    }
}

fn scaled<'t>(x: Var<'t>, scale: Option<Var<'t>>, shift: Option<Var<'t>>) -> Var<'t> {
    let x = scale.map_or(x, |scale| x * scale);
    shift.map_or(x, |shift| x + shift)
}
