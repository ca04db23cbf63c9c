//! What people see: lines, tables, the picture of the fabric, progress. No knowledge of how any
//! of it came about.

pub mod picture;
pub mod screen;
pub mod step;
pub mod table;

pub use screen::{Screen, Tone};
pub use step::Step;
pub use table::{Align, Cell, Table};
