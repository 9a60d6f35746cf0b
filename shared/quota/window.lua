-- For the scripts that count the requests and tokens of the last 60 s.
--
-- What changes with every request is the head, numbers among the counters of the scope (`counters.lua`):
--   15  latest admission in ms, by the clock of the windows
--   16  admissions whose moments were written, one after the other without a gap
--   17  requests   18  tokens: sums of the last 61 seconds, the current one included
--   19  the current second   20  requests   21  tokens of the current second
-- The rest is a string per scope, doubles as well, of which only pieces are read and written:
--   0     moments of the last 128 admissions, in ms: that of admission n at n % 128. Where the limit of requests asks for
--         the buckets they are not written, and the count above begins anew when they are.
--   1024  requests and tokens per second, 61 buckets: second s at s % 61; the oldest counts whole. Written is the bucket
--         of a second when it has passed, and with it those of the seconds until the next one that had an admission. That
--         of the current second still says what was 61 seconds ago.
-- It expires once nothing in it counts any more; the head alone then says nothing was admitted in the last minute.
--
-- The clock of the windows never goes back: a server whose clock does must not admit a second time.

local LAST_MS, ADMISSIONS, REQUESTS, TOKENS, SECOND, REQUESTS_NOW, TOKENS_NOW = 15, 16, 17, 18, 19, 20, 21
-- While a script runs, behind the numbers: the name of the rest; the buckets that are to be written, from which second.
local WINDOW_KEY, PENDING, PENDING_FROM = 22, 23, 24
local RING, SECONDS, WINDOW_MS = 128, 61, 60000
local BUCKETS_AT, BUCKETS_SIZE = 1024, 976
local BUCKET = '<dd'
-- Set once a minute: then it has 121 s left after the last admission.
local WINDOW_TTL_S = 181

-- The buckets of `count` seconds beginning with `first`, at most 61, as they are written; less where they are lost.
local function written_buckets(key, first, count)
  local from = first % SECONDS
  local at, beyond = BUCKETS_AT + 16 * from, from + count - SECONDS
  if beyond <= 0 then
    return redis.call('GETRANGE', key, at, at + 16 * count - 1)
  end
  return redis.call('GETRANGE', key, at, BUCKETS_AT + BUCKETS_SIZE - 1)
    .. redis.call('GETRANGE', key, BUCKETS_AT, BUCKETS_AT + 16 * beyond - 1)
end

local function write_pending(window, key)
  local pending, from = window[PENDING], window[PENDING_FROM] % SECONDS
  local fitting = 16 * (SECONDS - from)
  redis.call('SETRANGE', key, BUCKETS_AT + 16 * from, string.sub(pending, 1, fitting))
  if #pending > fitting then
    redis.call('SETRANGE', key, BUCKETS_AT, string.sub(pending, fitting + 1))
  end
end

