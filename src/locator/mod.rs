//! The Locator service: who is in the network, and who a key belongs to.
//!
//! It carries out what [`Membership`] decides: puts the questions, lets candidates in, compares with
//! others what both should hold. It is not a store: what a service on it keeps is behind the trait
//! [`Application`].
//!
//! Invariants:
//!
//! * The lock guards what this node knows of the network, and is never held while another node is called.
//! * Nothing is waited for without a limit. Limits are counted in *ticks*.
//! * Questions to a node that was silent when asked last are put by a thread of their own: a node that
//!   hangs holds up nothing else.

mod calls;
mod enter;
mod originals;
mod participant;
mod serve;
mod settle;
mod status;

pub use calls::{
    EMPTY, LIMITS, News, of_the_key, read_answer, read_arguments, read_key, request, request_of,
    single_request, write_answer, write_key,
};
pub use enter::StartError;
pub use originals::service_types;
pub use participant::{Application, Held, LocatorService, Participant, SERVICE_TYPES, kind};
pub use status::Status;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use crate::location::Location;
use crate::membership::{Action, Asked, Caller, Member, Membership, Rules, State, View};
use crate::net::{Answer, CallError, Clock, Environment, Request};
use crate::ring;

use originals::Originals;

/// A question among nodes is answered within this many ticks, or the one asked is silent.
const ANSWER_TICKS: u32 = 1;

/// A candidate waits so long for its answer: all members are to reach it first.
const ENTER_TICKS: u32 = 4;

/// A put or get is answered within this many ticks, or fails.
pub const REQUEST_TICKS: u32 = 12;

/// A thread that goes through many items lets others go first after so many.
const WALKED_MAX: usize = 64;

/// How many nodes are remembered as silent. Questions to others may have to wait for one to a further silent node.
const SILENT_MAX: usize = 1000;

/// The name of the extension in `service_types`: a node that lists it answers every CALL, keeps
/// connections open, and speaks idl/peer.thrift.
pub const EXTENSION: &str = "thrifty.Peer";

/// The version of idl/peer.thrift.
pub const VERSION: i32 = 3;

/// The settings of a node.
pub struct Options {
    /// The services the node answers for, the base first, its own type last; without the extension.
    pub service_types: &'static [&'static str],
    /// Copies of each item, 1 to 5. More: more nodes may be killed at once; slower puts.
    pub replicas: usize,
    /// The interval between two looks at the others. Shorter: the dead are found sooner, with
    /// more traffic; too short and a busy node counts as dead.
    pub tick: Duration,
    /// `die` is obeyed from any machine, not only this one.
    pub die_from_anywhere: bool,
    /// Called when the node is told to end, by `die`, or has a [reason](Locator::end_reason) to.
    /// Must not block.
    pub on_die: Box<dyn Fn() + Send + Sync>,
}

/// A thread of a node that is woken when there is something for it to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Errand {
    /// [`Locator::ask`]: questions to nodes that answered when asked last.
    Ask,
    /// The same for those that were silent.
    AskSilent,
    /// [`Participant::work`]: what can take long.
    Work,
}

/// A node's part in the network. Shared by all its threads.
pub struct Locator {
    location: Location,
    options: Options,
    environment: Environment,
    inner: Mutex<Inner>,
    /// Twice the number of changes that led to the present view; one more if this node is by itself.
    epoch: AtomicU64,
    /// Wakes the threads.
    wake: OnceLock<Box<dyn Fn(Errand) + Send + Sync>>,
}

/// What the lock guards.
struct Inner {
    membership: Membership,
    age: Age,
    originals: Originals,
    /// Questions to be put.
    to_ask: Vec<Action>,
    /// Nodes that didn't answer when they were asked last.
    silent: BTreeSet<Location>,
    /// Members with which nothing is compared until then.
    rests: BTreeMap<Location, Duration>,
    end: Option<String>,
}

/// Which threads are to be woken.
#[derive(Default)]
struct Wake {
    ask: bool,
    work: bool,
}

/// A time that goes on while the process is stopped, and while the machine is suspended: of the two
/// clocks the one that moved further counts. A wall clock that is set back counts as one that stood still.
struct Age {
    now: Duration,
    wall: i64,
    age: Duration,
}

impl Age {
    fn look(&mut self, clock: &dyn Clock) -> Duration {
        let (now, wall) = (clock.now(), clock.wall());
        let by_wall = u64::try_from(wall.saturating_sub(self.wall)).unwrap_or(0);
        let by_wall = Duration::from_micros(by_wall);
        self.age += now.saturating_sub(self.now).max(by_wall);
        (self.now, self.wall) = (now, wall);
        self.age
    }
}

