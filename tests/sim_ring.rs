//! A ring of 200 simulated nodes of a service that keeps nothing: they come, go and agree.

mod sim;

use std::sync::Arc;
use std::time::Duration;

use sim::pool::Pool;
use sim::runner::{Figures, print_trace, run_world};
use sim::schedule::location;
use sim::world::{Item, Options, SimNode, Subject, TICK, World};
use thrifty_p2p::location::Location;
use thrifty_p2p::locator::{self, Application, Locator, Participant, State};
use thrifty_p2p::net::{Environment, Network};
use thrifty_p2p::service::{Call, Order, Service};
use thrifty_p2p::thrift::Exception;

const NODES: usize = 200;

/// A service that adds nothing to the locator.
struct Plain(Locator);

impl Service for Plain {
    fn call(&self, call: &Call<'_>, result: &mut Vec<u8>) -> Result<(), Exception> {
        self.0.call(call, result, self)
    }

    fn order(&self, method: &[u8]) -> Order {
        self.0.order(method)
    }
}

impl Application for Plain {}

impl Participant for Plain {
    fn locator(&self) -> &Locator {
        &self.0
    }
}

struct Node(Arc<Plain>);

impl SimNode for Node {
    fn service(&self) -> Arc<dyn Service> {
        self.0.clone()
    }

    fn start(&self, contact: Option<&Location>) -> bool {
        self.0.0.start(contact, &*self.0).is_ok()
    }

    fn tick(&self) {
        self.0.0.tick();
    }

    fn work(&self) {
        self.0.work();
    }

    fn leave(&self) -> bool {
        self.0.leave().is_ok()
    }

    fn members(&self) -> Vec<(Location, bool)> {
        let view = self.0.0.view();
        let members = view.members().iter();
        let members = members.map(|m| (m.location.clone(), m.state != State::Full));
        members.collect()
    }

    fn items(&self) -> Vec<Item> {
        Vec::new()
    }
}

struct PlainRing;

impl Subject for PlainRing {
    fn node(&self, location: &Location, environment: Environment) -> Arc<dyn SimNode> {
        let options = locator::Options {
            service_types: &["locator.Base", "locator.Locator"],
            replicas: 1,
            tick: TICK,
            die_from_anywhere: false,
            on_die: Box::new(|| ()),
        };
        let locator = Locator::new(location.clone(), options, environment);
        Arc::new(Node(Arc::new(Plain(locator))))
    }

    fn put(&self, _: &dyn Network, _: &Location, _: &[u8], _: &[u8]) -> Result<(), String> {
        Err("keeps nothing".to_owned())
    }

    fn get(&self, _: &dyn Network, _: &Location, _: &[u8]) -> Result<Vec<u8>, String> {
        Err("keeps nothing".to_owned())
    }

    fn holders(&self, _: &[Location], _: &[u8]) -> Vec<Location> {
        Vec::new()
    }
}

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
    let verdict = run_world(&Pool::default(), 1, &subject, options, play);
    let tail = verdict.trace.join("\n");
    assert_eq!(verdict.failure, None, "{tail}");
    println!("{:?}", verdict.figures);
}
