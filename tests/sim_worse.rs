//! Worlds that are worse than those of `sim_directed.rs`: wrong clocks, suspended machines, links that are
//! deaf or narrow, great values. Each has a name that says what must hold.

mod sim;

use std::time::Duration;

use sim::clock::DAY;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use sim::direct::{Stage, direct, direct_seeds};
use sim::history::brief;
use sim::schedule::location;
use sim::wires::{Fate, Wires};
use sim::world::TICK;
use thrifty_p2p::location::Location;

const HOUR: i64 = DAY / 24;
const MIB: usize = 1 << 20;

/// What a link carries, in bytes a second.
const TWO_MBIT: u64 = 250_000;
const TEN_MBIT: u64 = 1_250_000;
const HUNDRED_MBIT: u64 = 12_500_000;

fn keys(count: usize) -> Vec<Vec<u8>> {
    (0..count)
        .map(|number| format!("key {number}").into_bytes())
        .collect()
}

/// So many bytes, not the same for two keys.
fn value(key: &[u8], bytes: usize) -> Vec<u8> {
    let mut value = key.to_vec();
    value.resize(bytes, b'.');
    value
}

fn set_clock(stage: &Stage, number: usize, ahead: i64) {
    stage.world.clock(&location(number)).set_ahead(ahead);
}

fn put_all(stage: &Stage, at: usize, keys: &[Vec<u8>], value: &str) -> Result<(), String> {
    keys.iter().try_for_each(|key| stage.put(at, key, value))
}

fn read_all(stage: &Stage, at: usize, keys: &[Vec<u8>], value: &str) -> Result<(), String> {
    keys.iter().try_for_each(|key| stage.reads(at, key, value))
}

/// Puts again and again, another value each time, until one is acknowledged.
fn put_at_last(stage: &Stage, at: usize, key: &[u8], ticks: f64) -> Result<Vec<u8>, String> {
    let until = stage.now() + TICK.mul_f64(ticks);
    let mut number = 0;
    loop {
        number += 1;
        let value = format!("new {number}").into_bytes();
        match stage.put(at, key, &value) {
            Ok(()) => return Ok(value),
            Err(why) if stage.now() > until => return Err(why),
            Err(_) => stage.sleep(0.2),
        }
    }
}

/// One node has keys, and a clock that is wrong by so much; another one joins.
fn joined_by_another(stage: &Stage, first: i64, second: i64) -> Result<Vec<Vec<u8>>, String> {
    set_clock(stage, 0, first);
    set_clock(stage, 1, second);
    stage.begin(1)?;
    let keys = keys(20);
    put_all(stage, 0, &keys, "old")?;
    stage.boot(1, 0);
    stage.await_members(40.0, &[0, 1])?;
    Ok(keys)
}

#[test]
fn must_keep_puts_of_a_node_whose_clock_is_two_days_ahead() {
    direct("sim_worse must_keep_puts_of_a_node", 2, |stage| {
        let keys = joined_by_another(stage, 2 * DAY, 0)?;
        read_all(stage, 0, &keys, "old")?;
        read_all(stage, 1, &keys, "old")
    });
}

#[test]
fn must_hand_over_puts_of_a_node_whose_clock_is_two_days_ahead() {
    direct("sim_worse must_hand_over_puts_of_a_node", 2, |stage| {
        let keys = joined_by_another(stage, 2 * DAY, 0)?;
        stage.leave(60.0, 0)?;
        read_all(stage, 1, &keys, "old")
    });
}

#[test]
fn must_give_all_to_a_newcomer_whose_clock_is_400_days_behind() {
    direct("sim_worse must_give_all_to_a_newcomer", 2, |stage| {
        let keys = joined_by_another(stage, 0, -400 * DAY)?;
        read_all(stage, 0, &keys, "old")?;
        read_all(stage, 1, &keys, "old")
    });
}

#[test]
fn must_take_puts_after_a_clock_was_ahead_for_two_seconds() {
    direct("sim_worse must_take_puts_after_a_clock", 2, |stage| {
        [0, 1]
            .into_iter()
            .for_each(|number| set_clock(stage, number, 0));
        stage.begin(2)?;
        let keys: Vec<_> = stage.keys_of(&[0, 1], &[0, 1]).take(6).collect();
        set_clock(stage, 0, 2 * DAY);
        stage.sleep(2.0);
        stage.try_put(0, &keys[0], b"ahead");
        stage.sleep(2.0);
        set_clock(stage, 0, 0);
        stage.sleep(4.0);
        put_all(stage, 0, &keys[1..], "new")?;
        read_all(stage, 1, &keys[1..], "new")?;
        stage.put(1, &keys[0], "after")?;
        stage.reads(0, &keys[0], "after")
    });
}

#[test]
fn must_go_on_while_a_clock_stands_still() {
    direct("sim_worse must_go_on_while_a_clock", 2, |stage| {
        stage.begin(2)?;
        let key = stage.key(&[0, 1], &[0, 1]);
        stage.world.clock(&location(0)).stand_still();
        for number in 0..30 {
            let value = format!("v{number}");
            stage.put(number % 2, &key, &value)?;
            stage.reads((number + 1) % 2, &key, &value)?;
            stage.sleep(0.2);
        }
        stage.leave(60.0, 0)?;
        stage.reads(1, &key, "v29")
    });
}

#[test]
fn must_be_safe_soon_after_a_node_comes_back_with_its_clock_an_hour_behind() {
    direct_seeds("sim_worse must_be_safe_soon_after", 2, 60, |stage| {
        let dice = |bound| stage.world.random.below(bound);
        let count = 3 + dice(3);
        (0..count).for_each(|number| set_clock(stage, number, 0));
        stage.begin(count)?;
        put_all(stage, 0, &keys(10), "old")?;
        stage.leave(60.0, 2)?;
        stage.sleep(dice(20) as f64);
        let mut all: Vec<_> = (0..count).collect();
        if dice(2) == 0 {
            stage.boot(count, 0);
            all.push(count);
            stage.sleep(dice(20) as f64 / 4.0);
        }
        set_clock(stage, 2, -HOUR);
        let contact = all[dice(all.len())];
        if contact == 2 || dice(3) == 0 {
            stage.boot_looking(2, &all);
        } else {
            stage.boot(2, contact);
        }
        stage.await_that(20.0, "all are safe again", || {
            stage.are_members(&all) && stage.says_safe(0)
        })
    });
}

/// A replica gets the copy of a put, but its answer is lost, and so is the replica. The put goes round again with a
/// clock that was set back. When the replica returns, its copy must not win over what was put later.
#[test]
fn must_put_above_what_an_earlier_try_may_have_left() {
    direct("sim_worse must_put_above_what_an_earlier_try", 2, |stage| {
        (0..3).for_each(|number| set_clock(stage, number, 0));
        stage.begin(3)?;
        let key = stage.key(&[0, 1], &[0, 1, 2]);
        stage.world.wires().cut(&location(1), &location(0));
        stage.part(&[1], &[2]);
        stage.put_meanwhile(0, &key, "tried");
        stage.sleep(0.8);
        stage.part(&[1], &[0]);
        set_clock(stage, 0, -HOUR);
        stage.await_all();
        stage.put(0, &key, "later")?;
        stage.world.heal();
        stage.await_members(60.0, &[0, 1, 2])?;
        stage.reads(0, &key, "later")
    });
}

/// A machine is suspended; meanwhile the others replace it.
fn suspended(stage: &Stage, list: &[usize]) -> Result<(), String> {
    stage.begin(3)?;
    let key = stage.key(list, &[0, 1, 2]);
    stage.put(1, &key, "old")?;
    stage.world.suspend(&location(0));
    stage.sleep(9.0);
    put_at_last(stage, 1, &key, 12.0)?;
    stage.world.resume(&location(0));
    for _ in 0..60 {
        // The history judges what it answers.
        let _ = stage.get(0, &key);
        stage.sleep(0.05);
    }
    Ok(())
}

