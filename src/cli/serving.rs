//! `serve`: a folder as a registry, the mirror of a small site.
//!
//! ```text
//! DATA/imgbuild/registry/       what belongs to which repository
//! DATA/imgbuild/serve/
//! ├── ca.crt   ca.key           an authority of its own; clients are given ca.crt
//! ├── server.crt   server.key   the certificate, made anew when it runs out or lacks a name
//! └── htpasswd                  users, with --first-user
//! ```
//!
//! Keys and users are readable by their owner alone.

use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use super::arguments::ServeArguments;
use super::site::{Site, cannot, store_failure};
use super::ui::{self, Failure, remark, say};
use crate::config::parse_size;
use crate::deliver::emit::{Audience, replace_for};
use crate::hint::Hint;
use crate::registry::server::{Exchange, Htpasswd, Options, Repositories, Server, Tls};
use crate::store::disk::{Access, Store};

/// How long an authority lasts: longer than the hardware of a site.
const AUTHORITY_YEARS: i16 = 10;

/// How long a certificate lasts; clients refuse those above 825 days.
const CERTIFICATE_DAYS: i64 = 800;

/// A certificate that runs out within so many days is made anew when the server starts.
const RENEWAL_DAYS: i64 = 60;

/// Letters of a generated password: none that people confuse.
const LETTERS: &[u8] = b"abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789";

/// Length of a generated password: 140 bits.
const PASSWORD: usize = 24;

/// `imgbuild serve`
pub(super) fn serve(
    site: &Site,
    arguments: &ServeArguments,
    stop: &AtomicBool,
) -> Result<u8, Failure> {
    let data = match &arguments.data {
        Some(folder) => folder.clone(),
        None => site.store_path()?.with_extension("registry"),
    };
    let upload_limit = arguments
        .upload_limit
        .as_deref()
        .map(parse_size)
        .transpose()
        .map_err(|error| {
            Failure::new(ui::USAGE, error.to_string())
                .hint("write a number and a unit: 500MB, 20GiB")
        })?;
    if arguments.print_unit {
        say(unit(arguments, &data)?.trim_end());
        return Ok(ui::DONE);
    }
    let depot = Store::open(&data, Access::Shared).map_err(|error| store_failure(&error))?;
    let own = data.join("imgbuild/serve");
    let tls = tls(site, arguments, &own)?;
    let users = users(arguments, &own)?;
    if !arguments.listen.ip().is_loopback() && (tls.is_none() || users.is_none()) {
        remark("warning: this registry can be reached from outside without both TLS and users");
    }
    let repositories = Repositories::open(&data.join(super::tools::REPOSITORIES))
        .map_err(|error| Failure::of(ui::ERROR, &error, None))?;
    let verbose = site.common.verbose > 0;
    let log = Arc::new(move |exchange: &Exchange| {
        if verbose || exchange.problem.is_some() {
            let problem = exchange
                .problem
                .as_ref()
                .map_or_else(String::new, |problem| format!("  {problem}"));
            remark(format!(
                "{} {} {} {}{problem}",
                exchange.status, exchange.method, exchange.path, exchange.bytes
            ));
        }
    });
    let options = Options {
        address: arguments.listen,
        tls,
        users,
        read_only: arguments.read_only,
        upload_limit,
        spool: Some(data.join("imgbuild/tmp")),
        log: Some(log),
        ..Options::default()
    };
    let server = Server::start(options, Arc::new(depot), repositories)
        .map_err(|error| Failure::of(ui::ERROR, &error, error.hint()))?;
    if !site.common.quiet {
        say(format!("serving {} at {}", data.display(), server.url()));
    }
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(100));
    }
    server.stop();
    Ok(ui::DONE)
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|error| cannot("read", path, &error))
}

