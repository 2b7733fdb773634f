//! The command line: names and flags that scripts and reviews depend on.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::step::place::Layout;

/// Builds mirrors for disconnected sites: lock, build, export, import, emit, audit.
#[derive(Debug, Parser)]
#[command(
    name = "imgbuild",
    version,
    disable_help_subcommand = true,
    propagate_version = false
)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) common: Common,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// What every command takes.
#[derive(Clone, Debug, Args)]
pub(super) struct Common {
    /// The content store [default: settings, else the user data directory]
    #[arg(long, global = true, env = "IMGBUILD_STORE", value_name = "DIR")]
    pub(super) store: Option<PathBuf>,
    /// The settings file [default: imgbuild.toml, if there is one]
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) settings: Option<PathBuf>,
    /// Rule files that replace or join the embedded ones
    #[arg(long, global = true, value_name = "DIR")]
    pub(super) rules: Option<PathBuf>,
    /// Credentials for registries, before all other places they are looked for
    #[arg(long, global = true, env = "REGISTRY_AUTH_FILE", value_name = "FILE")]
    pub(super) authfile: Option<PathBuf>,
    /// The registries.conf to use
    #[arg(
        long,
        global = true,
        env = "CONTAINERS_REGISTRIES_CONF",
        value_name = "FILE"
    )]
    pub(super) registries_conf: Option<PathBuf>,
    /// A further folder laid out like certs.d, or a PEM file of further certificate authorities
    #[arg(long, global = true, value_name = "PATH")]
    pub(super) certs: Vec<PathBuf>,
    /// A registry that may speak plain HTTP or show any certificate
    #[arg(long, global = true, value_name = "HOST[:PORT]")]
    pub(super) insecure: Vec<String>,
    /// Transfers at once
    #[arg(long, global = true, value_name = "N", default_value_t = Common::JOBS, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(super) jobs: u16,
    /// Say nothing but errors
    #[arg(short, long, global = true)]
    pub(super) quiet: bool,
    /// Say more; twice, even more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(super) verbose: u8,
    /// Write what happens as JSON lines
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) events: Option<PathBuf>,
}

impl Common {
    /// Transfers at once, unless told otherwise.
    pub(super) const JOBS: u16 = 16;
}

/// Which config and lock.
#[derive(Clone, Debug, Args)]
pub(super) struct Subject {
    /// The ImageSetConfiguration [default: imageset.yaml]
    #[arg(short, long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// A list of images instead of a config: lines of SOURCE=DESTINATION, or a file of `skopeo sync`
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    pub(super) mapping_file: Option<PathBuf>,
    /// The lock [default: lockfiles/<config stem>.lock.toml]
    #[arg(long, value_name = "FILE")]
    pub(super) lock: Option<PathBuf>,
}

impl Subject {
    /// Whether a config was named, so that it must be there.
    pub(super) const fn is_named(&self) -> bool {
        self.config.is_some() || self.mapping_file.is_some()
    }
}

/// Where images go, and how they are laid out there.
#[derive(Clone, Debug, Args)]
pub(super) struct Shape {
    /// How repositories are named: v2 (oc-mirror), v2-4.17 and v1 (older ones), oc (oc adm release mirror) [default: settings, else v2]
    #[arg(long, value_name = "NAME", value_parser = Layout::NAMES)]
    pub(super) layout: Option<String>,
    /// Most path components that the destination takes; 0 is no limit [default: settings, else no limit]
    #[arg(long, value_name = "N")]
    pub(super) max_nested_paths: Option<usize>,
}

/// A text or a machine's form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// The forms of an audit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum AuditFormat {
    /// For people, and what auditors compare the SHA-256 of.
    Text,
    /// For programs.
    Json,
    /// A bill of materials: CycloneDX 1.6.
    Cyclonedx,
    /// A bill of materials: SPDX 2.3.
    Spdx,
    /// Provenance: an in-toto statement with SLSA v1.
    Slsa,
}

/// The forms of a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum DiffFormat {
    /// For a terminal.
    Text,
    /// For a merge request.
    Md,
    /// For programs.
    Json,
}

