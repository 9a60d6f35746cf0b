-- Extends the leases of one worker in one shard and names those that must be cut. Never revives an expired lease.
--
-- KEYS   1 fence   2 live   3 expiry index   then for each lease: leases of its key, leases of its tenant, the lease
-- ARGV   1 incarnation of the server   2 time to live in ms   3 how long the record outlives that, in ms
--        then for each lease: lease id, key scope, tenant scope
-- Reply  { 'renewed', lease id, reason, … } with the leases to cut:
--          lost      settled, expired or unknown
--          refused   its key or tenant is suspended or revoked, or has no live version
--        or { 'unfenced' }, and nothing is renewed

local function renew(keys, arguments)
  local fence = redis.call('GET', keys[1])
  if not fence or string.sub(fence, 1, #arguments[1]) ~= arguments[1] then
    return { 'unfenced' }
  end

  local time = redis.call('TIME')
  local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
  local ttl_ms = tonumber(arguments[2])
  local until_ms = string.format('%.0f', now_ms + ttl_ms)
  local reply = { 'renewed' }

  local function cut(lease_id, reason)
    reply[#reply + 1] = lease_id
    reply[#reply + 1] = reason
  end

  for at = 4, #arguments, 3 do
    local lease_id = arguments[at]
    local versions = redis.call('HMGET', keys[2], arguments[at + 1], arguments[at + 2])
    local expires_ms = tonumber(redis.call('ZSCORE', keys[3], lease_id) or 0)
    -- The word with which an open lease begins (`leases.lua`).
    if expires_ms <= now_ms or redis.call('GETRANGE', keys[at + 2], 0, 4) ~= 'open ' then
      cut(lease_id, 'lost')
    elseif (tonumber(versions[1]) or 0) <= 0 or (tonumber(versions[2]) or 0) <= 0 then
      cut(lease_id, 'refused')
    else
      redis.call('ZADD', keys[3], until_ms, lease_id)
      for slot = at, at + 1 do
        redis.call('ZADD', keys[slot], until_ms, lease_id)
      end
      redis.call('PEXPIRE', keys[at + 2], ttl_ms + tonumber(arguments[3]))
    end
  end
  return reply
end

register('renew', renew)
