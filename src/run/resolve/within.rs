//! Locking within another lock: an enclave chooses only from what the hop before it has vetted.
//!
//! ```text
//! a name           -> the digest that the other lock pins for it         image, catalog, chart, release by reference
//! an update graph  -> the pinned payloads, with the edges that they state themselves, less those that pinned graph data
//!                     block (or as an update service of the first hop states it, of which only pinned payloads count)
//! a chart          -> the pinned chart whose version fits, with such of its images as are pinned
//! a plain file     -> the file that it pins
//! a signature      -> those that it pins
//! anything else    -> a problem that names it
//! ```
//!
//! Nothing mutable is asked upstream. Bytes come by digest: from the store, or from the registry that the first hop
//! filled, to which a registries.conf redirects. Where the other lock took only some platforms of an index, no others
//! can be had, so a pin made here never has more.
//!
//! What is pinned already stays pinned, as long as the other lock still has it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, Read};

use flate2::read::MultiGzDecoder;

use super::means::{FILE_LIMIT, Means, Problem};
use super::{Expected, copied};
use crate::chart::semver::{Constraint, Version as Semver};
use crate::digest::Digest;
use crate::oci::PlatformName;
use crate::openshift::graph::Graph;
use crate::openshift::graph::choose::Product;
use crate::openshift::graph::data::{GraphData, candidates};
use crate::openshift::payload::{
    FILE_LIMIT as PAYLOAD_FILE_LIMIT, IMAGE_REFERENCES, Payload as Contents, RELEASE_METADATA,
};
use crate::openshift::release::Architecture;
use crate::plan::key::{BlockKey, ReleaseName};
use crate::plan::lock::{
    Block as LockBlock, Catalog, Chart, ChartSource, File, Lock, NewBlock, Origin as PinOrigin,
    Payload, Pin, Release, Signature, Want,
};
use crate::reference::ImageName;
use crate::step::{Address, Origin};
use crate::store::{Blob, read};

/// What joins the names of channels in the name of the path across them.
const ACROSS: char = '+';

/// The rule by which graph data are pinned.
const GRAPH_DATA: &str = "graph-data";

/// How a file that gzip made begins.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Another lock, as the only one that answers.
pub struct Vetted<'a> {
    lock: &'a Lock,
    /// What messages call it.
    name: String,
    /// Every pinned image, by digest.
    pins: BTreeMap<Digest, Admitted>,
    /// What names stand for, each with the block that says so.
    names: BTreeMap<String, BTreeMap<Digest, String>>,
    /// Every pinned file, by the address it was had from.
    files: BTreeMap<String, Blob>,
}

/// A pinned image, whoever pins it.
struct Admitted {
    /// Where its bytes are.
    origin: PinOrigin,
    size: u64,
    /// The children that are taken; empty means all.
    platforms: BTreeSet<PlatformName>,
    signatures: Vec<Signature>,
}

impl fmt::Display for Vetted<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.name)
    }
}

/// What to do about something that was not vetted.
fn add_it_there(name: &str) -> String {
    format!("ask for it in the config of {name} and deliver that first")
}

impl<'a> Vetted<'a> {
    /// Answers out of `lock`, which messages call `name`.
    #[must_use]
    pub fn new(lock: &'a Lock, name: impl Into<String>) -> Self {
        let mut vetted = Self {
            lock,
            name: name.into(),
            pins: BTreeMap::new(),
            names: BTreeMap::new(),
            files: BTreeMap::new(),
        };
        for block in lock.blocks() {
            for (_, pin) in block.pins() {
                vetted.admit(pin);
            }
            match block {
                LockBlock::Image(image) => vetted.call(&image.reference, &image.pin, &block),
                LockBlock::Catalog(catalog) => {
                    vetted.call(&catalog.reference, &catalog.pin, &block);
                }
                LockBlock::Release(release) => {
                    if let ReleaseName::Reference(reference) = &release.name {
                        for payload in &release.payloads {
                            vetted.call(reference, &payload.pin, &block);
                        }
                    }
                }
                LockBlock::Chart(chart) => match &chart.source {
                    ChartSource::Image(pin) => vetted.call(&chart.reference, pin, &block),
                    ChartSource::File { url, file } => {
                        let address = url.as_ref().unwrap_or(&chart.reference);
                        vetted.files.insert(address.clone(), *file);
                    }
                },
                LockBlock::File(file) => {
                    vetted.files.insert(file.reference.clone(), file.file);
                }
                _ => {}
            }
            for (_, pin) in block.pins() {
                if let (Some(tag), Some(repository)) = (&pin.tag, pin.repository()) {
                    vetted.call(&format!("{repository}:{tag}"), pin, &block);
                }
            }
        }
        vetted
    }