/// The certificate: the one that is given, or one of its own.
fn tls(site: &Site, arguments: &ServeArguments, own: &Path) -> Result<Option<Tls>, Failure> {
    if let (Some(certificate), Some(key)) = (&arguments.tls_cert, &arguments.tls_key) {
        return Ok(Some(Tls {
            certificate: read(certificate)?,
            key: read(key)?,
        }));
    }
    if !arguments.tls {
        return Ok(None);
    }
    fs::create_dir_all(own).map_err(|error| cannot("create", own, &error))?;
    let mut names: Vec<String> = arguments.hostname.clone();
    names.extend(["localhost".to_owned(), "127.0.0.1".to_owned()]);
    if !arguments.listen.ip().is_unspecified() {
        names.push(arguments.listen.ip().to_string());
    }
    if let Ok(name) = fs::read_to_string("/proc/sys/kernel/hostname") {
        names.push(name.trim().to_owned());
    }
    names.sort();
    names.dedup();
    names.retain(|name| !name.is_empty());
    let (certificate, key) = (own.join("server.crt"), own.join("server.key"));
    let made_for = own.join("server.names");
    let today = jiff::Timestamp::now()
        .to_zoned(jiff::tz::TimeZone::UTC)
        .date();
    let is_good = || -> Option<bool> {
        let text = fs::read_to_string(&made_for).ok()?;
        let mut lines = text.lines();
        let until: jiff::civil::Date = lines.next()?.parse().ok()?;
        let renewal = today
            .checked_add(jiff::Span::new().days(RENEWAL_DAYS))
            .ok()?;
        let covered: Vec<&str> = lines.collect();
        let covers = names.iter().all(|name| covered.contains(&name.as_str()));
        Some(until > renewal && covers && certificate.exists() && key.exists())
    };
    if !is_good().unwrap_or(false) {
        issue(own, &names, today).map_err(|error| {
            let mut failure = Failure::new(ui::ERROR, "cannot make a certificate");
            let _ = write!(failure.text, "\n  because {error}");
            failure
        })?;
    }
    if !site.common.quiet {
        say(format!(
            "clients must trust {}",
            own.join("ca.crt").display()
        ));
    }
    Ok(Some(Tls {
        certificate: read(&certificate)?,
        key: read(&key)?,
    }))
}

/// Makes a certificate for `names`, signed by an authority that the first call makes.
fn issue(
    own: &Path,
    names: &[String],
    today: jiff::civil::Date,
) -> Result<(), Box<dyn std::error::Error>> {
    let date = |date: jiff::civil::Date| -> Result<_, Box<dyn std::error::Error>> {
        let month = u8::try_from(date.month())?;
        let day = u8::try_from(date.day())?;
        Ok(rcgen::date_time_ymd(i32::from(date.year()), month, day))
    };
    let yesterday = today.checked_sub(jiff::Span::new().days(1))?;
    let (authority, authority_key) = (own.join("ca.crt"), own.join("ca.key"));
    if !authority.exists() || !authority_key.exists() {
        let key = KeyPair::generate()?;
        let mut parameters = CertificateParams::default();
        parameters
            .distinguished_name
            .push(DnType::CommonName, "imgbuild registry authority");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        parameters.not_before = date(yesterday)?;
        parameters.not_after = date(today.checked_add(jiff::Span::new().years(AUTHORITY_YEARS))?)?;
        let certificate = parameters.self_signed(&key)?;
        replace_for(
            &authority_key,
            key.serialize_pem().as_bytes(),
            Audience::Owner,
        )?;
        replace_for(&authority, certificate.pem().as_bytes(), Audience::Everyone)?;
    }
    let signer = KeyPair::from_pem(&fs::read_to_string(&authority_key)?)?;
    let mut parameters = CertificateParams::default();
    parameters
        .distinguished_name
        .push(DnType::CommonName, "imgbuild registry authority");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let issuer = Issuer::new(parameters, signer);
    let until = today.checked_add(jiff::Span::new().days(CERTIFICATE_DAYS))?;
    let key = KeyPair::generate()?;
    let mut parameters = CertificateParams::new(names.to_vec())?;
    parameters.distinguished_name.push(
        DnType::CommonName,
        names
            .iter()
            .find(|name| name.parse::<IpAddr>().is_err())
            .map_or("imgbuild registry", String::as_str),
    );
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    parameters.not_before = date(yesterday)?;
    parameters.not_after = date(until)?;
    let certificate = parameters.signed_by(&key, &issuer)?;
    replace_for(
        &own.join("server.key"),
        key.serialize_pem().as_bytes(),
        Audience::Owner,
    )?;
    replace_for(
        &own.join("server.crt"),
        certificate.pem().as_bytes(),
        Audience::Everyone,
    )?;
    let made_for = format!("{until}\n{}\n", names.join("\n"));
    replace_for(
        &own.join("server.names"),
        made_for.as_bytes(),
        Audience::Everyone,
    )?;
    Ok(())
}

/// The users: those of a file, or those of the data folder, the first of whom is made here.
fn users(arguments: &ServeArguments, own: &Path) -> Result<Option<Htpasswd>, Failure> {
    let path = match (&arguments.htpasswd, &arguments.first_user) {
        (Some(path), _) => path.clone(),
        (None, Some(name)) => first_user(name, own)?,
        (None, None) => return Ok(None),
    };
    let text = String::from_utf8_lossy(&read(&path)?).into_owned();
    text.parse::<Htpasswd>()
        .map(Some)
        .map_err(|error| Failure::of(ui::ERROR, &error, error.hint()))
}

