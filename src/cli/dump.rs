//! `storedump` and `storeload`: the whole store as text, and back.
//!
//! The format has a line for each key, so that a script can read, write, sort and filter it:
//!
//! ```text
//! diststore dump 1
//! a<TAB>apple
//! two words<TAB>first line\nsecond line
//! \x00\xff<TAB>any bytes
//! end 3
//! ```
//!
//! In keys and values a tab is `\t`, a newline `\n`, a backslash `\\`, and any other byte that is no visible ASCII
//! character or blank is `\xNN`, two hexadecimal digits in either case. The last line says how many keys there are: so
//! a file that was cut off is noticed. The order means nothing; of two lines with one key either may win.

use std::io::{BufRead, Read};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;

use crate::client::{AT_ONCE, Answer, BYTES_AT_ONCE, Client, Error, Operation, runs};
use crate::locator::LIMITS;
use crate::words::counted;

use super::progress::Progress;
use super::{End, write};

const HEAD: &[u8] = b"diststore dump 1";
const END: &[u8] = b"end ";

/// Threads that put. While one waits for answers, others write and read.
const THREADS: usize = 4;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Each byte of a key and a value may be written as four.
const LINE_BYTES_MAX: usize = 8 * LIMITS.string_bytes_max + 2;

/// A key and its value.
type Pair = (Vec<u8>, Vec<u8>);

/// How far the threads are that put.
struct Loading {
    put: usize,
    /// Bytes of the input.
    read: usize,
    /// The first error: nothing more is put.
    failed: Option<Error>,
    progress: Progress,
}

/// What is put together, and how many bytes of the input that is.
#[derive(Default)]
struct Batch {
    pairs: Vec<Pair>,
    read: usize,
}

/// Writes all keys and values of the network to stdout.
///
/// # Errors
/// A node doesn't answer, the keys of an original can't be listed, or what is written is lost. What has been written
/// lacks its last line then. Or members were lost together: all keys that are left have been written.
pub fn dump(client: &Client, quiet: bool) -> Result<(), End> {
    let mut progress = Progress::new(quiet);
    let mut out = [HEAD, b"\n"].concat();
    let all = client.keys(b"", &mut |keys, share| -> Result<(), End> {
        for some in runs(&keys, |key| key.bytes) {
            let gets: Vec<_> = some.iter().map(|key| Operation::Get(&key.key)).collect();
            let mut values = vec![Vec::new(); gets.len()];
            client.insist(&gets, &mut |place, answer| {
                if let Answer::Value(value) = answer {
                    values[place] = value;
                }
            })?;
            for (key, value) in some.iter().zip(values) {
                // It may have been deleted meanwhile.
                if !value.is_empty() {
                    write_line(&key.key, &value, &mut out);
                    progress.add(1, None);
                }
            }
            write(&out)?;
            out.clear();
        }
        progress.add(0, Some(share));
        Ok(())
    })?;
    if !all {
        write(&out)?;
        return Err(End::trouble(client.server(), ORIGINALS));
    }
    out.extend_from_slice(format!("end {}\n", progress.keys()).as_bytes());
    write(&out)?;
    match &client.missing()?[..] {
        [] => Ok(()),
        missing => {
            let members = counted(missing.len(), "member was", "members were");
            let cause = format!("{members} lost together: keys may be missing");
            Err(End::trouble(client.server(), cause))
        }
    }
}

/// Why not all keys can be listed.
pub const ORIGINALS: &str = "nodes of the original are members, and can't list their keys: those that only they have are missing";

