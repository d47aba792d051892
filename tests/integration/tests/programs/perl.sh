# Perl: processes, pipes, sockets, locks, signals, threads, sorting and files.
cat > t.pl <<'P'
use strict; use warnings; use POSIX; use IO::Handle; use IO::Select; use Socket; use Fcntl ':flock';
use Time::HiRes qw(usleep ualarm time); use File::Find; use File::Temp 'tempdir'; use Storable qw(nstore retrieve); use Digest::SHA 'sha1_hex'; use IPC::Open3;
$| = 1;
my @kids = map { my $n = $_; my $pid = fork // die; if (!$pid) { exit $n } $pid } 1 .. 6;
my %ended; while ((my $pid = waitpid -1, 0) > 0) { $ended{$pid} = $? >> 8 } print join(' ', map { $ended{$_} } @kids), "\n";
pipe(my $r, my $w); if (!fork) { close $r; print $w "line $_\n" for 1 .. 2000; exit } close $w; my $sum = 0; while (<$r>) { $sum += $1 if /(\d+)/ } wait; print "$sum\n";
socketpair(my $left, my $right, AF_UNIX, SOCK_STREAM, PF_UNSPEC) or die; if (!fork) { close $left; while (<$right>) { print $right uc; $right->flush } exit } close $right;
for (1 .. 200) { print $left "hello $_\n"; $left->flush; my $l = <$left>; $sum += length $l } close $left; wait; print "$sum\n";
socket my $s, AF_UNIX, SOCK_STREAM, 0; bind $s, sockaddr_un('sock') or die $!; listen $s, 5;
if (!fork) { socket my $c, AF_UNIX, SOCK_STREAM, 0; connect $c, sockaddr_un('sock') or die $!; syswrite $c, "from client"; exit } accept my $c, $s; sysread $c, my $buffer, 100; wait; print "$buffer\n";
socket my $c2, AF_UNIX, SOCK_STREAM, 0; print connect($c2, sockaddr_un('none')) ? "?" : "connect: $!\n";
my $got = ''; local $SIG{USR1} = sub { $got .= 'u' }; kill USR1 => $$ for 1 .. 3; print "$got\n";
eval { local $SIG{ALRM} = sub { die "alarm\n" }; ualarm 50_000; select undef, undef, undef, 5; }; print $@;
my $set = POSIX::SigSet->new(SIGUSR1); sigprocmask(SIG_BLOCK, $set); kill USR1 => $$; my $pending = POSIX::SigSet->new; sigpending($pending); print 'pending ', $pending->ismember(SIGUSR1), "\n"; sigprocmask(SIG_UNBLOCK, $set); print "$got\n";
open my $f, '+>', 'locked'; flock $f, LOCK_EX; if (!fork) { open my $g, '<', 'locked'; print flock($g, LOCK_EX | LOCK_NB) ? "?\n" : 'flock: ' . ($! == EWOULDBLOCK ? 'would block' : $!) . "\n"; exit } wait; flock $f, LOCK_UN;
my $pid = open3(my $in, my $out, undef, 'sort', '-n'); print $in "$_\n" for reverse 1 .. 500; close $in; my @sorted = <$out>; waitpid $pid, 0; print scalar(@sorted), " $sorted[0]";
print `echo backtick; exit 3`, $? >> 8, "\n"; system 'kill -9 $$'; print 'signal ', $? & 127, "\n"; print system('no-such-program 2>/dev/null') >> 8, "\n";
my $count = 0; find(sub { $count++ if -f }, '/usr/share/perl'); print $count > 100 ? "found\n" : "?\n"; print sha1_hex(join ',', sort map { $_ * 7 % 1009 } 1 .. 50000), "\n";
nstore { list => [1 .. 1000], text => 'x' x 100000 }, 'stored'; print scalar(@{ retrieve('stored')->{list} }), "\n";
my %h; $h{$_ % 5003} .= chr(65 + $_ % 26) for 1 .. 300000; print scalar(keys %h), ' ', sha1_hex(join '', map { $h{$_} } sort { $a <=> $b } keys %h), "\n";
mkdir 'd' or die; open my $t, '>', "d/$_" for 1 .. 50; opendir my $d, 'd'; print scalar(grep { !/^\./ } readdir $d), "\n"; rename 'd/1', 'd/one'; print -e 'd/one' ? 1 : 0, -e 'd/1' ? 1 : 0, "\n"; print unlink(glob 'd/*'), "\n"; print rmdir('nothing') ? '' : "rmdir: $!\n";
utime 1000, 2000, 'locked'; my @st = stat 'locked'; print "@st[8,9]\n"; chmod 0604, 'locked'; printf "%o\n", (stat 'locked')[2]; print +(POSIX::uname())[0], "\n"; print POSIX::strftime("%Y-%m-%d", gmtime 1e9), "\n";
my $sel = IO::Select->new; pipe(my $pr, my $pw); $sel->add($pr); print scalar(() = $sel->can_read(0.01)), "\n"; syswrite $pw, 'x'; print scalar($sel->can_read(1)), "\n"; my ($p) = grep { -x } '/usr/bin/perl'; print "$p\n"; exec $p, '-e', 'print "exec $ARGV[0]\n"; exit 12', 'done';
P
status perl t.pl
perl -Mthreads -Mthreads::shared -e 'my $n :shared = 0; my @t = map { threads->create(sub { for (1 .. 300) { lock $n; $n++ } $_[0] }, $_) } 1 .. 6; print join(",", map { $_->join } @t), " $n\n"'
perl -ne '$n++ if /\bthe\b/; END { print "$n\n" }' /usr/share/common-licenses/GPL-3; perl -i.bak -pe 's/a/b/' t.pl; cmp -s t.pl t.pl.bak || echo edited; perl -e 'print "x" x 5_000_000' | md5sum; status perl -e 'die "dead\n"'; perldoc -h > /dev/null 2>&1 || true
