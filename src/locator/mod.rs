//! The Locator service: who is in the network, and who a key belongs to.
//!
//! It is not a store: what a service on it keeps is behind the trait [`Application`]. Every node
//! knows every other. A node comes in by *pulling* from everybody (`join.rs`), is watched by its
//! neighbour and compared with everybody from time to time (`watch.rs`), and goes by saying
//! goodbye to all. Originals of 2009 are told of everything in their own way (`originals.rs`).
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
mod originals;
mod view;
mod watch;

pub use calls::{
    EMPTY, Item, ItemList, Known, LIMITS, Page, Status, read_key, read_location, read_result,
    request, single_request, write_key, write_location,
};
pub use join::StartError;
pub use member::{Member, State, fnv1a};
pub use originals::service_types;
pub use view::View;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::Duration;

use crate::location::Location;
use crate::net::{Answer, CallError, Environment, Request};
use crate::service::{Call, Order, Service};
use crate::thrift::{Exception, Write, wire};

use calls::{Hello, HelloArguments, News, PullArguments};
use membership::{Change, Membership};

/// A node answers a question among nodes within this many ticks, or counts as silent.
const ANSWER_TICKS: u32 = 1;
/// A page of items, or a batch of them, may take this long.
const PAGE_TICKS: u32 = 4;
/// A node whose last answered question is older than this was stopped or cut off, and doesn't
/// trust what it has. Less than [`SILENCE_TICKS`]: before anybody takes its place it knows.
const LAPSE_TICKS: u32 = 4;
/// A node that has been silent for this long is dropped.
const SILENCE_TICKS: u32 = 8;
/// A put or get is answered within this many ticks, or fails.
pub const REQUEST_TICKS: u32 = 12;

/// The name of the extension in `service_types`: who lists it answers every CALL, keeps
/// connections open, and speaks idl/peer.thrift.
pub const EXTENSION: &str = "thrifty.Peer";

/// What a service on the locator adds to it. All methods may be called from many threads.
pub trait Application: Send + Sync {
    /// Puts items that `newcomer` should hold by `view` into `items`, about a megabyte at most, from
    /// where `cursor` says (empty: the beginning). The answer is the next cursor; `None`: that was
    /// all.
    fn page(
        &self,
        view: &View,
        newcomer: &Location,
        cursor: &[u8],
        items: &mut ItemList,
    ) -> Option<Vec<u8>> {
        let _ = (view, newcomer, cursor, items);
        None
    }

    /// Takes in an item that another node has.
    fn accept(&self, item: &Item<'_>) {
        let _ = item;
    }

    /// Everything has been pulled: `view` is the first in which this node is full.
    fn filled(&self, view: &Arc<View>) {
        let _ = view;
    }

    /// Items held, items not known to be with all their holders, and whether a move is due.
    fn items(&self) -> (usize, usize, bool) {
        (0, 0, false)
    }
}

/// A service on the locator: what a node runs.
pub trait Participant: Service + Application + Sized + 'static {
    fn locator(&self) -> &Locator;

    /// What can take long, as far as there is any; called by the node's mover after each change of
    /// the view, and at the interval of the ticks.
    fn work(&self) {
        self.locator().fill(self);
        self.locator().look_after_originals();
    }

    /// Hands over and says goodbye, while the node still serves.
    ///
    /// # Errors
    /// The number of items that nobody has taken.
    fn leave(&self) -> Result<(), usize> {
        self.locator().begin_leaving();
        self.locator().say_goodbye();
        Ok(())
    }
}

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
    /// Called when the node is told to end, by `die`. Must not block.
    pub on_die: Box<dyn Fn() + Send + Sync>,
}

/// What a request is served by; see [`Locator::look`].
pub struct Look {
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
    membership: Mutex<Membership>,
    /// The thread that is woken when the view changes.
    mover: OnceLock<Thread>,
}

