#!/bin/bash
# buildah and `podman build`, with RUN steps in the runtime in RUNTIME.
. "$(dirname "$0")/lib.sh"
export CONTAINERS_CONF=$WORK/containers.conf CONTAINERS_STORAGE_CONF=$WORK/storage.conf BUILDAH_ISOLATION=oci
printf '[containers]\ndefault_ulimits = ["nofile=20000:20000", "nproc=32768:32768"]\n[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n' >"$CONTAINERS_CONF"
printf '[storage]\ndriver = "overlay"\ngraphroot = "%s/graph"\nrunroot = "%s/run"\n' "$WORK" "$WORK" >"$CONTAINERS_STORAGE_CONF"
busybox_tar "$WORK/bb.tar"
b() { timeout 60 buildah "$@" 2>&1; }
p() { timeout 60 podman --runtime "$RUNTIME" --tmpdir "$WORK/tmp" "$@" 2>&1; }
c=$(b from scratch)
b add "$c" "$WORK/bb.tar" / >/dev/null
check run 'ran' "$(b run --network none --runtime "$RUNTIME" "$c" -- echo ran)"
b run --network none --runtime "$RUNTIME" "$c" -- sh -c 'exit 5' >/dev/null; check run-status 5 $?
b run --network none --runtime "$RUNTIME" "$c" -- sh -c 'mkdir -p /made; echo content >/made/f; chown 5:6 /made/f; chmod 640 /made/f; ln -s f /made/l'
check run-kept content "$(b run --network none --runtime "$RUNTIME" "$c" -- cat /made/l)"
check commit '*' "$(b commit -q "$c" localhost/base)"
b rm "$c" >/dev/null
mkdir -p "$WORK/context"; echo copied >"$WORK/context/file"
cat >"$WORK/context/Containerfile" <<'F'
FROM localhost/base AS one
RUN echo step >/step && stat -c '%u:%g %a' /made/f >/owner
WORKDIR /w
RUN pwd >/cwd
FROM localhost/base
COPY file /file
COPY --from=one /step /owner /cwd /from-one/
RUN cat /file /from-one/step /from-one/owner /from-one/cwd >/all
USER 65534
RUN id -u >/tmp/who
CMD ["cat", "/all", "/tmp/who"]
F
check bud '*' "$(b bud --network none --runtime "$RUNTIME" -q -t localhost/built "$WORK/context")"
check built $'copied\nstep\n5:6 640\n/w\n65534' "$(p run --rm --network none localhost/built)"
check podman-build '*' "$(p build --network none -q -t localhost/built2 "$WORK/context")"
check podman-built $'copied\nstep\n5:6 640\n/w\n65534' "$(p run --rm --network none localhost/built2)"
p rmi -af >/dev/null
