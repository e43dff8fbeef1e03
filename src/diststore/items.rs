//! What a node holds: key to value and version, in memory.
//!
//! Merging is all there is. Two accounts of a key are two pairs of version and value: the one with the
//! greater version stands; of equal versions, the one with the greater value. So the order in which they
//! come doesn't matter.
//! The empty value is the tombstone: it reads as absent and is kept.
//!
//! Invariants: a walk takes one shard's lock at a time, and calls nobody while it has it; nobody waits for
//! a shard's lock while having another's.

use std::hash::{DefaultHasher, Hasher};
use std::hint::black_box;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::digest::digest;
use crate::net::Random;

use super::table::{Record, Table};

/// A power of two: enough that 64 threads seldom meet, and that a shard's walk, during which gets of
/// its keys wait, is short. The same on every node: shards are the ranges that two nodes compare.
pub const SHARDS: usize = 1024;

/// Keys that are brought near together.
const TOUCHED_AT_ONCE: usize = 24;

/// A key's shard, and its hash within that.
struct Place {
    shard: usize,
    hash: u32,
}

/// What a merge found and did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Merged {
    /// The version held now.
    pub version: i64,
    /// Something later is held: a greater version, or a greater value of the same version.
    pub later: bool,
    /// The key was not held before.
    pub new: bool,
}

pub struct Items {
    shards: Vec<Mutex<Table>>,
    /// Has taken in a secret of this process: nobody can choose keys that collide within a shard.
    hasher: DefaultHasher,
}

impl Items {
    pub fn new(random: &Random) -> Self {
        let mut hasher = DefaultHasher::new();
        for _ in 0..2 {
            hasher.write_usize(random.below(usize::MAX));
        }
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Items { shards, hasher }
    }

    /// A poisoned lock is taken all the same: a shard is changed by single calls of its table.
    fn shard(&self, number: usize) -> MutexGuard<'_, Table> {
        self.shards[number]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn place(&self, key: &[u8]) -> Place {
        let mut hasher = self.hasher.clone();
        hasher.write(key);
        Place {
            shard: digest(key) as usize % SHARDS,
            hash: hasher.finish() as u32,
        }
    }

