-- Included by `acquire`; never run alone.
--
-- Periods are days and months of UTC, by the server's clock: `period_ids(now_ms)` gives both, 20261120 and 202611.

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
  local month_id = (year + era * 400 + (month <= 2 and 1 or 0)) * 100 + month
  return month_id * 100 + day, month_id
end

-- How long until a budget begins anew: that of a day or of a month. That in total never does: look again tomorrow.
local function ms_until_next(budget, now_ms, day)
  local until_tomorrow_ms = 86400000 - now_ms % 86400000
  if budget ~= 'budget_month' then
    return budget == 'budget_day' and until_tomorrow_ms or 86400000
  end
  local year, month = math.floor(day / 10000), math.floor(day / 100) % 100
  local is_leap = year % 4 == 0 and (year % 100 ~= 0 or year % 400 == 0)
  local lengths = { 31, is_leap and 29 or 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 }
  return until_tomorrow_ms + (lengths[month] - day % 100) * 86400000
end