    fn admit(&mut self, pin: &Pin) {
        let platforms: BTreeSet<PlatformName> = pin.platforms.iter().cloned().collect();
        match self.pins.get_mut(&pin.digest) {
            None => {
                let admitted = Admitted {
                    origin: pin.origin.clone(),
                    size: pin.size,
                    platforms,
                    signatures: pin.signatures.clone(),
                };
                self.pins.insert(pin.digest, admitted);
            }
            Some(known) => {
                if known.platforms.is_empty() || platforms.is_empty() {
                    known.platforms.clear();
                } else {
                    known.platforms.extend(platforms);
                }
                for signature in &pin.signatures {
                    if !known.signatures.contains(signature) {
                        known.signatures.push(signature.clone());
                    }
                }
            }
        }
    }

    fn call(&mut self, name: &str, pin: &Pin, block: &LockBlock<'_>) {
        let Ok(name) = name.parse::<ImageName>() else {
            return;
        };
        let mut names = vec![name.to_string()];
        if let ImageName::Registry(mut reference) = name
            && reference.tag.is_some()
            && reference.digest.take().is_some()
        {
            names.push(reference.to_string());
        }
        for name in names {
            let who = block.key().to_string();
            self.names.entry(name).or_default().insert(pin.digest, who);
        }
    }

    /// What a name stands for: where the bytes are, and the digest.
    ///
    /// # Errors
    /// If the other lock pins nothing by that name, or several things.
    pub fn resolve(&self, name: &ImageName) -> Result<(PinOrigin, Digest), Problem> {
        let digest = match name {
            ImageName::Registry(reference) => reference.digest,
            ImageName::Layout(layout) => layout.digest,
        };
        let digest = if let Some(digest) = digest {
            digest
        } else {
            let found = self.names.get(&name.to_string());
            let mut found = found.into_iter().flatten();
            match (found.next(), found.next()) {
                (Some((digest, _)), None) => *digest,
                (Some((one, first)), Some((other, second))) => {
                    return Err(Problem::new(format!(
                        "{name} is {one} for {first} of {self}, and {other} for {second}"
                    ))
                    .hint("name it by digest"));
                }
                (None, _) => return Err(self.unknown(&name.to_string())),
            }
        };
        let admitted = self.admitted(&digest, &name.to_string())?;
        Ok((admitted.origin.clone(), digest))
    }

    fn unknown(&self, what: &str) -> Problem {
        let skipped = self.lock.skips.iter().find(|skip| skip.image == what);
        match skipped {
            Some(skip) => Problem::new(format!("{} leaves {what} out: {}", self.name, skip.reason))
                .hint("leave it out here as well: `imgbuild lock --skip IMAGE --reason TEXT`"),
            None => Problem::new(format!("{} pins nothing called {what}", self.name))
                .hint(add_it_there(&self.name)),
        }
    }

    fn admitted(&self, digest: &Digest, what: &str) -> Result<&Admitted, Problem> {
        self.pins.get(digest).ok_or_else(|| self.unknown(what))
    }

    /// Makes sure that an image may be had by its digest; `what` is how a problem names it.
    ///
    /// # Errors
    /// If the other lock does not pin it.
    pub fn check(&self, digest: &Digest, what: &str) -> Result<(), Problem> {
        self.admitted(digest, what).map(|_| ())
    }

