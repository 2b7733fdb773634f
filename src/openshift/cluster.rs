//! What a cluster is told: mirror sets, and the YAML that resources are written in.
//!
//! The content of ImageDigestMirrorSet and ImageTagMirrorSet follows the incumbents to the letter where clusters
//! consume it: which images are listed, by namespace or by repository, and under which category. Order is ours,
//! and fixed: categories in the order release, operator, generic; entries by source.

use std::collections::BTreeMap;

use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

use crate::canon::Value;
use crate::reference::{Reference, Repository};

/// One image as clusters know it, and where it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirrored {
    /// `release`, `operator` or `generic`.
    pub category: String,
    /// The name that workloads use.
    pub origin: Reference,
    /// The repository at the destination.
    pub destination: Repository,
    /// Whether it is listed among the mirrors for pulls by digest.
    pub by_digest: bool,
    /// Whether it is listed among the mirrors for pulls by tag.
    pub by_tag: bool,
}

/// Which of the two mirror sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// ImageDigestMirrorSet.
    Digest,
    /// ImageTagMirrorSet.
    Tag,
}

/// The order in which categories are written; others follow by name.
const CATEGORIES: [&str; 3] = ["release", "operator", "generic"];

/// The rows of a mirror set: `{category, mirrors: [{source, mirrors}]}`, one per category that has entries.
///
/// An entry covers the namespace where the destination path ends with the whole source path, and one repository
/// otherwise; `by_repository` (a path limit is in force) forces the latter for all.
#[must_use]
pub fn mirror_rows(images: &[Mirrored], by: By, by_repository: bool) -> Vec<Value> {
    let mut categories: BTreeMap<(usize, &str), BTreeMap<String, Vec<String>>> = BTreeMap::new();
    for image in images {
        let listed = match by {
            By::Digest => image.by_digest,
            By::Tag => image.by_tag,
        };
        if !listed {
            continue;
        }
        let (source, mirror) = scope(&image.origin.repository, &image.destination, by_repository);
        let rank = CATEGORIES
            .iter()
            .position(|name| *name == image.category)
            .unwrap_or(CATEGORIES.len());
        let mirrors = categories
            .entry((rank, &image.category))
            .or_default()
            .entry(source)
            .or_default();
        if !mirrors.contains(&mirror) {
            mirrors.push(mirror);
        }
    }
    categories
        .into_iter()
        .map(|((_, category), entries)| {
            let entries = entries
                .into_iter()
                .map(|(source, mut mirrors)| {
                    mirrors.sort();
                    let mirrors = mirrors.into_iter().map(Value::Text).collect();
                    Value::map([("source", source.into()), ("mirrors", Value::List(mirrors))])
                })
                .collect();
            Value::map([
                ("category", category.into()),
                ("mirrors", Value::List(entries)),
            ])
        })
        .collect()
}

/// The two ends of one entry.
fn scope(source: &Repository, destination: &Repository, by_repository: bool) -> (String, String) {
    let kept = destination.path() == source.path()
        || destination
            .path()
            .strip_suffix(source.path())
            .is_some_and(|before| before.ends_with('/'));
    if by_repository || !kept {
        return (source.to_string(), destination.to_string());
    }
    let parent = |repository: &Repository| match repository.path().rsplit_once('/') {
        Some((namespace, _)) => format!("{}/{namespace}", repository.registry()),
        None => repository.registry().to_owned(),
    };
    (parent(source), parent(destination))
}

/// The API of catalogs that clusters know.
const CATALOG_SOURCE: (&str, &str) = ("operators.coreos.com/v1alpha1", "CatalogSource");

/// Longest name of a catalog's object.
const LONGEST_NAME: usize = 63;

/// Reads a template of a CatalogSource: a tree to lay the fixed fields over.
///
/// # Errors
/// With what is wrong, if it is no CatalogSource that pulls an image.
pub fn read_template(bytes: &[u8]) -> Result<Value, String> {
    let json: serde_json::Value =
        serde_saphyr::from_slice(bytes).map_err(|error| format!("it is no YAML: {error}"))?;
    let text = |path: &str| json.pointer(path).and_then(serde_json::Value::as_str);
    for (path, wanted) in [
        ("/apiVersion", CATALOG_SOURCE.0),
        ("/kind", CATALOG_SOURCE.1),
    ] {
        let found = text(path).unwrap_or_default();
        if found != wanted {
            return Err(format!("{} is {found:?}, not {wanted:?}", &path[1..]));
        }
    }
    let kind = text("/spec/sourceType").unwrap_or_default();
    if !["", "grpc"].contains(&kind) {
        return Err(format!("spec.sourceType is {kind:?}, not \"grpc\""));
    }
    if text("/spec/configMap").is_some_and(|name| !name.is_empty()) {
        return Err("spec.configMap is set".to_owned());
    }
    value(&json)
}

