//! What is done to an AS_PATH at the border of the AS.

use crate::config::{LocalAs, RemovePrivateAs};
use crate::types::Asn;
use crate::wire::{AsPath, AsSegment};

/// Everything that decides how the AS_PATH of a route changes when it leaves for an external peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct PathPolicy {
    /// This speaker's AS.
    pub(super) asn: Asn,
    /// The peer's; only where something depends on it, so that peers of many ASes share what they are given.
    pub(super) peer_asn: Option<Asn>,
    pub(super) local_as: Option<LocalAs>,
    pub(super) as_override: bool,
    pub(super) remove_private: Option<RemovePrivateAs>,
}

impl PathPolicy {
    /// The AS that the peer knows this speaker by.
    pub(super) fn presented(&self) -> Asn {
        self.local_as.map_or(self.asn, |local| local.asn)
    }

    /// Whether [`cleaned`](Self::cleaned) does anything.
    pub(super) fn cleans(&self) -> bool {
        self.as_override || self.remove_private.is_some()
    }

    /// The path without what is not to leave. Comes before a filter, whose changes are meant as they are.
    pub(super) fn cleaned(&self, path: &AsPath) -> AsPath {
        let path = match self.remove_private {
            Some(mode) => self.without_private(path, mode),
            None => path.clone(),
        };
        match self.peer_asn.filter(|_| self.as_override) {
            Some(peer) => {
                let replace = |asn| if asn == peer { self.presented() } else { asn };
                mapped(&path, |asn| Some(replace(asn)))
            }
            None => path,
        }
    }

    /// The path as it leaves: with our AS in front.
    pub(super) fn leaving(&self, path: &AsPath) -> AsPath {
        match self.local_as {
            Some(LocalAs {
                asn,
                replace_as: true,
                ..
            }) => path.prepended(asn, 1),
            Some(LocalAs { asn, .. }) => path.prepended(self.asn, 1).prepended(asn, 1),
            None => path.prepended(self.asn, 1),
        }
    }

    fn without_private(&self, path: &AsPath, mode: RemovePrivateAs) -> AsPath {
        let goes = |asn: Asn| asn.is_private() && Some(asn) != self.peer_asn;
        let mut leading = true;
        mapped(path, |asn| {
            leading &= goes(asn);
            match mode {
                _ if !goes(asn) => Some(asn),
                RemovePrivateAs::All => None,
                RemovePrivateAs::Leading if leading => None,
                RemovePrivateAs::Leading => Some(asn),
                RemovePrivateAs::Replace => Some(self.presented()),
            }
        })
    }
}

/// Each AS replaced by what `change` makes of it, segments that become empty left out.
fn mapped(path: &AsPath, mut change: impl FnMut(Asn) -> Option<Asn>) -> AsPath {
    AsPath::new(path.segments().iter().map(|segment| {
        let asns: Vec<Asn> = segment
            .asns()
            .iter()
            .filter_map(|asn| change(*asn))
            .collect();
        match segment {
            AsSegment::Set(_) => AsSegment::Set(asns),
            AsSegment::Sequence(_) => AsSegment::Sequence(asns),
            AsSegment::ConfedSequence(_) => AsSegment::ConfedSequence(asns),
            AsSegment::ConfedSet(_) => AsSegment::ConfedSet(asns),
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLIC: u32 = 3320;

    fn path(numbers: &[u32]) -> AsPath {
        AsPath::sequence(numbers.iter().copied().map(Asn))
    }

    fn policy(change: impl FnOnce(&mut PathPolicy)) -> PathPolicy {
        let mut policy = PathPolicy {
            asn: Asn(1),
            peer_asn: Some(Asn(64600)),
            local_as: None,
            as_override: false,
            remove_private: None,
        };
        change(&mut policy);
        policy
    }

    fn local(no_prepend: bool, replace_as: bool) -> Option<LocalAs> {
        Some(LocalAs {
            asn: Asn(9),
            no_prepend,
            replace_as,
        })
    }

    #[test]
    fn leaving_the_as() {
        use RemovePrivateAs::{All, Leading, Replace};
        type Change = fn(&mut PathPolicy);
        let mixed = [64512, 65534, PUBLIC, 64513, 64600, 4_200_000_000];
        let table: [(Change, &[u32], &str); 14] = [
            (|_| {}, &[], "1"),
            (|_| {}, &[2, 3], "1 2 3"),
            (|p| p.local_as = local(false, false), &[2], "9 1 2"),
            (|p| p.local_as = local(true, false), &[2], "9 1 2"),
            (|p| p.local_as = local(false, true), &[2], "9 2"),
            (|p| p.as_override = true, &[2, 64600, 64600], "1 2 1 1"),
            (
                |p| (p.as_override, p.local_as) = (true, local(false, true)),
                &[64600],
                "9 9",
            ),
            (|p| p.remove_private = Some(All), &mixed, "1 3320 64600"),
            (
                |p| p.remove_private = Some(Leading),
                &mixed,
                "1 3320 64513 64600 4200000000",
            ),
            (
                |p| p.remove_private = Some(Replace),
                &mixed,
                "1 1 1 3320 1 64600 1",
            ),
            (|p| p.remove_private = Some(All), &[64512], "1"),
            (
                |p| p.remove_private = Some(Leading),
                &[64600, 64512],
                "1 64600 64512",
            ),
            (
                |p| (p.remove_private, p.local_as) = (Some(Replace), local(false, true)),
                &[64512, 2],
                "9 9 2",
            ),
            // Not private: the end of the two-octet range, and documentation.
            (
                |p| p.remove_private = Some(All),
                &[65535, 64511],
                "1 65535 64511",
            ),
        ];
        for (change, before, after) in table {
            let policy = policy(change);
            assert_eq!(
                policy.leaving(&policy.cleaned(&path(before))).to_string(),
                after,
                "{policy:?}"
            );
        }
    }

    #[test]
    fn sets_are_changed_too() {
        let path = AsPath::new([
            AsSegment::Sequence(vec![Asn(64512)]),
            AsSegment::Set(vec![Asn(64513), Asn(5)]),
            AsSegment::Set(vec![Asn(64514)]),
        ]);
        let policy = policy(|p| p.remove_private = Some(RemovePrivateAs::All));
        assert_eq!(policy.cleaned(&path).to_string(), "{5}");
    }
}
