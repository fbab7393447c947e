//! Reptile over both players: its direction, resuming, threads.

use super::*;
use crate::figr::tests::{config, game};
use crate::{InnerConfig, fewshot_gan};
use metaforge_data::{EpisodeConfig, EpisodeSampler, Glyphs, Rotations, Split};
use metaforge_nn::Sgd;

fn trainer(meta_batch: usize, outer: Rule, inner_rate: f64) -> FewShotTrainer {
    playing(game(inner_rate), FewShotConfig { inner_steps: 2, meta_batch, outer, seed: 2 })
}

fn playing(game: InnerGame, config: FewShotConfig) -> FewShotTrainer {
    let shape = EpisodeConfig { ways: 1, shots: game.config().shots, queries: 1, rotations: Rotations::None };
    let tasks = EpisodeSampler::new(Arc::new(Glyphs::new(1, Split::Train)), shape, 4).unwrap();
    FewShotTrainer::new(game, Arc::new(tasks), config).unwrap()
}

fn ends(trainer: &FewShotTrainer, tasks: u64) -> Vec<Players> {
    (0..tasks).map(|i| trainer.play(i).unwrap().players).collect()
}

#[test]
fn reptile_moves_towards_the_mean_of_the_adapted_players() {
    // Plain descent along theta - phi at rate 0.5 ends half-way between theta and the mean phi; the wrong sign, beyond theta.
    let mut trainer = trainer(3, Rule::new(Sgd::new(), 0.5), 1e-2);
    let (theta, phi) = (trainer.players().clone(), ends(&trainer, 3));
    let report = trainer.step().unwrap();
    let mut squares = 0.0;
    for (i, (new, old)) in trainer.players().tensors().zip(theta.tensors()).enumerate() {
        let ends: Vec<&[f32]> = phi.iter().map(|p| p.tensors().nth(i).unwrap().f32s()).collect();
        for (j, (new, old)) in new.f32s().iter().zip(old.f32s()).enumerate() {
            let mean = ends.iter().map(|e| f64::from(e[j])).sum::<f64>() / 3.0;
            squares += (f64::from(*old) - mean).powi(2);
            assert!((f64::from(*new) - (f64::from(*old) + mean) / 2.0).abs() < 1e-6);
        }
    }
    assert!((report.distance - squares.sqrt()).abs() < 1e-3 * report.distance);
    assert_eq!(report.step, 1);
}

#[test]
fn training_goes_on_to_the_same_bits_from_a_saved_state() {
    let adam = || Rule::adam(1e-2, 0.5, 0.99);
    let mut straight = trainer(2, adam(), 1e-2);
    straight.step().unwrap();
    let saved = straight.state();
    straight.step().unwrap();
    let mut resumed = trainer(2, adam(), 1e-2);
    resumed.restore(&saved).unwrap();
    assert_eq!(resumed.steps(), 1);
    resumed.step().unwrap();
    assert_eq!(resumed.state(), straight.state());
    assert!(resumed.restore(&Params::new()).is_err());
}

#[test]
fn the_number_of_threads_does_not_matter() {
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut trainer = trainer(3, Rule::adam(1e-2, 0.5, 0.99), 1e-2);
            let reports = [trainer.step().unwrap(), trainer.step().unwrap()];
            (reports, trainer.state())
        })
    };
    assert_eq!(run(1), run(2));
}

#[test]
fn the_number_of_threads_does_not_matter_where_kernels_split() {
    // Classes are played side by side, each on one thread; what splits within a kernel is the outer step, over the parameters.
    // With 32 channels the largest tensors have 200,000 numbers, 800 KB: an elementwise kernel wants a thread to have 256 KB.
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let game = InnerGame::new(fewshot_gan(64, 32), config(1e-3)).unwrap();
            let largest = game.gan().init(Key::new(0)).tensors().map(Tensor::len).max();
            assert!(largest.unwrap() * 4 > 3 * (256 << 10), "the test is too small: {largest:?}");
            let outer = Rule::adam(1e-2, 0.5, 0.99);
            let mut trainer = playing(game, FewShotConfig { inner_steps: 1, meta_batch: 2, outer, seed: 2 });
            let reports = [trainer.step().unwrap(), trainer.step().unwrap()];
            (reports, trainer.state())
        })
    };
    assert_eq!(run(1), run(2));
}

#[test]
fn an_outer_optimiser_that_overflows_costs_nothing() {
    // One inner step of 1e21 leaves a generator that is finite, as is its distance; the square is not, but the outer step by
    // it would be 0.
    let wild = InnerConfig { generator: Rule::adam(1e21, 0.0, 0.999), ..config(1e-2) };
    let game = InnerGame::new(fewshot_gan(6, 4), wild).unwrap();
    let outer = Rule::adam(1e-2, 0.5, 0.99);
    let mut trainer = playing(game, FewShotConfig { inner_steps: 1, meta_batch: 2, outer, seed: 2 });
    let before = trainer.state();
    let error = trainer.step().unwrap_err();
    assert!(error.to_string().contains("outer optimiser"), "{error}");
    assert_eq!(trainer.state(), before);
}

#[test]
fn a_number_that_is_none_names_the_step_and_costs_nothing() {
    let mut trainer = trainer(2, Rule::adam(1e-2, 0.5, 0.99), 1e30);
    let before = trainer.state();
    let error = trainer.step().unwrap_err();
    assert!(matches!(error, Error::Diverged { step: 1, .. }), "{error}");
    assert_eq!(trainer.state(), before);
}
