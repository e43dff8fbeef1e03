//! Makes things go wrong, as a plan allows.
//!
//! Crashes: at most R-1 between two moments at which the world was safe, that is, all nodes agreed and every key had
//! its copies; and never the last node that is full. Where there are partitions and long stops as well, only at safe
//! moments: a part of a ring may have acknowledged with fewer copies. There, a leaving node may find no other to take
//! its keys. It says so, and then what is missing at the end is not counted as lost.
//!
//! Mostly the world itself, which sees everything, says that it is safe. Where the nodes judge, they say so, as
//! `location --status` does; and each time the world is asked whether it is true.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use thrifty_p2p::location::Location;
use thrifty_p2p::net::Clock;

use super::clock::DAY;
use super::plan::Class;
use super::runner::Figures;
use super::schedule::{Stage, location};
use super::world::{Phase, TICK};

/// What may go wrong: how often, from which class on, and how.
type Kind = (usize, Class, fn(&mut Chaos));

/// How often a node is asked whether all is safe before something goes wrong. Per mille.
const JUDGED: usize = 300;

/// Makes things go wrong.
pub struct Chaos {
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
    pub fn new(stage: Arc<Stage>, named: usize) -> Self {
        Chaos {
            stage,
            named,
            crashed: 0,
            calm_from: Duration::ZERO,
            figures: Figures::default(),
        }
    }

    /// Until the clients are done.
    pub fn rage(&mut self) {
        let (stage, world) = (self.stage.clone(), self.stage.world.clone());
        let class = stage.plan.class;
        let plan = &stage.plan;
        let (clocks, links) = (plan.worse.clocks, plan.worse.links);
        let often = |so: bool, weight: usize| if so { weight } else { 0 };
        let kinds: [Kind; 10] = [
            (plan.joins, Class::Orderly, Chaos::join),
            (plan.leaves, Class::Orderly, Chaos::leave),
            (plan.crashes, Class::Crashes, Chaos::crash),
            (plan.stops, Class::Everything, Chaos::stop),
            (plan.partitions, Class::Everything, Chaos::partition),
            (plan.slow_spells, Class::Late, Chaos::slow_down),
            (often(clocks, 12), Class::Late, Chaos::step_clock),
            (often(links, 8), Class::Late, Chaos::narrow),
            (often(clocks, 10), Class::Everything, Chaos::suspend),
            (often(links, 10), Class::Everything, Chaos::cut_one_link),
        ];
        let kinds: Vec<_> = kinds
            .into_iter()
            .filter(|(_, least, _)| class >= *least)
            .collect();
        let sum: usize = kinds.iter().map(|(weight, ..)| weight).sum();
        while stage.clients.load(Ordering::Relaxed) > 0 {
            let longest = plan.chaos_pauses[world.random.below(2)];
            stage.await_provocation(world.between(0, longest));
            self.judge();
            let mut choice = world.random.below(sum.max(1));
            for (weight, _, act) in &kinds {
                if choice < *weight {
                    act(self);
                    break;
                }
                choice -= weight;
            }
        }
    }

    pub fn figures(self) -> Figures {
        self.figures
    }

    /// Has a node say whether all is safe, whatever goes wrong next, and must be right.
    fn judge(&mut self) {
        if self.stage.plan.worse.nodes_judge && self.stage.world.chance(JUDGED) {
            self.says_safe();
        }
    }

    /// Whether all that a plan allows may be killed now, as far as the judge can tell.
    fn is_safe(&mut self) -> bool {
        if !self.stage.plan.worse.nodes_judge {
            return self.stage.world.safe().is_ok();
        }
        // What a node says holds for its side of a cut only: more nodes may be killed on both sides than either side
        // knows.
        let everything = self.stage.plan.class == Class::Everything;
        self.says_safe() && (!everything || self.stage.world.agreed().is_ok())
    }

