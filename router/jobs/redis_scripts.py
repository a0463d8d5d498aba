"""The scripts by which jobs move in Redis: each change of a job is one of them, and is whole.

Under one prefix (KEYS[1], with a hash tag, so that all is in one slot) there are

    :job:ID           hash: the job
    :lane:LANE        stream of the ids in a lane, with the consumer group `workers`
    :lanes            hash: how many wait in each lane
    :streams          set of the lanes that have a stream
    :all :tenant:T    sorted sets of ids in the order of their coming
    :batch:B          sorted set of a batch's ids by line
    :counts :counts:T :lines:B   hashes: how many jobs are in which state
    :bytes            hash: how much is kept of each tenant's jobs
    :ended            sorted set of ids by when they ended
    :workers          set of names; :worker:W lives as long as the worker

What was given back is pending at the consumer `returned`, so that it is older than what is new.
"""

RETURNED = "returned"
"""No worker is called so."""
FIELDS = ("id", "lane", "tenant", "created", "due", "batch", "line", "state", "attempt", "worker",
          "ended", "cost", "spec", "result")  # fmt: skip
TOO_MANY_BYTES = -1
_MOST_PENDING = 1000
_MOST_RETURNED = 100
_MOST_ARGUMENTS = 1000

_PRELUDE = f"""
local P = KEYS[1]
local FIELDS = {{{", ".join(f"'{name}'" for name in FIELDS)}}}
local function job(id) return P .. ':job:' .. id end
local function stream(lane) return P .. ':lane:' .. lane end
local function row(id) return redis.call('HMGET', job(id), unpack(FIELDS)) end
"""

# What many jobs change together is written once, by `write`, at the end of each script that moves
# any: counts, members of sorted sets, entries of streams. All before it only reads what it left.
_MOVES = f"""{_PRELUDE}
local sums, members, left, streams = {{}}, {{}}, {{}}, {{}}
local function list(of, key)
  of[key] = of[key] or {{}}
  return of[key]
end
local function sum(key, field, by)
  local fields = list(sums, key)
  fields[field] = (fields[field] or 0) + by
end
local function count(tenant, batch, state, by)
  sum(':counts', state, by)
  sum(':counts:' .. tenant, state, by)
  if batch ~= '' then sum(':lines:' .. batch, state, by) end
end
local function counted(lane, tenant, batch, from, to)
  count(tenant, batch, from, -1)
  count(tenant, batch, to, 1)
  if from == 'queued' then sum(':lanes', lane, -1) end
  if to == 'queued' then sum(':lanes', lane, 1) end
end
local function rank(key, score, id)
  local set = list(members, key)
  set[#set + 1] = score
  set[#set + 1] = id
end
local function enqueue(id, lane)
  if not streams[lane] and redis.call('SADD', P .. ':streams', lane) == 1 then
    redis.call('XGROUP', 'CREATE', stream(lane), 'workers', '0', 'MKSTREAM')
  end
  streams[lane] = true
  return redis.call('XADD', stream(lane), '*', 'id', id)
end
local function in_parts(all, each)
  for from = 1, #all, {_MOST_ARGUMENTS} do
    each(unpack(all, from, math.min(from + {_MOST_ARGUMENTS - 1}, #all)))
  end
end
local function write()
  for key, set in pairs(members) do
    in_parts(set, function(...) redis.call('ZADD', P .. key, ...) end)
  end
  for lane, entries in pairs(left) do
    in_parts(entries, function(...) redis.call('XACK', stream(lane), 'workers', ...) end)
    in_parts(entries, function(...) redis.call('XDEL', stream(lane), ...) end)
    if redis.call('XLEN', stream(lane)) == 0 then
      redis.call('DEL', stream(lane))
      redis.call('SREM', P .. ':streams', lane)
    end
  end
  for key, fields in pairs(sums) do
    for field, by in pairs(fields) do
      if by ~= 0 and redis.call('HINCRBY', P .. key, field, by) <= 0 then
        redis.call('HDEL', P .. key, field)
      end
    end
  end
end
local function finish(id, state, at, result, cost, bytes)
  local lane, entry, tenant, batch, from, spent, had = unpack(redis.call(
    'HMGET', job(id), 'lane', 'entry', 'tenant', 'batch', 'state', 'cost', 'bytes'))
  redis.call('HSET', job(id), 'state', state, 'ended', at, 'worker', '', 'result', result,
    'bytes', (had or 0) + bytes, 'answer', bytes,
    'cost', cost == '0' and spent or tostring(spent + cost))
  sum(':bytes', tenant, bytes)
  rank(':ended', at, id)
  counted(lane, tenant, batch, from, state)
  local entries = list(left, lane)
  entries[#entries + 1] = entry
end
local function give_back(id, ready, attempt)
  local lane, entry, tenant, batch, from =
    unpack(redis.call('HMGET', job(id), 'lane', 'entry', 'tenant', 'batch', 'state'))
  redis.call('XCLAIM', stream(lane), 'workers', '{RETURNED}', 0, entry, 'JUSTID')
  redis.call('HSET', job(id), 'state', 'queued', 'worker', '', 'ready', ready, 'attempt', attempt)
  counted(lane, tenant, batch, from, 'queued')
end
local function is_mine(id, worker, attempt)
  local state, owner, begun = unpack(redis.call('HMGET', job(id), 'state', 'worker', 'attempt'))
  return state == 'running' and owner == worker and begun == attempt
end
local function of_worker(worker, each)
  for _, lane in ipairs(redis.call('SMEMBERS', P .. ':streams')) do
    local pending = redis.call(
      'XPENDING', stream(lane), 'workers', '-', '+', {_MOST_PENDING}, worker)
    for _, one in ipairs(pending) do
      local found = redis.call('XRANGE', stream(lane), one[1], one[1])
      if found[1] then each(found[1][2][2]) end
    end
  end
end
"""

