//! Parameters as safetensors files: in our own layout, and in that of a PyTorch state dict.
//!
//! In our own layout a tensor lies as it lies in memory. In PyTorch's, weights are `[out, in]`, `[out, in, KH, KW]` and, transposed,
//! `[in, out, KH, KW]`; the names are those of `torch.nn.Sequential`, which [`crate::Sequential`] gives too. PyTorch reads such a
//! file by `model.load_state_dict(safetensors.torch.load_file(path))`, and writes one by `safetensors.torch.save_file`.
//!
//! A file is written beside its place and then moved there, so that a reader finds the old one or the new one and never a part. It carries a checksum of
//! its tensors, which files of other programs need not have.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use metaforge_autodiff::{Aval, DType, MAX_RANK, Shape, Tape, Tensor};
use safetensors::tensor::{Dtype, SafeTensors, TensorView, View};

use crate::error::Error;
use crate::layer::Layout;
use crate::model::Model;
use crate::params::Params;

/// The key of a file's metadata under which its checksum stands.
const CHECKSUM: &str = "metaforge.crc32";

/// The last part of the name of PyTorch's count of batches, an `i64` that only a `momentum=None` needs.
const BATCH_COUNT: &str = "num_batches_tracked";

/// Writes tensors in our own layout.
///
/// # Errors
/// If the file cannot be written.
pub fn save(path: impl AsRef<Path>, params: &Params) -> Result<(), Error> {
    write(path.as_ref(), params.iter())
}

/// Reads tensors in our own layout into the names, shapes, types and order of `like`.
///
/// # Errors
/// If the file is missing or damaged, or its tensors are not those of `like`.
pub fn load(path: impl AsRef<Path>, like: &Params) -> Result<Params, Error> {
    let path = path.as_ref();
    let mut file = Contents::read(path)?;
    let mut params = Params::new();
    for (name, tensor) in like.iter() {
        params.push(name, file.take(name, tensor.aval())?);
    }
    file.finish()?;
    Ok(params)
}

/// Reads all tensors of a file as they lie there, in the order of their names.
///
/// # Errors
/// If the file is missing or damaged, or has a tensor of a type other than `f32`, `f64`, `u32`, or of too many axes.
pub fn read(path: impl AsRef<Path>) -> Result<Params, Error> {
    let path = path.as_ref();
    let tensors = Contents::read(path)?.tensors;
    tensors.into_iter().map(|(name, stored)| Ok((name.clone(), stored.tensor(path, &name)?))).collect()
}

/// Writes a model's parameters and state as PyTorch's state dict. (PyTorch supplies the counts of batches itself.)
///
/// # Errors
/// If the file cannot be written.
///
/// # Panics
/// If `params` or `state` are not the model's.
pub fn save_pytorch(path: impl AsRef<Path>, model: &Model, params: &Params, state: &Params) -> Result<(), Error> {
    assert!(params.names().eq(model.specs().iter().map(|s| &s.name)), "parameters of another model");
    assert!(state.names().eq(model.state_specs().iter().map(|s| &s.name)), "state of another model");
    let theirs: Params = params
        .iter()
        .zip(model.specs())
        .map(|((name, t), spec)| (name.to_string(), to_torch(t, spec.layout)))
        .collect();
    write(path.as_ref(), theirs.iter().chain(state.iter()))
}

/// Reads a PyTorch state dict as a model's parameters and state. Counts of batches are passed over.
///
/// # Errors
/// If the file is missing or damaged, or its tensors are not those of the model.
pub fn load_pytorch(path: impl AsRef<Path>, model: &Model) -> Result<(Params, Params), Error> {
    let path = path.as_ref();
    let mut file = Contents::read(path)?;
    file.tensors.retain(|name, _| name.rsplit('.').next() != Some(BATCH_COUNT));
    let mut params = Params::new();
    for spec in model.specs() {
        let theirs = Aval::new(torch_shape(&spec.shape, spec.layout), DType::F32);
        params.push(&spec.name, from_torch(&file.take(&spec.name, theirs)?, spec.layout));
    }
    let mut state = Params::new();
    for spec in model.state_specs() {
        state.push(&spec.name, file.take(&spec.name, spec.start.aval())?);
    }
    file.finish()?;
    Ok((params, state))
}

/// Which of our axes stands at each place in PyTorch's layout.
fn torch_axes(rank: usize, layout: Layout) -> Vec<usize> {
    match layout {
        Layout::Plain => (0..rank).collect(),
        Layout::Weights => [rank - 1, rank - 2].into_iter().chain(0..rank - 2).collect(),
        Layout::Image => vec![2, 0, 1],
    }
}

