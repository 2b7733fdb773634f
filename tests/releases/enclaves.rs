//! Two hops: the internet, an enterprise, and enclaves in it that choose from what the enterprise has vetted.
//!
//! ```text
//! upstream -> media/1 -> enterprise registry -> enclave-a, enclave-b: one export each -> registry of enclave a, b
//! ```

use std::fmt::Write as _;

use super::*;
use crate::site::{Run, UPSTREAM};

/// The enterprise after the first hop: its registry, the site beside it, and what was delivered.
struct Enterprise {
    world: World,
    releases: Vec<Made>,
    app: Digest,
    _registry: Registry,
    site: Disconnected,
}

impl Enterprise {
    /// Brings 4.16.0 to 4.16.2, two images and one of two platforms of a third to the enterprise.
    fn new() -> Self {
        let world = World::new();
        let releases = vec![
            world.release(0, "4.16.0", &[]),
            world.release(1, "4.16.1", &["4.16.0"]),
            world.release(2, "4.16.2", &["4.16.1", "4.16.0"]),
            world.release(3, "4.16.3", &["4.16.2"]),
        ];
        let all: Vec<&Made> = releases.iter().collect();
        let edges = [
            ("4.16.0", "4.16.1"),
            ("4.16.0", "4.16.2"),
            ("4.16.1", "4.16.2"),
            ("4.16.2", "4.16.3"),
        ];
        world.channel("stable-4.16", "amd64", &all, &edges, &[]);
        let app = world.content.image("team/app:v1", &[(1, 3000), (2, 100)]);
        world.content.image("team/tool:v1", &[(1, 3000), (3, 100)]);
        let (amd, arm) = ([(1, 3000), (4, 100)], [(5, 3000), (6, 100)]);
        world.content.index(
            "team/list:v1",
            &[("linux/amd64", &amd[..]), ("linux/arm64", &arm[..])],
        );
        let near = world.site();
        near.config(&format!(
            "{}  additionalImages:\n    - name: {UPSTREAM}/team/app:v1\n    - name: {UPSTREAM}/team/tool:v1\n    - name: {UPSTREAM}/team/list:v1\n      platforms: [{{ os: linux, architecture: amd64 }}]\n",
            channels(&["stable-4.16 4.16.0 4.16.2 full"])
        ));
        world.run(&near, "lock").done();
        world.run(&near, "export -o media/1").done();

        let registry = Content::default().served();
        let host = registry.address();
        let site = Disconnected::with(&host);
        site.receives(&near, "media/1");
        site.write("release.asc", near.read("release.asc"));
        site.imgbuild(&format!("import media/1 --to docker://{host}/ocp"))
            .done();
        // What leads the names of the internet to the first hop.
        site.write("first.lock.toml", near.lock_text());
        site.imgbuild(&format!(
            "emit --lock first.lock.toml --kind next-hop --never-contact-source --registry {host}/ocp --insecure {host} -o node"
        ))
        .done();
        let conf = site.read("registries.conf") + &site.read("node/next-hop-registries.conf");
        site.write("registries.conf", conf);
        Self {
            world,
            releases,
            app,
            _registry: registry,
            site,
        }
    }

    /// Writes the config of an enclave.
    fn enclave(&self, name: &str, mirror: &str) {
        self.site.write(
            format!("{name}.yaml"),
            format!("apiVersion: mirror.openshift.io/v2alpha1\nkind: ImageSetConfiguration\nmirror:\n{mirror}"),
        );
    }

    /// Runs the program where nothing says where the internet is.
    fn run(&self, line: &str) -> Run {
        self.run_with(line, &[])
    }

    fn run_with(&self, line: &str, variables: &[(&str, &str)]) -> Run {
        let mut command = self.site.command(line.split_whitespace());
        command.env("OCP_SIGNATURE_VERIFICATION_PK", "release.asc");
        command.envs(variables.iter().copied());
        let output = command.output().unwrap();
        Run::of(&command, &output)
    }
}

