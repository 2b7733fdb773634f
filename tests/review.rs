//! A lock under review: compared, explained, merged, audited, held to a policy and to upstream, by the real program.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;

use imgbuild::canon::Key;
use imgbuild::demo::{
    Catalog, Compression, Form, Member, Operator, Product, Release, Signer, Upstream, World,
};
use imgbuild::digest::Digest;
use imgbuild::oci::Platform;
use imgbuild::registry::server::{Options, Repositories, Server};
use imgbuild::store::disk::{Access, Store};
use imgbuild::store::memo::{Memo as _, Output as Outcome};
use imgbuild::store::memory::Memory;

use crate::site::schema::follows;

/// The host that images are named by; registries.conf leads it to the upstream of the test.
const HOST: &str = "registry.example.test";

/// Images that most tests ask for, one per line of the config with room between them.
const IMAGES: [&str; 5] = ["team/a:1", "team/b:1", "team/c:1", "team/d:1", "team/e:1"];

fn platform(architecture: &str) -> Platform {
    Platform {
        os: "linux".to_owned(),
        architecture: architecture.to_owned(),
        variant: None,
        os_version: None,
    }
}

/// A world with an image for each name: one layer that all share, one of its own; `multi` ones for two platforms.
fn world(images: &[&str], multi: &[&str]) -> World {
    let mut world = World::new(8);
    let base = world
        .layer(
            &[Member::file("etc/base", [7; 3000].as_slice())],
            Compression::Gzip,
        )
        .unwrap();
    for name in images.iter().chain(multi) {
        let (repository, tag) = name.rsplit_once(':').unwrap();
        let mut one = |architecture: &str| {
            let own = Member::file("app/name", format!("{name} {architecture}").as_str());
            let own = world.layer(&[own], Compression::Gzip).unwrap();
            world
                .image(
                    Form::Oci,
                    &platform(architecture),
                    &[base, own],
                    &BTreeMap::new(),
                )
                .unwrap()
        };
        let image = if multi.contains(name) {
            let children = [one("amd64"), one("arm64")];
            world.index(Form::Oci, &children).unwrap()
        } else {
            one("amd64")
        };
        world.tag(repository, tag, &image).unwrap();
    }
    world
}

/// A command that has ended.
struct Run {
    line: String,
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Run {
    fn of(line: String, output: &Output) -> Self {
        Self {
            line,
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    fn story(&self) -> String {
        format!(
            "$ {}\n{}{}exit {:?}",
            self.line, self.stdout, self.stderr, self.code
        )
    }

    #[track_caller]
    fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "the exit code of\n{}", self.story());
        self
    }

    #[track_caller]
    fn says(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(
                self.stdout.contains(text) || self.stderr.contains(text),
                "{text:?} must be said by\n{}",
                self.story()
            );
        }
        self
    }

    #[track_caller]
    fn hides(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(
                !self.stdout.contains(text) && !self.stderr.contains(text),
                "{text:?} must not be said by\n{}",
                self.story()
            );
        }
        self
    }

    #[track_caller]
    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}:\n{}", self.story()))
    }
}

/// A working tree with a store of its own.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    /// A place whose [`HOST`] is an upstream; without one, nothing can be asked.
    fn new(upstream: Option<&Upstream>) -> Self {
        let place = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        place.write("auth.json", "{}");
        place.reaches(upstream);
        place
    }

    fn reaches(&self, upstream: Option<&Upstream>) {
        // Port 1 is closed everywhere, so a question that must not be asked fails.
        let at = upstream.map_or_else(|| "127.0.0.1:1".to_owned(), Upstream::host);
        self.write(
            "registries.conf",
            &format!("[[registry]]\nprefix = \"{HOST}\"\nlocation = \"{at}\"\ninsecure = true\n"),
        );
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[track_caller]
    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Writes a config that lists these images of [`HOST`], with comments between them so that git can merge it.
    fn wants(&self, images: &[&str]) {
        let mut text =
            "apiVersion: mirror.openshift.io/v2alpha1\nkind: ImageSetConfiguration\nmirror:\n  additionalImages:\n"
                .to_owned();
        for (number, image) in images.iter().enumerate() {
            writeln!(text, "    - name: {HOST}/{image}").unwrap();
            for line in 0..4 {
                writeln!(text, "      # {number}.{line}").unwrap();
            }
        }
        self.write("imageset.yaml", &text);
    }

    fn command(&self, program: &str, words: &[&str]) -> Run {
        let bin = PathBuf::from(env!("CARGO_BIN_EXE_imgbuild"));
        let path = format!(
            "{}:{}",
            bin.parent().unwrap().display(),
            std::env::var("PATH").unwrap_or_default()
        );
        let output = Command::new(program)
            .args(words)
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.folder.path())
            .env("LC_ALL", "C")
            .env("IMGBUILD_STORE", self.path("store"))
            .env("REGISTRY_AUTH_FILE", self.path("auth.json"))
            .env("CONTAINERS_REGISTRIES_CONF", self.path("registries.conf"))
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_AUTHOR_NAME", "a")
            .env("GIT_AUTHOR_EMAIL", "a@example.test")
            .env("GIT_COMMITTER_NAME", "a")
            .env("GIT_COMMITTER_EMAIL", "a@example.test")
            .output()
            .unwrap();
        Run::of(format!("{program} {}", words.join(" ")), &output)
    }

    fn imgbuild(&self, line: &str) -> Run {
        let words: Vec<&str> = line.split_whitespace().collect();
        self.command(env!("CARGO_BIN_EXE_imgbuild"), &words)
    }

    fn git(&self, line: &str) -> Run {
        let words: Vec<&str> = line.split_whitespace().collect();
        self.command("git", &words)
    }

    /// Makes a repository of it, as the hints of `init` say.
    fn init(&self) {
        self.git("init -q -b main").ends(0);
        self.imgbuild("init --git").ends(0);
        for (key, value) in [
            ("merge.imgbuild.name", "imgbuild lockfiles"),
            ("merge.imgbuild.driver", "imgbuild merge-driver %O %A %B %P"),
            ("diff.imgbuild.textconv", "imgbuild textconv"),
        ] {
            self.command("git", &["config", key, value]).ends(0);
        }
        self.write(
            ".gitignore",
            "store\nauth.json\nregistries.conf\nout\n.cache\n",
        );
    }

    fn commit(&self, message: &str) {
        self.git("add -A").ends(0);
        self.command("git", &["commit", "-q", "-m", message])
            .ends(0);
    }

    fn lock(&self) -> String {
        self.read("lockfiles/imageset.lock.toml")
    }
}

const LOCK: &str = "lockfiles/imageset.lock.toml";

#[test]
fn branches_that_change_different_images_merge_and_check_without_the_network() {
    let mut all = IMAGES.to_vec();
    all.extend(["team/a:2", "team/e:2"]);
    let upstream = Upstream::start(world(&all, &[]), Options::default()).unwrap();
    let place = Place::new(Some(&upstream));
    place.init();
    place.wants(&IMAGES);
    place.imgbuild("lock").ends(0);
    place.commit("start");

    for (branch, images) in [
        (
            "left",
            ["team/a:2", "team/b:1", "team/c:1", "team/d:1", "team/e:1"],
        ),
        (
            "right",
            ["team/a:1", "team/b:1", "team/c:1", "team/d:1", "team/e:2"],
        ),
    ] {
        place.git(&format!("checkout -q -b {branch} main")).ends(0);
        place.wants(&images);
        place.imgbuild("lock").ends(0);
        place.commit(branch);
    }
    // Git tells it block by block, and imgbuild in its own words.
    place
        .git("diff main right")
        .ends(0)
        .says(&[
            &format!("+image {HOST}/team/e:2"),
            &format!("-image {HOST}/team/e:1"),
        ])
        .hides(&["[[image]]"]);
    place
        .imgbuild(&format!("diff git:main:{LOCK} right:{LOCK}"))
        .ends(0)
        .says(&[
            &format!("image - {HOST}/team/e:1"),
            &format!("image + {HOST}/team/e:2"),
            "(manifests present: exact)",
        ])
        .hides(&["\x1b["]);
    place
        .imgbuild(&format!("diff main:{LOCK} main:{LOCK} --exit-code"))
        .ends(0)
        .says(&["no differences"]);
    place
        .imgbuild(&format!("diff main:{LOCK} {LOCK} --exit-code"))
        .ends(1)
        .says(&["in all:"]);

    place.git("merge -q left -m merged").ends(0);
    place.reaches(None);
    place
        .imgbuild("lock --check")
        .ends(0)
        .says(&["answers imageset.yaml"]);
    let merged = place.lock();
    for image in ["team/a:2", "team/e:2"] {
        assert!(
            merged.contains(image),
            "{image} must have survived the merge:\n{merged}"
        );
    }
    assert!(
        !merged.contains("team/a:1"),
        "what both sides dropped is gone:\n{merged}"
    );
}

