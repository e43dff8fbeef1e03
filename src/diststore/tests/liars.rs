//! A node among others that lie: whatever it asks of them, the answer is made up, and they call it in each other's
//! names. No lie may make it panic, keep it busy for ever, or grow without a bound.
//!
//! All threads of the node are played by one: whoever waits, be it for an answer or for a while, lets the others go on.
//! `THRIFTY_SEED=17 cargo test --release --lib liars` replays a seed, with `THRIFTY_SEEDS=5000` more are tried.

mod lies;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};
use std::time::Duration;

use super::super::calls::{KeyValue, List};
use super::super::{SERVICE_TYPES, Store};
use crate::client::{self, Client, STORE};
use crate::location::Location;
use crate::locator::{
    Locator, Options, Participant, REQUEST_TICKS, read_answer, read_arguments, write_answer,
    write_key,
};
use crate::membership::{Member, State};
use crate::net::{Answer, CallError, Clock, Environment, Network, Random, Request};
use crate::report;
use crate::service::{Answers, Call, Service};
use crate::thrift::{Encode, Exception};

use lies::Heard;

const TICK: Duration = Duration::from_millis(500);

const SEEDS: u64 = 300;

/// Looks of the node at the others while they lie.
const ROUNDS: usize = 50;

/// So long a thing may take by the clock that is turned by hand: many others may come in between.
const LIMIT: Duration = Duration::from_secs(120);

/// A node that is alone serves within so many ticks, or ends.
const ALONE_TICKS: usize = 400;

/// A put and a get by a client wait no longer than this, if nothing comes in between.
const REQUEST_LIMIT: Duration = TICK.saturating_mul(REQUEST_TICKS);

/// What is to have happened in some seed, as the node believed a lie.
const BELIEVED: &[&str] = &[
    "came in",
    "became full",
    "had a put acknowledged",
    "had a get answered",
    "answered by a lease",
    "deleted",
    "took items",
    "let another in",
    "was called by a member",
    "came back",
    "came back and became full",
    "dropped all",
    "left",
    "met originals",
    "ended",
    "told a client",
    "was alone in the end",
];

/// The world of one node.
struct World {
    random: Random,
    /// One answer in so many is none, or is broken.
    wild: usize,
    /// The time, and how far the wall's clock is ahead.
    time: Mutex<(Duration, i64)>,
    /// When the ticker ticks next.
    ticks: Mutex<Duration>,
    /// From then on nobody lies: all calls are refused.
    ends: Mutex<Duration>,
    /// What the node is doing, and until when it may.
    doing: Mutex<Option<(&'static str, Duration)>>,
    node: OnceLock<Weak<Store>>,
    /// Which of its threads are at work.
    busy: [AtomicBool; 4],
    /// Calls of others that are being served.
    served: AtomicUsize,
    /// Calls that the node has made.
    calls: AtomicUsize,
    heard: Mutex<Heard>,
    /// Its threads begin once it has begun to look for a network.
    has_started: AtomicBool,
    has_ended: AtomicBool,
    tally: Mutex<BTreeMap<&'static str, usize>>,
}

impl World {
    fn new(seed: u64) -> Arc<Self> {
        let random = Random::new(seed);
        let wild = [400, 60, 10][random.below(3)];
        let heard = Heard::new(&random);
        Arc::new(World {
            random,
            wild,
            time: Mutex::new((Duration::from_secs(1), 1_700_000_000_000_000)),
            ticks: Mutex::default(),
            ends: Mutex::new(Duration::MAX),
            doing: Mutex::default(),
            node: OnceLock::new(),
            busy: Default::default(),
            served: AtomicUsize::new(0),
            calls: AtomicUsize::new(0),
            heard: Mutex::new(heard),
            has_started: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
            tally: Mutex::default(),
        })
    }

    fn below(&self, bound: usize) -> usize {
        self.random.below(bound)
    }

