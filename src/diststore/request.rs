//! Serving `get` and `put`, for clients and for other nodes.
//!
//! A node that gets a request from a client forwards it to the key's primary. That one coordinates:
//!
//! * A **put** gets a version above the one that is held, and is stored at all other replicas of the list. Then,
//!   in one step with a look at that list and at the lease, it is stored at the primary. If a replica holds
//!   something greater, the put is tried again with a version above that. If lists differ, it is tried again too.
//! * A primary with a lease answers a **get** from its own copy. A primary without one asks the other replicas, and
//!   stores the latest value at all of them before it answers.
//!
//! A forwarded request is not forwarded again: nodes that disagree on the ring can't send it round in circles.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::locator::{REQUEST_TICKS, Route, read_answer, request_of, write_answer};
use crate::membership::{Caller, Member, State};
use crate::net::CallError;
use crate::net::room::{SMALL_BYTES, hold};
use crate::thrift::{Exception, Write};

use super::Store;
use super::calls::{
    Fetch, Fetched, Forwarded, Item, ItemList, KeyValue, StoreAnswer, Taken, VERSION_MAX,
    store_request,
};
use super::originals::{Relayed, back_mark, put_mark};
use super::table::Record;

/// How long a request waits before it looks again at what it waits for: at first, and twice as long each time, up
/// to a quarter of a tick.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Messages with more than so many bytes of items may be on their way for longer than tombstones are kept: this takes 16
/// seconds at 64 KiB a second.
const LARGE: usize = 1 << 20;

/// Such a message is on its way.
struct Large<'a>(&'a Store);

impl<'a> Large<'a> {
    fn new(store: &'a Store) -> Self {
        store.locator.with(|membership, _| membership.sends(true));
        Large(store)
    }
}

impl Drop for Large<'_> {
    fn drop(&mut self) {
        let locator = &self.0.locator;
        locator.with(|membership, _| membership.sends(false));
    }
}

/// What came of an item that was sent to all other replicas.
enum Accepted {
    All,
    /// Something of that version is held somewhere.
    Above(i64),
    No,
    /// Each has taken it or has no room. True: none has taken it.
    NoRoom(Exception, bool),
}

impl Store {
    /// Serves a client's `get`: appends the result, "" for a missing key.
    pub(super) fn get(&self, key: &[u8], result: &mut Vec<u8>) -> Result<(), Exception> {
        if let Some(epoch) = self.locator.epoch_by_itself() {
            let start = result.len();
            let mut room = SMALL_BYTES;
            let found = loop {
                // Not under the shard's lock.
                let write = |record: &Record| match record.value() {
                    value if value.len() > room => Err(value.len()),
                    value => {
                        result.write_bytes_field(0, value);
                        Ok(())
                    }
                };
                match self.items.read(key, write).transpose() {
                    Ok(found) => break found,
                    Err(bytes) => room = bytes,
                }
                hold(room)?;
            };
            if self.locator.epoch() == epoch {
                if found.is_none() {
                    result.write_bytes_field(0, b"");
                }
                result.write_stop();
                return Ok(());
            }
            result.truncate(start);
        }
        let value = self.get_anywhere(key)?;
        result.write_bytes_field(0, &value);
        result.write_stop();
        Ok(())
    }

    fn get_anywhere(&self, key: &[u8]) -> Result<Vec<u8>, Exception> {
        let mut patience = self.patience();
        loop {
            let route = self.locator.route(key);
            let answer = if let Some(original) = route.original() {
                if self.is_relayed(key) {
                    self.make_room(key)?;
                    return Ok(self.account(key).1);
                }
                self.locator.ask_kind(original);
                self.get_from_original(original, key)
            } else if route.is_primary() {
                self.make_room(key)?;
                let found = self.get_here(key, &route);
                found.ok_or(CallError::Silent)
            } else if let Some(primary) = route.primary() {
                let forward = KeyValue {
                    key,
                    value: None,
                    above: 0,
                    caller: None,
                };
                let answer = self.forward(primary, &forward, self.locator.ticks(2));
                answer.and_then(|forwarded| forwarded.done.ok_or(CallError::Silent))
            } else {
                Err(CallError::Silent)
            };
            match answer {
                Ok(value) => return Ok(value),
                Err(CallError::Exception(exception)) => return Err(exception),
                Err(_) => self.wait(&mut patience)?,
            }
        }
    }

