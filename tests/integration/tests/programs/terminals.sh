# Programs that make terminals of their own and run others in them: script, tmux, screen, expect; and vim and less in those.
export TERM=screen HOME=$work PS1='> ' TMUX_TMPDIR=$work SCREENDIR=$work/screens
trap 'tmux kill-server 2> /dev/null || true; screen -S two -X quit > /dev/null || true; cd /; rm -rf "$work"' EXIT
mkdir -m 700 screens
# Waits until a command's output has a line that is wanted.
seen() { local want=$1; shift; for _ in $(seq 300); do "$@" 2> /dev/null | grep -qx -- "$want" && return; sleep 0.1; done; echo "never seen: $want"; "$@"; }
plain() { tr -d '\r' | sed '/^$/d'; }

echo script; script -q -c 'stty rows 7 cols 33; stty size; stty -a | head -n 1; tty | sed "s,[0-9]*$,N,"' log | tr -d '\r'; grep -c '^7 33' log
status script -q -e -c 'exit 3' /dev/null; status script -q -e -c 'kill -TERM $$' /dev/null
script -q -c 'stty -echo -onlcr; printf "a\nb\n"; stty raw; printf "c\nd\n"' /dev/null | od -c
printf 'typed\n\004' | script -q -c cat /dev/null | plain

echo tmux; tmux -f /dev/null new-session -d -x 60 -y 12 -s one 'PS1="> " sh'; shown() { tmux capture-pane -p -t one.0; }
seen '>' shown; tmux send-keys -t one 'stty size; tty | sed s,[0-9].*,N,; echo do"ne"' Enter; seen done shown; shown | plain
tmux split-window -d -t one 'sleep 100'; tmux list-panes -t one -F '#{pane_index} #{pane_width}x#{pane_height}'
tmux send-keys -t one.0 'clear; trap "echo changed; stty size" WINCH' Enter; tmux resize-pane -t one.0 -y 4; tmux send-keys -t one.0 'stty size; echo af"ter"' Enter; seen after shown
tmux send-keys -t one.0 'clear; sleep 50' Enter; seen sleep tmux display-message -p -t one.0 '#{pane_current_command}'; tmux send-keys -t one.0 C-z; tmux send-keys -t one.0 'clear; jobs; echo ba"ck"' Enter; seen back shown; shown | plain | grep -o Stopped
tmux new-window -t one -n edit 'vim.tiny -u NONE -n text'; tmux send-keys -t one:edit 'ione' Enter 'two' Escape ':wq' Enter; seen two cat text; cat text
tmux new-window -t one -n look 'seq 100 | less'; look() { tmux capture-pane -p -t one:look; }; seen 1 look; tmux send-keys -t one:look G; seen 100 look; look | tail -n 2 | head -n 1; tmux send-keys -t one:look q
tmux list-sessions -F '#{session_name}'
(sleep 1; until [ "$(tmux list-clients | wc -l)" = 1 ]; do sleep 0.1; done; tmux detach-client -s one) & script -q -c 'stty rows 12 cols 60; tmux attach -t one' /dev/null | grep -o 'detached (from session one)'; wait $!
tmux kill-server; until ! tmux list-sessions > /dev/null 2>&1; do sleep 0.1; done; echo gone

echo screen; screen -dmS two sh; copy() { screen -S two -X hardcopy "$work/copy"; cat "$work/copy"; }
until screen -S two -X stuff ''> /dev/null; do sleep 0.1; done; screen -S two -X stuff 'tty | sed s,[0-9].*,N,; echo do"ne"\n'; seen done copy; seen /dev/pts/N copy
screen -ls | grep -c two; screen -S two -X quit; until ! screen -ls | grep -q two; do sleep 0.1; done; echo gone

echo expect; expect -f - <<'E'
log_user 0
set timeout 30
proc wait_for {what told} { expect -re $what { puts $told } timeout { puts "no $told"; exit 1 } }
spawn sh
wait_for {> $} shell
send "PS1='ok> '\r"; wait_for {\r\nok> $} prompt
send "echo \$((6 * 7))\r"; wait_for {\n42\r\nok> $} answer
send "cat\r"; wait_for "cat\r\n" started; send "line\r"; wait_for "line\r\nline\r\n" echo; send "\003"; wait_for "ok> $" interrupted
send "cat\r"; wait_for "cat\r\n" started; send "end\r\004"; wait_for "end\r\nend\r\nok> $" ended
send "cat\r"; wait_for "cat\r\n" started; send "more\r"; wait_for "more\r\nmore\r\n" echo; send "\032"; wait_for "Stopped.*ok> $" stopped; send "fg\r"; wait_for "fg\r\ncat\r\n" resumed; send "last\r\004"; wait_for "last\r\nlast\r\nok> $" ended
send "exit 5\r"; expect eof { puts end }
puts "status [lindex [wait] 3]"
E
