//! Charts in memory: read from an archive, from a directory, or from files that are there already.
//!
//! An archive comes from a network and is not trusted: entries with absolute paths, with `..`, links and devices
//! are refused, and sizes are bounded before bytes are read ([`LoadLimits`]). A directory is the user's own; its
//! `.helmignore` says what does not belong to the chart.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use super::glob::Ignore;
use super::semver::{SemverError, Version};
use super::yaml::{self, YamlError};
use crate::hint::Hint;

/// How big a chart may be, dependencies included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadLimits {
    /// Bytes of all files together, uncompressed.
    pub chart: u64,
    /// Bytes of one file, uncompressed.
    pub file: u64,
    /// Number of files.
    pub files: usize,
    /// How deep archives and charts may stand inside of each other.
    pub depth: usize,
}

impl Default for LoadLimits {
    /// The sizes are Helm's: 100 MiB and 5 MiB.
    fn default() -> Self {
        Self {
            chart: 100 << 20,
            file: 5 << 20,
            files: 20_000,
            depth: 16,
        }
    }
}

/// Why something is not a chart.
#[derive(Debug, thiserror::Error)]
pub enum ChartError {
    /// The archive or a file cannot be read.
    #[error("cannot read {what}")]
    Read {
        /// What was read.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The archive holds nothing.
    #[error("the chart archive holds no files")]
    Empty,
    /// An entry that may not be in an archive.
    #[error("the chart archive holds {path:?}, {reason}")]
    Entry {
        /// The path in the archive.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Bigger than allowed.
    #[error("the chart has more than {limit} {unit} ({path})")]
    TooBig {
        /// Where the limit was passed.
        path: String,
        /// The limit.
        limit: u64,
        /// Of what.
        unit: &'static str,
    },
    /// A file every chart has is missing.
    #[error("{chart} has no Chart.yaml")]
    NoMetadata {
        /// Where it was looked for.
        chart: String,
    },
    /// A file of the chart is no YAML.
    #[error("cannot read {file} of chart {chart:?}")]
    Yaml {
        /// The chart.
        chart: String,
        /// The file.
        file: String,
        /// What is wrong.
        source: YamlError,
    },
    /// A field of `Chart.yaml` is missing or wrong.
    #[error("chart {chart:?}: {field} {problem}")]
    Field {
        /// The chart.
        chart: String,
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The chart's version is none.
    #[error("chart {chart:?} has a malformed version")]
    Version {
        /// The chart.
        chart: String,
        /// What is wrong.
        source: SemverError,
    },
    /// A line of `.helmignore` is malformed.
    #[error("line {line} of .helmignore is malformed: {rule:?}")]
    Ignore {
        /// From 1.
        line: usize,
        /// What it says.
        rule: String,
    },
    /// A chart inside of this one cannot be read.
    #[error("cannot read the dependency {name:?} of chart {chart:?}")]
    Dependency {
        /// The chart.
        chart: String,
        /// The directory or archive in `charts/`.
        name: String,
        /// Why.
        source: Box<ChartError>,
    },
}

impl Hint for ChartError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Empty => Some("a chart archive is a .tgz made by `helm package`".to_owned()),
            Self::NoMetadata { .. } => {
                Some("name the directory or archive that holds Chart.yaml".to_owned())
            }
            Self::Ignore { .. } => {
                Some("patterns follow Helm: no `**`, and brackets need their ends".to_owned())
            }
            Self::Dependency { source, .. } => source.hint(),
            _ => None,
        }
    }
}

/// What `Chart.yaml` (and `requirements.yaml`) says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// `v1` or `v2`.
    pub api_version: String,
    /// The chart's name.
    pub name: String,
    /// The chart's version.
    pub version: String,
    /// The version of what it installs.
    pub app_version: String,
    /// Which Kubernetes versions it is for.
    pub kube_version: String,
    /// One sentence.
    pub description: String,
    /// `application` or `library`.
    pub kind: String,
    /// Where the project lives.
    pub home: String,
    /// A picture's URL.
    pub icon: String,
    /// When a parent enables it; of old charts.
    pub condition: String,
    /// Tags that enable it; of old charts.
    pub tags: String,
    /// Whether it should no longer be used.
    pub deprecated: bool,
    /// Where its sources are.
    pub sources: Vec<String>,
    /// Words to find it by.
    pub keywords: Vec<String>,
    /// Who keeps it.
    pub maintainers: Vec<Maintainer>,
    /// Further facts.
    pub annotations: BTreeMap<String, String>,
    /// Charts it needs.
    pub dependencies: Vec<Dependency>,
}

