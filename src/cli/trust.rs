//! `key`, `seal`, and the keys that other commands are given: who vouches for archives and receipts.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use jiff::Timestamp;

use super::arguments::{KeyArguments, KeyCommand, SealArguments};
use super::delivery::{open, unverified};
use super::site::{Site, cannot};
use super::ui::{self, Failure, Progress, count, say};
use crate::archive::key::{PublicKey, SecretKey};
use crate::archive::seal::{LIMIT, Seal, SealedPart, Statement, Trust};
use crate::archive::{Archive, FileKind, FileName, verify};
use crate::deliver::emit::replace;
use crate::digest::Digest;
use crate::run::event::Event;

/// The time, to the second.
pub(super) fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

/// Reads a date or a time.
fn time(text: &str) -> Result<Timestamp, Failure> {
    text.parse()
        .or_else(|_| format!("{text}T00:00:00Z").parse())
        .map_err(|error: jiff::Error| {
            Failure::of(
                ui::USAGE,
                &error,
                Some("write a date (2027-02-01, from its first second in UTC) or a time (2027-02-01T12:00:00Z)".to_owned()),
            )
        })
}

fn key_failure(path: &Path, error: &crate::archive::key::KeyError) -> Failure {
    let mut failure = Failure::new(
        ui::ERROR,
        format!("{} holds no key that can be used", path.display()),
    );
    failure.text.push_str(&format!("\n  because {error}"));
    failure
        .hint("`imgbuild key new NAME` makes a secret key (NAME.key) and its public key (NAME.pub)")
}

/// Reads secret keys.
pub(super) fn secret_keys(paths: &[PathBuf]) -> Result<Vec<SecretKey>, Failure> {
    paths
        .iter()
        .map(|path| {
            let text =
                fs::read_to_string(path).map_err(|error| cannot("read the key", path, &error))?;
            SecretKey::of_pem(&text).map_err(|error| key_failure(path, &error))
        })
        .collect()
}

/// Reads public keys; a file may hold several.
pub(super) fn public_keys(paths: &[PathBuf]) -> Result<Vec<PublicKey>, Failure> {
    let mut keys = Vec::new();
    for path in paths {
        let text =
            fs::read_to_string(path).map_err(|error| cannot("read the key", path, &error))?;
        keys.extend(PublicKey::all_of_pem(&text).map_err(|error| key_failure(path, &error))?);
    }
    keys.sort_unstable();
    keys.dedup();
    Ok(keys)
}

/// The trust that flags describe; `None` where no seal is required.
pub(super) fn trust<'a>(
    keys: &'a [PublicKey],
    required: &[PathBuf],
    threshold: usize,
) -> Result<Option<Trust<'a>>, Failure> {
    if required.is_empty() {
        return Ok(None);
    }
    if threshold == 0 || threshold > keys.len() {
        return Err(Failure::new(
            ui::USAGE,
            format!(
                "--threshold {threshold} cannot be met by {}",
                count(keys.len(), "key")
            ),
        ));
    }
    Ok(Some(Trust {
        keys,
        threshold,
        now: now(),
    }))
}

/// `imgbuild key`
pub(super) fn key(arguments: &KeyArguments) -> Result<u8, Failure> {
    let KeyCommand::New { name } = &arguments.command;
    let with = |suffix: &str| {
        let mut path = name.clone().into_os_string();
        path.push(suffix);
        PathBuf::from(path)
    };
    let (secret, public) = (with(".key"), with(".pub"));
    for path in [&secret, &public] {
        if path.exists() {
            return Err(
                Failure::new(ui::ERROR, format!("{} is there already", path.display()))
                    .hint("choose another name; a key that was used is not replaced"),
            );
        }
    }
    let key = SecretKey::generate().map_err(|error| Failure::of(ui::ERROR, &error, None))?;
    write_new(&secret, 0o600, &key.to_pem())?;
    write_new(&public, 0o644, &key.public().to_pem())?;
    say(format!(
        "{}  the secret key: keep it where archives are made",
        secret.display()
    ));
    say(format!(
        "{}  the public key: bring it to the sites, once and in person",
        public.display()
    ));
    say(format!("key {}", key.public().id()));
    Ok(ui::DONE)
}

fn write_new(path: &Path, mode: u32, text: &str) -> Result<(), Failure> {
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|error| cannot("write", path, &error))
}

