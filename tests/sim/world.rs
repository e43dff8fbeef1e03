//! The simulated world: processes at locations, the links between them, their clocks.
//!
//! A node is what [`Subject`]`::node` makes: it is called through its service, and an activity each
//! starts it, ticks it and runs its mover, as the program does. The world can crash, stop,
//! continue and restart it, and looks at its members and items from outside.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use thrifty_p2p::digest::{digest, mix};
use thrifty_p2p::location::Location;
use thrifty_p2p::locator::Errand;
use thrifty_p2p::net::{Clock, Environment, Random};
use thrifty_p2p::service::Service;

use super::clock::MachineClock;
use super::history::History;
use super::network::{Origin, SimNetwork};
use super::scheduler::{Group, Scheduler, Ticket, WORLD};
use super::store::BYTES_BUY;
pub use super::subject::{HUNG_UP, Item, Placement, SimNode, Subject, Way};
use super::wires::{Weather, Wires};

/// How often a node is ticked.
pub const TICK: Duration = Duration::from_millis(500);

/// Longer than any message is on its way.
const CLOCK_STANDS: Duration = Duration::from_secs(3);

#[derive(Debug, Clone)]
pub struct Options {
    pub weather: Weather,
    /// Every process's wall clock is off by up to this, either way.
    pub clocks_apart: Duration,
    /// So many bytes that have moved put a call's time limit off by a second; `None`: it is one for all.
    pub bytes_buy: Option<u64>,
    /// How long a mover rests unless it is woken, in microseconds.
    pub mover_rests: (usize, usize),
    /// Note when the world is stable. It costs a look at every node after every call.
    pub watch_stability: bool,
    /// More than that many turns are a failure.
    pub turns_max: u64,
    /// Print the trace as it is written.
    pub print: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            weather: Weather::default(),
            clocks_apart: Duration::from_secs(300),
            bytes_buy: BYTES_BUY,
            mover_rests: (50_000, 500_000),
            watch_stability: false,
            turns_max: 2_000_000,
            print: false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Starting,
    Up,
    Leaving,
}

#[derive(Clone)]
pub struct Process {
    pub group: Group,
    pub phase: Phase,
    pub stopped: bool,
    /// Calls reach it.
    listens: bool,
    pub node: Arc<dyn SimNode>,
    service: Arc<dyn Service>,
}

pub struct World {
    pub scheduler: Arc<Scheduler>,
    /// Decides all that is left to chance, except which activity runs next.
    pub random: Random,
    pub subject: Arc<dyn Subject>,
    options: Options,
    processes: Mutex<BTreeMap<Location, Process>>, // guards itself
    /// When the last run at a location ended.
    ended: Mutex<BTreeMap<Location, Duration>>, // guards itself
    clocks: Mutex<BTreeMap<Location, Arc<MachineClock>>>, // guards itself
    wires: Mutex<Wires>,                           // guards itself
    history: Mutex<History>,                       // guards itself
}

impl World {
    pub fn new(
        seed: u64,
        subject: Arc<dyn Subject>,
        options: Options,
        scheduler: Arc<Scheduler>,
    ) -> Arc<Self> {
        let mut wires = Wires::default();
        wires.weather = options.weather.clone();
        Arc::new(World {
            scheduler,
            random: Random::new(seed ^ 0x5eed),
            subject,
            options,
            processes: Mutex::default(),
            ended: Mutex::default(),
            clocks: Mutex::default(),
            wires: Mutex::new(wires),
            history: Mutex::default(),
        })
    }

