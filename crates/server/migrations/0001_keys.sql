-- Bearer tokens. Only the SHA-256 of a token is kept, in lower-case hex;
-- times are seconds since 1970. Portable between SQLite and Postgres.
CREATE TABLE keys (
    id           TEXT   PRIMARY KEY NOT NULL,
    name         TEXT   NOT NULL,
    token_hash   TEXT   NOT NULL UNIQUE,
    prefix       TEXT   NOT NULL,
    scopes       TEXT   NOT NULL,
    created_at   BIGINT NOT NULL,
    last_used_at BIGINT,
    revoked_at   BIGINT
);

-- A name may be used again once its key is revoked: whoever lost a token
-- revokes it and makes another of the same name.
CREATE UNIQUE INDEX keys_live_name ON keys (name) WHERE revoked_at IS NULL;
