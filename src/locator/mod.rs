//! The Locator service: who is in the network, and who a key belongs to.
//!
//! It is not a store: what a service on it keeps is behind the trait [`Application`]. Every node
//! knows every other. A node comes in by *pulling* from everybody (`join.rs`), is watched by its
//! neighbour and compared with everybody from time to time (`watch.rs`), and goes by saying
//! goodbye to all (`news.rs`). Originals of 2009 are told of everything in their own way (`originals.rs`).
//!
//! Invariants:
//!
//! * The lock guards its members and is never held while another node is called.
//! * Nothing is waited for without a limit. Limits are counted in *ticks*, see below.
//! * A node is dropped when a fresh connection to it is refused, when it has been silent for
//!   8 ticks, or when it says goodbye; never on somebody else's word alone.

mod calls;
mod join;
mod member;
mod membership;
mod news;
mod originals;
mod participant;
mod view;
mod watch;

pub use calls::{
    EMPTY, GONE, Item, ItemList, Known, LIMITS, Page, Status, gone, of_the_key, read_key,
    read_location, read_result, request, single_request, write_key, write_location,
};
pub use join::StartError;
pub use member::{Member, State, fnv1a};
pub use originals::service_types;
pub use participant::{Application, LocatorService, Participant, SERVICE_TYPES, kind};
pub use view::View;

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use crate::location::Location;
use crate::net::Environment;
use crate::service::{Call, Order};
use crate::thrift::{Exception, Write, wire};

use calls::{HelloArguments, News, PullArguments};
use membership::Membership;

/// A node answers a question among nodes within this many ticks, or counts as silent.
const ANSWER_TICKS: u32 = 1;
/// A page of items, or a batch of them, may take this long.
const PAGE_TICKS: u32 = 4;
/// A node whose last answered question is older than this was stopped or cut off, and doesn't
/// trust what it has. Less than [`SILENCE_TICKS`]: before anybody takes its place it knows.
const LAPSE_TICKS: u32 = 4;
/// A node that has been silent for this long is dropped.
const SILENCE_TICKS: u32 = 8;
/// A newcomer whose network has been gone for this long gives up.
const ORPHAN_TICKS: u32 = 8;
/// A put or get is answered within this many ticks, or fails.
pub const REQUEST_TICKS: u32 = 12;

/// The name of the extension in `service_types`: who lists it answers every CALL, keeps
/// connections open, and speaks idl/peer.thrift.
pub const EXTENSION: &str = "thrifty.Peer";

/// The knobs of a node.
pub struct Options {
    /// The services the node answers for, the base first, its own type last; without the extension.
    pub service_types: &'static [&'static str],
    /// Copies of each item, 1 to 5. More: more nodes may be killed at once; slower puts.
    pub replicas: usize,
    /// The interval between two looks at the neighbours. Shorter: the dead are found sooner, with
    /// more traffic; too short and a busy node counts as dead.
    pub tick: Duration,
    /// `die` is obeyed from any machine, not only this one.
    pub die_from_anywhere: bool,
    /// Called when the node is told to end, by `die`, or is to give up, see [`Locator::is_lost`].
    /// Must not block.
    pub on_die: Box<dyn Fn() + Send + Sync>,
}

/// What a request is served by; see [`Locator::look`].
pub struct Look {
    /// By the monotonic clock.
    pub at: Duration,
    pub view: Arc<View>,
    /// This node's own.
    pub state: State,
    /// It knows the network it is part of.
    pub ready: bool,
    /// It was stopped or cut off, and has not caught up yet.
    pub lapsed: bool,
}

