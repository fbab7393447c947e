//! The embedded worlds against the real sets they stand in for: as hard, and drawn the same from the same numbers.

use std::sync::Arc;

use metaforge_data::{
    Augment, BatchSampler, Classes, Digits, EpisodeConfig, EpisodeSampler, Glyphs, ImageSet, Rotations, Split, idx,
    omniglot,
};

fn squared(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}

/// Accuracy of the nearest support image by raw pixels over 600 five-way tasks, and 1.96 standard errors.
fn pixel_neighbour(source: Arc<dyn Classes>, shots: usize) -> (f64, f64) {
    let config = EpisodeConfig { ways: 5, shots, queries: 5, rotations: Rotations::None };
    let sampler = EpisodeSampler::new(source, config, 99).unwrap();
    let accuracies: Vec<f64> = sampler
        .episodes(0, 600)
        .iter()
        .map(|e| {
            let size = e.support_x.len() / (5 * shots);
            let right = e.query_x.f32s().chunks_exact(size).zip(e.query_y.u32s()).filter(|(query, label)| {
                let far = |row: usize| squared(&e.support_x.f32s()[row * size..][..size], query);
                let nearest = (0..5 * shots).min_by(|&a, &b| far(a).total_cmp(&far(b))).unwrap();
                e.support_y.u32s()[nearest] == **label
            });
            right.count() as f64 / e.query_y.len() as f64
        })
        .collect();
    let n = accuracies.len() as f64;
    let mean = accuracies.iter().sum::<f64>() / n;
    let variance = accuracies.iter().map(|a| (a - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean, 1.96 * (variance / n).sqrt())
}

fn data() -> Option<std::path::PathBuf> {
    std::env::var_os("METAFORGE_DATA").is_some().then(|| metaforge_data::data_dir(None).unwrap())
}

/// Real Omniglot, all 1,623 characters at 28x28 by this crate's reader, scores 0.441 with one shot and 0.648 with five.
#[test]
fn glyphs_are_as_hard_as_omniglot_for_raw_pixels() {
    let real = data().map(|dir| Arc::new(omniglot::read(&dir, 28).unwrap()));
    for (shots, known) in [(1, 0.441), (5, 0.648)] {
        let (glyphs, _) = pixel_neighbour(Arc::new(Glyphs::new(1, Split::Train)), shots);
        assert!((glyphs - known).abs() < 0.04, "{shots} shots: glyphs {glyphs:.3}, Omniglot {known}");
        if let Some(real) = &real {
            let (real, interval) = pixel_neighbour(real.clone(), shots);
            assert!((real - known).abs() < 2.0 * interval, "{shots} shots: Omniglot {real:.3}, once {known}");
        }
    }
}

/// Every part of the world is as hard as the next: what is chosen by validation holds for the test.
#[test]
fn the_parts_of_a_world_are_alike() {
    let of = |split| pixel_neighbour(Arc::new(Glyphs::new(3, split)), 1);
    let (train, test) = (of(Split::Train), of(Split::Test));
    assert!((train.0 - test.0).abs() < 1.5 * (train.1 + test.1), "train {train:?}, test {test:?}");
}

/// Real MNIST test digits score 0.542 with one shot, 0.758 with five.
#[test]
fn digits_are_as_hard_as_mnist_for_raw_pixels() {
    for (shots, known) in [(1, 0.542), (5, 0.758)] {
        let (digits, _) = pixel_neighbour(Arc::new(Digits::new(1, Split::Train)), shots);
        assert!((digits - known).abs() < 0.05, "{shots} shots: digits {digits:.3}, MNIST {known}");
    }
}

/// The shapes are those that people write: neighbours among embedded digits read real ones.
#[test]
fn embedded_digits_read_real_ones() {
    let Some(dir) = data() else { return };
    let real = idx::mnist(&dir.join("mnist"), Split::Test).unwrap();
    let ours = Digits::new(1, Split::Train).set(0..5000);
    let pixels = |set: &ImageSet, i: usize| set.image(i).iter().map(|&b| f32::from(b)).collect::<Vec<_>>();
    let known: Vec<Vec<f32>> = (0..ours.len()).map(|i| pixels(&ours, i)).collect();
    let asked: Vec<usize> = (0..real.len()).step_by(20).collect();
    let right = asked.iter().filter(|&&i| {
        let query = pixels(&real, i);
        let far: Vec<f32> = known.iter().map(|k| squared(k, &query)).collect();
        let nearest = (0..known.len()).min_by(|&a, &b| far[a].total_cmp(&far[b])).unwrap();
        ours.labels()[nearest] == real.labels()[i]
    });
    let accuracy = right.count() as f64 / asked.len() as f64;
    assert!(accuracy > 0.78, "{accuracy}");
}

#[test]
fn a_glyph_depends_on_world_alphabet_character_and_drawing() {
    let draw = |seed, split, class, drawing| {
        let mut out = vec![0.0; 784];
        Glyphs::new(seed, split).read(class, &[drawing], &mut out);
        out
    };
    let one = draw(1, Split::Train, 70, 3);
    assert_eq!(one, draw(1, Split::Train, 70, 3));
    for other in [
        draw(2, Split::Train, 70, 3),
        draw(1, Split::Test, 70, 3),
        draw(1, Split::Train, 71, 3),
        draw(1, Split::Train, 70, 4),
    ] {
        assert!(squared(&one, &other) > 1.0);
    }
    // Training and validation together are the alphabets of the one and the other in turn.
    assert_eq!(draw(1, Split::TrainVal, 32 + 5, 0), draw(1, Split::Val, 5, 0));
}

#[test]
fn no_draw_depends_on_the_number_of_threads() {
    let draw = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let config = EpisodeConfig { ways: 5, shots: 1, queries: 3, rotations: Rotations::PerEpisode };
            let sampler = EpisodeSampler::new(Arc::new(Glyphs::new(2, Split::Train)), config, 8).unwrap();
            let episodes: Vec<_> = sampler.episodes(40, 6).into_iter().map(|e| (e.support_x, e.query_x)).collect();
            let set = Digits::new(2, Split::Train).set(0..100);
            let augment = Augment { shift: 2.0, noise: 0.1, ..Default::default() };
            let batch = BatchSampler::new(Arc::new(set), 64, 5).unwrap().augment(augment).batch(3);
            (episodes, batch.x, batch.y)
        })
    };
    assert!(draw(1) == draw(5));
}

