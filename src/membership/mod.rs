//! Which nodes are in the network, as one node knows it: a state machine without a lock, a call or a clock.
//!
//! Events come in with the time at which they happen, actions go out, and [`crate::locator`] carries them
//! out. It knows no keys and no sockets.
//!
//! Invariants:
//!
//! * A node takes another into its view, and drops it, on that node's own word or on its own experience
//!   with it. What others say is a reason to ask.
//! * A life (an [incarnation](Member::incarnation)) that was lost, or that ended, never comes back here.
//! * A message that belongs to another life than the one in the view decides nothing.
//! * Whatever grows because of others has a bound.

mod ask;
mod clean;
mod enter;
mod member;
mod originals;
mod safety;
mod settle;
mod takeover;
mod token;
mod view;
mod watch;

pub use ask::{Asked, Question, Reply, Side, Standing};
pub use clean::FLOOR_MAX;
pub use enter::{Entry, Search};
pub use member::{Member, State};
pub use settle::Shared;
pub use token::Caller;
pub use view::{Range, Ties, View};

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::location::Location;
use crate::net::Random;

use clean::Lost;
use takeover::Takeover;
use token::Given;

/// A lease ends this many ticks after the moment when the question that it answers was asked.
pub const LEASE_TICKS: u32 = 4;

/// A lease is asked for again at the tick before it ends, which may come a little early.
const RENEW_HALF_TICKS: u32 = 5;

/// A member that doesn't answer for so many ticks is lost. This is twice a lease: no node takes its place
/// while it still answers from its own copy.
pub const SILENCE_TICKS: u32 = 8;

/// How many lost nodes are remembered, and asked within the time of a lease: a node that looks for its network waits
/// twice as long for that.
const LOST_MAX: usize = 256;

/// How many lives are remembered that were lost together, and that an answer names.
const ALARM_MAX: usize = 64;

/// How many nodes are remembered that said goodbye.
const LEFT_MAX: usize = 64;

/// How many nodes outside the view are dealt with at a time: candidates, and those that others named.
const NAMED_MAX: usize = 64;

/// How many differences between two views are looked into at a time.
const DIFFERENCES_MAX: usize = 64;

/// How many nodes, beside the next one, hear of a loss from a node that has found it.
const TOLD: usize = 1;

/// How many losses a question names.
const NEWS_MAX: usize = 16;

/// How many ranges a lease is for at most. A node has 32 of them, and some more while others come in.
const RANGES_MAX: usize = 4096;

/// How many nodes are asked for their members in a tick: a list is long in a large network, and most that
/// differ from one's own say the same.
const LISTS_MAX: usize = 3;

/// The most members: far above what a flat network bears, and what a ring holds.
const MEMBERS_MAX: usize = 100_000;

/// What all nodes of a network have in common.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Copies of each key, 1 or more.
    pub copies: usize,
    /// The time between two ticks.
    pub tick: Duration,
}

/// What a node is doing with its life.
#[derive(Debug)]
enum Life {
    Outside(Box<Search>),
    Joining,
    /// It was told to leave: it does when it has brought what it has.
    Returning {
        leaves: bool,
    },
    Full,
    Leaving,
    Left,
}

/// What [`crate::locator`] is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Put [`Membership::question`] to this node.
    Ask(Location),
    /// Ask that node to let this one in.
    Enter(Location),
    /// An original, or a node that may be one, is said to be a member.
    Meet(Location),
    /// That node is a member now.
    Added(Location),
    /// That node is no member any more; true: it said goodbye.
    Removed(Location, bool),
    /// Members were lost together: there is an [alarm](Membership::alarm) now.
    Missing,
    /// The view has changed.
    Changed,
    /// There is a member to compare with now.
    Settle,
    /// This node's own state has changed: all members are to hear it now.
    Announce,
    /// This node has started a network.
    Began,
    /// It has been let into one.
    CameIn,
    /// The node ends, with that reason.
    End(String),
}

/// What this node alone knows of a member of ours.
#[derive(Debug, Default)]
struct Peer {
    /// Of its view, as it said last.
    digest: u64,
    /// When the last question was asked that it has answered.
    answered: Option<Duration>,
    /// When the first of the questions was asked that it has not answered, and at which tick.
    waiting: Option<(Duration, u64)>,
    /// By its last answer it has this node in its view, in the present state.
    has_me: bool,
    /// When the lease was asked for that it granted last, and its ranges; sorted.
    lease: (Duration, Vec<Range>),
    /// When this node last granted it a lease.
    granted: Option<Duration>,
    /// It has said "done" to this life; true: when it had all itself.
    done: Option<bool>,
    /// Both have the same of all ranges that they share, since they share those.
    synced: bool,
    /// How often what was compared has ceased to hold.
    doubts: u64,
    /// What the two shared when it last compared. `None`: it can't have this node as done in this life.
    compared: Option<Shared>,
    /// When it was asked last, under the present view, and said that it is [clean](Membership::all_clean); and the floor that
    /// it had.
    clean: Option<(Duration, i64)>,
}

