//! Archives across an air gap, told with the program itself: a registry upstream, sites that have only what was
//! carried to them, and everything that can go wrong on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use imgbuild::digest::Digest;
use imgbuild::oci::{Descriptor, OCI_MANIFEST};
use imgbuild::registry::server::{Kind, Options, Repositories, Server};
use imgbuild::store::memory::Memory;

/// A registry in memory.
struct Registry {
    memory: Arc<Memory>,
    server: Server,
}

impl Registry {
    fn start() -> Self {
        let memory = Arc::new(Memory::default());
        let options = Options {
            record: true,
            ..Options::default()
        };
        let server = Server::start(options, memory.clone(), Repositories::in_memory()).unwrap();
        Self { memory, server }
    }

    fn host(&self) -> String {
        self.server.address().to_string()
    }

    /// Puts an image of these layers there.
    fn image(&self, repository: &str, tag: &str, layers: &[Vec<u8>]) -> Digest {
        let descriptor = |bytes: &[u8], kind: &str| {
            let blob = self.memory.insert(bytes);
            format!(
                r#"{{"mediaType":"application/vnd.oci.image.{kind}","digest":"{}","size":{}}}"#,
                blob.digest, blob.size
            )
        };
        let config =
            format!(r#"{{"architecture":"amd64","os":"linux","name":"{repository}:{tag}"}}"#);
        let config = descriptor(config.as_bytes(), "config.v1+json");
        let layers: Vec<String> = layers
            .iter()
            .map(|layer| descriptor(layer, "layer.v1.tar"))
            .collect();
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{config},"layers":[{}]}}"#,
            layers.join(",")
        );
        let blob = self.memory.insert(manifest.as_bytes());
        let root = Descriptor {
            media_type: OCI_MANIFEST.to_owned(),
            digest: blob.digest,
            size: blob.size,
            platform: None,
            artifact_type: None,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
        };
        self.server
            .repositories()
            .link_image(
                &*self.memory,
                repository,
                &root,
                Some(&tag.parse().unwrap()),
            )
            .unwrap();
        blob.digest
    }

    /// Every tag of every repository but the site's own records, with the digest of what it names.
    fn tags(&self) -> BTreeMap<String, Digest> {
        let mut tags = BTreeMap::new();
        let repositories = self.server.repositories();
        for repository in repositories.names(None) {
            if repository.ends_with("imgbuild/head") {
                continue;
            }
            for tag in repositories.tags(&repository, None).unwrap_or_default() {
                let url = format!("/v2/{repository}/manifests/{tag}");
                tags.insert(format!("{repository}:{tag}"), self.head(&url));
            }
        }
        tags
    }

    fn head(&self, path: &str) -> Digest {
        let answer = request(&self.host(), "HEAD", path);
        let line = answer
            .lines()
            .find_map(|line| {
                line.to_lowercase()
                    .strip_prefix("docker-content-digest: ")
                    .map(str::to_owned)
            })
            .unwrap_or_else(|| panic!("{path} is not served: {answer}"));
        line.trim().parse().unwrap()
    }

    /// How many blobs were uploaded so far.
    fn uploads(&self) -> u64 {
        self.server
            .counts()
            .iter()
            .filter(|((method, kind, status), _)| {
                method == "PUT" && *kind == Kind::Upload && *status == 201
            })
            .map(|(_, count)| count)
            .sum()
    }
}

