//! A world of a few nodes and one key: time, messages, and all that can go wrong.
//!
//! Nothing here knows a rule of the core; those are in `node`.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::rc::Rc;
use std::time::Duration;

use thrifty_p2p::location::Location;
use thrifty_p2p::net::Random;

use super::node::{Data, Message, Node, Response};

/// A tick in milliseconds of the model's time.
pub const TICK: u64 = 1000;

pub type Job = Box<dyn FnOnce(&mut World)>;
pub type Then = Box<dyn FnOnce(&mut World, Outcome)>;
pub type Answer = Box<dyn FnOnce(&mut World, Response)>;

pub enum Outcome {
    Answer(Response),
    Refused,
    Silent,
}

/// A run of a node: one that is started again is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Run {
    pub place: usize,
    pub number: usize,
}

pub struct World {
    pub copies: usize,
    pub key: Vec<u8>,
    pub names: Vec<Location>,
    pub nodes: BTreeMap<usize, Node>,
    pub now: u64,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    jobs: BTreeMap<u64, Job>,
    numbers: u64,
    runs: usize,
    /// Requests from the first to the second don't arrive.
    pub cut: BTreeSet<(usize, usize)>,
    pub dice: Random,
    /// Every value that was acknowledged.
    pub acknowledged: Vec<Data>,
    pub values: u64,
    pub log: Vec<String>,
    pub broken: Option<String>,
    pub gets: usize,
    /// There has been a cut that was long enough for two sides to go on.
    pub two_sides: bool,
    /// Two sides may have gone on, and not all nodes have said since that all is safe.
    pub apart: bool,
    pub cut_until: u64,
    /// A node left though there was no other to take what it held.
    pub gave_up: bool,
    /// The calls that wait for an answer, and what follows it.
    calls: BTreeMap<u64, Then>,
}

impl World {
    pub fn new(seed: u64, copies: usize, count: usize) -> Self {
        let dice = Random::new(seed);
        let names = (0..count).map(|n| Location::new(&format!("n{n}"), 1).unwrap());
        World {
            copies,
            key: dice.below(1 << 30).to_string().into_bytes(),
            names: names.collect(),
            nodes: BTreeMap::new(),
            now: 0,
            queue: BinaryHeap::new(),
            jobs: BTreeMap::new(),
            numbers: 0,
            runs: 0,
            cut: BTreeSet::new(),
            dice,
            acknowledged: Vec::new(),
            values: 0,
            log: Vec::new(),
            broken: None,
            gets: 0,
            two_sides: false,
            apart: false,
            cut_until: 0,
            gave_up: false,
            calls: BTreeMap::new(),
        }
    }

    pub fn time(&self) -> Duration {
        Duration::from_millis(self.now)
    }

    pub fn say(&mut self, line: impl AsRef<str>) {
        let tick = TICK as f64;
        let line = format!("{:.2} {}", self.now as f64 / tick, line.as_ref());
        self.log.push(line);
    }

    pub fn fail(&mut self, what: String) {
        if self.broken.is_none() {
            self.say(format!("BROKEN: {what}"));
            self.broken = Some(what);
        }
    }

    pub fn chance(&self, percent: usize) -> bool {
        self.dice.below(100) < percent
    }

    pub fn pick<T: Copy>(&self, from: &[T]) -> T {
        from[self.dice.below(from.len())]
    }

    /// Up to that many ticks.
    pub fn up_to(&self, ticks: u64) -> u64 {
        self.dice.below((ticks * TICK) as usize) as u64
    }

    pub fn after(&mut self, delay: u64, job: impl FnOnce(&mut World) + 'static) {
        self.numbers += 1;
        self.queue.push(Reverse((self.now + delay, self.numbers)));
        self.jobs.insert(self.numbers, Box::new(job));
    }

    pub fn run(&mut self, ticks: f64) {
        let end = self.now + (ticks * TICK as f64) as u64;
        while self.broken.is_none()
            && let Some(&Reverse((at, number))) = self.queue.peek()
            && at <= end
        {
            self.queue.pop();
            self.now = at;
            let job = self.jobs.remove(&number).expect("BUG: a job twice");
            job(self);
        }
        self.now = end;
    }

    pub fn alive(&self, run: Run) -> bool {
        let node = self.nodes.get(&run.place);
        node.is_some_and(|node| node.run == run)
    }

    /// When a node goes on, if it hangs.
    pub fn hangs(&self, place: usize) -> Option<u64> {
        let node = self.nodes.get(&place)?;
        (node.hung_until > self.now).then(|| node.hung_until - self.now)
    }

    pub fn place(&self, name: &Location) -> usize {
        let place = self.names.iter().position(|known| known == name);
        place.expect("BUG: a node of another world")
    }

