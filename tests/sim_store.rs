//! The store in the simulated world: no acknowledged put is lost or overtaken by an older one.
//!
//! The ordinary run has 2,700 schedules. 100,000 of a class: `SIM_SCHEDULES=100000 cargo test --release
//! --test sim_store class_1 -- --nocapture`; see `sim/mod.rs` for replay. What chance brings about too
//! seldom is in `sim_directed.rs`.

mod sim;

use std::sync::Arc;

use sim::plan::{Class, Plan};
use sim::pool::Pool;
use sim::runner::{Verdict, run_many, run_world};
use sim::schedule::play;
use sim::store::StoreRing;
use sim::world::Subject;
use thrifty_p2p::net::Random;

/// One schedule of that class: the seed chooses the number of copies and nodes too.
fn schedule(class: Class, replicas: &[usize], pool: &Pool, seed: u64) -> Verdict {
    let dice = Random::new(seed);
    let replicas = replicas[dice.below(replicas.len())];
    let plan = Plan::drawn(class, replicas, &dice);
    let subject: Arc<dyn Subject> = Arc::new(StoreRing { replicas });
    run_world(pool, seed, &subject, plan.options(), move |world| {
        play(world, &plan)
    })
}

#[test]
fn orderly_must_keep_everything() {
    run_many("sim_store orderly", 1000, |pool, seed| {
        schedule(Class::Orderly, &[1], pool, seed)
    });
}

#[test]
fn copies_must_be_kept_in_order() {
    run_many("sim_store copies", 700, |pool, seed| {
        schedule(Class::Orderly, &[2, 3], pool, seed)
    });
}

#[test]
fn class_1_must_keep_everything() {
    run_many("sim_store class_1", 700, |pool, seed| {
        schedule(Class::Crashes, &[2, 2, 3], pool, seed)
    });
}

#[test]
fn class_2_must_keep_what_is_stable() {
    run_many("sim_store class_2", 300, |pool, seed| {
        schedule(Class::Everything, &[2, 2, 3], pool, seed)
    });
}

#[test]
fn must_replay_from_the_seed() {
    for seed in 1..=20 {
        let play = || schedule(Class::Everything, &[2], &Pool::default(), seed).trace_hash;
        assert_eq!(play(), play(), "seed {seed}");
    }
}
