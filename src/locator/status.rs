//! Is every key safe now? A node's own answer.

use crate::location::Location;
use crate::membership::{Member, State};
use crate::thrift_struct;

/// The answer to `status`: is everything where it should be?
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The node that answers.
    pub me: Member,
    /// Copies that are kept of each key.
    pub replicas: u32,
    /// Members of its view, itself and originals included.
    pub members: u32,
    /// Of them, those that are full and ours.
    pub full: u32,
    /// The digest of its view: equal for equal views.
    pub digest: u64,
    /// Items that lie here, deleted ones included.
    pub items: usize,
    /// Items that lie here and should lie elsewhere.
    pub unconfirmed: usize,
    /// Every other replica has what this node should have, by answers of late.
    pub settled: bool,
    /// Members that were lost together: keys may be missing.
    pub missing: Vec<Location>,
    /// Bytes that the items take, the tables included.
    pub taken: usize,
    /// Bytes that they may take.
    pub memory: usize,
    /// Bytes more that were wanted when something was refused last; 0: there is room for them now.
    pub lacking: usize,
    /// How many of the items are tombstones. `None` in this field and the next ones: the node doesn't tell, as it is of an
    /// earlier version or has no server.
    pub deleted: Option<usize>,
    /// How many connections it serves.
    pub connections: Option<usize>,
    /// Requests a second, over some seconds up to now, those of other nodes included.
    pub rate: Option<usize>,
    /// Of the program.
    pub version: Option<String>,
    /// When it was made: microseconds since 1970, by its own clock.
    pub since: Option<i64>,
}

thrift_struct!(Status {
    1 me, 2 replicas, 3 members, 4 digest, 5 items, 6 unconfirmed, 7 settled, 8 full, 9 missing,
    10 taken, 11 memory, 12 lacking, 13 deleted, 14 connections, 15 rate, 16 version, 17 since
});

impl Status {
    /// As far as this node can tell, every key is with all its replicas.
    pub fn is_safe(&self) -> bool {
        let state = self.me.state == State::Full && self.full >= self.replicas;
        state && self.settled && self.unconfirmed == 0 && self.missing.is_empty()
    }
}
