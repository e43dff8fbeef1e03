//! Serving `get` and `put`, for clients and for other nodes.
//!
//! A node that gets a request from a client forwards it to the key's primary; a node that gets a
//! forwarded one carries it out, whatever its own ring says, so that nodes that disagree can't send
//! it round in circles. What carrying out means:
//!
//! * A **put** gets a version, is written here first (if here is a holder) and is sent to every
//!   other holder. Their answers name the holders as they see them; whoever has not been served yet
//!   is served too, and the own ring is looked at once more, before the put is acknowledged. If
//!   a holder has a later version, the put gets one above it and goes round again.
//!
//!   ```text
//!   client        P (primary, old view)       N (joining)
//!     put k ------> holders: P
//!                                      <----- pull: P takes N in
//!                                       ----> page: k is not in it yet
//!                   stores k
//!                   looks again: N, P -------> store k
//!     <------ ok
//!   ```
//!
//! * A **get** is answered from here by a primary that is not filling. Anybody else asks all
//!   holders, and those that they name as holders, and answers with the latest account, if all have
//!   answered or one of them is such a primary: what has been acknowledged is with one of them.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use crate::location::Location;
use crate::locator::{
    EMPTY, GONE, Item, Look, Member, REQUEST_TICKS, State, gone, request, single_request, write_key,
};
use crate::net::CallError;
use crate::thrift::{Exception, Write};

use super::Store;
use super::calls::{self, Found, KeyValue, Stored};
use super::table::Record;

/// How long a request waits before it looks again at what it waits for.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// How long an original may take to answer: it may be busy with a call of ours that waits for it.
const ORIGINAL_LIMIT: Duration = Duration::from_secs(2);

/// Rounds that one put may take; each is brought about by another put or a change of the ring.
const ROUNDS_MAX: usize = 100;

/// A holder that has a put, and the holders that it named.
struct Served {
    holder: Location,
    named: Vec<Location>,
}

impl Store {
    /// Serves a client's `get`: appends the result, "" for a missing key.
    pub(super) fn get(&self, key: &[u8], result: &mut Vec<u8>) -> Result<(), Exception> {
        let epoch = self.locator.epoch_if_primary(key);
        let write = |record: &Record| result.write_bytes_field(0, record.value());
        match self.own(epoch, key, write) {
            Some(Some(())) => {}
            Some(None) => result.write_bytes_field(0, b""),
            None => {
                let value = self.get_elsewhere(key, self.deadline())?;
                result.write_bytes_field(0, &value);
            }
        }
        result.write_stop();
        Ok(())
    }

    /// What lies here of a key for which this node could answer in that epoch, if it could. `None`: others
    /// are to be asked; it may have been handed over and forgotten meanwhile.
    pub(super) fn own<T>(
        &self,
        epoch: Option<u64>,
        key: &[u8],
        take: impl FnOnce(&Record) -> T,
    ) -> Option<Option<T>> {
        let epoch = epoch?;
        let found = self.items.read(key, take);
        (found.is_some() || self.locator.epoch() == epoch).then_some(found)
    }

    fn get_elsewhere(&self, key: &[u8], deadline: Duration) -> Result<Vec<u8>, Exception> {
        let mut silent = BTreeSet::new();
        loop {
            let look = self.wait_until_ready(deadline)?;
            let holders = look.view.holders(key, self.locator.replicas());
            let me = self.locator.location();
            let next = holders
                .iter()
                .find(|holder| !silent.contains(&holder.location));
            let answer = match next {
                Some(holder) if holder.location == *me => return self.get_here(key, deadline),
                Some(holder) if !holder.is_ours() => {
                    self.locator.ask_kind(&holder.location);
                    self.get_from_original(holder, key)
                }
                Some(holder) => {
                    let request = request("forward", KeyValue::write(key, None));
                    let limit = self.locator.ticks(2);
                    let answer = self.locator.call_member(&holder.location, &request, limit);
                    answer.and_then(|result| calls::read_answer(&result))
                }
                // All are silent: from the first again, until the time is up or they are dropped.
                None if !holders.is_empty() => {
                    silent.clear();
                    self.pause_until(deadline)?;
                    continue;
                }
                None => return self.get_here(key, deadline),
            };
            match answer {
                Ok(value) => return Ok(value),
                // It says so on a connection from before: another run may be there by now.
                Err(CallError::Exception(exception)) if exception.kind == GONE => {}
                Err(CallError::Exception(exception)) => return Err(exception),
                // A silent original is busy: the copies beside it may be older than what it has.
                Err(CallError::Silent) => {
                    let ours = next.filter(|holder| holder.is_ours());
                    silent.extend(ours.map(|holder| holder.location.clone()));
                }
                Err(_) => {}
            }
            self.pause_until(deadline)?;
        }
    }

