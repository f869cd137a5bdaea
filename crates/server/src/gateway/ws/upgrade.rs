//! The HTTP request that opens a WebSocket. Path, query, Host and Origin are not looked at (wire-protocol 12.2).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

use crate::limits::UPGRADE_BYTES_MAX;

/// RFC 6455 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

const END: &[u8] = b"\r\n\r\n";

/// An unfinished request.
#[derive(Debug, Default)]
pub(super) struct Upgrade {
    seen: Vec<u8>,
}

/// What some input led to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Not complete.
    More,
    /// Answer, and close.
    Refused(String),
    /// Answer, and go on with what follows the first `used` bytes of this input.
    Done { response: String, used: usize },
}

impl Upgrade {
    pub(super) fn read(&mut self, input: &[u8]) -> Progress {
        let before = self.seen.len();
        let room = UPGRADE_BYTES_MAX - before;
        self.seen.extend_from_slice(&input[..input.len().min(room)]);
        let from = before.saturating_sub(END.len() - 1);
        let found = self.seen[from..].windows(END.len()).position(|w| w == END);
        let Some(at) = found else {
            return if self.seen.len() == UPGRADE_BYTES_MAX {
                Progress::Refused(refusal("431 Request Header Fields Too Large", ""))
            } else {
                Progress::More
            };
        };
        let head = from + at;
        let used = head + END.len() - before;
        match accept(&self.seen[..head]) {
            Ok(response) => Progress::Done { response, used },
            Err(response) => Progress::Refused(response),
        }
    }
}

fn refusal(status: &str, headers: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}Connection: close\r\nContent-Length: 0\r\n\r\n")
}

/// The answer to a complete head, or the refusal.
fn accept(head: &[u8]) -> Result<String, String> {
    let bad = || refusal("400 Bad Request", "");
    let head = std::str::from_utf8(head).map_err(|_| bad())?;
    let mut lines = head.split("\r\n");
    let mut request = lines.next().unwrap_or_default().split(' ');
    let (method, target, version) = (request.next(), request.next(), request.next());
    if target.is_none_or(str::is_empty) || version != Some("HTTP/1.1") || request.next().is_some() {
        return Err(bad());
    }
    if method != Some("GET") {
        return Err(refusal("405 Method Not Allowed", "Allow: GET\r\n"));
    }
    let headers = Headers::parse(lines).ok_or_else(bad)?;
    if !headers.upgrades {
        let upgrade = "Upgrade: websocket\r\n";
        return Err(refusal("426 Upgrade Required", upgrade));
    }
    if headers.version != Some("13") {
        let version = "Sec-WebSocket-Version: 13\r\n";
        return Err(refusal("426 Upgrade Required", version));
    }
    let key = headers.key.filter(|key| is_key(key)).ok_or_else(bad)?;
    Ok(format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\r\n",
        accept_key(key)
    ))
}

/// What matters of the header fields.
#[derive(Default)]
struct Headers<'a> {
    upgrades: bool,
    version: Option<&'a str>,
    key: Option<&'a str>,
}

impl<'a> Headers<'a> {
    fn parse(lines: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut headers = Self::default();
        let (mut upgrade, mut connection) = (false, false);
        for line in lines {
            let (name, value) = line.split_once(':')?;
            let value = value.trim();
            if name.eq_ignore_ascii_case("upgrade") {
                upgrade |= has_token(value, "websocket");
            } else if name.eq_ignore_ascii_case("connection") {
                connection |= has_token(value, "upgrade");
            } else if name.eq_ignore_ascii_case("sec-websocket-version") {
                headers.version = Some(value);
            } else if name.eq_ignore_ascii_case("sec-websocket-key") {
                headers.key = Some(value);
            }
        }
        headers.upgrades = upgrade && connection;
        Some(headers)
    }
}

fn has_token(list: &str, token: &str) -> bool {
    list.split(',')
        .any(|one| one.trim().eq_ignore_ascii_case(token))
}

fn is_key(key: &str) -> bool {
    STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 16)
}

fn accept_key(key: &str) -> String {
    let digest = Sha1::new()
        .chain_update(key.as_bytes())
        .chain_update(GUID)
        .finalize();
    STANDARD.encode(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(request: &str) -> String {
        match Upgrade::default().read(request.as_bytes()) {
            Progress::Refused(text) | Progress::Done { response: text, .. } => text[9..12].into(),
            Progress::More => "more".into(),
        }
    }

    const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

    fn request(line: &str, headers: &str) -> String {
        format!("{line}\r\nUpgrade: WebSocket\r\nConnection: upgrade\r\n{headers}\r\n")
    }

    #[test]
    fn every_defect_has_its_status() {
        let get = "GET /x HTTP/1.1";
        let v13 = format!("{KEY}Sec-WebSocket-Version: 13\r\n");
        assert_eq!(status(&request(get, &v13)), "101");
        assert_eq!(status(&request("POST / HTTP/1.1", &v13)), "405");
        assert_eq!(status(&request("GET / HTTP/1.0", &v13)), "400");
        assert_eq!(status(&request("nonsense", &v13)), "400");
        assert_eq!(status(&request(get, KEY)), "426");
        assert_eq!(
            status(&request(get, "Sec-WebSocket-Version: 13\r\n")),
            "400"
        );
        let short = "Sec-WebSocket-Key: YWJj\r\nSec-WebSocket-Version: 13\r\n";
        assert_eq!(status(&request(get, short)), "400");
        assert_eq!(status("GET / HTTP/1.1\r\nno colon\r\n\r\n"), "400");
        assert_eq!(status("GET / HTTP/1.1\r\n\r\n"), "426");
    }

    #[test]
    fn an_endless_request_is_cut_off() {
        let mut upgrade = Upgrade::default();
        let line = [b'a'; 1_000];
        let mut answer = Progress::More;
        for _ in 0..=UPGRADE_BYTES_MAX / line.len() {
            answer = upgrade.read(&line);
        }
        assert!(matches!(answer, Progress::Refused(text) if text.contains("431")));
        assert!(upgrade.seen.len() <= UPGRADE_BYTES_MAX);
    }
}
