//! Real clients with real logins, over TLS whose certificates they verify: what each may do before it logs in, as one
//! user or another, and after it has logged out.

use std::fs;

use tempfile::TempDir;

use moorage_test_support::accounts::{self, DEPLOY, READER, TEAM, User};
use moorage_test_support::blob_store::BlobStore;
use moorage_test_support::envoy::{Bootstrap, Envoy};
use moorage_test_support::image::Layout;
use moorage_test_support::logins::{
    Client, Crane, Ctr, Docker, Engine, Helm, Oras, Outcome, Registry, Skopeo,
};
use moorage_test_support::process::{optional_tool, wait_for};
use moorage_test_support::proxy::Proxy;
use moorage_test_support::skopeo;
use moorage_test_support::tls::{Authority, NAME};

/// What everybody may pull.
const PUBLIC: &str = "public/web:1.2.3";

/// What some users may pull.
const PRIVATE: &str = "private/web:1.2.3";

/// The same in a repository that no client has pulled from.
const UNSEEN: &str = "private/unseen/web:1.2.3";

/// Moorage with users, and two images.
struct Server {
    envoy: Envoy,
    authority: Authority,
    _store: BlobStore,
    _root: TempDir,
}

impl Server {
    async fn start(public: &Layout, private: &Layout) -> Self {
        let root = TempDir::new().expect("a temporary folder");
        fs::create_dir(root.path().join("registry")).expect("a folder");
        let store = BlobStore::open(root.path()).await;
        let authority = Authority::new().await;
        let bootstrap = Bootstrap::new(store.address)
            .with_tls(&authority)
            .logging_requests()
            .with_access(&accounts::access().await);
        let envoy = Envoy::start(&bootstrap).await;
        let server = Self { envoy, authority, _store: store, _root: root };
        for (layout, reference) in [(public, PUBLIC), (private, PRIVATE), (private, UNSEEN)] {
            server.put(layout, reference).await;
        }
        server
    }

    async fn put(&self, layout: &Layout, reference: &str) {
        let certs_dir = format!("--dest-cert-dir={}", self.authority.certs_dir().display());
        let login = format!("--dest-creds={}:{}", DEPLOY.name, DEPLOY.password);
        let options = [skopeo::AS_IT_IS, &["--dest-tls-verify=true", &certs_dir, &login]].concat();
        skopeo::push(layout.path(), &options, self.envoy.address, reference).await;
    }

    /// Where most clients find it.
    fn host(&self) -> String {
        self.envoy.address.to_string()
    }

    /// How the requests were answered to mount something in a repository, once something has been pushed to it.
    async fn mounts(&self, repository: &str) -> Vec<String> {
        let requests = |log: &str, begin: String, part: &str| {
            let lines = log.lines().filter_map(|line| line.strip_prefix("request: "));
            let lines = lines.filter(|line| line.starts_with(&begin) && line.contains(part));
            lines.filter_map(|line| Some(line.rsplit_once(' ')?.1.to_owned())).collect::<Vec<_>>()
        };
        wait_for("a push in the log", async || {
            let log = self.envoy.log();
            // Envoy writes its lines in the order of the answers.
            let pushes = requests(&log, format!("PUT /v2/{repository}/manifests/"), " 201");
            let mounts = requests(&log, format!("POST /v2/{repository}/blobs/uploads/?"), "mount=");
            (!pushes.is_empty()).then_some(mounts)
        })
        .await
    }
}

/// Two images that share no layer.
async fn images() -> (Layout, Layout) {
    (Layout::image_of(["open", "door"]).await, Layout::image_of(["closed", "lock"]).await)
}

