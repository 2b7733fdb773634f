//! The documents whose schema is known, as far as their fields mean something here.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// `olm.package`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// What a subscription without a channel follows; empty where it is not set.
    #[serde(rename = "defaultChannel", default, deserialize_with = "or_default")]
    pub default_channel: String,
}

/// `olm.channel`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Channel {
    /// Its name in the package.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// Its versions, in no order that means anything.
    #[serde(default, deserialize_with = "or_default")]
    pub entries: Vec<Entry>,
}

/// One entry of a channel: a bundle and what it updates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Entry {
    /// The bundle.
    pub name: String,
    /// The bundle it follows; empty for none. It need not be in the channel.
    #[serde(default, deserialize_with = "or_default")]
    pub replaces: String,
    /// Bundles that are passed over; they need not be in the channel.
    #[serde(default, deserialize_with = "or_default")]
    pub skips: Vec<String>,
    /// Versions that it may be updated from; empty for none.
    #[serde(rename = "skipRange", default, deserialize_with = "or_default")]
    pub skip_range: String,
}

/// `olm.bundle`
#[derive(Clone, Debug, Deserialize)]
pub struct Bundle {
    /// Its name in the package.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// The bundle image; empty where the bundle is inlined.
    #[serde(default, deserialize_with = "or_default")]
    pub image: String,
    /// Version, what it provides, what it requires.
    #[serde(default, deserialize_with = "or_default")]
    pub properties: Vec<Property>,
    /// Images that it runs.
    #[serde(rename = "relatedImages", default, deserialize_with = "or_default")]
    pub related_images: Vec<RelatedImage>,
}

/// A property of a bundle.
#[derive(Clone, Debug, Deserialize)]
pub struct Property {
    /// Its type: `olm.package`, `olm.gvk` and so on.
    #[serde(rename = "type")]
    pub kind: String,
    /// What the type makes of it.
    pub value: Box<RawValue>,
}

/// An image that a bundle runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct RelatedImage {
    /// What the bundle calls it.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// Where it is; some catalogs have entries without.
    #[serde(default, deserialize_with = "or_default")]
    pub image: String,
}

/// `olm.deprecations`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Deprecations {
    /// What is deprecated.
    #[serde(default, deserialize_with = "or_default")]
    pub entries: Vec<Deprecation>,
}

/// One thing that is deprecated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Deprecation {
    /// What.
    pub reference: Reference,
    /// Why, and what to do.
    #[serde(default, deserialize_with = "or_default")]
    pub message: String,
}

/// Names something of the package.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Reference {
    /// `olm.package`, `olm.channel` or `olm.bundle`.
    pub schema: String,
    /// Its name; empty for the package itself.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
}

/// Go writes an empty list as `null`.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
