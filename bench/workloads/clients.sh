#!/bin/bash
# What podman and containerd take for a container of the runtime in RUNTIME, from the command's start to its end: a line a row, with
# nanoseconds, the median of TIMES. Everything lies under WORK.
mkdir -p "$WORK"
. "$(dirname "$0")/../../tests/integration/clients/lib.sh"
image=localhost/bb:latest
busybox_tar "$WORK/bb.tar"
# Prints the row, or on stderr what the command said when it failed.
row() { # NAME COMMAND...
  local name=$1 begun n; shift
  for ((n = 0; n < TIMES; n++)); do
    begun=${EPOCHREALTIME/./}
    "$@" >"$WORK/says" 2>&1 || { echo "$name: $(cat "$WORK/says")" >&2; return; }
    echo $((${EPOCHREALTIME/./} - begun))
  done | sort -n | awk -v name="$name" '{ all[NR] = $1 } END { if (NR) printf "%s %d000\n", name, all[int((NR + 1) / 2)] }'
}
if command -v podman >/dev/null; then
  podman_conf 'default_ulimits = ["nofile=20000:20000", "nproc=32768:32768"]'
  p() { podman --runtime "$RUNTIME" --tmpdir "$WORK/tmp" "$@"; }
  p import -c 'CMD ["/bin/sh"]' "$WORK/bb.tar" $image >/dev/null 2>&1
  row 'podman run --rm true' p run --rm --network none $image true
  p system reset -f >/dev/null 2>&1
else
  echo 'podman is not installed (apt-get install podman): no row for it' >&2
fi
if command -v containerd >/dev/null; then
  containerd_begin
  image_tar "$WORK/image.tar" $image "$WORK/bb.tar" '{"Cmd":["/bin/sh"],"Env":["PATH=/bin"]}'
  c images import "$WORK/image.tar" >/dev/null
  row 'ctr run --rm true' c run --runtime io.containerd.runc.v2 --runc-binary "$RUNTIME" --rm $image r true
  containerd_end $image
else
  echo 'containerd is not installed (apt-get install containerd): no row for it' >&2
fi
