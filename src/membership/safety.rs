//! What is lost: how members go, with and without goodbye, and whether keys may be missing with them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::location::Location;

use super::clean::{Lost, PAST_MAX};
use super::{
    ALARM_MAX, Action, LEFT_MAX, LOST_MAX, Life, MEMBERS_MAX, Member, Membership, NEWS_MAX, Peer,
    SILENCE_TICKS, State, TOLD, View,
};

/// How many names a node keeps of those that it knew, beside the lost nodes of the network that it comes in.
const KNOWN_MAX: usize = LOST_MAX / 2;

impl Membership {
    /// A member is no longer a member, but not for silence. Its life never comes back here. This node itself stays, whatever
    /// is found at its name.
    pub(super) fn lose(&mut self, location: &Location, goodbye: bool) {
        if *location != self.location && self.view.get(location).is_some() {
            self.note_gone(location);
            self.remove(location, goodbye);
        }
    }

    fn remove(&mut self, location: &Location, goodbye: bool) {
        let Some(member) = self.view.get(location).cloned() else {
            return;
        };
        self.peers.remove(location);
        self.tokens.remove(location);
        self.unmet.remove(location);
        self.change_view(|view| drop(view.remove(location)));
        self.actions
            .push(Action::Removed(location.clone(), goodbye));
        if member.is_ours() {
            if self.past.len() == PAST_MAX {
                self.past.pop_front();
            }
            self.past.push_back((location.clone(), member.incarnation));
        }
        if goodbye {
            // It has handed over what it came back with: the life in which it got that has left as well.
            for incarnation in self.lives_back(&member) {
                let location = location.clone();
                self.note_left(&Member {
                    location,
                    incarnation,
                    ..member
                });
            }
            self.note_left(&member);
        } else {
            let left = self.left.iter().any(|left| left.is_life_of(&member));
            if member.state.holds_all() && !left {
                self.note_missing(&member);
            }
            self.judge_losses();
            self.remember_lost(location.clone(), member.incarnation);
            if self.news.len() < NEWS_MAX {
                self.news.push(location.clone());
            }
            // The others hear of it.
            for other in self.some_others(TOLD) {
                if self.asking.contains(&other) {
                    self.untold.insert(other);
                } else {
                    self.ask(other);
                }
            }
            if !self.others().any(|member| member.state == State::Full) {
                self.stay_quiet(2);
            }
        }
        self.progress();
    }

    /// While there is an alarm, what its first life had is what may be missing, if that was not given up.
    fn note_missing(&mut self, member: &Member) {
        let name = &member.location;
        let is_new = match self.missing.get(name) {
            Some(first) => self.given_up.get(name) == Some(first) || self.alarm.is_empty(),
            None => self.missing.len() < MEMBERS_MAX,
        };
        if is_new {
            self.missing.insert(name.clone(), member.incarnation);
        }
    }

    pub(super) fn remember_lost(&mut self, location: Location, incarnation: i64) {
        if self.lost.len() >= LOST_MAX && !self.lost.contains_key(&location) {
            let expired = self.lost.iter().find(|(_, lost)| lost.expired);
            let mut goes = expired.map(|(name, _)| name.clone());
            if goes.is_none() {
                self.crowded_until = self.ticks + self.waited();
                let some = self.random.below(self.lost.len());
                goes = self.lost.keys().nth(some).cloned();
            }
            goes.map(|name| self.lost.remove(&name));
        }
        let lost = Lost {
            incarnation,
            since: self.ticks,
            expired: false,
        };
        self.lost.insert(location, lost);
    }

    /// The members and the lost nodes that this node has, or had when it was last a member.
    pub(super) fn names(&self) -> BTreeSet<Location> {
        let members = self.others().map(|member| &member.location);
        let lost = self.lost.iter().filter(|(_, lost)| !lost.expired);
        let names = members.chain(lost.map(|(name, _)| name));
        match &self.life {
            Life::Outside(search) => names.chain(&search.knew).cloned().collect(),
            _ => names.cloned().collect(),
        }
    }

    /// The nodes to be met again by one that is outside: those that it knew, from its own name on, and its contacts. If they
    /// are too many, each node remembers others.
    pub(super) fn to_meet(&self) -> Vec<Location> {
        let Life::Outside(search) = &self.life else {
            return Vec::new();
        };
        let behind = search.knew.range(self.location.clone()..);
        let known = behind.chain(search.knew.range(..self.location.clone()));
        let others = search.contacts.keys();
        let others = others.filter(|name| !search.knew.contains(*name));
        let all = known.chain(others).filter(|name| **name != self.location);
        all.cloned().collect()
    }

