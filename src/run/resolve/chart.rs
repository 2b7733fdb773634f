//! `[[chart]]`: a Helm chart and every image that it needs.
//!
//! 1. Which version, and where: a repository's `index.yaml`, the tags of a registry, or a file at hand.
//! 2. The chart's file is had and rendered, without a cluster ([`crate::chart::survey()`]). What came of it is remembered
//!    by the digests of the file and of the values, so the same chart is rendered once.
//! 3. Each image that it needs becomes a pin. A name without a registry is one of `docker.io`, one without a tag is
//!    `latest`, as nodes read them.
//!
//! The notes of a lock say of each chart how complete the list is. A `want` of a chart has
//!
//! | key | is |
//! |---|---|
//! | `version` | a version or a range, as Helm reads them; absent: the newest that is no prerelease |
//! | `sha256` | the file, of a chart on disk |
//! | `values` | the SHA-256 of the values it is rendered with, later ones over earlier ones |
//! | `kubernetes`, `apis` | what the cluster can do |
//! | `paths` | further JSONPath expressions that find images |
//! | `platforms` | only these instances of its images |
//! | `strict` | `true`: a list that may not be complete is an error |

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use url::Url;

use super::means::{Means, Problem, Stored, origin_of};
use super::{Expected, Found, texts, want_value};
use crate::canon::Value;
use crate::chart::artifact::{content_of, tag_of, version_of};
use crate::chart::semver::{Constraint, Version};
use crate::chart::survey::Needed;
use crate::chart::{Capabilities, Survey, ValuesLayer, Wish, survey};
use crate::digest::Digest;
use crate::oci::Manifest;
use crate::plan::key::BlockKey;
use crate::plan::lock::{Chart, ChartSource, Lock, NewBlock, Origin as PinOrigin, Pin, Want};
use crate::reference::{ImageName, LayoutName, Reference, Repository, Tag};
use crate::run::event::one_line;
use crate::run::realise::Depot;
use crate::step::place::{Layout, Subject, place};
use crate::step::rule::Rule;
use crate::step::{Address, Derive, Origin};
use crate::store::memo::{Output, recall};
use crate::store::{Blob, Source, read};

/// Largest chart file that is had.
pub const CHART_LIMIT: u64 = 64 << 20;

/// Largest survey or file of values that is read.
const SMALL: u64 = 64 << 20;

/// The media type of a survey in the memo.
const SURVEY: &str = "application/vnd.imgbuild.chart-survey.v1+json";

/// Images of one chart that are asked for at once.
const IMAGES_AT_ONCE: usize = 8;

/// Failures of one chart that a note lists.
const LISTED: usize = 5;

/// Where a chart is.
enum Place {
    /// In a repository of charts: its URL, and the chart's name there.
    Repository(Url, String),
    /// In a registry.
    Registry(Repository),
    /// At hand.
    Disk(Digest),
}

impl Place {
    fn of(reference: &str, want: &Want) -> Result<Self, Problem> {
        if let Some(digest) = want.text("sha256") {
            return digest
                .parse()
                .map(Self::Disk)
                .map_err(|_| Problem::new(format!("{reference} has no digest: {digest:?}")));
        }
        if let Some(name) = reference.strip_prefix("oci://") {
            return name
                .parse()
                .map(Self::Registry)
                .map_err(|error| Problem::of::<crate::reference::ReferenceError>(&error));
        }
        let none = || {
            Problem::new(format!("{reference} names no chart"))
                .hint("a chart is URL#NAME, oci://HOST/PATH/NAME or a path")
        };
        let (url, name) = reference.rsplit_once('#').ok_or_else(none)?;
        let url = url.parse().map_err(|_| none())?;
        Ok(Self::Repository(url, name.to_owned()))
    }
}

/// Where the index of a repository is.
///
/// `repository` is its URL, with or without `index.yaml` and a slash at its end.
#[must_use]
pub fn index_url(repository: &Url) -> Url {
    let mut url = repository.clone();
    let path = url
        .path()
        .trim_end_matches("index.yaml")
        .trim_end_matches('/')
        .to_owned();
    url.set_path(&format!("{path}/index.yaml"));
    url
}

