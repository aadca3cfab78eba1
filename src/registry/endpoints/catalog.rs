//! `/v2/_catalog`
//!
//! Source: Docker Registry HTTP API V2, "Catalog". The OCI specification has no such endpoint.

use bytes::Bytes;
use http::Response;
use serde::Serialize;

use crate::oci::Name;
use crate::registry::Request;
use crate::registry::http::error::Error;
use crate::registry::http::pagination::{self, PageRequest};
use crate::registry::http::reply::json;
use crate::store::Store;

#[derive(Serialize)]
struct Catalog<'a> {
    repositories: Vec<&'a str>,
}

/// `GET` and `HEAD`. A page may have fewer repositories than were asked for, even none, and still a `Link`
/// to the next.
pub async fn list(request: &Request, store: &impl Store) -> Result<Response<Bytes>, Error> {
    let page = PageRequest::parse(request)?;
    if page.entries == 0 {
        return Ok(reply(&[]));
    }
    let _room = store.reserve_read(page.size_of_names())?;
    let found = store.repositories(&page.last, page.entries).await?;
    let mut response = reply(&found.names);
    if let Some(last) = &found.next {
        let entries = page.entries.to_string();
        let link = pagination::link("/v2/_catalog", &[("n", &entries), ("last", last.as_str())]);
        response.headers_mut().extend(link);
    }
    Ok(response)
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