/// A node outside the view that was named.
#[derive(Debug)]
struct Named {
    location: Location,
    incarnation: i64,
    /// A member has it in its view.
    vouched: bool,
    /// This node has asked it at its name and found that life there, outside.
    reached: bool,
}

/// What a node knows of its network, and of itself.
#[derive(Debug)]
pub struct Membership {
    rules: Rules,
    location: Location,
    /// What only this process knows.
    secret: u64,
    incarnation: i64,
    life: Life,
    view: Arc<View>,
    /// How many changes led to it.
    changes: u64,
    /// By the present view.
    ties: BTreeMap<Location, Ties>,
    /// The members of ours, but this node.
    peers: BTreeMap<Location, Peer>,
    /// What other nodes gave this one to bring back.
    tokens: BTreeMap<Location, Given>,
    /// Lives that were lost without goodbye; the nodes are to be met again, should they have only been out of
    /// reach.
    lost: BTreeMap<Location, Lost>,
    /// The last lives that this node has stopped waiting for, and the tick until which it waits for those of the lost that it
    /// had no room for.
    expired: VecDeque<Member>,
    crowded_until: u64,
    /// The last lives that were members once and are no more, since this node began with nothing: what it has may come
    /// from them. Not those that it has stopped waiting for.
    past: VecDeque<(Location, i64)>,
    /// Those of the lost that were lost since the last tick.
    news: Vec<Location>,
    /// Members that are to hear of these losses, once they have answered an earlier question.
    untold: BTreeSet<Location>,
    /// The last view under which this node had nothing left to compare, or with which it came in; the same with the members
    /// that have become full since, and without those that have left; and the full or leaving members that have been lost
    /// since.
    safe: Arc<View>,
    since: Arc<View>,
    missing: BTreeMap<Location, i64>,
    /// Lives that were lost together, as this node or another one has found; and those whose loss was accepted.
    alarm: BTreeMap<Location, i64>,
    /// Those of the alarm or missing in whose place a life has begun that had nothing: their return ends no alarm.
    replaced: BTreeSet<(Location, i64)>,
    given_up: BTreeMap<Location, i64>,
    /// Lives that ended in good order, the last ones: a node that missed a goodbye hears of it.
    left: VecDeque<Member>,
    named: Vec<Named>,
    /// The change of the view since which this node has given all that it need not hold to those that should.
    brought: Option<u64>,
    /// Every put gets a version above this; see [`Membership::floor`].
    floor: i64,
    /// Members are asked whether they are clean, if they have not said so since then.
    clean_since: Option<Duration>,
    /// How many messages with large values this node is sending.
    large: usize,
    /// Originals that have not given this node what is its own now.
    unmet: BTreeSet<Location>,
    takeover: Takeover,
    /// To be asked at the next tick.
    doubted: BTreeSet<Location>,
    /// Being asked now: one question to a node at a time.
    asking: BTreeSet<Location>,
    /// How many lists of members were asked for in this tick.
    lists: usize,
    /// While no other node is full, and others have been lost: the tick from which on this node answers from
    /// its own copy. Until then, others that have gone on without it can tell it so.
    alone_from: u64,
    /// When this node last went on after it had stood still, and the tick until which that counts as "of late".
    woke: Duration,
    slept_until: u64,
    /// Ticks that this node has run, and when the last one was.
    ticks: u64,
    ticked: Duration,
    random: Random,
    actions: Vec<Action>,
}