/// The forms of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum PlanFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
    /// For Graphviz.
    Dot,
    /// One page to look at, by who asked.
    Html,
    /// A diagram, by who asked, for pages that render Mermaid.
    Mermaid,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Write a commented starter config
    Init(InitArguments),
    /// Pin every digest that the config asks for
    Lock(LockArguments),
    /// Say what the lock comes to: images, blobs, exact bytes, disk and media
    Plan(PlanArguments),
    /// Compare two locks
    Diff(DiffArguments),
    /// Say who brought a digest, repository or tag in
    Why(WhyArguments),
    /// Derive everything again, offline, and compare: a report that is equal on every machine
    Audit(AuditArguments),
    /// Fetch everything the lock names into the store
    Build(BuildArguments),
    /// Write the next sequenced archive, or an old one again
    Export(ExportArguments),
    /// Vouch for archives with a key
    Seal(SealArguments),
    /// Make keys for seals and receipts
    Key(KeyArguments),
    /// Prove archives without extracting them, or that a registry holds the whole lock
    Verify(VerifyArguments),
    /// Stage, check, adopt and push archives; emit the resources
    Import(ImportArguments),
    /// Build what is lacking, and put it into a registry
    Push(PushArguments),
    /// Put images into a registry straight from upstream, keeping only manifests
    Mirror(PushArguments),
    /// Plan a deletion from a registry, or carry out the plan
    Delete(DeleteArguments),
    /// Say what is in an archive or a lock
    Show(ShowArguments),
    /// Read what oc-mirror, `oc image mirror` or a registry's folder holds into the store, and lock it
    Takeover(TakeoverArguments),
    /// Write approval papers for an archive
    Dossier(DossierArguments),
    /// Write the cluster resources of a lock
    Emit(EmitArguments),
    /// Serve a folder as a registry
    Serve(ServeArguments),
    /// Look after the content store
    Store(StoreArguments),
    /// Look at releases and channels before choosing
    List(ListArguments),
    /// Take installers and clients out of a release, pinned to the payload they are taken with
    Extract(ExtractArguments),
    /// Print the rules in force
    Rules(RulesArguments),
    /// Print the version
    Version(VersionArguments),
    /// Print a completion script
    Completion(CompletionArguments),
    /// Print a lock as lines; git runs this to show differences
    Textconv(TextconvArguments),
    /// Merge locks; git runs this
    MergeDriver(MergeDriverArguments),
    /// Tell the whole story on loopback, with nothing installed
    ///
    /// Runs lock, diff, export, verify, import and emit against two small registries that it starts on this machine,
    /// and prints each command so that it can be repeated. Its store, settings, credentials and registries.conf are
    /// its own, in the folder that it leaves behind.
    Demo(DemoArguments),
}

#[derive(Debug, Args)]
pub(super) struct InitArguments {
    /// The folder to write into
    #[arg(default_value = ".")]
    pub(super) folder: PathBuf,
    /// Only prepare .gitattributes, for a project that has its config already
    #[arg(long)]
    pub(super) git: bool,
}

