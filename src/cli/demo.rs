//! `demo`: the whole story on loopback, told by running the real commands.
//!
//! ```text
//! FOLDER/
//! ├── environment        to be sourced by a shell that repeats the commands
//! ├── registries.conf    says where registry.example.test is
//! ├── auth.json          no credentials
//! ├── upstream/          the content of the upstream registry, as `imgbuild serve --data` takes it
//! ├── connected/         where there is a network: config, lock, chain, store
//! ├── services/          update graph and signatures of the product with releases
//! ├── transfer/1, 2      the archives; those of the product are in product-1, product-2
//! ├── disconnected/      where there is none: store, cluster resources
//! └── mirror/            the content of the mirror, as `imgbuild serve --data` takes it
//! ```
//!
//! The commands are started as a reader would start them, from this very executable, with no environment but what
//! `environment` says; so nothing that a user has configured changes the story.

mod releases;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::arguments::{Common, DemoArguments};
use super::site::{cannot, store_failure};
use super::ui::{self, Failure, count, say};
use crate::demo::{Catalog, Compression, Content, Form, Member, Operator, World, WorldError};
use crate::digest::Digest;
use crate::hint::Hint;
use crate::oci::{Descriptor, MANIFEST_LIMIT, Manifest, Platform, PlatformName};
use crate::reference::{ReferenceError, Repository};
use crate::registry::client::{Client, RegistryError};
use crate::registry::server::{Options, Repositories, Server};
use crate::registry::settings::Settings;
use crate::store::disk::{Access, Store};
use crate::store::{Blob, Source, TransferError, Verified, read};

/// The name that the upstream has in config and lock, so that they name no port.
const UPSTREAM: &str = "registry.example.test";
/// The path of the catalog.
const CATALOG: &str = "operators/index";
/// Its tag.
const CATALOG_TAG: &str = "v1";
/// The name by which the cluster of the story knows the mirror.
const MIRROR: &str = "mirror.example.test";
/// Where below the mirror everything goes.
const PREFIX: &str = "mirror";
/// What the bytes of the demo's images follow from.
const SEED: u64 = 1;
/// The lock of a repository that has none yet.
const EMPTY_LOCK: &str = "version = 1\n";

/// One image that the demo asks for.
struct Asked {
    /// Its path upstream.
    path: &'static str,
    /// Its path at the mirror.
    target: &'static str,
    /// The platforms that are carried; empty is all.
    platforms: Vec<PlatformName>,
    /// What the tag points at, or what is asked for.
    digest: Digest,
}

/// `imgbuild demo`
pub(super) fn run(
    common: &Common,
    arguments: &DemoArguments,
    stop: &AtomicBool,
) -> Result<u8, Failure> {
    if common.settings.is_some() || !common.certs.is_empty() || !common.insecure.is_empty() {
        return Err(Failure::new(
            ui::USAGE,
            "the demo has settings and registries of its own; --settings, --certs and --insecure do not apply",
        ));
    }
    let folder = folder(arguments.folder.as_deref())?;
    let story = Story::begin(folder, common, stop)?;
    let told = tell(&story, arguments.serve);
    told.map_err(|failure| {
        failure.hint(format!(
            "what there is so far is in {}",
            story.folder.display()
        ))
    })
}

/// Makes the folder to work in, as an absolute path.
fn folder(named: Option<&Path>) -> Result<PathBuf, Failure> {
    let Some(named) = named else {
        return tempfile::Builder::new()
            .prefix("imgbuild-demo-")
            .tempdir()
            .map(tempfile::TempDir::keep)
            .map_err(|error| cannot("make a folder in", &std::env::temp_dir(), &error));
    };
    fs::create_dir_all(named).map_err(|error| cannot("create", named, &error))?;
    let path = named
        .canonicalize()
        .map_err(|error| cannot("find", named, &error))?;
    let mut entries = fs::read_dir(&path).map_err(|error| cannot("read", &path, &error))?;
    if entries.next().is_some() {
        return Err(
            Failure::new(ui::ERROR, format!("{} is not empty", path.display()))
                .hint("name a new folder with --folder, or none"),
        );
    }
    Ok(path)
}

/// The folder, and how commands are started in it.
struct Story<'a> {
    stop: &'a AtomicBool,
    folder: PathBuf,
    program: PathBuf,
    more: Vec<String>,
    quiet: bool,
}