    /// Has a request carried out by another node.
    fn forward(
        &self,
        to: &Member,
        forward: &KeyValue<'_>,
        limit: Duration,
    ) -> Result<Forwarded, CallError> {
        let calls = [(to.clone(), forward.request())];
        let mut answers = self.locator.call_members(&calls, limit);
        let answer = answers.pop().expect("BUG: an answer for each call");
        answer.and_then(|result| read_answer(&result, "forward"))
    }

    /// Answers a get as the primary. `None`: not now.
    fn get_here(&self, key: &[u8], route: &Route) -> Option<Vec<u8>> {
        let own = self.account(key);
        let (hash, digest) = (route.hash, route.digest);
        let leased = self
            .locator
            .with(|membership, now| membership.may_decide(now, hash, digest, None));
        if leased {
            return Some(own.1);
        }
        let others: Vec<_> = route.others().cloned().collect();
        if others.is_empty() {
            return None;
        }
        let fetch = request_of("fetch", &Fetch { list: digest, key });
        let calls: Vec<_> = others.iter().map(|m| (m.clone(), fetch.clone())).collect();
        let answers = self.locator.call_members(&calls, self.locator.ticks(1));
        let mut accounts = vec![self.account(key)];
        for (member, answer) in others.iter().zip(answers) {
            match answer.and_then(|result| read_answer(&result, "fetch")) {
                Ok(Fetched {
                    members: Some(members),
                    ..
                }) => self.locator.differs(member, &members),
                Ok(Fetched { version, value, .. }) => accounts.push((version, value)),
                Err(_) => {}
            }
        }
        if accounts.len() <= others.len() {
            return None;
        }
        let latest = accounts.iter().max()?.clone();
        let mut open = false;
        if accounts.iter().any(|account| *account != latest) {
            // Each would send the same value to the same nodes: over a narrow link none would arrive in time.
            let _alone = Relayed::alone(self, back_mark(key))?;
            let (version, value) = &latest;
            match self.store_at_others(route, key, *version, value) {
                Accepted::All => {}
                // All of them are asked again and again until it has room: a later get finds nothing older.
                Accepted::NoRoom(..) => open = true,
                Accepted::Above(_) | Accepted::No => return None,
            }
        }
        let same = self.locator.with(|membership, _| {
            let same = membership.is_replica(hash, digest);
            if same && latest.0 > 0 {
                open |= self.items.merge(key, latest.0, &latest.1, false).is_err();
            }
            if same && open {
                others
                    .iter()
                    .for_each(|other| membership.synced(&other.location, false));
            }
            same
        });
        same.then_some(latest.1)
    }

