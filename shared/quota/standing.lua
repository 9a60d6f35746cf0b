-- For `acquire` and `check`: may this key of this tenant do anything now?
--
-- KEYS  1 fence   2 live   3 usage   the last one: deny, which the control plane sets while these events are too large
-- ARGV  1 incarnation of the server that the caller talks to, `layout:run id:replication id:`
--       2 key scope   3 tenant scope   4 four doubles, and more for `acquire`: version of the key, version of the tenant,
--       both as the caller knows them, expiry of the key in ms of Unix time, 0 for never, most usage events that may wait
--
-- `standing` writes nothing and gives nil when nothing stands in the way, else the decision:
--   unfenced         the shard holds no state that was rebuilt for this server
--   missing          the live version of the key or the tenant is not there
--   key_refused, tenant_refused
--   stale            a newer version is live: the caller reads the record again
--   expired          the key's time is over
--   backlog          too many usage events wait for the ledger, or too many bytes of them

local function standing(keys, arguments, fence, deny, now_ms)
  if not fence or string.sub(fence, 1, #arguments[1]) ~= arguments[1] then
    return 'unfenced'
  end
  local versions = redis.call('HMGET', keys[2], arguments[2], arguments[3])
  local key_version, tenant_version = tonumber(versions[1]), tonumber(versions[2])
  if not key_version or not tenant_version then
    return 'missing'
  end
  if key_version < 0 then
    return 'key_refused'
  end
  if tenant_version < 0 then
    return 'tenant_refused'
  end
  local known_key_version, known_tenant_version, expires_at_ms, most_events = struct.unpack('<dddd', arguments[4])
  if key_version > known_key_version or tenant_version > known_tenant_version then
    return 'stale'
  end
  if expires_at_ms > 0 and expires_at_ms <= now_ms then
    return 'expired'
  end
  if deny or redis.call('XLEN', keys[3]) >= most_events then
    return 'backlog'
  end
  return nil
end

local function server_time_ms()
  local time = redis.call('TIME')
  local ms = time[2] / 1000
  return time[1] * 1000 + ms - ms % 1
end
