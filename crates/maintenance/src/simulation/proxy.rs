//! A proxy: the registry's handlers on a cached bucket, as the filter puts them together, and what streams past them.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use http::{Method, StatusCode};
use moorage::oci::{Digest, Hasher};
use moorage::registry::{
    Answer, Body, Environment, Hashing, HeaderFields, ImmutableTags, Mount, Nonce, Request,
    RequestBody, Settings, handle, handle_streamed,
};
use moorage::store::{
    Bucket, CacheEnvironment, CacheSettings, Cached, Http as _, HttpRequest, Repeat, StreamedWrite,
    WriteAnswer, WriteTarget,
};

use super::bucket::{Blindness, SimHttp, SimStore};
use super::world::World;
use crate::time::Clock as _;

/// How long proxies remember links.
pub const LINK_TTL: Duration = Duration::from_secs(60);

/// A worker of a proxy.
pub struct Proxy {
    world: Rc<World>,
    store: Cached<Bucket<SimHttp>, CacheWorld>,
    settings: Settings,
    environment: Rc<dyn Environment>,
}

/// What is answered.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub body: Bytes,
    pub location: Option<String>,
}

struct CacheWorld {
    world: Rc<World>,
    /// How much the proxy's clock is ahead.
    ahead: Duration,
    writes: RefCell<HashMap<u8, u64>>,
    acknowledged: RefCell<HashMap<u8, u64>>,
}

impl CacheEnvironment for CacheWorld {
    fn now(&self) -> Duration {
        self.world.now() + self.ahead
    }

    fn write_epoch(&self, shard: u8) -> u64 {
        self.writes.borrow().get(&shard).copied().unwrap_or_default()
    }

    fn begin_write_epoch(&self, shard: u8) {
        *self.writes.borrow_mut().entry(shard).or_default() += 1;
    }

    fn acknowledged_epoch(&self, shard: u8) -> u64 {
        self.acknowledged.borrow().get(&shard).copied().unwrap_or_default()
    }

    fn begin_acknowledged_epoch(&self, shard: u8) {
        *self.acknowledged.borrow_mut().entry(shard).or_default() += 1;
    }
}

struct RequestWorld {
    world: Rc<World>,
    ahead: Duration,
}

impl std::fmt::Debug for RequestWorld {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RequestWorld")
    }
}

impl Environment for RequestWorld {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + self.world.now() + self.ahead
    }

    fn nonce(&self) -> Nonce {
        let mut bytes = [0; 32];
        for half in bytes.as_chunks_mut::<8>().0 {
            *half = self.world.random().to_be_bytes();
        }
        Nonce(bytes)
    }

    fn delay(&self, time: Duration) -> LocalBoxFuture<'static, ()> {
        self.world.wait(time).boxed_local()
    }
}

impl Proxy {
    /// The same, where every tag is immutable.
    pub fn with_immutable_tags(
        world: &Rc<World>,
        store: &Rc<SimStore>,
        blindness: Blindness,
    ) -> Rc<Self> {
        let mut proxy = Self::new(world, store, blindness);
        let any = || vec!["*".parse().expect("a pattern")];
        let rule = ImmutableTags { repositories: any(), tags: any() };
        Rc::get_mut(&mut proxy).expect("nobody else has it").settings.immutable_tags = vec![rule];
        proxy
    }

    /// A worker that serves the bucket, whose clock is ahead of the bucket's.
    pub fn new(world: &Rc<World>, store: &Rc<SimStore>, blindness: Blindness) -> Rc<Self> {
        let cache = CacheSettings {
            max_bytes: 1 << 20,
            link_ttl: LINK_TTL,
            tag_ttl: Duration::ZERO,
            negative_ttl: Duration::ZERO,
            // Of no use to anybody who writes.
            stale_if_error: Duration::from_secs(24 * 60 * 60),
        };
        let ahead = world.time_up_to(Duration::from_secs(60 * 60));
        let cache_world = CacheWorld {
            world: Rc::clone(world),
            ahead,
            writes: RefCell::default(),
            acknowledged: RefCell::default(),
        };
        let bucket = SimHttp::bucket(world, store, blindness);
        Rc::new(Self {
            world: Rc::clone(world),
            store: Cached::new(bucket, cache_world, cache, 0),
            settings: Settings { mount: Mount::From, ..Settings::default() },
            environment: Rc::new(RequestWorld { world: Rc::clone(world), ahead }),
        })
    }

