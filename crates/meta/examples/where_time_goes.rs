//! Where the time of a task goes, by primitive: MAML and a prototypical network with Conv4-64 on 28x28 glyphs, MAML on sine waves.
//!
//! `cargo run --release -p metaforge-meta --example where_time_goes [runs]`

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use metaforge_data::{EpisodeConfig, EpisodeSampler, Glyphs, Rotations, Sinusoids, Split};
use metaforge_meta::{EpisodeLearner, Maml, MetaTrainer, Objective, Order, ProtoNet, Tasks, TrainConfig};
use metaforge_nn::{Adam, Model, Relu, zoo};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runs = std::env::args().nth(1).map_or(Ok(10), |n| n.parse())?;
    let glyphs = |ways, shots, queries| -> Result<Arc<dyn Tasks>, metaforge_data::Error> {
        let config = EpisodeConfig { ways, shots, queries, rotations: Rotations::None };
        Ok(Arc::new(EpisodeSampler::new(Arc::new(Glyphs::new(1, Split::Train)), config, 0)?))
    };
    let maml = |order| {
        let model = Model::new(zoo::conv4(64, Some(5)), [5, 28, 28, 1]);
        Maml { order, ..Maml::new(model, Objective::CrossEntropy) }
    };
    let proto = ProtoNet::new(Model::new(zoo::conv4(64, None), [600, 28, 28, 1]));
    let waves =
        Maml { lr: 0.01, ..Maml::new(Model::new(zoo::mlp(&[40, 40], 1, Relu), [10, 1]), Objective::MeanSquare) };
    show("MAML, 5-way 1-shot, 15 queries", Arc::new(maml(Order::Second)), glyphs(5, 1, 15)?, 32, runs)?;
    show("first-order MAML, 5-way 1-shot, 15 queries", Arc::new(maml(Order::First)), glyphs(5, 1, 15)?, 32, runs)?;
    show("prototypical network, 60-way 5-shot, 5 queries", Arc::new(proto), glyphs(60, 5, 5)?, 1, runs)?;
    show(
        "MAML on sine waves, 10 shots",
        Arc::new(waves),
        Arc::new(Sinusoids::new(10, 10, 0, Split::Train)),
        25,
        20 * runs,
    )?;
    Ok(())
}

fn show(
    name: &str,
    learner: Arc<dyn EpisodeLearner>,
    tasks: Arc<dyn Tasks>,
    meta_batch: usize,
    runs: usize,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut trainer = MetaTrainer::new(learner, tasks, Box::new(Adam::default()), TrainConfig::new(meta_batch, 1e-3))?;
    // The smallest of many runs: what the machine does beside it counts least.
    let mut steps: Vec<Duration> = Vec::new();
    for _ in 0..runs.div_ceil(meta_batch) + 2 {
        let start = Instant::now();
        trainer.step()?;
        steps.push(start.elapsed());
    }
    let mut least: Vec<(String, Duration)> = trainer.profile(0);
    for run in 1..runs as u64 {
        for (least, new) in least.iter_mut().zip(trainer.profile(run)) {
            least.1 = least.1.min(new.1);
        }
    }
    let total: Duration = least.iter().map(|(_, d)| *d).sum();
    let best = steps.iter().min().copied().unwrap_or_default();
    let program = trainer.program();
    println!("\n{name}: {:.3} ms a task on one thread; {:.3} ms a step of {meta_batch}", ms(total), ms(best));
    println!("  {} instructions, {:.1} MB of workspace", program.len(), program.workspace_bytes() as f64 / 1e6);
    let mut by_primitive: BTreeMap<&str, (Duration, usize)> = BTreeMap::new();
    for (instruction, time) in &least {
        let primitive = instruction.split([' ', '(', '{']).next().unwrap_or_default();
        let entry = by_primitive.entry(primitive).or_default();
        *entry = (entry.0 + *time, entry.1 + 1);
    }
    let mut rows: Vec<_> = by_primitive.into_iter().collect();
    rows.sort_by_key(|(_, (time, _))| std::cmp::Reverse(*time));
    for (primitive, (time, count)) in rows {
        println!("  {primitive:<16} {:>9.3} ms  {:>5.1} %  in {count}", ms(time), 100.0 * ms(time) / ms(total));
    }
    least.sort_by_key(|(_, time)| std::cmp::Reverse(*time));
    for (instruction, time) in least.iter().take(12) {
        println!("    {:>9.3} ms  {instruction}", ms(*time));
    }
    Ok(())
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
