//! The interleavings that shaped the core's second form, each a directed world under its number. What
//! depends on a message that the second form alone has (grant, sync, done) is staged from outside: the
//! seed chooses which message between two nodes is lost or late, whatever it says.
//!
//! 11, 12, 16 and 30 are in `sim_worse.rs`, 10, 18, 19, 34, 35 and 36 in `sim_newcomers.rs`, 31 in `sim_mixed.rs`; 24 is
//! in `tcp.rs`, as a byte a second is a matter of sockets.

mod sim;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sim::clock::DAY;
use sim::direct::{Stage, direct, direct_seeds};
use sim::schedule::location;
use sim::wires::Fate;
use sim::world::TICK;

/// A request ends after twelve ticks: with the last of its pauses, a quarter of a tick, and its way there and back.
const REQUEST_MAX: Duration = TICK.saturating_mul(25).checked_div(2).unwrap();

/// A client that reads again and again; the history judges what it sees.
fn read_meanwhile(stage: &Stage, at: usize, key: &[u8], times: usize) {
    let (reader, key) = (stage.client(), key.to_vec());
    stage.meanwhile("reads", move || {
        for _ in 0..times {
            let _ = reader.get(at, &key);
            reader.sleep(0.2);
        }
    });
}

/// A client that puts again and again, each time another value.
fn put_meanwhile(stage: &Stage, at: usize, key: &[u8], times: usize) {
    let (writer, key) = (stage.client(), key.to_vec());
    stage.meanwhile("puts", move || {
        for number in 0..times {
            let value = format!("at {at}, {number}");
            writer.try_put(at, &key, value.as_bytes());
            writer.sleep(0.2);
        }
    });
}

/// Puts until it is acknowledged.
fn put_at_last(stage: &Stage, at: usize, key: &[u8], ticks: f64) -> Result<(), String> {
    let until = stage.now() + TICK.mul_f64(ticks);
    let mut number = 0;
    loop {
        number += 1;
        match stage.put(at, key, format!("new {number}")) {
            Err(why) if stage.now() > until => return Err(why),
            Err(_) => stage.sleep(0.2),
            Ok(()) => return Ok(()),
        }
    }
}

/// B and C don't reach A any more, D does. They put without A, which must not answer the old value.
fn primary_reached_by_one(stage: &Stage) -> Result<(), String> {
    stage.begin(4)?;
    // Its list without A is B, C: they need nobody else.
    let without = stage.world.subject.placement(&[1, 2, 3].map(location));
    let then = [1, 2].map(location);
    let mut keys = stage.keys_of(&[0, 1], &[0, 1, 2, 3]);
    let key = keys.find(|key| without(key) == then).ok_or("no such key")?;
    stage.put(1, &key, "old")?;
    stage.part(&[0], &[1, 2]);
    // Those before B and C have lost A wait as long as a request may.
    let acknowledged = Arc::new(AtomicBool::new(false));
    let (writer, written, noted) = (stage.client(), key.clone(), acknowledged.clone());
    stage.meanwhile("puts", move || {
        for number in 0..20 {
            if writer.try_put(1, &written, format!("new {number}").as_bytes()) {
                noted.store(true, Ordering::Relaxed);
            }
            writer.sleep(0.2);
        }
    });
    // Until both sides have lost each other, and longer: which is the first to do so is left to chance.
    let until = stage.now() + 16 * TICK;
    for at in [0, 0, 0, 3] {
        let (reader, key) = (stage.client(), key.clone());
        stage.meanwhile("reads", move || {
            while reader.now() < until {
                let _ = reader.get(at, &key);
                reader.sleep(0.05);
            }
        });
    }
    stage.await_all();
    match acknowledged.load(Ordering::Relaxed) {
        true => Ok(()),
        false => Err("B and C have not acknowledged anything without A".to_owned()),
    }
}

#[test]
fn world_01_the_lease_must_come_from_the_next_full_member() {
    direct_seeds("sim_interleavings world_01", 2, 60, primary_reached_by_one);
}

