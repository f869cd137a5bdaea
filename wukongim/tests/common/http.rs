//! One request on one connection.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use super::PATIENCE;

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// `None`: nobody there, or the connection broke before the answer was complete.
pub fn try_request(to: SocketAddr, method: &str, path: &str, body: &[u8]) -> Option<Answer> {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    try_raw(to, &[head.as_bytes(), body].concat())
}

/// Whatever bytes, and the answer if there is a complete one.
pub fn try_raw(to: SocketAddr, bytes: &[u8]) -> Option<Answer> {
    let mut socket = TcpStream::connect_timeout(&to, PATIENCE).ok()?;
    socket.set_read_timeout(Some(PATIENCE)).ok()?;
    // A server that refuses early may have closed already; its answer counts.
    let _ = socket.write_all(bytes);
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    parse(&answer)
}

pub fn request(to: SocketAddr, method: &str, path: &str, body: &[u8]) -> Answer {
    try_request(to, method, path, body).unwrap_or_else(|| panic!("no answer to {method} {path}"))
}

fn parse(answer: &[u8]) -> Option<Answer> {
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let body = answer[end + 4..].to_vec();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"));
    let complete = length.is_none_or(|n| n.trim().parse() == Ok(body.len()));
    complete.then_some(Answer { status, body })
}
