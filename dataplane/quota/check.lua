-- The checks of `acquire` that need no lease: for listings and refusals. Writes nothing.
--
-- KEYS, ARGV  those of `standing`, which comes before this in the same script
-- Reply       { `allowed` or a decision of `standing` }

return { standing(server_time_ms()) or 'allowed' }
