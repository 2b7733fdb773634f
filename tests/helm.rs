//! Helm charts as their users have them: from a repository behind a password, from a registry, from folders and files;
//! locked, carried over a gap, and installed from the mirror there.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use imgbuild::chart::artifact::artifact;
use imgbuild::chart::{
    Chart, How, LoadLimits, RenderOptions, ValuesLayer, find_images, pack, render,
};
use imgbuild::digest::Digest;
use imgbuild::oci::{Descriptor, OCI_MANIFEST};

use crate::site::content::Content;
use crate::site::registry::Registry;
use crate::site::{Connected, Disconnected, UPSTREAM, wire};

/// Who may read the repository.
const LOGIN: (&str, &str) = ("reader", "s3cret-password");

/// A repository of charts: files by path, for those who know the password where there is one.
#[derive(Clone, Default)]
struct Repository {
    files: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    moved: Arc<Mutex<BTreeMap<String, String>>>,
    password: Arc<Mutex<Option<String>>>,
}

impl Repository {
    fn put(&self, path: &str, bytes: impl Into<Vec<u8>>) {
        let mut files = self.files.lock().unwrap();
        files.insert(path.to_owned(), bytes.into());
    }

    fn asks(&self, login: Option<(&str, &str)>) {
        *self.password.lock().unwrap() = login.map(|(user, password)| {
            format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
        });
    }

    /// Serves until the test ends; answers the address.
    fn serve(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let here = self.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let Some(Ok(first)) = lines.next() else {
                    continue;
                };
                let mut shown = None;
                while let Some(Ok(line)) = lines.next()
                    && !line.is_empty()
                {
                    if let Some((name, value)) = line.split_once(':')
                        && name.eq_ignore_ascii_case("authorization")
                    {
                        shown = Some(value.trim().to_owned());
                    }
                }
                let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
                let moved = here.moved.lock().unwrap().get(&path).cloned();
                let body = here.files.lock().unwrap().get(&path).cloned();
                let needed = here.password.lock().unwrap().clone();
                let (head, body) = if needed.is_some() && shown != needed {
                    (
                        "401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"charts\"".to_owned(),
                        Vec::new(),
                    )
                } else if let Some(to) = moved {
                    (
                        format!("301 Moved Permanently\r\nLocation: {to}"),
                        Vec::new(),
                    )
                } else if let Some(body) = body {
                    ("200 OK".to_owned(), body)
                } else {
                    ("404 Not Found".to_owned(), Vec::new())
                };
                let head = format!(
                    "HTTP/1.1 {head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all(head.as_bytes());
                let _ = stream.write_all(&body);
            }
        });
        address
    }
}

/// Files of a chart.
type Files<'a> = &'a [(&'a str, &'a str)];

/// A chart as a file.
fn packed(files: Files<'_>) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    pack(folder.path(), LoadLimits::default()).unwrap().1
}

/// A chart of a web server with a database inside, whose images are named in parts and whole.
fn web(version: &str, image: &str) -> Vec<u8> {
    let metadata = format!(
        "apiVersion: v2\nname: web\nversion: {version}\nappVersion: 9.9.9\ndescription: A web server.\ndependencies:\n- {{name: db, version: 5.x, condition: db.enabled}}\n"
    );
    let values = format!(
        "image: {{registry: {UPSTREAM}, repository: team/web, tag: {image:?}}}\nsidecarImage: {UPSTREAM}/team/tool:3\ndb: {{enabled: true}}\n"
    );
    packed(&[
        ("Chart.yaml", &metadata),
        ("values.yaml", &values),
        (
            "templates/web.yaml",
            "{{- with .Values.image }}\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  template:\n    spec:\n      containers:\n      - image: {{ printf \"%s/%s:%s\" .registry .repository .tag | quote }}\n      - image: {{ $.Values.sidecarImage }}\n{{- end }}\n",
        ),
        ("templates/NOTES.txt", "Thanks.\n"),
        ("charts/db/Chart.yaml", "name: db\nversion: 5.0.1\n"),
        (
            "charts/db/values.yaml",
            &format!("image: {{repository: {UPSTREAM}/team/db, tag: '5'}}\n"),
        ),
        (
            "charts/db/templates/db.yaml",
            "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: db}\nspec: {jobTemplate: {spec: {template: {spec: {containers: [{image: '{{ .Values.image.repository }}:{{ .Values.image.tag }}'}]}}}}}\n",
        ),
    ])
}

