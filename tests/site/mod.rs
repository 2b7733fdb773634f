//! Two sites and the registries around them, for tests that run the real program.
//!
//! ```text
//! upstream  ->  Connected: lock, export  ->  a folder that is carried  ->  Disconnected: import  ->  mirror
//! ```
//!
//! Each site has a folder, a home, a store, a registries.conf and an auth file of its own, and an environment with
//! nothing else in it. Registries are the embedded one ([`registry`]) and, where it is installed, Debian's
//! ([`stock`]); what they serve is generated or read from image layouts ([`content`]), the same on every run.

pub(crate) mod content;
pub(crate) mod registry;
pub(crate) mod release;
pub(crate) mod schema;
pub(crate) mod stock;
pub(crate) mod wire;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use imgbuild::digest::Digest;

use registry::Registry;

/// The host that upstream images are named by; registries.conf leads it to the registry of the test.
pub(crate) const UPSTREAM: &str = "registry.example.test";

/// Room that a file system in memory must have to be worked on.
const ROOM: u64 = 1 << 30;

/// A new folder; in memory where there is room, since a thousand small files are slow to sync and to remove.
pub(crate) fn folder(name: &str) -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let has_room = rustix::fs::statvfs(memory)
        .is_ok_and(|stat| stat.f_bavail.saturating_mul(stat.f_frsize) >= ROOM);
    let mut builder = tempfile::Builder::new();
    let prefix = format!("imgbuild-{name}-");
    builder.prefix(&prefix);
    if has_room && let Ok(folder) = builder.tempdir_in(memory) {
        return folder;
    }
    builder.tempdir().unwrap()
}

/// A place where the program runs.
pub(crate) struct Site {
    folder: tempfile::TempDir,
}

/// A command that has ended.
#[derive(Clone)]
pub(crate) struct Run {
    /// What was run.
    pub(crate) command: String,
    /// The exit code; none if a signal ended it.
    pub(crate) code: Option<i32>,
    /// Standard output.
    pub(crate) stdout: String,
    /// Standard error.
    pub(crate) stderr: String,
}

impl Run {
    pub(crate) fn of(command: &Command, output: &Output) -> Self {
        let mut line = command.get_program().to_string_lossy().into_owned();
        if let Some(end) = line.rfind('/') {
            line.drain(..=end);
        }
        for argument in command.get_args() {
            let _ = write!(line, " {}", argument.to_string_lossy());
        }
        Self {
            command: line,
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Everything that was printed, and the command, for messages.
    pub(crate) fn story(&self) -> String {
        format!(
            "$ {}\n{}{}exit {:?}",
            self.command, self.stdout, self.stderr, self.code
        )
    }

    /// Insists on an exit code.
    #[track_caller]
    pub(crate) fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "the exit code of\n{}", self.story());
        self
    }

    /// Insists on success.
    #[track_caller]
    pub(crate) fn done(self) -> Self {
        self.ends(0)
    }

    /// Insists that each text was printed, on either stream.
    #[track_caller]
    pub(crate) fn says(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(
                self.stdout.contains(text) || self.stderr.contains(text),
                "{text:?} must be said by\n{}",
                self.story()
            );
        }
        self
    }

    /// Insists that a text was not printed.
    #[track_caller]
    pub(crate) fn hides(self, text: &str) -> Self {
        assert!(
            !self.stdout.contains(text) && !self.stderr.contains(text),
            "{text:?} must not be said by\n{}",
            self.story()
        );
        self
    }

    /// Insists that an error was reported with advice.
    #[track_caller]
    pub(crate) fn hints(self, texts: &[&str]) -> Self {
        let Some((_, hint)) = self.stderr.split_once("hint: ") else {
            // Errors of the config are drawn, and have their advice in the drawing.
            let Some((_, help)) = self.stderr.split_once("help: ") else {
                panic!("a hint must be given by\n{}", self.story())
            };
            for text in texts {
                assert!(
                    help.contains(text),
                    "the help must say {text:?}\n{}",
                    self.story()
                );
            }
            return self;
        };
        for text in texts {
            assert!(
                hint.contains(text),
                "the hint must say {text:?}\n{}",
                self.story()
            );
        }
        self
    }

    /// Standard output as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("JSON expected ({error})\n{}", self.story()))
    }
}

impl Site {
    /// A new place with an empty store.
    pub(crate) fn new() -> Self {
        let site = Self {
            folder: folder("site"),
        };
        site.write("auth.json", "{}");
        site.write("registries.conf", "");
        site
    }

    /// A path below the folder.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file below the folder.
    pub(crate) fn write(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Reads a text file below the folder.
    #[track_caller]
    pub(crate) fn read(&self, name: impl AsRef<Path>) -> String {
        let path = self.path(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Makes a host's name lead to an address, where plain HTTP is spoken.
    pub(crate) fn leads(&self, host: &str, address: &str) {
        let mut conf = fs::OpenOptions::new()
            .append(true)
            .open(self.path("registries.conf"))
            .unwrap();
        writeln!(
            conf,
            "[[registry]]\nprefix = \"{host}\"\nlocation = \"{address}\"\ninsecure = true"
        )
        .unwrap();
    }

    /// Makes a host's name lead to an address that must show a certificate.
    pub(crate) fn leads_over_tls(&self, host: &str, address: &str) {
        let text = self.read("registries.conf")
            + &format!("[[registry]]\nprefix = \"{host}\"\nlocation = \"{address}\"\n");
        self.write("registries.conf", text);
    }

    /// Writes the auth file: one user at one place.
    pub(crate) fn logs_in(&self, place: &str, user: &str, password: &str) {
        use base64::Engine as _;
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        let auths = serde_json::json!({ "auths": { place: { "auth": pair } } });
        self.write("auth.json", auths.to_string());
    }

    /// A command with the environment of this site and nothing else.
    pub(crate) fn tool(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.folder.path())
            .env("LC_ALL", "C")
            .env("IMGBUILD_STORE", self.path("store"))
            .env("REGISTRY_AUTH_FILE", self.path("auth.json"))
            .env("CONTAINERS_REGISTRIES_CONF", self.path("registries.conf"))
            .stdin(Stdio::null());
        command
    }

    /// The program, not yet started.
    pub(crate) fn command<I: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = I>,
    ) -> Command {
        let mut command = self.tool(env!("CARGO_BIN_EXE_imgbuild"));
        command.args(arguments);
        command
    }

    /// Runs the program.
    pub(crate) fn run<I: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = I>) -> Run {
        let mut command = self.command(arguments);
        let output = command.output().unwrap();
        Run::of(&command, &output)
    }