    /// Counts these as lost, whatever life they live.
    pub(super) fn remember_to_meet(&mut self, names: Vec<Location>) {
        for name in names.into_iter().take(KNOWN_MAX) {
            if !self.lost.contains_key(&name) {
                self.remember_lost(name, 0);
            }
        }
    }

    pub(super) fn drop_the_silent(&mut self, now: Duration) {
        let limit = self.ticks(SILENCE_TICKS);
        let silent = |peer: &Peer| {
            let waited = peer.waiting.map_or(0, |(_, tick)| self.ticks - tick);
            let free = peer
                .granted
                .is_none_or(|at| now.saturating_sub(at) >= limit);
            waited >= u64::from(SILENCE_TICKS) && free
        };
        let peers = self.peers.iter();
        let silent: Vec<_> = peers
            .filter(|(_, peer)| silent(peer))
            .map(|(location, _)| location.clone())
            .collect();
        for location in silent {
            self.note_silent(&location);
            self.remove(&location, false);
        }
    }

    /// Raises the alarm if keys may be missing. At each loss: what becomes full later is on other lists.
    fn judge_losses(&mut self) {
        if self.state().holds_all() && self.has_lost_a_range() {
            self.raise_alarm(self.missing.clone());
        }
    }

    /// Remembers the view, if all that this node should hold is where it should be.
    pub(super) fn note_safety(&mut self) {
        self.judge_losses();
        let mut peers = self.peers.keys();
        let synced = peers.all(|location| self.has_the_same(location));
        if self.state() == State::Full && synced && self.alarm.is_empty() {
            self.missing.clear();
            self.safe = self.view.clone();
            self.since = self.view.clone();
        }
    }

    /// A joining node compares with all members that are there when it begins: it can't be witness of what went with others
    /// before. Members that were full then note it until they are equal. Without originals it ends if none of them stays.
    pub(super) fn forget_earlier_losses(&mut self) {
        let mut peers = self.peers.values();
        let begins = peers.all(|peer| peer.done != Some(true)) && !self.view.has_originals();
        let me = self.safe.get(&self.location);
        let since_it_came = me.is_some_and(|me| me.incarnation == self.incarnation);
        if self.state() == State::Joining && begins && since_it_came && self.alarm.is_empty() {
            self.missing.clear();
            self.safe = self.view.clone();
            self.since = self.view.clone();
        }
    }

    /// Members that have become full since all was safe may be the only ones that have some items: what this node and
    /// others have handed to them.
    pub(super) fn note_full(&mut self) {
        // One that is leaving has been full, if that was not heard of.
        let is_new = |member: &&Member| {
            let known = self.since.get(&member.location);
            let known = known.filter(|known| known.is_life_of(member));
            let is_new = match known {
                Some(known) => member.state == State::Full && known.state != State::Full,
                None => member.state.holds_all(),
            };
            is_new && !self.left.iter().any(|left| left.is_life_of(member))
        };
        let full = |member: &Member| Member {
            state: State::Full,
            ..member.clone()
        };
        let new = self.view.members().iter().filter(is_new);
        let new: Vec<_> = new.map(full).collect();
        if !new.is_empty() {
            let since = Arc::make_mut(&mut self.since);
            for member in new {
                if since.members().len() < MEMBERS_MAX || since.get(&member.location).is_some() {
                    since.insert(member);
                }
            }
        }
    }

    /// Whether all full replicas of some range are missing, and not all of these are given up.
    fn has_lost_a_range(&self) -> bool {
        let copies = self.rules.copies;
        let has_lost = |view: &View| {
            let members = view.members();
            // Lives of one node follow each other: it is there in the one in which it is a member, if any.
            let is_there = |member: &Member| {
                let now = self.view.get(&member.location);
                now.is_some_and(|now| now.is_life_of(member))
            };
            let is_missing = |place: &usize| {
                let member = &members[*place];
                self.missing.contains_key(&member.location) && !is_there(member)
            };
            let is_news = |place: &usize| {
                let member = &members[*place];
                let given_up = self.given_up.get(&member.location);
                given_up != Some(&member.incarnation)
                    && given_up != self.missing.get(&member.location)
            };
            view.lists(copies).any(|list| {
                let full = |place: &&usize| members[**place].state == State::Full;
                let mut full = list.iter().filter(full);
                full.clone().any(is_news) && full.all(is_missing)
            })
        };
        let same = Arc::ptr_eq(&self.safe, &self.since);
        self.missing.len() >= copies && (has_lost(&self.since) || !same && has_lost(&self.safe))
    }