impl<'a> Story<'a> {
    fn begin(folder: PathBuf, common: &Common, stop: &'a AtomicBool) -> Result<Self, Failure> {
        let program = std::env::current_exe()
            .map_err(|error| cannot("find", Path::new("imgbuild"), &error))?;
        let mut more = Vec::new();
        let absolute = |path: &Path| {
            std::path::absolute(path)
                .unwrap_or_else(|_| path.to_owned())
                .display()
                .to_string()
        };
        if common.jobs != Common::JOBS {
            more.extend(["--jobs".to_owned(), common.jobs.to_string()]);
        }
        if let Some(rules) = &common.rules {
            more.extend(["--rules".to_owned(), absolute(rules)]);
        }
        if let Some(events) = &common.events {
            more.extend(["--events".to_owned(), absolute(events)]);
        }
        more.extend((0..common.verbose).map(|_| "-v".to_owned()));
        Ok(Self {
            stop,
            folder,
            program,
            more,
            quiet: common.quiet,
        })
    }

    fn say(&self, line: impl AsRef<str>) {
        if !self.quiet {
            say(line);
        }
    }

    /// A headline.
    fn chapter(&self, title: &str) {
        self.say(format!("\n== {title}\n"));
    }

    /// A word between commands, as a shell passes over it.
    fn remark(&self, text: &str) {
        self.say(format!("# {text}"));
    }

    /// A command that the reader can repeat.
    fn command(&self, line: &str) {
        self.say(format!("$ {line}"));
    }

    fn path(&self, below: &str) -> PathBuf {
        self.folder.join(below)
    }

