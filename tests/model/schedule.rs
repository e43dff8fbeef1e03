//! Random schedules: joins, leaves, crashes, restarts, hangs and cuts, while clients put and get.

use std::collections::BTreeSet;
use std::env;
use std::time::{Duration, Instant};

use thrifty_p2p::membership::State;
use thrifty_p2p::net::Random;
use thrifty_p2p::ring;

use super::node::{Message, Node, Response};
use super::world::{Answer, Outcome, TICK, Then, World};

#[derive(Debug, Clone, Copy)]
pub struct Kind {
    pub copies: usize,
    pub cuts: Cuts,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cuts {
    None,
    /// Shorter than it takes to lose a node.
    Short,
    /// Two sides may acknowledge puts: the later one is to stand in the end.
    Long,
}

/// In an ordinary run, of each kind: some seconds.
const SCHEDULES: u64 = 3000;

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable} is no number: {text}")))
}

/// Runs schedules for a while, or the one that is asked for.
pub fn explore(kind: Kind) {
    if let Some(seed) = number("MODEL_SEED") {
        let world = schedule(seed, kind);
        println!("{}", world.log.join("\n"));
        assert_eq!(world.broken, None);
        return;
    }
    // Always the same ones, unless told to look for a time.
    let seconds = number("MODEL_SECONDS");
    let first = number("MODEL_FIRST").unwrap_or(1);
    let began = Instant::now();
    let (mut seed, mut puts, mut gets) = (first, 0, 0);
    let mut failed = Vec::new();
    let goes_on = |seed: u64| match seconds {
        Some(seconds) => began.elapsed() < Duration::from_secs(seconds),
        None => seed - first < SCHEDULES,
    };
    while goes_on(seed) && failed.len() < 8 {
        let world = schedule(seed, kind);
        puts += world.acknowledged.len();
        gets += world.gets;
        if let Some(broken) = world.broken {
            failed.push((world.log.len(), seed, broken));
        }
        seed += 1;
    }
    failed.sort();
    println!(
        "model: {kind:?}: {} schedules from seed {first}, {puts} puts and {gets} gets acknowledged",
        seed - first
    );
    assert!(failed.is_empty(), "the shortest first: {failed:#?}");
}

fn schedule(seed: u64, kind: Kind) -> World {
    let dice = Random::new(seed.wrapping_mul(7) + 1);
    let count = 3 + dice.below(2);
    let mut world = World::new(seed, kind.copies, count);
    let first = dice.below(count);
    world.start(first, true);
    let starting = 1 + dice.below(count);
    for place in (0..starting).filter(|place| *place != first) {
        world.start(place, false);
    }
    for _ in 0..100 {
        world.ask_for_status();
        if world.is_whole() {
            break;
        }
    }
    if !world.is_whole() {
        world.fail(format!("STUCK at the start: {}", world.describe()));
    }
    load(&mut world);
    let mut trouble = BTreeSet::new();
    for _ in 0..[4, 8, 14][dice.below(3)] {
        let pause = [0.3, 1.0, 3.0, 6.0, 12.0][dice.below(5)];
        world.run(pause);
        if world.broken.is_some() {
            return world;
        }
        if world.chance(70) {
            world.ask_for_status();
        }
        if world.is_safe() {
            trouble.clear();
            // A cut that has just begun may not have shown yet.
            world.apart &= !world.cut.is_empty();
        }
        something_happens(&mut world, kind, &mut trouble, count);
    }
    world.say("quiet");
    world.run(45.0);
    world.cut.clear();
    world.run(65.0);
    // An alarm may be false: it stands until the loss is accepted.
    for node in world.nodes.values_mut() {
        node.membership.accept_loss();
    }
    for _ in 0..10 {
        world.ask_for_status();
        if world.is_whole() {
            break;
        }
    }
    if !world.is_whole() {
        world.fail(format!("STUCK: {}", world.describe()));
    }
    let last = world.acknowledged.iter().max().copied();
    let hash = ring::hash(&world.key);
    let held = world.nodes.values().filter_map(|node| {
        let (list, _) = node.list(hash, kind.copies);
        let me = node.membership.me();
        Node::has_me(&list, &me.location).then_some(node.data)
    });
    let held: Vec<_> = held.collect();
    if let Some(last) = last
        && !world.gave_up
        && held.iter().any(|data| *data < last)
    {
        world.fail(format!(
            "LOST: {last:?} was acknowledged, the replicas have {held:?}"
        ));
    }
    world
}