/// One request over a connection of its own.
fn request(host: &str, method: &str, path: &str) -> String {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(host).unwrap();
    let accept = imgbuild::oci::MANIFEST_TYPES.join(", ");
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Bytes that do not repeat, the same ones for the same name.
fn noise(name: u64, size: usize) -> Vec<u8> {
    let mut state = name.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// A working directory with a store of its own.
struct Place {
    folder: tempfile::TempDir,
    insecure: Vec<String>,
}

impl Place {
    fn new(registries: &[&Registry]) -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            insecure: registries.iter().map(|registry| registry.host()).collect(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_imgbuild"));
        command
            .current_dir(self.folder.path())
            .env_clear()
            .env("HOME", self.folder.path())
            .args(["--store", "store"]);
        for host in &self.insecure {
            command.args(["--insecure", host]);
        }
        command.args(arguments).output().unwrap()
    }

    /// Runs a command that must end with `code`; what it said.
    fn expect(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(
            output.status.code(),
            Some(code),
            "imgbuild {}\n{text}",
            arguments.join(" ")
        );
        text
    }

    /// Asks for these images of a registry, and locks them.
    fn want(&self, upstream: &Registry, images: &[&str]) {
        let names: Vec<String> = images
            .iter()
            .map(|image| format!("    - name: {}/{image}\n", upstream.host()))
            .collect();
        let names = names.concat();
        fs::write(
            self.path("prod.yaml"),
            format!(
                "apiVersion: mirror.openshift.io/v2alpha1\nkind: ImageSetConfiguration\nmirror:\n  additionalImages:\n{names}"
            ),
        )
        .unwrap();
        self.expect(0, &["lock", "-c", "prod.yaml", "--update"]);
    }
}

/// The files of an archive in a folder.
fn files(folder: &Path) -> BTreeSet<String> {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn a_flipped_bit_anywhere_changes_nothing_that_is_visible() {
    let (upstream, site) = (Registry::start(), Registry::start());
    let near = Place::new(&[&upstream]);
    let base = noise(1, 30_000);
    upstream.image("team/one", "v1", &[base.clone(), noise(2, 9_000)]);
    upstream.image("team/two", "v1", &[base.clone(), noise(3, 700)]);
    near.want(&upstream, &["team/one:v1", "team/two:v1"]);
    near.expect(
        0,
        &[
            "export",
            "-c",
            "prod.yaml",
            "-o",
            "disk",
            "--part-size",
            "24000",
        ],
    );
    upstream.image("team/two", "v1", &[base, noise(4, 800)]);
    near.want(&upstream, &["team/one:v1", "team/two:v1"]);
    near.expect(0, &["export", "-c", "prod.yaml", "-o", "next"]);

    let far = Place::new(&[&site]);
    let to = format!("docker://{}/mirror", site.host());
    let disk = near.path("disk");
    let import =
        |code, folder: &Path| far.expect(code, &["import", folder.to_str().unwrap(), "--to", &to]);
    import(0, &disk);
    let before = site.tags();
    assert_eq!(before.len(), 2, "both images are there: {before:?}");
    let heads = |site: &Registry| {
        site.server
            .repositories()
            .tags("mirror/imgbuild/head", None)
    };
    let head = heads(&site);

    let next = near.path("next");
    assert_eq!(files(&next).len(), 2, "one part and its checksum");
    for name in files(&next) {
        let path = next.join(name);
        let good = fs::read(&path).unwrap();
        let step = (good.len() / 12).max(1);
        for at in (0..good.len()).step_by(step) {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            fs::write(&path, bad).unwrap();
            let said = import(4, &next);
            assert!(said.contains("prod_seq000002"), "the file is named: {said}");
            assert_eq!(site.tags(), before, "byte {at} of {}", path.display());
            assert_eq!(heads(&site), head, "no head has moved");
        }
        fs::write(&path, good).unwrap();
    }
    let uploads = site.uploads();
    import(0, &next);
    assert_ne!(site.tags(), before, "the good archive is adopted");
    assert!(
        site.uploads() - uploads <= 3,
        "what had been sent is not sent again: {} uploads",
        site.uploads() - uploads
    );
}

/// Changes a tar header of a part, and makes its checksum right again. The member is the last blob.
fn mislead(bytes: &mut [u8], change: impl Fn(&mut [u8])) {
    let at = (0..bytes.len() / 512)
        .map(|block| block * 512)
        .rfind(|at| bytes[at + 257..].starts_with(b"ustar"))
        .unwrap();
    let block = &mut bytes[at..at + 512];
    change(block);
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn named(block: &mut [u8], name: &str) {
    block[..100].fill(0);
    block[..name.len()].copy_from_slice(name.as_bytes());
}

#[test]
fn a_hostile_archive_is_refused_with_its_place_and_changes_nothing_that_is_visible() {
    type Change = Box<dyn Fn(&mut Vec<u8>)>;
    let (upstream, site) = (Registry::start(), Registry::start());
    let near = Place::new(&[&upstream]);
    let base = noise(1, 30_000);
    upstream.image("team/one", "v1", &[base.clone(), noise(2, 900)]);
    near.want(&upstream, &["team/one:v1"]);
    near.expect(0, &["export", "-c", "prod.yaml", "-o", "first"]);
    upstream.image("team/one", "v1", &[base, noise(3, 20_000), noise(4, 9_000)]);
    near.want(&upstream, &["team/one:v1"]);
    near.expect(
        0,
        &[
            "export",
            "-c",
            "prod.yaml",
            "-o",
            "second",
            "--part-size",
            "24000",
        ],
    );
    let far = Place::new(&[&site]);
    let to = format!("docker://{}/mirror", site.host());
    far.expect(0, &["import", &text(&near.path("first")), "--to", &to]);
    let before = site.tags();
    let head = || {
        site.server
            .repositories()
            .tags("mirror/imgbuild/head", None)
    };
    let adopted = head();
    let around = files(&far.path("."));

    let header =
        |change: fn(&mut [u8])| -> Change { Box::new(move |bytes| mislead(bytes, change)) };
    let flag =
        |flag: u8| -> Change { Box::new(move |bytes| mislead(bytes, |block| block[156] = flag)) };
    let called = |name: &'static str| -> Change {
        Box::new(move |bytes| mislead(bytes, |block| named(block, name)))
    };
    let sized = |text: &'static [u8]| -> Change {
        Box::new(move |bytes| mislead(bytes, |block| block[124..136].copy_from_slice(text)))
    };
    let extra = |name: &'static str| -> Change {
        Box::new(move |bytes| {
            let end = bytes.len() - 1024;
            let mut block = bytes[..512].to_vec();
            named(&mut block, name);
            block[124..136].copy_from_slice(b"00000000000\0");
            bytes.splice(end..end, block);
            mislead(bytes, |_| ());
        })
    };
    let table: Vec<(&str, Change)> = vec![
        ("an absolute path", called("/etc/passwd")),
        (
            "a path that climbs",
            called("blobs/sha256/../../../../etc/passwd"),
        ),
        ("a path with a dot", called("./index.json")),
        ("a name in capitals", called("BLOBS/SHA256/X")),
        ("a backslash", called("blobs\\sha256\\x")),
        ("a name that is empty", called("")),
        ("a hard link", flag(b'1')),
        ("a symbolic link", flag(b'2')),
        ("a character device", flag(b'3')),
        ("a block device", flag(b'4')),
        ("a folder", flag(b'5')),
        ("a fifo", flag(b'6')),
        ("a sparse file", flag(b'S')),
        ("a long name", flag(b'L')),
        ("an extended header", flag(b'x')),
        ("a global header", flag(b'g')),
        ("another volume", flag(b'M')),
        (
            "a link's target",
            header(|block| block[157..168].copy_from_slice(b"/etc/passwd")),
        ),
        (
            "a prefix of the name",
            header(|block| block[345..350].copy_from_slice(b"../..")),
        ),
        ("eight gibibytes", sized(b"77777777777\0")),
        (
            "all that 64 bits can say",
            sized(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
        ),
        ("less than nothing", sized(b"-0000000001\0")),
        ("an entry more", extra("blobs/sha256/x")),
        ("an entry that leads elsewhere", extra("../../x")),
        (
            "a part that ends early",
            Box::new(|bytes| bytes.truncate(bytes.len() / 2)),
        ),
        ("a part that is empty", Box::new(Vec::clear)),
        (
            "a part that goes on",
            Box::new(|bytes| bytes.extend_from_slice(&[0; 512])),
        ),
    ];
    let second = near.path("second");
    let parts: Vec<String> = files(&second)
        .into_iter()
        .filter(|name| Path::new(name).extension() == Some("tar".as_ref()))
        .collect();
    assert!(parts.len() >= 2, "the archive has parts: {parts:?}");
    let victim = second.join(parts.last().unwrap());
    let good = fs::read(&victim).unwrap();
    // Whoever does this leaves no checksums that tell.
    fs::remove_file(second.join("prod_seq000002.sha256")).unwrap();
    let refused = |what: &str, place: &str| {
        for arguments in [
            &["verify", &text(&second)][..],
            &["import", &text(&second), "--to", &to][..],
        ] {
            let said = far.expect(4, arguments);
            assert!(said.contains(place), "{what}: the place is named: {said}");
            assert_eq!(site.tags(), before, "{what}: no tag has moved");
            assert_eq!(head(), adopted, "{what}: no head has moved");
        }
        assert_eq!(
            files(&far.path(".")),
            around,
            "{what}: nothing is written elsewhere"
        );
    };
    for (what, change) in table {
        let mut bytes = good.clone();
        change(&mut bytes);
        fs::write(&victim, &bytes).unwrap();
        refused(what, parts.last().unwrap());
    }
    // Parts of two archives that changed places, and one that is there twice under two names.
    let first = files(&near.path("first"))
        .into_iter()
        .find(|name| Path::new(name).extension() == Some("tar".as_ref()))
        .unwrap();
    fs::copy(near.path("first").join(first), &victim).unwrap();
    refused("another archive's part", parts.last().unwrap());
    fs::copy(second.join(&parts[0]), &victim).unwrap();
    refused("a part under two names", parts.last().unwrap());
    // A part that is missing is no damage: the rest is staged, and it is asked for.
    fs::remove_file(&victim).unwrap();
    far.expect(4, &["verify", &text(&second)]);
    let said = far.expect(5, &["import", &text(&second), "--to", &to]);
    assert!(said.contains(&format!("{:04}", parts.len())), "{said}");
    assert_eq!(
        (site.tags(), head()),
        (before.clone(), adopted),
        "nothing is visible"
    );
    fs::write(&victim, good).unwrap();
    far.expect(0, &["import", &text(&second), "--to", &to]);
    assert_ne!(site.tags(), before, "the good archive is adopted");
}

#[test]
fn a_cut_blob_is_joined_on_its_way_to_a_registry_a_layout_and_a_store() {
    let (upstream, site) = (Registry::start(), Registry::start());
    let near = Place::new(&[&upstream]);
    upstream.image("team/one", "v1", &[noise(1, 100_000), noise(2, 3_000)]);
    near.want(&upstream, &["team/one:v1"]);
    near.expect(
        0,
        &[
            "export",
            "-c",
            "prod.yaml",
            "-o",
            "disk",
            "--part-size",
            "30000",
        ],
    );
    let disk = near.path("disk");
    let disk = disk.to_str().unwrap();
    let far = Place::new(&[&site]);
    far.expect(0, &["import", disk]);
    far.expect(0, &["import", disk, "--to", "oci:layout"]);
    far.expect(
        0,
        &["import", disk, "--to", &format!("docker://{}", site.host())],
    );
    for blob in [noise(1, 100_000), noise(2, 3_000)] {
        let digest = Digest::of(&blob);
        for place in ["store", "layout"] {
            let path = far.path(place).join("blobs/sha256").join(digest.hex());
            assert!(
                fs::read(path).unwrap() == blob,
                "{place} has the joined blob"
            );
        }
        let answer = request(
            &site.host(),
            "HEAD",
            &format!("/v2/team/one/blobs/{digest}"),
        );
        assert!(
            answer.starts_with("HTTP/1.1 200"),
            "the registry has it: {answer}"
        );
    }
    assert_eq!(
        site.uploads(),
        4,
        "two layers, a config and the head, once each"
    );
}

/// A path as an argument.
fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_site_that_lost_its_store_still_knows_what_it_has() {
    let (upstream, site) = (Registry::start(), Registry::start());
    let near = Place::new(&[&upstream]);
    for (sequence, layer) in [(1, 1), (2, 2)] {
        upstream.image("team/one", "v1", &[noise(layer, 2_000)]);
        near.want(&upstream, &["team/one:v1"]);
        near.expect(
            0,
            &[
                "export",
                "-c",
                "prod.yaml",
                "-o",
                &format!("disk{sequence}"),
            ],
        );
    }
    let to = format!("docker://{}", site.host());
    let far = Place::new(&[&site]);
    far.expect(0, &["import", &text(&near.path("disk1")), "--to", &to]);
    far.expect(0, &["import", &text(&near.path("disk2")), "--to", &to]);
    let after = site.tags();
    let other = Place::new(&[&site]);
    let said = other.expect(4, &["import", &text(&near.path("disk1")), "--to", &to]);
    assert!(
        said.contains("older than seq 2"),
        "the registry remembers: {said}"
    );
    assert_eq!(site.tags(), after, "and nothing went back");
    let said = other.expect(0, &["import", &text(&near.path("disk2")), "--to", &to]);
    assert!(said.contains("was adopted before"), "{said}");
    other.expect(
        0,
        &[
            "import",
            &text(&near.path("disk1")),
            "--to",
            &to,
            "--allow-rollback",
        ],
    );
    let said = far.expect(4, &["import", &text(&near.path("disk1")), "--to", &to]);
    assert!(
        said.contains("older than seq 2"),
        "the newer of the two memories counts: {said}"
    );
    // A layout remembers as well.
    far.expect(
        0,
        &[
            "import",
            &text(&near.path("disk1")),
            &text(&near.path("disk2")),
            "--to",
            "oci:layout",
        ],
    );
    fs::remove_dir_all(far.path("store")).unwrap();
    far.expect(
        4,
        &["import", &text(&near.path("disk1")), "--to", "oci:layout"],
    );
}

#[test]
fn two_archives_that_claim_one_place_are_a_fork_whoever_remembers() {
    let (upstream, site) = (Registry::start(), Registry::start());
    let near = Place::new(&[&upstream]);
    let twin = Place::new(&[&upstream]);
    upstream.image("team/one", "v1", &[noise(1, 2_000)]);
    for place in [&near, &twin] {
        place.want(&upstream, &["team/one:v1"]);
        place.expect(0, &["export", "-c", "prod.yaml", "-o", "disk1"]);
    }
    for (place, layer) in [(&near, 2), (&twin, 3)] {
        upstream.image("team/one", "v1", &[noise(layer, 2_000)]);
        place.want(&upstream, &["team/one:v1"]);
        place.expect(0, &["export", "-c", "prod.yaml", "-o", "disk2"]);
    }
    let to = format!("docker://{}", site.host());
    let far = Place::new(&[&site]);
    far.expect(0, &["import", &text(&near.path("disk1")), "--to", &to]);
    far.expect(0, &["import", &text(&near.path("disk2")), "--to", &to]);
    let other = Place::new(&[&site]);
    let said = other.expect(4, &["import", &text(&twin.path("disk2")), "--to", &to]);
    assert!(said.contains("claims the place"), "{said}");
    // With the chain of the one, the other is none of it, whatever is adopted.
    let chain = text(&near.path("lockfiles/prod.chain"));
    let nowhere = Place::new(&[]);
    nowhere.expect(
        4,
        &["import", &text(&twin.path("disk2")), "--chain", &chain],
    );
    nowhere.expect(
        0,
        &[
            "import",
            &text(&near.path("disk1")),
            &text(&near.path("disk2")),
            "--chain",
            &chain,
        ],
    );
}

#[test]
fn only_what_enough_trusted_keys_have_sealed_is_imported() {
    use std::os::unix::fs::PermissionsExt as _;
    let upstream = Registry::start();
    let near = Place::new(&[&upstream]);
    upstream.image("team/one", "v1", &[noise(1, 40_000)]);
    near.want(&upstream, &["team/one:v1"]);
    for name in ["alice", "bob", "eve"] {
        let said = near.expect(0, &["key", "new", name]);
        let secret = fs::read_to_string(near.path(&format!("{name}.key"))).unwrap();
        let inner = secret.lines().nth(1).unwrap();
        assert!(!said.contains(inner), "the secret key is not printed");
        let mode = fs::metadata(near.path(&format!("{name}.key")))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "nobody else reads it");
    }
    near.expect(1, &["key", "new", "alice"]);
    near.expect(
        0,
        &[
            "export",
            "-c",
            "prod.yaml",
            "-o",
            "disk",
            "--part-size",
            "20000",
            "--seal",
            "alice.key",
        ],
    );
    let disk = text(&near.path("disk"));
    let key = |name: &str| text(&near.path(&format!("{name}.pub")));
    let far = Place::new(&[]);
    far.expect(4, &["import", &disk, "--require-seal", &key("eve")]);
    assert!(
        !far.expect(0, &["store", "root"]).contains("adopted"),
        "nothing was adopted without a trusted seal"
    );
    let (alice, bob) = (key("alice"), key("bob"));
    let both = [
        "--require-seal",
        alice.as_str(),
        "--require-seal",
        bob.as_str(),
        "--threshold",
        "2",
    ];
    let require = |command: &'static str| [&[command, disk.as_str()][..], &both[..]].concat();
    far.expect(4, &require("verify"));
    near.expect(0, &["seal", "disk", "--key", "bob.key"]);
    let said = far.expect(0, &require("verify"));
    assert!(said.contains("sealed by"), "{said}");
    far.expect(
        2,
        &[
            "verify",
            &disk,
            "--require-seal",
            &key("alice"),
            "--threshold",
            "2",
        ],
    );

    // A part of another making, though it proves itself, is not what was sealed.
    let seal = near.path("disk/prod_seq000001.seal.json");
    let good = fs::read(&seal).unwrap();
    fs::remove_file(&seal).unwrap();
    near.expect(
        0,
        &[
            "seal",
            "disk",
            "--key",
            "bob.key",
            "--expires",
            "2100-01-01",
        ],
    );
    far.expect(0, &["verify", &disk, "--require-seal", &key("bob")]);
    near.expect(
        2,
        &[
            "seal",
            "disk",
            "--key",
            "bob.key",
            "--expires",
            "2001-01-01",
        ],
    );
    fs::write(&seal, &good).unwrap();
    for at in (0..good.len()).step_by(good.len() / 15) {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&seal, &bad).unwrap();
        let output = far.run(&require("import"));
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            matches!(output.status.code(), Some(0 | 4)),
            "byte {at}: {text}"
        );
    }
    fs::write(&seal, &good).unwrap();
    far.expect(0, &require("import"));
}