/// The replicas of a key by one view.
pub struct Route {
    /// The epoch of the view.
    pub epoch: u64,
    /// The key's place on the ring.
    pub hash: u32,
    /// In the order of the ring.
    pub list: Vec<Member>,
    /// The digest of the list.
    pub digest: u64,
    /// This node.
    pub me: Member,
    /// There are nodes of the original in the network.
    pub has_originals: bool,
}

impl Route {
    /// The replica that coordinates: the first that is full or leaving.
    pub fn primary(&self) -> Option<&Member> {
        self.list.iter().find(|member| member.state.holds_all())
    }

    /// The replicas of ours, but this node.
    pub fn others(&self) -> impl Iterator<Item = &Member> {
        let others = self.list.iter();
        others.filter(|member| member.is_ours() && member.location != self.me.location)
    }

    /// Whether this node is a replica of the key.
    pub fn has_me(&self) -> bool {
        let mut list = self.list.iter();
        list.any(|member| member.location == self.me.location)
    }

    /// Whether this node coordinates the requests for the key.
    pub fn is_primary(&self) -> bool {
        self.primary()
            .is_some_and(|member| member.location == self.me.location)
    }

    /// The original that owns the key.
    pub fn original(&self) -> Option<&Location> {
        let first = self.list.first().filter(|member| !member.is_ours());
        first.map(|member| &member.location)
    }
}

impl Locator {
    /// A node outside of any network. [`Locator::start`] brings it in.
    pub fn new(location: Location, options: Options, environment: Environment) -> Self {
        let (now, wall) = (environment.clock.now(), environment.clock.wall());
        let rules = Rules {
            copies: options.replicas,
            tick: options.tick,
        };
        let random = crate::net::Random::new(environment.random.below(usize::MAX) as u64);
        let inner = Inner {
            membership: Membership::new(
                location.clone(),
                rules,
                random,
                environment.secret,
                Duration::ZERO,
            ),
            age: Age {
                now,
                wall,
                age: Duration::ZERO,
            },
            originals: Originals::default(),
            to_ask: Vec::new(),
            silent: BTreeSet::new(),
            rests: BTreeMap::new(),
            end: None,
        };
        Locator {
            location,
            options,
            environment,
            inner: Mutex::new(inner),
            epoch: AtomicU64::new(0),
            wake: OnceLock::new(),
        }
    }

    /// This node's name.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// How many copies of each key the network keeps, 1 or more.
    pub fn replicas(&self) -> usize {
        self.options.replicas
    }

    /// The network, the clocks and the randomness that this node was given.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// The network as it is known now.
    pub fn view(&self) -> Arc<View> {
        self.lock().membership.view().clone()
    }

    /// This node as a member.
    pub fn me(&self) -> Member {
        self.lock().membership.me()
    }

    /// This node, as it calls that one.
    pub fn caller(&self, to: &Location) -> Caller {
        self.lock().membership.caller(to)
    }

    /// Another number with each view.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// The same, if there is nobody but this node, and never was.
    pub fn epoch_by_itself(&self) -> Option<u64> {
        Some(self.epoch()).filter(|epoch| epoch % 2 == 1)
    }

    /// Why this node is to end, if nobody told it to.
    pub fn end_reason(&self) -> Option<String> {
        self.lock().end.clone()
    }

    /// Whether members have been lost that may still be there, out of reach.
    pub fn has_lost(&self) -> bool {
        self.lock().membership.lost().next().is_some()
    }

    /// That many ticks.
    pub fn ticks(&self, count: u32) -> Duration {
        self.options.tick * count
    }

    /// The monotonic clock.
    pub fn now(&self) -> Duration {
        self.environment.clock.now()
    }

    /// Has `wake` called whenever there is something to do. It must not block.
    pub fn on_errand(&self, wake: impl Fn(Errand) + Send + Sync + 'static) {
        // A second call changes nothing: a node has its threads once.
        let _ = self.wake.set(Box::new(wake));
        self.wake(Errand::Ask);
        self.wake(Errand::AskSilent);
        self.wake(Errand::Work);
    }

    fn wake(&self, errand: Errand) {
        if let Some(wake) = self.wake.get() {
            wake(errand);
        }
    }

    /// Wakes the thread that does what can take long.
    pub fn wake_work(&self) {
        self.wake(Errand::Work);
    }

    /// A line on the node's own log, whatever a key or a peer's words have in them.
    pub fn say(&self, line: &str) {
        (self.environment.log)(&one_line(line));
    }

