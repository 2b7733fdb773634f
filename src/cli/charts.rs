//! Charts: what the settings add to them, `list charts`, and a comparison with Helm itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value as Json, json};
use url::Url;

use super::arguments::{Format, ListCharts};
use super::site::Site;
use super::ui::{self, Failure, say};
use crate::canon::Value;
use crate::chart::artifact::version_of;
use crate::chart::{
    Chart, Document, Index, LoadLimits, RenderOptions, Rendered, Wish, find_images, pack, render,
    yaml,
};
use crate::config::{ChartSettings, Row};
use crate::deliver::charts::file_of;
use crate::digest::Digest;
use crate::hint::Hint;
use crate::plan::lock::{Chart as LockChart, Lock};
use crate::reference::{ReferenceError, Repository};
use crate::run::event::one_line;
use crate::run::resolve::chart::{CHART_LIMIT, index_url, versions, wish};
use crate::run::resolve::means::{FILE_LIMIT, Problem};
use crate::run::resolve::{Asked, Names};
use crate::step::Address;
use crate::store::disk::Store;
use crate::store::{Source, read as read_blob};

/// The name of settings that hold for every chart.
const EVERY: &str = "*";

/// Largest file of values.
const VALUES_LIMIT: u64 = 16 << 20;

/// A chart's row, with what the settings say of it under `settings`, and, of a chart on disk, its `sha256`. The files
/// that this names join `files`.
///
/// # Errors
/// If a file cannot be read, or a folder is no chart.
pub(super) fn row(
    site: &Site,
    row: &Row,
    files: &mut Vec<(String, Vec<u8>)>,
) -> Result<Value, Problem> {
    let mut fields = row.fields.clone();
    let Some(Value::Text(reference)) = fields.get("ref").cloned() else {
        return Ok(Value::Map(fields));
    };
    if let Some(Value::Text(path)) = fields.get("path").cloned()
        && path == reference
    {
        // A chart on disk says its own version.
        fields.remove("version");
        let bytes = local(&path)?;
        fields.insert("sha256".to_owned(), Value::Digest(Digest::of(&bytes)));
        files.push((path, bytes));
    }
    fields.insert("settings".to_owned(), settings(site, &reference, files)?);
    Ok(Value::Map(fields))
}

/// The file of a chart on disk: itself, or its folder, packed.
fn local(path: &str) -> Result<Vec<u8>, Problem> {
    let at = Path::new(path);
    if at.is_dir() {
        return pack(at, LoadLimits::default())
            .map(|(_, bytes)| bytes)
            .map_err(|error| Problem::of(&error).about(format!("chart {path}")));
    }
    read(at, CHART_LIMIT).map_err(|problem| problem.about(format!("chart {path}")))
}

fn read(path: &Path, limit: u64) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(limit + 1).read_to_end(&mut bytes))
        .map_err(|error| Problem::new(format!("cannot read {}: {error}", path.display())))?;
    if bytes.len() as u64 > limit {
        return Err(Problem::new(format!(
            "{} has more than {limit} bytes",
            path.display()
        )));
    }
    Ok(bytes)
}

/// What the settings say of a chart; its own words beat those for every chart.
fn settings(
    site: &Site,
    reference: &str,
    files: &mut Vec<(String, Vec<u8>)>,
) -> Result<Value, Problem> {
    let tables: Vec<(&str, &ChartSettings)> = [EVERY, reference]
        .into_iter()
        .filter_map(|name| Some((name, &site.settings.charts.get(name)?.value)))
        .collect();
    let mut values = Vec::new();
    let mut out = BTreeMap::new();
    for (name, table) in tables {
        for file in &table.values_files {
            let path = site.settings_folder().join(&file.value);
            let bytes = read(&path, VALUES_LIMIT).map_err(|problem| {
                problem.about(format!("the values-files of [chart.\"{name}\"]"))
            })?;
            values.push(Value::Digest(Digest::of(&bytes)));
            files.push((path.display().to_string(), bytes));
        }
        if let Some(text) = &table.values {
            let bytes = text.value.clone().into_bytes();
            values.push(Value::Digest(Digest::of(&bytes)));
            files.push((format!("imgbuild.toml#chart.{name}"), bytes));
        }
        if let Some(version) = &table.kubernetes_version {
            out.insert("kubernetes".to_owned(), Value::Text(version.value.clone()));
        }
        if !table.api_versions.is_empty() {
            let versions: BTreeSet<&str> = table
                .api_versions
                .iter()
                .map(|version| version.value.as_str())
                .collect();
            out.insert(
                "apis".to_owned(),
                Value::List(versions.into_iter().map(Value::from).collect()),
            );
        }
        match table.strict.as_ref().map(|strict| strict.value) {
            Some(true) => {
                out.insert("strict".to_owned(), Value::Bool(true));
            }
            Some(false) => {
                out.remove("strict");
            }
            None => {}
        }
    }
    out.insert("values".to_owned(), Value::List(values));
    Ok(Value::Map(out))
}

