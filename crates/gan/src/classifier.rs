//! A small classifier of images, the eye of the metrics: trained by our own code on the data that a generator is to imitate.
//!
//! After LeNet-5 (LeCun et al. 1998): two convolutions with pooling and a layer of 84 features before the output; with batch
//! norm, dropout and small random shifts and turns.

use std::sync::Arc;

use metaforge_autodiff::{Aval, DType, Key, Par, Program, Tensor};
use metaforge_data::{Augment, BatchSampler, ImageSet};
use metaforge_nn::losses::cross_entropy;
use metaforge_nn::{
    Adam, BatchNorm, Conv2d, Dropout, Flatten, Init, Linear, MaxPool2d, Mode, Model, Optimizer, Params, Relu, Schedule,
    Sequential,
};

use crate::Error;
use crate::metrics::{Features, Readings};

/// Numbers of an image in the layer before the output.
pub const FEATURES: usize = 84;

/// Images that a pass outside training takes at once.
const CHUNK: usize = 128;

/// How a classifier is trained.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassifierConfig {
    /// Passes over the data.
    pub epochs: usize,
    /// Images of a step.
    pub batch: usize,
    /// Adam's highest rate; it rises for a tenth of the steps and falls along a cosine.
    pub rate: f64,
    /// Random changes of the training images.
    pub augment: Augment,
    /// Whence the first parameters, the order of the images and their changes.
    pub seed: u64,
}

impl Default for ClassifierConfig {
    fn default() -> ClassifierConfig {
        let augment = Augment { shift: 1.5, rotate: 10.0, ..Augment::default() };
        ClassifierConfig { epochs: 4, batch: 128, rate: 4e-3, augment, seed: 0 }
    }
}

/// A trained classifier.
#[derive(Debug)]
pub struct Classifier {
    trunk: Model,
    head: Model,
    trunk_params: Params,
    head_params: Params,
    running: Params,
    name: String,
    reader: Program,
}

/// What a classifier gives for a set of images.
#[derive(Clone, Debug)]
pub struct Outputs {
    /// `[N, 84]`, the layer before the output.
    pub features: Tensor,
    /// `[N, classes]`.
    pub logits: Tensor,
}

impl Classifier {
    /// An untrained classifier of images `[H, W, C]`, of at least 8x8.
    pub fn new(shape: [usize; 3], classes: usize, seed: u64) -> Classifier {
        let [h, w, c] = shape;
        let block = |net: Sequential, out| {
            let conv = Conv2d::new(out, 3).pad(1).no_bias().init(Init::KaimingNormal);
            // A rectifier behind the pooling gives the same numbers for a quarter of the work.
            net.then(conv).then(BatchNorm::new()).then(MaxPool2d::new(2)).then(Relu)
        };
        let body = [24, 48].into_iter().fold(Sequential::new(), block).then(Flatten);
        let dense = Linear::new(FEATURES).no_bias().init(Init::KaimingNormal);
        let trunk = Model::new(body.then(dense).then(BatchNorm::new()).then(Relu), [1, h, w, c]);
        let head = Model::new(Sequential::new().then(Dropout(0.3)).then(Linear::new(classes)), [1, FEATURES]);
        let key = Key::new(seed);
        let (trunk_params, head_params) = (trunk.init(key.fold(0)), head.init(key.fold(1)));
        let running = trunk.init_state();
        let reader = reader(&trunk, &head, shape);
        let name = format!("LeNet-like classifier of {classes} classes (seed {seed}), layer of {FEATURES}");
        Classifier { trunk, head, trunk_params, head_params, running, name, reader }
    }

    /// Trains a classifier on a set of images.
    ///
    /// # Errors
    /// If there are fewer images than a batch, or the loss is no longer finite.
    pub fn train(set: Arc<ImageSet>, config: &ClassifierConfig) -> Result<Classifier, Error> {
        let mut classifier = Classifier::new(set.shape(), set.names().len(), config.seed);
        let batches = BatchSampler::new(set, config.batch, config.seed)?.augment(config.augment);
        let steps = (batches.per_epoch() * config.epochs) as u64;
        let rise = steps / 10;
        let fall = Schedule::Cosine { from: config.rate, to: 0.0, steps: steps - rise };
        let schedule = Schedule::Warmup { steps: rise, then: Box::new(fall) };
        let mut learner = Learner::new(&classifier, config.batch);
        for step in 0..steps {
            let batch = batches.batch(step);
            let key = Key::new(config.seed).fold(2).fold(step).tensor();
            let rate = Tensor::scalar(schedule.at(step) as f32);
            let loss = learner.step(&mut classifier, &[&batch.x, &batch.y, &key, &rate]);
            if !loss.is_finite() {
                return Err(Error::Diverged { step: step + 1, what: "the classifier's loss".into() });
            }
        }
        Ok(classifier)
    }

