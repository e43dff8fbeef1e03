//! The rules of the core, by themselves: the real membership and one key, in random schedules.
//!
//! It knows neither bytes nor threads, so it tries tens of thousands of schedules where the simulation of
//! whole nodes tries a thousand, and finds what is wrong with a rule. `MODEL_SEED=17 cargo test --release
//! --test model` replays one and prints all that happened; `MODEL_SECONDS=60
//! MODEL_FIRST=5000` has each test look for so long, from that seed on.

#[path = "model/node.rs"]
mod node;
#[path = "model/schedule.rs"]
mod schedule;
#[path = "model/world.rs"]
mod world;

use schedule::{Cuts, Kind, explore};

#[test]
fn must_keep_what_was_acknowledged_with_one_copy() {
    explore(Kind {
        copies: 1,
        cuts: Cuts::None,
    });
}

#[test]
fn must_keep_what_was_acknowledged_with_two_copies() {
    explore(Kind {
        copies: 2,
        cuts: Cuts::None,
    });
}

#[test]
fn must_keep_what_was_acknowledged_with_three_copies() {
    explore(Kind {
        copies: 3,
        cuts: Cuts::None,
    });
}

#[test]
fn must_keep_what_was_acknowledged_through_short_cuts() {
    explore(Kind {
        copies: 2,
        cuts: Cuts::Short,
    });
}

#[test]
fn must_grow_together_after_long_cuts() {
    explore(Kind {
        copies: 2,
        cuts: Cuts::Long,
    });
}

#[test]
fn must_grow_together_after_long_cuts_with_one_copy() {
    explore(Kind {
        copies: 1,
        cuts: Cuts::Long,
    });
}
