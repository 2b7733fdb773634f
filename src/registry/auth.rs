//! Who we are: credentials from the files and helpers that `podman`, `docker` and `oc` keep, and the challenges
//! that registries answer with.
//!
//! A file names credentials by `host/namespace/repository`, `host/namespace` or `host`; the longest wins. Within a
//! file `credHelpers` wins over `auths`, and `auths` over `credsStore`. The first file that knows the host wins.
//! Follows containers-auth.json(5), Docker's config.json, and RFC 9110, 11.6.1 for challenges.
//!
//! A secret is never printed: [`Secret`] shows itself as `…`, and no error quotes what stood in a file.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use serde::Deserialize;

use super::conf::{AUTH_FILES, read};
use super::settings::{Environment, SettingsError};

/// What Docker's tools call Docker Hub.
const HUB_URL: &str = "https://index.docker.io/v1/";

/// The names of Docker Hub.
const HUB: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];

/// The user name by which a helper says that its secret is a refresh token.
const TOKEN_USER: &str = "<token>";

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Secret(String);

impl Secret {
    /// Hides `text`.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the one place that must send it.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("…")
    }
}

/// How we prove who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// A user and a password.
    Password {
        /// The user.
        user: String,
        /// The password.
        password: Secret,
    },
    /// A refresh token, exchanged at the token endpoint.
    Identity(Secret),
    /// A token that the registry itself takes.
    Bearer(Secret),
}

impl Login {
    /// The `Authorization` of a password.
    pub(super) fn basic(user: &str, password: &Secret) -> HeaderValue {
        sensitive(&format!(
            "Basic {}",
            STANDARD.encode(format!("{user}:{}", password.reveal()))
        ))
    }
}

/// A header value that logs and traces hide.
pub(super) fn sensitive(text: &str) -> HeaderValue {
    let mut value = HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

/// A login and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The login.
    pub login: Login,
    /// Where it came from, for messages: a file and a key in it, or a helper.
    pub origin: String,
}

/// Everything that may know a login, in the order it is asked.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    keepers: Vec<Keeper>,
    helpers: Helpers,
}

#[derive(Clone, Debug)]
enum Keeper {
    File(Arc<AuthFile>),
    Helper(String),
}

/// One credentials file, read.
#[derive(Clone, Debug)]
struct AuthFile {
    path: PathBuf,
    auths: BTreeMap<String, Entry>,
    helpers: BTreeMap<String, String>,
    store: Option<String>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<Secret>,
    username: Option<String>,
    password: Option<Secret>,
    identitytoken: Option<Secret>,
    registrytoken: Option<Secret>,
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Entry(…)")
    }
}

#[derive(Deserialize)]
struct RawFile {
    auths: Option<BTreeMap<String, Option<Entry>>>,
    #[serde(rename = "credHelpers")]
    helpers: Option<BTreeMap<String, String>>,
    #[serde(rename = "credsStore")]
    store: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    #[serde(default)]
    username: String,
    secret: Secret,
}

impl Credentials {
    /// Reads the files that `environment` leads to, or the file `given` alone. `order` is the `credential-helpers`
    /// of registries.conf.
    ///
    /// # Errors
    /// If a named file is missing, or one that is there is malformed.
    pub fn find(
        environment: &Environment,
        given: Option<&Path>,
        order: Vec<String>,
    ) -> Result<Self, SettingsError> {
        let named = given.map(Path::to_owned).or_else(|| {
            environment
                .variable("REGISTRY_AUTH_FILE")
                .map(PathBuf::from)
        });
        let mut files = Vec::new();
        if let Some(path) = named {
            let file = AuthFile::read(&path)?.ok_or_else(|| SettingsError::Read {
                path,
                source: std::io::ErrorKind::NotFound.into(),
            })?;
            files.push(Keeper::File(Arc::new(file)));
        } else {
            for path in paths(environment) {
                if let Some(file) = AuthFile::read(&path)? {
                    files.push(Keeper::File(Arc::new(file)));
                }
            }
        }
        let mut keepers = Vec::new();
        for name in order {
            if name == AUTH_FILES {
                keepers.append(&mut files);
            } else {
                keepers.push(Keeper::Helper(name));
            }
        }
        Ok(Self {
            keepers,
            helpers: Helpers {
                variables: Arc::new(environment.variables.clone()),
                answers: Arc::default(),
            },
        })
    }

