-- Requests with a counter of constant width in the body; the figures as one JSON line at the end.
-- Environment: BENCH_BEFORE and BENCH_AFTER are files with the raw request around the counter's
-- digits, BENCH_FIRST the first number, BENCH_STEP 1 (every body differs) or 0 (all are equal).
local function read(name)
  local file = assert(io.open(os.getenv(name), "rb"))
  local text = file:read("*a")
  file:close()
  return text
end

local before, after = read("BENCH_BEFORE"), read("BENCH_AFTER")
local prefix = os.getenv("BENCH_PREFIX")
local step = tonumber(os.getenv("BENCH_STEP"))
local number = 0

request = function()
  number = number + step
  return before .. prefix .. string.format("%010d", number) .. after
end

done = function(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    'figures {"requests":%d,"us":%d,"errors":%d,"timeouts":%d,"p50_us":%d,"p99_us":%d}\n',
    summary.requests, summary.duration,
    errors.connect + errors.read + errors.write + errors.status, errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
