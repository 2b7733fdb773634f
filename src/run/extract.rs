//! Tools out of a release: read from its images, pinned to the payload they were taken with, and written as files.
//!
//! Everything is had by digest, from the store where that has it, else from the registry that the payload is in. A
//! component that lies at a mirror is looked for where mirrors keep components, so nothing has to be configured for it.
//!
//! ```text
//! payload ─ image-references ─> component ─ layers ─> file ─ markers ─> pinned file [─ archive ─> tar.gz, zip]
//! ```
//!
//! A file appears under its name only when it is whole: its layer has been verified to the end by then.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use super::event::one_line;
use super::realise::Upstream;
use super::resolve::means::{Instance, Means, Problem, Stored};
use super::resolve::release::architecture;
use crate::digest::Digest;
use crate::oci::PlatformName;
use crate::openshift::payload::{FILE_LIMIT, IMAGE_REFERENCES, Payload, RELEASE_METADATA};
use crate::openshift::release::{Architecture, COMPONENT_REPOSITORY, PAYLOAD_REPOSITORY};
use crate::openshift::tools::macho::{Resigned, resign};
use crate::openshift::tools::marker::{Marker, Replacement, replace};
use crate::openshift::tools::pack::{Contents, tar_gz, zip};
use crate::openshift::tools::{Machine, System, Tool};
use crate::plan::lock::Origin as PinOrigin;
use crate::reference::{Reference, Repository};
use crate::step::{Content, Origin};
use crate::store::Source;

/// The folder of a payload that its manifests are in.
const MANIFESTS: &str = "release-manifests";

/// The file of checksums beside archives.
pub const CHECKSUMS: &str = "sha256sum.txt";

/// The file that says which release archives are of.
pub const RELEASE_TEXT: &str = "release.txt";

/// An upstream that has nothing: what the store lacks cannot be had.
pub struct Nowhere;

impl Upstream for Nowhere {
    fn source(&self, origin: &Origin, _: &Content) -> io::Result<Box<dyn Source + '_>> {
        Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("it is not in the store, and {origin:?} is not asked offline"),
        ))
    }

    fn manifest(&self, _: &Repository, _: &Digest) -> io::Result<Option<Vec<u8>>> {
        Ok(None)
    }
}

/// A release to take tools from.
pub struct Release<'a> {
    means: &'a Means<'a>,
    payload: Reference,
    origin: PinOrigin,
    instance: Instance,
    contents: Payload,
    architecture: Architecture,
}

/// A file that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Where.
    pub path: PathBuf,
    /// Its length in bytes.
    pub size: u64,
    /// Its checksum.
    pub sha256: Digest,
    /// What should be said about it.
    pub notes: Vec<String>,
}

/// What a tool is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The program.
    File,
    /// An archive with a text beside it.
    Archive,
}

/// Where a component may be, when the payload is in `payload`: first where mirrors put it, then where it says it is.
#[must_use]
pub fn places(payload: &Repository, component: &Repository) -> Vec<Repository> {
    let mut paths = Vec::new();
    let path = payload.path();
    // Flattened paths join the last names with a hyphen.
    let last = PAYLOAD_REPOSITORY.rsplit('/').next().unwrap_or_default();
    if let (Some(before), Some(name)) = (
        path.strip_suffix(last),
        COMPONENT_REPOSITORY.rsplit('/').next(),
    ) {
        paths.push(format!("{before}{name}"));
    }
    let (_, namespace) = component
        .path()
        .rsplit_once('/')
        .map_or(("", ""), |(space, name)| (name, space));
    let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
    if !namespace.is_empty()
        && let Some(prefix) = parent.strip_suffix(namespace)
        && (prefix.is_empty() || prefix.ends_with('/'))
    {
        paths.push(format!("{prefix}{}", component.path()));
    }
    paths.push(path.to_owned());
    let mut places: Vec<Repository> = paths
        .iter()
        .filter_map(|path| Repository::new(payload.registry(), path).ok())
        .collect();
    places.push(component.clone());
    let mut seen = Vec::new();
    places.retain(|place| {
        let is_new = !seen.contains(place);
        seen.push(place.clone());
        is_new
    });
    places
}

