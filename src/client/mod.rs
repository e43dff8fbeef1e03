//! A client of a store: what the programs `storeput`, `storeget` and their like use, and any other may use.
//!
//! A [`Client`] is found by the name of a node, or of several, or on this machine. It may be shared by threads; the
//! connections are kept, and each is used by one call at a time. Any node carries out any request. [`Client::many`]
//! saves the detour: it asks for the members, and sends each operation to the node that owns its key, side by side.
//!
//! Nodes of the original are stores too: one call a connection, and no answer to a put.
//!
//! Nodes of a service of one's own are found by [`Client::find_of`] and [`Client::connect_of`], and called by
//! [`Client::ask`]: see `examples/factor.rs`.
//!
//! ```
//! # use thrifty_p2p::diststore::{SERVICE_TYPES, Store};
//! # use thrifty_p2p::location::Location;
//! # use thrifty_p2p::locator::{LIMITS, Locator, Options};
//! # use thrifty_p2p::net::{Environment, Random, SystemClock, TcpNetwork, secret};
//! # use thrifty_p2p::node::Node;
//! # use std::sync::Arc;
//! use thrifty_p2p::client::{Client, Error, Operation};
//! # let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
//! # let at = Location::new("127.0.0.1", listener.local_addr()?.port())?;
//! # let options = Options {
//! #     service_types: SERVICE_TYPES,
//! #     replicas: 1,
//! #     tick: std::time::Duration::from_millis(500),
//! #     die_from_anywhere: false,
//! #     on_die: Box::new(|| {}),
//! # };
//! # let environment = Environment {
//! #     network: Arc::new(TcpNetwork::new(LIMITS)),
//! #     clock: Arc::new(SystemClock::new()),
//! #     random: Random::new(secret()),
//! #     secret: secret(),
//! #     log: Box::new(|_, _| {}),
//! # };
//! # let store = Store::new(Locator::new(at.clone(), options, environment), usize::MAX);
//! # let mut node = Node::start(listener, Arc::new(store), Default::default())?;
//! # node.begin(&[])?;
//! # let peers = [at];
//!
//! let client = Client::connect(&peers)?;
//! client.put(b"a", b"apple")?;
//! assert_eq!(client.get(b"a")?, b"apple");
//!
//! let fruit = [Operation::Put(b"b", b"banana"), Operation::Put(b"c", b"cherry")];
//! client.insist(&fruit, &mut |_, _| {})?;
//! client.keys(b"", &mut |keys, _| {
//!     keys.iter().for_each(|key| println!("{:?}: {} bytes", key.key, key.bytes));
//!     Ok::<(), Error>(())
//! })?;
//! assert!(client.delete(b"a")?);
//! # let _ = node.leave();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub(crate) mod discovery;
mod keys;
mod many;
#[cfg(test)]
mod tests;

pub use keys::Key;
pub(crate) use many::{AT_ONCE, BYTES_AT_ONCE, runs};
pub use many::{Answer, Operation};

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::diststore::KeyValue;
use crate::location::Location;
use crate::locator::{
    EMPTY, EXTENSION, LIMITS, Status, read_answer, request, service_types, write_key,
};
use crate::net::{self, CallError, Clock, Connection, Network, Request, SystemClock, TcpNetwork};
use crate::thrift::Decode;

use discovery::{SCAN_LIMIT, Until, first_node};

/// How long a call waits unless it was told otherwise. A put takes at most twelve ticks at the node, of half a second
/// unless it was told otherwise, and a little to get there.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// No call waits longer without a byte that moves, whatever was wished.
const LIMIT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a node is looked for. One that was started by the line before in the same script may
/// not listen yet.
const FIND_LIMIT: Duration = Duration::from_secs(2);

/// Where several nodes are named, each has so long at least.
const PEER_LIMIT: Duration = Duration::from_secs(1);

pub(crate) const STORE: &str = "diststore.Store";

/// A client of the store that a node belongs to, ours or the original's.
///
/// Each call waits for 10 s, and for longer as long as bytes move. That is more than a node takes with its usual tick.
/// A node tries for 12 ticks: where `--tick` is above 700 ms, a call may end with "no answer" long before the node
/// gives up, and a put may take effect after that. There [`Client::with_limit`] is of use.
pub struct Client {
    network: Arc<dyn Network>,
    clock: Arc<dyn Clock>,
    /// Other peers that were named.
    peers: Vec<Location>,
    /// Guards the node that is asked: the one that was found first, or one that has taken its place.
    server: Mutex<Location>,
    manners: Manners,
    /// How long a call waits.
    limit: Duration,
    /// Guards what was heard last of the ring.
    ring: Mutex<Option<Arc<many::Members>>>,
}

