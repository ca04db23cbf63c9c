//! The ways to a destination: which next hops, and which share of the traffic each of them takes; and what is known of
//! reaching them.

use std::net::IpAddr;

use super::Router;
use crate::config::SpeakerConfig;
use crate::rib::{self, Rib};

use super::view::BestPath;

/// The largest weight: what the kernel takes for one next hop.
const HEAVIEST: u8 = 255;

impl Router {
    /// Sets what it costs to reach a next hop (RFC 4271 section 9.1.2.1); `None`: it cannot be reached, and no path over it
    /// is used. A next hop that was never told of is reachable at cost 0. Walks the table if that is news; for several next
    /// hops use [`set_next_hop_costs`](Self::set_next_hop_costs).
    pub fn set_next_hop_cost(&mut self, next_hop: IpAddr, cost: Option<u32>) {
        self.set_next_hop_costs([(next_hop, cost)]);
    }

    /// Sets what it costs to reach several next hops, in one walk over the table, whose end a large one does not wait for.
    pub fn set_next_hop_costs(&mut self, costs: impl IntoIterator<Item = (IpAddr, Option<u32>)>) {
        let task = self.rib.new_costs(costs);
        self.begin_any(task);
    }

    /// Applies a changed choice of paths to use beside the best.
    pub(super) fn change_multipath(&mut self, old: &SpeakerConfig) {
        let multipath = self.config.multipath;
        let task = self.rib.new_multipath(rib::Multipath {
            max: multipath.max.into(),
            relax: multipath.relax,
        });
        self.begin_any(task);
        if old.multipath.weight_by_link_bandwidth != multipath.weight_by_link_bandwidth {
            let subscribers: Vec<_> = self.subscribers.keys().copied().collect();
            for id in subscribers {
                self.feed_subscriber_again(id);
            }
        }
    }
}

/// Gives the ways their weights, in proportion to their bandwidth. Where one does not tell its bandwidth nobody knows the
/// proportion: then, and where all have the same, the weights are 1.
pub(super) fn weigh(paths: &mut [BestPath], bandwidths: &[Option<f32>]) {
    let Some(bandwidths) = bandwidths.iter().copied().collect::<Option<Vec<f32>>>() else {
        return;
    };
    let largest = bandwidths.iter().copied().fold(0.0, f32::max);
    if largest <= 0.0 {
        return;
    }
    // From 1 to 255: a float converted to an integer stays within its bounds.
    let scale = |bandwidth: &f32| (bandwidth / largest * f32::from(HEAVIEST)).round() as u8;
    let weights: Vec<u8> = bandwidths.iter().map(|b| scale(b).max(1)).collect();
    let divisor = weights.iter().copied().fold(0, greatest_common_divisor);
    for (path, weight) in paths.iter_mut().zip(weights) {
        path.weight = weight.checked_div(divisor).unwrap_or(1);
    }
}

fn greatest_common_divisor(a: u8, b: u8) -> u8 {
    let (mut a, mut b) = (a, b);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// The bandwidth of a path's way, in octets a second.
pub(super) fn bandwidth(rib: &Rib, path: &rib::Path) -> Option<f32> {
    rib.facts(path.effective())
        .and_then(|facts| facts.bandwidth)
}
