//! `deploy/prometheus` and `deploy/grafana` are valid and use metrics that exist.

use std::{collections::BTreeSet, fs, process::Command};

use importguard_tests::{tool, workspace};
use serde_json::{Value, json};
use tempfile::TempDir;

const RULES: &str = "deploy/prometheus/importguard.rules.yaml";
const RULES_TESTS: &str = "deploy/prometheus/importguard.rules.test.yaml";
const DASHBOARD: &str = "deploy/grafana/dashboards/importguard.json";
const HANDBOOK: &str = "docs/operations.md";

fn read(file: &str) -> String {
    fs::read_to_string(workspace().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn dashboard() -> Value {
    serde_json::from_str(&read(DASHBOARD)).unwrap()
}

/// Runs `promtool` where the workspace is, and returns what it says if it is content.
#[track_caller]
fn promtool(arguments: &[&str]) -> Option<String> {
    let promtool = tool("promtool", "PROMTOOL", &arguments.join(" "))?;
    let output = Command::new(promtool)
        .current_dir(workspace())
        .args(arguments)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
    Some(said)
}

/// The values of `key: value` in a file of rules or of their tests.
fn values<'a>(yaml: &'a str, key: &str) -> Vec<&'a str> {
    let values = yaml.lines().filter_map(|line| {
        let line = line.trim_start().trim_start_matches("- ");
        line.strip_prefix(key)?.strip_prefix(": ")
    });
    values.collect()
}

#[test]
fn the_rules_are_sound() {
    promtool(&["check", "rules", RULES]);
}

#[test]
fn each_alert_fires_when_it_should_and_not_before() {
    promtool(&["test", "rules", RULES_TESTS]);
    let (rules, tests) = (read(RULES), read(RULES_TESTS));
    let tested: BTreeSet<_> = values(&tests, "alertname").into_iter().collect();
    let alerts: BTreeSet<_> = values(&rules, "alert").into_iter().collect();
    assert!(!alerts.is_empty());
    assert_eq!(alerts, tested);
}

#[test]
fn each_alert_has_its_section_in_the_handbook() {
    let (rules, handbook) = (read(RULES), read(HANDBOOK));
    let sections: BTreeSet<_> = handbook
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .filter(|title| title.starts_with("Importguard"))
        .collect();
    let alerts: BTreeSet<_> = values(&rules, "alert").into_iter().collect();
    assert_eq!(alerts, sections);
    let runbooks: BTreeSet<_> = values(&rules, "runbook_url")
        .into_iter()
        .map(str::to_owned)
        .collect();
    let page = "https://github.com/importguard/importguard/blob/main/docs/operations.md#";
    let anchors = alerts
        .iter()
        .map(|alert| page.to_owned() + &alert.to_lowercase());
    assert_eq!(runbooks, anchors.collect());
}

#[test]
fn rules_and_dashboard_name_only_metrics_that_the_handbook_documents() {
    let handbook = read(HANDBOOK);
    let documented: BTreeSet<_> = handbook
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split_once(" |"))
        .flat_map(|(families, _)| families.split('`').filter(|name| is_metric(name)))
        .collect();
    assert!(documented.len() > 20, "{documented:?}");
    for file in [RULES, DASHBOARD] {
        let text = read(file);
        let named: Vec<_> = text
            .split(|c: char| !(c.is_ascii_alphanumeric() || "_:".contains(c)))
            .filter(|word| is_metric(word))
            .collect();
        assert!(!named.is_empty());
        for name in named {
            let family = ["_bucket", "_count", "_sum"]
                .iter()
                .find_map(|suffix| name.strip_suffix(suffix))
                .unwrap_or(name);
            assert!(
                documented.contains(name) || documented.contains(family),
                "{file} names {name}, which {HANDBOOK} does not document"
            );
        }
    }
}

/// What the dashboard leaves out: what is of use only together with a log line, a runbook, or another process's metrics.
const NOT_ON_THE_DASHBOARD: [&str; 13] = [
    "importguard_admin_connections",
    "importguard_admin_connections_evicted_total",
    "importguard_admin_connections_rejected_total",
    "importguard_connections_evicted_total",
    "importguard_decider_connections",
    "importguard_decider_connections_evicted_total",
    "importguard_decider_connections_rejected_total",
    "importguard_decider_evaluations_aborted_total",
    "importguard_decider_shadow_rules_skipped_total",
    "importguard_log_lines_dropped_total",
    "importguard_spans_lost_total",
    "importguard_upstream_in_flight",
    "importguard_upstream_total",
];

