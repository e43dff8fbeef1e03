//! Where the pages for a newcomer go on: what the sender puts into an answer to `pull`, and finds again
//! in the next question. To the newcomer it is just bytes.

use std::ops::Range;

use super::items::SHARDS;

/// Parts of what a newcomer should hold that it can ask for side by side: it takes a page in while the
/// next one is made.
pub(super) const PARTS: usize = 8;

/// What is left to be paged out: some shards, the first of them from behind a key on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    pub shards: Range<usize>,
    /// The last key sent of the first shard.
    pub after: Option<Vec<u8>>,
}

impl Cursor {
    /// Two bytes for the first shard, two for the end; a mark and the key, if there is one: the empty
    /// key is a key as well. Empty: everything.
    pub fn read(bytes: &[u8]) -> Self {
        let (shards, after) = match bytes {
            [a, b, c, d, after @ ..] => {
                let number = |high, low| usize::from(u16::from_be_bytes([high, low])).min(SHARDS);
                (number(*a, *b)..number(*c, *d), after)
            }
            _ => (0..SHARDS, &[][..]),
        };
        let after = after.split_first().map(|(_, key)| key.to_vec());
        Cursor { shards, after }
    }

    pub fn write(&self) -> Vec<u8> {
        let numbers =
            [self.shards.start, self.shards.end].map(|shard| (shard as u16).to_be_bytes());
        let mut bytes = numbers.concat();
        if let Some(after) = &self.after {
            bytes.push(0);
            bytes.extend_from_slice(after);
        }
        bytes
    }

    /// The cursors of about so many equal parts, together the whole.
    pub fn split(self, parts: usize) -> Vec<Vec<u8>> {
        let Range { start, end } = self.shards;
        let length = (end - start).div_ceil(parts).max(1);
        let starts = (start..end).step_by(length);
        let mut parts: Vec<_> = starts
            .map(|start| Cursor {
                shards: start..end.min(start + length),
                after: None,
            })
            .collect();
        if let Some(first) = parts.first_mut() {
            first.after = self.after;
        }
        parts.iter().map(Cursor::write).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn must_split_what_is_left_into_parts_that_are_the_whole() {
        for (shards, parts, expected) in [
            (0..SHARDS, 8, 8),
            (3..SHARDS, 8, 8),
            (9..12, 8, 3),
            (9..12, 1, 1),
        ] {
            for after in [None, Some(Vec::new()), Some(b"key".to_vec())] {
                let whole = Cursor {
                    shards: shards.clone(),
                    after: after.clone(),
                };
                let cursors = whole.split(parts);
                assert_eq!(cursors.len(), expected);
                let mut next = shards.start;
                for (number, cursor) in cursors.iter().enumerate() {
                    let part = Cursor::read(cursor);
                    assert_eq!(part.shards.start, next);
                    assert_eq!(part.after, after.clone().filter(|_| number == 0));
                    next = part.shards.end;
                }
                assert_eq!(next, shards.end);
            }
        }
    }

    #[test]
    fn must_read_any_cursor() {
        assert_eq!(Cursor::read(b"").shards, 0..SHARDS);
        assert_eq!(Cursor::read(b"\xff\xff\xff\xff").shards, SHARDS..SHARDS);
        assert_eq!(Cursor::read(b"abc").shards, 0..SHARDS);
    }
}