# ARGV: most open, most bytes; then for each job id, lane, tenant, created, due, batch, line, state,
# ended, spec, result, bytes. Returns which are new, or nothing where that would be too many.
ADD = f"""{_MOVES}
local new, opened, tenant, all, bytes = {{}}, 0, ARGV[5], 0, 0
for at = 3, #ARGV, 12 do
  local is_new = redis.call('EXISTS', job(ARGV[at])) == 0
  new[#new + 1] = is_new and 1 or 0
  if is_new then all, bytes = all + 1, bytes + ARGV[at + 11] end
  if is_new and ARGV[at + 7] == 'queued' then opened = opened + 1 end
end
local states = redis.call('HMGET', P .. ':counts:' .. tenant, 'queued', 'running')
local open = (tonumber(states[1]) or 0) + (tonumber(states[2]) or 0) + opened
if opened > 0 and open > tonumber(ARGV[1]) then return false end
local held = tonumber(redis.call('HGET', P .. ':bytes', tenant)) or 0
if opened > 0 and held + bytes > tonumber(ARGV[2]) then return {TOO_MANY_BYTES} end
sum(':bytes', tenant, bytes)
local seq = redis.call('INCRBY', P .. ':seq', all) - all
for at = 3, #ARGV, 12 do
  local id, lane, batch, state = ARGV[at], ARGV[at + 1], ARGV[at + 5], ARGV[at + 7]
  if new[(at - 3) / 12 + 1] == 1 then
    local entry = ''
    if state == 'queued' then
      sum(':lanes', lane, 1)
      entry = enqueue(id, lane)
    else
      rank(':ended', ARGV[at + 8], id)
    end
    redis.call('HSET', job(id), 'id', id, 'lane', lane, 'tenant', tenant, 'created', ARGV[at + 3],
      'due', ARGV[at + 4], 'batch', batch, 'line', ARGV[at + 6], 'state', state, 'attempt', '0',
      'worker', '', 'ready', '0', 'ended', ARGV[at + 8], 'cost', '0', 'spec', ARGV[at + 9],
      'result', ARGV[at + 10], 'bytes', ARGV[at + 11], 'entry', entry)
    seq = seq + 1
    rank(':all', seq, id)
    rank(':tenant:' .. tenant, seq, id)
    if batch ~= '' then rank(':batch:' .. batch, ARGV[at + 6], id) end
    count(tenant, batch, state, 1)
  end
end
write()
return new
"""

