//! What requests ask for beside any address: both families or none, pools and addresses by name,
//! namespaces, reservations, other nodes' blocks.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use margay_crds::{AllowedUse, IpamSettings, Pool};
use margay_ipam::memory::Fault;
use margay_ipam::{
    Allocator, BlockEvent, Family, IpamError, MemoryStore, Ranges, Release, Request, Source,
    Timestamp, Want,
};
use serde_json::json;
use support::{PausedClock, owner, pool};

fn from(source: Source) -> Want {
    Want {
        source,
        origin: "annotation a of Pod default/p".into(),
        ..Want::automatic(Family::V4)
    }
}

fn address(text: &str) -> Source {
    Source::Address(text.parse().unwrap())
}

fn pools_named(names: &[&str]) -> Source {
    Source::Pools(names.iter().map(|name| (*name).to_owned()).collect())
}

struct Node {
    store: Arc<MemoryStore>,
    allocator: Allocator,
    seen: usize,
}

impl Node {
    fn new(name: &str, store: &Arc<MemoryStore>, pools: Vec<Pool>) -> Self {
        let clock = PausedClock(tokio::time::Instant::now());
        let (allocator, worker) = Allocator::new(name, Arc::clone(store), clock);
        tokio::spawn(worker.run());
        allocator.set_pools(pools);
        allocator.handle_block_event(BlockEvent::List(store.list()));
        Self {
            store: Arc::clone(store),
            allocator,
            seen: store.position(),
        }
    }

    /// What the watch would have told by now.
    fn catch_up(&mut self) {
        for event in self.store.events_since(self.seen) {
            self.seen += 1;
            self.allocator.handle_block_event(event);
        }
    }

    async fn ask(&self, name: &str, wants: Vec<Want>) -> Result<Vec<IpAddr>, IpamError> {
        let request = Request {
            wants,
            ..Request::pod(owner(name), [])
        };
        let assigned = self.allocator.assign_all(request).await?;
        Ok(assigned.iter().map(|one| one.address).collect())
    }

    async fn any(&self, name: &str) -> Result<IpAddr, IpamError> {
        let assigned = self.allocator.assign(owner(name), Family::V4).await?;
        Ok(assigned.address)
    }

    async fn refusal(&self, name: &str, source: Source) -> String {
        let error = self.ask(name, vec![from(source)]).await.unwrap_err();
        error.to_string()
    }

    fn held(&self) -> usize {
        let blocks = self.store.list();
        blocks
            .iter()
            .map(|block| block.spec.allocations.len())
            .sum()
    }
}

fn both() -> Vec<Want> {
    vec![Want::automatic(Family::V4), Want::automatic(Family::V6)]
}

#[tokio::test(start_paused = true)]
async fn both_families_or_none() {
    let store = Arc::default();
    let pools = vec![
        pool("four", json!({"cidr": "10.0.0.0/24"})),
        pool("six", json!({"cidr": "fd00::/127", "blockSize": 127})),
    ];
    let node = Node::new("n1", &store, pools);
    for name in ["a", "b"] {
        let addresses = node.ask(name, both()).await.unwrap();
        assert!(addresses[0].is_ipv4() && addresses[1].is_ipv6());
    }
    // What cannot be had in full is not begun.
    let writes = store.writes();
    let error = node.ask("c", both()).await.unwrap_err();
    assert!(matches!(
        error,
        IpamError::Exhausted {
            family: Family::V6,
            ..
        }
    ));
    assert_eq!((store.writes(), node.held()), (writes, 4));
    // Two at once for the last one of a family: one has both, the other nothing.
    node.allocator
        .release(Release::Holder(owner("a")))
        .await
        .unwrap();
    let (left, right) = tokio::join!(node.ask("d", both()), node.ask("e", both()));
    assert!(left.is_ok() != right.is_ok());
    assert_eq!(node.held(), 4);
}

