//! Typed fields of a decoded object (http-api 1.3): unknown members are ignored, names match whatever their case, `null` is the zero
//! value, the last duplicate wins, and of several wrong members the first one in the body is reported.

use std::borrow::Cow;

use bytes::Bytes;

use super::payload;
use super::syntax::{self, Value};
use super::{Error, Result};

/// Decodes a body that is one object. `name` is the request's name in error texts; empty = none.
pub(crate) fn object<T>(
    body: &[u8],
    name: &'static str,
    read: impl FnOnce(&mut Fields<'_, '_>) -> T,
) -> Result<T> {
    let members = match syntax::parse(body).map_err(Error)? {
        Value::Object(members) => members,
        Value::Null => Vec::new(),
        other => {
            let kind = other.kind();
            let shown = match name {
                "" => "struct".to_owned(),
                name => format!("api.{name}"),
            };
            return Err(Error(format!(
                "json: cannot unmarshal {kind} into Go value of type {shown}"
            )));
        }
    };
    let mut fields = Fields::new(&members, name, "");
    let value = read(&mut fields);
    match fields.wrong {
        Some((_, text)) => Err(Error(text)),
        None => Ok(value),
    }
}

/// Decodes a body that is one array of texts; `null` is `None`.
pub(crate) fn texts(body: &[u8]) -> Result<Option<Vec<String>>> {
    let items = match syntax::parse(body).map_err(Error)? {
        Value::Array(items) => items,
        Value::Null => return Ok(None),
        other => {
            let kind = other.kind();
            return Err(Error(format!(
                "json: cannot unmarshal {kind} into Go value of type []string"
            )));
        }
    };
    let mut out = Vec::with_capacity(items.len());
    for item in items {
        match item {
            Value::Text(text) => out.push(text.into_owned()),
            Value::Null => out.push(String::new()),
            other => {
                let kind = other.kind();
                return Err(Error(format!(
                    "json: cannot unmarshal {kind} into Go value of type string"
                )));
            }
        }
    }
    Ok(Some(out))
}

/// The members of one object, read field by field. A wrong member yields the zero value and is remembered.
pub(crate) struct Fields<'v, 'a> {
    members: &'v [(Cow<'a, str>, Value<'a>)],
    /// Name of the innermost object in error texts.
    name: &'static str,
    /// `outer.` of a nested object.
    prefix: &'static str,
    /// Position and text of the first wrong member.
    wrong: Option<(usize, String)>,
}

impl<'v, 'a> Fields<'v, 'a> {
    fn new(
        members: &'v [(Cow<'a, str>, Value<'a>)],
        name: &'static str,
        prefix: &'static str,
    ) -> Self {
        Self {
            members,
            name,
            prefix,
            wrong: None,
        }
    }

    /// A string.
    pub(crate) fn text(&mut self, field: &str) -> String {
        self.read(field, "string", |value| match value {
            Value::Text(text) => Ok(text.to_string()),
            other => Err(other.kind().into()),
        })
    }

    /// A signed integer of 64 bits (v2's `int` and `int64`).
    pub(crate) fn int(&mut self, field: &str) -> i64 {
        self.integer(field, "int")
    }

    /// As [`Self::int`], where v2's type is `int64`.
    pub(crate) fn int64(&mut self, field: &str) -> i64 {
        self.integer(field, "int64")
    }

    /// 0..=255.
    pub(crate) fn u8(&mut self, field: &str) -> u8 {
        self.integer(field, "uint8")
    }

    /// 0..=255, where v2's type has a name of its own.
    pub(crate) fn u8_named(&mut self, field: &str, type_name: &str) -> u8 {
        self.integer(field, type_name)
    }

    /// An unsigned integer of 32 bits.
    pub(crate) fn u32(&mut self, field: &str) -> u32 {
        self.integer(field, "uint32")
    }

    /// An unsigned integer of 64 bits.
    pub(crate) fn u64(&mut self, field: &str) -> u64 {
        self.integer(field, "uint64")
    }

    /// An integer of which only 1 means yes.
    pub(crate) fn flag(&mut self, field: &str) -> bool {
        self.int(field) == 1
    }

    /// Base64, or an array of numbers 0..=255.
    pub(crate) fn bytes(&mut self, field: &str) -> Bytes {
        let (name, prefix) = (self.name, self.prefix);
        self.read_or(field, |value| match value {
            Value::Text(text) => payload::decode(text).map(Bytes::from),
            Value::Array(items) => items
                .iter()
                .map(|item| integer(item).map_err(|kind| wrong(kind, name, prefix, field, "uint8")))
                .collect::<std::result::Result<Vec<u8>, _>>()
                .map(Bytes::from),
            other => Err(wrong(other.kind(), name, prefix, field, "[]uint8")),
        })
    }

