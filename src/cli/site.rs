//! Where a command works: files, environment and flags, turned into the values that the library takes.
//!
//! Flag beats environment beats settings beats default.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use regex::Regex;

use super::arguments::{Common, Shape, Subject};
use super::ui::{self, Failure, remark};
use crate::canon::Value;
use crate::config::SignaturePolicy;
use crate::config::{self, Config, ImageSet, Operator, Position};
use crate::digest::Digest;
use crate::hint::Hint;
use crate::openshift::release::GRAPH_DATA_URL;
use crate::openshift::select::Selection;
use crate::plan::key::BlockKey;
use crate::plan::lock::{Lock, Want};
use crate::plan::text;
use crate::reference::{ImageName, ReferenceError};
use crate::registry::client::Client;
use crate::registry::cosign::Key;
use crate::registry::policy::{
    Identity, Keys, Lookasides, PolicyFileError, Requirement, SignaturePolicy as TheirPolicy, above,
};
use crate::registry::settings::{Environment, Files, Settings};
use crate::run::realise::Limits;
use crate::run::resolve::release::Services;
use crate::run::resolve::signed::{Demand, Form, Policy};
use crate::run::resolve::{Asked, Request, rules_of};
use crate::run::upstream::{Live, Places};
use crate::step::place::{Destination, Layout};
use crate::step::rule::{EMBEDDED, Rule, Rules};
use crate::store::disk::{Access, Store};
use crate::store::{Blob, StoreError};

/// The scope of signature settings that releases are under.
const RELEASE_SCOPE: &str = "release";

/// Files by name.
type NamedFiles = Vec<(String, Vec<u8>)>;

/// Reads a file of public keys.
fn key_file(path: &Path) -> Result<(String, Vec<u8>), Failure> {
    let bytes = fs::read(path).map_err(|error| cannot("read the keys in", path, &error))?;
    Ok((path.display().to_string(), bytes))
}

/// The digests of files, each once.
fn digests(files: &[(String, Vec<u8>)]) -> Vec<Digest> {
    let mut digests: Vec<Digest> = files.iter().map(|(_, bytes)| Digest::of(bytes)).collect();
    digests.sort();
    digests.dedup();
    digests
}

/// The working directory of one command.
pub(super) struct Site {
    pub(super) common: Common,
    pub(super) environment: Environment,
    pub(super) settings: config::Settings,
}

/// The files that a command is about.
pub(super) struct Paths {
    pub(super) config: PathBuf,
    /// Whether the config is a list of images.
    pub(super) is_mapping: bool,
    pub(super) lock: PathBuf,
    pub(super) stem: String,
    /// The stream that they are of, if one was named or the settings say so.
    pub(super) stream: Option<String>,
}

/// How many of the last archives of a stream garbage collection spares, where the settings do not say.
const KEPT_ARCHIVES: u64 = 3;

impl Site {
    /// Reads the settings file.
    pub(super) fn new(common: Common, environment: Environment) -> Result<Self, Failure> {
        let named = common.settings.clone();
        let path = named
            .clone()
            .unwrap_or_else(|| PathBuf::from("imgbuild.toml"));
        let settings = match fs::read(&path) {
            Ok(bytes) => config::Settings::parse_bytes(&bytes, &path.display().to_string())
                .map_err(|errors| Failure {
                    code: ui::ERROR,
                    text: errors.render(),
                })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound && named.is_none() => {
                config::Settings::default()
            }
            Err(error) => return Err(cannot("read the settings", &path, &error)),
        };
        Ok(Self {
            common,
            environment,
            settings,
        })
    }

    /// The same place, where notes on the config are not printed again.
    pub(super) fn quietly<T>(&self, work: impl FnOnce(&Self) -> T) -> T {
        work(&Self {
            common: Common {
                quiet: true,
                ..self.common.clone()
            },
            environment: self.environment.clone(),
            settings: self.settings.clone(),
        })
    }

    pub(super) fn limits(&self) -> Limits {
        Limits {
            workers: usize::from(self.common.jobs),
            ..Limits::default()
        }
    }

    /// The files of a command.
    pub(super) fn paths(&self, subject: &Subject) -> Paths {
        self.paths_in(subject, None)
    }

