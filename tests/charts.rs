//! Charts of the world, rendered and compared with what Helm made of them.
//!
//! The charts and their golden renders stand beside the project (`../shared/data/helm`, see its README); where they
//! are absent the tests say so and pass. Documents are compared as parsed YAML. What cannot be compared is listed
//! at the suite it concerns.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use imgbuild::chart::{
    Capabilities, Chart, Document, How, LoadLimits, RenderOptions, Rendered, ValuesLayer, Verdict,
    find_images, render, yaml,
};
use serde_json::Value as Json;

fn data(path: &str) -> Option<PathBuf> {
    let path = Path::new("../shared/data/helm").join(path);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: {} is absent", path.display());
    None
}

fn load(path: &Path) -> Chart {
    Chart::from_directory(path, LoadLimits::default())
        .unwrap_or_else(|error| panic!("{}: {error:?}", path.display()))
}

fn layer(path: &Path) -> ValuesLayer {
    ValuesLayer {
        name: path.display().to_string(),
        text: std::fs::read(path).unwrap(),
    }
}

fn parsed<'a>(texts: impl IntoIterator<Item = &'a str>) -> Vec<Json> {
    texts
        .into_iter()
        .flat_map(yaml::parse_stream)
        .map(|document| document.content.unwrap())
        .collect()
}

fn golden_files(directory: &Path) -> Vec<String> {
    let mut paths: Vec<PathBuf> = walkdir::WalkDir::new(directory)
        .into_iter()
        .map(|entry| entry.unwrap().into_path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "yaml"))
        .collect();
    paths.sort();
    paths
        .iter()
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect()
}

fn name(document: &Json) -> String {
    let text = |pointer: &str| {
        document
            .pointer(pointer)
            .and_then(Json::as_str)
            .unwrap_or("")
    };
    format!(
        "{} {}/{}",
        text("/kind"),
        text("/metadata/namespace"),
        text("/metadata/name")
    )
}

fn images_of(rendered: &Rendered) -> BTreeSet<String> {
    find_images(rendered, &[])
        .unwrap()
        .images
        .into_iter()
        .filter(|image| image.by != How::Values)
        .map(|image| image.reference)
        .collect()
}

/// How many documents of the goldens came out equal, over some cases.
#[derive(Default)]
struct Tally {
    equal: usize,
    all: usize,
    surplus: usize,
    cases: usize,
    wrong_images: Vec<String>,
}

impl Tally {
    /// Compares one case; `selected` says which of our documents the golden could hold.
    fn compare(
        &mut self,
        case: &str,
        rendered: &Rendered,
        golden: &[String],
        mut redact: impl FnMut(&mut Json),
        selected: impl Fn(&Json) -> bool,
    ) {
        self.cases += 1;
        let mut ours = parsed(rendered.documents.iter().map(|document| &*document.text));
        let mut theirs = parsed(golden.iter().map(String::as_str));
        ours.iter_mut().for_each(&mut redact);
        theirs.iter_mut().for_each(&mut redact);
        ours.retain(&selected);
        let (mut equal, all) = (0, theirs.len());
        for document in &theirs {
            if let Some(at) = ours.iter().position(|other| other == document) {
                ours.remove(at);
                equal += 1;
                continue;
            }
            println!("  {case}: {} differs", name(document));
            if let Some(other) = ours.iter().find(|other| name(other) == name(document)) {
                differences(document, other, &mut String::new(), &mut 0);
            }
        }
        for surplus in &ours {
            if !theirs
                .iter()
                .any(|document| name(document) == name(surplus))
            {
                println!("  {case}: {} is not in the golden render", name(surplus));
                self.surplus += 1;
            }
        }
        for failure in &rendered.failures {
            println!("  {case}: {failure:?}");
        }
        println!("{case}: {equal}/{all} documents equal");
        self.equal += equal;
        self.all += all;

        let as_rendered = |documents: Vec<Document>| Rendered {
            documents,
            ..Rendered::default()
        };
        let whole = |documents: &[Json]| {
            as_rendered(
                documents
                    .iter()
                    .map(|document| Document {
                        template: "golden.yaml".to_owned(),
                        text: document.to_string(),
                    })
                    .collect(),
            )
        };
        let mut ours = parsed(rendered.documents.iter().map(|document| &*document.text));
        ours.retain(&selected);
        if images_of(&whole(&ours)) != images_of(&whole(&theirs)) {
            self.wrong_images.push(case.to_owned());
        }
    }

