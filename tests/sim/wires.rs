//! The state of the simulated network: its links, the messages on them, and the callers that wait for answers.
//!
//! A link is directed: from one node to another. What a link may be: slow (late messages), narrow (so
//! many bytes a second), cut (nothing gets through), or deaf (questions get lost, answers to the other
//! end's own questions get through: packets to a node's port are dropped). A *trap* lies on a
//! link and waits for the n-th message, whatever it says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use thrifty_p2p::location::Location;
use thrifty_p2p::net::{Answer, Request};

use super::network::Origin;
use super::scheduler::{Group, Ticket};

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
    /// Requests sent together that are read, and served, in pieces.
    pub pieces: usize,
}

/// Messages below this slip between the pieces of great ones, as connections share a link.
const SMALL_BYTES: usize = 16 << 10;

#[derive(Default)]
pub struct Wires {
    pub weather: Weather,
    calls: BTreeMap<u64, Open>,
    calls_made: u64,
    /// Messages that a node has sent with questions of a method in them.
    sent: BTreeMap<(Location, &'static str), usize>,
    cuts: BTreeMap<(Location, Location), Cut>,
    /// Calls of these methods that other nodes make to this one get lost.
    hanging: BTreeMap<Location, &'static [&'static str]>,
    /// Messages to and from this node come no later than then.
    slow: Vec<(Location, Duration)>,
    rates: BTreeMap<Location, Rate>,
    traps: Vec<Trap>,
    /// What was sent on a cut link and not lost.
    held: Vec<Message>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Everything,
    Questions,
}

/// A node's connection to the network.
struct Rate {
    bytes_a_second: u64,
    /// When all that has been sent, or that comes, is through.
    sent: Duration,
    come: Duration,
}

struct Trap {
    from: Location,
    to: Location,
    /// Messages to let pass before.
    pass: usize,
    /// Messages to catch after that.
    catch: usize,
    fate: Fate,
}

/// What happens to a message that is caught.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Lost,
    /// By so much.
    Late(Duration),
}

/// One `call_all`, and the caller that waits for it.
pub struct Open {
    pub ticket: Ticket,
    pub from: Origin,
    pub legs: Vec<Leg>,
    transfers: Vec<Transfer>,
}

/// One call of it.
pub struct Leg {
    pub to: Location,
    /// The process that has taken it.
    pub taken_by: Option<Group>,
    pub answer: Option<Answer>,
    /// The event at which the other node began to serve it.
    pub began: u64,
}

/// Bytes on a narrow link: they move evenly, as connections share it.
#[derive(Clone)]
pub struct Transfer {
    link: (Location, Location),
    bytes: usize,
    begin: Duration,
    /// When the link is free for them.
    free: Duration,
    pub end: Duration,
}

impl Transfer {
    fn moved(&self, now: Duration) -> f64 {
        let whole = (self.end - self.begin).as_secs_f64();
        let part = now.saturating_sub(self.begin).as_secs_f64();
        let share = if whole > 0.0 {
            (part / whole).min(1.0)
        } else {
            1.0
        };
        self.bytes as f64 * share
    }
}

pub struct Message {
    pub from: Option<Location>,
    pub to: Option<Location>,
    pub method: &'static str,
    /// It begins a call; else it is an answer.
    pub question: bool,
    pub call: u64,
    pub bytes: usize,
    /// What it does on arrival. It must not wait.
    pub effect: Box<dyn FnOnce() + Send>,
}

impl Open {
    /// Bytes that have moved, there and back.
    pub fn moved(&self, now: Duration) -> f64 {
        self.transfers.iter().map(|sent| sent.moved(now)).sum()
    }
}

impl Wires {
    pub fn open(&mut self, from: Origin, calls: &[(Location, Request)], ticket: Ticket) -> u64 {
        self.calls_made += 1;
        let legs: Vec<_> = calls
            .iter()
            .map(|(to, _)| Leg {
                to: to.clone(),
                taken_by: None,
                answer: None,
                began: 0,
            })
            .collect();
        let open = Open {
            ticket,
            from,
            legs,
            transfers: Vec::new(),
        };
        self.calls.insert(self.calls_made, open);
        self.calls_made
    }

