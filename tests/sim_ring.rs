//! A ring of 200 simulated nodes of a service that keeps nothing: they come, go and agree.

mod sim;

use std::sync::Arc;
use std::time::Duration;

use sim::plain::PlainRing;
use sim::runner::{Figures, print_trace, run_world};
use sim::schedule::location;
use sim::world::{Options, Subject, TICK, World};

const NODES: usize = 200;

/// How long it took until all agreed, in their own time.
fn await_agreement(world: &World, limit: Duration) -> Result<Duration, String> {
    let began = world.scheduler.now();
    while let Err(why) = world.agreed() {
        let waited = world.scheduler.now() - began;
        if waited > limit {
            let why = why.chars().take(200).collect::<String>();
            return Err(format!("no agreement after {waited:?}: {why}"));
        }
        world.scheduler.sleep(TICK / 10);
    }
    Ok(world.scheduler.now() - began)
}

fn play(world: &Arc<World>) -> Result<Figures, String> {
    let minute = Duration::from_secs(60);
    world.boot(&location(0), None);
    world.scheduler.sleep(TICK);
    // All within two seconds, by way of one of the first ten, which may be coming in themselves.
    let first = world.scheduler.now();
    for number in 1..NODES {
        let (contact, at) = if number < 10 {
            (0, first)
        } else {
            (world.random.below(10), first + world.between(1, 2_000_000))
        };
        let (stage, me) = (world.clone(), location(number));
        world.scheduler.act_at(at, move || {
            stage.boot(&me, Some(&location(contact)));
        });
    }
    world.scheduler.sleep(Duration::from_secs(2));
    let joined = await_agreement(world, minute)?;
    let there = world.locations().len();
    if there < NODES * 9 / 10 {
        return Err(format!("only {there} have come in"));
    }
    for number in (0..NODES).step_by(3) {
        world.leave(&location(number), |_| ());
    }
    let left = await_agreement(world, minute)?;
    for number in (1..NODES).step_by(6) {
        world.crash(&location(number));
    }
    let noticed = await_agreement(world, minute)?;
    let now = world.locations().len();
    println!(
        "{there} nodes agree {joined:?} after the last start, {left:?} after every third began to \
         leave; {now}, {noticed:?} after crashes"
    );
    Ok(Figures::default())
}

#[test]
fn must_agree_with_200_nodes() {
    let options = Options {
        turns_max: 20_000_000,
        print: print_trace(),
        ..Options::default()
    };
    let subject: Arc<dyn Subject> = Arc::new(PlainRing);
    let verdict = run_world(1, &subject, options, play);
    let tail = verdict.trace.join("\n");
    assert_eq!(verdict.failure, None, "{tail}");
    println!("{:?}", verdict.figures);
}
