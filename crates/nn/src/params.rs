//! Named tensors in a fixed order: the parameters of a model, the state of an optimiser.

use std::sync::Arc;

use metaforge_autodiff::{Aval, DType, Program, Tape, Tensor, Var, Workspace};

/// An ordered list of tensors with unique names. Cloning shares names and numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Params {
    names: Arc<Vec<String>>,
    tensors: Vec<Tensor>,
}

impl Params {
    /// No tensors.
    pub fn new() -> Params {
        Params::default()
    }

    /// Appends a tensor.
    ///
    /// # Panics
    /// If the name is taken.
    #[track_caller]
    pub fn push(&mut self, name: impl Into<String>, tensor: Tensor) {
        let name = name.into();
        assert!(!self.names.contains(&name), "a second tensor named {name}");
        Arc::make_mut(&mut self.names).push(name);
        self.tensors.push(tensor);
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there are no tensors.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// The names, in order.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// The tensors, in order.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// Names and tensors, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Tensor)> {
        self.names().zip(&self.tensors)
    }

    /// Shapes and types, in order.
    pub fn avals(&self) -> Vec<Aval> {
        self.tensors.iter().map(Tensor::aval).collect()
    }

    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.names().position(|n| n == name).map(|i| &self.tensors[i])
    }

    /// Replaces tensor number `index`.
    ///
    /// # Panics
    /// If there is no such tensor, or its shape or type is another.
    #[track_caller]
    pub fn set(&mut self, index: usize, tensor: Tensor) {
        let (old, new) = (self.tensors[index].aval(), tensor.aval());
        assert!(old == new, "{} is {old}, not {new}", self.names[index]);
        self.tensors[index] = tensor;
    }

    /// The same names with other tensors, of any shapes and types.
    ///
    /// # Panics
    /// Unless there is a tensor for each name.
    #[track_caller]
    pub fn with_tensors(&self, tensors: Vec<Tensor>) -> Params {
        assert_eq!(tensors.len(), self.len(), "a tensor for each of the {} names", self.len());
        Params { names: self.names.clone(), tensors }
    }

    /// The tensors as variables of a tape, in order.
    pub fn bind<'t>(&self, tape: &'t Tape) -> Vec<Var<'t>> {
        self.tensors.iter().map(|t| tape.var(t)).collect()
    }

    /// Replaces all tensors by a program's results number `first`, `first + 1` and so on, of its last run in `workspace`. Memory that nobody
    /// else shares is used again.
    ///
    /// # Panics
    /// If there are not enough results, or shapes or types differ.
    #[track_caller]
    pub fn update_from(&mut self, program: &Program, workspace: &Workspace, first: usize) {
        for (index, tensor) in self.tensors.iter_mut().enumerate() {
            let result = program.output(workspace, first + index);
            assert!(
                result.aval == tensor.aval(),
                "`{}` is {}, the result {}",
                self.names[index],
                tensor.aval(),
                result.aval
            );
            tensor.assign(result);
        }
    }

    /// The tensors to be written over, in order.
    pub fn tensors_mut(&mut self) -> impl Iterator<Item = &mut Tensor> {
        self.tensors.iter_mut()
    }

    /// Number of numbers in all tensors together.
    pub fn count(&self) -> usize {
        self.tensors.iter().map(Tensor::len).sum()
    }

    /// Whether every number is finite.
    pub fn is_finite(&self) -> bool {
        self.tensors.iter().all(Tensor::is_finite)
    }

    /// The first number that is not finite, with the name of its tensor.
    pub fn not_finite(&self) -> Option<(&str, f64)> {
        let (name, tensor) = self.iter().find(|(_, t)| !t.is_finite())?;
        Some((name, tensor.to_f64_vec().into_iter().find(|v| !v.is_finite())?))
    }

    /// The same numbers in another floating-point type, rounded; integers stay.
    pub fn to_dtype(&self, dtype: DType) -> Params {
        let cast = |t: &Tensor| if t.dtype().is_float() { t.to_dtype(dtype) } else { t.clone() };
        Params { names: self.names.clone(), tensors: self.tensors.iter().map(cast).collect() }
    }

    /// The same tensors, each named `prefix.name`.
    pub fn prefixed(&self, prefix: &str) -> Params {
        let names = self.names().map(|name| format!("{prefix}.{name}")).collect();
        Params { names: Arc::new(names), tensors: self.tensors.clone() }
    }

    /// Those tensors that are named `prefix.name`, as `name`: what [`Params::prefixed`] put in.
    pub fn split_prefix(&self, prefix: &str) -> Params {
        let mut part = Params::new();
        for (name, tensor) in self.iter() {
            if let Some(name) = name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.')) {
                part.push(name, tensor.clone());
            }
        }
        part
    }

    /// Those tensors that are named `prefix.name`, for each name of `like` and in its order: a part of a saved state.
    ///
    /// # Errors
    /// If one is missing, or has another shape or type than in `like`.
    pub fn part(&self, prefix: &str, like: &Params) -> Result<Params, Mismatch> {
        let find = |(name, own): (&str, &Tensor)| {
            let name = format!("{prefix}.{name}");
            match self.get(&name) {
                None => Err(Mismatch::Missing { name }),
                Some(t) if t.aval() != own.aval() => {
                    Err(Mismatch::Other { name, found: Box::new(t.aval()), wanted: Box::new(own.aval()) })
                }
                Some(t) => Ok(t.clone()),
            }
        };
        Ok(like.with_tensors(like.iter().map(find).collect::<Result<_, _>>()?))
    }

    /// Appends all tensors of another list.
    ///
    /// # Panics
    /// If a name is taken.
    #[track_caller]
    pub fn extend(&mut self, other: Params) {
        for (name, tensor) in other.iter() {
            self.push(name, tensor.clone());
        }
    }
}

