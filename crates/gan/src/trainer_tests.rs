//! The two moves of a step: what each changes and leaves alone, resuming, threads.

use super::*;
use crate::{Loss, Penalty, seed};
use metaforge_autodiff::{Tape, Var, grad};
use metaforge_data::{Mixture, Range};
use metaforge_nn::zoo::mlp;
use metaforge_nn::{Model, Relu, Schedule};

fn plane(loss: Loss, penalty: Penalty) -> Gan {
    Gan {
        generator: Model::new(mlp(&[16], 2, Relu), [1, 4]),
        discriminator: Model::new(mlp(&[16], 1, Relu), [1, 2]),
        loss,
        penalty,
        best: None,
        range: Range::Unit,
    }
}

fn config(rate: f64) -> TrainerConfig {
    TrainerConfig {
        batch: 16,
        discriminator_steps: 1,
        penalty_every: 1,
        penalty_scale: Schedule::Constant(1.0),
        generator: Rule::adam(rate, 0.5, 0.999),
        discriminator: Rule::adam(rate, 0.5, 0.999),
        average: Some(0.99),
        seed: 5,
    }
}

fn on_ring(gan: Gan, config: TrainerConfig) -> GanTrainer {
    let ring = Mixture::ring_unrolled();
    let batch = config.batch;
    GanTrainer::with_source(gan, config, move |i| ring.sample(Key::new(3).fold(i), batch)).unwrap()
}

fn digits(batch: usize) -> GanTrainer {
    let images = Arc::new(metaforge_data::Digits::new(0, metaforge_data::Split::Train).set(0..200));
    GanTrainer::new(seed::seed_gan(), TrainerConfig { batch, ..seed::seed_config(1) }, images).unwrap()
}

#[test]
fn a_step_moves_each_player_by_its_own_loss_only() {
    for gan in [
        plane(Loss::NonSaturating, Penalty::Gradient { weight: 10.0 }),
        plane(Loss::Relativistic, Penalty::R1R2 { weight: 0.5 }),
    ] {
        moves_by_hand(gan);
    }
}

fn moves_by_hand(gan: Gan) {
    // The moves done by hand on an eager tape: the discriminator's first, the generator's against the moved discriminator.
    let mut trainer = on_ring(gan.clone(), TrainerConfig { average: None, ..config(1e-2) });
    let (g, d) = (trainer.generator.params.clone(), trainer.discriminator.params.clone());
    let key = trainer.key.fold(0);
    let report = trainer.step().unwrap();

    let tape = Tape::eager();
    let (gv, dv) = (g.bind(&tape), d.bind(&tape));
    let normal = |k: Key| tape.constant(&k.normal([16, 4], 0.0, 1.0));
    let real = tape.constant(&Mixture::ring_unrolled().sample(Key::new(3).fold(0), 16));
    let mix = tape.constant(&key.fold(0).fold(1).uniform([16], 0.0, 1.0));
    let verdict = gan.discriminator_loss(&gv, &dv, real, normal(key.fold(0).fold(0)), mix);
    // The generated images are detached.
    assert!(grad(verdict.total(), &gv).iter().all(|g| g.value().f32s().iter().all(|&x| x == 0.0)));
    assert_eq!(report.d_loss, verdict.total().value().item());

    let bind = |p: &Params| -> Vec<Var<'_>> { p.tensors().iter().map(|t| tape.var(t)).collect() };
    let moved = bind(&trainer.discriminator.params);
    let loss = gan.generator_loss(&gv, &moved, real, normal(key.fold(1)));
    assert_eq!(report.g_loss, loss.value().item());
    let rule = &trainer.config.generator;
    let state = bind(&rule.start(&g.avals()));
    let (want, _) = rule.descend(loss, &gv, &state, tape.constant(&Tensor::scalar(1e-2)));
    for (want, got) in want.iter().zip(trainer.generator.params.tensors()) {
        assert_eq!(&want.value(), got);
    }
}

#[test]
fn the_generators_move_computes_no_gradient_of_the_discriminators_weights() {
    let trainer = digits(4);
    let text = trainer.generator_move.program.to_string();
    assert!(!text.contains("ConvWeightGrad"), "{text}");
    assert!(trainer.discriminator_move.program.to_string().contains("ConvWeightGrad"));
}

#[test]
fn a_lazy_penalty_is_taken_in_one_move_of_so_many_with_so_many_times_its_weight() {
    // The players as they are before each step, judged on an eager tape by the loss that its last move should have had.
    let gan = plane(Loss::NonSaturating, Penalty::R1 { weight: 2.0 });
    let falling = Schedule::Step { rate: 1.0, every: 2, factor: 0.5 };
    let mut trainer = on_ring(gan.clone(), TrainerConfig { penalty_every: 3, penalty_scale: falling, ..config(1e-2) });
    for step in 0..7 {
        // 3 times 2, halved once by step 3 and three times by step 6.
        let penalty = match step {
            0 => Penalty::R1 { weight: 6.0 },
            3 => Penalty::R1 { weight: 3.0 },
            6 => Penalty::R1 { weight: 0.75 },
            _ => Penalty::None,
        };
        let (g, d) = (trainer.generator.params.clone(), trainer.discriminator.params.clone());
        let key = trainer.key.fold(step);
        let tape = Tape::eager();
        let real = tape.constant(&Mixture::ring_unrolled().sample(Key::new(3).fold(step), 16));
        let noise = tape.constant(&key.fold(0).fold(0).normal([16, 4], 0.0, 1.0));
        let mix = tape.constant(&key.fold(0).fold(1).uniform([16], 0.0, 1.0));
        let gan = Gan { penalty, ..gan.clone() };
        let want = gan.discriminator_loss(&g.bind(&tape), &d.bind(&tape), real, noise, mix).total().value().item();
        assert_eq!(trainer.step().unwrap().d_loss, want, "step {step}");
    }
}