impl Membership {
    /// A node outside of any network; it does nothing until it is [started](Membership::start).
    /// `secret`: a number that nobody outside can know.
    pub fn new(
        location: Location,
        rules: Rules,
        random: Random,
        secret: u64,
        now: Duration,
    ) -> Self {
        let mut membership = Membership {
            rules,
            location,
            secret,
            incarnation: 0,
            life: Life::Outside(Box::default()),
            view: Arc::default(),
            changes: 0,
            ties: BTreeMap::new(),
            peers: BTreeMap::new(),
            tokens: BTreeMap::new(),
            lost: BTreeMap::new(),
            expired: VecDeque::new(),
            crowded_until: 0,
            past: VecDeque::new(),
            news: Vec::new(),
            untold: BTreeSet::new(),
            safe: Arc::default(),
            since: Arc::default(),
            missing: BTreeMap::new(),
            alarm: BTreeMap::new(),
            replaced: BTreeSet::new(),
            given_up: BTreeMap::new(),
            left: VecDeque::new(),
            named: Vec::new(),
            brought: None,
            floor: 0,
            clean_since: None,
            large: 0,
            unmet: BTreeSet::new(),
            takeover: Takeover::default(),
            doubted: BTreeSet::new(),
            asking: BTreeSet::new(),
            lists: 0,
            alone_from: 0,
            woke: Duration::ZERO,
            slept_until: 0,
            ticks: 0,
            ticked: now,
            random,
            actions: Vec::new(),
        };
        membership.draw_incarnation(false);
        membership
    }

    /// This node as a member.
    pub fn me(&self) -> Member {
        Member {
            location: self.location.clone(),
            state: self.state(),
            incarnation: self.incarnation,
        }
    }

    /// How far this node is in its life.
    pub fn state(&self) -> State {
        match self.life {
            Life::Outside(_) => State::Outside,
            Life::Joining => State::Joining,
            Life::Returning { .. } => State::Returning,
            Life::Full => State::Full,
            Life::Leaving => State::Leaving,
            Life::Left => State::Left,
        }
    }

    /// The network as this node sees it now.
    pub fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// How many changes of the view there have been.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// The members of ours, but this node.
    pub fn others(&self) -> impl Iterator<Item = &Member> {
        let members = self.view.members().iter();
        members.filter(|member| member.is_ours() && member.location != self.location)
    }

    /// How many members are full, and ours.
    pub fn count_full(&self) -> usize {
        let members = self.view.members().iter();
        members.filter(|member| member.state == State::Full).count()
    }

    /// Lost nodes that may be alive, out of reach.
    pub fn lost(&self) -> impl Iterator<Item = &Location> {
        self.lost.keys()
    }

    /// What has to be done, in this order; nothing is left of it.
    pub fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    fn ticks(&self, count: u32) -> Duration {
        self.rules.tick * count
    }

    /// Another life. Odd: it begins with what this node had before.
    fn draw_incarnation(&mut self, returning: bool) {
        let half = 1 + self.random.below(i64::MAX as usize / 2 - 1) as i64;
        self.incarnation = 2 * half + i64::from(returning);
    }

    /// Does what is due at a tick: drops silent members, and chooses the nodes to put questions to. To be called once a
    /// tick.
    pub fn tick(&mut self, now: Duration) {
        self.ticks += 1;
        self.lists = 0;
        self.news.clear();
        self.untold.clear();
        let stood_still = now.saturating_sub(self.ticked) >= self.ticks(LEASE_TICKS);
        self.ticked = now;
        match self.life {
            Life::Left => return,
            Life::Outside(_) => return self.search(),
            _ => {}
        }
        if stood_still {
            self.stay_quiet(2 * SILENCE_TICKS);
            self.woke = now;
            self.slept_until = self.ticks + u64::from(2 * SILENCE_TICKS);
        }
        self.drop_the_silent(now);
        self.expire_the_lost();
        for location in self.choose(now) {
            self.ask(location);
        }
        self.progress();
        self.note_safety();
    }

    /// Becomes full, or ends, if it is time.
    fn progress(&mut self) {
        let (returning, leaves) = match self.life {
            Life::Joining => (false, false),
            Life::Returning { leaves } => (true, leaves),
            _ => return,
        };
        if !self.unmet.is_empty() {
            return;
        }
        let has_kept = |member: &Member| !matches!(member.state, State::Joining | State::Left);
        if !returning && !self.others().any(has_kept) {
            if self.peers.is_empty() && self.view.has_originals() {
                return self.change_life(Life::Full);
            }
            return self.end("all nodes that were to hand over keys have gone".to_owned());
        }
        let done = self.peers.values().all(|peer| peer.done.is_some());
        let may = match returning {
            true => self.brought == Some(self.changes),
            false => self.peers.values().any(|peer| peer.done == Some(true)),
        };
        if done && may && (leaves || !self.waits_for_a_silent_one()) {
            if returning && !self.peers.values().any(|peer| peer.done == Some(true)) {
                // The full ones that let it in may have had what it lacks.
                self.raise_alarm(self.missing.clone());
            }
            self.begin_takeover();
            self.change_life(if leaves { Life::Left } else { Life::Full });
        }
    }

