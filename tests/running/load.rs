//! Clients that put and read all the while, from threads of the test.
//!
//! A refused connection sends a client to another node: the call has not been carried out. Every
//! other failure is noted with its time; what of them is allowed is for the test to say.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use thrifty_p2p::diststore::KeyValue;
use thrifty_p2p::location::Location;
use thrifty_p2p::locator::{read_answer, request, write_key};
use thrifty_p2p::net::{Answer, CallError, Network, Request, TcpNetwork};

use super::history::{History, Sums};
use super::{CALL_LIMIT, get, network, now};

/// Between two calls of a client: the machine has other things to do.
const PACE: Duration = Duration::from_millis(2);

const KEYS: usize = 60;

/// Up to so many requests are sent together.
const TOGETHER: u64 = 8;

/// A call that failed.
#[derive(Debug, Clone)]
pub struct Failed {
    pub began: Duration,
    pub ended: Duration,
    pub at: Location,
    pub cause: String,
}

pub struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

struct Shared {
    history: History,
    /// The nodes that clients talk to, and whether they put there, too.
    nodes: Mutex<BTreeMap<Location, bool>>,
    failed: Mutex<Vec<Failed>>,
    ending: AtomicBool,
    number: AtomicU64,
}

impl Load {
    /// So many clients of each kind begin, at these nodes.
    pub fn start<'a>(
        writers: usize,
        readers: usize,
        nodes: impl IntoIterator<Item = &'a Location>,
    ) -> Self {
        let shared = Arc::new(Shared {
            history: History::default(),
            nodes: Mutex::new(nodes.into_iter().map(|node| (node.clone(), true)).collect()),
            failed: Mutex::default(),
            ending: AtomicBool::new(false),
            number: AtomicU64::new(0),
        });
        let start = |work: fn(&Shared, &TcpNetwork)| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let network = network();
                while !shared.ending.load(Ordering::Relaxed) {
                    work(&shared, &network);
                    thread::sleep(PACE);
                }
            })
        };
        let writers = (0..writers).map(|_| start(Shared::put_some));
        let readers = (0..readers).map(|_| start(Shared::read_some));
        let clients = writers.chain(readers).collect();
        Load { shared, clients }
    }

    /// Clients talk to this node, too, from now on.
    pub fn add(&self, node: &Location) {
        self.shared.nodes.lock().unwrap().insert(node.clone(), true);
    }

    /// Clients only read at this node from now on: it is about to leave. What is on its way to a
    /// process that ends may or may not be carried out, so a put there may rightly fail.
    pub fn only_read(&self, node: &Location) {
        self.shared
            .nodes
            .lock()
            .unwrap()
            .insert(node.clone(), false);
    }

    /// Clients begin no further call at this node.
    pub fn remove(&self, node: &Location) {
        self.shared.nodes.lock().unwrap().remove(node);
    }

    /// The calls that have failed so far.
    pub fn failed(&self) -> Vec<Failed> {
        self.shared.failed.lock().unwrap().clone()
    }

    /// Ends the clients, reads every key at every node, and checks all that was read.
    ///
    /// # Panics
    /// If a read was wrong, or nothing happened.
    pub fn finish(self, nodes: &[&Location]) -> Sums {
        self.shared.ending.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().expect("a client");
        }
        let network = network();
        for key in 0..KEYS {
            let mut values = BTreeSet::new();
            for node in nodes {
                let began = now();
                let value = get(&network, node, name(key).as_bytes()).expect("the last read");
                self.shared.history.read(node, key, value.clone(), began);
                values.insert(value);
            }
            assert_eq!(values.len(), 1, "key {key} differs");
        }
        let sums = self.shared.history.check().unwrap_or_else(|wrong| {
            panic!("wrong reads:\n{wrong}");
        });
        assert!(sums.acknowledged > 0 && sums.reads > KEYS * nodes.len());
        sums
    }
}

