//! `imgbuild demo` tells its whole story, on any machine, and leaves what it says.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn demo(arguments: &[&str], folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_imgbuild"));
    command
        .arg("demo")
        .args(arguments)
        .arg("--folder")
        .arg(folder);
    command
}

/// What a command printed; it must have ended well.
fn told(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "the demo ends well: {text}{problem}"
    );
    text
}

/// Has a shell repeat a command of the story.
fn repeat(folder: &Path, line: &str) -> Output {
    Command::new("sh")
        .arg("-c")
        .arg(format!(". ../environment && {line}"))
        .current_dir(folder.join("connected"))
        .output()
        .unwrap()
}

#[test]
fn the_story_is_told_and_what_it_leaves_can_be_used() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("a folder");
    let text = told(&demo(&[], &folder).output().unwrap());
    let lines = [
        "$ imgbuild lock\n    note: imageset.yaml:29:9: chart shop 1.0.0 rendered whole: 3 images, all by pod spec",
        "lockfiles/imageset.lock.toml: 13 pins: 13 new",
        "$ imgbuild diff empty.lock.toml lockfiles/imageset.lock.toml",
        "$ imgbuild export -o ../transfer/1",
        "registry.example.test/shop/web:stable was ",
        "$ imgbuild lock\n    lockfiles/imageset.lock.toml: nothing changed",
        "$ imgbuild lock --update",
        "$ imgbuild diff before.lock.toml lockfiles/imageset.lock.toml\n    image registry.example.test/shop/web:stable ",
        "$ imgbuild export -o ../transfer/2\n    imageset seq 2: applies where seq 1 has been adopted",
        "$ imgbuild verify ../transfer/1 ../transfer/2\n    imageset seq 1: every byte proven",
        "$ imgbuild import ../transfer/1 --to docker://127.0.0.1:",
        "imageset seq 1: adopted",
        "$ imgbuild import ../transfer/2 --to docker://127.0.0.1:",
        "imageset seq 2: adopted; 2 blobs sent",
        "$ imgbuild emit --registry mirror.example.test/mirror",
        "repository: mirror/shop/web",
        "# 6 images pulled from the mirror: 27 blobs",
        "$ imgbuild list releases --channel stable-1.4",
        "$ imgbuild lock -c product.yaml\n    lockfiles/product.lock.toml: ",
        "$ imgbuild lock -c product.yaml --update release",
        "12 components: 11 same as 1.4.0, 1 changed",
        "product seq 1: adopted",
        "product seq 2: adopted",
        "$ imgbuild emit --registry mirror.example.test/mirror -c product.yaml",
        "# 13 images pulled from the mirror",
        "Where to look",
        "imgbuild serve --data ",
    ];
    let mut rest = text.as_str();
    for line in lines {
        let Some(at) = rest.find(line) else {
            panic!("the story says {line:?} in its turn:\n{text}")
        };
        rest = &rest[at + line.len()..];
    }

    for line in [
        "imgbuild lock --check",
        "imgbuild verify ../transfer/1 ../transfer/2 --chain lockfiles/imageset.chain",
        "cd ../disconnected && imgbuild store fsck",
        "imgbuild --store ../mirror store fsck",
    ] {
        let output = repeat(&folder, line);
        assert!(
            output.status.success(),
            "a reader can run {line:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let lock = fs::read_to_string(folder.join("connected/lockfiles/imageset.lock.toml")).unwrap();
    assert!(
        lock.contains("registry.example.test") && !lock.contains("127.0.0.1"),
        "the lock names no port"
    );
    for file in ["idms-oc-mirror.yaml", "itms-oc-mirror.yaml"] {
        let path = folder.join("connected/cluster-resources").join(file);
        let resource = fs::read_to_string(path).unwrap();
        assert!(
            resource.contains("mirror.example.test/mirror/")
                && resource.contains("registry.example.test/")
                && !resource.contains("127.0.0.1"),
            "{file} is for the cluster's name of the mirror: {resource}"
        );
    }
    let map =
        fs::read_to_string(folder.join("connected/product-resources/signature-configmap.yaml"))
            .unwrap();
    assert!(
        map.contains("mirrored-release-signatures") && map.matches("sha256-").count() == 1,
        "the signature of the release is told to the cluster: {map}"
    );
    let sizes = [1, 2].map(|number| {
        let folder = folder.join(format!("transfer/{number}"));
        fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .sum::<u64>()
    });
    assert!(
        sizes[1] * 5 < sizes[0],
        "the second archive carries only what is new: {sizes:?}"
    );

    let again = demo(&[], &folder).output().unwrap();
    assert_eq!(
        again.status.code(),
        Some(1),
        "a folder with something in it is left alone"
    );
    assert!(
        String::from_utf8_lossy(&again.stderr).contains("is not empty"),
        "and the error says why"
    );
}

#[test]
fn two_demos_lock_the_same_bytes_and_a_quiet_one_says_nothing() {
    let place = tempfile::tempdir().unwrap();
    let mut locks = Vec::new();
    for name in ["one", "two"] {
        let folder = place.path().join(name);
        let text = told(&demo(&["--quiet"], &folder).output().unwrap());
        assert_eq!(text, "", "quiet is quiet");
        locks.push(
            ["imageset.lock.toml", "imageset.chain"]
                .map(|file| fs::read(folder.join("connected/lockfiles").join(file)).unwrap()),
        );
    }
    assert_eq!(
        locks[0], locks[1],
        "lock and archives do not depend on folder or port"
    );
}

#[test]
fn nothing_that_a_user_has_configured_changes_the_story() {
    let place = tempfile::tempdir().unwrap();
    let home = place.path().join("home");
    for file in [
        ".docker/config.json",
        ".config/containers/auth.json",
        ".config/containers/registries.conf",
        ".config/containers/certs.d/registry.example.test/ca.crt",
        "imgbuild.toml",
    ] {
        let path = home.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "this = is [not {what} \"was expected").unwrap();
    }
    let broken = home.join("imgbuild.toml");
    let output = demo(&[], &place.path().join("demo"))
        .current_dir(&home)
        .env("HOME", &home)
        .env("XDG_CONFIG_HOME", home.join(".config"))
        .env("REGISTRY_AUTH_FILE", &broken)
        .env("CONTAINERS_REGISTRIES_CONF", &broken)
        .env("IMGBUILD_STORE", &broken)
        .env("HTTP_PROXY", "http://proxy.example.test:1")
        .env("ALL_PROXY", "not a proxy")
        .output()
        .unwrap();
    told(&output);
    let output = demo(&["--settings", "x.toml"], &place.path().join("other"))
        .output()
        .unwrap();
    assert_eq!(
        output.status.code(),
        Some(2),
        "a flag that would be ignored is refused"
    );
}