/// The tag of a registry that a version or a range stands for, as Helm chooses: what is a version is a tag, else the
/// highest version among the tags that fits. `None` if there is none.
///
/// # Errors
/// If the range is malformed.
pub fn choose_tag<'a>(
    tags: &'a [Tag],
    wanted: Option<&str>,
) -> Result<Option<&'a Tag>, crate::chart::semver::SemverError> {
    let wanted = wanted.unwrap_or("").trim();
    if Version::parse(wanted).is_ok() {
        let tag = tag_of(wanted);
        return Ok(tags.iter().find(|one| one.as_str() == tag));
    }
    let constraint = Constraint::parse(if wanted.is_empty() { "*" } else { wanted })?;
    Ok(versions(tags)
        .into_iter()
        .find(|(version, _)| constraint.check(version))
        .map(|(_, tag)| tag))
}

/// The versions among the tags of a registry, highest first.
#[must_use]
pub fn versions(tags: &[Tag]) -> Vec<(Version, &Tag)> {
    let mut versions: Vec<(Version, &Tag)> = tags
        .iter()
        .filter_map(|tag| Some((Version::parse(&version_of(tag.as_str())).ok()?, tag)))
        .collect();
    versions.sort_by(|(left, a), (right, b)| right.compare(left).then_with(|| a.cmp(b)));
    versions
}

/// A chart whose file is in the store.
struct Had {
    source: ChartSource,
    file: Blob,
    notes: Vec<String>,
}

/// What the image is called that is made of a chart's file; `None` if it is an image already, or its name is not
/// recorded.
#[must_use]
pub fn artifact_name(chart: &Chart) -> Option<ImageName> {
    let (ChartSource::File { .. }, Some(name), Some(version)) =
        (&chart.source, &chart.name, &chart.version)
    else {
        return None;
    };
    Some(ImageName::Layout(LayoutName {
        path: format!("charts/{name}"),
        tag: tag_of(version).parse().ok(),
        digest: None,
    }))
}

/// The names of a chart's block with what the chart calls itself: `name`, `version`, and `tag`, which is the version as a
/// registry takes it.
#[must_use]
pub fn block_names(chart: &Chart, names: Value) -> Value {
    let mut names = match names {
        Value::Map(names) => names,
        _ => BTreeMap::new(),
    };
    if let Some(name) = &chart.name {
        names.insert("name".to_owned(), name.as_str().into());
    }
    if let Some(version) = &chart.version {
        names.insert("version".to_owned(), version.as_str().into());
        names.insert("tag".to_owned(), tag_of(version).into());
    }
    Value::Map(names)
}

/// Where the file of a chart may be had, where it is a file.
#[must_use]
pub fn origins(chart: &Chart) -> Vec<Origin> {
    match &chart.source {
        ChartSource::File { url: Some(url), .. } => vec![Origin::Url(url.clone())],
        // What has no address was on disk.
        ChartSource::File { url: None, .. } => vec![Origin::Url(chart.reference.clone())],
        ChartSource::Image(_) => Vec::new(),
    }
}

/// Answers a chart block.
///
/// # Errors
/// With everything that is in the way: the chart or an image is not there, or the list may not be complete though it
/// must be.
pub fn answer(expected: &Expected, rule: &Rule, means: &Means<'_>) -> Result<Found, Vec<Problem>> {
    let one = |problem: Problem| vec![problem];
    let BlockKey::Chart { reference, version } = &expected.key else {
        return Err(one(Problem::new("this is no chart")));
    };
    let place = Place::of(reference, &expected.want).map_err(one)?;
    let version = version.as_deref();
    let had = match (&place, means.within()) {
        // Where only another lock answers, its chart is the one.
        (Place::Repository(..) | Place::Registry(_), Some(vetted)) => {
            vetted.chart(reference, version).and_then(|chart| {
                Ok(Had {
                    source: chart.source.clone(),
                    file: pinned_file(chart, means)?,
                    notes: Vec::new(),
                })
            })
        }
        _ => from_upstream(&place, reference, version, means),
    };
    let had = had.map_err(|problem| one(problem.about(format!("chart {reference}"))))?;
    derive(expected, rule, reference, had, None, means)
}

