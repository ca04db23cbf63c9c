//! A lab on an API server that is there already, such as a real Kubernetes: the nodes reach it
//! where the embedded store would be, by a relay of bytes with one foot in the lab.
//!
//! The relay knows nothing of TLS: the nodes' kubeconfig has the relay's address and still asks
//! for the certificate of the server itself. The lab's objects stay on the server when it ends.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use http::Uri;
use kube::Client;
use kube::config::Kubeconfig;

use super::cluster::Binaries;
use super::error::LabError;
use super::namespaces;
use super::objects;
use super::patience::{patience, until};
use super::process::{self, Launch, STORE};
use super::spec::{Plan, STORE_PORT};
use super::state::Ledger;
use crate::kube::write_private;

/// Starts the relay, writes the kubeconfigs of the host and of the nodes, and waits until the
/// server answers.
///
/// # Errors
/// When the kubeconfig names no server, or nobody answers there.
pub async fn start(
    ledger: &mut Ledger,
    plan: &Plan,
    binaries: &Binaries,
    kubeconfig: &Path,
) -> Result<Client, LabError> {
    let unusable = |message: String| LabError::Kubeconfig {
        path: kubeconfig.to_owned(),
        message,
    };
    let file = Kubeconfig::read_from(kubeconfig).map_err(|error| unusable(error.to_string()))?;
    let (nodes, target) =
        through_relay(&file, SocketAddr::new(plan.store.address.ip(), STORE_PORT))
            .map_err(unusable)?;
    let data = ledger.folder.store();
    std::fs::create_dir_all(&data).map_err(LabError::file("cannot make", &data))?;
    for (path, config) in [
        (ledger.folder.kubeconfig(), &file),
        (data.join("kubeconfig"), &nodes),
    ] {
        let text = serde_saphyr::to_string(config).map_err(|error| unusable(error.to_string()))?;
        write_private(&path, &text).map_err(|error| unusable(format!("{error:#}")))?;
    }

    let mut command = Command::new(&binaries.margayctl);
    command.args(["lab", "relay"]);
    command.args(["--namespace", &plan.namespace(&plan.store.name)]);
    let listen = SocketAddr::new(plan.store.address.ip(), STORE_PORT);
    command.args(["--listen", &listen.to_string(), "--to", &target]);
    let record = process::start(ledger, Launch::on_the_host(STORE, command))?;

    let client = objects::client(kubeconfig).await?;
    until(
        "the API server to answer",
        patience(20),
        &record.log,
        || async {
            if !process::is_alive(&record) {
                return Ok(Err(process::died(&record)));
            }
            let version = client.apiserver_version().await;
            version.map(|_| Ok(())).map_err(|error| error.to_string())
        },
    )
    .await??;
    Ok(client)
}

/// The kubeconfig with the relay's address for the server of the current context, and where that
/// server is: `HOST:PORT`.
fn through_relay(file: &Kubeconfig, relay: SocketAddr) -> Result<(Kubeconfig, String), String> {
    let current = file.current_context.as_deref().unwrap_or_default();
    let context = file.contexts.iter().find(|one| one.name == current);
    let context = context.and_then(|one| one.context.as_ref());
    let context = context.ok_or("it has no current context")?;
    let mut nodes = file.clone();
    let cluster = nodes
        .clusters
        .iter_mut()
        .find(|one| one.name == context.cluster)
        .and_then(|one| one.cluster.as_mut())
        .ok_or("its current context names no cluster")?;
    let server = cluster.server.clone().unwrap_or_default();
    let uri: Uri = server
        .parse()
        .map_err(|_| format!("its server {server:?} is no URL"))?;
    let host = uri
        .host()
        .filter(|_| uri.scheme_str() == Some("https"))
        .ok_or_else(|| format!("its server {server:?} is no https://HOST:PORT"))?;
    let target = format!("{host}:{}", uri.port_u16().unwrap_or(443));
    let name = host.trim_start_matches('[').trim_end_matches(']');
    cluster
        .tls_server_name
        .get_or_insert_with(|| name.to_owned());
    cluster.server = Some(format!("https://{relay}"));
    Ok((nodes, target))
}

/// Takes connections at an address inside a namespace and passes their bytes to and from a
/// server as this process sees it, until the process is ended.
///
/// # Errors
/// When it cannot listen there.
pub fn relay(namespace: &str, listen: SocketAddr, to: &str) -> Result<(), LabError> {
    let listener = namespaces::inside(namespace, || {
        TcpListener::bind(listen).map_err(LabError::file("cannot listen on", listen.to_string()))
    })?;
    for client in listener.incoming().flatten() {
        let to = to.to_owned();
        std::thread::spawn(move || {
            if let Err(error) = pass(&client, &to) {
                eprintln!("{to}: {error}");
            }
        });
    }
    Ok(())
}

fn pass(client: &TcpStream, to: &str) -> io::Result<()> {
    let server = TcpStream::connect(to)?;
    for stream in [client, &server] {
        stream.set_nodelay(true)?;
    }
    std::thread::scope(|scope| {
        scope.spawn(|| copy(client, &server));
        copy(&server, client);
    });
    Ok(())
}

/// One direction, to its end; the end is passed on too.
fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(server: &str) -> Kubeconfig {
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: a\nclusters:\n- name: other\n  cluster: {{server: 'https://other'}}\n- name: c\n  cluster: {{server: '{server}'}}\nusers: []\ncontexts:\n- name: a\n  context: {{cluster: c, user: u}}\n"
        );
        serde_saphyr::from_str(&text).unwrap()
    }

    #[test]
    fn nodes_ask_the_relay_for_the_servers_certificate() {
        let relay = "10.10.0.10:6443".parse().unwrap();
        let cases = [
            ("https://127.0.0.1:4000", "127.0.0.1:4000", "127.0.0.1"),
            ("https://kube.example", "kube.example:443", "kube.example"),
            ("https://[::1]:6443", "[::1]:6443", "::1"),
        ];
        for (server, target, name) in cases {
            let (nodes, to) = through_relay(&config(server), relay).unwrap();
            assert_eq!(to, target);
            let cluster = nodes.clusters[1].cluster.as_ref().unwrap();
            assert_eq!(cluster.server.as_deref(), Some("https://10.10.0.10:6443"));
            assert_eq!(cluster.tls_server_name.as_deref(), Some(name));
            let other = nodes.clusters[0].cluster.as_ref().unwrap();
            assert_eq!(other.server.as_deref(), Some("https://other"));
        }
        assert!(through_relay(&config("http://127.0.0.1"), relay).is_err());
        assert!(through_relay(&Kubeconfig::default(), relay).is_err());
    }

    #[test]
    fn bytes_pass_both_ways_to_their_end() {
        use std::io::{Read, Write};
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = server.local_addr().unwrap().to_string();
        let front = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(front.local_addr().unwrap()).unwrap();
        let relayed = std::thread::spawn(move || pass(&front.accept().unwrap().0, &to));
        client.write_all(b"question").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let (mut behind, _) = server.accept().unwrap();
        let mut text = String::new();
        behind.read_to_string(&mut text).unwrap();
        assert_eq!(text, "question");
        behind.write_all(b"answer").unwrap();
        drop(behind);
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, "answer");
        relayed.join().unwrap().unwrap();
    }
}
