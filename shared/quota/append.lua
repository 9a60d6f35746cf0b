-- Appends a usage event that belongs to no lease: a listing, counted refusals. Sent again after a timeout it may be
-- there twice; the ledger takes each event id once.
--
-- KEYS   1 fence   2 usage   3 deny, which the control plane sets while these events are too large
-- ARGV   1 incarnation of the server   2 usage event   3 most usage events that may wait
-- Reply  appended, a blank and the id in the usage stream, or nothing was written: unfenced,
--        backlog: too many events wait, or too many bytes of them: what was refused meanwhile adds nothing

local function append(keys, arguments)
  local fence = redis.call('GET', keys[1])
  if not fence or string.sub(fence, 1, #arguments[1]) ~= arguments[1] then
    return 'unfenced'
  end
  if redis.call('XLEN', keys[2]) >= tonumber(arguments[3]) or redis.call('EXISTS', keys[3]) == 1 then
    return 'backlog'
  end
  return 'appended ' .. redis.call('XADD', keys[2], '*', 'e', arguments[2])
end

register('append', append)