/// A chart from where it is.
fn from_upstream(
    place: &Place,
    reference: &str,
    version: Option<&str>,
    means: &Means<'_>,
) -> Result<Had, Problem> {
    match place {
        Place::Repository(url, name) => from_repository(url, name, version, means),
        Place::Registry(repository) => from_registry(repository, version, means),
        Place::Disk(digest) => from_disk(reference, digest, means),
    }
}

/// Derives the images of a pinned chart again, for other exclusions than before; its pins are kept.
///
/// # Errors
/// As [`answer`].
pub fn refresh(
    chart: &Chart,
    expected: &Expected,
    rule: &Rule,
    means: &Means<'_>,
) -> Result<Found, Vec<Problem>> {
    let reference = &chart.reference;
    let file = pinned_file(chart, means)
        .map_err(|problem| vec![problem.about(format!("chart {reference}"))])?;
    let had = Had {
        source: chart.source.clone(),
        file,
        notes: Vec::new(),
    };
    derive(expected, rule, reference, had, Some(chart), means)
}

/// Derives the images of a pinned chart again and compares them with its pins; answers what differs. Nothing mutable is
/// asked.
///
/// # Errors
/// If the chart cannot be had or rendered.
pub fn recheck(chart: &Chart, rule: &Rule, means: &Means<'_>) -> Result<Vec<String>, Problem> {
    let name = format!("chart {}", chart.reference);
    let about = |problem: Problem| problem.about(&name);
    let file = pinned_file(chart, means).map_err(about)?;
    let survey = surveyed(&file, &chart.want, means).map_err(about)?;
    let mut complaints = Vec::new();
    for (field, found, locked) in [
        ("name", &survey.name, &chart.name),
        ("version", &survey.version, &chart.version),
    ] {
        if locked.as_ref().is_some_and(|locked| locked != found) {
            complaints.push(format!("{name} has the {field} {found} in its file"));
        }
    }
    let expected = Expected {
        key: chart.key(),
        want: chart.want.clone(),
        image: None,
        platforms: Vec::new(),
        rule: rule.name.clone(),
        at: String::new(),
    };
    let read = readable(&survey);
    let mut used: BTreeSet<&Pin> = BTreeSet::new();
    for image in &read.images {
        if excluded(&expected, rule, image, means).is_some() {
            continue;
        }
        match pin_of(chart, &image.reference) {
            Some(pin) => {
                used.insert(pin);
            }
            None => complaints.push(format!(
                "{name} needs {}, which it does not pin",
                image.reference
            )),
        }
    }
    for pin in chart.images.iter().filter(|pin| !used.contains(pin)) {
        complaints.push(format!(
            "{name} pins {}, which it does not need",
            pin.image()
        ));
    }
    Ok(complaints)
}

fn from_repository(
    url: &Url,
    name: &str,
    version: Option<&str>,
    means: &Means<'_>,
) -> Result<Had, Problem> {
    let index = means.index(url)?;
    let entry = index
        .find(name, version)
        .map_err(|error| Problem::of(&error).about(url))?;
    let address = entry
        .url(url)
        .map_err(|error| Problem::of(&error).about(url))?;
    let bytes = means.get(&Address::plain(address.as_str()))?.ok_or_else(|| {
        Problem::new(format!(
            "{address} is not there, though the index of {url} names it for version {}",
            entry.version
        ))
        .hint("the index is older than the files: ask those who keep the repository, or take another version")
    })?;
    let found = Digest::of(&bytes);
    let promised = entry.digest.trim_start_matches("sha256:");
    if !promised.is_empty() && promised != found.hex() {
        return Err(Problem::new(format!(
            "{address} is {found}, but the index of {url} says sha256:{promised}"
        ))
        .trust());
    }
    let mut notes = Vec::new();
    if entry.deprecated {
        notes.push(format!("chart {name} {} is deprecated", entry.version));
    }
    Ok(Had {
        source: ChartSource::File {
            url: Some(address.into()),
            file: means.keep(&bytes)?,
        },
        file: Blob::of(&bytes),
        notes,
    })
}

