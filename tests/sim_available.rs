//! What goes on being served. With one trouble at a time, a request whose replicas are all well and reach
//! each other is answered within two ticks; many nodes start at once; a ring is restarted node by node.

mod sim;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use sim::clock::DAY;
use sim::direct::{Play, Stage, direct_seeds};
use sim::schedule::location;
use sim::world::TICK;
use thrifty_p2p::client::{Client, Error};

/// Nodes before something goes wrong, at one of them or by way of a further one.
const NODES: usize = 5;
const VICTIM: usize = 3;
const NEWCOMER: usize = NODES;

/// Keys whose replicas don't include the victim, or any.
fn keys(stage: &Stage, victim: Option<usize>) -> Vec<Vec<u8>> {
    let all: Vec<_> = (0..NODES).map(location).collect();
    let placement = stage.world.subject.placement(&all);
    let victim = victim.map(location);
    let all = (0..1000).map(|number| format!("k{number}").into_bytes());
    let well = all.filter(|key| {
        victim
            .as_ref()
            .is_none_or(|at| !placement(key).contains(at))
    });
    well.take(12).collect()
}

/// Puts and gets of these keys, at nodes that are well, for thirty ticks in which something goes wrong.
fn use_during(
    stage: &Stage,
    keys: &[Vec<u8>],
    trouble: impl FnOnce(&Stage) + Send + 'static,
) -> Result<(), String> {
    let culprit = stage.clone();
    stage.meanwhile("trouble", move || {
        culprit.sleep(culprit.world.random.below(40) as f64 / 10.0);
        trouble(&culprit);
    });
    let until = stage.now() + 30 * TICK;
    let mut number = 0;
    while stage.now() < until {
        number += 1;
        let at = stage.world.random.below(VICTIM);
        let key = &keys[stage.world.random.below(keys.len())];
        let began = stage.now();
        let put = stage.world.chance(500);
        let what = if put {
            stage.put(at, key, format!("v{number}"))?;
            "put"
        } else {
            stage.get(at, key)?;
            "get"
        };
        let took = stage.now() - began;
        if took > 2 * TICK {
            let key = String::from_utf8_lossy(key);
            return Err(format!("a {what} of {key} at {at} took {took:?}"));
        }
        stage.sleep(stage.world.random.below(4) as f64 / 10.0);
    }
    stage.await_all();
    Ok(())
}

/// Such a world with two copies and with three.
fn use_with_trouble(test: &str, play: Play) {
    for replicas in [2, 3] {
        direct_seeds(&format!("sim_available {test}"), replicas, 60, play);
    }
}

/// How long it lasts: below, about and beyond what others bear.
fn last(stage: &Stage) {
    stage.sleep([3.0, 6.0, 12.0, 40.0][stage.world.random.below(4)]);
}

#[test]
fn must_serve_what_a_hung_node_does_not_hold() {
    use_with_trouble("must_serve_what_a_hung", |stage| {
        stage.begin(NODES)?;
        use_during(stage, &keys(stage, Some(VICTIM)), |stage| {
            stage.world.stop(&location(VICTIM));
            last(stage);
            stage.world.resume(&location(VICTIM));
        })
    });
}

#[test]
fn must_serve_what_a_suspended_node_does_not_hold() {
    use_with_trouble("must_serve_what_a_suspended", |stage| {
        stage.begin(NODES)?;
        use_during(stage, &keys(stage, Some(VICTIM)), |stage| {
            stage.world.suspend(&location(VICTIM));
            last(stage);
            stage.world.resume(&location(VICTIM));
        })
    });
}

#[test]
fn must_serve_what_a_killed_node_does_not_hold() {
    use_with_trouble("must_serve_what_a_killed", |stage| {
        stage.begin(NODES)?;
        use_during(stage, &keys(stage, Some(VICTIM)), |stage| {
            stage.crash(VICTIM)
        })
    });
}

#[test]
fn must_serve_what_a_restarted_node_does_not_hold() {
    use_with_trouble("must_serve_what_a_restarted", |stage| {
        stage.begin(NODES)?;
        use_during(stage, &keys(stage, Some(VICTIM)), |stage| {
            stage.crash(VICTIM);
            stage.sleep(stage.world.random.below(30) as f64 / 10.0);
            stage.boot(VICTIM, 0);
        })
    });
}

#[test]
fn must_serve_everything_while_a_node_joins() {
    let name = "must_serve_everything_while_a_node_joins";
    use_with_trouble(name, |stage| {
        stage.begin(NODES)?;
        use_during(stage, &keys(stage, None), |stage| stage.boot(NEWCOMER, 0))
    });
}

#[test]
fn must_serve_everything_while_a_node_leaves() {
    let name = "must_serve_everything_while_a_node_leaves";
    use_with_trouble(name, |stage| {
        stage.begin(NODES)?;
        use_during(stage, &keys(stage, None), |stage| {
            stage.begin_leaving(VICTIM);
        })
    });
}

