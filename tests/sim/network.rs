//! The network of the simulated world: carries calls between nodes that are all in this process.
//!
//! A call is a message there, an activity of the called node, and a message back; the caller waits
//! for at most its limit, and what it no longer waits for is carried out all the same. What can
//! happen to a message, and how the caller sees it:
//!
//! * late: random, and more within a slow spell of a node. Order between connections isn't kept;
//!   requests of one `call_all` to one node are carried out one behind the other;
//! * nobody there: refused, or broken if somebody was there when it was sent;
//! * the called node dies: broken. It is stopped: silent, and carried out when it is continued;
//! * lost, or on a link that is cut: silent. What was sent on a cut link is lost or comes after
//!   the cut is healed, as TCP sends again;
//! * a connection is reset: broken, or carried out twice, as a network tries once again afresh;
//! * local trouble: not sent.
//!
//! What a dying node has sent still arrives.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use thrifty_p2p::location::Location;
use thrifty_p2p::net::{Answer, CallError, Connection, Network, Request};
use thrifty_p2p::service::{Call, Service};

use super::scheduler::{Group, Ticket};
use super::world::World;

/// How bad the network is. Per mille of the calls.
#[derive(Debug, Clone, Default)]
pub struct Weather {
    /// Requests or answers that are never heard of again.
    pub lost: usize,
    /// Connections that end after a request was carried out and before its answer.
    pub reset: usize,
    /// Calls that can't be made for lack of ports or descriptors.
    pub local_trouble: usize,
    /// Questions and answers of these methods that come late.
    pub late: usize,
    pub late_methods: Vec<&'static str>,
}

/// The most that a late message takes, in microseconds: there and back less than the limit for an
/// answer.
const LATE_MAX: usize = 240_000;

/// Who calls. Clients have no location; nothing is ever cut off from them.
#[derive(Debug, Clone)]
pub struct Origin {
    pub location: Option<Location>,
    pub group: Group,
}

/// What a network is in the middle of.
#[derive(Default)]
pub struct Wires {
    pub weather: Weather,
    calls: BTreeMap<u64, Open>,
    calls_made: u64,
    /// Directed: (from, to).
    cuts: BTreeSet<(Location, Location)>,
    /// Messages to and from this node come no later than then.
    slow: Vec<(Location, Duration)>,
    /// What was sent on a cut link and not lost.
    held: Vec<Message>,
}

/// One `call_all` that somebody waits for.
struct Open {
    ticket: Ticket,
    from: Origin,
    legs: Vec<Leg>,
    missing: usize,
    /// The event at which the last answer was given, which is still to get here.
    given: u64,
}

/// One call of it.
struct Leg {
    to: Location,
    /// The process that has taken it.
    taken_by: Option<Group>,
    answer: Option<Answer>,
}

struct Message {
    from: Option<Location>,
    to: Option<Location>,
    method: &'static str,
    /// What it does on arrival. It must not wait.
    effect: Box<dyn FnOnce() + Send>,
}

impl Wires {
    fn open(&mut self, from: Origin, calls: &[(Location, Request)], ticket: Ticket) -> u64 {
        self.calls_made += 1;
        let legs: Vec<_> = calls
            .iter()
            .map(|(to, _)| Leg {
                to: to.clone(),
                taken_by: None,
                answer: None,
            })
            .collect();
        let missing = legs.len();
        let open = Open {
            ticket,
            from,
            legs,
            missing,
            given: 0,
        };
        self.calls.insert(self.calls_made, open);
        self.calls_made
    }

    /// Notes an answer unless there is one, or nobody waits any more. The ticket of a caller who
    /// now has all.
    fn answer(&mut self, call: u64, leg: usize, answer: Answer) -> Option<Ticket> {
        let open = self.calls.get_mut(&call)?;
        let slot = &mut open.legs[leg].answer;
        if slot.is_some() {
            return None;
        }
        *slot = Some(answer);
        open.missing -= 1;
        (open.missing == 0).then_some(open.ticket)
    }

