//! What a node holds: key to value and version, in memory.
//!
//! Of two items of a key the later one stays: the one with the greater version; of equal versions, the one with the
//! greater value. So the order in which they come doesn't matter. The empty value is the tombstone: it reads as absent,
//! and is kept until nothing older can turn up (`forget.rs`).
//!
//! What makes the items larger is refused above a limit, but for two things. A tombstone of a key that is not held may
//! take up to a sixteenth more: where a replica has had no room for a value, its deletion still has to get there. And
//! the primary's own copy of a put is stored in any case, as other replicas may have theirs already.
//!
//! Invariants: a walk takes one shard's lock at a time, and makes no call while it has it; no thread waits for a
//! shard's lock while it has another's.

use std::hash::{DefaultHasher, Hasher};
use std::hint::black_box;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::digest::digest;
use crate::os::is_to_be_had;
use crate::words::no_room;

use super::table::{Record, Table};

/// A power of two: enough that 64 threads seldom meet, and that a shard's walk, during which gets of
/// its keys wait, is short. The same on every node: shards are the ranges that two nodes compare.
pub const SHARDS: usize = 1024;

/// Keys whose items are prefetched together.
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
    /// The given item is stored now, and was not before.
    pub taken: bool,
    /// A value was held before: no tombstone.
    pub had: bool,
}

/// With each further step of what items take it is looked whether the system has [`SPARE_BYTES`] left for all else that a
/// node does: it may have less than the limit, and a node that gets nothing more for a connection or a thread is at its
/// end.
const STEP_BYTES: usize = 1 << 20;
const SPARE_BYTES: usize = 16 << 20;

/// There is no room for an item.
#[derive(Debug)]
pub struct NoRoom;

pub struct Items {
    shards: Vec<Mutex<Table>>,
    /// How many bytes items and tables may take.
    limit: usize,
    /// How many they take.
    taken: AtomicUsize,
    /// How many more were wanted when something was refused last.
    lacking: AtomicUsize,
    /// How many items there are.
    count: AtomicUsize,
    /// How many of them are tombstones, and the greatest version that one had.
    tombstones: AtomicUsize,
    deleted: AtomicI64,
    /// Keyed with a secret of this process: nobody outside can choose keys that collide within a shard.
    hasher: DefaultHasher,
}