/// A node's part in the network. Shared by all its threads.
pub struct Locator {
    location: Location,
    options: Options,
    environment: Environment,
    /// By how many microseconds the wall's clock is ahead of the monotonic one.
    wall_ahead: AtomicI64,
    membership: Mutex<Membership>,
    /// Wakes the mover.
    on_change: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Locator {
    /// A node that is filling, and alone. [`Locator::start`] brings it in.
    pub fn new(location: Location, options: Options, environment: Environment) -> Self {
        let (wall, now) = (environment.clock.wall(), environment.clock.now());
        Locator {
            membership: Mutex::new(Membership::new(location.clone(), wall, now)),
            wall_ahead: AtomicI64::new(wall - now.as_micros() as i64),
            location,
            options,
            environment,
            on_change: OnceLock::new(),
        }
    }

    /// This node's name.
    pub fn location(&self) -> &Location {
        &self.location
    }

    pub fn replicas(&self) -> usize {
        self.options.replicas
    }

    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// The network as it is known now.
    pub fn view(&self) -> Arc<View> {
        self.membership().view.clone()
    }

    /// How many changes led to [`Locator::view`].
    pub fn epoch(&self) -> u64 {
        self.membership().view.epoch()
    }

    /// This node as a member.
    pub fn me(&self) -> Member {
        self.membership().me.clone()
    }

    /// The view and the state to serve a request by, at this moment: a node that was stopped finds
    /// out here, before it answers from what it had.
    pub fn look(&self) -> Look {
        let now = self.now();
        let membership = self.membership_at(now);
        Look {
            at: now,
            view: membership.view.clone(),
            state: membership.me.state,
            ready: membership.is_ready(),
            lapsed: membership.lapsed,
        }
    }

    /// The epoch of the view, if this node can answer for `key` from what it has.
    pub fn epoch_if_primary(&self, key: &[u8]) -> Option<u64> {
        let epoch = |view: &View| {
            let owner = view.owner(key);
            let is_me = owner.is_some_and(|owner| owner.location == self.location);
            is_me.then(|| view.epoch())
        };
        self.if_full(self.now(), epoch)
    }

    /// The epoch of the view, if this node is the only holder of `key`.
    pub fn epoch_if_only_holder(&self, key: &[u8], now: Duration) -> Option<u64> {
        let epoch = |view: &View| {
            let holder = view.only_holder(key, self.replicas());
            let is_me = holder.is_some_and(|holder| holder.location == self.location);
            is_me.then(|| view.epoch())
        };
        self.if_full(now, epoch)
    }

    /// What `decide` says of the view, if this node knows its network and has what it should. Not while
    /// it is leaving: it may own keys that another leaver, which was before it in the ring, has
    /// handed to those after it.
    fn if_full<T>(&self, now: Duration, decide: impl FnOnce(&View) -> Option<T>) -> Option<T> {
        let membership = self.membership_at(now);
        if membership.me.state != State::Full || !membership.is_ready() {
            return None;
        }
        let view = match membership.view.members() {
            // Nothing to work out: done sooner than the view is shared.
            [_] => return decide(&membership.view),
            _ => membership.view.clone(),
        };
        drop(membership);
        decide(&view)
    }

    /// What is known, to serve a request by.
    fn membership_at(&self, now: Duration) -> MutexGuard<'_, Membership> {
        let membership = self.membership();
        if !membership.has_lapsed(now, self.ticks(LAPSE_TICKS)) {
            return membership;
        }
        drop(membership);
        self.lapse();
        self.membership()
    }

    /// Whether the network has gone while this node was coming in, and for so long that this node is
    /// to give up.
    pub fn is_lost(&self) -> bool {
        let (now, limit) = (self.now(), self.ticks(ORPHAN_TICKS));
        let mut membership = self.membership();
        if !membership.is_orphan() {
            membership.orphan_since = None;
            return false;
        }
        let since = *membership.orphan_since.get_or_insert(now);
        now.saturating_sub(since) >= limit
    }

    /// Whether this node has ever counted among the holders of a key. What one that has not been full
    /// yet holds, others hold as well.
    pub fn has_counted(&self) -> bool {
        self.membership().rooted
    }

    /// Whether nodes have gone without goodbye: they may still be there, out of reach.
    pub fn has_lost(&self) -> bool {
        !self.membership().lost.is_empty()
    }

    /// That many ticks.
    pub fn ticks(&self, count: u32) -> Duration {
        self.options.tick * count
    }

    /// Has `wake` called whenever the view changes, or there is something to pull. It must not block.
    pub fn wake_on_change(&self, wake: impl Fn() + Send + Sync + 'static) {
        // A second call changes nothing: a node has one mover.
        let _ = self.on_change.set(Box::new(wake));
    }

    /// A line on the node's own log, whatever a key or a peer's words have in them.
    pub fn say(&self, line: &str) {
        (self.environment.log)(&one_line(line));
    }

