//! Worlds told step by step: what happens is written down, when exactly and in which order between is left
//! to the seed. They are judged by what clients and operators see: puts, gets, what `location --status`
//! says, and whether a node ends.
//!
//! ```text
//! direct("sim_worse must_keep_puts_of_a_node_whose_clock_is_two_days_ahead", 2, |stage| {
//!     stage.begin(3)?;                            // nodes 0, 1, 2 know each other
//!     let key = stage.key(&[0, 1], &[0, 1, 2]);   // its list is 0, 1
//!     stage.put(2, &key, "old")?;                 // by way of node 2; has to be acknowledged
//!     stage.world.suspend(&location(0));          // what goes wrong: see World and Wires
//!     ...
//!     let _ = stage.get(0, &key);                 // answered or not, the history judges it
//!     Ok(())
//! });
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use thrifty_p2p::location::Location;

use super::history::{Outcome, Promise, brief};
use super::network::SimNetwork;
use super::runner::{Figures, print_trace, run_many, run_world};
use super::schedule::location;
use super::store::StoreRing;
use super::wires::Weather;
use super::world::{Options, Phase, Subject, TICK, Way, World};

/// Seeds of a world, unless it says otherwise.
const SEEDS: u64 = 20;

/// What a world does.
pub type Play = fn(&Stage) -> Result<(), String>;

/// Some seeds of a directed world of stores; it fails also if a client has seen what it may not see. `test` is what
/// `cargo test --test` takes to run it: the test program, and the test's name, or a beginning that no other one has.
pub fn direct(test: &str, replicas: usize, play: Play) {
    direct_seeds(test, replicas, SEEDS, play);
}

pub fn direct_seeds(test: &str, replicas: usize, seeds: u64, play: Play) {
    run_many(test, seeds, |seed| {
        let subject: Arc<dyn Subject> = Arc::new(StoreRing { replicas });
        let options = Options {
            weather: Weather::default(),
            print: print_trace(),
            ..Options::default()
        };
        run_world(seed, &subject, options, move |world| {
            world.history().shown_counts = true;
            let stage = Stage::new(world.clone());
            play(&stage)?;
            world.history().check_reads(Promise::Always)?;
            Ok(Figures::default())
        })
    });
}

/// Sends several requests on one connection. The history has them, and their order.
pub fn use_together(
    world: &Arc<World>,
    net: &SimNetwork,
    to: &Location,
    operations: &[(Vec<u8>, Option<Vec<u8>>)],
    take: &mut dyn FnMut(usize, Result<Vec<u8>, String>),
) {
    let mut begun: Vec<usize> = Vec::new();
    for (place, (key, value)) in operations.iter().enumerate() {
        let mut history = world.history();
        let operation = match value {
            None => history.begin_get(key),
            Some(value) => history.begin_put(key, value),
        };
        if let Some(earlier) = (0..place).rev().find(|one| operations[*one].0 == *key) {
            history.note_order(begun[earlier], operation);
        }
        begun.push(operation);
        drop(history);
        let text = (brief(key), value.as_ref().map(|value| brief(value)));
        let scheduler = &world.scheduler;
        scheduler.trace(format_args!("@{operation} {text:?} at {to}, together"));
    }
    world
        .subject
        .many(net, to, operations, &mut |place, answer| {
            let ((key, value), operation) = (&operations[place], begun[place]);
            let shown = answer.as_ref().map(|value| brief(value));
            world
                .scheduler
                .trace(format_args!("@{operation} {}: {shown:?}", brief(key)));
            let outcome = match (&answer, value) {
                (Err(_), _) => Outcome::Unknown,
                (Ok(read), None) => Outcome::Read(read.clone()),
                (Ok(_), Some(value)) => Outcome::Acknowledged(world.version_of(key, value)),
            };
            world.history().end(operation, net.began(), outcome);
            take(place, answer);
        });
}

/// What a world is told with. Nodes have numbers, see [`location`].
#[derive(Clone)]
pub struct Stage {
    pub world: Arc<World>,
    net: Arc<SimNetwork>,
    working: Arc<AtomicUsize>,
}