    pub fn start(&mut self, place: usize, begins: bool) {
        self.runs += 1;
        let run = Run {
            place,
            number: self.runs,
        };
        let node = Node::new(self, run);
        self.nodes.insert(place, node);
        self.say(format!("n{place} starts"));
        let contacts = if begins { vec![] } else { self.names.clone() };
        self.act(run, |node, _| node.membership.start(&contacts, begins));
        let phase = self.up_to(1);
        self.after(phase, move |world| world.tick(run));
    }

    pub fn kill(&mut self, place: usize, why: &str) {
        self.nodes.remove(&place);
        self.say(format!("n{place} {why}"));
    }

    fn tick(&mut self, run: Run) {
        if !self.alive(run) {
            return;
        }
        if let Some(rest) = self.hangs(run.place) {
            self.after(rest + 10, move |world| world.tick(run));
            return;
        }
        self.after(TICK, move |world| world.tick(run));
        self.act(run, |node, now| node.membership.tick(now));
        self.look_after(run);
    }

    /// Mostly well below a tick, as `--tick` is to be chosen; sometimes a few.
    fn delay(&self) -> u64 {
        match self.dice.below(100) {
            0..50 => 20,
            50..70 => 50,
            70..85 => 100,
            85..96 => 300,
            96..99 => self.up_to(1),
            _ => self.up_to(3),
        }
    }

    /// One of several threads that wait for a stopped process goes on.
    fn late(&self, rest: u64) -> u64 {
        rest + self.dice.below(300) as u64
    }

    /// Calls a node; `then` gets the outcome once, unless the caller's run has ended by then.
    pub fn call(&mut self, from: Run, to: usize, message: Message, limit: u64, then: Then) {
        let id = {
            self.numbers += 1;
            self.numbers
        };
        self.calls.insert(id, then);
        self.after(limit * TICK, move |world| {
            world.finish(from, id, Outcome::Silent);
        });
        if self.cut.contains(&(from.place, to)) {
            return;
        }
        let delay = self.delay();
        self.after(delay, move |world| world.arrive(from, to, message, id));
    }

    /// Calls several nodes; `then` gets all outcomes, in the order of the calls.
    pub fn call_all(
        &mut self,
        from: Run,
        calls: Vec<(usize, Message)>,
        limit: u64,
        then: impl FnOnce(&mut World, Vec<Outcome>) + 'static,
    ) {
        if calls.is_empty() {
            return then(self, Vec::new());
        }
        let outcomes: Vec<Option<Outcome>> = calls.iter().map(|_| None).collect();
        let gathered = Rc::new(RefCell::new((outcomes, Some(then))));
        for (index, (to, message)) in calls.into_iter().enumerate() {
            let gathered = gathered.clone();
            let each: Then = Box::new(move |world, outcome| {
                let mut all = gathered.borrow_mut();
                all.0[index] = Some(outcome);
                if all.0.iter().all(Option::is_some) {
                    let outcomes = all.0.drain(..).flatten().collect();
                    let then = all.1.take().expect("BUG: two ends");
                    drop(all);
                    then(world, outcomes);
                }
            });
            self.call(from, to, message, limit, each);
        }
    }

    fn arrive(&mut self, from: Run, to: usize, message: Message, id: u64) {
        if self.cut.contains(&(from.place, to)) {
            return;
        }
        if !self.nodes.contains_key(&to) {
            self.after(10, move |world| world.finish(from, id, Outcome::Refused));
            return;
        }
        if let Some(rest) = self.hangs(to) {
            let rest = self.late(rest);
            self.after(rest, move |world| world.arrive(from, to, message, id));
            return;
        }
        let answer: Answer = Box::new(move |world, response| {
            // A cut both ways loses answers as well; a deaf node's questions are answered.
            let both = move |world: &World| {
                world.cut.contains(&(from.place, to)) && world.cut.contains(&(to, from.place))
            };
            if both(world) {
                return;
            }
            let delay = world.delay();
            world.after(delay, move |world| {
                if !both(world) {
                    world.finish(from, id, Outcome::Answer(response));
                }
            });
        });
        self.serve(to, message, answer);
    }

    fn finish(&mut self, from: Run, id: u64, outcome: Outcome) {
        if !self.calls.contains_key(&id) {
            return;
        }
        if !self.alive(from) {
            self.calls.remove(&id);
            return;
        }
        if let Some(rest) = self.hangs(from.place) {
            let rest = self.late(rest);
            self.after(rest, move |world| world.finish(from, id, outcome));
            return;
        }
        let then = self.calls.remove(&id).expect("BUG: looked up above");
        then(self, outcome);
    }
}
