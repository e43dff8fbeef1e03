//! The network of the simulated world: carries calls between nodes that are all in this process. The
//! links' state is in `wires`.
//!
//! A call is a message there, an activity of the called node, and a message back; the caller waits
//! for at most its limit, and what it no longer waits for is carried out all the same. What can
//! happen to a message, and how the caller sees it:
//!
//! * late: random, and more within a slow spell of a node. Order between connections isn't kept;
//!   requests of one `call_all` to one node are carried out one behind the other;
//! * no process there: refused, or broken if there was one when it was sent;
//! * the called node dies: broken. It is stopped: silent, and carried out when it is continued;
//! * lost, or on a link that is cut: silent. What was sent on a cut link is lost or comes after
//!   the cut is healed, as TCP sends again;
//! * on a narrow link: its bytes take time, behind those that are on their way there already. Whether
//!   bytes that move put a caller's limit off is `Options::bytes_buy`;
//! * a connection ends: broken, or carried out twice, as a network makes most calls once again afresh;
//! * local trouble: not sent.
//!
//! What a dying node has sent still arrives.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use thrifty_p2p::location::Location;
use thrifty_p2p::net::{Answer, CallError, Clock, Connection, Event, Network, Request};
use thrifty_p2p::service::{Answers, Call, Service};
use thrifty_p2p::thrift::Exception;

use super::clock::MachineClock;
use super::scheduler::Group;
use super::wires::{Fate, Message};
use super::world::{HUNG_UP, World};

/// The most that a late message takes, in microseconds: there and back less than the limit for an
/// answer.
const LATE_MAX: usize = 240_000;

/// How often one that waits for an answer does something else meanwhile.
const LOOK: Duration = Duration::from_millis(200);

/// Of a message, besides its arguments or its result and the method's name.
const HEADER_BYTES: usize = 12;

/// The caller. Clients have no location; nothing is ever cut off from them.
#[derive(Clone)]
pub struct Origin {
    pub location: Option<Location>,
    pub group: Group,
    /// By which it waits.
    pub clock: Arc<MachineClock>,
}

/// The requests of one `call_all` to one node.
type Batch = Vec<(usize, Request)>;

/// The answers to a batch.
struct Outcomes<'a> {
    world: &'a World,
    answers: Vec<Answer>,
}

impl Answers for Outcomes<'_> {
    fn add(&mut self, write: &mut dyn FnMut(&mut Vec<u8>) -> Result<(), Exception>) {
        let mut result = Vec::new();
        let outcome = write(&mut result).map(|()| result);
        let outcome = outcome.map_err(|exception| match exception.kind {
            HUNG_UP => CallError::Broken(exception.message),
            _ => CallError::Exception(exception),
        });
        self.world.observe();
        self.answers.push(outcome);
    }
}

fn is_once(request: &Request) -> bool {
    request.connection == Connection::Once
}

impl World {
    /// Sends a message on its way.
    fn transmit(self: &Arc<Self>, message: Message) {
        let (from, to) = (&message.from, &message.to);
        let among_nodes = from.is_some() && to.is_some();
        let lost = self.wires().weather.lost;
        let fate = self.wires().fate(&message);
        if fate == Some(Fate::Lost) || (among_nodes && self.chance(lost)) {
            self.scheduler
                .trace(format_args!("  lost: {} -> {}", name(from), name(to)));
            return;
        }
        let Some(message) = self.unless_cut(message) else {
            return;
        };
        let now = self.scheduler.now();
        let mut at = now + self.latency(&message);
        if let Some(Fate::Late(time)) = fate {
            let (from, to) = (name(&message.from), name(&message.to));
            self.scheduler
                .trace(format_args!("  held back for {time:?}: {from} -> {to}"));
            at += time;
        }
        let transfer = self.wires().transfer(&message, now);
        let narrow = transfer.is_some();
        if let Some(transfer) = transfer {
            at += transfer.end - now;
        }
        let world = self.clone();
        self.scheduler.act_at(at, move || {
            if narrow && world.wires().is_cut_short(&message) {
                return;
            }
            if let Some(message) = world.unless_cut(message) {
                (message.effect)();
            }
        });
    }

