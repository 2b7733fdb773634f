//! A package at a glance: for people who have not chosen yet.

use std::collections::BTreeMap;

use base64::Engine as _;
use serde::Deserialize;

use super::model::Model;
use super::{Options, Selection, Want, WantChannel, select};
use crate::openshift::fbc::{Bundle, FbcError, Fragment};
use crate::openshift::version::Version;

/// What there is of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Its name.
    pub name: String,
    /// What people call it: the display name of its newest version; empty where there is none.
    pub display_name: String,
    /// What a subscription without a channel follows.
    pub default_channel: String,
    /// Its channels, by name.
    pub channels: Vec<ChannelSummary>,
}

/// What there is of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelSummary {
    /// Its name.
    pub name: String,
    /// The bundle that nothing replaces, or why there is none.
    pub head: Result<String, String>,
    /// Its versions, ascending.
    pub versions: Vec<Version>,
    /// Every image that the head needs; none without a head.
    pub images: Vec<String>,
}

#[derive(Deserialize)]
struct Named {
    #[serde(rename = "displayName", default)]
    display_name: String,
}

#[derive(Deserialize)]
struct Object {
    data: String,
}

#[derive(Deserialize)]
struct ClusterServiceVersion {
    #[serde(default)]
    kind: String,
    spec: Option<Named>,
}

/// The display name of a bundle: of its metadata, else of the manifest that is put into the catalog whole.
fn display_name(bundle: &Bundle) -> Option<String> {
    let of_kind = |kind: &'static str| {
        bundle
            .properties
            .iter()
            .filter(move |property| property.kind == kind)
            .map(|property| property.value.get())
    };
    let named = of_kind("olm.csv.metadata")
        .filter_map(|text| serde_json::from_str::<Named>(text).ok())
        .map(|named| named.display_name);
    let whole = of_kind("olm.bundle.object")
        .filter_map(|text| serde_json::from_str::<Object>(text).ok())
        .filter_map(|object| {
            base64::engine::general_purpose::STANDARD
                .decode(object.data)
                .ok()
        })
        .filter_map(|bytes| serde_json::from_slice::<ClusterServiceVersion>(&bytes).ok())
        .filter(|manifest| manifest.kind == "ClusterServiceVersion")
        .filter_map(|manifest| manifest.spec.map(|spec| spec.display_name));
    named.chain(whole).find(|name| !name.is_empty())
}

/// Sums a package up.
///
/// # Errors
/// If a document has not the form of its schema; a channel without a head is told in its place.
pub fn summary(fragment: &Fragment) -> Result<Summary, FbcError> {
    let model = Model::read(fragment)?;
    let mut newest: Vec<(&Version, &Bundle)> = model
        .bundles
        .iter()
        .filter_map(|bundle| Some((model.version(&bundle.name)?, bundle)))
        .collect();
    newest.sort_by(|left, right| right.0.cmp(left.0));
    let versions: BTreeMap<&str, &Version> = newest
        .iter()
        .map(|(version, bundle)| (bundle.name.as_str(), *version))
        .collect();
    let channels = model
        .channels
        .iter()
        .map(|channel| {
            let want = Want {
                channels: vec![WantChannel {
                    name: channel.name.clone(),
                    ..WantChannel::default()
                }],
                default_channel: Some(channel.name.clone()),
                ..Want::default()
            };
            let options = Options {
                selection: Selection::EveryChannel,
                prereleases: None,
            };
            let mut listed: Vec<Version> = channel
                .entries
                .iter()
                .filter_map(|entry| versions.get(entry.name.as_str()))
                .map(|version| (*version).clone())
                .collect();
            listed.sort();
            listed.dedup();
            let (head, images) = match select(fragment, &want, options) {
                Ok(selected) => (
                    selected
                        .bundles
                        .last()
                        .map(|bundle| bundle.name.clone())
                        .ok_or_else(|| "it has no bundle".to_owned()),
                    selected
                        .images
                        .into_iter()
                        .map(|image| image.image)
                        .collect(),
                ),
                Err(error) => (Err(error.to_string()), Vec::new()),
            };
            ChannelSummary {
                name: channel.name.clone(),
                head,
                versions: listed,
                images,
            }
        })
        .collect();
    Ok(Summary {
        name: fragment.package().to_owned(),
        display_name: newest
            .iter()
            .find_map(|(_, bundle)| display_name(bundle))
            .unwrap_or_default(),
        default_channel: model
            .packages
            .first()
            .map(|package| package.default_channel.clone())
            .unwrap_or_default(),
        channels,
    })
}
