//! The inner game: its losses, its gradients and what an adaptation leaves behind.

use super::*;
use crate::fewshot_gan;
use metaforge_autodiff::{Tape, grad};
use metaforge_data::{Classes, Glyphs, Split};

pub(crate) fn config(rate: f64) -> InnerConfig {
    InnerConfig { shots: 3, generator: Rule::adam(rate, 0.0, 0.999), discriminator: Rule::adam(rate, 0.0, 0.999) }
}

pub(crate) fn game(rate: f64) -> InnerGame {
    InnerGame::new(fewshot_gan(6, 4), config(rate)).unwrap()
}

fn support(class: usize) -> Tensor {
    let mut out = vec![0.0; 3 * 784];
    Glyphs::new(1, Split::Train).read(class, &[0, 1, 2], &mut out);
    Tensor::new([3, 28, 28, 1], out)
}

#[test]
fn mixtures_have_the_mean_and_covariance_of_the_codes() {
    let (n, k) = (100_000, 4);
    let w = mixtures(Key::new(1), n, k).to_f64_vec();
    assert!(w.chunks(k).all(|r| (r.iter().sum::<f64>() - 1.0).abs() < 1e-5));
    // With the unit vectors as codes: mean 1/k everywhere, unbiased covariance (I - 1/k) / (k - 1).
    for i in 0..k {
        for j in 0..=i {
            let product = w.chunks(k).map(|r| (r[i] - 0.25) * (r[j] - 0.25)).sum::<f64>() / n as f64;
            let want = (f64::from(i == j) - 0.25) / 3.0;
            assert!((product - want).abs() < 0.006, "{i} {j}: {product} {want}");
        }
    }
}

#[test]
fn a_step_is_the_discriminators_move_then_the_generators_against_the_moved_one() {
    let game = game(1e-2);
    let (gan, x) = (game.gan(), support(0));
    let from = gan.init(Key::new(3));
    let key = Key::new(8);
    let adapted = game.adapt(&from, &x, 1, key, Par::Seq).unwrap();

    let tape = Tape::eager();
    let (g, d) = (from.generator.bind(&tape), from.discriminator.bind(&tape));
    let real = tape.constant(&x);
    let mix = |i: u64| tape.constant(&mixtures(key.fold(0).fold(i), 3, 3));
    let between = tape.constant(&key.fold(0).fold(2).uniform([3], 0.0, 1.0));
    let round = Round { real, fake: gan.generate(&g, real, mix(0)), mix: between };
    let verdict = judge(&gan.discriminator, &d, gan.loss, gan.penalty, round);
    assert_eq!(adapted.d_loss, verdict.total().value().item());
    let none = |g: &Var<'_>| g.value().f32s().iter().all(|&v| v == 0.0);
    assert!(grad(verdict.total(), &g).iter().all(none), "generated images are detached");

    let moved = adapted.players.discriminator.bind(&tape);
    let [loss, reconstruction] = gan.generator_loss(&g, &moved, real, mix(1));
    assert_eq!((adapted.g_loss, adapted.reconstruction), (loss.value().item(), reconstruction.value().item()));
    let rule = &game.config().generator;
    let state = rule.start(&from.generator.avals()).bind(&tape);
    let (want, _) = rule.descend(loss, &g, &state, tape.constant(&Tensor::scalar(1e-2)));
    for (want, got) in want.iter().zip(adapted.players.generator.tensors()) {
        assert_eq!(&want.value(), got);
    }
}

#[test]
fn every_class_starts_with_optimisers_that_know_nothing() {
    let game = game(1e-2);
    let from = game.gan().init(Key::new(3));
    let alone = game.adapt(&from, &support(1), 2, Key::new(8), Par::Seq).unwrap();
    game.adapt(&from, &support(0), 3, Key::new(9), Par::Seq).unwrap();
    let after = game.adapt(&from, &support(1), 2, Key::new(8), Par::Seq).unwrap();
    assert_eq!(alone, after);
    assert_eq!(game.adapt(&from, &support(1), 0, Key::new(8), Par::Seq).unwrap().players, from);
}

#[test]
fn threads_within_a_class_do_not_matter() {
    // Large enough to split: convolutions do so from a million products on, and the discriminator's second one alone has 3 images of
    // 7x7 pixels, 9 taps, 32 by 64 channels: 2.7 million.
    let game = InnerGame::new(fewshot_gan(16, 32), config(1e-3)).unwrap();
    let from = game.gan().init(Key::new(3));
    let run = |par| game.adapt(&from, &support(1), 2, Key::new(8), par).unwrap();
    let seq = run(Par::Seq);
    for threads in [2, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        assert_eq!(seq, pool.install(|| run(Par::Rayon)));
    }
    assert_eq!(game.sample(&seq, 20, Key::new(1)).shape(), [20, 28, 28, 1]);
    let (all, few) = (game.sample(&seq, 20, Key::new(1)), game.sample(&seq, 5, Key::new(1)));
    assert_eq!(&all.f32s()[..5 * 784], few.f32s());
}

#[test]
fn adaptation_learns_to_draw_the_support() {
    let game = game(5e-3);
    let from = game.gan().init(Key::new(3));
    let at = |steps| game.adapt(&from, &support(2), steps, Key::new(8), Par::Rayon).unwrap().reconstruction;
    assert!(at(60) < 0.7 * at(1), "{} {}", at(60), at(1));
}

#[test]
fn what_comes_from_outside_is_checked() {
    let error = InnerGame::new(fewshot_gan(6, 4), InnerConfig { shots: 1, ..config(0.1) }).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("at least 2"), "{error}");
    let game = game(1e-2);
    let from = game.gan().init(Key::new(3));
    let error = game.adapt(&from, &support(0).rows(0, 2), 1, Key::new(0), Par::Seq).unwrap_err();
    assert!(error.to_string().contains("[3, 28, 28, 1]"), "{error}");
}
