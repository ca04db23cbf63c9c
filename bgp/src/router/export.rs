//! Which routes peers are given for a destination, if any. What is made of them is in [`super::attributes`].

use std::collections::HashMap;

use super::attributes::{ExportKey, Passed, Provenance};
use crate::policy::{Operation, Refusal};
use crate::rib::{Path, Rib, Route, RouteId, Source};
use crate::types::{Family, Prefix};

/// What there is to say about an attribute set and where it came from.
struct Known {
    passed: Result<Passed, Refusal>,
    /// What it was made into, for the operations of a filter and the family, which our own next hop depends on.
    made: Vec<(*const [Operation], Family, Option<usize>)>,
}

/// What is given to peers with the same key, worked out for a batch of destinations. Equal recipes share one result.
///
/// Only for as long as the RIB stays as it is.
#[derive(Default)]
pub(super) struct Export {
    known: Vec<Known>,
    index: HashMap<(RouteId, Provenance), usize>,
    /// The last one asked for: neighbours in the table are mostly alike.
    last: Option<(RouteId, Source, usize)>,
    made: Vec<Route>,
}

impl Export {
    /// How many different attribute sets were made.
    pub(super) fn made(&self) -> &[Route] {
        &self.made
    }

    /// What peers are given for a path: the place in [`made`](Self::made), or `None` if nothing. Without regard to who the
    /// path came from and who is its next hop: neither of them is to be told.
    pub(super) fn route(
        &mut self,
        key: &ExportKey,
        rib: &Rib,
        prefix: &Prefix,
        path: &Path,
    ) -> Option<usize> {
        let family = prefix.family();
        if !key.carries(family) {
            return None;
        }
        let (id, source) = (path.effective(), path.source());
        let from = || Provenance::of(source, rib.neighbor(source));
        let mut decoded = None;
        let at = match self.last {
            Some((last, giver, at)) if last == id && giver == source => at,
            _ => {
                let from = from();
                match self.index.get(&(id, from)) {
                    Some(at) => *at,
                    None => {
                        // Attributes are read out of octets: once is enough.
                        let route = decoded.insert(rib.route(id));
                        self.known.push(Known {
                            passed: key.may_pass(from, route),
                            made: Vec::new(),
                        });
                        self.index.insert((id, from), self.known.len() - 1);
                        self.known.len() - 1
                    }
                }
            }
        };
        self.last = Some((id, source, at));
        let Known { passed, made } = self.known.get_mut(at)?;
        let operations = key.filter(passed.as_ref().ok()?, prefix).ok()?;
        let same = |known: &&(*const [Operation], Family, Option<usize>)| {
            std::ptr::eq(known.0, operations) && known.1 == family
        };
        if let Some((_, _, result)) = made.iter().find(same) {
            return *result;
        }
        let route = decoded.unwrap_or_else(|| rib.route(id));
        let result = key.make(from(), &route, operations, family).ok();
        let result = result.map(|route| {
            self.made.push(route);
            self.made.len() - 1
        });
        made.push((&raw const *operations, family, result));
        result
    }
}
