//! The PROXY header, versions 1 and 2, that a load balancer puts before a client's first byte. Spec: wire-protocol
//! 12.3; format: HAProxy `proxy-protocol.txt`.
//!
//! Whom to believe is the gateway's business, and so is how long to wait.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A version 1 line with its CRLF. A longer one is an error.
pub const V1_BYTES_MAX: usize = 107;

const V1_PREFIX: &[u8] = b"PROXY ";
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_HEADER: usize = 16;

/// What the front of a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Perhaps a header: wait for more. At most 16 + 65,535 bytes, which is below the limit of unauthenticated bytes.
    NeedMore,
    /// No header: these bytes are the client's own.
    Absent,
    /// A header and its length. No address means the connection's own counts (a health check, or an unknown family).
    Header(Option<SocketAddr>, usize),
}

/// The bytes start like a header but are none: close.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed PROXY header")]
pub struct ProxyError;

/// Parses the header `buf` starts with, if it does. Call it again with more bytes after [`Parsed::NeedMore`].
pub fn parse(buf: &[u8]) -> Result<Parsed, ProxyError> {
    if begins(buf, V1_PREFIX) {
        parse_v1(buf)
    } else if begins(buf, V2_SIGNATURE) {
        parse_v2(buf)
    } else {
        Ok(Parsed::Absent)
    }
}

/// Whether `buf` starts with `prefix`, as far as it goes.
fn begins(buf: &[u8], prefix: &[u8]) -> bool {
    let n = buf.len().min(prefix.len());
    buf[..n] == prefix[..n]
}

fn parse_v1(buf: &[u8]) -> Result<Parsed, ProxyError> {
    let window = &buf[..buf.len().min(V1_BYTES_MAX)];
    let Some(end) = window.windows(2).position(|pair| pair == b"\r\n") else {
        return if window.len() < V1_BYTES_MAX {
            Ok(Parsed::NeedMore)
        } else {
            Err(ProxyError)
        };
    };
    let line = std::str::from_utf8(&window[V1_PREFIX.len()..end]).map_err(|_| ProxyError)?;
    Ok(Parsed::Header(v1_source(line)?, end + 2))
}

fn v1_source(line: &str) -> Result<Option<SocketAddr>, ProxyError> {
    let mut fields = line.split(' ');
    let family = fields.next().unwrap_or_default();
    if family == "UNKNOWN" {
        return Ok(None); // whatever follows is to be ignored
    }
    let mut field = || fields.next().ok_or(ProxyError);
    let source = v1_address(family, field()?)?;
    v1_address(family, field()?)?;
    let port = v1_port(field()?)?;
    v1_port(field()?)?;
    match fields.next() {
        None => Ok(Some(SocketAddr::new(source, port))),
        Some(_) => Err(ProxyError),
    }
}

fn v1_address(family: &str, text: &str) -> Result<IpAddr, ProxyError> {
    match family {
        "TCP4" => text.parse().map(IpAddr::V4).map_err(|_| ProxyError),
        "TCP6" => text.parse().map(IpAddr::V6).map_err(|_| ProxyError),
        _ => Err(ProxyError),
    }
}

fn v1_port(text: &str) -> Result<u16, ProxyError> {
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(ProxyError); // parse would take a sign
    }
    text.parse().map_err(|_| ProxyError)
}

fn parse_v2(buf: &[u8]) -> Result<Parsed, ProxyError> {
    let Some(header) = buf.first_chunk::<V2_HEADER>() else {
        return Ok(Parsed::NeedMore);
    };
    let [.., command, family, len_high, len_low] = *header;
    let len = usize::from(u16::from_be_bytes([len_high, len_low]));
    let local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err(ProxyError),
    };
    let end = V2_HEADER + len;
    let Some(body) = buf.get(V2_HEADER..end) else {
        return Ok(Parsed::NeedMore);
    };
    let source = if local {
        None
    } else {
        v2_source(family, body)?
    };
    Ok(Parsed::Header(source, end))
}

/// Source address of a body; what follows the addresses (TLVs) is ignored.
fn v2_source(family: u8, body: &[u8]) -> Result<Option<SocketAddr>, ProxyError> {
    match family >> 4 {
        1 => {
            let b = body.first_chunk::<12>().ok_or(ProxyError)?;
            let ip = Ipv4Addr::new(b[0], b[1], b[2], b[3]);
            Ok(Some((ip, u16::from_be_bytes([b[8], b[9]])).into()))
        }
        2 => {
            let b = body.first_chunk::<36>().ok_or(ProxyError)?;
            let ip = b.first_chunk::<16>().expect("36 bytes hold 16");
            let port = u16::from_be_bytes([b[32], b[33]]);
            Ok(Some((Ipv6Addr::from(*ip), port).into()))
        }
        3 if body.len() < 216 => Err(ProxyError),
        0 | 3 => Ok(None), // unspecified; a Unix socket has no address we could use
        _ => Err(ProxyError),
    }
}
