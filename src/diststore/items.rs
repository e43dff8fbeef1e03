//! What a node holds: key to value and version, in memory.
//!
//! Merging is all there is: of two accounts of a key the one with the greater version stands, of
//! equal versions the one with the greater value; so the order in which they come doesn't matter.
//! The empty value is the tombstone: it reads as absent and is kept.
//!
//! Invariant: a walk takes one shard's lock at a time, and calls nobody while it has it.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher, RandomState};
use std::hint::black_box;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::locator::fnv1a;

/// A power of two: enough that 64 threads seldom meet, and that a shard's walk is short.
pub const SHARDS: usize = 256;

/// One item in one allocation: version, length of the key, key, value. A million small items cost
/// a third less than as two boxes and a number each.
struct Record(Box<[u8]>);

const VERSION_BYTES: usize = 8;
const HEAD_BYTES: usize = VERSION_BYTES + 4;

impl Record {
    fn new(key: &[u8], version: i64, value: &[u8]) -> Self {
        let length = u32::try_from(key.len()).expect("BUG: a key of 4 GiB");
        let mut bytes = Vec::with_capacity(HEAD_BYTES + key.len() + value.len());
        bytes.extend_from_slice(&version.to_ne_bytes());
        bytes.extend_from_slice(&length.to_ne_bytes());
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(value);
        Record(bytes.into_boxed_slice())
    }

    fn version(&self) -> i64 {
        let bytes = self.0.first_chunk().expect("BUG: a record has a head");
        i64::from_ne_bytes(*bytes)
    }

    fn key_end(&self) -> usize {
        let bytes = &self.0[VERSION_BYTES..HEAD_BYTES];
        let length = u32::from_ne_bytes(bytes.try_into().expect("BUG: four bytes"));
        HEAD_BYTES + length as usize
    }

    fn key(&self) -> &[u8] {
        &self.0[HEAD_BYTES..self.key_end()]
    }

    fn value(&self) -> &[u8] {
        &self.0[self.key_end()..]
    }
}

/// A key with its hash and its shard, to be looked up as often as need be.
struct Hashed<'a> {
    key: &'a [u8],
    hash: u64,
    shard: usize,
}

/// What a shard's table is searched by: an item, or a key that has been hashed.
trait Keyed {
    fn key(&self) -> &[u8];

    /// The hash, if it is known.
    fn known_hash(&self) -> Option<u64>;
}

impl Keyed for Record {
    fn key(&self) -> &[u8] {
        self.key()
    }

    fn known_hash(&self) -> Option<u64> {
        None
    }
}

impl Keyed for Hashed<'_> {
    fn key(&self) -> &[u8] {
        self.key
    }

    fn known_hash(&self) -> Option<u64> {
        Some(self.hash)
    }
}

impl<'a> Borrow<dyn Keyed + 'a> for Record {
    fn borrow(&self) -> &(dyn Keyed + 'a) {
        self
    }
}

impl Hash for dyn Keyed + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self.known_hash() {
            Some(hash) => state.write_u64(hash),
            None => state.write(self.key()),
        }
    }
}

impl PartialEq for dyn Keyed + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for dyn Keyed + '_ {}

impl Hash for Record {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self as &dyn Keyed).hash(state);
    }
}

impl PartialEq for Record {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Record {}

/// Hashes keys with a secret of this process, so that nobody can choose keys that collide, and
/// lets a hash that is known already be.
#[derive(Clone, Default)]
struct Secret(RandomState);

enum SecretHasher {
    Hashing(DefaultHasher),
    Known(u64),
}

impl BuildHasher for Secret {
    type Hasher = SecretHasher;

