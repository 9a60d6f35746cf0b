#!lua flags=allow-oom
-- Removes consumers that ended long ago. One with entries of its own stays until they have been claimed: removing it
-- would lose them. KEYS: usage stream. ARGV: group, idle milliseconds.
local removed = 0
for _, about in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
    local fields = {}
    for i = 1, #about, 2 do
        fields[about[i]] = about[i + 1]
    end
    if fields['pending'] == 0 and fields['idle'] > tonumber(ARGV[2]) then
        redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], fields['name'])
        removed = removed + 1
    end
end
return removed
