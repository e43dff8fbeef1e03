//! A shard's items: keys, with version and value, in a table with open addressing.
//!
//! Linear probing (Knuth, The Art of Computer Programming, volume 3, section 6.4: algorithms L and R). An item is one
//! allocation and 32 bytes of table. These hold its hash, by which the table grows without a look at the items; and its
//! place on the ring and its value's digest, once these have been asked for: walks over all items need nothing else.
//!
//! Invariant: no slot is free between the slot that a record's hash points to and the record's own slot.

use std::cell::Cell;
use std::collections::TryReserveError;

use crate::digest::{digest, mix};
use crate::ring;

use super::calls::Item;

const VERSION_BYTES: usize = 8;
const HEAD_BYTES: usize = VERSION_BYTES + 4;

/// An item.
pub struct Record {
    hash: u32,
    /// Its key's place on the ring; 0: not worked out yet.
    ring_hash: Cell<u32>,
    /// Of the value; 0: not worked out yet.
    value_digest: Cell<u64>,
    /// Version, length of the key, key, value.
    bytes: Box<[u8]>,
}

impl Record {
    /// # Errors
    /// There is no memory.
    pub fn new(hash: u32, key: &[u8], version: i64, value: &[u8]) -> Result<Self, TryReserveError> {
        let length = u32::try_from(key.len()).expect("BUG: a key of 4 GiB");
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(HEAD_BYTES + key.len() + value.len())?;
        bytes.extend_from_slice(&version.to_ne_bytes());
        bytes.extend_from_slice(&length.to_ne_bytes());
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(value);
        Ok(Record {
            hash,
            ring_hash: Cell::new(0),
            value_digest: Cell::new(0),
            bytes: bytes.into_boxed_slice(),
        })
    }

    pub fn version(&self) -> i64 {
        let bytes = self.bytes.first_chunk().expect("BUG: a record has a head");
        i64::from_ne_bytes(*bytes)
    }

    fn size(&self) -> usize {
        size(self.key().len(), self.value().len())
    }

    fn key_end(&self) -> usize {
        let bytes = &self.bytes[VERSION_BYTES..HEAD_BYTES];
        let length = u32::from_ne_bytes(bytes.try_into().expect("BUG: four bytes"));
        HEAD_BYTES + length as usize
    }

    pub fn key(&self) -> &[u8] {
        &self.bytes[HEAD_BYTES..self.key_end()]
    }

    pub fn value(&self) -> &[u8] {
        &self.bytes[self.key_end()..]
    }

    pub fn is_tombstone(&self) -> bool {
        self.bytes.len() == self.key_end()
    }

    /// Prefetches both ends of the item. The answer means nothing.
    pub fn touch(&self) -> u8 {
        self.bytes[0] ^ self.bytes[self.bytes.len() - 1]
    }

    /// The item, to be moved.
    pub fn item(&self) -> Item<'_> {
        Item {
            key: self.key(),
            version: self.version(),
            value: Some(self.value()),
            digest: None,
            list: None,
        }
    }

    /// Of the value.
    pub fn value_digest(&self) -> u64 {
        if self.value_digest.get() == 0 {
            self.value_digest.set(digest(self.value()).max(1));
        }
        self.value_digest.get()
    }

    /// A number whose wrapping sum over many items tells whether they are the same: of key, version and
    /// value.
    pub fn digest(&self) -> u64 {
        let version = mix(self.version().cast_unsigned());
        mix(digest(self.key()) ^ version ^ self.value_digest().rotate_left(1))
    }

    /// The key's place on the ring.
    pub fn ring_hash(&self) -> u32 {
        if self.ring_hash.get() == 0 {
            self.ring_hash.set(ring::hash(self.key()));
        }
        self.ring_hash.get()
    }

    /// Another value of the key; one that is not longer takes the old one's memory.
    ///
    /// # Errors
    /// There is no memory; nothing has changed.
    pub fn set(&mut self, version: i64, value: &[u8]) -> Result<(), TryReserveError> {
        let end = self.key_end();
        let mut bytes = std::mem::take(&mut self.bytes).into_vec();
        let more = (end + value.len()).saturating_sub(bytes.len());
        let reserved = bytes.try_reserve_exact(more);
        if reserved.is_ok() {
            bytes[..VERSION_BYTES].copy_from_slice(&version.to_ne_bytes());
            bytes.truncate(end);
            bytes.extend_from_slice(value);
            self.value_digest.set(0);
        }
        self.bytes = bytes.into_boxed_slice();
        reserved
    }
}