#[test]
fn a_conflict_shows_the_disputed_block_alone_and_lock_resolves_it() {
    let upstream = Upstream::start(world(&IMAGES, &[]), Options::default()).unwrap();
    let place = Place::new(Some(&upstream));
    place.init();
    place.wants(&IMAGES);
    place.imgbuild("lock").ends(0);
    place.commit("start");
    for branch in ["left", "right"] {
        upstream
            .change(|world| world.move_tag("team/c", "1"))
            .unwrap();
        place.git(&format!("checkout -q -b {branch} main")).ends(0);
        place
            .imgbuild(&format!("lock --update image:{HOST}/team/c:1"))
            .ends(0);
        place.commit(branch);
    }
    place.git("merge -q left").ends(1).says(&[
        &format!("both sides changed image {HOST}/team/c:1"),
        "run `imgbuild lock`",
    ]);
    let disputed = place.lock();
    assert_eq!(
        disputed.matches("<<<<<<< ours").count(),
        1,
        "one block is disputed:\n{disputed}"
    );
    let start = disputed.find("<<<<<<<").unwrap();
    let end = disputed.find(">>>>>>>").unwrap();
    for image in IMAGES {
        let inside = disputed[start..end].contains(image);
        assert_eq!(
            inside,
            image == "team/c:1",
            "only team/c is between the markers, not {image}:\n{disputed}"
        );
    }
    place
        .imgbuild("lock --check")
        .ends(1)
        .says(&["merge conflict markers"]);
    place
        .imgbuild("lock")
        .ends(0)
        .says(&["was in conflict and has been resolved anew"]);
    place.imgbuild("lock --check").ends(0);
    let now = upstream.world().at("team/c", "1").unwrap().digest;
    assert!(
        place.lock().contains(&now.to_string()),
        "the disputed pin is what upstream has now"
    );
}

#[test]
fn the_merge_driver_marks_what_it_cannot_read() {
    let place = Place::new(None);
    place.write("o", "a\n");
    place.write("a", "b\n");
    place.write("b", "c\n");
    place
        .imgbuild("merge-driver o a b some.lock.toml")
        .ends(1)
        .says(&["some.lock.toml: ", "merged line by line"]);
    assert!(
        place.read("a").contains("<<<<<<< ours\nb\n"),
        "a dispute is marked even then: {}",
        place.read("a")
    );
    // Git stops at a converter that fails.
    place.imgbuild("textconv b").ends(0).says(&["c"]);
}

#[test]
fn init_prepares_git_and_keeps_what_is_there() {
    let place = Place::new(None);
    place.write(".gitattributes", "*.png binary");
    place
        .imgbuild("init")
        .ends(0)
        .says(&["added to", "git config merge.imgbuild.driver"]);
    let first = place.read(".gitattributes");
    assert!(
        first.starts_with("*.png binary\nlockfiles/*.lock.toml "),
        "lines are added: {first}"
    );
    place
        .imgbuild("init --git")
        .ends(0)
        .says(&["nothing to add"]);
    assert_eq!(
        place.read(".gitattributes"),
        first,
        "a second time changes nothing"
    );
    place
        .imgbuild("init")
        .ends(1)
        .says(&["imageset.yaml is there already"]);
}

#[test]
fn locks_are_compared_wherever_they_are() {
    let upstream = Upstream::start(world(&IMAGES, &["team/m:1"]), Options::default()).unwrap();
    let place = Place::new(Some(&upstream));
    place.wants(&["team/a:1", "team/m:1"]);
    place.imgbuild("lock").ends(0);
    place.imgbuild("export -o out/one --stream prod").ends(0);
    place.wants(&["team/a:1", "team/b:1", "team/m:1"]);
    place.imgbuild("lock").ends(0);
    place.imgbuild("export -o out/two --stream prod").ends(0);
    let expected = place.imgbuild("diff prod#1 prod#2 --format json").ends(0);
    let schema: serde_json::Value =
        serde_json::from_str(&fs::read_to_string("tests/data/lock/diff.schema.json").unwrap())
            .unwrap();
    let json = expected.json();
    for key in schema["required"].as_array().unwrap() {
        assert!(
            json.get(key.as_str().unwrap()).is_some(),
            "the schema requires {key}: {json}"
        );
    }
    // Of team/b its manifest, config and own layer are new; the base is there.
    assert_eq!(
        json["blobs"]["added"]["count"], 3,
        "shared layers are not new: {json}"
    );
    for (old, new) in [
        ("prod#1", LOCK),
        ("out/one", LOCK),
        ("out/one", "out/two"),
        ("prod#1", "out/two"),
    ] {
        let found = place
            .imgbuild(&format!("diff {old} {new} --format json"))
            .ends(0);
        assert_eq!(
            found.stdout, expected.stdout,
            "{old} and {new} are the same two locks"
        );
    }
    let part = fs::read_dir(place.path("out/two"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "tar"))
        .expect("an archive has a part");
    let found = place
        .imgbuild(&format!("diff prod#1 {} --format json", part.display()))
        .ends(0);
    assert_eq!(
        found.stdout, expected.stdout,
        "a part of an archive stands for the archive"
    );
    place
        .imgbuild("diff prod#1 prod#7")
        .ends(1)
        .says(&["has no sequence 7"]);
    place
        .imgbuild("diff prod#1 nowhere")
        .ends(1)
        .says(&["there is no lock at nowhere"]);
    place.imgbuild("diff prod#1 git:--output=x:y").ends(2);

    // Without the store the bytes are unknown from a file, and known from archives, which carry every manifest.
    fs::rename(place.path("store"), place.path("aside")).unwrap();
    place
        .imgbuild("diff out/one out/two")
        .ends(0)
        .says(&["exact"]);
    place
        .imgbuild(&format!("diff {LOCK} out/two --format md"))
        .ends(0)
        .says(&["No differences"]);
    place.write("old.lock.toml", "# imgbuild lockfile, written by `imgbuild lock`. Review it and merge it; do not edit it by hand.\nversion = 1\n");
    place
        .imgbuild(&format!("diff old.lock.toml {LOCK}"))
        .ends(0)
        .says(&["new blobs unknown (", "absent)"]);
}

#[test]
fn why_names_every_way_from_a_layer_to_the_config() {
    let upstream = Upstream::start(world(&IMAGES, &["team/m:1"]), Options::default()).unwrap();
    let place = Place::new(Some(&upstream));
    place.wants(&["team/a:1", "team/m:1"]);
    place.imgbuild("lock").ends(0);
    let manifest = upstream.world().at("team/a", "1").unwrap().digest;
    let text =
        fs::read_to_string(place.path(format!("store/blobs/sha256/{}", manifest.hex()))).unwrap();
    let text: serde_json::Value = serde_json::from_str(&text).unwrap();
    let base = text["layers"][0]["digest"].as_str().unwrap().to_owned();
    let config = text["config"]["digest"].as_str().unwrap().to_owned();
    place.imgbuild(&format!("why {base}")).ends(0).says(&[
        &format!("image {HOST}/team/a:1\n  layer 1  {base}\n    of image  {manifest}\n  asked for at imageset.yaml:5:"),
        &format!("image {HOST}/team/m:1\n  layer 1  {base}\n    of linux/amd64  sha256:"),
        "    of linux/arm64  sha256:",
    ]);
    place
        .imgbuild(&format!("why {HOST}/team/a:1 --deep"))
        .ends(2)
        .says(&["--deep looks for digests"]);
    place
        .imgbuild("why 000000")
        .ends(1)
        .says(&["nothing in lockfiles"]);

    let absent = Digest::of(b"elsewhere");
    place.write(
        "cve.csv",
        &format!("id,digest\nCVE-1,{config}\nCVE-2,{HOST}/team/a@{manifest}\nCVE-3,{absent}\n"),
    );
    place.imgbuild("why --from cve.csv").ends(0).says(&[
        &format!("{config}\n  image {HOST}/team/a:1\n    config  {config}"),
        &format!("{manifest}\n  image {HOST}/team/a:1\n    image  {HOST}/team/a@{manifest}"),
        "2 of 3 digests in ",
    ]);
    let json = place
        .imgbuild("why --from cve.csv --format json")
        .ends(0)
        .json();
    assert_eq!(
        json["absent"],
        serde_json::json!([absent]),
        "what is not there is said: {json}"
    );
    assert_eq!(json["unread"], 0, "every manifest was read: {json}");

    // Without manifests nobody can know, and that is said.
    fs::rename(place.path("store"), place.path("aside")).unwrap();
    place
        .imgbuild(&format!("why {config}"))
        .ends(5)
        .says(&["2 manifests of this lock are not in the store"]);
}