/// Puts what `input` has, and says how many keys that is. `length`: how many bytes that are, if it is known.
///
/// # Errors
/// A line is none, or the last one is missing: names it, and how many keys before it have been put. Or a put failed.
pub fn load(
    client: &Client,
    input: &mut impl BufRead,
    length: Option<u64>,
    quiet: bool,
) -> Result<usize, End> {
    let loading = Mutex::new(Loading {
        put: 0,
        read: 0,
        failed: None,
        progress: Progress::new(quiet),
    });
    let (give, take) = mpsc::sync_channel::<Batch>(THREADS);
    let take = Mutex::new(take);
    let work = || loop {
        let next = take.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Batch { pairs, read }) = next else {
            return;
        };
        // After a failure, pairs are taken but not put, so that the reading thread doesn't wait for ever to hand them
        // over.
        if lock(&loading).failed.is_some() {
            continue;
        }
        let puts = pairs.iter().map(|(key, value)| Operation::Put(key, value));
        let mut put = 0;
        let done = client.insist(&puts.collect::<Vec<_>>(), &mut |_, _| put += 1);
        let mut loading = lock(&loading);
        loading.put += put;
        loading.read += read;
        if let Err(why) = done {
            loading.failed.get_or_insert(why);
        }
        let share = length.map(|length| loading.read as f64 / length.max(1) as f64);
        let share = share.map(|share| share.min(1.0));
        loading.progress.add(pairs.len(), share);
    };
    let read = thread::scope(|scope| {
        (0..THREADS).for_each(|_| drop(scope.spawn(work)));
        let read = read_pairs(input, &mut |batch| {
            lock(&loading).failed.is_none() && give.send(batch).is_ok()
        });
        drop(give);
        read
    });
    let loaded = loading.into_inner().unwrap_or_else(PoisonError::into_inner);
    let Loading { put, failed, .. } = loaded;
    let cause = match (failed, read) {
        (Some(error), _) => error.to_string(),
        (None, Err(cause)) => format!("standard input: {cause}"),
        (None, Ok(())) => return Ok(put),
    };
    let keys = counted(put, "key has", "keys have");
    Err(End::Trouble(format!("{cause}; {keys} been put")))
}

fn lock<'a>(loading: &'a Mutex<Loading>) -> MutexGuard<'a, Loading> {
    loading.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads keys and values, hands some at a time to `give` until that declines, and checks the first and last line.
fn read_pairs(input: &mut impl BufRead, give: &mut dyn FnMut(Batch) -> bool) -> Result<(), String> {
    let (mut number, mut keys) = (0_usize, 0_usize);
    let (mut line, mut some) = (Vec::new(), Batch::default());
    let ended = loop {
        number += 1;
        let wrong = |cause: &str| Err(format!("line {number}: {cause}"));
        line.clear();
        let most = LINE_BYTES_MAX as u64 + 1;
        let read = input.by_ref().take(most).read_until(b'\n', &mut line);
        if let Err(error) = read {
            break Err(error.to_string());
        }
        let whole = line.pop_if(|last| *last == b'\n').is_some();
        if number == 1 {
            if line != HEAD || !whole {
                break wrong(&format!("not \"{}\"", String::from_utf8_lossy(HEAD)));
            }
            continue;
        }
        if let Some(count) = line.strip_prefix(END).filter(|_| !line.contains(&b'\t')) {
            if count != keys.to_string().as_bytes() {
                break wrong(&format!("{keys} keys are above, not so many"));
            }
            number += 1;
            break match input.read(&mut [0]) {
                Ok(0) => Ok(()),
                Ok(_) => Err(format!("line {number}: something behind the last line")),
                Err(error) => Err(error.to_string()),
            };
        }
        match read_line(&line) {
            Some(pair) if whole => some.pairs.push(pair),
            _ if whole => break wrong("not KEY, tab, VALUE"),
            _ if line.is_empty() => {
                break wrong(&format!("the last line, \"end {keys}\", is missing"));
            }
            _ => break wrong("cut off, or too long"),
        }
        some.read += line.len() + 1;
        keys += 1;
        let enough = some.pairs.len() >= AT_ONCE || some.read >= BYTES_AT_ONCE;
        if enough && !give(std::mem::take(&mut some)) {
            return Ok(());
        }
    };
    // What came before it is put all the same.
    if !some.pairs.is_empty() {
        give(some);
    }
    ended
}

/// Appends a line.
fn write_line(key: &[u8], value: &[u8], out: &mut Vec<u8>) {
    write_escaped(key, out);
    out.push(b'\t');
    write_escaped(value, out);
    out.push(b'\n');
}

