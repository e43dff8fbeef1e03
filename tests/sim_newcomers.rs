//! Interleavings while nodes come in, each a directed world under its number; the others are in `sim_interleavings.rs`.
//! The seed chooses which message is late or lost.

mod sim;

use std::cell::Cell;
use std::sync::atomic::Ordering;

use thrifty_p2p::digest::digest;

use sim::clock::DAY;
use sim::direct::{Stage, direct_seeds};
use sim::schedule::location;
use sim::wires::Fate;
use sim::world::TICK;

/// Keys that are there before any node comes.
const KEYS: usize = 20;

fn key(number: usize) -> Vec<u8> {
    format!("key {number}").into_bytes()
}

fn put_all(stage: &Stage) -> Result<(), String> {
    (0..KEYS).try_for_each(|number| stage.put(number % 2, &key(number), "there"))
}

/// In the end these are members, all is safe, and each key is read at each of them.
fn must_hold_all(stage: &Stage, nodes: &[usize]) -> Result<(), String> {
    stage.await_members(80.0, nodes)?;
    stage.await_safe(60.0, nodes[0])?;
    for number in 0..KEYS {
        for at in nodes {
            stage.reads(*at, &key(number), "there")?;
        }
    }
    Ok(())
}

/// A wait that the seed chooses, of less than so many ticks.
fn sleep_some(stage: &Stage, ticks: usize) {
    stage.sleep(stage.world.random.below(20 * ticks) as f64 / 20.0);
}

/// Two come at once, by way of two members that for a while don't hear each other.
#[test]
fn world_10_two_that_come_at_once_must_get_to_know_each_other() {
    direct_seeds("sim_newcomers world_10", 2, 60, |stage| {
        stage.begin(2)?;
        put_all(stage)?;
        stage.boot(2, 0);
        sleep_some(stage, 2);
        stage.boot(3, 1);
        sleep_some(stage, 2);
        let (one, other) = if stage.world.chance(500) {
            (1, 2)
        } else {
            (2, 3)
        };
        stage.part(&[one], &[other]);
        sleep_some(stage, 5);
        stage.world.heal();
        must_hold_all(stage, &[0, 1, 2, 3])
    });
}

/// Twelve come at once into a network of three; one of them hangs as soon as it is a member.
#[test]
fn world_18_and_19_many_that_come_at_once_must_not_hold_up_puts_and_get_full() {
    direct_seeds("sim_newcomers world_18", 2, 10, |stage| {
        stage.begin(3)?;
        put_all(stage)?;
        (3..15).for_each(|number| stage.boot(number, number % 3));
        stage.await_that(20.0, "one of them is let in", || {
            (3..15).any(|number| stage.knows(0, number))
        })?;
        let slow = (3..15).find(|number| stage.knows(0, *number));
        let slow = slow.expect("BUG: one was there");
        stage.world.stop(&location(slow));
        let client = stage.client();
        let all: Vec<_> = (0..15).collect();
        // Keys of which it is no replica, now or later: two that are full lie in front of it, and those that come only put
        // more there.
        let lists = stage
            .world
            .subject
            .placement(&[0, 1, 2, slow].map(location));
        for number in 0..30 {
            let far = format!("far {number}").into_bytes();
            if lists(&far).contains(&location(slow)) {
                continue;
            }
            let began = client.now();
            client.put(number % 3, &far, "new")?;
            let took = client.now() - began;
            if took > TICK * 3 {
                return Err(format!("a put took {took:?}"));
            }
        }
        stage.world.resume(&location(slow));
        must_hold_all(stage, &all)
    });
}

/// A member ends and comes back in another life while a newcomer has been told of the life before.
#[test]
fn world_34_a_newcomer_must_not_wait_for_a_life_that_is_over() {
    direct_seeds("sim_newcomers world_34", 2, 60, |stage| {
        stage.begin(3)?;
        put_all(stage)?;
        stage.await_safe(20.0, 0)?;
        stage.boot(3, 0);
        sleep_some(stage, 3);
        stage.crash(2);
        sleep_some(stage, 2);
        stage.boot(2, 1);
        must_hold_all(stage, &[0, 1, 2, 3])
    });
}

