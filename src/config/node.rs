//! What YAML and TOML have in common: a tree whose every value and key knows its place.

use std::rc::Rc;

use super::diagnostic::Position;

/// One value of a file.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// Of a mapping or list, its first character.
    pub(super) position: Position,
    pub(super) kind: Kind,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// Nothing was written, or `null`.
    Null,
    /// Text, as it stands in the file: `4.10` keeps its zero.
    Scalar {
        text: String,
        /// Written without quotes, so it may stand for a number or a truth value.
        plain: bool,
    },
    List(Vec<Rc<Node>>),
    Mapping(Vec<Entry>),
}

/// A key and what it stands for; a mapping holds no key twice.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_position: Position,
    pub(super) value: Rc<Node>,
}

impl Node {
    /// What it is, for a message.
    pub(super) fn found(&self) -> String {
        match &self.kind {
            Kind::Null => "nothing".to_owned(),
            Kind::Scalar { text, plain: true } => format!("`{}`", shorten(text)),
            Kind::Scalar { text, .. } => format!("the text {:?}", shorten(text)),
            Kind::List(_) => "a list".to_owned(),
            Kind::Mapping(_) => "a mapping".to_owned(),
        }
    }
}

/// The start of a text that may be long.
pub(super) fn shorten(text: &str) -> String {
    const SHOWN: usize = 120;
    if text.chars().count() <= SHOWN {
        return text.to_owned();
    }
    text.chars().take(SHOWN).chain(['…']).collect()
}