    /// Whether looking up a login may run a program.
    pub(super) fn asks_programs(&self) -> bool {
        self.keepers.iter().any(|keeper| match keeper {
            Keeper::File(file) => !file.helpers.is_empty() || file.store.is_some(),
            Keeper::Helper(_) => true,
        })
    }

    /// The login for the repository `path` of `registry` (`host[:port]`).
    ///
    /// # Errors
    /// If an entry that applies is malformed, or a helper fails.
    pub fn login(&self, registry: &str, path: &str) -> Result<Option<Found>, SettingsError> {
        for keeper in &self.keepers {
            let found = match keeper {
                Keeper::File(file) => file.login(registry, path, &self.helpers)?,
                Keeper::Helper(name) => self.helpers.ask(name, server(registry))?,
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }
}

/// Where credentials are kept, most trusted first.
fn paths(environment: &Environment) -> Vec<PathBuf> {
    let runtime = environment
        .variable("XDG_RUNTIME_DIR")
        .map(|folder| Path::new(folder).join("containers/auth.json"))
        .or_else(|| {
            environment
                .uid
                .map(|uid| environment.system(&format!("run/containers/{uid}/auth.json")))
        });
    let podman = runtime.into_iter().chain(
        environment
            .config_home()
            .map(|folder| folder.join("containers/auth.json")),
    );
    let config = environment
        .variable("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| environment.home().map(|home| home.join(".docker")))
        .map(|folder| folder.join("config.json"));
    let docker = config
        .into_iter()
        .chain(environment.home().map(|home| home.join(".dockercfg")));
    if environment.variable("REGISTRY_AUTH_PREFERENCE") == Some("docker") {
        docker.chain(podman).collect()
    } else {
        podman.chain(docker).collect()
    }
}

impl AuthFile {
    fn read(path: &Path) -> Result<Option<Self>, SettingsError> {
        read(path)?.map(|text| Self::parse(&text, path)).transpose()
    }

    fn parse(text: &str, path: &Path) -> Result<Self, SettingsError> {
        // The reason of serde may quote what it found, and what it found may be a password.
        let wrong = |error: &serde_json::Error, expected: &str| SettingsError::Conf {
            path: path.to_owned(),
            line: error.line().max(1),
            reason: match error.classify() {
                serde_json::error::Category::Data => {
                    format!("column {}: expected {expected}", error.column())
                }
                _ => format!("column {}: malformed JSON", error.column()),
            },
        };
        let mut file = Self {
            path: path.to_owned(),
            auths: BTreeMap::new(),
            helpers: BTreeMap::new(),
            store: None,
        };
        if text.trim().is_empty() {
            return Ok(file);
        }
        let entries = if path.file_name().is_some_and(|name| name == ".dockercfg") {
            serde_json::from_str::<BTreeMap<String, Option<Entry>>>(text)
                .map_err(|error| wrong(&error, "entries by host"))?
        } else {
            let raw: RawFile = serde_json::from_str(text)
                .map_err(|error| wrong(&error, "\"auths\" with entries by host"))?;
            file.helpers = raw.helpers.unwrap_or_default();
            file.store = raw.store.filter(|store| !store.is_empty());
            raw.auths.unwrap_or_default()
        };
        file.auths = entries
            .into_iter()
            .filter_map(|(key, entry)| Some((key, entry?)))
            .filter(|(_, entry)| !entry.is_empty())
            .collect();
        Ok(file)
    }

    fn login(
        &self,
        registry: &str,
        path: &str,
        helpers: &Helpers,
    ) -> Result<Option<Found>, SettingsError> {
        let names = names(registry);
        for (key, helper) in &self.helpers {
            if names.contains(&key.as_str()) || names.contains(&host_of(key)) {
                return helpers.ask(helper, key);
            }
        }
        let mut rest = Some(path);
        while let Some(namespace) = rest {
            for name in &names {
                if let Some((key, entry)) = self.auths.get_key_value(&format!("{name}/{namespace}"))
                {
                    return self.found(key, entry).map(Some);
                }
            }
            rest = namespace.rsplit_once('/').map(|(parent, _)| parent);
        }
        for name in &names {
            if let Some((key, entry)) = self.auths.get_key_value(*name) {
                return self.found(key, entry).map(Some);
            }
        }
        for (key, entry) in &self.auths {
            if is_legacy(key) && names.contains(&host_of(key)) {
                return self.found(key, entry).map(Some);
            }
        }
        match &self.store {
            Some(store) => helpers.ask(store, server(registry)),
            None => Ok(None),
        }
    }

    fn found(&self, key: &str, entry: &Entry) -> Result<Found, SettingsError> {
        let wrong = |reason| SettingsError::Credential {
            path: self.path.clone(),
            key: key.to_owned(),
            reason,
        };
        let filled =
            |secret: &Option<Secret>| secret.clone().filter(|secret| !secret.reveal().is_empty());
        let login = if let Some(token) = filled(&entry.identitytoken) {
            Login::Identity(token)
        } else if let Some(token) = filled(&entry.registrytoken) {
            Login::Bearer(token)
        } else if let Some(auth) = filled(&entry.auth) {
            let bytes = STANDARD
                .decode(auth.reveal().trim())
                .map_err(|_| wrong("is not base64"))?;
            let text =
                String::from_utf8(bytes).map_err(|_| wrong("does not decode to UTF-8 text"))?;
            let (user, password) = text
                .split_once(':')
                .ok_or_else(|| wrong("does not decode to user:password"))?;
            Login::Password {
                user: user.to_owned(),
                password: Secret::new(password.trim_end_matches('\0')),
            }
        } else {
            Login::Password {
                user: entry.username.clone().unwrap_or_default(),
                password: entry
                    .password
                    .clone()
                    .ok_or_else(|| wrong("has a user but no password"))?,
            }
        };
        Ok(Found {
            login,
            origin: format!("{} (entry {key:?})", self.path.display()),
        })
    }
}

impl Entry {
    fn is_empty(&self) -> bool {
        let none = |secret: &Option<Secret>| {
            secret
                .as_ref()
                .is_none_or(|secret| secret.reveal().is_empty())
        };
        none(&self.auth)
            && none(&self.identitytoken)
            && none(&self.registrytoken)
            && self.username.as_ref().is_none_or(String::is_empty)
            && none(&self.password)
    }
}

/// The names under which a registry may be filed.
fn names(registry: &str) -> Vec<&str> {
    if HUB.contains(&registry) {
        HUB.to_vec()
    } else {
        vec![registry]
    }
}

/// What a helper is asked for.
fn server(registry: &str) -> &str {
    if HUB.contains(&registry) {
        HUB_URL
    } else {
        registry
    }
}

/// The host of a key as Docker used to write it: with a scheme, or with `/v1/` or `/v2/` behind it.
fn host_of(key: &str) -> &str {
    let bare = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(key);
    bare.split('/').next().unwrap_or_default()
}

fn is_legacy(key: &str) -> bool {
    let bare = key.trim_end_matches('/');
    key.contains("://")
        || bare
            .strip_suffix("/v1")
            .or_else(|| bare.strip_suffix("/v2"))
            == Some(host_of(key))
        || bare == host_of(key)
}

/// What a helper said, by its name and the server it was asked for.
type Answers = BTreeMap<(String, String), Option<Found>>;

/// Programs `docker-credential-<name>`, each asked once per server.
#[derive(Clone, Default)]
struct Helpers {
    variables: Arc<BTreeMap<String, String>>,
    answers: Arc<Mutex<Answers>>,
}

impl fmt::Debug for Helpers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Helpers")
    }
}

impl Helpers {
    fn ask(&self, name: &str, server: &str) -> Result<Option<Found>, SettingsError> {
        let key = (name.to_owned(), server.to_owned());
        // Held while the program runs, so that many workers ask once.
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = answers.get(&key) {
            return Ok(answer.clone());
        }
        let answer = self.run(name, server)?;
        answers.insert(key, answer.clone());
        Ok(answer)
    }