    /// The platforms that can be had of what is wanted; empty means all.
    ///
    /// # Errors
    /// If the other lock does not pin the image, or has it without one of the platforms.
    pub fn platforms(
        &self,
        digest: &Digest,
        wanted: &[PlatformName],
        what: &str,
    ) -> Result<Vec<PlatformName>, Problem> {
        let admitted = self.admitted(digest, what)?;
        if admitted.platforms.is_empty() {
            return Ok(wanted.to_vec());
        }
        if wanted.is_empty() {
            return Ok(admitted.platforms.iter().cloned().collect());
        }
        let absent = wanted
            .iter()
            .find(|wanted| !admitted.platforms.iter().any(|name| covers(name, wanted)));
        match absent {
            None => Ok(wanted.to_vec()),
            Some(absent) => {
                let names: Vec<String> =
                    admitted.platforms.iter().map(ToString::to_string).collect();
                Err(Problem::new(format!(
                    "{} has {what} for {}, not for {absent}",
                    self.name,
                    names.join(", ")
                ))
                .hint(add_it_there(&self.name)))
            }
        }
    }

    /// Whether everything that a block pins is pinned by the other lock too.
    #[must_use]
    pub fn admits(&self, block: &LockBlock<'_>) -> bool {
        self.missing(block).is_none()
    }

    /// The first image of a block that the other lock does not pin, or not for all its platforms.
    #[must_use]
    pub fn missing(&self, block: &LockBlock<'_>) -> Option<String> {
        let pins = block.pins();
        let (_, pin) = pins.iter().find(|(_, pin)| {
            let image = pin.image();
            // To have all platforms where only some were vetted is to have more than was vetted.
            match self.platforms(&pin.digest, &pin.platforms, &image) {
                Ok(platforms) => pin.platforms.is_empty() && !platforms.is_empty(),
                Err(_) => true,
            }
        })?;
        Some(pin.image())
    }