/// Remarks about settings of charts that nothing asks for.
pub(super) fn unused(site: &Site, asked: &[Asked]) -> Vec<String> {
    let known: BTreeSet<&str> = asked
        .iter()
        .filter_map(|asked| match &asked.row {
            Value::Map(fields) => match fields.get("ref") {
                Some(Value::Text(reference)) => Some(reference.as_str()),
                _ => None,
            },
            _ => None,
        })
        .collect();
    site.settings
        .charts
        .keys()
        .filter(|name| name.as_str() != EVERY && !known.contains(name.as_str()))
        .map(|name| {
            let charts: Vec<&str> = known.iter().copied().collect();
            let charts = match charts.as_slice() {
                [] => "which has none".to_owned(),
                charts => format!("which has {}", charts.join(", ")),
            };
            format!("note: [chart.\"{name}\"] of the settings is about no chart of this config, {charts}")
        })
        .collect()
}

/// `imgbuild list charts`
pub(super) fn list(site: &Site, arguments: &ListCharts) -> Result<u8, Failure> {
    let text = arguments.repository.trim_end_matches('/');
    if let Some(path) = text.strip_prefix("oci://") {
        let path = match &arguments.name {
            Some(name) => format!("{path}/{name}"),
            None => path.to_owned(),
        };
        return list_registry(site, &path, arguments.format);
    }
    let url: Url = text.parse().map_err(|error| {
        Failure::new(ui::USAGE, format!("{text:?} is no URL: {error}"))
            .hint("write https://HOST/PATH or oci://HOST/PATH/NAME")
    })?;
    let address = index_url(&url);
    let failed =
        |error: &io::Error| Failure::new(ui::ERROR, format!("{address}: {}", one_line(error)));
    let bytes = site
        .upstream()?
        .get(&Address::plain(address.as_str()), FILE_LIMIT)
        .map_err(|error| failed(&error))?
        .ok_or_else(|| {
            Failure::new(ui::ERROR, format!("there is no index at {address}"))
                .hint("a repository of charts has an index.yaml; a registry is written oci://HOST/PATH/NAME")
        })?;
    let index =
        Index::parse(&bytes).map_err(|error| Failure::of(ui::ERROR, &error, error.hint()))?;
    let mut rows: Vec<[String; 4]> = Vec::new();
    let mut add = |entry: &crate::chart::index::Entry| {
        let deprecated = if entry.deprecated { "deprecated" } else { "" };
        rows.push([
            entry.name.clone(),
            entry.version.clone(),
            entry.app_version.clone(),
            deprecated.to_owned(),
        ]);
    };
    match &arguments.name {
        Some(name) => {
            if index.versions(name).is_empty() {
                // What it says of a name that is not there, it says here too.
                index
                    .find(name, None)
                    .map_err(|error| Failure::of(ui::ERROR, &error, error.hint()))?;
            }
            index.versions(name).iter().for_each(&mut add);
        }
        None => {
            for name in index.names() {
                // Charts that have nothing but prereleases are listed by the highest of them.
                let newest = index
                    .find(name, None)
                    .ok()
                    .or_else(|| index.versions(name).first());
                newest.into_iter().for_each(&mut add);
            }
        }
    }
    print(&rows, arguments.format);
    Ok(ui::DONE)
}