    /// A poisoned lock is taken all the same: each change is one call into [`Membership`], which
    /// keeps its invariants.
    fn membership(&self) -> MutexGuard<'_, Membership> {
        self.membership
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        if let Some(wake) = self.on_change.get() {
            wake();
        }
    }

    fn now(&self) -> Duration {
        self.environment.clock.now()
    }

    fn wall(&self) -> i64 {
        self.environment.clock.wall()
    }

    /// What the wall's clock says, in microseconds, at a moment of the monotonic one, as the two stood to
    /// each other at the last tick: for those who have looked at one of them already.
    pub fn wall_at(&self, now: Duration) -> i64 {
        self.wall_ahead
            .load(Ordering::Relaxed)
            .saturating_add(now.as_micros() as i64)
    }

    /// To be called each tick: the wall's clock may be set.
    fn compare_clocks(&self) {
        let ahead = self.wall() - self.now().as_micros() as i64;
        self.wall_ahead.store(ahead, Ordering::Relaxed);
    }

    /// How the first calls of connections wait for each other; see [`Order`].
    pub fn order(&self, method: &[u8]) -> Order {
        match method {
            b"add" | b"remove" | b"join" | b"die" => Order::Write,
            b"hello" | b"pull" | b"suspect" | b"status" => Order::Free,
            _ => Order::Read,
        }
    }

    /// Serves the calls of the Locator, and those of the extension that are its own.
    ///
    /// # Errors
    /// An unknown method, or arguments that are missing.
    pub fn call(
        &self,
        call: &Call<'_>,
        result: &mut Vec<u8>,
        application: &dyn Application,
    ) -> Result<(), Exception> {
        match call.method {
            b"ping" => {}
            b"service_type" => {
                result.write_bytes_field(0, self.service_type().as_bytes());
            }
            b"service_types" => {
                let types = self.options.service_types;
                result.write_field(wire::LIST, 0);
                result.write_list(wire::STRING, types.len() + 1);
                for name in types.iter().chain([&EXTENSION]) {
                    result.write_bytes(name.as_bytes());
                }
            }
            b"debug" => self.debug(application),
            b"die" => {
                if call.local || self.options.die_from_anywhere {
                    (self.options.on_die)();
                } else {
                    let message = "die is obeyed from the node's own machine only";
                    return Err(Exception::internal(message));
                }
            }
            b"get_all" => {
                let view = self.view();
                result.write_field(wire::LIST, 0);
                let locations = view.members().iter().map(|member| &member.location);
                Location::write_list(result, locations);
            }
            b"get_node" => {
                let view = self.view();
                result.write_field(wire::STRUCT, 0);
                match view.owner(read_key(call.arguments)?) {
                    Some(owner) => owner.location.write(result),
                    None => {
                        // What the original answers for an empty ring.
                        result.write_bytes_field(1, b"");
                        result.write_i16_field(2, 0);
                        result.write_stop();
                    }
                }
            }
            b"join" => {
                let news = News::read(call.arguments)?;
                self.on_join(&news.location, call.done);
            }
            b"add" => self.on_add(News::read(call.arguments)?, call.done),
            b"remove" => self.on_remove(News::read(call.arguments)?, call.done),
            b"hello" => {
                let arguments = HelloArguments::read(call.arguments)?;
                self.on_hello(&arguments, result);
                return Ok(());
            }
            b"pull" => {
                let arguments = PullArguments::read(call.arguments)?;
                return self.on_pull(arguments, result, application);
            }
            b"suspect" => self.on_suspect(&calls::read_locations(call.arguments)?),
            b"status" => {
                self.status(application).write(result);
                return Ok(());
            }
            _ => return Err(Exception::unknown_method(call.method)),
        }
        result.write_stop();
        Ok(())
    }

    fn service_type(&self) -> &'static str {
        self.options
            .service_types
            .last()
            .expect("BUG: a node without a service type")
    }

    /// Is everything where it should be, as far as this node can tell?
    pub fn status(&self, application: &dyn Application) -> Status {
        let mut status = {
            let membership = self.membership();
            Status {
                me: membership.me.clone(),
                replicas: self.options.replicas,
                members: membership.view.members().len(),
                digest: membership.view.digest(),
                items: 0,
                unconfirmed: 0,
                moving: membership.me.state != State::Full,
                agreed: membership.agreed,
                joined: membership.is_ready(),
                looking: membership.is_looking(),
            }
        };
        // Asked after the list was looked at: the other way round a change between the two would
        // show a new list with nothing to move yet.
        let (items, unconfirmed, due) = application.items();
        status.items = items;
        status.unconfirmed = unconfirmed;
        status.moving |= due;
        status
    }

    /// What the original's `debug` is for: the node's state, on its own log.
    fn debug(&self, application: &dyn Application) {
        let status = self.status(application);
        let view = self.view();
        self.say(&format!("{status:?}"));
        for member in view.members() {
            self.say(&format!("{} {:?}", member.location, member.state));
        }
    }
}

/// To be called between the items of a long move, with the number of those before, and where no lock
/// is held: every so often a thread of a client that waits for this core goes first. Without it, gets
/// wait for a whole slice of the scheduler's, some milliseconds.
pub fn give_way(done: usize) {
    const ITEMS: usize = 64;
    if done.is_multiple_of(ITEMS) {
        thread::yield_now();
    }
}

/// The text with its control characters escaped: scripts read logs and complaints line by line.
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            line.extend(c.escape_debug());
        } else {
            line.push(c);
        }
    }
    line
}

#[cfg(test)]
mod tests;
