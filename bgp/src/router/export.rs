//! Which routes peers are given for a destination, if any. What is made of them is in [`super::attributes`].

use std::borrow::Cow;
use std::collections::HashMap;

use super::attributes::{ExportKey, Passed, Provenance, add};
use crate::policy::{Operation, Refusal};
use crate::rib::{Path, Rib, Route, RouteId, Source};
use crate::types::{Community, Family, Prefix};

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
    index: HashMap<(RouteId, Provenance, bool), usize>,
    /// The last one asked for: neighbours in the table are mostly alike.
    last: Option<(RouteId, Source, bool, usize)>,
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
        let stale = path.is_long_lived_stale();
        let from = || Provenance::of(source, rib.neighbor(source));
        let read = || marked(rib.route(id), stale);
        let mut decoded = None;
        let at = match self.last {
            Some((last, giver, same, at)) if (last, giver, same) == (id, source, stale) => at,
            _ => {
                let from = from();
                match self.index.get(&(id, from, stale)) {
                    Some(at) => *at,
                    None => {
                        // Attributes are read out of octets: once is enough.
                        let route = decoded.insert(read());
                        self.known.push(Known {
                            passed: key.may_pass(from, route),
                            made: Vec::new(),
                        });
                        self.index.insert((id, from, stale), self.known.len() - 1);
                        self.known.len() - 1
                    }
                }
            }
        };
        self.last = Some((id, source, stale, at));
        let Known { passed, made } = self.known.get_mut(at)?;
        let operations = key.filter(passed.as_ref().ok()?, prefix).ok()?;
        let same = |known: &&(*const [Operation], Family, Option<usize>)| {
            std::ptr::eq(known.0, operations) && known.1 == family
        };
        if let Some((_, _, result)) = made.iter().find(same) {
            return *result;
        }
        let route = decoded.unwrap_or_else(read);
        let result = key.make(from(), &route, operations, family).ok();
        let result = result.map(|route| {
            self.made.push(route);
            self.made.len() - 1
        });
        made.push((&raw const *operations, family, result));
        result
    }
}

/// The route as it is to be told of: one that is kept beyond its sender's restart says so (RFC 9494 section 4.2).
fn marked(mut route: Cow<'_, Route>, stale: bool) -> Cow<'_, Route> {
    if stale {
        add(
            &mut route.to_mut().attributes.communities,
            Community::LLGR_STALE,
        );
    }
    route
}
