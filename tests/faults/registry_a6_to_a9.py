"""A6 Redis, A7 Postgres, audit and control plane, A8 processes and deployment, A9 discovery and disclosure."""

from __future__ import annotations

from tests.faults.registry import proof

_LINK = "integration/quota/test_link.py"
_OUTAGE = "e2e/test_redis_faults.py::an_outage_of_redis_denies_in_time_and_the_books_agree_afterwards"

PROOFS = (
    proof(
        "A6.1", "Redis stopped, killed, unreachable, slow, cut",
        _OUTAGE, f"{_LINK}::stopped_redis_denies_in_time_and_no_admission_comes_to_life",
        "::reset_connection_fails_what_is_in_flight_and_comes_back", "::absent_redis_denies_at_once",
        "faults/test_redis_links.py::a_link_to_redis_that_is_spoilt_denies_and_serves_again_when_it_is_well",
    ),
    proof(
        "A6.2", "forgotten scripts",
        "integration/quota/test_library.py::"
        "forgotten_functions_deny_and_the_worker_is_not_ready_until_they_are_loaded",
        "::undo_that_finds_no_functions_is_sent_again_when_they_are_there",
        "integration/controlplane/test_functions.py::functions_that_redis_alone_forgets_are_loaded_again",
        "::no_shard_is_stamped_before_the_functions_are_loaded",
        "e2e/test_redis_faults.py::forgotten_scripts_and_cut_connections_cost_at_most_a_moment",
    ),
    proof(
        "A6.3", "Redis that lost data, or is old",
        _OUTAGE, "::an_emptied_redis_denies_until_it_is_rebuilt",
        "integration/ledger/test_rebuild.py::a_flush_during_a_rebuild_stamps_nothing",
        "::a_lease_of_an_old_snapshot_that_the_ledger_knows_is_closed_and_others_keep_their_reservation",
        "faults/test_redis_failover.py::"
        "a_replica_that_lags_is_denied_until_it_is_rebuilt_and_nothing_spent_is_lost",
        f"{_LINK}::replica_is_not_trusted", "::restarted_redis_denies_until_it_is_stamped_again",
        lacks="a worker that is killed less than a lease (30 s) before Redis is emptied: nobody knows what it held",
    ),
    proof(
        "A6.4", "out of memory, read-only, wrong types, no permission, paused",
        _OUTAGE, f"{_LINK}::memory_that_is_used_up_denies_and_is_told_once", "::key_of_the_wrong_type_denies",
        "::counters_of_the_wrong_type_are_not_taken_for_none",
        "::missing_permission_denies", "::paused_clients_are_denied_in_time",
    ),
    proof(
        "A6.5", "a Redis that may lose data is not ready",
        f"{_LINK}::server_that_may_lose_data_is_not_ready",
        "unit/quota/test_server.py::server_that_may_lose_data_is_unfit",
        "e2e/test_up.py::a_gateway_without_eviction_policy_noeviction_is_not_ready",
        "integration/controlplane/test_publication.py::a_redis_that_may_lose_data_is_never_declared_rebuilt",
    ),
    proof(
        "A6.6", "what was done although nobody heard so",
        f"{_LINK}::lost_replies_leave_no_lease_behind",
        "::no_admission_comes_to_life_after_the_connection_was_given_up",
        "faults/test_redis_links.py::replies_that_come_too_late_are_charged_to_nobody",
    ),
    proof(
        "A6.7", "cancelled commands never mix up replies",
        f"{_LINK}::ten_thousand_cancellations_never_mix_up_replies", "::cancelled_admission_is_taken_back",
    ),
    proof(
        "A6.8", "streams in flight while Redis is away",
        "faults/test_redis_links.py::a_stream_outlives_a_short_outage_and_is_charged_when_it_is_over",
        "::a_stream_is_cut_before_its_lease_can_have_ended",
        "integration/quota/test_settlements.py::settlements_wait_while_redis_sleeps_and_are_applied_once",
        "integration/quota/test_renewal.py::stream_is_cut_before_its_lease_can_have_expired",
    ),
    proof(
        "A7.1", "Postgres away under load",
        "e2e/test_postgres_away.py::without_postgres_no_request_fails_and_every_row_arrives_exactly_once",
        "e2e/test_watch.py::without_control_planes_and_postgres_nothing_fails_for_a_long_time",
        "integration/ledger/test_drain.py::postgres_killed_and_restarted_loses_and_repeats_nothing",
        lacks="the hour: `away` is 15 s and 30 s in the suite, seven minutes every night (`--outage-s`)",
    ),
    proof(
        "A7.2", "crash before the acknowledgement, replay, disorder",
        "integration/ledger/test_drain.py::a_crash_between_commit_and_acknowledgement_charges_once",
        "::an_event_that_arrives_twice_counts_once", "::events_out_of_order_and_of_any_day_find_their_partitions",
        "::entries_of_a_dead_consumer_are_recorded_by_another",
    ),
    proof(
        "A7.3", "the buffer is full, and drains again",
        "integration/ledger/test_backlog.py::a_shard_denies_while_its_events_have_too_many_bytes_and_no_other_does",
        "integration/quota/test_leases.py::backlog_over_its_cap_denies", "::full_settlement_buffer_denies",
        "integration/quota/test_settlements.py::a_full_backlog_takes_settlements_and_makes_everything_else_wait",
        "faults/test_backlog.py::a_full_backlog_denies_and_what_waited_drains_when_postgres_is_back",
    ),
    proof(
        "A7.4", "anonymous floods do not reach the buffer",
        "integration/ledger/test_anonymous.py::a_flood_neither_fills_the_usage_streams_nor_denies",
        "e2e/test_anonymous.py::a_flood_of_failures_is_a_few_rows_without_a_tenant",
    ),
    proof(
        "A7.5", "the outbox skips no row",
        "integration/ledger/test_revocations.py::interleaved_long_transactions_skip_no_row",
        "::a_row_that_is_rolled_back_revokes_nothing",
    ),
    proof(
        "A7.6", "without notifications a revocation comes with the next poll",
        "integration/ledger/test_revocations.py::without_its_listener_a_revocation_comes_with_the_next_poll",
        "::postgres_restarted_the_outbox_goes_on",
        "faults/test_control_links.py::connections_to_postgres_that_went_dead_are_replaced_and_the_outbox_goes_on",
    ),
    proof(
        "A7.7", "control planes killed or stopped; a cold start without them",
        "e2e/test_watch.py::without_control_planes_requests_go_on_and_a_new_worker_serves_from_redis",
        "e2e/test_up.py::requests_go_on_while_the_control_planes_are_killed_and_admin_calls_come_back",
        "integration/watch_client/test_sources.py::worker_starts_from_redis_alone",
    ),
    proof(
        "A7.8", "the watch in a black hole",
        "faults/test_control_links.py::a_worker_leaves_a_control_plane_that_says_nothing_for_the_other_one",
        "e2e/test_watch.py::with_the_push_in_a_black_hole_the_next_request_is_refused_and_renewal_cuts",
        "integration/watch_client/test_stream.py::black_hole_is_left_for_another_connection",
    ),
    proof(
        "A7.9", "a hundred replicas reconnect",
        "integration/watch/test_planes.py::a_hundred_workers_that_reconnect_at_once_are_all_up_to_date_soon",
    ),
    proof(
        "A7.10", "changes race with admission; none is admitted after the answer",
        "e2e/test_watch.py::nobody_is_admitted_after_the_answer_and_streams_end_soon",
        "::a_rotated_key_ends_at_once_and_the_new_one_serves",
        "::a_suspended_tenant_loses_the_open_streams_of_all_its_keys",
        "integration/state/test_interleavings.py::no_request_is_admitted_after_the_answer_to_a_change",
        "faults/test_nemesis.py::random_faults_under_load_break_no_promise",
    ),
    proof(
        "A7.11", "a revocation while Redis is away",
        "e2e/test_watch.py::without_redis_a_revocation_is_pending_and_cuts_all_the_same",
        "integration/controlplane/test_publication.py::without_redis_a_change_is_pending_and_goes_out_later",
        "faults/test_control_links.py::a_control_plane_that_cannot_reach_redis_says_pending_and_nobody_is_admitted",
    ),
    proof(
        "A7.12", "the prompt log is off, ends in time, and is its tenant's",
        "e2e/test_prompt_log.py::prompts_are_off_unless_the_tenant_or_the_key_asks_for_them",
        "integration/ledger/test_retention.py::prompts_end_key_by_key",
        "integration/ledger/test_drain.py::prompts_are_kept_only_where_asked_and_survive_zero_bytes",
    ),
    proof(
        "A7.13", "who may call the admin API, and with what",
        "integration/controlplane/test_access.py::each_role_may_call_what_it_should_and_nothing_else",
        "::without_credentials_nothing_is_served", "::a_request_beyond_the_size_is_refused",
        "::what_is_not_in_the_table_is_denied_to_everybody",
    ),
    proof(
        "A8.1", "a worker is killed with streams open",
        "e2e/test_crash.py::a_killed_workers_streams_are_charged_as_crashed_and_their_slots_free_within_35_seconds",
        "e2e/test_failed_worker.py::a_worker_with_a_failed_task_ends_instead_of_refusing_everything_for_good",
    ),
    proof(
        "A8.2", "SIGTERM", "e2e/test_life.py::a_stream_in_flight_survives_a_graceful_stop_of_its_replica",
        "e2e/test_watch.py::a_stream_beyond_the_drain_time_ends_with_an_error_event",
        "::a_rolling_restart_of_both_planes_fails_no_request",
    ),
    proof(
        "A8.3", "the disk is full, or nobody reads the log",
        "faults/test_starved.py::a_log_that_takes_nothing_stops_no_request",
        "unit/shared/test_output.py::without_a_reader_nothing_is_waited_for",
        "::a_full_disk_is_no_error_and_the_line_after_it_is_whole",
        lacks="a full disk under Redis or Postgres: what they do then is to refuse writes (A6.4) or connections (A7.1)",
    ),
    proof(
        "A8.4", "no descriptor is left",
        "faults/test_starved.py::without_descriptors_clients_are_closed_or_denied_and_it_recovers",
        "integration/upstream/test_backends.py::our_own_want_of_descriptors_opens_no_breaker",
        "unit/edge/test_listener.py::clients_leave_descriptors_for_everything_else",
    ),
    proof(
        "A8.5", "memory ceiling",
        lacks="nothing is shed by memory: everything that a client can make grow has a bound of its own (bodies, "
        "records, buffers, caches, connections), each tested where it is; the deployments set the ceiling, and the "
        "soak (docs/SOAK.md) shows how far below it a worker stays",
    ),
    proof(
        "A8.6", "two releases side by side",
        "contract/test_records.py::a_stored_record_means_what_it_meant", "::fields_of_a_later_release_are_ignored",
        "integration/watch/test_planes.py::what_the_stream_says_in_words_of_a_later_release_is_passed_over",
        "integration/ledger/test_events.py::fields_of_a_later_release_are_ignored",
        lacks="two real releases: there is one so far; `tests.bench.side_by_side COMMIT` runs a data plane of an "
        "earlier commit beside today's, with limits, budgets and revocations of both",
    ),
    proof(
        "A8.7", "locked dependencies",
        "house/test_house.py::the_lock_file_is_current_and_names_only_the_public_index",
        lacks="pip-audit: it needs the network; the hosted CI runs it",
    ),
    proof(
        "A9.1", "hostile lists of models",
        "integration/discovery/test_client.py::of_a_hostile_list_only_usable_models_are_taken",
        "::a_bad_list_is_refused_in_our_own_words",
    ),
    proof(
        "A9.2", "backends that flap and disagree",
        "faults/test_discovery_links.py::backends_that_come_and_go_fail_no_request_while_one_is_well",
        "integration/discovery/test_discovery.py::a_bad_answer_keeps_the_last_good_list_and_says_why",
        "e2e/test_life.py::a_pulled_model_becomes_usable_and_a_deleted_one_does_not_stay",
    ),
    proof(
        "A9.3", "clients make no series",
        "faults/test_disclosure.py::no_path_model_or_key_of_a_client_makes_a_series",
    ),
    proof(
        "A9.4", "log lines cannot be forged",
        "unit/shared/test_small_things.py::log_lines_are_json_that_nobody_can_forge",
        "e2e/test_demo.py::the_data_plane_logs_nothing_but_json",
    ),
    proof(
        "A9.5", "no secret and no prompt in any output",
        "faults/test_invariants.py::a_secret_in_an_output_is_found_and_named_without_being_told",
        "faults/test_nemesis.py::random_faults_under_load_break_no_promise",
        "e2e/test_life.py::logs_are_json_lines_and_hold_no_secret",
    ),
    proof(
        "A9.6", "errors tell nothing of the inside",
        "faults/test_matrix.py::only_what_nobody_has_seen_is_asked_for_again_and_nothing_of_a_backend_is_told",
        "unit/api/test_problems.py::replies_have_the_shape_of_their_dialect_and_say_nothing_of_the_inside",
        "e2e/edge/test_headers.py::no_error_of_a_backend_comes_down",
    ),
)  # fmt: skip