#[test]
fn must_serve_everything_while_a_clock_is_stepped() {
    let name = "must_serve_everything_while_a_clock";
    use_with_trouble(name, |stage| {
        stage.begin(NODES)?;
        use_during(stage, &keys(stage, None), |stage| {
            for _ in 0..8 {
                let far = [DAY / 24, -DAY / 24, DAY / 2, -400 * DAY];
                let far = far[stage.world.random.below(4)];
                stage.world.clock(&location(VICTIM)).set_ahead(far);
                stage.sleep(stage.world.random.below(300) as f64 / 100.0);
            }
        })
    });
}

/// With one copy each put needs a lease, and each change of the ring makes leases void. A put that waits for one asks for
/// it at once.
#[test]
fn must_not_have_puts_wait_for_the_next_tick_when_the_ring_has_changed() {
    direct_seeds("sim_available must_not_have_puts_wait", 1, 20, |stage| {
        stage.begin(3)?;
        let times = Arc::new(Mutex::new(Vec::new()));
        for newcomer in 3..6 {
            stage.boot(newcomer, 0);
            stage.await_members(40.0, &(0..=newcomer).collect::<Vec<_>>())?;
            for number in 0..10 {
                let (client, times) = (stage.client(), times.clone());
                stage.meanwhile("put", move || {
                    let (began, key) = (client.now(), format!("k{number}"));
                    let value = format!("{newcomer}");
                    if client.put(number % 3, key.as_bytes(), value).is_ok() {
                        let mut times = times.lock().expect("BUG: nobody panics with it");
                        times.push(client.now() - began);
                    }
                });
            }
            stage.await_all();
        }
        let mut times = times.lock().expect("BUG: nobody panics with it");
        times.sort_unstable();
        match times.get(20) {
            Some(time) if *time < TICK / 5 => Ok(()),
            other => Err(format!("two thirds of 30 puts take {other:?}")),
        }
    });
}

/// With one copy, a key's node answers by a lease, which another node grants. That one hangs: requests for the key are
/// answered once it is lost. Keys with which it has nothing to do don't wait.
#[test]
fn must_answer_without_the_node_that_grants_leases_once_it_is_lost() {
    const OWNER: usize = 0;
    direct_seeds(
        "sim_available must_answer_without_the_node",
        1,
        30,
        |stage| {
            stage.begin(4)?;
            let granted_by = |granter: usize| {
                let all = [0, 1, 2, 3].map(location);
                let without = &all[OWNER + 1..];
                let (owner, next) = (
                    stage.world.subject.placement(&all),
                    stage.world.subject.placement(without),
                );
                let mut keys = (0..).map(|number| format!("k{number}").into_bytes());
                let is_so = |key: &Vec<u8>| {
                    owner(key) == [location(OWNER)] && next(key) == [location(granter)]
                };
                keys.find(is_so).expect("BUG: keys have no end")
            };
            let (waits, goes_on) = (granted_by(VICTIM), granted_by(1));
            for key in [&waits, &goes_on] {
                stage.put(OWNER, key, "old")?;
            }
            stage.world.stop(&location(VICTIM));
            stage.sleep(5.0);
            let (client, key) = (stage.client(), waits.clone());
            let late = Arc::new(Mutex::new(None));
            let noted = late.clone();
            stage.meanwhile("waits", move || {
                let began = client.now();
                let put = client.put(1, &key, "new");
                let read = client.reads(2, &key, "new");
                let outcome = put.and(read).map(|()| client.now() - began);
                *noted.lock().expect("BUG: nobody panics with it") = Some(outcome);
            });
            for number in 0..40 {
                let value = format!("v{number}");
                for puts in [true, false] {
                    let began = stage.now();
                    match puts {
                        true => stage.put(1, &goes_on, &value)?,
                        false => stage.reads(2, &goes_on, &value)?,
                    }
                    let took = stage.now() - began;
                    if took > 2 * TICK {
                        return Err(format!("a request that needs the others took {took:?}"));
                    }
                }
                stage.sleep(0.2);
            }
            stage.await_all();
            let late = late.lock().expect("BUG: nobody panics with it").take();
            let took = late.ok_or("it has not ended")??;
            // It has been silent for five ticks, and is lost after eight.
            if took < TICK || took > 12 * TICK {
                return Err(format!("its key was put and read after {took:?}"));
            }
            Ok(())
        },
    );
}

#[test]
fn must_have_fifty_that_start_at_once_full_within_twenty_ticks() {
    direct_seeds(
        "sim_available must_have_fifty_that_start_at_once_full_within_twenty_ticks",
        2,
        4,
        |stage| {
            stage.world.boot(&location(0), None);
            (1..50).for_each(|number| stage.boot(number, 0));
            stage.await_members(20.0, &(0..50).collect::<Vec<_>>())
        },
    );
}

#[test]
fn must_have_fifty_that_look_for_each_other_full_within_twenty_ticks() {
    direct_seeds("sim_available must_have_fifty_that_look", 2, 4, |stage| {
        let all: Vec<_> = (0..50).collect();
        all.iter()
            .for_each(|number| stage.boot_looking(*number, &all));
        stage.await_members(20.0, &all)
    });
}

