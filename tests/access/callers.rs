//! Callers: what they send, and who they are by the naive account of it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use futures::future::LocalBoxFuture;
use moorage::registry::{Environment, Nonce, PrivateKey};
use moorage_test_support::accounts::KEY;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

use crate::naive::Who;
use crate::requests::{ACTIONS, NAMES};

/// The key of another token server: RFC 6979, appendix A.2.5.
const THEIR_KEY: &str = r#"{"kty":"EC","crv":"P-256","x":"YP7UuiVanTHJYet0xjVtaMBJuJI7Yfps5mliLmDyn7Y",
    "y":"eQP-EAi4vJmkGunpVii8ZPLxsgwtfp9Rd6PClNRGIpk","d":"ya-p2EW6dRZrXCFXZ7HWk05Qw9s26JsSe4piKxIPZyE"}"#;

const ISSUER: &str = "https://issuer.test";

const ROBOT: &str = "mrg_x5Wq0cJ7m1Zt0q2yJ4o6T8nLr3vB9dFhKpSgUeAiXwY";

/// The users: names, passwords, and what `htpasswd -B -C 4` makes of them.
const USERS: [[&str; 3]; 2] = [
    ["ada", "wonderland", "$2y$04$NHFVFxLN6UTwJghZxZIXVubLaLeO0XGdvYfKmmHmjwazQ77YPGUu."],
    ["bob", "reader's password", "$2y$04$o5MEeaD/DsKRtZEQVF6rhe99cjtdKj79jegQ577Pmy1aeReLNCxRC"],
];

/// Types, names and actions, as a token grants them.
pub type Grants = Vec<(String, String, Vec<String>)>;

/// A caller.
#[derive(Debug, Clone)]
pub enum Caller {
    Nobody,
    /// A user, by number.
    Password(usize),
    Robot {
        is_bearer: bool,
    },
    Certificate(&'static str),
    Jwt {
        sub: &'static str,
        groups: Vec<&'static str>,
        /// A token that is in the header too, and that this registry knows nothing of.
        has_header: bool,
    },
    /// A token of this registry, of a user by number or of nobody, that was not got from the token endpoint.
    OwnToken(Option<usize>, Grants),
    TheirToken(&'static str, Vec<&'static str>, Grants),
    /// Headers that prove nothing.
    Wrong(Vec<String>),
}

/// The fields of the configuration that all callers follow from.
pub fn configuration() -> Value {
    let users = USERS.map(|[name, _, hash]| format!("{name}:{hash}"));
    let key = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
    let robot = json!({ "name": "ci", "sha256": sha256(ROBOT) });
    let issuer =
        json!({ "issuer": ISSUER, "keys": { "keys": [key(THEIR_KEY)] }, "groups": "groups" });
    json!({
        "key": key(KEY),
        "users": users,
        "tokens": [robot],
        "groups": { "dev": ["ada", "spiffe://mesh/a"], "ops/qa": ["user:c*", "x"] },
        "certificates": ["spiffe://mesh/**"],
        "jwt": [{ "payload": "oidc", "groups": "groups" }],
        "issuers": [issuer],
    })
}

fn sha256(text: &str) -> String {
    let digest = moorage::oci::Digest::of(moorage::oci::Algorithm::Sha256, text.as_bytes());
    digest.as_str().trim_start_matches("sha256:").to_owned()
}

/// What the groups of the configuration say of a name.
fn with_groups(name: String, groups: &[&str]) -> Who {
    let mut groups: Vec<_> = groups.iter().map(|group| (*group).to_owned()).collect();
    if ["user:ada", "spiffe://mesh/a"].contains(&name.as_str()) {
        groups.push("dev".to_owned());
    }
    if name.starts_with("user:c") || name == "user:x" {
        groups.push("ops/qa".to_owned());
    }
    Who { name, groups, ..Who::default() }
}

fn named(subject: &str) -> String {
    if subject.is_empty() { String::new() } else { format!("user:{subject}") }
}

impl Caller {
    /// Who it is; `None` for one whose credentials are wrong.
    pub fn who(&self) -> Option<Who> {
        let user = |number: usize| named(USERS[number][0]);
        Some(match self {
            Self::Nobody => Who::default(),
            Self::Password(number) => with_groups(user(*number), &[]),
            Self::Robot { .. } => with_groups("user:ci".to_owned(), &[]),
            Self::Certificate(uri) if uri.starts_with("spiffe://mesh/") => {
                with_groups((*uri).to_owned(), &[])
            }
            Self::Certificate(_) => Who::default(),
            Self::Jwt { sub, groups, .. } => with_groups(named(sub), groups),
            Self::OwnToken(number, grants) => Who {
                token: Some(grants.clone()),
                ..with_groups(number.map(user).unwrap_or_default(), &[])
            },
            Self::TheirToken(sub, groups, grants) => Who {
                issuer: Some(ISSUER),
                token: Some(grants.clone()),
                ..with_groups(named(sub), groups)
            },
            Self::Wrong(_) => return None,
        })
    }

