# git's own tests, of what the plumbing rests on: the programs are built from the same source, as plain as can be.
prepare() {
  make -j2 NO_CURL=1 NO_OPENSSL=1 NO_EXPAT=1 NO_GETTEXT=1 NO_TCLTK=1 NO_PYTHON=1 CFLAGS=-O0 all
}
# All of the groups but those that take more than a second natively.
list() {
  (cd t && ls t0*.sh t1[0-4]*.sh t20*.sh) | grep -vE "^t($(tr -d ' \n' <<<"$slow"))-"
}
slow='0000|0001|0008|0010|0021|0027|0052|0090|0301|0410|0450|1000|1006|1013|1050|1091|1092|1300|1400|1401|1404|1410|1413|1414|1415|
  1416|1417|1430|1450|2004|2012|2013|2018|2020|2024|2025|2030|2060|2071|2080'
one() {
  cd t && TEST_NO_MALLOC_CHECK=1 GIT_TEST_CMP=cmp sh "./$1" --root="/tmp/git-trash.$1"
  local status=$?
  rm -rf "/tmp/git-trash.$1"
  return "$status"
}
