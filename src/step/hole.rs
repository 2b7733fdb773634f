//! Text with holes: `${path|filter|filter:argument}`.
//!
//! A path walks a [`Value`] by dots. A text that is one hole and nothing else yields the value itself, whatever
//! its type; any other text is joined, and a hole whose value is absent joins as nothing. The filters are few and
//! named here; there is no arithmetic and no nesting.
//!
//! | filter | yields |
//! |---|---|
//! | `or:PATH` | the value, or the one at PATH where it is absent or empty |
//! | `default:TEXT` | the value, or TEXT |
//! | `prefix:TEXT` | TEXT and the value, where there is one |
//! | `then:TEXT` | TEXT, where there is a value that is not false |
//! | `unless:TEXT` | the value, unless it is TEXT |
//! | `machine` | an architecture as kernels name it: `x86_64` for `amd64`, `aarch64` for `arm64`, others as they are |
//! | `before:TEXT`, `after:TEXT` | what stands before (all of it, without TEXT) or after (nothing, without TEXT) the last TEXT |
//! | `platform-names` | `os/architecture` for each `{os, architecture}`, sorted |
//! | `absent:TEXT` | TEXT where there is no value, and nothing where there is one |
//! | `wishes` | of a list of rows each one's `name` where it says no more, else the row with `min` and `max` for `minVersion` and `maxVersion`; sorted |

use std::collections::BTreeMap;

use crate::canon::Value;

/// A text with holes is malformed, or a value does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HoleError {
    /// A hole that does not end.
    #[error("{text:?} has a hole that is not closed by '}}'")]
    Open {
        /// The whole text.
        text: String,
    },
    /// A filter that is not in the table.
    #[error(
        "{text:?} uses the filter {filter:?}, which is none of or, default, prefix, then, unless, machine, before, after, platform-names, absent, wishes"
    )]
    Filter {
        /// The whole text.
        text: String,
        /// The filter.
        filter: String,
    },
    /// A list or map where text is wanted.
    #[error("{text:?} joins text with a value that is not text")]
    Type {
        /// The whole text.
        text: String,
    },
}

/// A parsed text with holes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Hole { path: String, filters: Vec<Filter> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Filter {
    Or(String),
    Default(String),
    Prefix(String),
    Then(String),
    Unless(String),
    Machine,
    Before(String),
    After(String),
    PlatformNames,
    Absent(String),
    Wishes,
}