    /// Gives the message back if its link is not cut; else loses it, or keeps it until healed.
    fn unless_cut(&self, message: Message) -> Option<Message> {
        let cut = self.wires().is_cut(&message);
        if !cut {
            return Some(message);
        }
        if self.chance(500) {
            self.wires().hold(message);
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
        let slow = self.wires().slowness(message, self.scheduler.now());
        match slow {
            Some(most) => usual.max(self.between(0, most.as_micros() as usize + 1)),
            None => usual,
        }
    }

    /// Ends every cut; what was held on the way goes on.
    pub fn heal(self: &Arc<Self>) {
        let held = self.wires().take_held();
        self.scheduler.trace(format_args!("healed"));
        for message in held {
            // Sent again when its time to wait, which has doubled again and again, is over.
            let at = self.scheduler.now() + self.between(0, 2_000_000);
            let world = self.clone();
            self.scheduler.act_at(at, move || world.transmit(message));
        }
    }

    fn send(self: &Arc<Self>, call: u64, from: &Origin, to: &Location, batch: Batch) {
        let methods = batch.iter().map(|(_, request)| request.method);
        let methods = methods.collect::<Vec<_>>().join(",");
        let who = name(&from.location);
        self.scheduler
            .trace(format_args!("#{call} {who} -> {to}: {methods}"));
        if let Some(from) = &from.location {
            let methods: BTreeSet<_> = batch.iter().map(|(_, one)| one.method).collect();
            let mut wires = self.wires();
            methods
                .into_iter()
                .for_each(|method| wires.count(from, method));
        }
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
        let sizes = batch
            .iter()
            .map(|(_, request)| HEADER_BYTES + request.method.len() + request.arguments.len());
        self.transmit(Message {
            from: from.location.clone(),
            to: Some(to.clone()),
            method: batch[0].1.method,
            question: true,
            call,
            bytes: sizes.sum(),
            effect: Box::new(move || world.arrive(call, back, &there, sent_to, batch)),
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
        if let Some(open) = self.wires().call(call) {
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
        let late = self.hesitation();
        let in_order = self.node(to).is_some_and(|node| node.serves_in_order());
        let at = self.scheduler.now() + if in_order { Duration::ZERO } else { late };
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
        let weather = self.wires().weather.clone();
        let mut broken = false;
        let mut rest = &batch[..];
        while !rest.is_empty() {
            // What comes in one read is served together.
            let piece = match self.chance(weather.pieces) {
                true => 1 + self.random.below(rest.len()),
                false => rest.len(),
            };
            let (some, behind) = rest.split_at(piece);
            rest = behind;
            let mut outcomes = self.carry_out(call, to, service, some);
            let kept = some[0].1.connection != Connection::Single;
            if kept && !broken && self.chance(weather.reset * some.len()) {
                broken = self.chance(500) || some.iter().any(|(_, request)| is_once(request));
                if !broken {
                    outcomes = self.carry_out(call, to, service, some);
                }
            }
            for ((leg, request), outcome) in some.iter().zip(outcomes) {
                let outcome = match broken {
                    true => Err(CallError::Broken("reset by peer".to_owned())),
                    false => outcome,
                };
                if !request.oneway {
                    let leg = (*leg, request.method);
                    self.send_back(call, leg, to, back.cloned(), outcome);
                }
            }
        }
    }

    fn carry_out(
        self: &Arc<Self>,
        number: u64,
        to: &Location,
        service: &dyn Service,
        requests: &[(usize, Request)],
    ) -> Vec<Answer> {
        let methods = requests.iter().map(|(_, request)| request.method);
        let methods = methods.collect::<Vec<_>>().join(",");
        self.scheduler
            .trace(format_args!("#{number} {to} serves {methods}"));
        let calls = requests.iter().map(|(_, request)| Call {
            method: request.method.as_bytes(),
            arguments: &request.arguments,
            local: false,
            done: &|| (),
        });
        let calls: Vec<_> = calls.collect();
        let mut outcomes = Outcomes {
            world: self,
            answers: Vec::new(),
        };
        self.observe();
        let began = self.history().next_event();
        service.serve(&calls, &mut outcomes);
        if let Some(open) = self.wires().call(number) {
            for (leg, _) in requests {
                open.legs[*leg].began = began;
            }
        }
        outcomes.answers
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
        let bytes = answer.as_ref().map_or(0, Vec::len);
        self.transmit(Message {
            from: Some(from.clone()),
            to: back,
            method,
            question: false,
            call,
            bytes: HEADER_BYTES + method.len() + bytes,
            effect: Box::new(move || world.answer(call, leg, answer)),
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

    /// The process is no more: its callers learn that their connections have ended.
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
    began: AtomicU64,
}

impl SimNetwork {
    pub fn new(world: Arc<World>, origin: Origin) -> Self {
        SimNetwork {
            world,
            origin,
            began: AtomicU64::new(0),
        }
    }

    /// The event at which a node began to serve the request whose answer has come last.
    pub fn began(&self) -> u64 {
        self.began.load(Ordering::Relaxed)
    }
}

/// Takes a call off the wires, also when its caller is unwound.
struct Closing<'a>(&'a World, u64);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        let now = self.0.scheduler.now();
        self.0.wires().close(self.1, now);
    }
}

impl SimNetwork {
    /// Sends everything.
    fn send(&self, calls: &[(Location, Request)]) -> Closing<'_> {
        let (world, scheduler) = (&self.world, &self.world.scheduler);
        scheduler.check_alive();
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
        closing
    }

    /// Waits for that answer, until `limit` has passed since then, in which so much had moved. `waits` is called every
    /// [`LOOK`] until it is there.
    fn wait(
        &self,
        (call, leg): (u64, usize),
        limit: Duration,
        since: &mut (Duration, f64),
        waits: &mut dyn FnMut(),
    ) -> Answer {
        let (world, scheduler) = (&self.world, &self.world.scheduler);
        loop {
            let now = scheduler.now();
            let ticket = scheduler.ticket();
            let (answer, moved) = {
                let mut wires = world.wires();
                let open = wires
                    .call(call)
                    .expect("BUG: a call is open while it waits");
                open.ticket = ticket;
                self.began.store(open.legs[leg].began, Ordering::Relaxed);
                (open.legs[leg].answer.clone(), open.moved(now) - since.1)
            };
            let left = since.0 + limit + world.time_for(moved);
            let left = left.saturating_sub(self.origin.clock.now());
            match answer {
                Some(answer) => return answer,
                None if left.is_zero() => return Err(CallError::Silent),
                None => scheduler.wait(ticket, now + left.min(LOOK)),
            }
            if scheduler.now() >= now + LOOK {
                let waiting = self.origin.clock.now();
                waits();
                since.0 += self.origin.clock.now() - waiting;
            }
        }
    }

    /// Sends everything, and hands out the answers in order. `anew`: limits begin anew with each answer.
    fn exchange(
        &self,
        calls: &[(Location, Request)],
        limit: Duration,
        anew: bool,
        take: &mut dyn FnMut(Event),
    ) {
        if calls.is_empty() {
            return;
        }
        if thread::panicking() {
            // A destructor of an ended activity.
            let silent = |place| Event::Answer(place, Err(CallError::Silent));
            return (0..calls.len()).map(silent).for_each(take);
        }
        let (clock, scheduler) = (&self.origin.clock, &self.world.scheduler);
        let start = clock.now();
        let closing = self.send(calls);
        let mut since = (start, 0.0);
        for (place, (_, request)) in calls.iter().enumerate() {
            let limit = request.limit.unwrap_or(limit);
            let leg = (closing.1, place);
            let answer = self.wait(leg, limit, &mut since, &mut || take(Event::Waiting));
            if anew && matches!(answer, Ok(_) | Err(CallError::Exception(_))) {
                let mut wires = self.world.wires();
                let open = wires.call(closing.1);
                let moved = open.map_or(0.0, |open| open.moved(scheduler.now()));
                since = (clock.now(), moved);
            }
            // What the caller takes for an answer is none of the peers' time.
            let taking = clock.now();
            take(Event::Answer(place, answer));
            since.0 += clock.now() - taking;
        }
        if clock.now() == start {
            scheduler.yield_now();
        }
    }
}

impl Network for SimNetwork {
    fn call_all(&self, calls: &[(Location, Request)], limit: Duration) -> Vec<Answer> {
        let mut answers = Vec::with_capacity(calls.len());
        self.exchange(calls, limit, false, &mut |event| {
            if let Event::Answer(_, answer) = event {
                answers.push(answer);
            }
        });
        answers
    }

    fn call_each(
        &self,
        calls: &[(Location, Request)],
        limit: Duration,
        take: &mut dyn FnMut(Event),
    ) {
        self.exchange(calls, limit, true, take);
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
