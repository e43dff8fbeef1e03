//! A store node in the simulated world, and how clients talk to it.

use std::sync::Arc;
use std::time::Duration;

use thrifty_p2p::diststore::{KeyValue, SERVICE_TYPES, Store};
use thrifty_p2p::location::Location;
use thrifty_p2p::locator::{Locator, Options, Participant, State, read_result, write_key};
use thrifty_p2p::net::{Connection, Environment, Network, Request};
use thrifty_p2p::ring::{self, Ring};
use thrifty_p2p::service::Service;
use thrifty_p2p::thrift::wire;

use super::world::{Item, SimNode, Subject, TICK};

/// A client waits longer than a node does.
const CLIENT_LIMIT: Duration = Duration::from_secs(20);

pub struct StoreRing {
    pub replicas: usize,
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

    fn wake_on_change(&self, wake: Box<dyn Fn() + Send + Sync>) {
        self.0.locator().wake_on_change(wake);
    }

    fn gives_up(&self) -> bool {
        self.0.locator().is_lost()
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
