//! Access control written a second time, as simply as it can be said and as slow as that is: by what the documents say and
//! with nothing of the registry's own code. The tests compare the two.

/// What a rule of the configuration says.
#[derive(Debug, Clone)]
pub struct Rule {
    pub who: Vec<&'static str>,
    pub repositories: Vec<&'static str>,
    pub actions: Vec<&'static str>,
    pub tags: Vec<&'static str>,
}

/// A caller whose credentials are right.
#[derive(Debug, Clone, Default)]
pub struct Who {
    /// The name in rules; empty for one who has none.
    pub name: String,
    pub groups: Vec<String>,
    pub issuer: Option<&'static str>,
    /// What the token grants, if it is a token that grants anything: types, names and actions.
    pub token: Option<Vec<(String, String, Vec<String>)>>,
}

/// What a request wants, as its method and path say.
#[derive(Debug, PartialEq, Eq)]
pub enum Want {
    /// It has the path of no endpoint, or a part of it is invalid.
    Nothing,
    /// The endpoint does not have the method.
    NoMethod,
    Token,
    Base,
    Catalog,
    Repository {
        name: String,
        actions: &'static [&'static str],
        tags: Tags,
    },
}

/// What a request does with tags.
#[derive(Debug, PartialEq, Eq)]
pub enum Tags {
    None,
    These(Vec<String>),
    Any,
}

/// What is to become of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Allowed,
    /// 401: other credentials would help.
    Unauthorized,
    /// 403: not with these tags.
    Denied,
}

/// Whether `*` and `**` of a pattern can stand for something so that it is the text.
pub fn glob(pattern: &str, text: &str) -> bool {
    let ends = |text: &str| (0..=text.len()).collect::<Vec<_>>();
    if let Some(rest) = pattern.strip_prefix("**") {
        return ends(text).into_iter().any(|end| glob(rest, &text[end..]));
    }
    if let Some(rest) = pattern.strip_prefix('*') {
        let within = text.split('/').next().unwrap_or_default();
        return ends(within).into_iter().any(|end| glob(rest, &text[end..]));
    }
    match (pattern.chars().next(), text.chars().next()) {
        (None, None) => true,
        (Some(one), Some(other)) => one == other && glob(&pattern[1..], &text[1..]),
        _ => false,
    }
}

fn is_meant(who: &Who, text: &str) -> bool {
    let any_group = |pattern: &str| who.groups.iter().any(|group| glob(pattern, group));
    match text {
        "anonymous" => who.name.is_empty() && who.issuer.is_none(),
        "authenticated" => !who.name.is_empty(),
        _ => match (text.strip_prefix("group:"), text.strip_prefix("issuer:")) {
            (Some(group), _) => any_group(group),
            (_, Some(issuer)) => who.issuer.is_some_and(|of_caller| glob(issuer, of_caller)),
            _ => !who.name.is_empty() && glob(text, &who.name),
        },
    }
}

/// Whether some rule grants one action.
pub fn grants(rules: &[Rule], who: &Who, name: &str, action: &str, tags: &Tags) -> bool {
    rules.iter().any(|rule| {
        let is_tag = |tag: &String| rule.tags.iter().any(|pattern| glob(pattern, tag));
        let may_tags = match tags {
            _ if rule.tags.is_empty() || action == "pull" => true,
            Tags::None => true,
            Tags::These(tags) => tags.iter().all(is_tag),
            Tags::Any => false,
        };
        may_tags
            && rule.who.iter().any(|text| is_meant(who, text))
            && rule.repositories.iter().any(|pattern| glob(pattern, name))
            && rule.actions.iter().any(|of_rule| *of_rule == action || *of_rule == "*")
    })
}

/// Whether the caller's token, if it has one, grants one action.
pub fn token_grants(who: &Who, name: &str, action: &str) -> bool {
    let Some(token) = &who.token else {
        return true;
    };
    token.iter().any(|(kind, of_token, actions)| {
        let is_action = |of_token: &String| of_token == action || of_token == "*";
        kind == "repository" && of_token == name && actions.iter().any(is_action)
    })
}

/// Whether all is granted that is done with a repository.
pub fn may(rules: &[Rule], who: &Who, name: &str, actions: &[&str], tags: &Tags) -> bool {
    let may_one =
        |action: &&str| token_grants(who, name, action) && grants(rules, who, name, action, tags);
    actions.iter().all(may_one)
}