# Returns lane, how many wait, and when the first of them is due, for each lane in turn.
LANES = f"""{_PRELUDE}
local found = {{}}
local all = redis.call('HGETALL', P .. ':lanes')
for at = 1, #all, 2 do
  local lane, first = all[at], nil
  local back = redis.call('XPENDING', stream(lane), 'workers', '-', '+', 1, '{RETURNED}')
  if back[1] then
    first = redis.call('XRANGE', stream(lane), back[1][1], back[1][1])[1]
  else
    local group = redis.call('XINFO', 'GROUPS', stream(lane))[1]
    for i = 1, #group, 2 do
      if group[i] == 'last-delivered-id' then
        first = redis.call('XRANGE', stream(lane), '(' .. group[i + 1], '+', 'COUNT', 1)[1]
      end
    end
  end
  if first then
    found[#found + 1] = {{lane, all[at + 1], redis.call('HGET', job(first[2][2]), 'due')}}
  end
end
return found
"""

# ARGV: lane, worker, most, now.
CLAIM = f"""{_MOVES}
local lane, worker, most, now = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local got = {{}}
if redis.call('SISMEMBER', P .. ':streams', lane) == 0 then return got end
local function take(id)
  local found = row(id)
  local tenant, batch, from = found[3], found[6], found[8]
  found[8], found[9], found[10] = 'running', tostring(found[9] + 1), worker
  redis.call('HSET', job(id), 'state', found[8], 'attempt', found[9], 'worker', worker)
  counted(lane, tenant, batch, from, 'running')
  got[#got + 1] = found
end
local back = redis.call(
  'XPENDING', stream(lane), 'workers', '-', '+', {_MOST_RETURNED}, '{RETURNED}')
for _, one in ipairs(back) do
  if #got >= most then break end
  local id = redis.call('XRANGE', stream(lane), one[1], one[1])[1][2][2]
  if tonumber(redis.call('HGET', job(id), 'ready')) <= now then
    redis.call('XCLAIM', stream(lane), 'workers', worker, 0, one[1], 'JUSTID')
    take(id)
  end
end
if #got < most then
  local read = redis.call('XREADGROUP', 'GROUP', 'workers', worker, 'COUNT', most - #got,
    'STREAMS', stream(lane), '>')
  for _, entry in ipairs(read and read[1][2] or {{}}) do take(entry[2][2]) end
end
write()
return got
"""

# ARGV: worker; then for each end id, attempt, state, when, result, cost, bytes of the answer.
END = f"""{_MOVES}
local done = {{}}
for at = 2, #ARGV, 7 do
  local mine = is_mine(ARGV[at], ARGV[1], ARGV[at + 1])
  if mine then finish(ARGV[at], unpack(ARGV, at + 2, at + 6)) end
  done[#done + 1] = mine and 1 or 0
end
write()
return done
"""

# ARGV: worker, id, attempt, ready at, attempt from now on.
PUT_BACK = f"""{_MOVES}
if not is_mine(ARGV[2], ARGV[1], ARGV[3]) then return 0 end
give_back(ARGV[2], ARGV[4], ARGV[5])
write()
return 1
"""

# ARGV: worker, lease in ms.
BEAT = f"""{_PRELUDE}
redis.call('SADD', P .. ':workers', ARGV[1])
redis.call('SET', P .. ':worker:' .. ARGV[1], '1', 'PX', ARGV[2])
return 1
"""

# ARGV: most attempts, now, what is written of those begun too often. That a worker is dead and
# that its jobs are taken from it is one step: it cannot come back in between.
RECOVER = f"""{_MOVES}
local found = 0
for _, worker in ipairs(redis.call('SMEMBERS', P .. ':workers')) do
  if redis.call('EXISTS', P .. ':worker:' .. worker) == 0 then
    local before = found
    of_worker(worker, function(id)
      found = found + 1
      local attempt = redis.call('HGET', job(id), 'attempt')
      if tonumber(attempt) >= tonumber(ARGV[1]) then
        finish(id, 'dead', ARGV[2], ARGV[3], '0', '0')
      else
        give_back(id, '0', attempt)
      end
    end)
    if found == before then
      redis.call('SREM', P .. ':workers', worker)
      for _, lane in ipairs(redis.call('SMEMBERS', P .. ':streams')) do
        redis.call('XGROUP', 'DELCONSUMER', stream(lane), 'workers', worker)
      end
    end
  end
end
write()
return found
"""

