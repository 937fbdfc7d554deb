-- Assertions with which clients showed that they are the ones, until none of their
-- age is good any more: each is good once, also across a restart.
CREATE TABLE oauth_assertions (
    -- SHA-256 of client and id, lower-case hex
    hash    TEXT   PRIMARY KEY NOT NULL,
    client  TEXT   NOT NULL,
    ends_at BIGINT NOT NULL
);
CREATE INDEX oauth_assertions_client ON oauth_assertions (client);
CREATE INDEX oauth_assertions_end ON oauth_assertions (ends_at);
