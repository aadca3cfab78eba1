//! Users with passwords, and what they may do.

use serde_json::{Value, json};
use tokio::process::Command;

use crate::envoy::Bootstrap;
use crate::process::run;

/// A user.
#[derive(Clone, Copy)]
pub struct User {
    pub name: &'static str,
    pub password: &'static str,
    /// What `htpasswd -nbB -C 4` makes of the password.
    hash: &'static str,
}

/// A P-256 key as a JWK, for what needs no key of its own: RFC 7515, appendix A.3.
pub const KEY: &str = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0","d":"jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"}"#;

/// The same as a value.
pub fn key() -> Value {
    serde_json::from_str(KEY).expect("JSON")
}

/// May do anything anywhere.
pub const DEPLOY: User = User {
    name: "deploy",
    password: "deploy's password",
    hash: "$2y$04$Mh/d2aq3rYM/2csBr4cBde6nxAaak5WxC1UMETpfovPAXZ9SL6TRy",
};

/// May pull from `private/`, and what everybody may.
pub const READER: User = User {
    name: "reader",
    password: "reader's password",
    hash: "$2y$04$o5MEeaD/DsKRtZEQVF6rhe99cjtdKj79jegQ577Pmy1aeReLNCxRC",
};

/// May pull from and push to `team/`, and do what everybody may.
pub const TEAM: User = User {
    name: "team",
    password: "team's password",
    hash: "$2y$04$vYlfN8ta3UeD2foRAmvkfurjDi1ceEhhQORs7SNjjme3nL0c.2VRe",
};

/// Access control with these users, by a new key. Everybody may pull from `public/`.
pub async fn access() -> Value {
    let key = ["ecparam", "-name", "prime256v1", "-genkey", "-noout"];
    let key = String::from_utf8(run(Command::new("openssl").args(key)).await).expect("PEM is text");
    let line = |user: User| format!("{}:{}", user.name, user.hash);
    let rule = |who: &[&str], repositories: &str, actions: &[&str]| {
        let repositories = [repositories];
        json!({ "who": who, "repositories": repositories, "actions": actions })
    };
    json!({
        "key": key,
        "users": [line(DEPLOY), line(READER), line(TEAM)],
        "rules": [
            rule(&["anonymous", "authenticated"], "public/**", &["pull"]),
            rule(&["user:deploy"], "**", &["*"]),
            rule(&["user:reader"], "private/**", &["pull"]),
            rule(&["user:team"], "team/**", &["pull", "push"]),
        ],
    })
}

impl Bootstrap {
    /// Sets the object `access` of the plugin's configuration.
    pub fn with_access(self, access: &Value) -> Self {
        self.with_fields(&format!(r#""access": {access}"#))
    }
}
