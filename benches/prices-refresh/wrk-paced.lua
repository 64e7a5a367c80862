-- Connections that pause between two requests, 0 to 40 ms each: a load that does not fill the proxy's core, as in use. What
-- waits in the pause is not measured: a latency runs from the sending of a request to its answer.
function delay()
  return math.random(0, 40)
end

-- The figures of the run as one line of JSON, as in ../proxy/wrk-get.lua.
function done(summary, latency)
  local errors = summary.errors
  print(string.format(
    '{"requests": %d, "seconds": %.6f, "p50_us": %d, "p99_us": %d, "max_us": %d, "wrong": %d}',
    summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99), latency.max,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
