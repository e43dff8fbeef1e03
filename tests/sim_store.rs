//! The store in the simulated world: no acknowledged put is lost or overtaken by an older one.
//!
//! The ordinary run has 2,700 schedules, some hundred of each class in a worse world, and a few of large networks.
//! 100,000 of a class: `SIM_SCHEDULES=100000 cargo test --release --test sim_store class_1 -- --nocapture`; see
//! `sim/mod.rs` for replay. What chance brings about too seldom is in `sim_directed.rs`.

mod sim;

use std::sync::Arc;

use sim::plan::{Class, Plan, Worse};
use sim::runner::{Verdict, run_many, run_world};
use sim::schedule::play;
use sim::store::StoreRing;
use sim::world::Subject;
use thrifty_p2p::net::Random;

/// One schedule of that class: the seed chooses the number of copies and nodes too.
fn schedule(class: Class, replicas: &[usize], seed: u64) -> Verdict {
    worse_schedule(class, Worse::NONE, replicas, seed)
}

fn worse_schedule(class: Class, worse: Worse, replicas: &[usize], seed: u64) -> Verdict {
    let dice = Random::new(seed);
    let replicas = replicas[dice.below(replicas.len())];
    let mut plan = Plan::drawn(class, replicas, &dice);
    plan.worse = worse;
    run_plan(seed, plan)
}

fn run_plan(seed: u64, plan: Plan) -> Verdict {
    let subject: Arc<dyn Subject> = Arc::new(StoreRing {
        replicas: plan.replicas,
    });
    run_world(seed, &subject, plan.options(), move |world| {
        play(world, &plan)
    })
}

#[test]
fn orderly_must_keep_everything() {
    run_many("sim_store orderly_must_keep_everything", 1000, |seed| {
        schedule(Class::Orderly, &[1], seed)
    });
}

#[test]
fn copies_must_be_kept_in_order() {
    run_many("sim_store copies", 700, |seed| {
        schedule(Class::Orderly, &[2, 3], seed)
    });
}

#[test]
fn class_1_must_keep_everything() {
    run_many("sim_store class_1_must_keep_everything", 700, |seed| {
        schedule(Class::Crashes, &[2, 2, 3], seed)
    });
}

#[test]
fn class_2_must_keep_what_is_stable() {
    run_many("sim_store class_2_must_keep_what_is_stable", 300, |seed| {
        schedule(Class::Everything, &[2, 2, 3], seed)
    });
}

/// Some schedules of a class in a world that is worse.
fn run_worse(test: &str, class: Class, worse: Worse, replicas: &[usize]) {
    run_many(&format!("sim_store {test}"), 200, |seed| {
        worse_schedule(class, worse, replicas, seed)
    });
}

const COPIES: &[usize] = &[2, 2, 3];

/// Whenever the nodes say that all is safe, it is; and as many are killed as people may kill then.
const JUDGED: Worse = Worse {
    nodes_judge: true,
    ..Worse::NONE
};

#[test]
fn orderly_must_be_safe_when_it_says_so() {
    run_worse("orderly_must_be_safe", Class::Orderly, JUDGED, &[1]);
}

#[test]
fn class_1_must_be_safe_when_it_says_so() {
    run_worse("class_1_must_be_safe", Class::Crashes, JUDGED, COPIES);
}

#[test]
fn class_2_must_be_safe_when_it_says_so() {
    run_worse("class_2_must_be_safe", Class::Everything, JUDGED, COPIES);
}

#[test]
fn class_1_must_not_take_back_what_was_read() {
    let worse = Worse {
        shown_counts: true,
        ..Worse::NONE
    };
    run_worse("class_1_must_not_take_back", Class::Crashes, worse, COPIES);
}

/// With so many nodes most share no keys with a given one, and are seldom asked by it.
fn run_large(test: &str, class: Class, replicas: &[usize]) {
    run_many(&format!("sim_store {test}"), 6, |seed| {
        let dice = Random::new(seed);
        let replicas = replicas[dice.below(replicas.len())];
        let nodes = 25 + dice.below(20);
        let plan = Plan {
            nodes,
            nodes_max: nodes + 5,
            ..Plan::drawn(class, replicas, &dice)
        };
        run_plan(seed, plan)
    });
}

#[test]
fn orderly_must_keep_everything_in_a_large_network() {
    let name = "orderly_must_keep_everything_in_a_large_network";
    run_large(name, Class::Orderly, &[1]);
}

#[test]
fn class_1_must_keep_everything_in_a_large_network() {
    let name = "class_1_must_keep_everything_in_a_large_network";
    run_large(name, Class::Crashes, COPIES);
}

#[test]
fn class_2_must_keep_what_is_stable_in_a_large_network() {
    let name = "class_2_must_keep_what_is_stable_in_a_large_network";
    run_large(name, Class::Everything, COPIES);
}

const CLOCKS: Worse = Worse {
    clocks: true,
    ..Worse::NONE
};

#[test]
fn orderly_must_keep_everything_whatever_clocks_say() {
    run_worse(
        "orderly_must_keep_everything_whatever_clocks_say",
        Class::Orderly,
        CLOCKS,
        &[1],
    );
}

#[test]
fn class_1_must_keep_everything_whatever_clocks_say() {
    run_worse(
        "class_1_must_keep_everything_whatever_clocks_say",
        Class::Crashes,
        CLOCKS,
        COPIES,
    );
}

#[test]
fn class_2_must_keep_what_is_stable_whatever_clocks_say() {
    run_worse(
        "class_2_must_keep_what_is_stable_whatever_clocks_say",
        Class::Everything,
        CLOCKS,
        COPIES,
    );
}

#[test]
fn class_1_must_keep_everything_of_any_size_on_narrow_links() {
    let worse = Worse {
        links: true,
        sizes: true,
        ..Worse::NONE
    };
    run_worse(
        "class_1_must_keep_everything_of_any_size_on_narrow_links",
        Class::Crashes,
        worse,
        COPIES,
    );
}

#[test]
fn class_2_must_keep_what_is_stable_when_single_links_are_cut() {
    let worse = Worse {
        links: true,
        ..Worse::NONE
    };
    run_worse(
        "class_2_must_keep_what_is_stable_when_single_links_are_cut",
        Class::Everything,
        worse,
        COPIES,
    );
}

#[test]
fn orderly_must_keep_everything_in_the_worst_world() {
    run_worse(
        "orderly_must_keep_everything_in_the_worst_world",
        Class::Orderly,
        Worse::ALL,
        &[1],
    );
}

#[test]
fn class_1_must_keep_everything_in_the_worst_world() {
    run_worse(
        "class_1_must_keep_everything_in_the_worst_world",
        Class::Crashes,
        Worse::ALL,
        COPIES,
    );
}

#[test]
fn class_2_must_keep_what_is_stable_in_the_worst_world() {
    run_worse(
        "class_2_must_keep_what_is_stable_in_the_worst_world",
        Class::Everything,
        Worse::ALL,
        COPIES,
    );
}

#[test]
fn must_replay_from_the_seed() {
    for seed in 1..=20 {
        let play = || schedule(Class::Everything, &[2], seed).trace_hash;
        assert_eq!(play(), play(), "seed {seed}");
    }
    for seed in 1..=4 {
        let worst = || worse_schedule(Class::Everything, Worse::ALL, COPIES, seed).trace_hash;
        assert_eq!(worst(), worst(), "seed {seed} in the worst world");
    }
}