/// What a seal says of these parts.
pub(super) fn statement(
    archive: Digest,
    parts: impl IntoIterator<Item = (String, u64, Digest)>,
    expires: Option<&str>,
) -> Result<Statement, Failure> {
    let expires = expires.map(time).transpose()?;
    let created = now();
    if expires.is_some_and(|expires| expires <= created) {
        return Err(Failure::new(ui::USAGE, "--expires is in the past"));
    }
    Ok(Statement {
        archive,
        created,
        expires,
        parts: parts
            .into_iter()
            .map(|(name, size, sha256)| SealedPart { name, sha256, size })
            .collect(),
    })
}

/// Adds signatures to the seal at `path`, or makes it. A seal that says something else of the parts is refused.
pub(super) fn seal_with(
    path: &Path,
    statement: Statement,
    keys: &[SecretKey],
) -> Result<Seal, Failure> {
    let mut seal = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Seal::new(statement),
        Err(error) => return Err(cannot("read the seal", path, &error)),
        Ok(found) if found.len() > LIMIT => {
            return Err(Failure::new(
                ui::UNVERIFIED,
                format!("{} is too large for a seal", path.display()),
            ));
        }
        Ok(_) => {
            let bytes = fs::read(path).map_err(|error| cannot("read the seal", path, &error))?;
            let seal = Seal::parse(&bytes).map_err(|problem| {
                Failure::new(
                    ui::UNVERIFIED,
                    format!("{} is not a seal: {problem}", path.display()),
                )
            })?;
            let (old, new) = (seal.statement(), &statement);
            if (old.archive, &old.parts) != (new.archive, &new.parts) {
                return Err(Failure::new(
                    ui::UNVERIFIED,
                    format!("{} seals other parts than these", path.display()),
                )
                .hint("remove it if it is of an earlier packaging, then seal again"));
            }
            if new.expires.is_some() && old.expires != new.expires {
                return Err(Failure::new(
                    ui::USAGE,
                    format!(
                        "{} has another time of expiry, which others have signed",
                        path.display()
                    ),
                )
                .hint("leave --expires out to sign what they signed"));
            }
            seal
        }
    };
    for key in keys {
        seal.sign(key);
    }
    replace(path, &seal.print()).map_err(|error| cannot("write the seal", path, &error))?;
    Ok(seal)
}

/// `imgbuild seal`
pub(super) fn seal(
    site: &Site,
    arguments: &SealArguments,
    stop: &AtomicBool,
) -> Result<u8, Failure> {
    let keys = secret_keys(&arguments.key)?;
    let set = open(site, &arguments.paths)?;
    if let Some(error) = set.broken().first() {
        return Err(Failure::of(ui::UNVERIFIED, error, None));
    }
    if set.archives().is_empty() {
        return Err(Failure::new(ui::ERROR, "no archive is there")
            .hint("give the folder that `imgbuild export -o` wrote to, or its parts"));
    }
    let progress = Progress::new(site.common.quiet, false, site.common.events.as_deref())?;
    let mut lines = Vec::new();
    for archive in set.archives() {
        progress.observe(Event::Phase { phase: "verify" });
        progress.observe(Event::Planned {
            blobs: 1,
            bytes: archive.parts().map(crate::archive::Part::size).sum(),
        });
        let digest = archive.archive_id();
        let passed = |bytes| progress.observe(Event::Bytes { digest, bytes });
        let options = verify::Options {
            stop: Some(stop),
            ..verify::Options::default()
        };
        let report = match verify::verify(archive, &options, &passed) {
            Ok(report) => report,
            Err(failures) => {
                progress.finish();
                return Err(unverified(&failures));
            }
        };
        let parts = report
            .parts
            .iter()
            .filter_map(|part| Some((part.name.clone(), part.size, part.sha256?)));
        let statement = statement(digest, parts, arguments.expires.as_deref())?;
        let path = seal_path(archive);
        let seal = seal_with(&path, statement, &keys)?;
        lines.push(format!(
            "{}  {} over {}",
            path.display(),
            count(seal.signatures(), "signature"),
            count(seal.statement().parts.len(), "part")
        ));
    }
    progress.finish();
    if !site.common.quiet {
        for line in lines {
            say(line);
        }
    }
    Ok(ui::DONE)
}

/// Where the seal of an archive is: beside its first part.
fn seal_path(archive: &Archive) -> PathBuf {
    let name = FileName {
        stream: archive.stream().clone(),
        sequence: archive.manifest().sequence,
        kind: FileKind::Seal,
    };
    archive
        .parts()
        .next()
        .and_then(|part| part.path().parent())
        .unwrap_or(Path::new(""))
        .join(name.to_string())
}
