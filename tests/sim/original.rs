//! A node of 2009 in the simulated world, as its final version behaved: one thread, one connection after the other, and
//! no time limits. It forgets a node that it can't reach, and tells no other. News travels along a chain; a missing key
//! is read as "" and stored so. `tests/interop/original_peer.py` is the same on sockets.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use thrifty_p2p::diststore::KeyValue;
use thrifty_p2p::location::Location;
use thrifty_p2p::locator::{
    EMPTY, News, read_answer, read_arguments, read_key, single_request, write_key,
};
use thrifty_p2p::net::{CallError, Environment};
use thrifty_p2p::ring::{self, Ring};
use thrifty_p2p::service::{Call, Order, Service};
use thrifty_p2p::thrift::{Exception, Write, put_field, wire};

use super::scheduler::{Scheduler, Ticket};
use super::world::{HUNG_UP, Item, SimNode, Way, World};

/// No time limit.
const EVER: Duration = Duration::from_secs(100_000);

const TYPES: [&str; 3] = ["locator.Base", "locator.Locator", "diststore.Store"];

const PINGS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(10);

/// A call to another node went wrong.
enum Trouble {
    NotFound,
    /// All else ends the connection, and with it the handler.
    HungUp(String),
}

impl From<CallError> for Trouble {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Refused => Trouble::NotFound,
            error => Trouble::HungUp(error.to_string()),
        }
    }
}

impl From<Exception> for Trouble {
    fn from(exception: Exception) -> Self {
        Trouble::HungUp(exception.to_string())
    }
}

type Outcome<T> = Result<T, Trouble>;

pub struct Original {
    me: Location,
    environment: Environment,
    line: Line,
    state: Mutex<State>, // guards itself
}

#[derive(Default)]
struct State {
    nodes: BTreeSet<Location>,
    store: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// The one thread: whether it is busy, and the activities that wait for it.
struct Line {
    scheduler: Arc<Scheduler>,
    busy: Mutex<(bool, VecDeque<Ticket>)>, // guards itself
}

struct Turn<'a>(&'a Line);

impl Line {
    fn busy(&self) -> MutexGuard<'_, (bool, VecDeque<Ticket>)> {
        self.busy.lock().expect("BUG: a line panicked")
    }

    fn wait(&self) -> Turn<'_> {
        let ticket = {
            let mut busy = self.busy();
            if busy.0 {
                let ticket = self.scheduler.ticket();
                busy.1.push_back(ticket);
                Some(ticket)
            } else {
                busy.0 = true;
                None
            }
        };
        if let Some(ticket) = ticket {
            self.scheduler.wait(ticket, self.scheduler.now() + EVER);
        }
        Turn(self)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let next = {
            let mut busy = self.0.busy();
            let next = busy.1.pop_front();
            busy.0 = next.is_some();
            next
        };
        if let Some(next) = next {
            self.0.scheduler.wake(next);
        }
    }
}

impl World {
    /// Starts a node of 2009.
    pub fn boot_original(self: &Arc<Self>, location: &Location, contact: Option<&Location>) {
        let way = contact.cloned().map_or(Way::Begin, Way::Join);
        self.boot_as(location, way, |environment| {
            Arc::new(OriginalNode(Arc::new(Original {
                me: location.clone(),
                environment,
                line: Line {
                    scheduler: self.scheduler.clone(),
                    busy: Mutex::default(),
                },
                state: Mutex::new(State {
                    nodes: BTreeSet::from([location.clone()]),
                    store: BTreeMap::new(),
                }),
            })))
        });
    }
}

fn news(location: &Location, authorities: &BTreeSet<Location>) -> Vec<u8> {
    News::write(location, authorities.iter())
}

fn read_news(arguments: &[u8]) -> Outcome<(Location, BTreeSet<Location>)> {
    let news = read_arguments::<News>(arguments);
    let news = news.map_err(|why| Trouble::HungUp(why.to_string()))?;
    Ok((news.location, news.authorities.into_iter().collect()))
}

