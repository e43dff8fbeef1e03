//! The example that keeps something, `examples/counter.rs`: what its documentation promises.

#[path = "../examples/counter.rs"]
#[allow(dead_code)] // The program.
mod counter;
mod sim;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use counter::{Counter, SERVICE_TYPES, once};
use sim::direct::{Play, Stage};
use sim::network::SimNetwork;
use sim::plain::Node;
use sim::runner::{Figures, print_trace, run_many, run_world};
use sim::schedule::location;
use sim::store::StoreRing;
use sim::world::{Item, Options, Placement, SimNode, Subject, TICK};
use thrifty_p2p::location::Location;
use thrifty_p2p::locator::{self, Locator, read_answer};
use thrifty_p2p::net::{Environment, Network};

const SEEDS: u64 = 20;

const REPLICAS: usize = 2;

/// Longer than a node takes to answer or refuse.
const LIMIT: Duration = Duration::from_secs(20);

/// What is counted.
fn keys() -> impl Iterator<Item = Vec<u8>> + Clone {
    (0..30).map(|number| format!("k{number}").into_bytes())
}

/// Nodes with counters. A put counts once, whatever its value; a get answers the count as text.
struct Counters;

fn ask(net: &dyn Network, to: &Location, method: &'static str, key: &[u8]) -> Result<i64, String> {
    let answer = net.call(to, &once(method, key), LIMIT);
    let count = answer.and_then(|result| read_answer(&result, method));
    count.map_err(|why| why.to_string())
}

/// All counters of a node, with their counts in the place of versions.
fn items(counter: &Counter) -> Vec<Item> {
    let item = |key: Vec<u8>| {
        Some(Item {
            version: counter.known(&key)?,
            key,
            value: Vec::new(),
        })
    };
    keys().filter_map(item).collect()
}

impl Subject for Counters {
    fn node(&self, location: &Location, environment: Environment, _: usize) -> Arc<dyn SimNode> {
        let options = locator::Options {
            service_types: SERVICE_TYPES,
            replicas: REPLICAS,
            tick: TICK,
            die_from_anywhere: false,
            on_die: Box::new(|| ()),
        };
        let locator = Locator::new(location.clone(), options, environment);
        Arc::new(Node {
            participant: Arc::new(Counter::new(locator)),
            items,
        })
    }

    fn says_safe(&self, net: &dyn Network, at: &Location) -> Result<(), String> {
        StoreRing { replicas: REPLICAS }.says_safe(net, at)
    }

    fn put(&self, net: &dyn Network, to: &Location, key: &[u8], _: &[u8]) -> Result<(), String> {
        ask(net, to, "increment", key).map(drop)
    }

    fn get(&self, net: &dyn Network, to: &Location, key: &[u8]) -> Result<Vec<u8>, String> {
        ask(net, to, "value", key).map(|count| count.to_string().into_bytes())
    }

    fn placement(&self, nodes: &[Location]) -> Placement {
        StoreRing { replicas: REPLICAS }.placement(nodes)
    }
}

fn direct(test: &str, play: Play) {
    run_many(&format!("sim_counter {test}"), SEEDS, |seed| {
        let subject: Arc<dyn Subject> = Arc::new(Counters);
        let mut options = Options {
            print: print_trace(),
            ..Options::default()
        };
        let weather = &mut options.weather;
        weather.late = 100;
        weather.late_methods = vec!["ask", "increment_here", "value_here", "hold", "exchange"];
        run_world(seed, &subject, options, move |world| {
            play(&Stage::new(world.clone()))?;
            Ok(Figures::default())
        })
    });
}

/// How many increments of a key were answered, and how many were asked for.
#[derive(Clone, Copy, Default)]
struct Told {
    answered: i64,
    asked: i64,
}

/// A client, and what it was told of each key.
#[derive(Clone)]
struct Client {
    net: Arc<SimNetwork>,
    told: Arc<Mutex<BTreeMap<Vec<u8>, Told>>>,
}

impl Client {
    fn of(stage: &Stage) -> Self {
        Client {
            net: Arc::new(stage.world.client()),
            told: Arc::default(),
        }
    }

    fn note(&self, key: &[u8], change: impl FnOnce(&mut Told)) {
        let mut told = self.told.lock().unwrap();
        change(told.entry(key.to_vec()).or_default());
    }

    fn told(&self, key: &[u8]) -> Told {
        let told = self.told.lock().unwrap();
        told.get(key).copied().unwrap_or_default()
    }

    fn count(&self, at: usize, key: &[u8]) -> Result<(), String> {
        self.note(key, |told| told.asked += 1);
        ask(&*self.net, &location(at), "increment", key)?;
        self.note(key, |told| told.answered += 1);
        Ok(())
    }

    /// Counts every key once.
    fn count_all(&self, at: usize) -> Result<(), String> {
        keys().try_for_each(|key| self.count(at, &key))
    }

    /// Counts at these nodes in turn, beside what follows, so many times.
    fn count_meanwhile(&self, stage: &Stage, nodes: &'static [usize], times: usize) {
        let (client, world) = (self.clone(), stage.world.clone());
        stage.meanwhile("counts", move || {
            for (key, at) in keys().cycle().zip(nodes.iter().cycle()).take(times) {
                // What it was told is noted.
                let _ = client.count(*at, &key);
                world.scheduler.sleep(TICK / 20);
            }
        });
    }

    /// Checks these nodes beside what follows, until all has been counted.
    fn check_meanwhile(&self, stage: &Stage, nodes: &'static [usize]) {
        let (client, own) = (self.clone(), stage.clone());
        stage.world.spawn("checks", move || {
            while own.is_working() {
                if let Err(why) = client.check(nodes) {
                    own.world.scheduler.fail(why);
                }
            }
        });
    }

