//! The rules by which a node carries out gets and puts, its clients' and those that other nodes forward to it.
//!
//! A node that gets a request from a client forwards it to the key's primary, which carries it out:
//!
//! * A **put** gets a version above the one that is held, and is stored at all other replicas of the list. Then,
//!   in one step with a look at that list and at the lease, it is stored at the primary. If a replica holds
//!   something greater, the put is tried again with a version above that. If lists differ, it is tried again too.
//! * A primary with a lease answers a **get** from its own copy. A primary without one asks the other replicas, and
//!   stores the latest value at all of them before it answers.
//!
//! A forwarded request is not forwarded again: nodes that disagree on the ring can't send it round in circles.
//!
//! Here is what a request does at each step; `request.rs` has what it knows meanwhile. When it takes the steps, and what
//! it sends together with others, is told in `batch.rs`.

use std::time::Duration;

use crate::locator::{REQUEST_TICKS, Route, request_of};
use crate::membership::{Caller, LEASE_TICKS, Member, Membership};
use crate::net::room::{SMALL_BYTES, hold};
use crate::net::{CallError, Request as NetRequest};
use crate::thrift::Exception;

use super::Store;
use super::calls::{Account, Fetch, Forwarded, KeyValue, VERSION_MAX};
use super::originals::{Relayed, back_mark, put_mark};
use super::request::{Accepted, Request, Step, Try, not_acknowledged};
use super::underway::Mark;

/// The primary writes its own copy within this time after it sent the others, or not at all: half the time for which a
/// tombstone is kept at least.
const LATE: Duration = Duration::from_secs(30);
const LATE_TICKS: u32 = 60;

/// A request of which this node is the primary.
enum Own {
    /// The version that is held, or that the put has been tried in.
    Put(i64),
    /// What is held.
    Get(Account),
}

impl Store {
    /// Looks up the replicas for those requests that begin, and what this node holds of the keys of which it is the
    /// primary. `room`: how many bytes of values may wait for the answer to the request at `head`. `now`: by the time of
    /// their deadlines.
    pub(super) fn begin<'a>(
        &'a self,
        requests: &mut [Request<'a>],
        turn: &[usize],
        (head, mut room): (usize, usize),
        now: Duration,
    ) {
        let begins = |place: &usize| {
            let request = &requests[*place];
            matches!(request.step, Step::Begin) && (*place == head || !request.waits_for_others)
        };
        let turn: Vec<_> = turn.iter().copied().filter(begins).collect();
        if turn.is_empty() {
            return;
        }
        let keys = turn.iter().map(|place| requests[*place].key);
        let routes = self.locator.routes(keys);
        let deadline = now + self.locator.ticks(REQUEST_TICKS);
        let mut own = Vec::new();
        for (place, route) in turn.into_iter().zip(routes) {
            let request = &mut requests[place];
            if request.deadline.is_zero() {
                request.deadline = deadline;
            }
            if let Some(left) = request.left.take() {
                self.give_up(left);
            }
            let tried = request.forwarded || request.above > 0;
            if place != head && !tried && route.original().is_some() {
                request.wait_for_others();
                continue;
            }
            if !request.forwarded && self.begin_with_originals(request, &route) {
                continue;
            }
            if route.is_primary() {
                let most = if place == head { usize::MAX } else { room };
                if let Some(known) = self.begin_own(request, most) {
                    if let Own::Get((_, value)) = &known {
                        room = room.saturating_sub(value.len());
                    }
                    own.push((place, route, known));
                }
            } else if request.forwarded {
                request.outcome = Some(Ok(Forwarded::not_primary(request.above)));
            } else if route.primary().is_some() {
                request.step = Step::Forward(route);
            } else if request.value.is_some() && route.original().is_some() {
                // An original owns it, and none of ours keeps a copy.
                self.finish_put(request, &route);
            }
        }
        if own.is_empty() {
            return;
        }
        let wall = self.wall();
        // The floor is read after what is held: that may be forgotten in between.
        self.locator.with(|membership, now| {
            let floor = membership.floor();
            for (place, route, known) in own {
                let request = &mut requests[place];
                match known {
                    Own::Get((version, value))
                        if !(route.others().next().is_some()
                            && self.underway.has(request.key, version))
                            && membership.may_decide(now, route.hash, route.digest, None) =>
                    {
                        request.is_done(value);
                    }
                    Own::Get(_) if route.others().next().is_some() => {
                        request.accounts.clear();
                        request.step = Step::Fetch(route);
                    }
                    Own::Get(_) => membership.want_lease(now, route.hash),
                    // Not below what an earlier try may have left somewhere: that would come back over a later put.
                    Own::Put(before) => match before.max(floor) {
                        VERSION_MAX.. => request.outcome = Some(Err(no_version())),
                        before => {
                            let version = next_version(wall, before);
                            let mut tried = Try::new(route, version, now);
                            tried.first = request.above == 0;
                            request.above = version;
                            let alone = tried.route.others().next().is_none();
                            request.step = match alone {
                                true => Step::Own(tried),
                                false => {
                                    let mark = self.underway.mark(request.key, version);
                                    tried.underway = Some(mark);
                                    Step::Copies(tried)
                                }
                            };
                        }
                    },
                }
            }
        });
    }

