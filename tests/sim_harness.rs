//! The simulated world itself, with a toy service: does it find each fault of the toy, and the same one for the same
//! seed?

mod sim;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use sim::clock::DAY;
use sim::history::{History, Outcome, Promise};
use sim::network::{Origin, SimNetwork};
use sim::plan::{Class, PEER_METHODS, Plan};
use sim::runner::{Figures, Verdict, run_many, run_world};
use sim::schedule::{location, play};
use sim::wires::Fate;
use sim::world::{Item, Options, Placement, SimNode, Subject, Way, World};
use thrifty_p2p::location::Location;
use thrifty_p2p::net::{CallError, Clock, Connection, Environment, Network, Random, Request};
use thrifty_p2p::service::{Call, Order, Service};
use thrifty_p2p::thrift::Exception;

const LIMIT: Duration = Duration::from_secs(10);

/// What the toy does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    None,
    /// Says that it is done before the others have it.
    AcknowledgesFirst,
    /// Takes what arrives last for the newest.
    IgnoresVersions,
    PanicsOnDelete,
    /// Forgets a put now and then.
    Forgets,
}

/// A register on a fixed set of nodes: each puts on all, each answers from what it has.
struct Toy {
    bug: Bug,
    nodes: Vec<Location>,
}

type Items = BTreeMap<Vec<u8>, (i64, Vec<u8>)>;

struct ToyNode {
    bug: Bug,
    me: Location,
    nodes: Vec<Location>,
    environment: Environment,
    items: Mutex<Items>, // guards itself
}

struct ToyService(Arc<ToyNode>);

fn request(method: &'static str, arguments: Vec<u8>) -> Request {
    Request {
        method,
        arguments: Arc::new(arguments),
        connection: Connection::Kept,
        limit: None,
        oneway: false,
    }
}

/// Toy messages: version, key, 0, value.
fn pack(key: &[u8], version: i64, value: &[u8]) -> Vec<u8> {
    [&version.to_be_bytes(), key, b"\0", value].concat()
}

fn unpack(bytes: &[u8]) -> (Vec<u8>, i64, Vec<u8>) {
    let (version, rest) = bytes.split_at(8);
    let version = i64::from_be_bytes(version.try_into().expect("eight bytes"));
    let end = rest.iter().position(|byte| *byte == 0).expect("a key");
    (rest[..end].to_vec(), version, rest[end + 1..].to_vec())
}

impl ToyNode {
    fn items(&self) -> MutexGuard<'_, Items> {
        self.items.lock().expect("BUG: the toy panicked")
    }

    fn store(&self, bytes: &[u8]) {
        let (key, version, value) = unpack(bytes);
        let mut items = self.items();
        let known = items.get(&key);
        if self.bug == Bug::IgnoresVersions || known < Some(&(version, value.clone())) {
            items.insert(key, (version, value));
        }
    }

    /// The first node gives the versions and copies to all.
    fn put(&self, bytes: &[u8]) -> Result<(), Exception> {
        if self.nodes[0] != self.me {
            let answer = self.environment.network.call(
                &self.nodes[0],
                &request("put", bytes.to_vec()),
                LIMIT,
            );
            return answer.map(|_| ()).map_err(|why| failed(&why));
        }
        let (key, _, value) = unpack(bytes);
        if self.bug == Bug::PanicsOnDelete && value.is_empty() {
            panic!("the toy can't delete");
        }
        let version = {
            let mut items = self.items();
            let version = items.get(&key).map_or(1, |(version, _)| version + 1);
            items.insert(key.clone(), (version, value.clone()));
            version
        };
        if self.bug == Bug::Forgets && self.environment.random.below(50) == 0 {
            self.items().remove(&key);
            return Ok(());
        }
        if self.bug == Bug::AcknowledgesFirst {
            return Ok(()); // the mover copies
        }
        self.copy(&pack(&key, version, &value))
    }

    fn copy(&self, bytes: &[u8]) -> Result<(), Exception> {
        let others = self.nodes.iter().filter(|node| **node != self.me);
        let calls = others.map(|node| (node.clone(), request("store", bytes.to_vec())));
        let calls: Vec<_> = calls.collect();
        for answer in self.environment.network.call_all(&calls, LIMIT) {
            answer.map_err(|why| failed(&why))?;
        }
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Vec<u8> {
        let items = self.items();
        items
            .get(key)
            .map(|(_, value)| value.clone())
            .unwrap_or_default()
    }
}

