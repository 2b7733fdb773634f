//! The name of work: a BLAKE3 key over a canonical encoding of its recipe.
//!
//! A [`Value`] has exactly one encoding: every value opens with a tag byte and states its length, maps are
//! sorted by key, there are no floats and no nulls. Two recipes are the same recipe exactly when their
//! bytes are equal, so the [`Key`] of a step can stand for it in the memo.
//!
//! ```text
//! b 0|1            boolean
//! i <8 bytes>      integer, big-endian two's complement
//! t <len> <utf-8>  text            <len> is 8 bytes, big-endian
//! d <32 bytes>     digest of some bytes
//! l <n> <items>    list
//! m <n> (t-key value)*  map, keys ascending by byte
//! ```

use std::collections::BTreeMap;
use std::fmt;

use crate::digest::{Digest, hex, unhex};

/// A value that a recipe may hold.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// UTF-8 text.
    Text(String),
    /// The name of some bytes.
    Digest(Digest),
    /// Values in an order that matters.
    List(Vec<Value>),
    /// Values by name.
    Map(BTreeMap<String, Value>),
}

impl Value {
    /// A map of the given entries.
    pub fn map<'a>(entries: impl IntoIterator<Item = (&'a str, Self)>) -> Self {
        Self::Map(
            entries
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
        )
    }

    /// Appends the one encoding of this value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Bool(value) => out.extend([b'b', u8::from(*value)]),
            Self::Integer(value) => {
                out.push(b'i');
                out.extend(value.to_be_bytes());
            }
            Self::Text(text) => encode_text(text, out),
            Self::Digest(digest) => {
                out.push(b'd');
                out.extend(digest.as_bytes());
            }
            Self::List(items) => {
                out.push(b'l');
                out.extend((items.len() as u64).to_be_bytes());
                for item in items {
                    item.encode(out);
                }
            }
            Self::Map(entries) => {
                out.push(b'm');
                out.extend((entries.len() as u64).to_be_bytes());
                for (name, value) in entries {
                    encode_text(name, out);
                    value.encode(out);
                }
            }
        }
    }
}

fn encode_text(text: &str, out: &mut Vec<u8>) {
    out.push(b't');
    out.extend((text.len() as u64).to_be_bytes());
    out.extend(text.as_bytes());
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Digest> for Value {
    fn from(digest: Digest) -> Self {
        Self::Digest(digest)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

/// The name of some work.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key([u8; 32]);

impl Key {
    /// Names the work that `recipe` describes, in the domain `context` (BLAKE3 `derive_key`).
    ///
    /// Equal recipes under different contexts have different keys.
    #[must_use]
    pub fn of(context: &str, recipe: &Value) -> Self {
        let mut bytes = Vec::new();
        recipe.encode(&mut bytes);
        Self(blake3::derive_key(context, &bytes))
    }

    /// The 64 digits.
    #[must_use]
    pub fn hex(&self) -> String {
        hex(&self.0)
    }

    /// Reads what [`Key::hex`] wrote.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        unhex(text).map(Self)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.hex())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "key:{}", &self.hex()[..12])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Integer),
            ".{0,8}".prop_map(Value::Text),
            any::<[u8; 32]>().prop_map(|bytes| Value::Digest(Digest::from_bytes(bytes))),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::List),
                prop::collection::btree_map(".{0,4}", inner, 0..4).prop_map(Value::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn two_values_share_an_encoding_only_if_they_are_equal(a in any_value(), b in any_value()) {
            let (mut left, mut right) = (Vec::new(), Vec::new());
            a.encode(&mut left);
            b.encode(&mut right);
            prop_assert_eq!(a == b, left == right);
            if a != b {
                prop_assert!(!left.starts_with(&right) && !right.starts_with(&left), "no encoding is the start of another");
            }
        }
    }

    #[test]
    fn the_encoding_is_pinned() {
        let value = Value::map([
            ("b", Value::Bool(true)),
            ("a", Value::List(vec!["x".into(), Value::Integer(-1)])),
        ]);
        let key = Key::of("imgbuild test", &value);
        assert_eq!(
            key.hex(),
            "2136c5ee9bf87ceead685e1519df73d9633a58c5e8d58582fdc9e8fe5236cd6a",
            "moving this moves every key ever stored: raise the revision of the kinds instead"
        );
        assert_eq!(
            Key::from_hex(&key.hex()),
            Some(key),
            "from_hex must undo hex"
        );
    }
}
