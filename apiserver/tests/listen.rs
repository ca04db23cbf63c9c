//! Listening elsewhere: in another network namespace, and on an inherited descriptor, both at once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod common;

use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::ListParams;
use margay_apiserver::ListenAddress;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A network namespace named after the test, deleted when dropped.
struct Netns(&'static str);

impl Netns {
    fn new(name: &'static str) -> Self {
        let _ = Command::new("ip").args(["netns", "del", name]).output();
        for arguments in [
            &["netns", "add", name][..],
            &["-n", name, "link", "set", "lo", "up"],
        ] {
            let status = Command::new("ip").args(arguments).status().unwrap();
            assert!(status.success(), "ip {arguments:?}");
        }
        Self(name)
    }

    fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(self.0)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", self.0]).status();
    }
}

fn connects_within(namespace: &Path, address: SocketAddr) -> bool {
    let namespace = File::open(namespace).unwrap();
    let connecting = std::thread::spawn(move || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        TcpStream::connect_timeout(&address, Duration::from_secs(2)).is_ok()
    });
    connecting.join().unwrap()
}

#[tokio::test]
async fn another_namespace_and_an_inherited_descriptor() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED (needs root): another_namespace_and_an_inherited_descriptor");
        assert_ne!(
            std::env::var("MARGAY_REQUIRE_PRIVILEGED").as_deref(),
            Ok("1"),
            "root is required"
        );
        return;
    }
    let namespace = Netns::new("mgy-apiserver-listen");
    let inside: SocketAddr = "127.0.0.1:16999".parse().unwrap();
    let inherited = TcpListener::bind("127.0.0.1:0").unwrap();
    let number = u32::try_from(inherited.as_raw_fd()).unwrap();
    let rig = common::start(|builder| {
        builder
            .listen(ListenAddress::Descriptor(number))
            .listen(ListenAddress::Namespace(namespace.path(), inside))
    })
    .await;
    let addresses = rig.server.addresses();
    assert_eq!(addresses[1], inherited.local_addr().unwrap());
    assert_eq!(addresses[2], inside);
    assert!(connects_within(&namespace.path(), inside));
    assert!(
        TcpStream::connect_timeout(&inside, Duration::from_secs(2)).is_err(),
        "only inside"
    );

    // The server answers on the inherited socket too, under the same certificate.
    let kubeconfig = std::fs::read_to_string(rig.server.kubeconfig()).unwrap();
    let moved = kubeconfig.replace(&addresses[0].to_string(), &addresses[1].to_string());
    let config = kube::config::Kubeconfig::from_yaml(&moved).unwrap();
    let config = kube::Config::from_custom_kubeconfig(config, &Default::default())
        .await
        .unwrap();
    let api: Api<Namespace> = Api::all(kube::Client::try_from(config).unwrap());
    assert_eq!(
        api.list(&ListParams::default()).await.unwrap().items.len(),
        2
    );
    rig.server.stop().await;
}