fn from_registry(
    repository: &Repository,
    version: Option<&str>,
    means: &Means<'_>,
) -> Result<Had, Problem> {
    let exact = version
        .map(str::trim)
        .filter(|version| Version::parse(version).is_ok());
    let tag: Tag = if let Some(version) = exact {
        tag_of(version)
            .parse()
            .map_err(|error| Problem::of::<crate::reference::ReferenceError>(&error))?
    } else {
        let tags = means
            .tags(repository)?
            .ok_or_else(|| Problem::new(format!("{repository} is not there")))?;
        choose_tag(&tags, version)
            .map_err(|error| Problem::new(error.to_string()))?
            .cloned()
            .ok_or_else(|| {
                let problem = Problem::new(format!(
                    "{repository} has no version {}",
                    version.unwrap_or("that is no prerelease")
                ));
                match versions(&tags).first() {
                    Some((_, tag)) => problem.hint(format!("the highest version is {tag}")),
                    None => problem.hint("none of its tags is a version"),
                }
            })?
    };
    let name = ImageName::Registry(Reference {
        repository: repository.clone(),
        tag: Some(tag.clone()),
        digest: None,
    });
    let named = means.resolve(&name)?.ok_or_else(|| {
        Problem::new(format!("{name} is not there")).hint(format!(
            "`imgbuild list charts oci://{repository}` lists its versions"
        ))
    })?;
    let mut pin = means.pin(named.origin, named.stored, &[])?;
    pin.tag = Some(tag);
    let file = content(&pin, named.stored, means)?;
    Ok(Had {
        source: ChartSource::Image(pin),
        file,
        notes: Vec::new(),
    })
}

/// Brings the file of a chart that is an image into the store.
fn content(pin: &Pin, stored: Stored, means: &Means<'_>) -> Result<Blob, Problem> {
    let no_chart = |found: &str| {
        Problem::new(format!("{} is no Helm chart: {found}", pin.image()))
            .hint("a container image stands under additionalImages")
    };
    let image = match means.read(stored)? {
        Manifest::Image(image) => image,
        Manifest::Index(_) => return Err(no_chart("it is an index of images")),
    };
    let Some(at) = content_of(&image) else {
        let config = image
            .config
            .as_ref()
            .map_or("nothing", |config| &config.media_type);
        return Err(no_chart(&format!("its config is {config}")));
    };
    let layer = Blob::from(&image.layers[at]);
    if layer.size > CHART_LIMIT {
        return Err(Problem::new(format!(
            "the chart has {} bytes; at most {CHART_LIMIT} are read",
            layer.size
        )));
    }
    means.blob(layer, vec![origin_of(&pin.origin)])?;
    Ok(layer)
}

fn from_disk(reference: &str, digest: &Digest, means: &Means<'_>) -> Result<Had, Problem> {
    let (_, bytes) = means
        .file(digest)
        .ok_or_else(|| Problem::new(format!("{reference} is not at hand")))?;
    let file = means.keep(bytes)?;
    Ok(Had {
        source: ChartSource::File { url: None, file },
        file,
        notes: Vec::new(),
    })
}

/// Brings the file of a pinned chart into the store.
fn pinned_file(chart: &Chart, means: &Means<'_>) -> Result<Blob, Problem> {
    match &chart.source {
        ChartSource::File { file, .. } => {
            if let Some((_, bytes)) = means.file(&file.digest) {
                return means.keep(bytes);
            }
            means.blob(*file, origins(chart))?;
            Ok(*file)
        }
        ChartSource::Image(pin) => {
            let PinOrigin::Registry(repository) = &pin.origin else {
                return Err(Problem::new("a chart is in no layout"));
            };
            let stored = means
                .manifest(repository, &pin.digest)?
                .ok_or_else(|| Problem::new(format!("{} is not there", pin.image())))?;
            content(pin, stored, means)
        }
    }
}

/// How a want asks to look at its chart. `file` gives values by digest: their name and their bytes.
///
/// # Errors
/// With the digest of values that are not at hand.
pub fn wish(
    want: &Want,
    file: &dyn Fn(&Digest) -> Option<(String, Vec<u8>)>,
) -> Result<Wish, String> {
    let settings = want_value(want);
    let list = |name: &str| texts(Some(&settings), name);
    let values = list("values")
        .into_iter()
        .map(|text| {
            let digest = text.parse::<Digest>().map_err(|_| text.clone())?;
            let (name, text) = file(&digest).ok_or(text)?;
            Ok(ValuesLayer { name, text })
        })
        .collect::<Result<_, String>>()?;
    let mut capabilities = Capabilities {
        api_versions: list("apis"),
        ..Capabilities::default()
    };
    if let Some(version) = want.text("kubernetes") {
        version.clone_into(&mut capabilities.kube_version);
    }
    Ok(Wish {
        values,
        capabilities,
        image_paths: list("paths"),
    })
}

