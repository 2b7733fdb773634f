//! A lock under review: compared, explained, merged, audited, held to a policy and to upstream, by the real program.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use imgbuild::demo::{Compression, Form, Member, Upstream, World};
use imgbuild::digest::Digest;
use imgbuild::oci::Platform;
use imgbuild::registry::server::Options;

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
