//! The outer object: which kind of message is it, and may a client send it? Spec: jsonrpc 2, 6.

use std::fmt;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::params::Text;
use super::{ErrorCode, REQUEST_ID_BYTES_MAX};

/// The members that decide; each `None` when absent, which is not the same as `null`.
#[derive(Default)]
pub(super) struct Envelope<'a> {
    jsonrpc: Option<&'a RawValue>,
    id: Option<&'a RawValue>,
    method: Option<&'a RawValue>,
    pub params: Option<&'a RawValue>,
}

/// What is wrong with an envelope.
type Invalid = (ErrorCode, &'static str);

impl<'a> Envelope<'a> {
    /// The id, if it is one: a string of bounded length. What to answer errors with.
    pub(super) fn id(&self, source: &Bytes) -> Result<Option<Bytes>, Invalid> {
        let Some(raw) = self.id else {
            return Ok(None);
        };
        let id = string(raw).ok_or((ErrorCode::InvalidRequest, "id must be a string"))?;
        if id.0.len() > REQUEST_ID_BYTES_MAX {
            return Err((ErrorCode::InvalidRequest, "id is too long"));
        }
        Ok(Some(id.into_bytes(source)))
    }

    /// The method, once everything around it is in order.
    pub(super) fn method(&self) -> Result<Text<'a>, Invalid> {
        let is_v2 = |raw| string(raw).is_some_and(|v| v.0 == "2.0");
        if !self.jsonrpc.is_none_or(is_v2) {
            return Err((ErrorCode::InvalidRequest, "jsonrpc must be \"2.0\""));
        }
        // Without a method it is a response or nothing at all: neither is a client's to send.
        let raw = self
            .method
            .ok_or((ErrorCode::InvalidRequest, "not a request"))?;
        string(raw)
            .filter(|method| !method.0.is_empty())
            .ok_or((ErrorCode::InvalidRequest, "method must be a string"))
    }
}

fn string(raw: &RawValue) -> Option<Text<'_>> {
    serde_json::from_str(raw.get()).ok()
}

impl<'de> Deserialize<'de> for Envelope<'de> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct EnvelopeVisitor;
        impl<'de> Visitor<'de> for EnvelopeVisitor {
            type Value = Envelope<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut envelope = Envelope::default();
                while let Some(key) = map.next_key::<Text<'de>>()? {
                    let member = match &*key.0 {
                        "jsonrpc" => &mut envelope.jsonrpc,
                        "id" => &mut envelope.id,
                        "method" => &mut envelope.method,
                        "params" => &mut envelope.params,
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                    *member = Some(map.next_value()?);
                }
                Ok(envelope)
            }
        }
        d.deserialize_map(EnvelopeVisitor)
    }
}
