-- Included by scripts that name the counters of a period; never run alone.
--
-- Periods are days and months of UTC: `period_ids(now_ms)` gives both, `20261120` and `202611`. A counter's name is
-- that of its scope with the period behind it. The period is made here, by the server's clock, so the whole name
-- cannot be among KEYS; the hash tag that is in both keeps it in the same slot.

local DAY_TTL_S, MONTH_TTL_S = 3 * 86400, 70 * 86400

-- 719 468 days lie between 0000-03-01, from where years are counted so that the leap day comes last, and 1970-01-01.
local function period_ids(now_ms)
  local days = math.floor(now_ms / 86400000) + 719468
  local era = math.floor(days / 146097)
  local of_era = days - era * 146097
  local year = math.floor((of_era - math.floor(of_era / 1460) + math.floor(of_era / 36524)
    - math.floor(of_era / 146096)) / 365)
  local of_year = of_era - (365 * year + math.floor(year / 4) - math.floor(year / 100))
  local shifted = math.floor((5 * of_year + 2) / 153)
  local day = of_year - math.floor((153 * shifted + 2) / 5) + 1
  local month = shifted < 10 and shifted + 3 or shifted - 9
  local month_id = string.format('%04d%02d', year + era * 400 + (month <= 2 and 1 or 0), month)
  return string.format('%s%02d', month_id, day), month_id
end

-- How long until a budget begins anew: that of a day or of a month. That in total never does: look again tomorrow.
local function ms_until_next(budget, now_ms, day)
  local until_tomorrow_ms = 86400000 - now_ms % 86400000
  if budget ~= 'budget_month' then
    return budget == 'budget_day' and until_tomorrow_ms or 86400000
  end
  local year, month = tonumber(string.sub(day, 1, 4)), tonumber(string.sub(day, 5, 6))
  local is_leap = year % 4 == 0 and (year % 100 ~= 0 or year % 400 == 0)
  local lengths = { 31, is_leap and 29 or 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 }
  return until_tomorrow_ms + (lengths[month] - tonumber(string.sub(day, 7, 8))) * 86400000
end

-- The opposite of an integer, both as text.
local function opposite(number)
  if number == '0' then
    return number
  end
  return string.sub(number, 1, 1) == '-' and string.sub(number, 2) or '-' .. number
end

-- Adds to one field of the day's, the month's and the total counter of both scopes, or to none of them where one cannot
-- be added to: what is no integer, or would leave 64 bits, is an error. `amount` is an integer as text.
local function add_to_counters(field, amount, of_key, of_tenant, day, month)
  local names = {
    of_key .. day, of_tenant .. day, of_key .. month, of_tenant .. month, of_key .. 'total', of_tenant .. 'total',
  }
  for position, name in ipairs(names) do
    local sum = redis.pcall('HINCRBY', name, field, amount)
    if type(sum) == 'table' then
      for before = 1, position - 1 do
        redis.call('HINCRBY', names[before], field, opposite(amount))
      end
      error(sum)
    end
    -- A counter that has just come to be has this amount and nothing else, and no time to live yet.
    if position <= 4 and tostring(sum) == amount then
      redis.call('EXPIRE', name, position <= 2 and DAY_TTL_S or MONTH_TTL_S)
    end
  end
end