#[test]
fn a_penalty_that_is_none_or_always_there_needs_one_program() {
    let lazy = |penalty, penalty_every| {
        let config = TrainerConfig { penalty_every, ..config(1e-2) };
        on_ring(plane(Loss::NonSaturating, penalty), config).plain_move.is_some()
    };
    assert!(lazy(Penalty::R1 { weight: 1.0 }, 16));
    assert!(!lazy(Penalty::R1 { weight: 1.0 }, 1) && !lazy(Penalty::None, 16));
}

#[test]
fn training_goes_on_to_the_same_bits_from_a_saved_state() {
    // Stopped in the middle of a round of the lazy penalty.
    let gan = || plane(Loss::Wasserstein, Penalty::Gradient { weight: 1.0 });
    let settings = || TrainerConfig { discriminator_steps: 2, penalty_every: 4, ..config(1e-3) };
    let mut straight = on_ring(gan(), settings());
    let mut saved = Params::new();
    for step in 0..6 {
        if step == 3 {
            saved = straight.state();
        }
        straight.step().unwrap();
    }
    let mut resumed = on_ring(gan(), TrainerConfig { seed: 5, ..settings() });
    resumed.restore(&saved).unwrap();
    assert_eq!(resumed.steps(), 3);
    for _ in 0..3 {
        resumed.step().unwrap();
    }
    assert_eq!(resumed.state(), straight.state());
    assert_eq!(resumed.sample(5, Key::new(1)), straight.sample(5, Key::new(1)));
    let other = GanTrainer::restore(&mut digits(4), &saved).unwrap_err().to_string();
    assert!(other.contains("generator."), "{other}");
}

#[test]
fn the_number_of_threads_does_not_matter() {
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut trainer = digits(6);
            let reports: Vec<Report> = (0..3).map(|_| trainer.step().unwrap()).collect();
            (reports, trainer.state(), trainer.sample(130, Key::new(9)))
        })
    };
    assert_eq!(run(1), run(2));
}

#[test]
fn a_number_that_is_none_is_an_error_and_costs_nothing() {
    let wild = TrainerConfig { generator: Rule::new(metaforge_nn::Sgd::new(), 1e30), ..config(1e-3) };
    let mut trainer = on_ring(plane(Loss::Wasserstein, Penalty::None), wild);
    let mut fate = None;
    for _ in 0..100 {
        let before = trainer.state();
        if let Err(error) = trainer.step() {
            fate = Some((error, before));
            break;
        }
    }
    let (error, before) = fate.expect("no training survives such a rate");
    assert!(matches!(error, Error::Diverged { step, .. } if step == trainer.steps() + 1), "{error}");
    assert_eq!(trainer.state(), before);
}

/// Moves nothing, and has a number that overflows at once.
struct Hoarder;

impl metaforge_nn::Optimizer for Hoarder {
    fn init(&self, _: &[Aval]) -> Params {
        [("hoard".to_owned(), Tensor::scalar(f32::MAX))].into_iter().collect()
    }

