//! Puts that this node coordinates, while copies of them are on their way.
//!
//! Another node may have such a copy and give it to this one, in an exchange, before all replicas have it. While the put
//! is under way, this node doesn't answer a get with it from its own copy alone. That is all: it doesn't doubt that it is
//! equal with others, or nodes that get puts all the time would never be. If it gives the put up, it does.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::digest::digest;

/// A power of two: enough that threads seldom meet.
const SHARDS: usize = 64;

/// Digest of the key, and version.
type Put = (u64, i64);

/// All of them.
pub struct Underway {
    shards: Vec<Mutex<Vec<Put>>>,
    /// How many there are, or have just been.
    count: AtomicUsize,
}

/// One of them, as long as it lives.
pub struct Mark<'a> {
    all: &'a Underway,
    put: Put,
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
        let put = (digest(key), version);
        self.count.fetch_add(1, Ordering::SeqCst);
        self.shard(put.0).push(put);
        Mark { all: self, put }
    }

    /// Whether that version of a key is one of them.
    pub fn has(&self, key: &[u8], version: i64) -> bool {
        let put = (digest(key), version);
        self.count.load(Ordering::SeqCst) > 0 && self.shard(put.0).contains(&put)
    }
}

impl Drop for Mark<'_> {
    fn drop(&mut self) {
        let mut shard = self.all.shard(self.put.0);
        if let Some(place) = shard.iter().position(|put| *put == self.put) {
            shard.swap_remove(place);
        }
        self.all.count.fetch_sub(1, Ordering::SeqCst);
    }
}
