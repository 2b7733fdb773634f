//! Charts behind the gap: their files, and values with which they pull from the mirror.
//!
//! ```text
//! helm/charts/<name>-<version>.tgz     the file, as it was pinned
//! helm/values/<name>-<version>.yaml    what to install it with there
//! ```
//!
//! Both follow from the lock and the bytes that it pins, so both sides of a gap write the same.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use super::emit::{EmitError, sweep};
use crate::canon::Value;
use crate::chart::artifact::content_of;
use crate::chart::overrides::{Place, overrides};
use crate::digest::Digest;
use crate::oci::{MANIFEST_LIMIT, Manifest};
use crate::openshift::cluster::yaml_stream;
use crate::plan::lock::{Chart, ChartSource, Lock};
use crate::reference::{ImageName, Reference};
use crate::run::event::one_line;
use crate::run::resolve::chart::{CHART_LIMIT, wish};
use crate::step::place::{Destination, Layout, Placement};
use crate::store::{Blob, Source, Verified, read};

/// The file that lists the chart files which this program wrote into a folder.
const LISTING: &str = ".imgbuild-charts";

/// Largest file of values that is read.
const VALUES_LIMIT: u64 = 64 << 20;

fn wrong(chart: &Chart, problem: impl Into<String>) -> EmitError {
    EmitError::Chart {
        chart: chart.reference.clone(),
        problem: problem.into(),
    }
}

/// What the files of a chart are called, without their endings; of several charts that call themselves alike, those
/// that come later in the lock have a digest besides. Charts without a name in the lock have no files.
#[must_use]
pub fn names(lock: &Lock) -> Vec<(String, &Chart)> {
    let mut names: BTreeMap<String, Digest> = BTreeMap::new();
    let mut out = Vec::new();
    for chart in &lock.charts {
        let (Some(name), Some(version)) = (&chart.name, &chart.version) else {
            continue;
        };
        let digest = match &chart.source {
            ChartSource::File { file, .. } => file.digest,
            ChartSource::Image(pin) => pin.digest,
        };
        let plain: String = format!("{name}-{version}")
            .chars()
            .map(|letter| {
                let is_plain = letter.is_ascii_alphanumeric() || "-_.+".contains(letter);
                if is_plain { letter } else { '_' }
            })
            .collect();
        let plain = plain.trim_start_matches('.').to_owned();
        let first = *names.entry(plain.clone()).or_insert(digest);
        let name = if first == digest {
            plain
        } else {
            format!("{plain}-{}", &digest.hex()[..12])
        };
        if !out.iter().any(|(known, _)| *known == name) {
            out.push((name, chart));
        }
    }
    out
}

/// The blob that is a chart's file. Of a chart that is an image, the manifest must be in `source`.
///
/// # Errors
/// If the manifest is not there, or is that of no chart.
pub fn file_of(chart: &Chart, source: &dyn Source) -> Result<Blob, EmitError> {
    let pin = match &chart.source {
        ChartSource::File { file, .. } => return Ok(*file),
        ChartSource::Image(pin) => pin,
    };
    let bytes = read(source, &pin.blob(), MANIFEST_LIMIT)
        .map_err(|error| wrong(chart, one_line(&error)))?;
    match Manifest::parse(&bytes, None) {
        Ok(Manifest::Image(image)) => content_of(&image)
            .map(|at| Blob::from(&image.layers[at]))
            .ok_or_else(|| wrong(chart, "its image is that of no chart")),
        Ok(Manifest::Index(_)) => Err(wrong(chart, "its image is an index")),
        Err(error) => Err(wrong(chart, one_line(&error))),
    }
}

fn open<'a>(
    chart: &Chart,
    file: &Blob,
    source: &'a dyn Source,
) -> Result<Box<dyn Read + Send + 'a>, EmitError> {
    if file.size > CHART_LIMIT {
        return Err(wrong(chart, format!("its file has {} bytes", file.size)));
    }
    let bytes = source
        .open(file, 0)
        .map_err(|error| wrong(chart, one_line(&error)))?
        .ok_or_else(|| wrong(chart, format!("its file {} is not at hand", file.digest)))?;
    Ok(Box::new(Verified::new(bytes, *file)))
}

