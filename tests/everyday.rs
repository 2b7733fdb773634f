//! What a day with the program brings: edits, merges, questions, housekeeping.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, Instant};

use imgbuild::registry::server::{Kind, Options};

use crate::site::content::{Content, many};
use crate::site::registry::Registry;
use crate::site::{Connected, Site, UPSTREAM};

const LOCK: &str = "lockfiles/imageset.lock.toml";

fn world() -> (Content, Registry, Connected) {
    let content = Content::default();
    content.image("team/base:1", &[(1, 4_000)]);
    content.image("team/app:1", &[(1, 4_000), (2, 600)]);
    content.image("team/tool:1", &[(3, 700)]);
    content.image("team/debug:1", &[(4, 700)]);
    let upstream = content.served();
    let site = Connected::to(&upstream);
    site.wants(["team/base:1", "team/app:1", "team/tool:1"]);
    site.lock();
    (content, upstream, site)
}

#[test]
fn a_starter_is_written_once_and_is_valid() {
    let site = Site::new();
    site.imgbuild("init here")
        .done()
        .says(&["wrote here/imageset.yaml", "wrote here/imgbuild.toml"]);
    let before = site.tree("here");
    site.imgbuild("init here")
        .ends(1)
        .says(&["here/imageset.yaml is there already, and was not touched"]);
    assert_eq!(site.tree("here"), before, "nothing is overwritten");
    site.imgbuild("lock --check -c here/imageset.yaml --settings here/imgbuild.toml")
        .ends(3)
        .says(&["there is no lock at lockfiles/imageset.lock.toml"])
        .hints(&["imgbuild lock"]);
    site.imgbuild("lock --offline -c here/imageset.yaml")
        .ends(1)
        .says(&[
            "registry.access.redhat.com/ubi9/ubi-minimal:latest",
            "it is new",
        ]);
    // And it can be locked, once its registry can be reached.
    let content = Content::default();
    content.image("ubi9/ubi-minimal:latest", &[(1, 100)]);
    let upstream = content.served();
    site.leads("registry.access.redhat.com", &upstream.address());
    site.imgbuild("lock -c here/imageset.yaml").done();
    site.imgbuild("lock --check -c here/imageset.yaml")
        .done()
        .says(&["answers here/imageset.yaml"]);
}

#[test]
fn an_edited_config_is_noticed_and_only_the_difference_is_locked() {
    let (_content, upstream, site) = world();
    site.imgbuild("lock --check")
        .done()
        .says(&["lockfiles/imageset.lock.toml answers imageset.yaml"]);
    site.wants(["team/base:1", "team/app:1", "team/debug:1"]);
    site.imgbuild("lock --check")
        .ends(3)
        .says(&[
            "does not answer imageset.yaml",
            "team/debug:1",
            "team/tool:1",
        ])
        .hints(&["run `imgbuild lock`"]);
    for line in ["build", "export -o media", "plan"] {
        site.imgbuild(line).ends(3).says(&["team/debug:1"]);
    }
    let before = upstream.requests().len();
    site.imgbuild("lock").done().says(&[
        "3 pins: 1 new, 0 moved, 2 the same",
        "team/debug:1",
        "team/tool:1",
    ]);
    for request in &upstream.requests()[before..] {
        assert!(
            request.path.starts_with("/v2/team/debug/"),
            "only what is new is asked for: {request:?}"
        );
    }
    site.imgbuild("lock --check").done();
}

#[test]
fn without_the_network_a_lock_can_only_shrink() {
    let (_content, upstream, site) = world();
    let before = upstream.requests().len();
    site.wants(["team/base:1"]);
    site.imgbuild("lock --offline").done();
    site.imgbuild("lock --check").done();
    site.wants(["team/base:1", "team/debug:1"]);
    let text = site.lock_text();
    site.imgbuild("lock --offline")
        .ends(1)
        .says(&[
            "1 request cannot be answered offline",
            "imageset.yaml:6",
            "team/debug:1",
            "it is new",
        ])
        .hints(&["without --offline"]);
    assert_eq!(site.lock_text(), text, "the lock is as it was");
    assert_eq!(upstream.requests().len(), before, "nobody is asked");
}