/// Each node in turn leaves, or is killed, and comes back. From the first try of a put to its acknowledgement
/// it is never longer than three ticks.
fn rolling_restart(stage: &Stage, leaves: bool) -> Result<(), String> {
    const NODES: usize = 20;
    stage.begin(NODES)?;
    let over = Arc::new(AtomicBool::new(false));
    let (restarter, done) = (stage.clone(), over.clone());
    stage.meanwhile("restarts", move || {
        for number in 0..NODES {
            if leaves {
                // One that can't hand over says so: what is missing then is found at the end.
                let _ = restarter.leave(60.0, number);
            } else {
                restarter.crash(number);
            }
            restarter.boot(number, (number + 1) % NODES);
            let safe = || restarter.is_up(number) && restarter.says_safe((number + 1) % NODES);
            let _ = restarter.await_that(100.0, "it is safe again", safe);
        }
        done.store(true, Ordering::Relaxed);
    });
    let mut number = 0;
    while !over.load(Ordering::Relaxed) {
        number += 1;
        let key = format!("k{}", stage.world.random.below(40)).into_bytes();
        let began = stage.now();
        loop {
            let at = stage.world.random.below(NODES);
            if stage.is_up(at) && stage.try_put(at, &key, format!("v{number}").as_bytes()) {
                break;
            }
            number += 1;
            stage.sleep(0.05);
        }
        let took = stage.now() - began;
        if took > 3 * TICK {
            return Err(format!("a put took {took:?}"));
        }
        stage.sleep(0.2);
    }
    stage.await_all();
    stage.await_members(40.0, &(0..NODES).collect::<Vec<_>>())?;
    // The history knows what each has to be.
    (0..40).try_for_each(|key| {
        let at = stage.world.random.below(NODES);
        stage.get(at, format!("k{key}").as_bytes()).map(|_| ())
    })
}

#[test]
fn must_never_stop_a_put_for_three_ticks_while_twenty_leave_and_come_back() {
    direct_seeds(
        "sim_available must_never_stop_a_put_for_three_ticks_while_twenty_leave_and_come_back",
        2,
        4,
        |stage| rolling_restart(stage, true),
    );
}

#[test]
fn must_never_stop_a_put_for_three_ticks_while_twenty_are_killed_and_come_back() {
    direct_seeds(
        "sim_available must_never_stop_a_put_for_three_ticks_while_twenty_are_killed_and_come_back",
        2,
        4,
        |stage| rolling_restart(stage, false),
    );
}

/// Lists all keys again and again, by a client that begins anew each time, until it is told that all is over.
fn list_meanwhile(stage: &Stage, keys: &[Vec<u8>]) -> (Arc<AtomicBool>, Arc<Mutex<Vec<String>>>) {
    let (over, wrong) = (Arc::new(AtomicBool::new(false)), Arc::default());
    let (stage, wanted) = (stage.clone(), keys.to_vec());
    let (ended, noted): (_, Arc<Mutex<Vec<String>>>) = (over.clone(), Arc::clone(&wrong));
    stage.clone().meanwhile("lists", move || {
        while !ended.load(Ordering::Relaxed) {
            let network = Arc::new(stage.world.client());
            let clock = network.origin.clock.clone();
            let mut found = Vec::new();
            let client = Client::connect_over("diststore.Store", network, clock, &[location(0)]);
            let listed = client.and_then(|client| {
                client.keys(b"", &mut |keys, _| {
                    found.extend(keys.into_iter().map(|key| key.key));
                    Ok::<(), Error>(())
                })
            });
            found.sort();
            if !listed.as_ref().is_ok_and(|all| *all) || found != wanted {
                let found = found.len();
                noted
                    .lock()
                    .unwrap()
                    .push(format!("{listed:?}, {found} keys"));
            }
        }
    });
    (over, wrong)
}

/// Items move to nodes that come and from nodes that go, and each key is on one node only.
#[test]
fn must_list_each_key_once_while_items_move() {
    direct_seeds("sim_available must_list_each_key_once", 1, 30, |stage| {
        stage.begin(3)?;
        let mut keys: Vec<_> = (0..80)
            .map(|number| format!("k{number}").into_bytes())
            .collect();
        keys.sort();
        keys.iter().try_for_each(|key| stage.put(0, key, "value"))?;
        let (over, wrong) = list_meanwhile(stage, &keys);
        for number in 3..6 {
            stage.boot(number, 0);
            stage.sleep(stage.world.random.below(40) as f64 / 10.0);
            stage.leave(60.0, number - 2)?;
        }
        stage.await_members(60.0, &[0, 4, 5])?;
        over.store(true, Ordering::Relaxed);
        stage.await_all();
        match &wrong.lock().unwrap()[..] {
            [] => Ok(()),
            wrong => Err(wrong.join("; ")),
        }
    });
}
