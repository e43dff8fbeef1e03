//! The Store service: a key-value store spread over the nodes of a locator's network.
//!
//! It keeps everything in memory, and nothing on disk. Each key has a *primary* and, with
//! `replicas` above 1, further *holders* (see [`View::holders`]). Requests are served in
//! `request.rs`; items move in two ways only: a node that is filling pulls them
//! ([`Application::page`]), and the pass hands them over (`pass.rs`).
//!
//! Invariants:
//!
//! * A put is acknowledged when every holder, in the ring as this node and as the holders see it,
//!   has it.
//! * Versions that a node gives grow, and are greater than all it has seen.
//! * An item is forgotten only when all its holders have said that they have that version or a
//!   greater one, and neither it nor the ring has changed since.

mod business;
mod calls;
mod cursor;
mod items;
mod offer;
mod pass;
mod repair;
mod request;
mod table;

pub use calls::{KeyValue, read_string};

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::location::Location;
use crate::locator::{
    Application, Item, ItemList, LIMITS, Locator, Participant, State, View, fnv1a, give_way, gone,
};
use crate::service::{Call, Order, Service};
use crate::thrift::{Exception, Write};
use crate::words::counted;

use calls::{Found, Stored, Taken};
use cursor::Cursor;
use items::{Items, SHARDS, TOUCHED_AT_ONCE};
use pass::Moves;
use table::Record;

/// The services that a store node answers for.
pub const SERVICE_TYPES: &[&str] = &["locator.Base", "locator.Locator", "diststore.Store"];

/// A page or batch of items is closed when it has this many bytes; so it has less than twice as many,
/// or one large item more.
const BATCH_BYTES: usize = 1 << 20;

// With room for what is around them, and for the list of members that a page may carry.
const _: () =
    assert!(2 * BATCH_BYTES + 2 * LIMITS.string_bytes_max + (1 << 20) <= LIMITS.message_bytes_max);

/// A version so far ahead of the own clock, in microseconds, is refused: a day. It would make all
/// later versions run ahead as well.
const AHEAD_MAX: i64 = 24 * 60 * 60 * 1_000_000;

/// Lines of one kind in a second; more are summed up.
const LINES_MAX: usize = 10;

/// A store node.
pub struct Store {
    locator: Locator,
    items: Items,
    /// The greatest version given or seen.
    version: AtomicI64,
    /// How often an item has changed here.
    changes: AtomicU64,
    /// Something lies here that isn't this node's, or may be missing elsewhere.
    untidy: AtomicBool,
    moves: Mutex<Moves>,
    /// Keys with which originals are being called, and by how many threads: what comes back is answered
    /// here.
    relayed: Mutex<BTreeMap<Vec<u8>, usize>>,
    lines: Mutex<Lines>,
}

impl Store {
    pub fn new(locator: Locator) -> Self {
        Store {
            items: Items::new(&locator.environment().random),
            locator,
            version: AtomicI64::new(0),
            changes: AtomicU64::new(0),
            untidy: AtomicBool::new(false),
            moves: Mutex::default(),
            relayed: Mutex::default(),
            lines: Mutex::default(),
        }
    }

    /// Hands key, version and value of all that lies here to `take`, in no particular order, under
    /// a lock: it must not call back.
    pub fn each_item(&self, mut take: impl FnMut(&[u8], i64, &[u8])) {
        for shard in 0..SHARDS {
            let take = |record: &Record, ()| take(record.key(), record.version(), record.value());
            self.items.each(shard, |_| Some(()), take);
        }
    }

    fn now(&self) -> Duration {
        self.locator.environment().clock.now()
    }

    fn pause(&self, time: Duration) {
        self.locator.environment().clock.pause(time);
    }

    /// A version above `above`, and above all that this node has given or seen.
    fn next_version(&self, above: i64) -> i64 {
        self.version_above(above, self.locator.environment().clock.wall())
    }