impl Shared {
    fn put_some(&self, network: &TcpNetwork) {
        let number = self.number.fetch_add(TOGETHER, Ordering::Relaxed);
        let put = |number: u64| {
            let key = scatter(number) % KEYS;
            // Values of very different length.
            let padding = "x".repeat(scatter(number + 1) % 50 * (scatter(number + 2) % 50));
            (key, format!("{number} {padding}"))
        };
        let puts: Vec<_> = (number..number + how_many(number)).map(put).collect();
        let begin = |(key, value): &(usize, String)| self.history.begin_put(*key, value.as_bytes());
        let written: Vec<_> = puts.iter().map(begin).collect();
        let requests = puts.iter().map(|(key, value)| {
            let put = KeyValue::write(name(*key).as_bytes(), Some(value.as_bytes()));
            request("put", put)
        });
        let answers = self.call(network, number, true, &requests.collect::<Vec<_>>());
        for (written, (_, answer)) in written.into_iter().zip(answers) {
            if answer.is_ok() {
                self.history.acknowledged(written);
            }
        }
    }

    fn read_some(&self, network: &TcpNetwork) {
        let number = self.number.fetch_add(TOGETHER, Ordering::Relaxed);
        let keys: Vec<_> = (number..number + how_many(number))
            .map(|number| scatter(number) % KEYS)
            .collect();
        let began = now();
        let requests = keys.iter();
        let requests = requests.map(|key| request("get", write_key(name(*key).as_bytes())));
        let answers = self.call(network, number, false, &requests.collect::<Vec<_>>());
        for (key, (at, answer)) in keys.into_iter().zip(answers) {
            if let Ok(result) = answer {
                let value = read_answer(&result, "get").expect("a value");
                self.history.read(&at, key, value, began);
            }
        }
    }

    fn is_leaving(&self, node: &Location) -> bool {
        self.nodes.lock().unwrap().get(node) != Some(&true)
    }

    /// Sends these together, at one of the nodes, and at others as long as they refuse. The answers, and where they come
    /// from.
    fn call(
        &self,
        network: &TcpNetwork,
        number: u64,
        putting: bool,
        requests: &[Request],
    ) -> Vec<(Location, Answer)> {
        let mut number = number;
        loop {
            number += 1;
            let at = {
                let nodes = self.nodes.lock().unwrap();
                let usable = nodes.iter().filter(|(_, puts)| **puts || !putting);
                let usable: Vec<_> = usable.map(|(node, _)| node).collect();
                let chosen = usable.get(scatter(number) % usable.len().max(1));
                chosen.copied().cloned()
            };
            let Some(at) = at else {
                // All are leaving, and those that are coming are not known yet.
                thread::sleep(PACE);
                continue;
            };
            let began = now();
            let calls = requests.iter().map(|request| (at.clone(), request.clone()));
            let answers = network.call_all(&calls.collect::<Vec<_>>(), CALL_LIMIT);
            let refused = answers
                .iter()
                .all(|answer| *answer == Err(CallError::Refused));
            if refused && !self.ending.load(Ordering::Relaxed) {
                thread::sleep(PACE);
                continue;
            }
            for answer in &answers {
                match answer {
                    Ok(_) => {}
                    // What comes to a port while it is being closed is reset by the system.
                    Err(CallError::Broken(_)) if !putting && self.is_leaving(&at) => {}
                    Err(cause) => self.failed.lock().unwrap().push(Failed {
                        began,
                        ended: now(),
                        at: at.clone(),
                        cause: cause.to_string(),
                    }),
                }
            }
            return answers
                .into_iter()
                .map(|answer| (at.clone(), answer))
                .collect();
        }
    }
}

/// How many requests go together.
fn how_many(number: u64) -> u64 {
    1 + scatter(number) as u64 % TOGETHER
}

fn name(key: usize) -> String {
    format!("key {key}")
}

/// Numbers one after the other, in an order that nobody expects.
fn scatter(number: u64) -> usize {
    let mixed = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((mixed ^ (mixed >> 32)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 33) as usize
}