fn failed(why: &CallError) -> Exception {
    Exception::internal(why.to_string())
}

impl Service for ToyService {
    fn call(&self, call: &Call<'_>, result: &mut Vec<u8>) -> Result<(), Exception> {
        match call.method {
            b"store" => self.0.store(call.arguments),
            b"put" => self.0.put(call.arguments)?,
            _ => result.extend(self.0.get(call.arguments)),
        }
        Ok(())
    }

    fn order(&self, _method: &[u8]) -> Order {
        Order::Free
    }
}

/// The node as the world holds it: the service needs the `Arc`.
struct ToyHandle(Arc<ToyNode>);

impl SimNode for ToyHandle {
    fn service(&self) -> Arc<dyn Service> {
        Arc::new(ToyService(self.0.clone()))
    }

    fn start(&self, _way: &Way) -> bool {
        true
    }

    fn tick(&self) {}

    fn work(&self) {
        if self.0.nodes[0] != self.0.me {
            return;
        }
        let all = self.0.items().clone();
        for (key, (version, value)) in all {
            // Tried again in the next round.
            let _ = self.0.copy(&pack(&key, version, &value));
        }
    }

    fn leave(&self) -> bool {
        true
    }

    fn members(&self) -> Vec<(Location, bool)> {
        let nodes = self.0.nodes.iter();
        nodes.map(|node| (node.clone(), false)).collect()
    }

    fn items(&self) -> Vec<Item> {
        let items = self.0.items();
        let all = items.iter().map(|(key, (version, value))| Item {
            key: key.clone(),
            version: *version,
            value: value.clone(),
        });
        all.collect()
    }
}

impl Subject for Toy {
    fn node(&self, location: &Location, environment: Environment, _: usize) -> Arc<dyn SimNode> {
        Arc::new(ToyHandle(Arc::new(ToyNode {
            bug: self.bug,
            me: location.clone(),
            nodes: self.nodes.clone(),
            environment,
            items: Mutex::default(),
        })))
    }

    fn put(
        &self,
        net: &dyn Network,
        to: &Location,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), String> {
        let answer = net.call(to, &request("put", pack(key, 0, value)), LIMIT);
        answer.map(|_| ()).map_err(|why| why.to_string())
    }

    fn get(&self, net: &dyn Network, to: &Location, key: &[u8]) -> Result<Vec<u8>, String> {
        let answer = net.call(to, &request("get", key.to_vec()), LIMIT);
        answer.map_err(|why| why.to_string())
    }

    fn placement(&self, nodes: &[Location]) -> Placement {
        let nodes = nodes.to_vec();
        Box::new(move |_| nodes.clone())
    }
}

fn plan() -> Plan {
    Plan {
        nodes: 3,
        ..Plan::new(Class::Late, 3)
    }
}

fn toy(bug: Bug) -> Arc<dyn Subject> {
    let nodes = (0..3).map(location).collect();
    Arc::new(Toy { bug, nodes })
}

fn play_toy(bug: Bug, seed: u64) -> Verdict {
    let plan = plan();
    run_world(seed, &toy(bug), plan.options(), move |world| {
        play(world, &plan)
    })
}

/// The first failure within some seeds.
fn failure_of(bug: Bug) -> String {
    let failures = (1..=50).filter_map(|seed| play_toy(bug, seed).failure);
    failures.into_iter().next().expect("a bug is found")
}

#[test]
fn must_let_a_correct_toy_pass() {
    let figures = run_many("sim_harness must_let", 100, |seed| {
        play_toy(Bug::None, seed)
    });
    assert_eq!(figures.puts, figures.puts_acknowledged);
    assert_eq!(figures.gets, figures.gets_answered);
    assert!(figures.slow_spells > 0);
}

#[test]
fn must_find_an_early_acknowledgement() {
    let failure = failure_of(Bug::AcknowledgesFirst);
    assert!(
        failure.contains("older") || failure.contains("missing"),
        "{failure}"
    );
}

#[test]
fn must_find_a_copy_that_goes_back() {
    let failure = failure_of(Bug::IgnoresVersions);
    assert!(failure.contains("is older than"), "{failure}");
}

#[test]
fn must_find_a_lost_put() {
    // By what the key reads as then: nothing, or a value from before it was put.
    let failure = failure_of(Bug::Forgets);
    let found = ["missing after", "is older than", "lacks the newest"];
    assert!(
        found.iter().any(|words| failure.contains(words)),
        "{failure}"
    );
}