-- Forgets the seconds that are too old at `now_ms`, which is not before the latest admission.
local function advance_window(window, now_ms)
  local second, current = (now_ms - now_ms % 1000) / 1000, window[SECOND]
  local passed = second - current
  if passed == 0 then
    return
  end
  local requests_now, tokens_now = window[REQUESTS_NOW], window[TOKENS_NOW]
  window[SECOND], window[REQUESTS_NOW], window[TOKENS_NOW], window[PENDING_FROM] = second, 0, 0, current
  if passed >= SECONDS then
    window[PENDING], window[PENDING_FROM] = string.rep('\0', BUCKETS_SIZE), 0
    window[REQUESTS], window[TOKENS] = 0, 0
    return
  end
  local pending = struct.pack(BUCKET, requests_now, tokens_now) .. string.rep('\0', 16 * (passed - 1))
  local too_old = written_buckets(window[WINDOW_KEY], current + 1, passed)
  if #too_old < 16 * passed then
    -- Lost without their head, as a clock that goes ahead and back may let them expire: nothing is known of before.
    window[PENDING], window[PENDING_FROM] = string.rep('\0', BUCKETS_SIZE - #pending) .. pending, second - SECONDS
    window[REQUESTS], window[TOKENS] = requests_now, tokens_now
    return
  end
  local all_requests, all_tokens = window[REQUESTS], window[TOKENS]
  for at = 1, #too_old, 16 do
    local requests, tokens = struct.unpack(BUCKET, too_old, at)
    all_requests, all_tokens = all_requests - requests, all_tokens - tokens
  end
  window[PENDING], window[REQUESTS], window[TOKENS] = pending, all_requests, all_tokens
end

-- How long until what is in the window, `sum` of requests (1) or of tokens (2), is at most `target`.
local function wait_for_seconds_ms(window, which, sum, target, now_ms)
  local current, pending = window[SECOND], window[PENDING] or ''
  local known = SECONDS - 1 - #pending / 16
  -- What is to be written now are the latest of these seconds, or all of them and one before.
  local buckets = known > 0 and written_buckets(window[WINDOW_KEY], current - SECONDS + 1, known) .. pending
    or string.sub(pending, 1 - 16 * known)
  for second = current - SECONDS + 1, current - 1 do
    local at = 16 * (second - current + SECONDS - 1) + 1
    if at > #buckets then
      break
    end
    sum = sum - select(which, struct.unpack(BUCKET, buckets, at))
    if sum <= target then
      return (second + SECONDS) * 1000 - now_ms
    end
  end
  -- The current second is the last that goes.
  return sum - window[which == 1 and REQUESTS_NOW or TOKENS_NOW] <= target
    and (current + SECONDS) * 1000 - now_ms or WINDOW_MS
end

-- Milliseconds until one more request is within `limit`, 0 when it is now. Negative limits are none.
local function wait_for_request_ms(window, limit, now_ms)
  if limit < 0 then
    return 0
  end
  if limit == 0 then
    return WINDOW_MS
  end
  -- With fewer moments than that the buckets say it as well: they count the oldest second whole.
  if limit <= RING and window[ADMISSIONS] >= limit then
    local at = 8 * ((window[ADMISSIONS] - limit) % RING)
    local moment = redis.call('GETRANGE', window[WINDOW_KEY], at, at + 7)
    return moment == '' and 0 or math.max(0, struct.unpack('<d', moment) + WINDOW_MS - now_ms)
  end
  if window[REQUESTS] + 1 <= limit then
    return 0
  end
  return wait_for_seconds_ms(window, 1, window[REQUESTS], limit - 1, now_ms)
end

-- Milliseconds until so many more tokens are within `limit`, 0 when they are now.
local function wait_for_tokens_ms(window, limit, tokens, now_ms)
  if limit < 0 or window[TOKENS] + tokens <= limit then
    return 0
  end
  return wait_for_seconds_ms(window, 2, window[TOKENS], limit - tokens, now_ms)
end

-- Counts one request with its tokens; `limit` is that of requests. Writes all but the head.
local function count_in_window(window, limit, tokens, now_ms)
  local key, admissions = window[WINDOW_KEY], 0
  if limit >= 0 and limit <= RING then
    admissions = window[ADMISSIONS]
    redis.call('SETRANGE', key, 8 * (admissions % RING), struct.pack('<d', now_ms))
    admissions = admissions + 1
  end
  if window[PENDING] then
    write_pending(window, key)
    if now_ms - now_ms % 60000 > window[LAST_MS] then
      redis.call('EXPIRE', key, WINDOW_TTL_S)
    end
  end
  window[LAST_MS], window[ADMISSIONS] = now_ms, admissions
  window[REQUESTS], window[TOKENS] = window[REQUESTS] + 1, window[TOKENS] + tokens
  window[REQUESTS_NOW], window[TOKENS_NOW] = window[REQUESTS_NOW] + 1, window[TOKENS_NOW] + tokens
end

-- Corrects the tokens of a request that was counted at `counted_ms`, unless that second has left the window. Writes all
-- but the head.
local function correct_in_window(window, key, counted_ms, difference)
  local second, current = (counted_ms - counted_ms % 1000) / 1000, window[SECOND]
  if difference == 0 or second > current or second <= current - SECONDS then
    return
  end
  if second == current then
    window[TOKENS_NOW] = window[TOKENS_NOW] + difference
  else
    local at = BUCKETS_AT + 16 * (second % SECONDS) + 8
    local counted = redis.call('GETRANGE', key, at, at + 7)
    if counted == '' then
      return
    end
    redis.call('SETRANGE', key, at, struct.pack('<d', struct.unpack('<d', counted) + difference))
  end
  window[TOKENS] = window[TOKENS] + difference
end
