//! The store in schedules that are written step by step, each with one thing that goes wrong and that chance brings
//! about too seldom. The seed decides which node runs when.

mod sim;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use sim::history::{Outcome, Promise};
use sim::plan::{Class, Plan};
use sim::runner::{Figures, run_many, run_world};
use sim::schedule::location;
use sim::store::StoreRing;
use sim::world::{Options, Subject, TICK, World};
use thrifty_p2p::location::Location;
use thrifty_p2p::net::Network;

/// Some seeds of a world of stores.
fn direct(name: &str, replicas: usize, play: fn(&Arc<World>) -> Result<Figures, String>) {
    run_many(&format!("sim_directed {name}"), 50, |seed| {
        let subject: Arc<dyn Subject> = Arc::new(StoreRing { replicas });
        let plan = Plan::new(Class::Late, replicas);
        let options = Options {
            watch_stability: true,
            ..plan.options()
        };
        run_world(seed, &subject, options, play)
    });
}

/// Keys `k0` to `k7` with this value.
fn put_all(world: &World, net: &dyn Network, at: usize, value: &str) -> Result<(), String> {
    let subject = &world.subject;
    (0..8).try_for_each(|number| {
        let key = format!("k{number}");
        subject.put(net, &location(at), key.as_bytes(), value.as_bytes())
    })
}

/// None of them reads as anything else; it may be that there is no answer.
fn read_all(world: &World, net: &dyn Network, at: usize, value: &str) -> Result<(), String> {
    (0..8).try_for_each(|number| {
        let key = format!("k{number}");
        let read = world.subject.get(net, &location(at), key.as_bytes());
        match read {
            Ok(read) if read != value.as_bytes() => Err(format!("{key} reads {read:?}")),
            _ => Ok(()),
        }
    })
}

/// So many nodes that have agreed.
fn begin(world: &Arc<World>, nodes: usize) -> Result<(), String> {
    world.boot(&location(0), None);
    world.scheduler.sleep(TICK);
    for number in 1..nodes {
        world.boot(&location(number), Some(&location(0)));
    }
    world.scheduler.sleep(Duration::from_secs(5));
    world.safe()
}

/// A node is stopped, dropped, and continued.
fn stopped_and_continued(world: &Arc<World>) -> Result<Figures, String> {
    let net = world.client();
    begin(world, 4)?;
    put_all(world, &net, 0, "old")?;
    world.stop(&location(2));
    world.scheduler.sleep(Duration::from_secs(8));
    put_all(world, &net, 1, "new")?;
    world.resume(&location(2));
    read_all(world, &net, 2, "new")?;
    Ok(Figures::default())
}

#[test]
fn must_not_answer_from_an_old_state() {
    direct("must_not_answer", 2, stopped_and_continued);
}

/// A node leaves while the nodes that are to take its keys are stopped for a while.
fn left_to_the_slow(world: &Arc<World>) -> Result<Figures, String> {
    let net = world.client();
    begin(world, 2)?;
    put_all(world, &net, 0, "old")?;
    world.stop(&location(0));
    world.leave(&location(1), |_| ());
    world.scheduler.sleep(world.between(0, 1_400_000));
    world.resume(&location(0));
    for _ in 0..50 {
        world.scheduler.sleep(world.between(0, 2_000));
        read_all(world, &net, 0, "old")?;
    }
    Ok(Figures::default())
}

#[test]
fn must_not_go_before_others_have_what_it_has() {
    direct("must_not_go", 1, left_to_the_slow);
}

