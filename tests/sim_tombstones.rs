//! Deleted keys: their tombstones are forgotten, nothing that was deleted comes back, and no put after that is lost.

mod sim;

use sim::clock::DAY;
use sim::direct::{Stage, direct, direct_seeds};
use sim::schedule::location;

/// So long it takes at most until a tombstone is forgotten, in ticks: twice a little more than 120, if it isn't too late for
/// the first time.
const FORGOTTEN: f64 = 400.0;

const HOUR: f64 = 7200.0;

/// Whether that node holds something of the key, be it a tombstone.
fn holds(stage: &Stage, number: usize, key: &[u8]) -> bool {
    let node = stage.world.node(&location(number));
    node.is_some_and(|node| node.items().iter().any(|item| item.key == key))
}

fn hold(stage: &Stage, key: &[u8]) -> usize {
    (0..5).filter(|number| holds(stage, *number, key)).count()
}

/// Three nodes, and a key of the first two that was put and deleted.
fn deleted(stage: &Stage) -> Result<Vec<u8>, String> {
    stage.begin(3)?;
    let key = stage.key(&[0, 1], &[0, 1, 2]);
    stage.put(2, &key, "old")?;
    stage.put(2, &key, "")?;
    Ok(key)
}

#[test]
fn must_forget_what_was_deleted() {
    direct("sim_tombstones must_forget_what_was_deleted", 2, |stage| {
        let key = deleted(stage)?;
        stage.sleep(100.0);
        assert_eq!(hold(stage, &key), 2, "not at once");
        stage.await_that(FORGOTTEN, "forgotten", || hold(stage, &key) == 0)?;
        stage.reads(1, &key, "")?;
        stage.put(1, &key, "new")?;
        stage.reads(2, &key, "new")
    });
}

#[test]
fn must_forget_without_other_nodes() {
    direct(
        "sim_tombstones must_forget_without_other_nodes",
        2,
        |stage| {
            stage.begin(1)?;
            stage.put(0, b"k", "old")?;
            stage.put(0, b"k", "")?;
            stage.await_that(FORGOTTEN, "forgotten", || hold(stage, b"k") == 0)
        },
    );
}

#[test]
fn must_not_forget_while_a_member_is_lost() {
    direct("sim_tombstones must_not_forget_while", 2, |stage| {
        stage.begin(3)?;
        let key = stage.key(&[0, 1], &[0, 1, 2]);
        stage.put(2, &key, "old")?;
        stage.part(&[1], &[0, 2]);
        stage.await_that(40.0, "1 is lost", || {
            !stage.knows(0, 1) && !stage.knows(2, 1)
        })?;
        stage.put(2, &key, "")?;
        stage.sleep(2.0 * FORGOTTEN);
        stage.world.heal();
        stage.await_members(80.0, &[0, 1, 2])?;
        stage.await_safe(40.0, 0)?;
        stage.reads(1, &key, "")?;
        stage.await_that(FORGOTTEN, "forgotten", || hold(stage, &key) == 0)
    });
}

/// One of the replicas is cut off, and returns when the key was put again by a clock that is far behind that of the
/// tombstone.
fn put_again(stage: &Stage, cut: usize, key: &[u8]) -> Result<(), String> {
    let others: Vec<_> = (0..3).filter(|number| *number != cut).collect();
    stage.part(&[cut], &others);
    let alone = || others.iter().all(|other| !stage.knows(*other, cut));
    stage.await_that(40.0, "it is lost", alone)?;
    let put = || stage.try_put(2, key, b"new");
    stage.await_that(40.0, "put", put)?;
    stage.world.heal();
    stage.await_members(80.0, &[0, 1, 2])?;
    stage.await_safe(40.0, 0)?;
    stage.reads(1, key, "new")?;
    stage.sleep(2.0 * FORGOTTEN);
    (0..3).try_for_each(|number| stage.reads(number, key, "new"))
}

fn deleted_in_the_future(stage: &Stage) -> Result<Vec<u8>, String> {
    let clock = |number| stage.world.clock(&location(number));
    (0..3).for_each(|number| clock(number).set_ahead(400 * DAY));
    let key = deleted(stage)?;
    (0..3).for_each(|number| clock(number).set_ahead(0));
    Ok(key)
}

#[test]
fn must_keep_a_put_with_a_smaller_version_than_a_tombstone() {
    direct_seeds("sim_tombstones must_keep_a_put_with", 2, 40, |stage| {
        let key = deleted_in_the_future(stage)?;
        stage.sleep(100.0 + stage.world.random.below(350) as f64);
        put_again(stage, stage.world.random.below(2), &key)
    });
}

