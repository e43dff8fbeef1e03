//! Noticing what has changed without being told: a `tick` at an interval.
//!
//! Each tick asks the next member in name order how it is, and one other in random order; so every
//! node has one that watches it, and any two are compared now and then. Where lists differ, each
//! difference is settled by asking the node in question itself. This thread of a node must not be
//! held up: what can take long is done in [`Locator::fill`].

use std::time::Duration;

use crate::location::Location;
use crate::net::CallError;

use super::calls::{Hello, Known};
use super::member::{Member, State};
use super::{Locator, SILENCE_TICKS};

/// How many ticks lie between two attempts at a lost node.
const LOST_TICKS: usize = 8;

/// How many differences of two lists are settled at once; the next comparison takes up the rest.
const DIFFERENCES_AT_ONCE: usize = 64;

impl Locator {
    /// Looks after the others once. To be called at the interval of the options, by one thread.
    pub fn tick(&self) {
        let _ = self.look();
        self.compare_clocks();
        if !self.has_joined() {
            return;
        }
        let started = self.now();
        let mut asked: Vec<Location> = Vec::new();
        let mut answered = false;
        let mut lists = Vec::new();
        // One after the other, until one answers: the silent ones are asked together with the next
        // behind them, the refusing ones are dropped.
        loop {
            let mut targets = self.neighbours(&asked);
            if asked.is_empty() {
                targets.extend(self.some_other(&targets));
                targets.extend(self.a_lost_node());
                targets.extend(self.doubtful_ones(&targets));
            }
            if targets.is_empty() {
                break;
            }
            let view = self.view();
            let hellos = self.hello(&targets);
            let mut gone = Vec::new();
            for (location, hello) in targets.iter().zip(hellos) {
                match hello {
                    Ok(hello) if !self.is_stranger(location, &hello) => {
                        answered = true;
                        lists.extend(self.on_answer(location, hello));
                    }
                    Ok(_) | Err(CallError::Refused) => gone.push(location.clone()),
                    Err(CallError::Local(cause)) => self.say(&cause),
                    Err(_) => self.note_silence(location, started),
                }
            }
            self.drop_members(&gone, &view);
            asked.extend(targets);
            if gone.is_empty() {
                break;
            }
        }
        {
            let mut membership = self.membership();
            let alone = !membership.others().any(Member::is_ours);
            if answered || alone {
                // The moment of asking: an answer may have lain there while this node was stopped.
                membership.answered = membership.answered.max(started);
                membership.agreed = lists.is_empty();
            }
        }
        for (from, members) in lists {
            self.compare(&from, &members);
        }
        self.drop_the_silent();
    }

    /// This node was stopped, or cut off from all others: it is filling again.
    pub(super) fn lapse(&self) {
        let (now, wall) = (self.now(), self.wall());
        let view = {
            let mut membership = self.membership();
            membership.lapsed = true;
            membership.answered = now;
            membership.refill(wall);
            membership.view.clone()
        };
        for member in view.members() {
            self.environment().network.forget(&member.location);
        }
        self.changed();
    }

    /// The next of ours in name order, together with those before it that are silent already.
    fn neighbours(&self, asked: &[Location]) -> Vec<Location> {
        let membership = self.membership();
        let mut behind = Vec::new();
        let mut before = Vec::new();
        for member in membership.others().filter(|member| member.is_ours()) {
            if member.location > self.location {
                behind.push(&member.location);
            } else {
                before.push(&member.location);
            }
        }
        let mut targets = Vec::new();
        for location in behind.into_iter().chain(before) {
            if asked.contains(location) {
                // It has been asked in this tick: if it is still there, it isn't refusing.
                let silent = |track: &super::membership::Track| track.silent_since.is_some();
                if membership.tracks.get(location).is_some_and(silent) {
                    continue;
                }
                break;
            }
            targets.push(location.clone());
            let track = membership.tracks.get(location);
            if track.is_none_or(|track| track.silent_since.is_none()) {
                break;
            }
        }
        targets
    }

    /// A random member of ours that is not among those.
    fn some_other(&self, those: &[Location]) -> Option<Location> {
        let membership = self.membership();
        let others = membership.others().filter(|member| member.is_ours());
        let others: Vec<_> = others
            .filter(|member| !those.contains(&member.location))
            .collect();
        let chosen = others.get(self.environment.random.below(others.len().max(1)))?;
        Some(chosen.location.clone())
    }

