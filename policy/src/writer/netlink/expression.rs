//! Rules as lists of nf_tables expressions (linux/netfilter/nf_tables.h): those that change from event to event. Numbers
//! in registers are in the order of bytes in which the kernel loads them: the network's for packets, its own for the rest.

use super::message::{Attributes, data, verdict};
use crate::{
    port::PortRange,
    ruleset::{Action, ConnectionState, Family, Field, MARK_MASK, Match, Report, Rule, Verdict},
};

/// The register all values go through.
const REGISTER: u32 = 1;
/// The register a verdict goes into.
const VERDICT: u32 = 0;

const CT_STATE: u32 = 0;
const CT_DIRECTION: u32 = 1;
const CT_MARK: u32 = 3;
const META_PRIORITY: u32 = 2;
const META_IN_INTERFACE: u32 = 6;
const META_OUT_INTERFACE: u32 = 7;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
const TRANSPORT_HEADER: u32 = 2;

const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
const AT_MOST: u32 = 3;
const AT_LEAST: u32 = 5;

/// The rule's expressions, or none when it is not one for netlink.
pub(super) fn of(rule: &Rule) -> Option<Attributes> {
    let mut list = List::default();
    for condition in &rule.matches {
        list.condition(condition)?;
    }
    list.action(&rule.action)?;
    Some(list.0)
}

#[derive(Default)]
struct List(Attributes);

impl List {
    fn push(&mut self, name: &str, fill: impl FnOnce(&mut Attributes)) {
        let mut inner = Attributes::default();
        fill(&mut inner);
        let mut expression = Attributes::default();
        expression.text(1, name).nest(2, &inner);
        self.0.nest(1, &expression);
    }

    fn meta(&mut self, key: u32) {
        self.meta_into(key, REGISTER);
    }

    fn meta_into(&mut self, key: u32, register: u32) {
        self.push("meta", |meta| {
            meta.number(1, register).number(2, key);
        });
    }

    /// Interface names side by side: each takes a register of 16 bytes.
    fn interfaces(&mut self, fields: &[Field]) -> Option<()> {
        for (register, field) in (REGISTER..).zip(fields) {
            let key = match field {
                Field::InInterface => META_IN_INTERFACE,
                Field::OutInterface => META_OUT_INTERFACE,
                _ => return None,
            };
            self.meta_into(key, register);
        }
        Some(())
    }

    fn connection(&mut self, key: u32) {
        self.push("ct", |ct| {
            ct.number(1, REGISTER).number(2, key);
        });
    }

    fn compare(&mut self, operator: u32, value: &[u8]) {
        self.push("cmp", |cmp| {
            cmp.number(1, REGISTER)
                .number(2, operator)
                .nest(3, &data(value));
        });
    }

    fn mask(&mut self, mask: u32, xor: u32) {
        self.push("bitwise", |bitwise| {
            bitwise.number(1, REGISTER).number(2, REGISTER).number(3, 4);
            bitwise
                .nest(4, &data(&mask.to_ne_bytes()))
                .nest(5, &data(&xor.to_ne_bytes()));
        });
    }

    fn within(&mut self, range: PortRange, bytes: impl Fn(u16) -> Vec<u8>) {
        if range.first() == range.last() {
            self.compare(EQUAL, &bytes(range.first()));
        } else {
            self.compare(AT_LEAST, &bytes(range.first()));
            self.compare(AT_MOST, &bytes(range.last()));
        }
    }

    fn port(&mut self, protocol: u8, offset: u32, range: PortRange) {
        self.meta(META_L4PROTO);
        self.compare(EQUAL, &[protocol]);
        self.push("payload", |payload| {
            payload
                .number(1, REGISTER)
                .number(2, TRANSPORT_HEADER)
                .number(3, offset)
                .number(4, 2);
        });
        self.within(range, |port| port.to_be_bytes().to_vec());
    }