    fn update<'t>(
        &self,
        params: &[Var<'t>],
        _: &[Var<'t>],
        state: &[Var<'t>],
        _: Var<'t>,
    ) -> (Vec<Var<'t>>, Vec<Var<'t>>) {
        (params.to_vec(), vec![state[0] * 2.0])
    }
}

#[test]
fn a_spoilt_state_of_either_player_is_found() {
    for (whose, moves) in [("a parameter of the discriminator", 2), ("a parameter of the generator", 1)] {
        let mut config = TrainerConfig { discriminator_steps: moves, ..config(1e-3) };
        let rule = if moves == 2 { &mut config.discriminator } else { &mut config.generator };
        *rule = Rule::new(Hoarder, 1e-3);
        let mut trainer = on_ring(plane(Loss::NonSaturating, Penalty::None), config);
        let before = trainer.state();
        let error = trainer.step().unwrap_err();
        assert!(error.to_string().contains(whose), "{error}");
        assert_eq!(trainer.state(), before);
    }
}

#[test]
fn the_average_follows_and_draws_the_samples() {
    let mut trainer = on_ring(plane(Loss::NonSaturating, Penalty::None), config(1e-2));
    let start = trainer.generator.params.clone();
    trainer.step().unwrap();
    // At the first step the decay is 1 / 10.
    let average = trainer.sampling_params();
    for ((a, s), p) in average.tensors().iter().zip(start.tensors()).zip(trainer.generator.params.tensors()) {
        for ((&a, &s), &p) in a.f32s().iter().zip(s.f32s()).zip(p.f32s()) {
            assert!((a - (0.1 * s + 0.9 * p)).abs() < 1e-6);
        }
    }
}

#[test]
fn images_of_another_shape_are_refused() {
    let images = Arc::new(ImageSet::new([2, 2, 1], vec![0; 400], vec![0; 100], vec!["a".into()]));
    let error = GanTrainer::new(seed::seed_gan(), seed::seed_config(0), images).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("28, 28, 1"), "{error}");
}

#[test]
fn a_ring_is_learned() {
    let gan = Gan {
        generator: Model::new(mlp(&[64, 64], 2, Relu), [1, 8]),
        discriminator: Model::new(mlp(&[64, 64], 1, Relu), [1, 2]),
        ..plane(Loss::NonSaturating, Penalty::R1 { weight: 0.1 })
    };
    let rule = || Rule { rate: Schedule::Constant(1e-3), ..Rule::adam(1e-3, 0.5, 0.99) };
    let settings = TrainerConfig { batch: 128, generator: rule(), discriminator: rule(), ..config(1e-3) };
    let ring = Mixture::ring(4, 2.0, 0.2);
    let source = ring.clone();
    let mut trainer = GanTrainer::with_source(gan, settings, move |i| source.sample(Key::new(3).fold(i), 128)).unwrap();
    for _ in 0..1500 {
        trainer.step().unwrap();
    }
    let modes = crate::metrics::mode_coverage(&trainer.sample(1000, Key::new(1)), &ring);
    assert!(modes.covered == 4 && modes.high_quality > 0.6, "{modes:?}");
}

#[test]
fn calm_images_are_the_calmest_of_those_drawn() {
    let trainer = digits(8);
    let key = Key::new(4);
    let (all, calm) = (trainer.sample(200, key), trainer.sample_calm(150, 0.75, key));
    assert_eq!(calm.shape(), [150, 28, 28, 1]);
    // Which they are, by the measure itself.
    let tape = Tape::eager();
    let g = trainer.sampling_params().bind(&tape);
    let mut measured = Vec::new();
    for chunk in 0..2 {
        let noise = tape.constant(&key.fold(chunk).normal([CHUNK, trainer.gan().noise()], 0.0, 1.0));
        measured.extend_from_slice(unrest(trainer.gan().unit_images(&g, noise), noise).value().f32s());
    }
    let kept = calmest(&measured[..200], 150);
    let image = |x: &Tensor, i: usize| x.f32s()[i * 784..][..784].to_vec();
    assert!(kept.iter().enumerate().all(|(to, &from)| image(&calm, to) == image(&all, from)));
    assert_ne!(kept, (0..150).collect::<Vec<_>>());
    assert_eq!(trainer.sample_calm(5, 1.0, key), trainer.sample(5, key));
    assert_eq!(trainer.sample_calm(0, 0.5, key).shape(), [0, 28, 28, 1]);
}

#[test]
fn the_generator_learns_from_its_best_images() {
    let with = |best: Option<usize>| {
        let mut trainer = on_ring(Gan { best, ..plane(Loss::NonSaturating, Penalty::None) }, config(1e-2));
        trainer.step().unwrap();
        trainer.generator.params.tensors().iter().flat_map(|t| t.f32s().to_vec()).collect::<Vec<f32>>()
    };
    let (all, best) = (with(None), with(Some(4)));
    assert_ne!(all, best);
    let refused = |best| {
        GanTrainer::with_source(
            Gan { best: Some(best), ..plane(Loss::NonSaturating, Penalty::None) },
            config(1e-2),
            |i| Mixture::ring_unrolled().sample(Key::new(3).fold(i), 16),
        )
    };
    for best in [0, 17] {
        assert!(refused(best).map(|_| ()).unwrap_err().to_string().contains("at most 16 of its images"));
    }
}

#[test]
fn a_profile_tells_every_instruction_and_changes_nothing() {
    let mut trainer = on_ring(plane(Loss::NonSaturating, Penalty::None), config(1e-2));
    trainer.step().unwrap();
    let before = trainer.state();
    let told = trainer.profile();
    assert_eq!(told.len(), trainer.programs().iter().map(|p| p.len()).sum::<usize>());
    assert!(before.tensors().iter().zip(trainer.state().tensors()).all(|(a, b)| a.bytes() == b.bytes()));
    // Both players are perceptrons of one hidden layer of 16, on 16 points of the plane, from 4 numbers of noise. The discriminator's move:
    // the generator forwards; two batches forwards, and back to the weights of both layers and to the hidden layer.
    let (generator, discriminator) = (16 * (4 * 16 + 16 * 2), [16 * 2 * 16, 16 * 16]);
    let move_of_d = generator + 2 * (2 * discriminator[0] + 3 * discriminator[1]);
    assert_eq!(trainer.programs()[0].flops(), 2 * move_of_d as u64);
}