    /// The unanswered legs for which `of` holds: call, leg, caller.
    fn unanswered(&self, of: impl Fn(&Open, &Leg) -> bool) -> Vec<(u64, usize, Origin)> {
        let mut found = Vec::new();
        for (id, open) in &self.calls {
            for (place, leg) in open.legs.iter().enumerate() {
                if leg.answer.is_none() && of(open, leg) {
                    found.push((*id, place, open.from.clone()));
                }
            }
        }
        found
    }

    fn is_cut(&self, from: Option<&Location>, to: Option<&Location>) -> bool {
        match (from, to) {
            (Some(from), Some(to)) => self.cuts.contains(&(from.clone(), to.clone())),
            _ => false,
        }
    }

    pub fn cut(&mut self, from: &Location, to: &Location) {
        self.cuts.insert((from.clone(), to.clone()));
    }

    /// The cut has lasted so long that nobody tries to send any more what it has held back.
    pub fn lose_held(&mut self) {
        self.held.clear();
    }

    pub fn is_whole(&self) -> bool {
        self.cuts.is_empty()
    }

    pub fn slow_down(&mut self, location: &Location, until: Duration) {
        self.slow.push((location.clone(), until));
    }
}

/// The requests of one `call_all` to one node.
type Batch = Vec<(usize, Request)>;

impl World {
    /// Sends a message on its way.
    fn transmit(
        self: &Arc<Self>,
        from: Option<Location>,
        to: Option<Location>,
        method: &'static str,
        effect: impl FnOnce() + Send + 'static,
    ) {
        let lost = self.wires().weather.lost;
        if from.is_some() && to.is_some() && self.chance(lost) {
            self.scheduler
                .trace(format_args!("  lost: {} -> {}", name(&from), name(&to)));
            return;
        }
        let message = Message {
            from,
            to,
            method,
            effect: Box::new(effect),
        };
        if let Some(message) = self.unless_cut(message) {
            let world = self.clone();
            let at = self.scheduler.now() + self.latency(&message);
            self.scheduler.act_at(at, move || {
                if let Some(message) = world.unless_cut(message) {
                    (message.effect)();
                }
            });
        }
    }

    /// Gives the message back if its link is not cut; else loses it, or keeps it until healed.
    fn unless_cut(&self, message: Message) -> Option<Message> {
        let cut = self
            .wires()
            .is_cut(message.from.as_ref(), message.to.as_ref());
        if !cut {
            return Some(message);
        }
        if self.chance(500) {
            self.wires().held.push(message);
        }
        None
    }

    fn latency(&self, message: &Message) -> Duration {
        let (from, to) = match self.random.below(100) {
            0..70 => (50, 400),
            70..94 => (400, 5_000),
            94..99 => (5_000, 50_000),
            _ => (50_000, 200_000),
        };
        let (late, methods) = {
            let wires = self.wires();
            let late = wires.weather.late;
            (late, wires.weather.late_methods.contains(&message.method))
        };
        let usual = if methods && self.chance(late) {
            self.between(0, LATE_MAX)
        } else {
            self.between(from, to)
        };
        let now = self.scheduler.now();
        let slow = {
            let mut wires = self.wires();
            wires.slow.retain(|(_, until)| *until > now);
            let touched = |location: &Location| {
                message.from.as_ref() == Some(location) || message.to.as_ref() == Some(location)
            };
            let spells = wires.slow.iter().filter(|(location, _)| touched(location));
            spells.map(|(_, until)| *until - now).max()
        };
        match slow {
            Some(most) => usual.max(self.between(0, most.as_micros() as usize + 1)),
            None => usual,
        }
    }

    /// Ends every cut; what was held on the way goes on.
    pub fn heal(self: &Arc<Self>) {
        let held = {
            let mut wires = self.wires();
            wires.cuts.clear();
            std::mem::take(&mut wires.held)
        };
        self.scheduler.trace(format_args!("healed"));
        for message in held {
            // Sent again when its time to wait, which has doubled again and again, is over.
            let at = self.scheduler.now() + self.between(0, 2_000_000);
            let world = self.clone();
            self.scheduler.act_at(at, move || {
                let Message {
                    from,
                    to,
                    method,
                    effect,
                } = message;
                world.transmit(from, to, method, effect);
            });
        }
    }

