//! What the crate promises as a whole: the API's semantics, the compiler against the evaluator, changes.

mod change;
mod closed;
mod fabric;
mod hosts;
mod ipvs;
mod nat;
mod random;
mod rejudge;
mod semantics;
mod worlds;