#[test]
fn must_keep_a_put_that_comes_when_one_of_two_has_forgotten_the_tombstone() {
    direct_seeds("sim_tombstones must_keep_a_put_that", 2, 20, |stage| {
        let key = deleted_in_the_future(stage)?;
        let last = stage.world.random.below(2);
        for _ in 0..8 {
            // Its ticks are behind those of the others then.
            stage.world.stop(&location(last));
            stage.sleep(3.0);
            stage.world.resume(&location(last));
            stage.sleep(5.0);
        }
        let first = 1 - last;
        let forgotten = || !holds(stage, first, &key);
        // With most seeds the other one has it still.
        stage.await_that(FORGOTTEN, "one has forgotten it", forgotten)?;
        put_again(stage, last, &key)
    });
}

/// After an hour no member waits for it, and it comes in without its items.
fn lost_for_an_hour(stage: &Stage, lose: fn(&Stage), find: fn(&Stage)) -> Result<(), String> {
    stage.begin(3)?;
    let key = stage.key(&[0, 1], &[0, 1, 2]);
    let other = stage.key(&[2, 0], &[0, 1, 2]);
    stage.put(2, &key, "old")?;
    stage.put(2, &other, "kept")?;
    stage.await_safe(40.0, 0)?;
    lose(stage);
    stage.await_that(40.0, "1 is lost", || {
        !stage.knows(0, 1) && !stage.knows(2, 1)
    })?;
    stage.put(2, &key, "")?;
    stage.sleep(HOUR - 60.0);
    let held = |number| holds(stage, number, &key);
    if !held(0) {
        return Err("forgotten before the hour is over".to_owned());
    }
    let forgotten = || !held(0) && !held(2);
    stage.await_that(120.0 + FORGOTTEN, "forgotten", forgotten)?;
    find(stage);
    stage.await_members(120.0, &[0, 1, 2])?;
    stage.await_safe(40.0, 0)?;
    for number in 0..3 {
        stage.reads(number, &key, "")?;
        stage.reads(number, &other, "kept")?;
    }
    Ok(())
}

#[test]
fn must_not_bring_back_what_was_deleted_while_a_node_was_cut_off_for_an_hour() {
    direct_seeds(
        "sim_tombstones must_not_bring_back_what_was_deleted_while_a_n",
        2,
        3,
        |stage| {
            let lose = |stage: &Stage| stage.part(&[1], &[0, 2]);
            lost_for_an_hour(stage, lose, |stage| stage.world.heal())
        },
    );
}

#[test]
fn must_not_bring_back_what_was_deleted_while_a_machine_was_suspended_for_an_hour() {
    direct_seeds(
        "sim_tombstones must_not_bring_back_what_was_deleted_while_a_m",
        2,
        3,
        |stage| {
            let lose = |stage: &Stage| stage.world.suspend(&location(1));
            lost_for_an_hour(stage, lose, |stage| stage.world.resume(&location(1)))
        },
    );
}

/// Those that stood still of late usually come back to the others. But they have forgotten what was deleted.
#[test]
fn must_not_bring_back_what_was_deleted_to_nodes_that_stood_still_after_an_hour() {
    direct_seeds(
        "sim_tombstones must_not_bring_back_what_was_deleted_to_nodes",
        2,
        3,
        |stage| {
            let lose = |stage: &Stage| stage.part(&[1], &[0, 2]);
            lost_for_an_hour(stage, lose, |stage| {
                let others = [0, 2].map(location);
                others.iter().for_each(|other| stage.world.suspend(other));
                stage.sleep(6.0);
                others.iter().for_each(|other| stage.world.resume(other));
                stage.world.heal();
            })
        },
    );
}

/// The others have never known the node that joined beyond the cut.
#[test]
fn must_not_bring_back_what_a_node_got_from_one_that_was_cut_off_for_an_hour() {
    direct_seeds(
        "sim_tombstones must_not_bring_back_what_a_node_got",
        2,
        3,
        |stage| {
            stage.begin(4)?;
            let key = stage.key(&[0, 2], &[0, 1, 2, 3]);
            stage.put(1, &key, "old")?;
            stage.await_safe(40.0, 0)?;
            stage.part(&[2, 4], &[0, 1, 3]);
            let alone = || [0, 1, 3].iter().all(|other| !stage.knows(*other, 2));
            stage.await_that(40.0, "2 is lost", alone)?;
            stage.put(1, &key, "")?;
            stage.world.boot(&location(4), Some(&location(2)));
            let got = || holds(stage, 4, &key) && stage.knows(2, 4);
            stage.await_that(80.0, "4 has it", got)?;
            stage.sleep(HOUR);
            let forgotten = || !holds(stage, 0, &key);
            stage.await_that(120.0 + FORGOTTEN, "forgotten", forgotten)?;
            stage.world.heal();
            stage.await_members(200.0, &[0, 1, 2, 3, 4])?;
            stage.await_safe(80.0, 0)?;
            (0..5).try_for_each(|number| stage.reads(number, &key, ""))
        },
    );
}
