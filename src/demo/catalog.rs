//! A small operator catalog: file-based, with the bundle images and related images that it lists.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::WorldError;
use super::layer::{Compression, Content, Member};
use super::world::{Form, World};
use crate::digest::Digest;
use crate::oci::{Descriptor, Platform};
use crate::openshift::fbc::CONFIGS_LABEL;

/// Bytes of each layer that an image has to itself.
const LAYER: u64 = 3_000;

/// One package of a catalog that is made.
#[derive(Clone, Debug, Default)]
pub struct Operator {
    /// Its name.
    pub name: String,
    /// Its channels, the default one first: a name and the versions, the oldest first, each replacing the one before.
    pub channels: Vec<(String, Vec<String>)>,
    /// Packages that every bundle requires, each with a range of versions.
    pub requires: Vec<(String, String)>,
    /// Related images by a tag, as the catalog writes them; they are not made.
    pub tagged: Vec<String>,
    /// What tells the images of one state of it from those of another.
    pub state: u64,
}

impl Operator {
    /// A package with these channels, each given as `name: version version …`.
    #[must_use]
    pub fn new(name: &str, channels: &[&str]) -> Self {
        let channels = channels
            .iter()
            .map(|line| {
                let (channel, versions) = line.split_once(':').unwrap_or((line, ""));
                let versions = versions.split_whitespace().map(str::to_owned).collect();
                (channel.trim().to_owned(), versions)
            })
            .collect();
        Self {
            name: name.to_owned(),
            channels,
            ..Self::default()
        }
    }

    /// The same, requiring another package.
    #[must_use]
    pub fn requiring(mut self, package: &str, range: &str) -> Self {
        self.requires.push((package.to_owned(), range.to_owned()));
        self
    }

    /// What a bundle is called.
    #[must_use]
    pub fn bundle(&self, version: &str) -> String {
        format!("{}.v{version}", self.name)
    }
}

/// A catalog that is made.
#[derive(Clone, Debug)]
pub struct Catalog<'a> {
    /// The host that its images are named by.
    pub host: &'a str,
    /// The path of its repository; its images are in repositories beside it.
    pub repository: &'a str,
    /// Its tag.
    pub tag: &'a str,
    /// Whose media types its manifests have.
    pub form: Form,
    /// The architectures that it is for: several make an index.
    pub architectures: &'a [&'a str],
}

fn platform(architecture: &str) -> Platform {
    Platform {
        os: "linux".to_owned(),
        architecture: architecture.to_owned(),
        variant: None,
        os_version: None,
    }
}

impl World {
    /// Adds a catalog of `operators` with everything that it lists, and points its tag at it.
    ///
    /// A bundle is an image `OPERATOR-bundle`; each version has an image `OPERATOR-controller` of its own, and all share
    /// one `proxy`.
    ///
    /// # Errors
    /// If a name is malformed.
    pub fn catalog(
        &mut self,
        catalog: &Catalog<'_>,
        operators: &[Operator],
    ) -> Result<Descriptor, WorldError> {
        let mut members = vec![Member::Folder {
            path: "configs".to_owned(),
        }];
        for operator in operators {
            let documents = self.operator(catalog, operator)?;
            let mut text = String::new();
            for document in documents {
                writeln!(text, "{document:#}").expect("a text takes whatever is written");
            }
            members.push(Member::file(
                format!("configs/{}/catalog.json", operator.name),
                text.as_str(),
            ));
        }
        let files = self.layer(&members, Compression::Gzip)?;
        let labels = BTreeMap::from([
            (CONFIGS_LABEL.to_owned(), "/configs".to_owned()),
            ("name".to_owned(), catalog.repository.to_owned()),
        ]);
        let mut children = Vec::new();
        for architecture in catalog.architectures {
            let base = Member::file(
                "bin/opm",
                Content::made(&format!("opm for {architecture}"), LAYER),
            );
            let base = self.layer(&[base], Compression::Gzip)?;
            children.push(self.image(
                catalog.form,
                &platform(architecture),
                &[base, files],
                &labels,
            )?);
        }
        let image = match children.as_slice() {
            [one] => one.clone(),
            several => self.index(catalog.form, several)?,
        };
        self.tag(catalog.repository, catalog.tag, &image)?;
        Ok(image)
    }