    /// The catalog of that name in the other lock, whatever was wanted of it there: its packages are the fragments that
    /// can be had.
    #[must_use]
    pub fn catalog(&self, reference: &str, target: Option<&str>) -> Option<&'a Catalog> {
        let other = || {
            self.lock
                .catalogs
                .iter()
                .find(|one| one.reference == reference)
        };
        self.lock.catalog(reference, target).or_else(other)
    }

    /// The same block of the other lock, if it answers the very same request.
    #[must_use]
    pub fn same(&self, key: &BlockKey, want: &Want) -> Option<LockBlock<'a>> {
        self.lock
            .find(key)
            .filter(|block| block.want() == Some(want))
    }

    /// The signatures that were found when the image was vetted.
    #[must_use]
    pub fn signatures(&self, digest: &Digest) -> &[Signature] {
        self.pins
            .get(digest)
            .map_or(&[], |admitted| admitted.signatures.as_slice())
    }

    /// What is at an address, by the files that the other lock pins.
    ///
    /// # Errors
    /// If it pins none from there, or its bytes do not arrive.
    pub fn get(&self, address: &Address, means: &Means<'_>) -> Result<Vec<u8>, Problem> {
        let name = address.to_string();
        let blob = self.files.get(&name).ok_or_else(|| self.unknown(&name))?;
        means.blob(*blob, vec![Origin::Url(name.clone())])?;
        read(means.resolver().store, blob, FILE_LIMIT)
            .map_err(|error| Problem::new(crate::run::event::one_line(&error)).about(&name))
    }

    /// The bytes of what an image name stands for are in the store then.
    ///
    /// # Errors
    /// If they are neither there nor in the registry of the first hop.
    pub fn bring(
        &self,
        origin: &PinOrigin,
        digest: &Digest,
        means: &Means<'_>,
    ) -> Result<Blob, Problem> {
        let name = format!("{origin}@{digest}");
        let missing = |what: &str| {
            Problem::new(format!("{name}: {what}")).hint(
                "deliver the first hop, and name its registry in a registries.conf: `imgbuild emit --kind next-hop` writes one",
            )
        };
        match origin {
            PinOrigin::Registry(repository) => means
                .manifest(repository, digest)?
                .map(|stored| stored.blob)
                .ok_or_else(|| missing("it is not there")),
            PinOrigin::Layout(_) => {
                let blob = Blob {
                    digest: *digest,
                    size: self.admitted(digest, &name)?.size,
                };
                let is_here = crate::store::Sink::holds(means.resolver().store, &blob)
                    .map_err(|error| Problem::new(format!("the store: {error}")))?;
                if is_here {
                    Ok(blob)
                } else {
                    Err(missing(
                        "it came from a layout on disk and is not in the store",
                    ))
                }
            }
        }
    }

    /// The payloads that a channel (or a path across it) leads to here.
    fn payloads(
        &self,
        channel: &str,
        product: Product,
        architecture: Architecture,
    ) -> Vec<&'a Payload> {
        let of = |release: &&'a Release| {
            let is_okd = release.want.text("type") == Some("okd");
            release.arch == architecture.name() && is_okd == (product == Product::Okd)
        };
        let names = |release: &&'a Release, exactly: bool| match &release.name {
            ReleaseName::Channel(name) => {
                let mut parts = name.split(ACROSS);
                if exactly {
                    parts.any(|part| part == channel)
                } else {
                    // A path across channels passes through those between them.
                    name.contains(ACROSS)
                }
            }
            ReleaseName::Reference(_) => false,
        };
        let releases: Vec<&'a Release> = self.lock.releases.iter().filter(of).collect();
        for exactly in [true, false] {
            let mut seen = BTreeSet::new();
            let found: Vec<&'a Payload> = releases
                .iter()
                .filter(|release| names(release, exactly))
                .flat_map(|release| &release.payloads)
                .filter(|payload| seen.insert(payload.version.as_str()))
                .collect();
            if !found.is_empty() {
                return found;
            }
        }
        Vec::new()
    }

    /// The update graph of a channel, as far as it was vetted: from what the payloads say of themselves.
    ///
    /// # Errors
    /// If the other lock has no release of the channel, or one of its payloads cannot be read.
    pub fn graph(
        &self,
        channel: &str,
        product: Product,
        architecture: Architecture,
        means: &Means<'_>,
    ) -> Result<Graph, Problem> {
        let payloads = self.payloads(channel, product, architecture);
        if payloads.is_empty() {
            return Err(self.unknown(&format!("channel {channel} for {architecture}")));
        }
        let mut described = Vec::new();
        for payload in payloads {
            let label = format!("release {}", payload.version);
            described.push(
                read_payload(payload, architecture, means)
                    .map_err(|problem| problem.about(&label))?,
            );
        }
        let about = |problem: Problem| problem.about(format!("channel {channel}"));
        let graph = candidates(&described).map_err(|error| about(Problem::of(&error)))?;
        // What the vendor blocks among the edges that releases propose, where that was vetted too.
        let data = match product {
            Product::Ocp => self.graph_data(means).map_err(about)?,
            Product::Okd => None,
        };
        match data {
            Some(data) => data
                .apply(graph)
                .map(|graph| graph.channel(channel, architecture.name()))
                .map_err(|error| about(Problem::of(&error))),
            None => Ok(graph.without_architectures()),
        }
    }

    /// The graph data that the other lock pins.
    fn graph_data(&self, means: &Means<'_>) -> Result<Option<GraphData>, Problem> {
        let is_data = |file: &&File| file.want.text("rule") == Some(GRAPH_DATA);
        let Some(file) = self.lock.files.iter().find(is_data) else {
            return Ok(None);
        };
        let bytes = self.get(&Address::plain(file.reference.as_str()), means)?;
        let failed =
            |error: io::Error| Problem::new(format!("{} cannot be read: {error}", file.reference));
        let plain: Box<dyn Read> = if bytes.starts_with(&GZIP) {
            Box::new(MultiGzDecoder::new(bytes.as_slice()))
        } else {
            Box::new(bytes.as_slice())
        };
        let mut archive = tar::Archive::new(plain.take(FILE_LIMIT));
        let mut files = Vec::new();
        for entry in archive.entries().map_err(failed)? {
            let mut entry = entry.map_err(failed)?;
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).map_err(failed)?;
            files.push((path, content));
        }
        let files = files
            .iter()
            .map(|(path, content)| (path.as_str(), content.as_slice()));
        GraphData::read(files)
            .map(Some)
            .map_err(|error| Problem::of(&error).about(&file.reference))
    }

    /// The chart that answers a request for one: the same request's, else that of the highest version that fits.
    ///
    /// # Errors
    /// If the other lock pins no such chart, or the version is malformed.
    pub fn chart(&self, reference: &str, version: Option<&str>) -> Result<&'a Chart, Problem> {
        let charts = || {
            let charts = self.lock.charts.iter();
            charts.filter(|chart| chart.reference == reference)
        };
        if let Some(chart) = charts().find(|chart| chart.want.text("version") == version) {
            return Ok(chart);
        }
        let constraint = Constraint::parse(version.unwrap_or("*"))
            .map_err(|error| Problem::new(error.to_string()).about(reference))?;
        let fitting = charts().filter_map(|chart| {
            let own = Semver::parse(chart.version.as_deref()?).ok()?;
            constraint.check(&own).then_some((own, chart))
        });
        let highest = fitting.max_by(|(left, _), (right, _)| left.compare(right));
        highest.map(|(_, chart)| chart).ok_or_else(|| {
            let what = version.map_or_else(
                || format!("chart {reference}"),
                |version| format!("chart {reference} {version}"),
            );
            self.unknown(&what)
        })
    }

    /// The part of a graph whose payloads are pinned here.
    #[must_use]
    pub fn restrict(&self, graph: &Graph) -> Graph {
        graph.retain(|release| {
            release
                .payload
                .digest
                .is_some_and(|digest| self.pins.contains_key(&digest))
        })
    }
}

