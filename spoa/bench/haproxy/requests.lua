-- For wrk: each request brings another line of a file, in turn, and every status is looked at. What
-- came of it is one JSON object, the last line that is printed.
-- Arguments: the file, the Host, the number of wrk's threads.

local workers = {}

function setup(thread)
  thread:set("turn", #workers)
  workers[#workers + 1] = thread
end

local texts, step = {}, 1
refused = {}

function init(args)
  for line in io.lines(args[1]) do
    texts[#texts + 1] = ("GET %s HTTP/1.1\r\nHost: %s\r\n%s\r\n\r\n"):format(wrk.path, args[2], line)
  end
  step = tonumber(args[3])
  ready_s = os.clock() -- CPU of the process so far: reading the file is not asking
end

function request()
  local text = texts[turn % #texts + 1]
  turn = turn + step
  return text
end

function response(status)
  if status ~= 200 then
    local name = "status " .. status
    refused[name] = (refused[name] or 0) + 1
  end
end

function done(summary, latency)
  local errors = summary.errors
  local told = {
    requests = summary.requests,
    broken = errors.connect + errors.read + errors.write + errors.timeout,
    elapsed_us = summary.duration,
    p50_us = latency:percentile(50),
    p90_us = latency:percentile(90),
    p99_us = latency:percentile(99),
    max_us = latency.max,
  }
  local ready_s = 0
  for _, thread in ipairs(workers) do
    ready_s = math.max(ready_s, thread:get("ready_s"))
    for name, count in pairs(thread:get("refused")) do
      told[name] = (told[name] or 0) + count
    end
  end
  told.cpu_us = (os.clock() - ready_s) * 1e6

  local pairs_of = {}
  for name, value in pairs(told) do
    pairs_of[#pairs_of + 1] = ("%q: %d"):format(name, value)
  end
  print("\n{" .. table.concat(pairs_of, ", ") .. "}")
end
