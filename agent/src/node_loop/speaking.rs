//! The speaker as the loop drives it: started once its configuration is known, kept at what is
//! desired, its routes collected.

use std::collections::BTreeMap;

use futures::FutureExt;
use margay_bgp::speaker::{
    Announcement, RouteStream, Shutdown, Speaker, SpeakerConfig, SpeakerError,
};
use margay_bgp::types::Prefix;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::reconcile::routes::BestPaths;
use crate::reconcile::speaker::DesiredSpeaker;
use crate::status::node::SpeakerReport;

/// The most batches taken in before the routes are worked out: a full table is one change.
const BATCHES: usize = 256;

/// The speaker has ended although nobody asked it to: only a mistake in the program does that.
#[derive(Debug, thiserror::Error)]
#[error("the BGP speaker has ended unexpectedly")]
pub(super) struct Ended;

/// The speaker, or none before its configuration is known.
#[derive(Debug, Default)]
pub(super) struct Speaking {
    running: Option<Running>,
    /// The best paths, as far as they have arrived.
    pub(super) best: BestPaths,
    /// What there is to tell.
    pub(super) report: SpeakerReport,
}

#[derive(Debug)]
struct Running {
    speaker: Speaker,
    config: SpeakerConfig,
    batches: RouteStream,
}

impl Speaking {
    /// Makes the speaker as desired, if it is not; starts it if need be. What cannot be done is
    /// reported, and the last configuration stays in force.
    pub(super) async fn bring(
        &mut self,
        desired: Result<DesiredSpeaker, String>,
    ) -> Result<(), Ended> {
        let result = match desired {
            Ok(desired) => {
                self.report.peer_problems = desired.problems;
                self.apply(desired.config).await?
            }
            Err(words) => Err(words),
        };
        let problem = result.err();
        if let Some(words) = &problem
            && self.report.problem.as_ref() != Some(words)
        {
            tracing::error!("BGP: {words}");
        }
        self.report.problem = problem;
        Ok(())
    }

    async fn apply(&mut self, config: SpeakerConfig) -> Result<Result<(), String>, Ended> {
        let identity = (config.asn, config.router_id);
        match &mut self.running {
            Some(running) if running.config == config => return Ok(Ok(())),
            Some(running) => match running.speaker.configure(config.clone()).await {
                Ok(()) => running.config = config,
                Err(SpeakerError::Stopped) => return Err(Ended),
                Err(error) => return Ok(Err(error.to_string())),
            },
            None => match Speaker::start(config.clone()).await {
                Ok(speaker) => {
                    tracing::info!("speaker started, AS {}", config.asn);
                    self.running = Some(Running {
                        batches: speaker.subscribe().await.map_err(|_| Ended)?,
                        speaker,
                        config,
                    });
                }
                Err(error) => return Ok(Err(error.to_string())),
            },
        }
        self.report.identity = Some(identity);
        Ok(Ok(()))
    }

    /// Makes these the routes that are announced, with everything else as it is. False if that takes a whole configuration:
    /// the speaker does not run, or not as desired.
    pub(super) async fn announce(
        &mut self,
        announcements: BTreeMap<Prefix, Announcement>,
    ) -> Result<bool, Ended> {
        let Some(running) = &mut self.running else {
            return Ok(false);
        };
        if self.report.problem.is_some() {
            return Ok(false);
        }
        if running.config.announcements == announcements {
            return Ok(true);
        }
        match running.speaker.announce(announcements.clone()).await {
            Ok(()) => {
                running.config.announcements = announcements;
                Ok(true)
            }
            Err(SpeakerError::Stopped) => Err(Ended),
            Err(_) => Ok(false),
        }
    }

    /// Whether the last attempt to make the speaker as desired failed.
    pub(super) fn has_problem(&self) -> bool {
        self.report.problem.is_some()
    }

    /// Whether the speaker runs.
    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Whether the speaker runs and has not given all it held when asked.
    pub(super) fn is_catching_up(&self) -> bool {
        self.running.is_some() && !self.best.is_synced()
    }

    /// Waits for changes of the best paths and takes in all that are there; for ever while there
    /// is no speaker. Cancelling loses nothing.
    pub(super) async fn next_batches(&mut self) -> Result<(), Ended> {
        let Some(running) = &mut self.running else {
            return std::future::pending().await;
        };
        let first = running.batches.next_batch().await.ok_or(Ended)?;
        self.best.handle(first);
        for _ in 0..BATCHES {
            match running.batches.next_batch().now_or_never() {
                Some(Some(batch)) => self.best.handle(batch),
                Some(None) | None => break,
            }
        }
        Ok(())
    }

    /// Takes in all best paths from the beginning.
    pub(super) async fn listen_anew(&mut self) -> Result<(), Ended> {
        if let Some(running) = &mut self.running {
            running.batches = running.speaker.subscribe().await.map_err(|_| Ended)?;
            self.best = BestPaths::default();
        }
        Ok(())
    }

