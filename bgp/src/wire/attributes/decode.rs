//! Path attributes out of octets, with RFC 7606's reaction to each thing that can be wrong.
//!
//! MP_REACH_NLRI and MP_UNREACH_NLRI hold routes, not properties of routes: [`AttributeReader`]
//! hands them back to the UPDATE's decoder.

use bytes::Bytes;

use crate::types::{Asn, Community, ExtendedCommunity, RouterId};
use crate::wire::{AttributeFault, Context, Fault, NextHop, Notification, SessionKind};

use super::attribute_code as code_of;
use super::four_octet::{TwoOctetParts, join};
use super::header::{Header, OPTIONAL, TRANSITIVE, specified_flags};
use super::path_codec::{AsnWidth, decode_as_path};
use super::values::{
    aggregator, as_path, check_prefix_sid, large_community, list, next_hop, number, origin,
};
use super::{Aggregator, AsPath, PathAttributes, UnknownAttribute};

/// What to do with an attribute that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reaction {
    Discard,
    Withdraw,
}

type Outcome = Result<(), (Reaction, Fault)>;

/// What [`AttributeReader::read`] found.
pub(in crate::wire) enum Flow<'a> {
    /// An attribute that holds routes: its code, its value, and all of it with its header.
    Routes {
        code: u8,
        value: &'a [u8],
        whole: &'a [u8],
    },
    /// No more attributes.
    End,
}

/// Reads the attributes of one UPDATE one by one and collects what they say.
pub(in crate::wire) struct AttributeReader<'a> {
    context: &'a Context,
    rest: &'a [u8],
    /// One bit for each code met, well-formed or not.
    seen: [u64; 4],
    attributes: PathAttributes,
    next_hop: Option<Result<NextHop, Fault>>,
    as4_path: Option<AsPath>,
    as4_aggregator: Option<Aggregator>,
    faults: Vec<AttributeFault>,
    /// The first attribute whose fault makes the routes unusable, for a NOTIFICATION's data.
    unusable: Option<(AttributeFault, &'a [u8])>,
}

/// What the attributes of an UPDATE say together.
pub(in crate::wire) struct Collected<'a> {
    pub(in crate::wire) attributes: PathAttributes,
    pub(in crate::wire) next_hop: Option<NextHop>,
    pub(in crate::wire) faults: Vec<AttributeFault>,
    pub(in crate::wire) unusable: Option<(AttributeFault, &'a [u8])>,
}

impl<'a> AttributeReader<'a> {
    pub(in crate::wire) fn new(octets: &'a [u8], context: &'a Context) -> Self {
        Self {
            context,
            rest: octets,
            seen: [0; 4],
            attributes: PathAttributes::default(),
            next_hop: None,
            as4_path: None,
            as4_aggregator: None,
            faults: Vec::new(),
            unusable: None,
        }
    }