    fn finish(&self, suite: &str) {
        println!(
            "{suite}: {} cases, {}/{} documents equal, {} surplus, images differ in {:?}",
            self.cases, self.equal, self.all, self.surplus, self.wrong_images
        );
        assert!(self.all > 0, "{suite} has documents to compare");
        assert!(
            self.equal * 100 >= self.all * 95,
            "at least 95 % of the documents of {suite} are equal"
        );
        assert_eq!(
            self.wrong_images,
            Vec::<String>::new(),
            "every case of {suite} has the images of its golden render"
        );
    }
}

/// Prints the first places where two documents differ.
fn differences(golden: &Json, ours: &Json, path: &mut String, printed: &mut usize) {
    if golden == ours || *printed > 6 {
        return;
    }
    let length = path.len();
    match (golden, ours) {
        (Json::Object(golden), Json::Object(ours)) => {
            let keys: BTreeSet<&String> = golden.keys().chain(ours.keys()).collect();
            for key in keys {
                path.push('.');
                path.push_str(key);
                let null = Json::Null;
                differences(
                    golden.get(key).unwrap_or(&null),
                    ours.get(key).unwrap_or(&null),
                    path,
                    printed,
                );
                path.truncate(length);
            }
        }
        (Json::Array(golden), Json::Array(ours)) if golden.len() == ours.len() => {
            for (index, (golden, ours)) in golden.iter().zip(ours).enumerate() {
                write!(path, "[{index}]").unwrap();
                differences(golden, ours, path, printed);
                path.truncate(length);
            }
        }
        (Json::String(golden), Json::String(ours)) => {
            *printed += 1;
            let at = golden
                .lines()
                .zip(ours.lines())
                .find(|(golden, ours)| golden != ours);
            println!(
                "    {path}: golden {:?}, ours {:?}",
                at.map(|at| at.0),
                at.map(|at| at.1)
            );
        }
        _ => {
            *printed += 1;
            println!("    {path}: golden {golden}, ours {ours}");
        }
    }
}

fn directories(path: &Path) -> Vec<PathBuf> {
    let mut directories: Vec<PathBuf> = std::fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    directories.sort();
    directories
}

fn base_name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

#[test]
fn open_telemetry_charts_render_as_with_helm() {
    let Some(charts) = data("open-telemetry+opentelemetry-helm-charts/charts") else {
        return;
    };
    let mut tally = Tally::default();
    for chart in directories(&charts) {
        if !chart.join("examples").exists() || !chart.join("Chart.yaml").exists() {
            continue;
        }
        for example in directories(&chart.join("examples")) {
            let mut values: Vec<PathBuf> = std::fs::read_dir(&example)
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .filter(|path| {
                    let name = base_name(path);
                    name.starts_with("values")
                        && path.extension().is_some_and(|ending| ending == "yaml")
                })
                .collect();
            values.sort();
            if values.len() != 1 || !example.join("rendered").exists() {
                continue;
            }
            let options = RenderOptions {
                name: "example".to_owned(),
                values: values.iter().map(|path| layer(path)).collect(),
                capabilities: Capabilities {
                    kube_version: "1.29".to_owned(),
                    api_versions: Vec::new(),
                },
                ..RenderOptions::default()
            };
            let rendered = render(&load(&chart), &options).unwrap();
            let case = format!("{}/{}", base_name(&chart), base_name(&example));
            let golden = golden_files(&example.join("rendered"));
            tally.compare(&case, &rendered, &golden, |_| {}, |_| true);
        }
    }
    tally.finish("open-telemetry");
}