#[test]
fn must_not_answer_from_before_a_machine_was_suspended() {
    direct(
        "sim_worse must_not_answer_from_before_a_machine_was_suspended",
        2,
        |stage| suspended(stage, &[0, 1]),
    );
}

#[test]
fn world_16_must_not_answer_from_before_a_machine_was_suspended() {
    direct(
        "sim_worse world_16_must_not_answer_from_before_a_machine_was_suspended",
        1,
        |stage| {
            // With one copy no other node knows the version that a put has to be above.
            (0..3).for_each(|number| set_clock(stage, number, 0));
            suspended(stage, &[0])
        },
    );
}

/// Packets to a node's port are dropped, what it asks itself is answered; others put, it is read from. The others lose it,
/// and don't take it in again as long as that is so.
#[test]
fn must_not_answer_old_values_where_questions_get_lost() {
    direct("sim_worse must_not_answer_old_values", 2, |stage| {
        stage.begin(3)?;
        let key = stage.key(&[0, 1], &[0, 1, 2]);
        stage.put(1, &key, "old")?;
        for other in [1, 2] {
            stage.world.wires().deafen(&location(other), &location(0));
        }
        let (writer, written) = (stage.client(), key.clone());
        let acknowledged = Arc::new(AtomicUsize::new(0));
        let count = acknowledged.clone();
        stage.meanwhile("puts", move || {
            for number in 0..60 {
                if writer.try_put(1, &written, format!("v{number}").as_bytes()) {
                    count.fetch_add(1, Ordering::Relaxed);
                }
                writer.sleep(1.0);
            }
        });
        let began = stage.now();
        let (mut lost, mut since) = ([false, false], 0);
        while stage.is_working() {
            // The history judges what it answers.
            let _ = stage.get(0, &key);
            for (lost, other) in lost.iter_mut().zip([1, 2]) {
                let knows = stage.knows(other, 0);
                if *lost && knows {
                    let ticks = (stage.now() - began).as_secs_f64() / TICK.as_secs_f64();
                    return Err(format!("{other} has it again after {ticks:.1} ticks"));
                }
                *lost = !knows;
            }
            if stage.now() - began < TICK * 16 {
                since = acknowledged.load(Ordering::Relaxed);
            } else if lost != [true, true] {
                return Err("it is still a member of the others".to_owned());
            }
            stage.sleep(0.2);
        }
        // A tick and its way there: half a minute has room for more than twenty.
        let since = acknowledged.load(Ordering::Relaxed) - since;
        if since < 20 {
            return Err(format!("{since} puts acknowledged without it"));
        }
        stage.world.heal();
        stage.await_members(80.0, &[0, 1, 2])
    });
}

/// A joining node holds a copy of a put that is being carried out, and sends it to the primary, before the other
/// replica has its own. What is read there then must not be lost when the primary and that node leave.
#[test]
fn must_not_take_back_what_a_joining_node_has_given_to_the_primary() {
    direct_seeds(
        "sim_worse must_not_take_back_what_a_joining",
        2,
        150,
        |stage| {
            stage.begin(2)?;
            // It has to take over all these, and so is at it for a while.
            let keys: Vec<_> = stage.keys_of(&[0, 2], &[0, 1, 2]).take(80).collect();
            keys.iter()
                .try_for_each(|key| stage.put(1, key, value(key, 40_000)))?;
            let key = keys[stage.world.random.below(keys.len())].clone();
            stage.sleep(4.0);
            stage.world.wires().narrow(&location(2), 1_000_000);
            stage.world.wires().narrow(&location(1), 25_000);
            stage.boot(2, 0);
            stage.await_that(20.0, "0 knows 2", || stage.knows(0, 2))?;
            stage.sleep(stage.world.random.below(300) as f64 / 100.0);
            let (client, great) = (stage.client(), vec![b'n'; 100_000]);
            let (to, new) = (key.clone(), great.clone());
            stage.meanwhile("put", move || {
                let _ = client.try_put(0, &to, &new);
            });
            let shown = Arc::new(AtomicBool::new(false));
            for _ in 0..40 {
                let (reader, key) = (stage.client(), key.clone());
                let (great, seen) = (great.clone(), shown.clone());
                stage.meanwhile("get", move || {
                    if reader.get(0, &key).is_ok_and(|read| read == great) {
                        seen.store(true, Ordering::Relaxed);
                    }
                });
                stage.sleep(0.1);
                if shown.load(Ordering::Relaxed) {
                    break;
                }
            }
            let gone = [stage.begin_leaving(0), stage.begin_leaving(2)];
            stage.await_that(100.0, "0 and 2 have left", || {
                gone.iter().all(|gone| gone.load(Ordering::Relaxed) > 0)
            })?;
            // The history judges it.
            let _ = stage.get(1, &key);
            Ok(())
        },
    );
}

/// Whatever is compared differs, as copies of puts are on their way all the time: a change comes to an end all the same.
#[test]
fn must_become_safe_and_leave_under_steady_puts() {
    direct_seeds("sim_worse must_become_safe_and_leave", 3, 4, |stage| {
        stage.begin(4)?;
        let over = Arc::new(AtomicBool::new(false));
        for writer in 0..8 {
            let (client, over) = (stage.client(), over.clone());
            stage.meanwhile("puts", move || {
                for number in 0.. {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    let puts = (0..30).map(|place| {
                        let key = format!("k{}", client.world.random.below(2000));
                        let value = format!("{writer} {number} {place}");
                        (key.into_bytes(), Some(value.into_bytes()))
                    });
                    let _ = client.together(writer % 4, &puts.collect::<Vec<_>>());
                }
            });
        }
        stage.boot(4, 0);
        stage.await_members(60.0, &[0, 1, 2, 3, 4])?;
        stage.await_safe(60.0, 0)?;
        let left = stage.begin_leaving(4);
        let ended = stage.await_that(60.0, "4 has left", || left.load(Ordering::Relaxed) > 0);
        over.store(true, Ordering::Relaxed);
        stage.await_all();
        ended?;
        match left.load(Ordering::Relaxed) {
            1 => Ok(()),
            _ => Err("4 leaves keys behind".to_owned()),
        }
    });
}

/// A great value is put, with a second copy over a link of that rate.
fn put_over(stage: &Stage, bytes: usize, rate: u64) -> Result<(), String> {
    stage.begin(2)?;
    let key = stage.key(&[0, 1], &[0, 1]);
    let value = value(&key, bytes);
    (0..2).for_each(|number| stage.world.wires().narrow(&location(number), rate));
    stage.put(0, &key, &value)?;
    stage.reads(0, &key, &value)
}

#[test]
fn must_acknowledge_16_mebibytes_at_100_megabits() {
    direct_seeds("sim_worse must_acknowledge_16", 2, 5, |stage| {
        put_over(stage, 16 * MIB, HUNDRED_MBIT)
    });
}

#[test]
fn must_acknowledge_a_mebibyte_at_10_megabits() {
    direct_seeds("sim_worse must_acknowledge_a_mebibyte", 2, 5, |stage| {
        put_over(stage, MIB, TEN_MBIT)
    });
}

/// Each node has put so many values of such a size; then links become narrow.
fn fill(
    stage: &Stage,
    (nodes, count): (usize, usize),
    bytes: usize,
    rate: u64,
) -> Result<Vec<Vec<u8>>, String> {
    stage.begin(nodes)?;
    let keys = keys(count);
    keys.iter()
        .try_for_each(|key| stage.put(0, key, value(key, bytes)))?;
    (0..=nodes).for_each(|number| stage.world.wires().narrow(&location(number), rate));
    Ok(keys)
}