    /// Reads on to the next attribute that holds routes, or to the end.
    ///
    /// # Errors
    /// The NOTIFICATION that ends the session, for what RFC 7606 did not soften.
    pub(in crate::wire) fn read(&mut self) -> Result<Flow<'a>, Notification> {
        while !self.rest.is_empty() {
            let Some(header) = Header::split(self.rest) else {
                return self.overrun();
            };
            let Header {
                flags,
                code,
                value,
                whole,
                rest,
            } = header;
            self.rest = rest;
            let holds_routes = matches!(code, code_of::MP_REACH_NLRI | code_of::MP_UNREACH_NLRI);
            if self.mark_seen(code) {
                // RFC 7606 §3 g.
                if holds_routes {
                    return Err(Notification::malformed_attribute_list());
                }
                self.discard(code, Fault::Duplicate);
                continue;
            }
            let outcome = match specified_flags(code) {
                None => self.read_unknown(flags, code, value, whole)?,
                // RFC 7606 §3 c.
                Some(specified) if (flags ^ specified) & (OPTIONAL | TRANSITIVE) != 0 => {
                    Err((Reaction::Withdraw, Fault::Flags(flags)))
                }
                Some(_) => self.read_known(code, value),
            };
            self.react(code, outcome, whole);
            if holds_routes {
                return Ok(Flow::Routes { code, value, whole });
            }
        }
        Ok(Flow::End)
    }

    /// An attribute reaches past the end. What follows it is lost, the routes are to be withdrawn
    /// (RFC 7606 §4), unless it is one that holds routes, which are lost then (§3 j).
    fn overrun(&mut self) -> Result<Flow<'a>, Notification> {
        let whole = std::mem::take(&mut self.rest);
        let code = whole.get(1).copied().unwrap_or_default();
        if matches!(code, code_of::MP_REACH_NLRI | code_of::MP_UNREACH_NLRI) {
            return Err(Notification::optional_attribute_error(whole));
        }
        self.mark_seen(code);
        self.react(code, Err((Reaction::Withdraw, Fault::Overrun)), whole);
        Ok(Flow::End)
    }

    /// Whether the code was met before.
    fn mark_seen(&mut self, code: u8) -> bool {
        let bit = 1_u64 << (code % 64);
        match self.seen.get_mut(usize::from(code / 64)) {
            Some(word) => {
                let before = *word & bit != 0;
                *word |= bit;
                before
            }
            None => false,
        }
    }

    fn has_seen(&self, code: u8) -> bool {
        let word = self.seen.get(usize::from(code / 64));
        word.is_some_and(|word| word & (1 << (code % 64)) != 0)
    }

    /// Whether any attribute but MP_UNREACH_NLRI was met.
    pub(in crate::wire) fn has_seen_other_than_unreach(&self) -> bool {
        let [first, rest @ ..] = self.seen;
        first & !(1 << code_of::MP_UNREACH_NLRI) != 0 || rest != [0; 3]
    }

    /// Notes an attribute that is left out.
    pub(in crate::wire) fn discard(&mut self, code: u8, fault: Fault) {
        self.faults.push(AttributeFault { code, fault });
    }

    /// Notes an attribute without which the routes cannot be used.
    pub(in crate::wire) fn withdraw(&mut self, code: u8, fault: Fault, whole: &'a [u8]) {
        let fault = AttributeFault { code, fault };
        self.faults.push(fault.clone());
        self.unusable.get_or_insert((fault, whole));
    }

    fn react(&mut self, code: u8, outcome: Outcome, whole: &'a [u8]) {
        match outcome {
            Ok(()) => {}
            Err((Reaction::Discard, fault)) => self.discard(code, fault),
            Err((Reaction::Withdraw, fault)) => self.withdraw(code, fault, whole),
        }
    }

    fn read_known(&mut self, code: u8, value: &[u8]) -> Outcome {
        let internal = self.context.session == SessionKind::Internal;
        let four_octets = self.context.four_octet_asn;
        let attributes = &mut self.attributes;
        match code {
            code_of::ORIGIN => attributes.origin = withdraw(origin(value))?,
            code_of::AS_PATH => attributes.as_path = withdraw(as_path(value, self.context))?,
            code_of::NEXT_HOP => self.next_hop = Some(next_hop(value)),
            code_of::MULTI_EXIT_DISC => attributes.med = Some(withdraw(number(value))?),
            // RFC 7606 §7.5, §7.9 and §7.10: of no meaning from outside the AS, well-formed or not.
            code_of::LOCAL_PREF | code_of::ORIGINATOR_ID | code_of::CLUSTER_LIST if !internal => {
                return Err((Reaction::Discard, Fault::NotAllowed));
            }
            code_of::LOCAL_PREF => attributes.local_pref = Some(withdraw(number(value))?),
            code_of::ORIGINATOR_ID => {
                attributes.originator_id = Some(RouterId(withdraw(number(value))?));
            }
            code_of::CLUSTER_LIST => {
                attributes.cluster_list =
                    withdraw(list(value, |id| RouterId(u32::from_be_bytes(id))))?;
            }
            code_of::ATOMIC_AGGREGATE => {
                if !value.is_empty() {
                    return Err((Reaction::Discard, Fault::Length(value.len())));
                }
                attributes.atomic_aggregate = true;
            }
            code_of::AGGREGATOR => {
                let width = AsnWidth::of(four_octets);
                attributes.aggregator = Some(discard(aggregator(value, width))?);
            }
            code_of::COMMUNITIES => {
                attributes.communities =
                    withdraw(list(value, |c| Community(u32::from_be_bytes(c))))?;
            }
            code_of::EXTENDED_COMMUNITIES => {
                attributes.extended_communities =
                    withdraw(list(value, |c| ExtendedCommunity(u64::from_be_bytes(c))))?;
            }
            code_of::LARGE_COMMUNITIES => {
                attributes.large_communities = withdraw(list(value, large_community))?;
            }
            code_of::ONLY_TO_CUSTOMER => {
                attributes.only_to_customer = Some(Asn(withdraw(number(value))?));
            }
            // RFC 6793 §4.1: between four-octet speakers these two must not be.
            code_of::AS4_PATH | code_of::AS4_AGGREGATOR if four_octets => {
                return Err((Reaction::Discard, Fault::NotAllowed));
            }
            code_of::AS4_PATH => return self.read_as4_path(value),
            code_of::AS4_AGGREGATOR => {
                self.as4_aggregator = Some(discard(aggregator(value, AsnWidth::Four))?);
            }
            code_of::IPV6_EXTENDED_COMMUNITIES => {
                // RFC 7606 §7.15, although the content is only carried.
                withdraw(list(value, |_: [u8; 20]| ()))?;
                self.keep_unknown(code, value);
            }
            code_of::PREFIX_SID => {
                // RFC 8669 §4: not from outside unless asked for; and discarded when malformed.
                if !internal {
                    return Err((Reaction::Discard, Fault::NotAllowed));
                }
                discard(check_prefix_sid(value))?;
                self.keep_unknown(code, value);
            }
            // The two that hold routes: nothing of them is read here.
            _ => {}
        }
        Ok(())
    }

    fn read_as4_path(&mut self, value: &[u8]) -> Outcome {
        let path = discard(decode_as_path(value, AsnWidth::Four))?;
        if !path.has_confederation() {
            self.as4_path = Some(path);
            return Ok(());
        }
        // RFC 6793 §6: these segments are taken out, the rest counts.
        let kept = path.segments().iter().filter(|s| !s.is_confederation());
        self.as4_path = Some(AsPath::new(kept.cloned()));
        Err((
            Reaction::Discard,
            Fault::Value("confederation segment outside its confederation"),
        ))
    }

    /// RFC 4271 §5 and §6.3: an attribute without a definition here.
    fn read_unknown(
        &mut self,
        flags: u8,
        code: u8,
        value: &[u8],
        whole: &[u8],
    ) -> Result<Outcome, Notification> {
        if flags & OPTIONAL == 0 {
            return Err(Notification::unrecognized_well_known_attribute(whole));
        }
        if flags & TRANSITIVE != 0 {
            self.keep_unknown(code, value);
        }
        Ok(Ok(()))
    }

    fn keep_unknown(&mut self, code: u8, value: &[u8]) {
        self.attributes.unknown.push(UnknownAttribute {
            code,
            // A copy: a slice of the input would keep the whole message alive.
            value: Bytes::copy_from_slice(value),
        });
    }

    /// Ends reading. `reach` says which routes were announced, by which mandatory attributes are
    /// told (RFC 7606 §3 d).
    pub(in crate::wire) fn finish(mut self, reach: Announced) -> Collected<'a> {
        if reach.by_field || reach.by_attribute {
            for code in [code_of::ORIGIN, code_of::AS_PATH] {
                if !self.has_seen(code) {
                    self.withdraw(code, Fault::Missing, &[]);
                }
            }
        }
        let next_hop = match self.next_hop.take() {
            Some(Ok(next_hop)) => Some(next_hop),
            // RFC 4760 §3: NEXT_HOP is ignored beside MP_REACH_NLRI alone.
            Some(Err(_)) if reach.by_attribute && !reach.by_field => None,
            Some(Err(fault)) => {
                self.withdraw(code_of::NEXT_HOP, fault, &[]);
                None
            }
            None => {
                if reach.by_field && !self.has_seen(code_of::NEXT_HOP) {
                    self.withdraw(code_of::NEXT_HOP, Fault::Missing, &[]);
                }
                None
            }
        };
        let mut attributes = self.attributes;
        if !self.context.four_octet_asn {
            (attributes.as_path, attributes.aggregator) = join(TwoOctetParts {
                as_path: attributes.as_path,
                aggregator: attributes.aggregator,
                as4_path: self.as4_path,
                as4_aggregator: self.as4_aggregator,
            });
        }
        attributes.unknown.sort_by_key(|unknown| unknown.code);
        Collected {
            attributes,
            next_hop,
            faults: self.faults,
            unusable: self.unusable,
        }
    }
}

/// Where an UPDATE announces routes.
#[derive(Clone, Copy, Debug)]
pub(in crate::wire) struct Announced {
    /// In the NLRI field.
    pub(in crate::wire) by_field: bool,
    /// In MP_REACH_NLRI.
    pub(in crate::wire) by_attribute: bool,
}

fn withdraw<T>(result: Result<T, Fault>) -> Result<T, (Reaction, Fault)> {
    result.map_err(|fault| (Reaction::Withdraw, fault))
}

fn discard<T>(result: Result<T, Fault>) -> Result<T, (Reaction, Fault)> {
    result.map_err(|fault| (Reaction::Discard, fault))
}
