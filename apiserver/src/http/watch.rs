//! Watches: an endless JSON stream of events.
//!
//! A watch holds no queue: it remembers the last version it has sent and reads on from the store's history when woken. A client
//! that reads too slowly is told 410 once the history has moved on, and then lists anew.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::stream;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;

use super::accept::{Accepted, Shape};
use super::path::Address;
use super::query::Query;
use super::{App, answer};
use crate::error::ApiError;
use crate::registry::Resource;
use crate::service::watching::Filter;
use crate::service::{ListQuery, Selectors};

/// How long a watch lasts when the client does not say.
const LIFETIME: Duration = Duration::from_secs(3600);
/// Time between bookmarks.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// Events turned into one chunk.
const CHUNK: usize = 256;

/// An open watch.
struct Watcher {
    app: Arc<App>,
    resource: Arc<Resource>,
    filter: Filter,
    accepted: Accepted,
    query: Query,
    /// The version up to which everything was sent.
    since: u64,
    wake: watch::Receiver<u64>,
    pending: VecDeque<Bytes>,
    bookmarks: bool,
    next_bookmark: Instant,
    deadline: Instant,
    ended: bool,
    _permit: OwnedSemaphorePermit,
}

/// Opens a watch, from a version or from the current state.
pub(super) fn open(
    app: &Arc<App>,
    resource: Arc<Resource>,
    accepted: Accepted,
    query: &Query,
    address: &Address,
) -> Result<Response, ApiError> {
    let permit = Arc::clone(&app.watches).try_acquire_owned().map_err(|_| {
        ApiError::too_many("too many watches are open; close some or try again later")
    })?;
    let selectors = Selectors::parse(
        &resource,
        query.text("labelSelector"),
        query.text("fieldSelector"),
    )?;
    let requested = query.number("resourceVersion")?;
    let initial = query.flag("sendInitialEvents");
    let lifetime = match query.number("timeoutSeconds")? {
        0 => LIFETIME,
        seconds => Duration::from_secs(seconds).min(LIFETIME * 24),
    };
    let now = Instant::now();
    let mut watcher = Watcher {
        // Subscribed before anything is read, so that nothing falls in between.
        wake: app.service.store().subscribe(&resource.shelf),
        app: Arc::clone(app),
        filter: Filter {
            namespace: address.namespace.clone(),
            selectors,
        },
        accepted,
        query: Query::default(),
        since: requested,
        pending: VecDeque::new(),
        bookmarks: query.flag("allowWatchBookmarks"),
        next_bookmark: now + BOOKMARK_EVERY,
        deadline: now + lifetime,
        ended: false,
        _permit: permit,
        resource,
    };
    watcher.query = Query::only("includeObject", query.text("includeObject"));
    if requested == 0 || initial {
        watcher.current_state(initial)?;
    } else {
        // Forgotten history is told by the first pass, in the stream: clients list anew only
        // when 410 comes as an event, as it does from a Kubernetes API server.
        let newest = app.service.store().version();
        if requested > newest {
            // Only a client of an earlier database can know such a version.
            watcher.expire(newest);
        }
    }
    Ok(answer::stream(Body::from_stream(stream::unfold(
        watcher, next,
    ))))
}

/// The next chunk of the stream.
async fn next(mut watcher: Watcher) -> Option<(Result<Bytes, std::convert::Infallible>, Watcher)> {
    loop {
        if let Some(chunk) = watcher.pending.pop_front() {
            return Some((Ok(chunk), watcher));
        }
        if watcher.ended {
            return None;
        }
        watcher.catch_up();
        if watcher.pending.is_empty() {
            watcher.wait().await;
        }
    }
}

