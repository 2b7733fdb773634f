//! What selected bundles require of other packages.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Deserialize;

use super::model::Model;
use super::near::near;
use crate::hint::Hint;
use crate::openshift::fbc::{FbcError, Fragment, Property};
use crate::openshift::version::{Range, Version};

/// Something a bundle cannot be installed without.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Requirement {
    /// `olm.package.required`: a package in a range of versions.
    Package {
        /// The package.
        name: String,
        /// The range as written; empty where any will do.
        range: String,
    },
    /// `olm.gvk.required`: an API.
    Api {
        /// Its group.
        group: String,
        /// Its version.
        version: String,
        /// Its kind.
        kind: String,
    },
}

impl fmt::Display for Requirement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Package { name, range } if range.is_empty() => {
                write!(formatter, "package {name}")
            }
            Self::Package { name, range } => write!(formatter, "package {name} {range}"),
            Self::Api {
                group,
                version,
                kind,
            } => write!(formatter, "API {kind} of {group}/{version}"),
        }
    }
}

/// A requirement that no selected bundle fulfils.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmet {
    /// What is missing.
    pub requirement: Requirement,
    /// The bundles that require it, with their packages, ascending.
    pub by: Vec<(String, String)>,
    /// The versions of the required package that are selected, if any; none of them is in the range.
    pub selected: Vec<Version>,
    /// Selected packages of a similar name.
    pub near: Vec<String>,
}

impl fmt::Display for Unmet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by: Vec<String> = self
            .by
            .iter()
            .map(|(package, bundle)| format!("{bundle} (package {package})"))
            .collect();
        write!(
            formatter,
            "{} is not selected, but required by {}",
            self.requirement,
            by.join(", ")
        )?;
        if !self.selected.is_empty() {
            let versions: Vec<String> = self.selected.iter().map(Version::to_string).collect();
            write!(formatter, "; selected are only {}", versions.join(", "))?;
        }
        Ok(())
    }
}

impl Hint for Unmet {
    fn hint(&self) -> Option<String> {
        match &self.requirement {
            Requirement::Package { name, .. } if self.selected.is_empty() => {
                Some(format!("add package {name}"))
            }
            Requirement::Package { name, range } => {
                Some(format!("select a version {range} of package {name}"))
            }
            Requirement::Api { .. } => Some("add the package that provides it".to_owned()),
        }
    }
}

#[derive(Deserialize)]
struct Required {
    #[serde(rename = "packageName")]
    package: String,
    #[serde(rename = "versionRange", default)]
    range: String,
}

#[derive(Deserialize)]
struct Api {
    #[serde(default)]
    group: String,
    version: String,
    kind: String,
}

impl From<Api> for Requirement {
    fn from(api: Api) -> Self {
        Self::Api {
            group: api.group,
            version: api.version,
            kind: api.kind,
        }
    }
}

fn field<'p, T: Deserialize<'p>>(
    package: &str,
    bundle: &str,
    property: &'p Property,
) -> Result<T, FbcError> {
    serde_json::from_str(property.value.get()).map_err(|error| FbcError::Field {
        package: package.to_owned(),
        schema: super::BUNDLE.to_owned(),
        name: bundle.to_owned(),
        reason: format!("property {}: {error}", property.kind),
    })
}

fn range(package: &str, bundle: &str, range: &str) -> Result<Option<Range>, FbcError> {
    if range.trim().is_empty() {
        return Ok(None);
    }
    range
        .parse()
        .map(Some)
        .map_err(
            |error: crate::openshift::version::VersionError| FbcError::Field {
                package: package.to_owned(),
                schema: super::BUNDLE.to_owned(),
                name: bundle.to_owned(),
                reason: format!("property olm.package.required: {error}"),
            },
        )
}

