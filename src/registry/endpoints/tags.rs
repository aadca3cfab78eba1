//! `/v2/<name>/tags/list`
//!
//! Source: OCI distribution specification, "Listing Tags".

use bytes::Bytes;
use http::Response;
use serde::Serialize;

use crate::oci::{Name, Tag};
use crate::registry::Request;
use crate::registry::http::error::{Error, ErrorCode};
use crate::registry::http::pagination::{self, PageRequest};
use crate::registry::http::reply::json;
use crate::store::Store;

#[derive(Serialize)]
struct Tags<'a> {
    name: &'a str,
    tags: Vec<&'a str>,
}

/// `GET` and `HEAD`: mostly two round trips to the store for every thousand tags of the page.
pub async fn list(
    request: &Request,
    store: &impl Store,
    name: &Name,
) -> Result<Response<Bytes>, Error> {
    let page = PageRequest::parse(request)?;
    if page.entries == 0 {
        return Ok(reply(name, &[]));
    }
    let _room = store.reserve_read(page.size_of_names())?;
    let found = store.tags(name, &page.last, page.entries).await?;
    if found.names.is_empty() && !store.has_anything(name).await? {
        return Err(name_unknown(name));
    }
    let mut response = reply(name, &found.names);
    if let Some(last) = found.names.last().filter(|_| found.more) {
        let path = format!("/v2/{name}/tags/list");
        let entries = page.entries.to_string();
        let link = pagination::link(&path, &[("n", &entries), ("last", last.as_str())]);
        response.headers_mut().extend(link);
    }
    Ok(response)
}

fn reply(name: &Name, tags: &[Tag]) -> Response<Bytes> {
    let tags = tags.iter().map(Tag::as_str).collect();
    json(&Tags { name: name.as_str(), tags }, "application/json")
}

fn name_unknown(name: &Name) -> Error {
    let message = format!("there is no repository {name}");
    let detail = serde_json::json!({ "name": name.as_str() });
    Error::new(ErrorCode::NameUnknown, message).with_detail(detail)
}

#[cfg(test)]
mod tests {
    use http::header::LINK;
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use crate::registry::test_registry::{error, get, name, pages};
    use crate::store::memory::MemoryStore;
    use crate::store::{StoreErrorKind, layout};

    fn store(tags: &[&str]) -> MemoryStore {
        let mut store = MemoryStore::default();
        store.page_limit = Some(1000);
        for tag in tags {
            store.put_manifest(&name(), &tag.parse().expect("a valid tag"), b"{}");
        }
        store
    }

    #[test]
    fn tags_are_listed_in_their_own_order() {
        let store = store(&["latest", "1.2", "1-alpine", "1", "Z", "_"]);
        let (response, round_trips) = get(&store, "/v2/a/b/tags/list");
        assert_eq!((response.status().as_u16(), round_trips), (200, 1));
        assert_eq!(response.headers()["content-type"], "application/json");
        assert!(!response.headers().contains_key(LINK));
        let expected = r#"{"name":"a/b","tags":["1","1-alpine","1.2","Z","_","latest"]}"#;
        assert_eq!(response.body(), expected);
    }

    #[test]
    fn a_link_leads_from_page_to_page() {
        let store = store(&["1", "1-alpine", "1.2", "2", "3"]);
        let pages = pages(&store, "/v2/a/b/tags/list?n=2");
        let tags: Vec<_> = pages.iter().map(|page| page["tags"].clone()).collect();
        let expected = serde_json::json!([["1", "1-alpine"], ["1.2", "2"], ["3"]]);
        assert_eq!(serde_json::Value::from(tags), expected);
    }

    #[test]
    fn an_empty_page_belongs_to_a_repository_that_has_something() {
        let tagged = store(&["1"]);
        let untagged = MemoryStore::default();
        untagged.put_blob(&name(), b"blob");
        for (store, query) in [(&tagged, "?last=1"), (&tagged, "?n=0"), (&untagged, "")] {
            let (response, _) = get(store, &format!("/v2/a/b/tags/list{query}"));
            assert_eq!(response.body(), r#"{"name":"a/b","tags":[]}"#, "{query}");
            assert!(!response.headers().contains_key(LINK), "{query}");
        }
        // `a` is nothing but the beginning of a name.
        for path in ["/v2/a/tags/list", "/v2/b/tags/list?last=x"] {
            assert_eq!(error(&get(&tagged, path).0), (404, "NAME_UNKNOWN".to_owned()), "{path}");
        }
    }

    #[test]
    fn storage_faults_are_never_an_empty_list() {
        for key in [layout::tags(&name()), layout::own(&name())] {
            let mut store = MemoryStore::default();
            store.fail(key, StoreErrorKind::Failed);
            let (response, _) = get(&store, "/v2/a/b/tags/list");
            assert_eq!(error(&response), (500, "UNKNOWN".to_owned()));
        }
    }

    #[test]
    fn a_number_that_is_none_is_refused() {
        let (response, round_trips) = get(&store(&["1"]), "/v2/a/b/tags/list?n=x");
        assert_eq!(error(&response), (400, "PAGINATION_NUMBER_INVALID".to_owned()));
        assert_eq!(round_trips, 0);
    }
}
