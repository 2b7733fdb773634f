//! registries.conf: which registry is asked instead of which.
//!
//! Reads version 2 of containers-registries.conf(5) and its drop-in folders; version 1 is refused by name. One
//! [`Rule`] applies to a name, the one with the longest matching prefix. Reads ask its mirrors in order, then its
//! location; writes are never redirected, but `insecure` and `blocked` count for them too. Short names are not
//! resolved: a [`crate::reference::Reference`] is always qualified.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use super::settings::{Environment, SettingsError, line_of};
use crate::digest::Digest;
use crate::reference::{Reference, Repository, Tag};

/// The name under which credential files themselves are listed among the helpers.
pub(super) const AUTH_FILES: &str = "containers-auth.json";

/// All rules in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registries {
    rules: Vec<Rule>,
    helpers: Option<Vec<String>>,
}

/// One `[[registry]]` table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Names that start so follow this rule; `*.` stands for any subdomain.
    pub prefix: String,
    /// What the prefix becomes; empty leaves the name as it is.
    pub location: String,
    /// Plain HTTP and any certificate are accepted.
    pub insecure: bool,
    /// The location is not asked.
    pub blocked: bool,
    /// What is asked before the location.
    pub mirrors: Vec<Mirror>,
    /// The file that says so.
    pub file: PathBuf,
}

/// One `[[registry.mirror]]` table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// What the prefix becomes.
    pub location: String,
    /// Plain HTTP and any certificate are accepted.
    pub insecure: bool,
    /// For which names it is asked.
    pub pulls: Pulls,
}

/// The names for which a mirror is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pulls {
    /// All.
    All,
    /// Those by digest.
    DigestOnly,
    /// Those by tag.
    TagOnly,
}

/// What is asked for in a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// Something by its digest.
    Digest(Option<Digest>),
    /// A manifest by its tag, or the tags themselves.
    Tag(Option<&'a Tag>),
}

/// A repository as it is really asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where.
    pub repository: Repository,
    /// Plain HTTP and any certificate are accepted there.
    pub insecure: bool,
    /// The rule that forbids to ask there.
    pub blocked: Option<Block>,
}

