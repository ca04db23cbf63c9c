//! How many connections one address may have at a time: a listener's protection against whoever opens them faster than they
//! are closed.
//!
//! A peer needs two at most (RFC 4271 section 6.8), and for a moment those that are being closed. What counts are connections
//! that were accepted, from then until their last octet is gone, with or without a session on them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Accepted connections of one address at a time.
pub(super) const LIMIT: usize = 8;

/// Counts of the connections there are.
#[derive(Debug, Clone, Default)]
pub(super) struct Admission(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One connection's place; free again when this is dropped.
#[derive(Debug)]
pub(super) struct Ticket {
    admission: Admission,
    address: IpAddr,
}

impl Admission {
    /// A place for one more connection from an address, unless it has [`LIMIT`] already.
    pub(super) fn admit(&self, address: IpAddr) -> Option<Ticket> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= LIMIT {
            return None;
        }
        *count += 1;
        Some(Ticket {
            admission: self.clone(),
            address,
        })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let counts = &self.admission.0;
        let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_limited_for_each_address_and_given_back() {
        let admission = Admission::default();
        let [one, other] = [[10, 0, 0, 1], [10, 0, 0, 2]].map(IpAddr::from);
        let mut tickets: Vec<_> = (0..LIMIT).map(|_| admission.admit(one)).collect();
        assert!(tickets.iter().all(Option::is_some));
        assert!(admission.admit(one).is_none());
        assert!(admission.admit(other).is_some());
        tickets.pop();
        assert!(admission.admit(one).is_some());
        drop(tickets);
        assert!(admission.0.lock().unwrap().is_empty());
    }
}