/// A person or team.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Maintainer {
    /// Their name.
    pub name: String,
    /// Their address.
    pub email: String,
    /// Their page.
    pub url: String,
}

/// A chart another one needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dependency {
    /// The chart's name.
    pub name: String,
    /// A version or constraint.
    pub version: String,
    /// Where to get it.
    pub repository: String,
    /// Paths in the values, separated by commas; the first that is a boolean enables or disables it.
    pub condition: String,
    /// Names under `tags` in the values.
    pub tags: Vec<String>,
    /// What the parent calls it.
    pub alias: String,
    /// Which of its values the parent takes over: a name under `exports`, or a mapping of `child` and `parent`.
    pub import_values: Vec<ImportValues>,
}

/// Values a parent takes over from a dependency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportValues {
    /// A path in the dependency's values.
    pub child: String,
    /// A path in the parent's values; `.` is their top.
    pub parent: String,
}

/// What `Chart.lock` (or `requirements.lock`) says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lock {
    /// The digest of the dependencies it was made for.
    pub digest: String,
    /// Each dependency with its exact version.
    pub dependencies: Vec<Dependency>,
}

/// A chart with all its files.
#[derive(Clone, Debug, Default)]
pub struct Chart {
    pub(super) metadata: Metadata,
    pub(super) lock: Option<Lock>,
    pub(super) values: serde_json::Map<String, Json>,
    pub(super) templates: BTreeMap<String, Vec<u8>>,
    pub(super) files: BTreeMap<String, Vec<u8>>,
    pub(super) dependencies: Vec<Chart>,
}

/// What is left of the limits.
struct Allowance {
    limits: LoadLimits,
    bytes: u64,
    files: usize,
}

impl Allowance {
    fn new(limits: LoadLimits) -> Self {
        Self {
            limits,
            bytes: 0,
            files: 0,
        }
    }

    /// Reads a file whole, if it may be that big.
    fn read(&mut self, path: &str, reader: impl Read) -> Result<Vec<u8>, ChartError> {
        let too_big = |limit: u64, unit| ChartError::TooBig {
            path: path.to_owned(),
            limit,
            unit,
        };
        self.files += 1;
        if self.files > self.limits.files {
            return Err(too_big(self.limits.files as u64, "files"));
        }
        let left = self.limits.chart.saturating_sub(self.bytes);
        let most = self.limits.file.min(left);
        let mut bytes = Vec::new();
        reader
            .take(most.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(|source| ChartError::Read {
                what: path.to_owned(),
                source,
            })?;
        let length = bytes.len() as u64;
        if length > left {
            return Err(too_big(self.limits.chart, "bytes"));
        }
        if length > self.limits.file {
            return Err(too_big(self.limits.file, "bytes in one file"));
        }
        self.bytes += length;
        if bytes.starts_with(b"\xef\xbb\xbf") {
            bytes.drain(..3);
        }
        Ok(bytes)
    }
}

impl Chart {
    /// Reads a gzipped tar archive.
    pub fn from_archive(reader: impl Read, limits: LoadLimits) -> Result<Self, ChartError> {
        let mut allowance = Allowance::new(limits);
        let files = archive_files(reader, &mut allowance)?;
        Self::assemble(files, &mut allowance, 0)
    }

    /// Reads a directory, without what its `.helmignore` names.
    pub fn from_directory(directory: &Path, limits: LoadLimits) -> Result<Self, ChartError> {
        Self::from_files(directory_within(directory, limits)?, limits)
    }

    /// Makes a chart of files by their paths in it (`Chart.yaml`, `templates/...`).
    pub fn from_files(
        files: BTreeMap<String, Vec<u8>>,
        limits: LoadLimits,
    ) -> Result<Self, ChartError> {
        let mut allowance = Allowance::new(limits);
        let mut counted = BTreeMap::new();
        for (path, bytes) in files {
            let bytes = allowance.read(&path, bytes.as_slice())?;
            counted.insert(path, bytes);
        }
        Self::assemble(counted, &mut allowance, 0)
    }

    /// What the chart says of itself.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The exact versions of its dependencies, if it says them.
    #[must_use]
    pub fn lock(&self) -> Option<&Lock> {
        self.lock.as_ref()
    }

    /// The charts inside of it, enabled or not.
    #[must_use]
    pub fn dependencies(&self) -> &[Chart] {
        &self.dependencies
    }