impl Items {
    /// None, which may take that many bytes. `secret`: a number that nobody outside can know.
    pub fn new(secret: u64, limit: usize) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(secret);
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Items {
            shards,
            limit,
            taken: AtomicUsize::new(0),
            lacking: AtomicUsize::new(0),
            count: AtomicUsize::new(0),
            tombstones: AtomicUsize::new(0),
            deleted: AtomicI64::new(0),
            hasher,
        }
    }

    /// How many bytes items and tables take, and how many they may take.
    pub fn memory(&self) -> (usize, usize) {
        (self.taken.load(Relaxed), self.limit)
    }

    /// How many bytes more were wanted when something was refused last; 0: there is room for them now.
    pub fn lacking(&self) -> usize {
        let lacking = self.lacking.load(Relaxed);
        let fits = self.taken.load(Relaxed).saturating_add(lacking) <= self.limit;
        if fits { 0 } else { lacking }
    }

    /// What there is no room for, in words.
    pub fn no_room(&self) -> String {
        let (taken, limit) = self.memory();
        no_room(self.lacking.load(Relaxed), taken, limit)
    }

    /// Takes so many bytes for that value.
    fn take(&self, bytes: usize, value: &[u8], foreseen: bool) -> Result<(), NoRoom> {
        let most = match value {
            _ if bytes == 0 => return Ok(()),
            _ if foreseen => usize::MAX,
            [] => self.limit.saturating_add(self.limit / 16),
            _ => self.limit,
        };
        let take = |taken: usize| taken.checked_add(bytes).filter(|taken| *taken <= most);
        let taken = self.taken.fetch_update(Relaxed, Relaxed, take);
        let taken = taken.map_err(|_| self.refused(bytes))?;
        let steps = taken / STEP_BYTES != (taken + bytes) / STEP_BYTES;
        // A deletion makes room.
        if steps && !foreseen && !value.is_empty() && !is_to_be_had(bytes + SPARE_BYTES) {
            self.give_back(bytes);
            return Err(self.refused(bytes));
        }
        Ok(())
    }

    fn refused(&self, bytes: usize) -> NoRoom {
        self.lacking.store(bytes, Relaxed);
        NoRoom
    }

    fn give_back(&self, bytes: usize) {
        if bytes > 0 {
            self.taken.fetch_sub(bytes, Relaxed);
        }
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

    /// Prefetches the items of these keys, side by side. If they were looked up one by one, with a request or a lock
    /// between two, the processor would wait for each in turn. So all locks are taken first, except those that other
    /// threads hold.
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

    /// Whether there is room for this value of a key now.
    pub fn has_room(&self, key: &[u8], value: &[u8]) -> bool {
        let Place { shard, hash } = self.place(key);
        let shard = self.shard(shard);
        let needed = shard.needed(shard.find(hash, key), key, value);
        let taken = self.take(needed, value, false);
        taken.map(|()| self.give_back(needed)).is_ok()
    }

    /// Stores a new value of a key. `next` gets the version that is held (0: none), and returns the new value's
    /// version, which is greater.
    ///
    /// # Errors
    /// There is no room for it.
    pub fn put(
        &self,
        key: &[u8],
        value: &[u8],
        next: impl FnOnce(i64) -> i64,
    ) -> Result<(), NoRoom> {
        let Place { shard, hash } = self.place(key);
        let mut shard = self.shard(shard);
        let found = shard.find(hash, key);
        let version = next(shard.at(found).map_or(0, Record::version));
        self.write(&mut shard, found, hash, (key, version, value), false)
    }

    /// Stores an item, if it is later than the one that is held. `foreseen`: whether there is room or not.
    ///
    /// # Errors
    /// There is no room for it.
    pub fn merge(
        &self,
        key: &[u8],
        version: i64,
        value: &[u8],
        foreseen: bool,
    ) -> Result<Merged, NoRoom> {
        let Place { shard, hash } = self.place(key);
        let mut shard = self.shard(shard);
        let found = shard.find(hash, key);
        let held = shard.at(found).map(|held| (held.version(), held.value()));
        let account = Some((version, value));
        let merged = Merged {
            version: held.map_or(version, |held| held.0.max(version)),
            later: held > account,
            new: held.is_none(),
            taken: held < account,
            had: held.is_some_and(|(_, value)| !value.is_empty()),
        };
        if held < account {
            self.write(&mut shard, found, hash, (key, version, value), foreseen)?;
        }
        Ok(merged)
    }

    /// Writes a value of the key that was found, or not.
    fn write(
        &self,
        shard: &mut Table,
        found: Option<usize>,
        hash: u32,
        (key, version, value): (&[u8], i64, &[u8]),
        foreseen: bool,
    ) -> Result<(), NoRoom> {
        let needed = shard.needed(found, key, value);
        self.take(needed, value, foreseen)?;
        let (bytes, before) = (shard.bytes(), (shard.len(), shard.tombstones()));
        let written = shard.write(found, hash, key, version, value);
        self.give_back(needed + bytes - shard.bytes());
        if value.is_empty() {
            self.deleted.fetch_max(version, Relaxed);
        }
        self.recount(before, shard);
        written.map_err(|_| self.refused(needed))
    }

    /// A shard had so many items and tombstones before.
    fn recount(&self, (items, tombstones): (usize, usize), shard: &Table) {
        let change = |total: &AtomicUsize, before: usize, now: usize| {
            if now != before {
                total.fetch_add(now.wrapping_sub(before), Relaxed);
            }
        };
        change(&self.count, items, shard.len());
        change(&self.tombstones, tombstones, shard.tombstones());
    }

    /// How many tombstones there are, and the greatest version that one had.
    pub fn tombstones(&self) -> (usize, i64) {
        (self.tombstones.load(Relaxed), self.deleted.load(Relaxed))
    }

    /// Forgets the tombstones of a shard up to that version, if `may` says so under the shard's lock. The answer is
    /// the number of items that were looked at.
    pub fn forget(&self, shard: usize, floor: i64, may: impl FnOnce() -> bool) -> usize {
        let mut shard = self.shard(shard);
        let count = shard.len();
        if shard.tombstones() == 0 || !may() {
            return 0;
        }
        let (bytes, before) = (shard.bytes(), (shard.len(), shard.tombstones()));
        shard.remove_tombstones(floor);
        self.give_back(bytes - shard.bytes());
        self.recount(before, &shard);
        count
    }

    /// Drops everything.
    pub fn clear(&self) {
        for number in 0..SHARDS {
            let mut shard = self.shard(number);
            let dropped = shard.clear();
            self.give_back(dropped.bytes());
            self.recount((dropped.len(), dropped.tombstones()), &shard);
        }
    }

    /// Forgets a key, if it is still held in that version. True: it was.
    pub fn remove(&self, key: &[u8], version: i64) -> bool {
        let Place { shard, hash } = self.place(key);
        let mut shard = self.shard(shard);
        let found = shard.find(hash, key);
        let held = shard.at(found);
        let found = found.filter(|_| held.is_some_and(|held| held.version() == version));
        if let Some(found) = found {
            let (bytes, before) = (shard.bytes(), (shard.len(), shard.tombstones()));
            shard.give_up(found);
            self.give_back(bytes - shard.bytes());
            self.recount(before, &shard);
        }
        found.is_some()
    }

    /// How many keys of a shard have been forgotten because others have them.
    pub fn removed(&self, shard: usize) -> u64 {
        self.shard(shard).removed()
    }

    /// How many items there are.
    pub fn count(&self) -> usize {
        self.count.load(Relaxed)
    }

    /// Hands the items of a shard to `take`, in no particular order, under the shard's lock. The answer is their
    /// number.
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
    use crate::net::Random;

    fn value(items: &Items, key: &[u8]) -> Option<(i64, Vec<u8>)> {
        items.read(key, |record| (record.version(), record.value().to_vec()))
    }

    fn none() -> Items {
        Items::new(1, usize::MAX)
    }

    #[test]
    fn must_keep_the_later_account_whatever_the_order() {
        let accounts: [(i64, &[u8]); 4] = [(1, b"a"), (2, b"b"), (2, b"c"), (3, b"")];
        let orders = [[0, 1, 2, 3], [3, 2, 1, 0], [2, 3, 0, 1], [1, 3, 0, 2]];
        for order in orders {
            let items = none();
            for number in order {
                let (version, value) = accounts[number];
                items.merge(b"k", version, value, false).unwrap();
            }
            assert_eq!(value(&items, b"k"), Some((3, Vec::new())), "{order:?}");
        }
    }

    #[test]
    fn must_prefer_the_greater_value_among_equal_versions() {
        for order in [[b"x", b"y"], [b"y", b"x"]] {
            let items = none();
            for value in order {
                items.merge(b"k", 7, value, false).unwrap();
            }
            assert_eq!(value(&items, b"k"), Some((7, b"y".to_vec())));
        }
    }

    #[test]
    fn must_not_forget_what_has_changed_since() {
        let items = none();
        items.merge(b"k", 1, b"old", false).unwrap();
        items.merge(b"k", 2, b"new", false).unwrap();
        assert!(!items.remove(b"none", 2));
        assert!(!items.remove(b"k", 1));
        assert!(items.remove(b"k", 2));
        assert_eq!(value(&items, b"k"), None);
    }

    #[test]
    fn must_forget_tombstones_up_to_the_floor_and_nothing_else() {
        let items = none();
        let forget = |floor, may| {
            for shard in 0..SHARDS {
                items.forget(shard, floor, || may);
            }
        };
        let accounts: [(&[u8], i64, &[u8]); 4] = [
            (b"a", 1, b""),
            (b"b", 2, b""),
            (b"c", 3, b""),
            (b"d", 1, b"v"),
        ];
        for (key, version, value) in accounts {
            items.merge(key, version, value, false).unwrap();
        }
        assert_eq!(items.tombstones(), (3, 3));
        forget(2, false);
        assert_eq!(items.count(), 4);
        forget(2, true);
        assert_eq!(
            [b"a", b"b", b"c", b"d"].map(|key| items.version(key)),
            [0, 0, 3, 1]
        );
        assert_eq!(items.tombstones(), (1, 3));
        items.clear();
        assert_eq!(
            (items.count(), items.tombstones(), items.memory().0),
            (0, (0, 3), 0)
        );
    }

    #[test]
    fn must_hand_out_a_shard_in_the_order_of_the_keys() {
        let items = none();
        let mut keys: Vec<_> = (0..80_000_u32).map(|n| n.to_be_bytes().to_vec()).collect();
        keys.retain(|key| items.place(key).shard == 3);
        assert!(keys.len() > 40, "too few keys to show anything");
        for key in keys.iter().rev() {
            items.merge(key, 1, b"v", false).unwrap();
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

    fn counted(items: &Items) -> usize {
        (0..SHARDS).map(|number| items.shard(number).bytes()).sum()
    }

    #[test]
    fn must_count_what_it_holds_and_refuse_what_is_above_the_limit() {
        const LIMIT: usize = 2 << 20;
        let seed = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
        println!("seed {seed}");
        let dice = Random::new(seed);
        let items = Items::new(seed, LIMIT);
        let lengths = [0, 1, 15, 16, 17, 100, 3000, 200_000];
        let (mut refused, mut taken_in) = (0, 0);
        for version in 1..=20_000 {
            let key = dice.below(8000).to_be_bytes();
            let bytes = vec![b'v'; lengths[dice.below(lengths.len())]];
            let before = value(&items, &key);
            let longer = before
                .as_ref()
                .is_none_or(|held| bytes.len() > held.1.len());
            let outcome = match dice.below(4) {
                0 => {
                    let held = before.as_ref().map_or(0, |held| held.0);
                    assert_eq!(items.remove(&key, held), held > 0);
                    Ok(())
                }
                1 => items.put(&key, &bytes, |_| version),
                _ => items.merge(&key, version, &bytes, false).map(|_| ()),
            };
            if outcome.is_err() {
                refused += 1;
                assert!(longer, "what is not longer goes on");
                assert_eq!(value(&items, &key), before, "nothing has changed");
                assert!(items.lacking() > 0 || bytes.is_empty());
                assert!(!items.has_room(&key, &bytes));
            } else {
                taken_in += 1;
            }
            assert!(items.memory().0 <= LIMIT / 16 * 17);
            if version % 100 == 0 {
                assert_eq!(items.memory().0, counted(&items));
                let tombstones = (0..SHARDS).map(|number| items.shard(number).tombstones());
                assert_eq!(items.tombstones().0, tombstones.sum::<usize>());
                let counts = (0..SHARDS).map(|number| items.shard(number).len());
                assert_eq!(items.count(), counts.sum::<usize>());
            }
        }
        assert!(refused > 1000 && taken_in > 1000, "{refused} {taken_in}");
        let (held, _) = items.memory();
        items.merge(b"foreseen", 1, &[0; LIMIT], true).unwrap();
        assert!(items.memory().0 > held + LIMIT);
        assert_eq!(items.memory().0, counted(&items));
    }

    #[test]
    fn must_take_tombstones_where_nothing_else_has_room() {
        const LIMIT: usize = 1 << 20;
        let items = Items::new(1, LIMIT);
        let fill = |value: &[u8]| {
            let mut keys = (0..100_000_u32).map(|number| {
                [b'k', value.len() as u8, 0, 0, 0]
                    .into_iter()
                    .chain(number.to_be_bytes())
                    .collect::<Vec<_>>()
            });
            keys.find(|key| items.put(key, value, |_| 1).is_err())
                .expect("a bound");
        };
        fill(b"value");
        let (full, _) = items.memory();
        assert!(full <= LIMIT && full > LIMIT - 2000, "{full}");
        fill(b"");
        let (fuller, _) = items.memory();
        assert!(
            fuller <= LIMIT / 16 * 17 && fuller > LIMIT / 16 * 17 - 2000,
            "{fuller}"
        );
        assert!(items.put(b"other", b"value", |_| 1).is_err());
        assert!(items.no_room().starts_with("no room for "));
        assert!(items.lacking() > 0);
    }
}