/// Every key at a node, once what it doesn't hold needn't take its time.
fn read_great(stage: &Stage, at: usize, keys: &[Vec<u8>], bytes: usize) -> Result<(), String> {
    stage.world.wires().widen();
    keys.iter()
        .try_for_each(|key| stage.reads(at, key, value(key, bytes)))
}

#[test]
fn must_bring_a_node_in_over_10_megabits_with_values_of_4_mebibytes() {
    direct_seeds("sim_worse must_bring_a_node_in_over_10", 2, 2, |stage| {
        let keys = fill(stage, (1, 6), 4 * MIB, TEN_MBIT)?;
        stage.boot(1, 0);
        stage.await_members(200.0, &[0, 1])?;
        read_great(stage, 1, &keys, 4 * MIB)
    });
}

#[test]
fn must_leave_over_10_megabits_with_values_of_4_mebibytes() {
    direct_seeds("sim_worse must_leave_over_10_megabits", 1, 2, |stage| {
        let keys = fill(stage, (2, 8), 4 * MIB, TEN_MBIT)?;
        stage.leave(400.0, 0)?;
        read_great(stage, 1, &keys, 4 * MIB)
    });
}

#[test]
fn must_bring_a_node_in_over_2_megabits_with_many_small_values() {
    direct_seeds("sim_worse must_bring_a_node_in_over_2", 1, 2, |stage| {
        let keys = fill(stage, (1, 600), 17 << 10, TWO_MBIT)?;
        stage.boot(1, 0);
        stage.await_that(300.0, "all is safe", || {
            stage.are_members(&[0, 1]) && stage.says_safe(0)
        })?;
        read_great(stage, 1, &keys, 17 << 10)
    });
}

#[test]
fn must_leave_over_2_megabits_with_many_small_values() {
    direct_seeds(
        "sim_worse must_leave_over_2_megabits_with_many",
        1,
        2,
        |stage| {
            let keys = fill(stage, (2, 600), 17 << 10, TWO_MBIT)?;
            stage.leave(300.0, 0)?;
            read_great(stage, 1, &keys, 17 << 10)
        },
    );
}

/// The newcomer asks for what the leaver has. So the leaver sees by its questions that it gets on, for longer than ten
/// seconds.
#[test]
fn must_leave_once_a_newcomer_has_all_over_2_megabits() {
    let name = "sim_worse must_leave_once_a_newcomer";
    direct_seeds(name, 2, 2, |stage| {
        leave_to_a_newcomer(stage, 600, 17 << 10, TWO_MBIT)
    });
}

fn leave_to_a_newcomer(stage: &Stage, count: usize, bytes: usize, rate: u64) -> Result<(), String> {
    let keys = fill(stage, (1, count), bytes, rate)?;
    stage.boot(1, 0);
    stage.await_that(20.0, "0 knows 1", || stage.knows(0, 1))?;
    stage.leave(300.0, 0)?;
    read_great(stage, 1, &keys, bytes)
}

/// It asks for all of them at once. So it asks for nothing more in the twenty seconds that they take.
#[test]
fn must_leave_once_six_great_values_have_gone_over_10_megabits() {
    let name = "sim_worse must_leave_once_six_great_values";
    direct_seeds(name, 2, 3, |stage| {
        leave_to_a_newcomer(stage, 6, 4 * MIB, TEN_MBIT)
    });
}

/// One value takes the leaver seventeen seconds.
#[test]
fn must_leave_over_2_megabits_with_values_of_4_mebibytes() {
    direct_seeds(
        "sim_worse must_leave_over_2_megabits_with_values",
        1,
        3,
        |stage| {
            let keys = fill(stage, (2, 3), 4 * MIB, TWO_MBIT)?;
            stage.leave(600.0, 0)?;
            read_great(stage, 1, &keys, 4 * MIB)
        },
    );
}

/// One of two newcomers may be far behind the other.
#[test]
fn must_leave_once_two_newcomers_have_all() {
    direct_seeds("sim_worse must_leave_once_two_newcomers", 2, 3, |stage| {
        let keys = fill(stage, (2, 900), 17 << 10, TWO_MBIT)?;
        stage.world.wires().narrow(&location(3), TWO_MBIT / 4);
        stage.boot(2, 0);
        stage.boot(3, 0);
        let known = || (2..4).all(|new| stage.knows(0, new) && stage.knows(1, new));
        stage.await_that(20.0, "0 and 1 know 2 and 3", known)?;
        stage.leave(900.0, 0)?;
        stage.await_members(900.0, &[1, 2, 3])?;
        read_great(stage, 3, &keys, 17 << 10)
    });
}

#[test]
fn must_not_say_safe_with_fewer_nodes_than_copies() {
    direct("sim_worse must_not_say_safe_with_fewer", 2, |stage| {
        stage.begin(1)?;
        put_all(stage, 0, &keys(3), "old")?;
        stage.is_never_safe(70.0, 0, "alone, where two copies are to be kept")
    });
}

#[test]
fn must_not_say_safe_on_a_side_of_a_cut_that_lacks_keys() {
    direct("sim_worse must_not_say_safe_on_a_side", 2, |stage| {
        stage.begin(4)?;
        put_all(stage, 0, &keys(40), "old")?;
        stage.await_safe(80.0, 0)?;
        stage.part(&[0, 1], &[2, 3]);
        stage.sleep(4.0);
        stage.is_never_safe(80.0, 0, "and half of the nodes are out of reach")?;
        stage.is_never_safe(4.0, 2, "and half of the nodes are out of reach")
    });
}

#[test]
fn must_not_say_safe_with_two_of_four_hung() {
    direct("sim_worse must_not_say_safe_with_two", 2, |stage| {
        stage.begin(4)?;
        put_all(stage, 0, &keys(40), "old")?;
        stage.await_safe(80.0, 0)?;
        [2, 3]
            .into_iter()
            .for_each(|number| stage.world.stop(&location(number)));
        stage.sleep(1.0);
        stage.is_never_safe(80.0, 0, "and two that are hung had keys of their own")
    });
}

/// X comes in front of B and A, and is full; then B doesn't reach it any more. A hands the key to both and forgets it; X
/// is killed before B has compared anything with it, so that B may think that nothing has changed.
#[test]
fn world_30_must_not_say_safe_while_a_second_copy_is_missing() {
    const A: usize = 0;
    const B: usize = 1;
    const X: usize = 2;
    direct("sim_worse world_30_must_not_say_safe", 2, |stage| {
        let mut behind = stage.keys_of(&[B, A], &[A, B]);
        let in_front = |key: &Vec<u8>| {
            let of_three = [A, B, X].map(location);
            let list = stage.world.subject.holders(&of_three, key);
            list == [X, B].map(location)
        };
        let key = behind.find(in_front).ok_or("there is no such key")?;
        stage.begin(2)?;
        stage.put(A, &key, "old")?;
        let copies = |nodes: &[usize]| {
            let has = |node: &&usize| {
                let items = stage.world.node(&location(**node)).map(|node| node.items());
                items.is_some_and(|items| items.iter().any(|item| item.key == key))
            };
            nodes.iter().filter(has).count()
        };
        stage.boot(X, A);
        stage.await_that(20.0, "both know X", || {
            stage.knows(A, X) && stage.knows(B, X)
        })?;
        stage.world.wires().deafen(&location(B), &location(X));
        // B drops X once it has been silent for long enough: by then all this is over.
        stage.await_that(6.0, "A has handed the key on", || copies(&[A]) == 0)?;
        if copies(&[B, X]) < 2 || !stage.knows(B, X) {
            return Err("B and X should have the key, and know each other".to_owned());
        }
        stage.crash(X);
        // Neither can give it to the other yet.
        let moves = &["exchange", "store"];
        for node in [A, B] {
            stage.world.wires().hang(&location(node), moves);
        }
        let until = stage.now() + 6 * TICK;
        while stage.now() < until {
            for node in [A, B] {
                if stage.says_safe(node) && copies(&[A, B]) < 2 {
                    return Err(format!("{} says that all is safe", location(node)));
                }
            }
            stage.sleep(0.1);
        }
        if copies(&[A, B]) != 1 {
            return Err("one of them should lack the key".to_owned());
        }
        stage.world.heal();
        stage.await_that(80.0, "safe without it", || {
            !stage.knows(A, X) && !stage.knows(B, X) && stage.says_safe(A)
        })?;
        if copies(&[A, B]) < 2 {
            return Err(format!("{} says that all is safe", location(A)));
        }
        stage.crash(B);
        stage.sleep(4.0);
        stage.reads(A, &key, "old")
    });
}