/// The rule that forbids to ask a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its prefix.
    pub prefix: String,
    /// The file it is in.
    pub file: PathBuf,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct RawFile {
    #[serde(default)]
    registry: Vec<Spanned<RawRule>>,
    credential_helpers: Option<Vec<String>>,
    registries: Option<Spanned<toml::Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct RawRule {
    #[serde(default)]
    prefix: String,
    #[serde(default)]
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror_by_digest_only: bool,
    #[serde(default)]
    mirror: Vec<Spanned<RawMirror>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct RawMirror {
    #[serde(default)]
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    pull_from_mirror: String,
}

impl Registries {
    /// Reads one file. `path` is for messages.
    ///
    /// # Errors
    /// If the text is not TOML, of version 1, or contradicts itself.
    pub fn parse(text: &str, path: &Path) -> Result<Self, SettingsError> {
        let wrong = |offset: usize, reason: String| SettingsError::Conf {
            path: path.to_owned(),
            line: line_of(text, offset),
            reason,
        };
        let raw: RawFile = toml::from_str(text).map_err(|error| {
            wrong(
                error.span().map_or(0, |span| span.start),
                error.message().trim().to_owned(),
            )
        })?;
        if let Some(first) = raw.registries {
            return Err(wrong(
                first.span().start,
                "this is version 1 of registries.conf; expected [[registry]] tables".to_owned(),
            ));
        }
        let mut registries = Self {
            rules: Vec::new(),
            helpers: raw.credential_helpers,
        };
        for table in raw.registry {
            let start = table.span().start;
            let rule = table.into_inner();
            let wildcard = rule.prefix.starts_with("*.");
            let location = location(&rule.location).map_err(|reason| wrong(start, reason))?;
            let prefix = if rule.prefix.is_empty() {
                location.clone()
            } else {
                let bare = rule.prefix.strip_prefix('*').unwrap_or(&rule.prefix);
                self::location(bare).map_err(|reason| wrong(start, reason))?;
                if wildcard && bare.contains(['/', ':', '@']) {
                    return Err(wrong(
                        start,
                        format!(
                            "the prefix {:?} is malformed: behind \"*.\" only a domain may follow",
                            rule.prefix
                        ),
                    ));
                }
                rule.prefix.trim_end_matches('/').to_owned()
            };
            if prefix.is_empty() {
                return Err(wrong(
                    start,
                    "a [[registry]] table has neither prefix nor location".to_owned(),
                ));
            }
            if location.is_empty() && !wildcard {
                return Err(wrong(
                    start,
                    format!(
                        "the table for {prefix:?} has no location; only a prefix that starts with \"*.\" may leave it out"
                    ),
                ));
            }
            let mut mirrors = Vec::new();
            for mirror in rule.mirror {
                let start = mirror.span().start;
                let mirror = mirror.into_inner();
                let location =
                    self::location(&mirror.location).map_err(|reason| wrong(start, reason))?;
                if location.is_empty() {
                    return Err(wrong(
                        start,
                        format!("a mirror of {prefix:?} has no location"),
                    ));
                }
                let pulls = match mirror.pull_from_mirror.as_str() {
                    "" if rule.mirror_by_digest_only => Pulls::DigestOnly,
                    _ if rule.mirror_by_digest_only => {
                        return Err(wrong(
                            start,
                            format!(
                                "the mirror {location:?} has pull-from-mirror, which mirror-by-digest-only of {prefix:?} rules out"
                            ),
                        ));
                    }
                    "" | "all" => Pulls::All,
                    "digest-only" => Pulls::DigestOnly,
                    "tag-only" => Pulls::TagOnly,
                    other => {
                        return Err(wrong(
                            start,
                            format!(
                                "pull-from-mirror is {other:?}; expected all, digest-only or tag-only"
                            ),
                        ));
                    }
                };
                mirrors.push(Mirror {
                    location,
                    insecure: mirror.insecure,
                    pulls,
                });
            }
            let rule = Rule {
                prefix,
                location,
                insecure: rule.insecure,
                blocked: rule.blocked,
                mirrors,
                file: path.to_owned(),
            };
            if let Some(other) = registries
                .rules
                .iter()
                .find(|other| other.prefix == rule.prefix)
                && (other.insecure != rule.insecure || other.blocked != rule.blocked)
            {
                return Err(wrong(
                    start,
                    format!(
                        "two tables for {:?} disagree about insecure or blocked",
                        rule.prefix
                    ),
                ));
            }
            registries.add(rule);
        }
        Ok(registries)
    }

    /// Reads what `environment` leads to, or the file `given` alone.
    ///
    /// # Errors
    /// If a named file is missing, or one that is there is malformed.
    pub fn find(environment: &Environment, given: Option<&Path>) -> Result<Self, SettingsError> {
        let named = given.map(Path::to_owned).or_else(|| {
            environment
                .variable("CONTAINERS_REGISTRIES_CONF")
                .map(PathBuf::from)
        });
        if let Some(path) = named {
            return match read(&path)? {
                Some(text) => Self::parse(&text, &path),
                None => Err(SettingsError::Read {
                    path,
                    source: io::ErrorKind::NotFound.into(),
                }),
            };
        }
        let system = environment.system("etc/containers");
        let user = environment
            .config_home()
            .map(|folder| folder.join("containers"));
        let mut registries = Self::default();
        let mut own = false;
        if let Some(user) = &user {
            let path = user.join("registries.conf");
            if let Some(text) = read(&path)? {
                own = true;
                registries.merge(Self::parse(&text, &path)?);
            }
        }
        if !own {
            let path = system.join("registries.conf");
            if let Some(text) = read(&path)? {
                registries.merge(Self::parse(&text, &path)?);
            }
            registries.merge_folder(&system.join("registries.conf.d"))?;
        }
        if let Some(user) = &user {
            registries.merge_folder(&user.join("registries.conf.d"))?;
        }
        Ok(registries)
    }

    /// Adds what a later file says; it wins where both speak of the same prefix.
    pub fn merge(&mut self, later: Self) {
        if later.helpers.is_some() {
            self.helpers = later.helpers;
        }
        for rule in later.rules {
            self.add(rule);
        }
    }

    fn merge_folder(&mut self, folder: &Path) -> Result<(), SettingsError> {
        for path in listing(folder)? {
            if path
                .extension()
                .is_some_and(|extension| extension == "conf")
                && let Some(text) = read(&path)?
            {
                self.merge(Self::parse(&text, &path)?);
            }
        }
        Ok(())
    }

    fn add(&mut self, rule: Rule) {
        self.rules.retain(|other| other.prefix != rule.prefix);
        self.rules.push(rule);
    }

    /// The rules, in the order they were read.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Where credentials are looked for, in order: helpers, and `containers-auth.json` for the files.
    #[must_use]
    pub fn helpers(&self) -> Vec<String> {
        match &self.helpers {
            Some(helpers) if !helpers.is_empty() => helpers.clone(),
            _ => vec![AUTH_FILES.to_owned()],
        }
    }

    /// The rule for a name (`host/path`, with or without tag or digest), and how much of the name it matched.
    #[must_use]
    pub fn rule(&self, name: &str) -> Option<(&Rule, usize)> {
        self.rules
            .iter()
            .filter_map(|rule| matched(&rule.prefix, name).map(|length| (rule, length)))
            .max_by_key(|(rule, _)| rule.prefix.len())
    }

    /// Where a read of `repository` is asked, in order.
    ///
    /// # Errors
    /// If a rule makes a name out of it that is none.
    pub fn places(
        &self,
        repository: &Repository,
        wanted: Wanted<'_>,
    ) -> Result<Vec<Place>, SettingsError> {
        let repository = canonical(repository);
        let suffix = match wanted {
            Wanted::Digest(Some(digest)) => format!("@{digest}"),
            Wanted::Tag(Some(tag)) => format!(":{tag}"),
            Wanted::Digest(None) | Wanted::Tag(None) => String::new(),
        };
        let name = format!("{repository}{suffix}");
        let Some((rule, length)) = self.rule(&name) else {
            return Ok(vec![Place {
                repository,
                insecure: false,
                blocked: None,
            }]);
        };
        let by_digest = matches!(wanted, Wanted::Digest(_));
        let taken = rule
            .mirrors
            .iter()
            .filter(|mirror| match mirror.pulls {
                Pulls::All => true,
                Pulls::DigestOnly => by_digest,
                Pulls::TagOnly => !by_digest,
            })
            .map(|mirror| (mirror.location.as_str(), mirror.insecure));
        taken
            .chain([(rule.location.as_str(), rule.insecure)])
            .map(|(location, insecure)| {
                let full = if location.is_empty() {
                    name.clone()
                } else {
                    format!("{location}{}", &name[length..])
                };
                let asked = full
                    .strip_suffix(&suffix)
                    .filter(|_| length <= name.len() - suffix.len())
                    .and_then(|asked| asked.parse::<Repository>().ok())
                    .ok_or_else(|| SettingsError::Conf {
                        path: rule.file.clone(),
                        line: 1,
                        reason: format!(
                            "the rule for {:?} turns {name} into {full}, which is no repository that can be asked",
                            rule.prefix
                        ),
                    })?;
                let mut place = self.destination(&asked);
                place.insecure |= insecure;
                Ok(place)
            })
            .collect()
    }

    /// Where a write to `repository` goes: there, whatever the mirrors; but `insecure` and `blocked` count.
    #[must_use]
    pub fn destination(&self, repository: &Repository) -> Place {
        let repository = canonical(repository);
        let name = repository.to_string();
        let rule = self.rule(&name).map(|(rule, _)| rule);
        Place {
            insecure: rule.is_some_and(|rule| rule.insecure),
            blocked: rule.filter(|rule| rule.blocked).map(|rule| Block {
                prefix: rule.prefix.clone(),
                file: rule.file.clone(),
            }),
            repository,
        }
    }

    /// Whether a rule for the host itself accepts plain HTTP and any certificate.
    #[must_use]
    pub fn host_is_insecure(&self, host: &str) -> bool {
        self.rule(host).is_some_and(|(rule, _)| rule.insecure)
    }
}

impl fmt::Display for Block {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "the [[registry]] table {:?} in {}",
            self.prefix,
            self.file.display()
        )
    }
}

