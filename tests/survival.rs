//! Nodes that are killed, hang, come back, come and go, while clients put and read.
//!
//! Two copies of each key, so one node at a time may be lost, and the next only when every key is
//! safe again. No acknowledged put is lost and no read is stale, ever; calls may fail, but only
//! while a node hangs, or as one has just been killed.

mod running;

use std::time::Duration;

use thrifty_p2p::location::Location;

use running::load::Load;
use running::{LONG, Node, is_settled, now, own_address, wait_until};

/// What the machine may take to notice a signal, and clients to end calls under way.
const GRACE: Duration = Duration::from_millis(500);

/// A network under load, and when calls to it might fail.
struct Trial {
    address: String,
    nodes: Vec<Node>,
    load: Load,
    /// From the beginning to the end of each trouble.
    troubles: Vec<(Duration, Duration)>,
}

impl Trial {
    fn start() -> Self {
        let address = own_address();
        let nodes: Vec<_> = (0..5).map(|_| store(&address, None)).collect();
        running::settle(&nodes.iter().collect::<Vec<_>>());
        let load = Load::start(4, 4, nodes.iter().map(|node| &node.location));
        Trial {
            address,
            nodes,
            load,
            troubles: Vec::new(),
        }
    }

    fn locations(&self) -> Vec<&Location> {
        self.nodes.iter().map(|node| &node.location).collect()
    }

    /// Waits until all agree and every key is safe, and says how long it took since `began`.
    fn settle(&self, what: &str, began: Duration) {
        wait_until(LONG, "all agree and every key is safe", || {
            is_settled(&self.locations())
        });
        let took = now() - began;
        println!(
            "{:6.1} s: {what}: safe again after {:.1} s",
            now().as_secs_f64(),
            took.as_secs_f64()
        );
    }

    /// What `trouble` does to the nodes, until they have settled.
    fn endure(&mut self, what: &str, trouble: impl FnOnce(&mut Self)) {
        let began = now();
        trouble(self);
        self.settle(what, began);
        self.troubles.push((began, now() + GRACE));
    }

    /// The same, but no call may fail.
    fn pass(&mut self, what: &str, change: impl FnOnce(&mut Self)) {
        let began = now();
        change(self);
        self.settle(what, began);
    }

    /// Another node, that clients use from now on.
    fn add(&mut self, port: Option<u16>) {
        let node = store(&self.address, port);
        self.load.add(&node.location);
        self.nodes.push(node);
    }

    fn kill(&mut self, number: usize) -> Location {
        let node = self.nodes.remove(number);
        let location = node.location.clone();
        node.kill();
        location
    }
}

fn store(address: &str, port: Option<u16>) -> Node {
    let port = port.map(|port| port.to_string());
    let mut options = vec!["--replicas", "2"];
    options.extend(port.iter().flat_map(|port| ["-p", port]));
    Node::store(address, &options)
}

/// Lets time pass: it is part of what is tried, and nothing is waited for.
fn go_on(time: Duration) {
    std::thread::sleep(time);
}

#[test]
fn must_lose_nothing_and_answer_nothing_old() {
    let mut trial = Trial::start();
    go_on(Duration::from_secs(1));

    let mut killed = None;
    trial.endure("one killed", |trial| killed = Some(trial.kill(1)));
    trial.pass("and started again", |trial| {
        trial.add(killed.as_ref().map(Location::port));
    });
    trial.endure("one killed, and started again at once", |trial| {
        let killed = trial.kill(0);
        trial.add(Some(killed.port()));
    });
    trial.endure("one stopped for 1 s", |trial| {
        trial.nodes[0].process.signal("STOP");
        go_on(Duration::from_secs(1));
        trial.nodes[0].process.signal("CONT");
    });
    trial.endure("one stopped for 3 s", |trial| {
        trial.nodes[1].process.signal("STOP");
        go_on(Duration::from_secs(3));
        trial.nodes[1].process.signal("CONT");
    });
    trial.endure("one stopped until the others have dropped it", |trial| {
        let stopped = trial.nodes.remove(2);
        stopped.process.signal("STOP");
        trial.settle("  without it", now());
        go_on(Duration::from_secs(1));
        stopped.process.signal("CONT");
        trial.nodes.push(stopped);
    });
    trial.pass("three came and two left, all at once", |trial| {
        let mut leavers = [trial.nodes.remove(0), trial.nodes.remove(0)];
        for leaver in &leavers {
            trial.load.only_read(&leaver.location);
            leaver.process.signal("INT");
        }
        for _ in 0..3 {
            trial.add(None);
        }
        for leaver in &mut leavers {
            leaver.left();
            trial.load.remove(&leaver.location);
        }
    });
    trial.endure("one killed as another came", |trial| {
        trial.add(None);
        let killed = trial.kill(0);
        trial.load.remove(&killed);
    });
    go_on(Duration::from_secs(1));

    let failed = trial.load.failed();
    let excused = |failed: &&running::load::Failed| {
        let mut troubles = trial.troubles.iter();
        troubles.any(|(began, ended)| failed.began < *ended && failed.ended > *began)
    };
    let unexcused: Vec<_> = failed.iter().filter(|failed| !excused(failed)).collect();
    assert!(unexcused.is_empty(), "{unexcused:#?}");
    let failed = failed.len();
    let locations: Vec<_> = trial.nodes.iter().map(|node| &node.location).collect();
    let sums = trial.load.finish(&locations);
    println!(
        "{:6.1} s: {} puts, {} acknowledged, {} reads; {failed} calls failed in time of trouble; \
         nothing lost, nothing old",
        now().as_secs_f64(),
        sums.puts,
        sums.acknowledged,
        sums.reads
    );
}
