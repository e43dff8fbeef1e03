//! How soon a node that has gone is lost to the others, and that no other node is; how sides of a cut grow together.

mod sim;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sim::plain::PlainRing;
use sim::runner::{Figures, Verdict, print_trace, run_many, run_world};
use sim::schedule::location;
use sim::world::{Options, Placement, SimNode, Subject, TICK, World};
use thrifty_p2p::location::Location;
use thrifty_p2p::net::{Environment, Network};

/// A ring that notes which nodes say that they have removed another.
#[derive(Default)]
struct Watched {
    removals: Arc<Mutex<Vec<String>>>,
}

impl Subject for Watched {
    fn node(
        &self,
        location: &Location,
        mut environment: Environment,
        _: usize,
    ) -> Arc<dyn SimNode> {
        let (removals, me) = (self.removals.clone(), location.clone());
        let log = environment.log;
        environment.log = Box::new(move |level, line| {
            if line.starts_with("removed") {
                removals.lock().unwrap().push(format!("{me} {line}"));
            }
            log(level, line);
        });
        PlainRing.node(location, environment, usize::MAX)
    }

    fn put(
        &self,
        net: &dyn Network,
        at: &Location,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), String> {
        PlainRing.put(net, at, key, value)
    }

    fn get(&self, net: &dyn Network, at: &Location, key: &[u8]) -> Result<Vec<u8>, String> {
        PlainRing.get(net, at, key)
    }

    fn placement(&self, nodes: &[Location]) -> Placement {
        PlainRing.placement(nodes)
    }
}

fn schedule(
    seed: u64,
    subject: Arc<dyn Subject>,
    play: impl FnOnce(&Arc<World>) -> Result<(), String> + Send + 'static,
) -> Verdict {
    let options = Options {
        print: print_trace(),
        ..Options::default()
    };
    run_world(seed, &subject, options, move |world| {
        play(world).map(|()| Figures::default())
    })
}

/// A ring of nodes whose names are these numbers, the first of which starts it, once all agree.
fn ring(world: &Arc<World>, numbers: &[usize]) -> Result<Vec<Location>, String> {
    let nodes: Vec<_> = numbers.iter().map(|number| location(*number)).collect();
    world.boot(&nodes[0], None);
    world.scheduler.sleep(TICK);
    for node in &nodes[1..] {
        world.boot(node, Some(&nodes[0]));
    }
    // A node that loses its network before it is full ends.
    let is_coming = |members: &[(Location, bool)]| {
        members.is_empty() || members.iter().any(|(_, coming)| *coming)
    };
    let is_out = |node: &Location| {
        world
            .node(node)
            .is_none_or(|node| is_coming(&node.members()))
    };
    while nodes.iter().any(is_out) {
        world.scheduler.sleep(TICK / 50);
    }
    await_lists(world, 60 * TICK, &[&nodes])?;
    Ok(nodes)
}

/// Some of them, chosen by chance.
fn some(world: &World, nodes: &[Location], many: usize) -> Vec<Location> {
    let mut left = nodes.to_vec();
    (0..many)
        .map(|_| left.swap_remove(world.random.below(left.len())))
        .collect()
}

/// The first node whose members are not those of its network, which is one of these; and its members.
fn other_list(world: &World, networks: &[&[Location]]) -> Option<String> {
    let lists: BTreeMap<Location, Vec<Location>> = world
        .processes()
        .into_iter()
        .map(|(at, process)| {
            let members = process.node.members().into_iter();
            (at, members.map(|(member, _)| member).collect())
        })
        .collect();
    networks.iter().find_map(|network| {
        let mut right = network.to_vec();
        right.sort_unstable();
        let mut nodes = network.iter();
        let wrong = nodes.find(|node| lists.get(*node) != Some(&right))?;
        Some(format!("{wrong} knows {:?}", lists.get(wrong)))
    })
}

/// How long it took until every node of each of these networks had that network as its list.
fn await_lists(
    world: &World,
    limit: Duration,
    networks: &[&[Location]],
) -> Result<Duration, String> {
    let began = world.scheduler.now();
    loop {
        let waited = world.scheduler.now() - began;
        match other_list(world, networks) {
            None => return Ok(waited),
            Some(other) if waited > limit => return Err(format!("after {waited:?} {other}")),
            Some(_) => world.scheduler.sleep(TICK / 50),
        }
    }
}

/// From 2 to 12 nodes, of which at least one is left over when `gone` have gone.
fn any_ring(world: &Arc<World>, gone: usize) -> Result<Vec<Location>, String> {
    let many = gone + 1 + world.random.below(12 - gone);
    ring(world, &(0..many).collect::<Vec<_>>())
}

fn survivors(nodes: &[Location], gone: &[Location]) -> Vec<Location> {
    let left = nodes.iter().filter(|node| !gone.contains(node));
    left.cloned().collect()
}