#[test]
fn must_report_a_panic() {
    let failure = failure_of(Bug::PanicsOnDelete);
    assert_eq!(failure, "panic in put: the toy can't delete");
}

#[test]
fn must_replay_from_the_seed() {
    let once = play_toy(Bug::None, 7);
    let again = play_toy(Bug::None, 7);
    assert_eq!(once, again);
    let other = play_toy(Bug::None, 8);
    assert_ne!(once.trace_hash, other.trace_hash);
}

/// Runs a play without chaos on the toy.
fn in_world(play: impl Fn(&Arc<World>) + Clone + Send + 'static) {
    in_world_of(Options::default(), play);
}

fn in_world_of(options: Options, play: impl Fn(&Arc<World>) + Clone + Send + 'static) {
    for seed in 1..=20 {
        let play = play.clone();
        let verdict = run_world(seed, &toy(Bug::None), options.clone(), move |world| {
            for number in 0..3 {
                world.boot(&location(number), None);
            }
            world.scheduler.sleep(Duration::from_secs(1));
            play(world);
            Ok(Figures::default())
        });
        assert_eq!(verdict.failure, None, "seed {seed}");
    }
}

fn ask(world: &Arc<World>, number: usize) -> Result<Vec<u8>, CallError> {
    let limit = Duration::from_secs(2);
    let request = request("get", b"a".to_vec());
    world.client().call(&location(number), &request, limit)
}

#[test]
fn must_refuse_calls_to_a_node_that_is_not_there() {
    in_world(|world| {
        assert_eq!(ask(world, 9), Err(CallError::Refused));
        world.crash(&location(1));
        assert_eq!(ask(world, 1), Err(CallError::Refused));
        world.boot(&location(1), None);
        assert_eq!(ask(world, 1), Ok(vec![]));
    });
}

#[test]
fn must_carry_out_later_what_a_stopped_node_got() {
    in_world(|world| {
        world.stop(&location(0));
        let before = world.scheduler.now();
        let put = request("put", pack(b"a", 0, b"later"));
        let net = world.client();
        let answer = net.call(&location(0), &put, Duration::from_secs(2));
        assert_eq!(answer, Err(CallError::Silent));
        let waited = world.scheduler.now() - before;
        assert_eq!(waited, Duration::from_secs(2));
        assert_eq!(ask(world, 1), Ok(vec![]));
        world.resume(&location(0));
        world.scheduler.sleep(Duration::from_secs(1));
        assert_eq!(ask(world, 1), Ok(b"later".to_vec()));
    });
}

#[test]
fn must_break_calls_to_a_node_that_dies() {
    in_world(|world| {
        world.stop(&location(1)); // so that the put waits for it
        let killer = world.clone();
        world.spawn("killer", move || {
            killer.scheduler.sleep(Duration::from_secs(1));
            killer.crash(&location(1));
        });
        let before = world.scheduler.now();
        let put = world.subject.put(&world.client(), &location(0), b"a", b"1");
        let why = put.expect_err("a holder has died");
        assert!(why.contains("reset"), "{why}");
        let waited = world.scheduler.now() - before;
        assert!(waited < Duration::from_secs(2), "{waited:?}");
    });
}

#[test]
fn must_cut_links_and_heal_them() {
    in_world(|world| {
        world.wires().cut(&location(0), &location(2));
        let net = world.client();
        let put = world.subject.put(&net, &location(0), b"a", b"1");
        assert!(put.is_err_and(|why| why.contains("no answer")));
        assert_eq!(ask(world, 1), Ok(b"1".to_vec()));
        assert_eq!(ask(world, 2), Ok(vec![]));
        world.heal();
        world.scheduler.sleep(Duration::from_secs(5));
        assert_eq!(ask(world, 2), Ok(b"1".to_vec())); // the mover
    });
}

#[test]
fn must_keep_the_order_of_one_connection() {
    in_world(|world| {
        let calls = (1..=20_i64).map(|version| {
            let bytes = pack(b"a", version, version.to_string().as_bytes());
            (location(2), request("store", bytes))
        });
        let calls: Vec<_> = calls.collect();
        let answers = world.client().call_all(&calls, LIMIT);
        assert!(answers.iter().all(Result::is_ok));
        assert_eq!(ask(world, 2), Ok(b"20".to_vec()));
    });
}

