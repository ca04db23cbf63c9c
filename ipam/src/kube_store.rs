//! The store over a Kubernetes API server, or anything that speaks its language.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use kube::{Client, Error};
use margay_crds::IPAMBlock;

use crate::store::{Store, StoreError};

/// How long a call may take before it counts as unanswered.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Blocks on an API server.
#[derive(Debug, Clone)]
pub struct KubeStore {
    blocks: Api<IPAMBlock>,
}

impl KubeStore {
    /// A store over a client.
    pub fn new(client: Client) -> Self {
        Self {
            blocks: Api::all(client),
        }
    }
}

impl Store for KubeStore {
    async fn get(&self, name: &str) -> Result<Option<IPAMBlock>, StoreError> {
        bounded(self.blocks.get_opt(name)).await
    }

    async fn create(&self, block: &IPAMBlock) -> Result<IPAMBlock, StoreError> {
        bounded(self.blocks.create(&PostParams::default(), block)).await
    }

    async fn update(&self, block: &IPAMBlock) -> Result<IPAMBlock, StoreError> {
        let name = block.metadata.name.as_deref().unwrap_or_default();
        let mut block = block.clone();
        // One empty entry has the server forget who wrote which field. Nobody but Margay writes
        // blocks, and to keep count it compares the whole block, field by field, at each write.
        block.metadata.managed_fields = Some(vec![ManagedFieldsEntry::default()]);
        bounded(self.blocks.replace(name, &PostParams::default(), &block)).await
    }

    async fn delete(&self, block: &IPAMBlock) -> Result<(), StoreError> {
        let name = block.metadata.name.as_deref().unwrap_or_default();
        let unchanged = Preconditions {
            resource_version: block.metadata.resource_version.clone(),
            uid: block.metadata.uid.clone(),
        };
        let params = DeleteParams::default().preconditions(unchanged);
        bounded(self.blocks.delete(name, &params)).await.map(|_| ())
    }
}

pub(crate) async fn bounded<T>(
    call: impl Future<Output = Result<T, Error>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(TIMEOUT, call).await {
        Ok(answer) => answer.map_err(|error| store_error(&error)),
        Err(_) => Err(StoreError::Unavailable(format!(
            "no answer within {} s",
            TIMEOUT.as_secs()
        ))),
    }
}

/// Two different things come as 409: a name that is taken and a version that is stale. Only the
/// reason tells them apart.
fn store_error(error: &Error) -> StoreError {
    let Error::Api(status) = error else {
        return StoreError::Unavailable(chain(error));
    };
    match (status.code, status.reason.as_str()) {
        (409, "AlreadyExists") => StoreError::AlreadyExists,
        (409, _) => StoreError::Conflict,
        (404, _) => StoreError::NotFound,
        (408 | 429 | 500..=599, _) => StoreError::Unavailable(status.message.clone()),
        // Credentials that have run out are renewed; the next try may pass.
        (401, _) => StoreError::Unavailable(format!("not authorised: {}", status.message)),
        _ => StoreError::Refused(status.message.clone()),
    }
}