#[test]
fn the_dead_must_be_known_within_two_ticks() {
    run_many("sim_detection the_dead", 200, |seed| {
        schedule(seed, Arc::new(PlainRing), |world| {
            let nodes = any_ring(world, 1)?;
            world.scheduler.sleep(world.between(0, 1_000_000));
            let gone = some(world, &nodes, 1);
            world.crash(&gone[0]);
            await_lists(world, 2 * TICK, &[&survivors(&nodes, &gone)])?;
            Ok(())
        })
    });
}

/// Eight ticks from the first question that it didn't answer; one that shares no keys with it asks later.
#[test]
fn the_silent_must_be_dropped_within_twenty_ticks() {
    run_many("sim_detection the_silent", 200, |seed| {
        schedule(seed, Arc::new(PlainRing), |world| {
            let nodes = any_ring(world, 3)?;
            world.scheduler.sleep(world.between(0, 1_000_000));
            let gone = some(world, &nodes, 1 + world.random.below(3));
            let left = survivors(&nodes, &gone);
            let stopped = world.chance(500);
            for node in &gone {
                if stopped {
                    world.stop(node);
                } else {
                    cut(world, std::slice::from_ref(node), &nodes);
                }
            }
            await_lists(world, 20 * TICK, &[&left])?;
            Ok(())
        })
    });
}

/// Cuts every link between the two groups.
fn cut(world: &World, here: &[Location], there: &[Location]) {
    for a in here {
        for b in there.iter().filter(|b| *b != a) {
            world.wires().cut(a, b);
            world.wires().cut(b, a);
        }
    }
}

#[test]
fn the_slow_must_not_be_thrown_out() {
    run_many("sim_detection the_slow", 200, |seed| {
        let watched = Watched::default();
        let removals = watched.removals.clone();
        schedule(seed, Arc::new(watched), move |world| {
            let nodes = any_ring(world, 1)?;
            for _ in 0..5 {
                let time = world.between(100_000, 1_499_000);
                let slow = &some(world, &nodes, 1)[0];
                if world.chance(500) {
                    world.stop(slow);
                    world.scheduler.sleep(time);
                    world.resume(slow);
                } else {
                    let until = world.scheduler.now() + time;
                    world.wires().slow_down(slow, until);
                    world.scheduler.sleep(time);
                }
                world.scheduler.sleep(world.between(0, 2_000_000));
            }
            let removals = removals.lock().unwrap();
            if removals.is_empty() {
                Ok(())
            } else {
                Err(removals.join("; "))
            }
        })
    });
}

/// Both sides have lost each other, some long ago, and nothing tells them that the link is there again.
#[test]
fn what_was_cut_must_grow_together() {
    run_many("sim_detection what_was_cut", 100, |seed| {
        schedule(seed, Arc::new(PlainRing), |world| {
            let nodes = any_ring(world, 1)?;
            let here = some(world, &nodes, 1 + world.random.below(nodes.len() - 1));
            let there = survivors(&nodes, &here);
            cut(world, &here, &there);
            await_lists(world, 24 * TICK, &[&here, &there])?;
            if world.chance(500) {
                world.scheduler.sleep(world.between(0, 600_000_000));
                world.wires().lose_held();
            }
            world.heal();
            await_lists(world, 240 * TICK, &[&nodes])?;
            Ok(())
        })
    });
}

/// One network loses a node, and the other one gets a node of the same name.
#[test]
fn networks_that_never_knew_each_other_must_stay_apart() {
    run_many("sim_detection networks", 100, |seed| {
        schedule(seed, Arc::new(PlainRing), |world| {
            let one = ring(world, &[0, 1, 2, 3])?;
            let other = ring(world, &[10, 11, 12])?;
            let lost = some(world, &one, 1)[0].clone();
            world.crash(&lost);
            world.scheduler.sleep(world.between(0, 2_000_000));
            world.boot(&lost, other.first());
            let one = survivors(&one, std::slice::from_ref(&lost));
            let other = [&other[..], &[lost]].concat();
            await_lists(world, 60 * TICK, &[&one, &other])?;
            world.scheduler.sleep(world.between(0, 120_000_000));
            await_lists(world, Duration::ZERO, &[&one, &other])?;
            Ok(())
        })
    });
}

/// All members are to reach a candidate at its name. One that can't be reached ends with that reason, and no other node
/// comes in by way of it meanwhile.
#[test]
fn a_candidate_that_a_member_cannot_reach_must_give_up() {
    run_many("sim_detection a_candidate", 100, |seed| {
        schedule(seed, Arc::new(PlainRing), |world| {
            let nodes = ring(world, &[0, 1])?;
            let [contact, other] = &some(world, &nodes, 2)[..] else {
                return Err("no two nodes".to_owned());
            };
            let newcomers = [location(2), location(3)];
            cut(world, &newcomers, std::slice::from_ref(other));
            world.boot(&newcomers[0], Some(contact));
            world.scheduler.sleep(world.between(0, 5_000_000));
            world.boot(&newcomers[1], Some(&newcomers[0]));
            world.scheduler.sleep(60 * TICK);
            let left = world.locations();
            if left == nodes {
                Ok(())
            } else {
                Err(format!("{left:?} go on"))
            }
        })
    });
}