impl Stage {
    pub fn new(world: Arc<World>) -> Self {
        Stage {
            net: Arc::new(world.client()),
            world,
            working: Arc::default(),
        }
    }

    /// So many nodes that have come together.
    pub fn begin(&self, nodes: usize) -> Result<(), String> {
        self.world.boot(&location(0), None);
        self.sleep(1.0);
        for number in 1..nodes {
            self.boot(number, 0);
        }
        self.await_members(40.0, &(0..nodes).collect::<Vec<_>>())
    }

    /// Starts a node that joins by way of another one.
    pub fn boot(&self, number: usize, contact: usize) {
        self.world.boot(&location(number), Some(&location(contact)));
    }

    /// The same with so many bytes for its items.
    pub fn boot_small(&self, number: usize, contact: Option<usize>, memory: usize) {
        let (subject, at) = (self.world.subject.clone(), location(number));
        let way = contact.map_or(Way::Begin, |contact| Way::Join(location(contact)));
        let make = |environment| subject.node(&at, environment, memory);
        self.world.boot_as(&at, way, make);
    }

    /// Starts a node that looks for a network at the places of these.
    pub fn boot_looking(&self, number: usize, places: &[usize]) {
        let places = places.iter().map(|place| location(*place)).collect();
        let (subject, at) = (self.world.subject.clone(), location(number));
        let make = |environment| subject.node(&at, environment, usize::MAX);
        self.world.boot_as(&at, Way::Look(places), make);
    }

    /// Starts a node of 2009, which joins by way of another one or begins.
    pub fn boot_original(&self, number: usize, contact: Option<usize>) {
        let contact = contact.map(location);
        self.world
            .boot_original(&location(number), contact.as_ref());
    }

    pub fn sleep(&self, ticks: f64) {
        self.world.scheduler.sleep(TICK.mul_f64(ticks));
    }

    pub fn now(&self) -> Duration {
        self.world.scheduler.now()
    }

    /// Waits for something.
    ///
    /// # Errors
    /// It isn't so after that many ticks.
    pub fn await_that(&self, ticks: f64, what: &str, so: impl Fn() -> bool) -> Result<(), String> {
        let until = self.now() + TICK.mul_f64(ticks);
        while !so() {
            if self.now() > until {
                return Err(format!("not within {ticks} ticks: {what}"));
            }
            self.sleep(0.1);
        }
        Ok(())
    }

    /// Waits until these nodes have these as members, all of them full.
    pub fn await_members(&self, ticks: f64, nodes: &[usize]) -> Result<(), String> {
        let what = format!("{nodes:?} agree and are full");
        self.await_that(ticks, &what, || self.are_members(nodes))
    }

    pub fn are_members(&self, nodes: &[usize]) -> bool {
        let mut all: Vec<_> = nodes.iter().map(|node| (location(*node), false)).collect();
        all.sort_unstable();
        nodes.iter().all(|node| {
            let node = self.world.node(&location(*node));
            node.is_some_and(|node| {
                let mut members = node.members();
                members.sort_unstable();
                members == all
            })
        })
    }

    /// Whether this one has that one as a member.
    pub fn knows(&self, node: usize, other: usize) -> bool {
        let node = self.world.node(&location(node));
        let other = location(other);
        node.is_some_and(|node| node.members().iter().any(|(member, _)| *member == other))
    }

    pub fn runs(&self, number: usize) -> bool {
        self.world.node(&location(number)).is_some()
    }

    pub fn is_up(&self, number: usize) -> bool {
        let at = location(number);
        let processes = self.world.processes();
        let mut same = processes.iter().filter(|(other, _)| *other == at);
        same.any(|(_, process)| process.phase == Phase::Up)
    }

    /// A key that belongs to these, in this order, when `nodes` are full members.
    pub fn key(&self, list: &[usize], nodes: &[usize]) -> Vec<u8> {
        self.keys_of(list, nodes).next().expect("BUG: no such key")
    }

