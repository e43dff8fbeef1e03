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

/// A power of two: enough that 64 threads seldom meet, and that a shard's walk, during which gets of
/// its keys wait, is short.
pub const SHARDS: usize = 1024;

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

    /// Forgets those of the given keys of a shard that are still held in the version given with them,
    /// if `permit`, asked under the shard's lock, agrees. The answer tells of each whether it was
    /// forgotten.
    pub fn remove(
        &self,
        shard: usize,
        keys: &[(&[u8], i64)],
        permit: impl FnOnce() -> bool,
    ) -> Vec<bool> {
        let mut shard = self.shard(shard);
        let permitted = permit();
        let mut remove = |(key, version): &(&[u8], i64)| {
            let key = self.hashed(key);
            let held = shard.get(&key as &dyn Keyed);
            let same = held.is_some_and(|record| record.version() == *version);
            permitted && same && shard.remove(&key as &dyn Keyed)
        };
        keys.iter().map(&mut remove).collect()
    }

    pub fn count(&self) -> usize {
        (0..SHARDS).map(|number| self.shard(number).len()).sum()
    }

    /// Hands key, version and value of each item of a shard to `take`, in no order that anybody
    /// may rely on, under the shard's lock.
    pub fn each(&self, shard: usize, mut take: impl FnMut(&[u8], i64, &[u8])) {
        each_record(&self.shard(shard), |record| {
            take(record.key(), record.version(), record.value());
        });
    }

    /// Hands key, version and value of the items of a shard that `wanted` chooses, from the first
    /// key greater than `after` on, to `take`, under the shard's lock: all of them, in no order, if
    /// they have up to `bytes_max` bytes; else those with the least keys that have so many, one at
    /// least. The answer is the last key then; `None`: that was all.
    pub fn page(
        &self,
        shard: usize,
        after: Option<&[u8]>,
        bytes_max: usize,
        wanted: impl Fn(&[u8]) -> bool,
        mut take: impl FnMut(&[u8], i64, &[u8]),
    ) -> Option<Vec<u8>> {
        let shard = self.shard(shard);
        let mut chosen = Vec::new();
        let mut bytes = 0;
        each_record(&shard, |record| {
            if after.is_none_or(|after| record.key() > after) && wanted(record.key()) {
                bytes += record.0.len();
                chosen.push(record);
            }
        });
        let cut = bytes > bytes_max;
        if cut {
            chosen.sort_unstable_by_key(|record| record.key());
            let mut left = bytes_max.max(1);
            let fits = |record: &&Record| {
                let fits = left > 0;
                left = left.saturating_sub(record.0.len());
                fits
            };
            let count = chosen.iter().copied().take_while(fits).count();
            chosen.truncate(count);
        }
        for record in &chosen {
            take(record.key(), record.version(), record.value());
        }
        let last = chosen.last().filter(|_| cut);
        last.map(|record| record.key().to_vec())
    }
}

/// Records that are looked at together.
const AHEAD: usize = 32;

/// Each record lies somewhere in memory, and waiting for it takes longer than all that is done with
/// it; so a number of them are touched one behind the other, and the processor waits for them at once.
fn each_record<'a>(shard: &'a Shard, mut take: impl FnMut(&'a Record)) {
    if shard.is_empty() {
        return;
    }
    let mut records = shard.iter();
    let mut ahead: Vec<&Record> = Vec::with_capacity(AHEAD);
    loop {
        ahead.clear();
        ahead.extend(records.by_ref().take(AHEAD));
        if ahead.is_empty() {
            return;
        }
        let touch = |sum, record: &&Record| record.0[VERSION_BYTES] ^ sum;
        black_box(ahead.iter().fold(0, touch));
        ahead.iter().copied().for_each(&mut take);
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
        let remove = |version, permit| {
            let shard = Items::shard_of(b"k");
            let removed = items.remove(shard, &[(b"none", 2), (b"k", version)], || permit);
            assert!(!removed[0]);
            removed[1]
        };
        assert!(!remove(1, true));
        assert!(!remove(2, false));
        assert!(remove(2, true));
        assert_eq!(value(&items, b"k"), None);
    }

    #[test]
    fn must_page_each_item_once_whatever_fits() {
        let items = Items::default();
        let mut keys: Vec<_> = (0..80_000_u32).map(|n| n.to_be_bytes().to_vec()).collect();
        keys.retain(|key| Items::shard_of(key) == 3);
        assert!(keys.len() > 60, "too few keys to show anything");
        for key in &keys {
            items.merge(key, 1, b"v");
        }
        let wanted = |key: &[u8]| key[3].is_multiple_of(2);
        let chosen: Vec<_> = keys.iter().filter(|key| wanted(key)).cloned().collect();
        let record_bytes = HEAD_BYTES + 5;
        for fit in [0, 1, 7, chosen.len() - 1, chosen.len()] {
            let mut met: Vec<Vec<u8>> = Vec::new();
            let mut pages = 0;
            let mut after = None;
            loop {
                let mut page = Vec::new();
                let take = |key: &[u8], version, value: &[u8]| {
                    assert_eq!((version, value), (1, &b"v"[..]));
                    page.push(key.to_vec());
                };
                after = items.page(3, after.as_deref(), fit * record_bytes, wanted, take);
                assert!(page.len() <= fit.max(1), "{} of {fit}", page.len());
                pages += 1;
                page.sort();
                met.extend(page);
                if after.is_none() {
                    break;
                }
            }
            assert_eq!(met, chosen);
            // A page that is cut behind the last item is followed by an empty one.
            let full = chosen.len().div_ceil(fit.max(1));
            assert!(
                pages == full || fit == 0 && pages == full + 1,
                "{fit}: {pages}"
            );
        }
    }
}
