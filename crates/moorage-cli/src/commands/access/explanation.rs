//! What the rules say to a request, in words. [`decide`] decides; here it is told.

use std::fmt;

use moorage::oci::{Name, Tag};
use moorage::registry::access::{
    Actions, Caller, Decision, Need, Operation, Reason, RepositoryNeed, Rule, Rules, TagUse, Tags,
    decide,
};
use serde::Serialize;

/// What somebody wants to do.
#[derive(Debug)]
pub struct Asked {
    /// What.
    pub operation: Operation,
    /// In which repository.
    pub repository: Name,
    /// With the manifest that has this tag; otherwise with one by its digest, or a blob.
    pub tag: Option<Tag>,
}

/// The answer.
#[derive(Debug, Serialize)]
pub struct Explanation {
    /// Whether it is allowed.
    pub allowed: bool,
    /// The caller, as logs name it.
    caller: String,
    /// The groups that the configuration puts the caller into.
    pub configured_groups: Vec<String>,
    /// All groups of the caller.
    groups: Vec<String>,
    /// Why, in words.
    why: String,
    /// The rules that allow it.
    rules: Vec<ShownRule>,
    /// The rules that would if something were different, where it is not allowed.
    near: Vec<NearRule>,
    /// What may not be meant, and what else stands against it.
    pub warnings: Vec<String>,
}

/// A rule, with its number in the configuration.
#[derive(Debug, Serialize)]
struct ShownRule {
    rule: usize,
    who: Vec<String>,
    repositories: Vec<String>,
    actions: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<Vec<String>>,
}

/// A rule that does not allow it.
#[derive(Debug, Serialize)]
struct NearRule {
    #[serde(flatten)]
    rule: ShownRule,
    /// What would have to be different.
    why_not: String,
}

/// Explains what the rules say to a caller.
pub fn explain(rules: &Rules, caller: &Caller, asked: &Asked) -> Explanation {
    let need = RepositoryNeed::new(&asked.repository, asked.operation, asked.tag.as_ref());
    let question = Question { rules, caller, asked, need };
    let mut explanation = Explanation {
        allowed: false,
        caller: caller.identity.name().to_owned(),
        configured_groups: Vec::new(),
        groups: caller.identity.groups.clone(),
        why: String::new(),
        rules: Vec::new(),
        near: Vec::new(),
        warnings: Vec::new(),
    };
    match decide(rules, &Need::Repository(question.need.clone()), caller) {
        Decision::Allowed { rules: by, .. } => {
            let shown = |number| Some(ShownRule::new(number, rules.all().get(number)?));
            explanation.allowed = true;
            explanation.why = question.why();
            explanation.rules = by.into_iter().filter_map(shown).collect();
        }
        Decision::Denied(reason) => {
            explanation.why = question.why_not(reason);
            explanation.near = question.near();
        }
    }
    explanation
}

/// A question to the rules.
struct Question<'a> {
    rules: &'a Rules,
    caller: &'a Caller,
    asked: &'a Asked,
    need: RepositoryNeed<'a>,
}

