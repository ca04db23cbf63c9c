//! When a pod's first packet arrived: a DNS server beside the API server, which pods ask for
//! their own name as the first thing they do.
//!
//! A question is one UDP packet, so it tells of the way out of the pod alone and needs no way
//! back. The answer is always that there is no such name, so that who asks need not wait.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::Context;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// Hears the pods. Ends when dropped.
#[derive(Debug)]
pub struct FirstPackets {
    seen: Arc<Mutex<BTreeMap<String, Instant>>>,
    task: JoinHandle<()>,
}

impl FirstPackets {
    /// Listens on port 53 of every address of this namespace.
    ///
    /// # Errors
    /// When the port is taken.
    pub async fn listen() -> anyhow::Result<Self> {
        let any = SocketAddr::from(([0, 0, 0, 0], 53));
        let socket = UdpSocket::bind(any)
            .await
            .context("cannot listen on UDP port 53")?;
        let seen: Arc<Mutex<BTreeMap<String, Instant>>> = Arc::default();
        let shared = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut packet = [0; 512];
            loop {
                let Ok((length, from)) = socket.recv_from(&mut packet).await else {
                    continue;
                };
                let now = Instant::now();
                let Some(question) = packet.get_mut(..length) else {
                    continue;
                };
                if let Some(name) = first_label(question) {
                    let mut seen = shared.lock().unwrap_or_else(PoisonError::into_inner);
                    seen.entry(name).or_insert(now);
                }
                if refuse(question) {
                    // A pod that is gone does not miss it.
                    let _ = socket.send_to(question, from).await;
                }
            }
        });
        Ok(Self { seen, task })
    }

    /// When the first packet of each pod arrived.
    pub fn seen(&self) -> BTreeMap<String, Instant> {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for FirstPackets {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The first label of the name asked for: its length is the first byte after the header of 12
/// (RFC 1035 section 4.1).
fn first_label(question: &[u8]) -> Option<String> {
    let length = usize::from(*question.get(12)?);
    let label = question.get(13..13 + length)?;
    Some(String::from_utf8_lossy(label).into_owned())
}

/// Makes the answer "no such name" of a question, in place.
fn refuse(question: &mut [u8]) -> bool {
    match question.get_mut(2..4) {
        Some([flags, code]) if *flags & 0x80 == 0 => {
            *flags |= 0x80;
            *code = 0x83;
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_and_its_answer() {
        let mut packet =
            b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x05web-1\x00\x00\x01\x00\x01"
                .to_vec();
        assert_eq!(first_label(&packet).as_deref(), Some("web-1"));
        assert!(refuse(&mut packet));
        assert_eq!(packet[2..4], [0x81, 0x83]);
        assert!(!refuse(&mut packet), "an answer is not answered");
        assert_eq!(first_label(&packet[..14]), None);
        assert_eq!(first_label(&[]), None);
    }
}
