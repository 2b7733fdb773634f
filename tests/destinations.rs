//! Stories about destinations, told with the program itself: push, mirror, verify, delete, and what real clients do
//! with the configuration that it writes.
//!
//! Registries are the embedded server and, where it is installed, the distribution project's; clients are skopeo,
//! podman and containerd, where they are installed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use imgbuild::digest::Digest;
use imgbuild::oci::{Descriptor, OCI_INDEX, OCI_MANIFEST};
use imgbuild::registry::server::{Htpasswd, Options, Repositories, Server, Tls};
use imgbuild::store::memory::Memory;
use tempfile::TempDir;

mod secured;

/// A registry in memory.
struct Registry {
    memory: Arc<Memory>,
    server: Server,
}

impl Registry {
    fn new(options: Options) -> Self {
        let memory = Arc::new(Memory::default());
        let server = Server::start(options, memory.clone(), Repositories::in_memory()).unwrap();
        Self { memory, server }
    }

    fn plain() -> Self {
        Self::new(Options::default())
    }

    fn host(&self) -> String {
        self.server.address().to_string()
    }

    /// An image of the given layers; its manifest.
    fn image(&self, repository: &str, tag: Option<&str>, layers: &[&[u8]]) -> Descriptor {
        let of = |bytes: &[u8], media_type: &str| {
            let blob = self.memory.insert(bytes);
            format!(
                r#"{{"mediaType":"{media_type}","digest":"{}","size":{}}}"#,
                blob.digest, blob.size
            )
        };
        let list: Vec<String> = layers
            .iter()
            .map(|layer| of(layer, "application/vnd.oci.image.layer.v1.tar"))
            .collect();
        let ids: Vec<String> = layers
            .iter()
            .map(|layer| format!("{:?}", Digest::of(layer).to_string()))
            .collect();
        let config = format!(
            r#"{{"architecture":"amd64","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
            ids.join(",")
        );
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{},"layers":[{}]}}"#,
            of(
                config.as_bytes(),
                "application/vnd.oci.image.config.v1+json"
            ),
            list.join(",")
        );
        self.link(repository, tag, &manifest, OCI_MANIFEST)
    }

    /// An index of children for `linux/<architecture>`.
    fn index(
        &self,
        repository: &str,
        tag: Option<&str>,
        children: &[(&str, &Descriptor)],
    ) -> Descriptor {
        let list: Vec<String> = children
            .iter()
            .map(|(architecture, child)| {
                format!(
                    r#"{{"mediaType":"{OCI_MANIFEST}","digest":"{}","size":{},"platform":{{"os":"linux","architecture":"{architecture}"}}}}"#,
                    child.digest, child.size
                )
            })
            .collect();
        let index = format!(
            r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{}]}}"#,
            list.join(",")
        );
        self.link(repository, tag, &index, OCI_INDEX)
    }

    fn link(
        &self,
        repository: &str,
        tag: Option<&str>,
        manifest: &str,
        media_type: &str,
    ) -> Descriptor {
        let blob = self.memory.insert(manifest.as_bytes());
        let descriptor = Descriptor {
            media_type: media_type.to_owned(),
            digest: blob.digest,
            size: blob.size,
            platform: None,
            artifact_type: None,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
        };
        let tag = tag.map(|tag| tag.parse().unwrap());
        self.server
            .repositories()
            .link_image(&*self.memory, repository, &descriptor, tag.as_ref())
            .unwrap();
        descriptor
    }

    /// `repository:tag` of everything that is visible.
    fn tags(&self) -> Vec<String> {
        let repositories = self.server.repositories();
        let mut all = Vec::new();
        for name in repositories.names(None) {
            for tag in repositories.tags(&name, None).into_iter().flatten() {
                all.push(format!("{name}:{tag}"));
            }
        }
        all
    }
}

/// A working directory with a config.
struct Site {
    folder: TempDir,
    insecure: Vec<String>,
}

impl Site {
    fn new(registries: &[&Registry], images: &[String]) -> Self {
        let site = Self {
            folder: tempfile::tempdir().unwrap(),
            insecure: registries.iter().map(|registry| registry.host()).collect(),
        };
        site.config(images);
        site
    }

    fn config(&self, images: &[String]) {
        let mut text = "apiVersion: mirror.openshift.io/v2alpha1\nkind: ImageSetConfiguration\nmirror:\n  additionalImages:\n".to_owned();
        for image in images {
            let _ = writeln!(text, "    - name: {image}");
        }
        fs::write(self.path("imageset.yaml"), text).unwrap();
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_imgbuild"));
        command
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.folder.path())
            .args(arguments)
            .args(["--store", "store"]);
        for host in &self.insecure {
            command.args(["--insecure", host]);
        }
        command
    }

    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = self.command(arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.code().unwrap_or(-1),
            text(&output.stdout),
            text(&output.stderr),
        )
    }

    /// Runs a command that must succeed; what it printed.
    fn ok(&self, arguments: &[&str]) -> String {
        let (code, out, error) = self.run(arguments);
        assert_eq!(code, 0, "{arguments:?} must succeed:\n{out}\n{error}");
        out
    }

    /// Runs a command that must fail in the given way; what it complained about.
    fn fails(&self, code: i32, arguments: &[&str]) -> String {
        let (found, out, error) = self.run(arguments);
        assert_eq!(
            found, code,
            "{arguments:?} must exit {code}:\n{out}\n{error}"
        );
        error
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }
}

fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..size)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            u8::try_from(state & 0xff).unwrap()
        })
        .collect()
}

/// Three images, one of them for two architectures, with a layer that all share.
fn upstream() -> (Registry, Vec<String>) {
    let registry = Registry::plain();
    let base = noise(1, 300_000);
    registry.image("team/one", Some("v1"), &[&base, b"one"]);
    registry.image("team/two", Some("v1"), &[&base, b"two"]);
    let amd = registry.image("multi/list", None, &[&base, b"amd64"]);
    let arm = registry.image("multi/list", None, &[&base, b"arm64"]);
    registry.index(
        "multi/list",
        Some("v1"),
        &[("amd64", &amd), ("arm64", &arm)],
    );
    let names = ["team/one", "team/two", "multi/list"]
        .map(|path| format!("{}/{path}:v1", registry.host()))
        .to_vec();
    (registry, names)
}