impl Question<'_> {
    /// What the rules grant to a request that does this with tags.
    fn granted(&self, tags: TagUse<'_>) -> Actions {
        self.rules.granted(&self.caller.identity, self.asked.repository.as_str(), tags).actions
    }

    /// What is needed and not granted.
    fn missing(&self) -> Actions {
        self.need.actions.without(self.granted(self.need.tags.as_use()))
    }

    /// `ada may push to apps/web with the tag v1`, or may not.
    fn sentence(&self, may: &str) -> String {
        let (verb, preposition) = match self.asked.operation {
            Operation::Pull => ("pull", "from"),
            Operation::Push => ("push", "to"),
            Operation::Delete => ("delete", "from"),
        };
        let tag = self.asked.tag.as_ref();
        let tag = tag.map_or(String::new(), |tag| format!(" with the tag {tag}"));
        let (caller, repository) = (self.caller.identity.name(), &self.asked.repository);
        format!("{caller} may {may}{verb} {preposition} {repository}{tag}")
    }

    fn why(&self) -> String {
        let sentence = self.sentence("");
        // Whoever may push, but not any tag, may push layers and what has no tag.
        let is_for_all_tags = self.granted(TagUse::Any).contains(self.need.actions);
        match self.need.tags {
            Tags::None if !is_for_all_tags => {
                format!("{sentence}, though only with some tags: ask with --tag for one")
            }
            _ => sentence,
        }
    }

    fn why_not(&self, reason: Reason) -> String {
        let sentence = self.sentence("not ");
        let missing = self.missing();
        match reason {
            Reason::NoCredentials => {
                format!("{sentence}: no rule grants it ({missing}) to callers without a name")
            }
            Reason::Insufficient => {
                format!("{sentence}: no rule grants it ({missing}) to this caller")
            }
            Reason::Tags if self.need.tags == Tags::Any => format!(
                "{sentence}: it takes away every tag on it, and the rules grant {missing} for some alone"
            ),
            Reason::Tags => format!("{sentence}: the rules grant {missing}, but not for this tag"),
        }
    }

    /// The rules that would grant something of what is missing, but for one thing or two.
    fn near(&self) -> Vec<NearRule> {
        let rules = self.rules.all().iter().enumerate();
        let near = |(number, rule)| {
            let why_not = self.what_keeps(rule)?;
            Some(NearRule { rule: ShownRule::new(number, rule), why_not })
        };
        rules.filter_map(near).collect()
    }

    /// What keeps a rule from granting what is missing; `None` for a rule that is about something else.
    fn what_keeps(&self, rule: &Rule) -> Option<String> {
        let missing = self.missing();
        let is_here = rule.is_for_repository(self.asked.repository.as_str());
        let is_its = rule.is_for_caller(&self.caller.identity);
        let has_actions = !rule.actions.and(missing).is_empty();
        let has_tags =
            has_actions && !rule.actions_with(self.need.tags.as_use()).and(missing).is_empty();
        let why_not = match (is_here, is_its, has_actions, has_tags) {
            (true, true, false, _) => {
                format!("is for this caller here, and does not grant {missing}")
            }
            (true, true, true, false) => {
                "is for this caller here, and only for other tags".to_owned()
            }
            (true, false, true, true) => "would grant it here, but to other callers".to_owned(),
            (true, false, true, false) => {
                "is for other callers here, and only for other tags".to_owned()
            }
            (false, true, true, true) => {
                "would grant it to this caller, but in other repositories".to_owned()
            }
            _ => return None,
        };
        Some(why_not)
    }
}

impl Explanation {
    /// The answer where no access control is configured.
    pub fn of_no_access_control() -> Self {
        Self {
            allowed: true,
            caller: "whoever calls".to_owned(),
            configured_groups: Vec::new(),
            groups: Vec::new(),
            why: "everybody may do everything: no access control is configured".to_owned(),
            rules: Vec::new(),
            near: Vec::new(),
            warnings: Vec::new(),
        }
    }
}

impl ShownRule {
    fn new(number: usize, rule: &Rule) -> Self {
        fn texts<T: ToString>(list: &[T]) -> Vec<String> {
            list.iter().map(T::to_string).collect()
        }
        Self {
            rule: number,
            who: texts(&rule.who),
            repositories: texts(&rule.repositories),
            actions: rule.actions.names().map(str::to_owned).collect(),
            tags: rule.tags.as_deref().map(texts),
        }
    }
}

/// Lines for people.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", if self.allowed { "allowed" } else { "denied" }, self.why)?;
        if !self.configured_groups.is_empty() {
            write!(f, "\ngroups by the configuration: {}", self.configured_groups.join(", "))?;
        }
        for rule in &self.rules {
            write!(f, "\nby {rule}")?;
        }
        for near in &self.near {
            write!(f, "\nnear: {}\n      which {}", near.rule, near.why_not)?;
        }
        Ok(())
    }
}

impl fmt::Display for ShownRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, who, repositories, actions, tags } = self;
        write!(f, "rules[{rule}]: who {}", who.join(", "))?;
        write!(f, "; repositories {}; actions {}", repositories.join(", "), actions.join(", "))?;
        match tags {
            Some(tags) => write!(f, "; tags {}", tags.join(", ")),
            None => Ok(()),
        }
    }
}
