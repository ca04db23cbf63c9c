//! The journey of an address: assign, while the pair is made; finish the pair, down, while the
//! policy is committed; set it up.
//!
//! Whatever fails, all that was made before is undone in reverse, and errors on the way back are
//! told with the first. An address goes last: as long as it is held, the block says whose it is,
//! so that a later try can find what is left. Where the API server cannot be reached, the release
//! is written down and caught up with later ([`super::replay`]); the pod's end does not wait.
//!
//! Not here: how any of the steps is done.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use margay_cni::config::Attachment;
use margay_cni::protocol::{Command, Request, args};
use margay_cni::{CniError, Code, journal};
use margay_crds::Owner;
use margay_ipam::{IpamError, Timestamp};

use super::edges::{Addresses, BoxError, Holder, LinkMade, LinkSpec, Links, Policy};
use super::network::{AddRequest, Added, DelOutcome, DelRequest, PodIdentity, PodNetwork};

/// Attachments younger than this are no garbage, whatever a runtime's list says: the list may
/// have been made before them.
const YOUNG: Duration = Duration::from_secs(60);

/// Wires pods over three edges.
#[derive(Debug)]
pub struct Wiring<A, L, P> {
    addresses: A,
    links: L,
    policy: P,
    journal: PathBuf,
}

impl<A: Addresses, L: Links, P: Policy> Wiring<A, L, P> {
    /// Wiring over these edges; `journal` is the directory of releases that wait.
    pub fn new(addresses: A, links: L, policy: P, journal: PathBuf) -> Self {
        Self {
            addresses,
            links,
            policy,
            journal,
        }
    }

    // ===== the way there =====

    async fn wire(&self, request: &AddRequest) -> Result<Added, CniError> {
        let (spec, made, prepared) = match self.begin(request).await {
            Ok(begun) => begun,
            Err(failure) => return Err(self.undo(request, failure, Progress::Created).await),
        };
        match self.complete(&spec, &made, prepared).await {
            Ok(()) => Ok(self.added(&spec, made)),
            Err(failure) => Err(self.undo(request, failure, Progress::Committed).await),
        }
    }

    /// The pod's addresses, and a pair that waits for them.
    async fn begin(
        &self,
        request: &AddRequest,
    ) -> Result<(LinkSpec, LinkMade, L::Prepared), CniError> {
        let owner = owner(request);
        let mut spec = link_spec(request, Vec::new());
        // The API server's disk and the kernel need their time: they take it side by side. First
        // the request goes out: the kernel's calls keep this thread busy, and with it those tasks
        // that send the request, which wake each other on the thread where they are.
        let prepare = async {
            tokio::task::yield_now().await;
            self.links.prepare(&spec).await
        };
        let (addresses, prepared, dropped) = tokio::join!(
            self.addresses.assign(&owner),
            prepare,
            self.drop_deferred(&request.attachment)
        );
        dropped?;
        spec.addresses = addresses.map_err(|error| address_error(&error))?;
        let failed = |error| step_error("cannot make the pod's interface", &error);
        let (made, prepared) = prepared.map_err(failed)?;
        Ok((spec, made, prepared))
    }

    /// Everything that needs the addresses; the node's end goes up last.
    async fn complete(
        &self,
        spec: &LinkSpec,
        made: &LinkMade,
        prepared: L::Prepared,
    ) -> Result<(), CniError> {
        // Neither needs the other: the node's end is down until both are done.
        let (created, committed) = tokio::join!(
            self.links.create(spec, made, prepared),
            self.policy.commit(spec, made)
        );
        created.map_err(|error| step_error("cannot make the pod's interface", &error))?;
        committed.map_err(|error| step_error("cannot commit the pod's policy", &error))?;
        let activated = self.links.activate(spec, made).await;
        activated.map_err(|error| step_error("cannot set the pod's interface up", &error))
    }

    fn added(&self, spec: &LinkSpec, made: LinkMade) -> Added {
        let addresses = spec.addresses.iter();
        Added {
            host_interface: made.host_interface,
            host_mac: made.host_mac,
            pod_mac: made.pod_mac,
            mtu: made.mtu,
            addresses: addresses
                .map(|address| (*address, self.links.gateway(*address)))
                .collect(),
        }
    }

    /// A second interface of a pod would have the first one's name on the node.
    fn refuse_second_interface(&self, request: &AddRequest) -> Result<(), CniError> {
        let wanted = &request.attachment;
        let other = self.addresses.holders().into_iter().find(|holder| {
            holder.attachment.container_id == wanted.container_id
                && holder.attachment.ifname != wanted.ifname
        });
        let Some(other) = other else {
            return Ok(());
        };
        Err(CniError::new(
            Code::INVALID_CONFIG,
            format!(
                "pod {}/{} has interface {} of Margay already, cannot add {}",
                request.pod.namespace, request.pod.name, other.attachment.ifname, wanted.ifname
            ),
        )
        .with_details("use Margay for one network of a pod only"))
    }

