//! A node of the model: the real membership, and the rules of put, get and sync for one key.

use std::collections::BTreeSet;
use std::time::Duration;

use thrifty_p2p::location::Location;
use thrifty_p2p::membership::{
    Action, Caller, Entry, Member, Membership, Question, Reply, Rules, SILENCE_TICKS, Shared, State,
};
use thrifty_p2p::net::Random;
use thrifty_p2p::ring;

use super::world::{Answer, Outcome, Run, TICK, Then, World};

/// Version and value; 0: none.
pub type Data = (i64, u64);

/// How long a call may take, in ticks. Longer than a node waits, so that answers come late.
const LIMIT: u64 = SILENCE_TICKS as u64;

pub struct Node {
    pub run: Run,
    pub membership: Membership,
    pub data: Data,
    pub hung_until: u64,
    /// How far its wall clock is off, in the unit of versions.
    skew: i64,
    /// Nodes with which a sync is under way, and whether what lies here is being handed over.
    syncing: BTreeSet<usize>,
    giving: bool,
}

pub enum Message {
    Ask(Question),
    Enter(Member),
    Reach(Member),
    Store(Store),
    Fetch(u64),
    Sync {
        caller: Caller,
        shared: u64,
        data: Data,
        drives: bool,
    },
    Exchanged {
        caller: Caller,
        shared: u64,
    },
    Put(u64),
    Get,
}

pub struct Store {
    caller: Caller,
    list: u64,
    data: Data,
    /// A put: if something greater is held here, it has to be tried again above that. Otherwise something greater is as
    /// good.
    put: bool,
}

pub enum Response {
    Replied(Reply),
    Entry(Entry),
    Reached(bool),
    /// Version held now, and whether that is what was sent, or later.
    Held(i64, bool),
    Found(Data),
    Synced {
        me: Member,
        data: Data,
        members: Vec<Member>,
    },
    Differs(Vec<Member>),
    Done(Option<Data>),
}

impl Node {
    pub fn new(world: &World, run: Run) -> Self {
        let rules = Rules {
            copies: world.copies,
            tick: Duration::from_millis(TICK),
        };
        let seed = world.dice.below(usize::MAX) as u64;
        let random = Random::new(seed);
        let name = world.names[run.place].clone();
        Node {
            run,
            membership: Membership::new(name, rules, random, seed, world.time()),
            data: (0, 0),
            hung_until: 0,
            skew: world.pick(&[-100_000, 0, 0, 100_000]),
            syncing: BTreeSet::new(),
            giving: false,
        }
    }

    /// The key's replicas, and the digest of the list.
    pub fn list(&self, hash: u32, copies: usize) -> (Vec<Member>, u64) {
        let view = self.membership.view();
        let places: Vec<_> = view.list(hash, copies).collect();
        let digest = view.list_digest(places.iter().copied());
        let members = places.iter().map(|place| view.members()[*place].clone());
        (members.collect(), digest)
    }

    pub fn has_me(list: &[Member], me: &Location) -> bool {
        list.iter().any(|member| member.location == *me)
    }

    pub fn primary(list: &[Member]) -> Option<&Member> {
        list.iter().find(|member| member.state.holds_all())
    }
}

impl World {
    fn hash(&self) -> u32 {
        ring::hash(&self.key)
    }

    pub fn node(&mut self, run: Run) -> &mut Node {
        let node = self.nodes.get_mut(&run.place);
        node.expect("BUG: a node that has ended acts")
    }

    fn list_of(&self, place: usize) -> (Vec<Member>, u64) {
        self.nodes[&place].list(self.hash(), self.copies)
    }

    /// Lets an event happen at a node, and carries out what follows.
    pub fn act<T>(&mut self, run: Run, event: impl FnOnce(&mut Node, Duration) -> T) -> T {
        let now = self.time();
        let before = self.node(run).membership.state();
        let result = event(self.node(run), now);
        let after = self.node(run).membership.state();
        if before != after {
            self.say(format!("n{} {before:?} -> {after:?}", run.place));
        }
        self.carry_out(run);
        result
    }

