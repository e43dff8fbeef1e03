//! The server, with clients that send bytes of their own making.

mod answers;
mod ending;
mod house;
mod limits;
mod order;