/// The name of the work of rendering a chart's file as a want asks.
#[must_use]
pub fn work(file: Blob, want: &Want, wish: &Wish) -> Derive {
    let settings = want_value(want);
    let list = |name: &str| {
        Value::List(
            texts(Some(&settings), name)
                .into_iter()
                .map(Value::Text)
                .collect(),
        )
    };
    Derive::RenderChart {
        chart: file,
        values: wish
            .values
            .iter()
            .map(|layer| Blob::of(&layer.text))
            .collect(),
        parameters: Value::map([
            ("kubernetes", wish.capabilities.kube_version.as_str().into()),
            ("apis", list("apis")),
            ("paths", list("paths")),
        ]),
    }
}

/// The survey of a chart whose file is in the store: remembered, or made.
fn surveyed(file: &Blob, want: &Want, means: &Means<'_>) -> Result<Survey, Problem> {
    let store = means.resolver().store;
    let failed = |error: std::io::Error| Problem::new(format!("the store: {}", one_line(&error)));
    let wish = wish(want, &|digest| {
        if let Some(file) = means.file(digest) {
            return Some(file.clone());
        }
        let size = store.size_of(digest).ok()??;
        let blob = Blob {
            digest: *digest,
            size,
        };
        Some((digest.to_string(), read(store, &blob, SMALL).ok()?))
    })
    .map_err(|digest| Problem::new(format!("the values {digest} are not at hand")))?;
    let key = work(*file, want, &wish).key();
    if let Some([output, ..]) = recall(store, store, &key).map_err(failed)?.as_deref() {
        let bytes =
            read(store, &output.blob, SMALL).map_err(|error| Problem::new(one_line(&error)))?;
        if let Ok(survey) = Survey::from_bytes(&bytes) {
            return Ok(survey);
        }
    }
    let bytes = Source::open(store, file, 0)
        .map_err(failed)?
        .ok_or_else(|| Problem::new(format!("{} is gone from the store", file.digest)))?;
    let survey = survey(bytes, &wish).map_err(|error| Problem::of(&error))?;
    let output = Output {
        media_type: SURVEY.to_owned(),
        blob: means.keep(&survey.to_bytes())?,
    };
    store.put(&key, &[output]).map_err(failed)?;
    Ok(survey)
}

/// How a pin of a chart was found, by the survey that the store remembers: as it is written, by what, and where. Empty
/// where nothing is remembered. `file` is the chart's file.
#[must_use]
pub fn found(
    chart: &Chart,
    file: Blob,
    pin: &Pin,
    lock: &Lock,
    store: &(dyn Depot + Sync),
) -> Vec<Needed> {
    let values = |digest: &Digest| {
        let pinned = lock.files.iter().find(|file| file.file.digest == *digest)?;
        let bytes = read(store, &pinned.file, SMALL).ok()?;
        Some((pinned.reference.clone(), bytes))
    };
    let survey = || -> Option<Survey> {
        let wish = wish(&chart.want, &values).ok()?;
        let outputs = recall(store, store, &work(file, &chart.want, &wish).key()).ok()??;
        Survey::from_bytes(&read(store, &outputs.first()?.blob, SMALL).ok()?).ok()
    };
    let is_it = |needed: &Needed| {
        Reference::parse_lenient(&needed.reference)
            .is_ok_and(|reference| pin_of(chart, &reference) == Some(pin))
    };
    survey()
        .map(|survey| survey.images.into_iter().filter(is_it).collect())
        .unwrap_or_default()
}

/// An image that a chart needs, as nodes read its name.
struct Image<'a> {
    reference: Reference,
    written: &'a str,
    by: &'a str,
    at: &'a str,
}

/// The images of a survey, each once, and the texts that name none.
struct Readable<'a> {
    images: Vec<Image<'a>>,
    /// Names without a registry or a tag, which nodes complete.
    completed: Vec<String>,
    unreadable: Vec<String>,
}

