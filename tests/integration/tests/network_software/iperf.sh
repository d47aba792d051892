# iperf3 both ways, in one stream and in several, TCP and UDP, and both families. How fast is not looked at.
serve() { iperf3 -s --forceflush >"$T/log" 2>&1 & up 127.0.0.1 5201; }
measure() { # NAME IPERF3'S ARGUMENTS
  local name=$1; shift
  # The server ends the test before after the client does.
  for _ in $(seq 50); do
    iperf3 -J "$@" >"$T/said" || true
    grep -q 'server is busy' "$T/said" || break
    sleep 0.1
  done
  python3 - "$name" "$T/said" <<'E'
import json, sys
said = json.load(open(sys.argv[2]))
end = said.get("end", {})
if "error" in said:
    print(sys.argv[1], said["error"])
elif "sum" in end and "packets" in end["sum"]:
    s = end["sum"]
    print(sys.argv[1], "packets", s["packets"] > 100, "mostly there", s["lost_packets"] * 2 < s["packets"], len(end["streams"]))
else:
    sent, received = end["sum_sent"]["bytes"], end["sum_received"]["bytes"]
    print(sys.argv[1], "bytes", sent > 1 << 20, 0 < received <= sent, len(end["streams"]))
E
}
ask() {
  measure tcp -c "$A" -t 1
  measure tcp-back -c "$A" -R -t 1
  measure tcp-both -c "$A" --bidir -t 1
  measure tcp-4 -c "$A" -P 4 -t 1
  measure tcp-4-back -c "$A" -P 4 -R -t 1
  measure tcp-6 -c "$A6" -t 1
  measure tcp-zero-copy -c "$A" -Z -t 1
  measure udp -c "$A" -u -b 10M -t 1
  measure udp-back -c "$A" -u -b 10M -R -t 1
  measure udp-small -c "$A" -u -b 2M -l 100 -P 2 -t 1
  measure count -c "$A" -n 20M
}