/// A chart in a folder that needs values, and has an image where only a path finds it.
fn pod() -> Vec<(&'static str, String)> {
    vec![
        (
            "Chart.yaml",
            "apiVersion: v2\nname: pod\nversion: 2.0.0+local\n".to_owned(),
        ),
        (".helmignore", "*.bak\n".to_owned()),
        ("values.yaml", "tag: ''\n".to_owned()),
        ("notes.bak", "not a part of it\n".to_owned()),
        (
            "templates/pod.yaml",
            format!(
                "apiVersion: v1\nkind: Pod\nspec: {{containers: [{{image: '{UPSTREAM}/team/pod:{{{{ required \"a tag is needed\" .Values.tag }}}}'}}]}}\n---\napiVersion: v1\nkind: ConfigMap\ndata: {{tool: '{UPSTREAM}/team/tool:3'}}\n"
            ),
        ),
        (
            "templates/new.yaml",
            format!(
                "{{{{ if .Capabilities.APIVersions.Has \"route.openshift.io/v1\" }}}}\nkind: Pod\nspec: {{containers: [{{image: '{UPSTREAM}/team/route:1'}}]}}\n{{{{ end }}}}\n"
            ),
        ),
    ]
}

/// Everything upstream.
struct World {
    content: Content,
    registry: Registry,
    repository: Repository,
    address: String,
}

impl World {
    fn new() -> Self {
        let content = Content::default();
        for (number, name) in [
            "team/web:1.0",
            "team/web:1.1",
            "team/db:5",
            "team/pod:2",
            "team/tool:3",
            "team/route:1",
        ]
        .into_iter()
        .enumerate()
        {
            content.image(name, &[(number as u64, 900), (77, 3000)]);
        }
        content.index(
            "team/box:4",
            &[("linux/amd64", &[(40, 500)]), ("linux/arm64", &[(41, 500)])],
        );
        let repository = Repository::default();
        let world = Self {
            registry: content.served(),
            address: repository.serve(),
            content,
            repository,
        };
        let mut index = "apiVersion: v1\nentries:\n  web:\n".to_owned();
        for (version, image) in [("1.0.0", "1.0"), ("1.1.0", "1.1"), ("2.0.0-rc1", "2.0")] {
            let bytes = web(version, image);
            writeln!(
                index,
                "  - {{name: web, version: {version}, appVersion: 9.9.9, urls: [files/web-{version}.tgz], digest: {}}}",
                Digest::of(&bytes).hex()
            )
            .unwrap();
            world
                .repository
                .put(&format!("/charts/files/web-{version}.tgz"), bytes);
        }
        index.push_str("  gone:\n  - {name: gone, version: 1.0.0, urls: [files/gone-1.0.0.tgz]}\n");
        world.repository.put("/charts/index.yaml", index);
        for version in ["4.0.0", "4.1.0+build.7", "5.0.0-beta.1"] {
            world.publish("box", version);
        }
        world
    }

    /// Publishes a chart in the registry, as Helm does.
    fn publish(&self, name: &str, version: &str) -> Digest {
        let bytes = packed(&[
            (
                "Chart.yaml",
                &format!("apiVersion: v2\nname: {name}\nversion: {version}\n"),
            ),
            ("values.yaml", &format!("image: {UPSTREAM}/team/{name}:4\n")),
            (
                "templates/box.yaml",
                "kind: DaemonSet\nspec: {template: {spec: {containers: [{image: '{{ .Values.image }}'}]}}}\n",
            ),
        ]);
        let chart = Chart::from_archive(bytes.as_slice(), LoadLimits::default()).unwrap();
        let memory = &self.content.memory;
        let file = memory.insert(&bytes);
        let made = artifact(&chart, file.digest, file.size);
        memory.insert(&made.config);
        let manifest = memory.insert(&made.manifest);
        let descriptor = Descriptor {
            media_type: OCI_MANIFEST.to_owned(),
            digest: manifest.digest,
            size: manifest.size,
            platform: None,
            artifact_type: None,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
        };
        let tag = version.replace('+', "_").parse().unwrap();
        self.content
            .repositories
            .link_image(
                &**memory,
                &format!("charts/{name}"),
                &descriptor,
                Some(&tag),
            )
            .unwrap();
        manifest.digest
    }

    /// A site that is told of charts of every kind.
    fn site(&self) -> Connected {
        let near = Connected::to(&self.registry);
        for (path, text) in pod() {
            near.write(format!("pod/{path}"), text);
        }
        near.write(
            "tool-3.0.0.tgz",
            packed(&[
                ("Chart.yaml", "apiVersion: v2\nname: tool\nversion: 3.0.0\n"),
                (
                    "templates/tool.yaml",
                    &format!("kind: Job\nspec: {{template: {{spec: {{containers: [{{image: '{UPSTREAM}/team/tool:3'}}]}}}}}}\n"),
                ),
            ]),
        );
        near.write("pod-values.yaml", "tag: wrong\n");
        near.write(
            "imgbuild.toml",
            "[chart.\"pod\"]\nvalues-files = [\"pod-values.yaml\"]\nvalues = { tag = \"2\" }\napi-versions = [\"route.openshift.io/v1\"]\nstrict = true\n",
        );
        near.config(&self.charts("^1.0"));
        near
    }