    /// The files of a command on a line of archives: as named, else as `[stream.NAME]` says, else the defaults. A stream
    /// that is not named is the one whose config is meant.
    pub(super) fn paths_in(&self, subject: &Subject, named: Option<&str>) -> Paths {
        let folder = self.settings_folder();
        let streams = &self.settings.streams;
        let config_of = |name: &str| {
            let config = streams.get(name)?.value.config.as_ref()?;
            Some(folder.join(&config.value))
        };
        let named_file = subject.mapping_file.as_ref().or(subject.config.as_ref());
        let asked = named_file
            .cloned()
            .unwrap_or_else(|| PathBuf::from("imageset.yaml"));
        let same = |one: &Path| one.components().eq(asked.components());
        let stream = match named {
            Some(name) => Some(name),
            None => streams
                .keys()
                .map(String::as_str)
                .find(|name| config_of(name).is_some_and(|config| same(&config))),
        };
        let config = match (named_file, stream.and_then(config_of)) {
            (None, Some(config)) => config,
            _ => asked,
        };
        let stem = config.file_stem().map_or_else(
            || "imageset".to_owned(),
            |stem| stem.to_string_lossy().into_owned(),
        );
        let lock = stream
            .and_then(|name| streams.get(name)?.value.lock.as_ref())
            .map(|lock| folder.join(&lock.value));
        let lock = subject
            .lock
            .clone()
            .or(lock)
            .unwrap_or_else(|| PathBuf::from("lockfiles").join(format!("{stem}.lock.toml")));
        Paths {
            config,
            is_mapping: subject.mapping_file.is_some(),
            lock,
            stem,
            stream: stream.map(str::to_owned),
        }
    }

    /// How many of the last archives of a stream garbage collection spares.
    pub(super) fn kept_archives(&self, stream: &crate::archive::Stream) -> u64 {
        self.settings
            .streams
            .get(stream.as_str())
            .and_then(|settings| settings.value.keep.as_ref())
            .map_or(KEPT_ARCHIVES, |keep| keep.value.max(1))
    }

    /// The stream of a command: the one that its files are of, else the config's stem in the letters that streams have.
    pub(super) fn stream(&self, paths: &Paths) -> Result<crate::archive::Stream, Failure> {
        let text = paths.stream.clone().unwrap_or_else(|| {
            let text: String = paths
                .stem
                .to_lowercase()
                .chars()
                .map(|letter| {
                    if letter.is_ascii_alphanumeric() {
                        letter
                    } else {
                        '-'
                    }
                })
                .collect();
            text.trim_matches('-').to_owned()
        });
        text.parse().map_err(|error: crate::archive::ArchiveError| {
            Failure::of(ui::ERROR, &error, error.hint())
        })
    }

    /// Where the store is.
    pub(super) fn store_path(&self) -> Result<PathBuf, Failure> {
        if let Some(path) = &self.common.store {
            return Ok(path.clone());
        }
        if let Some(path) = self.settings.store.as_ref() {
            return Ok(self.settings_folder().join(&path.value));
        }
        let data = match self.environment.variable("XDG_DATA_HOME") {
            Some(path) => Some(PathBuf::from(path)),
            None => self
                .environment
                .home()
                .map(|home| home.join(".local/share")),
        };
        data.map(|data| data.join("imgbuild")).ok_or_else(|| {
            Failure::new(ui::ERROR, "there is no home directory to keep the store in")
                .hint("name the store with --store DIR")
        })
    }

    /// Opens the store.
    pub(super) fn store(&self, access: Access) -> Result<Store, Failure> {
        Store::open(&self.store_path()?, access).map_err(|error| store_failure(&error))
    }

    /// Makes the client.
    pub(super) fn client(&self) -> Result<Client, Failure> {
        let (folders, authorities) = self
            .common
            .certs
            .iter()
            .cloned()
            .partition(|path: &PathBuf| path.is_dir());
        let files = Files {
            authfile: self.common.authfile.clone(),
            registries: self.common.registries_conf.clone(),
            certificates: folders,
            authorities,
            insecure: self.common.insecure.iter().cloned().collect(),
            rewrites: self.rewrites(false),
        };
        let mut settings = Settings::from_environment(&self.environment, &files)
            .map_err(|error| Failure::of(ui::ERROR, &error, error.hint()))?;
        for (host, limits) in &self.settings.registries {
            let mut ours = crate::registry::settings::Limits::default();
            if let Some(connections) = &limits.value.connections {
                ours.connections = usize::try_from(connections.value)
                    .unwrap_or(ours.connections)
                    .max(1);
            }
            ours.requests_per_second = limits
                .value
                .requests_per_second
                .as_ref()
                .and_then(|rate| u32::try_from(rate.value).ok());
            settings.host_limits.insert(host.clone(), ours);
        }
        Client::new(settings).map_err(|error| Failure::of(ui::ERROR, &error, error.hint()))
    }

