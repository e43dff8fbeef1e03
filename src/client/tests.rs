use std::sync::Mutex;

use super::*;
use crate::diststore::{List, Listing};
use crate::locator::{read_arguments, write_answer};
use crate::net::Answer as Bytes;
use crate::report::tests::full;

/// A node that has no key, and is slow; and the limits of the calls that came.
struct Slow {
    at: Location,
    limits: Mutex<Vec<(&'static str, Duration)>>,
}

impl Network for Slow {
    fn call_all(&self, calls: &[(Location, Request)], limit: Duration) -> Vec<Bytes> {
        let answer = |(_, request): &(Location, Request)| {
            self.limits.lock().unwrap().push((request.method, limit));
            let mut result = Vec::new();
            match request.method {
                "get_all" => write_answer(&vec![self.at.clone()], &mut result),
                "service_types" => {
                    let types = ["diststore.Store", EXTENSION].map(str::to_owned);
                    write_answer(&types.to_vec(), &mut result);
                }
                "status" => write_answer(&full(&self.at, 1), &mut result),
                "list_keys" => {
                    let _: List<'_> = read_arguments(&request.arguments).unwrap();
                    let listing = Listing {
                        keys: Vec::new(),
                        reached: None,
                        removed: 0,
                        view: 7,
                        members: 1,
                    };
                    write_answer(&listing, &mut result);
                }
                _ => return Err(CallError::Silent),
            }
            Ok(result)
        };
        calls.iter().map(answer).collect()
    }

    fn forget(&self, _: &Location) {}
}

/// A clock that goes on only while somebody pauses.
#[derive(Default)]
struct Hasty(Mutex<Duration>);

impl Clock for Hasty {
    fn now(&self) -> Duration {
        *self.0.lock().unwrap()
    }

    fn wall(&self) -> i64 {
        0
    }

    fn pause(&self, time: Duration) {
        *self.0.lock().unwrap() += time;
    }
}

#[test]
fn must_wait_as_long_as_it_was_told() {
    let day = Duration::from_secs(24 * 60 * 60);
    for (told, waits) in [
        (None, Duration::from_secs(10)),
        (Some(Duration::from_secs(40)), Duration::from_secs(40)),
        (Some(Duration::from_millis(300)), Duration::from_millis(300)),
        (Some(Duration::MAX), day),
    ] {
        let at = Location::new("h", 1).unwrap();
        let network = Arc::new(Slow {
            at: at.clone(),
            limits: Mutex::default(),
        });
        let clock = Arc::new(Hasty::default());
        let client = Client::connect_over(STORE, network.clone(), clock.clone(), &[at]).unwrap();
        let client = match told {
            None => client,
            Some(limit) => client.with_limit(limit),
        };
        network.limits.lock().unwrap().clear();
        client.put(b"a", b"apple").unwrap_err();
        client.get(b"a").unwrap_err();
        client.delete(b"a").unwrap_err();
        let put = [Operation::Put(b"a", b"apple")];
        client.many(&put, &mut |_, answer| assert!(answer.is_err()));
        let keys = client.keys(b"", &mut |_, _| Ok::<(), Error>(()));
        assert!(keys.unwrap());
        let limits = network.limits.lock().unwrap().clone();
        let of_members = ["get_all", "status"];
        for (method, limit) in &limits {
            assert!(
                of_members.contains(method) || *limit == waits,
                "{method}: {limit:?}"
            );
        }
        for method in ["put", "get", "delete_key", "list_keys"] {
            assert!(limits.iter().any(|(name, _)| *name == method), "{method}");
        }
        if waits == day {
            continue;
        }
        let began = clock.now();
        client.insist(&put, &mut |_, _| ()).unwrap_err();
        let tried = clock.now() - began;
        let (least, most) = (3 * waits, 3 * waits + Duration::from_secs(1));
        assert!(least <= tried && tried <= most, "{tried:?}");
    }
}

#[test]
fn must_part_items_by_their_number_and_their_bytes() {
    let lengths = |bytes: &[usize]| {
        let runs = many::runs(bytes, |bytes| *bytes);
        runs.map(<[usize]>::len).collect::<Vec<_>>()
    };
    let most = BYTES_AT_ONCE;
    assert!(lengths(&[]).is_empty());
    assert_eq!(lengths(&[0; 2 * AT_ONCE + 1]), [AT_ONCE, AT_ONCE, 1]);
    assert_eq!(lengths(&[1, most - 1, 1]), [2, 1]);
    assert_eq!(lengths(&[most + 1, 0, most + 1]), [1, 1, 1]);
}
