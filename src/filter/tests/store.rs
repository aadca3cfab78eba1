//! The store behind the proxy: it keeps whole objects, and lists them on one page.

use std::collections::{BTreeSet, HashMap};

use super::driver::Proxy;
use crate::filter::scripted_host::Call;
use crate::oci::{Algorithm, Digest};

/// Where the store has the repository `a`.
pub const REPOSITORY: &str = "/registry/docker/registry/v2/repositories/a";

impl Proxy {
    /// The status and the body of the answer to a call.
    pub fn serve(&mut self, call: &Call) -> (u16, Vec<u8>) {
        if let Some((_, query)) = call.path.split_once('?') {
            return (200, self.list(query).into());
        }
        match (call.method.as_str(), self.objects.get(&call.path)) {
            ("PUT", _) => {
                self.objects.insert(call.path.clone(), call.body.clone());
                (200, Vec::new())
            }
            ("DELETE", _) => {
                self.objects.remove(&call.path);
                (204, Vec::new())
            }
            ("HEAD", Some(_)) => (200, Vec::new()),
            (_, Some(object)) => (200, object.clone()),
            ("HEAD", None) => (404, Vec::new()),
            (_, None) => (404, b"<Error><Code>NoSuchKey</Code></Error>".to_vec()),
        }
    }

    /// The listing that a query asks for.
    fn list(&self, query: &str) -> String {
        let parameters: HashMap<_, _> = form_urlencoded::parse(query.as_bytes()).collect();
        let prefix = &*parameters["prefix"];
        let keys = self.objects.keys().filter_map(|path| path.strip_prefix("/registry/"));
        let entries: BTreeSet<String> = keys
            .filter_map(|key| key.strip_prefix(prefix))
            .map(|rest| {
                match rest.split_once('/').filter(|_| parameters.contains_key("delimiter")) {
                    Some((folder, _)) => {
                        format!(
                            "<CommonPrefixes><Prefix>{prefix}{folder}/</Prefix></CommonPrefixes>"
                        )
                    }
                    None => format!("<Contents><Key>{prefix}{rest}</Key></Contents>"),
                }
            })
            .collect();
        format!("<ListBucketResult>{}</ListBucketResult>", entries.into_iter().collect::<String>())
    }

    /// Puts content into the store, and a link to it as a blob and as a manifest of the repository `a`.
    pub fn put(&mut self, content: &[u8]) -> Digest {
        let digest = Digest::of(Algorithm::Sha256, content);
        let hex = digest.hex();
        let path = format!("/registry/docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]);
        self.objects.insert(path, content.to_vec());
        for kind in ["_layers", "_manifests/revisions"] {
            let link = format!("{REPOSITORY}/{kind}/sha256/{hex}/link");
            self.objects.insert(link, digest.to_string().into_bytes());
        }
        digest
    }

    /// Begins an upload to the repository `a`, and gives its `Location`.
    pub fn begin_upload(&mut self) -> String {
        let id = self.ask("POST", "/v2/a/blobs/uploads/", &[]);
        let reply = self.reply(id).expect("a reply");
        assert_eq!(reply.status, 202);
        let location = reply.headers.into_iter().find(|(name, _)| name == "location");
        self.close(id);
        location.expect("a location").1
    }
}
