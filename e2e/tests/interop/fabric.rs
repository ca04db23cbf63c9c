//! Namespaces and links of one cell. Their names carry the process id, so that two runs at once do not meet; everything that
//! runs in them ends with them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use margay_e2e::lab::command::run;
use margay_e2e::lab::namespaces;

use crate::model::{OURS, OURS_TO_THIRD, THEIRS, THEIRS_TO_THIRD, THIRD_AT_OURS, THIRD_AT_THEIRS};
use crate::process;

const PREFIX: &str = "mgyi-";

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Us, the daemon, and a third peer that has a link with each.
pub struct Fabric {
    pub us: String,
    pub them: String,
    pub third: String,
    pub folder: PathBuf,
}

impl Fabric {
    pub fn new() -> Result<Self, String> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}", std::process::id());
        let folder = Path::new("/tmp").join(&name);
        let fabric = Self {
            us: format!("{name}-us"),
            them: format!("{name}-them"),
            third: format!("{name}-third"),
            folder,
        };
        fs::create_dir_all(&fabric.folder).map_err(|error| error.to_string())?;
        // Daemons with users of their own look for their files in here.
        world_readable(&fabric.folder)?;
        for namespace in fabric.all() {
            namespaces::create(namespace).map_err(|error| error.to_string())?;
            // Without duplicate address detection, which would delay everything by a second or two.
            let settings = [
                ("ipv6/conf/default/accept_dad", "0"),
                ("ipv6/conf/all/accept_dad", "0"),
            ];
            namespaces::set_sysctls(namespace, &settings).map_err(|error| error.to_string())?;
        }
        fabric.link(&fabric.us, "eth0", &fabric.them, "eth0")?;
        fabric.link(&fabric.us, "eth1", &fabric.third, "eth0")?;
        fabric.link(&fabric.them, "eth1", &fabric.third, "eth1")?;
        fabric.dress(&fabric.us, "eth0", &OURS)?;
        fabric.dress(&fabric.them, "eth0", &THEIRS)?;
        fabric.dress(&fabric.us, "eth1", &[OURS_TO_THIRD])?;
        fabric.dress(&fabric.third, "eth0", &THIRD_AT_OURS)?;
        fabric.dress(&fabric.them, "eth1", &[THEIRS_TO_THIRD])?;
        fabric.dress(&fabric.third, "eth1", &THIRD_AT_THEIRS)?;
        Ok(fabric)
    }

    fn all(&self) -> [&String; 3] {
        [&self.us, &self.them, &self.third]
    }

    fn link(&self, a: &str, name: &str, b: &str, other: &str) -> Result<(), String> {
        ip(&format!(
            "-n {a} link add {name} type veth peer name {other} netns {b}"
        ))
    }

    fn dress(&self, namespace: &str, device: &str, addresses: &[&str]) -> Result<(), String> {
        for address in addresses {
            let (length, more) = if address.contains(':') {
                (64, " nodad")
            } else {
                (24, "")
            };
            ip(&format!(
                "-n {namespace} addr add {address}/{length} dev {device}{more}"
            ))?;
        }
        ip(&format!("-n {namespace} link set {device} up"))
    }
}

impl Drop for Fabric {
    fn drop(&mut self) {
        clear(&self.all().map(Clone::clone));
        if std::env::var_os("INTEROP_KEEP").is_none() {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

fn ip(arguments: &str) -> Result<(), String> {
    let words: Vec<_> = arguments.split_whitespace().collect();
    run("ip", &words)
        .map(drop)
        .map_err(|error| error.to_string())
}

pub fn world_readable(path: &Path) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(|error| error.to_string())
}

/// Ends who lives in these namespaces and removes them.
fn clear(names: &[String]) {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        let inhabitants = namespaces::inhabitants(names);
        let strangers: Vec<_> = inhabitants
            .into_iter()
            .filter(|pid| *pid != std::process::id())
            .collect();
        if strangers.is_empty() || Instant::now() > end {
            break;
        }
        strangers.into_iter().for_each(process::kill);
        std::thread::sleep(Duration::from_millis(10));
    }
    for name in names {
        if let Err(error) = namespaces::remove(name) {
            eprintln!("interop: {error}");
        }
    }
}

/// Removes what a run that was killed left behind.
pub fn sweep() {
    let entries = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let dead = |name: &String| {
        let owner = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next());
        owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists())
    };
    let left: Vec<_> = names.filter(dead).collect();
    clear(&left);
    for name in left {
        let folder = name
            .rsplit_once('-')
            .map_or(name.as_str(), |(folder, _)| folder);
        let _ = fs::remove_dir_all(Path::new("/tmp").join(folder));
    }
}
