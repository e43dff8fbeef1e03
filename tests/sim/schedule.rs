//! Random schedules: clients put and get while the world around them goes wrong in ways that a
//! plan allows; then everything is mended, must settle, and is looked at.
//! What goes wrong is in `chaos`.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use thrifty_p2p::location::Location;

use super::chaos::Chaos;
use super::direct::use_together;
use super::history::{Outcome, brief};
use super::network::SimNetwork;
use super::plan::{Class, Plan};
use super::runner::Figures;
use super::scheduler::Ticket;
use super::wires::Weather;
use super::world::{Phase, Process, TICK, World};

/// How long the world may take to settle, in its own time.
const SETTLE: Duration = Duration::from_secs(180);

/// How often a client sends several requests together. Per mille of its requests.
const BATCHES: usize = 250;

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
    world.history().shown_counts = plan.worse.shown_counts;
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
    let mut chaos = Chaos::new(stage.clone(), plan.nodes);
    let mut first = 0;
    for quiet in plan.quiet.iter().map(Some).chain([None]) {
        stage.clients.store(plan.clients, Ordering::Relaxed);
        for client in first..first + plan.clients {
            stage.spawn("client", move |stage| {
                stage.use_store(client);
                stage.clients.fetch_sub(1, Ordering::Relaxed);
            });
        }
        first += plan.clients;
        chaos.rage();
        stage.mend();
        stage.await_that(|| world.settled())?;
        // Tombstones are on their way to be forgotten when it begins again.
        if let Some(ticks) = quiet {
            world.scheduler.sleep(TICK * *ticks);
            world.wires().weather = plan.options().weather;
        }
    }
    let mut figures = chaos.figures();
    stage.read_everything()?;
    stage.await_that(|| stage.all_say_safe())?;
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

pub struct Stage {
    pub world: Arc<World>,
    pub plan: Plan,
    /// The chaos is.
    over: AtomicBool,
    /// Activities that must have ended before the world can settle.
    working: AtomicUsize,
    /// A leaver gave up.
    pub incomplete: AtomicBool,
    /// Clients that are not done.
    pub clients: AtomicUsize,
    /// What the chaos is woken by.
    chaos_waits: Mutex<Option<Ticket>>,
}

impl Stage {
    pub fn spawn(
        self: &Arc<Self>,
        name: &'static str,
        job: impl FnOnce(&Arc<Stage>) + Send + 'static,
    ) {
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
            if world.chance(BATCHES) {
                self.use_together(&net, &to, &format!("c{client}-{number}"));
                continue;
            }
            let key = self.key(world.random.below(self.plan.keys));
            if !world.chance(self.plan.puts) {
                // The history has it.
                let _ = self.get(&net, &to, &key);
                continue;
            }
            let deletes = world.chance(self.plan.deletes);
            let value = if deletes {
                Vec::new()
            } else {
                self.value(format!("c{client}-{number}"))
            };
            let operation = world.history().begin_put(&key, &value);
            let text = (brief(&key), brief(&value));
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
            world.history().end(operation, net.began(), outcome);
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

    /// Several requests on one connection, of few keys.
    fn use_together(&self, net: &SimNetwork, to: &Location, name: &str) {
        let world = &self.world;
        let keys = [0, 1].map(|_| self.key(world.random.below(self.plan.keys)));
        let count = 2 + world.random.below(6);
        let one = |number: usize| {
            let key = match world.random.below(3) {
                2 => self.key(world.random.below(self.plan.keys)),
                one => keys[one].clone(),
            };
            let value = world.chance(self.plan.puts).then(|| {
                let deletes = world.chance(self.plan.deletes);
                match deletes {
                    true => Vec::new(),
                    false => self.value(format!("{name}-{number}")),
                }
            });
            (key, value)
        };
        let operations: Vec<_> = (0..count).map(one).collect();
        self.provoke();
        use_together(world, net, to, &operations, &mut |_, _| ());
    }

    /// Where sizes are worse, keys are empty, short and long.
    fn key(&self, number: usize) -> Vec<u8> {
        let key = format!("k{number}");
        match number {
            0 if self.plan.worse.sizes => Vec::new(),
            1 if self.plan.worse.sizes => key.repeat(5_000).into_bytes(),
            _ => key.into_bytes(),
        }
    }

    fn value(&self, text: String) -> Vec<u8> {
        let mut value = text.into_bytes();
        if self.plan.worse.sizes {
            let bytes = [0, 0, 1_000, 30_000, 400_000][self.world.random.below(5)];
            value.resize(value.len() + bytes, b'.');
        }
        value
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

    pub fn await_provocation(&self, longest: Duration) {
        let scheduler = &self.world.scheduler;
        let (ticket, until) = (scheduler.ticket(), scheduler.now() + longest);
        *self.chaos_waits.lock().expect("BUG: nobody panics with it") = Some(ticket);
        scheduler.wait(ticket, until);
    }

    fn get(&self, net: &SimNetwork, to: &Location, key: &[u8]) -> Result<Vec<u8>, String> {
        let world = &self.world;
        let operation = world.history().begin_get(key);
        let text = brief(key);
        world
            .scheduler
            .trace(format_args!("@{operation} get {text} at {to}"));
        let answer = world.subject.get(net, to, key);
        let shown = answer.as_ref().map(|value| brief(value));
        world
            .scheduler
            .trace(format_args!("@{operation} get {text}: {shown:?}"));
        let outcome = match &answer {
            Ok(value) => Outcome::Read(value.clone()),
            Err(_) => Outcome::Unknown,
        };
        world.history().end(operation, net.began(), outcome);
        answer
    }

    /// Ends everything that is wrong, and waits for all activities that are at work.
    fn mend(&self) {
        self.over.store(true, Ordering::Relaxed);
        while self.working.load(Ordering::Relaxed) > 0 {
            self.world.scheduler.sleep(TICK);
        }
        self.world.wires().weather = Weather::default();
        self.world.wires().widen();
        for at in self.world.locations() {
            self.world.resume(&at);
        }
        self.world.heal();
        // What was held on the way arrives, and is carried out, as late as a put may be.
        self.world.scheduler.sleep(20 * TICK);
    }

    /// Where the nodes judge: all of them say that the world is safe, if there are enough of them.
    fn all_say_safe(&self) -> Result<(), String> {
        let (world, announced) = (&self.world, self.incomplete.load(Ordering::Relaxed));
        let nodes = world.locations();
        let enough = nodes.len() >= self.plan.replicas;
        if announced || !self.plan.worse.nodes_judge {
            return Ok(());
        }
        let net = world.client();
        for at in &nodes {
            let safe = world.subject.says_safe(&net, at);
            if safe.is_ok() && !enough {
                let (nodes, replicas) = (nodes.len(), self.plan.replicas);
                return Err(format!("{at} says safe: {nodes} nodes, {replicas} copies"));
            }
            if let Err(why) = safe
                && enough
            {
                return Err(format!("{at} doesn't say that all is safe: {why}"));
            }
        }
        Ok(())
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
                    let [key, read, value] = [&key, &read, &value].map(|v| brief(v));
                    return Err(format!("{at} reads {key} as {read}, copies are {value}"));
                }
            }
        }
        Ok(())
    }
}