    /// The live upstream.
    pub(super) fn upstream(&self) -> Result<Live, Failure> {
        let places = Places {
            local: self.rewrites(true),
            signatures: self.services()?.signature_stores(),
        };
        Ok(Live::new(self.client()?, PathBuf::new()).with_places(places))
    }

    /// Where plain files are instead: on disk, or at other URLs.
    fn rewrites(&self, on_disk: bool) -> BTreeMap<String, String> {
        self.settings
            .urls
            .iter()
            .filter(|(_, to)| {
                let is_url = to.value.contains("://") && !to.value.starts_with("file://");
                is_url != on_disk
            })
            .map(|(from, to)| (from.clone(), to.value.clone()))
            .collect()
    }

    /// The update service that is asked instead of the vendor's.
    pub(super) fn graph_override(&self) -> Option<&str> {
        self.environment.variable("UPDATE_URL_OVERRIDE")
    }

    /// What the settings say of the image of the update graph.
    fn graph(&self) -> Value {
        let graph = self.settings.graph.as_ref().map(|graph| &graph.value);
        let data = graph.and_then(|graph| graph.data.as_ref());
        let base = graph.and_then(|graph| graph.base.as_ref());
        let mut values = BTreeMap::new();
        if let Some(data) = data {
            values.insert("data".to_owned(), Value::from(data.value.as_str()));
        }
        if let Some(base) = base {
            values.insert("base".to_owned(), base.value.to_string().into());
        }
        Value::Map(values)
    }

    /// Where release services are, by the variables that oc-mirror reads.
    pub(super) fn services(&self) -> Result<Services, Failure> {
        let mut services = Services::default();
        if let Some(url) = self.graph_override() {
            url.clone_into(&mut services.graph);
            // Whoever has an update service of their own is behind a gap that the vendor's data have to cross by other ways.
            if !self.settings.urls.contains_key(GRAPH_DATA_URL) {
                services.withheld.insert(
                    GRAPH_DATA_URL.to_owned(),
                    "lock with `--within` the lock of the hop before, which has them, or say where they are: `data = \"FILE\"` under [graph] in imgbuild.toml".to_owned(),
                );
            }
        }
        if let Some(url) = self.environment.variable("OCP_SIGNATURE_URL") {
            services.signatures = vec![url.to_owned()];
        }
        if let Some(pattern) = self.environment.variable("VERSION_FILTER") {
            let pattern = Regex::new(pattern).map_err(|error| {
                Failure::of(
                    ui::ERROR,
                    &error,
                    Some("VERSION_FILTER must be a regular expression".to_owned()),
                )
            })?;
            services.counted = Some(pattern);
        }
        Ok(services)
    }

    /// What the settings and the environment say of the signatures of releases, and the files of public keys that they
    /// name.
    fn signatures(&self) -> Result<(Value, NamedFiles), Failure> {
        let settings = self.settings.signatures.get(RELEASE_SCOPE);
        if let Some(referrers) = settings
            .and_then(|settings| settings.value.referrers.as_ref())
            .filter(|on| on.value)
        {
            return Err(self.refuse(
                referrers.position,
                "referrers of releases are not looked for",
                None,
            ));
        }
        let mut named: Vec<PathBuf> = settings
            .into_iter()
            .flat_map(|settings| &settings.value.keys)
            .map(|path| self.settings_folder().join(&path.value))
            .collect();
        if let Some(path) = self.environment.variable("OCP_SIGNATURE_VERIFICATION_PK") {
            named = vec![PathBuf::from(path)];
        }
        let mut files = Vec::new();
        for path in named {
            files.push(key_file(&path)?);
        }
        let keys = digests(&files);
        let mut value = BTreeMap::from([(
            "keys".to_owned(),
            Value::List(keys.into_iter().map(Value::Digest).collect()),
        )]);
        let policy = settings.and_then(|settings| settings.value.policy.as_ref());
        if let Some(policy) = policy.filter(|policy| policy.value != SignaturePolicy::Require) {
            value.insert("policy".to_owned(), policy.value.as_str().into());
        }
        Ok((Value::Map(value), files))
    }