    /// Has the processor bring the items of these keys into its cache, side by side. If they were looked
    /// up one by one, with the serving of a request or the taking of a lock between two, it would wait for
    /// each in turn. So all locks are taken first, except those that other threads hold.
    pub fn touch<'a>(&self, mut keys: impl Iterator<Item = &'a [u8]>) {
        let mut locked = Vec::with_capacity(TOUCHED_AT_ONCE);
        loop {
            let some = keys.by_ref().take(TOUCHED_AT_ONCE);
            locked.extend(some.filter_map(|key| {
                let Place { shard, hash } = self.place(key);
                Some((self.shards[shard].try_lock().ok()?, hash, key))
            }));
            if locked.is_empty() {
                return;
            }
            let records = locked.iter();
            let records = records.filter_map(|(shard, hash, key)| shard.get(*hash, key));
            black_box(records.fold(0, |sum, record| sum ^ record.touch()));
            locked.clear();
        }
    }

    /// Hands the item of `key` to `take`, under the shard's lock.
    pub fn read<T>(&self, key: &[u8], take: impl FnOnce(&Record) -> T) -> Option<T> {
        let place = self.place(key);
        self.shard(place.shard).get(place.hash, key).map(take)
    }

    /// The version held; 0: none.
    pub fn version(&self, key: &[u8]) -> i64 {
        self.read(key, Record::version).unwrap_or(0)
    }

    /// Takes in a new value of a key. `next` is handed the version that is held (0: none), and gives the new
    /// value's version, which is greater.
    pub fn put(&self, key: &[u8], value: &[u8], next: impl FnOnce(i64) -> i64) {
        let Place { shard, hash } = self.place(key);
        let mut shard = self.shard(shard);
        match shard.get_mut(hash, key) {
            Some(record) => record.set(next(record.version()), value),
            None => shard.insert(Record::new(hash, key, next(0), value)),
        }
    }

    /// Takes in an account of a key, if it is the later one.
    pub fn merge(&self, key: &[u8], version: i64, value: &[u8]) -> Merged {
        let Place { shard, hash } = self.place(key);
        let mut shard = self.shard(shard);
        let Some(record) = shard.get_mut(hash, key) else {
            shard.insert(Record::new(hash, key, version, value));
            return Merged {
                version,
                later: false,
                new: true,
            };
        };
        let held = (record.version(), record.value());
        let later = held > (version, value);
        if held < (version, value) {
            record.set(version, value);
        }
        Merged {
            version: record.version(),
            later,
            new: false,
        }
    }

    /// Forgets a key, if it is still held in that version. True: it was.
    pub fn remove(&self, key: &[u8], version: i64) -> bool {
        let Place { shard, hash } = self.place(key);
        let mut shard = self.shard(shard);
        let held = shard.get(hash, key);
        let same = held.is_some_and(|record| record.version() == version);
        if same {
            shard.remove(hash, key);
        }
        same
    }

    pub fn count(&self) -> usize {
        (0..SHARDS).map(|number| self.shard(number).len()).sum()
    }

    /// Hands the items of a shard to `take`, in no order that anybody may rely on, under the shard's lock. The
    /// answer is their number.
    pub fn each(&self, shard: usize, take: impl FnMut(&Record)) -> usize {
        let shard = self.shard(shard);
        shard.iter().for_each(take);
        shard.len()
    }

    /// Hands those items of a shard that are wanted to `take`, in the order of their keys, under the shard's
    /// lock, until it declines.
    pub fn each_in_order(
        &self,
        shard: usize,
        wanted: impl Fn(&Record) -> bool,
        mut take: impl FnMut(&Record) -> bool,
    ) {
        let shard = self.shard(shard);
        let mut chosen: Vec<_> = shard.iter().filter(|record| wanted(record)).collect();
        chosen.sort_unstable_by_key(|record| record.key());
        let _ = chosen.into_iter().all(&mut take);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(items: &Items, key: &[u8]) -> Option<(i64, Vec<u8>)> {
        items.read(key, |record| (record.version(), record.value().to_vec()))
    }

    fn none() -> Items {
        Items::new(&Random::new(1))
    }

    #[test]
    fn must_keep_the_later_account_whatever_the_order() {
        let accounts: [(i64, &[u8]); 4] = [(1, b"a"), (2, b"b"), (2, b"c"), (3, b"")];
        let orders = [[0, 1, 2, 3], [3, 2, 1, 0], [2, 3, 0, 1], [1, 3, 0, 2]];
        for order in orders {
            let items = none();
            for number in order {
                let (version, value) = accounts[number];
                items.merge(b"k", version, value);
            }
            assert_eq!(value(&items, b"k"), Some((3, Vec::new())), "{order:?}");
        }
    }

    #[test]
    fn must_prefer_the_greater_value_among_equal_versions() {
        for order in [[b"x", b"y"], [b"y", b"x"]] {
            let items = none();
            for value in order {
                items.merge(b"k", 7, value);
            }
            assert_eq!(value(&items, b"k"), Some((7, b"y".to_vec())));
        }
    }

    #[test]
    fn must_not_forget_what_has_changed_since() {
        let items = none();
        items.merge(b"k", 1, b"old");
        items.merge(b"k", 2, b"new");
        assert!(!items.remove(b"none", 2));
        assert!(!items.remove(b"k", 1));
        assert!(items.remove(b"k", 2));
        assert_eq!(value(&items, b"k"), None);
    }

    #[test]
    fn must_hand_out_a_shard_in_the_order_of_the_keys() {
        let items = none();
        let mut keys: Vec<_> = (0..80_000_u32).map(|n| n.to_be_bytes().to_vec()).collect();
        keys.retain(|key| items.place(key).shard == 3);
        assert!(keys.len() > 40, "too few keys to show anything");
        for key in keys.iter().rev() {
            items.merge(key, 1, b"v");
        }
        let wanted = |record: &Record| record.key()[3].is_multiple_of(2);
        for most in [1, 7, keys.len()] {
            let mut met = Vec::new();
            items.each_in_order(3, wanted, |record| {
                met.push(record.key().to_vec());
                met.len() < most
            });
            let expected = keys
                .iter()
                .filter(|key| key[3].is_multiple_of(2))
                .take(most);
            assert!(met.iter().eq(expected));
        }
    }
}
