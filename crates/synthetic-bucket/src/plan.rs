//! Makes up a registry: what is in it follows from a number of objects and a seed.
//!
//! Most repositories are small, a few have up to 10,000 tags. Images have 5 to 15 layers: those of a base that
//! repositories share, those that images of a repository share, and their own. One build in ten is an index, one image
//! in twenty is signed, one build in seven has lost its only tag to a later one. About a tenth of the objects are
//! garbage, of every kind that [`crate::census::Garbage`] counts.
//!
//! It is known from the way things are planted what is needed and by whom, so the census does not depend on reading
//! manifests as a collector does.

mod garbage;

use std::collections::BTreeMap;

use fastrand::Rng;
use sha2::{Digest as _, Sha256};

use crate::documents;
use crate::registry::{
    Body, Content, ContentIndex, Entry, Manifest, ManifestKind, Registry, RepositoryIndex, Tag,
    TagName,
};

/// The most tags that a repository has.
const TAGS_OF_LARGE: u64 = 10_000;
/// There is a large repository for so many objects, and always one.
const OBJECTS_PER_LARGE: u64 = 400_000;
/// How many tags each build in a large repository has.
const TAGS_PER_BUILD: u32 = 4;

/// Makes up a registry of at least so many objects, and a few more: the last repository is whole.
pub fn make(objects: u64, seed: u64) -> Registry {
    let mut planner = Planner::new(seed);
    let tags = (objects / 50).clamp(1, TAGS_OF_LARGE);
    for number in 0..(objects / OBJECTS_PER_LARGE).max(1) {
        let builds = u32::try_from(tags).unwrap_or(u32::MAX).div_ceil(TAGS_PER_BUILD);
        planner.repository(format!("builds/nightly-{number}"), builds, TAGS_PER_BUILD);
    }
    let mut number = 0;
    while planner.objects() < objects {
        planner.small_repository(number);
        number += 1;
    }
    planner.finish()
}

/// Who needs something. Whatever has several users has the one that keeps it longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Need {
    /// Nobody.
    Nobody,
    /// A manifest that no tag leads to.
    Untagged,
    /// A manifest that a tag leads to.
    Tagged,
}

struct Planner {
    rng: Rng,
    seed: u64,
    registry: Registry,
    /// Who needs each content.
    needs: Vec<Need>,
    /// The lowest layers of images, in sets.
    bases: Vec<Vec<ContentIndex>>,
    empty_json: ContentIndex,
}

/// A repository while it is being made up.
struct Repository {
    index: RepositoryIndex,
    /// Its blobs, and who in this repository needs them.
    links: BTreeMap<ContentIndex, Need>,
    base: Vec<ContentIndex>,
    /// Layers above the base that change now and then.
    dependencies: Vec<ContentIndex>,
    /// Where `edge` has been.
    edge: Vec<ContentIndex>,
    tags: u32,
}

impl Planner {
    fn new(seed: u64) -> Self {
        let mut planner = Self {
            rng: Rng::with_seed(seed),
            seed,
            registry: Registry::default(),
            needs: Vec::new(),
            bases: Vec::new(),
            empty_json: 0,
        };
        planner.empty_json = planner.document(Body::EmptyJson, documents::EMPTY_JSON);
        planner
    }

    /// How many objects there are so far.
    fn objects(&self) -> u64 {
        (self.registry.entries.len() + self.registry.contents.len()) as u64
    }

    /// Whether something happens that does in so many of a hundred cases.
    fn happens(&mut self, percent: u32) -> bool {
        self.rng.u32(0..100) < percent
    }

    fn small_repository(&mut self, number: u32) {
        let team = number % 97;
        let name = match number % 20 {
            0 => format!("tool-{number}"),
            // Within the one before it.
            1 if number > 1 => format!("tool-{}/sidecar", number - 1),
            _ => format!("team-{team:02}/service-{number}"),
        };
        // Mostly a few, seldom 30.
        let builds = 1 + (self.rng.f64().powi(3) * 30.0) as u32;
        if self.happens(2) {
            self.abandoned_repository(name);
        } else {
            self.repository(name, builds, 1);
        }
    }