/// One link is cut: its two ends lose each other, and all other nodes keep both.
fn one_link_cut(world: &Arc<World>) -> Result<Figures, String> {
    begin(world, 4)?;
    let (here, there) = (location(0), location(2));
    world.wires().cut(&here, &there);
    world.wires().cut(&there, &here);
    let mut dropped = false;
    for _ in 0..200 {
        world.scheduler.sleep(TICK / 5);
        let node = world.node(&here).ok_or("it has ended")?;
        dropped |= node.members().iter().all(|(member, _)| *member != there);
        for other in [location(1), location(3)] {
            let node = world.node(&other).ok_or("it has ended")?;
            let members = node.members();
            let knows = |end: &_| members.iter().any(|(member, _)| member == end);
            if !knows(&here) || !knows(&there) {
                return Err(format!("{other} knows {members:?}"));
            }
        }
    }
    if !dropped {
        return Err("the link is not cut".to_owned());
    }
    Ok(Figures::default())
}

#[test]
fn must_not_drop_a_node_on_another_ones_word() {
    direct("must_not_drop", 2, one_link_cut);
}

/// A node that is cut off from the other one removes all keys, and leaves.
fn removed_in_a_part(world: &Arc<World>) -> Result<Figures, String> {
    let net = world.client();
    begin(world, 2)?;
    put_all(world, &net, 0, "old")?;
    let (here, there) = (location(0), location(1));
    world.wires().cut(&here, &there);
    world.wires().cut(&there, &here);
    world.scheduler.sleep(Duration::from_secs(8));
    put_all(world, &net, 0, "")?;
    let complete = Arc::new(AtomicBool::new(true));
    let told = complete.clone();
    world.leave(&here, move |complete| {
        told.store(complete, Ordering::Relaxed)
    });
    world.scheduler.sleep(Duration::from_secs(20));
    if complete.load(Ordering::Relaxed) || world.node(&here).is_some() {
        return Err("it doesn't say that nobody has taken the removals".to_owned());
    }
    Ok(Figures::default())
}

#[test]
fn regression_must_not_take_its_removals_along_in_silence() {
    direct("regression_must_not_take", 2, removed_in_a_part);
}

/// Four nodes, of which the last and the others have lost each other.
fn begin_and_cut_one_off(world: &Arc<World>) -> Result<Location, String> {
    begin(world, 4)?;
    let alone = location(3);
    for other in (0..3).map(location) {
        world.wires().cut(&alone, &other);
        world.wires().cut(&other, &alone);
    }
    world.scheduler.sleep(Duration::from_secs(8));
    Ok(alone)
}

/// What a part has acknowledged comes back with it, perhaps from a clock that is ahead, and may win; but not over what
/// is put once all agree and are full.
fn put_after_a_cut(world: &Arc<World>) -> Result<Figures, String> {
    let net = world.client();
    begin_and_cut_one_off(world)?;
    put_all(world, &net, 3, "cut off")?;
    world.heal();
    while world.agreed().is_err() {
        world.scheduler.sleep(Duration::from_millis(1));
    }
    put_all(world, &net, 0, "new")?;
    for _ in 0..20 {
        world.scheduler.sleep(TICK / 5);
        read_all(world, &net, 1, "new")?;
    }
    Ok(Figures::default())
}

#[test]
fn must_keep_what_is_put_after_a_cut() {
    direct("must_keep_what_is_put", 2, put_after_a_cut);
}

