//! Living beside nodes of the 2009 original: how they are called, and what their calls mean here.
//!
//! An original serves one connection at a time, has no time limits, and answers no one-way call. It passes news along a
//! chain: it sends `add` or `remove` to the first member by name that is in its ring and not among the authorities, the
//! nodes that know already. So each of ours tells an original itself, and names all members as authorities. Each of
//! these calls has a connection of its own, closed at once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::location::Location;
use crate::net::{Answer, CallError, Level, Network, Request};
use crate::service::Call;
use crate::thrift::{Exception, Write};

use super::calls::{EMPTY, News, read_answer, read_arguments, single_request};
use super::{ANSWER_TICKS, EXTENSION, Locator, kind};

/// A node that was named in `join` or `add` is forgotten if it has refused connections for so long. An original joins
/// before it listens, and waits for a newcomer itself for as long.
const STARTING: Duration = Duration::from_secs(10);

/// An original that has been silent for longer is no member any more, and a node that was named is forgotten.
const DEAF: Duration = Duration::from_secs(30);

/// How many looks lie between two questions to an original.
const VISIT_TICKS: usize = 20;

/// How long an original may serve another connection before it counts as silent.
pub(super) const BUSY: Duration = Duration::from_secs(15);

/// How long a node that leaves waits for an original to hear it.
const GOODBYE: Duration = Duration::from_secs(5);

/// How many nodes are remembered that are to be asked what they are, or told of.
const NAMED_MAX: usize = 64;

/// How often it is said that there are too many.
const COMPLAINT: Duration = Duration::from_secs(60);

/// A node that was named, to be asked what it is. It is no member before it has answered.
#[derive(Debug, Clone)]
struct Named {
    since: Duration,
    /// How often it has been asked, and when it is asked next: after twice as long each time.
    asked: u32,
    due: Duration,
    /// Members that know of it; `None`: this node need not tell any.
    told: Option<BTreeSet<Location>>,
}

/// What this node knows of originals, besides that they are members. Times are of the monotonic clock.
#[derive(Debug, Default)]
pub(super) struct Originals {
    named: BTreeMap<Location, Named>,
    /// When it was said last that there are too many.
    complained: Option<Duration>,
    silent_since: BTreeMap<Location, Duration>,
    /// Those that have said `remove` of themselves, and may still be handing over.
    leaving: BTreeMap<Location, Duration>,
    /// Nodes of ours that originals are to hear have gone.
    removed: BTreeSet<Location>,
}

impl Originals {
    /// A node was named. False: too many are being asked already.
    pub fn name(
        &mut self,
        now: Duration,
        location: Location,
        told: Option<BTreeSet<Location>>,
    ) -> bool {
        let room = self.named.len() < NAMED_MAX || self.named.contains_key(&location);
        if room {
            let named = self.named.entry(location).or_insert(Named {
                since: now,
                asked: 0,
                due: now,
                told: None,
            });
            match (&mut named.told, told) {
                (Some(known), Some(more)) => known.extend(more),
                (known, told) => *known = known.take().or(told),
            }
        }
        room
    }

    /// There are too many to be asked. True: that has been said of late.
    fn complain(&mut self, now: Duration) -> bool {
        let said = self
            .complained
            .is_some_and(|at| now.saturating_sub(at) < COMPLAINT);
        if !said {
            self.complained = Some(now);
        }
        said
    }

    pub fn tell_removed(&mut self, location: &Location) {
        if self.removed.len() < NAMED_MAX {
            self.removed.insert(location.clone());
        }
    }
}

impl Locator {
    pub(super) fn service_types_of(&self, location: &Location) -> Result<Vec<String>, CallError> {
        let network = &*self.environment.network;
        service_types(network, location, self.ticks(2 * ANSWER_TICKS))
    }

    pub(super) fn members_of_original(
        &self,
        at: &Location,
        limit: Duration,
    ) -> Result<Vec<Location>, CallError> {
        let request = single_request("get_all", EMPTY.to_vec(), false);
        let result = self.environment.network.call(at, &request, limit)?;
        read_answer(&result, "get_all")
    }

    fn originals(&self) -> Vec<Location> {
        let view = self.view();
        let members = view.members().iter().filter(|member| !member.is_ours());
        members.map(|member| member.location.clone()).collect()
    }

    /// Asks an original what it is before it is called, if that is still to be asked. One of ours is then known as
    /// such.
    pub fn ask_kind(&self, location: &Location) {
        if self.lock().originals.named.contains_key(location) {
            self.hear_kind(location, self.service_types_of(location));
        }
    }

