//! What is wrong is said: the thing, the place and what to do, with the exit code for it; and nothing is half done.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use imgbuild::registry::server::{Broken, Faults, Htpasswd, Options};
use imgbuild::store::Blob;

use crate::site::content::{Content, noise};
use crate::site::registry::Registry;
use crate::site::{Connected, Disconnected, Run, Site, UPSTREAM};

fn small() -> (Content, Registry) {
    let content = Content::default();
    content.image("team/app:1", &[(1, 3_000), (2, 500)]);
    let upstream = content.served();
    (content, upstream)
}

/// A site that has exported `team/app:1` into `media`.
fn exported() -> (Connected, Registry) {
    let (_, upstream) = small();
    let site = Connected::to(&upstream);
    site.wants(["team/app:1"]);
    site.lock();
    site.export("media", "");
    (site, upstream)
}

/// Runs the program where `script` has mounted something over the store (`$1`); `None`, with a remark, where mounting
/// is not allowed.
fn mounted(site: &Site, script: &str, line: &str) -> Option<Run> {
    const READY: &str = "it is mounted";
    fs::create_dir_all(site.path("store")).unwrap();
    // As root, and as anybody where users may have name spaces.
    for options in ["-m", "-Urm"] {
        let mut command: Command = site.tool("unshare");
        command
            .args([options, "--", "sh", "-c"])
            .arg(format!(
                "{script} && echo '{READY}' && shift && exec \"$@\""
            ))
            .arg("sh")
            .arg(site.path("store"))
            .arg(env!("CARGO_BIN_EXE_imgbuild"))
            .args(line.split_whitespace());
        let Ok(output) = command.output() else { break };
        let run = Run::of(&command, &output);
        if run.stdout.contains(READY) {
            return Some(run);
        }
    }
    eprintln!("skipped: a file system cannot be mounted here");
    None
}

#[test]
fn broken_yaml_is_shown_with_its_line() {
    let site = Connected::at("127.0.0.1:9");
    site.write(
        "imageset.yaml",
        "apiVersion: mirror.openshift.io/v2alpha1\nkind: ImageSetConfiguration\nmirror:\n  additionalImages:\n  - name: [a\n",
    );
    site.imgbuild("lock").ends(1).says(&["imageset.yaml", "5"]);
    assert!(!site.path("lockfiles").exists(), "nothing is written");
    site.write("imageset.yaml", "");
    site.imgbuild("lock").ends(1).says(&["imageset.yaml"]);
    fs::remove_file(site.path("imageset.yaml")).unwrap();
    site.imgbuild("lock")
        .ends(1)
        .says(&["imageset.yaml"])
        .hints(&["imgbuild init", "-c FILE"]);
}

#[test]
fn an_unknown_key_is_refused_with_the_one_that_was_meant() {
    let site = Connected::at("127.0.0.1:9");
    site.config("  additionalImages:\n    - nmae: registry.example.test/a/b:1\n");
    site.imgbuild("lock")
        .ends(1)
        .says(&["imageset.yaml", "nmae", "name"]);
    site.config("  aditionalImages:\n    - name: registry.example.test/a/b:1\n");
    site.imgbuild("lock")
        .ends(1)
        .says(&["imageset.yaml:4", "aditionalImages", "additionalImages"]);
    site.wants(["a/b:1"]);
    site.write("imgbuild.toml", "stroe = \"x\"\n");
    site.imgbuild("lock")
        .ends(1)
        .says(&["imgbuild.toml", "stroe", "store"]);
}

#[test]
fn a_host_that_nobody_knows_is_named() {
    let site = Connected::at("127.0.0.1:9");
    site.config("  additionalImages:\n    - name: registry.nowhere.invalid/a/b:1\n");
    site.imgbuild("lock")
        .ends(1)
        .says(&["imageset.yaml:5", "registry.nowhere.invalid"])
        .hints(&["check the spelling", "resolver"]);
    assert!(!site.path("lockfiles").exists(), "nothing is written");
}

#[test]
fn a_registry_that_refuses_connections_is_named() {
    let site = Connected::at("127.0.0.1:9");
    site.wants(["a/b:1"]);
    site.imgbuild("lock").ends(1).says(&[
        "imageset.yaml:5",
        "registry.example.test/a/b:1",
        "127.0.0.1:9",
        "refused",
    ]);
}

