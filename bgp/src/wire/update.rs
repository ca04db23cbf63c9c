//! The UPDATE message: routes that go and routes that come, with what they share.

use crate::types::Family;

use super::attributes::{Announced, AttributeReader, Collected, Flow, attribute_code};
use super::multiprotocol::{Routes, decode_reach, decode_unreach};
use super::nlri::decode_nlri;
use super::{
    AttributeFault, Context, Decoded, Fault, Message, NextHop, Nlri, Notification, PathAttributes,
    Verdict,
};

/// An UPDATE, with both encodings of a route (RFC 4271's fields and RFC 4760's attributes) brought
/// into one form.
///
/// The attributes are apart from NLRI and next hops so that a table can intern and share them.
/// An UPDATE that marks the end of a table is [`super::Message::EndOfRib`] instead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// The routes withdrawn, of all families. To be handled before `reach`: of a route in both the
    /// announcement counts (RFC 4271 §4.3).
    pub withdrawn: Vec<Nlri>,
    /// The routes announced: at most one entry for the NLRI field and one for MP_REACH_NLRI.
    pub reach: Vec<Reach>,
    /// What the routes in `reach` have in common. The default when `reach` is empty.
    pub attributes: PathAttributes,
}

/// Routes of one family with the next hop they share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// The family of every prefix in `nlri`.
    pub family: Family,
    /// Their next hop.
    pub next_hop: NextHop,
    /// The routes.
    pub nlri: Vec<Nlri>,
}

/// The code under which faults outside any attribute are reported.
const NO_ATTRIBUTE: u8 = 0;

/// The three parts of an UPDATE, still octets.
pub(super) struct Parts<'a> {
    pub(super) withdrawn: &'a [u8],
    pub(super) attributes: &'a [u8],
    pub(super) nlri: &'a [u8],
}

impl<'a> Parts<'a> {
    /// RFC 7606 §3 b: lengths that do not add up end the session, with 3/1.
    pub(super) fn split(body: &'a [u8]) -> Result<Self, Notification> {
        let (withdrawn, rest) =
            length_and_octets(body).ok_or_else(Notification::malformed_attribute_list)?;
        let (attributes, nlri) =
            length_and_octets(rest).ok_or_else(Notification::malformed_attribute_list)?;
        Ok(Self {
            withdrawn,
            attributes,
            nlri,
        })
    }
}

