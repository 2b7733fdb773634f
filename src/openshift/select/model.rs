//! A package as far as selecting needs it.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::openshift::fbc::{Bundle, Channel, FbcError, Fragment, Package, Property};
use crate::openshift::version::Version;

pub(super) struct Model {
    pub(super) packages: Vec<Package>,
    /// By name.
    pub(super) channels: Vec<Channel>,
    /// By name.
    pub(super) bundles: Vec<Bundle>,
    /// Of each bundle, by name; why it has none where it has none.
    pub(super) versions: BTreeMap<String, Result<Version, String>>,
}

#[derive(Deserialize)]
struct PackageProperty {
    #[serde(rename = "packageName", default)]
    package: String,
    version: String,
}

impl Model {
    pub(super) fn read(fragment: &Fragment) -> Result<Self, FbcError> {
        let bundles = fragment.bundles()?;
        let versions = bundles
            .iter()
            .map(|bundle| {
                let version = version(fragment.package(), &bundle.properties);
                (bundle.name.clone(), version)
            })
            .collect();
        Ok(Self {
            packages: fragment.packages()?,
            channels: fragment.channels()?,
            bundles,
            versions,
        })
    }

    pub(super) fn version(&self, bundle: &str) -> Option<&Version> {
        self.versions.get(bundle)?.as_ref().ok()
    }

    pub(super) fn channel(&self, name: &str) -> Option<&Channel> {
        self.channels.iter().find(|channel| channel.name == name)
    }
}

fn version(package: &str, properties: &[Property]) -> Result<Version, String> {
    let mut found = properties
        .iter()
        .filter(|property| property.kind == "olm.package");
    let (Some(property), None) = (found.next(), found.next()) else {
        return Err("expected exactly one property olm.package".to_owned());
    };
    let property: PackageProperty = serde_json::from_str(property.value.get())
        .map_err(|error| format!("property olm.package: {error}"))?;
    if property.package != package {
        return Err(format!(
            "its property olm.package names package {:?}",
            property.package
        ));
    }
    property
        .version
        .parse()
        .map_err(|error: crate::openshift::version::VersionError| error.to_string())
}
