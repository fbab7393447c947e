//! A layer with what it declared: ready to draw its parameters and to be applied.

use std::sync::Arc;

use metaforge_autodiff::{Aval, DType, Key, Shape, Var};

use crate::layer::{Builder, Layer, Mode, Pass, Spec, StateSpec};
use crate::params::Params;

/// A layer built for inputs of one shape (of any number of rows). Cloning shares it.
#[derive(Clone, Debug)]
pub struct Model {
    layer: Arc<dyn Layer>,
    input: Shape,
    output: Shape,
    params: Vec<Spec>,
    state: Vec<StateSpec>,
}

impl Model {
    /// Builds a layer for inputs of shape `input`, the batch axis included.
    ///
    /// # Panics
    /// If the layer cannot take such an input.
    #[track_caller]
    pub fn new(layer: impl Layer + 'static, input: impl Into<Shape>) -> Model {
        let input = input.into();
        let mut builder = Builder::default();
        let output = layer.build(&mut builder, input);
        Model { layer: Arc::new(layer), input, output, params: builder.params, state: builder.state }
    }

    /// Draws the parameters: parameter `i` from `key.fold(i)`.
    pub fn init(&self, key: Key) -> Params {
        let draw = |(i, spec): (usize, &Spec)| (spec.name.clone(), spec.init.sample(spec.shape, key.fold(i as u64)));
        self.params.iter().enumerate().map(draw).collect()
    }

    /// The state before the first pass.
    pub fn init_state(&self) -> Params {
        self.state.iter().map(|s| (s.name.clone(), s.start.clone())).collect()
    }

    /// Shape of the inputs that the model was built for.
    pub fn input(&self) -> Shape {
        self.input
    }

    /// Shape of the output for such inputs.
    pub fn output(&self) -> Shape {
        self.output
    }

    /// The declared parameters, in order.
    pub fn specs(&self) -> &[Spec] {
        &self.params
    }

    /// The declared state, in order.
    pub fn state_specs(&self) -> &[StateSpec] {
        &self.state
    }

    /// Shapes and types of the parameters, in order.
    pub fn avals(&self) -> Vec<Aval> {
        self.params.iter().map(|p| Aval::new(p.shape, DType::F32)).collect()
    }

    /// The model's output in [`Mode::Batch`], without state.
    ///
    /// # Panics
    /// If the number or the shapes of the parameters are not the declared ones, or `x` does not fit.
    #[track_caller]
    pub fn forward<'t>(&self, params: &[Var<'t>], x: Var<'t>) -> Var<'t> {
        self.check(params);
        let mut pass = Pass::new(Mode::Batch, params, None, None);
        let y = self.layer.apply(&mut pass, x);
        pass.finish();
        y
    }

    /// The model's output and its new state. `key` (`u32[2]`) is what dropout draws from in [`Mode::Train`].
    ///
    /// # Panics
    /// Like [`Model::forward`]; also without a key when a layer needs one.
    #[track_caller]
    pub fn apply<'t>(
        &self,
        params: &[Var<'t>],
        state: &[Var<'t>],
        x: Var<'t>,
        mode: Mode,
        key: Option<Var<'t>>,
    ) -> (Var<'t>, Vec<Var<'t>>) {
        self.check(params);
        assert_eq!(state.len(), self.state.len(), "pieces of state of the model");
        let mut pass = Pass::new(mode, params, Some(state), key);
        let y = self.layer.apply(&mut pass, x);
        (y, pass.finish())
    }

    #[track_caller]
    fn check(&self, params: &[Var<'_>]) {
        assert_eq!(params.len(), self.params.len(), "parameters of the model");
        for (given, spec) in params.iter().zip(&self.params) {
            assert!(given.shape() == spec.shape, "{} is {}, not {}", spec.name, spec.shape, given.shape());
        }
    }
}