    /// Mostly not: once in so many times.
    fn once_in(&self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn pick<T: Clone>(&self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    fn note(&self, what: &'static str) {
        assert!(BELIEVED.contains(&what), "{what}");
        *self.tally.lock().unwrap().entry(what).or_default() += 1;
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap()
    }

    fn store(&self) -> Option<Arc<Store>> {
        self.node.get()?.upgrade()
    }

    fn turn(&self, by: Duration) {
        self.time.lock().unwrap().0 += by;
        let now = self.now();
        if let Some((what, until)) = *self.doing.lock().unwrap() {
            assert!(now <= until, "{what} goes on and on");
        }
    }

    fn lies(&self) -> bool {
        self.now() < *self.ends.lock().unwrap()
    }

    /// Does what may take so long, by the clock that is turned by hand.
    fn within<T>(&self, limit: Duration, what: &'static str, act: impl FnOnce() -> T) -> T {
        let until = self.now() + limit;
        let is_first = {
            let mut doing = self.doing.lock().unwrap();
            let is_first = doing.is_none();
            doing.get_or_insert((what, until));
            is_first
        };
        let done = act();
        if is_first {
            *self.doing.lock().unwrap() = None;
        }
        done
    }

    /// Time has passed: the node's own threads go on, but for those that wait.
    fn pass(&self) {
        let due = {
            let (mut next, now) = (self.ticks.lock().unwrap(), self.now());
            let due = now >= *next && self.has_started.load(Relaxed);
            if due {
                *next = now + TICK;
            }
            due
        };
        let Some(store) = self.store().filter(|_| due) else {
            return;
        };
        let first = self.below(4);
        for number in 0..4 {
            self.go_on(&store, (first + number) % 4);
        }
    }

    fn go_on(&self, store: &Store, thread: usize) {
        if self.busy[thread].swap(true, Relaxed) {
            return;
        }
        let locator = store.locator();
        let what = ["tick", "ask", "ask the silent", "work"][thread];
        let before = locator.with(|it, _| it.has_to_drop());
        self.within(LIMIT, what, || match thread {
            0 => locator.tick(),
            1 => locator.ask(false),
            2 => locator.ask(true),
            _ => store.work(),
        });
        if thread == 3 && before {
            self.note("dropped all");
        }
        self.busy[thread].store(false, Relaxed);
    }

    /// Others call the node, and so do clients.
    fn disturb(&self) {
        let Some(store) = self.store().filter(|_| self.lies()) else {
            return;
        };
        if self.served.fetch_add(1, Relaxed) < 2 && self.once_in(4) {
            match self.once_in(3) {
                true => self.ask_as_client(&store),
                false => self.call_as_liar(&store),
            }
        }
        self.served.fetch_sub(1, Relaxed);
    }

    fn call(&self, store: &Store, method: &str, arguments: &[u8]) -> Result<Vec<u8>, Exception> {
        let call = Call {
            method: method.as_bytes(),
            arguments,
            local: false,
            done: &|| (),
        };
        let mut result = Vec::new();
        store.call(&call, &mut result).map(|()| result)
    }

    fn ask_as_client(&self, store: &Store) {
        let (key, value) = (self.key(), self.value());
        let alone = store.locator().view().members().len() < 2;
        let made = self.calls.load(Relaxed);
        let (method, arguments) = match self.below(9) {
            0..3 => ("get", write_key(&key)),
            3..6 => ("put", KeyValue::write(&key, Some(&value))),
            6 => ("delete_key", write_key(&key)),
            7 => {
                let list = List {
                    range: self.below(1025) as u32,
                    after: Some(&key[..]).filter(|_| self.once_in(2)),
                    prefix: b"",
                    most: self.below(3) as u32,
                };
                let mut out = Vec::new();
                list.encode(&mut out);
                ("list_keys", out)
            }
            _ => return self.ask_for_many(store),
        };
        let limit = LIMIT + REQUEST_LIMIT;
        let answer = self.within(limit, method, || self.call(store, method, &arguments));
        let own = self.calls.load(Relaxed) == made;
        match (method, answer) {
            _ if alone => {}
            ("get", Ok(result)) => {
                let value: Result<Vec<u8>, _> = read_answer(&result, "get");
                assert!(value.is_ok());
                self.note("had a get answered");
                if own && store.locator().view().members().len() > 1 {
                    self.note("answered by a lease");
                }
            }
            ("put", Ok(_)) => self.note("had a put acknowledged"),
            ("delete_key", Ok(_)) => self.note("deleted"),
            _ => {}
        }
    }

    /// What asks the liars here is no node, but a client.
    fn list_all_keys(&self, store: &Store) {
        let Environment { network, clock, .. } = store.locator().environment();
        let all = || -> Result<bool, client::Error> {
            let peers = [self.name(), self.name()];
            let client = Client::connect_over(STORE, network.clone(), clock.clone(), &peers)?;
            client.keys(b"lie", &mut |_, _| Ok(()))
        };
        let listed = self.within(20 * LIMIT, "listing all keys", all).is_ok();
        let report = report::ask_all(&**network, &self.name(), TICK);
        let told = report.map(|report| (report.to_lines(), report.to_json()));
        if listed || told.is_ok() {
            self.note("told a client");
        }
    }

    /// Requests that come together: each is answered, in their order.
    fn ask_for_many(&self, store: &Store) {
        struct All(usize);
        impl Answers for All {
            fn add(&mut self, write: &mut dyn FnMut(&mut Vec<u8>) -> Result<(), Exception>) {
                let _ = write(&mut Vec::new());
                self.0 += 1;
            }
        }
        let requests = (0..1 + self.below(6)).map(|_| {
            let (key, value) = (self.key(), self.value());
            match self.once_in(2) {
                true => ("get", write_key(&key)),
                false => ("put", KeyValue::write(&key, Some(&value))),
            }
        });
        let requests: Vec<_> = requests.collect();
        let calls = requests.iter().map(|(method, arguments)| Call {
            method: method.as_bytes(),
            arguments,
            local: false,
            done: &|| (),
        });
        let calls: Vec<_> = calls.collect();
        let mut all = All(0);
        let limit = 2 * LIMIT;
        self.within(limit, "many requests", || store.serve(&calls, &mut all));
        assert_eq!(all.0, calls.len());
    }
}

impl Clock for World {
    fn now(&self) -> Duration {
        self.time.lock().unwrap().0
    }

    fn wall(&self) -> i64 {
        let (now, ahead) = *self.time.lock().unwrap();
        ahead + i64::try_from(now.as_micros()).unwrap()
    }

    fn pause(&self, time: Duration) {
        self.turn(time.max(Duration::from_millis(1)));
        self.pass();
        self.disturb();
    }
}

impl Network for World {
    fn call_all(&self, calls: &[(Location, Request)], limit: Duration) -> Vec<Answer> {
        self.calls.fetch_add(calls.len(), Relaxed);
        let answer = |(to, request): &(Location, Request)| match self.lies() {
            true => self.lie(to, request),
            false => Err(CallError::Refused),
        };
        let early = self.once_in(2);
        let mut answers: Vec<Answer> = match early {
            true => calls.iter().map(answer).collect(),
            false => Vec::new(),
        };
        let part = limit.as_millis() as usize / 8;
        let took = Duration::from_millis(1 + self.below(part.max(1)) as u64);
        self.turn(took);
        self.pass();
        self.disturb();
        if !early {
            answers.extend(calls.iter().map(answer));
        }
        if answers.contains(&Err(CallError::Silent)) {
            self.turn(limit.saturating_sub(took));
        }
        answers
    }

    fn forget(&self, _: &Location) {}
}

fn location(number: u16) -> Location {
    Location::new("127.0.0.1", 9900 + number).unwrap()
}

fn node(world: &Arc<World>) -> Arc<Store> {
    let options = Options {
        service_types: SERVICE_TYPES,
        replicas: 1 + world.below(3),
        tick: TICK,
        die_from_anywhere: false,
        on_die: {
            let world = world.clone();
            Box::new(move || world.has_ended.store(true, Relaxed))
        },
    };
    let environment = Environment {
        network: world.clone(),
        clock: world.clone(),
        random: Random::new(world.below(usize::MAX) as u64),
        secret: world.below(usize::MAX) as u64,
        log: Box::new(|_, _| ()),
    };
    let locator = Locator::new(location(0), options, environment);
    let memory = [usize::MAX, 1 << 20, 1 << 16][world.below(3)];
    let store = Arc::new(Store::new(locator, memory));
    assert!(world.node.set(Arc::downgrade(&store)).is_ok());
    store
}

/// One that begins, comes in, serves, and leaves or is alone in the end.
fn run(world: &Arc<World>) {
    let store = node(world);
    let locator = store.locator();
    let others: Vec<_> = (1..4).map(location).collect();
    // It asks all nodes that an original names, one after the other.
    let started = world.within(100 * LIMIT, "start", || match world.below(6) {
        0 => locator.start(&[], true),
        1 => locator.start(&others, true),
        2 => locator.join(&others),
        _ => locator.join(&others[..1]),
    });
    if started.is_err() {
        return;
    }
    world.has_started.store(true, Relaxed);
    let (mut came_in, mut returned) = (false, false);
    for _ in 0..ROUNDS {
        let ticks = match world.below(40) {
            0 => 3 + world.below(40),
            _ => 1,
        };
        if world.once_in(50) {
            let by = world.pick(&[-1_000_000_000, 5_000_000, 1_000_000_000_000]);
            world.time.lock().unwrap().1 += by;
        }
        world.turn(TICK * ticks as u32);
        world.pass();
        for _ in 0..world.below(4) {
            world.disturb();
        }
        if world.once_in(200) {
            world.list_all_keys(&store);
        }
        locator.must_be_bounded();
        if world.has_ended.load(Relaxed) {
            return world.note("ended");
        }
        look(world, &store, &mut came_in, &mut returned);
    }
    if world.once_in(3) {
        leave(world, &store);
    } else {
        *world.ends.lock().unwrap() = Duration::ZERO;
        must_serve_alone(world, &store);
    }
    locator.must_be_bounded();
}

/// Notes what the node has believed.
fn look(world: &World, store: &Store, came_in: &mut bool, returned: &mut bool) {
    let (me, view) = (store.locator().me(), store.locator().view());
    let others = view.members().len() > 1;
    match me.state {
        State::Joining if others && !*came_in => {
            world.note("came in");
            *came_in = true;
        }
        State::Full if others && *came_in => {
            world.note("became full");
            *came_in = false;
        }
        State::Full if others && *returned => {
            world.note("came back and became full");
            *returned = false;
        }
        State::Returning if !*returned => {
            world.note("came back");
            *returned = true;
        }
        _ => {}
    }
    if view.has_originals() {
        world.note("met originals");
    }
    let mut theirs = 0;
    store.each_item(|key, _, _| theirs += usize::from(key.starts_with(b"lie")));
    if theirs > 0 {
        world.note("took items");
    }
}

fn leave(world: &World, store: &Store) {
    let ends = world.now() + TICK * 100;
    *world.ends.lock().unwrap() = ends;
    let limit = TICK * 100 + LIMIT;
    let left = world.within(limit, "leave", || store.leave());
    // How many of its keys went with it, or were not taken.
    let (Ok(_) | Err(_)) = left;
    world.note("left");
}

/// Nobody answers any more: the node goes on alone, or says why it doesn't.
fn must_serve_alone(world: &World, store: &Store) {
    let mut why = String::new();
    for _ in 0..ALONE_TICKS {
        world.turn(TICK);
        world.pass();
        if world.has_ended.load(Relaxed) {
            assert!(store.locator().end_reason().is_some());
            return world.note("ended");
        }
        let limit = LIMIT + REQUEST_LIMIT;
        let put = KeyValue::write(b"alone", Some(b"value"));
        let put = world.within(limit, "put alone", || world.call(store, "put", &put));
        let get = write_key(b"alone");
        let get = world.within(limit, "get alone", || world.call(store, "get", &get));
        match (put, get) {
            (Ok(_), Ok(result)) => {
                let value: Vec<u8> = read_answer(&result, "get").unwrap();
                assert_eq!(value, b"value");
                return world.note("was alone in the end");
            }
            (Err(full), _) if full.kind == Exception::NO_ROOM => return,
            (put, get) => why = format!("{put:?} {get:?}"),
        }
    }
    let (me, view) = (store.locator().me(), store.locator().view());
    let members = view.members();
    panic!("it neither serves nor ends: {me:?} among {members:?}: {why}");
}

/// The seeds: that of `THRIFTY_SEED` if it is set, else so many from 0 on.
fn seeds(count: u64) -> Range<u64> {
    let number = |name| {
        let text = std::env::var(name).ok()?;
        let number = text.parse::<u64>();
        Some(number.unwrap_or_else(|error| panic!("{name}: {error}")))
    };
    match number("THRIFTY_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("THRIFTY_SEEDS").unwrap_or(count),
    }
}

/// Says which seed it was if the test ends in a panic.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let seed = self.0;
            eprintln!("replay: THRIFTY_SEED={seed} cargo test --release --lib liars");
        }
    }
}

#[test]
fn must_bear_answers_that_are_lies() {
    let seeds = seeds(SEEDS);
    let mut tally: BTreeMap<&str, usize> = BTreeMap::new();
    for seed in seeds.clone() {
        let _seed = Seed(seed);
        let world = World::new(seed);
        run(&world);
        for (what, count) in &*world.tally.lock().unwrap() {
            *tally.entry(what).or_default() += count;
        }
    }
    println!("{tally:?}");
    if seeds.end - seeds.start >= SEEDS {
        let never: Vec<_> = BELIEVED
            .iter()
            .filter(|what| !tally.contains_key(*what))
            .collect();
        assert!(never.is_empty(), "no lie has led to that: {never:?}");
    }
}
