# ping by both families, large enough for fragments, quickly, and to nobody. The kernel at the other end answers.
serve() { sleep 1000 & }
heard() { # PING'S ARGUMENTS
  ping "$@" 2>&1 | sed -n 's/, time .*//; /transmitted/p; /bytes from/{s/time=.*//;p}; /Unreachable/{s/.*\(Destination.*\)/\1/;p}' || true
}
ask() {
  heard -c 3 -i 0.1 "$A"
  heard -c 3 -i 0.1 "$A6"
  heard -c 2 -i 0.1 -s 4000 "$A"
  heard -c 2 -i 0.1 -s 20000 "$A6"
  heard -c 2 -i 0.1 -s 1473 -M do "$A"
  heard -c 100 -i 0.002 -q "$A"
  heard -c 2 -i 0.1 -t 7 -p c0ff "$A"
  heard -c 1 -W 6 10.99.0.77
}
