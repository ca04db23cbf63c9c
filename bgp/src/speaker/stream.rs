//! [`RouteStream`]: the routes as a subscriber sees them.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures::Stream;
use tokio::sync::mpsc;

use crate::router::RouteBatch;

/// A snapshot of the best routes and then every change, in batches.
///
/// The stream is bounded: a subscriber that does not read leaves its changes in the router, where later changes of a prefix
/// replace earlier ones. It never loses a prefix's last state, and may well skip states in between. It ends when the
/// speaker does.
#[derive(Debug)]
pub struct RouteStream {
    batches: mpsc::Receiver<RouteBatch>,
}

impl RouteStream {
    pub(super) fn new(batches: mpsc::Receiver<RouteBatch>) -> Self {
        Self { batches }
    }

    /// The next batch, or `None` once the speaker has stopped. Cancelling the wait loses nothing.
    pub async fn next_batch(&mut self) -> Option<RouteBatch> {
        self.batches.recv().await
    }
}

impl Stream for RouteStream {
    type Item = RouteBatch;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<RouteBatch>> {
        self.batches.poll_recv(context)
    }
}
