//! `show`, `takeover`, `dossier`: what is in archives and locks, what other tools left, and papers for approval.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use serde_json::{Value, json};

use super::arguments::{DossierArguments, Format, ShowArguments, TakeoverArguments};
use super::delivery::{chain, chain_path, earlier_lock, open};
use super::site::{Site, cannot, lock_failure, store_failure};
use super::ui::{self, Failure, Progress, count, remark, say};
use crate::archive::seal::Seal;
use crate::archive::{Archive, FileKind, Manifest, Stream};
use crate::deliver::dossier::{Dossier, DossierImage, DossierPart};
use crate::deliver::emit::replace;
use crate::deliver::export::plan_from;
use crate::deliver::takeover::{self, TakeoverError};
use crate::digest::Digest;
use crate::hint::Hint;
use crate::oci::REF_NAME;
use crate::plan::lock::Lock;
use crate::plan::{diff, text};
use crate::run::built::remembered;
use crate::run::event::Event;
use crate::step::Origin;
use crate::store::disk::{Access, Store};
use crate::store::index;
use crate::store::roots::{Kind as RootKind, Root as StoreRoot};

/// `imgbuild show`
pub(super) fn show(site: &Site, arguments: &ShowArguments) -> Result<u8, Failure> {
    let path = &arguments.path;
    let is_lock = path.is_file() && path.extension().is_some_and(|suffix| suffix == "toml");
    let value = if is_lock {
        let bytes = fs::read(path).map_err(|error| cannot("read the lock", path, &error))?;
        let lock = text::parse(
            &String::from_utf8_lossy(&bytes),
            &path.display().to_string(),
        )
        .map_err(|error| lock_failure(&error))?;
        show_lock(&lock, Digest::of(&bytes))
    } else {
        let set = open(site, std::slice::from_ref(path))?;
        if set.archives().is_empty() {
            return Err(match set.broken().first() {
                Some(error) => Failure::of(ui::UNVERIFIED, error, error.hint()),
                None => Failure::new(
                    ui::ERROR,
                    format!("{} is no archive and no lock", path.display()),
                )
                .hint("give the folder of an archive, one of its parts, or a .lock.toml file"),
            });
        }
        let archives: Vec<Value> = set
            .archives()
            .iter()
            .map(show_archive)
            .collect::<Result<_, _>>()?;
        for error in set.broken() {
            remark(format!("warning: {}", crate::run::event::one_line(error)));
        }
        json!({ "version": 1, "archives": archives })
    };
    match arguments.format {
        Format::Json => say(value.to_string()),
        Format::Text => {
            for archive in value["archives"].as_array().into_iter().flatten() {
                print_archive(archive);
            }
            if is_lock {
                print_lock(&value);
            }
        }
    }
    Ok(ui::DONE)
}

fn show_lock(lock: &Lock, digest: Digest) -> Value {
    let mut images = Vec::new();
    for (key, pins) in lock.owners() {
        for (_, pin) in pins {
            images.push(json!({ "block": key.to_string(), "image": pin.image(), "tag": pin.tag.as_ref().map(ToString::to_string) }));
        }
    }
    json!({
        "version": 1,
        "lock": digest,
        "blocks": {
            "releases": lock.releases.len(), "catalogs": lock.catalogs.len(), "images": lock.images.len(),
            "charts": lock.charts.len(), "files": lock.files.len(), "blocked": lock.blocked.len(), "skipped": lock.skips.len(),
        },
        "rules": lock.rules.iter().map(|(name, digest)| (name.clone(), json!(digest))).collect::<serde_json::Map<_, _>>(),
        "images": images,
    })
}

fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

fn print_lock(value: &Value) {
    say(format!("lock {}", text_of(&value["lock"])));
    for (name, number) in value["blocks"].as_object().into_iter().flatten() {
        if number != 0 {
            say(format!("  {name:<9} {number}"));
        }
    }
    for (name, digest) in value["rules"].as_object().into_iter().flatten() {
        say(format!("  rule      {name} {}", text_of(digest)));
    }
    for image in value["images"].as_array().into_iter().flatten() {
        let tag = image["tag"]
            .as_str()
            .map(|tag| format!("  ({tag})"))
            .unwrap_or_default();
        say(format!("  {}{tag}", text_of(&image["image"])));
    }
}

