//! Health and metrics over HTTP, on localhost unless told otherwise.
//!
//! `/livez` answers while the agent's loop turns, whatever becomes of the API server; `/readyz`
//! says yes only when the node's network is in order, and what is wrong when it is not. `/metrics`
//! is for Prometheus.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::enforcement::Enforcement;
use crate::enforcement::seen::Count;
use crate::status::node::{Reports, readiness, serves};

/// How long the loop may be silent before it counts as hung.
const STALL: Duration = Duration::from_secs(30);

/// How long the policy edge may take to tell what rules have counted.
const PATIENCE: Duration = Duration::from_secs(2);
/// The most rules whose counts are shown.
const RULES: usize = 2000;

/// What the metrics are written in.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the endpoints show.
#[derive(Debug, Clone)]
pub struct Pulse {
    /// When the agent's loop last turned.
    pub at: Instant,
    /// What its parts report.
    pub reports: Reports,
}

impl Default for Pulse {
    fn default() -> Self {
        Self {
            at: Instant::now(),
            reports: Reports::default(),
        }
    }
}

/// Starts both listeners.
///
/// # Errors
/// An address that cannot be bound, named with its flag.
pub async fn serve(
    health: SocketAddr,
    metrics: SocketAddr,
    pulse: watch::Receiver<Pulse>,
    enforcement: Enforcement,
) -> anyhow::Result<()> {
    let health_routes = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .with_state(pulse.clone());
    let metrics_routes = Router::new()
        .route("/metrics", get(text))
        .with_state((pulse, enforcement));
    let health = bind("--health", health).await?;
    let metrics = bind("--metrics", metrics).await?;
    tokio::spawn(async move { axum::serve(health, health_routes).await });
    tokio::spawn(async move { axum::serve(metrics, metrics_routes).await });
    Ok(())
}

/// A listener for what a flag names.
///
/// # Errors
/// An address that cannot be bound.
pub(crate) async fn bind(flag: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("{flag} {address}: cannot listen"))
}

async fn livez(State(pulse): State<watch::Receiver<Pulse>>) -> (StatusCode, String) {
    let silent = pulse.borrow().at.elapsed();
    if silent < STALL {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        let words = format!(
            "the agent's loop has not turned for {} s\n",
            silent.as_secs()
        );
        (StatusCode::SERVICE_UNAVAILABLE, words)
    }
}

async fn readyz(State(pulse): State<watch::Receiver<Pulse>>) -> (StatusCode, String) {
    match serves(&pulse.borrow().reports) {
        Ok(None) => (StatusCode::OK, "ok\n".to_owned()),
        Ok(Some(remarks)) => (StatusCode::OK, format!("ok, but: {remarks}\n")),
        Err(words) => (StatusCode::SERVICE_UNAVAILABLE, words + "\n"),
    }
}

async fn text(
    State((pulse, enforcement)): State<(watch::Receiver<Pulse>, Enforcement)>,
) -> Response {
    let counts = tokio::time::timeout(PATIENCE, enforcement.counts()).await;
    let mut registry = registry(&pulse.borrow().reports);
    rules(&mut registry, &counts.unwrap_or_default());
    let lost = Counter::<u64>::default();
    lost.inc_by(enforcement.denials(Some(u64::MAX)).lost);
    registry.register(
        "policy_reports_lost",
        "Reports of denied or logged packets that were dropped because there were too many at once",
        lost,
    );
    written(&registry)
}