    /// Adds the images of one package; answers what the catalog says about it.
    fn operator(
        &mut self,
        catalog: &Catalog<'_>,
        operator: &Operator,
    ) -> Result<Vec<Value>, WorldError> {
        let name = &operator.name;
        let default = operator.channels.first().map(|(name, _)| name.as_str());
        let mut documents = vec![json!({
            "schema": "olm.package",
            "name": name,
            "defaultChannel": default.unwrap_or_default(),
            "description": format!("The {name} of a made catalog."),
        })];
        let mut versions: Vec<&str> = Vec::new();
        for (channel, listed) in &operator.channels {
            let mut entries: Vec<Value> = Vec::new();
            let mut before: Option<&str> = None;
            for version in listed {
                let mut entry = json!({ "name": operator.bundle(version) });
                if let Some(before) = before {
                    entry["replaces"] = operator.bundle(before).into();
                }
                entries.push(entry);
                before = Some(version);
                if !versions.contains(&version.as_str()) {
                    versions.push(version);
                }
            }
            documents.push(json!({
                "schema": "olm.channel", "package": name, "name": channel, "entries": entries,
            }));
        }
        let proxy = self.helper(catalog, "proxy", "proxy", 0)?;
        for version in versions {
            let controller = self.helper(
                catalog,
                &format!("{name}-controller"),
                version,
                operator.state,
            )?;
            let bundle =
                self.helper(catalog, &format!("{name}-bundle"), version, operator.state)?;
            let mut properties = vec![
                json!({ "type": "olm.package", "value": { "packageName": name, "version": version } }),
                json!({ "type": "olm.csv.metadata", "value": { "displayName": format!("Made {name}") } }),
            ];
            for (package, range) in &operator.requires {
                properties.push(json!({
                    "type": "olm.package.required",
                    "value": { "packageName": package, "versionRange": range },
                }));
            }
            let mut related = vec![
                json!({ "name": "", "image": bundle }),
                json!({ "name": "controller", "image": controller }),
                json!({ "name": "proxy", "image": proxy }),
            ];
            for image in &operator.tagged {
                related.push(json!({ "name": "tagged", "image": image }));
            }
            documents.push(json!({
                "schema": "olm.bundle",
                "package": name,
                "name": operator.bundle(version),
                "image": bundle,
                "properties": properties,
                "relatedImages": related,
            }));
        }
        Ok(documents)
    }

    /// An image beside a catalog, known by its digest; answers its name.
    fn helper(
        &mut self,
        catalog: &Catalog<'_>,
        name: &str,
        version: &str,
        state: u64,
    ) -> Result<String, WorldError> {
        let folder = catalog
            .repository
            .rsplit_once('/')
            .map_or("operators", |(folder, _)| folder);
        let repository = format!("{folder}/{name}");
        let content = Content::made(&format!("{repository} {version} {state}"), LAYER);
        let base = Member::file("etc/os-release", "NAME=made\n");
        let layers: Vec<Digest> = [base, Member::file(format!("app/{name}"), content)]
            .iter()
            .map(|member| self.layer(std::slice::from_ref(member), Compression::Gzip))
            .collect::<Result<_, _>>()?;
        let mut children = Vec::new();
        for architecture in catalog.architectures {
            children.push(self.image(
                Form::Oci,
                &platform(architecture),
                &layers,
                &BTreeMap::new(),
            )?);
        }
        let image = match children.as_slice() {
            [one] => one.clone(),
            several => self.index(Form::Oci, several)?,
        };
        self.attach(&repository, &image)?;
        Ok(format!("{}/{repository}@{}", catalog.host, image.digest))
    }
}