/// Whether [`read_template`] takes it.
///
/// # Errors
/// With what is wrong.
pub fn check_template(bytes: &[u8]) -> Result<(), String> {
    read_template(bytes).map(drop)
}

/// JSON as a tree; what is null is left out.
fn value(json: &serde_json::Value) -> Result<Value, String> {
    use serde_json::Value as Json;
    Ok(match json {
        Json::Bool(flag) => Value::Bool(*flag),
        Json::String(text) => Value::Text(text.clone()),
        Json::Number(number) => Value::Integer(
            number
                .as_i64()
                .ok_or_else(|| format!("{number} is no whole number"))?,
        ),
        Json::Array(items) => Value::List(
            items
                .iter()
                .filter(|item| !item.is_null())
                .map(value)
                .collect::<Result<_, _>>()?,
        ),
        Json::Object(fields) => Value::Map(
            fields
                .iter()
                .filter(|(_, field)| !field.is_null())
                .map(|(name, field)| Ok((name.clone(), value(field)?)))
                .collect::<Result<_, String>>()?,
        ),
        Json::Null => Value::map([]),
    })
}

/// Lays a tree over another: maps are joined, anything else is replaced.
#[must_use]
pub fn laid_over(under: &Value, over: &Value) -> Value {
    let (Value::Map(under), Value::Map(over)) = (under, over) else {
        return over.clone();
    };
    let mut joined = under.clone();
    for (name, value) in over {
        let value = match joined.get(name) {
            Some(below) => laid_over(below, value),
            None => value.clone(),
        };
        joined.insert(name.clone(), value);
    }
    Value::Map(joined)
}

/// What the objects of a catalog are called behind `cs-` and `cc-`: the last part of its repository, and its tag; the
/// start of its digest, where it is known by that alone.
///
/// # Errors
/// If that is no name an object may have.
pub fn catalog_name(repository: &Repository, suffix: Result<&str, &str>) -> Result<String, String> {
    let last = repository
        .path()
        .rsplit('/')
        .next()
        .unwrap_or_default()
        .replace('.', "-");
    let suffix: String = match suffix {
        Ok(tag) => tag
            .to_lowercase()
            .chars()
            .take(12)
            .map(|letter| {
                if letter.is_ascii_lowercase() || letter.is_ascii_digit() {
                    letter
                } else {
                    '-'
                }
            })
            .collect(),
        Err(hex) => hex.chars().take(12).collect(),
    };
    let suffix = if suffix.is_empty() { "0" } else { &suffix };
    let name = format!("{last}-{suffix}");
    let fits = "cs-".len() + name.len() <= LONGEST_NAME
        && name.ends_with(|letter: char| letter.is_ascii_alphanumeric())
        && name
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || letter == '-');
    if fits { Ok(name) } else { Err(name) }
}

/// A value as serde sees it.
struct Tree<'a>(&'a Value);

impl Serialize for Tree<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::Integer(number) => serializer.serialize_i64(*number),
            Value::Text(text) => serializer.serialize_str(text),
            Value::Digest(digest) => serializer.collect_str(digest),
            Value::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                items
                    .iter()
                    .try_for_each(|item| list.serialize_element(&Tree(item)))?;
                list.end()
            }
            Value::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                entries
                    .iter()
                    .try_for_each(|(name, value)| map.serialize_entry(name, &Tree(value)))?;
                map.end()
            }
        }
    }
}

/// Writes documents as one YAML stream: each behind `---`, keys sorted, every text quoted that any YAML reader
/// might take for something else.
///
/// # Errors
/// Never for values of [`Value`]; the type is serde's.
pub fn yaml_stream(documents: &[Value]) -> Result<String, serde_saphyr::ser::Error> {
    let mut out = String::new();
    // A name stands on one line, however long it is: people look for it there.
    let options = serde_saphyr::ser_options! {
        folded_wrap_chars: usize::MAX,
    };
    for document in documents {
        out.push_str("---\n");
        let text = serde_saphyr::to_string_with_options(&Tree(document), options.clone())?;
        out.push_str(text.trim_end());
        out.push('\n');
    }
    Ok(out)
}

