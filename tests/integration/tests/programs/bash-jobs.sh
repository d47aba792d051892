# Job control without a terminal: process groups, stop and continue, fg, bg, disown. (With one: terminal.rs.)
set -m
sleep 100 & first=$!
sleep 200 | cat & second=$!
echo "jobs: $(jobs | wc -l)"
jobs
[ "$(ps -o pgid= -p $first)" -eq $first ] && echo own group
kill -STOP %1; until [ "$(ps -o stat= -p $first | cut -c1)" = T ]; do sleep 0.01; done
jobs %1
bg %1 > /dev/null; until [ "$(ps -o stat= -p $first | cut -c1)" = S ]; do sleep 0.01; done
jobs %1
kill %2; wait %2 || echo "second $?"
kill -INT %1; wait %1 || echo "first $?"
jobs
bash -c 'kill -STOP $$; echo continued; exit 6' & child=$!
until [ "$(ps -o stat= -p $child | cut -c1)" = T ]; do sleep 0.01; done
fg %% > /dev/null || echo "fg $?"
(sleep 0.1; exit 3) & fg > /dev/null || echo "fg $?"
sleep 50 & disown; jobs | wc -l; kill $!
trap 'echo chld' CHLD; true & wait $!; trap - CHLD
# A group as a whole is signalled.
bash -c 'sleep 60 | sleep 61 | sleep 62' & group=$!
until [ "$(ps -o pid= --ppid $group | wc -l)" -eq 3 ]; do sleep 0.01; done
kill -TERM -$group; wait $group || echo "group $?"
until [ "$(ps -eo pgid= | grep -cw $group || true)" -eq 0 ]; do sleep 0.01; done; echo gone
timeout --signal=INT 0.1 sleep 10 || echo "timeout $?"
{ timeout -k 0.1 0.1 bash -c 'trap "" TERM; while :; do :; done'; } 2>/dev/null || echo "killed $?"
setsid --wait bash -c '[ "$(ps -o sid= -p $$)" -eq $$ ] && echo session leader; exit 2' || echo "setsid $?"
nohup sh -c 'kill -HUP $$; echo survived' 2>/dev/null