    /// Serves a client's `put`: acknowledged, or an exception and then it may still take effect.
    /// `done` is called when later requests of the same client will find its effect.
    pub(super) fn put(&self, key: &[u8], value: &[u8], done: &dyn Fn()) -> Result<(), Exception> {
        if self.locator.epoch_by_itself().is_some() {
            let wall = self.wall();
            let next = |floor: i64| move |held| next_version(wall, floor.max(held));
            let put = |floor| self.items.put(key, value, next(floor));
            if let Some(put) = self.locator.if_by_itself(put) {
                return put.map_err(|_| self.no_room());
            }
        }
        let mut patience = self.patience();
        let mut above = 0;
        loop {
            let route = self.locator.route(key);
            if value.is_empty() && route.has_originals {
                // Originals push the "" that they stored when somebody asked for a missing key.
                return Ok(());
            }
            if self.is_relayed(&put_mark(key, value)) || self.is_handed_by_original(&route) {
                // An original sends back what it is being sent, as its ring differs, or hands over what
                // is this node's now: it is kept here.
                let (wall, floor) = (self.wall(), self.floor());
                let next = |held| next_version(wall, floor.max(held));
                let put = self.items.put(key, value, next);
                put.map_err(|_| self.no_room())?;
                // It may lie here though it should not.
                self.strays().epoch = u64::MAX;
                self.locator.wake_work();
                return Ok(());
            }
            let answer = match route.primary() {
                _ if route.is_primary() => self.put_here(key, value, &mut above, &mut patience),
                Some(primary) => {
                    let limit = patience.deadline.saturating_sub(self.locator.now());
                    let value = Some(value);
                    let tried =
                        (above > 0).then(|| self.locator.caller(&route.me, &primary.location));
                    let forward = KeyValue {
                        key,
                        value,
                        above,
                        caller: tried,
                    };
                    self.forward(primary, &forward, limit)
                }
                // It is an original's, and nobody keeps a copy.
                None if route.original().is_some() => Ok(Forwarded::done(Vec::new())),
                None => Ok(Forwarded::not_primary(above)),
            };
            let answer = match (answer, route.original()) {
                (Ok(Forwarded { done: Some(_), .. }), Some(original)) => {
                    self.locator.ask_kind(original);
                    let put = self.put_at_original(original, key, value, done);
                    // If it has left meanwhile, it has handed over what it had before, or lost it.
                    let same = self.locator.route(key).original() == Some(original);
                    match same {
                        true => put.map(|()| Forwarded::done(Vec::new())),
                        false => Ok(Forwarded::not_primary(above)),
                    }
                }
                (answer, _) => answer,
            };
            match answer {
                Ok(Forwarded { done: Some(_), .. }) => return Ok(()),
                Ok(forwarded) => above = above.max(forwarded.above),
                Err(CallError::Exception(exception)) => return Err(exception),
                // It may be carrying the put out, or its messages are still on their way: elsewhere
                // the same put could be overtaken by another one, and then come back over it.
                Err(CallError::Silent | CallError::Broken(_)) => return Err(not_acknowledged()),
                Err(_) => {}
            }
            self.wait(&mut patience)?;
        }
    }

    /// Carries a put out as the primary.
    fn put_here(
        &self,
        key: &[u8],
        value: &[u8],
        above: &mut i64,
        patience: &mut Patience,
    ) -> Result<Forwarded, CallError> {
        loop {
            let route = self.locator.route(key);
            if !route.is_primary() {
                return Ok(Forwarded::not_primary(*above));
            }
            let first = *above == 0;
            if first && !self.items.has_room(key, value) {
                return Err(CallError::Exception(self.no_room()));
            }
            // Not below what a try before may have left somewhere: it would come back over a later put.
            // Nor below the floor, which is read after what is held: that may be forgotten in between.
            let before = self.items.version(key).max(*above);
            let (asked, floor) = self
                .locator
                .with(|membership, now| (now, membership.floor()));
            let before = before.max(floor);
            if before >= VERSION_MAX {
                let message = "the key has the greatest version, 2^62: nothing can be put after it";
                return Err(CallError::Exception(Exception::internal(message)));
            }
            let version = next_version(self.wall(), before);
            *above = version;
            match self.store_at_others(&route, key, version, value) {
                Accepted::All => {
                    if self.put_own(&route, key, version, value, asked, patience)? {
                        return Ok(Forwarded::done(Vec::new()));
                    }
                    continue;
                }
                Accepted::Above(version) => *above = (*above).max(version),
                Accepted::No => {}
                Accepted::NoRoom(exception, nowhere) => {
                    if !(first && nowhere) {
                        self.leave_open(&route, key, version, value);
                    }
                    return Err(CallError::Exception(exception));
                }
            }
            self.wait_with(&route, key, version, value, patience)?;
        }
    }