    /// Carries a get out.
    fn get_here(&self, key: &[u8], deadline: Duration) -> Result<Vec<u8>, Exception> {
        self.wait_until_ready(deadline)?;
        let value = |record: &Record| record.value().to_vec();
        let epoch = self.locator.epoch_if_primary(key);
        if let Some(found) = self.own(epoch, key, value) {
            return Ok(found.unwrap_or_default());
        }
        if self.is_relayed(key) {
            return Ok(self.items.read(key, value).unwrap_or_default());
        }
        let latest = self.latest(key, deadline)?;
        Ok(latest.map(|found| found.value).unwrap_or_default())
    }

    /// The latest account of a key: of all holders, as long as none of them is a primary that
    /// has everything; in the own ring, and in those of the holders.
    fn latest(&self, key: &[u8], deadline: Duration) -> Result<Option<Found>, Exception> {
        let me = self.locator.location();
        let own = || {
            self.items.read(key, |record| Found {
                version: record.version(),
                value: record.value().to_vec(),
                primary: false,
                holders: Vec::new(),
            })
        };
        let mut named = BTreeSet::new();
        loop {
            // Before the ring is looked at: should the pass forget it, those whom it has given it to
            // are asked.
            let own_before = own();
            let look = self.wait_until_ready(deadline)?;
            let holders = look.view.holders(key, self.locator.replicas());
            if holders.is_empty() {
                return Err(nobody_known());
            }
            // All in one round, whoever answered in the last one too: what was there may be here by now.
            named.extend(self.others_of_ours(&holders));
            named.remove(me);
            let calls: Vec<_> = named
                .iter()
                .map(|location| (location.clone(), request("fetch", write_key(key))))
                .collect();
            let limit = self.locator.ticks(1);
            let answers = self.locator.call_members(&calls, limit);
            let answers: Vec<_> = answers
                .into_iter()
                .map(|answer| answer.and_then(|result| Found::read(&result)))
                .collect();
            // With a primary's answer those of the others are not needed.
            let sure = answers.iter().flatten().any(|found| found.primary);
            let names = answers.iter().flatten().flat_map(|found| &found.holders);
            let mut names: BTreeSet<_> = names.cloned().collect();
            names.remove(me);
            let all = answers.iter().all(Result::is_ok) && names.is_subset(&named);
            // And behind the answers: what has come from one of those that were asked, before it was, is
            // there no more. Where the ring has changed it may have gone on from here, too.
            if sure || (all && self.locator.epoch() == look.view.epoch()) {
                let found = answers.into_iter().flatten().chain(own_before).chain(own());
                return Ok(found.max_by(|one, other| {
                    (one.version, &one.value).cmp(&(other.version, &other.value))
                }));
            }
            named = names;
            self.pause_until(deadline)?;
        }
    }

    /// Serves a client's `put`: acknowledged, or an exception and then it may still take effect.
    /// `done` is called when later requests of the same client will find its effect.
    pub(super) fn put(&self, key: &[u8], value: &[u8], done: &dyn Fn()) -> Result<(), Exception> {
        let now = self.now();
        let alone = self.locator.epoch_if_only_holder(key, now);
        self.put_from(now, alone, key, value, done)
    }