    fn carry_out(&mut self, run: Run) {
        let actions = self.node(run).membership.take_actions();
        let mut changed = false;
        for action in actions {
            match action {
                Action::Ask(to) => self.ask(run, &to, Box::new(|_| ())),
                Action::Enter(to) => self.enter(run, &to),
                Action::Announce => {
                    let others = self.node(run).membership.others();
                    let others: Vec<_> = others.map(|m| m.location.clone()).collect();
                    for to in others {
                        self.ask(run, &to, Box::new(|_| ()));
                    }
                }
                Action::Added(who) => self.say(format!("n{} adds {who}", run.place)),
                Action::Removed(who, _) => self.say(format!("n{} removes {who}", run.place)),
                Action::Changed | Action::Settle => changed = true,
                Action::Missing | Action::Began | Action::CameIn => {}
                Action::Meet(_) => panic!("there are no originals here"),
                Action::End(why) => {
                    self.kill(run.place, &format!("ends: {why}"));
                    return;
                }
            }
        }
        if self.alive(run) && self.node(run).membership.state() == State::Left {
            self.kill(run.place, "has left");
            return;
        }
        if changed {
            self.after(0, move |world| {
                if world.alive(run) && world.hangs(run.place).is_none() {
                    world.look_after(run);
                }
            });
        }
    }

    fn ask(&mut self, run: Run, to: &Location, then: Box<dyn FnOnce(&mut World)>) {
        let now = self.time();
        let asked = self.node(run).membership.question(now, to);
        let place = self.place(to);
        let message = Message::Ask(asked.question.clone());
        let outcome: Then = Box::new(move |world, outcome| {
            world.act(run, |node, now| match outcome {
                Outcome::Answer(Response::Replied(reply)) => {
                    node.membership.answered(now, &asked, &reply);
                }
                Outcome::Refused => node.membership.unasked(&asked),
                _ => node.membership.unanswered(now, &asked),
            });
            then(world);
        });
        self.call(run, place, message, 1, outcome);
    }

    fn enter(&mut self, run: Run, to: &Location) {
        let me = self.node(run).membership.candidate();
        let (to, place) = (to.clone(), self.place(to));
        let incarnation = me.incarnation;
        let outcome: Then = Box::new(move |world, outcome| {
            world.act(run, |node, _| match outcome {
                Outcome::Answer(Response::Entry(entry)) => {
                    node.membership.entered(&to, incarnation, entry);
                }
                Outcome::Refused => node.membership.entry_refused(&to),
                _ => node.membership.entry_unanswered(&to),
            });
        });
        self.call(run, place, Message::Enter(me), 4, outcome);
    }

    /// A node gets a message.
    pub fn serve(&mut self, place: usize, message: Message, answer: Answer) {
        let run = self.nodes[&place].run;
        let (hash, copies) = (self.hash(), self.copies);
        match message {
            Message::Ask(question) => {
                let reply = self.act(run, |node, now| node.membership.answer(now, &question));
                answer(self, Response::Replied(reply));
            }
            Message::Enter(candidate) => self.let_in(run, candidate, answer),
            Message::Reach(candidate) => {
                let to = candidate.location.clone();
                self.node(run).membership.name(&candidate, false);
                let _ = self.node(run).membership.take_actions();
                let then = move |world: &mut World| {
                    if world.alive(run) {
                        let membership = &world.node(run).membership;
                        let reached = membership.has_reached(&candidate);
                        answer(world, Response::Reached(reached));
                    }
                };
                self.ask(run, &to, Box::new(then));
            }
            Message::Store(store) => {
                let response = self.act(run, |node, now| {
                    let (list, digest) = node.list(hash, copies);
                    let membership = &mut node.membership;
                    let me = membership.me();
                    let takes = digest == store.list
                        && (!store.put || membership.has_taken_over())
                        && membership.shared_with(&store.caller).is_some()
                        && Node::has_me(&list, &me.location);
                    if !takes {
                        let members = membership.known();
                        return Response::Differs(members);
                    }
                    let accepted = !store.put || node.data <= store.data;
                    if accepted && store.put {
                        membership.granted(now, &store.caller.me.location);
                    }
                    node.data = node.data.max(store.data);
                    Response::Held(node.data.0, accepted)
                });
                answer(self, response);
            }
            Message::Fetch(wanted) => {
                let node = self.node(run);
                let (list, digest) = node.list(hash, copies);
                let me = node.membership.me();
                let response = if digest == wanted && Node::has_me(&list, &me.location) {
                    Response::Found(node.data)
                } else {
                    Response::Differs(node.membership.known())
                };
                answer(self, response);
            }
            Message::Sync {
                caller,
                shared,
                data,
                drives,
            } => {
                let response = self.act(run, |node, _| {
                    let members = node.membership.known();
                    let now = node.membership.shared_with(&caller);
                    let Some(now) = now.filter(|now| now.digest == shared) else {
                        return Response::Differs(members);
                    };
                    let (list, _) = node.list(hash, copies);
                    let own = node.membership.me();
                    let mine = Node::has_me(&list, &own.location);
                    let both = mine && Node::has_me(&list, &caller.me.location);
                    let equal = !both || node.data == data;
                    node.membership.synced(&caller.me.location, equal);
                    node.membership.compared(&caller.me.location, now);
                    if !equal && !drives {
                        return Response::Differs(members);
                    }
                    if both {
                        node.data = node.data.max(data);
                    }
                    Response::Synced {
                        me: own,
                        data: if both { node.data } else { (0, 0) },
                        members,
                    }
                });
                answer(self, response);
            }
            Message::Exchanged { caller, shared } => {
                let same = self.act(run, |node, _| {
                    let now = node.membership.shared_with(&caller);
                    let same = now.is_some_and(|now| now.digest == shared);
                    if same {
                        node.membership.synced(&caller.me.location, true);
                    }
                    same
                });
                answer(self, Response::Reached(same));
            }
            Message::Put(value) => self.put(run, value, 0, 0, answer),
            Message::Get => self.get(run, 0, answer),
        }
    }

