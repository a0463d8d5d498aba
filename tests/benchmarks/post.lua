-- Makes wrk POST as instrumented clients do: each request with a traceparent and an x-request-id of
-- its own, with a body of one of several lengths. Ends with one line of JSON, which does not change
-- with the units of wrk's own summary. Times are microseconds.
--
-- Arguments: the file with all bodies one after the other, the content type, the lengths of the
-- bodies (separated by commas), and whole header lines, as many as are wanted.

local format = string.format
local heads, bodies, count = {}, {}, 0

function init(args)
  local file = assert(io.open(args[1], "rb"))
  for size in args[3]:gmatch("%d+") do
    bodies[#bodies + 1] = file:read(tonumber(size))
  end
  file:close()
  local lines = ""
  for place = 4, #args do
    lines = lines .. args[place] .. "\r\n"
  end
  for index, body in ipairs(bodies) do
    heads[index] = format(
      "POST %s HTTP/1.1\r\nHost: %s\r\nAccept: */*\r\nAccept-Encoding: gzip, deflate\r\n" ..
      "Connection: keep-alive\r\nUser-Agent: python-httpx/0.28.1\r\nContent-Length: %d\r\n" ..
      "Content-Type: %s\r\n%s", wrk.path, wrk.headers["Host"], #body, args[2], lines)
  end
  -- Ids of runs that follow each other differ, too.
  math.randomseed(os.time())
  count = math.random(1, 1e9)
end

function request()
  count = count + 1
  local index = count % #bodies + 1
  return format(
    "%straceparent: 00-%032x-%016x-01\r\nx-request-id: %016x\r\n\r\n%s",
    heads[index], count, count, count, bodies[index])
end

function done(summary, latency, requests)
  local e = summary.errors
  io.write(format(
    '\nRESULT {"requests":%d,"duration_us":%d,"p50_us":%d,"p99_us":%d,"p999_us":%d,"max_us":%d,' ..
    '"connect_errors":%d,"read_errors":%d,"write_errors":%d,"timeouts":%d,"status_errors":%d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    latency:percentile(99.9), latency.max,
    e.connect, e.read, e.write, e.timeout, e.status))
end