#[test]
fn a_wrong_password_is_refused_without_being_shown() {
    let (content, _) = small();
    let users: Htpasswd = format!("alice:{}\n", bcrypt::hash("right", 4).unwrap())
        .parse()
        .unwrap();
    let upstream = content.serve(Options {
        users: Some(users),
        ..Options::default()
    });
    let site = Connected::to(&upstream);
    site.wants(["team/app:1"]);
    site.imgbuild("lock")
        .ends(1)
        .says(&[
            "imageset.yaml:5",
            "registry.example.test/team/app:1",
            "denies access, no credentials are known for it",
        ])
        .hints(&["podman login", "--authfile"]);
    site.logs_in(&upstream.address(), "alice", "Tr0ub4dor");
    site.imgbuild("lock -v")
        .ends(1)
        .says(&[
            "imageset.yaml:5",
            "registry.example.test/team/app",
            "denies access",
            "auth.json",
        ])
        .hints(&["check that these credentials are still valid"])
        .hides("Tr0ub4dor");
    site.logs_in(&upstream.address(), "alice", "right");
    site.lock();
}

#[test]
fn a_tag_that_is_not_there_is_named_with_its_place() {
    let (_, upstream) = small();
    let site = Connected::to(&upstream);
    site.wants(["team/app:1", "team/app:2", "team/none:1"]);
    site.imgbuild("lock")
        .ends(1)
        .says(&[
            "2 requests could not be answered",
            "imageset.yaml:6",
            "registry.example.test/team/app:2 is not there",
            "imageset.yaml:7",
            "registry.example.test/team/none:1 is not there",
        ])
        .hints(&["--skip IMAGE --reason TEXT"]);
    assert!(!site.path("lockfiles").exists(), "nothing is written");
}

#[test]
fn bytes_that_never_match_their_digest_are_refused_and_not_stored() {
    let (content, _) = small();
    let layer = *content.all()[0]
        .1
        .blobs
        .iter()
        .max_by_key(|blob| blob.size)
        .unwrap();
    let faults = Faults {
        broken: BTreeMap::from([(layer.digest, Broken::WrongBytes)]),
        ..Faults::default()
    };
    let upstream = content.serve(Options {
        faults: Some(faults),
        ..Options::default()
    });
    let site = Connected::to(&upstream);
    site.wants(["team/app:1"]);
    site.lock();
    site.imgbuild("build")
        .ends(5)
        .says(&[
            "1 blob did not arrive",
            &layer.digest.to_string(),
            "registry.example.test/team/app",
            "needed by image registry.example.test/team/app:1",
        ])
        .hints(&["run the same command again"]);
    assert!(
        !site
            .path("store/blobs/sha256")
            .join(layer.digest.hex())
            .exists(),
        "nothing wrong is stored"
    );
    site.imgbuild("export -o media").ends(5);
    assert!(
        site.names("media").is_empty(),
        "nothing incomplete is exported"
    );
    site.has_a_sound_store();
}

#[test]
fn a_manifest_that_never_matches_its_digest_is_refused() {
    let (content, _) = small();
    let root = content.images()[0].descriptor.digest;
    let faults = Faults {
        broken: BTreeMap::from([(root, Broken::WrongBytes)]),
        ..Faults::default()
    };
    let upstream = content.serve(Options {
        faults: Some(faults),
        ..Options::default()
    });
    let site = Connected::to(&upstream);
    site.wants([format!("team/app@{root}")]);
    let run = site.imgbuild("lock");
    assert!(matches!(run.code, Some(1 | 5)), "{}", run.story());
    run.says(&[&root.to_string(), "registry.example.test/team/app"]);
    assert!(!site.path("lockfiles").exists(), "nothing is written");
}