/// Certificates are random, and the project itself redacts them; checksums of them differ accordingly.
fn redact_certificates(document: &mut Json) {
    match document {
        Json::Object(entries) => {
            for (key, value) in entries.iter_mut() {
                // Scripts of the chart are not in the data either.
                let absent = matches!(key.as_str(), "caBundle" | "tls.crt" | "tls.key" | "ca.crt")
                    || key == "script" && value.is_string();
                if absent {
                    *value = Json::Null;
                } else {
                    redact_certificates(value);
                }
            }
        }
        Json::Array(items) => items.iter_mut().for_each(redact_certificates),
        _ => {}
    }
}

#[test]
fn the_splunk_collector_renders_as_with_helm() {
    let Some(root) = data("signalfx+splunk-otel-collector-chart") else {
        return;
    };
    let chart = load(&root.join("helm-charts/splunk-otel-collector"));
    let mut tally = Tally::default();
    for example in directories(&root.join("examples")) {
        let case = base_name(&example);
        let golden = example.join("rendered_manifests");
        let values = std::fs::read_dir(&example)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| base_name(path).ends_with("values.yaml"));
        let Some(values) = values.filter(|_| golden.exists()) else {
            println!("{case}: no values or no golden render");
            continue;
        };
        let options = RenderOptions {
            name: "default".to_owned(),
            values: vec![layer(&values)],
            ..RenderOptions::default()
        };
        let rendered = render(&chart, &options).unwrap();
        // Charts that are fetched before they are packed are not in the data: nor is what they render to.
        let absent: Vec<String> = chart
            .missing_dependencies()
            .iter()
            .map(|dependency| format!("/charts/{}/", dependency.alias))
            .collect();
        let golden: Vec<String> = golden_files(&golden)
            .iter()
            .flat_map(|text| text.split("\n---\n"))
            .filter(|part| !absent.iter().any(|path| part.contains(path)))
            // Calls a template of the operator's chart, which is one of those.
            .filter(|part| !part.contains("operator/instrumentation-hook-job.yaml"))
            .map(str::to_owned)
            .collect();
        tally.compare(&case, &rendered, &golden, redact_certificates, |_| true);
    }
    tally.finish("splunk");
}

#[test]
fn istio_charts_render_as_with_helm() {
    let (Some(cases), Some(root)) = (data("istio-render-cases.json"), data("istio+istio")) else {
        return;
    };
    let cases: Json = serde_json::from_slice(&std::fs::read(cases).unwrap()).unwrap();
    let testdata = root.join("operator/pkg/helm/testdata");
    let mut tally = Tally::default();
    for case in cases["cases"].as_array().unwrap() {
        let text = |key: &str| case[key].as_str().unwrap().to_owned();
        let chart = root.join("manifests/charts").join(text("chartName"));
        let input = testdata.join(format!("input/{}.yaml", text("desc")));
        let golden = testdata.join(format!("output/{}.golden.yaml", text("desc")));
        if !chart.exists() || !input.exists() || !golden.exists() {
            continue;
        }
        let overlay = yaml::parse(&std::fs::read_to_string(&input).unwrap()).unwrap();
        let values = overlay.pointer("/spec/values").cloned().unwrap_or_default();
        let options = RenderOptions {
            name: text("releaseName"),
            namespace: text("namespace"),
            upgrade: case["isUpgrade"] == Json::Bool(true),
            values: vec![ValuesLayer {
                name: input.display().to_string(),
                text: values.to_string().into_bytes(),
            }],
            capabilities: Capabilities {
                kube_version: "1.32.0".to_owned(),
                api_versions: Vec::new(),
            },
            ..RenderOptions::default()
        };
        let rendered = render(&load(&chart), &options).unwrap();
        let select = text("diffSelect");
        let select: Vec<&str> = select.split(':').collect();
        let fits = |document: &Json| {
            let part = |pointer: &str| {
                document
                    .pointer(pointer)
                    .and_then(Json::as_str)
                    .unwrap_or("")
                    .to_owned()
            };
            [
                part("/kind"),
                part("/metadata/namespace"),
                part("/metadata/name"),
            ]
            .iter()
            .zip(&select)
            .all(|(found, wanted)| *wanted == "*" || found == wanted)
        };
        let golden = vec![std::fs::read_to_string(&golden).unwrap()];
        tally.compare(&text("desc"), &rendered, &golden, |_| {}, fits);
    }
    tally.finish("istio");
}