    /// The same, where this node was the only holder in that epoch, or wasn't.
    pub(super) fn put_from(
        &self,
        now: Duration,
        alone: Option<u64>,
        key: &[u8],
        value: &[u8],
        done: &dyn Fn(),
    ) -> Result<(), Exception> {
        let alone = alone.filter(|_| !value.is_empty());
        if alone.is_some_and(|epoch| self.put_alone(now, epoch, key, value)) {
            return Ok(());
        }
        let deadline = self.deadline();
        loop {
            let look = self.wait_until_ready(deadline)?;
            if value.is_empty() && look.view.members().iter().any(|member| !member.is_ours()) {
                // Originals push the "" that they stored when somebody asked for a missing key.
                return Ok(());
            }
            if self.is_relayed(&put_mark(key, value)) {
                // An original sends back what it is being sent, as its ring differs: it is kept here.
                self.items.put(key, value, |held| self.next_version(held));
                self.mark_untidy();
                return Ok(());
            }
            let holders = look.view.holders(key, self.locator.replicas());
            let coordinator = match holders.first() {
                // Not what lies here now, in a version that another's clock may be behind: the next put
                // would be overtaken by it.
                Some(first)
                    if alone.is_none()
                        && first.is_ours()
                        && first.location != *self.locator.location() =>
                {
                    first
                }
                // What an original owns any of ours may put there.
                _ => return self.put_here(key, value, deadline, done),
            };
            let request = request("forward", KeyValue::write(key, Some(value)));
            let limit = deadline.saturating_sub(self.now());
            match self
                .locator
                .call_member(&coordinator.location, &request, limit)
            {
                Ok(_) if self.locator.epoch() == look.view.epoch() => return Ok(()),
                // What has come in meanwhile, out of another part of the network, may be older and have
                // a greater version: the put goes above that, as it would have had it come before.
                Ok(_) => {
                    if self.get_elsewhere(key, deadline)? == value {
                        return Ok(());
                    }
                }
                // It says so on a connection from before: another run may be there by now.
                Err(CallError::Exception(exception)) if exception.kind == GONE => {}
                Err(CallError::Exception(exception)) => return Err(exception),
                // It may be carrying the put out, or its messages are still on their way: elsewhere
                // the same put could be overtaken by another one, and then come back over it.
                Err(CallError::Silent | CallError::Broken(_)) => return Err(not_acknowledged()),
                Err(CallError::Refused | CallError::Local(_)) => {}
            }
            self.pause_until(deadline)?;
        }
    }

    /// Carries a put out where this node was the only holder, `now` and in that epoch: the whole of a
    /// network of one, and most of one without copies. True: it may be acknowledged. False: the ring has
    /// changed meanwhile, and this node is to carry the put out once more, in a later version.
    fn put_alone(&self, now: Duration, epoch: u64, key: &[u8], value: &[u8]) -> bool {
        let wall = self.locator.wall_at(now);
        self.items
            .put(key, value, |held| self.version_above(held, wall));
        let same = self.locator.epoch() == epoch;
        if !same {
            self.mark_untidy();
        }
        same
    }

    /// The version that a put has to be above. A holder that has everything knows it; anybody else
    /// asks: what it has given or seen itself may be below what was acknowledged elsewhere, as clocks
    /// differ.
    fn latest_version(&self, key: &[u8], deadline: Duration) -> Result<i64, Exception> {
        let look = self.wait_until_ready(deadline)?;
        let holders = look.view.holders(key, self.locator.replicas());
        let me = self.locator.location();
        if look.state == State::Full && holders.iter().any(|holder| holder.location == *me) {
            return Ok(self.items.version(key));
        }
        let latest = self.latest(key, deadline)?;
        Ok(latest.map_or(0, |found| found.version))
    }