/// Has a client do all that it may, and try what it may not. `connect` gives it, without a login, for a host and the
/// authority that it trusts.
async fn is_served_what_its_user_may_have<C: Client>(
    server: &Server,
    host: String,
    connect: impl AsyncFn(Registry) -> C,
) {
    let elsewhere = Authority::new().await;
    let wary = connect(Registry::new(&host, &elsewhere)).await;
    fails("without trust", wary.pull(PUBLIC).await, &["certificate", "x509"]);

    let mut client = connect(Registry::new(&host, &server.authority)).await;
    succeeds("a pull by anybody", client.pull(PUBLIC).await);
    is_refused("a push by anybody", client.push(PUBLIC, "public/mine/web:1.2.3").await);
    is_refused("a private pull by anybody", client.pull(UNSEEN).await);

    let wrong = client.login(DEPLOY.name, "wrong").await;
    match C::ASKS_AT_LOGIN {
        true => is_refused("a wrong password", wrong),
        false => is_refused("a pull by a wrong password", client.pull(PRIVATE).await),
    }

    log_in(&mut client, DEPLOY).await;
    succeeds("a private pull", client.pull(PRIVATE).await);
    succeeds("a push", client.push(PUBLIC, "public/mine/web:1.2.3").await);
    succeeds("a copy", client.copy(PRIVATE, "copied/web:1.2.3").await);
    let mounts = server.mounts("copied/web").await;
    assert!(mounts.iter().all(|status| status == "201"), "{mounts:?}");
    assert_eq!(mounts.is_empty(), !C::MOUNTS, "{mounts:?}");
    succeeds("a pull of the copy", client.pull("copied/web:1.2.3").await);

    log_in(&mut client, TEAM).await;
    // Some ask to mount from where they know that it is.
    succeeds("a push of all of it", client.push(PRIVATE, "team/web:1.2.3").await);
    let mounts = server.mounts("team/web").await;
    assert!(mounts.iter().all(|status| status == "202"), "{mounts:?}");
    succeeds("a pull of all of it", client.pull("team/web:1.2.3").await);
    is_refused("a pull without the right", client.pull(UNSEEN).await);
    is_refused("a push without the right", client.push(PRIVATE, "private/mine/web:1.2.3").await);

    log_in(&mut client, READER).await;
    succeeds("a pull by a reader", client.pull(UNSEEN).await);
    is_refused("a push by a reader", client.push(PRIVATE, "private/mine/web:1.2.3").await);

    succeeds("the logout", client.logout().await);
    is_refused("a pull after the logout", client.pull(UNSEEN).await);
    succeeds("a pull by anybody, again", client.pull(PUBLIC).await);
}

async fn log_in(client: &mut impl Client, user: User) {
    succeeds(user.name, client.login(user.name, user.password).await);
}

fn succeeds(what: &str, outcome: Outcome) {
    if let Err(complaint) = outcome {
        panic!("{what} failed: {complaint}");
    }
}

/// It fails because of who calls, as clients put it.
fn is_refused(what: &str, outcome: Outcome) {
    let words = ["unauthorized", "401", "denied", "invalid username", "authorization failed"];
    fails(what, outcome, &words);
}

/// It fails, and the client says one of these words.
fn fails(what: &str, outcome: Outcome, words: &[&str]) {
    let complaint = outcome.err().unwrap_or_else(|| panic!("{what} succeeded")).to_lowercase();
    assert!(words.iter().any(|word| complaint.contains(word)), "{what}: {complaint}");
}

/// A client of images that reaches the registry directly.
async fn serves<C: Client>(connect: impl AsyncFn(Registry) -> C) {
    let (public, private) = images().await;
    let server = Server::start(&public, &private).await;
    is_served_what_its_user_may_have(&server, server.host(), connect).await;
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn skopeo_is_served_what_its_user_may_have() {
    serves(async |registry| Skopeo::new(registry)).await;
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn podman_is_served_what_its_user_may_have() {
    let Some(program) = optional_tool("MOORAGE_PODMAN") else { return };
    serves(async |registry| Engine::new(program.clone(), registry)).await;
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn buildah_is_served_what_its_user_may_have() {
    let Some(program) = optional_tool("MOORAGE_BUILDAH") else { return };
    serves(async |registry| Engine::new(program.clone(), registry)).await;
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn crane_is_served_what_its_user_may_have() {
    let Some(program) = optional_tool("MOORAGE_CRANE") else { return };
    serves(async |registry| Crane::new(program.clone(), registry)).await;
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn oras_is_served_what_its_user_may_have() {
    let Some(program) = optional_tool("MOORAGE_ORAS") else { return };
    serves(async |registry| Oras::new(program.clone(), registry)).await;
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn ctr_is_served_what_its_user_may_have() {
    let Some(program) = optional_tool("MOORAGE_CTR") else { return };
    serves(async |registry| Ctr::start(program.clone(), registry).await).await;
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn docker_is_served_what_its_user_may_have() {
    let Some(program) = optional_tool("MOORAGE_DOCKER") else { return };
    let (public, private) = images().await;
    let server = Server::start(&public, &private).await;
    let address = server.envoy.address;
    let host = format!("{NAME}:{}", address.port());
    is_served_what_its_user_may_have(&server, host, async |registry| {
        Docker::start(program.clone(), registry, Proxy::start(address).await).await
    })
    .await;
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn helm_is_served_what_its_user_may_have() {
    let Some(program) = optional_tool("MOORAGE_HELM") else { return };
    let chart = Layout::chart().await;
    let server = Server::start(&chart, &chart).await;
    let connect = async |registry| Helm::new(program.clone(), registry);
    is_served_what_its_user_may_have(&server, server.host(), connect).await;
}