    /// Answers a request whose body is held.
    pub async fn send(&self, method: Method, target: &str, body: Option<Bytes>) -> Reply {
        let mut request = self.request(method, target);
        request.body = body.map_or(Body::None, Body::Whole);
        let answer = handle(&request, &self.store, &self.settings).await;
        self.reply(answer).await
    }

    /// Answers a request whose body is streamed into the store.
    pub async fn stream(&self, method: Method, target: &str, content: Bytes) -> Reply {
        let request = self.request(method, target);
        let body = SimBody {
            proxy: self,
            content,
            write: RefCell::default(),
            hasher: RefCell::default(),
            is_awaited: Cell::default(),
        };
        let answer = handle_streamed(&request, &body, &self.store, &self.settings).await;
        self.reply(answer).await
    }

    fn request(&self, method: Method, target: &str) -> Request {
        let environment = Rc::clone(&self.environment);
        Request::new(method, target, HeaderFields::default(), environment)
    }

    async fn reply(&self, answer: Answer) -> Reply {
        match answer {
            Answer::Reply(response) => Reply {
                status: response.status().as_u16(),
                body: response.body().clone(),
                location: response
                    .headers()
                    .get("location")
                    .and_then(|value| value.to_str().ok().map(str::to_owned)),
            },
            Answer::Stream(stream) => {
                let request = self.store.bucket().stream_request(&stream.read);
                match self.store_call(&request).await {
                    Ok((status, body)) => Reply { status: status.as_u16(), body, location: None },
                    Err(()) => Reply { status: 503, body: Bytes::new(), location: None },
                }
            }
        }
    }

    /// A call that the proxy's router makes.
    fn store_call(
        &self,
        request: &HttpRequest,
    ) -> impl Future<Output = Result<(StatusCode, Bytes), ()>> {
        let http = self.store.bucket().http();
        async move {
            let answer = http.send(request, Repeat::Never).await.map_err(drop)?;
            Ok((answer.status, answer.body))
        }
    }
}

/// A body that is streamed.
struct SimBody<'p> {
    proxy: &'p Proxy,
    content: Bytes,
    write: RefCell<Option<StreamedWrite>>,
    hasher: RefCell<Option<Hasher>>,
    is_awaited: Cell<bool>,
}

impl RequestBody for SimBody<'_> {
    fn is_empty(&self) -> bool {
        self.content.is_empty()
    }

    fn announced(&self) -> Option<u64> {
        Some(self.content.len() as u64)
    }

    fn forward(&self, target: WriteTarget, sha256: Option<Digest>, hashing: Hashing) {
        let length = self.announced();
        self.write.replace(Some(StreamedWrite { target, length, sha256 }));
        if let Hashing::With(hasher) = hashing {
            self.hash_with(Some(*hasher));
        }
    }

    fn hash_with(&self, hasher: Option<Hasher>) {
        let hashed = hasher.map(|mut hasher| {
            hasher.update(&self.content);
            hasher
        });
        self.hasher.replace(hashed);
    }

    async fn arrived(&self) -> Result<u64, WriteAnswer> {
        if !self.is_awaited.replace(true) {
            self.proxy.world.wait(self.proxy.world.latency()).await;
        }
        Ok(self.content.len() as u64)
    }

    fn take_hasher(&self) -> Option<Hasher> {
        self.hasher.take()
    }

    async fn complete(&self) -> WriteAnswer {
        let write = self.write.take().expect("a body that is sent on");
        let mut request = self.proxy.store.bucket().write_request(&write);
        request.body = self.content.clone();
        match self.proxy.store_call(&request).await {
            Ok((status, document)) => WriteAnswer { status, document },
            Err(()) => {
                WriteAnswer { status: StatusCode::SERVICE_UNAVAILABLE, document: Bytes::new() }
            }
        }
    }
}
