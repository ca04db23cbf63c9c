//! Taking away what was there, and nothing else.

use margay_dataplane::{FakeKernel, Route, RouteTarget};
use tempfile::TempDir;

use super::*;
use crate::host::CONFLIST;

fn options(folder: &TempDir) -> UninstallOptions {
    let at = |name: &str| folder.path().join(name);
    UninstallOptions {
        place: CniPlace {
            bin_dir: at("bin"),
            conf_dir: at("net.d"),
            conf_name: CONFLIST.to_owned(),
        },
        run_dir: at("run"),
        state_dir: at("state"),
        network: false,
        patience: 0,
        idle: false,
    }
}

fn files(folder: &TempDir, names: &[&str]) {
    for name in names {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "x").unwrap();
    }
}

#[tokio::test]
async fn our_files_go_and_others_stay() {
    let folder = tempfile::tempdir().unwrap();
    let others = ["bin/portmap", "net.d/20-other.conflist"];
    files(&folder, &others);
    files(&folder, &["bin/margay-cni", "net.d/10-margay.conflist"]);
    files(&folder, &["net.d/.10-margay.conflist.half", "run/cni.sock"]);
    // Pods go on without the agent, and a new one takes them over.
    files(&folder, &["state/lock", "state/endpoints/a"]);
    uninstall(options(&folder)).await.unwrap();
    for there in [&others[..], &["state/endpoints/a"]].concat() {
        assert!(folder.path().join(there).exists(), "{there}");
    }
    for gone in ["bin/margay-cni", "net.d/10-margay.conflist", "run"] {
        assert!(!folder.path().join(gone).exists(), "{gone}");
    }
    assert_eq!(
        fs::read_dir(folder.path().join("net.d")).unwrap().count(),
        1
    );
    // Once more: nothing is there, which is no error.
    uninstall(options(&folder)).await.unwrap();
}

#[tokio::test]
async fn an_agent_that_runs_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    files(&folder, &["state/lock", "bin/margay-cni"]);
    let held = File::open(folder.path().join("state/lock")).unwrap();
    held.lock().unwrap();
    let words = uninstall(options(&folder)).await.unwrap_err().to_string();
    assert!(words.contains("an agent still runs"), "{words}");
    assert!(folder.path().join("bin/margay-cni").exists());
    drop(held);
    uninstall(options(&folder)).await.unwrap();
}

#[tokio::test]
async fn our_interfaces_and_routes_go_and_others_stay() {
    let kernel = FakeKernel::new();
    kernel.add_interface("eth0", 1500, Some("192.0.2.1/24".parse().unwrap()));
    kernel.add_interface("mgy0123456789a", 1500, None);
    kernel.add_interface("mgyhand", 1500, None);
    kernel.add_interface("margay.vxlan", 1450, None);
    let ours = Route::new("10.0.0.0/26".parse().unwrap(), RouteTarget::Blackhole);
    let add = kernel.apply_routes(&[RouteChange::Add(ours)]).await;
    assert!(add.iter().all(Result::is_ok));
    let theirs = Route::new("10.9.0.0/26".parse().unwrap(), RouteTarget::Blackhole);
    kernel.add_foreign_route(theirs, 4);
    assert_eq!(clear_network(&kernel).await, Vec::<String>::new());
    let left: Vec<String> = kernel
        .links()
        .await
        .unwrap()
        .into_iter()
        .map(|one| one.name)
        .collect();
    for (name, stays) in [
        ("eth0", true),
        ("mgyhand", true),
        ("mgy0123456789a", false),
        ("margay.vxlan", false),
    ] {
        assert_eq!(left.iter().any(|one| one == name), stays, "{name}");
    }
    assert_eq!(kernel.routes().await.unwrap(), []);
    assert!(kernel.dump().contains("10.9.0.0/26"), "{}", kernel.dump());
}