    /// Carries a put out.
    fn put_here(
        &self,
        key: &[u8],
        value: &[u8],
        deadline: Duration,
        done: &dyn Fn(),
    ) -> Result<(), Exception> {
        let me = self.locator.location();
        let replicas = self.locator.replicas();
        let told = Cell::new(false);
        let done = || {
            told.set(true);
            done();
        };
        let mut epoch = self.locator.epoch();
        let mut version = self.next_version(self.latest_version(key, deadline)?);
        let mut served: Vec<Served> = Vec::new();
        for _ in 0..ROUNDS_MAX {
            let look = self.wait_until_ready(deadline)?;
            let holders = look.view.holders(key, replicas);
            if holders.is_empty() {
                return Err(nobody_known());
            }
            let missing = missing(&holders, &served);
            if missing.is_empty() {
                // As in `put`: what has come in since may be older. Unless the client has been told to go
                // on: then it may be its next put.
                let later = self.items.read(key, |record| {
                    let held = (record.version(), record.value());
                    (held > (version, value)).then_some(held.0)
                });
                match later.flatten() {
                    Some(later) if look.view.epoch() != epoch && !told.get() => {
                        epoch = look.view.epoch();
                        version = self.next_version(later);
                        served.clear();
                        continue;
                    }
                    _ => return Ok(()),
                }
            }
            if missing.contains(me) {
                let merged = self.items.merge(key, version, value);
                self.changes
                    .fetch_add(u64::from(merged.changed), Ordering::Relaxed);
                if !holders.iter().any(|holder| holder.location == *me) {
                    self.mark_untidy();
                }
                if merged.later {
                    version = self.next_version(merged.version);
                    served.clear();
                    continue;
                }
                served.push(Served {
                    holder: me.clone(),
                    named: Vec::new(),
                });
            }
            let is_original = |location: &Location| {
                look.view
                    .get(location)
                    .is_some_and(|member| !member.is_ours())
            };
            let (originals, ours): (Vec<_>, Vec<_>) = missing
                .into_iter()
                .filter(|location| location != me)
                .partition(is_original);
            let item = calls::write_item(&Item {
                key,
                version,
                value: Some(value),
                digest: None,
            });
            let store = request("store", item);
            let calls: Vec<_> = ours
                .into_iter()
                .map(|location| (location, store.clone()))
                .collect();
            let mut waiting = false;
            let mut later = version;
            let answers = self.locator.call_members(&calls, self.locator.ticks(1));
            for ((location, _), answer) in calls.iter().zip(answers) {
                match answer.and_then(|result| Stored::read(&result)) {
                    Ok(stored) => {
                        later = later.max(stored.version);
                        let holder = location.clone();
                        served.push(Served {
                            holder,
                            named: stored.holders,
                        });
                    }
                    Err(cause) => {
                        // A holder that only others named may have been dropped there as well by
                        // now: they are asked again.
                        if look.view.get(location).is_none() {
                            served.retain(|served| !served.named.contains(location));
                        }
                        waiting |= !matches!(cause, CallError::Refused);
                    }
                }
            }
            for original in originals {
                match self.put_at_original(&original, key, value, &done) {
                    Ok(()) => served.push(Served {
                        holder: original,
                        named: Vec::new(),
                    }),
                    Err(_) => waiting = true,
                }
            }
            if later > version {
                version = self.next_version(later);
                served.clear();
            }
            if waiting {
                self.pause_until(deadline)?;
            }
        }
        Err(not_acknowledged())
    }

    /// Serves a request that another node has forwarded.
    pub(super) fn on_forward(
        &self,
        forwarded: &KeyValue<'_>,
        result: &mut Vec<u8>,
    ) -> Result<(), Exception> {
        if self.locator.look().state == State::Gone {
            return Err(gone());
        }
        let deadline = self.deadline();
        match forwarded.value {
            Some(value) => {
                self.put_here(forwarded.key, value, deadline, &|| ())?;
                calls::write_answer(None, result);
            }
            None => {
                let value = self.get_here(forwarded.key, deadline)?;
                calls::write_answer(Some(&value), result);
            }
        }
        Ok(())
    }

    fn others_of_ours(&self, holders: &[&Member]) -> Vec<Location> {
        let me = self.locator.location();
        let others = holders
            .iter()
            .filter(|holder| holder.is_ours() && holder.location != *me);
        others.map(|holder| holder.location.clone()).collect()
    }