/// The same while the cut heals, and answers are late: an acknowledgement may have been given before what
/// the part has came in, and be heard behind it.
fn put_while_a_cut_heals(world: &Arc<World>) -> Result<Figures, String> {
    let net = world.client();
    let alone = begin_and_cut_one_off(world)?;
    for key in (0..8).map(|key| format!("k{key}").into_bytes()) {
        let operation = world.history().begin_put(&key, b"cut off");
        world.subject.put(&net, &alone, &key, b"cut off")?;
        let outcome = Outcome::Acknowledged(None);
        world.history().end(operation, net.began(), outcome);
    }
    {
        let weather = &mut world.wires().weather;
        (weather.late, weather.late_methods) = (500, vec!["forward", "store"]);
    }
    world.heal();
    let working = Arc::new(AtomicUsize::new(8));
    for key in (0..8).map(|key| format!("k{key}").into_bytes()) {
        let (world, working) = (world.clone(), working.clone());
        world.clone().spawn("client", move || {
            let (net, at, subject) = (world.client(), location(0), &world.subject);
            let mut number = 0;
            while number < 10 || world.agreed().is_err() {
                number += 1;
                let value = format!("new {number}").into_bytes();
                let operation = world.history().begin_put(&key, &value);
                let put = subject.put(&net, &at, &key, &value);
                let outcome = put.map_or(Outcome::Unknown, |()| Outcome::Acknowledged(None));
                world.history().end(operation, net.began(), outcome);
                let operation = world.history().begin_get(&key);
                let read = subject.get(&net, &at, &key);
                let outcome = read.map_or(Outcome::Unknown, Outcome::Read);
                world.history().end(operation, net.began(), outcome);
            }
            working.fetch_sub(1, Ordering::Relaxed);
        });
    }
    while working.load(Ordering::Relaxed) > 0 {
        world.scheduler.sleep(TICK);
    }
    world.history().check_reads(Promise::WhileStable)?;
    Ok(Figures::default())
}

#[test]
fn regression_must_keep_what_is_acknowledged_after_a_cut() {
    direct("regression_must_keep", 2, put_while_a_cut_heals);
}

/// A node starts at the name of a lost node of this network, but joins another network, and takes long to become full.
/// Puts and gets here must not go by way of it.
fn other_network_at_its_place(world: &Arc<World>) -> Result<Figures, String> {
    let net = world.client();
    begin(world, 2)?;
    world.boot(&location(2), None);
    world.scheduler.sleep(TICK);
    world.boot(&location(3), Some(&location(2)));
    world.scheduler.sleep(Duration::from_secs(5));
    put_all(world, &net, 0, "one")?;
    put_all(world, &net, 2, "other")?;
    // The newcomer can't be full before this one answers, or is dropped.
    world.stop(&location(3));
    world.crash(&location(1));
    world.boot(&location(1), Some(&location(2)));
    world.scheduler.sleep(4 * TICK);
    read_all(world, &net, 0, "one")?;
    // Not all of them are answered: the other network waits for the one that is stopped.
    let _ = put_all(world, &net, 0, "one's own");
    read_all(world, &net, 2, "other")?;
    Ok(Figures::default())
}

#[test]
fn regression_must_not_mix_networks_while_one_of_the_other_fills_at_its_place() {
    direct("regression_must_not_mix", 2, other_network_at_its_place);
}

/// Two newcomers lose the network before they have got what it has: they must not be one for each other.
fn lost_before_full(world: &Arc<World>) -> Result<Figures, String> {
    let net = world.client();
    begin(world, 2)?;
    put_all(world, &net, 0, "old")?;
    {
        let weather = &mut world.wires().weather;
        (weather.late, weather.late_methods) = (1000, vec!["compare", "exchange"]);
    }
    let newcomers = [2, 3].map(location);
    for newcomer in &newcomers {
        world.boot(newcomer, Some(&location(0)));
    }
    let know = |members: usize| {
        let nodes = newcomers.iter().flat_map(|at| world.node(at));
        nodes.filter(|node| node.members().len() == members).count() == 2
    };
    for _ in 0..20 {
        if know(4) {
            break;
        }
        world.scheduler.sleep(TICK / 20);
    }
    world.crash(&location(0));
    world.crash(&location(1));
    for _ in 0..200 {
        world.scheduler.sleep(TICK / 5);
        if put_all(world, &net, 2, "new").is_ok() {
            // One of them had become full before.
            let kept = read_all(world, &net, 2, "new");
            return kept.map(|()| Figures::default());
        }
        if world.locations().is_empty() {
            return Ok(Figures::default());
        }
    }
    Err(format!("{:?} go on", world.locations()))
}

#[test]
fn regression_must_not_be_a_network_of_nodes_that_were_never_full() {
    direct("regression_must_not_be", 2, lost_before_full);
}
