//! What comes right, or goes, while it is looked at.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use moorage::store::layout;

use super::fixture::{Fixture, SETTLE, blob_link, manifest_link, problems, tag_link};
use crate::check::Stage;
use crate::simulation::bucket::Object;

/// An object of a registry.
type ObjectOf = fn(&Fixture) -> layout::Key;

/// Objects that are removed, and what is found if they stay away.
const ROWS: &[(ObjectOf, &[&str])] = &[
    (|f| layout::content(&f.layer), &["error blob-missing a", "error blob-missing b"]),
    (|f| layout::content(&f.one), &["error manifest-missing a", "error manifest-missing b"]),
    (|f| blob_link("a", &f.config), &["error blob-not-linked a"]),
    (|f| manifest_link("b", &f.one), &["error tag-without-manifest b:one"]),
    (|f| manifest_link("a", &f.child), &["warning child-missing a"]),
    (|_| tag_link("b", "one"), &["note history-without-tag b:one"]),
];

#[test]
fn what_is_there_when_it_is_looked_at_again_is_no_finding() {
    for (key, expected) in ROWS {
        let fixture = Fixture::new();
        let key = key(&fixture);
        let object = fixture.remove(&key);
        assert_eq!(problems(&fixture.check(false, None)), *expected, "{}", key.as_str());
        let (store, put) = (Rc::clone(&fixture.store), key.as_str().to_owned());
        let checked = fixture.check_while(false, None, move |stage| {
            if matches!(stage, Stage::LookingAgain(_)) {
                store.objects.borrow_mut().insert(put.clone(), object.clone());
            }
        });
        assert_eq!(problems(&checked), Vec::<String>::new(), "{}", key.as_str());
    }
}

#[test]
fn what_comes_a_little_later_is_no_finding_and_what_comes_too_late_is_one() {
    for (after, expected) in [
        (SETTLE - Duration::from_secs(1), &[][..]),
        (SETTLE + Duration::from_secs(1), &["error blob-not-linked a"]),
    ] {
        let fixture = Fixture::new();
        let key = blob_link("a", &fixture.layer);
        let object = fixture.remove(&key);
        let (world, store) = (Rc::clone(&fixture.world), Rc::clone(&fixture.store));
        let is_begun = Cell::new(false);
        let checked = fixture.check_while(false, None, move |stage| {
            if matches!(stage, Stage::LookingAgain(_)) && !is_begun.replace(true) {
                let (store, key, object) = (Rc::clone(&store), key.clone(), object.clone());
                world.after(after, move || {
                    store.objects.borrow_mut().insert(key.as_str().to_owned(), object);
                });
            }
        });
        assert_eq!(problems(&checked), expected, "{after:?}");
    }
}

/// A manifest is deleted: its link, then its tags, then what is noted of it; and garbage after that.
#[test]
fn what_is_gone_when_it_is_looked_at_again_is_no_finding() {
    let fixture = Fixture::new();
    fixture.remove(&manifest_link("b", &fixture.one));
    fixture.remove(&layout::content(&fixture.layer));
    fixture.remove(&blob_link("a", &fixture.config));
    assert_eq!(
        problems(&fixture.check(false, None)),
        [
            "error blob-missing a",
            "error blob-not-linked a",
            "error tag-without-manifest b:one",
            "warning link-dangling b",
        ]
    );
    let store = Rc::clone(&fixture.store);
    let checked = fixture.check_while(false, None, move |stage| {
        if matches!(stage, Stage::LookingAgain(_)) {
            store
                .objects
                .borrow_mut()
                .retain(|key, _: &mut Object| !key.contains("/repositories/"));
        }
    });
    assert_eq!(problems(&checked), Vec::<String>::new());
}

/// Without the manifest that needs it, a blob that is gone matters less.
#[test]
fn a_blob_whose_manifest_is_deleted_meanwhile_is_no_error() {
    let fixture = Fixture::new();
    fixture.remove(&layout::content(&fixture.layer));
    let (store, one) = (Rc::clone(&fixture.store), fixture.one.clone());
    let checked = fixture.check_while(false, None, move |stage| {
        if matches!(stage, Stage::LookingAgain(_)) {
            let mut objects = store.objects.borrow_mut();
            objects.retain(|key, _| !key.contains(one.hex()) && !key.contains("/tags/"));
        }
    });
    assert_eq!(problems(&checked), ["warning link-dangling a", "warning link-dangling b"]);
}