/// The first of several repositories that has a manifest.
fn find(
    means: &Means<'_>,
    places: &[Repository],
    digest: &Digest,
) -> Result<(PinOrigin, Stored), Problem> {
    let mut silent = None;
    for place in places {
        match means.manifest(place, digest) {
            Ok(Some(stored)) => return Ok((PinOrigin::Registry(place.clone()), stored)),
            Ok(None) => {}
            Err(problem) => silent = silent.or(Some(problem)),
        }
    }
    Err(silent.unwrap_or_else(|| {
        let names: Vec<String> = places.iter().map(ToString::to_string).collect();
        Problem::new(format!(
            "{digest} is neither in the store nor at {}",
            names.join(" or ")
        ))
    }))
}

impl<'a> Release<'a> {
    /// Opens the payload that `payload` names by digest.
    ///
    /// # Errors
    /// If it is not named by digest, does not arrive, or is no payload.
    pub fn open(means: &'a Means<'a>, payload: &Reference) -> Result<Self, Problem> {
        let Some(digest) = payload.digest else {
            return Err(Problem::new(format!("{payload} names no digest")));
        };
        let payload = Reference {
            tag: None,
            ..payload.clone()
        };
        let places = std::slice::from_ref(&payload.repository);
        let (origin, stored) = find(means, places, &digest)?;
        let instance = means.instance(&origin, stored, &[])?;
        let files = means.members(
            &origin,
            &instance,
            &[IMAGE_REFERENCES, RELEASE_METADATA],
            FILE_LIMIT as u64,
        )?;
        let [Some(references), Some(metadata)] = files.as_slice() else {
            return Err(Problem::new(format!(
                "{payload} has no {IMAGE_REFERENCES} and {RELEASE_METADATA}"
            ))
            .hint("it is no release payload"));
        };
        let contents = Payload::parse(references, metadata)
            .map_err(|error| Problem::of(&error).about(&payload))?;
        let architecture = architecture(&contents, &instance, &origin, means)?;
        Ok(Self {
            means,
            payload,
            origin,
            instance,
            contents,
            architecture,
        })
    }

    /// Its version.
    #[must_use]
    pub fn version(&self) -> String {
        self.contents.references.version.to_string()
    }

    /// What it is built for.
    #[must_use]
    pub const fn architecture(&self) -> Architecture {
        self.architecture
    }

    /// A file of the payload: a path in its `release-manifests`.
    ///
    /// # Errors
    /// If there is none, or it cannot be read.
    pub fn manifest(&self, name: &str) -> Result<Vec<u8>, Problem> {
        let path = format!("{MANIFESTS}/{name}");
        let files =
            self.means
                .members(&self.origin, &self.instance, &[&path], FILE_LIMIT as u64)?;
        files
            .into_iter()
            .next()
            .flatten()
            .ok_or_else(|| Problem::new(format!("{} has no {path}", self.payload)))
    }

    /// Says what it is and what it is made of, for [`RELEASE_TEXT`].
    #[must_use]
    pub fn describe(&self) -> String {
        use std::fmt::Write as _;
        let references = &self.contents.references;
        let mut out = format!(
            "Client tools and installers of this release.\nTheir checksums are in {CHECKSUMS}.\n\n---\n\nName:         {}\n",
            references.version
        );
        let _ = writeln!(out, "Architecture: {}", self.architecture);
        if let Some(digest) = self.payload.digest {
            let _ = writeln!(out, "Digest:       {digest}");
        }
        if let Some(created) = &references.created {
            let _ = writeln!(out, "Created:      {created}");
        }
        let _ = writeln!(out, "Pull from:    {}", self.payload);
        let previous: Vec<String> = self
            .contents
            .metadata
            .previous
            .iter()
            .map(ToString::to_string)
            .collect();
        if !previous.is_empty() {
            let _ = writeln!(out, "Upgrades:     {}", previous.join(", "));
        }
        for (name, value) in &self.contents.metadata.metadata {
            let _ = writeln!(out, "  {name}: {value}");
        }
        let width = references
            .components
            .iter()
            .map(|component| component.name.len())
            .max()
            .unwrap_or(0);
        out.push_str("\nImages:\n");
        for component in &references.components {
            let _ = writeln!(out, "  {:<width$}  {}", component.name, component.image);
        }
        out
    }