fn show_archive(archive: &Archive) -> Result<Value, Failure> {
    let manifest = archive.manifest();
    let sums: BTreeMap<FileKind, Digest> = archive
        .sums()
        .iter()
        .flat_map(|(_, sums)| sums.iter().map(|(kind, digest)| (*kind, *digest)))
        .collect();
    let parts: Vec<_> = archive
        .parts()
        .map(|part| {
            json!({
                "number": part.header().part, "file": part.path().display().to_string(), "size": part.size(),
                "sha256": sums.get(&FileKind::Part(part.header().part)),
            })
        })
        .collect();
    let bases: Vec<_> = manifest
        .bases
        .iter()
        .map(|base| json!({ "sequence": base.sequence, "lock": base.lock }))
        .collect();
    let mut images = Value::Null;
    let mut resources = Value::Null;
    if archive.part(1).is_some() {
        let metadata = archive
            .metadata()
            .map_err(|error| Failure::of(ui::UNVERIFIED, &error, error.hint()))?;
        let listed = index::parse(&metadata.index).map_err(|problem| {
            Failure::new(
                ui::UNVERIFIED,
                format!("its index.json is malformed: {problem}"),
            )
        })?;
        images = listed
            .iter()
            .map(|image| json!({ "name": image.annotations.get(REF_NAME), "digest": image.digest }))
            .collect();
        resources = metadata
            .resources
            .iter()
            .map(|(path, _)| path.clone())
            .collect();
    }
    let seals: Vec<_> = archive
        .seals()
        .iter()
        .map(|path| match fs::read(path).map_err(|error| error.to_string()).and_then(|bytes| Seal::parse(&bytes)) {
            Ok(seal) => {
                let statement = seal.statement();
                json!({
                    "file": path.display().to_string(), "signatures": seal.signatures(), "created": statement.created.to_string(),
                    "expires": statement.expires.map(|time| time.to_string()), "matches": statement.archive == archive.archive_id(),
                })
            }
            Err(problem) => json!({ "file": path.display().to_string(), "problem": problem }),
        })
        .collect();
    Ok(json!({
        "stream": manifest.stream.as_str(), "sequence": manifest.sequence, "id": archive.archive_id(), "parent": manifest.parent,
        "genesis": manifest.genesis, "bases": bases, "lock": manifest.lock.digest, "full": manifest.is_full(),
        "provides": { "blobs": manifest.provides.count, "bytes": manifest.provides.bytes },
        "closure": { "blobs": manifest.closure.count, "bytes": manifest.closure.bytes },
        "parts": parts, "of": archive.of_parts(), "missing": archive.missing(), "images": images, "resources": resources, "seals": seals,
    }))
}

fn print_archive(archive: &Value) {
    let bytes = |value: &Value| ui::bytes(value.as_u64().unwrap_or(0));
    say(format!(
        "{} seq {}",
        text_of(&archive["stream"]),
        archive["sequence"]
    ));
    say(format!("  archive   {}", text_of(&archive["id"])));
    say(format!("  before it {}", text_of(&archive["parent"])));
    say(format!("  lock      {}", text_of(&archive["lock"])));
    let bases: Vec<String> = archive["bases"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|base| match base["sequence"].as_u64() {
            Some(sequence) => format!("seq {sequence}"),
            None => format!("lock {}", text_of(&base["lock"])),
        })
        .collect();
    let bases = if bases.is_empty() {
        "nothing (full)".to_owned()
    } else {
        bases.join(" or ")
    };
    say(format!("  on top of {bases}"));
    for (name, key) in [("carries", "provides"), ("comes to", "closure")] {
        let (blobs, size) = (&archive[key]["blobs"], bytes(&archive[key]["bytes"]));
        say(format!("  {name:<9} {blobs} blobs, {size}"));
    }
    let of = &archive["of"];
    for part in archive["parts"].as_array().into_iter().flatten() {
        say(format!(
            "  part      {} of {of}  {:>12}  {}",
            part["number"],
            bytes(&part["size"]),
            text_of(&part["file"])
        ));
    }
    for missing in archive["missing"].as_array().into_iter().flatten() {
        say(format!("  part      {missing} of {of}  is not here"));
    }
    for seal in archive["seals"].as_array().into_iter().flatten() {
        match seal["problem"].as_str() {
            Some(problem) => say(format!("  seal      {}: {problem}", text_of(&seal["file"]))),
            None => say(format!(
                "  seal      {} signatures, not checked; made {}, expires {}",
                seal["signatures"],
                text_of(&seal["created"]),
                text_of(&seal["expires"])
            )),
        }
    }
    for resource in archive["resources"].as_array().into_iter().flatten() {
        say(format!("  resource  {}", text_of(resource)));
    }
    for image in archive["images"].as_array().into_iter().flatten() {
        say(format!(
            "  image     {}  {}",
            text_of(&image["name"]),
            text_of(&image["digest"])
        ));
    }
}