#[test]
fn an_export_stands_on_what_sites_have_confirmed() {
    let upstream = Registry::start();
    let (site_a, site_b) = (Registry::start(), Registry::start());
    let near = Place::new(&[&upstream]);
    let export = |sequence: u64, more: &[&str]| {
        upstream.image(
            "team/one",
            "v1",
            &[noise(1, 3_000), noise(100 + sequence, 2_000)],
        );
        near.want(&upstream, &["team/one:v1"]);
        let folder = format!("disk{sequence}");
        let mut arguments = vec!["export", "-c", "prod.yaml", "-o", &folder];
        arguments.extend(more);
        near.expect(0, &arguments)
    };
    for sequence in 1..=3 {
        export(sequence, &[]);
    }
    let (far_a, far_b) = (Place::new(&[&site_a]), Place::new(&[&site_b]));
    let disk = |sequence: u64| text(&near.path(&format!("disk{sequence}")));
    far_a.expect(0, &["key", "new", "site"]);
    let to_a = format!("docker://{}", site_a.host());
    let to_b = format!("docker://{}", site_b.host());
    let said = far_a.expect(
        0,
        &[
            "import",
            &disk(1),
            &disk(2),
            &disk(3),
            "--to",
            &to_a,
            "--site",
            "site-a",
            "--key",
            "site.key",
            "--receipt",
            "receipt",
        ],
    );
    assert!(
        said.contains("receipt  imgbuild-receipt/1 prod site-a 3 sha256:"),
        "{said}"
    );
    far_b.expect(
        0,
        &[
            "import",
            &disk(1),
            "--to",
            &to_b,
            "--site",
            "site-b",
            "--receipt",
            "receipt",
        ],
    );
    let receipt_a = text(&far_a.path("receipt"));
    let receipt_b = text(&far_b.path("receipt"));
    let keys = text(&far_a.path("site.pub"));

    let forged = fs::read_to_string(&receipt_b)
        .unwrap()
        .replace(" 1 ", " 2 ");
    fs::write(near.path("forged"), forged).unwrap();
    near.expect(
        4,
        &[
            "export",
            "-c",
            "prod.yaml",
            "-o",
            "no",
            "--receipt",
            "forged",
        ],
    );
    near.expect(
        4,
        &[
            "export",
            "-c",
            "prod.yaml",
            "-o",
            "no",
            "--receipt",
            &receipt_b,
            "--receipt-keys",
            &keys,
        ],
    );

    let said = export(
        4,
        &[
            "--receipt",
            &receipt_a,
            "--receipt-keys",
            &keys,
            "--receipt",
            &receipt_a,
        ],
    );
    assert!(
        said.contains("seq 3 has been adopted, as confirmed by site-a (seq 3)"),
        "{said}"
    );
    let said = export(5, &["--receipt", &receipt_b]);
    assert!(
        said.contains("seq 1 or seq 3 has been adopted"),
        "one archive for both: {said}"
    );
    // Both skip what lies between, which never arrived.
    for (far, to) in [(&far_a, &to_a), (&far_b, &to_b)] {
        far.expect(0, &["import", &disk(5), "--to", to]);
    }
    assert_eq!(
        site_a.tags(),
        site_b.tags(),
        "both sites are where the lock is"
    );
    let said = export(6, &[]);
    assert!(
        said.contains("as confirmed by"),
        "receipts are remembered: {said}"
    );
    let said = near.expect(0, &["export", "-c", "prod.yaml", "-o", "disk7", "--full"]);
    assert!(!said.contains("confirmed"), "{said}");
}

