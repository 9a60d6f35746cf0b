#!lua flags=allow-oom
-- Replaces a record by a newer or equal version of itself; an older one changes nothing but a missing digest.
-- KEYS: record. ARGV: the record as JSON without a digest, its version, digest or '', name of the version's field.
-- Answers 1 when the record was written, 0 when the stored one is newer.
local function with_digest(json, digest)
  -- Spliced into the text: encoding again would round large numbers.
  return string.sub(json, 1, -2) .. ',"digest":"' .. digest .. '"}'
end

local record, version, digest, field = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local stored = redis.call('GET', KEYS[1])
local known = {}
if stored then
  local decoded, value = pcall(cjson.decode, stored)
  if decoded and type(value) == 'table' then
    known = value
  end
end
local known_digest = type(known.digest) == 'string' and string.match(known.digest, '^%x+$') or nil

if type(known[field]) == 'number' and known[field] > version then
  if digest ~= '' and not known_digest then
    redis.call('SET', KEYS[1], with_digest(stored, digest))
  end
  return 0
end
if digest == '' and known_digest then
  digest = known_digest
end
if digest ~= '' then
  record = with_digest(record, digest)
end
redis.call('SET', KEYS[1], record)
return 1
