//! Charts: what the settings add to them, `list charts`, and a comparison with Helm itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::Path;

use super::site::Site;
use crate::canon::Value;
use crate::chart::{LoadLimits, pack};
use crate::config::{ChartSettings, Row};
use crate::digest::Digest;
use crate::run::resolve::Asked;
use crate::run::resolve::chart::CHART_LIMIT;
use crate::run::resolve::means::Problem;

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