    /// The members that didn't answer when they were asked last: silence counts only as long as it
    /// is asked into. If one has just fallen silent, all members: it may be the link that is cut,
    /// and asked one after the other they would be found silent one after the other.
    fn doubtful_ones(&self, those: &[Location]) -> Vec<Location> {
        let mut membership = self.membership();
        let alarmed = std::mem::take(&mut membership.alarmed);
        let tracks = &membership.tracks;
        let is_silent = |location: &Location| {
            let track = tracks.get(location);
            track.is_some_and(|track| track.silent_since.is_some())
        };
        let ours = membership.others().filter(|member| member.is_ours());
        let ours = ours.map(|member| &member.location);
        let doubtful =
            ours.filter(|location| (alarmed || is_silent(location)) && !those.contains(location));
        doubtful.cloned().collect()
    }

    /// From time to time, one of those that went without goodbye.
    fn a_lost_node(&self) -> Option<Location> {
        let membership = self.membership();
        let turn = self
            .environment
            .random
            .below(LOST_TICKS * membership.lost.len().max(1));
        membership.lost.keys().nth(turn).cloned()
    }

    pub(super) fn note_silence(&self, location: &Location, since: Duration) {
        let mut membership = self.membership();
        if let Some(track) = membership.tracks.get_mut(location)
            && track.silent_since.is_none()
        {
            track.silent_since = Some(since);
            membership.alarmed = true;
        }
    }

    fn drop_the_silent(&self) {
        let now = self.now();
        let limit = self.ticks(SILENCE_TICKS);
        let view = self.view();
        let silent: Vec<_> = {
            let membership = self.membership();
            let long = |since: Duration| now.saturating_sub(since) >= limit;
            let tracks = membership.tracks.iter();
            let ours = tracks
                .filter(|(location, _)| membership.view.get(location).is_some_and(Member::is_ours));
            let silent = ours.filter(|(_, track)| track.silent_since.is_some_and(long));
            silent.map(|(location, _)| location.clone()).collect()
        };
        self.drop_members(&silent, &view);
    }

    /// Whether a member's place has been taken by a node that calls itself by another name, or by one of
    /// another network, which knows nobody here: the member has gone. To pull from that one would make
    /// the two networks one.
    pub(super) fn is_stranger(&self, from: &Location, hello: &Hello) -> bool {
        let membership = self.membership();
        if hello.me.location != *from {
            return membership.is_member(from);
        }
        let Some(theirs) = hello.members.as_ref() else {
            return false;
        };
        let mut others = theirs.iter().filter(|member| member.location != *from);
        // One to which this node has said goodbye doesn't know it either.
        hello.known == Known::No
            && !is_starting(hello)
            && membership.me.state != State::Gone
            && membership.is_member(from)
            && theirs.len() > 1
            && !others.any(|member| membership.is_member(&member.location))
    }

    /// Takes in what a node said of itself. The answer is its list, if it differs from ours.
    pub(super) fn on_answer(
        &self,
        from: &Location,
        hello: Hello,
    ) -> Option<(Location, Vec<Member>)> {
        if hello.me.state == State::Gone {
            self.believe_goodbye(&hello.me);
            return None;
        }
        let mut woken = false;
        let starts = is_starting(&hello);
        let (change, is_member, differs) = {
            let now = self.now();
            let wall = self.wall();
            let mut membership = self.membership();
            if let Some(track) = membership.tracks.get_mut(from) {
                track.silent_since = None;
            }
            let is_member = membership.is_member(from);
            let mut change = super::membership::Change::None;
            if is_member {
                change = membership.admit(hello.me.clone(), now);
                if hello.known != Known::Member && !starts {
                    // It has dropped this node, or never knew it: pulling makes it take it in.
                    membership.pulled.remove(from);
                    membership.refill(wall);
                    woken = true;
                }
            } else if membership.lost.contains_key(from) && hello.known != Known::No {
                // Two halves of one network find each other again.
                membership.contacts.insert(from.clone());
                woken = true;
            }
            (change, is_member, membership.view.digest() != hello.digest)
        };
        self.note_admitted(from, change);
        if woken {
            self.changed();
        }
        let members = hello.members.filter(|_| is_member && differs && !starts)?;
        Some((from.clone(), members))
    }

    /// Whether every other node knows all that are here to stay, as far as they answer. A newcomer
    /// that has taken a leaver's keys may have been taken in by that one alone so far: nobody else
    /// would find them.
    pub fn all_are_known(&self) -> bool {
        let view = self.view();
        let stays = |member: &&Member| matches!(member.state, State::Filling | State::Full);
        let answers = self.hello(&self.others_of_ours());
        let lists = answers.into_iter().flatten();
        let mut lists = lists.filter_map(|hello| hello.members);
        lists.all(|theirs| {
            let knows = |member: &Member| theirs.iter().any(|o| o.location == member.location);
            view.members().iter().filter(stays).all(knows)
        })
    }

