//! The `importguard policy` commands.

use std::{fs, process::Command};

use importguard_tests::{Binary, PolicyDir};
use serde_json::{Value, json};

struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// Runs `importguard policy …` where `policy` is.
fn policy(dir: &PolicyDir, arguments: &[&str]) -> Ended {
    let output = Command::new(Binary::AllInOne.path())
        .current_dir(dir.dir())
        .env_remove("IMPORTGUARD_POLICY")
        // An hour ahead of UTC, all year.
        .env("TZ", "CET-1")
        .arg("policy")
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ended {
        code: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

#[test]
fn check_reports_a_valid_policy_with_its_lists_and_cost() {
    let checked = policy(&PolicyDir::usual(), &["check", "policy.yaml"]);
    assert_eq!(checked.code, Some(0), "{}", checked.stdout);
    assert!(checked.stdout.contains("policy.yaml: OK: policy e2e"));
    assert!(checked.stdout.contains("blocked (3 IDs)"));
    // One look-up for the owner, and for each friend one and a prefix.
    let cost = "policy.yaml: cost of an import of 10000 friends, in units of about 10 ns: at most 20001 of 10000000; shadow rules: 0 of 2500000; most expensive: blocked-friends 20000, blocked-owner 1";
    assert!(checked.stdout.contains(cost), "{}", checked.stdout);
}

#[test]
fn check_names_live_lists() {
    let text = "apiVersion: importguard/v1\nname: live\nrules: []\nlists:\n  a: { live: bad }\n  b: { values: [x], live: bad }\n";
    let checked = policy(&PolicyDir::new(text, &[]), &["check", "policy.yaml"]);
    assert_eq!(checked.code, Some(0), "{}", checked.stdout);
    let lists = "lists a (live list bad), b (1 ID and the live list bad), sha256:";
    assert!(checked.stdout.contains(lists), "{}", checked.stdout);
}

#[test]
fn check_proposes_a_minimum_for_a_list_that_has_none() {
    let dir = PolicyDir::usual();
    let ids: String = (0..101)
        .map(|number| format!("blocked_{number}\n"))
        .collect();
    dir.write("lists/blocked.txt", &ids);
    let checked = policy(&dir, &["check", "policy.yaml"]);
    assert_eq!(checked.code, Some(0), "{}", checked.stdout);
    let hint = "policy.yaml: hint: add atLeast: 50 to the list blocked, so that no decider starts with a truncated file";
    assert!(checked.stdout.contains(hint), "{}", checked.stdout);

    let yaml = fs::read_to_string(dir.path()).unwrap();
    let guarded = yaml.replace("blocked.txt }", "blocked.txt, atLeast: 50 }");
    dir.write("policy.yaml", &guarded);
    let checked = policy(&dir, &["check", "policy.yaml"]);
    assert!(!checked.stdout.contains("hint"), "{}", checked.stdout);

    dir.write("lists/blocked.txt", "blocked_1\n");
    let checked = policy(&dir, &["check", "policy.yaml"]);
    assert_eq!(checked.code, Some(1), "{}", checked.stdout);
    let error =
        "policy.yaml:4:48: the list \"lists/blocked.txt\" has 1 ID; it must have at least 50";
    assert!(checked.stdout.contains(error), "{}", checked.stdout);
}

#[test]
fn check_shows_the_line_of_a_list_that_is_no_id() {
    let dir = PolicyDir::usual();
    dir.write("lists/blocked.txt", "[\n  \"blocked_owner\"\n]\n");
    let checked = policy(&dir, &["check", "policy.yaml"]);
    assert_eq!(checked.code, Some(1), "{}", checked.stdout);
    for told in [
        "lists/blocked.txt:1:1: this is JSON, not an ID\n    1 | [\n      | ^\n      = write one ID per line",
        "lists/blocked.txt:2:3: the quotes would become part of the ID\n    2 |   \"blocked_owner\"\n      |   ^\n",
        "policy.yaml: 3 errors",
    ] {
        assert!(checked.stdout.contains(told), "{told}: {}", checked.stdout);
    }
}

#[test]
fn check_refuses_rules_that_cost_too_much_for_the_largest_import() {
    let texts = vec!["'a'"; 100].join(", ");
    let rule = |id: &str, mode: &str| {
        format!(
            "  - {{ id: {id}, dropFriendIf: \"[{texts}].exists(x, x == friend)\", onError: skip, mode: {mode} }}\n"
        )
    };
    let yaml = |rules: String| format!("apiVersion: importguard/v1\nname: costly\nrules:\n{rules}");
    let dir = PolicyDir::new(&yaml(rule("costly", "enforce")), &[]);
    let checked = policy(&dir, &["check", "policy.yaml"]);
    assert_eq!(checked.code, Some(1), "{}", checked.stdout);
    for told in [
        "policy.yaml:4:11: with 10000 friends the enforced rules cost",
        "the maximum is 10000000: \"costly\"",
        "IMPORTGUARD_DECIDER_MAX_FRIENDS",
    ] {
        assert!(checked.stdout.contains(told), "{told}: {}", checked.stdout);
    }
    let small = policy(&dir, &["check", "--max-friends", "1000", "policy.yaml"]);
    assert_eq!(small.code, Some(0), "{}", small.stdout);
    assert!(
        small.stdout.contains("an import of 1000 friends"),
        "{}",
        small.stdout
    );

    let shadow = PolicyDir::new(&yaml(rule("watches", "shadow")), &[]);
    let checked = policy(&shadow, &["check", "policy.yaml"]);
    assert_eq!(checked.code, Some(0), "{}", checked.stdout);
    assert!(
        checked.stdout.contains(
            " (some are skipped on the largest imports); most expensive: watches (shadow) "
        ),
        "{}",
        checked.stdout
    );
}

#[test]
fn check_reports_every_error_with_its_position_and_correction() {
    let dir = PolicyDir::new(
        "apiVersion: importguard/v1
name: broken
rules:
  - id: one
    refuseOwnr: { in: nobody }
  - id: two
    refuseIf: \"friendCont > 5\"
    refusal: { code: 5900, message: \"no\" }
",
        &[],
    );
    let checked = policy(&dir, &["check", "policy.yaml"]);
    assert_eq!(checked.code, Some(1), "{}", checked.stdout);
    for told in [
        "policy.yaml:5:5: ",
        "did you mean \"refuseOwner\"?",
        "policy.yaml:7:",
        "friendCont",
        "policy.yaml:8:22: ",
        "5900",
    ] {
        assert!(checked.stdout.contains(told), "{told}: {}", checked.stdout);
    }
}

#[test]
fn a_command_that_is_given_wrongly_exits_with_2() {
    let dir = PolicyDir::usual();
    for arguments in [
        &["explain"][..],
        &["test", "nowhere"],
        &["test", "lists"],
        &["chek"],
    ] {
        let ended = policy(&dir, arguments);
        assert_eq!(ended.code, Some(2), "{arguments:?}: {}", ended.stdout);
        assert!(ended.stderr.contains("error: "), "{arguments:?}");
    }
    let nothing = policy(&dir, &["explain"]).stderr;
    let error = nothing.split("Usage:").next().unwrap();
    for flag in ["--owner", "--event"] {
        assert!(error.contains(flag), "no {flag} in: {error}");
    }
}

const TABLE: &str = "policy: policy.yaml
tests:
  - name: blocked friends are left out
    owner: alice
    friends: [bob, blocked_1]
    expect: { verdict: modify, kept: [bob], rules: [blocked-friends] }
  - name: a wrong expectation
    owner: blocked_owner
    friends: [bob]
    expect: { verdict: refuse, code: 5017 }
";

#[test]
fn test_shows_what_was_expected_and_what_was_got() {
    let dir = PolicyDir::usual();
    dir.write("policy.test.yaml", TABLE);
    let tested = policy(&dir, &["test", ".", "--junit", "results.xml"]);
    assert_eq!(tested.code, Some(1), "{}", tested.stdout);
    assert!(tested.stdout.contains("2 tests, 1 failed"));
    for told in ["a wrong expectation (line 7)", "5017", "5001"] {
        assert!(tested.stdout.contains(told), "{told}: {}", tested.stdout);
    }
    let junit = fs::read_to_string(dir.dir().join("results.xml")).unwrap();
    assert!(junit.contains("tests=\"2\" failures=\"1\""), "{junit}");

    dir.write("policy.test.yaml", &TABLE.replace("5017", "5001"));
    let tested = policy(&dir, &["test", "."]);
    assert_eq!(tested.code, Some(0), "{}", tested.stdout);
}

#[test]
fn test_searches_the_directory_of_the_policy_that_other_commands_read() {
    let dir = PolicyDir::usual();
    dir.write("policy.test.yaml", &TABLE.replace("5017", "5001"));
    let test = |variable: Option<&str>| {
        let mut command = Command::new(Binary::AllInOne.path());
        command.current_dir(dir.dir()).args(["policy", "test"]);
        command.env_remove("IMPORTGUARD_POLICY");
        let variable = variable.map(|path| ("IMPORTGUARD_POLICY", path));
        let output = command.envs(variable).output().unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.code(), text)
    };
    let path = dir.dir().join("policy.yaml");
    for set in ["policy.yaml", path.to_str().unwrap()] {
        let (code, text) = test(Some(set));
        assert_eq!(code, Some(0), "{set}: {text}");
    }
    let (code, text) = test(None);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("policy cannot be read"), "{text}");
    assert!(text.contains("`importguard policy init`"), "{text}");
}

#[test]
fn check_has_hints_for_what_is_hardly_meant() {
    let dir = PolicyDir::new(
        "apiVersion: importguard/v1\nname: hints\nlists: { a: { values: [x] }, b: { values: [x] } }\nrules:\n- { id: r, dropFriends: { prefixes: [bot_], notIn: a } }\n",
        &[],
    );
    let checked = policy(&dir, &["check", "policy.yaml"]);
    assert_eq!(checked.code, Some(0), "{}", checked.stdout);
    for hint in [
        "hint: no rule uses the list b; use it or remove it",
        "hint: the rule r matches IDs that fit any of its keys",
    ] {
        assert!(checked.stdout.contains(hint), "{}", checked.stdout);
    }
    assert_eq!(
        checked.stdout.matches("hint:").count(),
        2,
        "{}",
        checked.stdout
    );
}

#[test]
fn explain_shows_the_result_of_each_rule() {
    let dir = PolicyDir::usual();
    let ask = ["explain", "--policy", "policy.yaml", "--owner", "alice"];
    let friends = ["--friends", "bob,blocked_1", "--friends", "bot_7"];
    let table = policy(&dir, &[&ask[..], &friends].concat());
    assert_eq!(table.code, Some(0), "{}", table.stderr);
    assert!(table.stdout.contains("\"blocked_1\" is in blocked"));
    assert!(
        table
            .stdout
            .contains("modify: 1 of 3 friends are imported: \"bob\"")
    );

    let at = ["--friend", "bob", "--at", "2026-10-25T02:30:00+01:00"];
    let one = policy(&dir, &[&ask[..], &at].concat());
    let head = "owner \"alice\", 1 friend, 2026-10-25T01:30:00Z\n";
    assert!(one.stdout.contains(head), "{}", one.stdout);

    let commas = ["--friends", "a,b", "--friend", "c,d", "--friend", "e"];
    let told = policy(&dir, &[&ask[..], &commas, &at[2..], &["--json"]].concat());
    let told: Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!(
        told["request"]["friendUserIDs"],
        json!(["a", "b", "c,d", "e"])
    );
    assert_eq!(told["request"]["now"], "2026-10-25T01:30:00Z");

    let told = policy(&dir, &[&ask[..], &friends, &["--json"]].concat());
    let told: Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!(told["kept"], json!(["bob"]));
    let rules: Vec<_> = told["steps"].as_array().unwrap().iter().collect();
    assert_eq!(rules.len(), 4);
    assert_eq!(
        rules[3]["removed"],
        json!([
            { "index": 1, "friend": "blocked_1", "because": "is in blocked" },
            { "index": 2, "friend": "bot_7", "because": "starts with \"bot_\"" },
        ])
    );
}

#[test]
fn explain_shows_a_refusal_and_the_rules_it_skipped() {
    let ask = ["explain", "--policy", "policy.yaml", "--owner"];
    let refused = policy(
        &PolicyDir::usual(),
        &[&ask[..], &["blocked_owner", "--friends", "bob", "--json"]].concat(),
    );
    let told: Value = serde_json::from_str(&refused.stdout).unwrap();
    assert_eq!(told["verdict"], "refuse");
    assert_eq!(told["refusal"]["code"], 5001);
    assert_eq!(told["steps"][2]["because"], "is in blocked");
    assert_eq!(told["steps"][3]["happened"], "notReached");
}

#[test]
fn explain_shows_descriptions() {
    let dir = PolicyDir::new(
        "apiVersion: importguard/v1\nname: told\nrules:\n- { id: r, description: \"Agreed with\\nsupport\", dropFriends: { prefixes: [bot_] } }\n",
        &[],
    );
    let told = policy(
        &dir,
        &["explain", "--policy", "policy.yaml", "--owner", "alice"],
    );
    assert!(
        told.stdout.contains("\n      # Agreed with support\n"),
        "{}",
        told.stdout
    );
}

#[test]
fn explain_takes_the_times_that_tests_and_other_commands_take() {
    let dir = PolicyDir::new(
        "apiVersion: importguard/v1\nname: hours\nrules:\n- { id: r, dropFriends: { prefixes: [b] }, when: now.getHours() == 12 }\n",
        &[],
    );
    let ask = [
        "explain",
        "--policy",
        "policy.yaml",
        "--owner",
        "alice",
        "--friends",
        "a,b",
        "--at",
    ];
    for (at, removes) in [
        ("2026-01-31T12:00:00Z", true),
        ("2026-01-31T13:30:00+01:00", true),
        ("2026-01-31T12:30:00+01:00", false),
        // Without an offset in the local zone, as for `why` and `tail`.
        ("2026-01-31 13:30", true),
        ("2026-01-31 12:30", false),
    ] {
        let told = policy(&dir, &[&ask[..], &[at]].concat());
        assert_eq!(told.code, Some(0), "{at}: {}", told.stderr);
        assert_eq!(
            told.stdout.contains("removed 1"),
            removes,
            "{at}: {}",
            told.stdout
        );
    }
    let wrong = policy(&dir, &[&ask[..], &["noon"]].concat());
    assert_eq!(wrong.code, Some(2));
    assert!(
        wrong.stderr.contains("not a time; write"),
        "{}",
        wrong.stderr
    );
}

#[test]
fn init_leaves_no_beginning_of_a_file_on_a_full_disk() {
    let dir = PolicyDir::usual();
    // No file may grow, which is an error as on a full disk if the signal is ignored.
    let script = "trap '' XFSZ; ulimit -f 0; exec \"$0\" policy init new";
    let mut shell = Command::new("sh");
    let shell = shell.arg("-c").arg(script).arg(Binary::AllInOne.path());
    let output = shell.current_dir(dir.dir()).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("cannot write new/policy.yaml"), "{stderr}");
    assert!(!dir.dir().join("new/policy.yaml").exists());
}