#[test]
fn push_and_mirror_bring_the_same_and_verify_proves_it() {
    let (source, names) = upstream();
    let (pushed, mirrored) = (Registry::plain(), Registry::plain());
    let site = Site::new(&[&source, &pushed, &mirrored], &names);
    site.ok(&["lock"]);
    let to = |registry: &Registry| format!("docker://{}/ocp", registry.host());
    // Mirror first, so that the store can have no layer that it could use.
    let out = site.ok(&["mirror", &to(&mirrored), "-o", "mirror"]);
    assert!(out.contains("3 images complete, 3 tags set"), "{out}");
    let layers = fs::read_dir(site.path("store/blobs/sha256"))
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().metadata().unwrap().len() >= 300_000)
        .count();
    assert_eq!(layers, 0, "a mirror keeps no layer on its way");
    let out = site.ok(&["push", &to(&pushed), "-o", "push"]);
    assert!(
        out.contains("2 mounted") || out.contains("mounted"),
        "{out}"
    );
    let expected = ["ocp/multi/list:v1", "ocp/team/one:v1", "ocp/team/two:v1"];
    assert_eq!(mirrored.tags(), expected, "the mirror");
    assert_eq!(pushed.tags(), expected, "the push");
    assert!(
        site.read("push/itms-oc-mirror.yaml")
            .contains(&format!("{}/ocp/team", pushed.host())),
        "the resources are written"
    );
    for registry in [&pushed, &mirrored] {
        let at = format!("{}/ocp", registry.host());
        let out = site.ok(&["verify", "--registry", &at, "--deep"]);
        assert!(out.contains("3 of 3 images whole"), "{out}");
    }
    let again = site.ok(&["push", &to(&pushed), "-o", "push"]);
    assert!(
        again.contains("0 tags set; 0 blobs sent (0 B), 0 mounted"),
        "a second push changes nothing: {again}"
    );
    // From here on the store is not needed.
    fs::remove_dir_all(site.path("store")).unwrap();
    let at = format!("{}/ocp", pushed.host());
    site.ok(&["verify", "--registry", &at]);
    let repositories = pushed.server.repositories();
    repositories
        .unlink_blob("ocp/team/one", &Digest::of(b"one"))
        .unwrap();
    repositories.unlink_tag("ocp/team/two", "v1").unwrap();
    let error = site.fails(4, &["verify", "--registry", &at]);
    assert!(
        error.contains(&Digest::of(b"one").to_string())
            && error.contains("ocp/team/two:v1 is not there"),
        "everything that is missing is listed: {error}"
    );
    let (code, out, _) = site.run(&["verify", "--registry", &at, "--format", "json"]);
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(code, 4, "also for machines");
    assert_eq!(report["whole"], 1, "{report}");
    let kinds: Vec<&str> = report["problems"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|problem| problem["problem"].as_str())
        .collect();
    assert_eq!(kinds, ["no-tag", "no-blob"], "{report}");
    let mended = site.ok(&["push", &to(&pushed), "-o", "push"]);
    assert!(mended.contains("1 tag set"), "{mended}");
}

#[test]
fn nothing_goes_while_config_and_lock_disagree() {
    let (source, names) = upstream();
    let target = Registry::plain();
    let site = Site::new(&[&source, &target], &names[..1]);
    site.ok(&["lock"]);
    site.config(&names);
    let to = format!("docker://{}/ocp", target.host());
    for command in ["push", "mirror"] {
        let error = site.fails(3, &[command, &to]);
        assert!(error.contains("does not answer"), "{error}");
    }
    assert!(target.tags().is_empty(), "nothing was sent");
}

#[test]
fn an_image_that_fails_leaves_its_old_tag_and_the_others_go_on() {
    for command in ["push", "mirror"] {
        let (source, names) = upstream();
        let target = Registry::plain();
        let site = Site::new(&[&source, &target], &names);
        site.ok(&["lock"]);
        let to = format!("docker://{}/ocp", target.host());
        site.ok(&[command, &to]);
        let old = site.ok(&["verify", "--registry", &to, "--format", "json"]);
        // All three change, and a layer of one of them is lost.
        let base = noise(2, 1000);
        source.image("team/one", Some("v1"), &[&base, b"one, new"]);
        source.image("team/two", Some("v1"), &[&base, b"two, new"]);
        site.ok(&["lock", "--update"]);
        source
            .server
            .repositories()
            .unlink_blob("team/two", &Digest::of(b"two, new"))
            .unwrap();
        fs::remove_dir_all(site.path("cluster-resources")).unwrap();
        let error = site.fails(5, &[command, &to]);
        assert!(
            error.contains("1 image did not become complete") && error.contains("ocp/team/two:v1"),
            "{error}"
        );
        assert!(
            !site.path("cluster-resources").exists(),
            "resources are for what is complete"
        );
        let proof = site.fails(4, &["verify", "--registry", &to]);
        assert!(
            proof.contains("ocp/team/two:v1 is sha256:") && !proof.contains("team/one"),
            "one is new, the other keeps what it had, after {old}: {proof}"
        );
        source.image("team/two", Some("v1"), &[&base, b"two, new"]);
        site.ok(&[command, &to]);
        site.ok(&["verify", "--registry", &to, "--deep"]);
    }
}

#[test]
fn a_registry_that_refuses_sparse_indexes_gets_all_platforms_or_nothing() {
    let (source, names) = upstream();
    let target = Registry::new(Options {
        sparse_indexes: false,
        ..Options::default()
    });
    let site = Site::new(&[&source, &target], &names[..2]);
    let mut config = site.read("imageset.yaml");
    let _ = writeln!(
        config,
        "    - name: {}\n      platforms:\n        - os: linux\n          architecture: amd64",
        names[2]
    );
    fs::write(site.path("imageset.yaml"), config).unwrap();
    site.ok(&["lock"]);
    let to = format!("docker://{}", target.host());
    let error = site.fails(5, &["mirror", &to]);
    assert!(
        error.contains("--all-platforms"),
        "the way out is named: {error}"
    );
    assert!(target.tags().is_empty(), "it was found out before the rest");
    site.ok(&["mirror", &to, "--all-platforms"]);
    assert_eq!(target.tags().len(), 3, "{:?}", target.tags());
    site.ok(&["verify", "--registry", &to]);
}

