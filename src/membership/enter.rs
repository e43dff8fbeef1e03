//! Coming in: how a node outside finds its network, and how a network lets it in.
//!
//! The first full member of the view, in the order of the names, is the *gatekeeper*: others refer candidates
//! to it. It lets a candidate in when every member has reached the candidate at the name that it gave, and as
//! long as no more nodes are coming in than are full.

use std::collections::{BTreeMap, BTreeSet};

use crate::location::Location;

use super::clean::EXPIRED_MAX;
use super::{
    Action, LEASE_TICKS, LOST_MAX, Life, MEMBERS_MAX, Member, Membership, NAMED_MAX, Peer,
    SILENCE_TICKS, State, Takeover,
};

/// What a node outside knows of the nodes that it asks.
#[derive(Debug, Default)]
pub struct Search {
    /// It was full in an earlier life, and has what it had.
    pub(super) returning: bool,
    /// It was full in an earlier life: it looks for its network until it finds one.
    stays: bool,
    /// It was told to leave: it does when it has brought what it has.
    pub(super) leaves: bool,
    /// It is to drop what it had before it asks.
    drops: bool,
    /// The lives that were members before, and those that it waited for.
    with: BTreeSet<(Location, i64)>,
    /// Those of the contacts that it knew as members, or that such a one has named: the others can't make it drop anything.
    pub(super) trusted: BTreeSet<Location>,
    /// It starts a network if there is none. False: it does so only if all contacts are outside, too, and wait
    /// for each other.
    may_begin: bool,
    pub(super) contacts: BTreeMap<Location, Contact>,
    /// Members and lost nodes that it had: they are to be met again.
    pub(super) knew: BTreeSet<Location>,
    /// The one to ask at the next tick; otherwise all are.
    preferred: Option<Location>,
    /// The tick at which this node followed a referral: one a tick, as two views may refer to each other.
    referred: Option<u64>,
    /// Contacts whose answer has not come yet.
    asking: BTreeSet<Location>,
    began: u64,
    /// When it last heard that it only has to wait.
    hope: u64,
    /// Why it was not let in when it was asked last.
    reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Contact {
    /// Last heard of, or found, at that tick.
    Unheard(u64),
    /// When it answered last, it was outside as well.
    Outside,
    /// It refused the connection.
    Refused,
}

impl Search {
    /// What is known of a contact now. It may be a new one, that another one named: at the limit it takes the place of one
    /// that refused, or else of the one that has been unheard of for longest.
    fn note(&mut self, name: &Location, now: Contact) {
        let least = |contact: &Contact| match contact {
            Contact::Refused => 0,
            Contact::Unheard(since) => 1 + since,
            Contact::Outside => u64::MAX,
        };
        if self.contacts.len() >= NAMED_MAX && !self.contacts.contains_key(name) {
            let contacts = self.contacts.iter();
            let least = contacts.min_by_key(|(_, contact)| least(contact));
            let least = least.map(|(name, _)| name.clone());
            least.map(|name| self.contacts.remove(&name));
        }
        self.contacts.insert(name.clone(), now);
    }
}

/// A node that has not been let in, though there was room, ends after so many ticks; after half as many if every
/// contact refuses the connection.
const SEARCH_TICKS: u32 = 20;

/// The answer to a candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// It is a member.
    Admitted {
        /// The view, the candidate included.
        members: Vec<Member>,
        /// The lives that were lost.
        lost: Vec<(Location, i64)>,
        /// Lives that were lost together; see [`Membership::alarm`].
        missing: Vec<Member>,
        /// Lives that were lost, and that the network has stopped waiting for.
        expired: Vec<Member>,
        /// See [`Membership::floor`].
        floor: i64,
    },
    /// Ask this one.
    Refer(Location),
    /// Ask again in a tick; the reason is empty while there is just no room.
    Later(String),
    /// This life is over: ask in another one.
    Lost,
    /// The network has waited for this node, and does no more: come with nothing.
    Expired,
    /// The answerer is outside, too, and asks these nodes.
    Outside(Vec<Location>),
    /// Not in this network, and why.
    Refused(String),
}