    fn run(&self, name: &str, server: &str) -> Result<Option<Found>, SettingsError> {
        let program = format!("docker-credential-{name}");
        let failed = |message: String| SettingsError::Helper {
            program: program.clone(),
            server: server.to_owned(),
            message,
        };
        if name.is_empty() || name.contains('/') {
            return Err(failed("this is not the name of a helper".to_owned()));
        }
        let path = self
            .variables
            .get("PATH")
            .map(String::as_str)
            .unwrap_or_default()
            .split(':')
            .filter(|folder| !folder.is_empty())
            .map(|folder| Path::new(folder).join(&program))
            .find(|path| path.is_file())
            .ok_or_else(|| failed("it is not on $PATH".to_owned()))?;
        let mut child = Command::new(path)
            .arg("get")
            .env_clear()
            .envs(self.variables.iter())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        if let Some(mut input) = child.stdin.take() {
            // A helper that does not read its input says so by its exit.
            let _ = input.write_all(server.as_bytes());
        }
        let output = child
            .wait_with_output()
            .map_err(|error| failed(error.to_string()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stdout);
            let said = said.trim();
            if said.contains("credentials not found") || said.contains("no credentials") {
                return Ok(None);
            }
            return Err(failed(format!(
                "{}: {}",
                output.status,
                said.chars().take(200).collect::<String>()
            )));
        }
        let answer: HelperAnswer = serde_json::from_slice(&output.stdout)
            .map_err(|_| failed("it did not answer with Username and Secret".to_owned()))?;
        if answer.username.is_empty() && answer.secret.reveal().is_empty() {
            return Ok(None);
        }
        let login = if answer.username == TOKEN_USER {
            Login::Identity(answer.secret)
        } else {
            Login::Password {
                user: answer.username,
                password: answer.secret,
            }
        };
        Ok(Some(Found {
            login,
            origin: format!("{program} (for {server:?})"),
        }))
    }
}

/// What a registry asks for when it answers 401.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// A user and a password with every request.
    Basic,
    /// A token from elsewhere.
    Bearer {
        /// Where tokens are given out.
        realm: String,
        /// For whom.
        service: Option<String>,
        /// What the registry thinks is needed.
        scope: Option<String>,
    },
}

