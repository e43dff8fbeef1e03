//! Random schedules: clients put and get while the world around them goes wrong in ways that a
//! plan allows; then everything is mended, must settle, and is looked at.
//!
//! Crashes: at most R-1 between two moments at which the world was safe, that is, everybody agreed and
//! every key had its copies; and never the last node that is full. Where there are partitions and long stops as well, only at
//! safe moments: a part of a ring may have acknowledged with fewer copies. There, a leaver may find
//! nobody to take its keys; it says so, and then what is missing at the end is not counted as lost.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use thrifty_p2p::location::Location;

use super::history::Outcome;
use super::network::SimNetwork;
use super::plan::{Class, Plan};
use super::runner::Figures;
use super::scheduler::Ticket;
use super::wires::Weather;
use super::world::{Phase, Process, TICK, World};

/// How long the world may take to settle, in its own time.
const SETTLE: Duration = Duration::from_secs(180);

/// A name for a new node. Many: text order, ring order and port order differ.
pub fn location(number: usize) -> Location {
    let port = 9900 + (number * 37) % 100;
    Location::new(&format!("n{number}"), port as u16).expect("a location")
}

/// Plays a whole schedule, to be given to `run_world`.
///
/// # Errors
/// What was promised and not kept.
pub fn play(world: &Arc<World>, plan: &Plan) -> Result<Figures, String> {
    let stage = Arc::new(Stage {
        world: world.clone(),
        plan: plan.clone(),
        over: AtomicBool::new(false),
        working: AtomicUsize::new(0),
        incomplete: AtomicBool::new(false),
        clients: AtomicUsize::new(0),
        chaos_waits: Mutex::default(),
    });
    world.boot(&location(0), None);
    stage.await_that(|| {
        let up = |(_, process): &(_, Process)| process.phase == Phase::Up;
        let first = world.processes();
        first
            .iter()
            .any(up)
            .then_some(())
            .ok_or("nobody is up".to_owned())
    })?;
    for number in 1..plan.nodes {
        world.boot(&location(number), Some(&location(0)));
    }
    stage.await_that(|| world.agreed())?;
    stage.clients.store(plan.clients, Ordering::Relaxed);
    for client in 0..plan.clients {
        stage.spawn("client", move |stage| {
            stage.use_store(client);
            stage.clients.fetch_sub(1, Ordering::Relaxed);
        });
    }
    let chaos = Chaos {
        stage: stage.clone(),
        named: plan.nodes,
        crashed: 0,
        calm_from: Duration::ZERO,
        figures: Figures::default(),
    };
    let mut figures = chaos.rage();
    stage.mend();
    stage.await_that(|| world.settled())?;
    stage.read_everything()?;
    figures.incomplete_leaves = u64::from(stage.incomplete.load(Ordering::Relaxed));
    let history = world.history();
    history.check_reads(plan.promise())?;
    for operation in history.operations() {
        let (all, well) = match operation.put {
            Some(_) => (&mut figures.puts, &mut figures.puts_acknowledged),
            None => (&mut figures.gets, &mut figures.gets_answered),
        };
        *all += 1;
        *well += u64::from(operation.outcome != Outcome::Unknown);
    }
    Ok(figures)
}

struct Stage {
    world: Arc<World>,
    plan: Plan,
    /// The chaos is.
    over: AtomicBool,
    /// Activities that must have ended before the world can settle.
    working: AtomicUsize,
    /// A leaver gave up.
    incomplete: AtomicBool,
    /// Clients that are not done.
    clients: AtomicUsize,
    /// What the chaos is woken by.
    chaos_waits: Mutex<Option<Ticket>>,
}

impl Stage {
    fn spawn(self: &Arc<Self>, name: &'static str, job: impl FnOnce(&Arc<Stage>) + Send + 'static) {
        self.working.fetch_add(1, Ordering::Relaxed);
        let stage = self.clone();
        self.world.spawn(name, move || {
            job(&stage);
            stage.working.fetch_sub(1, Ordering::Relaxed);
        });
    }

