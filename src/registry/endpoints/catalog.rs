//! `/v2/_catalog`
//!
//! Source: Docker Registry HTTP API V2, "Catalog". The OCI specification has no such endpoint.

use bytes::Bytes;
use http::Response;
use serde::Serialize;

use crate::oci::Name;
use crate::registry::Request;
use crate::registry::access::Permit;
use crate::registry::http::error::Error;
use crate::registry::http::pagination::{self, PageRequest, size_of_names};
use crate::registry::http::reply::json;
use crate::store::Store;

/// How many listings a page is made of at most where repositories are left out. Each may cost as many calls to the store as
/// a page elsewhere.
const LISTINGS_MAX: usize = 2;

/// How many repositories each of these has at least, however few are asked for. A page that ends because there were enough
/// listings has a `Link`, which tells that something was left out; with small ones it would tell, for any `last` that
/// somebody tries, how many names there are after it, and so in the end the names.
const LISTED_MIN: usize = 100;

#[derive(Serialize)]
struct Catalog<'a> {
    repositories: Vec<&'a str>,
}

/// `GET` and `HEAD`. A page may have fewer repositories than were asked for, even none, and still a `Link`
/// to the next.
///
/// Where the caller may not pull from all repositories, the others are left out, and the cursor of the next page is
/// encrypted: it may be the name of one of them.
pub async fn list(
    request: &Request,
    permit: &Permit<'_>,
    store: &impl Store,
) -> Result<Response<Bytes>, Error> {
    let page = PageRequest::parse(request)?;
    if page.entries == 0 {
        return Ok(reply(&[]));
    }
    let listed = match permit.sees_all() {
        true => page.entries,
        false => page.entries.max(LISTED_MIN),
    };
    let _room = store.reserve_read(size_of_names(page.entries + listed))?;
    let (names, next) = match permit.sees_all() {
        true => {
            let found = store.repositories(&page.last, listed).await?;
            (found.names, found.next)
        }
        false => visible(&page, listed, permit, store).await?,
    };
    let mut response = reply(&names);
    if let Some(last) = next {
        let is_shown = names.last().is_some_and(|shown| shown.as_str() == last);
        let cursor = if is_shown { last } else { permit.cursor(last, request) };
        let entries = page.entries.to_string();
        let link = pagination::link("/v2/_catalog", &[("n", &entries), ("last", &cursor)]);
        response.headers_mut().extend(link);
    }
    Ok(response)
}

/// The repositories of a page that the caller may see, and where the next begins. Each listing has so many.
async fn visible(
    page: &PageRequest<'_>,
    listed: usize,
    permit: &Permit<'_>,
    store: &impl Store,
) -> Result<(Vec<Name>, Option<String>), Error> {
    let mut names = Vec::new();
    let mut last = Some(permit.name_of_cursor(page.last.to_string())?);
    for _ in 0..LISTINGS_MAX {
        let Some(after) = last.as_ref().filter(|_| names.len() <= page.entries) else {
            break;
        };
        let found = store.repositories(after, listed).await?;
        names.extend(found.names.into_iter().filter(|name| permit.may_see(name)));
        last = found.next;
    }
    // The one more that shows that there are more.
    if names.len() > page.entries {
        names.truncate(page.entries);
        last = names.last().map(Name::to_string);
    }
    Ok((names, last))
}

fn reply(names: &[Name]) -> Response<Bytes> {
    let repositories = names.iter().map(Name::as_str).collect();
    json(&Catalog { repositories }, "application/json")
}

#[cfg(test)]
mod tests {
    use http::header::LINK;
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use crate::registry::test_registry::{error, get, pages};
    use crate::store::memory::MemoryStore;
    use crate::store::{StoreErrorKind, layout};

    fn store() -> MemoryStore {
        let store = MemoryStore::default();
        for name in ["b", "a-b", "a/b", "a", "only/nested"] {
            store.put_blob(&name.parse().expect("a valid name"), b"blob");
        }
        let tagged = "tagged".parse().expect("a valid name");
        store.put_manifest(&tagged, &"1".parse().expect("a valid tag"), b"{}");
        store
    }

    #[test]
    fn repositories_are_listed_by_their_components() {
        let (response, _) = get(&store(), "/v2/_catalog");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "application/json");
        assert!(!response.headers().contains_key(LINK));
        let expected = r#"{"repositories":["a","a/b","a-b","b","only/nested","tagged"]}"#;
        assert_eq!(response.body(), expected);
    }

    #[test]
    fn a_link_leads_from_page_to_page() {
        let pages = pages(&store(), "/v2/_catalog?n=2");
        let names: Vec<_> = pages.iter().map(|page| page["repositories"].clone()).collect();
        let expected = serde_json::json!([["a", "a/b"], ["a-b", "b"], ["only/nested", "tagged"]]);
        assert_eq!(serde_json::Value::from(names), expected);
    }

    #[test]
    fn no_repositories_are_an_empty_list() {
        for (store, query) in
            [(MemoryStore::default(), ""), (store(), "?n=0"), (store(), "?last=tagged")]
        {
            let (response, _) = get(&store, &format!("/v2/_catalog{query}"));
            assert_eq!(response.body(), r#"{"repositories":[]}"#, "{query}");
            assert!(!response.headers().contains_key(LINK), "{query}");
        }
    }

    #[test]
    fn storage_faults_are_never_an_empty_list() {
        for key in
            [layout::all_repositories(), layout::repository(&"a".parse().expect("a valid name"))]
        {
            let mut store = store();
            store.fail(key, StoreErrorKind::Unavailable);
            let (response, _) = get(&store, "/v2/_catalog");
            assert_eq!(error(&response), (503, "UNAVAILABLE".to_owned()));
        }
    }
}
