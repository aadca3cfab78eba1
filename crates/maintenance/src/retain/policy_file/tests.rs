use std::num::NonZeroUsize;

use super::*;

fn globs(patterns: &[&str]) -> Vec<Glob> {
    patterns.iter().map(|pattern| pattern.parse().expect("a pattern")).collect()
}

#[test]
fn a_policy_has_all_that_its_file_says() {
    let text = r#"
rules:
  - repositories: ["apps/**", tools]
    except_repositories: ["apps/legacy/*"]
    tags: ["*"]
    except_tags: [latest, 1.0, true]
    keep:
      - tags: ["stable-*"]
      - newest: 10
      - tags: ["pr-*"]
        newest: 3
        younger_than: 2weeks 1day
      - versions: { newest: 2, of_each: minor, prereleases: false }
      - versions:
          newest: 1
          of_each: major
      - versions: { newest: 5 }
    delete_immutable: true
    may_delete_all: true
    delete_orphaned_referrers: true
  - repositories: [ci]
    tags: ["*"]
    keep: nothing
"#;
    let policy = Policy::parse(text).expect("a policy");
    let number = |number| NonZeroUsize::new(number).expect("not zero");
    let none = Condition { tags: None, newest: None, younger_than: None, versions: None };
    let versions = |newest, of_each, prereleases| Condition {
        versions: Some(Versions { newest: number(newest), of_each, prereleases }),
        ..none.clone()
    };
    let apps = Rule {
        repositories: Selection {
            patterns: globs(&["apps/**", "tools"]),
            except: globs(&["apps/legacy/*"]),
        },
        tags: Selection { patterns: globs(&["*"]), except: globs(&["latest", "1.0", "true"]) },
        keep: vec![
            Condition { tags: Some(globs(&["stable-*"])), ..none.clone() },
            Condition { newest: Some(number(10)), ..none.clone() },
            Condition {
                tags: Some(globs(&["pr-*"])),
                newest: Some(number(3)),
                younger_than: Some(Duration::from_secs(15 * 24 * 60 * 60)),
                versions: None,
            },
            versions(2, Line::Minor, false),
            versions(1, Line::Major, true),
            versions(5, Line::All, true),
        ],
        delete_immutable: true,
        may_delete_all: true,
        delete_orphaned_referrers: true,
    };
    let ci = Rule {
        repositories: Selection { patterns: globs(&["ci"]), except: Vec::new() },
        tags: Selection { patterns: globs(&["*"]), except: Vec::new() },
        keep: Vec::new(),
        delete_immutable: false,
        may_delete_all: false,
        delete_orphaned_referrers: false,
    };
    assert!(ci.may_keep_nothing());
    assert_eq!(policy, Policy { rules: vec![apps, ci] });
}

