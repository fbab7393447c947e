//! Whose class do the drawn images resemble? Ranking by a prototypical embedding (Snell et al. 2017) that was trained on other
//! classes.
//!
//! For each of C unseen classes the players adapt to k support images and draw new ones. The embedding of a drawn image is
//! compared with C prototypes, each the mean embedding of real drawings that were neither support nor are compared
//! themselves. Beside it: the same for real drawings (the ceiling), how varied the drawn images are, and whether they copy
//! the support.

use metaforge_autodiff::{Aval, DType, Key, Par, Program, Tensor};
use metaforge_data::Classes;
use metaforge_nn::{Mode, Model, Params};
use rand::seq::index;
use rayon::prelude::*;

use crate::{Error, InnerGame, Players};

/// The eye: an embedding with its parameters, in its inductive mode (each image alone).
#[derive(Debug)]
pub struct Embedding {
    name: String,
    model: Model,
    params: Params,
    state: Params,
    program: Program,
}

/// Images that the embedding takes at once.
const CHUNK: usize = 32;

impl Embedding {
    /// A trained model of images with its running statistics, by a name for reports.
    pub fn new(name: impl Into<String>, model: Model, params: Params, state: Params) -> Embedding {
        let images = Aval::new(model.input().with(0, CHUNK), DType::F32);
        let inputs = [params.avals(), state.avals(), vec![images]].concat();
        let (n, m) = (params.len(), state.len());
        let program = Program::trace(&inputs, |_, v| {
            let (z, _) = model.apply(&v[..n], &v[n..n + m], v[n + m], Mode::Eval, None);
            vec![z.reshape([CHUNK, z.shape().elements() / CHUNK])]
        });
        Embedding { name: name.into(), model, params, state, program }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// One row of numbers for each image of `[N, H, W, C]`.
    ///
    /// # Panics
    /// If the images are of another shape than the model's.
    #[track_caller]
    pub fn embed(&self, images: &Tensor) -> Vec<Vec<f64>> {
        let shape = self.model.input();
        assert!(images.shape()[1..] == shape[1..], "images are {}, not {shape}", images.aval());
        let size: usize = shape[1..].iter().product();
        let mut workspace = self.program.workspace();
        let mut rows = Vec::with_capacity(images.shape()[0]);
        for chunk in images.f32s().chunks(CHUNK * size) {
            let mut x = chunk.to_vec();
            x.resize(CHUNK * size, 0.0);
            let x = Tensor::new(shape.with(0, CHUNK), x);
            let mut inputs: Vec<&Tensor> = self.params.tensors().iter().chain(self.state.tensors()).collect();
            inputs.push(&x);
            self.program.run(&mut workspace, &inputs, Par::Seq);
            let z = self.program.output(&workspace, 0).f32s();
            let row = |z: &[f32]| z.iter().map(|&v| f64::from(v)).collect();
            rows.extend(z.chunks_exact(z.len() / CHUNK).take(chunk.len() / size).map(row));
        }
        rows
    }
}

/// Drawings of one class, in disjoint parts.
#[derive(Clone, Debug)]
pub struct Subject {
    /// What the players learn from, `[k, H, W, C]`.
    pub support: Tensor,
    /// What the prototype is made of, `[P, H, W, C]`.
    pub prototype: Tensor,
    /// What stands for the class in comparisons, `[R, H, W, C]`.
    pub reference: Tensor,
}

impl Subject {
    /// `shots` images of a class for the support, `reference` ones for comparison and all others (at most 64) for the
    /// prototype, dealt by the key.
    ///
    /// # Errors
    /// If the class has no image left for the prototype.
    pub fn draw(
        source: &dyn Classes,
        class: usize,
        shots: usize,
        reference: usize,
        key: Key,
    ) -> Result<Subject, Error> {
        let have = source.images(class);
        if have <= shots + reference {
            let (class, need) = (source.class_name(class), shots + reference + 1);
            return Err(metaforge_data::Error::TooFewImages { class, have, need }.into());
        }
        let take = have.min(shots + reference + 64);
        let picks = index::sample(&mut key.rng(), have, take).into_vec();
        let [h, w, c] = source.image_shape();
        let read = |picks: &[usize]| {
            let mut out = vec![0.0; picks.len() * h * w * c];
            source.read(class, picks, &mut out);
            Tensor::new([picks.len(), h, w, c], out)
        };
        Ok(Subject {
            support: read(&picks[..shots]),
            prototype: read(&picks[shots + reference..]),
            reference: read(&picks[shots..shots + reference]),
        })
    }
}

/// What [`rank`] found.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranking {
    /// Part of the drawn images whose nearest prototype is that of their class. Chance is `1 / classes`.
    pub top1: f64,
    /// Half the width of the 95 % interval of [`Ranking::top1`] over classes.
    pub interval: f64,
    /// The same part for real drawings: the ceiling.
    pub real_top1: f64,
    /// Mean place of the right class among all, from 1.
    pub mean_rank: f64,
    /// Mean distance of two drawn images of a class over that of two real ones: 0 for one image again and again, 1 for as
    /// varied as the hand.
    pub diversity: f64,
    /// Mean distance of a drawn image to the nearest of its support over that of a real drawing: near 0 for copies, 1 for as new
    /// as a drawing by the hand.
    pub novelty: f64,
    /// Number of classes C.
    pub classes: usize,
    /// Images of a support.
    pub shots: usize,
    /// Images drawn of a class.
    pub samples: usize,
    /// Steps of the inner game.
    pub steps: usize,
    /// What compared the images.
    pub embedding: String,
    /// Part of the drawn images of each class whose nearest prototype is that of their class.
    pub by_class: Vec<f64>,
}