/// Writes documents as JSON: one as it is, several as a list of objects.
///
/// # Errors
/// Never for values of [`Value`]; the type is serde's.
pub fn json_text(documents: &[Value]) -> Result<String, serde_json::Error> {
    let list;
    let whole = match documents {
        [one] => one,
        several => {
            list = Value::map([
                ("apiVersion", "v1".into()),
                ("kind", "List".into()),
                ("items", Value::List(several.to_vec())),
            ]);
            &list
        }
    };
    let mut text = serde_json::to_string_pretty(&Tree(whole))?;
    text.push('\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

    fn image(category: &str, origin: &str, destination: &str) -> Mirrored {
        Mirrored {
            category: category.to_owned(),
            origin: origin.parse().unwrap(),
            destination: destination.parse().unwrap(),
            by_digest: origin.contains('@') || origin.contains("ocp-release"),
            by_tag: !origin.contains('@') || origin.contains(":v1@"),
        }
    }

    fn lines(rows: &[Value]) -> Vec<String> {
        let text = |value: &Value| match value {
            Value::Text(text) => text.clone(),
            other => panic!("{other:?} is not text"),
        };
        let mut lines = Vec::new();
        for row in rows {
            let Value::Map(row) = row else {
                panic!("a row is a map")
            };
            let Value::List(entries) = &row["mirrors"] else {
                panic!("mirrors are a list")
            };
            for entry in entries {
                let Value::Map(entry) = entry else {
                    panic!("an entry is a map")
                };
                let Value::List(mirrors) = &entry["mirrors"] else {
                    panic!("mirrors are a list")
                };
                let mirrors: Vec<String> = mirrors.iter().map(text).collect();
                lines.push(format!(
                    "{} {} -> {}",
                    text(&row["category"]),
                    text(&entry["source"]),
                    mirrors.join(" ")
                ));
            }
        }
        lines
    }

    #[test]
    fn entries_are_grouped_as_the_incumbents_group_them() {
        let digest = |name: &str| format!("{name}@sha256:{HEX}");
        let images = [
            image(
                "operator",
                &digest("registry.redhat.io/ubi9/ubi"),
                "reg.example.com:5000/m/ubi9/ubi",
            ),
            image(
                "operator",
                &digest("registry.redhat.io/ubi9/ubi-micro"),
                "reg.example.com:5000/m/ubi9/ubi-micro",
            ),
            image(
                "release",
                &digest("quay.io/openshift-release-dev/ocp-v4.0-art-dev"),
                "reg.example.com:5000/m/openshift/release",
            ),
            image(
                "release",
                "quay.io/openshift-release-dev/ocp-release:4.16.1-x86_64",
                "reg.example.com:5000/m/openshift/release-images",
            ),
            image(
                "generic",
                "docker.io/library/nginx:1.27",
                "reg.example.com:5000/m/library/nginx",
            ),
            image(
                "generic",
                &digest("quay.io/single:v1"),
                "reg.example.com:5000/m/single",
            ),
            image(
                "generic",
                &digest("quay.io/b/c"),
                "reg.example.com:5000/m/xb/c",
            ),
        ];
        assert_eq!(
            lines(&mirror_rows(&images, By::Digest, false)),
            [
                "release quay.io/openshift-release-dev/ocp-release -> reg.example.com:5000/m/openshift/release-images",
                "release quay.io/openshift-release-dev/ocp-v4.0-art-dev -> reg.example.com:5000/m/openshift/release",
                "operator registry.redhat.io/ubi9 -> reg.example.com:5000/m/ubi9",
                "generic quay.io -> reg.example.com:5000/m",
                "generic quay.io/b/c -> reg.example.com:5000/m/xb/c",
            ],
            "digest mirrors"
        );
        assert_eq!(
            lines(&mirror_rows(&images, By::Tag, false)),
            [
                "release quay.io/openshift-release-dev/ocp-release -> reg.example.com:5000/m/openshift/release-images",
                "generic docker.io/library -> reg.example.com:5000/m/library",
                "generic quay.io -> reg.example.com:5000/m",
            ],
            "tag mirrors"
        );
        assert_eq!(
            lines(&mirror_rows(&images[..2], By::Digest, true)),
            [
                "operator registry.redhat.io/ubi9/ubi -> reg.example.com:5000/m/ubi9/ubi",
                "operator registry.redhat.io/ubi9/ubi-micro -> reg.example.com:5000/m/ubi9/ubi-micro",
            ],
            "a path limit lists every repository"
        );
    }

    #[test]
    fn yaml_is_the_same_to_every_reader() {
        let document = Value::map([
            ("yes", "no".into()),
            ("version", "4.10".into()),
            ("empty", "".into()),
            ("time", "12:30".into()),
            (
                "list",
                Value::List(vec![
                    Value::map([("a", "b: c".into()), ("n", Value::Integer(1))]),
                    "y".into(),
                ]),
            ),
            ("on", Value::Bool(true)),
        ]);
        let text = yaml_stream(&[document.clone(), document]).unwrap();
        for part in text.split("---\n").skip(1) {
            let read: serde_yaml::Value = serde_yaml::from_str(part).unwrap();
            assert_eq!(
                read["version"].as_str(),
                Some("4.10"),
                "a version stays text in\n{part}"
            );
            assert_eq!(read["yes"].as_str(), Some("no"), "no stays text");
            assert_eq!(
                read["list"][0]["n"].as_i64(),
                Some(1),
                "a number stays a number"
            );
            for plain in [": no\n", ": 4.10\n", ": 12:30\n", "- y\n"] {
                assert!(
                    !part.contains(plain),
                    "{plain:?} must be quoted for YAML 1.1 readers in\n{part}"
                );
            }
        }
        assert_eq!(
            text.matches("---\n").count(),
            2,
            "each document stands behind its marker"
        );
    }

    #[test]
    fn a_catalog_is_called_after_its_repository_and_tag() {
        for (repository, suffix, wanted) in [
            (
                "m/redhat/redhat-operator-index",
                Ok("v4.16"),
                Ok("redhat-operator-index-v4-16"),
            ),
            ("m/x", Ok("Release_2024.01.15-rc1"), Ok("x-release-2024")),
            ("m/x.y", Ok("latest"), Ok("x-y-latest")),
            ("m/x", Ok(""), Ok("x-0")),
            ("m/x", Err(HEX), Ok("x-2cf24dba5fb0")),
            ("m/x_y", Ok("v1"), Err("x_y-v1")),
            ("m/x", Ok("v1-rc-2025-__"), Err("x-v1-rc-2025--")),
        ] {
            let repository = format!("reg.example.com:5000/{repository}")
                .parse()
                .unwrap();
            assert_eq!(
                catalog_name(&repository, suffix)
                    .as_deref()
                    .map_err(String::as_str),
                wanted,
                "{repository} {suffix:?}"
            );
        }
        let long = format!("reg.example.com/{}", "a".repeat(60))
            .parse()
            .unwrap();
        assert!(
            catalog_name(&long, Ok("v1")).is_err(),
            "a name has 63 letters at most"
        );
    }

    #[test]
    fn a_template_is_a_catalog_source_that_pulls_an_image() {
        let good = "apiVersion: operators.coreos.com/v1alpha1\nkind: CatalogSource\nspec:\n  displayName: A\n  priority: -100\n  grpcPodConfig: {nodeSelector: {a: \"b\"}}\n";
        let read = read_template(good.as_bytes()).unwrap();
        let ours = Value::map([(
            "spec",
            Value::map([("image", "x".into()), ("sourceType", "grpc".into())]),
        )]);
        let Value::Map(laid) = laid_over(&read, &ours) else {
            panic!("maps join as a map")
        };
        let Value::Map(spec) = &laid["spec"] else {
            panic!("what is inside joins, too")
        };
        assert_eq!(
            (
                spec["displayName"].clone(),
                spec["image"].clone(),
                spec["priority"].clone()
            ),
            ("A".into(), "x".into(), Value::Integer(-100)),
            "what the template says stays, ours is on top"
        );
        for (from, to, part) in [
            ("v1alpha1", "v1", "apiVersion is"),
            ("CatalogSource", "ClusterCatalog", "kind is"),
            (
                "  displayName: A",
                "  sourceType: configmap",
                "spec.sourceType",
            ),
            (
                "  displayName: A",
                "  configMap: a",
                "spec.configMap is set",
            ),
            ("-100", "1.5", "no whole number"),
            ("spec:", "- spec:", "no YAML"),
        ] {
            assert!(good.contains(from), "the case must apply: {from}");
            let error = read_template(good.replacen(from, to, 1).as_bytes()).unwrap_err();
            assert!(error.contains(part), "{error} must say {part}");
        }
    }
}
