//! How a server behaves.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::traffic::Traffic;
use crate::net::{Log, descriptors_max};
use crate::thrift::Limits;

/// What answers requests of HTTP.
pub type Http = dyn Fn(&[u8]) -> Vec<u8> + Send + Sync;

/// How a server behaves.
#[derive(Clone)]
pub struct Options {
    /// Connections at a time. With 0 the server doesn't start; above [`connections_max`] descriptors may run out. At the
    /// limit the one that has been idle longest is closed for a new one; if none is idle, the new one waits. So many may
    /// wait as are a sixteenth of the process's descriptors; what comes beyond is closed. Each connection takes a
    /// descriptor, a thread and some 16 KiB.
    pub connections_max: usize,
    /// The addresses of the other nodes of the network, one for each node: four slots are kept for each, at most half
    /// of all together. Asked while more than half of the slots are taken, and ten times a second at most. Must not
    /// block, and not call the server.
    pub nodes: Arc<dyn Fn() -> Vec<IpAddr> + Send + Sync>,
    /// A connection without a request for so long is closed. Up: callers need fewer new
    /// connections; down: fewer idle threads.
    pub idle_limit: Duration,
    /// How long a message may take from its first byte to its last. Up: large values over slow
    /// lines; down: a trickling client takes a thread for less time.
    pub message_limit: Duration,
    /// How long the writing of a batch of answers may take. Up: slow readers of large answers;
    /// down: a client that doesn't read takes a thread for less time.
    pub write_limit: Duration,
    /// How large a request may be.
    pub limits: Limits,
    /// How many bytes all messages of more than 64 KiB together may take while they are received or answered. A message
    /// that would go beyond waits for 3 s, and is refused then. A request makes up to four copies, of which one is
    /// counted. No request may be larger.
    pub messages_bytes_max: usize,
    /// Whether each request, and each connection closed for what it sent, gets a line in the log. If
    /// not, one such connection a second does.
    pub verbose: bool,
    /// Called when there is no descriptor for a new connection: true, if it has got some back. If
    /// not, the connection that has been idle longest is closed, as at the limit. Must not block.
    pub relieve: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Answers requests of HTTP, each alone on its connection: gets the head, up to 8 KiB, and gives the whole answer. May
    /// block, within limits. Without it they are refused, as they are no messages.
    pub http: Option<Arc<Http>>,
    /// Counts what comes and goes. One server's own.
    pub traffic: Arc<Traffic>,
    /// What the server writes.
    pub log: Arc<Log>,
}

impl Default for Options {
    /// Three quarters of the process's descriptors for connections, the rest for calls to others and for files; no other
    /// nodes. A connection may be idle for an hour, a message may take 30 s to come, and a batch of answers 10 s to be
    /// written. Messages are bounded one by one, and not all together. Lines go to stderr.
    fn default() -> Self {
        Options {
            connections_max: connections_max(),
            nodes: Arc::new(Vec::new),
            idle_limit: Duration::from_secs(3600),
            message_limit: Duration::from_secs(30),
            write_limit: Duration::from_secs(10),
            limits: Limits::default(),
            messages_bytes_max: usize::MAX,
            verbose: false,
            relieve: Arc::new(|| false),
            http: None,
            traffic: Arc::new(Traffic::new(&[])),
            log: Arc::new(|_, line| crate::log::complain(line)),
        }
    }
}

/// How many connections the descriptor limit bears: three quarters of it, as calls to others and files
/// take some as well.
pub fn connections_max() -> usize {
    descriptors_max() / 4 * 3
}
