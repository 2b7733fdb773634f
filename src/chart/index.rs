//! The index of a Helm repository: `index.yaml`.
//!
//! It lists every version of every chart with where to download it. [`Index::find`] chooses one as Helm does: a
//! version that is written exactly is taken as it is, anything else is a constraint
//! ([`super::semver::Constraint`]) of which the highest version is taken.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use url::Url;

use super::load::scalar_text;
use super::semver::{Constraint, SemverError, Version};
use super::yaml::{self, YamlError};
use crate::hint::Hint;

/// Why an index, or a chart in it, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The index is no YAML.
    #[error("cannot read the index of the chart repository")]
    Yaml {
        /// What is wrong.
        source: YamlError,
    },
    /// The index is something else.
    #[error("the index of the chart repository has no {0}")]
    Shape(&'static str),
    /// The chart is not in the index.
    #[error("the chart repository has no chart {name:?}")]
    NoChart {
        /// The chart.
        name: String,
        /// The names that are most alike.
        alike: Vec<String>,
    },
    /// No version fits.
    #[error("the chart repository has no version {version:?} of chart {name:?}")]
    NoVersion {
        /// The chart.
        name: String,
        /// What was asked for.
        version: String,
        /// The highest version there is.
        highest: Option<String>,
    },
    /// The version is neither a version nor a constraint.
    #[error("cannot choose a version of chart {name:?}")]
    Constraint {
        /// The chart.
        name: String,
        /// What is wrong.
        source: SemverError,
    },
    /// A download URL is malformed.
    #[error("chart {name:?} has no usable download URL: {url:?}")]
    Url {
        /// The chart.
        name: String,
        /// What the index says.
        url: String,
    },
}

impl Hint for IndexError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::NoChart { alike, .. } if !alike.is_empty() => {
                Some(format!("similar names: {}", alike.join(", ")))
            }
            Self::NoVersion {
                highest: Some(highest),
                ..
            } => Some(format!("the highest version is {highest}")),
            _ => None,
        }
    }
}

/// One version of a chart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// The chart's name.
    pub name: String,
    /// Its version, as written.
    pub version: String,
    /// The version of what it installs.
    pub app_version: String,
    /// Whether it should no longer be used.
    pub deprecated: bool,
    /// Where to download it, as written: absolute or relative to the repository.
    pub urls: Vec<String>,
    /// The sha256 of the archive, in hexadecimal, with or without `sha256:`; often missing.
    pub digest: String,
    /// When it was made, as written.
    pub created: String,
}

impl Entry {
    /// The first download URL, made absolute.
    ///
    /// `repository` is the URL of the repository, with or without `index.yaml` and a slash at its end.
    pub fn url(&self, repository: &Url) -> Result<Url, IndexError> {
        let text = self.urls.first().map_or("", String::as_str);
        let malformed = || IndexError::Url {
            name: self.name.clone(),
            url: text.to_owned(),
        };
        if text.is_empty() {
            return Err(malformed());
        }
        let mut base = repository.clone();
        let path = base.path().trim_end_matches("index.yaml").to_owned();
        base.set_path(&format!("{}/", path.trim_end_matches('/')));
        let mut url = base.join(text).map_err(|_| malformed())?;
        // What a private repository asks for in its query, it asks for on its charts as well.
        if url.query().is_none() && url.host() == base.host() {
            url.set_query(base.query());
        }
        Ok(url)
    }
}

/// A repository's index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    entries: BTreeMap<String, Vec<Entry>>,
}

impl Index {
    /// Reads an index. Entries without a version that is one are left out, as Helm does.
    pub fn parse(bytes: &[u8]) -> Result<Self, IndexError> {
        let text = String::from_utf8_lossy(bytes);
        // Large indexes are often JSON, which is read much faster as what it is.
        let document = match serde_json::from_str::<Json>(&text) {
            Ok(document) => document,
            Err(_) => yaml::parse(&text).map_err(|source| IndexError::Yaml { source })?,
        };
        let Json::Object(index) = &document else {
            return Err(IndexError::Shape("mapping at its top"));
        };
        if scalar_text(index.get("apiVersion")).is_empty() {
            return Err(IndexError::Shape("apiVersion"));
        }
        let mut entries = BTreeMap::new();
        if let Some(Json::Object(charts)) = index.get("entries") {
            for (name, versions) in charts {
                let mut versions: Vec<(Version, Entry)> = versions
                    .as_array()
                    .map(Vec::as_slice)
                    .unwrap_or_default()
                    .iter()
                    .filter_map(|version| read_entry(name, version))
                    .collect();
                // Highest first; those of equal precedence keep their order.
                versions.sort_by(|(left, _), (right, _)| right.compare(left));
                let versions = versions.into_iter().map(|(_, entry)| entry).collect();
                entries.insert(name.clone(), versions);
            }
        }
        Ok(Self { entries })
    }