/// R 1: A hangs and is dropped, B acknowledges, A wakes with a put in its queue and a slow clock.
#[test]
fn world_02_a_node_that_wakes_must_not_acknowledge_alone() {
    direct_seeds("sim_interleavings world_02", 1, 60, |stage| {
        stage.world.clock(&location(0)).set_ahead(-DAY);
        stage.begin(3)?;
        let key = stage.key(&[0], &[0, 1, 2]);
        stage.put(0, &key, "old")?;
        stage.world.stop(&location(0));
        stage.put_meanwhile(0, &key, "queued");
        put_at_last(stage, 1, &key, 20.0)?;
        stage.world.resume(&location(0));
        stage.await_all();
        stage.await_members(60.0, &[0, 1, 2])?;
        (0..3).try_for_each(|at| stage.get(at, &key).map(|_| ()))
    });
}

/// R 1: J joins in front of P; for a while some message between the two is late.
#[test]
fn world_03_a_new_primary_must_not_serve_beside_the_old_one() {
    direct_seeds("sim_interleavings world_03", 1, 100, |stage| {
        stage.begin(2)?;
        let nodes: Vec<_> = [0, 1, 2].map(location).into();
        let in_front = stage.world.subject.placement(&nodes);
        let mut keys = stage.keys_of(&[0], &[0, 1]);
        let key = keys
            .find(|key| in_front(key) == [location(2)])
            .ok_or("no such key")?;
        stage.put(0, &key, "old")?;
        let (from, to) = if stage.world.chance(500) {
            (2, 0)
        } else {
            (0, 2)
        };
        let late = Fate::Late(TICK.mul_f64(stage.world.random.below(60) as f64 / 10.0));
        let pass = stage.world.random.below(8);
        let link = (&location(from), &location(to));
        stage.world.wires().trap(link, pass, 1 + pass, late);
        stage.boot(2, 1);
        for at in [0, 1, 2] {
            put_meanwhile(stage, at, &key, 20);
            read_meanwhile(stage, at, &key, 40);
        }
        stage.await_all();
        Ok(())
    });
}

/// Puts go on while nodes join, and each message may be the one that is late: what comes between a look
/// at the list and the act must not be lost. (4, 6)
fn join_while_putting(stage: &Stage) -> Result<(), String> {
    stage.begin(2)?;
    let keys: Vec<_> = (0..4)
        .map(|number| format!("k{number}").into_bytes())
        .collect();
    for key in &keys {
        stage.put(0, key, "old")?;
        put_meanwhile(stage, 0, key, 40);
        put_meanwhile(stage, 1, key, 40);
    }
    for (from, to) in [(0, 2), (2, 0), (1, 2), (2, 1), (0, 1), (1, 0)] {
        let pass = stage.world.random.below(20);
        let late = Fate::Late(TICK.mul_f64(stage.world.random.below(9) as f64 / 10.0));
        let link = (&location(from), &location(to));
        stage.world.wires().trap(link, pass, 3, late);
    }
    stage.boot(2, stage.world.random.below(2));
    for at in [0, 1, 2] {
        keys.iter()
            .for_each(|key| read_meanwhile(stage, at, key, 30));
    }
    stage.await_all();
    Ok(())
}

#[test]
fn world_04_a_put_that_comes_while_a_node_is_taken_in_must_reach_it() {
    direct_seeds("sim_interleavings world_04", 1, 50, join_while_putting);
    direct_seeds("sim_interleavings world_04", 2, 50, join_while_putting);
}

