//! Locks by name that exist only as long as somebody holds or wants them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::OwnedMutexGuard;

/// Locks by name.
#[derive(Debug, Default)]
pub struct Locks {
    by_name: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

/// Names held; dropping it lets go.
#[derive(Debug)]
pub struct Held {
    _guards: Vec<OwnedMutexGuard<()>>,
}

impl Locks {
    /// Takes the names, one after the other. Callers that take several name them in the same
    /// order.
    pub async fn hold(&self, names: &[String]) -> Held {
        let mut guards = Vec::with_capacity(names.len());
        for name in names {
            guards.push(self.lock_of(name).lock_owned().await);
        }
        Held { _guards: guards }
    }

    fn lock_of(&self, name: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lock) = by_name.get(name).and_then(Weak::upgrade) {
            return lock;
        }
        // Whoever makes a lock clears those that nobody wants any more.
        by_name.retain(|_, lock| lock.strong_count() > 0);
        let lock = Arc::new(tokio::sync::Mutex::new(()));
        by_name.insert(name.to_owned(), Arc::downgrade(&lock));
        lock
    }
}
