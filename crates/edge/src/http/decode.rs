//! Request bodies to typed values: one layer with v2's rules and error texts, used by every route (http-api 1.3).
//!
//! A body is parsed into a tree that borrows from it ([`syntax`]), then read field by field ([`Fields`]).

mod fields;
mod payload;
mod syntax;

pub(crate) use fields::{Fields, object, texts};

/// Why a body cannot be decoded: the text v2 answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Error(pub(crate) String);

/// A decoded value, or why not.
pub(crate) type Result<T> = std::result::Result<T, Error>;