# ARGV: worker.
RETIRE = f"""{_MOVES}
of_worker(ARGV[1], function(id)
  give_back(id, '0', redis.call('HGET', job(id), 'attempt') - 1)
end)
redis.call('DEL', P .. ':worker:' .. ARGV[1])
write()
return 1
"""

# ARGV: state, now, ids.
DROP = f"""{_MOVES}
local dropped = 0
for at = 3, #ARGV do
  local state = redis.call('HGET', job(ARGV[at]), 'state')
  if state == 'queued' or state == 'running' then
    finish(ARGV[at], ARGV[1], ARGV[2], '', '0', '0')
    dropped = dropped + 1
  end
end
write()
return dropped
"""

# ARGV: id, due.
RETRY = f"""{_MOVES}
local id = ARGV[1]
local lane, tenant, batch, state, answer =
  unpack(redis.call('HMGET', job(id), 'lane', 'tenant', 'batch', 'state', 'answer'))
if state ~= 'dead' then return 0 end
redis.call('HSET', job(id), 'state', 'queued', 'attempt', '0', 'ended', '0', 'ready', '0',
  'result', '', 'answer', '0', 'due', ARGV[2], 'entry', enqueue(id, lane))
redis.call('HINCRBY', job(id), 'bytes', -(answer or 0))
sum(':bytes', tenant, -(answer or 0))
redis.call('ZREM', P .. ':ended', id)
counted(lane, tenant, batch, state, 'queued')
write()
return 1
"""

# ARGV: index, id to begin after, most. Returns rows.
LISTED = f"""{_PRELUDE}
local from = '-inf'
if ARGV[2] ~= '' then
  local score = redis.call('ZSCORE', P .. ARGV[1], ARGV[2])
  if not score then return {{}} end
  from = '(' .. score
end
local rows = {{}}
for _, id in ipairs(redis.call(
    'ZRANGEBYSCORE', P .. ARGV[1], from, '+inf', 'LIMIT', 0, ARGV[3])) do
  rows[#rows + 1] = row(id)
end
return rows
"""

# ARGV: before, most. Returns the rows that are no more.
SWEEP = f"""{_MOVES}
local rows = {{}}
for _, id in ipairs(redis.call(
    'ZRANGEBYSCORE', P .. ':ended', '-inf', '(' .. ARGV[1], 'LIMIT', 0, ARGV[2])) do
  local found = row(id)
  local tenant, batch, state = found[3], found[6], found[8]
  rows[#rows + 1] = found
  sum(':bytes', tenant, -(redis.call('HGET', job(id), 'bytes') or 0))
  count(tenant, batch, state, -1)
  redis.call('DEL', job(id))
  redis.call('ZREM', P .. ':ended', id)
  redis.call('ZREM', P .. ':all', id)
  redis.call('ZREM', P .. ':tenant:' .. tenant, id)
  if batch ~= '' then
    redis.call('ZREM', P .. ':batch:' .. batch, id)
    if redis.call('ZCARD', P .. ':batch:' .. batch) == 0 then
      redis.call('DEL', P .. ':lines:' .. batch)
    end
  end
end
write()
return rows
"""

# ARGV: kind, id, tenant, version, packed document.
PUT = f"""{_PRELUDE}
local key = P .. ':docs:' .. ARGV[1]
local version = redis.call('HGET', key .. ':versions', ARGV[2]) or '0'
if tonumber(version) ~= ARGV[4] - 1 then return 0 end
redis.call('HSET', key .. ':versions', ARGV[2], ARGV[4])
redis.call('HSET', key, ARGV[2], ARGV[5])
redis.call('ZADD', key .. ':ids', 0, ARGV[2])
redis.call('ZADD', key .. ':of:' .. ARGV[3], 0, ARGV[2])
return 1
"""

# ARGV: kind, id, tenant.
REMOVE = f"""{_PRELUDE}
local key = P .. ':docs:' .. ARGV[1]
redis.call('HDEL', key .. ':versions', ARGV[2])
redis.call('ZREM', key .. ':ids', ARGV[2])
redis.call('ZREM', key .. ':of:' .. ARGV[3], ARGV[2])
return redis.call('HDEL', key, ARGV[2])
"""
