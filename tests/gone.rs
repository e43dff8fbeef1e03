//! A node that has said goodbye serves its last connections for a moment; for other nodes it does
//! nothing any more.

use std::sync::Arc;
use std::time::Duration;

use thrifty_p2p::diststore::{KeyValue, SERVICE_TYPES, Store};
use thrifty_p2p::location::Location;
use thrifty_p2p::locator::{LIMITS, Locator, Options, Participant, write_key};
use thrifty_p2p::net::{Environment, Random, SystemClock, TcpNetwork, secret};
use thrifty_p2p::service::{Call, Service};
use thrifty_p2p::thrift::Exception;

fn store() -> Store {
    let location = Location::new("127.0.0.1", 1).expect("a good address");
    let options = Options {
        service_types: SERVICE_TYPES,
        replicas: 1,
        tick: Duration::from_millis(10),
        die_from_anywhere: false,
        on_die: Box::new(|| ()),
    };
    let environment = Environment {
        network: Arc::new(TcpNetwork::new(LIMITS)),
        clock: Arc::new(SystemClock::new()),
        random: Random::new(1),
        secret: secret(),
        log: Box::new(|_, _| ()),
    };
    Store::new(Locator::new(location, options, environment), usize::MAX)
}

fn call(store: &Store, method: &str, arguments: &[u8]) -> Result<(), Exception> {
    let call = Call {
        method: method.as_bytes(),
        arguments,
        local: true,
        done: &|| (),
    };
    store.call(&call, &mut Vec::new())
}

fn items(store: &Store) -> usize {
    let mut count = 0;
    store.each_item(|_, _, _| count += 1);
    count
}

/// Regression: it took the place of another run under its own name, and acknowledged a put that the
/// new run never saw.
#[test]
fn regression_a_node_that_has_left_must_do_nothing_for_others() {
    let store = store();
    store.locator().start(&[], true).expect("nobody to join");
    let put = KeyValue::write(b"key", Some(b"value"));
    let get = write_key(b"key");
    for (method, arguments) in [("put", &put), ("get", &get), ("forward", &put)] {
        assert_eq!(call(&store, method, arguments), Ok(()));
    }
    assert_eq!(store.leave(), Ok(1), "nobody is left to take the key");
    let other = KeyValue::write(b"other", Some(b"value"));
    // It is no primary, which is what it says.
    assert_eq!(call(&store, "forward", &other), Ok(()));
    for (method, arguments) in [("put", &other), ("get", &get)] {
        assert!(call(&store, method, arguments).is_err(), "{method}");
    }
    assert_eq!(items(&store), 1, "the other key is not there");
}