#[test]
fn external_secrets_renders_as_its_snapshots() {
    let Some(root) = data("external-secrets+external-secrets/deploy/charts/external-secrets")
    else {
        return;
    };
    let chart = load(&root);
    let (mut equal, mut all) = (0, 0);
    for snapshot in ["controller", "webhook", "cert_controller", "rbac"] {
        let path = root.join(format!("tests/__snapshot__/{snapshot}_test.yaml.snap"));
        let cases = yaml::parse(&std::fs::read_to_string(path).unwrap()).unwrap();
        for (case, documents) in cases.as_object().unwrap() {
            let values = if case.contains("leaderElectionID") {
                "leaderElectionID: custom-eso-lease"
            } else {
                ""
            };
            let options = RenderOptions {
                name: "RELEASE-NAME".to_owned(),
                namespace: "NAMESPACE".to_owned(),
                values: vec![ValuesLayer {
                    name: case.clone(),
                    text: values.as_bytes().to_vec(),
                }],
                ..RenderOptions::default()
            };
            let rendered = render(&chart, &options).unwrap();
            let ours = parsed(rendered.documents.iter().map(|document| &*document.text));
            for text in documents.as_object().unwrap().values() {
                let golden = yaml::parse(text.as_str().unwrap()).unwrap();
                // These snapshots are older than the chart beside them: its roles have since got more resources.
                if snapshot == "rbac" && golden["kind"] == "ClusterRole" {
                    continue;
                }
                all += 1;
                if ours.contains(&golden) {
                    equal += 1;
                    continue;
                }
                println!("  {snapshot}: {} differs", name(&golden));
                if let Some(other) = ours.iter().find(|other| name(other) == name(&golden)) {
                    differences(&golden, other, &mut String::new(), &mut 0);
                }
            }
        }
    }
    println!("external-secrets: {equal}/{all} documents equal");
    assert_eq!(
        equal, all,
        "every document of the snapshots comes out equal"
    );
}

/// The images of a chart, one per line, with how each was found.
fn image_list(chart: &Chart, options: &RenderOptions) -> String {
    let rendered = render(chart, options).unwrap();
    let found = find_images(&rendered, &[]).unwrap();
    let mut list = String::new();
    for image in &found.images {
        writeln!(list, "{} ({})", image.reference, image.by.name()).unwrap();
    }
    match &found.verdict {
        Verdict::Whole => list.push_str("whole\n"),
        Verdict::Partial(failures) => {
            for failure in failures {
                writeln!(
                    list,
                    "failed: {} at {}:{}: {}",
                    failure.template, failure.file, failure.line, failure.message
                )
                .unwrap();
            }
        }
    }
    list
}