impl Challenge {
    /// The best challenge that `headers` offer: a token before a password.
    #[must_use]
    pub fn parse(headers: &HeaderMap) -> Option<Self> {
        let offered: Vec<Self> = headers
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(challenges)
            .collect();
        offered
            .iter()
            .find(|challenge| matches!(challenge, Self::Bearer { .. }))
            .or_else(|| offered.first())
            .cloned()
    }
}

/// The challenges in one header: `scheme key="value", key=value, scheme …`.
fn challenges(text: &str) -> Vec<Challenge> {
    let mut found: Vec<(String, BTreeMap<String, String>)> = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([',', ' ', '\t']);
        if rest.is_empty() {
            break;
        }
        let end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        let word = rest[..end].to_ascii_lowercase();
        let after = rest[end..].trim_start_matches([' ', '\t']);
        if let Some(value) = after.strip_prefix('=') {
            let (value, left) = parameter(value.trim_start_matches([' ', '\t']));
            if let Some((_, parameters)) = found.last_mut() {
                parameters.entry(word).or_insert(value);
            }
            rest = left;
        } else {
            if !word.is_empty() {
                found.push((word, BTreeMap::new()));
            } else if after.len() == rest.len() {
                break;
            }
            rest = after;
        }
    }
    found
        .into_iter()
        .filter_map(|(scheme, mut parameters)| match scheme.as_str() {
            "basic" => Some(Challenge::Basic),
            "bearer" => Some(Challenge::Bearer {
                realm: parameters.remove("realm")?,
                service: parameters.remove("service"),
                scope: parameters.remove("scope"),
            }),
            _ => None,
        })
        .collect()
}

