//! What membership costs in rings of many nodes: calls and bytes for a join, a leave and a crash,
//! ticks until all agree, and the steady traffic. `cargo run --release --example sim [NODES ...]`
//! prints tab-separated lines: ring, what happens, metric, value.
//!
//! All nodes live in one process and one thread; a call is a function call, and time is a number.
//! Nothing is lost or late here: how nodes bear that is shown by the tests, this only counts.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use thrifty_p2p::location::Location;
use thrifty_p2p::locator::{Locator, LocatorService, Options, Participant, SERVICE_TYPES};
use thrifty_p2p::membership::State;
use thrifty_p2p::net::{Answer, CallError, Clock, Environment, Network, Random, Request};
use thrifty_p2p::service::{Call, Service};

const TICK: Duration = Duration::from_millis(500);

/// Header of a message but for its name: version, type, two lengths, sequence number.
const HEADER_BYTES: usize = 12;

/// A lease is asked for again in each third tick, here by all nodes in the same one: what a tick costs repeats itself.
const PERIOD: u32 = 3;

/// More ticks than anything here takes.
const TICKS_MAX: u32 = 100;

#[derive(Default)]
struct World {
    nodes: Mutex<BTreeMap<Location, Arc<LocatorService>>>,
    calls: AtomicU64,
    bytes: AtomicU64,
    micros: AtomicU64,
}

impl World {
    fn node(&self, location: &Location) -> Option<Arc<LocatorService>> {
        self.nodes
            .lock()
            .expect("BUG: nobody panics")
            .get(location)
            .cloned()
    }

    fn all(&self) -> Vec<Arc<LocatorService>> {
        self.nodes
            .lock()
            .expect("BUG: nobody panics")
            .values()
            .cloned()
            .collect()
    }

    fn counts(&self) -> (u64, u64) {
        (
            self.calls.load(Ordering::Relaxed),
            self.bytes.load(Ordering::Relaxed),
        )
    }

    fn call_one(&self, to: &Location, request: &Request) -> Answer {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let node = self.node(to).ok_or(CallError::Refused)?;
        let call = Call {
            method: request.method.as_bytes(),
            arguments: &request.arguments,
            local: false,
            done: &|| (),
        };
        let mut result = Vec::new();
        let outcome = node.call(&call, &mut result);
        let headers = 2 * (HEADER_BYTES + request.method.len());
        let bytes = headers + request.arguments.len() + result.len();
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        outcome.map_err(CallError::Exception)?;
        Ok(result)
    }

    /// A tick of every node, and the work of its threads.
    fn tick(&self) {
        self.pass(TICK);
        let all = self.all();
        for node in &all {
            node.locator().tick();
            run(node);
        }
        // What follows from the answers, and from that.
        let mut before = 0;
        while before != self.counts().0 {
            before = self.counts().0;
            all.iter().for_each(|node| run(node));
        }
    }

    fn pass(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).expect("BUG: a short time");
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    fn agree(&self) -> bool {
        let all = self.all();
        let digest = all[0].locator().view().digest();
        let agrees = |node: &Arc<LocatorService>| {
            let view = node.locator().view();
            view.digest() == digest && view.members().len() == all.len()
        };
        all.iter().all(agrees)
    }

    /// Ticks until all nodes have the same list.
    fn settle(&self) -> u32 {
        let settled = (0..TICKS_MAX).find(|_| {
            let agree = self.agree();
            if !agree {
                self.tick();
            }
            agree
        });
        settled.expect("BUG: the nodes don't agree")
    }
}

/// What a node's threads do once there is something to do.
fn run(node: &LocatorService) {
    node.locator().ask(false);
    node.locator().ask(true);
    node.work();
}

/// The world as one node sees it.
struct Place(Arc<World>);

impl Network for Place {
    fn call_all(&self, calls: &[(Location, Request)], _limit: Duration) -> Vec<Answer> {
        calls
            .iter()
            .map(|(to, request)| self.0.call_one(to, request))
            .collect()
    }

    fn forget(&self, _location: &Location) {}
}

impl Clock for Place {
    fn now(&self) -> Duration {
        Duration::from_micros(self.0.micros.load(Ordering::Relaxed))
    }

    fn wall(&self) -> i64 {
        i64::try_from(self.now().as_micros()).expect("BUG: too many ticks")
    }

