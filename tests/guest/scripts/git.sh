# needs: git
export GIT_AUTHOR_NAME=A GIT_AUTHOR_EMAIL=a@example.org GIT_AUTHOR_DATE='1085227200 +0000'
export GIT_COMMITTER_NAME=C GIT_COMMITTER_EMAIL=c@example.org GIT_COMMITTER_DATE='1085227200 +0000'
export GIT_CONFIG_NOSYSTEM=1 HOME=$PWD
git -c init.defaultBranch=main init -q .
git add poem words sub empty
git commit -q -m 'first commit'
echo change >> poem
git commit -qam second
git log --stat --format='%H %an %s'
git status --short
git diff HEAD~1 | head -20
git checkout -q -b branch
git mv poem verse
git commit -qm third
git log --oneline --graph --all
git checkout -q main
ls
git merge -q branch
git fsck
git gc -q
git count-objects
git grep -c line
git archive HEAD | tar tf - | sort
