//! The seam that everything rests on: how a node calls other nodes, and what time it is.
//!
//! Node logic takes an [`Environment`] and never touches a socket, a clock or a source of
//! randomness by itself. Here these are TCP and the machine's clocks; in the
//! simulation they are a scheduler's.

pub(crate) mod clock;
mod dial;
pub(crate) mod incoming;
mod link;
mod names;
mod patience;
mod pools;
pub(crate) mod room;
mod tcp;

pub use clock::SystemClock;
pub(crate) use dial::{descriptors_max, lacks_descriptors};
pub use tcp::TcpNetwork;

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::location::Location;
use crate::thrift::Exception;

/// Which connection a call uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Connection {
    /// A kept one if there is one, and kept afterwards: between our own nodes.
    Kept,
    /// The same, for a call that must not be carried out twice: if the connection ends before the answer, the call may have
    /// been carried out, and is [broken](CallError::Broken). Others are then made once more, on a fresh connection.
    Once,
    /// One for this call alone, closed at once: an original node serves nobody else meanwhile.
    Single,
}

/// A call to make.
#[derive(Debug, Clone)]
pub struct Request {
    /// The name of the method, as in the IDL.
    pub method: &'static str,
    /// One struct. Shared, as the same request often goes to many.
    pub arguments: Arc<Vec<u8>>,
    /// Whether the connection is kept for later calls.
    pub connection: Connection,
    /// How long this one may take, if not as long as the calls that it is made with.
    pub limit: Option<Duration>,
    /// Sent as ONEWAY: the answer is an empty one, given as soon as the bytes have been written.
    pub oneway: bool,
}

/// Why a call brought no result. Each variant asks for a different decision of the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallError {
    /// A fresh connection was refused: no program listens there. The call has not been carried out; over a
    /// [kept](Connection::Kept) connection that has ended it may have been.
    Refused,
    /// No answer within the time limit, or no way there. The call may still be carried out.
    Silent,
    /// The connection ended before the answer, or something that is no answer came. The call may
    /// have been carried out.
    Broken(String),
    /// Out of ports, of descriptors, no such host: says nothing about the peer. The call has not
    /// been carried out.
    Local(String),
    /// The peer's own answer.
    Exception(Exception),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::Refused => write!(f, "connection refused"),
            CallError::Silent => write!(f, "no answer"),
            CallError::Broken(cause) => write!(f, "connection broken: {cause}"),
            CallError::Local(cause) => write!(f, "{cause}"),
            CallError::Exception(exception) => write!(f, "{exception}"),
        }
    }
}

impl std::error::Error for CallError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            CallError::Exception(exception) => Some(exception),
            _ => None,
        }
    }
}

/// The bytes of a result (one struct), or why there are none.
pub type Answer = Result<Vec<u8>, CallError>;

/// What happens while several answers are waited for.
#[derive(Debug)]
pub enum Event {
    /// The answer to the call at that place has come.
    Answer(usize, Answer),
    /// The next answer doesn't come soon.
    Waiting,
}

/// Carries calls to locations.
pub trait Network: Send + Sync {
    /// Writes all requests, then reads all answers, which come in the order of the calls. Several
    /// to one location travel on one connection, one behind the other. Blocks for at most about
    /// `limit` in all.
    fn call_all(&self, calls: &[(Location, Request)], limit: Duration) -> Vec<Answer>;

    /// As [`Network::call_all`], but hands each answer to `take` once it has come, in the order of the calls; errors may
    /// come earlier or later than that. Where answers are large, the next ones come in meanwhile, and only one at a
    /// time takes memory. Blocks for at most about `limit` before each.
    fn call_each(
        &self,
        calls: &[(Location, Request)],
        limit: Duration,
        take: &mut dyn FnMut(Event),
    ) {
        let answers = self.call_all(calls, limit);
        for (place, answer) in answers.into_iter().enumerate() {
            take(Event::Answer(place, answer));
        }
    }

    /// One call alone; see [`Network::call_all`].
    fn call(&self, to: &Location, request: &Request, limit: Duration) -> Answer {
        let mut answers = self.call_all(&[(to.clone(), request.clone())], limit);
        answers.pop().expect("BUG: an answer for each call")
    }

    /// Closes the connections kept to a location; calls on them that wait fail as broken.
    fn forget(&self, location: &Location);
}

/// What time it is.
pub trait Clock: Send + Sync {
    /// Since some moment in the past; never goes backwards, goes on while the process is stopped.
    fn now(&self) -> Duration;

    /// Microseconds since 1970, as the machine believes.
    fn wall(&self) -> i64;

    /// Waits.
    fn pause(&self, time: Duration);
}

/// A seeded source of numbers: splitmix64 (Steele, Lea and Flood, 2014).
#[derive(Debug)]
pub struct Random(AtomicU64);

impl Random {
    /// Equal seeds give equal numbers.
    pub fn new(seed: u64) -> Self {
        Random(AtomicU64::new(seed))
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&self, bound: usize) -> usize {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

/// A number that nobody outside can know: from the one source of randomness in std.
pub fn secret() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// What kind of line a node writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// None of the log: a line of the original's, in its form, for scripts that read stdout.
    Said,
    /// The node lacks what it needs, or keys may be missing.
    Error,
    /// Something went wrong elsewhere, or was refused.
    Warn,
    /// What was asked for.
    Info,
    /// Members that come and go.
    Debug,
    /// Each request.
    Trace,
}

impl Level {
    /// Those of the log, by their names.
    pub const NAMES: [(&str, Level); 5] = [
        ("error", Level::Error),
        ("warn", Level::Warn),
        ("info", Level::Info),
        ("debug", Level::Debug),
        ("trace", Level::Trace),
    ];
}

/// Takes the lines that a node writes. Must not block.
pub type Log = dyn Fn(Level, &str) + Send + Sync;

/// All that a node knows of the world.
pub struct Environment {
    /// How other nodes are called.
    pub network: Arc<dyn Network>,
    /// The wall's and the monotonic time.
    pub clock: Arc<dyn Clock>,
    /// Where all chance comes from.
    pub random: Random,
    /// A number that nobody outside can know; see [`secret`].
    pub secret: u64,
    /// What this node writes.
    pub log: Box<Log>,
}
