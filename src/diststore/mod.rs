//! The Store service: a key-value store spread over the nodes of a locator's network.
//!
//! It keeps everything in memory, and nothing on disk. Each key has as many full *replicas* as `--replicas` says (see
//! [`View::list`]); the first of them, the *primary*, carries out its requests (`steps.rs`). Items move in two
//! ways (`exchange.rs`): two replicas compare, and exchange what differs; a node offers what it need not hold. Either way
//! the receiver stores an item only if both have the same list.
//!
//! Invariants:
//!
//! * A put is acknowledged when all replicas of one list have it, the primary's own copy last.
//! * A node compares the list of what another node sends with its own list, and acts on it, under one lock.
//! * An item is forgotten only when all replicas of its list have said that they have that version or a
//!   greater one, and neither it nor that list has changed since; or when it is a tombstone, and nothing older of its key
//!   is anywhere (`forget.rs`).

mod alone;
mod batch;
mod calls;
mod exchange;
mod forget;
mod items;
mod list;
mod originals;
mod request;
mod steps;
mod table;
mod underway;

pub use calls::{KeyValue, List, Listed, Listing};

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::digest::{digest, mix};
use crate::location::Location;
use crate::locator::{
    self, Application, Held, Locator, Participant, read_arguments, read_key, write_answer,
};
use crate::membership::{Member, State, View};
use crate::net::Level;
use crate::net::room::hold;
use crate::os::give_back_free_pages;
use crate::ring;
use crate::service::{Answers, Call, Order, Service};
use crate::thrift::{Exception, Write};
use crate::words::counted;

use calls::{Fetch, Fetched, Item, StoreAnswer, Stored, Taken};
use forget::Agreed;
use items::{Items, SHARDS};
use originals::Marked;
use request::Request;
use table::Record;
use underway::Underway;

/// The services that a store node answers for.
pub const SERVICE_TYPES: &[&str] = &["locator.Base", "locator.Locator", "diststore.Store"];

/// The ranges of keys that nodes compare, and in which keys are listed.
pub const RANGES: u32 = SHARDS as u32;

/// The methods that a store node has beyond those of the locator; those that are called most come first.
pub const METHODS: &[&str] = &[
    "get",
    "put",
    "forward",
    "store",
    "fetch",
    "exchange",
    "list_keys",
    "delete_key",
];

/// How many parts of what it has a node remembers that it has sent under one view: those of 256 GiB, if each is a whole
/// batch.
const PARTS_MAX: usize = 1 << 20;

/// Gets that are carried out together, at most: each brings a value that may have to wait for earlier answers, and they
/// share the room for that.
const GETS_MAX: usize = 16;

/// Bytes that are sent may be on their way for a second for each of these, but no longer than that.
const SENT_A_SECOND: u32 = 64 << 10;
const SENT_MAX: Duration = Duration::from_secs(60);

/// Lines of one kind in a second; more are summed up.
const LINES_MAX: usize = 10;

/// That there is no room is said once in this time.
const NO_ROOM_INTERVAL: Duration = Duration::from_secs(60);

/// Memory is given back to the system when there is so much of it, in bytes, and an eighth of all; what is left once no more
/// becomes free, if it is so much: a few items may keep many pages.
const GIVEN_BACK: usize = 4 << 20;
const REST: usize = 64 << 10;

/// A store node.
pub struct Store {
    locator: Locator,
    items: Items,
    strays: Mutex<Strays>,
    /// Items that other nodes have confirmed, when they were sent their values.
    confirmed: AtomicUsize,
    sent: Mutex<Sent>,
    /// Keys for which originals are being called, and by how many threads: an original may send such a request back,
    /// and it is answered here. And keys whose latest value a get is sending to other replicas.
    relayed: Mutex<BTreeMap<Vec<u8>, Marked>>,
    underway: Underway,
    /// How far this node is with forgetting tombstones.
    agreed: Mutex<Agreed>,
    freed: Mutex<Freed>,
    lines: Mutex<Lines>,
}

/// Items that were sent to other nodes.
#[derive(Debug, Default)]
struct Sent {
    /// Digests of what went to which node in this epoch.
    epoch: u64,
    parts: HashSet<u64>,
    /// To members: until when it may be on its way.
    until: BTreeMap<Location, Duration>,
}

/// What items have freed since memory was given back to the system.
#[derive(Debug, Default)]
struct Freed {
    /// The most that they have taken since then, and what they took last.
    most: usize,
    last: usize,
}