/// The name under which Docker Hub's repositories are known: `docker.io`, with `library/` filled in.
#[must_use]
pub fn canonical(repository: &Repository) -> Repository {
    if !matches!(repository.registry(), "docker.io" | "index.docker.io") {
        return repository.clone();
    }
    let path = if repository.path().contains('/') {
        repository.path().to_owned()
    } else {
        format!("library/{}", repository.path())
    };
    Repository::new("docker.io", &path).unwrap_or_else(|_| repository.clone())
}

/// What `reference` is, as [`Registries::places`] asks.
#[must_use]
pub fn wanted(reference: &Reference) -> Wanted<'_> {
    match (reference.digest, &reference.tag) {
        (Some(digest), _) => Wanted::Digest(Some(digest)),
        (None, tag) => Wanted::Tag(tag.as_ref()),
    }
}

fn location(text: &str) -> Result<String, String> {
    if text.contains("://") {
        return Err(format!(
            "{text:?} has a scheme; expected host[:port][/path]"
        ));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// How much of `name` is matched by `prefix`, which must end where a part of the name ends.
fn matched(prefix: &str, name: &str) -> Option<usize> {
    let length = if let Some(domain) = prefix.strip_prefix('*') {
        let host = name.split('/').next().unwrap_or_default();
        let start = host.find(domain).filter(|start| *start > 0)?;
        start + domain.len()
    } else {
        name.strip_prefix(prefix)?;
        prefix.len()
    };
    match name.as_bytes().get(length) {
        None | Some(b'/' | b':' | b'@') => Some(length),
        Some(_) => None,
    }
}

/// The text of a file; `None` if it is not there.
pub(super) fn read(path: &Path) -> Result<Option<String>, SettingsError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(source) => Err(SettingsError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

/// The paths in a folder, sorted; none if it is not there.
pub(super) fn listing(folder: &Path) -> Result<Vec<PathBuf>, SettingsError> {
    let wrong = |source| SettingsError::Read {
        path: folder.to_owned(),
        source,
    };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(Vec::new());
        }
        Err(error) => return Err(wrong(error)),
    };
    let mut paths = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(wrong)?;
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Registries {
        Registries::parse(text, Path::new("registries.conf")).unwrap()
    }

    fn places(registries: &Registries, name: &str, wanted: Wanted<'_>) -> Vec<String> {
        registries
            .places(&name.parse().unwrap(), wanted)
            .unwrap()
            .into_iter()
            .map(|place| {
                format!(
                    "{}{}{}",
                    place.repository,
                    if place.insecure { " insecure" } else { "" },
                    if place.blocked.is_some() {
                        " blocked"
                    } else {
                        ""
                    }
                )
            })
            .collect()
    }

    const BY_TAG: Wanted<'static> = Wanted::Tag(None);
    const BY_DIGEST: Wanted<'static> = Wanted::Digest(None);

    const TABLES: &str = r#"
unqualified-search-registries = ["quay.io"]
short-name-mode = "enforcing"

[[registry]]
prefix = "example.test/foo"
location = "internal.test/bar"
[[registry.mirror]]
location = "m0.test/foo"
[[registry.mirror]]
location = "m1.test/mirrors/foo/"
insecure = true
pull-from-mirror = "digest-only"
[[registry.mirror]]
location = "m2.test/foo"
pull-from-mirror = "tag-only"

[[registry]]
location = "example.test"
blocked = true

[[registry]]
prefix = "*.wild.test"
insecure = true

[[registry]]
prefix = "*.moved.test"
location = "other.test/all"

[[registry]]
location = "quay.io/openshift"
mirror-by-digest-only = true
blocked = true
[[registry.mirror]]
location = "m0.test/openshift"

[[registry]]
location = "m0.test"
insecure = true

[[registry]]
location = "docker.io/library"
[[registry.mirror]]
location = "m0.test/hub"
"#;

    #[test]
    fn a_name_is_asked_at_its_mirrors_in_order_and_then_at_its_location() {
        let registries = parse(TABLES);
        for (name, wanted, expected) in [
            ("plain.test/a", BY_TAG, vec!["plain.test/a"]),
            (
                "example.test/foo/x",
                BY_TAG,
                vec![
                    "m0.test/foo/x insecure",
                    "m2.test/foo/x",
                    "internal.test/bar/x",
                ],
            ),
            (
                "example.test/foo/x",
                BY_DIGEST,
                vec![
                    "m0.test/foo/x insecure",
                    "m1.test/mirrors/foo/x insecure",
                    "internal.test/bar/x",
                ],
            ),
            (
                "example.test/foobar",
                BY_TAG,
                vec!["example.test/foobar blocked"],
            ),
            ("a.wild.test/x", BY_TAG, vec!["a.wild.test/x insecure"]),
            (
                "a.b.wild.test:5000/x",
                BY_TAG,
                vec!["a.b.wild.test:5000/x insecure"],
            ),
            ("wild.test/x", BY_TAG, vec!["wild.test/x"]),
            ("awild.test/x", BY_TAG, vec!["awild.test/x"]),
            ("a.moved.test/x", BY_TAG, vec!["other.test/all/x"]),
            (
                "quay.io/openshift/x",
                BY_TAG,
                vec!["quay.io/openshift/x blocked"],
            ),
            (
                "quay.io/openshift/x",
                BY_DIGEST,
                vec![
                    "m0.test/openshift/x insecure",
                    "quay.io/openshift/x blocked",
                ],
            ),
            (
                "docker.io/alpine",
                BY_TAG,
                vec!["m0.test/hub/alpine insecure", "docker.io/library/alpine"],
            ),
            ("index.docker.io/a/b", BY_TAG, vec!["docker.io/a/b"]),
        ] {
            assert_eq!(
                places(&registries, name, wanted),
                expected,
                "places of {name}"
            );
        }
    }

    #[test]
    fn a_write_stays_where_it_was_sent() {
        let registries = parse(TABLES);
        for (name, expected, insecure, blocked) in [
            ("example.test/foo/x", "example.test/foo/x", false, false),
            ("example.test/y", "example.test/y", false, true),
            ("m0.test/y", "m0.test/y", true, false),
            ("docker.io/alpine", "docker.io/library/alpine", false, false),
        ] {
            let place = registries.destination(&name.parse().unwrap());
            assert_eq!(
                (
                    place.repository.to_string().as_str(),
                    place.insecure,
                    place.blocked.is_some()
                ),
                (expected, insecure, blocked),
                "destination of {name}"
            );
        }
    }

    #[test]
    fn a_later_file_wins_prefix_by_prefix() {
        let mut registries = parse(TABLES);
        registries.merge(parse(
            "credential-helpers = [\"pass\"]\n[[registry]]\nprefix = \"example.test/foo\"\nlocation = \"new.test\"\n",
        ));
        assert_eq!(
            places(&registries, "example.test/foo/x", BY_TAG),
            ["new.test/x"],
            "the later table replaces the earlier one"
        );
        assert_eq!(
            registries.helpers(),
            ["pass"],
            "the later list replaces the default"
        );
        assert_eq!(
            parse(TABLES).helpers(),
            [AUTH_FILES],
            "files are the default"
        );
    }

    #[test]
    fn a_malformed_file_is_refused_with_its_line() {
        for (text, line, part) in [
            ("[[registry]]\nlocation = 3\n", 2, "invalid type"),
            (
                "\n[[registry]]\ninsecure = true\n",
                2,
                "neither prefix nor location",
            ),
            ("[[registry]]\nprefix = \"a.test\"\n", 1, "no location"),
            ("[[registry]]\nlocation = \"https://a.test\"\n", 1, "scheme"),
            (
                "[[registry]]\nprefix = \"*.a.test/b\"\n",
                1,
                "only a domain",
            ),
            (
                "[[registry]]\nlocation = \"a.test\"\n\n[[registry.mirror]]\ninsecure = true\n",
                4,
                "no location",
            ),
            (
                "[[registry]]\nlocation = \"a.test\"\n[[registry.mirror]]\nlocation = \"b\"\npull-from-mirror = \"some\"\n",
                3,
                "\"some\"",
            ),
            (
                "[[registry]]\nlocation = \"a.test\"\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = \"b\"\npull-from-mirror = \"all\"\n",
                4,
                "rules out",
            ),
            (
                "x = 1\n[registries.search]\nregistries = [\"a\"]\n",
                2,
                "version 1",
            ),
            (
                "[[registry]]\nlocation = \"a\"\n[[registry]]\nlocation = \"a\"\nblocked = true\n",
                3,
                "disagree",
            ),
            ("[[registry\n", 1, ""),
        ] {
            let error = Registries::parse(text, Path::new("r.conf"))
                .unwrap_err()
                .to_string();
            assert!(
                error.starts_with(&format!("r.conf:{line}: ")) && error.contains(part),
                "{text:?} gave {error:?}, which must name line {line} and say {part:?}"
            );
        }
    }

    #[test]
    fn files_are_found_as_the_manual_says() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let table = |location: &str| {
            format!("[[registry]]\nprefix = \"a.test\"\nlocation = \"{location}\"\n")
        };
        let mut environment = Environment {
            home: Some(folder.path().join("home")),
            root: folder.path().to_owned(),
            ..Environment::default()
        };
        let asked = |environment: &Environment| {
            places(
                &Registries::find(environment, None).unwrap(),
                "a.test/x",
                BY_TAG,
            )
        };
        assert_eq!(asked(&environment), ["a.test/x"], "no file is no rule");
        write("etc/containers/registries.conf", &table("etc.test"));
        assert_eq!(asked(&environment), ["etc.test/x"], "the system's file");
        write("etc/containers/registries.conf.d/b.conf", &table("b.test"));
        write("etc/containers/registries.conf.d/a.conf", &table("aa.test"));
        write("etc/containers/registries.conf.d/c.txt", "not toml");
        assert_eq!(
            asked(&environment),
            ["b.test/x"],
            "drop-ins in order of their names"
        );
        write(
            "home/.config/containers/registries.conf.d/a.conf",
            &table("user.test"),
        );
        assert_eq!(
            asked(&environment),
            ["user.test/x"],
            "the user's drop-ins come last"
        );
        fs::remove_dir_all(
            folder
                .path()
                .join("home/.config/containers/registries.conf.d"),
        )
        .unwrap();
        write(
            "home/.config/containers/registries.conf",
            &table("home.test"),
        );
        assert_eq!(
            asked(&environment),
            ["home.test/x"],
            "the user's file replaces the system's and its drop-ins"
        );
        write("given.conf", &table("given.test"));
        environment.variables.insert(
            "CONTAINERS_REGISTRIES_CONF".to_owned(),
            folder.path().join("given.conf").display().to_string(),
        );
        assert_eq!(
            asked(&environment),
            ["given.test/x"],
            "the variable names the file"
        );
        let error =
            Registries::find(&environment, Some(&folder.path().join("missing.conf"))).unwrap_err();
        assert!(
            error.to_string().contains("missing.conf"),
            "{error} must name the file"
        );
    }
}
