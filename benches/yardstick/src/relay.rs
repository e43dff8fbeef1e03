//! The limit of a ring of such servers: a node that stores nothing, but sends requests where a store would.
//!
//! A client's request belongs to one of the nodes, by its key. Those of a batch that belong to another node go there in
//! one write, each node's; a put goes one node further, as its copy. Every request is answered with its own bytes, as
//! by the echo server, once all that it was sent for has come back. No ring, no versions, no leases, no limits.

use crate::Outcome;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

/// Bytes taken by one read at most, and so the longest message.
const BUFFER_BYTES: usize = 64 * 1024;

/// Nodes listen at their port for clients, so much above it for what others forward, and once more above for copies.
const NEXT_PORT: u16 = 100;

struct Node {
    number: usize,
    /// Where clients find the nodes.
    all: Vec<SocketAddr>,
}

/// What a connection is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Client,
    Forwarded,
    Copy,
}

/// Serves as node `NUMBER`, from 0, of those at the addresses, until killed.
pub fn run(arguments: &[String]) -> Outcome {
    let [number, addresses @ ..] = arguments else {
        return Err("usage: yardstick relay NUMBER HOST:PORT...".into());
    };
    let all = addresses.iter().map(|address| address.parse());
    let node = Arc::new(Node {
        number: number.parse()?,
        all: all.collect::<Result<_, _>>()?,
    });
    if node.all.len() < 2 {
        return Err("a ring has two nodes at least".into());
    }
    let own = *node.all.get(node.number).ok_or("no such node")?;
    let listeners = [
        (own, Role::Client),
        (above(own, 1), Role::Forwarded),
        (above(own, 2), Role::Copy),
    ];
    let listeners = listeners.map(|(address, role)| Ok((TcpListener::bind(address)?, role)));
    let mut threads = Vec::new();
    for listener in listeners {
        let (listener, role): (TcpListener, Role) = listener.map_err(|error: io::Error| error)?;
        let node = node.clone();
        threads.push(thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let node = node.clone();
                thread::spawn(move || Conversation::new(&node, role).hold(stream));
            }
        }));
    }
    for thread in threads {
        thread.join().map_err(|_| "a listener failed")?;
    }
    Ok(())
}

fn above(address: SocketAddr, steps: u16) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port() + steps * NEXT_PORT)
}

/// A connection to another node, and what has to come back on it.
#[derive(Default)]
struct Link {
    stream: Option<TcpStream>,
    out: Vec<u8>,
}

impl Link {
    fn send(&mut self, to: SocketAddr) -> io::Result<()> {
        if self.out.is_empty() {
            return Ok(());
        }
        if self.stream.is_none() {
            let stream = TcpStream::connect(to)?;
            stream.set_nodelay(true)?;
            self.stream = Some(stream);
        }
        let stream = self.stream.as_mut().expect("it has been made");
        stream.write_all(&self.out)
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        if let Some(stream) = &mut self.stream {
            stream.read_exact(&mut buffer[..self.out.len()])?;
        }
        self.out.clear();
        Ok(())
    }
}

struct Conversation<'a> {
    node: &'a Node,
    role: Role,
    /// To each node, for what is forwarded, and for copies.
    forwards: Vec<Link>,
    copies: Vec<Link>,
}

impl<'a> Conversation<'a> {
    fn new(node: &'a Node, role: Role) -> Self {
        let links = || node.all.iter().map(|_| Link::default()).collect();
        Conversation {
            node,
            role,
            forwards: links(),
            copies: links(),
        }
    }

    /// One write for each batch that was read.
    fn hold(&mut self, mut stream: TcpStream) {
        let (mut buffer, mut back) = (vec![0; BUFFER_BYTES], vec![0; BUFFER_BYTES]);
        let mut end = 0;
        if stream.set_nodelay(true).is_err() {
            return;
        }
        while let Ok(length @ 1..) = stream.read(&mut buffer[end..]) {
            end += length;
            let mut start = 0;
            while let Some(length) = self.sort(&buffer[start..end]) {
                start += length;
            }
            let passed = self.pass(&mut back);
            if passed.is_err() || stream.write_all(&buffer[..start]).is_err() {
                return;
            }
            buffer.copy_within(start..end, 0);
            end -= start;
        }
    }

    /// Where the message with which `bytes` begin has to go; its length, if it is all there.
    fn sort(&mut self, bytes: &[u8]) -> Option<usize> {
        let name = string(bytes, 4)?;
        let mut at = 8 + name.len() + 4;
        let mut key = None;
        while *bytes.get(at)? != 0 {
            let field = string(bytes, at + 3)?;
            key = key.or(Some(field));
            at += 7 + field.len();
        }
        let length = at + 1;
        let digits = key?.iter().rev().take(6);
        let sum = digits.fold(0, |sum, digit| 7 * sum + usize::from(*digit));
        let count = self.node.all.len();
        let owner = sum % count;
        if self.role == Role::Client && owner != self.node.number {
            self.forwards[owner].out.extend_from_slice(&bytes[..length]);
        } else if self.role != Role::Copy && name == b"put" {
            // One of the others, by the key as well.
            let second = (self.node.number + 1 + sum / count % (count - 1)) % count;
            self.copies[second].out.extend_from_slice(&bytes[..length]);
        }
        Some(length)
    }

    /// Sends all that has to go on, and waits for all of it.
    fn pass(&mut self, back: &mut [u8]) -> io::Result<()> {
        for (number, to) in self.node.all.iter().enumerate() {
            self.forwards[number].send(above(*to, 1))?;
            self.copies[number].send(above(*to, 2))?;
        }
        let mut links = self.forwards.iter_mut().chain(&mut self.copies);
        links.try_for_each(|link| link.receive(back))
    }
}

/// The string whose length is at `at`, if it is all there.
fn string(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let length = u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?) as usize;
    bytes.get(at + 4..at + 4 + length)
}
