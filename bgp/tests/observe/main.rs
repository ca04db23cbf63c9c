//! What engineers debug with, end to end over the loopback: BMP stations, MRT files read by the tools of the trade, recordings.

#![cfg(feature = "speaker")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod bmp;
mod lab;
mod mrt;
mod recording;
mod station;
