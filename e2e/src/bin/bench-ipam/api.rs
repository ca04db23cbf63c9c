//! What the API server counted.

use std::collections::BTreeMap;

use anyhow::Result;
use kube::Client;

/// Requests by verb and resource. Watches are left out: they are opened once and not per pod.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Counters(pub(crate) BTreeMap<String, u64>);

impl Counters {
    /// The counters as they are now (`apiserver_request_total`).
    pub(crate) async fn read(client: &Client) -> Result<Self> {
        let request = http::Request::get("/metrics").body(Vec::new())?;
        Ok(Self::parse(&client.request_text(request).await?))
    }

    fn parse(text: &str) -> Self {
        let mut counters = BTreeMap::new();
        for line in text.lines() {
            let Some(rest) = line.strip_prefix("apiserver_request_total{") else {
                continue;
            };
            let Some((labels, number)) = rest.rsplit_once("} ") else {
                continue;
            };
            let label = |name: &str| {
                let from = labels.find(&format!("{name}=\""))? + name.len() + 2;
                let value = labels.get(from..)?;
                value.split('"').next()
            };
            let (Some(verb), Some(resource)) = (label("verb"), label("resource")) else {
                continue;
            };
            let own = matches!(verb, "WATCH" | "CONNECT") || resource.is_empty();
            if let (false, Ok(number)) = (own, number.parse::<f64>()) {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a count"
                )]
                let number = number as u64;
                *counters.entry(format!("{verb} {resource}")).or_default() += number;
            }
        }
        Self(counters)
    }

    /// What was counted since.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let spent = self.0.iter().map(|(key, number)| {
            let known = before.0.get(key).copied().unwrap_or(0);
            (key.clone(), number.saturating_sub(known))
        });
        Self(spent.filter(|(_, number)| *number > 0).collect())
    }

    /// Requests that the ADDs made: all but those that come with time, whether or not pods start
    /// (the node's status, the controller's Lease and what it writes on pools, and the API
    /// server's own).
    pub(crate) fn of_adds(&self) -> u64 {
        let background = [
            "nodestatuses",
            "leases",
            "ippools",
            "namespaces",
            "endpoints",
        ];
        let ours = self.0.iter().filter(|(key, _)| {
            let resource = key.split(' ').nth(1).unwrap_or_default();
            !background.contains(&resource)
        });
        ours.map(|(_, number)| number).sum()
    }

    /// In words, most first.
    pub(crate) fn words(&self) -> String {
        let mut all: Vec<_> = self.0.iter().collect();
        all.sort_by_key(|(_, number)| std::cmp::Reverse(**number));
        let words: Vec<String> = all
            .into_iter()
            .map(|(key, number)| format!("{number} {key}"))
            .collect();
        words.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read() {
        let text = "# HELP x\napiserver_request_total{code=\"200\",resource=\"ipamblocks\",verb=\"PUT\"} 7\napiserver_request_total{code=\"409\",resource=\"ipamblocks\",verb=\"PUT\"} 1\napiserver_request_total{code=\"0\",resource=\"pods\",verb=\"WATCH\"} 3\napiserver_request_total{code=\"200\",resource=\"leases\",verb=\"PUT\"} 2e+1\n";
        let counters = Counters::parse(text);
        assert_eq!(counters.0["PUT ipamblocks"], 8);
        assert_eq!(counters.of_adds(), 8);
        assert_eq!(counters.words(), "20 PUT leases, 8 PUT ipamblocks");
        assert_eq!(counters.since(&counters), Counters::default());
    }
}
