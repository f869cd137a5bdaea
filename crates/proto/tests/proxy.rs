//! PROXY headers as load balancers write them, whole and in pieces. Spec: wire-protocol 12.3.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;

use wk_proto::proxy::{Parsed, ProxyError, V1_BYTES_MAX, parse};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let len = u16::try_from(body.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[command, family], &len, body].concat()
}

fn address(text: &str) -> Option<SocketAddr> {
    Some(text.parse().unwrap())
}

/// Headers, and the address each gives.
fn good() -> Vec<(Vec<u8>, Option<SocketAddr>)> {
    let v4 = [&[10, 1, 2, 3, 10, 0, 0, 1][..], &[0x30, 0x39, 0x13, 0xEC]].concat();
    let mut v6 = vec![0; 32];
    v6[15] = 1;
    v6.extend([0, 80, 1, 187]);
    let with_tlv = [&v4[..], &[4, 0, 1, 7]].concat();
    vec![
        (
            b"PROXY TCP4 1.2.3.4 5.6.7.8 5678 80\r\n".to_vec(),
            address("1.2.3.4:5678"),
        ),
        (
            b"PROXY TCP6 2001:db8::1 ::1 1 65535\r\n".to_vec(),
            address("[2001:db8::1]:1"),
        ),
        (b"PROXY UNKNOWN\r\n".to_vec(), None),
        (b"PROXY UNKNOWN ff:: ?? whatever\r\n".to_vec(), None),
        (v2(0x21, 0x11, &v4), address("10.1.2.3:12345")),
        (v2(0x21, 0x11, &with_tlv), address("10.1.2.3:12345")),
        (v2(0x21, 0x12, &v4), address("10.1.2.3:12345")),
        (v2(0x21, 0x21, &v6), address("[::1]:80")),
        (v2(0x21, 0x31, &[0; 216]), None),
        (v2(0x21, 0x00, b""), None),
        (v2(0x21, 0x00, b"skipped"), None),
        (v2(0x20, 0x00, b""), None),
        (v2(0x20, 0x11, &v4), None),
        (v2(0x20, 0x11, b"short"), None),
        (v2(0x21, 0x00, &[0; 65_535]), None),
    ]
}

#[test]
fn headers_give_their_source_and_length() {
    for (mut bytes, source) in good() {
        let len = bytes.len();
        bytes.extend(b"\x10\x20client");
        assert_eq!(parse(&bytes), Ok(Parsed::Header(source, len)));
    }
}

#[test]
fn a_header_cut_anywhere_waits() {
    for (bytes, _) in good() {
        for cut in (0..bytes.len()).take(400) {
            assert_eq!(parse(&bytes[..cut]), Ok(Parsed::NeedMore), "cut at {cut}");
        }
    }
}

#[test]
fn what_looks_like_a_header_and_is_none_is_an_error() {
    let lines = [
        "PROXY \r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 5678\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 5678 80 90\r\n",
        "PROXY TCP4 1.2.3.4  5.6.7.8 5678 80\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 65536 80\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 +5678 80\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 5678 x\r\n",
        "PROXY TCP4 ::1 ::1 5678 80\r\n",
        "PROXY TCP6 1.2.3.4 5.6.7.8 5678 80\r\n",
        "PROXY UDP4 1.2.3.4 5.6.7.8 5678 80\r\n",
    ];
    let mut bad: Vec<Vec<u8>> = lines.iter().map(|line| line.as_bytes().to_vec()).collect();
    bad.push([b"PROXY UNKNOWN ", &[b'x'; V1_BYTES_MAX][..]].concat());
    bad.push(v2(0x22, 0x11, &[0; 12])); // neither LOCAL nor PROXY
    bad.push(v2(0x11, 0x11, &[0; 12])); // version 1 in a version 2 header
    bad.push(v2(0x21, 0x11, &[0; 11]));
    bad.push(v2(0x21, 0x21, &[0; 35]));
    bad.push(v2(0x21, 0x31, &[0; 215]));
    bad.push(v2(0x21, 0x41, &[0; 300]));
    for bytes in bad {
        assert_eq!(parse(&bytes), Err(ProxyError), "{bytes:?}");
    }
}

#[test]
fn clients_without_a_proxy_are_left_alone() {
    for bytes in [
        &b"\x10\x20\x05"[..],
        b"{\"method\"",
        b"\r\n{",
        b" {",
        b"GET / HTTP/1.1",
        b"PRX",
        b"\x16\x03",
    ] {
        assert_eq!(parse(bytes), Ok(Parsed::Absent), "{bytes:?}");
    }
}