    fn await_that(&self, so: impl Fn() -> Result<(), String>) -> Result<(), String> {
        let until = self.world.scheduler.now() + SETTLE;
        while let Err(why) = so() {
            if self.world.scheduler.now() > until {
                return Err(format!("doesn't settle: {why}"));
            }
            self.world.scheduler.sleep(TICK / 5);
        }
        Ok(())
    }

    fn use_store(&self, client: usize) {
        let world = &self.world;
        let (net, subject) = (world.client(), world.subject.clone());
        for number in 0..self.plan.operations {
            let longest = self.plan.pauses[world.random.below(2)];
            world.scheduler.sleep(world.between(0, longest));
            let Some(to) = world.pick(&world.locations()).cloned() else {
                continue;
            };
            let key = format!("k{}", world.random.below(self.plan.keys)).into_bytes();
            if !world.chance(self.plan.puts) {
                // The history has it.
                let _ = self.get(&net, &to, &key);
                continue;
            }
            let deletes = world.chance(self.plan.deletes);
            let value = if deletes {
                Vec::new()
            } else {
                format!("c{client}-{number}").into_bytes()
            };
            let operation = world.history().begin_put(&key, &value);
            let text = (
                String::from_utf8_lossy(&key),
                String::from_utf8_lossy(&value),
            );
            world
                .scheduler
                .trace(format_args!("@{operation} put {text:?} at {to}"));
            self.provoke();
            let answer = subject.put(&net, &to, &key, &value);
            world
                .scheduler
                .trace(format_args!("@{operation} put {text:?}: {answer:?}"));
            let outcome = match answer {
                Ok(()) => Outcome::Acknowledged(world.version_of(&key, &value)),
                Err(_) => Outcome::Unknown,
            };
            world.history().end(operation, net.given(), outcome);
            if answer.is_ok() {
                self.provoke();
                let others = world.locations();
                let other = world
                    .pick(&others)
                    .filter(|_| world.chance(self.plan.echoes));
                // The history has it.
                let _ = other.map(|other| self.get(&net, other, &key));
            }
        }
    }

    /// Now may be the worst moment for something to go wrong.
    fn provoke(&self) {
        if self.world.chance(self.plan.provocations) {
            let ticket = self
                .chaos_waits
                .lock()
                .expect("BUG: nobody panics with it")
                .take();
            if let Some(ticket) = ticket {
                self.world.scheduler.wake(ticket);
            }
        }
    }

    fn await_provocation(&self, longest: Duration) {
        let scheduler = &self.world.scheduler;
        let (ticket, until) = (scheduler.ticket(), scheduler.now() + longest);
        *self.chaos_waits.lock().expect("BUG: nobody panics with it") = Some(ticket);
        scheduler.wait(ticket, until);
    }

    fn get(&self, net: &SimNetwork, to: &Location, key: &[u8]) -> Result<Vec<u8>, String> {
        let world = &self.world;
        let operation = world.history().begin_get(key);
        let text = String::from_utf8_lossy(key);
        world
            .scheduler
            .trace(format_args!("@{operation} get {text} at {to}"));
        let answer = world.subject.get(net, to, key);
        let shown = answer.as_ref().map(|value| String::from_utf8_lossy(value));
        world
            .scheduler
            .trace(format_args!("@{operation} get {text}: {shown:?}"));
        let outcome = match &answer {
            Ok(value) => Outcome::Read(value.clone()),
            Err(_) => Outcome::Unknown,
        };
        world.history().end(operation, net.given(), outcome);
        answer
    }

    /// Ends everything that is wrong, and waits for everybody who is at work.
    fn mend(&self) {
        self.over.store(true, Ordering::Relaxed);
        while self.working.load(Ordering::Relaxed) > 0 {
            self.world.scheduler.sleep(TICK);
        }
        self.world.wires().weather = Weather::default();
        for at in self.world.locations() {
            self.world.resume(&at);
        }
        self.world.heal();
        // What was held on the way arrives, and is carried out, as late as a put may be.
        self.world.scheduler.sleep(20 * TICK);
    }