#[test]
fn every_glyph_is_ink_on_paper_at_any_size() {
    for size in [14, 28, 64] {
        let glyphs = Glyphs::new(5, Split::Train).size(size);
        assert_eq!(glyphs.image_shape(), [size, size, 1]);
        let mut out = vec![9.0; size * size];
        for class in 0..320 {
            glyphs.read(class * 31, &[class], &mut out);
            assert!(out.iter().all(|v| (0.0..=1.0).contains(v)));
            let part = out.iter().sum::<f32>() / (size * size) as f32;
            assert!((0.005..0.4).contains(&part), "class {}: {part} of the page is ink", class * 31);
        }
    }
}

#[test]
fn digits_are_framed_as_mnist_is() {
    let digits = Digits::new(4, Split::Test);
    let mut out = [0.0; 784];
    for i in 0..500 {
        digits.draw(i, &mut out);
        let total: f32 = out.iter().sum();
        let at =
            |f: fn(usize) -> usize| out.iter().enumerate().map(|(j, v)| v * (f(j) as f32 + 0.5)).sum::<f32>() / total;
        let (x, y) = (at(|j| j % 28), at(|j| j / 28));
        assert!((x - 14.0).abs() < 1.5 && (y - 14.0).abs() < 1.5, "picture {i}: centre {x:.1}, {y:.1}");
        let rows = out.chunks_exact(28).filter(|row| row.iter().any(|&v| v > 0.1)).count();
        let columns = (0..28).filter(|x| (0..28).any(|y| out[y * 28 + x] > 0.1)).count();
        assert!((18..=22).contains(&rows.max(columns)), "picture {i}: {rows} x {columns}");
    }
    let set = digits.set(0..50);
    assert_eq!((set.len(), set.class(3).len(), set.names()[3].as_str()), (50, 5, "3"));
    digits.draw(13, &mut out);
    let second = set.image(set.class(3).start + 1);
    assert!(second.iter().zip(&out).all(|(&b, v)| (f32::from(b) / 255.0 - v).abs() <= 0.5 / 255.0 + 1e-6));
}