    /// What it is, for reports of metrics.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Features and logits of `images` `[N, H, W, C]` with values in 0..=1; values beyond are cut off.
    ///
    /// # Panics
    /// If the images are of another shape than those trained on.
    #[track_caller]
    pub fn outputs(&self, images: &Tensor) -> Outputs {
        let (n, shape) = (images.shape()[0], self.trunk.input());
        assert!(
            images.shape().len() == 4 && images.shape()[1..] == shape[1..],
            "images are {}, not {shape}",
            images.aval()
        );
        let size: usize = shape[1..].iter().product();
        let classes = self.head.output()[1];
        let (mut features, mut logits) = (Vec::with_capacity(n * FEATURES), Vec::with_capacity(n * classes));
        let mut workspace = self.reader.workspace();
        for chunk in images.f32s().chunks(CHUNK * size.max(1)) {
            let some = chunk.len() / size;
            let mut x: Vec<f32> = chunk.iter().map(|v| v.clamp(0.0, 1.0)).collect();
            x.resize(CHUNK * size, 0.0);
            let x = Tensor::new(shape.with(0, CHUNK), x);
            let mut inputs: Vec<&Tensor> = self.trunk_params.tensors().iter().collect();
            inputs.extend(self.head_params.tensors().iter().chain(self.running.tensors()));
            inputs.push(&x);
            self.reader.run(&mut workspace, &inputs, Par::Rayon);
            features.extend_from_slice(&self.reader.output(&workspace, 0).f32s()[..some * FEATURES]);
            logits.extend_from_slice(&self.reader.output(&workspace, 1).f32s()[..some * classes]);
        }
        Outputs { features: Tensor::new([n, FEATURES], features), logits: Tensor::new([n, classes], logits) }
    }

    /// Logits `[N, classes]`; see [`Classifier::outputs`].
    #[track_caller]
    pub fn logits(&self, images: &Tensor) -> Tensor {
        self.outputs(images).logits
    }

    /// What it sees in images, for the distances; see [`Classifier::outputs`].
    #[track_caller]
    pub fn features(&self, images: &Tensor) -> Features {
        Features::new(&self.name, &self.outputs(images).features)
    }

    /// What it reads in images; see [`Classifier::outputs`].
    #[track_caller]
    pub fn read(&self, images: &Tensor) -> Readings {
        Readings::new(&self.name, &self.logits(images))
    }

    /// Part of a set that it labels rightly.
    #[track_caller]
    pub fn accuracy(&self, set: &ImageSet) -> f64 {
        let logits = self.logits(&images_of(set, 0..set.len()));
        let classes = self.head.output()[1];
        let best = |row: &[f32]| (0..classes).max_by(|&i, &j| row[i].total_cmp(&row[j]).then(j.cmp(&i)));
        let right = |(row, label): (&[f32], &u32)| best(row) == Some(*label as usize);
        let hits = logits.f32s().chunks_exact(classes).zip(set.labels()).filter(|&pair| right(pair)).count();
        hits as f64 / set.len().max(1) as f64
    }

    /// Its parameters and running statistics.
    pub fn state(&self) -> Params {
        let mut all = self.trunk_params.prefixed("trunk");
        all.extend(self.head_params.prefixed("head"));
        all.extend(self.running.prefixed("running"));
        all
    }

    /// Takes what [`Classifier::state`] gave.
    ///
    /// # Errors
    /// If a tensor is missing or of another shape. Nothing is changed then.
    pub fn restore(&mut self, saved: &Params) -> Result<(), Error> {
        let trunk = saved.part("trunk", &self.trunk_params)?;
        let head = saved.part("head", &self.head_params)?;
        self.running = saved.part("running", &self.running)?;
        (self.trunk_params, self.head_params) = (trunk, head);
        Ok(())
    }
}

/// Images of a set as a tensor `[range, H, W, C]` with values in 0..=1.
pub fn images_of(set: &ImageSet, range: std::ops::Range<usize>) -> Tensor {
    let [h, w, c] = set.shape();
    let pixels = range.clone().flat_map(|i| set.image(i).iter().map(|&b| f32::from(b) / 255.0));
    Tensor::new([range.len(), h, w, c], pixels.collect())
}

