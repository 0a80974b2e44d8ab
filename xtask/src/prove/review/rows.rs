//! The rows. A row without tests is one whose mend nothing holds yet.

use super::row::{Row, row};

pub(super) const ROWS: [Row; 63] = [
    row(
        "A1",
        "counts age: keys that nothing evicts",
        &[
            "age_leaves_nothing_behind",
            "room_is_bounded_and_what_finds_none_is_counted",
            "rollouts_are_counted_apart_and_leave_when_they_are_over_and_durable",
            "a_step_does_not_end_on_counts_that_lack_something",
            "no_step_ends_while_harm_may_be_hidden_or_undecided",
        ],
    ),
    row(
        "A2",
        "one host without its cluster withholds all routes",
        &["real_envoy_that_joins_serves_the_hosts_that_are_right", "routes_to_a_cluster_that_is_missing_are_told"],
    ),
    row(
        "A3",
        "dead workers slow reports down, idle ones flood",
        &["the_dead_slow_nobody_down", "the_budget_is_shared_among_those_that_report"],
    ),
    row(
        "A4",
        "the ledger is one value, written whole each second",
        &[
            "only_what_changed_is_written_down",
            "envoys_that_are_gone_slow_nobody_down_and_leave_the_disk",
            "a_judge_is_as_large_after_ten_thousand_nodes_as_after_two_hundred",
        ],
    ),
    row(
        "A5",
        "reports delay commands and ticks",
        &[
            "a_flood_of_reports_keeps_nothing_else_out",
            "a_report_of_an_epoch_that_never_was_is_left_out_and_counted",
            "queries_take_no_place_of_commands_and_are_dropped_with_who_asked",
        ],
    ),
    row(
        "A6",
        "maps without bound",
        &[
            "a_hundred_thousand_identities_leave_nothing_behind",
            "two_thousand_rollouts_leave_as_much_behind_as_ten",
            "series_are_bounded",
            "one_that_hangs_holds_one_connection_and_nobody_else",
            "what_one_client_refuses_again_and_again_is_no_flood_of_events",
        ],
    ),
    row(
        "A7",
        "a report that outgrows its limit is refused for ever",
        &["what_a_report_has_no_room_for_comes_with_the_next", "what_is_left_out_leaves_room_for_what_is_counted"],
    ),
    row(
        "A8",
        "without a state folder, a revision that was rolled back becomes primary",
        &[
            "a_canary_is_held_until_it_is_approved_also_across_restarts",
            "a_rollout_that_is_held_moves_only_back",
            "what_a_client_holds_of_another_state_stays_until_that_is_approved",
            "real_envoy_a_lost_state_takes_nothing_over_that_proxies_show",
        ],
    ),
    row(
        "A9",
        "a file that is empty or gone for a moment takes its hosts away",
        &[
            "a_file_that_vanishes_is_missed_before_it_is_removed",
            "what_vanishes_for_a_moment_goes_on",
            "what_stays_away_is_removed",
        ],
    ),
    row(
        "A10",
        "a file refused for the state is never looked at again",
        &["a_refusal_that_rests_on_the_state_is_looked_at_again", "a_refusal_says_whose_state_it_rests_on"],
    ),
    row(
        "A11",
        "a revision that carries users goes while it is promoted",
        &[
            "a_revision_that_serves_is_not_removed",
            "a_revision_that_goes_while_it_is_promoted_halts_the_promotion",
            "a_promotion_of_a_revision_that_is_gone_halts_and_is_told",
        ],
    ),
    row(
        "A12",
        "one bad file at the start stops everything",
        &[
            "a_file_that_is_wrong_at_the_start_is_what_it_was_before",
            "a_new_file_that_is_wrong_at_the_start_is_left_out",
        ],
    ),
    row(
        "A13",
        "a new file that conflicts makes the old one the refused",
        &["who_was_there_first_is_right", "nobody_takes_what_another_one_has"],
    ),
    row(
        "A14",
        "the engine may die unnoticed, and an abort waits for a disk",
        &[
            "commands_are_bounded_and_an_end_is_seen_by_all",
            "an_abort_that_could_not_be_stored_is_found_in_what_the_proxies_serve",
            "a_full_disk_freezes_steps_but_not_an_abort",
        ],
    ),
    row(
        "A15",
        "the clock is set back over a restart",
        &["a_clock_that_was_set_back_goes_on_from_what_was_stored", "what_is_stored_tells_its_own_time"],
    ),
    row(
        "A16",
        "an attempt inherits the failures of the one before",
        &[
            "what_an_earlier_attempt_counted_is_not_charged_to_the_next",
            "what_an_earlier_attempt_routed_is_not_charged_to_the_next",
            "an_open_window_ends_with_its_rollout",
            "clients_have_a_share_in_each_attempt",
        ],
    ),
    row(
        "A17",
        "nodes that left contradict for ever",
        &[
            "where_two_of_three_have_left_the_third_decides",
            "where_two_leave_while_the_evidence_rests_on_the_third_it_decides",
            "where_one_of_three_carries_all_traffic_it_decides_in_the_end",
        ],
    ),
    row(
        "A18",
        "http2 is taken for gRPC",
        &[
            "over_http2_each_response_is_what_it_says",
            "grpc_is_what_its_content_type_says",
            "real_envoy_a_failing_canary_leaves_over_http2",
        ],
    ),
    row(
        "A19",
        "a certificate speaks for any node, and as many",
        &[
            "a_certificate_speaks_for_the_nodes_that_it_names",
            "nobody_is_a_node_that_it_is_not",
            "one_principal_is_one_voice_whatever_its_certificate_is_shown_for",
            "a_forger_with_any_number_of_nodes_promotes_nothing_beside_others",
            "a_forger_with_any_number_of_nodes_rolls_nothing_back_beside_three",
            "few_wait_for_the_others_and_not_for_ever",
        ],
    ),
    row(
        "A20",
        "guard without metrics promotes what fails everything",
        &[
            "a_broken_canary_is_found_as_soon_at_any_weight",
            "a_step_without_checks_waits_for_requests",
            "too_few_requests_hold_a_check",
        ],
    ),
    row(
        "A21",
        "one client and one worker take all room",
        &[
            "a_worker_has_a_bounded_number_of_entries",
            "a_source_with_many_workers_makes_room_at_its_own_cost",
            "what_no_filter_keeps_is_refused",
        ],
    ),
    row(
        "A22",
        "one report of 5e18 requests damages the evidence",
        &["counts_beyond_what_a_float_holds_are_refused", "evidence_that_is_damaged_is_left_aside_and_the_rest_starts"],
    ),
    row(
        "A23",
        "a file that changes while the mailbox is full ends the server",
        &["a_flood_of_reports_keeps_nothing_else_out", "commands_are_bounded_and_an_end_is_seen_by_all"],
    ),
    row(
        "A24",
        "descriptors, streams and names without bound",
        &[
            "connections_leave_room_for_files",
            "half_requests_take_nothing_away_from_others",
            "who_sends_nothing_is_let_go",
            "whoever_takes_much_makes_way_for_others",
            "nobody_takes_all_and_who_has_nothing_gets_some",
            "a_client_that_asks_for_too_much_is_refused",
        ],
    ),
    row(
        "A25",
        "one client that leaves or uploads slowly rolls a canary back",
        &[
            "who_leaves_before_an_answer_is_due_says_nothing",
            "one_client_that_gives_up_everything_has_its_share",
            "a_slow_upload_is_not_overdue_until_the_upstream_has_it",
            "real_envoy_stalls_are_seen_and_slow_uploads_are_no_hangs",
            "clients_have_a_share_of_each_canary",
            "who_leaves_at_a_5xx_was_failed_once",
        ],
    ),
    row(
        "A26",
        "files are not read while the folder is busy",
        &[
            "a_busy_folder_is_read",
            "at_rest_nothing_is_read",
            "a_link_into_another_folder_is_followed",
            "a_mounted_config_map_is_followed",
        ],
    ),
    row(
        "A27",
        "foreign text of any size and kind",
        &[
            "what_acts_is_escaped_and_what_is_long_is_cut",
            "what_peers_say_is_written_on_one_line",
            "readers_of_events_are_bounded",
            "a_revision_with_a_name_that_nothing_can_carry_is_refused",
        ],
    ),
    row(
        "A28",
        "a response that begins and then stalls",
        &[
            "a_canary_whose_responses_stand_still_is_found",
            "a_response_that_stands_still_has_stalled_and_after_a_minute_hangs",
            "real_envoy_a_canary_whose_answers_stop_leaves",
        ],
    ),
    row(
        "A29",
        "the state is readable by all, and may be deleted in use",
        &[
            "nobody_else_reads_the_state",
            "a_state_that_is_taken_away_while_in_use_is_written_anew",
            "what_was_taken_away_after_a_write_failed_is_written_anew",
        ],
    ),
    row(
        "A30",
        "errors travel ahead of their requests",
        &[
            "what_comes_ahead_is_complete_with_the_next_report_of_its_worker",
            "an_urgent_report_is_complete_with_the_next_regular_one",
            "traffic_that_grows_in_a_large_fleet_blames_nobody",
        ],
    ),
    row(
        "A31",
        "halving takes the tail away",
        &["halving_keeps_a_tail_of_single_requests", "a_slow_tail_is_found_as_soon_after_a_halving_as_before"],
    ),
    row(
        "A32",
        "outages of both arms are taken for bursts",
        &[
            "an_outage_of_seconds_is_no_burst",
            "bursts_that_have_ended_are_forgotten",
            "outages_of_both_arms_hide_no_fault_that_begins_later",
        ],
    ),
    row(
        "B1",
        "a promotion jumps",
        &["a_promotion_moves_the_share_by_its_step_and_never_more", "promotion_goes_by_steps_where_the_plan_says_so"],
    ),
    row(
        "B2",
        "the late answer of a removed hook opens a gate",
        &["the_late_answer_of_a_hook_that_is_gone_opens_no_gate", "an_answer_that_comes_late_is_dropped"],
    ),
    row(
        "B3",
        "what changes in mid-run is stuck or compared as something else",
        &[
            "a_mode_that_changes_in_mid_run_waits_for_the_next_rollout",
            "who_gets_the_canary_does_not_change_in_mid_run",
            "what_a_rollout_began_under_stays_in_force_to_its_end",
        ],
    ),
    row(
        "B4",
        "a metric that answers +Inf breaks every list",
        &["a_metric_that_is_no_number_is_shown_as_such", "what_one_canary_says_hides_no_other"],
    ),
    row(
        "B5",
        "connections are limited by Envoy's defaults",
        &[
            "without_a_policy_nothing_is_limited_and_what_cannot_be_connected_to_is_ejected",
            "a_policy_sets_limits",
            "real_envoy_retries_and_connections_are_limited_only_where_a_policy_says_so",
        ],
    ),
    row(
        "B6",
        "retries go to the endpoint that just failed",
        &["retries_go_to_another_endpoint", "real_envoy_a_dead_endpoint_is_left_out"],
    ),
    row("B7", "quiet streams are cut after 5 minutes", &["real_envoy_streams_are_cut_where_a_listener_says_so"]),
    row(
        "B8",
        "a regex that check takes is refused by Envoy",
        &["envoy_takes_every_regex_that_check_takes", "a_pattern_that_cannot_be_run_is_told_by_its_field"],
    ),
    row(
        "B9",
        "what is not tested is dropped in silence",
        &["a_range_that_would_not_be_tested_is_told", "slips_of_the_pen_are_told_and_what_is_right_is_taken"],
    ),
    row(
        "B10",
        "a match of the service is ignored in a rollout by weight",
        &[
            "what_a_service_matches_limits_a_rollout_by_weight_too",
            "a_share_of_those_that_match_is_chosen_by_the_filters",
            "real_envoy_a_share_is_one_of_the_requests_that_the_service_matches",
        ],
    ),
    row(
        "B11",
        "rules on host and pseudo-headers never match",
        &["hosts_are_compared_as_hosts", "conditions_that_would_never_be_tested_are_refused"],
    ),
    row("B12", "copies arrive for another host", &["copies_are_sent_to_the_host_that_was_asked_for"]),
    row("B13", "of several series the last one counts", &["numbers_and_what_is_none"]),
    row(
        "B14",
        "a listener is no front proxy",
        &["a_listener_is_a_front_proxy_unless_said_otherwise", "real_envoy_of_all_versions_is_a_front_proxy"],
    ),
    row(
        "B15",
        "a condition that is dropped widens the audience",
        &["conditions_that_would_never_be_tested_are_refused"],
    ),
    row(
        "B16",
        "documents of others mislead",
        &[
            "documents_of_others_are_left_out_with_a_warning",
            "a_list_is_its_items",
            "what_is_still_to_be_filled_in_is_told_once",
            "check_says_what_it_did_not_read",
        ],
    ),
    row(
        "B17",
        "a change that is taken back is told as a success",
        &[
            "a_change_that_is_taken_back_ends_its_rollout_without_promotion",
            "a_change_that_is_taken_back_is_shown_as_that_and_counted_as_nothing_else",
        ],
    ),
    row("B18", "blue/green needs two approvals", &["blue_green_needs_one_approval"]),
    row(
        "B19",
        "retries that clients ask for are invisible",
        &["clients_cannot_ask_envoy_for_retries", "real_envoy_clients_cannot_ask_for_retries"],
    ),
    row(
        "B20",
        "a hook that fails says nothing, and a redirect consents",
        &["a_redirect_is_no_consent", "what_counts_as_yes_no_and_nothing"],
    ),
    row(
        "B21",
        "what repeats pushes all else out of the events",
        &["what_repeats_is_one_event_that_is_counted", "an_event_that_is_counted_again_takes_its_own_place"],
    ),
    row(
        "B22",
        "documents that a person expects to be right are refused",
        &[
            "aliases_and_merges_are_taken",
            "durations_as_people_write_them",
            "listeners_that_meet_on_a_proxy_are_told",
            "templates_of_other_providers_are_legal_until_they_are_used",
            "statuses_among_the_conditions_of_a_retry_are_statuses",
            "as_envoy_takes_and_refuses_them",
        ],
    ),
    row(
        "B23",
        "replay refuses what serve recorded",
        &["a_recording_has_nothing_twice_however_its_rollout_ends", "each_canary_has_a_recording_of_its_own"],
    ),
    row(
        "B24",
        "events twice after a restart",
        &["a_reader_goes_on_where_it_was_over_restarts", "events_are_there_after_a_kill_and_are_streamed"],
    ),
    row("B25", "localhost resolves to where nobody listens", &["of_a_name_both_families_are_tried"]),
    row(
        "B26",
        "what a proxy refuses is told nowhere",
        &["who_speaks_tls_to_a_port_in_plain_text_is_told_of", "what_a_proxy_refuses_is_read_at_once"],
    ),
    row(
        "B27",
        "verbs unlike kubectl's",
        &[
            "a_server_that_hangs_is_given_up",
            "nobody_who_reads_is_no_error",
            "a_canary_that_is_not_there_is_an_error",
            "who_follows_goes_on_over_a_restart_with_nothing_twice",
        ],
    ),
    row(
        "B28",
        "every Envoy gets everybody's rules",
        &[
            "scopes_are_made_by_what_listeners_name_and_by_nothing_else",
            "clusters_and_routes_go_only_where_a_listener_leads_to_them",
            "without_nodes_everything_goes_to_everybody",
            "a_change_in_one_scope_is_none_in_another",
            "a_node_that_gains_and_loses_scope_is_never_led_nowhere",
            "connections_of_a_listener_that_is_gone_are_served_until_they_end",
            "a_filter_is_told_of_what_its_node_is_served_and_of_nothing_else",
            "a_change_of_one_scope_brings_no_policy_to_another",
            "a_canary_waits_only_for_workers_that_serve_it",
            "voices_are_those_of_nodes_that_are_served",
            "counts_from_outside_of_a_scope_are_left_out_and_counted",
            "what_a_node_that_lost_its_scope_still_counts_is_taken_for_a_while",
            "real_envoy_each_has_what_its_listeners_lead_to_and_nothing_else",
        ],
    ),
    row(
        "B29",
        "loopback is trusted though a token is set",
        &[
            "commands_come_with_the_token_or_from_loopback_without_one",
            "reports_from_elsewhere_need_a_certificate_or_the_token",
        ],
    ),
    row("B30", "dead code, and rules that cannot fail", &["every_rule_can_fail"]),
    row(
        "B31",
        "a client that never asks for endpoints waits without a word",
        &[
            "clusters_whose_endpoints_nobody_asks_for_are_told",
            "clusters_that_a_proxy_does_not_ask_for_further_are_told",
        ],
    ),
];