#[test]
fn what_refers_to_another_manifest_is_listed_where_the_registry_keeps_no_lists() {
    let source = Registry::plain();
    let subject = source.image("team/app", Some("v1"), &[b"app"]);
    let config = source.memory.insert(b"{}");
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","artifactType":"application/x.sbom","config":{{"mediaType":"application/vnd.oci.empty.v1+json","digest":"{}","size":2}},"layers":[],"subject":{{"mediaType":"{OCI_MANIFEST}","digest":"{}","size":{}}}}}"#,
        config.digest, subject.digest, subject.size
    );
    source.link("team/app", Some("sbom"), &manifest, OCI_MANIFEST);
    let target = Registry::new(Options {
        referrers: false,
        ..Options::default()
    });
    let names = ["v1", "sbom"].map(|tag| format!("{}/team/app:{tag}", source.host()));
    let site = Site::new(&[&source, &target], &names);
    site.ok(&["lock"]);
    site.ok(&["push", &format!("docker://{}", target.host())]);
    let list = format!("team/app:sha256-{}", subject.digest.hex());
    assert!(
        target.tags().contains(&list),
        "the list stands under the tag that stands in for the API: {:?}",
        target.tags()
    );
}

/// `user:password`, as a file of credentials for a host.
fn authfile(site: &Site, host: &str, login: &str) -> String {
    use base64::Engine;
    let auth = base64::engine::general_purpose::STANDARD.encode(login);
    let path = site.path(&format!("auth-{}.json", login.len()));
    let text = serde_json::json!({ "auths": { host: { "auth": auth } } });
    fs::write(&path, text.to_string()).unwrap();
    path.display().to_string()
}

#[test]
fn a_wrong_password_is_found_out_before_the_first_byte() {
    let (source, names) = upstream();
    let users: Htpasswd = format!("pusher:{}", bcrypt::hash("right", 4).unwrap())
        .parse()
        .unwrap();
    let target = Registry::new(Options {
        users: Some(users),
        ..Options::default()
    });
    let site = Site::new(&[&source, &target], &names);
    site.ok(&["lock"]);
    let to = format!("docker://{}/ocp", target.host());
    let wrong = authfile(&site, &target.host(), "pusher:very wrong");
    for credentials in [&[][..], &["--authfile", wrong.as_str()][..]] {
        let mut arguments = vec!["push", &to];
        arguments.extend(credentials);
        let error = site.fails(1, &arguments);
        assert!(
            error.contains("nothing was sent") && error.contains("denies access"),
            "{error}"
        );
        assert!(!error.contains("very wrong"), "no password in a message");
    }
    let blobs = fs::read_dir(site.path("store/blobs/sha256"))
        .unwrap()
        .count();
    assert!(blobs < 10, "not even the store was filled: {blobs} blobs");
    let right = authfile(&site, &target.host(), "pusher:right");
    site.ok(&["push", &to, "--authfile", &right]);
}

/// A certificate for 127.0.0.1, and its key; expired if asked for.
fn certificate(expired: bool) -> (Tls, String) {
    let mut parameters =
        rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()])
            .unwrap();
    if expired {
        parameters.not_before = rcgen::date_time_ymd(2001, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(2002, 1, 1);
    }
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = parameters.self_signed(&key).unwrap();
    let tls = Tls {
        certificate: certificate.pem().into_bytes(),
        key: key.serialize_pem().into_bytes(),
    };
    (tls, certificate.pem())
}

#[test]
fn an_unknown_authority_and_an_expired_certificate_are_told_apart() {
    let (source, names) = upstream();
    let (good, authority) = certificate(false);
    let (old, old_authority) = certificate(true);
    let serve = |tls| {
        Registry::new(Options {
            tls: Some(tls),
            ..Options::default()
        })
    };
    let (good, old) = (serve(good), serve(old));
    let site = Site::new(&[&source], &names);
    fs::write(site.path("good.pem"), authority).unwrap();
    fs::write(site.path("old.pem"), old_authority).unwrap();
    site.ok(&["lock"]);
    let to = format!("docker://{}", good.host());
    let error = site.fails(1, &["push", &to]);
    assert!(error.contains("unknown authority"), "{error}");
    let expired = format!("docker://{}", old.host());
    let error = site.fails(1, &["push", &expired, "--certs", "old.pem"]);
    assert!(error.contains("expired"), "{error}");
    site.ok(&["push", &to, "--certs", "good.pem"]);
    site.ok(&["verify", "--registry", &to, "--certs", "good.pem"]);
}