#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub(super) struct LockArguments {
    #[command(flatten)]
    pub(super) subject: Subject,
    /// Ask again: everything, or what SEL names (image:GLOB, package:NAME, catalog:REF, chart:REF, release, rules)
    #[arg(long, value_name = "SEL", num_args = 0..)]
    pub(super) update: Option<Vec<String>>,
    /// Only say whether the lock answers the config; exit 3 if not
    #[arg(long, conflicts_with_all = ["update", "offline", "skip", "accept_risk"])]
    pub(super) check: bool,
    /// Ask the names again, without writing; exit 3 if something has moved or vanished
    #[arg(long, requires = "check")]
    pub(super) upstream: bool,
    /// Derive the components of releases and the images of charts again from what is pinned; fetches what is not here
    #[arg(long, requires = "check")]
    pub(super) deep: bool,
    /// Take the answers to all names from this evidence log, and make every pin again
    #[arg(long, value_name = "FILE", conflicts_with_all = ["update", "offline", "check"])]
    pub(super) replay: Option<PathBuf>,
    /// Let only this lock answer names: a file, git:REV:PATH, REV:PATH, an archive or STREAM#SEQ
    ///
    /// Bytes come by digest from the store, or from where registries.conf leads. The update graph is made from the
    /// payloads that the lock pins, or asked at $UPDATE_URL_OVERRIDE, of which only those count. With --check: say
    /// whether that lock still has everything.
    #[arg(long, value_name = "LOCK", conflicts_with_all = ["replay", "upstream"])]
    pub(super) within: Option<String>,
    /// Ask nobody: drop blocks and reuse pins only
    #[arg(long, conflicts_with_all = ["update", "within"])]
    pub(super) offline: bool,
    /// Leave this image out from now on
    #[arg(long, value_name = "IMAGE", requires = "reason")]
    pub(super) skip: Vec<String>,
    /// Let update paths cross edges that carry this risk, from now on
    #[arg(long, value_name = "NAME")]
    pub(super) accept_risk: Vec<String>,
    /// Take the packages besides that selected bundles require
    #[arg(long, conflicts_with = "check")]
    pub(super) add_required: bool,
    /// Why images are left out
    #[arg(long, value_name = "TEXT", requires = "skip")]
    pub(super) reason: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct PlanArguments {
    #[command(flatten)]
    pub(super) subject: Subject,
    /// The form of the answer
    #[arg(long, value_enum, default_value_t = PlanFormat::Text)]
    pub(super) format: PlanFormat,
    /// Fetch no manifest that is not in the store
    #[arg(long)]
    pub(super) offline: bool,
    /// Write `source=destination` for every image into this file, sorted; needs --registry
    #[arg(long, value_name = "FILE", requires = "registry")]
    pub(super) mapping: Option<PathBuf>,
    /// Write such lines for the images that the store lacks anything of; no file if there are none
    #[arg(long, value_name = "FILE", requires = "registry")]
    pub(super) missing: Option<PathBuf>,
    /// The registry that --mapping and --missing name: HOST[:PORT][/PREFIX]
    #[arg(long, value_name = "HOST/PREFIX")]
    pub(super) registry: Option<String>,
    /// How repositories are named there: v2, v2-4.17, v1, oc [default: settings, else v2]
    #[arg(long, value_name = "NAME", value_parser = Layout::NAMES, requires = "registry")]
    pub(super) layout: Option<String>,
    /// Most path components that the destination takes [default: settings, else no limit]
    #[arg(long, value_name = "N", requires = "registry")]
    pub(super) max_nested_paths: Option<usize>,
    /// Say what is new since this lock: a file, git:REV:PATH, REV:PATH, an archive or STREAM#SEQ [default for html and mermaid: the last archive]
    #[arg(long, value_name = "LOCK")]
    pub(super) since: Option<String>,
    /// Say how many media of this size the next archive takes
    #[arg(long, value_name = "SIZE")]
    pub(super) media: Option<String>,
    /// The line of archives [default: the one whose config it is in imgbuild.toml, else the config stem]
    #[arg(long, value_name = "NAME")]
    pub(super) stream: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct DiffArguments {
    /// The older lock: a file, git:REV:PATH, REV:PATH, an archive or STREAM#SEQ
    pub(super) old: String,
    /// The newer lock
    pub(super) new: String,
    /// The form of the answer
    #[arg(long, value_enum, default_value_t = DiffFormat::Text)]
    pub(super) format: DiffFormat,
    /// Exit 1 if there are differences
    #[arg(long)]
    pub(super) exit_code: bool,
}

#[derive(Debug, Args)]
pub(super) struct WhyArguments {
    /// A digest, the start of one, a repository, a tag, or repository:tag
    #[arg(required_unless_present = "from")]
    pub(super) what: Option<String>,
    /// Look for every digest that this file mentions, whatever its form; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "what")]
    pub(super) from: Option<PathBuf>,
    /// Look into manifests as well: children, configs, layers
    #[arg(long)]
    pub(super) deep: bool,
    #[command(flatten)]
    pub(super) subject: Subject,
    /// The form of the answer
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(super) format: Format,
}

#[derive(Debug, Args)]
pub(super) struct AuditArguments {
    /// The ImageSetConfiguration [default: imageset.yaml, if there is one]
    #[arg(short, long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// The lock: a file, git:REV:PATH, REV:PATH, an archive or STREAM#SEQ [default: lockfiles/<config stem>.lock.toml]
    #[arg(long, value_name = "LOCK")]
    pub(super) lock: Option<String>,
    /// The line of archives [default: the one whose config it is in imgbuild.toml, else the config stem]
    #[arg(long, value_name = "NAME")]
    pub(super) stream: Option<String>,
    /// Render every chart with the helm on PATH as well, and say what it renders otherwise
    #[arg(long)]
    pub(super) helm: bool,
    /// Ask this registry for everything that the lock names as well: HOST[:PORT][/PREFIX]
    #[arg(long, value_name = "HOST/PREFIX")]
    pub(super) registry: Option<String>,
    /// How repositories are named there: v2, v2-4.17, v1, oc [default: settings, else v2]
    #[arg(long, value_name = "NAME", value_parser = Layout::NAMES, requires = "registry")]
    pub(super) layout: Option<String>,
    /// Most path components that the registry takes [default: settings, else no limit]
    #[arg(long, value_name = "N", requires = "registry")]
    pub(super) max_nested_paths: Option<usize>,
    /// Read these archives as well, every byte: files and folders; may be given again
    #[arg(long, value_name = "PATH")]
    pub(super) archives: Vec<PathBuf>,
    #[command(flatten)]
    pub(super) seals: SealsRequired,
    /// Sign what was found, if it is sound, with this secret key
    #[arg(long, value_name = "KEY")]
    pub(super) attest: Option<PathBuf>,
    /// The file that the signature is written to [default: audit.dsse.json]
    #[arg(short, long, value_name = "FILE", requires = "attest")]
    pub(super) output: Option<PathBuf>,
    /// Make sure that this file is a signature under the very same report
    #[arg(long, value_name = "FILE", requires = "by")]
    pub(super) attested: Option<PathBuf>,
    /// Public keys of those who may have signed it; may be given again
    #[arg(long, value_name = "KEYS", requires = "attested")]
    pub(super) by: Vec<PathBuf>,
    /// The time that an SPDX document is said to be of, in UTC [default: 1970-01-01T00:00:00Z]
    #[arg(long, value_name = "TIME")]
    pub(super) created: Option<String>,
    /// The form of the answer; with slsa, --attest signs and --attested expects the provenance
    #[arg(long, value_enum, default_value_t = AuditFormat::Text)]
    pub(super) format: AuditFormat,
}

#[derive(Debug, Args)]
pub(super) struct TextconvArguments {
    /// The lock
    pub(super) file: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct MergeDriverArguments {
    /// The version that both sides grew from (%O); empty if there is none
    pub(super) base: PathBuf,
    /// Our version (%A), which the result replaces
    pub(super) ours: PathBuf,
    /// Their version (%B)
    pub(super) theirs: PathBuf,
    /// The path in the repository (%P), for messages
    pub(super) path: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct BuildArguments {
    #[command(flatten)]
    pub(super) subject: Subject,
}

/// Forms that other programs read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ExportForm {
    /// An OCI image layout, for skopeo, crane and oras.
    OciLayout,
    /// The folder of a stock registry (registry:2, docker-registry).
    RegistryFs,
}

#[derive(Debug, Args)]
pub(super) struct ExportArguments {
    #[command(flatten)]
    pub(super) subject: Subject,
    /// The folder that the parts are written to
    #[arg(short, long, value_name = "DIR")]
    pub(super) output: PathBuf,
    /// The line of archives [default: the one whose config it is in imgbuild.toml, else the config stem]
    #[arg(long, value_name = "NAME")]
    pub(super) stream: Option<String>,
    /// Largest part, everything counted (4.7GB, 4GiB, 500GiB) [default: settings, else archiveSize, else 500GiB]
    #[arg(long, value_name = "SIZE")]
    pub(super) part_size: Option<String>,
    /// Carry everything, for a first delivery or a new start
    #[arg(long, conflicts_with_all = ["overlap", "for_sequences", "base_lock"])]
    pub(super) full: bool,
    /// Apply on top of what sites confirm in this file of receipts; may be given again, and is remembered
    #[arg(long, value_name = "FILE", conflicts_with_all = ["full", "overlap", "for_sequences", "base_lock", "seq"])]
    pub(super) receipt: Vec<PathBuf>,
    /// Public keys, one of which must have signed each receipt
    #[arg(long, value_name = "FILE", requires = "receipt")]
    pub(super) receipt_keys: Vec<PathBuf>,
    /// Add so much parity, from which damaged or lost parts can be restored (10%)
    #[arg(long, value_name = "SHARE")]
    pub(super) parity: Option<String>,
    /// Write no archive but everything the lock names, in this form, into the folder
    #[arg(long = "as", value_enum, value_name = "FORM", conflicts_with_all = ["stream", "part_size", "full", "receipt", "seal", "parity", "overlap", "for_sequences", "base_lock", "seq"])]
    pub(super) form: Option<ExportForm>,
    /// How repositories are named in a registry's folder: v2, v2-4.17, v1, oc [default: v2]
    #[arg(long, value_name = "NAME", requires = "form", value_parser = Layout::NAMES)]
    pub(super) layout: Option<String>,
    /// Most path components of a repository in a registry's folder; 0 is no limit
    #[arg(long, value_name = "N", requires = "form")]
    pub(super) max_nested_paths: Option<usize>,
    /// Vouch for the archive with this secret key; may be given again
    #[arg(long, value_name = "KEY")]
    pub(super) seal: Vec<PathBuf>,
    /// When the seal ceases to count: a date or a time
    #[arg(long, value_name = "DATE", requires = "seal")]
    pub(super) expires: Option<String>,
    /// Apply on top of any of the last N+1 archives
    #[arg(long, value_name = "N", conflicts_with_all = ["for_sequences", "base_lock"])]
    pub(super) overlap: Option<usize>,
    /// Apply on top of any of these archives
    #[arg(
        long = "for",
        value_name = "SEQ",
        value_delimiter = ',',
        conflicts_with = "base_lock"
    )]
    pub(super) for_sequences: Vec<u64>,
    /// Apply on top of this lock; may be given again
    #[arg(long, value_name = "FILE")]
    pub(super) base_lock: Vec<PathBuf>,
    /// Write this earlier archive again, byte for byte
    #[arg(long, value_name = "N", conflicts_with_all = ["full", "overlap", "for_sequences", "base_lock"])]
    pub(super) seq: Option<u64>,
    /// Write only these parts again
    #[arg(long, value_name = "N", value_delimiter = ',', requires = "seq")]
    pub(super) only_parts: Vec<u32>,
}

