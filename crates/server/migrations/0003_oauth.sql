-- Clients that may ask for grants, and what they were granted. No secret, code
-- or token is kept, only its SHA-256 in lower-case hex; times are milliseconds
-- since 1970. Portable between SQLite and Postgres.
CREATE TABLE oauth_clients (
    id         TEXT   PRIMARY KEY NOT NULL,
    -- 'registered' or 'document'
    kind       TEXT   NOT NULL,
    -- the client as this server understood it, JSON
    document   TEXT   NOT NULL,
    made_at    BIGINT NOT NULL,
    -- until when a document is good without being fetched again
    fresh_until BIGINT NOT NULL,
    -- when it was first granted anything: from then on it is never pruned
    granted_at BIGINT
);
CREATE INDEX oauth_clients_unused ON oauth_clients (made_at) WHERE granted_at IS NULL;

-- Ending a grant is one row, which every use looks at.
CREATE TABLE oauth_grants (
    id         TEXT   PRIMARY KEY NOT NULL,
    client     TEXT   NOT NULL REFERENCES oauth_clients (id),
    key_id     TEXT   NOT NULL REFERENCES keys (id),
    -- the host that the answer went to
    host       TEXT   NOT NULL,
    scopes     TEXT   NOT NULL,
    resource   TEXT   NOT NULL,
    made_at    BIGINT NOT NULL,
    ends_at    BIGINT NOT NULL,
    used_at    BIGINT,
    ended_at   BIGINT,
    why        TEXT
);

CREATE TABLE oauth_codes (
    hash          TEXT    PRIMARY KEY NOT NULL,
    grant_id      TEXT    NOT NULL REFERENCES oauth_grants (id) ON DELETE CASCADE,
    redirect      TEXT    NOT NULL,
    redirect_sent BOOLEAN NOT NULL,
    challenge     TEXT    NOT NULL,
    ends_at       BIGINT  NOT NULL,
    used_at       BIGINT
);

CREATE TABLE oauth_tokens (
    hash     TEXT   PRIMARY KEY NOT NULL,
    grant_id TEXT   NOT NULL REFERENCES oauth_grants (id) ON DELETE CASCADE,
    -- 'access' or 'refresh'
    kind     TEXT   NOT NULL,
    scopes   TEXT   NOT NULL,
    ends_at  BIGINT NOT NULL,
    spent_at BIGINT
);
CREATE INDEX oauth_tokens_grant ON oauth_tokens (grant_id);
CREATE INDEX oauth_tokens_end ON oauth_tokens (ends_at);