fn images(names: &[&str]) -> String {
    let mut text = "  additionalImages:\n".to_owned();
    for name in names {
        let _ = writeln!(text, "    - name: {UPSTREAM}/{name}");
    }
    text
}

#[test]
fn enclaves_choose_from_what_the_enterprise_has_vetted() {
    let enterprise = Enterprise::new();
    let (site, world) = (&enterprise.site, &enterprise.world);
    let [_, one, two, three] = enterprise.releases.as_slice() else {
        panic!("four releases")
    };
    let (asked, seen) = (
        world.registry.requests().len(),
        world.files.asked.lock().unwrap().len(),
    );
    enterprise.enclave(
        "a",
        &(channels(&["stable-4.16 4.16.1 4.16.1"]) + &images(&["team/app:v1"])),
    );
    enterprise.enclave(
        "b",
        &(channels(&["stable-4.16"]) + &images(&["team/tool:v1", "team/list:v1"])),
    );
    for (enclave, release) in [("a", one), ("b", two)] {
        enterprise
            .run(&format!("lock -c {enclave}.yaml --within media/1"))
            .done();
        let lock = site.read(format!("lockfiles/{enclave}.lock.toml"));
        assert!(
            lock.contains(&format!("version = \"{}\"", release.version))
                && lock.matches("[[release.payload]]").count() == 1
                && lock.contains("from = \"signature-1\""),
            "one release with its signature for {enclave}:\n{lock}"
        );
        enterprise
            .run(&format!("lock -c {enclave}.yaml --check --within media/1"))
            .done();
        enterprise
            .run(&format!("export -c {enclave}.yaml -o out/{enclave}"))
            .done();
        let mirror = Content::default().served();
        let far = Disconnected::with(&mirror.address());
        far.receives(site, &format!("out/{enclave}"));
        far.imgbuild(&format!(
            "import out/{enclave} --to docker://{}/ocp",
            mirror.address()
        ))
        .done();
        holds(&mirror, &[release]);
        let others = [one, two, three]
            .into_iter()
            .filter(|other| other.payload != release.payload);
        for other in others {
            let tag = format!("{}-x86_64", other.version);
            assert_eq!(
                mirror.digest_of("ocp/openshift/release-images", &tag),
                None,
                "{enclave} did not ask for {tag}"
            );
        }
        let (app, list) = (
            mirror.digest_of("ocp/team/app", "v1"),
            mirror.digest_of("ocp/team/list", "v1"),
        );
        if enclave == "a" {
            assert_eq!((app, list), (Some(enterprise.app), None), "the images of a");
        } else {
            assert!(app.is_none() && list.is_some(), "the images of b");
            assert!(
                lock.contains("platforms = [\"linux/amd64\"]"),
                "of an index there is what the enterprise has: {lock}"
            );
        }
    }
    assert_eq!(
        (
            world.registry.requests().len(),
            world.files.asked.lock().unwrap().len()
        ),
        (asked, seen),
        "nothing beyond the enterprise was asked"
    );
    // The update service of the enterprise may know more than was delivered: only that counts.
    let graph = format!("http://{}/graph", world.address);
    enterprise.enclave("c", &channels(&["stable-4.16"]));
    enterprise
        .run_with(
            "lock -c c.yaml --within first.lock.toml",
            &[("UPDATE_URL_OVERRIDE", &graph)],
        )
        .done();
    let lock = site.read("lockfiles/c.lock.toml");
    assert!(
        lock.contains("version = \"4.16.2\"") && !lock.contains("4.16.3"),
        "the newest that was vetted:\n{lock}"
    );
    assert_eq!(
        world.files.asked.lock().unwrap().len(),
        seen + 1,
        "the update service was asked, and no store of signatures"
    );
}