    fn build_hasher(&self) -> SecretHasher {
        SecretHasher::Hashing(self.0.build_hasher())
    }
}

impl Hasher for SecretHasher {
    fn write(&mut self, bytes: &[u8]) {
        if let SecretHasher::Hashing(hasher) = self {
            hasher.write(bytes);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        *self = SecretHasher::Known(hash);
    }

    fn finish(&self) -> u64 {
        match self {
            SecretHasher::Hashing(hasher) => hasher.finish(),
            SecretHasher::Known(hash) => *hash,
        }
    }
}

type Shard = HashSet<Record, Secret>;

/// What a merge found and did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Merged {
    /// The version held now.
    pub version: i64,
    /// What was given is now held, and wasn't before.
    pub changed: bool,
    /// Something later is held: a greater version, or a greater value of the same version.
    pub later: bool,
    /// The key was not held before.
    pub new: bool,
}

pub struct Items {
    shards: Vec<Mutex<Shard>>,
    secret: Secret,
}

impl Default for Items {
    fn default() -> Self {
        let secret = Secret::default();
        let shard = |_| Mutex::new(Shard::with_hasher(secret.clone()));
        let shards = (0..SHARDS).map(shard).collect();
        Items { shards, secret }
    }
}

impl Items {
    /// The shard of a key is the same on every node, so that nodes can compare shards.
    pub fn shard_of(key: &[u8]) -> usize {
        fnv1a(key) as usize % SHARDS
    }

