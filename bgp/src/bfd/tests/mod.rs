//! Byte vectors, and sessions in virtual time.

mod packet;
mod pair;
mod scenarios;
mod strangers;