    pub fn wires(&self) -> MutexGuard<'_, Wires> {
        self.wires.lock().expect("BUG: the network panicked")
    }

    pub fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().expect("BUG: the history panicked")
    }

    fn slots(&self) -> MutexGuard<'_, BTreeMap<Location, Process>> {
        self.processes.lock().expect("BUG: the world panicked")
    }

    pub fn chance(&self, per_mille: usize) -> bool {
        per_mille > 0 && self.random.below(1000) < per_mille
    }

    /// A time from `from` up to `to`, in microseconds.
    pub fn between(&self, from: usize, to: usize) -> Duration {
        Duration::from_micros((from + self.random.below((to - from).max(1))) as u64)
    }

    /// What a thread loses before it comes to do what it should.
    pub fn hesitation(&self) -> Duration {
        match self.random.below(100) {
            0..70 => Duration::ZERO,
            70..99 => self.between(1, 2_000),
            _ => self.between(2_000, 100_000),
        }
    }

    pub fn pick<'a, T>(&self, from: &'a [T]) -> Option<&'a T> {
        (!from.is_empty()).then(|| &from[self.random.below(from.len())])
    }

    /// Every process there is, by location.
    pub fn processes(&self) -> Vec<(Location, Process)> {
        let slots = self.slots();
        let all = slots.iter();
        all.map(|(location, process)| (location.clone(), process.clone()))
            .collect()
    }

    pub fn locations(&self) -> Vec<Location> {
        self.slots().keys().cloned().collect()
    }

    pub fn node(&self, location: &Location) -> Option<Arc<dyn SimNode>> {
        let slots = self.slots();
        slots.get(location).map(|process| process.node.clone())
    }

    pub fn process(&self, location: &Location) -> Option<(Group, Arc<dyn Service>)> {
        let slots = self.slots();
        let process = slots.get(location).filter(|process| process.listens)?;
        Some((process.group, process.service.clone()))
    }

    /// A client's way to the nodes.
    pub fn client(self: &Arc<Self>) -> SimNetwork {
        let origin = Origin {
            location: None,
            group: WORLD,
            clock: Arc::new(MachineClock::new(self.scheduler.clone())),
        };
        SimNetwork::new(self.clone(), origin)
    }

    /// An activity that is no node's.
    pub fn spawn(&self, name: &'static str, job: impl FnOnce() + Send + 'static) {
        let now = self.scheduler.now();
        self.scheduler.spawn(WORLD, name, now, job);
    }

    /// Starts a process: joins the network of the contact, or starts one.
    pub fn boot(self: &Arc<Self>, location: &Location, contact: Option<&Location>) {
        let way = contact.cloned().map_or(Way::Begin, Way::Join);
        let make = |environment| self.subject.node(location, environment, usize::MAX);
        self.boot_as(location, way, make);
    }

    pub fn boot_as(
        self: &Arc<Self>,
        location: &Location,
        way: Way,
        make: impl FnOnce(Environment) -> Arc<dyn SimNode>,
    ) {
        let group = self.scheduler.new_group();
        let clock = self.wind_clock(location);
        self.scheduler.trace(format_args!(
            "{location} boots as process {}: {way:?}, clock off by {} us",
            group.0,
            clock.ahead()
        ));
        let origin = Origin {
            location: Some(location.clone()),
            group,
            clock: clock.clone(),
        };
        let network = SimNetwork::new(self.clone(), origin);
        let (scheduler, me) = (self.scheduler.clone(), location.clone());
        let environment = Environment {
            network: Arc::new(network),
            clock: clock.clone(),
            random: Random::new(self.random.below(usize::MAX) as u64),
            secret: mix(digest(location.name().as_bytes()) ^ u64::from(group.0)),
            log: Box::new(move |_, line| scheduler.trace(format_args!("{me} says: {line}"))),
        };
        let node = make(environment);
        let process = Process {
            group,
            phase: Phase::Starting,
            stopped: false,
            listens: node.listens_at_once(),
            service: node.service(),
            node: node.clone(),
        };
        let before = self.slots().insert(location.clone(), process);
        assert!(before.is_none(), "BUG: {location} is taken");
        let (world, me) = (self.clone(), location.clone());
        let at = self.scheduler.now() + self.hesitation();
        self.scheduler.spawn(group, "start", at, move || {
            if node.start(&way) {
                world.set_phase(&me, Phase::Up);
                world.observe();
                world.tick_after(clock.now(), group, clock, node.clone());
                world.work_from_now_on(&me, group, &node);
            } else {
                world.scheduler.trace(format_args!("{me} gives up"));
                world.end(&me);
            }
        });
    }

    /// A location's clocks.
    pub fn clock(&self, location: &Location) -> Arc<MachineClock> {
        let mut clocks = self.clocks.lock().expect("BUG: the world panicked");
        let new = || Arc::new(MachineClock::new(self.scheduler.clone()));
        clocks.entry(location.clone()).or_insert_with(new).clone()
    }

    /// A clock may be set anew, but not between two runs that follow on each other at once, when messages
    /// of the first are still on their way; nor if somebody has set it.
    fn wind_clock(&self, location: &Location) -> Arc<MachineClock> {
        let apart = self.options.clocks_apart.as_micros() as usize;
        let anew = self.random.below(2 * apart + 1) as i64 - apart as i64;
        let clock = self.clock(location);
        clock.wake();
        let ended = self.ended().remove(location);
        if ended.is_none_or(|at| self.scheduler.now() >= at + CLOCK_STANDS) {
            clock.draw(anew);
        }
        clock
    }

    /// By how much bytes that have moved put a call's limit off.
    pub fn time_for(&self, bytes: f64) -> Duration {
        let buy = self.options.bytes_buy;
        buy.map_or(Duration::ZERO, |rate| {
            Duration::from_secs_f64(bytes / rate as f64)
        })
    }

    fn ended(&self) -> MutexGuard<'_, BTreeMap<Location, Duration>> {
        self.ended.lock().expect("BUG: the world panicked")
    }

    fn set_phase(&self, location: &Location, phase: Phase) {
        if let Some(process) = self.slots().get_mut(location) {
            process.phase = phase;
            process.listens |= phase == Phase::Up;
        }
        self.scheduler
            .trace(format_args!("{location} is {phase:?}"));
    }

    /// At an interval of the node's own clock, as the program does: a tick that takes long doesn't put
    /// the next one off.
    fn tick_after(
        self: &Arc<Self>,
        last: Duration,
        group: Group,
        clock: Arc<MachineClock>,
        node: Arc<dyn SimNode>,
    ) {
        let (world, tick) = (self.clone(), TICK.as_micros() as usize);
        let due = last + self.between(tick * 9 / 10, tick * 11 / 10);
        let at = self.scheduler.now() + due.saturating_sub(clock.now());
        self.scheduler.spawn(group, "tick", at, move || {
            if clock.now() < due {
                clock.sleep_until(due); // The machine was suspended meanwhile.
            }
            let started = clock.now();
            node.tick();
            world.observe();
            world.tick_after(started, group, clock, node);
        });
    }

    /// The mover, and the two threads that ask: each works at an interval, and as soon as it is woken.
    fn work_from_now_on(self: &Arc<Self>, me: &Location, group: Group, node: &Arc<dyn SimNode>) {
        let work = |node: &dyn SimNode| node.work();
        let ask = |node: &dyn SimNode| node.ask(false);
        let ask_silent = |node: &dyn SimNode| node.ask(true);
        let threads: [(Errand, &str, Job); 3] = [
            (Errand::Work, "mover", work),
            (Errand::Ask, "asker", ask),
            (Errand::AskSilent, "patient asker", ask_silent),
        ];
        let alarms = threads.map(|(errand, name, job)| {
            // It works at once when it begins.
            let alarm = Arc::new(Mutex::new(Alarm {
                rung: true,
                rests: None,
            }));
            self.repeat(me, group, node, name, alarm.clone(), job);
            (errand, alarm)
        });
        let scheduler = self.scheduler.clone();
        node.on_errand(Box::new(move |errand| {
            let alarm = alarms.iter().find(|(of, _)| *of == errand);
            let (_, alarm) = alarm.expect("BUG: an errand without a thread");
            let rests = {
                let mut alarm = lock_alarm(alarm);
                alarm.rung = true;
                alarm.rests.take()
            };
            if let Some(ticket) = rests {
                scheduler.wake(ticket);
            }
        }));
    }

    fn repeat(
        self: &Arc<Self>,
        me: &Location,
        group: Group,
        node: &Arc<dyn SimNode>,
        name: &'static str,
        alarm: Arc<Mutex<Alarm>>,
        job: Job,
    ) {
        let (world, me, node) = (self.clone(), me.clone(), node.clone());
        let now = self.scheduler.now();
        self.scheduler.spawn(group, name, now, move || {
            loop {
                world.rest(&alarm);
                job(&*node);
                if node.gives_up() {
                    world.scheduler.trace(format_args!("{me} gives up"));
                    world.end(&me);
                    world.observe();
                    return;
                }
                world.observe();
            }
        });
    }

    fn rest(&self, alarm: &Mutex<Alarm>) {
        let (shortest, longest) = self.options.mover_rests;
        let until = self.scheduler.now() + self.between(shortest, longest);
        let ticket = self.scheduler.ticket();
        let rung = {
            let mut alarm = lock_alarm(alarm);
            alarm.rests = (!alarm.rung).then_some(ticket);
            alarm.rung
        };
        if !rung {
            self.scheduler.wait(ticket, until);
        }
        *lock_alarm(alarm) = Alarm::default();
        let late = self.hesitation();
        self.scheduler.sleep(late);
    }

    /// The process ends as if killed.
    pub fn crash(self: &Arc<Self>, location: &Location) {
        self.scheduler.trace(format_args!("{location} crashes"));
        self.end(location);
        self.observe();
    }

    fn end(self: &Arc<Self>, location: &Location) {
        let process = self.slots().remove(location);
        if let Some(process) = process {
            let now = self.scheduler.now();
            self.ended().insert(location.clone(), now);
            self.scheduler.kill(process.group);
            self.break_calls_to(location, process.group);
        }
    }

    /// Nothing of the process runs until it is continued.
    pub fn stop(&self, location: &Location) {
        self.scheduler.trace(format_args!("{location} is stopped"));
        if let Some(process) = self.slots().get_mut(location) {
            process.stopped = true;
            self.scheduler.stop(process.group);
        }
    }

    /// Goes on, after a stop or a suspend.
    pub fn resume(&self, location: &Location) {
        self.clock(location).wake();
        self.scheduler
            .trace(format_args!("{location} is continued"));
        if let Some(process) = self.slots().get_mut(location) {
            process.stopped = false;
            self.scheduler.resume_group(process.group);
        }
    }

    /// The machine is suspended: nothing of it runs, and its monotonic clock stands still.
    pub fn suspend(&self, location: &Location) {
        self.clock(location).suspend();
        self.stop(location);
    }

    /// Asks the process to leave; `done` hears how it went, unless it is killed before.
    pub fn leave(self: &Arc<Self>, location: &Location, done: impl FnOnce(bool) + Send + 'static) {
        let Some(process) = self.slots().get(location).cloned() else {
            return;
        };
        self.set_phase(location, Phase::Leaving);
        self.observe();
        let (world, me, node) = (self.clone(), location.clone(), process.node);
        let now = self.scheduler.now();
        self.scheduler.spawn(process.group, "leave", now, move || {
            let complete = node.leave();
            world
                .scheduler
                .trace(format_args!("{me} has left, complete: {complete}"));
            world.end(&me);
            world.observe();
            done(complete);
        });
    }

    /// Notes whether the world is stable, if that is of interest.
    pub fn observe(&self) {
        if self.options.watch_stability {
            let stable = self.agreed().is_ok();
            if self.history().note_stability(stable) {
                self.scheduler.trace(format_args!("stable: {stable}"));
            }
        }
    }

    /// Lets go of all nodes: they hold the world.
    pub fn close(&self) {
        let all = std::mem::take(&mut *self.slots());
        drop(all);
    }
}

/// What a thread of a node does each time.
type Job = fn(&dyn SimNode);

/// How a thread is woken.
#[derive(Default)]
struct Alarm {
    /// It has been, since it began its work.
    rung: bool,
    rests: Option<Ticket>,
}

fn lock_alarm(alarm: &Mutex<Alarm>) -> MutexGuard<'_, Alarm> {
    alarm.lock().expect("BUG: an alarm panicked")
}
