//! Who calls, and how that was proven.

use std::fmt::{self, Write as _};

/// The caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The name in rules: `user:…`, `spiffe://…` or `dns:…`; empty for anonymous callers.
    pub subject: String,
    /// The names of its groups, without `group:`.
    pub groups: Vec<String>,
    /// The issuer of its token, where that is another token server.
    pub issuer: Option<String>,
    /// How the name was proven.
    pub proof: Proof,
}

/// How an identity was proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// It was not: the caller is anonymous.
    None,
    /// By a password.
    Password,
    /// By a robot's token.
    RobotToken,
    /// By a token of another token server.
    IssuerToken,
    /// By a token that Envoy's `jwt_authn` filter verified.
    Jwt,
    /// By a client certificate that Envoy verified.
    Certificate,
    /// By Envoy's `ext_authz` filter.
    ExtAuthz,
}

impl Proof {
    const ALL: [Self; 7] = [
        Self::None,
        Self::Password,
        Self::RobotToken,
        Self::IssuerToken,
        Self::Jwt,
        Self::Certificate,
        Self::ExtAuthz,
    ];

    /// The proof of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|proof| proof.as_str() == name)
    }

    /// The proof's name in tokens and in the access log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Password => "password",
            Self::RobotToken => "robot-token",
            Self::IssuerToken => "issuer-token",
            Self::Jwt => "jwt",
            Self::Certificate => "certificate",
            Self::ExtAuthz => "ext-authz",
        }
    }
}

impl Identity {
    /// Who says nothing of himself.
    pub fn anonymous() -> Self {
        Self { subject: String::new(), groups: Vec::new(), issuer: None, proof: Proof::None }
    }

    /// A named caller.
    pub fn named(subject: String, groups: Vec<String>, proof: Proof) -> Self {
        Self { subject, groups, issuer: None, proof }
    }

    /// The name in rules, also that of anonymous callers.
    pub fn name(&self) -> &str {
        if self.is_anonymous() { "anonymous" } else { &self.subject }
    }

    /// Whether the caller has no name.
    pub fn is_anonymous(&self) -> bool {
        self.subject.is_empty()
    }
}

/// As in the access log: the name, and how it was proven. A name may come from another's token, with anything in it; what
/// would begin a line of the log is written as in Rust.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.name().chars() {
            match character.is_control() {
                true => write!(f, "{}", character.escape_default())?,
                false => f.write_char(character)?,
            }
        }
        match self.proof {
            Proof::None => Ok(()),
            proof => write!(f, " ({})", proof.as_str()),
        }
    }
}