    /// A node sends a message with questions of that method in it.
    pub fn count(&mut self, from: &Location, method: &'static str) {
        *self.sent.entry((from.clone(), method)).or_default() += 1;
    }

    /// How many it has sent.
    pub fn sent(&self, from: &Location, method: &'static str) -> usize {
        self.sent.get(&(from.clone(), method)).copied().unwrap_or(0)
    }

    pub fn call(&mut self, call: u64) -> Option<&mut Open> {
        self.calls.get_mut(&call)
    }

    /// The caller waits no more: what is left of great messages is not sent.
    pub fn close(&mut self, call: u64, now: Duration) -> Option<Open> {
        let open = self.calls.remove(&call)?;
        for transfer in open.transfers.iter().filter(|transfer| transfer.end > now) {
            let left = transfer.end - transfer.free.max(now);
            let (from, to) = &transfer.link;
            if let Some(rate) = self.rates.get_mut(from) {
                rate.sent = rate.sent.saturating_sub(left);
            }
            if let Some(rate) = self.rates.get_mut(to) {
                rate.come = rate.come.saturating_sub(left);
            }
        }
        Some(open)
    }

    /// Whether this question's caller gave up before it was sent to its end.
    pub fn is_cut_short(&self, message: &Message) -> bool {
        message.question
            && message.bytes >= SMALL_BYTES
            && message.from.is_some()
            && !self.calls.contains_key(&message.call)
    }

    /// Notes an answer unless there is one, or the caller waits no more. The caller's ticket: it may wait for this one.
    pub fn answer(&mut self, call: u64, leg: usize, answer: Answer) -> Option<Ticket> {
        let open = self.calls.get_mut(&call)?;
        let slot = &mut open.legs[leg].answer;
        if slot.is_some() {
            return None;
        }
        *slot = Some(answer);
        Some(open.ticket)
    }

    /// The unanswered legs for which `of` holds: call, leg, caller.
    pub fn unanswered(&self, of: impl Fn(&Open, &Leg) -> bool) -> Vec<(u64, usize, Origin)> {
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

    pub fn is_cut(&self, message: &Message) -> bool {
        let (Some(from), Some(to)) = (&message.from, &message.to) else {
            return false;
        };
        let hanging = self.hanging.get(to);
        if message.question && hanging.is_some_and(|methods| methods.contains(&message.method)) {
            return true;
        }
        match self.cuts.get(&(from.clone(), to.clone())) {
            None => false,
            Some(Cut::Everything) => true,
            Some(Cut::Questions) => message.question,
        }
    }

    /// Nothing gets from one to the other, in this direction.
    pub fn cut(&mut self, from: &Location, to: &Location) {
        let link = (from.clone(), to.clone());
        self.cuts.insert(link, Cut::Everything);
    }

    /// In neither direction.
    pub fn cut_both(&mut self, one: &Location, other: &Location) {
        self.cut(one, other);
        self.cut(other, one);
    }

    /// The calls that one makes to the other get lost; what the other asks is answered.
    pub fn deafen(&mut self, from: &Location, to: &Location) {
        let link = (from.clone(), to.clone());
        self.cuts.insert(link, Cut::Questions);
    }

    /// As if what carries out these calls of other nodes hung, there: they get lost. It does all else.
    pub fn hang(&mut self, at: &Location, methods: &'static [&'static str]) {
        self.hanging.insert(at.clone(), methods);
    }

    /// Ends a cut of either kind; what was held on the way stays lost.
    pub fn join(&mut self, from: &Location, to: &Location) {
        self.cuts.remove(&(from.clone(), to.clone()));
    }

    /// Ends all cuts; the answer is what was held on the way.
    pub fn take_held(&mut self) -> Vec<Message> {
        self.cuts.clear();
        self.hanging.clear();
        std::mem::take(&mut self.held)
    }