#[test]
fn conflict_markers_are_resolved_anew() {
    let (content, _upstream, site) = world();
    let whole = site.lock_text();
    let ours = whole.clone();
    content.image("team/app:1", &[(1, 4_000), (22, 600)]);
    site.imgbuild("lock --update image:*/team/app*").done();
    let theirs = site.lock_text();
    let changed = |text: &str| -> Vec<String> {
        let start = text
            .find("[[image]]\nref = \"registry.example.test/team/app:1\"")
            .unwrap();
        let block = &text[start..];
        let end = block[2..].find("[[").map_or(block.len(), |end| end + 2);
        block[..end].lines().map(str::to_owned).collect()
    };
    let (our, their) = (changed(&ours), changed(&theirs));
    let mut merged = String::new();
    for line in ours.lines() {
        if line == our[3] && line != their[3] {
            let _ = write!(
                merged,
                "<<<<<<< HEAD\n{}\n=======\n{}\n>>>>>>> theirs\n",
                our[3], their[3]
            );
        } else {
            merged.push_str(line);
            merged.push('\n');
        }
    }
    assert!(merged.contains("<<<<<<<"), "{merged}");
    site.write(LOCK, &merged);
    site.imgbuild("build").ends(1).says(&[LOCK]);
    site.imgbuild("lock")
        .done()
        .says(&["team/app:1 was in conflict and has been resolved anew"]);
    assert_eq!(
        site.lock_text(),
        theirs,
        "the disputed block is asked for again, the others are kept"
    );
    site.imgbuild("lock --check").done();
}

#[test]
fn an_image_is_left_out_for_a_reason() {
    let (_content, _upstream, site) = world();
    site.wants(["team/base:1", "team/gone:9"]);
    site.imgbuild("lock")
        .ends(1)
        .says(&["team/gone:9 is not there"])
        .hints(&["--skip IMAGE --reason TEXT"]);
    site.run([
        "lock",
        "--skip",
        "registry.example.test/team/gone:9",
        "--reason",
        "withdrawn; CHG-7",
    ])
    .done()
    .says(&["team/gone:9 is skipped: withdrawn; CHG-7"]);
    let text = site.lock_text();
    assert!(
        text.contains(
            "[[skip]]\nimage = \"registry.example.test/team/gone:9\"\nreason = \"withdrawn; CHG-7\""
        ),
        "{text}"
    );
    site.imgbuild("lock --check").done();
    site.imgbuild("lock").done().says(&["nothing changed"]);
    site.export("media", "");
    site.wants(["team/base:1"]);
    site.imgbuild("lock").done();
    assert!(
        !site.lock_text().contains("[[skip]]"),
        "a skip that matches nothing any more goes"
    );
}

#[test]
fn blocked_images_are_left_out() {
    let (_content, upstream, site) = world();
    let before = upstream.requests().len();
    site.config(&format!(
        "  additionalImages:\n    - name: {UPSTREAM}/team/base:1\n    - name: {UPSTREAM}/team/debug:1\n  blockedImages:\n    - name: '/debug:'\n"
    ));
    site.imgbuild("lock --check").ends(3).says(&["/debug:"]);
    site.imgbuild("lock")
        .done()
        .says(&["team/debug:1 is blocked by \"/debug:\""]);
    assert!(
        !site.lock_text().contains("team/debug"),
        "{}",
        site.lock_text()
    );
    assert_eq!(
        upstream.requests().len(),
        before,
        "what is blocked is not asked for"
    );
    site.imgbuild("lock --check").done();
    site.config(&format!("  additionalImages:\n    - name: {UPSTREAM}/team/base:1\n  blockedImages:\n    - name: '['\n"));
    site.imgbuild("lock").ends(1).says(&["["]);
}

