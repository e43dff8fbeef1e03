//! One process that plays a whole network: many activities, exactly one of which runs.
//!
//! An activity has a stack of its own and gives its turn away at each point where it waits; a seeded generator picks
//! the next one. Time is virtual: when no activity can run, it jumps to the next moment at which one can. So a schedule
//! depends on its seed alone, and a failure can be looked at as often as one likes.
//!
//! * Activities belong to groups (a process each). A group can be stopped, continued and killed. A
//!   killed group's activities are unwound at the point where they wait, and never run again.
//! * Code that runs here may use a Mutex as long as no guard lives across a point where it waits. Code that breaks
//!   this, or blocks in any other way, hangs the schedule; a watchdog says so.
//! * It is a failure if no activity can run and none waits for a time; if there are too many turns; and if one panics.
//! * When the first activity ends, all others are unwound; then the schedule is over.

use std::any::Any;
use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::fmt::{self, Write as _};
use std::mem::take;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use thrifty_p2p::net::Random;

use super::fiber::{Fiber, Stacks, suspend};

/// If no turn begins for so long in real time, a schedule counts as hanging.
const HANG: Duration = Duration::from_secs(60);

/// Trace lines that a failure shows.
const TRACE_LINES_MAX: usize = 300;

/// The process that activities belong to. Group 0 is the world's own and is never stopped or killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group(pub u32);

pub const WORLD: Group = Group(0);

type Job = Box<dyn FnOnce() + Send>;

/// The right to wake one activity from one wait.
#[derive(Debug, Clone, Copy)]
pub struct Ticket {
    activity: usize,
    wait: u64,
}

/// The payload of the unwinding that ends an activity.
struct Ended;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Status {
    Free,
    Runnable,
    Running,
    Waiting,
    /// Runnable, but its group is stopped.
    Held,
}