#[test]
fn charts_without_golden_renders_give_the_images_on_file() {
    for (path, golden) in [
        (
            "kubernetes+ingress-nginx/charts/ingress-nginx",
            "ingress-nginx",
        ),
        ("stefanprodan+podinfo/charts/podinfo", "podinfo"),
        (
            "external-secrets+external-secrets/deploy/charts/external-secrets",
            "external-secrets",
        ),
        (
            "cert-manager+cert-manager/deploy/charts/cert-manager",
            "cert-manager",
        ),
        (
            "open-telemetry+opentelemetry-helm-charts/charts/opentelemetry-collector",
            "opentelemetry-collector",
        ),
    ] {
        let Some(path) = data(path) else { continue };
        let list = image_list(&load(&path), &RenderOptions::default());
        let golden = Path::new("tests/data/charts/images").join(format!("{golden}.txt"));
        let expected = std::fs::read_to_string(&golden).unwrap_or_default();
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&golden, &list).unwrap();
            continue;
        }
        assert_eq!(
            list,
            expected,
            "{} holds what the chart needs",
            golden.display()
        );
    }
}

#[test]
fn a_small_chart_renders_as_helm_printed_it() {
    let root = Path::new("tests/data/charts");
    let chart = load(&root.join("subchart"));
    for (golden, values, api_versions, kube_version) in [
        ("template.txt", None, vec![], "v1.20.0"),
        (
            "template-values-files.txt",
            Some("subchart/charts/subchartA/values.yaml"),
            vec![],
            "v1.20.0",
        ),
        (
            "template-with-api-version.txt",
            None,
            vec![
                "helm.k8s.io/test".to_owned(),
                "helm.k8s.io/test2".to_owned(),
            ],
            "v1.20.0",
        ),
        ("template-with-kube-version.txt", None, vec![], "1.16.0"),
        ("template-with-crds.txt", None, vec![], "v1.20.0"),
    ] {
        let options = RenderOptions {
            values: values.iter().map(|path| layer(&root.join(path))).collect(),
            capabilities: Capabilities {
                kube_version: kube_version.to_owned(),
                api_versions,
            },
            ..RenderOptions::default()
        };
        let rendered = render(&chart, &options).unwrap();
        assert_eq!(rendered.failures, [], "the chart renders whole");
        let mut documents = rendered.documents.clone();
        if golden.contains("crds") {
            documents.extend(rendered.crds.clone());
        }
        // The tests of Helm print templates and hooks in another order and under another version of Kubernetes.
        let key = |document: &Json| document.to_string();
        let mut ours = parsed(documents.iter().map(|document| &*document.text));
        let mut theirs = parsed([std::fs::read_to_string(root.join("golden").join(golden))
            .unwrap()
            .as_str()]);
        ours.sort_by_key(key);
        theirs.sort_by_key(key);
        assert_eq!(ours, theirs, "{golden}");
    }
}

#[test]
fn archives_of_helm_are_read() {
    let Some(root) = data("helm+helm/pkg/chart/v2/loader/testdata") else {
        return;
    };
    for (archive, version) in [
        ("frobnitz-1.2.3.tgz", "v1"),
        ("frobnitz.v1.tgz", "v1"),
        ("frobnitz_backslash-1.2.3.tgz", "v1"),
        ("frobnitz_with_bom.tgz", "v1"),
    ] {
        let file = std::fs::File::open(root.join(archive)).unwrap();
        let chart = Chart::from_archive(file, LoadLimits::default()).unwrap();
        assert_eq!(
            chart.metadata().name,
            "frobnitz".to_owned()
                + if archive.contains("backslash") {
                    "_backslash"
                } else {
                    ""
                },
            "{archive}"
        );
        assert_eq!(chart.metadata().api_version, version, "{archive}");
        let names: Vec<&str> = chart
            .dependencies()
            .iter()
            .map(|chart| chart.metadata().name.as_str())
            .collect();
        assert_eq!(
            names,
            ["alpine", "mariner"],
            "{archive} has its dependencies"
        );
        assert!(
            chart.missing_dependencies().is_empty(),
            "{archive} is complete"
        );
    }
}

