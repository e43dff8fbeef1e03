//! A service of one's own that keeps something: counters, with copies, that move when nodes come and go.
//!
//! `increment(1: string key) -> i64` counts once and says how often that was; `value(1: string key) -> i64` says how
//! often it was counted. Both may be asked of any node.
//!
//! A counter is the sum of *shares*. Each process counts in a share of its own, so a share only grows: of two accounts
//! of it the greater one is right. So it does no harm if an account comes late or twice, and what two sides of a cut
//! have counted adds up.
//!
//! What becomes of the counters, with R (`--replicas`) copies of each:
//!
//! | what happens | what is lost |
//! |---|---|
//! | a node joins, or leaves while others stay | nothing |
//! | up to R - 1 nodes are killed at once, and no other until `--status` ends with 0 | no increment that was answered |
//! | R or more are killed at once | the counters of which they had all copies; `--status` says so |
//! | the network is cut in two sides, for less than an hour | nothing: the sides add up once they are together |
//! | an increment got an exception, or no answer | it may be counted, now or later, or not at all; it may have been seen before it is lost |
//!
//! What it doesn't do: a node that stood still may answer with an old value, until it has noticed that; the store has
//! leases against that. No counter can be removed. A counter has a share for each process that has counted in it, and
//! more if the process gave the counter away meanwhile. `--memory` says nothing here. And each comparison looks at all
//! counters, and sends all that two nodes share in one message: that is for thousands of counters, not for millions.
//!
//! `counter [OPTIONS] [[PEER] PORT]` is a node, as `storeserver` is. `counter increment KEY` and `counter value KEY`
//! ask one.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use thrifty_p2p::cli::{self, ClientOptions, NodeOptions, Usage, run_node};
use thrifty_p2p::digest::digest;
use thrifty_p2p::location::Location;
use thrifty_p2p::locator::{
    Application, Held, Locator, Participant, REQUEST_TICKS, Route, read_answer, read_arguments,
    read_key, request, request_of, write_answer, write_key,
};
use thrifty_p2p::membership::{Caller, Member, State, View};
use thrifty_p2p::net::{Connection, Request, secret};
use thrifty_p2p::ring;
use thrifty_p2p::service::{Call, Order, Service};
use thrifty_p2p::thrift::{Encode, Exception};
use thrifty_p2p::thrift_struct;

pub const SERVICE_TYPES: &[&str] = &["locator.Base", "locator.Locator", "example.Counter"];

/// Counters that are offered to others at a time.
const OFFERED_MAX: usize = 1000;

/// How often a process has counted.
#[derive(Clone, PartialEq)]
struct Share {
    who: u64,
    count: i64,
}
thrift_struct!(Share { 1 who, 2 count });

/// A counter, as nodes tell it to each other.
#[derive(Clone, PartialEq)]
struct Tally {
    key: Vec<u8>,
    shares: Vec<Share>,
}
thrift_struct!(Tally { 1 key, 2 shares });

impl Tally {
    fn value(&self) -> i64 {
        let counts = self.shares.iter().map(|share| share.count);
        counts.fold(0, i64::saturating_add)
    }
}

/// `hold`: a counter for a replica. The answer is a bool: the replica has it, and means the same list.
struct Offer {
    list: u64,
    tally: Tally,
}
thrift_struct!(Offer { 1 list, 2 tally });

/// `exchange`: what the caller has of all that both should hold. The answer is a list: what the other one had.
struct Exchange {
    caller: Caller,
    shared: u64,
    tallies: Vec<Tally>,
}
thrift_struct!(Exchange { 1 caller, 2 shared, 3 tallies });

/// What the lock guards.
struct Counters {
    /// This process counts in shares with this number. It is another one once such a share was forgotten: a share that
    /// began anew would look smaller than what others have of it.
    me: u64,
    /// By key, and by the node that has counted.
    all: BTreeMap<Vec<u8>, BTreeMap<u64, i64>>,
}

impl Counters {
    fn get(&self, key: &[u8]) -> Tally {
        let shares = self.all.get(key).into_iter().flatten();
        let shares = shares.map(|(&who, &count)| Share { who, count });
        Tally {
            key: key.to_vec(),
            shares: shares.collect(),
        }
    }

