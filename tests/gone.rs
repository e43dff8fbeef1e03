//! A node that has said goodbye serves its last connections for a moment; for other nodes it does
//! nothing any more.

use std::sync::Arc;
use std::time::Duration;

use thrifty_p2p::diststore::{KeyValue, SERVICE_TYPES, Store};
use thrifty_p2p::location::Location;
use thrifty_p2p::locator::{GONE, LIMITS, Locator, Options, Participant, write_key};
use thrifty_p2p::net::{Environment, Random, SystemClock, TcpNetwork};
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
        log: Box::new(|_| ()),
    };
    Store::new(Locator::new(location, options, environment))
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

/// Regression: it took the place of another run under its own name, and acknowledged a put that the
/// new run never saw.
#[test]
fn regression_a_node_that_has_left_must_do_nothing_for_others() {
    let store = store();
    store.locator().start(None, &store).expect("nobody to join");
    let put = KeyValue::write(b"key", Some(b"value"));
    let get = write_key(b"key");
    assert_eq!(call(&store, "forward", &put), Ok(()));
    assert_eq!(call(&store, "forward", &get), Ok(()));
    assert_eq!(call(&store, "fetch", &get), Ok(()));
    assert_eq!(store.leave(), Ok(1), "nobody is left to take the key");
    for (method, arguments) in [("forward", &put), ("forward", &get), ("fetch", &get)] {
        let kind = call(&store, method, arguments).map_err(|exception| exception.kind);
        assert_eq!(kind, Err(GONE), "{method}");
    }
}