/// A and B have a key. B is killed; A and C should have it then, but don't reach each other, and hang. D, which has nothing to
/// do with the key, loses them.
fn lose_all_but_d(stage: &Stage, [a, b, c, d]: [usize; 4]) -> Result<Vec<u8>, String> {
    let (list, nodes) = ([a, b], [a, b, c, d]);
    let mut keys = stage.keys_of(&list, &nodes);
    let then_c = |key: &Vec<u8>| {
        let without_b = [a, c, d].map(location);
        stage.world.subject.holders(&without_b, key) == [a, c].map(location)
    };
    let key = keys.find(then_c).ok_or("there is no such key")?;
    stage.put(a, &key, "old")?;
    stage.await_safe(80.0, d)?;
    stage.part(&[a], &[c]);
    stage.crash(b);
    stage.await_that(20.0, "all have lost it", || {
        [a, c, d].iter().all(|node| !stage.knows(*node, b))
    })?;
    stage.sleep(2.0);
    stage.world.stop(&location(a));
    stage.world.stop(&location(c));
    stage.await_that(40.0, "they are lost", || {
        !stage.knows(d, a) && !stage.knows(d, c)
    })?;
    Ok(key)
}

/// C comes back with the items that it had.
#[test]
fn must_not_say_safe_when_one_comes_back_that_had_not_got_all() {
    const A: usize = 0;
    const B: usize = 1;
    const C: usize = 2;
    const D: usize = 3;
    direct(
        "sim_worse must_not_say_safe_when_one_comes_back_that",
        2,
        |stage| {
            stage.begin(4)?;
            let key = lose_all_but_d(stage, [A, B, C, D])?;
            stage.world.heal();
            stage.world.resume(&location(C));
            stage.await_members(80.0, &[C, D])?;
            stage.is_never_safe(20.0, D, "and only one that hangs has the key")?;
            stage.world.resume(&location(A));
            stage.await_safe(80.0, D)?;
            stage.reads(D, &key, "old")
        },
    );
}

/// D alone has found that keys are missing. E comes in, and D goes.
fn hand_the_alarm_on(
    stage: &Stage,
    go: impl Fn(usize) -> Result<(), String>,
) -> Result<(), String> {
    const D: usize = 3;
    const E: usize = 4;
    const F: usize = 5;
    stage.begin(4)?;
    lose_all_but_d(stage, [0, 1, 2, D])?;
    stage.boot(E, D);
    stage.await_members(80.0, &[D, E])?;
    stage.sleep(10.0);
    go(D)?;
    stage.boot(F, E);
    stage.await_members(80.0, &[E, F])?;
    stage.is_never_safe(20.0, E, "and only nodes that hang have the key")
}

#[test]
fn must_not_say_safe_when_the_node_that_found_the_loss_is_killed() {
    let name = "sim_worse must_not_say_safe_when_the_node_that_found_the_loss_is_killed";
    direct(name, 2, |stage| {
        hand_the_alarm_on(stage, |node| {
            stage.crash(node);
            Ok(())
        })
    });
}

#[test]
fn must_not_say_safe_when_the_node_that_found_the_loss_has_left() {
    let name = "sim_worse must_not_say_safe_when_the_node_that_found_the_loss_has_left";
    direct(name, 2, |stage| {
        hand_the_alarm_on(stage, |node| stage.leave(80.0, node))
    });
}

/// B and C have compared what they share. D comes in while they don't reach each other, takes a key that only B holds
/// as well, and is killed: B and C share again what they shared before, and C lacks the key.
#[test]
fn must_compare_again_what_was_shared_before_a_newcomer_was_lost() {
    const A: usize = 0;
    const B: usize = 1;
    const C: usize = 2;
    const D: usize = 3;
    direct("sim_worse must_compare_again", 2, |stage| {
        let mut keys = stage.keys_of(&[B, C], &[A, B, C]);
        let then_d = |key: &Vec<u8>| {
            let all = [A, B, C, D].map(location);
            stage.world.subject.holders(&all, key) == [B, D].map(location)
        };
        let key = keys.find(then_d).ok_or("there is no such key")?;
        stage.begin(3)?;
        stage.await_safe(80.0, A)?;
        stage.part(&[B], &[C]);
        stage.boot(D, A);
        stage.await_members(6.0, &[A, B, C, D])?;
        stage.put(B, &key, "new")?;
        stage.crash(D);
        stage.await_that(4.0, "all have lost it", || {
            [A, B, C].iter().all(|node| !stage.knows(*node, D))
        })?;
        stage.world.heal();
        stage.await_safe(80.0, A)?;
        stage.crash(B);
        stage.reads(C, &key, "new")
    });
}

/// The same, but a node that came in meanwhile lets C in. It has lost no node, and hears of D's alarm as D reaches C.
#[test]
fn must_not_say_safe_when_one_comes_back_by_way_of_one_that_lost_nobody() {
    const A: usize = 0;
    const B: usize = 1;
    const C: usize = 2;
    const E: usize = 3;
    const D: usize = 4;
    direct(
        "sim_worse must_not_say_safe_when_one_comes_back_by_way",
        2,
        |stage| {
            stage.begin(3)?;
            stage.boot(D, A);
            stage.await_members(20.0, &[A, B, C, D])?;
            let key = lose_all_but_d(stage, [A, B, C, D])?;
            stage.boot(E, D);
            stage.await_members(40.0, &[E, D])?;
            stage.world.heal();
            stage.world.resume(&location(C));
            stage.await_members(80.0, &[C, E, D])?;
            stage.is_never_safe(20.0, D, "and only one that hangs has the key")?;
            stage.world.resume(&location(A));
            stage.await_safe(80.0, D)?;
            stage.reads(D, &key, "old")
        },
    );
}

/// 0 goes on alone while 1 stands still, and lets it in again. Then it stands still itself, in some seeds before the two have
/// compared.
#[test]
fn must_not_say_safe_when_the_only_full_node_stands_still() {
    let name = "sim_worse must_not_say_safe_when_the_only_full_node_stands_still";
    direct_seeds(name, 2, 20, |stage| {
        stage.begin(2)?;
        let key = stage.key(&[0, 1], &[0, 1]);
        stage.put(0, &key, "old")?;
        stage.await_safe(80.0, 0)?;
        stage.world.stop(&location(1));
        stage.await_that(40.0, "it is lost", || !stage.knows(0, 1))?;
        stage.put(0, &key, "new")?;
        stage.world.resume(&location(1));
        stage.await_that(40.0, "it knows that it is lost", || !stage.knows(1, 0))?;
        stage.await_that(40.0, "it is let in", || stage.knows(1, 0))?;
        stage.world.stop(&location(0));
        stage.await_that(40.0, "it is lost, too", || !stage.knows(1, 0))?;
        stage.boot(2, 1);
        stage.await_members(80.0, &[1, 2])?;
        let node = stage.world.node(&location(1)).ok_or("it has ended")?;
        if !node.items().iter().any(|item| item.value == b"new") {
            stage.is_never_safe(20.0, 1, "and the latest value is at one that hangs")?;
        }
        stage.world.resume(&location(0));
        stage.await_members(80.0, &[0, 1, 2])?;
        stage.await_safe(80.0, 1)?;
        stage.reads(1, &key, "new")
    });
}