    /// Whether nobody is left who could take anything: all others of ours are leaving too, or have
    /// gone, and know of nobody who stays. A newcomer that only one of them knows so far gets known here.
    pub fn is_left_alone(&self) -> bool {
        let stays = |members: &[Member]| {
            let mut others = members
                .iter()
                .filter(|other| other.location != self.location);
            others.any(|other| !matches!(other.state, State::Leaving | State::Gone))
        };
        if stays(self.view().members()) {
            return false;
        }
        let others = self.others_of_ours();
        let mut alone = true;
        for (location, hello) in others.iter().zip(self.hello(&others)) {
            match hello {
                Ok(hello) => {
                    alone &= !stays(std::slice::from_ref(&hello.me));
                    alone &= !stays(hello.members.as_deref().unwrap_or_default());
                    if let Some((from, members)) = self.on_answer(location, hello) {
                        self.compare(&from, &members);
                    }
                }
                // It has ended.
                Err(CallError::Refused) => {}
                Err(_) => alone = false,
            }
        }
        alone
    }

    pub(super) fn believe_goodbye(&self, member: &Member) {
        let removed = {
            let now = self.now();
            let mut membership = self.membership();
            super::news::is_goodbye(&membership, member)
                && membership.remove(&member.location, Some(member.stamp), now)
        };
        if removed {
            self.note_removed(&member.location);
        }
    }

    /// Compares lists with those nodes now, instead of at the next tick.
    pub fn compare_with(&self, nodes: &[Location]) {
        for (location, hello) in nodes.iter().zip(self.hello(nodes)) {
            if let Ok(hello) = hello
                && let Some((from, members)) = self.on_answer(location, hello)
            {
                self.compare(&from, &members);
            }
        }
    }

    /// Settles what differs between this node's list and another's, by asking the nodes in
    /// question themselves.
    fn compare(&self, from: &Location, theirs: &[Member]) {
        let mut unknown = Vec::new();
        let mut ask: Vec<Location> = Vec::new();
        {
            let now = self.now();
            let mut membership = self.membership();
            for member in theirs {
                if membership.is_member(&member.location) {
                    // The stamps are the node's own: the later account stands.
                    membership.admit(member.clone(), now);
                } else if !member.is_ours() {
                    unknown.push(member.location.clone());
                } else {
                    let gone = membership.gone.get(&member.location);
                    if gone.is_none_or(|stamp| *stamp < member.stamp) {
                        ask.push(member.location.clone());
                    }
                }
            }
            let known = |member: &&Member| {
                member.is_ours()
                    && member.location != *from
                    && !theirs.iter().any(|other| other.location == member.location)
            };
            let missing = membership.others().filter(known);
            ask.extend(missing.map(|member| member.location.clone()));
        }
        for location in unknown {
            self.ask_newcomer(&location);
        }
        ask.truncate(DIFFERENCES_AT_ONCE);
        let view = self.view();
        let mut gone = Vec::new();
        for (location, hello) in ask.iter().zip(self.hello(&ask)) {
            match hello {
                Ok(hello) if hello.me.state == State::Gone => self.believe_goodbye(&hello.me),
                // It is part of another network: one that came to the place of a node of this one.
                Ok(hello) if !is_related(&hello, from) => {}
                Ok(hello) => {
                    let known = hello.known;
                    self.admit(hello.me);
                    if known != Known::Member {
                        let wall = self.wall();
                        self.membership().refill(wall);
                        self.changed();
                    }
                }
                // Whoever has it in its list finds out by itself in the same way.
                Err(CallError::Refused) => gone.push(location.clone()),
                Err(_) => {}
            }
        }
        self.drop_members(&gone, &view);
    }
}

/// Of one that starts it isn't known yet which network it comes to: it may know others that pull from
/// it, and not yet those that it pulls from. Who knows one that has everything knows its network.
fn is_starting(hello: &Hello) -> bool {
    let mut members = hello.members.iter().flatten();
    hello.known == Known::No
        && hello.me.state == State::Filling
        && !members.any(Member::is_complete)
}

/// Whether a node that was asked about, as it stands in the list of `from`, is in the same network: it
/// knows this node, or has the same list, or `from` is in its list.
fn is_related(hello: &Hello, from: &Location) -> bool {
    let lists = |members: &Vec<Member>| members.iter().any(|member| member.location == *from);
    hello.known != Known::No || hello.members.as_ref().is_none_or(lists)
}