    /// Writes the own copy, once this node may decide. False: the list has changed meanwhile, or a later
    /// put has come first.
    fn put_own(
        &self,
        route: &Route,
        key: &[u8],
        version: i64,
        value: &[u8],
        asked: Duration,
        patience: &mut Patience,
    ) -> Result<bool, CallError> {
        loop {
            let Route { hash, digest, .. } = *route;
            let written = self.locator.with(|membership, now| {
                if membership.may_decide(now, hash, digest, Some(asked)) {
                    // If there is no memory: when there is.
                    let merged = self.items.merge(key, version, value, true).ok()?;
                    return Some(!merged.later);
                }
                let same = membership.is_replica(hash, digest);
                (!same).then_some(false)
            });
            match written {
                Some(written) => return Ok(written),
                // The lease is on its way.
                None => self.wait_with(route, key, version, value, patience)?,
            }
        }
    }

    /// Waits a moment with a put that others may have.
    fn wait_with(
        &self,
        route: &Route,
        key: &[u8],
        version: i64,
        value: &[u8],
        patience: &mut Patience,
    ) -> Result<(), CallError> {
        self.wait(patience).map_err(|exception| {
            self.leave_open(route, key, version, value);
            CallError::Exception(exception)
        })
    }

    /// Gives a put up that others may have. This node takes it as well: what is still on its way to them is the same
    /// then, wherever it arrives. Until they have been compared, nobody is answered from this copy alone.
    fn leave_open(&self, route: &Route, key: &[u8], version: i64, value: &[u8]) {
        let have_it = route.others().next().is_some();
        self.locator.with(|membership, _| {
            // Under another list all are compared.
            if have_it && membership.is_replica(route.hash, route.digest) {
                // If there is no memory, the others have it alone.
                let _ = self.items.merge(key, version, value, true);
                let others = route.others();
                others.for_each(|other| membership.synced(&other.location, false));
            }
        });
        self.locator.wake_work();
    }

    /// Sends a put to all other replicas of ours.
    fn store_at_others(&self, route: &Route, key: &[u8], version: i64, value: &[u8]) -> Accepted {
        let others: Vec<_> = route.others().cloned().collect();
        if others.is_empty() {
            return Accepted::All;
        }
        let mut items = ItemList::default();
        items.push(&Item {
            key,
            version,
            value: Some(value),
            digest: None,
            list: Some(route.digest),
        });
        let (mut all, mut full) = (Accepted::All, Vec::new());
        let sent = self.send(&route.me, &others, &items, true);
        for (other, taken) in others.iter().zip(sent) {
            let taken = match taken {
                // One that is joining ends: the put goes on without it.
                Err(exception) if other.state != State::Joining => {
                    full.push(exception);
                    continue;
                }
                taken => taken.unwrap_or_default(),
            };
            all = match (all, taken.first()) {
                (all, Some(Taken::Held(held))) if *held == version => all,
                (Accepted::All, Some(Taken::Held(held))) => Accepted::Above(*held),
                (Accepted::Above(above), Some(Taken::Held(held))) => {
                    Accepted::Above(above.max(*held))
                }
                _ => Accepted::No,
            };
        }
        let nowhere = full.len() == others.len();
        match full.pop() {
            Some(exception) if matches!(all, Accepted::All) => Accepted::NoRoom(exception, nowhere),
            _ => all,
        }
    }