#[test]
fn what_was_not_vetted_is_refused_by_name() {
    let enterprise = Enterprise::new();
    let site = &enterprise.site;
    let absent = format!("{UPSTREAM}/team/app@sha256:{}", "0".repeat(64));
    for (config, wanted) in [
        (
            images(&["team/app:v2"]),
            format!("first.lock.toml pins nothing called {UPSTREAM}/team/app:v2"),
        ),
        (
            format!("  additionalImages:\n    - name: {absent}\n"),
            format!("first.lock.toml pins nothing called {absent}"),
        ),
        (
            format!(
                "  additionalImages:\n    - name: {UPSTREAM}/team/list:v1\n      platforms: [{{ os: linux, architecture: arm64 }}]\n"
            ),
            "for linux/amd64, not for linux/arm64".to_owned(),
        ),
        (
            channels(&["stable-4.16 4.16.3 4.16.3"]),
            "4.16.3".to_owned(),
        ),
        (
            channels(&["stable-4.17"]),
            "first.lock.toml pins nothing called channel stable-4.17".to_owned(),
        ),
    ] {
        enterprise.enclave("x", &config);
        enterprise
            .run("lock -c x.yaml --within first.lock.toml")
            .ends(1)
            .says(&[&wanted]);
        assert!(
            !site.path("lockfiles/x.lock.toml").exists(),
            "nothing is written for {wanted}"
        );
    }
    // What is locked stays while the enterprise has it, and not longer.
    enterprise.enclave("x", &images(&["team/app:v1"]));
    enterprise
        .run("lock -c x.yaml --within first.lock.toml")
        .done();
    let lock = site.read("lockfiles/x.lock.toml");
    let first = site.read("first.lock.toml");
    let newer = first.replace(
        &enterprise.app.to_string(),
        &format!("sha256:{}", "1".repeat(64)),
    );
    site.write("newer.lock.toml", newer);
    enterprise
        .run("lock -c x.yaml --check --within newer.lock.toml")
        .ends(3)
        .says(&["newer.lock.toml does not pin", "team/app@"]);
    enterprise
        .run("lock -c x.yaml --within newer.lock.toml")
        .ends(1)
        .says(&["is blocked by", "add a mirror that holds it"]);
    assert_eq!(
        site.read("lockfiles/x.lock.toml"),
        lock,
        "a lock that cannot be answered stays"
    );
    // A component that the first hop left out cannot be had here either.
    let component = format!(
        "quay.io/{ART}@{}",
        enterprise.releases[1].components["part-07"]
    );
    let start = first.find("  { name = \"part-07\"").unwrap();
    let mut lines: Vec<&str> = first.lines().collect();
    lines.retain(|line| !line.contains(&component));
    assert!(
        start > 0 && lines.len() < first.lines().count(),
        "a line goes"
    );
    site.write(
        "less.lock.toml",
        format!(
            "{}\n\n[[skip]]\nimage = \"{component}\"\nreason = \"withdrawn\"\n",
            lines.join("\n")
        ),
    );
    enterprise.enclave("y", &channels(&["stable-4.16 4.16.1 4.16.1"]));
    enterprise
        .run("lock -c y.yaml --within less.lock.toml")
        .ends(1)
        .says(&[&format!("leaves {component} out: withdrawn"), "--skip"]);
    enterprise
        .run(&format!(
            "lock -c y.yaml --within less.lock.toml --skip {component} --reason withdrawn"
        ))
        .done();
}