    /// Takes a tool, for `machine` (`amd64` and the like) where the release has several, and writes it into `folder`;
    /// `None` where the image that should have it has not, or there is no such image.
    ///
    /// # Errors
    /// If it does not arrive, or cannot be written.
    pub fn take(
        &self,
        tool: &Tool,
        machine: &str,
        form: Form,
        folder: &Path,
    ) -> Result<Option<Written>, Problem> {
        let about = |problem: Problem| problem.about(tool.command);
        let Some((origin, instance)) = self.image(tool, machine).map_err(about)? else {
            return Ok(None);
        };
        let io = |what: &Path, error: &io::Error| {
            Problem::new(format!("{}: {}", what.display(), one_line(error)))
        };
        fs::create_dir_all(folder).map_err(|error| io(folder, &error))?;
        let values = self.values(tool).map_err(about)?;
        let mut file = NamedTempFile::new_in(folder).map_err(|error| io(folder, &error))?;
        let mut places: Vec<Option<Range<u64>>> = Vec::new();
        let member = self
            .means
            .stream(&origin, &instance, tool.path, &mut |_, bytes| {
                let output = file.as_file_mut();
                output.set_len(0)?;
                output.seek(SeekFrom::Start(0))?;
                let mut output = BufWriter::new(output);
                places = replace(bytes, &mut output, &values)?;
                output.flush()
            })
            .map_err(about)?;
        let Some(member) = member else {
            return Ok(None);
        };
        let mut notes = Vec::new();
        for (value, place) in values.iter().zip(&places) {
            if place.is_none() {
                notes.push(format!(
                    "{} has no place for {}, and was left as it is there",
                    tool.command,
                    value.marker().word()
                ));
            }
        }
        if tool.system == System::Mac {
            let touched: Vec<Range<u64>> = places.into_iter().flatten().collect();
            let outcome = resign(file.as_file_mut(), &touched)
                .map_err(|error| about(Problem::new(one_line(&error))))?;
            match outcome {
                Resigned::Vendor(_) if !touched.is_empty() => notes.push(format!(
                    "the signature that its maker put under {} counts no longer",
                    tool.command
                )),
                Resigned::Unsigned if tool.machine == Machine::Named("arm64") => notes.push(format!(
                    "{} has no signature, and macOS on ARM runs nothing without: sign it with `codesign -s -`",
                    tool.command
                )),
                _ => {}
            }
        }
        let (name, file) = match form {
            Form::File => (tool.file(), file),
            Form::Archive => {
                let mut packed =
                    NamedTempFile::new_in(folder).map_err(|error| io(folder, &error))?;
                let input = file.as_file_mut();
                input
                    .seek(SeekFrom::Start(0))
                    .map_err(|error| io(folder, &error))?;
                let contents = Contents {
                    name: &tool.file(),
                    size: member.size,
                    modified: member.modified,
                    readme: &tool.readme(),
                    link: tool.link,
                };
                let mut input = BufReader::new(input);
                let mut output = BufWriter::new(packed.as_file_mut());
                match tool.system {
                    System::Windows => zip(&contents, &mut input, &mut output),
                    System::Linux | System::Mac => tar_gz(&contents, &mut input, &mut output),
                }
                .and_then(|()| output.flush())
                .map_err(|error| io(folder, &error))?;
                drop(output);
                (tool.archive(&self.version()), packed)
            }
        };
        let mode = match form {
            Form::File => 0o755,
            Form::Archive => 0o644,
        };
        let path = folder.join(name);
        finish(file, &path, mode, notes)
            .map(Some)
            .map_err(|error| io(&path, &error))
    }

