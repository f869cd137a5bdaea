//! Answers and their envelopes (http-api 1.4), and the one place that turns errors into them.

use axum::body::Body;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use wk_chat::request::CallError;

use super::decode;
use super::json::Json;
use crate::service;

/// What a handler returns.
pub(super) type Answer = Result<Response<Body>, Failure>;

/// Why a route has no answer of its own.
#[derive(Debug)]
pub(super) enum Failure {
    /// The body cannot be decoded; the text is shown as the route wants it.
    Undecodable(String),
    /// The use case failed.
    Service(service::Error),
}

impl From<decode::Error> for Failure {
    fn from(error: decode::Error) -> Self {
        Self::Undecodable(error.0)
    }
}

impl From<service::Error> for Failure {
    fn from(error: service::Error) -> Self {
        Self::Service(error)
    }
}

/// How a route words an undecodable body.
pub(super) trait Wording<T> {
    /// `数据格式有误！`, without the reason.
    fn fixed_text(self) -> Result<T, Failure>;
    /// `数据格式有误！: ` and the reason.
    fn prefixed_text(self) -> Result<T, Failure>;
}

impl<T> Wording<T> for decode::Result<T> {
    fn fixed_text(self) -> Result<T, Failure> {
        self.map_err(|_| Failure::Undecodable("数据格式有误！".to_owned()))
    }

    fn prefixed_text(self) -> Result<T, Failure> {
        self.map_err(|e| Failure::Undecodable(format!("数据格式有误！: {}", e.0)))
    }
}

/// The answer of a request, whatever became of it.
pub(super) fn finish(answer: Answer) -> Response<Body> {
    match answer {
        Ok(response) => response,
        Err(Failure::Undecodable(text)) => error(StatusCode::BAD_REQUEST, &text),
        Err(Failure::Service(failure)) => service_error(&failure),
    }
}

/// The one mapping of errors to HTTP. Wrong requests: 400. Refusals and "no such message": 200 with a status in the body, as v2. No
/// answer from a group: 503, whether or not it had an effect is in the text.
fn service_error(failure: &service::Error) -> Response<Body> {
    match failure {
        service::Error::Invalid(text) => error(StatusCode::BAD_REQUEST, text),
        service::Error::NotFound => status(404),
        service::Error::Refused(reason) => status(u16::from(reason.code())),
        service::Error::Call(CallError::NotSent(_) | CallError::Unknown(_)) => {
            error(StatusCode::SERVICE_UNAVAILABLE, &failure.to_string())
        }
    }
}

/// `{"status":200}`.
pub(super) fn ok() -> Response<Body> {
    respond(StatusCode::OK, &br#"{"status":200}"#[..])
}

/// `{"status":n}` with HTTP 200.
pub(super) fn status(n: u16) -> Response<Body> {
    json(|o| {
        o.object(|o| {
            o.key("status").int(n);
        });
    })
}

/// `{"data":…,"status":200}`.
pub(super) fn data(write: impl FnOnce(&mut Json)) -> Response<Body> {
    json(|json| {
        json.object(|o| {
            o.key("data");
            write(o);
            o.key("status").int(200);
        });
    })
}

/// Any JSON with HTTP 200.
pub(super) fn json(write: impl FnOnce(&mut Json)) -> Response<Body> {
    /// Bytes most answers fit into.
    const SMALL: usize = 256;
    sized_json(SMALL, write)
}

/// [`json`] of about `bytes` bytes.
pub(super) fn sized_json(bytes: usize, write: impl FnOnce(&mut Json)) -> Response<Body> {
    let mut json = Json::with_capacity(bytes);
    write(&mut json);
    respond(StatusCode::OK, json.into_bytes())
}

/// Any JSON with any status.
pub(super) fn json_with(code: StatusCode, write: impl FnOnce(&mut Json)) -> Response<Body> {
    let mut response = json(write);
    *response.status_mut() = code;
    response
}

/// `{"msg":text,"status":n}` with HTTP status n.
pub(super) fn error(code: StatusCode, text: &str) -> Response<Body> {
    json_with(code, |json| {
        json.object(|o| {
            o.key("msg").text(text);
            o.key("status").int(code.as_u16());
        });
    })
}

/// A body of another kind than JSON.
pub(super) fn page(
    code: StatusCode,
    content_type: &'static str,
    body: impl Into<Body>,
) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = code;
    let content_type = HeaderValue::from_static(content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// No body at all.
pub(super) fn empty(code: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = code;
    response
}

fn respond(code: StatusCode, body: impl Into<Body>) -> Response<Body> {
    page(code, "application/json; charset=utf-8", body)
}