/// A gzipped tar archive of entries.
fn archive(entries: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(flate2::write::GzEncoder::new(
        Vec::new(),
        flate2::Compression::fast(),
    ));
    for (path, kind, bytes) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_size(bytes.len() as u64);
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        builder.append(&header, *bytes).unwrap();
    }
    builder.into_inner().unwrap().finish().unwrap()
}

#[test]
fn hostile_archives_are_refused() {
    use tar::EntryType::{Char, Link, Regular, Symlink};
    let metadata: &[u8] = b"apiVersion: v2\nname: a\nversion: 1.0.0\n";
    let chart = ("a/Chart.yaml", Regular, metadata);
    let limits = LoadLimits {
        chart: 4096,
        file: 2048,
        files: 5,
        depth: 2,
    };
    let large = vec![b'a'; 3000];
    let many = vec![("a/b", Regular, &b""[..]); 6];
    let whole = archive(&[chart]);
    assert!(
        Chart::from_archive(whole.as_slice(), limits).is_ok(),
        "a plain archive is read"
    );
    for (what, bytes) in [
        (
            "a parent directory",
            archive(&[chart, ("a/../../x", Regular, b"")]),
        ),
        (
            "an absolute path",
            archive(&[chart, ("/etc/x", Regular, b"")]),
        ),
        ("a file outside", archive(&[chart, ("x", Regular, b"")])),
        ("a symbolic link", archive(&[chart, ("a/x", Symlink, b"")])),
        ("a hard link", archive(&[chart, ("a/x", Link, b"")])),
        ("a device", archive(&[chart, ("a/x", Char, b"")])),
        ("a drive", archive(&[chart, ("a/c:/x", Regular, b"")])),
        (
            "a file too large",
            archive(&[chart, ("a/x", Regular, &large)]),
        ),
        (
            "too many files",
            archive(&[&[chart][..], &many[..]].concat()),
        ),
        (
            "too much in all",
            archive(&[
                chart,
                ("a/x", Regular, &large[..2000]),
                ("a/y", Regular, &large[..2000]),
                ("a/z", Regular, &large[..2000]),
            ]),
        ),
        ("no metadata", archive(&[("a/values.yaml", Regular, b"")])),
        (
            "no version",
            archive(&[("a/Chart.yaml", Regular, b"name: a")]),
        ),
        ("nothing", archive(&[])),
        ("no archive", b"not an archive".to_vec()),
        ("half an archive", whole[..whole.len() / 2].to_vec()),
    ] {
        assert!(
            Chart::from_archive(bytes.as_slice(), limits).is_err(),
            "an archive with {what} is refused"
        );
    }
}

/// A chart of one template.
fn chart_of(files: &[(&str, &str)]) -> Chart {
    let mut all: BTreeMap<String, Vec<u8>> = files
        .iter()
        .map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec()))
        .collect();
    all.entry("Chart.yaml".to_owned()).or_insert_with(|| {
        b"apiVersion: v2\nname: test\nversion: 1.0.0\nappVersion: 9.9.9\n".to_vec()
    });
    Chart::from_files(all, LoadLimits::default()).unwrap()
}