fn write_escaped(bytes: &[u8], out: &mut Vec<u8>) {
    for byte in bytes {
        match byte {
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b' '..=b'~' => out.push(*byte),
            _ => {
                let digit = |nibble: u8| HEX[usize::from(nibble)];
                out.extend_from_slice(&[b'\\', b'x', digit(byte >> 4), digit(byte & 15)]);
            }
        }
    }
}

/// A key and its value, which is not empty.
fn read_line(line: &[u8]) -> Option<Pair> {
    let tab = line.iter().position(|byte| *byte == b'\t')?;
    let (key, value) = (unescape(&line[..tab])?, unescape(&line[tab + 1..])?);
    (!value.is_empty()).then_some((key, value))
}

fn unescape(mut text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    loop {
        let (byte, rest) = match text {
            [] => return Some(bytes),
            [b'\\', b't', rest @ ..] => (b'\t', rest),
            [b'\\', b'n', rest @ ..] => (b'\n', rest),
            [b'\\', b'\\', rest @ ..] => (b'\\', rest),
            [b'\\', b'x', high, low, rest @ ..] => {
                let digit = |digit: &u8| char::from(*digit).to_digit(16);
                let byte = 16 * digit(high)? + digit(low)?;
                (u8::try_from(byte).ok()?, rest)
            }
            [byte @ b' '..=b'~', rest @ ..] if *byte != b'\\' => (*byte, rest),
            _ => return None,
        };
        bytes.push(byte);
        text = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> (usize, Result<(), String>) {
        let mut keys = 0;
        let read = read_pairs(&mut &*text, &mut |batch| {
            keys += batch.pairs.len();
            true
        });
        (keys, read)
    }

    #[test]
    fn must_write_any_bytes_and_read_them() {
        let all: Vec<u8> = (0..=255).collect();
        let mut line = Vec::new();
        write_line(&all, &all, &mut line);
        assert!(
            line.iter()
                .all(|byte| matches!(byte, b' '..=b'~' | b'\t' | b'\n'))
        );
        assert_eq!(line.pop(), Some(b'\n'));
        assert_eq!(read_line(&line), Some((all.clone(), all)));
        assert_eq!(
            read_line(b"a\tapple"),
            Some((b"a".to_vec(), b"apple".to_vec()))
        );
        assert_eq!(read_line(b"\\xFF\tv"), Some((vec![255], b"v".to_vec())));
    }

    #[test]
    fn must_name_the_line_that_is_damaged() {
        let whole = b"diststore dump 1\na\tapple\n\tempty key\nend 2\n";
        assert_eq!(read(whole), (2, Ok(())));
        for length in 0..whole.len() - 1 {
            let (keys, read) = read(&whole[..length]);
            let lines = whole[..length]
                .iter()
                .filter(|byte| **byte == b'\n')
                .count();
            let why = read.expect_err("it is cut off");
            assert!(
                why.starts_with(&format!("line {}: ", lines + 1)),
                "{length}: {why}"
            );
            assert_eq!(keys, lines.saturating_sub(1), "{length}");
        }
        for wrong in [
            "a",
            "a\t",
            "a\tb\tc",
            "a\t\\",
            "a\t\\x0",
            "a\t\\xzz",
            "a\t\\q",
            "a\t\u{7f}",
            "",
        ] {
            let text = format!("diststore dump 1\nb\tbanana\n{wrong}\nend 2\n");
            let (keys, read) = read(text.as_bytes());
            assert_eq!(keys, 1, "{wrong:?}");
            assert!(read.unwrap_err().starts_with("line 3: "), "{wrong:?}");
        }
        assert!(read(b"diststore dump 2\nend 0\n").1.is_err());
        assert_eq!(read(b"diststore dump 1\nend 0\n"), (0, Ok(())));
        let two = [&whole[..], whole].concat();
        assert!(read(&two).1.unwrap_err().starts_with("line 5: "));
    }
}
