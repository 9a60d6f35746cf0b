-- Appends a usage event that belongs to no lease: a listing, counted refusals. Sent again after a timeout it may be
-- there twice; the ledger takes each event id once.
--
-- KEYS   1 fence   2 usage
-- ARGV   1 incarnation of the server   2 usage event
-- Reply  { appended, id in the usage stream }, or { unfenced, '' } and nothing was written

local fence = redis.call('GET', KEYS[1])
if not fence or string.sub(fence, 1, #ARGV[1]) ~= ARGV[1] then
  return { 'unfenced', '' }
end
return { 'appended', redis.call('XADD', KEYS[2], '*', 'e', ARGV[2]) }