/// Clients put and get.
fn load(world: &mut World) {
    request(world);
    let pause = world.up_to(1) * 12 / 10;
    world.after(pause, load);
}

fn request(world: &mut World) {
    let able = world.nodes.iter().filter(|(place, node)| {
        node.membership.state().takes_part() && world.hangs(**place).is_none()
    });
    let able: Vec<_> = able.map(|(_, node)| node.run).collect();
    if able.is_empty() {
        return;
    }
    let by = world.pick(&able);
    let (hash, copies) = (ring::hash(&world.key), world.copies);
    let (list, _) = world.node(by).list(hash, copies);
    let Some(primary) = Node::primary(&list).cloned() else {
        return;
    };
    let began = world.now;
    let least = world.acknowledged.iter().max().copied().unwrap_or((0, 0));
    let put = world.chance(33);
    let message = if put {
        world.values += 1;
        Message::Put(world.values)
    } else {
        Message::Get
    };
    let place = world.place(&primary.location);
    let finish = move |world: &mut World, response: Response| {
        let Response::Done(Some(data)) = response else {
            return;
        };
        let what = if put { "put" } else { "get" };
        let began = began as f64 / TICK as f64;
        if put {
            world.say(format!(
                "put {data:?} acknowledged by n{place}, begun {began:.2}"
            ));
            world.acknowledged.push(data);
        } else {
            world.gets += 1;
        }
        if data < least && !world.two_sides {
            world.fail(format!(
                "STALE: {what} at n{place}, begun {began:.2}: {data:?} after {least:?}"
            ));
        }
    };
    if place == by.place {
        let answer: Answer = Box::new(finish);
        world.serve(place, message, answer);
        return;
    }
    let life = primary.incarnation;
    let then: Then = Box::new(move |world, outcome| match outcome {
        Outcome::Answer(response) => finish(world, response),
        Outcome::Refused => {
            world.act(by, |node, _| {
                node.membership.refused(&primary.location, life)
            });
        }
        Outcome::Silent => {}
    });
    world.call(by, place, message, 12, then);
}

fn something_happens(world: &mut World, kind: Kind, trouble: &mut BTreeSet<usize>, count: usize) {
    let alive: Vec<_> = world.nodes.keys().copied().collect();
    if alive.is_empty() {
        return;
    }
    let place = world.pick(&alive);
    let state = world.nodes[&place].membership.state();
    let full = |world: &World| {
        let nodes = world.nodes.values();
        nodes
            .filter(|n| n.membership.state() == State::Full)
            .count()
    };
    let bearable = |world: &World, trouble: &BTreeSet<usize>| {
        let mut all = trouble.clone();
        all.insert(place);
        // What one side alone acknowledged goes with its nodes.
        !world.apart
            && all.len() < kind.copies
            && full(world) > kind.copies - 1
            && world.nodes.len() > 1
    };
    match world.dice.below(7) {
        0 => {
            let free: Vec<_> = (0..count)
                .filter(|one| !world.nodes.contains_key(one))
                .collect();
            if !free.is_empty() {
                let place = world.pick(&free);
                world.start(place, false);
            }
        }
        1 if state == State::Full && full(world) > kind.copies.max(2) => {
            let run = world.nodes[&place].run;
            world.act(run, |node, _| node.membership.leave());
        }
        which @ (2 | 3) if bearable(world, trouble) && !trouble.contains(&place) => {
            world.kill(place, "is killed");
            trouble.insert(place);
            if which == 3 {
                world.start(place, false);
            }
        }
        4 if bearable(world, trouble) => {
            trouble.insert(place);
            let ticks = world.pick(&[5, 9, 12, 20]);
            hang(world, place, ticks);
        }
        // Not again before the others have heard of it.
        5 if world.nodes[&place].hung_until + 6 * TICK < world.now => {
            let ticks = world.pick(&[1, 3, 5]);
            hang(world, place, ticks);
        }
        6 if may_cut(world, kind) && alive.len() > 1 => {
            let ticks = match kind.cuts {
                Cuts::Short => world.pick(&[3, 6]),
                _ => world.pick(&[6, 12, 25]),
            };
            world.two_sides |= kind.cuts == Cuts::Long;
            world.apart |= kind.cuts == Cuts::Long;
            let others: Vec<_> = alive.iter().copied().filter(|one| *one != place).collect();
            let mut links = BTreeSet::new();
            match world.dice.below(3) {
                // A single link.
                0 => {
                    let other = world.pick(&others);
                    links.extend([(place, other), (other, place)]);
                }
                // One node from all others,
                1 => links.extend(others.iter().flat_map(|o| [(place, *o), (*o, place)])),
                // or only what is asked of it.
                _ => links.extend(others.iter().map(|other| (*other, place))),
            }
            world.say(format!("cut for {ticks}: {links:?}"));
            world.cut_until = world.now + ticks * TICK;
            world.cut.extend(links.iter().copied());
            world.after(ticks * TICK, move |world| {
                world.say(format!("healed: {links:?}"));
                for link in &links {
                    world.cut.remove(link);
                }
            });
        }
        _ => {}
    }
}