    fn send(self: &Arc<Self>, call: u64, from: &Origin, to: &Location, batch: Batch) {
        let methods = batch.iter().map(|(_, request)| request.method);
        let methods = methods.collect::<Vec<_>>().join(",");
        let who = name(&from.location);
        self.scheduler
            .trace(format_args!("#{call} {who} -> {to}: {methods}"));
        let trouble = self.wires().weather.local_trouble;
        if from.location.is_some() && self.chance(trouble) {
            for (leg, _) in batch {
                let trouble = CallError::Local("out of ports".to_owned());
                self.answer(call, leg, Err(trouble));
            }
            return;
        }
        let sent_to = self.process(to).map(|(group, _)| group);
        let (world, back, there) = (self.clone(), from.location.clone(), to.clone());
        let method = batch[0].1.method;
        self.transmit(from.location.clone(), Some(to.clone()), method, move || {
            world.arrive(call, back, &there, sent_to, batch);
        });
    }

    fn arrive(
        self: &Arc<Self>,
        call: u64,
        back: Option<Location>,
        to: &Location,
        sent_to: Option<Group>,
        batch: Batch,
    ) {
        let process = self.process(to);
        let found = process.as_ref().map(|(group, _)| *group);
        let Some((group, service)) = process.filter(|_| {
            // A connection to a predecessor at the same address: broken, or tried again afresh.
            sent_to.is_none() || sent_to == found || self.chance(500)
        }) else {
            let refused = found.is_none() && (sent_to.is_none() || self.chance(500));
            for (leg, request) in batch {
                let why = if refused {
                    CallError::Refused
                } else {
                    CallError::Broken("reset by peer".to_owned())
                };
                self.send_back(call, (leg, request.method), to, back.clone(), Err(why));
            }
            return;
        };
        if let Some(open) = self.wires().calls.get_mut(&call) {
            for (leg, _) in &batch {
                open.legs[*leg].taken_by = Some(group);
            }
        }
        for (leg, request) in &batch {
            if request.oneway {
                let leg = (*leg, request.method);
                self.send_back(call, leg, to, back.clone(), Ok(vec![0]));
            }
        }
        let method = batch[0].1.method;
        let at = self.scheduler.now() + self.hesitation();
        let (world, to) = (self.clone(), to.clone());
        self.scheduler.spawn(group, method, at, move || {
            world.serve(call, back.as_ref(), &to, &*service, batch);
        });
    }

    /// The called node's side of a connection.
    fn serve(
        self: &Arc<Self>,
        call: u64,
        back: Option<&Location>,
        to: &Location,
        service: &dyn Service,
        batch: Batch,
    ) {
        let mut broken = false;
        for (leg, request) in batch {
            let mut outcome = self.carry_out(call, to, service, &request);
            let weather = self.wires().weather.clone();
            if request.connection == Connection::Kept && self.chance(weather.reset) {
                broken = self.chance(500);
                if !broken {
                    outcome = self.carry_out(call, to, service, &request);
                }
            }
            if broken {
                outcome = Err(CallError::Broken("reset by peer".to_owned()));
            }
            if !request.oneway {
                self.send_back(call, (leg, request.method), to, back.cloned(), outcome);
            }
        }
    }

    fn carry_out(
        self: &Arc<Self>,
        number: u64,
        to: &Location,
        service: &dyn Service,
        request: &Request,
    ) -> Answer {
        let mut result = Vec::new();
        let call = Call {
            method: request.method.as_bytes(),
            arguments: &request.arguments,
            local: false,
            done: &|| (),
        };
        self.scheduler
            .trace(format_args!("#{number} {to} serves {}", request.method));
        let outcome = service.call(&call, &mut result);
        self.observe();
        let given = self.history().next_event();
        if let Some(open) = self.wires().calls.get_mut(&number) {
            open.given = given;
        }
        outcome.map(|()| result).map_err(CallError::Exception)
    }