/// Two come at once, and don't hear each other for a while.
#[test]
fn world_35_two_that_come_at_once_must_each_take_the_other_in() {
    direct_seeds("sim_newcomers world_35", 2, 60, |stage| {
        stage.begin(3)?;
        put_all(stage)?;
        stage.boot(3, 2);
        stage.boot(4, 2);
        sleep_some(stage, 2);
        stage.part(&[3], &[4]);
        sleep_some(stage, 12);
        stage.world.heal();
        must_hold_all(stage, &[0, 1, 2, 3, 4])
    });
}

/// A member drops a newcomer about when that becomes full.
#[test]
fn world_36_one_that_is_dropped_as_it_becomes_full_must_come_in() {
    direct_seeds("sim_newcomers world_36", 2, 60, |stage| {
        stage.begin(2)?;
        put_all(stage)?;
        stage.boot(2, 0);
        sleep_some(stage, 2);
        stage.part(&[1], &[2]);
        stage.sleep(9.0);
        sleep_some(stage, 6);
        stage.world.heal();
        must_hold_all(stage, &[0, 1, 2])
    });
}

/// R 1: the only full member begins to leave as the newcomer becomes full.
#[test]
fn a_leaver_must_not_answer_beside_one_that_has_become_full() {
    direct_seeds("sim_newcomers a_leaver_must_not_answer", 1, 150, |stage| {
        stage.begin(1)?;
        let key = stage.key(&[1], &[0, 1]);
        stage.put(0, &key, "old")?;
        // That it is full is heard late.
        let late = Fate::Late(TICK.mul_f64(1.0 + stage.world.random.below(20) as f64 / 10.0));
        let pass = 3 + stage.world.random.below(8);
        let link = (&location(1), &location(0));
        stage.world.wires().trap(link, pass, 1 + pass, late);
        stage.boot(1, 0);
        stage.await_that(20.0, "it is let in", || stage.knows(0, 1))?;
        stage.sleep(stage.world.random.below(40) as f64 / 100.0);
        for (at, times) in [(0, 20), (1, 40)] {
            let (reader, key) = (stage.client(), key.clone());
            stage.meanwhile("reads", move || {
                for _ in 0..times {
                    let _ = reader.get(at, &key);
                    reader.sleep(0.01);
                }
            });
        }
        let left = stage.begin_leaving(0);
        for number in 0..20 {
            stage.try_put(1, &key, format!("new {number}").as_bytes());
            stage.sleep(0.05);
        }
        stage.await_that(40.0, "it has left", || left.load(Ordering::Relaxed) > 0)?;
        stage.await_all();
        stage.get(1, &key).map(|_| ())
    });
}

/// A key whose nodes are, as they come in, 0 with 1 behind it, then 2 with 3 behind it.
fn key_of_newcomers(stage: &Stage) -> Vec<u8> {
    let first = |key: &[u8], nodes: &[usize]| {
        let nodes = nodes.iter();
        let nodes: Vec<_> = nodes.map(|node| location(*node)).collect();
        stage.world.subject.placement(&nodes)(key)[0].clone()
    };
    let keys = (0..).map(|number| format!("k{number}").into_bytes());
    let is_so = |key: &Vec<u8>| {
        first(key, &[0, 1, 2, 3]) == location(2)
            && first(key, &[0, 1, 3]) == location(3)
            && first(key, &[0, 1]) == location(0)
    };
    let mut keys = keys.take(10_000).filter(is_so);
    keys.next().expect("BUG: no such key")
}

/// Whether that one has these as members, all of them full.
fn sees_full(stage: &Stage, at: usize, nodes: &[usize]) -> bool {
    let node = stage.world.node(&location(at));
    node.is_some_and(|node| {
        let members = node.members();
        let mut nodes = nodes.iter().map(|node| (location(*node), false));
        nodes.all(|full| members.contains(&full))
    })
}

