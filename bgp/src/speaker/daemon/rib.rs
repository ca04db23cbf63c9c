//! The answer to `rib`: written while the table is walked, so that neither the sessions nor the memory notice its size.

use std::net::IpAddr;

use tokio::io::AsyncWriteExt;
use tokio::net::unix::OwnedWriteHalf;

use super::control::PATIENCE;
use crate::rib::DestinationId;
use crate::router::{RibPrefix, RibQuery};
use crate::speaker::Speaker;
use crate::types::Prefix;

/// What is asked for. A prefix without a length is an address, and stands for the longest prefix that covers it.
pub(super) fn query(neighbor: Option<IpAddr>, prefix: Option<&str>) -> Result<RibQuery, String> {
    let prefix = match prefix {
        None => None,
        Some(text) if text.contains('/') => {
            let prefix = text.parse::<Prefix>();
            Some(RibPrefix::Exact(prefix.map_err(|error| error.to_string())?))
        }
        Some(text) => {
            let address = text.parse().map_err(|_| {
                format!("prefix {text:?}: neither a prefix such as 10.1.0.0/24 nor an address")
            })?;
            Some(RibPrefix::Covering(address))
        }
    };
    Ok(RibQuery { prefix, neighbor })
}

/// Writes `{"routes":[…]}` and the end of the line. Destinations come in the order of their first arrival.
pub(super) async fn write(
    query: RibQuery,
    speaker: &Speaker,
    writer: &mut OwnedWriteHalf,
) -> std::io::Result<()> {
    let mut text = b"{\"routes\":[".to_vec();
    let mut next = Some(DestinationId(0));
    let mut first = true;
    while let Some(from) = next {
        // A speaker that stops leaves an answer that is cut off, and so cannot be taken for a whole one.
        let slice = speaker.rib_slice(query, from).await;
        let slice = slice.map_err(std::io::Error::other)?;
        for entry in &slice.entries {
            if !std::mem::take(&mut first) {
                text.push(b',');
            }
            serde_json::to_writer(&mut text, entry)?;
        }
        next = slice.next;
        tokio::time::timeout(PATIENCE, writer.write_all(&text)).await??;
        text.clear();
    }
    writer.write_all(b"]}\n").await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for() {
        let by = |prefix| query(None, Some(prefix)).map(|query| query.prefix);
        let exact = RibPrefix::Exact("10.1.0.0/24".parse().unwrap());
        assert_eq!(by("10.1.0.0/24"), Ok(Some(exact)));
        let covering = RibPrefix::Covering("fd00::1".parse().unwrap());
        assert_eq!(by("fd00::1"), Ok(Some(covering)));
        assert_eq!(query(None, None), Ok(RibQuery::default()));
        assert!(by("10.1.0.0/99").unwrap_err().contains("\"10.1.0.0/99\""));
        assert!(
            by("ten")
                .unwrap_err()
                .contains("10.1.0.0/24 nor an address")
        );
    }
}