    fn send_back(
        self: &Arc<Self>,
        call: u64,
        (leg, method): (usize, &'static str),
        from: &Location,
        back: Option<Location>,
        answer: Answer,
    ) {
        let world = self.clone();
        self.transmit(Some(from.clone()), back, method, move || {
            world.answer(call, leg, answer);
        });
    }

    fn answer(&self, call: u64, leg: usize, answer: Answer) {
        if let Err(why) = &answer {
            self.scheduler.trace(format_args!("#{call} fails: {why}"));
        }
        let complete = self.wires().answer(call, leg, answer);
        if let Some(ticket) = complete {
            self.scheduler.wake(ticket);
        }
    }

    /// The process is no more: who waits for it learns that its connection has ended.
    pub fn break_calls_to(self: &Arc<Self>, location: &Location, group: Group) {
        let waiting = self
            .wires()
            .unanswered(|_, leg| leg.taken_by == Some(group));
        for (call, leg, from) in waiting {
            let why = CallError::Broken("connection reset".to_owned());
            self.send_back(call, (leg, ""), location, from.location, Err(why));
        }
    }
}

fn name(location: &Option<Location>) -> &str {
    location
        .as_ref()
        .map_or("client", |location| location.name())
}

/// One process's way to the others.
pub struct SimNetwork {
    pub world: Arc<World>,
    pub origin: Origin,
    given: AtomicU64,
}

impl SimNetwork {
    pub fn new(world: Arc<World>, origin: Origin) -> Self {
        SimNetwork {
            world,
            origin,
            given: AtomicU64::new(0),
        }
    }

    /// The event at which the last answer was given that has come.
    pub fn given(&self) -> u64 {
        self.given.load(Ordering::Relaxed)
    }
}

/// Takes a call off the wires, also when its caller is unwound.
struct Closing<'a>(&'a World, u64);

impl Closing<'_> {
    fn close(&self) -> Option<Open> {
        self.0.wires().calls.remove(&self.1)
    }
}

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.close();
    }
}

impl Network for SimNetwork {
    fn call_all(&self, calls: &[(Location, Request)], limit: Duration) -> Vec<Answer> {
        let (world, scheduler) = (&self.world, &self.world.scheduler);
        if calls.is_empty() {
            return Vec::new();
        }
        if thread::panicking() {
            return vec![Err(CallError::Silent); calls.len()]; // a destructor of an ended activity
        }
        scheduler.check_alive();
        let until = scheduler.now() + limit;
        let ticket = scheduler.ticket();
        let call = world.wires().open(self.origin.clone(), calls, ticket);
        let closing = Closing(world, call);
        let mut batches: Vec<(&Location, Batch)> = Vec::new();
        for (leg, (to, request)) in calls.iter().enumerate() {
            match batches.iter_mut().find(|(known, _)| *known == to) {
                Some((_, batch)) => batch.push((leg, request.clone())),
                None => batches.push((to, vec![(leg, request.clone())])),
            }
        }
        for (to, batch) in batches {
            world.send(call, &self.origin, to, batch);
        }
        if world.wires().calls[&call].missing == 0 {
            scheduler.yield_now();
        } else {
            scheduler.wait(ticket, until);
        }
        let open = closing.close().expect("BUG: a call is open while it waits");
        self.given.store(open.given, Ordering::Relaxed);
        let answers = open.legs.into_iter().map(|leg| leg.answer);
        answers
            .map(|answer| answer.unwrap_or(Err(CallError::Silent)))
            .collect()
    }

    /// In runs of random length: what the caller does with an answer comes before the next calls are
    /// carried out, or behind.
    fn call_each(
        &self,
        calls: &[(Location, Request)],
        limit: Duration,
        take: &mut dyn FnMut(usize, Answer),
    ) {
        let mut place = 0;
        while place < calls.len() {
            let run = 1 + self.world.random.below(calls.len() - place);
            for answer in self.call_all(&calls[place..place + run], limit) {
                take(place, answer);
                place += 1;
            }
        }
    }

    fn forget(&self, location: &Location) {
        let mine = self.origin.group;
        let waiting = self
            .world
            .wires()
            .unanswered(|open, leg| open.from.group == mine && leg.to == *location);
        for (call, leg, _) in waiting {
            let why = CallError::Broken("given up".to_owned());
            self.world.answer(call, leg, Err(why));
        }
    }
}
