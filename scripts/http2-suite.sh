#!/bin/sh
# Runs httpwg, a suite of RFC 9113 that others wrote (`cargo install --locked httpwg-cli`), against Tradewind in the clear, and fails
# where it finds something that docs/connections.md does not explain. It takes some seconds, and needs Linux with io_uring and Python 3.
#
#   scripts/http2-suite.sh [TRADEWIND]    the binary; unless given, what `cargo build --release` has made
set -eu

cd "$(dirname "$0")/.."
tradewind=${1:-${CARGO_TARGET_DIR:-target}/release/tradewind}
command -v httpwg >/dev/null 2>&1 || { echo "http2-suite: there is no httpwg ('cargo install --locked httpwg-cli' brings it)" >&2; exit 2; }
[ -x "$tradewind" ] || { echo "http2-suite: there is no $tradewind: build it, or name another" >&2; exit 2; }

dir=$(mktemp -d)
backend="" proxy=""
end() {
    for pid in $backend $proxy; do kill "$pid" 2>/dev/null || true; done
    rm -rf "$dir"
}
trap end EXIT

# What is missed, and why: docs/connections.md.
cat >"$dir/explained" <<'EOF'
RFC 9113 :: 4. http frames :: invalid header block fragment
RFC 9113 :: 5. streams and multiplexing :: closed sends headers frame
RFC 9113 :: 5. streams and multiplexing :: closed sends headers frame after rst stream
RFC 9113 :: 5. streams and multiplexing :: half closed remote sends data frame
RFC 9113 :: 5. streams and multiplexing :: half closed remote sends headers frame
RFC 9113 :: 6. frame definitions :: sends data frame on invalid stream state
RFC 9113 :: 6. frame definitions :: sends ping frame with invalid length
RFC 9113 :: 6. frame definitions :: sends priority frame with invalid length
RFC 9113 :: 6. frame definitions :: sends rst stream frame with invalid length
RFC 9113 :: 6. frame definitions :: sends settings frame with ack and payload
RFC 9113 :: 6. frame definitions :: sends settings frame with invalid length
RFC 9113 :: 6. frame definitions :: sends settings initial window size with exceeded max window size value
RFC 9113 :: 6. frame definitions :: sends settings initial window size with invalid value
RFC 9113 :: 6. frame definitions :: sends window update frame with invalid length
RFC 9113 :: 7. error codes :: sends goaway frame with unknown error code
RFC 9113 :: 8. expressing http semantics in http2 :: client sends push promise frame
RFC 9113 :: 8. expressing http semantics in http2 :: sends connect without authority
RFC 9113 :: 8. expressing http semantics in http2 :: sends headers frame with leading space in field value
RFC 9113 :: 8. expressing http semantics in http2 :: sends headers frame with mismatched host authority
RFC 9113 :: 8. expressing http semantics in http2 :: sends headers frame with pseudo header in trailer
RFC 9113 :: 8. expressing http semantics in http2 :: sends headers frame with trailing tab in field value
EOF

# Answers with 10 kB, which is more than the windows that some tests open.
python3 - "$dir/port" <<'EOF' &
import http.server, sys

class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if "chunked" in self.headers.get("transfer-encoding", ""):
            while size := int(self.rfile.readline(), 16):
                self.rfile.read(size + 2)
            self.rfile.readline()
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(200)
        self.send_header("content-length", "10000")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(bytes(10000))

    do_POST = do_PUT = do_OPTIONS = do_HEAD = do_GET

    def log_message(self, *_):
        pass

# Most of what the suite sends breaks off.
http.server.ThreadingHTTPServer.handle_error = lambda *_: None
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
open(sys.argv[1], "w").write(f"{server.server_port}\n")
server.serve_forever()
EOF
backend=$!

# waits_for WHAT FILE PATTERN
waits_for() {
    tries=0
    until grep -q "$3" "$2" 2>/dev/null; do
        tries=$((tries + 1))
        [ "$tries" -lt 100 ] || { echo "http2-suite: $1 does not start" >&2; cat "$2" >&2; exit 1; }
        sleep 0.1
    done
}
waits_for "the backend" "$dir/port" .
cat >"$dir/t.toml" <<EOF
[listen]
http = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
[state]
dir = "state"
[backends.a]
url = "http://127.0.0.1:$(cat "$dir/port")"
cloud = "other"
region = "a"
egress_usd_per_gb = 0
[routes.all]
match = { path = "/*" }
backends = ["a"]
EOF
"$tradewind" run --config "$dir/t.toml" 2>"$dir/log" &
proxy=$!
waits_for "Tradewind" "$dir/log" "serving http="
address=$(sed -n 's/.*serving http=\([0-9.:]*\).*/\1/p' "$dir/log")

# suite OPTIONS...: without colours, and its report alone. Its own buffers are small, or it takes 256 MiB for each run.
suite() {
    BUFFET_NUM_BUFS=4096 httpwg --frame-timeout 1000 --address "$address" "$@" 2>&1 | sed 's/\x1b\[[0-9;]*m//g' || true
}

# Its names: tests that run all at once disturb each other, and those that stop in the middle have none in its report.
for _ in 1 2 3 4 5; do suite; done >"$dir/all"
sed -n 's/.*Test [a-z]*: \(RFC.*\)/\1/p' "$dir/all" | sort -u >"$dir/names"
: >"$dir/missed"
while IFS= read -r name; do
    # The filter takes names that begin alike, too.
    suite --filter "$name" </dev/null | grep -q "Test passed: $name\$" || echo "$name" >>"$dir/missed"
done <"$dir/names"

total=$(wc -l <"$dir/names") missed=$(wc -l <"$dir/missed")
echo "http2-suite: $((total - missed)) of $total passed"
if new=$(sort "$dir/explained" | comm -13 - "$dir/missed") && [ -n "$new" ]; then
    printf 'http2-suite: not explained in docs/connections.md:\n%s\n' "$new" >&2
    exit 1
fi
if gone=$(sort "$dir/explained" | comm -23 - "$dir/missed") && [ -n "$gone" ]; then
    printf 'http2-suite: explained, but not missed any more:\n%s\n' "$gone"
fi
