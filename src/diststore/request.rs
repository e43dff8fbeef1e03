//! A get or a put on its way: what it has found out, and what it does next.
//!
//! It decides nothing. The rules are in `steps.rs`.

use std::time::Duration;

use crate::location::Location;
use crate::locator::{Route, read_key, write_answer};
use crate::membership::Member;
use crate::net::CallError;
use crate::service::Call;
use crate::thrift::{Exception, Write, put_field};

use super::Store;
use super::calls::{Account, Forwarded, KeyValue, Taken};
use super::originals::Relayed;
use super::underway::Mark;

/// A get or a put on its way.
pub(super) struct Request<'a> {
    pub key: &'a [u8],
    /// `None`: a get.
    pub value: Option<&'a [u8]>,
    /// Another node has forwarded it.
    pub forwarded: bool,
    /// A client's `delete_key`: it wants to know whether there was a value.
    pub delete: bool,
    /// There was a value in the place of which it has put the empty one.
    pub had: bool,
    /// To be called when later requests of the same client will find its effect.
    pub done: &'a dyn Fn(),
    /// Those of its batch for the same key that stand next to it.
    pub before: Option<usize>,
    pub behind: Option<usize>,
    /// The greatest version in which this put has been tried. 0: in none.
    pub above: i64,
    /// It fails if it isn't done by then. Zero: it has not begun.
    pub deadline: Duration,
    pub step: Step<'a>,
    /// It waits until it is the first that isn't answered: what it brings takes much memory, or long.
    pub waits_for_others: bool,
    /// It goes on without waiting.
    pub again: bool,
    /// How many answers have not come.
    pub missing: usize,
    /// What has been fetched.
    pub accounts: Vec<Account>,
    /// The last try of a put, which some replicas may hold and others may lack.
    pub left: Option<Try<'a>>,
    /// `Ok`: done, or this node isn't its primary.
    pub outcome: Option<Result<Forwarded, Exception>>,
}

/// What the answer to a request says.
#[derive(Clone, Copy)]
pub(super) enum Wants {
    /// What became of it, to the node that has forwarded it.
    Forwarded,
    /// The value of a get.
    Value,
    /// Whether there was a value that it has deleted.
    Had,
    /// That a put is done.
    Nothing,
}

/// What a request does next.
pub(super) enum Step<'a> {
    /// It looks up the key's replicas.
    Begin,
    /// It is forwarded to the primary.
    Forward(Route),
    /// A get asks the other replicas.
    Fetch(Route),
    /// The other replicas get copies of a value.
    Copies(Try<'a>),
    /// The own copy comes last.
    Own(Try<'a>),
}

/// A value that all replicas of a list are to have: of a put, or the latest one that a get has found.
pub(super) struct Try<'a> {
    pub route: Route,
    pub version: i64,
    /// Copies of this put are on their way.
    pub underway: Option<Mark<'a>>,
    /// The latest value, if it is a get's; only one thread sends it back.
    pub back: Option<(Vec<u8>, Relayed<'a>)>,
    /// When the copies were sent, or a little before.
    pub asked: Duration,
    /// It was sent while the batch had a large message on its way: no tombstone is forgotten meanwhile.
    pub large: bool,
    /// It is the first try of its put.
    pub first: bool,
    pub accepted: Accepted,
    /// Which of the other replicas have it, or something later: a bit for each, in their order.
    holds: u64,
    /// How many replicas have no room for it, and what one says of that.
    pub full: usize,
    pub why: String,
}

/// What the other replicas have said so far.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Accepted {
    All,
    /// Something of that version is held somewhere.
    Above(i64),
    No,
}

impl<'a> Request<'a> {
    /// The request in a call of `get`, `put`, `delete_key` or `forward`. One that can't be read has failed.
    pub fn of(store: &Store, call: &Call<'a>) -> Self {
        let forwarded = call.method == b"forward";
        let read = match call.method {
            b"get" => read_key(call.arguments).map(KeyValue::get),
            b"delete_key" => read_key(call.arguments).map(KeyValue::delete),
            _ => KeyValue::read(call.arguments),
        };
        let failed = match &read {
            Err(exception) => Some(Err(exception.clone())),
            Ok(put) if call.method == b"put" && put.value.is_none() => {
                Some(Err(Exception::missing_argument("value")))
            }
            Ok(tried) if forwarded && tried.above > 0 && !store.is_known(tried.caller.as_ref()) => {
                Some(Ok(Forwarded::not_primary(tried.above)))
            }
            Ok(_) => None,
        };
        let KeyValue {
            key, value, above, ..
        } = read.unwrap_or(KeyValue::get(&[]));
        Request {
            key,
            value,
            forwarded,
            delete: call.method == b"delete_key",
            had: false,
            done: call.done,
            before: None,
            behind: None,
            // Only nodes say what has been tried.
            above: if forwarded { above } else { 0 },
            deadline: Duration::ZERO,
            step: Step::Begin,
            waits_for_others: false,
            again: false,
            missing: 0,
            accounts: Vec::new(),
            left: None,
            outcome: failed,
        }
    }