/// In a large network most members share no keys with a node, so it seldom asks them. Which side of the cut comes back
/// depends on how many stand behind each.
#[test]
fn must_come_back_to_a_network_of_sixty() {
    direct_seeds("sim_worse must_come_back_to_a_network", 2, 2, |stage| {
        let all: Vec<_> = (0..60).collect();
        stage.begin(all.len())?;
        let (few, many) = all.split_at(3);
        stage.part(few, many);
        let apart = || {
            few.iter()
                .all(|one| many.iter().all(|other| !stage.knows(*one, *other)))
        };
        stage.await_that(60.0, "few have lost many", apart)?;
        let apart = || {
            few.iter()
                .all(|one| many.iter().all(|other| !stage.knows(*other, *one)))
        };
        stage.await_that(60.0, "many have lost few", apart)?;
        stage.world.heal();
        stage.await_members(60.0, &all)
    });
}

/// With one copy, 0 alone can't reach 1 and 2, which come first and second for the key. It takes itself for the primary,
/// and has a lease of 3 for other keys. For this one 3, which reaches all, has another list.
#[test]
fn must_not_serve_what_belongs_to_nodes_that_it_alone_has_lost() {
    direct_seeds("sim_worse must_not_serve_what_belongs", 1, 20, |stage| {
        let all = [0, 1, 2, 3];
        stage.begin(all.len())?;
        let first = |nodes: &[usize]| {
            let nodes: Vec<_> = nodes.iter().map(|node| location(*node)).collect();
            stage.world.subject.placement(&nodes)
        };
        let (of_two, of_one) = (first(&[0, 2, 3]), first(&[0, 3]));
        let comes_before_3 =
            |key: &Vec<u8>| of_two(key) == [location(2)] && of_one(key) == [location(0)];
        let mut keys = stage.keys_of(&[1], &all);
        let key = keys.find(comes_before_3).expect("BUG: no such key");
        stage.put(3, &key, "old")?;
        for other in [1, 2] {
            let mut wires = stage.world.wires();
            wires.cut_both(&location(0), &location(other));
        }
        let lost = || {
            [1, 2]
                .iter()
                .all(|other| !stage.knows(0, *other) && !stage.knows(*other, 0))
        };
        stage.await_that(40.0, "0 has lost 1 and 2", lost)?;
        stage.put(3, &key, "new")?;
        let value = if stage.try_put(0, &key, b"at 0") {
            "at 0"
        } else {
            "new"
        };
        stage.reads(3, &key, value)?;
        stage.world.heal();
        stage.await_members(80.0, &all)?;
        stage.reads(0, &key, value)
    });
}

/// A put of "new" over "old" at 0 fails, as these links are cut. They are whole for a moment, so that no node is lost;
/// in some seeds no copy is made then.
fn fail_a_put(stage: &Stage, key: &[u8], links: &[(usize, usize)]) -> Result<(), String> {
    let each = |change: fn(&mut Wires, &Location, &Location)| {
        let mut wires = stage.world.wires();
        for (from, to) in links {
            change(&mut wires, &location(*from), &location(*to));
        }
    };
    stage.put(0, key, "old")?;
    stage.await_safe(80.0, 0)?;
    stage.put_meanwhile(0, key, "new");
    each(Wires::cut);
    stage.sleep(5.0 + stage.world.random.below(100) as f64 / 100.0);
    each(Wires::join);
    stage.sleep(0.25);
    each(Wires::cut);
    stage.await_all();
    stage.world.heal();
    Ok(())
}

/// The second copy is written, time and again, but its holder isn't heard, until the put has failed: the value lies with one
/// of the two.
#[test]
fn must_not_leave_a_failed_put_with_one_of_two() {
    direct_seeds("sim_worse must_not_leave_a_failed", 2, 40, |stage| {
        stage.begin(2)?;
        let key = stage.key(&[0, 1], &[0, 1]);
        fail_a_put(stage, &key, &[(1, 0)])?;
        stage.await_safe(80.0, 0)?;
        let before = stage.get(0, &key)?;
        stage.crash(0);
        stage.reads(1, &key, before)
    });
}

/// No copy gets through. What the primary shows of the put that failed, the other one has.
#[test]
fn must_not_show_a_failed_put_that_only_one_has() {
    direct_seeds("sim_worse must_not_show_a_failed", 2, 200, |stage| {
        stage.begin(2)?;
        let key = stage.key(&[0, 1], &[0, 1]);
        fail_a_put(stage, &key, &[(0, 1), (1, 0)])?;
        if !(stage.knows(0, 1) && stage.knows(1, 0)) {
            return Ok(()); // Each has gone on alone, and lacks what the other one has.
        }
        stage.sleep(1.0);
        let _ = stage.get(0, &key);
        stage.crash(0);
        read_meanwhile(stage, 1, &key, 10);
        stage.await_all();
        Ok(())
    });
}

/// A node that has just become full loses all others, before it has compared with them as a full one.
#[test]
fn must_not_say_safe_when_a_new_node_has_lost_all_others() {
    direct("sim_worse must_not_say_safe_when_a_new", 2, |stage| {
        stage.begin(3)?;
        put_all(stage, 0, &keys(40), "old")?;
        stage.await_safe(80.0, 0)?;
        stage.boot(3, 0);
        let full = |other: usize| {
            let node = stage.world.node(&location(other));
            node.is_some_and(|node| node.members().contains(&(location(3), false)))
        };
        while !full(3) {
            stage.sleep(0.005);
        }
        stage.part(&[0, 1, 2], &[3, 4]);
        stage.boot(4, 3);
        stage.await_members(120.0, &[3, 4])?;
        stage.is_never_safe(20.0, 3, "and all that had the keys are out of reach")
    });
}

/// Two nodes have handed keys to one that came in, and can't reach each other: neither has noted since that all was safe.
#[test]
fn must_not_say_safe_when_what_was_handed_over_is_lost() {
    direct("sim_worse must_not_say_safe_when_what", 2, |stage| {
        stage.begin(3)?;
        let keys: Vec<_> = stage.keys_of(&[3, 1], &[0, 1, 2, 3]).take(20).collect();
        put_all(stage, 0, &keys, "old")?;
        stage.await_safe(80.0, 0)?;
        stage.boot(3, 0);
        stage.await_that(20.0, "it is let in", || {
            stage.knows(0, 3) && stage.knows(2, 3)
        })?;
        stage.part(&[0], &[2]);
        let have_none = |at: usize| {
            let node = stage.world.node(&location(at));
            node.is_some_and(|node| !node.items().iter().any(|item| keys.contains(&item.key)))
        };
        stage.await_that(8.0, "all is handed over", || have_none(0) && have_none(2))?;
        stage.crash(3);
        stage.crash(1);
        stage.world.heal();
        stage.is_never_safe(40.0, 0, "and what two had is lost")
    });
}