#[test]
fn what_was_damaged_or_lost_on_the_way_is_restored_from_parity() {
    let upstream = Registry::start();
    let near = Place::new(&[&upstream]);
    upstream.image(
        "team/one",
        "v1",
        &[noise(1, 60_000), noise(2, 30_000), noise(3, 500)],
    );
    near.want(&upstream, &["team/one:v1"]);
    near.expect(
        0,
        &[
            "export",
            "-c",
            "prod.yaml",
            "-o",
            "disk",
            "--part-size",
            "25000",
            "--parity",
            "40%",
        ],
    );
    let disk = near.path("disk");
    let names = files(&disk);
    assert!(names.contains("prod_seq000001_p0001.parity"), "{names:?}");
    let sums = Command::new("sha256sum")
        .args(["-c", "prod_seq000001.sha256"])
        .current_dir(&disk)
        .output();
    if let Ok(output) = sums {
        assert!(
            output.status.success(),
            "the checksum file names the parity, too: {output:?}"
        );
    }
    let contents = |folder: &Path| -> Vec<Vec<u8>> {
        files(folder)
            .iter()
            .map(|name| fs::read(folder.join(name)).unwrap())
            .collect()
    };
    let before = contents(&disk);
    fs::remove_file(disk.join("prod_seq000001_0003.tar")).unwrap();
    let first = disk.join("prod_seq000001_0001.tar");
    let mut bad = fs::read(&first).unwrap();
    bad[700] ^= 1;
    bad[9_000] ^= 1;
    fs::write(&first, bad).unwrap();
    let far = Place::new(&[]);
    far.expect(4, &["verify", &text(&disk)]);
    let said = far.expect(0, &["verify", "--repair", &text(&disk)]);
    assert!(
        said.contains("prod_seq000001_0003.tar was missing and is restored"),
        "{said}"
    );
    assert!(
        said.contains("prod_seq000001_0001.tar was damaged and is restored"),
        "{said}"
    );
    assert!(contents(&disk) == before, "byte for byte");
    for part in 1..=4 {
        fs::remove_file(disk.join(format!("prod_seq000001_000{part}.tar"))).unwrap();
    }
    far.expect(4, &["verify", "--repair", &text(&disk)]);
}

