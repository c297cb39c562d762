//! Every failure in the tables of docs/operations.md is caused by a test.

use std::{collections::HashSet, fs, path::Path};

use importguard_tests::workspace;

/// The tests that cause a failure, by the first column of its row.
const CAUSED_BY: [(&str, &[&str]); 63] = [
    (
        "one of several deciders dies",
        &["one_is_killed_and_comes_back_and_no_verdict_fails"],
    ),
    (
        "one of several deciders hangs",
        &["one_stands_still_and_goes_on_and_no_verdict_fails"],
    ),
    (
        "no decider is reachable",
        &[
            "without_a_decider_imports_are_refused_with_5910",
            "or_allowed_if_so_configured",
        ],
    ),
    (
        "no decider answers in time",
        &[
            "a_decider_that_stands_still_is_given_up_in_time",
            "a_decider_that_accepts_connections_and_sends_nothing_times_out",
        ],
    ),
    (
        "large imports of several callers wait for each other's evaluations until their deadlines",
        &["imports_that_wait_for_other_expensive_ones_are_overload"],
    ),
    (
        "the gateway itself is too busy to receive a verdict or an acknowledgement by NATS in time: it was idle for less than an eighth of that time",
        &["imports_for_whose_verdicts_the_gateway_itself_is_too_busy_are_overload"],
    ),
    (
        "a decider answers with an error, or with friends that were not in the request",
        &[
            "something_that_is_no_decider_fails_with_5912",
            "a_decider_that_keeps_friends_that_were_not_asked_for_fails_with_5912",
            "each_cause_has_a_setting_of_its_own",
        ],
    ),
    (
        "an expression fails at run time",
        &["a_refusal_by_a_failed_expression_is_an_error_in_log_event_and_metrics"],
    ),
    (
        "the policy file is broken, or a list is missing",
        &[
            "an_invalid_policy_is_reported_and_changes_nothing_else",
            "a_list_that_goes_away_leaves_the_last_good_one",
        ],
    ),
    (
        "a list is emptied, below its minimum, or is no list of IDs (JSON, an error page, another encoding)",
        &[
            "an_emptied_list_is_reported_and_blocks_as_before",
            "a_list_below_its_minimum_is_reported_and_blocks_as_before",
            "what_is_no_list_is_reported_without_its_lines_and_blocks_as_before",
        ],
    ),
    (
        "a list loses more than half of its IDs, or is half written",
        &[
            "a_list_that_lost_more_than_half_is_held_back_until_sighup_confirms_it",
            "a_list_that_is_written_slowly_blocks_as_before_until_it_is_complete",
        ],
    ),
    (
        "the policy file is cut off, or enforces no rule any more",
        &["a_policy_that_lost_its_rules_is_held_back_until_sighup_confirms_it"],
    ),
    (
        "live lists are not current",
        &[
            "a_decider_that_was_away_catches_up_without_reading_all_lists_anew",
            "a_decider_whose_lists_are_not_current_is_not_ready_if_the_operator_says_so",
        ],
    ),
    (
        "the detector is away, or cannot read or write",
        &[
            "windows_survive_a_restart",
            "nats_may_be_away_at_the_start_and_in_between",
            "sigterm_ends_it_while_it_cannot_write",
        ],
    ),
    (
        "the policy is broken at startup",
        &[
            "a_policy_with_an_error_ends_it_with_file_and_line",
            "a_policy_that_is_not_there_ends_it_with_its_name",
            "no_decider_starts_with_an_empty_list_or_one_below_its_minimum",
        ],
    ),
    (
        "NATS is down or restarts",
        &[
            "nats_is_killed_and_comes_back_and_500_requests_are_500_events",
            "nats_is_killed_and_restarted_again_and_again",
            "with_nats_away_only_the_first_requests_wait_for_it",
        ],
    ),
    (
        "NATS hangs, or the network drops all packets",
        &[
            "nats_stands_still_and_goes_on_or_is_killed",
            "the_connection_to_nats_stalls_and_goes_on_or_is_cut",
            "tail_says_so_and_goes_on_where_it_was",
        ],
    ),
    (
        "the connection to NATS breaks",
        &[
            "the_connection_to_nats_is_torn_in_the_middle",
            "a_gateway_whose_connections_last_no_second_connects_once_a_second_and_names_the_cause_once",
        ],
    ),
    (
        "a server of the NATS cluster dies",
        &[
            "every_server_of_a_cluster_is_killed_in_its_turn",
            "an_event_that_a_cluster_has_not_stored_yet_is_not_parked",
        ],
    ),
    (
        "too few servers of the stream are reachable for a leader",
        &["a_stream_without_a_leader_is_named_as_the_cause_with_the_servers_to_start"],
    ),
    (
        "NATS cannot be connected to: DNS, TLS, certificates, credentials",
        &[
            "why_nats_cannot_be_reached_is_told",
            "the_defect_of_a_servers_certificate_is_told",
            "a_server_that_waits_for_tls_before_it_greets_is_a_cause_with_its_remedy",
            "tls_with_certificates_on_both_sides",
            "where_tls_is_required_no_password_is_sent_without_it",
            "a_file_with_a_password_or_a_token_is_read_again_when_it_changes",
            "certificates_are_read_again_and_invalid_ones_replace_nothing",
        ],
    ),
    (
        "the stream is full and set to refuse new events, is sealed, is a mirror or a counter, or has `no_ack` or `persist_mode: async`",
        &[
            "a_stream_that_is_full_and_discards_new_events",
            "a_stream_that_is_sealed",
            "a_stream_that_is_a_mirror",
            "a_stream_without_acks",
            "a_stream_that_acknowledges_before_it_writes_or_only_counts_takes_no_event",
        ],
    ),
    (
        "NATS's disk is full",
        &["once_there_is_room_and_nats_is_started_again_every_event_is_in_the_stream_once"],
    ),
    (
        "NATS refuses single events: the stream or the permissions lack a subject, another stream has it, a message is too large",
        &[
            "a_stream_without_one_of_the_subjects_parks_its_events_alone",
            "a_permission_that_one_subject_lacks_parks_its_events_alone",
            "another_stream_with_one_of_the_subjects_parks_its_events_alone",
            "a_stream_that_takes_only_small_messages_parks_the_large_ones",
            "a_server_that_takes_only_small_messages_parks_the_large_ones",
        ],
    ),
    (
        "the stream's settings weaken a promise",
        &["settings_of_a_stream_that_weaken_a_promise_are_told_once_with_their_remedy"],
    ),
    (
        "the system's clock is set",
        &[
            "the_age_of_an_event_follows_no_step_of_the_clock",
            "events_keep_their_order_when_the_clock_is_set_back",
            "an_event_of_a_clock_of_tomorrow_is_looked_up",
        ],
    ),
    (
        "NATS rejects the gateway: password, permissions, no JetStream",
        &[
            "a_wrong_password_is_told_and_events_are_spooled",
            "a_server_without_jetstream_is_told_and_events_are_spooled",
            "a_stream_that_may_not_be_created_is_told_and_events_are_spooled",
        ],
    ),
    (
        "the stream is deleted while the gateway runs",
        &[
            "a_stream_that_is_deleted_under_way_is_created_again_and_loses_nothing_new",
            "a_deleted_stream_is_created_again_with_the_replicas_and_limits_that_it_had",
        ],
    ),
    (
        "the spool is full",
        &[
            "a_decision_that_finds_no_room_is_refused_with_5914_until_there_is_room",
            "or_answered_without_an_event_if_so_configured",
            "an_unrecordable_report_passes_and_is_logged_whatever_is_configured",
            "the_spool_is_filled_and_what_it_cannot_take_is_refused",
        ],
    ),
    (
        "the spool's files are deleted or replaced while it is in use",
        &[
            "files_deleted_under_a_gateway_are_made_anew_and_lose_nothing",
            "an_idle_gateway_takes_a_deleted_directory_back_before_another_one_can",
            "if_another_gateway_has_taken_the_directory_nothing_is_recorded_until_it_ends",
            "a_file_in_place_of_the_directory_is_told_and_nats_gets_the_events_all_the_same",
        ],
    ),
    (
        "NATS refuses single events, and half of the spool is in use",
        &["a_blocked_subject_without_parked_events_is_tried_with_a_new_one"],
    ),
    (
        "the spool's disk is full, read-only or fails, or a limit on file sizes (`ulimit -f`) is reached",
        &[
            "a_full_disk_is_told_and_events_are_recorded_again_when_there_is_room",
            "a_directory_that_becomes_read_only_is_told_before_anything_needs_it",
            "a_limit_on_file_sizes_is_a_full_disk_and_ends_no_process",
            "every_error_of_the_disk_is_told_and_none_loses_what_was_answered",
        ],
    ),
    (
        "another program locks the spool's database",
        &[
            "somebody_elses_lock_is_told_and_ends_by_itself",
            "a_backup_taken_of_a_spool_in_use_does_no_harm",
        ],
    ),
    (
        "the spool's file is corrupt, at the start or later",
        &[
            "a_corrupt_spool_is_set_aside_loudly_and_the_gateway_goes_on",
            "a_gateway_overwrites_no_corrupt_database_and_goes_on_with_a_new_one",
        ],
    ),
    (
        "two gateways have the same spool",
        &["of_two_gateways_on_one_spool_the_second_reports_it_and_exits"],
    ),
    (
        "more callbacks than can be answered",
        &[
            "who_gets_no_place_is_refused_with_5913_and_recorded",
            "four_times_the_limit_is_answered_within_the_budget_and_logged_in_few_lines",
        ],
    ),
    (
        "more connections than `IMPORTGUARD_MAX_CONNECTIONS`",
        &[
            "a_connection_above_the_limit_evicts_the_one_idle_for_longest",
            "if_all_connections_are_in_use_a_new_one_is_rejected_and_not_allowed",
        ],
    ),
    (
        "a caller sends requests but does not read responses",
        &[
            "who_takes_no_answer_has_few_imports_decided",
            "so_has_a_caller_that_reads_nothing",
            "who_reads_no_response_is_rejected",
        ],
    ),
    (
        "a caller sends too slowly or too much",
        &[
            "headers_that_trickle_are_given_up",
            "so_is_who_sends_the_last_byte_when_the_deciders_time_begins",
            "a_body_that_does_not_come_is_given_up",
            "what_is_over_a_limit_is_too_large",
            "headers_over_their_bounds_are_too_large",
        ],
    ),
    (
        "a caller hangs up before the answer",
        &["a_caller_who_hangs_up_leaves_a_span_a_line_and_a_count"],
    ),
    (
        "a request without operationID",
        &[
            "a_callback_without_a_usable_operation_id_is_refused",
            "or_gets_one_if_so_configured",
        ],
    ),
    (
        "a user or a password in `IMPORTGUARD_BASIC_AUTH_FILE` begins or ends with a space",
        &["a_mark_at_the_front_is_no_part_of_the_user_and_a_space_at_the_end_is_told"],
    ),
    (
        "a caller floods the gateway with requests that are rejected",
        &["pipelined_requests_without_credentials_delay_no_verdict_until_it_is_too_late"],
    ),
    (
        "a wrong or missing password or token",
        &["a_password_or_a_token_opens_and_nothing_else_does"],
    ),
    (
        "another OpenIM callback, without `IMPORTGUARD_UPSTREAM`",
        &["commands_that_are_not_importguards_are_unknown"],
    ),
    (
        "that backend's response breaks off after its head",
        &["a_response_that_breaks_off_is_counted_and_logged"],
    ),
    (
        "the backend at `IMPORTGUARD_UPSTREAM` is down, silent or overloaded",
        &[
            "a_backend_that_is_not_there_is_answered_for_with_a_refusal",
            "so_is_one_that_is_silent_and_one_that_has_enough_to_do",
        ],
    ),
    (
        "a gateway is killed",
        &[
            "the_gateway_is_killed_again_and_again",
            "the_gateway_is_killed_while_it_spools_and_while_it_drains",
            "what_one_process_spooled_the_next_one_drains",
        ],
    ),
    (
        "everything is killed",
        &["everything_is_killed_and_restarted"],
    ),
    (
        "a power cut",
        &[
            "what_is_answered_is_confirmed_by_the_disk_unless_the_operator_relaxes_that",
            "a_power_cut_takes_nothing_that_was_answered_out_of_the_spool",
            "a_power_cut_takes_nothing_that_was_answered_out_of_nats_that_syncs_always",
        ],
    ),
    (
        "a secret file has invalid content",
        &[
            "no_secret_file_is_repeated_at_the_start",
            "no_secret_is_repeated_when_files_change",
            "no_secret_variable_is_repeated",
        ],
    ),
    (
        "SIGTERM (a rolling update)",
        &[
            "sigterm_lets_a_gateway_finish_what_it_began",
            "who_never_finishes_is_cut_when_the_time_is_over",
            "a_second_signal_stops_it_immediately",
        ],
    ),
    (
        "the spool's thread or the drain ends unexpectedly",
        &[
            "the_recorder_says_that_it_has_ended_when_the_spools_thread_dies",
            "the_gateway_ends_with_an_error_when_the_drains_task_dies",
        ],
    ),
    (
        "nothing reads standard error",
        &[
            "an_unread_stderr_blocks_no_callback_and_dropped_lines_are_counted",
            "a_process_whose_stderr_is_not_read_ends_on_sigterm",
        ],
    ),
    (
        "the disk for standard error is full",
        &["lines_that_a_full_disk_does_not_take_are_counted"],
    ),
    (
        "the trace collector is down",
        &["spans_that_cannot_be_exported_are_logged_once_and_counted"],
    ),
    (
        "a port is in use",
        &["a_port_in_use_ends_it_with_the_address_before_anything_serves"],
    ),
    (
        "a setting is misspelt, empty or out of range",
        &[
            "an_unknown_variable_is_refused_by_every_command",
            "an_empty_variable_is_refused",
            "an_interval_or_a_timeout_of_zero_is_refused_unless_help_says_what_zero_means",
            "variables_of_kubernetes_services_and_retired_ones_are_no_errors",
        ],
    ),
    (
        "`RUST_LOG` selects no line at all",
        &["a_filter_that_silences_everything_is_reported"],
    ),
    (
        "a certificate or credential file is replaced by a broken one",
        &[
            "a_certificate_is_rotated_at_run_time_and_an_invalid_one_is_not_used",
            "credentials_are_rotated_at_run_time_and_an_invalid_file_keeps_the_last_good_ones",
        ],
    ),
    (
        "a valid certificate is replaced by one that has expired or is not valid yet",
        &[
            "a_certificate_that_is_not_valid_now_does_not_replace_one_that_is",
            "a_certificate_that_is_not_valid_at_the_start_is_used_with_a_warning",
        ],
    ),
    (
        "a certificate or credential file is broken at startup",
        &[
            "a_certificate_that_is_broken_from_the_start_or_has_no_key_is_an_error",
            "a_file_that_lets_nobody_in_or_anybody_is_an_error_at_startup",
        ],
    ),
    (
        "the pseudonym key is too short, or its file is missing",
        &["the_key_is_nowhere_to_be_seen_and_a_short_one_is_refused"],
    ),
];