fn list_registry(site: &Site, path: &str, format: Format) -> Result<u8, Failure> {
    let repository: Repository = path
        .parse()
        .map_err(|error: ReferenceError| Failure::of(ui::USAGE, &error, error.hint()))?;
    let tags = site
        .upstream()?
        .tags(&repository)
        .map_err(|error| Failure::new(ui::ERROR, one_line(&error)))?
        .ok_or_else(|| {
            Failure::new(ui::ERROR, format!("{repository} is not there"))
                .hint("a registry does not list its charts: write oci://HOST/PATH/NAME")
        })?;
    let name = repository.path().rsplit('/').next().unwrap_or_default();
    let rows: Vec<[String; 4]> = versions(&tags)
        .into_iter()
        .map(|(_, tag)| {
            [
                name.to_owned(),
                version_of(tag.as_str()),
                String::new(),
                String::new(),
            ]
        })
        .collect();
    print(&rows, format);
    Ok(ui::DONE)
}

fn print(rows: &[[String; 4]], format: Format) {
    if format == Format::Json {
        let rows: Vec<Json> = rows
            .iter()
            .map(|[name, version, app, deprecated]| {
                json!({ "name": name, "version": version, "appVersion": app, "deprecated": !deprecated.is_empty() })
            })
            .collect();
        say(json!({ "version": 1, "charts": rows }).to_string());
        return;
    }
    let width = |column: usize, head: &str| {
        let widest = rows.iter().map(|row| row[column].chars().count()).max();
        widest.unwrap_or(0).max(head.len())
    };
    let (name, version, app) = (width(0, "CHART"), width(1, "VERSION"), width(2, "APP"));
    let line = |row: [&str; 4]| {
        let text = format!(
            "{:name$}  {:version$}  {:app$}  {}",
            row[0], row[1], row[2], row[3]
        );
        say(text.trim_end());
    };
    line(["CHART", "VERSION", "APP", ""]);
    for [name, version, app, deprecated] in rows {
        line([name, version, app, deprecated]);
    }
}

/// What Helm makes of a chart, beside what we make of it.
struct Compared {
    equal: usize,
    ours: usize,
    theirs: usize,
    /// Images that only one of them found.
    only_ours: BTreeSet<String>,
    only_theirs: BTreeSet<String>,
}

/// `imgbuild audit --helm`: renders every chart of a lock with the `helm` on PATH as well.
///
/// The exit code is that of a failed verification if an image is in one rendering only.
pub(super) fn compare(lock: &Lock, store: &Store, tell: &dyn Fn(String)) -> Result<u8, Failure> {
    let mut code = ui::DONE;
    for chart in &lock.charts {
        let name = format!(
            "chart {} {}",
            chart.reference,
            chart.version.as_deref().unwrap_or_default()
        );
        match compare_one(chart, lock, store)? {
            Err(problem) => tell(format!(
                "{}: helm cannot render it: {problem}",
                name.trim_end()
            )),
            Ok(compared) => {
                let mut line = format!(
                    "{}: {}/{} documents of helm equal, {} here; ",
                    name.trim_end(),
                    compared.equal,
                    compared.theirs,
                    compared.ours
                );
                if compared.only_ours.is_empty() && compared.only_theirs.is_empty() {
                    line.push_str("the same images");
                } else {
                    code = ui::UNVERIFIED;
                    line.push_str("the images differ");
                }
                for (who, images) in [
                    ("only helm", &compared.only_theirs),
                    ("only imgbuild", &compared.only_ours),
                ] {
                    for image in images {
                        let _ = write!(line, "\n  {who}: {image}");
                    }
                }
                tell(line);
            }
        }
    }
    Ok(code)
}

