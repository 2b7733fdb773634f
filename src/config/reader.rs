//! From a tree to typed values, collecting everything that is wrong on the way.
//!
//! A [`Schema`] names the keys of one kind of mapping. Reading goes on after an error, so each method answers
//! `None` (or a default) for what it could not read, and the caller decides once, at the end, by
//! [`Reader::finish`].

use std::rc::Rc;

use super::diagnostic::{At, ConfigErrors, Diagnostic, Document, Position, Severity, sort};
use super::imageset::ApiVersion;
use super::node::{Entry, Kind, Node, shorten};

/// Errors after which no more are collected: a file that holds that many is another kind of file.
const MOST_COLLECTED: usize = 300;

/// Which schemas have a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Since {
    Always,
    /// Only `v1alpha2`.
    V1Alpha2,
    /// Only `v2alpha1`.
    V2Alpha1,
}

/// The keys of one kind of mapping.
pub(super) struct Schema {
    /// The path in the file, for messages; empty for the top level.
    pub(super) place: &'static str,
    pub(super) keys: &'static [(&'static str, Since)],
    /// What to say about keys that people expect here.
    pub(super) advice: &'static [(&'static str, &'static str)],
}

/// A mapping whose keys have been checked against a schema.
pub(super) struct Fields<'n> {
    place: &'static str,
    entries: Vec<(&'static str, &'n Entry)>,
    /// Where the mapping starts.
    pub(super) position: Position,
}

impl<'n> Fields<'n> {
    /// The value of `key`, unless it is absent or null.
    pub(super) fn get(&self, key: &str) -> Option<&'n Node> {
        let entry = self.entry(key)?;
        (!matches!(entry.value.kind, Kind::Null)).then_some(&*entry.value)
    }

    /// The key itself, whatever stands behind it.
    pub(super) fn entry(&self, key: &str) -> Option<&'n Entry> {
        self.entries
            .iter()
            .find(|(name, _)| *name == key)
            .map(|(_, entry)| *entry)
    }

    /// Where `key` is written.
    pub(super) fn key_position(&self, key: &str) -> Option<Position> {
        self.entry(key).map(|entry| entry.key_position)
    }

    fn path(&self, key: &str) -> String {
        if self.place.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.place)
        }
    }
}

/// What is being read, and what is wrong with it so far.
pub(super) struct Reader<'d> {
    document: &'d Document,
    diagnostics: Vec<Diagnostic>,
    /// How many of them this reader found to be errors.
    errors: usize,
    /// Which keys exist; `None` where the file has no versions.
    pub(super) version: Option<ApiVersion>,
    /// Every kind of mapping of the file, to tell where a misplaced key belongs.
    schemas: &'static [&'static Schema],
    /// Text must be quoted (TOML).
    quoted: bool,
}