#[test]
fn a_layout_on_disk_is_a_source_like_any_other() {
    let (content, _upstream, site) = world();
    site.export("media", "");
    site.imgbuild("import media --to oci:layouts/all").done();
    let lonely = Connected::at("127.0.0.1:9");
    crate::site::copy(&site.path("layouts"), &lonely.path("layouts"));
    let wants = |which: &str| {
        lonely.config(&format!(
            "  additionalImages:\n    - name: oci://layouts/all{which}\n      targetRepo: from/disk\n      targetTag: v1\n"
        ));
    };
    let digest = content.images()[1].descriptor.digest;
    // Every image there is called 1.
    for which in ["", ":1"] {
        wants(which);
        lonely.imgbuild("lock").ends(1).says(&[
            "imageset.yaml:5",
            "layouts/all",
            "may be any of",
            "registry.example.test/team/app:1",
            &digest.to_string(),
        ]);
    }
    wants(&format!("@{digest}"));
    lonely.lock();
    lonely.export("media", "");
    let mirror = Content::default().served();
    let far = crate::site::Disconnected::with(&mirror.address());
    far.receives(&lonely, "media");
    far.imgbuild(&format!("import media --to docker://{}", mirror.address()))
        .done();
    assert_eq!(
        mirror.digest_of("from/disk", "v1"),
        Some(content.images()[1].descriptor.digest),
        "the image is what it was"
    );
    lonely.config("  additionalImages:\n    - name: oci://layouts/none:v1\n");
    lonely
        .imgbuild("lock")
        .ends(1)
        .says(&["imageset.yaml:5", "there is no OCI layout at layouts/none"]);
}

#[test]
fn the_older_schema_is_read_with_its_defaults() {
    let content = Content::default();
    content.image("library/busybox:latest", &[(1, 300)]);
    content.image("team/app:1", &[(2, 300)]);
    let upstream = content.served();
    let site = Connected::to(&upstream);
    site.leads("docker.io", &upstream.address());
    site.write(
        "imageset.yaml",
        format!("apiVersion: mirror.openshift.io/v1alpha2\nkind: ImageSetConfiguration\nstorageConfig:\n  local:\n    path: ./metadata\nmirror:\n  additionalImages:\n    - name: busybox\n    - name: {UPSTREAM}/team/app:1\n"),
    );
    site.lock().says(&["imageset.yaml"]);
    assert!(
        site.lock_text().contains("docker.io/library/busybox"),
        "{}",
        site.lock_text()
    );
    site.imgbuild("lock --check").done();
    site.export("media", "");
    // The newer schema wants whole names.
    site.config("  additionalImages:\n    - name: busybox\n");
    site.imgbuild("lock")
        .ends(1)
        .says(&["imageset.yaml:5", "busybox"])
        .hints(&["busybox"]);
}

#[test]
fn two_locks_are_compared_in_three_forms() {
    let (content, _upstream, site) = world();
    site.imgbuild("build").done();
    site.write("old.toml", site.lock_text());
    content.image("team/app:1", &[(1, 4_000), (22, 600)]);
    site.wants(["team/base:1", "team/app:1", "team/debug:1"]);
    site.imgbuild("lock --update image:*/team/app*").done();
    site.imgbuild("build").done();
    let diff = format!("diff old.toml {LOCK}");
    site.imgbuild(&diff).done().says(&[
        "team/app:1",
        "team/debug:1",
        "team/tool:1",
        "in all: +2 -2 images",
    ]);
    site.imgbuild(&format!("{diff} --format md"))
        .done()
        .says(&["team/app:1", "|"]);
    let json = site
        .imgbuild(&format!("{diff} --format json"))
        .done()
        .json();
    assert_eq!(json["version"], 1, "{json}");
    assert_eq!(json["blocks"].as_array().unwrap().len(), 3, "{json}");
    assert_eq!(
        site.imgbuild(&format!("diff {LOCK} {LOCK} --format json"))
            .done()
            .json()["blocks"]
            .as_array()
            .unwrap()
            .len(),
        0,
        "a lock does not differ from itself"
    );
    site.imgbuild("diff old.toml none.toml")
        .says(&["none.toml"]);
}

