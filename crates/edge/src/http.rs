//! The business API over HTTP/1.1.
mod decode;
mod json;
mod message;
