-- What operators decide about models, by canonical name; null decides nothing.
CREATE TABLE gateway.model_policies (
    model text PRIMARY KEY,
    num_ctx integer CHECK (num_ctx > 0),
    keep_alive text,
    max_num_predict integer CHECK (max_num_predict > 0),
    image_tokens integer CHECK (image_tokens > 0),
    allowed_options text[],
    alias text UNIQUE CHECK (alias <> model),
    updated_at timestamptz NOT NULL DEFAULT now()
);

-- Share of the requests among backends of equal priority.
ALTER TABLE control.backends
    ADD COLUMN weight integer NOT NULL DEFAULT 1 CHECK (weight > 0);
