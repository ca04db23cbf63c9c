//! The communities of what is announced, by BGPConfiguration's `prefixAdvertisements`.

use margay_bgp::speaker::Announcement;
use margay_bgp::types::{Community, LargeCommunity, Prefix};
use margay_crds::{CommunityValue, PrefixAdvertisement};

/// The announcement of a prefix: it carries the communities of every entry it lies within.
pub fn announcement(prefix: &Prefix, advertisements: &[PrefixAdvertisement]) -> Announcement {
    let mut announcement = Announcement::default();
    let within = |entry: &&PrefixAdvertisement| Prefix::from(entry.cidr).contains(prefix);
    for entry in advertisements.iter().filter(within) {
        for community in &entry.communities {
            match *community {
                CommunityValue::Standard(asn, value) => {
                    let community = Community(u32::from(asn) << 16 | u32::from(value));
                    announcement.communities.insert(community);
                }
                CommunityValue::Large(global, local1, local2) => {
                    announcement.large_communities.insert(LargeCommunity {
                        global,
                        local1,
                        local2,
                    });
                }
            }
        }
    }
    announcement
}