    /// What is held here for a request of which this node is the primary. `None`: it has failed, or has a value of more
    /// than `most` bytes.
    fn begin_own(&self, request: &mut Request<'_>, most: usize) -> Option<Own> {
        let key = request.key;
        let Some(value) = request.value else {
            let bytes = self.items.read(key, |record| record.value().len());
            let bytes = bytes.unwrap_or(0);
            if bytes > most {
                request.wait_for_others();
                return None;
            }
            if let Err(full) = hold(bytes) {
                request.outcome = Some(Err(full.into()));
                return None;
            }
            return Some(Own::Get(self.account(key)));
        };
        if request.above == 0 && !self.items.has_room(key, value) {
            request.outcome = Some(Err(self.no_room()));
            return None;
        }
        Some(Own::Put(self.items.version(key).max(request.above)))
    }

    /// Does what originals in the network make necessary. True: there is nothing else to do now.
    fn begin_with_originals(&self, request: &mut Request<'_>, route: &Route) -> bool {
        let key = request.key;
        let Some(value) = request.value else {
            let Some(original) = route.original() else {
                return false;
            };
            if let Some(since) = self.relayed_since(|| key.to_vec()) {
                // Another thread asks for the same key; or the original has sent that question back, and waits.
                if !self.may_be_sent_back(since) {
                    return true;
                }
                let held = self.make_room(key).map(|()| self.account(key).1);
                request.outcome = Some(held.map(Forwarded::done));
                return true;
            }
            self.locator.ask_kind(original);
            match self.get_from_original(original, key) {
                Ok(value) => request.is_done(value),
                Err(error) => request.failed(error),
            }
            return true;
        };
        if value.is_empty() && route.has_originals() {
            // Originals send the "" that they stored when they were asked for a missing key.
            match request.delete {
                true => request.outcome = Some(Err(no_deletion())),
                false => request.is_done(Vec::new()),
            }
            return true;
        }
        let is_back = self.relayed_since(|| put_mark(key, value)).is_some();
        if is_back || self.is_handed_by_original(route) {
            // An original sends back what was put at it, as its ring differs, or hands over what is this node's now: it
            // is stored here.
            let (wall, floor) = (self.wall(), self.floor());
            let next = |held| next_version(wall, floor.max(held));
            match self.items.put(key, value, next) {
                Ok(()) => {
                    // It may lie here though it should not.
                    self.strays().epoch = u64::MAX;
                    self.locator.wake_work();
                    request.is_done(Vec::new());
                }
                Err(_) => request.outcome = Some(Err(self.no_room())),
            }
            return true;
        }
        false
    }

    /// All replicas of ours have a put: a client's goes to the original that owns its key, too.
    fn finish_put(&self, request: &mut Request<'_>, route: &Route) {
        let (Some(original), Some(value)) = (route.original(), request.value) else {
            return request.put_is_done();
        };
        if request.forwarded {
            return request.put_is_done();
        }
        self.locator.ask_kind(original);
        let put = self.put_at_original(original, request.key, value, request.done);
        // If it has left meanwhile, it has handed over what it had before, or lost it.
        let same = self.locator.route(request.key).original() == Some(original);
        match put {
            _ if !same => request.begin_again(false),
            Ok(()) => request.is_done(Vec::new()),
            Err(error) => request.failed(error),
        }
    }

    /// What is sent to the primary.
    pub(super) fn forward(&self, request: &Request<'_>, to: &Member, now: Duration) -> NetRequest {
        let caller = || self.locator.caller(&self.locator.me(), &to.location);
        let forward = KeyValue {
            key: request.key,
            value: request.value,
            above: request.above,
            caller: (request.above > 0).then(caller),
        };
        let limit = match request.value {
            Some(_) => request.deadline.saturating_sub(now),
            None => self.locator.ticks(2),
        };
        NetRequest {
            limit: Some(limit),
            ..forward.request()
        }
    }