fn readable(survey: &Survey) -> Readable<'_> {
    let mut images: BTreeMap<String, Image<'_>> = BTreeMap::new();
    let (mut completed, mut unreadable) = (Vec::new(), Vec::new());
    for needed in &survey.images {
        let written = needed.reference.as_str();
        match Reference::parse_lenient(written) {
            Ok(reference) => {
                let name = reference.to_string();
                if name != written {
                    completed.push(format!("{written} is {name}"));
                }
                images.entry(name).or_insert(Image {
                    reference,
                    written,
                    by: &needed.by,
                    at: &needed.place,
                });
            }
            Err(error) => unreadable.push(format!("{} ({})", one_line(&error), needed.place)),
        }
    }
    Readable {
        images: images.into_values().collect(),
        completed,
        unreadable,
    }
}

/// The pin of a chart that an image of it stands for.
fn pin_of<'a>(chart: &'a Chart, reference: &Reference) -> Option<&'a Pin> {
    chart.images.iter().find(|pin| {
        pin.repository() == Some(&reference.repository)
            && pin.tag == reference.tag
            && reference.digest.is_none_or(|digest| digest == pin.digest)
    })
}

/// Why an image is left out, if it is.
fn excluded(
    expected: &Expected,
    rule: &Rule,
    image: &Image<'_>,
    means: &Means<'_>,
) -> Option<String> {
    let name = image.reference.to_string();
    let origin = ImageName::Registry(image.reference.clone());
    let subject = Subject {
        owner: expected.key.to_string(),
        origin: &origin,
        role: "chart-image",
        name: None,
        version: None,
        block: super::block_value(&expected.key),
        want: want_value(&expected.want),
        source: Some(&image.reference.repository),
        blob: Blob {
            digest: image
                .reference
                .digest
                .unwrap_or_else(|| Digest::from_bytes([0; 32])),
            size: 0,
        },
        platforms: &[],
    };
    let placed = place(rule, &Layout::default(), &subject)
        .ok()
        .map(|placed| format!("{}:{}", placed.path, placed.tag));
    means
        .exclusions()
        .excludes(&[&name, image.written], placed.as_deref())
}