/// An error with its causes: the outermost alone says only that a service failed.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use kube::core::Status;
    use serde_json::{Value, json};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::block::NodeBlock;

    #[test]
    fn the_reason_tells_the_409s_apart() {
        let unavailable = |text: &str| StoreError::Unavailable(text.into());
        let cases = [
            (409, "AlreadyExists", StoreError::AlreadyExists),
            (409, "Conflict", StoreError::Conflict),
            (404, "NotFound", StoreError::NotFound),
            (422, "Invalid", StoreError::Refused("m".into())),
            (403, "Forbidden", StoreError::Refused("m".into())),
            (401, "Unauthorized", unavailable("not authorised: m")),
            (429, "TooManyRequests", unavailable("m")),
            (504, "Timeout", unavailable("m")),
        ];
        for (code, reason, expected) in cases {
            let status = Status::failure("m", reason).with_code(code);
            assert_eq!(store_error(&Error::Api(status.boxed())), expected);
        }
    }

    /// Serves one canned reply a connection and keeps the requests.
    async fn server(replies: Vec<(u16, Value)>) -> (Client, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        tokio::spawn(async move {
            for (code, reply) in replies {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut text = Vec::new();
                while !is_whole(&text) {
                    let mut part = [0; 4096];
                    let length = stream.read(&mut part).await.unwrap();
                    text.extend_from_slice(&part[..length]);
                }
                log.lock().unwrap().push(String::from_utf8(text).unwrap());
                let body = reply.to_string();
                let head = format!(
                    "HTTP/1.1 {code} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
                     connection: close\r\n\r\n",
                    body.len()
                );
                stream.write_all(head.as_bytes()).await.unwrap();
                stream.write_all(body.as_bytes()).await.unwrap();
            }
        });
        let client = Client::try_from(kube::Config::new(url.parse().unwrap())).unwrap();
        (client, seen)
    }

    fn is_whole(text: &[u8]) -> bool {
        let text = String::from_utf8_lossy(text);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            return false;
        };
        let length = head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(key, _)| key.eq_ignore_ascii_case("content-length"))
            .map_or(0, |(_, value)| value.parse().unwrap());
        body.len() >= length
    }

    #[tokio::test]
    async fn the_four_calls_on_the_wire() {
        let mut block = NodeBlock::claim("10.0.0.0/26".parse().unwrap(), "n1")
            .object()
            .clone();
        let mut stored = block.clone();
        stored.metadata.uid = Some("u1".into());
        stored.metadata.resource_version = Some("7".into());
        let value = serde_json::to_value(&stored).unwrap();
        let failure = |code: u16, reason: &str| {
            let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
                "code": code, "reason": reason, "message": "m"});
            (code, status)
        };
        let (client, seen) = server(vec![
            failure(404, "NotFound"),
            (201, value.clone()),
            failure(409, "AlreadyExists"),
            failure(409, "Conflict"),
            (
                200,
                json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}),
            ),
        ])
        .await;
        let store = KubeStore::new(client);
        assert_eq!(store.get("10-0-0-0-26").await, Ok(None));
        assert_eq!(store.create(&block).await, Ok(stored.clone()));
        let taken = store.create(&block).await;
        assert_eq!(taken, Err(StoreError::AlreadyExists));
        block = stored;
        assert_eq!(store.update(&block).await, Err(StoreError::Conflict));
        assert_eq!(store.delete(&block).await, Ok(()));
        // The server has served its list and is gone.
        let gone = store.get("10-0-0-0-26").await;
        assert!(matches!(gone, Err(StoreError::Unavailable(_))), "{gone:?}");

        let seen = seen.lock().unwrap();
        let first_lines: Vec<&str> = seen.iter().filter_map(|text| text.lines().next()).collect();
        let path = "/apis/margay.dev/v1/ipamblocks";
        assert_eq!(
            first_lines,
            [
                format!("GET {path}/10-0-0-0-26 HTTP/1.1"),
                format!("POST {path}? HTTP/1.1"),
                format!("POST {path}? HTTP/1.1"),
                format!("PUT {path}/10-0-0-0-26? HTTP/1.1"),
                format!("DELETE {path}/10-0-0-0-26? HTTP/1.1"),
            ]
        );
        assert!(seen[1].contains(r#""margay.dev/node":"n1""#));
        assert!(seen[3].contains(r#""resourceVersion":"7""#));
        assert!(seen[3].contains(r#""managedFields":[{}]"#));
        let delete: Value =
            serde_json::from_str(seen[4].split("\r\n\r\n").nth(1).unwrap()).unwrap();
        assert_eq!(
            delete["preconditions"],
            json!({"resourceVersion": "7", "uid": "u1"})
        );
    }
}