#[test]
fn the_dashboard_shows_each_documented_metric() {
    let (handbook, dashboard) = (read(HANDBOOK), read(DASHBOARD));
    let documented = handbook
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(family, _)| family)
        .filter(|family| family.starts_with("importguard_") && family.matches('_').count() > 1);
    let families: BTreeSet<_> = documented.collect();
    assert!(families.len() > 50, "{families:?}");
    let mut missing: Vec<_> = families
        .iter()
        .filter(|family| !dashboard.contains(**family))
        .collect();
    missing.retain(|family| !NOT_ON_THE_DASHBOARD.contains(family));
    assert!(missing.is_empty(), "no panel shows {missing:?}");
    for family in NOT_ON_THE_DASHBOARD {
        assert!(families.contains(family), "{family} is not documented");
    }
}

/// Each aggregation of a rule keeps the namespace, so that installations that one Prometheus watches are told apart.
#[test]
fn each_aggregation_of_a_rule_keeps_the_namespace() {
    let rules = read(RULES);
    let mut aggregations = 0;
    for rule in rules
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
    {
        for operator in ["sum", "max", "count", "group"] {
            for (at, _) in rule.match_indices(operator) {
                let rest = rule[at + operator.len()..].trim_start();
                let before = rule[..at].chars().next_back();
                if before.is_some_and(|c| c.is_alphanumeric() || c == '_')
                    || !rest.starts_with(['(', 'b'])
                {
                    continue;
                }
                let labels = rest
                    .strip_prefix("by (")
                    .and_then(|rest| rest.split_once(')'));
                let keeps = labels.is_some_and(|(labels, _)| {
                    labels.split(", ").any(|label| label == "namespace")
                });
                assert!(keeps, "{rule}");
                aggregations += 1;
            }
        }
    }
    assert!(aggregations > 20, "{aggregations}");
}

fn is_metric(word: &str) -> bool {
    ["importguard_", "process_"]
        .iter()
        .any(|prefix| word.starts_with(prefix))
}

#[test]
fn the_dashboards_expressions_are_promql() {
    let dashboard = dashboard();
    let rules: Vec<_> = expressions(&dashboard)
        .iter()
        .map(|expression| {
            let expression = expression
                .replace("$__rate_interval", "5m")
                .replace("$namespace", ".*")
                .replace("$instance", ".*");
            json!({ "record": "expression", "expr": expression })
        })
        .collect();
    assert!(rules.len() > 30, "{rules:?}");
    // promtool reads YAML, and JSON is YAML. The names of the groups differ, so that no two rules are the same.
    let groups: Vec<_> = rules
        .iter()
        .enumerate()
        .map(|(number, rule)| json!({ "name": number.to_string(), "rules": [rule] }))
        .collect();
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("expressions.yaml");
    fs::write(&file, json!({ "groups": groups }).to_string()).unwrap();
    promtool(&["check", "rules", "--lint=none", &file.display().to_string()]);
}

fn expressions(dashboard: &Value) -> Vec<&str> {
    panels(dashboard)
        .filter_map(|panel| panel["targets"].as_array())
        .flatten()
        .map(|target| target["expr"].as_str().unwrap())
        .collect()
}

/// The panels that are no headings.
fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    let panels = dashboard["panels"].as_array().unwrap();
    panels.iter().filter(|panel| panel["type"] != "row")
}

#[test]
fn each_panel_explains_itself_asks_the_chosen_source_and_has_its_own_place() {
    let dashboard = dashboard();
    let mut ids = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}");
        let place = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(place("x") + place("w") <= 24, "{title}");
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                assert!(taken.insert((x, y)), "{title} lies on another panel");
            }
        }
    }
    for panel in panels(&dashboard) {
        let title = panel["title"].as_str().unwrap();
        let description = panel["description"].as_str().unwrap_or_default();
        assert!(description.ends_with(['.', '?']), "{title}: {description}");
        for target in panel["targets"].as_array().unwrap() {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
            let expression = target["expr"].as_str().unwrap();
            for variable in ["$namespace", "$instance"] {
                assert!(expression.contains(variable), "{title}: {expression}");
            }
            // What a scrape job is called is up to whoever scrapes.
            assert!(!expression.contains("job="), "{title}: {expression}");
        }
    }
}

#[test]
fn the_dashboards_alerts_are_alerts() {
    let rules = read(RULES);
    let alerts: BTreeSet<_> = values(&rules, "alert").into_iter().collect();
    let text = read(DASHBOARD);
    let named = text
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| word.starts_with("Importguard") && *word != "Importguard");
    for name in named {
        assert!(alerts.contains(name), "{name}");
    }
}
