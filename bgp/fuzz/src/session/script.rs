//! From octets to steps. Each begins with an octet that says what, and for most things to whom.

use std::net::IpAddr;
use std::time::Duration;

use super::lab::Lab;
use super::settings::{self, BAD, bad_address};
use super::speech::{self, Routes};
use crate::input::Input;

pub(super) fn step(lab: &mut Lab, input: &mut Input<'_>) {
    let octet = input.octet();
    let who = usize::from(octet >> 5) % BAD;
    match octet & 31 {
        0 | 1 => {
            let length = usize::from(input.octet());
            lab.hear(who, input.octets(length));
        }
        2 | 3 => {
            let (kind, length) = (input.octet(), usize::from(input.octet()));
            lab.hear(who, &speech::framed(kind, input.octets(length)));
        }
        4 => {
            let length = usize::from(input.short() % 2048);
            lab.hear(who, &speech::framed(2, input.octets(length)));
        }
        5 => lab.hear(who, &speech::open(who, input.octet())),
        6 => lab.hear(who, &speech::keepalive()),
        7 | 8 => {
            let [first, count, choice] = [input.octet(), input.octet() % 65, input.octet()];
            lab.hear(
                who,
                &speech::update(
                    who,
                    &Routes {
                        first,
                        count,
                        choice,
                    },
                ),
            );
        }
        9 => lab.connect(who),
        10 => {
            // The whole way up.
            let choice = input.octet();
            lab.connect(who);
            lab.answer(who, true);
            lab.hear(who, &speech::open(who, choice));
            lab.hear(who, &speech::keepalive());
        }
        11 => lab.answer(who, input.octet() & 1 == 0),
        12 => lab.hang_up(who),
        13 => lab.pass(Duration::from_millis(u64::from(input.octet()) * 10)),
        14 => lab.pass(Duration::from_secs(input.octet().into())),
        15 => lab.read(who, usize::from(input.octet())),
        16 | 17 => lab.configure(|config| settings::change(config, input)),
        18 => lab.hear_in_pieces(who, usize::from(input.octet() % 16) + 1),
        19 => lab.bfd(bad_address(who), input.octet()),
        20 => lab.subscribe(input.octet()),
        21 => lab.refresh(if who == 5 {
            settings::FRIEND
        } else {
            bad_address(who)
        }),
        22 => lab.cost(IpAddr::from([192, 0, 2, input.octet()]), input.octet()),
        23 => lab.switch(who),
        24 => {
            let (family, kind) = (input.octet(), input.octet());
            lab.hear(who, &speech::framed(5, &[0, family % 4, kind, 1]));
        }
        25 => {
            // End-of-RIB of both families.
            lab.hear(who, &speech::framed(2, &[0; 4]));
            lab.hear(who, &speech::framed(2, &[0, 0, 0, 6, 0x80, 15, 3, 0, 2, 1]));
        }
        26 => lab.keep_alive(who, input.octet()),
        27 => lab.look(input.octet()),
        28 => lab.observe(input.octet()),
        29 => lab.bar(who, input.octet()),
        _ => lab.pass(Duration::from_secs(1)),
    }
}