/// Inputs: parameters of trunk and head, running statistics, images; outputs: features and logits.
fn reader(trunk: &Model, head: &Model, [h, w, c]: [usize; 3]) -> Program {
    let mut inputs: Vec<Aval> = trunk.avals();
    inputs.extend(head.avals());
    inputs.extend(trunk.init_state().avals());
    inputs.push(Aval::new([CHUNK, h, w, c], DType::F32));
    let (of_trunk, of_head) = (trunk.specs().len(), head.specs().len());
    Program::trace(&inputs, |_, v| {
        let (trunk_params, rest) = v.split_at(of_trunk);
        let (head_params, rest) = rest.split_at(of_head);
        let (running, x) = rest.split_at(rest.len() - 1);
        let (features, _) = trunk.apply(trunk_params, running, x[0], Mode::Eval, None);
        let (logits, _) = head.apply(head_params, &[], features, Mode::Eval, None);
        vec![features, logits]
    })
}

/// A training step of the classifier, compiled.
struct Learner {
    program: Program,
    workspace: metaforge_autodiff::Workspace,
    optimizer: Params,
}

impl Learner {
    fn new(classifier: &Classifier, batch: usize) -> Learner {
        let Classifier { trunk, head, trunk_params, head_params, running, .. } = classifier;
        let adam = Adam::default();
        let mut avals = trunk_params.avals();
        avals.extend(head_params.avals());
        let optimizer = adam.init(&avals);
        let (of_trunk, of_params, of_optimizer) = (trunk_params.len(), avals.len(), optimizer.len());
        let mut inputs = avals;
        inputs.extend(optimizer.avals());
        inputs.extend(running.avals());
        let shape = trunk.input().with(0, batch);
        inputs.extend([Aval::new(shape, DType::F32), Aval::new([batch], DType::U32), Aval::new([2], DType::U32)]);
        inputs.push(Aval::new([], DType::F32));
        let program = Program::trace(&inputs, |_, v| {
            let (params, rest) = v.split_at(of_params);
            let (moments, rest) = rest.split_at(of_optimizer);
            let (running, data) = rest.split_at(rest.len() - 4);
            let (trunk_params, head_params) = params.split_at(of_trunk);
            let (features, running) = trunk.apply(trunk_params, running, data[0], Mode::Train, None);
            let (logits, _) = head.apply(head_params, &[], features, Mode::Train, Some(data[2]));
            let loss = cross_entropy(logits, data[1]);
            let gradients = metaforge_autodiff::grad_detached(loss, params);
            let (params, moments) = adam.update(params, &gradients, moments, data[3]);
            [params, moments, running, vec![loss]].concat()
        });
        Learner { workspace: program.workspace(), program, optimizer }
    }

    /// Takes images, labels, a key and a rate; gives the loss.
    fn step(&mut self, classifier: &mut Classifier, data: &[&Tensor]) -> f64 {
        let Classifier { trunk_params, head_params, running, .. } = classifier;
        let mut inputs: Vec<&Tensor> = trunk_params.tensors().iter().chain(head_params.tensors()).collect();
        inputs.extend(self.optimizer.tensors().iter().chain(running.tensors()));
        inputs.extend(data);
        self.program.run(&mut self.workspace, &inputs, Par::Rayon);
        let mut at = 0;
        for part in [trunk_params, head_params, &mut self.optimizer, running] {
            part.update_from(&self.program, &self.workspace, at);
            at += part.len();
        }
        self.program.output(&self.workspace, at).item()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use metaforge_data::{Digits, Split};

    #[test]
    fn it_learns_to_read_digits_and_survives_saving() {
        let set = Arc::new(Digits::new(1, Split::Train).set(0..3000));
        let test = Digits::new(1, Split::Test).set(0..500);
        let config = ClassifierConfig { epochs: 3, batch: 50, ..ClassifierConfig::default() };
        let classifier = Classifier::train(set.clone(), &config).unwrap();
        let accuracy = classifier.accuracy(&test);
        assert!(accuracy > 0.93, "{accuracy}");

        let mut other = Classifier::new([28, 28, 1], 10, config.seed);
        other.restore(&classifier.state()).unwrap();
        let images = images_of(&test, 0..200);
        assert_eq!(other.logits(&images), classifier.logits(&images));
        let alone = classifier.logits(&images_of(&test, 130..131));
        assert_eq!(alone.f32s(), &classifier.logits(&images).f32s()[1300..1310], "an image is read alone");
        assert!(Classifier::new([28, 28, 1], 9, 0).restore(&classifier.state()).is_err());

        let reading = classifier.read(&images_of(&test, 0..500));
        assert!(reading.read_rate > 0.5 && reading.rarest() > 0.05, "{reading:?}");
    }
}
