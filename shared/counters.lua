-- What a scope has used and reserved, and the head of its windows: one string of 21 little-endian doubles, so that a script
-- reads it with everything else in one MGET and writes those of key and tenant in one MSET. Included by scripts of both
-- planes, never run alone; `shared/layout.py` reads and writes the same bytes.
--
--   1, 2    used and reserved in total
--   3–5     the newest day that was counted (20261121), used, reserved   6–8   the newest one before it that was
--   9–11    likewise months (202611)                                     12–14
--   15–21   head of the windows, see `window`
--
-- A day or a month that is over is kept as long as a request that was admitted in it may run, and longer: until two
-- newer ones were counted. What comes for one that is gone is for the ledger alone.

local COUNTERS, COUNTERS_SIZE = '<ddddddddddddddddddddd', 168
local TOTAL, DAYS, MONTHS = 1, 3, 9
-- The largest number up to which doubles count exactly.
local LARGEST = 9007199254740991

-- The numbers of the string at `key`, all 0 where there is none. Of a key of another type MGET gives nothing, either; GET
-- is an error there.
local function read_counters(raw, key)
  raw = raw or redis.call('GET', key)
  if raw and #raw ~= COUNTERS_SIZE then
    error({ err = 'ERR counters are not of this layout' })
  end
  if not raw then
    return { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
  end
  -- One more comes of `unpack`: where it has stopped. Its place is for whoever includes this.
  return { struct.unpack(COUNTERS, raw) }
end

local function written_counters(counters)
  return struct.pack(COUNTERS, unpack(counters, 1, 21))
end

-- Where `used` of a day or a month stands, `reserved` behind it. Of one that is not counted yet they begin with 0; of one
-- that is over and gone there is nothing, unless it is now: then the server's clock has been wrong, and is believed.
local function counter_at(counters, first, period, is_now)
  if counters[first] == period then
    return first + 1
  end
  local before = first + 3
  if counters[before] == period then
    return before + 1
  end
  if period > counters[first] then
    counters[before], counters[before + 1], counters[before + 2] = counters[first], counters[first + 1], counters[first + 2]
    before = first
  elseif not is_now and period < counters[before] then
    return nil
  end
  counters[before], counters[before + 1], counters[before + 2] = period, 0, 0
  return before + 1
end

local function add_at(counters, at, used, reserved)
  used, reserved = counters[at] + used, counters[at + 1] + reserved
  -- Also false of what is no number.
  if not (used <= LARGEST and used >= -LARGEST and reserved <= LARGEST and reserved >= -LARGEST) then
    error({ err = 'ERR a counter overflows or is not a number' })
  end
  counters[at], counters[at + 1] = used, reserved
end

-- Adds to the day, the month and the total. An error where one cannot be added to: before anything was written.
local function add_to_counters(counters, day, month, used, reserved)
  local of_day, of_month = counter_at(counters, DAYS, day), counter_at(counters, MONTHS, month)
  if of_day then
    add_at(counters, of_day, used, reserved)
  end
  if of_month then
    add_at(counters, of_month, used, reserved)
  end
  add_at(counters, TOTAL, used, reserved)
end