fn compare_one(
    chart: &LockChart,
    lock: &Lock,
    store: &Store,
) -> Result<Result<Compared, String>, Failure> {
    let wrong = |text: String| {
        Failure::new(ui::ERROR, format!("chart {}: {text}", chart.reference))
            .hint("run `imgbuild build` first")
    };
    let wish = wish(&chart.want, &|digest| {
        let pinned = lock.files.iter().find(|file| file.file.digest == *digest)?;
        let bytes = read_blob(store, &pinned.file, VALUES_LIMIT).ok()?;
        Some((pinned.reference.clone(), bytes))
    })
    .map_err(|digest| wrong(format!("its values {digest} are not in the store")))?;
    let file = file_of(chart, store).map_err(|error| wrong(one_line(&error)))?;
    let mut bytes = Vec::new();
    Source::open(store, &file, 0)
        .and_then(|found| found.ok_or_else(|| io::ErrorKind::NotFound.into()))
        .and_then(|found| found.take(CHART_LIMIT).read_to_end(&mut bytes))
        .map_err(|error| wrong(format!("{} cannot be read: {error}", file.digest)))?;
    let options = wish.options();
    let theirs = match run_helm(&bytes, &wish, &options)? {
        Ok(text) => text,
        Err(problem) => return Ok(Err(problem)),
    };
    let chart = Chart::from_archive(bytes.as_slice(), LoadLimits::default())
        .map_err(|error| wrong(one_line(&error)))?;
    let ours = render(&chart, &options).map_err(|error| wrong(one_line(&error)))?;
    let theirs = Rendered {
        documents: vec![Document {
            template: "helm".to_owned(),
            text: theirs,
        }],
        ..Rendered::default()
    };
    let images = |rendered: &Rendered| -> Result<BTreeSet<String>, Failure> {
        let found =
            find_images(rendered, &wish.image_paths).map_err(|error| wrong(one_line(&error)))?;
        // The values are the same for both.
        let from_documents = found.images.into_iter();
        Ok(from_documents
            .filter(|image| image.by != crate::chart::How::Values)
            .map(|image| image.reference)
            .collect())
    };
    let (our_images, their_images) = (images(&ours)?, images(&theirs)?);
    let parsed = |rendered: &Rendered| -> Vec<Json> {
        rendered
            .documents
            .iter()
            .filter(|document| {
                Path::new(&document.template)
                    .extension()
                    .is_none_or(|end| end != "txt")
            })
            .chain(&rendered.crds)
            .flat_map(|document| yaml::parse_stream(&document.text))
            .filter_map(|document| document.content.ok())
            .collect()
    };
    let (mut left, theirs) = (parsed(&ours), parsed(&theirs));
    let count = left.len();
    let mut equal = 0;
    for document in &theirs {
        if let Some(at) = left.iter().position(|other| other == document) {
            left.swap_remove(at);
            equal += 1;
        }
    }
    Ok(Ok(Compared {
        equal,
        ours: count,
        theirs: theirs.len(),
        only_ours: our_images.difference(&their_images).cloned().collect(),
        only_theirs: their_images.difference(&our_images).cloned().collect(),
    }))
}

/// What `helm template` prints; or what it says against the chart.
fn run_helm(
    chart: &[u8],
    wish: &Wish,
    options: &RenderOptions,
) -> Result<Result<String, String>, Failure> {
    let failed = |error: io::Error| Failure::new(ui::ERROR, format!("cannot run helm: {error}"));
    let folder = tempfile::tempdir().map_err(failed)?;
    let path = folder.path().join("chart.tgz");
    fs::write(&path, chart).map_err(failed)?;
    let mut command = Command::new("helm");
    command
        .args(["template", &options.name])
        .arg(&path)
        .args(["--namespace", &options.namespace, "--include-crds"])
        .args(["--kube-version", &options.capabilities.kube_version])
        .stdin(Stdio::null());
    for version in &options.capabilities.api_versions {
        command.args(["--api-versions", version]);
    }
    for (number, layer) in wish.values.iter().enumerate() {
        let path = folder.path().join(format!("values-{number}.yaml"));
        fs::write(&path, &layer.text).map_err(failed)?;
        command.arg("--values").arg(path);
    }
    let output = match command.output() {
        Ok(output) => output,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Failure::new(ui::ERROR, "there is no helm on PATH")
                .hint("install it, or leave --helm out: nothing else needs it"));
        }
        Err(error) => return Err(failed(error)),
    };
    if output.status.success() {
        return Ok(Ok(String::from_utf8_lossy(&output.stdout).into_owned()));
    }
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = text.lines().find(|line| !line.trim().is_empty());
    Ok(Err(line.unwrap_or("it says nothing").to_owned()))
}
