//! Puts that this node coordinates, while copies of them are on their way.
//!
//! Another node may have such a copy and give it to this one, in an exchange. It is not taken in: the put brings it, once
//! all replicas have it, or leaves it open. Otherwise this node, as the primary, would show what others lack; or, as it
//! then doubts what it has, would compare with others again and again for as long as clients put.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::digest::digest;

/// A power of two: enough that threads seldom meet.
const SHARDS: usize = 64;

/// Digest of the key, and version.
type Put = (u64, i64);

/// All of them.
pub struct Underway(Vec<Mutex<Vec<Put>>>);

/// One of them, as long as it lives.
pub struct Mark<'a> {
    all: &'a Underway,
    put: Put,
}

impl Underway {
    /// None.
    pub fn new() -> Self {
        Underway((0..SHARDS).map(|_| Mutex::default()).collect())
    }

    fn shard(&self, key: u64) -> MutexGuard<'_, Vec<Put>> {
        let shard = &self.0[key as usize % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Copies of that version of a key are about to be sent.
    pub fn mark(&self, key: &[u8], version: i64) -> Mark<'_> {
        let put = (digest(key), version);
        self.shard(put.0).push(put);
        Mark { all: self, put }
    }

    /// Whether that version of a key is one of them.
    pub fn has(&self, key: &[u8], version: i64) -> bool {
        let put = (digest(key), version);
        self.shard(put.0).contains(&put)
    }
}

impl Drop for Mark<'_> {
    fn drop(&mut self) {
        let mut shard = self.all.shard(self.put.0);
        if let Some(place) = shard.iter().position(|put| *put == self.put) {
            shard.swap_remove(place);
        }
    }
}