/// What an item with so long a key and value takes, with what an allocator adds.
fn size(key: usize, value: usize) -> usize {
    (HEAD_BYTES + key + value).next_multiple_of(16) + 16
}

/// Records by their keys' hashes, which the caller works out.
#[derive(Default)]
pub struct Table {
    slots: Vec<Option<Record>>,
    count: usize,
    /// How many of them are tombstones.
    tombstones: usize,
    /// What the records take.
    records: usize,
    /// How many have been forgotten, as others have them.
    removed: u64,
}

impl Table {
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn tombstones(&self) -> usize {
        self.tombstones
    }

    /// What the slots and the records take.
    pub fn bytes(&self) -> usize {
        self.slots.len() * size_of::<Option<Record>>() + self.records
    }

    /// How many records have been forgotten, as others have them, or cleared.
    pub fn removed(&self) -> u64 {
        self.removed
    }

    /// Takes all out.
    pub fn clear(&mut self) -> Table {
        let removed = self.removed + self.count as u64;
        std::mem::replace(
            self,
            Table {
                removed,
                ..Table::default()
            },
        )
    }

    pub fn iter(&self) -> impl Iterator<Item = &Record> {
        self.slots.iter().flatten()
    }

    pub fn get(&self, hash: u32, key: &[u8]) -> Option<&Record> {
        self.at(self.find(hash, key))
    }

    /// The record in a slot that was found.
    pub fn at(&self, found: Option<usize>) -> Option<&Record> {
        self.slots[found?].as_ref()
    }

    /// What has to be allocated for this value of the key that was found, or not; 0: it fits into what its old one takes.
    /// What it replaces is there meanwhile.
    pub fn needed(&self, found: Option<usize>, key: &[u8], value: &[u8]) -> usize {
        let new = size(key.len(), value.len());
        match self.at(found) {
            Some(record) if new <= record.size() => 0,
            Some(_) => new,
            None if self.is_full() => new + self.grown() * size_of::<Option<Record>>(),
            None => new,
        }
    }

    /// Writes a value of the key that was found, or not.
    ///
    /// # Errors
    /// There is no memory; nothing has changed.
    pub fn write(
        &mut self,
        found: Option<usize>,
        hash: u32,
        key: &[u8],
        version: i64,
        value: &[u8],
    ) -> Result<(), TryReserveError> {
        if let Some(place) = found
            && let Some(record) = &mut self.slots[place]
        {
            let old = (record.size(), record.is_tombstone());
            record.set(version, value)?;
            self.records = self.records - old.0 + record.size();
            self.tombstones = self.tombstones - usize::from(old.1) + usize::from(value.is_empty());
            return Ok(());
        }
        let record = Record::new(hash, key, version, value)?;
        if self.is_full() {
            self.grow()?;
        }
        self.count += 1;
        self.tombstones += usize::from(value.is_empty());
        self.records += record.size();
        self.place(record);
        Ok(())
    }

    /// Frees the slot that was found, of a record that others have.
    pub fn give_up(&mut self, found: usize) {
        self.removed += 1;
        self.remove(found);
    }

    /// Frees the slot that was found.
    pub fn remove(&mut self, found: usize) {
        let Some(record) = self.slots[found].take() else {
            return;
        };
        self.count -= 1;
        self.tombstones -= usize::from(record.is_tombstone());
        self.records -= record.size();
        let length = self.slots.len();
        let (mut free, mut place) = (found, found);
        loop {
            place = self.after(place);
            let Some(record) = &self.slots[place] else {
                return;
            };
            // Backward-shift deletion: a record whose probe path crosses the free slot moves into it.
            let way = (place + length - self.home(record.hash)) % length;
            if way >= (place + length - free) % length {
                self.slots.swap(free, place);
                free = place;
            }
        }
    }

    /// Removes the tombstones up to that version.
    pub fn remove_tombstones(&mut self, floor: i64) {
        let old = |record: &&Record| record.is_tombstone() && record.version() <= floor;
        let old = self.iter().filter(old);
        let old: Vec<_> = old.map(|r| (r.hash, r.key().to_vec())).collect();
        for (hash, key) in old {
            if let Some(found) = self.find(hash, &key) {
                self.remove(found);
            }
        }
    }