/// What may be expected of a node.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manners {
    /// One of ours: answers every call, keeps connections open.
    Ours,
    /// An original: one call a connection, and no answer to `put`.
    Original,
    /// An original of before June 2009: one call a connection, and an answer to every one.
    Early,
}

/// Why an operation failed, and where.
#[derive(Debug, Clone)]
pub struct Error {
    place: String,
    cause: CallError,
}

impl Error {
    fn new(place: impl fmt::Display, cause: CallError) -> Self {
        let place = place.to_string();
        Error { place, cause }
    }

    fn local(place: impl fmt::Display, cause: impl fmt::Display) -> Self {
        Error::new(place, CallError::Local(cause.to_string()))
    }

    /// What became of the last call that was made for it. After [`CallError::Refused`] and [`CallError::Local`] it was
    /// not carried out, unless an earlier connection had broken.
    pub fn cause(&self) -> &CallError {
        &self.cause
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.cause)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

impl Client {
    /// Finds the first store on this machine, from port 9900 up. Looks for up to 3 s.
    ///
    /// # Errors
    /// There is none.
    pub fn find() -> Result<Self, Error> {
        Client::find_of(STORE)
    }

    /// The same for any service.
    ///
    /// # Errors
    /// There is no node of it.
    pub fn find_of(service: &'static str) -> Result<Self, Error> {
        let network = Arc::new(TcpNetwork::new(LIMITS));
        let now = Instant::now();
        let until = Until {
            deadline: now + SCAN_LIMIT,
            again: now + FIND_LIMIT,
        };
        let has_it = move |types: &[String]| types.iter().any(|name| name == service);
        let found = first_node(network.clone(), "127.0.0.1", until, has_it);
        let nobody = || Error::local("localhost:9900 and up", "No peer autodiscovered.");
        let (server, types) = found.ok_or_else(nobody)?;
        let clock = Arc::new(SystemClock::new());
        Client::of(service, network, clock, server, &types)
    }

    /// Goes to the first of these nodes that answers and is a store. They have 10 s to answer, one after the other; if
    /// there are more than ten, 1 s each.
    ///
    /// # Errors
    /// None does, or is one: says why of each.
    pub fn connect(peers: &[Location]) -> Result<Self, Error> {
        Client::connect_of(STORE, peers)
    }

    /// The same for any service.
    ///
    /// # Errors
    /// As of [`Client::connect`].
    pub fn connect_of(service: &str, peers: &[Location]) -> Result<Self, Error> {
        let network = Arc::new(TcpNetwork::new(LIMITS));
        Client::connect_over(service, network, Arc::new(SystemClock::new()), peers)
    }

    /// The same over another network than TCP, by another clock: in a simulation.
    ///
    /// # Errors
    /// As of [`Client::connect`].
    pub fn connect_over(
        service: &str,
        network: Arc<dyn Network>,
        clock: Arc<dyn Clock>,
        peers: &[Location],
    ) -> Result<Self, Error> {
        let count = u32::try_from(peers.len()).unwrap_or(u32::MAX).max(1);
        let limit = (CALL_LIMIT / count).max(PEER_LIMIT);
        let mut failed: Option<Error> = None;
        for peer in peers {
            let types = service_types(&*network, peer, limit);
            let types = types.map_err(|cause| Error::new(peer, cause));
            let of = |types: Vec<String>| {
                let (network, clock) = (network.clone(), clock.clone());
                Client::of(service, network, clock, peer.clone(), &types)
            };
            match (types.and_then(of), failed) {
                (Ok(client), _) => {
                    let peers = peers.to_vec();
                    return Ok(Client { peers, ..client });
                }
                (Err(error), None) => failed = Some(error),
                (Err(error), Some(before)) => failed = Some(Error::local(before, error)),
            }
        }
        Err(failed.unwrap_or_else(|| Error::local("no peer", "none was named")))
    }