    fn count(&mut self, key: &[u8]) -> Tally {
        let shares = self.all.entry(key.to_vec()).or_default();
        let own = shares.entry(self.me).or_default();
        *own = own.saturating_add(1);
        self.get(key)
    }

    fn merge(&mut self, tally: &Tally) {
        let shares = self.all.entry(tally.key.clone()).or_default();
        for share in &tally.shares {
            let held = shares.entry(share.who).or_default();
            *held = share.count.max(*held);
        }
    }

    /// Unless there is more of it now.
    fn forget(&mut self, tally: &Tally) {
        if self.get(&tally.key) == *tally {
            self.all.remove(&tally.key);
            if tally.shares.iter().any(|share| share.who == self.me) {
                self.me = secret();
            }
        }
    }
}

/// A node.
pub struct Counter {
    locator: Locator,
    counters: Mutex<Counters>,
    /// Counters that others have confirmed.
    confirmed: AtomicUsize,
}

impl Counter {
    pub fn new(locator: Locator) -> Self {
        let counters = Counters {
            me: secret(),
            all: BTreeMap::new(),
        };
        Counter {
            locator,
            counters: Mutex::new(counters),
            confirmed: AtomicUsize::new(0),
        }
    }

    /// Is taken after the lock of the locator, and never held while that one is taken, or another node is called.
    fn counters(&self) -> MutexGuard<'_, Counters> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often it was counted, as far as this node knows. `None`: it has no such counter.
    pub fn known(&self, key: &[u8]) -> Option<i64> {
        let counters = self.counters();
        let there = counters.all.contains_key(key);
        there.then(|| counters.get(key).value())
    }

    /// All that lies here.
    fn tallies(&self) -> Vec<Tally> {
        let counters = self.counters();
        counters.all.keys().map(|key| counters.get(key)).collect()
    }

    /// Those of them of which this node is no replica.
    fn strays(&self) -> Vec<Tally> {
        let tallies = self.tallies();
        let routes = self
            .locator
            .routes(tallies.iter().map(|tally| &tally.key[..]));
        let strays = tallies.into_iter().zip(routes);
        let strays = strays.filter(|(_, route)| !route.has_me());
        strays.map(|(tally, _)| tally).collect()
    }

    /// Those of which both this node and that one are replicas.
    fn shared_with(&self, view: &View, other: &Location) -> Vec<Tally> {
        let mut tallies = self.tallies();
        let both = [self.locator.location(), other].map(|location| view.place(location));
        tallies.retain(|tally| {
            let list = view.list(ring::hash(&tally.key), self.locator.replicas());
            list.filter(|place| both.contains(&Some(*place))).count() == 2
        });
        tallies
    }

    /// Offers counters to the other replicas of their keys. For each: the replicas, and whether all of them have it.
    fn offer(&self, tallies: &[Tally]) -> Vec<(Route, bool)> {
        let routes = self
            .locator
            .routes(tallies.iter().map(|tally| &tally.key[..]));
        let (mut calls, mut places) = (Vec::new(), Vec::new());
        for (place, (tally, route)) in tallies.iter().zip(&routes).enumerate() {
            let offer = Offer {
                list: route.digest,
                tally: tally.clone(),
            };
            let request = request_of("hold", &offer);
            for other in route.others() {
                calls.push((other.clone(), request.clone()));
                places.push(place);
            }
        }
        let answers = self.locator.call_members(&calls, self.locator.ticks(2));
        let has_any = |route: &Route| route.list().next().is_some();
        let mut held: Vec<bool> = routes.iter().map(has_any).collect();
        for (place, answer) in places.into_iter().zip(answers) {
            let answer = answer.and_then(|result| read_answer::<bool>(&result, "hold"));
            let has_it = answer == Ok(true);
            held[place] &= has_it;
            self.confirmed
                .fetch_add(usize::from(has_it), Ordering::Relaxed);
        }
        routes.into_iter().zip(held).collect()
    }