#[test]
fn images_say_how_they_were_found() {
    let chart = chart_of(&[
        (
            "values.yaml",
            "image: {registry: r.example, repository: from/values, tag: ''}\nother: {repository: a/b, tag: 1, digest: 'sha256:abc'}\nsource: {repository: 'https://git.example/x', tag: v1}\n",
        ),
        (
            "templates/all.yaml",
            r#"
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{image: "r.example/pod:1", args: ["--solver-image=r.example/solver:1", "--url=r.example/no:1"], env: [{name: RELATED_IMAGE_X, value: "r.example/related:1"}]}], initContainers: [{image: "r.example/init:1"}], ephemeralContainers: [{image: "r.example/ephemeral:1"}], volumes: [{image: {reference: "r.example/volume:1"}}]}}
- {apiVersion: batch/v1, kind: CronJob, metadata: {name: c}, spec: {jobTemplate: {spec: {template: {spec: {containers: [{image: "r.example/cron:1"}]}}}}}}
---
apiVersion: apps/v1
kind: DaemonSet
spec: {template: {spec: {containers: [{image: "untagged"}, {image: "r.example/pod:1"}]}}}
---
apiVersion: monitoring.coreos.com/v1
kind: Prometheus
spec: {image: "r.example/prometheus:1"}
---
apiVersion: example.com/v1
kind: Custom
spec: {custom: [{image: "short:1"}], deep: {toolImage: "r.example/tool:1"}}
"#,
        ),
    ]);
    let rendered = render(&chart, &RenderOptions::default()).unwrap();
    let paths = ["{.spec.custom[*].image}".to_owned()];
    let found = find_images(&rendered, &paths).unwrap();
    let list: Vec<(&str, How)> = found
        .images
        .iter()
        .map(|image| (image.reference.as_str(), image.by))
        .collect();
    assert_eq!(
        list,
        [
            ("a/b:1@sha256:abc", How::Values),
            ("r.example/cron:1", How::PodSpec),
            ("r.example/ephemeral:1", How::PodSpec),
            ("r.example/from/values:9.9.9", How::Values),
            ("r.example/init:1", How::PodSpec),
            ("r.example/pod:1", How::PodSpec),
            ("r.example/prometheus:1", How::KnownField),
            ("r.example/related:1", How::Argument),
            ("r.example/solver:1", How::Argument),
            ("r.example/tool:1", How::ImageField),
            ("r.example/volume:1", How::PodSpec),
            ("short:1", How::ImagePath),
            ("untagged", How::PodSpec),
        ],
        "each image once, with the first way it was found"
    );
    assert_eq!(found.verdict, Verdict::Whole, "everything rendered");
    assert!(
        found.needed().all(|image| image.by != How::Values),
        "of a chart that rendered whole the values add nothing"
    );
    assert!(
        find_images(&rendered, &["{.spec[".to_owned()]).is_err(),
        "a malformed path is not silently empty"
    );
}

#[test]
fn a_template_that_fails_does_not_hide_the_others() {
    let chart = chart_of(&[
        ("values.yaml", "image: {repository: r.example/a, tag: 1}\n"),
        (
            "templates/_helpers.tpl",
            "\n{{ define \"x\" }}\n{{ required \"set it\" .Values.missing }}{{ end }}",
        ),
        ("templates/bad.yaml", "a: {{ include \"x\" . }}"),
        ("templates/unreadable.yaml", "a: {{ if }}"),
        ("templates/output.yaml", "a: [1"),
        (
            "templates/good.yaml",
            "spec: {containers: [{image: r.example/good:1}]}",
        ),
    ]);
    let rendered = render(&chart, &RenderOptions::default()).unwrap();
    let found = find_images(&rendered, &[]).unwrap();
    let needed: Vec<&str> = found
        .needed()
        .map(|image| image.reference.as_str())
        .collect();
    assert_eq!(
        needed,
        ["r.example/a:1", "r.example/good:1"],
        "what rendered counts, and the values stand in for the rest"
    );
    let Verdict::Partial(failures) = found.verdict else {
        panic!("templates failed");
    };
    let list: Vec<(&str, &str, usize, &str, bool)> = failures
        .iter()
        .map(|failure| {
            (
                failure.template.as_str(),
                failure.file.as_str(),
                failure.line,
                failure.message.as_str(),
                failure.refused,
            )
        })
        .collect();
    assert_eq!(
        list[0],
        (
            "test/templates/bad.yaml",
            "test/templates/_helpers.tpl",
            3,
            "set it",
            true
        ),
        "a failure names the template, the helper at fault and the line"
    );
    assert_eq!(
        list[1],
        (
            "test/templates/unreadable.yaml",
            "test/templates/unreadable.yaml",
            1,
            "missing value for if",
            false
        ),
        "so does one found while reading"
    );
    assert!(
        list[2].0 == "test/templates/output.yaml" && list[2].3.contains("no YAML"),
        "and output that is no YAML is a failure: {:?}",
        list[2]
    );
}

