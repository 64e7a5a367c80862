-- A chat completion asked for with 1 KB of JSON. The end of the run is that of the GET.
wrk.method = "POST"
wrk.path = "/v1/chat/completions"
wrk.body = string.format('{"model":"bench","messages":[{"role":"user","content":"%s"}]}', string.rep("wind ", 192))
wrk.headers["Content-Type"] = "application/json"

local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
dofile(here .. "wrk-get.lua")