/// Lets the players adapt to each subject from the same parameters, draws `samples` images of each, and ranks them. With players that
/// were never trained across classes it is the control. Each drawn image is seen at full contrast, as real drawings are: an embedding takes a dim
/// drawing for an empty one, whatever it shows.
///
/// # Errors
/// As [`InnerGame::adapt`]; and with fewer than two subjects, samples or references.
pub fn rank(
    game: &InnerGame,
    from: &Players,
    embedding: &Embedding,
    subjects: &[Subject],
    steps: usize,
    samples: usize,
    key: Key,
) -> Result<Ranking, Error> {
    let drawn: Vec<Tensor> = (0..subjects.len())
        .into_par_iter()
        .with_max_len(1)
        .map(|i| {
            let key = key.fold(i as u64);
            let adapted = game.adapt(from, &subjects[i].support, steps, key.fold(0), Par::Seq)?;
            Ok(stretched(&game.sample(&adapted, samples, key.fold(1))))
        })
        .collect::<Result<_, Error>>()?;
    rank_drawn(embedding, subjects, &drawn, steps)
}

/// Ranks images `[samples, H, W, C]` of each subject, wherever they come from; `steps` is only noted.
///
/// # Errors
/// With fewer than two subjects, drawn images or references, or another number of sets of images than of subjects.
pub fn rank_drawn(
    embedding: &Embedding,
    subjects: &[Subject],
    drawn: &[Tensor],
    steps: usize,
) -> Result<Ranking, Error> {
    let classes = subjects.len();
    let samples = drawn.first().map_or(0, |d| d.shape()[0]);
    let fewest = subjects.iter().map(|s| s.reference.shape()[0]).min().unwrap_or(0).min(samples).min(classes);
    if fewest < 2 || drawn.len() != classes {
        return Err(Error::Setting("a ranking takes two classes, two drawn and two reference images of each".into()));
    }
    let seen =
        |images: Vec<&Tensor>| -> Vec<Vec<Vec<f64>>> { images.into_par_iter().map(|x| embedding.embed(x)).collect() };
    let drawn = seen(drawn.iter().collect());
    let support = seen(subjects.iter().map(|s| &s.support).collect());
    let real = seen(subjects.iter().map(|s| &s.reference).collect());
    let prototypes: Vec<Vec<f64>> =
        seen(subjects.iter().map(|s| &s.prototype).collect()).iter().map(|z| mean(z)).collect();

    let place = |z: &[f64], class: usize| {
        let own = distance(z, &prototypes[class]);
        1 + prototypes.iter().enumerate().filter(|&(c, p)| c != class && distance(z, p) <= own).count()
    };
    let top1 = |sets: &[Vec<Vec<f64>>]| -> Vec<f64> {
        let part = |(class, set): (usize, &Vec<Vec<f64>>)| {
            set.iter().filter(|z| place(z, class) == 1).count() as f64 / set.len() as f64
        };
        sets.iter().enumerate().map(part).collect()
    };
    if drawn.iter().flatten().flatten().any(|v| !v.is_finite()) {
        return Err(Error::Setting("a drawn image is not of numbers".into()));
    }
    let by_class = top1(&drawn);
    let average = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let overall = average(&by_class);
    let spread = by_class.iter().map(|p| (p - overall).powi(2)).sum::<f64>() / (classes - 1) as f64;
    let places = drawn.iter().enumerate().flat_map(|(class, set)| set.iter().map(move |z| place(z, class) as f64));
    let ratio = |f: &dyn Fn(usize, &[Vec<f64>]) -> f64| {
        let total = |sets: &[Vec<Vec<f64>>]| sets.iter().enumerate().map(|(c, set)| f(c, set)).sum::<f64>();
        total(&drawn) / total(&real).max(f64::MIN_POSITIVE)
    };
    Ok(Ranking {
        top1: overall,
        interval: 1.96 * (spread / classes as f64).sqrt(),
        real_top1: average(&top1(&real)),
        mean_rank: average(&places.collect::<Vec<f64>>()),
        diversity: ratio(&|_, set| pairwise(set)),
        novelty: ratio(&|class, set| set.iter().map(|z| nearest(z, &support[class])).sum::<f64>() / set.len() as f64),
        classes,
        shots: subjects[0].support.shape()[0],
        samples,
        steps,
        embedding: embedding.name.clone(),
        by_class,
    })
}