    /// A poisoned lock is taken all the same: each change is one call into [`Membership`], which
    /// keeps its invariants.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `event` under the lock under which the view changes, and then has the actions carried out that follow
    /// from it. `event` gets the time of the clock, monotonic or wall, that moves further. It must call no node.
    pub fn with<T>(&self, event: impl FnOnce(&mut Membership, Duration) -> T) -> T {
        let mut inner = self.lock();
        let now = inner.age.look(&*self.environment.clock);
        let result = event(&mut inner.membership, now);
        let actions = inner.membership.take_actions();
        if !actions.is_empty() {
            let wake = self.carry_out(&mut inner, actions);
            drop(inner);
            if wake.ask {
                self.wake(Errand::Ask);
                self.wake(Errand::AskSilent);
            }
            if wake.work {
                self.wake(Errand::Work);
            }
        }
        result
    }

    /// Does `act` under the lock under which the view changes, if there is nobody but this node.
    pub fn if_by_itself<T>(&self, act: impl FnOnce() -> T) -> Option<T> {
        let inner = self.lock();
        inner.membership.is_by_itself().then(act)
    }

    /// Has the node end, for that reason.
    pub fn end(&self, reason: String) {
        self.lock().end = Some(reason);
        (self.options.on_die)();
    }

    fn carry_out(&self, inner: &mut Inner, actions: Vec<Action>) -> Wake {
        let mut wake = Wake::default();
        for action in actions {
            match action {
                Action::Ask(_) | Action::Enter(_) => {
                    wake.ask = true;
                    inner.to_ask.push(action);
                }
                Action::Announce => {
                    wake.ask = true;
                    let others = inner.membership.others();
                    let asks = others.map(|member| Action::Ask(member.location.clone()));
                    inner.to_ask.extend(asks);
                }
                Action::Meet(location) => {
                    wake.work = true;
                    let now = self.now();
                    inner.originals.name(now, location, None);
                }
                Action::Added(location) => self.say(&format!("added {location}")),
                Action::Removed(location, goodbye) => {
                    self.say(&format!("removed {location}"));
                    // One that said goodbye still answers what it has been asked.
                    if !goodbye {
                        self.environment.network.forget(&location);
                    }
                    inner.originals.tell_removed(&location);
                    wake.work = true;
                }
                Action::Settle => wake.work = true,
                Action::Changed => {
                    wake.work = true;
                    let by_itself = u64::from(inner.membership.is_by_itself());
                    let epoch = 2 * inner.membership.changes() + by_itself;
                    self.epoch.store(epoch, Ordering::Release);
                }
                Action::Began => self.say("Initiating the network..."),
                Action::CameIn => self.say("Joining the network..."),
                Action::End(reason) => {
                    inner.end = Some(reason);
                    (self.options.on_die)();
                }
            }
        }
        wake
    }

    /// The replicas of a key, as the network is known now.
    pub fn route(&self, key: &[u8]) -> Route {
        let (view, me, epoch) = {
            let inner = self.lock();
            let membership = &inner.membership;
            (membership.view().clone(), membership.me(), self.epoch())
        };
        let hash = ring::hash(key);
        let places: Vec<_> = view.list(hash, self.options.replicas).collect();
        let digest = view.list_digest(places.iter().copied());
        let list = places.iter().map(|place| view.members()[*place].clone());
        Route {
            epoch,
            hash,
            list: list.collect(),
            digest,
            me,
            has_originals: view.has_originals(),
        }
    }

    /// Looks after the others; to be called once a tick. Calls nobody.
    pub fn tick(&self) {
        self.with(|membership, now| membership.tick(now));
        self.wake(Errand::Work);
    }

    /// Puts the questions that are due: to nodes that were silent when asked last, or to the others.
    pub fn ask(&self, silent: bool) {
        let due = {
            let mut inner = self.lock();
            let Inner {
                to_ask,
                silent: those,
                ..
            } = &mut *inner;
            let is_due = |action: &mut Action| match action {
                Action::Ask(to) | Action::Enter(to) => those.contains(to) == silent,
                _ => false,
            };
            to_ask.extract_if(.., is_due).collect::<Vec<_>>()
        };
        self.put_questions(due);
    }

    fn put_questions(&self, due: Vec<Action>) {
        let (mut calls, mut asked) = (Vec::new(), Vec::new());
        let mut ticks = ANSWER_TICKS;
        for action in due {
            let (to, request, question) = match action {
                Action::Ask(to) => {
                    let question = self.with(|membership, now| membership.question(now, &to));
                    (to, request_of("ask", &question.question), Some(question))
                }
                Action::Enter(to) => {
                    ticks = ENTER_TICKS;
                    (to, self.enter_request(), None)
                }
                _ => continue,
            };
            calls.push((to, request));
            asked.push(question);
        }
        if calls.is_empty() {
            return;
        }
        let incarnation = self.me().incarnation;
        let network = &self.environment.network;
        network.call_each(&calls, self.ticks(ticks), &mut |place, answer| {
            let to = &calls[place].0;
            self.note_silence(to, &answer);
            match &asked[place] {
                Some(asked) => self.take_reply(asked, answer),
                None => self.take_entry(to, incarnation, answer),
            }
        });
    }