/// `imgbuild takeover`
pub(super) fn takeover(
    site: &Site,
    arguments: &TakeoverArguments,
    stop: &AtomicBool,
) -> Result<u8, Failure> {
    let store = site.store(Access::Shared)?;
    let progress = Progress::new(site.common.quiet, false, site.common.events.as_deref())?;
    progress.observe(Event::Phase { phase: "takeover" });
    let digest = Digest::of(b"");
    let passed = |bytes| progress.observe(Event::Bytes { digest, bytes });
    let taken = takeover::take(
        &arguments.paths,
        &arguments.registry,
        &store,
        arguments.files.as_deref(),
        stop,
        &passed,
    );
    progress.finish();
    let taken = taken.map_err(|error| {
        let code = if matches!(error, TakeoverError::Stopped) {
            ui::INCOMPLETE
        } else {
            ui::ERROR
        };
        Failure::of(code, &error, error.hint())
    })?;
    for name in &taken.damaged {
        remark(format!("damaged: {name}"));
    }
    for image in &taken.left_out {
        remark(format!("left out: {image}"));
    }
    let written = text::emit(&taken.lock);
    let lock = store
        .insert(written.as_bytes())
        .map_err(|error| store_failure(&error))?;
    let absolute = std::path::absolute(&arguments.lock).unwrap_or_else(|_| arguments.lock.clone());
    if let Some(folder) = absolute.parent() {
        fs::create_dir_all(folder).map_err(|error| cannot("create", folder, &error))?;
    }
    replace(&arguments.lock, written.as_bytes())
        .map_err(|error| cannot("write the lock", &arguments.lock, &error))?;
    let root = StoreRoot {
        kind: RootKind::Working,
        lock,
    };
    store
        .roots()
        .set(&absolute.display().to_string(), &root)
        .map_err(|error| store_failure(&error))?;
    let mut listed = store.index().map_err(|error| store_failure(&error))?;
    listed.retain(|old| {
        let name = old.annotations.get(REF_NAME);
        taken
            .images
            .iter()
            .all(|new| new.annotations.get(REF_NAME) != name)
    });
    listed.extend(taken.images.iter().cloned());
    store
        .write_index(&listed)
        .map_err(|error| store_failure(&error))?;
    if !site.common.quiet {
        say(format!(
            "{}: {}, {} taken ({}), {} were there",
            arguments.lock.display(),
            count(taken.lock.images.len(), "image"),
            count(usize::try_from(taken.blobs).unwrap_or(usize::MAX), "blob"),
            ui::bytes(taken.bytes),
            taken.present
        ));
        if !taken.sequences.is_empty() {
            let sequences: Vec<String> = taken.sequences.iter().map(ToString::to_string).collect();
            say(format!("  from sequence {}", sequences.join(", ")));
        }
        if let Some(folder) = &arguments.files {
            say(format!(
                "  {} of the working directory in {}",
                count(usize::try_from(taken.kept).unwrap_or(usize::MAX), "file"),
                folder.display()
            ));
        }
        if taken.elsewhere > 0 {
            say(format!(
                "  {} layers came with earlier archives and are only at the destination",
                taken.elsewhere
            ));
        }
        say(format!(
            "what the destination lacks beyond this:  imgbuild export --base-lock {}",
            arguments.lock.display()
        ));
    }
    if taken.damaged.is_empty() {
        return Ok(ui::DONE);
    }
    Err(Failure::new(
        ui::UNVERIFIED,
        format!(
            "{} damaged and not taken",
            count(taken.damaged.len(), "file")
        ),
    ))
}

/// `imgbuild dossier`
pub(super) fn dossier(site: &Site, arguments: &DossierArguments) -> Result<u8, Failure> {
    let paths = site.paths_in(&arguments.subject, arguments.stream.as_deref());
    let stream = site.stream(&paths)?;
    let store = site.store(Access::ReadOnly)?;
    let chain = chain(&chain_path(&paths, &stream))?;
    let sequence = arguments.sequence;
    let (lock, _) = earlier_lock(&paths, &store, &chain, &stream, sequence)?;
    let Some(line) = chain.line(sequence) else {
        return Err(Failure::new(
            ui::USAGE,
            format!("stream {stream} has no sequence {sequence}"),
        ));
    };
    let manifest = stored_manifest(&store, &stream, sequence, line.archive_id)?;
    let before = match sequence.checked_sub(1).filter(|before| *before > 0) {
        Some(before) => earlier_lock(&paths, &store, &chain, &stream, before).ok(),
        None => None,
    };
    let changes = before.map(|(before, _)| diff::diff(&before, &lock, None));
    let parts = dossier_parts(site, arguments, line.archive_id)?;
    let dossier = Dossier {
        line,
        manifest: &manifest,
        changes: changes.as_ref(),
        images: dossier_images(&lock, &store, &chain, line)?,
        parts,
    };
    let folder = &arguments.output;
    fs::create_dir_all(folder).map_err(|error| cannot("create", folder, &error))?;
    let stem = format!("{stream}_seq{sequence:06}");
    for (suffix, content) in [
        ("md", dossier.markdown()),
        ("json", dossier.json()),
        ("html", dossier.html()),
    ] {
        let path = folder.join(format!("{stem}.{suffix}"));
        replace(&path, content.as_bytes()).map_err(|error| cannot("write", &path, &error))?;
        if !site.common.quiet {
            say(path.display().to_string());
        }
    }
    Ok(ui::DONE)
}

