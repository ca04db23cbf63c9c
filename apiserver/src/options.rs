//! The command line of `margay apiserver`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// Options of `margay apiserver`.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Directory of the database, the certificates, the token and the kubeconfig; created when absent
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,

    /// Where to listen: ADDR:PORT (IPv6 in brackets), or fd:N for a listening TCP socket inherited as descriptor N; may be repeated
    #[arg(
        long,
        value_name = "ADDR:PORT|fd:N",
        required_unless_present = "listen_netns"
    )]
    pub listen: Vec<ListenAddress>,

    /// Also listen in another network namespace: PATH=ADDR:PORT, for example /run/netns/lab=10.0.0.1:6443; may be repeated
    #[arg(long, value_name = "PATH=ADDR:PORT", value_parser = parse_netns)]
    pub listen_netns: Vec<ListenAddress>,

    /// Further names or addresses clients use to reach this server, for its certificate; may be repeated
    #[arg(long, value_name = "NAME|ADDR")]
    pub san: Vec<String>,
}

/// One place to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// An address in the current network namespace; port 0 takes a free one.
    Address(SocketAddr),
    /// An inherited, already listening TCP socket.
    Descriptor(u32),
    /// An address in the network namespace at this path.
    Namespace(PathBuf, SocketAddr),
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(number) = text.strip_prefix("fd:") {
            return match number.parse::<u32>() {
                Ok(number) if (3..=65_535).contains(&number) => Ok(Self::Descriptor(number)),
                _ => Err(format!(
                    "{text:?}: descriptors are numbers from 3, as in fd:3"
                )),
            };
        }
        text.parse().map(Self::Address).map_err(|_| {
            format!("{text:?} is neither ADDR:PORT nor fd:N, for example 127.0.0.1:6443")
        })
    }
}

fn parse_netns(text: &str) -> Result<ListenAddress, String> {
    let (path, address) = text
        .rsplit_once('=')
        .ok_or_else(|| format!("{text:?} is not PATH=ADDR:PORT"))?;
    let address = address
        .parse()
        .map_err(|_| format!("{text:?}: {address:?} is not ADDR:PORT"))?;
    Ok(ListenAddress::Namespace(path.into(), address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert_eq!(
            "127.0.0.1:1".parse(),
            Ok(ListenAddress::Address("127.0.0.1:1".parse().unwrap()))
        );
        assert_eq!(
            "[::1]:1".parse(),
            Ok(ListenAddress::Address("[::1]:1".parse().unwrap()))
        );
        assert_eq!("fd:3".parse(), Ok(ListenAddress::Descriptor(3)));
        for bad in ["fd:", "fd:0", "fd:-1", "fd:x", "localhost", "1.2.3.4"] {
            assert!(bad.parse::<ListenAddress>().is_err(), "{bad}");
        }
        let namespace = parse_netns("/run/netns/a=b=10.0.0.1:6443").unwrap();
        assert_eq!(
            namespace,
            ListenAddress::Namespace("/run/netns/a=b".into(), "10.0.0.1:6443".parse().unwrap())
        );
        assert!(parse_netns("/run/netns/a").is_err());
    }
}