#[test]
fn whoever_brought_something_in_is_named() {
    let (content, _upstream, site) = world();
    site.imgbuild("build").done();
    let (image, below) = &content.all()[1];
    let shared = content.all()[0]
        .1
        .blobs
        .intersection(&below.blobs)
        .next()
        .copied()
        .unwrap();
    for (what, owners) in [
        (image.descriptor.digest.to_string(), vec!["team/app:1"]),
        (
            image.descriptor.digest.hex()[..8].to_owned(),
            vec!["team/app:1"],
        ),
        (format!("{UPSTREAM}/team/app"), vec!["team/app:1"]),
        (format!("{UPSTREAM}/team/app:1"), vec!["team/app:1"]),
        (
            "1".to_owned(),
            vec!["team/app:1", "team/base:1", "team/tool:1"],
        ),
        (shared.digest.to_string(), vec!["team/app:1", "team/base:1"]),
    ] {
        let run = site.imgbuild(&format!("why {what}")).done();
        for owner in &owners {
            assert!(
                run.stdout.contains(owner),
                "why {what} must name {owner}\n{}",
                run.story()
            );
        }
        assert!(
            run.stdout.contains("asked for at imageset.yaml:"),
            "the place in the config is named\n{}",
            run.story()
        );
        let json = site
            .imgbuild(&format!("why {what} --format json"))
            .done()
            .json();
        assert_eq!(
            json["reasons"].as_array().unwrap().len(),
            owners.len(),
            "{json}"
        );
    }
    site.imgbuild("why registry.example.test/nothing")
        .ends(1)
        .says(&["nothing"])
        .hints(&["a digest"]);
}

#[test]
fn a_plan_says_what_is_to_come_in_three_forms() {
    let (content, upstream, site) = world();
    let blobs: BTreeSet<_> = content.all()[..3]
        .iter()
        .flat_map(|(_, below)| below.blobs.clone())
        .collect();
    let bytes: u64 = blobs.iter().map(|blob| blob.size).sum();
    let json = site.imgbuild("plan --format json").done().json();
    assert_eq!(json["version"], 1, "{json}");
    assert_eq!(json["fetch"]["blobs"], blobs.len(), "{json}");
    assert_eq!(json["fetch"]["bytes"], bytes, "{json}");
    assert_eq!(json["archive"]["sequence"], 1, "{json}");
    assert_eq!(
        upstream.asked("GET", &[Kind::Blob]).len(),
        0,
        "a plan fetches no layer"
    );
    let forecast = json["archive"]["bytes"].as_u64().unwrap();
    site.imgbuild("plan")
        .done()
        .says(&["images", "to fetch", "next archive", "imageset seq 1"]);
    site.imgbuild("plan --media 20kB")
        .done()
        .says(&["in 2 parts of at most"]);
    let dot = site.imgbuild("plan --format dot").done();
    assert!(
        dot.stdout.starts_with("digraph")
            && dot.stdout.trim_end().ends_with('}')
            && dot.stdout.contains("->"),
        "{}",
        dot.story()
    );
    site.export("media", "");
    let written: u64 = site
        .parts("media")
        .iter()
        .map(|name| fs::metadata(site.path("media").join(name)).unwrap().len())
        .sum();
    assert_eq!(written, forecast, "the forecast is exact");
    site.imgbuild("plan")
        .done()
        .says(&["nothing to carry: imageset seq 1 has this lock"]);
    let before = upstream.requests().len();
    site.imgbuild("plan --offline").done();
    assert_eq!(upstream.requests().len(), before, "offline asks nobody");
}

#[test]
fn garbage_goes_and_what_a_root_needs_stays() {
    let (content, _upstream, site) = world();
    site.imgbuild("build").done();
    let whole = site.names("store/blobs/sha256");
    site.imgbuild("store gc").done().says(&["0 blobs"]);
    assert_eq!(
        site.names("store/blobs/sha256"),
        whole,
        "nothing that is needed goes"
    );
    site.wants(["team/base:1"]);
    site.lock();
    let gone = site
        .imgbuild("store gc --dry-run --format json")
        .done()
        .json();
    assert_eq!(
        site.names("store/blobs/sha256").len(),
        whole.len() + 1,
        "a dry run removes nothing"
    );
    let done = site.imgbuild("store gc --format json").done().json();
    assert_eq!(
        gone["blobs"], done["blobs"],
        "the dry run told the truth: {gone} {done}"
    );
    site.has_a_sound_store();
    let held = site.names("store/blobs/sha256");
    let needed = &content.all()[0].1;
    for blob in needed
        .blobs
        .iter()
        .chain(needed.manifests.iter().map(|(blob, _)| blob))
    {
        assert!(
            held.contains(&blob.digest.hex()),
            "what the lock needs stays"
        );
    }
    let other = &content.all()[2].1;
    assert!(
        other
            .blobs
            .iter()
            .all(|blob| !held.contains(&blob.digest.hex())),
        "what nobody needs goes"
    );
    site.imgbuild("build").done().says(&["0 fetched"]);
    // A root by hand keeps a lock that no working directory has.
    site.imgbuild(&format!("store root --add {LOCK}")).done();
    let roots = site.imgbuild("store root").done();
    assert!(
        roots.stdout.contains("imageset.lock.toml"),
        "{}",
        roots.story()
    );
    let name = roots.stdout.split_whitespace().last().unwrap().to_owned();
    site.imgbuild(&format!("store root --remove {name}")).done();
    site.imgbuild("store root --remove nobody")
        .ends(1)
        .says(&["nobody"])
        .hints(&["imgbuild store root"]);
    site.imgbuild("store gc").done();
    let held = site.names("store/blobs/sha256");
    assert!(
        needed
            .blobs
            .iter()
            .all(|blob| !held.contains(&blob.digest.hex())),
        "without a root nothing is kept: {held:?}"
    );
    site.imgbuild("store stat").done();
}

