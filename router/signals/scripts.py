"""What the gateways have Redis do in one step: its Lua scripts, with what they take and return.

Each looks at sizes before it reads, so that whatever somebody else has written never comes over the
wire. All keys of a call are in one namespace.
"""

from hashlib import sha1
from typing import Final


class Script:
    """A script by its text, and the digest by which a server that has it knows it."""

    def __init__(self, text: str) -> None:
        self.text: Final = text.strip()
        self.digest: Final = sha1(self.text.encode()).hexdigest()  # noqa: S324  Redis's own choice


JOIN: Final = Script("""
-- KEYS: members. ARGV: own id, expiry in ms, most ids to return, most bytes of one; a longer one is
-- returned empty. Redis's clock dates the members, because the gateways' clocks may disagree;
-- entries from its future (a clock set back) go too.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local expiry = tonumber(ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('(%.0f', now - expiry))
redis.call('ZREMRANGEBYSCORE', KEYS[1], string.format('(%.0f', now), '+inf')
redis.call('ZADD', KEYS[1], string.format('%.0f', now), ARGV[1])
redis.call('PEXPIRE', KEYS[1], expiry)
local ids = redis.call('ZREVRANGE', KEYS[1], 0, tonumber(ARGV[3]) - 1)
for i, id in ipairs(ids) do
  if #id > tonumber(ARGV[4]) then ids[i] = '' end
end
return ids
""")

TELL: Final = Script("""
-- KEYS: own record. ARGV: expiry in ms, how many changes are kept, the head that the record has at
-- least, the one it is to have, then fields and values to set. What was set before is set again.
-- Returns 0, and does nothing, if the record is not there or is another.
local found = redis.pcall('HGET', KEYS[1], 'head')
local had = type(found) == 'string' and tonumber(found)
local kept, head = tonumber(ARGV[2]), tonumber(ARGV[4])
if not had or had < tonumber(ARGV[3]) or had > head then return 0 end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
for n = had + 1, head do redis.call('HDEL', KEYS[1], string.format('c%.0f', n - kept)) end
redis.call('HSET', KEYS[1], 'head', ARGV[4], unpack(ARGV, 5))
return 1
""")

READ: Final = Script("""
-- KEYS: records. ARGV: most bytes of a field, most bytes in all, most changes of one record, how
-- many names of fields follow, those names, and for each record the head known of it, or ''.
-- Returns for each record {'same'}, {'changes', head, its changes since} or {'whole', head, its
-- fields, its changes since}; the reason why it is not read; or '' if it is gone.
local most, left, kept = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local count = tonumber(ARGV[4])
local fields = {unpack(ARGV, 5, 4 + count)}
local function number(key, name)
  local size = redis.call('HSTRLEN', key, name)
  if size == 0 or size > 16 then return nil end
  local value = redis.call('HGET', key, name)
  return string.match(value, '^%d+$') and tonumber(value)
end
local function with_changes(names, first, last)
  for n = first, last do names[#names + 1] = string.format('c%.0f', n) end
  return names
end
local function judged(key, known)
  if type(redis.pcall('HLEN', key)) ~= 'number' then return 'not a hash' end
  local head, base = number(key, 'head'), number(key, 'base')
  local kind, names = 'whole', {unpack(fields)}
  if head and known == head then return {'same'} end
  if head and known and known < head and head - known <= kept then
    kind, names = 'changes', with_changes({}, known + 1, head)
  elseif head and base and base <= head and head - base <= kept then
    names = with_changes(names, base + 1, head)
  else
    head = nil
  end
  local bytes = 0
  for _, name in ipairs(names) do
    local size = redis.call('HSTRLEN', key, name)
    if size > most then return string.format('%s: %.0f bytes, at most %.0f', name, size, most) end
    bytes = bytes + size
  end
  if bytes == 0 then return redis.call('EXISTS', key) == 1 and 'without its fields' or '' end
  if bytes > left then return string.format('%.0f bytes, and only %.0f left', bytes, left) end
  left = left - bytes
  local answer = {kind, head and string.format('%.0f', head) or ''}
  for i, value in ipairs(redis.call('HMGET', key, unpack(names))) do answer[i + 2] = value end
  return answer
end
local found = {}
for i, key in ipairs(KEYS) do found[i] = judged(key, tonumber(ARGV[4 + count + i])) end
return found
""")

LEAD: Final = Script("""
-- KEYS: leader. ARGV: own id, lease in ms. Only the holder extends the lease.
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
""")

RESIGN: Final = Script("""
-- KEYS: leader. ARGV: own id.
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
""")
