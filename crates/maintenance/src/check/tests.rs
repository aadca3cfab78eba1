//! A tree that Moorage's own handlers wrote, damaged in each way: what is found, what is not, and what comes right while it
//! is looked at.

mod damage;
mod faults;
mod fixture;
mod settling;

use fixture::{Fixture, problems};

/// What a proxy wrote is whole, whatever has been done to it through the API.
#[test]
fn nothing_is_wrong_with_what_moorage_wrote() {
    let fixture = Fixture::new();
    for is_deep in [false, true] {
        let checked = fixture.check(is_deep, None);
        assert_eq!(problems(&checked), Vec::<String>::new(), "deep: {is_deep}");
        assert_eq!((checked.repositories, checked.manifests), (2, 6));
        let contents = fixture.keys().iter().filter(|key| key.ends_with("/data")).count() as u64;
        assert_eq!(checked.hashed.map(|hashed| hashed.objects), is_deep.then_some(contents));
    }
}

#[test]
fn nothing_is_wrong_with_what_is_not_there() {
    let checked = Fixture::empty().check(true, None);
    assert_eq!((problems(&checked), checked.repositories), (Vec::new(), 0));
}
