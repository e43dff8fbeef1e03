//! The limit of a thread-per-connection blocking server: it sends back what it reads, one write for each read.

use crate::Outcome;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

/// Bytes taken by one read at most.
const BUFFER_BYTES: usize = 64 * 1024;

/// Serves `HOST:PORT` until killed.
pub fn run(arguments: &[String]) -> Outcome {
    let [address] = arguments else {
        return Err("usage: yardstick echo HOST:PORT".into());
    };
    serve(TcpListener::bind(address)?)
}

/// Serves this listener until it fails.
pub fn serve(listener: TcpListener) -> Outcome {
    loop {
        let (stream, _) = listener.accept()?;
        thread::spawn(move || echo(stream));
    }
}

/// Ends when the peer closes; an error ends this connection alone, and the generator reports it at the other end.
fn echo(mut stream: TcpStream) {
    let mut buffer = vec![0; BUFFER_BYTES];
    if stream.set_nodelay(true).is_err() {
        return;
    }
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}