    /// Members that were lost together, as far as this node or another member has found: all full replicas of some
    /// range, so that keys may be missing; until one of them returns with what it had.
    pub fn alarm(&self) -> Vec<Location> {
        let mut all: BTreeSet<_> = self.alarm.keys().cloned().collect();
        if self.has_lost_a_range() {
            all.extend(self.missing.keys().cloned());
        }
        all.into_iter().collect()
    }

    /// What others are told of them. In the place of one that is joining another life has begun, which had nothing.
    pub(super) fn lost_together(&self) -> Vec<Member> {
        let lives = self.alarm.iter().map(|(location, incarnation)| Member {
            location: location.clone(),
            state: match self.is_replaced(location, *incarnation) {
                true => State::Joining,
                false => State::Left,
            },
            incarnation: *incarnation,
        });
        lives.collect()
    }

    /// A member says that these lives were lost together. Nothing is missing with them if one of them is there, with what it
    /// had.
    pub(super) fn hear_missing(&mut self, missing: &[Member]) {
        let me = self.me();
        let is_there = |lost: &Member| match self.view.get(&lost.location) {
            _ if self.left.iter().any(|left| left.is_life_of(lost)) => true,
            _ if lost.state == State::Joining => false,
            _ if lost.location == me.location => me.has_returned(),
            Some(member) if member.state.holds_all() => {
                member.incarnation == lost.incarnation || member.has_returned()
            }
            _ => false,
        };
        if missing.iter().any(is_there) {
            return;
        }
        let others = missing.iter().filter(|lost| lost.location != me.location);
        self.raise_alarm(
            others
                .map(|lost| (lost.location.clone(), lost.incarnation))
                .collect(),
        );
        let replaced = missing.iter().filter(|lost| lost.state == State::Joining);
        self.add_replaced(replaced.map(|lost| (lost.location.clone(), lost.incarnation)));
    }

    pub(super) fn raise_alarm(&mut self, lives: BTreeMap<Location, i64>) {
        let is_first = self.alarm.is_empty();
        let is_news = |(name, life): &(Location, i64)| self.given_up.get(name) != Some(life);
        let (news, accepted): (Vec<_>, Vec<_>) = lives.into_iter().partition(is_news);
        if news.is_empty() {
            return;
        }
        for (location, incarnation) in news.into_iter().chain(accepted) {
            if self.alarm.len() < ALARM_MAX {
                self.wait_again(&location, incarnation);
                self.alarm.entry(location).or_insert(incarnation);
            }
        }
        let there = self.alarm.keys().filter_map(|name| self.view.get(name));
        let there: Vec<_> = there.cloned().collect();
        there.iter().for_each(|member| self.note_replaced(member));
        if is_first && !self.alarm.is_empty() {
            self.actions.push(Action::Missing);
        }
    }

    /// Gives up the members that are missing: this ends the alarm. Others that have not heard of it yet can't
    /// bring it back.
    pub fn accept_loss(&mut self) {
        // Still missing: what is lost next may have had the only copies since.
        let mut given_up = self.missing.clone();
        given_up.append(&mut self.alarm);
        let before = std::mem::take(&mut self.given_up);
        self.given_up = given_up.into_iter().take(LOST_MAX).collect();
        for (location, incarnation) in before {
            if self.given_up.len() < LOST_MAX {
                self.given_up.entry(location).or_insert(incarnation);
            }
        }
        let given_up = &self.given_up;
        self.missing
            .retain(|name, life| given_up.get(name) == Some(life));
        self.note_safety();
    }

    /// This node is let in by a network with these members. What this node missed is there, or the network has gone
    /// on without it and knows what went with it. This doesn't hold if they say that these lives were lost together: then
    /// every member that this node knew counts as missing, unless it is there with what it had.
    pub(super) fn note_entry(
        &mut self,
        members: &[Member],
        lost: &[(Location, i64)],
        missing: &[Member],
    ) {
        if missing.is_empty() {
            self.missing.retain(|name, _| {
                let mut there = members.iter().filter(|member| member.state.holds_all());
                there.all(|member| member.location != *name)
                    && lost.iter().all(|(other, _)| other != name)
            });
            return;
        }
        self.miss_all();
        let mut lives = std::mem::take(&mut self.missing);
        lives.retain(|name, life| {
            let mut replaced = missing.iter().filter(|lost| lost.state == State::Joining);
            let is_replaced = self.is_replaced(name, *life)
                || replaced.any(|lost| lost.location == *name && lost.incarnation == *life);
            let mut there = members.iter().filter(|member| member.state.holds_all());
            let is_there = there.any(|there| {
                let returned = there.has_returned() && !is_replaced;
                there.location == *name && (there.incarnation == *life || returned)
            });
            !is_there
        });
        self.missing = lives;
    }

