//! Living beside nodes of the 2009 original: how they are called, and what their calls mean here.
//!
//! An original serves one connection at a time, has no time limits, answers no one-way call, and
//! passes news along a chain: it sends `add` or `remove` to the first member, in name order, that
//! is in its ring and not among the authorities. So ours tell it everything with everybody as
//! authority, on a connection for each call, closed at once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::location::Location;
use crate::net::{CallError, Network, Request};
use crate::service::Call;
use crate::thrift::{Exception, Write};

use super::calls::{EMPTY, News, read_answer, read_arguments, single_request};
use super::{ANSWER_TICKS, EXTENSION, Locator};

/// An original that was added less than this ago and refuses connections is starting: it joins
/// before it listens.
const STARTING: Duration = Duration::from_secs(2);

/// An original that has been silent for longer is gone.
const DEAF: Duration = Duration::from_secs(30);

/// How many looks lie between two questions to an original.
const VISIT_TICKS: usize = 20;

/// How long an original may be busy with somebody else before it is silent.
const BUSY: Duration = Duration::from_secs(15);

/// How many nodes are remembered that are to be asked what they are, or told of.
const NAMED_MAX: usize = 64;

/// What this node knows of originals, besides that they are members. Times are of the monotonic clock.
#[derive(Debug, Default)]
pub(super) struct Originals {
    /// To be asked what they are.
    named: BTreeSet<Location>,
    added: BTreeMap<Location, Duration>,
    silent_since: BTreeMap<Location, Duration>,
    /// Those that have said `remove` of themselves, and may still be handing over.
    leaving: BTreeMap<Location, Duration>,
    /// Nodes of ours that originals are to hear have gone.
    removed: BTreeSet<Location>,
}

impl Originals {
    pub fn name(&mut self, location: Location) {
        if self.named.len() < NAMED_MAX {
            self.named.insert(location);
        }
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

    pub(super) fn members_of_original(&self, at: &Location) -> Result<Vec<Location>, CallError> {
        let request = single_request("get_all", EMPTY.to_vec(), false);
        let result = self.environment.network.call(at, &request, BUSY)?;
        read_answer(&result, "get_all")
    }

    fn originals(&self) -> Vec<Location> {
        let view = self.view();
        let members = view.members().iter().filter(|member| !member.is_ours());
        members.map(|member| member.location.clone()).collect()
    }

    /// Asks a node that is said to be an original what it is. One of ours is then known as such.
    pub fn ask_kind(&self, location: &Location) {
        let asked = !self.lock().originals.named.contains(location);
        if asked || location == self.location() {
            self.lock().originals.named.remove(location);
            return;
        }
        match self.service_types_of(location) {
            Ok(types) => {
                self.lock().originals.named.remove(location);
                let ours = types.iter().any(|name| name == EXTENSION);
                self.with(|membership, _| {
                    if ours {
                        membership.remove_original(location);
                        membership.hear_of(location);
                    } else {
                        membership.add_original(location.clone());
                    }
                });
            }
            Err(CallError::Refused) => self.original_refuses(location),
            Err(_) => {}
        }
    }

    /// A fresh connection to an original was refused.
    pub(super) fn original_refuses(&self, location: &Location) {
        let now = self.now();
        let starting = {
            let mut inner = self.lock();
            let added = inner.originals.added.get(location);
            let starting = added.is_some_and(|added| now.saturating_sub(*added) < STARTING);
            if !starting {
                inner.originals.named.remove(location);
            }
            starting
        };
        if !starting {
            self.drop_original(location);
        }
    }

    fn drop_original(&self, location: &Location) {
        {
            let mut inner = self.lock();
            inner.originals.added.remove(location);
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
        match added.and_then(|_| self.members_of_original(original)) {
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
        let view = self.view();
        let mut inner = self.lock();
        for location in members {
            if view.get(&location).is_none() && location != self.location {
                inner.originals.name(location);
            }
        }
    }

    /// Looks after the originals: asks newcomers what they are, and now and then asks an original
    /// for its list. Can take long.
    pub fn look_after_originals(&self) {
        let named = self.lock().originals.named.clone();
        for location in named {
            self.ask_kind(&location);
        }
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
        if let Some(location) = originals.get(turn) {
            self.visit(location);
        }
    }

    fn visit(&self, location: &Location) {
        let asked = self.now();
        match self.members_of_original(location) {
            Ok(members) => {
                self.lock().originals.silent_since.remove(location);
                self.hear_of_all(members);
            }
            Err(CallError::Refused) => self.original_refuses(location),
            Err(_) => {
                let mut inner = self.lock();
                let silent = &mut inner.originals.silent_since;
                let since = *silent.entry(location.clone()).or_insert(asked);
                drop(inner);
                if self.now().saturating_sub(since) >= DEAF {
                    self.drop_original(location);
                }
            }
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
            let _ = self.environment.network.call_all(&pings, BUSY);
        }
    }

    /// `join`, `add` and `remove`: what originals, and scripts, say.
    pub(super) fn on_news(&self, call: &Call<'_>, result: &mut Vec<u8>) -> Result<(), Exception> {
        let news: News = read_arguments(call.arguments)?;
        match call.method {
            b"remove" => self.on_remove(&news.location, &news.authorities),
            _ => self.on_add(&news.location),
        }
        (call.done)();
        match call.method {
            // The newcomer may not listen yet.
            b"join" => {
                let mut notices = self.tell_originals("add", &news.location);
                let add = self.news("add", &news.location);
                let ours = self.view();
                let ours = ours.members().iter().filter(|member| {
                    member.is_ours()
                        && member.location != self.location
                        && member.location != news.location
                });
                notices.extend(ours.map(|member| (member.location.clone(), add.clone())));
                self.notify(&notices);
            }
            b"add" => self.pass_on("add", &news),
            _ => self.pass_on("remove", &news),
        }
        result.write_stop();
        Ok(())
    }

    /// Until it is asked, a node is taken for an original: the mover asks.
    fn on_add(&self, location: &Location) {
        if *location == self.location || self.view().get(location).is_some() {
            return;
        }
        let now = self.now();
        {
            let mut inner = self.lock();
            let originals = &mut inner.originals;
            originals.name(location.clone());
            if originals.added.len() < NAMED_MAX {
                originals.added.insert(location.clone(), now);
            }
        }
        self.with(|membership, _| membership.add_original(location.clone()));
    }

    /// Of one of ours that is not believed: it is asked.
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

    /// `add` or `remove`, with everybody as authority: one that gets it has nobody to pass it on to, so
    /// no stuck one can end the news.
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

    /// Sends what wants no answer but that it has arrived.
    fn notify(&self, notices: &[(Location, Request)]) {
        if !notices.is_empty() {
            let limit = self.ticks(ANSWER_TICKS);
            let _ = self.environment.network.call_all(notices, limit);
        }
    }

    /// Passes a piece of news on as originals expect: to the first member, in name order, that is
    /// no authority yet. Among ours everybody is, so this ends there.
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
    let request = single_request("service_types", EMPTY.to_vec(), false);
    match network.call(location, &request, limit) {
        Ok(result) => read_answer(&result, "service_types"),
        Err(CallError::Exception(exception)) if exception.kind == Exception::UNKNOWN_METHOD => {
            Ok(Vec::new())
        }
        Err(cause) => Err(cause),
    }
}