    /// A poisoned lock is taken all the same: a shard is changed by single calls of the set.
    fn shard(&self, number: usize) -> MutexGuard<'_, Shard> {
        self.shards[number]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn hashed<'a>(&self, key: &'a [u8]) -> Hashed<'a> {
        let mut hasher = self.secret.build_hasher();
        hasher.write(key);
        Hashed {
            key,
            hash: hasher.finish(),
            shard: Self::shard_of(key),
        }
    }

    /// Has the processor bring the items of these keys near, side by side: looked up one by one,
    /// with the serving of a request between two, each would be waited for in turn.
    pub fn touch<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) {
        // Hashed before, so that what is left for each key is little, and the processor is ahead
        // by several.
        let mut hashed = Vec::with_capacity(16);
        hashed.extend(keys.map(|key| self.hashed(key)));
        let ends = hashed.iter().map(|key| {
            let shard = self.shard(key.shard);
            let record = shard.get(key as &dyn Keyed);
            record.map_or(0, |record| u64::from(record.0[record.0.len() - 1]))
        });
        black_box(ends.sum::<u64>());
    }

    /// Hands version and value of `key` to `take`, under the shard's lock.
    pub fn read<T>(&self, key: &[u8], take: impl FnOnce(i64, &[u8]) -> T) -> Option<T> {
        let key = self.hashed(key);
        let shard = self.shard(key.shard);
        shard
            .get(&key as &dyn Keyed)
            .map(|record| take(record.version(), record.value()))
    }

    /// The version held; 0: none.
    pub fn version(&self, key: &[u8]) -> i64 {
        self.read(key, |version, _| version).unwrap_or(0)
    }

    /// Takes in a new value of a key, in the version that `next` gives when handed the one held (0:
    /// none), and that is greater.
    pub fn put(&self, key: &[u8], value: &[u8], next: impl FnOnce(i64) -> i64) {
        let hashed = self.hashed(key);
        let mut shard = self.shard(hashed.shard);
        let held = shard.get(&hashed as &dyn Keyed).map_or(0, Record::version);
        shard.replace(Record::new(key, next(held), value));
    }

    /// Takes in an account of a key, if it is the later one.
    pub fn merge(&self, key: &[u8], version: i64, value: &[u8]) -> Merged {
        let hashed = self.hashed(key);
        let mut shard = self.shard(hashed.shard);
        let held = shard.get(&hashed as &dyn Keyed);
        let new = held.is_none();
        if let Some(held) = held
            && (held.version(), held.value()) >= (version, value)
        {
            let later = (held.version(), held.value()) > (version, value);
            let version = held.version();
            return Merged {
                version,
                later,
                changed: false,
                new,
            };
        }
        shard.replace(Record::new(key, version, value));
        Merged {
            version,
            later: false,
            changed: true,
            new,
        }
    }

    /// Forgets `key`, if it is still held in that version and `permit`, asked under the shard's
    /// lock, agrees.
    pub fn remove(&self, key: &[u8], version: i64, permit: impl FnOnce() -> bool) -> bool {
        let key = self.hashed(key);
        let mut shard = self.shard(key.shard);
        let same = shard
            .get(&key as &dyn Keyed)
            .is_some_and(|record| record.version() == version);
        same && permit() && shard.remove(&key as &dyn Keyed)
    }

    pub fn count(&self) -> usize {
        (0..SHARDS).map(|number| self.shard(number).len()).sum()
    }

    /// Hands key, version and value of each item of a shard to `take`, in no order that anybody
    /// may rely on, under the shard's lock.
    pub fn each(&self, shard: usize, mut take: impl FnMut(&[u8], i64, &[u8])) {
        for record in self.shard(shard).iter() {
            take(record.key(), record.version(), record.value());
        }
    }

    /// The items of a shard that `wanted` chooses, from the first key greater than `after` on, in
    /// the order of their keys, until `take` answers false: it is handed key, version and value
    /// under the shard's lock. True: it went to the end.
    pub fn walk(
        &self,
        shard: usize,
        after: Option<&[u8]>,
        wanted: impl Fn(&[u8]) -> bool,
        mut take: impl FnMut(&[u8], i64, &[u8]) -> bool,
    ) -> bool {
        let shard = self.shard(shard);
        let behind = |record: &&Record| after.is_none_or(|after| record.key() > after);
        let chosen = shard
            .iter()
            .filter(behind)
            .filter(|record| wanted(record.key()));
        let mut records: Vec<_> = chosen.collect();
        records.sort_unstable_by(|one, other| one.key().cmp(other.key()));
        records
            .into_iter()
            .all(|record| take(record.key(), record.version(), record.value()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(items: &Items, key: &[u8]) -> Option<(i64, Vec<u8>)> {
        items.read(key, |version, value| (version, value.to_vec()))
    }

    #[test]
    fn must_keep_the_later_account_whatever_the_order() {
        let accounts: [(i64, &[u8]); 4] = [(1, b"a"), (2, b"b"), (2, b"c"), (3, b"")];
        let orders = [[0, 1, 2, 3], [3, 2, 1, 0], [2, 3, 0, 1], [1, 3, 0, 2]];
        for order in orders {
            let items = Items::default();
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
            let items = Items::default();
            for value in order {
                items.merge(b"k", 7, value);
            }
            assert_eq!(value(&items, b"k"), Some((7, b"y".to_vec())));
        }
    }

    #[test]
    fn must_not_forget_what_has_changed_since() {
        let items = Items::default();
        items.merge(b"k", 1, b"old");
        items.merge(b"k", 2, b"new");
        assert!(!items.remove(b"k", 1, || true));
        assert!(!items.remove(b"k", 2, || false));
        assert!(items.remove(b"k", 2, || true));
        assert_eq!(value(&items, b"k"), None);
    }

    #[test]
    fn must_walk_in_order_and_go_on_where_it_stopped() {
        let items = Items::default();
        let mut keys: Vec<_> = (0..20_000_u32).map(|n| n.to_be_bytes().to_vec()).collect();
        keys.retain(|key| Items::shard_of(key) == 3);
        assert!(keys.len() > 10, "too few keys to show anything");
        for key in &keys {
            items.merge(key, 1, b"v");
        }
        let mut met: Vec<Vec<u8>> = Vec::new();
        loop {
            let mut room = 7;
            let after = met.last().cloned();
            let end = items.walk(
                3,
                after.as_deref(),
                |_| true,
                |key, _, _| {
                    let fits = room > 0;
                    if fits {
                        room -= 1;
                        met.push(key.to_vec());
                    }
                    fits
                },
            );
            if end {
                break;
            }
        }
        assert_eq!(met, keys);
    }
}
