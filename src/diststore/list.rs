//! Which keys a node holds, page by page: for an exchange, and for clients that list them all.
//!
//! It says what lies here, copies and deleted keys included. The client puts the answers of all nodes together
//! (`client/keys.rs`).

use crate::locator::{read_arguments, write_answer};
use crate::net::room::hold;
use crate::thrift::Exception;

use super::Store;
use super::calls::{List, Listed, Listing};
use super::exchange::{BATCH_BYTES, KEYS_MAX};
use super::items::SHARDS;
use super::table::Record;

impl Store {
    /// `list_keys`: a page of the keys of a range.
    pub(super) fn on_list(&self, arguments: &[u8], result: &mut Vec<u8>) -> Result<(), Exception> {
        let list: List<'_> = read_arguments(arguments)?;
        let range = list.range as usize;
        let (mut keys, mut reached, mut removed, mut bytes) = (Vec::new(), None, 0, 0);
        if range < SHARDS {
            let most = KEYS_MAX.min(list.most as usize);
            if most > 0 {
                let begins = |record: &Record| record.key().starts_with(list.prefix);
                reached = self.page(range, list.after, begins, most, |record| {
                    keys.push((
                        record.key().to_vec(),
                        record.version(),
                        record.value().len(),
                    ));
                    bytes += record.key().len();
                    bytes
                });
            }
            // Not before: what is forgotten in between isn't listed.
            removed = self.items.removed(range);
        }
        let (view, members) = self.locator.with(|membership, _| {
            let view = membership.view();
            (view.digest(), view.members().len())
        });
        hold(bytes)?;
        let listed = keys.iter().map(|(key, version, bytes)| Listed {
            key,
            version: *version,
            bytes: *bytes,
        });
        let listing = Listing {
            keys: listed.collect(),
            reached: reached.as_deref(),
            removed,
            view,
            members: u32::try_from(members).unwrap_or(u32::MAX),
        };
        write_answer(&listing, result);
        Ok(())
    }

    /// Hands those items of a shard behind a key that are wanted to `take`, in the order of their keys, up to `most` of
    /// them, or until it says that they have so many bytes as a batch. The last key, if there are more.
    pub(super) fn page(
        &self,
        shard: usize,
        after: Option<&[u8]>,
        wanted: impl Fn(&Record) -> bool,
        most: usize,
        mut take: impl FnMut(&Record) -> usize,
    ) -> Option<Vec<u8>> {
        let (mut count, mut bytes) = (0, 0);
        let (mut last, mut reached) = (Vec::new(), None);
        let wanted =
            |record: &Record| after.is_none_or(|after| record.key() > after) && wanted(record);
        self.items.each_in_order(shard, wanted, |record| {
            if count == most || bytes >= BATCH_BYTES {
                reached = Some(std::mem::take(&mut last));
                return false;
            }
            bytes = take(record);
            count += 1;
            last.clear();
            last.extend_from_slice(record.key());
            true
        });
        reached
    }
}