impl Freed {
    /// Whether memory is to be given back now. `taken`: what the items take.
    fn is_much(&mut self, taken: usize) -> bool {
        let rests = std::mem::replace(&mut self.last, taken) == taken;
        self.most = self.most.max(taken);
        let freed = self.most - taken;
        let is_much =
            freed >= GIVEN_BACK.max(self.most / 8) || (rests && freed >= REST.max(self.most / 64));
        if is_much {
            self.most = taken;
        }
        is_much
    }
}

/// Items that lie here and should not.
#[derive(Debug, Default)]
struct Strays {
    /// Of the view by which they were looked for last.
    epoch: u64,
    /// How many of them others have not taken.
    count: usize,
    /// They are offered again from then on, if the view stays.
    again: Duration,
}

impl Store {
    /// An empty store on that locator, whose items may take so many bytes.
    pub fn new(locator: Locator, memory: usize) -> Self {
        Store {
            items: Items::new(locator.environment().secret, memory),
            locator,
            strays: Mutex::default(),
            confirmed: AtomicUsize::new(0),
            sent: Mutex::default(),
            relayed: Mutex::default(),
            underway: Underway::new(),
            agreed: Mutex::default(),
            freed: Mutex::default(),
            lines: Mutex::default(),
        }
    }

    /// So many bytes of items are sent to a node. If the same ones go there time and again, it can't keep them: that is no
    /// progress. `what` tells them apart.
    fn note_sent(&self, to: &Location, what: &[u8], bytes: usize) {
        let (now, epoch) = (self.locator.now(), self.locator.epoch());
        let part = mix(digest(what) ^ digest(to.name().as_bytes()));
        let view = self.locator.view();
        let mut sent = self.sent();
        if sent.epoch != epoch {
            (sent.epoch, sent.parts) = (epoch, HashSet::new());
            sent.until.retain(|to, _| view.get(to).is_some());
        }
        if bytes > 0 && sent.parts.len() < PARTS_MAX && sent.parts.insert(part) {
            let until = sent.until.entry(to.clone()).or_default();
            let time = Duration::from_secs(bytes as u64) / SENT_A_SECOND;
            *until = ((*until).max(now) + time).min(now + SENT_MAX);
        }
    }

    /// Hands key, version and value of all that lies here to `take`, in no particular order, under
    /// a lock: it must not call back.
    pub fn each_item(&self, mut take: impl FnMut(&[u8], i64, &[u8])) {
        for shard in 0..SHARDS {
            let take = |record: &Record| take(record.key(), record.version(), record.value());
            self.items.each(shard, take);
        }
    }

    fn sent(&self) -> MutexGuard<'_, Sent> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// That node had no room for something: nothing is on its way there any more, nor is for a while.
    fn note_no_room(&self, by: &Location) {
        self.sent().until.remove(by);
        self.locator.rest_from(by);
    }

    fn sent_until(&self) -> Duration {
        let view = self.locator.view();
        let sent = self.sent();
        let until = sent.until.iter();
        let until = until.filter(|(to, _)| view.get(to).is_some());
        until.map(|(_, until)| *until).max().unwrap_or_default()
    }