    /// What `location --status` says at one of them. Fails if it says that all is safe, and it is not.
    fn says_safe(&mut self) -> bool {
        let world = &self.stage.world;
        let processes = world.processes().into_iter();
        let runs = processes.filter(|(_, process)| process.phase == Phase::Up && !process.stopped);
        let up: Vec<_> = runs.map(|(location, _)| location).collect();
        let Some(at) = world.pick(&up) else {
            return false;
        };
        let began = world.history().next_event();
        let safe = world.subject.says_safe(&world.client(), at).is_ok();
        world
            .scheduler
            .trace(format_args!("{at} says safe: {safe}"));
        let excused = self.stage.incomplete.load(Ordering::Relaxed);
        let plan = &self.stage.plan;
        if safe
            && !excused
            && let Err(why) = world.is_copied(began, plan.replicas, plan.promise())
        {
            let failure = format!("{at} says that all is safe, and it is not: {why}");
            world.scheduler.fail(failure);
        }
        self.figures.asked_for_safety += 1;
        self.figures.said_safe += u64::from(safe);
        safe
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
        let world = self.stage.world.clone();
        let bad_moment = self.stage.plan.class == Class::Everything && !self.is_safe();
        if up.len() < 2 || bad_moment {
            return;
        }
        let leaver = &up[world.random.below(up.len())];
        // There has to be another node that takes what it holds.
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
        let (stage, world) = (self.stage.clone(), self.stage.world.clone());
        let plan = &stage.plan;
        let everything = plan.class == Class::Everything;
        // The judge looks at each item of each node: not where nothing follows from it.
        let matters = plan.replicas > 1 && (everything || self.crashed > 0);
        if (matters || plan.worse.nodes_judge) && self.is_safe() {
            self.crashed = 0;
        } else if everything {
            return;
        }
        let budget = plan.replicas - 1 - self.crashed;
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
            let mut up: Vec<_> = up.filter(|(_, p)| p.phase == Phase::Up).collect();
            // Those that only look for the network by way of each other can't know that there is one.
            if up.iter().any(|(_, p)| !p.node.members().is_empty()) {
                up.retain(|(_, p)| !p.node.members().is_empty());
            }
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
        // Also nodes that come only later.
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

    /// A machine's clock is set to anything, for good or for a while, or stands still.
    fn step_clock(&mut self) {
        let world = self.stage.world.clone();
        let Some(victim) = world.pick(&world.locations()).cloned() else {
            return;
        };
        let clock = world.clock(&victim);
        let before = clock.ahead();
        if world.chance(200) {
            clock.stand_still();
        } else {
            let far = [2_000_000, DAY / 24, 2 * DAY, 400 * DAY][world.random.below(4)];
            clock.set_ahead(if world.chance(500) { far } else { -far });
        }
        let (scheduler, shown) = (&world.scheduler, clock.wall());
        scheduler.trace(format_args!("the clock of {victim} is set to {shown}"));
        self.figures.steps += 1;
        if world.chance(500) {
            self.stage.spawn("set right", move |stage| {
                stage.wait_badly();
                clock.set_ahead(before);
            });
        }
    }

    /// A node's link is narrow for a while.
    fn narrow(&mut self) {
        let world = self.stage.world.clone();
        let Some(victim) = world.pick(&world.locations()).cloned() else {
            return;
        };
        let rate = [200_000, 1_250_000, 12_500_000][world.random.below(3)];
        let scheduler = &world.scheduler;
        scheduler.trace(format_args!("{victim} has {rate} bytes a second"));
        world.wires().narrow(&victim, rate);
        self.figures.narrow += 1;
        self.stage.spawn("widen", |stage| {
            stage.wait_badly();
            stage.world.wires().widen();
        });
    }

    /// As a stop, but the monotonic clock stands still as well.
    fn suspend(&mut self) {
        let world = self.stage.world.clone();
        let Some(victim) = world.pick(&world.locations()).cloned() else {
            return;
        };
        world.suspend(&victim);
        self.figures.suspends += 1;
        self.stage.spawn("wake", move |stage| {
            stage.wait_badly();
            stage.world.resume(&victim);
        });
    }

    /// Between two nodes alone: both ways, one way, or for questions only.
    fn cut_one_link(&mut self) {
        let world = self.stage.world.clone();
        let all = world.locations();
        let (Some(from), Some(to)) = (world.pick(&all).cloned(), world.pick(&all).cloned()) else {
            return;
        };
        if from == to {
            return;
        }
        let how = world.random.below(3);
        let scheduler = &world.scheduler;
        scheduler.trace(format_args!("cut in manner {how}: {from} -> {to}"));
        match how {
            0 => world.wires().cut_both(&from, &to),
            1 => world.wires().cut(&from, &to),
            _ => world.wires().deafen(&from, &to),
        }
        self.figures.links_cut += 1;
        self.stage.spawn("mend", move |stage| {
            stage.wait_badly();
            stage.world.wires().join(&from, &to);
            stage.world.wires().join(&to, &from);
        });
    }
}

impl Stage {
    /// How long a bad state lasts: below, about and beyond the limits.
    pub fn wait_badly(&self) {
        let world = &self.world;
        let longest = [500_000, 2_500_000, 6_000_000, 20_000_000][world.random.below(4)];
        world.scheduler.sleep(world.between(0, longest));
    }
}