    /// Dependencies it names that are not inside of it: `helm dependency build` has not been run.
    #[must_use]
    pub fn missing_dependencies(&self) -> Vec<&Dependency> {
        self.metadata
            .dependencies
            .iter()
            .filter(|wanted| {
                !self
                    .dependencies
                    .iter()
                    .any(|chart| chart.metadata.name == wanted.name)
            })
            .collect()
    }

    fn assemble(
        files: BTreeMap<String, Vec<u8>>,
        allowance: &mut Allowance,
        depth: usize,
    ) -> Result<Self, ChartError> {
        let Some(own) = files.get("Chart.yaml") else {
            return Err(ChartError::NoMetadata {
                chart: "the chart".to_owned(),
            });
        };
        let mut chart = Self {
            metadata: read_metadata(&yaml_file("", "Chart.yaml", own)?),
            ..Self::default()
        };
        let name = chart.metadata.name.clone();
        let mut parts: BTreeMap<String, BTreeMap<String, Vec<u8>>> = BTreeMap::new();
        for (path, bytes) in files {
            match path.as_str() {
                "Chart.yaml" | "values.schema.json" => {}
                "Chart.lock" => {
                    chart.lock = Some(read_lock(&yaml_file(&name, &path, &bytes)?));
                }
                "values.yaml" => match yaml_file(&name, &path, &bytes)? {
                    Json::Object(values) => chart.values = values,
                    Json::Null => {}
                    _ => {
                        return Err(ChartError::Field {
                            chart: name,
                            field: "values.yaml",
                            problem: "is no mapping".to_owned(),
                        });
                    }
                },
                "requirements.yaml" | "requirements.lock" => {
                    let document = yaml_file(&name, &path, &bytes)?;
                    if path == "requirements.yaml" {
                        if document.get("dependencies").is_some() {
                            chart.metadata.dependencies = read_dependencies(&document);
                        }
                    } else if chart.lock.is_none() {
                        chart.lock = Some(read_lock(&document));
                    }
                    if chart.metadata.api_version == "v1" {
                        chart.files.insert(path, bytes);
                    }
                }
                _ if path.starts_with("templates/") => {
                    chart.templates.insert(path, bytes);
                }
                _ if path.starts_with("charts/") && ending(&path) != "prov" => {
                    let inner = &path["charts/".len()..];
                    let (part, rest) = inner.split_once('/').unwrap_or((inner, ""));
                    parts
                        .entry(part.to_owned())
                        .or_default()
                        .insert(rest.to_owned(), bytes);
                }
                _ => {
                    chart.files.insert(path, bytes);
                }
            }
        }
        chart.validate()?;
        for (part, mut files) in parts {
            if part.starts_with(['_', '.']) {
                continue;
            }
            if depth >= allowance.limits.depth {
                return Err(ChartError::TooBig {
                    path: format!("charts/{part}"),
                    limit: allowance.limits.depth as u64,
                    unit: "levels of dependencies",
                });
            }
            let inner = if ending(&part) == "tgz" && files.contains_key("") {
                let archive = files.remove("").unwrap_or_default();
                archive_files(archive.as_slice(), allowance)
            } else {
                // Files that stand in charts/ itself, such as a README, are no charts.
                files.remove("");
                if files.is_empty() {
                    continue;
                }
                Ok(files)
            };
            let dependency = inner
                .and_then(|files| Self::assemble(files, allowance, depth + 1))
                .map_err(|source| ChartError::Dependency {
                    chart: chart.metadata.name.clone(),
                    name: part,
                    source: Box::new(source),
                })?;
            chart.dependencies.push(dependency);
        }
        Ok(chart)
    }