fn first_user(name: &str, own: &Path) -> Result<PathBuf, Failure> {
    let path = own.join("htpasswd");
    if path.exists() {
        return Ok(path);
    }
    if name.is_empty() || name.contains([':', '\n', '\r']) {
        return Err(Failure::new(
            ui::USAGE,
            format!("{name:?} cannot be the name of a user"),
        ));
    }
    fs::create_dir_all(own).map_err(|error| cannot("create", own, &error))?;
    let password = password()?;
    let hash = bcrypt::hash(&password, bcrypt::DEFAULT_COST)
        .map_err(|error| Failure::of(ui::ERROR, &error, None))?;
    replace_for(
        &path,
        format!("{name}:{hash}\n").as_bytes(),
        Audience::Owner,
    )
    .map_err(|error| cannot("write", &path, &error))?;
    // Shown this once; only its hash is kept.
    say(format!("user {name}, password {password}"));
    Ok(path)
}

/// A password from the system's randomness.
fn password() -> Result<String, Failure> {
    use std::io::Read;
    let path = Path::new("/dev/urandom");
    let mut source = fs::File::open(path).map_err(|error| cannot("read", path, &error))?;
    let mut password = String::new();
    let mut byte = [0];
    // Bytes above the last whole multiple would make some letters likelier.
    let limit = 256 / LETTERS.len() * LETTERS.len();
    while password.len() < PASSWORD {
        source
            .read_exact(&mut byte)
            .map_err(|error| cannot("read", path, &error))?;
        let number = usize::from(byte[0]);
        if number < limit {
            password.push(char::from(LETTERS[number % LETTERS.len()]));
        }
    }
    Ok(password)
}

/// A systemd unit that serves with the same flags.
fn unit(arguments: &ServeArguments, data: &Path) -> Result<String, Failure> {
    let program = std::env::current_exe()
        .map_err(|error| cannot("find", Path::new("the program"), &error))?;
    let absolute = |path: &Path| {
        std::path::absolute(path)
            .unwrap_or_else(|_| path.to_owned())
            .display()
            .to_string()
    };
    let data = absolute(data);
    let mut words = vec![
        program.display().to_string(),
        "serve".to_owned(),
        "--data".to_owned(),
        data.clone(),
        "--listen".to_owned(),
        arguments.listen.to_string(),
    ];
    for (flag, is_set) in [
        ("--read-only", arguments.read_only),
        ("--tls", arguments.tls),
    ] {
        if is_set {
            words.push(flag.to_owned());
        }
    }
    for name in &arguments.hostname {
        words.extend(["--hostname".to_owned(), name.clone()]);
    }
    for (flag, path) in [
        ("--tls-cert", &arguments.tls_cert),
        ("--tls-key", &arguments.tls_key),
        ("--htpasswd", &arguments.htpasswd),
    ] {
        if let Some(path) = path {
            words.extend([flag.to_owned(), absolute(path)]);
        }
    }
    for (flag, value) in [
        ("--first-user", &arguments.first_user),
        ("--upload-limit", &arguments.upload_limit),
    ] {
        if let Some(value) = value {
            words.extend([flag.to_owned(), value.clone()]);
        }
    }
    let command: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    Ok(format!(
        "[Unit]\nDescription=imgbuild mirror registry\nAfter=network-online.target\nWants=network-online.target\n\n[Service]\nExecStart={}\nKillSignal=SIGINT\nTimeoutStopSec=30\nRestart=on-failure\nNoNewPrivileges=yes\nPrivateTmp=yes\nProtectSystem=strict\nReadWritePaths={}\n\n[Install]\nWantedBy=multi-user.target\n",
        command.join(" "),
        quoted(&data)
    ))
}

/// A word as systemd reads it (systemd.syntax(7)).
fn quoted(word: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "/.:_-,=[]".contains(letter);
    let escaped = word
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('%', "%%")
        .replace('$', "$$");
    if !word.is_empty() && word.chars().all(is_plain) {
        escaped
    } else {
        format!("\"{escaped}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_survives_systemd() {
        for (word, wanted) in [
            ("/srv/a-b", "/srv/a-b"),
            ("a b", "\"a b\""),
            ("50%", "\"50%%\""),
            ("$HOME", "\"$$HOME\""),
            ("say \"x\"\\", "\"say \\\"x\\\"\\\\\""),
            ("", "\"\""),
        ] {
            assert_eq!(quoted(word), wanted, "{word:?}");
        }
    }

    #[test]
    fn passwords_are_long_and_differ() {
        let (one, two) = (password().ok().unwrap(), password().ok().unwrap());
        assert_eq!(one.len(), PASSWORD);
        assert_ne!(one, two, "they are random");
    }
}
