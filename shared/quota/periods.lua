-- For `acquire`.
--
-- Without `math.floor`: a division of what divides is a fifth of a call.
--
-- Periods are days and months of UTC, by the server's clock: `period_ids(now_ms)` gives both, 20261120 and 202611.

-- 719 468 days lie between 0000-03-01, from where years are counted so that the leap day comes last, and 1970-01-01.
local function period_ids(now_ms)
  local days = (now_ms - now_ms % 86400000) / 86400000 + 719468
  local of_era = days % 146097
  local era = (days - of_era) / 146097
  local of_year = of_era - (of_era - of_era % 1460) / 1460 + (of_era - of_era % 36524) / 36524
    - (of_era - of_era % 146096) / 146096
  local year = (of_year - of_year % 365) / 365
  of_year = of_era - (365 * year + (year - year % 4) / 4 - (year - year % 100) / 100)
  local shifted = 5 * of_year + 2
  shifted = (shifted - shifted % 153) / 153
  local passed = 153 * shifted + 2
  local day = of_year - (passed - passed % 5) / 5 + 1
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
