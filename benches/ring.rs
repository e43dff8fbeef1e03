//! What the ring costs: `cargo bench --bench ring`.
//!
//! A look-up is the md5 of the key and the search for the first point above it; `md5` is the
//! former alone, over the same keys.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use md5::{Digest, Md5};
use thrifty_p2p::ring::{self, Ring};

fn name(number: usize) -> Arc<str> {
    format!("10.0.{}.{}:9900", number / 250, number % 250).into()
}

fn ring_of(nodes: usize) -> Ring {
    let ring = Ring::new((0..nodes).map(name));
    // Points are made at the first look-up.
    ring.owner(0);
    ring
}

/// Keys of 13 bytes, more than the points of a large ring, so that the caches hold no path.
fn keys() -> impl Iterator<Item = Vec<u8>> {
    let keys: Vec<_> = (0..1 << 16)
        .map(|number| format!("key-{number:09}").into_bytes())
        .collect();
    keys.into_iter().cycle()
}

fn look_up(c: &mut Criterion) {
    let mut group = c.benchmark_group("look-up");
    let mut all = keys();
    let mut key = || all.next().expect("an endless supply");
    group.bench_function("md5", |b| {
        b.iter_batched(
            &mut key,
            |key| Md5::digest(black_box(&key))[0],
            BatchSize::SmallInput,
        );
    });
    for nodes in [1, 10, 100, 1000] {
        let ring = ring_of(nodes);
        group.bench_function(format!("owner/{nodes}"), |b| {
            b.iter_batched(
                &mut key,
                |key| ring.owner(ring::hash(black_box(&key))),
                BatchSize::SmallInput,
            );
        });
        group.bench_function(format!("two-holders/{nodes}"), |b| {
            b.iter_batched(
                &mut key,
                |key| {
                    let mut walk = ring.walk(ring::hash(black_box(&key)));
                    (walk.next(), walk.next())
                },
                BatchSize::SmallInput,
            );
        });
    }
    let ring = ring_of(1000);
    group.bench_function("walk-of-all/1000", |b| {
        b.iter(|| ring.walk(black_box(7)).last());
    });
    group.finish();
}

fn change(c: &mut Criterion) {
    let mut group = c.benchmark_group("change");
    let newcomer = name(500);
    let with = ring_of(1000);
    let without = {
        let mut ring = with.clone();
        ring.remove(&newcomer);
        ring
    };
    group.bench_function("insert/1000", |b| {
        b.iter_batched_ref(
            || without.clone(),
            |ring| ring.insert(&newcomer),
            BatchSize::LargeInput,
        );
    });
    group.bench_function("remove/1000", |b| {
        b.iter_batched_ref(
            || with.clone(),
            |ring| ring.remove(&newcomer),
            BatchSize::LargeInput,
        );
    });
    // While a reader holds a snapshot, a change is one to a copy.
    group.bench_function("clone-and-insert/1000", |b| {
        b.iter_with_large_drop(|| {
            let mut ring = without.clone();
            ring.insert(&newcomer).map(|_| ring)
        });
    });
    group.bench_function("clone-and-remove/1000", |b| {
        b.iter_with_large_drop(|| {
            let mut ring = with.clone();
            ring.remove(&newcomer).map(|_| ring)
        });
    });
    group.bench_function("new/1000", |b| {
        let names: Vec<_> = (0..1000).map(name).collect();
        b.iter_with_large_drop(|| {
            let ring = Ring::new(names.iter().cloned());
            ring.owner(0);
            ring
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default();
    targets = look_up, change
}
criterion_main!(benches);
