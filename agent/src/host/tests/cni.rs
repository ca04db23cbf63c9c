//! The plugin and its configuration in folders of the test's own.

use std::os::unix::fs::MetadataExt;

use tempfile::TempDir;

use super::*;

struct Node {
    folder: TempDir,
    options: InstallCniOptions,
}

impl Node {
    fn new(chain: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let plugin = folder.path().join("plugin");
        fs::write(&plugin, "the plugin").unwrap();
        let options = InstallCniOptions {
            place: CniPlace {
                bin_dir: folder.path().join("bin"),
                conf_dir: folder.path().join("etc/net.d"),
                conf_name: CONFLIST.to_owned(),
            },
            plugin: Some(plugin),
            cni_version: "1.0.0".to_owned(),
            mtu: 0,
            chain: chain.iter().map(|&one| one.to_owned()).collect(),
        };
        Self { folder, options }
    }

    fn config(&self) -> Value {
        let path = self.options.place.conf_dir.join(CONFLIST);
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    }

    fn types(&self) -> Vec<String> {
        let config = self.config();
        let plugins = config["plugins"].as_array().unwrap();
        let name = |plugin: &Value| plugin["type"].as_str().unwrap().to_owned();
        plugins.iter().map(name).collect()
    }
}

#[test]
fn a_fresh_node_gets_plugin_and_configuration() {
    let node = Node::new(&[]);
    install(&node.options).unwrap();
    let plugin = node.options.place.bin_dir.join(PLUGIN);
    assert_eq!(fs::read_to_string(&plugin).unwrap(), "the plugin");
    assert_eq!(fs::metadata(&plugin).unwrap().mode() & 0o7777, 0o755);
    let config = node.config();
    assert_eq!(config["cniVersion"], "1.0.0");
    assert_eq!(config["plugins"], json!([{ "type": "margay-cni" }]));
    // Nothing half-made stays.
    assert_eq!(
        fs::read_dir(&node.options.place.bin_dir).unwrap().count(),
        1
    );
    assert_eq!(
        fs::read_dir(&node.options.place.conf_dir).unwrap().count(),
        1
    );
}

#[test]
fn what_is_there_is_not_written_again() {
    let node = Node::new(&[]);
    let inode = |folder: &Path, name| fs::metadata(folder.join(name)).unwrap().ino();
    install(&node.options).unwrap();
    let before = (
        inode(&node.options.place.bin_dir, PLUGIN),
        inode(&node.options.place.conf_dir, CONFLIST),
    );
    install(&node.options).unwrap();
    let after = (
        inode(&node.options.place.bin_dir, PLUGIN),
        inode(&node.options.place.conf_dir, CONFLIST),
    );
    assert_eq!(before, after);
}

#[test]
fn an_upgrade_leaves_a_running_plugin_its_file() {
    let node = Node::new(&[]);
    install(&node.options).unwrap();
    let mut running = File::open(node.options.place.bin_dir.join(PLUGIN)).unwrap();
    fs::write(node.folder.path().join("plugin"), "a newer one").unwrap();
    // What an interrupted try left is in nobody's way.
    fs::write(node.options.place.bin_dir.join(".margay-cni.half"), "ha").unwrap();
    install(&node.options).unwrap();
    let mut text = String::new();
    io::Read::read_to_string(&mut running, &mut text).unwrap();
    assert_eq!(text, "the plugin");
    let now = fs::read_to_string(node.options.place.bin_dir.join(PLUGIN)).unwrap();
    assert_eq!(now, "a newer one");
}

#[test]
fn a_chained_plugin_that_is_not_there_is_left_out() {
    let node = Node::new(&["portmap", "bandwidth", r#"{"type":"tuning","sysctl":{}}"#]);
    fs::create_dir_all(&node.options.place.bin_dir).unwrap();
    fs::write(node.options.place.bin_dir.join("portmap"), "").unwrap();
    fs::write(node.options.place.bin_dir.join("tuning"), "").unwrap();
    install(&node.options).unwrap();
    assert_eq!(node.types(), ["margay-cni", "portmap", "tuning"]);
    assert_eq!(
        node.config()["plugins"][1]["capabilities"]["portMappings"],
        true
    );
}

#[test]
fn flags_that_make_no_sense_are_refused_before_anything_is_written() {
    let wrong: [fn(&mut InstallCniOptions); 5] = [
        |options| options.cni_version = "7".to_owned(),
        |options| options.place.conf_name = "10-margay.conf".to_owned(),
        |options| options.place.conf_name = "../x.conflist".to_owned(),
        |options| options.chain = vec!["../../bin/sh".to_owned()],
        |options| options.chain = vec![r#"{"name":"x"}"#.to_owned()],
    ];
    for make_wrong in wrong {
        let mut node = Node::new(&[]);
        make_wrong(&mut node.options);
        let error = install(&node.options).unwrap_err();
        assert!(error.is::<UsageError>(), "{error:#}");
        assert!(!node.options.place.bin_dir.exists());
    }
}

#[test]
fn who_comes_first_is_known() {
    let node = Node::new(&[]);
    fs::create_dir_all(&node.options.place.conf_dir).unwrap();
    for other in ["05-other.conf", "00-notes.txt", "99-loopback.conf"] {
        fs::write(node.options.place.conf_dir.join(other), "{}").unwrap();
    }
    install(&node.options).unwrap();
    let before = sorted_before(&node.options.place.conf_dir, CONFLIST);
    assert_eq!(before.into_iter().collect::<Vec<_>>(), ["05-other.conf"]);
}