/// A place with a lock, a build and an archive, and its report.
fn audited(upstream: &Upstream) -> (Place, String) {
    let place = Place::new(Some(upstream));
    place.wants(&["team/a:1", "team/b:1", "team/m:1"]);
    place
        .imgbuild(&format!("lock --skip {HOST}/team/b:1 --reason CHG-1"))
        .ends(0);
    place.imgbuild("export -o out").ends(0);
    place.reaches(None);
    let run = place
        .imgbuild("audit")
        .ends(0)
        .says(&["\nsound\n", "CHG-1"]);
    let (body, last) = run.stdout.trim_end().rsplit_once('\n').unwrap();
    assert_eq!(
        last,
        format!("report {}", Digest::of(format!("{body}\n").as_bytes())),
        "the last line is the digest of the others"
    );
    (place, run.stdout)
}

/// What is done to a file.
type Change = Box<dyn FnOnce(String) -> String>;

/// Replaces a file, also where it is read-only.
fn tamper(path: &Path, change: impl FnOnce(String) -> String) {
    let before = String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
    fs::remove_file(path).unwrap();
    fs::write(path, change(before)).unwrap();
}

#[test]
fn an_audit_is_the_same_for_everyone_and_names_what_was_tampered_with() {
    let upstream = Upstream::start(world(&IMAGES, &["team/m:1"]), Options::default()).unwrap();
    let (place, report) = audited(&upstream);
    let (_, other) = audited(&upstream);
    assert_eq!(report, other, "two auditors see the same report");
    let json = place.imgbuild("audit --format json").ends(0).json();
    assert!(
        report.contains(json["report"].as_str().unwrap()),
        "both forms have the same digest: {json}"
    );
    // What else the store holds does not matter.
    fs::write(
        place
            .path("store/blobs/sha256")
            .join(Digest::of(b"x").hex()),
        "y",
    )
    .unwrap();
    assert_eq!(
        place.imgbuild("audit").ends(0).stdout,
        report,
        "other blobs are none of this lock's"
    );

    let image = upstream.world().at("team/a", "1").unwrap().digest;
    let blob = |digest: &str| {
        format!(
            "store/blobs/sha256/{}",
            digest.trim_start_matches("sha256:")
        )
    };
    let manifest: serde_json::Value =
        serde_json::from_str(&place.read(&blob(&image.to_string()))).unwrap();
    let layer = manifest["layers"][1]["digest"].as_str().unwrap().to_owned();
    let lock = place.lock();
    let rule = lock
        .lines()
        .find_map(|line| line.strip_prefix("additional-image = "))
        .unwrap()
        .trim_matches('"')
        .to_owned();
    let memo = "store/imgbuild/memo/ab/".to_owned() + &"ab".repeat(32);
    let records = fs::read_dir(place.path("store/imgbuild/streams/imageset")).unwrap();
    let stored = records
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .find(|name| name.starts_with("manifest"))
        .expect("the export recorded its manifest");
    let stored = format!("store/imgbuild/streams/imageset/{stored}");
    let flip = |text: String| {
        let mut bytes = text.into_bytes();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let id = |text: String| {
        let at = text.find("id=sha256:").unwrap() + 10;
        let digit = if &text[at..=at] == "0" { "1" } else { "0" };
        format!("{}{digit}{}", &text[..at], &text[at + 1..])
    };
    let cases: Vec<(&str, String, Change, Vec<String>)> = vec![
        (
            "the lock",
            LOCK.to_owned(),
            Box::new(|text| text.replacen("size = ", "size  = ", 1)),
            vec![
                "finding lock sha256:".to_owned(),
                "is not as imgbuild writes it".to_owned(),
            ],
        ),
        (
            "the lock, against its config",
            LOCK.to_owned(),
            Box::new(|text| text.replacen("team/a:1\"", "team/z:1\"", 1)),
            vec![
                format!("image {HOST}/team/a:1 is asked for"),
                format!("image {HOST}/team/z:1 is in the lock"),
            ],
        ),
        (
            "a rule file",
            blob(&rule),
            Box::new(flip),
            vec!["finding rule additional-image: ".to_owned(), rule.clone()],
        ),
        (
            "a layer",
            blob(&layer),
            Box::new(flip),
            vec![
                format!("finding blob {layer}: its bytes in the store are those of sha256:"),
                format!("needed by image {HOST}/team/a:1"),
            ],
        ),
        (
            "a manifest",
            blob(&image.to_string()),
            Box::new(|text| text.replacen("layers", "Layers", 1)),
            vec![
                format!("finding manifest {image}: "),
                format!("needed by image {HOST}/team/a:1"),
            ],
        ),
        (
            "a memo entry",
            memo.clone(),
            Box::new(|text| text + "x"),
            vec![format!("finding memo {}: ", "ab".repeat(32))],
        ),
        (
            "an archive manifest",
            stored,
            Box::new(|text| text.replacen("\"seq\":1", "\"seq\":2", 1)),
            vec!["finding archive imageset 1: its stored manifest is".to_owned()],
        ),
        (
            "the chain",
            "lockfiles/imageset.chain".to_owned(),
            Box::new(id),
            vec![
                "finding archive imageset 1: ".to_owned(),
                "finding chain imageset 1: the store recorded another line".to_owned(),
            ],
        ),
        (
            "the chain, cut",
            "lockfiles/imageset.chain".to_owned(),
            Box::new(|_| String::new()),
            vec![
                "finding chain imageset 1: the store recorded a line that the chain does not have"
                    .to_owned(),
            ],
        ),
    ];
    for (what, file, change, findings) in cases {
        let path = place.path(&file);
        let before = fs::read(&path).ok();
        if before.is_none() {
            place.write(&file, "");
        }
        tamper(&path, change);
        let texts: Vec<&str> = findings.iter().map(String::as_str).collect();
        place
            .imgbuild("audit")
            .ends(4)
            .says(&texts)
            .says(&["the audit has "])
            .hides(&["\nsound\n"]);
        fs::remove_file(&path).unwrap();
        if let Some(before) = before {
            fs::write(&path, before).unwrap();
        }
        let again = place.imgbuild("audit").ends(0);
        assert_eq!(
            again.stdout, report,
            "with {what} as it was, everything is sound again"
        );
    }
    fs::remove_file(place.path(blob(&layer))).unwrap();
    place
        .imgbuild("audit")
        .ends(4)
        .says(&[&format!("blob {layer}: it is not in the store")]);
}

#[test]
fn an_importer_audits_what_it_adopted() {
    let upstream = Upstream::start(world(&IMAGES, &[]), Options::default()).unwrap();
    let place = Place::new(Some(&upstream));
    place.wants(&IMAGES);
    place.imgbuild("lock").ends(0);
    place.imgbuild("export -o out --stream prod").ends(0);
    let far = Place::new(None);
    let out = place.path("out");
    far.imgbuild(&format!("import {}", out.display())).ends(0);
    let by_archive = far
        .imgbuild(&format!("audit --lock {}", out.display()))
        .ends(0)
        .says(&["\nsound\n"]);
    let by_stream = far.imgbuild("audit --lock prod#1").ends(0);
    assert_eq!(
        by_archive.stdout, by_stream.stdout,
        "the adopted lock is the one in the archive"
    );
    fs::remove_file(place.path("imageset.yaml")).unwrap();
    fs::rename(place.path("lockfiles/prod.chain"), place.path("aside")).unwrap();
    let near = place.imgbuild("audit").ends(0);
    assert_eq!(
        near.stdout, by_stream.stdout,
        "given the same files, both sides see the same"
    );
}

#[test]
fn a_policy_stops_the_lock_with_the_line_and_the_rule() {
    let mut images = IMAGES.to_vec();
    images.push("team/a:latest");
    let upstream = Upstream::start(world(&images, &[]), Options::default()).unwrap();
    let digest = upstream.world().at("team/b", "1").unwrap().digest;
    let place = Place::new(Some(&upstream));
    let pinned = format!("team/b@{digest}");
    place.wants(&["team/a:latest", &pinned]);
    for (policy, code, says) in [
        ("registries = [\"*.example.test\"]", 0, vec![]),
        (
            "registries = [\"quay.io\"]",
            1,
            vec![format!(
                "imageset.yaml:5:7: image {HOST}/team/a:latest: the image comes from {HOST}/team/a, which is none of quay.io (policy.registries)"
            )],
        ),
        (
            format!("repositories = [\"{HOST}/team/b\"]").as_str(),
            1,
            vec![format!(
                "which is none of {HOST}/team/b (policy.repositories)"
            )],
        ),
        (
            "no-tags = [\"latest\"]",
            1,
            vec![format!(
                "{HOST}/team/a:latest is asked for by a tag that \"latest\" refuses (policy.no-tags)"
            )],
        ),
        (
            "require-digest = true",
            1,
            vec![format!(
                "{HOST}/team/a:latest has no digest (policy.require-digest)"
            )],
        ),
        (
            "require-digests = true",
            1,
            vec![
                "unknown key \"require-digests\" in policy".to_owned(),
                "did you mean".to_owned(),
            ],
        ),
        (
            "registries = \"quay.io\"",
            1,
            vec![
                "policy.registries is a list of patterns".to_owned(),
                "imgbuild.toml:2:14".to_owned(),
            ],
        ),
    ] {
        let _ = fs::remove_file(place.path(LOCK));
        place.write("imgbuild.toml", &format!("[policy]\n{policy}\n"));
        let texts: Vec<&str> = says.iter().map(String::as_str).collect();
        place.imgbuild("lock").ends(code).says(&texts);
        assert_eq!(
            place.path(LOCK).exists(),
            code == 0,
            "a lock that breaks {policy} is not written"
        );
    }
    // A lock that was written before the policy is found by --check.
    fs::remove_file(place.path("imgbuild.toml")).unwrap();
    place.imgbuild("lock").ends(0);
    place.write("imgbuild.toml", "[policy]\nno-tags = [\"latest\"]\n");
    place
        .imgbuild("lock --check")
        .ends(1)
        .says(&["policy.no-tags"]);

    // Growth counts from the last archive; the first one is no increment.
    place.write("imgbuild.toml", "[policy]\nmax-growth = \"1kB\"\n");
    place.imgbuild("lock --update").ends(0);
    place.imgbuild("export -o out").ends(0);
    let before = place.lock();
    place.wants(&["team/a:latest", &pinned, "team/c:1"]);
    place
        .imgbuild("lock")
        .ends(1)
        .says(&["bytes are new since imageset seq 1; at most 1000 may be (policy.max-growth)"]);
    assert_eq!(place.lock(), before, "nothing was written");
    place.write("imgbuild.toml", "[policy]\nmax-growth = \"1MB\"\n");
    place.imgbuild("lock").ends(0);
}

#[test]
fn drift_is_found_without_writing_anything() {
    let upstream = Upstream::start(world(&IMAGES, &[]), Options::default()).unwrap();
    let place = Place::new(Some(&upstream));
    place.wants(&IMAGES);
    place.imgbuild("lock").ends(0);
    let lock = place.lock();
    let evidence = place.read("store/imgbuild/evidence.jsonl");
    place
        .imgbuild("lock --check --upstream")
        .ends(0)
        .says(&["nothing has moved upstream"]);
    let now = upstream
        .change(|world| world.move_tag("team/b", "1"))
        .unwrap();
    place.imgbuild("lock --check --upstream").ends(3).says(&[
        "has drifted from upstream",
        &format!("image {HOST}/team/b:1"),
        "(tag moved, same want)",
    ]);
    upstream.change(|world| world.untag("team/c", "1")).unwrap();
    place.imgbuild("lock --check --upstream").ends(3).says(&[
        &format!("{HOST}/team/c:1 is not there"),
        &format!("{HOST}/team/b:1 has moved: {now} <- sha256:"),
    ]);
    assert_eq!(place.lock(), lock, "the lock stays as it is");
    assert_eq!(
        place.read("store/imgbuild/evidence.jsonl"),
        evidence,
        "nothing was decided, so there is no evidence"
    );
    assert!(
        !place
            .path(format!("store/blobs/sha256/{}", now.hex()))
            .exists(),
        "what was looked at is not kept"
    );
    place.reaches(None);
    place.imgbuild("lock --check --upstream").ends(1);
    place.imgbuild("lock --upstream").ends(2);
}

#[test]
fn evidence_replayed_gives_the_same_lock() {
    let upstream = Upstream::start(world(&IMAGES, &["team/m:1"]), Options::default()).unwrap();
    let place = Place::new(Some(&upstream));
    place.wants(&["team/a:1", "team/b:1", "team/m:1"]);
    place.imgbuild("lock").ends(0);
    let lock = place.lock();
    let evidence = place.read("store/imgbuild/evidence.jsonl");
    upstream
        .change(|world| world.move_tag("team/b", "1"))
        .unwrap();
    upstream
        .change(|world| world.move_tag("team/m", "1"))
        .unwrap();
    // Another machine, another day: the names have moved, the digests are still there.
    let later = Place::new(Some(&upstream));
    later.wants(&["team/a:1", "team/b:1", "team/m:1"]);
    later.write("evidence.jsonl", &evidence);
    later.imgbuild("lock --replay evidence.jsonl").ends(0);
    assert_eq!(later.lock(), lock, "the same answers give the same bytes");
    assert!(
        !later.path("store/imgbuild/evidence.jsonl").exists(),
        "a replay asks nobody"
    );
    later
        .imgbuild("lock --update")
        .ends(0)
        .says(&["(tag moved, same want)"]);
    later.imgbuild("lock --replay evidence.jsonl").ends(0);
    assert_eq!(later.lock(), lock, "a replay undoes what was decided since");
    later.wants(&["team/a:1", "team/c:1"]);
    later
        .imgbuild("lock --replay evidence.jsonl")
        .ends(1)
        .says(&["evidence.jsonl has no answer for it"]);
    later.write("evidence.jsonl", "{}\n");
    later
        .imgbuild("lock --replay evidence.jsonl")
        .ends(1)
        .says(&["evidence.jsonl:1: there is no question"]);
}

/// The images that the examples name, in one upstream for all their hosts.
fn example_world() -> World {
    let mut world = World::new(9);
    let mut base = BTreeMap::new();
    for architecture in ["amd64", "arm64", "s390x"] {
        let text = format!("the base of the examples for {architecture}");
        let layer = world
            .layer(
                &[Member::file("etc/os-release", text.as_str())],
                Compression::Gzip,
            )
            .unwrap();
        base.insert(architecture, layer);
    }
    let catalog = Catalog {
        host: "registry.redhat.io",
        repository: "redhat/redhat-operator-index",
        tag: "v4.16",
        form: Form::Oci,
        architectures: &["amd64", "arm64"],
    };
    let operators = [
        Operator::new(
            "cluster-logging",
            &["stable-6.2: 6.1.0 6.2.0", "stable-6.1: 6.1.0"],
        ),
        Operator::new("loki-operator", &["stable-6.2: 6.1.0 6.1.1 6.2.0 6.2.1"]),
        Operator::new(
            "openshift-pipelines-operator-rh",
            &["latest: 1.15.0 1.16.0"],
        ),
        Operator::new("web-terminal", &["fast: 1.10.0 1.11.0"])
            .requiring("devworkspace-operator", ">=0.30.0"),
        Operator::new("devworkspace-operator", &["fast: 0.30.0 0.31.0"]),
    ];
    world.catalog(&catalog, &operators).unwrap();
    for (repository, tag) in [
        ("ubi9/ubi-minimal", "latest"),
        ("ubi9/ubi-micro", "latest"),
        ("openshifttest/hello-openshift", "1.2.0"),
        ("prometheus/busybox", "glibc"),
        ("library/busybox", "1.37"),
        ("pause", "3.10"),
        ("coredns/coredns", "v1.11.3"),
        ("etcd", "3.5.16-0"),
    ] {
        let mut children = Vec::new();
        for (architecture, base) in &base {
            let text = format!("{repository}:{tag} for {architecture}");
            let own = world
                .layer(
                    &[Member::file("app/name", text.as_str())],
                    Compression::Gzip,
                )
                .unwrap();
            children.push(
                world
                    .image(
                        Form::Oci,
                        &platform(architecture),
                        &[*base, own],
                        &BTreeMap::new(),
                    )
                    .unwrap(),
            );
        }
        let index = world.index(Form::Oci, &children).unwrap();
        world.tag(repository, tag, &index).unwrap();
    }
    example_releases(&mut world);
    world
}

/// The vendor of the example with releases.
fn example_signer() -> Signer {
    Signer::new("Releases of the examples <releases@example.test>")
}

/// The releases that the examples ask for.
fn example_releases(world: &mut World) -> Vec<Release> {
    let product = example_product();
    let mut releases = Vec::new();
    for (version, previous, etcd) in [
        ("4.16.10", vec![], 1),
        ("4.16.11", vec!["4.16.10"], 1),
        ("4.16.12", vec!["4.16.10", "4.16.11"], 2),
    ] {
        let parts = [("cli", 1), ("cluster-version-operator", 1), ("etcd", etcd)];
        releases.push(product.release(world, version, &previous, &parts).unwrap());
    }
    releases
}

fn example_product() -> Product<'static> {
    Product {
        host: "quay.io",
        payloads: "openshift-release-dev/ocp-release",
        components: "openshift-release-dev/ocp-v4.0-art-dev",
    }
}