#[test]
fn a_full_disk_is_said_and_gone_on_from() {
    let content = Content::default();
    content.image("team/large:1", &[(1, 1_500_000), (2, 1_500_000)]);
    let upstream = content.served();
    let site = Connected::to(&upstream);
    site.wants(["team/large:1"]);
    site.lock();
    let script = "mount -t tmpfs -o size=2m none \"$1\"";
    let Some(run) = mounted(&site, script, "build") else {
        return;
    };
    assert!(
        matches!(run.code, Some(1 | 5)),
        "a full disk is an error\n{}",
        run.story()
    );
    run.says(&["No space left on device", "store"]);
    site.imgbuild("build").done();
    site.has_a_sound_store();
    // An export onto a full disk.
    let target = "mkdir -p \"$1/../small\" && mount -t tmpfs -o size=1m none \"$1/../small\"";
    mounted(&site, target, "export -o small")
        .unwrap()
        .ends(1)
        .says(&["No space left on device", "small"]);
    assert!(
        !site.path("lockfiles/imageset.chain").exists(),
        "what was not written is not in the chain"
    );
    site.export("media", "");
    site.imgbuild("verify media").done();
    // An import into a full disk.
    let far = Disconnected::new();
    far.receives(&site, "media");
    let run = mounted(&far, script, "import media").unwrap();
    assert!(
        matches!(run.code, Some(1 | 5)),
        "a full disk is an error\n{}",
        run.story()
    );
    run.says(&["No space left on device"]);
    far.imgbuild("import media").done();
    far.has_a_sound_store();
}

#[test]
fn a_store_that_cannot_be_written_is_said() {
    let (site, _upstream) = exported();
    let script = "mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\"";
    fs::remove_file(
        site.path("store/blobs/sha256")
            .join(Blob::of(site.lock_text().as_bytes()).digest.hex()),
    )
    .unwrap();
    for line in ["build", "export -o other", "import media", "lock"] {
        let Some(run) = mounted(&site, script, line) else {
            return;
        };
        run.ends(1).says(&["Read-only file system", "store"]);
    }
    for line in [
        "store stat",
        "plan --offline",
        "why registry.example.test/team/app",
        "verify media",
    ] {
        mounted(&site, script, line).unwrap().done();
    }
}

#[test]
fn a_truncated_part_is_refused() {
    let (site, _upstream) = exported();
    let part = "imageset_seq000001_0001.tar";
    let path = site.path("media").join(part);
    let bytes = fs::read(&path).unwrap();
    for length in [
        0,
        1,
        511,
        512,
        2_000,
        bytes.len() / 2,
        bytes.len() - 1024,
        bytes.len() - 1,
    ] {
        fs::write(&path, &bytes[..length]).unwrap();
        site.imgbuild("verify media").ends(4).says(&[part]);
        let far = Disconnected::new();
        far.receives(&site, "media");
        far.imgbuild("import media").ends(4).says(&[part]);
        assert!(far.heads().is_empty(), "nothing is adopted");
    }
    let mut longer = bytes.clone();
    longer.extend([0; 512]);
    fs::write(&path, longer).unwrap();
    site.imgbuild("verify media").ends(4).says(&[part]);
}

#[test]
fn a_foreign_file_beside_an_archive_is_mentioned_and_not_read() {
    let (site, _upstream) = exported();
    site.write("media/README.txt", "carried by hand");
    site.write("media/imageset_seq000001_0001.tar.part", "half");
    for line in ["verify media", "import media"] {
        let far = Disconnected::new();
        far.receives(&site, "media");
        far.imgbuild(line).done().says(&[
            "README.txt is no part of an archive and was not read",
            "imageset_seq000001_0001.tar.part is no part",
        ]);
    }
    let empty = Disconnected::new();
    empty.write("media/README.txt", "nothing else");
    empty
        .imgbuild("import media")
        .ends(1)
        .says(&["no archive is there"]);
    empty
        .imgbuild("verify media")
        .ends(1)
        .says(&["no archive is there"])
        .hints(&["imgbuild export -o"]);
    empty.imgbuild("verify nowhere").ends(1).says(&["nowhere"]);
}