    /// All of them.
    pub fn keys_of(&self, list: &[usize], nodes: &[usize]) -> impl Iterator<Item = Vec<u8>> {
        let list: Vec<_> = list.iter().map(|node| location(*node)).collect();
        let nodes: Vec<_> = nodes.iter().map(|node| location(*node)).collect();
        let placement = self.world.subject.placement(&nodes);
        let keys = (0..1_000_000).map(|number| format!("k{number}").into_bytes());
        keys.filter(move |key| placement(key).starts_with(&list))
    }

    /// Whether the put was acknowledged.
    pub fn try_put(&self, at: usize, key: &[u8], value: &[u8]) -> bool {
        self.put_through(&self.net, at, key, value).is_ok()
    }

    /// # Errors
    /// It wasn't acknowledged.
    pub fn put(&self, at: usize, key: &[u8], value: impl AsRef<[u8]>) -> Result<(), String> {
        self.put_through(&self.net, at, key, value.as_ref())
    }

    fn put_through(
        &self,
        net: &SimNetwork,
        at: usize,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), String> {
        let (world, at) = (&self.world, location(at));
        let operation = world.history().begin_put(key, value);
        let shown = format!("@{operation} put {} {} at {at}", brief(key), brief(value));
        world.scheduler.trace(format_args!("{shown}"));
        let put = world.subject.put(net, &at, key, value);
        world.scheduler.trace(format_args!("{shown}: {put:?}"));
        let outcome = match &put {
            Ok(()) => Outcome::Acknowledged(None),
            Err(_) => Outcome::Unknown,
        };
        world.history().end(operation, net.began(), outcome);
        put.map_err(|why| format!("not acknowledged: {shown}: {why}"))
    }

    /// What is read, if there is an answer. The history judges it.
    pub fn get(&self, at: usize, key: &[u8]) -> Result<Vec<u8>, String> {
        self.get_through(&self.net, at, key)
    }

    fn get_through(&self, net: &SimNetwork, at: usize, key: &[u8]) -> Result<Vec<u8>, String> {
        let (world, at) = (&self.world, location(at));
        let operation = world.history().begin_get(key);
        let shown = format!("@{operation} get {} at {at}", brief(key));
        world.scheduler.trace(format_args!("{shown}"));
        let read = world.subject.get(net, &at, key);
        let value = read.as_ref().map(|value| brief(value));
        world.scheduler.trace(format_args!("{shown}: {value:?}"));
        let outcome = match &read {
            Ok(value) => Outcome::Read(value.clone()),
            Err(_) => Outcome::Unknown,
        };
        world.history().end(operation, net.began(), outcome);
        read.map_err(|why| format!("no answer: {shown}: {why}"))
    }

    /// # Errors
    /// There is no answer, or another value.
    pub fn reads(&self, at: usize, key: &[u8], value: impl AsRef<[u8]>) -> Result<(), String> {
        let (read, value) = (self.get(at, key)?, value.as_ref());
        if read == value {
            return Ok(());
        }
        let (key, read, value) = (brief(key), brief(&read), brief(value));
        Err(format!(
            "{key} reads {read} at {}, not {value}",
            location(at)
        ))
    }

    /// Gets (without a value) and puts, sent together on one connection; what the gets have read.
    ///
    /// # Errors
    /// One of them wasn't answered.
    pub fn together(
        &self,
        at: usize,
        operations: &[(Vec<u8>, Option<Vec<u8>>)],
    ) -> Result<Vec<Vec<u8>>, String> {
        let (mut read, mut failed) = (Vec::new(), None);
        let mut take = |place: usize, answer| match (answer, &operations[place].1) {
            (Ok(value), None) => read.push(value),
            (Ok(_), Some(_)) => {}
            (Err(why), _) => failed = failed.take().or(Some(why)),
        };
        use_together(&self.world, &self.net, &location(at), operations, &mut take);
        failed.map_or(Ok(read), Err)
    }

