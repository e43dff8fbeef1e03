//! The least that a thread-per-connection store can do: the echo server with a look into std's `HashMap` behind one
//! lock. No rings, no limits, no other node, no old or framed messages; what it reaches, a whole one can hardly reach.

use crate::Outcome;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Bytes taken by one read at most, and so the longest message.
const BUFFER_BYTES: usize = 64 * 1024;

type Items = Mutex<HashMap<Vec<u8>, Vec<u8>>>;

/// Serves `HOST:PORT` until killed.
pub fn run(arguments: &[String]) -> Outcome {
    let [address] = arguments else {
        return Err("usage: yardstick sketch HOST:PORT".into());
    };
    serve(TcpListener::bind(address)?)
}

/// Serves this listener until it fails.
pub fn serve(listener: TcpListener) -> Outcome {
    let items = Arc::new(Items::default());
    loop {
        let (stream, _) = listener.accept()?;
        let items = items.clone();
        thread::spawn(move || converse(stream, &items));
    }
}

/// As with the echo server: one write for each read.
fn converse(mut stream: TcpStream, items: &Items) {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut end = 0;
    let mut answers = Vec::new();
    if stream.set_nodelay(true).is_err() {
        return;
    }
    while let Ok(length @ 1..) = stream.read(&mut buffer[end..]) {
        end += length;
        let mut start = 0;
        while let Some(length) = answer(&buffer[start..end], items, &mut answers) {
            start += length;
        }
        buffer.copy_within(start..end, 0);
        end -= start;
        if stream.write_all(&answers).is_err() {
            return;
        }
        answers.clear();
    }
}

/// Answers the `put` or `get` with which `bytes` begin; its length, if it is all there.
fn answer(bytes: &[u8], items: &Items, answers: &mut Vec<u8>) -> Option<usize> {
    let name = string(bytes, 4)?;
    let header = 8 + name.len() + 4;
    let (mut at, mut fields) = (header, [&b""[..]; 2]);
    while *bytes.get(at)? != 0 {
        let field = string(bytes, at + 3)?;
        *fields.get_mut(usize::from(*bytes.get(at + 2)?).checked_sub(1)?)? = field;
        at += 7 + field.len();
    }
    let [key, value] = fields;
    answers.extend_from_slice(&[0x80, 1, 0, 2]);
    answers.extend_from_slice(&bytes[4..header]);
    let mut items = items.lock().unwrap_or_else(PoisonError::into_inner);
    if name == b"put" {
        match items.get_mut(key) {
            Some(held) if held.len() == value.len() => held.copy_from_slice(value),
            _ => drop(items.insert(key.to_vec(), value.to_vec())),
        }
    } else {
        let value = items.get(key).map_or(&b""[..], |value| value);
        answers.extend_from_slice(&[11, 0, 0]);
        answers.extend_from_slice(&(value.len() as u32).to_be_bytes());
        answers.extend_from_slice(value);
    }
    answers.push(0);
    Some(at + 1)
}

/// The string whose length is at `at`, if it is all there.
fn string(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let length = u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?) as usize;
    bytes.get(at + 4..at + 4 + length)
}