    /// The values of its `Authorization` headers.
    pub fn headers(&self) -> Vec<String> {
        let basic =
            |name, password| format!("Basic {}", STANDARD.encode(format!("{name}:{password}")));
        match self {
            Self::Password(number) => vec![basic(USERS[*number][0], USERS[*number][1])],
            Self::Robot { is_bearer: true } => vec![format!("Bearer {ROBOT}")],
            Self::Robot { is_bearer: false } => vec![basic("ci", ROBOT)],
            Self::Jwt { has_header: true, .. } => vec!["Bearer a.b.c".to_owned()],
            Self::OwnToken(number, grants) => {
                let name = number.map(|number| USERS[number][0]);
                let proof = if name.is_some() { "password" } else { "none" };
                let subject = named(name.unwrap_or_default());
                let claims = json!({ "iss": "moorage", "sub": subject, "proof": proof });
                vec![format!("Bearer {}", token(claims, grants, KEY))]
            }
            Self::TheirToken(sub, groups, grants) => {
                let claims = json!({ "iss": ISSUER, "sub": sub, "groups": groups });
                vec![format!("Bearer {}", token(claims, grants, THEIR_KEY))]
            }
            Self::Wrong(headers) => headers.clone(),
            Self::Nobody | Self::Certificate(_) | Self::Jwt { .. } => Vec::new(),
        }
    }
}

thread_local! {
    /// To sign takes long where nothing is optimised.
    static SIGNED: RefCell<HashMap<String, String>> = RefCell::default();
}

fn token(mut claims: Value, grants: &Grants, key: &str) -> String {
    let entry = |(kind, name, actions): &(String, String, Vec<String>)| json!({ "type": kind, "name": name, "actions": actions });
    claims["access"] = grants.iter().map(entry).collect();
    claims["aud"] = "moorage".into();
    claims["exp"] = 60.into();
    let claims = claims.to_string();
    let sign = || {
        let key = PrivateKey::read(&serde_json::from_str(key).expect("JSON")).expect("a key");
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256"}"#);
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(&claims));
        let signature = key.sign(signed.as_bytes()).expect("a signature");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    };
    SIGNED.with_borrow_mut(|signed| signed.entry(claims.clone()).or_insert_with(sign).clone())
}

/// What Envoy knows of the caller. The clock stands still.
#[derive(Debug)]
pub struct Known(pub Caller);

impl Environment for Known {
    fn delay(&self, _: Duration) -> LocalBoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }

    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }

    fn nonce(&self) -> Nonce {
        Nonce([1; 32])
    }

    fn certificate_names(&self) -> Vec<String> {
        match &self.0 {
            Caller::Certificate(uri) => vec![(*uri).to_owned()],
            _ => Vec::new(),
        }
    }

    fn has_metadata(&self, filter: &str, path: &[&str]) -> bool {
        filter.ends_with("jwt_authn") && path == ["oidc"] && matches!(self.0, Caller::Jwt { .. })
    }

    fn metadata_text(&self, filter: &str, path: &[&str]) -> Option<String> {
        match &self.0 {
            Caller::Jwt { sub, .. } if filter.ends_with("jwt_authn") && path == ["oidc", "sub"] => {
                Some((*sub).to_owned())
            }
            _ => None,
        }
    }

    fn metadata_texts(&self, filter: &str, path: &[&str]) -> Vec<String> {
        match &self.0 {
            Caller::Jwt { groups, .. }
                if filter.ends_with("jwt_authn") && path == ["oidc", "groups"] =>
            {
                groups.iter().map(|group| (*group).to_owned()).collect()
            }
            _ => Vec::new(),
        }
    }
}

pub fn grants() -> impl Strategy<Value = Grants> {
    let kind = prop_oneof![5 => Just("repository"), 1 => Just("registry"), 1 => Just("Repository")];
    let name = prop_oneof![6 => select(NAMES), 1 => Just("catalog"), 1 => Just("*")];
    let actions = subsequence(ACTIONS, 0..=ACTIONS.len());
    let grant = (kind, name, actions).prop_map(|(kind, name, actions)| {
        let actions = actions.into_iter().map(str::to_owned).collect();
        (kind.to_owned(), name.to_owned(), actions)
    });
    let everything = ("repository".to_owned(), vec!["*".to_owned()]);
    let everything = NAMES.iter().map(move |name| {
        let (kind, actions) = everything.clone();
        (kind, (*name).to_owned(), actions)
    });
    prop_oneof![2 => prop::collection::vec(grant, 0..4), 1 => Just(everything.collect())]
}

pub fn caller() -> impl Strategy<Value = Caller> {
    let groups = || subsequence(&["dev", "ops/qa", "ops/x/y", "ada"], 0..=2);
    let wrong = select(vec![
        vec!["Basic YWRhOndyb25n".to_owned()],
        vec![format!("Basic {}", STANDARD.encode(format!("ada:{ROBOT}")))],
        vec![format!("Bearer {ROBOT}x")],
        vec!["Bearer".to_owned()],
        vec!["Digest username=\"ada\"".to_owned()],
        vec![String::new()],
        vec!["Bearer eyJhbGciOiJub25lIn0.eyJpc3MiOiJtb29yYWdlIn0.".to_owned()],
        vec!["Basic YWRhOndvbmRlcmxhbmQ=".to_owned(); 2],
    ]);
    let sub = || select(vec!["", "ada", "x", "carl"]);
    prop_oneof![
        2 => Just(Caller::Nobody),
        2 => (0..USERS.len()).prop_map(Caller::Password),
        1 => any::<bool>().prop_map(|is_bearer| Caller::Robot { is_bearer }),
        1 => select(vec!["spiffe://mesh/a", "spiffe://mesh/b/c", "spiffe://else/a"])
            .prop_map(Caller::Certificate),
        1 => (sub(), groups(), any::<bool>())
            .prop_map(|(sub, groups, has_header)| Caller::Jwt { sub, groups, has_header }),
        3 => (prop::option::of(0..USERS.len()), grants())
            .prop_map(|(user, grants)| Caller::OwnToken(user, grants)),
        3 => (sub(), groups(), grants())
            .prop_map(|(sub, groups, grants)| Caller::TheirToken(sub, groups, grants)),
        1 => wrong.prop_map(Caller::Wrong),
    ]
}