fn torch_shape(shape: &Shape, layout: Layout) -> Shape {
    torch_axes(shape.len(), layout).iter().map(|&axis| shape[axis]).collect::<Vec<_>>().into()
}

fn to_torch(tensor: &Tensor, layout: Layout) -> Tensor {
    permuted(tensor, &torch_axes(tensor.shape().len(), layout))
}

fn from_torch(tensor: &Tensor, layout: Layout) -> Tensor {
    let axes = torch_axes(tensor.shape().len(), layout);
    let mut back = vec![0; axes.len()];
    for (place, axis) in axes.into_iter().enumerate() {
        back[axis] = place;
    }
    permuted(tensor, &back)
}

fn permuted(tensor: &Tensor, axes: &[usize]) -> Tensor {
    Tape::eager().constant(tensor).permute(axes).value()
}

/// A tensor as it lies in a file.
struct Stored {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Stored {
    fn tensor(&self, path: &Path, name: &str) -> Result<Tensor, Error> {
        if self.shape.len() > MAX_RANK {
            return Err(Error::corrupt(path, format!("`{name}` has {} axes", self.shape.len())));
        }
        let shape = Shape::from(&self.shape);
        match self.dtype {
            Dtype::F32 => Ok(Tensor::new(shape, numbers(&self.bytes, f32::from_le_bytes))),
            Dtype::F64 => Ok(Tensor::from_f64(shape, numbers(&self.bytes, f64::from_le_bytes))),
            Dtype::U32 => Ok(Tensor::from_u32(shape, numbers(&self.bytes, u32::from_le_bytes))),
            other => Err(self.wrong_type(path, name, other, "f32, f64 or u32")),
        }
    }

    fn wrong_type(&self, path: &Path, name: &str, found: Dtype, expected: impl ToString) -> Error {
        let found = format!("{found:?}").to_lowercase();
        Error::WrongType { path: path.into(), name: name.into(), found, expected: expected.to_string() }
    }
}

fn numbers<T, const SIZE: usize>(bytes: &[u8], number: impl Fn([u8; SIZE]) -> T) -> Vec<T> {
    let (chunks, _) = bytes.as_chunks::<SIZE>();
    chunks.iter().map(|&chunk| number(chunk)).collect()
}

/// What a file holds and nobody took yet.
struct Contents {
    path: PathBuf,
    tensors: BTreeMap<String, Stored>,
}

impl Contents {
    fn read(path: &Path) -> Result<Contents, Error> {
        let bytes = fs::read(path).map_err(|e| Error::reading(path, e))?;
        let parsed = SafeTensors::deserialize(&bytes).map_err(|e| Error::corrupt(path, e))?;
        let stored =
            |t: TensorView<'_>| Stored { dtype: t.dtype(), shape: t.shape().to_vec(), bytes: t.data().to_vec() };
        let tensors: BTreeMap<String, Stored> =
            parsed.tensors().into_iter().map(|(name, t)| (name, stored(t))).collect();
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| Error::corrupt(path, e))?;
        let expected = header.metadata().as_ref().and_then(|metadata| metadata.get(CHECKSUM));
        let found = checksum(tensors.iter().map(|(name, t)| (name.as_str(), t.dtype, &t.shape[..], &t.bytes[..])));
        if expected.is_some_and(|expected| *expected != found) {
            return Err(Error::corrupt(path, "its tensors are not those that its checksum was made of"));
        }
        Ok(Contents { path: path.into(), tensors })
    }

    /// Takes the tensor `name`, which must be as `expected`.
    fn take(&mut self, name: &str, expected: Aval) -> Result<Tensor, Error> {
        let path = &self.path;
        let stored = self.tensors.remove(name);
        let stored = stored.ok_or_else(|| Error::MissingTensor { path: path.clone(), name: name.into() })?;
        if tag(expected.dtype) != stored.dtype {
            return Err(stored.wrong_type(path, name, stored.dtype, expected.dtype));
        }
        let tensor = stored.tensor(path, name)?;
        if tensor.aval() != expected {
            let (found, expected) = (tensor.shape().to_vec(), expected.shape.to_vec());
            return Err(Error::WrongShape { path: path.clone(), name: name.into(), found, expected });
        }
        Ok(tensor)
    }

