//! What is selected of one package: a want as the selection takes it, and the memo of what came out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::is_required;
use super::snapshot::{LISTING_TYPE, keep_json, read_fragment, read_json, remember, store_problem};
use crate::canon::Value;
use crate::digest::Digest;
use crate::openshift::select::{self, Options, Prereleases, Selection, Want as Wish, WantChannel};
use crate::openshift::version::Version;
use crate::plan::lock::{Catalog, Package, Want};
use crate::run::resolve::means::{Means, Problem};
use crate::step::Derive;
use crate::store::Blob;
use crate::store::memo::recall;

/// What was selected of a package, as the memo keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Listing {
    pub(super) bundles: Vec<ListedBundle>,
    pub(super) fragment: Digest,
    pub(super) images: Vec<ListedImage>,
    pub(super) notes: Vec<String>,
    pub(super) size: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ListedBundle {
    pub(super) channels: Vec<String>,
    pub(super) image: String,
    pub(super) name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ListedImage {
    pub(super) asked: Vec<(String, String)>,
    pub(super) image: String,
}

impl Listing {
    pub(super) const fn blob(&self) -> Blob {
        Blob {
            digest: self.fragment,
            size: self.size,
        }
    }
}

/// A `want` as the selection takes it.
pub(super) fn wish(settings: &BTreeMap<String, Value>) -> Result<(Wish, Options), Problem> {
    let text = |name: &str| match settings.get(name) {
        Some(Value::Text(text)) => Some(text.clone()),
        _ => None,
    };
    let rows = |name: &str| match settings.get(name) {
        Some(Value::List(rows)) => rows.as_slice(),
        _ => &[],
    };
    let channels = rows("channels")
        .iter()
        .map(|row| {
            let empty = BTreeMap::new();
            let fields = match row {
                Value::Map(fields) => fields,
                _ => &empty,
            };
            let field = |name: &str| match fields.get(name) {
                Some(Value::Text(text)) => Some(text.clone()),
                _ => None,
            };
            WantChannel {
                name: match row {
                    Value::Text(name) => name.clone(),
                    _ => field("name").unwrap_or_default(),
                },
                min: field("min"),
                max: field("max"),
                min_bundle: field("min-bundle"),
            }
        })
        .collect();
    let since = match settings.get("since") {
        Some(Value::Map(since)) => since
            .iter()
            .filter_map(|(channel, version)| match version {
                Value::Text(text) => Some((channel.clone(), text.parse().ok()?)),
                _ => None,
            })
            .collect(),
        _ => BTreeMap::new(),
    };
    let selection = match text("selection") {
        Some(name) => name
            .parse::<Selection>()
            .map_err(|error| Problem::new(error.to_string()))?,
        None => Selection::default(),
    };
    let prereleases = match text("prereleases").as_deref() {
        None => None,
        Some("include") => Some(Prereleases::Include),
        Some("exclude") => Some(Prereleases::Exclude),
        Some(other) => {
            return Err(Problem::new(format!(
                "prereleases is {other:?}: expected include or exclude"
            )));
        }
    };
    let wish = Wish {
        full: settings.get("full") == Some(&Value::Bool(true)),
        default_channel: text("default"),
        min: text("min"),
        max: text("max"),
        min_bundle: text("min-bundle"),
        channels,
        bundles: rows("bundles")
            .iter()
            .filter_map(|name| match name {
                Value::Text(name) => Some(name.clone()),
                _ => None,
            })
            .collect(),
        since,
    };
    Ok((
        wish,
        Options {
            selection,
            prereleases,
        },
    ))
}

/// What is selected of one package, from the memo or computed.
pub(super) fn filter(
    means: &Means<'_>,
    package: &str,
    fragment: &Blob,
    settings: &BTreeMap<String, Value>,
) -> Result<Listing, Problem> {
    let store = means.resolver().store;
    let key = Derive::FilterCatalog {
        fragment: *fragment,
        want: Value::Map(settings.clone()),
    }
    .key();
    let known = recall(store, store, &key).map_err(|error| store_problem(&error))?;
    if let Some([output, ..]) = known.as_deref() {
        return read_json(means, &output.blob);
    }
    let (wish, options) = wish(settings)?;
    let whole = read_fragment(means, package, fragment)?;
    let selected = select::select(&whole, &wish, options).map_err(|error| Problem::of(&error))?;
    let blob = means.keep(&selected.fragment.to_bytes())?;
    let listing = Listing {
        bundles: selected
            .bundles
            .into_iter()
            .map(|bundle| ListedBundle {
                channels: bundle.channels,
                image: bundle.image,
                name: bundle.name,
            })
            .collect(),
        fragment: blob.digest,
        images: selected
            .images
            .into_iter()
            .map(|image| ListedImage {
                asked: image.asked,
                image: image.image,
            })
            .collect(),
        notes: selected.notes.iter().map(ToString::to_string).collect(),
        size: blob.size,
    };
    let output = keep_json(means, &listing)?;
    remember(means, &key, LISTING_TYPE, &[output, blob])?;
    Ok(listing)
}

/// The settings of a catalog that decide what is selected of a package nobody names.
pub(super) fn common(want: &Want) -> BTreeMap<String, Value> {
    ["full", "selection", "prereleases"]
        .into_iter()
        .filter_map(|key| Some((key.to_owned(), want.get(key)?.clone())))
        .collect()
}

/// The lowest version of each channel that a block has: where the first oc-mirror's walk starts the next time.
pub(super) fn since(package: &Package) -> Value {
    let version = |name: &str| -> Option<Version> {
        let (_, version) = name.split_once('.')?;
        Version::parse_tolerant(version.trim_start_matches('v')).ok()
    };
    let mut lowest: BTreeMap<&str, Version> = BTreeMap::new();
    for bundle in &package.bundles {
        let Some(found) = version(&bundle.name) else {
            continue;
        };
        for channel in &bundle.channels {
            lowest
                .entry(channel)
                .and_modify(|known| {
                    if found < *known {
                        *known = found.clone();
                    }
                })
                .or_insert_with(|| found.clone());
        }
    }
    Value::Map(
        lowest
            .into_iter()
            .map(|(channel, version)| (channel.to_owned(), version.to_string().into()))
            .collect(),
    )
}

pub(super) fn settings_of(
    want: &BTreeMap<String, Value>,
    known: Option<&Package>,
) -> BTreeMap<String, Value> {
    let mut settings = want.clone();
    if settings.get("selection") == Some(&Value::from(Selection::V1.as_str()))
        && let Some(package) = known
        && let Value::Map(since) = since(package)
        && !since.is_empty()
    {
        settings.insert("since".to_owned(), Value::Map(since));
    }
    settings
}

/// The part of a required package's want that the selection reads.
pub(super) fn required_settings(want: &Want) -> BTreeMap<String, Value> {
    let mut settings = want.settings().clone();
    settings.remove("required");
    settings
}

/// What is selected of a locked package, as far as its block says it.
pub(super) fn settings_of_block(catalog: &Catalog, package: &Package) -> BTreeMap<String, Value> {
    match &package.want {
        Some(want) if is_required(Some(want)) => required_settings(want),
        Some(want) => settings_of(want.settings(), Some(package)),
        None => settings_of(&common(&catalog.want), Some(package)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::lock::{Bundle, Origin as PinOrigin, Pin};

    fn map(entries: &[(&str, Value)]) -> BTreeMap<String, Value> {
        entries
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect()
    }

    #[test]
    fn a_want_says_what_is_selected() {
        let channels = Value::List(vec![
            "fast".into(),
            Value::map([
                ("name", "stable".into()),
                ("min", "1.0.0".into()),
                ("max", "2.0.0".into()),
            ]),
        ]);
        let settings = map(&[
            ("channels", channels),
            ("default", "fast".into()),
            ("bundles", Value::List(vec!["a.v1".into()])),
            ("full", Value::Bool(true)),
            ("min-bundle", "a.v0".into()),
            ("selection", "v1".into()),
            ("prereleases", "exclude".into()),
            ("since", Value::map([("stable", "1.2.3".into())])),
        ]);
        let (wish, options) = wish(&settings).unwrap();
        let bounds: Vec<_> = wish
            .channels
            .iter()
            .map(|channel| {
                (
                    channel.name.as_str(),
                    channel.min.as_deref(),
                    channel.max.as_deref(),
                )
            })
            .collect();
        assert_eq!(
            bounds,
            [
                ("fast", None, None),
                ("stable", Some("1.0.0"), Some("2.0.0"))
            ],
            "a channel is a name, or a name with bounds"
        );
        assert_eq!(
            (
                wish.full,
                wish.default_channel.as_deref(),
                wish.min_bundle.as_deref(),
                wish.bundles.as_slice()
            ),
            (
                true,
                Some("fast"),
                Some("a.v0"),
                ["a.v1".to_owned()].as_slice()
            )
        );
        assert_eq!(wish.since["stable"].to_string(), "1.2.3");
        assert_eq!(
            (options.selection, options.prereleases),
            (Selection::V1, Some(Prereleases::Exclude))
        );
        for (name, value) in [("selection", "newest"), ("prereleases", "some")] {
            assert!(
                super::wish(&map(&[(name, value.into())])).is_err(),
                "{name} = {value} means nothing"
            );
        }
    }

    #[test]
    fn the_walk_of_the_first_tool_starts_at_the_lowest_version_of_each_channel() {
        let bundle = |name: &str, channels: &[&str]| Bundle {
            name: name.to_owned(),
            channels: channels
                .iter()
                .map(|channel| (*channel).to_owned())
                .collect(),
            pin: Pin::new(
                PinOrigin::Layout("x".to_owned()),
                Digest::from_bytes([0; 32]),
                1,
            ),
        };
        let package = Package {
            name: "p".to_owned(),
            want: None,
            fbc: Digest::from_bytes([0; 32]),
            from: None,
            bundles: vec![
                bundle("p.v1.10.0", &["a", "b"]),
                bundle("p.v1.9.0", &["a"]),
                bundle("odd", &["a"]),
            ],
            images: Vec::new(),
        };
        let wanted = Value::map([("a", "1.9.0".into()), ("b", "1.10.0".into())]);
        assert_eq!(since(&package), wanted, "by version, not by text");
        let v1 = map(&[("selection", "v1".into())]);
        assert_eq!(
            settings_of(&v1, Some(&package)).get("since"),
            Some(&wanted),
            "it is asked for with the rest"
        );
        assert_eq!(
            settings_of(&BTreeMap::new(), Some(&package)),
            BTreeMap::new(),
            "no other selection looks back"
        );
    }
}