/// Puts what the vendor's services would answer into a place, and says so in its settings.
fn example_services(place: &Place) {
    let mut world = World::new(9);
    let releases = example_releases(&mut world);
    let channel = "stable-4.16";
    place.write(
        &format!("services/graph/amd64-{channel}.json"),
        &imgbuild::demo::graph(channel, &releases),
    );
    for release in &releases {
        let folder = place.path(format!(
            "services/signatures/sha256={}",
            release.payload.digest.hex()
        ));
        fs::create_dir_all(&folder).unwrap();
        let signature = example_product().signature(release, &example_signer());
        fs::write(folder.join("signature-1"), signature).unwrap();
    }
    place.write("releases.asc", &example_signer().public_key());
    place.write(
        "imgbuild.toml",
        "[url.\"https://api.openshift.com/api/upgrades_info/v1/graph\"]\nlocation = \"services/graph\"\n\n[url.\"https://mirror.openshift.com/pub/openshift-v4/signatures/openshift/release\"]\nlocation = \"services/signatures\"\n\n[signatures.release]\nkeys = [\"releases.asc\"]\n",
    );
}

#[test]
fn every_example_goes_from_lock_to_import_and_its_lockfile_is_what_lock_writes() {
    let upstream = Upstream::start(example_world(), Options::default()).unwrap();
    let pinned = upstream
        .world()
        .at("openshifttest/hello-openshift", "1.2.0")
        .unwrap()
        .digest;
    let mut names: Vec<String> = fs::read_dir("examples")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| name.strip_suffix(".yaml").map(str::to_owned))
        .collect();
    names.sort();
    let mut locked = Vec::new();
    for name in names {
        let text = fs::read_to_string(format!("examples/{name}.yaml")).unwrap();
        if text.contains("hello-openshift@") {
            assert!(
                text.contains(&pinned.to_string()),
                "examples/{name}.yaml must name hello-openshift by {pinned}"
            );
        }
        if !text.contains("kind: ImageSetConfiguration") {
            continue;
        }
        let place = Place::new(None);
        let mut conf = String::new();
        for host in [
            "registry.access.redhat.com",
            "registry.redhat.io",
            "registry.k8s.io",
            "quay.io",
            "docker.io",
        ] {
            writeln!(
                conf,
                "[[registry]]\nprefix = \"{host}\"\nlocation = \"{}\"\ninsecure = true",
                upstream.host()
            )
            .unwrap();
        }
        place.write("registries.conf", &conf);
        place.write(&format!("examples/{name}.yaml"), &text);
        crate::site::copy(Path::new("examples/charts"), &place.path("examples/charts"));
        let file = format!("lockfiles/{name}.lock.toml");
        let config = format!("-c examples/{name}.yaml");
        if text.contains("platform:\n    channels:") {
            example_services(&place);
        }
        place.imgbuild(&format!("lock {config}")).ends(0);
        let written = place.read(&file);
        if std::env::var_os("IMGBUILD_WRITE_LOCKFILES").is_some() {
            fs::create_dir_all("lockfiles").unwrap();
            fs::write(&file, &written).unwrap();
        }
        let committed = fs::read_to_string(&file).unwrap_or_default();
        assert_eq!(
            written, committed,
            "{file} is what `imgbuild lock` writes; where that has changed for a reason, run this test with IMGBUILD_WRITE_LOCKFILES=1 and review it"
        );
        place.imgbuild(&format!("lock --check {config}")).ends(0);
        place.imgbuild(&format!("export {config} -o out")).ends(0);
        place.imgbuild(&format!("audit {config}")).ends(0);
        let far = Place::new(None);
        let out = place.path("out");
        far.imgbuild(&format!("import {} --to oci:mirror", out.display()))
            .ends(0)
            .says(&["adopted"]);
        let index = far.read("mirror/index.json");
        for image in written.lines().filter(|line| line.starts_with("image = ")) {
            let digest = image.trim_end_matches('"').rsplit_once('@').unwrap().1;
            assert!(index.contains(digest), "{image} of {name} has arrived");
        }
        locked.push(format!("{name}.lock.toml"));
    }
    locked.sort();
    let mut kept: Vec<String> = fs::read_dir("lockfiles")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    kept.sort();
    assert_eq!(kept, locked, "one lockfile per example, and no other");
}