impl Membership {
    /// Looks for a network at these nodes. `may_begin`: if none of them is in one, the first by name of those that look
    /// starts one.
    pub fn start(&mut self, contacts: &[Location], may_begin: bool) {
        let returning = false;
        self.life = Life::Outside(Box::new(Search {
            returning,
            may_begin,
            began: self.ticks,
            hope: self.ticks,
            ..Search::default()
        }));
        self.add_contacts(contacts);
        self.search();
    }

    /// A new life, outside.
    pub(super) fn begin_anew(&mut self, returning: bool, contacts: Vec<Location>) {
        self.draw_incarnation(returning);
        let (leaves, knew) = (self.is_to_leave(), self.names());
        let members = std::mem::take(&mut self.view);
        let members = members.members().iter();
        let members = members.map(|member| (member.location.clone(), member.incarnation));
        let lost = self.lost.iter().filter(|(_, lost)| !lost.expired);
        let lost = lost.map(|(location, lost)| (location.clone(), lost.incarnation));
        let with = lost.chain(members).chain(self.past.iter().cloned());
        let with = with.collect();
        self.changes += 1;
        self.ties.clear();
        self.peers.clear();
        self.named.clear();
        self.unmet.clear();
        self.takeover = Takeover::default();
        self.doubted.clear();
        self.lost.retain(|_, lost| lost.expired);
        self.alarm.clear();
        self.life = Life::Outside(Box::new(Search {
            returning,
            leaves,
            stays: returning,
            may_begin: returning,
            drops: !returning,
            with,
            knew,
            trusted: contacts.iter().cloned().collect(),
            began: self.ticks,
            hope: self.ticks,
            ..Search::default()
        }));
        self.add_contacts(&contacts);
        self.actions.push(Action::Changed);
    }

    /// A new life with nothing: what this node has may be older than what was forgotten where it comes in.
    fn begin_empty(&mut self) {
        let Life::Outside(search) = &self.life else {
            return;
        };
        if search.leaves {
            return self.change_life(Life::Left);
        }
        let contacts = search.contacts.keys();
        let trusted = contacts.filter(|contact| search.trusted.contains(*contact));
        let trusted = trusted.cloned().collect();
        self.begin_anew(false, trusted);
        if let Life::Outside(search) = &mut self.life {
            (search.stays, search.may_begin) = (true, true);
        }
    }

    /// Whether it is outside, with what it had when it was full.
    pub(super) fn is_outside_with_items(&self) -> bool {
        matches!(&self.life, Life::Outside(search) if search.returning)
    }

    /// Whether this node has to drop what it has, and has not said that it [did](Membership::dropped).
    pub fn has_to_drop(&self) -> bool {
        matches!(&self.life, Life::Outside(search) if search.drops)
    }

    /// All that this node had is gone.
    pub fn dropped(&mut self) {
        if let Life::Outside(search) = &mut self.life
            && search.drops
        {
            search.drops = false;
            self.past.clear();
        }
    }

    fn add_contacts(&mut self, contacts: &[Location]) {
        let tick = self.ticks;
        let Life::Outside(search) = &mut self.life else {
            return;
        };
        for contact in contacts.iter().filter(|one| **one != self.location) {
            let few = search.contacts.len() < NAMED_MAX;
            if few && !search.contacts.contains_key(contact) {
                let unheard = Contact::Unheard(tick);
                search.contacts.insert(contact.clone(), unheard);
            }
        }
    }

    /// A member of a network that knew this node before asks for it. That member becomes a contact, unless another
    /// contact may be in a network itself.
    pub(super) fn hear_outside(&mut self, caller: &Location) {
        if let Life::Outside(search) = &self.life
            && !search
                .contacts
                .values()
                .any(|one| matches!(one, Contact::Unheard(_)))
        {
            self.add_contacts(std::slice::from_ref(caller));
        }
    }

