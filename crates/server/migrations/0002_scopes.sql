-- There was one scope for all that a token may do but `admin`; now there is
-- one for each. A token that was there may do what it could.
UPDATE keys
SET scopes = 'execute sessions files jobs hooks history metrics'
    || CASE WHEN scopes LIKE '%admin%' THEN ' admin' ELSE '' END
WHERE scopes LIKE '%execute%';