    /// The same, where it is `wall` o'clock.
    fn version_above(&self, above: i64, wall: i64) -> i64 {
        let next = |last: i64| wall.max(last.max(above).saturating_add(1));
        let last = self
            .version
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| {
                Some(next(last))
            });
        next(last.expect("BUG: the update never declines"))
    }

    /// Takes in what another node has.
    fn merge(&self, item: &Item<'_>) -> Result<items::Merged, Exception> {
        let wall = self.locator.environment().clock.wall();
        if item.version > wall.saturating_add(AHEAD_MAX) {
            return Err(Exception::internal(
                "the version is over a day ahead of this node's clock",
            ));
        }
        self.version.fetch_max(item.version, Ordering::Relaxed);
        let value = item
            .value
            .ok_or_else(|| Exception::missing_argument("value"))?;
        let merged = self.items.merge(item.key, item.version, value);
        self.changes
            .fetch_add(u64::from(merged.changed), Ordering::Relaxed);
        Ok(merged)
    }

    /// Takes in an item that is moved here, and says so on the log.
    fn receive(&self, item: &Item<'_>) -> Result<(), Exception> {
        if self.merge(item)?.new {
            self.note(|lines| &mut lines.received, "received", item.key);
        }
        Ok(())
    }

    /// `item` may lie here though this node is no holder: the mover is to look.
    fn mark_untidy(&self) {
        self.untidy.store(true, Ordering::Relaxed);
    }

    fn on_store(&self, item: &Item<'_>, result: &mut Vec<u8>) -> Result<(), Exception> {
        let look = self.locator.look();
        if look.state == State::Gone {
            return Err(gone());
        }
        let merged = self.merge(item)?;
        // Looked up after the item is there: who comes in later pulls it, who came in before is
        // named here.
        let view = self.locator.view();
        let holders = view.holders(item.key, self.locator.replicas());
        if !holders
            .iter()
            .any(|holder| holder.location == *self.locator.location())
        {
            self.mark_untidy();
        }
        let holders = holders.iter().map(|member| &member.location);
        // Another put of the same version stands here: this one has to be above it.
        let tie = merged.later && merged.version == item.version;
        Stored::write(merged.version + i64::from(tie), holders, result);
        Ok(())
    }

    fn on_fetch(&self, key: &[u8], result: &mut Vec<u8>) -> Result<(), Exception> {
        let look = self.locator.look();
        if look.state == State::Gone {
            return Err(gone());
        }
        let primary = self.locator.epoch_if_primary(key).is_some();
        let read = |record: &Record| (record.version(), record.value().to_vec());
        let (version, value) = self.items.read(key, read).unwrap_or_default();
        // Looked at after the item: who has handed it over and forgotten it is no holder any more, and
        // the question may have been long on its way.
        let view = self.locator.view();
        if !primary && !self.is_holder(&view, key) {
            return Err(Exception::internal("this node is no holder of the key"));
        }
        let holders = view.holders(key, self.locator.replicas());
        let ours = holders.into_iter().filter(|holder| holder.is_ours());
        let found = Found {
            version,
            value,
            primary,
            holders: ours.map(|holder| holder.location.clone()).collect(),
        };
        found.write(result);
        Ok(())
    }

    fn is_holder(&self, view: &View, key: &[u8]) -> bool {
        let me = view.place(self.locator.location());
        self.holds(view, me, view.hash(key))
    }

    /// Whether the member at that place is a holder of keys with that hash.
    fn holds(&self, view: &View, place: Option<usize>, hash: u32) -> bool {
        let mut holders = view.holders_at(hash, self.locator.replicas());
        holders.any(|holder| Some(holder) == place)
    }

    fn on_offer(
        &self,
        items: &[Item<'_>],
        names: u64,
        result: &mut Vec<u8>,
    ) -> Result<(), Exception> {
        let look = self.locator.look();
        let takes = matches!(look.state, State::Full | State::Filling);
        let mut taken = Vec::with_capacity(items.len());
        let me = look.view.place(self.locator.location());
        for (number, item) in items.iter().enumerate() {
            if number.is_multiple_of(TOUCHED_AT_ONCE) {
                let next = &items[number..items.len().min(number + TOUCHED_AT_ONCE)];
                self.items.touch(next.iter().map(|item| item.key));
            }
            give_way(number);
            let held = |record: &Record| (record.ring_hash(), has(record, item));
            let held = self.items.read(item.key, held);
            let (hash, has) = held.unwrap_or_else(|| (look.view.hash(item.key), false));
            let mine = takes && self.holds(&look.view, me, hash);
            taken.push(if !mine {
                Taken::NotMine
            } else if item.value.is_some() {
                self.receive(item)?;
                Taken::Held
            } else if has || item.version <= 0 {
                Taken::Held
            } else {
                Taken::Wanted
            });
        }
        // Looked at after the items are here: who is taken in later pulls them.
        if self.locator.view().names() != names {
            let held = taken.iter_mut().filter(|taken| **taken == Taken::Held);
            held.for_each(|taken| *taken = Taken::Unsure);
        }
        calls::write_taken(&taken, result);
        Ok(())
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A line for a key, while they are few.
    fn note(&self, which: impl Fn(&mut Lines) -> &mut Count, what: &str, key: &[u8]) {
        let few = {
            let mut lines = self.lines();
            let count = which(&mut lines);
            if count.said < LINES_MAX {
                count.said += 1;
                true
            } else {
                count.unsaid += 1;
                false
            }
        };
        if few {
            self.locator
                .say(&format!("{what} {}", String::from_utf8_lossy(key)));
        }
    }

    /// Sums up what was not said key by key, at most once a second.
    fn sum_up(&self) {
        let now = self.now();
        let (received, dropped) = {
            let mut lines = self.lines();
            if now.saturating_sub(lines.since) < Duration::from_secs(1) {
                return;
            }
            lines.since = now;
            let take = |count: &mut Count| std::mem::take(count).unsaid;
            (take(&mut lines.received), take(&mut lines.dropped))
        };
        for (what, count) in [("received", received), ("dropped", dropped)] {
            if count > 0 {
                let keys = counted(count, "more key", "more keys");
                self.locator.say(&format!("{what} {keys}"));
            }
        }
    }
}

/// Whether what lies here is what is offered, or later, as far as the offer describes it.
fn has(record: &Record, offered: &Item<'_>) -> bool {
    let same = |digest| digest == fnv1a(record.value());
    record.version() > offered.version
        || (record.version() == offered.version && offered.digest.is_none_or(same))
}

/// What was said on the log of late.
#[derive(Debug, Default)]
struct Lines {
    since: Duration,
    received: Count,
    dropped: Count,
}

#[derive(Debug, Default)]
struct Count {
    said: usize,
    unsaid: usize,
}

impl Service for Store {
    fn call(&self, call: &Call<'_>, result: &mut Vec<u8>) -> Result<(), Exception> {
        match call.method {
            b"get" => self.get(crate::locator::read_key(call.arguments)?, result),
            b"put" => {
                let KeyValue { key, value } = KeyValue::read(call.arguments)?;
                let value = value.ok_or_else(|| Exception::missing_argument("value"))?;
                self.put(key, value, call.done)?;
                result.write_stop();
                Ok(())
            }
            b"store" => self.on_store(&calls::read_item(call.arguments)?, result),
            b"offer" => {
                let (items, names) = calls::read_offer(call.arguments)?;
                self.on_offer(&items, names, result)
            }
            b"fetch" => self.on_fetch(crate::locator::read_key(call.arguments)?, result),
            b"forward" => self.on_forward(&KeyValue::read(call.arguments)?, result),
            b"digests" => {
                let caller = crate::locator::read_location(call.arguments)?;
                let look = self.locator.look();
                let digests = self.digests(&look.view, &caller);
                calls::write_digests(&digests, result);
                Ok(())
            }
            _ => self.locator.call(call, result, self),
        }
    }

    fn foresee(&self, calls: &mut dyn Iterator<Item = (&[u8], &[u8])>) {
        self.items.touch(calls.filter_map(|(method, arguments)| {
            let keyed = matches!(method, b"get" | b"put");
            keyed.then(|| calls::first_string(arguments))?
        }));
    }

    fn order(&self, method: &[u8]) -> Order {
        match method {
            b"put" => Order::Write,
            b"store" | b"offer" | b"fetch" | b"forward" | b"digests" => Order::Free,
            _ => self.locator.order(method),
        }
    }
}

impl Application for Store {
    fn page(
        &self,
        view: &View,
        newcomer: &Location,
        cursor: &[u8],
        items: &mut ItemList,
    ) -> Vec<Vec<u8>> {
        let Some(newcomer) = view.place(newcomer) else {
            return Vec::new();
        };
        let looked_at_some = Cell::new(false);
        let holds = |record: &Record| {
            looked_at_some.set(true);
            self.holds(view, Some(newcomer), record.ring_hash())
        };
        let Cursor { shards, mut after } = Cursor::read(cursor);
        for shard in shards.clone() {
            let (mut last, full) = (None, items.bytes() >= BATCH_BYTES);
            if !full {
                if looked_at_some.take() {
                    give_way(0);
                }
                let after = after.take();
                let take = |record: &Record| items.push(&record.item());
                last = self
                    .items
                    .page(shard, after.as_deref(), BATCH_BYTES, holds, take);
            }
            if full || last.is_some() {
                let rest = Cursor {
                    shards: shard..shards.end,
                    after: last,
                };
                return if cursor.is_empty() {
                    rest.split(cursor::PARTS)
                } else {
                    vec![rest.write()]
                };
            }
        }
        Vec::new()
    }

    fn accept(&self, item: &Item<'_>) {
        if let Err(exception) = self.receive(item) {
            let key = String::from_utf8_lossy(item.key);
            self.locator.say(&format!("{key}: not taken: {exception}"));
        }
    }

    fn settle(&self) -> bool {
        !self.locator.has_counted() || self.bring_in()
    }

    fn filled(&self, view: &Arc<View>) {
        // Everybody has given what this node should hold; what it had, it has given to everybody.
        self.moves().passed = Some(view.clone());
    }

    fn items(&self) -> (usize, usize, bool) {
        let due = self.is_due();
        (self.items.count(), self.moves().unconfirmed, due)
    }
}

impl Participant for Store {
    fn locator(&self) -> &Locator {
        &self.locator
    }

    fn work(&self) {
        self.work_through();
    }

    fn leave(&self) -> Result<usize, usize> {
        self.hand_over()
    }
}

#[cfg(test)]
mod tests;