impl<'d> Reader<'d> {
    pub(super) fn new(
        document: &'d Document,
        diagnostics: Vec<Diagnostic>,
        schemas: &'static [&'static Schema],
        quoted: bool,
    ) -> Self {
        Self {
            document,
            diagnostics,
            errors: 0,
            version: None,
            schemas,
            quoted,
        }
    }

    pub(super) fn error(
        &mut self,
        position: Position,
        message: impl Into<String>,
        hint: Option<String>,
    ) {
        if self.errors >= MOST_COLLECTED {
            return;
        }
        self.errors += 1;
        self.diagnostics.push(
            self.document
                .diagnostic(Severity::Error, position, message, hint),
        );
    }

    pub(super) fn note(
        &mut self,
        position: Position,
        message: impl Into<String>,
        hint: Option<String>,
    ) {
        self.diagnostics.push(
            self.document
                .diagnostic(Severity::Note, position, message, hint),
        );
    }

    /// `value` and the notes, or every error.
    ///
    /// A missing value without an error would be a flaw of the reader; it is reported as one.
    pub(super) fn finish<T>(
        mut self,
        value: Option<T>,
    ) -> Result<(T, Vec<Diagnostic>), ConfigErrors> {
        if let Some(errors) = ConfigErrors::of(self.diagnostics.iter().cloned()) {
            return Err(errors);
        }
        sort(&mut self.diagnostics);
        match value {
            Some(value) => Ok((value, self.diagnostics)),
            None => Err(self
                .document
                .diagnostic(
                    Severity::Error,
                    Position {
                        line: 1,
                        column: 1,
                        length: 1,
                    },
                    "the file could not be read, and imgbuild does not know why",
                    Some("please report this file".to_owned()),
                )
                .into()),
        }
    }

    /// Opens a mapping and checks its keys; `None` where it is no mapping.
    pub(super) fn fields<'n>(
        &mut self,
        node: &'n Node,
        schema: &'static Schema,
    ) -> Option<Fields<'n>> {
        let Kind::Mapping(entries) = &node.kind else {
            self.not_a_mapping(node, schema);
            return None;
        };
        let mut fields = Fields {
            place: schema.place,
            entries: Vec::new(),
            position: node.position,
        };
        for entry in entries {
            let found = schema
                .keys
                .iter()
                .find(|(name, _)| *name == entry.key)
                .or_else(|| {
                    schema
                        .keys
                        .iter()
                        .find(|(name, _)| !self.quoted && name.eq_ignore_ascii_case(&entry.key))
                });
            let Some((name, since)) = found else {
                self.unknown_key(entry, schema);
                continue;
            };
            if !self.exists(*since) {
                self.key_of_another_version(entry, name, *since, schema);
                continue;
            }
            if let Some(first) = fields.key_position(name) {
                self.error(
                    entry.key_position,
                    format!("the key {name:?} is given twice in one mapping"),
                    Some(format!(
                        "the first one is at line {}, column {}",
                        first.line, first.column
                    )),
                );
                continue;
            }
            if *name != entry.key {
                self.note(
                    entry.key_position,
                    format!("the key {:?} is taken as {name:?}", entry.key),
                    Some(format!("write {name:?}")),
                );
            }
            fields.entries.push((name, entry));
        }
        Some(fields)
    }

    fn exists(&self, since: Since) -> bool {
        match (since, self.version) {
            (Since::Always, _) | (_, None) => true,
            (Since::V1Alpha2, Some(version)) => version == ApiVersion::V1Alpha2,
            (Since::V2Alpha1, Some(version)) => version == ApiVersion::V2Alpha1,
        }
    }

    fn not_a_mapping(&mut self, node: &Node, schema: &'static Schema) {
        let place = if schema.place.is_empty() {
            "the file"
        } else {
            schema.place
        };
        let keys = schema.keys.iter().filter(|(_, since)| self.exists(*since));
        let keys: Vec<&str> = keys.map(|(name, _)| *name).collect();
        let hint = match &node.kind {
            Kind::Scalar { text, .. } if keys[0] == "os" => text
                .split_once('/')
                .map(|(os, rest)| format!("write `{{os: {os}, architecture: {rest}}}`")),
            Kind::Scalar { text, .. } if schema.place.ends_with("[]") && !text.contains('\n') => {
                Some(format!("write `{}: {}`", keys[0], shorten(text)))
            }
            Kind::Null if schema.place.ends_with("[]") => Some("remove the empty item".to_owned()),
            _ => None,
        };
        self.error(
            node.position,
            format!(
                "{place} is a {} ({}), found {}",
                if self.quoted { "table" } else { "mapping" },
                keys.join(", "),
                node.found()
            ),
            hint,
        );
    }

    fn unknown_key(&mut self, entry: &Entry, schema: &'static Schema) {
        if self.errors >= MOST_COLLECTED {
            return;
        }
        let within = if schema.place.is_empty() {
            "at the top level".to_owned()
        } else {
            format!("in {}", schema.place)
        };
        let advice = schema
            .advice
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(&entry.key))
            .map(|(_, advice)| (*advice).to_owned());
        let hint = advice
            .or_else(|| {
                let known = schema.keys.iter().filter(|(_, since)| self.exists(*since));
                did_you_mean(&entry.key, known.map(|(name, _)| *name))
            })
            .or_else(|| self.where_it_belongs(&entry.key));
        self.error(
            entry.key_position,
            format!("unknown key {:?} {within}", shorten(&entry.key)),
            hint,
        );
    }

    fn where_it_belongs(&self, key: &str) -> Option<String> {
        let places: Vec<&str> = self
            .schemas
            .iter()
            .filter(|schema| {
                schema
                    .keys
                    .iter()
                    .any(|(name, since)| name.eq_ignore_ascii_case(key) && self.exists(*since))
            })
            .map(|schema| {
                if schema.place.is_empty() {
                    "the top level"
                } else {
                    schema.place
                }
            })
            .collect();
        match places.as_slice() {
            [] => None,
            [place] => Some(format!("{key:?} belongs to {place}: check the indentation")),
            places => Some(format!("{key:?} belongs to one of {}", places.join(", "))),
        }
    }

    fn key_of_another_version(
        &mut self,
        entry: &Entry,
        name: &str,
        since: Since,
        schema: &'static Schema,
    ) {
        let (here, there) = match since {
            Since::V1Alpha2 => (ApiVersion::V2Alpha1, ApiVersion::V1Alpha2),
            _ => (ApiVersion::V1Alpha2, ApiVersion::V2Alpha1),
        };
        let hint = schema
            .advice
            .iter()
            .find(|(key, _)| *key == name)
            .map_or_else(
                || format!("for this key write `apiVersion: {there}`"),
                |(_, advice)| (*advice).to_owned(),
            );
        self.error(
            entry.key_position,
            format!(
                "the key {name:?} does not exist in {}: it is one of {}",
                here.short(),
                there.short()
            ),
            Some(hint),
        );
    }

    /// Text, as it stands in the file; empty text counts as absent.
    pub(super) fn text(&mut self, fields: &Fields<'_>, key: &str) -> Option<At<String>> {
        let node = fields.get(key)?;
        let text = self.text_of(node, &fields.path(key))?;
        (!text.is_empty()).then_some(text)
    }

    /// Text that must be there.
    pub(super) fn required(&mut self, fields: &Fields<'_>, key: &str) -> Option<At<String>> {
        let path = fields.path(key);
        let Some(node) = fields.get(key) else {
            let position = fields.key_position(key).unwrap_or(fields.position);
            self.error(position, format!("{path} is missing"), None);
            return None;
        };
        let text = self.text_of(node, &path)?;
        if text.is_empty() {
            self.error(text.position, format!("{path} is empty"), None);
            return None;
        }
        Some(text)
    }

    /// The text of a node, perhaps empty.
    pub(super) fn text_of(&mut self, node: &Node, path: &str) -> Option<At<String>> {
        match &node.kind {
            Kind::Scalar { text, plain } if !(*plain && self.quoted) => {
                Some(At::new(text.clone(), node.position))
            }
            Kind::Scalar { text, .. } => {
                self.error(
                    node.position,
                    format!("{path} is text, found {}", node.found()),
                    Some(format!("write it in quotes: {text:?}")),
                );
                None
            }
            _ => {
                self.error(
                    node.position,
                    format!("{path} is text, found {}", node.found()),
                    None,
                );
                None
            }
        }
    }

    /// True or false; false where it is absent, with the place of the mapping.
    pub(super) fn flag(&mut self, fields: &Fields<'_>, key: &str) -> At<bool> {
        self.optional_flag(fields, key)
            .unwrap_or(At::new(false, fields.position))
    }

    /// True or false, or absent.
    pub(super) fn optional_flag(&mut self, fields: &Fields<'_>, key: &str) -> Option<At<bool>> {
        let node = fields.get(key)?;
        let path = fields.path(key);
        if let Kind::Scalar { text, plain } = &node.kind {
            let value = match text.to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" | "y" => Some(true),
                "false" | "no" | "off" | "n" => Some(false),
                _ => None,
            };
            if let Some(value) = value {
                if !plain {
                    self.error(
                        node.position,
                        format!("{path} is true or false, found {}", node.found()),
                        Some("remove the quotes".to_owned()),
                    );
                    return None;
                }
                if !text.eq_ignore_ascii_case("true") && !text.eq_ignore_ascii_case("false") {
                    self.note(
                        node.position,
                        format!("{path}: `{text}` is taken as {value}"),
                        Some(format!("write {value}")),
                    );
                }
                return Some(At::new(value, node.position));
            }
        }
        self.error(
            node.position,
            format!("{path} is true or false, found {}", node.found()),
            None,
        );
        None
    }

    /// A whole number from `least` on.
    pub(super) fn number(&mut self, fields: &Fields<'_>, key: &str, least: u64) -> Option<At<u64>> {
        let node = fields.get(key)?;
        let path = fields.path(key);
        if let Kind::Scalar { text, plain } = &node.kind {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            match text.parse::<u64>() {
                Ok(value) if digits && *plain && value >= least => {
                    return Some(At::new(value, node.position));
                }
                Ok(_) if digits && !plain => {
                    self.error(
                        node.position,
                        format!("{path} is a whole number, found {}", node.found()),
                        Some("remove the quotes".to_owned()),
                    );
                    return None;
                }
                _ => {}
            }
        }
        self.error(
            node.position,
            format!(
                "{path} is a whole number from {least} on, found {}",
                node.found()
            ),
            None,
        );
        None
    }

    /// The items of a list; none where it is absent.
    pub(super) fn items<'n>(&mut self, fields: &Fields<'n>, key: &str) -> &'n [Rc<Node>] {
        let Some(node) = fields.get(key) else {
            return &[];
        };
        let Kind::List(items) = &node.kind else {
            let path = fields.path(key);
            let hint = match &node.kind {
                Kind::Mapping(_) => Some("put `- ` before the item".to_owned()),
                Kind::Scalar { text, plain: true } if !text.contains('\n') => {
                    Some(format!("write `[{}]`", shorten(text)))
                }
                _ => None,
            };
            self.error(
                node.position,
                format!("{path} is a list, found {}", node.found()),
                hint,
            );
            return &[];
        };
        items
    }

    /// A list of mappings, each read by `read`.
    pub(super) fn rows<T>(
        &mut self,
        fields: &Fields<'_>,
        key: &str,
        schema: &'static Schema,
        mut read: impl FnMut(&mut Self, &Fields<'_>) -> Option<T>,
    ) -> Vec<At<T>> {
        let mut rows = Vec::new();
        for node in self.items(fields, key) {
            if let Some(row) = self.fields(node, schema)
                && let Some(value) = read(self, &row)
            {
                rows.push(At::new(value, row.position));
            }
        }
        rows
    }

    /// A list of texts, none of them empty.
    pub(super) fn texts(&mut self, fields: &Fields<'_>, key: &str) -> Vec<At<String>> {
        let path = fields.path(key) + "[]";
        let mut texts = Vec::new();
        for node in self.items(fields, key) {
            match self.text_of(node, &path) {
                Some(text) if text.is_empty() => {
                    self.error(text.position, format!("{path} is empty"), None);
                }
                Some(text) => texts.push(text),
                None => {}
            }
        }
        texts
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(
        &mut self,
        path: &str,
        text: &At<String>,
        words: &[(&str, T)],
        advice: &[(&str, &str)],
    ) -> Option<At<T>> {
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text.as_str()) {
            return Some(At::new(*value, text.position));
        }
        let expected: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let advised = advice
            .iter()
            .find(|(word, _)| word.eq_ignore_ascii_case(text.as_str()));
        let hint = match advised {
            Some((_, word)) => Some(format!("did you mean {word:?}?")),
            None => did_you_mean(text.as_str(), expected.iter().copied()),
        };
        self.error(
            text.position,
            format!(
                "{path} is one of {}, found {:?}",
                expected.join(", "),
                shorten(text.as_str())
            ),
            hint,
        );
        None
    }

    /// Refuses a value that stands for the same thing as an earlier one.
    pub(super) fn refuse_duplicates<'a, K: Ord>(
        &mut self,
        what: &str,
        names: impl IntoIterator<Item = (K, &'a str, Position)>,
    ) {
        let mut seen: std::collections::BTreeMap<K, Position> = std::collections::BTreeMap::new();
        for (key, name, position) in names {
            if let Some(first) = seen.get(&key) {
                let hint = format!(
                    "the first one is at line {}, column {}",
                    first.line, first.column
                );
                self.error(
                    position,
                    format!("the {what} {:?} is listed twice", shorten(name)),
                    Some(hint),
                );
            } else {
                seen.insert(key, position);
            }
        }
    }
}

