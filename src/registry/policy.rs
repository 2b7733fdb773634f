//! What the container tools are told to believe: `policy.json` and `registries.d`.
//!
//! | file | manual | read of it |
//! |---|---|---|
//! | `policy.json` | containers-policy.json(5) | `default`, and the scopes of the transport `docker` |
//! | `registries.d/*.yaml` | containers-registries.d(5) | `default-docker` and `docker`: `lookaside` (and `sigstore`, its old name), `use-sigstore-attachments` |
//!
//! Of all scopes the most precise one decides, alone ([`candidates`]). Requirements that cannot be judged here
//! (keyless signatures: `fulcio`, `pki`) are an error that names them, never a pass.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::conf::listing;
use super::settings::{Environment, SettingsError};
use crate::digest::Digest;
use crate::hint::Hint;
use crate::reference::{Reference, Repository};

/// Why these files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyFileError {
    /// A file cannot be read.
    #[error("{} cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no policy in any of the places.
    #[error("there is no policy.json at {}", places.join(" or "))]
    None {
        /// Where it was looked for.
        places: Vec<String>,
    },
    /// A policy is not as the manual says.
    #[error("{} is no signature policy", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where it fails.
        source: serde_json::Error,
    },
    /// A requirement cannot be judged.
    #[error("{}: scope {scope:?}: {reason}", path.display())]
    Requirement {
        /// The file.
        path: PathBuf,
        /// The scope; empty for the default.
        scope: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file of registries.d is not as the manual says.
    #[error("{}: {reason}", path.display())]
    Yaml {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A folder cannot be listed.
    #[error("registries.d cannot be listed")]
    Folder(#[source] SettingsError),
}

impl Hint for PolicyFileError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::None { .. } => Some("write one, or name it: containers-policy = \"FILE\"".to_owned()),
            Self::Requirement { .. } => Some(
                "signatures by keys are verified here: signedBy with GPGKeys, sigstoreSigned with keyPath or keyData"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

/// Which name a signature must be of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Identity {
    /// The very name that was asked for.
    Exact,
    /// The same, or where a digest was asked for the repository.
    RepositoryDigestOrExact,
    /// The repository.
    Repository,
    /// This name, whatever was asked for.
    ExactReference(String),
    /// This repository, whatever was asked for.
    ExactRepository(String),
    /// As [`Self::RepositoryDigestOrExact`], with what starts with `prefix` signed under `signed`.
    Remap {
        /// What the names here start with.
        prefix: String,
        /// What stands there in signatures.
        signed: String,
    },
}

impl Identity {
    /// As a lock writes it: its `type` in policy.json, with what it names behind colons.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Exact => "matchExact".to_owned(),
            Self::RepositoryDigestOrExact => "matchRepoDigestOrExact".to_owned(),
            Self::Repository => "matchRepository".to_owned(),
            Self::ExactReference(name) => format!("exactReference {name}"),
            Self::ExactRepository(name) => format!("exactRepository {name}"),
            Self::Remap { prefix, signed } => format!("remapIdentity {prefix} {signed}"),
        }
    }

    /// Reads what [`Identity::text`] writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split(' ').collect();
        Some(match words[..] {
            ["matchExact"] => Self::Exact,
            ["matchRepoDigestOrExact"] => Self::RepositoryDigestOrExact,
            ["matchRepository"] => Self::Repository,
            ["exactReference", name] => Self::ExactReference(name.to_owned()),
            ["exactRepository", name] => Self::ExactRepository(name.to_owned()),
            ["remapIdentity", prefix, signed] => Self::Remap {
                prefix: prefix.to_owned(),
                signed: signed.to_owned(),
            },
            _ => return None,
        })
    }

    /// Whether a signature of `signed` counts for what was asked for as `repository`, by a tag or else by digest.
    #[must_use]
    pub fn accepts(&self, signed: &str, repository: &Repository, tag: Option<&str>) -> bool {
        let Some((name, signed_tag)) = split(signed) else {
            return false;
        };
        let own = repository.to_string();
        let whole = |name: &str, signed_tag: Option<&str>, own: &str| {
            name == own && tag.is_some() && signed_tag == tag
        };
        let lenient = |own: &str| match tag {
            Some(_) => whole(&name, signed_tag.as_deref(), own),
            None => name == own,
        };
        match self {
            Self::Exact => whole(&name, signed_tag.as_deref(), &own),
            Self::RepositoryDigestOrExact => lenient(&own),
            Self::Repository => name == own,
            Self::ExactReference(wanted) => split(wanted) == Some((name, signed_tag)),
            Self::ExactRepository(wanted) => {
                split(wanted).is_some_and(|(wanted, _)| wanted == name)
            }
            Self::Remap { prefix, signed } => match own.strip_prefix(prefix.as_str()) {
                Some(rest) if rest.is_empty() || rest.starts_with('/') => {
                    lenient(&format!("{signed}{rest}"))
                }
                _ => lenient(&own),
            },
        }
    }
}