    /// Every node says that what was answered is counted, and no more than was asked for.
    fn check(&self, nodes: &[usize]) -> Result<(), String> {
        for key in keys() {
            for at in nodes {
                let least = self.told(&key).answered;
                let count = ask(&*self.net, &location(*at), "value", &key)?;
                let most = self.told(&key).asked;
                if !(least..=most).contains(&count) {
                    let key = String::from_utf8_lossy(&key);
                    let why = format!("{key} is {count} at {at}, not from {least} to {most}");
                    return Err(why);
                }
            }
        }
        Ok(())
    }

    /// Of all keys.
    fn total(&self) -> Told {
        keys().fold(Told::default(), |total, key| {
            let told = self.told(&key);
            Told {
                answered: total.answered + told.answered,
                asked: total.asked + told.asked,
            }
        })
    }
}

/// Whether the replicas of each key have it, all of it, when these nodes are full; and whether no other node has it.
fn placement(stage: &Stage, nodes: &[usize]) -> (bool, bool) {
    let nodes: Vec<_> = nodes.iter().map(|node| location(*node)).collect();
    let replicas = stage.world.subject.placement(&nodes);
    let mut held: BTreeMap<(Vec<u8>, Location), i64> = BTreeMap::new();
    for at in stage.world.locations() {
        let items = stage
            .world
            .node(&at)
            .map_or(Vec::new(), |node| node.items());
        held.extend(
            items
                .into_iter()
                .map(|item| ((item.key, at.clone()), item.version)),
        );
    }
    let (mut complete, mut copies) = (true, 0);
    for key in keys() {
        let all = held.iter().filter(|((of, _), _)| *of == key);
        let most = all.map(|(_, count)| *count).max();
        for at in replicas(&key) {
            copies += usize::from(most.is_some());
            complete &= held.get(&(key.clone(), at)).copied() == most;
        }
    }
    (complete, complete && held.len() == copies)
}

#[test]
fn must_keep_what_is_counted_while_nodes_come_and_go() {
    direct("must_keep_what_is_counted_while_nodes_come", |stage| {
        stage.begin(3)?;
        let client = Client::of(stage);
        client.count_all(0)?;
        client.count_meanwhile(stage, &[1, 2], 600);
        client.check_meanwhile(stage, &[1, 2]);
        stage.boot(3, 1);
        stage.await_members(40.0, &[0, 1, 2, 3])?;
        client.check(&[0, 1, 2, 3])?;
        stage.leave(40.0, 0)?;
        stage.await_members(20.0, &[1, 2, 3])?;
        client.check(&[1, 2, 3])?;
        stage.await_all();
        let Told { answered, asked } = client.total();
        // One that is under way to a node that ends may not be answered.
        if answered < asked - 6 {
            return Err(format!("{answered} answered of {asked}"));
        }
        stage.await_safe(20.0, 3)?;
        client.check(&[1, 2, 3])
    });
}

#[test]
fn must_not_be_safe_while_counters_are_on_their_way() {
    direct("must_not_be_safe_while", |stage| {
        stage.begin(3)?;
        let client = Client::of(stage);
        client.count_all(0)?;
        stage.await_safe(20.0, 0)?;
        let (before, after) = ([0, 1, 2], [0, 1, 2, 3]);
        stage.boot(3, 0);
        let (mut moving, mut settled) = (0, false);
        let until = stage.now() + TICK * 60;
        while !settled {
            if stage.now() > until {
                return Err("never safe".to_owned());
            }
            let whole = stage.are_members(&after);
            let (_, exact) = placement(stage, &after);
            moving += usize::from(!exact);
            if stage.says_safe(1) {
                let (complete, exact) = placement(stage, &after);
                if !(complete || placement(stage, &before).0) {
                    return Err("safe, but not all replicas have all".to_owned());
                }
                if whole && !exact {
                    return Err("safe, but counters lie where they need not".to_owned());
                }
                settled = whole;
            }
            stage.world.scheduler.sleep(TICK / 500);
        }
        if moving == 0 {
            return Err("nothing was ever on its way".to_owned());
        }
        client.check(&after)
    });
}

#[test]
fn must_keep_what_was_answered_when_a_node_is_killed() {
    direct("must_keep_what_was_answered", |stage| {
        stage.begin(4)?;
        let client = Client::of(stage);
        client.count_all(0)?;
        client.count_meanwhile(stage, &[0, 3], 400);
        stage.sleep(2.0);
        stage.crash(1);
        stage.await_safe(40.0, 0)?;
        client.check(&[0, 2, 3])?;
        stage.crash(2);
        stage.await_all();
        stage.await_safe(40.0, 0)?;
        client.check(&[0, 3])
    });
}

#[test]
fn must_add_up_what_two_sides_have_counted() {
    direct("must_add_up", |stage| {
        stage.begin(2)?;
        let client = Client::of(stage);
        client.count_all(0)?;
        client.count_all(1)?;
        // Some counters go to others, which keep what this node counts in.
        for newcomer in [2, 3] {
            stage.boot(newcomer, 0);
        }
        stage.await_members(40.0, &[0, 1, 2, 3])?;
        stage.await_safe(20.0, 0)?;
        stage.part(&[0], &[1, 2, 3]);
        let all = [1, 2, 3];
        let alone = || {
            all.iter()
                .all(|other| !stage.knows(0, *other) && !stage.knows(*other, 0))
        };
        stage.await_that(40.0, "both sides have lost each other", alone)?;
        client.count_all(0)?;
        client.count_all(1)?;
        stage.world.heal();
        stage.await_members(60.0, &[0, 1, 2, 3])?;
        stage.await_safe(20.0, 1)?;
        // All were answered: the counts have to be exact.
        client.check(&[0, 1, 2, 3])
    });
}