#[test]
fn what_is_in_an_archive_and_a_lock_can_be_looked_at_and_approved() {
    let upstream = Registry::start();
    let near = Place::new(&[&upstream]);
    upstream.image("team/one", "v1", &[noise(1, 30_000)]);
    near.want(&upstream, &["team/one:v1"]);
    let said = near.expect(0, &["plan", "-c", "prod.yaml", "--media", "20000"]);
    assert!(
        said.contains("medium 4 of 4")
            && said.contains("label: prod seq 1 4/4  (prod_seq000001_0004.tar)"),
        "{said}"
    );
    near.expect(
        0,
        &[
            "export",
            "-c",
            "prod.yaml",
            "-o",
            "disk1",
            "--part-size",
            "20000",
        ],
    );
    let one = upstream.image("team/one", "v1", &[noise(1, 30_000), noise(2, 700)]);
    upstream.image("team/two", "v1", &[noise(3, 40)]);
    near.want(&upstream, &["team/one:v1", "team/two:v1"]);
    near.expect(0, &["export", "-c", "prod.yaml", "-o", "disk2"]);
    let said = near.expect(0, &["show", "disk2"]);
    for part in [
        "prod seq 2",
        "on top of seq 1",
        "part      1 of 1",
        &one.to_string(),
    ] {
        assert!(said.contains(part), "{part} is said: {said}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&near.expect(0, &["show", "disk2", "--format", "json"])).unwrap();
    assert_eq!(json["archives"][0]["sequence"], 2);
    assert_eq!(json["archives"][0]["images"].as_array().unwrap().len(), 2);
    let said = near.expect(0, &["show", "lockfiles/prod.lock.toml"]);
    assert!(
        said.contains(&one.to_string()) && said.contains("images    2"),
        "{said}"
    );
    near.expect(1, &["show", "prod.yaml"]);

    for folder in ["papers", "again"] {
        near.expect(
            0,
            &[
                "dossier",
                "2",
                "-c",
                "prod.yaml",
                "-o",
                folder,
                "--archive",
                "disk2",
            ],
        );
    }
    for suffix in ["md", "json", "html"] {
        let read = |folder: &str| {
            fs::read_to_string(near.path(folder).join(format!("prod_seq000002.{suffix}"))).unwrap()
        };
        let paper = read("papers");
        assert_eq!(paper, read("again"), "the same papers every time");
        assert!(paper.contains(&one.to_string()), "{suffix} names the image");
        assert!(paper.contains("team/two"), "{suffix} names what is new");
    }
    let html = fs::read_to_string(near.path("papers/prod_seq000002.html")).unwrap();
    assert!(
        !html.contains("http-equiv") && !html.contains("<script") && !html.contains("<link"),
        "it needs nothing else"
    );
    near.expect(2, &["dossier", "9", "-c", "prod.yaml", "-o", "papers"]);
}

/// Whether a program is installed; where it is not, what needs it is passed over.
fn has(program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok();
    if !there {
        println!("{program} is not installed; what it would show is passed over");
    }
    there
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// A program that runs until the end of a test.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn other_programs_read_the_forms_that_are_theirs() {
    let upstream = Registry::start();
    let near = Place::new(&[&upstream]);
    let shared = noise(1, 30_000);
    let one = upstream.image("team/one", "v1", &[shared.clone(), noise(2, 900)]);
    upstream.image("team/deep/two", "v2", std::slice::from_ref(&shared));
    near.want(&upstream, &["team/one:v1", "team/deep/two:v2"]);
    near.expect(
        0,
        &[
            "export",
            "-c",
            "prod.yaml",
            "-o",
            "layout",
            "--as",
            "oci-layout",
        ],
    );
    near.expect(
        0,
        &[
            "export",
            "-c",
            "prod.yaml",
            "-o",
            "tree",
            "--as",
            "registry-fs",
        ],
    );
    near.expect(
        2,
        &[
            "export",
            "-c",
            "prod.yaml",
            "-o",
            "layout",
            "--as",
            "oci-layout",
            "--layout",
            "v2",
        ],
    );
    assert!(
        !near.path("lockfiles/prod.chain").exists(),
        "these are no archives"
    );
    let said = near.expect(
        0,
        &[
            "export",
            "-c",
            "prod.yaml",
            "-o",
            "tree",
            "--as",
            "registry-fs",
        ],
    );
    assert!(
        said.contains("0 blobs shared with the store, 0 copied"),
        "nothing is done twice: {said}"
    );
    fs::write(near.path("strange"), "").unwrap();
    fs::create_dir(near.path("other")).unwrap();
    fs::write(near.path("other/file"), "").unwrap();
    near.expect(
        1,
        &[
            "export",
            "-c",
            "prod.yaml",
            "-o",
            "other",
            "--as",
            "oci-layout",
        ],
    );

    if has("skopeo") {
        let name = format!("oci:layout:{}/team/one:v1", upstream.host());
        let output = Command::new("skopeo")
            .args(["inspect", "--raw", &name])
            .current_dir(near.folder.path())
            .output()
            .unwrap();
        assert_eq!(Digest::of(&output.stdout), one, "{output:?}");
    }
    if has("skopeo") && has("docker-registry") {
        let port = free_port();
        let root = text(&near.path("tree"));
        let config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage: {{filesystem: {{rootdirectory: {root}}}, maintenance: {{readonly: {{enabled: true}}}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n"
        );
        fs::write(near.path("registry.yml"), config).unwrap();
        let child = Command::new("docker-registry")
            .args(["serve", "registry.yml"])
            .current_dir(near.folder.path())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let _running = Running(child);
        let mut up = false;
        for _ in 0..600 {
            up = std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
            if up {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        assert!(up, "the registry listens");
        for image in ["team/one:v1", "team/deep/two:v2"] {
            let output = Command::new("skopeo")
                .args(["copy", "--insecure-policy", "--src-tls-verify=false"])
                .arg(format!("docker://127.0.0.1:{port}/{image}"))
                .arg(format!(
                    "dir:{}",
                    text(&near.path(&image.replace(['/', ':'], "-")))
                ))
                .output()
                .unwrap();
            assert!(
                output.status.success(),
                "{image}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        let copied = fs::read(near.path("team-one-v1/manifest.json")).unwrap();
        assert_eq!(
            Digest::of(&copied),
            one,
            "the stock registry serves the very bytes"
        );
    }
}

/// Appends a file to a tar.
fn tar_file(tar: &mut tar::Builder<Vec<u8>>, name: &str, bytes: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, bytes).unwrap();
}

/// Every file below a folder, by its path from there.
fn walk(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(next) = waiting.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else {
                let name = text(path.strip_prefix(folder).unwrap());
                found.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    found
}

#[test]
fn what_other_tools_mirrored_is_taken_over_and_not_sent_again() {
    let upstream = Registry::start();
    let near = Place::new(&[&upstream]);
    let old = noise(1, 50_000);
    let one = upstream.image("team/one", "v1", std::slice::from_ref(&old));
    near.want(&upstream, &["team/one:v1"]);
    near.expect(
        0,
        &[
            "export",
            "-c",
            "prod.yaml",
            "-o",
            "cache",
            "--as",
            "registry-fs",
        ],
    );
    let tree = walk(&near.path("cache"));

    // The archive of oc-mirror v2: links, blobs, and what is not ours.
    let mut v2 = tar::Builder::new(Vec::new());
    for (name, bytes) in &tree {
        tar_file(&mut v2, name, bytes);
    }
    tar_file(
        &mut v2,
        "working-dir/.history/.history-2026",
        b"sha256:00\n",
    );
    fs::write(near.path("mirror_000001.tar"), v2.into_inner().unwrap()).unwrap();
    // That of v1, and the tree of `oc image mirror`, which is alike.
    let manifest = tree
        .iter()
        .find(|(name, _)| name.contains(&one.hex()) && name.ends_with("data"))
        .map(|(_, bytes)| bytes.clone())
        .unwrap();
    let mut v1 = tar::Builder::new(Vec::new());
    tar_file(
        &mut v1,
        "publish/.metadata.json",
        format!(
            r#"{{"apiVersion":"mirror.openshift.io/v1alpha2","kind":"Metadata","uid":"x","singleUse":false,"pastMirror":{{"timestamp":1,"sequence":3,"mirror":{{}},"associations":[{{"name":"a/one:v1","path":"team/one","id":"{one}","tagSymlink":"v1","type":5,"layerDigests":[]}}]}},"pastAssociations":[{{"name":"a/old:v1","path":"team/old","id":"sha256:{}","tagSymlink":"v1","type":5,"layerDigests":[]}}]}}"#,
            "0".repeat(64)
        )
        .as_bytes(),
    );
    tar_file(&mut v1, &format!("v2/team/one/manifests/{one}"), &manifest);
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    v1.append_link(&mut link, "v2/team/one/manifests/v1", one.to_string())
        .unwrap();
    let mirrored = near.path("mirrored/v2/team/one");
    fs::create_dir_all(mirrored.join("blobs")).unwrap();
    fs::create_dir_all(mirrored.join("manifests")).unwrap();
    for (name, bytes) in &tree {
        if name.ends_with("data") {
            let digest = Digest::of(bytes);
            fs::write(mirrored.join(format!("blobs/{digest}")), bytes).unwrap();
            if digest != one {
                tar_file(&mut v1, &format!("blobs/{digest}"), bytes);
            }
        }
    }
    fs::hard_link(
        mirrored.join(format!("blobs/{one}")),
        mirrored.join(format!("manifests/{one}")),
    )
    .unwrap();
    std::os::unix::fs::symlink(one.to_string(), mirrored.join("manifests/v1")).unwrap();
    fs::write(
        near.path("mirror_seq3_000000.tar"),
        v1.into_inner().unwrap(),
    )
    .unwrap();

    let mut locks = BTreeSet::new();
    for origin in [
        "mirror_000001.tar",
        "cache",
        "cache/docker/registry/v2",
        "mirror_seq3_000000.tar",
        "mirrored",
    ] {
        let taker = Place::new(&[&upstream]);
        let path = text(&near.path(origin));
        let said = taker.expect(0, &["takeover", &path]);
        assert!(said.contains("1 image, 3 blobs taken"), "{origin}: {said}");
        let is_v1 = origin.contains("seq3");
        assert_eq!(
            said.contains("left out: a/old:v1") && said.contains("from sequence 3"),
            is_v1,
            "what only the metadata of v1 names is said: {said}"
        );
        locks.insert(fs::read_to_string(taker.path("takeover.lock.toml")).unwrap());
        let said = taker.expect(0, &["takeover", &path]);
        assert!(said.contains("0 blobs taken"), "{origin} again: {said}");

        // The destination has this much; an archive on top of it carries the rest.
        upstream.image("team/one", "v2", &[old.clone(), noise(9, 700)]);
        taker.want(&upstream, &["team/one:v2"]);
        taker.expect(
            0,
            &[
                "export",
                "-c",
                "prod.yaml",
                "-o",
                "disk",
                "--base-lock",
                "takeover.lock.toml",
            ],
        );
        let bytes: u64 = files(&taker.path("disk"))
            .iter()
            .map(|name| fs::metadata(taker.path("disk").join(name)).unwrap().len())
            .sum();
        assert!(
            bytes < 30_000,
            "{origin}: the large layer is not carried again: {bytes}"
        );
    }
    assert_eq!(
        locks.len(),
        1,
        "whatever it came from, the lock is one: {locks:?}"
    );

    // Damage is named and not taken.
    let data = near.path("cache").join(
        tree.keys()
            .find(|name| name.ends_with("data") && !name.contains(&one.hex()))
            .unwrap(),
    );
    fs::remove_file(&data).unwrap();
    fs::write(&data, b"something else").unwrap();
    let taker = Place::new(&[]);
    let said = taker.expect(4, &["takeover", &text(&near.path("cache"))]);
    assert!(
        said.contains("damaged: ") && said.contains("/data"),
        "{said}"
    );
    near.expect(1, &["takeover", "lockfiles"]);
}

/// What a registry must hold for a lock: per repository, its manifest and its blobs.
type Wanted = BTreeMap<String, (Digest, BTreeSet<Digest>)>;

impl Registry {
    /// Lets go of everything that `wanted` does not name, as a site does that is short of disk.
    fn prune(&self, wanted: &Wanted) {
        let repositories = self.server.repositories();
        let linked: Vec<Digest> = repositories
            .linked()
            .iter()
            .map(|blob| blob.digest)
            .collect();
        for repository in repositories.names(None) {
            if repository.ends_with("imgbuild/head") {
                continue;
            }
            let keep = wanted.get(&repository);
            if keep.is_none() {
                for tag in repositories.tags(&repository, None).unwrap_or_default() {
                    repositories.unlink_tag(&repository, &tag).unwrap();
                }
            }
            for digest in &linked {
                if keep.is_none_or(|(manifest, _)| manifest != digest) {
                    repositories.unlink_manifest(&repository, digest).unwrap();
                }
                if keep.is_none_or(|(_, blobs)| !blobs.contains(digest)) {
                    repositories.unlink_blob(&repository, digest).unwrap();
                }
            }
        }
    }
}

#[test]
fn twelve_archives_reach_three_sites_that_could_not_be_more_different() {
    const LAST: u64 = 12;
    let upstream = Registry::start();
    let near = Place::new(&[&upstream]);
    let mut wanted: Vec<Wanted> = Vec::new();
    let mut now: Wanted = BTreeMap::new();
    for sequence in 1..=LAST {
        // Two images move, on a base that changes every fourth time; one comes and goes.
        for step in 0..2 {
            let repository = format!("team/image-{}", (sequence + step) % 4);
            let layers = [
                noise(1 + sequence / 4, 30_000),
                noise(1_000 + sequence * 10 + step, 1_500),
            ];
            let manifest = upstream.image(&repository, "v1", &layers);
            let config =
                format!(r#"{{"architecture":"amd64","os":"linux","name":"{repository}:v1"}}"#);
            let blobs = layers
                .iter()
                .map(|layer| Digest::of(layer))
                .chain([Digest::of(config.as_bytes())])
                .collect();
            now.insert(repository, (manifest, blobs));
        }
        if sequence % 3 == 0 {
            now.remove("team/image-3");
        }
        let names: Vec<String> = now.keys().map(|name| format!("{name}:v1")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        near.want(&upstream, &names);
        let folder = format!("disk{sequence:02}");
        let more = if sequence == 1 {
            &[][..]
        } else {
            &["--overlap", "1"][..]
        };
        let arguments = [
            &[
                "export",
                "-c",
                "prod.yaml",
                "-o",
                &folder,
                "--part-size",
                "40000",
            ],
            more,
        ]
        .concat();
        near.expect(0, &arguments);
        wanted.push(now.clone());
    }
    let of = |sequence: u64| &wanted[usize::try_from(sequence - 1).unwrap()];
    let blobs_of = |sequence: u64| -> BTreeSet<Digest> {
        of(sequence)
            .values()
            .flat_map(|(_, blobs)| blobs.clone())
            .collect()
    };

    // What arrives where, in which order; those that come too late are refused and change nothing.
    let tidy: Vec<u64> = (1..=LAST).collect();
    let lossy: Vec<u64> = (1..=LAST).filter(|sequence| sequence % 5 != 0).collect();
    let odd = vec![1, 3, 2, 5, 4, 3, 7, 6, 9, 8, 11, 10, 12];
    for (name, arrivals, prunes) in [
        ("tidy", tidy, false),
        ("lossy", lossy, false),
        ("odd", odd, true),
    ] {
        let site = Registry::start();
        let far = Place::new(&[&site]);
        let to = format!("docker://{}", site.host());
        let (mut adopted, mut held, mut needed) = (0, BTreeSet::new(), 1);
        let (mut carried, mut sent) = (0, 0);
        for sequence in arrivals {
            let disk = text(&near.path(&format!("disk{sequence:02}")));
            carried += files(Path::new(&disk))
                .iter()
                .map(|name| fs::metadata(Path::new(&disk).join(name)).unwrap().len())
                .sum::<u64>();
            let before = site.tags();
            if sequence < adopted {
                far.expect(4, &["import", &disk, "--to", &to]);
                assert_eq!(
                    site.tags(),
                    before,
                    "{name}: sequence {sequence} comes too late"
                );
                continue;
            }
            let said = far.expect(0, &["import", &disk, "--to", &to, "--format", "json"]);
            let json = said.lines().find(|line| line.starts_with('{')).unwrap();
            let json: serde_json::Value = serde_json::from_str(json).unwrap();
            sent += json["archives"][0]["bytes"].as_u64().unwrap();
            adopted = sequence;
            let blobs = blobs_of(sequence);
            needed += blobs.difference(&held).count();
            if prunes {
                site.prune(of(sequence));
                held = blobs;
            } else {
                held.extend(blobs);
            }
            let tags = site.tags();
            for (repository, (manifest, _)) in of(sequence) {
                assert_eq!(
                    tags.get(&format!("{repository}:v1")),
                    Some(manifest),
                    "{name}: {repository} after sequence {sequence}"
                );
            }
            if prunes {
                assert_eq!(
                    tags.len(),
                    of(sequence).len(),
                    "{name}: nothing else is left"
                );
            }
        }
        assert_eq!(adopted, LAST, "{name} is where the lock is");
        assert_eq!(
            site.uploads(),
            needed as u64,
            "{name}: no blob is sent that was there"
        );
        println!(
            "{name}: {carried} bytes carried, {sent} sent to the registry, {} kept there",
            held.len()
        );
        assert!(
            sent < carried,
            "{name}: what is there is not sent, however often it is carried"
        );
        // Whatever came on the way, the bytes are right.
        far.expect(0, &["import", &text(&near.path("disk12")), "--to", &to]);
        assert_eq!(
            site.uploads(),
            needed as u64,
            "{name}: nor when it comes again"
        );
    }
}

#[test]
fn an_archive_may_come_one_disk_at_a_time() {
    let (upstream, site) = (Registry::start(), Registry::start());
    let near = Place::new(&[&upstream]);
    let layers = [noise(1, 100_000), noise(2, 20_000), noise(3, 15_000)];
    let one = upstream.image("team/one", "v1", &layers);
    near.want(&upstream, &["team/one:v1"]);
    near.expect(
        0,
        &[
            "export",
            "-c",
            "prod.yaml",
            "-o",
            "disk",
            "--part-size",
            "30000",
        ],
    );
    let parts: Vec<String> = files(&near.path("disk"))
        .into_iter()
        .filter(|name| Path::new(name).extension() == Some("tar".as_ref()))
        .collect();
    assert!(parts.len() >= 6, "the archive has many disks: {parts:?}");
    let shuffled: Vec<usize> = [0, 3, 2]
        .into_iter()
        .chain([1])
        .chain(4..parts.len())
        .collect();
    let to = format!("docker://{}", site.host());
    for (target, order) in [(Some(&to), shuffled), (None, (0..parts.len()).collect())] {
        let far = Place::new(&[&site]);
        let drive = far.path("drive");
        for (count, part) in (1..).zip(&order) {
            // One drive: the disk before is out.
            let _ = fs::remove_dir_all(&drive);
            fs::create_dir(&drive).unwrap();
            let name = &parts[*part];
            fs::copy(near.path("disk").join(name), drive.join(name)).unwrap();
            let mut arguments = vec!["import", "drive"];
            if let Some(to) = target {
                arguments.extend(["--to", to]);
            }
            let last = count == parts.len();
            let said = far.expect(if last { 0 } else { 5 }, &arguments);
            // Cleaning up in between takes nothing of what is waiting for the next disk.
            let said_gc = far.expect(0, &["store", "gc"]);
            assert!(
                last || said_gc.starts_with("0 blobs (0 B) went, and 0 unfinished files"),
                "after disk {count} of {}: {said_gc}",
                parts.len()
            );
            far.expect(0, &["store", "fsck"]);
            if !last {
                let next = order[count] + 1;
                assert!(
                    said.contains(&format!("{next:04}")),
                    "part {next} is asked for: {said}"
                );
                let done = format!("{:04}", part + 1);
                let asked = said.split("missing parts of this archive:").nth(1).unwrap();
                assert!(!asked.contains(&done), "part {done} is not: {said}");
                assert!(
                    site.tags().is_empty() || target.is_none(),
                    "nothing is visible yet"
                );
            }
        }
        assert!(
            !far.path("store/imgbuild/spans").exists()
                || files(&far.path("store/imgbuild/spans")).is_empty(),
            "what was kept on the way is gone"
        );
        if target.is_none() {
            let blob = Digest::of(&layers[0]);
            let path = far.path("store/blobs/sha256").join(blob.hex());
            assert!(
                fs::read(path).unwrap() == layers[0],
                "the cut blob is whole"
            );
        }
    }
    assert_eq!(
        site.tags().get("team/one:v1"),
        Some(&one),
        "the image is there"
    );
    assert_eq!(
        site.uploads(),
        5,
        "three layers, a config and the head, once each"
    );

    // A disk that comes before the first is asked for again, and nothing is lost.
    let far = Place::new(&[]);
    let part = |number: usize| text(&near.path("disk").join(&parts[number]));
    far.expect(5, &["import", &part(1)]);
    far.expect(0, &["store", "gc"]);
    far.expect(5, &["import", &part(0)]);
    // What is damaged says who waits for it.
    let lock = files(&far.path("store/blobs/sha256"))
        .into_iter()
        .map(|name| far.path("store/blobs/sha256").join(name))
        .find(|path| String::from_utf8_lossy(&fs::read(path).unwrap()).contains("[[image]]"))
        .expect("the lock is kept");
    let good = fs::read(&lock).unwrap();
    fs::set_permissions(&lock, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    fs::write(&lock, b"damaged").unwrap();
    let said = far.expect(4, &["store", "fsck"]);
    assert!(said.contains("prod seq 1, which is being staged"), "{said}");
    fs::write(&lock, good).unwrap();
    let rest: Vec<String> = (1..parts.len()).map(part).collect();
    let mut arguments = vec!["import"];
    arguments.extend(rest.iter().map(String::as_str));
    far.expect(0, &arguments);
}

#[test]
fn a_registry_that_takes_one_connection_at_a_time_gets_everything() {
    let (upstream, site) = (Registry::start(), Registry::start());
    let near = Place::new(&[&upstream]);
    // More than reading may run ahead.
    let layers: Vec<Vec<u8>> = (1..=12).map(|name| noise(name, 4 << 20)).collect();
    upstream.image("team/one", "v1", &layers);
    near.want(&upstream, &["team/one:v1"]);
    near.expect(0, &["export", "-c", "prod.yaml", "-o", "disk"]);
    let far = Place::new(&[&site]);
    let settings = format!("[registry.\"{}\"]\nconnections = 1\n", site.host());
    fs::write(far.path("imgbuild.toml"), settings).unwrap();
    let to = format!("docker://{}", site.host());
    far.expect(0, &["import", &text(&near.path("disk")), "--to", &to]);
    assert_eq!(site.uploads(), 14, "twelve layers, a config and the head");
}
