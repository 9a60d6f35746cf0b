#!lua flags=allow-oom
-- Events that the ledger has: out of the stream, and the watermark up to what is now recorded without a gap.
-- KEYS: usage stream, watermark. ARGV: group, entry ids.
local stream, watermark, group = KEYS[1], KEYS[2], ARGV[1]
-- Few: the stack of the script language holds some thousands.
if #ARGV > 1 then
    redis.call('XACK', stream, group, unpack(ARGV, 2))
    redis.call('XDEL', stream, unpack(ARGV, 2))
end

local pending = redis.call('XPENDING', stream, group)
if pending[1] > 0 then
    -- Everything before the oldest pending entry is recorded: the watermark is the id before it.
    local ms, sequence = string.match(pending[2], '^(%d+)-(%d+)$')
    if sequence == '0' then
        redis.call('SET', watermark, string.format('%.0f-18446744073709551615', tonumber(ms) - 1))
    else
        redis.call('SET', watermark, ms .. '-' .. string.format('%.0f', tonumber(sequence) - 1))
    end
    return pending[1]
end
for _, about in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local fields = {}
    for i = 1, #about, 2 do
        fields[about[i]] = about[i + 1]
    end
    if fields['name'] == group then
        redis.call('SET', watermark, fields['last-delivered-id'])
    end
end
return 0
