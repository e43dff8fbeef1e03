//! A simulated world to test node logic in: one process, virtual time, everything from a seed.
//!
//! From the ground up:
//!
//! * `fiber`: code with its own stack; `scheduler`: activities, virtual time, whose turn it is;
//! * `clock`: a machine's clocks; `wires`: the state of the links;
//! * `network`: calls between nodes, and all that can happen to them;
//! * `subject`: what a node and a client are to the world; `world`: processes, clocks, crashes;
//! * `store`: what is tested, as such a node; `original`: a node of 2009;
//! * `truth`: what is so, seen from outside; `history`: what clients saw, and whether they may;
//! * `plan`: what a schedule is like; `schedule`: random schedules of everything, in which
//!   `chaos` makes things go wrong; `runner`: many of them, and replay; `direct`: worlds told step by step; `plain`: nodes that keep nothing.
//!
//! To replay a failure, say what it prints: `SIM_SEED=17 cargo test --release --test sim_store class_1`;
//! with `SIM_TRACE=1` the whole trace is printed. `SIM_SCHEDULES=100000` runs that many,
//! and `SIM_KEEP_GOING=1` lists all that fail.

// Each test file uses a part.
#![allow(dead_code)]

pub mod chaos;
pub mod clock;
pub mod direct;
pub mod fiber;
pub mod history;
pub mod network;
pub mod original;
pub mod plain;
pub mod plan;
pub mod runner;
pub mod schedule;
pub mod scheduler;
pub mod store;
pub mod subject;
pub mod truth;
pub mod wires;
pub mod world;