pub fn judge(rules: &[Rule], who: &Who, want: &Want) -> Verdict {
    let is_known = !who.name.is_empty() || who.token.is_some();
    let lists = |(kind, name, actions): &(String, String, Vec<String>)| {
        kind == "registry" && name == "catalog" && actions.iter().any(|action| action == "*")
    };
    let is_allowed = match want {
        Want::Nothing | Want::NoMethod | Want::Token => true,
        Want::Base => is_known,
        Want::Catalog => is_known && who.token.as_ref().is_none_or(|token| token.iter().any(lists)),
        Want::Repository { name, actions, tags } => {
            if !may(rules, who, name, actions, tags)
                && !who.name.is_empty()
                && may(rules, who, name, actions, &Tags::None)
            {
                return Verdict::Denied;
            }
            may(rules, who, name, actions, tags)
        }
    };
    if is_allowed { Verdict::Allowed } else { Verdict::Unauthorized }
}

/// Decodes `%61` and the like.
pub fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let code = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let code = code.filter(|hex| hex.bytes().all(|digit| digit.is_ascii_hexdigit()));
        match (first, code.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The repository that a part of the path names, if it is one.
fn name(text: &str) -> Option<String> {
    let name = decoded(text);
    let is_component = |component: &str| {
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let separators: Vec<&str> =
            component.split(is_plain).filter(|between| !between.is_empty()).collect();
        component.starts_with(is_plain)
            && component.ends_with(is_plain)
            && separators
                .iter()
                .all(|s| matches!(*s, "." | "_" | "__") || s.chars().all(|c| c == '-'))
    };
    let has_own_slashes = name.matches('/').count() == text.matches('/').count();
    (has_own_slashes && name.len() <= 255 && name.split('/').all(is_component)).then_some(name)
}

fn is_digest(text: &str) -> bool {
    let is_hex = |hex: &str| hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let is_long = |hex: &str, length| hex.len() == length && is_hex(hex);
    text.strip_prefix("sha256:").is_some_and(|hex| is_long(hex, 64))
        || text.strip_prefix("sha512:").is_some_and(|hex| is_long(hex, 128))
}

fn is_tag(text: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    (1..=128).contains(&text.len()) && !text.starts_with(['.', '-']) && text.chars().all(is_allowed)
}

fn is_upload(text: &str) -> bool {
    text.len() == 36 && text.bytes().all(|b| b"0123456789abcdef-".contains(&b))
}

/// The values of a parameter of the query.
pub fn parameters(target: &str, wanted: &str) -> Vec<String> {
    let query = target.split_once('?').map_or("", |(_, query)| query);
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let of_name = pairs.filter(|(name, _)| *name == wanted);
    of_name.map(|(_, value)| decoded(&value.replace('+', " "))).collect()
}

/// Reads a request.
pub fn want(method: &str, target: &str) -> Want {
    let path = target.split('?').next().unwrap_or_default();
    let has = |methods: &[&str], want: Want| match methods.contains(&method) {
        true => want,
        false => Want::NoMethod,
    };
    match path {
        "/v2" | "/v2/" => return has(&["GET", "HEAD"], Want::Base),
        "/v2/_catalog" => return has(&["GET", "HEAD"], Want::Catalog),
        "/auth/token" => return has(&["GET", "POST"], Want::Token),
        _ => {}
    }
    let Some(rest) = path.strip_prefix("/v2/") else {
        return Want::Nothing;
    };
    let segments: Vec<&str> = rest.split('/').collect();
    let (named, tags, methods): (&[&str], Tags, &[&str]) = match segments.as_slice() {
        [named @ .., "manifests", reference] => {
            let reference = decoded(reference);
            if !is_tag(&reference) && !is_digest(&reference) {
                return Want::Nothing;
            }
            let tags = match method {
                "GET" | "HEAD" => Tags::None,
                _ if is_tag(&reference) => Tags::These(vec![reference]),
                "DELETE" => Tags::Any,
                _ => match parameters(target, "tag") {
                    none if none.is_empty() => Tags::None,
                    tags => Tags::These(tags),
                },
            };
            (named, tags, &["GET", "HEAD", "PUT", "DELETE"])
        }
        [named @ .., "blobs", "uploads"] | [named @ .., "blobs", "uploads", ""] => {
            (named, Tags::None, &["POST"])
        }
        [named @ .., "blobs", "uploads", id] if is_upload(&decoded(id)) => {
            (named, Tags::None, &["GET", "HEAD", "PATCH", "PUT", "DELETE"])
        }
        [named @ .., "blobs", digest] if is_digest(&decoded(digest)) => {
            (named, Tags::Any, &["GET", "HEAD", "DELETE"])
        }
        [named @ .., "tags", "list"] => (named, Tags::None, &["GET", "HEAD"]),
        [named @ .., "referrers", digest] if is_digest(&decoded(digest)) => {
            (named, Tags::None, &["GET", "HEAD"])
        }
        _ => return Want::Nothing,
    };
    let Some(name) = name(&named.join("/")) else {
        return Want::Nothing;
    };
    let actions: &[&str] = match method {
        "GET" | "HEAD" => &["pull"],
        "DELETE" => &["delete"],
        _ => &["pull", "push"],
    };
    has(methods, Want::Repository { name, actions, tags })
}