impl Template {
    /// Reads a text.
    ///
    /// # Errors
    /// If a hole is malformed.
    pub fn parse(text: &str) -> Result<Self, HoleError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(start) = rest.find("${") {
            if start > 0 {
                parts.push(Part::Text(rest[..start].to_owned()));
            }
            let inner = &rest[start + 2..];
            let end = inner.find('}').ok_or_else(|| HoleError::Open {
                text: text.to_owned(),
            })?;
            let mut words = inner[..end].split('|');
            let path = words.next().unwrap_or_default().trim().to_owned();
            let filters = words
                .map(|word| {
                    let (name, argument) = word.split_once(':').unwrap_or((word, ""));
                    let argument = argument.to_owned();
                    match name.trim() {
                        "or" => Ok(Filter::Or(argument)),
                        "default" => Ok(Filter::Default(argument)),
                        "prefix" => Ok(Filter::Prefix(argument)),
                        "then" => Ok(Filter::Then(argument)),
                        "unless" => Ok(Filter::Unless(argument)),
                        "machine" => Ok(Filter::Machine),
                        "before" => Ok(Filter::Before(argument)),
                        "after" => Ok(Filter::After(argument)),
                        "platform-names" => Ok(Filter::PlatformNames),
                        "absent" => Ok(Filter::Absent(argument)),
                        "wishes" => Ok(Filter::Wishes),
                        other => Err(HoleError::Filter {
                            text: text.to_owned(),
                            filter: other.to_owned(),
                        }),
                    }
                })
                .collect::<Result<_, _>>()?;
            parts.push(Part::Hole { path, filters });
            rest = &inner[end + 1..];
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self {
            text: text.to_owned(),
            parts,
        })
    }

    /// Whether anything is filled in.
    #[must_use]
    pub fn has_holes(&self) -> bool {
        self.parts
            .iter()
            .any(|part| matches!(part, Part::Hole { .. }))
    }

    /// The text as it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Fills the holes from `context`; `None` where nothing is left.
    ///
    /// # Errors
    /// If a list or map would have to be joined with text.
    pub fn fill(&self, context: &Value) -> Result<Option<Value>, HoleError> {
        if let [Part::Hole { path, filters }] = self.parts.as_slice() {
            return self.hole(path, filters, context);
        }
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Hole { path, filters } => {
                    if let Some(value) = self.hole(path, filters, context)? {
                        out.push_str(&self.text_of(&value)?);
                    }
                }
            }
        }
        Ok((!out.is_empty()).then_some(Value::Text(out)))
    }

    /// The same, where text is wanted.
    ///
    /// # Errors
    /// If the value is a list or a map.
    pub fn fill_text(&self, context: &Value) -> Result<Option<String>, HoleError> {
        self.fill(context)?
            .map(|value| self.text_of(&value))
            .transpose()
    }

    fn text_of(&self, value: &Value) -> Result<String, HoleError> {
        match value {
            Value::Text(text) => Ok(text.clone()),
            Value::Integer(number) => Ok(number.to_string()),
            Value::Bool(value) => Ok(value.to_string()),
            Value::Digest(digest) => Ok(digest.to_string()),
            Value::List(_) | Value::Map(_) => Err(HoleError::Type {
                text: self.text.clone(),
            }),
        }
    }

    fn hole(
        &self,
        path: &str,
        filters: &[Filter],
        context: &Value,
    ) -> Result<Option<Value>, HoleError> {
        let mut value = look_up(context, path).cloned();
        for filter in filters {
            value = match (filter, value) {
                (Filter::Or(path), None) => look_up(context, path).cloned(),
                (Filter::Prefix(prefix), Some(value)) => {
                    Some(Value::Text(format!("{prefix}{}", self.text_of(&value)?)))
                }
                (Filter::Then(_), Some(Value::Bool(false))) => None,
                (Filter::Default(text), None) | (Filter::Then(text), Some(_)) => {
                    Some(Value::Text(text.clone()))
                }
                (Filter::Unless(text), Some(value)) => {
                    (self.text_of(&value)? != *text).then_some(value)
                }
                (Filter::Machine, Some(value)) => {
                    let text = self.text_of(&value)?;
                    Some(Value::Text(match text.as_str() {
                        "amd64" => "x86_64".to_owned(),
                        "arm64" => "aarch64".to_owned(),
                        _ => text,
                    }))
                }
                (Filter::Before(mark), Some(value)) => {
                    let text = self.text_of(&value)?;
                    Some(Value::Text(
                        text.rsplit_once(mark.as_str())
                            .map_or(text.as_str(), |(before, _)| before)
                            .to_owned(),
                    ))
                }
                (Filter::After(mark), Some(value)) => {
                    let text = self.text_of(&value)?;
                    text.rsplit_once(mark.as_str())
                        .map(|(_, after)| Value::Text(after.to_owned()))
                }
                (Filter::PlatformNames, Some(Value::List(platforms))) => {
                    let mut names = platforms
                        .iter()
                        .map(|platform| self.platform_name(platform))
                        .collect::<Result<Vec<_>, _>>()?;
                    names.sort();
                    names.dedup();
                    Some(Value::List(names))
                }
                (Filter::Absent(_), Some(_)) => None,
                (Filter::Absent(text), None) => Some(Value::Text(text.clone())),
                (Filter::Wishes, Some(Value::List(rows))) => {
                    let mut rows: Vec<Value> = rows.into_iter().map(wish).collect();
                    rows.sort_by(|left, right| (name_of(left), left).cmp(&(name_of(right), right)));
                    Some(Value::List(rows))
                }
                (Filter::PlatformNames | Filter::Wishes, Some(_)) => {
                    return Err(HoleError::Type {
                        text: self.text.clone(),
                    });
                }
                (_, value) => value,
            };
            value = value.filter(|value| !is_empty(value));
        }
        Ok(value.filter(|value| !is_empty(value)))
    }

    fn platform_name(&self, platform: &Value) -> Result<Value, HoleError> {
        match platform {
            Value::Text(_) => Ok(platform.clone()),
            Value::Map(fields) => match (
                fields.get("os"),
                fields.get("architecture"),
                fields.get("variant"),
            ) {
                (Some(Value::Text(os)), Some(Value::Text(architecture)), None) => {
                    Ok(Value::Text(format!("{os}/{architecture}")))
                }
                (
                    Some(Value::Text(os)),
                    Some(Value::Text(architecture)),
                    Some(Value::Text(variant)),
                ) => Ok(Value::Text(format!("{os}/{architecture}/{variant}"))),
                _ => Err(HoleError::Type {
                    text: self.text.clone(),
                }),
            },
            _ => Err(HoleError::Type {
                text: self.text.clone(),
            }),
        }
    }
}