    /// Asks the contacts, or begins.
    pub(super) fn search(&mut self) {
        if self.begin_if_first() {
            return;
        }
        self.give_up();
        let Life::Outside(search) = &mut self.life else {
            return;
        };
        if search.drops {
            return;
        }
        let mut all: Vec<_> = match search.preferred.take() {
            Some(preferred) => vec![preferred],
            None => search.contacts.keys().cloned().collect(),
        };
        all.retain(|contact| search.asking.insert(contact.clone()));
        let enter = all.into_iter().map(Action::Enter);
        self.actions.extend(enter);
    }

    /// Begins a network if all contacts are outside, too, or gone, and this node is the first of them. Two nodes never
    /// both do. A node that asks another one makes itself known there. So of two nodes the one that asks later knows
    /// the other one, asks it, and hears that it has begun.
    fn begin_if_first(&mut self) -> bool {
        let tick = self.ticks;
        let Life::Outside(search) = &self.life else {
            return false;
        };
        let waits = |contact: &Contact| match contact {
            // One more call to a node that has been silent for so long may still be answered.
            Contact::Unheard(since) => tick - since < u64::from(SILENCE_TICKS + LEASE_TICKS),
            Contact::Outside | Contact::Refused => false,
        };
        let outside = || {
            let contacts = search.contacts.iter();
            contacts.filter(|(_, contact)| **contact == Contact::Outside)
        };
        let mut all = search.contacts.values();
        // Not at once: a network that knew this node before asks for it, and is a contact then.
        let circle = tick - search.began >= u64::from(SILENCE_TICKS)
            && !search.contacts.is_empty()
            && all.all(|one| *one == Contact::Outside);
        // One that is to leave would be alone in its network, and drop what it has.
        let waits_for_this = search.leaves && outside().next().is_some();
        let may = (search.may_begin || circle) && !search.drops && !waits_for_this;
        let first = outside().all(|(location, _)| self.location < *location);
        let begins = may && first && !search.contacts.values().any(waits);
        if begins {
            let to_meet = self.to_meet();
            // Another life: it may have been let in under this one, and not have heard of it.
            let returning = search.returning;
            self.draw_incarnation(returning);
            if returning {
                // What it has is all that there is.
                self.miss_all();
                self.raise_alarm(self.missing.clone());
            }
            // Those that are silent now are to be met again.
            self.remember_to_meet(to_meet);
            let leaves = self.is_to_leave();
            self.change_life(if leaves { Life::Leaving } else { Life::Full });
            self.stay_quiet(2);
            self.actions.push(Action::Began);
        }
        begins
    }

    /// This node as the member that it is to become.
    pub fn candidate(&self) -> Member {
        let returning = matches!(&self.life, Life::Outside(search) if search.returning);
        Member {
            state: if returning {
                State::Returning
            } else {
                State::Joining
            },
            ..self.me()
        }
    }

    /// A candidate asks to be let in. `Ok`: its answer. `Err`: these members are to reach it first, this
    /// node among them; then [`Membership::admit`] has the answer.
    pub fn enter(&mut self, candidate: &Member) -> Result<Entry, Vec<Location>> {
        let location = &candidate.location;
        if let Life::Outside(search) = &self.life {
            if search.contacts.is_empty() && !search.may_begin {
                return Ok(Entry::Later(String::new())); // It has not begun to look.
            }
            let names = search.contacts.keys().cloned().collect();
            self.add_contacts(std::slice::from_ref(location));
            return Ok(Entry::Outside(names));
        }
        if self.state() == State::Left {
            return Ok(Entry::Later(String::new()));
        }
        if self.is_member(location, candidate.incarnation) {
            return Ok(self.admitted());
        }
        if self.is_lost(location, candidate.incarnation) {
            return Ok(Entry::Lost);
        }
        let expired = self.lost.get(location).is_some_and(|lost| lost.expired);
        if expired && candidate.state == State::Returning {
            return Ok(Entry::Expired);
        }
        let mut full = self.view.members().iter();
        match full.find(|member| member.state == State::Full) {
            None => return Ok(Entry::Later(String::new())),
            Some(first) if first.location != self.location => {
                return Ok(Entry::Refer(first.location.clone()));
            }
            Some(_) => {}
        }
        if !self.may_let_in() {
            return Ok(Entry::Later(String::new()));
        }
        let others = self.others().filter(|member| member.location != *location);
        Err(others.map(|member| member.location.clone()).collect())
    }

