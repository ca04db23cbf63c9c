//! The four ways a client changes part of an object: JSON merge patch (RFC 7386), JSON patch (RFC 6902),
//! strategic merge patch and server-side apply. All pure functions from values to values.

pub mod apply;
pub mod json_merge;
pub mod json_patch;
pub mod lists;
pub mod strategic;

/// A patch that cannot be applied; the text says where and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch itself is malformed: 400.
    #[error("{0}")]
    Malformed(String),
    /// The patch is well-formed and does not fit the object: 422.
    #[error("{0}")]
    DoesNotApply(String),
}
