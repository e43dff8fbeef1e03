//! The Locator service: which nodes are in the network, and which of them a key belongs to.
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

mod ask;
mod calls;
mod enter;
mod originals;
mod participant;
mod route;
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
pub use route::Route;
pub use serve::METHODS;
pub use status::Status;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use crate::location::Location;
use crate::membership::{Action, Caller, Member, Membership, Rules, State, View};
use crate::net::{Clock, Environment, Level};
use crate::server::Traffic;
use crate::words::counted;

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
pub const VERSION: i32 = 4;

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
    /// When it was made, by the wall's clock.
    since: i64,
    /// What the server counts.
    traffic: OnceLock<Arc<Traffic>>,
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
            since: wall,
            traffic: OnceLock::new(),
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

    /// That account of this node, as it calls that one.
    pub fn caller(&self, me: &Member, to: &Location) -> Caller {
        Caller {
            me: me.clone(),
            token: self.lock().membership.token_of(to),
        }
    }

    /// Another number with each view.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// The same, if this node is the only member and has lost none.
    pub fn epoch_by_itself(&self) -> Option<u64> {
        Some(self.epoch()).filter(|epoch| epoch % 2 == 1)
    }

    /// Why this node is to end, unless it was told to.
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

    /// Has [`Locator::status`] tell what this node's server counts.
    pub fn on_traffic(&self, traffic: Arc<Traffic>) {
        // A second call changes nothing: a node has one server.
        let _ = self.traffic.set(traffic);
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

    /// A line as the original has it, on stdout, whatever a key has in it.
    pub fn say(&self, line: &str) {
        self.log(Level::Said, line);
    }

    /// A line of the node's log, whatever a peer's words have in them.
    pub fn log(&self, level: Level, line: &str) {
        (self.environment.log)(level, &one_line(line));
    }

    /// A poisoned lock is taken all the same: each change is one call into [`Membership`], which
    /// keeps its invariants.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `event` under the lock that guards the view, and then carries out the actions that follow from it. `event`
    /// gets the time of the clock, monotonic or wall, that moves further. It must call no node.
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

    /// Does `act` under the lock under which the view changes, if this node is the only member. It gets the
    /// [floor](Membership::floor).
    pub fn if_by_itself<T>(&self, act: impl FnOnce(i64) -> T) -> Option<T> {
        let inner = self.lock();
        let membership = &inner.membership;
        membership.is_by_itself().then(|| act(membership.floor()))
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
                Action::Added(location) => {
                    self.say(&format!("added {location}"));
                    self.log(Level::Debug, &format!("{location} is a member now"));
                }
                Action::Removed(location, goodbye) => {
                    self.say(&format!("removed {location}"));
                    if goodbye {
                        self.log(Level::Debug, &format!("{location} has left"));
                    } else {
                        let line = format!("{location} is lost: gone, or silent for too long");
                        self.log(Level::Warn, &line);
                    }
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
                Action::Missing => {
                    let lost = inner.membership.alarm();
                    let names: Vec<_> = lost.iter().map(ToString::to_string).collect();
                    let members = counted(lost.len(), "member", "members");
                    let names = names.join(", ");
                    let line = format!("{members} lost together: keys may be missing: {names}");
                    self.log(Level::Error, &line);
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

    /// Does what is due at a tick: chooses the nodes to put questions to, and drops silent ones. To be called once a
    /// tick. It makes no call itself.
    pub fn tick(&self) {
        self.with(|membership, now| membership.tick(now));
        self.wake(Errand::Work);
    }

    /// A member has answered that its lists differ, and which members it has.
    pub fn differs(&self, with: &Member, members: &[Member]) {
        self.with(|membership, _| membership.differs(with, members));
    }

    /// Begins to leave. False: this node never held anything of its own, and is out already.
    #[must_use]
    pub fn begin_leaving(&self) -> bool {
        let is_out = self.with(|membership, _| {
            membership.leave();
            membership.me().state == State::Left
        });
        self.announce();
        !is_out
    }

    /// Says goodbye: this node is no member any more, and everybody is told.
    pub fn say_goodbye(&self) {
        self.with(|membership, _| membership.go());
        self.announce();
        self.say_goodbye_to_originals();
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

/// The text with all in it escaped that ends a line, turns its direction or is not to be seen: scripts read logs and
/// complaints line by line, and no two lines look alike. Letters and signs of all languages stay as they are.
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii_graphic() || c == ' ' || is_visible(c) {
            line.push(c);
        } else if c.is_control() {
            line.extend(c.escape_debug());
        } else {
            line.extend(c.escape_unicode());
        }
    }
    line
}

/// Whether it is to be seen, if only on the letter before it. What std takes for printable, and isn't, are fillers of
/// syllables and selectors of variants.
fn is_visible(c: char) -> bool {
    let fills = matches!(
        c,
        '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{ffa0}' | '\u{e0100}'..='\u{e01ef}'
    );
    // At the beginning of a text std escapes what belongs to the letter before.
    let mut text = [b'a'; 5];
    let length = 1 + c.encode_utf8(&mut text[1..]).len();
    let text = str::from_utf8(&text[..length]).unwrap_or_default();
    !fills && text.escape_debug().eq(text.chars())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn must_escape_what_is_not_seen_or_turns_the_line() {
        for (text, line) in [
            ("a\nb\r\tc\0", "a\\nb\\r\\tc\\0"),
            ("a\u{202e}b\u{2066}", "a\\u{202e}b\\u{2066}"),
            ("a\u{200b}b\u{feff}", "a\\u{200b}b\\u{feff}"),
            ("\u{200d}\u{ad}\u{a0}", "\\u{200d}\\u{ad}\\u{a0}"),
            ("\u{2028}\u{85}", "\\u{2028}\\u{85}"),
            ("\u{fe0f}\u{3164}", "\\u{fe0f}\\u{3164}"),
            ("\u{e0041}\u{e000}", "\\u{e0041}\\u{e000}"),
        ] {
            assert_eq!(one_line(text), line);
        }
        for plain in [
            "key 1",
            "'q' \"w\" \\n",
            "Größe",
            "ключ",
            "鍵",
            "مفتاح",
            "चाबी",
            "e\u{301}",
            "🔑",
            "\u{fffd}",
        ] {
            assert_eq!(one_line(plain), plain);
        }
    }

    #[test]
    fn must_give_way_by_the_number_of_items() {
        let times = |parts, items| (0..parts).filter(|_| is_due(items)).count();
        assert_eq!(times(1024, 1), 1024 / WALKED_MAX);
        assert_eq!(times(1024, 0), 0);
        assert_eq!(times(10, 1000), 10);
    }
}
