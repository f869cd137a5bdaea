//! What the outside world talks to besides the client protocols: the use cases, and the business API over HTTP.
//!
//! * [`service`]: typed requests, validation, calls; knows nothing of HTTP;
//! * [`http`]: routes, decoding, encoding, access; knows nothing of groups and slots.

pub mod http;
pub mod service;
