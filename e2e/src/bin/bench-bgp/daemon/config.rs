//! Configurations that mean the same to each daemon.

use std::fmt::Write as _;
use std::path::Path;

use super::{ASN, Kind, Neighbor, Setup};
use crate::net::DAEMON;

/// The text of the configuration.
pub(super) fn text(kind: Kind, setup: &Setup, folder: &Path) -> String {
    match kind {
        Kind::Margay => margay(setup, folder),
        Kind::Bird => bird(setup),
        Kind::Frr => frr(setup),
        Kind::Gobgp => gobgp(setup),
        Kind::Openbgpd => openbgpd(setup, folder),
    }
}

fn margay(setup: &Setup, folder: &Path) -> String {
    let mut text = format!(
        "asn: {ASN}\nrouterId: {DAEMON}\nlisten: [{{address: 0.0.0.0}}]\nrequirePolicy: false\ninstall: {}\nsocket: {}\nneighbors:\n",
        if setup.install {
            "{metric: 32}"
        } else {
            "false"
        },
        folder.join("ctl").display()
    );
    for neighbor in &setup.neighbors {
        let _ = write!(
            text,
            "- {{address: {}, asn: {}, holdTime: {}, passive: {}",
            neighbor.address, neighbor.asn, setup.hold, neighbor.passive
        );
        if !setup.export {
            text += ", export: reject";
        }
        if neighbor.client {
            text += ", routeReflectorClient: true";
        }
        if neighbor.bfd {
            text += ", bfd: {minTx: 50, minRx: 50, multiplier: 3}";
        }
        text += "}\n";
    }
    text
}

fn bird(setup: &Setup) -> String {
    let mut text = format!("router id {DAEMON};\nprotocol device {{}}\n");
    if setup.install {
        text += "protocol kernel { ipv4 { import none; export all; }; }\n";
    }
    if setup.neighbors.iter().any(|neighbor| neighbor.bfd) {
        text += "protocol bfd { interface \"*\" { interval 50 ms; multiplier 3; }; }\n";
    }
    for (number, neighbor) in setup.neighbors.iter().enumerate() {
        let Neighbor {
            address,
            asn,
            local,
            ..
        } = neighbor;
        let export = if setup.export { "all" } else { "none" };
        let passive = if neighbor.passive { "passive on; " } else { "" };
        let client = if neighbor.client { "rr client; " } else { "" };
        let bfd = if neighbor.bfd { "bfd on; " } else { "" };
        let _ = writeln!(
            text,
            "protocol bgp p{number} {{ local {local} as {ASN}; neighbor {address} as {asn}; direct; {passive}{client}{bfd}hold time {}; ipv4 {{ import all; export {export}; }}; }}",
            setup.hold
        );
    }
    text
}

fn frr(setup: &Setup) -> String {
    let mut text = format!(
        "log stdout errors\nrouter bgp {ASN}\n bgp router-id {DAEMON}\n no bgp ebgp-requires-policy\n timers bgp {} {}\n",
        (setup.hold / 3).max(1),
        setup.hold
    );
    let mut families = String::new();
    for neighbor in &setup.neighbors {
        let address = neighbor.address;
        let _ = writeln!(text, " neighbor {address} remote-as {}", neighbor.asn);
        if neighbor.passive {
            let _ = writeln!(text, " neighbor {address} passive");
        }
        if !setup.export {
            let _ = writeln!(families, "  neighbor {address} route-map NONE out");
        }
        if neighbor.client {
            let _ = writeln!(families, "  neighbor {address} route-reflector-client");
        }
    }
    format!(
        "{text} address-family ipv4 unicast\n{families} exit-address-family\nroute-map NONE deny 10\n"
    )
}

fn gobgp(setup: &Setup) -> String {
    let export = if setup.export {
        "accept-route"
    } else {
        "reject-route"
    };
    let mut text = format!(
        "global:\n  config: {{as: {ASN}, router-id: {DAEMON}, port: 179}}\n  apply-policy: {{config: {{default-import-policy: accept-route, default-export-policy: {export}}}}}\nneighbors:\n"
    );
    for neighbor in &setup.neighbors {
        let _ = write!(
            text,
            "- config: {{neighbor-address: {}, peer-as: {}}}\n  transport: {{config: {{passive-mode: {}}}}}\n  timers: {{config: {{hold-time: {}, keepalive-interval: {}}}}}\n",
            neighbor.address,
            neighbor.asn,
            neighbor.passive,
            setup.hold,
            (setup.hold / 3).max(1)
        );
        if neighbor.client {
            let _ = writeln!(
                text,
                "  route-reflector: {{config: {{route-reflector-client: true, route-reflector-cluster-id: {DAEMON}}}}}"
            );
        }
    }
    text
}

fn openbgpd(setup: &Setup, folder: &Path) -> String {
    let mut text = format!(
        "AS {ASN}\nrouter-id {DAEMON}\nlisten on 0.0.0.0\nfib-update no\nsocket \"{}\"\n",
        folder.join("ctl").display()
    );
    for neighbor in &setup.neighbors {
        let _ = write!(
            text,
            "neighbor {} {{\n remote-as {}\n holdtime {}\n",
            neighbor.address, neighbor.asn, setup.hold
        );
        if neighbor.passive {
            text += " passive\n";
        }
        if neighbor.client {
            text += " route-reflector\n";
        }
        text += "}\n";
    }
    let verdict = if setup.export { "allow" } else { "deny" };
    text + &format!("allow from any\n{verdict} to any\n")
}
