//! Typed params. Written by hand on serde_json, because the derive would take arrays for objects and refuse repeated
//! members. As in the reference: unknown members are ignored, `null` is the default, the last repetition wins.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::limits::STR_BYTES_MAX;
use crate::record::{Flags, setting};

/// A JSON string, borrowed from the input unless it has escapes.
#[derive(Debug, Default)]
pub(super) struct Text<'a>(pub Cow<'a, str>);

impl Text<'_> {
    /// As bytes that share `source`, the buffer this was parsed from.
    pub(super) fn into_bytes(self, source: &Bytes) -> Bytes {
        match self.0 {
            Cow::Borrowed("") => Bytes::new(),
            Cow::Borrowed(text) => source.slice_ref(text.as_bytes()),
            Cow::Owned(text) => text.into(),
        }
    }

    /// Like [`Self::into_bytes`]; `None` if the binary protocol could not carry it.
    pub(super) fn into_str_field(self, source: &Bytes) -> Option<Bytes> {
        (self.0.len() <= STR_BYTES_MAX).then(|| self.into_bytes(source))
    }
}

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        d.deserialize_str(TextVisitor)
    }
}

/// Parses an object of params; `null` is all defaults. Anything else is an error.
pub(super) fn parse<'a, T: Deserialize<'a> + Default>(
    raw: &'a RawValue,
) -> Result<T, serde_json::Error> {
    serde_json::from_str::<Option<T>>(raw.get()).map(Option::unwrap_or_default)
}

macro_rules! object {
    ($name:ident<$life:lifetime> { $($json:literal $field:ident: $type:ty,)* }) => {
        #[derive(Debug, Default)]
        pub(super) struct $name<$life> {
            $(pub $field: $type,)*
            pub unused: std::marker::PhantomData<&$life ()>,
        }

        impl<$life> Deserialize<$life> for $name<$life> {
            fn deserialize<D: Deserializer<$life>>(d: D) -> Result<Self, D::Error> {
                struct ObjectVisitor;
                impl<$life> Visitor<$life> for ObjectVisitor {
                    type Value = $name<$life>;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("an object")
                    }

                    fn visit_map<A: MapAccess<$life>>(self, mut map: A) -> Result<$name<$life>, A::Error> {
                        #[allow(unused_mut, reason = "an object may have no members to set")]
                        let mut object = $name::default();
                        while let Some(key) = map.next_key::<Text<$life>>()? {
                            match &*key.0 {
                                $($json => object.$field = map.next_value::<Option<$type>>()?.unwrap_or_default(),)*
                                _ => { map.next_value::<IgnoredAny>()?; }
                            }
                        }
                        Ok(object)
                    }
                }
                d.deserialize_map(ObjectVisitor)
            }
        }
    };
}

object!(Header<'a> {
    "noPersist" no_persist: bool,
    "redDot" red_dot: bool,
    "syncOnce" sync_once: bool,
    "dup" dup: bool,
    "end" end: bool,
});

impl Header<'_> {
    pub(super) fn flags(&self) -> Flags {
        Flags::default()
            .with(Flags::NO_PERSIST, self.no_persist)
            .with(Flags::RED_DOT, self.red_dot)
            .with(Flags::SYNC_ONCE, self.sync_once)
            .with(Flags::DUP, self.dup)
    }
}

object!(Setting<'a> {
    "receipt" receipt: bool,
    "signal" signal: bool,
    "stream" stream: bool,
    "topic" topic: bool,
});

impl Setting<'_> {
    pub(super) fn byte(&self) -> u8 {
        let bit = |on: bool, mask: u8| if on { mask } else { 0 };
        bit(self.receipt, setting::RECEIPT)
            | bit(self.signal, setting::SIGNAL)
            | bit(self.stream, setting::STREAM)
            | bit(self.topic, setting::TOPIC)
    }
}

object!(Connect<'a> {
    "header" header: Header<'a>,
    "uid" uid: Text<'a>,
    "token" token: Text<'a>,
    "deviceId" device_id: Text<'a>,
    "deviceFlag" device_flag: u8,
    "clientTimestamp" client_timestamp: i64,
    "version" version: u8,
    "clientKey" client_key: Text<'a>,
});

object!(Send<'a> {
    "header" header: Header<'a>,
    "setting" setting: Setting<'a>,
    "channelId" channel_id: Text<'a>,
    "channelType" channel_type: u8,
    "payload" payload: Text<'a>,
    "clientMsgNo" client_msg_no: Text<'a>,
    "expire" expire: u32,
    "topic" topic: Text<'a>,
    "msgKey" msg_key: Text<'a>,
    "streamNo" stream_no: Text<'a>,
});

object!(Recvack<'a> {
    "header" header: Header<'a>,
    "messageId" message_id: Text<'a>,
    "messageSeq" message_seq: u32,
});

object!(Disconnect<'a> {
    "header" header: Header<'a>,
    "reasonCode" reason_code: u8,
    "reason" reason: Text<'a>,
});

// Nothing in it is read, but it must be an object.
object!(Ping<'a> {});