/// A key's version is far ahead of all clocks, at two nodes of which one begins anew and holds nothing: a
/// put by way of that one must go above.
#[test]
fn world_05_a_put_must_go_above_what_any_replica_has() {
    direct_seeds("sim_interleavings world_05", 2, 60, |stage| {
        (0..3).for_each(|number| stage.world.clock(&location(number)).set_ahead(0));
        stage.world.clock(&location(0)).set_ahead(DAY / 24);
        stage.begin(3)?;
        let key = stage.key(&[0, 1], &[0, 1, 2]);
        stage.put(0, &key, "old")?;
        stage.world.clock(&location(0)).set_ahead(0);
        stage.crash(0);
        stage.sleep(stage.world.random.below(30) as f64 / 10.0);
        stage.boot(0, 2);
        let writers = stage.clone();
        let begin = move || {
            (0..3).for_each(|at| put_meanwhile(&writers, at, &key, 20));
            (0..3).for_each(|at| read_meanwhile(&writers, at, &key, 40));
            key
        };
        let key = if stage.world.chance(500) {
            begin()
        } else {
            // The first put after the one ahead is that of the node that began anew, as the primary.
            stage.await_members(40.0, &[0, 1, 2])?;
            begin()
        };
        stage.await_all();
        stage.put(2, &key, "last")?;
        stage.sleep(stage.world.random.below(20) as f64);
        (0..3).try_for_each(|at| stage.reads(at, &key, "last"))
    });
}

/// M drops J for silence while J is coming in, acknowledges without it, and takes it back.
#[test]
fn world_06_what_was_said_to_one_that_was_lost_must_not_count() {
    direct_seeds("sim_interleavings world_06", 2, 60, |stage| {
        stage.begin(3)?;
        let keys: Vec<_> = (0..4)
            .map(|number| format!("k{number}").into_bytes())
            .collect();
        keys.iter().try_for_each(|key| stage.put(0, key, "old"))?;
        stage.boot(3, 0);
        stage.sleep(stage.world.random.below(30) as f64 / 10.0);
        stage.world.stop(&location(3));
        stage.sleep(9.0);
        for key in &keys {
            put_at_last(stage, 1, key, 20.0)?;
        }
        stage.world.resume(&location(3));
        for key in &keys {
            (0..4).for_each(|at| read_meanwhile(stage, at, key, 40));
        }
        stage.await_all();
        stage.await_members(80.0, &[0, 1, 2, 3])
    });
}

/// R nodes are killed and started again within a tick: no other node has noticed it, and keys are missing.
#[test]
fn world_07_names_that_begin_anew_must_count_as_lost() {
    direct("sim_interleavings world_07", 2, |stage| {
        stage.begin(4)?;
        let key = stage.key(&[0, 1], &[0, 1, 2, 3]);
        stage.put(2, &key, "old")?;
        stage.await_safe(80.0, 2)?;
        for gone in [0, 1] {
            stage.crash(gone);
            stage.boot(gone, 2);
        }
        stage.sleep(2.0);
        stage.is_never_safe(80.0, 2, "and both that had a key have begun anew")
    });
}

/// A node comes back with its clock an hour behind, right after a kill and after a goodbye.
#[test]
fn world_08_a_node_must_come_back_whatever_its_clock_says() {
    direct_seeds("sim_interleavings world_08", 2, 60, |stage| {
        (0..3).for_each(|number| stage.world.clock(&location(number)).set_ahead(0));
        stage.begin(3)?;
        let key = stage.key(&[0, 1], &[0, 1, 2]);
        stage.put(2, &key, "old")?;
        stage.await_safe(80.0, 2)?;
        if stage.world.chance(500) {
            stage.crash(0);
        } else {
            stage.leave(60.0, 0)?;
        }
        stage.sleep(stage.world.random.below(60) as f64 / 10.0);
        stage.world.clock(&location(0)).set_ahead(-DAY / 24);
        stage.boot(0, 2);
        stage.await_that(40.0, "all are safe again", || {
            stage.are_members(&[0, 1, 2]) && stage.says_safe(1)
        })?;
        stage.put(0, &key, "new")?;
        stage.crash(1);
        stage.sleep(3.0);
        stage.reads(2, &key, "new")
    });
}