    fn note_silence(&self, location: &Location, answer: &Answer) {
        let silent = matches!(answer, Err(CallError::Silent | CallError::Broken(_)));
        let silent = silent || matches!(answer, Err(CallError::Local(_)));
        let mut inner = self.lock();
        if !silent {
            inner.silent.remove(location);
        } else if inner.silent.len() < SILENT_MAX {
            inner.silent.insert(location.clone());
        }
    }

    fn take_reply(&self, asked: &Asked, answer: Answer) {
        match answer.and_then(|result| read_answer(&result, "ask")) {
            Ok(reply) => self.with(|membership, now| membership.answered(now, asked, &reply)),
            Err(CallError::Refused) => self.with(|membership, _| membership.unasked(asked)),
            Err(error) => {
                if let CallError::Local(cause) = &error {
                    self.say(cause);
                }
                self.with(|membership, now| membership.unanswered(now, asked));
            }
        }
    }

    /// Calls members that stand in this list. What a refusal or silence says of one is noted.
    pub fn call_members(
        &self,
        calls: &[(Member, Request)],
        limit: Duration,
    ) -> Vec<Result<Vec<u8>, CallError>> {
        if calls.is_empty() {
            return Vec::new();
        }
        let made = self.with(|_, now| now);
        let to = calls.iter();
        let to: Vec<_> = to
            .map(|(member, request)| (member.location.clone(), request.clone()))
            .collect();
        let answers = self.environment.network.call_all(&to, limit);
        for ((member, _), answer) in calls.iter().zip(&answers) {
            self.note_outcome(member, made, answer);
        }
        answers
    }

    /// Calls a member, as it stands in the view.
    pub fn call_member(&self, to: &Location, request: &Request, limit: Duration) -> Answer {
        let member = self.view().get(to).cloned();
        let member = member.unwrap_or_else(|| Member::original(to.clone()));
        let mut answers = self.call_members(&[(member, request.clone())], limit);
        answers.pop().expect("BUG: an answer for each call")
    }

    /// Notes what a refusal or silence says of a member, as it stood in the view when it was called.
    pub fn note_outcome(&self, member: &Member, made: Duration, answer: &Answer) {
        match answer {
            Err(CallError::Refused) if member.is_ours() => self.with(|membership, _| {
                membership.refused(&member.location, member.incarnation);
            }),
            Err(CallError::Refused) => self.original_refuses(&member.location),
            answer if !member.is_ours() => self.note_original(&member.location, self.now(), answer),
            Err(CallError::Silent) if member.is_ours() => {
                self.with(|membership, _| membership.silent(&member.location, made));
            }
            _ => {}
        }
    }

    /// A member has answered that its lists differ, and which members it has.
    pub fn differs(&self, with: &Member, members: &[Member]) {
        self.with(|membership, _| membership.differs(with, members));
    }

    /// Begins to leave. False: this node never held anything of its own, and is out already.
    #[must_use]
    pub fn begin_leaving(&self) -> bool {
        self.with(|membership, _| membership.leave());
        self.announce();
        self.me().state != State::Left
    }

    /// Says goodbye: this node is no member any more, and everybody is told.
    pub fn say_goodbye(&self) {
        self.with(|membership, _| membership.go());
        self.announce();
        self.say_goodbye_to_originals();
    }

    /// Puts the questions that tell of this node's state, and waits for the answers.
    fn announce(&self) {
        let due = std::mem::take(&mut self.lock().to_ask);
        self.put_questions(due);
    }
}

/// Lets a client's thread that waits for this core go first. To be called between the parts of a long move, while
/// no lock is held, with the number of items in the part before. Without it, gets wait for a whole time slice of
/// the scheduler, some milliseconds.
pub fn give_way(items: usize) {
    if is_due(items) {
        thread::yield_now();
    }
}

/// Whether this thread has been through [`WALKED_MAX`] items since it was due last. It doesn't depend on the number of
/// parts: on a machine that others keep busy the thread may wait for some 100 ms each time.
fn is_due(items: usize) -> bool {
    thread_local!(static WALKED: Cell<usize> = const { Cell::new(0) });
    let walked = WALKED.get() + items;
    let due = walked >= WALKED_MAX;
    WALKED.set(if due { 0 } else { walked });
    due
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
mod tests {
    use super::*;

    #[test]
    fn must_give_way_by_the_number_of_items() {
        let times = |parts, items| (0..parts).filter(|_| is_due(items)).count();
        assert_eq!(times(1024, 1), 1024 / WALKED_MAX);
        assert_eq!(times(1024, 0), 0);
        assert_eq!(times(10, 1000), 10);
    }
}