    /// Tries again and again, for as long as a request may take.
    fn patiently<T>(&self, attempt: impl Fn() -> Option<T>) -> Result<T, Exception> {
        let deadline = self.locator.now() + self.locator.ticks(REQUEST_TICKS);
        loop {
            if let Some(outcome) = attempt() {
                return Ok(outcome);
            }
            if self.locator.now() > deadline {
                let cause = "not all nodes that should know of it have answered";
                return Err(Exception::internal(cause));
            }
            self.locator
                .environment()
                .clock
                .pause(self.locator.ticks(1) / 10);
        }
    }

    /// Has the primary of a key count once. That is said to it once, as it would count twice.
    fn increment(&self, key: &[u8]) -> Result<i64, Exception> {
        let primary = self.patiently(|| self.locator.route(key).primary().cloned())?;
        self.at(&primary, "increment_here", key)
    }

    /// Asks the primary, and the next one, if that is none any more.
    fn value(&self, key: &[u8]) -> Result<i64, Exception> {
        self.patiently(|| {
            let primary = self.locator.route(key).primary().cloned()?;
            self.at(&primary, "value_here", key).ok()
        })
    }

    fn at(&self, node: &Member, method: &'static str, key: &[u8]) -> Result<i64, Exception> {
        if node.location == *self.locator.location() {
            return self.here(method.as_bytes(), key);
        }
        let request = once(method, key);
        let limit = self.locator.ticks(REQUEST_TICKS);
        let answer = self.locator.call_member(&node.location, &request, limit);
        let answer = answer.and_then(|result| read_answer(&result, method));
        answer.map_err(|error| Exception::internal(error.to_string()))
    }

    /// A request that another node has sent on is carried out here, or refused. So it can't go in circles.
    fn here(&self, method: &[u8], key: &[u8]) -> Result<i64, Exception> {
        match method {
            b"increment_here" => self.increment_here(key),
            _ => self.value_here(key),
        }
    }

    /// Counts, and comes back once all replicas know.
    fn increment_here(&self, key: &[u8]) -> Result<i64, Exception> {
        let tally = self.counters().count(key);
        self.patiently(|| {
            let offered = self.offer(std::slice::from_ref(&tally));
            offered.iter().all(|(_, held)| *held).then_some(())
        })?;
        Ok(tally.value())
    }

    /// Only the primary is known to have all, and only while it is the primary.
    fn value_here(&self, key: &[u8]) -> Result<i64, Exception> {
        let route = self.locator.route(key);
        let value = self.locator.with(|membership, _| {
            let is_primary = route.is_primary() && membership.is_replica(route.hash, route.digest);
            is_primary.then(|| self.known(key).unwrap_or(0))
        });
        value.ok_or_else(|| Exception::internal("not the primary"))
    }

    /// `hold`: takes a counter under the list that its sender has.
    fn on_hold(&self, offer: &Offer) -> bool {
        self.locator.with(|membership, _| {
            let same = membership.is_replica(ring::hash(&offer.tally.key), offer.list);
            if same {
                self.counters().merge(&offer.tally);
            }
            same
        })
    }

    /// `exchange`: takes what the caller has, and says what this node had, if both share the same.
    fn on_exchange(&self, theirs: &Exchange) -> Result<Vec<Tally>, Exception> {
        let own = self.locator.with(|membership, _| {
            let shared = membership.shared_with(&theirs.caller)?;
            if shared.digest != theirs.shared {
                return None;
            }
            let own = self.shared_with(membership.view(), &theirs.caller.me.location);
            let mut counters = self.counters();
            theirs
                .tallies
                .iter()
                .for_each(|tally| counters.merge(tally));
            Some(own)
        });
        own.ok_or_else(|| Exception::internal("the lists differ"))
    }
}

impl Service for Counter {
    fn call(&self, call: &Call<'_>, result: &mut Vec<u8>) -> Result<(), Exception> {
        let arguments = call.arguments;
        match call.method {
            b"increment" => write_answer(&self.increment(read_key(arguments)?)?, result),
            b"value" => write_answer(&self.value(read_key(arguments)?)?, result),
            b"increment_here" | b"value_here" => {
                write_answer(&self.here(call.method, read_key(arguments)?)?, result);
            }
            b"hold" => write_answer(&self.on_hold(&read_arguments(arguments)?), result),
            b"exchange" => write_answer(&self.on_exchange(&read_arguments(arguments)?)?, result),
            _ => return self.locator.call(call, result, self),
        }
        Ok(())
    }