    /// The instance of the image that a tool is in.
    fn image(&self, tool: &Tool, machine: &str) -> Result<Option<(PinOrigin, Instance)>, Problem> {
        let Some(component) = self.contents.references.component(tool.image) else {
            return Ok(None);
        };
        let digest = component
            .image
            .digest
            .expect("components are named by digest");
        let places = places(&self.payload.repository, &component.image.repository);
        let (origin, stored) = find(self.means, &places, &digest)
            .map_err(|problem| problem.about(format!("image {}", tool.image)))?;
        let platform: Option<PlatformName> = format!("linux/{machine}").parse().ok();
        let wanted = platform.map_or_else(Vec::new, |platform| vec![platform]);
        let own = self.means.instance(&origin, stored, &wanted);
        // Images of files for other systems are the same for every machine.
        let instance = match (own, tool.machine) {
            (Ok(instance), _) => instance,
            (Err(_), Machine::Named(_)) => self.means.instance(&origin, stored, &[])?,
            (Err(problem), Machine::Release) => return Err(problem),
        };
        Ok(Some((origin, instance)))
    }

    /// What is written into a tool.
    fn values(&self, tool: &Tool) -> Result<Vec<Replacement>, Problem> {
        let mut values = Vec::new();
        if tool.knows_payload {
            values.push((Marker::Image, self.payload.to_string()));
        }
        if tool.knows_version {
            values.push((Marker::Version, self.version()));
        }
        if tool.knows_payload {
            values.push((Marker::Architecture, self.architecture.name().to_owned()));
        }
        values
            .into_iter()
            .map(|(marker, value)| {
                Replacement::new(marker, &value).map_err(|error| Problem::new(error.to_string()))
            })
            .collect()
    }
}

/// Writes a small file whole.
///
/// # Errors
/// If it cannot be written.
pub fn write(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<Written> {
    let mut file = NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    finish(file, &folder.join(name), 0o644, Vec::new())
}

/// Gives a finished file its mode and its name, and reads it once for its checksum.
fn finish(
    mut file: NamedTempFile,
    path: &Path,
    mode: u32,
    notes: Vec<String>,
) -> io::Result<Written> {
    use std::os::unix::fs::PermissionsExt as _;
    let inner: &mut File = file.as_file_mut();
    inner.set_permissions(fs::Permissions::from_mode(mode))?;
    inner.sync_all()?;
    inner.seek(SeekFrom::Start(0))?;
    let mut hasher = Sha256::new();
    let mut size = 0;
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = inner.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        size += count as u64;
    }
    file.persist(path).map_err(|error| error.error)?;
    Ok(Written {
        path: path.to_owned(),
        size,
        sha256: Digest::from_bytes(hasher.finalize().into()),
        notes,
    })
}

/// The lines of [`CHECKSUMS`]: what `sha256sum -c` reads, sorted by name.
#[must_use]
pub fn checksums(files: &[Written]) -> String {
    let mut rows: Vec<(String, String)> = files
        .iter()
        .map(|file| {
            let name = file.path.file_name().unwrap_or_default();
            (name.to_string_lossy().into_owned(), file.sha256.hex())
        })
        .collect();
    rows.sort();
    rows.into_iter().fold(String::new(), |text, (name, hex)| {
        text + &hex + "  " + &name + "\n"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_is_looked_for_where_mirrors_put_it() {
        let art = "quay.io/openshift-release-dev/ocp-v4.0-art-dev";
        for (payload, wanted) in [
            (
                "m:5000/ocp/openshift/release-images",
                vec![
                    "m:5000/ocp/openshift/release",
                    "m:5000/ocp/openshift/release-images",
                    art,
                ],
            ),
            (
                "m:5000/a-openshift-release-images",
                vec![
                    "m:5000/a-openshift-release",
                    "m:5000/a-openshift-release-images",
                    art,
                ],
            ),
            (
                "m:5000/x/openshift-release-dev/ocp-release",
                vec![
                    "m:5000/x/openshift-release-dev/ocp-v4.0-art-dev",
                    "m:5000/x/openshift-release-dev/ocp-release",
                    art,
                ],
            ),
            (
                "quay.io/openshift-release-dev/ocp-release",
                vec![art, "quay.io/openshift-release-dev/ocp-release"],
            ),
            (
                "m:5000/ocp4/openshift4",
                vec!["m:5000/ocp4/openshift4", art],
            ),
        ] {
            let found: Vec<String> = places(&payload.parse().unwrap(), &art.parse().unwrap())
                .iter()
                .map(ToString::to_string)
                .collect();
            assert_eq!(found, wanted, "for a payload in {payload}");
        }
    }
}