    /// The primary has answered, or not.
    pub(super) fn forwarded(
        &self,
        request: &mut Request<'_>,
        answer: Result<Forwarded, CallError>,
    ) {
        let route = match std::mem::replace(&mut request.step, Step::Begin) {
            Step::Forward(route) => route,
            _ => return,
        };
        match answer {
            Ok(Forwarded {
                done: Some(had), ..
            }) if request.value.is_some() => {
                request.had = !had.is_empty();
                self.finish_put(request, &route);
            }
            Ok(Forwarded {
                done: Some(value), ..
            }) => request.is_done(value),
            Ok(forwarded) => request.above = request.above.max(forwarded.above),
            Err(error) => request.failed(error),
        }
    }

    /// What is asked of the other replicas.
    pub(super) fn fetch(&self, request: &Request<'_>) -> NetRequest {
        let list = match &request.step {
            Step::Fetch(route) => route.digest,
            _ => 0,
        };
        let key = request.key;
        NetRequest {
            limit: Some(self.locator.ticks(1)),
            ..request_of("fetch", &Fetch { list, key })
        }
    }

    /// All other replicas have said what they have, or nothing.
    pub(super) fn fetched<'a>(&'a self, request: &mut Request<'a>) {
        let Step::Fetch(route) = std::mem::replace(&mut request.step, Step::Begin) else {
            return;
        };
        let others = route.others().count();
        let mut accounts = std::mem::take(&mut request.accounts);
        if accounts.len() < others {
            return;
        }
        accounts.push(self.account(request.key));
        let may = |membership: &Membership| membership.may_show(route.hash, route.digest);
        if !self.locator.with(|membership, _| may(membership)) {
            return;
        }
        let latest = accounts.iter().max().expect("BUG: no account").clone();
        if accounts.iter().all(|account| *account == latest) {
            request.is_done(latest.1);
            return;
        }
        // If each get sent the same value to the same nodes, none would arrive in time over a narrow link.
        if let Some(alone) = Relayed::alone(self, back_mark(request.key)) {
            let now = self.locator.with(|_, now| now);
            let mut tried = Try::new(route, latest.0, now);
            tried.back = Some((latest.1, alone));
            request.step = Step::Copies(tried);
            request.again = true;
        }
    }

    /// All replicas of the list have the latest value, or are `open`: they are asked again and again until they have
    /// room.
    fn answer_latest(
        &self,
        request: &mut Request<'_>,
        tried: &Try<'_>,
        latest: Account,
        open: bool,
    ) {
        let route = &tried.route;
        let same = self.locator.with(|membership, now| {
            let mut not_here = false;
            let same = membership.may_show(route.hash, route.digest);
            let same = same && !self.is_late(tried, now);
            if same && latest.0 > 0 {
                let merged = self.items.merge(request.key, latest.0, &latest.1, false);
                not_here = merged.is_err();
            }
            if same && (open || not_here) {
                membership.may_lack(tried.doubtful(not_here));
            }
            same
        });
        if same {
            request.is_done(latest.1);
        }
    }

    /// All other replicas have said whether they have taken their copies, or nothing.
    pub(super) fn copied<'a>(&'a self, request: &mut Request<'a>) {
        let Step::Copies(mut tried) = std::mem::replace(&mut request.step, Step::Begin) else {
            return;
        };
        let full = tried.full > 0;
        match tried.accepted {
            Accepted::All if tried.back.is_some() => {
                let (value, alone) = tried.back.take().expect("BUG: it has just been there");
                let latest = (tried.version, value);
                self.answer_latest(request, &tried, latest, full);
                drop(alone);
            }
            Accepted::All if full => {
                let exception = Exception::new(Exception::NO_ROOM, std::mem::take(&mut tried.why));
                if tried.first && tried.full == tried.route.others().count() {
                    self.give_up(tried);
                } else {
                    self.leave_open(request, tried);
                }
                request.outcome = Some(Err(exception));
            }
            Accepted::All => request.step = Step::Own(tried),
            Accepted::Above(version) if tried.back.is_none() => {
                request.above = request.above.max(version);
                request.left = Some(tried);
            }
            Accepted::No if tried.back.is_none() => request.left = Some(tried),
            Accepted::Above(_) | Accepted::No => {}
        }
    }

    /// Writes the own copies of these, of which all others have copies, once this node may decide.
    pub(super) fn write_own<'a>(&'a self, requests: &mut [Request<'a>], places: &[usize]) {
        if places.is_empty() {
            return;
        }
        let mut written = Vec::with_capacity(places.len());
        let lease = self.locator.ticks(LEASE_TICKS);
        self.locator.with(|membership, now| {
            for place in places {
                let request = &mut requests[*place];
                let (Step::Own(tried), Some(value)) = (&request.step, request.value) else {
                    continue;
                };
                let Route { hash, digest, .. } = tried.route;
                let others = tried.route.others().next().is_some();
                let is_late = self.is_late(tried, now);
                let is_old = is_late || (others && now.saturating_sub(tried.asked) >= lease);
                if !is_late && membership.may_decide(now, hash, digest, Some(tried.asked)) {
                    // If there is no memory: when there is.
                    let merged = self.items.merge(request.key, tried.version, value, true);
                    match merged {
                        Ok(merged) if merged.later => request.begin_again(true),
                        Ok(merged) => {
                            request.had = merged.had && value.is_empty();
                            written.push(*place);
                        }
                        Err(_) => {}
                    }
                } else if !membership.is_replica(hash, digest) {
                    request.begin_again(true);
                } else if is_old && tried.first && value.len() <= SMALL_BYTES {
                    // It was answered in time, but read late, or the clock was stepped. It is tried once more.
                    request.begin_again(true);
                } else if !is_late {
                    membership.want_lease(now, hash);
                }
            }
        });
        for place in written {
            let request = &mut requests[place];
            if let Step::Own(tried) = std::mem::replace(&mut request.step, Step::Begin) {
                self.finish_put(request, &tried.route);
            }
        }
    }

    /// The time of a request is over.
    pub(super) fn expire(&self, request: &mut Request<'_>) {
        let left = match std::mem::replace(&mut request.step, Step::Begin) {
            Step::Own(tried) => Some(tried),
            _ => request.left.take(),
        };
        if let Some(tried) = left {
            self.leave_open(request, tried);
        }
        request.outcome = Some(Err(not_acknowledged()));
    }

    /// The primary stops trying a put that others may have. It stores the put as well: what is still on its way to them
    /// is then the same at all of them. It doubts them: until it has compared with them, it doesn't answer from this
    /// copy alone.
    fn leave_open(&self, request: &Request<'_>, tried: Try<'_>) {
        let value = request.value.unwrap_or_default();
        self.locator.with(|membership, now| {
            let route = &tried.route;
            let have_it = route.others().next().is_some();
            if have_it && membership.is_replica(route.hash, route.digest) {
                let is_late = self.is_late(&tried, now);
                // If there is no memory, the others have it alone.
                let merge = || self.items.merge(request.key, tried.version, value, true);
                let not_here = is_late || merge().is_err();
                membership.may_lack(tried.doubtful(not_here));
            }
            Self::doubt_if_taken(membership, tried);
        });
        self.locator.wake_work();
    }

    /// A try of a put is over, and not all replicas are known to have it.
    fn give_up(&self, tried: Try<'_>) {
        self.locator
            .with(|membership, _| Self::doubt_if_taken(membership, tried));
    }

    /// If another node has sent a copy of that put to this one, this node shows it from now on, and others may lack it.
    /// In one step: no copy comes in between.
    fn doubt_if_taken(membership: &mut Membership, tried: Try<'_>) {
        if tried.underway.as_ref().is_some_and(Mark::was_taken) {
            membership.doubt_others(tried.route.hash, None);
        }
        drop(tried);
    }

    /// Whether so much time has passed since copies were sent that a tombstone above them may be forgotten soon. Tombstones
    /// are kept for twice as long, and as long as a large message is on its way.
    fn is_late(&self, tried: &Try<'_>, now: Duration) -> bool {
        let most = LATE.max(self.locator.ticks(LATE_TICKS));
        !tried.large && now.saturating_sub(tried.asked) > most
    }

    /// Whether a caller is the node that it says it is, and a member or one that has left. Any other program could name
    /// a version that no later put can exceed.
    pub(super) fn is_known(&self, caller: Option<&Caller>) -> bool {
        caller.is_some_and(|caller| {
            self.locator
                .with(|membership, _| membership.is_known(caller))
        })
    }

    fn floor(&self) -> i64 {
        self.locator.with(|membership, _| membership.floor())
    }

    pub(super) fn wall(&self) -> i64 {
        self.locator.environment().clock.wall()
    }
}

/// The version of a put after that one. The clock doesn't lead above the greatest version, but a version that a
/// stranger named may. A put at a node that is alone then takes the place of that item.
pub(super) fn next_version(wall: i64, before: i64) -> i64 {
    wall.max(before + 1).min(VERSION_MAX)
}

fn no_deletion() -> Exception {
    Exception::internal(
        "a node of the original is a member: nothing can be deleted meanwhile".to_owned(),
    )
}

fn no_version() -> Exception {
    Exception::internal(
        "the key has the greatest version, 2^62: nothing can be put after it".to_owned(),
    )
}