    fn repository(&mut self, name: String, builds: u32, tags_per_build: u32) {
        let mut repository = self.open(name);
        for number in 0..builds {
            let is_last = number + 1 == builds;
            let loses_tag = !is_last && self.happens(15);
            let need = if loses_tag { Need::Untagged } else { Need::Tagged };
            let manifest = self.build(&mut repository, need);
            if loses_tag {
                repository.edge.push(manifest);
            } else {
                for _ in 0..tags_per_build {
                    self.tag(&mut repository, manifest);
                }
            }
            if is_last && !repository.edge.is_empty() {
                self.edge(&mut repository, manifest);
            }
            self.garbage(&mut repository, manifest);
        }
        if self.happens(1) {
            self.upload(&repository);
        }
        self.close(repository);
    }

    fn open(&mut self, name: String) -> Repository {
        let index = number_of(self.registry.repositories.len());
        self.registry.repositories.push(name);
        if self.bases.is_empty() || self.rng.u32(0..8) == 0 {
            let layers = self.rng.usize(3..9);
            let base = (0..layers).map(|_| self.layer()).collect();
            self.bases.push(base);
        }
        let base = self.bases[self.rng.usize(0..self.bases.len())].clone();
        let dependencies = (0..self.rng.usize(1..4)).map(|_| self.layer()).collect();
        Repository { index, links: BTreeMap::new(), base, dependencies, edge: Vec::new(), tags: 0 }
    }

    fn close(&mut self, repository: Repository) {
        for (content, need) in repository.links {
            self.registry.entries.push(Entry::BlobLink(repository.index, content));
            match need {
                Need::Nobody => self.registry.census.garbage.blob_links += 1,
                Need::Untagged => self.registry.census.untagged.blob_links += 1,
                Need::Tagged => {}
            }
        }
        self.registry.census.repositories += 1;
    }

    /// An image or an index, linked. Gives its manifest.
    fn build(&mut self, repository: &mut Repository, need: Need) -> ContentIndex {
        if self.happens(10) {
            let images: Vec<_> =
                (0..self.rng.u32(2..4)).map(|_| self.linked_image(repository, need)).collect();
            let index = self.manifest(ManifestKind::Index, None, &images, None, need);
            self.link_manifest(repository, index, need);
            return index;
        }
        let image = self.linked_image(repository, need);
        if need == Need::Tagged && self.happens(5) {
            self.sign(repository, image);
        }
        image
    }

    fn linked_image(&mut self, repository: &mut Repository, need: Need) -> ContentIndex {
        let image = self.image(repository, need);
        self.link_manifest(repository, image, need);
        image
    }

    /// An image with its blobs, to which nothing leads yet.
    fn image(&mut self, repository: &mut Repository, need: Need) -> ContentIndex {
        if need != Need::Nobody && self.happens(15) {
            let changed = self.rng.usize(0..repository.dependencies.len());
            repository.dependencies[changed] = self.layer();
        }
        let mut layers = [&repository.base[..], &repository.dependencies[..]].concat();
        for _ in 0..self.rng.u32(1..5) {
            layers.push(self.layer());
        }
        let number = number_of(self.registry.contents.len());
        let config = self.document(Body::Config(number), &documents::config(number));
        for blob in layers.iter().chain([&config]) {
            self.link(repository, *blob, need);
        }
        let kind = if self.happens(20) { ManifestKind::Docker } else { ManifestKind::Oci };
        self.manifest(kind, Some(config), &layers, None, need)
    }

    fn sign(&mut self, repository: &mut Repository, image: ContentIndex) {
        let signature = self.signature(repository, image, Need::Tagged);
        self.link_manifest(repository, signature, Need::Tagged);
        if self.happens(75) {
            let entry = Entry::Referrer(repository.index, image, signature);
            self.registry.entries.push(entry);
        } else {
            let index = self.manifest(ManifestKind::Index, None, &[signature], None, Need::Tagged);
            self.link_manifest(repository, index, Need::Tagged);
            self.point(repository, TagName::Referrers(image), index);
        }
    }

    fn signature(
        &mut self,
        repository: &mut Repository,
        subject: ContentIndex,
        need: Need,
    ) -> ContentIndex {
        let layer = self.layer();
        for blob in [layer, self.empty_json] {
            self.link(repository, blob, need);
        }
        let config = Some(self.empty_json);
        self.manifest(ManifestKind::Signature, config, &[layer], Some(subject), need)
    }

