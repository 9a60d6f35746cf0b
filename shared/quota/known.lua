-- Does nothing: whoever may call it knows that the library is there. It may be called where nothing can be written.
--
-- KEYS, ARGV  none
-- Reply       1

local function known()
  return 1
end

register('known', known, { 'no-writes' })