#[test]
fn a_damaged_blob_is_put_aside_and_fetched_again() {
    let (content, _upstream, site) = world();
    site.imgbuild("build").done();
    let blob = *content.all()[1].1.blobs.iter().next().unwrap();
    let path = site.path("store/blobs/sha256").join(blob.digest.hex());
    let mut bytes = fs::read(&path).unwrap();
    bytes[10] ^= 1;
    // Blobs are read-only.
    fs::remove_file(&path).unwrap();
    fs::write(&path, bytes).unwrap();
    site.imgbuild("store fsck")
        .ends(4)
        .says(&[
            "1 damaged blob",
            &blob.digest.to_string(),
            "needed by",
            "team/app:1",
        ])
        .hints(&["imgbuild build"]);
    assert!(!path.exists(), "what is damaged is put aside");
    site.imgbuild("build").done().says(&["1 fetched"]);
    site.has_a_sound_store();
}

#[test]
fn events_are_json_lines() {
    let (_content, _upstream, site) = world();
    site.imgbuild("build --events events").done();
    let events = site.read("events");
    let mut kinds = BTreeSet::new();
    for line in events.lines() {
        let event: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        kinds.insert(event["event"].as_str().unwrap().to_owned());
    }
    for kind in ["phase", "planned", "bytes", "done"] {
        assert!(kinds.contains(kind), "{kind} must be among {kinds:?}");
    }
    site.imgbuild("build --events none/events")
        .ends(1)
        .hints(&["none/events"]);
    let quiet = site.imgbuild("build --quiet").done();
    assert_eq!(
        (quiet.stdout.as_str(), quiet.stderr.as_str()),
        ("", ""),
        "quiet says nothing"
    );
}

#[test]
fn the_program_describes_itself() {
    let site = Site::new();
    let version = env!("CARGO_PKG_VERSION");
    site.imgbuild("version")
        .done()
        .says(&[&format!("imgbuild {version}")]);
    site.imgbuild("--version").done().says(&[version]);
    let json = site.imgbuild("version --format json").done().json();
    assert_eq!(json["version"], version, "{json}");
    for shell in ["bash", "zsh", "fish"] {
        site.imgbuild(&format!("completion {shell}")).done().says(&[
            "imgbuild",
            "export",
            "part-size",
        ]);
    }
    let script = site.imgbuild("completion bash").done().stdout;
    site.write("completion.bash", script);
    if let Some(run) = site.other("bash -n completion.bash") {
        run.done();
    }
    site.imgbuild("rules")
        .done()
        .says(&["additional-image", "mirror.additionalImages"]);
    site.imgbuild("rules additional-image")
        .done()
        .says(&["kind = \"resolve-tag\""]);
    site.imgbuild("rules nothing")
        .ends(1)
        .hints(&["additional-image"]);
    let help = site.imgbuild("--help").done();
    for command in [
        "init", "lock", "plan", "diff", "why", "build", "export", "verify", "import", "emit",
        "serve", "store",
    ] {
        assert!(
            help.stdout.contains(command),
            "{command} must be in the help\n{}",
            help.story()
        );
        site.imgbuild(&format!("{command} --help"))
            .done()
            .says(&["Usage: imgbuild"]);
    }
}