/// One node's way to others.
fn net_of(world: &Arc<World>, number: usize) -> SimNetwork {
    let at = location(number);
    let (group, _) = world.process(&at).expect("it runs");
    let origin = Origin {
        clock: world.clock(&at),
        location: Some(at),
        group,
    };
    SimNetwork::new(world.clone(), origin)
}

fn ask_from(world: &Arc<World>, from: usize, to: usize) -> Result<Vec<u8>, CallError> {
    let limit = Duration::from_secs(2);
    let request = request("get", b"a".to_vec());
    net_of(world, from).call(&location(to), &request, limit)
}

#[test]
fn must_lose_questions_alone_on_a_deaf_link() {
    in_world(|world| {
        world.wires().deafen(&location(0), &location(2));
        assert_eq!(ask_from(world, 0, 2), Err(CallError::Silent));
        assert_eq!(ask_from(world, 2, 0), Ok(vec![]));
        world.wires().join(&location(0), &location(2));
        assert_eq!(ask_from(world, 0, 2), Ok(vec![]));
    });
}

#[test]
fn must_catch_the_messages_that_a_trap_is_for() {
    in_world(|world| {
        let (here, there) = (location(0), location(2));
        world.wires().trap((&here, &there), 1, 1, Fate::Lost);
        let late = Fate::Late(Duration::from_secs(1));
        world.wires().trap((&there, &here), 0, 1, late);
        let before = world.scheduler.now();
        assert_eq!(ask_from(world, 0, 2), Ok(vec![]));
        assert!(world.scheduler.now() - before > Duration::from_secs(1));
        assert_eq!(ask_from(world, 0, 2), Err(CallError::Silent));
        assert_eq!(ask_from(world, 0, 2), Ok(vec![]));
    });
}

/// How long a put of so many bytes at the first node takes, which sends two copies.
fn put_bytes(world: &Arc<World>, bytes: usize) -> Option<Duration> {
    let before = world.scheduler.now();
    let net = world.client();
    let value = vec![b'x'; bytes];
    let put = world.subject.put(&net, &location(0), b"a", &value);
    put.ok().map(|()| world.scheduler.now() - before)
}

/// The toy's mover would copy all the time.
fn resting_movers() -> Options {
    Options {
        mover_rests: (60_000_000, 60_000_001),
        ..Options::default()
    }
}

#[test]
fn must_take_time_for_bytes() {
    in_world_of(resting_movers(), |world| {
        world.wires().narrow(&location(0), 1_000_000);
        let took = put_bytes(world, 2_000_000).expect("within ten seconds");
        assert!(took > Duration::from_secs(4), "{took:?}");
        assert!(took < Duration::from_millis(4_900), "{took:?}");
        assert_eq!(put_bytes(world, 6_000_000), None);
        // The second copy is still on its way; small ones slip between.
        let took = put_bytes(world, 100).expect("it is small");
        assert!(took < Duration::from_secs(1), "{took:?}");
    });
}

#[test]
fn must_put_limits_off_for_bytes_that_move() {
    let options = Options {
        bytes_buy: Some(500_000),
        ..resting_movers()
    };
    in_world_of(options, |world| {
        put_bytes(world, 6_000_000).expect("the link is wide");
        world.wires().narrow(&location(0), 1_000_000);
        let read = ask_from(world, 1, 0).map(|value| value.len());
        assert_eq!(read, Ok(6_000_000)); // six seconds, of which four are bought
        world.wires().narrow(&location(0), 300_000);
        assert_eq!(ask_from(world, 1, 0), Err(CallError::Silent));
        world.stop(&location(0));
        let before = world.scheduler.now();
        assert_eq!(ask_from(world, 1, 0), Err(CallError::Silent));
        let waited = world.scheduler.now() - before;
        assert!(waited < Duration::from_millis(2_100), "{waited:?}");
    });
}

