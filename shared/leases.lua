-- What a lease has reserved, or its tombstone: one string, because a hash with a usage event in it costs three times as
-- much to write. Included by scripts of both planes, never run alone; `shared/layout.py` reads the same.
--
--   open <seven little-endian doubles><mark> <key scope> <tenant scope> <event>
--   settled <id of the entry in the usage stream, or -, or fingerprint of a correction>
--   reaped
--
-- doubles    1 reserved: tokens, prompt and granted output together   2 estimate: tokens counted in the windows
--            3 when it was admitted, in ms   4 granted num_predict   5 most tokens that the prompt may have
--            6 day   7 month
-- mark       x when it was abandoned while nothing could be written, else -
-- event      usage event for the case that nobody settles; the rest of the string

-- Where the numbers begin, and the mark behind them.
local NUMBERS_AT, MARK_AT = 6, 62

local function open_lease(reserved, estimate, admitted_ms, granted, prompt, day, month, key, tenant, event)
  return 'open ' .. struct.pack('<ddddddd', reserved, estimate, admitted_ms, granted, prompt, day, month)
    .. '- ' .. key .. ' ' .. tenant .. ' ' .. event
end

-- The word with which the string of a lease begins, nothing where there is none.
local function state_of(lease)
  return lease and string.match(lease, '^%l+')
end

-- Of an open lease what its settlement needs: reserved, estimate, moment of its admission in ms.
local function reserved_by(lease)
  if #lease < MARK_AT then
    error({ err = 'ERR a lease is not of this layout' })
  end
  return struct.unpack('<ddd', lease, NUMBERS_AT)
end

-- The mark and the scopes of an open lease, nothing of anything else.
local function scopes_of(lease)
  return string.match(lease, '^([x-]) (%S+) (%S+) ', MARK_AT)
end

-- All of it: reserved, estimate, moment of its admission in ms, granted, prompt, day, month, mark, key scope.
local function parts_of(lease)
  local mark, key = scopes_of(lease)
  if not key then
    error({ err = 'ERR a lease is not of this layout' })
  end
  local reserved, estimate, admitted_ms, granted, prompt, day, month = struct.unpack('<ddddddd', lease, NUMBERS_AT)
  return reserved, estimate, admitted_ms, granted, prompt, day, month, mark, key
end

-- The entry that a tombstone names, '' where it names none.
local function entry_of(lease)
  return string.match(lease, '^settled (%d%S+)') or ''
end

-- The same open lease, marked as abandoned.
local function marked(lease)
  return string.sub(lease, 1, MARK_AT - 1) .. 'x' .. string.sub(lease, MARK_AT + 1)
end