    /// Takes all others that had items when this node was in its network for missing.
    pub(super) fn miss_all(&mut self) {
        let known = self.since.members().iter();
        let known = known.filter(|m| m.state.holds_all() && m.location != self.location);
        let is_first = |name: &Location| {
            let first = self.missing.get(name);
            first.is_none_or(|life| self.given_up.get(name) == Some(life))
        };
        let known = known.filter(|member| is_first(&member.location));
        for member in known.cloned().collect::<Vec<_>>() {
            self.note_missing(&member);
        }
    }

    /// A member that was missing is full again, with what it had.
    pub(super) fn note_return(&mut self, member: &Member) {
        self.note_replaced(member);
        if !member.state.holds_all() {
            return;
        }
        let name = &member.location;
        let back = self.lives_back(member);
        let is_back = |life: &i64| back.contains(life);
        if self.missing.get(name).is_some_and(is_back) {
            self.missing.remove(name);
        }
        if self.alarm.get(name).is_some_and(is_back) {
            self.end_alarm();
        }
    }

    /// Those of the lives that are missing, or in the alarm, that this member has begun its own life with the items of.
    fn lives_back(&self, member: &Member) -> Vec<i64> {
        let name = &member.location;
        let lives = [&self.missing, &self.alarm].into_iter();
        let lives = lives.filter_map(|lives| lives.get(name).copied());
        let is_back = |life: &i64| member.has_returned() && !self.is_replaced(name, *life);
        lives.filter(is_back).collect()
    }

    /// A member may have begun anew in the place of one that was lost with others.
    pub(super) fn note_replaced(&mut self, member: &Member) {
        let lives = [&self.alarm, &self.missing].into_iter();
        let lives = lives.filter_map(|lives| lives.get(&member.location).copied());
        let earlier = |life: &i64| *life != member.incarnation && !member.has_returned();
        let earlier = lives.filter(earlier).collect::<Vec<_>>();
        self.add_replaced(earlier.iter().map(|life| (member.location.clone(), *life)));
    }

    /// Adds those of these lives that an alarm waits for, or may wait for, and forgets the others.
    fn add_replaced(&mut self, lives: impl Iterator<Item = (Location, i64)>) {
        self.replaced.extend(lives);
        self.replaced.retain(|(name, life)| {
            let mut waited = [&self.alarm, &self.missing].into_iter();
            waited.any(|lives| lives.get(name) == Some(life))
        });
    }

    fn is_replaced(&self, name: &Location, life: i64) -> bool {
        self.replaced.contains(&(name.clone(), life))
    }

    /// What was lost together with one of the alarm is there. If others know of more, they say so.
    fn end_alarm(&mut self) {
        self.alarm.clear();
        self.note_safety();
    }

    /// That life has ended in good order: nothing went with it.
    pub(super) fn note_left(&mut self, member: &Member) {
        // What it had is at those that are next.
        let is_this = |known: &Member| known.is_life_of(member);
        if self.since.get(&member.location).is_some_and(is_this) {
            Arc::make_mut(&mut self.since).remove(&member.location);
        }
        if !self.left.iter().any(|left| left.is_life_of(member)) {
            if let Some(lost) = self.lost.get_mut(&member.location)
                && lost.incarnation == member.incarnation
            {
                lost.expired = true; // It brings nothing back.
            }
            if self.missing.get(&member.location) == Some(&member.incarnation) {
                self.missing.remove(&member.location);
            }
            if self.alarm.get(&member.location) == Some(&member.incarnation) {
                self.end_alarm();
            }
            if self.left.len() == LEFT_MAX {
                self.left.pop_front();
            }
            self.left.push_back(Member {
                state: State::Left,
                ..member.clone()
            });
        }
    }

    /// The last lives that ended in good order.
    pub fn left(&mut self) -> &[Member] {
        self.left.make_contiguous()
    }

    /// A member has said which lives ended in good order.
    pub fn hear_left(&mut self, left: &[Member]) {
        let left = left.iter().filter(|member| member.state == State::Left);
        left.for_each(|member| self.note_left(member));
    }

    /// The members of the view, and the last ones that left it.
    pub fn known(&self) -> Vec<Member> {
        self.view
            .members()
            .iter()
            .chain(&self.left)
            .cloned()
            .collect()
    }
}