/// Metrics as an answer.
pub(crate) fn written(registry: &Registry) -> Response {
    let mut text = String::new();
    match encode(&mut text, registry) {
        Ok(()) => ([(CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// The metrics of this moment. A registry made anew each time cannot show a peer that is gone.
fn registry(reports: &Reports) -> Registry {
    let mut registry = Registry::with_prefix("margay");
    let mut gauge = |name: &str, help: &str, value: usize| {
        let gauge: Gauge = Gauge::default();
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        registry.register(name, help, gauge);
    };
    let (up, sessions) = reports.speaker.sessions();
    let routes = reports.routing.counts;
    gauge("bgp_sessions", "Sessions configured", sessions);
    gauge("bgp_sessions_established", "Sessions up", up);
    gauge("blocks", "Blocks held by this node", reports.blocks);
    gauge("pods", "Pods wired on this node", reports.pods);
    for (name, help, value) in [
        ("routes_local", "Routes to local pods", routes.local),
        ("routes_blackhole", "Own blocks", routes.blackhole),
        (
            "routes_direct",
            "Routes over a shared segment",
            routes.direct,
        ),
        (
            "routes_tunnelled",
            "Routes through a tunnel",
            routes.tunnelled,
        ),
    ] {
        gauge(name, help, value as usize);
    }
    gauge(
        "routes_missing",
        "Routes that are wanted and cannot be had, such as a next hop that is down",
        reports.routing.missing.len(),
    );
    gauge(
        "policy_objects_wrong",
        "What is wrong with policies and the objects they select",
        reports.policy.objects.len(),
    );
    gauge(
        "policy_table_repairs",
        "How often the kernel's policy table was found changed by others and written anew",
        reports.policy.repairs,
    );
    gauge(
        "policy_in_force",
        "1 if the policy table is as it should be",
        usize::from(reports.policy.programmed && reports.policy.problem.is_none()),
    );
    gauge(
        "ready",
        "1 if the node's network is in order",
        usize::from(readiness(reports).is_ok()),
    );
    registry
}

/// What the rules of policies have counted: those that have counted anything, up to [`RULES`] of them.
fn rules(registry: &mut Registry, counts: &[Count]) {
    let packets = Family::<Vec<(&str, String)>, Counter>::default();
    let bytes = Family::<Vec<(&str, String)>, Counter>::default();
    let (mut shown, mut omitted) = (0, 0);
    for count in counts.iter().filter(|count| count.packets > 0) {
        if shown >= RULES {
            omitted += 1;
            continue;
        }
        shown += 1;
        let rule = &count.rule;
        let labels = vec![
            ("kind", rule.kind.to_owned()),
            ("namespace", rule.namespace.clone()),
            ("name", rule.name.clone()),
            ("rule", rule.rule.clone()),
            ("action", rule.action.to_owned()),
            ("staged", rule.staged.to_string()),
        ];
        packets.get_or_create(&labels).inc_by(count.packets);
        bytes.get_or_create(&labels).inc_by(count.bytes);
    }
    registry.register(
        "policy_rule_packets",
        "Packets that a policy's rule decided about: first ones of connections, and all that are denied",
        packets,
    );
    registry.register("policy_rule_bytes", "The bytes of these packets", bytes);
    let left: Gauge = Gauge::default();
    left.set(omitted);
    registry.register(
        "policy_rules_omitted",
        "Rules that have counted something and are not shown because there are too many",
        left,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_name_what_they_count() {
        let reports = Reports {
            pods: 3,
            ..Reports::default()
        };
        let mut text = String::new();
        encode(&mut text, &registry(&reports)).unwrap();
        for line in [
            "margay_pods 3",
            "margay_ready 0",
            "margay_policy_in_force 0",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }

    #[test]
    fn rules_are_counted_by_name_and_bounded() {
        let count = |number: u64| Count {
            rule: crate::enforcement::seen::RuleName {
                kind: "NetworkPolicy",
                namespace: "shop".into(),
                name: format!("p{number}"),
                tier: "default".into(),
                rule: "ingress[0]".into(),
                direction: "ingress",
                action: "Allow",
                staged: false,
            },
            packets: number,
            bytes: 60 * number,
        };
        let counts: Vec<Count> = (0..=RULES as u64 + 2).map(count).collect();
        let mut registry = Registry::with_prefix("margay");
        rules(&mut registry, &counts);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "margay_policy_rule_packets_total{kind=\"NetworkPolicy\",namespace=\"shop\",name=\"p7\",rule=\"ingress[0]\",action=\"Allow\",staged=\"false\"} 7",
            "margay_policy_rules_omitted 2",
        ] {
            assert!(text.contains(line), "{line}");
        }
        assert!(!text.contains("name=\"p0\""), "a rule that counted nothing");
    }

    #[tokio::test]
    async fn alive_is_another_thing_than_ready() {
        let now = Pulse::default();
        let (beat, pulse) = watch::channel(now.clone());
        assert_eq!(livez(State(pulse.clone())).await.0, StatusCode::OK);
        let (code, words) = readyz(State(pulse.clone())).await;
        assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);
        assert!(words.contains("not programmed yet"), "{words}");

        let Some(at) = now.at.checked_sub(STALL) else {
            return; // The machine has just started.
        };
        beat.send_replace(Pulse { at, ..now });
        let (code, _) = livez(State(pulse)).await;
        assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);
    }
}