    fn charts(&self, version: &str) -> String {
        format!(
            "  helm:\n    repositories:\n    - name: web\n      url: http://{}/charts/\n      charts:\n      - {{name: web, version: \"{version}\"}}\n    - name: box\n      url: oci://{UPSTREAM}/charts\n      charts:\n      - {{name: box, platforms: [{{os: linux, architecture: amd64}}]}}\n    local:\n    - {{name: pod, path: pod, imagePaths: [\"{{.data.tool}}\"]}}\n    - {{name: tool, path: tool-3.0.0.tgz}}\n",
            self.address
        )
    }
}

/// A site with a config of one chart of the repository.
fn one(world: &World, rows: &str) -> Connected {
    let near = Connected::to(&world.registry);
    near.config(&format!(
        "  helm:\n    repositories:\n    - name: web\n      url: http://{}/charts\n      charts:\n{rows}",
        world.address
    ));
    near
}

#[test]
fn charts_of_every_kind_are_locked_carried_and_installed_from_the_mirror() {
    let world = World::new();
    world.repository.asks(Some(LOGIN));
    let near = world.site();
    near.logs_in(&world.address, LOGIN.0, LOGIN.1);
    near.imgbuild("lock").done().says(&[
        "chart web 1.1.0 rendered whole: 3 images, all by pod spec",
        "chart box 4.1.0+build.7 rendered whole: 1 image, by pod spec",
        "chart pod 2.0.0+local rendered whole: 3 images, 2 by pod spec, 1 by image path",
        "chart tool 3.0.0 rendered whole: 1 image, by pod spec",
    ]);
    let lock = near.lock_text();
    for part in [
        &format!("ref = \"http://{}/charts#web\"\n", world.address)[..],
        "name = \"web\"\nversion = \"1.1.0\"\nwant = { version = \"^1.0\" }\n",
        &format!(
            "url = \"http://{}/charts/files/web-1.1.0.tgz\"\n",
            world.address
        ),
        &format!("ref = \"oci://{UPSTREAM}/charts/box\"\n"),
        "tag = \"4.1.0_build.7\"\n",
        "ref = \"imgbuild.toml#chart.pod\"\n",
        "ref = \"pod-values.yaml\"\n",
    ] {
        assert!(lock.contains(part), "the lock must have {part:?}\n{lock}");
    }
    near.imgbuild("lock").done().says(&["nothing changed"]);
    near.imgbuild("lock --check --deep")
        .done()
        .says(&["every list follows from what is pinned (0 releases, 4 charts)"]);
    near.imgbuild(&format!("why {UPSTREAM}/team/db:5"))
        .done()
        .says(&[
            "image of the chart",
            "#web",
            "found by pod spec: web/charts/db/templates/db.yaml CronJob/db",
        ]);

    // The order of answers counts for nothing.
    let lone = world.site();
    lone.logs_in(&world.address, LOGIN.0, LOGIN.1);
    lone.imgbuild("--jobs 1 lock").done();
    assert_eq!(
        lone.lock_text(),
        lock,
        "one worker and many write the same lock"
    );

    near.export("media", "");
    let mirror = Content::default().served();
    let far = Disconnected::with(&mirror.address());
    far.receives(&near, "media");
    let to = format!("docker://{}/ocp", mirror.address());
    far.imgbuild(&format!("import media --to {to} -o resources"))
        .done()
        .says(&["adopted"]);
    arrived(&near, &far, &mirror);
    far.imgbuild(&format!("import media --to {to} -o resources"))
        .done()
        .says(&["was adopted before"])
        .hides("wrote");

    // What the connected side emits is what the far side wrote.
    near.imgbuild("build").done();
    near.imgbuild(&format!(
        "emit --registry {}/ocp -o resources",
        mirror.address()
    ))
    .done();
    assert_eq!(
        near.tree("resources"),
        far.tree("resources"),
        "both sides write the same bytes"
    );
    // And a mirror that is filled without an archive has the same.
    let other = Content::default().served();
    near.leads(&other.address(), &other.address());
    near.imgbuild(&format!(
        "mirror docker://{}/ocp -o mirrored",
        other.address()
    ))
    .done();
    assert_eq!(
        wire::manifest(&other.address(), "ocp/charts/web", "1.1.0"),
        wire::manifest(&mirror.address(), "ocp/charts/web", "1.1.0"),
        "the chart is the same image"
    );
    near.imgbuild("audit").done();
    near.has_a_sound_store();
}