/// A name in full, and its tag.
fn split(name: &str) -> Option<(String, Option<String>)> {
    let name = match name.strip_prefix("index.docker.io/") {
        Some(rest) => format!("docker.io/{rest}"),
        None => name.to_owned(),
    };
    // A signature may be of a repository, and a reference has a tag or a digest.
    let Ok(reference) = name.parse::<Reference>() else {
        return Some((name.parse::<Repository>().ok()?.to_string(), None));
    };
    Some((
        reference.repository.to_string(),
        reference.tag.map(|tag| tag.to_string()),
    ))
}

/// A file of keys, or its content where the policy has it inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keys {
    /// A file.
    File(PathBuf),
    /// What would be in it.
    Inline(Vec<u8>),
}

/// What an image must fulfil.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// Nothing.
    Accept,
    /// What nothing fulfils.
    Reject,
    /// A GPG signature from the lookaside.
    SignedBy {
        /// Whose.
        keys: Vec<Keys>,
        /// Of what.
        identity: Identity,
    },
    /// A signature by cosign, beside the image.
    Sigstore {
        /// Whose.
        keys: Vec<Keys>,
        /// Of what.
        identity: Identity,
    },
}

/// The requirements of `policy.json`, by scope; the default is the scope "".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SignaturePolicy {
    /// All of a scope must be fulfilled.
    pub scopes: BTreeMap<String, Vec<Requirement>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    default: Vec<Entry>,
    #[serde(default)]
    transports: BTreeMap<String, BTreeMap<String, Vec<Entry>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    key_type: Option<String>,
    key_path: Option<PathBuf>,
    #[serde(default)]
    key_paths: Vec<PathBuf>,
    key_data: Option<String>,
    #[serde(default)]
    key_datas: Vec<String>,
    signed_identity: Option<SignedIdentity>,
    #[serde(flatten)]
    other: BTreeMap<String, serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SignedIdentity {
    #[serde(rename = "type")]
    kind: String,
    docker_reference: Option<String>,
    docker_repository: Option<String>,
    prefix: Option<String>,
    signed_prefix: Option<String>,
}

impl SignedIdentity {
    fn read(self) -> Result<Identity, String> {
        let given = |value: Option<String>, name: &str| {
            value
                .filter(|value| !value.is_empty() && !value.contains(' '))
                .ok_or_else(|| format!("signedIdentity of that type needs {name}"))
        };
        Ok(match self.kind.as_str() {
            "matchExact" => Identity::Exact,
            "matchRepoDigestOrExact" => Identity::RepositoryDigestOrExact,
            "matchRepository" => Identity::Repository,
            "exactReference" => {
                Identity::ExactReference(given(self.docker_reference, "dockerReference")?)
            }
            "exactRepository" => {
                Identity::ExactRepository(given(self.docker_repository, "dockerRepository")?)
            }
            "remapIdentity" => Identity::Remap {
                prefix: given(self.prefix, "prefix")?,
                signed: given(self.signed_prefix, "signedPrefix")?,
            },
            other => return Err(format!("there is no signedIdentity of type {other:?}")),
        })
    }
}

