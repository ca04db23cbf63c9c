//! Recordings of older versions: what a configuration did not have then is as it is without being asked for.

use serde_json::{Map, Value};

use crate::config::{PeerConfig, SpeakerConfig};
use crate::types::{Asn, RouterId};

/// Adds the fields that the configuration in a line lacks, if it has one.
pub(super) fn complete(entry: &mut Value) -> serde_json::Result<()> {
    for path in ["/do/start/config", "/do/configure"] {
        let Some(Value::Object(config)) = entry.pointer_mut(path) else {
            continue;
        };
        let defaults = SpeakerConfig::new(Asn(1), RouterId(1));
        fill(config, serde_json::to_value(defaults)?);
        let unspecified = std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
        let peer = serde_json::to_value(PeerConfig::new(unspecified, Asn(1)))?;
        let own = |config: &mut Map<String, Value>, field: &str, inner: Option<&str>| {
            let entries = config.get_mut(field).and_then(Value::as_object_mut);
            for entry in entries.into_iter().flat_map(Map::values_mut) {
                let entry = match inner {
                    Some(inner) => entry.get_mut(inner),
                    None => Some(entry),
                };
                if let Some(Value::Object(entry)) = entry {
                    fill(entry, peer.clone());
                }
            }
        };
        own(config, "peers", None);
        own(config, "interfaces", None);
        own(config, "ranges", Some("peer"));
    }
    Ok(())
}

/// Adds what is missing, in the objects within, too, but for maps with keys of their own.
fn fill(object: &mut Map<String, Value>, defaults: Value) {
    let Value::Object(defaults) = defaults else {
        return;
    };
    for (key, default) in defaults {
        match object.get_mut(&key) {
            None => drop(object.insert(key, default)),
            Some(Value::Object(inner)) => fill(inner, default),
            Some(_) => {}
        }
    }
}
