use super::*;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + 10_000 * DAY
}

/// Tags as `name:age in days`, separated by spaces.
fn tags(text: &str) -> Vec<ListedTag> {
    let tag = |text: &str| {
        let (tag, age) = text.split_once(':').unwrap_or((text, "0"));
        // Negative where it is of the future.
        let age = 100.0 + age.parse::<f64>().expect("a number");
        ListedTag {
            tag: tag.parse().expect("a tag"),
            written: now() + 100 * DAY - DAY.mul_f64(age),
            modified: String::new(),
        }
    };
    text.split_whitespace().map(tag).collect()
}

fn policy(keep: &str) -> Policy {
    policy_of(&format!("[{{ repositories: [a], tags: [\"*\"], keep: {keep} }}]"))
}

fn policy_of(rules: &str) -> Policy {
    Policy::parse(&format!("rules: {rules}")).expect("a policy")
}

fn decided(policy: &Policy, tags: &[ListedTag], immutable: &str) -> Vec<Decision> {
    let name: Name = "a".parse().expect("a name");
    let immutable = |tag: &Tag| immutable.split(' ').position(|name| name == tag.as_str());
    decide(policy, &name, tags, now(), immutable)
}

/// The tags with this verdict.
fn with(verdict: Verdict, tags: &[ListedTag], decisions: &[Decision]) -> String {
    let found = tags.iter().zip(decisions).filter(|(_, decision)| decision.verdict == verdict);
    found.map(|(tag, _)| tag.tag.to_string()).collect::<Vec<_>>().join(" ")
}

/// Each row: what is kept, the tags, and those of them that go.
#[test]
fn tags_go_that_no_condition_keeps() {
    for (keep, all, goes) in [
        ("nothing", "a b", "a b"),
        ("[{ tags: [a, x*] }]", "a b x xy axy", "b axy"),
        ("[{ newest: 2 }]", "old:9 older:10 new:1 newer:0", "old older"),
        ("[{ newest: 9 }]", "a b c", ""),
        ("[{ younger_than: 7days }]", "a:6.9 b:7 c:7.1 d:0", "b c"),
        // Written by a clock that is ahead.
        ("[{ younger_than: 7days }]", "a:-3 b:8", "b"),
        ("[{ versions: { newest: 1 } }]", "1.0.0 1.1.0 latest", "1.0.0 latest"),
        // Any condition keeps it.
        ("[{ tags: [latest] }, { newest: 1 }]", "latest:99 a:1 b:2", "b"),
        ("[{ younger_than: 2days }, { newest: 2 }]", "a:0 b:1 c:1.5 d:3", "d"),
        ("[{ younger_than: 2days }, { newest: 2 }]", "a:10 b:11 c:12", "c"),
        // All that one condition says has to hold.
        ("[{ newest: 2, younger_than: 2days }]", "a:0 b:1 c:1.5", "c"),
        ("[{ newest: 2, younger_than: 2days }]", "a:0 b:3 c:4", "b c"),
        // What is counted are the tags that the condition is about.
        ("[{ tags: [\"pr-*\"], newest: 1 }, { tags: [main] }]", "main:0 pr-1:2 pr-2:1", "pr-1"),
        (
            "[{ tags: [\"v*\"], versions: { newest: 1 } }, { tags: [\"9*\"] }]",
            "9.0.0 v1.0.0 v0.9.0",
            "v0.9.0",
        ),
        // A tag that stays for another reason takes a place among the newest all the same.
        ("[{ tags: [latest] }, { newest: 2 }]", "latest:0 a:1 b:2", "b"),
        // Of tags that were written together, all stay if one does.
        ("[{ newest: 2 }]", "a:1 b:2 c:2 d:2 e:3", "e"),
        ("[{ newest: 1 }]", "a:1 b:1", ""),
    ] {
        let all = tags(all);
        let decisions = decided(&policy(keep), &all, "");
        assert_eq!(with(Verdict::Delete, &all, &decisions), goes, "{keep}: {decisions:?}");
        let mut backwards = all.clone();
        backwards.reverse();
        let mut again = decided(&policy(keep), &backwards, "");
        again.reverse();
        assert_eq!(again, decisions, "{keep}: the order of the listing matters");
    }
}