/// Renders a chart and pins its images; those that `known` pins already stay as they are.
fn derive(
    expected: &Expected,
    rule: &Rule,
    reference: &str,
    had: Had,
    known: Option<&Chart>,
    means: &Means<'_>,
) -> Result<Found, Vec<Problem>> {
    let one = |problem: Problem| vec![problem.about(format!("chart {reference}"))];
    let survey = surveyed(&had.file, &expected.want, means).map_err(one)?;
    let read = readable(&survey);
    let mut notes = had.notes;
    let mut verdict = survey.verdict();
    for failure in survey.failures.iter().take(LISTED) {
        let _ = write!(verdict, "\n    {failure}");
    }
    if survey.failures.len() > LISTED {
        let _ = write!(verdict, "\n    and {} more", survey.failures.len() - LISTED);
    }
    for text in &read.unreadable {
        let _ = write!(verdict, "\n    not an image: {text}");
    }
    let is_strict = matches!(expected.want.get("strict"), Some(Value::Bool(true)));
    if is_strict && !(survey.is_whole() && read.unreadable.is_empty()) {
        return Err(vec![
            Problem::new(format!("{verdict}\n    and `strict` asks for all of it")).hint(format!(
                "give it the values that it needs under [chart.\"{reference}\"] in imgbuild.toml, or drop `strict` there"
            )),
        ]);
    }
    notes.push(verdict);
    if !read.completed.is_empty() {
        notes.push(format!(
            "chart {} names images in short: {}",
            survey.name,
            read.completed.join(", ")
        ));
    }
    let mut wanted = Vec::new();
    for image in &read.images {
        match excluded(expected, rule, image, means) {
            Some(why) => notes.push(format!("chart {}: {} {why}", survey.name, image.reference)),
            None => wanted.push(image),
        }
    }
    let pins = means
        .gather(wanted.len(), IMAGES_AT_ONCE, |index| {
            let image = wanted[index];
            if let Some(pin) = known.and_then(|chart| pin_of(chart, &image.reference)) {
                return Ok(pin.clone());
            }
            pinned(expected, image, means).map_err(|problem| {
                problem.about(format!(
                    "chart {} {} ({}, {})",
                    survey.name, survey.version, image.by, image.at
                ))
            })
        })
        .map_err(|problem| vec![problem])?;
    let mut images = Vec::new();
    let mut problems = Vec::new();
    for pin in pins {
        match pin {
            Ok(pin) => images.push(pin),
            Err(problem) => problems.push(problem),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(Found {
        block: NewBlock::Chart(Chart {
            reference: reference.to_owned(),
            want: expected.want.clone(),
            name: Some(survey.name),
            version: Some(survey.version),
            source: had.source,
            images,
        }),
        notes,
    })
}

/// Pins one image.
fn pinned(expected: &Expected, image: &Image<'_>, means: &Means<'_>) -> Result<Pin, Problem> {
    let reference = &image.reference;
    let absent = || {
        Problem::new(format!("{reference} is not there")).hint(
            "name another image in the chart's values (imgbuild.toml), or leave it out with `imgbuild lock --skip IMAGE --reason TEXT`",
        )
    };
    // A digest needs no answer, only bytes.
    let (origin, stored) = if let Some(digest) = &reference.digest {
        let stored = means
            .manifest(&reference.repository, digest)?
            .ok_or_else(absent)?;
        (PinOrigin::Registry(reference.repository.clone()), stored)
    } else {
        let named = means
            .resolve(&ImageName::Registry(reference.clone()))?
            .ok_or_else(absent)?;
        (named.origin, named.stored)
    };
    let mut pin = means.pin(origin, stored, &expected.platforms)?;
    pin.tag.clone_from(&reference.tag);
    Ok(pin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_of_a_repository_is_beside_its_charts() {
        for (url, wanted) in [
            ("https://charts.test", "https://charts.test/index.yaml"),
            ("https://charts.test/a/", "https://charts.test/a/index.yaml"),
            (
                "https://charts.test/a/index.yaml?t=1",
                "https://charts.test/a/index.yaml?t=1",
            ),
        ] {
            let url: Url = url.parse().unwrap();
            assert_eq!(index_url(&url).as_str(), wanted, "{url}");
        }
    }

    #[test]
    fn a_version_among_tags_is_chosen_as_helm_chooses() {
        let tags: Vec<Tag> = ["1.2.0", "v1.10.0", "2.0.0-rc1", "1.3.0_build", "latest"]
            .iter()
            .map(|tag| tag.parse().unwrap())
            .collect();
        for (wanted, found) in [
            (None, Some("v1.10.0")),
            (Some("1.2.0"), Some("1.2.0")),
            (Some("~1.2"), Some("1.2.0")),
            (Some("1.3.x"), Some("1.3.0_build")),
            (Some("1.3.0+build"), Some("1.3.0_build")),
            (Some(">1.0-0"), Some("2.0.0-rc1")),
            (Some("3.x"), None),
            (Some("9.9.9"), None),
        ] {
            assert_eq!(
                choose_tag(&tags, wanted).unwrap().map(Tag::as_str),
                found,
                "{wanted:?}"
            );
        }
        assert!(
            choose_tag(&tags, Some("newest")).is_err(),
            "what is neither is refused"
        );
    }

    #[test]
    fn names_are_read_as_nodes_read_them() {
        let needed = |reference: &str| crate::chart::survey::Needed {
            reference: reference.to_owned(),
            by: "pod spec".to_owned(),
            place: "x".to_owned(),
        };
        let survey = Survey {
            name: "a".to_owned(),
            version: "1.0.0".to_owned(),
            templates: 1,
            images: [
                "busybox",
                "docker.io/library/busybox:latest",
                "quay.io/a/b:1",
                ":1",
            ]
            .map(needed)
            .to_vec(),
            failures: Vec::new(),
        };
        let read = readable(&survey);
        let names: Vec<String> = read
            .images
            .iter()
            .map(|image| image.reference.to_string())
            .collect();
        assert_eq!(
            names,
            ["docker.io/library/busybox:latest", "quay.io/a/b:1"],
            "one image is one image, however it is written"
        );
        assert_eq!(
            read.completed,
            ["busybox is docker.io/library/busybox:latest"]
        );
        assert_eq!(read.unreadable.len(), 1, "{:?}", read.unreadable);
    }
}