/// A row of the config as a want repeats it.
fn wish(row: Value) -> Value {
    let Value::Map(fields) = row else { return row };
    if let (1, Some(name)) = (fields.len(), fields.get("name")) {
        return name.clone();
    }
    let short = |key: String| match key.as_str() {
        "minVersion" => "min".to_owned(),
        "maxVersion" => "max".to_owned(),
        "minBundle" => "min-bundle".to_owned(),
        _ => key,
    };
    Value::Map(
        fields
            .into_iter()
            .map(|(key, value)| (short(key), value))
            .collect(),
    )
}

/// What a wish sorts by.
fn name_of(wish: &Value) -> Option<&Value> {
    match wish {
        Value::Map(fields) => fields.get("name"),
        name => Some(name),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Text(text) => text.is_empty(),
        Value::List(items) => items.is_empty(),
        Value::Map(entries) => entries.is_empty(),
        Value::Bool(_) | Value::Integer(_) | Value::Digest(_) => false,
    }
}

/// The value at a dotted path.
#[must_use]
pub fn look_up<'a>(context: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.')
        .try_fold(context, |value, name| match value {
            Value::Map(entries) => entries.get(name),
            _ => None,
        })
}

/// A tree whose texts have holes, as a rule's `want` or a document's `tree`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tree {
    /// Text, perhaps with holes.
    Text(Template),
    /// A value without holes.
    Plain(Value),
    /// Trees in order.
    List(Vec<Tree>),
    /// Trees by name.
    Map(BTreeMap<String, Tree>),
}

impl Tree {
    /// Reads a tree out of a rule file.
    ///
    /// # Errors
    /// If a hole is malformed, or a value is of a type that trees do not have (floats, dates).
    pub fn parse(value: &toml::Value) -> Result<Self, HoleError> {
        Ok(match value {
            // What a hole leaves empty is left out; what is written empty is meant.
            toml::Value::String(text) if text.is_empty() => Self::Plain(Value::Text(String::new())),
            toml::Value::String(text) => Self::Text(Template::parse(text)?),
            toml::Value::Integer(number) => Self::Plain(Value::Integer(*number)),
            toml::Value::Boolean(value) => Self::Plain(Value::Bool(*value)),
            toml::Value::Array(items) => {
                Self::List(items.iter().map(Self::parse).collect::<Result<_, _>>()?)
            }
            toml::Value::Table(entries) => Self::Map(
                entries
                    .iter()
                    .map(|(name, value)| Ok((name.clone(), Self::parse(value)?)))
                    .collect::<Result<_, HoleError>>()?,
            ),
            toml::Value::Float(_) | toml::Value::Datetime(_) => {
                return Err(HoleError::Type {
                    text: value.to_string(),
                });
            }
        })
    }