/// X lets A in and is killed: A has no other member, and must not become a second network beside the nodes that X knew.
#[test]
fn world_09_a_joiner_whose_network_has_gone_must_end() {
    direct_seeds("sim_interleavings world_09", 2, 60, |stage| {
        stage.begin(1)?;
        stage.put(0, b"k", "old")?;
        // What X has takes its time, so that it is killed before A has it.
        stage.put(0, b"great", vec![b'.'; 3 << 20])?;
        let nodes = 1 + stage.world.random.below(2);
        (0..=nodes).for_each(|number| stage.world.wires().narrow(&location(number), 1_250_000));
        (1..=nodes).for_each(|number| stage.boot(number, 0));
        stage.sleep(1.0 + stage.world.random.below(15) as f64 / 10.0);
        stage.crash(0);
        stage.await_that(60.0, "all that never were full have ended", || {
            (1..=nodes).all(|number| !stage.runs(number))
        })
    });
}

/// F joins in front of X and J and is killed once it has got puts: J gets from X what it lacks.
#[test]
fn world_13_every_replica_must_hand_over_when_a_list_changes() {
    direct_seeds("sim_interleavings world_13", 2, 60, |stage| {
        stage.begin(3)?;
        let keys: Vec<_> = (0..12)
            .map(|number| format!("k{number}").into_bytes())
            .collect();
        keys.iter().try_for_each(|key| stage.put(0, key, "old"))?;
        stage.boot(3, 0);
        stage.await_that(40.0, "it is full", || stage.are_members(&[0, 1, 2, 3]))?;
        for key in &keys {
            put_at_last(stage, 1, key, 12.0)?;
        }
        stage.await_safe(120.0, 0)?;
        stage.crash(3);
        stage.await_that(80.0, "they are safe without it", || {
            stage.are_members(&[0, 1, 2]) && stage.says_safe(0)
        })?;
        stage.crash(stage.world.random.below(3));
        stage.sleep(3.0);
        for key in &keys {
            for at in 0..3 {
                if stage.runs(at) {
                    stage.get(at, key)?;
                }
            }
        }
        Ok(())
    });
}

/// R 1: L leaves, and what it had goes to one that is full and has nothing of it yet.
#[test]
fn world_14_what_a_leaver_has_must_be_read_while_it_leaves() {
    direct_seeds("sim_interleavings world_14", 1, 60, |stage| {
        stage.begin(2)?;
        let keys: Vec<_> = (0..6)
            .map(|number| format!("k{number}").into_bytes())
            .collect();
        keys.iter().try_for_each(|key| stage.put(0, key, "old"))?;
        let link = (&location(0), &location(1));
        let late = Fate::Late(TICK.mul_f64(stage.world.random.below(9) as f64 / 10.0));
        let pass = stage.world.random.below(6);
        stage.world.wires().trap(link, pass, 4, late);
        for key in &keys {
            read_meanwhile(stage, 0, key, 10);
            read_meanwhile(stage, 1, key, 20);
            put_meanwhile(stage, 1, key, 10);
        }
        stage.leave(60.0, 0)?;
        stage.await_all();
        keys.iter()
            .try_for_each(|key| stage.get(1, key).map(|_| ()))
    });
}

/// Two that are neighbours on the ring leave within a tick.
#[test]
fn world_15_two_leavers_must_not_hand_over_past_each_other() {
    for replicas in [1, 2] {
        direct_seeds("sim_interleavings world_15", replicas, 60, |stage| {
            stage.begin(4)?;
            let keys: Vec<_> = (0..12)
                .map(|number| format!("k{number}").into_bytes())
                .collect();
            keys.iter().try_for_each(|key| stage.put(0, key, "old"))?;
            stage.leave_together(60.0, 0, 1)?;
            keys.iter().try_for_each(|key| {
                [2, 3]
                    .into_iter()
                    .try_for_each(|at| stage.reads(at, key, "old"))
            })
        });
    }
}

