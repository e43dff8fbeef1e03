//! The connections of a server: those that are served, and those that wait for room.

use std::collections::{HashMap, VecDeque};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use super::connection::{Connection, Phase};
use super::options::Options;
use super::slots::Slots;

/// How long the other nodes' addresses are used before they are asked for again.
const NODES_INTERVAL: Duration = Duration::from_millis(100);

/// The connections of a server, and whether it goes on.
#[derive(Default)]
pub(super) struct Table {
    /// Those that are served, by their numbers.
    pub open: HashMap<u64, Arc<Connection>>,
    /// Connections that wait for room, in the order in which they came.
    pub waiting: VecDeque<Connection>,
    slots: Slots,
    /// From which microsecond on the slots are to be shared out anew.
    slots_due: u64,
    admitted: u64,
    /// The listener once more, to wake the accepting thread; gone once that is to end.
    pub listener: Option<TcpStream>,
    pub accepting: bool,
}

impl Table {
    /// Of a server that accepts. `listener`: the listener once more.
    pub fn new(listener: TcpStream) -> Self {
        Table {
            listener: Some(listener),
            accepting: true,
            ..Table::default()
        }
    }

    /// Takes a connection in. The answer: its number.
    pub fn admit(&mut self, connection: Arc<Connection>) -> u64 {
        self.admitted += 1;
        self.slots.take(connection.caller());
        self.open.insert(self.admitted, connection);
        self.admitted
    }

    /// A connection has ended.
    pub fn remove(&mut self, number: u64) -> Option<Arc<Connection>> {
        let ended = self.open.remove(&number)?;
        self.slots.give_back(ended.caller());
        Some(ended)
    }

    /// The next connection to be let in, if there is one and there is room for it. If there is none, an idle one is
    /// told to go.
    pub fn next(&mut self, options: &Options, now: u64) -> Option<Connection> {
        let all = options.connections_max;
        // A server that stops takes all of them. And while half of the slots are free, no kept slot is touched.
        if self.listener.is_none() || self.open.len() < all - all / 2 {
            return self.waiting.pop_front();
        }
        if self.waiting.is_empty() {
            return None;
        }
        if now >= self.slots_due {
            self.slots.share_out(all, &(options.nodes)());
            self.slots_due = now + NODES_INTERVAL.as_micros() as u64;
        }
        let owed = |connection: &Connection| self.slots.is_owed(connection.caller());
        // Nodes first; clients in the order in which they came.
        let first = self.waiting.iter().position(owed).unwrap_or(0);
        if self.slots.has_room(self.waiting[first].caller()) {
            return self.waiting.remove(first);
        }
        self.hang_up_longest_idle();
        None
    }

    /// The connection that is closed because too many wait: the last one of a client, or else the last one.
    pub fn refuse(&mut self) -> Connection {
        let is_client = |connection: &Connection| self.slots.of(connection.caller()) == 0;
        let last = self.waiting.iter().rposition(is_client);
        let refused = match last {
            Some(last) => self.waiting.remove(last),
            None => self.waiting.pop_back(),
        };
        refused.expect("BUG: one that waits")
    }

    /// Makes room for a new connection. None of those that are kept for nodes is closed for it.
    pub fn hang_up_longest_idle(&self) {
        let idle = self.open.values().filter_map(|connection| {
            let (phase, since) = connection.phase();
            let may_close = phase == Phase::Idle && self.slots.may_close(connection.caller());
            may_close.then_some((since, connection))
        });
        let idle: Vec<_> = idle.collect();
        // The end of one that has been told to go is waited for.
        if idle.iter().any(|(_, connection)| connection.is_hung_up()) {
            return;
        }
        if let Some((_, longest)) = idle.iter().min_by_key(|(since, _)| *since) {
            longest.hang_up();
        }
    }
}