impl Original {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("BUG: an original panicked")
    }

    fn nodes(&self) -> BTreeSet<Location> {
        self.state().nodes.clone()
    }

    fn owner(&self, key: &[u8]) -> Option<Location> {
        let nodes = self.nodes();
        let ring = Ring::new(nodes.iter().map(|node| node.name().clone()));
        let owner = ring
            .owner(ring::hash(key))
            .map(|place| ring.names()[place].clone());
        owner.map(|name| name.parse().expect("BUG: a name is a location"))
    }

    /// A connection for one call.
    fn call(&self, to: &Location, method: &'static str, arguments: Vec<u8>) -> Outcome<Vec<u8>> {
        let oneway = ["put", "add", "remove", "join"].contains(&method);
        let request = single_request(method, arguments, oneway);
        Ok(self.environment.network.call(to, &request, EVER)?)
    }

    fn add(&self, location: &Location, mut authorities: BTreeSet<Location>) -> Outcome<()> {
        authorities.insert(self.me.clone());
        self.pass_on("add", location, &authorities)?;
        self.state().nodes.insert(location.clone());
        self.environment.clock.pause(PAUSE);
        let keys: Vec<_> = self.state().store.keys().cloned().collect();
        for key in keys {
            if self.owner(&key).as_ref() == Some(location) {
                let value = self.state().store.get(&key).cloned().unwrap_or_default();
                self.call(location, "put", KeyValue::write(&key, Some(&value)))?;
                self.state().store.remove(&key);
            }
        }
        Ok(())
    }

    fn remove(&self, location: &Location, mut authorities: BTreeSet<Location>) -> Outcome<()> {
        self.state().nodes.remove(location);
        authorities.insert(self.me.clone());
        self.pass_on("remove", location, &authorities)
    }

    /// To the first node, in the order of names as text, that can be reached and is no authority.
    fn pass_on(
        &self,
        method: &'static str,
        location: &Location,
        authorities: &BTreeSet<Location>,
    ) -> Outcome<()> {
        let nodes = self.nodes();
        let mut targets: Vec<_> = nodes.difference(authorities).collect();
        targets.sort_unstable_by(|one, other| one.name().cmp(other.name()));
        for target in targets {
            match self.call(target, method, news(location, authorities)) {
                Err(Trouble::NotFound) => self.forget(target)?,
                outcome => return outcome.map(|_| ()),
            }
        }
        Ok(())
    }

    /// With all members as authorities, the news goes nowhere.
    fn forget(&self, location: &Location) -> Outcome<()> {
        self.remove(location, self.nodes())
    }

    fn get(&self, key: &[u8]) -> Outcome<Vec<u8>> {
        let owner = self.owner(key);
        let Some(owner) = owner.filter(|owner| *owner != self.me) else {
            return Ok(self.state().store.entry(key.to_vec()).or_default().clone());
        };
        match self.call(&owner, "get", write_key(key)) {
            Ok(result) => {
                let value = read_answer(&result, "get");
                Ok(value?)
            }
            Err(Trouble::NotFound) => self.forget(&owner).map(|()| Vec::new()),
            Err(trouble) => Err(trouble),
        }
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Outcome<()> {
        let owner = self.owner(key);
        let Some(owner) = owner.filter(|owner| *owner != self.me) else {
            self.state().store.insert(key.to_vec(), value.to_vec());
            return Ok(());
        };
        match self.call(&owner, "put", KeyValue::write(key, Some(value))) {
            Err(Trouble::NotFound) => self.forget(&owner),
            outcome => outcome.map(|_| ()),
        }
    }

    fn join(&self, location: &Location) -> Outcome<()> {
        self.add(location, BTreeSet::new())?;
        for number in 0..PINGS {
            match self.call(location, "ping", EMPTY.to_vec()) {
                Err(Trouble::NotFound) => self.environment.clock.pause(PAUSE * (1 << number)),
                outcome => return outcome.map(|_| ()),
            }
        }
        Err(Trouble::NotFound)
    }

    fn enter(&self, contact: &Location) -> Outcome<()> {
        let all = self.call(contact, "get_all", EMPTY.to_vec())?;
        let all = read_answer::<Vec<Location>>(&all, "get_all")?;
        self.state().nodes.extend(all);
        self.call(contact, "join", News::write(&self.me, [].iter()))?;
        Ok(())
    }

    fn hand_over(&self) -> Outcome<()> {
        self.state().nodes.remove(&self.me);
        let me = BTreeSet::from([self.me.clone()]);
        let mut told = BTreeSet::new();
        let store = self.state().store.clone();
        for (key, value) in store.iter().filter(|(_, value)| !value.is_empty()) {
            let Some(owner) = self.owner(key) else {
                continue;
            };
            let say = || {
                if !told.contains(&owner) {
                    self.call(&owner, "remove", news(&self.me, &me))?;
                }
                self.call(&owner, "ping", EMPTY.to_vec())?;
                self.call(&owner, "put", KeyValue::write(key, Some(value)))
            };
            match say() {
                Err(Trouble::NotFound) => (),
                outcome => {
                    outcome?;
                    told.insert(owner);
                }
            }
        }
        if told.is_empty() {
            self.pass_on("remove", &self.me, &me)?;
        }
        Ok(())
    }

    fn serve(&self, call: &Call<'_>, result: &mut Vec<u8>) -> Outcome<()> {
        match call.method {
            b"ping" | b"debug" | b"die" => (),
            b"service_type" => result.write_bytes_field(0, b"diststore.Store"),
            b"service_types" => {
                result.write_field(wire::LIST, 0);
                result.write_list(wire::STRING, TYPES.len());
                TYPES
                    .iter()
                    .for_each(|name| result.write_bytes(name.as_bytes()));
            }
            b"get_all" => {
                put_field(result, 0, &self.nodes().iter().collect::<Vec<_>>());
            }
            b"get_node" => {
                let owner = self.owner(read_key(call.arguments)?);
                put_field(result, 0, &owner.unwrap_or_else(|| self.me.clone()));
            }
            b"join" => self.join(&read_news(call.arguments)?.0)?,
            b"add" => {
                let (location, authorities) = read_news(call.arguments)?;
                self.add(&location, authorities)?;
            }
            b"remove" => {
                let (location, authorities) = read_news(call.arguments)?;
                self.remove(&location, authorities)?;
            }
            b"get" => {
                let value = self.get(read_key(call.arguments)?)?;
                result.write_bytes_field(0, &value);
            }
            _ => {
                let KeyValue { key, value, .. } = KeyValue::read(call.arguments)?;
                self.put(key, value.unwrap_or_default())?;
            }
        }
        result.write_stop();
        Ok(())
    }
}