/// What must be at the mirror, and how the charts are installed from it.
fn arrived(near: &Connected, far: &Disconnected, mirror: &Registry) {
    let address = mirror.address();
    for (repository, tag) in [
        ("ocp/charts/web", "1.1.0"),
        ("ocp/charts/box", "4.1.0_build.7"),
        ("ocp/charts/pod", "2.0.0_local"),
        ("ocp/charts/tool", "3.0.0"),
        ("ocp/team/web", "1.1"),
        ("ocp/team/db", "5"),
        ("ocp/team/pod", "2"),
        ("ocp/team/route", "1"),
        ("ocp/team/tool", "3"),
        ("ocp/team/box", "4"),
    ] {
        assert!(
            wire::manifest(&address, repository, tag).is_some(),
            "{repository}:{tag} must be at the mirror"
        );
        if let Some(run) = far.other(&format!(
            "skopeo inspect --raw --tls-verify=false docker://{address}/{repository}:{tag}"
        )) {
            run.done();
        }
    }
    let chart = wire::manifest(&address, "ocp/charts/web", "1.1.0").unwrap();
    let chart: serde_json::Value = serde_json::from_slice(&chart).unwrap();
    assert_eq!(
        chart["config"]["mediaType"], "application/vnd.cncf.helm.config.v1+json",
        "it is a chart as Helm pushes it"
    );
    let file = fs::read(far.path("resources/helm/charts/web-1.1.0.tgz")).unwrap();
    assert_eq!(
        chart["layers"][0]["digest"],
        Digest::of(&file).to_string(),
        "the image and the file are one chart"
    );
    assert_eq!(
        far.names("resources/helm/charts"),
        [
            "box-4.1.0+build.7.tgz",
            "pod-2.0.0+local.tgz",
            "tool-3.0.0.tgz",
            "web-1.1.0.tgz"
        ],
        "every chart is a file, too"
    );
    assert_eq!(
        file,
        web("1.1.0", "1.1"),
        "a chart's file is what it was upstream"
    );
    // Installed with the values beside it, a chart pulls from the mirror alone.
    let mut options = RenderOptions::default();
    options.values.push(ValuesLayer {
        name: "mirror".to_owned(),
        text: fs::read(far.path("resources/helm/values/web-1.1.0.yaml")).unwrap(),
    });
    let chart = Chart::from_archive(file.as_slice(), LoadLimits::default()).unwrap();
    let rendered = render(&chart, &options).unwrap();
    let images: Vec<String> = find_images(&rendered, &[])
        .unwrap()
        .images
        .into_iter()
        .filter(|image| image.by != How::Values)
        .map(|image| image.reference)
        .collect();
    assert_eq!(
        images,
        ["team/db:5", "team/tool:3", "team/web:1.1"].map(|image| format!("{address}/ocp/{image}")),
        "every image comes from the mirror"
    );
    let values = far.read("resources/helm/values/tool-3.0.0.yaml");
    assert!(
        values.contains(&format!("#   {UPSTREAM}/team/tool:3\n")),
        "what no value reaches is told:\n{values}"
    );
    let tags = far.read("resources/itms-oc-mirror.yaml");
    assert!(
        tags.contains(&format!("source: {UPSTREAM}/team\n")) && !tags.contains("charts"),
        "nodes are told of the images, and not of the charts:\n{tags}"
    );
    assert!(!near.lock_text().contains(LOGIN.1), "no password is kept");
}

#[test]
fn a_lock_of_charts_moves_only_where_it_is_asked_to() {
    let world = World::new();
    let near = one(&world, "      - {name: web, version: ~1.0}\n");
    near.imgbuild("lock").done().says(&["chart web 1.0.0"]);
    let before = near.lock_text();
    // Upstream moves: a tag, and the index loses the version that is pinned.
    world.content.image("team/db:5", &[(500, 700)]);
    let newer = web("1.0.9", "1.1");
    world.repository.put("/charts/files/web-1.0.9.tgz", newer);
    world.repository.put(
        "/charts/index.yaml",
        "apiVersion: v1\nentries: {web: [{version: 1.0.9, urls: [files/web-1.0.9.tgz]}]}\n",
    );
    near.imgbuild("lock").done().says(&["nothing changed"]);
    near.imgbuild("lock --check --upstream")
        .ends(3)
        .says(&["1.0.0 -> 1.0.9"]);
    // What is blocked leaves the list, and nothing else moves; nobody is asked for it.
    near.config(&format!(
        "  helm:\n    repositories:\n    - name: web\n      url: http://{}/charts\n      charts:\n      - {{name: web, version: ~1.0}}\n  blockedImages:\n  - name: team/tool\n",
        world.address
    ));
    near.imgbuild("lock --offline")
        .done()
        .says(&["team/tool:3 is blocked by"]);
    let blocked = near.lock_text();
    let pins = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| line.contains("image = \""));
        lines.map(str::to_owned).collect()
    };
    let (before_pins, mut after_pins) = (pins(&before), pins(&blocked));
    assert_eq!(
        after_pins.len() + 1,
        before_pins.len(),
        "one image has left"
    );
    after_pins.retain(|pin| !before_pins.contains(pin));
    assert_eq!(
        after_pins,
        Vec::<String>::new(),
        "the others are as they were"
    );
    near.imgbuild("lock --check --deep").done();

    let update = format!("lock --update chart:http://{}/charts#web", world.address);
    near.imgbuild(&update)
        .done()
        .says(&["1.0.0 -> 1.0.9", "images +2 -2"]);
    // A list that somebody edited is found out by the bytes.
    let text = near.lock_text();
    let edited: Vec<&str> = text
        .lines()
        .filter(|line| !line.contains("/team/db@"))
        .collect();
    near.write("lockfiles/imageset.lock.toml", edited.join("\n") + "\n");
    near.imgbuild("lock --check").done();
    near.imgbuild("lock --check --deep")
        .ends(3)
        .says(&[&format!(
            "needs {UPSTREAM}/team/db:5, which it does not pin"
        )])
        .hints(&["lock --update"]);
}

