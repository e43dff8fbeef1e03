//! Rings of our nodes and of those of 2009 (`sim/original.rs`). The old ones guarantee nothing for what only they hold;
//! these worlds are about what must hold all the same. (31)

mod sim;

use sim::direct::{Stage, direct_seeds};
use sim::schedule::location;
use sim::world::TICK;

const KEYS: usize = 12;

fn keys() -> Vec<Vec<u8>> {
    (0..KEYS)
        .map(|number| format!("k{number}").into_bytes())
        .collect()
}

fn put_all(stage: &Stage, at: usize, value: &str) -> Result<(), String> {
    keys().iter().try_for_each(|key| stage.put(at, key, value))
}

fn read_all(stage: &Stage, at: usize, value: &str) -> Result<(), String> {
    keys()
        .iter()
        .try_for_each(|key| stage.reads(at, key, value))
}

/// Waits until these all know each other, and all of ours are full.
fn begin_mixed(stage: &Stage, ours: usize, originals: &[usize]) -> Result<(), String> {
    stage.begin(ours)?;
    let mut all: Vec<_> = (0..ours).collect();
    for number in originals {
        stage.boot_original(*number, Some(0));
        all.push(*number);
        await_all(stage, &all)?;
    }
    Ok(())
}

fn await_all(stage: &Stage, nodes: &[usize]) -> Result<(), String> {
    let know = |node: &usize| nodes.iter().all(|other| stage.knows(*node, *other));
    let what = format!("{nodes:?} know each other");
    stage.await_that(60.0, &what, || nodes.iter().all(know))?;
    stage.sleep(4.0);
    Ok(())
}

#[test]
fn must_read_everything_beside_an_original_that_joins() {
    direct_seeds("sim_mixed must_read_everything_beside", 2, 40, |stage| {
        stage.begin(2)?;
        put_all(stage, 0, "old")?;
        stage.boot_original(2, Some(stage.world.random.below(2)));
        await_all(stage, &[0, 1, 2])?;
        stage.sleep(20.0);
        (0..3).try_for_each(|at| read_all(stage, at, "old"))?;
        put_all(stage, 1, "new")?;
        (0..3).try_for_each(|at| read_all(stage, at, "new"))
    });
}

#[test]
fn must_take_what_an_original_hands_over() {
    direct_seeds("sim_mixed must_take_what_an_original", 1, 40, |stage| {
        begin_mixed(stage, 2, &[2])?;
        put_all(stage, 0, "old")?;
        stage.leave(60.0, 2)?;
        stage.sleep(10.0);
        (0..2).try_for_each(|at| read_all(stage, at, "old"))
    });
}

#[test]
fn must_get_everything_from_originals_when_it_joins() {
    direct_seeds("sim_mixed must_get_everything_from", 2, 40, |stage| {
        stage.boot_original(0, None);
        stage.sleep(2.0);
        stage.boot_original(1, Some(0));
        await_all(stage, &[0, 1])?;
        put_all(stage, 0, "old")?;
        stage.boot(2, stage.world.random.below(2));
        await_all(stage, &[0, 1, 2])?;
        stage.sleep(20.0);
        (0..3).try_for_each(|at| read_all(stage, at, "old"))
    });
}

#[test]
fn must_give_everything_to_originals_when_it_leaves() {
    direct_seeds("sim_mixed must_give_everything_to", 1, 40, |stage| {
        begin_mixed(stage, 1, &[1, 2])?;
        put_all(stage, 0, "old")?;
        stage.leave(60.0, 0)?;
        stage.sleep(4.0);
        [1, 2]
            .into_iter()
            .try_for_each(|at| read_all(stage, at, "old"))
    });
}

/// Two clients that ask for the same key at once both get the value that the original has.
#[test]
fn must_read_the_latest_at_an_original_by_many_at_once() {
    direct_seeds("sim_mixed must_read_the_latest_at", 2, 40, |stage| {
        begin_mixed(stage, 2, &[2])?;
        put_all(stage, 0, "old")?;
        stage.sleep(4.0);
        put_all(stage, 2, "new")?;
        stage.sleep(4.0);
        for _ in 0..4 {
            let reader = stage.client();
            stage.meanwhile("reads", move || {
                for (at, key) in (0..2).flat_map(|at| keys().into_iter().map(move |key| (at, key)))
                {
                    // The history judges it.
                    let _ = reader.get(at, &key);
                }
            });
        }
        stage.await_all();
        Ok(())
    });
}