    fn order(&self, method: &[u8]) -> Order {
        match method {
            b"increment_here" | b"value_here" | b"hold" | b"exchange" => Order::Free,
            _ => self.locator.order(method),
        }
    }
}

impl Application for Counter {
    /// All counters are one range.
    fn digests(&self, view: &View, others: &[Location]) -> Vec<Vec<u64>> {
        let digest_of = |tally: &Tally| {
            let mut bytes = Vec::new();
            tally.encode(&mut bytes);
            digest(&bytes)
        };
        let digests = others.iter().map(|other| {
            let shared = self.shared_with(view, other);
            vec![shared.iter().map(digest_of).fold(0, u64::wrapping_add)]
        });
        digests.collect()
    }

    fn exchange(&self, with: &Member, shared: u64, _: &[usize]) -> bool {
        let exchange = Exchange {
            caller: self.locator.caller(&self.locator.me(), &with.location),
            shared,
            tallies: self.shared_with(&self.locator.view(), &with.location),
        };
        let call = (with.clone(), request_of("exchange", &exchange));
        let answers = self.locator.call_members(&[call], self.locator.ticks(4));
        answers.into_iter().all(|answer| {
            let theirs = answer.and_then(|result| read_answer::<Vec<Tally>>(&result, "exchange"));
            let Ok(theirs) = theirs else { return false };
            let mut counters = self.counters();
            theirs.iter().for_each(|tally| counters.merge(tally));
            true
        })
    }

    fn give(&self) -> bool {
        if matches!(self.locator.me().state, State::Outside | State::Joining) {
            return false;
        }
        for strays in self.strays().chunks(OFFERED_MAX) {
            for (tally, (route, held)) in strays.iter().zip(self.offer(strays)) {
                self.locator.with(|membership, _| {
                    if held && membership.has_list(route.hash, route.digest) {
                        self.counters().forget(tally);
                    }
                });
            }
        }
        self.strays().is_empty()
    }

    fn drop_all(&self) {
        let mut counters = self.counters();
        counters.all.clear();
        counters.me = secret();
    }

    fn held(&self) -> Held {
        let items = self.counters().all.len();
        Held {
            items,
            elsewhere: self.strays().len(),
            confirmed: self.confirmed.load(Ordering::Relaxed),
            ..Held::default()
        }
    }
}

impl Participant for Counter {
    fn locator(&self) -> &Locator {
        &self.locator
    }
}

/// A request that the network doesn't repeat by itself when a connection has broken.
pub fn once(method: &'static str, key: &[u8]) -> Request {
    Request {
        connection: Connection::Once,
        ..request(method, write_key(key))
    }
}

const NODE: Usage = NodeOptions::usage(
    "runs a node that counts",
    ["counter --new", "counter -a 10.0.0.2 -h 10.0.0.1"],
);

const ASK: Usage = Usage {
    purpose: "counts once, or says how often it was counted: prints the number",
    arguments: ("KEY", 1..=1),
    flags: &[],
    notes: "",
    examples: [
        "counter increment apples",
        "counter value -h 10.0.0.1 apples",
    ],
    codes: ["done", ""],
};

/// The client.
fn ask(method: &'static str) -> ExitCode {
    let parse = |usage: &Usage, program: &str, arguments: &[String]| {
        ClientOptions::parse(usage, program, &arguments[1..])
    };
    cli::main(&format!("counter {method}"), &ASK, parse, |options| {
        let client = options.client_of("example.Counter")?;
        let count: i64 = client.ask(once(method, &options.arguments[0]))?;
        cli::print(count.to_string().as_bytes())?;
        Ok(ExitCode::SUCCESS)
    })
}

pub fn main() -> ExitCode {
    match std::env::args_os().nth(1) {
        Some(word) if word == "increment" => ask("increment"),
        Some(word) if word == "value" => ask("value"),
        _ => cli::main("counter", &NODE, NodeOptions::parse, |options| {
            run_node(options, SERVICE_TYPES, Counter::new)
        }),
    }
}