    /// An error in the settings.
    fn refuse(&self, position: Position, text: impl Into<String>, hint: Option<String>) -> Failure {
        let text = text.into();
        match config::ConfigErrors::of([self.settings.error(position, text.clone(), hint)]) {
            Some(errors) => Failure {
                code: ui::ERROR,
                text: errors.render(),
            },
            None => Failure::new(ui::ERROR, text),
        }
    }

    /// What is demanded of the signatures of images, by the settings and by the policy of the container tools, and the
    /// files of public keys that they name. A scope of the settings replaces the same one of that policy.
    fn demands(&self) -> Result<(Vec<Demand>, NamedFiles), Failure> {
        let mut demands = Vec::new();
        let mut files = Vec::new();
        for (scope, settings) in &self.settings.signatures {
            if scope == RELEASE_SCOPE {
                continue;
            }
            let policy = match settings.value.policy.as_ref().map(|policy| policy.value) {
                None | Some(SignaturePolicy::Require) => Policy::Require,
                Some(SignaturePolicy::Warn) => Policy::Warn,
                Some(SignaturePolicy::Skip) => Policy::Accept,
            };
            let mut own = Vec::new();
            for path in &settings.value.keys {
                own.push(key_file(&self.settings_folder().join(&path.value))?);
            }
            if own.is_empty() && policy == Policy::Require {
                return Err(self.refuse(
                    settings.position,
                    format!("signatures of {scope:?} are required, and there is no key to verify them with"),
                    Some("add keys = [\"cosign.pub\"], or policy = \"warn\" to carry what is found".to_owned()),
                ));
            }
            for (name, bytes) in &own {
                Key::parse(name, bytes).map_err(|error| Failure::of(ui::ERROR, &error, None))?;
            }
            demands.push(Demand {
                scope: scope.clone(),
                policy,
                form: Form::Cosign {
                    referrers: settings.value.referrers.as_ref().is_some_and(|on| on.value),
                },
                keys: digests(&own),
                identity: Identity::Repository,
            });
            files.extend(own);
        }
        let (more, their_files) = self.containers_demands()?;
        demands.extend(
            more.into_iter()
                .filter(|demand| !self.settings.signatures.contains_key(&demand.scope)),
        );
        files.extend(their_files);
        Ok((demands, files))
    }