    fn validate(&mut self) -> Result<(), ChartError> {
        let metadata = &mut self.metadata;
        let chart = metadata.name.clone();
        let wrong = |field, problem: &str| {
            Err(ChartError::Field {
                chart: chart.clone(),
                field,
                problem: problem.to_owned(),
            })
        };
        if metadata.api_version.is_empty() {
            "v1".clone_into(&mut metadata.api_version);
        }
        if metadata.name.is_empty() {
            return wrong("name", "is missing");
        }
        if metadata.name.contains(['/', '\\']) || matches!(metadata.name.as_str(), "." | "..") {
            return wrong("name", "is no file name");
        }
        if metadata.version.is_empty() {
            return wrong("version", "is missing");
        }
        if let Err(source) = Version::parse(&metadata.version) {
            return Err(ChartError::Version { chart, source });
        }
        if !matches!(metadata.kind.as_str(), "" | "application" | "library") {
            return wrong("type", "must be application or library");
        }
        Ok(())
    }
}

/// What follows the last dot of a path.
fn ending(path: &str) -> &str {
    path.rsplit_once('.').map_or("", |(_, ending)| ending)
}

fn yaml_file(chart: &str, file: &str, bytes: &[u8]) -> Result<Json, ChartError> {
    let text = super::value::text_from_bytes(bytes);
    yaml::parse(&text).map_err(|source| ChartError::Yaml {
        chart: chart.to_owned(),
        file: file.to_owned(),
        source,
    })
}

/// The files of an archive, by their paths under its one top directory.
fn archive_files(
    reader: impl Read,
    allowance: &mut Allowance,
) -> Result<BTreeMap<String, Vec<u8>>, ChartError> {
    let cannot_read = |source| ChartError::Read {
        what: "the chart archive".to_owned(),
        source,
    };
    // Headers and padding count as well, so that an archive of nothing but those ends.
    let most = allowance
        .limits
        .chart
        .saturating_mul(2)
        .saturating_add(2048 * allowance.limits.files as u64);
    let unzipped = flate2::read::MultiGzDecoder::new(reader).take(most);
    let mut archive = tar::Archive::new(unzipped);
    let mut files = BTreeMap::new();
    for entry in archive.entries().map_err(cannot_read)? {
        let entry = entry.map_err(cannot_read)?;
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let kind = entry.header().entry_type();
        if kind.is_dir()
            || matches!(
                kind,
                tar::EntryType::XGlobalHeader | tar::EntryType::XHeader
            )
        {
            continue;
        }
        let refuse = |reason| {
            Err(ChartError::Entry {
                path: path.clone(),
                reason,
            })
        };
        if !kind.is_file() && kind != tar::EntryType::Continuous {
            return refuse("which is no file: links and devices are refused");
        }
        let unified = if path.contains('\\') {
            path.replace('\\', "/")
        } else {
            path.clone()
        };
        let Some((_, inner)) = unified.split_once('/') else {
            return refuse("which is outside of the chart's directory");
        };
        if inner.starts_with('/') || unified.starts_with('/') {
            return refuse("which is an absolute path");
        }
        let cleaned = super::functions::urls::cleaned(inner);
        if cleaned == "." {
            return refuse("which is outside of the chart's directory");
        }
        if cleaned.starts_with("..") || unified.starts_with("../") {
            return refuse("which leaves the chart's directory");
        }
        if inner.as_bytes().get(1) == Some(&b':') {
            return refuse("which names a drive");
        }
        if entry.size() > allowance.limits.file {
            return Err(ChartError::TooBig {
                path,
                limit: allowance.limits.file,
                unit: "bytes in one file",
            });
        }
        let bytes = allowance.read(&path, entry)?;
        files.insert(cleaned, bytes);
    }
    if files.is_empty() {
        return Err(ChartError::Empty);
    }
    Ok(files)
}

/// The files of a directory by their paths in it, without what its `.helmignore` names.
pub(super) fn directory_within(
    directory: &Path,
    limits: LoadLimits,
) -> Result<BTreeMap<String, Vec<u8>>, ChartError> {
    let files = directory_files(directory, &mut Allowance::new(limits))?;
    if !files.contains_key("Chart.yaml") {
        return Err(ChartError::NoMetadata {
            chart: directory.display().to_string(),
        });
    }
    Ok(files)
}

fn directory_files(
    directory: &Path,
    allowance: &mut Allowance,
) -> Result<BTreeMap<String, Vec<u8>>, ChartError> {
    let ignore_file = directory.join(".helmignore");
    let ignore = match std::fs::File::open(&ignore_file) {
        Ok(file) => {
            let bytes = allowance.read(".helmignore", file)?;
            Ignore::parse(&super::value::text_from_bytes(&bytes))?
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ignore::parse("")?,
        Err(source) => {
            return Err(ChartError::Read {
                what: ignore_file.display().to_string(),
                source,
            });
        }
    };
    let relative = |path: &Path| -> Option<String> {
        let relative: PathBuf = path.strip_prefix(directory).ok()?.to_path_buf();
        let parts: Option<Vec<&str>> = relative.iter().map(|part| part.to_str()).collect();
        parts.map(|parts| parts.join("/"))
    };
    let mut files = BTreeMap::new();
    let walk = walkdir::WalkDir::new(directory)
        .follow_links(true)
        .sort_by_file_name()
        .max_depth(64)
        .into_iter()
        .filter_entry(|entry| {
            entry.depth() == 0
                || relative(entry.path())
                    .is_none_or(|path| !ignore.ignores(&path, entry.file_type().is_dir()))
        });
    for entry in walk {
        let entry = entry.map_err(|error| ChartError::Read {
            what: error.path().unwrap_or(directory).display().to_string(),
            source: error.into(),
        })?;
        if entry.file_type().is_dir() {
            continue;
        }
        let path = relative(entry.path()).ok_or_else(|| ChartError::Entry {
            path: entry.path().display().to_string(),
            reason: "whose name is no text",
        })?;
        if !entry.file_type().is_file() {
            return Err(ChartError::Entry {
                path,
                reason: "which is no file",
            });
        }
        let file = std::fs::File::open(entry.path()).map_err(|source| ChartError::Read {
            what: entry.path().display().to_string(),
            source,
        })?;
        let bytes = allowance.read(&path, file)?;
        files.insert(path, bytes);
    }
    Ok(files)
}

/// A scalar as the text Helm takes it for: a number or boolean is written out.
pub(super) fn scalar_text(value: Option<&Json>) -> String {
    match value {
        Some(Json::String(text)) => text.clone(),
        Some(Json::Bool(truth)) => truth.to_string(),
        Some(Json::Number(number)) => match number.as_f64() {
            Some(float) if number.is_f64() => {
                #[allow(clippy::cast_possible_truncation)]
                let single = float as f32;
                super::functions::print::shortest(f64::from(single), Some(single))
            }
            _ => number.to_string(),
        },
        _ => String::new(),
    }
}

fn texts(value: Option<&Json>) -> Vec<String> {
    match value {
        Some(Json::Array(items)) => items.iter().map(|item| scalar_text(Some(item))).collect(),
        _ => Vec::new(),
    }
}

fn read_metadata(document: &Json) -> Metadata {
    let text = |key: &str| scalar_text(document.get(key));
    let maintainers = match document.get("maintainers") {
        Some(Json::Array(items)) => items
            .iter()
            .map(|item| Maintainer {
                name: scalar_text(item.get("name")),
                email: scalar_text(item.get("email")),
                url: scalar_text(item.get("url")),
            })
            .collect(),
        _ => Vec::new(),
    };
    let annotations = match document.get("annotations") {
        Some(Json::Object(entries)) => entries
            .iter()
            .map(|(key, value)| (key.clone(), scalar_text(Some(value))))
            .collect(),
        _ => BTreeMap::new(),
    };
    Metadata {
        api_version: text("apiVersion"),
        name: text("name"),
        version: text("version"),
        app_version: text("appVersion"),
        kube_version: text("kubeVersion"),
        description: text("description"),
        kind: text("type"),
        home: text("home"),
        icon: text("icon"),
        condition: text("condition"),
        tags: text("tags"),
        deprecated: document.get("deprecated") == Some(&Json::Bool(true)),
        sources: texts(document.get("sources")),
        keywords: texts(document.get("keywords")),
        maintainers,
        annotations,
        dependencies: read_dependencies(document),
    }
}

fn read_dependencies(document: &Json) -> Vec<Dependency> {
    let Some(Json::Array(items)) = document.get("dependencies") else {
        return Vec::new();
    };
    items
        .iter()
        .filter(|item| item.is_object())
        .map(|item| {
            let text = |key: &str| scalar_text(item.get(key));
            let import_values = match item.get("import-values") {
                Some(Json::Array(items)) => items
                    .iter()
                    .map(|item| match item {
                        Json::Object(pair) => ImportValues {
                            child: scalar_text(pair.get("child")),
                            parent: scalar_text(pair.get("parent")),
                        },
                        other => ImportValues {
                            child: format!("exports.{}", scalar_text(Some(other))),
                            parent: ".".to_owned(),
                        },
                    })
                    .collect(),
                _ => Vec::new(),
            };
            Dependency {
                name: text("name"),
                version: text("version"),
                repository: text("repository"),
                condition: text("condition"),
                tags: texts(item.get("tags")),
                alias: text("alias"),
                import_values,
            }
        })
        .collect()
}

fn read_lock(document: &Json) -> Lock {
    Lock {
        digest: scalar_text(document.get("digest")),
        dependencies: read_dependencies(document),
    }
}
