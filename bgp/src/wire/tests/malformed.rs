//! What must end a session: headers, OPEN and ROUTE-REFRESH messages that are wrong.

use super::*;

fn frame(text: &str, context: &Context) -> Result<Option<usize>, (u8, u8, Vec<u8>)> {
    frame_length(&hex(text), context).map_err(|n| (n.code, n.subcode, n.data.to_vec()))
}

#[test]
fn frames_are_delimited_or_refused() {
    let marker = "ff".repeat(16);
    let short = Context::default();
    let long = Context {
        extended_messages: true,
        ..short
    };
    for (header, context, expected) in [
        ("0013 04", &short, Ok(Some(19))),
        ("0013 0", &short, Ok(None)),
        ("", &short, Ok(None)),
        ("0017 02", &short, Ok(Some(23))),
        ("1000 02", &short, Ok(Some(4096))),
        ("1001 02", &short, Err((1, 2, "1001"))),
        ("1001 02", &long, Ok(Some(4097))),
        ("ffff 02", &long, Ok(Some(65535))),
        ("ffff 03", &long, Ok(Some(65535))),
        // RFC 8654 §4.
        ("1001 01", &long, Err((1, 2, "1001"))),
        ("0014 04", &long, Err((1, 2, "0014"))),
        // One below what each type needs.
        ("0012 04", &short, Err((1, 2, "0012"))),
        ("0000 02", &short, Err((1, 2, "0000"))),
        ("001c 01", &short, Err((1, 2, "001c"))),
        ("0016 02", &short, Err((1, 2, "0016"))),
        ("0014 03", &short, Err((1, 2, "0014"))),
        ("0014 04", &short, Err((1, 2, "0014"))),
        ("0016 05", &short, Err((1, 2, "0016"))),
        ("0013 00", &short, Err((1, 3, "00"))),
        ("0013 06", &short, Err((1, 3, "06"))),
        ("0013 63", &short, Err((1, 3, "63"))),
    ] {
        let mut text = marker.clone() + header;
        if header == "0013 0" {
            text = marker.clone() + "0013";
        }
        let expected = expected.map_err(|(code, subcode, data)| (code, subcode, hex(data)));
        assert_eq!(frame(&text, context), expected, "{header}");
    }
}

#[test]
fn a_wrong_marker_is_refused_at_once() {
    let refused = Err((1, 1, vec![]));
    for text in [
        "00",
        "fffe",
        "474554202f",
        "ffffffffffffffffffffffffffffff00 0013 04",
    ] {
        assert_eq!(frame(text, &Context::default()), refused, "{text}");
    }
}

#[test]
fn decoding_wants_exactly_one_message() {
    let mut two = framed(MessageType::Keepalive, &[]);
    two.extend(two.clone());
    for octets in [&two[..], &two[..18], &[]] {
        assert!(decode(octets, &Context::default()).is_err());
    }
}

#[test]
fn malformed_open_messages_end_the_session() {
    let head = "04 fc00 005a 0a000001";
    for (body, code, subcode) in [
        ("03 fc00 005a 0a000001 00".to_owned(), 2, 1),
        ("05 fc00 005a 0a000001 00".to_owned(), 2, 1),
        ("04 0000 005a 0a000001 00".to_owned(), 2, 2),
        (
            "04 fc00 005a 0a000001 08 02 06 4104 00000000".to_owned(),
            2,
            2,
        ),
        ("04 fc00 0001 0a000001 00".to_owned(), 2, 6),
        ("04 fc00 0002 0a000001 00".to_owned(), 2, 6),
        ("04 fc00 005a 00000000 00".to_owned(), 2, 3),
        // Parameters that say they are longer or shorter than they are.
        (format!("{head} 04 02 02 02"), 2, 0),
        (format!("{head} 04 02 02 0200 00"), 2, 0),
        (format!("{head} 00 00"), 2, 0),
        (format!("{head} 01 02"), 2, 0),
        (format!("{head} 02 02 02"), 2, 0),
        // The old authentication parameter, and one that never was.
        (format!("{head} 03 01 01 00"), 2, 4),
        (format!("{head} 02 63 00"), 2, 4),
        // Capabilities: cut off, and longer than their parameter.
        (format!("{head} 03 02 01 02"), 2, 0),
        (format!("{head} 04 02 02 0201"), 2, 0),
        (format!("{head} 04 02 02 41ff"), 2, 0),
        // Capabilities of a length they cannot have.
        (format!("{head} 05 02 03 0103 00"), 2, 0),
        (format!("{head} 07 02 05 0103 0001 00"), 2, 0),
        (format!("{head} 09 02 07 0105 0001 00 01 00"), 2, 0),
        (format!("{head} 05 02 03 0201 00"), 2, 0),
        (format!("{head} 05 02 03 0601 00"), 2, 0),
        (format!("{head} 05 02 03 4601 00"), 2, 0),
        (format!("{head} 04 02 02 0900"), 2, 0),
        (format!("{head} 06 02 04 0902 0000"), 2, 0),
        (format!("{head} 07 02 05 4103 000001"), 2, 0),
        (format!("{head} 05 02 03 4001 00"), 2, 0),
        (format!("{head} 07 02 05 4003 0078 00"), 2, 0),
        (format!("{head} 07 02 05 4503 0001 01"), 2, 0),
        (format!("{head} 05 02 03 0501 00"), 2, 0),
        (format!("{head} 0a 02 08 4706 0001 01 80 0001"), 2, 0),
        // RFC 9072: cut off in each of its fields (CVE-2022-40302, 40318, 43681).
        (format!("{head} ff"), 2, 0),
        (format!("{head} ff ff"), 2, 0),
        (format!("{head} ff ff 00"), 2, 0),
        (format!("{head} ff ff 0001"), 2, 0),
        (format!("{head} ff ff 0001 02"), 2, 0),
        (format!("{head} ff ff 0002 0200"), 2, 0),
        (format!("{head} ff ff 0003 02 ffff"), 2, 0),
        (format!("{head} ff ff 0005 02 0003 0200"), 2, 0),
        (format!("{head} ff ff 0006 02 0002 0200"), 2, 0),
        (format!("{head} ff ff ffff 02 0002 0200"), 2, 0),
    ] {
        let octets = framed(MessageType::Open, &hex(&body));
        let refused = decode(&octets, &Context::default()).unwrap_err();
        assert_eq!((refused.code, refused.subcode), (code, subcode), "{body}");
    }
}

#[test]
fn a_marked_refresh_of_a_wrong_length_ends_the_session() {
    for subtype in ["01", "02"] {
        let octets = framed(
            MessageType::RouteRefresh,
            &hex(&format!("0001 {subtype} 01 00")),
        );
        let refused = decode(&octets, &external()).unwrap_err();
        assert_eq!(refused, Notification::invalid_refresh_length(&octets));
    }
}