#[tokio::test(start_paused = true)]
async fn what_is_lost_half_way_is_given_back() {
    let store = Arc::default();
    let pools = vec![
        pool("four", json!({"cidr": "10.0.0.0/24"})),
        pool("six", json!({"cidr": "fd00::/127", "blockSize": 127})),
    ];
    let node = Node::new("n1", &store, pools.clone());
    // The claim of the IPv6 block is refused as if another had it, and then another has it.
    let other = Node::new("n2", &store, pools);
    node.any("first").await.unwrap();
    store.inject([None]);
    let taken = other.ask("x", vec![Want::automatic(Family::V6)]).await;
    assert!(taken.is_ok());
    node.allocator.set_settings(IpamSettings {
        strict_affinity: true,
        ..IpamSettings::default()
    });
    let error = node.ask("p", both()).await.unwrap_err();
    assert!(
        matches!(
            error,
            IpamError::Exhausted {
                family: Family::V6,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(node.held(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_full_node_borrows_from_the_block_with_most_room() {
    let store = Arc::default();
    let pools = || vec![pool("p", json!({"cidr": "10.0.0.0/29", "blockSize": 30}))];
    let mut lender = Node::new("n1", &store, pools());
    let mut other = Node::new("n2", &store, pools());
    other.catch_up();
    lender.any("a").await.unwrap();
    other.catch_up();
    for name in ["b", "c"] {
        other.any(name).await.unwrap();
    }
    let mut late = Node::new("n3", &store, pools());
    let writes = (store.writes(), store.reads());
    let borrowed = late.any("d").await.unwrap();
    assert_eq!(
        (store.writes() - writes.0, store.reads() - writes.1),
        (1, 1)
    );
    // It is in the block with three free addresses, and says who uses it where.
    lender.catch_up();
    let lent = |node: &Node| {
        let lent = |view: &margay_ipam::View| {
            let lent = view.lent();
            lent.map(|(address, node)| (address, node.to_owned()))
                .collect::<Vec<_>>()
        };
        node.allocator.with_view(lent)
    };
    assert_eq!(lent(&lender), [(borrowed, "n3".to_owned())]);
    let borrows = |node: &Node| {
        node.allocator
            .with_view(|view| view.borrowed().collect::<Vec<_>>())
    };
    assert_eq!(borrows(&late), [borrowed]);
    assert!(borrows(&lender).is_empty());
    // Neither the lender's list of sandboxes nor its tidying takes it away.
    let which = Release::AllBut {
        attachments: std::collections::HashSet::default(),
        before: Timestamp::from_second(1_900_000_000).unwrap(),
    };
    assert_eq!(lender.allocator.release(which).await.unwrap().len(), 1);
    assert_eq!(node_of(&store, borrowed).as_deref(), Some("n3"));
    // Who asks again gets the same; a restarted agent finds it.
    assert_eq!(late.any("d").await, Ok(borrowed));
    let again = Node::new("n3", &store, pools());
    assert_eq!(again.any("d").await, Ok(borrowed));
    late.catch_up();
    let freed = late.allocator.release(Release::Holder(owner("d"))).await;
    assert_eq!(freed.unwrap(), [borrowed]);
    assert!(borrows(&late).is_empty());

    again.allocator.set_settings(IpamSettings {
        strict_affinity: true,
        ..IpamSettings::default()
    });
    let error = again.any("e").await.unwrap_err();
    assert!(matches!(error, IpamError::Exhausted { .. }));
}

fn node_of(store: &MemoryStore, address: IpAddr) -> Option<String> {
    let blocks = store.list();
    let mut all = blocks.iter().flat_map(|block| &block.spec.allocations);
    let found = all.find(|one| one.address == address.to_string())?;
    Some(found.owner.node.clone())
}

#[tokio::test(start_paused = true)]
async fn a_lender_that_fills_up_meanwhile_costs_a_try() {
    let store = Arc::default();
    let pools = || vec![pool("p", json!({"cidr": "10.0.0.0/31", "blockSize": 31}))];
    let lender = Node::new("n1", &store, pools());
    lender.any("a").await.unwrap();
    let mut late = Node::new("n2", &store, pools());
    // The borrower's view still shows room.
    lender.any("b").await.unwrap();
    let error = late.any("c").await.unwrap_err();
    assert!(matches!(error, IpamError::Exhausted { .. }), "{error}");
    lender
        .allocator
        .release(Release::Holder(owner("b")))
        .await
        .unwrap();
    late.catch_up();
    store.inject([None, Some(Fault::Conflict)]);
    assert!(late.any("c").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn addresses_by_name() {
    let store = Arc::default();
    let pools = || {
        vec![
            pool("p", json!({"cidr": "10.0.0.0/24"})),
            pool("off", json!({"cidr": "10.1.0.0/24", "disabled": true})),
            pool(
                "services",
                json!({"cidr": "10.2.0.0/24", "allowedUses": ["LoadBalancer"]}),
            ),
        ]
    };
    let node = Node::new("n1", &store, pools());
    // The block around it is claimed for it.
    let given = node.ask("a", vec![from(address("10.0.0.77"))]).await;
    assert_eq!(given, Ok(vec!["10.0.0.77".parse().unwrap()]));
    assert_eq!(store.list()[0].spec.cidr, "10.0.0.64/26");
    let who = "annotation a of Pod default/p asks for";
    let cases = [
        ("10.0.0.77", "10.0.0.77, but pod default/a holds it"),
        ("10.9.0.1", "10.9.0.1, but no IPPool contains it"),
        ("10.1.0.1", "10.1.0.1, but IPPool off is disabled"),
        (
            "10.2.0.1",
            "10.2.0.1, but allowedUses of IPPool services (LoadBalancer) lack Workload",
        ),
    ];
    for (wanted, problem) in cases {
        assert_eq!(
            node.refusal("b", address(wanted)).await,
            format!("{who} {problem}")
        );
    }
    // An earlier sandbox of the same pod is about to go.
    let mut again = owner("a");
    again.container_id = "c-later".into();
    let request = Request {
        wants: vec![from(address("10.0.0.77"))],
        ..Request::pod(again, [])
    };
    let error = node.allocator.assign_all(request).await.unwrap_err();
    assert!(error.is_transient() && !error.is_request_wrong(), "{error}");

    // In another node's block it is borrowed, if that is allowed.
    let other = Node::new("n2", &store, pools());
    let given = other.ask("c", vec![from(address("10.0.0.78"))]).await;
    assert_eq!(given, Ok(vec!["10.0.0.78".parse().unwrap()]));
    assert_eq!(
        node_of(&store, "10.0.0.78".parse().unwrap()).as_deref(),
        Some("n2")
    );
    other.allocator.set_settings(IpamSettings {
        strict_affinity: true,
        ..IpamSettings::default()
    });
    assert_eq!(
        other.refusal("d", address("10.0.0.79")).await,
        format!(
            "{who} 10.0.0.79, but IPAMBlock 10-0-0-64-26 around it is node n1's, the pod is on \
             node n2, and strictAffinity is true in IPAMConfiguration default"
        )
    );
}

#[tokio::test(start_paused = true)]
async fn pools_by_name() {
    let store = Arc::default();
    let pools = vec![
        pool("a", json!({"cidr": "10.0.0.0/24"})),
        pool(
            "manual",
            json!({"cidr": "10.1.0.0/24", "assignmentMode": "Manual", "nodeSelector": "has(no)"}),
        ),
        pool("off", json!({"cidr": "10.2.0.0/24", "disabled": true})),
        pool("six", json!({"cidr": "fd00::/64"})),
    ];
    let node = Node::new("n1", &store, pools);
    assert!(
        node.any("a")
            .await
            .unwrap()
            .to_string()
            .starts_with("10.0.")
    );
    for (pod, name) in [("b", "manual"), ("c", "10.1.0.0/24")] {
        let given = node.ask(pod, vec![from(pools_named(&["off", name]))]).await;
        assert!(given.unwrap()[0].to_string().starts_with("10.1."));
    }
    let who = "annotation a of Pod default/p asks for IPPool";
    let cases = [
        (
            "none",
            "none, but there are only the IPPools a, manual, off, six",
        ),
        ("six", "six, but that is fd00::/64, no IPv4 pool"),
        ("off", "off, but IPPool off is disabled"),
    ];
    for (name, problem) in cases {
        assert_eq!(
            node.refusal("d", pools_named(&[name])).await,
            format!("{who} {problem}")
        );
    }
}

#[tokio::test(start_paused = true)]
async fn pools_for_namespaces_and_for_tunnels() {
    let store = Arc::default();
    let pools = vec![
        pool(
            "red",
            json!({"cidr": "10.1.0.0/24", "allowedUses": ["Workload"],
                "namespaceSelector": "team == 'red'"}),
        ),
        pool(
            "tunnels",
            json!({"cidr": "10.2.0.0/24", "allowedUses": ["Tunnel"]}),
        ),
    ];
    let node = Node::new("n1", &store, pools);
    let error = node.any("a").await.unwrap_err().to_string();
    assert!(
        error.contains("namespaceSelector of IPPool red (team == 'red') does not select"),
        "{error}"
    );
    assert!(
        error.contains("allowedUses of IPPool tunnels (Tunnel) lack Workload"),
        "{error}"
    );
    let labels = BTreeMap::from([("team".to_owned(), "red".to_owned())]);
    assert_eq!(node.allocator.families(Some(&labels)), [Family::V4].into());
    let request = Request {
        namespace_labels: Some(Arc::new(labels)),
        ..Request::pod(owner("a"), [Family::V4])
    };
    let given = node.allocator.assign_all(request).await.unwrap();
    assert_eq!(given[0].pool.as_deref(), Some("red"));
    let tunnel = Request::tunnel("n1", "margay.ipip", Family::V4);
    assert_eq!(tunnel.purpose, AllowedUse::Tunnel);
    let given = node.allocator.assign_all(tunnel.clone()).await.unwrap();
    assert_eq!(given[0].pool.as_deref(), Some("tunnels"));
    assert_eq!(node.allocator.assign_all(tunnel).await, Ok(given));
    // A runtime's list of sandboxes does not take the tunnel's address away.
    let which = Release::AllBut {
        attachments: std::collections::HashSet::default(),
        before: Timestamp::from_second(1_900_000_000).unwrap(),
    };
    assert_eq!(node.allocator.release(which).await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn reserved_addresses_are_for_who_names_them() {
    let store = Arc::default();
    let node = Node::new(
        "n1",
        &store,
        vec![pool("p", json!({"cidr": "10.0.0.0/29", "blockSize": 31}))],
    );
    let reserved = ["10.0.0.0/30", "10.0.0.4/31", "10.0.0.6/32"];
    let reserved = reserved.map(|range| range.parse().unwrap());
    node.allocator.set_reserved(Ranges::of(reserved));
    // No block is claimed in which there is nothing to give.
    assert_eq!(node.any("a").await, Ok("10.0.0.7".parse().unwrap()));
    assert!(matches!(
        node.any("b").await,
        Err(IpamError::Exhausted { .. })
    ));
    assert_eq!(store.list().len(), 1);
    let given = node.ask("c", vec![from(address("10.0.0.6"))]).await;
    assert!(given.is_ok());
}

#[tokio::test(start_paused = true)]
async fn blocks_made_by_hand_are_used_and_no_others() {
    let store = Arc::default();
    let node = Node::new(
        "n1",
        &store,
        vec![pool("p", json!({"cidr": "10.0.0.0/24"}))],
    );
    node.allocator.set_settings(IpamSettings {
        auto_allocate_blocks: false,
        strict_affinity: true,
        ..IpamSettings::default()
    });
    let error = node.any("a").await.unwrap_err();
    assert!(
        error.to_string().contains("make an IPAMBlock for the node"),
        "{error}"
    );
    let by_hand = margay_ipam::NodeBlock::claim("10.0.0.128/26".parse().unwrap(), "n1");
    let stored = store.put(by_hand.object().clone()).unwrap();
    node.allocator.handle_block_event(BlockEvent::Apply(stored));
    assert_eq!(node.any("a").await, Ok("10.0.0.128".parse().unwrap()));
}
