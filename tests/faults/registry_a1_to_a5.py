"""A1 edge and HTTP, A2 authentication, A3 authorisation and bodies, A4 limits and budgets, A5 streams and upstream."""

from __future__ import annotations

from tests.faults.registry import proof

_EDGE = "e2e/edge"

PROOFS = (
    proof(
        "A1.1", "every route, method and kind of key: only documented pairs are answered",
        f"{_EDGE}/test_paths.py::only_documented_pairs_of_method_and_path_are_answered",
        "e2e/test_access.py::unknown_paths_and_wrong_methods_are_one_generic_404",
        "::no_key_and_every_bad_key_are_refused_before_anything_is_read",
    ),
    proof(
        "A1.2", "what changes Ollama is forbidden in every spelling",
        f"{_EDGE}/test_paths.py::what_changes_ollama_is_forbidden_in_every_spelling",
        "::what_is_no_target_is_refused", "::no_header_changes_what_is_asked_for",
        "e2e/test_access.py::management_routes_are_forbidden_in_any_spelling",
    ),
    proof(
        "A1.3", "a path is its raw bytes",
        f"{_EDGE}/test_paths.py::a_path_is_its_bytes", "::health_and_playground_are_their_bytes_too",
        "::the_query_decides_nothing",
        "unit/edge/test_routes.py::no_path_fails_or_reaches_a_route_by_accident", "::a_listed_route_is_matched_exactly",
    ),
    proof(
        "A1.4", "Host missing, twice, or none",
        f"{_EDGE}/test_framing.py::a_host_that_is_missing_doubled_or_none_is_refused", "::an_honest_host_is_served",
        "unit/edge/test_heads.py::exactly_one_host_is_given",
    ),
    proof(
        "A1.5", "framing that can be read in two ways",
        f"{_EDGE}/test_framing.py::framing_that_can_be_read_in_two_ways_is_refused",
        "::a_transfer_coding_needs_http_1_1", "::length_and_coding_together_are_one_request_and_the_last",
        "::bare_line_feeds_end_lines_and_nothing_else",
    ),
    proof(
        "A1.6", "broken chunks are a 400, trailers are ignored",
        f"{_EDGE}/test_framing.py::broken_chunks_are_the_clients_fault", "::trailers_change_nothing",
        "::a_body_that_breaks_off_is_the_clients_fault", "::chunks_of_any_size_are_one_body",
    ),
    proof(
        "A1.7", "the cap of a body is exact, declared and in chunks, before any 100",
        f"{_EDGE}/test_bodies.py::the_cap_is_exact", "::a_body_that_is_too_long_is_refused_before_it_is_sent",
        "::nobody_is_asked_for_a_body_in_vain", "::endless_chunks_end_at_the_cap",
        "::who_is_still_sending_when_refused_is_not_reset", "::who_never_stops_sending_is_cut",
        "e2e/test_access.py::the_body_cap_is_exact",
    ),
    proof(
        "A1.8", "no content coding, no other media type",
        f"{_EDGE}/test_bodies.py::no_content_coding_is_taken", "::a_bomb_stays_packed",
        "::other_media_types_are_refused",
    ),
    proof(
        "A1.9", "slow heads, slow bodies, idle connections, stalled readers",
        f"{_EDGE}/test_slow.py::a_head_has_five_seconds_however_it_drips",
        "::a_body_has_its_deadline_however_it_drips", "::a_body_on_its_way_holds_no_slot",
        "::a_stalled_reader_is_cut_and_its_generation_cancelled",
        "::replies_that_nobody_reads_end_with_their_connections",
        f"{_EDGE}/test_bodies.py::who_falls_silent_when_refused_is_cut",
        "unit/edge/test_unexpected.py::nothing_of_a_refused_request_waits_for_the_search_for_cycles",
    ),
    proof(
        "A1.10", "a good request among thousands of idle sockets",
        f"{_EDGE}/test_flood.py::thousands_of_idle_and_slow_clients_slow_nobody_down",
    ),
    proof(
        "A1.11", "nobody is upgraded", f"{_EDGE}/test_paths.py::nobody_is_upgraded",
        "::what_is_no_plain_request_gets_a_refusal_or_the_door",
    ),
    proof(
        "A1.12", "an unread body is never taken for a request",
        f"{_EDGE}/test_framing.py::an_unread_body_is_never_taken_for_requests",
        "::a_body_over_the_cap_is_never_taken_for_requests", "::a_half_sent_body_is_never_taken_for_requests",
    ),
    proof(
        "A1.13", "headers and targets are counted and measured",
        f"{_EDGE}/test_headers.py::headers_are_counted", "::headers_are_measured", "::targets_are_measured",
    ),
    proof(
        "A1.14", "the upstream sees a fixed set of headers",
        f"{_EDGE}/test_headers.py::no_header_of_a_client_goes_upstream",
        "integration/upstream/test_transport.py::exactly_the_fixed_headers_are_sent",
        "e2e/test_access.py::the_upstream_sees_rebuilt_bytes_and_the_fixed_headers",
    ),
    proof(
        "A1.15", "the client sees a fixed set of headers",
        f"{_EDGE}/test_headers.py::no_header_of_a_backend_comes_down", "::no_browser_is_let_in_from_elsewhere",
    ),
    proof(
        "A1.16", "proxies and passwords of the environment are ignored",
        f"{_EDGE}/test_headers.py::proxies_and_passwords_of_the_environment_are_ignored",
        "integration/discovery/test_client.py::a_question_carries_the_credential_and_nothing_of_the_environment",
    ),
    proof(
        "A2.1", "every key that is not good gets the same answer, and the audit tells why",
        f"{_EDGE}/test_credentials.py::every_key_that_is_not_good_gets_the_same_answer",
        "unit/stages/test_authenticate.py::every_reason_is_counted",
        "integration/ledger/test_anonymous.py::counted_failures_become_audit_rows_without_tenant_and_key",
        "e2e/test_life.py::an_expired_key_is_refused",
    ),
    proof(
        "A2.2", "variants of a key cost no Argon2",
        f"{_EDGE}/test_credentials.py::a_key_is_its_bytes",
        "unit/shared/test_apikey.py::no_other_text_is_a_key", "::a_key_with_one_other_character_is_refused",
        "unit/stages/test_authenticate.py::wrong_form_or_checksum_is_refused_before_anything_is_looked_up",
    ),
    proof(
        "A2.3", "two Authorization headers, or two keys in one",
        f"{_EDGE}/test_credentials.py::a_key_stands_once",
        "e2e/test_access.py::two_authorization_headers_are_refused",
    ),
    proof(
        "A2.4", "a key in the wrong place is none and is not written down",
        f"{_EDGE}/test_credentials.py::a_key_in_the_wrong_place_is_none_and_is_not_written_down",
        "e2e/test_access.py::a_key_anywhere_else_is_no_key",
    ),
    proof(
        "A2.5", "a warm cache opens nothing to another secret of the same prefix",
        "integration/state/test_keys.py::another_secret_with_a_known_prefix_is_refused",
    ),
    proof(
        "A2.6", "failures per address, trusted proxies, IPv6 by network",
        f"{_EDGE}/test_throttle.py::an_address_that_fails_too_often_is_told_to_wait_and_a_good_key_is_served",
        "::behind_a_trusted_proxy_it_is_the_hop_before_it_that_counts", "::an_ipv6_network_is_one_client",
        "unit/edge/test_forwarded.py::only_the_right_most_untrusted_hop_counts",
        "integration/quota/test_failures.py::workers_count_together",
    ),
    proof(
        "A2.7", "a flood of Argon2",
        "integration/controlplane/test_verifier.py::a_full_pool_and_a_lost_redis_are_no_verdict",
        "unit/stages/test_authenticate.py::wrong_form_or_checksum_is_refused_before_anything_is_looked_up",
        lacks="the flood of 500 a second: a guessed key fails its checksum in the data plane, so no client reaches "
        "Argon2; the pool itself is bounded and tested",
    ),
    proof(
        "A2.8", "time does not tell an unknown prefix from a wrong secret",
        "unit/stages/test_authenticate.py::refusals_leave_on_a_grid_of_time",
        lacks="the measured AUC over 2 000 pairs: `tests.bench.timing`, every night; it takes minutes",
    ),
    proof(
        "A2.9", "no default secrets",
        "integration/controlplane/test_process.py::all_faults_of_the_settings_are_said_at_once",
        "unit/shared/test_config.py::declarations_tell_what_is_required",
        "e2e/test_up.py::a_setting_that_a_plane_refuses_ends_with_64_and_the_reason",
    ),
    proof(
        "A3.1", "forbidden, unknown and invalid models read the same",
        "e2e/test_access.py::forbidden_unknown_and_invalid_models_get_the_same_bytes",
        "unit/api/test_problems.py::a_model_and_a_route_that_are_not_permitted_read_the_same",
        lacks="the same time, over 2 000 pairs: `tests.bench.timing`, every night; it takes minutes",
    ),
    proof(
        "A3.2", "the model that is authorised is the model that is sent",
        "e2e/test_access.py::every_spelling_of_an_allowed_model_is_served_and_echoed",
        "integration/upstream/test_transport.py::the_backends_own_credential_and_spelling_are_sent",
        "e2e/test_policy.py::an_alias_opens_nothing_that_is_not_granted",
        "unit/shared/test_modelname.py::spellings_of_one_model_are_one",
    ),
    proof(
        "A3.3", "cloud, local and remote models are refused and not listed",
        "unit/shared/test_modelname.py::what_is_no_local_model_is_refused",
        "integration/discovery/test_client.py::of_a_hostile_list_only_usable_models_are_taken",
    ),
    proof(
        "A3.4", "lists show what is granted and no digests",
        "e2e/test_access.py::listings_show_exactly_what_is_granted",
        "unit/api/test_listings.py::show_is_reduced_to_what_a_client_needs",
        "::tags_show_the_backends_spelling_and_what_clients_compare",
    ),
    proof(
        "A3.5", "unknown keys are dropped and counted, doubled and folded ones refused",
        "e2e/test_access.py::what_ollama_would_read_differently_is_refused",
        "unit/api/test_strict_json.py::a_field_that_go_folds_to_one_of_ours_is_refused",
        "::unknown_fields_are_counted_and_known_ones_named", "::what_was_dropped_shows_no_client_text",
    ),
    proof(
        "A3.6", "any output limit is refused or becomes an integer within the cap",
        "unit/api/test_requests.py::any_output_limit_is_refused_or_becomes_an_integer_within_the_cap",
        "::the_smaller_of_two_output_limits_holds",
    ),
    proof(
        "A3.7", "runner options come from policies alone",
        "e2e/test_policy.py::a_backend_gets_what_the_policy_says", "::what_clients_may_not_set_is_dropped_and_named",
        "unit/stages/test_policy.py::nothing_goes_upstream_that_is_not_allowed_and_nothing_else_is_lost",
    ),
    proof(
        "A3.8", "abuse of JSON is a 400 in time",
        "unit/api/test_strict_json.py::every_endpoint_answers_abuse_with_a_request_error",
        "::the_nastiest_body_takes_few_times_what_empty_lists_take",
        "::what_is_not_one_plain_object_is_refused_in_our_own_words",
        "fuzz/test_speed.py::parsing_takes_time_in_proportion_to_the_length",
    ),
    proof(
        "A3.9", "fuzz of bodies against a reader like Go's",
        "fuzz/test_campaign.py::some_thousand_mutated_bodies_are_refused_or_sent_as_they_may_be",
        "fuzz/test_corpus.py::every_kept_body_gets_its_verdict_and_what_is_sent_is_in_order",
        "fuzz/test_mutants.py::a_mutant_of_the_gateway_is_found",
        "unit/api/test_strict_json.py::an_accepted_body_means_the_same_to_a_reader_like_go",
    ),
    proof(
        "A3.10", "streaming is the dialect's default",
        "unit/api/test_requests.py::streaming_defaults_are_those_of_the_dialect",
    ),
    proof(
        "A4.1", "the scripts against a model in memory",
        "integration/quota/test_stateful.py::any_order_of_calls_agrees_with_the_model",
    ),
    proof(
        "A4.2", "concurrency over replicas, as the mock counts it",
        "e2e/test_budget_race.py::concurrency_is_never_above_its_limit_on_four_replicas",
        "e2e/test_life.py::concurrency_holds_over_replicas",
    ),
    proof(
        "A4.3", "racing requests on one budget",
        "e2e/test_budget_race.py::a_thousand_clients_cannot_overspend_one_budget_and_what_fits_is_served",
        "integration/quota/test_properties.py::used_and_reserved_never_exceed_a_budget",
    ),
    proof(
        "A4.4", "no sixty seconds hold more than the limit",
        "e2e/test_windows.py::no_sixty_seconds_hold_more_requests_than_the_limit",
        "integration/quota/test_properties.py::no_minute_has_more_requests_than_its_limit",
    ),
    proof(
        "A4.5", "a denial writes nothing", "integration/quota/test_properties.py::a_denial_writes_nothing_anywhere",
        "integration/quota/test_scripts.py::concurrency_of_the_tenant_is_a_limit_and_a_denial_writes_nothing",
    ),
    proof(
        "A4.6", "replays have one effect",
        "integration/quota/test_scripts.py::settlement_three_times_over_has_one_effect",
        "::repeated_admission_gives_the_first_decision_and_one_slot",
        "integration/quota/test_properties.py::a_lost_reply_repeated_has_one_effect",
    ),
    proof(
        "A4.7", "midnight and the end of a month",
        "integration/quota/test_scripts.py::a_budget_begins_anew_with_its_day_or_its_month", "::day_is_the_calendars",
        "integration/ledger/test_reaper.py::lease_of_yesterday_is_charged_to_yesterday",
    ),
    proof(
        "A4.8", "clocks of replicas five minutes apart",
        "e2e/test_windows.py::the_clocks_were_really_wrong",
        "::the_books_agree_after_that_minute_and_every_refusal_was_counted",
        "integration/quota/test_properties.py::a_clock_that_goes_back_opens_no_second_minute",
    ),
    proof(
        "A4.9", "absurd counts of a backend",
        "e2e/test_budget_race.py::hostile_counts_can_neither_overspend_a_budget_nor_refill_it",
    ),
    proof(
        "A4.10", "counters near the largest exact integer",
        "integration/quota/test_properties.py::a_counter_beyond_exact_integers_is_refused_where_there_is_a_limit",
        "::budgets_just_below_the_largest_exact_integer_are_exact",
    ),
    proof(
        "A4.11", "what is denied or invalid reserves nothing",
        "integration/quota/test_properties.py::a_counter_that_cannot_be_added_to_is_an_error_and_nothing_is_written",
        "e2e/test_budget_race.py::a_thousand_clients_cannot_overspend_one_budget_and_what_fits_is_served",
        "unit/stages/test_admit.py::model_that_may_not_be_used_takes_no_lease_and_is_checked",
    ),
    proof(
        "A4.12", "embeddings and listings are metered",
        "e2e/test_limits.py::embeddings_are_metered_and_reserve_only_their_input",
        "unit/stages/test_settle.py::listing_is_written_down",
    ),
    proof(
        "A4.13", "a limit that is lowered or raised holds at once",
        "e2e/test_limits.py::a_limit_that_is_lowered_or_raised_holds_at_once_and_touches_no_counter",
    ),
    proof(
        "A5.1", "clients that leave, at every moment",
        "e2e/test_disconnect.py::a_client_that_leaves_cancels_is_charged_and_leaves_no_lease",
        "integration/upstream/test_cancel.py::a_client_that_leaves_cuts_the_backend_off",
        "faults/test_poison.py::a_tenant_that_always_leaves_shuts_nobody_out",
    ),
    proof(
        "A5.2", "an upstream that dies at every moment",
        "faults/test_matrix.py::a_client_reads_exactly_these_bytes_whatever_a_backend_does",
        "integration/upstream/test_failover.py::a_fault_before_the_first_record_goes_to_the_healthy_backend",
        "::a_fault_after_the_first_record_is_never_mended_with_another_backend",
    ),
    proof(
        "A5.3", "an error in the middle of a stream leaks nothing",
        "faults/test_matrix.py::only_what_nobody_has_seen_is_asked_for_again_and_nothing_of_a_backend_is_told",
    ),
    proof(
        "A5.4", "an end without done is an error",
        "faults/test_matrix.py::a_client_reads_exactly_these_bytes_whatever_a_backend_does",
        "e2e/test_openai_sdk.py::a_stream_that_breaks_off_is_an_error_and_never_done",
    ),
    proof(
        "A5.5", "records cut into slices are the same",
        "integration/upstream/test_failover.py::records_cut_into_slices_are_the_same",
        "integration/upstream/test_transport.py::interim_replies_and_pieces_of_a_head_are_no_reply_yet",
    ),
    proof(
        "A5.6", "hostile replies",
        "faults/test_matrix.py::each_request_has_one_row_and_one_charge_with_its_provenance",
        "::the_next_reply_of_the_same_backend_on_the_same_connection_is_untouched",
        "::the_worker_survives_all_of_it_without_an_error_of_its_own",
    ),
    proof(
        "A5.7", "deadlines of the first record, between records, and in total",
        "integration/upstream/test_failover.py::a_stream_ends_at_its_deadlines",
        "::a_first_record_that_drips_is_late_all_the_same", "::the_total_deadline_spans_both_attempts",
        "::an_endless_reply_that_never_pauses_ends_at_the_total_deadline",
    ),
    proof(
        "A5.8", "busy backends",
        "faults/test_matrix.py::a_client_reads_exactly_these_bytes_whatever_a_backend_does",
        "unit/relay/test_relay.py::when_nobody_answers_it_is_said_and_nothing_else",
    ),
    proof(
        "A5.9", "circuit breakers",
        "integration/upstream/test_backends.py::five_failures_open_the_breaker_and_one_probe_closes_it",
        "::a_failed_probe_opens_the_breaker_again", "::breakers_are_per_backend",
        "::deadlines_refusals_and_cancels_do_not_open_the_breaker",
    ),
    proof(
        "A5.10", "poison of one tenant",
        "faults/test_poison.py::a_tenant_whose_requests_all_fail_shuts_nobody_out",
        "integration/upstream/test_backends.py::poison_of_one_tenant_shuts_nobody_out",
    ),
    proof(
        "A5.11", "a thousand cancelled requests",
        "integration/upstream/test_cancel.py::a_thousand_cancelled_requests_leave_nothing_behind",
    ),
    proof(
        "A5.12", "slow readers buffer little",
        "integration/upstream/test_transport.py::a_fast_backend_is_not_read_ahead_of_a_slow_reader",
        "e2e/edge/test_slow.py::replies_that_nobody_reads_end_with_their_connections",
    ),
)  # fmt: skip