fn stored_manifest(
    store: &Store,
    stream: &Stream,
    sequence: u64,
    archive_id: Digest,
) -> Result<Manifest, Failure> {
    let bytes = store
        .stream(stream.as_str())
        .and_then(|records| records.read(&format!("manifest {sequence:06}")))
        .map_err(|error| store_failure(&error))?;
    let Some(bytes) = bytes.filter(|bytes| Digest::of(bytes) == archive_id) else {
        return Err(Failure::new(
            ui::ERROR,
            format!("the manifest of {stream} seq {sequence} ({archive_id}) is not in the store"),
        )
        .hint("papers are made where the archive was made, from the same store"));
    };
    Manifest::parse(&bytes).map_err(|flaw| Failure::of(ui::UNVERIFIED, &flaw, None))
}

/// The images of a lock, and what of them the archive of `line` carries; sizes only where the store knows them.
fn dossier_images(
    lock: &Lock,
    store: &Store,
    chain: &crate::archive::chain::Chain,
    line: &crate::archive::chain::Line,
) -> Result<Vec<DossierImage>, Failure> {
    use crate::archive::chain::LineBase;
    let built =
        remembered(lock, store).map_err(|error| Failure::of(ui::ERROR, &error, error.hint()))?;
    let plan = plan_from(lock, &built, store, store)
        .map_err(|error| Failure::of(ui::ERROR, &error, error.hint()))?;
    // What every base has is not carried; manifests always are.
    let mut common: Option<std::collections::BTreeSet<Digest>> = None;
    let mut is_known = true;
    for base in &line.bases {
        let base = match base {
            LineBase::Sequence(sequence) => chain.line(*sequence).map(|line| line.lock),
            LineBase::Lock(lock) => Some(*lock),
        };
        let closure = match base {
            Some(base) => store
                .closures()
                .get(&base)
                .map_err(|error| store_failure(&error))?,
            None => None,
        };
        let Some(closure) = closure else {
            is_known = false;
            break;
        };
        let digests = closure.iter().map(|blob| blob.digest).collect();
        common = Some(match common {
            None => digests,
            Some(common) => common.intersection(&digests).copied().collect(),
        });
    }
    let common = common.unwrap_or_default();
    let mut images = Vec::new();
    for root in plan.roots() {
        let content = plan
            .content_of(root)
            .map_err(|error| Failure::of(ui::ERROR, &error, error.hint()))?;
        let complete = content.unread.is_empty();
        let carried: u64 = content.manifests.iter().map(|blob| blob.size).sum::<u64>()
            + content
                .blobs
                .iter()
                .filter(|blob| !common.contains(&blob.digest))
                .map(|blob| blob.size)
                .sum::<u64>();
        let origin = root
            .fetch
            .origins
            .first()
            .map_or_else(String::new, |origin| match origin {
                Origin::Repository(repository) => format!("{repository}@"),
                Origin::Layout(path) => format!("oci://{path}@"),
                Origin::Url(url) => format!("{url} "),
                Origin::Signature(path) => format!("signature {path} "),
            });
        images.push(DossierImage {
            owner: root.owner.clone(),
            image: format!("{origin}{}", root.fetch.blob.digest),
            bytes: complete.then(|| content.bytes()),
            carried: (complete && is_known).then_some(carried),
        });
    }
    Ok(images)
}

fn dossier_parts(
    site: &Site,
    arguments: &DossierArguments,
    archive_id: Digest,
) -> Result<Vec<DossierPart>, Failure> {
    let Some(folder) = &arguments.archive else {
        return Ok(Vec::new());
    };
    let set = open(site, std::slice::from_ref(folder))?;
    let Some(archive) = set.archive(archive_id) else {
        return Err(Failure::new(
            ui::UNVERIFIED,
            format!(
                "{} does not hold archive {archive_id}",
                Path::new(folder).display()
            ),
        ));
    };
    Ok(archive
        .parts()
        .map(|part| {
            let kind = FileKind::Part(part.header().part);
            DossierPart {
                name: part.file_name().to_string(),
                size: part.size(),
                sha256: archive
                    .sums()
                    .iter()
                    .find_map(|(_, sums)| sums.get(&kind).copied()),
            }
        })
        .collect())
}