/// The node as the world holds it: the service needs the `Arc`.
struct OriginalNode(Arc<Original>);

struct OriginalService(Arc<Original>);

impl Service for OriginalService {
    fn call(&self, call: &Call<'_>, result: &mut Vec<u8>) -> Result<(), Exception> {
        let known: [&[u8]; 11] = [
            b"ping",
            b"debug",
            b"die",
            b"service_type",
            b"service_types",
            b"get_all",
            b"get_node",
            b"join",
            b"add",
            b"remove",
            b"get",
        ];
        let _turn = self.0.line.wait();
        if !known.contains(&call.method) && call.method != b"put" {
            return Err(Exception::unknown_method(call.method));
        }
        self.0.serve(call, result).map_err(|trouble| {
            let why = match trouble {
                Trouble::NotFound => "not found".to_owned(),
                Trouble::HungUp(why) => why,
            };
            Exception::new(HUNG_UP, why)
        })
    }

    fn order(&self, _method: &[u8]) -> Order {
        Order::Free
    }
}

impl SimNode for OriginalNode {
    fn service(&self) -> Arc<dyn Service> {
        Arc::new(OriginalService(self.0.clone()))
    }

    fn start(&self, way: &Way) -> bool {
        match way {
            Way::Join(contact) => self.0.enter(contact).is_ok(),
            Way::Begin | Way::Look(_) => true,
        }
    }

    /// It joins first.
    fn listens_at_once(&self) -> bool {
        false
    }

    fn serves_in_order(&self) -> bool {
        true
    }

    fn tick(&self) {}

    fn work(&self) {}

    /// Its port accepts connections until the end, and it serves none of them.
    fn leave(&self) -> bool {
        let turn = self.0.line.wait();
        let left = self.0.hand_over().is_ok();
        std::mem::forget(turn);
        left
    }

    fn members(&self) -> Vec<(Location, bool)> {
        let nodes = self.0.nodes().into_iter();
        nodes.map(|node| (node, false)).collect()
    }

    fn items(&self) -> Vec<Item> {
        let state = self.0.state();
        let item = |(key, value): (&Vec<u8>, &Vec<u8>)| Item {
            key: key.clone(),
            version: 0,
            value: value.clone(),
        };
        state.store.iter().map(item).collect()
    }
}
