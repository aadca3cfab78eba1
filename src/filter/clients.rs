//! Limits by client: none gets so much that nothing is left for the others.
//!
//! A client is an address, as Envoy determines it (`use_remote_address`, `xff_num_trusted_hops`); of IPv6, the
//! network of 64 bits, which is what one customer of a provider has.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::rc::Rc;

use super::host::Host;

/// The clients of a worker that have something under way.
pub struct Clients {
    /// The most streams of a client; if it is 0 clients are not told apart, and nothing is limited.
    streams_max: u32,
    /// The most bytes of bodies and replies that are held for a client.
    bytes_max: usize,
    usage: RefCell<HashMap<IpAddr, Usage>>,
}

/// The streams and the memory of a client.
#[derive(Default, PartialEq)]
struct Usage {
    streams: u32,
    bytes: usize,
}

/// The part of its client's share that one request has, until it is dropped.
pub struct ClientShare {
    clients: Rc<Clients>,
    /// None for a client without an address, which is not counted.
    address: Option<IpAddr>,
    is_stream: bool,
    bytes: usize,
}

impl Clients {
    /// Clients that may have so many streams each and so many bytes of memory; as much as they like if `streams_max`
    /// is 0.
    pub fn new(streams_max: u32, bytes_max: usize) -> Self {
        Self { streams_max, bytes_max, usage: RefCell::default() }
    }

    /// Nothing yet of the client for whose request Envoy is calling back.
    pub fn current(self: &Rc<Self>, host: &impl Host) -> ClientShare {
        let address = if self.streams_max == 0 { None } else { source_address(host) };
        ClientShare { clients: Rc::clone(self), address, is_stream: false, bytes: 0 }
    }
}

#[cfg(test)]
impl Clients {
    /// Whether nobody has anything under way.
    pub fn are_idle(&self) -> bool {
        self.usage.borrow().is_empty()
    }
}

impl ClientShare {
    /// Counts the request as a stream; `false` if the client has as many as it may have.
    pub fn begin_stream(&mut self) -> bool {
        let max = self.clients.streams_max;
        if !self.is_stream {
            self.is_stream = self.change(|usage| {
                let may_begin = usage.streams < max;
                usage.streams += u32::from(may_begin);
                may_begin
            });
        }
        self.is_stream
    }

    /// Counts so many bytes more that are held for the request; `false` if that is more than the client may
    /// have.
    pub fn hold(&mut self, bytes: usize) -> bool {
        let max = self.clients.bytes_max;
        let is_held = self.change(|usage| {
            let held = usage.bytes.saturating_add(bytes);
            let is_held = held <= max;
            usage.bytes = if is_held { held } else { usage.bytes };
            is_held
        });
        self.bytes += if is_held { bytes } else { 0 };
        is_held
    }

    /// None of the bytes is held any more.
    pub fn release_bytes(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        self.change(|usage| {
            usage.bytes = usage.bytes.saturating_sub(bytes);
            true
        });
    }

    /// Changes what the client has, if it is counted. Who has nothing is forgotten.
    fn change(&self, change: impl FnOnce(&mut Usage) -> bool) -> bool {
        let Some(address) = self.address else {
            return true;
        };
        let mut usage_of = self.clients.usage.borrow_mut();
        let usage = usage_of.entry(address).or_default();
        let result = change(usage);
        if *usage == Usage::default() {
            usage_of.remove(&address);
        }
        result
    }
}

impl Drop for ClientShare {
    fn drop(&mut self) {
        self.release_bytes();
        if self.is_stream {
            self.change(|usage| {
                usage.streams = usage.streams.saturating_sub(1);
                true
            });
        }
    }
}

/// The address that Envoy takes the client to have; `None` for one that came by a local socket.
pub fn source_address(host: &impl Host) -> Option<IpAddr> {
    let address = host.property(vec!["source", "address"])?;
    let address: SocketAddr = std::str::from_utf8(&address).ok()?.parse().ok()?;
    Some(match address.ip().to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() >> 64 << 64;
            Ipv6Addr::from_bits(network).into()
        }
        address => address,
    })
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::filter::scripted_host::{ScriptedHost, StreamState};

    /// A host that calls back for a request of this source.
    fn host(source: &[u8]) -> ScriptedHost {
        let host = ScriptedHost::default();
        let mut stream = StreamState::default();
        stream.properties.insert("source.address".to_owned(), source.to_vec());
        host.state().streams.insert(2, stream);
        host.state().effective = Some(2);
        host
    }

    #[test]
    fn a_client_is_an_address_or_a_network_of_64_bits_whatever_its_port() {
        for (source, expected) in [
            (&b"192.0.2.1:1234"[..], Some("192.0.2.1")),
            (b"192.0.2.1:80", Some("192.0.2.1")),
            (b"[::ffff:192.0.2.1]:80", Some("192.0.2.1")),
            (b"[2001:db8:1:2:3:4:5:6]:80", Some("2001:db8:1:2::")),
            (b"[2001:db8:1:2::]:80", Some("2001:db8:1:2::")),
            (b"/run/envoy.sock", None),
            (b"192.0.2.1", None),
            (b"\xff", None),
            (b"", None),
        ] {
            let expected = expected.map(|address| address.parse().expect("an address"));
            assert_eq!(source_address(&host(source)), expected);
        }
    }

    #[test]
    fn a_client_gets_as_much_as_it_may_have_and_what_was_refused_is_not_counted() {
        let clients = Rc::new(Clients::new(2, 100));
        let host = host(b"192.0.2.1:1");
        let mut shares = [(); 3].map(|()| clients.current(&host));
        // A request counts once, however often it begins.
        let begun = shares.each_mut().map(|share| share.begin_stream() && share.begin_stream());
        assert_eq!(begun, [true, true, false]);
        let [first, second, third] = &mut shares;
        assert!(first.hold(60) && !second.hold(41) && second.hold(40) && !third.hold(1));
        first.release_bytes();
        assert!(!third.hold(61) && third.hold(60));
        assert!(!second.hold(usize::MAX));
        drop(shares);
        assert!(clients.are_idle());
    }

    #[test]
    fn clients_are_not_counted_where_they_are_not_told_apart_or_have_no_address() {
        for (streams_max, source) in [(0, &b"192.0.2.1:1"[..]), (1, b"/run/envoy.sock")] {
            let clients = Rc::new(Clients::new(streams_max, 1));
            let host = host(source);
            let mut shares = [(); 3].map(|()| clients.current(&host));
            assert!(shares.iter_mut().all(|share| share.begin_stream() && share.hold(1000)));
            assert!(clients.are_idle());
        }
    }
}