    /// All members have reached the candidate: it is in, if all is still as it was.
    pub fn admit(&mut self, candidate: &Member) -> Entry {
        match self.enter(candidate) {
            Ok(entry) => entry,
            Err(_) if !self.has_reached(candidate) => Entry::Later(String::new()),
            Err(_) => {
                self.lose(&candidate.location, false);
                if candidate.state.is_coming() {
                    self.take_in(candidate.clone());
                }
                self.admitted()
            }
        }
    }

    fn admitted(&self) -> Entry {
        let lost = self.lost.iter();
        let lost = lost.map(|(location, lost)| (location.clone(), lost.incarnation));
        Entry::Admitted {
            members: self.view.members().to_vec(),
            lost: lost.collect(),
            missing: self.lost_together(),
            expired: self.expired.iter().cloned().collect(),
            floor: self.floor(),
        }
    }

    fn may_let_in(&self) -> bool {
        let members = self.view.members();
        let count = |is: fn(State) -> bool| members.iter().filter(|m| is(m.state)).count();
        count(State::is_coming) < count(|state| state == State::Full)
    }

    /// The answer of a contact has come, to a question of that life.
    pub fn entered(&mut self, from: &Location, incarnation: i64, entry: Entry) {
        let tick = self.ticks;
        let current = self.incarnation == incarnation;
        let Life::Outside(search) = &mut self.life else {
            return;
        };
        search.asking.remove(from);
        if !current || search.drops {
            return;
        }
        let trusted = search.trusted.contains(from);
        search.note(from, Contact::Unheard(tick));
        match entry {
            Entry::Later(reason) => {
                search.preferred = Some(from.clone());
                if reason.is_empty() {
                    search.hope = tick;
                } else {
                    search.reason = reason;
                }
            }
            // It still knows an earlier life of this node.
            Entry::Refer(to) if to == self.location => {}
            Entry::Refer(to) => {
                if trusted && search.trusted.len() < MEMBERS_MAX {
                    search.trusted.insert(to.clone());
                }
                search.note(&to, Contact::Unheard(tick));
                if search.referred == Some(tick) {
                    search.preferred = Some(to);
                } else {
                    search.referred = Some(tick);
                    if search.asking.insert(to.clone()) {
                        self.actions.push(Action::Enter(to));
                    }
                }
            }
            Entry::Lost => {
                let returning = search.returning;
                self.draw_incarnation(returning);
            }
            Entry::Outside(others) => {
                search.note(from, Contact::Outside);
                self.add_contacts(&others);
                self.begin_if_first();
            }
            Entry::Expired if search.returning && trusted => self.begin_empty(),
            Entry::Expired => {}
            Entry::Refused(_) if search.stays => {}
            Entry::Refused(reason) => self.end(reason),
            Entry::Admitted {
                members,
                lost,
                missing,
                expired,
                floor,
            } => {
                let lives = expired.iter();
                let mut lives = lives.map(|life| (life.location.clone(), life.incarnation));
                let given_up = lives.any(|life| search.with.contains(&life));
                let returning = search.returning;
                // If keys are missing there, this node may have them.
                let gone_on = missing.is_empty() && self.has_expired(&members);
                if returning && (given_up || gone_on) {
                    if trusted {
                        self.begin_empty();
                    }
                    return;
                }
                self.raise_floor(floor);
                self.come_in(&members, lost, &missing);
                for life in expired.into_iter().take(EXPIRED_MAX) {
                    self.note_expired(life);
                }
            }
        }
    }

    /// A contact has refused the connection.
    pub fn entry_refused(&mut self, from: &Location) {
        if let Life::Outside(search) = &mut self.life {
            search.asking.remove(from);
            search.note(from, Contact::Refused);
            self.begin_if_first();
        }
    }

