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
fn source_address(host: &impl Host) -> Option<IpAddr> {
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
