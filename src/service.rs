//! A service answers named calls. This is all that a server, a simulated network and a test know
//! of the locator, the store, or a third service built on them.

use crate::thrift::Exception;

/// One call, as it arrived.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    /// Its name, as it came: any bytes.
    pub method: &'a [u8],
    /// The arguments: one struct.
    pub arguments: &'a [u8],
    /// The caller sits on this machine: on the loopback, or on the address it called.
    pub local: bool,
    /// To be called when what the call changes has been changed here, if there is still something
    /// slow to do afterwards (telling others). Calls on later connections wait for it.
    pub done: &'a dyn Fn(),
}

/// What the first call of a connection has to do with those of connections accepted before: the
/// 2009 original served one connection after the other, and its programs count on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Waits for the writes before it, and later ones wait for it.
    Write,
    /// Waits for the writes before it; no other call waits for it.
    Read,
    /// Neither: what our own nodes say to each other.
    Free,
}

/// Where answers go, one behind the other.
pub trait Answers {
    /// The next one: `write` is called once, and appends the result, one struct; or gives the exception that is
    /// answered instead, and then what it has appended is thrown away.
    fn add(&mut self, write: &mut dyn FnMut(&mut Vec<u8>) -> Result<(), Exception>);

    /// Sends those that have been added, as the next one may take long.
    fn flush(&mut self) {}
}

/// Answers calls, many at once. Shared by all connections.
pub trait Service: Send + Sync {
    /// Serves one call and appends the result, one struct, to `result`. May block, within limits.
    ///
    /// # Errors
    /// The exception that is answered instead; what stands in `result` then is thrown away.
    fn call(&self, call: &Call<'_>, result: &mut Vec<u8>) -> Result<(), Exception>;

    /// Serves calls that have arrived together on one connection: gives `answers` one for each, in their order. May
    /// block, within limits.
    fn serve(&self, calls: &[Call<'_>], answers: &mut dyn Answers) {
        for call in calls {
            answers.add(&mut |result| self.call(call, result));
        }
    }

    /// The names of its methods, by which requests are counted; those that are called most come first.
    fn methods(&self) -> Vec<&'static str> {
        Vec::new()
    }

    /// How calls of that method wait for each other, as the first of their connections.
    fn order(&self, method: &[u8]) -> Order;
}