#[test]
fn dependencies_follow_conditions_tags_and_aliases() {
    let parent = "apiVersion: v2\nname: test\nversion: 1.0.0\ndependencies:\n- {name: sub, version: ^1.0, alias: first, condition: first.enabled}\n- {name: sub, version: ^1.0, alias: second, tags: [extra]}\n- {name: sub, version: ^1.0, alias: third, import-values: [{child: exported, parent: imported}]}\n";
    let chart = chart_of(&[
        ("Chart.yaml", parent),
        (
            "values.yaml",
            "first: {enabled: false}\ntags: {extra: false}\nthird: {own: parent}\nglobal: {g: all}\n",
        ),
        (
            "templates/a.yaml",
            "imported: {{ .Values.imported.x }}\nown: {{ .Values.third.own }}",
        ),
        (
            "charts/sub/Chart.yaml",
            "apiVersion: v2\nname: sub\nversion: 1.2.3\n",
        ),
        (
            "charts/sub/values.yaml",
            "own: sub\ndefault: kept\nexported: {x: taken}\n",
        ),
        (
            "charts/sub/templates/b.yaml",
            "name: {{ .Chart.Name }} {{ .Values.own }} {{ .Values.default }} {{ .Values.global.g }}",
        ),
    ]);
    let texts = |values: &str| {
        let options = RenderOptions {
            values: vec![ValuesLayer {
                name: "test".to_owned(),
                text: values.as_bytes().to_vec(),
            }],
            ..RenderOptions::default()
        };
        let rendered = render(&chart, &options).unwrap();
        assert_eq!(rendered.failures, [], "the chart renders whole");
        rendered
            .documents
            .into_iter()
            .map(|document| document.text)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        texts(""),
        [
            "name: third parent kept all",
            "imported: taken\nown: parent"
        ],
        "only what is enabled renders, under its alias and with its parent's values"
    );
    assert_eq!(
        texts("first: {enabled: true}\ntags: {extra: true}\nthird: {default: null, own: user}")
            .len(),
        4,
        "the user's values decide"
    );
}

proptest::proptest! {
    #[test]
    fn no_yaml_stops_the_reader(text in "[-a-z0-9:?&*!|>{}\\[\\],'\"#%@ \n\t.~<]{0,60}") {
        let _ = yaml::parse(&text);
        let _ = yaml::parse_stream(&text);
    }

    #[test]
    fn what_a_template_writes_as_yaml_reads_back(text in "([ -~\n]{0,40}[!-~])?", key in "[ -~]{0,20}") {
        let values = serde_json::json!({ "x": { key: [text] } });
        let chart = chart_of(&[("templates/a.yaml", "{{ toYaml .Values.x }}")]);
        let options = RenderOptions {
            values: vec![ValuesLayer { name: "test".to_owned(), text: values.to_string().into_bytes() }],
            ..RenderOptions::default()
        };
        let rendered = render(&chart, &options).unwrap();
        let read = yaml::parse(&rendered.documents[0].text);
        proptest::prop_assert_eq!(read.as_ref(), Ok(&values["x"]), "{}", &rendered.documents[0].text);
    }

    #[test]
    fn no_chart_stops_the_renderer(template in "[ -~\n]{0,60}", helper in "[ -~]{0,30}") {
        let chart = chart_of(&[
            ("templates/a.yaml", &format!("{{{{ {template}")),
            ("templates/b.yaml", &template),
            ("templates/_h.tpl", &format!("{{{{ define \"h\" }}}}{helper}{{{{ end }}}}")),
        ]);
        let rendered = render(&chart, &RenderOptions::default()).unwrap();
        let _ = find_images(&rendered, &[]);
    }
}
