//! Reading the configuration again while the speaker runs.
//!
//! How it is read is for whoever started the daemon to know; here it is compared and put in force, or not.

use std::fmt;
use std::sync::Arc;

use tracing::{info, warn};

use super::File;
use crate::speaker::Speaker;

/// Reads the configuration; an error says what is wrong with it, for people.
pub type Source = Arc<dyn Fn() -> Result<File, String> + Send + Sync>;

/// A speaker, and where its configuration comes from.
#[derive(Clone)]
pub(super) struct Reloader {
    pub(super) speaker: Speaker,
    source: Option<Source>,
}

impl Reloader {
    pub(super) fn new(speaker: Speaker, source: Option<Source>) -> Self {
        Self { speaker, source }
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
        let configured = self.speaker.configure(config).await;
        configured.map_err(|error| error.to_string())
    }
}

impl fmt::Debug for Reloader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloader")
            .field("speaker", &self.speaker)
            .finish_non_exhaustive()
    }
}
