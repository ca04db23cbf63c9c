//! The Lease on the API server, and the task that keeps it.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::election::{Election, Record, Settings, Step, Written};
use super::health::Beat;

/// The Lease's name.
pub const NAME: &str = "margay-controller";
/// How long a request may take: less than the time in which the leader must have renewed.
const TIMEOUT: Duration = Duration::from_secs(4);

/// Takes part in the election until `stop`, and gives the Lease back then. `leading` is true
/// while this process leads.
pub(super) async fn run(
    client: Client,
    namespace: String,
    identity: String,
    leading: watch::Sender<bool>,
    beat: Beat,
    stop: CancellationToken,
) {
    let mut keeper = Keeper {
        beat,
        api: Api::namespaced(client, &namespace),
        election: Election::new(&identity, Settings::default()),
        identity,
        acquired: None,
        failing: false,
        leader: String::new(),
    };
    loop {
        keeper.beat.turn();
        let step = keeper.election.poll_step(Instant::now());
        let pause = match step {
            Step::Wait(until) => until,
            step => {
                // A leader whose request hangs stops leading on time all the same.
                let deadline = keeper.election.leads_until();
                keeper.perform(step, deadline, &leading).await;
                keeper.tell(&leading);
                continue;
            }
        };
        if stop.is_cancelled() {
            return;
        }
        let ends = keeper.election.leads_until().filter(|_| *leading.borrow());
        let wake = ends.map_or(pause, |ends| ends.min(pause));
        tokio::select! {
            () = tokio::time::sleep_until(wake.into()) => {}
            () = stop.cancelled() => {
                keeper.election.resign();
            }
        }
        keeper.tell(&leading);
    }
}

struct Keeper {
    beat: Beat,
    api: Api<Lease>,
    election: Election,
    identity: String,
    /// Who holds it since when: no part of the protocol, but people read it.
    acquired: Option<(String, MicroTime)>,
    failing: bool,
    leader: String,
}

impl Keeper {
    async fn perform(
        &mut self,
        step: Step,
        deadline: Option<Instant>,
        leading: &watch::Sender<bool>,
    ) {
        match step {
            Step::Wait(_) => {}
            Step::Read => {
                let read = self.api.get_opt(NAME);
                match self.in_time(read, deadline, leading).await {
                    Ok(found) => {
                        let spec = found.as_ref().and_then(|lease| lease.spec.as_ref());
                        self.acquired = spec.and_then(acquired);
                        let found = found.as_ref().map(record);
                        self.election.handle_read(Instant::now(), found);
                    }
                    Err(_) => self.election.handle_read_failed(Instant::now()),
                }
            }
            Step::Create(record) => {
                let lease = lease(&record, None);
                let params = PostParams::default();
                let write = self.api.create(&params, &lease);
                let written = self.in_time(write, deadline, leading).await;
                self.written(&record, written);
            }
            Step::Update(record) => {
                let lease = lease(&record, self.acquired.as_ref());
                let params = PostParams::default();
                let write = self.api.replace(NAME, &params, &lease);
                let written = match self.in_time(write, deadline, leading).await {
                    Err(Failure::Absent(_)) => Err(Failure::Lost),
                    other => other,
                };
                self.written(&record, written);
            }
        }
    }

    /// A request with a limit; should the time of leading end before, that is told on time.
    async fn in_time<T>(
        &self,
        request: impl Future<Output = Result<T, kube::Error>>,
        deadline: Option<Instant>,
        leading: &watch::Sender<bool>,
    ) -> Result<T, Failure> {
        let mut request = std::pin::pin!(tokio::time::timeout(TIMEOUT, request));
        let ends = async {
            match deadline.filter(|_| *leading.borrow()) {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        let answer = tokio::select! {
            answer = &mut request => answer,
            () = ends => {
                leading.send_replace(false);
                request.await
            }
        };
        if matches!(answer, Ok(Ok(_) | Err(kube::Error::Api(_)))) {
            self.beat.answer();
        }
        match answer {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => Err(Failure::Lost),
            // Of a create, this is the namespace.
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => {
                Err(Failure::Absent(status.message.clone()))
            }
            Ok(Err(error)) => Err(Failure::Unknown(error.to_string())),
            Err(_) => Err(Failure::Unknown(format!(
                "no answer within {} s",
                TIMEOUT.as_secs()
            ))),
        }
    }

    fn written(&mut self, record: &Record, written: Result<Lease, Failure>) {
        let written = match written {
            Ok(lease) => {
                self.failing = false;
                self.acquired = lease.spec.as_ref().and_then(acquired);
                Written::Done(lease.metadata.resource_version.unwrap_or_default())
            }
            Err(Failure::Lost) => Written::Lost,
            Err(Failure::Unknown(words) | Failure::Absent(words)) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!("Lease {NAME}: cannot be written, trying again: {words}");
                }
                Written::Unknown
            }
        };
        self.election
            .handle_written(Instant::now(), record, written);
    }

    /// Tells who leads, once for each change.
    fn tell(&mut self, leading: &watch::Sender<bool>) {
        let leads = self.election.leads(Instant::now());
        let changed = leading.send_if_modified(|known| std::mem::replace(known, leads) != leads);
        if changed {
            let words = if leads { "leads" } else { "leads no more" };
            tracing::info!("{} {words}", self.identity);
        }
        let leader = self.election.leader();
        if leader != self.leader && leader != self.identity && !leader.is_empty() {
            tracing::info!("{leader} leads");
        }
        leader.clone_into(&mut self.leader);
    }
}

#[derive(Debug)]
enum Failure {
    Lost,
    Absent(String),
    Unknown(String),
}

fn record(lease: &Lease) -> Record {
    let spec = lease.spec.clone().unwrap_or_default();
    let seconds = spec.lease_duration_seconds.unwrap_or_default();
    Record {
        holder: spec.holder_identity.unwrap_or_default(),
        seconds: u64::try_from(seconds).unwrap_or(0),
        transitions: spec.lease_transitions.unwrap_or_default(),
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
    }
}

fn acquired(spec: &LeaseSpec) -> Option<(String, MicroTime)> {
    Some((spec.holder_identity.clone()?, spec.acquire_time.clone()?))
}

fn lease(record: &Record, acquired: Option<&(String, MicroTime)>) -> Lease {
    let now = Some(MicroTime(Timestamp::now()));
    let goes_on = acquired.filter(|(holder, _)| *holder == record.holder);
    let acquired = goes_on.map(|(_, at)| at.clone());
    let version = Some(&record.version).filter(|version| !version.is_empty());
    Lease {
        metadata: ObjectMeta {
            name: Some(NAME.to_owned()),
            resource_version: version.cloned(),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(record.holder.clone()),
            lease_duration_seconds: i32::try_from(record.seconds).ok(),
            acquire_time: acquired.or_else(|| now.clone()),
            renew_time: now,
            lease_transitions: Some(record.transitions),
            ..LeaseSpec::default()
        }),
    }
}
