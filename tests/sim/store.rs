//! A store node in the simulated world, and how clients talk to it. All that the worlds know of a node's
//! interface is here, but for `plain`.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use thrifty_p2p::diststore::{KeyValue, SERVICE_TYPES, Store};
use thrifty_p2p::location::Location;
use thrifty_p2p::locator::{
    EMPTY, Errand, Locator, Options, Participant, Status, read_answer, write_key,
};
use thrifty_p2p::membership::State;
use thrifty_p2p::net::{Connection, Environment, Event, Network, Request};
use thrifty_p2p::report;
use thrifty_p2p::ring::{self, Ring};
use thrifty_p2p::service::Service;

use super::world::{Item, Placement, SimNode, Subject, TICK, Way};

/// What bytes that move buy a caller, in bytes a second, as at `TcpNetwork`.
pub const BYTES_BUY: Option<u64> = Some(64 << 10);

/// A client waits for longer than a node tries.
const CLIENT_LIMIT: Duration = Duration::from_secs(20);

/// What `location --status` gives a member.
const STATUS_LIMIT: Duration = Duration::from_secs(5);

thread_local! {
    /// The ring of the last placement: its points cost more than all that is looked up, and the nodes seldom change.
    static LAST: RefCell<Option<(Vec<Location>, Rc<Ring>)>> = const { RefCell::new(None) };
}

pub struct StoreRing {
    pub replicas: usize,
}

struct Node(Arc<Store>);

impl Node {
    /// As the program does without `--host`: the first node that is in a network; if there is none, those
    /// that look for one.
    fn look_around(&self, places: &[Location]) -> Vec<Location> {
        let locator = self.0.locator();
        let mut looking = Vec::new();
        for place in places.iter().filter(|place| *place != locator.location()) {
            let network = &locator.environment().network;
            let answer = network.call(place, &request("status", EMPTY.to_vec()), TICK);
            match answer.and_then(|result| read_answer::<Status>(&result, "status")) {
                Ok(status) if status.me.state == State::Outside => looking.push(place.clone()),
                Ok(status) if status.me.state != State::Left => return vec![place.clone()],
                Ok(_) | Err(_) => {}
            }
        }
        looking
    }
}

impl SimNode for Node {
    fn service(&self) -> Arc<dyn Service> {
        self.0.clone()
    }

    fn start(&self, way: &Way) -> bool {
        let locator = self.0.locator();
        let started = match way {
            Way::Begin => locator.start(&[], true),
            Way::Join(contact) => locator.join(std::slice::from_ref(contact)),
            Way::Look(places) => locator.start(&self.look_around(places), true),
        };
        match started {
            Ok(()) => true,
            Err(why) => {
                locator.say(&why.to_string());
                false
            }
        }
    }

    fn tick(&self) {
        self.0.locator().tick();
    }

    fn work(&self) {
        self.0.work();
    }

    fn ask(&self, silent: bool) {
        self.0.locator().ask(silent);
    }

    fn on_errand(&self, wake: Box<dyn Fn(Errand) + Send + Sync>) {
        self.0.locator().on_errand(wake);
    }

    fn gives_up(&self) -> bool {
        self.0.locator().end_reason().is_some()
    }

    fn leave(&self) -> bool {
        let left = self.0.leave();
        if let Ok(keys @ 1..) | Err(keys) = left {
            self.0.locator().say(&format!("{keys} keys were not taken"));
        }
        left == Ok(0)
    }

    fn members(&self) -> Vec<(Location, bool)> {
        let view = self.0.locator().view();
        let members = view.members().iter();
        let members = members.map(|m| (m.location.clone(), m.state != State::Full));
        members.collect()
    }

    fn floor(&self) -> i64 {
        self.0.locator().with(|membership, _| membership.floor())
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
        limit: None,
        oneway: false,
    }
}

impl Subject for StoreRing {
    fn node(
        &self,
        location: &Location,
        environment: Environment,
        memory: usize,
    ) -> Arc<dyn SimNode> {
        let options = Options {
            service_types: SERVICE_TYPES,
            replicas: self.replicas,
            tick: TICK,
            die_from_anywhere: false,
            on_die: Box::new(|| ()),
        };
        let locator = Locator::new(location.clone(), options, environment);
        Arc::new(Node(Arc::new(Store::new(locator, memory))))
    }

    fn says_safe(&self, net: &dyn Network, at: &Location) -> Result<(), String> {
        let report = report::ask_all(net, at, STATUS_LIMIT).map_err(|cause| cause.to_string())?;
        match report.is_safe() {
            true => Ok(()),
            false => Err(report.why.join("; ")),
        }
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
        let value = answer.and_then(|result| read_answer(&result, "get"));
        value.map_err(|why| why.to_string())
    }

    fn many(
        &self,
        net: &dyn Network,
        to: &Location,
        operations: &[(Vec<u8>, Option<Vec<u8>>)],
        take: &mut dyn FnMut(usize, Result<Vec<u8>, String>),
    ) {
        let call = |(key, value): &(Vec<u8>, Option<Vec<u8>>)| match value {
            None => request("get", write_key(key)),
            Some(value) => request("put", KeyValue::write(key, Some(value))),
        };
        let calls = operations.iter().map(|one| (to.clone(), call(one)));
        let calls: Vec<_> = calls.collect();
        net.call_each(&calls, CLIENT_LIMIT, &mut |event| {
            let Event::Answer(place, answer) = event else {
                return;
            };
            let answer = match operations[place].1 {
                None => answer.and_then(|result| read_answer(&result, "get")),
                Some(_) => answer.map(|_| Vec::new()),
            };
            take(place, answer.map_err(|why| why.to_string()));
        });
    }

    fn placement(&self, nodes: &[Location]) -> Placement {
        let mut nodes = nodes.to_vec();
        nodes.sort_unstable_by(|one, other| one.name().cmp(other.name()));
        let last = LAST.take().filter(|(of, _)| *of == nodes);
        let ring = match last {
            Some((_, ring)) => ring,
            None => Rc::new(Ring::new(nodes.iter().map(|node| node.name().clone()))),
        };
        LAST.set(Some((nodes.clone(), ring.clone())));
        let replicas = self.replicas;
        Box::new(move |key| {
            let walk = ring.walk(ring::hash(key)).take(replicas);
            walk.map(|place| nodes[place].clone()).collect()
        })
    }
}