#[test]
fn an_enclave_serves_the_update_graph_that_the_enterprise_has_vetted() {
    let world = World::new();
    let releases = [
        world.release(0, "4.16.0", &[]),
        world.release(1, "4.16.1", &["4.16.0"]),
    ];
    let all: Vec<&Made> = releases.iter().collect();
    world.channel("stable-4.16", "amd64", &all, &[("4.16.0", "4.16.1")], &[]);
    world.content.image("ubi9/ubi:latest", &[(90, 500)]);
    world.files.put("/graph-data", story::graph_data());
    let near = world.site();
    near.leads("registry.access.redhat.com", &world.registry.address());
    near.config(&format!(
        "{}    graph: true\n",
        channels(&["stable-4.16 4.16.0 4.16.1"])
    ));
    // Whoever has an update service of their own does not ask the vendor by accident.
    world
        .run(&near, "lock")
        .ends(1)
        .says(&["graph-data is not asked", "UPDATE_URL_OVERRIDE"])
        .hints(&["--within", "under [graph] in imgbuild.toml"]);
    near.write(
        "imgbuild.toml",
        format!("[graph]\ndata = \"http://{}/graph-data\"\n", world.address),
    );
    world.run(&near, "lock").done();
    world.run(&near, "export -o media/1").done();

    // The enterprise: into the store, since the next hop packs from it.
    let site = Disconnected::new();
    site.receives(&near, "media/1");
    site.write("release.asc", near.read("release.asc"));
    site.imgbuild("import media/1").done();
    site.write(
        "imageset.yaml",
        format!(
            "apiVersion: mirror.openshift.io/v2alpha1\nkind: ImageSetConfiguration\nmirror:\n{}    graph: true\n",
            channels(&["stable-4.16 4.16.1 4.16.1"])
        ),
    );
    site.write("imgbuild.toml", near.read("imgbuild.toml"));
    let (asked, seen) = (
        world.registry.requests().len(),
        world.files.asked.lock().unwrap().len(),
    );
    let run = |line: &str| {
        let mut command = site.command(line.split_whitespace());
        command.env("OCP_SIGNATURE_VERIFICATION_PK", "release.asc");
        let output = command.output().unwrap();
        Run::of(&command, &output)
    };
    run("lock --within media/1").done();
    run("export -o media/enclave").done();
    assert_eq!(
        (asked, seen),
        (
            world.registry.requests().len(),
            world.files.asked.lock().unwrap().len()
        ),
        "nobody outside was asked"
    );
    let mirror = Content::default().served();
    let host = mirror.address();
    let enclave = Disconnected::with(&host);
    enclave.receives(&site, "media/enclave");
    enclave
        .imgbuild(&format!(
            "import media/enclave --to docker://{host}/e -o out"
        ))
        .done();
    let graph = mirror
        .digest_of("e/openshift/graph-image", "latest")
        .unwrap();
    assert!(
        enclave
            .read("out/updateService.yaml")
            .contains(&format!("graph-image@{graph}\n")),
        "the enclave's update service has the same graph"
    );
}

#[test]
fn pinned_graph_data_block_edges_for_an_enclave_too() {
    let enterprise = Enterprise::new();
    let site = &enterprise.site;
    let shortest = |name: &str, lock: &str| -> Vec<String> {
        enterprise.enclave(name, &channels(&["stable-4.16 4.16.0 4.16.2 shortestPath"]));
        enterprise
            .run(&format!("lock -c {name}.yaml --within {lock}"))
            .done();
        let text = site.read(format!("lockfiles/{name}.lock.toml"));
        let versions = text
            .lines()
            .filter_map(|line| line.strip_prefix("version = \""));
        versions
            .map(|rest| rest.trim_end_matches('"').to_owned())
            .collect()
    };
    assert_eq!(
        shortest("open", "first.lock.toml"),
        ["4.16.0", "4.16.2"],
        "releases propose the edge"
    );
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(
        Vec::new(),
        flate2::Compression::fast(),
    ));
    for (path, text) in [
        ("./version", "1.1.0\n"),
        (
            "./channels/stable-4.16.yaml",
            "name: stable-4.16\nversions:\n- 4.16.0\n- 4.16.1\n- 4.16.2\n",
        ),
        (
            "./blocked-edges/4.16.2-broken.yaml",
            "to: 4.16.2\nfrom: 4[.]16[.]0[+].*\n",
        ),
    ] {
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, text.as_bytes()).unwrap();
    }
    let data = tar.into_inner().unwrap().finish().unwrap();
    site.write("graph-data.tar.gz", &data);
    site.write(
        "data.lock.toml",
        format!(
            "{}\n[[file]]\nref = \"graph-data.tar.gz\"\nwant = {{ rule = \"graph-data\" }}\nfile = \"{}\"\nsize = {}\n",
            site.read("first.lock.toml"),
            Digest::of(&data),
            data.len()
        ),
    );
    assert_eq!(
        shortest("blocked", "data.lock.toml"),
        ["4.16.0", "4.16.1", "4.16.2"],
        "the edge is blocked, so the path is longer"
    );
}
