//! The client of one BMP station (RFC 7854): connects, tells what there is, then what happens.
//!
//! A station that does not read as fast as things happen is cut off when a fixed amount waits for it. It is connected to again
//! and told everything anew, so that what it knows is never wrong and never costs more than that amount.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::StationConfig;
use super::status::Status;
use crate::observe::{Interest, Observation, bmp, split};
use crate::speaker::watch::{ObservationBatch, Observations, Watching};
use crate::speaker::{Speaker, SpeakerError};

/// Octets that may wait for a station, roughly.
const ROOM: usize = 16 << 20;
/// How long the station may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// How long the last words may take.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// The first pause before another attempt, and the longest one; each is twice the one before.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(120));
/// A connection that lasted this long was a good one: the next pause is a short one again.
const GOOD: Duration = Duration::from_secs(30);
/// A connection over which nothing goes is asked for signs of life.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// How a connection has ended.
enum End {
    /// The speaker has stopped, or the station is not wanted any more.
    Stop,
    /// Try again.
    Failed(String),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<SpeakerError> for End {
    fn from(_: SpeakerError) -> Self {
        Self::Stop
    }
}

/// Serves the station until `stop` or the end of the speaker.
pub(super) async fn run(
    speaker: Speaker,
    config: StationConfig,
    status: Status,
    mut stop: oneshot::Receiver<()>,
) {
    let name = format!("BMP station {}", config.address);
    let mut pause = PAUSES.0;
    loop {
        status.set("connecting");
        let began = Instant::now();
        let stream = tokio::select! {
            stream = connect(&config) => stream,
            _ = &mut stop => return,
        };
        let end = match stream {
            Ok(stream) => {
                status.works(&name, "connected");
                let station = Station {
                    speaker: &speaker,
                    config: &config,
                    status: &status,
                };
                station.serve(stream, &mut stop).await
            }
            Err(error) => End::Failed(error.to_string()),
        };
        match end {
            End::Stop => return status.set("stopped"),
            End::Failed(error) => status.failed(&name, &error),
        }
        if began.elapsed() >= GOOD {
            pause = PAUSES.0;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = &mut stop => return,
        }
        pause = PAUSES.1.min(pause * 2);
    }
}

async fn connect(config: &StationConfig) -> io::Result<TcpStream> {
    let socket = if config.address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    if let Some(local) = config.local_address {
        socket.bind((local, 0).into())?;
    }
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE);
    SockRef::from(&socket).set_tcp_keepalive(&keepalive)?;
    let connecting = socket.connect(config.address);
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the station does not answer");
    tokio::time::timeout(CONNECT, connecting)
        .await
        .map_err(late)?
}

struct Station<'a> {
    speaker: &'a Speaker,
    config: &'a StationConfig,
    status: &'a Status,
}

/// What happens next on a connection.
enum Next {
    Batch(Option<ObservationBatch>),
    Read(io::Result<usize>),
    Statistics,
    Stop,
}

impl Station<'_> {
    async fn serve(&self, stream: TcpStream, stop: &mut oneshot::Receiver<()>) -> End {
        let (mut reader, mut writer) = stream.into_split();
        let end = self.told(&mut reader, &mut writer, stop).await;
        let end = end.err().unwrap_or(End::Stop);
        if matches!(end, End::Stop) {
            let mut out = BytesMut::new();
            bmp::termination(
                "the speaker stops, or the station is not configured any more",
                &mut out,
            );
            let last = async {
                writer.write_all(&out).await?;
                writer.shutdown().await
            };
            // A station that is gone misses nothing.
            let _ = tokio::time::timeout(LAST_WORDS, last).await;
        }
        end
    }

    /// Tells the station everything, until something ends it.
    async fn told(
        &self,
        reader: &mut OwnedReadHalf,
        writer: &mut OwnedWriteHalf,
        stop: &mut oneshot::Receiver<()>,
    ) -> Result<(), End> {
        let how = Watching {
            interest: Interest {
                sessions: true,
                ..self.config.stages
            },
            from_the_start: true,
            room: ROOM,
            cut_off: true,
        };
        let mut observations = self.speaker.watch(how).await?;
        let mut out = BytesMut::new();
        let config = self.config;
        bmp::initiation(&config.system_name, &config.system_description, &mut out);
        self.write(writer, &observations, &mut out, 1).await?;
        let mut ticks = self.config.statistics.map(ticks);
        let mut rubbish = [0; 512];
        loop {
            let next = tokio::select! {
                batch = observations.next() => Next::Batch(batch),
                read = reader.read(&mut rubbish) => Next::Read(read),
                () = tick(&mut ticks) => Next::Statistics,
                _ = &mut *stop => Next::Stop,
            };
            match next {
                Next::Batch(None) if observations.is_cut_off() => return Err(too_slow()),
                Next::Batch(None) | Next::Stop => return Ok(()),
                Next::Batch(Some(batch)) => {
                    let count = write_batch(&batch, &mut out);
                    self.write(writer, &observations, &mut out, count).await?;
                }
                // A station says nothing (section 3.3); what it says is not listened to.
                Next::Read(Ok(length)) if length > 0 => {}
                Next::Read(end) => {
                    end?;
                    return Err(End::Failed("the station closed the connection".to_owned()));
                }
                Next::Statistics => {
                    let statistics = self.speaker.statistics().await?;
                    for (peer, counters) in &statistics {
                        bmp::statistics(peer, now(), counters, &mut out);
                    }
                    let count = statistics.len() as u64;
                    self.write(writer, &observations, &mut out, count).await?;
                }
            }
        }
    }

    /// Writes and forgets `out`, unless too much comes to wait meanwhile.
    async fn write(
        &self,
        writer: &mut OwnedWriteHalf,
        observations: &Observations,
        out: &mut BytesMut,
        count: u64,
    ) -> Result<(), End> {
        if out.is_empty() {
            return Ok(());
        }
        tokio::select! {
            written = writer.write_all(out) => written?,
            () = observations.cut_off() => return Err(too_slow()),
        }
        self.status.wrote(count, out.len() as u64);
        out.clear();
        Ok(())
    }
}

fn too_slow() -> End {
    End::Failed(format!(
        "the station was cut off: more than {} MiB waited for it",
        ROOM >> 20
    ))
}

/// Writes a batch as BMP, and returns how many messages that are.
fn write_batch(batch: &ObservationBatch, out: &mut BytesMut) -> u64 {
    let mut count = 0;
    for observation in &batch.observations {
        match observation {
            Observation::Up {
                peer,
                sent,
                received,
            } => bmp::peer_up(peer, batch.at, sent, received, out),
            Observation::Down { peer, reason } => bmp::peer_down(peer, batch.at, reason, out),
            Observation::Routes {
                peer,
                stage,
                messages,
            } => {
                for message in split(messages) {
                    bmp::route_monitoring(peer, *stage, batch.at, message, out);
                    count += 1;
                }
                continue;
            }
            _ => continue,
        }
        count += 1;
    }
    count
}

fn ticks(every: Duration) -> Interval {
    let mut ticks = tokio::time::interval_at(Instant::now() + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

async fn tick(ticks: &mut Option<Interval>) {
    match ticks {
        Some(ticks) => drop(ticks.tick().await),
        None => std::future::pending().await,
    }
}

fn now() -> crate::observe::Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap_or_default().into()
}
