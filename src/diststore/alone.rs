//! Gets and puts while a node is the only member and has lost none: no other has to be asked.

use crate::net::room::{SMALL_BYTES, hold};
use crate::thrift::{Exception, Write};

use super::Store;
use super::steps::next_version;
use super::table::Record;

impl Store {
    /// Serves a client's get while this node is the only member and has lost none, and appends the result. `None`: it
    /// isn't so.
    pub(super) fn get_by_itself(
        &self,
        key: &[u8],
        result: &mut Vec<u8>,
    ) -> Option<Result<(), Exception>> {
        let epoch = self.locator.epoch_by_itself()?;
        let start = result.len();
        let mut room = SMALL_BYTES;
        let found = loop {
            // Not under the shard's lock.
            let write = |record: &Record| match record.value() {
                value if value.len() > room => Err(value.len()),
                value => {
                    result.write_bytes_field(0, value);
                    Ok(())
                }
            };
            match self.items.read(key, write).transpose() {
                Ok(found) => break found,
                Err(bytes) => room = bytes,
            }
            if let Err(full) = hold(room) {
                return Some(Err(full.into()));
            }
        };
        if self.locator.epoch() != epoch {
            result.truncate(start);
            return None;
        }
        if found.is_none() {
            result.write_bytes_field(0, b"");
        }
        result.write_stop();
        Some(Ok(()))
    }

    /// The same of a put.
    pub(super) fn put_by_itself(&self, key: &[u8], value: &[u8]) -> Option<Result<(), Exception>> {
        self.locator.epoch_by_itself()?;
        let wall = self.wall();
        let next = |floor: i64| move |held| next_version(wall, floor.max(held));
        let put = |floor| self.items.put(key, value, next(floor));
        let put = self.locator.if_by_itself(put)?;
        Some(put.map_err(|_| self.no_room()))
    }
}