#[test]
fn a_list_that_may_not_be_complete_says_so() {
    let world = World::new();
    let near = Connected::to(&world.registry);
    for (path, text) in pod() {
        near.write(format!("pod/{path}"), text);
    }
    near.config("  helm:\n    local:\n    - {name: pod, path: ./pod}\n");
    near.imgbuild("lock").done().says(&[
        "chart pod 2.0.0+local rendered in part, 1 of",
        "pod/templates/pod.yaml, line 3: a tag is needed",
    ]);
    near.write("imgbuild.toml", "[chart.\"*\"]\nstrict = true\n");
    near.imgbuild("lock")
        .ends(1)
        .says(&["a tag is needed", "`strict`"])
        .hints(&["[chart.\"./pod\"] in imgbuild.toml"]);
    near.imgbuild("lock --check")
        .ends(3)
        .says(&["strict changed"]);
    near.write(
        "imgbuild.toml",
        "[chart.\"*\"]\nstrict = true\n[chart.\"./pod\"]\nvalues = { tag = 2 }\n[chart.\"pood\"]\nstrict = false\n",
    );
    near.imgbuild("lock").done().says(&[
        "rendered whole",
        "[chart.\"pood\"] of the settings is about no chart of this config, which has ./pod",
    ]);
    // A folder is part of what is asked for: what changes in it, the lock does not answer any more.
    near.write("pod/templates/more.yaml", "kind: Service\n");
    near.imgbuild("build").ends(3).says(&["sha256 changed"]);
    // But what does not belong to the chart is not.
    fs::remove_file(near.path("pod/templates/more.yaml")).unwrap();
    near.write("pod/other.bak", "x");
    near.imgbuild("build").done();
    // Another machine packs the same bytes, and needs nothing else.
    let other = Connected::to(&world.registry);
    for file in [
        "imageset.yaml",
        "imgbuild.toml",
        "lockfiles/imageset.lock.toml",
    ] {
        other.write(file, near.read(file));
    }
    for (path, text) in pod() {
        other.write(format!("pod/{path}"), text);
    }
    other.imgbuild("export -o media").done();
}

#[test]
fn what_is_wrong_with_a_chart_is_said_in_one_go_and_with_advice() {
    let world = World::new();
    let row = |text: &str| one(&world, &format!("      - {text}\n"));
    for (config, says, hint) in [
        ("{name: weeb}", "no chart \"weeb\"", None),
        ("{name: we}", "no chart \"we\"", Some("similar names: web")),
        (
            "{name: web, version: 3.x}",
            "no version \"3.x\" of chart \"web\"",
            Some("the highest version is 2.0.0-rc1"),
        ),
        (
            "{name: web, version: newest}",
            "improper constraint: \"newest\"",
            None,
        ),
        (
            "{name: gone}",
            "gone-1.0.0.tgz is not there, though the index",
            Some("another version"),
        ),
        (
            "{name: web, version: 2.0.0-rc1}",
            "team/web:2.0 is not there",
            Some("--skip IMAGE"),
        ),
        (
            "{name: web, imagePaths: [\"{.spec[\"]}",
            "image path \"{.spec[\"",
            Some("as kubectl does"),
        ),
    ] {
        let run = row(config)
            .imgbuild("lock")
            .ends(1)
            .says(&[says, "imageset.yaml:"]);
        if let Some(hint) = hint {
            run.hints(&[hint]);
        }
    }
    // Every image that is missing is said at once.
    let near = row("{name: web}");
    for image in [("team/db", "5"), ("team/tool", "3")] {
        assert!(
            world
                .content
                .repositories
                .unlink_tag(image.0, image.1)
                .unwrap(),
            "it was there"
        );
    }
    near.imgbuild("lock").ends(1).says(&[
        "2 requests could not be answered",
        "team/db:5",
        "team/tool:3",
    ]);

    let broken = [
        ("this: [is no", "cannot read the index"),
        ("apiVersion: v1\nentries: {}\n", "no chart \"web\""),
        ("<html>Sign in</html>", "the index of the chart repository"),
    ];
    for (index, says) in broken {
        world.repository.put("/charts/index.yaml", index);
        row("{name: web}").imgbuild("lock").ends(1).says(&[says]);
    }
    world.repository.asks(Some(LOGIN));
    let near = row("{name: web}");
    near.imgbuild("lock").ends(1).says(&["denies access"]);
    near.logs_in(&world.address, LOGIN.0, "wrong-password");
    near.imgbuild("lock")
        .ends(1)
        .says(&["denies access"])
        .hides("wrong-password");
    let near = Connected::to(&world.registry);
    near.config(&format!(
        "  helm:\n    repositories:\n    - name: web\n      url: http://{}/nothing\n      charts: [{{name: web}}]\n",
        world.address
    ));
    world.repository.asks(None);
    near.imgbuild("lock")
        .ends(1)
        .says(&["there is no index at"])
        .hints(&["index.yaml"]);
}