#[derive(Debug, Args)]
pub(super) struct VerifyArguments {
    /// Folders or parts
    #[arg(required_unless_present = "registry")]
    pub(super) paths: Vec<PathBuf>,
    /// Do not hash the blobs one by one
    #[arg(long)]
    pub(super) quick: bool,
    /// First restore damaged and missing parts from the parity files beside them
    #[arg(long)]
    pub(super) repair: bool,
    /// The chain that the archives must be on
    #[arg(long, value_name = "FILE")]
    pub(super) chain: Option<PathBuf>,
    /// Prove that this registry holds everything that the lock names: HOST[:PORT][/PREFIX]
    #[arg(long, value_name = "HOST/PREFIX", conflicts_with_all = ["paths", "quick", "chain"])]
    pub(super) registry: Option<String>,
    /// The config that the lock is called after [default: imageset.yaml]
    #[arg(short, long, value_name = "FILE", requires = "registry")]
    pub(super) config: Option<PathBuf>,
    /// The lock [default: lockfiles/<config stem>.lock.toml]
    #[arg(long, value_name = "FILE", requires = "registry")]
    pub(super) lock: Option<PathBuf>,
    /// Read every blob once and hash it
    #[arg(long, requires = "registry")]
    pub(super) deep: bool,
    /// How repositories are named: v2, v2-4.17, v1, oc [default: settings, else v2]
    #[arg(long, value_name = "NAME", value_parser = Layout::NAMES, requires = "registry")]
    pub(super) layout: Option<String>,
    /// Most path components that the destination takes [default: settings, else no limit]
    #[arg(long, value_name = "N", requires = "registry")]
    pub(super) max_nested_paths: Option<usize>,
    #[command(flatten)]
    pub(super) seals: SealsRequired,
    /// The form of the answer
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(super) format: Format,
}

