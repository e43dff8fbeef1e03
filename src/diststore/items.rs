//! What a node holds: key to value and version, in memory.
//!
//! Merging is all there is: of two accounts of a key the one with the greater version stands, of
//! equal versions the one with the greater value; so the order in which they come doesn't matter.
//! The empty value is the tombstone: it reads as absent and is kept.
//!
//! Invariants: a walk takes one shard's lock at a time, and calls nobody while it has it; nobody waits for
//! a shard's lock while having another's.

use std::hash::{DefaultHasher, Hasher};
use std::hint::black_box;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::net::Random;

use super::table::{Record, Table};

/// A power of two: enough that 64 threads seldom meet, and that a shard's walk, during which gets of
/// its keys wait, is short.
pub const SHARDS: usize = 1024;

/// Keys that are brought near together.
pub const TOUCHED_AT_ONCE: usize = 24;

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
    /// What was given is now held, and wasn't before.
    pub changed: bool,
    /// Something later is held: a greater version, or a greater value of the same version.
    pub later: bool,
    /// The key was not held before.
    pub new: bool,
}

pub struct Items {
    shards: Vec<Mutex<Table>>,
    /// Has taken in a secret of this process: nobody can choose keys that collide.
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
        let hash = hasher.finish();
        Place {
            shard: hash as usize % SHARDS,
            hash: (hash >> 32) as u32,
        }
    }

    /// Has the processor bring the items of these keys near, side by side: looked up one by one,
    /// with the serving of a request between two, each would be waited for in turn. So it would with a
    /// lock between two; all are taken first, but for those that are taken already.
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
            touch_all(records.filter_map(|(shard, hash, key)| shard.get(*hash, key)));
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

    /// Takes in a new value of a key, in the version that `next` gives when handed the one held (0:
    /// none), and that is greater.
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
        let taken = Merged {
            version,
            later: false,
            changed: true,
            new: false,
        };
        let Some(record) = shard.get_mut(hash, key) else {
            shard.insert(Record::new(hash, key, version, value));
            return Merged { new: true, ..taken };
        };
        let held = (record.version(), record.value());
        if held < (version, value) {
            record.set(version, value);
            return taken;
        }
        Merged {
            version: held.0,
            later: held > (version, value),
            changed: false,
            new: false,
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
        let mut removed = Vec::with_capacity(keys.len());
        for keys in keys.chunks(TOUCHED_AT_ONCE) {
            let hash = |key| self.place(key).hash;
            touch_all(keys.iter().filter_map(|(key, _)| shard.get(hash(key), key)));
            removed.extend(keys.iter().map(|(key, version)| {
                let held = shard.get(hash(key), key);
                let same = held.is_some_and(|record| record.version() == *version);
                if permitted && same {
                    shard.remove(hash(key), key);
                }
                permitted && same
            }));
        }
        removed
    }

    pub fn count(&self) -> usize {
        (0..SHARDS).map(|number| self.shard(number).len()).sum()
    }

    /// Hands those items of a shard to `take` of which `choose` makes something, with that, in no order
    /// that anybody may rely on, under the shard's lock.
    pub fn each<T>(
        &self,
        shard: usize,
        mut choose: impl FnMut(&Record) -> Option<T>,
        mut take: impl FnMut(&Record, T),
    ) {
        let shard = self.shard(shard);
        let mut chosen = Vec::new();
        side_by_side(shard.iter(), touch_unplaced, |record| {
            chosen.extend(choose(record).map(|with| (record, with)));
        });
        let touch = |(record, _): &(&Record, T)| record.touch();
        side_by_side(chosen.into_iter(), touch, |(record, with)| {
            take(record, with)
        });
    }

    /// Hands the items of a shard that `wanted` chooses, from the first key greater than `after` on, to
    /// `take`, under the shard's lock: all of them, in no order, if they have up to `bytes_max` bytes;
    /// else those with the least keys that have so many, one at least. The answer is the last key then;
    /// `None`: that was all.
    pub fn page(
        &self,
        shard: usize,
        after: Option<&[u8]>,
        bytes_max: usize,
        wanted: impl Fn(&Record) -> bool,
        mut take: impl FnMut(&Record),
    ) -> Option<Vec<u8>> {
        let shard = self.shard(shard);
        let mut chosen = Vec::new();
        let mut bytes = 0;
        side_by_side(shard.iter(), touch_unplaced, |record| {
            if after.is_none_or(|after| record.key() > after) && wanted(record) {
                bytes += record.bytes();
                chosen.push(record);
            }
        });
        let cut = bytes > bytes_max;
        if cut {
            chosen.sort_unstable_by_key(|record| record.key());
            let mut left = bytes_max.max(1);
            let fits = |record: &&Record| {
                let fits = left > 0;
                left = left.saturating_sub(record.bytes());
                fits
            };
            let count = chosen.iter().copied().take_while(fits).count();
            chosen.truncate(count);
        }
        side_by_side(
            chosen.iter(),
            |record| record.touch(),
            |record| take(record),
        );
        let last = chosen.last().filter(|_| cut);
        last.map(|record| record.key().to_vec())
    }
}

/// Of one whose place on the ring is known the slot says all that a choice goes by.
fn touch_unplaced(record: &&Record) -> u8 {
    if record.is_placed() {
        0
    } else {
        record.touch()
    }
}

fn touch_all<'a>(records: impl Iterator<Item = &'a Record>) {
    black_box(records.fold(0, |sum, record| sum ^ record.touch()));
}

/// Each record lies somewhere in memory, and waiting for it takes longer than all that is done with
/// it; so a number of them are touched one behind the other, and the processor waits for them at once.
fn side_by_side<T>(
    mut items: impl Iterator<Item = T>,
    touch: impl Fn(&T) -> u8,
    mut take: impl FnMut(T),
) {
    let mut near = Vec::with_capacity(TOUCHED_AT_ONCE);
    loop {
        near.extend(items.by_ref().take(TOUCHED_AT_ONCE));
        if near.is_empty() {
            return;
        }
        black_box(near.iter().fold(0, |sum, item| sum ^ touch(item)));
        near.drain(..).for_each(&mut take);
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
        let remove = |version, permit| {
            let shard = items.place(b"k").shard;
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
        let items = none();
        let mut keys: Vec<_> = (0..80_000_u32).map(|n| n.to_be_bytes().to_vec()).collect();
        keys.retain(|key| items.place(key).shard == 3);
        assert!(keys.len() > 60, "too few keys to show anything");
        for key in &keys {
            items.merge(key, 1, b"v");
        }
        let wanted = |key: &[u8]| key[3].is_multiple_of(2);
        let chosen: Vec<_> = keys.iter().filter(|key| wanted(key)).cloned().collect();
        let record_bytes = items.read(&chosen[0], Record::bytes).unwrap();
        for fit in [0, 1, 7, chosen.len() - 1, chosen.len()] {
            let mut met: Vec<Vec<u8>> = Vec::new();
            let mut pages = 0;
            let mut after = None;
            loop {
                let mut page = Vec::new();
                let wanted = |record: &Record| wanted(record.key());
                let take = |record: &Record| {
                    assert_eq!((record.version(), record.value()), (1, &b"v"[..]));
                    page.push(record.key().to_vec());
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
