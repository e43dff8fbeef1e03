//! Requests that arrive together on one connection, in schedules that are written step by step: how they travel, in
//! which order they take effect, and what becomes of them while nodes come, go and are lost.

mod sim;

use sim::clock::DAY;
use sim::direct::{Stage, direct, direct_seeds};
use sim::schedule::location;
use sim::wires::Fate;
use sim::world::TICK;

/// Keys, each with a value.
fn begin_with_keys(stage: &Stage, nodes: usize, keys: usize) -> Result<Vec<Vec<u8>>, String> {
    stage.begin(nodes)?;
    let keys = (0..keys).map(|number| format!("k{number}").into_bytes());
    let keys: Vec<_> = keys.collect();
    keys.iter().try_for_each(|key| stage.put(0, key, "old"))?;
    Ok(keys)
}

/// A client that sends gets and puts of these keys together, again and again; the history judges what it reads. `name`:
/// another one for each client of a node.
fn send_meanwhile(stage: &Stage, name: &'static str, at: usize, keys: &[Vec<u8>], times: usize) {
    let (client, keys) = (stage.client(), keys.to_vec());
    stage.meanwhile("batches", move || {
        for batch in 0..times {
            let random = &client.world.random;
            let operations = (0..12).map(|place| {
                let key = keys[random.below(keys.len())].clone();
                let value = format!("{name} at {at}, {batch}, {place}").into_bytes();
                (key, client.world.chance(500).then_some(value))
            });
            // A put that fails may take effect.
            let _ = client.together(at, &operations.collect::<Vec<_>>());
            client.sleep(0.2);
        }
    });
}

/// Some messages between two nodes are late.
fn delay(stage: &Stage, from: usize, to: usize, within: usize) {
    let late = Fate::Late(TICK.mul_f64(stage.world.random.below(9) as f64 / 10.0));
    let pass = stage.world.random.below(within);
    let link = (&location(from), &location(to));
    stage.world.wires().trap(link, pass, 3, late);
}

#[test]
fn must_send_what_comes_together_in_one_message_to_each_node() {
    direct("sim_batches must_send_what_comes_together", 2, |stage| {
        stage.begin(3)?;
        let lists = [[1, 2], [2, 1], [0, 1], [0, 2], [1, 0]];
        let keys = lists.map(|list| stage.keys_of(&list, &[0, 1, 2]).take(3).collect::<Vec<_>>());
        let keys: Vec<_> = keys.concat();
        let put = |key: &Vec<u8>| (key.clone(), Some(b"value".to_vec()));
        let puts: Vec<_> = keys.iter().map(put).collect();
        let gets: Vec<_> = keys.iter().map(|key| (key.clone(), None)).collect();
        // A put whose list changes meanwhile, or whose primary has no lease yet, goes round again.
        stage.await_safe(40.0, 0)?;
        stage.together(0, &puts)?;
        let sent = |node, method| stage.world.wires().sent(&location(node), method);
        for operations in [puts, gets] {
            let before = [0, 1, 2].map(|node| (sent(node, "forward"), sent(node, "store")));
            let read = stage.together(0, &operations)?;
            if read.iter().any(|read| read != b"value") {
                return Err(format!("{read:?}"));
            }
            for (node, (forward, store)) in before.into_iter().enumerate() {
                let more = (sent(node, "forward") - forward, sent(node, "store") - store);
                let most = if node == 0 { (2, 2) } else { (0, 2) };
                if more.0 > most.0 || more.1 > most.1 {
                    return Err(format!(
                        "{node} sends {more:?} messages with forward, store"
                    ));
                }
            }
        }
        Ok(())
    });
}

#[test]
fn must_carry_out_requests_for_a_key_in_their_order() {
    direct(
        "sim_batches must_carry_out_requests_for_a_key",
        2,
        |stage| {
            stage.begin(3)?;
            for list in [[0, 1], [1, 0], [1, 2]] {
                let key = stage.key(&list, &[0, 1, 2]);
                let one = |number: usize| {
                    let value = format!("{}", number / 3).into_bytes();
                    (key.clone(), number.is_multiple_of(3).then_some(value))
                };
                let operations: Vec<_> = (0..15).map(one).collect();
                let read = stage.together(0, &operations)?;
                let wanted = (0..10).map(|number| format!("{}", number / 2).into_bytes());
                if !wanted.eq(read.iter().cloned()) {
                    return Err(format!("{read:?}"));
                }
            }
            Ok(())
        },
    );
}