/// Each of the images with its darkest number at 0 and its brightest at 1; one of a single shade stays as it is.
fn stretched(images: &Tensor) -> Tensor {
    let size: usize = images.shape()[1..].iter().product();
    let mut numbers = images.f32s().to_vec();
    for image in numbers.chunks_mut(size.max(1)) {
        let (low, high) = image.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), &x| (l.min(x), h.max(x)));
        if high > low {
            image.iter_mut().for_each(|x| *x = (*x - low) / (high - low));
        }
    }
    Tensor::new(images.shape(), numbers)
}

fn mean(rows: &[Vec<f64>]) -> Vec<f64> {
    (0..rows[0].len()).map(|j| rows.iter().map(|r| r[j]).sum::<f64>() / rows.len() as f64).collect()
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| (x - y) * (x - y)).sum::<f64>().sqrt()
}

fn nearest(z: &[f64], set: &[Vec<f64>]) -> f64 {
    set.iter().map(|s| distance(z, s)).fold(f64::INFINITY, f64::min)
}

/// Mean distance of two different members.
fn pairwise(set: &[Vec<f64>]) -> f64 {
    let pairs = (0..set.len()).flat_map(|i| (0..i).map(move |j| (i, j)));
    let n = set.len() * (set.len() - 1) / 2;
    pairs.map(|(i, j)| distance(&set[i], &set[j])).sum::<f64>() / n as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use metaforge_nn::{Flatten, Sequential};

    /// The pixels themselves as the embedding.
    fn pixels() -> Embedding {
        Embedding::new(
            "pixels",
            Model::new(Sequential::new().then(Flatten), [1, 1, 2, 1]),
            Params::new(),
            Params::new(),
        )
    }

    fn around(x: f32, y: f32, n: usize, spread: f32, seed: u64) -> Tensor {
        let z = Key::new(seed).normal([n, 1, 2, 1], 0.0, spread);
        let at = |(i, v): (usize, &f32)| v + if i % 2 == 0 { x } else { y };
        Tensor::new([n, 1, 2, 1], z.f32s().iter().enumerate().map(at).collect())
    }

    fn subjects() -> Vec<Subject> {
        let at = [(0.0, 0.0), (10.0, 0.0), (0.0, 10.0)];
        let subject = |(i, &(x, y)): (usize, &(f32, f32))| Subject {
            support: around(x, y, 5, 1.0, 10 + i as u64),
            prototype: around(x, y, 40, 1.0, 20 + i as u64),
            reference: around(x, y, 40, 1.0, 30 + i as u64),
        };
        at.iter().enumerate().map(subject).collect()
    }

    #[test]
    fn images_like_the_real_ones_score_like_them() {
        let subjects = subjects();
        let drawn: Vec<Tensor> = [(0.0, 0.0), (10.0, 0.0), (0.0, 10.0)]
            .iter()
            .enumerate()
            .map(|(i, &(x, y))| around(x, y, 60, 1.0, 40 + i as u64))
            .collect();
        let r = rank_drawn(&pixels(), &subjects, &drawn, 0).unwrap();
        assert_eq!((r.top1, r.real_top1, r.mean_rank), (1.0, 1.0, 1.0));
        assert!((r.diversity - 1.0).abs() < 0.2 && (r.novelty - 1.0).abs() < 0.25, "{r:?}");
    }

    #[test]
    fn a_dim_image_is_seen_at_full_contrast() {
        let images = Tensor::new([2, 1, 3, 1], vec![0.1, 0.2, 0.3, 0.5, 0.5, 0.5]);
        let seen = stretched(&images);
        assert_eq!(seen.shape(), images.shape());
        assert!(seen.f32s().iter().zip([0.0, 0.5, 1.0, 0.5, 0.5, 0.5]).all(|(a, b)| (a - b).abs() < 1e-6), "{seen:?}");
        assert!(stretched(&Tensor::new([1, 1, 2, 1], vec![f32::NAN, 1.0])).f32s()[0].is_nan());
    }

    #[test]
    fn images_that_are_no_numbers_are_refused() {
        let mut drawn: Vec<Tensor> = subjects().iter().map(|s| s.reference.clone()).collect();
        drawn[1] = Tensor::full([40, 1, 2, 1], f64::NAN, DType::F32);
        assert!(matches!(rank_drawn(&pixels(), &subjects(), &drawn, 0), Err(Error::Setting(_))));
    }

    #[test]
    fn copies_are_not_new_and_one_image_is_not_varied() {
        let subjects = subjects();
        let copies: Vec<Tensor> = subjects.iter().map(|s| s.support.clone()).collect();
        let r = rank_drawn(&pixels(), &subjects, &copies, 0).unwrap();
        assert!(r.novelty == 0.0 && r.diversity > 0.6, "{r:?}");
        let one: Vec<Tensor> =
            subjects.iter().map(|s| Tensor::new([4, 1, 2, 1], s.reference.f32s()[..2].repeat(4))).collect();
        let r = rank_drawn(&pixels(), &subjects, &one, 0).unwrap();
        assert!(r.diversity == 0.0 && r.novelty > 0.1, "{r:?}");
    }

    #[test]
    fn the_same_image_for_all_classes_scores_chance_and_ties_count_against_it() {
        let subjects = subjects();
        let same = vec![around(0.0, 0.0, 30, 0.1, 1); 3];
        let r = rank_drawn(&pixels(), &subjects, &same, 0).unwrap();
        assert!((r.top1 - 1.0 / 3.0).abs() < 1e-12 && r.by_class == [1.0, 0.0, 0.0], "{r:?}");
        let mut twins = subjects.clone();
        twins[1] = twins[0].clone();
        assert_eq!(rank_drawn(&pixels(), &twins, &same, 0).unwrap().top1, 0.0);
    }

    #[test]
    fn the_parts_of_a_subject_are_disjoint() {
        let pixels: Vec<u8> = (0..40).collect();
        let set = metaforge_data::ImageSet::new([1, 2, 1], pixels, vec![0; 20], vec!["a".into()]);
        let s = Subject::draw(&set, 0, 5, 5, Key::new(1)).unwrap();
        let all = [&s.support, &s.prototype, &s.reference].map(|t| t.f32s().to_vec()).concat();
        let mut first: Vec<u32> = all.iter().step_by(2).map(|v| (v * 255.0).round() as u32).collect();
        first.sort_unstable();
        assert_eq!(first, (0..20).map(|i| 2 * i).collect::<Vec<_>>());
        assert_eq!(s.prototype.shape()[0], 10);
        assert!(Subject::draw(&set, 0, 15, 5, Key::new(1)).is_err());
    }
}