#[test]
fn a_deletion_is_planned_reviewed_and_carried_out_to_the_letter() {
    let (source, names) = upstream();
    source.image("team/one", Some("old"), &[b"old"]);
    let mut names = names;
    names.push(format!("{}/team/one:old", source.host()));
    let target = Registry::plain();
    let site = Site::new(&[&source, &target], &names);
    site.ok(&["lock"]);
    let to = format!("docker://{}/ocp", target.host());
    site.ok(&["push", &to]);
    fs::copy(
        site.path("lockfiles/imageset.lock.toml"),
        site.path("all.lock.toml"),
    )
    .unwrap();
    // A later lock needs less.
    site.config(&names[..2]);
    site.ok(&["lock"]);
    let before = target.tags();
    site.ok(&[
        "delete",
        "--plan",
        "prune.yaml",
        "--prune-plan",
        "prune-plan.json",
        "--keep",
        "lockfiles/imageset.lock.toml",
        &to,
    ]);
    assert_eq!(target.tags(), before, "a plan deletes nothing");
    let (list, old) = (
        tag_of(&target, "ocp/multi/list", "v1"),
        tag_of(&target, "ocp/team/one", "old"),
    );
    assert_eq!(
        site.read("prune-plan.json"),
        format!(
            "{{\n \"registry\": \"{}\",\n \"repositories\": [\n  {{\n   \"name\": \"ocp/multi/list\",\n   \"manifests\": [\n    \"{list}\"\n   ]\n  }},\n  {{\n   \"name\": \"ocp/team/one\",\n   \"manifests\": [\n    \"{old}\"\n   ]\n  }}\n ]\n}}\n",
            target.host()
        ),
        "the form that scripts read"
    );
    let plan = site.read("prune.yaml");
    assert!(
        plan.contains("kind: DeleteImageList")
            && plan.contains("/ocp/multi/list:v1\n")
            && plan.contains("/ocp/team/one:old\n")
            && plan.contains("#   "),
        "what goes and what stays is in it:\n{plan}"
    );
    // The same through a config that names one image that a kept lock needs, and one that it does not.
    fs::write(
        site.path("delete.yaml"),
        format!(
            "apiVersion: mirror.openshift.io/v2alpha1\nkind: DeleteImageSetConfiguration\ndelete:\n  additionalImages:\n    - name: {}\n    - name: {}\n",
            names[0], names[3]
        ),
    )
    .unwrap();
    site.ok(&[
        "delete",
        "--plan",
        "some.yaml",
        "-c",
        "delete.yaml",
        "--keep",
        "lockfiles/imageset.lock.toml",
        &to,
    ]);
    let some = site.read("some.yaml");
    assert_eq!(some.matches("imageReference").count(), 1, "{some}");
    assert!(
        some.contains("ocp/team/one:v1: ") && some.contains("imageset.lock.toml"),
        "what stays is said with its reason:\n{some}"
    );
    // Something moves in between.
    let moved = target.image("ocp/team/one", Some("old"), &[b"somebody else's"]);
    let error = site.fails(3, &["delete", "--execute", "prune.yaml"]);
    assert!(
        error.contains(&moved.digest.to_string()) && error.contains("nothing was deleted"),
        "{error}"
    );
    assert_eq!(target.tags(), before, "nothing went");
    site.ok(&[
        "delete",
        "--plan",
        "prune.yaml",
        "--keep",
        "lockfiles/imageset.lock.toml",
        &to,
    ]);
    let out = site.ok(&["delete", "--execute", "prune.yaml", &to]);
    assert!(out.contains("2 manifests deleted with 2 tags"), "{out}");
    assert_eq!(target.tags(), ["ocp/team/one:v1", "ocp/team/two:v1"]);
    site.ok(&["verify", "--registry", &to, "--deep"]);
    site.ok(&[
        "delete",
        "--plan",
        "empty.yaml",
        "--prune-plan",
        "prune-plan.json",
        "--keep",
        "lockfiles/imageset.lock.toml",
        &to,
    ]);
    assert!(
        !site.path("prune-plan.json").exists(),
        "there is no such file where nothing goes"
    );
    let again = site.ok(&["delete", "--execute", "prune.yaml"]);
    assert!(
        again.contains("0 manifests deleted"),
        "it can be repeated: {again}"
    );
}

#[test]
fn a_push_that_is_killed_leaves_only_whole_images_and_old_tags() {
    is_killed("push");
}

#[test]
fn a_mirror_that_is_killed_leaves_only_whole_images_and_old_tags() {
    is_killed("mirror");
}

/// Kills a command at many moments, and looks at the destination each time.
fn is_killed(command: &str) {
    let source = Registry::plain();
    let target = Registry::new(Options {
        delay: Duration::from_millis(3),
        ..Options::default()
    });
    let paths: Vec<String> = (0..6).map(|number| format!("team/app{number}")).collect();
    let fill = |generation: u64| -> BTreeMap<String, Digest> {
        paths
            .iter()
            .enumerate()
            .map(|(number, path)| {
                let layer = noise(generation * 100 + number as u64, 200_000);
                let image = source.image(path, Some("v1"), &[&layer, b"shared"]);
                (path.clone(), image.digest)
            })
            .collect()
    };
    let names: Vec<String> = paths
        .iter()
        .map(|path| format!("{}/{path}:v1", source.host()))
        .collect();
    let site = Site::new(&[&source, &target], &names);
    let to = format!("docker://{}", target.host());
    let old = fill(1);
    site.ok(&["lock"]);
    site.ok(&[command, &to]);
    let new = fill(2);
    site.ok(&["lock", "--update"]);
    for attempt in 0..12 {
        let mut child = site
            .command(&[command, &to, "-q"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(25 + attempt * 37 % 330));
        let _ = child.kill();
        child.wait().unwrap();
        for path in &paths {
            let found = tag_of(&target, path, "v1");
            assert!(
                found == old[path] || found == new[path],
                "{path}:v1 is one of both generations"
            );
            assert!(is_whole(&target, path, found), "{path}:v1 is whole");
        }
    }
    site.ok(&[command, &to]);
    site.ok(&["verify", "--registry", &to, "--deep"]);
    for path in &paths {
        assert_eq!(
            tag_of(&target, path, "v1"),
            new[path],
            "{path} is new in the end"
        );
    }
}

/// What a tag of a registry stands for.
fn tag_of(registry: &Registry, path: &str, tag: &str) -> Digest {
    get(registry, &format!("/v2/{path}/manifests/{tag}"))
        .map(|bytes| Digest::of(&bytes))
        .expect("the tag is there")
}

/// Whether everything that an image names is there.
fn is_whole(registry: &Registry, path: &str, digest: Digest) -> bool {
    let Some(bytes) = get(registry, &format!("/v2/{path}/manifests/{digest}")) else {
        return false;
    };
    let manifest: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    let layers = manifest["layers"].as_array().unwrap();
    layers.iter().chain([&manifest["config"]]).all(|blob| {
        let digest = blob["digest"].as_str().unwrap();
        get(registry, &format!("/v2/{path}/blobs/{digest}"))
            .is_some_and(|bytes| Digest::of(&bytes).to_string() == digest)
    })
}

/// A plain GET.
fn get(registry: &Registry, path: &str) -> Option<Vec<u8>> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(registry.server.address()).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    answer
        .starts_with(b"HTTP/1.1 200")
        .then(|| answer[end + 4..].to_vec())
}