#[test]
fn no_network_is_needed() {
    let alone = |line: &str| {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--net", "sh", "-c"]);
        command.arg(format!("ip link set lo up && {line}"));
        command
    };
    if !alone("true")
        .output()
        .is_ok_and(|output| output.status.success())
    {
        println!("skipped: no network namespace can be made here");
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let output = alone("exec \"$PROGRAM\" demo --folder \"$FOLDER\"")
        .env("PROGRAM", env!("CARGO_BIN_EXE_imgbuild"))
        .env("FOLDER", place.path().join("demo"))
        .output()
        .unwrap();
    told(&output);
}

#[test]
fn a_served_demo_can_be_repeated_until_it_is_interrupted() {
    use std::io::{BufRead, BufReader, Read};
    use std::process::Stdio;

    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("demo");
    let mut child = demo(&["--serve"], &folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("Both registries run") {
        line.clear();
        assert_ne!(
            output.read_line(&mut line).unwrap(),
            0,
            "the story comes to its end"
        );
    }
    for line in [
        "imgbuild lock --update",
        "imgbuild --store ../again build",
        "cd ../disconnected && imgbuild --store ../again import ../transfer/1 ../transfer/2 --to docker://$(sed -n 's/^location = \"\\(.*\\)\"/\\1/p' ../registries.conf | tail -n 1)/other",
    ] {
        let output = repeat(&folder, line);
        assert!(
            output.status.success(),
            "a reader can run {line:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let interrupted = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(interrupted.success(), "the demo is still there");
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert!(
        child.wait().unwrap().success(),
        "an interrupted demo ends well, since all went well: {rest}"
    );
}