/// One value, quoted or not, and what follows it.
fn parameter(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;

    fn file(text: &str) -> AuthFile {
        AuthFile::parse(text, Path::new("auth.json")).unwrap()
    }

    fn user(file: &AuthFile, registry: &str, path: &str) -> Option<String> {
        file.login(registry, path, &Helpers::default())
            .unwrap()
            .map(|found| match found.login {
                Login::Password { user, password } => format!("{user}:{}", password.reveal()),
                Login::Identity(token) => format!("identity {}", token.reveal()),
                Login::Bearer(token) => format!("bearer {}", token.reveal()),
            })
    }

    fn entry(login: &str) -> String {
        format!(r#"{{"auth":"{}"}}"#, STANDARD.encode(login))
    }

    #[test]
    fn the_longest_key_of_a_file_wins() {
        let file = file(&format!(
            r#"{{"auths":{{
                "a.test":{},"a.test/ns":{},"a.test/ns/deep/image":{},
                "b.test:5000":{},"https://c.test/v2/":{},"d.test/v1":{},
                "https://index.docker.io/v1/":{},"e.test":{{}},
                "f.test":{{"username":"u","password":"p"}},
                "g.test":{{"auth":"","identitytoken":"refresh"}},
                "h.test":{{"registrytoken":"token"}},
                "i.test/ns":{},"j.test":null}},"other":[1]}}"#,
            entry("host:1"),
            entry("ns:2"),
            entry("image:3:4"),
            entry("port:5"),
            entry("scheme:6"),
            entry("v1:7"),
            entry("hub:8"),
            entry("only:9\0"),
        ));
        for (registry, path, expected) in [
            ("a.test", "x", Some("host:1")),
            ("a.test", "ns", Some("ns:2")),
            ("a.test", "ns/deep", Some("ns:2")),
            ("a.test", "ns/deep/image", Some("image:3:4")),
            ("a.test", "nsx/deep", Some("host:1")),
            ("b.test:5000", "x", Some("port:5")),
            ("b.test", "x", None),
            ("c.test", "x/y", Some("scheme:6")),
            ("d.test", "x/y", Some("v1:7")),
            ("docker.io", "library/alpine", Some("hub:8")),
            ("e.test", "x", None),
            ("f.test", "x", Some("u:p")),
            ("g.test", "x", Some("identity refresh")),
            ("h.test", "x", Some("bearer token")),
            ("i.test", "ns/x", Some("only:9")),
            ("i.test", "x", None),
            ("j.test", "x", None),
        ] {
            assert_eq!(
                user(&file, registry, path).as_deref(),
                expected,
                "login for {registry}/{path}"
            );
        }
    }

    #[test]
    fn files_are_asked_in_order_and_the_preference_turns_it() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, login: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let text = if path.ends_with(".dockercfg") {
                format!(r#"{{"a.test":{}}}"#, entry(login))
            } else {
                format!(r#"{{"auths":{{"a.test":{}}}}}"#, entry(login))
            };
            fs::write(path, text).unwrap();
        };
        let mut environment = Environment {
            home: Some(folder.path().join("home")),
            uid: Some(7),
            root: folder.path().to_owned(),
            ..Environment::default()
        };
        let asked = |environment: &Environment| {
            Credentials::find(environment, None, vec![AUTH_FILES.to_owned()])
                .unwrap()
                .login("a.test", "x")
                .unwrap()
                .map(|found| match found.login {
                    Login::Password { user, .. } => user,
                    other => panic!("{other:?}"),
                })
        };
        assert_eq!(asked(&environment), None, "no file is no login");
        for (path, name) in [
            ("home/.dockercfg", "old"),
            ("home/.docker/config.json", "docker"),
            ("home/.config/containers/auth.json", "config"),
            ("run/containers/7/auth.json", "run"),
        ] {
            write(path, &format!("{name}:x"));
            assert_eq!(
                asked(&environment).as_deref(),
                Some(name),
                "{path} comes first"
            );
        }
        let mut set = |name: &str, value: String| {
            environment.variables.insert(name.to_owned(), value);
        };
        set("REGISTRY_AUTH_PREFERENCE", "docker".to_owned());
        assert_eq!(
            asked(&environment).as_deref(),
            Some("docker"),
            "the preference turns it"
        );
        let mut set = |name: &str, value: String| {
            environment.variables.insert(name.to_owned(), value);
        };
        write("given.json", "given:x");
        set(
            "REGISTRY_AUTH_FILE",
            folder.path().join("given.json").display().to_string(),
        );
        assert_eq!(
            asked(&environment).as_deref(),
            Some("given"),
            "a named file stands alone"
        );
        let error = Credentials::find(
            &environment,
            Some(&folder.path().join("missing.json")),
            vec![AUTH_FILES.to_owned()],
        )
        .unwrap_err();
        assert!(
            error.to_string().contains("missing.json"),
            "{error} must name the file"
        );
    }

    #[test]
    fn a_malformed_entry_is_named_and_never_quoted() {
        let error =
            AuthFile::parse("{\"auths\":\n\"hunter2\"}", Path::new("auth.json")).unwrap_err();
        assert!(
            error.to_string().starts_with("auth.json:2:") && !error.to_string().contains("hunter2"),
            "{error}"
        );
        for (entry, part) in [
            (r#"{"auth":"hunter2!"}"#, "base64"),
            (r#"{"auth":"aHVudGVyMg=="}"#, "user:password"),
            (r#"{"username":"hunter2"}"#, "no password"),
        ] {
            let file = file(&format!(r#"{{"auths":{{"a.test":{entry}}}}}"#));
            let error = file.login("a.test", "x", &Helpers::default()).unwrap_err();
            assert!(
                error.to_string().contains(part)
                    && error.to_string().contains("a.test")
                    && !error.to_string().contains("hunter2"),
                "{error}"
            );
            assert!(
                !format!("{file:?}").contains("hunter2"),
                "nothing shows a secret"
            );
        }
    }

    #[test]
    fn helpers_are_asked_once_and_may_know_nothing() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("docker-credential-test");
        let log = folder.path().join("log");
        fs::write(
            &program,
            format!(
                "#!/bin/sh\nread server\necho \"$1 $server\" >> {}\ncase \"$server\" in\nnone.test) echo 'credentials not found in native keychain'; exit 1;;\nbroken.test) echo locked; exit 2;;\ntoken.test) echo '{{\"ServerURL\":\"x\",\"Username\":\"<token>\",\"Secret\":\"t\"}}';;\n*) echo '{{\"ServerURL\":\"x\",\"Username\":\"u\",\"Secret\":\"s\"}}';;\nesac\n",
                log.display()
            ),
        )
        .unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let auth = folder.path().join("auth.json");
        fs::write(
            &auth,
            r#"{"auths":{"a.test":{}},"credHelpers":{"a.test":"test","none.test":"test","broken.test":"test","token.test":"test","gone.test":"missing"},"credsStore":"test"}"#,
        )
        .unwrap();
        let environment = Environment {
            variables: [(
                "PATH".to_owned(),
                format!("{}:/usr/bin:/bin", folder.path().display()),
            )]
            .into(),
            ..Environment::default()
        };
        let credentials =
            Credentials::find(&environment, Some(&auth), vec![AUTH_FILES.to_owned()]).unwrap();
        for _ in 0..3 {
            let found = credentials.login("a.test", "x").unwrap().unwrap();
            assert!(
                matches!(&found.login, Login::Password { user, .. } if user == "u"),
                "{found:?}"
            );
            assert!(found.origin.contains("docker-credential-test"), "{found:?}");
        }
        assert_eq!(
            credentials.login("none.test", "x").unwrap(),
            None,
            "unknown is absent"
        );
        assert!(
            matches!(
                credentials.login("token.test", "x").unwrap().unwrap().login,
                Login::Identity(_)
            ),
            "<token> is a refresh token"
        );
        let error = credentials
            .login("broken.test", "x")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("locked"),
            "{error} must say what the helper said"
        );
        let error = credentials.login("gone.test", "x").unwrap_err().to_string();
        assert!(error.contains("not on $PATH"), "{error}");
        credentials
            .login("docker.io", "library/x")
            .unwrap()
            .unwrap();
        assert_eq!(
            fs::read_to_string(&log).unwrap(),
            "get a.test\nget none.test\nget token.test\nget broken.test\nget https://index.docker.io/v1/\n",
            "each server is asked for once"
        );
    }

    #[test]
    fn challenges_are_read_in_every_form() {
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| {
            Some(Challenge::Bearer {
                realm: realm.to_owned(),
                service: service.map(str::to_owned),
                scope: scope.map(str::to_owned),
            })
        };
        for (values, expected) in [
            (
                vec![
                    r#"Bearer realm="https://a.test/token",service="a.test",scope="repository:x:pull,push""#,
                ],
                bearer(
                    "https://a.test/token",
                    Some("a.test"),
                    Some("repository:x:pull,push"),
                ),
            ),
            (
                vec![r#"bearer  REALM = "https://a.test/token" , service=a.test"#],
                bearer("https://a.test/token", Some("a.test"), None),
            ),
            (
                vec![r#"Basic realm="a", Bearer realm="https://a.test/t\"q""#],
                bearer("https://a.test/t\"q", None, None),
            ),
            (
                vec!["Negotiate", r#"Basic realm="a, b""#],
                Some(Challenge::Basic),
            ),
            (vec!["Basic"], Some(Challenge::Basic)),
            (vec!["Bearer service=x"], None),
            (vec!["Digest realm=x"], None),
            (vec![""], None),
            (vec!["=,=,\""], None),
        ] {
            let mut headers = HeaderMap::new();
            for value in &values {
                headers.append(WWW_AUTHENTICATE, value.parse().unwrap());
            }
            assert_eq!(Challenge::parse(&headers), expected, "{values:?}");
        }
    }

    proptest! {
        #[test]
        fn any_challenge_is_read_without_harm(text in "[ -~]{0,80}") {
            let _ = challenges(&text);
        }

        #[test]
        fn a_quoted_parameter_survives_printing(value in "[ -~]{0,40}") {
            let printed = format!("Bearer realm=\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""));
            prop_assert_eq!(
                challenges(&printed),
                vec![Challenge::Bearer { realm: value, service: None, scope: None }]
            );
        }
    }
}