#[test]
fn a_plan_is_a_page_that_marks_what_is_new() {
    let upstream = Upstream::start(world(&IMAGES, &["team/m:1"]), Options::default()).unwrap();
    let place = Place::new(Some(&upstream));
    place.wants(&["team/a:1", "team/m:1"]);
    place.imgbuild("lock").ends(0);
    let page = place.imgbuild("plan --format html").ends(0).stdout;
    assert!(
        page.starts_with("<!doctype html>") && !page.contains("class=\"mark\""),
        "nothing is new before the first archive:\n{page}"
    );
    place.imgbuild("export -o out").ends(0);
    place.wants(&["team/a:1", "team/b:1", "team/m:1"]);
    place.imgbuild("lock").ends(0);
    place.reaches(None);
    let page = place
        .imgbuild("plan --format html --offline")
        .ends(0)
        .stdout;
    assert!(
        page.contains("new since imageset#1, 3 blobs"),
        "the last archive is what counts:\n{page}"
    );
    place
        .imgbuild("plan --format mermaid --offline")
        .ends(0)
        .says(&[
            "flowchart LR\n",
            &format!("{HOST}/team/b:1<br/>"),
            "shared: ",
        ]);
    place
        .imgbuild("plan --format dot --offline --since out")
        .ends(0)
        .says(&["digraph", "style = bold"]);
    place
        .imgbuild("plan --offline --since imageset#1")
        .ends(0)
        .says(&["  new               3  "]);
    let json = place
        .imgbuild("plan --offline --since imageset#1 --format json")
        .ends(0)
        .json();
    assert_eq!(json["since"]["blobs"], 3, "every form agrees: {json}");
}

