//! Finding nodes on a machine: the ports from 9900 up, asked side by side.
//!
//! One thread asks the ports one after the other: a port that refuses answers at once, and so does a node. A
//! program that listens and says nothing holds this thread up, and further threads go on with the next
//! ports. The lowest port that answers as wanted wins; silent ports below it are waited for only a
//! moment. Everything ends at the caller's deadline.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::location::Location;
use crate::locator::service_types;
use crate::net::{CallError, Network};

use crate::location::DEFAULT_PORT;

/// Where nodes are looked for on a machine: this many ports.
const PORTS_SCANNED: u16 = 100;

/// How long a search takes at most, where strangers are silent. A node that is just starting has
/// bound its port and answers well within it.
pub(crate) const SCAN_LIMIT: Duration = Duration::from_secs(3);

/// Lower ports are waited for so long when a higher one has answered as wanted.
const LOWER_LIMIT: Duration = Duration::from_millis(200);

/// When no port has answered for so long, the next ones are asked meanwhile.
const PATIENCE: Duration = Duration::from_millis(10);

/// How often ports at which no node was found are asked again.
const AGAIN_INTERVAL: Duration = Duration::from_millis(20);

/// Stack of the threads that ask.
const STACK_BYTES: usize = 256 << 10;

/// What was found at a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Offer<T> {
    Nothing,
    /// It has said nothing so far.
    Silence,
    /// Of use if no port has what is wanted.
    Perhaps(T),
    /// What is wanted: no higher port counts any more.
    Wanted(T),
}

/// When a search ends that finds nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Until {
    /// Silent ports are waited for until then.
    pub deadline: Instant,
    /// Ports at which no node was found are asked again until then.
    pub again: Instant,
}

impl Until {
    /// Each port is asked once.
    pub fn once() -> Self {
        let now = Instant::now();
        Until {
            deadline: now + SCAN_LIMIT,
            again: now,
        }
    }
}

/// The first node on `address` whose service types are as wanted, with these.
pub(crate) fn first_node(
    network: Arc<dyn Network>,
    address: &str,
    until: Until,
    wanted: impl Fn(&[String]) -> bool + Send + Sync + 'static,
) -> Option<(Location, Vec<String>)> {
    let ask = move |location: &Location, limit| match service_types(&*network, location, limit) {
        Ok(types) if wanted(&types) => Offer::Wanted((location.clone(), types)),
        Err(CallError::Silent) => Offer::Silence,
        _ => Offer::Nothing,
    };
    search(address, until, ask).0
}

/// What was found at the lowest port on `address` that has what is wanted. If there is none: all that may be of use,
/// from the lowest port up. `ask` takes no longer than it is told.
pub(crate) fn search<T: Send + 'static>(
    address: &str,
    until: Until,
    ask: impl Fn(&Location, Duration) -> Offer<T> + Send + Sync + 'static,
) -> (Option<T>, Vec<T>) {
    let ports = DEFAULT_PORT..DEFAULT_PORT + PORTS_SCANNED;
    let locations = ports.filter_map(|port| Location::new(address, port).ok());
    let locations: Vec<_> = locations.collect();
    let mut offers: Vec<Option<Offer<T>>> = locations.iter().map(|_| None).collect();
    let queue: Arc<Queue> = Arc::new(Mutex::new((0..locations.len()).collect()));
    let (answer, answered) = mpsc::channel();
    let asking = queue.clone();
    let walk = Arc::new(move || {
        let next = || places(&asking).pop_front();
        while let Some(place) = next() {
            let left = until.deadline.saturating_duration_since(Instant::now());
            let offer = ask(&locations[place], left);
            if matches!(offer, Offer::Wanted(_)) {
                places(&asking).clear();
            }
            // Nobody may be waiting any more.
            let _ = answer.send((place, offer));
        }
    });
    let mut deadline = until.deadline;
    let mut asked = Instant::now();
    let mut stuck = true;
    loop {
        let now = Instant::now();
        let wanted = |offer: &Option<_>| matches!(offer, Some(Offer::Wanted(_)));
        let nothing = |offer: &Option<_>| matches!(offer, Some(Offer::Nothing));
        let found = offers.iter().position(wanted);
        let open = offers.iter().position(Option::is_none);
        let again = found.is_none() && now < until.again;
        let settled = match open {
            Some(open) => found.is_some_and(|found| found < open),
            None => !again,
        };
        if settled || now >= deadline {
            break;
        }
        if again && places(&queue).is_empty() && now >= asked + AGAIN_INTERVAL {
            places(&queue).extend((0..offers.len()).filter(|&place| nothing(&offers[place])));
            asked = now;
            stuck = true;
        }
        if stuck && !places(&queue).is_empty() {
            let thread = thread::Builder::new()
                .name("discovery".to_owned())
                .stack_size(STACK_BYTES);
            let walk = walk.clone();
            // Where no thread is to be had, the next round tries again.
            let _ = thread.spawn(move || walk());
        }
        let answer = answered.recv_timeout(PATIENCE.min(deadline - now));
        stuck = answer.is_err();
        let Ok((place, offer)) = answer else {
            continue;
        };
        if matches!(offer, Offer::Wanted(_)) {
            deadline = deadline.min(Instant::now() + LOWER_LIMIT);
        }
        offers[place] = Some(offer);
    }
    places(&queue).clear();
    let mut perhaps = Vec::new();
    for offer in offers.into_iter().flatten() {
        match offer {
            Offer::Wanted(wanted) => return (Some(wanted), Vec::new()),
            Offer::Perhaps(offer) => perhaps.push(offer),
            Offer::Nothing | Offer::Silence => {}
        }
    }
    (None, perhaps)
}