    /// Asks the nodes that were named what they are, all at once.
    fn ask_named(&self) {
        let now = self.now();
        let due: Vec<_> = {
            let mut inner = self.lock();
            let named = inner.originals.named.iter_mut();
            let due = named.filter(|(_, named)| named.due <= now);
            due.map(|(location, named)| {
                named.due = now + self.ticks(1 << named.asked.min(6));
                named.asked += 1;
                location.clone()
            })
            .collect()
        };
        let request = service_types_request();
        let calls: Vec<_> = due.into_iter().map(|to| (to, request.clone())).collect();
        let network = &self.environment.network;
        let answers = network.call_all(&calls, self.ticks(2 * ANSWER_TICKS));
        for ((location, _), answer) in calls.iter().zip(answers) {
            self.hear_kind(location, read_service_types(answer));
        }
    }

    /// A node has said what it is, or not. An original that answers is a member.
    fn hear_kind(&self, location: &Location, types: Result<Vec<String>, CallError>) {
        let (named, waited) = {
            let inner = self.lock();
            let Some(named) = inner.originals.named.get(location) else {
                return;
            };
            (named.clone(), self.now().saturating_sub(named.since))
        };
        let forget = || drop(self.lock().originals.named.remove(location));
        match types {
            Ok(types) if kind(&types).is_some_and(|kind| kind != self.service_type()) => {
                self.drop_original(location);
                let line = format!("{location} is refused: it runs another service");
                self.log(Level::Warn, &line);
            }
            Ok(types) if types.iter().any(|name| name == EXTENSION) => {
                forget();
                self.with(|membership, _| {
                    membership.remove_original(location);
                    membership.hear_of(location);
                });
            }
            Ok(_) => {
                forget();
                self.with(|membership, _| membership.add_original(location.clone()));
                let joined_here = named.told.as_ref().is_some_and(BTreeSet::is_empty);
                if let Some(told) = named.told {
                    self.tell_of_original(location, &told);
                }
                self.compare_lists(location, joined_here);
            }
            Err(cause) => {
                let refused = cause == CallError::Refused;
                let nobody = refused || matches!(cause, CallError::Local(_));
                if waited >= if nobody { STARTING } else { DEAF } {
                    forget();
                }
                if refused {
                    self.original_refuses(location);
                }
            }
        }
    }

    /// An original doesn't know those that came in between its `join` and its answer: this node makes itself known to
    /// it, and other originals, if it joined here.
    fn compare_lists(&self, original: &Location, joined_here: bool) {
        let Ok(known) = self.members_of_original(original, self.ticks(2 * ANSWER_TICKS)) else {
            return;
        };
        if !known.contains(&self.location) {
            self.with(|membership, _| membership.meet_again(original));
        }
        let others = self.originals().into_iter();
        let others =
            others.filter(|other| joined_here && other != original && !known.contains(other));
        let notices: Vec<_> = others
            .map(|other| (original.clone(), self.news("add", &other)))
            .collect();
        self.notify(&notices);
        self.hear_of_all(known);
    }

    /// Tells all members of a new one, except those that know.
    fn tell_of_original(&self, location: &Location, told: &BTreeSet<Location>) {
        let add = self.news("add", location);
        let view = self.view();
        let members = view.members().iter().map(|member| &member.location);
        let others = members.filter(|member| {
            *member != location && **member != self.location && !told.contains(*member)
        });
        let notices: Vec<_> = others.map(|to| (to.clone(), add.clone())).collect();
        self.notify(&notices);
    }

    /// A fresh connection to an original was refused.
    pub(super) fn original_refuses(&self, location: &Location) {
        if self.view().get(location).is_some() {
            self.drop_original(location);
        }
    }

    fn drop_original(&self, location: &Location) {
        {
            let mut inner = self.lock();
            inner.originals.named.remove(location);
            inner.originals.silent_since.remove(location);
        }
        self.with(|membership, _| membership.remove_original(location));
    }

    /// Makes this node known to an original, and waits until that one has given it the keys that
    /// are this node's now.
    fn enter_original(&self, original: &Location) {
        let view = self.view();
        let everybody = view.members().iter().map(|member| &member.location);
        let add = single_request("add", News::write(&self.location, everybody), true);
        let network = &self.environment.network;
        let added = network.call(original, &add, self.ticks(2 * ANSWER_TICKS));
        // It serves one connection after the other: when it answers this, it has acted on that.
        match added.and_then(|_| self.members_of_original(original, BUSY)) {
            Ok(members) => {
                self.hear_of_all(members);
                self.with(|membership, _| membership.met_original(original));
            }
            Err(CallError::Refused) => self.original_refuses(original),
            Err(_) => {}
        }
    }

