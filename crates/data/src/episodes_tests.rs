//! Tests of the episode sampler.

use std::collections::HashSet;

use super::*;
use crate::{Glyphs, ImageSet, Split};

/// `classes` classes of `each` images 2x2, all of whose pixels tell class and image.
fn numbered(classes: usize, each: usize) -> Arc<ImageSet> {
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for c in 0..classes {
        for i in 0..each {
            pixels.extend([c as u8, i as u8, 200, 100]);
            labels.push(c as u32);
        }
    }
    Arc::new(ImageSet::new([2, 2, 1], pixels, labels, (0..classes).map(|c| format!("c{c}")).collect()))
}

fn config(ways: usize, shots: usize, queries: usize, rotations: Rotations) -> EpisodeConfig {
    EpisodeConfig { ways, shots, queries, rotations }
}

fn bytes(row: &[f32]) -> Vec<u8> {
    row.iter().map(|v| (v * 255.0).round() as u8).collect()
}

#[test]
fn support_and_query_are_disjoint_rows_of_the_class_that_the_label_stands_for() {
    let sampler = EpisodeSampler::new(numbered(9, 7), config(5, 3, 4, Rotations::None), 1).unwrap();
    for number in 0..50 {
        let e = sampler.episode(number);
        assert_eq!((e.support_x.shape(), e.query_x.shape()), (&[15, 2, 2, 1][..], &[20, 2, 2, 1][..]));
        assert_eq!(e.support_y.u32s()[..4], [0, 0, 0, 1]);
        assert_eq!(e.query_y.u32s()[..5], [0, 0, 0, 0, 1]);
        let mut seen = HashSet::new();
        let all = [(&e.support_x, &e.support_y), (&e.query_x, &e.query_y)];
        for (x, y) in all {
            for (row, &label) in x.f32s().chunks_exact(4).zip(y.u32s()) {
                let row = bytes(row);
                assert_eq!(row[0] as usize, e.classes[label as usize].0);
                assert!(seen.insert((row[0], row[1])), "an image stands twice in an episode");
            }
        }
        assert_eq!(e.classes.iter().map(|c| c.0).collect::<HashSet<_>>().len(), 5);
    }
}

#[test]
fn an_episode_depends_on_seed_and_number_alone() {
    let sampler = |seed| EpisodeSampler::new(numbered(30, 9), config(5, 1, 3, Rotations::PerEpisode), seed).unwrap();
    let all = sampler(4).episodes(10, 6);
    let again = sampler(4).episode(13);
    assert_eq!((again.support_x.clone(), again.query_x), (all[3].support_x.clone(), all[3].query_x.clone()));
    assert_eq!(again.classes, all[3].classes);
    assert_ne!(again.classes, all[2].classes);
    assert_ne!(again.classes, sampler(5).episode(13).classes);
}

#[test]
fn every_class_gets_every_label() {
    let sampler = EpisodeSampler::new(numbered(3, 2), config(3, 1, 1, Rotations::None), 2).unwrap();
    let orders: HashSet<Vec<usize>> =
        (0..200).map(|i| sampler.episode(i).classes.iter().map(|c| c.0).collect()).collect();
    assert_eq!(orders.len(), 6);
}

#[test]
fn a_turn_is_counter_clockwise_and_four_are_none() {
    let image = [1.0, 2.0, 3.0, 4.0]; // [[1, 2], [3, 4]]
    let turned = |n| {
        let mut t = image;
        turn(&mut t, 2, 1, n);
        t
    };
    // numpy.rot90 gives these.
    assert_eq!(turned(1), [2.0, 4.0, 1.0, 3.0]);
    assert_eq!(turned(2), [4.0, 3.0, 2.0, 1.0]);
    assert_eq!(turned(3), [3.0, 1.0, 4.0, 2.0]);
    assert_eq!(turned(4), image);
    let mut colours = vec![1.0, 10.0, 2.0, 20.0, 3.0, 30.0, 4.0, 40.0];
    turn(&mut colours, 2, 2, 1);
    assert_eq!(colours, [2.0, 20.0, 4.0, 40.0, 1.0, 10.0, 3.0, 30.0]);
}

#[test]
fn rotations_as_classes_may_meet_and_per_episode_never_do() {
    let meets = |rotations| {
        let sampler = EpisodeSampler::new(numbered(5, 4), config(5, 2, 2, rotations), 3).unwrap();
        (0..100).any(|i| sampler.episode(i).classes.iter().map(|c| c.0).collect::<HashSet<_>>().len() < 5)
    };
    assert!(meets(Rotations::AsClasses));
    assert!(!meets(Rotations::PerEpisode));
    // Four times the classes: five characters serve twenty ways, each pair (character, turn) once.
    let sampler = EpisodeSampler::new(numbered(5, 4), config(20, 2, 2, Rotations::AsClasses), 3).unwrap();
    let e = sampler.episode(0);
    assert_eq!(e.classes.iter().collect::<HashSet<_>>().len(), 20);
    for (label, &(class, turns)) in e.classes.iter().enumerate() {
        for row in e.support_x.f32s().chunks_exact(4).skip(2 * label).take(2) {
            // Where the pixel that holds the class, once at the top left, has gone.
            let corner = [0, 2, 3, 1][turns];
            assert_eq!(bytes(row)[corner] as usize, class);
        }
    }
}

#[test]
fn a_config_that_cannot_be_served_is_refused_with_the_class_named() {
    let new = |c| EpisodeSampler::new(numbered(4, 3), c, 0).map(|_| ()).unwrap_err().to_string();
    assert!(new(config(5, 1, 1, Rotations::None)).contains("4 classes"));
    assert!(new(config(2, 2, 2, Rotations::None)).contains("c0 has 3 images"));
    assert!(new(config(2, 0, 2, Rotations::None)).contains("at least one"));
    let wide = Arc::new(ImageSet::new([1, 2, 1], vec![0; 4], vec![0, 0], vec!["x".into()]));
    assert!(EpisodeSampler::new(wide, config(1, 1, 1, Rotations::PerEpisode), 0).is_err());
}

#[test]
fn glyph_episodes_come_on_the_fly_and_parts_share_no_character() {
    let sampler =
        |split| EpisodeSampler::new(Arc::new(Glyphs::new(7, split)), config(5, 1, 2, Rotations::None), 0).unwrap();
    let e = sampler(Split::Train).episode(12);
    assert_eq!(e.support_x.shape(), [5, 28, 28, 1]);
    assert!(e.support_x.f32s().chunks_exact(784).all(|x| (10.0..250.0).contains(&x.iter().sum::<f32>())));
    assert_eq!(e.support_x, sampler(Split::Train).episode(12).support_x);
    assert_ne!(e.support_x, sampler(Split::Test).episode(12).support_x);
}