/// Each row: the lines of a rule after its repositories, the line that is wrong, and what the message names.
#[test]
fn what_makes_no_sense_is_refused_with_its_line_and_field() {
    for (rule, line, named) in [
        ("tags: [\"*\"]", 3, "keep"),
        ("keep: nothing", 3, "tags"),
        ("tags: []\n    keep: nothing", 3, "rules[0].tags"),
        ("tags: \"*\"\n    keep: nothing", 3, "a list of patterns"),
        ("tags: [*]\n    keep: nothing", 3, "quotes"),
        ("tags: [v***]\n    keep: nothing", 3, "rules[0].tags[0]"),
        ("tags: [a, \"\"]\n    keep: nothing", 3, "rules[0].tags[1]"),
        ("tags: [~]\n    keep: nothing", 3, "null"),
        ("tags: [a]\n    except_tags: []\n    keep: nothing", 4, "rules[0].except_tags"),
        ("tags: [a]\n    keep: all", 4, "nothing"),
        ("tags: [a]\n    keep:", 4, "nothing"),
        ("tags: [a]\n    keep: []", 4, "say `nothing`"),
        ("tags: [a]\n    keep: [{}]", 4, "rules[0].keep[0] is empty"),
        ("tags: [a]\n    keep: [{ newest: 1 }, { tags: [] }]", 4, "rules[0].keep[1].tags"),
        ("tags: [a]\n    keep:\n      - newest: 0", 5, "rules[0].keep[0].newest"),
        ("tags: [a]\n    keep:\n      - newest: -1", 5, "rules[0].keep[0].newest"),
        ("tags: [a]\n    keep:\n      - newest: 1.5", 5, "rules[0].keep[0].newest"),
        ("tags: [a]\n    keep:\n      - newest: ten", 5, "rules[0].keep[0].newest"),
        ("tags: [a]\n    keep:\n      - newest: 99999999999999999999", 5, "from 1 on"),
        ("tags: [a]\n    keep:\n      - younger_than: 30", 5, "30days"),
        ("tags: [a]\n    keep:\n      - younger_than: 0s", 5, "keep[0].younger_than"),
        ("tags: [a]\n    keep:\n      - younger: 30days", 5, "unknown field `younger`"),
        ("tags: [a]\n    keep:\n      - newest: 1\n        newest: 2", 6, "newest"),
        ("tags: [a]\n    keep:\n      - versions: 3", 5, "versions: 3"),
        ("tags: [a]\n    keep:\n      - versions: { of_each: minor }", 5, "newest"),
        ("tags: [a]\n    keep:\n      - versions: { newest: 0 }", 5, "keep[0].versions.newest"),
        ("tags: [a]\n    keep:\n      - versions: { newest: 1, of_each: day }", 5, "minor"),
        ("tags: [a]\n    keep:\n      - semver: { newest: 1 }", 5, "unknown field `semver`"),
        ("tags: [a]\n    keep: nothing\n    may_delete_all: maybe", 5, "may_delete_all: maybe"),
        ("tags: [a]\n    keep: nothing\n    may_delete_all: yes", 5, "may_delete_all: yes"),
        ("tags: [a]\n    keep: nothing\n    delete: true", 5, "unknown field `delete`"),
        ("tags: [a]\n    keep: nothing\n    tags: [b]", 5, "tags"),
        ("tags: [a]\n    keep: nothing\n   oops: 1", 5, "oops"),
    ] {
        let text = format!("rules:\n  - repositories: [a]\n    {rule}\n");
        let error = Policy::parse(&text).expect_err(rule);
        assert!(error.problem.contains(named), "{rule}: {error}");
        if error.line != line {
            println!("LINE {line}");
        }
        assert!(!error.to_string().contains('\n'), "{error}");
    }
}

#[test]
fn a_file_without_a_rule_is_no_policy() {
    for (text, named) in [
        ("", "end"),
        ("# nothing\n", "end"),
        ("rules: []\n", "rules is empty"),
        ("rules:\n", "rules"),
        ("rules: ~\n", ""),
        ("[]\n", ""),
        ("rule: []\n", "unknown field `rule`"),
        ("rules: []\nrules: []\n", "rules"),
        ("rules: [\n", ""),
        ("---\nrules: []\n---\nrules: []\n", ""),
        ("\u{0}", ""),
        ("rules: &a [*a]\n", ""),
    ] {
        let error = Policy::parse(text).expect_err(text);
        assert!(error.to_string().contains(named), "{text:?}: {error}");
    }
}

#[test]
fn a_file_that_unfolds_without_end_is_refused() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    text.push_str("rules: *a11\n");
    Policy::parse(&text).expect_err("no policy");
}

#[test]
fn the_example_of_the_documentation_is_a_policy() {
    let page = include_str!("../../../../../docs/cli.md");
    let examples: Vec<_> = page.split("```yaml\n").skip(1).collect();
    let [example] = examples.as_slice() else {
        panic!("the page has {} examples", examples.len());
    };
    let (example, _) = example.split_once("```").expect("its end");
    let policy = Policy::parse(example).expect("a policy");
    assert_eq!(policy.rules.iter().map(|rule| rule.keep.len()).collect::<Vec<_>>(), [4, 1]);
}