/// Requests for one key at a node that isn't its primary, while the primary is lost: they keep their order.
#[test]
fn must_keep_the_order_of_requests_while_their_primary_is_lost() {
    direct("sim_batches must_keep_the_order_of_requests", 2, |stage| {
        stage.begin(3)?;
        let key = stage.key(&[1, 2], &[0, 1, 2]);
        let crashed = stage.clone();
        stage.meanwhile("crash", move || {
            crashed.sleep(crashed.world.random.below(100) as f64 / 10_000.0);
            crashed.crash(1);
        });
        for round in 0..5 {
            let one = |number: usize| {
                let value = format!("{round}-{number}").into_bytes();
                (key.clone(), number.is_multiple_of(2).then_some(value))
            };
            // The history judges what is read, and a put that fails may take effect.
            let _ = stage.together(0, &(0..10).map(one).collect::<Vec<_>>());
        }
        stage.await_all();
        Ok(())
    });
}

/// A replica gets the copies of a batch, but its answer is lost, and so is the replica. The puts go round again with a
/// clock that was set back. When the replica returns, its copies must not win over what was put later.
#[test]
fn must_not_let_an_older_put_overtake_those_of_a_batch() {
    direct("sim_batches must_not_let_an_older_put", 2, |stage| {
        let set_clock = |number, ahead| stage.world.clock(&location(number)).set_ahead(ahead);
        (0..3).for_each(|number| set_clock(number, 0));
        stage.begin(3)?;
        let keys: Vec<_> = stage.keys_of(&[0, 1], &[0, 1, 2]).take(3).collect();
        let puts = |values: &[&str]| {
            let put = |value: &str| {
                let value = value.as_bytes().to_vec();
                let keys = keys.iter().cloned();
                keys.map(move |key| (key, Some(value.clone())))
            };
            values
                .iter()
                .flat_map(|value| put(value))
                .collect::<Vec<_>>()
        };
        stage.world.wires().cut(&location(1), &location(0));
        stage.part(&[1], &[2]);
        let (client, tried) = (stage.client(), puts(&["tried", "tried again"]));
        stage.meanwhile("batch", move || {
            // The history has it.
            let _ = client.together(0, &tried);
        });
        stage.sleep(0.8);
        stage.part(&[1], &[0]);
        set_clock(0, -DAY / 24);
        stage.await_all();
        stage.together(0, &puts(&["later", "last"]))?;
        stage.world.heal();
        stage.await_members(60.0, &[0, 1, 2])?;
        keys.iter().try_for_each(|key| stage.reads(0, key, "last"))
    });
}

/// Items move to a node that joins, or from one that leaves.
fn handed_over(stage: &Stage) -> Result<(), String> {
    let keys = begin_with_keys(stage, 2, 6)?;
    for (from, to) in [(0, 2), (2, 0), (1, 2), (2, 1), (0, 1), (1, 0)] {
        delay(stage, from, to, 20);
    }
    (0..2).for_each(|at| send_meanwhile(stage, "first", at, &keys, 30));
    stage.boot(2, stage.world.random.below(2));
    send_meanwhile(stage, "first", 2, &keys, 30);
    stage.await_members(60.0, &[0, 1, 2])?;
    (1..3).for_each(|at| send_meanwhile(stage, "second", at, &keys, 20));
    stage.leave(60.0, 0)?;
    stage.await_all();
    let get = |key: &Vec<u8>| (key.clone(), None);
    let gets: Vec<_> = keys.iter().map(get).collect();
    stage.together(1, &gets).map(|_| ())
}

#[test]
fn must_carry_batches_out_while_items_are_handed_over() {
    direct_seeds(
        "sim_batches must_carry_batches_out_while_items",
        1,
        50,
        handed_over,
    );
    direct_seeds(
        "sim_batches must_carry_batches_out_while_items",
        2,
        50,
        handed_over,
    );
}

/// Two that are neighbours on the ring leave within a tick.
fn two_leave(stage: &Stage) -> Result<(), String> {
    let keys = begin_with_keys(stage, 4, 12)?;
    (0..4).for_each(|at| send_meanwhile(stage, "first", at, &keys, 20));
    stage.leave_together(60.0, 0, 1)?;
    stage.await_all();
    let get = |key: &Vec<u8>| (key.clone(), None);
    let gets: Vec<_> = keys.iter().map(get).collect();
    [2, 3]
        .into_iter()
        .try_for_each(|at| stage.together(at, &gets).map(|_| ()))
}

#[test]
fn must_carry_batches_out_while_two_neighbours_leave() {
    direct_seeds(
        "sim_batches must_carry_batches_out_while_two",
        1,
        60,
        two_leave,
    );
    direct_seeds(
        "sim_batches must_carry_batches_out_while_two",
        2,
        60,
        two_leave,
    );
}