    // ===== the way back =====

    /// Takes back all that was begun; answers the first failure with what went wrong on the way.
    async fn undo(&self, request: &AddRequest, failure: CniError, reached: Progress) -> CniError {
        let mut also = Vec::new();
        let (pod, attachment) = (&request.pod, &request.attachment);
        // The interface goes before its policy: no moment with the one and without the other.
        if let Err(error) = self.links.remove(pod, attachment).await {
            also.push(format!("cannot remove the pod's interface: {error}"));
        }
        if reached >= Progress::Committed
            && let Err(error) = self.policy.withdraw(pod, attachment).await
        {
            also.push(format!("cannot withdraw the pod's policy: {error}"));
        }
        // An interface that may still carry the address keeps it; the runtime's DEL tries again.
        if also.is_empty()
            && let Err(error) = self.release(attachment, Some(pod)).await
        {
            also.push(error.to_string());
        }
        if also.is_empty() {
            return failure;
        }
        tracing::warn!(
            pod = %format!("{}/{}", pod.namespace, pod.name),
            container = %attachment.container_id,
            errors = %also.join("; "),
            "cannot undo a pod's wiring"
        );
        let details = [failure.details.clone(), also.join("; ")];
        let details = details.into_iter().filter(|text| !text.is_empty());
        let details: Vec<String> = details.collect();
        failure.with_details(details.join("; and while undoing it: "))
    }

    /// Releases now, or writes the release down.
    async fn release(
        &self,
        attachment: &Attachment,
        pod: Option<&PodIdentity>,
    ) -> Result<DelOutcome, CniError> {
        let error = match self.addresses.release(attachment).await {
            Ok(_) => return Ok(DelOutcome::Done),
            Err(error) => error,
        };
        self.defer(attachment, pod).await.map_err(|second| {
            address_error(&error).with_details(format!(
                "{error}; and the release cannot be written to {}: {second}",
                self.journal.display()
            ))
        })?;
        tracing::warn!(
            container = %attachment.container_id,
            %error,
            "the release of a pod's address is written down for later"
        );
        Ok(DelOutcome::Deferred)
    }

    async fn defer(
        &self,
        attachment: &Attachment,
        pod: Option<&PodIdentity>,
    ) -> Result<(), BoxError> {
        let mut pairs = Vec::new();
        if let Some(pod) = pod {
            pairs.push((args::POD_NAMESPACE.to_owned(), pod.namespace.clone()));
            pairs.push((args::POD_NAME.to_owned(), pod.name.clone()));
        }
        let request = Request {
            command: Command::Del,
            container_id: attachment.container_id.clone(),
            netns: None,
            ifname: attachment.ifname.clone(),
            args: pairs.into_iter().collect(),
            config: margay_cni::NetworkConfig::default(),
            prev_result: None,
        };
        let directory = self.journal.clone();
        tokio::task::spawn_blocking(move || journal::write(&directory, &request)).await??;
        Ok(())
    }

    /// A delete of an earlier try of the same attachment must not take this one away.
    async fn drop_deferred(&self, attachment: &Attachment) -> Result<(), CniError> {
        let directory = self.journal.clone();
        let Attachment {
            container_id,
            ifname,
        } = attachment.clone();
        let discard = move || journal::discard(&directory, &container_id, &ifname);
        let discarded = tokio::task::spawn_blocking(discard).await;
        let error = match discarded {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        let msg = format!(
            "cannot drop the container's delete from {}",
            self.journal.display()
        );
        Err(CniError::new(Code::IO, msg).with_details(error))
    }

    async fn unwire(&self, request: &DelRequest) -> Result<DelOutcome, CniError> {
        let holders = self.addresses.holders();
        let attachment = &request.attachment;
        let own = holders
            .iter()
            .find(|holder| holder.attachment == *attachment);
        let pod = request.pod.as_ref().or(own.map(|own| &own.pod));
        let mut failed = None;
        if let Some(pod) = pod {
            let succeeded = is_succeeded(&holders, attachment, pod);
            let removed = if succeeded {
                self.links.forget(pod, attachment).await
            } else {
                self.links.remove(pod, attachment).await
            };
            // The pod may still be there with its address: nobody else may get it.
            removed.map_err(|error| step_error("cannot remove the pod's interface", &error))?;
            if !succeeded && let Err(error) = self.policy.withdraw(pod, attachment).await {
                failed = Some(step_error("cannot withdraw the pod's policy", &error));
            }
        }
        let released = self.release(attachment, pod).await?;
        match failed {
            Some(error) => Err(error),
            None => Ok(released),
        }
    }
}

impl<A: Addresses, L: Links, P: Policy> PodNetwork for Wiring<A, L, P> {
    async fn add(&self, request: AddRequest) -> Result<Added, CniError> {
        self.status(request.mtu).await.map_err(|error| CniError {
            code: Code::TRY_AGAIN,
            ..error
        })?;
        self.refuse_second_interface(&request)?;
        self.wire(&request).await
    }

