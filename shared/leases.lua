-- What a lease has reserved, or its tombstone: one string of words, because a hash with a usage event in it costs
-- three times as much to write. Included by scripts of both planes, never run alone; `shared/leases.py` reads the same.
--
--   open <reserved> <estimate> <admitted at ms> <granted> <prompt> <day> <month> <mark> <key scope> <tenant scope> <event>
--   settled <id of the entry in the usage stream, or -, or fingerprint of a correction>
--   reaped
--
-- reserved   tokens, prompt and granted output together      estimate     tokens counted in the windows
-- granted    num_predict                                     prompt       most tokens that the prompt may have
-- mark       x when it was abandoned while nothing could be written, else -
-- event      usage event for the case that nobody settles; the rest of the string

local function open_lease(reserved, estimate, admitted_ms, granted, prompt, day, month, key, tenant, event)
  return string.format('open %d %d %d %d %d %d %d - ', reserved, estimate, admitted_ms, granted, prompt, day, month)
    .. key .. ' ' .. tenant .. ' ' .. event
end

-- The word with which the string of a lease begins, nothing where there is none.
local function state_of(lease)
  return lease and string.match(lease, '^%l+')
end

-- Of an open lease what its settlement needs: reserved, estimate, moment of its admission in ms.
local function reserved_by(lease)
  local reserved, estimate, admitted_ms = string.match(lease, '^open (%d+) (%d+) (%d+) ')
  if not admitted_ms then
    error({ err = 'ERR a lease is not of this layout' })
  end
  return tonumber(reserved), tonumber(estimate), tonumber(admitted_ms)
end

-- All of it: reserved, estimate, moment of its admission in ms, granted, prompt, day, month, mark, key scope.
local function parts_of(lease)
  local reserved, estimate, admitted_ms, granted, prompt, day, month, mark, key = string.match(lease,
    '^open (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) ([x-]) (%S+) ')
  if not key then
    error({ err = 'ERR a lease is not of this layout' })
  end
  return tonumber(reserved), tonumber(estimate), tonumber(admitted_ms), tonumber(granted), tonumber(prompt),
    tonumber(day), tonumber(month), mark, key
end

-- The entry that a tombstone names, '' where it names none.
local function entry_of(lease)
  return string.match(lease, '^settled (%d%S+)') or ''
end

-- The same open lease, marked as abandoned.
local function marked(lease)
  return (string.gsub(lease, '^(open %d+ %d+ %d+ %d+ %d+ %d+ %d+) %-', '%1 x'))
end