impl Entry {
    fn read(self) -> Result<Requirement, String> {
        if let Some(name) = self.other.keys().next() {
            return Err(format!(
                "{} has {name:?}, which is not judged here",
                self.kind
            ));
        }
        let mut keys: Vec<Keys> = self
            .key_path
            .into_iter()
            .chain(self.key_paths)
            .map(Keys::File)
            .collect();
        for data in self.key_data.into_iter().chain(self.key_datas) {
            let bytes = STANDARD
                .decode(data.split_ascii_whitespace().collect::<String>())
                .map_err(|_| "its keyData is not base64".to_owned())?;
            keys.push(Keys::Inline(bytes));
        }
        let identity = match self.signed_identity {
            None => Identity::RepositoryDigestOrExact,
            Some(identity) => identity.read()?,
        };
        let needs_keys = |keys: Vec<Keys>| {
            if keys.is_empty() {
                Err(format!("{} names no key", self.kind))
            } else {
                Ok(keys)
            }
        };
        match self.kind.as_str() {
            "insecureAcceptAnything" => Ok(Requirement::Accept),
            "reject" => Ok(Requirement::Reject),
            "signedBy" => match self.key_type.as_deref() {
                Some("GPGKeys") => Ok(Requirement::SignedBy {
                    keys: needs_keys(keys)?,
                    identity,
                }),
                other => Err(format!(
                    "signedBy with keyType {:?} is not judged here",
                    other.unwrap_or_default()
                )),
            },
            "sigstoreSigned" => Ok(Requirement::Sigstore {
                keys: needs_keys(keys)?,
                identity,
            }),
            other => Err(format!("there is no requirement of type {other:?}")),
        }
    }
}

impl SignaturePolicy {
    /// Reads the file at `path`, or where nothing is given the one of the user, else the one of the system.
    ///
    /// # Errors
    /// If there is none, it is malformed, or a requirement in it cannot be judged.
    pub fn find(environment: &Environment, path: Option<&Path>) -> Result<Self, PolicyFileError> {
        let places: Vec<PathBuf> = match path {
            Some(path) => vec![path.to_owned()],
            None => environment
                .config_home()
                .map(|folder| folder.join("containers/policy.json"))
                .into_iter()
                .chain([environment.system("etc/containers/policy.json")])
                .collect(),
        };
        for path in &places {
            match fs::read(path) {
                Ok(bytes) => return Self::parse(path, &bytes),
                Err(source) if source.kind() == io::ErrorKind::NotFound => {}
                Err(source) => {
                    let path = path.clone();
                    return Err(PolicyFileError::Read { path, source });
                }
            }
        }
        Err(PolicyFileError::None {
            places: places
                .iter()
                .map(|path| path.display().to_string())
                .collect(),
        })
    }

    /// Reads a policy; `path` is for errors.
    ///
    /// # Errors
    /// If it is malformed, or a requirement in it cannot be judged.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self, PolicyFileError> {
        let file: File = serde_json::from_slice(bytes).map_err(|source| PolicyFileError::Json {
            path: path.to_owned(),
            source,
        })?;
        let mut scopes: BTreeMap<String, Vec<Entry>> = file
            .transports
            .into_iter()
            .filter(|(transport, _)| transport == "docker")
            .flat_map(|(_, scopes)| scopes)
            .collect();
        // A transport may have a default of its own.
        scopes.entry(String::new()).or_insert(file.default);
        let mut policy = Self::default();
        for (scope, entries) in scopes {
            let wrong = |reason: String| PolicyFileError::Requirement {
                path: path.to_owned(),
                scope: scope.clone(),
                reason,
            };
            if entries.is_empty() {
                return Err(wrong("it has no requirement, and one is needed".to_owned()));
            }
            let requirements = entries
                .into_iter()
                .map(Entry::read)
                .collect::<Result<_, _>>()
                .map_err(wrong)?;
            policy.scopes.insert(scope, requirements);
        }
        Ok(policy)
    }
}