/// The places of the ports that are to be asked, from the lowest up.
type Queue = Mutex<VecDeque<usize>>;

/// No change under the lock can be half done: a poisoned lock is taken all the same.
fn places(queue: &Queue) -> MutexGuard<'_, VecDeque<usize>> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Longer than a test takes; how long a silent port would be waited for.
    const LONG: Duration = Duration::from_secs(60);

    fn until() -> Until {
        let now = Instant::now();
        Until {
            deadline: now + LONG,
            again: now,
        }
    }

    fn wanted(location: &Location) -> Offer<u16> {
        Offer::Wanted(location.port())
    }

    #[test]
    fn must_take_the_lowest_port_that_has_what_is_wanted() {
        let ask = |location: &Location, _| match location.port() {
            9902 | 9904 | 9950 => wanted(location),
            9901 => Offer::Perhaps(location.port()),
            _ => Offer::Nothing,
        };
        assert_eq!(search("h", until(), ask), (Some(9902), vec![]));
    }

    #[test]
    fn must_tell_all_that_may_be_of_use_if_nobody_has_what_is_wanted() {
        let ask = |location: &Location, _| match location.port() {
            9901 | 9999 => Offer::Perhaps(location.port()),
            _ => Offer::Nothing,
        };
        assert_eq!(search("h", until(), ask), (None, vec![9901, 9999]));
    }

    /// The lower port answers only when the higher one has.
    #[test]
    fn must_prefer_a_lower_port_that_answers_a_little_later() {
        let once = || {
            let (higher, lower) = mpsc::channel();
            let lower = Mutex::new(lower);
            search("h", until(), move |location, limit| match location.port() {
                9900 => match lower.lock().unwrap().recv_timeout(limit) {
                    Ok(()) => wanted(location),
                    Err(_) => Offer::Silence,
                },
                9901 => {
                    higher.send(()).unwrap();
                    wanted(location)
                }
                _ => Offer::Nothing,
            })
        };
        // On a busy machine a little may be too late: then another time.
        assert!((0..20).any(|_| once().0 == Some(9900)));
    }

    /// A name, say, that takes longer to look up than a port that is close takes to refuse: a name that can't be looked
    /// up in time counts as one where no node was found.
    #[test]
    fn regression_must_give_each_port_all_the_time_that_there_is() {
        let ask = |location: &Location, limit| match limit > LONG / 2 {
            true => wanted(location),
            false => Offer::Nothing,
        };
        assert_eq!(search("h", until(), ask), (Some(9900), vec![]));
    }

    /// Says nothing, for so long or until the search is over.
    fn silent(over: &Mutex<mpsc::Receiver<()>>, limit: Duration) -> Offer<u16> {
        // It fails in any case: nothing is ever sent.
        let _ = over.lock().unwrap().recv_timeout(limit);
        Offer::Silence
    }

    #[test]
    fn must_not_wait_for_silent_ports_below_what_is_found() {
        let (end, over) = mpsc::channel();
        let over = Mutex::new(over);
        let started = Instant::now();
        let found = search("h", until(), move |location, limit| match location.port() {
            9900..9905 => silent(&over, limit),
            9905 => wanted(location),
            _ => Offer::Nothing,
        });
        assert_eq!(found, (Some(9905), vec![]));
        let elapsed = started.elapsed();
        // On a busy machine, too.
        let most = Duration::from_secs(2);
        assert!(LOWER_LIMIT <= elapsed && elapsed < most, "{elapsed:?}");
        drop(end);
    }

    #[test]
    fn must_end_at_the_deadline_if_all_are_silent() {
        let (end, over) = mpsc::channel();
        let over = Mutex::new(over);
        let mut until = until();
        until.deadline = Instant::now() + Duration::from_millis(300);
        let found = search("h", until, move |location, limit| match location.port() {
            9901 => Offer::Perhaps(9901),
            _ => silent(&over, limit),
        });
        assert_eq!(found, (None, vec![9901]));
        assert!(Instant::now() >= until.deadline);
        drop(end);
    }

    /// It is looked for again, though other ports are silent all the time.
    #[test]
    fn must_find_a_node_that_comes_while_it_is_looked_for() {
        let (end, over) = mpsc::channel();
        let over = Mutex::new(over);
        let mut until = until();
        until.again = until.deadline;
        let asked = AtomicUsize::new(0);
        let found = search("h", until, move |location, limit| match location.port() {
            9900 => silent(&over, limit),
            9950 if asked.fetch_add(1, Ordering::Relaxed) == 2 => wanted(location),
            _ => Offer::Nothing,
        });
        assert_eq!(found, (Some(9950), vec![]));
        drop(end);
    }
}