#[test]
fn must_have_clocks_that_jump_stand_still_and_sleep() {
    in_world(|world| {
        let second = Duration::from_secs(1);
        let (clock, other) = (world.clock(&location(0)), world.clock(&location(1)));
        for ahead in [400 * DAY, -400 * DAY, 0] {
            clock.set_ahead(ahead);
            other.set_ahead(0);
            assert_eq!(clock.wall() - other.wall(), ahead);
        }
        clock.stand_still();
        let (wall, now) = (clock.wall(), clock.now());
        world.scheduler.sleep(second);
        assert_eq!((clock.wall(), clock.now()), (wall, now + second));
        clock.set_ahead(0);
        world.suspend(&location(0));
        let (wall, now) = (clock.wall(), clock.now());
        world.scheduler.sleep(second);
        world.resume(&location(0));
        assert_eq!((clock.wall(), clock.now()), (wall + 1_000_000, now));
        world.scheduler.sleep(second);
        assert_eq!(clock.now(), now + second);
    });
}

/// An activity on a suspended machine waits by that machine's clock.
#[test]
fn must_wait_by_the_clock_of_a_machine() {
    in_world(|world| {
        world.stop(&location(1));
        let (waiter, waited) = (world.clone(), Arc::new(Mutex::new(None)));
        let noted = waited.clone();
        let group = world.process(&location(0)).expect("it runs").0;
        let now = world.scheduler.now();
        world.scheduler.spawn(group, "waits", now, move || {
            let silent = ask_from(&waiter, 0, 1);
            assert_eq!(silent, Err(CallError::Silent));
            *noted.lock().expect("nobody panics") = Some(waiter.scheduler.now() - now);
        });
        let second = Duration::from_secs(1);
        world.scheduler.sleep(second);
        world.suspend(&location(0));
        world.scheduler.sleep(10 * second);
        world.resume(&location(0));
        world.scheduler.sleep(3 * second);
        let waited = *waited.lock().expect("nobody panics");
        assert_eq!(waited, Some(12 * second));
    });
}

#[test]
fn must_order_numbers_alike_everywhere() {
    let (a, b) = (Random::new(3), Random::new(3));
    assert!((0..100).all(|_| a.below(1000) == b.below(1000)));
}

/// Old, then new and not acknowledged, then what comes.
fn read_after_new(shown_counts: bool, last: &[u8]) -> Result<(), String> {
    let mut history = History::default();
    history.shown_counts = shown_counts;
    let old = history.begin_put(b"k", b"old");
    history.end(old, 0, Outcome::Acknowledged(None));
    history.begin_put(b"k", b"new");
    for value in [b"new", last] {
        let read = history.begin_get(b"k");
        history.end(read, 0, Outcome::Read(value.to_vec()));
    }
    history.check_reads(Promise::Always)
}

#[test]
fn must_find_what_was_shown_and_taken_back() {
    assert_eq!(read_after_new(true, b"new"), Ok(()));
    assert_eq!(read_after_new(false, b"old"), Ok(()));
    let taken_back = read_after_new(true, b"old").expect_err("it is older");
    assert!(taken_back.contains("is older than"), "{taken_back}");
    let missing = read_after_new(true, b"").expect_err("it is missing");
    assert!(missing.contains("missing after"), "{missing}");
}

/// The tombstone of an earlier deletion still lies somewhere when a later one is acknowledged.
#[test]
fn must_know_the_greatest_version_of_a_key_that_was_deleted() {
    let mut history = History::default();
    let put = history.begin_put(b"k", b"value");
    history.end(put, 0, Outcome::Acknowledged(Some(5)));
    assert_eq!(history.deleted(b"k"), None);
    for seen in [3, 7, 6] {
        let deletion = history.begin_put(b"k", b"");
        assert_eq!(history.deleted(b"k"), Some(i64::MAX));
        history.note_tombstone(b"k", seen);
        history.end(deletion, 0, Outcome::Acknowledged(Some(3)));
        assert_eq!(history.deleted(b"k"), Some(if seen == 3 { 3 } else { 7 }));
    }
}

/// A method that is gone would never be late again, and no test would notice.
#[test]
fn must_know_every_call_between_our_nodes() {
    let idl = include_str!("../idl/peer.thrift");
    let lines = idl.lines().filter_map(|line| line.strip_prefix("  "));
    let methods = lines.filter_map(|line| line.split_once('(')?.0.split_once(' '));
    let methods = methods.filter(|(_, name)| name.chars().all(|c| c.is_lowercase() || c == '_'));
    let methods: BTreeSet<_> = methods.map(|(_, name)| name).collect();
    // Those that people and clients ask for.
    let asked = ["status", "accept_loss", "delete_key", "list_keys"];
    assert_eq!(methods, PEER_METHODS.into_iter().chain(asked).collect());
}