    pub fn hold(&mut self, message: Message) {
        self.held.push(message);
    }

    /// The cut has lasted so long that what it has held back is not sent again any more.
    pub fn lose_held(&mut self) {
        self.held.clear();
    }

    pub fn is_whole(&self) -> bool {
        self.cuts.is_empty()
    }

    pub fn slow_down(&mut self, location: &Location, until: Duration) {
        self.slow.push((location.clone(), until));
    }

    /// How late a message may be for the sake of slow nodes.
    pub fn slowness(&mut self, message: &Message, now: Duration) -> Option<Duration> {
        self.slow.retain(|(_, until)| *until > now);
        let touched = |location: &Location| {
            message.from.as_ref() == Some(location) || message.to.as_ref() == Some(location)
        };
        let spells = self.slow.iter().filter(|(location, _)| touched(location));
        spells.map(|(_, until)| *until - now).max()
    }

    /// What a node sends to others and gets from them takes its time from now on.
    pub fn narrow(&mut self, location: &Location, bytes_a_second: u64) {
        let rate = Rate {
            bytes_a_second,
            sent: Duration::ZERO,
            come: Duration::ZERO,
        };
        self.rates.insert(location.clone(), rate);
    }

    /// Every node's connection is wide again.
    pub fn widen(&mut self) {
        self.rates.clear();
    }

    /// Puts a message on its link: when it is through, if it takes any time.
    pub fn transfer(&mut self, message: &Message, now: Duration) -> Option<Transfer> {
        let (Some(from), Some(to)) = (&message.from, &message.to) else {
            return None;
        };
        let rate = |at: &Location| self.rates.get(at).map(|rate| rate.bytes_a_second);
        let rate = rate(from).into_iter().chain(rate(to)).min()?;
        let takes = Duration::from_secs_f64(message.bytes as f64 / rate as f64);
        let mut begin = now;
        if message.bytes >= SMALL_BYTES {
            let sent = self.rates.get(from).map(|rate| rate.sent);
            let come = self.rates.get(to).map(|rate| rate.come);
            begin = begin.max(sent.max(come).unwrap_or_default());
            for (at, sends) in [(from, true), (to, false)] {
                if let Some(rate) = self.rates.get_mut(at) {
                    let through = if sends {
                        &mut rate.sent
                    } else {
                        &mut rate.come
                    };
                    *through = begin + takes;
                }
            }
        }
        let transfer = Transfer {
            link: (from.clone(), to.clone()),
            bytes: message.bytes,
            begin: now,
            free: begin,
            end: begin + takes,
        };
        if let Some(open) = self.calls.get_mut(&message.call) {
            open.transfers.push(transfer.clone());
        }
        Some(transfer)
    }

    /// Of the messages from one to the other, questions and answers, from now on: lets some pass, and
    /// catches so many after them.
    pub fn trap(&mut self, link: (&Location, &Location), pass: usize, catch: usize, fate: Fate) {
        self.traps.push(Trap {
            from: link.0.clone(),
            to: link.1.clone(),
            pass,
            catch,
            fate,
        });
    }

    pub fn fate(&mut self, message: &Message) -> Option<Fate> {
        let mut fate = None;
        for trap in &mut self.traps {
            if message.from.as_ref() != Some(&trap.from) || message.to.as_ref() != Some(&trap.to) {
                continue;
            }
            if trap.pass > 0 {
                trap.pass -= 1;
            } else {
                trap.catch -= 1;
                fate = Some(trap.fate);
            }
        }
        self.traps.retain(|trap| trap.catch > 0);
        fate
    }

    /// Takes all traps away.
    pub fn disarm(&mut self) {
        self.traps.clear();
    }

    /// Whether each of these nodes can call each other one.
    pub fn reach_each_other(&self, nodes: &[Location]) -> bool {
        let nodes: BTreeSet<_> = nodes.iter().collect();
        let among = |(from, to): &(Location, Location)| nodes.contains(from) && nodes.contains(to);
        !self.cuts.keys().any(among)
    }
}