    /// Sends items to members, all at once. The answers: what each says to each item, nothing if it
    /// doesn't answer; an exception if it has no room for one.
    pub(super) fn send(
        &self,
        me: &Member,
        to: &[Member],
        items: &ItemList,
        put: bool,
    ) -> Vec<Result<Vec<Taken>, Exception>> {
        let call = |to: &Member| {
            let caller = self.locator.caller(me, &to.location);
            (to.clone(), store_request(&caller, put, items))
        };
        let calls: Vec<_> = to.iter().map(call).collect();
        let large = (items.bytes() > LARGE).then(|| Large::new(self));
        let answers = self.locator.call_members(&calls, self.locator.ticks(2));
        drop(large);
        let read = |(member, answer): (&Member, Result<Vec<u8>, CallError>)| match answer
            .and_then(|result| read_answer(&result, "store"))
        {
            Ok(StoreAnswer { taken, members }) => {
                if let Some(members) = members {
                    self.locator.differs(member, &members);
                }
                let held = taken.iter().filter(|taken| matches!(taken, Taken::Held(_)));
                // A leaver's puts go on; they are none of what it hands over.
                let handed = if put { 0 } else { held.count() };
                self.confirmed.fetch_add(handed, Ordering::Relaxed);
                Ok(taken)
            }
            Err(CallError::Exception(why)) if why.kind == Exception::NO_ROOM => {
                if !put {
                    self.locator.rest_from(&member.location);
                }
                Err(why)
            }
            Err(_) => Ok(Vec::new()),
        };
        to.iter().zip(answers).map(read).collect()
    }

    /// Serves a request that another node has forwarded.
    pub(super) fn on_forward(
        &self,
        forwarded: &KeyValue<'_>,
        result: &mut Vec<u8>,
    ) -> Result<(), Exception> {
        let KeyValue {
            key, value, above, ..
        } = *forwarded;
        let mut patience = self.patience();
        let answer = match value {
            // Anybody could keep all later puts below. One that has left may be a member no more.
            Some(_) if above > 0 && !self.is_known(forwarded.caller.as_ref()) => {
                Forwarded::not_primary(above)
            }
            Some(value) => {
                let mut above = above;
                self.put_here(key, value, &mut above, &mut patience)
                    .map_err(|cause| match cause {
                        CallError::Exception(exception) => exception,
                        _ => not_acknowledged(),
                    })?
            }
            None => loop {
                let route = self.locator.route(key);
                if !route.is_primary() {
                    break Forwarded::not_primary(0);
                }
                self.make_room(key)?;
                if let Some(value) = self.get_here(key, &route) {
                    break Forwarded::done(value);
                }
                self.wait(&mut patience)?;
            },
        };
        write_answer(&answer, result);
        Ok(())
    }

    /// Whether a caller is a node that it says, a member or one that has left.
    fn is_known(&self, caller: Option<&Caller>) -> bool {
        caller.is_some_and(|caller| {
            self.locator
                .with(|membership, _| membership.is_known(caller))
        })
    }

    fn floor(&self) -> i64 {
        self.locator.with(|membership, _| membership.floor())
    }

    fn wall(&self) -> i64 {
        self.locator.environment().clock.wall()
    }

    fn patience(&self) -> Patience {
        Patience {
            deadline: self.locator.now() + self.locator.ticks(REQUEST_TICKS),
            pause: LOOK_AGAIN,
        }
    }

    /// Waits a little.
    ///
    /// # Errors
    /// The deadline has passed.
    fn wait(&self, patience: &mut Patience) -> Result<(), Exception> {
        if self.locator.now() >= patience.deadline {
            return Err(not_acknowledged());
        }
        self.locator.environment().clock.pause(patience.pause);
        patience.pause = (2 * patience.pause).min(self.locator.ticks(1) / 4);
        Ok(())
    }
}

/// How long a request waits.
pub(super) struct Patience {
    deadline: Duration,
    pause: Duration,
}

/// The version of a put after that one. The clock doesn't lead above the greatest version, but a stranger's word may:
/// a put of a node by itself then takes the place of that one.
fn next_version(wall: i64, before: i64) -> i64 {
    wall.max(before + 1).min(VERSION_MAX)
}

fn not_acknowledged() -> Exception {
    Exception::internal("no answer from all that hold the key: a put may or may not take effect")
}