impl Watcher {
    /// Queues the current state as additions.
    fn current_state(&mut self, marked: bool) -> Result<(), ApiError> {
        let query = ListQuery {
            namespace: self.filter.namespace.clone(),
            selectors: self.filter.selectors.clone(),
            ..ListQuery::default()
        };
        let page = self.app.service.list(&self.resource, &query)?;
        let version = page
            .metadata
            .get("resourceVersion")
            .and_then(Value::as_str)
            .and_then(|text| text.parse().ok());
        self.since = version.unwrap_or(self.since);
        let mut chunk = Vec::new();
        for (index, object) in page.objects.into_iter().enumerate() {
            self.line(&mut chunk, "ADDED", object);
            if index % CHUNK == CHUNK - 1 {
                self.pending.push_back(std::mem::take(&mut chunk).into());
            }
        }
        if marked {
            self.bookmark(&mut chunk, true);
        }
        self.queue(chunk);
        Ok(())
    }

    fn queue(&mut self, chunk: Vec<u8>) {
        if !chunk.is_empty() {
            self.pending.push_back(chunk.into());
        }
    }

    fn line(&self, chunk: &mut Vec<u8>, kind: &str, object: Value) {
        let object = answer::shaped(&self.resource, self.accepted, &self.query, object);
        chunk.extend_from_slice(
            json!({"type": kind, "object": object})
                .to_string()
                .as_bytes(),
        );
        chunk.push(b'\n');
    }