    /// A put on the way, in an activity of its own.
    pub fn put_meanwhile(&self, at: usize, key: &[u8], value: &'static str) {
        let (stage, key) = (self.clone(), key.to_vec());
        self.meanwhile("put", move || {
            // The history has it.
            let _ = stage.put_through(&stage.world.client(), at, &key, value.as_bytes());
        });
    }

    /// Something at the same time. See [`Stage::await_all`].
    pub fn meanwhile(&self, name: &'static str, job: impl FnOnce() + Send + 'static) {
        self.working.fetch_add(1, Ordering::Relaxed);
        let working = self.working.clone();
        self.world.spawn(name, move || {
            job();
            working.fetch_sub(1, Ordering::Relaxed);
        });
    }

    /// The same, on another client's connections.
    pub fn client(&self) -> Stage {
        Stage {
            net: Arc::new(self.world.client()),
            ..self.clone()
        }
    }

    pub fn is_working(&self) -> bool {
        self.working.load(Ordering::Relaxed) > 0
    }

    /// Waits for all that goes on meanwhile.
    pub fn await_all(&self) {
        while self.is_working() {
            self.sleep(0.2);
        }
    }

    /// What `location --status` says, asked at a node.
    pub fn says_safe(&self, at: usize) -> bool {
        let safe = self.world.subject.says_safe(&*self.net, &location(at));
        let safe = safe.is_ok();
        let at = location(at);
        self.world
            .scheduler
            .trace(format_args!("{at} says safe: {safe}"));
        safe
    }

    /// Waits until it says so.
    pub fn await_safe(&self, ticks: f64, at: usize) -> Result<(), String> {
        let what = format!("{} says that all is safe", location(at));
        self.await_that(ticks, &what, || self.says_safe(at))
    }

    /// It must not say so, for that many ticks.
    pub fn is_never_safe(&self, ticks: f64, at: usize, why: &str) -> Result<(), String> {
        let until = self.now() + TICK.mul_f64(ticks);
        while self.now() < until {
            if self.says_safe(at) {
                return Err(format!("{} says that all is safe, {why}", location(at)));
            }
            self.sleep(0.5);
        }
        Ok(())
    }

    pub fn crash(&self, number: usize) {
        self.world.crash(&location(number));
    }

    /// Has a node leave.
    ///
    /// # Errors
    /// It hasn't ended after that many ticks, or says that it has left keys behind.
    pub fn leave(&self, ticks: f64, number: usize) -> Result<(), String> {
        let complete = self.begin_leaving(number);
        self.await_left(ticks, number, &complete)
    }

    /// Has two nodes leave within a tick. Errors as of [`Stage::leave`].
    pub fn leave_together(&self, ticks: f64, one: usize, other: usize) -> Result<(), String> {
        let complete = self.begin_leaving(one);
        self.sleep(self.world.random.below(10) as f64 / 10.0);
        self.leave(ticks, other)?;
        self.await_left(ticks, one, &complete)
    }

    fn await_left(&self, ticks: f64, number: usize, complete: &AtomicUsize) -> Result<(), String> {
        let what = format!("{} has left", location(number));
        self.await_that(ticks, &what, || complete.load(Ordering::Relaxed) > 0)?;
        match complete.load(Ordering::Relaxed) {
            1 => Ok(()),
            _ => Err(format!("{} leaves keys behind", location(number))),
        }
    }

    /// What it is told by: 0 while it is at it, 1 once all is handed over, 2 if not.
    pub fn begin_leaving(&self, number: usize) -> Arc<AtomicUsize> {
        let complete = Arc::new(AtomicUsize::new(0));
        let told = complete.clone();
        self.world.leave(&location(number), move |complete| {
            told.store(if complete { 1 } else { 2 }, Ordering::Relaxed);
        });
        complete
    }

    /// Nothing gets from one of these groups to the other.
    pub fn part(&self, here: &[usize], there: &[usize]) {
        for one in here {
            for other in there {
                let mut wires = self.world.wires();
                wires.cut_both(&location(*one), &location(*other));
            }
        }
    }
}