/// Advice that names the closest of `known`, if one is close.
pub(super) fn did_you_mean<'a>(text: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let text = text.to_lowercase();
    if text.len() > 64 {
        return None;
    }
    let starts = |word: &str| text.len() > 2 && word.to_lowercase().starts_with(&text);
    known
        .map(|word| {
            let distance = distance(&text, &word.to_lowercase());
            (if starts(word) { 1 } else { distance }, word)
        })
        .filter(|(distance, word)| {
            *distance <= (word.len() / 3).max(1) && *distance < text.len().max(2)
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| format!("did you mean {word:?}?"))
}

/// Insertions, deletions, replacements and swaps of neighbours that turn one text into the other.
fn distance(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    let mut rows = vec![vec![0; right.len() + 1]; left.len() + 1];
    for (index, row) in rows.iter_mut().enumerate() {
        row[0] = index;
    }
    for (index, cell) in rows[0].iter_mut().enumerate() {
        *cell = index;
    }
    for i in 1..=left.len() {
        for j in 1..=right.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(left[i - 1] != right[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = least;
        }
    }
    rows[left.len()][right.len()]
}

/// An error and what it stands on, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_word_is_meant() {
        for (text, expected) in [
            (
                "additionalImage",
                Some("did you mean \"additionalImages\"?"),
            ),
            ("platfrom", Some("did you mean \"platform\"?")),
            ("Operator", Some("did you mean \"operators\"?")),
            ("xyz", None),
            ("", None),
        ] {
            let known = ["additionalImages", "platform", "operators", "helm"];
            assert_eq!(
                did_you_mean(text, known.into_iter()).as_deref(),
                expected,
                "the suggestion for {text:?}"
            );
        }
    }
}