/// Where signatures of a scope are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Lookaside {
    #[serde(rename = "lookaside")]
    base: Option<String>,
    sigstore: Option<String>,
    /// Whether signatures lie beside the images.
    pub use_sigstore_attachments: Option<bool>,
}

impl Lookaside {
    /// The URL or folder below which GPG signatures lie.
    #[must_use]
    pub fn url(&self) -> Option<&str> {
        self.base.as_deref().or(self.sigstore.as_deref())
    }
}

/// `registries.d`: where signatures are, by scope; the default is the scope "".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lookasides {
    scopes: BTreeMap<String, Lookaside>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct Sections {
    default_docker: Option<Lookaside>,
    docker: BTreeMap<String, Lookaside>,
}

impl Lookasides {
    /// Reads the folder `path`, or where nothing is given the one of the user if there is one, else the one of the
    /// system. A folder that is not there has nothing in it.
    ///
    /// # Errors
    /// If a file is malformed, or two of them have the same scope.
    pub fn find(environment: &Environment, path: Option<&Path>) -> Result<Self, PolicyFileError> {
        let own = environment
            .config_home()
            .map(|folder| folder.join("containers/registries.d"))
            .filter(|folder| folder.is_dir());
        let folder = path
            .map(Path::to_owned)
            .or(own)
            .unwrap_or_else(|| environment.system("etc/containers/registries.d"));
        let mut found = Self::default();
        for path in listing(&folder).map_err(PolicyFileError::Folder)? {
            if path.extension().is_none_or(|extension| extension != "yaml") || !path.is_file() {
                continue;
            }
            let wrong = |reason: String| PolicyFileError::Yaml {
                path: path.clone(),
                reason,
            };
            let text = fs::read_to_string(&path).map_err(|source| PolicyFileError::Read {
                path: path.clone(),
                source,
            })?;
            if text.trim().is_empty() {
                continue;
            }
            let sections: Sections = serde_saphyr::from_str(&text)
                .map_err(|error| wrong(error.to_string().replace('\n', " ")))?;
            let scopes = sections
                .default_docker
                .map(|default| (String::new(), default))
                .into_iter()
                .chain(sections.docker);
            for (scope, lookaside) in scopes {
                if found.scopes.insert(scope.clone(), lookaside).is_some() {
                    return Err(wrong(format!("scope {scope:?} is in another file as well")));
                }
            }
        }
        Ok(found)
    }

    /// The scopes that something is said of.
    pub fn scopes(&self) -> impl Iterator<Item = &str> {
        self.scopes.keys().map(String::as_str)
    }

    /// Where the signatures of a scope are: as of the repository, the namespace or the registry that it names.
    #[must_use]
    pub fn of_scope(&self, scope: &str) -> Lookaside {
        above(scope)
            .iter()
            .find_map(|scope| self.scopes.get(scope))
            .cloned()
            .unwrap_or_default()
    }
}

/// The scopes that an image is in, the most precise first: the name with its tag, the repository, the namespaces above
/// it, the registry, `*.` before the domains above that, and "" for everything.
#[must_use]
pub fn candidates(repository: &Repository, tag: Option<&str>) -> Vec<String> {
    let name = repository.to_string();
    let mut scopes: Vec<String> = tag.map(|tag| format!("{name}:{tag}")).into_iter().collect();
    scopes.extend(above(&name));
    scopes
}

/// A scope and those above it, ending in "".
#[must_use]
pub fn above(scope: &str) -> Vec<String> {
    let mut rest = scope.strip_prefix("*.").unwrap_or(scope);
    let mut scopes = vec![scope.to_owned()];
    while let Some((above, _)) = rest.rsplit_once('/') {
        scopes.push(above.to_owned());
        rest = above;
    }
    while let Some((_, domain)) = rest.split_once('.') {
        scopes.push(format!("*.{domain}"));
        rest = domain;
    }
    if !scope.is_empty() {
        scopes.push(String::new());
    }
    scopes
}

