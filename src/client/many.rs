//! Many operations at once, each at the node that owns its key.
//!
//! A key's owner by the ring is its primary, unless nodes come or go; a node that isn't the primary forwards what it
//! gets. So the client needs the members' names only, and a list that is not the latest costs a detour, no wrong
//! answer.

use std::collections::BTreeSet;
use std::iter;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crate::diststore::KeyValue;
use crate::location::Location;
use crate::locator::{read_answer, request, write_key};
use crate::net::{self, CallError, Event, Request};
use crate::report;
use crate::ring::{self, Ring};
use crate::thrift::Exception;

use super::{Client, Error, Manners};

/// After so long the members are asked for again.
const RING_AGE: Duration = Duration::from_secs(1);

/// How long a node may take to name the members, or to say how it is.
const MEMBERS_LIMIT: Duration = Duration::from_secs(2);

/// So much is on its way at a time: so many operations, or so many bytes.
pub(crate) const AT_ONCE: usize = 1000;
pub(crate) const BYTES_AT_ONCE: usize = 1 << 20;

/// The time between two tries.
pub(super) const PAUSE: Duration = Duration::from_millis(100);

/// The same items in runs of [`AT_ONCE`] or [`BYTES_AT_ONCE`] at most, with one item at least.
pub(crate) fn runs<T>(mut left: &[T], bytes: impl Fn(&T) -> usize) -> impl Iterator<Item = &[T]> {
    iter::from_fn(move || {
        let mut sum = 0;
        let fits = |(place, item): &(usize, &T)| {
            sum += bytes(item);
            *place == 0 || (*place < AT_ONCE && sum <= BYTES_AT_ONCE)
        };
        let length = left.iter().enumerate().take_while(fits).count();
        let (run, rest) = left.split_at(length);
        left = rest;
        Some(run).filter(|run| !run.is_empty())
    })
}

/// What is to be done with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation<'a> {
    /// Reads the value of a key.
    Get(&'a [u8]),
    /// Puts a value of a key; an empty one deletes it.
    Put(&'a [u8], &'a [u8]),
    /// Deletes a key, see [`Client::delete`].
    Delete(&'a [u8]),
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The value; empty for a missing key.
    Value(Vec<u8>),
    /// The put is acknowledged.
    Stored,
    /// Whether there was a value.
    Deleted(bool),
}

impl<'a> Operation<'a> {
    fn key(&self) -> &'a [u8] {
        match self {
            Operation::Get(key) | Operation::Put(key, _) | Operation::Delete(key) => key,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Operation::Get(key) | Operation::Delete(key) => key.len(),
            Operation::Put(key, value) => key.len() + value.len(),
        }
    }

    fn method(&self) -> &'static str {
        match self {
            Operation::Get(_) => "get",
            Operation::Put(..) => "put",
            Operation::Delete(_) => "delete_key",
        }
    }

    fn arguments(&self) -> Vec<u8> {
        match self {
            Operation::Get(key) | Operation::Delete(key) => write_key(key),
            Operation::Put(key, value) => KeyValue::write(key, Some(value)),
        }
    }

    fn read(&self, answer: net::Answer) -> Result<Answer, CallError> {
        let result = answer?;
        match self {
            Operation::Get(_) => read_answer(&result, "get").map(Answer::Value),
            Operation::Put(..) => Ok(Answer::Stored),
            Operation::Delete(_) => read_answer(&result, "delete_key").map(Answer::Deleted),
        }
    }
}

/// The members of the network, as the node that was found first has them.
#[derive(Clone)]
pub(super) struct Members {
    /// By the client's clock; `None`: they are to be asked for again.
    heard: Option<Duration>,
    ring: Ring,
    /// Of ours, by their place in the ring.
    ours: Vec<Option<Location>>,
    /// One that has not said what it is, or doesn't see the same members: it may be of another network, and have got
    /// the same name there.
    pub doubtful: Option<Location>,
}

impl Members {
    /// The node of ours that owns a key.
    fn owner(&self, key: &[u8]) -> Option<&Location> {
        self.ours[self.ring.owner(ring::hash(key))?].as_ref()
    }