/// The directories of these tests.
const DIRECTORIES: [&str; 5] = [
    "tests/e2e",
    "tests/e2e/detector",
    "tests/load",
    "tests/power_cut",
    "gateway/tests/recorder",
];

fn all_tests() -> HashSet<String> {
    let directories = DIRECTORIES.map(|directory| workspace().join(directory));
    let files = directories
        .iter()
        .filter_map(|directory| fs::read_dir(directory).ok());
    let sources = files.flatten().map(|file| file.unwrap().path());
    sources
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .flat_map(|path| tests_in(&path))
        .collect()
}

fn tests_in(path: &Path) -> Vec<String> {
    let source = fs::read_to_string(path).unwrap();
    let (mut names, mut marked) = (Vec::new(), false);
    for line in source.lines() {
        if line.starts_with("#[tokio::test") || line == "#[test]" {
            marked = true;
        } else if let Some((_, rest)) = line.split_once("fn ")
            && std::mem::take(&mut marked)
        {
            names.extend(rest.split_once('(').map(|(name, _)| name.to_owned()));
        }
    }
    names
}

/// The first column of each row under "Failures".
fn failures() -> Vec<String> {
    let page = fs::read_to_string(workspace().join("docs/operations.md")).unwrap();
    let (_, below) = page.split_once("\n## Failures\n").unwrap();
    let section = below.split("\n## ").next().unwrap();
    let tables = section
        .split("\n\n")
        .filter(|block| block.trim_start().starts_with("| failure |"));
    let rows = tables.flat_map(|table| table.trim_start().lines().skip(2));
    let first = |row: &str| {
        row.trim_matches('|')
            .split(" | ")
            .next()
            .map(str::trim)
            .map(str::to_owned)
    };
    rows.filter_map(first).collect()
}

#[test]
fn every_failure_in_the_handbook_is_caused_by_a_test() {
    let (tests, failures) = (all_tests(), failures());
    assert!(
        failures.len() > 30,
        "only {} rows were found",
        failures.len()
    );
    for failure in &failures {
        let caused = CAUSED_BY.iter().find(|(known, _)| known == failure);
        let (_, names) = caused.unwrap_or_else(|| panic!("no test causes: {failure}"));
        for name in *names {
            assert!(tests.contains(*name), "{failure}: there is no test {name}");
        }
    }
    for (failure, _) in CAUSED_BY {
        let is_row = failures.iter().any(|row| row == failure);
        assert!(is_row, "no row: {failure}");
    }
}