/// The values of each chart for a destination: file name to content. `placements` are those of the lock.
///
/// # Errors
/// If the file of a chart or its values are not in `source`.
pub fn values(
    lock: &Lock,
    placements: &[Placement],
    source: &dyn Source,
    destination: &Destination,
    layout: &Layout,
) -> Result<BTreeMap<String, String>, EmitError> {
    let mut places: BTreeMap<(String, Option<String>), Vec<(Digest, Place)>> = BTreeMap::new();
    for placement in placements {
        let ImageName::Registry(origin) = &placement.origin else {
            continue;
        };
        let key = (
            origin.repository.to_string(),
            origin.tag.as_ref().map(ToString::to_string),
        );
        let place = Place {
            registry: destination.registry.clone(),
            path: layout.limit(&destination.join(&placement.path)),
        };
        places
            .entry(key)
            .or_default()
            .push((placement.digest, place));
    }
    let mut files = BTreeMap::new();
    for (name, chart) in names(lock) {
        let place = |text: &str| -> Option<Place> {
            let reference = Reference::parse_lenient(text).ok()?;
            let key = (
                reference.repository.to_string(),
                reference.tag.as_ref().map(ToString::to_string),
            );
            let mut found = places.get(&key)?.iter();
            found
                .find(|(digest, _)| reference.digest.is_none_or(|wanted| wanted == *digest))
                .map(|(_, place)| place.clone())
        };
        let wish = wish(&chart.want, &|digest| {
            let pinned = lock.files.iter().find(|file| file.file.digest == *digest)?;
            let bytes = read(source, &pinned.file, VALUES_LIMIT).ok()?;
            Some((pinned.reference.clone(), bytes))
        })
        .map_err(|digest| wrong(chart, format!("its values {digest} are not at hand")))?;
        let file = file_of(chart, source)?;
        let made = overrides(open(chart, &file, source)?, &wish, &place)
            .map_err(|error| wrong(chart, one_line(&error)))?;
        if made.values.is_empty() && made.elsewhere.is_empty() {
            continue;
        }
        let mut text = format!("# helm install RELEASE {name}.tgz -f {name}.yaml\n");
        if !made.elsewhere.is_empty() {
            text.push_str("# No value reaches these images; nodes find them by the mirror sets:\n");
            for image in &made.elsewhere {
                let _ = writeln!(text, "#   {image}");
            }
        }
        if made.values.is_empty() {
            text.push_str("{}\n");
        } else {
            let tree = tree(&Json::Object(made.values));
            text.push_str(&yaml_stream(&[tree]).map_err(|source| EmitError::Yaml {
                file: name.clone(),
                source,
            })?);
        }
        files.insert(format!("helm/values/{name}.yaml"), text);
    }
    Ok(files)
}

/// Overrides hold nothing but texts and mappings.
fn tree(json: &Json) -> Value {
    match json {
        Json::Object(entries) => Value::Map(
            entries
                .iter()
                .map(|(key, value)| (key.clone(), tree(value)))
                .collect(),
        ),
        Json::String(text) => Value::Text(text.clone()),
        other => Value::Text(other.to_string()),
    }
}

/// Writes the files of all charts of a lock into `folder`; answers the paths that changed. What an earlier lock had and
/// this one has not is removed.
///
/// # Errors
/// If a file is not in `source`, or the folder cannot be written. Each file is whole or as it was.
pub fn write(folder: &Path, lock: &Lock, source: &dyn Source) -> Result<Vec<PathBuf>, EmitError> {
    let mut changed = Vec::new();
    let mut listed = Vec::new();
    for (name, chart) in names(lock) {
        let file = file_of(chart, source)?;
        let name = format!("helm/charts/{name}.tgz");
        let path = folder.join(&name);
        let failed = |source| EmitError::Write {
            path: path.clone(),
            source,
        };
        if !is_there(&path, &file) {
            let parent = path.parent().unwrap_or(folder);
            fs::create_dir_all(parent).map_err(failed)?;
            let mut bytes = open(chart, &file, source)?;
            put(parent, &path, &mut bytes).map_err(failed)?;
            changed.push(path);
        }
        listed.push(name);
    }
    listed.sort();
    if !listed.is_empty() || folder.join(LISTING).exists() {
        changed.extend(sweep(folder, LISTING, &listed)?);
    }
    Ok(changed)
}

/// Whether a file is that blob.
fn is_there(path: &Path, blob: &Blob) -> bool {
    let Ok(file) = fs::File::open(path) else {
        return false;
    };
    if file.metadata().map_or(0, |found| found.len()) != blob.size {
        return false;
    }
    io::copy(&mut Verified::new(Box::new(file), *blob), &mut io::sink()).is_ok()
}

fn put(folder: &Path, path: &Path, bytes: &mut dyn Read) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mut file = tempfile::Builder::new()
        .prefix(".imgbuild-")
        .tempfile_in(folder)?;
    io::copy(bytes, &mut file)?;
    file.as_file()
        .set_permissions(fs::Permissions::from_mode(0o644))?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::lock::Want;

    #[test]
    fn charts_that_call_themselves_alike_have_files_of_their_own() {
        let chart = |reference: &str, content: &[u8]| Chart {
            reference: reference.to_owned(),
            want: Want::default(),
            name: Some("app".to_owned()),
            version: Some("1.0.0".to_owned()),
            source: ChartSource::File {
                url: None,
                file: Blob::of(content),
            },
            images: Vec::new(),
        };
        let lock = Lock {
            charts: vec![chart("a", b"1"), chart("b", b"2"), chart("c", b"1")],
            ..Lock::default()
        };
        let names: Vec<String> = names(&lock).into_iter().map(|(name, _)| name).collect();
        assert_eq!(
            names,
            [
                "app-1.0.0".to_owned(),
                format!("app-1.0.0-{}", &Blob::of(b"2").digest.hex()[..12])
            ],
            "the same file once, another under another name"
        );
    }
}