/// With two copies ours keep one of what was put through them.
#[test]
fn must_keep_what_was_put_through_ours_when_an_original_is_killed() {
    direct_seeds("sim_mixed must_keep_what_was_put", 2, 40, |stage| {
        begin_mixed(stage, 3, &[3])?;
        put_all(stage, 0, "old")?;
        stage.sleep(4.0);
        stage.crash(3);
        // The first look finds out.
        keys().iter().for_each(|key| {
            drop(
                stage
                    .world
                    .subject
                    .get(&stage.world.client(), &location(1), key),
            )
        });
        stage.sleep(10.0);
        (0..3).try_for_each(|at| read_all(stage, at, "old"))
    });
}

/// While an original hangs, only its own keys are not served, and no node of ours is lost.
#[test]
fn must_serve_what_a_hung_original_does_not_own() {
    direct_seeds("sim_mixed must_serve_what_a_hung", 2, 40, |stage| {
        begin_mixed(stage, 3, &[3])?;
        let all: Vec<_> = (0..4).map(location).collect();
        let placement = stage.world.subject.placement(&all);
        let ours = |key: &Vec<u8>| placement(key).iter().all(|at| *at != location(3));
        let keys = (0..200).map(|number| format!("k{number}").into_bytes());
        let keys: Vec<_> = keys.filter(ours).take(10).collect();
        stage.world.stop(&location(3));
        for number in 0..80 {
            let began = stage.now();
            let key = &keys[number % keys.len()];
            let value = format!("v{number}");
            stage.put(number % 3, key, &value)?;
            stage.reads((number + 1) % 3, key, &value)?;
            let took = stage.now() - began;
            if took > 2 * TICK {
                return Err(format!("a put and a get took {took:?}"));
            }
            stage.sleep(0.3);
        }
        Ok(())
    });
}

/// It answers nothing for 30 s.
#[test]
fn must_drop_an_original_that_stays_silent() {
    direct_seeds("sim_mixed must_drop_an_original_that", 2, 40, |stage| {
        begin_mixed(stage, 3, &[3])?;
        stage.world.stop(&location(3));
        let stopped = stage.now();
        // To put a key that it owns is to call it: such a call is written, and has no answer.
        let (key, client) = (stage.key(&[3, 0], &[0, 1, 2, 3]), stage.client());
        stage.meanwhile("puts", move || {
            for number in 0..20 {
                client.try_put(1, &key, format!("value {number}").as_bytes());
                client.sleep(4.0);
            }
        });
        let is_gone = || (0..3).all(|node| !stage.knows(node, 3));
        stage.await_that(140.0, "it is no member anywhere", is_gone)?;
        let took = stage.now() - stopped;
        if took < 60 * TICK {
            return Err(format!("given up after {took:?}"));
        }
        stage.await_all();
        stage.await_members(20.0, &[0, 1, 2])?;
        put_all(stage, 0, "new")?;
        (0..3).try_for_each(|at| read_all(stage, at, "new"))
    });
}

/// It is busy, or its machine is, and answers once in half a minute at least.
#[test]
fn must_keep_an_original_that_answers_now_and_then() {
    direct_seeds("sim_mixed must_keep_an_original_that", 2, 40, |stage| {
        begin_mixed(stage, 3, &[3])?;
        for round in 0..6 {
            stage.world.stop(&location(3));
            let end = stage.now() + 50 * TICK;
            while stage.now() < end {
                stage.sleep(0.5);
                if let Some(node) = (0..3).find(|node| !stage.knows(*node, 3)) {
                    return Err(format!("{node} has dropped it in round {round}"));
                }
            }
            stage.world.resume(&location(3));
            stage.sleep(8.0);
        }
        let know = || (0..3).all(|node| stage.knows(node, 3) && stage.knows(3, node));
        stage.await_that(60.0, "all know each other", know)
    });
}

/// Ours come, go and are killed around two originals; those must not be stuck for ever, as two of 2009
/// that call each other are, and in the end all is served again.
#[test]
fn world_31_must_bear_changes_of_ours_beside_originals() {
    direct_seeds("sim_mixed world_31_must_bear", 2, 40, |stage| {
        begin_mixed(stage, 2, &[2, 3])?;
        put_all(stage, 0, "old")?;
        for round in 0..3 {
            let newcomer = 4 + round;
            stage.boot(newcomer, 0);
            let reader = stage.client();
            stage.meanwhile("reads", move || {
                for key in keys() {
                    let _ = reader
                        .world
                        .subject
                        .get(&reader.world.client(), &location(1), &key);
                }
            });
            await_all(stage, &[0, 1, 2, 3, newcomer])?;
            stage.leave(60.0, newcomer)?;
            stage.await_all();
        }
        stage.sleep(20.0);
        put_all(stage, 1, "new")?;
        stage.sleep(4.0);
        (0..4).try_for_each(|at| read_all(stage, at, "new"))
    });
}