/// Each row: the rules, the tags, those that go, and those that no rule is for.
#[test]
fn what_no_rule_is_for_is_left_alone() {
    for (rules, all, goes, left) in [
        ("[{ repositories: [b], tags: [\"*\"], keep: nothing }]", "a", "", "a"),
        (
            "[{ repositories: [\"**\"], except_repositories: [a], tags: [\"*\"], keep: nothing }]",
            "a",
            "",
            "a",
        ),
        (
            "[{ repositories: [a], tags: [\"pr-*\"], keep: nothing }]",
            "pr-1 main v1",
            "pr-1",
            "main v1",
        ),
        (
            "[{ repositories: [a], tags: [\"*\"], except_tags: [main], keep: [{ newest: 1 }] }]",
            "main:0 a:1 b:2",
            "b",
            "main",
        ),
        // What one rule does not keep another may, in whatever order they stand.
        (
            "[{ repositories: [a], tags: [\"*\"], keep: [{ newest: 1 }] },
              { repositories: [\"**\"], tags: [\"v*\"], keep: [{ younger_than: 9days }] }]",
            "a:1 v1:2 v2:10 b:2",
            "v2 b",
            "",
        ),
        (
            "[{ repositories: [a], tags: [\"*\"], keep: nothing },
              { repositories: [a], tags: [keep], keep: [{ tags: [\"*\"] }] }]",
            "keep other",
            "other",
            "",
        ),
    ] {
        let all = tags(all);
        let decisions = decided(&policy_of(rules), &all, "");
        assert_eq!(with(Verdict::Delete, &all, &decisions), goes, "{rules}");
        assert_eq!(with(Verdict::LeaveAlone, &all, &decisions), left, "{rules}");
    }
}

#[test]
fn immutable_tags_stay_unless_every_rule_says_otherwise() {
    let rule = |immutable: bool| {
        format!(
            "{{ repositories: [a], tags: [\"*\"], keep: nothing, delete_immutable: {immutable} }}"
        )
    };
    let all = tags("v1 v2 x");
    for (rules, goes) in [
        (format!("[{}]", rule(false)), "x"),
        (format!("[{}]", rule(true)), "v1 v2 x"),
        (format!("[{}, {}]", rule(true), rule(false)), "x"),
        (format!("[{}, {}]", rule(true), rule(true)), "v1 v2 x"),
    ] {
        let decisions = decided(&policy_of(&rules), &all, "v1 v2");
        assert_eq!(with(Verdict::Delete, &all, &decisions), goes, "{rules}");
    }
    let decisions = decided(&policy("nothing"), &all, "v1 v2");
    assert!(decisions[1].why.contains("policy.tags.immutable[1]"), "{decisions:?}");
}

#[test]
fn fallback_tags_take_no_places_and_follow_unless_they_are_named() {
    let hex = "0".repeat(64);
    let all = tags(&format!("a:2 b:3 sha256-{hex}:0 sha256-{hex}.sig:0 sha256-{hex}.att:0"));
    for (rules, goes, follow, kept) in [
        ("keep: [{ newest: 1 }]", "b", 3, 1),
        ("keep: nothing", "a b", 3, 0),
        ("keep: [{ younger_than: 1day }]", "a b", 3, 0),
        ("keep: [{ tags: [\"*.sig\"] }]", "a b", 2, 1),
        ("keep: [{ tags: [\"*.sig\"], newest: 1 }]", "a b", 3, 0),
        ("except_tags: [\"*.att\"], keep: [{ newest: 2 }]", "", 2, 3),
    ] {
        let policy = policy_of(&format!("[{{ repositories: [a], tags: [\"*\"], {rules} }}]"));
        let decisions = decided(&policy, &all, "");
        assert_eq!(with(Verdict::Delete, &all, &decisions), goes, "{rules}");
        let count = |verdict| decisions.iter().filter(|one| one.verdict == verdict).count();
        assert_eq!(count(Verdict::FollowSubject), follow, "{rules}: {decisions:?}");
        assert_eq!(count(Verdict::Keep), kept, "{rules}: {decisions:?}");
    }
    let immutable = format!("sha256-{hex}.sig");
    let decisions = decided(&policy("nothing"), &all, &immutable);
    assert_eq!(with(Verdict::Keep, &all, &decisions), immutable);
}

/// Each row: a rule, the tags, and whether the repository is not to be touched.
#[test]
fn a_repository_is_emptied_only_where_the_policy_says_so() {
    let fallback = format!("sha256-{}.sig", "0".repeat(64));
    for (rule, all, is_refused) in [
        ("tags: [\"*\"], keep: [{ younger_than: 7days }]", "a:8 b:9", true),
        ("tags: [\"*\"], keep: [{ younger_than: 7days }]", "a:8 b:1", false),
        ("tags: [\"*\"], keep: [{ younger_than: 7days }], may_delete_all: true", "a:8", false),
        ("tags: [\"*\"], keep: nothing", "a:8", false),
        ("tags: [\"*\"], keep: [{ tags: [main] }]", "mian:8", true),
        // What no rule is for stays too.
        ("tags: [\"pr-*\"], keep: [{ younger_than: 7days }]", "pr-1:8 main:99", false),
        ("tags: [\"pr-*\"], keep: [{ younger_than: 7days }]", "pr-1:8", true),
        ("tags: [\"*\"], keep: [{ newest: 1 }]", "", false),
        // A signature alone is not what the repository is for.
        ("tags: [\"*\"], keep: [{ younger_than: 7days }]", &format!("a:8 {fallback}:1"), true),
        ("tags: [\"*\"], keep: [{ younger_than: 7days }]", &format!("{fallback}:9"), false),
    ] {
        let (policy, all) = (policy_of(&format!("[{{ repositories: [a], {rule} }}]")), tags(all));
        let decisions = decided(&policy, &all, "");
        let name: Name = "a".parse().expect("a name");
        let refused = would_delete_all(&policy, &name, &all, &decisions);
        assert_eq!(refused, is_refused.then_some(0), "{rule}: {decisions:?}");
    }
}

#[test]
fn a_decision_says_which_rule_made_it_and_why() {
    let all = tags("main:0 a:3 b:40");
    let keep = "[{ tags: [main] }, { newest: 2, younger_than: 30days }]";
    let decisions = decided(&policy(keep), &all, "");
    let whys: Vec<_> = decisions.iter().map(|decision| decision.why.as_str()).collect();
    assert_eq!(
        whys,
        [
            "rules[0].keep[0]: matches main",
            "rules[0].keep[1]: number 2 of the newest 2, 3d old, younger than 30days",
            "rules[0].keep[0]: matches none of its tags; \
             rules[0].keep[1]: number 3, only the newest 2 stay",
        ]
    );
    let whys = decided(&policy("nothing"), &all, "").remove(0).why;
    assert_eq!(whys, "rules[0] keeps nothing");
}