    /// Ends, if it has not been let in for long, and not just for want of room.
    fn give_up(&mut self) {
        let Life::Outside(search) = &self.life else {
            return;
        };
        let mut contacts = search.contacts.values();
        let (limit, cause) = match contacts.all(|contact| *contact == Contact::Refused) {
            true => (SEARCH_TICKS / 2, "connection refused"),
            false => (SEARCH_TICKS, "no answer"),
        };
        if search.stays || self.ticks - search.hope < u64::from(limit) {
            return;
        }
        let names: Vec<_> = search.contacts.keys().map(ToString::to_string).collect();
        let reason = match search.reason.is_empty() {
            true => format!("peer {}: {cause}", names.join(", ")),
            false => search.reason.clone(),
        };
        self.end(reason);
    }

    pub(super) fn end(&mut self, reason: String) {
        self.actions.push(Action::End(reason));
        self.change_life(Life::Left);
    }

    /// A contact has not answered in time.
    pub fn entry_unanswered(&mut self, from: &Location) {
        if let Life::Outside(search) = &mut self.life {
            search.asking.remove(from);
        }
    }

    /// Begins a network with originals: this node is full when they have given it what is its own now.
    pub fn begin_among(&mut self, originals: &[Location]) {
        self.change_life(Life::Joining);
        self.actions.push(Action::CameIn);
        for original in originals {
            self.unmet.insert(original.clone());
            self.add_original(original.clone());
        }
    }

    fn come_in(&mut self, members: &[Member], lost: Vec<(Location, i64)>, missing: &[Member]) {
        let Life::Outside(search) = &self.life else {
            return;
        };
        let me = self.me();
        let counts = |m: &Member| m.location == me.location && m.incarnation == me.incarnation;
        // So many it could neither have nor take in in time.
        if members.len() > MEMBERS_MAX || !members.iter().any(counts) {
            return;
        }
        let mut to_meet = self.to_meet();
        self.life = if search.returning {
            Life::Returning {
                leaves: search.leaves,
            }
        } else {
            Life::Joining
        };
        let me = self.me();
        let others = members.iter().filter(|m| m.location != me.location);
        let mut others: Vec<_> = others.cloned().collect();
        // In the order of the ring's names each is put behind those before it.
        others.sort_unstable_by(|one, other| one.location.cmp(&other.location));
        // No name stands for two, whatever was said: one of them would be a peer and no member.
        others.dedup_by(|one, other| one.location == other.location);
        for member in others.iter().filter(|member| member.is_ours()) {
            self.peers.insert(member.location.clone(), Peer::default());
        }
        self.note_entry(members, &lost, missing);
        // Those that it knew and that are not in this network are to be met again.
        let is_lost = |name: &Location| {
            let other = others.binary_search_by(|other| other.location.cmp(name));
            other.is_err() && *name != me.location
        };
        to_meet.retain(is_lost);
        self.remember_to_meet(to_meet);
        let lost = lost.into_iter().filter(|(name, _)| is_lost(name));
        for (name, incarnation) in lost.take(LOST_MAX) {
            self.remember_lost(name, incarnation);
        }
        self.lost.retain(|name, _| is_lost(name));
        let originals = others.iter().filter(|member| !member.is_ours());
        self.unmet = originals.map(|member| member.location.clone()).collect();
        self.change_view(|view| {
            for member in others {
                view.insert(member);
            }
            view.insert(me);
        });
        if self.missing.is_empty() {
            // Those that are full have everything between them.
            self.safe = self.view.clone();
            self.since = self.view.clone();
        }
        let view = self.view.clone();
        view.members().iter().for_each(|m| self.note_replaced(m));
        self.hear_missing(missing);
        self.actions.extend([Action::Announce, Action::CameIn]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn must_keep_the_contacts_that_may_answer_when_others_name_many() {
        let name = |number| Location::new("127.0.0.1", number).unwrap();
        let mut search = Search::default();
        search.note(&name(1), Contact::Outside);
        search.note(&name(2), Contact::Refused);
        for number in 3..1000 {
            search.note(&name(number), Contact::Unheard(u64::from(number)));
            assert!(search.contacts.len() <= NAMED_MAX);
            assert!(search.contacts.contains_key(&name(number)));
        }
        assert!(search.contacts.contains_key(&name(1)));
        assert!(!search.contacts.contains_key(&name(2)));
        assert!(!search.contacts.contains_key(&name(3)));
    }
}