    /// An original has these members.
    fn hear_of_all(&self, members: Vec<Location>) {
        let (view, now) = (self.view(), self.now());
        let mut inner = self.lock();
        for location in members {
            if view.get(&location).is_none() && location != self.location {
                inner.originals.name(now, location, None);
            }
        }
    }

    /// Looks after the originals: asks newcomers what they are, and now and then asks an original
    /// for its list. Can take long.
    pub fn look_after_originals(&self) {
        self.ask_named();
        let originals = self.originals();
        let removed = std::mem::take(&mut self.lock().originals.removed);
        if originals.is_empty() {
            return;
        }
        for location in removed {
            if self.view().get(&location).is_none() {
                self.notify(&self.tell_originals("remove", &location));
            }
        }
        let unmet: Vec<_> =
            self.with(|membership, _| membership.unmet_originals().cloned().collect());
        for original in unmet {
            self.enter_original(&original);
        }
        self.watch_leaving_originals();
        let turn = self.environment.random.below(VISIT_TICKS * originals.len());
        let silent = {
            let silent = &mut self.lock().originals.silent_since;
            // One that has gone would take the place of one that is there.
            silent.retain(|location, _| originals.contains(location));
            silent.clone()
        };
        for (place, location) in originals.iter().enumerate() {
            if place == turn || silent.contains_key(location) {
                self.visit(location, self.ticks(2 * ANSWER_TICKS));
            }
        }
    }

    /// Asks an original for its list. One that works answers at least once in the time of [`DEAF`].
    fn visit(&self, location: &Location, limit: Duration) {
        let asked = self.now();
        let members = self.members_of_original(location, limit);
        self.note_original(location, asked, &members);
        match members {
            Ok(members) => self.hear_of_all(members),
            Err(CallError::Refused) => self.original_refuses(location),
            Err(cause) => {
                let since = self.lock().originals.silent_since.get(location).copied();
                let silent_at = |time: Duration| time.saturating_sub(since.unwrap_or(time));
                // Other failures come before the time is up.
                let tried = match cause {
                    CallError::Silent => asked + limit,
                    _ => asked,
                };
                if silent_at(tried) >= DEAF {
                    self.drop_original(location);
                } else if limit < BUSY && silent_at(asked) >= DEAF - BUSY {
                    self.visit(location, BUSY);
                }
            }
        }
    }

    /// An original has answered a call that was made then, or was silent.
    pub(super) fn note_original<T>(
        &self,
        location: &Location,
        made: Duration,
        answer: &Result<T, CallError>,
    ) {
        let silent = &mut self.lock().originals.silent_since;
        match answer {
            Ok(_) | Err(CallError::Exception(_)) => drop(silent.remove(location)),
            Err(CallError::Refused) => {}
            Err(_) if silent.len() < NAMED_MAX => {
                silent.entry(location.clone()).or_insert(made);
            }
            Err(_) => {}
        }
    }

    /// Whether an original that has said `remove` of itself may still be handing its keys over.
    pub fn originals_are_leaving(&self) -> bool {
        !self.lock().originals.leaving.is_empty()
    }

    /// While it hands over, its port accepts connections that it never serves; then it refuses.
    fn watch_leaving_originals(&self) {
        let leaving = self.lock().originals.leaving.clone();
        for (location, since) in leaving {
            let ping = single_request("ping", EMPTY.to_vec(), false);
            let network = &self.environment.network;
            let answer = network.call(&location, &ping, self.ticks(ANSWER_TICKS));
            let long = self.now().saturating_sub(since) > DEAF;
            if long || matches!(answer, Err(CallError::Refused)) {
                self.lock().originals.leaving.remove(&location);
            }
        }
    }

    /// Tells the originals that this node has gone, and waits until each has acted on it: it answers a
    /// `ping`.
    pub(super) fn say_goodbye_to_originals(&self) {
        self.notify(&self.tell_originals("remove", &self.location));
        let ping = |location| {
            let request = single_request("ping", EMPTY.to_vec(), false);
            (location, request)
        };
        let pings: Vec<_> = self.originals().into_iter().map(ping).collect();
        if !pings.is_empty() {
            // One that doesn't answer is told of nothing more.
            let _ = self.environment.network.call_all(&pings, GOODBYE);
        }
    }

    /// `join`, `add` and `remove`: what originals, and scripts, say.
    pub(super) fn on_news(&self, call: &Call<'_>, result: &mut Vec<u8>) -> Result<(), Exception> {
        let news: News = read_arguments(call.arguments)?;
        // Ours hear of each other otherwise.
        let passed_on = call.method == b"remove" && self.view().has_originals();
        match call.method {
            b"remove" => self.on_remove(&news.location, &news.authorities),
            // A node that joins at this one has told no other.
            b"join" => self.on_add(&news.location, BTreeSet::new()),
            _ => self.on_add(&news.location, news.authorities.iter().cloned().collect()),
        }
        (call.done)();
        if passed_on {
            self.pass_on("remove", &news);
        }
        result.write_stop();
        Ok(())
    }

