//! The values templates compute with: Go's dynamic values as far as charts can tell them apart.
//!
//! Maps have reference semantics (`set` is seen through every name of the map), lists never change once made.
//! A text is a Rust string; the bytes of a Go string that are no UTF-8 are carried as characters of the
//! supplementary private use area (see [`text_from_bytes`]), so that `b64dec | b64enc` gives back what went in.
//!
//! Values may be nested as deep as a template cares to build them: dropping one is a loop, not a recursion, and
//! whatever walks one counts its depth.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::semver::Version;

/// The character that stands for the stray byte 0x80; the other 127 follow.
const STRAY_BYTE: u32 = 0x10_FF00;

/// Which integer type of Go a number has; `kindOf`, `typeOf` and parameters of type `int` tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IntKind {
    Int,
    Int64,
    Uint64,
}

/// What a list is called in Go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ListKind {
    /// `[]interface {}`
    Any,
    /// `[]interface {}`, but nil: `null` in JSON.
    Nil,
    /// `[]string`
    Texts,
    /// `[]int`
    Ints,
    /// `[][]interface {}`
    Lists,
    /// `chartutil.VersionSet`, which has the method `Has`.
    Versions,
}

/// What a map is called in Go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MapKind {
    /// `map[string]interface {}`
    Any,
    /// `chartutil.Values`
    Values,
    /// `map[string]string`: a missing key is the empty text.
    Texts,
}

/// A dynamic value.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// No value, or Go's `nil`.
    Null,
    /// A nil that was an element of a list or map: reading a field of it is an error, of [`Value::Null`] it is not.
    NilElement,
    Bool(bool),
    Int(i64, IntKind),
    Float(f64),
    Text(Rc<str>),
    Bytes(Rc<[u8]>),
    List(List),
    Map(Map),
    Object(Rc<Object>),
}

/// A value with fields or methods of its own.
#[derive(Debug)]
pub(super) enum Object {
    Record(Record),
    /// `.Files`: the files of a chart that are neither templates nor values.
    Files(BTreeMap<Rc<str>, Rc<[u8]>>),
    Version(Version),
    /// Nanoseconds since 1970, in UTC.
    Time(i128),
    /// Nanoseconds.
    Duration(i64),
}

/// A Go struct: fields in order.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) type_name: &'static str,
    pub(super) fields: Vec<Field>,
}

/// One field of a [`Record`].
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    /// Its name in JSON; fields that are empty are left out there.
    pub(super) json: &'static str,
    pub(super) value: Value,
}

#[derive(Debug)]
struct ListCell {
    items: Vec<Value>,
    kind: ListKind,
}

/// An immutable list, shared.
#[derive(Clone, Debug)]
pub(super) struct List(Rc<ListCell>);

#[derive(Debug)]
struct MapCell {
    entries: RefCell<BTreeMap<Rc<str>, Value>>,
    kind: MapKind,
}

/// A mutable map, shared by everyone who names it.
#[derive(Clone, Debug)]
pub(super) struct Map(Rc<MapCell>);

impl Drop for ListCell {
    fn drop(&mut self) {
        drop_all(std::mem::take(&mut self.items));
    }
}

impl Drop for MapCell {
    fn drop(&mut self) {
        drop_all(
            std::mem::take(self.entries.get_mut())
                .into_values()
                .collect(),
        );
    }
}

/// Drops values without recursing into what they alone hold.
fn drop_all(mut pending: Vec<Value>) {
    while let Some(value) = pending.pop() {
        match value {
            Value::List(List(cell)) => {
                if let Ok(mut cell) = Rc::try_unwrap(cell) {
                    pending.append(&mut cell.items);
                }
            }
            Value::Map(Map(cell)) => {
                if let Ok(mut cell) = Rc::try_unwrap(cell) {
                    pending.extend(std::mem::take(cell.entries.get_mut()).into_values());
                }
            }
            _ => {}
        }
    }
}

impl List {
    pub(super) fn new(items: Vec<Value>) -> Self {
        Self::of(items, ListKind::Any)
    }

    pub(super) fn of(items: Vec<Value>, kind: ListKind) -> Self {
        Self(Rc::new(ListCell { items, kind }))
    }

    pub(super) fn items(&self) -> &[Value] {
        &self.0.items
    }

    pub(super) fn kind(&self) -> ListKind {
        self.0.kind
    }
}

