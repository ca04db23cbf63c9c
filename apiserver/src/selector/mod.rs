//! Label and field selectors as they come in a query string. Pure.

pub mod field;
pub mod label;

pub use field::FieldSelector;
pub use label::LabelSelector;