/// A client that reads a key all the time, for so many ticks.
fn read_beside(stage: &Stage, at: usize, key: &[u8], ticks: usize) {
    let (reader, key) = (stage.client(), key.to_vec());
    let until = stage.now() + TICK * ticks as u32;
    stage.meanwhile("reads", move || {
        while reader.now() < until {
            let _ = reader.get(at, &key);
            reader.sleep(0.01);
        }
    });
}

/// A client puts by way of 3 until that is acknowledged; another one reads at 0 all the time.
fn put_and_read_beside(stage: &Stage, key: &[u8], ticks: usize) -> Result<(), String> {
    let until = stage.now() + TICK * ticks as u32;
    read_beside(stage, 0, key, ticks);
    let mut number = 0;
    while !stage.try_put(3, key, format!("new {number}").as_bytes()) {
        number += 1;
        stage.sleep(0.1);
        if stage.now() > until {
            return Err("no put is acknowledged".to_owned());
        }
    }
    stage.await_all();
    Ok(())
}

fn hang(stage: &Stage, at: usize, methods: &'static [&'static str]) {
    stage.world.wires().hang(&location(at), methods);
}

/// 2 and 3 come at once, and get a key of which one is to be the primary, and the other one its granter. They can't be
/// full before they compare with each other.
fn begin_with_two_that_come(stage: &Stage) -> Result<Vec<u8>, String> {
    stage.begin(2)?;
    let key = key_of_newcomers(stage);
    stage.put(0, &key, "old")?;
    for at in [0, 2, 3] {
        hang(stage, at, &["compare"]);
    }
    stage.boot(2, 0);
    stage.boot(3, 0);
    stage.await_that(20.0, "both are let in, and know it", || {
        stage.knows(2, 3) && stage.knows(3, 2)
    })?;
    hang(stage, 0, &[]);
    stage.await_that(20.0, "both have the key", || {
        let node = |at| stage.world.node(&location(at));
        let has = |at| node(at).is_some_and(|node| node.items().iter().any(|item| item.key == key));
        has(2) && has(3)
    })?;
    stage.sleep(0.2);
    Ok(key)
}

fn let_them_become_full(stage: &Stage) -> Result<(), String> {
    for at in [2, 3] {
        hang(stage, at, &[]);
    }
    stage.await_that(20.0, "both are full", || {
        sees_full(stage, 2, &[2, 3]) && sees_full(stage, 3, &[2, 3])
    })
}

fn heal_after(stage: &Stage, ticks: f64) {
    let healer = stage.clone();
    stage.meanwhile("heals", move || {
        healer.sleep(ticks);
        healer.world.heal();
    });
}

/// Two become full at once, and the node that was the primary before hears it late.
fn two_become_full_unheard(stage: &Stage) -> Result<(), String> {
    let key = begin_with_two_that_come(stage)?;
    hang(stage, 0, &["ask"]);
    for to in [2, 3] {
        stage.world.wires().deafen(&location(0), &location(to));
    }
    let_them_become_full(stage)?;
    heal_after(stage, 2.0);
    put_and_read_beside(stage, &key, 20)
}

#[test]
fn two_full_at_once_must_not_serve_beside_the_primary_before() {
    for replicas in [1, 2] {
        direct_seeds(
            "sim_newcomers two_full_at_once",
            replicas,
            60,
            two_become_full_unheard,
        );
    }
}

/// The same, but the two lose the primary before they are full. Another member grants it a lease until then.
fn two_become_full_without(stage: &Stage) -> Result<(), String> {
    let key = begin_with_two_that_come(stage)?;
    for from in [2, 3] {
        stage.world.wires().deafen(&location(from), &location(0));
    }
    stage.sleep(5.0);
    stage.part(&[0], &[2, 3]);
    stage.await_that(20.0, "both lose it", || {
        !stage.knows(2, 0) && !stage.knows(3, 0)
    })?;
    let_them_become_full(stage)?;
    heal_after(stage, 6.0);
    put_and_read_beside(stage, &key, 20)
}