/// Of three one hangs: a key of the other two is put and got as ever.
#[test]
fn world_20_a_healthy_node_must_not_stop_because_another_hangs() {
    direct_seeds("sim_interleavings world_20", 2, 60, |stage| {
        stage.begin(3)?;
        let key = stage.key(&[0, 1], &[0, 1, 2]);
        stage.put(0, &key, "old")?;
        stage.world.stop(&location(2));
        for number in 0..60 {
            let began = stage.now();
            let value = format!("v{number}");
            stage.put(number % 2, &key, &value)?;
            stage.reads((number + 1) % 2, &key, &value)?;
            let took = stage.now() - began;
            if took > 2 * TICK {
                return Err(format!("a put and a get took {took:?}"));
            }
            stage.sleep(0.25);
        }
        Ok(())
    });
}

/// Y was suspended, and wakes. To it all others seem to have been silent for long; they have not.
#[test]
fn world_21_one_that_wakes_must_not_drop_the_others() {
    direct_seeds("sim_interleavings world_21", 2, 60, |stage| {
        stage.begin(4)?;
        stage.world.stop(&location(3));
        stage.sleep(4.0 + stage.world.random.below(80) as f64 / 4.0);
        stage.world.resume(&location(3));
        for _ in 0..20 {
            stage.sleep(0.2);
            for other in 0..3 {
                // It has been dropped itself, and may be outside, coming back.
                let is_in = stage.runs(3) && stage.knows(3, 3);
                if is_in && !stage.knows(3, other) {
                    return Err(format!("it has dropped {other}"));
                }
            }
        }
        stage.await_members(80.0, &[0, 1, 2, 3])
    });
}

#[test]
fn world_22_both_sides_of_a_cut_must_come_together() {
    direct_seeds("sim_interleavings world_22", 2, 60, |stage| {
        stage.begin(4)?;
        let here = 1 + stage.world.random.below(2);
        let (here, there): (Vec<_>, Vec<_>) = (0..4).partition(|number| *number < here);
        stage.part(&here, &there);
        stage.sleep(20.0);
        stage.world.heal();
        stage.await_that(300.0, "all are safe together", || {
            stage.are_members(&[0, 1, 2, 3]) && stage.says_safe(0)
        })
    });
}

/// A node answers questions, and all else that other nodes ask it hangs, for forty ticks: it is never lost. So puts of its
/// keys fail, in time, as long as that lasts, and then their gets may, too; all else is served.
#[test]
fn world_23_one_that_answers_questions_only_must_cost_no_more_than_its_keys() {
    const HUNG: usize = 2;
    direct_seeds("sim_interleavings world_23", 2, 30, |stage| {
        stage.begin(4)?;
        let all = [0, 1, 2, 3];
        let far = stage.key(&[0, 1], &all);
        let (first, second) = (stage.key(&[HUNG, 0], &all), stage.key(&[0, HUNG], &all));
        let keys = [&far, &first, &second];
        keys.iter().try_for_each(|key| stage.put(3, key, "old"))?;
        stage.await_safe(80.0, 3)?;
        let calls = &["compare", "exchange", "store", "fetch", "forward"];
        stage.world.wires().hang(&location(HUNG), calls);
        // As long as nothing is put, those that have a lease answer: it comes with the questions.
        for number in 0..20 {
            for (at, key) in [(HUNG, &first), (0, &second), (number % 2, &second)] {
                let began = stage.now();
                stage.reads(at, key, "old")?;
                let took = stage.now() - began;
                if took > 2 * TICK {
                    return Err(format!("a get at {at} took {took:?}"));
                }
            }
            stage.sleep(0.5);
        }
        // Puts of its keys that fail, and gets that do: nothing that is acknowledged is lost.
        for key in [&first, &second] {
            put_meanwhile(stage, 1, key, 4);
            put_meanwhile(stage, HUNG, key, 4);
            (0..4).for_each(|at| read_meanwhile(stage, at, key, 8));
        }
        let mut number = 0;
        let until = stage.now() + 40 * TICK;
        while stage.now() < until {
            number += 1;
            let began = stage.now();
            let value = format!("v{number}");
            stage.put(number % 4, &far, &value)?;
            stage.reads((number + 1) % 4, &far, &value)?;
            let took = stage.now() - began;
            if took > 2 * TICK {
                return Err(format!("a put and a get of another key took {took:?}"));
            }
            if all
                .iter()
                .any(|node| !all.iter().all(|other| stage.knows(*node, *other)))
            {
                return Err("one of them is lost".to_owned());
            }
            stage.sleep(0.5);
        }
        stage.await_all();
        for key in [&first, &second] {
            let began = stage.now();
            if stage.try_put(1, key, b"in vain") {
                return Err("a put is acknowledged without the one that hangs".to_owned());
            }
            let took = stage.now() - began;
            if took > REQUEST_MAX {
                return Err(format!("a put that fails took {took:?}"));
            }
        }
        // What the last put has left at one of the two may not be at the other.
        stage.is_never_safe(4.0, 3, "and two may differ")?;
        stage.world.heal();
        for key in [&first, &second] {
            let began = stage.now();
            stage.put(1, key, "new")?;
            stage.reads(3, key, "new")?;
            let took = stage.now() - began;
            if took > 4 * TICK {
                return Err(format!("afterwards a put and a get took {took:?}"));
            }
        }
        stage.await_safe(20.0, 3)
    });
}