#[test]
fn an_interrupt_stops_where_work_can_go_on() {
    let content = Content::default();
    many(&content, 30, 20_000);
    let upstream = content.serve(Options {
        delay: Duration::from_millis(40),
        ..Options::default()
    });
    let site = Connected::to(&upstream);
    site.wants(content.names());
    site.lock();
    let child = site
        .command(["build"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let from = upstream.requests().len();
    let begun = Instant::now();
    while upstream.requests().len() < from + 10 && begun.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut interrupt = site.tool("kill");
    interrupt.args(["-INT", &child.id().to_string()]);
    assert!(interrupt.status().unwrap().success(), "the signal is sent");
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(
        output.status.code(),
        Some(5),
        "an interrupt is an incomplete run: {said}"
    );
    assert!(
        said.contains("stopping") && said.contains("run the same command again"),
        "{said}"
    );
    let finished: BTreeSet<String> = site.names("store/blobs/sha256").into_iter().collect();
    let before = upstream.requests().len();
    site.imgbuild("build").done();
    for request in &upstream.requests()[before..] {
        let hex = request.path.rsplit_once(':').map_or("", |(_, hex)| hex);
        assert!(!finished.contains(hex), "{} was finished", request.path);
    }
    site.has_a_sound_store();
}

#[test]
fn a_store_is_served_as_a_registry() {
    let site = Site::new();
    let child = site
        .command(["serve", "--data", "data", "--listen", "127.0.0.1:0"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut child = Ended(child);
    let mut line = String::new();
    std::io::BufRead::read_line(
        &mut std::io::BufReader::new(child.0.stdout.take().unwrap()),
        &mut line,
    )
    .unwrap();
    let address = line
        .trim()
        .rsplit_once("http://")
        .expect("it says where it listens")
        .1
        .to_owned();
    let (content, _upstream, near) = world();
    near.export("media", "");
    let far = crate::site::Disconnected::with(&address);
    far.receives(&near, "media");
    far.imgbuild(&format!("import media --to docker://{address}/mirror"))
        .done();
    for image in &content.images()[..3] {
        let bytes = crate::site::wire::manifest(
            &address,
            &format!("mirror/{}", image.repository),
            &image.tag,
        )
        .expect("it is served");
        assert_eq!(
            imgbuild::digest::Digest::of(&bytes),
            image.descriptor.digest,
            "{}",
            image.name()
        );
    }
}

/// A process that ends with the value.
struct Ended(std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn a_stream_has_its_own_config_lock_chain_and_memory() {
    let (content, _upstream, site) = world();
    fs::create_dir_all(site.path("prod")).unwrap();
    fs::rename(site.path("imageset.yaml"), site.path("prod/set.yaml")).unwrap();
    site.write(
        "imgbuild.toml",
        "[stream.production]\nconfig = \"prod/set.yaml\"\nlock = \"prod/production.lock.toml\"\npart-size = \"16KiB\"\nkeep = 2\n",
    );
    // The config is enough to know the stream, and the stream to know the config.
    site.imgbuild("lock -c prod/set.yaml")
        .done()
        .says(&["prod/production.lock.toml: 3 pins"]);
    site.imgbuild("lock --check -c prod/set.yaml").done();
    site.imgbuild("plan --stream production")
        .done()
        .says(&["next archive  production seq 1", "of at most 16.4 kB"]);
    for (number, bytes) in [(1, 601), (2, 602), (3, 603), (4, 604)] {
        content.image("team/app:1", &[(1, 4_000), (2, bytes)]);
        site.imgbuild("lock --update -c prod/set.yaml").done();
        site.imgbuild("export --stream production -o media")
            .done()
            .says(&[&format!("production seq {number}:")]);
        assert!(
            site.path(format!("media/production_seq{number:06}_0001.tar"))
                .exists(),
            "archives are named by their stream"
        );
    }
    let chain = site.read("prod/production.chain");
    assert_eq!(chain.lines().count(), 4, "the chain stands beside the lock");
    let roots = site.imgbuild("store root").done().story();
    for (number, kept) in [(1, false), (2, false), (3, true), (4, true)] {
        assert_eq!(
            roots.contains(&format!("archive production {number:06}")),
            kept,
            "`keep` says how many archives stay: {roots}"
        );
    }
    site.imgbuild("export --stream production -o media")
        .done()
        .says(&["nothing to carry: production seq 4"]);
}