#[test]
fn two_full_without_the_primary_before_must_not_serve_beside_it() {
    for replicas in [1, 2] {
        direct_seeds(
            "sim_newcomers two_full_without",
            replicas,
            60,
            two_become_full_without,
        );
    }
}

/// 0 has lost 1 and 2, and they have lost 0; the others have all of them. So nothing is acknowledged for a key of 0 and 1,
/// until 4 becomes full between the two, as its second replica. Then 1, which hears of it late, must not show what was
/// there before.
fn become_full_between_two_that_lost_each_other(stage: &Stage) -> Result<(), String> {
    stage.begin(4)?;
    let placed = |key: &[u8], nodes: &[usize]| {
        let nodes: Vec<_> = nodes.iter().map(|node| location(*node)).collect();
        stage.world.subject.placement(&nodes)(key)
    };
    let mut keys = stage.keys_of(&[0, 4], &[0, 1, 2, 3, 4]);
    let behind = [1, 2].map(location);
    let key = keys.find(|key| placed(key, &[1, 2, 3]) == behind);
    let key = key.ok_or("no such key")?;
    stage.put(0, &key, "old")?;
    hang(stage, 3, &["compare"]);
    stage.boot(4, 3);
    stage.await_that(20.0, "it has the key", || {
        let node = stage.world.node(&location(4));
        node.is_some_and(|node| node.items().iter().any(|item| item.key == key))
    })?;
    stage.sleep(0.2);
    stage.part(&[0], &[1, 2]);
    stage.await_that(30.0, "they have lost each other", || {
        let apart = |other| !stage.knows(0, other) && !stage.knows(other, 0);
        apart(1) && apart(2)
    })?;
    hang(stage, 3, &[]);
    while !sees_full(stage, 4, &[4]) {
        stage.sleep(0.001);
    }
    // What says so is still on its way.
    stage.part(&[4], &[1, 2]);
    heal_after(stage, 5.0);
    read_beside(stage, 1, &key, 12);
    while !stage.try_put(0, &key, b"new") {
        stage.sleep(0.1);
    }
    stage.await_all();
    Ok(())
}

#[test]
fn one_full_between_two_that_lost_each_other_must_not_accept_what_the_third_does_not_know() {
    direct_seeds(
        "sim_newcomers one_full_between",
        2,
        60,
        become_full_between_two_that_lost_each_other,
    );
}

/// A node that has just begun to leave and the other replica of its keys hang until they are lost: what both held is
/// missing.
#[test]
fn must_not_say_safe_when_a_leaver_is_lost_with_the_other_replica() {
    direct_seeds("sim_newcomers must_not_say_safe_when_a", 2, 40, |stage| {
        stage.begin(4)?;
        let key = stage.key(&[1, 2], &[0, 1, 2, 3]);
        stage.put(0, &key, "there")?;
        stage.await_safe(20.0, 0)?;
        stage.begin_leaving(1);
        // Long enough for the others to hear of it, too short to hand anything over.
        stage.sleep(stage.world.random.below(6) as f64 / 1000.0);
        stage.world.stop(&location(1));
        stage.world.stop(&location(2));
        stage.await_that(60.0, "both are dropped", || {
            !stage.knows(0, 1) && !stage.knows(0, 2)
        })?;
        stage.is_never_safe(20.0, 0, "though a key is missing")
    });
}

/// All nodes but one are killed. Two of them come back, and look for each other and for a third one that stays away.
/// The node that is left puts questions to those that it has lost.
#[test]
fn must_find_the_network_that_asks_for_them_though_their_own_peer_is_gone() {
    direct_seeds(
        "sim_newcomers must_find_the_network_that_asks",
        2,
        20,
        |stage| {
            stage.begin(4)?;
            put_all(stage)?;
            stage.await_safe(40.0, 0)?;
            (1..4).for_each(|number| stage.crash(number));
            sleep_some(stage, 4);
            stage.boot(1, 3);
            sleep_some(stage, 2);
            stage.boot(2, 1);
            stage.await_members(80.0, &[0, 1, 2])
        },
    );
}