impl Map {
    pub(super) fn new(entries: BTreeMap<Rc<str>, Value>) -> Self {
        Self::of(entries, MapKind::Any)
    }

    pub(super) fn of(entries: BTreeMap<Rc<str>, Value>, kind: MapKind) -> Self {
        Self(Rc::new(MapCell {
            entries: RefCell::new(entries),
            kind,
        }))
    }

    pub(super) fn kind(&self) -> MapKind {
        self.0.kind
    }

    pub(super) fn get(&self, key: &str) -> Option<Value> {
        self.0.entries.borrow().get(key).cloned()
    }

    pub(super) fn contains(&self, key: &str) -> bool {
        self.0.entries.borrow().contains_key(key)
    }

    pub(super) fn insert(&self, key: Rc<str>, value: Value) {
        let old = self.0.entries.borrow_mut().insert(key, value);
        drop(old);
    }

    pub(super) fn remove(&self, key: &str) {
        let old = self.0.entries.borrow_mut().remove(key);
        drop(old);
    }

    pub(super) fn len(&self) -> usize {
        self.0.entries.borrow().len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entries as they are now, in the order of their keys.
    pub(super) fn entries(&self) -> Vec<(Rc<str>, Value)> {
        let entries = self.0.entries.borrow();
        entries
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    /// Empties the map, which breaks any cycle through it.
    pub(super) fn clear(&self) {
        let old = std::mem::take(&mut *self.0.entries.borrow_mut());
        drop_all(old.into_values().collect());
    }

    pub(super) fn downgrade(&self) -> WeakMap {
        WeakMap(Rc::downgrade(&self.0))
    }
}

/// A map that is not kept alive.
#[derive(Debug)]
pub(super) struct WeakMap(std::rc::Weak<MapCell>);

impl WeakMap {
    pub(super) fn upgrade(&self) -> Option<Map> {
        self.0.upgrade().map(Map)
    }
}

impl Value {
    pub(super) fn text(text: impl AsRef<str>) -> Self {
        Self::Text(Rc::from(text.as_ref()))
    }

    pub(super) fn int(number: i64) -> Self {
        Self::Int(number, IntKind::Int)
    }

    pub(super) fn int64(number: i64) -> Self {
        Self::Int(number, IntKind::Int64)
    }

    pub(super) fn list(items: Vec<Value>) -> Self {
        Self::List(List::new(items))
    }

    pub(super) fn texts<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> Self {
        let items = items.into_iter().map(Self::text).collect();
        Self::List(List::of(items, ListKind::Texts))
    }

    pub(super) fn map(entries: BTreeMap<Rc<str>, Value>) -> Self {
        Self::Map(Map::new(entries))
    }

    pub(super) fn object(object: Object) -> Self {
        Self::Object(Rc::new(object))
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self, Self::Null | Self::NilElement)
    }

    /// Forgets where a nil came from, as Go does when a value leaves a pipeline.
    pub(super) fn plain(self) -> Self {
        match self {
            Self::NilElement => Self::Null,
            other => other,
        }
    }

    /// Remembers that a nil is an element of something.
    pub(super) fn element(self) -> Self {
        match self {
            Self::Null => Self::NilElement,
            other => other,
        }
    }

    /// The truth of `if`, `with`, `and`, `or` and `not`.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Null | Self::NilElement => false,
            Self::Bool(truth) => *truth,
            Self::Int(number, _) => *number != 0,
            Self::Float(number) => *number != 0.0,
            Self::Text(text) => !text.is_empty(),
            Self::Bytes(bytes) => !bytes.is_empty(),
            Self::List(list) => !list.items().is_empty(),
            Self::Map(map) => !map.is_empty(),
            Self::Object(object) => match &**object {
                Object::Files(files) => !files.is_empty(),
                Object::Duration(nanoseconds) => *nanoseconds != 0,
                Object::Record(_) | Object::Version(_) | Object::Time(_) => true,
            },
        }
    }

    /// Its type as Go's `%T` prints it.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Null | Self::NilElement => "<nil>",
            Self::Bool(_) => "bool",
            Self::Int(_, IntKind::Int) => "int",
            Self::Int(_, IntKind::Int64) => "int64",
            Self::Int(_, IntKind::Uint64) => "uint64",
            Self::Float(_) => "float64",
            Self::Text(_) => "string",
            Self::Bytes(_) => "[]uint8",
            Self::List(list) => match list.kind() {
                ListKind::Any | ListKind::Nil => "[]interface {}",
                ListKind::Texts => "[]string",
                ListKind::Ints => "[]int",
                ListKind::Lists => "[][]interface {}",
                ListKind::Versions => "chartutil.VersionSet",
            },
            Self::Map(map) => match map.kind() {
                MapKind::Any => "map[string]interface {}",
                MapKind::Values => "chartutil.Values",
                MapKind::Texts => "map[string]string",
            },
            Self::Object(object) => match &**object {
                Object::Record(record) => record.type_name,
                Object::Files(_) => "engine.files",
                Object::Version(_) => "*semver.Version",
                Object::Time(_) => "time.Time",
                Object::Duration(_) => "time.Duration",
            },
        }
    }

    /// Its kind as Go's `reflect.Kind` prints it.
    pub(super) fn kind_name(&self) -> &'static str {
        match self {
            Self::Null | Self::NilElement => "invalid",
            Self::Bool(_) => "bool",
            Self::Int(_, IntKind::Int) => "int",
            Self::Int(_, IntKind::Int64) => "int64",
            Self::Int(_, IntKind::Uint64) => "uint64",
            Self::Float(_) => "float64",
            Self::Text(_) => "string",
            Self::Bytes(_) | Self::List(_) => "slice",
            Self::Map(_) => "map",
            Self::Object(object) => match &**object {
                Object::Record(record) if record.type_name.starts_with('*') => "ptr",
                Object::Record(_) | Object::Time(_) => "struct",
                Object::Version(_) => "ptr",
                Object::Files(_) => "map",
                Object::Duration(_) => "int64",
            },
        }
    }
}