    /// It is asked what it is, by the mover, and is a member once it has answered: it may not listen yet.
    fn on_add(&self, location: &Location, told: BTreeSet<Location>) {
        let view = self.view();
        if *location == self.location || view.get(location).is_some() {
            return;
        }
        let told = told.into_iter().filter(|one| view.get(one).is_some());
        let (now, told) = (self.now(), told.collect());
        let well = {
            let originals = &mut self.lock().originals;
            originals.name(now, location.clone(), Some(told)) || originals.complain(now)
        };
        if !well {
            let line = format!(
                "{NAMED_MAX} nodes that were named are being asked what they are: {location} is passed over"
            );
            self.log(Level::Warn, &line);
        }
        self.wake_work();
    }

    /// A `remove` of one of ours is not believed: that node is asked.
    fn on_remove(&self, location: &Location, tellers: &[Location]) {
        let view = self.view();
        if *location == self.location {
            // If it was an original that says so, that one has to be told again.
            self.with(|membership, _| {
                let tellers = tellers.iter();
                tellers.for_each(|teller| membership.meet_again(teller));
            });
            self.wake_work();
            return;
        }
        match view.get(location) {
            Some(member) if member.is_ours() => {
                self.with(|membership, _| membership.suspect(std::slice::from_ref(location)));
            }
            Some(_) => {
                // The other originals first: what they are asked for as soon as this one is out they
                // would else ask of it, while it waits for them.
                self.notify(&self.tell_originals("remove", location));
                let now = self.now();
                let mut inner = self.lock();
                if inner.originals.leaving.len() < NAMED_MAX {
                    inner.originals.leaving.insert(location.clone(), now);
                }
                drop(inner);
                self.drop_original(location);
            }
            None => {}
        }
    }

    /// `add` or `remove`, with all members as authorities: an original that gets it has no member to send it on to, so
    /// one that hangs can't stop the news.
    fn news(&self, method: &'static str, about: &Location) -> Request {
        let view = self.view();
        let everybody = view.members().iter().map(|member| &member.location);
        single_request(method, News::write(about, everybody), true)
    }

    /// That for each original but one.
    fn tell_originals(&self, method: &'static str, about: &Location) -> Vec<(Location, Request)> {
        let originals = self.originals().into_iter();
        let originals = originals.filter(|original| original != about);
        let news = self.news(method, about);
        originals.map(|location| (location, news.clone())).collect()
    }

    /// Sends calls that have no answer, and waits until they have arrived.
    fn notify(&self, notices: &[(Location, Request)]) {
        if !notices.is_empty() {
            let limit = self.ticks(ANSWER_TICKS);
            let _ = self.environment.network.call_all(notices, limit);
        }
    }

    /// Sends news on as originals expect: to the first member by name that is no authority yet.
    fn pass_on(&self, method: &'static str, news: &News) {
        let told: BTreeSet<_> = news.authorities.iter().collect();
        let view = self.view();
        let others = view.members().iter().map(|member| &member.location);
        let mut next = others.filter(|location| {
            **location != self.location && **location != news.location && !told.contains(location)
        });
        let authorities: Vec<_> = news.authorities.iter().chain([&self.location]).collect();
        let arguments = News::write(&news.location, authorities.into_iter());
        let request = single_request(method, arguments, true);
        let limit = self.ticks(ANSWER_TICKS);
        // The first that is there is told, and goes on from there.
        next.any(|location| {
            self.environment
                .network
                .call(location, &request, limit)
                .is_ok()
        });
    }
}

fn service_types_request() -> Request {
    single_request("service_types", EMPTY.to_vec(), false)
}

/// Nodes of before June 2009 don't know the question: no names.
fn read_service_types(answer: Answer) -> Result<Vec<String>, CallError> {
    match answer {
        Ok(result) => read_answer(&result, "service_types"),
        Err(CallError::Exception(exception)) if exception.kind == Exception::UNKNOWN_METHOD => {
            Ok(Vec::new())
        }
        Err(cause) => Err(cause),
    }
}

/// Asks a node which services it answers for, on a connection of its own, as it may be an original.
/// Nodes of before June 2009 don't know the question: no names.
///
/// # Errors
/// Any but that exception.
pub fn service_types(
    network: &dyn Network,
    location: &Location,
    limit: Duration,
) -> Result<Vec<String>, CallError> {
    read_service_types(network.call(location, &service_types_request(), limit))
}

#[cfg(test)]
pub(super) mod tests;
