//! Puts that this node carries out as their primary, while copies of them are on their way.
//!
//! Another node may send such a copy to this one, in an exchange, before all replicas have it. While the put is being
//! carried out, this node doesn't answer a get from that copy alone. But it doubts no other node: otherwise nodes that
//! get puts all the time would never be equal. If the try fails, it doubts the others.
//!
//! Invariant: a put is noted here, and met by a copy of it, under the locator's lock, under which items of other nodes
//! are stored.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::digest::digest;

/// A power of two: enough that threads seldom meet.
const SHARDS: usize = 64;

/// One of them.
#[derive(Debug, Clone, Copy)]
struct Put {
    /// Digest of the key.
    key: u64,
    version: i64,
    /// Another node has sent it to this one.
    taken: bool,
}

/// All of them.
pub struct Underway {
    shards: Vec<Mutex<Vec<Put>>>,
    /// How many there are, or have just been.
    count: AtomicUsize,
}

/// A put that is being carried out, as long as this lives.
pub struct Mark<'a> {
    all: &'a Underway,
    key: u64,
    version: i64,
}

impl Underway {
    /// None.
    pub fn new() -> Self {
        Underway {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            count: AtomicUsize::new(0),
        }
    }

    fn shard(&self, key: u64) -> MutexGuard<'_, Vec<Put>> {
        let shard = &self.shards[key as usize % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Copies of that version of a key are about to be sent.
    pub fn mark(&self, key: &[u8], version: i64) -> Mark<'_> {
        let (key, taken) = (digest(key), false);
        self.count.fetch_add(1, Ordering::SeqCst);
        self.shard(key).push(Put {
            key,
            version,
            taken,
        });
        Mark {
            all: self,
            key,
            version,
        }
    }

    fn is_any(&self) -> bool {
        self.count.load(Ordering::SeqCst) > 0
    }

    /// Whether that version of a key is one of them.
    pub fn has(&self, key: &[u8], version: i64) -> bool {
        self.is_any() && self.find(digest(key), version).is_some()
    }

    /// Another node has sent that version of a key to this one. True: it is one of them.
    pub fn take(&self, key: &[u8], version: i64) -> bool {
        let key = digest(key);
        let mut shard = self.shard(key);
        let mut same = shard
            .iter_mut()
            .filter(|put| (put.key, put.version) == (key, version));
        let found = same.next();
        found.map(|put| put.taken = true).is_some()
    }

    fn find(&self, key: u64, version: i64) -> Option<Put> {
        let shard = self.shard(key);
        let mut same = shard
            .iter()
            .filter(|put| (put.key, put.version) == (key, version));
        same.next().copied()
    }
}

impl Mark<'_> {
    /// Whether another node has sent it to this one.
    pub fn was_taken(&self) -> bool {
        let put = self.all.find(self.key, self.version);
        put.is_some_and(|put| put.taken)
    }
}

impl Drop for Mark<'_> {
    fn drop(&mut self) {
        let mut shard = self.all.shard(self.key);
        let same = |put: &Put| (put.key, put.version) == (self.key, self.version);
        if let Some(place) = shard.iter().position(same) {
            shard.swap_remove(place);
        }
        self.all.count.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn must_know_what_is_under_way_and_what_was_given() {
        let underway = Underway::new();
        assert!(!underway.has(b"k", 5) && !underway.take(b"k", 5));
        let (first, second) = (underway.mark(b"k", 5), underway.mark(b"k", 6));
        assert!(underway.has(b"k", 5) && !underway.has(b"k", 7) && !underway.has(b"l", 5));
        assert!(underway.take(b"k", 6) && !underway.take(b"k", 7));
        assert!(second.was_taken() && !first.was_taken());
        drop(second);
        assert!(!underway.has(b"k", 6) && underway.has(b"k", 5));
        drop(first);
        assert!(!underway.has(b"k", 5) && !underway.is_any());
    }
}