#[test]
fn a_repository_may_have_moved_and_a_registry_may_hold_something_else() {
    let world = World::new();
    {
        // The index has moved; what it says of its files is relative to where it was asked for.
        let mut moved = world.repository.moved.lock().unwrap();
        for path in ["index.yaml", "files/web-1.1.0.tgz"] {
            moved.insert(format!("/old/{path}"), format!("/charts/{path}"));
        }
    }
    let near = Connected::to(&world.registry);
    let config = |url: &str, rows: &str| {
        near.config(&format!(
            "  helm:\n    repositories:\n    - name: a\n      url: {url}\n      charts: [{rows}]\n"
        ));
    };
    config(
        &format!("http://{}/old", world.address),
        "{name: web, version: 1.1.0}",
    );
    near.imgbuild("lock")
        .done()
        .says(&["chart web 1.1.0 rendered whole"]);
    assert!(
        near.lock_text().contains(&format!(
            "url = \"http://{}/old/files/web-1.1.0.tgz\"\n",
            world.address
        )),
        "the address is the one that was asked"
    );
    // What the index promises is held against what is served.
    world
        .repository
        .put("/charts/files/web-1.0.0.tgz", web("1.0.0", "1.1"));
    config(
        &format!("http://{}/charts", world.address),
        "{name: web, version: 1.0.0}",
    );
    near.imgbuild("lock")
        .ends(4)
        .says(&["but the index of", "says sha256:"]);

    let registry = format!("oci://{UPSTREAM}/charts");
    for (rows, says, hint) in [
        (
            "{name: box, version: 9.9.9}",
            "charts/box:9.9.9 is not there",
            Some("imgbuild list charts oci://"),
        ),
        (
            "{name: box, version: '>9'}",
            "has no version >9",
            Some("the highest version is 5.0.0-beta.1"),
        ),
        ("{name: none}", "charts/none is not there", None),
        (
            "{name: box, version: '4.1.0+build.7', imagePaths: ['{.a']}",
            "image path",
            None,
        ),
    ] {
        config(&registry, rows);
        let run = near.imgbuild("lock").ends(1).says(&[says]);
        if let Some(hint) = hint {
            run.hints(&[hint]);
        }
    }
    config(
        &format!("oci://{UPSTREAM}/team"),
        "{name: web, version: '1.0'}",
    );
    near.imgbuild("lock")
        .ends(1)
        .says(&["is no Helm chart: its config is application/vnd.oci.image.config.v1+json"])
        .hints(&["additionalImages"]);
    near.config(&format!(
        "  helm:\n    repositories: [{{name: a, url: 'http://{}/charts'}}]\n",
        world.address
    ));
    near.imgbuild("lock")
        .ends(1)
        .says(&["every chart of a repository"])
        .hints(&["imgbuild list charts URL"]);

    // An old decision can be made again, though the tags have moved on.
    config(&registry, "{name: box}");
    near.imgbuild("lock").done();
    let before = near.lock_text();
    world.publish("box", "6.0.0");
    near.imgbuild("lock --replay store/imgbuild/evidence.jsonl")
        .done();
    assert_eq!(
        near.lock_text(),
        before,
        "the evidence has the tags of then"
    );
    near.imgbuild("lock --update").done().says(&["-> 6.0.0"]);
}