fn length_and_octets(octets: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = octets.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

impl Update {
    /// Reads a message's body.
    pub(super) fn decode(body: &[u8], context: &Context) -> Result<Decoded, Notification> {
        let parts = Parts::split(body)?;
        if parts.withdrawn.is_empty() && parts.attributes.is_empty() && parts.nlri.is_empty() {
            return Ok(Decoded {
                message: Message::EndOfRib(Family::Ipv4Unicast),
                verdict: Verdict::Accept,
            });
        }
        let mut withdrawn = Vec::new();
        read_field(parts.withdrawn, context, &mut withdrawn)?;
        let mut announced = Vec::new();
        read_field(parts.nlri, context, &mut announced)?;

        let mut reader = AttributeReader::new(parts.attributes, context);
        let mut reach = None;
        // The family of an MP_UNREACH_NLRI, and whether it has routes.
        let mut unreach = None;
        let mut announced_skipped = false;
        while let Flow::Routes { code, value, whole } = reader.read()? {
            let routes = if code == attribute_code::MP_REACH_NLRI {
                decode_reach(value, whole, context)?
            } else {
                decode_unreach(value, whole, context)?
            };
            match routes {
                Routes::Reach(routes, fault) => {
                    if let Some(fault) = fault {
                        reader.withdraw(code, fault, whole);
                    }
                    reach = Some(routes);
                }
                Routes::Unreach(family, routes) => {
                    unreach = Some((family, routes.is_empty()));
                    withdrawn.extend(routes);
                }
                Routes::Skipped(fault) => {
                    announced_skipped |= code == attribute_code::MP_REACH_NLRI;
                    reader.discard(code, fault);
                }
            }
        }

        let only_unreach = !reader.has_seen_other_than_unreach();
        let has_field = !parts.nlri.is_empty();
        let has_reach = reach.as_ref().is_some_and(|reach| !reach.nlri.is_empty());
        let mut collected = reader.finish(Announced {
            by_field: has_field,
            by_attribute: has_reach,
        });
        // RFC 7606 §5.2: with no route announced we cannot be sure to have found all that the
        // message was about, so nothing short of a reset undoes what is wrong with it.
        if let Some((fault, whole)) = &collected.unusable
            && !only_unreach
            && !(has_field || has_reach || announced_skipped)
        {
            return Err(session_reset(fault, whole));
        }

        let fields_used = !parts.withdrawn.is_empty() || !parts.nlri.is_empty();
        if fields_used && !context.families.contains(Family::Ipv4Unicast) {
            withdrawn.retain(|route| route.prefix.family() != Family::Ipv4Unicast);
            announced.clear();
            collected.faults.push(skipped_field());
        }
        if only_unreach
            && !fields_used
            && collected.faults.is_empty()
            && let Some((family, true)) = unreach
        {
            return Ok(Decoded {
                message: Message::EndOfRib(family),
                verdict: Verdict::Accept,
            });
        }
        Ok(assemble(withdrawn, announced, reach, collected))
    }
}

/// Puts the parts together and applies what was found wrong.
fn assemble(
    mut withdrawn: Vec<Nlri>,
    announced: Vec<Nlri>,
    reach: Option<Reach>,
    collected: Collected<'_>,
) -> Decoded {
    let mut update = Update::default();
    let verdict = if collected.unusable.is_some() {
        withdrawn.extend(announced);
        withdrawn.extend(reach.into_iter().flat_map(|reach| reach.nlri));
        Verdict::TreatAsWithdraw(collected.faults)
    } else {
        // Without NEXT_HOP the routes of the field would have been unusable.
        if let Some(next_hop) = collected.next_hop
            && !announced.is_empty()
        {
            update.reach.push(Reach {
                family: Family::Ipv4Unicast,
                next_hop,
                nlri: announced,
            });
        }
        update
            .reach
            .extend(reach.filter(|reach| !reach.nlri.is_empty()));
        if !update.reach.is_empty() {
            update.attributes = collected.attributes;
        }
        if collected.faults.is_empty() {
            Verdict::Accept
        } else {
            Verdict::DiscardedAttributes(collected.faults)
        }
    };
    update.withdrawn = withdrawn;
    Decoded {
        message: Message::Update(update),
        verdict,
    }
}

/// Reads the withdrawn routes or the NLRI field: IPv4, and read even where that family was not
/// negotiated, because what cannot be read ends the session (RFC 7606 §5.3).
fn read_field(
    octets: &[u8],
    context: &Context,
    routes: &mut Vec<Nlri>,
) -> Result<(), Notification> {
    let family = Family::Ipv4Unicast;
    let add_path = context.add_path_receive.contains(family);
    decode_nlri(family, add_path, octets, routes).map_err(|_| Notification::invalid_network_field())
}

fn skipped_field() -> AttributeFault {
    AttributeFault {
        code: NO_ATTRIBUTE,
        fault: Fault::Family {
            afi: Family::Ipv4Unicast.afi(),
            safi: Family::Ipv4Unicast.safi(),
        },
    }
}

/// The NOTIFICATION of RFC 4271 §6.3 for a fault that RFC 7606 does not let pass.
fn session_reset(fault: &AttributeFault, whole: &[u8]) -> Notification {
    match (&fault.fault, fault.code) {
        (Fault::Flags(_), _) => Notification::attribute_flags_error(whole),
        (Fault::Length(_) | Fault::Overrun, _) => Notification::attribute_length_error(whole),
        (Fault::Missing, code) => Notification::missing_well_known_attribute(code),
        (_, attribute_code::ORIGIN) => Notification::invalid_origin(whole),
        (_, attribute_code::AS_PATH) => Notification::malformed_as_path(),
        (_, attribute_code::NEXT_HOP) => Notification::invalid_next_hop(whole),
        _ => Notification::optional_attribute_error(whole),
    }
}
