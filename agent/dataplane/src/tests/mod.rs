//! The dataplane against the kernel in memory.

mod apply;
mod pod;
mod tables;

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn net(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

fn direct(next_hops: &[&str]) -> RouteKind {
    RouteKind::Direct {
        next_hops: next_hops.iter().map(|text| ip(text)).collect(),
    }
}

fn tunnel(mode: TunnelMode, next_hops: &[&str]) -> RouteKind {
    RouteKind::Tunnel {
        device: mode.device().to_owned(),
        next_hops: next_hops.iter().map(|text| ip(text)).collect(),
    }
}

/// A node at 192.0.2.1/24 on eth0 and its dataplane, with settings in a folder.
struct Node {
    kernel: FakeKernel,
    dataplane: Dataplane<FakeKernel>,
    folder: tempfile::TempDir,
}

impl Node {
    fn new() -> Self {
        let kernel = FakeKernel::new();
        kernel.add_interface("eth0", 1500, Some(net("192.0.2.1/24")));
        let folder = tempfile::tempdir().unwrap();
        let node = Self {
            dataplane: Dataplane::with_sysctls(kernel.clone(), SysctlTree::new(folder.path())),
            kernel,
            folder,
        };
        for key in [
            "net/ipv4/ip_forward",
            "net/ipv4/conf/margay.vxlan/rp_filter",
            "net/ipv4/conf/margay.ipip/rp_filter",
        ] {
            node.write(key, "0");
        }
        node
    }

    fn tree(&self) -> SysctlTree {
        SysctlTree::new(self.folder.path())
    }

    fn write(&self, key: &str, value: &str) {
        let path = self.folder.path().join(key);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, format!("{value}\n")).unwrap();
    }

    async fn plan(&mut self, desired: &DesiredState) -> String {
        self.dataplane.plan(desired).await.unwrap().to_string()
    }

    async fn apply(&mut self, desired: &DesiredState) -> String {
        self.dataplane.apply(desired).await.to_string()
    }
}

/// What a node of a cluster with one other node, behind a router, wants.
fn cluster() -> DesiredState {
    let mut desired = DesiredState {
        sysctls: DesiredSysctls::for_node(true, false),
        tunnels: vec![TunnelSpec::new(TunnelMode::Vxlan, ip("192.0.2.1"), 1500).unwrap()],
        vxlan_peers: vec![VxlanPeer::new(ip("198.51.100.7"))],
        ..DesiredState::default()
    };
    let routes = &mut desired.routes;
    routes.insert(net("10.1.0.0/26"), RouteKind::Blackhole);
    routes.insert(net("10.2.0.0/26"), direct(&["192.0.2.2"]));
    routes.insert(
        net("10.7.0.0/26"),
        tunnel(TunnelMode::Vxlan, &["198.51.100.7"]),
    );
    desired
}
