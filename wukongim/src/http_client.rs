//! The smallest HTTP/1.1 client that our own tools need: one request at a time over a kept connection, no TLS, no redirects.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// Bytes of a response body; a longer one is an error.
const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes of all header lines; more are an error.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Milliseconds for a whole request; then it has failed.
const REQUEST_MS: u64 = 30_000;

/// Where an API is and how to be let in.
#[derive(Clone, Debug)]
pub struct Api {
    host: String,
    token: String,
}

/// An answer, whatever its status.
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// As sent.
    pub body: Vec<u8>,
}

/// One kept connection.
pub struct Http {
    stream: BufReader<TcpStream>,
    api: Api,
}

impl Api {
    /// `http://host:port` or `host:port`; `token` goes into the header of that name if not empty.
    pub fn new(url: &str, token: &str) -> Result<Self> {
        let host = url.trim_start_matches("http://").trim_end_matches('/');
        ensure!(
            !host.contains("://") && !host.contains('/') && host.contains(':'),
            "{url:?} is not an API address like http://127.0.0.1:5001"
        );
        Ok(Self {
            host: host.to_owned(),
            token: token.to_owned(),
        })
    }

    /// A connection.
    pub async fn connect(&self) -> Result<Http> {
        let stream = TcpStream::connect(&self.host)
            .await
            .with_context(|| format!("cannot reach the API at http://{}", self.host))?;
        stream.set_nodelay(true)?;
        Ok(Http {
            stream: BufReader::new(stream),
            api: self.clone(),
        })
    }

    /// POSTs on a connection of its own; anything but 200 is an error with the server's words.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.connect().await?.post(path, body).await
    }

    /// GETs likewise.
    pub async fn get(&self, path: &str) -> Result<Value> {
        let answer = self.connect().await?.request("GET", path, b"").await?;
        answer.json("GET", path)
    }
}

impl Http {
    /// POSTs; anything but 200 is an error with the server's words.
    pub async fn post(&mut self, path: &str, body: &Value) -> Result<Value> {
        let body = serde_json::to_vec(body)?;
        self.request("POST", path, &body).await?.json("POST", path)
    }

    /// One request and its answer. After an error the connection is of no more use.
    pub async fn request(&mut self, method: &str, path: &str, body: &[u8]) -> Result<Answer> {
        let limit = Duration::from_millis(REQUEST_MS);
        tokio::time::timeout(limit, self.exchange(method, path, body))
            .await
            .with_context(|| format!("{method} {path}: no answer within {REQUEST_MS} ms"))?
    }

    async fn exchange(&mut self, method: &str, path: &str, body: &[u8]) -> Result<Answer> {
        let Api { host, token } = &self.api;
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n").into_bytes();
        if !token.is_empty() {
            request.extend_from_slice(format!("token: {token}\r\n").as_bytes());
        }
        let json = "Content-Type: application/json";
        request.extend_from_slice(
            format!("{json}\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(),
        );
        request.extend_from_slice(body);
        self.stream.get_mut().write_all(&request).await?;
        self.answer().await
    }

    async fn answer(&mut self) -> Result<Answer> {
        let status_line = self.line().await?;
        let status = status_line
            .split(' ')
            .nth(1)
            .and_then(|s| s.parse().ok())
            .with_context(|| format!("not an HTTP answer: {status_line:?}"))?;
        let (mut length, mut chunked, mut head_bytes) = (None, false, 0);
        loop {
            let line = self.line().await?;
            head_bytes += line.len();
            ensure!(head_bytes <= HEAD_BYTES_MAX, "endless HTTP header");
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').unwrap_or((&line, ""));
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = Some(value.trim().parse::<usize>()?),
                "transfer-encoding" => chunked = value.to_ascii_lowercase().contains("chunked"),
                _ => {}
            }
        }
        let body = if chunked {
            self.chunks().await?
        } else {
            self.exactly(length.unwrap_or(0), Vec::new()).await?
        };
        Ok(Answer { status, body })
    }

    async fn line(&mut self) -> Result<String> {
        let mut line = Vec::new();
        let limit = HEAD_BYTES_MAX as u64;
        (&mut self.stream)
            .take(limit)
            .read_until(b'\n', &mut line)
            .await?;
        ensure!(line.ends_with(b"\n"), "the API closed the connection");
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    async fn chunks(&mut self) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line().await?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).context("broken chunk")?;
            body = self.exactly(size, body).await?;
            self.line().await?;
            if size == 0 {
                return Ok(body);
            }
        }
    }

    /// Appends `len` bytes of the body to `body`.
    async fn exactly(&mut self, len: usize, mut body: Vec<u8>) -> Result<Vec<u8>> {
        let start = body.len();
        ensure!(
            len <= BODY_BYTES_MAX - start.min(BODY_BYTES_MAX),
            "HTTP body is over {BODY_BYTES_MAX} bytes"
        );
        body.resize(start + len, 0);
        self.stream.read_exact(&mut body[start..]).await?;
        Ok(body)
    }
}

impl Answer {
    fn json(&self, method: &str, path: &str) -> Result<Value> {
        let value: Option<Value> = serde_json::from_slice(&self.body).ok();
        if self.status == 200 {
            return value.with_context(|| format!("{method} {path}: the answer is not JSON"));
        }
        let words = value
            .as_ref()
            .and_then(|v| v["msg"].as_str().or(v["error"].as_str()));
        bail!(
            "{method} {path}: the server answers {}{}{}",
            self.status,
            if words.is_some() { ": " } else { "" },
            words.unwrap_or_default()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// Answers each request of one connection with the next text; yields the requests.
    async fn serve(listener: TcpListener, answers: &[&str]) -> Vec<String> {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut requests = Vec::new();
        for answer in answers {
            let mut request = Vec::new();
            while !request.ends_with(b"{}") {
                request.push(stream.read_u8().await.unwrap());
            }
            requests.push(String::from_utf8(request).unwrap());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        requests
    }

    #[tokio::test]
    async fn both_body_forms_and_refusals() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let api = Api::new(&url, "t0").unwrap();
        let ask = async {
            let mut http = api.connect().await.unwrap();
            let empty = serde_json::json!({});
            let plain = http.post("/a", &empty).await.unwrap();
            let chunked = http.post("/b", &empty).await.unwrap();
            let refused = http.post("/c", &empty).await.unwrap_err();
            (plain, chunked, refused.to_string())
        };
        let answers = [
            "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n{\"x\":1}",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n{\"x\"\r\n3;e\r\n:2}\r\n0\r\n\r\n",
            "HTTP/1.1 400 Bad\r\ncontent-length: 13\r\n\r\n{\"msg\":\"why\"}",
        ];
        let ((plain, chunked, refused), requests) = tokio::join!(ask, serve(listener, &answers));
        assert_eq!(
            (plain["x"].as_u64(), chunked["x"].as_u64()),
            (Some(1), Some(2))
        );
        assert_eq!(refused, "POST /c: the server answers 400: why");
        assert!(requests[0].starts_with("POST /a HTTP/1.1\r\n"));
        assert!(requests[0].contains("\r\ntoken: t0\r\n"));
    }

    #[test]
    fn addresses() {
        assert!(Api::new("127.0.0.1:5001", "").is_ok());
        for bad in ["https://h:1", "http://h:1/x", "host"] {
            assert!(Api::new(bad, "").is_err(), "{bad}");
        }
    }
}