    fn condition(&mut self, condition: &Match) -> Option<()> {
        match condition {
            Match::Connection(states) => {
                let bits = states.iter().map(|state| match state {
                    ConnectionState::Invalid => 1_u32,
                    ConnectionState::Established => 2,
                    ConnectionState::Related => 4,
                    ConnectionState::Untracked => 64,
                });
                self.connection(CT_STATE);
                self.mask(bits.sum(), 0);
                self.compare(NOT_EQUAL, &0_u32.to_ne_bytes());
            }
            Match::Reply => {
                self.connection(CT_DIRECTION);
                self.compare(EQUAL, &[1]);
            }
            Match::Mark(mark) => {
                self.connection(CT_MARK);
                self.mask(MARK_MASK, 0);
                self.compare(EQUAL, &(u32::from(*mark) << 16).to_ne_bytes());
            }
            Match::Protocol(number) => {
                self.meta(META_L4PROTO);
                self.compare(EQUAL, &[*number]);
            }
            Match::ProtocolRange(range) => {
                self.meta(META_L4PROTO);
                self.within(*range, |number| vec![number as u8]);
            }
            Match::Family(family) => {
                self.meta(META_NFPROTO);
                let number = match family {
                    Family::V4 => 2,
                    Family::V6 => 10,
                };
                self.compare(EQUAL, &[number]);
            }
            Match::Port(protocol, range) => self.port(protocol.number(), 2, *range),
            Match::SourcePort(protocol, range) => self.port(protocol.number(), 0, *range),
            Match::In(fields, set) => {
                self.interfaces(fields)?;
                self.push("lookup", |lookup| {
                    lookup.text(1, set).number(2, REGISTER);
                });
            }
            Match::InterfacePrefix(..)
            | Match::NotInterfacePrefix(..)
            | Match::NotIn(..)
            | Match::Network(..)
            | Match::FromNode
            | Match::IcmpType(..)
            | Match::IcmpCode(..) => return None,
        }
        Some(())
    }

    fn verdict(&mut self, value: &Verdict) {
        self.push("immediate", |immediate| {
            immediate.number(1, VERDICT).nest(2, &verdict(value));
        });
    }

    fn report(&mut self, report: Report) {
        self.push("limit", |limit| {
            limit
                .put(1, &Report::RATE.to_be_bytes())
                .put(2, &1_u64.to_be_bytes())
                .number(3, Report::BURST)
                // By packets.
                .number(4, 0);
        });
        self.push("log", |log| {
            log.put(1, &Report::GROUP.to_be_bytes())
                .text(2, &report.to_string())
                .number(3, Report::SNAPLEN);
        });
    }

    fn action(&mut self, action: &Action) -> Option<()> {
        match action {
            Action::Verdict(value) => self.verdict(value),
            Action::VerdictMap(fields, map) if fields[..] == [Field::Identity] => {
                self.meta(META_PRIORITY);
                self.push("lookup", |lookup| {
                    lookup.text(1, map).number(2, REGISTER).number(3, VERDICT);
                });
            }
            Action::ClearIdentity => {
                self.push("immediate", |immediate| {
                    immediate
                        .number(1, REGISTER)
                        .nest(2, &data(&0_u32.to_ne_bytes()));
                });
                self.push("meta", |meta| {
                    meta.number(2, META_PRIORITY).number(3, REGISTER);
                });
            }
            Action::SetMark(mark) => {
                self.connection(CT_MARK);
                self.mask(!MARK_MASK, u32::from(*mark) << 16);
                self.push("ct", |ct| {
                    ct.number(2, CT_MARK).number(4, REGISTER);
                });
            }
            Action::NoTrack => self.push("notrack", |_| {}),
            Action::Count => self.push("counter", |_| {}),
            Action::Log(report) => self.report(*report),
            Action::VerdictMap(..) | Action::Identify(..) | Action::Masquerade => {
                return None;
            }
        }
        Some(())
    }
}