    /// By the view after so many changes, all items that this node need not hold are now with the nodes that should
    /// have them.
    pub fn brought(&mut self, changes: u64) {
        self.brought = Some(changes);
        self.progress();
    }

    /// Begins to leave. A node that never had anything of its own goes at once.
    pub fn leave(&mut self) {
        match &mut self.life {
            Life::Full => self.change_life(Life::Leaving),
            Life::Returning { leaves } => {
                *leaves = true;
                // One that had no room for an item was done all the same.
                for peer in self.peers.values_mut() {
                    (peer.done, peer.synced) = (None, false);
                    peer.doubts += 1;
                }
            }
            Life::Outside(search) if search.returning => search.leaves = true,
            Life::Outside(_) | Life::Joining => self.change_life(Life::Left),
            Life::Leaving | Life::Left => {}
        }
    }

    /// Whether this node is coming in, and was not told to leave.
    pub fn comes_in_to_stay(&self) -> bool {
        self.state().is_coming() && !self.is_to_leave()
    }

    fn is_to_leave(&self) -> bool {
        match &self.life {
            Life::Outside(search) => search.leaves,
            Life::Returning { leaves } => *leaves,
            Life::Leaving => true,
            Life::Joining | Life::Full | Life::Left => false,
        }
    }

    /// Says goodbye.
    pub fn go(&mut self) {
        self.change_life(Life::Left);
    }

    fn change_life(&mut self, life: Life) {
        self.life = life;
        let me = self.me();
        if me.state.takes_part() {
            self.change_view(|view| view.insert(me));
        } else {
            let location = self.location.clone();
            self.change_view(|view| drop(view.remove(&location)));
        }
        for peer in self.peers.values_mut() {
            peer.has_me = false;
        }
        self.actions.push(Action::Announce);
    }

    fn change_view(&mut self, change: impl FnOnce(&mut View)) {
        change(Arc::make_mut(&mut self.view));
        // Whoever is there may be lost like any other.
        let is_there = |name: &Location, life: i64| {
            let member = self.view.get(name);
            member.is_some_and(|member| member.incarnation == life)
        };
        self.given_up.retain(|name, life| !is_there(name, *life));
        self.changes += 1;
        let ties = match self.view.place(&self.location) {
            Some(me) => {
                let named = |(place, ties): (usize, Ties)| {
                    (self.view.members()[place].location.clone(), ties)
                };
                let ties = self.view.ties(me, self.rules.copies);
                ties.into_iter().map(named).collect()
            }
            None => BTreeMap::new(),
        };
        // What was compared holds no longer, even if the two share the same again one day: something may have come
        // to one of them meanwhile.
        for (location, peer) in &mut self.peers {
            let shared =
                |ties: &BTreeMap<Location, Ties>| ties.get(location).map(|ties| ties.shared);
            if shared(&ties) != shared(&self.ties) {
                peer.synced = false;
                peer.doubts += 1;
            }
            peer.clean = None;
        }
        self.ties = ties;
        self.note_full();
        if self.actions.last() != Some(&Action::Changed) {
            self.actions.push(Action::Changed);
        }
    }

    /// Takes a node in, on its own word.
    fn take_in(&mut self, member: Member) {
        if self.view.members().len() >= MEMBERS_MAX || member.location == self.location {
            return;
        }
        let location = member.location.clone();
        self.named.retain(|named| named.location != location);
        self.lost.remove(&location);
        self.note_return(&member);
        self.peers.insert(location.clone(), Peer::default());
        self.change_view(|view| view.insert(member));
        self.actions.push(Action::Added(location));
    }

    fn stay_quiet(&mut self, ticks: u32) {
        self.alone_from = self.alone_from.max(self.ticks + u64::from(ticks));
    }

    /// A call to a member was refused, when it stood in the view with that incarnation: it does not run any more.
    pub fn refused(&mut self, location: &Location, incarnation: i64) {
        if self.is_member(location, incarnation) {
            self.lose(location, false);
        }
    }

    fn is_member(&self, location: &Location, incarnation: i64) -> bool {
        let member = self.view.get(location);
        member.is_some_and(|member| member.incarnation == incarnation)
    }

    fn is_lost(&self, location: &Location, incarnation: i64) -> bool {
        let lost = self.lost.get(location);
        lost.is_some_and(|lost| lost.incarnation == incarnation)
    }
}

#[cfg(test)]
mod tests;
