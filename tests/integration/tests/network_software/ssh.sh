# sshd with a key: commands, streams both ways, a terminal, files, forwarded ports, several sessions in one connection.
prepare() {
  ssh-keygen -q -t ed25519 -N '' -f key; ssh-keygen -q -t ed25519 -N '' -f host
  files 8m 8388608
}
serve() {
  mkdir -p /run/sshd "$T/ssh"; cp "$W/host" "$W/key.pub" "$T/ssh"; chmod 600 "$T/ssh/host"
  $(command -v sshd) -D -e -p 2222 -o HostKey="$T/ssh/host" -o AuthorizedKeysFile="$T/ssh/key.pub" -o StrictModes=no -o UsePAM=no \
    -o PidFile=none -o PermitRootLogin=yes -f /dev/null -o Subsystem='sftp internal-sftp' -o MaxStartups=100 2>"$T/log" &
  up 127.0.0.1 2222
}
ask() {
  mkdir -p "$T/ssh"; cp "$W/key" "$T/ssh"; chmod 600 "$T/ssh/key"
  opts=(-i "$T/ssh/key" -o UserKnownHostsFile="$T/ssh/known" -o StrictHostKeyChecking=no -o LogLevel=ERROR -F /dev/null)
  go() { ssh "${opts[@]}" -p 2222 "root@$A" "$@" </dev/null; }
  go 'echo hello; echo complaint >&2; exit 3' 2>&1 || echo "status $?"
  go 'cat /dev/zero | head -c 20000000' | md5
  ssh "${opts[@]}" -p 2222 "root@$A" md5sum <"$W/8m"
  ssh "${opts[@]}" -tt -p 2222 "root@$A" 'tty | sed s,[0-9]*$,N,; stty -g >/dev/null && echo a terminal' </dev/null | tr -d '\r'
  (cd "$T" && scp -q "${opts[@]}" -P 2222 "root@[$A6]:$W/8m" copy && md5 <copy)
  printf 'ls -1 %s/8m\nquit\n' "$W" | sftp -q "${opts[@]}" -P 2222 "root@$A" | grep -c '8m$'
  for n in 1 2 3 4 5 6; do (go "echo session $n; head -c 500000 /dev/zero | md5sum") >"$T/s$n" & all+=($!); done
  wait "${all[@]}"; cat "$T"/s[1-6]
  # What the server reaches for us: its own sshd says who it is.
  ssh "${opts[@]}" -p 2222 -f -N -M -S "$T/ssh/control" -L 2200:127.0.0.1:2222 "root@$A"
  timeout 10 bash -c 'exec 3<>/dev/tcp/127.0.0.1/2200; head -c 7 <&3; echo'
  ssh -S "$T/ssh/control" none 'echo through the same connection'
  ssh -S "$T/ssh/control" -O exit none 2>&1
}