    /// What policy.json demands, where the settings say that it counts.
    fn containers_demands(&self) -> Result<(Vec<Demand>, NamedFiles), Failure> {
        let failed = |error: PolicyFileError| Failure::of(ui::ERROR, &error, error.hint());
        let policy = super::review::policy(self)?;
        let Some(named) = &policy.containers_policy else {
            return Ok((Vec::new(), Vec::new()));
        };
        let file = (!named.is_empty()).then(|| self.settings_folder().join(named));
        let theirs = TheirPolicy::find(&self.environment, file.as_deref()).map_err(failed)?;
        let folder = policy
            .registries_d
            .as_ref()
            .map(|folder| self.settings_folder().join(folder));
        let lookasides = Lookasides::find(&self.environment, folder.as_deref()).map_err(failed)?;
        let mut demands: Vec<Demand> = Vec::new();
        let mut files = Vec::new();
        for (scope, requirements) in theirs.scopes.clone() {
            for (number, requirement) in requirements.into_iter().enumerate() {
                let mut demand = Demand {
                    scope: scope.clone(),
                    policy: Policy::Require,
                    form: Form::Cosign { referrers: false },
                    keys: Vec::new(),
                    identity: Identity::Repository,
                };
                let keys = match requirement {
                    Requirement::Accept => {
                        demand.policy = Policy::Accept;
                        Vec::new()
                    }
                    Requirement::Reject => {
                        demand.policy = Policy::Reject;
                        Vec::new()
                    }
                    Requirement::SignedBy { keys, identity } => {
                        demand.identity = identity;
                        demand.form = Form::Gpg {
                            lookaside: lookasides.of_scope(&scope).url().map(str::to_owned),
                        };
                        keys
                    }
                    Requirement::Sigstore { keys, identity } => {
                        if !self.common.quiet
                            && lookasides.of_scope(&scope).use_sigstore_attachments != Some(true)
                        {
                            remark(format!(
                                "note: registries.d does not say use-sigstore-attachments for {}, so other tools do not find the signatures that policy.json demands; they are looked for here",
                                if scope.is_empty() {
                                    "everything"
                                } else {
                                    &scope
                                }
                            ));
                        }
                        demand.identity = identity;
                        keys
                    }
                };
                let mut own = Vec::new();
                for (index, keys) in keys.into_iter().enumerate() {
                    own.push(match keys {
                        Keys::File(path) => key_file(&path)?,
                        Keys::Inline(bytes) => {
                            let place = if scope.is_empty() { "default" } else { &scope };
                            (format!("policy.json/{place}/{number}/{index}"), bytes)
                        }
                    });
                }
                demand.keys = digests(&own);
                files.extend(own);
                // Parts of the scope may have a lookaside of their own.
                if matches!(demand.form, Form::Gpg { .. }) {
                    let decides = |part: &&str| {
                        let decider = above(part)
                            .into_iter()
                            .find(|above| theirs.scopes.contains_key(above));
                        decider.as_ref() == Some(&scope) && *part != scope
                    };
                    demands.extend(lookasides.scopes().filter(decides).map(|part| Demand {
                        scope: part.to_owned(),
                        form: Form::Gpg {
                            lookaside: lookasides.of_scope(part).url().map(str::to_owned),
                        },
                        ..demand.clone()
                    }));
                }
                demands.push(demand);
            }
        }
        Ok((demands, files))
    }

    /// The folder that paths in the settings are relative to.
    pub(super) fn settings_folder(&self) -> &Path {
        self.common
            .settings
            .as_deref()
            .and_then(Path::parent)
            .unwrap_or(Path::new(""))
    }

    /// The rules in force: embedded, or from the folder that is named.
    pub(super) fn rules(&self) -> Result<Rules, Failure> {
        let folder = self.common.rules.clone().or_else(|| {
            self.settings
                .rules
                .as_ref()
                .map(|folder| PathBuf::from(&folder.value))
        });
        match folder {
            Some(folder) => Rules::with_folder(&folder),
            None => Rules::embedded(),
        }
        .map_err(|error| Failure::of(ui::ERROR, &error, error.hint()))
    }

    /// The rules that a lock names, from the store, the folder and the embedded ones.
    pub(super) fn rules_of(&self, lock: &Lock, store: Option<&Store>) -> Result<Rules, Failure> {
        let current = self.rules()?;
        let texts = rules_of(lock, &|digest: &Digest| {
            let embedded = current.iter().map(|rule| rule.text.as_str()).chain(EMBEDDED.iter().map(|(_, text)| *text));
            if let Some(text) = embedded.into_iter().find(|text| Digest::of(text.as_bytes()) == *digest) {
                return Ok(Some(text.to_owned()));
            }
            let Some(store) = store else { return Ok(None) };
            let Some(size) = store.size_of(digest).map_err(io::Error::from)? else { return Ok(None) };
            let bytes = crate::store::read(store, &Blob { digest: *digest, size }, 1 << 20).map_err(io::Error::other)?;
            Ok(String::from_utf8(bytes).ok())
        })
        .map_err(|absent| {
            Failure::new(ui::STALE, format!("the lock names rule files that are not at hand: {}", absent.join(", ")))
                .hint("run `imgbuild lock --update rules` to take the rules in force, and review the change")
        })?;
        Rules::with(texts).map_err(|error| Failure::of(ui::ERROR, &error, error.hint()))
    }