/// X reaches J, Y can't: a member for one and gone for the other, for ever. Either all have it or it
/// ends.
#[test]
fn world_25_one_that_not_all_can_reach_must_not_become_a_member_of_some() {
    direct("sim_interleavings world_25", 2, |stage| {
        stage.begin(2)?;
        stage.part(&[1], &[2]);
        stage.boot(2, 0);
        stage.sleep(40.0);
        for _ in 0..80 {
            stage.sleep(0.5);
            if stage.knows(0, 2) != stage.knows(1, 2) {
                return Err("it is a member for one and not for the other".to_owned());
            }
        }
        Ok(())
    });
}

/// C is to join A, A is to join B, B is to join C, all at once.
#[test]
fn world_26_nodes_that_look_for_each_other_must_become_one_network() {
    direct_seeds("sim_interleavings world_26", 2, 100, |stage| {
        let count = 3 + stage.world.random.below(3);
        for number in 0..count {
            stage.boot(number, (number + 1) % count);
            stage.sleep(stage.world.random.below(5) as f64 / 10.0);
        }
        stage.await_members(60.0, &(0..count).collect::<Vec<_>>())
    });
}

#[test]
fn world_27_a_whole_ring_that_is_told_to_end_must_end_at_once() {
    direct_seeds("sim_interleavings world_27", 2, 60, |stage| {
        stage.begin(4)?;
        stage.put(0, b"k", "old")?;
        let told: Vec<_> = (0..4)
            .map(|number| {
                stage.sleep(stage.world.random.below(3) as f64 / 10.0);
                stage.begin_leaving(number)
            })
            .collect();
        stage.await_that(3.0, "all have ended", || {
            told.iter().all(|told| told.load(Ordering::Relaxed) != 0)
        })
    });
}

/// A node is killed, the others get its keys, and weeks go by. Then another one is killed: nothing is lost.
#[test]
fn world_28_two_crashes_far_apart_must_be_no_loss() {
    direct("sim_interleavings world_28", 2, |stage| {
        stage.begin(5)?;
        stage.put(0, b"k", "old")?;
        stage.await_safe(80.0, 2)?;
        for (gone, left) in [(0, &[1, 2, 3, 4][..]), (1, &[2, 3, 4])] {
            stage.crash(gone);
            stage.await_members(20.0, left)?;
            stage.sleep(200.0);
            stage.await_safe(80.0, 2)?;
        }
        stage.reads(3, b"k", "old")
    });
}