    fn write(&self, below: &str, content: impl AsRef<[u8]>) -> Result<(), Failure> {
        let path = self.path(below);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|error| cannot("create", folder, &error))?;
        }
        fs::write(&path, content).map_err(|error| cannot("write", &path, &error))
    }

    fn enter(&self, place: &str) {
        self.command(&format!(
            "cd {}",
            quoted(&self.path(place).display().to_string())
        ));
    }

    /// Passes unless someone has interrupted.
    fn going_on(&self) -> Result<(), Failure> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Failure::new(ui::INCOMPLETE, "the demo was interrupted"));
        }
        Ok(())
    }

    /// Prints and runs `imgbuild` in a folder; its output follows, indented.
    fn imgbuild(&self, place: &str, arguments: &[&str]) -> Result<(), Failure> {
        self.going_on()?;
        let arguments: Vec<&str> = arguments
            .iter()
            .copied()
            .chain(self.more.iter().map(String::as_str))
            .collect();
        let words: Vec<String> = arguments.iter().map(|word| quoted(word)).collect();
        let line = format!("imgbuild {}", words.join(" "));
        self.command(&line);
        let failed = |error: &io::Error| cannot("run", &self.program, error);
        let (reader, writer) = io::pipe().map_err(|error| failed(&error))?;
        let mut command = Command::new(&self.program);
        command
            .args(&arguments)
            .current_dir(self.path(place))
            .env_clear()
            .envs(self.environment())
            .stdin(Stdio::null())
            .stdout(writer.try_clone().map_err(|error| failed(&error))?)
            .stderr(writer);
        let mut child = command.spawn().map_err(|error| failed(&error))?;
        // The pipe ends when nobody can write to it any more, this process included.
        drop(command);
        let mut kept = String::new();
        for output in BufReader::new(reader).lines() {
            let output = output.map_err(|error| failed(&error))?;
            let indented = if output.is_empty() {
                String::new()
            } else {
                format!("    {output}")
            };
            if self.quiet {
                kept.push_str(&indented);
                kept.push('\n');
            } else {
                say(indented);
            }
        }
        let status = child.wait().map_err(|error| failed(&error))?;
        if status.success() {
            return Ok(());
        }
        let code = status.code().and_then(|code| u8::try_from(code).ok());
        let mut failure = Failure::new(
            code.filter(|code| *code != ui::DONE).unwrap_or(ui::ERROR),
            format!("`{line}` failed ({status})"),
        );
        if !kept.is_empty() {
            let _ = write!(failure.text, "\n{}", kept.trim_end());
        }
        Err(failure)
    }

    /// Everything that a command sees of the environment.
    fn environment(&self) -> BTreeMap<&'static str, PathBuf> {
        let mut variables: BTreeMap<&'static str, PathBuf> = self.pointers().into();
        // A home without anything in it.
        variables.insert("HOME", self.path("connected"));
        variables.insert("TMPDIR", std::env::temp_dir());
        variables
    }

    /// The variables that a reader needs as well.
    fn pointers(&self) -> [(&'static str, PathBuf); 2] {
        [
            ("CONTAINERS_REGISTRIES_CONF", self.path("registries.conf")),
            ("REGISTRY_AUTH_FILE", self.path("auth.json")),
        ]
    }
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./:@=+,".contains(letter);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// A registry, and where its blobs are.
struct Registry {
    server: Server,
    store: Arc<Store>,
}

impl Registry {
    /// Serves `folder` as `imgbuild serve --data` does.
    fn start(folder: &Path) -> Result<Self, Failure> {
        let store =
            Arc::new(Store::open(folder, Access::Shared).map_err(|error| store_failure(&error))?);
        let repositories = Repositories::open(&folder.join(super::tools::REPOSITORIES))
            .map_err(|error| Failure::of(ui::ERROR, &error, error.hint()))?;
        let options = Options {
            grace: Duration::from_millis(500),
            ..Options::default()
        };
        let server = Server::start(options, Arc::clone(&store) as _, repositories)
            .map_err(|error| Failure::of(ui::ERROR, &error, error.hint()))?;
        Ok(Self { server, store })
    }

    fn publish(&self, world: &World) -> Result<(), Failure> {
        world
            .publish(self.server.repositories(), &*self.store)
            .map_err(|error| world_failure(&error))
    }

    fn host(&self) -> String {
        self.server.address().to_string()
    }
}

fn world_failure(error: &WorldError) -> Failure {
    Failure::of(ui::ERROR, error, None)
}

/// Runs everything, and says where to look.
fn tell(story: &Story<'_>, serve: bool) -> Result<u8, Failure> {
    let (mut world, mut asked) = first_world().map_err(|error| world_failure(&error))?;
    let upstream = Registry::start(&story.path("upstream"))?;
    upstream.publish(&world)?;
    let mirror = Registry::start(&story.path("mirror"))?;
    prepare(story, &world, &asked, &upstream.host(), &mirror.host())?;
    introduce(story, &upstream, &mirror);

    story.chapter("1. Where there is a network: pin, review, export");
    story.command(&sourcing(story));
    story.enter("connected");
    story.imgbuild("connected", &["lock"])?;
    story.remark("what a reviewer sees of the first lock: all of it is new");
    let lock = "lockfiles/imageset.lock.toml";
    story.imgbuild("connected", &["diff", "empty.lock.toml", lock])?;
    story.imgbuild("connected", &["export", "-o", "../transfer/1"])?;

    story.chapter("2. A month later: a tag has moved");
    let (old, new) = second_world(&mut world, &mut asked).map_err(|error| world_failure(&error))?;
    upstream.publish(&world)?;
    story.remark(&format!(
        "{UPSTREAM}/shop/web:stable was {}… and is now {}…",
        old.short(),
        new.short()
    ));
    story.remark("a lock does not follow by itself");
    story.imgbuild("connected", &["lock"])?;
    story.remark("but it does when told to, and says what changes");
    story.command(&format!("cp {lock} before.lock.toml"));
    let (from, to) = (
        story.path("connected").join(lock),
        story.path("connected/before.lock.toml"),
    );
    fs::copy(&from, &to).map_err(|error| cannot("copy", &from, &error))?;
    story.imgbuild("connected", &["lock", "--update"])?;
    story.imgbuild("connected", &["diff", "before.lock.toml", lock])?;
    story.imgbuild("connected", &["export", "-o", "../transfer/2"])?;
    let sizes = [
        size(&story.path("transfer/1"))?,
        size(&story.path("transfer/2"))?,
    ];
    story.remark(&format!(
        "the first archive has {}; the second, on top of it, {}",
        ui::bytes(sizes[0]),
        ui::bytes(sizes[1])
    ));

    story.chapter("3. Across the gap: prove, import");
    story.enter("disconnected");
    let archives = ["../transfer/1", "../transfer/2"];
    story.imgbuild("disconnected", &["verify", archives[0], archives[1]])?;
    let to = format!("docker://{}/{PREFIX}", mirror.host());
    for archive in archives {
        story.imgbuild("disconnected", &["import", archive, "--to", &to])?;
    }

    story.chapter("4. What the cluster is told");
    story.remark("import wrote this for the address that it pushed to; this is for the name that the cluster uses");
    story.enter("connected");
    let registry = format!("{MIRROR}/{PREFIX}");
    story.imgbuild("connected", &["emit", "--registry", &registry])?;

    story.remark("and how the chart is installed so that it pulls from the mirror");
    story.command("cat cluster-resources/helm/values/shop-1.0.0.yaml");
    let values = story.path("connected/cluster-resources/helm/values/shop-1.0.0.yaml");
    let text = fs::read_to_string(&values).map_err(|error| cannot("read", &values, &error))?;
    for line in text.lines() {
        story.say(format!("    {line}"));
    }

    story.chapter("5. The proof: every image from the mirror, by digest");
    prove(story, &mirror.host(), &asked)?;
    releases::tell(story, &mut world, &upstream, &mirror)?;
    conclude(story, &sizes, &upstream, &mirror, serve);
    if serve {
        while !story.stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    upstream.server.stop();
    mirror.server.stop();
    Ok(ui::DONE)
}

/// Who is who.
fn introduce(story: &Story<'_>, upstream: &Registry, mirror: &Registry) {
    story.say(format!(
        "This tells how images cross an air gap, in {}.",
        story.folder.display()
    ));
    story.say("Nothing outside this machine is asked; every command is real and can be repeated.");
    story.say("");
    story.say(format!(
        "  upstream  {}  six small images and a catalog of operators; registries.conf says that this is {UPSTREAM}",
        upstream.host()
    ));
    story.say(format!("  mirror    {}  empty", mirror.host()));
}

/// How a shell takes the settings of the demo over.
fn sourcing(story: &Story<'_>) -> String {
    let path = story.path("environment").display().to_string();
    format!(". {}", quoted(&path))
}

/// Writes what the commands read.
fn prepare(
    story: &Story<'_>,
    world: &World,
    asked: &[Asked],
    upstream: &str,
    mirror: &str,
) -> Result<(), Failure> {
    let mut environment =
        String::from("# Sourced by a shell, so that the commands of the demo work there.\n");
    for (name, path) in story.pointers() {
        let path = quoted(&path.display().to_string());
        let _ = writeln!(environment, "export {name}={path}");
    }
    environment.push_str("unset IMGBUILD_STORE\n");
    let program = quoted(&story.program.display().to_string());
    let _ = writeln!(environment, "imgbuild() {{ {program} \"$@\"; }}");
    story.write("environment", &environment)?;
    story.write(
        "registries.conf",
        format!(
            "# {UPSTREAM} is the upstream of the demo, on this machine.\n\
             [[registry]]\nprefix = \"{UPSTREAM}\"\nlocation = \"{upstream}\"\ninsecure = true\n\n\
             # The mirror, which speaks plain HTTP as well.\n\
             [[registry]]\nlocation = \"{mirror}\"\ninsecure = true\n"
        ),
    )?;
    story.write("auth.json", "{\"auths\":{}}\n")?;
    for side in ["connected", "disconnected"] {
        story.write(
            &format!("{side}/imgbuild.toml"),
            "# Content is kept here, not in the user's data directory.\nstore = \"store\"\n",
        )?;
    }
    let mut config = imageset(world, asked);
    config.push_str(&chart(story)?);
    story.write("connected/imageset.yaml", config)?;
    story.write("connected/empty.lock.toml", EMPTY_LOCK)
}

/// The config: every way to ask for an image once.
fn imageset(world: &World, asked: &[Asked]) -> String {
    let digest = |path: &str| {
        asked
            .iter()
            .find(|image| image.path == path)
            .map(|image| image.digest.to_string())
            .unwrap_or_default()
    };
    debug_assert_eq!(
        world.images().len(),
        asked.len() + 1,
        "each image is asked for, and a catalog"
    );
    format!(
        "apiVersion: mirror.openshift.io/v2alpha1
kind: ImageSetConfiguration
mirror:
  additionalImages:
    # By tag. Upstream moves this one.
    - name: {UPSTREAM}/shop/web:stable
    # An index of three platforms, of which two are carried.
    - name: {UPSTREAM}/shop/api:1.4
      platforms:
        - {{os: linux, architecture: amd64}}
        - {{os: linux, architecture: arm64}}
    # By digest.
    - name: {UPSTREAM}/shop/worker@{worker}
    # By both: the digest decides, the tag is kept.
    - name: {UPSTREAM}/base/os:9@{os}
    # Under another name at the mirror.
    - name: {UPSTREAM}/db/postgres:16
      targetRepo: data/postgres
      targetTag: \"16\"
    - name: {UPSTREAM}/tools/cli:latest
  operators:
    # One of the two operators of a catalog: its newest version, and the images that this needs.
    - catalog: {UPSTREAM}/{CATALOG}:{CATALOG_TAG}
      packages:
        - name: cache
",
        worker = digest("shop/worker"),
        os = digest("base/os"),
    )
}

/// Writes a chart of the shop, which names three of the images, and answers what the config says of it.
fn chart(story: &Story<'_>) -> Result<String, Failure> {
    let folder = "connected/charts/shop";
    story.write(
        &format!("{folder}/Chart.yaml"),
        "apiVersion: v2\nname: shop\nversion: 1.0.0\nappVersion: stable\n",
    )?;
    story.write(
        &format!("{folder}/values.yaml"),
        format!(
            "web:\n  image: {{registry: {UPSTREAM}, repository: shop/web, tag: stable}}\n\
             databaseImage: {UPSTREAM}/db/postgres:16\n"
        ),
    )?;
    story.write(
        &format!("{folder}/templates/web.yaml"),
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n  template:\n    spec:\n      \
             initContainers:\n      - image: {UPSTREAM}/tools/cli:latest\n      containers:\n      \
             {{{{- with .Values.web.image }}}}\n      - image: {{{{ printf \"%s/%s:%s\" .registry .repository .tag }}}}\n      \
             {{{{- end }}}}\n      - image: {{{{ .Values.databaseImage }}}}\n"
        ),
    )?;
    Ok("  helm:\n    local:\n      # A chart: the images that it renders to are found and pinned.\n      - path: charts/shop\n".to_owned())
}

fn platform(architecture: &str) -> Platform {
    Platform {
        os: "linux".to_owned(),
        architecture: architecture.to_owned(),
        variant: None,
        os_version: None,
    }
}

/// A layer with a program, which is a few words, and `size` bytes that it needs.
fn application(
    world: &mut World,
    name: &str,
    version: u32,
    size: u64,
    compression: Compression,
) -> Result<Digest, WorldError> {
    let folder = |path: &str| Member::Folder {
        path: path.to_owned(),
    };
    let text = format!("#!/bin/sh\necho {name} {version}\n");
    let members = [
        folder("app"),
        Member::file("app/run", text.as_str()),
        Member::File {
            path: "app/data".to_owned(),
            content: Content::made(&format!("{name} {version}"), size),
        },
    ];
    world.layer(&members, compression)
}

/// The layer that most images stand on.
fn base(world: &mut World, architecture: &str) -> Result<Digest, WorldError> {
    let members = [
        Member::Folder {
            path: "etc".to_owned(),
        },
        Member::file("etc/os-release", "NAME=\"Example Linux\"\nVERSION_ID=9\n"),
        Member::Folder {
            path: "lib".to_owned(),
        },
        Member::File {
            path: "lib/everything".to_owned(),
            content: Content::made(&format!("base {architecture}"), 600_000),
        },
    ];
    world.layer(&members, Compression::Gzip)
}

/// The upstream on the first day, and what is asked of it.
fn first_world() -> Result<(World, Vec<Asked>), WorldError> {
    let mut world = World::new(SEED);
    let none = BTreeMap::new();
    let amd64 = platform("amd64");
    let below = base(&mut world, "amd64")?;
    let mut asked = Vec::new();
    let mut ask = |path, target, platforms: &[&str], image: &Descriptor| {
        let name = |architecture: &&str| PlatformName {
            os: "linux".to_owned(),
            architecture: (*architecture).to_owned(),
            variant: None,
        };
        asked.push(Asked {
            path,
            target,
            platforms: platforms.iter().map(name).collect(),
            digest: image.digest,
        });
    };

    let layer = application(&mut world, "web", 1, 150_000, Compression::Gzip)?;
    let web = world.image(Form::Oci, &amd64, &[below, layer], &none)?;
    world.tag("shop/web", "stable", &web)?;
    ask("shop/web", "shop/web", &[], &web);

    let mut children = Vec::new();
    for architecture in ["amd64", "arm64", "s390x"] {
        let below = base(&mut world, architecture)?;
        let name = format!("api {architecture}");
        let layer = application(&mut world, &name, 1, 200_000, Compression::Gzip)?;
        let layers = [below, layer];
        children.push(world.image(Form::Oci, &platform(architecture), &layers, &none)?);
    }
    let api = world.index(Form::Oci, &children)?;
    world.tag("shop/api", "1.4", &api)?;
    ask("shop/api", "shop/api", &["amd64", "arm64"], &api);

    let layer = application(&mut world, "worker", 1, 100_000, Compression::None)?;
    let worker = world.image(Form::Oci, &amd64, &[below, layer], &none)?;
    world.tag("shop/worker", "nightly", &worker)?;
    ask("shop/worker", "shop/worker", &[], &worker);

    let os = world.image(Form::Oci, &amd64, &[below], &none)?;
    world.tag("base/os", "9", &os)?;
    ask("base/os", "base/os", &[], &os);

    let layer = application(&mut world, "postgres", 1, 900_000, Compression::Gzip)?;
    let postgres = world.image(Form::Docker, &amd64, &[below, layer], &none)?;
    world.tag("db/postgres", "16", &postgres)?;
    ask("db/postgres", "data/postgres", &[], &postgres);

    let layer = application(&mut world, "cli", 1, 300_000, Compression::Zstd)?;
    let cli = world.image(Form::Oci, &amd64, &[layer], &none)?;
    world.tag("tools/cli", "latest", &cli)?;
    ask("tools/cli", "tools/cli", &[], &cli);
    catalog(&mut world)?;
    Ok((world, asked))
}

/// A catalog of two operators.
fn catalog(world: &mut World) -> Result<(), WorldError> {
    let catalog = Catalog {
        host: UPSTREAM,
        repository: CATALOG,
        tag: CATALOG_TAG,
        form: Form::Oci,
        architectures: &["amd64"],
    };
    let operators = [
        Operator::new("cache", &["stable: 1.0.0 1.1.0", "candidate: 1.1.0 2.0.0"]),
        Operator::new("queue", &["stable: 0.9.0"]),
    ];
    world.catalog(&catalog, &operators).map(drop)
}

/// What has changed since: a new version of one image, under its old tag. Returns both digests.
fn second_world(world: &mut World, asked: &mut [Asked]) -> Result<(Digest, Digest), WorldError> {
    let below = base(world, "amd64")?;
    let layer = application(world, "web", 2, 160_000, Compression::Gzip)?;
    let web = world.image(
        Form::Oci,
        &platform("amd64"),
        &[below, layer],
        &BTreeMap::new(),
    )?;
    world.tag("shop/web", "stable", &web)?;
    let image = &mut asked[0];
    debug_assert_eq!(image.path, "shop/web", "it is the one that moves");
    Ok((std::mem::replace(&mut image.digest, web.digest), web.digest))
}

/// How many bytes the files of a folder have.
fn size(folder: &Path) -> Result<u64, Failure> {
    let failed = |error: &io::Error| cannot("read", folder, error);
    let mut sum = 0;
    for entry in fs::read_dir(folder).map_err(|error| failed(&error))? {
        let found = entry.and_then(|entry| entry.metadata());
        sum += found.map_err(|error| failed(&error))?.len();
    }
    Ok(sum)
}

/// Pulls what was asked for from the mirror, by the digests that upstream has, and hashes every byte.
fn prove(story: &Story<'_>, mirror: &str, asked: &[Asked]) -> Result<(), Failure> {
    let failed = |error: &RegistryError| Failure::of(ui::ERROR, error, error.hint());
    let client = Client::new(Settings {
        insecure: [mirror.to_owned()].into(),
        ..Settings::default()
    })
    .map_err(|error| failed(&error))?;
    let mut blobs = 0;
    let mut bytes = 0;
    for image in asked {
        story.going_on()?;
        let path = format!("{PREFIX}/{}", image.target);
        let repository = Repository::new(mirror, &path)
            .map_err(|error: ReferenceError| Failure::of(ui::ERROR, &error, error.hint()))?;
        let root = client
            .head_manifest(&repository.clone().with_digest(image.digest))
            .map_err(|error| failed(&error))?
            .ok_or_else(|| {
                Failure::new(
                    ui::UNVERIFIED,
                    format!("the mirror has no {path}@{}", image.digest),
                )
            })?;
        let pulled = pull(&client, &repository, &root, &image.platforms).map_err(|error| {
            let mut failure = Failure::of(ui::UNVERIFIED, &error, None);
            let _ = write!(failure.text, "\n  while {path} was pulled from the mirror");
            failure
        })?;
        blobs += pulled.len();
        bytes += pulled.iter().map(|blob| blob.size).sum::<u64>();
        story.say(format!(
            "    {:<20} {}  {} blobs, every byte hashed",
            path,
            image.digest,
            pulled.len()
        ));
    }
    story.remark(&format!(
        "{} pulled from the mirror: {}, {}, each byte for byte what upstream has",
        count(asked.len(), "image"),
        count(blobs, "blob"),
        ui::bytes(bytes)
    ));
    if let Some(first) = asked.first() {
        story.remark("the same by hand; it prints the digest that is asked for");
        story.command(&format!(
            "curl -s http://{mirror}/v2/{PREFIX}/{}/manifests/{} | sha256sum",
            first.target, first.digest
        ));
    }
    Ok(())
}

/// Reads a manifest and all below it; each byte is hashed on its way.
fn pull(
    client: &Client,
    repository: &Repository,
    root: &Descriptor,
    platforms: &[PlatformName],
) -> Result<Vec<Blob>, TransferError> {
    let blob = Blob::from(root);
    let bytes = read(&client.manifests(repository), &blob, MANIFEST_LIMIT)?;
    let broken =
        |error| TransferError::of(&blob, io::Error::new(io::ErrorKind::InvalidData, error));
    let mut pulled = vec![blob];
    match Manifest::parse(&bytes, Some(&root.media_type)).map_err(broken)? {
        Manifest::Image(image) => {
            let source = client.blobs(repository);
            for descriptor in image.blobs() {
                let blob = Blob::from(descriptor);
                let failed = |error| TransferError::of(&blob, error);
                let bytes = source
                    .open(&blob, 0)
                    .map_err(failed)?
                    .ok_or(TransferError::Absent { blob })?;
                io::copy(&mut Verified::new(bytes, blob), &mut io::sink()).map_err(failed)?;
                pulled.push(blob);
            }
        }
        Manifest::Index(index) => {
            for child in index.taken(platforms) {
                pulled.extend(pull(client, repository, child, &[])?);
            }
        }
    }
    Ok(pulled)
}

/// Where to look, and how to go on.
fn conclude(
    story: &Story<'_>,
    sizes: &[u64; 2],
    upstream: &Registry,
    mirror: &Registry,
    serve: bool,
) {
    let archives = format!(
        "the archives: {} and {}",
        ui::bytes(sizes[0]),
        ui::bytes(sizes[1])
    );
    let rows = [
        ("connected/imageset.yaml", "what was asked for"),
        (
            "connected/lockfiles/imageset.lock.toml",
            "what that is: every digest, to be reviewed and kept in git",
        ),
        (
            "connected/lockfiles/imageset.chain",
            "which archives there are, one line each",
        ),
        ("transfer/1, transfer/2", archives.as_str()),
        (
            "connected/product.yaml, services/",
            "the product with releases: what was asked for, its graph and signatures",
        ),
        (
            "connected/cluster-resources/",
            "what a cluster applies to pull from the mirror",
        ),
        (
            "disconnected/cluster-resources/",
            "the same as import wrote it",
        ),
    ];
    story.chapter("Where to look");
    story.say(format!("In {}:", story.folder.display()));
    story.say("");
    for (path, what) in rows {
        story.say(format!("  {path:<38}  {what}"));
    }
    story.say("");
    let source = sourcing(story);
    if serve {
        story.say("Both registries run until you interrupt this (Ctrl-C). In another shell:");
        story.say("");
        story.command(&source);
    } else {
        story.say("Both registries have stopped. To have them again, and to repeat any command:");
        story.say("");
        story.command(&source);
        for (name, registry) in [("upstream", upstream), ("mirror", mirror)] {
            let data = quoted(&story.path(name).display().to_string());
            story.command(&format!(
                "imgbuild serve --data {data} --listen {} &",
                registry.host()
            ));
        }
    }
    story.say("");
    story.say("For a mirror of your own, start with `imgbuild init`; README.md has the rest.");
}