/// Two are killed, and started again with nothing. One of them hangs, is lost, and comes back with what it got since.
#[test]
fn must_not_say_safe_once_one_that_was_restarted_returns() {
    direct("sim_worse must_not_say_safe_once_one", 2, |stage| {
        stage.begin(4)?;
        let all = [0, 1, 2, 3];
        let keys: Vec<_> = stage.keys_of(&[1, 2], &all).take(10).collect();
        put_all(stage, 0, &keys, "old")?;
        stage.await_safe(80.0, 0)?;
        stage.crash(1);
        stage.crash(2);
        stage.await_that(20.0, "both are lost", || {
            [0, 3]
                .iter()
                .all(|at| !stage.knows(*at, 1) && !stage.knows(*at, 2))
        })?;
        stage.boot(1, 0);
        stage.boot(2, 0);
        stage.await_members(80.0, &all)?;
        stage.is_never_safe(10.0, 0, "and two have lost what they had")?;
        stage.world.stop(&location(1));
        stage.await_that(40.0, "it is lost", || {
            !stage.knows(0, 1) && !stage.knows(3, 1)
        })?;
        stage.world.resume(&location(1));
        stage.await_members(80.0, &all)?;
        stage.is_never_safe(40.0, 0, "and two have lost what they had")
    });
}

/// A node comes back from a cut with puts of its own, and can't reach one of those that should have them.
#[test]
fn must_not_forget_what_could_not_be_handed_over() {
    direct("sim_worse must_not_forget_what", 1, |stage| {
        stage.begin(4)?;
        stage.part(&[0, 1, 2], &[3]);
        stage.await_that(60.0, "each side goes on alone", || {
            (0..3).all(|node| !stage.knows(node, 3) && !stage.knows(3, node))
        })?;
        stage.sleep(4.0);
        put_all(stage, 3, &keys(30), "late")?;
        stage.world.heal();
        while !stage.knows(0, 3) {
            stage.sleep(0.005);
        }
        stage.sleep(stage.world.random.below(100) as f64 / 1000.0);
        stage.part(&[1], &[3]);
        stage.sleep(4.0);
        stage.world.heal();
        stage.await_members(160.0, &[0, 1, 2, 3])?;
        stage.await_safe(80.0, 0)?;
        read_all(stage, 0, &keys(30), "late")
    });
}

/// Of seven with three copies one hangs and two are killed: what the other four hold alone is served on.
#[test]
fn must_cost_nothing_of_others_when_one_hangs_and_two_are_killed() {
    direct("sim_worse must_cost_nothing_of_others", 3, |stage| {
        stage.begin(7)?;
        let all: Vec<_> = (0..7).map(location).collect();
        let of_the_well = |key: &Vec<u8>| {
            let list = stage.world.subject.holders(&all, key);
            list.iter()
                .all(|holder| (0..4).any(|well| *holder == location(well)))
        };
        let keys = keys(2000).into_iter().filter(of_the_well).take(8);
        let keys: Vec<_> = keys.collect();
        put_all(stage, 0, &keys, "old")?;
        stage.world.stop(&location(6));
        stage.sleep(stage.world.random.below(8) as f64);
        stage.crash(5);
        stage.sleep(2.4);
        stage.crash(4);
        let until = stage.now() + 30 * TICK;
        while stage.now() < until {
            for (number, key) in keys.iter().enumerate() {
                let began = stage.now();
                stage.reads(number % 4, key, "old")?;
                let took = stage.now() - began;
                if took > 2 * TICK {
                    let key = brief(key);
                    return Err(format!("a get of {key} took {took:?} at {}", number % 4));
                }
            }
            stage.sleep(0.2);
        }
        Ok(())
    });
}

/// A node that was cut off is found again, answers once, and hangs.
#[test]
fn must_not_wait_for_ever_for_one_that_has_answered_once() {
    direct_seeds("sim_worse must_not_wait_for_ever", 2, 60, |stage| {
        stage.begin(3)?;
        let keys = keys(5);
        put_all(stage, 0, &keys, "old")?;
        stage.part(&[2], &[0, 1]);
        stage.await_that(20.0, "the others have dropped it", || {
            !stage.knows(0, 2) && !stage.knows(1, 2) && !stage.knows(2, 0)
        })?;
        stage.await_members(20.0, &[0, 1])?;
        put_all(stage, 0, &keys, "new")?;
        stage.world.heal();
        stage.sleep(stage.world.random.below(120) as f64 / 10.0);
        stage.world.stop(&location(2));
        stage.sleep(20.0);
        stage.await_that(40.0, "they are safe without it", || {
            stage.are_members(&[0, 1]) && stage.says_safe(0)
        })?;
        put_all(stage, 1, &keys, "newer")?;
        read_all(stage, 0, &keys, "newer")
    });
}

#[test]
fn must_try_a_put_for_twelve_ticks() {
    direct("sim_worse must_try_a_put", 2, |stage| {
        stage.begin(2)?;
        let key = stage.key(&[0, 1], &[0, 1]);
        stage.world.wires().weather.local_trouble = 1000;
        let mender = stage.clone();
        stage.meanwhile("mends", move || {
            mender.sleep(10.0);
            mender.world.wires().weather.local_trouble = 0;
        });
        stage.put(0, &key, "new")
    });
}

/// A client that reads again and again; the history judges what it sees.
fn read_meanwhile(stage: &Stage, at: usize, key: &[u8], times: usize) {
    let (reader, key) = (stage.client(), key.to_vec());
    stage.meanwhile("reads", move || {
        for _ in 0..times {
            let _ = reader.get(at, &key);
            reader.sleep(0.1);
        }
    });
}

/// A primary shows a value that it has not copied to any other node yet, and is killed.
#[test]
fn world_11_must_not_show_what_only_one_has() {
    direct("sim_worse world_11_must_not_show", 2, |stage| {
        stage.begin(3)?;
        let key = stage.key(&[0, 1], &[0, 1, 2]);
        stage.put(0, &key, "old")?;
        let link = (&location(0), &location(1));
        stage.world.wires().trap(link, 0, 1000, Fate::Lost);
        stage.put_meanwhile(0, &key, "new");
        stage.sleep(0.3);
        read_meanwhile(stage, 0, &key, 5);
        stage.sleep(0.8);
        stage.crash(0);
        read_meanwhile(stage, 1, &key, 40);
        stage.await_all();
        Ok(())
    });
}

/// The same by way of the second of three: the third lacks what it shows, and it is killed too.
#[test]
fn world_12_must_not_show_what_two_of_three_lack() {
    direct("sim_worse world_12_must_not_show", 3, |stage| {
        stage.begin(4)?;
        let key = stage.key(&[0, 1, 2], &[0, 1, 2, 3]);
        stage.put(0, &key, "old")?;
        let places = [0, 1, 2, 3].map(location);
        let [a, b, c, d] = &places;
        let lose = |from, to| stage.world.wires().trap((from, to), 0, 1000, Fate::Lost);
        lose(a, c);
        lose(a, d);
        stage.put_meanwhile(0, &key, "new");
        stage.sleep(0.3);
        stage.crash(0);
        lose(b, c);
        lose(b, d);
        read_meanwhile(stage, 1, &key, 20);
        stage.sleep(3.0);
        stage.crash(1);
        read_meanwhile(stage, 2, &key, 40);
        stage.await_all();
        Ok(())
    });
}

/// Nothing is as wide as an item may be, or as empty.
#[test]
fn must_keep_empty_and_long_keys_and_values() {
    direct("sim_worse must_keep_empty_and_long", 2, |stage| {
        stage.begin(2)?;
        let long = vec![b'k'; 100 << 10];
        let sizes = [1, 100, 64 << 10, MIB];
        for (number, key) in [&b""[..], b"k", &long].into_iter().enumerate() {
            for (place, bytes) in sizes.into_iter().enumerate() {
                stage.put(
                    place % 2,
                    key,
                    value(format!("v{number}").as_bytes(), bytes + 2),
                )?;
            }
        }
        stage.boot(2, 0);
        stage.await_members(40.0, &[0, 1, 2])?;
        stage.leave(60.0, 0)?;
        for at in [1, 2] {
            for (number, key) in [&b""[..], b"k", &long].into_iter().enumerate() {
                stage.reads(at, key, value(format!("v{number}").as_bytes(), MIB + 2))?;
            }
        }
        stage.world.scheduler.sleep(Duration::from_secs(1));
        Ok(())
    });
}