/// Which seals are required.
#[derive(Debug, Args)]
pub(super) struct SealsRequired {
    /// Public keys that are trusted: the archive must be sealed by one of them; may be given again
    #[arg(long, value_name = "KEYS")]
    pub(super) require_seal: Vec<PathBuf>,
    /// How many of these keys must have signed
    #[arg(long, value_name = "N", default_value_t = 1, requires = "require_seal")]
    pub(super) threshold: usize,
}

#[derive(Debug, Args)]
pub(super) struct SealArguments {
    /// Folders or parts
    #[arg(required = true, value_name = "ARCHIVE")]
    pub(super) paths: Vec<PathBuf>,
    /// The secret key to sign with; may be given again
    #[arg(long, required = true, value_name = "KEY")]
    pub(super) key: Vec<PathBuf>,
    /// When the seal ceases to count: a date or a time
    #[arg(long, value_name = "DATE")]
    pub(super) expires: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct KeyArguments {
    #[command(subcommand)]
    pub(super) command: KeyCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Write a secret key NAME.key, which only you can read, and its public key NAME.pub
    New {
        /// The name, or a path without suffix
        name: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(super) struct PushArguments {
    /// Where to: docker://HOST[:PORT][/PREFIX]
    pub(super) destination: String,
    #[command(flatten)]
    pub(super) subject: Subject,
    /// The folder for the cluster resources
    #[arg(short, long, value_name = "DIR", default_value = "cluster-resources")]
    pub(super) output: PathBuf,
    #[command(flatten)]
    pub(super) shape: Shape,
    /// Take every image of an index, also those that `platforms` leaves out, for registries that insist on it
    #[arg(long)]
    pub(super) all_platforms: bool,
    /// The form of the answer
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(super) format: Format,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("phase").required(true).args(["plan", "execute"]))]
pub(super) struct DeleteArguments {
    /// Where from: docker://HOST[:PORT][/PREFIX]; with --execute, every row of the plan must be there
    #[arg(required_unless_present = "execute")]
    pub(super) destination: Option<String>,
    /// Write what would go into this file; delete nothing
    #[arg(long, value_name = "FILE")]
    pub(super) plan: Option<PathBuf>,
    /// Write the manifests that would go by repository into this file as well, as JSON; no file if there are none
    #[arg(long, value_name = "FILE", requires = "plan")]
    pub(super) prune_plan: Option<PathBuf>,
    /// Delete exactly what this file says
    #[arg(long, value_name = "FILE", conflicts_with_all = ["prune_plan", "config", "keep", "lock", "layout", "max_nested_paths"])]
    pub(super) execute: Option<PathBuf>,
    /// The DeleteImageSetConfiguration that says what goes
    #[arg(short, long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// A lock whose images stay; may be given again. Without -c everything else goes
    #[arg(long, value_name = "LOCK")]
    pub(super) keep: Vec<PathBuf>,
    /// The lock that releases and packages of the config are looked up in; what it has besides stays
    #[arg(long, value_name = "FILE", requires = "config")]
    pub(super) lock: Option<PathBuf>,
    /// How repositories are named: v2, v2-4.17, v1, oc [default: settings, else v2]
    #[arg(long, value_name = "NAME", value_parser = Layout::NAMES)]
    pub(super) layout: Option<String>,
    /// Most path components that the destination takes [default: settings, else no limit]
    #[arg(long, value_name = "N")]
    pub(super) max_nested_paths: Option<usize>,
}

#[derive(Debug, Args)]
pub(super) struct ImportArguments {
    /// Folders or parts
    #[arg(required = true)]
    pub(super) paths: Vec<PathBuf>,
    /// Where to: docker://HOST[:PORT][/PREFIX] or oci:DIR [default: the store]
    #[arg(long, value_name = "DESTINATION")]
    pub(super) to: Option<String>,
    /// The folder for the cluster resources
    #[arg(short, long, value_name = "DIR", default_value = "cluster-resources")]
    pub(super) output: PathBuf,
    #[command(flatten)]
    pub(super) shape: Shape,
    /// Adopt an older archive than the one adopted last
    #[arg(long)]
    pub(super) allow_rollback: bool,
    /// Adopt a full archive of another chain
    #[arg(long)]
    pub(super) rebase: bool,
    /// The name of this site in receipts [default: the destination's host]
    #[arg(long, value_name = "NAME")]
    pub(super) site: Option<String>,
    /// The chain that joins archives which lie far apart; those on it must be the ones it records
    #[arg(long, value_name = "FILE")]
    pub(super) chain: Option<PathBuf>,
    #[command(flatten)]
    pub(super) seals: SealsRequired,
    /// Write what was adopted to this file, to be brought back to where archives are made
    #[arg(long, value_name = "FILE")]
    pub(super) receipt: Option<PathBuf>,
    /// Sign the receipt with this secret key
    #[arg(long, value_name = "KEY")]
    pub(super) key: Option<PathBuf>,
    /// The form of the answer
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(super) format: Format,
}

/// What `emit` writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum EmitKind {
    /// Mirror sets and whatever else the rules say, for clusters.
    Cluster,
    /// ImageContentSourcePolicy, for clusters before 4.13.
    Icsp,
    /// A tree of hosts.toml, for containerd (Windows nodes).
    HostsToml,
    /// A drop-in of registries.conf, for CRI-O, MicroShift and podman.
    RegistriesConf,
    /// A registries.conf by which the next hop finds everything in this registry, by digest (`lock --within`).
    NextHop,
    /// The ConfigMap of certificate authorities, and the image config that names it.
    Trust,
    /// Pull secrets, merged into one.
    PullSecret,
    /// The [[containers]] of an Image Builder blueprint.
    Blueprint,
    /// The config of the samples operator.
    Samples,
    /// The lines of an install-config, as installers since 4.14 and those up to 4.13 read them.
    InstallConfig,
}

#[derive(Debug, Args)]
pub(super) struct ShowArguments {
    /// The folder of an archive, one of its parts, or a lock
    #[arg(value_name = "ARCHIVE|LOCK")]
    pub(super) path: PathBuf,
    /// The form of the answer
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(super) format: Format,
}

#[derive(Debug, Args)]
pub(super) struct TakeoverArguments {
    /// Archives (mirror_*.tar), a cache, a registry's folder or a tar of it, or a tree of `oc image mirror`
    #[arg(required = true)]
    pub(super) paths: Vec<PathBuf>,
    /// Where the lock is written
    #[arg(long, value_name = "FILE", default_value = "takeover.lock.toml")]
    pub(super) lock: PathBuf,
    /// The registry that images are named by; those tools do not keep where they came from
    #[arg(long, value_name = "HOST[:PORT]", default_value = "takeover.invalid")]
    pub(super) registry: String,
    /// Write the working directory that oc-mirror v2 archives carry, and their config, below this folder
    #[arg(long, value_name = "DIR")]
    pub(super) files: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct DossierArguments {
    /// The archive's sequence
    pub(super) sequence: u64,
    /// The folder for the papers
    #[arg(short, long, value_name = "DIR")]
    pub(super) output: PathBuf,
    #[command(flatten)]
    pub(super) subject: Subject,
    /// The line of archives [default: the one whose config it is in imgbuild.toml, else the config stem]
    #[arg(long, value_name = "NAME")]
    pub(super) stream: Option<String>,
    /// The folder of the archive, to list its parts with their checksums
    #[arg(long, value_name = "DIR")]
    pub(super) archive: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct EmitArguments {
    #[command(flatten)]
    pub(super) subject: Subject,
    /// The registry that the cluster pulls from: HOST[:PORT][/PREFIX]
    #[arg(long, value_name = "HOST/PREFIX")]
    pub(super) registry: Option<String>,
    /// What to write; may be given again
    #[arg(
        long,
        value_enum,
        value_name = "KIND",
        default_value = "cluster",
        value_delimiter = ','
    )]
    pub(super) kind: Vec<EmitKind>,
    /// The folder to write into
    #[arg(short, long, value_name = "DIR", default_value = "cluster-resources")]
    pub(super) output: PathBuf,
    #[command(flatten)]
    pub(super) shape: Shape,
    /// Let nodes ask the mirror alone, never the source, whatever the settings say (cluster, hosts-toml, registries-conf, next-hop)
    #[arg(long)]
    pub(super) never_contact_source: bool,
    /// A certificate authority of the registry, PEM; may be given again (trust, install-config)
    #[arg(long, value_name = "FILE")]
    pub(super) ca: Vec<PathBuf>,
    /// A pull secret; may be given again, later ones win (pull-secret; for hosts-toml the login of the mirror)
    #[arg(long, value_name = "FILE")]
    pub(super) pull_secret: Vec<PathBuf>,
    /// The only file that the merged pull secret is written to (pull-secret)
    #[arg(long, value_name = "FILE")]
    pub(super) secret_file: Option<PathBuf>,
    /// Take only images whose name contains this; may be given again (blueprint)
    #[arg(long, value_name = "TEXT")]
    pub(super) filter: Vec<String>,
}

#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub(super) struct ServeArguments {
    /// The folder that the registry keeps its content in
    #[arg(long, value_name = "DIR")]
    pub(super) data: Option<PathBuf>,
    /// The address to listen on
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:5000")]
    pub(super) listen: std::net::SocketAddr,
    /// Take no pushes and no deletions
    #[arg(long)]
    pub(super) read_only: bool,
    /// Speak TLS with a certificate of its own, which the first run makes
    #[arg(long)]
    pub(super) tls: bool,
    /// A name or address that clients use, for the certificate of --tls; may be given again
    #[arg(long, value_name = "NAME", requires = "tls")]
    pub(super) hostname: Vec<String>,
    /// The certificate chain, PEM
    #[arg(
        long,
        value_name = "FILE",
        requires = "tls_key",
        conflicts_with = "tls"
    )]
    pub(super) tls_cert: Option<PathBuf>,
    /// The key of the certificate, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(super) tls_key: Option<PathBuf>,
    /// Users and passwords (bcrypt), as `htpasswd -B` writes them
    #[arg(long, value_name = "FILE")]
    pub(super) htpasswd: Option<PathBuf>,
    /// Keep users in the data folder; the first run makes this one with a password that is shown once
    #[arg(long, value_name = "NAME", conflicts_with = "htpasswd", num_args = 0..=1, default_missing_value = "init")]
    pub(super) first_user: Option<String>,
    /// Largest blob that is taken (20GiB) [default: no limit]
    #[arg(long, value_name = "SIZE")]
    pub(super) upload_limit: Option<String>,
    /// Print a systemd unit that serves like this, and do nothing else
    #[arg(long)]
    pub(super) print_unit: bool,
}

