//! What lies in a bucket after years of use, and nobody needs.

use super::{Need, Planner, Repository, number_of};
use crate::registry::{ContentIndex, Entry, TagName};

impl Planner {
    /// Blobs that were pushed, and a manifest that never came.
    pub(super) fn abandoned_repository(&mut self, name: String) {
        let mut repository = self.open(name);
        for _ in 0..self.rng.u32(3..9) {
            let layer = self.layer();
            self.link(&mut repository, layer, Need::Nobody);
        }
        self.registry.census.garbage.repositories += 1;
        self.close(repository);
    }

    /// What a build may leave behind in the course of time.
    pub(super) fn garbage(&mut self, repository: &mut Repository, manifest: ContentIndex) {
        // Pushed, and the manifest that should refer to it never came.
        if self.happens(25) {
            let layer = self.layer();
            self.link(repository, layer, Need::Nobody);
        }
        // The same, but somebody else has the layer as well, or this repository does.
        if self.happens(5) {
            let base = self.rng.usize(0..self.bases.len());
            let layer = self.bases[base][0];
            self.link(repository, layer, Need::Nobody);
        }
        // Pushed, and then its link was removed.
        if self.happens(10) {
            self.layer();
        }
        // A manifest that was deleted, with its tag, which may have left its history.
        if self.happens(8) {
            let deleted = self.image(repository, Need::Nobody);
            if self.happens(50) {
                self.gone_tag(repository, deleted);
            }
        }
        if self.happens(5) {
            self.gone_tag(repository, manifest);
        }
        if self.happens(3) {
            let signature = self.signature(repository, manifest, Need::Nobody);
            let entry = Entry::Referrer(repository.index, manifest, signature);
            self.registry.entries.push(entry);
            self.registry.census.garbage.referrers += 1;
        }
    }

    fn gone_tag(&mut self, repository: &Repository, manifest: ContentIndex) {
        let name = TagName::Gone(number_of(self.registry.tags.len()));
        let tag = self.name(repository, name);
        self.registry.entries.push(Entry::History(tag, manifest));
        self.registry.census.garbage.tag_histories += 1;
    }
}