    /// Reads the config.
    pub(super) fn config(&self, paths: &Paths) -> Result<ImageSet, Failure> {
        let path = paths.config.as_path();
        let bytes = fs::read(path).map_err(|error| {
            let failure = cannot("read the config", path, &error);
            if error.kind() == io::ErrorKind::NotFound && !paths.is_mapping {
                failure.hint("write one with `imgbuild init`, or name it with -c FILE")
            } else {
                failure
            }
        })?;
        let name = path.display().to_string();
        let refused = |errors: config::ConfigErrors| Failure {
            code: ui::ERROR,
            text: errors.render(),
        };
        if paths.is_mapping {
            return config::parse_mapping(&bytes, &name).map_err(refused);
        }
        match config::parse_bytes(&bytes, &name).map_err(refused)? {
            Config::ImageSet(set) => Ok(set),
            Config::Delete(_) => Err(Failure::new(
                ui::ERROR,
                format!(
                    "{} is a DeleteImageSetConfiguration; this command takes an ImageSetConfiguration",
                    path.display()
                ),
            )),
        }
    }

    /// What a config asks for, by the rules in force. A section that no rule serves is refused.
    pub(super) fn request(
        &self,
        set: &ImageSet,
        path: &Path,
        rules: &Rules,
    ) -> Result<Request, Failure> {
        if !self.common.quiet {
            for note in &set.notes {
                ui::remark(note.render());
            }
        }
        let (signatures, mut files) = self.signatures()?;
        let (demands, more) = self.demands()?;
        files.extend(more);
        let mut request = Request {
            settings: BTreeMap::from([
                ("signatures".to_owned(), signatures),
                ("graph".to_owned(), self.graph()),
            ]),
            demands,
            files,
            ..Request::default()
        };
        let mut refused = Vec::new();
        for section in set.sections() {
            let rows = set.rows(&section.name).unwrap_or_default();
            if section.name == "mirror.blockedImages" {
                request.blocked = set
                    .mirror
                    .blocked_images
                    .iter()
                    .map(|pattern| pattern.value.as_str().to_owned())
                    .collect();
                continue;
            }
            if section.name == "mirror.helm.repositories" {
                refused.push(set.error(
                    section.position,
                    "every chart of a repository, in every version, is more than anybody wants",
                    Some("list those that you need under charts; `imgbuild list charts URL` shows what there is".to_owned()),
                ));
                continue;
            }
            let serving: Vec<&Rule> = rules.serving(&section.name).collect();
            if serving.is_empty() {
                let served: Vec<&str> = rules
                    .iter()
                    .flat_map(|rule| rule.reads.iter().map(String::as_str))
                    .collect();
                let hint = format!("the rules in force serve {}", served.join(", "));
                refused.push(set.error(
                    section.position,
                    format!("no rule serves {}", section.name),
                    Some(hint),
                ));
                continue;
            }
            let place = |position: Position| {
                format!("{}:{}:{}", path.display(), position.line, position.column)
            };
            let is_chart = section.name.starts_with("mirror.helm.");
            let mut values = Vec::new();
            for (index, row) in rows.iter().enumerate() {
                if is_chart {
                    match super::charts::row(self, row, &mut request.files) {
                        Ok(value) => values.push((row, value)),
                        Err(problem) => {
                            refused.push(set.error(row.position, problem.text, problem.hint));
                        }
                    }
                    continue;
                }
                let mut value = row.value();
                if section.name == "mirror.operators"
                    && let (Some(operator), Value::Map(fields)) =
                        (set.mirror.operators.get(index), &mut value)
                {
                    let file = self.operator(operator, fields, &place)?;
                    request.files.extend(file);
                }
                values.push((row, value));
            }
            for (rule, (row, value)) in serving
                .iter()
                .flat_map(|rule| values.iter().map(move |row| (rule, row)))
            {
                request.asked.push(Asked {
                    rule: rule.name.clone(),
                    at: place(row.position),
                    row: value.clone(),
                });
            }
        }
        self.samples(rules, &mut request)?;
        if !self.common.quiet {
            for note in super::charts::unused(self, &request.asked) {
                ui::remark(note);
            }
        }
        match config::ConfigErrors::of(refused) {
            Some(errors) => Err(Failure {
                code: ui::ERROR,
                text: errors.render(),
            }),
            None => Ok(request),
        }
    }