/// Why a saved state is not that of a model.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Mismatch {
    /// A tensor is not there.
    #[error("there is no `{name}`")]
    Missing {
        /// Its full name.
        name: String,
    },
    /// A tensor is of another shape or type.
    #[error("`{name}` is {found}, the model's is {wanted}")]
    Other {
        /// Its full name.
        name: String,
        /// What it is.
        found: Box<Aval>,
        /// What the model has.
        wanted: Box<Aval>,
    },
}

impl FromIterator<(String, Tensor)> for Params {
    #[track_caller]
    fn from_iter<I: IntoIterator<Item = (String, Tensor)>>(tensors: I) -> Params {
        let mut params = Params::new();
        for (name, tensor) in tensors {
            params.push(name, tensor);
        }
        params
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> Params {
        let mut p = Params::new();
        p.push("0.weight", Tensor::new([2, 1], vec![1.0, 2.0]));
        p.push("0.bias", Tensor::new([1], vec![3.0]));
        p
    }

    #[test]
    fn a_prefix_comes_off_again() {
        let mut both = pair().prefixed("generator");
        both.extend(pair().prefixed("critic"));
        assert_eq!(both.names().nth(2), Some("critic.0.weight"));
        assert_eq!(both.split_prefix("critic"), pair());
        assert_eq!(both.split_prefix("crit"), Params::new());
        assert_eq!(both.count(), 6);
    }

    #[test]
    fn a_part_is_taken_by_name_whatever_the_order() {
        let mut saved = Params::new();
        saved.push("critic.0.bias", Tensor::new([1], vec![4.0]));
        saved.push("other", Tensor::scalar(0.0));
        saved.push("critic.0.weight", Tensor::new([2, 1], vec![5.0, 6.0]));
        let part = saved.part("critic", &pair()).unwrap();
        assert!(part.names().eq(pair().names()));
        assert_eq!((part.tensors()[0].f32s(), part.tensors()[1].f32s()), (&[5.0, 6.0][..], &[4.0][..]));
        assert_eq!(saved.part("generator", &pair()).unwrap_err().to_string(), "there is no `generator.0.weight`");
        let mut like = pair();
        like = like.with_tensors(vec![Tensor::scalar(0.0), like.tensors()[1].clone()]);
        let error = saved.part("critic", &like).unwrap_err().to_string();
        assert_eq!(error, "`critic.0.weight` is f32[2, 1], the model's is f32[]");
    }

    #[test]
    fn a_number_that_is_none_is_named() {
        let mut p = pair();
        assert_eq!(p.not_finite(), None);
        p.set(0, Tensor::new([2, 1], vec![1.0, f32::INFINITY]));
        assert_eq!(p.not_finite(), Some(("0.weight", f64::INFINITY)));
    }

    #[test]
    fn a_clone_is_another_list() {
        let first = pair();
        let mut second = first.clone();
        second.set(1, Tensor::new([1], vec![9.0]));
        assert_eq!(first.get("0.bias").unwrap().item(), 3.0);
        assert_eq!(second.get("0.bias").unwrap().item(), 9.0);
    }

    #[test]
    #[should_panic(expected = "0.bias is f32[1], not f32[2]")]
    fn another_shape_is_refused() {
        pair().set(1, Tensor::new([2], vec![0.0; 2]));
    }

    #[test]
    #[should_panic(expected = "a second tensor named 0.bias")]
    fn a_name_stands_once() {
        pair().push("0.bias", Tensor::scalar(0.0));
    }

    #[test]
    fn a_program_updates_all() {
        let mut p = pair();
        let program = Program::trace(&p.avals(), |_, p| vec![p[0].sum(), p[0] * 2.0, p[1] + 1.0]);
        let mut workspace = program.workspace();
        program.run(&mut workspace, &p.tensors().iter().collect::<Vec<_>>(), metaforge_autodiff::Par::Seq);
        p.update_from(&program, &workspace, 1);
        assert_eq!(p.tensors()[0].f32s(), &[2.0, 4.0]);
        assert_eq!(p.tensors()[1].f32s(), &[4.0]);
    }
}
