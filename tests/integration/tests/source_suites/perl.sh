# perl's own tests with Debian's perl: how they are made ready, which there are, and how one is run (in its folder `t`).
prepare() {
  local libs
  libs=$(perl -MConfig -e 'print "$Config{privlibexp} $Config{archlibexp}"') || return
  ln -sf "$(command -v perl)" t/perl
  # The tests want the library beside them: that of the perl they test, and what only they use.
  mv lib lib.source && mkdir lib || return
  for from in $libs "$(dirname "${libs##* }")-base"; do
    [ ! -d "$from" ] || cp -rL "$from/." lib/ || return
  done
  cp -rn lib.source/. lib/
}
# goto_xs wants a module that is built for the tests only; socket.t the Internet's sockets, of which there are none yet.
list() { (cd t && ls base/*.t cmd/*.t comp/*.t io/*.t op/*.t) | grep -vxE 'op/goto_xs.t|io/socket.t'; }
# No terminal is there to test with, natively neither.
one() { cd t && PERL_SKIP_TTY_TEST=1 PERL_CORE=1 PERL_HASH_SEED=0 PERL_PERTURB_KEYS=0 ./perl -I../lib "$1"; }
