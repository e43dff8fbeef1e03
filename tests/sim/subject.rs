//! What the world knows of a node and of a client: what is tested implements it.

use std::sync::Arc;

use thrifty_p2p::location::Location;
use thrifty_p2p::locator::Errand;
use thrifty_p2p::net::{Environment, Network};
use thrifty_p2p::service::Service;

/// The kind of the exception by which a service says that its connection just ends: an original's
/// answer to what goes wrong.
pub const HUNG_UP: i32 = i32::MIN;

/// A copy of a key's value, as a node has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Item {
    pub key: Vec<u8>,
    pub version: i64,
    pub value: Vec<u8>,
}

/// How a node comes into its network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// It starts one.
    Begin,
    /// It joins that of this node, as with `--host`.
    Join(Location),
    /// It looks for one at these places, as without `--host`, and starts one if there is none.
    Look(Vec<Location>),
}

/// A node's logic. The world is told the truth by the last two.
pub trait SimNode: Send + Sync {
    fn service(&self) -> Arc<dyn Service>;

    /// Comes into a network. `false`: the process ends.
    fn start(&self, way: &Way) -> bool;

    /// It takes calls before it has started.
    fn listens_at_once(&self) -> bool {
        true
    }

    /// It serves one connection after the other.
    fn serves_in_order(&self) -> bool {
        false
    }

    fn tick(&self);

    /// One round of the mover.
    fn work(&self);

    /// One round of the thread that puts questions to others: to those that were silent, or to those
    /// that were not.
    fn ask(&self, silent: bool) {
        let _ = silent;
    }

    /// Has `wake` called whenever one of these threads is to do something at once.
    fn on_errand(&self, wake: Box<dyn Fn(Errand) + Send + Sync>) {
        let _ = wake;
    }

    /// The process is to end without a word: there is nothing for it to take part in.
    fn gives_up(&self) -> bool {
        false
    }

    /// Hands over and says goodbye; the process ends when this returns. `false`: not all keys
    /// were taken.
    fn leave(&self) -> bool;

    /// Itself and the others, and whether each is not full.
    fn members(&self) -> Vec<(Location, bool)>;

    fn items(&self) -> Vec<Item>;

    /// Puts get versions above this.
    fn floor(&self) -> i64 {
        0
    }
}

/// A key's holders, in order.
pub type Placement = Box<dyn Fn(&[u8]) -> Vec<Location>>;

/// What is tested, and how a client talks to it.
pub trait Subject: Send + Sync {
    /// `memory`: bytes for its items, where it keeps any.
    fn node(
        &self,
        location: &Location,
        environment: Environment,
        memory: usize,
    ) -> Arc<dyn SimNode>;

    /// What `location --status` says, asked at `at`: every key is safe now, or how the members are.
    fn says_safe(&self, net: &dyn Network, at: &Location) -> Result<(), String> {
        let _ = (net, at);
        Err("keeps nothing".to_owned())
    }

    /// `Ok`: acknowledged.
    fn put(&self, net: &dyn Network, to: &Location, key: &[u8], value: &[u8])
    -> Result<(), String>;

    /// Empty: there is no such key.
    fn get(&self, net: &dyn Network, to: &Location, key: &[u8]) -> Result<Vec<u8>, String>;

    /// Several gets (without a value) and puts, sent together on one connection; hands out the answers in their order.
    fn many(
        &self,
        net: &dyn Network,
        to: &Location,
        operations: &[(Vec<u8>, Option<Vec<u8>>)],
        take: &mut dyn FnMut(usize, Result<Vec<u8>, String>),
    ) {
        for (place, (key, value)) in operations.iter().enumerate() {
            let answer = match value {
                None => self.get(net, to, key),
                Some(value) => self.put(net, to, key, value).map(|()| Vec::new()),
            };
            take(place, answer);
        }
    }

    /// The nodes that should hold a key when these are the nodes and all of them are full.
    fn placement(&self, nodes: &[Location]) -> Placement;

    fn holders(&self, nodes: &[Location], key: &[u8]) -> Vec<Location> {
        self.placement(nodes)(key)
    }
}