#[test]
fn a_signed_report_is_known_again_by_another_auditor() {
    let upstream = Upstream::start(world(&IMAGES, &["team/m:1"]), Options::default()).unwrap();
    let (place, _) = audited(&upstream);
    place.imgbuild("key new alice").ends(0);
    place.imgbuild("key new mallory").ends(0);
    place
        .imgbuild("audit --attest alice.key")
        .ends(0)
        .says(&["wrote audit.dsse.json, by key sha256:"]);
    let (other, _) = audited(&upstream);
    for name in ["audit.dsse.json", "alice.pub", "mallory.pub"] {
        fs::copy(place.path(name), other.path(name)).unwrap();
    }
    other
        .imgbuild("audit --attested audit.dsse.json --by mallory.pub --by alice.pub")
        .ends(0)
        .says(&["audit.dsse.json is of this report, by key sha256:"]);
    other
        .imgbuild("audit --attested audit.dsse.json --by mallory.pub")
        .ends(4)
        .says(&["none of its signatures is by a key that was given"]);
    let forged = place
        .read("audit.dsse.json")
        .replacen("\"sig\":\"", "\"sig\":\"AAAA", 1);
    other.write("forged.json", &forged);
    other
        .imgbuild("audit --attested forged.json --by alice.pub")
        .ends(4);
    // What differs is another report, and one with findings is never signed.
    let lock = other.lock();
    other.write(LOCK, &lock.replacen("CHG-1", "CHG-2", 1));
    other
        .imgbuild("audit --attested audit.dsse.json --by alice.pub")
        .ends(4)
        .says(&["the attestation is of another report than this one"]);
    other.write(LOCK, &lock.replacen("size = ", "size  = ", 1));
    fs::copy(place.path("alice.key"), other.path("alice.key")).unwrap();
    other
        .imgbuild("audit --attest alice.key -o unsound.json")
        .ends(4);
    assert!(
        !other.path("unsound.json").exists(),
        "findings are not signed away"
    );
}

#[test]
fn an_audit_asks_a_registry_for_everything_too() {
    let upstream = Upstream::start(world(&IMAGES, &["team/m:1"]), Options::default()).unwrap();
    let place = Place::new(Some(&upstream));
    place.wants(&["team/a:1", "team/m:1"]);
    place.imgbuild("lock").ends(0);
    let mirror = Server::start(
        Options::default(),
        Arc::new(Memory::default()),
        Repositories::in_memory(),
    )
    .unwrap();
    let host = mirror.address().to_string();
    place
        .imgbuild(&format!("push docker://{host}/site --insecure {host}"))
        .ends(0);
    let line = format!("audit --registry {host}/site --insecure {host}");
    let report = place
        .imgbuild(&line)
        .ends(0)
        .says(&["destination 2 images, ", "\nsound\n"])
        .hides(&[&host]);
    let second = Server::start(
        Options::default(),
        Arc::new(Memory::default()),
        Repositories::in_memory(),
    )
    .unwrap();
    let other = second.address().to_string();
    place
        .imgbuild(&format!("push docker://{other} --insecure {other}"))
        .ends(0);
    let same = place
        .imgbuild(&format!("audit --registry {other} --insecure {other}"))
        .ends(0);
    assert_eq!(
        report.stdout, same.stdout,
        "two destinations that hold the same have the same report"
    );
    let image = upstream.world().at("team/a", "1").unwrap().digest;
    mirror
        .repositories()
        .unlink_manifest("site/team/a", &image)
        .unwrap();
    place
        .imgbuild(&line)
        .ends(4)
        .says(&["finding destination site/team/a:1: ", &image.to_string()]);
    mirror.stop();
    place.imgbuild(&line).ends(1).says(&["finding unanswered "]);
}