    /// An array of strings.
    pub(crate) fn texts(&mut self, field: &str) -> Vec<String> {
        self.items(field, "string", |value| match value {
            Value::Text(text) => Ok(text.to_string()),
            Value::Null => Ok(String::new()),
            other => Err(other.kind().into()),
        })
    }

    /// An array of unsigned integers of 64 bits.
    pub(crate) fn u64s(&mut self, field: &str, type_name: &str) -> Vec<u64> {
        self.items(field, type_name, integer)
    }

    /// An array of signed integers of 64 bits.
    pub(crate) fn int64s(&mut self, field: &str) -> Vec<i64> {
        self.items(field, "int64", integer)
    }

    /// A nested object; `null` or absent = one without members.
    pub(crate) fn object<T>(
        &mut self,
        field: &'static str,
        name: &'static str,
        prefix: &'static str,
        read: impl FnOnce(&mut Fields<'_, '_>) -> T,
    ) -> T {
        let found = self.last(field);
        let members: &[_] = match found {
            Some((_, Value::Object(members))) => members,
            _ => &[],
        };
        let mut nested = Fields::new(members, name, prefix);
        let value = read(&mut nested);
        let wrong_inside = nested.wrong.map(|(_, text)| text);
        if let Some((at, found)) = found {
            let text = match found {
                Value::Object(_) | Value::Null => wrong_inside,
                other => Some(wrong(other.kind(), self.name, self.prefix, field, name)),
            };
            self.remember(at, text);
        }
        value
    }

    /// An array of objects.
    pub(crate) fn objects<T>(
        &mut self,
        field: &'static str,
        prefix: &'static str,
        read: impl Fn(&mut Fields<'_, '_>) -> T,
    ) -> Vec<T> {
        let Some((at, found)) = self.last(field) else {
            return Vec::new();
        };
        let items = match found {
            Value::Array(items) => items.as_slice(),
            Value::Null => &[],
            other => {
                let text = wrong(other.kind(), self.name, self.prefix, field, "[]struct");
                self.remember(at, Some(text));
                &[]
            }
        };
        let mut out = Vec::with_capacity(items.len());
        for item in items {
            let members: &[_] = match item {
                Value::Object(members) => members,
                Value::Null => &[],
                other => {
                    let text = wrong(other.kind(), self.name, self.prefix, field, "struct");
                    self.remember(at, Some(text));
                    continue;
                }
            };
            let mut fields = Fields::new(members, self.name, prefix);
            out.push(read(&mut fields));
            self.remember(at, fields.wrong.map(|(_, text)| text));
        }
        out
    }

    fn integer<T: std::str::FromStr + Default>(&mut self, field: &str, type_name: &str) -> T {
        self.read(field, type_name, integer)
    }