    /// Runs the program with the words of a line.
    pub(crate) fn imgbuild(&self, line: &str) -> Run {
        self.run(line.split_whitespace())
    }

    /// Runs another program with the words of a line; `None`, with a remark, where it is not installed.
    pub(crate) fn other(&self, line: &str) -> Option<Run> {
        let mut words = line.split_whitespace();
        let program = words.next().unwrap();
        let mut command = self.tool(program);
        command.args(words);
        match command.output() {
            Ok(output) => Some(Run::of(&command, &output)),
            Err(error) => {
                eprintln!("skipped: {program} is not usable here: {error}");
                None
            }
        }
    }

    /// The digests of all files below a folder, by relative path.
    pub(crate) fn tree(&self, name: impl AsRef<Path>) -> BTreeMap<String, Digest> {
        tree(&self.path(name))
    }

    /// The names of the files in a folder, sorted.
    pub(crate) fn names(&self, name: impl AsRef<Path>) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path(name)) else {
            return Vec::new();
        };
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// The names of the parts of archives in a folder, sorted.
    pub(crate) fn parts(&self, name: impl AsRef<Path>) -> Vec<String> {
        let mut names = self.names(name);
        names.retain(|name| Path::new(name).extension().is_some_and(|end| end == "tar"));
        names
    }

    /// Insists that every blob of the store is what its name says.
    #[track_caller]
    pub(crate) fn has_a_sound_store(&self) {
        self.imgbuild("store fsck").done().says(&[" 0 damaged"]);
    }
}

/// The digests of all files below a folder, by relative path.
pub(crate) fn tree(root: &Path) -> BTreeMap<String, Digest> {
    let mut files = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap().display().to_string();
                files.insert(name, Digest::of(&fs::read(&path).unwrap()));
            }
        }
    }
    files
}

/// Copies a folder.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The site that reaches upstream: it locks, builds and exports.
pub(crate) struct Connected {
    site: Site,
}

impl Deref for Connected {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.site
    }
}

impl Connected {
    /// A site whose [`UPSTREAM`] is `upstream`.
    pub(crate) fn to(upstream: &Registry) -> Self {
        Self::at(&upstream.address())
    }

    /// A site whose [`UPSTREAM`] is at an address.
    pub(crate) fn at(address: &str) -> Self {
        let site = Site::new();
        site.leads(UPSTREAM, address);
        Self { site }
    }

    /// Writes a config that lists images of [`UPSTREAM`].
    pub(crate) fn wants<S: AsRef<str>>(&self, images: impl IntoIterator<Item = S>) {
        let mut rows = String::new();
        for image in images {
            let image = image.as_ref();
            let _ = writeln!(rows, "    - name: {UPSTREAM}/{image}");
        }
        self.config(&format!("  additionalImages:\n{rows}"));
    }

    /// Writes a config with this below `mirror:`.
    pub(crate) fn config(&self, mirror: &str) {
        self.write(
            "imageset.yaml",
            format!(
                "apiVersion: mirror.openshift.io/v2alpha1\nkind: ImageSetConfiguration\nmirror:\n{mirror}"
            ),
        );
    }

    /// Locks.
    #[track_caller]
    pub(crate) fn lock(&self) -> Run {
        self.imgbuild("lock").done()
    }

    /// Exports into a folder, with further flags.
    #[track_caller]
    pub(crate) fn export(&self, folder: &str, flags: &str) -> Run {
        self.imgbuild(&format!("export -o {folder} {flags}")).done()
    }

    /// The text of the lock.
    pub(crate) fn lock_text(&self) -> String {
        self.read("lockfiles/imageset.lock.toml")
    }
}

/// The site that sees only what is carried to it, and its mirror.
pub(crate) struct Disconnected {
    site: Site,
}

impl Deref for Disconnected {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.site
    }
}

impl Disconnected {
    /// A site without any registry.
    pub(crate) fn new() -> Self {
        Self { site: Site::new() }
    }

    /// A site whose mirror is at an address.
    pub(crate) fn with(address: &str) -> Self {
        let site = Site::new();
        site.leads(address, address);
        Self { site }
    }

    /// Brings a folder of another site here, under the same name.
    pub(crate) fn receives(&self, from: &Site, folder: &str) {
        copy(&from.path(folder), &self.path(folder));
    }

    /// What the store knows to be adopted: the records of all streams, by path.
    pub(crate) fn heads(&self) -> BTreeMap<String, Digest> {
        self.tree("store/imgbuild/streams")
            .into_iter()
            .filter(|(name, _)| name.contains("head"))
            .collect()
    }
}