impl Locator {
    /// A node that is filling, and alone. [`Locator::start`] brings it in.
    pub fn new(location: Location, options: Options, environment: Environment) -> Self {
        let (wall, now) = (environment.clock.wall(), environment.clock.now());
        Locator {
            membership: Mutex::new(Membership::new(location.clone(), wall, now)),
            location,
            options,
            environment,
            mover: OnceLock::new(),
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

    /// This node as a member.
    pub fn me(&self) -> Member {
        self.membership().me.clone()
    }

    /// The view and the state to serve a request by, at this moment: a node that was stopped finds
    /// out here, before it answers from what it had.
    pub fn look(&self) -> Look {
        let now = self.now();
        let mut membership = self.membership();
        if membership.has_lapsed(now, self.ticks(LAPSE_TICKS)) {
            drop(membership);
            self.lapse();
            membership = self.membership();
        }
        Look {
            view: membership.view.clone(),
            state: membership.me.state,
            ready: membership.joined,
            lapsed: membership.lapsed,
        }
    }

    /// That many ticks.
    pub fn ticks(&self, count: u32) -> Duration {
        self.options.tick * count
    }

    /// Has `thread` unparked whenever the view changes, or there is something to pull.
    pub fn wake_on_change(&self, thread: Thread) {
        // A second call changes nothing: a node has one mover.
        let _ = self.mover.set(thread);
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
        if let Some(mover) = self.mover.get() {
            mover.unpark();
        }
    }

    fn now(&self) -> Duration {
        self.environment.clock.now()
    }

    fn wall(&self) -> i64 {
        self.environment.clock.wall()
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
                self.on_hello(&arguments, result, application);
                return Ok(());
            }
            b"pull" => {
                let arguments = PullArguments::read(call.arguments)?;
                return self.on_pull(arguments, result, application);
            }
            b"suspect" => self.on_suspect(&calls::read_location(call.arguments)?),
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
        let (items, unconfirmed, due) = application.items();
        let membership = self.membership();
        Status {
            me: membership.me.clone(),
            replicas: self.options.replicas,
            members: membership.view.members().len(),
            digest: membership.view.digest(),
            items,
            unconfirmed,
            moving: due || membership.me.state != State::Full,
            agreed: membership.agreed,
            joined: membership.joined,
        }
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

    /// Calls a member. One that refuses is dropped, and the others are told.
    pub fn call_member(&self, to: &Location, request: &Request, limit: Duration) -> Answer {
        let mut answers = self.call_members(&[(to.clone(), request.clone())], limit);
        answers.pop().expect("BUG: an answer for each call")
    }

    /// Calls members, all at once. Those that refuse are dropped, and the others are told.
    pub fn call_members(&self, calls: &[(Location, Request)], limit: Duration) -> Vec<Answer> {
        if calls.is_empty() {
            return Vec::new();
        }
        let answers = self.environment.network.call_all(calls, limit);
        let refused = calls.iter().zip(&answers);
        let refused: BTreeSet<_> = refused
            .filter(|(_, answer)| matches!(answer, Err(CallError::Refused)))
            .map(|((location, _), _)| location)
            .collect();
        for location in refused {
            self.refused(location);
        }
        answers
    }

    /// A fresh connection to this node was refused.
    fn refused(&self, location: &Location) {
        let is_original = {
            let mut membership = self.membership();
            if let Some(track) = membership.tracks.get_mut(location) {
                track.asked = false;
            }
            membership
                .view
                .get(location)
                .is_some_and(|member| !member.is_ours())
        };
        if !(is_original && self.is_starting(location)) {
            self.drop_member(location);
        }
    }

    /// Takes out a member that went without goodbye, and tells the others, who will ask it once.
    /// Nothing happens if it is no member.
    pub fn drop_member(&self, location: &Location) {
        let dropped = *location != self.location && {
            let now = self.now();
            self.membership().remove(location, None, now)
        };
        if dropped {
            self.environment.network.forget(location);
            self.note_removed(location);
            self.tell_lost(location);
        }
    }

    /// One that has said goodbye still answers what it has been asked, so the connections to it
    /// are not cut: its puts would get no answer though they are carried out.
    fn note_removed(&self, location: &Location) {
        self.say(&format!("removed {location}"));
        self.changed();
    }

    /// Tells the others that a node doesn't answer any more: ours are to ask it themselves, the
    /// originals are told that it has gone. Those it doesn't reach learn by comparing lists.
    fn tell_lost(&self, location: &Location) {
        let suspect = request("suspect", calls::write_location(location));
        let mut notices = self.tell_originals("remove", location);
        notices.extend(self.tell_ours(&suspect, location));
        // Who refuses here is found by its neighbour: dropping it now could go round in circles.
        // The others ask the one in question, so they may take a tick longer.
        self.notify(&notices, 2 * ANSWER_TICKS);
    }

    /// The same request for each other member of ours but one.
    fn tell_ours(&self, request: &Request, except: &Location) -> Vec<(Location, Request)> {
        let view = self.view();
        let ours = view.members().iter().filter(|member| member.is_ours());
        let others = ours.map(|member| &member.location);
        let others = others.filter(|location| **location != self.location && *location != except);
        others
            .map(|location| (location.clone(), request.clone()))
            .collect()
    }

    /// `add` or `remove`, with everybody as authority: who gets it has nobody to pass it on to, so
    /// no stuck one can end the news.
    fn news(&self, method: &'static str, about: &Location) -> Request {
        let view = self.view();
        let everybody = view.members().iter().map(|member| &member.location);
        single_request(method, News::write(about, everybody), true)
    }

    /// That for each original but one.
    fn tell_originals(&self, method: &'static str, about: &Location) -> Vec<(Location, Request)> {
        let view = self.view();
        let originals = view.members().iter().filter(|member| !member.is_ours());
        let originals = originals.filter(|member| member.location != *about);
        let mut originals = originals.map(|member| member.location.clone()).peekable();
        if originals.peek().is_none() {
            return Vec::new();
        }
        let news = self.news(method, about);
        originals.map(|location| (location, news.clone())).collect()
    }

    /// Sends what wants no answer but that it has arrived.
    fn notify(&self, notices: &[(Location, Request)], ticks: u32) {
        if !notices.is_empty() {
            let _ = self
                .environment
                .network
                .call_all(notices, self.ticks(ticks));
        }
    }

    /// Takes in what is said of a node. True: it is new here.
    fn admit(&self, member: Member) -> bool {
        let now = self.now();
        let location = member.location.clone();
        let change = self.membership().admit(member, now);
        self.note_admitted(&location, change)
    }

    fn note_admitted(&self, location: &Location, change: Change) -> bool {
        if change == Change::Added {
            self.say(&format!("added {location}"));
        }
        if change != Change::None {
            self.changed();
        }
        change == Change::Added
    }

    /// Asks nodes of ours how they are. Answers are taken in; a refusal drops nobody yet.
    fn hello(&self, to: &[Location]) -> Vec<Result<Hello, CallError>> {
        let calls: Vec<_> = {
            let membership = self.membership();
            let ask = |location: &Location| {
                let arguments = HelloArguments {
                    me: membership.me.clone(),
                    digest: membership.view.digest(),
                    counted: membership.is_member(location),
                };
                (location.clone(), request("hello", arguments.write()))
            };
            to.iter().map(ask).collect()
        };
        let limit = self.ticks(ANSWER_TICKS);
        let answers = self.environment.network.call_all(&calls, limit);
        let answers = answers.into_iter();
        answers
            .map(|answer| answer.and_then(|result| Hello::read(&result)))
            .collect()
    }

    fn on_hello(
        &self,
        hello: &HelloArguments,
        result: &mut Vec<u8>,
        application: &dyn Application,
    ) {
        let (_, unconfirmed, due) = application.items();
        let caller = &hello.me.location;
        let (answer, view, change, removed) = {
            let now = self.now();
            let mut membership = self.membership();
            let known = membership.known(caller);
            let alone = membership.view.members().len() == 1;
            let mut change = Change::None;
            let mut removed = false;
            if hello.me.state == State::Gone {
                removed = is_goodbye(&membership, &hello.me)
                    && membership.remove(caller, Some(hello.me.stamp), now);
            } else if known == Known::Member {
                change = membership.admit(hello.me.clone(), now);
            } else if hello.counted
                && *caller != self.location
                && membership.me.state == State::Full
                && (alone || known == Known::Lost)
            {
                // It has this node in its ring: this one is another run of the same name and found
                // nobody, or they lost each other. The caller knows the network.
                membership.contacts.insert(caller.clone());
                change = Change::Updated;
            }
            let answer = Hello {
                me: membership.me.clone(),
                digest: membership.view.digest(),
                known,
                members: None,
                safe: unconfirmed == 0 && !due && membership.me.state == State::Full,
            };
            (answer, membership.view.clone(), change, removed)
        };
        if removed {
            self.note_removed(caller);
        }
        self.note_admitted(caller, change);
        let members = (answer.digest != hello.digest).then(|| view.members());
        answer.write(members, result);
    }

    /// Says goodbye: this node is no member any more, and everybody is told.
    pub fn say_goodbye(&self) {
        self.set_state(State::Gone);
        // A hello of a node that has gone is its goodbye.
        let _ = self.hello(&self.others_of_ours());
        self.notify(&self.tell_originals("remove", &self.location), ANSWER_TICKS);
        self.wait_for_originals();
    }

    /// This node begins to hand over, and everybody is told.
    pub fn begin_leaving(&self) {
        self.set_state(State::Leaving);
        // Who doesn't hear it is told with each item.
        let _ = self.hello(&self.others_of_ours());
    }

    fn others_of_ours(&self) -> Vec<Location> {
        let membership = self.membership();
        let ours = membership.others().filter(|member| member.is_ours());
        ours.map(|member| member.location.clone()).collect()
    }

    fn set_state(&self, state: State) {
        let wall = self.wall();
        self.membership().set_state(state, wall);
        self.changed();
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

/// Whether that ends a membership: not this node's own, and not that of a later run under the same
/// name, whose news came first.
fn is_goodbye(membership: &Membership, said: &Member) -> bool {
    let known = membership.view.get(&said.location);
    said.location != membership.me.location && known.is_none_or(|known| known.stamp <= said.stamp)
}

/// The services that a node of nothing but the locator answers for.
pub const SERVICE_TYPES: &[&str] = &["locator.Base", "locator.Locator"];

/// A node of nothing but the locator.
pub struct LocatorService(Locator);

impl LocatorService {
    pub fn new(locator: Locator) -> Self {
        LocatorService(locator)
    }
}

impl Application for LocatorService {}

impl Service for LocatorService {
    fn call(&self, call: &Call<'_>, result: &mut Vec<u8>) -> Result<(), Exception> {
        self.0.call(call, result, self)
    }

    fn order(&self, method: &[u8]) -> Order {
        self.0.order(method)
    }
}

impl Participant for LocatorService {
    fn locator(&self) -> &Locator {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Network, Random, SystemClock};

    /// A network in which every call fails in the same way.
    struct Failing(CallError);

    impl Network for Failing {
        fn call_all(&self, calls: &[(Location, Request)], _: Duration) -> Vec<Answer> {
            calls.iter().map(|_| Err(self.0.clone())).collect()
        }

        fn forget(&self, _: &Location) {}
    }

    fn member(name: &str, state: State, stamp: i64) -> Member {
        let location = name.parse().unwrap();
        Member {
            location,
            state,
            stamp,
        }
    }

    /// What a node said on its log, and `die` once it was told to.
    type Log = Arc<Mutex<Vec<String>>>;

    /// A node `a:1` that knows `b:1`, whose stamp is 10.
    fn node(failure: CallError) -> LocatorService {
        logging_node(failure, false).0
    }

    fn logging_node(failure: CallError, die_from_anywhere: bool) -> (LocatorService, Log) {
        let log = Log::default();
        let (said, told) = (log.clone(), log.clone());
        let options = Options {
            service_types: SERVICE_TYPES,
            replicas: 1,
            tick: Duration::from_millis(500),
            die_from_anywhere,
            on_die: Box::new(move || told.lock().unwrap().push("die".to_owned())),
        };
        let environment = Environment {
            network: Arc::new(Failing(failure)),
            clock: Arc::new(SystemClock::new()),
            random: Random::new(1),
            log: Box::new(move |line| said.lock().unwrap().push(line.to_owned())),
        };
        let locator = Locator::new("a:1".parse().unwrap(), options, environment);
        locator.admit(member("b:1", State::Full, 10));
        (LocatorService(locator), log)
    }

    fn names(node: &LocatorService) -> Vec<String> {
        let view = node.0.view();
        let members = view.members().iter();
        members.map(|member| member.location.to_string()).collect()
    }

    fn say_goodbye(node: &LocatorService, me: Member) {
        let hello = HelloArguments {
            me,
            digest: 0,
            counted: true,
        };
        node.0.on_hello(&hello, &mut Vec::new(), node);
    }

    fn call(node: &LocatorService, method: &[u8], local: bool) -> Result<(), Exception> {
        let call = Call {
            method,
            arguments: EMPTY,
            local,
            done: &|| (),
        };
        Service::call(node, &call, &mut Vec::new())
    }

    #[test]
    fn must_die_for_its_own_machine_only_unless_told_otherwise() {
        for (local, from_anywhere) in [(true, false), (true, true), (false, true), (false, false)] {
            let (node, log) = logging_node(CallError::Refused, from_anywhere);
            let obeyed = call(&node, b"die", local).is_ok();
            assert_eq!(obeyed, local || from_anywhere);
            assert_eq!(log.lock().unwrap().contains(&"die".to_owned()), obeyed);
        }
    }

    #[test]
    fn regression_must_say_one_line_whatever_is_in_it() {
        let (node, log) = logging_node(CallError::Refused, false);
        log.lock().unwrap().clear();
        node.0.say("received é\nremoved b:1\x1b[2J");
        assert_eq!(*log.lock().unwrap(), ["received é\\nremoved b:1\\u{1b}[2J"]);
    }

    #[test]
    fn must_print_its_state_on_its_own_log() {
        let (node, log) = logging_node(CallError::Refused, false);
        log.lock().unwrap().clear();
        call(&node, b"debug", false).unwrap();
        let log = log.lock().unwrap().join("\n");
        for part in ["Status", "\na:1 Filling", "\nb:1 Full"] {
            assert!(log.contains(part), "{log}");
        }
    }

    #[test]
    fn regression_must_not_believe_the_late_goodbye_of_an_earlier_run() {
        let node = node(CallError::Refused);
        say_goodbye(&node, member("b:1", State::Gone, 9));
        assert_eq!(names(&node), ["a:1", "b:1"]);
        say_goodbye(&node, member("b:1", State::Gone, 11));
        assert_eq!(names(&node), ["a:1"]);
    }

    #[test]
    fn regression_must_not_take_itself_out_for_what_others_say() {
        let node = node(CallError::Refused);
        say_goodbye(&node, member("a:1", State::Gone, i64::MAX));
        assert_eq!(names(&node), ["a:1", "b:1"]);
    }

    #[test]
    fn regression_must_not_take_a_suspect_out_for_trouble_of_its_own() {
        let suspect = "b:1".parse().unwrap();
        let local = node(CallError::Local("no descriptors".into()));
        local.0.on_suspect(&suspect);
        assert_eq!(names(&local), ["a:1", "b:1"]);
        let refused = node(CallError::Refused);
        refused.0.on_suspect(&suspect);
        assert_eq!(names(&refused), ["a:1"]);
    }
}