    fn tag(&mut self, repository: &mut Repository, manifest: ContentIndex) {
        repository.tags += 1;
        self.point(repository, TagName::Version(repository.tags), manifest);
    }

    fn edge(&mut self, repository: &mut Repository, manifest: ContentIndex) {
        let tag = self.point(repository, TagName::Edge, manifest);
        for earlier in &repository.edge {
            self.registry.entries.push(Entry::History(tag, *earlier));
        }
    }

    /// A new tag on a manifest. Gives its place.
    fn point(&mut self, repository: &Repository, name: TagName, manifest: ContentIndex) -> u32 {
        let tag = self.name(repository, name);
        let entries = [Entry::Current(tag, manifest), Entry::History(tag, manifest)];
        self.registry.entries.extend(entries);
        self.registry.census.tags += 1;
        tag
    }

    fn name(&mut self, repository: &Repository, name: TagName) -> u32 {
        let tag = number_of(self.registry.tags.len());
        self.registry.tags.push(Tag { repository: repository.index, name });
        tag
    }

    fn upload(&mut self, repository: &Repository) {
        let number = number_of(self.registry.entries.len());
        self.registry.entries.push(Entry::UploadStart(repository.index, number));
        self.registry.census.uploads += 1;
    }

    fn link(&mut self, repository: &mut Repository, blob: ContentIndex, need: Need) {
        self.need(blob, need);
        let before = repository.links.entry(blob).or_insert(need);
        *before = need.max(*before);
    }

    fn link_manifest(&mut self, repository: &Repository, manifest: ContentIndex, need: Need) {
        self.registry.entries.push(Entry::ManifestLink(repository.index, manifest));
        self.registry.census.manifests += 1;
        if need == Need::Untagged {
            self.registry.census.untagged.manifests += 1;
        }
    }

    fn need(&mut self, content: ContentIndex, need: Need) {
        let before = &mut self.needs[content as usize];
        *before = need.max(*before);
    }

    fn manifest(
        &mut self,
        kind: ManifestKind,
        config: Option<ContentIndex>,
        references: &[ContentIndex],
        subject: Option<ContentIndex>,
        need: Need,
    ) -> ContentIndex {
        let number = number_of(self.registry.manifests.len());
        let start = number_of(self.registry.references.len());
        self.registry.references.extend_from_slice(references);
        let references = start..number_of(self.registry.references.len());
        self.registry.manifests.push(Manifest { kind, config, references, subject });
        let text = documents::manifest(&self.registry, number);
        let content = self.document(Body::Manifest(number), &text);
        self.need(content, need);
        content
    }

    /// Content that has its real digest.
    fn document(&mut self, body: Body, text: &str) -> ContentIndex {
        self.content(Sha256::digest(text).into(), text.len() as u64, body)
    }

    /// A new layer of 1 KiB to 256 MiB.
    fn layer(&mut self) -> ContentIndex {
        let name = format!("layer {} {}", self.seed, self.registry.contents.len());
        let size = (1024.0 * (self.rng.f64() * 18.0).exp2()) as u64;
        self.content(Sha256::digest(name).into(), size, Body::Zeros)
    }

    fn content(&mut self, hash: [u8; 32], size: u64, body: Body) -> ContentIndex {
        let index = number_of(self.registry.contents.len());
        self.registry.contents.push(Content { hash, size, body });
        self.needs.push(Need::Nobody);
        index
    }

    fn finish(mut self) -> Registry {
        let registry = &mut self.registry;
        let census = &mut registry.census;
        for (index, (content, need)) in registry.contents.iter().zip(&self.needs).enumerate() {
            registry.entries.push(Entry::Content(number_of(index)));
            census.content.add(content.size);
            match need {
                Need::Nobody => census.garbage.content.add(content.size),
                Need::Untagged => census.untagged.content.add(content.size),
                Need::Tagged => {}
            }
        }
        let mut entries = std::mem::take(&mut registry.entries);
        entries.sort_by_cached_key(|entry| registry.key(*entry));
        for entry in &entries {
            let size = registry.size(*entry);
            registry.census.total.add(size);
        }
        registry.entries = entries;
        self.registry
    }
}

/// A place in a list. None of them gets near the end of the numbers: the memory would end before.
fn number_of(place: usize) -> u32 {
    u32::try_from(place).expect("fewer than 4,294,967,296 of a kind")
}