    /// Of a node that has answered for these services.
    fn of(
        service: &str,
        network: Arc<dyn Network>,
        clock: Arc<dyn Clock>,
        server: Location,
        types: &[String],
    ) -> Result<Self, Error> {
        let has = |wanted: &str| types.iter().any(|name| name == wanted);
        let manners = if types.is_empty() {
            Manners::Early
        } else if !has(service) {
            let cause = format!("it runs another service: {}", types.join(", "));
            return Err(Error::local(server, cause));
        } else if has(EXTENSION) {
            Manners::Ours
        } else {
            Manners::Original
        };
        Ok(Client {
            network,
            clock,
            peers: Vec::new(),
            server: Mutex::new(server),
            manners,
            limit: CALL_LIMIT,
            ring: Mutex::default(),
        })
    }

    /// The same client, whose calls wait for `limit`, up to a day, instead of 10 s: for twenty ticks, say, of a network
    /// with a longer `--tick`. It bounds the time that passes without a byte that moves, of one call to one node.
    /// [`Client::insist`] and [`Client::keys`] try again and again: for three times the limit. How long a node is
    /// looked for, and how long it may take to say which nodes are members, stays as it is.
    ///
    /// ```no_run
    /// # use thrifty_p2p::client::{Client, Error};
    /// # use std::time::Duration;
    /// let tick = Duration::from_secs(2);
    /// let client = Client::find()?.with_limit(20 * tick);
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn with_limit(self, limit: Duration) -> Self {
        let limit = limit.min(LIMIT_MAX);
        Client { limit, ..self }
    }

    /// The node that is asked: the one that was found first, or another member if that one went away.
    pub fn server(&self) -> Location {
        let server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        server.clone()
    }

    /// Puts a value; an empty one deletes the key. Waits for the limit.
    ///
    /// # Errors
    /// It is not acknowledged; it may have taken effect all the same, or may do so later. (An original acknowledges
    /// nothing.)
    pub fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        let oneway = self.manners == Manners::Original;
        let put = request("put", KeyValue::write(key, Some(value)));
        let answer = self.call(Request { oneway, ..put });
        answer.map(|_| ()).map_err(|cause| self.error(cause))
    }

    /// The value, empty for a missing key. Waits for the limit.
    ///
    /// # Errors
    /// There is no answer.
    pub fn get(&self, key: &[u8]) -> Result<Vec<u8>, Error> {
        self.ask(request("get", write_key(key)))
    }

    /// Deletes a key. True: it had a value. While nodes come and go, and after a put that failed, the answer may be false
    /// though a value was deleted. Waits for the limit.
    ///
    /// # Errors
    /// As of [`Client::put`]. [`CallError::Exception`]: a node of the original is a member, and nothing can be
    /// deleted; or the node itself is an original.
    pub fn delete(&self, key: &[u8]) -> Result<bool, Error> {
        self.ask(request("delete_key", write_key(key)))
    }

    /// The node that `key` belongs to. Waits for the limit.
    ///
    /// # Errors
    /// There is no answer.
    pub fn get_node(&self, key: &[u8]) -> Result<Location, Error> {
        self.ask(request("get_node", write_key(key)))
    }

    /// The answer to any call. Waits for the limit.
    ///
    /// # Errors
    /// There is no answer. [`Error::cause`] says whether the call may have been carried out.
    pub fn ask<T: for<'a> Decode<'a>>(&self, request: Request) -> Result<T, Error> {
        let method = request.method;
        let answer = self.call(request);
        let answer = answer.and_then(|result| read_answer(&result, method));
        answer.map_err(|cause| self.error(cause))
    }

    fn call(&self, request: Request) -> net::Answer {
        let request = self.suited(request);
        self.network.call(&self.server(), &request, self.limit)
    }

    /// A request as the node that was found first takes it.
    fn suited(&self, request: Request) -> Request {
        match self.manners {
            Manners::Ours => request,
            Manners::Original | Manners::Early => Request {
                connection: Connection::Single,
                ..request
            },
        }
    }

    /// Members that were lost together: keys may be missing. Waits for the limit.
    ///
    /// # Errors
    /// There is no answer.
    pub fn missing(&self) -> Result<Vec<Location>, Error> {
        let status: Status = self.ask(request("status", EMPTY.to_vec()))?;
        Ok(status.missing)
    }

    /// How long it is tried again while nothing succeeds.
    fn patience(&self) -> Duration {
        3 * self.limit
    }

    fn error(&self, cause: CallError) -> Error {
        Error::new(self.server(), cause)
    }
}