/// Short cuts come one at a time: two in a row are a long one.
fn may_cut(world: &mut World, kind: Kind) -> bool {
    let free = world.cut_until + 10 * TICK < world.now;
    let hang = world
        .nodes
        .values()
        .any(|node| node.hung_until + 10 * TICK > world.now);
    match kind.cuts {
        Cuts::None => false,
        Cuts::Short => free && !hang,
        Cuts::Long => true,
    }
}

fn hang(world: &mut World, place: usize, ticks: u64) {
    let until = world.now + ticks * TICK;
    if !world.two_sides && world.cut_until + 10 * TICK > world.now && world.cut_until > 0 {
        return;
    }
    if let Some(node) = world.nodes.get_mut(&place) {
        node.hung_until = node.hung_until.max(until);
        world.say(format!("n{place} hangs for {ticks}"));
    }
}

impl World {
    /// Has each node ask those that it shares keys with, and waits for the answers.
    fn ask_for_status(&mut self) {
        let runs: Vec<_> = self.nodes.values().map(|node| node.run).collect();
        for run in runs {
            if self.alive(run) && self.hangs(run.place).is_none() {
                self.act(run, |node, now| node.membership.ask_all(now));
            }
        }
        self.run(1.5);
    }

    /// What `status` 0 at all nodes says.
    pub fn is_safe(&self) -> bool {
        self.nodes.len() >= self.copies && self.is_whole()
    }

    /// The same, for as many copies as there are nodes.
    fn is_whole(&self) -> bool {
        let hash = ring::hash(&self.key);
        let now = self.time();
        let digests = self
            .nodes
            .values()
            .map(|node| node.membership.view().digest());
        let digests: BTreeSet<_> = digests.collect();
        let fine = |node: &Node| {
            let (list, _) = node.list(hash, self.copies);
            let me = node.membership.me();
            let members = node.membership.view().members().len();
            me.state == State::Full
                && node.hung_until <= self.now
                && node.membership.is_settled(now)
                && members == self.nodes.len()
                && (Node::has_me(&list, &me.location) || node.data == (0, 0))
        };
        digests.len() == 1 && self.nodes.values().all(fine)
    }

    pub fn describe(&self) -> String {
        let now = self.time();
        let nodes = self.nodes.values().map(|node| {
            let m = &node.membership;
            let view = m.view().members().iter();
            let view: Vec<_> = view
                .map(|m| format!("{} {:?}", m.location, m.state))
                .collect();
            let (state, settled) = (m.state(), m.is_settled(now));
            format!(
                "n{} {state:?} {view:?} settled {settled} owes {:?}",
                node.run.place,
                m.owed()
            )
        });
        nodes.collect::<Vec<_>>().join("; ")
    }
}
