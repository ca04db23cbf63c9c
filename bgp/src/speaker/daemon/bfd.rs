//! A BFD session as JSON.

use std::time::Duration;

use serde_json::{Value, json};

use super::time::rfc3339;
use crate::bfd::SessionReport;

/// Everything about a session; `since` is when it got its state. Times are in milliseconds.
pub(super) fn session(report: &SessionReport, since: std::time::SystemTime) -> Value {
    json!({
        "state": report.state,
        "since": rfc3339(since),
        "diagnostic": report.diagnostic,
        "lastFailure": report.last_failure,
        "failures": report.failures,
        "lastError": report.last_error,
        "transmitInterval": milliseconds(report.transmit_interval),
        "detectionTime": report.detection_time.map(milliseconds),
        "polling": report.polling,
        "discriminator": report.discriminator,
        "packetsSent": report.packets_sent,
        "packetsReceived": report.packets_received,
        "heardBefore": report.heard.map(milliseconds),
        "discards": report.discards,
        "remote": {
            "state": report.remote_state,
            "diagnostic": report.remote_diagnostic,
            "discriminator": report.remote_discriminator,
            "minTx": milliseconds(report.remote_min_tx),
            "minRx": milliseconds(report.remote_min_rx),
            "multiplier": report.remote_multiplier,
            "controlPlaneIndependent": report.remote_independent,
            "demand": report.remote_demand,
        },
    })
}

/// To the microsecond, as the protocol has it.
fn milliseconds(time: Duration) -> f64 {
    time.as_micros() as f64 / 1000.0
}