/// Whether whoever has all of `name` has all of `wanted`.
fn covers(name: &PlatformName, wanted: &PlatformName) -> bool {
    name.os == wanted.os
        && name.architecture == wanted.architecture
        && (name.variant.is_none() || name.variant == wanted.variant)
}

/// A pinned payload as it describes itself.
fn read_payload(
    payload: &Payload,
    architecture: Architecture,
    means: &Means<'_>,
) -> Result<crate::openshift::graph::data::Described, Problem> {
    let pin = &payload.pin;
    let repository = pin
        .repository()
        .ok_or_else(|| Problem::new("releases come from registries"))?;
    let stored = means
        .manifest(repository, &pin.digest)?
        .ok_or_else(|| Problem::new(format!("{} is not there", pin.image())))?;
    let instance = means.instance(&pin.origin, stored, &pin.platforms)?;
    let files = means.members(
        &pin.origin,
        &instance,
        &[IMAGE_REFERENCES, RELEASE_METADATA],
        PAYLOAD_FILE_LIMIT as u64,
    )?;
    let mut files = files.into_iter().flatten();
    let (Some(references), Some(metadata)) = (files.next(), files.next()) else {
        return Err(Problem::new("the image is no release payload"));
    };
    let contents = Contents::parse(&references, &metadata).map_err(|error| Problem::of(&error))?;
    Ok(contents.described(repository.clone().with_digest(pin.digest), architecture))
}

/// The block of the other lock that answers the very same request, for kinds that are made of more than one name.
/// Images and releases are answered one by one, since they may have fewer parts here.
pub(super) fn taken_over(expected: &Expected, means: &Means<'_>) -> Option<NewBlock> {
    let vetted = means.within()?;
    match &expected.key {
        BlockKey::Chart { .. } => vetted.same(&expected.key, &expected.want).and_then(copied),
        _ => None,
    }
}

/// The signatures of a payload that the other lock pins, each with its bytes.
///
/// # Errors
/// If one does not arrive.
pub(super) fn signatures(
    vetted: &Vetted<'_>,
    digest: &Digest,
    means: &Means<'_>,
) -> Result<Vec<(Signature, Vec<u8>)>, Problem> {
    let mut out = Vec::new();
    for signature in vetted.signatures(digest) {
        let blob = Blob {
            digest: signature.digest,
            size: signature.size,
        };
        let origin = match super::release::path_of(digest, signature) {
            Some(path) => Origin::Signature(path),
            None => continue,
        };
        means.blob(blob, vec![origin]).map_err(|problem| {
            problem.about(&signature.from).hint(
                "import the first hop's archive here, or say with OCP_SIGNATURE_URL where its signatures are",
            )
        })?;
        let bytes = read(means.resolver().store, &blob, FILE_LIMIT)
            .map_err(|error| Problem::new(crate::run::event::one_line(&error)))?;
        out.push((signature.clone(), bytes));
    }
    Ok(out)
}
