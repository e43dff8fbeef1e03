//! Nodes of the 2009 original as members: each node finds out for itself which there are.

use crate::location::Location;

use super::{Action, MEMBERS_MAX, Member, Membership};

impl Membership {
    /// An original says that one of ours, which this node doesn't know, is in its network: the two are to meet.
    pub fn hear_of(&mut self, location: &Location) {
        let unknown = self.view.get(location).is_none() && !self.lost.contains_key(location);
        if unknown && *location != self.location && self.state().takes_part() {
            self.remember_lost(location.clone(), 0);
            self.change_view(|_| ());
            self.ask(location.clone());
        }
    }

    /// An original is a member.
    pub fn add_original(&mut self, location: Location) {
        let room = self.view.members().len() < MEMBERS_MAX;
        if room && self.view.get(&location).is_none() && location != self.location {
            self.change_view(|view| view.insert(Member::original(location.clone())));
            self.actions.push(Action::Added(location));
        }
    }

    /// An original is no member any more, or has turned out to be one of ours, which is to be asked as such.
    pub fn remove_original(&mut self, location: &Location) {
        let known = self.view.get(location);
        if known.is_some_and(|member| !member.is_ours()) {
            self.unmet.remove(location);
            self.change_view(|view| drop(view.remove(location)));
            self.actions.push(Action::Removed(location.clone(), true));
            self.progress();
        }
    }

    /// An original has given this node what is its own now.
    pub fn met_original(&mut self, location: &Location) {
        self.unmet.remove(location);
        self.progress();
    }

    /// Originals that don't know this node yet, or are to be told again.
    pub fn unmet_originals(&self) -> impl Iterator<Item = &Location> {
        self.unmet.iter()
    }

    /// An original is to be told of this node again.
    pub fn meet_again(&mut self, location: &Location) {
        let known = self.view.get(location);
        if known.is_some_and(|member| !member.is_ours()) {
            self.unmet.insert(location.clone());
        }
    }
}
