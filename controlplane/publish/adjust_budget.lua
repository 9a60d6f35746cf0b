#!lua
-- Applies a correction: the counters and the usage event that tells the ledger, in one step. Every check precedes the
-- first write. Idempotent by the tombstone, as long as that lives.
--
-- KEYS  1 fence   2 usage   3 tombstone of the correction   then the counters: hashes of `used` and `reserved`
-- ARGV  1 incarnation of the server, `run id:replication id:`   2 fingerprint of the correction
--       3 time to live of the tombstone in ms   4 usage event   5 tokens, signed   6 '1' to check only
--       then for each counter the time to live in ms of one that is made now, 0 for ever,
--       or -1 where a missing one stays missing: its period is over and only the ledger keeps it
-- Reply { decision, used, reserved, … } with both for every counter, '' for one that stays missing
--       applied    done, or with '1' what would be done
--       again      it was applied before; the counters are as they are now
--       other      the id belongs to a correction with other content
--       negative   used would fall below 0    overflow   it would become too large to be counted exactly
--       unfenced   the shard holds no state that was rebuilt for this server

local LARGEST = 9007199254740991
local TOKENS = tonumber(ARGV[5])

local function text(number)
  return string.format('%.0f', number)
end

local function reply(decision, change)
  local answer = { decision }
  for at = 4, #KEYS do
    local known = redis.call('HMGET', KEYS[at], 'used', 'reserved')
    local stays_missing = ARGV[at + 3] == '-1' and redis.call('EXISTS', KEYS[at]) == 0
    answer[#answer + 1] = stays_missing and '' or text((tonumber(known[1]) or 0) + change)
    answer[#answer + 1] = stays_missing and '' or text(tonumber(known[2]) or 0)
  end
  return answer
end

local fence = redis.call('GET', KEYS[1])
if not fence or string.sub(fence, 1, #ARGV[1]) ~= ARGV[1] then
  return { 'unfenced' }
end
local known = redis.call('HGET', KEYS[3], 'f')
if known then
  return known == ARGV[2] and reply('again', 0) or { 'other' }
end
local after = reply('applied', TOKENS)
for at = 2, #after, 2 do
  local used = tonumber(after[at])
  if used and used < 0 then
    return { 'negative' }
  end
  if used and used > LARGEST then
    return { 'overflow' }
  end
end
if ARGV[6] == '1' then
  return after
end

redis.call('XADD', KEYS[2], '*', 'e', ARGV[4])
redis.call('HSET', KEYS[3], 's', 'settled', 'f', ARGV[2])
redis.call('PEXPIRE', KEYS[3], ARGV[3])
for at = 4, #KEYS do
  if after[2 * (at - 3)] ~= '' then
    local is_new = redis.call('EXISTS', KEYS[at]) == 0
    redis.call('HINCRBY', KEYS[at], 'used', ARGV[5])
    if is_new and tonumber(ARGV[at + 3]) > 0 then
      redis.call('PEXPIRE', KEYS[at], ARGV[at + 3])
    end
  end
end
return after
