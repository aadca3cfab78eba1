//! A small registry, written through the registry's own handlers.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use moorage::oci::{Digest, Name, Tag};
use moorage::store::layout::{self, Key};

use crate::check::{Checked, Checker, Options, Stage};
use crate::simulation::bucket::{Blindness, Object, SimHttp, SimStore};
use crate::simulation::client::{Client, blob, digest_of, image, index};
use crate::simulation::proxy::Proxy;
use crate::simulation::world::World;
use crate::time::Clock as _;

/// How long a change may take that is under way.
pub const SETTLE: Duration = Duration::from_secs(5);

/// Repository `a` has the image `one`, which `b` has as well, an index `multi` of two images, and something that refers to
/// `one`; a tag and a manifest were deleted.
pub struct Fixture {
    pub world: Rc<World>,
    pub store: Rc<SimStore>,
    pub one: Digest,
    pub config: Digest,
    pub layer: Digest,
    pub signature: Digest,
    pub index: Digest,
    pub child: Digest,
    pub child_layer: Digest,
}

impl Fixture {
    pub fn empty() -> Self {
        let (world, store) = (World::new(7), Rc::new(SimStore::default()));
        let none = digest_of(b"");
        Self {
            world,
            store,
            one: none.clone(),
            config: none.clone(),
            layer: none.clone(),
            signature: none.clone(),
            index: none.clone(),
            child: none.clone(),
            child_layer: none,
        }
    }

    pub fn new() -> Self {
        let empty = Self::empty();
        let proxy = Proxy::new(&empty.world, &empty.store, Blindness::None);
        let client = Client {
            world: Rc::clone(&empty.world),
            proxy,
            ledger: Rc::default(),
            grace: Duration::from_secs(3600),
        };
        let blobs = |names: &[&str]| names.iter().map(|name| blob(name)).collect::<Vec<_>>();
        let (of_one, of_amd, of_arm) = (
            blobs(&["config", "layer"]),
            blobs(&["amd config", "amd"]),
            blobs(&["arm config", "arm"]),
        );
        let (one, amd, arm) = (image(&of_one, None), image(&of_amd, None), image(&of_arm, None));
        let signed = blobs(&["empty", "signature"]);
        let (signature, multi) = (image(&signed, Some(&one)), index(&[amd.clone(), arm.clone()]));
        let gone = image(&of_one[..1], None);
        let fixture = Self {
            one: digest_of(&one),
            config: digest_of(&of_one[0]),
            layer: digest_of(&of_one[1]),
            signature: digest_of(&signature),
            index: digest_of(&multi),
            child: digest_of(&arm),
            child_layer: digest_of(&of_arm[1]),
            ..empty
        };
        let (subject, by_digest) = (fixture.one.clone(), digest_of(&amd));
        let (child, by_signature) = (fixture.child.clone(), fixture.signature.clone());
        fixture.world.quietly(async move {
            assert!(client.push("a", "one", &of_one, one.clone(), None).await);
            assert!(client.push("a", "same", &of_one, one.clone(), None).await);
            assert!(client.push("b", "one", &of_one, one, None).await);
            assert!(client.push("a", by_digest.as_str(), &of_amd, amd, None).await);
            assert!(client.push("a", child.as_str(), &of_arm, arm, None).await);
            assert!(client.push("a", "multi", &[], multi, None).await);
            let reference = by_signature.as_str();
            assert!(client.push("a", reference, &signed, signature, Some(subject)).await);
            assert!(client.push("b", "gone", &of_one[..1], gone.clone(), None).await);
            client.delete_tag("b", "gone").await;
        });
        fixture
    }

    pub fn keys(&self) -> Vec<String> {
        self.store.objects.borrow().keys().cloned().collect()
    }

    pub fn remove(&self, key: &Key) -> Object {
        let removed = self.store.objects.borrow_mut().remove(key.as_str());
        removed.unwrap_or_else(|| panic!("there is no {}", key.as_str()))
    }

    pub fn put(&self, key: &Key, bytes: impl Into<Bytes>) {
        let object = Object { bytes: bytes.into(), modified: self.world.now() };
        self.store.objects.borrow_mut().insert(key.as_str().to_owned(), object);
    }

    pub fn check(&self, is_deep: bool, repositories: Option<&str>) -> Checked {
        self.check_while(is_deep, repositories, |_| {})
    }

    /// Checks while something else happens.
    pub fn check_while(
        &self,
        is_deep: bool,
        repositories: Option<&str>,
        at: impl Fn(Stage) + 'static,
    ) -> Checked {
        let bucket = SimHttp::bucket(&self.world, &self.store, Blindness::None);
        let options = Options {
            repositories: repositories
                .map(|glob| glob.parse().expect("a pattern"))
                .into_iter()
                .collect(),
            is_deep,
            settle: SETTLE,
            parallel: 4,
        };
        let world = Rc::clone(&self.world);
        self.world.quietly(async move {
            let checker = Checker { bucket: &bucket, clock: &*world, options: &options };
            checker.run(at).await.expect("the store works")
        })
    }
}

/// The findings, as `level problem place`.
pub fn problems(checked: &Checked) -> Vec<String> {
    let findings = checked.findings.iter().map(|finding| {
        let place = checked.told(finding).place.unwrap_or_default();
        format!("{} {} {place}", finding.level().as_str(), finding.problem.as_str())
            .trim_end()
            .to_owned()
    });
    findings.collect()
}

pub fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

pub fn tag(text: &str) -> Tag {
    text.parse().expect("a tag")
}

pub fn blob_link(repository: &str, digest: &Digest) -> Key {
    layout::blob_link(&name(repository), digest)
}

pub fn manifest_link(repository: &str, digest: &Digest) -> Key {
    layout::manifest_link(&name(repository), digest)
}

pub fn tag_link(repository: &str, text: &str) -> Key {
    layout::tag_link(&name(repository), &tag(text))
}