    async fn del(&self, request: DelRequest) -> Result<DelOutcome, CniError> {
        self.unwire(&request).await
    }

    async fn check(&self, request: AddRequest) -> Result<(), CniError> {
        let holders = self.addresses.holders();
        let mut all = holders.into_iter();
        let own = all.find(|holder| holder.attachment == request.attachment);
        let own = own.ok_or_else(|| {
            CniError::new(
                Code::CHECK_FAILED,
                format!(
                    "no address of this node is held by container {} interface {}",
                    request.attachment.container_id, request.attachment.ifname
                ),
            )
        })?;
        let spec = link_spec(&request, own.addresses);
        let differences = self.links.check(&spec).await.map_err(|error| {
            step_error(
                "cannot compare the pod's interface with what it should be",
                &error,
            )
        })?;
        if differences.is_empty() {
            return Ok(());
        }
        Err(CniError::new(
            Code::CHECK_FAILED,
            "the pod's interface is not as it should be",
        )
        .with_details(differences.join("; ")))
    }

    async fn status(&self, mtu: Option<u32>) -> Result<(), CniError> {
        let not_available = |reason: String| {
            CniError::new(Code::NOT_AVAILABLE, "the node cannot wire pods yet").with_details(reason)
        };
        let addresses = self.addresses.ready();
        addresses.map_err(|error| not_available(error.to_string()))?;
        let links = self.links.ready(mtu);
        links.map_err(|error| not_available(error.to_string()))?;
        let policy = self.policy.ready();
        policy.map_err(|error| not_available(error.to_string()))
    }

    async fn stale(&self, valid: &HashSet<Attachment>) -> Vec<DelRequest> {
        let now = Timestamp::now();
        let is_old = |holder: &Holder| {
            let age = holder.since.map(|since| now.duration_since(since));
            age.is_none_or(|age| Duration::try_from(age).is_ok_and(|age| age >= YOUNG))
        };
        let holders = self.addresses.holders().into_iter();
        holders
            .filter(|holder| !valid.contains(&holder.attachment) && is_old(holder))
            .map(|holder| DelRequest {
                attachment: holder.attachment,
                pod: Some(holder.pod),
                netns: None,
            })
            .collect()
    }
}

/// How far an attachment had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Progress {
    /// Addresses and the pair were asked for.
    Created,
    /// The policy was asked for.
    Committed,
}

/// Whether a younger sandbox of the same pod has taken the pod's interface over: a late DEL of
/// the old one must leave it alone.
fn is_succeeded(holders: &[Holder], attachment: &Attachment, pod: &PodIdentity) -> bool {
    let own = holders
        .iter()
        .find(|holder| holder.attachment == *attachment);
    let mut others = holders
        .iter()
        .filter(|holder| holder.attachment != *attachment && holder.pod.is_same_name(pod));
    match own {
        None => others.next().is_some(),
        Some(own) => others.any(|other| other.since > own.since),
    }
}

fn owner(request: &AddRequest) -> Owner {
    Owner {
        namespace: request.pod.namespace.clone(),
        pod: request.pod.name.clone(),
        uid: request.pod.uid.clone().unwrap_or_default(),
        container_id: request.attachment.container_id.clone(),
        interface: request.attachment.ifname.clone(),
        ..Owner::default()
    }
}

fn link_spec(request: &AddRequest, addresses: Vec<std::net::IpAddr>) -> LinkSpec {
    LinkSpec {
        pod: request.pod.clone(),
        attachment: request.attachment.clone(),
        netns: request.netns.clone(),
        addresses,
        mtu: request.mtu,
    }
}

/// What the runtime is told when there is no address. Most of it can pass without the pod being
/// made anew: an address comes free, a pool is added, the API server comes back. What the pod asks
/// for and cannot get is a mistake in the configuration.
fn address_error(error: &IpamError) -> CniError {
    let code = match error {
        IpamError::Refused { .. } => Code::WIRING,
        error if error.is_request_wrong() => Code::INVALID_CONFIG,
        _ => Code::TRY_AGAIN,
    };
    let msg = match error {
        error if error.is_request_wrong() => "the pod's addresses cannot be had".to_owned(),
        IpamError::Exhausted { family, pools, .. } => {
            format!("no free {family} address in IPPool {}", pools.join(", "))
        }
        _ => "no address for the pod".to_owned(),
    };
    CniError::new(code, msg).with_details(error.to_string())
}

fn step_error(what: &str, error: &BoxError) -> CniError {
    CniError::new(Code::WIRING, what).with_details(error.to_string())
}
