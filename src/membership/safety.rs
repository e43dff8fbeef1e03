//! What has been lost: members that went without goodbye, and whether keys may be missing with them.

use crate::location::Location;

use super::{LEFT_MAX, Member, Membership, State};

impl Membership {
    /// Remembers the view, if all that this node should hold is where it should be.
    pub(super) fn note_safety(&mut self) {
        let mut peers = self.peers.keys();
        let synced = peers.all(|location| self.has_the_same(location));
        if self.state() == State::Full && synced && !self.is_alarmed() {
            self.missing.clear();
            self.safe = self.view.clone();
        }
    }

    /// Members that were lost together: all full replicas of some range, so that keys may be missing; until
    /// one of them returns with what it had.
    pub fn alarm(&self) -> Vec<Location> {
        let copies = self.rules.copies;
        if self.missing.len() < copies {
            return Vec::new();
        }
        let members = self.safe.members();
        let is_missing = |place: &usize| self.missing.contains_key(&members[*place].location);
        let gone = self.safe.lists(copies).any(|list| {
            let mut full = list
                .iter()
                .filter(|place| members[**place].state == State::Full);
            full.clone().next().is_some() && full.all(is_missing)
        });
        let missing = self.missing.keys().filter(|_| gone);
        missing.cloned().collect()
    }

    /// Whether there are any.
    pub fn is_alarmed(&self) -> bool {
        !self.alarm().is_empty()
    }

    /// What is missing is given up.
    pub fn accept_loss(&mut self) {
        self.missing.clear();
        self.note_safety();
    }

    /// This node is let in by a network with these members. What this node missed is there, or the network has gone
    /// on without it and knows what went with it; but not if its own members were lost together: then all count as
    /// missing that this node knew and that are not there with what they had.
    pub(super) fn note_entry(
        &mut self,
        members: &[Member],
        lost: &[(Location, i64)],
        alarmed: bool,
    ) {
        if !alarmed {
            self.missing.retain(|name, _| {
                let mut there = members.iter().filter(|member| member.state.holds_all());
                there.all(|member| member.location != *name)
                    && lost.iter().all(|(other, _)| other != name)
            });
            return;
        }
        let is_there = |known: &Member| {
            members.iter().any(|member| {
                member.state.holds_all()
                    && member.location == known.location
                    && (member.incarnation == known.incarnation || member.has_returned())
            })
        };
        let known = self.safe.members().iter();
        let known =
            known.filter(|known| known.state.holds_all() && known.location != self.location);
        let lives = |known: &Member| (known.location.clone(), known.incarnation);
        self.missing = known.filter(|known| !is_there(known)).map(lives).collect();
    }

    /// A member that was missing is full again, with what it had.
    pub(super) fn note_return(&mut self, member: &Member) {
        if member.has_returned() && member.state == State::Full {
            self.missing.remove(&member.location);
        }
    }

    /// That life has ended in good order: nothing went with it.
    pub(super) fn note_left(&mut self, member: &Member) {
        if !self.left.iter().any(|left| left.is_life_of(member)) {
            if self.missing.get(&member.location) == Some(&member.incarnation) {
                self.missing.remove(&member.location);
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