#[test]
fn charts_on_disk_that_are_none_are_refused_without_harm() {
    let world = World::new();
    let near = Connected::to(&world.registry);
    let config = |path: &str| {
        near.config(&format!(
            "  helm:\n    local:\n    - {{name: a, path: {path}}}\n"
        ));
    };
    let metadata = "apiVersion: v2\nname: bad\nversion: 1.0.0\n";
    let bomb = "{{- define \"x\" }}{{ range until 9999 }}{{ range until 9999 }}{{ range until 9999 }}aaaa{{ end }}{{ end }}{{ end }}{{ end }}{{ include \"x\" . }}";
    near.write("bomb/Chart.yaml", metadata);
    near.write("bomb/templates/a.yaml", bomb);
    near.write("endless/Chart.yaml", metadata);
    near.write(
        "endless/templates/a.yaml",
        "{{ define \"x\" }}{{ include \"x\" . }}{{ end }}{{ include \"x\" . }}",
    );
    near.write("empty/README.md", "no chart\n");
    near.write("broken.tgz", "not an archive");
    near.write("nameless/Chart.yaml", "apiVersion: v2\nversion: 1.0.0\n");
    let mut outside = tar::Builder::new(flate2::write::GzEncoder::new(
        Vec::new(),
        flate2::Compression::fast(),
    ));
    for (path, text) in [("bad/Chart.yaml", metadata), ("bad/../../../escape", "x")] {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        outside.append(&header, text.as_bytes()).unwrap();
    }
    near.write(
        "outside.tgz",
        outside.into_inner().unwrap().finish().unwrap(),
    );
    for (path, says) in [
        ("absent", "cannot read absent"),
        ("empty", "has no Chart.yaml"),
        ("broken.tgz", "it is no chart that can be read"),
        ("nameless", "name is missing"),
        ("outside.tgz", "it is no chart that can be read"),
    ] {
        config(path);
        near.imgbuild("lock").ends(1).says(&[says, path]);
    }
    // One that never ends, or never ends writing, is cut short; that is part of what the lock says.
    for path in ["bomb", "endless"] {
        config(path);
        near.imgbuild("lock")
            .done()
            .says(&["rendered in part, 1 of 1 failed: no images"]);
    }
    near.write("tiny/Chart.yaml", metadata);
    config("tiny");
    near.write(
        "imgbuild.toml",
        "[chart.tiny]\nvalues-files = [\"none.yaml\"]\n",
    );
    near.imgbuild("lock")
        .ends(1)
        .says(&["the values-files of [chart.\"tiny\"]", "none.yaml"]);
    near.write("none.yaml", "- a\n- list\n");
    near.imgbuild("lock")
        .ends(1)
        .says(&["the values of none.yaml are no mapping"]);
    near.write(
        "imgbuild.toml",
        "[chart.tiny]\nkubernetes-version = \"one\"\n",
    );
    near.imgbuild("lock")
        .ends(1)
        .says(&["Kubernetes version \"one\""])
        .hints(&["1.30"]);
}

#[test]
fn charts_are_listed_before_they_are_chosen() {
    let world = World::new();
    let near = Connected::to(&world.registry);
    let url = format!("http://{}/charts", world.address);
    let run = near.imgbuild(&format!("list charts {url}")).done();
    assert_eq!(
        run.stdout, "CHART  VERSION  APP\ngone   1.0.0\nweb    1.1.0    9.9.9\n",
        "each chart by its newest version"
    );
    let run = near
        .imgbuild(&format!("list charts {url} web --format json"))
        .done();
    let versions: Vec<String> = run.json()["charts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|chart| chart["version"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        versions,
        ["2.0.0-rc1", "1.1.0", "1.0.0"],
        "every version, highest first"
    );
    let run = near
        .imgbuild(&format!("list charts oci://{UPSTREAM}/charts/box"))
        .done();
    assert_eq!(
        run.stdout,
        "CHART  VERSION        APP\nbox    5.0.0-beta.1\nbox    4.1.0+build.7\nbox    4.0.0\n",
        "and those of a registry by its tags"
    );
    near.imgbuild(&format!("list charts {url} weeb"))
        .ends(1)
        .says(&["no chart \"weeb\""]);
    near.imgbuild("list charts oci://registry.example.test/none")
        .ends(1)
        .says(&["is not there"]);
    near.imgbuild("list charts charts")
        .ends(2)
        .says(&["is no URL"]);
}