struct Activity {
    name: &'static str,
    group: Group,
    status: Status,
    /// What it waits for: the number of a [`Ticket`].
    wait: u64,
    /// Not yet begun.
    job: Option<Job>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Life {
    Runs,
    Stopped,
    Dead,
}

enum Due {
    Wake(usize),
    /// To be done by the activity that has the turn; doesn't wait.
    Act(Job),
}

struct Timer {
    at: Duration,
    sequence: u64,
    due: Due,
}

impl PartialEq for Timer {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Timer {}

impl PartialOrd for Timer {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timer {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

struct State {
    now: Duration,
    activities: Vec<Activity>,
    free: Vec<usize>,
    runnable: Vec<usize>,
    timers: BinaryHeap<Reverse<Timer>>,
    groups: BTreeMap<Group, Life>,
    groups_made: u32,
    sequence: u64,
    turns: u64,
    ending: bool,
    finished: bool,
    failure: Option<String>,
    trace: Trace,
}

struct Trace {
    hash: u64,
    lines: VecDeque<String>,
    print: bool,
}

impl Trace {
    fn note(&mut self, now: Duration, line: fmt::Arguments<'_>) {
        let mut text = if self.lines.len() < TRACE_LINES_MAX {
            String::new()
        } else {
            self.lines.pop_front().unwrap_or_default()
        };
        text.clear();
        write!(text, "{:>12.6} {line}", now.as_secs_f64()).expect("a String takes everything");
        for byte in text.as_bytes() {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        if self.print {
            eprintln!("{text}");
        }
        self.lines.push_back(text);
    }
}

thread_local! {
    /// The activity that runs on this thread.
    static CURRENT: Cell<Option<usize>> = const { Cell::new(None) };
}

/// What a schedule leaves behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub failure: Option<String>,
    pub trace_hash: u64,
    /// The last lines.
    pub trace: Vec<String>,
    pub turns: u64,
    pub virtual_time: Duration,
}

pub struct Scheduler {
    turns_max: u64,
    /// Decides which activity is next, and nothing else.
    random: Random,
    state: Mutex<State>, // guards everything that changes; never held while an activity's code runs
    over: Condvar,
}

impl Scheduler {
    pub fn new(seed: u64, turns_max: u64, print: bool) -> Arc<Self> {
        Arc::new(Scheduler {
            turns_max,
            random: Random::new(seed),
            state: Mutex::new(State {
                now: Duration::ZERO,
                activities: Vec::new(),
                free: Vec::new(),
                runnable: Vec::new(),
                timers: BinaryHeap::new(),
                groups: BTreeMap::new(),
                groups_made: 0,
                sequence: 0,
                turns: 0,
                ending: false,
                finished: false,
                failure: None,
                trace: Trace {
                    hash: 0xcbf2_9ce4_8422_2325,
                    lines: VecDeque::new(),
                    print,
                },
            }),
            over: Condvar::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("BUG: the scheduler panicked")
    }

    /// Runs `first` and all that it spawns, until `first` ends or something fails.
    pub fn run(self: &Arc<Self>, first: impl FnOnce() + Send + 'static) -> Report {
        let scheduler = self.clone();
        self.spawn(WORLD, "main", Duration::ZERO, move || {
            first();
            scheduler.state().ending = true;
        });
        let scheduler = self.clone();
        let lane = thread::Builder::new().name("schedule".into());
        let lane = lane.spawn(move || scheduler.pass_turns());
        let lane = lane.expect("a thread for a schedule");
        let over = self.await_end();
        if over {
            lane.join().expect("BUG: the scheduler panicked");
        }
        // What never ran holds the world, which holds this: the circle is cut here.
        let (mut state, left) = {
            let mut state = self.state();
            let left = over.then(|| (take(&mut state.activities), take(&mut state.timers)));
            (state, left)
        };
        let report = Report {
            failure: state.failure.take(),
            trace_hash: state.trace.hash,
            trace: take(&mut state.trace.lines).into(),
            turns: state.turns,
            virtual_time: state.now,
        };
        drop(state);
        drop(left);
        report
    }

    /// `false`: it hangs.
    fn await_end(&self) -> bool {
        let mut state = self.state();
        while !state.finished {
            let turns = state.turns;
            let waited = self.over.wait_timeout(state, HANG);
            let (again, timeout) = waited.expect("BUG: the scheduler panicked");
            state = again;
            if timeout.timed_out() && state.turns == turns && !state.finished {
                let running = |a: &&Activity| a.status == Status::Running;
                let who = state.activities.iter().find(running).map(|a| a.name);
                state.failure = Some(format!(
                    "hangs in {who:?}: it blocks outside the scheduler; is a lock held across a call?"
                ));
                return false;
            }
        }
        true
    }

    pub fn now(&self) -> Duration {
        self.state().now
    }

    /// Adds a line to the trace.
    pub fn trace(&self, line: fmt::Arguments<'_>) {
        let mut state = self.state();
        let now = state.now;
        state.trace.note(now, line);
    }

    /// Ends the schedule as a failure, and the activity that says so.
    pub fn fail(&self, failure: String) -> ! {
        self.state().fail(failure);
        resume_unwind(Box::new(Ended))
    }

    /// A new activity, which begins at `at`.
    pub fn spawn(
        &self,
        group: Group,
        name: &'static str,
        at: Duration,
        job: impl FnOnce() + Send + 'static,
    ) {
        let mut state = self.state();
        let wait = state.next_sequence();
        let activity = Activity {
            name,
            group,
            status: Status::Waiting,
            wait,
            job: Some(Box::new(job)),
        };
        let id = match state.free.pop() {
            Some(id) => {
                state.activities[id] = activity;
                id
            }
            None => {
                state.activities.push(activity);
                state.activities.len() - 1
            }
        };
        state.set_timer(at, wait, Due::Wake(id));
    }

    /// Something short to be done at `at`, by any activity; it must not wait.
    pub fn act_at(&self, at: Duration, act: impl FnOnce() + Send + 'static) {
        let mut state = self.state();
        let sequence = state.next_sequence();
        state.set_timer(at, sequence, Due::Act(Box::new(act)));
    }

    /// The right to wake the running activity from its next wait.
    pub fn ticket(&self) -> Ticket {
        let activity = CURRENT.get().expect("BUG: not within an activity");
        let mut state = self.state();
        let wait = state.next_sequence();
        state.activities[activity].wait = wait;
        Ticket { activity, wait }
    }

    /// Waits until woken by the ticket, or until `until`.
    pub fn wait(&self, ticket: Ticket, until: Duration) {
        if thread::panicking() {
            return; // being unwound: a destructor that calls somebody gets no answer
        }
        {
            let mut state = self.state();
            let until = until.max(state.now);
            state.set_timer(until, ticket.wait, Due::Wake(ticket.activity));
            state.activities[ticket.activity].status = Status::Waiting;
        }
        self.switch(ticket.activity);
    }

    /// Waits until `until`; at least gives the turn away.
    pub fn sleep_until(&self, until: Duration) {
        let ticket = self.ticket();
        self.wait(ticket, until);
    }

    pub fn sleep(&self, time: Duration) {
        let until = self.now() + time;
        self.sleep_until(until);
    }

    /// Gives the turn away: all activities that can run now may run first.
    pub fn yield_now(&self) {
        self.sleep(Duration::ZERO);
    }

    /// Without effect if the wait is over.
    pub fn wake(&self, ticket: Ticket) {
        self.state().wake(ticket.activity, ticket.wait);
    }

    pub fn new_group(&self) -> Group {
        let mut state = self.state();
        state.groups_made += 1;
        let group = Group(state.groups_made);
        state.groups.insert(group, Life::Runs);
        group
    }

    /// No activity of the group runs until it is continued.
    pub fn stop(&self, group: Group) {
        let mut state = self.state();
        if state.life(group) == Life::Runs {
            state.groups.insert(group, Life::Stopped);
        }
    }

    pub fn resume_group(&self, group: Group) {
        let mut state = self.state();
        if state.life(group) == Life::Stopped {
            state.groups.insert(group, Life::Runs);
            state.release(group, Status::Held);
        }
    }

    /// Ends all activities of the group at the point where they wait; the caller too, if it belongs to it, at its next
    /// one.
    pub fn kill(&self, group: Group) {
        let mut state = self.state();
        state.groups.insert(group, Life::Dead);
        state.release(group, Status::Held);
        state.release(group, Status::Waiting);
    }

    /// Ends the running activity if its group is dead.
    pub fn check_alive(&self) {
        let Some(id) = CURRENT.get() else { return };
        let dead = {
            let state = self.state();
            state.ending || state.life(state.activities[id].group) == Life::Dead
        };
        if dead && !thread::panicking() {
            resume_unwind(Box::new(Ended));
        }
    }

    /// Passes the turn on from `from`, which has said what it waits for; comes back with it.
    fn switch(&self, from: usize) {
        let next = self.choose().expect("BUG: an activity that waits is there");
        if next != from {
            suspend(next);
            CURRENT.set(Some(from));
        }
        self.check_alive();
    }

    /// The activity that runs next. `None`: none is left.
    fn choose(&self) -> Option<usize> {
        loop {
            let mut state = self.state();
            if state.ending {
                let begun = |a: &Activity| a.status != Status::Free && a.job.is_none();
                let next = state.activities.iter().position(begun);
                if let Some(id) = next {
                    state.activities[id].status = Status::Running;
                }
                return next;
            }
            if let Some(act) = state.fire_due() {
                drop(state);
                act();
                continue;
            }
            if state.runnable.is_empty() {
                if !state.jump() {
                    state.fail("deadlock: nobody can run and nothing is waited for".to_owned());
                }
                continue;
            }
            let place = self.random.below(state.runnable.len());
            let id = state.runnable.swap_remove(place);
            match state.life(state.activities[id].group) {
                Life::Stopped => state.activities[id].status = Status::Held,
                Life::Dead if state.activities[id].job.is_some() => {
                    let job = state.discard(id);
                    drop(state);
                    drop(job);
                }
                _ => {
                    state.activities[id].status = Status::Running;
                    state.turns += 1;
                    if state.turns > self.turns_max {
                        state.fail(format!("runaway: over {} turns", self.turns_max));
                    }
                    return Some(id);
                }
            }
        }
    }

    /// Lets one activity after the other run, until none is left.
    fn pass_turns(self: Arc<Self>) {
        let mut stacks = Stacks::default();
        let mut begun: BTreeMap<usize, Fiber> = BTreeMap::new();
        let mut next = self.choose();
        while let Some(id) = next {
            let new = {
                let activity = &mut self.state().activities[id];
                activity.job.take().map(|job| (activity.name, job))
            };
            if let Some((name, job)) = new {
                let scheduler = self.clone();
                let fiber = stacks.fiber(move || scheduler.carry_out(id, name, job));
                begun.insert(id, fiber);
            }
            let fiber = begun.get_mut(&id).expect("BUG: nobody has begun it");
            next = fiber.resume();
            if next.is_none() {
                if let Some(fiber) = begun.remove(&id) {
                    stacks.take_back(fiber);
                }
                next = self.choose();
            }
        }
        self.state().finished = true;
        self.over.notify_all();
    }

    fn carry_out(&self, id: usize, name: &'static str, job: Job) {
        CURRENT.set(Some(id));
        let outcome = catch_unwind(AssertUnwindSafe(job));
        CURRENT.set(None);
        let mut state = self.state();
        if let Err(payload) = outcome
            && !payload.is::<Ended>()
        {
            state.fail(format!("panic in {name}: {}", panic_text(&*payload)));
        }
        state.discard(id);
    }
}

/// What a panic said.
fn panic_text(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        return (*text).to_owned();
    }
    let text = payload.downcast_ref::<String>();
    text.cloned().unwrap_or_else(|| "a panic".to_owned())
}

impl State {
    fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    fn set_timer(&mut self, at: Duration, sequence: u64, due: Due) {
        self.timers.push(Reverse(Timer { at, sequence, due }));
    }

