//! What the log is told once, however many workers find it out: what is on, what is dangerous, what the store can do.

use std::cell::Cell;
use std::hash::BuildHasher as _;
use std::net::SocketAddr;

use foldhash::fast::FixedState;

use super::host::Host;
use crate::config::Config;
use crate::store::{Objects, Uploads};

/// How many requests of a worker are looked at for the address that they came to. Each look is a call to Envoy, and where
/// so many have come by loopback nearly all will.
const LOOKS: u16 = 1_000;

/// What has been told, as the workers of one proxy know it from the data that they share.
#[derive(Debug)]
pub struct Announcements<H> {
    host: H,
    /// Of this configuration: another one is told of anew.
    configuration: u64,
    /// What is said of a listener that other machines reach, until a request has come by one.
    open_listener: Cell<Option<&'static str>>,
    /// How many requests are still looked at for that.
    looks_left: Cell<u16>,
    heeds_conditions: Cell<Option<bool>>,
    verifies_checksums: Cell<Option<bool>>,
}

impl<H: Host> Announcements<H> {
    /// What is told of a configuration, which was read from this JSON.
    pub fn new(host: H, config: &Config, json: &[u8]) -> Self {
        Self {
            host,
            configuration: FixedState::default().hash_one(json),
            open_listener: Cell::new(config.open_listener_warning()),
            looks_left: Cell::new(LOOKS),
            heeds_conditions: Cell::default(),
            verifies_checksums: Cell::default(),
        }
    }

    /// Tells what is on, and what is dangerous.
    pub fn begin(&self, config: &Config) {
        if self.is_first("configuration") {
            log::info!("{}", config.announcement());
            config.warnings().into_iter().for_each(|warning| log::warn!("{warning}"));
        }
    }

    /// Looks at the address at which the request has come that is here now, until one is not loopback: what listens at all
    /// addresses of a machine listens at loopback as well, and the first requests may come there.
    pub fn look_at_listener(&self) {
        let Some(warning) = self.open_listener.get() else {
            return;
        };
        let Some(looks_left) = self.looks_left.get().checked_sub(1) else {
            return;
        };
        self.looks_left.set(looks_left);
        let address = self.host.property(vec!["destination", "address"]);
        let address = address.and_then(|text| String::from_utf8(text).ok());
        let address = address.and_then(|text| text.parse::<SocketAddr>().ok());
        if address.is_none_or(|address| address.ip().to_canonical().is_loopback()) {
            return;
        }
        self.open_listener.set(None);
        if self.is_first("listener") {
            log::warn!("{warning}");
        }
    }

    /// Tells what has been found out about the store.
    pub fn tell_of_store(&self, store: &(impl Objects + Uploads)) {
        let conditions = store.heeds_conditions().get();
        if self.heeds_conditions.replace(conditions) != conditions
            && let Some(heeds) = conditions
            && self.is_first("conditions")
        {
            match heeds {
                true => log::info!("the blob store heeds the conditions of writes"),
                false => log::warn!(
                    "the blob store does not heed the conditions of writes: requests with If-Match or If-None-Match, and \
                     those that set an immutable tag (policy.tags.immutable), are answered 501"
                ),
            }
        }
        let checksums = store.known_to_verify_checksums();
        if self.verifies_checksums.replace(checksums) != checksums
            && let Some(verifies) = checksums
            && self.is_first("checksums")
        {
            match verifies {
                true => log::info!("the blob store verifies the checksums of what it is sent"),
                false => log::info!(
                    "the blob store does not verify checksums: uploads are hashed here, which is slower"
                ),
            }
        }
    }

    fn key(&self, what: &str) -> String {
        format!("moorage/told/{:x}/{what}", self.configuration)
    }

    /// Whether no worker has told of this yet.
    fn is_first(&self, what: &str) -> bool {
        let key = self.key(what);
        let (_, number) = self.host.shared_data(&key);
        number.is_none() && self.host.set_shared_data(&key, None, None).is_ok()
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::filter::scripted_host::{ScriptedHost, StreamState};

    #[test]
    fn a_listener_is_looked_at_until_a_request_comes_by_one_that_others_reach() {
        const JSON: &[u8] = br#"{"store":{"cluster":"c","authority":"s3","bucket":"registry"}}"#;
        let host = ScriptedHost::default();
        let config = Config::parse(JSON).expect("a valid configuration");
        let announcements = Announcements::new(host.clone(), &config, JSON);
        for (address, is_open) in [
            ("127.0.0.1:5000", true),
            ("[::1]:5000", true),
            ("[::ffff:127.0.0.1]:5000", true),
            ("/run/registry.sock", true),
            ("192.0.2.1:5000", false),
        ] {
            let mut stream = StreamState::default();
            stream.properties.insert("destination.address".to_owned(), address.into());
            host.state().streams.insert(2, stream);
            host.state().effective = Some(2);
            announcements.look_at_listener();
            assert_eq!(announcements.open_listener.get().is_some(), is_open, "{address}");
        }
        let (_, told) = host.shared_data(&announcements.key("listener"));
        assert!(told.is_some(), "no other worker tells of it");
    }
}
