//! Yardstick: the Apache Thrift crate's threaded server, over a map behind a Mutex.
//!
//! As the crate comes: buffered transports, binary protocol, one pooled thread per connection. Its `listen` leaves no
//! way to set TCP_NODELAY.

use std::collections::HashMap;
use std::sync::Mutex;
use thrift::protocol::{TBinaryInputProtocolFactory, TBinaryOutputProtocolFactory};
use thrift::server::TServer;
use thrift::transport::{TBufferedReadTransportFactory, TBufferedWriteTransportFactory};

#[allow(clippy::all, dead_code, unused)]
mod store {
    include!(concat!(env!("OUT_DIR"), "/store.rs"));
}

/// Threads in the pool; each serves one connection at a time, so this is the number of connections.
const WORKERS: usize = 1100;

#[derive(Default)]
struct Store {
    items: Mutex<HashMap<String, String>>,
}

impl store::StoreSyncHandler for Store {
    fn handle_get(&self, key: String) -> thrift::Result<String> {
        let items = self
            .items
            .lock()
            .expect("BUG: nothing panics under this lock");
        Ok(items.get(&key).cloned().unwrap_or_default())
    }

    fn handle_put(&self, key: String, value: String) -> thrift::Result<()> {
        let mut items = self
            .items
            .lock()
            .expect("BUG: nothing panics under this lock");
        items.insert(key, value);
        Ok(())
    }
}

fn main() -> thrift::Result<()> {
    let address = std::env::args().nth(1).expect("usage: apache HOST:PORT");
    TServer::new(
        TBufferedReadTransportFactory::new(),
        TBinaryInputProtocolFactory::new(),
        TBufferedWriteTransportFactory::new(),
        TBinaryOutputProtocolFactory::new(),
        store::StoreSyncProcessor::new(Store::default()),
        WORKERS,
    )
    .listen(address)
}