/// Whether `program` can be run; says so if not.
fn is_installed(program: &str) -> bool {
    let found = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok();
    if !found {
        println!("skipped: {program} is not installed");
    }
    found
}

/// The distribution project's registry.
struct Distribution {
    child: Child,
    address: SocketAddr,
    _folder: TempDir,
}

impl Distribution {
    fn start() -> Option<Self> {
        if !is_installed("docker-registry") {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        // A port that was free a moment ago.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|listener| listener.local_addr())
            .unwrap();
        let config = folder.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\nhttp: {{addr: \"{address}\"}}\n",
            folder.path().join("data").display()
        );
        fs::write(&config, text).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let registry = Self {
            child,
            address,
            _folder: folder,
        };
        for _ in 0..500 {
            if std::net::TcpStream::connect(address).is_ok() {
                return Some(registry);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("docker-registry does not answer");
    }
}

impl Drop for Distribution {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_distribution_project_s_registry_is_filled_proven_and_emptied() {
    let Some(target) = Distribution::start() else {
        return;
    };
    let (source, names) = upstream();
    let mut site = Site::new(&[&source], &names[..2]);
    site.insecure.push(target.address.to_string());
    let mut config = site.read("imageset.yaml");
    let _ = writeln!(
        config,
        "    - name: {}\n      platforms:\n        - os: linux\n          architecture: amd64",
        names[2]
    );
    fs::write(site.path("imageset.yaml"), config).unwrap();
    site.ok(&["lock"]);
    let to = format!("docker://{}/ocp", target.address);
    let error = site.fails(5, &["push", &to]);
    assert!(
        error.contains("--all-platforms"),
        "it takes no sparse index: {error}"
    );
    let out = site.ok(&["push", &to, "--all-platforms"]);
    assert!(out.contains("3 images complete"), "{out}");
    site.ok(&["verify", "--registry", &to, "--deep"]);
    site.config(&names[..1]);
    site.ok(&["lock"]);
    site.ok(&[
        "delete",
        "--plan",
        "plan.yaml",
        "--keep",
        "lockfiles/imageset.lock.toml",
        &to,
    ]);
    let out = site.ok(&["delete", "--execute", "plan.yaml"]);
    assert!(out.contains("2 manifests deleted"), "{out}");
    site.ok(&["verify", "--registry", &to, "--deep"]);
}

/// Two images at a source that has lost them since, and at a mirror that has them; the source's names.
struct Redirected {
    mirror: Registry,
    site: Site,
    host: String,
    digest: Digest,
    _source: Registry,
}

fn redirected(options: Options) -> Redirected {
    let source = Registry::plain();
    let layer = noise(7, 10_000);
    let tagged = source.image("team/one", Some("v1"), &[&layer]);
    let pinned = source.image("team/two", None, &[&layer, b"two"]);
    let names = [
        format!("{}/team/one:v1", source.host()),
        format!("{}/team/two@{}", source.host(), pinned.digest),
    ];
    let mirror = Registry::new(options);
    let site = Site::new(&[&source, &mirror], &names);
    site.ok(&["lock"]);
    site.ok(&["push", &format!("docker://{}/far/away", mirror.host())]);
    let repositories = source.server.repositories();
    repositories
        .unlink_manifest("team/one", &tagged.digest)
        .unwrap();
    repositories
        .unlink_manifest("team/two", &pinned.digest)
        .unwrap();
    Redirected {
        host: source.host(),
        digest: pinned.digest,
        mirror,
        site,
        _source: source,
    }
}

impl Redirected {
    fn emit(&self, arguments: &[&str]) {
        let at = format!("{}/far/away", self.mirror.host());
        let mut all = vec!["emit", "--registry", &at, "-o", "node"];
        all.extend(arguments);
        self.site.ok(&all);
    }

    /// What a client is asked for: one image by tag, one by digest.
    fn names(&self) -> [String; 2] {
        [
            format!("{}/team/one:v1", self.host),
            format!("{}/team/two@{}", self.host, self.digest),
        ]
    }
}

/// Runs a client; its output, and whether it was content.
fn client(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    (output.status.success(), text)
}

#[test]
fn skopeo_and_podman_pull_through_the_drop_in() {
    if !is_installed("skopeo") {
        return;
    }
    let world = redirected(Options::default());
    world.emit(&["--kind", "registries-conf"]);
    let conf = world.site.read("node/registries.conf.d/999-mirror.conf");
    assert!(
        conf.contains("digest-only") && conf.contains("tag-only"),
        "both kinds of pull are redirected:\n{conf}"
    );
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join(".config/containers");
    fs::create_dir_all(folder.join("registries.conf.d")).unwrap();
    fs::write(folder.join("registries.conf"), "").unwrap();
    fs::write(
        folder.join("policy.json"),
        r#"{"default":[{"type":"insecureAcceptAnything"}]}"#,
    )
    .unwrap();
    fs::write(folder.join("registries.conf.d/999-mirror.conf"), &conf).unwrap();
    let run = |program: &str, arguments: &[&str]| {
        client(
            Command::new(program)
                .env("HOME", home.path())
                .env_remove("XDG_CONFIG_HOME")
                .env_remove("CONTAINERS_REGISTRIES_CONF")
                .args(arguments),
        )
    };
    for name in world.names() {
        let (fine, text) = run("skopeo", &["inspect", "--raw", &format!("docker://{name}")]);
        assert!(fine, "skopeo must find {name} at the mirror: {text}");
    }
    let absent = format!("docker://{}/other/one:v1", world.host);
    assert!(
        !run("skopeo", &["inspect", "--raw", &absent]).0,
        "what is not mirrored is not found"
    );
    if !is_installed("podman") {
        return;
    }
    let root = home.path().join("root").display().to_string();
    let runroot = home.path().join("runroot").display().to_string();
    let podman = |arguments: &[&str]| {
        let mut all = vec![
            "--root",
            &root,
            "--runroot",
            &runroot,
            "--storage-driver",
            "vfs",
        ];
        all.extend(arguments);
        run("podman", &all)
    };
    let (fine, text) = podman(&["info"]);
    if !fine {
        println!("skipped: podman does not run here: {text}");
        return;
    }
    // The layers of these images are noise, which podman fetches and then refuses to unpack.
    for name in world.names() {
        let before = world.mirror.server.counts();
        let (_, text) = podman(&["pull", "-q", &name]);
        let blobs = |counts: &imgbuild::registry::server::Counts| -> u64 {
            counts
                .iter()
                .filter(|((method, kind, status), _)| {
                    method == "GET"
                        && *kind == imgbuild::registry::server::Kind::Blob
                        && *status == 200
                })
                .map(|(_, count)| count)
                .sum()
        };
        assert!(
            blobs(&world.mirror.server.counts()) > blobs(&before),
            "podman must fetch {name} from the mirror: {text}"
        );
    }
}

/// containerd with everything in one folder.
struct Containerd {
    child: Child,
    folder: TempDir,
}

impl Containerd {
    fn start() -> Option<Self> {
        if !is_installed("containerd") || !is_installed("ctr") {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\n  address = {:?}\n",
            path("root"),
            path("state"),
            path("socket")
        );
        fs::write(folder.path().join("config.toml"), config).unwrap();
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let mut child = Command::new("containerd")
            .args(["--config", &path("config.toml")])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        for _ in 0..500 {
            let (fine, _) = client(Command::new("ctr").args(["-a", &path("socket"), "version"]));
            if fine {
                return Some(Self { child, folder });
            }
            if child.try_wait().unwrap().is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = child.kill();
        let _ = child.wait();
        let log = fs::read_to_string(folder.path().join("log")).unwrap_or_default();
        println!("skipped: containerd does not run here: {log}");
        None
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn containerd_pulls_through_the_hosts_files() {
    let Some(containerd) = Containerd::start() else {
        return;
    };
    let (tls, authority) = certificate(false);
    let users: Htpasswd = format!("puller:{}", bcrypt::hash("secret", 4).unwrap())
        .parse()
        .unwrap();
    let layer = noise(7, 10_000);
    let source = Registry::plain();
    let image = source.image("team/one", Some("v1"), &[&layer]);
    let mirror = Registry::new(Options {
        tls: Some(tls),
        users: Some(users),
        ..Options::default()
    });
    let site = Site::new(&[&source], &[format!("{}/team/one:v1", source.host())]);
    fs::write(site.path("ca.pem"), authority).unwrap();
    let auth = authfile(&site, &mirror.host(), "puller:secret");
    site.ok(&["lock"]);
    let at = format!("docker://{}/far/away", mirror.host());
    site.ok(&["push", &at, "--certs", "ca.pem", "--authfile", &auth]);
    source
        .server
        .repositories()
        .unlink_manifest("team/one", &image.digest)
        .unwrap();
    site.ok(&[
        "emit",
        "--registry",
        &at,
        "--kind",
        "hosts-toml",
        "-o",
        "node",
        "--pull-secret",
        &auth,
    ]);
    let folder = format!("node/hosts/{}_", source.host().replace(':', "_"));
    let file = site.path(&folder).join("hosts.toml");
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "it has a password in it");
    }
    let socket = containerd.folder.path().join("socket");
    let fetch = |name: &str| {
        client(
            Command::new("ctr")
                .env("SSL_CERT_FILE", site.path("ca.pem"))
                .args(["-a", &socket.display().to_string(), "content", "fetch"])
                .args([
                    "--hosts-dir",
                    &site.path("node/hosts").display().to_string(),
                ])
                .args(["--all-platforms", name]),
        )
    };
    let (is_found, answer) = fetch(&format!("{}/team/one:v1", source.host()));
    assert!(is_found, "containerd must find it at the mirror: {answer}");
    assert!(
        !fetch(&format!("{}/team/other:v1", source.host())).0,
        "what is not mirrored is not found"
    );
}

#[test]
fn every_kind_of_configuration_is_written_and_no_flag_is_ignored() {
    let world = redirected(Options::default());
    let (_, authority) = certificate(false);
    let site = &world.site;
    fs::write(site.path("ca.pem"), &authority).unwrap();
    world.emit(&[
        "--kind",
        "icsp,samples,install-config,trust,blueprint",
        "--ca",
        "ca.pem",
    ]);
    for (file, wanted) in [
        (
            "imageContentSourcePolicy.yaml",
            "kind: ImageContentSourcePolicy",
        ),
        ("samples-config.yaml", "samplesRegistry: "),
        ("install-config-mirror.yaml", "imageDigestSources:"),
        ("install-config-mirror-4.13.yaml", "imageContentSources:"),
        ("additional-trusted-ca.yaml", "additionalTrustedCA:"),
        ("blueprint-containers.toml", "[[containers]]"),
    ] {
        let text = site.read(&format!("node/{file}"));
        assert!(text.contains(wanted), "{file} has {wanted:?}:\n{text}");
    }
    assert!(
        site.read("node/additional-trusted-ca.yaml")
            .contains(&world.mirror.host().replace(':', "..")),
        "the registry is a key"
    );
    // Sets in one folder do not disturb each other.
    world.emit(&["--kind", "blueprint", "--filter", "team/two"]);
    assert_eq!(
        site.read("node/blueprint-containers.toml")
            .matches("source")
            .count(),
        1,
        "the filter"
    );
    assert!(
        site.path("node/samples-config.yaml").exists(),
        "others stay"
    );
    let old = authfile(site, "quay.io", "old:password");
    let new = authfile(site, &world.mirror.host(), "pull:only!");
    let (code, out, error) = site.run(&[
        "emit",
        "--kind",
        "pull-secret",
        "--pull-secret",
        &old,
        "--pull-secret",
        &new,
        "--secret-file",
        "merged.json",
    ]);
    assert_eq!(code, 0, "{error}");
    let merged = site.read("merged.json");
    assert!(
        merged.contains("quay.io") && merged.contains(&world.mirror.host()),
        "both are in it"
    );
    let auth: serde_json::Value = serde_json::from_str(&merged).unwrap();
    let auth = auth["auths"]["quay.io"]["auth"].as_str().unwrap();
    assert!(
        !out.contains(auth) && !error.contains(auth),
        "nothing secret is printed"
    );
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(site.path("merged.json"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "only its owner reads it");
    }
    for flags in [
        &["--never-contact-source", "--kind", "icsp"][..],
        &["--ca", "ca.pem"],
        &["--filter", "x"],
        &["--kind", "trust"],
        &["--kind", "pull-secret", "--pull-secret", "merged.json"],
    ] {
        let mut arguments = vec!["emit", "--registry", "r.example"];
        arguments.extend(flags);
        site.fails(2, &arguments);
    }
}

#[test]
fn a_dry_run_says_what_would_go_where() {
    let (source, names) = upstream();
    let site = Site::new(&[&source], &names);
    site.ok(&["lock"]);
    let dry = || {
        site.ok(&[
            "plan",
            "--registry",
            "r.example/ocp",
            "--mapping",
            "mapping.txt",
            "--missing",
            "missing.txt",
        ])
    };
    dry();
    let host = source.host();
    let expected = ["multi/list", "team/one", "team/two"]
        .map(|path| format!("docker://{host}/{path}:v1=docker://r.example/ocp/{path}:v1\n"))
        .concat();
    assert_eq!(
        site.read("mapping.txt"),
        expected,
        "sorted, with transports"
    );
    assert_eq!(site.read("missing.txt"), expected, "no layer is here yet");
    site.ok(&["build"]);
    dry();
    assert_eq!(site.read("mapping.txt"), expected);
    assert!(!site.path("missing.txt").exists(), "nothing is missing now");
    site.fails(2, &["plan", "--registry", "r.example/ocp"]);
    site.fails(2, &["plan", "--mapping", "mapping.txt"]);
}

#[test]
fn an_edited_mapping_is_pinned_and_copied_to_where_it_says() {
    let (source, names) = upstream();
    let target = Registry::plain();
    let site = Site::new(&[&source, &target], &names);
    site.ok(&["lock"]);
    let registry = format!("{}/ocp", target.host());
    site.ok(&["plan", "--registry", &registry, "--mapping", "mapping.txt"]);
    // Somebody drops a line and moves an image.
    let mapping = site.read("mapping.txt");
    let edited: String = mapping
        .lines()
        .filter(|line| !line.contains("team/two"))
        .map(|line| line.replace("/ocp/team/one:v1", "/elsewhere/first:stable") + "\n")
        .collect();
    assert_ne!(mapping, edited, "it is edited");
    site.ok(&["lock", "--mapping-file", "mapping.txt"]);
    fs::write(site.path("mapping.txt"), &edited).unwrap();
    let error = site.fails(3, &["lock", "--mapping-file", "mapping.txt", "--check"]);
    assert!(error.contains("mapping.txt"), "{error}");
    let host = format!("docker://{}", target.host());
    site.fails(3, &["mirror", "--mapping-file", "mapping.txt", &host]);
    let (code, _, said) = site.run(&["lock", "--mapping-file", "mapping.txt"]);
    assert!(
        code == 0 && said.contains(&format!("imgbuild push {host}")),
        "where the list is about is said: {said}"
    );
    let lock = site.read("lockfiles/mapping.lock.toml");
    assert!(
        lock.contains("want = { target = \"elsewhere/first:stable\" }")
            && lock.contains("want = { target = \"ocp/multi/list:v1\" }"),
        "destinations are targets:\n{lock}"
    );
    site.ok(&["mirror", "--mapping-file", "mapping.txt", &host]);
    assert_eq!(
        target.tags(),
        ["elsewhere/first:stable", "ocp/multi/list:v1"],
        "every image is where its line says"
    );
    site.ok(&["export", "--mapping-file", "mapping.txt", "-o", "media"]);
    // A bad line is named, and the lock stays.
    fs::write(
        site.path("mapping.txt"),
        format!("{edited}docker://{}/team/two:v1\n", source.host()),
    )
    .unwrap();
    let error = site.fails(1, &["lock", "--mapping-file", "mapping.txt"]);
    assert!(
        error.contains("mapping.txt:3:1") && error.contains("has no destination"),
        "{error}"
    );
    assert_eq!(site.read("lockfiles/mapping.lock.toml"), lock);
    // What skopeo copies by a file of its own.
    fs::write(
        site.path("sync.yaml"),
        format!(
            "{}:\n  tls-verify: false\n  images:\n    team/one: [v1]\n    multi/list:\n      - \"{}\"\n",
            source.host(),
            tag_of(&source, "multi/list", "v1")
        ),
    )
    .unwrap();
    site.ok(&["lock", "--mapping-file", "sync.yaml"]);
    let second = Registry::plain();
    let mut site = site;
    site.insecure.push(second.host());
    site.ok(&[
        "push",
        "--mapping-file",
        "sync.yaml",
        &format!("docker://{}/x", second.host()),
    ]);
    let tags = second.tags();
    assert!(
        tags.contains(&"x/team/one:v1".to_owned())
            && tags
                .iter()
                .any(|tag| tag.starts_with("x/multi/list:sha256-")),
        "{tags:?}"
    );
}

#[test]
fn what_the_settings_say_of_a_destination_counts_for_every_command() {
    let (source, names) = upstream();
    let target = Registry::plain();
    let site = Site::new(&[&source, &target], &names[..1]);
    site.ok(&["lock"]);
    let host = target.host();
    fs::write(
        site.path("imgbuild.toml"),
        format!(
            "[destination.near]\nregistry = \"{host}/a\"\nsource-policy = \"NeverContactSource\"\nmax-nested-paths = 2\n\n[destination.far]\nregistry = \"far.example:5000\"\nsource-policy = \"AllowContactingSource\"\n"
        ),
    )
    .unwrap();
    let at = format!("docker://{host}/a");
    site.ok(&["push", &at, "-o", "pushed"]);
    assert_eq!(
        target.tags(),
        ["a/team-one:v1"],
        "the longest path is kept to"
    );
    site.ok(&["verify", "--registry", &at]);
    site.ok(&["emit", "--registry", &at, "-o", "emitted"]);
    let itms = site.read("emitted/itms-oc-mirror.yaml");
    assert_eq!(
        itms,
        site.read("pushed/itms-oc-mirror.yaml"),
        "both the same"
    );
    assert!(
        itms.contains("  - mirrorSourcePolicy: NeverContactSource\n    mirrors:\n"),
        "the policy is in every entry:\n{itms}"
    );
    let conf = |registry: &str, more: &[&str]| {
        let mut arguments = vec!["emit", "--registry", registry, "-o", "emitted"];
        arguments.extend(["--kind", "cluster,registries-conf"]);
        arguments.extend(more);
        site.ok(&arguments);
        (
            site.read("emitted/registries.conf.d/999-mirror.conf"),
            site.read("emitted/itms-oc-mirror.yaml"),
        )
    };
    assert!(conf(&at, &[]).0.contains("blocked = true"), "nodes as well");
    let (nodes, cluster) = conf("far.example:5000", &[]);
    assert!(
        !nodes.contains("blocked") && cluster.contains("mirrorSourcePolicy: AllowContactingSource"),
        "what is allowed is said too"
    );
    let (nodes, cluster) = conf("other.example", &[]);
    assert!(
        !nodes.contains("blocked") && !cluster.contains("mirrorSourcePolicy"),
        "of others nothing is said"
    );
    let (nodes, cluster) = conf("far.example:5000", &["--never-contact-source"]);
    assert!(
        nodes.contains("blocked") && cluster.contains("NeverContactSource"),
        "a flag beats the settings"
    );
}

/// `imgbuild serve` in a folder of its own.
struct Served {
    child: Child,
    address: SocketAddr,
    said: Vec<String>,
}

impl Served {
    fn start(site: &Site, flags: &[&str]) -> Self {
        use std::io::BufRead;
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|listener| listener.local_addr())
            .unwrap();
        let listen = address.to_string();
        let mut arguments = vec!["serve", "--data", "served", "--listen", &listen];
        arguments.extend(flags);
        let mut child = site
            .command(&arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut said = Vec::new();
        for line in std::io::BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            let is_last = line.starts_with("serving ");
            said.push(line);
            if is_last {
                break;
            }
        }
        Self {
            child,
            address,
            said,
        }
    }

    fn password(&self) -> Option<&str> {
        self.said
            .iter()
            .find_map(|line| line.strip_prefix("user keeper, password "))
    }

    /// Interrupts it; its exit code.
    fn stop(mut self) -> Option<i32> {
        let done = Command::new("kill")
            .args(["-INT", &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(done.success(), "it can be interrupted");
        self.child.wait().unwrap().code()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_small_mirror_makes_its_own_certificate_and_first_user() {
    let (source, names) = upstream();
    let site = Site::new(&[&source], &names);
    site.ok(&["lock"]);
    let flags = ["--tls", "--first-user", "keeper"];
    let served = Served::start(&site, &flags);
    let password = served.password().expect("the password is shown").to_owned();
    assert!(password.len() >= 20, "{password}");
    let authority = site.read("served/imgbuild/serve/ca.crt");
    for secret in ["ca.key", "server.key", "htpasswd"] {
        use std::os::unix::fs::PermissionsExt;
        let path = site.path("served/imgbuild/serve").join(secret);
        let mode = fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{secret} is private");
    }
    let push = |served: &Served, more: &[&str]| {
        let to = format!("docker://{}/ocp", served.address);
        let auth = authfile(
            &site,
            &served.address.to_string(),
            &format!("keeper:{password}"),
        );
        let mut arguments = vec!["push", &to, "--authfile", &auth];
        arguments.extend(more);
        site.run(&arguments)
    };
    let trusting = ["--certs", "served/imgbuild/serve/ca.crt"];
    let (code, _, error) = push(&served, &[]);
    assert!(code == 1 && error.contains("unknown authority"), "{error}");
    let (code, out, error) = push(&served, &trusting);
    assert_eq!(code, 0, "{out}{error}");
    assert_eq!(served.stop(), Some(0), "an interrupt is a good end");
    let again = Served::start(&site, &flags);
    assert_eq!(again.password(), None, "it is shown once");
    assert_eq!(
        site.read("served/imgbuild/serve/ca.crt"),
        authority,
        "clients need not learn anew"
    );
    let (code, out, error) = push(&again, &trusting);
    assert_eq!(code, 0, "{out}{error}");
    assert!(
        out.contains("0 tags set; 0 blobs sent"),
        "everything was kept: {out}"
    );
    drop(again);
    let limited = Served::start(&site, &[&flags[..], &["--read-only"]].concat());
    let (code, _, error) = push(&limited, &trusting);
    assert!(code == 1 && error.contains("nothing was sent"), "{error}");
}

#[test]
fn an_upload_limit_and_a_unit_are_taken_from_the_flags() {
    let (source, names) = upstream();
    let mut site = Site::new(&[&source], &names);
    site.ok(&["lock"]);
    let served = Served::start(&site, &["--upload-limit", "100kB"]);
    site.insecure.push(served.address.to_string());
    let error = site.fails(5, &["push", &format!("docker://{}", served.address)]);
    assert!(
        error.contains("3 images did not become complete"),
        "{error}"
    );
    let unit = site.ok(&[
        "serve",
        "--data",
        "served",
        "--tls",
        "--hostname",
        "mirror.example",
        "--first-user",
        "--upload-limit",
        "20GiB",
        "--read-only",
        "--print-unit",
    ]);
    for flag in [
        "[Service]",
        "KillSignal=SIGINT",
        "--tls",
        "--hostname mirror.example",
        "--first-user init",
        "--upload-limit 20GiB",
        "--read-only",
    ] {
        assert!(unit.contains(flag), "{flag} in\n{unit}");
    }
}

#[test]
fn a_browser_gets_a_page_and_others_a_line() {
    use std::io::{Read as _, Write as _};
    let (registry, _) = upstream();
    let ask = |accept: &str| {
        let mut stream = std::net::TcpStream::connect(registry.server.address()).unwrap();
        write!(
            stream,
            "GET / HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let page = ask("text/html,*/*");
    for wanted in [
        "text/html",
        "3 repositories",
        "<code>team/one:v1</code>",
        "default-src 'none'",
    ] {
        assert!(page.contains(wanted), "{wanted} in\n{page}");
    }
    assert!(
        ask("*/*").ends_with("imgbuild registry\n"),
        "a line of text"
    );
}