    fn strays(&self) -> MutexGuard<'_, Strays> {
        self.strays.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `store`: stores items, each if this node has the list that the sender has.
    fn on_store<'a>(&self, arguments: &'a [u8], result: &mut Vec<u8>) -> Result<(), Exception> {
        let Stored { caller, put, items } = read_arguments(arguments)?;
        let (mut new, mut full) = (Vec::new(), false);
        self.items.touch(items.iter().map(|item| item.key));
        let (taken, members) = self.locator.with(|membership, now| {
            let known = membership.shared_with(&caller).is_some();
            let mut take = |item: &Item<'a>| {
                let hash = ring::hash(item.key);
                let takes = known && (!put || membership.has_taken_over());
                if !takes || !membership.is_replica(hash, item.list.unwrap_or(0)) {
                    return Taken::Differs;
                }
                let Some(value) = item.value else {
                    return self.has(item);
                };
                let Ok(merged) = self.items.merge(item.key, item.version, value, false) else {
                    full = true;
                    return Taken::NoRoom;
                };
                if merged.new && !put {
                    new.push(item.key);
                }
                if merged.taken && !put && !self.underway.take(item.key, item.version) {
                    membership.doubt_others(hash, Some(&caller.me.location));
                }
                if put && !merged.later {
                    membership.granted(now, &caller.me.location);
                }
                // Another put of the same version stands here: this one has to be above it.
                let tie = put && merged.later && merged.version == item.version;
                Taken::Held(merged.version + i64::from(tie))
            };
            let taken: Vec<_> = items.iter().map(&mut take).collect();
            let differs = taken.contains(&Taken::Differs);
            (taken, differs.then(|| membership.view().clone()))
        });
        new.iter().for_each(|key| self.note_received(key));
        let answer = StoreAnswer {
            taken,
            members: members.map(|view| view.members().to_vec()),
            full: full.then(|| self.cannot_take().message),
        };
        write_answer(&answer, result);
        Ok(())
    }

    /// The answer to an item that came without its value.
    fn has(&self, item: &Item<'_>) -> Taken {
        let held = self.items.read(item.key, |record| {
            let same = |digest| digest == record.value_digest();
            let same = record.version() == item.version && item.digest.is_none_or(same);
            (same || record.version() > item.version).then(|| record.version())
        });
        held.flatten().map_or(Taken::Wanted, Taken::Held)
    }

    /// `fetch`: what lies here of a key, under the list that the caller has.
    fn on_fetch(&self, arguments: &[u8], result: &mut Vec<u8>) -> Result<(), Exception> {
        let Fetch { list, key } = read_arguments(arguments)?;
        self.make_room(key)?;
        let hash = ring::hash(key);
        let found = self
            .locator
            .with(|membership, _| match membership.is_replica(hash, list) {
                true => Ok(self.account(key)),
                false => Err(membership.view().clone()),
            });
        let members = found.as_ref().err().map(|view| view.members().to_vec());
        let (version, value) = found.unwrap_or_default();
        let fetched = Fetched {
            version,
            value,
            members,
        };
        write_answer(&fetched, result);
        Ok(())
    }

    /// Waits until there is room for a copy of a key's value. Not exact, as it may have another value then.
    fn make_room(&self, key: &[u8]) -> Result<(), Exception> {
        let bytes = self.items.read(key, |record| record.value().len());
        Ok(hold(bytes.unwrap_or(0))?)
    }

    /// What lies here of a key.
    fn account(&self, key: &[u8]) -> calls::Account {
        let read = |record: &Record| (record.version(), record.value().to_vec());
        self.items.read(key, read).unwrap_or_default()
    }

    /// That there is no room: what a client or another node is told. A line on the log, once a minute.
    fn no_room(&self) -> Exception {
        let cause = self.items.no_room();
        let now = self.locator.now();
        let due = {
            let said = &mut self.lines().no_room;
            let due = said.is_none_or(|said| now.saturating_sub(said) > NO_ROOM_INTERVAL);
            if due {
                *said = Some(now);
            }
            due
        };
        if due {
            self.locator.log(Level::Warn, &cause);
        }
        let said = format!("{} has {cause}", self.locator.location());
        Exception::new(Exception::NO_ROOM, said)
    }

    /// The same for an item that other replicas have. A joining node can't become full then, and would make its share
    /// of the puts fail: it ends.
    fn cannot_take(&self) -> Exception {
        if self.locator.me().state == State::Joining {
            self.locator.end(self.items.no_room());
        }
        self.no_room()
    }

    /// Gives memory back to the system, if the items take much less than they did.
    fn give_memory_back(&self) {
        let (taken, _) = self.items.memory();
        let mut freed = self.freed.lock().unwrap_or_else(PoisonError::into_inner);
        if freed.is_much(taken) {
            give_back_free_pages();
        }
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_received(&self, key: &[u8]) {
        self.note(|lines| &mut lines.received, "received", key);
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
        let now = self.locator.now();
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

/// What was said on the log of late.
#[derive(Debug, Default)]
struct Lines {
    since: Duration,
    received: Count,
    dropped: Count,
    /// When it was said last that there is no room.
    no_room: Option<Duration>,
}

#[derive(Debug, Default)]
struct Count {
    said: usize,
    unsaid: usize,
}

/// Whether a call of that name is a get, a put or a deletion.
fn is_request(method: &[u8]) -> bool {
    matches!(method, b"get" | b"put" | b"delete_key" | b"forward")
}

impl Service for Store {
    fn call(&self, call: &Call<'_>, result: &mut Vec<u8>) -> Result<(), Exception> {
        match call.method {
            b"get" => {
                let alone = self.get_by_itself(read_key(call.arguments)?, result);
                alone.unwrap_or_else(|| self.carry_out_alone(Request::of(self, call), result))
            }
            b"put" => {
                let KeyValue { key, value, .. } = KeyValue::read(call.arguments)?;
                let value = value.ok_or_else(|| Exception::missing_argument("value"))?;
                if let Some(put) = self.put_by_itself(key, value) {
                    put?;
                    result.write_stop();
                    return Ok(());
                }
                self.carry_out_alone(Request::of(self, call), result)
            }
            b"delete_key" | b"forward" => self.carry_out_alone(Request::of(self, call), result),
            b"store" => self.on_store(call.arguments, result),
            b"fetch" => self.on_fetch(call.arguments, result),
            b"exchange" => self.on_exchange(call.arguments, result),
            b"list_keys" => self.on_list(call.arguments, result),
            _ => self.locator.call(call, result, self),
        }
    }

    fn serve(&self, calls: &[Call<'_>], answers: &mut dyn Answers) {
        if calls.len() > 1 {
            let keyed = calls.iter().filter(|call| is_request(call.method));
            let keys = keyed.filter_map(|call| calls::first_string(call.arguments));
            self.items.touch(keys);
        }
        let mut rest = calls;
        while let [call, others @ ..] = rest {
            let count = rest.iter().take_while(|call| is_request(call.method));
            let count = match self.locator.epoch_by_itself() {
                Some(_) => 0,
                None => count.count(),
            };
            if count > 0 {
                let mut gets = 0;
                let requests = rest[..count].iter().map(|call| Request::of(self, call));
                let few_gets = |request: &Request<'_>| {
                    gets += usize::from(request.value.is_none());
                    gets <= GETS_MAX
                };
                let mut requests: Vec<_> = requests.take_while(few_gets).collect();
                self.carry_out(&mut requests, answers);
                rest = &rest[requests.len()..];
            } else {
                answers.add(&mut |result| self.call(call, result));
                rest = others;
            }
        }
    }

    fn methods(&self) -> Vec<&'static str> {
        [METHODS, locator::METHODS].concat()
    }

    fn order(&self, method: &[u8]) -> Order {
        match method {
            b"put" | b"delete_key" => Order::Write,
            b"store" | b"fetch" | b"exchange" | b"forward" | b"list_keys" => Order::Free,
            _ => self.locator.order(method),
        }
    }
}

impl Application for Store {
    fn digests(&self, view: &View, others: &[Location]) -> Vec<Vec<u64>> {
        self.digests_of_shards(view, others)
    }

    fn exchange(&self, with: &Member, shared: u64, ranges: &[usize]) -> bool {
        self.exchange_shards(with, shared, ranges)
    }

    fn give(&self) -> bool {
        let given = self.give_strays();
        self.forget_tombstones();
        self.give_memory_back();
        self.sum_up();
        given
    }

    fn drop_all(&self) {
        self.items.clear();
    }

    fn held(&self) -> Held {
        let (items, sent_until) = (self.items.count(), self.sent_until());
        let strays = self.strays();
        let epoch = self.locator.epoch();
        let looked = strays.epoch == epoch || self.locator.epoch_by_itself() == Some(epoch);
        let unknown = if looked { 0 } else { items.min(1) };
        let (taken, memory) = self.items.memory();
        Held {
            taken,
            memory,
            lacking: self.items.lacking(),
            items,
            deleted: self.items.tombstones().0,
            elsewhere: strays.count.max(unknown),
            confirmed: self.confirmed.load(Ordering::Relaxed),
            sent_until,
        }
    }
}

impl Participant for Store {
    fn locator(&self) -> &Locator {
        &self.locator
    }

    fn leave(&self) -> Result<usize, usize> {
        let dropped = self.locator.leave(self)?;
        // A removed key is no loss, but where others, out of reach, may still have it.
        let others = self.locator.has_lost();
        let mut values = 0;
        self.each_item(|_, _, value| values += usize::from(others || !value.is_empty()));
        Ok(dropped.min(values))
    }
}

#[cfg(test)]
mod tests {
    mod exchange;
    mod liars;

    use super::*;

    /// The last items that are forgotten may lie on as many pages as all others together.
    #[test]
    fn must_give_back_what_is_left_once_no_more_becomes_free() {
        let mut freed = Freed::default();
        assert!(!freed.is_much(20 << 20));
        assert!(freed.is_much(10 << 20));
        assert!(!freed.is_much(8 << 20));
        assert!(!freed.is_much(7 << 20));
        assert!(freed.is_much(7 << 20));
        assert!(!freed.is_much(7 << 20));
        assert!(!freed.is_much((7 << 20) - 1000));
        assert!(!freed.is_much((7 << 20) - 1000));
    }
}
