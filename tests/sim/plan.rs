//! What one schedule is like.
//!
//! No two are alike: in some all clients put one key, in some there is nothing but joins, in some a
//! crash follows each put. So each kind of trouble has its turn to come often and close together,
//! where an even mix would hardly ever have it so.

use std::time::Duration;

use thrifty_p2p::net::Random;

use super::history::Promise;
use super::runner::print_trace;
use super::wires::Weather;
use super::world::Options;

/// What may go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Nothing but late messages.
    Late,
    /// And joins, and leaves.
    Orderly,
    /// And crashes and restarts: class 1.
    Crashes,
    /// And stops, partitions, lost messages, broken connections: class 2.
    Everything,
}

/// What makes a world worse than its class says.
#[derive(Debug, Clone, Copy)]
pub struct Worse {
    /// The nodes say when the world is safe, and must be right.
    pub nodes_judge: bool,
    /// What was read must not be taken back.
    pub shown_counts: bool,
    /// Wall clocks are years apart, jump and stand still; machines are suspended.
    pub clocks: bool,
    /// Single links are cut, both ways, one way and for questions only; links are narrow.
    pub links: bool,
    /// From nothing to half a megabyte, and long keys.
    pub sizes: bool,
}

impl Worse {
    pub const NONE: Worse = Worse {
        nodes_judge: false,
        shown_counts: false,
        clocks: false,
        links: false,
        sizes: false,
    };

    pub const ALL: Worse = Worse {
        nodes_judge: true,
        shown_counts: true,
        clocks: true,
        links: true,
        sizes: true,
    };
}

#[derive(Debug, Clone)]
pub struct Plan {
    pub class: Class,
    pub worse: Worse,
    /// R.
    pub replicas: usize,
    /// At the beginning.
    pub nodes: usize,
    pub nodes_max: usize,
    pub clients: usize,
    /// Of each client.
    pub operations: usize,
    pub keys: usize,
    /// Of the operations, per mille.
    pub puts: usize,
    /// Of the puts, per mille.
    pub deletes: usize,
    /// Acknowledged puts that are read at once, at another node, per mille.
    pub echoes: usize,
    /// The longest pause of a client, in microseconds: one of these.
    pub pauses: [usize; 2],
    /// The same of the chaos.
    pub chaos_pauses: [usize; 2],
    /// Puts at whose beginning, or acknowledgement, something goes wrong at once, per mille.
    pub provocations: usize,
    /// How often what goes wrong.
    pub joins: usize,
    pub leaves: usize,
    pub crashes: usize,
    pub stops: usize,
    pub partitions: usize,
    pub slow_spells: usize,
    pub clocks_apart: Duration,
    pub mover_rests: (usize, usize),
    /// After so many quiet ticks everything happens once more.
    pub quiet: Option<u32>,
    /// Messages of these methods that are late, per mille.
    pub late: usize,
    pub late_methods: Vec<&'static str>,
}

/// What our own nodes call at each other: all of idl/peer.thrift but what people ask for.
pub const PEER_METHODS: [&str; 8] = [
    "ask", "enter", "reach", "compare", "exchange", "store", "fetch", "forward",
];

impl Plan {
    pub fn new(class: Class, replicas: usize) -> Self {
        Plan {
            class,
            worse: Worse::NONE,
            replicas,
            nodes: 4,
            nodes_max: 7,
            clients: 3,
            operations: 35,
            keys: 8,
            puts: 500,
            deletes: 100,
            echoes: 0,
            pauses: [20_000, 800_000],
            chaos_pauses: [20_000, 1_500_000],
            provocations: 0,
            joins: 20,
            leaves: 18,
            crashes: 22,
            stops: 15,
            partitions: 13,
            slow_spells: 12,
            clocks_apart: Duration::from_secs(300),
            mover_rests: (50_000, 500_000),
            quiet: None,
            late: 0,
            late_methods: Vec::new(),
        }
    }

    /// Everything that a plan may differ in, but for the class and R.
    pub fn drawn(class: Class, replicas: usize, dice: &Random) -> Self {
        let pick = |from: &[usize]| from[dice.below(from.len())];
        let seldom = |most| pick(&[0, 0, 0, most]);
        let nodes_max = pick(&[3, 4, 5, 7, 7]);
        let pauses = [[500, 5_000], [500, 100_000], [20_000, 800_000]];
        let chaos_pauses = [[1_000, 20_000], [20_000, 300_000], [20_000, 1_500_000]];
        let rests = [(20_000, 100_000), (50_000, 500_000), (500_000, 500_001)];
        let usual = Plan::new(class, replicas);
        // All at once, and all about one key or two.
        let storm = dice.below(2) == 0;
        let pace = || if storm { 0 } else { dice.below(3) };
        let everything = class == Class::Everything;
        let often = |usual: usize| usual * pick(&[0, 1, 1, 5]);
        Plan {
            nodes: 1 + dice.below(nodes_max - 1),
            nodes_max,
            clients: pick(&[2, 3, 5]),
            operations: pick(&[20, 35, 60]),
            keys: if storm {
                pick(&[1, 2])
            } else {
                pick(&[1, 2, 8])
            },
            puts: pick(&[200, 500, 500, 900]),
            deletes: pick(&[0, 100, 100, 300]),
            echoes: pick(&[0, 300, 1000]),
            pauses: pauses[pace()],
            // Silence takes its time: what goes wrong faster than nodes can notice only piles up.
            chaos_pauses: chaos_pauses[pace().max(2 * usize::from(everything))],
            provocations: pick(&[0, 50, 300, 300]) / if everything { 10 } else { 1 },
            joins: often(usual.joins),
            leaves: often(usual.leaves),
            crashes: often(usual.crashes),
            stops: often(usual.stops),
            partitions: often(usual.partitions),
            slow_spells: often(usual.slow_spells),
            clocks_apart: Duration::from_millis(pick(&[0, 20, 300_000, 300_000]) as u64),
            mover_rests: rests[dice.below(3)],
            late: seldom(100) + seldom(500),
            late_methods: {
                let chosen = PEER_METHODS.into_iter().filter(|_| dice.below(3) == 0);
                chosen.collect()
            },
            quiet: (dice.below(8) == 0).then(|| 100 + dice.below(400) as u32),
            ..usual
        }
    }

    pub fn options(&self) -> Options {
        let everything = self.class == Class::Everything;
        let weather = if everything {
            Weather {
                lost: 10,
                reset: 10,
                local_trouble: 3,
                ..Weather::default()
            }
        } else {
            Weather::default()
        };
        let weather = Weather {
            late: self.late,
            pieces: 500,
            late_methods: self.late_methods.clone(),
            ..weather
        };
        Options {
            weather,
            clocks_apart: if self.worse.clocks {
                Duration::from_secs(400 * 24 * 3600)
            } else {
                self.clocks_apart
            },
            mover_rests: self.mover_rests,
            watch_stability: everything,
            print: print_trace(),
            // In a large network that changes all the time many questions are put.
            turns_max: 2_000_000 + 200_000 * self.nodes_max as u64,
            ..Options::default()
        }
    }

    pub fn promise(&self) -> Promise {
        match self.class {
            Class::Everything => Promise::WhileStable,
            _ => Promise::Always,
        }
    }
}
