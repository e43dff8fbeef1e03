//! The server, with clients that send bytes of their own making.

mod answers;
mod descriptors;
mod ending;
mod house;
mod http;
mod limits;
mod order;
