-- One batch of usage events: audit rows, and what follows from the rows that were really inserted. A repeated event
-- meets its first copy in the primary key (day, event id) and changes nothing. Rows are written in sorted order, so
-- that two batches cannot wait for each other.
WITH event AS (
    SELECT * FROM unnest(
        $1::text[], $2::date[], $3::timestamptz[], $4::text[], $5::uuid[], $6::uuid[], $7::text[], $8::text[],
        $9::text[], $10::text[], $11::int[], $12::text[], $13::text[], $14::bigint[], $15::bigint[], $16::text[],
        $17::int[], $18::bigint[], $19::bigint[], $20::text[], $21::text[], $22::text[]
    ) AS e (
        event_id, day, created_at, request_id, tenant_id, key_id, dialect, endpoint,
        model, backend, status, outcome, refusal, prompt_tokens, completion_tokens, provenance,
        occurrences, duration_ms, ttft_ms, client_ip, reason, operator
    )
), inserted AS (
    INSERT INTO gateway.audit_log (
        event_id, day, created_at, request_id, tenant_id, key_id, dialect, endpoint, model, backend, status, outcome,
        refusal, prompt_tokens, completion_tokens, total_tokens, provenance, occurrences, duration_ms, ttft_ms,
        client_ip, reason, operator
    )
    SELECT
        event_id, day, created_at, request_id, tenant_id, key_id, dialect, endpoint, model, backend, status,
        outcome::gateway.request_outcome, refusal, prompt_tokens, completion_tokens, prompt_tokens + completion_tokens,
        provenance::gateway.token_provenance, occurrences, duration_ms, ttft_ms, client_ip, reason, operator
    FROM event ORDER BY day, event_id
    ON CONFLICT DO NOTHING
    RETURNING day, event_id, tenant_id, key_id, outcome, occurrences, prompt_tokens, completion_tokens, total_tokens
), charge AS (
    SELECT
        scope.kind, scope.id, period.name,
        sum(prompt_tokens)::bigint AS prompt_tokens,
        sum(completion_tokens)::bigint AS completion_tokens,
        sum(total_tokens)::bigint AS total_tokens,
        sum(CASE WHEN outcome IN ('refused', 'correction') THEN 0 ELSE occurrences END)::bigint AS requests
    FROM inserted
    CROSS JOIN LATERAL (
        VALUES ('key'::gateway.scope_kind, key_id), ('tenant'::gateway.scope_kind, tenant_id)
    ) AS scope (kind, id)
    CROSS JOIN LATERAL (VALUES (to_char(day, 'YYYYMMDD')), (to_char(day, 'YYYYMM')), ('total')) AS period (name)
    -- A correction of a tenant alone has no key.
    WHERE (outcome <> 'refused' OR total_tokens <> 0) AND scope.id IS NOT NULL
    GROUP BY scope.kind, scope.id, period.name
), charged AS (
    INSERT INTO gateway.budget_usage AS usage (
        scope_kind, scope_id, period, prompt_tokens, completion_tokens, total_tokens, requests, updated_at
    )
    SELECT kind, id, name, prompt_tokens, completion_tokens, total_tokens, requests, now()
    FROM charge ORDER BY kind, id, name
    ON CONFLICT (scope_kind, scope_id, period) DO UPDATE SET
        prompt_tokens = usage.prompt_tokens + EXCLUDED.prompt_tokens,
        completion_tokens = usage.completion_tokens + EXCLUDED.completion_tokens,
        total_tokens = usage.total_tokens + EXCLUDED.total_tokens,
        requests = usage.requests + EXCLUDED.requests,
        updated_at = EXCLUDED.updated_at
), logged AS (
    INSERT INTO gateway.prompt_log (
        event_id, day, created_at, tenant_id, key_id, model, prompt, reply, expires_on
    )
    SELECT event_id, day, event.created_at, event.tenant_id, event.key_id, event.model, text.prompt, text.reply,
        text.expires_on
    FROM unnest($23::text[], $24::date[], $25::text[], $26::text[], $27::date[])
        AS text (event_id, day, prompt, reply, expires_on)
    JOIN inserted USING (day, event_id)
    JOIN event USING (day, event_id)
    ON CONFLICT DO NOTHING
)
SELECT count(*) FROM inserted