    /// Checks that everything was taken.
    fn finish(self) -> Result<(), Error> {
        match self.tensors.into_keys().next() {
            Some(name) => Err(Error::UnknownTensor { path: self.path, name }),
            None => Ok(()),
        }
    }
}

fn tag(dtype: DType) -> Dtype {
    match dtype {
        DType::F32 => Dtype::F32,
        DType::F64 => Dtype::F64,
        DType::U32 => Dtype::U32,
    }
}

/// A tensor on its way into a file.
struct Outgoing<'a>(&'a Tensor);

impl View for Outgoing<'_> {
    fn dtype(&self) -> Dtype {
        tag(self.0.dtype())
    }

    fn shape(&self) -> &[usize] {
        self.0.shape()
    }

    fn data(&self) -> Cow<'_, [u8]> {
        if cfg!(target_endian = "little") {
            return self.0.bytes().into();
        }
        // Numbers of the machine's order, each turned round.
        let mut bytes = self.0.bytes().to_vec();
        bytes.chunks_exact_mut(self.0.dtype().size()).for_each(<[u8]>::reverse);
        bytes.into()
    }

    fn data_len(&self) -> usize {
        self.0.bytes().len()
    }
}

/// The CRC-32 of tensors with their names, types (as the format writes them) and shapes, in the order of the names.
fn checksum<'a>(tensors: impl Iterator<Item = (&'a str, Dtype, &'a [usize], impl AsRef<[u8]>)>) -> String {
    let mut crc = crc32fast::Hasher::new();
    for (name, dtype, shape, bytes) in tensors {
        crc.update(format!("{name}: {dtype} {shape:?}").as_bytes());
        crc.update(bytes.as_ref());
    }
    format!("{:08x}", crc.finalize())
}