#[test]
fn init_writes_a_policy_that_passes_its_tests_and_overwrites_nothing() {
    let dir = PolicyDir::usual();
    let written = policy(&dir, &["init", "new"]);
    assert_eq!(written.code, Some(0), "{}", written.stderr);
    let path = dir.dir().join("new/policy.yaml");
    assert!(
        written.stdout.contains("wrote new/policy.yaml"),
        "{}",
        written.stdout
    );
    for command in [
        &["check", "new/policy.yaml", "new/live.yaml"][..],
        &["test", "new"],
    ] {
        let passed = policy(&dir, command);
        assert_eq!(passed.code, Some(0), "{}", passed.stdout);
    }
    // The detector reads its rules before it connects to NATS.
    assert!(dir.dir().join("new/detector.yaml").exists());

    fs::write(&path, "mine").unwrap();
    fs::remove_file(dir.dir().join("new/policy.test.yaml")).unwrap();
    let again = policy(&dir, &["init", "new"]);
    assert_eq!(again.code, Some(2), "{}", again.stdout);
    assert!(
        again.stderr.contains("new/policy.yaml exists"),
        "{}",
        again.stderr
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    assert!(!dir.dir().join("new/policy.test.yaml").exists());
}

#[test]
fn what_is_easily_meant_otherwise_is_said() {
    let dir = PolicyDir::usual();
    dir.write("lists/blocked.txt", "blocked_owner blocked_1 blocked_2\n");
    let checked = policy(&dir, &["check", "policy.yaml"]);
    let hint =
        "hint: the list blocked has 1 ID with spaces; if that is not meant, write one ID per line";
    assert!(checked.stdout.contains(hint), "{}", checked.stdout);
    let directory = policy(&dir, &["check", "lists"]);
    let expected = "lists is a directory\n      = name a file in it";
    assert!(directory.stdout.contains(expected), "{}", directory.stdout);
    let ask = ["explain", "--policy", "policy.yaml", "--owner"];
    for (arguments, expected) in [
        (vec!["check", "-"], "standard input is not supported"),
        (vec!["test", "-"], "standard input is not supported"),
        (vec!["digest", "-"], "standard input is not supported"),
        ([&ask[..], &[""]].concat(), "it is empty"),
        (
            [&ask[..], &["x", "--friends", "a,,c"]].concat(),
            "it is empty",
        ),
        (
            [&ask[..], &["x", "--operation-id", "a b"]].concat(),
            "it has a character that is not visible ASCII",
        ),
    ] {
        let ended = policy(&dir, &arguments);
        assert_eq!(ended.code, Some(2), "{arguments:?}: {}", ended.stdout);
        assert!(ended.stderr.contains(expected), "{}", ended.stderr);
    }
    let nobody = policy(&dir, &[&ask[..], &["x"]].concat());
    assert!(nobody.stdout.contains("allow: there are no friends"));
}