    /// What a row of a catalog needs besides its own fields: what the settings say of it, the digest of its template (the
    /// file is answered), and where each package was asked for.
    fn operator(
        &self,
        operator: &Operator,
        fields: &mut BTreeMap<String, Value>,
        place: &dyn Fn(Position) -> String,
    ) -> Result<Option<(String, Vec<u8>)>, Failure> {
        let said = self.settings.catalogs.iter().find(|(name, _)| {
            name.parse::<ImageName>()
                .is_ok_and(|name| name == operator.catalog.value)
        });
        if let Some((_, said)) = said {
            let mut refused = Vec::new();
            let mut settings = BTreeMap::new();
            if let Some(selection) = &said.value.selection {
                if let Err(error) = selection.value.parse::<Selection>() {
                    refused.push(
                        self.settings
                            .error(selection.position, error.to_string(), None),
                    );
                }
                settings.insert("selection".to_owned(), selection.value.as_str().into());
            }
            if let Some(prereleases) = &said.value.prereleases {
                if !["include", "exclude"].contains(&prereleases.value.as_str()) {
                    let message = format!(
                        "{:?} says nothing of pre-releases: expected include or exclude",
                        prereleases.value
                    );
                    refused.push(self.settings.error(prereleases.position, message, None));
                }
                settings.insert("prereleases".to_owned(), prereleases.value.as_str().into());
            }
            if let Some(errors) = config::ConfigErrors::of(refused) {
                return Err(Failure {
                    code: ui::ERROR,
                    text: errors.render(),
                });
            }
            fields.insert("settings".to_owned(), Value::Map(settings));
        }
        if let Some(Value::List(packages)) = fields.get_mut("packages") {
            for (package, named) in packages.iter_mut().zip(&operator.packages) {
                if let Value::Map(package) = package {
                    package.insert("at".to_owned(), place(named.position).into());
                }
            }
        }
        let Some(template) = &operator.target_catalog_source_template else {
            return Ok(None);
        };
        // As the config writes it, like every path there: relative to where the command runs.
        let path = PathBuf::from(&template.value);
        let bytes = fs::read(&path).map_err(|error| {
            cannot("read the template", &path, &error)
                .hint(format!("it is named at {}", place(template.position)))
        })?;
        fields.insert("template".to_owned(), Value::Digest(Digest::of(&bytes)));
        Ok(Some((template.value.clone(), bytes)))
    }

    /// Asks for the images of sample image streams, where the settings name their ConfigMap.
    fn samples(&self, rules: &Rules, request: &mut Request) -> Result<(), Failure> {
        let Some(settings) = &self.settings.samples else {
            return Ok(());
        };
        let Some(configmap) = &settings.value.configmap else {
            return Ok(());
        };
        let refused = |errors: config::ConfigErrors| Failure {
            code: ui::ERROR,
            text: errors.render(),
        };
        let wrong =
            |position, text: String| refused(self.settings.error(position, text, None).into());
        let path = self.settings_folder().join(&configmap.value);
        let bytes = fs::read(&path).map_err(|error| cannot("read the samples", &path, &error))?;
        let name = path.display().to_string();
        let samples = config::parse_samples(&bytes, &name).map_err(refused)?;
        let wanted = &settings.value.imagestreams;
        for stream in wanted {
            if !samples
                .iter()
                .any(|sample| sample.imagestream == stream.value)
            {
                return Err(wrong(
                    stream.position,
                    format!("{name} has no image stream {:?}", stream.value),
                ));
            }
        }
        let (Some(images), Some(own)) = (
            rules.serving("mirror.additionalImages").next(),
            rules.serving("samples").next(),
        ) else {
            return Err(wrong(
                configmap.position,
                "no rule in force serves samples and additional images".to_owned(),
            ));
        };
        request.asked.push(Asked {
            rule: own.name.clone(),
            row: Value::map([
                ("configmap", name.as_str().into()),
                ("sha256", Value::Digest(Digest::of(&bytes))),
            ]),
            at: format!("{name}:1:1"),
        });
        // Streams share images, and each is asked for once.
        let mut seen = BTreeSet::new();
        for sample in &samples {
            let is_wanted = wanted.is_empty()
                || wanted
                    .iter()
                    .any(|stream| stream.value == sample.imagestream);
            let image = sample.image.to_string();
            if !is_wanted || !seen.insert(image.clone()) {
                continue;
            }
            request.asked.push(Asked {
                rule: images.name.clone(),
                row: Value::map([("name", image.into())]),
                at: format!("{name}:{}:{}", sample.image.line(), sample.image.column()),
            });
        }
        request.files.push((name, bytes));
        Ok(())
    }

