-- When each token was given, so that a grant gives so many in a minute and no more;
-- and what is looked for when clients and grants go.
ALTER TABLE oauth_tokens ADD COLUMN made_at BIGINT NOT NULL DEFAULT 0;
CREATE INDEX oauth_grants_client ON oauth_grants (client);
CREATE INDEX oauth_grants_key ON oauth_grants (key_id, made_at);
CREATE INDEX oauth_codes_grant ON oauth_codes (grant_id);