    fn life(&self, group: Group) -> Life {
        self.groups.get(&group).copied().unwrap_or(Life::Runs)
    }

    fn fail(&mut self, failure: String) {
        if self.failure.is_none() {
            let now = self.now;
            self.trace.note(now, format_args!("FAILURE: {failure}"));
            self.failure = Some(failure);
        }
        self.ending = true;
    }

    fn wake(&mut self, id: usize, wait: u64) {
        if self.waits(id, wait) {
            self.activities[id].status = Status::Runnable;
            self.runnable.push(id);
        }
    }

    fn waits(&self, id: usize, wait: u64) -> bool {
        let activity = &self.activities[id];
        activity.wait == wait && activity.status == Status::Waiting
    }

    /// Makes those of the group that have this status runnable, in the order of their numbers.
    fn release(&mut self, group: Group, status: Status) {
        for (id, activity) in self.activities.iter_mut().enumerate() {
            if activity.group == group && activity.status == status {
                activity.status = Status::Runnable;
                self.runnable.push(id);
            }
        }
    }

    /// Frees an activity's place. Its job, if it never began, is for the caller to drop without
    /// the lock: others' destructors are in it.
    fn discard(&mut self, id: usize) -> Option<Job> {
        let activity = &mut self.activities[id];
        activity.status = Status::Free;
        self.free.push(id);
        activity.job.take()
    }

    /// Wakes the activities that are due; stops at an act, which the caller does without the lock.
    fn fire_due(&mut self) -> Option<Job> {
        while self
            .timers
            .peek()
            .is_some_and(|Reverse(timer)| timer.at <= self.now)
        {
            let Reverse(timer) = self.timers.pop()?;
            match timer.due {
                Due::Act(act) => return Some(act),
                Due::Wake(id) => self.wake(id, timer.sequence),
            }
        }
        None
    }

    /// Moves the time on to the next moment at which something is due; `false`: never.
    fn jump(&mut self) -> bool {
        while let Some(Reverse(timer)) = self.timers.peek() {
            let over = matches!(timer.due, Due::Wake(id) if !self.waits(id, timer.sequence));
            if !over {
                self.now = timer.at;
                return true;
            }
            self.timers.pop();
        }
        false
    }
}
