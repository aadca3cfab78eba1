//! The accounts of the configuration: users with passwords, robots with tokens, and groups of both.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use thiserror::Error;

use super::htpasswd::{PasswordHash, User};
use super::identity::{Identity, Proof};
use super::jwt::since_1970;
use crate::registry::glob::Glob;
use crate::registry::jose::BASE64;

/// How the token of every robot begins, so that it is known for a secret wherever it is found.
pub const ROBOT_PREFIX: &str = "mrg_";

/// The token of a robot that has these random bits.
pub fn robot_token(random: &[u8; 32]) -> String {
    format!("{ROBOT_PREFIX}{}", BASE64.encode(random))
}

/// A program with a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Robot {
    /// The name: in rules it is a `user:` like any other.
    pub name: String,
    /// The hash of its token.
    pub hash: TokenHash,
    /// From when on the token is void; never if there is none.
    pub expires: Option<SystemTime>,
}

/// The SHA-256 of a robot's token. The token is random, so nobody finds it from this; but nobody needs to see it either.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenHash([u8; 32]);

/// A text that is no SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("must be a SHA-256 in 64 hex digits")]
pub struct TokenHashError;

impl TokenHash {
    /// The hash of a token.
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token).into())
    }

    /// The hash as the configuration has it, in hex digits.
    pub fn to_hex(&self) -> String {
        base16ct::lower::encode_string(&self.0)
    }
}

impl FromStr for TokenHash {
    type Err = TokenHashError;

    fn from_str(text: &str) -> Result<Self, TokenHashError> {
        let mut hash = [0; 32];
        match base16ct::mixed::decode(text, &mut hash) {
            Ok(bytes) if bytes.len() == 32 => Ok(Self(hash)),
            _ => Err(TokenHashError),
        }
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash")
    }
}

/// A group: its name, and the patterns of its members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The name.
    pub name: String,
    /// The names of members in rules.
    pub members: Vec<Glob>,
}

/// All accounts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accounts {
    /// The users.
    pub users: Vec<User>,
    /// The robots.
    pub robots: Vec<Robot>,
    /// The groups.
    pub groups: Vec<Group>,
}

impl Accounts {
    /// How much work it is to check a password, of whomever: 2 to the power of this. `None` where nobody has one.
    pub fn password_cost(&self) -> Option<u32> {
        self.users.iter().map(User::cost).max()
    }

    /// Whether the user has this password. That takes long, and as long for a name that nobody has.
    pub fn has_password(&self, name: &str, password: &str) -> bool {
        let Some(cost) = self.password_cost() else {
            return false;
        };
        match self.users.iter().find(|user| user.name == name) {
            Some(user) => user.has_password(password, cost),
            None => PasswordHash::of_nobody(cost).is_of(password),
        }
    }

    /// The robot whose token this is, if its time is not over.
    pub fn robot(&self, token: &str, now: SystemTime) -> Option<&Robot> {
        let hash = TokenHash::of(token);
        // All are looked at, whichever it is.
        let is_its = |robot: &&Robot| bool::from(hash.0.ct_eq(&robot.hash.0));
        let found = self.robots.iter().fold(
            None,
            |found, robot| {
                if is_its(&robot) { Some(robot) } else { found }
            },
        );
        found.filter(|robot| robot.is_valid(now))
    }

    /// Until when the account is there by which the identity was proven, since 1970; `None` if it is not there any more.
    pub fn lasts_until(&self, identity: &Identity, now: SystemTime) -> Option<Duration> {
        let name = identity.subject.strip_prefix("user:").unwrap_or_default();
        match identity.proof {
            Proof::Password => {
                self.users.iter().find(|user| user.name == name).map(|_| Duration::MAX)
            }
            Proof::RobotToken => {
                let robots = self.robots.iter().filter(|robot| robot.name == name);
                let valid = robots.filter(|robot| robot.is_valid(now));
                valid.map(|robot| robot.expires.map_or(Duration::MAX, since_1970)).max()
            }
            _ => Some(Duration::MAX),
        }
    }

    /// Adds the groups that the identity is a member of by the configuration.
    pub fn add_groups(&self, identity: &mut Identity) {
        for group in &self.groups {
            if group.has(identity) && !identity.groups.contains(&group.name) {
                identity.groups.push(group.name.clone());
            }
        }
    }

    /// Takes away the groups that the identity is a member of by the configuration.
    pub fn remove_groups(&self, identity: &mut Identity) {
        for group in &self.groups {
            if group.has(identity) {
                identity.groups.retain(|name| *name != group.name);
            }
        }
    }
}

impl Group {
    fn has(&self, identity: &Identity) -> bool {
        let is_it = |member: &Glob| member.matches(&identity.subject);
        !identity.is_anonymous() && self.members.iter().any(is_it)
    }
}

impl Robot {
    /// Whether its time is not over.
    pub fn is_valid(&self, now: SystemTime) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

/// The name in rules of a user or robot.
pub fn user_subject(name: &str) -> String {
    format!("user:{name}")
}
