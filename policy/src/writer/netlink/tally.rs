//! What the table's chains have counted.

use std::collections::BTreeMap;

use super::{
    super::{Error, Tally},
    message::{Attributes, INET, SUBSYSTEM, TABLE, attribute, attributes, text},
    socket::Socket,
};
use crate::ruleset::Name;

const GET_RULE: u16 = SUBSYSTEM << 8 | 7;

pub(super) fn tallies(socket: &mut Socket) -> Result<BTreeMap<Name, Tally>, Error> {
    let mut question = Attributes::default();
    question.text(1, TABLE);
    let mut tallies = BTreeMap::new();
    for rule in socket.dump(GET_RULE, INET, &question)? {
        let is_ours = attribute(&rule, 1).is_some_and(|table| text(table) == TABLE);
        let (true, Some(chain)) = (is_ours, attribute(&rule, 2)) else {
            continue;
        };
        for (_, expression) in attribute(&rule, 4).map(attributes).unwrap_or_default() {
            if attribute(expression, 1).map(text).as_deref() != Some("counter") {
                continue;
            }
            let number = |kind: u16| {
                let bytes = attribute(expression, 2).and_then(|data| attribute(data, kind));
                let bytes = bytes.and_then(<[u8]>::first_chunk);
                bytes.map_or(0, |bytes| u64::from_be_bytes(*bytes))
            };
            let tally: &mut Tally = tallies.entry(text(chain)).or_default();
            tally.bytes += number(1);
            tally.packets += number(2);
        }
    }
    Ok(tallies)
}