    fn is_full(&self) -> bool {
        5 * (self.count + 1) > 4 * self.slots.len()
    }

    /// A quarter more slots.
    fn grown(&self) -> usize {
        (self.slots.len() * 5 / 4).max(8)
    }

    fn grow(&mut self) -> Result<(), TryReserveError> {
        let length = self.grown();
        let mut slots = Vec::new();
        slots.try_reserve_exact(length)?;
        slots.resize_with(length, || None);
        let old = std::mem::replace(&mut self.slots, slots);
        for record in old.into_iter().flatten() {
            self.place(record);
        }
        Ok(())
    }

    /// The slot that a hash points to: the slots' share of the hashes is even.
    fn home(&self, hash: u32) -> usize {
        ((u64::from(hash) * self.slots.len() as u64) >> 32) as usize
    }

    fn after(&self, place: usize) -> usize {
        let next = place + 1;
        if next == self.slots.len() { 0 } else { next }
    }

    /// The slot of a key.
    pub fn find(&self, hash: u32, key: &[u8]) -> Option<usize> {
        let mut place = self.home(hash);
        loop {
            let record = self.slots.get(place)?.as_ref()?;
            if record.hash == hash && record.key() == key {
                return Some(place);
            }
            place = self.after(place);
        }
    }

    /// Puts a record into the first free slot on its way. There is one.
    fn place(&mut self, record: Record) {
        let mut place = self.home(record.hash);
        while self.slots[place].is_some() {
            place = self.after(place);
        }
        self.slots[place] = Some(record);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::net::Random;

    #[test]
    fn must_be_what_it_is_told_to_be() {
        let seed = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
        println!("seed {seed}");
        let dice = Random::new(seed);
        // Many hashes alike, at both ends as well.
        let hashes = [0, 1, u32::MAX, u32::MAX - 1, 1 << 31, 7];
        for keys in [1, 5, 50, 1000] {
            let mut table = Table::default();
            let mut model: BTreeMap<(Vec<u8>, u32), (i64, Vec<u8>)> = BTreeMap::new();
            for step in 0..20_000_i64 {
                let number = dice.below(keys);
                let hash = match number % 3 {
                    0 => hashes[number / 3 % hashes.len()],
                    _ => (number as u32).wrapping_mul(0x9e37_79b9),
                };
                let key = number.to_be_bytes()[8 - number % 3 - 2..].to_vec();
                match dice.below(3) {
                    0 => {
                        if let Some(found) = table.find(hash, &key) {
                            table.remove(found);
                        }
                        model.remove(&(key, hash));
                    }
                    _ => {
                        let value = vec![step as u8; dice.below(3) * dice.below(30)];
                        let found = table.find(hash, &key);
                        let (before, needed) = (table.bytes(), table.needed(found, &key, &value));
                        table.write(found, hash, &key, step, &value).unwrap();
                        assert!(table.bytes() <= before + needed);
                        model.insert((key, hash), (step, value));
                    }
                }
                if dice.below(100) == 0 {
                    let floor = step - dice.below(200) as i64;
                    table.remove_tombstones(floor);
                    model.retain(|_, (version, value)| !value.is_empty() || *version > floor);
                }
                assert_eq!(table.len(), model.len());
                let tombstones = model.values().filter(|(_, value)| value.is_empty());
                assert_eq!(table.tombstones(), tombstones.count());
                let records: usize = table.iter().map(Record::size).sum();
                assert_eq!(table.bytes(), records + 32 * table.slots.len());
            }
            for ((key, hash), (version, value)) in &model {
                let record = table.get(*hash, key).expect("a key is lost");
                assert_eq!((record.version(), record.value()), (*version, &value[..]));
                assert_eq!(record.ring_hash(), ring::hash(key));
            }
            let mut all: Vec<_> = table.iter().map(|r| (r.key().to_vec(), r.hash)).collect();
            all.sort();
            assert!(all.iter().eq(model.keys()));
        }
    }

    #[test]
    fn must_take_no_more_than_it_says() {
        assert_eq!(size_of::<Option<Record>>(), 32);
    }
}
