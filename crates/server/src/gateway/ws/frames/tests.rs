use super::*;

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        0..=125 => out.push(MASKED | payload.len() as u8),
        126..=0xffff => {
            out.push(MASKED | 126);
            out.extend((payload.len() as u16).to_be_bytes());
        }
        _ => {
            out.push(MASKED | 127);
            out.extend((payload.len() as u64).to_be_bytes());
        }
    }
    out.extend(MASK);
    out.extend(
        payload
            .iter()
            .zip(0..)
            .map(|(b, n): (&u8, usize)| b ^ MASK[n % 4]),
    );
    out
}

fn read(input: &[u8]) -> (Output, Result<(), Code>) {
    let mut out = Output::default();
    let result = Decoder::default().read(input, &mut out);
    (out, result)
}

#[test]
fn the_example_of_the_rfc() {
    let (out, result) = read(&[
        0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
    ]);
    assert_eq!((&out.data[..], result), (&b"Hello"[..], Ok(())));
}

#[test]
fn all_lengths_in_all_pieces() {
    for len in [0, 1, 125, 126, 127, 65_535, 65_536, 70_000] {
        let payload: Vec<u8> = (0..len).map(|n| n as u8).collect();
        let mut input = frame(0x82, &payload);
        input.extend(frame(0x82, b"next"));
        for step in [1, 7, 4_096, input.len()] {
            let mut decoder = Decoder::default();
            let mut out = Output::default();
            for piece in input.chunks(step) {
                decoder.read(piece, &mut out).unwrap();
            }
            assert_eq!(out.data.len(), payload.len() + 4, "{len} in {step}");
            assert_eq!(&out.data[..payload.len()], &payload[..]);
        }
    }
}

#[test]
fn a_ping_between_fragments_is_answered_at_once() {
    let mut input = frame(0x02, b"ab");
    input.extend(frame(0x89, b"hi"));
    input.extend(frame(0x80, b"cd"));
    let (out, result) = read(&input);
    assert_eq!(result, Ok(()));
    assert_eq!(&out.data[..], b"abcd");
    assert_eq!(&out.reply[..], [0x8a, 2, b'h', b'i']);
    assert!(out.alive);
}

#[test]
fn broken_framing_ends_with_1002() {
    let mut unmasked = frame(0x82, b"a");
    unmasked[1] &= !MASKED;
    let long_ping = frame(0x89, &[0; 126]);
    let cases: [(&str, Vec<u8>); 7] = [
        ("unmasked", unmasked),
        ("reserved bit", frame(0xc2, b"a")),
        ("reserved opcode", frame(0x83, b"a")),
        ("continuation of nothing", frame(0x80, b"a")),
        ("fragmented ping", frame(0x09, b"a")),
        ("long ping", long_ping),
        (
            "new message inside one",
            [frame(0x02, b"a"), frame(0x82, b"b")].concat(),
        ),
    ];
    for (what, input) in cases {
        assert_eq!(read(&input).1, Err(Code::Protocol), "{what}");
    }
}

#[test]
fn good_data_before_a_broken_frame_counts() {
    let (out, result) = read(&[frame(0x82, b"good"), frame(0x83, b"bad")].concat());
    assert_eq!(&out.data[..], b"good");
    assert_eq!(result, Err(Code::Protocol));
}

#[test]
fn text_must_be_utf8_across_fragments() {
    let euro = "€".as_bytes();
    let good = [frame(0x01, &euro[..1]), frame(0x80, &euro[1..])].concat();
    assert_eq!(read(&good).1, Ok(()));
    assert_eq!(read(&frame(0x81, &euro[..2])).1, Err(Code::NotText));
    assert_eq!(read(&frame(0x81, &[0xff])).1, Err(Code::NotText));
    let overlong = [frame(0x01, &[0xe0]), frame(0x80, &[0x80, 0x80])].concat();
    assert_eq!(read(&overlong).1, Err(Code::NotText));
    assert_eq!(read(&frame(0x82, &[0xff])).1, Ok(()), "binary may");
}

#[test]
fn too_long_a_message_ends_with_1009_before_its_bytes_come() {
    let mut header = vec![0x82, MASKED | 127];
    header.extend((WS_MESSAGE_BYTES_MAX as u64 + 1).to_be_bytes());
    header.extend(MASK);
    assert_eq!(read(&header).1, Err(Code::TooBig));
    let mut endless = vec![0x82, MASKED | 127];
    endless.extend(u64::MAX.to_be_bytes());
    endless.extend(MASK);
    assert_eq!(read(&endless).1, Err(Code::TooBig));
}

#[test]
fn a_close_is_echoed() {
    let closed = |payload: &[u8]| read(&frame(0x88, payload)).1;
    assert_eq!(closed(&[]), Err(Code::Echo(None)));
    assert_eq!(closed(&[3, 0xe8, b'x']), Err(Code::Echo(Some(1000))));
    assert_eq!(closed(&[3]), Err(Code::Protocol));
    assert_eq!(
        closed(&[3, 0xed]),
        Err(Code::Protocol),
        "1005 is never sent"
    );
    assert_eq!(closed(&[3, 0xe8, 0xff]), Err(Code::NotText));
    let mut out = BytesMut::new();
    close_frame(Code::Echo(Some(1000)), &mut out);
    assert_eq!(&out[..], [0x88, 2, 3, 0xe8]);
}

#[test]
fn our_headers_have_the_shortest_length() {
    let header = |len| {
        let mut out = BytesMut::new();
        data_header(false, len, &mut out);
        out.to_vec()
    };
    assert_eq!(header(125), [0x82, 125]);
    assert_eq!(header(126), [0x82, 126, 0, 126]);
    assert_eq!(header(65_536), [0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
}