    fn items<T>(
        &mut self,
        field: &str,
        type_name: &str,
        read: impl Fn(&Value<'_>) -> std::result::Result<T, Cow<'static, str>>,
    ) -> Vec<T> {
        let (name, prefix) = (self.name, self.prefix);
        self.read_or(field, |value| match value {
            Value::Array(items) => items
                .iter()
                .map(|item| read(item).map_err(|kind| wrong(&kind, name, prefix, field, type_name)))
                .collect(),
            other => {
                let list = format!("[]{type_name}");
                Err(wrong(other.kind(), name, prefix, field, &list))
            }
        })
    }

    fn read<T: Default>(
        &mut self,
        field: &str,
        type_name: &str,
        read: impl Fn(&Value<'_>) -> std::result::Result<T, Cow<'static, str>>,
    ) -> T {
        let (name, prefix) = (self.name, self.prefix);
        self.read_or(field, |value| {
            read(value).map_err(|kind| wrong(&kind, name, prefix, field, type_name))
        })
    }

    /// Every duplicate is read, so that a wrong one is reported even if a right one follows.
    fn read_or<T: Default>(
        &mut self,
        field: &str,
        read: impl Fn(&Value<'_>) -> std::result::Result<T, String>,
    ) -> T {
        let mut last = T::default();
        for (at, (key, value)) in self.members.iter().enumerate() {
            if !key.eq_ignore_ascii_case(field) || *value == Value::Null {
                continue;
            }
            match read(value) {
                Ok(value) => last = value,
                Err(text) => self.remember(at, Some(text)),
            }
        }
        last
    }

    fn last(&self, field: &str) -> Option<(usize, &'v Value<'a>)> {
        let members = self.members.iter().enumerate().rev();
        members
            .filter(|(_, (key, _))| key.eq_ignore_ascii_case(field))
            .map(|(at, (_, value))| (at, value))
            .next()
    }

    fn remember(&mut self, at: usize, text: Option<String>) {
        if let Some(text) = text
            && self.wrong.as_ref().is_none_or(|(first, _)| at < *first)
        {
            self.wrong = Some((at, text));
        }
    }
}

/// An integer, or what to call the value in the error text. Numbers show their text: `1.0` is a number, not an integer.
fn integer<T: std::str::FromStr + Default>(
    value: &Value<'_>,
) -> std::result::Result<T, Cow<'static, str>> {
    match value {
        Value::Number(text) => text.parse().map_err(|_| format!("number {text}").into()),
        Value::Null => Ok(T::default()),
        other => Err(other.kind().into()),
    }
}

fn wrong(kind: impl AsRef<str>, name: &str, prefix: &str, field: &str, type_name: &str) -> String {
    let kind = kind.as_ref();
    format!(
        "json: cannot unmarshal {kind} into Go struct field {name}.{prefix}{field} of type {type_name}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq)]
    struct Sample {
        uid: String,
        flag: u8,
        level: i64,
        payload: Bytes,
        uids: Vec<String>,
        red_dot: bool,
    }

    fn sample(body: &str) -> std::result::Result<Sample, String> {
        object(body.as_bytes(), "Req", |f| Sample {
            uid: f.text("uid"),
            flag: f.u8("flag"),
            level: f.int("level"),
            payload: f.bytes("payload"),
            uids: f.texts("uids"),
            red_dot: f.object("header", "Header", "header.", |h| h.flag("red_dot")),
        })
        .map_err(|e| e.0)
    }

    #[test]
    fn tolerates_what_v2_tolerates() {
        let uid = |body: &str| sample(body).unwrap().uid;
        assert_eq!(sample("null").unwrap(), Sample::default());
        assert_eq!(uid(r#"{"UID":"a"}"#), "a");
        assert_eq!(uid(r#"{"uid":"a","uid":"b"} rest"#), "b");
        assert_eq!(uid(r#"{"uid":"a","uid":null,"nope":{"x":[1]}}"#), "a");
        assert_eq!(uid(r#"{"uid":null}"#), "");
        let full = sample(
            r#"{"flag":255,"level":-3,"payload":[104,105],"uids":["a",null],"header":{"red_dot":1}}"#,
        )
        .unwrap();
        assert_eq!((full.flag, full.level, full.red_dot), (255, -3, true));
        assert_eq!(&full.payload[..], b"hi");
        assert_eq!(full.uids, ["a", ""]);
        assert!(!sample(r#"{"header":{"red_dot":2}}"#).unwrap().red_dot);
    }

    #[test]
    fn texts_of_wrong_members() {
        let cannot = "json: cannot unmarshal ";
        for (body, text) in [
            (
                r#"{"uid":5}"#,
                "number into Go struct field Req.uid of type string",
            ),
            (
                r#"{"flag":300}"#,
                "number 300 into Go struct field Req.flag of type uint8",
            ),
            (
                r#"{"flag":-1}"#,
                "number -1 into Go struct field Req.flag of type uint8",
            ),
            (
                r#"{"flag":1.0}"#,
                "number 1.0 into Go struct field Req.flag of type uint8",
            ),
            (
                r#"{"level":1e3}"#,
                "number 1e3 into Go struct field Req.level of type int",
            ),
            (
                r#"{"level":"1"}"#,
                "string into Go struct field Req.level of type int",
            ),
            (
                r#"{"level":true}"#,
                "bool into Go struct field Req.level of type int",
            ),
            (
                r#"{"uids":"a"}"#,
                "string into Go struct field Req.uids of type []string",
            ),
            (
                r#"{"uids":[1]}"#,
                "number into Go struct field Req.uids of type string",
            ),
            (
                r#"{"payload":{}}"#,
                "object into Go struct field Req.payload of type []uint8",
            ),
            (
                r#"{"payload":[256]}"#,
                "number 256 into Go struct field Req.payload of type uint8",
            ),
            (
                r#"{"header":1}"#,
                "number into Go struct field Req.header of type Header",
            ),
            (
                r#"{"header":{"red_dot":"x"}}"#,
                "string into Go struct field Header.header.red_dot of type int",
            ),
            ("[]", "array into Go value of type api.Req"),
            // The first wrong member in the body is reported, whatever follows.
            (
                r#"{"level":"x","uid":5}"#,
                "string into Go struct field Req.level of type int",
            ),
            (
                r#"{"uid":5,"uid":"x"}"#,
                "number into Go struct field Req.uid of type string",
            ),
        ] {
            assert_eq!(
                sample(body).unwrap_err(),
                format!("{cannot}{text}"),
                "{body}"
            );
        }
        assert_eq!(
            sample(r#"{"payload":"@@"}"#).unwrap_err(),
            "illegal base64 data at input byte 0"
        );
    }

    #[test]
    fn bodies_that_are_lists_of_texts() {
        assert_eq!(texts(b"null").unwrap(), None);
        assert_eq!(texts(br#"["a",null]"#).unwrap().unwrap(), ["a", ""]);
        assert_eq!(
            texts(b"{}").unwrap_err().0,
            "json: cannot unmarshal object into Go value of type []string"
        );
    }
}