impl Record {
    pub(super) fn field(&self, name: &str) -> Option<&Value> {
        self.fields
            .iter()
            .find(|field| field.name == name)
            .map(|field| &field.value)
    }
}

/// A text of bytes: what is no UTF-8 is kept as characters that [`text_to_bytes`] turns back.
pub(super) fn text_from_bytes(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(bytes.len() + 16);
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            let scalar = STRAY_BYTE + u32::from(*byte) - 0x80;
            text.push(char::from_u32(scalar).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
    }
    Cow::Owned(text)
}

/// The stray byte a character stands for, if it stands for one.
pub(super) fn stray_byte(character: char) -> Option<u8> {
    let scalar = u32::from(character);
    (STRAY_BYTE..STRAY_BYTE + 0x80)
        .contains(&scalar)
        .then(|| u8::try_from(scalar - STRAY_BYTE + 0x80).expect("128 values from 0x80 on"))
}

/// The bytes of a text.
pub(super) fn text_to_bytes(text: &str) -> Cow<'_, [u8]> {
    // Every character of that area starts with these two bytes.
    if !text
        .as_bytes()
        .windows(3)
        .any(|window| window == [0xF4, 0x8F, 0xBC] || window == [0xF4, 0x8F, 0xBD])
    {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut bytes = Vec::with_capacity(text.len());
    for character in text.chars() {
        match stray_byte(character) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Cow::Owned(bytes)
}

/// The value of a JSON document: numbers are floats, as Go decodes them into `interface {}`.
pub(super) fn from_json(document: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match document {
        Json::Null => Value::Null,
        Json::Bool(truth) => Value::Bool(*truth),
        Json::Number(number) => Value::Float(number.as_f64().unwrap_or(0.0)),
        Json::String(text) => Value::text(text),
        Json::Array(items) => Value::list(items.iter().map(from_json).collect()),
        Json::Object(entries) => Value::map(
            entries
                .iter()
                .map(|(key, value)| (Rc::from(key.as_str()), from_json(value)))
                .collect(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_survive() {
        for bytes in [
            &b"plain"[..],
            b"\xff\xfe\x00a",
            "z\u{fc}rich \u{1f600}".as_bytes(),
        ] {
            let text = text_from_bytes(bytes);
            assert_eq!(
                text_to_bytes(&text),
                bytes,
                "a text gives back the bytes it was made of"
            );
        }
    }

    #[test]
    fn a_value_a_million_deep_is_dropped_without_recursion() {
        let mut value = Value::Null;
        for _ in 0..1_000_000 {
            value = Value::list(vec![value]);
        }
        drop(value);
        let mut value = Value::Null;
        for _ in 0..1_000_000 {
            value = Value::map(BTreeMap::from([(Rc::from("a"), value)]));
        }
        drop(value);
    }
}
