//! A table in memory, for tests of whatever commits policy.

use std::sync::{Mutex, PoisonError};

use super::{Applied, Writer};
use crate::ruleset::{Ruleset, Transaction};

/// Keeps the table that the transactions so far lead to, refusing what the kernel would refuse.
#[derive(Debug, Default)]
pub struct Memory {
    state: Mutex<(Ruleset, usize)>,
}

impl Memory {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// The table now.
    pub fn table(&self) -> Ruleset {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .0
            .clone()
    }

    /// How many transactions were committed; empty ones do not count.
    pub fn commits(&self) -> usize {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1
    }
}

impl Writer for Memory {
    fn apply<'a>(&'a self, transaction: &'a Transaction) -> Applied<'a> {
        Box::pin(async move {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if !transaction.is_empty() {
                state.0 = transaction.replay(&state.0)?;
                state.1 += 1;
            }
            Ok(())
        })
    }
}
