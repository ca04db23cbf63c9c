//! Tests of the CNI server: fakes of the edges that write down what happens, the wiring over
//! them, and the socket over the wiring.

mod allocator;
mod fakes;
mod server;
mod wiring;