    /// Every key at every node, and against the copies.
    fn read_everything(&self) -> Result<(), String> {
        let world = &self.world;
        let net = world.client();
        let keys = world.history().keys();
        for key in keys {
            let items = world
                .processes()
                .into_iter()
                .flat_map(|(_, p)| p.node.items());
            let found = items.filter(|item| item.key == key).max();
            let newest = found.as_ref().map(|item| (item.version, &item.value[..]));
            let announced = self.incomplete.load(Ordering::Relaxed);
            if !(announced && self.plan.class == Class::Everything) {
                let promise = self.plan.promise();
                world.history().check_final(&key, newest, promise)?;
            }
            let value = found.map(|item| item.value).unwrap_or_default();
            for at in world.locations() {
                let read = self.get(&net, &at, &key)?;
                if read != value {
                    let [read, value] = [&read, &value].map(|v| String::from_utf8_lossy(v));
                    let key = String::from_utf8_lossy(&key);
                    return Err(format!(
                        "{at} reads {key} as {read:?}, copies are {value:?}"
                    ));
                }
            }
        }
        Ok(())
    }
}

/// What may go wrong: how often, from which class on, and how.
type Kind = (usize, Class, fn(&mut Chaos));

/// Makes things go wrong.
struct Chaos {
    stage: Arc<Stage>,
    /// Names given so far.
    named: usize,
    /// Crashes since the world was last safe.
    crashed: usize,
    /// No new slowness before: two in a row would add up to a silence.
    calm_from: Duration,
    figures: Figures,
}

impl Chaos {
    /// Until the clients are done.
    fn rage(mut self) -> Figures {
        let (stage, world) = (self.stage.clone(), self.stage.world.clone());
        let class = stage.plan.class;
        let plan = &stage.plan;
        let kinds: [Kind; 6] = [
            (plan.joins, Class::Orderly, Chaos::join),
            (plan.leaves, Class::Orderly, Chaos::leave),
            (plan.crashes, Class::Crashes, Chaos::crash),
            (plan.stops, Class::Everything, Chaos::stop),
            (plan.partitions, Class::Everything, Chaos::partition),
            (plan.slow_spells, Class::Late, Chaos::slow_down),
        ];
        let kinds: Vec<_> = kinds
            .into_iter()
            .filter(|(_, least, _)| class >= *least)
            .collect();
        let sum: usize = kinds.iter().map(|(weight, ..)| weight).sum();
        while stage.clients.load(Ordering::Relaxed) > 0 {
            let longest = plan.chaos_pauses[world.random.below(2)];
            stage.await_provocation(world.between(0, longest));
            let mut choice = world.random.below(sum.max(1));
            for (weight, _, act) in &kinds {
                if choice < *weight {
                    act(&mut self);
                    break;
                }
                choice -= weight;
            }
        }
        self.figures
    }

    fn up(&self) -> Vec<Location> {
        let processes = self.stage.world.processes();
        let up = processes.into_iter().filter(|(_, p)| p.phase == Phase::Up);
        up.map(|(location, _)| location).collect()
    }

    /// Those that have been taken in to the end.
    fn whole(&self) -> Vec<Location> {
        let processes = self.stage.world.processes().into_iter();
        let whole = processes.filter(|(at, process)| {
            let members = process.node.members();
            process.phase == Phase::Up && members.contains(&(at.clone(), false))
        });
        whole.map(|(location, _)| location).collect()
    }

    fn join(&mut self) {
        let world = &self.stage.world;
        let up = self.up();
        let Some(contact) = world.pick(&up) else {
            return;
        };
        if world.locations().len() < self.stage.plan.nodes_max {
            world.boot(&location(self.named), Some(contact));
            self.named += 1;
            self.figures.joins += 1;
        }
    }

    fn leave(&mut self) {
        let up = self.up();
        let world = &self.stage.world;
        let bad_moment = self.stage.plan.class == Class::Everything && world.safe().is_err();
        if up.len() < 2 || bad_moment {
            return;
        }
        let leaver = &up[world.random.below(up.len())];
        // Somebody has to be there who takes what it has.
        if self.whole().iter().all(|whole| whole == leaver) {
            return;
        }
        let stage = self.stage.clone();
        world.leave(leaver, move |complete| {
            stage.incomplete.fetch_or(!complete, Ordering::Relaxed);
        });
        self.figures.leaves += 1;
    }

