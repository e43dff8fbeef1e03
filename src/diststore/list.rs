//! Which keys a node holds, page by page, for clients that list them all.
//!
//! It says what lies here, copies and deleted keys included. The client puts the answers of all nodes together
//! (`client/keys.rs`).

use crate::locator::{read_arguments, write_answer};
use crate::net::room::hold;
use crate::thrift::Exception;

use super::Store;
use super::calls::{List, Listed, Listing};
use super::exchange::KEYS_MAX;
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
            // Not before: what is given up in between isn't listed.
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
}
