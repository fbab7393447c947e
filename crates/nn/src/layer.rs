//! What a layer is: it declares parameters and state once, and applies itself to variables of them in the same order.

use std::fmt::Debug;

use metaforge_autodiff::{DType, Shape, Tensor, Var};

use crate::init::Init;

/// A function of a value, of parameters and of state, all given from outside.
///
/// A layer takes its parameters in [`Layer::apply`] in the order in which [`Layer::build`] declares them; it works in the type
/// (`f32` or `f64`) of the value that it is given.
pub trait Layer: Send + Sync + Debug {
    /// Declares parameters and state for inputs of this shape (the batch axis included, of any size) and tells the shape of the
    /// output.
    ///
    /// # Panics
    /// If the layer cannot take such an input.
    fn build(&self, b: &mut Builder, input: Shape) -> Shape;

    /// The layer's output for `x`.
    fn apply<'t>(&self, pass: &mut Pass<'_, 't>, x: Var<'t>) -> Var<'t>;
}

impl Layer for Box<dyn Layer> {
    fn build(&self, b: &mut Builder, input: Shape) -> Shape {
        (**self).build(b, input)
    }

    fn apply<'t>(&self, pass: &mut Pass<'_, 't>, x: Var<'t>) -> Var<'t> {
        (**self).apply(pass, x)
    }
}

/// How a pass treats batch statistics and dropout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Batch statistics; running statistics move; dropout is on.
    Train,
    /// Batch statistics; nothing moves; no dropout. MAML's transductive mode.
    Batch,
    /// Batch statistics, which become the running ones; no dropout. For a batch that others are to be normalised by.
    Measure,
    /// Running statistics; nothing moves; no dropout.
    Eval,
}

/// How a parameter lies in a PyTorch state dict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// As it lies here.
    Plain,
    /// Weights `[.., in, out]`, which PyTorch has as `[out, in, ..]`: linear, convolution, transposed convolution.
    Weights,
    /// One number a pixel, `[H, W, C]`, which PyTorch has as `[C, H, W]`.
    Image,
}

/// A declared parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// Its name, with those of the enclosing layers before it: `0.weight`.
    pub name: String,
    /// Sizes of its axes.
    pub shape: Shape,
    /// Where its numbers come from.
    pub init: Init,
    /// How PyTorch has it.
    pub layout: Layout,
}

/// A declared piece of state.
#[derive(Clone, Debug, PartialEq)]
pub struct StateSpec {
    /// Its name, like a parameter's.
    pub name: String,
    /// What it is before the first pass.
    pub start: Tensor,
}

/// Collects what layers declare.
#[derive(Debug, Default)]
pub struct Builder {
    prefix: String,
    pub(crate) params: Vec<Spec>,
    pub(crate) state: Vec<StateSpec>,
}

impl Builder {
    /// Declares a parameter (`f32`).
    ///
    /// # Panics
    /// If the layer has a parameter of this name.
    #[track_caller]
    pub fn param(&mut self, name: &str, shape: impl Into<Shape>, init: Init, layout: Layout) {
        let name = self.full(name);
        assert!(self.params.iter().all(|p| p.name != name), "a second parameter named {name}");
        self.params.push(Spec { name, shape: shape.into(), init, layout });
    }

    /// Declares state (`f32`) that starts as `value` everywhere.
    ///
    /// # Panics
    /// If the layer has state of this name.
    #[track_caller]
    pub fn state(&mut self, name: &str, shape: impl Into<Shape>, value: f64) {
        self.state_from(name, Tensor::full(shape, value, DType::F32));
    }

    /// Declares state that starts as the given tensor; panics like [`Builder::state`].
    #[track_caller]
    pub fn state_from(&mut self, name: &str, start: Tensor) {
        let name = self.full(name);
        assert!(self.state.iter().all(|s| s.name != name), "a second piece of state named {name}");
        self.state.push(StateSpec { name, start });
    }

    /// Runs `f` with `scope.` before every name that it declares.
    pub fn scoped<R>(&mut self, scope: &str, f: impl FnOnce(&mut Builder) -> R) -> R {
        let outer = self.prefix.len();
        self.prefix.push_str(scope);
        self.prefix.push('.');
        let result = f(self);
        self.prefix.truncate(outer);
        result
    }

    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

/// One application of a model: hands each layer its parameters and state, and collects the new state.
#[derive(Debug)]
pub struct Pass<'p, 't> {
    mode: Mode,
    params: std::slice::Iter<'p, Var<'t>>,
    stateful: bool,
    state: Vec<Var<'t>>,
    state_taken: usize,
    key: Option<Var<'t>>,
    keys_taken: usize,
}

impl<'p, 't> Pass<'p, 't> {
    pub(crate) fn new(mode: Mode, params: &'p [Var<'t>], state: Option<&[Var<'t>]>, key: Option<Var<'t>>) -> Self {
        Pass {
            mode,
            params: params.iter(),
            stateful: state.is_some(),
            state: state.unwrap_or_default().to_vec(),
            state_taken: 0,
            key,
            keys_taken: 0,
        }
    }

    /// How this pass treats batch statistics and dropout.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The next parameter.
    ///
    /// # Panics
    /// If all are taken: the layer applies more than it declared.
    #[track_caller]
    pub fn param(&mut self) -> Var<'t> {
        *self.params.next().expect("a layer takes no more parameters than it declared")
    }

    /// Whether the pass has state; [`crate::Model::forward`] has none.
    pub fn has_state(&self) -> bool {
        self.stateful
    }

    /// The next piece of state.
    ///
    /// # Panics
    /// In a pass without state, or if all is taken.
    #[track_caller]
    pub fn state(&mut self) -> Var<'t> {
        assert!(self.stateful, "a layer needs state, and this pass has none: use Model::apply");
        let state = *self.state.get(self.state_taken).expect("a layer takes no more state than it declared");
        self.state_taken += 1;
        state
    }

    /// Replaces the piece of state that [`Pass::state`] gave last.
    ///
    /// # Panics
    /// If none was taken, or shape or type differ.
    #[track_caller]
    pub fn set_state(&mut self, new: Var<'t>) {
        let old = &mut self.state[self.state_taken.checked_sub(1).expect("state() comes before set_state()")];
        assert!(old.aval() == new.aval(), "state {} becomes {}", old.aval(), new.aval());
        *old = new;
    }

    /// Leaves `count` pieces of state as they are; allowed in a pass without state.
    pub fn skip_state(&mut self, count: usize) {
        self.state_taken += count;
    }

    /// A key `u32[2]` for the next layer that is random in this pass, derived from the pass's own.
    ///
    /// # Panics
    /// If the pass has no key.
    #[track_caller]
    pub fn key(&mut self) -> Var<'t> {
        let key = self.key.expect("a layer is random in Mode::Train: give Model::apply a key");
        self.keys_taken += 1;
        crate::numeric::subkey(key, self.keys_taken - 1)
    }

    /// The new state, after checking that the layers took all that they declared.
    #[track_caller]
    pub(crate) fn finish(self) -> Vec<Var<'t>> {
        assert_eq!(self.params.len(), 0, "parameters that no layer took");
        assert!(!self.stateful || self.state_taken == self.state.len(), "state that no layer took");
        self.state
    }
}