/// What is required inside a set of selected packages and not there, ascending.
///
/// # Errors
/// If a property has not the form of its type.
pub fn unmet<'f>(selected: impl IntoIterator<Item = &'f Fragment>) -> Result<Vec<Unmet>, FbcError> {
    let mut versions: BTreeMap<String, BTreeSet<Version>> = BTreeMap::new();
    let mut provided: BTreeSet<Requirement> = BTreeSet::new();
    let mut required: BTreeMap<Requirement, BTreeSet<(String, String)>> = BTreeMap::new();
    let mut ranges: BTreeMap<String, Option<Range>> = BTreeMap::new();
    for fragment in selected {
        let package = fragment.package();
        let model = Model::read(fragment)?;
        let here = versions.entry(package.to_owned()).or_default();
        for bundle in &model.bundles {
            here.extend(model.version(&bundle.name).cloned());
            for property in &bundle.properties {
                let requirement = match property.kind.as_str() {
                    "olm.gvk" => {
                        let api: Api = field(package, &bundle.name, property)?;
                        provided.insert(api.into());
                        continue;
                    }
                    "olm.gvk.required" => field::<Api>(package, &bundle.name, property)?.into(),
                    "olm.package.required" => {
                        let found: Required = field(package, &bundle.name, property)?;
                        let parsed = range(package, &bundle.name, &found.range)?;
                        ranges.insert(found.range.clone(), parsed);
                        Requirement::Package {
                            name: found.package,
                            range: found.range,
                        }
                    }
                    _ => continue,
                };
                required
                    .entry(requirement)
                    .or_default()
                    .insert((package.to_owned(), bundle.name.clone()));
            }
        }
    }
    let mut found = Vec::new();
    for (requirement, by) in required {
        let (selected, near) = match &requirement {
            Requirement::Api { .. } if provided.contains(&requirement) => continue,
            Requirement::Api { .. } => (Vec::new(), Vec::new()),
            Requirement::Package { name, range } => {
                let range = ranges.get(range).and_then(Option::as_ref);
                match versions.get(name) {
                    None => (Vec::new(), near(name, versions.keys().map(String::as_str))),
                    Some(there) => {
                        if there
                            .iter()
                            .any(|version| range.is_none_or(|range| range.contains(version)))
                        {
                            continue;
                        }
                        (there.iter().cloned().collect(), Vec::new())
                    }
                }
            }
        };
        found.push(Unmet {
            requirement,
            by: by.into_iter().collect(),
            selected,
            near,
        });
    }
    Ok(found)
}

/// The newest bundle of a package that fulfils `requirement`, with a channel that has it: the default channel if it
/// does; `None` if none does.
///
/// # Errors
/// If a document or a property has not the form of its schema.
pub fn satisfying(
    fragment: &Fragment,
    requirement: &Requirement,
) -> Result<Option<(String, String)>, FbcError> {
    let model = Model::read(fragment)?;
    let package = fragment.package();
    let default = model
        .packages
        .first()
        .map_or("", |package| package.default_channel.as_str());
    let mut best: Option<(bool, &Version, &str, &str)> = None;
    for bundle in &model.bundles {
        let Some(version) = model.version(&bundle.name) else {
            continue;
        };
        let fulfils = match requirement {
            Requirement::Package { name, range: text } => {
                name == package
                    && range(package, &bundle.name, text)?
                        .is_none_or(|range| range.contains(version))
            }
            Requirement::Api { .. } => {
                let mut provides = false;
                for property in bundle
                    .properties
                    .iter()
                    .filter(|property| property.kind == "olm.gvk")
                {
                    let api: Api = field(package, &bundle.name, property)?;
                    provides |= Requirement::from(api) == *requirement;
                }
                provides
            }
        };
        if !fulfils {
            continue;
        }
        for channel in &model.channels {
            if channel
                .entries
                .iter()
                .any(|entry| entry.name == bundle.name)
            {
                let found = (
                    channel.name == default,
                    version,
                    bundle.name.as_str(),
                    channel.name.as_str(),
                );
                if best.is_none_or(|best| best < found) {
                    best = Some(found);
                }
            }
        }
    }
    Ok(best.map(|(_, _, bundle, channel)| (bundle.to_owned(), channel.to_owned())))
}