    /// Those that are ours, in the order of their names.
    pub fn ours(&self) -> impl Iterator<Item = &Location> {
        self.ours.iter().flatten()
    }

    /// How many there are, originals too.
    pub fn count(&self) -> usize {
        self.ours.len()
    }
}

impl Client {
    /// Carries out these operations, up to 1,000 of them or 1 MiB at a time, side by side, and hands the answer to
    /// each to `take`. What a node doesn't get goes by way of the node that was found first; of two operations on one
    /// key the later one may then take effect first. Each waits for the limit, and for longer as long as others are
    /// answered.
    ///
    /// The errors are those of [`Client::put`], [`Client::get`] and [`Client::delete`].
    pub fn many(
        &self,
        operations: &[Operation<'_>],
        take: &mut dyn FnMut(usize, Result<Answer, Error>),
    ) {
        let mut begin = 0;
        for run in runs(operations, Operation::bytes) {
            self.batch(run, &mut |place, answer| take(begin + place, answer));
            begin += run.len();
        }
    }

    fn batch(
        &self,
        operations: &[Operation<'_>],
        take: &mut dyn FnMut(usize, Result<Answer, Error>),
    ) {
        let members = self.members().ok();
        let direct = |operation: &Operation<'_>| {
            let owner = members.as_ref()?.owner(operation.key())?;
            Some((
                owner.clone(),
                request(operation.method(), operation.arguments()),
            ))
        };
        let (places, calls): (Vec<_>, Vec<_>) = operations
            .iter()
            .enumerate()
            .filter_map(|(place, operation)| Some((place, direct(operation)?)))
            .unzip();
        let mut detour: Vec<_> = (0..operations.len()).collect();
        detour.retain(|place| places.binary_search(place).is_err());
        self.network.call_each(&calls, self.limit, &mut |event| {
            let Event::Answer(number, answer) = event else {
                return;
            };
            let place = places[number];
            match operations[place].read(answer) {
                Err(cause) if self.goes_round(&operations[place], &cause) => detour.push(place),
                answer => take(
                    place,
                    answer.map_err(|cause| Error::new(&calls[number].0, cause)),
                ),
            }
        });
        if detour.is_empty() {
            return;
        }
        if detour
            .iter()
            .any(|place| places.binary_search(place).is_ok())
        {
            self.forget_members();
        }
        let server = self.server();
        detour.sort_unstable();
        let around = |place: &usize| {
            let operation = &operations[*place];
            let put = matches!(operation, Operation::Put(..));
            let oneway = put && self.manners == Manners::Original;
            let request = request(operation.method(), operation.arguments());
            let request = self.suited(Request { oneway, ..request });
            (server.clone(), request)
        };
        let calls: Vec<(Location, Request)> = detour.iter().map(around).collect();
        self.network.call_each(&calls, self.limit, &mut |event| {
            if let Event::Answer(number, answer) = event {
                let place = detour[number];
                let answer = operations[place].read(answer);
                take(place, answer.map_err(|cause| Error::new(&server, cause)));
            }
        });
    }

    /// Whether the operation goes to the node that was found first as well: if its owner has not got it, or if it may
    /// be carried out twice without harm.
    fn goes_round(&self, operation: &Operation<'_>, cause: &CallError) -> bool {
        match cause {
            CallError::Refused | CallError::Local(_) => true,
            CallError::Silent | CallError::Broken(_) => matches!(operation, Operation::Get(_)),
            CallError::Exception(_) => false,
        }
    }

    /// Carries out these operations as [`Client::many`] does, and those that fail again and again, until each is done.
    /// A put may so be carried out twice: if others put the same key meanwhile, theirs may be lost.
    ///
    /// # Errors
    /// A node refuses an operation, as it has no room or it is too large; or none has been done for 30 s (three
    /// times [the limit](Client::with_limit)). Others may be done, or may be later.
    pub fn insist(
        &self,
        operations: &[Operation<'_>],
        take: &mut dyn FnMut(usize, Answer),
    ) -> Result<(), Error> {
        let mut open: Vec<_> = (0..operations.len()).collect();
        let mut since = self.clock.now();
        loop {
            let (mut left, mut error, mut refused) = (Vec::new(), None, None);
            let some: Vec<_> = open.iter().map(|place| operations[*place]).collect();
            self.many(&some, &mut |number, answer| match answer {
                Ok(answer) => {
                    since = self.clock.now();
                    take(open[number], answer);
                }
                Err(why) => {
                    if is_final(&why.cause) {
                        refused = refused.take().or(Some(why.clone()));
                    }
                    left.push(open[number]);
                    error = Some(why);
                }
            });
            match (refused, error) {
                (Some(error), _) => return Err(error),
                (None, None) => return Ok(()),
                (None, Some(error)) if self.clock.now().saturating_sub(since) > self.patience() => {
                    return Err(error);
                }
                _ => self.clock.pause(PAUSE),
            }
            left.sort_unstable();
            open = left;
        }
    }

    /// The members, as they were a second ago or later.
    pub(super) fn members(&self) -> Result<Arc<Members>, Error> {
        let known = self.known_members();
        let now = self.clock.now();
        let is_fresh = |members: &Arc<Members>| {
            let heard = members.heard;
            heard.is_some_and(|at| now.saturating_sub(at) < RING_AGE)
        };
        if let Some(known) = known.as_ref().filter(|known| is_fresh(known)) {
            return Ok(known.clone());
        }
        let locations = match self.manners {
            Manners::Ours => self.ask_for_members(known.as_deref())?,
            Manners::Original | Manners::Early => Vec::new(),
        };
        let mut ours: BTreeSet<_> = known.iter().flat_map(|known| known.ours()).collect();
        let server = self.server();
        let new = locations.iter().filter(|location| !ours.contains(location));
        let new: Vec<_> = new.cloned().collect();
        let mut doubtful = None;
        if !new.is_empty() {
            let asked = [&[server], &new[..]].concat();
            let mut answers = report::ask(&*self.network, &asked, MEMBERS_LIMIT).into_iter();
            let digest = answers
                .next()
                .and_then(Result::ok)
                .map(|status| status.digest);
            for (location, answer) in new.iter().zip(answers) {
                match answer {
                    Ok(status)
                        if status.me.location == *location && Some(status.digest) == digest =>
                    {
                        ours.insert(location);
                    }
                    // It doesn't know the question: an original.
                    Err(CallError::Exception(_)) => {}
                    _ => doubtful = Some(location.clone()),
                }
            }
        }
        let ring = Ring::new(locations.iter().map(|location| location.name().clone()));
        let mut places = vec![None; ring.names().len()];
        for location in locations.iter().filter(|location| ours.contains(location)) {
            if let Ok(place) = ring.position(location.name()) {
                places[place] = Some(location.clone());
            }
        }
        let members = Arc::new(Members {
            heard: Some(now),
            ring,
            ours: places,
            doubtful,
        });
        *self.ring.lock().unwrap_or_else(PoisonError::into_inner) = Some(members.clone());
        Ok(members)
    }

    fn known_members(&self) -> Option<Arc<Members>> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.clone()
    }

    /// Asks the node that was found first for the members. If that one doesn't answer, another one takes its place: a
    /// member that is known, or another peer that was named.
    fn ask_for_members(&self, known: Option<&Members>) -> Result<Vec<Location>, Error> {
        let server = self.server();
        let others = known.into_iter().flat_map(Members::ours).chain(&self.peers);
        let mut failed = None;
        for at in [&server].into_iter().chain(others) {
            match report::members(&*self.network, at, MEMBERS_LIMIT) {
                Ok(members) => {
                    *self.server.lock().unwrap_or_else(PoisonError::into_inner) = at.clone();
                    return Ok(members);
                }
                Err(cause) => failed = failed.or(Some(Error::new(at, cause))),
            }
        }
        Err(failed.expect("BUG: nobody was asked"))
    }

    /// They are asked for again before the next operations.
    pub(super) fn forget_members(&self) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(members) = &mut *ring {
            Arc::make_mut(members).heard = None;
        }
    }
}

/// Whether it makes no sense to try again.
fn is_final(cause: &CallError) -> bool {
    matches!(cause, CallError::Exception(exception) if exception.kind != Exception::INTERNAL_ERROR)
}