fn write<'a>(path: &Path, tensors: impl Iterator<Item = (&'a str, &'a Tensor)>) -> Result<(), Error> {
    let failed = |source| Error::Io { doing: "write", path: path.into(), source };
    let outgoing: BTreeMap<&str, Outgoing<'_>> = tensors.map(|(name, tensor)| (name, Outgoing(tensor))).collect();
    let checksum = checksum(outgoing.iter().map(|(&name, t)| (name, t.dtype(), t.shape(), t.data())));
    let metadata = HashMap::from([(CHECKSUM.to_string(), checksum)]);
    let bytes = safetensors::serialize(outgoing, Some(metadata)).map_err(|e| failed(std::io::Error::other(e)))?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.part", std::process::id()));
    let beside = PathBuf::from(beside);
    let written = File::create(&beside)
        .and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&beside, path));
    written.map_err(|e| {
        // The place may be out of reach for the removal too; the first failure is what counts.
        let _ = fs::remove_file(&beside);
        failed(e)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::{BatchNorm, Conv2d, ConvTranspose2d, Flatten, LayerNorm, Linear, Sequential};
    use metaforge_autodiff::Key;

    fn model() -> Model {
        let net = Sequential::new()
            .then(Conv2d::new(4, 3).groups(2))
            .then(BatchNorm::new())
            .then(ConvTranspose2d::new(6, 2).stride(2))
            .then(LayerNorm::over(3))
            .then(Flatten)
            .then(Linear::new(3));
        Model::new(net, [2, 5, 4, 2])
    }

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    fn small() -> Params {
        let mut params = Params::new();
        params.push("b", Tensor::new([2, 3], vec![1.0, -0.0, f32::MIN_POSITIVE, 4.0, f32::INFINITY, 6.0]));
        params.push("a", Tensor::from_f64([], vec![1.0 / 3.0]));
        params.push("labels", Tensor::from_u32([0, 7], vec![]));
        params
    }

    #[test]
    fn our_layout_comes_back_in_order() {
        let dir = folder();
        let path = dir.path().join("p.safetensors");
        save(&path, &small()).unwrap();
        let back = load(&path, &small()).unwrap();
        assert_eq!(back.names().collect::<Vec<_>>(), ["b", "a", "labels"]);
        for (there, here) in back.tensors().iter().zip(small().tensors()) {
            assert_eq!((there.aval(), there.bytes()), (here.aval(), here.bytes()));
        }
        assert_eq!(read(&path).unwrap().names().collect::<Vec<_>>(), ["a", "b", "labels"]);
        // Nothing is left beside it.
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
    }

    #[test]
    fn a_changed_bit_is_noticed_wherever_it_lies() {
        let dir = folder();
        let path = dir.path().join("p.safetensors");
        save(&path, &small()).unwrap();
        let whole = fs::read(&path).unwrap();
        let mut unnoticed = 0;
        for bit in 0..8 * whole.len() {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, bytes).unwrap();
            // But for the key of the checksum itself, without which nothing is known of the tensors.
            if let Ok(back) = read(&path) {
                let as_it_was = |(name, t): (&str, &Tensor)| {
                    let same =
                        small().iter().any(|(other, u)| (name, t.aval(), t.bytes()) == (other, u.aval(), u.bytes()));
                    assert!(same, "bit {bit} of {}: {name}", 8 * whole.len());
                };
                assert_eq!(back.len(), small().len());
                back.iter().for_each(as_it_was);
                unnoticed += 1;
            }
        }
        assert!(unnoticed <= 8 * CHECKSUM.len(), "{unnoticed} bits");
    }

    #[test]
    fn pytorch_layout_comes_back_and_lies_as_pytorch_has_it() {
        let (dir, model) = (folder(), model());
        let path = dir.path().join("p.safetensors");
        let (params, state) = (model.init(Key::new(1)), model.init_state());
        save_pytorch(&path, &model, &params, &state).unwrap();
        assert_eq!(load_pytorch(&path, &model).unwrap(), (params.clone(), state));
        let theirs = read(&path).unwrap();
        let shape = |name: &str| theirs.get(name).unwrap().shape().to_vec();
        assert_eq!(shape("0.weight"), [4, 1, 3, 3]);
        assert_eq!(shape("1.running_var"), [4]);
        assert_eq!(shape("2.weight"), [4, 6, 2, 2]);
        assert_eq!(shape("3.weight"), [6, 6, 4]);
        assert_eq!(shape("5.weight"), [3, 144]);
        // OIHW at (3, 0, 1, 2) is HWIO at (1, 2, 0, 3).
        assert_eq!(theirs.get("0.weight").unwrap().f32s()[3 * 9 + 3 + 2], params.tensors()[0].f32s()[(3 + 2) * 4 + 3]);
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = read("/nowhere/at/all").unwrap_err();
        assert!(matches!(error, Error::Missing { .. }));
        assert_eq!(error.to_string(), "/nowhere/at/all does not exist");
        assert!(matches!(save("/nowhere/at/all", &small()), Err(Error::Io { doing: "write", .. })));
    }

    #[test]
    fn a_file_cut_off_anywhere_is_an_error() {
        let dir = folder();
        let path = dir.path().join("p.safetensors");
        save(&path, &small()).unwrap();
        let whole = fs::read(&path).unwrap();
        for len in 0..whole.len() {
            fs::write(&path, &whole[..len]).unwrap();
            assert!(matches!(read(&path), Err(Error::Corrupt { .. })), "cut to {len} of {} bytes", whole.len());
        }
        fs::write(&path, [&whole[..], b"more"].concat()).unwrap();
        assert!(matches!(read(&path), Err(Error::Corrupt { .. })));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let dir = folder();
        let path = dir.path().join("p");
        save(&path, &small()).unwrap();
        let told = |like: &Params| load(&path, like).unwrap_err().to_string().replace(&path.display().to_string(), "F");
        let mut other = small();
        other.push("c", Tensor::scalar(0.0));
        assert_eq!(told(&other), "F has no tensor `c`");
        let two = small().iter().take(2).map(|(n, t)| (n.to_string(), t.clone())).collect();
        assert_eq!(told(&two), "F has a tensor `labels`, which the model does not know");
        let with = |i: usize, new: Tensor| {
            let mut tensors = small().tensors().to_vec();
            tensors[i] = new;
            small().with_tensors(tensors)
        };
        let turned = with(0, Tensor::zeros([3, 2], DType::F32));
        assert_eq!(told(&turned), "tensor `b` in F has shape [2, 3], the model's has [3, 2]");
        assert_eq!(told(&with(1, Tensor::scalar(0.0))), "tensor `a` in F holds f64, not f32");
    }

    #[test]
    fn a_state_dict_of_another_model_is_refused_in_its_own_layout() {
        let (dir, model) = (folder(), model());
        let path = dir.path().join("p");
        save_pytorch(&path, &model, &model.init(Key::new(1)), &model.init_state()).unwrap();
        let wider = Model::new(Sequential::new().then(Conv2d::new(8, 3)), [2, 5, 4, 2]);
        let error = load_pytorch(&path, &wider).unwrap_err();
        assert!(error.to_string().ends_with("has shape [4, 1, 3, 3], the model's has [8, 2, 3, 3]"), "{error}");
    }
}
