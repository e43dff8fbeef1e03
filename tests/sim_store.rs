//! The store in the simulated world: no acknowledged put is lost or overtaken by an older one.
//!
//! The ordinary run has 1,200 schedules. 100,000 of a class: `SIM_SCHEDULES=100000 cargo test --test
//! sim_store class_1 -- --nocapture`; see `sim/mod.rs` for replay.

mod sim;

use std::sync::Arc;
use std::time::Duration;

use sim::pool::Pool;
use sim::runner::{Figures, Verdict, run_many, run_world};
use sim::schedule::{Class, Plan, location, play};
use sim::world::{Item, SimNode, Subject, TICK, World};
use thrifty_p2p::diststore::{KeyValue, SERVICE_TYPES, Store};
use thrifty_p2p::location::Location;
use thrifty_p2p::locator::{Locator, Options, Participant, State, read_result, write_key};
use thrifty_p2p::net::{Connection, Environment, Network, Random, Request};
use thrifty_p2p::ring::{self, Ring};
use thrifty_p2p::service::Service;
use thrifty_p2p::thrift::wire;

/// A client waits longer than a node does.
const CLIENT_LIMIT: Duration = Duration::from_secs(20);

struct StoreRing {
    replicas: usize,
}

struct Node(Arc<Store>);

impl SimNode for Node {
    fn service(&self) -> Arc<dyn Service> {
        self.0.clone()
    }

    fn start(&self, contact: Option<&Location>) -> bool {
        let started = self.0.locator().start(contact, &*self.0);
        if let Err(why) = &started {
            self.0.locator().say(&why.to_string());
        }
        started.is_ok()
    }

    fn tick(&self) {
        self.0.locator().tick();
    }

    fn work(&self) {
        self.0.work();
    }

    fn leave(&self) -> bool {
        let left = self.0.leave();
        if let Err(keys) = left {
            self.0.locator().say(&format!("{keys} keys were not taken"));
        }
        left.is_ok()
    }

    fn members(&self) -> Vec<(Location, bool)> {
        let view = self.0.locator().view();
        let members = view.members().iter();
        let members = members.map(|m| (m.location.clone(), m.state != State::Full));
        members.collect()
    }

    fn items(&self) -> Vec<Item> {
        let mut items = Vec::new();
        self.0.each_item(|key, version, value| {
            let (key, value) = (key.to_vec(), value.to_vec());
            items.push(Item {
                key,
                version,
                value,
            });
        });
        items.sort_unstable();
        items
    }
}

fn request(method: &'static str, arguments: Vec<u8>) -> Request {
    Request {
        method,
        arguments: Arc::new(arguments),
        connection: Connection::Single,
        oneway: false,
    }
}

impl Subject for StoreRing {
    fn node(&self, location: &Location, environment: Environment) -> Arc<dyn SimNode> {
        let options = Options {
            service_types: SERVICE_TYPES,
            replicas: self.replicas,
            tick: TICK,
            die_from_anywhere: false,
            on_die: Box::new(|| ()),
        };
        let locator = Locator::new(location.clone(), options, environment);
        Arc::new(Node(Arc::new(Store::new(locator))))
    }

    fn put(
        &self,
        net: &dyn Network,
        to: &Location,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), String> {
        let put = request("put", KeyValue::write(key, Some(value)));
        let answer = net.call(to, &put, CLIENT_LIMIT);
        answer.map(|_| ()).map_err(|why| why.to_string())
    }

    fn get(&self, net: &dyn Network, to: &Location, key: &[u8]) -> Result<Vec<u8>, String> {
        let answer = net.call(to, &request("get", write_key(key)), CLIENT_LIMIT);
        let value = answer.and_then(|result| {
            read_result(&result, "get", wire::STRING, |reader| {
                Ok(reader.bytes()?.to_vec())
            })
        });
        value.map_err(|why| why.to_string())
    }

    fn holders(&self, nodes: &[Location], key: &[u8]) -> Vec<Location> {
        let ring = Ring::new(nodes.iter().map(|node| node.name().clone()));
        let walk = ring.walk(ring::hash(key)).take(self.replicas);
        let named = |name: &str| nodes.iter().find(|node| &**node.name() == name);
        let holders = walk.map(|place| named(&ring.names()[place]));
        holders
            .map(|node| node.expect("BUG: a stranger").clone())
            .collect()
    }
}

/// One schedule of that class: the seed chooses the number of copies and nodes too.
fn schedule(class: Class, replicas: &[usize], pool: &Pool, seed: u64) -> Verdict {
    let dice = Random::new(seed);
    let replicas = replicas[dice.below(replicas.len())];
    let mut plan = Plan::new(class, replicas);
    plan.nodes = 1 + dice.below(plan.nodes_max - 1);
    let subject: Arc<dyn Subject> = Arc::new(StoreRing { replicas });
    run_world(pool, seed, &subject, plan.options(), move |world| {
        play(world, &plan)
    })
}

#[test]
fn orderly_must_keep_everything() {
    run_many("sim_store orderly", 200, |pool, seed| {
        schedule(Class::Orderly, &[1], pool, seed)
    });
}

#[test]
fn copies_must_be_kept_in_order() {
    run_many("sim_store copies", 200, |pool, seed| {
        schedule(Class::Orderly, &[2, 3], pool, seed)
    });
}

#[test]
fn class_1_must_keep_everything() {
    run_many("sim_store class_1", 500, |pool, seed| {
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

/// A node is stopped, dropped, and continued: it must not answer from what it had.
fn stopped_and_continued(world: &Arc<World>) -> Result<Figures, String> {
    let (net, subject) = (world.client(), world.subject.clone());
    world.boot(&location(0), None);
    world.scheduler.sleep(TICK);
    for number in 1..4 {
        world.boot(&location(number), Some(&location(0)));
    }
    world.scheduler.sleep(Duration::from_secs(5));
    world.safe()?;
    let keys: Vec<_> = (0..8).map(|number| format!("k{number}")).collect();
    for key in &keys {
        subject.put(&*net, &location(0), key.as_bytes(), b"old")?;
    }
    world.stop(&location(2));
    world.scheduler.sleep(Duration::from_secs(8));
    for key in &keys {
        subject.put(&*net, &location(1), key.as_bytes(), b"new")?;
    }
    world.resume(&location(2));
    for key in &keys {
        let read = subject.get(&*net, &location(2), key.as_bytes());
        if read.as_deref().is_ok_and(|value| value != b"new") {
            return Err(format!("{key} reads {read:?}"));
        }
    }
    Ok(Figures::default())
}

#[test]
fn must_not_answer_from_an_old_state() {
    run_many("sim_store must_not_answer", 50, |pool, seed| {
        let subject: Arc<dyn Subject> = Arc::new(StoreRing { replicas: 2 });
        let plan = Plan::new(Class::Late, 2);
        run_world(pool, seed, &subject, plan.options(), stopped_and_continued)
    });
}