/// A link is cut for good: what is read stays right, whatever has to wait.
#[test]
fn world_29_a_link_that_is_cut_for_good_must_only_cost_waiting() {
    direct_seeds("sim_interleavings world_29", 2, 60, |stage| {
        stage.begin(4)?;
        let keys = [[0, 1], [1, 0], [0, 2], [2, 1]];
        let keys = keys.map(|list| stage.key(&list, &[0, 1, 2, 3]));
        keys.iter().try_for_each(|key| stage.put(3, key, "old"))?;
        stage.part(&[0], &[1]);
        for key in &keys {
            (0..4).for_each(|at| read_meanwhile(stage, at, key, 12));
            put_meanwhile(stage, 3, key, 8);
            put_meanwhile(stage, 1, key, 8);
        }
        stage.await_all();
        // It is still cut. By way of a node that reaches both, the keys of which only one of the two is a replica are put;
        // those that both should have are refused in time.
        for (key, needs_both) in keys.iter().zip([true, true, false, false]) {
            let began = stage.now();
            let put = stage.put(3, key, "last");
            let took = stage.now() - began;
            match put {
                Err(why) if !needs_both => return Err(why),
                Ok(()) if needs_both => return Err("a put without its second copy".to_owned()),
                _ if took > REQUEST_MAX => return Err(format!("a put took {took:?}")),
                _ => {}
            }
        }
        Ok(())
    });
}

/// C hangs so long that B loses it and puts alone; C wakes with its old view.
fn hangs_and_wakes(stage: &Stage, nodes: usize) -> Result<(), String> {
    stage.begin(nodes)?;
    let key = stage.key(&[0, 1], &(0..nodes).collect::<Vec<_>>());
    stage.put(1, &key, "old")?;
    let ticks = [8.5, 9.0, 10.0, 12.0][stage.world.random.below(4)];
    stage.world.stop(&location(0));
    put_meanwhile(stage, 1, &key, 60);
    stage.sleep(ticks);
    stage.world.resume(&location(0));
    (0..nodes).for_each(|at| read_meanwhile(stage, at, &key, 80));
    stage.await_all();
    stage.await_members(80.0, &(0..nodes).collect::<Vec<_>>())
}

#[test]
fn world_32_one_that_wakes_must_not_win_by_its_old_view() {
    direct_seeds("sim_interleavings world_32", 2, 100, |stage| {
        hangs_and_wakes(stage, 2)
    });
    direct_seeds("sim_interleavings world_32", 2, 60, |stage| {
        hangs_and_wakes(stage, 3)
    });
}

/// After a cut both views have equally many members, and the same first name.
#[test]
fn world_33_equal_sides_must_not_wait_for_each_other() {
    direct_seeds("sim_interleavings world_33", 2, 60, |stage| {
        stage.begin(3)?;
        stage.part(&[1], &[2]);
        stage.sleep(20.0 + stage.world.random.below(40) as f64 / 4.0);
        stage.world.heal();
        stage.await_that(300.0, "all are safe together", || {
            stage.are_members(&[0, 1, 2]) && stage.says_safe(0)
        })
    });
}

/// Two nodes: each hangs in turn, so that each has dropped the other.
#[test]
fn world_39_two_that_have_lost_each_other_must_not_both_serve_alone() {
    direct_seeds("sim_interleavings world_39", 2, 100, |stage| {
        stage.begin(2)?;
        let key = stage.key(&[0, 1], &[0, 1]);
        stage.put(1, &key, "old")?;
        stage.world.stop(&location(0));
        stage.sleep(8.0 + stage.world.random.below(12) as f64 / 4.0);
        stage.world.resume(&location(0));
        stage.sleep(stage.world.random.below(8) as f64 / 4.0);
        stage.world.stop(&location(1));
        put_meanwhile(stage, 0, &key, 60);
        stage.sleep(20.0);
        stage.world.resume(&location(1));
        put_meanwhile(stage, 1, &key, 20);
        (0..2).for_each(|at| read_meanwhile(stage, at, &key, 60));
        stage.await_all();
        Ok(())
    });
}

