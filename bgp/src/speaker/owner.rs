//! The owner task: holds the router, answers commands.

use std::net::SocketAddr;

use tokio::sync::{mpsc, oneshot};

use super::handle::{Shutdown, SpeakerError};
use super::stream::RouteStream;
use crate::config::SpeakerConfig;
use crate::router::{PeerSummary, RibEntry};

/// What a [`super::Speaker`] handle asks of the owner task.
#[derive(Debug)]
pub(super) enum Command {
    Configure {
        config: Box<SpeakerConfig>,
        reply: oneshot::Sender<Result<(), SpeakerError>>,
    },
    Subscribe {
        reply: oneshot::Sender<RouteStream>,
    },
    Summary {
        reply: oneshot::Sender<Vec<PeerSummary>>,
    },
    Rib {
        reply: oneshot::Sender<Vec<RibEntry>>,
    },
    Listening {
        reply: oneshot::Sender<Vec<SocketAddr>>,
    },
    Shutdown {
        how: Shutdown,
        reply: oneshot::Sender<()>,
    },
}

/// Starts the owner task.
pub(super) async fn start(config: SpeakerConfig) -> Result<mpsc::Sender<Command>, SpeakerError> {
    config.validate()?;
    let (commands, mut inbox) = mpsc::channel(64);
    tokio::spawn(async move {
        let mut subscribers = Vec::new();
        while let Some(command) = inbox.recv().await {
            match command {
                Command::Configure { config, reply } => {
                    let _ = reply.send(config.validate().map_err(SpeakerError::from));
                }
                Command::Subscribe { reply } => {
                    let (sender, receiver) = mpsc::channel(8);
                    subscribers.push(sender);
                    let _ = reply.send(RouteStream::new(receiver));
                }
                Command::Summary { reply } => drop(reply.send(Vec::new())),
                Command::Rib { reply } => drop(reply.send(Vec::new())),
                Command::Listening { reply } => drop(reply.send(config.listen.clone())),
                Command::Shutdown { how: _, reply } => {
                    let _ = reply.send(());
                    return;
                }
            }
        }
    });
    Ok(commands)
}