    fn pause(&self, time: Duration) {
        self.0.pass(time);
        self.0.all().iter().for_each(|node| run(node));
    }
}

fn join(world: &Arc<World>, number: usize) -> Location {
    let address = format!("10.0.{}.{}", number / 250, number % 250);
    let location = Location::new(&address, 9900).expect("BUG: a good address");
    let options = Options {
        service_types: SERVICE_TYPES,
        replicas: 1,
        tick: TICK,
        die_from_anywhere: false,
        on_die: Box::new(|| ()),
    };
    let environment = Environment {
        network: Arc::new(Place(world.clone())),
        clock: Arc::new(Place(world.clone())),
        random: Random::new(number as u64),
        secret: number as u64,
        log: Box::new(|_, _| ()),
    };
    let peer = world
        .all()
        .first()
        .map(|node| node.locator().location().clone());
    let locator = Locator::new(location.clone(), options, environment);
    let node = Arc::new(LocatorService::new(locator));
    world
        .nodes
        .lock()
        .expect("BUG: nobody panics")
        .insert(location.clone(), node.clone());
    let started = match &peer {
        Some(peer) => node.locator().join(std::slice::from_ref(peer)),
        None => node.locator().start(&[], true),
    };
    started.expect("BUG: the first node answers");
    let is_full = || node.locator().me().state == State::Full;
    for _ in 0..TICKS_MAX {
        (0..4).for_each(|_| run(&node));
        if is_full() {
            break;
        }
        world.tick();
    }
    assert!(is_full(), "not let in");
    location
}

/// Counts what `change` costs until all agree, and how much more that is than in the ticks before it.
fn measure(world: &Arc<World>, nodes: usize, what: &str, change: impl FnOnce()) {
    let count = |_| {
        let before = world.counts().0;
        world.tick();
        world.counts().0 - before
    };
    let usual: Vec<u64> = (0..PERIOD).map(count).collect();
    let (calls, bytes) = world.counts();
    change();
    let ticks = world.settle();
    let (calls_after, bytes_after) = world.counts();
    let anyway: u64 = usual.iter().cycle().take(ticks as usize).sum();
    let beyond = (calls_after - calls).saturating_sub(anyway);
    println!("{nodes} nodes\t{what}\tcalls\t{}", calls_after - calls);
    println!("{nodes} nodes\t{what}\tcalls beyond the steady ones\t{beyond}");
    println!("{nodes} nodes\t{what}\tbytes\t{}", bytes_after - bytes);
    println!("{nodes} nodes\t{what}\tticks\t{ticks}");
}

fn ring(nodes: usize) {
    let world = Arc::new(World::default());
    for number in 0..nodes {
        join(&world, number);
    }
    world.settle();
    let (calls, bytes) = world.counts();
    const TICKS: u64 = 4 * PERIOD as u64;
    (0..TICKS).for_each(|_| world.tick());
    let (calls_after, bytes_after) = world.counts();
    let each = |total: u64| total as f64 / (TICKS * nodes as u64) as f64;
    let steady = each(calls_after - calls);
    println!(
        "{nodes} nodes\tsteady, a node and tick\tcalls\t{:.2}",
        steady
    );
    println!(
        "{nodes} nodes\tsteady, a node and tick\tbytes\t{:.1}",
        each(bytes_after - bytes)
    );
    let mut newcomer = None;
    measure(&world, nodes, "join", || {
        newcomer = Some(join(&world, nodes))
    });
    let newcomer = newcomer.expect("BUG: it has joined");
    measure(&world, nodes, "leave", || {
        let node = world.node(&newcomer).expect("BUG: it is there");
        // Nothing is kept, so nothing can be left behind.
        let _ = node.leave();
        world
            .nodes
            .lock()
            .expect("BUG: nobody panics")
            .remove(&newcomer);
    });
    let last = join(&world, nodes);
    world.settle();
    measure(&world, nodes, "crash", || {
        world
            .nodes
            .lock()
            .expect("BUG: nobody panics")
            .remove(&last);
    });
}

fn main() {
    let sizes: Vec<usize> = std::env::args()
        .skip(1)
        .filter_map(|size| size.parse().ok())
        .collect();
    for nodes in if sizes.is_empty() {
        vec![100, 1000, 5000]
    } else {
        sizes
    } {
        ring(nodes);
    }
}