    /// Fills the holes; what comes out empty is left out.
    ///
    /// # Errors
    /// If a value does not fit its hole.
    pub fn fill(&self, context: &Value) -> Result<Option<Value>, HoleError> {
        Ok(match self {
            Self::Text(template) => template.fill(context)?,
            Self::Plain(value) => Some(value.clone()),
            Self::List(items) => Some(Value::List(
                items
                    .iter()
                    .map(|item| item.fill(context))
                    .filter_map(Result::transpose)
                    .collect::<Result<_, _>>()?,
            )),
            Self::Map(entries) => {
                let mut out = BTreeMap::new();
                for (name, tree) in entries {
                    if let Some(value) = tree.fill(context)? {
                        out.insert(name.clone(), value);
                    }
                }
                Some(Value::Map(out))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(text: &str) -> Option<String> {
        let context = Value::map([
            (
                "row",
                Value::map([
                    ("name", "a/b".into()),
                    ("empty", "".into()),
                    ("list", Value::List(vec!["x".into()])),
                    ("yes", Value::Bool(true)),
                    ("no", Value::Bool(false)),
                    ("arch", "arm64".into()),
                ]),
            ),
            (
                "want",
                Value::map([
                    ("target", "base/ubi9:9.4".into()),
                    ("tagged", ":1".into()),
                    ("bare", "base".into()),
                ]),
            ),
        ]);
        Template::parse(text).unwrap().fill_text(&context).unwrap()
    }

    #[test]
    fn holes_are_filled_from_the_context() {
        for (text, filled) in [
            ("plain", Some("plain")),
            ("", None),
            ("${row.name}", Some("a/b")),
            ("x-${row.name}-y", Some("x-a/b-y")),
            ("${row.missing}", None),
            ("${row.empty}", None),
            ("${row.missing|or:row.name}", Some("a/b")),
            ("${row.empty|or:row.missing|default:z}", Some("z")),
            ("${row.name|prefix::}", Some(":a/b")),
            ("${row.missing|prefix::}", None),
            ("${want.target|before::}", Some("base/ubi9")),
            ("${want.target|after::}", Some("9.4")),
            ("${want.tagged|before::|or:row.name}", Some("a/b")),
            ("${want.tagged|after::}", Some("1")),
            ("${row.yes|then:shortest}", Some("shortest")),
            ("${row.no|then:shortest}", None),
            ("${row.missing|then:shortest}", None),
            ("${row.name|unless:a/b}", None),
            ("${row.name|unless:a}", Some("a/b")),
            ("x-${row.arch|machine}", Some("x-aarch64")),
            ("${row.name|machine}", Some("a/b")),
            ("${want.bare|before::}", Some("base")),
            ("${want.bare|after::|default:none}", Some("none")),
        ] {
            assert_eq!(fill(text).as_deref(), filled, "filling {text:?}");
        }
    }

    #[test]
    fn a_malformed_hole_is_refused() {
        for (text, part) in [("${row", "not closed"), ("${row|upper}", "\"upper\"")] {
            let error = Template::parse(text).unwrap_err();
            assert!(error.to_string().contains(part), "{error} must say {part}");
        }
        let context = Value::map([("list", Value::List(vec!["x".into()]))]);
        assert!(
            Template::parse("a${list}").unwrap().fill(&context).is_err(),
            "a list cannot be joined with text"
        );
    }

    #[test]
    fn platforms_are_written_by_name_and_sorted() {
        let platform = |os: &str, architecture: &str| {
            Value::map([("os", os.into()), ("architecture", architecture.into())])
        };
        let context = Value::map([(
            "p",
            Value::List(vec![
                platform("linux", "arm64"),
                platform("linux", "amd64"),
                platform("linux", "arm64"),
            ]),
        )]);
        let names = Template::parse("${p|platform-names}")
            .unwrap()
            .fill(&context)
            .unwrap();
        assert_eq!(
            names,
            Some(Value::List(vec![
                "linux/amd64".into(),
                "linux/arm64".into()
            ])),
            "order and repetition must not matter"
        );
    }

    #[test]
    fn the_wishes_of_a_list_are_short_and_sorted() {
        let row = |entries: &[(&str, &str)]| {
            Value::map(
                entries
                    .iter()
                    .map(|(name, value)| (*name, Value::from(*value))),
            )
        };
        let context = Value::map([(
            "rows",
            Value::List(vec![
                row(&[("name", "b"), ("minVersion", "1"), ("maxVersion", "2")]),
                row(&[("name", "c")]),
                row(&[("name", "a"), ("minBundle", "a.v1")]),
            ]),
        )]);
        let fill = |text: &str| Template::parse(text).unwrap().fill(&context).unwrap();
        assert_eq!(
            fill("${rows|wishes}"),
            Some(Value::List(vec![
                row(&[("name", "a"), ("min-bundle", "a.v1")]),
                row(&[("name", "b"), ("min", "1"), ("max", "2")]),
                "c".into(),
            ])),
            "a row that is only a name is its name; the order of the config does not count"
        );
        assert_eq!(fill("${rows|absent:all}"), None, "there are rows");
        assert_eq!(
            fill("${none|absent:all}"),
            Some("all".into()),
            "there are none"
        );
        assert!(
            Template::parse("${name|wishes}")
                .unwrap()
                .fill(&row(&[("name", "b")]))
                .is_err(),
            "a text is no list"
        );
    }
}