/// What items may take at a node that is to be full soon.
const SMALL: usize = 64 << 10;

/// The size of a value: there is room for some ten of them.
const LARGE_VALUE: usize = 5000;

/// Nodes without a limit, and behind them one with little room.
fn begin_with_a_small_one(stage: &Stage, count: usize) -> Result<(), String> {
    stage.begin(count - 1)?;
    stage.boot_small(count - 1, Some(0), SMALL);
    let all: Vec<_> = (0..count).collect();
    stage.await_members(40.0, &all)?;
    stage.await_safe(40.0, 0)
}

/// Puts keys by way of each of the nodes in turn, until one is refused: those that were acknowledged.
fn put_until_refused(stage: &Stage, nodes: usize, bytes: usize) -> Result<Vec<Vec<u8>>, String> {
    let mut done = Vec::new();
    for (number, key) in keys(1000).into_iter().enumerate() {
        match stage.put(number % nodes, &key, value(&key, bytes)) {
            Ok(()) => done.push(key),
            Err(why) if why.contains("has no room for") => return Ok(done),
            Err(why) => return Err(why),
        }
    }
    Err("nothing is refused".to_owned())
}

fn reads_large(stage: &Stage, nodes: &[usize], keys: &[Vec<u8>]) -> Result<(), String> {
    let mut all = nodes
        .iter()
        .flat_map(|at| keys.iter().map(move |key| (at, key)));
    all.try_for_each(|(at, key)| stage.reads(*at, key, value(key, LARGE_VALUE)))
}

/// Two have what was refused, and the third has no room for it.
#[test]
fn must_agree_again_on_a_put_that_one_of_three_had_no_room_for() {
    direct("sim_worse must_agree_again_on_a_put", 3, |stage| {
        begin_with_a_small_one(stage, 3)?;
        let done = put_until_refused(stage, 3, LARGE_VALUE)?;
        let mut free = stage.keys_of(&[0, 1, 2], &[0, 1, 2]);
        let refused = free.find(|key| !done.contains(key)).expect("a key");
        let put = stage.put(2, &refused, value(&refused, LARGE_VALUE));
        put.err().ok_or("it is taken")?;
        stage.is_never_safe(20.0, 1, "though one lacks what two have")?;
        reads_large(stage, &[0, 1, 2], &done)?;
        let read = stage.get(1, &refused)?;
        stage.reads(0, &refused, &read)?;
        stage.reads(2, &refused, &read)?;
        // What doesn't make it larger goes on.
        for key in &done[1..4] {
            stage.put(2, key, b"")?;
        }
        stage.put(1, &done[0], value(b"another", LARGE_VALUE))?;
        stage.await_safe(40.0, 2)?;
        stage.reads(0, &refused, &read)?;
        stage.put(0, b"there is room", "again")?;
        stage.crash(0);
        stage.crash(1);
        stage.await_members(40.0, &[2])?;
        stage.reads(2, &refused, &read)?;
        stage.reads(2, &done[0], value(b"another", LARGE_VALUE))?;
        stage.reads(2, &done[1], b"")?;
        reads_large(stage, &[2], &done[4..])
    });
}

/// Whether the node without room is the primary or the other replica: the two stay the same.
#[test]
fn must_have_a_refused_put_nowhere_if_the_only_other_replica_has_no_room() {
    direct("sim_worse must_have_a_refused_put_nowhere", 2, |stage| {
        begin_with_a_small_one(stage, 2)?;
        let done = put_until_refused(stage, 2, LARGE_VALUE)?;
        for list in [[0, 1], [1, 0]] {
            let key = stage
                .keys_of(&list, &[0, 1])
                .find(|key| !done.contains(key));
            let key = key.expect("BUG: no such key");
            let refused = stage.put(0, &key, value(&key, LARGE_VALUE));
            let why = refused.err().ok_or("it is taken")?;
            if !why.contains(&format!("{} has no room for", location(1))) {
                return Err(why);
            }
            stage.reads(1, &key, b"")?;
        }
        stage.await_safe(12.0, 0)?;
        reads_large(stage, &[0, 1], &done)
    });
}

/// It ends: puts of which it should hold a copy would be refused.
#[test]
fn must_lose_and_refuse_nothing_for_a_newcomer_without_room() {
    direct("sim_worse must_lose_and_refuse_nothing", 2, |stage| {
        stage.begin(2)?;
        let keys = keys(60);
        for key in &keys[..30] {
            stage.put(0, key, value(key, LARGE_VALUE))?;
        }
        stage.boot_small(2, Some(0), SMALL);
        for key in &keys[30..] {
            stage.put(1, key, value(key, LARGE_VALUE))?;
            stage.sleep(0.2);
        }
        stage.await_that(40.0, "the newcomer ends", || !stage.runs(2))?;
        stage.await_members(40.0, &[0, 1])?;
        stage.await_safe(40.0, 0)?;
        reads_large(stage, &[0, 1], &keys)
    });
}

/// One of three is killed, and one of those that stay has no room for its share. Then a node comes that has.
#[test]
fn must_serve_what_a_survivor_has_no_room_for_until_another_node_comes() {
    direct("sim_worse must_serve_what_a_survivor", 2, |stage| {
        begin_with_a_small_one(stage, 3)?;
        let done = put_until_refused(stage, 3, LARGE_VALUE)?;
        // The small one has a share of each.
        stage.await_safe(12.0, 0)?;
        stage.crash(0);
        stage.await_members(40.0, &[1, 2])?;
        stage.is_never_safe(20.0, 2, "though one lacks what the other has")?;
        reads_large(stage, &[1, 2], &done)?;
        stage.boot(3, 1);
        stage.await_members(60.0, &[1, 2, 3])?;
        stage.await_safe(60.0, 3)?;
        reads_large(stage, &[1, 2, 3], &done)
    });
}

/// Both sides of a cut take puts. The side that comes back brings more than the other one has room for.
#[test]
fn must_show_what_a_returning_node_has_and_the_other_has_no_room_for() {
    direct("sim_worse must_show_what_a_returning", 2, |stage| {
        stage.boot_small(0, None, SMALL);
        stage.sleep(1.0);
        stage.boot(1, 0);
        stage.await_members(40.0, &[0, 1])?;
        let brought: Vec<_> = stage.keys_of(&[0, 1], &[0, 1]).take(5).collect();
        stage.part(&[0], &[1]);
        stage.await_members(40.0, &[0])?;
        stage.await_members(40.0, &[1])?;
        let done = put_until_refused(stage, 1, LARGE_VALUE)?;
        for key in &brought {
            stage.put(1, key, value(key, LARGE_VALUE))?;
        }
        stage.world.heal();
        stage.await_members(60.0, &[0, 1])?;
        reads_large(stage, &[0, 1], &done)?;
        reads_large(stage, &[0, 1], &brought)?;
        stage.is_never_safe(20.0, 0, "though one lacks what the other has")?;
        // The first of them is a key that it doesn't hold.
        for key in [&brought[..1], &done[..6]].concat() {
            stage.put(0, &key, b"")?;
            stage.reads(1, &key, b"")?;
        }
        stage.await_safe(40.0, 0)?;
        reads_large(stage, &[0, 1], &brought[1..])
    });
}