    /// An original's own `get`. What it sends back to us meanwhile, as its ring differs, is
    /// answered from what is here.
    pub(super) fn get_from_original(
        &self,
        original: &Member,
        key: &[u8],
    ) -> Result<Vec<u8>, CallError> {
        let _relayed = Relayed::new(self, key.to_vec());
        let request = single_request("get", write_key(key), false);
        let answer = self
            .locator
            .call_member(&original.location, &request, ORIGINAL_LIMIT);
        calls::read_string(&answer?, "get")
    }

    /// An original's own `put`, and a `ping` behind it: when it answers, it has acted on the put.
    /// Between the two `done` is called: whatever is said to it from then on it hears later.
    pub(super) fn put_at_original(
        &self,
        original: &Location,
        key: &[u8],
        value: &[u8],
        done: &dyn Fn(),
    ) -> Result<(), CallError> {
        let _relayed = Relayed::new(self, key.to_vec());
        let _bounced = Relayed::new(self, put_mark(key, value));
        let put = single_request("put", KeyValue::write(key, Some(value)), true);
        self.locator.call_member(original, &put, ORIGINAL_LIMIT)?;
        done();
        let ping = single_request("ping", EMPTY.to_vec(), false);
        self.locator.call_member(original, &ping, ORIGINAL_LIMIT)?;
        Ok(())
    }

    fn relayed(&self) -> MutexGuard<'_, BTreeMap<Vec<u8>, usize>> {
        self.relayed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_relayed(&self, key: &[u8]) -> bool {
        self.relayed().contains_key(key)
    }

    fn deadline(&self) -> Duration {
        self.now() + self.locator.ticks(REQUEST_TICKS)
    }

    /// Waits until this node knows its network, and has caught up if it was stopped.
    fn wait_until_ready(&self, deadline: Duration) -> Result<Look, Exception> {
        let mut look = self.locator.look();
        while !look.ready || look.lapsed {
            self.pause_until(deadline)?;
            look = self.locator.look();
        }
        Ok(look)
    }

    /// Waits a little.
    ///
    /// # Errors
    /// The deadline has passed.
    fn pause_until(&self, deadline: Duration) -> Result<(), Exception> {
        if self.now() >= deadline {
            return Err(not_acknowledged());
        }
        self.pause(LOOK_AGAIN);
        Ok(())
    }
}

/// What still lies here may be older than what those have who took it over.
fn nobody_known() -> Exception {
    Exception::internal("this node has left, and no other is known")
}

fn not_acknowledged() -> Exception {
    Exception::internal("no answer from all that hold the key: a put may or may not take effect")
}

/// The holders, in the own ring or as others named them, that don't have the put yet. What a node
/// named counts only as long as it is a holder itself.
fn missing(holders: &[&Member], served: &[Served]) -> Vec<Location> {
    let holds = |location: &Location| holders.iter().any(|holder| holder.location == *location);
    let named = served
        .iter()
        .filter(|served| holds(&served.holder))
        .flat_map(|s| &s.named);
    let wanted: BTreeSet<_> = holders
        .iter()
        .map(|holder| &holder.location)
        .chain(named)
        .collect();
    let has = |location: &Location| served.iter().any(|served| served.holder == *location);
    wanted
        .into_iter()
        .filter(|location| !has(location))
        .cloned()
        .collect()
}

/// What stands for a put among the keys that are being relayed; no key is likely to look so, and one
/// that did would only be answered from here.
fn put_mark(key: &[u8], value: &[u8]) -> Vec<u8> {
    [b"put\0", key, b"\0", value].concat()
}

/// Marks a key as being relayed to an original, as long as it lives; several threads may do so at once.
struct Relayed<'a> {
    store: &'a Store,
    key: Vec<u8>,
}

impl<'a> Relayed<'a> {
    fn new(store: &'a Store, key: Vec<u8>) -> Self {
        *store.relayed().entry(key.clone()).or_default() += 1;
        Relayed { store, key }
    }
}

impl Drop for Relayed<'_> {
    fn drop(&mut self) {
        let mut relayed = self.store.relayed();
        if let Some(count) = relayed.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                relayed.remove(&self.key);
            }
        }
    }
}