    /// What the settings say of a destination, by its registry and prefix.
    fn settings_of(&self, place: &Destination) -> Option<&config::Destination> {
        self.settings
            .destinations
            .values()
            .map(|settings| &settings.value)
            .find(|settings| {
                settings
                    .registry
                    .value
                    .parse::<Destination>()
                    .is_ok_and(|known| {
                        (&known.registry, &known.prefix) == (&place.registry, &place.prefix)
                    })
            })
    }

    /// The destination that a text names, with what the settings say of it.
    pub(super) fn destination(&self, text: &str) -> Result<Destination, Failure> {
        let mut place: Destination = text.parse().map_err(|error: ReferenceError| {
            Failure::of(
                ui::USAGE,
                &error,
                Some("a destination is docker://HOST[:PORT][/PREFIX]".to_owned()),
            )
        })?;
        let policy = self
            .settings_of(&place)
            .and_then(|settings| settings.source_policy.as_ref());
        place.asks_source =
            policy.map(|policy| policy.value == config::SourcePolicy::AllowContactingSource);
        Ok(place)
    }

    /// How repositories are named at a destination: by the flags, else by the settings.
    pub(super) fn shape(&self, shape: &Shape, place: &Destination) -> Layout {
        let default = self.settings_of(place).map(configured);
        layout(shape, &default.unwrap_or_default())
    }

    /// Reads a lock that must be there.
    pub(super) fn lock(&self, path: &Path) -> Result<(Lock, Vec<u8>), Failure> {
        match self.lock_if_any(path)? {
            Some(found) => Ok(found),
            None => Err(
                Failure::new(ui::STALE, format!("there is no lock at {}", path.display()))
                    .hint("run `imgbuild lock` first"),
            ),
        }
    }

    /// Reads a lock, if there is one.
    pub(super) fn lock_if_any(&self, path: &Path) -> Result<Option<(Lock, Vec<u8>)>, Failure> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(cannot("read the lock", path, &error)),
        };
        let text = std::str::from_utf8(&bytes).map_err(|error| {
            cannot(
                "read the lock",
                path,
                &io::Error::new(io::ErrorKind::InvalidData, error),
            )
        })?;
        let lock =
            text::parse(text, &path.display().to_string()).map_err(|error| lock_failure(&error))?;
        Ok(Some((lock, bytes)))
    }
}

/// What a lock lacks to answer a config: sentences for people.
pub(super) fn compare(
    lock: &Lock,
    wanted: &std::collections::BTreeMap<BlockKey, Want>,
) -> Vec<String> {
    crate::plan::check::wants(lock, wanted)
        .iter()
        .map(ToString::to_string)
        .collect()
}

/// The layout that flags describe, on top of another.
pub(super) fn layout(shape: &Shape, default: &Layout) -> Layout {
    Layout {
        name: shape.layout.clone().unwrap_or_else(|| default.name.clone()),
        max_nested_paths: shape.max_nested_paths.unwrap_or(default.max_nested_paths),
    }
}

/// The layout that the settings give a destination.
pub(super) fn configured(settings: &config::Destination) -> Layout {
    let default = Layout::default();
    let limit = settings.max_nested_paths.as_ref();
    Layout {
        name: settings
            .layout
            .as_ref()
            .map_or(default.name, |layout| layout.value.clone()),
        max_nested_paths: limit.map_or(default.max_nested_paths, |limit| {
            usize::try_from(limit.value).unwrap_or(usize::MAX)
        }),
    }
}

/// A lock that cannot be read.
pub(super) fn lock_failure(error: &text::LockError) -> Failure {
    Failure::of(ui::ERROR, error, error.hint())
}

/// A store that cannot be used.
pub(super) fn store_failure(error: &StoreError) -> Failure {
    Failure::of(ui::ERROR, error, error.hint())
}

/// A file that cannot be used.
pub(super) fn cannot(action: &str, path: &Path, error: &io::Error) -> Failure {
    let mut failure = Failure::new(ui::ERROR, format!("cannot {action} {}", path.display()));
    let _ = write!(failure.text, "\n  because {error}");
    failure
}