/// A member that has nothing to do with a key comes and goes.
#[test]
fn world_17_puts_must_not_wait_for_what_happens_far_away() {
    direct_seeds("sim_interleavings world_17", 2, 20, |stage| {
        stage.begin(3)?;
        let without = stage.keys_of(&[0, 1], &[0, 1, 2]);
        let placement = |nodes: &[usize]| {
            let nodes: Vec<_> = nodes.iter().map(|node| location(*node)).collect();
            stage.world.subject.placement(&nodes)
        };
        let with = placement(&[0, 1, 2, 3]);
        let near = [location(0), location(1)];
        let mut keys = without.filter(|key| with(key).starts_with(&near));
        let key = keys.next().ok_or("no such key")?;
        let far = stage.clone();
        stage.meanwhile("comes and goes", move || {
            for _ in 0..4 {
                far.boot(3, 2);
                far.sleep(4.0 + far.world.random.below(40) as f64 / 10.0);
                far.crash(3);
                far.sleep(far.world.random.below(30) as f64 / 10.0);
            }
        });
        let mut number = 0;
        while stage.is_working() {
            number += 1;
            let began = stage.now();
            stage.put(number % 3, &key, format!("value {number}"))?;
            let took = stage.now() - began;
            if took > 2 * TICK {
                return Err(format!("put {number} took {took:?}"));
            }
            stage.sleep(0.1);
        }
        Ok(())
    });
}

/// One link is cut: both ends drop each other, and the third sees both. With R 1 a node that is dropped takes
/// its keys with it, so that nothing could be told from what is read: R 2, and the third is the second replica
/// for both of what they would do without each other.
#[test]
fn world_37_one_that_sees_both_must_not_make_two_primaries() {
    direct_seeds("sim_interleavings world_37", 2, 30, |stage| {
        stage.begin(3)?;
        let key = stage.key(&[0, 1], &[0, 1, 2]);
        stage.put(2, &key, "old")?;
        stage.part(&[0], &[1]);
        put_meanwhile(stage, 0, &key, 30);
        put_meanwhile(stage, 1, &key, 30);
        (0..3).for_each(|at| read_meanwhile(stage, at, &key, 60));
        stage.sleep(25.0);
        stage.world.heal();
        stage.await_all();
        stage.await_members(120.0, &[0, 1, 2])
    });
}

/// R 1: the owner hangs, another one takes its keys over, and the owner is asked the moment it wakes.
#[test]
fn world_38_the_only_replica_must_not_answer_without_a_lease() {
    direct_seeds("sim_interleavings world_38", 1, 60, |stage| {
        // Its value must not win over one that was put meanwhile.
        stage.world.clock(&location(0)).set_ahead(-DAY);
        stage.begin(3)?;
        let key = stage.key(&[0], &[0, 1, 2]);
        stage.put(1, &key, "old")?;
        stage.world.stop(&location(0));
        put_at_last(stage, 1, &key, 40.0)?;
        stage.sleep(stage.world.random.below(40) as f64 / 10.0);
        stage.world.resume(&location(0));
        (0..3).for_each(|at| read_meanwhile(stage, at, &key, 20));
        stage.await_all();
        stage.await_members(60.0, &[0, 1, 2])
    });
}

/// R 1, a cut of six ticks between two of three, and nothing else wrong.
#[test]
fn world_40_a_short_cut_must_not_make_keys_read_as_absent() {
    direct_seeds("sim_interleavings world_40", 1, 60, |stage| {
        stage.begin(3)?;
        let keys: Vec<_> = (0..12).map(|number| format!("key {number}")).collect();
        for key in &keys {
            stage.put(0, key.as_bytes(), "there")?;
        }
        let two = stage.world.random.below(3);
        stage.part(&[two], &[(two + 1) % 3]);
        for key in keys.iter().take(6) {
            read_meanwhile(stage, two, key.as_bytes(), 12);
        }
        stage.sleep(6.0);
        stage.world.heal();
        stage.await_all();
        stage.await_members(60.0, &[0, 1, 2])?;
        for key in &keys {
            (0..3).try_for_each(|at| stage.reads(at, key.as_bytes(), "there"))?;
        }
        Ok(())
    });
}