/// A node comes back from a cut with a put that it alone has, and is told to leave meanwhile.
#[test]
fn must_bring_what_it_has_when_it_is_told_to_leave_as_it_comes_back() {
    direct_seeds("sim_worse must_bring_what_it_has_when", 2, 60, |stage| {
        stage.begin(3)?;
        stage.part(&[0], &[1, 2]);
        stage.await_members(40.0, &[0])?;
        stage.await_members(40.0, &[1, 2])?;
        stage.put(0, b"k", "new")?;
        stage.world.heal();
        let ticks = stage.world.random.below(50) as f64 / 10.0;
        stage.sleep(ticks);
        let left = stage.begin_leaving(0);
        stage.await_that(60.0, "0 has left", || left.load(Ordering::Relaxed) > 0)?;
        match left.load(Ordering::Relaxed) {
            1 => stage.reads(1, b"k", "new"),
            // It has not met the others yet, and says that it drops the key.
            _ if ticks < 2.5 => Ok(()),
            _ => Err("it doesn't bring what it has".to_owned()),
        }
    });
}

/// The same where the other one is killed meanwhile.
#[test]
fn must_say_so_when_a_returning_node_leaves_and_the_other_one_is_gone() {
    direct_seeds(
        "sim_worse must_say_so_when_a_returning_node_leaves_and",
        2,
        60,
        |stage| {
            stage.begin(2)?;
            stage.part(&[0], &[1]);
            stage.await_members(40.0, &[0])?;
            stage.await_members(40.0, &[1])?;
            stage.put(0, b"k", "new")?;
            stage.put(1, b"k", "newer")?;
            let key = stage.key(&[0, 1], &[0, 1]);
            stage.put(1, &key, value(&key, 500_000))?;
            (0..2).for_each(|at| stage.world.wires().narrow(&location(at), TWO_MBIT));
            stage.world.heal();
            stage.await_that(60.0, "1 is a member again", || stage.knows(0, 1))?;
            let left = stage.begin_leaving(1);
            stage.sleep(stage.world.random.below(20) as f64 / 10.0);
            stage.crash(0);
            stage.await_that(60.0, "it has left", || left.load(Ordering::Relaxed) > 0)?;
            let says = left.load(Ordering::Relaxed) == 2;
            says.then_some(()).ok_or("it says nothing".to_owned())
        },
    );
}

/// The same where the other one has no room for it. As a node that stays it would be full nevertheless.
#[test]
fn must_say_so_when_a_returning_node_leaves_what_the_other_has_no_room_for() {
    direct_seeds(
        "sim_worse must_say_so_when_a_returning_node_leaves_what",
        2,
        60,
        |stage| {
            stage.boot_small(0, None, SMALL);
            stage.sleep(1.0);
            stage.boot(1, 0);
            stage.await_members(40.0, &[0, 1])?;
            stage.part(&[0], &[1]);
            stage.await_members(40.0, &[0])?;
            stage.await_members(40.0, &[1])?;
            let brought = stage.key(&[0, 1], &[0, 1]);
            stage.put(1, &brought, value(&brought, SMALL))?;
            stage.world.heal();
            stage.await_that(60.0, "1 is a member again", || stage.knows(0, 1))?;
            stage.sleep(stage.world.random.below(20) as f64 / 100.0);
            let left = stage.begin_leaving(1);
            stage.await_that(60.0, "it has left", || left.load(Ordering::Relaxed) > 0)?;
            let says = left.load(Ordering::Relaxed) == 2;
            says.then_some(()).ok_or("it says nothing".to_owned())
        },
    );
}

/// One of two that were lost together comes back, is told to leave, and can't hand over what is nowhere else.
#[test]
fn must_not_say_safe_when_one_that_returns_leaves_with_what_is_missing() {
    direct("sim_worse must_not_say_safe_when_one_that", 2, |stage| {
        stage.boot_small(0, None, SMALL);
        stage.sleep(1.0);
        stage.boot(1, 0);
        stage.boot(2, 0);
        stage.await_members(40.0, &[0, 1, 2])?;
        let key = stage.key(&[1, 2], &[0, 1, 2]);
        stage.put(1, &key, value(&key, SMALL))?;
        stage.await_safe(80.0, 0)?;
        stage.world.stop(&location(1));
        stage.crash(2);
        stage.await_that(40.0, "both are lost", || {
            !stage.knows(0, 1) && !stage.knows(0, 2)
        })?;
        stage.world.resume(&location(1));
        stage.await_that(20.0, "it looks for its network", || {
            let one = stage.world.node(&location(1));
            one.is_some_and(|node| node.members().is_empty())
        })?;
        let left = stage.begin_leaving(1);
        stage.await_that(60.0, "it has left", || left.load(Ordering::Relaxed) > 0)?;
        if left.load(Ordering::Relaxed) != 2 {
            return Err("it says nothing".to_owned());
        }
        stage.boot(3, 0);
        stage.await_members(80.0, &[0, 3])?;
        stage.is_never_safe(20.0, 0, "and what two had is gone")
    });
}

/// What a node brings from a cut is to be at two others, of which one has no room. The node is told to leave: it can't wait
/// for that one, though the other one confirms again and again that it has all.
#[test]
fn must_leave_though_one_of_two_has_no_room_for_what_it_brings() {
    direct("sim_worse must_leave_though_one_of_two", 2, |stage| {
        stage.begin(2)?;
        stage.boot(3, 0);
        stage.boot_small(2, Some(0), SMALL);
        stage.await_members(40.0, &[0, 1, 2, 3])?;
        stage.part(&[0], &[1, 2, 3]);
        stage.await_members(40.0, &[0])?;
        stage.await_members(40.0, &[1, 2, 3])?;
        let mut keys = stage.keys_of(&[1, 2], &[0, 1, 2, 3]);
        let brought = keys.next().expect("BUG: keys have no end");
        stage.put(0, &brought, value(&brought, LARGE_VALUE))?;
        while keys
            .next()
            .is_some_and(|key| stage.try_put(1, &key, &value(&key, LARGE_VALUE)))
        {}
        stage.world.heal();
        stage.await_that(60.0, "0 is a member again", || stage.knows(1, 0))?;
        let left = stage.begin_leaving(0);
        stage.await_that(60.0, "0 has left", || left.load(Ordering::Relaxed) == 2)?;
        reads_large(stage, &[1, 3], &[brought])
    });
}

/// One of three is killed. One of those that stay has no room for its share, but gives the other one all that it has.
fn must_have_two_copies_of_what_one_has_room_for(
    stage: &Stage,
    small: usize,
) -> Result<(), String> {
    const BYTES: usize = 300;
    let large = 3 - small;
    stage.begin(1)?;
    stage.boot(large, 0);
    stage.boot_small(small, Some(0), SMALL);
    stage.await_members(40.0, &[0, 1, 2])?;
    stage.await_safe(40.0, 0)?;
    let done = put_until_refused(stage, 3, BYTES)?;
    stage.await_safe(12.0, 0)?;
    stage.crash(0);
    stage.await_members(40.0, &[1, 2])?;
    stage.await_that(400.0, "one of them has all", || {
        let node = stage.world.node(&location(large));
        node.is_some_and(|node| node.items().len() == done.len())
    })?;
    stage.crash(small);
    stage.await_members(40.0, &[large])?;
    let mut keys = done.iter();
    keys.try_for_each(|key| stage.reads(large, key, value(key, BYTES)))
}

/// The other node starts the exchange with the one without room.
#[test]
fn must_have_two_copies_though_the_second_survivor_has_no_room() {
    direct(
        "sim_worse must_have_two_copies_though_the_second",
        2,
        |stage| must_have_two_copies_of_what_one_has_room_for(stage, 2),
    );
}

/// The node without room starts the exchange.
#[test]
fn must_have_two_copies_though_the_first_survivor_has_no_room() {
    direct(
        "sim_worse must_have_two_copies_though_the_first",
        2,
        |stage| must_have_two_copies_of_what_one_has_room_for(stage, 1),
    );
}
