//! How it works, what it costs, and how to change it.

#[doc = include_str!("guide/how_it_works.md")]
pub mod how_it_works {}

#[doc = include_str!("guide/cost.md")]
pub mod cost {}

#[doc = include_str!("guide/working_on_it.md")]
pub mod working_on_it {}