#[test]
fn a_flipped_bit_anywhere_is_found_before_anything_changes() {
    let (site, _upstream) = exported();
    let mirror = Content::default().served();
    let far = Disconnected::with(&mirror.address());
    far.receives(&site, "media");
    let part = far.path("media/imageset_seq000001_0001.tar");
    let bytes = fs::read(&part).unwrap();
    let blocks = bytes.len() / 512;
    assert!(blocks > 30, "the archive must have more than headers");
    // Every block once, at a place that differs; and more places drawn from the whole, two hundred in all.
    let drawn = noise(7, 8 * 200);
    let mut positions: Vec<usize> = (0..blocks)
        .map(|block| block * 512 + usize::from(drawn[block % 200]) * 2)
        .collect();
    for word in drawn.chunks(8).take(200_usize.saturating_sub(blocks)) {
        let word = u64::from_le_bytes(word.try_into().unwrap());
        positions.push(usize::try_from(word % bytes.len() as u64).unwrap());
    }
    let sums = fs::read(site.path("media/imageset_seq000001.sha256")).unwrap();
    std::thread::scope(|scope| {
        let share = positions.len().div_ceil(3);
        for chunk in positions.chunks(share) {
            let (bytes, site, mirror) = (&bytes, &site, &mirror);
            scope.spawn(move || {
                let far = Disconnected::with(&mirror.address());
                far.receives(site, "media");
                let part = far.path("media/imageset_seq000001_0001.tar");
                for &position in chunk {
                    let mut damaged = bytes.clone();
                    damaged[position] ^= 1 << (position % 8);
                    fs::write(&part, &damaged).unwrap();
                    for line in [
                        "verify media".to_owned(),
                        format!("import media --to {}", mirror.address()),
                    ] {
                        let run = far.imgbuild(&line);
                        assert_eq!(
                            run.code,
                            Some(4),
                            "byte {position} of {} differs\n{}",
                            bytes.len(),
                            run.story()
                        );
                        assert!(
                            run.stderr.contains("imageset_seq000001_0001.tar"),
                            "the part must be named\n{}",
                            run.story()
                        );
                    }
                }
                assert!(far.heads().is_empty(), "nothing is adopted");
            });
        }
    });
    let path = far.path("media/imageset_seq000001.sha256");
    for position in (0..sums.len()).step_by(7) {
        let mut damaged = sums.clone();
        damaged[position] ^= 1;
        fs::write(&path, &damaged).unwrap();
        let run = far.imgbuild("verify media");
        assert_eq!(
            run.code,
            Some(4),
            "byte {position} of the checksums differs\n{}",
            run.story()
        );
    }
    fs::write(&path, sums).unwrap();
    let is_visible = |exchange: &&imgbuild::registry::server::Exchange| {
        exchange.method == "PUT" && exchange.kind == imgbuild::registry::server::Kind::Manifest
    };
    assert_eq!(
        mirror.requests().iter().filter(is_visible).count(),
        0,
        "no manifest, tag or head was put at the destination"
    );
    far.imgbuild(&format!("import media --to {}", mirror.address()))
        .done()
        .says(&["adopted"]);
}

#[test]
fn a_lock_edited_by_hand_is_refused() {
    let (site, _upstream) = exported();
    let text = site.lock_text();
    let write = |text: &str| site.write("lockfiles/imageset.lock.toml", text);
    write(&text.replace("[[image]]", "# mine\n[[image]]"));
    site.imgbuild("lock --check")
        .ends(3)
        .says(&["lockfiles/imageset.lock.toml"])
        .hints(&["imgbuild lock"]);
    write(&text.replacen("@sha256:", "@sha256:zz", 1));
    site.imgbuild("lock --check")
        .ends(1)
        .says(&["lockfiles/imageset.lock.toml"]);
    site.imgbuild("build")
        .ends(1)
        .says(&["lockfiles/imageset.lock.toml"]);
    write(&text.replace("size = ", "size = 1"));
    let run = site.imgbuild("build");
    assert!(
        matches!(run.code, Some(1 | 5)),
        "a pin with another size cannot be built\n{}",
        run.story()
    );
    write(&text.replace(
        "registry.example.test/team/app:1\"",
        "registry.example.test/team/other:1\"",
    ));
    site.imgbuild("lock --check")
        .ends(3)
        .says(&["team/other:1", "team/app:1"]);
    site.imgbuild("build")
        .ends(3)
        .says(&["team/app:1"])
        .hints(&["imgbuild lock"]);
    fs::remove_file(site.path("lockfiles/imageset.lock.toml")).unwrap();
    for line in [
        "lock --check",
        "build",
        "export -o x",
        "plan",
        "why registry.example.test/team/app",
    ] {
        site.imgbuild(line)
            .ends(3)
            .says(&["there is no lock at lockfiles/imageset.lock.toml"])
            .hints(&["imgbuild lock"]);
    }
}