fn schema(name: &str) -> serde_json::Value {
    let path = Path::new("tests/data/schemas").join(name);
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn a_sound_audit_is_a_bill_of_materials_that_follows_the_published_schemas() {
    let upstream = Upstream::start(world(&IMAGES, &["team/m:1"]), Options::default()).unwrap();
    let (place, _) = audited(&upstream);
    let (other, _) = audited(&upstream);
    let image = upstream.world().at("team/a", "1").unwrap().digest;
    let url = format!(
        "pkg:oci/a@sha256%3A{}?repository_url={HOST}/team/a",
        image.hex()
    );
    let mut bills = BTreeMap::new();
    for (format, name) in [
        ("cyclonedx", "bom-1.6.schema.json"),
        ("spdx", "spdx-2.3.schema.json"),
    ] {
        let run = place.imgbuild(&format!("audit --format {format}")).ends(0);
        assert_eq!(
            run.stdout,
            other
                .imgbuild(&format!("audit --format {format}"))
                .ends(0)
                .stdout,
            "{format} is the same from every store"
        );
        let bill = run.json();
        let schema = schema(name);
        assert_eq!(follows(&schema, &bill), Ok(()), "{format} follows {name}");
        for (pointer, wrong) in [
            ("/specVersion", json!(1.6)),
            ("/serialNumber", json!("urn:uuid:1")),
            ("/components/0/type", json!("image")),
            ("/components/0/hashes/0/alg", json!("sha256")),
            ("/dependencies/0/dependsOn", json!(["a", "a"])),
            ("/creationInfo", json!({})),
            ("/packages/0/checksums/0/algorithm", json!("sha256")),
            ("/relationships/0/relationshipType", json!("HAS")),
        ] {
            let mut bad = bill.clone();
            if let Some(at) = bad.pointer_mut(pointer) {
                *at = wrong;
                assert!(follows(&schema, &bad).is_err(), "{pointer} is checked");
            }
        }
        let text = bill.to_string();
        for part in [url.as_str(), &image.hex(), "CHG-1"] {
            assert!(text.contains(part), "{part} is in {text}");
        }
        bills.insert(format, bill);
    }
    let bom = &bills["cyclonedx"];
    let ids: BTreeSet<&str> = bom["components"]
        .as_array()
        .unwrap()
        .iter()
        .map(|part| part["bom-ref"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), 2, "every image has one component: {bom}");
    for row in bom["dependencies"].as_array().unwrap() {
        for id in row["dependsOn"].as_array().into_iter().flatten() {
            assert!(ids.contains(id.as_str().unwrap()), "{id} is a component");
        }
    }
    assert_eq!(
        bom["compositions"][0]["aggregate"], "incomplete",
        "an image was skipped"
    );
    assert_eq!(
        bills["spdx"]["creationInfo"]["created"], "1970-01-01T00:00:00Z",
        "no clock was read"
    );
    let dated = place
        .imgbuild("audit --format spdx --created 2026-11-20T18:00:00+01:00")
        .ends(0)
        .json();
    assert_eq!(
        dated["creationInfo"]["created"], "2026-11-20T17:00:00Z",
        "the time that was given, in UTC"
    );
    place
        .imgbuild("audit --format spdx --created today")
        .ends(2)
        .says(&["is no time"]);
    place
        .imgbuild("audit --created 2026-11-20T18:00:00Z")
        .ends(2)
        .says(&["add --format spdx"]);

    let provenance = place.imgbuild("audit --format slsa").ends(0).json();
    for (pointer, wanted) in [
        ("/_type", json!("https://in-toto.io/Statement/v1")),
        ("/predicateType", json!("https://slsa.dev/provenance/v1")),
        ("/subject/0/name", json!("lock")),
        (
            "/subject/0/digest/sha256",
            json!(Digest::of(place.lock().as_bytes()).hex()),
        ),
        (
            "/predicate/buildDefinition/buildType",
            json!("tag:imgbuild,2026:mirror/v1"),
        ),
        (
            "/predicate/runDetails/builder/id",
            json!("tag:imgbuild,2026:builder/v1"),
        ),
    ] {
        assert_eq!(provenance.pointer(pointer), Some(&wanted), "{pointer}");
    }
    let subjects = provenance["subject"].as_array().unwrap();
    assert!(
        subjects.contains(&json!({ "name": "team/a:1", "digest": { "sha256": image.hex() } })),
        "a place is a subject: {provenance}"
    );
    // A resource descriptor has at least one of these.
    let materials = provenance["predicate"]["buildDefinition"]["resolvedDependencies"]
        .as_array()
        .unwrap();
    assert!(
        materials
            .iter()
            .all(|material| material["digest"]["sha256"].is_string()),
        "whatever went in has a digest: {provenance}"
    );
    assert!(
        materials.iter().any(|material| material["uri"] == url),
        "the image went in: {provenance}"
    );

    // The provenance is signed in its own words, and is no signature under the report.
    place.imgbuild("key new alice").ends(0);
    place
        .imgbuild("audit --format slsa --attest alice.key")
        .ends(0);
    other.write("audit.dsse.json", &place.read("audit.dsse.json"));
    other.write("alice.pub", &place.read("alice.pub"));
    other
        .imgbuild("audit --format slsa --attested audit.dsse.json --by alice.pub")
        .ends(0);
    other
        .imgbuild("audit --attested audit.dsse.json --by alice.pub")
        .ends(4)
        .says(&["of another report"]);

    // What is not sound is no bill of anything.
    fs::remove_file(place.path("store/blobs/sha256").join(image.hex())).unwrap();
    for format in ["cyclonedx", "spdx", "slsa"] {
        let run = place
            .imgbuild(&format!("audit --format {format}"))
            .ends(4)
            .says(&[&format!("manifest {image}: it is not in the store")]);
        assert_eq!(run.stdout, "", "there is no bill");
    }
}

#[test]
fn a_store_that_was_filled_by_an_archive_gives_the_same_report() {
    let upstream = Upstream::start(world(&IMAGES, &["team/m:1"]), Options::default()).unwrap();
    let (place, report) = audited(&upstream);
    let other = Place::new(None);
    for name in ["imageset.yaml", LOCK, "lockfiles/imageset.chain"] {
        other.write(name, &place.read(name));
    }
    other
        .imgbuild(&format!("import {}", place.path("out").display()))
        .ends(0);
    assert_eq!(
        other.imgbuild("audit").ends(0).stdout,
        report,
        "what came in another order, from another place, is the same"
    );
}

#[test]
fn an_audit_reads_archives_and_their_seals_too() {
    let upstream = Upstream::start(world(&IMAGES, &["team/m:1"]), Options::default()).unwrap();
    let (place, _) = audited(&upstream);
    place.imgbuild("key new alice").ends(0);
    place.imgbuild("key new mallory").ends(0);
    place.imgbuild("seal out --key alice.key").ends(0);
    let line = "audit --archives out --require-seal alice.pub";
    let sound = place
        .imgbuild(line)
        .ends(0)
        .says(&["\nsound\n", " sealed\n"]);
    place
        .imgbuild("audit --archives out --require-seal mallory.pub")
        .ends(4)
        .says(&["finding archive "]);
    place
        .imgbuild("audit --require-seal alice.pub")
        .ends(2)
        .says(&["add --archives"]);
    place
        .imgbuild("audit --archives lockfiles")
        .ends(4)
        .says(&["finding archive all: no archive is there"]);
    let names: Vec<String> = fs::read_dir(place.path("out"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    for end in [".tar", ".seal"] {
        let name = names
            .iter()
            .find(|name| name.contains(end))
            .unwrap_or_else(|| panic!("a file with {end} in {names:?}"));
        let path = place.path("out").join(name);
        let before = fs::read(&path).unwrap();
        let mut after = before.clone();
        let middle = after.len() / 2;
        after[middle] ^= 1;
        fs::write(&path, after).unwrap();
        let found = place.imgbuild(line).ends(4).says(&["finding archive "]);
        assert!(
            found.stdout.contains("imageset"),
            "{name} is named:\n{}",
            found.stdout
        );
        assert!(
            !found.stdout.contains(&place.path("").display().to_string()),
            "where it lies is not in the report:\n{}",
            found.stdout
        );
        fs::write(&path, before).unwrap();
    }
    assert_eq!(
        place.imgbuild(line).ends(0).stdout,
        sound.stdout,
        "with everything as it was, everything is sound again"
    );
}

#[test]
fn a_forged_record_of_work_is_found_because_the_work_is_done_again() {
    let world = crate::site::release::World::new();
    let release = world.release(0, "4.16.1", &[]);
    world.channel("stable-4.16", "amd64", &[&release], &[], &[]);
    let near = world.site();
    near.config(&crate::site::release::channels(&["stable-4.16"]));
    world.run(&near, "lock").done();
    world.run(&near, "build").done();
    let sound = world.run(&near, "audit").done().says(&["\nsound\n"]);

    // Everything of a store can be written by whoever has it, checks included.
    let store = Store::open(&near.path("store"), Access::Shared).unwrap();
    let forged = store.insert(b"another list of images").unwrap();
    let records: Vec<PathBuf> = crate::site::tree(&near.path("store/imgbuild/memo"))
        .into_keys()
        .map(|name| near.path("store/imgbuild/memo").join(name))
        .collect();
    assert!(!records.is_empty(), "reading a payload is remembered");
    for path in records {
        let name = path.file_name().unwrap().to_str().unwrap();
        let key = Key::from_hex(name).unwrap();
        let before = fs::read(&path).unwrap();
        let output = Outcome {
            media_type: String::new(),
            blob: forged,
        };
        store.memo().put(&key, &[output]).unwrap();
        world.run(&near, "audit").ends(4).says(&[
            &format!(
                "finding memo {name}: it says that the work yields {}",
                forged.digest
            ),
            "and it yields sha256:",
        ]);
        fs::remove_file(&path).unwrap();
        fs::write(&path, before).unwrap();
    }
    assert_eq!(
        world.run(&near, "audit").done().stdout,
        sound.stdout,
        "with the records as they were, everything is sound again"
    );

    // A list in the lock that is not the payload's, with nothing wrong but that.
    let lock = near.lock_text();
    let one = lock
        .lines()
        .find(|line| line.starts_with("  { name = "))
        .expect("there are components");
    near.write(LOCK, lock.replace(&format!("{one}\n"), ""));
    world
        .run(&near, "audit")
        .ends(4)
        .says(&["finding lock ", "lists other components than its payloads"]);
}

/// A catalog's host, besides that of the releases.
const CATALOGS: &str = "catalogs.example.test";

/// A config of releases and operators, with room between the lines so that git can merge it.
fn product(greatest: &str, packages: &[&str]) -> String {
    let room = |name: &str| {
        (0..4).fold(String::new(), |text, line| {
            text + &format!("    # {name} {line}\n")
        })
    };
    let mut text = format!(
        "  platform:\n    channels:\n    - name: stable-4.16\n      minVersion: 4.16.1\n      maxVersion: {greatest}\n{}  operators:\n  - catalog: {CATALOGS}/redhat/operator-index:v4.16\n    packages:\n",
        room("releases")
    );
    for package in packages {
        writeln!(text, "    - {package}").unwrap();
        text += &room(
            package
                .split([',', '}'])
                .next()
                .unwrap()
                .trim_start_matches('{'),
        );
    }
    text
}

/// Runs git with the program as its merge driver.
fn git(site: &crate::site::Site, words: &[&str]) -> Run {
    let output = site
        .tool("git")
        .args(words)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_AUTHOR_NAME", "a")
        .env("GIT_AUTHOR_EMAIL", "a@example.test")
        .env("GIT_COMMITTER_NAME", "a")
        .env("GIT_COMMITTER_EMAIL", "a@example.test")
        .output()
        .unwrap();
    Run::of(format!("git {}", words.join(" ")), &output)
}

#[test]
fn operators_and_releases_that_branches_change_merge_and_what_both_changed_is_shown_alone() {
    let operators = |newest: &str| {
        vec![
            Operator::new("alpha", &[&format!("stable: 1.0.0 1.1.0 {newest}")]),
            Operator::new("beta", &["stable: 1.0.0 2.0.0"]),
            Operator::new("gamma", &["stable: 3.0.0 4.0.0"]),
        ]
    };
    let catalog = Catalog {
        host: CATALOGS,
        repository: "redhat/operator-index",
        tag: "v4.16",
        form: Form::Oci,
        architectures: &["amd64"],
    };
    let mut index = World::new(5);
    index.catalog(&catalog, &operators("1.2.0")).unwrap();
    let index = Upstream::start(index, Options::default()).unwrap();
    let releases = crate::site::release::World::new();
    let made = [
        releases.release(0, "4.16.1", &[]),
        releases.release(1, "4.16.2", &["4.16.1"]),
    ];
    releases.channel(
        "stable-4.16",
        "amd64",
        &[&made[0], &made[1]],
        &[("4.16.1", "4.16.2")],
        &[],
    );
    let site = releases.site();
    site.leads(CATALOGS, &index.host());
    let run = |line: &str| releases.run(&site, line);
    let commit = |message: &str| {
        git(&site, &["add", "-A"]).ends(0);
        git(&site, &["commit", "-q", "-m", message]).ends(0);
    };
    git(&site, &["init", "-q", "-b", "main"]).ends(0);
    run("init --git").done();
    let driver = format!(
        "{} merge-driver %O %A %B %P",
        env!("CARGO_BIN_EXE_imgbuild")
    );
    git(&site, &["config", "merge.imgbuild.driver", &driver]).ends(0);
    site.write(
        ".gitignore",
        "store\nauth.json\nregistries.conf\nrelease.asc\n.cache\n",
    );
    site.config(&product(
        "4.16.1",
        &["{name: alpha}", "{name: beta}", "{name: gamma}"],
    ));
    run("lock").done();
    commit("start");

    // One changes an operator and a release, another an operator, a third takes what is new of the first one's operator.
    git(&site, &["checkout", "-q", "-b", "left"]).ends(0);
    site.config(&product(
        "4.16.2",
        &[
            "{name: alpha, minVersion: 1.1.0}",
            "{name: beta}",
            "{name: gamma}",
        ],
    ));
    run("lock").done().says(&["+ 4.16.2", "~ alpha"]);
    // Lists and catalogs are derived again by an audit, without the memo.
    run("build").done();
    run("audit").done().says(&["\nsound\n"]);
    commit("left");
    git(&site, &["checkout", "-q", "-b", "right", "main"]).ends(0);
    site.config(&product(
        "4.16.1",
        &[
            "{name: alpha}",
            "{name: beta}",
            "{name: gamma, minVersion: 3.0.0}",
        ],
    ));
    run("lock").done().says(&["~ gamma"]).hides("~ alpha");
    commit("right");
    git(&site, &["checkout", "-q", "-b", "third", "main"]).ends(0);
    index
        .change(|world| world.catalog(&catalog, &operators("1.3.0")))
        .unwrap();
    run("lock --update package:alpha").done();
    commit("third");

    git(&site, &["checkout", "-q", "left"]).ends(0);
    git(&site, &["merge", "-q", "right", "-m", "merged"]).ends(0);
    // Nobody can be asked from here on.
    site.write("registries.conf", "");
    run("lock --check").done().says(&["answers imageset.yaml"]);
    let merged = site.lock_text();
    for part in [
        "version = \"4.16.2\"",
        "want = { min = \"1.1.0\" }",
        "want = { min = \"3.0.0\" }",
    ] {
        assert!(
            merged.contains(part),
            "{part} survives the merge:\n{merged}"
        );
    }

    let conflict = git(&site, &["merge", "-q", "third"]).ends(1);
    let disputed = site.lock_text();
    assert_eq!(
        disputed.matches("<<<<<<< ours").count(),
        1,
        "one block is disputed:\n{}\n{disputed}",
        conflict.story()
    );
    let start = disputed.find("<<<<<<<").unwrap();
    let end = disputed.find(">>>>>>>").unwrap();
    let inside = &disputed[start..end];
    assert!(inside.contains("alpha"), "it is that of alpha:\n{disputed}");
    for other in ["beta", "gamma", "[[release", "ocp-release"] {
        assert!(
            !inside.contains(other),
            "{other} is not between the markers:\n{disputed}"
        );
    }
}

/// What one side does to the images of a config.
#[derive(Clone, Copy, Debug)]
enum Edit {
    /// Another version of an image.
    Version(usize),
    /// An image is dropped.
    Drop(usize),
    /// An image is added.
    Add(usize),
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let one = prop_oneof![
        (0..IMAGES.len()).prop_map(Edit::Version),
        (0..IMAGES.len()).prop_map(Edit::Drop),
        (0_usize..3).prop_map(Edit::Add),
    ];
    prop::collection::vec(one, 1..3)
}

fn edited(edits: &[Edit]) -> BTreeSet<String> {
    let mut images: BTreeSet<String> = IMAGES.iter().map(|image| (*image).to_owned()).collect();
    for edit in edits {
        match edit {
            Edit::Version(index) => {
                if images.remove(IMAGES[*index]) {
                    images.insert(IMAGES[*index].replace(":1", ":2"));
                }
            }
            Edit::Drop(index) => {
                images.remove(IMAGES[*index]);
                images.remove(&IMAGES[*index].replace(":1", ":2"));
            }
            Edit::Add(index) => {
                images.insert(format!("more/{index}:1"));
            }
        }
    }
    images
}

#[test]
fn a_clean_merge_is_what_locking_the_merged_config_gives_or_is_refused_by_name() {
    let mut all: Vec<String> = IMAGES.iter().map(|image| (*image).to_owned()).collect();
    all.extend(IMAGES.iter().map(|image| image.replace(":1", ":2")));
    all.extend((0..3).map(|index| format!("more/{index}:1")));
    let names: Vec<&str> = all.iter().map(String::as_str).collect();
    let upstream = Upstream::start(world(&names, &[]), Options::default()).unwrap();
    let place = Place::new(Some(&upstream));
    let locked = |images: &BTreeSet<String>| {
        let images: Vec<&str> = images.iter().map(String::as_str).collect();
        place.wants(&images);
        fs::remove_file(place.path(LOCK)).ok();
        place.imgbuild("lock").ends(0);
        let text = place.lock();
        // Locking again changes nothing.
        place.imgbuild("lock").ends(0).says(&["nothing changed"]);
        assert_eq!(place.lock(), text, "a second time gives the same bytes");
        text
    };
    let base: BTreeSet<String> = IMAGES.iter().map(|image| (*image).to_owned()).collect();
    let start = locked(&base);
    let mut runner = TestRunner::new(Config {
        cases: 8,
        failure_persistence: None,
        ..Config::default()
    });
    runner
        .run(&(edits(), edits()), |(left, right)| {
            let (left, right) = (edited(&left), edited(&right));
            let (ours, theirs) = (locked(&left), locked(&right));
            // Locality: an image that a side did not touch has the same lines on both.
            let block = |text: &str, image: &str| {
                text.split("\n\n")
                    .find(|block| block.contains(&format!("/{image}\"")))
                    .map(|block| block.trim_end().to_owned())
            };
            for image in left.intersection(&base) {
                prop_assert_eq!(
                    block(&ours, image),
                    block(&start, image),
                    "{} is as it was",
                    image
                );
            }
            // What three-way merging of the lists of images gives.
            let merged: BTreeSet<String> = left
                .union(&right)
                .filter(|image| {
                    !base.contains(*image) || left.contains(*image) && right.contains(*image)
                })
                .cloned()
                .collect();
            place.write("o", &start);
            place.write("a", &ours);
            place.write("b", &theirs);
            let run = place.imgbuild("merge-driver o a b the.lock.toml");
            if run.code == Some(0) {
                prop_assert_eq!(
                    place.read("a"),
                    locked(&merged),
                    "{:?} and {:?}",
                    left,
                    right
                );
            } else {
                prop_assert!(
                    run.stderr.contains("the.lock.toml: both sides changed "),
                    "a refusal names the block: {}",
                    run.story()
                );
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn the_commands_of_the_sample_workflow_are_understood() {
    let text = fs::read_to_string("examples/workflows/drift.yaml").unwrap();
    let workflow: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
    assert!(
        workflow["on"]["schedule"][0]["cron"].is_string(),
        "it runs on a schedule: {workflow}"
    );
    let place = Place::new(None);
    let mut commands = 0;
    for step in workflow["jobs"]["drift"]["steps"].as_array().unwrap() {
        let script = step["run"].as_str().unwrap_or_default();
        for line in script.lines().filter(|line| line.starts_with("imgbuild ")) {
            let line = line
                .split(" || ")
                .next()
                .unwrap()
                .split(" > ")
                .next()
                .unwrap();
            let run = place.imgbuild(line.trim_start_matches("imgbuild "));
            // There is nothing to lock here, and that is the only complaint.
            assert!(
                matches!(run.code, Some(1 | 3)),
                "it is no mistake of usage:\n{}",
                run.story()
            );
            commands += 1;
        }
    }
    assert_eq!(
        commands, 3,
        "check, update, and the difference for the change"
    );
}
