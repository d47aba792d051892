# A repository's life: the hashes are those of a native run, or something is wrong.
export GIT_AUTHOR_NAME=A GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=C GIT_COMMITTER_EMAIL=c@d
export GIT_AUTHOR_DATE='2020-01-01T00:00:00Z' GIT_COMMITTER_DATE='2020-01-01T00:00:00Z' HOME=$work GIT_PAGER=cat
git config --global init.defaultBranch main; git config --global advice.detachedHead false; git config --global protocol.file.allow always
git init -q repo; cd repo
for d in $(seq 1 15); do mkdir d$d; for f in $(seq 1 20); do seq $((d * f)) > d$d/f$f; done; done; chmod +x d1/f1; ln -s d1/f1 link
git add .; git commit -qm first; git rev-parse HEAD; git status --short | wc -l
for i in 1 2 3 4 5 6; do echo $i >> d$i/f$i; git commit -qam "change $i"; done; git log --oneline; git log --stat -1 --format=%s
git checkout -qb side HEAD~3; git mv d1/f1 moved; echo side > d6/f6; git rm -q d15/f20; git commit -qam side; git diff --stat main side
git checkout -q main; git merge -q --no-edit side || { git status --short; git checkout -q --ours d6/f6; git add d6/f6; git commit -qm merged; }
git rev-parse HEAD; git log --graph --oneline | head -5; git blame -s d1/f2 | head -2 | cut -c1-8
git tag -a v1 -m tagged; git describe; git stash list | wc -l; echo dirty >> d5/f5; touch untracked; git status --short; git stash -q; git status --short; git stash pop -q; git diff | grep '^+dirty'; git checkout -q d5/f5
git checkout -qb re main~1; echo re > re; git add re; git commit -qm re; git rebase -q main; git rev-parse HEAD; git log --oneline | wc -l; git cherry-pick side~1 2>/dev/null || { git cherry-pick --abort 2>/dev/null || git reset -q --hard; echo "nothing to pick"; }
cd ..; git clone -q --no-local repo clone; git clone -q repo linked; git clone -q --bare repo bare.git; git clone -q --depth 1 "file://$work/repo" shallow
git -C clone rev-parse HEAD; git -C clone fsck 2>&1 | grep -v '^Checking' || true; git -C shallow log --oneline | wc -l; diff -r --no-dereference -x .git -x untracked repo clone && echo same tree
cd clone; echo pushed > p; git add p; git commit -qm push; git remote set-url origin ../bare.git; git push -q origin HEAD:pushed; cd ../linked; git remote set-url origin ../bare.git; git fetch -q; git rev-parse origin/pushed
cd ../repo; git gc -q --aggressive --prune=now; git count-objects -v | grep -E 'count|in-pack|packs'; git fsck 2>&1 | grep -v '^Checking' || true; git status --short | wc -l; git verify-pack .git/objects/pack/*.idx && echo pack
git repack -adq; git reflog expire --expire=now --all; git worktree add -q ../wt main; git -C ../wt log --oneline | wc -l; git worktree list | wc -l; git grep -c dirty || echo "grep $?"; git archive main | tar -t | wc -l
git bundle create -q ../b.bundle main; git bundle verify -q ../b.bundle && echo bundle; git bisect start HEAD HEAD~5 > /dev/null 2>&1; git bisect run sh -c '! grep -q 4 d4/f4' > /dev/null 2>&1 || true; git bisect reset > /dev/null 2>&1; git format-patch -q -2 -o ../patches; ls ../patches
mkdir .git/hooks -p; printf '#!/bin/sh\necho "hook: $GIT_INDEX_FILE"\n' > .git/hooks/pre-commit; chmod +x .git/hooks/pre-commit; echo h > h; git add h; git commit -qm hooked; status git checkout nothing