#[test]
fn a_lock_from_the_future_is_refused_by_name() {
    let (site, _upstream) = exported();
    let text = site.lock_text();
    site.write(
        "lockfiles/imageset.lock.toml",
        text.replace("version = 1", "version = 2"),
    );
    for line in ["lock", "lock --check", "build", "plan"] {
        site.imgbuild(line).ends(1).says(&[
            "lockfiles/imageset.lock.toml:2",
            "lock version 2; this imgbuild reads up to 1: upgrade imgbuild",
        ]);
    }
    // A newer revision is read, but not rewritten.
    site.write(
        "lockfiles/imageset.lock.toml",
        text.replace("version = 1", "version = 1\nrevision = 99"),
    );
    site.imgbuild("build").done();
    site.imgbuild("lock")
        .ends(1)
        .says(&["newer imgbuild"])
        .hints(&["upgrade imgbuild"]);
}

#[test]
fn a_section_that_no_rule_serves_is_refused() {
    let site = Connected::at("127.0.0.1:9");
    // Every section has a rule; one that replaces it may serve another.
    let rule = include_str!("../rules/operator-catalog.toml");
    let other = rule.replace("mirror.operators", "mirror.elsewhere");
    assert_ne!(rule, other, "the rule serves operators");
    fs::create_dir_all(site.path("rules")).unwrap();
    site.write("rules/operator-catalog.toml", other);
    site.write("imgbuild.toml", "rules = \"rules\"\n");
    site.config("  operators:\n    - catalog: registry.example.test/index:v4.16\n");
    site.imgbuild("lock")
        .ends(1)
        .says(&["imageset.yaml:5", "no rule serves mirror.operators"])
        .hints(&["mirror.additionalImages"]);
}

#[test]
fn one_image_asked_for_in_two_ways_is_refused() {
    let (_, upstream) = small();
    let site = Connected::to(&upstream);
    let row = |architecture: &str| {
        format!(
            "    - name: {UPSTREAM}/team/app:1\n      platforms:\n        - os: linux\n          architecture: {architecture}\n"
        )
    };
    site.config(&format!(
        "  additionalImages:\n{}{}",
        row("amd64"),
        row("arm64")
    ));
    site.imgbuild("lock")
        .ends(1)
        .says(&[
            "imageset.yaml:5",
            "imageset.yaml:9",
            "team/app:1",
            "platforms",
        ])
        .hints(&["list it once"]);
    site.config(&format!("  additionalImages:\n{0}{0}", row("amd64")));
    site.imgbuild("lock").done().says(&["also asked for"]);
}

#[test]
fn two_images_for_one_place_are_refused() {
    let content = Content::default();
    content.image("team/app:1", &[(1, 100)]);
    content.image("other/app:1", &[(2, 100)]);
    let upstream = content.served();
    let site = Connected::to(&upstream);
    site.config(&format!(
        "  additionalImages:\n    - name: {UPSTREAM}/team/app:1\n      targetRepo: mirror/app\n    - name: {UPSTREAM}/other/app:1\n      targetRepo: mirror/app\n"
    ));
    site.imgbuild("lock")
        .ends(1)
        .says(&["mirror/app", "team/app:1", "other/app:1"])
        .hints(&["target"]);
    assert!(!site.path("lockfiles").exists(), "nothing is written");
}

#[test]
fn a_wrong_command_line_is_a_matter_of_usage() {
    let site = Site::new();
    for line in [
        "",
        "buidl",
        "lock --frobnicate",
        "export",
        "export -o x --full --overlap 2",
        "verify",
        "import",
        "lock --skip registry.example.test/a:1",
        "--jobs 0 lock",
        "diff one",
        "export -o x --only-parts 1",
    ] {
        site.imgbuild(line).ends(2);
    }
    site.imgbuild("buidl").says(&["build"]);
    let (site, _upstream) = exported();
    site.imgbuild("lock --update nonsense:x")
        .ends(2)
        .says(&["nonsense:x", "expected release, rules, catalog:REF"]);
    site.imgbuild("lock --update image:nothing*")
        .ends(2)
        .says(&["image:nothing*", "matches no block"]);
    site.imgbuild("export -o x --part-size huge")
        .ends(2)
        .says(&["huge"])
        .hints(&["4.7GB"]);
    site.imgbuild("import media --to docker://")
        .ends(2)
        .hints(&["docker://HOST[:PORT][/PREFIX]"]);
}