    /// Has all members reach a candidate, and lets it in.
    fn let_in(&mut self, run: Run, candidate: Member, answer: Answer) {
        let others = match self.act(run, |node, _| node.membership.enter(&candidate)) {
            Ok(entry) => return answer(self, Response::Entry(entry)),
            Err(others) => others,
        };
        let incarnation = self.node(run).membership.me().incarnation;
        let place = |world: &World, to: &Location| world.place(to);
        let calls = others
            .iter()
            .map(|to| (place(self, to), Message::Reach(candidate.clone())));
        let calls = calls.collect();
        self.call_all(run, calls, 2, move |world, outcomes| {
            let reached = |one: &Outcome| matches!(one, Outcome::Answer(Response::Reached(true)));
            if !outcomes.iter().all(reached) {
                return answer(world, Response::Entry(Entry::Later(String::new())));
            }
            let to = candidate.location.clone();
            world.node(run).membership.name(&candidate, false);
            let _ = world.node(run).membership.take_actions();
            let then = move |world: &mut World| {
                if world.alive(run) {
                    let same = world.node(run).membership.me().incarnation == incarnation;
                    let entry = world.act(run, |node, _| match same {
                        true => node.membership.admit(&candidate),
                        false => Entry::Later(String::new()),
                    });
                    answer(world, Response::Entry(entry));
                }
            };
            world.ask(run, &to, Box::new(then));
        });
    }

    // What a node does by itself.

    /// Compares what it has with others, forgets what it need not have, goes when it may.
    pub fn look_after(&mut self, run: Run) {
        if !self.alive(run) {
            return;
        }
        let node = self.node(run);
        if node.membership.has_to_drop() {
            node.data = (0, 0);
            node.membership.dropped();
        }
        let me = node.membership.me();
        if !me.state.takes_part() {
            return;
        }
        for (with, shared) in node.membership.owed() {
            let place = self.place(&with);
            if self.node(run).syncing.insert(place) {
                self.sync(run, place, &with, shared);
            }
        }
        let (list, digest) = self.list_of(run.place);
        let node = self.node(run);
        let mine = Node::has_me(&list, &me.location);
        let may_give = me.state.holds_all() || me.state == State::Returning;
        if !mine && node.data != (0, 0) && may_give && !node.giving {
            self.give(run, list, digest);
        }
        if mine || self.node(run).data == (0, 0) {
            self.act(run, |node, _| {
                let changes = node.membership.changes();
                node.membership.brought(changes);
            });
            if !self.alive(run) {
                return;
            }
        }
        let now = self.time();
        let node = &self.nodes[&run.place];
        if me.state == State::Leaving {
            let stays = |member: &Member| member.state != State::Leaving;
            let alone = !node.membership.others().any(stays);
            let empty = mine || node.data == (0, 0);
            self.gave_up |= alone;
            let node = &self.nodes[&run.place];
            if alone || (node.membership.is_settled(now) && empty) {
                self.act(run, |node, _| node.membership.go());
            }
        }
    }