#[test]
fn helm_itself_may_be_asked_for_a_second_opinion() {
    let world = World::new();
    let near = one(&world, "      - {name: web, version: 1.1.0}\n");
    near.lock();
    near.imgbuild("build").done();
    let audit = |path: &str| {
        let mut command = near.command(["audit", "--helm"]);
        command.env("PATH", path);
        let output = command.output().unwrap();
        crate::site::Run::of(&command, &output)
    };
    let empty = near.path("none").display().to_string();
    audit(&empty)
        .ends(1)
        .says(&["there is no helm on PATH"])
        .hints(&["leave --helm out"]);

    // What Helm prints, as far as this program knows: it is taken for one that agrees, then for one that does not.
    let chart = web("1.1.0", "1.1");
    let chart = Chart::from_archive(chart.as_slice(), LoadLimits::default()).unwrap();
    let rendered = render(&chart, &RenderOptions::default()).unwrap();
    let mut text = String::new();
    for document in &rendered.documents {
        writeln!(
            text,
            "---\n# Source: {}\n{}",
            document.template, document.text
        )
        .unwrap();
    }
    let install = |script: &str| {
        near.write("bin/helm", format!("#!/bin/sh\n{script}\n"));
        fs::set_permissions(near.path("bin/helm"), fs::Permissions::from_mode(0o755)).unwrap();
    };
    let path = format!(
        "{}:{}",
        near.path("bin").display(),
        std::env::var("PATH").unwrap_or_default()
    );
    near.write("printed.yaml", &text);
    install(&format!(
        "echo \"$@\" > {0}/asked; cat {0}/printed.yaml",
        near.path("").display()
    ));
    audit(&path)
        .done()
        .says(&["2/2 documents of helm equal, 2 here; the same images"]);
    assert!(
        near.read("asked").starts_with("template release-name ")
            && near.read("asked").contains("--include-crds --kube-version"),
        "helm is asked as this program renders: {}",
        near.read("asked")
    );
    near.write("printed.yaml", text.replace("team/db", "team/other"));
    audit(&path).ends(4).says(&[
        "1/2 documents",
        "only helm: registry.example.test/team/other:5",
        "only imgbuild: registry.example.test/team/db:5",
    ]);
    install("echo 'Error: it is no chart' >&2; exit 1");
    audit(&path)
        .done()
        .says(&["helm cannot render it: Error: it is no chart"]);
}

#[test]
fn a_chart_that_is_deleted_takes_what_nothing_else_needs_with_it() {
    let world = World::new();
    let near = world.site();
    near.lock();
    let mirror = Content::default().served();
    near.leads(&mirror.address(), &mirror.address());
    let to = format!("docker://{}/ocp", mirror.address());
    near.imgbuild(&format!("mirror {to}")).done();
    near.write(
        "delete.yaml",
        format!(
            "apiVersion: mirror.openshift.io/v2alpha1\nkind: DeleteImageSetConfiguration\ndelete:\n  helm:\n    repositories:\n    - {{name: web, url: 'http://{}/charts', charts: [{{name: web, version: ^1.0}}]}}\n    local:\n    - {{path: pod}}\n",
            world.address
        ),
    );
    near.imgbuild(&format!(
        "delete --plan plan.yaml -c delete.yaml --lock lockfiles/imageset.lock.toml {to}"
    ))
    .done();
    let plan = near.read("plan.yaml");
    for (name, is_there) in [
        ("ocp/charts/web:1.1.0", true),
        ("ocp/charts/pod:2.0.0_local", true),
        ("ocp/team/web:1.1", true),
        ("ocp/team/db:5", true),
        ("ocp/team/pod:2", true),
        // Another chart needs it still.
        ("ocp/team/tool:3", false),
        ("ocp/charts/tool:3.0.0", false),
        ("ocp/team/box:4", false),
    ] {
        let line = format!("imageReference: docker://{}/{name}\n", mirror.address());
        assert_eq!(plan.contains(&line), is_there, "{name} in\n{plan}");
    }
}

#[test]
fn an_enclave_chooses_among_the_charts_that_were_vetted() {
    let world = World::new();
    let first = world.site();
    first.lock();
    let next = Connected::to(&world.registry);
    for (path, text) in pod() {
        next.write(format!("pod/{path}"), text);
    }
    next.write("imgbuild.toml", "[chart.pod]\nvalues = { tag = \"2\" }\n");
    let vetted = first.path("lockfiles/imageset.lock.toml");
    let within = format!("lock --within {}", vetted.display());
    let config = |version: &str| {
        next.config(&format!(
            "  helm:\n    repositories:\n    - name: web\n      url: http://{}/charts\n      charts: [{{name: web, version: \"{version}\"}}]\n    - name: box\n      url: oci://{UPSTREAM}/charts\n      charts: [{{name: box}}]\n    local: [{{path: pod}}]\n",
            world.address
        ));
    };
    // Upstream has moved on, which is nothing to an enclave.
    world.publish("box", "6.0.0");
    world.content.image("team/db:5", &[(500, 700)]);
    config(">=1");
    next.imgbuild(&within).done();
    let lock = next.lock_text();
    let pin = first.lock_text();
    let pin = pin.lines().find(|line| line.contains("/team/db@")).unwrap();
    for part in [
        "version = \"1.1.0\"",
        "tag = \"4.1.0_build.7\"",
        "name = \"pod\"",
        pin,
    ] {
        assert!(lock.contains(part), "the lock must have {part}\n{lock}");
    }
    config("~1.0");
    next.imgbuild(&within)
        .ends(1)
        .says(&["#web ~1.0"])
        .hints(&["deliver that first"]);
}