/// Where the signature `number` (from 1) of an image lies below a lookaside.
#[must_use]
pub fn lookaside_path(base: &str, repository: &Repository, digest: &Digest, number: u32) -> String {
    format!(
        "{}/{}@sha256={}/signature-{number}",
        base.trim_end_matches('/'),
        repository.path(),
        digest.hex()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn repository(text: &str) -> Repository {
        text.parse().unwrap()
    }

    #[test]
    fn the_scopes_of_an_image_go_from_the_name_to_everything() {
        assert_eq!(
            candidates(&repository("a.b.test:5000/x/y"), Some("v1")),
            [
                "a.b.test:5000/x/y:v1",
                "a.b.test:5000/x/y",
                "a.b.test:5000/x",
                "a.b.test:5000",
                "*.b.test:5000",
                "*.test:5000",
                ""
            ],
            "in the order of the manual"
        );
    }

    #[test]
    fn a_policy_is_read_as_the_manual_says() {
        let text = r#"{
            "default": [{"type": "reject"}],
            "transports": {
                "docker": {
                    "quay.io/a": [{"type": "insecureAcceptAnything"}],
                    "quay.io/b": [
                        {"type": "signedBy", "keyType": "GPGKeys", "keyPaths": ["/k1", "/k2"]},
                        {"type": "sigstoreSigned", "keyData": "eA==", "signedIdentity": {"type": "remapIdentity", "prefix": "quay.io/b", "signedPrefix": "c.test/d"}}
                    ]
                },
                "oci": {"/x": [{"type": "insecureAcceptAnything"}]}
            }
        }"#;
        let policy = SignaturePolicy::parse(Path::new("policy.json"), text.as_bytes()).unwrap();
        assert_eq!(policy.scopes[""], [Requirement::Reject], "the default");
        assert_eq!(policy.scopes["quay.io/a"], [Requirement::Accept], "a scope");
        assert_eq!(
            policy.scopes["quay.io/b"],
            [
                Requirement::SignedBy {
                    keys: vec![Keys::File("/k1".into()), Keys::File("/k2".into())],
                    identity: Identity::RepositoryDigestOrExact,
                },
                Requirement::Sigstore {
                    keys: vec![Keys::Inline(b"x".to_vec())],
                    identity: Identity::Remap {
                        prefix: "quay.io/b".to_owned(),
                        signed: "c.test/d".to_owned()
                    },
                }
            ],
            "all requirements of a scope"
        );
        assert_eq!(policy.scopes.len(), 3, "other transports are none of ours");
        for (entry, says) in [
            (r#"{"type": "sometimes"}"#, "no requirement of type"),
            (
                r#"{"type": "signedBy", "keyType": "GPGKeys"}"#,
                "names no key",
            ),
            (
                r#"{"type": "signedBy", "keyType": "signedByGPGKeys", "keyPath": "/x"}"#,
                "is not judged here",
            ),
            (
                r#"{"type": "sigstoreSigned", "fulcio": {}}"#,
                "\"fulcio\", which is not judged",
            ),
            (
                r#"{"type": "sigstoreSigned", "keyData": "!"}"#,
                "not base64",
            ),
            (
                r#"{"type": "sigstoreSigned", "keyPath": "/x", "signedIdentity": {"type": "exactReference"}}"#,
                "dockerReference",
            ),
        ] {
            let text = format!(r#"{{"default": [{entry}]}}"#);
            let error = SignaturePolicy::parse(Path::new("p.json"), text.as_bytes()).unwrap_err();
            assert!(
                error.to_string().contains(says),
                "{error} must say {says:?}"
            );
        }
        for text in ["{}", "[]", r#"{"default": [], "transports": {}}"#] {
            assert!(
                SignaturePolicy::parse(Path::new("p.json"), text.as_bytes()).is_err(),
                "{text} is no policy"
            );
        }
    }

    #[test]
    fn an_identity_counts_as_the_manual_says() {
        let remap = Identity::Remap {
            prefix: "mirror.test/m".to_owned(),
            signed: "quay.io".to_owned(),
        };
        for (identity, signed, asked, tag, counts) in [
            (
                Identity::Exact,
                "quay.io/a/b:1",
                "quay.io/a/b",
                Some("1"),
                true,
            ),
            (
                Identity::Exact,
                "quay.io/a/b:2",
                "quay.io/a/b",
                Some("1"),
                false,
            ),
            (Identity::Exact, "quay.io/a/b:1", "quay.io/a/b", None, false),
            (
                Identity::RepositoryDigestOrExact,
                "quay.io/a/b:1",
                "quay.io/a/b",
                None,
                true,
            ),
            (
                Identity::RepositoryDigestOrExact,
                "quay.io/a/b",
                "quay.io/a/b",
                Some("1"),
                false,
            ),
            (
                Identity::Repository,
                "quay.io/a/b",
                "quay.io/a/b",
                Some("1"),
                true,
            ),
            (
                Identity::Repository,
                "quay.io/a/c",
                "quay.io/a/b",
                Some("1"),
                false,
            ),
            (
                Identity::Repository,
                "index.docker.io/library/x",
                "docker.io/library/x",
                None,
                true,
            ),
            (
                Identity::ExactReference("a.test/x:1".to_owned()),
                "a.test/x:1",
                "quay.io/a/b",
                None,
                true,
            ),
            (
                Identity::ExactReference("a.test/x:1".to_owned()),
                "a.test/x:2",
                "quay.io/a/b",
                None,
                false,
            ),
            (
                Identity::ExactRepository("a.test/x".to_owned()),
                "a.test/x:2",
                "quay.io/a/b",
                None,
                true,
            ),
            (
                remap.clone(),
                "quay.io/a/b",
                "mirror.test/m/a/b",
                None,
                true,
            ),
            (
                remap.clone(),
                "mirror.test/m/a/b",
                "mirror.test/m/a/b",
                None,
                false,
            ),
            (remap, "mirror.test/mm/a", "mirror.test/mm/a", None, true),
            (
                Identity::Repository,
                "not a name",
                "quay.io/a/b",
                None,
                false,
            ),
        ] {
            assert_eq!(
                identity.accepts(signed, &repository(asked), tag),
                counts,
                "{identity:?}: {signed} for {asked} {tag:?}"
            );
            assert_eq!(
                Identity::parse(&identity.text()).as_ref(),
                Some(&identity),
                "a lock holds it"
            );
        }
    }

    #[test]
    fn the_most_precise_scope_says_where_signatures_are() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [
            (
                "a.yaml",
                "default-docker:\n  lookaside: https://all.test/s\ndocker:\n  quay.io/a:\n    sigstore: file:///old\n",
            ),
            (
                "b.yaml",
                "docker:\n  quay.io/a/b:\n    use-sigstore-attachments: true\n",
            ),
            ("c.conf", "not yaml: ["),
            ("d.yaml", ""),
        ] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let environment = Environment::default();
        let found = Lookasides::find(&environment, Some(folder.path())).unwrap();
        for (name, url, attachments) in [
            ("docker.io/library/x", Some("https://all.test/s"), None),
            ("quay.io/a/c", Some("file:///old"), None),
            ("quay.io/a/b", None, Some(true)),
        ] {
            let lookaside = found.of_scope(name);
            assert_eq!(
                (lookaside.url(), lookaside.use_sigstore_attachments),
                (url, attachments),
                "{name}"
            );
        }
        fs::write(folder.path().join("e.yaml"), "docker:\n  quay.io/a: {}\n").unwrap();
        let error = Lookasides::find(&environment, Some(folder.path())).unwrap_err();
        assert!(
            error.to_string().contains("in another file as well"),
            "{error} must say that two files disagree"
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_the_readers_panic(text in ".{0,200}") {
            let _ = SignaturePolicy::parse(Path::new("p"), text.as_bytes());
            let _ = Identity::parse(&text);
            let _ = Identity::Repository.accepts(&text, &repository("quay.io/a"), None);
        }
    }
}