    fn sync(&mut self, run: Run, place: usize, with: &Location, shared: Shared) {
        let node = self.node(run);
        let (caller, data) = (node.membership.caller(with), node.data);
        let life = caller.me.incarnation;
        let (with, made) = (with.clone(), self.time());
        let as_member = self.node(run).membership.view().get(&with).cloned();
        let other = as_member.clone();
        let drives = other.is_some_and(|other| self.node(run).membership.drives(&other));
        let message = Message::Sync {
            caller,
            shared: shared.digest,
            data,
            drives,
        };
        let (hash, copies) = (self.hash(), self.copies);
        let then: Then = Box::new(move |world, outcome| {
            world.node(run).syncing.remove(&place);
            let mut exchanged = None;
            world.act(run, |node, _| {
                let me = node.membership.me();
                if me.incarnation != life {
                    return;
                }
                match outcome {
                    Outcome::Refused => {
                        if let Some(member) = &as_member {
                            node.membership.refused(&with, member.incarnation);
                        }
                    }
                    Outcome::Answer(Response::Differs(members)) => {
                        if let Some(member) = &as_member {
                            node.membership.differs(member, &members);
                        }
                    }
                    Outcome::Answer(Response::Synced {
                        me: by,
                        data,
                        members,
                    }) => {
                        if node.membership.shared_with_life(&by) == Some(shared) {
                            let (list, _) = node.list(hash, copies);
                            if Node::has_me(&list, &me.location) {
                                node.data = node.data.max(data);
                            }
                            exchanged = Some((me, by, members));
                        }
                    }
                    _ => node.membership.silent(&with, made),
                }
            });
            if let Some((me, by, members)) = exchanged.filter(|_| world.alive(run)) {
                world.tell_exchanged(run, place, shared, me, by, members);
            }
        });
        let limit = self.pick(&[1, 4, LIMIT]);
        self.call(run, place, message, limit, then);
    }

    /// Says that what differed has been exchanged; when that is heard, the two are done.
    fn tell_exchanged(
        &mut self,
        run: Run,
        place: usize,
        shared: Shared,
        me: Member,
        by: Member,
        members: Vec<Member>,
    ) {
        let token = self.node(run).membership.token_of(&by.location);
        let message = Message::Exchanged {
            caller: Caller { me, token },
            shared: shared.digest,
        };
        let then: Then = Box::new(move |world, outcome| {
            if matches!(outcome, Outcome::Answer(Response::Reached(true))) {
                world.act(run, |node, _| {
                    node.membership.done(&by, shared, Some(&members));
                });
            }
        });
        self.call(run, place, message, 1, then);
    }

    /// Hands what lies here to its replicas, and forgets it when all have it under one list.
    fn give(&mut self, run: Run, list: Vec<Member>, digest: u64) {
        let data = self.node(run).data;
        self.node(run).giving = true;
        self.store(run, data, false, list, digest, move |world, accepted| {
            let same = world.list_of(run.place).1 == digest;
            let node = world.node(run);
            node.giving = false;
            if accepted == Accepted::All && same && node.data == data {
                node.data = (0, 0);
                world.say(format!("n{} forgets", run.place));
            }
        });
    }

    /// Sends `store` to all on the list but this node.
    fn store(
        &mut self,
        run: Run,
        data: Data,
        put: bool,
        list: Vec<Member>,
        digest: u64,
        then: impl FnOnce(&mut World, Accepted) + 'static,
    ) {
        let me = self.node(run).membership.me();
        let others = list.into_iter().filter(|m| m.location != me.location);
        let others: Vec<_> = others.collect();
        if others.is_empty() {
            let accepted = if put { Accepted::All } else { Accepted::No };
            return then(self, accepted);
        }
        let store = |member: &Member| {
            let store = Store {
                caller: Caller {
                    me: me.clone(),
                    token: self.nodes[&run.place].membership.token_of(&member.location),
                },
                list: digest,
                data,
                put,
            };
            (self.place(&member.location), Message::Store(store))
        };
        let calls = others.iter().map(store).collect();
        let limit = self.pick(&[1, LIMIT]);
        let made = self.time();
        self.call_all(run, calls, limit, move |world, outcomes| {
            let mut all = Accepted::All;
            for (member, outcome) in others.iter().zip(outcomes) {
                let (location, life) = (&member.location, member.incarnation);
                let one = match outcome {
                    Outcome::Answer(Response::Held(_, true)) => Accepted::All,
                    Outcome::Answer(Response::Held(version, false)) => Accepted::Above(version),
                    Outcome::Answer(Response::Differs(members)) => {
                        world.act(run, |node, _| node.membership.differs(member, &members));
                        Accepted::No
                    }
                    Outcome::Refused => {
                        world.act(run, |node, _| node.membership.refused(location, life));
                        Accepted::No
                    }
                    _ => {
                        world.act(run, |node, _| node.membership.silent(location, made));
                        Accepted::No
                    }
                };
                all = all.with(one);
                if !world.alive(run) {
                    return;
                }
            }
            then(world, all);
        });
    }