#[derive(Debug, Args)]
pub(super) struct StoreArguments {
    #[command(subcommand)]
    pub(super) command: StoreCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum StoreCommand {
    /// Say what the store holds
    Stat {
        /// The form of the answer
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Hash everything again; put what is damaged aside and say who needs it
    Fsck {
        /// The form of the answer
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Remove what no root needs
    Gc {
        /// Only say what would go
        #[arg(long)]
        dry_run: bool,
        /// The form of the answer
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// List, add or remove what keeps content from being collected
    Root {
        /// A lock to keep
        #[arg(long, value_name = "FILE")]
        add: Option<PathBuf>,
        /// The name of a root to let go
        #[arg(long, value_name = "NAME", conflicts_with = "add")]
        remove: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(super) struct ListArguments {
    #[command(subcommand)]
    pub(super) command: ListCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum ListCommand {
    /// List the releases of a channel, or the minors there are
    Releases(ListReleases),
    /// List the channels of a minor
    Channels(ListReleases),
    /// List the packages of an operator catalog, the channels of a package, or the versions of a channel
    Operators(ListOperators),
    /// List the charts of a repository, or the versions of one
    Charts(ListCharts),
}

/// `imgbuild list operators`
#[derive(Debug, Args)]
pub(super) struct ListOperators {
    /// The catalog: HOST/PATH:TAG, HOST/PATH@DIGEST or oci:PATH
    #[arg(long, value_name = "REF", required_unless_present = "catalogs")]
    pub(super) catalog: Option<String>,
    /// Only this package, with its channels
    #[arg(long, value_name = "NAME", requires = "catalog")]
    pub(super) package: Option<String>,
    /// Only the versions of this channel
    #[arg(long, value_name = "NAME", requires = "package")]
    pub(super) channel: Option<String>,
    /// The versions of each channel, too
    #[arg(long, requires = "package")]
    pub(super) versions: bool,
    /// List the catalogs of a minor instead
    #[arg(long, requires = "version", conflicts_with = "catalog")]
    pub(super) catalogs: bool,
    /// The minor version, X.Y
    #[arg(long, value_name = "X.Y", requires = "catalogs")]
    pub(super) version: Option<String>,
    /// The form of the answer
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(super) format: Format,
}

#[derive(Debug, Args)]
pub(super) struct ListCharts {
    /// The repository: https://HOST/PATH, or oci://HOST/PATH/NAME for the versions of a chart in a registry
    #[arg(value_name = "URL")]
    pub(super) repository: String,
    /// List the versions of this chart
    pub(super) name: Option<String>,
    /// The form of the answer
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(super) format: Format,
}

#[derive(Debug, Args)]
pub(super) struct ListReleases {
    /// The channel [default: stable-VERSION]
    #[arg(long, value_name = "NAME")]
    pub(super) channel: Option<String>,
    /// The minor version, X.Y
    #[arg(long, value_name = "X.Y")]
    pub(super) version: Option<String>,
    /// List the channels of the version instead of its releases
    #[arg(long, requires = "version")]
    pub(super) channels: bool,
    /// Architectures: amd64, arm64, ppc64le, s390x, multi [default: amd64]
    #[arg(long, value_name = "ARCH", value_delimiter = ',')]
    pub(super) filter_by_archs: Vec<String>,
    /// Releases of OKD
    #[arg(long)]
    pub(super) okd: bool,
    /// The form of the answer
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(super) format: Format,
}

#[derive(Debug, Args)]
pub(super) struct ExtractArguments {
    /// The tools: oc, openshift-install, openshift-install-fips, openshift-baremetal-install, ccoctl; oc.rhel8 and the like
    #[arg(value_name = "TOOL", required_unless_present_any = ["tools", "file"])]
    pub(super) commands: Vec<String>,
    /// The payload, by digest: REGISTRY/REPOSITORY@DIGEST. Installers pull from where it is named
    #[arg(long, value_name = "PAYLOAD")]
    pub(super) from: String,
    /// All tools as archives, with checksums
    #[arg(long, conflicts_with = "commands")]
    pub(super) tools: bool,
    /// Print this file of the payload: image-references, release-metadata and others
    #[arg(long, value_name = "NAME", conflicts_with_all = ["commands", "tools", "command_os"])]
    pub(super) file: Option<String>,
    /// The system: linux, mac, windows, with /ARCHITECTURE or without; * makes archives for all [default: this one]
    #[arg(long, value_name = "SYSTEM")]
    pub(super) command_os: Option<String>,
    /// The folder that files are written to
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub(super) output: PathBuf,
    /// Ask no registry: take everything from the store
    #[arg(long)]
    pub(super) offline: bool,
    /// The form of the answer
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(super) format: Format,
}

#[derive(Debug, Args)]
pub(super) struct RulesArguments {
    /// Print the text of one rule
    pub(super) name: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct VersionArguments {
    /// The form of the answer
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(super) format: Format,
}

#[derive(Debug, Args)]
pub(super) struct CompletionArguments {
    /// The shell
    pub(super) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(super) struct DemoArguments {
    /// The folder to work in, new or empty [default: a new one below the temporary directory]
    #[arg(long, value_name = "DIR")]
    pub(super) folder: Option<PathBuf>,
    /// Keep both registries running until interrupted
    #[arg(long)]
    pub(super) serve: bool,
}
