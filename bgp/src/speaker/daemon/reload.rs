//! Reading the configuration again while the speaker runs.
//!
//! How it is read is for whoever started the daemon to know; here it is compared and put in force, or not.

use std::fmt;
use std::sync::Arc;

use tokio::sync::{Mutex, watch};
use tracing::{info, warn};

use super::File;
use crate::speaker::Speaker;
use crate::speaker::monitor::Monitors;

/// Reads the configuration; an error says what is wrong with it, for people.
pub type Source = Arc<dyn Fn() -> Result<File, String> + Send + Sync>;

/// A speaker, and where its configuration comes from.
#[derive(Clone)]
pub(super) struct Reloader {
    pub(super) speaker: Speaker,
    pub(super) monitors: Arc<Mutex<Monitors>>,
    source: Option<Source>,
    /// The configuration in force.
    in_force: watch::Sender<Arc<File>>,
}

impl Reloader {
    pub(super) fn new(
        speaker: Speaker,
        monitors: Arc<Mutex<Monitors>>,
        source: Option<Source>,
        file: File,
    ) -> Self {
        let (in_force, _) = watch::channel(Arc::new(file));
        Self {
            speaker,
            monitors,
            source,
            in_force,
        }
    }

    pub(super) fn in_force(&self) -> watch::Receiver<Arc<File>> {
        self.in_force.subscribe()
    }

    /// All or nothing: a configuration with a mistake in it changes nothing.
    pub(super) async fn reload(&self) -> Result<(), String> {
        let outcome = self.try_reload().await;
        match &outcome {
            Ok(()) => info!("configuration read and in force"),
            Err(error) => warn!(%error, "configuration refused, the old one stays in force"),
        }
        outcome
    }

    async fn try_reload(&self) -> Result<(), String> {
        let Some(source) = &self.source else {
            return Err("this speaker was not started from a file".to_owned());
        };
        let file = source()?;
        let config = file.speaker_config().map_err(|error| error.to_string())?;
        let wanted = file.monitor_config().map_err(|error| error.to_string())?;
        let configured = self.speaker.configure(config).await;
        configured.map_err(|error| error.to_string())?;
        self.monitors.lock().await.configure(wanted).await;
        self.in_force.send_replace(Arc::new(file));
        Ok(())
    }
}

impl fmt::Debug for Reloader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloader")
            .field("speaker", &self.speaker)
            .finish_non_exhaustive()
    }
}