    /// Bytes of the value in its answer.
    pub fn answer_bytes(&self) -> usize {
        match &self.outcome {
            Some(Ok(forwarded)) => forwarded.bytes(),
            _ => 0,
        }
    }

    /// What its answer says.
    pub fn wants(&self) -> Wants {
        match self.value {
            _ if self.forwarded => Wants::Forwarded,
            _ if self.delete => Wants::Had,
            None => Wants::Value,
            Some(_) => Wants::Nothing,
        }
    }

    /// All replicas have the put.
    pub fn put_is_done(&mut self) {
        self.is_done(if self.had { vec![1] } else { Vec::new() });
    }

    pub fn is_done(&mut self, value: Vec<u8>) {
        self.outcome = Some(Ok(Forwarded::done(value)));
    }

    /// It begins again when it is the first that isn't answered. Until then its time doesn't run.
    pub fn wait_for_others(&mut self) {
        (self.step, self.waits_for_others) = (Step::Begin, true);
        self.deadline = Duration::ZERO;
        self.accounts.clear();
    }

    /// It looks up the key's replicas again.
    pub fn begin_again(&mut self, again: bool) {
        if let Step::Own(tried) = std::mem::replace(&mut self.step, Step::Begin) {
            self.left = Some(tried);
        }
        self.again |= again;
    }

    /// What came of a call that was to carry it out elsewhere.
    pub fn failed(&mut self, error: CallError) {
        match error {
            CallError::Exception(exception) => self.outcome = Some(Err(exception)),
            // It may be carrying the put out, or its messages are still on their way: elsewhere
            // the same put could be overtaken by another one, and then come back over it.
            CallError::Silent | CallError::Broken(_) if self.value.is_some() => {
                self.outcome = Some(Err(not_acknowledged()));
            }
            _ => self.begin_again(false),
        }
    }
}

impl<'a> Try<'a> {
    pub fn new(route: Route, version: i64, asked: Duration) -> Self {
        Try {
            route,
            version,
            underway: None,
            back: None,
            asked,
            large: false,
            first: false,
            accepted: Accepted::All,
            holds: 0,
            full: 0,
            why: String::new(),
        }
    }

    /// The value; `put` is that of the request, if it is a put.
    pub fn value<'b>(&'b self, put: Option<&'b [u8]>) -> &'b [u8] {
        match &self.back {
            Some((latest, _)) => latest,
            None => put.unwrap_or_default(),
        }
    }

    /// The full and leaving ones of the other replicas that may lack it; or all of them, if this node is the one.
    pub fn doubtful(&self, all: bool) -> impl Iterator<Item = &Location> {
        let others = self.route.others().enumerate();
        let others = others.filter(move |(place, other)| {
            let holds = self.holds.checked_shr(*place as u32).unwrap_or(0) & 1 == 1;
            other.state.holds_all() && (all || !holds)
        });
        others.map(|(_, other)| &other.location)
    }

    /// A replica has said this to its copy, or nothing.
    pub fn hear(&mut self, from: &Member, taken: Option<&Taken>, why: &Option<String>) {
        if let Some(Taken::Held(_)) = taken {
            let mut others = self.route.others();
            let place = others.position(|other| other.location == from.location);
            let bit = place.and_then(|place| 1_u64.checked_shl(place as u32));
            self.holds |= bit.unwrap_or(0);
        }
        self.accepted = match (self.accepted, taken) {
            (accepted, Some(Taken::NoRoom)) => {
                self.full += 1;
                self.why = why.clone().unwrap_or_default();
                accepted
            }
            (accepted, Some(Taken::Held(held))) if *held == self.version => accepted,
            (Accepted::All, Some(Taken::Held(held))) => Accepted::Above(*held),
            (Accepted::Above(above), Some(Taken::Held(held))) => Accepted::Above(above.max(*held)),
            _ => Accepted::No,
        };
    }
}

impl Forwarded {
    /// Of the value.
    pub(super) fn bytes(&self) -> usize {
        self.done.as_ref().map_or(0, Vec::len)
    }

    /// Appends the result.
    pub(super) fn write(self, wants: Wants, result: &mut Vec<u8>) {
        match (wants, &self.done) {
            (Wants::Forwarded, _) => return write_answer(&self, result),
            (Wants::Value, Some(value)) => result.write_bytes_field(0, value),
            (Wants::Had, Some(had)) => put_field(result, 0, &!had.is_empty()),
            _ => {}
        }
        result.write_stop();
    }
}

/// A request that failed, and may still take effect if it is a put.
pub(super) fn not_acknowledged() -> Exception {
    Exception::internal("no answer from all that hold the key: a put may or may not take effect")
}
