//! What address management asks of the API server: four operations on one kind.
//!
//! Not here: listing and watching. Whoever watches feeds the allocator
//! ([`crate::Allocator::handle_block_event`]).

use std::future::Future;

use margay_crds::IPAMBlock;

/// Why the store did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A create of a name that is there: someone claimed the block.
    #[error("an object of this name already exists")]
    AlreadyExists,
    /// An update or a delete of a version that is no longer the current one.
    #[error("the object has been changed by another writer")]
    Conflict,
    /// An update or a delete of an object that is gone.
    #[error("the object is gone")]
    NotFound,
    /// No answer: whether the write happened is not known.
    #[error("the API server cannot be reached: {0}")]
    Unavailable(String),
    /// The server understood and said no (not allowed, not valid); it will say so again.
    #[error("{0}")]
    Refused(String),
}

/// The blocks on an API server.
///
/// Every method must come to an end by itself: an implementation bounds its waiting and answers
/// [`StoreError::Unavailable`].
pub trait Store: Send + Sync + 'static {
    /// The block of this name as it is now, not from a cache.
    fn get(&self, name: &str)
    -> impl Future<Output = Result<Option<IPAMBlock>, StoreError>> + Send;

    /// Claims a block. Answers the object as stored, with uid and resourceVersion.
    fn create(
        &self,
        block: &IPAMBlock,
    ) -> impl Future<Output = Result<IPAMBlock, StoreError>> + Send;

    /// Writes a block if its resourceVersion is still the one in `block`. Answers the object as
    /// stored.
    fn update(
        &self,
        block: &IPAMBlock,
    ) -> impl Future<Output = Result<IPAMBlock, StoreError>> + Send;

    /// Deletes a block if its uid and resourceVersion are still the ones in `block`.
    fn delete(&self, block: &IPAMBlock) -> impl Future<Output = Result<(), StoreError>> + Send;
}

impl<S: Store> Store for std::sync::Arc<S> {
    async fn get(&self, name: &str) -> Result<Option<IPAMBlock>, StoreError> {
        self.as_ref().get(name).await
    }

    async fn create(&self, block: &IPAMBlock) -> Result<IPAMBlock, StoreError> {
        self.as_ref().create(block).await
    }

    async fn update(&self, block: &IPAMBlock) -> Result<IPAMBlock, StoreError> {
        self.as_ref().update(block).await
    }

    async fn delete(&self, block: &IPAMBlock) -> Result<(), StoreError> {
        self.as_ref().delete(block).await
    }
}
