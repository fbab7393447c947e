//! Training steps of whole workloads: `cargo xtask bench --filter maml`.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use metaforge_benches::{maml_images, maml_sinusoid, proto_images, seed_gan};
use metaforge_meta::{MetaTrainer, Order};

fn workloads(c: &mut Criterion) {
    let mut meta = |name: &str, make: &dyn Fn() -> MetaTrainer| {
        c.bench_function(name, |b| {
            let mut trainer = make();
            b.iter(|| black_box(trainer.step().expect("finite")));
        });
    };
    meta("maml-sinusoid/1step", &|| maml_sinusoid(1));
    meta("maml-sinusoid/5step", &|| maml_sinusoid(5));
    meta("maml-omniglot-5w1s/T8", &|| maml_images(Order::Second, 8));
    meta("fomaml-omniglot-5w1s/T8", &|| maml_images(Order::First, 8));
    meta("proto/60w5s5q", &|| proto_images(60, 5, 5));
    meta("proto/5w1s15q", &|| proto_images(5, 1, 15));
    c.bench_function("seed-gan/B32", |b| {
        let mut trainer = seed_gan();
        b.iter(|| black_box(trainer.step().expect("finite")));
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(4));
    targets = workloads
}
criterion_main!(benches);