/// The same where it has lost many: it asks each of them before the nodes that came back stop looking.
#[test]
fn must_find_the_network_that_has_lost_many() {
    direct_seeds(
        "sim_newcomers must_find_the_network_that_has",
        2,
        8,
        |stage| {
            stage.begin(20)?;
            (1..20).for_each(|number| stage.crash(number));
            stage.await_that(20.0, "the others are lost", || stage.are_members(&[0]))?;
            sleep_some(stage, 20);
            stage.boot(1, 2);
            stage.boot(2, 1);
            stage.await_members(80.0, &[0, 1, 2])
        },
    );
}

/// More nodes than a member keeps in mind at a time: the others are told to ask again, and do.
#[test]
fn must_let_in_a_hundred_that_start_at_once() {
    let name = "sim_newcomers must_let_in_a_hundred";
    direct_seeds(name, 2, 1, |stage| {
        stage.begin(1)?;
        (1..=100).for_each(|number| stage.boot(number, 0));
        let all: Vec<_> = (0..=100).collect();
        stage.await_members(60.0, &all)?;
        stage.await_safe(60.0, 0)
    });
}

/// One that was cut off returns with a put whose version is ahead of the primary's clock, and has yet to hand it over.
#[test]
fn a_put_must_go_above_what_a_returning_one_has_yet_to_hand_over() {
    direct_seeds("sim_newcomers a_put_must_go_above", 2, 40, |stage| {
        (0..3).for_each(|at| stage.world.clock(&location(at)).set_ahead(0));
        stage.world.clock(&location(3)).set_ahead(DAY / 24);
        stage.begin(4)?;
        let key = stage.key(&[3, 0], &[0, 1, 2, 3]);
        stage.put(1, &key, "old")?;
        stage.part(&[3], &[0, 1, 2]);
        stage.await_that(40.0, "they have lost each other", || {
            stage.are_members(&[3]) && stage.are_members(&[0, 1, 2])
        })?;
        stage.put(3, &key, "cut off")?;
        stage.world.heal();
        // The one that returns is the one that compares. (Healing ends what hangs.)
        (0..3).for_each(|at| hang(stage, at, &["compare"]));
        stage.await_that(60.0, "it is let in", || {
            (0..3).all(|at| stage.knows(at, 3) && stage.knows(3, at))
        })?;
        stage.put(0, &key, "new")?;
        (0..3).for_each(|at| hang(stage, at, &[]));
        stage.await_members(80.0, &[0, 1, 2, 3])?;
        (0..4).try_for_each(|at| stage.reads(at, &key, "new"))
    });
}

/// Two keys in one shard, whose items are handed over together: with 0, 1 and 2 there, one belongs to 1, before that to 0,
/// and the other one to 2.
fn keys_of_one_shard(stage: &Stage) -> (Vec<u8>, Vec<u8>) {
    const SHARDS: u64 = 1024;
    let before = stage.world.subject.placement(&[0, 2].map(location));
    let mut keys = stage.keys_of(&[1], &[0, 1, 2]);
    let one = keys.find(|key| before(key) == [location(0)]);
    let one = one.expect("BUG: no such key");
    let mut keys = stage.keys_of(&[2], &[0, 1, 2]);
    let other = keys.find(|key| digest(key) % SHARDS == digest(&one) % SHARDS);
    (one, other.expect("BUG: no such key"))
}

