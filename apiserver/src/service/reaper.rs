//! Finishing deletions that have consequences: the content of a namespace, the objects of a CRD.

use std::sync::{Arc, Weak};
use std::time::Duration;

use serde_json::Value;

use super::Service;
use crate::object::{self, child, is_terminating, root};
use crate::registry::defaults::CRD_FINALIZER;
use crate::registry::{CRDS, NAMESPACES};
use crate::store::{Expect, Key, Record, Write, WriteError};

/// A pass that failed (somebody wrote in between, the disk is full) is repeated after this time.
const RETRY: Duration = Duration::from_secs(1);

/// Runs until the service is dropped.
pub(crate) async fn reap(service: Weak<Service>) {
    let mut clean = false;
    loop {
        let Some(strong) = service.upgrade() else {
            return;
        };
        if clean {
            // Waiting holds the service only for a while, so that dropping it ends this task.
            let _ = tokio::time::timeout(RETRY, strong.reaping.notified()).await;
        } else {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        clean = match strong.reap_once().await {
            Ok(()) => true,
            Err(WriteError::Closed) => return,
            Err(WriteError::Stale(_) | WriteError::Missing) => false,
            Err(error) => {
                tracing::warn!(%error, "cannot finish deletions, trying again");
                drop(strong);
                tokio::time::sleep(RETRY).await;
                false
            }
        };
    }
}

impl Service {
    async fn reap_once(&self) -> Result<(), WriteError> {
        for record in self.store.list(NAMESPACES, None, None).records {
            if is_terminating(&record.object) {
                self.reap_namespace(&record).await?;
            }
        }
        for record in self.store.list(CRDS, None, None).records {
            if is_terminating(&record.object)
                && object::finalizers(&record.object).contains(&CRD_FINALIZER)
            {
                self.reap_definition(&record).await?;
            }
        }
        Ok(())
    }

    async fn reap_namespace(&self, namespace: &Record) -> Result<(), WriteError> {
        let name = object::name(&namespace.object);
        self.reap_all(self.store.in_namespace(name)).await?;
        if self.store.in_namespace(name).is_empty()
            && object::finalizers(&namespace.object).is_empty()
        {
            let key = Key::new(NAMESPACES, "", name);
            let write = Write {
                key,
                expect: Expect::Version(namespace.version),
                put: None,
                requires: Vec::new(),
            };
            self.store.write(write).await?;
        }
        Ok(())
    }

    async fn reap_definition(&self, definition: &Record) -> Result<(), WriteError> {
        let shelf = object::name(&definition.object);
        let members = || {
            let records = self.store.list(shelf, None, None).records;
            let key =
                |r: &Record| Key::new(shelf, object::namespace(&r.object), object::name(&r.object));
            records
                .into_iter()
                .map(|record| (key(&record), record))
                .collect::<Vec<_>>()
        };
        self.reap_all(members()).await?;
        if !members().is_empty() {
            return Ok(());
        }
        let mut object = definition.object.clone();
        if let Some(Value::Array(list)) = child(root(&mut object), "metadata").get_mut("finalizers")
        {
            list.retain(|each| each != CRD_FINALIZER);
        }
        let put = (!object::finalizers(&object).is_empty())
            .then(|| Record::new(object, definition.applied.clone()));
        let write = Write {
            key: Key::new(CRDS, "", shelf),
            expect: Expect::Version(definition.version),
            put,
            requires: Vec::new(),
        };
        self.store.write(write).await.map(drop)
    }

    async fn reap_all(&self, records: Vec<(Key, Arc<Record>)>) -> Result<(), WriteError> {
        let registry = self.registry();
        for (key, record) in records {
            if is_terminating(&record.object) && !object::finalizers(&record.object).is_empty() {
                continue;
            }
            let Some(resource) = registry.by_shelf(&key.resource) else {
                continue;
            };
            match self.delete_stored(&resource, key, &record).await {
                Ok(_) | Err(WriteError::Missing) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