    fn bookmark(&self, chunk: &mut Vec<u8>, initial: bool) {
        let mut metadata =
            json!({"resourceVersion": self.since.to_string(), "creationTimestamp": null});
        if initial {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let (kind, version) = match self.accepted.shape {
            Shape::Partial => (
                "PartialObjectMetadata".to_owned(),
                "meta.k8s.io/v1".to_owned(),
            ),
            _ => (self.resource.kind.clone(), self.resource.api_version()),
        };
        let object = json!({"kind": kind, "apiVersion": version, "metadata": metadata});
        if self.accepted.shape == Shape::Table {
            return self.line(chunk, "BOOKMARK", object);
        }
        chunk.extend_from_slice(
            json!({"type": "BOOKMARK", "object": object})
                .to_string()
                .as_bytes(),
        );
        chunk.push(b'\n');
    }

    /// Queues what has happened since the last chunk.
    fn catch_up(&mut self) {
        self.wake.borrow_and_update();
        let mut chunk = Vec::new();
        match self
            .app
            .service
            .store()
            .events(&self.resource.shelf, self.since)
        {
            Ok((events, version)) => {
                let all = events.len() <= CHUNK;
                for event in events.iter().take(CHUNK) {
                    self.since = event.version;
                    if let Some((kind, object)) = self.filter.translate(&self.resource, event) {
                        self.line(&mut chunk, kind, object);
                    }
                }
                if all {
                    self.since = version;
                } else if chunk.is_empty() {
                    // Nothing of this chunk was for us: come back for the rest at once.
                    self.wake.mark_changed();
                }
            }
            Err(compacted) => return self.expire(compacted.oldest),
        }
        self.queue(chunk);
    }

    /// Ends the watch with the event that makes the client list anew.
    fn expire(&mut self, oldest: u64) {
        let status = ApiError::expired(self.since, oldest).status();
        let mut chunk = json!({"type": "ERROR", "object": status})
            .to_string()
            .into_bytes();
        chunk.push(b'\n');
        self.queue(chunk);
        self.ended = true;
    }

    /// Waits for a change, the next bookmark or the end.
    async fn wait(&mut self) {
        let until = if self.bookmarks {
            self.next_bookmark.min(self.deadline)
        } else {
            self.deadline
        };
        tokio::select! {
            changed = self.wake.changed() => self.ended |= changed.is_err(),
            () = tokio::time::sleep_until(until) => {}
            () = self.app.shutdown.cancelled() => self.ended = true,
        }
        let now = Instant::now();
        self.ended |= now >= self.deadline;
        if self.bookmarks && (now >= self.next_bookmark || self.ended) {
            self.next_bookmark = now + BOOKMARK_EVERY;
            let mut chunk = Vec::new();
            self.bookmark(&mut chunk, false);
            self.queue(chunk);
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use tokio::sync::Semaphore;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::auth::Token;
    use crate::http::path::Target;
    use crate::service::{Service, WriteOptions};
    use crate::store::{HistoryLimit, Limits, Store};

    fn app(directory: &std::path::Path, entries: usize, watches: usize) -> Arc<App> {
        let limits = Limits {
            history: HistoryLimit {
                entries,
                bytes: 1 << 20,
            },
            ..Limits::default()
        };
        let store = Store::open(&directory.join("store.redb"), limits).unwrap();
        Arc::new(App {
            service: Arc::new(Service::new(store, Vec::new())),
            token: Token::new(&"t".repeat(16)).unwrap(),
            watches: Arc::new(Semaphore::new(watches)),
            shutdown: CancellationToken::new(),
        })
    }

    fn watch(app: &Arc<App>, query: &str) -> Result<Response, ApiError> {
        let Some(Target::Collection(address)) = Target::parse("/api/v1/nodes") else {
            panic!("a collection")
        };
        let resource = app.service.registry().find("", "v1", "nodes").unwrap();
        let query = Query::parse(&format!("/?{query}").parse().unwrap());
        let accepted = Accepted::negotiate(&http::HeaderMap::new()).unwrap();
        open(app, resource, accepted, &query, &address)
    }

    async fn make_nodes(app: &Arc<App>, names: std::ops::Range<usize>) {
        let resource = app.service.registry().find("", "v1", "nodes").unwrap();
        for i in names {
            let node = json!({"metadata": {"name": format!("n{i}")}});
            app.service
                .create(&resource, "", node, &WriteOptions::default())
                .await
                .unwrap();
        }
    }

    async fn lines(body: &mut Body) -> Vec<Value> {
        let Some(frame) = body.frame().await else {
            return Vec::new();
        };
        let chunk = frame.unwrap().into_data().unwrap();
        chunk
            .split(|c| *c == b'\n')
            .filter(|l| !l.is_empty())
            .map(|l| serde_json::from_slice(l).unwrap())
            .collect()
    }

    #[tokio::test]
    async fn a_slow_watcher_is_told_so_and_the_others_go_on() {
        let directory = tempfile::tempdir().unwrap();
        let app = app(directory.path(), 4, 8);
        make_nodes(&app, 0..1).await;
        let mut slow = watch(&app, "watch=1").unwrap().into_body();
        let mut quick = watch(&app, "watch=1").unwrap().into_body();
        assert_eq!(lines(&mut slow).await[0]["type"], "ADDED");
        assert_eq!(lines(&mut quick).await.len(), 1);
        for i in 1..10 {
            make_nodes(&app, i..i + 1).await;
            assert_eq!(
                lines(&mut quick).await[0]["object"]["metadata"]["name"],
                format!("n{i}")
            );
        }
        let told = lines(&mut slow).await;
        assert_eq!(
            (&told[0]["type"], &told[0]["object"]["code"]),
            (&json!("ERROR"), &json!(410))
        );
        assert!(slow.frame().await.is_none(), "and then the stream ends");
    }

    #[tokio::test]
    async fn watches_are_limited_and_given_back() {
        let directory = tempfile::tempdir().unwrap();
        let app = app(directory.path(), 4, 1);
        let first = watch(&app, "watch=1").unwrap();
        assert_eq!(watch(&app, "watch=1").unwrap_err().code, 429);
        drop(first);
        assert!(watch(&app, "watch=1").is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn bookmarks_come_every_minute_and_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let app = app(directory.path(), 4, 8);
        let query = "watch=1&allowWatchBookmarks=true&sendInitialEvents=true&timeoutSeconds=90";
        let mut body = watch(&app, query).unwrap().into_body();
        let begun = Instant::now();
        let initial = lines(&mut body).await;
        assert_eq!(
            initial[0]["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
            "true"
        );
        for expected in [60, 90] {
            assert_eq!(lines(&mut body).await[0]["type"], "BOOKMARK");
            assert_eq!(begun.elapsed().as_secs(), expected);
        }
        assert!(body.frame().await.is_none());
    }
}