    /// The names of all charts, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// All versions of a chart, highest first.
    #[must_use]
    pub fn versions(&self, name: &str) -> &[Entry] {
        self.entries.get(name).map_or(&[], Vec::as_slice)
    }

    /// The version of a chart that fits; without one, the highest that is no prerelease.
    pub fn find(&self, name: &str, version: Option<&str>) -> Result<&Entry, IndexError> {
        let versions = self.versions(name);
        if versions.is_empty() {
            let lower = name.to_lowercase();
            let alike = self
                .names()
                .filter(|other| {
                    let other = other.to_lowercase();
                    other.contains(&lower) || lower.contains(&other)
                })
                .take(5)
                .map(str::to_owned)
                .collect();
            return Err(IndexError::NoChart {
                name: name.to_owned(),
                alike,
            });
        }
        let wanted = version.unwrap_or("").trim();
        if let Some(exact) = versions.iter().find(|entry| entry.version == wanted) {
            return Ok(exact);
        }
        let constraint =
            Constraint::parse(if wanted.is_empty() { "*" } else { wanted }).map_err(|source| {
                IndexError::Constraint {
                    name: name.to_owned(),
                    source,
                }
            })?;
        versions
            .iter()
            .find(|entry| {
                Version::parse(&entry.version).is_ok_and(|version| constraint.check(&version))
            })
            .ok_or_else(|| IndexError::NoVersion {
                name: name.to_owned(),
                version: wanted.to_owned(),
                highest: versions.first().map(|entry| entry.version.clone()),
            })
    }
}

fn read_entry(name: &str, entry: &Json) -> Option<(Version, Entry)> {
    let text = |key: &str| scalar_text(entry.get(key));
    let version = text("version");
    let parsed = Version::parse(&version).ok()?;
    let urls = entry
        .get("urls")?
        .as_array()?
        .iter()
        .filter_map(Json::as_str)
        .map(str::to_owned)
        .collect();
    Some((
        parsed,
        Entry {
            name: name.to_owned(),
            version,
            app_version: text("appVersion"),
            deprecated: entry.get("deprecated") == Some(&Json::Bool(true)),
            urls,
            digest: text("digest"),
            created: text("created"),
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INDEX: &str = "
apiVersion: v1
entries:
  app:
  - version: 1.2.0
    urls: [charts/app-1.2.0.tgz]
  - version: 2.0.0-rc1
    urls: [charts/app-2.0.0-rc1.tgz]
  - version: v1.10.0
    urls: ['https://elsewhere.example/app-1.10.0.tgz']
    digest: abc
  - version: not-a-version
    urls: [x.tgz]
";

    #[test]
    fn a_version_is_chosen_as_helm_chooses() {
        let index = Index::parse(INDEX.as_bytes()).unwrap();
        for (wanted, found) in [
            (None, "v1.10.0"),
            (Some("1.2.0"), "1.2.0"),
            (Some("^1.0"), "v1.10.0"),
            (Some("~1.2"), "1.2.0"),
            (Some(">1.0-0"), "2.0.0-rc1"),
            (Some("2.0.0-rc1"), "2.0.0-rc1"),
            (Some("1.10.0"), "v1.10.0"),
        ] {
            assert_eq!(
                index.find("app", wanted).unwrap().version,
                found,
                "{wanted:?}"
            );
        }
        let error = index.find("app", Some("3.x")).unwrap_err();
        assert_eq!(
            error.hint().as_deref(),
            Some("the highest version is 2.0.0-rc1"),
            "what is not there is answered with what is"
        );
        let error = index.find("ap", None).unwrap_err();
        assert_eq!(
            error.hint().as_deref(),
            Some("similar names: app"),
            "a name that is not there is answered with those alike"
        );
    }

    #[test]
    fn a_url_is_relative_to_the_repository() {
        let index = Index::parse(INDEX.as_bytes()).unwrap();
        for base in [
            "https://charts.example/stable",
            "https://charts.example/stable/",
            "https://charts.example/stable/index.yaml",
        ] {
            let base: Url = base.parse().unwrap();
            let entry = index.find("app", Some("1.2.0")).unwrap();
            assert_eq!(
                entry.url(&base).unwrap().as_str(),
                "https://charts.example/stable/charts/app-1.2.0.tgz",
                "{base}"
            );
        }
        let base: Url = "https://charts.example".parse().unwrap();
        let entry = index.find("app", Some("v1.10.0")).unwrap();
        assert_eq!(
            entry.url(&base).unwrap().as_str(),
            "https://elsewhere.example/app-1.10.0.tgz",
            "an absolute URL stays"
        );
    }
}