    /// Looks at the sessions; false if there is no speaker.
    pub(super) async fn look(&mut self) -> Result<bool, Ended> {
        let Some(running) = &self.running else {
            return Ok(false);
        };
        self.report.peers = running.speaker.summary().await.map_err(|_| Ended)?;
        Ok(true)
    }

    /// Tells every path the speaker holds, from a task of its own.
    pub(super) fn tell_rib(&self, reply: oneshot::Sender<Value>) {
        let Some(running) = &self.running else {
            let _ = reply.send(json!([]));
            return;
        };
        let speaker = running.speaker.clone();
        tokio::spawn(async move {
            let answer = match speaker.rib().await {
                Ok(rib) => json!(rib),
                Err(error) => json!({"error": error.to_string()}),
            };
            // Whoever asked may have gone.
            let _ = reply.send(answer);
        });
    }

    /// Closes the sessions without a NOTIFICATION; with a message they end for good.
    pub(super) async fn stop(&mut self, message: Option<&str>) {
        let Some(running) = self.running.take() else {
            return;
        };
        let how = match message {
            None => {
                tracing::info!("stopping; peers keep our routes over a restart");
                Shutdown::Graceful
            }
            Some(message) => {
                tracing::info!("stopping; peers are told: {message}");
                let message = message.to_owned();
                Shutdown::Cease { message }
            }
        };
        running.speaker.shutdown(how).await;
    }
}

#[cfg(test)]
mod tests {
    use margay_bgp::types::{Asn, RouterId};

    use super::*;

    fn desired(asn: u32, port: u16) -> Result<DesiredSpeaker, String> {
        let mut config = SpeakerConfig::new(Asn(asn), RouterId(1));
        config.listen = vec![([127, 0, 0, 1], port).into()];
        Ok(DesiredSpeaker {
            problems: Vec::new(),
            config,
        })
    }

    #[tokio::test]
    async fn a_port_in_use_is_told_and_the_old_configuration_stays() {
        let mut speaking = Speaking::default();
        assert!(!speaking.look().await.unwrap());
        speaking.bring(desired(64512, 0)).await.unwrap();
        assert!(!speaking.has_problem() && speaking.look().await.unwrap());

        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        speaking.bring(desired(64513, port)).await.unwrap();
        let problem = speaking.report.problem.clone().unwrap();
        assert!(problem.contains("listen 127.0.0.1"), "{problem}");
        assert_eq!(speaking.report.identity.unwrap().0, Asn(64512));

        // Back to what is in force: all is well again.
        speaking.bring(desired(64512, 0)).await.unwrap();
        assert!(!speaking.has_problem());
        drop(taken);
        speaking.bring(desired(64513, port)).await.unwrap();
        assert_eq!(speaking.report.identity.unwrap().0, Asn(64513));
        speaking.stop(None).await;
    }

    #[tokio::test]
    async fn announcements_alone_are_changed_without_a_whole_configuration() {
        let mut speaking = Speaking::default();
        let prefix: Prefix = "10.244.1.0/26".parse().unwrap();
        let announced = BTreeMap::from([(prefix, Announcement::default())]);
        assert!(!speaking.announce(announced.clone()).await.unwrap());
        speaking.bring(desired(64512, 0)).await.unwrap();
        assert!(speaking.announce(announced.clone()).await.unwrap());
        assert!(speaking.announce(announced.clone()).await.unwrap());
        let mut known = BestPaths::default();
        std::mem::swap(&mut known, &mut speaking.best);
        speaking.next_batches().await.unwrap();
        let rib = speaking.running.as_ref().unwrap().speaker.rib();
        let rib = rib.await.unwrap();
        assert_eq!(rib.len(), 1, "{rib:?}");

        // What is desired as a whole takes them up, or away again.
        let mut whole = desired(64512, 0).unwrap();
        whole.config.announcements = announced;
        speaking.bring(Ok(whole)).await.unwrap();
        assert!(speaking.announce(BTreeMap::new()).await.unwrap());
        let rib = speaking.running.as_ref().unwrap().speaker.rib();
        assert_eq!(rib.await.unwrap().len(), 0);
        speaking.stop(None).await;
    }

    #[tokio::test]
    async fn all_paths_are_taken_in_anew_when_asked() {
        let mut speaking = Speaking::default();
        assert!(!speaking.is_catching_up());
        speaking.bring(desired(64512, 0)).await.unwrap();
        assert!(speaking.is_catching_up());
        speaking.next_batches().await.unwrap();
        assert!(!speaking.is_catching_up());
        speaking.listen_anew().await.unwrap();
        assert!(speaking.is_catching_up());
        speaking.next_batches().await.unwrap();
        assert!(speaking.best.is_synced());
        speaking.stop(None).await;
    }
}
