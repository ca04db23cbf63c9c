//! What runs in every pod of the lab: a server that tells who it is and whom it sees.
//!
//! Over TCP and UDP it answers `NAME ADDRESS`: its pod's name and the address the question came
//! from, so a probe learns that the right pod answered and that nothing rewrote the source.
//! `std` only; one thread per port, no state.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::thread::JoinHandle;
use std::time::Duration;

/// Serves on these ports until the process is ended.
///
/// # Errors
/// When a port cannot be listened on.
pub fn serve(name: &str, ports: &[u16]) -> io::Result<()> {
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    for port in ports {
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, *port));
        let (tcp, udp) = (TcpListener::bind(any)?, UdpSocket::bind(any)?);
        let (for_tcp, for_udp) = (name.to_owned(), name.to_owned());
        threads.push(std::thread::spawn(move || answer_tcp(&tcp, &for_tcp)));
        threads.push(std::thread::spawn(move || answer_udp(&udp, &for_udp)));
    }
    for thread in threads {
        let _ = thread.join();
    }
    Ok(())
}

fn answer_tcp(listener: &TcpListener, name: &str) {
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { continue };
        let Ok(from) = stream.peer_addr() else {
            continue;
        };
        // A caller that is gone already is its own problem.
        let _ = stream.set_write_timeout(Some(Duration::from_secs(1)));
        let _ = stream.write_all(answer(name, from.ip()).as_bytes());
    }
}

fn answer_udp(socket: &UdpSocket, name: &str) {
    let mut question = [0; 64];
    loop {
        if let Ok((_, from)) = socket.recv_from(&mut question) {
            let _ = socket.send_to(answer(name, from.ip()).as_bytes(), from);
        }
    }
}

fn answer(name: &str, from: IpAddr) -> String {
    format!("{name} {}\n", from.to_canonical())
}

/// Reads an answer: the pod's name and the source address it saw.
pub fn parse_answer(text: &str) -> Option<(String, IpAddr)> {
    let (name, from) = text.trim_end().split_once(' ')?;
    Some((name.to_owned(), from.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_back() {
        let from: IpAddr = "::ffff:10.244.0.1".parse().unwrap();
        let (name, seen) = parse_answer(&answer("web-1", from)).unwrap();
        assert_eq!(
            (name.as_str(), seen.to_string().as_str()),
            ("web-1", "10.244.0.1")
        );
        assert!(parse_answer("web-1").is_none());
        assert!(parse_answer("web-1 nowhere\n").is_none());
    }
}