    /// Kills up to as many as may be killed now, at one instant.
    fn crash(&mut self) {
        let world = self.stage.world.clone();
        let safe = world.safe().is_ok();
        if safe {
            self.crashed = 0;
        } else if self.stage.plan.class == Class::Everything {
            return;
        }
        let budget = self.stage.plan.replicas - 1 - self.crashed;
        if budget == 0 {
            return;
        }
        for _ in 0..=world.random.below(budget) {
            let whole = self.whole();
            let mut victims = world.locations();
            match &whole[..] {
                [] => return,
                [last] => victims.retain(|victim| victim != last),
                _ => (),
            }
            let Some(victim) = world.pick(&victims).cloned() else {
                return;
            };
            world.crash(&victim);
            self.crashed += 1;
            self.figures.crashes += 1;
            if world.chance(500) {
                self.figures.restarts += 1;
                self.restart(victim);
            }
        }
    }

    fn restart(&self, victim: Location) {
        self.stage.spawn("restart", move |stage| {
            let world = &stage.world;
            let longest = [1, 1_000, 300_000, 5_000_000][world.random.below(4)];
            world.scheduler.sleep(world.between(0, longest));
            let up = world.processes().into_iter();
            let up: Vec<_> = up.filter(|(_, p)| p.phase == Phase::Up).collect();
            if let Some((contact, _)) = world.pick(&up) {
                world.boot(&victim, Some(contact));
            }
        });
    }

    fn stop(&mut self) {
        let world = self.stage.world.clone();
        let Some(victim) = world.pick(&world.locations()).cloned() else {
            return;
        };
        world.stop(&victim);
        self.figures.stops += 1;
        self.stage.spawn("continue", move |stage| {
            stage.wait_badly();
            stage.world.resume(&victim);
        });
    }

    fn partition(&mut self) {
        let world = self.stage.world.clone();
        if !world.wires().is_whole() {
            return;
        }
        let one_way = world.chance(200);
        let (mut here, mut there) = (Vec::new(), Vec::new());
        // Also those who come only later.
        for number in 0..self.named + 3 {
            let side = if world.chance(500) {
                &mut here
            } else {
                &mut there
            };
            side.push(location(number));
        }
        world
            .scheduler
            .trace(format_args!("cut, one way {one_way}: {here:?} | {there:?}"));
        for a in &here {
            for b in &there {
                world.wires().cut(a, b);
                if !one_way {
                    world.wires().cut(b, a);
                }
            }
        }
        self.figures.partitions += 1;
        self.stage.spawn("heal", |stage| {
            stage.wait_badly();
            stage.world.heal();
        });
    }

    /// Late messages or a stopped node, but for less than 3 ticks.
    fn slow_down(&mut self) {
        let world = self.stage.world.clone();
        let now = world.scheduler.now();
        let Some(victim) = world.pick(&world.locations()).cloned() else {
            return;
        };
        if now < self.calm_from {
            return;
        }
        let time = world.between(50_000, 1_400_000);
        self.calm_from = now + time + 8 * TICK;
        self.figures.slow_spells += 1;
        if world.chance(500) {
            world
                .scheduler
                .trace(format_args!("{victim} is slow for {time:?}"));
            world.wires().slow_down(&victim, now + time);
        } else {
            world.stop(&victim);
            self.stage.spawn("continue", move |stage| {
                stage.world.scheduler.sleep(time);
                stage.world.resume(&victim);
            });
        }
    }
}

impl Stage {
    /// How long a bad state lasts: below, about and beyond the limits.
    fn wait_badly(&self) {
        let world = &self.world;
        let longest = [500_000, 2_500_000, 6_000_000, 20_000_000][world.random.below(4)];
        world.scheduler.sleep(world.between(0, longest));
    }
}