    /// Whether this node may answer and acknowledge, as the primary of this list.
    fn may_decide(&mut self, run: Run, digest: u64, asked: Option<u64>) -> bool {
        let (hash, time) = (self.hash(), self.time());
        let asked = asked.map(Duration::from_millis);
        let membership = &self.node(run).membership;
        membership.may_decide(time, hash, digest, asked)
    }

    fn may_show(&mut self, run: Run, digest: u64) -> bool {
        let hash = self.hash();
        self.node(run).membership.may_show(hash, digest)
    }

    fn again(&mut self, run: Run, job: impl FnOnce(&mut World) + 'static) {
        let delay = 300 + self.up_to(1);
        self.after(delay, move |world| {
            if world.alive(run) {
                if let Some(rest) = world.hangs(run.place) {
                    world.after(rest + 20, move |world| {
                        if world.alive(run) {
                            job(world);
                        }
                    });
                } else {
                    job(world);
                }
            }
        });
    }

    fn put(&mut self, run: Run, value: u64, above: i64, tries: usize, answer: Answer) {
        let (list, digest) = self.list_of(run.place);
        let now = self.now;
        let node = self.node(run);
        let me = node.membership.me();
        let primary = Node::primary(&list).is_some_and(|p| p.location == me.location);
        if !primary || tries > 4 {
            return answer(self, Response::Done(None));
        }
        let version = (now as i64 + node.skew).max(node.data.0 + 1).max(above + 1);
        let data = (version, value);
        let then = move |world: &mut World, accepted: Accepted| {
            let may = accepted == Accepted::All && world.may_decide(run, digest, Some(now));
            let node = world.node(run);
            if may && data > node.data {
                node.data = data;
                return answer(world, Response::Done(Some(data)));
            }
            let above = match accepted {
                Accepted::Above(version) => version,
                _ => above,
            };
            world.again(run, move |world| {
                world.put(run, value, above, tries + 1, answer);
            });
        };
        self.store(run, data, true, list, digest, then);
    }

    fn get(&mut self, run: Run, tries: usize, answer: Answer) {
        let (list, digest) = self.list_of(run.place);
        let me = self.node(run).membership.me();
        let primary = Node::primary(&list).is_some_and(|p| p.location == me.location);
        if !primary || tries > 4 {
            return answer(self, Response::Done(None));
        }
        if self.may_decide(run, digest, None) {
            let data = self.node(run).data;
            return answer(self, Response::Done(Some(data)));
        }
        let others = list.iter().filter(|m| m.location != me.location);
        let others: Vec<_> = others.map(|m| self.place(&m.location)).collect();
        let again = move |world: &mut World, answer: Answer| {
            world.again(run, move |world| world.get(run, tries + 1, answer));
        };
        if others.is_empty() {
            return again(self, answer);
        }
        let calls = others
            .into_iter()
            .map(|place| (place, Message::Fetch(digest)));
        self.call_all(run, calls.collect(), 1, move |world, outcomes| {
            let found = |outcome| match outcome {
                Outcome::Answer(Response::Found(data)) => Some(data),
                _ => None,
            };
            let all: Option<Vec<_>> = outcomes.into_iter().map(found).collect();
            let own = world.node(run).data;
            let Some(all) = all.filter(|_| world.may_show(run, digest)) else {
                return again(world, answer);
            };
            let latest = all.iter().copied().fold(own, Data::max);
            if own == latest && all.iter().all(|data| *data == latest) {
                return answer(world, Response::Done(Some(latest)));
            }
            world.store(run, latest, true, list, digest, move |world, accepted| {
                let may = world.may_show(run, digest);
                let node = world.node(run);
                if accepted == Accepted::All && may && latest >= node.data {
                    node.data = latest;
                    return answer(world, Response::Done(Some(latest)));
                }
                again(world, answer);
            });
        });
    }
}

/// What came of a `store` to all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    All,
    /// Another node holds a greater version.
    Above(i64),
    No,
}

impl Accepted {
    fn with(self, other: Self) -> Self {
        match (self, other) {
            (Accepted::No, _) | (_, Accepted::No) => Accepted::No,
            (Accepted::Above(one), Accepted::Above(other)) => Accepted::Above(one.max(other)),
            (Accepted::Above(version), _) | (_, Accepted::Above(version)) => {
                Accepted::Above(version)
            }
            (Accepted::All, Accepted::All) => Accepted::All,
        }
    }
}
