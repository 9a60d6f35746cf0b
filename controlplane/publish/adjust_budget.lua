#!lua
-- Applies a correction: the counters and the usage event that tells the ledger, in one step. Every check precedes the
-- first write. Idempotent by the tombstone, as long as that lives. `counters` is included in front of this.
--
-- KEYS  1 fence   2 usage   3 tombstone of the correction   then the counters of each scope
-- ARGV  1 incarnation of the server, `layout:run id:replication id:`   2 fingerprint of the correction
--       3 time to live of the tombstone in ms   4 usage event   5 tokens, signed   6 '1' to check only
--       then the periods: each a day, a month or 0 for the total, and '1' where a missing counter begins with 0,
--       or '0' where it stays missing: its period is over and only the ledger keeps it
-- Reply { decision, used, reserved, … } with both for every scope and in it for every period, '' for one that is missing
--       applied    done, or with '1' what would be done
--       again      it was applied before; the counters are as they are now
--       other      the id belongs to a correction with other content
--       negative   used would fall below 0    overflow   it would become too large to be counted exactly
--       unfenced   the shard holds no state that was rebuilt for this server

local function text(number)
  return string.format('%.0f', number)
end

-- Where `used` of a period stands, nothing where it is missing and stays so.
local function used_at(counters, period, begins)
  if period == '0' then
    return 1
  end
  local first, id = #period == 6 and MONTHS or DAYS, tonumber(period)
  if begins == '1' or counters[first] == id or counters[first + 3] == id then
    return counter_at(counters, first, id)
  end
end

-- Adds to the counters of all scopes, in memory, and says what they are then.
local function reply(decision, scopes, change)
  local answer = { decision }
  for _, counters in ipairs(scopes) do
    for at = 7, #ARGV, 2 do
      local used = used_at(counters, ARGV[at], ARGV[at + 1])
      if used then
        counters[used] = counters[used] + change
      end
      answer[#answer + 1] = used and text(counters[used]) or ''
      answer[#answer + 1] = used and text(counters[used + 1]) or ''
    end
  end
  return answer
end

local fence = redis.call('GET', KEYS[1])
if not fence or string.sub(fence, 1, #ARGV[1]) ~= ARGV[1] then
  return { 'unfenced' }
end
local scopes = {}
for at = 4, #KEYS do
  scopes[at - 3] = read_counters(redis.call('GET', KEYS[at]), KEYS[at])
end
local tombstone = redis.call('GET', KEYS[3])
if tombstone then
  return tombstone == 'settled ' .. ARGV[2] and reply('again', scopes, 0) or { 'other' }
end
local after = reply('applied', scopes, tonumber(ARGV[5]))
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
redis.call('SET', KEYS[3], 'settled ' .. ARGV[2], 'PX', ARGV[3])
for at = 4, #KEYS do
  redis.call('SET', KEYS[at], written_counters(scopes[at - 3]))
end
return after
