//! Health and metrics of the controller over HTTP, on localhost unless told otherwise.
//!
//! `/livez` answers while the election goes on, whatever becomes of the API server; `/readyz` says
//! yes while the API server answers, and to the leader only once its lists are in. `/metrics` is
//! for Prometheus: what only the leader knows, only the leader tells.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use super::world::Shared;
use crate::health::{bind, written};
use crate::options::ControllerOptions;

/// How long the election may be silent before it counts as hung; it waits 15 s at most.
const STALL: Duration = Duration::from_secs(45);
/// How long ago the API server may have answered last; it is asked every 2 s.
const SILENCE: Duration = Duration::from_secs(30);

/// The election's signs of life, shared with the one that shows them.
#[derive(Debug, Clone)]
pub(super) struct Beat(Arc<Mutex<Times>>);

#[derive(Debug)]
struct Times {
    turned: Instant,
    answered: Option<Instant>,
}

impl Beat {
    /// Of an election that begins.
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Times {
            turned: Instant::now(),
            answered: None,
        })))
    }

    fn times(&self) -> MutexGuard<'_, Times> {
        // What is there after a panic is no worse than a beat that was missed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The election goes on.
    pub(super) fn turn(&self) {
        self.times().turned = Instant::now();
    }

    /// The API server has answered.
    pub(super) fn answer(&self) {
        self.times().answered = Some(Instant::now());
    }

    fn check_alive(&self, now: Instant) -> Result<(), String> {
        let silent = now.saturating_duration_since(self.times().turned);
        if silent < STALL {
            return Ok(());
        }
        Err(format!(
            "the election has not gone on for {} s",
            silent.as_secs()
        ))
    }

    fn check_answered(&self, now: Instant) -> Result<(), String> {
        let silent = self
            .times()
            .answered
            .map(|at| now.saturating_duration_since(at));
        match silent {
            Some(silent) if silent < SILENCE => Ok(()),
            Some(silent) => {
                let seconds = silent.as_secs();
                Err(format!("the API server has not answered for {seconds} s"))
            }
            None => Err("the API server has not answered yet".to_owned()),
        }
    }
}

/// What the endpoints show.
#[derive(Debug, Clone)]
pub(super) struct Vitals {
    /// The election's signs of life.
    pub(super) beat: Beat,
    /// What the leader knows; none while another leads.
    pub(super) known: watch::Receiver<Option<Shared>>,
}

/// Starts both listeners.
///
/// # Errors
/// An address that cannot be bound, named with its flag.
pub(super) async fn serve(options: &ControllerOptions, vitals: Vitals) -> anyhow::Result<()> {
    let health_routes = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .with_state(vitals.clone());
    let metrics_routes = Router::new()
        .route("/metrics", get(metrics))
        .with_state(vitals);
    let health = bind("--health", options.health).await?;
    let metrics = bind("--metrics", options.metrics).await?;
    tokio::spawn(async move { axum::serve(health, health_routes).await });
    tokio::spawn(async move { axum::serve(metrics, metrics_routes).await });
    Ok(())
}

fn answer(result: Result<(), String>) -> (StatusCode, String) {
    match result {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(words) => (StatusCode::SERVICE_UNAVAILABLE, words + "\n"),
    }
}

async fn livez(State(vitals): State<Vitals>) -> (StatusCode, String) {
    answer(vitals.beat.check_alive(Instant::now()))
}

async fn readyz(State(vitals): State<Vitals>) -> (StatusCode, String) {
    answer(readiness(&vitals, Instant::now()))
}

fn readiness(vitals: &Vitals, now: Instant) -> Result<(), String> {
    vitals.beat.check_answered(now)?;
    match &*vitals.known.borrow() {
        Some(shared) if !shared.with(|world| world.is_synced()) => {
            Err("leads, and waits for the lists of objects".to_owned())
        }
        _ => Ok(()),
    }
}

async fn metrics(State(vitals): State<Vitals>) -> Response {
    let known = vitals.known.borrow().clone();
    written(&registry(known.as_ref()))
}

type ByPool = Family<[(&'static str, String); 1], Gauge>;

/// The metrics of this moment. A registry made anew each time cannot show a pool that is gone.
pub(super) fn registry(known: Option<&Shared>) -> Registry {
    let mut registry = Registry::with_prefix("margay");
    let leading: Gauge = Gauge::default();
    leading.set(i64::from(known.is_some()));
    let help = "1 while this controller leads";
    registry.register("controller_leading", help, leading);
    let Some(shared) = known else {
        return registry;
    };
    let (capacity, used, blocks) = (ByPool::default(), ByPool::default(), ByPool::default());
    let (services, synced): (Gauge, Gauge) = (Gauge::default(), Gauge::default());
    shared.with(|world| {
        synced.set(i64::from(world.is_synced()));
        let balanced = world.services.values().filter(|service| {
            let kind = service.spec.as_ref().and_then(|spec| spec.type_.as_deref());
            kind == Some("LoadBalancer")
        });
        services.set(i64::try_from(balanced.count()).unwrap_or(i64::MAX));
        for pool in world.pools.values() {
            let status = pool.status.clone().unwrap_or_default();
            let label = [("pool", pool.metadata.name.clone().unwrap_or_default())];
            for (family, value) in [
                (&capacity, status.capacity),
                (&used, status.used),
                (&blocks, status.blocks),
            ] {
                if let Some(value) = value {
                    family.get_or_create(&label).set(value);
                }
            }
        }
    });
    let help = "1 once the leader has every list of objects";
    registry.register("controller_synced", help, synced);
    let help = "Services of type LoadBalancer";
    registry.register("load_balancer_services", help, services);
    let help = "Addresses of the pool";
    registry.register("pool_capacity", help, capacity);
    let help = "Addresses of the pool that are held";
    registry.register("pool_used", help, used);
    let help = "Blocks of the pool that nodes hold";
    registry.register("pool_blocks", help, blocks);
    registry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alive_is_another_thing_than_ready() {
        let now = Instant::now();
        let (_known, receiver) = watch::channel(None);
        let vitals = Vitals {
            beat: Beat::new(),
            known: receiver,
        };
        assert!(vitals.beat.check_alive(now).is_ok());
        assert!(
            readiness(&vitals, now)
                .unwrap_err()
                .contains("not answered")
        );
        vitals.beat.answer();
        assert_eq!(readiness(&vitals, now), Ok(()));
        let later = now + STALL + Duration::from_secs(1);
        assert!(
            readiness(&vitals, later)
                .unwrap_err()
                .contains("answered for")
        );
        assert!(
            vitals
                .beat
                .check_alive(later)
                .unwrap_err()
                .contains("has not gone on")
        );
    }

    #[test]
    fn one_that_waits_says_that_it_does_not_lead() {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry(None)).unwrap();
        assert!(text.contains("margay_controller_leading 0"), "{text}");
    }
}