/// R 1: a newcomer confirms an item and leaves, while the node that offered it still waits for another one's answer. The
/// item belongs to that node again.
#[test]
fn one_that_leaves_as_it_confirms_an_item_must_not_take_it_along() {
    direct_seeds("sim_newcomers one_that_leaves_as_it", 1, 60, |stage| {
        stage.begin(1)?;
        let (key, other) = keys_of_one_shard(stage);
        stage.put(0, &key, "there")?;
        stage.put(0, &other, "there")?;
        // It gets its key as it comes in, and never confirms it.
        hang(stage, 2, &["store"]);
        stage.boot(2, 0);
        stage.await_members(40.0, &[0, 2])?;
        let sent = || stage.world.wires().sent(&location(0), "store");
        let before = Cell::new(0);
        stage.boot(1, 0);
        stage.await_that(40.0, "it is full", || {
            let full = sees_full(stage, 0, &[1]);
            if !full {
                before.set(sent());
            }
            full
        })?;
        stage.await_that(10.0, "both are offered their keys", || {
            sent() >= before.get() + 2
        })?;
        stage.sleep(0.1);
        stage.leave(20.0, 1)?;
        stage.sleep(4.0);
        stage.reads(0, &key, "there")?;
        stage.reads(2, &key, "there")
    });
}

/// One that leaves loses the primary, which has not lost it yet, and goes on with one that is joining. No other node is
/// full: the lease of the primary was that of the leaver.
fn leaver_goes_on_without_the_primary(stage: &Stage) -> Result<(), String> {
    stage.begin(2)?;
    let key = stage.key(&[0], &[0, 1, 2]);
    stage.put(0, &key, "old")?;
    // So 2 does not become full, and 1 does not end.
    (0..2).for_each(|at| hang(stage, at, &["compare"]));
    stage.boot(2, 0);
    stage.await_that(20.0, "it is let in, and all know it", || {
        let mut know = [(0, 2), (1, 2), (2, 0), (2, 1)].into_iter();
        know.all(|(at, other)| stage.knows(at, other))
    })?;
    stage.begin_leaving(1);
    stage.await_that(4.0, "the others know that it leaves", || {
        !sees_full(stage, 0, &[1]) && !sees_full(stage, 2, &[1])
    })?;
    // The primary is silent to both, and they still answer it.
    for from in [1, 2] {
        let mut wires = stage.world.wires();
        wires.deafen(&location(from), &location(0));
    }
    stage.sleep(6.0);
    // It is not to hear that they have lost it.
    stage.part(&[0], &[1, 2]);
    stage.await_that(20.0, "both lose it", || {
        !stage.knows(1, 0) && !stage.knows(2, 0)
    })?;
    stage.put(1, &key, "new")?;
    read_beside(stage, 0, &key, 2);
    let until = stage.now() + TICK * 2;
    // Once it has lost them as well, it is alone, and may answer two ticks later.
    while stage.now() < until && stage.knows(0, 1) {
        stage.sleep(0.1);
    }
    Ok(())
}

#[test]
fn a_primary_must_not_answer_without_the_lease_of_a_leaver_that_has_lost_it() {
    for replicas in [1, 2] {
        direct_seeds(
            "sim_newcomers a_primary_must_not_answer_without",
            replicas,
            60,
            leaver_goes_on_without_the_primary,
        );
    }
}

/// One that is cut off has known only lives that have ended when it reaches the others again, and they have never known it.
#[test]
fn must_find_the_network_though_all_others_have_been_restarted() {
    let name = "sim_newcomers must_find_the_network_though";
    direct_seeds(name, 2, 8, |stage| {
        stage.begin(3)?;
        put_all(stage)?;
        stage.await_safe(40.0, 0)?;
        stage.part(&[0], &[1, 2]);
        stage.await_members(40.0, &[1, 2])?;
        for (number, other) in [(1, 2), (2, 1)] {
            stage.await_safe(40.0, other)?;
            stage.crash(number);
            sleep_some(stage, 30);
            stage.boot(number, other);
            stage.await_members(80.0, &[1, 2])?;
        }
        sleep_some(stage, 30);
        stage.world.heal();
        must_hold_all(stage, &[0, 1, 2])
    });
}
